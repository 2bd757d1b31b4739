# %% [markdown]
# # 03 · Momentum remembers gradients
#
# *What you will do.* Build momentum as a memory of past gradients, count how many of them it holds, and see what it
# forgets: on paper, on handwritten digits, and in a ravine.
#
# **Afterwards you can**
#
# - write one step of momentum, and convert a learning rate between its forms
# - state the question that the memory answers at each step, and order its two levels
# - compute the weight of every past gradient, and how many hold 50 % or 99 % of the memory
# - explain what momentum forgets when the task changes, and what a slower memory keeps
# - choose how much to remember in a ravine, and say why more is not always better
#
# **You need** notebook 02: gradient descent writes the surprise of each input into the weights. And `torch.optim.SGD`.
#
# **Time** 60 minutes · runs in about 20 s on a CPU
#
# {{badge}}

# %% tags=["setup"]
# {{setup}}

# %%
import math

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

# %% [markdown]
# ## 1 · What does momentum add to gradient descent?
#
# In gradient descent the newest gradient alone moves the weights. What the gradients before it said plays no role.
#
# Momentum adds a second memory, $m$. At each step $m$ fades a little, then the newest gradient is written into it, and
# $m$ moves the weights. We begin with one number.
#
# **Predict.** The gradients are 4, 0, 0, 0. At each step the memory keeps half of what it held. What does it hold after
# each step?

# %%
beta, m = 0.5, 0.0
for gradient in [4.0, 0.0, 0.0, 0.0]:
    m = beta * m + gradient
    print(f"gradient {gradient:.0f}   memory {m:.1f}")

# %% tags=["claim"]
course.claim(
    "three steps later the gradient is zero, and the memory still holds {left} of the 4",
    m == 4 * beta**3,
    left=m,
)

# %% [markdown]
# Now for a whole layer. $W_t$ are the weights after step $t$. $g_t$ is the gradient of the loss that step $t$ uses, and
# $m_t$ is the memory after it, empty at first ($m_0 = 0$). All three have the shape of $W$. One step of momentum is
#
# $$
# m_t = \beta m_{t-1} + g_t, \qquad W_t = W_{t-1} - \eta\, m_t \tag{03.1}
# $$
#
# where $\beta$ (`beta`), from 0 up to but not including 1, is the part of the memory that is kept, and $\eta$ (`lr`) is
# the learning rate. With $\beta = 0$ nothing is remembered, and this is gradient descent.
#
# ### Exercise 1 · `momentum_step`
#
# *5 minutes · easy · objective: write one step of momentum.*
#
# Write equation (03.1). Return the new weights and the new memory, in this order.

# %% tags=["exercise"]
def momentum_step(W, m, g, lr, beta):
    """Return (W, m) after one step of momentum; W, m and g have the same shape."""
    ...


# %% tags=["check"]
course.check.momentum_step(momentum_step)

# %%
course.hint.momentum_step(1)  # then 2 and 3, if you need them

# %% [markdown]
# <details><summary>Solution and why</summary>
#
# ```python
# def momentum_step(W, m, g, lr, beta):
#     m = beta * m + g
#     W = W - lr * m
#     return W, m
# ```
#
# There are two memories, so there are two writes. The order matters: first the gradient goes into $m$, then the new $m$
# goes into $W$. Remember this order; it will decide which of the two is the faster level.
#
# </details>

# %% [markdown]
# This is how `nlcore` writes the step, and the function that does both writes. `hebbian` adds a value to what a memory
# keeps: $\alpha M + \eta v k^\top$. Here the key $k$ is `None`: each weight is a memory with one slot.

# %%
from nlcore.memory import hebbian
from nlcore.optimizers import Momentum

course.show(Momentum.update, hebbian)

# %% [markdown]
# One function, called twice: once to write the gradient into $m$, once to write $m$ into $W$. Is the result the momentum
# that everybody uses? We walk 50 random steps beside PyTorch's own.

# %%
generator = torch.Generator().manual_seed(0)
gradients = torch.randn(50, 3, 4, generator=generator, dtype=torch.float64).to(device)


def walk(optimizer_class, **settings):
    """Return the weights after one step for each gradient, starting from zero."""
    W = torch.zeros(3, 4, dtype=torch.float64, device=device, requires_grad=True)
    optimizer = optimizer_class([W], **settings)
    for g in gradients:
        W.grad = g.clone()
        optimizer.step()
    return W.detach()


ours = walk(Momentum, lr=0.1, beta=0.9)
theirs = walk(torch.optim.SGD, lr=0.1, momentum=0.9)

# %% tags=["claim"]
course.claim(
    "after {steps} steps our two writes and torch.optim.SGD(momentum=0.9) are at the same weights, to 12 digits",
    torch.allclose(ours, theirs, rtol=1e-12, atol=1e-12),
    steps=len(gradients),
)

# %% [markdown]
# ## 2 · Which question does the memory answer?
#
# The paper first writes momentum without fading, and with the learning rate inside the memory:
#
# $$
# W_{t+1} = W_t - m_{t+1} \tag{NL 10}
# $$
#
# $$
# m_{t+1} = m_t + \eta_{t+1} \nabla_{W_t} \mathcal{L}(W_t; x_{t+1}) \tag{NL 11}
# $$
#
# $\nabla_{W_t} \mathcal{L}(W_t; x_{t+1})$ is the gradient at the input $x_{t+1}$, our $g$. Then it writes the same step as
# **two nested problems**, one inside the other:
#
# $$
# W_{t+1} = W_t - m_{t+1}, \qquad \text{where } m_{t+1} \text{ answers the question} \tag{NL 12}
# $$
#
# $$
# m_{t+1} = \arg\min_{m} \; - \langle m, \nabla_{W_t} \mathcal{L}(W_t; x_{t+1}) \rangle +
# \frac{1}{2 \eta_{t+1}} \lVert m - m_t \rVert^2 \tag{NL 13}
# $$
#
# $\langle A, B \rangle$ multiplies entry by entry and sums, $\lVert A \rVert^2 = \langle A, A \rangle$, and $\arg\min$ is the
# $m$ that makes the rest smallest. So: *be as much like the new gradient as you can, but stay near what you were.*
#
# **Predict.** A general solver, which knows nothing of momentum, answers (NL 13). Will it find (NL 11)?

# %%
eta = 0.3
m_before, g = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64).to(device)
answer = torch.zeros_like(m_before, requires_grad=True)
solver = torch.optim.LBFGS([answer], line_search_fn="strong_wolfe", tolerance_grad=1e-12)


def question():
    solver.zero_grad()
    cost = -(answer * g).sum() + (answer - m_before).square().sum() / (2 * eta)
    cost.backward()
    return cost


for _ in range(3):
    solver.step(question)

# %% tags=["claim"]
course.claim(
    "the solver's answer is the old memory plus eta times the gradient: no entry differs by more than 1e-8",
    (answer.detach() - (m_before + eta * g)).abs().max() < 1e-8,
)

# %% [markdown]
# So a momentum step **is** a step of learning: one step of gradient descent, with learning rate $\eta$, on the objective
# $- \langle m, g \rangle$. The outer problem trains $W$; the inner problem trains $m$ on the gradients that the outer
# problem makes.
#
# What does $m$ map to what? In a linear layer $y = W x$ the gradient is $g = u\, x^\top$, where $u = \nabla_y \mathcal{L}$
# is the surprise (notebook 02). Then $\langle m, g \rangle = \langle m x, u \rangle$, so $m$ is an associative memory: the
# key is the input, the value is the surprise.

# %%
x = torch.randn(4, generator=generator, dtype=torch.float64).to(device)
u = torch.randn(3, generator=generator, dtype=torch.float64).to(device)
alike_as_matrices = (m_before * torch.outer(u, x)).sum()
alike_as_answers = (m_before @ x) @ u
write_gradient = hebbian(m_before, None, torch.outer(u, x), lr=eta)
write_pair = hebbian(m_before, x, u, lr=eta)

# %% tags=["claim"]
course.claim(
    "writing the gradient and writing the pair (input, surprise) are the same write",
    torch.allclose(alike_as_matrices, alike_as_answers) and torch.allclose(write_gradient, write_pair, atol=1e-14),
)

# %% [markdown]
# Two memories, nested. Every optimizer of the course can say how they are ordered.
#
# **Predict.** Both are updated at every step. One level, or two?

# %%
layer = nn.Linear(64, 10)
optimizer = Momentum(layer.parameters(), lr=0.1, beta=0.9)
print(optimizer)

# %% tags=["claim"]
from nlcore.levels import order_levels

nest = order_levels(optimizer.levels())
course.claim(
    "two parts of equal frequency on {n} levels: the {first} comes first, because the new weights need it",
    [part.name for level in nest for part in level] == ["momentum m", "weights W"]
    and nest[0][0].frequency == nest[1][0].frequency,
    n=len(nest),
    first=nest[0][0].name,
)

# %% [markdown]
# **Why is $\beta$ there?** The paper's first form has none: $\beta = 1$, nothing ever fades. Let us break it on purpose. One
# weight starts at 1 in the bowl $\frac{1}{2} W^2$, whose lowest point is 0. The gradient is $W$ itself.
#
# **Predict.** With a memory that never forgets, where is the weight after 300 steps?

# %%
def late_swing(beta):
    """Return how far from the lowest point the weight still gets in the last 100 of 300 steps."""
    W = torch.ones(1, dtype=torch.float64, device=device, requires_grad=True)
    optimizer = Momentum([W], lr=0.1, beta=beta, convention="gradient")
    path = []
    for _ in range(300):
        W.grad = W.detach().clone()
        optimizer.step()
        path.append(abs(W.item()))
    return max(path[-100:])


never_forgets, forgets = late_swing(beta=1.0), late_swing(beta=0.9)
print(f"beta = 1.0: {never_forgets:.2f}   beta = 0.9: {forgets:.5f}")

# %% tags=["claim"]
course.claim(
    "without forgetting the weight swings for ever, still as far as {swing:.2f}; with beta = 0.9 it has come to rest",
    never_forgets > 0.9 and forgets < 1e-3,
    swing=never_forgets,
)

# %% [markdown]
# Old gradients were measured at old weights. A memory that cannot drop them keeps pushing in directions that are no longer
# right. Forgetting is not a fault of momentum; it is what makes it work. The question is **how much** to forget.
#
# ## 3 · How many ways are there to write it?
#
# Later the paper adds the fading, and turns the sign round: now $m$ *is* the step.
#
# $$
# W_{t+1} = W_t + m_{t+1} \tag{NL 32}
# $$
#
# $$
# m_{t+1} = \alpha_{t+1} m_t - \eta_{t+1} \nabla_{W_t} \mathcal{L}(W_t; x_{t+1}) = \alpha_{t+1} m_t - \eta_{t+1}\, u_{t+1} x_{t+1}^\top \tag{NL 33}
# $$
#
# Its $\alpha$ is our $\beta$; it writes $\delta$ for the surprise $u$ and $\hat x$ for the input of a layer. (The text
# beside its equation 33 gives two names the wrong way round: $\alpha$ is the momentum rate, $\eta$ the learning rate.)
# For $\alpha = 1$ this is gradient descent on
#
# $$
# \min_{m} \; \langle m x_{t+1}, u_{t+1} \rangle \tag{NL 34}
# $$
#
# and fading is a penalty on large memories. With $\lambda \geq 0$, the strength of that penalty,
#
# $$
# m_{t+1} = m_t - \eta \nabla_{m} \Bigl( \langle m_t, g \rangle + \frac{\lambda}{2} \lVert m_t \rVert^2 \Bigr)
# \quad \text{has} \quad \alpha = 1 - \eta \lambda \tag{03.2}
# $$
#
# | `convention` | memory | weights | where |
# |---|---|---|---|
# | `"torch"` | $m \leftarrow \beta m + g$ | $W \leftarrow W - \eta m$ | (03.1), PyTorch |
# | `"step"` | $m \leftarrow \beta m - \eta g$ | $W \leftarrow W + m$ | (NL 32), (NL 33) |
# | `"gradient"` | $m \leftarrow \beta m + \eta g$ | $W \leftarrow W - m$ | (NL 10), (NL 11) with fading |
#
# **Predict.** Do the three move the weights alike? Always?

# %%
from nlcore.optimizers.momentum import CONVENTIONS

ends = {name: walk(Momentum, lr=0.1, beta=0.9, convention=name) for name in CONVENTIONS}
apart = max((ends[name] - ends["torch"]).abs().max() for name in CONVENTIONS)

# %% tags=["claim"]
course.claim(
    "with a constant learning rate all {n} forms end at the same weights, to 12 digits",
    apart < 1e-12,
    n=len(ends),
)

# %% [markdown]
# Now a learning-rate schedule: the gradient is always 1, and after 60 steps $\eta$ drops from 0.1 to 0.01. How long is
# each step?

# %%
def step_lengths(convention, drop_at=60, steps=120):
    """Return how far the weight moves at each step; the learning rate drops to a tenth."""
    W = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = Momentum([W], lr=0.1, beta=0.9, convention=convention)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=drop_at, gamma=0.1)
    places = [0.0]
    for _ in range(steps):
        W.grad = torch.ones_like(W)
        optimizer.step()
        schedule.step()
        places.append(W.item())
    return np.abs(np.diff(places))


lengths = {name: step_lengths(name) for name in CONVENTIONS}

# %% tags=["figure"]
fig, ax = course.canvas(6.4, 2.9)
for name, style in zip(["torch", "step"], course.style.STYLES, strict=False):
    ax.plot(range(1, 121), lengths[name], color=style["color"], linestyle=style["linestyle"])
ax.axvline(60.5, color="#999999", linewidth=1)
ax.annotate("learning rate\ndrops to a tenth", (60, 0.08), (27, 0.2), arrowprops={"arrowstyle": "->"})
blue, red = course.style.COLOURS["blue"], course.style.COLOURS["vermillion"]
ax.annotate('"torch": at once', (62, 0.11), (79, 0.30), color=blue, arrowprops={"arrowstyle": "->"})
slow_words = '"step" and "gradient":\nthe memory keeps old, large steps'
ax.annotate(slow_words, (68, 0.50), (66, 0.68), color=red, arrowprops={"arrowstyle": "->"})
ax.set(title="A schedule acts at once only when the rate is outside the memory")
ax.set(xlabel="step", ylabel="length of the step")
at_once, late = lengths["torch"][60], lengths["step"][60:]
alt = f"Before the drop all step lengths rise to {lengths['torch'][59]:.2f}. Right after it the torch form steps {at_once:.2f}, "
alt += f"the others {late[0]:.2f}; they need {np.argmax(late < 2 * at_once)} more steps to come below twice that."
course.figure(fig, "learning-rate-drop", alt=alt)

# %% tags=["claim"]
course.claim(
    "one step after the drop the forms differ: {torch_step:.2f} for torch, {step_step:.2f} for the paper's two",
    late[0] > 5 * at_once and np.allclose(lengths["step"], lengths["gradient"], atol=1e-12),
    torch_step=at_once,
    step_step=late[0],
)

# %% [markdown]
# There is a fourth form. Adam (notebook 04) and many libraries keep a **moving average**, $a$, with a learning rate of its
# own, $\eta_a$: first $a \leftarrow \beta a + (1 - \beta)\, g$, then $W \leftarrow W - \eta_a\, a$.
#
# ### Exercise 2 · `lr_for_average`
#
# *5 minutes · easy · objective: convert a learning rate between two forms of momentum.*
#
# You have found a good `lr` for torch's momentum, (03.1). Return the learning rate $\eta_a$ with which the averaging form
# moves the weights in exactly the same way. Both memories start empty.

# %% tags=["exercise"]
def lr_for_average(lr, beta):
    """Return the learning rate of the averaging form that equals `lr` in torch's form."""
    ...


# %% tags=["check"]
course.check.lr_for_average(lr_for_average)

# %%
course.hint.lr_for_average(1)  # then 2 and 3, if you need them

# %% [markdown]
# <details><summary>Solution and why</summary>
#
# ```python
# def lr_for_average(lr, beta):
#     return lr / (1 - beta)
# ```
#
# The average is always $1 - \beta$ times the sum that torch keeps, so
#
# $$
# \eta_a = \frac{\eta}{1 - \beta} \tag{03.3}
# $$
#
# That is ten times `lr` at $\beta = 0.9$ and a hundred times at 0.99. Whoever copies a learning rate from one form to the
# other without this factor trains ten or a hundred times too slowly, or too fast.
#
# </details>

# %% [markdown]
# ## 4 · Is it the same memory as in attention?
#
# The write rule in `nlcore.memory` does not know where its values come from. In notebook 09 the same function reads tokens,
# and is then called linear attention. Here it reads gradients. We train one layer on 200 real digits, one digit at a time,
# and note each input $x$ and each surprise $u$.

# %%
from nlcore.tasks import digits

data = digits(device, torch.float64)
W = torch.zeros(10, 64, dtype=torch.float64, device=device, requires_grad=True)
optimizer = Momentum([W], lr=0.05, beta=0.9)
inputs, surprises = [], []
for x, label in zip(data.x_train[:200], data.y_train[:200], strict=True):
    logits = W @ x
    loss = cross_entropy(logits, label)
    W.grad, u = torch.autograd.grad(loss, [W, logits])
    optimizer.step()
    inputs.append(x)
    surprises.append(u)
buffer = optimizer.state[W]["m"]

# %% [markdown]
# `buffer` is what the optimizer holds in the end. Now a memory matrix that has never seen an optimizer reads the same 200
# pairs. And for a third opinion, the closed form: a gradient of age $k$ has been multiplied by $\beta$ just $k$ times, so
#
# $$
# m_T = \sum_{k=0}^{T-1} \beta^k\, g_{T-k} \tag{03.4}
# $$
#
# **Predict.** How far apart are the three?

# %%
memory = torch.zeros(10, 64, dtype=torch.float64, device=device)
for x, u in zip(inputs, surprises, strict=True):
    memory = hebbian(memory, k=x, v=u, lr=1.0, retain=0.9)

ages = torch.arange(199, -1, -1, dtype=torch.float64, device=device)  # the first gradient is the oldest
closed_form = torch.einsum("t,tv,tk->vk", 0.9**ages, torch.stack(surprises), torch.stack(inputs))

# %% tags=["claim"]
course.claim(
    "momentum's buffer, a Hebbian memory of (input, surprise) and the closed form agree to 14 digits on {n} real digits",
    max((buffer - memory).abs().max(), (buffer - closed_form).abs().max()) < 1e-14 * buffer.abs().max() * 10,
    n=len(inputs),
)

# %% [markdown]
# ## 5 · How many gradients does it remember?
#
# By (03.4) nothing is ever lost completely; it fades. The **share** $w_k$ of a gradient of age $k$ is its weight in $m$,
# divided by the sum of the weights of all ages, $1 + \beta + \beta^2 + \dots = 1 / (1 - \beta)$. The newest gradient has the
# age 0.
#
# ### Exercise 3 · `weights_of_the_past`
#
# *5 minutes · easy · objective: compute the weight of every past gradient.*
#
# Return a list with the shares of the last `n` gradients, the newest first.

# %% tags=["exercise"]
def weights_of_the_past(beta, n):
    """Return a list of n numbers: the shares of the gradients of age 0, 1, ..., n - 1."""
    ...


# %% tags=["check"]
course.check.weights_of_the_past(weights_of_the_past)

# %%
course.hint.weights_of_the_past(1)  # then 2 and 3, if you need them

# %% [markdown]
# <details><summary>Solution and why</summary>
#
# ```python
# def weights_of_the_past(beta, n):
#     return [(1 - beta) * beta**k for k in range(n)]
# ```
#
# A gradient of age $k$ has been multiplied by $\beta$ just $k$ times. Divided by the sum of all weights that is
#
# $$
# w_k = (1 - \beta)\, \beta^k, \qquad k = 0, 1, 2, \dots \tag{03.5}
# $$
#
# The newest gradient holds a tenth of the memory at $\beta = 0.9$. The $n$ shares do not add up to 1, because older
# gradients hold the rest.
#
# </details>

# %% [markdown]
# The last $n$ gradients, ages 0 to $n - 1$, together hold the share
#
# $$
# S_n = \sum_{k=0}^{n-1} w_k = 1 - \beta^n \tag{03.6}
# $$
#
# **Predict.** A usual choice is $\beta = 0.9$. How many gradients hold 99 % of the memory: 10, 44, 100 or 460?
#
# ### Exercise 4 · `horizon`
#
# *8 minutes · medium · objective: compute how far back a memory reaches.*
#
# Return the smallest whole number $n$ for which the last $n$ gradients hold at least `share`: $1 - \beta^n \geq$ `share`.

# %% tags=["exercise"]
def horizon(beta, share):
    """Return the smallest n with 1 - beta**n >= share, where 0 < beta < 1 and 0 < share < 1."""
    ...


# %% tags=["check"]
course.check.horizon(horizon)

# %%
course.hint.horizon(1)  # then 2 and 3, if you need them

# %% [markdown]
# <details><summary>Solution and why</summary>
#
# ```python
# def horizon(beta, share):
#     return math.ceil(math.log(1 - share) / math.log(beta))
# ```
#
# Solve $\beta^n = 1 - S$ for $n$; gradients come one at a time, so round up:
#
# $$
# n = \left\lceil \frac{\ln (1 - S)}{\ln \beta} \right\rceil \tag{03.7}
# $$
#
# Counting up in a loop is right too. Beware of the last bit: `math.log(0.81) / math.log(0.9)` is a little more than 2 in
# floating point, so for $S = 0.19$ this function says 3. The one of nlcore, below, allows for that.
#
# </details>

# %% [markdown]
# These are the three functions of `nlcore` for it. From here on, `horizon` is this one.

# %%
from nlcore.horizon import horizon, past_weights, share_of_last

course.show(past_weights, share_of_last, horizon)

# %%
print("beta    50 % in   99 % in   1 / (1 - beta)")
for beta in [0.5, 0.9, 0.99, 0.999]:
    print(f"{beta:<5} {horizon(beta, 0.5):9} {horizon(beta, 0.99):9} {1 / (1 - beta):12.0f}")

# %% tags=["claim"]
course.claim(
    "99 % of the memory is in the last {a} gradients at beta 0.9, {b} at 0.99 and {c} at 0.999, "
    "which is about 4.6 / (1 - beta) each time",
    all(abs(horizon(beta, 0.99) * (1 - beta) / 4.6 - 1) < 0.05 for beta in (0.9, 0.99, 0.999)),
    a=horizon(0.9, 0.99),
    b=horizon(0.99, 0.99),
    c=horizon(0.999, 0.99),
)

# %% [markdown]
# **What the paper prints.** Its section 4.3 says that for $\beta = 0.9$ the last **6** gradients hold at least 50 %, and the
# last **43** at least 99 %. We find 7 and 44. Both are right about the same sum: the paper's index runs from $i = 0$ *up to
# and including* $i = 6$ (or 43), and that is one gradient more.

# %% tags=["claim"]
course.claim(
    "up to index 6 there are 7 gradients with {a:.4f} of the memory, up to index 43 there are 44 with {b:.4f}; "
    "6 and 43 gradients hold only {c:.4f} and {d:.4f}",
    share_of_last(0.9, 6) < 0.5 <= share_of_last(0.9, 7)
    and share_of_last(0.9, 43) < 0.99 <= past_weights(0.9, 44).sum() < 0.991,
    a=share_of_last(0.9, 7),
    b=past_weights(0.9, 44).sum(),
    c=share_of_last(0.9, 6),
    d=share_of_last(0.9, 43),
)

# %% [markdown]
# Now set it yourself. On the left each gradient by its age, the newest at 0; the filled part is what you count. On the
# right the share that the last $n$ hold together. The next cell draws the empty picture, the one after it says what a
# slider changes.

# %%
fig, (left, right) = course.canvas(6.4, 2.7, cols=2)
blue, red = course.style.COLOURS["blue"], course.style.COLOURS["vermillion"]
(fading,) = left.plot([], [], color=blue)
counted = left.fill([0, 0, 0], [0, 0, 0], color="#CFE6F5", zorder=0)[0]
left.set(title="weight, newest = 1", xlabel="age k of the gradient", xlim=(0, 100), ylim=(0, 1.05))
(growing,) = right.plot([], [], color=blue)
(chosen,) = right.plot([], [], color=red, marker="o", markersize=8, linestyle="none")
right.axhline(0.99, color="#999999", linewidth=1, linestyle="--")
right.set(title="share of the last n gradients", xlabel="n", xscale="log", xlim=(1, 1e4), ylim=(0, 1.05))
right.set_yticks([0, 0.5, 0.99], ["0", "50 %", "99 %"])
said = right.text(0.97, 0.07, "", transform=right.transAxes, ha="right", color=red, fontweight="bold")

# %%
def count(beta, n):
    ages = np.arange(0, 101)
    fading.set_data(ages, beta**ages)
    inside = np.linspace(0, min(n, 100), 101)
    counted.set_xy(np.c_[np.r_[inside, inside[-1], 0], np.r_[beta**inside, 0, 0]])
    many = np.geomspace(1, 1e4, 200)
    growing.set_data(many, 1 - beta**many)
    held = share_of_last(beta, n)
    chosen.set_data([n], [held])
    said.set_text(f"{100 * held:.2f} %")
    enough = "at least 99 %" if held >= 0.99 else "less than 99 %"
    return f"With β = {beta} the last {n} gradients hold {100 * held:.2f} % of the memory: {enough}."


# %% tags=["widget"]
course.explore(
    fig,
    count,
    [
        course.Slider("beta", "memory β", [0.5, 0.9, 0.99, 0.999], start=0.9),
        course.Slider("n", "count the last n", [1, 7, 43, 44, 69, 459, 693, 4603], start=7),
    ],
    name="weight-of-past-gradients",
    title="How much do the last n gradients weigh?",
    goal="For each β, find the smallest n on the slider that holds 99 % of the memory.",
    presets={
        "half, β = 0.9": {"beta": 0.9, "n": 7},
        "the paper's 43": {"beta": 0.9, "n": 43},
        "one more": {"beta": 0.9, "n": 44},
        "long memory": {"beta": 0.999, "n": 44},
    },
)

# %% [markdown]
# A run of training has thousands of steps or more. A memory of 44 gradients sees its last moment only.
#
# ## 6 · What is left of an old task?
#
# The paper's example (its section 4.3): tasks that come one after the other. Task $i$ has the loss
#
# $$
# \mathcal{L}_i(W) = \mathbb{E}_{(x, y) \sim \mathcal{D}_i} \bigl( W^\top x - y \bigr)^2 \tag{NL 45}
# $$
#
# where $\mathbb{E}$ is the mean over the data $\mathcal{D}_i$ of the task, $W$ is a vector of weights, $x$ an input of the
# same size and $y$ its target number. Let all inputs of task $i$ point along one direction $u_i$ of length 1. Then so do all
# its gradients, $2\, \mathbb{E} (W^\top x - y)\, x$. Our two directions are at right angles in 20 dimensions. 100 steps of
# task 1, then 100 of task 2, with two memories: momentum ($\beta = 0.9$), and a slower one ($\beta = 0.99$) that only reads.
#
# **Predict.** 20 steps into task 2, does momentum still point along task 1? Does the slower memory?

# %%
generator = torch.Generator().manual_seed(0)
u1, u2 = torch.linalg.qr(torch.randn(20, 2, generator=generator, dtype=torch.float64))[0].T
W = torch.zeros(20, dtype=torch.float64, requires_grad=True)
optimizer = Momentum([W], lr=0.0005, beta=0.9)
slow = torch.zeros(20, dtype=torch.float64)
history = {"momentum": [], "slow": [], "weights": []}
for step in range(200):
    scale = torch.randn(16, 1, generator=generator, dtype=torch.float64)
    x, y = scale * (u1 if step < 100 else u2), 3 * scale[:, 0]
    loss = (x @ W - y).square().mean()
    (W.grad,) = torch.autograd.grad(loss, W)
    optimizer.step()
    slow = hebbian(slow, None, W.grad, retain=0.99)
    history["momentum"].append(optimizer.state[W]["m"].clone())
    history["slow"].append(slow)
    history["weights"].append(W.detach().clone())
history = {name: torch.stack(states) for name, states in history.items()}

# %% tags=["figure"]
cosine = {name: torch.cosine_similarity(states, u1.expand(200, 20)).abs() for name, states in history.items()}
fig, ax = course.canvas(6.4, 2.9)
blue, red = course.style.COLOURS["blue"], course.style.COLOURS["vermillion"]
ax.plot(range(1, 201), cosine["momentum"], color=blue)
ax.plot(range(1, 201), cosine["slow"], color=red, linestyle="--")
ax.axvline(100.5, color="#999999", linewidth=1)
ax.text(50, 0.5, "task 1", ha="center")
ax.text(175, 0.95, "task 2", ha="center")
ax.text(117, 0.10, "momentum, β = 0.9", color=blue)
ax.text(138, 0.72, "slower memory, β = 0.99", color=red)
ax.set(title="Momentum soon points away from the old task", ylim=(-0.03, 1.06))
ax.set(xlabel="step", ylabel="|cosine| with task 1")
alt = "During task 1 both memories point along it. 20 steps into task 2 the cosine of momentum with task 1 is "
alt += f"{cosine['momentum'][119]:.2f}, that of the slower memory {cosine['slow'][119]:.2f}; after 100 steps "
alt += f"{cosine['momentum'][199]:.2f} and {cosine['slow'][199]:.2f}."
course.figure(fig, "old-task-fades", alt=alt)

# %% [markdown]
# No gradient of task 2 has a part along $u_1$. So that part of the memory is never written again, it only fades:
#
# $$
# \langle m_{T+s}, u_1 \rangle = \beta^s\, \langle m_T, u_1 \rangle \tag{03.8}
# $$
#
# where $T$ is the last step of task 1 and $s$ counts the steps of task 2.

# %% tags=["claim"]
along = {name: (states @ u1)[199] / (states @ u1)[99] for name, states in history.items()}
law = torch.tensor([0.9**100, 0.99**100], dtype=torch.float64)
course.claim(
    "after 100 steps of task 2 momentum keeps {a:.0e} of its part along task 1 and the slower memory {b:.2f}: "
    "exactly beta to the power 100",
    torch.allclose(torch.stack([along["momentum"], along["slow"]]), law, rtol=1e-8),
    a=along["momentum"],
    b=along["slow"],
)

# %% tags=["claim"]
course.claim(
    "20 steps into task 2 the cosine with task 1 is {a:.2f} for momentum and {b:.2f} for the slower memory, "
    "while the weights keep what they learned: {c:.0%} of their part along task 1 is there at the end",
    cosine["momentum"][119] < 0.12 and cosine["slow"][119] > 0.75 and 0.95 < along["weights"] < 1.15,
    a=cosine["momentum"][119],
    b=cosine["slow"][119],
    c=along["weights"],
)

# %% [markdown]
# * The memory has room for 20 directions and uses one at a time. The paper calls this a failure of **memory management**,
#   not of capacity.
# * The *weights* lost nothing: these tasks do not disturb each other. What is lost is the optimizer's knowledge of *which
#   direction mattered*.
# * The slower memory follows the same rule. It forgets later, and it turns to the new task later. Slow alone is not better;
#   notebook 05 combines fast and slow and measures whether that helps.
#
# ## 7 · What does momentum hold in real training?
#
# How much does $m$ look like the plain mean of the last $k$ gradients? We train a small network on digits and keep them all.
#
# **Predict.** With $\beta = 0.9$, for which $k$ is the mean most like $m$: about 1, 10 or 44?

# %%
from nlcore.training import fit


def gradients_and_momentum(beta, lr, steps=600):
    """Train on digits; return every gradient and every state of the momentum, each (steps, weights)."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10)).double().to(device)
    optimizer = Momentum(model.parameters(), lr=lr, beta=beta)
    rows = []

    def note(step):
        grads = [p.grad.flatten() for p in model.parameters()]
        buffers = [optimizer.state[p]["m"].flatten() for p in model.parameters()]
        rows.append((torch.cat(grads), torch.cat(buffers)))

    generator = torch.Generator().manual_seed(0)
    fit(model, optimizer, data.x_train, data.y_train, steps=steps, generator=generator, on_step=note)
    return tuple(torch.stack(part) for part in zip(*rows, strict=True))


# %%
def likeness(gradients, momenta, longest=100, skip=200):
    """Return for k = 1 ... longest the mean cosine of m with the mean of the last k gradients, after `skip` steps."""
    sums = torch.cat([torch.zeros_like(gradients[:1]), gradients.cumsum(0)])
    ends = torch.arange(skip + 1, len(sums))
    lasts = (sums[ends] - sums[ends - k] for k in range(1, longest + 1))  # the direction of the mean: scale plays no role
    return torch.stack([torch.cosine_similarity(last, momenta[ends - 1]).mean() for last in lasts]).cpu()


like = likeness(*gradients_and_momentum(beta=0.9, lr=0.01))
like_slow = likeness(*gradients_and_momentum(beta=0.99, lr=0.001))
k = torch.arange(1, 101, dtype=torch.float64)
pure_noise = (1 - 0.9**k) / (1 - 0.9) / (k / (1 - 0.9**2)).sqrt()  # expected cosine if gradients shared nothing
best_k, best_noise = int(like.argmax()) + 1, int(pure_noise.argmax()) + 1

# %% tags=["figure"]
fig, ax = course.canvas(6.4, 2.9)
ax.plot(k, pure_noise, color="#767676", linestyle=":")
ax.plot(k, like_slow, color=red, linestyle="--")
ax.plot(k, like, color=blue)
ax.plot(best_k, like.max(), "o", color=blue, markersize=7)
ax.text(best_k + 1, like.max() + 0.03, f"β = 0.9: most like the mean of the last {best_k}", color=blue)
ax.text(82, 0.97, "β = 0.99", color=red)
ax.text(24, 0.38, "β = 0.9, if gradients shared nothing", color="#595959")
ax.set(title="Momentum is much like the mean of its last few gradients")
ax.set(xlabel="k, number of gradients in the mean", ylabel="cosine with m", ylim=(0, 1.08))
alt = f"With beta 0.9 the momentum is most like the mean of the last {best_k} gradients (cosine {like.max():.2f}); with "
alt += f"the mean of the last 100 it is {like[99]:.2f}, where pure noise would give {pure_noise[99]:.2f}. "
alt += f"With beta 0.99 the cosine rises all the way, from {like_slow[9]:.2f} at 10 to {like_slow[99]:.2f} at 100."
course.figure(fig, "momentum-as-a-mean", alt=alt)

# %% tags=["claim"]
course.claim(
    "at beta 0.9 momentum looks most like the mean of the last {k} gradients (cosine {top:.2f}; for pure noise the best "
    "would be {noise}); at beta 0.99 a mean of 100 is more like it than a mean of 10",
    abs(best_k - best_noise) <= 4 and like.max() > 0.85 and like_slow[99] > like_slow[9] + 0.1,
    k=best_k,
    top=like.max(),
    noise=best_noise,
)

# %% [markdown]
# Two things are mixed in a gradient. The noise of its batch is gone from the next gradient; momentum averages it away over a
# few batches. The direction that all gradients share stays: that is why even the mean of the last 100 is more like $m$ than
# pure noise would allow. Both together are what $m$ holds. It is not a record of the training.
#
# ## 8 · What is a memory of gradients good for?
#
# Picture a ravine: steep across, nearly flat along the floor. Its **condition number** $\kappa$ (kappa) is the steep
# curvature divided by the flat one. Steps that are safe across are tiny along the floor. A memory adds up the small
# gradients along the floor and cancels those across, because they change sign.
#
# To answer a slider fast, `nlcore.tasks.surfaces` walks with plain floats; a test holds each rule against
# `nlcore.optimizers`, step for step.

# %%
from nlcore.tasks.surfaces import adam, descend, leaves_box, momentum, normalised, ravine, settles_at, sgd

course.show(sgd, momentum, adam, normalised, descend)

# %% [markdown]
# We say that a path **settles** at the step from which it stays closer than 0.1 to the lowest point.

# %%
course.show(ravine, settles_at, leaves_box)

# %% [markdown]
# For each optimizer we
# try 51 learning rates, and for momentum five $\beta$ as well, and keep the best.
#
# **Predict.** $\kappa$ grows from 50 to 200. How many times as many steps does SGD need? And momentum?

# %%
RATES = [10 ** (k / 10 - 4) for k in range(51)]  # 0.0001 to 10
BETAS = [0.5, 0.7, 0.8, 0.9, 0.95]


def fewest_steps(surface, rules):
    """Return the fewest steps after which one of the rules settles."""
    found = (settles_at(descend(surface, rule, 600), surface.lowest, 0.1) for rule in rules)
    return min((steps for steps in found if steps is not None), default=None)


tried = {
    "SGD": [sgd(lr) for lr in RATES],
    "momentum": [momentum(lr, beta) for lr in RATES for beta in BETAS],
    "Adam": [adam(lr) for lr in RATES],
    "normalised": [normalised(lr) for lr in RATES],
}
best = {(name, kappa): fewest_steps(ravine(kappa), rules) for name, rules in tried.items() for kappa in [10, 50, 200]}
print("condition number   10    50   200")
for name in tried:
    print(f"{name:14}", *(f"{best[name, kappa]:5}" for kappa in [10, 50, 200]))

# %% tags=["claim"]
course.claim(
    "for a condition number 4 times as large SGD needs {a:.1f} times as many steps, momentum {b:.1f} times",
    3 < best["SGD", 200] / best["SGD", 50] < 5 and 1.5 < best["momentum", 200] / best["momentum", 50] < 2.6,
    a=best["SGD", 200] / best["SGD", 50],
    b=best["momentum", 200] / best["momentum", 50],
)

# %% [markdown]
# SGD pays for $\kappa$, momentum for its square root. (Momentum had two numbers to tune, the others one; Adam and normalised
# momentum are notebooks 04 and 05.)
#
# Memory has a price too: ringing. When $(1 + \beta - \eta \lambda)^2 \lt 4 \beta$, where $\lambda$ is the curvature in one direction,
# the path swings there, and the swing shrinks at each step by
#
# $$
# \left\lvert \rho \begin{pmatrix} 1 - \eta \lambda & - \eta \beta \\ \lambda & \beta \end{pmatrix} \right\rvert = \sqrt{\beta} \tag{03.9}
# $$
#
# where the matrix takes $(W, m)$ to their next values and $\rho$ is an eigenvalue of it. No learning rate appears: **the
# ringing lasts as long as the memory.**
#
# **Predict.** Momentum starts 2.5 away from the lowest point and has to come closer than 0.1. After how many steps, at
# $\beta = 0.9$? And does $\kappa$ matter?

# %%
ringing = {}
for beta in [0.8, 0.9, 0.95]:
    paths = [descend(ravine(condition), momentum(1 / condition, beta), 300) for condition in [10, 50, 200]]
    ringing[beta] = [settles_at(path, (0.0, 0.0), 0.1) for path in paths]
    expected = math.log(2.5 / 0.1) / -math.log(math.sqrt(beta))
    print(f"beta {beta:<4}  settles at {ringing[beta]}   by (03.9) about {expected:.0f}")

# %% tags=["claim"]
course.claim(
    "at beta 0.9 momentum settles at step {a}, {b} and {c} for the three condition numbers: the floor does not matter",
    max(ringing[0.9]) - min(ringing[0.9]) <= 5 and abs(ringing[0.9][1] - 61) <= 6 and abs(ringing[0.95][1] - 125) <= 8,
    a=ringing[0.9][0],
    b=ringing[0.9][1],
    c=ringing[0.9][2],
)

# %% [markdown]
# At $\beta = 0.8$ and $\kappa = 200$ the floor is so flat that nothing rings there any more; the path crawls instead. Too
# much memory rings, too little crawls.
#
# Now four optimizers at once, with $\kappa = 50$. One slider multiplies four base learning rates: $1 / \kappa = 0.02$ for SGD
# and momentum, 0.1 for Adam, 0.05 for normalised momentum. The other sets $\beta$ for all but SGD (for Adam it is $\beta_1$).
# *Normalised momentum* steps by $\eta\, m / \Vert m \Vert$. Muon, which you meet in notebook 05, does only this to a vector;
# what it does to a matrix cannot be seen in two dimensions.

# %%
from matplotlib.patches import Ellipse

KAPPA, NAMES = 50, ["SGD", "momentum", "Adam", "normalised momentum"]
surface = ravine(KAPPA)
fig, (ground, bars) = course.canvas(6.4, 2.8, cols=2, gridspec_kw={"width_ratios": [1.25, 1]})
for along in range(1, 6):  # lines of equal height, sqrt(kappa) times as long as wide
    shape = Ellipse((0, 0), 2 * along, 2 * along / math.sqrt(KAPPA), angle=math.degrees(0.5))
    ground.add_patch(shape).set(fill=False, edgecolor="#B8B8B8", linewidth=0.8)
ground.plot(*surface.start, "o", color="black", markersize=5)
ground.plot(*surface.lowest, "*", color="black", markersize=9, zorder=5)
ground.set(xlim=surface.box[:2], ylim=surface.box[2:], aspect="equal")
ground.set(title="first 80 steps, from above", xticks=[], yticks=[])
ground.grid(False)
styles = course.style.STYLES[:4]
tracks = [ground.plot([], [], color=s["color"], linestyle=s["linestyle"], linewidth=1.3)[0] for s in styles]
lengths = bars.barh(range(4), [0] * 4, color=[s["color"] for s in styles], height=0.3)
results = [bars.text(0, row - 0.32, "", va="center", fontsize=9) for row in range(4)]
bars.set(xlabel="step at which it settles", xlim=(0, 300), yticks=[], ylim=(3.6, -0.6))
bars.grid(False)

# %% [markdown]
# The same four walks for every position of the sliders: how each path ends, and how to draw it.

# %%
def outcome(path):
    """Return words for how a path ended, the step at which it settled (or 0), and the part of it to draw."""
    settled = settles_at(path, surface.lowest, 0.1)
    if settled is not None:
        return f"settles at step {settled}", settled, path[:81]
    if leaves_box(path[-1:], surface.box) is None:
        return "does not settle in 300 steps", 0, path[:81]
    left_at = leaves_box(path, surface.box)
    return f"leaves the picture at step {left_at}", 0, path[: left_at + 10]


def race(rate, beta):
    shared = rate / KAPPA
    rules = [sgd(shared), momentum(shared, beta), adam(0.1 * rate, beta), normalised(0.05 * rate, beta)]
    said = []
    for rule, name, track, length, result in zip(rules, NAMES, tracks, lengths, results, strict=True):
        words, settled, shown = outcome(descend(surface, rule, 300))
        track.set_data(*zip(*shown, strict=True))
        length.set_width(settled)
        said.append(f"{name} {words}")
        short = words.removeprefix("settles at ").replace("does not settle", "not")
        result.set_text(f"{name}: {short}")
    return f"Learning rates times {rate}, β = {beta}: {'; '.join(said)}."


# %% tags=["widget"]
course.explore(
    fig,
    race,
    [
        course.Slider("rate", "learning rates ×", [0.5, 1, 1.9, 2.1], start=1),
        course.Slider("beta", "memory β", [0, 0.5, 0.8, 0.9, 0.99], start=0.9),
    ],
    name="ravine-playground",
    title="Four optimizers in a ravine",
    goal="Make momentum settle at the star in under 40 steps. Then make SGD leave the picture.",
    presets={
        "usual": {"rate": 1, "beta": 0.9},
        "no memory": {"rate": 1, "beta": 0},
        "rings": {"rate": 1, "beta": 0.99},
        "SGD zigzags": {"rate": 1.9, "beta": 0.8},
        "SGD diverges": {"rate": 2.1, "beta": 0.8},
    },
)

# %% tags=["claim"]
paths = {beta: descend(surface, momentum(1 / KAPPA, beta), 300) for beta in [0, 0.8, 0.9, 0.99]}
by_beta = {beta: settles_at(path, surface.lowest, 0.1) for beta, path in paths.items()}
last_step = math.dist(*descend(surface, normalised(0.05, 0.9), 300)[-2:])
course.claim(
    "at condition number 50 momentum settles at step {none} without memory, {best} at beta 0.8, {usual} at 0.9, and not in "
    "300 steps at 0.99; normalised momentum never rests: its last step is {length:.2f} long",
    by_beta[0.8] < 40 < by_beta[0.9] < by_beta[0] and by_beta[0.99] is None and math.isclose(last_step, 0.05),
    none=by_beta[0],
    best=by_beta[0.8],
    usual=by_beta[0.9],
    length=last_step,
)

# %% [markdown]
# **If you finished early.** Find a setting in which SGD settles and momentum does not. What is the memory doing there?
#
# ## What you did
#
# * You wrote one step of momentum (exercise 1): two memories, two writes of the same function, and converted its learning
#   rate (exercise 2).
# * You saw that $m$ answers a question of its own at each step, and that it is the faster of two levels.
# * You computed the weight of every past gradient and exact horizons (exercises 3 and 4): 7, 44, 459, 4603.
# * You watched an old task leave the memory by $\beta^s$, while a slower memory kept it.
# * You saw in a ravine that too little memory crawls and too much rings.
#
# ## What this does not show
#
# The two tasks of section 6 are the paper's own extreme case: exactly orthogonal gradients, one direction each. It shows
# what momentum forgets. It does not show that remembering would have helped, and here the weights lost nothing. The ravine
# has two dimensions and no noise; notebook 04 trains on digits with every optimizer tuned. That $m$ is a memory is an exact
# identity. That better memories make better optimizers is a claim, which notebook 05 tests.
#
# ## Recall
#
# <details><summary>1. Which question does the memory m answer at each step?</summary>
#
# Which matrix is most like the new gradient and still near the old memory? (NL 13)
#
# </details>
#
# <details><summary>2. How many gradients hold 99 % of the memory at β = 0.9, and why does the paper say 43?</summary>
#
# 44. The paper counts with an index that starts at 0 and includes 43.
#
# </details>
#
# <details><summary>3. You raise β from 0.9 to 0.99 in torch's momentum and keep the learning rate. Name two things that change.</summary>
#
# The memory reaches ten times as far back (459 gradients instead of 44 for 99 %), and steps along a steady direction become
# ten times as long, because $m$ grows to $1 / (1 - \beta)$ gradients. Swings also last ten times as long.
#
# </details>
#
# ## Further reading
#
# * Behrouz, Razaviyayn, Zhong, Mirrokni, *Nested Learning: The Illusion of Deep Learning Architectures*, arXiv 2512.24695,
#   sections 3.1, 4.2 and 4.3: momentum as two nested problems, and how little it remembers (25 minutes).
# * Polyak, *Some methods of speeding up the convergence of iteration methods*, USSR Computational Mathematics and
#   Mathematical Physics, 1964: where momentum comes from, with the square root of the condition number (40 minutes).
# * Sutskever, Martens, Dahl, Hinton, *On the importance of initialization and momentum in deep learning*, ICML 2013: why
#   momentum matters for deep networks, and how to choose it (30 minutes).
