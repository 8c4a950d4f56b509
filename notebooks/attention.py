# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Attention: how does a token use what all others know?
#
# A convolution looks at a neighbourhood. Attention looks everywhere, and decides by itself where. In ten minutes you
# will
#
# 1. compute one attention by hand,
# 2. see why the scores are divided by √d, and what goes wrong without it,
# 3. train one attention layer on a task that only attention can solve, and see it learn *where to look*,
# 4. compare the multi-head layer with `torch.nn.MultiheadAttention`.
#
# The note behind it: [attention](../scratch/ops/attention.py). Its proofs:
# [tests/ops/test_attention.py](../tests/ops/test_attention.py).

# %%
# Set-up, the same in every notebook. It works on Colab, in a clone, and on two CPU cores.
REPOSITORY = "https://github.com/OWNER/detr-scratch.git"  # on Colab: write this repository's address here

import os
import subprocess
import sys
from pathlib import Path

root = next((p for p in (Path.cwd(), *Path.cwd().parents) if (p / "detr_scratch.py").is_file()), None)
if root is None:  # there is no clone around this notebook: get one, and the packages that are missing
    root = Path("detr-scratch").resolve()
    if not root.exists():
        if "OWNER" in REPOSITORY:
            raise ValueError(f"got {REPOSITORY}, wanted the address of the repository: write it into REPOSITORY above")
        subprocess.run(["git", "clone", "--quiet", "--depth", "1", REPOSITORY, str(root)], check=True)
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "-r", str(root / "requirements.txt")], check=True)
os.chdir(root)  # data/ and runs/ are made here
sys.path.insert(0, str(root))
QUICK = os.environ.get("NOTEBOOK_QUICK") == "1"  # the tests run every notebook with a few steps only

# %%
import math

import torch
from matplotlib import pyplot as plt

from notebooks.shown import panels, source
from scratch.ops.attention import MultiheadAttention, attention_batched, attention_naive
from scratch.ops.cross_entropy import cross_entropy
from scratch.ops.linear import Embedding, Linear
from scratch.training.optimizer import AdamW

# %matplotlib inline
torch.manual_seed(0);

# %% [markdown]
# ## 1 By hand
#
# Each token has a *query* (what it looks for), a *key* (what it offers) and a *value* (what it passes on):
#
#     Attention(q, k, v) = P v,    P = softmax(q kᵀ/√d)
#
# A row of P holds the weights of one query. They are positive and their sum is 1, so the result is a *mean of the
# values*, weighted by how well query and key fit.

# %%
source(attention_naive, attention_batched)

# %% [markdown]
# Two tokens with d = 1. Token 0 has the value 4, token 1 the value 8. The scores of query 0 are 0 and ln 3.
#
# **Predict the number 1.** e⁰ = 1 and e^(ln 3) = 3. What is the result for query 0?

# %%
q = torch.tensor([[1.0]])                                    # (Q,d) = (1,1)
k = torch.tensor([[0.0], [math.log(3)]])                     # (S,d) = (2,1)
v = torch.tensor([[4.0], [8.0]])                             # (S,d) = (2,1)
output, P = attention_batched(q, k, v)
print(f"weights: {P[0, 0]:.2f} and {P[0, 1]:.2f}   result: {output.item():.2f}")

# %% [markdown]
# ## 2 Why √d?
#
# A score q·k is a sum of d products. If q and k have variance 1, the score has variance d: the longer the vectors,
# the larger the scores. Softmax of large scores puts all its weight on one token, and where a softmax is saturated
# its gradient is nearly 0. Divided by √d, the scores have variance 1 for every d.
#
# **Predict the number 2.** 100 tokens, d = 64, random q and k. Without √d, how large is the largest of the 100
# weights on average? (If all were equal, each would be 0.01.)

# %%
def largest_weight(d, divided):
    q, k = torch.randn(400, 1, d), torch.randn(400, 100, d)
    scores = q @ k.transpose(1, 2) / (math.sqrt(d) if divided else 1.0)   # (400,1,100)
    return float(scores.softmax(-1).amax(-1).mean())

print(f"without √d: {largest_weight(64, False):.2f}     with √d: {largest_weight(64, True):.2f}")

# %%
widths = [1, 2, 4, 8, 16, 32, 64, 128, 256]
figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
for divided, label in ((False, "without √d"), (True, "with √d")):
    axes.plot(widths, [largest_weight(d, divided) for d in widths], marker="o", label=label)
axes.axhline(1 / 100, color="grey", linestyle=":", label="all equal")
axes.set(xscale="log", xlabel="d, the width of a head", ylabel="largest of 100 weights, mean", ylim=(0, 1))
axes.legend(frameon=False);

# %% [markdown]
# ## 3 It learns where to look
#
# The task: eight tokens, each with a name (one of 16, all different) and a colour (one of 8). A question asks for a
# name, and the answer is the colour of the token with this name. The tokens are in a random order, so no fixed place
# helps. A mean over all tokens cannot answer; a layer that finds the right token can.

# %%
NAMES, COLOURS, TOKENS, D = 16, 8, 8, 32

def questions(count):
    names = torch.stack([torch.randperm(NAMES)[:TOKENS] for _ in range(count)])          # (B,S)
    colours = torch.randint(COLOURS, (count, TOKENS))                                    # (B,S)
    asked = torch.randint(TOKENS, (count, 1))                                            # (B,1): which token
    return names, colours, names.gather(1, asked), colours.gather(1, asked)[:, 0], asked[:, 0]

class Reader(torch.nn.Module):
    """One cross-attention: the question is the query, the tokens are keys and values."""

    def __init__(self):
        super().__init__()
        self.name, self.colour = Embedding(NAMES, D), Embedding(COLOURS, D)
        self.attention = MultiheadAttention(D, 1)
        self.answer = Linear(D, COLOURS)

    def forward(self, names, colours, question):
        tokens = self.name(names) + self.colour(colours)                                 # (B,S,D)
        read, weights = self.attention(self.name(question), tokens, tokens, need_weights=True)
        return self.answer(read[:, 0]), weights[:, 0, 0]                                 # (B,8), (B,S)

torch.manual_seed(1)
reader = Reader()
names, colours, question, right, asked = questions(500)
_, before = reader(names, colours, question)
optimizer, losses, accuracy = AdamW(reader.parameters(), lr=3e-3, weight_decay=0.0), [], []
for step in range(20 if QUICK else 200):
    n, c, q, target, _ = questions(128)
    loss = cross_entropy(reader(n, c, q)[0], target)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    losses.append(loss.item())
    if step % 10 == 9:
        accuracy.append((reader(names, colours, question)[0].argmax(-1) == right).float().mean().item())
answers, after = reader(names, colours, question)
on_it = [weights.gather(1, asked[:, None]).mean().item() for weights in (before, after)]
print(f"right answers: {accuracy[-1]:.0%}   (guessing: {1 / COLOURS:.0%})")
print(f"weight on the token that was asked for: before {on_it[0]:.2f}, after {on_it[1]:.2f}")

# %%
figure, (curve, left, middle) = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
curve.plot(range(10, 10 * len(accuracy) + 1, 10), accuracy)
curve.axhline(1 / COLOURS, color="grey", linestyle=":")
curve.set(title="right answers", xlabel="step", ylim=(0, 1.02))
for axes, weights, title in ((left, before, "weights before training"), (middle, after, "weights after training")):
    axes.imshow(weights[:12].detach(), cmap="magma", vmin=0, vmax=1)
    axes.scatter(asked[:12], range(12), marker="s", s=110, facecolors="none", edgecolors="deepskyblue", linewidths=2)
    axes.set(title=f"{title}, 12 questions", xlabel="token (blue: the one that is asked for)", yticks=[])

# %% [markdown]
# Nobody told the layer where to look: only the answers were graded. The weights became sharp because a sharp row is
# what gives the right mean. DETR's object queries do the same: each learns to look at what tells it class and box.
#
# **The order is not seen.** Shuffle the tokens, and the answer is the same. Attention reads a set. This is why DETR
# adds [positional encodings](positional_encodings.ipynb).

# %%
order = torch.randperm(TOKENS)
shuffled, _ = reader(names[:, order], colours[:, order], question)
print(f"largest change of the answers when all tokens change places: {(shuffled - answers).abs().max():.1e}")

# %% [markdown]
# ## 4 Several heads, and torch.nn
#
# One head has one row of weights. *Multi-head attention* runs N heads of width d = D/N beside each other, each with
# projections of its own. A last linear layer mixes what they found.
#
# **Predict the number 3.** D = 256. The layer has four linear maps 256 → 256 with biases: for queries, keys, values
# and the output. How many parameters is that? Does the number of heads change it?

# %%
for heads in (1, 8):
    layer = MultiheadAttention(256, heads)
    print(f"{heads} heads: {sum(p.numel() for p in layer.parameters()):,} parameters")

# %% [markdown]
# The layer draws the same first weights as PyTorch's, and gives the same result:

# %%
torch.manual_seed(3)
ours = MultiheadAttention(256, 8)
torch.manual_seed(3)
theirs = torch.nn.MultiheadAttention(256, 8, batch_first=True)
queries, memory = torch.randn(2, 100, 256), torch.randn(2, 380, 256)     # (B,Q,D), (B,S,D): DETR's cross-attention
padding = torch.zeros(2, 380, dtype=torch.bool)
padding[1, 300:] = True                                                  # the second image is smaller
(a, wa), (b, wb) = (layer(queries, memory, memory, key_padding_mask=padding, need_weights=True,
                          average_attn_weights=True) for layer in (ours, theirs))
print(f"largest difference: outputs {(a - b).abs().max():.1e}, weights {(wa - wb).abs().max():.1e}")
print(f"weight on the padding: {wa[1, :, 300:].sum():.0f}")

# %% [markdown]
# What do eight heads look like before they have learnt anything? Nearly even, each slightly different. Their rows
# over 20 tokens, for one query:

# %%
_, weights = ours(queries[:1, :1], memory[:1, :20], memory[:1, :20], need_weights=True)  # (1,8,1,20)
panels([weights[0, :, 0].detach()], ["eight heads (rows), 20 tokens (columns)"], size=6, cmap="magma", vmin=0);

# %% [markdown]
# ## What to take away
#
# * Attention is a mean of values. The weights say where to look, and they are computed from the content.
# * √d keeps softmax out of saturation, so that there is a gradient to learn from.
# * It reads a set: no order, and every token is equally near.
#
# **Try it:** in section 3 replace `MultiheadAttention(D, 1)` by a plain mean of the tokens, and predict the share of
# right answers. Then read [transformer](../scratch/model/transformer.py), and look at a trained detector's [attention
# maps](attention_maps.ipynb).
