# %% [markdown]
# # 09 · Attention is a memory
#
# *What you will do.* Derive three memories of tokens, softmax attention, linear attention and the delta rule, each from
# one objective, overwrite a key, and see which memory answers what.
#
# **Afterwards you can**
#
# - derive softmax attention, linear attention and the delta rule from one inner objective each
# - show that linear attention and momentum are the same function, fed with tokens or with gradients
# - say for which stream each memory is the right one: new keys, similar keys, keys that are written again
# - read a stream token by token and in chunks, and explain why both give the same numbers
#
# **You need** notebook 01 (a matrix as a memory, Hebb and delta) and notebook 03 (momentum as such a memory).
#
# **Time** 60 minutes · runs in about 35 s on a CPU
#
# {{badge}}

# %% tags=["setup"]
# {{setup}}

# %% [markdown]
# ## 1 · What does attention remember?
#
# So far a memory was a matrix. Here is another kind: keep every pair of a key $k_i$ and a value $v_i$ as it came, and
# think only when a question $q$ comes. Which answer $m$ is best? Give each pair a weight, the nearness $s(k_i, q) > 0$
# of its key to the question, and take the $m$ with the least weighted error:
#
# $$
# m^\ast(q) = \arg\min_m \sum_{i} s(k_i, q) \, \lVert v_i - m \rVert^2 =
# \sum_{i} \frac{s(k_i, q)}{\sum_{j} s(k_j, q)} \, v_i \tag{NL 62}
# $$
#
# The answer is a weighted mean of the values (Nadaraya and Watson, 1964). With $s(k, q) = \exp(k^\top q / \sqrt{d})$,
# $d$ the length of a key, the weights are a softmax: this is the attention of a Transformer. In a stream, token $t$
# asks with its own $q_t$ and sees the pairs up to $t$.
#
# **Predict.** You ask with a stored key. Do you get its value?

# %%
import math

import torch
from torch.nn.functional import normalize, scaled_dot_product_attention

from nlcore.sequence.attention import nadaraya_watson, softmax_attention

course.show(nadaraya_watson, softmax_attention)


def draws(seed, *shapes):
    """Return one random tensor in float64 for each shape."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


# %%
q, k, v = draws(0, *[(2, 2, 40, 16)] * 3)  # 2 streams, 2 heads, 40 tokens, keys of 16 numbers
plain = nadaraya_watson(q, k, v)
ours, cache = softmax_attention(q, k, v)
torch_says = scaled_dot_product_attention(q, k, v, is_causal=True)

s = (k[0, 0] @ q[0, 0, -1] / 16**0.5).exp()  # nearness of all 40 keys to the last question
m = torch.zeros(16, dtype=torch.float64, requires_grad=True)
solver = torch.optim.LBFGS([m], max_iter=100, tolerance_grad=1e-12, line_search_fn="strong_wolfe")


def weighted_error():
    solver.zero_grad()
    error = (s * (v[0, 0] - m).square().sum(-1)).sum()
    error.backward()
    return error


least = solver.step(weighted_error)

# %% tags=["claim"]
course.claim(
    "the mean, our attention and torch's scaled_dot_product_attention agree to 12 digits",
    max((plain - torch_says).abs().max(), (ours - torch_says).abs().max()) < 1e-12,
)
course.claim(
    "a solver that only minimises the weighted error finds the same answer, to 7 digits",
    (m - torch_says[0, 0, -1]).abs().max() < 1e-7,
)
own = scaled_dot_product_attention(k[0, 0], k[0, 0], v[0, 0])  # every stored key as a question
course.claim(
    "asked with a stored key it answers {far:.1f} away from the stored value; the values lie {apart:.1f} apart",
    (own - v[0, 0]).norm(dim=-1).mean() > 0.2 * torch.pdist(v[0, 0]).mean(),
    far=(own - v[0, 0]).norm(dim=-1).mean(),
    apart=torch.pdist(v[0, 0]).mean(),
)

# %% [markdown]
# So a stored value comes back mixed with others. How much, is a matter of **sharpness**: the factor in front of
# $k^\top q$. A trained model sets it by the length of its keys. The picture shows it for keys on a circle, where a key
# is an angle and a value is one number.

# %% tags=["figure"]
angle = torch.linspace(0, 2 * math.pi, 361, dtype=torch.float64)
circle = lambda a: torch.stack([a.cos(), a.sin()], -1)  # noqa: E731
stored_at = torch.arange(10, dtype=torch.float64) * 2 * math.pi / 10
heights = torch.tensor([0.2, 0.9, 0.4, -0.5, -0.9, -0.1, 0.8, 0.6, -0.3, -0.7], dtype=torch.float64)
fig, ax = course.canvas(6.8, 3.0)
alt, at_stored = [], {}
for sharp, style in zip((1.0, 5.0, 100.0), course.style.STYLES, strict=False):
    nearness = (sharp * circle(angle) @ circle(stored_at).T).softmax(-1)
    ax.plot(angle.rad2deg(), nearness @ heights, color=style["color"], linestyle=style["linestyle"], label=f"{sharp:g}")
    at_stored[sharp] = (sharp * circle(stored_at) @ circle(stored_at).T).softmax(-1) @ heights
    alt.append(f"sharpness {sharp:g}: {(at_stored[sharp] - heights).abs().max():.2f}")
ax.plot(stored_at.rad2deg(), heights, "o", color="black", markersize=7, label="stored")
ax.set(xlabel="question: an angle in degrees", ylabel="answer", ylim=(-1.1, 1.1), xlim=(0, 360))
ax.set_xticks(range(0, 361, 60))
ax.set_title("The sharper the weights, the fewer pairs share in an answer")
ax.legend(title="sharpness", loc="center left", bbox_to_anchor=(1, 0.5))
words = "Answers of attention between ten stored pairs. Largest distance from a stored value: "
course.figure(fig, "attention-is-a-weighted-mean", alt=words + "; ".join(alt) + ".")

# %% tags=["claim"]
course.claim(
    "sharpness 100 gives every stored value back to {a:.3f}; sharpness 1 answers between {b:.2f} and {c:.2f} everywhere",
    (at_stored[100.0] - heights).abs().max() < 0.01 and at_stored[1.0].abs().max() < 0.5,
    a=(at_stored[100.0] - heights).abs().max(),
    b=at_stored[1.0].min(),
    c=at_stored[1.0].max(),
)

# %% [markdown]
# ### Exercise 1 · `attend`
#
# *6 minutes · easy · objective: write softmax attention as the weighted mean of (NL 62).*
#
# One question `q` of shape `(d,)`, `keys` of shape `(n, d)`, `values` of shape `(n, d_v)`. The check compares you with
# torch's attention.


# %% tags=["exercise"]
def attend(q, keys, values):
    """Return the mean of the values, weighted by the softmax of keys . q / sqrt(d)."""
    ...


# %% tags=["check"]
course.check.attend(attend)

# %%
course.hint.attend(1)  # then 2 and 3, if you need them

# %% [markdown]
# <details><summary>Solution and why</summary>
#
# ```python
# def attend(q, keys, values):
#     weights = torch.softmax(keys @ q / len(q) ** 0.5, dim=0)
#     return weights @ values
# ```
#
# The derivative of the weighted error is $\sum_i 2 s_i (m - v_i)$. It is zero where $m \sum_i s_i = \sum_i s_i v_i$. Dividing
# by the sum of the $s_i$ gives the softmax.
#
# </details>

# %% [markdown]
# ### What does it cost to keep everything?
#
# No pair is ever lost, and every question looks at all of them. So memory grows with the stream, and the work for a
# token grows too. A **sliding window** keeps the last $c$ pairs only:
#
# $$
# m_t = \sum_{i=t-c+1}^{t} \frac{s(k_i, q_t)}{\sum_{j=t-c+1}^{t} s(k_j, q_t)} \, v_i \tag{NL 63}
# $$
#
# The third row is what comes next: a matrix, as in notebook 01. Keys and values have 64 numbers.

# %%
LENGTHS = (100, 1000, 4000)
held = {"all pairs": [], "window of 32": [], "a matrix": []}
for T in LENGTHS:
    x = draws(1, (1, 1, T, 64))[0]
    kept = softmax_attention(x, x, x)[1], softmax_attention(x, x, x, window=32)[1]
    for name, pairs in zip(held, kept, strict=False):
        held[name].append(pairs.k.numel() + pairs.v.numel())
    held["a matrix"].append(64 * 64)
print(f"{'numbers held after':20}", *(f"{T:7}" for T in LENGTHS), "tokens")
for name, numbers in held.items():
    print(f"{name:20}", *(f"{number:7}" for number in numbers))

# %% tags=["claim"]
masked = torch.ones(40, 40, dtype=torch.bool).tril() & ~torch.ones(40, 40, dtype=torch.bool).tril(-8)
windowed = softmax_attention(q, k, v, window=8)[0]
course.claim(
    "attention holds {a} numbers a token; a window holds as much after {n} tokens as after {first}, and no more than a matrix",
    held["all pairs"][-1] == 128 * LENGTHS[-1]
    and held["window of 32"][0] == held["window of 32"][-1] <= held["a matrix"][0],
    a=held["all pairs"][-1] // LENGTHS[-1],
    n=LENGTHS[-1],
    first=LENGTHS[0],
)
course.claim(
    "a window of 8 is torch's attention with all older pairs masked out",
    (windowed - scaled_dot_product_attention(q, k, v, masked)).abs().max() < 1e-12,
)

# %% [markdown]
# Nothing is *learned* here: between two questions nothing is computed. The paper calls such a memory **non-parametric**.
#
# ## 2 · What if the memory must not grow?
#
# Then pairs must share one matrix $M$ of fixed size, and each new pair has to be **written** into it. Writing is a
# step of gradient descent on an inner objective. The simplest one asks that the answer $M k$ points towards $v$:
#
# $$
# \tilde{\mathcal L}(M) = -\langle M k_t, v_t \rangle, \qquad
# M_t = \alpha_t M_{t-1} - \eta_t \nabla \tilde{\mathcal L}(M_{t-1}) = \alpha_t M_{t-1} + \eta_t \, v_t k_t^\top
# \tag{NL 64}
# $$
#
# The answer is $y_t = M_t q_t$. This is **linear attention**. $\eta_t$ is the strength of a write, and $\alpha_t$ the part of
# the old memory that survives it. You know the right side: it is `hebbian` of notebook 01, unchanged.

# %%
from nlcore.memory import delta, dgd, hebbian, oja, read
from nlcore.sequence import linear_attention
from nlcore.sequence.loops import write_loop

course.show(hebbian, linear_attention, write_loop)

# %% [markdown]
# ### Exercise 2 · `read_stream`
#
# *8 minutes · medium · objective: write linear attention with the Hebbian rule.*
#
# `q`, `k` have the shape `(T, d_k)`, `v` has `(T, d_v)`. Begin with an empty memory (zeros, dtype of `v`). At each
# token **write, then ask**. Return the answers, `(T, d_v)`. Use `hebbian` with its default strength 1.


# %% tags=["exercise"]
def read_stream(q, k, v):
    """Write each pair into one memory, then ask it; return all answers."""
    ...


# %% tags=["check"]
course.check.read_stream(read_stream)

# %%
course.hint.read_stream(1)  # then 2 and 3, if you need them

# %% [markdown]
# <details><summary>Solution and why</summary>
#
# ```python
# from nlcore.memory import hebbian
#
# def read_stream(q, k, v):
#     M = torch.zeros(v.shape[1], k.shape[1], dtype=v.dtype)
#     answers = []
#     for t in range(len(q)):
#         M = hebbian(M, k[t], v[t])
#         answers.append(M @ q[t])
#     return torch.stack(answers)
# ```
#
# The check computes `(q @ k.T).tril() @ v`, which has no loop. That is (09.1) below.
#
# </details>

# %% [markdown]
# Unroll the loop with $\eta = \alpha = 1$, and you see why it is called attention:
#
# $$
# y_t = \sum_{i \le t} (k_i^\top q_t) \, v_i \tag{09.1}
# $$
#
# A weight for each pair, as before. But the weights may be negative, and they do not sum to one.
#
# Now the thesis of the paper. Feed the *same function* with something else: as keys the inputs $x$ of a layer, as values its
# surprises $u$ (notebook 02: the gradient is $u x^\top$). Let $\alpha$ be 0.9.
#
# **Predict.** Which well-known thing is the memory $M$ in the end?

# %%
from nlcore.optimizers import Momentum
from nlcore.tasks import digits

data = digits(dtype=torch.float64)
W = torch.zeros(10, 64, dtype=torch.float64, requires_grad=True)
optimizer = Momentum([W], lr=0.05, beta=0.9)
inputs, surprises = [], []
for x, label in zip(data.x_train[:200], data.y_train[:200], strict=True):
    logits = W @ x
    loss = torch.nn.functional.cross_entropy(logits, label)
    W.grad, u = torch.autograd.grad(loss, [W, logits])
    optimizer.step()
    inputs.append(x)
    surprises.append(u)

as_keys, as_values = (torch.stack(row)[None, None] for row in (inputs, surprises))  # 1 stream, 1 head, 200 tokens
y, state = linear_attention(as_keys, as_keys, as_values, retain=0.9, chunk_size=None)
buffer = optimizer.state[W]["m"]

# %% tags=["claim"]
course.claim(
    "linear attention, reading {n} pairs (input, surprise), holds the momentum buffer, whose largest number is "
    "{size:.1f}: no number differs by more than 1e-13",
    (state.M[0, 0] - buffer).abs().max() < 1e-13,
    n=len(inputs),
    size=buffer.abs().max(),
)
course.claim(
    "a decay for each head (RetNet has 1 - 1/32, 1 - 1/64, ...) is the beta of momentum: half is left after {a:.0f} and "
    "{b:.0f} tokens",
    math.log(0.5) / math.log(1 - 1 / 64) > math.log(0.5) / math.log(1 - 1 / 32) > 20,
    a=math.log(0.5) / math.log(1 - 1 / 32),
    b=math.log(0.5) / math.log(1 - 1 / 64),
)

# %% [markdown]
# Optimizers and sequence models are the same kind of thing: memories that are written at some frequency. What differs is
# what they read, gradients or tokens, and how often.
#
# ## 3 · What if the old answer is wrong?
#
# A sum does not look at what is stored. Ask for more: the answer should *be* $v$. One step on half the squared error is
# the **delta rule** of notebook 01:
#
# $$
# \tilde{\mathcal L}(M) = \tfrac12 \lVert M k_t - v_t \rVert^2, \qquad
# M_t = M_{t-1} \, (I - \eta_t k_t k_t^\top) + \eta_t \, v_t k_t^\top \tag{NL 65}
# $$
#
# (The paper prints the bracket on the left of $M$; there the sizes do not fit.) As a memory of tokens it is called
# DeltaNet.
#
# ### Exercise 3 · `as_transition`
#
# *6 minutes · medium · objective: derive the delta rule as a transition of the memory.*
#
# A step of `delta` is $M + \eta (v - M k) k^\top$. Write it as $M A + B$ and return `A` and `B`. The check takes the
# gradient of the squared error by autograd.


# %% tags=["exercise"]
def as_transition(k, v, lr):
    """Return A and B of the delta rule M <- M A + B."""
    ...


# %% tags=["check"]
course.check.as_transition(as_transition)

# %%
course.hint.as_transition(1)  # then 2 and 3, if you need them

# %% [markdown]
# <details><summary>Solution and why</summary>
#
# ```python
# def as_transition(k, v, lr):
#     A = torch.eye(len(k), dtype=k.dtype) - lr * torch.outer(k, k)
#     B = lr * torch.outer(v, k)
#     return A, B
# ```
#
# `B` alone is the Hebbian write. `A` erases the part `lr` of what is stored along `k`, and leaves the rest.
#
# </details>

# %% [markdown]
# Write the same pair $n$ times, with $\lvert k \rvert = 1$. Across $k$ nothing changes. Along $k$ the error shrinks:
#
# $$
# M_n k = v + (1 - \eta)^n \, (M_0 k - v) \tag{09.2}
# $$
#
# The factor $1 - \eta$ is an eigenvalue of $A$. Between 0 and 1 the answer comes closer, at $\eta = 1$ it is right at
# once, between 1 and 2 it jumps from side to side and still comes closer (notebook 11 finds a use for that). The **implicit**
# step, `dgd` of notebook 05, minimises the objective plus a price for moving, exactly: it is the same rule with
# $\eta / (1 + \eta)$ for $\eta$.
#
# **Predict.** And at $\eta = 2.1$? The implicit step there? And Hebb, at any $\eta$? Break what can be broken.

# %%
pair_k, pair_v = torch.tensor([0.6, 0.8], dtype=torch.float64), torch.tensor([1.0], dtype=torch.float64)
answers = {}
RULES = [
    ("delta", delta, 0.5),
    ("delta", delta, 1.5),
    ("delta", delta, 2.1),
    ("implicit", dgd, 2.1),
    ("Hebb", hebbian, 0.5),
]
for name, rule, eta in RULES:
    M, seen = torch.zeros(1, 2, dtype=torch.float64), []
    for _ in range(60):
        M = rule(M, pair_k, pair_v, lr=eta)
        seen.append(read(M, pair_k).item())
    answers[name, eta] = seen
    print(f"{name:8} η = {eta}: asked after 1, 2, 3, 60 writes:", *(f"{seen[n - 1]:8.2f}" for n in (1, 2, 3, 60)))

# %% tags=["claim"]
A = torch.eye(2, dtype=torch.float64) - 1.5 * torch.outer(pair_k, pair_k)
course.claim(
    "the right answer is 1: delta with 0.5 and 1.5 reaches it, and so does the implicit step with 2.1; after 60 writes delta "
    "with 2.1 is at {far:.0f}, and Hebb at {sum:.0f}",
    all(abs(answers[one][-1] - 1) < 1e-9 for one in (("delta", 0.5), ("delta", 1.5), ("implicit", 2.1)))
    and abs(answers["delta", 2.1][-1]) > 100,
    far=answers["delta", 2.1][-1],
    sum=answers["Hebb", 0.5][-1],
)
course.claim(
    "the eigenvalues of A for 1.5 are {small:.1f} and {one:.1f}",
    (torch.linalg.eigvalsh(A) - torch.tensor([-0.5, 1.0])).abs().max() < 1e-12,
    small=torch.linalg.eigvalsh(A)[0],
    one=torch.linalg.eigvalsh(A)[1],
)

# %% [markdown]
# One more objective, in short. **Oja's rule** lets a value punish what is stored for it already:
#
# $$
# \tilde{\mathcal L}(M) = -\langle M k_t, v_t \rangle + \tfrac12 \lVert M^\top v_t \rVert^2, \qquad
# M_t = \alpha_t M_{t-1} + \eta_t \, v_t \, (k_t - M_{t-1}^\top v_t)^\top \tag{NL 67}
# $$
#
# It is the delta rule on the transposed memory, keys and values exchanged.
#
# **Predict.** One key gets a new value. Which of the three rules forgets the old one?

# %%
from nlcore.sequence import delta_rule, oja_rule

course.show(delta, oja, delta_rule, oja_rule)
keys = normalize(draws(3, (1, 1, 3, 8))[0], dim=-1)
keys[:, :, 2] = keys[:, :, 0]  # the third pair writes the first key again
values = torch.eye(8, dtype=torch.float64)[None, None, :3]
for rule in (linear_attention, delta_rule, oja_rule):
    answer = rule(keys, keys, values)[0][0, 0, -1]
    print(f"{rule.__name__:17} holds {answer[0]:5.2f} of the old value, {answer[2]:5.2f} of the new one")

# %% tags=["claim"]
after_two = {rule: rule(keys, keys, values)[0][0, 0, -1] for rule in (linear_attention, delta_rule, oja_rule)}
course.claim(
    "only the delta rule replaces the old value; Oja's rule keeps it, because the *values* differ",
    abs(after_two[delta_rule][0]) < 1e-12 and min(after_two[r][0] for r in (linear_attention, oja_rule)) > 0.5,
)

# %% [markdown]
# ## 4 · Overwrite a key and watch three memories answer
#
# A phone number is stored: an old key, an old value. Then a new pair is written, perhaps several times. Its key is more
# or less similar to the old one; similarity 1 is the same key. All keys have length 1.
#
# What should happen? A question with the new key should get the new value. A question with the old key should get the old
# value, unless it is the same key.
#
# Softmax attention has no strength of a write, it only keeps pairs. Its sharpness is 8 here. Bars end at the right edge; the
# words have the number.
#
# **Predict.** With the same key, written once more: what does each of the three answer? First the empty picture.

# %%
TWO = torch.eye(2, dtype=torch.float64)  # old value (1, 0), new value (0, 1)
MEMORIES = ("linear attention", "delta rule", "softmax attention")
fig, axes = course.canvas(7.2, 2.7, cols=2, sharey=True)
axes[0].set_yticks(range(3), [name.replace(" ", "\n") for name in MEMORIES])
parts = {}
for ax, question in zip(axes, ("new", "old"), strict=True):
    ax.set(xlim=(-0.8, 3.2), ylim=(2.75, -0.6), xticks=[0, 1, 2, 3], title=f"asked for the {question} key")
    ax.axvline(0, color="black", linewidth=1, antialiased=False)
    for row in range(3):
        for part, colour in enumerate(("#999999", course.style.COLOURS["blue"])):
            parts[question, row, part] = ax.barh(row - 0.18 + 0.36 * part, 0, 0.32, color=colour, antialiased=False)[0]
    rings = [
        ax.plot([], [], "|", color="black", markersize=13, markeredgewidth=2, antialiased=False)[0] for _ in range(2)
    ]
    parts[question, "right"] = rings
    ax.set_xlabel("grey: old value, blue: new, black: right")


# %%
def asked(similarity, strength, rewrites):
    """Return the answers (old part, new part) of the three memories to both keys, and what would be right."""
    old = torch.tensor([1.0, 0.0], dtype=torch.float64)
    new = torch.tensor([similarity, math.sqrt(1 - similarity**2)], dtype=torch.float64)
    writes = [(old, TWO[0], 1.0)] + [(new, TWO[1], strength)] * rewrites
    H = D = torch.zeros(2, 2, dtype=torch.float64)
    for key, value, eta in writes:
        H, D = hebbian(H, key, value, lr=eta), delta(D, key, value, lr=eta)
    stored = torch.stack([key for key, _, _ in writes]), torch.stack([value for _, value, _ in writes])
    found = {}
    for name, key in (("new", new), ("old", old)):
        weights = torch.softmax(8 * stored[0] @ key, 0)
        right = TWO[1] if name == "new" or similarity == 1 else TWO[0]
        found[name] = torch.stack([read(H, key), read(D, key), weights @ stored[1]]), right
    return found


# %%
def overwrite(similarity, strength, rewrites):
    """Move the bars to one state and say what each memory answers."""
    found, good, told = asked(similarity, strength, rewrites), [True] * 3, []
    for name, (given, right) in found.items():
        for row in range(3):
            for part in range(2):
                parts[name, row, part].set_width(min(given[row, part].item(), 3.2))
            good[row] &= bool((given[row] - right).abs().max() < 0.1)
        for part, ring in enumerate(parts[name, "right"]):
            ring.set_data([right[part].item()] * 3, [row - 0.18 + 0.36 * part for row in range(3)])
        each = (f"{who} {x:.2f} old, {y:.2f} new" for who, (x, y) in zip(MEMORIES, given.tolist(), strict=True))
        told.append(f"To the {name} key: " + "; ".join(each) + ".")
    if similarity == 1:
        told[1] = "The old key is the same key."
    winners = [name for name, fine in zip(MEMORIES, good, strict=True) if fine]
    often = {1: "once", 2: "twice"}.get(rewrites, f"{rewrites} times")
    start = f"Similarity {similarity:g}, written {often} with strength {strength:g}. "
    return start + " ".join(told) + f" Right within 0.1 on all: {', '.join(winners) or 'none'}."


# %% tags=["widget"]
course.explore(
    fig,
    overwrite,
    [
        course.Slider("similarity", "similarity of old and new key", [0.0, 0.25, 0.5, 0.8, 1.0], start=1.0),
        course.Slider("strength", "strength of the write η", [0.25, 0.5, 1.0, 1.5], start=1.0),
        course.Slider("rewrites", "number of rewrites", [1, 2, 4]),
    ],
    name="overwrite-a-key",
    title="Overwrite a key: three memories answer",
    goal="Find a setting where only the delta rule is right, and one where only softmax attention is.",
    presets={
        "the same key": {"similarity": 1.0, "strength": 1.0, "rewrites": 1},
        "a similar key": {"similarity": 0.5, "strength": 1.0, "rewrites": 1},
        "unrelated keys": {"similarity": 0.0, "strength": 1.0, "rewrites": 1},
        "gentle, four times": {"similarity": 1.0, "strength": 0.5, "rewrites": 4},
        "too strong": {"similarity": 1.0, "strength": 1.5, "rewrites": 1},
    },
)

# %% tags=["claim"]
same, alike, apart = (asked(c, 1.0, 1) for c in (1.0, 0.5, 0.0))
course.claim(
    "the same key: linear attention answers the sum of both values, softmax their mean, delta the new one",
    torch.equal(same["new"][0][0], TWO.sum(0))
    and torch.allclose(same["new"][0][2], TWO.mean(0))
    and torch.allclose(same["new"][0][1], TWO[1]),
)
course.claim(
    "similarity 0.5: delta answers the new key exactly and spoils the old one ({a:.2f} of the old value, {b:.2f} of the "
    "new); softmax is within {c:.2f} on both",
    torch.allclose(alike["new"][0][1], TWO[1]) and (alike["old"][0][1] - TWO[0]).abs().max() > 0.3
    and max((given[2] - right).abs().max() for given, right in alike.values()) < 0.05,
    a=alike["old"][0][1, 0],
    b=alike["old"][0][1, 1],
    c=max((given[2] - right).abs().max() for given, right in alike.values()),
)  # fmt: skip
course.claim("unrelated keys: all three are right", all((g - r).abs().max() < 0.01 for g, r in apart.values()))

# %% [markdown]
# Each memory fails in its own way. Softmax attention told its keys apart, and could not tell *when*. It needs that from
# elsewhere: from positions (section 7).
#
# ## 5 · Which memory holds most?
#
# Now many pairs: $N$ random keys with 32 numbers, and one of 64 codes as value. Each pair passes by once; then all are asked.
# An answer is right if the right code is nearest to it. Three kinds of stream:
#
# | stream | keys |
# |---|---|
# | random | each key once |
# | overwritten | each key first with another value, later with the one that counts |
# | correlated | a common direction is added to all keys |
#
# As a ceiling, the best matrix there is for what is asked (least squares). Softmax has sharpness 16.
#
# **Predict.** On random keys, who holds more at $N = 64$: Hebb or the delta rule?

# %%
from nlcore.metrics import confidence_interval
from nlcore.tasks.facts import best_memory
from nlcore.tasks.recall import pairs_to_store, store_with

course.show(pairs_to_store, store_with)
COUNTS = (8, 16, 32, 64)


def known(answers, facts):
    """Return the part of the facts whose code is nearest; a tie of n codes counts as 1/n. One number a seed."""
    scores = (answers @ facts.codes.mT).round(decimals=9)
    best = scores == scores.amax(-1, keepdim=True)
    hit = best.take_along_dim(facts.labels[..., None], -1)[..., 0]
    return (hit / best.sum(-1)).mean(-1)


# %%
stores = {"linear attention": store_with(hebbian), "delta, η = 1": store_with(delta)}
stores["delta, η = 0.5"] = store_with(delta, lr=0.5)
recall_of = {}
for kind in ("random", "overwritten", "correlated"):
    for N in COUNTS:
        ks, vs, facts = pairs_to_store(kind, N, seeds=range(20))
        for name, store in stores.items():
            recall_of[kind, N, name] = known(facts.keys @ store(ks, vs).mT, facts)
        by_softmax = (16 * facts.keys @ ks.mT).softmax(-1) @ vs
        recall_of[kind, N, "softmax attention"] = known(by_softmax, facts)
        ceiling = best_memory(facts.keys, facts.values)
        recall_of[kind, N, "best matrix"] = known(facts.keys @ ceiling.mT, facts)
ROWS = [*stores, "softmax attention", "best matrix"]
for kind in ("random", "overwritten", "correlated"):
    print(f"{kind:20}", *(f"{f'N = {N}':>20}" for N in COUNTS))
    for name in ROWS:
        print(f"   {name:17}", *(f"{confidence_interval(recall_of[kind, N, name])!s:>20}" for N in COUNTS))

# %% tags=["figure"]
fig, axes = course.canvas(7.4, 3.4, cols=3, sharey=True)
alt = []
for ax, kind in zip(axes, ("random", "overwritten", "correlated"), strict=True):
    for name, style in zip(ROWS, course.style.STYLES, strict=False):
        spans = [confidence_interval(recall_of[kind, N, name]) for N in COUNTS]
        bars = [[span.mean - span.low for span in spans], [span.high - span.mean for span in spans]]
        ax.errorbar(range(4), [span.mean for span in spans], bars, capsize=2, label=name, **style)
        alt.append(f"{kind}, {name}: " + " ".join(f"{span.mean:.2f}" for span in spans))
    ax.set_xticks(range(4), COUNTS)
    ax.set(xlabel="pairs N", ylim=(0, 1.04))
    ax.set_title(kind, fontweight="normal")
axes[0].set_ylabel("answered right (20 seeds,\n95 % interval)")
fig.legend(*axes[1].get_legend_handles_labels(), loc="outside lower center", ncol=3, fontsize=9)
fig.suptitle("The delta rule beats the sum where keys are written again or alike", fontweight="bold", x=0.01, ha="left")
course.figure(fig, "what-three-memories-hold", alt=f"Answered right for N = {COUNTS}. " + "; ".join(alt) + ".")


# %% tags=["claim"]
def ahead(kind, N, one, other):
    """Return the difference of two memories, paired by seed, with its 95 % interval."""
    return confidence_interval(recall_of[kind, N, one] - recall_of[kind, N, other])


plain_keys = {eta: ahead("random", 64, "linear attention", f"delta, η = {eta}") for eta in ("1", "0.5")}
course.claim(
    "random keys, N = 64: linear attention is ahead of delta by {a} (η = 1) and {b} (η = 0.5). Correcting for each new "
    "pair disturbs the old ones",
    all(span.low > 0 for span in plain_keys.values()),
    a=plain_keys["1"],
    b=plain_keys["0.5"],
)
again = [ahead("overwritten", N, "delta, η = 0.5", "linear attention") for N in COUNTS]
course.claim(
    "overwritten keys: delta (η = 0.5) is ahead at every N, by {a} at N = 8; softmax knows {b:.2f} there",
    all(span.low > 0.2 for span in again) and 0.3 < recall_of["overwritten", 8, "softmax attention"].mean() < 0.7,
    a=again[0],
    b=recall_of["overwritten", 8, "softmax attention"].mean(),
)

# %% tags=["claim"]
close = ahead("correlated", 32, "delta, η = 0.5", "linear attention")
course.claim(
    "correlated keys, N = 32: delta is ahead by {a}, and yet knows only {b:.2f}; softmax knows {c:.2f}",
    close.low > 0.05 and recall_of["correlated", 32, "softmax attention"].mean() > 0.99,
    a=close,
    b=recall_of["correlated", 32, "delta, η = 0.5"].mean(),
    c=recall_of["correlated", 32, "softmax attention"].mean(),
)

# %% [markdown]
# So "the delta rule has more capacity" is **wrong** as it stands. It is the better rule when keys are written again, or
# resemble each other. With new, random keys the plain sum holds more.
#
# And the ceiling says: the matrix could hold far more than one pass writes. What if the same pairs pass by again?

# %%
ks, vs, facts = pairs_to_store("correlated", 32, seeds=range(5))
passes = {
    n: known(facts.keys @ store_with(delta)(ks.repeat(1, n, 1), vs.repeat(1, n, 1)).mT, facts).mean()
    for n in (1, 10, 60)
}

# %% tags=["claim"]
course.claim(
    "correlated keys, N = 32: after 1, 10 and 60 passes the delta rule knows {a:.2f}, {b:.2f} and {c:.2f}. It is gradient "
    "descent, and one pass is too short",
    passes[1] < 0.5 < passes[10] < passes[60] and passes[60] > 0.9,
    a=passes[1],
    b=passes[10],
    c=passes[60],
)

# %% [markdown]
# ## 6 · Must one write after the other?
#
# A loop over tokens is slow: each step waits for the one before. Linear attention can do without, see (09.1). The delta
# rule seems to need the loop: what is written is the error $u_t = v_t - M_{t-1} k_t$, and in $M_{t-1}$ stand all earlier
# errors. But write down the errors of a whole **chunk**, one in each row of $U$, for a memory that was $M_0$ before it:
#
# $$
# (I + L) \, U = V - K M_0^\top, \qquad L_{tj} = \eta \, k_t^\top k_j \ \text{ for } j \lt t, \text{ else } 0 \tag{09.3}
# $$
#
# This is a **triangular** system: the first row is known, the second needs only the first, and so on. Solving it is one
# fast call. Then $M = M_0 + \eta \, U^\top K$ is the memory after the chunk.

# %% [markdown]
# ### Exercise 4 · `chunk_errors`
#
# *8 minutes · hard · objective: read a chunk at once, with the same numbers.*
#
# Return $U$ of (09.3). `M` has the shape `(d_v, d_k)`, `k` has `(T, d_k)`, `v` has `(T, d_v)`. The check runs the loop.


# %% tags=["exercise"]
def chunk_errors(M, k, v, lr):
    """Return the errors u_t = v_t - M_{t-1} k_t of all tokens of a chunk, without a loop over tokens."""
    ...


# %% tags=["check"]
course.check.chunk_errors(chunk_errors)

# %%
course.hint.chunk_errors(1)  # then 2 and 3, if you need them

# %% [markdown]
# <details><summary>Solution and why</summary>
#
# ```python
# def chunk_errors(M, k, v, lr):
#     L = lr * torch.tril(k @ k.T, -1)
#     one = torch.eye(len(k), dtype=k.dtype)
#     return torch.linalg.solve_triangular(one + L, v - k @ M.T, upper=False)
# ```
#
# Put $M_{t-1} = M_0 + \eta \sum_{j \lt t} u_j k_j^\top$ into $u_t = v_t - M_{t-1} k_t$ and bring the sum to the left: this
# is row $t$ of (09.3).
#
# </details>

# %% [markdown]
# In the library `chunk_size` chooses the form. The solves of all chunks run at once; one small matrix product a chunk is all
# that has to wait for its turn.
#
# **Predict.** How far apart are the numbers of the two forms?

# %%
import time

q, k, v = draws(5, *[(2, 2, 500, 32)] * 3)
k, v = normalize(k, dim=-1), normalize(v, dim=-1)
strengths = torch.sigmoid(draws(6, (2, 2, 500))[0])  # another strength for every token
forms = {
    (rule, size): rule(q, k, v, strengths, 0.98, chunk_size=size)
    for rule in (linear_attention, delta_rule, oja_rule)
    for size in (None, 7, 32, 64)
}
gaps = [(forms[rule, size][0] - forms[rule, None][0]).abs().max() for rule, size in forms if size]


def quickest(size):
    """Return the shortest of five runs, in seconds."""
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        delta_rule(q, k, v, strengths, chunk_size=size)
        times.append(time.perf_counter() - begin)
    return min(times)


faster = quickest(None) / quickest(32)

# %% tags=["claim"]
course.claim(
    "chunks of 7, 32 and 64 give the numbers of the loop: the largest of {n} differences is below 1e-10",
    max(gaps) < 1e-10,
    n=len(gaps),
)
y_first, halfway = delta_rule(q[:, :, :200], k[:, :, :200], v[:, :, :200], strengths[:, :, :200], 0.98)
y_rest, _ = delta_rule(q[:, :, 200:], k[:, :, 200:], v[:, :, 200:], strengths[:, :, 200:], 0.98, state=halfway)
course.claim(
    "a stream may stop after 200 tokens and go on from its state: the answers are those of the whole",
    (torch.cat([y_first, y_rest], 2) - forms[delta_rule, None][0]).abs().max() < 1e-10,
)
course.claim("chunks of 32 are more than one and a half times as fast as the loop on this machine", faster > 1.5)
print("Run  print(faster)  to see the ratio on yours.")

# %% [markdown]
# ## 7 · What does a trained model make of its memory?
#
# Until now keys and values were given. In a model they are learned: three linear maps make $q$, $k$ and $v$ of each
# token, and a short convolution lets a token see its three neighbours. The task is **recall** (MQAR): pairs of a key and
# a value go by, then keys are asked. With overwriting every key is written a second time with another value, and the
# last one counts.
#
# We train four small models that differ in the memory alone: one block, 32 numbers wide, 8 keys, 8 values. Softmax
# attention takes part twice: with positions (rotary, as in most Transformers) and without.
#
# **Predict.** Which ones learn that the *newer* value counts?

# %%
from functools import partial

from nlcore.sequence.fitting import fit_tokens, token_accuracy
from nlcore.sequence.layers.named import named_model
from nlcore.tasks.recall import recall

course.show(recall, named_model, fit_tokens, token_accuracy)
small_recall = partial(recall, overwrite=True, keys=8, values=8)
one = small_recall(1, torch.Generator().manual_seed(0), pairs=(2,))
print("tokens", one.tokens[0].tolist(), " (keys 0 to 7, values 8 to 15)")
print("right ", one.targets[0].tolist(), " (-100: nothing is asked)")

# %%
LIVE = {
    "linear": "linear attention",
    "delta": "delta rule",
    "softmax": "softmax, rotary",
    "softmax_nope": "softmax, no positions",
}
learned = {}


def learn_recall(name):
    """Train one model and note how often it is right with 2, 4 and 8 pairs."""
    torch.manual_seed(0)
    model = named_model(name, vocabulary=16, dim=32, heads=1, dtype=torch.float64).to(device)
    losses = fit_tokens(model, partial(small_recall, 32, pairs=(2, 4, 8)), steps=120, lr=0.015)
    for N in (2, 4, 8):
        batch = small_recall(256, torch.Generator().manual_seed(N), pairs=(N,)).to(device)
        learned[name, N] = token_accuracy(model, batch)
    told = "  ".join(f"{N}: {learned[name, N]:.2f}" for N in (2, 4, 8))
    print(f"{LIVE[name]:22} loss {losses[0]:.2f} -> {losses[-1]:.2f}   right with N pairs  {told}")


learn_recall("linear")
learn_recall("delta")

# %%
learn_recall("softmax")
learn_recall("softmax_nope")

# %% tags=["claim"]
course.claim(
    "8 overwritten pairs, one seed: delta knows {d:.2f}, softmax with positions {s:.2f}, linear attention {h:.2f}, softmax "
    "without positions {n:.2f}",
    min(learned["delta", 8], learned["softmax", 8]) > 0.9
    and max(learned["linear", 8], learned["softmax_nope", 8]) < 0.75,
    d=learned["delta", 8],
    s=learned["softmax", 8],
    h=learned["linear", 8],
    n=learned["softmax_nope", 8],
)

# %% [markdown]
# As in the widget: a sum, and a weighted mean of equal keys, hold both values. The delta rule replaces, and positions let
# softmax tell old from new.
#
# One seed proves little. A script has trained seven memories with 32 keys and 32 values, `notebooks/sweeps/token_memories.py`:
# each with the same grid of learning rates, chosen on a tuning seed; other seeds give the result. Once with keys that are
# written once, and a smaller state (two heads of 16); once with overwriting (two heads of 32).
#
# **Predict.** In section 5 the sum held more new keys than the delta rule. Will trained models show it?

# %%
from nlcore.sweeps import load_sweep

record = load_sweep("token_memories")
print(record["command"], "with torch", record["torch"])
NAMES = {
    "softmax": "softmax, rotary",
    "softmax_nope": "softmax, no positions",
    "linear": "linear attention",
    "delta": "delta rule",
    "titans": "Titans",
    "self_modifying_16": "self-modifying Titans",
    "gru": "GRU (no key-value memory)",
}
PAIRS = ("4", "8", "16", "24", "32")


def scores(task, name, N):
    """Return the accuracy of each seed with N pairs."""
    seeds = record["results"][task][name]["seeds"]
    return torch.tensor([seeds[seed]["accuracy"][N] for seed in sorted(seeds)], dtype=torch.float64)


for task, words in (("recall", "each key once"), ("recall_overwritten", "each key twice")):
    print(f"\n{words:28} N =", *(f"{N:>8}" for N in PAIRS))
    for name in record["results"][task]:
        print(f"   {NAMES[name]:29}", *(f"{scores(task, name, N).mean():8.3f}" for N in PAIRS))

# %% tags=["figure"]
fig, axes = course.canvas(7.4, 4.0, cols=2, sharey=True)
LOOKS = [*course.style.STYLES, {"color": "#777777", "linestyle": "-", "marker": "*"}][: len(NAMES)]
alt = []
for ax, (task, words) in zip(
    axes, (("recall", "each key once, smaller state"), ("recall_overwritten", "each key twice")), strict=True
):
    for (name, label), look in zip(NAMES.items(), LOOKS, strict=True):
        if name not in record["results"][task]:
            continue
        seeds = torch.stack([scores(task, name, N) for N in PAIRS])  # (N, seeds)
        ax.plot(range(5), seeds.mean(1), label=label, **look)
        for column in seeds.T:
            ax.plot(range(5), column, look["marker"], color=look["color"], markersize=3, alpha=0.6)
        alt.append(f"{words}, {label}: " + " ".join(f"{mean:.2f}" for mean in seeds.mean(1)))
    ax.set_xticks(range(5), PAIRS)
    ax.set(xlabel="pairs N", ylim=(0, 1.04))
    ax.set_title(words, fontweight="normal")
axes[0].set_ylabel("answered right\n(line: mean, small: single seeds)")
fig.legend(*axes[1].get_legend_handles_labels(), loc="outside lower center", ncol=3, fontsize=9)
fig.suptitle("Overwriting stops the sum at one half, and no correcting memory", fontweight="bold", x=0.01, ha="left")
course.figure(
    fig, "recall-with-trained-memories", alt=f"Answered right for N = {', '.join(PAIRS)}. " + "; ".join(alt) + "."
)

# %% tags=["claim"]
TWICE = {name: scores("recall_overwritten", name, "16") for name in NAMES}
course.claim(
    "each key twice, N = 16: linear attention knows {a} (mean and 95 % interval over {n} seeds); delta {b}, Titans {c}, "
    "softmax with positions {d}",
    TWICE["linear"].max() < 0.8 and min(TWICE[name].mean() for name in ("delta", "titans", "softmax")) > 0.9,
    a=confidence_interval(TWICE["linear"]),
    n=len(TWICE["linear"]),
    b=confidence_interval(TWICE["delta"]),
    c=confidence_interval(TWICE["titans"]),
    d=confidence_interval(TWICE["softmax"]),
)

# %% tags=["claim"]
once = {name: scores("recall", name, "32") for name in record["results"]["recall"]}
short = {name: int((once[name] < 0.95).sum()) for name in ("linear", "delta", "titans")}
course.claim(
    "each key once, N = 32: linear attention knows {a:.3f}, delta {b:.3f}, Titans {c:.3f}, softmax {d:.3f}. Below 0.95 are {e}, {f} "
    "and {g} of {n} seeds of the first three; linear attention minus delta, paired by seed, is {h}",
    min(once["linear"].mean(), once["softmax"].mean()) > 0.95 and short["linear"] == 0 < short["titans"],
    **dict(zip("abcd", (once[name].mean() for name in ("linear", "delta", "titans", "softmax")), strict=True)),
    **dict(zip("efg", short.values(), strict=True)),
    n=len(once["linear"]),
    h=confidence_interval(once["linear"] - once["delta"]),
)

# %% tags=["claim"]
tops = {
    task: max(
        (scores(task, name, N) - scores(task, "softmax", N)).mean()
        for name in record["results"][task]
        for N in PAIRS
        if name != "softmax"
    )
    for task in ("recall", "recall_overwritten")
}
course.claim(
    "nothing beats softmax with positions at these lengths: the best of the others is {a:+.3f} and {b:+.3f} from it",
    max(tops.values()) < 0.02,
    a=tops["recall"],
    b=tops["recall_overwritten"],
)

# %% [markdown]
# Say only what this shows. With overwriting linear attention stays near one half: it holds both values. With keys written
# once a matrix can hold them all, although 32 keys do not fit at right angles into 16 dimensions: a trained model chooses its
# keys. The sum does so with every seed; those that correct, not yet with some. Whether that is the lead of section 5 or a
# matter of training, three seeds cannot say. Nothing beats softmax attention here. What the others buy is a state that does
# not grow (section 1).
#
# ## 8 · Who is updated how often?
#
# Definition 2 of the paper (notebook 04) orders the parts of a system by how often each is updated. Here are two blocks that
# differ in one layer, with the rest frozen after training.
#
# **Predict.** How often is attention updated? How often the MLP?

# %%
from nlcore.levels import Level, describe, nest

for name in ("softmax", "linear"):
    model = named_model(name, vocabulary=16, dim=32, heads=1, dtype=torch.float64)
    frozen_part = Level("projections and MLP", math.inf, "what training left")
    print(f"{LIVE[name]}: {describe(nest(model, frozen_part))}")
    print()

# %% [markdown]
# Attention has frequency infinity: it is computed anew for each token and keeps no state of its own. The matrix memory
# is updated once a token. The MLP is updated never, frequency 0: all it knows comes from training.
#
# Between 1 and 0 is a large gap. The paper fills it (notebooks 08 and 12). The smallest step: take a frozen layer $W$ and
# let the stream write into it,
#
# $$
# W_t = W_{t-1} + \eta \, v_t k_t^\top, \qquad W_0 = W \tag{NL 69}
# $$
#
# That is linear attention which starts from trained weights and not from zero.
#
# **Predict.** With $\eta = 0$, what is it?

# %%
from nlcore.sequence import MemoryState

W = draws(7, (1, 1, 32, 32))[0] / 32**0.5
q, k, v = (normalize(x, dim=-1) for x in draws(8, *[(1, 1, 20, 32)] * 3))
frozen, _ = linear_attention(q, k, v, lr=0.0, state=MemoryState(W))
plastic, after = linear_attention(q, k, v, lr=0.5, state=MemoryState(W))

# %% tags=["claim"]
course.claim(
    "with strength 0 it is the frozen layer W q; with 0.5 the first answer is {near:.2f} away from that, the last "
    "{far:.2f}: the same form on another level",
    torch.allclose(frozen, q @ W.mT, rtol=0, atol=1e-12)
    and (plastic - frozen)[..., 0, :].norm() < (plastic - frozen)[..., -1, :].norm(),
    near=(plastic - frozen)[..., 0, :].norm(),
    far=(plastic - frozen)[..., -1, :].norm(),
)

# %% [markdown]
# ## What you did
#
# * You derived softmax attention as the best answer to a weighted error (exercise 1), linear attention as a step on a dot
#   product (exercise 2), the delta rule as a step on a squared error (exercise 3).
# * You saw one function be linear attention when it reads tokens, and momentum when it reads gradients.
# * You overwrote a key: a sum answers both values, a mean answers half of each, a correction the new one.
# * You measured capacity: the plain sum holds more new random keys, the delta rule more keys that are written again or alike.
# * You read a chunk at once by a triangular system (exercise 4), with the numbers of the loop.
# * You ordered two blocks by Definition 2: infinity, once a token, never.
#
# ## What this does not show
#
# * No memory of fixed size beats softmax attention on these tasks. The gain is in cost, and only on long streams.
# * Small models, short sequences, artificial pairs, few seeds: small differences between the good memories mean nothing.
# * In section 5 nothing was tuned but two strengths shown. A decay, or another number of passes, moves the lines. The keys
#   are random there; a trained model chooses its keys.
# * The models of section 7 have a short convolution. Without it a key cannot be bound to the value after it in one block.
# * $\eta$ above 1, momentum and decay have uses that recall does not show: notebooks 10 and 11.
#
# ## Recall
#
# <details><summary>1. Which memory for which job? (a) a phone book that is corrected daily, in little space; (b) many new,
# unrelated facts, once each, in little space; (c) a short text in which each word may matter; (d) gradients.</summary>
#
# (a) The delta rule: it replaces. (b) Linear attention: the sum holds more new random keys. (c) Softmax attention, with
# positions. (d) The same as (b): with decay, that is momentum.
#
# </details>
#
# <details><summary>2. Which objective belongs to each of the three memories?</summary>
#
# Softmax: the weighted squared error of one answer, minimised anew for each question. Linear attention: minus the dot
# product of answer and value. Delta: half the squared error of the answer.
#
# </details>
#
# <details><summary>3. Two identical keys, an old and a new value. Why is softmax attention without positions helpless?</summary>
#
# Equal keys have equal weights, so it answers the mean of both values. Nothing in the pair says when it was written.
#
# </details>
#
# <details><summary>4. Why does the chunk form need a triangular solve for the delta rule, and none for linear attention?</summary>
#
# The delta rule writes errors, and each depends on the errors before it. Hebb writes the values, which are known.
#
# </details>
#
# ## Further reading
#
# * Behrouz, Razaviyayn, Zhong, Mirrokni, *Nested Learning*, arXiv 2512.24695, section 5: architectures as memories (30
#   minutes).
# * Schlag, Irie, Schmidhuber, *Linear Transformers Are Secretly Fast Weight Programmers*, arXiv 2102.11174: the sum and the
#   delta rule, and their capacity (40 minutes).
# * Yang and others, *Parallelizing Linear Transformers with the Delta Rule over Sequence Length*, arXiv 2406.06484: the chunk
#   form (40 minutes).
# * Arora and others, *Zoology*, arXiv 2312.04927: recall as the task that tells architectures apart (30 minutes).
