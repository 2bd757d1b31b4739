"""Small faults put into HOPE on purpose: each must make a named test fail, as in `test_mutants`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.mutants.test_mutants import ROOT, Mutant, assert_noticed, in_a_fork

IN_PIECES = "test test_hope.py::test_a_stream_in_pieces_equals_the_whole[cuts1-first_order]"
BY_AUTOGRAD = "test test_hope.py::test_the_fast_form_equals_the_token_loop_by_autograd[periods0-first_order]"
RUNS = "test test_token_runs.py::test_an_interrupt_ends_the_step_saves_and_says_how_to_go_on[3]"

MUTANTS = (
    Mutant(
        "a level learns from the token that it has just read",
        "hope/stretch.py",
        "lesson.tokens[:, done + 1 : end + 1]",
        "lesson.tokens[:, done:end]",
        "12.4",
    ),
    Mutant(
        "a level learns from a token that is still to be predicted",
        "hope/model.py",
        "Reading(tokens, readout, closed)",
        "Reading(tokens.roll(-1, 1), readout, closed)",
        "test test_hope_models.py::test_no_logit_knows_a_later_token[first_order]",
    ),
    Mutant(
        "an update comes one token late",
        "hope/stretch.py",
        "% level.period == 0 and not",
        "% level.period == 1 and not",
        "test test_hope.py::test_a_level_updates_at_its_period_only",
    ),
    Mutant(
        "a level reads on with old weights where its period is full",
        "hope/stretch.py",
        "T, (period, period))",
        "T, (period + 1, period + 1))",
        BY_AUTOGRAD,
    ),
    Mutant(
        "the pairs of this call are lost where a period began in an earlier one",
        "hope/stretch.py",
        "earlier if pairs is None else earlier.and_(pairs)",
        "earlier",
        IN_PIECES,
    ),
    Mutant(
        "what stands in the padding stays in the state",
        "hope/stretch.py",
        "Heard(torch.where(there, x, 0.0)",
        "Heard(x.clone()",
        "test test_probes.py::test_probe[padding-HopeLM]",
    ),
    Mutant(
        "the slope of a level is not that of its bend",
        "hope/level.py",
        "LINEAR + 3.0 * CUBIC * square",
        "LINEAR + CUBIC * square",
        "12.3",
    ),
    Mutant(
        "the start of a level is told nothing of what fades",
        "hope/first_order.py",
        "d_start = [total + change for total, change in zip(d_start, gone, strict=True)]",
        "pass",
        BY_AUTOGRAD,
    ),
    Mutant(
        "the step of a level is not bounded by how alike its tokens are",
        "hope/level.py",
        "(largest(part, pairs.bend) + total)",
        "total",
        "12.4",
    ),
    Mutant(
        "a level is read out without the scale of the last norm",
        "hope/readout.py",
        "head.to(dtype) * scale.to(dtype)",
        "head.to(dtype)",
        "test test_hope.py::test_the_hand_derived_gradient_is_that_of_autograd",
    ),
    Mutant(
        "the gradient of a level forgets that the norm turns the hidden state",
        "hope/readout.py",
        "torch.addcmul(g, n, along, value=-1)",
        "g",
        "test test_hope.py::test_the_hand_derived_gradient_is_that_of_autograd",
    ),
    Mutant(
        "the pair that waits between two calls is lost",
        "hope/stretch.py",
        "    if state.last is None:\n",
        "    if True:\n",
        IN_PIECES,
    ),
    Mutant(
        "padding teaches",
        "hope/level.py",
        "if live is not None:",
        "if False:",
        "test test_hope.py::test_padding_teaches_nothing[cuts0]",
    ),
    Mutant(
        "second order is read as first order",
        "hope/stretch.py",
        "torch.is_grad_enabled() or lesson.second_order",
        "torch.is_grad_enabled()",
        "test test_hope_models.py::test_second_order_reads_the_same_and_trains_otherwise",
    ),
    Mutant(
        "the gradient of a step size counts what faded too",
        "hope/first_order.py",
        "(d_log_lr - left * d_left)",
        "d_log_lr",
        BY_AUTOGRAD,
    ),
    Mutant(
        "a frozen level of the CMS is written",
        "hope/continuum.py",
        "None if held else lesson",
        "lesson",
        "test test_hope_models.py::test_reading_is_learning_and_frozen_levels_stay",
    ),
    Mutant(
        "a frozen box is written",
        "hope/block.py",
        "if box not in closed",
        "if box",
        "test test_hope_models.py::test_reading_is_learning_and_frozen_levels_stay",
    ),
    Mutant(
        "the word cms means its first level only",
        "hope/levels.py",
        'dict.fromkeys(block.cms.names, "cms")',
        'dict.fromkeys(block.cms.names, "cms") | dict.fromkeys(block.cms.names[1:], "rest")',
        "test test_hope_models.py::test_a_word_for_a_part_means_all_its_levels",
    ),
    Mutant(
        "the reset of one level resets the others",
        "hope/levels.py",
        "if name in levels else now",
        "if levels else now",
        "test test_hope_models.py::test_a_reset_level_is_as_at_the_beginning_and_the_others_are_not",
    ),
    Mutant(
        "a reset box goes on generating from what it was",
        "hope/levels.py",
        "S[..., rows, :] = anchor[..., rows, :] =",
        "S[..., rows, :] =",
        "test test_hope_models.py::test_a_stream_whose_levels_are_all_reset_is_read_as_a_new_one",
    ),
    Mutant(
        "a text is written on without what was read before",
        "hope/generate.py",
        '"top_k": top_k, "state": state,',
        '"top_k": top_k, "state": None,',
        "test test_hope_models.py::test_generation_follows_the_model[model]",
    ),
    Mutant(
        "the temperature is ignored",
        "hope/generate.py",
        "logits.float() / temperature",
        "logits.float()",
        "test test_hope_models.py::test_draws_have_the_chances_of_their_temperature",
    ),
    Mutant(
        "all tokens are drawn and not the k likeliest",
        "hope/generate.py",
        "logits.masked_fill(logits < least, -torch.inf)",
        "logits",
        "test test_hope_models.py::test_draws_keep_to_the_k_likeliest_and_to_their_seed",
    ),
    Mutant(
        "a resumed run has lost the memories of its optimizer",
        "hope/runs.py",
        'self.optimizer.load_state_dict(saved["optimizer"])',
        "pass",
        RUNS,
    ),
    Mutant(
        "a resumed run draws its first batches again",
        "hope/runs.py",
        'self.generator.set_state(random.pop("batches"))',
        'random.pop("batches")',
        RUNS,
    ),
    Mutant(
        "dynamic evaluation trains the model and not its copy",
        "hope/evaluation.py",
        "pupil = copy.deepcopy(model).requires_grad_(True)",
        "pupil = model.requires_grad_(True)",
        "test test_reading.py::test_it_learns_a_stream_that_repeats_itself_and_leaves_the_model_alone",
    ),
    Mutant(
        "dynamic evaluation learns a piece before it is scored",
        "hope/evaluation.py",
        "            learner.step()\n",
        "            learner.step()\n            bits[begin:end] = _read_piece(pupil, tokens, begin, end, context, "
        "None, reading)[0].detach()\n",
        "test test_reading.py::test_dynamic_evaluation_predicts_then_learns",
    ),
)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a folder with a copy of the library and its tests."""
    heavy = shutil.ignore_patterns("__pycache__", "browser", "mutants", "colab")
    for name in ("nlcore", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=heavy)
    shutil.copy(ROOT / "pyproject.toml", tmp_path / "pyproject.toml")
    return tmp_path


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.says.replace(" ", "-"))
def test_a_fault_of_hope_is_noticed(mutant: Mutant, copy: Path) -> None:
    assert_noticed(mutant, copy)


@pytest.mark.parametrize("caught_by", sorted({mutant.caught_by for mutant in MUTANTS if "::" in mutant.caught_by}))
def test_without_a_fault_of_hope_nothing_fails(caught_by: str, copy: Path) -> None:
    status, said = in_a_fork(copy, caught_by)
    assert status == 0, said[-2000:]
