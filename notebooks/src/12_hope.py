# %% [markdown]
# # 12 · HOPE
#
# *What you will do.* Assemble HOPE from the parts you have built, watch it learn while it reads, and put it beside a
# Transformer of the same size: at equal steps, at equal time, and beside a Transformer that is allowed to learn too.
#
# **Afterwards you can**
#
# - build a HOPE block and name every level in it, the optimizer included
# - derive the error from which a level inside a model learns the next token, and write the level with a step that cannot
#   overshoot
# - show with its control that a model learns in its forward pass, at several speeds, and in parameters
# - say which comparison with a Transformer is fair, what it shows at this size, and what only a large model could show
#
# **You need** notebooks 08 (Continuum Memory System) and 11 (self-modifying Titans).
#
# **Time** 60 minutes · runs in about 50 s on a CPU
#
# {{badge}}

# %% tags=["setup"]
# {{setup}}

# %% [markdown]
# ## 1 · What is HOPE made of?
#
# Two memories, one behind the other. Notebook 11 built the first: **self-modifying Titans**. It is written at every token,
# by an expressive rule, and it is small. Notebook 08 built the second: the **Continuum Memory System**, a chain of MLPs,
# each written once in a period. It is large, and its rule is simple.
#
# The answer $o_t$ of the first goes through the second:
#
# $$
# y_t = \mathrm{MLP}^{(f_k)}\bigl( \cdots \mathrm{MLP}^{(f_1)}(o_t) \bigr), \qquad o_t = M_{\text{memory},t-1} \, q_t \tag{NL 97}
# $$
#
# The paper leaves norms and residual paths out of this. Ours stand before each part, as in its baselines:
#
# $$
# h^{(0)} = x + \mathrm{Titans}(\mathrm{norm}(x)), \qquad
# h^{(\ell)} = h^{(\ell-1)} + W_2^{(\ell)} \, \mathrm{gelu}\bigl( W_1^{(\ell)} \, \mathrm{norm}(h^{(\ell-1)}) \bigr), \qquad
# y = h^{(k)} \tag{12.1}
# $$
#
# **Predict.** A Transformer block is $x + \mathrm{attention}$, then $x + \mathrm{MLP}$. Count the differences.

# %%
import torch
from torch.nn.functional import cross_entropy, gelu

from nlcore.hope import HopeBlock, HopeConfig, HopeLM, TransformerLM
from nlcore.sequence import SelfModifyingTitans

f64 = torch.float64


def normal(*shape, seed):
    """Return random numbers in float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=f64)


torch.manual_seed(0)
block = HopeBlock(16, heads=2, periods=(4, 16), dtype=f64)
x = normal(1, 32, 16, seed=1)  # one stream of 32 tokens

titans = block.mixer  # notebook 11: convolution, boxes, memory, output
h = x + titans(block.mixer_norm(x))[0]
for W1, W2, norm in zip(block.cms.W1, block.cms.W2, block.cms.norms, strict=True):  # notebook 08: one level after another
    h = h + gelu(norm(h) @ W1.T, approximate="tanh") @ W2.T
y, _ = block(x)  # the library; nothing to learn from is given, so no level of the CMS is written
print(type(titans).__name__, "then", len(block.cms.periods), "levels with periods", block.cms.periods)

# %% tags=["claim"]
course.claim(
    "the block of the library and the five lines by hand differ by less than 1e-12",
    isinstance(titans, SelfModifyingTitans) and (y - h).abs().max() < 1e-12,
)

# %% [markdown]
# So far only two things are new: self-modification in place of attention, and a chain of MLPs in place of one. What makes it
# HOPE is that the chain **goes on learning while it reads**.
#
# A whole model has an embedding before its blocks and a head behind them, the same for HOPE and for the Transformer we will
# put beside it. Notebook 04 ordered the levels of a system by how often each is written (Definition 2). Here is all of it.
#
# **Predict.** Which part is written most often, and which least often?

# %%
config = HopeConfig.tiny(vocabulary=96)
model = HopeLM(config)
rival = TransformerLM(config)
# LEVELS

count = {name: sum(p.numel() for p in one.parameters()) for name, one in (("HOPE", model), ("Transformer", rival))}
print("weights:", count)

# %% [markdown]
# ## 2 · Who tells a level that it was wrong?
#
# In notebook 08 the loss of the task wrote the levels, by backpropagation. Inside a language model, while it reads, the task
# is at hand: **the next token**. When it comes, every level can ask how well it would have predicted it.
#
# To ask that of a level in the middle of a model, we read its output $y$ as if the model ended here: with the last norm and
# the head of the model, $n = y / \mathrm{rms}(y)$ and $p = \mathrm{softmax}(H n)$. The gradient of $-\log p(\text{next token})$
# can be written down, without backpropagation:
#
# $$
# e = \frac{1}{\mathrm{rms}(y)} \Bigl( g - n \, \tfrac{1}{d} \sum_i g_i n_i \Bigr), \qquad
# g = H^\top \bigl( p - \mathbf{1}_{\text{next token}} \bigr) \tag{12.2}
# $$
#
# The bracket takes out what would only change the length of $y$, which the norm removes anyway.
#
# ### Exercise 1 · `readout_gradient`
#
# *6 minutes · medium · objective: derive the error from which a level learns.*
#
# Leave the norm out. `H` is (tokens, d), `y` is (d,). Return the gradient of $-\log p(\text{token})$ in `y`, where
# $p = \mathrm{softmax}(H y)$.


# %% tags=["exercise"]
def readout_gradient(H, y, token):
    """Return the gradient of -log p(token) in y, with p = softmax(H y)."""
    ...


# %% tags=["check"]
course.check.readout_gradient(readout_gradient)

# %%
course.hint.readout_gradient(1)  # then 2 and 3, if you need them

# %% [markdown]
# <details><summary>Solution and why</summary>
#
# ```python
# def readout_gradient(H, y, token):
#     p = torch.softmax(H @ y, 0)
#     return H.T @ p - H[token]
# ```
#
# What the model expected, minus what came: the rows of `H` weighted by `p`, minus the row of the token.
#
# </details>

# %%
from nlcore.hope.readout import Readout, new_readout

course.show(Readout.error)
H = 0.3 * normal(96, 16, seed=2)
readout = new_readout(H, torch.ones(16, dtype=f64), 1e-6, f64)
y_in, token = normal(1, 3, 16, seed=3).requires_grad_(), torch.tensor([[5, 0, 95]])
n = y_in / (y_in.square().mean(-1, keepdim=True) + 1e-12).sqrt()
(by_autograd,) = torch.autograd.grad(cross_entropy((n @ H.T)[0], token[0], reduction="sum"), y_in)
error, bend = readout.error(y_in.detach(), token)

# %% tags=["claim"]
course.claim(
    "(12.2) and backpropagation differ by less than 1e-12; the error is at right angles to what it corrects ({a:.0e})",
    (error - by_autograd).abs().max() < 1e-12 and (error * y_in).sum(-1).abs().max() < 1e-8,
    a=(error * y_in).sum(-1).abs().max(),
)

# %% [markdown]
# ## 3 · How far may a level step?
#
# With the error of every token the gradients of a period are sums of outer products, as in every memory of this course:
#
# $$
# G_2 = \sum_t e_t \, h_t^\top, \qquad
# G_1 = \sum_t \bigl( W_2^\top e_t \odot \mathrm{gelu}'(z_t) \bigr) \, a_t^\top, \qquad
# a = \mathrm{norm}(x), \; z = W_1 a, \; h = \mathrm{gelu}(z) \tag{12.3}
# $$
#
# But notebook 10 warned: with $C$ gradients from one place a step overshoots when $\eta C$ passes 2. The paper leaves the step
# open. Ours is divided by a bound on how much the summed loss can bend, and what was learned fades towards the **start**:
#
# $$
# W \; \leftarrow \; W_0 + \kappa \, (W - W_0) - \frac{\eta \, G}{\lambda + \sum_t c_t} \tag{12.4}
# $$
#
# Here $c_t$ bounds the bend of the loss of one token in $y_t$, and $\lambda$ is a bound that needs no eigenvalue (Gershgorin):
#
# $$
# \lambda_{\max} \Bigl( \sum_t c_t \, h_t h_t^\top \Bigr) \; \le \; \lambda = \max_s \sum_t c_t \, | h_s \cdot h_t | \tag{12.5}
# $$
#
# **Predict.** A period of 64 equal tokens, $\eta = 1$. What does one step without the division do to the hidden state?

# %%
from nlcore.hope.level import largest

course.show(largest)


def after_updates(bounded, updates, period=64):
    """Return the loss, and the length of what one level adds to its input, after it read one period again and again."""
    W, x = torch.zeros(16, 8, dtype=f64), normal(1, 1, 16, seed=5).expand(1, period, 16)
    h, token = normal(1, 1, 8, seed=4).expand(1, period, 8), torch.tensor([[0, 0, 0, 1]]).repeat(1, period // 4)
    for _ in range(updates):
        error, bend = readout.error(x + h @ W.T, token)
        bound = (largest(h, bend) + bend.sum()).item() if bounded else 1.0
        W = W - error[0].T @ h[0] / bound
    y = x + h @ W.T
    logits = (y / y.square().mean(-1, keepdim=True).sqrt() @ H.T)[0]
    return cross_entropy(logits, token[0]).item(), ((h @ W.T).norm() / x.norm()).item()


steps = (0, 1, 10, 100)
tame, wild = ([after_updates(bounded, n) for n in steps] for bounded in (True, False))
for words, rows in (("with the bound", tame), ("without", wild)):
    print(f"{words:15}", "   ".join(f"{n:3} updates: {a:.2f} nats, adds {b:6.2f}" for n, (a, b) in zip(steps, rows)))

# %% tags=["claim"]
features, bends = normal(1, 12, 5, seed=6), normal(1, 12, 1, seed=7).square()
weighed = (features * bends).mT @ features
course.claim(
    "for 12 random tokens the bound of (12.5) is {a:.1f}, the largest eigenvalue {b:.1f}",
    torch.linalg.eigvalsh(weighed)[0, -1] <= largest(features, bends)[0, 0, 0],
    a=largest(features, bends),
    b=torch.linalg.eigvalsh(weighed)[0, -1],
)
course.claim(
    "one step without the bound adds {a:.0f} times the length of the hidden state: nothing else is heard any more. With it "
    "{b:.2f} times; after 100 steps it has the lower loss",
    wild[1][1] > 10 > 1 > tame[1][1] and tame[3][0] < wild[3][0],
    a=wild[1][1],
    b=tame[1][1],
)

# %% [markdown]
# ### Exercise 2 · `write_level`
#
# *6 minutes · medium · objective: write a level with a step that cannot overshoot.*
#
# `start` and `W` are (d, h), `errors` is (tokens, d), `h` is (tokens, h), `bound` is the whole denominator. Return $W_2$
# after the period, by (12.3) and (12.4).


# %% tags=["exercise"]
def write_level(start, W, errors, h, lr, keep, bound):
    """Return the weights of a level after a full period."""
    ...


# %% tags=["check"]
course.check.write_level(write_level)

# %%
course.hint.write_level(1)  # then 2 and 3, if you need them

# %% [markdown]
# <details><summary>Solution and why</summary>
#
# ```python
# def write_level(start, W, errors, h, lr, keep, bound):
#     G = errors.T @ h
#     return start + keep * (W - start) - lr * G / bound
# ```
#
# `errors.T @ h` is the sum of all outer products. Only what the stream taught fades, not what training taught.
#
# </details>

# %% [markdown]
# Now the chain learns while it reads. The plain form takes one token after the other and asks autograd for the gradients;
# here it is. The fast form reads all tokens between two updates at once, with (12.2) and (12.3) by hand.

# %%
from nlcore.hope.continuum import Reading
from nlcore.hope.reference import token_loop

course.show(token_loop)
chain, tokens = block.cms, torch.randint(96, (1, 32), generator=torch.Generator().manual_seed(8))
slow_y, learned = token_loop(chain, x, tokens, readout)
with torch.no_grad():
    fast_y, state = chain(x, None, None, Reading(tokens, readout))
gaps = [(fast_y - slow_y).abs().max()]
gaps += [(a - b).abs().max() for a, b in zip((W for one in state.levels for W in one.learned), learned, strict=True)]

# %% tags=["claim"]
course.claim(
    "32 tokens, periods 4 and 16: outputs and learned weights of the token loop and of the fast form differ by less than 1e-10",
    max(gaps) < 1e-10 and all(part.abs().max() > 0 for part in learned),
)

# %% [markdown]
# Who learns $W_0$, $\eta$ and $\kappa$? The outer level, by ordinary training on streams. By default its gradients treat the
# inner updates as constants (**first order**, as truncation in the paper's Figure 5 suggests); `learns="second_order"`
# differentiates through them.

# %% [markdown]
# ## 4 · First demonstration: it learns in its forward pass
#
# The stream of notebook 10: the next symbol follows a rule which is drawn anew for each stream, so nobody can know it
# beforehand. Rule A for 96 tokens, then B, then A again. A small HOPE was trained on streams with one switch; its weights
# travel with the course. Nothing below trains it any further.
#
# The control is the same model with **every level held** at its start. And beside it a Transformer with a local convolution,
# like the one in HOPE.
#
# **Predict.** The Transformer's weights are frozen. Will its loss fall along the stream?

# %%
from nlcore.hope.contest import CONTESTS, trained
from nlcore.hope.watching import watch
from nlcore.sweeps import load_sweep
from nlcore.tasks.switching import SYMBOLS, best_loss, switching

course.show(watch)
record = load_sweep("hope_and_transformer")
streams = record["results"]["stream"]
reader = trained("stream", "hope")
batch = switching(128, torch.Generator().manual_seed(7))
line = torch.cat([batch.tokens, batch.targets[:, -1:]], 1)  # 128 streams of 289 tokens
alive, dead = watch(reader, line), watch(reader, line, frozen=("all",))


def nats(name, way="as trained"):
    """Return the loss along the stream in nats, by seed, smoothed over 8 tokens: (seeds, 36)."""
    rows = torch.tensor([row["nats"][way] for row in streams[name]["seeds"].values()], dtype=f64)
    return rows.unflatten(1, (-1, 8)).mean(-1)


# %% tags=["figure"]
fig, ax = course.canvas(7.2, 3.0)
curves = {
    "HOPE": nats("hope"),
    "HOPE, every level held": nats("hope", "all held"),
    "Transformer with convolution": nats("transformer_conv"),
}
for (words, rows), look in zip(curves.items(), course.style.STYLES, strict=False):
    ax.plot(torch.arange(36) * 8 + 4, rows.mean(0), label=words, **(look | {"marker": "", "linewidth": 1.8}))
for switch in (96, 192):
    ax.axvline(switch, color="#999999", linewidth=1)
ax.axhline(best_loss(), color="black", linewidth=0.8, linestyle=":")
ax.set(xlabel="token", ylabel="nats a symbol", xticks=range(0, 289, 48), ylim=(0.8, 3.7))
ax.set_title("A rule never seen before is learned while reading; then it changes: A | B | A")
ax.legend(loc="upper center", fontsize=8, ncols=3)
alt = f"Loss along streams A, B, A; who knows the rule pays {best_loss():.2f}. " + "; ".join(
    f"{words}: first 8 tokens {rows.mean(0)[0]:.2f}, end of A {rows.mean(0)[11]:.2f}, after the switch "
    f"{rows.mean(0)[12]:.2f}, end of B {rows.mean(0)[23]:.2f}"
    for words, rows in curves.items()
)
course.figure(fig, "hope-learns-in-its-forward-pass", alt=alt + ".")

# %% tags=["claim"]
guess = torch.log(torch.tensor(float(SYMBOLS)))
course.claim(
    "live: the loss falls from {a:.2f} in the first 8 tokens to {b:.2f} at the end of A; with every level held it is {c:.2f} there",
    alive.nats[80:96].mean() < 1.6 and dead.nats[80:96].mean() > guess - 0.3,
    a=alive.nats[:8].mean(),
    b=alive.nats[80:96].mean(),
    c=dead.nats[80:96].mean(),
)
course.claim(
    "after the switch it is {a:.2f}, worse than a guess ({b:.2f}): it had learned the other rule. The Transformer, whose weights "
    "are frozen, does the same: {c:.2f} at the end of A, {e:.2f} after the switch",
    nats("hope")[:, 12].mean() > guess and nats("transformer_conv")[:, 12].mean() > guess,
    a=nats("hope")[:, 12].mean(),
    b=guess,
    c=nats("transformer_conv")[:, 11].mean(),
    e=nats("transformer_conv")[:, 12].mean(),
)

# %% [markdown]
# So the demonstration is real, and its control shows it: with nothing written there is no learning. But the curve alone does
# not tell HOPE from attention. A Transformer learns in context too; what it learns, it **keeps as context**. Where the two
# differ is in how many speeds there are, and in where the learned things are.
#
# Which level of HOPE did it?

# %%
WAYS = ("as trained", "only Titans", "only the CMS", "all held")
ends = {way: nats("hope", way)[:, (10, 11, 22, 23)].mean(1) for way in WAYS}
for way, values in ends.items():
    print(f"{way:14} nats at the ends of A and B, three seeds:", "  ".join(f"{value:.2f}" for value in values))

# %% tags=["claim"]
course.claim(
    "only Titans writing: {a:.2f}; only the CMS: {b:.2f}; both {c:.2f}: on this fast task the small quick memory does the work",
    ends["only Titans"].mean() < ends["only the CMS"].mean() - 0.3,
    a=ends["only Titans"].mean(),
    b=ends["only the CMS"].mean(),
    c=ends["as trained"].mean(),
)

# %% [markdown]
# ## 5 · Second demonstration: several time scales
#
# The periods of this model: chunks of 16 tokens for the boxes, and 16 and 64 tokens for the two levels of the CMS. In every
# piece of 8 tokens we note how far each level moved, the length of the change of its numbers.
#
# **Predict.** At which tokens does the slowest level move?

# %% tags=["figure"]
short = {name: name.split(": ")[1] for name in alive.moved}
fig, (top, bottom) = course.canvas(7.2, 3.6, rows=2, sharex=True, gridspec_kw={"height_ratios": [1, 1.4]})
for row, (name, moved) in enumerate(alive.moved.items()):
    look = course.style.STYLES[row]
    places = torch.arange(len(moved))[moved > 0] * 8 + 4
    top.plot(places, [row] * len(places), "|", color=look["color"], markersize=11, markeredgewidth=2)
    bottom.plot(places, moved[moved > 0], label=short[name], **(look | {"linewidth": 1.3, "markersize": 4}))
top.set_yticks(range(len(short)), list(short.values()))
top.set(ylim=(len(short) - 0.5, -0.5))
bottom.set(xlabel="token", ylabel="movement |ΔM|", yscale="log", xticks=range(0, 289, 48))
for ax in (top, bottom):
    for switch in (96, 192):
        ax.axvline(switch, color="#999999", linewidth=1)
fig.suptitle("Four levels, three speeds: who moved when, and how far", fontweight="bold", x=0.01, ha="left")
alt = "Pieces of 8 tokens in which each level moved, of 36: " + ", ".join(
    f"{short[name]} {int((moved > 0).sum())} (mean movement {moved[moved > 0].mean():.2f})"
    for name, moved in alive.moved.items()
)
course.figure(fig, "hope-levels-and-speeds", alt=alt + ".")

# %% tags=["claim"]
times = {short[name]: (moved > 0).nonzero().flatten().tolist() for name, moved in alive.moved.items()}
moved = {short[name]: values for name, values in alive.moved.items()}
course.claim(
    "in 288 tokens the CMS levels moved {a} and {b} times: once in 16 and once in 64 tokens; the boxes at every token",
    len(times["memory"]) == 36 and len(times["cms 1"]) == 17 and len(times["cms 2"]) == 4,
    a=len(times["cms 1"]),
    b=len(times["cms 2"]),
)
course.claim(
    "the memory moves by {a:.2f} in the 16 tokens after a switch and by {b:.2f} in the 16 before: surprise is what writes",
    moved["memory"][[12, 13, 24, 25]].mean() > 1.2 * moved["memory"][[10, 11, 22, 23]].mean(),
    a=moved["memory"][[12, 13, 24, 25]].mean(),
    b=moved["memory"][[10, 11, 22, 23]].mean(),
)
