# %% [markdown]
# # 00 · Start here
#
# *What you will do.* Check that everything works, see the map of the course, and watch four levels learn one signal at
# four speeds.
#
# **Afterwards you can**
#
# - say what a level is and how its update frequency is measured
# - sort the parts of a system from the fastest to the slowest
# - compute when a level moves, and how far
# - use the claims, figures, sliders and exercises of this course
#
# **You need** Python, and what a tensor and a training loop are in PyTorch. Nothing of the paper.
#
# **Time** 45 minutes · runs in about 20 s on a CPU
#
# {{badge}}

# %% tags=["setup"]
# {{setup}}

# %% [markdown]
# The line above names the versions and the device. Everything in this course runs on a CPU. When a GPU is there, the
# notebooks use it. Now let the doctor look at your set-up: each line with ✓ is fine, a line with ✗ says what to do.

# %%
course.doctor();

# %% [markdown]
# ## 1 · What is this course about?
#
# A language model is trained once. Afterwards its weights stay as they are: **they are never updated again**. It can
# still read a text, because attention is computed anew at every token; when the text is over, all of that is gone.
#
# So today's models live at two ends. One part changes at every token, the other part never. The paper behind this
# course, *Nested Learning* (Behrouz, Razaviyayn, Zhong and Mirrokni, NeurIPS 2025), asks what lies between.
#
# **Predict.** Take a frozen model and its attention. How often is each of them updated: never, every step, or at every
# token anew? Which one is faster?

# %%
import math

from nlcore.levels import Level, describe, order_levels

frozen_model = [
    Level("attention", 0, "the tokens it can see"),
    Level("feed-forward weights", math.inf, "what was learned in training"),
]
print(describe(frozen_model))

# %% [markdown]
# A **level** is a part of a system with its own update **period**: the number of steps between two updates. Its
# **frequency** is
#
# $$
# f = \frac{1}{C} \tag{00.1}
# $$
#
# where $C$ is the period in steps. A frozen part has $C = \infty$, so $f = 0$. Attention is computed anew each time; the
# paper gives it $f = \infty$.
#
# The idea of the paper is to fill the space between the two ends with **memories that are updated at their own
# frequency**. Here are the parts that you will build in this course, on one line.

# %% tags=["figure"]
ends = ["feed-forward weights,\nfrozen", "attention"]
parts = [Level(ends[0], math.inf), Level("slow memory", 64), Level("middle memory", 16)]
parts += [Level("fast memory", 4), Level("fast weights,\nmomentum", 1), Level(ends[1], 0)]
ordered = [part for level in order_levels(parts) for part in level][::-1]

fig, ax = course.canvas(7.6, 2.0)
for place, part in enumerate(ordered):
    end = part.name in ends
    colour = course.style.COLOURS["black" if end else "blue"]
    ax.plot(place, 0, "s" if end else "o", color=colour, markersize=11)
    ax.annotate(part.name, (place, 0.2), ha="center", va="bottom")
ax.axhline(0, color="#999999", linewidth=1, zorder=0)
ax.set(title="Today's models live at the two ends; this course fills the space between")
words = ["0", *(f"1/{part.period:g}" if part.period > 1 else "1" for part in ordered[1:-1]), "∞"]
ax.set_xticks(range(len(ordered)), words)
ax.set(xlabel="update frequency f (updates per step)", xlim=(-0.7, len(ordered) - 0.4))
ax.set(ylim=(-0.3, 0.9), yticks=[])
ax.spines["left"].set_visible(False)
ax.grid(False)
places = [f"{part.name} at {word}" for part, word in zip(ordered, words, strict=True)]
alt = f"A line from update frequency 0 to infinity: {', '.join(places)}. "
alt += "A frozen language model has the two ends only."
course.figure(fig, "map-of-frequencies", alt=alt)

# %% [markdown]
# ### The map
#
# | | you meet | and learn that |
# |---|---|---|
# | 00 | levels | parts of a system learn at different speeds |
# | 01 | frozen models | a model without slow learning is like a patient who forms no new memories |
# | 02 | gradient descent | the weights are a memory of surprises |
# | 03 | momentum | a second memory holds past gradients, and forgets them |
# | 04 | Adam | a third memory holds their squares; both are best fits |
# | 05 | better memories | delta, Muon, slow + fast, M3: where each one helps, and where not |
# | 06 | levels | any system sorted by update frequency; what a period does, and what it does not |
# | 07 | forgetting | measured; what rest, slower copies and replay bring back |
# | 08 | the continuum memory system | what a period, a reset and a learning rate do; starts learned through learning |
# | 09 | attention, the delta rule | each is a memory of tokens with an objective of its own; the write rules are those of 03 to 05 |
# | 10 | Titans | an optimizer run on tokens learns at test time; where chunks keep its numbers and where they break |
# | 11 | self-modifying Titans | keys, values and rates can learn too; what a step must do to count to two |
# | 12 | HOPE | all of it in one model that learns while it reads; what it gains beside a Transformer, and what it costs |
#
# Still to come are continual learning on text (13) and a scorecard of the paper's claims (14).

# %% [markdown]
# ## 2 · Which part is faster?
#
# The paper sorts the parts of a system by two rules (its Definition 2). Part A is **faster** than part B if
#
# 1. A is updated more often than B, or
# 2. both are updated equally often, but B's new state needs A's new state.
#
# Parts that neither rule separates share a level.
#
# **Predict.** In gradient descent with momentum, both the momentum and the weights are updated at every step. Are they
# one level or two?

# %%
momentum = Level("momentum", 1, "past gradients")
weights = Level("weights", 1, "what was learned", needs=("momentum",))
embedding = Level("frozen embedding", math.inf, "given")
print(describe([weights, embedding, momentum]))

# %% [markdown]
# The weights need the new momentum, so rule 2 puts momentum first. Every optimizer of this course can print its levels in
# this way. These are the functions that sort and describe; `course.show` always prints the very source that our tests run.

# %%
course.show(order_levels, describe)

# %% tags=["claim"]
nest = order_levels([weights, embedding, momentum])
course.claim(
    "momentum and weights move equally often, yet they are {n} levels: the fastest is the {first}",
    momentum.frequency == weights.frequency and [level[0].name for level in nest[:2]] == ["momentum", "weights"],
    n=len(nest[:2]),
    first=nest[0][0].name,
)

# %% [markdown]
# A sentence with ✓ is a **claim**: the notebook checks it each time it runs, and stops if it is false.
#
# ### Exercise 1 · `moves_now`
#
# *5 minutes · easy · objective: compute when a level moves.*
#
# Steps are counted from 1. A level with period $C$ collects what it sees and moves at the steps $C, 2C, 3C, \dots$ Write
# a function that says whether it moves at this step.

# %% tags=["exercise"]
def moves_now(step, period):
    """Return True if a level with this period moves at this step."""
    ...


# %% tags=["check"]
course.check.moves_now(moves_now)

# %%
course.hint.moves_now(1)  # then 2 and 3, if you need them

# %% [markdown]
# <details><summary>Solution and why</summary>
#
# ```python
# def moves_now(step, period):
#     return step % period == 0
# ```
#
# The level moves when the step is a multiple of the period, so when the remainder of the division is zero. For a frozen
# level the period is infinite. Python gives `1000 % math.inf == 1000`, which is never zero: the level never moves.
#
# </details>

# %% [markdown]
# ## 3 · How does one level learn?
#
# Take the smallest level there is: a single number $s$. It watches a signal $y_t$ and predicts the next value. At each
# step $t$ there is an **error**, the signal less the prediction:
#
# $$
# e_t = y_t - s_t \tag{00.2}
# $$
#
# A fast level corrects itself after every error. A slow level with period $C$ collects the errors of $C$ steps, then moves
# once:
#
# $$
# s \leftarrow (1 - d)^{C} s + \eta \sum_{i=1}^{C} e_i \tag{00.3}
# $$
#
# Here $\eta$ is the learning rate (`lr`) and $d$ is the decay: the part of the state that is lost at each step. This is
# the update of the paper's Continuum Memory System (its equation 71) for a level of one number. The decay is ours.
#
# **Predict.** A level has the state 1. It sees the errors 0.5 and 0.5, with $\eta = 0.1$ and $d = 0$. Where is it now?

# %%
from nlcore.timescales import learn_together

state = learn_together([1.0, 1.0, 1.0], periods=[1], lrs=[0.5], decays=[0.0])
print("a level with lr 0.5 that sees the signal 1, 1, 1 holds", state[:, 0].tolist())

# %% [markdown]
# The level starts at 0. Each error moves it half of the way. The answer to the question is
# $1 + 0.1 \cdot (0.5 + 0.5) = 1.1$. And this is all the code: several levels share the error, and each adds its own part
# to the prediction.

# %%
course.show(learn_together)

# %% [markdown]
# ### Exercise 2 · `level_step`
#
# *8 minutes · medium · objective: compute how far a level moves.*
#
# Write equation (00.3): `state` is $s$, `errors` is the list of the errors of one period, so $C$ is its length. Return
# the new state.

# %% tags=["exercise"]
def level_step(state, errors, lr, decay):
    """Return the state of a level after a whole period of errors."""
    ...


# %% tags=["check"]
course.check.level_step(level_step)

# %%
course.hint.level_step(1)  # then 2 and 3, if you need them

# %% [markdown]
# <details><summary>Solution and why</summary>
#
# ```python
# def level_step(state, errors, lr, decay):
#     kept = (1 - decay) ** len(errors) * state
#     return kept + lr * sum(errors)
# ```
#
# The old state decays at each of the `len(errors)` steps. The errors are **summed**, not averaged: a level that moves
# rarely has more to learn from when it moves. Notebook 06 shows what follows from that.
#
# </details>

# %% [markdown]
# ## 4 · What does each of four levels learn?
#
# Now a signal with something for everyone: an offset that never changes, a slow, a middle and a fast wave, and noise. Four
# levels share the error. From one level to the next slower one the period is four times as long and the learning rate
# half as large.
#
# **Predict.** Nobody tells a level which part is its own. Which level will hold the slow wave, and which the fast one?

# %%
import numpy as np

from nlcore.timescales import slow_middle_fast, specialisation

NAMES = ["slowest", "slow", "fast", "fastest"]
WAVES = ["slow", "middle", "fast"]


def four_levels(period_ratio, lr_ratio, lr_fastest):
    """Return periods, learning rates and decays of four levels, the slowest first. All but the slowest leak."""
    periods = [period_ratio**k for k in (3, 2, 1, 0)]
    lrs = [lr_fastest / lr_ratio**k for k in (3, 2, 1, 0)]
    return periods, lrs, [0.0] + [lr / 2 for lr in lrs[1:]]


signal, waves = slow_middle_fast()
states = learn_together(signal, *four_levels(period_ratio=4, lr_ratio=2, lr_fastest=0.5))
print("steps, levels:", states.shape)

# %% [markdown]
# Two functions are new: one makes the signal, the other will measure which wave a level follows.

# %%
course.show(slow_middle_fast, specialisation)

# %% [markdown]
# Here is what the four levels hold, each beside one of the true waves.

# %% tags=["figure"]
steps = np.arange(400, 1000)
fig, axes = course.canvas(7.0, 4.4, rows=4, sharex=True)
for level, (ax, wave) in enumerate(zip(axes, [0, 1, 1, 2], strict=True)):
    truth = waves[steps, wave] + (1.0 if level == 0 else 0.0)
    ax.plot(steps, truth, color="#888888", linestyle="--", linewidth=1)
    ax.plot(steps, states[steps, level], color=course.style.STYLES[level]["color"], linewidth=1.4)
    note = f"dashed: the true {WAVES[wave]} wave{' on the offset' if level == 0 else ''}"
    ax.set_title(note, loc="right", fontsize=8, fontweight="normal", pad=2)
    ax.set_ylabel(NAMES[level])
fig.suptitle("Each level holds its own part of the signal", fontweight="bold", fontsize=11)
axes[-1].set_xlabel("step")
held = specialisation(states, waves)
alt = f"The slowest level follows the slow wave around the offset (correlation {held[0, 0]:.2f}), "
alt += f"the two middle levels the middle wave ({held[1, 1]:.2f} and {held[2, 1]:.2f}), "
alt += f"the fastest level the fast wave ({held[3, 2]:.2f})."
course.figure(fig, "four-levels-four-speeds", alt=alt)

# %% [markdown]
# Look at the slowest level: it moves in steps, because it is updated every 64 steps only. The number that says how well a
# level follows a wave is their **correlation**: 1 if they rise and fall together, 0 if they have nothing in common.

# %% tags=["claim"]
offset_held = states[500:, 0].mean()
course.claim(
    "the slowest level follows the slow wave ({a:.2f}) and holds the offset (its mean is {b:.2f}, true is 1); "
    "the fastest follows the fast wave most ({c:.2f})",
    held[0].argmax() == 0 and held[3].argmax() == 2 and abs(offset_held - 1) < 0.2,
    a=held[0, 0],
    b=offset_held,
    c=held[3, 2],
)

# %% [markdown]
# The parts found their levels on their own. But which setting did it: the **period** or the **learning rate**? Here is a
# control. First all four levels move at every step, and only the learning rates differ. Then all four learning rates are
# equal, and only the periods differ.

# %%
only_rates = learn_together(signal, *four_levels(period_ratio=1, lr_ratio=2, lr_fastest=0.5))
only_periods = learn_together(signal, *four_levels(period_ratio=4, lr_ratio=1, lr_fastest=0.02))
for name, run in [("both", states), ("rates", only_rates), ("periods", only_periods)]:
    match = specialisation(run, waves)
    print(f"{name:8} slow {match[0, 0]:.2f}  middle {match[1, 1]:.2f}  fast {match[3, 2]:.2f}")

# %% tags=["claim"]
by_rates, by_periods = specialisation(only_rates, waves), specialisation(only_periods, waves)
best = held.argmax(1)
change = abs(by_rates[range(4), best] - held[range(4), best]).max()
course.claim(
    "without different periods each level still follows its own wave: these correlations change by at most {a:.2f}; "
    "without different learning rates the fastest level follows the fast wave at {b:.2f} instead of {c:.2f}",
    (by_rates.argmax(1) == best).all() and change < 0.1 and by_periods[3, 2] < held[3, 2] - 0.2,
    a=change,
    b=by_periods[3, 2],
    c=held[3, 2],
)

# %% [markdown]
# So in this small world the learning rate, together with the decay, decides **what** a level learns. The period decides
# **how often we pay** for an update. Keep that in mind: notebooks 06 to 08 return to it with real tasks.
#
# Now it is your turn. Each picture has three parts: when each level moves, what each level holds, and how well it follows
# each wave. Sliders can be moved with the arrow keys.

# %%
colours = [style["color"] for style in course.style.STYLES[:4]]
fig, axes = course.canvas(7.6, 3.1, cols=3, gridspec_kw={"width_ratios": [1, 1.5, 1]})
raster, curves, table = axes
ticks = [raster.plot([], [], "|", color=colour, markersize=11)[0] for colour in colours]
lines = [curves.plot([], [], "-", color=colour, linewidth=1.3)[0] for colour in colours]
cells = table.imshow(np.zeros((4, 3)), vmin=-1, vmax=1, cmap="PuOr", aspect="auto")
numbers = [[table.text(x, y, "", ha="center", va="center") for x in range(3)] for y in range(4)]
raster.set(title="who moves when", xlabel="step", xlim=(0, 65), ylim=(3.5, -0.5))
raster.set_yticks(range(4), NAMES)
curves.set(title="what each level holds", xlabel="step", xlim=(600, 920), ylim=(-5.3, 1))
curves.set_yticks([0, -1.5, -3, -4.5], NAMES)
table.set(title="follows the wave", yticks=[])
table.set_xticks(range(3), WAVES)
for ax in axes:
    ax.grid(False)

# %% [markdown]
# The cell above drew the empty picture once. This one says what changes when a slider moves.

# %%
def redraw(period_ratio, lr_ratio, lr_fastest):
    periods, lrs, decays = four_levels(period_ratio, lr_ratio, lr_fastest)
    held = learn_together(signal, periods, lrs, decays)
    match = specialisation(held, waves)
    for level, (tick, line) in enumerate(zip(ticks, lines, strict=True)):
        steps = np.arange(periods[level], 65, periods[level])
        tick.set_data(steps, np.full(len(steps), level))
        shown = held[600:920, level]
        line.set_data(range(600, 920), np.clip(shown - shown.mean(), -1, 1) - 1.5 * level)
        for part in range(3):
            numbers[level][part].set_text(f"{round(match[level, part], 2) + 0:.2f}")  # no -0.00
            numbers[level][part].set_color("white" if abs(match[level, part]) > 0.7 else "black")
    cells.set_data(match)
    if not np.abs(held).max() < 20:  # nan, if a level has left all bounds
        return f"Periods {periods}: the levels diverge. Learning rate times period is too large."
    best = [f"{NAMES[k]} {WAVES[match[k].argmax()]} ({match[k].max():.2f})" for k in range(4)]
    return f"Periods {periods}. Each level follows best: {', '.join(best)}."


# %% tags=["widget"]
course.explore(
    fig,
    redraw,
    [
        course.Slider("period_ratio", "period ratio", [1, 4, 8], start=4),
        course.Slider("lr_ratio", "learning-rate ratio", [1, 2, 4], start=2),
        course.Slider("lr_fastest", "learning rate η of the fastest", [0.02, 0.2, 0.5], start=0.5),
    ],
    name="levels-at-four-speeds",
    title="Levels at four speeds",
    goal="Find settings where each wave has a level of its own; then make the levels diverge.",
    presets={
        "four speeds": {"period_ratio": 4, "lr_ratio": 2, "lr_fastest": 0.5},
        "only learning rates differ": {"period_ratio": 1, "lr_ratio": 2, "lr_fastest": 0.5},
        "only periods differ": {"period_ratio": 4, "lr_ratio": 1, "lr_fastest": 0.02},
        "diverges": {"period_ratio": 8, "lr_ratio": 1, "lr_fastest": 0.5},
    },
)

# %% [markdown]
# ## 5 · How does this course work?
#
# * **Predict** before you run a cell. A wrong prediction is worth more than a right one: you remember it.
# * A sentence with ✓ is checked each time the notebook runs. So is every equation with a number, by a test with both sides.
# * Numbers like (NL 10) are the equation numbers of the paper; numbers like (00.3) are ours.
# * An exercise has a check, three hints and a folded solution. *Run All* never stops at an exercise.
# * The paper has printing errors. Where one matters, the notebook says so and shows the right form.
# * Where a claim of the paper does not hold in our small experiments, the notebook says that too.
#
# ## What you did
#
# * You met the two ends of today's models: frozen weights and attention, and the empty space between them.
# * You sorted parts by their update frequency, and by who needs whom.
# * You computed when a level moves (exercise 1) and how far (exercise 2).
# * You saw four levels share one signal, with the control that tells what the period does and what it does not.
#
# ## What this does not show
#
# The four levels were four numbers that learn four built-in waves, with one fixed noise. Nothing here says that a neural
# network with slow and fast levels forgets less; the paper makes that claim, and notebooks 07, 08 and 13 test it. The
# decay of our levels is our own addition.
#
# ## Recall
#
# <details><summary>1. What is the frequency of a part with period 16, and of a frozen part?</summary>
#
# 1/16 update per step, and 0.
#
# </details>
#
# <details><summary>2. Momentum and weights are both updated at every step. Why are they two levels?</summary>
#
# Rule 2: the new weights need the new momentum, so momentum is the faster part.
#
# </details>
#
# <details><summary>3. Which setting decided what a level learned in section 4, and which only how often it moved?</summary>
#
# The learning rate (with the decay) decided what it learned. The period only decided how often it moved.
#
# </details>
#
# ## Further reading
#
# * Behrouz, Razaviyayn, Zhong, Mirrokni, *Nested Learning: The Illusion of Deep Learning Architectures*, arXiv 2512.24695,
#   sections 1 and 3.2: the motivation and the definition of levels (30 minutes).
# * Hochreiter, Younger, Conwell, *Learning to learn using gradient descent*, ICANN 2001: an early model with a slow and a
#   fast level of learning (20 minutes).
