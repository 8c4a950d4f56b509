"""attention_maps: to which cells of the image does a detector attend for each detection?

    detections   a row each: where the last decoder layer looks, averaged over heads, and each head
    encoder      what a place looks at in the last encoder layer, a panel each
    boxes        a panel each: the boxes of all layers, and how much each overlaps the last

The image is grey, and brighter where the attention weight is larger, relative to the largest one of
the panel. If even the largest is below 4 times the mean, the panel stays dark: such a head attends to
all cells alike. A caption gives the largest weight. A map has as many cells as its grid, and is
enlarged smoothly.

    a cell looks at                  "self-attention of a point" in the official notebook is the
         to  ┌─────────┐             other way round: `sattn[..., row, column]` is a column of the
    from ▶   │▒▒███▒▒▒▒│ a row       matrix, where all look at the point. Here it is a row, which
             └─────────┘ sums to 1   sums to 1; the page (attention_page) shows both.

That notebook's four points, (200,200), (280,400), (200,600) and (440,800), are (row, column) of an
image of 800×1066 pixels; `NOTEBOOK_POINTS` are the same as shares (x, y), for any picture.
Drawn from an attention_record alone; proven in tests/analysis/test_attention_maps.py.
Read: heat_over → draw_detections → draw_encoder → draw_boxes
"""

from __future__ import annotations

import textwrap
from typing import Any, Optional, Sequence

import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import Normal, Stroke
from PIL import Image

from scratch.analysis.attention_record import Explanation, cell_of
from scratch.analysis.error_charts import INK, SKY
from scratch.analysis.learning_curve import LONGEST
from scratch.analysis.names import short, shown

NOTEBOOK_POINTS = tuple((column / 1066, row / 800) for row, column in ((200, 200), (280, 400), (200, 600), (440, 800)))
_PANEL = 1.9  # inches: the side of a square picture's panel; others have its area
_SHOWN = 380  # pixels of a panel's longer side
_CLOSE = 2.6  # inches: the side of a panel that shows a part of the picture
_GAP, _HEAD = 0.1, 0.26  # inches between panels, and above each for its caption
_LETTERS = 14  # an inch of a caption, at 8 points
EVEN = 4  # times what a cell would get if all got the same: the least that is shown at full light
_OUTLINE = [Stroke(linewidth=3, foreground="black"), Normal()]  # visible on snow and at night


def heat_colours() -> np.ndarray:
    """uint8 (256,4): the colour (RGB) of each share of the brightest cell's attention, and how much it covers."""
    share = np.linspace(0, 1, 256)
    colours = matplotlib.colormaps["inferno"](0.25 + 0.75 * share)
    colours[:, 3] = 0.9 * share ** 0.8  # below 1, or the many cells with a little would not be seen at all
    return np.rint(255 * colours).astype(np.uint8)


def grey(picture: np.ndarray) -> np.ndarray:
    """uint8 (H,W,3) → the same without colour and darker, so that heat and boxes stand out; float (H,W,3)."""
    luma = picture @ np.array([0.299, 0.587, 0.114])  # Rec. 601
    return np.repeat(0.6 * luma[..., None], 3, axis=-1)


def heat_over(picture: np.ndarray, attention: np.ndarray) -> np.ndarray:
    """picture uint8 (H,W,3), attention (h,w) of sum 1, stretched over it → the grey picture, lit where attention is."""
    share = attention.astype(np.float32) / max(float(attention.max()), full_light(attention.size))
    size = picture.shape[1], picture.shape[0]
    smooth = np.asarray(Image.fromarray(share).resize(size, Image.Resampling.BICUBIC))  # (H,W)
    colours = heat_colours()[np.rint(255 * smooth.clip(0, 1)).astype(int)].astype(np.float32)  # (H,W,4)
    opacity = colours[..., 3:] / 255
    return np.rint(colours[..., :3] * opacity + grey(picture) * (1 - opacity)).astype(np.uint8)


def full_light(cells: int) -> float:
    """The least attention that lights a cell fully."""
    return min(1.0, EVEN / cells)


def step_colours(count: int) -> list[str]:
    """The colours of `count` boxes, from the first, cool and dark, to the last, warm and bright."""
    return [to_hex(matplotlib.colormaps["viridis"](share)) for share in np.linspace(0.35, 1.0, count)]


def step_names(about: dict[str, Any]) -> list[str]:
    return [f"layer {layer}" if layer else about["start"] for layer in about["layers"]]


def caption(number: int, detection: dict[str, Any], width: float, more: str = "") -> str:
    """Such as "3  red cell 0.91 (+1)": the label of highest score, how many more there are; at most `width` inches."""
    (name, score), *others = detection["labels"]
    name = shown(name)
    begin, end = f"{number}  ", f" {score:.2f}" + (f" (+{len(others)})" if others else "") + more
    space = max(4, int(_LETTERS * width) - len(begin) - len(end))
    return begin + (name if len(name) <= space else f"{name[:space - 1]}…") + end


def head_captions(maps: np.ndarray) -> list[str]:
    """Of each head's map: such as "head 2: up to 31 %"."""
    peaks = (100 * maps.max(axis=(1, 2))).tolist()
    return [f"head {n + 1}: up to {peak:{'.0f' if peak >= 10 else '.2g'}} %" for n, peak in enumerate(peaks)]


def draw_detections(record: Explanation) -> Figure:
    """A row for each detection: averaged over the heads, then each of them, with the detection's box."""
    D, L, N, h, w = record.cross.shape
    picture = record.pixels(_SHOWN)
    title = (f"{short(record.about['name'], LONGEST)}: what each detection looks at in the last of {L} decoder layers "
             f"({w}×{h} cells" + (f"; first column: the mean of {N} heads)" if N > 1 else ")"))
    size = _size(picture)
    figure, panels = _sheet(title, D, 1 + (N if N > 1 else 0), size)
    for row, heads, boxes, (k, detection) in zip(panels, record.cross[:, -1].astype(np.float32), record.boxes,
                                                 enumerate(record.about["detections"], 1)):
        texts = [caption(k, detection, size[0]), *head_captions(heads)]
        for axes, attention, text in zip(row, [heads.mean(axis=0), *heads], texts):
            _show(axes, heat_over(picture, attention), text)
            _box(axes, boxes[-1], SKY, 1.5)
    return figure


def draw_encoder(record: Explanation) -> Optional[Figure]:
    """The picture with its points, then what each looks at (of each head, if the record says so); None without."""
    P, N, h, w = record.places.shape
    if not P:
        return None
    picture, by_head = record.pixels(_SHOWN), record.about["encoder_heads"] and N > 1
    columns = 1 + N if by_head else max(2, min(4, P))
    title = (f"{short(record.about['name'], LONGEST)}: what each place looks at in the last encoder layer "
             f"({w}×{h} cells"
             + (f"; first column: the mean of {N} heads)" if by_head else f", averaged over {N} heads)"))
    figure, panels = _sheet(title, 2 + (P if by_head else -(-P // columns)), columns, _size(picture))
    (x0, y0, _, _), (_, _, x1, y1) = panels[1, 0].get_position().bounds, panels[0, 1].get_position().extents
    overview = figure.add_axes((x0, y0, x1 - x0, y1 - y0))  # as large as two panels, and two rows high
    overview.set_axis_off()
    _show(overview, picture, "the places: the cells that are asked")
    rows = panels[2:] if by_head else panels[2:].reshape(-1, 1)
    for number, (x, y), heads, row in zip(range(1, P + 1), record.points.tolist(), record.places.astype(np.float32),
                                          rows):
        i, j = cell_of(x, y, (h, w))
        cell = j / w, i / h, (j + 1) / w, (i + 1) / h
        _box(overview, cell, SKY, 1)
        overview.text(x, y, str(number), color="white", fontsize=9, ha="center", va="center", path_effects=_OUTLINE)
        texts = [f"{number}  row {i + 1}, column {j + 1}", *head_captions(heads)]
        for axes, attention, text in zip(row, [heads.mean(axis=0), *heads], texts):
            _show(axes, heat_over(picture, attention), text)
            _box(axes, cell, SKY, 1.5)
    return figure


def draw_boxes(record: Explanation) -> Figure:
    """A panel for each detection: its query's boxes on the part of the picture around them, and their IoU."""
    D, steps = record.iou.shape
    picture = grey(record.pixels(1000)).astype(np.uint8)
    columns = min(4, D)
    figure, panels = _sheet(f"{short(record.about['name'], LONGEST)}: the boxes of each detection's query, layer by "
                            "layer", -(-D // columns), columns, (_CLOSE, _CLOSE), foot=1.0)
    colours, names = step_colours(steps), step_names(record.about)
    for k, axes in enumerate(panels.flat[:D]):
        detection = record.about["detections"][k]
        _show(axes, picture, caption(k + 1, detection, _CLOSE, f"  (query {detection['query'] + 1})"))
        # Thinner and thinner: of boxes that lie on each other, all can be seen.
        for box, colour, width in zip(record.boxes[k], colours, np.linspace(7, 1.4, steps) if steps > 1 else [1.4]):
            _box(axes, box, colour, width, outlined=False)
        _look_at(axes, record.boxes[k], record.about["size"][0] / record.about["size"][1])
        bars = axes.inset_axes((0.16, -0.27, 0.82, 0.2))
        values = record.iou[k].tolist()
        bars.bar(range(steps), values, color=colours, edgecolor=INK, linewidth=0.5)
        bars.bar_label(bars.containers[0], [f"{value:.2f}" for value in values], fontsize=7, padding=1)
        bars.set(xticks=range(steps), xlim=(-0.6, steps - 0.4), ylim=(0, 1.35), yticks=(0, 1))
        bars.set_xticklabels([name.replace("layer ", "") for name in names], fontsize=7)
        bars.set_xlabel("decoder layer", fontsize=7, labelpad=1)
        bars.set_ylabel("IoU with\nthe last", fontsize=7, labelpad=1)
        bars.tick_params(labelsize=7, length=2)
        bars.spines[["top", "right"]].set_visible(False)
    return figure


# ── the parts of a sheet ────────────────────────────────────────────────────────────────────────────────────────────


def _size(picture: np.ndarray) -> tuple[float, float]:
    """A panel's width and height in inches: the picture's shape, and an area that is the same for all."""
    ratio = min(max(picture.shape[1] / picture.shape[0], 1 / 3), 3)
    return _PANEL * ratio ** 0.5, _PANEL / ratio ** 0.5


def _sheet(title: str, rows: int, columns: int, panel: tuple[float, float], foot: float = 0.0
           ) -> tuple[Figure, np.ndarray]:
    """An empty figure and its panels (rows, columns), each of `panel` inches with space for a caption, and a foot.

    Placed by hand: to lay out a hundred panels by constraints takes seconds.
    """
    (w, h), step = panel, panel[1] + _HEAD + foot
    width = columns * (w + _GAP) + _GAP
    lines = textwrap.wrap(title, max(24, int(10.5 * width)))
    top = 0.2 * len(lines) + 0.1
    height = rows * step + _GAP + top
    figure = plt.figure(figsize=(width, height))
    figure.text(_GAP / width, 1 - 0.08 / height, "\n".join(lines), fontsize=10, va="top")
    panels = np.empty((rows, columns), dtype=object)
    for row, column in np.ndindex(rows, columns):
        x, y = _GAP + column * (w + _GAP), height - top - row * step - _HEAD - h
        panels[row, column] = figure.add_axes((x / width, y / height, w / width, h / height))
        panels[row, column].set_axis_off()
    return figure, panels


def _show(axes: Axes, picture: np.ndarray, text: str) -> None:
    """The picture over the unit square, so that shares are places."""
    axes.imshow(picture, extent=(0, 1, 1, 0), aspect="auto", interpolation="bilinear")
    axes.set_title(text, fontsize=8, loc="left", pad=3)


def _box(axes: Axes, box: Sequence[float], colour: str, width: float, outlined: bool = True) -> None:
    x0, y0, x1, y1 = (float(side) for side in box)
    line = Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=colour, linewidth=width)
    if outlined:
        line.set_path_effects([Stroke(linewidth=width + 1.2, foreground="black"), Normal()])
    axes.add_patch(line)


def _look_at(axes: Axes, boxes: np.ndarray, ratio: float) -> None:
    """Turn to the square part (in pixels) of the picture, of shape `ratio`, that holds the boxes and some more."""
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    middle, shape = (low + high) / 2, np.array([ratio, 1.0])
    side = max(0.2, 1.3 * float(((high - low) * shape).max()))  # of the picture's height
    reach = side / 2 / shape
    middle = np.where(reach < 0.5, middle.clip(reach, 1 - reach), 0.5)  # not beyond the picture, if it is large enough
    axes.set_xlim(middle[0] - reach[0], middle[0] + reach[0])
    axes.set_ylim(middle[1] + reach[1], middle[1] - reach[1])
