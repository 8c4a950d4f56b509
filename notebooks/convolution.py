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
# # Convolution: how does one output pixel see a neighbourhood, and how far does a deep one see?
#
# A detector begins with pixels and has to end with objects. Convolutions carry the information from the one to the
# other. In ten minutes you will
#
# 1. compute one by hand, and see what a *filter* finds in a photograph,
# 2. turn it into one matrix multiplication (*im2col*), and see what that costs,
# 3. measure how much of the image one cell of a ResNet's feature map really depends on: its *receptive field*.
#
# The notes behind it: [windows](../scratch/ops/windows.py) and [conv2d](../scratch/ops/conv2d.py). Their proofs:
# [tests/ops/test_windows.py](../tests/ops/test_windows.py), [tests/ops/test_conv2d.py](../tests/ops/test_conv2d.py).

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
import numpy as np
import torch
from matplotlib import pyplot as plt
from PIL import Image

from notebooks.shown import panels, source
from scratch.ops.conv2d import Conv2d, conv2d, conv2d_im2col, conv2d_naive
from scratch.ops.windows import output_size

# %matplotlib inline
torch.manual_seed(0);

# %% [markdown]
# ## 1 One window
#
# A filter is a small grid of weights. At each place it is multiplied with the pixels that it covers, and the products
# are added up. The filter below answers one question: *is it brighter on the right than on the left?*

# %%
image = torch.tensor([[0., 0., 0., 9., 9., 9.],
                      [0., 0., 0., 9., 9., 9.],
                      [0., 0., 0., 9., 9., 9.],
                      [0., 0., 0., 9., 9., 9.]])[None, None]      # (B,C,H,W) = (1,1,4,6)
edge = torch.tensor([[-1., 0., 1.],
                     [-1., 0., 1.],
                     [-1., 0., 1.]])[None, None]                  # (O,C,k,k) = (1,1,3,3)
print(conv2d_naive(image, edge)[0, 0])                            # (H',W') = (2,4)

# %% [markdown]
# Only the two columns of windows that contain the edge answer, and all others are exactly 0. This is the definition,
# five loops that follow the formula letter by letter:

# %%
source(conv2d_naive)

# %% [markdown]
# The same filter on a photograph of blood cells, and two others. A network does not know these filters. It learns
# them, and often finds edges first, because they are what separates objects.

# %%
photograph = Image.open("tests/photographs/bccd/val/BloodImage_00312.jpg").convert("L").resize((320, 240))
x = torch.from_numpy(np.asarray(photograph).copy()).float()[None, None] / 255           # (1,1,240,320)
filters = torch.stack([edge[0], edge[0].transpose(1, 2), torch.ones(1, 3, 3) / 9])       # (3,1,3,3)
y = conv2d(x, filters, padding=1)                                                        # (1,3,240,320)
panels([photograph, *y[0, :2].abs().sqrt(), y[0, 2]],
       ["the photograph", "left against right", "above against below", "mean of 3×3: a blur"], cmap="gray");

# %% [markdown]
# **Predict the number 1.** The first convolution of a ResNet has a kernel of 7, a stride of 2 and a padding of 3. An
# image has 480×640 pixels. How many output pixels are there? (The formula is in the opening of
# [windows](../scratch/ops/windows.py): H' = ⌊(H + 2p − d·(k−1) − 1)/s⌋ + 1.) Write your answer down, then run the
# cell.

# %%
print("output size:", output_size((480, 640), kernel=(7, 7), stride=(2, 2), padding=(3, 3)))

# %% [markdown]
# ## 2 One matrix multiplication
#
# Five loops are slow. What one window sees can be written as one *column*. Then all windows together are a matrix, the
# filters are another, and the convolution is their product. This is called *im2col*, image to columns.

# %%
small = torch.arange(1., 26.).view(1, 1, 5, 5)
place = (1, 2)  # the window's upper left corner: change it
columns = small.unfold(2, 3, 1).unfold(3, 3, 1).reshape(9, 9).T      # (k·k, windows): one column for each window
chosen = place[0] * 3 + place[1]

figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
left.imshow(small[0, 0], cmap="Blues", vmax=40)
left.add_patch(plt.Rectangle((place[1] - .5, place[0] - .5), 3, 3, fill=False, edgecolor="crimson", linewidth=3))
left.set_title("an image of 5×5, and one of its 9 windows", fontsize=9)
right.imshow(columns, cmap="Blues", vmax=40)
right.add_patch(plt.Rectangle((chosen - .5, -.5), 1, 9, fill=False, edgecolor="crimson", linewidth=3))
right.set_title("im2col: what each window sees is a column", fontsize=9)
for axes, values in ((left, small[0, 0]), (right, columns)):
    axes.set(xticks=[], yticks=[])
    for (i, j), value in np.ndenumerate(values.numpy()):
        axes.text(j, i, f"{value:.0f}", ha="center", va="center", fontsize=8)

# %% [markdown]
# **Predict the number 2.** Look at the pixel in the middle, 13. In how many columns does it stand?

# %%
print("columns that contain 13:", int((columns == 13).any(0).sum()))
print("numbers in the image:", small.numel(), "  numbers in the matrix:", columns.numel())

# %% [markdown]
# That is the price of im2col: with stride 1 and padding, the matrix has k·k times as many numbers as the image. A
# pixel inside is copied k·k times, one at the border less often. The gain is that a matrix multiplication runs at the
# speed of the processor. ([ops/fast](../scratch/ops/fast/convolution.py) has plans without the copies.)
# All ways give the same numbers as PyTorch, here in float64:

# %%
x = torch.randn(2, 3, 13, 11, dtype=torch.float64)
weight, bias = torch.randn(5, 3, 3, 3, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
theirs = torch.nn.functional.conv2d(x, weight, bias, stride=2, padding=1)
for ours in (conv2d_naive, conv2d_im2col, conv2d):
    y = ours(x, weight, bias, stride=2, padding=1)
    print(f"{ours.__name__:14} {tuple(y.shape)}  largest difference from torch: {(y - theirs).abs().max():.1e}")

# %% [markdown]
# ## 3 How far does a deep cell see?
#
# One 3×3 layer sees 3×3 pixels. A second one on top of it sees 5×5. To measure it for any network: take one cell of
# the output, backpropagate from it to the pixels, and see which pixels have a gradient. Here for one, two and three
# layers:

# %%
def seen_by_the_middle_cell(network, size, channels=3):
    """|gradient| of one output cell in the middle, with respect to every pixel: (size,size)."""
    pixels = torch.randn(1, channels, size, size, requires_grad=True)
    output = network(pixels)                                                              # (1,C,h,w)
    output[0, :, output.shape[2] // 2, output.shape[3] // 2].sum().backward()
    return pixels.grad[0].abs().sum(0)                                                    # (H,W)

def side_of(seen):
    """The side of the square that holds every pixel with a gradient."""
    rows = seen.sum(1).nonzero()
    return int(rows.max() - rows.min()) + 1

def stack(layers, stride=1):
    return torch.nn.Sequential(*[Conv2d(3, 3, 3, stride, padding=1) for _ in range(layers)])

# The weights are random: the mean over 30 networks shows what is common to all.
maps = [sum(seen_by_the_middle_cell(stack(layers), 17) for _ in range(30)) for layers in (1, 2, 3)]
panels([m / m.max() for m in maps], [f"depth {layers}: {side_of(m)}×{side_of(m)} pixels"
                                     for layers, m in zip((1, 2, 3), maps)], cmap="magma");

# %% [markdown]
# The middle of the field counts most: more paths lead there.
#
# **Predict the number 3.** Now the layers have a stride of 2 each, so that every second cell is left out. Three of
# them: how many pixels a side does one cell see? (One layer sees 3. A step of one cell in layer 2 is a step of 2
# pixels.)

# %%
seen = seen_by_the_middle_cell(stack(3, stride=2), 65)
print("three 3×3 layers of stride 2 see", side_of(seen), "pixels a side")

# %% [markdown]
# Strides make the field grow much faster. This is why a backbone halves the image five times. Here is the small
# ResNet of the preset `tiny`, stage by stage. It is at its random first weights: the field is a property of the
# architecture.

# %%
from scratch.model.backbone import ResNet

net = ResNet("resnet_tiny", "batch", dilation=True).eval()
size = 161 if QUICK else 321
maps = [seen_by_the_middle_cell(lambda x, stage=stage: net.stages(x)[stage], size) for stage in range(4)]
sides = [side_of(m) for m in maps]
panels([(m / m.max()) ** 0.25 for m in maps],
       [f"stage {k}: {'all ' if side == size else ''}{side}×{side}" for k, side in enumerate(sides, 1)],
       cmap="magma");

# %% [markdown]
# The last stage sees more than a whole 144×144 image from every cell, although it computed with 3×3 windows only.
# That is enough to see an object. It is not enough to compare two objects far apart: for that, DETR has
# [attention](attention.ipynb).
#
# **The layer beside torch.nn.** `Conv2d` draws the same weights as `torch.nn.Conv2d` from the same seed:

# %%
torch.manual_seed(7)
ours = Conv2d(64, 64, 3, padding=1)
torch.manual_seed(7)
theirs = torch.nn.Conv2d(64, 64, 3, padding=1)
x = torch.randn(1, 64, 14, 14)
print("same weights:", torch.equal(ours.weight, theirs.weight),
      f"  largest difference of the outputs: {(ours(x) - theirs(x)).abs().max():.1e}")

# %% [markdown]
# ## What to take away
#
# * A convolution is one small linear layer, used at every place of the image.
# * It is a matrix multiplication in disguise; the disguise costs up to k·k copies of each pixel.
# * Depth and stride make a cell see far. The middle counts most.
#
# **Try it:** give the windows a `dilation` of 2 in section 3 and predict the field first. Then read
# [backbone](../scratch/model/backbone.py), which stacks these layers with skip connections.
