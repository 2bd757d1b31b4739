# %% [markdown]
# # 02 · Gradient descent is a memory
#
# *What you will do.* Take one step of gradient descent apart, find a key, a value and a memory in it, and read back
# what a trained network has stored.
#
# **Afterwards you can**
#
# - compute how surprised a network is by an image: its local surprise signal
# - write one step of gradient descent as one write into a memory
# - say which small question every step answers exactly
# - find the training images that an answer comes from
# - compute the surprise of a hidden layer
#
# **You need** notebook 01 (what a memory with keys and values is), and what a gradient is.
#
# **Time** 60 minutes · runs in about 25 s on a CPU
#
# {{badge}}

# %% tags=["setup"]
# {{setup}}

# %% [markdown]
# ## 1 · How surprised is a network?
#
# We begin with one linear layer and one real image. The image is a vector $x$ of 64 pixels. The layer is a matrix
# $W$ with ten rows, one for each digit. Its answer is $y = Wx$: ten numbers, called logits. A softmax turns them
# into probabilities. In the words of notebook 01: $x$ is a key, $W$ is a memory, $y$ is what the memory answers.
#
# **Predict.** The memory is empty: all weights are 0. It sees its first digit. Which probability does it give to
# each class? For which class does the loss ask for the largest change?

# %%
import math

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from nlcore.tasks import digits

data = digits(device, torch.float64)
x, label = data.x_train[0], data.y_train[0]
W = torch.zeros(10, 64, dtype=torch.float64, device=device)

y = (W @ x).requires_grad_()
(u,) = torch.autograd.grad(cross_entropy(y, label), y)
print("the digit is a", label.item())
print("gradient of the loss at the answer:", [round(entry, 2) for entry in u.tolist()])

# %% [markdown]
# The paper calls this gradient the **local surprise signal** $u$. With the cross-entropy loss $\mathcal L$ it is
# simple:
#
# $$
# u = \nabla_y \mathcal L = \mathrm{softmax}(y) - e \tag{02.1}
# $$
#
# Here $e$ has a 1 at the right class and 0 elsewhere. So the surprise is *what the network said, less what it
# should have said*. It has one entry for each class. A negative entry means: this answer should have been larger.
#
# ### Exercise 1 · `surprise`
#
# *5 minutes · easy · objective: compute how surprised a network is.*
#
# Write equation (02.1): `logits` is $y$, a tensor with one number for each class; `label` is the number of the
# right class. Return $u$.

# %% tags=["exercise"]
def surprise(logits, label):
    """Return the local surprise signal: softmax(logits) less 1 at the right class."""
    ...


# %% tags=["check"]
course.check.surprise(surprise)

# %%
course.hint.surprise(1)  # then 2 and 3, if you need them

# %% [markdown]
# <details><summary>Solution and why</summary>
#
# ```python
# def surprise(logits, label):
#     u = torch.softmax(logits, 0)
#     u[label] = u[label] - 1
#     return u
# ```
#
# The loss is $-\log p_c$ for the right class $c$. Its derivative with respect to the logit of class $j$ is $p_j$,
# less 1 if $j = c$. The entries add up to 0: what the right class should gain, the others should lose.
#
# </details>
#
# The library has the same function, for whole batches. This is its source.

# %%
from nlcore.surprise import local_surprise

course.show(local_surprise)

# %% tags=["figure"]
def show_image(ax, pixels, title):
    ax.imshow(pixels.reshape(data.side, data.side).cpu().numpy(), cmap="Greys", vmin=0, vmax=1)
    ax.set_title(title, fontsize=9, loc="center", fontweight="normal")
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set(visible=True, color="#BBBBBB")


def headline(fig, words):
    fig.suptitle(words, x=0.01, ha="left", fontweight="bold", fontsize=11)


u = local_surprise(W @ x, label)
fig, (left, right) = course.canvas(6.4, 2.4, cols=2, gridspec_kw={"width_ratios": [1, 2.6]})
show_image(left, x, f"the key: a {label.item()}")
names = ["vermillion" if entry < 0 else "sky" for entry in u.tolist()]
right.bar(range(10), u.tolist(), color=[course.style.COLOURS[name] for name in names])
right.axhline(0, color="black", linewidth=0.8)
right.set(xlabel="class", ylabel="surprise u", xticks=range(10))
headline(fig, "An empty memory is surprised most by the right class")
alt = f"Surprise of an empty memory that sees a {label.item()}: {u[label]:.2f} for this class, "
course.figure(fig, "surprise-of-an-empty-memory", alt=alt + f"{u.max():.2f} for each of the nine others.")

# %% [markdown]
# The **length** $\lVert u \rVert$ says in one number how surprised the network is. It goes to 0 when the network is
# right and sure, and to $\sqrt 2$ when it is wrong and sure.

# %% tags=["claim"]
generator = torch.Generator().manual_seed(0)
logits = (5 * torch.randn(1000, 10, dtype=torch.float64, generator=generator)).to(device).requires_grad_()
cross_entropy(logits, data.y_train[:1000], reduction="sum").backward()
found = local_surprise(logits.detach(), data.y_train[:1000])
course.claim(
    "surprise is the gradient that autograd finds, to 1e-14; for 1,000 random answers its length never "
    "passes the square root of 2 (the largest was {longest:.2f}); for the empty memory it is {empty:.2f}",
    (found - logits.grad).abs().max() < 1e-14 and found.norm(dim=1).max() <= 2**0.5,
    longest=found.norm(dim=1).max(),
    empty=u.norm(),
)

# %% [markdown]
# ## 2 · What does one step write?
#
# Now let the network learn from its surprise. We start with the smallest case of notebook 01, one number: the key
# 2, the right answer 6, and a weight $w = 1$, which answers $2w$. The loss is half the squared error, so the
# surprise is the error itself: answer less target.
#
# **Predict.** One step of gradient descent with the step size $\eta = 0.25$: what is the new weight, and what is
# the answer afterwards?

# %%
from nlcore.optimizers import SGD

w = torch.tensor([1.0], dtype=torch.float64, requires_grad=True)
optimizer = SGD([w], lr=0.25)
error = 2.0 * w - 6.0
(0.5 * error**2).sum().backward()
optimizer.step()
print("surprise", error.item(), "| gradient", w.grad.item())
print("new weight", w.item(), "| new answer", 2.0 * w.item())

# %% [markdown]
# The gradient is $-8$: the surprise $-4$ times the input 2. Then the usual rule was applied:
#
# $$
# W_{t+1} = W_t - \eta_t \nabla_{W} \mathcal L(W_t; x_t) \tag{NL 1}
# $$
#
# (A tag NL is the number of the equation in the paper.) In a linear layer each weight meets one surprise and one
# pixel, so the gradient is made of products:
#
# $$
# \nabla_W \mathcal L = u\, x^\top \tag{02.2}
# $$
#
# Row $i$, column $j$ of this matrix is $u_i x_j$. Put the two together and gradient descent is a write into a
# memory:
#
# $$
# W_{t+1} = W_t - \eta_{t+1} \nabla_{y} \mathcal L(W_t; x_{t+1}) \otimes x_{t+1}
# {} = W_t + \eta_{t+1}\, (-u_{t+1})\, x_{t+1}^\top \tag{NL 8}
# $$
#
# The sign $\otimes$ is the outer product. (Here the paper calls the new image $x_{t+1}$; nothing else has changed.)
# So the **key** is the input, the **value** is $-u$, the surprise turned round, and the memory is $W$.

# %%
from nlcore.memory import hebbian

course.show(hebbian, SGD.update)

# %% [markdown]
# The optimizer's whole update is one call of the same `hebbian` that writes fast weights (notebook 01), with the
# gradient as its value. (`with_l2` adds weight decay; it is 0 here.) Now we take one step in two ways: with
# autograd and the optimizer, and as one write by hand.
#
# **Predict.** How large will the difference be?

# %%
before = (0.1 * torch.randn(10, 64, dtype=torch.float64, generator=generator)).to(device)

weights = before.clone().requires_grad_()
optimizer = SGD([weights], lr=0.1)
cross_entropy(weights @ x, label).backward()
optimizer.step()

u = local_surprise(before @ x, label)
written = hebbian(before, x, -u, lr=0.1)
print("shapes: key", tuple(x.shape), "value", tuple(u.shape), "memory", tuple(written.shape))

# %% tags=["claim"]
course.claim(
    "the gradient of autograd is surprise times input, one step of gradient descent is one write, and our "
    "optimizer does the same, all to 1e-15; the memory moved by {moved:.2f}",
    (weights.grad - torch.outer(u, x)).abs().max() < 1e-15
    and (before - 0.1 * weights.grad - written).abs().max() < 1e-15
    and (weights.detach() - written).abs().max() < 1e-15,
    moved=(written - before).norm(),
)

# %% [markdown]
# ### Exercise 2 · `gd_step_as_write`
#
# *5 minutes · easy · objective: write one step of gradient descent as one write into a memory.*
#
# Write (NL 8) without autograd: `W` is the memory, `x` the input, `u` the surprise, `lr` the step size. Return the
# new memory.

# %% tags=["exercise"]
def gd_step_as_write(W, x, u, lr):
    """Return W after the value -u was written under the key x with strength lr."""
    ...


# %% tags=["check"]
course.check.gd_step_as_write(gd_step_as_write)

# %%
course.hint.gd_step_as_write(1)  # then 2 and 3, if you need them

# %% [markdown]
# <details><summary>Solution and why</summary>
#
# ```python
# def gd_step_as_write(W, x, u, lr):
#     return W - lr * torch.outer(u, x)
# ```
#
# `torch.outer(u, x)` has one row for each answer and one column for each input, like `W`. It is the gradient
# (02.2), so subtracting it `lr` times is gradient descent. No backward pass was needed: one layer knows its own
# surprise.
#
# </details>
#
# ### What does one write do to other memories?
#
# Ask the new memory with any key $k$. Multiply (NL 8) by $k$:
#
# $$
# W_{t+1}\, k = W_t\, k - \eta\, (x^\top k)\, u \tag{02.3}
# $$
#
# Every key that is *similar* to $x$ gets the correction too, whether it needs it or not. Only a key at a right
# angle to $x$ (with $x^\top k = 0$) keeps its answer. For the key $x$ itself the product is $\lVert x \rVert^2$.
#
# We build a memory that answers six images exactly, and then write one new image.

# %%
def angles_to(key):
    """Return the angle in degrees between `key` and each training image."""
    cosines = data.x_train @ key / (data.x_train.norm(dim=1) * key.norm())
    return torch.rad2deg(torch.acos(cosines.clamp(-1, 1)))


new_key, new_label = data.x_train[3], data.y_train[3]
angle = angles_to(new_key)
stored = []
for digit, wanted in ((8, 37), (0, 44), (4, 51), (2, 58), (1, 66), (9, 74)):
    rows = (data.y_train == digit).nonzero().flatten()
    stored.append(int(rows[(angle[rows] - wanted).abs().argmin()]))
degrees_of = {round(angle[place].item()): place for place in stored}
target = torch.eye(10, dtype=torch.float64, device=device)  # row c: 1 at class c, else 0
memory = (torch.linalg.pinv(data.x_train[stored]) @ target[data.y_train[stored]]).T
surprised = memory @ new_key - target[new_label]  # squared loss: the surprise is answer less target
print("stored", data.y_train[stored].tolist(), "at", list(degrees_of), "degrees from the new", new_label.item())

# %% tags=["claim"]
exact = hebbian(memory, new_key, -surprised, lr=1 / (new_key @ new_key).item())
gone = (target[data.y_train[stored]] - data.x_train[stored] @ exact.T).norm(dim=1)
widest = max(angles_to(key).max().item() for key in data.x_train)
course.claim(
    "with η = 1/|x|² one write makes the new answer exact, but it disturbs the six stored answers by "
    "{low:.2f} to {high:.2f}; no two of the 1,400 images are more than {widest:.0f} degrees apart, so every "
    "write disturbs every other key",
    (exact @ new_key - target[new_label]).abs().max() < 1e-12 and gone.min() > 0.05 and widest < 89,
    low=gone.min(),
    high=gone.max(),
    widest=widest,
)

# %% [markdown]
# Try it. The upper row is the new key: the value that is written, and the answer before and after. The lower row is
# one of the stored keys, at the angle that you choose. Black marks are answers before the write, blue bars answers
# after it; the orange ring is where the answer for the right class should be. First the empty picture:

# %%
fig, axes = course.canvas(7.6, 4.2, rows=2, cols=3, gridspec_kw={"width_ratios": [1, 1.7, 2]})
(key_ax, value_ax, new_ax), (stored_ax, angle_ax, old_ax) = axes
blue, orange, classes = course.style.COLOURS["blue"], course.style.COLOURS["orange"], range(10)
show_image(key_ax, new_key, f"new key x: {new_label.item()}")
show_image(stored_ax, new_key, "")
value_bars = value_ax.bar(classes, [0] * 10, color=course.style.COLOURS["vermillion"])
value_ax.set(title="written: −η |x|² u", ylim=(-1.5, 2.3))
panels = []
for ax, name in ((new_ax, "answer to the new key"), (old_ax, "answer to the stored key")):
    bars = ax.bar(classes, [0] * 10, color=blue)
    (start,) = ax.plot(classes, [0] * 10, "_", color="black", markersize=12, markeredgewidth=2)
    (right,) = ax.plot([0], [1], "o", color=orange, markersize=11, markerfacecolor="none", markeredgewidth=2.5)
    ax.set(title=name, ylim=(-1.2, 2.3))
    panels.append((bars, start, right))
for ax in (value_ax, new_ax, old_ax):
    ax.set(xticks=classes, xlabel="class")
    ax.axhline(0, color="black", linewidth=0.8)
angle_ax.set(xlim=(-0.05, 1.9), ylim=(-0.15, 1.2), aspect="equal", title="angle of the two keys")
angle_ax.axis("off")
angle_ax.plot([0, 1], [0, 0], color=blue, linewidth=3)
angle_ax.annotate("new key", (1.06, 0), va="center")
(arrow,) = angle_ax.plot([0, 1], [0, 0], color="black", linestyle="--", linewidth=3)
tip = angle_ax.text(0, 0, "", va="center")

# %% [markdown]
# Then what moves when a slider moves: one write, and both answers after it.

# %%
def redraw(strength, degrees):
    place = degrees_of[degrees]
    keys, trues = (new_key, data.x_train[place]), (new_label, data.y_train[place])
    after = hebbian(memory, new_key, -surprised, lr=strength / (new_key @ new_key).item())
    move(value_bars, -strength * surprised)
    for (bars, start, right), key, true in zip(panels, keys, trues, strict=True):
        move(bars, after @ key)
        start.set_ydata((memory @ key).tolist())
        right.set_xdata([true.item()])
    stored_ax.images[0].set_data(keys[1].reshape(8, 8).cpu().numpy())
    stored_ax.title.set_text(f"stored key: {trues[1].item()}")
    across, up = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    arrow.set_data([0, across], [0, up])
    tip.set(position=(across + 0.06, up), text=f"stored key, {degrees}°")
    new, old = (
        [f"{(M @ key - target[true]).norm():.2f} {when}" for M, when in ((memory, "before"), (after, "after"))]
        for key, true in zip(keys, trues, strict=True)
    )
    words = f"Strength {strength}. Surprise at the new {trues[0].item()}: {', '.join(new)}. "
    return words + f"Surprise at the stored {trues[1].item()}, {degrees} degrees away: {', '.join(old)}."


def move(bars, heights):
    for bar, height in zip(bars, heights.tolist(), strict=True):
        bar.set_height(height)


# %% [markdown]
# The strength is $\eta \lVert x \rVert^2$: by (02.3), at strength 1 the surprise $u$ is taken away as a whole.

# %% tags=["widget"]
course.explore(
    fig, redraw,
    [
        course.Slider("strength", "strength η |x|²", [0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0], 0.5),
        course.Slider("degrees", "angle to the stored key", list(degrees_of), 51, "{}°"),
    ],
    name="one-write", title="One write: key, value, surprise, before and after",
    goal="Make the new answer exact. Then find the stored key that loses least.",
    presets={"too small": {"strength": 0.1}, "just right": {"strength": 1.0}, "overshoot": {"strength": 2.0}},
)

# %% [markdown]
# ## 3 · Which question does a step answer?
#
# Where does the rule (NL 1) come from? Near $W_t$ the loss looks like a straight line, and we trust that line only
# near $W_t$. So ask for the weights that are lowest on *the line, plus a price for moving away*:
#
# $$
# W_{t+1} = \arg\min_W \; \langle \nabla \mathcal L(W_t; x_t), W \rangle
# {} + \frac{1}{2 \eta_t} \lVert W - W_t \rVert^2 \tag{NL 2}
# $$
#
# $\langle A, B \rangle$ is the sum of all products $A_{ij} B_{ij}$. The price is a parabola; it is flat when $\eta$
# is large. This is the proximal form of gradient descent.
#
# **Predict.** One weight $w_t = 0$ with the loss $\frac12 (w - 2)^2$. Where is the lowest point for $\eta = 0.5$?
# And for $\eta = 1.5$: does it hit the minimum of the loss?

# %% tags=["figure"]
grid = np.linspace(-1, 4.5, 1101)
line = 2 - 2 * grid  # the loss 1/2 (w - 2)^2 and its slope at w = 0
fig, ax = course.canvas(6.4, 3.2)
ax.plot(grid, (grid - 2) ** 2 / 2, color="black")
ax.plot(grid, line, color="#777777", linestyle="--", linewidth=1.5)
bottom = {}
for eta, style in zip((0.5, 1.5), course.style.STYLES, strict=False):
    question = line + grid**2 / (2 * eta)
    bottom[eta] = grid[question.argmin()]
    ax.plot(grid, question, color=style["color"], linestyle=style["linestyle"])
    ax.plot(bottom[eta], question.min(), style["marker"], color=style["color"], markersize=9)
    words = f"line + price, η = {eta}:\nlowest at {bottom[eta]:.2f}"
    ax.annotate(words, (3.1, 3.9) if eta < 1 else (2.35, -1.75), va="center", color=style["color"])
ax.annotate("loss", (3.9, 2.2), ha="right")
ax.annotate("its line at w = 0", (1.35, -1.4), ha="right", color="#555555")
ax.set(title="A step goes to the lowest point of line plus price", ylim=(-2.3, 4.5))
ax.set(xlabel="weight w", ylabel="height")
alt = f"The loss has its minimum at 2. Line plus price is lowest at {bottom[0.5]:.2f} for step size 0.5"
course.figure(fig, "line-plus-price", alt=f"{alt} and at {bottom[1.5]:.2f} for step size 1.5.")

# %% [markdown]
# The lowest points are those of gradient descent, $w_t - \eta g$ with the gradient $g = -2$. For a linear layer the
# gradient is $u x^\top$, and $\langle u x^\top, W \rangle$ is the same number as $\langle W x, u \rangle$. So the
# question becomes one about a memory:
#
# $$
# W_{t+1} = \arg\min_W \; \langle W x_{t+1}, u_{t+1} \rangle + \frac{1}{2 \eta_{t+1}} \lVert W - W_t \rVert^2 \tag{NL 9}
# $$
#
# In words: *for this key, answer against the surprise, and change as little as you can*. We check it with a
# minimiser that knows nothing of our formula: it only sees the function, and searches.

# %%
def lowest(line, before, lr):
    """Return the M where line(M) + |M - before|² / (2 lr) is lowest, found by a search that starts at 0."""
    M = torch.zeros_like(before).requires_grad_()
    search = torch.optim.LBFGS([M], max_iter=100, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def height():
        search.zero_grad()
        value = line(M) + (M - before).square().sum() / (2 * lr)
        value.backward()
        return value

    search.step(height)
    return M.detach()


eta = 0.1
found = lowest(lambda M: (M @ x) @ u, before, eta)

# %% tags=["claim"]
gap = (found - hebbian(before, x, -u, eta)).abs().max()
course.claim(
    "the search and the write end at the same memory, to 1e-9; the lowest points of the figure are at {a:.1f} "
    "and {b:.1f}, where gradient descent goes",
    gap < 1e-9 and all(abs(w - size * 2) < 0.01 for size, w in bottom.items()),
    a=bottom[0.5],
    b=bottom[1.5],
)

# %% [markdown]
# ### All steps at once
#
# Take many steps with the same $\eta$. Then the weights after step $t$ also answer *one* question about the whole
# past, asked from the very first weights $W_1$:
#
# $$
# W_{t+1} = \arg\min_W \; \Big\langle \sum_{s=1}^{t} \nabla \mathcal L(W_s; x_s), W \Big\rangle
# {} + \frac{1}{2 \eta} \lVert W - W_1 \rVert^2 \tag{NL 3}
# $$
#
# This is called *follow the regularised leader* (FTRL). Its answer is $W_1 - \eta$ times the sum of all gradients.
#
# **Predict.** After 20 steps, does the first gradient count less than the last one?

# %%
weights = before.clone().requires_grad_()
optimizer = SGD([weights], lr=eta)
gradients = []
for key, true in zip(data.x_train[:20], data.y_train[:20], strict=True):
    optimizer.zero_grad()
    cross_entropy(weights @ key, true).backward()
    gradients.append(weights.grad.clone())
    optimizer.step()
total = torch.stack(gradients).sum(0)
leader = lowest(lambda M: (total * M).sum(), before, eta)

# %% tags=["claim"]
after = weights.detach()
course.claim(
    "after 20 steps the weights equal the start less η times the sum of the gradients, to 1e-13, and the search "
    "finds the same place, to 1e-9; the weights moved by {moved:.1f}",
    (after - (before - eta * total)).abs().max() < 1e-13 and (after - leader).abs().max() < 1e-9,
    moved=(leader - before).norm(),
)

# %% [markdown]
# In this sum every gradient counts the same; none fades with time. (Momentum, in notebook 03, lets them fade. An
# old answer can still be spoilt by later writes, as you saw in section 2.)
#
# ## 4 · What does a whole training write?
#
# Training looks for the weights with the smallest loss on all data $\mathcal D$:
#
# $$
# W^\ast = \arg\min_W \; \mathcal L(W; \mathcal D) \tag{NL 7}
# $$
#
# Gradient descent moves towards them, write by write. Read the 1,400 training images once, one after the other, and
# note each surprise. Before each write the image is new to the memory, so its surprise is an honest test. (A batch
# would write the mean of the writes of its images.)
#
# **Predict.** From an empty memory, after one write for each image: how many of the 397 test images will it name
# correctly?

# %%
def read_once(lr, sign=-1.0, shift=0):
    """Write each training image once; return the memory and the surprises, shape (1400, 10)."""
    memory, surprises = torch.zeros(10, 64, dtype=torch.float64, device=device), []
    for image, key, true in zip(data.x_train, data.x_train.roll(shift, 0), data.y_train, strict=True):
        u = local_surprise(memory @ image, true)
        memory = hebbian(memory, key, sign * u, lr)
        surprises.append(u)
    return memory, torch.stack(surprises)


def accuracy(memory):
    return ((data.x_test @ memory.T).argmax(1) == data.y_test).double().mean().item()


lr = 0.1
trained, surprises = read_once(lr)
print(f"right on {accuracy(trained):.0%} of the test images")

# %% tags=["figure"]
length = surprises.norm(dim=1).cpu().numpy()
mean = np.convolve(length, np.full(100, 1 / 100), mode="valid")  # of 100 writes in a row
fig, ax = course.canvas(6.4, 2.8)
ax.plot(length, ".", color="#BBBBBB", markersize=3)
ax.plot(range(99, 1400), mean, color=course.style.COLOURS["blue"])
box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
ax.annotate("mean of the last 100", (430, 0.58), color=course.style.COLOURS["blue"], bbox=box)
ax.annotate("one image", (1010, 0.9), color="#555555", bbox=box)
ax.set(title="Surprise falls while the memory fills", ylim=(0, 1.45))
ax.set(xlabel="images read", ylabel="surprise |u|")
alt = f"Length of the surprise at each image: the mean is {mean[0]:.2f} over the first 100 images and "
alt += f"{mean[-1]:.2f} over the last 100; the largest of the last 100 is {length[-100:].max():.2f}."
course.figure(fig, "surprise-falls", alt=alt)

# %% tags=["claim"]
course.claim(
    "one write for each image is enough to name {share:.0%} of unseen images correctly; the mean surprise falls "
    "from {first:.2f} (first 100) to {last:.2f} (last 100)",
    accuracy(trained) > 0.9 and mean[-1] < mean[0] / 2,
    share=accuracy(trained),
    first=mean[0],
    last=mean[-1],
)

# %% [markdown]
# Most images no longer surprise, and then almost nothing is written. Which ones still do? Here are the test images,
# sorted by surprise. They were never written.
#
# **Predict.** What will the most surprising images look like?

# %% tags=["figure"]
test_surprise = local_surprise(data.x_test @ trained.T, data.y_test).norm(dim=1)
guess = (data.x_test @ trained.T).argmax(1)
order = test_surprise.argsort(descending=True).tolist()
fig, axes = course.canvas(7.2, 3.2, rows=2, cols=7)
for row, places in zip(axes, (order[:7], order[-7:]), strict=True):
    for ax, place in zip(row, places, strict=True):
        words = f"{data.y_test[place].item()}, says {guess[place].item()}\n|u| = {test_surprise[place]:.2f}"
        show_image(ax, data.x_test[place], words)
axes[0, 0].set_ylabel("most\nsurprising")
axes[1, 0].set_ylabel("least\nsurprising")
headline(fig, "Surprise finds the odd digits")
read = [f"{true} read as {said}" for true, said in zip(data.y_test.tolist(), guess.tolist(), strict=True)]
alt = "Seven test images with the largest surprise: " + ", ".join(read[place] for place in order[:7])
alt += ". Seven with the least: " + ", ".join(read[place] for place in order[-7:]) + "."
course.figure(fig, "most-and-least-surprising", alt=alt)

# %% tags=["claim"]
wrong = guess != data.y_test
course.claim(
    "of the {n} test images with the largest surprise {hits} are named wrongly, and no wrong answer has a "
    "surprise below {bound:.2f}, the root of one half; the median over all test images is {median:.2f}",
    wrong[order[:25]].double().mean() > 0.7 and test_surprise[wrong].min() >= 0.5**0.5 - 1e-12,
    n=25,
    hits=wrong[order[:25]].sum(),
    bound=0.5**0.5,
    median=test_surprise.median(),
)

# %% [markdown]
# ### Break it: two misprints of the paper
#
# Equation 19 of the paper prints a minus sign in front of the gradient inside $\arg\min$. With it the value is
# $+u$. And the second line of its equation 9 prints the key $x_t$, the *previous* input, together with the surprise
# of $x_{t+1}$.
#
# **Predict.** Chance is one in ten. What does each misprint do to the accuracy?

# %%
climbing, _ = read_once(lr, sign=+1.0)
shifted, _ = read_once(lr, shift=1)
losses = [cross_entropy(data.x_test @ M.T, data.y_test).item() for M in (trained, climbing, shifted)]
print(f"as it should be  right {accuracy(trained):.2f}  loss {losses[0]:.1f}")
print(f"value +u         right {accuracy(climbing):.2f}  loss {losses[1]:.1f}")
print(f"previous key     right {accuracy(shifted):.2f}  loss {losses[2]:.1f}")

# %% tags=["claim"]
course.claim(
    "an empty memory has the loss {empty:.2f}; one pass brings it down to {falls:.2f}, with either misprint it "
    "climbs, and at most {right:.0%} of the answers are right",
    losses[0] < math.log(10) < min(losses[1:]) and max(accuracy(climbing), accuracy(shifted)) < 0.2,
    empty=math.log(10),
    falls=losses[0],
    right=max(accuracy(climbing), accuracy(shifted)),
)

# %% [markdown]
# Key and value must belong together, and the value must point *against* the surprise. The rest of this course uses
# the corrected forms.
#
# ## 5 · Can you look up what it has stored?
#
# The memory started empty, and each image added one write. So the trained layer *is* the list of its writes:
#
# $$
# W_T = W_0 - \eta \sum_{t=1}^{T} u_t\, x_t^\top \tag{02.4}
# $$
#
# Ask it with a query $q$, a new image. Each write answers for itself:
#
# $$
# W_T\, q = W_0\, q - \eta \sum_{t=1}^{T} (x_t^\top q)\, u_t \tag{02.5}
# $$
#
# The weights are gone from the right side. What is left: training images, their surprises, and how similar each
# image is to the query. That is how attention works (notebook 09): keys $x_t$, values $-\eta u_t$, scores
# $x_t^\top q$, here without a softmax.

# %% [markdown]
# ### Exercise 3 · `recall`
#
# *8 minutes · medium · objective: answer from the list of writes instead of from the weights.*
#
# Write the right side of (02.5). `W0` has shape (answers, pixels), `keys` (T, pixels), `surprises` (T, answers),
# `query` (pixels). Do not build the weights.

# %% tags=["exercise"]
def recall(W0, keys, surprises, lr, query):
    """Return the answer to `query` of a layer that started at W0 and was written T times."""
    ...


# %% tags=["check"]
course.check.recall(recall)

# %%
course.hint.recall(1)  # then 2 and 3, if you need them

# %% [markdown]
# <details><summary>Solution and why</summary>
#
# ```python
# def recall(W0, keys, surprises, lr, query):
#     scores = keys @ query
#     return W0 @ query - lr * scores @ surprises
# ```
#
# `keys @ query` holds the T similarities. `scores @ surprises` adds up the surprises, each times its score. A write
# under a key at a right angle to the query has the score 0 and does not speak.
#
# </details>
#
# The library function `votes` keeps the parts of the sum apart: one row for each write.

# %%
from nlcore.surprise import votes

course.show(votes)
query, true = data.x_test[299], data.y_test[299]
shares = votes(data.x_train, surprises, lr, query)
print("from the weights:", [round(entry, 2) for entry in (trained @ query).tolist()])
print("from the writes: ", [round(entry, 2) for entry in shares.sum(0).tolist()])

# %% tags=["claim"]
all_votes = torch.stack([votes(data.x_train, surprises, lr, image).sum(0) for image in data.x_test])
half = np.sort(length)[:700].sum() / length.sum()
course.claim(
    "for all 397 test images the sum of 1,400 votes equals the answer of the weights, to 1e-10; the less "
    "surprising half of the images has only {half:.0%} of all the surprise that was written",
    (all_votes - data.x_test @ trained.T).abs().max() < 1e-10 and half < 0.25,
    half=half,
)

# %% [markdown]
# So we can ask the layer *why*. Take the answer for the right class, and sort the votes.
#
# **Predict.** The query is a 1 with a foot. What will the images look like that speak most for "1"? And those
# against?

# %% tags=["figure"]
for_one = shares[:, true]
ranked = for_one.argsort(descending=True).tolist()
fig, axes = course.canvas(7.2, 3.2, rows=2, cols=7)
show_image(axes[0, 0], query, f"query: a {true.item()}\nanswer {for_one.sum():+.2f}")
axes[1, 0].axis("off")
for row, places in zip(axes, (ranked[:6], ranked[:-7:-1]), strict=True):
    for ax, place in zip(row[1:], places, strict=True):
        show_image(ax, data.x_train[place], f"a {data.y_train[place].item()}\n{for_one[place]:+.2f}")
axes[0, 1].set_ylabel("speak for it")
axes[1, 1].set_ylabel("speak against")
headline(fig, "The answer is a vote of stored images")
alt = f"A test image of a {true.item()}. The six training images that speak most for this answer are the digits "
alt += f"{data.y_train[ranked[:6]].tolist()}, "
alt += f"the six that speak most against it {data.y_train[ranked[:-7:-1]].tolist()}."
course.figure(fig, "votes-of-stored-images", alt=alt)

# %% tags=["claim"]
ours = data.y_train == true
course.claim(
    "the twenty strongest votes for the answer all come from stored {digit}s; together the {digit}s give "
    "{plus:+.0f} and all others {minus:+.0f}, which leaves {answer:+.1f}",
    ours[ranked[:20]].all() and for_one[ours].sum() > 0 > for_one[~ours].sum(),
    digit=true,
    plus=for_one[ours].sum(),
    minus=for_one[~ours].sum(),
    answer=for_one.sum(),
)

# %% [markdown]
# ## 6 · Why not write everything at once?
#
# In linear attention all pairs of key and value can be written at the same time. Here they cannot: the value $-u_t$
# depends on what the memory answers at step $t$, so on all earlier writes. The memory makes its own values. The
# paper calls this **self-referential** (its equation 58).
#
# Break it: compute all 1,400 surprises with the *empty* memory and write them together. The step size cannot change
# this accuracy: it makes all answers larger by the same factor.
#
# **Predict.** Is the result worse? By how much?

# %%
empty = torch.zeros_like(trained)
fixed_values = local_surprise(data.x_train @ empty.T, data.y_train)
at_once = empty - lr * fixed_values.T @ data.x_train
print(f"one after the other {accuracy(trained):.2f}, all at once {accuracy(at_once):.2f}")

# %% tags=["claim"]
course.claim(
    "values that the memory makes step by step give {own:.0%} right, values fixed in advance {fixed:.0%}",
    accuracy(trained) > accuracy(at_once) + 0.1,
    own=accuracy(trained),
    fixed=accuracy(at_once),
)

# %% [markdown]
# That is the price of the better memory: it must be written in order. Notebooks 09 and 10 return to this trade.
#
# ## 7 · And in a deep network?
#
# A network of many layers repeats the story. Layer $\ell$ sees the key $\hat x_{\ell-1}$, answers
# $z_\ell = W_\ell \hat x_{\ell-1}$, and passes on $\hat x_\ell = \phi(z_\ell)$, with a function $\phi$ such as the
# ReLU. Its surprise is $\delta_\ell = \nabla_{z_\ell} \mathcal L$:
#
# $$
# \nabla_{W_\ell} \mathcal L = \delta_\ell\, \hat x_{\ell-1}^\top, \qquad
# \delta_\ell = J_\phi(z_\ell)^\top\, W_{\ell+1}^\top\, \delta_{\ell+1} \tag{NL 29}
# $$
#
# At the last layer $\delta$ is the $u$ from above. $J_\phi$ is the derivative of $\phi$; for the ReLU it is 1 where
# $z > 0$ and 0 elsewhere. Backpropagation only carries the surprise down, from layer to layer. Here is a network
# with 32 hidden units.

# %%
from torch import nn

net = nn.Sequential(nn.Linear(64, 32, bias=False), nn.ReLU(), nn.Linear(32, 10, bias=False)).double()
for parameter in net.parameters():
    nn.init.normal_(parameter, std=0.2, generator=generator)
net.to(device)
z1 = net[0](x).detach()
print(f"hidden units that are on: {(z1 > 0).sum().item()} of {len(z1)}")

# %% [markdown]
# ### Exercise 4 · `layer_surprise`
#
# *8 minutes · medium · objective: compute the surprise of a hidden layer.*
#
# Two layers with a ReLU between them. `z1` is the answer of the first layer, `W2` the weights of the second,
# `delta2` its surprise. Return $\delta_1$ by (NL 29). Where `z1` is exactly 0, take 0, as PyTorch does.

# %% tags=["exercise"]
def layer_surprise(z1, W2, delta2):
    """Return the surprise of the first layer."""
    ...


# %% tags=["check"]
course.check.layer_surprise(layer_surprise)

# %%
course.hint.layer_surprise(1)  # then 2 and 3, if you need them

# %% [markdown]
# <details><summary>Solution and why</summary>
#
# ```python
# def layer_surprise(z1, W2, delta2):
#     return (z1 > 0) * (W2.T @ delta2)
# ```
#
# `W2.T @ delta2` is the surprise at the output of the ReLU: how much each hidden unit would change the loss. A unit
# that is off passes nothing on, so it has no part in the surprise, and nothing is written into its row.
#
# </details>
#
# `layer_writes` runs any network once and returns key and surprise of each of its linear layers.

# %%
from nlcore.surprise import layer_writes

course.show(layer_writes)
writes = layer_writes(net, x, lambda answer: cross_entropy(answer, label))
for write in writes:
    sizes = f"key of {len(write.key)} numbers, surprise of {len(write.surprise)}"
    print(f"layer {write.name}: {sizes}, length of the surprise {write.surprise.norm():.2f}")

# %% [markdown]
# One step of our optimizer on the whole network should be two writes. And each layer should answer a small question
# of its own, the same as (NL 9):
#
# $$
# W_{\ell,t+1} = \arg\min_W \; \langle W \hat x_{\ell-1}, \delta_\ell \rangle
# {} + \frac{1}{2 \eta} \lVert W - W_{\ell,t} \rVert^2 \tag{NL 31}
# $$
#
# **Predict.** Which of the 32 hidden units will have a surprise of exactly 0?

# %%
old = [parameter.detach().clone() for parameter in net.parameters()]
optimizer = SGD(net.parameters(), lr=eta)
cross_entropy(net(x), label).backward()
optimizer.step()
by_hand = [hebbian(W, write.key, -write.surprise, eta) for W, write in zip(old, writes, strict=True)]
gaps = [(new.detach() - hand).abs().max() for new, hand in zip(net.parameters(), by_hand, strict=True)]
first = writes[0]
found = lowest(lambda M: (M @ first.key) @ first.surprise, old[0], eta)

# %% tags=["claim"]
off = z1 <= 0
by_formula = ~off * (old[1].T @ writes[1].surprise)
course.claim(
    "one optimizer step of the network is one write in each layer, to 1e-15; the hidden surprise is that of "
    "(NL 29): zero at exactly the {off} of 32 units that are off",
    max(gaps) < 1e-15
    and torch.equal(first.surprise == 0, off)
    and (first.surprise - by_formula).abs().max() < 1e-14,
    off=off.sum(),
)
course.claim(
    "the step of the hidden layer answers its own small question: a search finds the same weights, to 1e-9",
    (found - by_hand[0]).abs().max() < 1e-9,
)

# %% [markdown]
# No layer needed to know of the others: it got a key from below and a surprise from above, and wrote. (A bias is
# one more weight, whose key is always 1.) A deep network trained by gradient descent is a stack of memories, all
# written at every step: one level in the sense of notebook 00.
#
# ## What you did
#
# * You computed the local surprise signal, and saw which digits surprise a network most (exercise 1).
# * You wrote gradient descent as a Hebbian write, key $x$ and value $-u$ (exercise 2), and checked it against
#   autograd.
# * You found the small question behind each step with an independent search, for one step and for twenty at once.
# * You read a trained layer as a list of writes and found the images behind an answer (exercise 3).
# * You carried the surprise down to a hidden layer (exercise 4).
#
# ## What this does not show
#
# These are identities: they hold for every linear layer and every loss, so they cannot make training better by
# themselves. The paper takes them as its starting point; the gain must come from other memories and other questions
# (notebooks 03 to 05). The list of votes is exact for a linear layer trained with single images and plain gradient
# descent. In a deep network the keys of the upper layers move while the lower layers learn, and the list still
# holds, but its keys are those of the time of writing. Our data are small images; the accuracies are from one pass
# with one step size.
#
# ## Recall
#
# <details><summary>1. A step of gradient descent on a linear layer is a write. Which is the key, which the value?</summary>
#
# The key is the input $x$. The value is $-u$, the surprise (the gradient of the loss at the answer) turned round;
# $\eta$ is the strength.
#
# </details>
#
# <details><summary>2. An image is named correctly and with certainty. How much does it change the weights?</summary>
#
# Almost nothing: its surprise is near 0, and the write is surprise times input.
#
# </details>
#
# <details><summary>3. Why can linear attention write all pairs at once, and gradient descent not?</summary>
#
# In attention the values are given. In gradient descent the memory makes each value from what it answers now, so
# each write needs all the earlier ones.
#
# </details>
#
# ## Further reading
#
# * Behrouz, Razaviyayn, Zhong, Mirrokni, *Nested Learning: The Illusion of Deep Learning Architectures*, arXiv
#   2512.24695, sections 3.1 and 4.1: gradient descent and backpropagation as associative memories (20 minutes).
# * Irie, Csordás, Schmidhuber, *The Dual Form of Neural Networks Revisited: Connecting Test Time Predictions to
#   Training Patterns via Spotlights of Attention*, arXiv 2202.05798: the votes of section 5, for whole networks (30
#   minutes).
# * McMahan, *A Survey of Algorithms and Analysis for Adaptive Online Learning*, arXiv 1403.3465: the proximal form
#   and FTRL with all their relatives (60 minutes, sections 1 to 3).
