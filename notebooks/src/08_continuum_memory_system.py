# %% [markdown]
# # 08 · The Continuum Memory System
#
# *What you will do.* Build a chain of memories with different periods, hold every claim about it against its control,
# and then learn the starts of such memories through their own learning.
#
# **Afterwards you can**
#
# - write a level with a period, and a level that returns to its start
# - say what a period does, what a reset does, and what a learning rate does
# - compute how many numbers a system writes for each token
# - name the streams on which nested memories win, and those on which they lose
#
# **You need** notebook 01 (a memory that is written while it reads), 06 (periods) and 07 (how to measure forgetting).
#
# **Time** 60 minutes · runs in about 40 s on a CPU
#
# {{badge}}

# %% tags=["setup"]
# {{setup}}

# %% [markdown]
# ## 1 · What lies between "every token" and "never"?
#
# A Transformer has two kinds of memory. Attention is made anew for every token. The weights of its MLPs are written in
# training and then **never** again. The paper puts a chain of small networks between the two: the **Continuum Memory
# System** (CMS).
#
# $$
# y_t = \mathrm{MLP}^{(f_k)}\Bigl( \cdots \mathrm{MLP}^{(f_2)}\bigl( \mathrm{MLP}^{(f_1)}(x_t) \bigr) \Bigr) \tag{NL 70}
# $$
#
# All of them learn while they read, from the loss of the task. But block $\ell$ is written only once in $C_\ell$ tokens,
# its **period**. Then it takes one step with the gradients $g$ of all tokens of this chunk:
#
# $$
# \theta^{(\ell)}_{t+1} = \theta^{(\ell)}_t - \eta_\ell \sum_{i=t-C_\ell+1}^{t} g^{(\ell)}_i
# \qquad \text{if } C_\ell \text{ divides } t, \text{ else } \theta^{(\ell)}_t \tag{NL 71}
# $$
#
# The sum has $C_\ell$ terms; the one printed in the paper counts the token at the border twice.
#
# ### Exercise 1 · `chunk_weights`
#
# *6 minutes · medium · objective: write a level with a period.*
#
# `gradients` is a list, one for each token. Return the weights after all of them. A chunk that is not full has not been
# written.


# %% tags=["exercise"]
def chunk_weights(theta, gradients, lr, period):
    """Return the weights of one level after these tokens, by (NL 71)."""
    ...


# %% tags=["check"]
course.check.chunk_weights(chunk_weights)

# %%
course.hint.chunk_weights(1)  # then 2 and 3, if you need them

# %% [markdown]
# <details><summary>Solution and why</summary>
#
# ```python
# def chunk_weights(theta, gradients, lr, period):
#     waiting = 0 * theta
#     for t, g in enumerate(gradients, start=1):
#         waiting = waiting + g
#         if t % period == 0:
#             theta, waiting = theta - lr * waiting, 0 * theta
#     return theta
# ```
#
# Gradients wait in a sum. Once a period the sum is written and emptied.
#
# </details>

# %% [markdown]
# In `nlcore` a block is an MLP with a residual connection, $x + f(x)$. The state of a stream holds, for each level, what
# was learned since the start, and the sum that waits.
#
# **Predict.** It reads 64 tokens with periods 1, 4 and 16. How often is each block written?

# %%
import torch

from nlcore.cms import ContinuumMemory, learning
from nlcore.cms.blocks import mlp

course.show(mlp, ContinuumMemory.start_stream, ContinuumMemory.forward, learning.token_loop, learning._end_chunk)

f64 = torch.float64
torch.manual_seed(0)
cms = ContinuumMemory(8, periods=(1, 4, 16), lrs=0.02, hidden=16, dtype=f64)
print(cms)

# %%
teacher = torch.randn(8, 8, dtype=f64) / 8**0.5
x = torch.randn(1, 64, 8, dtype=f64)
target = (x @ teacher).tanh()
with torch.no_grad():
    y, state = cms(x, target)
updates = [level.updates for level in state.levels]
error = (y - target).square().sum(-1)[0]

# %% tags=["claim"]
course.claim(
    "64 tokens: the blocks were written {a}, {b} and {c} times, and the error fell from {d:.2f} (first 16 tokens) to "
    "{e:.2f} (last 16): it learned while reading",
    updates == [64, 16, 4] and error[-16:].mean() < 0.8 * error[:16].mean(),
    **dict(zip("abc", updates, strict=True)),
    d=error[:16].mean(),
    e=error[-16:].mean(),
)

# %% [markdown]
# One write of a slow block is nothing but a step of gradient descent on the summed loss of its chunk. Let PyTorch confirm
# it: the other blocks stand still, and we take one ordinary backward pass over 16 tokens.

# %%
still = ContinuumMemory.from_mlps(list(cms.blocks), (1, 4, 16), lrs=(0.0, 0.0, 0.02))
with torch.no_grad():
    _, after = still(x[:, :16], target[:, :16])
h = x[0, :16]
for block in still.blocks:
    h = h + block(h)  # (NL 70)
loss = 0.5 * (h - target[0, :16]).square().sum()
slow = list(still.blocks[2].parameters())
step = torch.cat([-0.02 * g.flatten() for g in torch.autograd.grad(loss, slow)])

# %% tags=["claim"]
course.claim(
    "a write of the slow block and a step on its whole chunk differ by {a:.0e}",
    (after.levels[2].learned[0] - step).abs().max() < 1e-12,
    a=(after.levels[2].learned[0] - step).abs().max() + 1e-17,
)

# %% [markdown]
# ## 2 · Three ways to put blocks together
#
# | variant | who reads what | when does a block return to its start? |
# |---|---|---|
# | sequential | each block reads the one before | never |
# | nested | each block reads the one before | at the end of its context: $C_{\ell+1} / C_\ell$ of its writes |
# | independent | every block reads $x_t$ | never |
#
# The independent variant adds up its blocks, with learned weights $a_\ell$ that sum to 1:
#
# $$
# y_t = \sum_{\ell=1}^{k} a_\ell \, \mathrm{MLP}^{(f_\ell)}(x_t) \tag{NL 74}
# $$
#
# So in the nested variant a fast block forgets on purpose: whenever the next slower one is written, it begins again.
#
# **Predict.** Periods 1, 8 and 32. Draw for each variant how far every block is from its start, token by token. Which
# curve is a saw, and which one a staircase?

# %%
PLANS = ("sequential", "nested", "independent")
steps, periods = 96, (1, 8, 32)
x = torch.randn(1, steps, 8, dtype=f64)
target = (x @ teacher).tanh() + 0.3 * torch.randn(1, steps, 8, dtype=f64)
walks = {}
for variant in PLANS:
    torch.manual_seed(1)
    cms = ContinuumMemory(8, periods, variant, lrs=(0.02, 0.01, 0.005), hidden=16, dtype=f64)
    state, rows = cms.start_stream(1), []
    for t in range(steps):
        with torch.no_grad():
            _, state = cms(x[:, t : t + 1], target[:, t : t + 1], state)
        rows.append([level.learned.norm().item() for level in state.levels])
    walks[variant] = torch.tensor(rows)  # (tokens, blocks)

# %% tags=["figure"]
fig, axes = course.canvas(7.4, 2.7, cols=3, sharey=True)
for ax, variant in zip(axes, PLANS, strict=True):
    for level, style in enumerate(course.style.STYLES[:3]):
        look = style | {"marker": "", "drawstyle": "steps-post", "label": f"period {periods[level]}"}
        ax.plot(range(1, steps + 1), walks[variant][:, level], **look)
    ax.set_title(variant, fontweight="normal")
    ax.set(xticks=[0, 32, 64, 96], xlabel="token")
axes[0].set_ylabel("distance of a block\nfrom its start")
axes[2].legend(loc="upper left", fontsize=8)
fig.suptitle("A period makes stairs, a reset makes a saw", fontweight="bold", x=0.01, ha="left")
alt = "Distance of each block from its start after 96 tokens. " + "; ".join(
    f"{variant}: " + ", ".join(f"period {p} {d:.2f}" for p, d in zip(periods, walks[variant][-1].tolist(), strict=True))
    for variant in PLANS
)
course.figure(
    fig, "three-variants-of-cms", alt=alt + ". In the nested variant the fast blocks fall to zero again and again."
)

# %% tags=["claim"]
home = [[t + 1 for t in range(steps) if walks["nested"][t, level] == 0] for level in range(3)]
course.claim(
    "nested: the fast block is at its start after tokens {a}, ...; the middle one after {b} (and before its first write); "
    "in the sequential variant no block that was written ever returns",
    home[0] == list(range(8, steps + 1, 8))
    and set(home[1]) == {*range(1, 8), *(t + k for t in (32, 64) for k in range(8)), 96}
    and (walks["sequential"][32:] > 0).all(),
    a=", ".join(map(str, home[0][:3])),
    b=", ".join(str(t) for t in home[1] if t % 32 == 0),
)

# %% [markdown]
# ### Exercise 2 · `context_weights`
#
# *6 minutes · medium · objective: write a level that returns to its start.*
#
# As in exercise 1, and besides: at the end of each context of `context` tokens (a multiple of `period`) the weights are
# `start` again.


# %% tags=["exercise"]
def context_weights(start, gradients, lr, period, context):
    """Return the weights of a nested level after these tokens."""
    ...


# %% tags=["check"]
course.check.context_weights(context_weights)

# %%
course.hint.context_weights(1)  # then 2 and 3, if you need them

# %% [markdown]
# <details><summary>Solution and why</summary>
#
# ```python
# def context_weights(start, gradients, lr, period, context):
#     theta, waiting = start, 0 * start
#     for t, g in enumerate(gradients, start=1):
#         waiting = waiting + g
#         if t % period == 0:
#             theta, waiting = theta - lr * waiting, 0 * start
#         if t % context == 0:
#             theta = start
#     return theta
# ```
#
# Going back comes last: what the last chunk taught is given up too.
#
# </details>

# %% [markdown]
# ## 3 · What does a period do?
#
# The paper's hope: slow blocks keep what fast blocks forget. Before we measure it, recall the smallest block, from notebook
# 06: one weight $w$ with the loss $\frac{1}{2} \lambda w^2$ at every token. After $C$ tokens,
#
# $$
# \underbrace{(1 - C \eta \lambda) \, w}_{\text{one write of the sum}} \; - \; \underbrace{(1 - \eta \lambda)^C \, w}_{C
# \text{ writes}} \; = \; - \frac{C (C-1)}{2} (\eta \lambda)^2 \, w + O(\eta^3) \tag{08.1}
# $$
#
# To first order they are the **same**. If a level writes the mean of its chunk instead of the sum, it does what a
# learning rate of $\eta / C$ does at every token. So a period is, to first order, a learning rate.
#
# What differs is of second order: gradients of a chunk are taken at old weights. One write of the sum is stable only if
#
# $$
# \eta < \frac{2}{C \lambda} \tag{08.2}
# $$
#
# **Predict.** Which largest learning rate does period 16 allow, if period 1 allows 2?

# %%
from nlcore.optimizers import SGD, PeriodicOptimizer
from nlcore.sweeps import grid

course.show(PeriodicOptimizer.step, PeriodicOptimizer._step_of, grid)


def one_weight(lr, period, reduction="sum", steps=160):
    """Return the weight after these steps on w^2 / 2, from 1."""
    w = torch.ones(1, dtype=f64, requires_grad=True)
    optimizer = PeriodicOptimizer([SGD([w], lr=lr)], [period], reduction)
    for _ in range(steps):
        w.grad = w.detach().clone()
        optimizer.step()
    return w.item()


largest = {C: max(lr for lr in grid(0.01, 3, 1.02) if abs(one_weight(lr, C)) < 1) for C in (1, 4, 16)}
pair = {C: (one_weight(0.01, C, "mean", 64), one_weight(0.01 / C, 1, "sum", 64)) for C in (4, 16)}

# %% tags=["claim"]
course.claim(
    "largest stable rate: {a:.2f} with period 1, {b:.2f} with period 4, {c:.3f} with period 16",
    all(1.9 < C * rate <= 2 for C, rate in largest.items()),
    **dict(zip("abc", largest.values(), strict=True)),
)
course.claim(
    "64 tokens, rate 0.01: period 16 with the mean leaves w = {a:.5f}, and period 1 with a sixteenth of the rate {b:.5f}",
    all(abs(one - other) < 1e-3 for one, other in pair.values()),
    a=pair[16][0],
    b=pair[16][1],
)

# %% [markdown]
# ### Exercise 3 · `control_rates`
#
# *4 minutes · easy · objective: name the control of a system with periods.*
#
# A system learns with rate `lr`, periods such as `(1, 8, 64)`, and writes the "sum" or the "mean" of each chunk. In its
# **control** all periods are 1. Which learning rate does each level of the control need to move as far, to first order?


# %% tags=["exercise"]
def control_rates(lr, periods, reduction):
    """Return the learning rate of each level of the control, a list."""
    ...


# %% tags=["check"]
course.check.control_rates(control_rates)

# %%
course.hint.control_rates(1)  # then 2 and 3, if you need them

# %% [markdown]
# <details><summary>Solution and why</summary>
#
# ```python
# def control_rates(lr, periods, reduction):
#     return [lr if reduction == "sum" else lr / period for period in periods]
# ```
#
# The sum of $C$ gradients, once in $C$ steps, is one gradient a step: the control of the sum is a **flat** model with the
# same rate. The control of the mean has the rates 1, 1/8, 1/64.
#
# </details>

# %% [markdown]
# ## 4 · Do slow blocks forget less?
#
# Now the benchmark of notebook 07: digits in five tasks, new classes, permuted pixels or turned images. The model is a
# chain of three blocks with the class scores read out at the end (written at every step, in all variants).
#
# Every variant has one learning rate and the same search: ten rates, 1.9 apart, eight tuning seeds, images kept aside.
# The result comes from twelve other seeds and the test images. The baseline, flat, even gets the best of all ten rates
# **with hindsight**. A script has done it; we read its record and run a part again.

# %%
from nlcore.continual import StackedChain, chain_lifetimes
from nlcore.metrics import average_accuracy, confidence_interval
from nlcore.sweeps import load_sweep
from nlcore.tasks import digits, permuted_pixels

course.show(StackedChain.forward, StackedChain.optimizer, chain_lifetimes, load_sweep)

record = load_sweep("continuum_on_digits")
print(record["command"], "with torch", record["torch"])

# %%
MEAN, RATES = "periods 1-8-64, mean", "rates 1, 1/8, 1/64"
stream = permuted_pixels(digits(device=device))
rate = record["results"]["permuted"][MEAN]["rate"]
live = {
    name: average_accuracy(chain_lifetimes(stream, range(3), [rate], **record["variants"][name]))[0]
    for name in (MEAN, RATES)
}
stored = torch.tensor(record["results"]["permuted"][MEAN]["all"][:3])

# %% tags=["claim"]
course.claim(
    "permuted digits, three seeds, run here: periods 1-8-64 end at {a:.3f} (stored: {b:.3f}), periods 1 with rates 1, "
    "1/8, 1/64 at {c:.3f}",
    abs(live[MEAN].mean() - stored.mean()) < 0.03 and abs(live[MEAN].mean() - live[RATES].mean()) < 0.03,
    a=live[MEAN].mean(),
    b=stored.mean(),
    c=live[RATES].mean(),
)

# %% [markdown]
# **Predict.** Make the periods of the slow blocks longer: 1-2-4, 1-4-16, 1-8-64. Which of these lines will rise: the
# accuracy kept on old tasks, the accuracy right after learning? And where will the control without periods lie?

# %%
STREAMS, SLOWEST = list(record["results"]), (1, 4, 16, 64)
SHOWN = ["best of each", *(rate for rate in record["results"]["permuted"]["flat"]["at"])]
LINES = {"periods, sum": "periods 1-{}-{}, sum", "periods, mean": "periods 1-{}-{}, mean"}
LINES["control: rates divided"] = "rates 1, 1/{}, 1/{}"
WORDS = {"kept of old tasks": "old", "right after learning": "learned"}


def measured(kind, name, words, at="best of each"):
    """Return a measure of a variant, 12 seeds, at its own best rate or at a given one."""
    row = record["results"][kind][name]
    if at != "best of each":
        return torch.tensor(row["at"][at][words])
    return torch.tensor(row.get("with hindsight", row)[words])  # flat alone has a best rate with hindsight


def along(kind, line, words, at):
    """Return the intervals for the slowest periods 1, 4, 16 and 64."""
    names = ["flat", *(LINES[line].format(C, C * C) for C in (2, 4, 8))]
    return [confidence_interval(measured(kind, name, words, at)) for name in names]


heights = {  # the same heights for all rates
    (kind, words): [span.mean for line in LINES for at in SHOWN for span in along(kind, line, WORDS[words], at)]
    for kind in STREAMS
    for words in WORDS
}

# %%
fig, levels_ax = course.canvas(6.0, 2.9)
marks, whiskers = {}, {}
for line, style in zip(LINES, course.style.STYLES, strict=False):
    marks[line] = levels_ax.plot([], [], label=line, **(style | {"linewidth": 1, "linestyle": "-"}))[0]
    colour = {"color": style["color"], "linewidth": 1, "linestyle": "-", "antialiased": False}
    whiskers[line] = [levels_ax.plot([], [], **colour)[0] for _ in SLOWEST]
levels_ax.set_xticks(range(4), ["1\n(flat)", "4", "16", "64"])
levels_ax.set(xlim=(-0.4, 3.4), xlabel="period of the slowest block", ylabel="accuracy (12 seeds, 95 %)")
levels_ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, fontsize=8)


def lengthen(kind, words, at):
    """Draw accuracy over the period of the slowest block."""
    levels_ax.set_ylim(min(heights[kind, words]) - 0.05, max(heights[kind, words]) + 0.05)
    for shift, line in enumerate(LINES):
        spans = along(kind, line, WORDS[words], at)
        places = [k + 0.1 * (shift - 1) for k in range(4)]
        marks[line].set_data(places, [span.mean for span in spans])
        for place, whisker, span in zip(places, whiskers[line], spans, strict=True):
            whisker.set_data([place, place], [span.low, span.high])
    ends = {line: along(kind, line, WORDS[words], at)[-1].mean for line in LINES}
    flat = along(kind, "periods, sum", WORDS[words], at)[0].mean
    return (
        f"{kind}, {words}: flat {flat:.3f}; slowest period 64: "
        + ", ".join(f"{k} {v:.3f}" for k, v in ends.items())
        + "."
    )


# %% tags=["widget"]
course.explore(
    fig,
    lengthen,
    [
        course.Slider("kind", "stream", STREAMS, start="permuted"),
        course.Slider("words", "accuracy", list(WORDS), start="kept of old tasks"),
        course.Slider("at", "learning rate", SHOWN, start="best of each"),
    ],
    name="chunk-sizes-and-retention",
    title="Chunk sizes against retention, with the control",
    goal="Find a setting in which the periods (mean) and their control without periods part.",
    presets={
        "tuned, kept": {"kind": "permuted", "words": "kept of old tasks", "at": "best of each"},
        "tuned, learned": {"kind": "permuted", "words": "right after learning", "at": "best of each"},
        "one small rate": {"kind": "permuted", "words": "kept of old tasks", "at": SHOWN[1]},
        "one large rate": {"kind": "permuted", "words": "kept of old tasks", "at": SHOWN[-1]},
    },
)

# %% tags=["claim"]
twins = [(f"periods 1-{C}-{C * C}, mean", f"rates 1, 1/{C}, 1/{C * C}") for C in (2, 4, 8)]
twins.append(("periods 64-8-1, mean", "rates 1/64, 1/8, 1"))
*usual, large = SHOWN[1:]


def apart(kind, one, other, at):
    """Return the accuracy at the end, one minus other, in points, paired by seed."""
    return confidence_interval(100 * (measured(kind, one, "all", at) - measured(kind, other, "all", at)))


spans = [apart(kind, *twin, at) for kind in STREAMS for twin in twins for at in usual]
course.claim(
    "{n} comparisons at equal rates up to {top}: periods with the mean and their control differ by {a:.2f} points of "
    "accuracy in the middle and by {b:.1f} at most",
    max(abs(span.mean) for span in spans) < 2 and sorted(abs(span.mean) for span in spans)[len(spans) // 2] < 0.3,
    n=len(spans),
    top=usual[-1],
    a=sorted(abs(span.mean) for span in spans)[len(spans) // 2],
    b=max(abs(span.mean) for span in spans),
)
parting = [apart(kind, *twin, large).mean for kind in STREAMS for twin in twins]
course.claim(
    "at the rate {top} they part by {a:+.1f} to {b:+.1f} points, in both directions: there single seeds diverge",
    min(parting) < -1 and max(parting) > 1,
    top=large,
    a=min(parting),
    b=max(parting),
)

# %%
NAMES = [
    "periods 1-8-64, sum",
    MEAN,
    RATES,
    "periods 64-8-1, mean",
    "rates 1/64, 1/8, 1",
    "only the first block learns",
]
to_flat = {
    (kind, name, words): confidence_interval(100 * (measured(kind, name, words) - measured(kind, "flat", words)))
    for kind in STREAMS
    for name in NAMES
    for words in ("all", "old", "learned", "forgotten")
}
for kind in STREAMS:
    flat = {words: confidence_interval(measured(kind, "flat", words)).mean for words in ("all", "learned", "forgotten")}
    print(f"{kind}: flat " + ", ".join(f"{words} {value:.3f}" for words, value in flat.items()))
    for name in NAMES:
        edge = " (rate at an end of its grid)" if record["results"][kind][name]["at_edge"] else ""
        row = ", ".join(f"{w} {to_flat[kind, name, w].mean:+5.1f}" for w in ("all", "learned", "forgotten"))
        print(f"   {name:28} minus flat, points: {row}{edge}")

# %% tags=["figure"]
fig, axes = course.canvas(7.4, 3.0, cols=3, sharey=True, sharex=True)
alt = []
for ax, kind in zip(axes, STREAMS, strict=True):
    spans = [to_flat[kind, name, "all"] for name in NAMES]
    bars = [[s.mean - s.low for s in spans], [s.high - s.mean for s in spans]]
    ax.axvline(0, color="black", linewidth=1)
    ax.errorbar([s.mean for s in spans], range(len(NAMES)), xerr=bars, fmt="o", capsize=3)
    ax.set_title(kind, fontweight="normal")
    ax.set(xlabel="points above flat")
    alt.append(f"{kind}: " + ", ".join(f"{n} {s.mean:+.1f}" for n, s in zip(NAMES, spans, strict=True)))
axes[0].set_yticks(range(len(NAMES)), NAMES, fontsize=8)
axes[0].invert_yaxis()
fig.suptitle("Tuned alike, periods alone gain nothing that rates do not", fontweight="bold", x=0.01, ha="left")
course.figure(fig, "periods-against-flat", alt="Accuracy at the end, points above flat. " + "; ".join(alt) + ".")


# %% tags=["claim"]
def points(*key):
    """Return the points above flat in words."""
    span = to_flat[key]
    return f"{span.mean:+.1f} [{span.low:+.1f}, {span.high:+.1f}]"


sums = [to_flat[kind, "periods 1-8-64, sum", "all"] for kind in STREAMS]
course.claim(
    "periods 1-8-64 with the sum, as in (NL 71), minus flat, in points: {a} (new classes), {b} (permuted), {c} (rotated)",
    all(span.low < 1 for span in sums),
    **dict(zip("abc", [points(kind, "periods 1-8-64, sum", "all") for kind in STREAMS], strict=True)),
)
slower, twin = (to_flat["permuted", name, "all"] for name in (MEAN, RATES))
course.claim(
    "permuted, periods 1-8-64 with the mean: {a} points above flat. But the control without periods has the same: {b}",
    slower.low > 0 and abs(slower.mean - twin.mean) < 1,
    a=points("permuted", MEAN, "all"),
    b=points("permuted", RATES, "all"),
)

# %% tags=["claim"]
lost = int((measured("rotated", MEAN, "all") < 0.2).sum())
course.claim(
    "rotated, the same: {a}, wide because {n} of 12 seeds diverge at the rate that the search found for it; the control: {b}",
    0 < lost <= 3 and to_flat["rotated", RATES, "all"].low < 0,
    n=lost,
    a=points("rotated", MEAN, "all"),
    b=points("rotated", RATES, "all"),
)
frozen = to_flat["permuted", "only the first block learns", "all"]
course.claim(
    "permuted, a chain whose slow blocks never learn at all has it too: {a}; the other way round (64-8-1, mean) it is {b}",
    abs(frozen.mean - slower.mean) < 2 and to_flat["permuted", "periods 64-8-1, mean", "all"].high < 0,
    a=points("permuted", "only the first block learns", "all"),
    b=points("permuted", "periods 64-8-1, mean", "all"),
)

# %% [markdown]
# So where slow blocks help, they help by **learning less**: a small rate does the same, and so does none. The paper's claim
# that levels of lower frequency protect old knowledge does not show up here by the period itself. On new classes all
# forget nearly everything, as in notebook 07. What a period does buy is fewer writes.
#
# ## 5 · What does a period save?
#
# A block with $P_\ell$ numbers and period $C_\ell$ is written once in $C_\ell$ tokens. So on average a token writes
#
# $$
# \sum_{\ell=1}^{k} \frac{P_\ell}{C_\ell} \quad \text{numbers} \tag{08.3}
# $$
#
# (The paper gives an order of magnitude with a factor 1/5 that it does not explain; here we count exactly.)
#
# ### Exercise 4 · `numbers_written`
#
# *4 minutes · easy · objective: compute what a system writes.*
#
# Write (08.3). A frozen block has the period `math.inf`.


# %% tags=["exercise"]
def numbers_written(sizes, periods):
    """Return how many numbers are written for each token, on average."""
    ...


# %% tags=["check"]
course.check.numbers_written(numbers_written)

# %%
course.hint.numbers_written(1)  # then 2 and 3, if you need them

# %% [markdown]
# <details><summary>Solution and why</summary>
#
# ```python
# def numbers_written(sizes, periods):
#     return sum(size / period for size, period in zip(sizes, periods))
# ```
#
# The fastest block dominates: a second block with period 8 adds an eighth, a third with period 64 nearly nothing.
#
# </details>

# %% [markdown]
# Now measure it: let systems read 128 tokens, and count after each token which numbers have changed.
#
# **Predict.** Three equal blocks. Which part of the writes is left with periods 1-8-64? With 8-32-64?

# %%
import math

SYSTEMS = {
    "flat: 1-1-1": ((1, 1, 1), "sequential"),
    "1-8-64": ((1, 8, 64), "sequential"),
    "1-8-64, nested": ((1, 8, 64), "nested"),
    "8-32-64": ((8, 32, 64), "sequential"),
    "1-8-never": ((1, 8, math.inf), "sequential"),
}
x = torch.randn(1, 128, 8, dtype=f64)
target = (x @ teacher).tanh()
counted, formula = {}, {}
for name, (periods, variant) in SYSTEMS.items():
    cms = ContinuumMemory(8, periods, variant, lrs=0.003, hidden=16, dtype=f64)
    state, changed = cms.start_stream(1), torch.zeros(3, dtype=f64)
    for t in range(128):
        with torch.no_grad():
            _, new = cms(x[:, t : t + 1], target[:, t : t + 1], state)
        pairs = zip(state.levels, new.levels, strict=True)
        changed += torch.tensor([(a.learned != b.learned).sum() for a, b in pairs])
        state = new
    counted[name] = changed / 128
    formula[name] = sum(level.numbers * level.frequency for level in cms.levels())

# %% tags=["figure"]
fig, ax = course.canvas(6.4, 2.4)
left = torch.zeros(len(SYSTEMS), dtype=f64)
for level, (colour, hatch) in enumerate((("blue", ""), ("orange", "//"), ("green", "..")), start=1):
    widths = torch.stack([row[level - 1] for row in counted.values()])
    look = {"color": course.style.COLOURS[colour], "hatch": hatch, "edgecolor": "white", "label": f"block {level}"}
    ax.barh(range(len(SYSTEMS)), widths, left=left, height=0.6, **look)
    left += widths
ax.plot(list(formula.values()), range(len(SYSTEMS)), "k|", markersize=14, label="formula (08.3)")
ax.set_yticks(range(len(SYSTEMS)), list(SYSTEMS))
ax.invert_yaxis()
ax.set(xlabel="numbers written for each token", title="Slow blocks are written almost for free")
ax.legend(loc="lower right", fontsize=8)
alt = "; ".join(f"{name}: {row.sum():.0f}, formula {formula[name]:.0f}" for name, row in counted.items())
course.figure(fig, "numbers-written-for-each-token", alt=f"Numbers written for each token. {alt}.")

# %% tags=["claim"]
whole = counted["flat: 1-1-1"].sum()
course.claim(
    "measured and formula agree: {a:.0f} of {b:.0f} numbers are written for each token with periods 1-8-64, {c:.1f} % of "
    "flat; with 8-32-64 {d:.1f} %",
    all(abs(counted[name].sum() - formula[name]) < 1e-9 for name in SYSTEMS),
    a=counted["1-8-64"].sum(),
    b=whole,
    c=100 * counted["1-8-64"].sum() / whole,
    d=100 * counted["8-32-64"].sum() / whole,
)

# %% [markdown]
# Read the saving with care. Every block still answers every token and still gets its gradient; only the writes are saved.
# That is worth most where writing is dear, as with weights spread over many machines.
#
# Besides, all tokens up to the next write can be read **at once**, since no weight changes between them.
#
# **Predict.** In how many parts must 128 tokens be read with periods 1-8-64, and with 8-32-64?

# %%
from nlcore.cms import squared_error

course.show(learning.chunk_loop, squared_error)
parts = {}
for name in ("1-8-64", "8-32-64"):
    cms, lengths = ContinuumMemory(8, SYSTEMS[name][0], lrs=0.003, hidden=16, dtype=f64), []

    def counting_loss(output, target, lengths=lengths):
        lengths.append(output.shape[1])  # tokens in this part
        return squared_error(output, target)

    with torch.no_grad():
        cms(x, target, loss=counting_loss)
    parts[name] = len(lengths)

# %% tags=["claim"]
course.claim(
    "128 tokens are read in {a} parts with periods 1-8-64, one after the other, and in {b} with 8-32-64",
    parts["1-8-64"] == 128 and parts["8-32-64"] == 16,
    a=parts["1-8-64"],
    b=parts["8-32-64"],
)

# %% [markdown]
# ## 6 · What is missing: the starts
#
# So far every block started at random. In the paper the starts are learned, by a slower level. In the **nested** variant
# the start of block $s+1$ is the best one for the contexts $\mathcal{T}$ of the slower block $s$:
#
# $$
# \theta_0^{(f_{s+1})} = \arg\min_{\Phi} \; \mathbb{E}_{\mathcal{T} \sim \mathcal{C}^{(s)}} \bigl[ \ell(\Theta, \mathcal{T};
# \Phi) \bigr] \tag{NL 72}
# $$
#
# In the **sequential** variant all starts are the best ones for whole streams:
#
# $$
# \theta_0^{(f_s)} = \arg\min_{\Phi} \; \mathbb{E}_{\mathcal{T} \sim \mathcal{C}^{(1)}} \bigl[ \ell(\Theta, \mathcal{T};
# \Phi) \bigr] \tag{NL 73}
# $$
#
# The loss $\ell$ is the one **while learning**: its gradient runs back through all inner writes. This is meta-learning. A
# reset then means: go back to what has proved to be a good beginning. We learn all starts with one outer Adam.

# %%
from nlcore.meta import reading
from nlcore.meta.learning import TESTING, meta_learn, on_streams
from nlcore.meta.variants import BEST_FLAT, CONTROL, IMPORTANT, KINDS, NESTED_CMS, VARIANTS

course.show(reading.read, reading._write, meta_learn, on_streams)

# %% [markdown]
# It needs streams with something to learn at several speeds. Ours are a sum of three rules plus noise: the slow rule stays
# for all 128 steps, the middle one is drawn again every 32, the fast one every 8. The boundaries are **aligned** (at the
# steps 8, 16, ...) or come at random.
#
# The rules read fixed features of the input. Features can be learned once and for all; what is read out of them can only be
# learned within the stream.

# %% tags=["figure"]
from nlcore.tasks.contexts import streams

course.show(streams)
fig, axes = course.canvas(7.4, 2.4, cols=2, sharey=True)
for ax, boundaries in zip(axes, ("aligned", "random"), strict=True):
    begins = streams([0], boundaries, number=1).begins[0, 0]  # (steps, 2): a middle, a fast context begins
    for height, style in enumerate(course.style.STYLES[:2]):
        at = (begins[:, height].nonzero().flatten() + 1).tolist()
        ax.vlines(at, height - 0.35, height + 0.35, color=style["color"], linewidth=2)
        ax.hlines(height, 1, 128, color=style["color"], linewidth=1)
    ax.hlines(-1, 1, 128, color="black", linewidth=1)
    ax.vlines([1], -1.35, -0.65, color="black", linewidth=2)
    ax.set_title(boundaries, fontweight="normal")
    ax.set(xlabel="step of the stream", xticks=[1, 32, 64, 96, 128], ylim=(-1.6, 1.6))
axes[0].set_yticks([-1, 0, 1], ["slow rule", "middle rule", "fast rule"])
fig.suptitle("A bar is the beginning of a new context", fontweight="bold", x=0.01, ha="left")
alt = f"Contexts of one stream. Aligned: every 32 and 8 steps. Random: {len(at)} fast contexts of any length."
course.figure(fig, "contexts-inside-contexts", alt=alt)

# %% [markdown]
# Two memories with the same three blocks, the same passes and the same search for their rates:
#
# * **nested**: periods 1-8-32; the first block returns to its start after 8 steps, the second after 32
# * **flat**: all blocks written at every step, with a learned rate and a learned decay towards its start for **every single
#   parameter**. It is the strongest flat chain that we know.
#
# **Predict.** On aligned streams, which one has the lower error? And with boundaries at random?

# %%
meta = load_sweep("meta_learned_memories")
worlds, batch = (0, 1, 2, 3), 32
online, course_of = {}, {}


def learn_and_read(kind):
    """Learn the starts of both memories on one kind of stream, and let them read fresh streams; nested minus flat."""
    given = streams(worlds, number=batch, draw=TESTING, **KINDS[kind], device=device)
    for name in (NESTED_CMS, BEST_FLAT):
        row = meta["results"][kind][name]
        rates = [row["rate"]] * 4, [row["outer_rate"]] * 4
        start = meta_learn(VARIANTS[name], worlds, *rates, iterations=30, **KINDS[kind], device=device)
        with torch.no_grad():
            errors = on_streams(VARIANTS[name], start, given).errors.square().sum(1)  # (steps, copies)
        online[kind, name] = errors.mean(0).reshape(4, batch).mean(1).double().cpu()
        course_of[kind, name] = errors.mean(1).cpu()
    return confidence_interval(online[kind, NESTED_CMS] - online[kind, BEST_FLAT])


lead = {"aligned": learn_and_read("aligned")}

# %%
lead["random boundaries"] = learn_and_read("random boundaries")

# %% tags=["figure"]
fig, axes = course.canvas(7.4, 2.8, cols=2, sharey=True)
for ax, kind in zip(axes, lead, strict=True):
    for (name, label), style in zip(((NESTED_CMS, "nested"), (BEST_FLAT, "flat")), course.style.STYLES, strict=False):
        ax.plot(range(1, 129), course_of[kind, name], label=label, **(style | {"marker": "", "linewidth": 1.3}))
    ax.set_title(kind, fontweight="normal")
    ax.set(xlabel="step of the stream", xticks=range(0, 129, 32))
axes[0].set_ylabel("squared error\n(4 worlds, 128 streams)")
axes[1].legend(loc="upper right")
fig.suptitle("A good beginning at the right moment", fontweight="bold", x=0.01, ha="left")
alt = "Mean squared error over the stream. " + "; ".join(
    f"{kind}: nested {online[kind, NESTED_CMS].mean():.2f}, flat {online[kind, BEST_FLAT].mean():.2f}" for kind in lead
)
course.figure(fig, "nested-and-flat-along-the-stream", alt=alt + ".")

# %% tags=["claim"]
course.claim(
    "four worlds, 30 outer iterations, run here: nested minus flat is {a} on aligned streams and {b} with random boundaries",
    lead["aligned"].high < 0 and lead["random boundaries"].mean > 0,
    a=lead["aligned"],
    b=lead["random boundaries"],
)

# %% [markdown]
# Look at the left picture. Every 8 steps a rule changes and both memories are wrong at first. The nested one begins the new
# context from a start made for it. The flat one still holds the old rule and must unlearn it.
#
# ## 7 · The whole map
#
# Is it the period or the reset? Which streams? A script has measured 18 variants: twelve worlds each (a world is a seed),
# 120 outer iterations, rates searched in two other worlds. All read the same streams with the same blocks.
#
# **Predict.** Take the periods away and keep the resets. Then the other way round. Which one is still ahead of flat?


# %%
def told(kind, name, words="online"):
    """Return a measure of a variant in twelve worlds."""
    return torch.tensor(meta["results"][kind][name][words], dtype=f64)


def versus(kind, one, other, words="online"):
    """Return one minus other, paired by world, with its 95 % interval."""
    return confidence_interval(told(kind, one, words) - told(kind, other, words))


print(meta["command"], "with torch", meta["torch"])
print(f"{'aligned streams':44} online    retention   blocks written a step")
for name, row in sorted(meta["results"]["aligned"].items(), key=lambda item: sum(item[1]["online"])):
    print(
        f"{name:44} {told('aligned', name).mean():.3f} {told('aligned', name, 'retention').mean():9.2f} "
        f"{row['written']:14.2f}"
    )

# %% tags=["figure"]
fig, ax = course.canvas(7.2, 4.4)
order = sorted(VARIANTS, key=lambda name: told("aligned", name).mean(), reverse=True)
for height, name in enumerate(order):
    span, chain = confidence_interval(told("aligned", name)), VARIANTS[name]
    style = course.style.STYLES[0 if any(chain.resets) else 1]
    bars = [[span.mean - span.low], [span.high - span.mean]]
    ax.errorbar([span.mean], [height], xerr=bars, color=style["color"], fmt=style["marker"], capsize=2)
best = confidence_interval(told("aligned", BEST_FLAT)).mean
floor = sum(meta["floors"]["aligned"]["best possible"]) / 12
ax.axvline(best, color="black", linewidth=1, linestyle="--")
ax.axvline(floor, color="black", linewidth=1)
ax.text(floor, len(order) - 0.3, " best possible", fontsize=8, va="bottom")
ax.text(best, len(order) - 0.3, " best flat chain", fontsize=8, va="bottom")
ax.set_yticks(range(len(order)), order, fontsize=8)
ax.set(xlabel="online squared error, aligned streams (12 worlds, 95 % interval)", ylim=(-0.7, len(order) + 0.6))
ax.set_title("Circles reset at some level, squares never do", pad=12)
alt = "; ".join(f"{name} {told('aligned', name).mean():.2f}" for name in reversed(order))
course.figure(
    fig, "map-of-meta-learned-memories", alt=f"Online error on aligned streams: {alt}; best possible {floor:.2f}."
)

# %% tags=["claim"]
won, twin = versus("aligned", NESTED_CMS, BEST_FLAT), versus("aligned", NESTED_CMS, CONTROL)
alone = versus("aligned", "CMS 1-8-32, decay a block", "flat, rate + decay a block")
bare = versus("aligned", "CMS 1-8-32", "flat, rate a block")
strongest = versus("aligned", NESTED_CMS, "independent flat, rate + decay a parameter")
course.claim(
    "aligned streams, nested minus the strongest flat chain: {a}; minus the strongest flat memory of all, whose blocks "
    "stand side by side: {b}",
    won.high < -0.1 and strongest.high < -0.1,
    a=won,
    b=strongest,
)
course.claim(
    "the reset does it: with all periods 1 and the same resets the error differs by {a} only, "
    "while {b:.2f} blocks are written a step instead of {c:.2f}",
    abs(twin.mean) < 0.02,
    a=twin,
    b=meta["results"]["aligned"][CONTROL]["written"],
    c=meta["results"]["aligned"][NESTED_CMS]["written"],
)
course.claim(
    "periods without resets gain nothing: periods 1-8-32 minus periods 1 is {a}, and with decay {b}",
    bare.low > 0 and alone.low > -0.005,
    a=bare,
    b=alone,
)

# %% tags=["claim"]
eights, all32 = (versus("aligned", f"all reset every {n}", BEST_FLAT) for n in (8, 32))
order_gap = versus("aligned", "nested CMS, slow block first", NESTED_CMS)
side, beside = (
    versus(kind, "independent nested CMS", "independent flat, rate + decay a parameter")
    for kind in ("aligned", "random boundaries")
)
course.claim(
    "a reset alone is not enough, it must fit its level: all blocks reset every 8 or every 32 steps lose to flat, "
    "by {a} and {b}",
    eights.low > 0 and all32.low > 0,
    a=eights,
    b=all32,
)
course.claim(
    "slow block first instead of last changes the error by {a}; with blocks side by side (NL 74) nested minus flat is {b} "
    "on aligned streams, and {c} with random boundaries",
    abs(order_gap.mean) < 0.03 and side.high < 0 and beside.low > 0,
    a=order_gap,
    b=side,
    c=beside,
)

# %% tags=["claim"]
cheap = min(
    (
        n
        for n in VARIANTS
        if VARIANTS[n].cost <= 1.5 and not any(VARIANTS[n].resets) and len(set(VARIANTS[n].periods) - {math.inf}) == 1
    ),
    key=lambda n: told("aligned", n).mean(),
)
course.claim(
    "at about equal writes, nested minus the best flat chain ({name}) is {a}, and CMS without resets minus it {b}",
    versus("aligned", NESTED_CMS, cheap).high < 0,
    name=cheap,
    a=versus("aligned", NESTED_CMS, cheap),
    b=versus("aligned", "CMS 1-8-32, decay a block", cheap),
)

# %% [markdown]
# A clear win, and a built one: we made the streams so that resets fall on true boundaries. So now the same memories, each
# learned anew, on other streams: the same lengths with a shift that the memory cannot know (**random phase**), boundaries at
# any step, and aligned ones with about three times the noise.

# %% tags=["figure"]
fig, axes = course.canvas(7.6, 3.0, cols=4, sharey=True)
others = [name for name in IMPORTANT if name != BEST_FLAT]
alt = []
for ax, kind in zip(axes, KINDS, strict=True):
    ax.axvline(0, color="black", linewidth=1)
    for height, name in enumerate(others):
        span, style = versus(kind, name, BEST_FLAT), course.style.STYLES[0 if any(VARIANTS[name].resets) else 1]
        bars = [[span.mean - span.low], [span.high - span.mean]]
        ax.errorbar([span.mean], [height], xerr=bars, color=style["color"], fmt=style["marker"], capsize=2)
    ax.set_title(kind, fontweight="normal", fontsize=9)
    ax.set(xlim=(-0.32, 0.32), xticks=[-0.2, 0, 0.2])
    alt.append(f"{kind}: " + ", ".join(f"{name} {versus(kind, name, BEST_FLAT).mean:+.2f}" for name in others))
axes[0].set_yticks(range(len(others)), others, fontsize=8)
axes[0].invert_yaxis()
fig.supxlabel("online error minus that of the best flat chain (12 worlds, 95 %)", fontsize=9)
fig.suptitle("Resets win on true boundaries, and lose beside them", fontweight="bold", x=0.01, ha="left")
course.figure(fig, "where-resets-win-and-lose", alt="Online error minus the best flat chain. " + "; ".join(alt) + ".")

# %% tags=["claim"]
elsewhere = {kind: versus(kind, NESTED_CMS, BEST_FLAT) for kind in KINDS}
course.claim(
    "nested minus the strongest flat chain: aligned {a}, random phase {b}, random boundaries {c}, noise 1.0 {d}",
    elsewhere["aligned"].high < 0
    and elsewhere["noise 1.0"].high < 0
    and elsewhere["random phase"].low > 0
    and elsewhere["random boundaries"].low > 0,
    **dict(zip("abcd", elsewhere.values(), strict=True)),
)

# %% tags=["claim"]
from nlcore.meta.chain import Chain, new_start

course.show(Chain, new_start)
EQUAL = "nested CMS, rate + decay a parameter"
sizes = {
    name: sum(p.numel() for p in new_start(VARIANTS[name], [0], [0.03]).parameters()) for name in (EQUAL, BEST_FLAT)
}
course.claim(
    "with equal parameters too ({n} numbers each, a rate and a decay for every single one): nested minus flat is {a} "
    "aligned and {b} with random boundaries",
    sizes[EQUAL] == sizes[BEST_FLAT]
    and versus("aligned", EQUAL, BEST_FLAT).high < 0
    and versus("random boundaries", EQUAL, BEST_FLAT).low > 0,
    n=sizes[EQUAL],
    a=versus("aligned", EQUAL, BEST_FLAT),
    b=versus("random boundaries", EQUAL, BEST_FLAT),
)

# %% [markdown]
# One column is left: **retention**, the error on the slow rule alone at the end of a stream. The nested memory is far ahead
# there. Does it forget less? Its fast blocks have just been reset, so nothing of the last contexts is in the answer, and
# the slow rule stands free. If this is the reason, the control without periods must show the same.

# %% tags=["claim"]
kept = {name: told("aligned", name, "retention").mean() for name in (BEST_FLAT, NESTED_CMS, CONTROL)}
course.claim(
    "retention on aligned streams: best flat chain {a:.2f}, nested {b:.2f}, periods 1 with the same resets {c:.2f}: "
    "a by-product of the reset, not of slow writing",
    kept[CONTROL] < 0.5 * kept[BEST_FLAT] and abs(kept[CONTROL] - kept[NESTED_CMS]) < 0.1,
    **dict(zip("abc", kept.values(), strict=True)),
)
added = {kind: versus(kind, NESTED_CMS, CONTROL, "retention") for kind in ("random phase", "random boundaries")}
course.claim(
    "only where resets miss the true boundaries do periods add some retention to the resets: {a} (random phase), {b} (random boundaries)",
    all(span.high < 0 for span in added.values()),
    **dict(zip("ab", added.values(), strict=True)),
)
longer = {n: torch.tensor(meta["results"]["aligned"][n]["online, iterations doubled"]) for n in (NESTED_CMS, BEST_FLAT)}
gap = confidence_interval(longer[NESTED_CMS] - longer[BEST_FLAT])
course.claim("and learning the starts for twice as long keeps the gap: {a}", gap.high < 0, a=gap)

# %% [markdown]
# ## What you did
#
# * You built the three variants, and a write of a slow block was a step of gradient descent on its chunk (exercises 1, 2).
# * You held periods against their control. The table below is what you should take away (exercise 3).
# * You counted what a period saves, measured and as a formula (exercise 4).
# * You learned the starts of memories through their own learning, and mapped where resets win.
#
# | | what it does | what it does not do |
# |---|---|---|
# | **period** | saves writes, lets chunks be read at once, lowers the largest stable rate | protect old knowledge by itself |
# | **learning rate** | decides how fast a level learns and is overwritten | know when to start again |
# | **reset** | goes back to a good beginning; wins where a context truly ends | help where boundaries lie elsewhere |
#
# ## What this does not show
#
# * The streams of sections 6 and 7 were built for resets: they are an existence proof on one family of streams, no estimate
#   of how often real data are like that.
# * The models are tiny. The paper reports gains of language models that contain a CMS, from 760 million parameters on; we
#   cannot contradict that.
# * Boundaries were either known by design or not known at all. A memory that finds its boundaries by surprise is not here.
# * Section 4 uses plain gradient descent. With Adam a period is no longer exactly a learning rate, since Adam divides the
#   scale out.
# * Twelve worlds or seeds, one training run each; effects near 0.01 should be ignored.
#
# ## Recall
#
# <details><summary>1. What is the control of a system with periods 1, 8, 64 that writes the mean of each chunk?</summary>
#
# All periods 1, with the rates 1, 1/8 and 1/64. To first order it does the same.
#
# </details>
#
# <details><summary>2. Nested CMS beats the best flat memory on aligned streams. Which control says why?</summary>
#
# All periods 1 with the same resets: it is as good. So the reset wins; the period saves writes.
#
# </details>
#
# <details><summary>3. When does a reset hurt?</summary>
#
# When it does not fall on a true boundary: it throws away what is still valid, and comes too late for what is not.
#
# </details>
#
# <details><summary>4. Why is a low retention error no proof of less forgetting here?</summary>
#
# The fast blocks have just been reset, so the last contexts are not in the answer. The control without periods has the
# same error.
#
# </details>
#
# ## Further reading
#
# * Behrouz, Razaviyayn, Zhong, Mirrokni, *Nested Learning*, arXiv 2512.24695, sections 7.1 and 7.3: the system and its
#   variants (30 minutes).
# * Finn, Abbeel, Levine, *Model-Agnostic Meta-Learning*, arXiv 1703.03400: learning a start through learning (30 minutes).
# * Nichol, Achiam, Schulman, *On First-Order Meta-Learning Algorithms*, arXiv 1803.02999: starts without second
#   derivatives (30 minutes).
# * Koutnik, Greff, Gomez, Schmidhuber, *A Clockwork RNN*, arXiv 1402.3511: an early network of parts with periods
#   (20 minutes).
