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
