"""Self-modifying memories: Eq. 83-93, the plain loop by hand, the chunk form against it."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize, silu

from nlcore.sequence.self_modifying import (
    Boxes,
    Rules,
    self_modifying_memory,
    transition_eigenvalue,
)
from nlcore.sequence.self_modifying.chunks import segment_sizes

B, H, T, D = 2, 2, 17, 3
F64 = torch.float64
CHUNKS = [(1, 1), (4, 4), (8, 3), (3, 8), (5, 2), (64, 64), (1, 7)]
SETTINGS: dict[str, dict] = {
    "default": {},
    "zero": {"decay_to": "zero"},
    "no fading": {"retain": 1.0},
    "fixed retain": {"retain": 0.9},
    "fixed retain to zero": {"retain": 0.9, "decay_to": "zero"},
    "literal L2": {
        "rule": "dgd_l2",
        "lr_max": 0.2,
        "decay_to": "zero",
        "unit_values": False,
        "own_value": False,
        "silu": False,
    },
    "hebbian": {"rule": "hebbian", "target_bound": 1.0},
    "hebbian, momentum to zero": {"rule": "hebbian", "momentum": 0.5, "decay_to": "zero", "lr_max": 0.3},
    "momentum": {"momentum": 0.8, "lr_max": 0.5},
    "momentum to zero": {"momentum": 0.8, "lr_max": 0.5, "decay_to": "zero", "rule": "dgd_l2"},
    "momentum, no fading": {"momentum": 0.8, "lr_max": 0.5, "retain": 1.0},
    "memory only": {"rewrite": ("memory",)},
    "keys and memory": {"rewrite": ("k", "memory"), "momentum": 0.5},
    "all but memory": {"rewrite": ("lr", "v", "retain")},
    "nothing": {"rewrite": ()},
    "adaptive q": {"adaptive_q": True},
    "bounded": {"target_bound": 0.3},
    "detach": {"detach": True},
    "detach, momentum": {"detach": True, "momentum": 0.5, "lr_max": 0.5},
}


def stream(rules: Rules, length: int = T, seed: int = 0, rate: float | None = None, batch: int = B, d: int = D):
    """Tokens, queries and boxes in float64, all of which want gradients."""
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw, dtype=F64)

    height = sum(rules.height(name, d) for name in rules.boxes)
    boxes = Boxes(0.5 * normal(H, height, d), 0.3 * normal(H), 2.0 + 0.3 * normal(H))
    boxes = boxes if rate is None else boxes._replace(rate=torch.tensor(rate, dtype=F64))
    x, q = normal(batch, H, length, d), normalize(normal(batch, H, length, d), dim=-1)
    return x, None if rules.adaptive_q else q, boxes


def unit(x: Tensor) -> Tensor:
    return x / (x.square().sum() + 1e-6).sqrt()


def by_hand(x: Tensor, q: Tensor | None, boxes: Boxes, rules: Rules, start: int = 0) -> tuple[Tensor, Tensor]:
    """Read each stream and head alone with matrices and vectors; no code of the library but the order of the rows."""
    everything, states = [], []
    for item in range(x.shape[0]):
        for h in range(H):
            M0 = {name: boxes.start[h, rows] for name, rows in rules.rows(x.shape[-1]).items()}
            M, anchor, Z = dict(M0), dict(M0), {name: torch.zeros_like(m) for name, m in M0.items()}
            for t in range(x.shape[2]):
                for name in M:
                    if t % (rules.memory_chunk if name == "memory" else rules.projection_chunk) == 0:
                        anchor[name] = M[name]
                x_t = x[item, h, t]
                bend = silu if rules.silu else (lambda z: z)
                k, v = unit(bend(anchor["k"] @ x_t)), anchor["v"] @ x_t
                v = unit(v) if rules.unit_values else v
                lr = rules.lr_max * torch.sigmoid((anchor["lr"] @ x_t).squeeze() + boxes.lr_bias[h])
                alpha = torch.as_tensor(rules.retain or 0.0, dtype=F64)
                if rules.retain is None:
                    alpha = torch.sigmoid((anchor["retain"] @ x_t).squeeze() + boxes.retain_bias[h])
                q_t = unit(bend(anchor["q"] @ x_t)) if rules.adaptive_q else q[item, h, t]
                everything.append(M["memory"] @ q_t)
                for name in M:
                    if name not in rules.rewrite and not (name == "q" and rules.adaptive_q):
                        continue
                    target = anchor[name] @ v
                    if name == "memory" and rules.own_value:
                        target = target + v
                    if rules.target_bound is not None:
                        length = target.abs() if len(target) == 1 else (target.square().sum() + 1e-6).sqrt()
                        target = target * (rules.target_bound / length).clamp(max=1.0)
                    gradient = anchor[name] @ k - target if rules.rule == "dgd_l2" else -target
                    eta = lr if boxes.rate is None or name == "memory" else lr * boxes.rate
                    Z[name] = rules.momentum * Z[name] - eta * torch.outer(gradient, k)
                    back = M0[name] if rules.decay_to == "start" else torch.zeros_like(M0[name])
                    erased = 0.0 if rules.rule == "hebbian" else eta
                    P = alpha * torch.eye(len(k), dtype=F64) - erased * torch.outer(k, k)
                    M[name] = M[name] @ P + (1 - alpha) * back + Z[name]
            states.append(torch.cat([M[name] for name in rules.boxes]))
    shape = (*x.shape[:2], x.shape[2], x.shape[3])
    return torch.stack(everything).view(shape), torch.stack(states).unflatten(0, x.shape[:2])


def both(name: str, chunks: tuple[int, int]) -> Rules:
    return Rules(memory_chunk=chunks[0], projection_chunk=chunks[1], **SETTINGS[name])


def gap(a: object, b: object) -> float:
    """The largest difference between two results, states included."""
    if isinstance(a, tuple):
        assert isinstance(b, tuple) and len(a) == len(b)
        return max((gap(x, y) for x, y in zip(a, b, strict=True)), default=0.0)
    if isinstance(a, Tensor):
        assert isinstance(b, Tensor) and a.shape == b.shape and a.dtype == b.dtype
        return (a - b).abs().max().item() if a.numel() else 0.0
    assert a == b
    return 0.0


@pytest.mark.parametrize("chunks", CHUNKS[:5])
@pytest.mark.parametrize("name", [name for name in SETTINGS if "detach" not in name])
def test_plain_loop_is_the_written_recurrence(name: str, chunks: tuple[int, int]) -> None:
    rules = both(name, chunks)
    x, q, boxes = stream(rules, rate=0.3 if name in ("zero", "momentum", "bounded") else None)
    y, state = self_modifying_memory(x, q, boxes, rules, token_by_token=True)
    y_hand, S_hand = by_hand(x, q, boxes, rules)
    assert gap(y, y_hand) < 1e-10 and gap(state.S, S_hand) < 1e-10


def run_and_differentiate(rules: Rules, token_by_token: bool, rate: float | None, length: int = T, **more: object):
    x, q, boxes = stream(rules, length=length, rate=rate)
    leaves = [leaf.requires_grad_() for leaf in (x, q, *boxes) if leaf is not None]
    y, state = self_modifying_memory(x, q, boxes, rules, token_by_token=token_by_token, **more)
    draw = torch.Generator().manual_seed(5)
    loss = sum(
        (part * torch.randn(part.shape, generator=draw, dtype=F64)).sum()
        for part in (y, *state)
        if isinstance(part, Tensor)
    )
    grads = torch.autograd.grad(loss, leaves, allow_unused=True)
    return y, state, tuple(torch.zeros_like(leaf) if g is None else g for g, leaf in zip(grads, leaves, strict=True))


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("name", SETTINGS)
def test_chunk_form_is_the_plain_loop(name: str, chunks: tuple[int, int]) -> None:
    rules, rate = both(name, chunks), 0.3 if (len(name) + chunks[0]) % 2 else None  # both for every pair of sizes
    assert gap(run_and_differentiate(rules, False, rate), run_and_differentiate(rules, True, rate)) < 1e-10


@pytest.mark.parametrize("length", [1, 2, 5, 8, 9])
@pytest.mark.parametrize("name", ["default", "momentum", "literal L2"])
def test_chunk_form_is_the_plain_loop_for_every_length(name: str, length: int) -> None:
    rules = both(name, (8, 3))
    assert (
        gap(run_and_differentiate(rules, False, None, length), run_and_differentiate(rules, True, None, length)) < 1e-10
    )


@pytest.mark.parametrize("token_by_token", [False, True])
@pytest.mark.parametrize("name", ["default", "momentum", "literal L2", "keys and memory", "adaptive q", "no fading"])
@pytest.mark.parametrize("cuts", [(8, 8), (3, 4, 1, 9), (1,) * T, (0, 5, 0)])
def test_a_stream_may_be_cut_anywhere(cuts: tuple[int, ...], name: str, token_by_token: bool) -> None:
    rules = both(name, (4, 3))
    x, q, boxes = stream(rules)
    how = {"token_by_token": token_by_token}
    whole = self_modifying_memory(x, q, boxes, rules, **how)
    answers, state = [], None
    for size, x_n in zip((*cuts, T - sum(cuts)), x.split((*cuts, T - sum(cuts)), 2), strict=True):
        q_n = None if q is None else q[:, :, sum(a.shape[2] for a in answers) :][:, :, :size]
        y, state = self_modifying_memory(x_n, q_n, boxes, rules, state=state, **how)
        answers.append(y)
    assert gap((torch.cat(answers, 2), state), whole) < 1e-11


@pytest.mark.parametrize("token_by_token", [False, True])
@pytest.mark.parametrize("name", ["default", "momentum", "literal L2", "fixed retain", "no fading"])
def test_padding_changes_nothing(name: str, token_by_token: bool) -> None:
    rules, lengths = both(name, (4, 3)), torch.tensor([T, 6])
    x, q, boxes = stream(rules)
    assert q is not None
    y, state = self_modifying_memory(x, q, boxes, rules, token_by_token=token_by_token, lengths=lengths)
    y_short, short = self_modifying_memory(x[1:, :, :6], q[1:, :, :6], boxes, rules, token_by_token=token_by_token)
    assert gap(y[1:, :, :6], y_short) < 1e-12 and not y[1, :, 6:].any()
    assert gap((state.S[1:], state.anchor[1:]), (short.S, short.anchor)) < 1e-12
    if state.Z is not None and short.Z is not None:
        assert gap(state.Z[1:], short.Z) < 1e-12
    noisy = x.clone()
    noisy[1, :, 6:] = 1e3
    again = self_modifying_memory(noisy, q, boxes, rules, token_by_token=token_by_token, lengths=lengths)
    assert gap(again, (y, state)) == 0.0


@pytest.mark.parametrize("chunks", [(4, 3), (64, 64)])
def test_later_tokens_and_other_streams_change_nothing(chunks: tuple[int, int]) -> None:
    rules = both("default", chunks)
    x, q, boxes = stream(rules)
    y, state = self_modifying_memory(x, q, boxes, rules)
    later, other = x.clone(), x.clone()
    later[:, :, 9:] += 1.0
    other[1] += 1.0
    y_later, _ = self_modifying_memory(later, q, boxes, rules)
    assert gap(y_later[:, :, :10], y[:, :, :10]) < 1e-13  # token 9 writes after it is answered
    assert gap(y_later[:, :, 10:], y[:, :, 10:]) > 1e-3
    y_other, state_other = self_modifying_memory(other, q, boxes, rules)
    assert gap(y_other[0], y[0]) < 1e-13 and gap(state_other.S[0], state.S[0]) < 1e-13
    assert gap(y_other[1], y[1]) > 1e-3


@pytest.mark.parametrize("rule", ["delta", "dgd_l2"])
@pytest.mark.parametrize("retain", [1.0, 0.8])
def test_fixed_points_of_a_repeated_pair(rule: str, retain: float) -> None:
    """Eq. 92 settles at eta / (1 - alpha + eta) vhat, the literal Eq. 93 at eta / (1 - alpha + 2 eta) vhat."""
    rules = Rules(1, rule=rule, retain=retain, decay_to="zero", rewrite=("memory",), target_bound=0.5, lr_max=0.6)
    _, q, boxes = stream(rules, length=1)
    x = torch.randn(B, H, 1, D, dtype=F64).expand(-1, -1, 400, -1)
    _, state = self_modifying_memory(x, torch.ones_like(x), boxes, rules)
    rows = rules.rows(D)
    M, k = state.S[..., rows["memory"], :], torch.stack([unit(z) for z in silu(keys(boxes, rules, x)).flatten(0, 1)])
    k = k.unflatten(0, (B, H))
    lr = 0.6 * torch.sigmoid((boxes.start[:, rows["lr"]] @ x[:, :, 0].unsqueeze(-1))[..., 0, 0] + boxes.lr_bias)
    answer = (M @ k.unsqueeze(-1)).squeeze(-1)
    share = lr / (1 - retain + lr * (2 if rule == "dgd_l2" else 1))
    assert gap(answer.norm(dim=-1), 0.5 * share) < 1e-5  # the target is cut to the length 0.5


def keys(boxes: Boxes, rules: Rules, x: Tensor) -> Tensor:
    return (boxes.start[:, rules.rows(D)["k"]] @ x[:, :, 0].unsqueeze(-1)).squeeze(-1)


@pytest.mark.parametrize("rule", ["delta", "dgd_l2"])
def test_closed_form_of_one_chunk(rule: str) -> None:
    """M_C = A prod P_t - sum_t eta_t G_t prod_{s>t} P_s, with all gradients at the anchor A."""
    rules = Rules(T, rule=rule, decay_to="zero", silu=False, own_value=False, unit_values=False)
    x, q, boxes = stream(rules)
    _, state = self_modifying_memory(x, q, boxes, rules)
    rows = rules.rows(D)
    for b, h in [(0, 0), (1, 1)]:
        A = boxes.start[h]
        k = torch.stack([unit(A[rows["k"]] @ z) for z in x[b, h]])
        lr = torch.sigmoid(x[b, h] @ A[rows["lr"]][0] + boxes.lr_bias[h])
        alpha = torch.sigmoid(x[b, h] @ A[rows["retain"]][0] + boxes.retain_bias[h])
        P = [a * torch.eye(D, dtype=F64) - e * torch.outer(z, z) for a, e, z in zip(alpha, lr, k, strict=True)]
        total = A @ torch.linalg.multi_dot(P)
        for t in range(T):
            vhat = A @ A[rows["v"]] @ x[b, h, t]
            gradient = torch.outer(A @ k[t] - vhat if rule == "dgd_l2" else -vhat, k[t])
            after = torch.linalg.multi_dot([torch.eye(D, dtype=F64), torch.eye(D, dtype=F64), *P[t + 1 :]])
            total = total - lr[t] * gradient @ after
        assert gap(state.S[b, h], total) < 1e-12


def test_gradients_are_those_of_finite_differences() -> None:
    for name, rate in (("default", 0.3), ("momentum", None), ("literal L2", None), ("adaptive q", None)):
        rules = both(name, (3, 2))
        x, q, boxes = stream(rules, length=5, batch=1, rate=rate)
        leaves = [leaf.requires_grad_() for leaf in (x, *boxes) if leaf is not None]

        def outputs(x: Tensor, *parts: Tensor, rules: Rules = rules, q: Tensor | None = q) -> tuple[Tensor, Tensor]:
            y, state = self_modifying_memory(x, q, Boxes(*parts), rules)
            return y, state.S

        assert torch.autograd.gradcheck(outputs, leaves, fast_mode=True)


def test_every_box_learns_through_the_writes() -> None:
    """Only tokens after the first chunk are asked: gradients of generating boxes come through what they wrote."""
    rules = both("default", (4, 4))
    x, q, boxes = stream(rules)
    boxes = boxes._replace(start=boxes.start.requires_grad_())
    y, _ = self_modifying_memory(x, q, boxes, rules)
    (grad,) = torch.autograd.grad(y[:, :, 4:8].square().sum(), boxes.start)
    for name, rows in rules.rows(D).items():
        assert grad[:, rows].abs().amax() > 1e-4, name


def test_detached_writes_pass_nothing_but_the_start_learns() -> None:
    x, q, boxes = stream(both("detach", (4, 4)))
    start = boxes.start.requires_grad_()
    rows = Rules().rows(D)
    found = {}
    for name in ("default", "detach"):
        y, _ = self_modifying_memory(x, q, boxes._replace(start=start), both(name, (4, 4)))
        (found[name],) = torch.autograd.grad(y[:, :, 4].square().sum(), start)
    assert not found["detach"][:, rows["k"]].any() and found["detach"][:, rows["memory"]].any()
    assert found["default"][:, rows["k"]].any()


def test_transition_has_the_eigenvalue_of_the_formula() -> None:
    draw = torch.Generator().manual_seed(3)
    for lr, retain in ((0.3, 1.0), (0.9, 1.0), (0.7, 0.95)):
        k, v = normalize(torch.randn(2, 6, generator=draw, dtype=F64), dim=-1)
        step = retain * torch.eye(6, dtype=F64) - lr * torch.outer(k, k) + lr * torch.outer(v, k)
        found = torch.linalg.eigvals(step)
        expected = torch.full((6,), retain, dtype=F64)
        expected[0] = transition_eigenvalue(k, v, lr, retain)
        assert found.imag.abs().max() < 1e-7
        assert gap(found.real.sort().values, expected.sort().values) < 1e-7  # alpha is an eigenvalue five times over
    k = normalize(torch.randn(6, generator=draw, dtype=F64), dim=-1)
    assert transition_eigenvalue(k, -k, 0.9).item() == pytest.approx(-0.8)  # negative, though eta < 1
    assert transition_eigenvalue(k, k, 0.9).item() == pytest.approx(1.0)
    assert transition_eigenvalue(k, -k, 0.9) == pytest.approx(1 - 0.9 * (1 - (k @ -k).item()))


def test_one_step_of_the_memory_has_that_transition() -> None:
    rules = Rules(1, own_value=False, retain=1.0, rewrite=("memory",))
    x, q, boxes = stream(rules, length=1)
    _, state = self_modifying_memory(x, q, boxes, rules)
    rows = rules.rows(D)
    for b, h in [(0, 1), (1, 0)]:
        M = boxes.start[h]
        k, v = unit(silu(M[rows["k"]] @ x[b, h, 0])), unit(M[rows["v"]] @ x[b, h, 0])
        lr = torch.sigmoid(M[rows["lr"]][0] @ x[b, h, 0] + boxes.lr_bias[h])
        M1 = M[rows["memory"]] @ (torch.eye(D, dtype=F64) - lr * torch.outer(k, k) + lr * torch.outer(v, k))
        assert gap(state.S[b, h, rows["memory"]], M1) < 1e-14


@pytest.mark.parametrize(
    ("name", "moving"), [("default", {"lr", "retain", "k", "v", "memory"}), ("memory only", {"memory"})]
)
def test_anchors_move_once_a_period_and_boxes_at_every_token(name: str, moving: set[str]) -> None:
    rules = both(name, (4, 6))
    x, q, boxes = stream(rules, length=24)
    assert q is not None
    state, moved, written = None, dict.fromkeys(rules.boxes, 0), dict.fromkeys(rules.boxes, 0)
    for t in range(24):
        before = state
        _, state = self_modifying_memory(x[:, :, t : t + 1], q[:, :, t : t + 1], boxes, rules, state=state)
        if before is not None:
            for box, rows in rules.rows(D).items():
                moved[box] += bool((state.anchor[..., rows, :] != before.anchor[..., rows, :]).any())
                written[box] += bool((state.S[..., rows, :] != before.S[..., rows, :]).any())
    for box in rules.boxes:
        assert moved[box] == ((5 if box == "memory" else 3) if box in moving else 0), box
        assert written[box] == (23 if box in moving else 0), box


def test_segments_end_at_the_boundaries_of_both_chunks() -> None:
    assert segment_sizes(0, 12, (4, 6)) == [4, 2, 2, 4]
    assert segment_sizes(3, 6, (4, 6)) == [1, 2, 2, 1]
    assert segment_sizes(4, 4, (4, 4)) == [4]
    assert segment_sizes(5, 1, (4, 4)) == [1]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    x, q, boxes = stream(Rules())
    assert q is not None
    x, q = x.to(dtype), q.to(dtype)
    boxes = Boxes(*(part.to(torch.float32) for part in boxes[:3]))
    y, state = self_modifying_memory(x, q, boxes)
    expected, _ = self_modifying_memory(x.float(), q.float(), boxes)
    assert y.dtype == dtype and state.S.dtype == torch.float32 and gap(y, expected.to(dtype)) == 0.0


def test_a_repeated_key_never_diverges_with_the_delta_rule() -> None:
    rules = Rules(64)
    _, _, boxes = stream(rules)
    x = torch.randn(B, H, 1, D, dtype=F64).expand(-1, -1, 2000, -1)
    y, state = self_modifying_memory(x, normalize(x, dim=-1), boxes, rules)
    assert y.isfinite().all() and state.S.abs().max() < 100.0


def test_no_token_is_no_change() -> None:
    x, q, boxes = stream(Rules())
    assert q is not None
    _, state = self_modifying_memory(x, q, boxes)
    y, after = self_modifying_memory(x[:, :, :0], q[:, :, :0], boxes, state=state)
    assert y.shape == (B, H, 0, D) and after is state
    y, fresh = self_modifying_memory(x[:, :, :0], q[:, :, :0], boxes)
    assert fresh.tokens == 0 and gap(fresh.S[0], boxes.start) == 0.0


def test_state_keeps_its_kind() -> None:
    x, q, boxes = stream(both("momentum", (4, 4)))
    boxes = boxes._replace(start=boxes.start.requires_grad_())
    _, state = self_modifying_memory(x, q, boxes, both("momentum", (4, 4)))
    assert state.S.requires_grad and not state.detach().S.requires_grad and state.detach().tokens == T
    assert state.to(torch.float32).Z.dtype == torch.float32 and state.to(torch.float32).tokens == T


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"memory_chunk": 0}, "memory_chunk"),
        ({"projection_chunk": 0}, "projection_chunk"),
        ({"rule": "dgd"}, "'delta', 'dgd_l2'"),
        ({"decay_to": "one"}, "'start', 'zero'"),
        ({"retain": 0.0}, "retain must be"),
        ({"retain": 1.5}, "retain must be"),
        ({"lr_max": 2.5}, "lr_max"),
        ({"momentum": 1.0}, "momentum"),
        ({"rewrite": ("key",)}, "rewrite"),
        ({"target_bound": 0.0}, "target_bound"),
    ],
)
def test_rules_say_what_is_wrong(setting: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Rules(**setting)


def test_memory_says_what_is_wrong() -> None:
    x, q, boxes = stream(Rules())
    assert q is not None
    _, state = self_modifying_memory(x, q, boxes)
    wrong: list[tuple[type[Exception], str, tuple, dict]] = [
        (ValueError, r"\(B, H, T, d\)", (x[0], q[0], boxes), {}),
        (TypeError, "floating", (x.long(), q, boxes), {}),
        (ValueError, "queries", (x, None, boxes), {}),
        (ValueError, "q=None", (x, q, boxes, Rules(adaptive_q=True)), {}),
        (ValueError, "q like x", (x, q[:, :, 1:], boxes), {}),
        (ValueError, "starts", (x, q, boxes._replace(start=boxes.start[:, 1:])), {}),
        (ValueError, "lr_bias", (x, q, boxes._replace(lr_bias=boxes.lr_bias[:1])), {}),
        (ValueError, "another stream", (x[:1], q[:1], boxes), {"state": state}),
        (ValueError, "momentum", (x, q, boxes, Rules(momentum=0.5)), {"state": state}),
        (ValueError, "lengths", (x, q, boxes), {"lengths": torch.tensor([1])}),
    ]
    for kind, words, given, more in wrong:
        with pytest.raises(kind, match=words):
            self_modifying_memory(*given, **more)
