"""Probes that every memory of tokens has to pass, whatever is inside it.

A probe takes a `Subject` and raises AssertionError, with words that name the fault. A new memory is one line in
`tests/probe_subjects.py`; `tests/test_probes.py` runs all probes on all subjects, and each probe on memories that were
broken on purpose, which it must catch.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

BATCH, LENGTH = 3, 21
CUTS: dict[str, Sequence[int]] = {
    "aligned": (8, 16),
    "ragged": (5, 5, 6, 13),
    "one by one": tuple(range(1, LENGTH)),
}


@dataclasses.dataclass(frozen=True)
class Subject:
    """A memory under test.

    Args     name: for the report. build: dtype -> a module with forward(x, state, lengths) -> (y, state), x and y
             (B, T, ...). width: numbers in a token; 0 for token numbers below `vocabulary`. lengths: whether it knows
             padding. padding_counts: whether padding takes its place in the clock of the chunks, so that a stream that
             was padded goes on otherwise than one that was not. watch: state -> the tensors that should move, by name.
             periods: how often each does, in tokens; names that `levels()` of the module has too must agree with it.
             pair: (n, dtype) -> x with one pair n times, and its value; None if there is no such thing. recall: n ->
             relative error allowed. horizon: tokens that an output can see, None for all. limits: probe -> what its
             failure says, for what is known not to work; such a probe must fail, and with these words.
    """

    name: str
    build: Callable[[torch.dtype], nn.Module]
    width: int
    vocabulary: int = 0
    lengths: bool = True
    padding_counts: bool = False
    watch: Callable[[Any], Mapping[str, Tensor]] | None = None
    periods: Mapping[str, float] = dataclasses.field(default_factory=dict)
    pair: Callable[[int, torch.dtype], tuple[Tensor, Tensor]] | None = None
    recall: Mapping[int, float] = dataclasses.field(default_factory=dict)
    horizon: int | None = None
    limits: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def module(self, dtype: torch.dtype = torch.float64) -> nn.Module:
        """Return the module with the same random weights at every call and, but for rounding, in every dtype."""
        torch.manual_seed(1)
        exact = self.build(torch.float64)
        if dtype is torch.float64:
            return exact
        module = self.build(dtype)
        module.load_state_dict(exact.state_dict())
        return module

    def inputs(self, seed: int, length: int = LENGTH, batch: int = BATCH, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return random tokens, the same for the same seed."""
        generator = torch.Generator().manual_seed(seed)
        if self.vocabulary:
            return torch.randint(self.vocabulary, (batch, length), generator=generator)
        return torch.randn(batch, length, self.width, generator=generator, dtype=torch.float64).to(dtype)


def tensors_of(state: Any) -> list[Tensor]:
    """Return all floating-point tensors in a state of any kind."""
    if isinstance(state, Tensor):
        return [state] if state.is_floating_point() else []
    if dataclasses.is_dataclass(state):
        state = [getattr(state, field.name) for field in dataclasses.fields(state)]
    if isinstance(state, Mapping):
        state = list(state.values())
    return [tensor for part in state for tensor in tensors_of(part)] if isinstance(state, list | tuple) else []


def run(module: nn.Module, x: Tensor, cuts: Sequence[int] = (), lengths: Tensor | None = None) -> tuple[Tensor, Any]:
    """Read x in parts."""
    answers, state, begin = [], None, 0
    for end in (*cuts, x.shape[1]):
        left = () if lengths is None else ((lengths - begin).clamp(0, end - begin),)
        y, state = module(x[:, begin:end], state, *left)
        answers.append(y)
        begin = end
    return torch.cat(answers, 1), state


def same(one: Tensor, other: Tensor, fault: str, tolerance: float = 1e-9) -> None:
    """Raise unless both are the same up to rounding, relative to the largest number."""
    assert one.shape == other.shape, f"{fault}: shapes {tuple(one.shape)} and {tuple(other.shape)}"
    if not one.numel():
        return
    error = (one - other).abs().max().item() / max(1.0, other.abs().max().item())
    assert error <= tolerance, f"{fault}: relative error {error:.2g}"


def same_states(one: Any, other: Any, fault: str, tolerance: float = 1e-9) -> None:
    """Raise unless two states hold the same numbers."""
    found, expected = tensors_of(one), tensors_of(other)
    assert len(found) == len(expected), f"{fault}: {len(found)} tensors in a state, {len(expected)} in the other"
    for a, b in zip(found, expected, strict=True):
        same(a, b, fault, tolerance)


def causality(subject: Subject) -> None:
    """No output may know a later token, nor how long the stream will be."""
    module, x, other = subject.module(), subject.inputs(1), subject.inputs(2)
    y, _ = run(module, x)
    for t in (1, 4, 8, 13, 16, LENGTH - 1):
        changed = torch.cat([x[:, :t], other[:, t:]], 1)
        z, _ = run(module, changed)
        same(z[:, :t], y[:, :t], f"outputs before {t} change with the tokens from {t} on")
        assert not torch.equal(z[:, t:], y[:, t:]), f"no output from {t} on notices that its tokens have changed"
        shorter, _ = run(module, x[:, :t])
        same(shorter, y[:, :t], f"outputs before {t} depend on whether the stream goes on")


def isolation(subject: Subject) -> None:
    """No item of a batch may notice the others."""
    module, x, other = subject.module(), subject.inputs(1), subject.inputs(2)
    mixed = torch.cat([other[:1], x[1:]])
    lengths = [None, torch.tensor([9, LENGTH, 5])] if subject.lengths else [None]
    for many in lengths:
        y, _ = run(module, x, (6,), many)
        z, _ = run(module, mixed, (6,), many)
        same(z[1:], y[1:], "an output changes with another item of the batch")
        assert not torch.equal(z[0], y[0]), "no output of the changed item changed"
        alone, _ = run(module, x[1:2], (6,), None if many is None else many[1:2])
        same(alone, y[1:2], "an item alone is answered otherwise than in a batch", 1e-8)


def padding(subject: Subject) -> None:
    """Padding writes nothing and is answered 0; a stream with padding is the stream without it, also as it goes on."""
    if not subject.lengths:
        return
    module, x, more = subject.module(), subject.inputs(1), subject.inputs(3, 7)
    lengths = torch.tensor([LENGTH, 0, 10])
    y, state = run(module, x, (8,), lengths)
    garbage = x.clone()
    for b, length in enumerate(lengths.tolist()):
        garbage[b, length:] = 1 if subject.vocabulary else 1e6
        assert not y[b, length:].any(), "padding is not answered 0"
    z, after = run(module, garbage, (8,), lengths)
    same(z, y, "an output depends on what stands in the padding")
    same_states(after, state, "the state depends on what stands in the padding")
    went_on, _ = module(more, state)
    for b, length in enumerate(lengths.tolist()):
        alone, begun = run(module, x[b : b + 1, :length], (8,) if length > 8 else ()) if length else (y[:0], None)
        same(y[b : b + 1, :length], alone, "an output depends on the padding after it") if length else None
        if not subject.padding_counts:
            goes_on, _ = module(more[b : b + 1], begun)
            same(went_on[b : b + 1], goes_on, "a stream that was padded goes on otherwise than without padding")


def gradients(subject: Subject) -> None:
    """Every parameter, and every token, gets a gradient that is finite and not zero; writes are trained as well."""
    module, x = subject.module(), subject.inputs(1)
    inputs = x if subject.vocabulary else x.requires_grad_()
    y, _ = run(module, inputs, (7,))
    (y * weights_like(y)).sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, f"{name} gets no gradient"
        assert parameter.grad.isfinite().all(), f"the gradient of {name} is not finite"
        assert parameter.grad.any(), f"the gradient of {name} is zero"
    if subject.vocabulary:
        return
    assert inputs.grad is not None and inputs.grad.isfinite().all(), "the gradient of the tokens is not finite"
    assert inputs.grad.flatten(2).any(-1).all(), "some token gets no gradient"
    cut = 7 if subject.horizon is None else LENGTH - subject.horizon + 1
    last = run(module, inputs, (cut,))[0][:, -1]
    (early,) = torch.autograd.grad((last * weights_like(last)).sum(), inputs)
    assert early[:, :cut].any(), "the last output sends no gradient to the tokens before a cut: writes are not trained"


def streams(subject: Subject) -> None:
    """A stream cut anywhere equals the whole: outputs, final state, gradients."""
    module, x = subject.module(), subject.inputs(1)
    parameters = list(module.parameters())
    whole, state = run(module, x)
    expected = torch.autograd.grad((whole * weights_like(whole)).sum(), parameters) if parameters else ()
    for name, cuts in CUTS.items():
        y, after = run(module, x, cuts)
        same(y, whole, f"a stream cut {name} is answered otherwise")
        same_states(after, state, f"a stream cut {name} ends in another state")
        found = torch.autograd.grad((y * weights_like(y)).sum(), parameters) if parameters else ()
        for one, other in zip(found, expected, strict=True):
            same(one, other, f"a stream cut {name} has other gradients", 1e-8)


def recall(subject: Subject) -> None:
    """One pair written n times is answered with its value, however often it was written."""
    for n, allowed in subject.recall.items():
        assert subject.pair is not None
        x, value = subject.pair(n, torch.float64)
        with torch.no_grad():
            y, _ = run(subject.module(), x)
        error = ((y[:, -1] - value).norm() / value.norm()).item()
        assert error <= allowed, f"a pair written {n} times is answered with relative error {error:.3g} > {allowed:g}"


def periods(subject: Subject, length: int = 32) -> None:
    """Every part of the state moves as often as promised: in tokens 2 to `length`, once a period."""
    if subject.watch is None:
        return
    module, x, state = subject.module(), subject.inputs(1, length), None
    promised = {part.name: part.period for part in module.levels()} if hasattr(module, "levels") else {}
    for name in promised.keys() & subject.periods.keys():
        assert promised[name] == subject.periods[name], f"levels() says {promised[name]} for {name}"
    moves, before = dict.fromkeys(subject.periods, 0), {}
    with torch.no_grad():
        for token in x.split(1, 1):
            _, state = module(token, state)
            now = subject.watch(state)
            assert set(now) == set(subject.periods), f"watched {sorted(now)}, promised {sorted(subject.periods)}"
            for name, tensor in now.items():
                assert tensor.isfinite().all(), f"{name} is not finite"
                moves[name] += name in before and not torch.equal(tensor, before[name])
            before = {name: tensor.clone() for name, tensor in now.items()}
    for name, period in subject.periods.items():
        last, first = (length, length - 1) if math.isfinite(period) else (0, 0)
        allowed = {last // period, first // period} if last else {0}  # moves at the end, or at the start, of a period
        allowed = {count - (period == 1 and count == length) for count in allowed}  # the first move is not seen
        assert moves[name] in allowed, f"{name} moved {moves[name]} times in {length} tokens, promised {allowed}"


def extremes(subject: Subject) -> None:
    """Constant, zero, tiny and repeated inputs give finite outputs, states and gradients, in float32."""
    x = subject.inputs(1, 24, 2, torch.float32)
    stay_finite(subject, {"constant": torch.ones_like(x), "one token repeated": x[:, :1].expand_as(x)})
    if not subject.vocabulary:
        stay_finite(subject, {"zero": torch.zeros_like(x), "tiny": 1e-30 * x})


def huge(subject: Subject) -> None:
    """So do inputs of size 10^4, one or the same again and again."""
    x = subject.inputs(1, 24, 2, torch.float32)
    if not subject.vocabulary:
        stay_finite(subject, {"huge": 1e4 * x, "huge and repeated": 1e4 * x[:, :1].expand_as(x)})


def stay_finite(subject: Subject, cases: Mapping[str, Tensor]) -> None:
    """Raise unless outputs, states and gradients of all these inputs are finite."""
    for name, given in cases.items():
        module = subject.module(torch.float32)
        x = given.clone() if subject.vocabulary else given.clone().requires_grad_()
        y, state = run(module, x, (10,))
        y.square().mean().backward()
        assert y.isfinite().all(), f"{name} input: the outputs are not finite"
        assert all(tensor.isfinite().all() for tensor in tensors_of(state)), f"{name} input: the state is not finite"
        for part, tensor in [*module.named_parameters(), ("the tokens", x)]:
            finite = tensor.grad is None or tensor.grad.isfinite().all()
            assert finite, f"{name} input: the gradient of {part} is not finite"


def dtypes(subject: Subject) -> None:
    """float32 and bfloat16 give what float64 gives, as exactly as they can, and come back as they went in."""
    exact, _ = run(subject.module(), subject.inputs(1))
    for dtype, tolerance in {torch.float32: 1e-4, torch.bfloat16: 0.1}.items():
        y, state = run(subject.module(dtype), subject.inputs(1, dtype=dtype), (6,))
        assert y.dtype == dtype, f"the outputs of {dtype} are {y.dtype}"
        error = ((y.double() - exact).norm() / exact.norm()).item()
        assert error <= tolerance, f"{dtype} is answered with relative error {error:.2g}"
        assert all(tensor.isfinite().all() for tensor in tensors_of(state)), f"the state of {dtype} is not finite"


def functional(subject: Subject) -> None:
    """The gradient of a functional call by torch.func is that of `backward`."""
    module, x = subject.module(), subject.inputs(1, 9)
    parameters = {name: parameter.detach() for name, parameter in module.named_parameters()}
    if not parameters:
        return
    found = grad(lambda weights: functional_call(module, weights, (x,))[0].square().sum())(parameters)
    module(x)[0].square().sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, f"{name} gets no gradient"
        same(found[name], parameter.grad, f"torch.func.grad of {name}", 1e-8)


def vectorised(subject: Subject) -> None:
    """vmap over a batch of batches gives what each batch alone gives."""
    module = subject.module()
    many = torch.stack([subject.inputs(1, 9), subject.inputs(2, 9)])
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "There is a performance drop", UserWarning
        )  # torch's own, for fused attention
        together = vmap(lambda x: module(x)[0])(many)
    for one, alone in zip(together, many, strict=True):
        same(one, module(alone)[0], "vmap")


def compiled(subject: Subject) -> None:
    """torch.compile takes it as one graph, without and with a state, and gives the same."""
    module, x = subject.module(), subject.inputs(1, 5, 2)
    torch._dynamo.reset()
    graph = torch.compile(subject.module(), backend="eager", fullgraph=True)
    with torch.no_grad():
        (y, state), (z, after) = module(x), graph(x)
        same(z, y, "compiled")
        same(graph(x, after)[0], module(x, state)[0], "compiled, with a state")


def weights_like(y: Tensor) -> Tensor:
    """Return random numbers, always the same, to make one number of many outputs."""
    return torch.randn(y.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64).to(y.dtype)


PROBES: dict[str, Callable[[Subject], None]] = {
    probe.__name__: probe
    for probe in (
        causality,
        isolation,
        padding,
        gradients,
        streams,
        recall,
        periods,
        extremes,
        huge,
        dtypes,
        functional,
        vectorised,
        compiled,
    )
}
