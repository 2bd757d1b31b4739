# %% [markdown]
# # 05 · Better memories for gradients
#
# *What you will do.* Replace the memory inside momentum by better ones, from the delta rule to Muon and M3, and find
# out honestly where each of them helps.
#
# **Afterwards you can**
#
# - write delta momentum, a Newton-Schulz step, a slow memory and a step of DGD
# - say what Muon changes in the answer of a memory, and for which data that matters
# - explain what a slow memory of gradients keeps, and which single memory comes close
# - name the control that explains a gain away, and the trap of a coarse learning-rate grid
#
# **You need** notebooks 03 and 04: momentum and Adam as memories, and how to compare optimizers fairly.
#
# **Time** 60 minutes · runs in about 40 s on a CPU
#
# {{badge}}

# %% tags=["setup"]
# {{setup}}

# %% [markdown]
# ## 1 · Can a memory of gradients correct itself?
#
# The paper's argument goes like this: an optimizer is a memory of gradients. A better memory should then be a
# better optimizer. This notebook climbs a ladder of better memories:
#
# | rung | what is better | paper |
# |---|---|---|
# | momentum | (notebook 03) | Eq. 33 |
# | delta momentum | it corrects what it answers | Eq. 49 |
# | Muon | it answers in every direction alike | Eq. 42 |
# | slow + fast | two memories with two frequencies | section 7.2 |
# | M3 | slow + fast, each read as in Muon | Algorithm 1 |
#
# Deep momentum and DGD are two side rooms (sections 7 and 8): 20 minutes more, for those who want them. At every rung
# we ask: where does it help, and what else could explain it?
#
# Momentum only adds. In notebook 01 you met a rule that first erases what the memory answers now: the delta rule.
# Here the memory is $m$, and the key is the gradient itself.
#
# **Predict.** A gradient pointed left for a long time, and now points right. Which memory turns round sooner?

# %%
from nlcore.optimizers import DeltaMomentum

course.show(DeltaMomentum.update, DeltaMomentum.keys)

# %% [markdown]
# In formulas, with one row as gradient $g$ and a key $k = g / |g|$ of length one:
#
# $$
# m_{t+1} = m_t \, (\beta I - c \, k^\top k) + P g, \qquad W_{t+1} = W_t - \eta \, m_{t+1} \tag{NL 49}
# $$
#
# The part $c$ of what $m$ holds **along the new gradient** is erased; across it, $m$ fades by $\beta$ as before. The
# printed equation has no $c$ and takes $k = g$. Then the erased part grows with the square of the gradient, and a
# large gradient makes the memory explode. A memory with a fixed key is bounded only if
#
# $$
# c \, |k|^2 < 1 + \beta \tag{05.1}
# $$
#
# Our class keeps this bound for you. $P$ is what is written for $g$; with $P = I$ it is $g$.

# %%
import torch

from nlcore.optimizers import SGD, Adam, Momentum, Muon

print(DeltaMomentum([torch.zeros(1000, requires_grad=True)], lr=0.1, erase=0.5))


def memory_after(optimizer, gradients):
    """Return what the optimizer's memory m holds after each gradient."""
    weight = optimizer.param_groups[0]["params"][0]
    held = []
    for g in gradients:
        weight.grad = g.clone()
        optimizer.step()
        held.append(optimizer.state[weight]["m"].clone())
    return torch.stack(held)


turn = torch.tensor([[-1.0]] * 30 + [[1.0]] * 30, dtype=torch.float64)  # left, then right
one = torch.zeros(1, dtype=torch.float64, requires_grad=True)
plain = memory_after(Momentum([one], lr=0.0), turn)
corrected = memory_after(DeltaMomentum([one], lr=0.0, erase=0.5), turn)

# %% tags=["claim"]
late = {name: int((m[30:, 0] > 0).nonzero()[0]) + 1 for name, m in (("plain", plain), ("delta", corrected))}
course.claim(
    "momentum turns round {a} steps after the gradient, delta momentum {b}",
    late["delta"] < late["plain"],
    a=late["plain"],
    b=late["delta"],
)

# %% [markdown]
# Now break it: a memory with the printed key $k = g$ and no bound, fed with gradients of growing size.
#
# **Predict.** With $\beta = 0.9$ and $c = 1$, at which size of $g$ does it explode?

# %%
for size in (1.0, 1.3, 1.4, 2.0):
    m = torch.ones(1, dtype=torch.float64)
    for _ in range(200):
        m = m * (0.9 - size**2)  # the erased part, without (05.1); nothing new is written
    print(f"|g| = {size}: |g|^2 = {size**2:.2f}, and after 200 steps m is {m.item():.3g}")

# %% tags=["claim"]
guarded = memory_after(DeltaMomentum([one], lr=0.0, erase=1.0, key="gradient"), 1e6 * turn)
course.claim(
    "the printed rule explodes as soon as |g|^2 is above 1.9; with the bound kept, gradients of a million "
    "leave a memory of at most {a:.2g} gradients",
    abs(0.9 - 1.4**2) > 1 > abs(0.9 - 1.3**2) and torch.isfinite(guarded).all(),
    a=guarded.abs().max() / 1e6,
)

# %% [markdown]
# ### Exercise 1 · `delta_write`
#
# *6 minutes · medium · objective: write the memory of (NL 49).*
#
# `m` and `g` are matrices of one shape; the rows of `g` are the keys. Make `k` of length one by the norm of the
# whole matrix `g`. Return the new memory, with $P = I$.

# %% tags=["exercise"]
def delta_write(m, g, beta, erase):
    """Return m (beta I - erase k^T k) + g, with k = g / |g|."""
    ...


# %% tags=["check"]
course.check.delta_write(delta_write)

# %%
course.hint.delta_write(1)  # then 2 and 3, if you need them

# %% [markdown]
# <details><summary>Solution and why</summary>
#
# ```python
# def delta_write(m, g, beta, erase):
#     k = g / g.norm()
#     return beta * m - erase * (m @ k.T) @ k + g
# ```
#
# `m @ k.T` is what the memory answers to the keys. Times `k` it is the part of the memory that gives this answer.
#
# </details>

# %% [markdown]
# ## 2 · Where does the correction help?
#
# The test is a bowl of 30 directions, $f(w) = \frac{1}{2} \sum_i \lambda_i w_i^2$. The condition, largest over
# smallest $\lambda$, says how narrow the ravine is. Momentum swings from wall to wall in the steep directions. The
# correction erases the swing.
#
# To be fair, both optimizers are tuned on the same fine grid of learning rates and betas. Delta momentum also tries
# three values of $c$, so its search is three times as large: keep that in mind. The choice is made on four tuning
# seeds, the result comes from twelve others.
#
# **Predict.** Will the gain grow with the condition? Will it survive noise in the gradients?

# %%
from nlcore.metrics import confidence_interval
from nlcore.sweeps import best_setting, grid, sweep
from nlcore.tasks.quadratics import curvatures, draws, heights

course.show(curvatures, draws, heights, grid, best_setting)

TUNING, FRESH = 4, 12  # seeds: the first four are for tuning only
SEEDS = [*range(100, 100 + TUNING), *range(FRESH)]
rates = grid(0.005, 3.9, 1.4)
betas = [0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98]
settings = torch.cartesian_prod(*(torch.tensor(v, dtype=torch.float64) for v in (rates, betas, [0.0, 0.3, 0.6, 0.9])))
CONDITIONS = (10, 100, 1000, 10_000)

# %%
start, noise = draws(SEEDS, 30), 0.1 * draws([seed + 500 for seed in SEEDS], 200, 30)
ends, chosen = {}, {}
for condition in CONDITIONS:
    for words, added in (("no noise", None), ("noise", noise)):
        f = heights(curvatures(condition), start, *settings.T, steps=200, noise=added).log10()
        f = f.clamp(min=-20)  # solved
        for name, rows in (("momentum", settings[:, 2] == 0), ("delta", settings[:, 2] > 0)):
            best = best_setting(f[rows][:, :TUNING])
            ends[condition, words, name] = f[rows][best, TUNING:]
            chosen[condition, words, name] = settings[rows][best].tolist()
gap = {
    (condition, words): confidence_interval(ends[condition, words, "delta"] - ends[condition, words, "momentum"])
    for condition in CONDITIONS
    for words in ("no noise", "noise")
}
for (condition, words), span in gap.items():
    print(f"condition {condition:6}, {words:8}: log10 f, delta - momentum = {span}")

# %% tags=["figure"]
fig, axes = course.canvas(7.2, 3.0, cols=2, sharey=True)
for ax, words in zip(axes, ("no noise", "noise"), strict=True):
    spans = [gap[condition, words] for condition in CONDITIONS]
    bars = [[span.mean - span.low for span in spans], [span.high - span.mean for span in spans]]
    ax.axhline(0, color="black", linewidth=1)
    ax.errorbar(range(4), [span.mean for span in spans], bars, fmt="o", capsize=4)
    ax.set_xticks(range(4), [f"{condition:,}" for condition in CONDITIONS])
    ax.set(xlabel="condition (narrower to the right)", ylim=(-1.6, 0.6), xlim=(-0.5, 3.5))
    ax.set_title(words, fontweight="normal")
axes[0].set_ylabel("log10 f after 200 steps,\ndelta minus momentum")
axes[1].text(-0.3, -0.25, "below the line delta is better", fontsize=9)
fig.suptitle("The correction helps in narrow ravines without noise", fontweight="bold", x=0.01, ha="left")
alt = "Difference of log10 f, delta minus momentum, with 95 % intervals. "
alt += "; ".join(f"condition {c}, {words}: {span.mean:.2f}" for (c, words), span in gap.items())
course.figure(fig, "delta-momentum-where-it-helps", alt=alt + ".")

# %% tags=["claim"]
clear = [gap[condition, "no noise"] for condition in (1000, 10_000)]
course.claim(
    "no noise: at condition 1,000 and 10,000 delta momentum ends {a:.2f} and {b:.2f} powers of ten lower, "
    "and the intervals exclude zero",
    all(span.high < 0 for span in clear),
    a=-clear[0].mean,
    b=-clear[1].mean,
)
noisy = [gap[condition, "noise"] for condition in CONDITIONS]
course.claim(
    "with noise it is never ahead: the differences lie between {a:.2f} and {b:.2f}",
    all(span.high > 0 for span in noisy),
    a=min(span.mean for span in noisy),
    b=max(span.mean for span in noisy),
)

# %% [markdown]
# A gain by powers of ten in narrow ravines, and none where noise has the last word: there both settle where the noise
# keeps them. At low conditions both solve the bowl completely. The paper's picture of delta momentum (its Figure 4, our
# section 9) is of the noise-free kind. Section 10 asks how noisy a real network is.
#
# $P$ in (NL 49) is a second way to enrich the memory: write $P g$ for $g$, a **preconditioned momentum**:
#
# $$
# m_{t+1} = \beta \, m_t + P g \tag{NL 47}
# $$
#
# It is an option of `Momentum` and `DeltaMomentum`. In our bowl a perfect $P$ divides by the curvatures.

# %% tags=["claim"]
steepness = curvatures(1000)
place = torch.ones(30, dtype=torch.float64, requires_grad=True)
optimizer = Momentum([place], lr=1.0, beta=0.0, preconditioner=lambda g: g / steepness)
place.grad = steepness * place.detach()
optimizer.step()
course.claim(
    "with the right P one step is enough: f is {a:.1g}. Who knows the curvatures needs no memory",
    (steepness * place**2).sum() < 1e-20,
    a=0.5 * (steepness * place**2).sum(),
)

# %% [markdown]
# ## 3 · Does momentum speak too loudly in a few directions?
#
# The momentum of a weight matrix is a matrix too. Its **singular values** say how loudly it speaks in each
# direction. Look at a real one: a network learns digits for 60 steps.
#
# **Predict.** The first layer's momentum has 32 directions. How many of them carry nine tenths of its energy?

# %%
from nlcore.tasks import digits
from nlcore.training import fit

torch.manual_seed(0)
images = digits(device=device)
net = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10)).to(device)
optimizer = Momentum(net.parameters(), lr=0.05, beta=0.95)
fit(net, optimizer, images.x_train, images.y_train, steps=60)
m = optimizer.state[net[0].weight]["m"].double().cpu()
loudness = torch.linalg.svdvals(m)
energy = (loudness**2).cumsum(0) / (loudness**2).sum()
needed = int((energy < 0.9).sum()) + 1

# %% tags=["claim"]
course.claim(
    "{a} of {b} directions carry 90 % of the energy; the loudest is {c:.0f} times as loud as the middle one",
    needed <= 8,
    a=needed,
    b=len(loudness),
    c=loudness[0] / loudness[len(loudness) // 2],
)

# %% [markdown]
# So a step along $m$ moves the weights in a few directions and hardly in the others. **Muon** reads the same memory
# differently: keep the directions, make all of them equally loud. From $m = U S V^\top$ it takes $U V^\top$.
#
# An SVD (the singular value decomposition) is slow on a GPU. The paper shows that a few steps of gradient descent
# do it too. Ask for a matrix $O$ close to $g$, with orthogonal rows:
#
# $$
# J(O) = \frac{1}{2} |O - g|^2 + \frac{1}{2} |O O^\top - I|^2 \tag{05.2}
# $$
#
# Its gradient step, starting from $O_0 = g$, is
#
# $$
# O_{i+1} = O_i - \zeta \, \left( O_i - g + 2 \, (O_i O_i^\top - I) \, O_i \right) \tag{NL 44}
# $$
#
# With $\zeta = 1/4$ the first step is $1.5 \, g - 0.5 \, g g^\top g$. That is **Newton-Schulz**: repeat it from the
# new matrix.

# %%
from nlcore.optimizers import newton_schulz
from nlcore.optimizers.orthogonal import POLYNOMIALS

course.show(newton_schulz)
print(POLYNOMIALS)

# %% [markdown]
# Each step applies one polynomial to every singular value $s$ and leaves the directions alone:
#
# $$
# s \mapsto a s + b s^3 + c s^5 \tag{05.3}
# $$
#
# The **cubic** one is the gradient step above: it goes to 1, slowly for small values. The **quintic** one, chosen by
# Keller Jordan for Muon, lifts small values much faster, and pays for it: it never settles at 1.
#
# **Predict.** After five steps, between which two numbers do the quintic's singular values lie?

# %%
random = torch.randn(32, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
after = {
    (method, steps): torch.linalg.svdvals(newton_schulz(random, steps, method))
    for method in POLYNOMIALS
    for steps in (5, 10, 20)
}
for (method, steps), values in after.items():
    print(f"{method:8} {steps:2} steps: {values.min():.3f} to {values.max():.3f}")

# %% tags=["claim"]
U, _, Vh = torch.linalg.svd(random, full_matrices=False)
course.claim(
    "20 cubic steps are U V^T to {a:.0e}; five quintic steps leave singular values from {b:.2f} to {c:.2f}, "
    "five cubic ones from {d:.2f}",
    (newton_schulz(random, 20, "cubic") - U @ Vh).norm() < 1e-6 and after["quintic", 5].min() > 0.6,
    a=(newton_schulz(random, 20, "cubic") - U @ Vh).norm(),
    b=after["quintic", 5].min(),
    c=after["quintic", 5].max(),
    d=after["cubic", 5].min(),
)

# %% [markdown]
# Must every step use the same polynomial? No: `method="minimax"` takes the best quintic for each step, the one that
# brings the interval where the values now lie closest to 1.

# %% tags=["claim"]
off = {
    (method, steps): ((newton_schulz(random, steps, method) - U @ Vh).norm() / (U @ Vh).norm()).item()
    for method, steps in (("quintic", 5), ("minimax", 3))
}
course.claim(
    "three minimax steps end at a distance of {a:.2f} from U V^T, five of Muon's at {b:.2f}: 9 matrix products, not 15",
    off["minimax", 3] <= off["quintic", 5],
    a=off["minimax", 3],
    b=off["quintic", 5],
)

# %% [markdown]
# Watch the values travel, on the momentum you measured above. Left: the polynomial, applied as often as you choose.
# Right: the singular values, from the loudest to the quietest.

# %%
import numpy as np

sizes = torch.linspace(0, 1, 400, dtype=torch.float64)
fig, (curve_ax, value_ax) = course.canvas(5.8, 2.4, cols=2)
curve = curve_ax.plot(sizes, sizes, **(course.style.STYLES[0] | {"marker": "", "antialiased": False}))[0]
curve_ax.axhline(1, color="#999999", linewidth=1)
curve_ax.set(xlim=(0, 1), ylim=(0, 1.3), xlabel="singular value before", ylabel="after")
dots = value_ax.plot(range(32), np.zeros(32), "o", color=course.style.COLOURS["vermillion"], markersize=4)[0]
value_ax.axhline(1, color="#999999", linewidth=1)
value_ax.set(xlim=(-1, 32), ylim=(0, 1.3), xlabel="direction, loudest first")


def travel(method, steps):
    """Draw the polynomial and the momentum's singular values after these steps."""
    a, b, c = POLYNOMIALS[method]
    reached, values = sizes, loudness / m.norm()
    for _ in range(steps):
        reached, values = (s * (a + b * s**2 + c * s**4) for s in (reached, values))
    curve.set_data(sizes, reached)
    values = values.sort(descending=True).values
    dots.set_data(range(32), values)
    near = int((values > 0.5).sum())
    return f"{method}, {steps} steps: {near} of 32 directions are louder than 0.5; the quietest is at {values[-1]:.3f}."


# %% tags=["widget"]
course.explore(
    fig,
    travel,
    [
        course.Slider("method", "polynomial", ["quintic", "cubic"], start="quintic"),
        course.Slider("steps", "steps", [0, 1, 2, 3, 5, 10, 20], start=2),
    ],
    name="singular-values-newton-schulz",
    title="Singular values through Newton-Schulz",
    goal="How many cubic steps do what five quintic ones do?",
    presets={
        "momentum as it is": {"method": "quintic", "steps": 0},
        "Muon": {"method": "quintic", "steps": 5},
        "cubic, as often": {"method": "cubic", "steps": 5},
        "cubic, settled": {"method": "cubic", "steps": 20},
    },
)

# %% [markdown]
# ### Exercise 2 · `newton_schulz_step`
#
# *5 minutes · easy · objective: write (NL 44) for any $\zeta$.*
#
# `X` is the matrix so far, the $O_i$ of the formula; `g` is the one you started from. Both have at most as many rows as
# columns.

# %% tags=["exercise"]
def newton_schulz_step(X, g, zeta):
    """Return the matrix after one gradient step on (05.2)."""
    ...


# %% tags=["check"]
course.check.newton_schulz_step(newton_schulz_step)

# %%
course.hint.newton_schulz_step(1)  # then 2 and 3, if you need them

# %% [markdown]
# <details><summary>Solution and why</summary>
#
# ```python
# def newton_schulz_step(X, g, zeta):
#     off = X @ X.T - torch.eye(len(X), dtype=X.dtype)
#     return X - zeta * (X - g + 2 * off @ X)
# ```
#
# The first part pulls `X` back to `g`, the second one makes its rows orthogonal and of length one.
#
# </details>

# %% [markdown]
# ## 4 · For which data does Muon help?
#
# Muon is momentum with this reading:
#
# $$
# m_{t+1} = \beta \, m_t + (1 - \beta) \, g, \qquad W_{t+1} = W_t - \eta \, \mathrm{NS}(m_{t+1}) \tag{NL 42}
# $$
#
# Where a weight is no matrix, as a bias, our class moves it by AdamW; you can see it in the print-out. With
# `ns_dtype=torch.bfloat16` it takes the very steps of `torch.optim.Muon`; our default, float32, is more exact.

# %%
course.show(Muon.update_matrix)
print(Muon(net.parameters(), lr=0.02))

# %% [markdown]
# Why should equal loudness help? A gradient adds up what all examples ask for. Frequent examples are loud, rare ones
# are quiet. If they point in different directions, Muon hears both.
#
# So here is a memory with **rare items**: 128 facts, keys and values of 48 numbers, frequencies that fall as
# $i^{-1.5}$. It has fewer dimensions than facts. All optimizers train it for 40 steps on all items; we ask
# how many of the rarest 64 it recalls. Each gets its best learning rate, chosen on tuning seeds.
#
# **Predict.** Order SGD, momentum, Adam and Muon.

# %%
from nlcore.tasks.rare import RareItems, rare_items

course.show(sweep, rare_items, RareItems.gradient)

RACERS = {
    "SGD": (SGD, grid(250, 20_000)),
    "momentum": (Momentum, grid(60, 6_000)),
    "Adam": (Adam, grid(0.5, 20)),
    "Muon": (lambda groups: Muon(groups, stacked=True), grid(0.8, 20)),
}
CONDITIONS = {
    "rare items": {},
    "control 1: all equally frequent": {"exponent": 0.0},
    "control 2: fewer items than dimensions": {"items": 32},
    "control 3: each value its own coordinate": {"one_hot": True},
    "rare items, minibatches": {},
}

# %%
TUNING_SEEDS, FRESH_SEEDS = range(100, 103), range(10)  # three for tuning, ten others to report


def train(task, make, lrs, small, watch=None):
    """Train one memory for each rate and seed; return what was seen last, or all that was watched."""
    gradient, steps = (task.minibatch(256), 100) if small else (task.gradient, 40)
    return sweep(make, [{"lr": lr} for lr in lrs], task.empty(), gradient, steps, watch)


def rarest(right):
    """Return the part of the rarest half that is recalled, (rates, seeds)."""
    return right[..., right.shape[-1] // 2 :].mean(-1).cpu()


# %%
recall, history, at_edge = {}, {}, []
for words, kind in CONDITIONS.items():
    small = words.endswith("minibatches")
    tuning, task = (
        rare_items(seeds, **kind, dtype=torch.float64, device=device) for seeds in (TUNING_SEEDS, FRESH_SEEDS)
    )
    for name, (make, lrs) in RACERS.items():
        lrs = [lr / 3 for lr in lrs] if small else lrs  # noise wants smaller steps
        missed = 1 - rarest(tuning.recalled(train(tuning, make, lrs, small)[0]))
        best = best_setting(missed, slack=0.005)
        at_edge += [(words, name)] if best in (0, len(lrs) - 1) else []
        seen = train(task, make, [lrs[best]], small, lambda W, t, task=task: task.recalled(W)[0])  # (seeds, items)
        recall[words, name] = rarest(seen[-1])
        if words == "rare items":
            history[name] = torch.stack(seen).mean(1).cpu()  # (steps, items)
print("best rate at an end of its grid:", at_edge or "never")

# %%
for words in CONDITIONS:
    print(words)
    for name in RACERS:
        print(f"   {name:9} recalls of the rarest half {confidence_interval(recall[words, name])}")

# %% tags=["claim"]
lead = {name: confidence_interval(recall["rare items", "Muon"] - recall["rare items", name]) for name in RACERS}
course.claim(
    "on the rarest half Muon is ahead of SGD by {a}, of momentum by {b}, of Adam by {c}",
    all(lead[name].low > 0.1 for name in ("SGD", "momentum", "Adam")) and not at_edge,
    a=lead["SGD"],
    b=lead["momentum"],
    c=lead["Adam"],
)

# %% tags=["claim"]
for number, words in enumerate([words for words in CONDITIONS if words.startswith("control")], start=1):
    worst = {name: recall[words, name].mean().item() for name in RACERS}
    course.claim(
        f"control {number}: " + ", ".join(f"{name} {value:.2f}" for name, value in worst.items()),
        worst["Adam"] > 0.98 and worst["Muon"] > 0.98,
    )
noisy = confidence_interval(recall["rare items, minibatches", "Muon"] - recall["rare items, minibatches", "Adam"])
course.claim("with minibatches of 256 and 100 steps Muon and Adam differ by {a}", abs(noisy.mean) < 0.15, a=noisy)

# %% tags=["figure"]
fig, ax = course.canvas(7.0, 3.2)
groups = [words for words in CONDITIONS if words != "rare items, minibatches"] + ["rare items, minibatches"]
for shift, (name, style) in enumerate(zip(RACERS, course.style.STYLES, strict=False)):
    spans = [confidence_interval(recall[words, name]) for words in groups]
    bars = [[span.mean - span.low for span in spans], [span.high - span.mean for span in spans]]
    at = [place + 0.15 * (shift - 1.5) for place in range(len(groups))]
    look = {"fmt": style["marker"], "color": style["color"], "capsize": 3, "label": name}
    ax.errorbar(at, [span.mean for span in spans], bars, **look)
ticks = ["rare items", "equally\nfrequent", "fewer items\nthan dims", "one coordinate\na value", "rare items,\nminibatches"]
ax.set_xticks(range(5), ticks)
ax.set(ylim=(0, 1.05), ylabel="recall of the rarest half\n(10 seeds, 95 % interval)")
ax.set_title("Muon's lead needs rare items in superposition")
ax.legend(loc="lower right", fontsize=8, ncols=2)
alt = "Recall of the rarest half. " + "; ".join(
    f"{words}: " + ", ".join(f"{name} {recall[words, name].mean():.2f}" for name in RACERS) for words in groups
)
course.figure(fig, "rare-items-and-controls", alt=alt + ".")

# %% [markdown]
# Read the controls as "the lead goes away if ...". It goes away if all items are equally frequent: nothing is quiet.
# It goes away if there are fewer items than dimensions: nothing shares a direction, 40 steps are enough for all.
#
# The third control is less known. If every value has an output coordinate of its own, **Adam recalls everything
# too**: its second memory makes each coordinate equally loud, and now each coordinate is one item. Muon does the
# same for directions that no coordinate axis points at. And with the noise of minibatches and more steps the two end
# alike.
#
# Move the time slider: who has learned which items when?

# %%
fig, ax = course.canvas(5.8, 2.5)
ranks = np.arange(1, 129)
width = 16  # items in one mean
lines = {
    name: ax.plot([], [], label=name, **(style | {"markersize": 4, "antialiased": False}))[0]
    for name, style in zip(RACERS, course.style.STYLES, strict=False)
}
ax.set(xlim=(0, 129), ylim=(-0.05, 1.1), xlabel="item, the most frequent first", ylabel="recalled (mean of 10 seeds)")
ax.legend(loc="lower left", fontsize=8)


def look_back(step):
    """Draw which items each optimizer recalls after this many steps."""
    for name, line in lines.items():
        share = history[name][step - 1].reshape(-1, width).mean(1)
        line.set_data(ranks.reshape(-1, width).mean(1), share)
    rare = {name: history[name][step - 1][64:].mean().item() for name in lines}
    return f"After {step} steps the rarest half is recalled: " + ", ".join(f"{n} {v:.2f}" for n, v in rare.items()) + "."


# %% tags=["widget"]
course.explore(
    fig,
    look_back,
    [course.Slider("step", "step", [1, 3, 6, 10, 15, 20, 30, 40], start=1)],
    name="rare-item-recall",
    title="Which items are recalled when",
    goal="Find the step at which Muon knows half of the rarest items, and look where the others are.",
    presets={"start": {"step": 1}, "early": {"step": 6}, "half-way": {"step": 20}, "end": {"step": 40}},
)

# %% [markdown]
# ## 5 · Can two memories keep what one forgets?
#
# One $\beta$ is one horizon (notebook 03). A short memory forgets the task before; a long one reacts late. The
# paper's idea: keep **two memories with two frequencies**. A slow memory $s$ takes in the mean gradient of a whole
# chunk, once every $f$ steps:
#
# $$
# s \leftarrow \beta_s \, s + (1 - \beta_s) \, \frac{1}{f} \sum_{i=t-f+1}^{t} g_i \qquad \text{every } f \text{ steps} \tag{05.4}
# $$
#
# $$
# W_{t+1} = W_t - \eta \, (m_{t+1} + \alpha \, s) \tag{05.5}
# $$
#
# with $m$ a fast fading mean, written at every step. `levels()` shows a memory with a period for the first time.

# %%
from nlcore.optimizers import MultiscaleMomentum
from nlcore.optimizers.multiscale import remember_chunk

course.show(MultiscaleMomentum.update, remember_chunk)
print(MultiscaleMomentum([torch.zeros(1000, requires_grad=True)], lr=0.1, period=10))

# %% [markdown]
# ### Exercise 3 · `slow_write`
#
# *6 minutes · medium · objective: write a memory that is updated less often.*
#
# `chunk` is a list of the gradients since the last slow write, the newest included. Write (05.4): the slow memory
# changes only when the chunk holds `period` gradients.

# %% tags=["exercise"]
def slow_write(s, chunk, slow_beta, period):
    """Return the slow memory after this step."""
    ...


# %% tags=["check"]
course.check.slow_write(slow_write)

# %%
course.hint.slow_write(1)  # then 2 and 3, if you need them

# %% [markdown]
# <details><summary>Solution and why</summary>
#
# ```python
# def slow_write(s, chunk, slow_beta, period):
#     if len(chunk) < period:
#         return s
#     return slow_beta * s + (1 - slow_beta) * sum(chunk) / period
# ```
#
# It keeps the part `slow_beta` once a period. So a slow memory with 0.9 and period 10 fades as one with
# $0.9^{1/10} \approx 0.99$ that is written at every step.
#
# </details>

# %% [markdown]
# The test needs tasks that come and go. One linear teacher; three tasks, each shows only a part of the input
# directions; training stays with a task for $L$ steps (a **block**), then goes on, six rounds in all. The parts
# overlap, so each task disturbs the others. We measure the error over all three tasks at block ends.
#
# The baseline is not one $\beta$ but the **best** of five, each with its best learning rate. The best one is picked
# with hindsight, from the test seeds, which favours the baseline.
#
# **Predict.** For which block length does the slow memory help most: 10, 30 or 60 steps?

# %%
from nlcore.tasks.blocks import Blocks, blocks

course.show(Blocks.gradient, Blocks.error, blocks)

seeds = [*TUNING_SEEDS, *FRESH_SEEDS]
fine = grid(0.016, 0.4, 1.26)


def errors_of(make, lrs, task):
    """Return the mean error at the last six block ends for each rate and seed, (rates, seeds)."""
    settings = [{"lr": lr} for lr in lrs]
    steps = task.x.shape[1]
    return torch.stack(sweep(make, settings, task.empty(), task.gradient, steps, task.at_block_ends(6))).mean(0).cpu()


def fair(scores):
    """Return the scores of the test seeds, at the rate that is best on the tuning seeds."""
    return scores[best_setting(scores[:, :3]), 3:].double()


# %%
BLOCKS, BETAS, PERIODS = (10, 30, 60), (0.8, 0.9, 0.95, 0.97, 0.99), (10, 30)
single, double = {}, {}
for L in BLOCKS:
    task = blocks(seeds, L, dtype=torch.float64, device=device)
    for beta in BETAS:
        make = lambda groups, beta=beta: Momentum(groups, beta=beta)  # noqa: E731
        single[L, beta] = fair(errors_of(make, [lr * (1 - beta) for lr in fine], task))
    for period in PERIODS:
        make = lambda groups, period=period: MultiscaleMomentum(groups, period=period)  # noqa: E731
        double[L, period] = fair(errors_of(make, fine, task))
best_beta = {L: min(BETAS, key=lambda beta: single[L, beta].mean()) for L in BLOCKS}
usual = {L: confidence_interval(double[L, 10] / single[L, 0.9]) for L in BLOCKS}
ratio = {L: confidence_interval(double[L, 10] / single[L, best_beta[L]]) for L in BLOCKS}
for L in BLOCKS:
    print(f"blocks of {L}: error / that of beta 0.9 = {usual[L]}; / best single beta, {best_beta[L]} = {ratio[L]}")

# %% tags=["claim"]
course.claim(
    "blocks of 30 and 60 steps: slow + fast has {a:.2f} and {b:.2f} times the error of momentum with its usual 0.9",
    usual[30].high < 0.75 and usual[60].high < 0.75,
    a=usual[30].mean,
    b=usual[60].mean,
)
course.claim(
    "against the best single beta it is {a:.2f} at 30 steps; at 10 steps it does not help ({b}), "
    "and at 60 steps a single beta of {beta} is about as good ({c})",
    ratio[30].high < 1 and ratio[10].high > 1 and ratio[60].high > 0.9,
    a=ratio[30].mean,
    b=ratio[10],
    c=ratio[60],
    beta=best_beta[60],
)

# %%
fig, ax = course.canvas(6.2, 2.7)
labels = [f"β = {beta}" for beta in BETAS] + ["slow + fast"]
marks = [ax.plot([], [], "o", color=course.style.COLOURS["blue"], markersize=6)[0] for _ in BETAS]
marks.append(ax.plot([], [], "s", color=course.style.COLOURS["vermillion"], markersize=8)[0])
whiskers = [ax.plot([], [], color="#555555", linewidth=2, zorder=1)[0] for _ in labels]
level = ax.axhline(0.004, color="#999999", linewidth=1, linestyle="--")
ax.set_xticks(range(6), labels)
ax.set(xlim=(-0.5, 5.5), ylim=(1e-3, 0.2), yscale="log", ylabel="error over all tasks\n(95 % interval)")


def show_blocks(L, period):
    """Draw the error of each single beta and of slow + fast for blocks of L steps."""
    values = [single[L, beta] for beta in BETAS] + [double[L, period]]
    spans = [confidence_interval(value) for value in values]
    for place, (mark, whisker, span) in enumerate(zip(marks, whiskers, spans, strict=True)):
        mark.set_data([place], [span.mean])
        whisker.set_data([place, place], [max(span.low, 1e-4), span.high])
    best = min(span.mean for span in spans[:-1])
    level.set_ydata([best, best])
    against = confidence_interval(double[L, period] / single[L, best_beta[L]])
    return f"Blocks of {L} steps, period {period}: the best single β is {best_beta[L]}; slow + fast / best = {against}."


# %% tags=["widget"]
course.explore(
    fig,
    show_blocks,
    [
        course.Slider("L", "block length", list(BLOCKS), start=30, format="{} steps"),
        course.Slider("period", "slow period", list(PERIODS), start=10, format="{} steps"),
    ],
    name="blocked-tasks",
    title="Blocked tasks: the best single beta and slow + fast",
    goal="Watch the best single beta move with the block length. Does slow + fast have to move too?",
    presets={
        "short blocks": {"L": 10, "period": 10},
        "middle": {"L": 30, "period": 10},
        "long blocks": {"L": 60, "period": 10},
        "slower memory": {"L": 60, "period": 30},
    },
)

# %% [markdown]
# So the honest verdict: **a second, slow memory saves you from choosing.** The best single $\beta$ moves from 0.9 to
# 0.99 as blocks get longer; slow + fast stays near the best with one setting. Part of its gain over the usual 0.9 is
# simply a longer horizon, which a single $\beta$ can buy too. In blocks as short as the fast memory it buys nothing.
#
# ## 6 · M3: both ideas at once
#
# **M3** keeps a fast and a slow memory, reads both as in Muon, and divides by the root of a third memory $V$ of
# squared gradients, as in Adam:
#
# $$
# W_{t+1} = W_t - \eta \, \frac{\mathrm{NS}(M^{(1)}_t) + \alpha \, \mathrm{NS}(M^{(2)}_t)}{\sqrt{V_t} + \varepsilon} \tag{NL 75}
# $$
#
# The paper's Algorithm 1 prints $M^{(1)} \leftarrow M^{(1)} + \beta_1 g$, and the same for $M^{(2)}$ with chunks.
#
# **Predict.** Look at these two lines once more. What do the memories forget?

# %%
from nlcore.optimizers import M3

course.show(M3.update_matrix)
print(M3([torch.zeros(20, 30, requires_grad=True)], lr=0.02, period=10))

# %%
def m3_memories(steps, **settings):
    """Return the gradients an M3 has read, and its memories afterwards."""
    weight = torch.zeros(3, 5, dtype=torch.float64, requires_grad=True)
    optimizer = M3([weight], **settings)
    gradients = torch.randn(steps, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for g in gradients:
        weight.grad = g.clone()
        optimizer.step()
    return gradients, optimizer.state[weight]


gradients, state = m3_memories(36, mode="literal", betas=(0.9, 0.99, 0.8), period=10)
difference = state["M1"] / 0.9 - state["M2"] / 0.8

# %% [markdown]
# Nothing fades in the printed form. Both memories hold the sum of **all** gradients; the slow one only lacks the
# chunk that is not complete yet:
#
# $$
# \frac{M^{(1)}}{\beta_1} - \frac{M^{(2)}}{\beta_3} = \sum_{i \, \text{since the last slow write}} g_i \tag{05.6}
# $$
#
# Newton-Schulz ignores scale, so $\beta_1$ and $\beta_3$ have no effect at all. The text describes a short and a long
# horizon; for that the memories must fade. Our default, `mode="ema"`, lets them fade.

# %% tags=["claim"]
course.claim(
    "(05.6) holds to {a:.0e}: after 36 steps with period 10 the two printed memories differ by the last {b} gradients",
    (difference - gradients[30:].sum(0)).abs().max() < 1e-12,
    a=(difference - gradients[30:].sum(0)).abs().max() + 1e-16,
    b=6,
)

# %% [markdown]
# A second trap is in the division. Adam divides $\hat m$ by $\sqrt{\hat v}$, and the unit of the gradient cancels
# (notebook 04). Newton-Schulz has removed that unit already.
#
# **Predict.** All gradients become 100 times smaller, as they do when a network has nearly learned. What happens to
# the steps of Adam, of Muon, of M3?

# %%
def first_step(make, scale):
    """Return the length of the first step for the same gradient, multiplied by `scale`."""
    weight = torch.zeros(6, 8, dtype=torch.float64, requires_grad=True)
    weight.grad = scale * torch.randn(6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    make([weight]).step()
    return weight.norm().item()


makers = {"Adam": Adam, "Muon": Muon, "M3": M3, "M3 without V": lambda p: M3(p, second_moment=False)}
growth = {name: first_step(make, 0.01) / first_step(make, 1.0) for name, make in makers.items()}

# %% tags=["claim"]
course.claim(
    "gradients 100 times smaller: Adam's step is {a:.2f} times as long, Muon's {b:.2f}, M3's {c:.0f}, "
    "and that of M3 without V {d:.2f}",
    abs(growth["Adam"] - 1) < 0.01 and abs(growth["Muon"] - 1) < 0.01 and abs(growth["M3"] - 100) < 1,
    a=growth["Adam"],
    b=growth["Muon"],
    c=growth["M3"],
    d=growth["M3 without V"],
)

# %% [markdown]
# The smaller the gradients, the longer the steps. A large $\varepsilon$ hides it, and so do decaying learning rates;
# leaving out $V$ cures it. Remember this when you meet the real task: there M3 gets $\varepsilon$ of 0.01 or 0.1.
#
# Now M3 on the blocked tasks, blocks of 30 steps, beside Muon with two betas and beside plain momentum. All tuned on
# the same fine grid.
#
# **Predict.** Will M3 beat Muon? Will either beat momentum?

# %%
task = blocks(seeds, 30, dtype=torch.float64, device=device)
MATRICES = {
    "Muon, β = 0.9": lambda groups: Muon(groups, beta=0.9, stacked=True),
    "Muon, β = 0.97": lambda groups: Muon(groups, beta=0.97, stacked=True),
    "M3 without V": lambda groups: M3(groups, second_moment=False, stacked=True),
    "M3": lambda groups: M3(groups, eps=0.1, stacked=True),
}
rates_of = {name: grid(0.004, 0.045, 1.26) for name in MATRICES}
scores = {name: errors_of(make, rates_of[name], task) for name, make in MATRICES.items()}
tuned = {name: fair(score) for name, score in scores.items()}
for name, values in tuned.items():
    best = best_setting(scores[name][:, :3])
    at_edge = " (rate at an end of the grid)" if best in (0, len(rates_of[name]) - 1) else ""
    print(f"{name:14} error {confidence_interval(values)}{at_edge}")
print(f"momentum, best β: error {confidence_interval(single[30, best_beta[30]])}")

# %% tags=["claim"]
best_muon = min(("Muon, β = 0.9", "Muon, β = 0.97"), key=lambda name: tuned[name].mean())
against = confidence_interval(tuned["M3 without V"] / tuned[best_muon])
usual_muon = confidence_interval(tuned["M3 without V"] / tuned["Muon, β = 0.9"])
course.claim(
    "M3 without V has {a} times the error of Muon with the same fast memory, β = 0.9, but {b} times that of the "
    "better Muon, which has a longer one: no clear difference",
    usual_muon.mean < against.mean and against.low < 1 < against.high,
    a=usual_muon,
    b=against,
)
plain = confidence_interval(tuned["M3 without V"] / single[30, best_beta[30]])
with_v = confidence_interval(tuned["M3"] / tuned["M3 without V"])
course.claim(
    "plain momentum is better than all four: the error of M3 without V is {a} times as large; with V it is {b} times "
    "larger again",
    plain.low > 2 and with_v.low > 1,
    a=plain,
    b=with_v,
)

# %% [markdown]
# Muon and M3 take steps of a fixed length, so with a constant rate they keep shaking around the answer. That is why
# momentum wins here. With $V$ the steps even grow on the way (the second trap).
#
# **The learning-rate trap.** Does M3 beat Muon or not? That depends on how carefully you tune. Take only every fifth
# rate of our grid: a factor of 3.2 from one to the next, as many papers do. There are five such coarse grids.
#
# **Predict.** How far apart are the five answers?

# %%
def coarse(name, first):
    """Return the tuned scores when only every fifth rate, from `first` on, may be used."""
    return fair(scores[name][first::5])


trap = [
    (coarse("M3 without V", first).mean() / coarse(best_muon, second).mean()).item()
    for first in range(5)
    for second in range(5)
]

# %% tags=["figure"]
fig, ax = course.canvas(6.4, 2.3)
ax.plot(sorted(trap), [0] * len(trap), "o", alpha=0.7, label="25 pairs of coarse grids")
ax.errorbar([against.mean], [0.5], xerr=[[against.mean - against.low], [against.high - against.mean]], fmt="s", capsize=4)
ax.axvline(1, color="black", linewidth=1)
ax.set_yticks([0, 0.5], ["coarse grids", "fine grid, 95 %"])
ax.set(ylim=(-0.3, 0.8), xscale="log", xlabel="error of M3 without V / error of Muon (left of the line M3 is better)")
ax.set_xticks([0.3, 0.5, 1, 2, 3], ["0.3", "0.5", "1", "2", "3"])
ax.minorticks_off()
ax.set_title("With a coarse grid you can find what you like")
alt = f"Ratio of errors, M3 over Muon: with coarse grids from {min(trap):.2f} to {max(trap):.2f}, with the fine grid "
course.figure(fig, "learning-rate-grid-trap", alt=alt + f"{against.mean:.2f}.")

# %% tags=["claim"]
course.claim(
    "coarse grids say anything from {a:.2f} to {b:.2f}; the fine grid says {c}",
    min(trap) < against.low and max(trap) > against.high,
    a=min(trap),
    b=max(trap),
    c=against,
)

# %% [markdown]
# ## 7 · Side room: may the memory be a network?
#
# A matrix can only answer linearly. **Deep momentum** makes the memory a small network $m(\cdot)$ that is asked with
# the current gradient:
#
# $$
# W_{t+1} = W_t + \eta \, |g| \, m_{t+1}(u), \qquad m_{t+1} = \alpha \, m_t - \zeta \, \nabla_m L^{(2)}(m_t; u), \qquad u = g / |g| \tag{NL 50}
# $$
#
# The paper fixes neither the network nor the objective $L^{(2)}$ and warns that both matter. Our choices are listed
# at the top of its module.

# %%
from nlcore.optimizers import DeepMomentum
from nlcore.optimizers.deep_momentum import answer, write

course.show(DeepMomentum.update, answer, write)

# %% [markdown]
# What can a network hold that a matrix cannot? Three teachers turn an input $x$ into a surprise $u(x)$: one linear,
# one bent ($\tanh$), one even: the same for $x$ and $-x$. A memory reads 2,000 pairs, once, and must predict each
# next surprise. Three memories: a fading mean that ignores $x$, a matrix with the delta rule, a network with 64
# hidden units.
#
# **Predict.** Which memory is best for which teacher?

# %%
from nlcore.tasks.streams import prediction_error, teacher_stream

course.show(teacher_stream, prediction_error)

KINDS = {"mean": grid(0.001, 0.03), "matrix": grid(0.001, 0.07), "network": grid(0.0126, 0.05)}
held = {}
for teacher in ("linear", "bent", "even"):
    x, u = teacher_stream(seeds, teacher)
    for kind, lrs in KINDS.items():
        error = prediction_error(x, u, lrs, kind)
        held[teacher, kind] = error[best_setting(error[:, :3]), 3:]
        print(f"{teacher:7} {kind:8} error {confidence_interval(held[teacher, kind])}")

# %% tags=["claim"]
gain = {kind: confidence_interval(held["even", kind] - held["even", "network"]) for kind in ("mean", "matrix")}
course.claim(
    "the matrix is best for the linear teacher; for the even one the network is ahead of it by {a}, "
    "and of the mean by {b}",
    held["linear", "matrix"].mean() < held["linear", "network"].mean() and min(g.low for g in gain.values()) > 0,
    a=gain["matrix"],
    b=gain["mean"],
)

# %% [markdown]
# So a network pays off where the surprise bends strongly with what it is asked. Are gradients of real networks like
# that? The real task in section 10 will ask; do not expect too much.
#
# ## 8 · Side room: a step that corrects the layer itself
#
# Delta momentum corrects the memory of gradients. **DGD** (delta gradient descent) corrects the layer: its weights
# are a memory of inputs. Let $u = -\nabla_y L$ be the surprise. Then the new weights solve
#
# $$
# W_{t+1} = \arg\min_W \; \frac{1}{2} |W x - u|^2 + \frac{1}{2 \eta} |W - W_t|^2 \tag{NL 56}
# $$
#
# and the solution is a step that also takes out what the layer answers now:
#
# $$
# W_{t+1} = W_t \, (I - \eta' x x^\top) - \eta' \, (\nabla_y L) \, x^\top, \qquad \eta' = \frac{\eta}{1 + \eta |x|^2} \tag{NL 57}
# $$
#
# The paper prints $\eta / (1 + \eta)$, which is right for inputs of length one.
#
# DGD needs the input of each layer. A gradient does not carry it, so `DGD` listens to the layers of a model.

# %%
from nlcore.optimizers import DGD

course.show(DGD.update, DGD.watch)
layer = torch.nn.Linear(3, 2, bias=False)
optimizer = DGD(layer.parameters(), lr=0.5, model=layer)
layer.weight.grad = torch.ones(2, 3)  # a gradient without a forward pass
try:
    optimizer.step()
except RuntimeError as error:
    print(error)

# %% [markdown]
# ### Exercise 4 · `dgd_step`
#
# *6 minutes · medium · objective: write (NL 57) for an input of any length.*
#
# `gradient` is $\nabla_y L$, a vector; `x` is the input of the layer.

# %% tags=["exercise"]
def dgd_step(W, x, gradient, lr):
    """Return the weights after one step of DGD."""
    ...


# %% tags=["check"]
course.check.dgd_step(dgd_step)

# %%
course.hint.dgd_step(1)  # then 2 and 3, if you need them

# %% [markdown]
# <details><summary>Solution and why</summary>
#
# ```python
# def dgd_step(W, x, gradient, lr):
#     rate = lr / (1 + lr * x @ x)
#     return W - rate * torch.outer(W @ x + gradient, x)
# ```
#
# With $u = -\nabla_y L$ this is the delta rule: it writes $u$ where the layer answers $W x$.
#
# </details>

# %% [markdown]
# What is it good for? A layer stores pairs $(x, v)$ from a stream. With the objective $-\langle W x, v \rangle$ the
# surprise is $u = v$. Plain gradient descent then only adds (Hebb); DGD is the **delta rule** of notebook 01.
#
# Inputs are independent; or each resembles the one before (correlation 0.9); or the teacher drifts as well.
#
# **Predict.** Who suffers from correlated inputs? What happens to DGD with the usual squared loss
# $\frac{1}{2} |W x - v|^2$, where $u = v - W x$?

# %%
from nlcore.memory import delta, dgd, hebbian, read
from nlcore.tasks.streams import correlated_stream

course.show(dgd, correlated_stream)

STREAMS = {
    "independent inputs": {},
    "inputs alike": {"correlation": 0.9},
    "alike, teacher drifts": {"correlation": 0.9, "drift": 0.05},
}
WRITES = {
    "gradient descent, dot product": lambda W, x, v, lr: hebbian(W, x, v, lr=lr),
    "DGD, dot product": lambda W, x, v, lr: dgd(W, x, v, lr=lr),
    "gradient descent, squared loss": lambda W, x, v, lr: delta(W, x, v, lr=lr),
    "DGD, squared loss": lambda W, x, v, lr: dgd(W, x, v - read(W, x), lr=lr),
}

# %%
lrs = torch.tensor(grid(0.01, 400), dtype=torch.float64)[:, None]
left = {}
for words, kind in STREAMS.items():
    stream = correlated_stream(seeds, **kind)
    for name, rule in WRITES.items():
        W = torch.zeros(len(lrs), *stream.teacher.shape, dtype=torch.float64)
        for t in range(stream.x.shape[1]):
            x, v = (part[:, t].expand(len(lrs), *part[:, t].shape) for part in (stream.x, stream.v))
            W = rule(W, x, v, lrs)
        error = stream.error(W)
        left[words, name] = error[best_setting(error[:, :3]), 3:]

# %% tags=["figure"]
fig, ax = course.canvas(6.8, 3.0)
for shift, (name, style) in enumerate(zip(WRITES, course.style.STYLES, strict=False)):
    spans = [confidence_interval(left[words, name]) for words in STREAMS]
    bars = [[span.mean - span.low for span in spans], [span.high - span.mean for span in spans]]
    look = {"fmt": style["marker"], "color": style["color"], "capsize": 3, "label": name}
    ax.errorbar([place + 0.15 * (shift - 1.5) for place in range(3)], [s.mean for s in spans], bars, **look)
ax.set_xticks(range(3), list(STREAMS))
ax.set(ylim=(-0.03, 0.75), ylabel="relative error at the end\n(10 seeds, 95 % interval)")
ax.set_title("DGD repairs the dot product, and spoils the squared loss")
ax.legend(loc="upper left", fontsize=8)
alt = "Relative error after one pass. " + "; ".join(
    f"{words}: " + ", ".join(f"{name} {left[words, name].mean():.3f}" for name in WRITES) for words in STREAMS
)
course.figure(fig, "dgd-and-its-objectives", alt=alt + ".")

# %% tags=["claim"]
alike = {name: left["inputs alike", name] for name in WRITES}
same = (alike["DGD, dot product"] - alike["gradient descent, squared loss"]).abs().max()
course.claim(
    "inputs alike: the dot product is off by {a:.3f} with gradient descent and by {b:.3f} with DGD. "
    "Gradient descent on the squared loss gives the same ({c:.3f}): it is the delta rule too",
    alike["DGD, dot product"].max() < 0.1 * alike["gradient descent, dot product"].min() and same < 0.005,
    a=alike["gradient descent, dot product"].mean(),
    b=alike["DGD, dot product"].mean(),
    c=alike["gradient descent, squared loss"].mean(),
)
course.claim(
    "DGD on the squared loss is off by {a:.3f} even with independent inputs: a quarter",
    abs(left["independent inputs", "DGD, squared loss"].mean() - 0.25) < 0.01,
    a=left["independent inputs", "DGD, squared loss"].mean(),
)

# %% [markdown]
# A quarter is $(1/2)^2$: with the squared loss $u$ is already the error $v - W x$. DGD takes the old answer out a
# second time, and settles where both balance:
#
# $$
# W x = v - W x \quad \Longrightarrow \quad W x = \frac{v}{2} \tag{05.7}
# $$
#
# DGD is a way to get the delta rule from a dot product. It is no drop-in replacement for SGD.

# %% tags=["claim"]
layer = torch.nn.Linear(3, 2, bias=False).double()
optimizer = DGD(layer.parameters(), lr=0.5, model=layer)
x, v = torch.tensor([1.0, 2.0, -1.0], dtype=torch.float64), torch.tensor([3.0, -1.0], dtype=torch.float64)
for _ in range(200):
    optimizer.zero_grad()
    (0.5 * (layer(x) - v).square().sum()).backward()
    optimizer.step()
course.claim(
    "asked for {v}, the layer trained by DGD on the squared loss answers {y}",
    (layer(x) - v / 2).abs().max() < 1e-9,
    v=v.tolist(),
    y=[round(number, 6) for number in layer(x).tolist()],
)

# %% [markdown]
# ## 9 · The playground
#
# The paper's own picture of delta momentum (its Figure 4) is a winding valley in two dimensions:
#
# $$
# \psi(r, \theta) = r^2 + k \, (r - \theta + a \sin(\omega r))^2 \tag{NL 53}
# $$
#
# It starts at $(-3.5, 2)$. The constants $k$, $a$ and $\omega$ are not given; **8, 0.6 and 6 are ours.** First a
# measurement: momentum and delta momentum from 16 places around the start, learning rate, $\beta$ and $c$ tuned on
# four of them, 150 steps.

# %%
from nlcore.tasks.surfaces import bent_valley, ravine

course.show(bent_valley)


def slope(surface):
    """Return the gradient of a surface for weights whose last axis is (x, y)."""

    def gradient(W, t):
        return torch.from_numpy(np.stack(surface.gradient(*W.numpy().T)).T.copy())

    return gradient


valley = bent_valley()
scatter = 0.3 * torch.randn(16, 1, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
starts = torch.tensor(valley.start, dtype=torch.float64) + scatter
lrs, some_betas = grid(0.0005, 0.03, 1.4), (0.5, 0.8, 0.9, 0.95)
CHOICES = {
    "momentum": (Momentum, [{"lr": lr, "beta": b} for lr in lrs for b in (0.0, *some_betas)]),
    "delta": (
        lambda groups: DeltaMomentum(groups, stacked=True),
        [{"lr": lr, "beta": b, "erase": c} for lr in lrs for b in some_betas for c in (0.3, 0.6, 0.9)],
    ),
}

# %% tags=["claim"]
low = {}
for name, (make, choices) in CHOICES.items():
    places = sweep(make, choices, starts, slope(valley), 150)[0]
    height = torch.from_numpy(valley.value(*places.numpy().T).T.copy()).squeeze(-1).log10().clamp(min=-12)
    low[name] = height[best_setting(height[:, :4]), 4:]
winding = confidence_interval(low["delta"] - low["momentum"])
course.claim(
    "in the winding valley with our constants delta momentum ends {a} powers of ten apart from momentum: no difference",
    winding.low < 0 < winding.high,
    a=winding,
)

# %% [markdown]
# The valley has many side pockets, and which one a path falls into is luck. Other constants may tell another story;
# we cannot know the paper's.
#
# Now every optimizer of this notebook on two maps, each at the best of 11 rates for that map. In two dimensions the
# point is a matrix with one row: Muon and M3 can only make it one unit long. Their strength needs a real matrix. DGD
# needs a layer with inputs, so for it the point is the weight of a layer whose only input is 1.

# %%
WALKERS = {
    "SGD": (SGD, 0.0005),
    "momentum": (Momentum, 0.0005),
    "delta momentum": (lambda groups: DeltaMomentum(groups, erase=0.5), 0.0005),
    "Adam": (Adam, 0.01),
    "Muon": (lambda groups: Muon(groups, adjust_lr=None), 0.005),
    "slow + fast": (MultiscaleMomentum, 0.001),
    "M3": (lambda groups: M3(groups, second_moment=False), 0.005),
    "deep momentum": (lambda groups: DeepMomentum(groups, hidden=8), 0.001),
}
MAPS = {"winding valley": valley, "ravine, turned": ravine(50, 0.5)}


def walk_dgd(surface, lr, steps=120):
    """Return the path of DGD, (steps + 1, 2): the point is the weight of a layer whose only input is 1."""
    layer = torch.nn.Linear(1, 2, bias=False).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([surface.start]).T)
    optimizer = DGD(layer.parameters(), lr=lr, model=layer)
    path = [layer.weight.detach().flatten().clone()]
    while len(path) <= steps and path[-1].abs().max() < 1e6:
        optimizer.zero_grad()
        point = layer(torch.ones(1, dtype=torch.float64))
        (point @ torch.tensor(surface.gradient(*point.tolist()), dtype=torch.float64)).backward()
        optimizer.step()
        path.append(layer.weight.detach().flatten().clone())
    return torch.stack([*path, *[path[-1]] * (steps + 1 - len(path))]).numpy()  # one that is lost stays where it is


# %%
paths = {}
for place, surface in MAPS.items():
    start = torch.tensor([surface.start], dtype=torch.float64)
    for name, (make, lowest) in WALKERS.items():
        rates = [{"lr": lr} for lr in grid(lowest, 70 * lowest, 1.5)]
        walk = torch.stack(sweep(make, rates, start, slope(surface), 120, lambda W, t: W[:, 0])).numpy()  # (t, S, 2)
        best = int(np.nan_to_num(surface.value(*walk[-1].T), nan=np.inf).argmin())
        paths[place, name] = np.concatenate([[surface.start], walk[:, best]])
    walks = [walk_dgd(surface, lr) for lr in grid(0.0005, 0.035, 1.5)]
    paths[place, "DGD"] = min(walks, key=lambda path: surface.value(*path[-1]))

# %%
fig, (plane, far) = course.canvas(5.0, 2.2, cols=2, gridspec_kw={"width_ratios": [1.25, 1]})
hills = {}
for place, surface in MAPS.items():
    left_edge, right_edge, bottom, top = surface.box
    xs, ys = np.meshgrid(np.linspace(left_edge, right_edge, 90), np.linspace(bottom, top, 70))
    steep = np.sqrt(surface.value(xs, ys))
    look = {"colors": "#BBBBBB", "linewidths": 0.8, "antialiased": False}
    hills[place] = plane.contour(xs, ys, steep, levels=[0.1 * steep.max(), 0.3 * steep.max()], **look)
grey = {"color": "#777777", "linestyle": "--", "linewidth": 1.1, "antialiased": False}
blue = {"color": course.style.COLOURS["blue"], "linewidth": 1.5, "antialiased": False}
trails = [plane.plot([], [], **look)[0] for look in (grey, blue)]
heights_of = [
    far.plot([], [], label=label, **look)[0] for label, look in (("momentum", grey), ("your choice", blue))
]
plane.plot([0], [0], "*", color="black", markersize=10)
plane.set(xticks=[], yticks=[], xlabel="star: the lowest point")
plane.grid(False)
far.set(xlim=(0, 120), ylim=(1e-4, 100), yscale="log", xlabel="step", ylabel="height")
far.legend(loc="lower left", fontsize=8);


# %%
PLAYERS = [name for name in (*WALKERS, "DGD") if name != "momentum"]


def walk_on(place, name, steps):
    """Draw the path of one optimizer beside that of momentum."""
    surface = MAPS[place]
    for other, hill in hills.items():
        hill.set_visible(other == place)
    left_edge, right_edge, bottom, top = surface.box
    plane.set(xlim=(left_edge, right_edge), ylim=(bottom, top))
    ends = []
    for trail, line, who in zip(trails, heights_of, ("momentum", name), strict=True):
        path = paths[place, who][: steps + 1]
        height = surface.value(*path.T)
        trail.set_data(*path.T)
        line.set_data(range(len(path)), height.clip(1e-5, 1e3))
        ends.append(height[-1])
    return f"{place}, after {steps} steps: {name} is at height {ends[1]:.1g}, momentum at {ends[0]:.1g}."


# %% tags=["widget"]
course.explore(
    fig,
    walk_on,
    [
        course.Slider("place", "map", list(MAPS), start="ravine, turned"),
        course.Slider("name", "optimizer", PLAYERS, start="delta momentum"),
        course.Slider("steps", "steps", [20, 120], start=120),
    ],
    name="better-memories-playground",
    title="Playground: every optimizer beside momentum",
    goal="Find an optimizer that beats momentum on the ravine. Does it beat it in the valley?",
    presets={
        "delta, ravine": {"place": "ravine, turned", "name": "delta momentum", "steps": 120},
        "Adam, valley": {"place": "winding valley", "name": "Adam", "steps": 120},
        "one unit a step": {"place": "ravine, turned", "name": "Muon", "steps": 120},
        "DGD, ravine": {"place": "ravine, turned", "name": "DGD", "steps": 120},
    },
)

# %% [markdown]
# Do not be impressed by DGD here. It takes out what the layer answers now, so it is pulled towards zero, and zero
# happens to be the lowest point of both maps: a gift of the map, not a merit of the method.
#
# ## 10 · Every optimizer on real images, tuned alike
#
# Digits and Fashion, a network with 32 hidden units, twelve optimizers. Each gets the **same search**: two variants of
# its own, eight learning rates 1.58 apart (more, if the best lies at an end), three tuning seeds, images kept aside.
# Twelve fresh seeds and the test images give the result, for two budgets: 300 steps and 1,500. A script has done it,
# `notebooks/sweeps/optimizers_on_images.py`; here we read its result and run a part of it again.
#
# **Predict.** Which optimizers will be ahead after 300 steps? Will they still be after 1,500?

# %%
from nlcore.contest import CONTESTANTS, compete, search, standardised
from nlcore.sweeps import load_sweep

course.show(search, compete, load_sweep)

record = load_sweep("optimizers_on_images")
print(record["command"], "with torch", record["torch"])
again = compete("Muon", record["results"]["digits"]["300"]["Muon"]["settings"], digits(), 0, 300, tuning=False)
stored = record["results"]["digits"]["300"]["Muon"]["accuracy"][0]

# %% tags=["claim"]
course.claim(
    "Muon on digits, seed 0, run again here: accuracy {a:.3f}, stored {b:.3f}",
    abs(again["accuracy"] - stored) < 0.02,
    a=again["accuracy"],
    b=stored,
)

# %%
IMAGES, STEPS = ("digits", "Fashion"), ("300", "1500")


def lead(words, steps, one, other):
    """Return the difference in accuracy, in points, paired by seed, with its 95 % interval."""
    rows = record["results"][words][steps]
    difference = torch.tensor(rows[one]["accuracy"]) - torch.tensor(rows[other]["accuracy"])
    return confidence_interval(100 * difference)


for words, steps in ((words, steps) for words in IMAGES for steps in STEPS):
    rows, times = record["results"][words][steps], record["microseconds"][words]
    print(f"{words}, {steps} steps{'':12} accuracy of 12 seeds      minus momentum, points   time a step")
    for name in sorted(rows, key=lambda name: -sum(rows[name]["accuracy"])):
        span = confidence_interval(rows[name]["accuracy"])
        ahead = f"{lead(words, steps, name, 'momentum')}" if name != "momentum" else ""
        edge = " (rate at an end of its grid)" if rows[name]["at_edge"] else ""
        slower = times[name] / times["momentum"]
        print(f"   {name:16}{'':8}{span}   {ahead:24}{slower:5.1f} x momentum{edge}")

# %% tags=["figure"]
fig, axes = course.canvas(6.8, 3.6, cols=2, sharey=True)
order = sorted(CONTESTANTS, key=lambda name: sum(record["results"]["Fashion"]["300"][name]["accuracy"]))
alt = []
for ax, words in zip(axes, IMAGES, strict=True):
    for shift, (steps, style) in enumerate(zip(STEPS, course.style.STYLES, strict=False)):
        rows = record["results"][words][steps]
        spans = [confidence_interval(rows[name]["accuracy"]) for name in order]
        bars = [[span.mean - span.low for span in spans], [span.high - span.mean for span in spans]]
        look = {"fmt": style["marker"], "color": style["color"], "capsize": 2, "label": f"{steps} steps"}
        ax.errorbar([s.mean for s in spans], [k + 0.2 * shift for k in range(len(order))], xerr=bars, **look)
        best = order[max(range(len(order)), key=lambda k: spans[k].mean)]
        alt.append(f"{words}, {steps} steps: best {best}, momentum {spans[order.index('momentum')].mean:.3f}")
    ax.set(xlabel="test accuracy (95 % interval)")
    ax.set_title(words, fontweight="normal")
    ax.locator_params(axis="x", nbins=5)
axes[0].set_yticks(range(len(order)), order)
axes[1].legend(loc="upper left", fontsize=8)
fig.suptitle("Equally tuned, Muon and M3 lead on both sets", fontweight="bold", x=0.01, ha="left")
course.figure(fig, "optimizers-on-images", alt="Test accuracy of twelve optimizers. " + "; ".join(alt) + ".")

# %% tags=["claim"]
muon = {(words, steps): lead(words, steps, "Muon", "momentum") for words in IMAGES for steps in STEPS}
course.claim(
    "after 300 steps Muon is ahead of momentum by {a} points on digits and {b} on Fashion; "
    "after 1,500 steps by {c} and {d}",
    all(span.low > 0 for span in muon.values()),
    a=muon["digits", "300"],
    b=muon["Fashion", "300"],
    c=muon["digits", "1500"],
    d=muon["Fashion", "1500"],
)

# %% tags=["claim"]
pairs = {(words, steps): lead(words, steps, "M3", "Muon") for words in IMAGES for steps in STEPS}
course.claim(
    "M3 minus Muon, in points: {all}",
    all(abs(span.mean) < 1 for span in pairs.values()),
    all="; ".join(f"{words}, {steps} steps {span}" for (words, steps), span in pairs.items()),
)
times = [record["microseconds"][words] for words in IMAGES]
course.claim(
    "a whole training step with M3 takes {a:.2f} and {b:.2f} times as long as with Muon, since its slow memory is made "
    "orthogonal once in ten steps only; Muon takes {c:.1f} and {d:.1f} times as long as momentum",
    all(0.9 < each["M3"] / each["Muon"] < 1.3 and each["Muon"] > 2 * each["momentum"] for each in times),
    **dict(zip("ab", (each["M3"] / each["Muon"] for each in times), strict=True)),
    **dict(zip("cd", (each["Muon"] / each["momentum"] for each in times), strict=True)),
)

# %% [markdown]
# A surprise stands in the table: **delta momentum**, which won nothing under noise in section 2, is ahead of momentum
# here. What could explain that, and the lead of Muon too? All images share a bright part, their mean. Every gradient of
# the first layer points along it: one loud direction, one narrow ravine. In 300 steps noise has not had the last word.
#
# The **control** takes the loud direction away without any memory: standardised pixels, mean 0 and spread 1, as in
# notebook 04. Everything else is the same, the search included.
#
# **Predict.** Whose lead will be gone?

# %%
course.show(standardised)

LEADERS = ("delta momentum", "Muon", "M3")
CASES = [(words, steps) for words in IMAGES for steps in STEPS]
ahead = {
    (name, words, steps, pixels): lead(words + pixels, steps, name, "momentum")
    for name in LEADERS
    for words, steps in CASES
    for pixels in ("", ", standardised")
}

# %% tags=["figure"]
fig, ax = course.canvas(6.4, 3.2)
rows = [(name, *case) for name in reversed(LEADERS) for case in reversed(CASES)]
for shift, (pixels, style) in enumerate(zip(("", ", standardised"), course.style.STYLES, strict=False)):
    spans = [ahead[*row, pixels] for row in rows]
    bars = [[span.mean - span.low for span in spans], [span.high - span.mean for span in spans]]
    label = pixels.removeprefix(", ") or "as they are"
    look = {"fmt": style["marker"], "color": style["color"], "capsize": 2, "label": label}
    ax.errorbar([s.mean for s in spans], [k + 0.25 * shift for k in range(len(rows))], xerr=bars, **look)
ax.axvline(0, color="black", linewidth=1)
ax.set_yticks(range(len(rows)), [f"{name}, {words} {steps}" for name, words, steps in rows], fontsize=8)
ax.set(xlabel="points ahead of momentum (95 % interval)")
ax.set_title("Standardised pixels take much of the lead away")
ax.legend(loc="upper right", fontsize=8, title="pixels")
alt = "Points ahead of momentum, as they are and standardised. " + "; ".join(
    f"{name}, {words} {steps}: {ahead[name, words, steps, ''].mean:.1f} and "
    f"{ahead[name, words, steps, ', standardised'].mean:.1f}"
    for name, words, steps in rows
)
course.figure(fig, "leads-and-their-control", alt=alt + ".")

# %% tags=["claim"]
def both(name, words, steps):
    """Return the lead on pixels as they are and on standardised ones, in words."""
    before, after = (ahead[name, words, steps, pixels].mean for pixels in ("", ", standardised"))
    return f"{name} {before:.1f} and {after:.1f}"


for words, steps, bound in (("digits", "300", 0.5), ("digits", "1500", 0.5), ("Fashion", "1500", 0.6)):
    course.claim(
        f"{words}, {steps} steps, points ahead as they are and standardised: "
        + "; ".join(both(name, words, steps) for name in LEADERS),
        all(ahead[name, words, steps, ", standardised"].mean < bound for name in LEADERS),
    )
course.claim(
    "Fashion, 300 steps: " + "; ".join(both(name, "Fashion", "300") for name in LEADERS) + ": smaller, not gone",
    all(
        ahead[name, "Fashion", "300", ", standardised"].low > 0
        and ahead[name, "Fashion", "300", ", standardised"].mean < 0.7 * ahead[name, "Fashion", "300", ""].mean
        for name in LEADERS
    ),
)
gone = [100 * (1 - ahead[name, *case, ", standardised"].mean / ahead[name, *case, ""].mean) for name, *case in rows]
course.claim("standardising takes away {a:.0f} % of a lead at the least", min(gone) > 40, a=min(gone))

# %% tags=["claim"]
prepared = record["results"]["digits, standardised"]["300"]
best = max(prepared, key=lambda name: sum(prepared[name]["accuracy"]))
mine = torch.tensor(record["results"]["digits"]["300"]["Muon"]["accuracy"])
left_over = confidence_interval(100 * (mine - torch.tensor(prepared[best]["accuracy"])))
course.claim(
    "but preparation is no full replacement: on digits, 300 steps, Muon on pixels as they are is {a} points ahead of the "
    "best on standardised ones ({b})",
    left_over.low > 0,
    a=left_over,
    b=best,
)

# %% [markdown]
# So the loud direction is a likely reason for much of both leads: delta momentum erases its swing along it, Muon turns
# its volume down. (Standardising also makes all spreads equal; we did not take the two apart.)
#
# The paper (section 9.7) trains vision transformers on ImageNet-21K and reports that **M3 has the lowest training and
# test loss**, ahead of Muon and AdamW, and that it is slower than Muon. What can our toy say?
#
# * Muon and M3 lead here too, most when steps are few and pixels are as they are.
# * M3's slow memory makes no difference that we can measure. Our data are shuffled: there is no old task to remember, as
#   there is in section 5.
# * We cannot contradict the paper: a network with 32 hidden units is no vision transformer.
#
# ## What you did
#
# * You wrote delta momentum and saw it win in narrow ravines, as long as noise has not had the last word (exercise 1).
# * You took Newton-Schulz apart and found Muon's home: rare items in superposition. Three controls took its lead
#   away (exercise 2).
# * You added a slow memory. It saves you from choosing one horizon; the best single beta comes close (exercise 3).
# * You found two flaws in M3 as printed: nothing fades, and the division by $\sqrt{V}$ makes steps grow as gradients
#   shrink.
# * You saw what a coarse learning-rate grid can "prove", and how one line of preparation takes much of a lead away.
# * You visited deep momentum and DGD, and know the loss for which DGD settles at half the value (exercise 4).
#
# ## What this does not show
#
# * All tasks are small; most have constant learning rates. Falling rates help Muon and M3, whose steps have a fixed
#   length.
# * "Tuned" means: one or two settings on a grid, three or four tuning seeds. Each optimizer has further settings, at
#   their usual values. Delta momentum's search had one more dimension than momentum's.
# * The blocked tasks are linear. Forgetting in networks is the subject of notebooks 07 and 08.
# * The paper gives no settings for M3 and no constants for its toy; ours are ours.
#
# ## Recall
#
# <details><summary>1. What does Muon change: what is remembered, or how the memory is read?</summary>
#
# How it is read. The memory is ordinary momentum; the step takes its directions and makes them equally loud.
#
# </details>
#
# <details><summary>2. Muon learned rare items that Adam did not. Name a change of the data after which Adam does too.</summary>
#
# Equal frequencies; fewer items than dimensions; or values that each have a coordinate of their own.
#
# </details>
#
# <details><summary>3. Slow + fast beats momentum with 0.9 by half. Which control belongs beside this number?</summary>
#
# The best single beta: a longer horizon alone brings a large part of the gain.
#
# </details>
#
# <details><summary>4. Why do beta1 and beta3 have no effect in M3 as printed?</summary>
#
# They only scale sums that never fade, and Newton-Schulz ignores scale.
#
# </details>
#
# ## Further reading
#
# * Behrouz, Razaviyayn, Zhong, Mirrokni, *Nested Learning*, arXiv 2512.24695, sections 4.3 to 4.5, 7.2 and 9.7: the
#   ladder in the paper's notation (40 minutes).
# * Jordan and others, *Muon: an optimizer for hidden layers in neural networks*, kellerjordan.github.io/posts/muon:
#   the quintic, and why it need not converge (20 minutes).
# * Wang and others, *Muon Outperforms Adam in Tail-End Associative Memory Learning*, arXiv 2509.26030: the rare
#   items, with theory (40 minutes).
# * Yang and others, *Parallelizing Linear Transformers with the Delta Rule over Sequence Length*, arXiv 2406.06484:
#   the delta rule as a sequence model; notebook 09 gets there (30 minutes).
