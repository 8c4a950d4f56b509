"""predict_onnx: what is on these pictures? With numpy, Pillow and onnxruntime alone, and without PyTorch.

    python predict_onnx.py model.onnx IMAGE [IMAGE | FOLDER …] [--out predictions.json] [--draw FOLDER]

    file ─▶ uint8 (H,W,3) ─▶ model.onnx ─▶ boxes in pixels, scores, labels ─▶ COCO results

The model resizes, normalises and turns its answers into pixels itself. This file opens pictures as
`detr_scratch.py predict` does (turned upright, transparency over white paper, 16 bits brought to 8),
so that both find the same. Differences: a file that is cut off is skipped here, not decoded as far
as it goes, and so are 12-bit and inverted 16-bit TIFF files. It stands alone: copy it with the
model, or take `load`, `read_picture` and `detect` from it into a program of your own.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any, Iterator, NamedTuple, Optional, Sequence

import numpy as np
import onnxruntime
from PIL import Image, ImageDraw, ImageOps

ENDINGS = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"}
Image.MAX_IMAGE_PIXELS = None  # the model says how many pixels are too many


class Model(NamedTuple):
    """A file of `export`, open, with what it says about itself."""

    session: onnxruntime.InferenceSession
    names: list[str]
    category_ids: list[int]
    threshold: float
    max_megapixels: float
    sixteen_bit: str  # "full": 0..65535 is black to white; "range": not done here


class Found(NamedTuple):
    """N detections of one picture, the highest score first."""

    boxes: np.ndarray  # float32 (N,4): left, top, right, bottom in pixels
    scores: np.ndarray  # float32 (N,)
    labels: np.ndarray  # int64 (N,): places in the model's names


def load(path: str, threads: int = 0) -> Model:
    """Open a file that `export` wrote; threads = 0: as many as ONNX Runtime likes. Raises ValueError for others."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has a class of its own for each reason
        raise ValueError(f"{path} is not there, or no ONNX file: {str(error).splitlines()[0]}") from error
    said = session.get_modelmeta().custom_metadata_map
    if said.get("form") != "picture":
        raise ValueError(f"{path} does not take pictures; wanted a file of `detr_scratch.py export` (--form picture)")
    return Model(session, json.loads(said["classes"]), json.loads(said["category_ids"]),
                 json.loads(said["threshold"]), json.loads(said["max_megapixels"]), said["sixteen_bit"])


def read_picture(path: str, max_megapixels: float = 100.0, sixteen_bit: str = "full") -> np.ndarray:
    """A picture file, upright, as uint8 (H,W,3), red first. Raises ValueError for what cannot be read as one."""
    try:
        if not os.path.isfile(path):  # a pipe would be waited for
            raise ValueError("it is not there, or no regular file")
        with Image.open(path) as image:
            if image.width * image.height > max_megapixels * 1e6:
                raise ValueError(f"it has {image.width}×{image.height} pixels; the model allows {max_megapixels:g} "
                                 "megapixels")
            if image.mode.startswith("I;16") or image.mode == "I" and image.format in ("PNG", "PPM"):
                odd = image.format == "TIFF" and (image.tag_v2.get(262) == 0 or "I;12" in str(image.tile))
                if odd or sixteen_bit != "full":
                    raise ValueError("its 9 to 16 bits are not from black to white; save it with 8")
                grey = (np.asarray(ImageOps.exif_transpose(image)).astype(np.uint32) * 255 + 65535 // 2) // 65535
                return np.asarray(Image.fromarray(grey.astype(np.uint8)).convert("RGB"))
            return as_rgb(ImageOps.exif_transpose(image))
    except Exception as error:  # decoders raise anything for a damaged file
        raise ValueError(f"{path!r} cannot be read as an image: {error}") from error


def as_rgb(image: Image.Image) -> np.ndarray:
    """8-bit red, green and blue of a picture in any of Pillow's colour modes that has a defined white."""
    if image.mode[0] in "IF" or image.mode == "LAB":
        raise ValueError(f"its colour mode {image.mode} has no defined white")
    if image.has_transparency_data:
        paper = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(paper, image.convert("RGBA"))
    return np.asarray(image.convert("RGB"))


def detect(model: Model, pictures: np.ndarray) -> list[Found]:
    """What is on B pictures of one size, uint8 (B,H,W,3), at any score."""
    boxes, scores, labels = model.session.run(["boxes", "scores", "labels"], {"pictures": pictures})
    return [Found(*found) for found in zip(boxes, scores, labels)]


def results(model: Model, found: Found, threshold: float, **more: Any) -> list[dict[str, Any]]:
    """The detections that score at least `threshold` as COCO results, each with `more`."""
    entries = []
    for (x0, y0, x1, y1), score, label in zip(found.boxes, found.scores.tolist(), found.labels.tolist()):
        if score >= threshold:
            entries.append({**more, "category_name": model.names[label], "category_id": model.category_ids[label],
                            "bbox": [float(x0), float(y0), float(x1 - x0), float(y1 - y0)], "score": score})
    return entries


def draw(picture: np.ndarray, entries: Sequence[dict[str, Any]]) -> Image.Image:
    """The picture with a box and a word for each result."""
    image = Image.fromarray(picture)
    pencil = ImageDraw.Draw(image)
    for entry in entries:
        x, y, w, h = entry["bbox"]
        x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + w, image.width - 1), min(y + h, image.height - 1)
        if x1 > x0 and y1 > y0:
            pencil.rectangle((x0, y0, x1, y1), outline=(230, 159, 0), width=2)
            word = f"{entry['category_name']} {entry['score']:.2f}".encode("latin-1", "replace").decode("latin-1")
            place = (x0 + 2, max(y0 - 13, 0))
            pencil.rectangle(pencil.textbbox(place, word), fill=(230, 159, 0))
            pencil.text(place, word, fill=(0, 0, 0))
    return image


def files_of(sources: Sequence[str]) -> Iterator[str]:
    """The files, and the pictures in the folders, by name."""
    for source in sources:
        if os.path.isdir(source):
            names = sorted(name for name in os.listdir(source) if os.path.splitext(name)[1].lower() in ENDINGS)
            yield from (os.path.join(source, name) for name in names)
        else:
            yield source


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def write(path: str, content: Any) -> None:
    """Write a JSON file completely or not at all."""
    with open(f"{path}.partial", "w", encoding="utf-8") as file:
        json.dump(content, file)
    os.replace(f"{path}.partial", path)


def main(argv: Optional[Sequence[str]] = None) -> None:
    parser = argparse.ArgumentParser(description="Find objects in pictures with an exported detector.")
    parser.add_argument("model", help="a file of `detr_scratch.py export`: .onnx")
    parser.add_argument("source", nargs="+", help="pictures, or folders of them")
    parser.add_argument("--out", default="predictions.json", help="the file of COCO results to write")
    parser.add_argument("--draw", help="also write each picture with its boxes into this folder")
    parser.add_argument("--threshold", type=float, help="leave out what scores lower; without it: the model's own")
    parser.add_argument("--threads", type=int, default=0, help="threads; 0: ONNX Runtime's choice")
    words = parser.parse_args(argv)
    try:
        model = load(words.model, words.threads)
        threshold = model.threshold if words.threshold is None else words.threshold
        entries, read = [], 0
        for number, path in enumerate(files_of(words.source), start=1):
            try:
                picture = read_picture(path, model.max_megapixels, model.sixteen_bit)
            except ValueError as error:
                print(f"skipped: {error}", file=sys.stderr)
                continue
            read += 1
            found = results(model, detect(model, picture[None])[0], threshold, image_id=number, file_name=path)
            entries += found
            print(f"{path!r}: {counted(len(found), 'object')}")
            if words.draw:
                os.makedirs(words.draw, exist_ok=True)
                name = f"{number:06d}-{Path(path).stem[:100]}.png"
                draw(picture, found).save(os.path.join(words.draw, name))
        if not read:
            raise ValueError("no picture could be read")
        write(words.out, entries)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print(f"{counted(len(entries), 'object')} in {counted(read, 'picture')}, threshold {threshold:g}: {words.out}")


if __name__ == "__main__":
    main()
