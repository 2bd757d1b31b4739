"""The contest of token memories: the record is complete, fair by its own rules, and can be made again in part."""

import importlib.util
import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from nlcore.checkpoints import load_checkpoint, stored_checkpoints
from nlcore.sequence import contest
from nlcore.sequence.ablations import frozen, only_memories
from nlcore.sequence.contest import (
    LAYERS,
    RATES,
    TASKS,
    TUNING_SEED,
    learn,
    measure,
    trained,
    tuned_as,
    untrained,
)
from nlcore.sequence.fitting import token_accuracy
from nlcore.sweeps import load_sweep
from nlcore.tasks.formal import formal_language

ROOT = Path(__file__).parents[1]
RECORD = load_sweep("token_memories")
RESULTS = RECORD["results"]
LIVE = [(task, name) for task, one in TASKS.items() for name in one.live]


def the_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("token_memories", ROOT / "notebooks/sweeps/token_memories.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SCRIPT = the_script()


def runs() -> list[tuple[str, str, dict[str, Any]]]:
    return [(task, name, row) for task, rows in RESULTS.items() for name, row in rows.items()]


def test_the_record_was_made_with_these_settings_and_is_complete() -> None:
    about = SCRIPT.settings()
    assert {key: RECORD[key] for key in about if key != "torch"} == {k: v for k, v in about.items() if k != "torch"}
    for task, one in TASKS.items():
        assert set(RESULTS[task]) == set(one.models)
        for name, row in RESULTS[task].items():
            assert set(row["seeds"]) == {str(seed) for seed in range(one.seeds)}, (task, name)
            assert one.seeds >= 3


def test_each_family_chose_on_the_same_grid_and_with_another_seed() -> None:
    for task, name, row in runs():
        chooser = RESULTS[task][tuned_as(task, name)]
        assert set(chooser["tuning"]) == {str(rate) for rate in RATES}
        assert {run["rate"] for run in row["seeds"].values()} == {SCRIPT.best_rate(chooser["tuning"])}, (task, name)
        assert bool(row["tuning"]) == (tuned_as(task, name) == name)
    assert all(TUNING_SEED not in range(one.seeds) for one in TASKS.values())


def test_every_number_is_in_range() -> None:
    for task, name, row in runs():
        for run in row["seeds"].values():
            assert "failed" not in run, (task, name)
            assert run["parameters"] == sum(weight.numel() for weight in untrained(task, name).parameters())
            assert run["cpu_seconds"] > 0 and math.isfinite(run["loss"])
            if task == "stream":
                assert len(run["nats"]) == 288 and all(0.5 < nats < 6 for nats in run["nats"])
            else:
                assert list(run["accuracy"]) == list(TASKS[task].tests)
                assert all(0 <= right <= 1 for right in run["accuracy"].values())


def mean(task: str, name: str, test: str) -> float:
    values = [run["accuracy"][test] for run in RESULTS[task][name]["seeds"].values()]
    return sum(values) / len(values)


def test_what_the_notebooks_say_of_overwriting_and_length() -> None:
    assert mean("recall_overwritten", "linear", "32") < 0.65 < 0.8 < mean("recall_overwritten", "titans", "32")
    assert mean("passkey", "softmax", "2048") < 0.9 < 0.95 < mean("passkey", "softmax_nope", "2048")


def test_the_checkpoints_are_those_of_the_contest_and_small() -> None:
    assert {f"{task}_{name}" for task, name in LIVE} <= set(stored_checkpoints())
    folder = ROOT / "nlcore/data/checkpoints"
    assert sum(file.stat().st_size for file in folder.iterdir()) < 1_500_000
    provenance = (ROOT / "nlcore/data/PROVENANCE.md").read_text()
    assert all(f"checkpoints/{name}.pt" in provenance for name in stored_checkpoints())


@pytest.mark.parametrize(("task", "name"), LIVE)
def test_a_checkpoint_does_what_the_record_says(task: str, name: str) -> None:
    model, run = trained(task, name), RESULTS[task][name]["seeds"]["0"]
    first = next(iter(TASKS[task].tests))
    batch = TASKS[task].tests[first](torch.Generator().manual_seed(contest.TESTED_ON))
    if task == "stream":
        nats = contest.nats_by_position(model, batch)
        assert (nats - torch.tensor(run["nats"], dtype=torch.float64)).abs().max() < 0.03
    else:
        assert token_accuracy(model, batch) == pytest.approx(run["accuracy"][first], abs=0.01)


@pytest.mark.slow
def test_a_model_is_learned_again() -> None:
    """From nothing to the stored result; not to the last bit, which another processor rounds otherwise."""
    run = RESULTS["recall"]["linear"]["seeds"]["0"]
    model, row = learn("recall", "linear", 0, run["rate"])
    kept = load_checkpoint("recall_linear")
    assert {key: value.shape for key, value in model.state_dict().items()} == {k: v.shape for k, v in kept.items()}
    again = measure("recall", model)["accuracy"]
    assert again == pytest.approx(run["accuracy"], abs=0.06) and row["loss"] == pytest.approx(run["loss"], abs=0.06)


def test_a_seed_gives_the_same_weights_and_touches_no_global_state() -> None:
    before = torch.random.get_rng_state()
    one, same, other = (untrained("recall", "delta", seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not torch.equal(one["head.weight"], other["head.weight"])
    assert {value.dtype for value in one.values()} == {torch.float32}


def test_a_frozen_model_writes_nothing_and_recovers() -> None:
    model = untrained("stream", "delta")
    tokens = torch.arange(12)[None]
    with torch.no_grad():
        alive, _ = model(tokens)
        with frozen(model) as closed:
            assert closed
            _, state = model(tokens)
            assert all(not block.memory.M.any() for block in state.blocks)
        assert torch.equal(model(tokens)[0], alive)
    with frozen(untrained("stream", "softmax")) as closed:
        assert not closed


def test_only_the_memory_of_a_self_modifying_model_is_rewritten_for_a_while() -> None:
    model = untrained("stream", "self_modifying_16")
    tokens = (torch.arange(40) * 7 % 16)[None]
    with torch.no_grad():
        alive, _ = model(tokens)
        with only_memories(model) as found:
            assert found
            less, _ = model(tokens)
        with frozen(model):
            nothing, _ = model(tokens)
        assert torch.equal(model(tokens)[0], alive)
    assert torch.equal(less[:, :16], alive[:, :16]) and not torch.equal(less, alive)  # the first chunk reads the starts
    assert not torch.equal(nothing, less)
    with only_memories(untrained("stream", "delta")) as found:
        assert not found


def test_measures_have_the_names_of_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    tests = {"5": lambda g: formal_language("parity", 4, g, lengths=(5, 5))}
    task = contest.TokenTask(tests["5"], tests, ("gru",), (), 2, 32, 3, 2, dtype=torch.float64)
    monkeypatch.setitem(contest.TASKS, "recall", task)
    model, row = learn("recall", "gru", 0, 0.01)
    assert set(row) == {"rate", "cpu_seconds", "parameters", "loss"}
    assert set(measure("recall", model)) == {"accuracy"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: untrained("chess", "delta"), "one of the tasks recall"),
        (lambda: untrained("recall", "hope"), "one of the models .*delta"),
        (lambda: tuned_as("recall", "hope"), "one of the models"),
        (lambda: trained("recall", "gru"), "no stored checkpoint 'recall_gru'"),
        (lambda: SCRIPT.best_rate({str(rate): {"failed": "nan"} for rate in RATES}), "not finite at any learning rate"),
    ],
)
def test_bad_names_are_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


class AtOnce:
    """Stands for the pool of processes: does each job when it is handed in."""

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def __enter__(self) -> "AtOnce":
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def submit(self, work: Callable[[Any], Any], job: Any) -> SimpleNamespace:
        return FinishedJob(work(job))


class FinishedJob(SimpleNamespace):
    def __init__(self, row: Any) -> None:
        super().__init__(row=row)

    def result(self) -> Any:
        return self.row

    def __hash__(self) -> int:
        return id(self)


def test_an_interrupted_run_goes_on_where_it_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    stored: dict[str, Any] = {}
    done: list[tuple[str, int]] = []

    def work(job: Any) -> dict[str, Any]:
        task, name, seed, rate = job
        done.append((name, seed))
        return {"rate": rate, "tuning_loss": abs(rate - 0.01)} if seed == TUNING_SEED else {"rate": rate}

    replaced = {"work": work, "ProcessPoolExecutor": AtOnce, "as_completed": list, "load_sweep": stored.get}
    replaced |= {"save_sweep": stored.__setitem__, "stored_sweeps": lambda: list(stored)}
    for name, value in replaced.items():
        monkeypatch.setattr(SCRIPT, name, value)
    monkeypatch.setattr("sys.argv", ["it", "--task", "recall", "--model", "softmax_nope", "--model", "softmax"])
    SCRIPT.main()
    assert done == [("softmax", TUNING_SEED)] * len(RATES) + [
        (name, seed) for seed in range(TASKS["recall"].seeds) for name in ("softmax", "softmax_nope")
    ]
    rows = stored["token_memories"]["results"]["recall"]
    assert all(run["rate"] == 0.01 for row in rows.values() for run in row["seeds"].values())
    done.clear()
    SCRIPT.main()
    assert done == []
    del rows["softmax_nope"]["seeds"]["2"]
    SCRIPT.main()
    assert done == [("softmax_nope", 2)]
    stored["token_memories"]["rates"] = [0.1]
    with pytest.raises(ValueError, match="made with other settings"):
        SCRIPT.main()


def test_all_models_of_all_tasks_can_be_built() -> None:
    for task, one in TASKS.items():
        assert set(one.live) <= set(one.models) <= set(LAYERS)
        assert {tuned_as(task, name) for name in one.models} <= set(one.models)
