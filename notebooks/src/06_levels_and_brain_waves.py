# %% [markdown]
# # 06 · Levels and brain waves
#
# *What you will do.* Sort whole systems into levels, record who moves when and how far, and find out what an update
# period does and what it does not do.
#
# **Afterwards you can**
#
# - order all parts of a model and its training by update frequency
# - read an update raster and drift staircases, and record them for any PyTorch training
# - say when a period is just a small learning rate, and what makes levels specialise
# - name five ways in which one level passes knowledge to another
# - say what the brain waves in the paper claim, and what they do not
#
# **You need** notebooks 00 and 03, and what a layer and a training loop are in PyTorch.
#
# **Time** 60 minutes · runs in about 30 s on a CPU
#
# {{badge}}

# %% tags=["setup"]
# {{setup}}

# %% [markdown]
# ## 1 · Which part of a system is the fastest?
#
# Notebook 00 sorted parts that you listed by hand. A real system is more: a model, its optimizer, and the loop around
# both, each with its own clock. `nest` collects their parts. `Slower` brings two clocks together.
#
# Take a small language model. Its clock ticks once for each **token** (a piece of a word). In training, Adam moves the
# weights once for each text of 512 tokens.
#
# **Predict.** How many levels does this system have in training? And in use, when nobody trains it any more?

# %%
from nlcore.levels import Level, Slower, describe, nest, order_levels

course.show(nest, Slower)

# %%
import torch

from nlcore.optimizers import Adam

attention = Level("attention", 0, "the tokens it can see")
mlp, embedding = torch.nn.Linear(64, 64), torch.nn.Embedding(1000, 64)
in_training = nest(attention, Slower(Adam(mlp.parameters()), by=512), embedding)
in_use = nest(attention, mlp, embedding)
print("in training:", describe(in_training), "\nin use:", describe(in_use), sep="\n")

# %% tags=["claim"]
weights = next(part for part in in_training if part.name == "weights W")
course.claim(
    "{a} levels in training, with weights that move once in {tokens:g} tokens; {b} levels in use: there attention has "
    "the frequency {first} and everything else {last:g}",
    len(order_levels(in_training)) == 4
    and 1 / weights.frequency == 512
    and {part.frequency for part in in_use} == {0.0, float("inf")},
    a=len(order_levels(in_training)),
    tokens=1 / weights.frequency,
    b=len(order_levels(in_use)),
    first=in_use[0].frequency,
    last=in_use[-1].frequency,
)

# %% [markdown]
# When training ends, all levels between the two ends disappear. That is the empty space of notebook 00.
#
# What **number** does a level have? Here the paper contradicts itself. Its Definition 2 says: the higher the level, the lower
# the frequency, so the fastest comes first. Its Figure 2 and section 3.2 call pre-training, the slowest part, the first
# level.

# %% tags=["claim"]
levels = order_levels(in_training)
place = next(k for k, level in enumerate(levels) if attention in level)
course.claim(
    "counted as in Definition 2, attention is level {a} of {n}; counted as in Figure 2, it is level {b} of {n}",
    (place + 1, len(levels) - place) == (1, len(levels)),
    a=place + 1,
    b=len(levels) - place,
    n=len(levels),
)

# %% [markdown]
# So a sentence like "level 2 is slower" means nothing by itself. This course never calls a level by its number alone: it
# says the frequency, and prints the fastest first.
#
# ### Exercise 1 · `faster`
#
# *6 minutes · easy · objective: order two parts by Definition 2.*
#
# `a` and `b` are of the class `Level`: use `a.frequency`, `a.name` and `b.needs` (the names of the parts whose new state
# `b` needs). Return True if `a` is faster than `b`: (1) if it is updated more often, or (2) if both are updated equally
# often and `b` needs `a`.


# %% tags=["exercise"]
def faster(a, b):
    """Return True if part a is faster than part b by Definition 2."""
    ...


# %% tags=["check"]
course.check.faster(faster)

# %%
course.hint.faster(1)  # then 2 and 3, if you need them

# %% [markdown]
# <details><summary>Solution and why</summary>
#
# ```python
# def faster(a, b):
#     if a.frequency != b.frequency:
#         return a.frequency > b.frequency
#     return a.name in b.needs
# ```
#
# Rule 2 counts only when rule 1 does not decide. A memory with period 10 stays slow, even if a part that moves at every
# step reads it.
#
# </details>

# %% [markdown]
# ## 2 · Who moved when, and how far?
#
# A nest says what **should** happen. A trace records what **did**. After each step $t$, for a part with the numbers
# $w$:
#
# $$
# \text{moves}_t = \lvert w_t - w_{t-1} \rvert, \qquad \text{drift}_t = \lvert w_t - w_0 \rvert \tag{06.1}
# $$
#
# The first is how far the part moved in this step, the second how far it is from where it started.

# %%
from nlcore.levels import UpdateTrace

course.show(UpdateTrace.record, UpdateTrace.updates, UpdateTrace.staircase)

# %% [markdown]
# Now a real network: three layers learn handwritten digits, and each layer is a level with its own period. Nothing new is
# needed for that. PyTorch **adds gradients up** until you call `zero_grad`. So a slow layer just waits. All tensors get
# a leading axis: one copy of the network for each of `R` seeds.

# %%
from itertools import pairwise

from nlcore.tasks import digits
from nlcore.training import batches

course.show(batches)
images, NAMES = digits(device=device, dtype=torch.float64), ["layer 1", "layer 2", "layer 3"]


def fresh_layers(seeds, sizes=(64, 32, 32, 10)):
    """Return for each layer its weights (R, in, out) and biases (R, 1, out): one start for each seed."""
    randoms = [torch.Generator().manual_seed(seed) for seed in seeds]
    layers = []
    for d_in, d_out in pairwise(sizes):
        W = torch.stack([torch.randn(d_in, d_out, generator=random) for random in randoms]) * (2 / d_in) ** 0.5
        b = torch.zeros(len(seeds), 1, d_out)
        layers.append([one.to(images.x_train).requires_grad_() for one in (W, b)])
    return layers


def answer(layers, x):
    """Return the outputs (R, B, 10) for the examples x (R, B, 64)."""
    for depth, (W, b) in enumerate(layers):
        x = (x.relu() if depth else x) @ W + b
    return x


# %%
from torch.nn.functional import cross_entropy


def train(periods, lrs, seeds, decays=(0, 0, 0), steps=256):
    """Train; each layer moves once in its own period, by the sum of its gradients, and fades towards its start."""
    layers = fresh_layers(seeds)
    starts = [[W.detach().clone() for W in layer] for layer in layers]
    optimizers = [torch.optim.SGD(layer, lr=lr) for layer, lr in zip(layers, lrs, strict=True)]
    trace = UpdateTrace(dict(zip(NAMES, layers, strict=True)), every=1 if len(seeds) == 1 else None)
    orders = [batches(len(images.x_train), 32, steps, torch.Generator().manual_seed(seed)) for seed in seeds]
    for step, rows in enumerate(zip(*orders, strict=True), start=1):
        rows = torch.stack(rows).to(device)  # (R, 32)
        outputs = answer(layers, images.x_train[rows])
        targets = images.y_train[rows].flatten()
        (cross_entropy(outputs.flatten(0, 1), targets, reduction="sum") / 32).backward()  # a sum over the seeds
        for layer, start, optimizer, period, decay in zip(layers, starts, optimizers, periods, decays, strict=True):
            if step % period == 0:
                with torch.no_grad():
                    for W, W0 in zip(layer, start, strict=True):
                        W.lerp_(W0, 1 - (1 - decay) ** period)
                optimizer.step()
                optimizer.zero_grad()
        trace.record()
    return layers, trace


# %% [markdown]
# The first layer moves at every step, the second every 8 steps, the third every 64. The paper's Figure 5 has the fast
# level first, too. The learning rates are divided by the periods, for a reason that section 3 shows.
#
# **Predict.** Draw the distance from the start over 256 steps, for the fast and for the slow layer.

# %%
PERIODS = (1, 8, 64)
_, trace = train(PERIODS, [0.4 / period for period in PERIODS], seeds=[0])
moved = {name: trace.steps[trace.moved[:, k]] for k, name in enumerate(NAMES)}
stairs = {name: trace.staircase(name) for name in NAMES}
print(trace.updates())

# %% tags=["figure"]
fig, axes = course.canvas(7.0, 4.6, rows=4, sharex=True)
rows = [f"{name},\nperiod {period}" for name, period in zip(NAMES, PERIODS, strict=True)]
for row, (name, ax, style) in enumerate(zip(NAMES, axes[1:], course.style.STYLES, strict=False)):
    axes[0].plot(moved[name], [row] * len(moved[name]), "|", color=style["color"], markersize=9)
    ax.plot(*stairs[name], color=style["color"], drawstyle="steps-post")
    ax.set_ylabel(rows[row], rotation=0, ha="right", va="center")
    ax.set_ylim(0, 1.15 * stairs[name][1].max())
axes[0].set_yticks(range(3), NAMES)
axes[0].set(ylim=(2.6, -0.6), title="Update raster: who moved when")
axes[0].grid(False)
axes[1].set_title("Drift staircases: how far from the start (each on its own scale)")
axes[3].set(xlim=(-2, 260), xlabel="step")
axes[3].set_xticks(range(0, 257, 32))
words = [f"{name} moved {len(moved[name])} times and ended {stairs[name][1][-1]:.2f} from its start" for name in NAMES]
alt = f"{'; '.join(words)}. The rarer a layer moves, the fewer and wider are the steps of its staircase."
course.figure(fig, "raster-and-staircases", alt=alt)

# %% tags=["claim"]
parts = nest(*(Level(name, period) for name, period in zip(NAMES, PERIODS, strict=True)))
measured = {name: count / len(trace.steps) for name, count in trace.updates().items()}
course.claim(
    "the frequencies that the trace measured, {measured}, are those that Definition 2 sorts by",
    [measured[part.name] for part in parts] == [part.frequency for part in parts],
    measured=", ".join(f"{name} {frequency:.4g}" for name, frequency in measured.items()),
)
course.claim(
    "between two moves a layer stays exactly where it is: layer 3 stood at {n} places, its start among them",
    len(stairs["layer 3"][1].unique()) == len(moved["layer 3"]) + 1,
    n=len(stairs["layer 3"][1].unique()),
)

# %% [markdown]
# ### What does watching cost?
#
# Measuring reads every number of a part. In a large part that would slow training down, so a trace measures it from time
# to time and only **notes** the moves between. `every=1`, as for the figure above, measures each.
#
# The memories of an optimizer are parts too; `parts_of` finds them. Here is momentum with a slow memory `s` beside the
# fast one, `m` (notebook 05), with a large weight.

# %% tags=["claim"]
from nlcore.levels import parts_of
from nlcore.optimizers import MultiscaleMomentum

course.show(parts_of)

random = torch.Generator().manual_seed(0)
weight = torch.zeros(100_000, requires_grad=True)
optimizer = MultiscaleMomentum([weight], lr=0.1, period=10)
trace = UpdateTrace(parts_of(optimizer, "m", "s"))
for _ in range(301):
    weight.grad = torch.randn(weight.shape, generator=random)
    optimizer.step()
    trace.record()
counts, exact = trace.updates(), (trace.moves > 0).sum(0)
course.claim(
    "in {n} steps the weights moved {w} times, m {m} times, s {s} times; measured were {exact} of these moves",
    (counts["weights"], counts["m"], counts["s"]) == (301, 301, 30) and exact.max() < 10,
    n=len(trace.steps),
    w=counts["weights"],
    m=counts["m"],
    s=counts["s"],
    exact=", ".join(str(count) for count in exact.tolist()),
)

# %% [markdown]
# The price in time depends on the machine, so no number for it stands here. `tests/benchmarks/bench_trace.py` measures it
# on yours, for several optimizers, and fails if watching costs more than a small part of a training step.
#
# ## 3 · Is a period more than a small learning rate?
#
# The rule in `train` is the paper's (its equation 71; the fading is ours). Every $C$ steps
#
# $$
# w \leftarrow w - \eta \sum_{i=1}^{C} g_i \tag{06.2}
# $$
#
# ### Exercise 2 · `collect`
#
# *8 minutes · medium · objective: write a level that collects and moves.*
#
# One step of (06.2) for one weight: `collected` is the sum so far in this period, `gradient` is new, and `step` counts
# from 1. Return the weight and what is collected after this step.


# %% tags=["exercise"]
def collect(w, collected, gradient, step, period, lr):
    """Return (w, collected) after this step."""
    ...


# %% tags=["check"]
course.check.collect(collect)

# %%
course.hint.collect(1)  # then 2 and 3, if you need them

# %% [markdown]
# <details><summary>Solution and why</summary>
#
# ```python
# def collect(w, collected, gradient, step, period, lr):
#     collected = collected + gradient
#     if step % period == 0:
#         return w - lr * collected, 0.0
#     return w, collected
# ```
#
# This is `backward` (which adds), then `step` and `zero_grad` once in a period. You may know it as *gradient
# accumulation*: a way to use large batches.
#
# </details>

# %% [markdown]
# Now look at one weight in a bowl of curvature $\lambda$, whose gradient is $\lambda w$. A level with period $C$ sees
# $C$ times the **same** gradient, because $w$ stands still:
#
# $$
# w \leftarrow (1 - C \eta \lambda) \, w \tag{06.3}
# $$
#
# A level that moves at every step, with the same $\eta$, sees the gradient shrink on the way:
#
# $$
# w \leftarrow (1 - \eta \lambda)^C \, w \tag{06.4}
# $$
#
# For small $\eta$ both are the same. For large $\eta$ they are not: (06.3) explodes as soon as $C \eta \lambda$ is above
# 2, (06.4) only when $\eta \lambda$ is.
#
# **Predict.** Which of the two will learn better in a network, at small and at large learning rates?

# %% tags=["claim"]
print("rate * curvature   left after 64 steps: period 64   period 1")
left = {rate: (1 - 64 * rate, (1 - rate) ** 64) for rate in (0.001, 0.01, 0.03, 0.04)}
for rate, (together, one_by_one) in left.items():
    print(f"{rate:16} {together:31.3f} {one_by_one:10.3f}")
course.claim(
    "at rate * curvature = {small} both keep nearly the same part; at {large} period 64 makes the weight "
    "grow by a factor of {a:.2f}, and period 1 leaves {b:.2f} of it",
    abs(left[0.001][0] - left[0.001][1]) < 0.01 and abs(left[0.04][0]) > 1 > left[0.04][1] > 0,
    small=0.001,
    large=0.04,
    a=abs(left[0.04][0]),
    b=left[0.04][1],
)

# %% [markdown]
# The experiment: three layers with the periods 1, 8, 64, or in the other order, and learning rates $\eta / C$. The
# **control** has the same three learning rates, and every layer moves at every step. A third network has no levels: one
# rate $\eta$, period 1. Twelve seeds each, all tested on other images.

# %%
from nlcore.metrics import confidence_interval

RATES, SEEDS = (0.05, 0.2, 0.4, 0.8), range(12)
ORDERS = {"fast layer first": (1, 8, 64), "slow layer first": (64, 8, 1)}


def test_accuracy(layers):
    """Return the accuracy of each copy on the test images, (R,)."""
    with torch.no_grad():
        return (answer(layers, images.x_test).argmax(-1) == images.y_test).double().mean(-1).cpu()


found, writes = {}, {}
for words, periods in ORDERS.items():
    for eta in RATES:
        lrs = [eta / period for period in periods]
        for name, rhythm in (("periods", periods), ("control", (1, 1, 1))):
            layers, trace = train(rhythm, lrs, SEEDS)
            found[words, eta, name], writes[name] = test_accuracy(layers), sum(trace.updates().values())
flat = {eta: test_accuracy(train((1, 1, 1), (eta,) * 3, SEEDS)[0]) for eta in RATES}
gap = {
    (words, eta): confidence_interval(100 * (found[words, eta, "periods"] - found[words, eta, "control"]))
    for words in ORDERS
    for eta in RATES
}

# %% tags=["figure"]
fig, axes = course.canvas(7.4, 3.2, cols=2, sharey=True)
alt = []
for ax, words in zip(axes, ORDERS, strict=True):
    rows = {"with periods": "periods", "control: all periods 1": "control"}
    rows = {label: [found[words, eta, name] for eta in RATES] for label, name in rows.items()}
    rows["no levels: one rate η"] = list(flat.values())
    for shift, ((name, values), style) in enumerate(zip(rows.items(), course.style.STYLES, strict=False)):
        spans = [confidence_interval(value) for value in values]
        bars = [[span.mean - span.low for span in spans], [span.high - span.mean for span in spans]]
        at = [eta * 1.06 ** (shift - 1) for eta in RATES]
        ax.errorbar(at, [span.mean for span in spans], bars, capsize=3, label=name, **style)
        alt.append(f"{words}, {name}: {', '.join(f'{span.mean:.2f}' for span in spans)}")
    ax.set(xscale="log", xlabel="η", ylim=(0, 1))
    ax.set_xticks(RATES, RATES)
    ax.minorticks_off()
    ax.set_title(words, fontweight="normal")
axes[0].set_ylabel("test accuracy\n(12 seeds, 95 % interval)")
axes[1].legend(loc="lower left", fontsize=8)
fig.suptitle("A period does what a smaller learning rate does", fontweight="bold", x=0.01, ha="left")
course.figure(fig, "period-against-learning-rate", alt=f"Test accuracy for η = {RATES}. {'; '.join(alt)}.")

# %% tags=["claim"]
small = [gap[words, RATES[0]] for words in ORDERS]
larger = [gap[words, eta] for words in ORDERS for eta in RATES[1:]]
course.claim(
    "at η = {eta}, periods minus control is {a} and {b} points of accuracy: no difference",
    all(abs(end) < 1 for span in small for end in span[1:]),
    eta=RATES[0],
    a=small[0],
    b=small[1],
)
course.claim(
    "in the {n} comparisons at larger rates the means lie between {low:.1f} and {high:.1f} points; {clear} of {n} "
    "intervals exclude zero, all of them against the periods",
    all(span.low < 0 for span in larger) and sum(span.high < 0 for span in larger) >= 4,
    n=len(larger),
    low=min(span.mean for span in larger),
    high=max(span.mean for span in larger),
    clear=sum(span.high < 0 for span in larger),
)

# %% tags=["claim"]
best = {words: max((found[words, eta, "periods"] for eta in RATES), key=torch.mean) for words in ORDERS}
behind = {words: confidence_interval(100 * (best[words] - max(flat.values(), key=torch.mean))) for words in ORDERS}
course.claim(
    "each at the best of its four rates: levels minus no levels is {a} points (fast first), {b} (slow first)",
    behind["slow layer first"].high < 0 and behind["fast layer first"].mean < 1,
    a=behind["fast layer first"],
    b=behind["slow layer first"],
)
course.claim(
    "what the periods save: {a} writes of a layer instead of {b}",
    writes["periods"] < writes["control"],
    a=writes["periods"],
    b=writes["control"],
)

# %% [markdown]
# So in this network **a period is, to first order, a learning rate divided by the period**. What it buys is fewer writes.
# (The gradients are still computed at every step.) No accuracy is gained: these images have nothing slow in them to
# learn.
#
# Try it. Periods are 1, $r$, $r^2$, learning rates fall by their own ratio, and a decay pulls the two faster layers back
# to their start. All settings are trained first, so that the picture can follow your hand.

# %%
import numpy as np

fig, (raster, curves) = course.canvas(6.0, 2.5, cols=2)
looks = [{key: style[key] for key in ("color", "linestyle")} for style in course.style.STYLES[:3]]
ticks = [raster.plot([], [], "|", color=look["color"], markersize=12, antialiased=False)[0] for look in looks]
lines = [
    curves.plot([], [], drawstyle="steps-post", linewidth=1.5, antialiased=False, label=name, **look)[0]
    for name, look in zip(NAMES, looks, strict=True)
]
curves.legend(loc="upper left", fontsize=8, ncols=3, columnspacing=0.8, handlelength=1.6)
raster.set(title="who moved when", xlabel="step", xlim=(0, 129), ylim=(2.6, -0.6))
curves.set(title="distance from the start", xlabel="step", xlim=(0, 256), yscale="log", ylim=(0.02, 30))
raster.set_yticks(range(3), NAMES)
raster.grid(False)

# %%
from itertools import product

RATIOS, DECAYS = [1, 4, 8], [0, 0.05]
drifts, ends_at = {}, {}
for one in product(RATIOS, RATIOS, DECAYS):
    periods, lrs = [one[0] ** k for k in range(3)], [0.2 / one[1] ** k for k in range(3)]
    layers, trace = train(periods, lrs, seeds=[0], decays=(one[2], one[2], 0))
    drifts[one], ends_at[one] = trace.drift, test_accuracy(layers).item()


def draw_levels(period_ratio, rate_ratio, decay):
    """Draw the raster and the staircases of the network trained with these periods, learning rates and decays."""
    periods = [period_ratio**k for k in range(3)]
    drift = drifts[period_ratio, rate_ratio, decay]
    for row, (tick, line) in enumerate(zip(ticks, lines, strict=True)):
        steps = np.arange(periods[row], 129, periods[row])
        tick.set_data(steps, np.full(len(steps), row))
        line.set_data(range(257), np.nan_to_num([0.0, *drift[:, row].tolist()], nan=99).clip(0.01, 99))
    ends = ", ".join(f"{distance:.2f}" for distance in drift[-1].tolist())
    rates = ", ".join(f"{0.2 / rate_ratio**k:.2g}" for k in range(3))
    accuracy = ends_at[period_ratio, rate_ratio, decay]
    return f"Periods {periods}, learning rates {rates}: the layers end {ends} from their start. Test accuracy {accuracy:.2f} (one run)."


# %% tags=["widget"]
course.explore(
    fig,
    draw_levels,
    [
        course.Slider("period_ratio", "period ratio r", RATIOS, start=8),
        course.Slider("rate_ratio", "learning-rate ratio", RATIOS, start=8),
        course.Slider("decay", "decay of layers 1 and 2", DECAYS, start=0),
    ],
    name="raster-and-drift",
    title="Three layers, three levels",
    goal="Find two settings with different rasters and the same staircases. Then make the slow layer leap.",
    presets={
        "rates fit the periods": {"period_ratio": 8, "rate_ratio": 8, "decay": 0},
        "only learning rates": {"period_ratio": 1, "rate_ratio": 8, "decay": 0},
        "only periods": {"period_ratio": 8, "rate_ratio": 1, "decay": 0},
        "fast layers fade": {"period_ratio": 8, "rate_ratio": 8, "decay": 0.05},
    },
)

# %% [markdown]
# ## 4 · What makes levels specialise?
#
# The hope behind levels is that a slow level learns what changes slowly. Notebook 00 showed it on one signal made of
# waves, with one control. Now with more care: 20 signals that **wander** and cannot be foreseen, intervals, four controls, and
# a tuned rival with one level.

# %%
from nlcore.timescales import learn_together, specialisation, wandering

course.show(wandering)

signals = [wandering(seed=seed) for seed in range(20)]
tuning = [wandering(seed=seed) for seed in range(100, 103)]


def error(data, settings):
    """Return for each signal the mean squared error of the prediction, as a part of the signal's variance."""
    gaps = [(y - learn_together(y, *settings).sum(1))[200:] for y, _ in data]
    return np.array([np.mean(gap**2) / y[200:].var() for gap, (y, _) in zip(gaps, data, strict=True)])


# %% [markdown]
# Three levels share the error as in notebook 00, with the periods 64, 8, 1. The rate and the decay of the fastest are
# tuned, and those of the rival with a single level too: the same 20 settings, on three signals that are used for
# nothing else.
#
# **Predict.** How much smaller will the error be with three levels than with one: a half, a tenth, a hundredth?

# %%
from itertools import product

MODELS = {
    "one level": lambda lr, decay: ((1,), (lr,), (decay,)),
    "three levels": lambda lr, decay: ((64, 8, 1), (0.01, 0.05, lr), (0, 0.01, decay)),
    "three levels, periods 1": lambda lr, decay: ((1, 1, 1), (0.01, 0.05, lr), (0, 0.01, decay)),
}
choices = list(product((0.45, 0.6, 0.75, 0.9), (0.0, 0.03, 0.1, 0.2, 0.4)))
tuned, left_over = {}, {}
for name, make in MODELS.items():
    best = min(choices, key=lambda choice: error(tuning, make(*choice)).mean())
    tuned[name] = make(*best)
    left_over[name] = error(signals, tuned[name])
    print(f"{name:24} lr {best[0]}, decay {best[1]}: error {confidence_interval(left_over[name])}")

# %% tags=["claim"]
gain = {
    name: confidence_interval(100 * (1 - left_over[name] / left_over["one level"]))
    for name in MODELS
    if name != "one level"
}
course.claim(
    "three levels make the error smaller than one tuned level by {a} %, with all periods 1 by {b} %",
    all(span.low > 0 and span.high < 10 for span in gain.values()),
    a=gain["three levels"],
    b=gain["three levels, periods 1"],
)

# %% [markdown]
# The gain is real, and small, and the periods have no part in it. But do the levels **specialise**: does each follow its
# own part of the signal? Three controls change one thing each: all periods 1; equal learning rates; no decay. In the last
# one neither rates nor decays differ, only the periods.
#
# **Predict.** Which of the four controls still specialise?

# %%
periods, lrs, decays = tuned["three levels"]
equal, none = (0.02, 0.02, 0.02), (0, 0, 0)  # with rates above 2 / 64 the slow level explodes: see (06.3)
CASES = {
    "three levels": (periods, lrs, decays),
    "periods all 1": ((1, 1, 1), lrs, decays),
    "equal rates": (periods, equal, decays),
    "no decay": (periods, lrs, none),
    "only periods\ndiffer": (periods, equal, none),
}
follows = {
    name: np.stack([specialisation(learn_together(y, *settings), parts) for y, parts in signals])
    for name, settings in CASES.items()
}  # (20 signals, 3 levels, 3 parts)
own = np.eye(3, dtype=bool)
focus = {name: match[:, own].mean(1) - match[:, ~own].mean(1) for name, match in follows.items()}
for name, values in focus.items():
    wrong = confidence_interval(error(signals, CASES[name]))
    print(f"{name!r:23} own part minus others {confidence_interval(values)}   error {wrong}")

# %% tags=["figure"]
fig, axes = course.canvas(7.8, 2.6, cols=5, sharey=True)
SPEEDS = ["slow", "mid", "fast"]
alt = []
for ax, (name, match) in zip(axes, follows.items(), strict=True):
    ax.imshow(match.mean(0), vmin=-1, vmax=1, cmap="PuOr", aspect="auto")
    for level, part in product(range(3), range(3)):
        span = confidence_interval(match[:, level, part])
        colour = "white" if abs(span.mean) > 0.55 else "black"
        words = f"{span.mean:.2f}\n± {span.high - span.mean:.2f}"
        ax.text(part, level, words.replace("-", "−"), ha="center", va="center", fontsize=7, color=colour)
    ax.set_xticks(range(3), SPEEDS, fontsize=8)
    ax.set_title(name, fontweight="normal", fontsize=10)
    ax.grid(False)
    alt.append(
        f"{name}: own parts {', '.join(f'{number:.2f}' for number in match.mean(0).diagonal())}".replace("\n", " ")
    )
axes[0].set_yticks(range(3), [f"{speed} level" for speed in SPEEDS])
axes[0].set_xlabel("part of the signal")
fig.suptitle("How well each level follows each part (correlation, 20 signals)", fontweight="bold", x=0.01, ha="left")
course.figure(fig, "specialisation-heat-map", alt=f"Correlations of levels with parts. {'; '.join(alt)}.")

# %% tags=["claim"]
three = follows["three levels"]
course.claim(
    "each of the three levels follows its own part best: {a}, {b}, {c}",
    (three.mean(0).argmax(1) == np.arange(3)).all(),
    **dict(zip("abc", (confidence_interval(three[:, k, k]) for k in range(3)), strict=True)),
)
change = {name: confidence_interval(focus[name] - focus["three levels"]) for name in CASES}
course.claim(
    "own part minus other parts hardly changes with all periods 1 ({a}) or with equal rates ({b}); "
    "it falls without decay ({c}), and most if only the periods differ ({d})",
    all(abs(change[name].mean) < 0.05 for name in ("periods all 1", "equal rates"))
    and change["no decay"].high < -0.1
    and change["only periods\ndiffer"].high < change["no decay"].mean,
    **dict(zip("abcd", list(change.values())[1:], strict=True)),
)
ratio = confidence_interval(error(signals, CASES["equal rates"]) / error(signals, CASES["three levels"]))
course.claim("but with equal rates the error is {ratio} times as large", ratio.low > 1.5, ratio=ratio)

# %% [markdown]
# **The decay decides what a level follows, the learning rate how much of it the level explains. The period decides
# neither.** A level without decay wants to explain everything. (Notebook 00 changed rates and decays together; here they
# are taken apart.)
#
# ### Does this happen in a real optimizer?
#
# Momentum with a slow memory beside the fast one (notebook 05) trains a network on digits that come in **blocks**: 40
# steps of 0 to 3, 40 steps of 4 to 6, 40 of 7 to 9, and again. At the end of a block we compare both memories with the
# mean gradient of this block, the one before, and the one before that.
#
# Three settings: slow memory with period 20; the control with period 1 and the **same horizon** (the same fading in 20
# steps); and a "slow" memory that fades as fast as the fast one.

# %%
from nlcore.stacked import StackedMLP, loss_of_each

course.show(StackedMLP.groups, loss_of_each)

SETTINGS = {
    "period 20": (20, 0.8),
    "period 1,\nsame horizon": (1, 0.8 ** (1 / 20)),
    "period 1,\nshort horizon": (1, 0.8),
}
model = StackedMLP((64, 32, 10), SEEDS, len(SETTINGS), dtype=torch.float64, device=device)
slow_periods, slow_betas = zip(*SETTINGS.values(), strict=True)
groups = model.groups(period=slow_periods, slow_beta=slow_betas)
optimizer = MultiscaleMomentum(groups, lr=0.05, beta=0.8)

# %%
from torch.nn.functional import cosine_similarity

random = torch.Generator().manual_seed(0)
tasks = [torch.isin(images.y_train, torch.tensor(t, device=device)) for t in ([0, 1, 2, 3], [4, 5, 6], [7, 8, 9])]
gradients, blocks, alike = [], [], []
for step in range(9 * 40):
    own_rows = tasks[step // 40 % 3].nonzero().flatten()
    rows = own_rows[torch.randint(len(own_rows), (len(SEEDS), 32), generator=random).to(device)]
    optimizer.zero_grad()
    loss_of_each(model(images.x_train[rows]), images.y_train[rows]).sum().backward()
    gradients.append(torch.stack([W.grad.clone() for W in model.settings]))  # (settings, seeds, weights)
    optimizer.step()
    if (step + 1) % 40 == 0:
        blocks, gradients = [torch.stack(gradients).mean(0), *blocks[:2]], []
        held = torch.stack([torch.stack([optimizer.state[W][key] for W in model.settings]) for key in ("m", "s")])
        if step >= 3 * 40:  # three blocks lie behind us
            alike.append(torch.stack([cosine_similarity(held, block, dim=-1) for block in blocks]))
alike = torch.stack(alike).mean(0).double().cpu()  # (ages of the block, memories, settings, seeds)

# %% tags=["figure"]
fig, axes = course.canvas(7.2, 2.5, cols=3, sharey=True)
alt = []
for k, (ax, name) in enumerate(zip(axes, SETTINGS, strict=True)):
    ax.imshow(alike[:, :, k].mean(-1).T, vmin=-1, vmax=1, cmap="PuOr", aspect="auto")
    for age, memory in product(range(3), range(2)):
        span = confidence_interval(alike[age, memory, k])
        colour = "white" if abs(span.mean) > 0.55 else "black"
        words = f"{span.mean:.2f}\n± {span.high - span.mean:.2f}".replace("-", "−")
        ax.text(age, memory, words, ha="center", va="center", fontsize=8, color=colour)
    ax.set_xticks(range(3), ["this", "last", "before"])
    ax.set_title(name, fontweight="normal", fontsize=10)
    ax.grid(False)
    alt.append(f"{name}: slow memory {', '.join(f'{n:.2f}' for n in alike[:, 1, k].mean(-1))}".replace("\n", " "))
axes[0].set_yticks(range(2), ["fast memory m", "slow memory s"])
axes[0].set_xlabel("mean gradient of the block")
fig.suptitle("Which block does each memory still hold? (cosine, 12 seeds)", fontweight="bold", x=0.01, ha="left")
course.figure(fig, "memories-and-blocks", alt=f"Cosine with this, last and earlier block. {'; '.join(alt)}.")

# %% tags=["claim"]
last = {(memory, k): confidence_interval(alike[1, row, k]) for row, memory in enumerate("ms") for k in range(3)}
course.claim(
    "the slow memory still holds the last block ({a}), the fast one hardly ({b})",
    last["s", 0].low > last["m", 0].high + 0.1,
    a=last["s", 0],
    b=last["m", 0],
)
course.claim(
    "with period 1 and the same horizon most of that is still there ({a}); with a short horizon nothing is ({b})",
    last["s", 1].low > 0.15 and last["s", 2].high < 0.05,
    a=last["s", 1],
    b=last["s", 2],
)

# %% [markdown]
# Memories of one network specialise, by how fast they fade. Once more the horizon does most of the work. The period saves
# writes, and it makes the memory a little **older**: its newest gradients wait in a chunk that is not written yet.
#
# ## 5 · How does one level learn from another?
#
# Parts at different levels are of no use to each other if nothing passes between them. The paper (section 3.3) lists
# five ways. For each of them, ask **what passes**, and **who gets a gradient**.

# %%
from nlcore import transfer

for number, (name, words) in enumerate(transfer.KINDS.items(), start=1):
    print(f"{number}. {name:21} {words}")

# %% [markdown]
# ### 1 · Direct, parametric
#
# The slow level asks the **weights** of the fast level. In linear attention a fast memory writes itself at every token,
# and a slow query reads it:
#
# $$
# y_t = M_t \, (W_q x_t), \qquad M_t = M_{t-1} + v_t k_t^\top \tag{NL 26}
# $$
#
# In this reading each level takes the other as given: no gradient crosses. (Most libraries let it cross; that is kind 3.)
#
# **Predict.** Which of $W_q$, $W_k$, $W_v$ gets a gradient?

# %%
from nlcore.transfer import direct_parametric

course.show(direct_parametric)

# %% tags=["claim"]
random = torch.Generator().manual_seed(0)
x = torch.randn(7, 3, generator=random, dtype=torch.float64)
W_q, W_k, W_v = (torch.randn(3, 3, generator=random, dtype=torch.float64).requires_grad_() for _ in range(3))
y, M = direct_parametric(x, W_q, W_k, W_v)
y.square().sum().backward()
course.claim(
    "W_q gets a gradient, W_k and W_v get none, and the memory itself carries none",
    W_q.grad.norm() > 0 and W_k.grad is None and W_v.grad is None and not M.requires_grad,
)

# %% [markdown]
# ### 2 · Direct, non-parametric
#
# The fast level has no weights at all: it is its **context**. Softmax attention computes the answer anew for each query.
# Change the context, and the answer changes at once, without a step of learning.

# %%
from nlcore.transfer import direct_nonparametric

course.show(direct_nonparametric)

# %% tags=["claim"]
q, keys, values = (torch.randn(1, n, 4, generator=random, dtype=torch.float64) for n in (5, 9, 9))
ours = direct_nonparametric(q[0], keys[0], values[0]).y
theirs = torch.nn.functional.scaled_dot_product_attention(q, keys, values)[0]
alone = direct_nonparametric(q[0], keys[0, :1], values[0, :1]).y
course.claim(
    "it is PyTorch's attention (largest gap below 1e-12); with one item in the context, every answer is that item",
    (ours - theirs).abs().max() < 1e-12 and torch.allclose(alone, values[0, :1].expand(5, -1)),
)

# %% [markdown]
# ### 3 · Backpropagation
#
# Two blocks in one flow of gradients, each with its own period. With $h = \tanh(W_0 x)$ and the surprise
# $\delta_1 = W_1 h - \text{target}$, block 0 learns from
#
# $$
# \delta_0 = (1 - h^2) \odot (W_1^\top \delta_1), \qquad g_0 = \delta_0 \, x^\top \tag{06.5}
# $$
#
# The surprise reaches block 0 **through the weights of block 1**. This is the kind you used in sections 2 and 3.
#
# **Predict.** What does block 0 learn if block 1 is all zeros?

# %%
from nlcore.transfer import backpropagation

course.show(backpropagation)

# %% tags=["claim"]
W0, W1 = torch.randn(5, 3, generator=random), torch.randn(2, 5, generator=random)
x, target = torch.randn(24, 3, generator=random), torch.randn(24, 2, generator=random)
drift = backpropagation(W0, W1, x, target, periods=(8, 1)).drift
stands = [len(drift[:, k].unique()) for k in range(2)]
blocked = backpropagation(W0, 0 * W1, x, target, periods=(1, 100)).drift
course.claim(
    "in {n} steps block 0 moved {a} times; behind a block 1 of zeros that stays at zero it never moves",
    (drift[7::8, 0].diff() != 0).all() and stands[0] == 4 and (blocked == 0).all(),
    n=len(drift),
    a=stands[0] - 1,
)

# %% [markdown]
# ### 4 · Initialisation
#
# The slow level is the **state in which the fast level starts**. It is learned so that a few fast steps are enough for
# any task of a family (known as MAML):
#
# $$
# \Theta_0^{(1)} = \arg\min_{\Phi} \; \mathbb{E}_{\mathcal C \sim \mathcal C^{(0)}} \;
# \ell \left( \mathcal M^{(1)}(\cdot\,; \Phi), \mathcal C \right) \tag{NL 28}
# $$
#
# $\mathcal C$ is one task, $\mathcal C^{(0)}$ the family, $\ell$ the loss **after** the fast steps. So the gradient goes
# through these steps.

# %%
from nlcore.transfer import adapt, adapted_loss, initialisation, regression_tasks

course.show(adapt, adapted_loss, initialisation)

# %% [markdown]
# Each task is a small regression with 6 unknown numbers and only 4 examples. `regression_tasks` draws the true numbers
# around one common vector. Ten families of tasks; new tasks are used for judging.

# %%
course.show(regression_tasks)

zero = torch.zeros(6, dtype=torch.float64)
after = {"learned start": [], "start at zero": [], "learned start, no fast steps": []}
for seed in range(10):
    start, _ = initialisation(zero, *regression_tasks(64, seed=seed))
    new = regression_tasks(64, seed=1000 + seed)
    after["learned start"].append(adapted_loss(start, *new, seen=4, steps=3).item())
    after["start at zero"].append(adapted_loss(zero, *new, seen=4, steps=3).item())
    after["learned start, no fast steps"].append(adapted_loss(start, *new, seen=4, steps=0).item())

# %% tags=["claim"]
spans = [confidence_interval(losses) for losses in after.values()]
saved = confidence_interval(torch.tensor(after["learned start, no fast steps"]) - torch.tensor(after["learned start"]))
course.claim(
    "loss on new tasks after three fast steps: {a} from the learned start, {b} from zero",
    spans[0].high < spans[1].low,
    a=spans[0],
    b=spans[1],
)
course.claim(
    "the control: the learned start without fast steps has {c}, so the fast steps themselves bring {d}",
    saved.low > 0 and saved.mean < spans[1].mean - spans[2].mean,
    c=spans[2],
    d=saved,
)

# %% [markdown]
# Most of the gain is the start itself, the slow level's knowledge; the fast steps add to it.
#
# ### Exercise 3 · `start_gradient`
#
# *10 minutes · medium · objective: send a gradient through a fast step.*
#
# One weight, one bowl: the loss is $\frac{\lambda}{2} (w - \text{target})^2$, where $\lambda$ is `curvature`. The fast
# level makes **one** step of gradient descent from `start`. Return the slope of the loss **after** this step with
# respect to `start`.


# %% tags=["exercise"]
def start_gradient(start, target, curvature, lr):
    """Return d loss(w) / d start, where w is the weight after one step from start."""
    ...


# %% tags=["check"]
course.check.start_gradient(start_gradient)

# %%
course.hint.start_gradient(1)  # then 2 and 3, if you need them

# %% [markdown]
# <details><summary>Solution and why</summary>
#
# ```python
# def start_gradient(start, target, curvature, lr):
#     w = start - lr * curvature * (start - target)
#     return curvature * (w - target) * (1 - lr * curvature)
# ```
#
# The factor `1 - lr * curvature` is how much of the start is left after the step. Where the fast level forgets its start
# completely, the start has nothing to learn.
#
# </details>

# %% [markdown]
# ### 5 · Generation
#
# One level **makes** the other. It may make the weights of a layer from a context $c$ (a hypernetwork):
#
# $$
# W = G c, \qquad y = W x \tag{06.6}
# $$
#
# Or it makes the other's context: a network makes the gradients that its optimizer reads. You have used this kind since
# notebook 03.

# %%
from nlcore.transfer import generated_context, generation

course.show(generation, generated_context)

# %% tags=["claim"]
G, c, x = (torch.randn(*shape, generator=random, dtype=torch.float64) for shape in ((2, 3, 4), (4,), (5, 3)))
y, W = generation(G.requires_grad_(), c, x)
y.square().sum().backward()
target = torch.randn(5, 2, generator=random, dtype=torch.float64)
weights = torch.randn(2, 3, generator=random, dtype=torch.float64).requires_grad_()
context, m = generated_context(weights.detach(), x, target)
((x @ weights.T - target).square().sum() / 2).backward()
course.claim(
    "the generated W has no weights of its own: the gradient goes to G; and the context that a layer "
    "makes for momentum adds up to the gradient of backpropagation",
    not W.is_leaf and G.grad.norm() > 0 and torch.allclose(context.sum(0), weights.grad),
)

# %% [markdown]
# All five side by side:
#
# | kind | what passes | what gets a gradient |
# |---|---|---|
# | direct, parametric | the answer of the fast weights | the slow query only |
# | direct, non-parametric | the answer of the context | the slow query only |
# | backpropagation | the surprise, through the other block | both blocks, each in its period |
# | initialisation | the state in which the fast level starts | the start, through the fast steps |
# | generation | the weights, or the context, of the other | the generator |
#
# ## 6 · What do brain waves have to do with it?
#
# The paper motivates levels with **brain waves**: the electrical activity of a brain swings at several frequencies at
# once, from less than one to over a hundred swings a second (Hz). The text says what each band goes with; a figure shows
# the bands again. Read both.

# %%
from nlcore.brainwaves import FIGURE, SOURCES, TEXT, comparison

course.show(comparison)
for band in TEXT:
    print(f"text: {band}, {band.role}")
print(f"\n{'band':12} {'text, Hz':9} {'figure, Hz':11} how they differ")
for name, *both, words in comparison():
    in_text, in_figure = (f"{band.low:g}-{band.high:g}" if band else "-" for band in both)
    print(f"{name:12} {in_text:9} {in_figure:11} {words}")

# %% tags=["figure"]
fig, ax = course.canvas(7.4, 2.6)
names = ("delta", "theta", "delta+theta", "alpha", "beta", "gamma")
shades = dict(zip(names, ("blue", "sky", "blue", "green", "orange", "vermillion"), strict=True))
for row, bands in enumerate(SOURCES.values()):
    for band in bands:
        look = {"color": course.style.COLOURS[shades[band.name]], "alpha": 0.45, "edgecolor": "black"}
        ax.barh(row, band.high - band.low, left=band.low, height=0.62, **look)
        limits = f"{band.name}\n{band.low:g}–{band.high:g}"
        ax.text(band.centre, row, limits, ha="center", va="center", fontsize=8)
ax.set(xscale="log", xlim=(0.4, 190), ylim=(1.6, -0.6), xlabel="frequency (Hz, swings a second)")
places = [0.5, 1, 2, 4, 8, 16, 32, 64, 128]
ax.set_xticks(places, [f"{place:g}" for place in places])
ax.minorticks_off()
ax.set_yticks([0, 1], ["text,\nsection 1.1", "figure 1"])
ax.set_title("The paper gives its bands twice, with different limits")
ax.grid(axis="y", visible=False)
alt = "; ".join(f"{source}: {', '.join(str(band) for band in bands)}" for source, bands in SOURCES.items())
course.figure(fig, "brain-wave-bands", alt=f"Frequency bands on a logarithmic axis. {alt}.")

# %% tags=["claim"]
differences = {name: words for name, _, _, words in comparison() if words}
course.claim(
    "text and figure disagree in {n} bands: {all}",
    len(differences) == 3,
    n=len(differences),
    all="; ".join(f"{name} {words}" for name, words in differences.items()),
)

# %% [markdown]
# Neither list is wrong: the limits of the bands are conventions, and textbooks differ. But nothing that follows may depend
# on them.
#
# Is a level with period 8 then a "beta wave"? Our levels count **steps**, and a step has no length in seconds. Choose one,
# and see.
#
# **Predict.** How many different answers do you get for the same three levels?


# %%
def band_of(hertz):
    """Return the name of the band of the figure in which a frequency lies."""
    return next((band.name for band in FIGURE if band.low <= hertz < band.high), "no band")


labels = {}
for milliseconds in (3, 12, 20, 40, 100):
    labels[milliseconds] = tuple(band_of(1000 / (milliseconds * period)) for period in (1, 8, 64))
    print(f"if a step takes {milliseconds:3} ms, periods 1, 8, 64 are: {', '.join(labels[milliseconds])}")

# %% tags=["claim"]
course.claim(
    "the same three levels get {n} different sets of names, for {k} lengths of a step",
    len(set(labels.values())) == len(labels),
    n=len(set(labels.values())),
    k=len(labels),
)

# %% [markdown]
# So brain waves are an **analogy**. It says: several rhythms at once are possible and useful, fast ones near the senses,
# slow ones for keeping. It does **not** say that a level is a brain wave, that brains use gradient descent, or that these
# periods are the right ones. The paper takes only one of two kinds of consolidation from the brain, the fast one; sleep
# and replay, the slow one, have no part in it. And no experiment in the paper or here tests the analogy.
#
# ## What you did
#
# * You sorted a language model with its training into levels, saw them vanish in use, and met the paper's two opposite
#   ways of numbering (exercise 1).
# * You recorded an update raster and drift staircases of a network.
# * You wrote a level that collects (exercise 2), and found that a period acts as a smaller learning rate, saves writes,
#   and brings no accuracy here.
# * You saw levels specialise on 20 signals, and found by controls that it is the decay that does it, and not the period.
#   In the memories of an optimizer, too, fading did most of the work.
# * You ran five kinds of knowledge transfer and sent a gradient through a fast step (exercise 3).
# * You compared the bands in the text and in the figure of the paper.
#
# ## What this does not show
#
# * Three small layers, 256 steps, shuffled digits, plain gradient descent, and four learning rates, of which the best
#   was chosen on the seeds that are shown. With Adam, or tasks that come one after another, periods may do more:
#   notebooks 07 and 08 ask.
# * The three wandering parts were built with three speeds, and the slow levels' learning rates were set to match, not
#   tuned. That levels find parts of natural data is not shown.
# * Following a part is a correlation: it says that a level moves along with a part, not how much of it the level holds.
# * Each kind of transfer is its smallest example, not how a large model uses it.
#
# ## Recall
#
# <details><summary>1. Adam trains a model once in 512 tokens. Which part is faster: its moments or attention?</summary>
#
# Attention: it is computed anew at every token, so its frequency is infinite. The moments have the frequency 1/512.
#
# </details>
#
# <details><summary>2. A level has period 8 and moves by the mean of its gradients. Which control belongs beside it?</summary>
#
# The same level at every step with an eighth of the learning rate. To first order it does the same.
#
# </details>
#
# <details><summary>3. Which setting makes levels specialise, and which control showed it?</summary>
#
# The decay of the faster levels. With all periods 1, or with equal rates, the levels stay specialised; without decay they
# do not. Learning rates that fit are needed for a small error.
#
# </details>
#
# <details><summary>4. In which kinds of transfer does no gradient pass between the two levels?</summary>
#
# In the two direct kinds: each level takes the state of the other as given.
#
# </details>
#
# ## Further reading
#
# * Behrouz, Razaviyayn, Zhong, Mirrokni, *Nested Learning*, arXiv 2512.24695, sections 1.1, 3.2 and 3.3: brain waves,
#   levels, and knowledge transfer (30 minutes).
# * Goyal and others, *Accurate, Large Minibatch SGD*, arXiv 1706.02677: the rule that a larger batch needs a larger
#   learning rate, and where it ends (20 minutes).
# * Finn, Abbeel, Levine, *Model-Agnostic Meta-Learning*, arXiv 1703.03400: the original of kind 4 (30 minutes).
# * Ha, Dai, Le, *HyperNetworks*, arXiv 1609.09106: the original of kind 5 (20 minutes).
