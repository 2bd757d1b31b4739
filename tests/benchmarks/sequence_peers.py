"""Published memories of tokens: where they are looked for, how they are loaded, and what of each is raced.

None of them is needed. Those of the package index are best installed into a folder each, because several call
themselves `titans` and overwrite one another; `--peer-path DIR` looks into DIR and the folders in it. The environment
is looked into anyway: `pip install "nlcore[bench]"` has those that can live together. Modules are found by their file.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from sequence_race import Racer, Size, Work, layer_work, op_inputs
from torch import Tensor
from torch.nn.functional import cross_entropy

CHUNK = 16


@dataclass(frozen=True)
class Peer:
    """A published package: the file by which it is found, how to install it, and what of it takes part."""

    name: str
    file: str
    install: str
    racers: Callable[[Any], list[Racer]]
    alone: bool = False  # the file is loaded by itself: its package needs a GPU's tools only to be imported


def find(peers: Iterable[Peer], folders: list[Path]) -> tuple[dict[str, Any], list[Racer], list[str]]:
    """Return the modules that are here, what of them is raced, and for each that is not a line how to get it."""
    modules: dict[str, Any] = {}
    racers: list[Racer] = []
    missing = []
    places = [place for folder in folders for place in (folder, *sorted(p for p in folder.iterdir() if p.is_dir()))]
    for peer in peers:
        home = next((place for place in [*places, *map(Path, sys.path)] if (place / peer.file).is_file()), None)
        if home is None:
            missing.append(f"{peer.name} is not here: SKIPPED. To race it: {peer.install}")
            continue
        try:
            modules[peer.name] = _load(peer, home)
        except ImportError as error:
            missing.append(f"{peer.name} does not load ({error}): SKIPPED. To race it: {peer.install}")
            continue
        racers += peer.racers(modules[peer.name])
    return modules, racers, missing


def _load(peer: Peer, home: Path) -> ModuleType:
    sys.path.insert(0, str(home))
    try:
        if peer.alone:
            spec = importlib.util.spec_from_file_location(f"peer_{peer.name}".replace("-", "_"), home / peer.file)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module
            spec.loader.exec_module(module)
            return module
        dotted = peer.file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        top = dotted.split(".")[0]
        for name in [name for name in sys.modules if name.split(".")[0] == top]:
            del sys.modules[name]  # another package of the same name
        return importlib.import_module(dotted)
    finally:
        sys.path.remove(str(home))


def _fla_delta(fla: Any) -> list[Racer]:
    def chunks(size: Size, chunk: int) -> Work:
        tokens, (beta,) = op_inputs(size, 1)
        return Work(lambda: fla.delta_rule_chunkwise(*tokens, beta, chunk)[0], [*tokens, beta])

    def loop(size: Size) -> Work:
        tokens, (beta,) = op_inputs(size, 1)
        return Work(lambda: fla.delta_rule_recurrence(*tokens, beta)[0], [*tokens, beta])

    forms = [Racer(f"fla delta chunk C={c}", lambda size, c=c: chunks(size, c)) for c in (16, 32, 64)]  # type: ignore[misc]
    return [*forms, Racer("fla delta loop", loop)]


def _fla_gated(fla: Any) -> list[Racer]:
    def chunks(size: Size) -> Work:
        (q, k, v), (beta, alpha) = op_inputs(size, 2)
        leaves = [q, k, v, beta, alpha]

        def forward() -> Tensor:
            tokens, gates = (x.transpose(1, 2) for x in (q, k, v)), (x.transpose(1, 2) for x in (alpha.log(), beta))
            return fla.naive_chunk_gated_delta_rule(*tokens, *gates)[0]

        return Work(forward, leaves)

    return [Racer("fla gated delta chunk C=64", chunks, note="its decay multiplies the correction too")]


def _titans_pytorch(package: Any) -> list[Racer]:
    def memory(size: Size, **settings: Any) -> Work:
        heads = {"heads": size.heads, "dim_head": size.d}
        module = package.NeuralMemory(dim=size.dim, chunk_size=CHUNK, batch_size=CHUNK, **heads, **settings)
        return layer_work(module, size, lambda module, x: module(x)[0])

    linear = {"default_model_kwargs": {"depth": 1}, "mem_model_norm_add_residual": False}
    return [
        Racer("titans-pytorch MLP memory", memory, note="its default memory, gradients refreshed every 16 tokens"),
        Racer("titans-pytorch linear memory", lambda size: memory(size, **linear), note="one matrix a head, as ours"),
    ]


def _titans_unofficial(module: Any) -> list[Racer]:
    def memory(size: Size) -> Work:
        return layer_work(module.NeuralMemoryModule(size.dim), size, lambda layer, x: layer(x)[0])

    return [Racer("titans-unofficial", memory, note="exact, token by token; 1 head, MLP memory")]


def _titans_memory(module: Any) -> list[Racer]:
    def memory(size: Size) -> Work:
        layer = module.NeuralMemory(size.dim, d_hidden=size.dim, chunk_size=CHUNK)
        return layer_work(layer, size, lambda layer, x: layer(x))

    return [Racer("titans-memory C=16", memory, note="not causal; its last layer is not trained; 1 head, MLP memory")]


def _nested_learning(module: Any) -> list[Racer]:
    def layer(size: Size) -> Any:
        return module.SelfModifyingTitans(module.SelfModifyingTitansConfig(dim=size.dim, chunk_size_other=CHUNK))

    def update(size: Size) -> Work:
        titans, x = layer(size).to(size.device), torch.randn(size.batch, size.tokens, size.dim, device=size.device)
        return Work(lambda: titans.forward_with_updates(x, titans.init_fast_state())[0], [])

    def train(size: Size) -> Work:
        work = layer_work(titans := layer(size), size, lambda layer, x: layer(x))
        x = torch.randn(size.batch, size.tokens, size.dim, device=size.device)
        return work._replace(after=lambda: titans.forward_with_updates(x, titans.init_fast_state()))

    def block(size: Size) -> Work:
        return hope_block(size, CHUNK, (CHUNK, 4 * CHUNK), 4)

    less = "C=16, 1 head, MLP boxes; the writes are not trained"
    return [
        Racer("nested-learning self-mod update", update, note=f"{less}, no gradient at all"),
        Racer("nested-learning self-mod step", train, note=f"{less}: only the reading is, then it updates"),
        Racer("nested-learning HOPE block step", block, note=f"{less}; with a CMS of periods 16 and 64 behind"),
    ]


def hope_block(size: Size, chunk: int, periods: Iterable[int], wider: int = 1) -> Work:
    """Return a step of the HOPE block of nested-learning, which `find` has loaded: train the reading, then update.

    Args     chunk: of its self-modifying part. periods: of its CMS. wider: width inside its MLPs, in units of dim.
    """
    hope, spec = (importlib.import_module(f"nested_learning.{name}") for name in ("hope.block", "levels"))
    levels = [spec.LevelSpec(f"level {period}", period) for period in periods]
    config = hope.HOPESelfModBlockConfig(
        dim=size.dim, cms_levels=levels, selfmod_chunk_size=chunk, cms_hidden_multiplier=wider
    )
    work = layer_work(layer := hope.HOPESelfModBlock(config), size, lambda layer, x: layer(x))
    x, teach = torch.randn(2, size.batch, size.tokens, size.dim, device=size.device)
    return work._replace(after=lambda: _taught(layer, x, teach))


def _taught(layer: torch.nn.Module, x: Tensor, teach: Tensor) -> None:
    """Let the block write into its own parameters, then put these back, so that every turn does the same."""
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    with torch.no_grad():
        layer(x, teach_signal=teach)
    layer.load_state_dict(before)


def training_step(model: torch.nn.Module, logits: Callable[[Tensor], Tensor], vocabulary: int, size: Size) -> Work:
    """Return a step of training a language model on random tokens, optimizer included."""
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    tokens = torch.randint(vocabulary, (size.batch, size.tokens + 1), device=size.device)

    def forward() -> Tensor:
        optimizer.zero_grad()
        loss = cross_entropy(logits(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        return _stepped(model, optimizer, loss)

    return Work(forward, [])


def _stepped(model: torch.nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor) -> Tensor:
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.detach()


def nested_learning_step(size: Size, vocabulary: int, blocks: int, periods: Sequence[int]) -> Work:
    """Return a step of training of nested-learning's language model, as its `run_training_loop` does it.

    A piece of tokens is read and trained on, then the blocks are updated with the gradient of each. Chunks and no
    threshold for an update as in its configs/pilot_selfmod_paper_faithful.yaml; not from there: a batch, whose streams
    share one memory, and updates that are written into the weights. MLPs in its CMS as wide as a token.
    """
    names = ("hope.block", "levels", "model", "training")
    hope, spec, model, training = (importlib.import_module(f"nested_learning.{name}") for name in names)
    levels = [spec.LevelSpec(f"level {period}", period) for period in periods]
    chunks: dict[str, Any] = {"self_mod_chunk_size": 8, "self_mod_chunk_size_memory": 64}
    scale: dict[str, Any] = {"teach_scale": 0.1, "teach_clip": 5.0, "block_variant": "hope_selfmod"}
    config = model.ModelConfig(vocabulary, size.dim, blocks, 1, spec.LevelSpec("titan", 8), levels, **chunks, **scale)
    lm = model.HOPEModel(config)
    for block in lm.blocks:
        block.cms = type(block.cms)(dim=size.dim, levels=levels, hidden_multiplier=1)
    optimizer = torch.optim.AdamW(lm.parameters(), 1e-3)
    tokens = torch.randint(vocabulary, (size.batch, size.tokens))

    def forward() -> Tensor:
        optimizer.zero_grad()
        piece = training._infer_online_chunk_size(lm)
        for part, last in training._iter_online_token_chunks(tokens, chunk_size=piece):
            logits, _, outputs = lm.forward_with_block_outputs(part)
            loss = cross_entropy(logits[:, :-1].flatten(0, 1), part[:, 1:].flatten())
            signals = training._compute_layer_teach_signals(loss, outputs)
            loss.backward()
            with torch.no_grad():
                lm(part, teach_signals=signals, finalize_updates=last)
        return _stepped(lm, optimizer, loss)

    return Work(forward, [])


def aryateja_step(size: Size, vocabulary: int, blocks: int, heads: int, periods: Sequence[int]) -> Work:
    """Return a step of training of the language model of aryateja2106, MLPs in its CMS as wide as a token."""
    hope = importlib.import_module("src.models.hope")
    width, first = size.dim // heads, min(periods)
    sizes: dict[str, Any] = {"d_model": size.dim, "d_hidden": size.dim, "titans_hidden": size.dim}
    sizes |= {"d_key": width, "d_value": width, "num_heads": heads, "num_layers": blocks, "vocab_size": vocabulary}
    levels: dict[str, Any] = {"cms_num_levels": len(periods), "cms_base_chunk_size": first, "titans_chunk_size": first}
    model = hope.Hope(hope.HopeConfig(**sizes, **levels, dropout=0.0))
    return training_step(model, lambda tokens: model(tokens)["logits"], vocabulary, size)


def _aryateja(module: Any) -> list[Racer]:
    def titans(size: Size) -> Work:
        config = module.TitansConfig(size.dim, size.d, size.d, size.dim, size.heads, CHUNK, dropout=0.0)
        return layer_work(module.SelfModifyingTitans(config), size, lambda layer, x: layer(x))

    return [Racer("aryateja2106 self-mod", titans, note="one of its memories is written, the others are fixed")]


def _target(package: str) -> str:
    return f"pip install --target DIR/{package} {package}, then --peer-path DIR"


ARYATEJA = "git clone https://github.com/aryateja2106/nested-learning DIR/aryateja2106, then --peer-path DIR"
PEERS = (
    Peer("fla delta", "fla/ops/delta_rule/naive.py", _target("fla-core"), _fla_delta, alone=True),
    Peer("fla gated delta", "fla/ops/gated_delta_rule/naive.py", _target("fla-core"), _fla_gated, alone=True),
    Peer("titans-pytorch", "titans_pytorch/__init__.py", _target("titans-pytorch"), _titans_pytorch),
    Peer("titans-unofficial", "titans/utils/memory.py", _target("titans-unofficial"), _titans_unofficial),
    Peer("titans-memory", "titans/memory/neural_memory.py", _target("titans-memory"), _titans_memory),
    Peer("nested-learning", "nested_learning/titan/self_modifying.py", _target("nested-learning"), _nested_learning),
    Peer(
        "aryateja2106",
        "src/models/titans.py",
        ARYATEJA,
        _aryateja,
        alone=True,
    ),
)
HOPES = (
    Peer("nested-learning", "nested_learning/training.py", _target("nested-learning"), lambda module: []),
    Peer("aryateja2106", "src/models/hope.py", ARYATEJA, lambda module: []),
)
