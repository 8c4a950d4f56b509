"""architecture: what does DETR look like, with the shapes of a batch at every step?

    python -m scratch.analysis.architecture --out docs/pictures        →  docs/pictures/architecture.png

    images → backbone → feature map ─(+ positional encoding)→ encoder → memory ─┐
                                        object queries → decoder ◄──────────────┘
                                                          └→ class and box heads → bipartite matching → loss

The shapes are those of two images, 480×640 and 600×400, in one batch of detr_r50 (`shapes`). The real
model is run on such a batch in tests/analysis/test_architecture.py, which compares each one.
Read: shapes → draw
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Optional, Sequence

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Polygon, Rectangle

from scratch.analysis.figures import save
from scratch.program import ends_in_a_line

INK, GREY, PALE = "#22272e", "#6b7480", "#f5f6f8"
BLUE, TEAL, ORANGE, VIOLET, RED = "#2f6fb3", "#1f8a78", "#d9822b", "#7a58b5", "#c0433d"
_WIDE, _HIGH, _SCALE = 11.0, 6.1, 1.2  # the drawing's units, and inches for one of them


def shapes(B: int = 2, H: int = 600, W: int = 640, C: int = 2048, D: int = 256, Q: int = 100,
           L: int = 6) -> dict[str, str]:
    """The shape of every value of the picture; "K" stays a letter, since it is the data's number of classes."""
    h, w = math.ceil(H / 32), math.ceil(W / 32)
    numbers = {"images": (B, 3, H, W), "pad_mask": (B, H, W), "feature map": (B, C, h, w),
               "projected": (B, D, h, w), "positional encoding": (B, D, h, w), "memory": (B, h * w, D),
               "object queries": (Q, D), "decoder output": (L, B, Q, D), "logits": (L, B, Q, "K+1"),
               "boxes": (L, B, Q, 4)}
    return {name: f"({', '.join(map(str, shape))})" for name, shape in numbers.items()}


def draw() -> Figure:
    """The whole picture: above, from pixels to memory; below, from object queries to the loss."""
    figure = plt.figure(figsize=(_SCALE * _WIDE, _SCALE * _HIGH))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, _WIDE), ylim=(0, _HIGH))
    axes.axis("off")
    _above(axes, shapes())
    _below(axes, shapes())
    return figure


def _above(axes: Axes, shape: dict[str, str]) -> None:
    y = 4.62  # the middle of the upper row
    _title(axes, 1.0, 5.72, "images")
    _picture(axes, 0.3, y - 0.62)
    _shape(axes, 1.0, 3.72, shape["images"])
    _small(axes, 1.0, 3.47, f"padding mask {shape['pad_mask']}")

    _arrow(axes, (1.78, y), (2.16, y))
    _title(axes, 2.95, 5.72, "backbone", BLUE)
    for i, high in enumerate((1.5, 1.2, 0.92, 0.68, 0.48)):  # each stage halves the image and widens it
        _slab(axes, 2.24 + 0.29 * i, y, 0.1 + 0.02 * i, high, BLUE, 0.45 + 0.11 * i)
    _small(axes, 2.95, 3.72, "ResNet-50, stride 32")

    _arrow(axes, (3.76, y), (4.14, y))
    _title(axes, 4.8, 5.72, "feature map", BLUE)
    _grids(axes, 4.26, y - 0.42)
    _shape(axes, 4.8, 3.72, shape["feature map"])

    _arrow(axes, (5.4, y), (5.7, y))
    _box(axes, 5.72, y - 0.24, 0.86, 0.48, BLUE, "1×1 conv")
    _shape(axes, 6.15, y - 0.43, shape["projected"])
    _arrow(axes, (6.6, y), (7.0, y))

    _title(axes, 7.2, 5.72, "positional encoding", TEAL)
    _sines(axes, 6.92, 5.06)
    _arrow(axes, (7.2, 5.02), (7.2, y + 0.18), TEAL)
    axes.add_patch(Circle((7.2, y), 0.15, facecolor="white", edgecolor=TEAL, linewidth=1.6, zorder=3))
    axes.text(7.2, y - 0.01, "+", ha="center", va="center", fontsize=15, color=TEAL, zorder=4)
    _small(axes, 7.2, 3.64, "added to queries and keys,\nanew in every layer")
    _arrow(axes, (7.38, y), (8.06, y))

    _block(axes, 8.1, 3.86, 2.6, 1.5, TEAL, "encoder  × 6", ("self-attention", "feed-forward"),
           "after each: residual connection, layer norm")
    # What the encoder made of the image goes down to the decoder.
    axes.plot([9.4, 9.4, 3.76, 3.76], [3.86, 3.13, 3.13, 3.0], color=TEAL, linewidth=1.8, solid_capstyle="butt",
              solid_joinstyle="round")
    _arrow(axes, (3.76, 3.12), (3.76, 2.57), TEAL)
    axes.text(8.0, 3.2, "memory", ha="right", va="bottom", fontsize=11, color=TEAL, weight="bold")
    axes.text(8.07, 3.215, shape["memory"], ha="left", va="bottom", fontsize=10.5, color=INK, family="monospace")


def _below(axes: Axes, shape: dict[str, str]) -> None:
    y = 1.6  # the middle of the lower row
    _title(axes, 1.0, 2.68, "object queries", ORANGE)
    for i, colour in enumerate(plt.get_cmap("YlOrBr")(np.linspace(0.25, 0.85, 7))):
        axes.add_patch(Rectangle((0.42, y + 0.58 - 0.19 * i), 1.16, 0.13, facecolor=colour, edgecolor="white"))
    _shape(axes, 1.0, 0.72, shape["object queries"])
    _small(axes, 1.0, 0.47, "learned, in no order")

    _arrow(axes, (1.72, y), (2.32, y))
    _block(axes, 2.36, 0.68, 2.8, 1.88, ORANGE, "decoder  × 6", ("self-attention", "cross-attention", "feed-forward"),
           "after each: residual connection, layer norm")
    _shape(axes, 3.76, 0.47, shape["decoder output"])

    _arrow(axes, (5.2, y + 0.1), (5.62, y + 0.44))
    _arrow(axes, (5.2, y - 0.1), (5.62, y - 0.44))
    _box(axes, 5.66, y + 0.22, 1.2, 0.5, VIOLET, "class head")
    _box(axes, 5.66, y - 0.72, 1.2, 0.5, VIOLET, "box head")
    _shape(axes, 6.26, y + 0.86, shape["logits"])
    _shape(axes, 6.26, y - 0.88, shape["boxes"])
    _small(axes, 6.26, y, "after each decoder layer")

    _arrow(axes, (6.9, y + 0.42), (7.4, y + 0.12))
    _arrow(axes, (6.9, y - 0.42), (7.4, y - 0.12))
    _title(axes, 8.28, 2.68, "bipartite matching", RED)
    _matching(axes, 7.62, 9.0, y)

    _arrow(axes, (9.3, y), (9.62, y))
    _box(axes, 9.66, y - 0.62, 1.06, 1.24, RED, "set loss")
    for i, term in enumerate(("class", "L1 box", "GIoU")):
        axes.text(10.19, y + 0.12 - 0.22 * i, term, ha="center", va="center", fontsize=9.5, color=INK)


def _title(axes: Axes, x: float, y: float, text: str, colour: str = INK) -> None:
    axes.text(x, y, text, ha="center", va="center", fontsize=13, weight="bold", color=colour)


def _shape(axes: Axes, x: float, y: float, text: str) -> None:
    axes.text(x, y, text, ha="center", va="center", fontsize=10.5, color=INK, family="monospace")


def _small(axes: Axes, x: float, y: float, text: str) -> None:
    axes.text(x, y, text, ha="center", va="center", fontsize=9.5, color=GREY, linespacing=1.25)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str = GREY) -> None:
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=15, linewidth=1.8, color=colour,
                                   shrinkA=0, shrinkB=0, zorder=2.5))


def _box(axes: Axes, x: float, y: float, wide: float, high: float, colour: str, name: str) -> None:
    """A rounded box; its name in the middle, or at the top of a high one."""
    axes.add_patch(FancyBboxPatch((x, y), wide, high, boxstyle="round,pad=0,rounding_size=0.09",
                                  facecolor=_light(colour), edgecolor=colour, linewidth=1.6, zorder=2))
    top = y + high / 2 if high < 1 else y + high - 0.25
    axes.text(x + wide / 2, top, name, ha="center", va="center", fontsize=11, weight="bold", color=colour, zorder=3)


def _block(axes: Axes, x: float, y: float, wide: float, high: float, colour: str, name: str, steps: Sequence[str],
           foot: str) -> None:
    """A stack of layers: its name, the steps of one layer as bars, and a line below them."""
    for shift in (0.1, 0.05):  # more layers, behind
        axes.add_patch(FancyBboxPatch((x + shift, y + shift), wide, high, boxstyle="round,pad=0,rounding_size=0.12",
                                      facecolor="white", edgecolor=colour, linewidth=1.0, alpha=0.6))
    axes.add_patch(FancyBboxPatch((x, y), wide, high, boxstyle="round,pad=0,rounding_size=0.12",
                                  facecolor=_light(colour), edgecolor=colour, linewidth=1.8, zorder=2))
    axes.text(x + wide / 2, y + high - 0.22, name, ha="center", va="center", fontsize=13, weight="bold", color=colour,
              zorder=3)
    for i, step in enumerate(steps):
        bar = y + high - 0.74 - 0.39 * i
        axes.add_patch(FancyBboxPatch((x + 0.3, bar), wide - 0.6, 0.31, boxstyle="round,pad=0,rounding_size=0.06",
                                      facecolor="white", edgecolor=colour, linewidth=1.1, zorder=3))
        axes.text(x + wide / 2, bar + 0.15, step, ha="center", va="center", fontsize=10.5, color=INK, zorder=4)
    axes.text(x + wide / 2, y + 0.16, foot, ha="center", va="center", fontsize=9, color=GREY, zorder=3)


def _light(colour: str) -> tuple[float, ...]:
    """The colour with nine parts of white."""
    return tuple(0.1 * int(colour[i:i + 2], 16) / 255 + 0.9 for i in (1, 3, 5))


def _picture(axes: Axes, x: float, y: float) -> None:
    """Two images of a batch: the one behind is padded on the right."""
    axes.add_patch(Rectangle((x + 0.18, y + 0.16), 1.25, 1.13, facecolor="#d8dce2", edgecolor="white", linewidth=1.5))
    axes.add_patch(Rectangle((x + 0.18, y + 0.16), 0.8, 1.13, facecolor="#9db8a5", edgecolor="none"))
    rows, columns = np.mgrid[0:1:40j, 0:1:40j]
    blue = np.stack([0.36 + 0.25 * columns, 0.5 + 0.2 * rows, 0.68 - 0.1 * rows], axis=-1)
    axes.imshow(blue, extent=(x, x + 1.25, y + 0.22, y + 1.08), aspect="auto", zorder=2, interpolation="bilinear")
    axes.add_patch(Rectangle((x, y), 1.25, 0.22, facecolor="#d8dce2", edgecolor="none", zorder=2))
    axes.add_patch(Rectangle((x, y), 1.25, 1.08, facecolor="none", edgecolor="white", linewidth=1.5, zorder=3))
    star = [(0.5 + r * math.sin(k * math.pi / 5), 0.5 + r * math.cos(k * math.pi / 5))
            for k in range(10) for r in ((0.5, 0.2)[k % 2],)]
    corners = [(x + 0.12 + 0.46 * u, y + 0.42 + 0.46 * v) for u, v in star]
    axes.add_patch(Polygon(corners, facecolor="#f2c94c", zorder=3))
    axes.add_patch(Circle((x + 0.93, y + 0.56), 0.19, facecolor="#eb7a5b", zorder=3))


def _slab(axes: Axes, x: float, y: float, wide: float, high: float, colour: str, alpha: float) -> None:
    """A stage of the backbone, seen from the side."""
    lean = 0.11
    corners = [(x, y - high / 2), (x + wide, y - high / 2), (x + wide, y + high / 2), (x, y + high / 2)]
    axes.add_patch(Polygon(corners, facecolor=colour, edgecolor="white", linewidth=0.8, alpha=alpha))
    top = [corners[3], corners[2], (x + wide + lean, y + high / 2 + lean), (x + lean, y + high / 2 + lean)]
    side = [corners[1], (x + wide + lean, y - high / 2 + lean), (x + wide + lean, y + high / 2 + lean), corners[2]]
    axes.add_patch(Polygon(top, facecolor=colour, edgecolor="white", linewidth=0.8, alpha=0.6 * alpha))
    axes.add_patch(Polygon(side, facecolor=colour, edgecolor="white", linewidth=0.8, alpha=0.8 * alpha))


def _grids(axes: Axes, x: float, y: float) -> None:
    """Channels of a feature map, one behind the other: an object is a few bright cells."""
    rows, columns = np.mgrid[0:7, 0:7]
    for k in (3, 2, 1, 0):
        bright = np.exp(-((rows - 2 - 0.5 * k) ** 2 + (columns - 1.5 - k) ** 2) / 2.5)
        bright += 0.8 * np.exp(-((rows - 3.5) ** 2 + (columns - 5) ** 2) / (1.2 + k))
        bright += 0.08 * ((rows + k * columns) % 3)
        x0, y0 = x + 0.1 * k, y + 0.1 * k
        axes.imshow(bright, extent=(x0, x0 + 0.78, y0, y0 + 0.74), cmap="Blues", vmin=-0.1, vmax=1.3, aspect="auto",
                    zorder=2.5 - 0.2 * k, interpolation="nearest")
        axes.add_patch(Rectangle((x0, y0), 0.78, 0.74, facecolor="none", edgecolor="white", linewidth=1.2,
                                 zorder=2.55 - 0.2 * k))


def _sines(axes: Axes, x: float, y: float) -> None:
    """Two of the encoding's channels: a sine down the rows, a sine along the columns."""
    rows, columns = np.mgrid[0:1:38j, 0:1:40j]
    for k, place in enumerate((rows, columns)):
        x0 = x - 0.27 + 0.58 * k
        axes.imshow(np.sin(2 * math.pi * place), extent=(x0, x0 + 0.52, y, y + 0.48), cmap="BrBG", vmin=-1.6, vmax=1.6,
                    aspect="auto", zorder=2)
        axes.add_patch(Rectangle((x0, y), 0.52, 0.48, facecolor="none", edgecolor="white", linewidth=1.2, zorder=3))


def _matching(axes: Axes, left: float, right: float, y: float) -> None:
    """Seven predictions, three true objects: each object gets one prediction, the others are "no object"."""
    pairs = {1: ("#f2c94c", 0), 3: ("#eb7a5b", 1), 6: ("#5b9bd5", 2)}
    places = [y + 0.66 - 0.22 * i for i in range(7)]
    objects = [y + 0.48, y + 0.02, y - 0.44]
    for i, place in enumerate(places):
        colour, k = pairs.get(i, (None, 0))
        if colour:
            axes.plot([left, right], [place, objects[k]], color=colour, linewidth=2.2, zorder=2)
            axes.add_patch(Rectangle((right - 0.13, objects[k] - 0.13), 0.26, 0.26, facecolor=colour, edgecolor=INK,
                                     linewidth=1.0, zorder=3))
        axes.add_patch(Circle((left, place), 0.085, facecolor=colour or "white", edgecolor=INK if colour else GREY,
                              linewidth=1.0, zorder=3))
    axes.text(left + 0.2, places[5] + 0.02, "no object", ha="left", va="center", fontsize=9, color=GREY, style="italic")
    _small(axes, left, y - 0.95, "predictions")
    _small(axes, right, y - 0.95, "true\nobjects")


def main(words: Optional[Sequence[str]] = None) -> None:
    parser = argparse.ArgumentParser(description="Draw DETR's architecture, with the shapes of a batch.")
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"), help="the folder of architecture.png")
    out = parser.parse_args(words).out
    out.mkdir(parents=True, exist_ok=True)
    print(save(draw(), out / "architecture.png"))


if __name__ == "__main__":
    with ends_in_a_line():
        main()
