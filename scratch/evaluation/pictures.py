"""pictures: how do detections look beside the ground truth?

    draw_detections    one picture with its boxes and labels
    prediction_sheet   a PNG of several: the truth on the left, the predictions on the right
    sample_sheet       a PNG of several training pictures, as the network is shown them

Boxes are drawn after the picture has been scaled to the size at which it will be looked at, so that
lines and letters are equally sharp on a thumbnail and on a photograph of 20 megapixels. A line is a
dark one around a coloured one, so that it stands out from snow and from night; a label is set where
it hides as little as possible of boxes and of other labels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Sequence, Union

import matplotlib
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from scratch.ops.boxes import box_cxcywh_to_xyxy
from scratch.printable import counted, printable
from scratch.whole_file import whole_file

Colour = tuple[int, int, int]
Rectangle = tuple[float, float, float, float]

# Okabe and Ito's colours (jfly.uni-koeln.de/color), which colour-blind eyes can tell apart; beyond seven they repeat.
PALETTE: tuple[Colour, ...] = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (213, 94, 0), (204, 121, 167), (0, 114, 178))
_INK, _PAPER, _DARK = (38, 38, 38), (255, 255, 255), (0, 0, 0)
PANEL, _GAP = (480, 420), 12  # pixels: the largest picture of a sheet, and the space between two


def class_colour(label: int) -> Colour:
    """The colour of a class, the same in every picture."""
    return PALETTE[label % len(PALETTE)]


def draw_detections(image: Image.Image, boxes_xyxy: Any, labels_text: Sequence[str],
                    colours: Sequence[Colour]) -> Image.Image:
    """A copy of `image` with a box, a label and a colour for each of the M detections.

    `boxes_xyxy` (M,4) is in pixels of `image` (a tensor or nested lists), and is cut at its border. Labels are placed
    in order, so that the first has the choice; each is one line, of one that is wider than the picture the middle is
    left out. Raises ValueError when the three lengths differ.
    """
    boxes = boxes_xyxy.tolist() if isinstance(boxes_xyxy, Tensor) else list(boxes_xyxy)
    if not len(boxes) == len(labels_text) == len(colours):
        raise ValueError(f"got {len(boxes)} boxes, {len(labels_text)} labels and {len(colours)} colours, wanted one of "
                         "each")
    image = image.convert("RGB")
    width, height = image.size
    draw = ImageDraw.Draw(image)
    line = max(2, round((width + height) / 500))
    font = _font(max(11, round((width + height) / 75)))

    # The outline stands around the box, not in it, where it would hide the edges of a small object.
    rim = line + 1
    within = [(min(max(x + side * rim, 0), width - 1), min(max(y + side * rim, 0), height - 1))
              for x0, y0, x1, y1 in boxes for side, x, y in ((-1, x0, y0), (1, x1, y1))]
    boxes = [(*low, max(low[0], high[0]), max(low[1], high[1])) for low, high in zip(within[::2], within[1::2])]
    for (x0, y0, x1, y1), colour in zip(boxes, colours):
        draw.rectangle((x0, y0, x1, y1), outline=_DARK, width=line + 2)
        if x1 - x0 >= 2 and y1 - y0 >= 2:
            draw.rectangle((x0 + 1, y0 + 1, x1 - 1, y1 - 1), outline=colour, width=line)
    labels: list[Rectangle] = []
    for box, text, colour in zip(boxes, labels_text, colours):
        text = _fitted(draw, printable(text), font, width - 7)
        place = _place(box, _label_size(draw, text, font), image.size, boxes, labels)
        labels.append(place)
        draw.rectangle(place, fill=colour, outline=_DARK)
        centre = (place[0] + place[2]) / 2, (place[1] + place[3]) / 2
        draw.text(centre, text, font=font, fill=_readable_on(colour), anchor="mm")
    return image


def prediction_sheet(path: Path, images: Sequence[Union[Image.Image, str, Path]], truths: Sequence[dict[str, Tensor]],
                     predictions: Sequence[dict[str, Tensor]], names: Sequence[str], threshold: float) -> Path:
    """Write a PNG that shows, for each image, the truth beside the predictions scored at least `threshold`.

    A truth holds `boxes` (M,4) xyxy in pixels and `labels` (M,), a prediction what `postprocess` gives for an image;
    label k is called `names[k]`. More than three images stand two to a row. Returns `path`; raises ValueError without
    images, or when truths and predictions are not one for each.
    """
    if not len(images) == len(truths) == len(predictions) or not images:
        raise ValueError(f"got {len(images)} images, {len(truths)} truths and {len(predictions)} predictions, "
                         "wanted one of each for every image, and at least one image")
    panels = []
    for image, truth, prediction in zip(images, truths, predictions):
        photograph = image if isinstance(image, Image.Image) else Image.open(image)
        order = prediction["scores"].argsort(descending=True)
        order = order[prediction["scores"][order] >= threshold]
        labels, scores = prediction["labels"][order].tolist(), prediction["scores"][order].tolist()
        true = truth["labels"].tolist()
        panels.append((_panel(photograph, truth["boxes"], true, [names[k] for k in true]),
                       f"truth: {counted(len(true), 'box', 'boxes')}"))
        panels.append((_panel(photograph, prediction["boxes"][order], labels,
                              [f"{names[k]} {s:.2f}" for k, s in zip(labels, scores)]),
                       f"predicted (score ≥ {threshold:g}): {counted(len(labels), 'box', 'boxes')}"))
    pairs = 1 if len(images) <= 3 else 2
    lefts = [2 * _GAP + pair * (2 * PANEL[0] + 3 * _GAP) + x for pair in range(pairs) for x in (0, PANEL[0] + _GAP)]
    return _sheet(path, panels, lefts)


def sample_sheet(path: Path, samples: Sequence[tuple[Tensor, Tensor, Tensor]], names: Sequence[str]) -> Path:
    """Write a PNG of training samples, up to four in a row: pixels uint8 (3,h,w), boxes (M,4) cxcywh in [0,1], labels.

    Label k is called `names[k]`. Returns `path`.
    """
    panels = []
    for pixels, boxes_cxcywh, labels in samples:
        _, h, w = pixels.shape
        boxes_xyxy = box_cxcywh_to_xyxy(boxes_cxcywh) * torch.tensor([w, h, w, h])  # (M,4)
        panels.append((_panel(Image.fromarray(pixels.permute(1, 2, 0).numpy()), boxes_xyxy, labels.tolist(),
                              [names[k] for k in labels.tolist()]),
                       f"{w}×{h} pixels, {counted(len(labels), 'box', 'boxes')}"))
    return _sheet(path, panels, [2 * _GAP + column * (PANEL[0] + _GAP) for column in range(min(4, len(panels)))])


def _sheet(path: Path, panels: Sequence[tuple[Image.Image, str]], lefts: Sequence[int]) -> Path:
    """Pictures with captions, in rows: one at each of `lefts`, the left ends of the columns in pixels."""
    columns, caption, font = len(lefts), 22, _font(15)
    rows = [panels[i:i + columns] for i in range(0, len(panels), columns)]
    heights = [max(picture.height for picture, _ in row) + caption + 2 * _GAP for row in rows]
    sheet = Image.new("RGB", (lefts[-1] + PANEL[0] + 2 * _GAP, sum(heights) + _GAP), _PAPER)
    draw = ImageDraw.Draw(sheet)
    y = _GAP
    for row, height in zip(rows, heights):
        for (picture, text), x in zip(row, lefts):
            left = x + (PANEL[0] - picture.width) // 2
            draw.text((left, y), text, font=font, fill=_INK)
            sheet.paste(picture, (left, y + caption))
        y += height
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial:
        sheet.save(partial, path.suffix[1:] or "png")
    return path


def _panel(image: Image.Image, boxes_xyxy: Tensor, labels: list[int], texts: list[str]) -> Image.Image:
    """`image` scaled (up or down) to fit a panel of the sheet, with its boxes."""
    scale = min(PANEL[0] / image.width, PANEL[1] / image.height)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    small = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    return draw_detections(small, boxes_xyxy * scale, texts, [class_colour(k) for k in labels])


def _place(box: Rectangle, size: tuple[int, int], image_size: tuple[int, int], boxes: list[Rectangle],
           labels: list[Rectangle]) -> Rectangle:
    """Where at its box a label of `size` hides least of boxes and, worse, of labels; above if all places are free."""
    (x0, y0, x1, y1), (w, h) = box, size
    places = []
    for y in (y0 - h, y0, y1, y1 - h):
        for x in (x0, x1 - w):
            x, y = round(max(0, min(x, image_size[0] - 1 - w))), round(max(0, min(y, image_size[1] - 1 - h)))
            places.append((x, y, x + w, y + h))
    return min(places, key=lambda place: sum(_hidden_share(other, place) for other in boxes)
               + 3 * sum(_hidden_share(other, place) for other in labels))


def _hidden_share(thing: Rectangle, cover: Rectangle) -> float:
    """The share of `thing` that lies under `cover`."""
    width = min(thing[2], cover[2]) - max(thing[0], cover[0])
    height = min(thing[3], cover[3]) - max(thing[1], cover[1])
    area = (thing[2] - thing[0]) * (thing[3] - thing[1])
    return width * height / area if width > 0 and height > 0 and area > 0 else 0.0


def _label_size(draw: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont) -> tuple[int, int]:
    return round(draw.textlength(text, font=font)) + 6, sum(font.getmetrics()) + 2


def _fitted(draw: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """The text, or as much of its beginning and of its end (there is the score) as `width` pixels hold."""
    if len(text) <= 2 or draw.textlength(text[:1000], font=font) <= width >= 0 and len(text) <= 1000:
        return text
    fewest, most = 0, min(len(text) - 1, 500)  # letters that stay
    while fewest < most:
        kept = (fewest + most + 1) // 2
        if draw.textlength(_middle_out(text, kept), font=font) <= width:
            fewest = kept
        else:
            most = kept - 1
    return _middle_out(text, fewest)


def _middle_out(text: str, kept: int) -> str:
    """`kept` of its letters: the last five (or half of them if `kept` is below ten), and the first ones."""
    last = min(5, kept // 2)
    return f"{text[:kept - last]}…{text[len(text) - last:]}"


def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def _readable_on(colour: Colour) -> Colour:
    """Black or white, whichever contrasts more (relative luminance, Rec. 709)."""
    r, g, b = colour
    return _DARK if 0.2126 * r + 0.7152 * g + 0.0722 * b > 110 else _PAPER
