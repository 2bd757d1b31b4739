"""The public names, and docstrings that agree with what they describe."""

import doctest
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import nlcore

SNAPSHOT = {
    "nlcore.memory": {"read", "hebbian", "delta", "dgd", "oja"},
    "nlcore.levels": {"Level", "Slower", "UpdateTrace", "describe", "nest", "order_levels", "parts_of"},
    "nlcore.optimizers": {
        "SGD",
        "Momentum",
        "Adam",
        "AdamW",
        "DeltaMomentum",
        "DeepMomentum",
        "Muon",
        "M3",
        "DGD",
        "MultiscaleMomentum",
        "PeriodicOptimizer",
        "newton_schulz",
    },
    "nlcore.cms": {"ContinuumMemory", "LevelState", "StreamState", "squared_error"},
    "nlcore.sequence": {
        "DeltaRule",
        "LinearAttention",
        "SelfModifyingTitans",
        "SoftmaxAttention",
        "Titans",
        "TokenModel",
        "deep_titans_memory",
        "delta_rule",
        "linear_attention",
        "oja_rule",
        "self_modifying_memory",
        "softmax_attention",
        "titans_memory",
    },
    "nlcore.hope": {
        "HopeAttentionBlock",
        "HopeBlock",
        "HopeConfig",
        "HopeLM",
        "TextRun",
        "TokenContinuum",
        "TokenRun",
        "TransformerLM",
        "dynamic_evaluation",
        "generate",
        "load_stream",
        "reset",
        "save_stream",
        "stream",
    },
    "nlcore.tasks": {"digits", "fashion", "split_classes", "permuted_pixels", "rotated_images"},
    "nlcore.training": {"fit", "evaluate", "accuracy"},
    "nlcore.continual": {
        "EWC",
        "NearestClassMean",
        "Reservoir",
        "TwoRates",
        "WeightAverages",
        "accuracies",
        "fisher",
        "study",
    },
    "nlcore.metrics": {
        "accuracy_matrix",
        "average_accuracy",
        "backward_transfer",
        "confidence_interval",
        "forgetting",
        "forward_transfer",
        "plasticity",
    },
    "nlcore.course": {"claim", "figure", "explore", "export", "check", "hint", "show", "doctor"},
}
MODULES = [name for _, name, _ in pkgutil.walk_packages(nlcore.__path__, "nlcore.") if not name.endswith(".doctor")]
MATHS = [name for name in MODULES if not name.startswith("nlcore.course")]


def public(module_name: str) -> list[tuple[str, object]]:
    module = importlib.import_module(module_name)
    own = [
        (n, o) for n, o in vars(module).items() if not n.startswith("_") and getattr(o, "__module__", "") == module_name
    ]
    return [(n, o) for n, o in own if inspect.isfunction(o) or inspect.isclass(o)]


THINGS = [(f"{m}.{n}", o) for m in MODULES for n, o in public(m)]


@pytest.mark.parametrize("module_name", SNAPSHOT)
def test_public_names_are_there(module_name: str) -> None:
    module = importlib.import_module(module_name)
    missing = [name for name in SNAPSHOT[module_name] if getattr(module, name, None) is None]
    assert not missing


@pytest.mark.parametrize("module_name", MODULES)
def test_every_module_says_what_it_is(module_name: str) -> None:
    assert (importlib.import_module(module_name).__doc__ or "").strip()


@pytest.mark.parametrize(("name", "thing"), THINGS, ids=[name for name, _ in THINGS])
def test_docstring_starts_with_a_sentence(name: str, thing: object) -> None:
    first = (inspect.getdoc(thing) or "").split("\n\n")[0]
    assert len(first) > 10 and re.search(r"[.:?]$", first.strip()), f"{name}: {first!r}"


@pytest.mark.parametrize(("name", "thing"), THINGS, ids=[name for name, _ in THINGS])
def test_docstring_names_only_arguments_that_exist(name: str, thing: object) -> None:
    doc = inspect.getdoc(thing) or ""
    section = re.search(r"^Args\s+(.*?)(?=^\S|\Z)", doc, re.MULTILINE | re.DOTALL)
    if section is None or section[1].lstrip().startswith("as "):
        return
    try:
        arguments = set(inspect.signature(thing).parameters)  # type: ignore[arg-type]
    except ValueError:
        return
    named = {
        word.strip()
        for group in re.findall(r"(?:^|[.;] |\n)\s*([a-z_A-Z]\w*(?:, [a-z_A-Z]\w*)*):", section[1])
        for word in group.split(",")
    }
    unknown = named - arguments
    assert not unknown, f"{name} describes {unknown}, its arguments are {sorted(arguments)}"


@pytest.mark.parametrize("module_name", MODULES)
def test_modules_are_small(module_name: str) -> None:
    lines = len(inspect.getsource(importlib.import_module(module_name)).splitlines())
    assert lines <= 250, f"{module_name} has {lines} lines; split it by idea"


@pytest.mark.parametrize("module_name", MATHS)
def test_the_mathematics_imports_no_matplotlib_and_no_widgets(module_name: str) -> None:
    source = inspect.getsource(importlib.import_module(module_name))
    assert not re.search(r"^\s*(?:import|from) (?:matplotlib|ipywidgets|IPython|nlcore\.course)", source, re.MULTILINE)


ORDER = [
    "memory",
    "trace",
    "levels",
    "timescales",
    "optimizers",
    "horizon",
    "surprise",
    "cms",
    "tasks",
    "training",
    "stacked",
    "metrics",
    "continual",
    "files",
    "sweeps",
    "checkpoints",
    "contest",
    "meta",
    "brainwaves",
    "transfer",
    "sequence",
    "hope",
    "course",
]


@pytest.mark.parametrize("module_name", MODULES)
def test_rooms_import_only_from_rooms_above_them(module_name: str) -> None:
    room = module_name.split(".")[1]
    if room == "data":
        return
    assert room in ORDER, f"say in ORDER where the new room {room!r} stands"
    source = inspect.getsource(importlib.import_module(module_name))
    for other in re.findall(r"^\s*from nlcore\.(\w+)", source, re.MULTILINE):
        assert other == "data" or ORDER.index(other) <= ORDER.index(room), (
            f"{module_name} imports from {other}, below it"
        )


def test_the_example_in_the_readme_is_true() -> None:
    readme = Path(__file__).parents[1] / "README.md"
    results = doctest.testfile(str(readme), module_relative=False, encoding="utf-8")
    assert results.attempted >= 4 and results.failed == 0
