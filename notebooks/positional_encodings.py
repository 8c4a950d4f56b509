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
# # Positional encodings: attention sees a set. How does a cell say where it stands?
#
# A detector that cannot tell left from right cannot place a box. Yet attention treats the cells of a feature map as a
# set. In ten minutes you will
#
# 1. see what a sine encoding looks like, and which cells are alike to it,
# 2. see that padding does not change it, and that a shift is a rotation,
# 3. train one attention layer with and without it, on a question that begins with *where*.
#
# The notes behind it: [sine_encoding](../scratch/ops/sine_encoding.py) and, for places that are no cells,
# [place_encoding](../scratch/ops/beyond/place_encoding.py). Their proofs:
# [tests/ops/test_sine_encoding.py](../tests/ops/test_sine_encoding.py),
# [tests/ops/beyond/test_place_encoding.py](../tests/ops/beyond/test_place_encoding.py).

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
from scratch.ops.attention import MultiheadAttention
from scratch.ops.linear import Linear
from scratch.ops.sine_encoding import sine_code_naive, sine_encoding
from scratch.training.optimizer import AdamW

# %matplotlib inline
torch.manual_seed(0);

# %% [markdown]
# ## 1 Sines and cosines of a place
#
# Take the row of a cell as an angle from 0 to 2π, and the column as another. Write down sine and cosine of the angle,
# of the angle divided by a number a little larger than 1, of the angle divided by a larger number, and so on:

# %%
source(sine_code_naive)

# %% [markdown]
# DETR's encoding of a grid of 20×30 cells has 256 channels: 128 for the row, then 128 for the column. Some of them:

# %%
free = torch.zeros(1, 20, 30, dtype=torch.bool)              # pad_mask (B,h,w): nothing is padding
code = sine_encoding(free, 128)[0]                           # (256,20,30)
channels = [0, 1, 8, 24, 128, 129, 136, 152]
panels([code[c] for c in channels], [f"channel {c}: {'row' if c < 128 else 'column'}" for c in channels],
       cmap="coolwarm", vmin=-1, vmax=1);

# %% [markdown]
# **Predict the number 1.** The first pair of channels (0 and 1) turns once while the row goes from the top to the
# bottom. Each later pair turns less, down to nearly a 10,000th of it. Of the 64 pairs of the row, how many move by
# less than 0.1 rad from one edge of the image to the other?

# %%
turns = 2 * math.pi / 10000 ** (2 * torch.arange(64) / 128)   # how far each pair turns over the image, in rad
print("pairs that turn by less than 0.1 rad:", int((turns < 0.1).sum()), "of 64")

# %% [markdown]
# More than half of the channels hardly say anything. DETR took the number 10,000 over from language models, where
# positions run to thousands. DAB-DETR, whose ideas the preset `tiny` uses, takes 20.
#
# **Which cells are alike?** Attention compares by dot products. Choose a cell: how alike is every other cell's
# encoding?

# %%
def alike(code, row, column):
    """Cosine similarity of one cell's encoding with that of every cell: (h,w)."""
    unit = code / code.norm(dim=0)
    return torch.einsum("c,chw->hw", unit[:, row, column], unit)

cells = [(3, 5), (10, 15), (17, 27)]  # (row, column): change them
sharper = sine_encoding(free, 128, temperature=20)[0]
panels([alike(c, *cell) for c in (code, sharper) for cell in cells],
       [f"T = {T:,}: cell {cell}" for T in (10000, 20) for cell in cells], columns=3, cmap="magma", vmin=0, vmax=1);

# %% [markdown]
# Near cells are the most alike, in every direction. With T = 10,000 far cells are still rather alike, because most
# channels hardly move. With T = 20 the peak is sharper: more channels take part.
#
# ## 2 Padding, and a shift
#
# Images of one batch differ in size, and the smaller ones are padded. The encoding counts the cells of the image
# alone, so an image has the same encoding with and without padding beside it:

# %%
padded = torch.ones(1, 24, 40, dtype=torch.bool)
padded[:, :20, :30] = False
print(f"largest change of the image's cells: {(sine_encoding(padded, 128)[0][:, :20, :30] - code).abs().max():.1e}")

# %% [markdown]
# A shift to the right by a share s of the image turns each pair (sin, cos) by an angle of its own, the same
# wherever the shift begins. A rotation is a linear map, so one linear layer can learn "a quarter of the image to the
# left".
#
# **Predict the number 2.** The first pair of the column turns by 360° over the whole image of 32 cells. By how many
# degrees does it turn from cell 4 to cell 12? And from cell 20 to cell 28?

# %%
line = sine_encoding(torch.zeros(1, 1, 32, dtype=torch.bool), 128)[0, 128:130, 0]    # (2,32): sin and cos of the column
angle = torch.atan2(line[0], line[1]) * 180 / math.pi
for start in (4, 20):
    print(f"from cell {start} to cell {start + 8}: {float(angle[start + 8] - angle[start]) % 360:.0f}°")

# %%
figure, axes = plt.subplots(figsize=(3.4, 3.4), layout="constrained")
axes.plot(line[1], line[0], ".", color="lightgrey")
for start, colour in ((4, "tab:blue"), (20, "tab:orange")):
    for cell in (start, start + 8):
        axes.plot([0, line[1, cell]], [0, line[0, cell]], color=colour)
        axes.annotate(f"cell {cell}", (line[1, cell], line[0, cell]), fontsize=8)
axes.set(aspect="equal", xlabel="cos", ylabel="sin", title="8 cells to the right: one rotation");

# %% [markdown]
# ## 3 A question that begins with *where*
#
# The image has 6×6 cells, each with a grey value between 0 and 1. The question is a place, given by its encoding. The
# answer is the grey value of the cell there. As in DETR, positions are added to queries and keys, never to values:
# they decide *where* to read, not *what* is read.
#
# **Predict the number 3.** Without positional encodings the best that attention can do is to answer with the mean of
# the 36 cells. Grey values that are uniform in [0, 1] have variance 1/12. How large is the mean squared error then?

# %%
N, D = 6, 64
grid = sine_encoding(torch.zeros(1, N, N, dtype=torch.bool), D // 2, temperature=20)[0].flatten(1).T   # (36,D)

class WhereReader(torch.nn.Module):
    def __init__(self, encoded):
        super().__init__()
        self.encoded, self.content = encoded, Linear(1, D)
        self.attention, self.answer = MultiheadAttention(D, 1), Linear(D, 1)

    def forward(self, grey, places):
        """grey (B,36), places (B,) → the grey value there (B,), and where it looked (B,36)."""
        values = self.content(grey[..., None])                                     # (B,36,D): content, no position
        keys = values + grid if self.encoded else values
        read, weights = self.attention(grid[places][:, None], keys, values, need_weights=True)
        return self.answer(read)[:, 0, 0], weights[:, 0, 0]

def trained(encoded, steps):
    torch.manual_seed(2)
    reader = WhereReader(encoded)
    optimizer, errors = AdamW(reader.parameters(), lr=3e-3, weight_decay=0.0), []
    for _ in range(steps):
        grey, places = torch.rand(256, N * N), torch.randint(N * N, (256,))
        error = (reader(grey, places)[0] - grey[torch.arange(256), places]).square().mean()
        error.backward()
        optimizer.step()
        optimizer.zero_grad()
        errors.append(error.item())
    return reader, errors

runs = {name: trained(encoded, 20 if QUICK else 1000) for name, encoded in (("without", False), ("with", True))}
for name, (_, errors) in runs.items():
    print(f"{name:>7} positional encodings: mean squared error {sum(errors[-20:]) / len(errors[-20:]):.4f}")
print(f"1/12 = {1 / 12:.4f}; the mean of an image's own 36 cells: 1/12·(1 − 1/36) = {1 / 12 * (1 - 1 / 36):.4f}")

# %%
figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
for name, (_, errors) in runs.items():
    axes.plot(torch.tensor(errors).unfold(0, 10, 1).mean(1), label=f"{name} positional encodings")
axes.axhline(1 / 12, color="grey", linestyle=":", label="1/12")
axes.set(xlabel="step", ylabel="mean squared error", yscale="log")
axes.legend(frameon=False);

# %% [markdown]
# Where does the layer look? Nine questions, for cells all over the image. The blue square is the cell that was asked
# for.

# %%
places = torch.tensor([0, 3, 5, 12, 15, 17, 30, 33, 35])
maps = runs["with"][0](torch.rand(9, N * N), places)[1].detach().view(9, N, N)
figure = panels(list(maps), columns=9, size=1.2, cmap="magma", vmin=0)
for axes, place in zip(figure.axes, places.tolist()):
    axes.add_patch(plt.Rectangle((place % N - .5, place // N - .5), 1, 1, fill=False, edgecolor="deepskyblue", lw=2))

# %% [markdown]
# ## What to take away
#
# * Without an encoding, attention answers every *where* with a mean.
# * The encoding makes near cells alike, so that dot products can point at a place.
# * A shift is a rotation, the same everywhere. Shares of the image count, not cells, so padding does not matter.
#
# **Try it:** give `grid` the temperature 10,000 and compare the two curves. Then read how a query that is a *box* is
# encoded: [model/anchors/decoder](../scratch/model/anchors/decoder.py).
