"""Exercises of notebook 00: when a level moves, and how far."""

from __future__ import annotations

import math

from nlcore.course.exercises.framework import Exercise, Mistake, Stage


def moves_now(step: int, period: float) -> bool:
    """Does a level with this period move at this step? Steps are counted from 1."""
    return step % period == 0


def level_step(state: float, errors: list[float], lr: float, decay: float) -> float:
    """Return the state of a level after it has seen a whole period of errors."""
    kept = (1 - decay) ** len(errors) * state
    return kept + lr * sum(errors)


def _moves_now_oracle(step: int, period: float) -> bool:
    return period != math.inf and step / period == int(step / period)


def _level_step_oracle(state: float, errors: list[float], lr: float, decay: float) -> float:
    for _ in errors:
        state = state - decay * state
    for error in errors:
        state = state + lr * error
    return state


MOVES_NOW = Exercise(
    name="moves_now",
    notebook="00",
    solution=moves_now,
    oracle=_moves_now_oracle,
    stages=(
        Stage("a level that moves at every step", lambda: (3, 1)),
        Stage("step 8 of a level with period 4", lambda: (8, 4)),
        Stage("step 7 of a level with period 4", lambda: (7, 4)),
        Stage("the first step of a level with period 4", lambda: (1, 4)),
        Stage("step 2 of a level with period 4", lambda: (2, 4)),
        Stage("a frozen level, whose period is infinite", lambda: (1000, math.inf)),
    ),
    mistakes=(
        Mistake(
            lambda step, period: (step + 1) % period == 0,
            "You count the steps from 0. Here the first step is 1, so a level with period 4 moves at 4, 8, 12, ...",
        ),
        Mistake(
            lambda step, period: (step - 1) % period == 0,
            "Your level moves at the first step of a period. It should collect a whole period first, then move.",
        ),
        Mistake(
            lambda step, period: step >= period,
            "Your level waits for its first period, and then moves at every step. It should wait each time.",
        ),
        Mistake(
            lambda step, period: period % step == 0,
            "You divide the period by the step. Ask the other way round: is the step a multiple of the period?",
        ),
        Mistake(
            lambda step, period: step % period,
            "You return the remainder. The level moves when the remainder is zero: compare it with 0.",
        ),
    ),
    hints=(
        "List the steps at which a level with period 4 moves. What do these numbers have in common?",
        "A number is a multiple of another when the remainder of the division is 0. Python writes the remainder a % b.",
        "Return the comparison step % period == 0. Python gives 1000 % math.inf = 1000, so frozen levels fit in.",
    ),
)

LEVEL_STEP = Exercise(
    name="level_step",
    notebook="00",
    solution=level_step,
    oracle=_level_step_oracle,
    stages=(
        Stage("one error and no decay", lambda: (1.0, [0.5], 0.1, 0.0)),
        Stage("one error and some decay", lambda: (1.0, [0.5], 0.1, 0.2)),
        Stage("a whole period of four errors", lambda: (2.0, [0.5, -1.0, 0.25, 2.0], 0.1, 0.2)),
        Stage("a period without errors to learn from", lambda: (2.0, [0.0, 0.0], 0.1, 0.5)),
    ),
    mistakes=(
        Mistake(
            lambda state, errors, lr, decay: (1 - decay) ** len(errors) * state - lr * sum(errors),
            "The sign is wrong: the error is (signal - prediction), so the state must move along it, not against it.",
        ),
        Mistake(
            lambda state, errors, lr, decay: (1 - decay) ** len(errors) * state + lr * sum(errors) / len(errors),
            "You take the mean of the errors. Eq. 71 of the paper takes their sum: every error of the period counts.",
        ),
        Mistake(
            lambda state, errors, lr, decay: (1 - decay) * state + lr * sum(errors),
            "You let the state decay once. It decays at every step of the period: (1 - decay) to the number of errors.",
        ),
        Mistake(
            lambda state, errors, lr, decay: (1 - decay) ** len(errors) * (state + lr * sum(errors)),
            "You let the new errors decay too. Only the old state decays; then the sum of the errors is added.",
        ),
        Mistake(
            lambda state, errors, lr, decay: decay ** len(errors) * state + lr * sum(errors),
            "You keep the part `decay`. That is the part that is lost; the part that is kept is 1 - decay.",
        ),
        Mistake(
            lambda state, errors, lr, decay: state + lr * sum(errors),
            "You forgot the decay: the old state should shrink by the factor (1 - decay) for each error.",
        ),
    ),
    hints=(
        "Two things happen: the old state fades a little at each step of the period, and the errors are added.",
        "After n steps the part (1 - decay) ** n of the old state is left. n is the number of errors, len(errors).",
        "Return (1 - decay) ** len(errors) * state + lr * sum(errors).",
    ),
)

EXERCISES = (MOVES_NOW, LEVEL_STEP)
