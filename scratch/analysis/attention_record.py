"""attention_record: what must be kept of a forward pass to draw its attention later?

    D detections with l boxes each, in L decoder layers of N heads, on a grid of h'·w' cells
    boxes     (D,l,4)        xyxy, shares of the picture: where the query starts, then each layer's
    iou       (D,l)          of each of these boxes with the last
    cross     (D,L,N,h',w')  the decoder's attention to the picture
    P places, in the last encoder layer, whose grid is h·w cells
    points    (P,2)          x, y, shares of the picture
    places    (P,N,h,w)      what each looks at
    cells     (E,S,h,w)      what every cell looks at, in bytes: averaged, and by head if asked for
    peaks     (E,S)          the attention that a byte of 255 stands for

A row of attention is a share of 1, and stays one: padding, which gets none, is cut off. Half
precision, of which cross and places are, keeps a sum to about a thousandth.

A page wants every cell's map: S² numbers, which for the 3,400 cells of a large picture at stride 16
are too many to send to anyone. Beyond 1,024 cells, blocks of f·f cells become one: what they give
is averaged, and what they get is added up, so that rows still sum to 1.
Proven in tests/analysis/test_attention_record.py. Read: Explanation → coarsened → as_bytes
"""

from __future__ import annotations

import io
import json
import struct
import warnings
import zipfile
import zlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from scratch.analysis.records import SURPRISES
from scratch.whole_file import whole_file

MOST_BYTES = 2**30  # of a record that is read: a hundred times what the largest pictures and models give
MOST_CELLS = 1024


@dataclass(frozen=True)
class Explanation:
    """What a detector looked at in one picture: the arrays above, and

    about     plain values: "name" of the picture, "size" (width, height) of the original, "detector", "start" (what box
              0 is called; None: there is none), "layers" (of each box; 0: where the query starts), "detections" (of
              each the query's number and "labels", pairs of a class name and a score, the highest score first), "found"
              (how many reached the threshold), "threshold", "encoder_heads" (are heads to be shown there, too)
    picture   the picture as a JPEG, uint8 (its bytes,)
    """

    about: dict[str, Any]
    picture: np.ndarray
    boxes: np.ndarray
    iou: np.ndarray
    cross: np.ndarray
    points: np.ndarray
    places: np.ndarray
    cells: np.ndarray
    peaks: np.ndarray

    def pixels(self, longest: int) -> np.ndarray:
        """The picture, uint8 (H,W,3), its longer side scaled (up or down) to `longest`."""
        image = Image.open(io.BytesIO(self.picture.tobytes())).convert("RGB")
        scale = longest / max(image.size)
        size = [max(1, round(side * scale)) for side in image.size]
        return np.asarray(image.resize(size, Image.Resampling.BICUBIC))

    def save(self, path: Path) -> None:
        """Write the file whole or not at all."""
        content = {field.name: getattr(self, field.name) for field in fields(self)}
        content["about"] = np.array(json.dumps(self.about))
        with whole_file(path) as partial, open(partial, "wb") as file:  # numpy would add an ending to a name
            np.savez_compressed(file, **content)

    @staticmethod
    def load(path: Path) -> "Explanation":
        """The inverse of `save`. Raises ValueError for a file that is not such a record."""
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {path}: name the record of a picture that explain wrote")
        try:
            with zipfile.ZipFile(path) as file:
                size = sum(member.file_size for member in file.infolist())
            if size > MOST_BYTES:
                raise ValueError(f"it unpacks to {size:,} bytes, wanted {MOST_BYTES:,} at most")
            with np.load(path, allow_pickle=False) as file:
                content = {field.name: file[field.name] for field in fields(Explanation)}
            record = Explanation(**content | {"about": json.loads(str(content["about"]))})
            record._refuse_another_content()
        except (*SURPRISES, EOFError, OSError, RuntimeError, struct.error, zipfile.BadZipFile, zlib.error,
                Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise ValueError(f"{path} is not a record that explain wrote, or a damaged one "
                             f"({type(error).__name__}: {error}): remove it and run explain on the picture "
                             "again") from error
        return record

    def _refuse_another_content(self) -> None:
        """Raise one of SURPRISES where the parts do not fit together."""
        about, (D, L, N, _, _) = self.about, self.cross.shape
        steps, (P, *_) = len(about["layers"]), self.places.shape
        E, S = self.peaks.shape
        wanted = {"boxes": (D, steps, 4), "iou": (D, steps), "points": (P, 2), "cells": (E, S, *self.cells.shape[2:])}
        wrong = [f"{name} is {getattr(self, name).shape}, not {shape}" for name, shape in wanted.items()
                 if getattr(self, name).shape != shape or not np.issubdtype(getattr(self, name).dtype, np.number)]
        if wrong or self.cells.ndim != 4 or D < 1 or L < 1 or N < 1 or len(about["detections"]) != D:
            raise ValueError("; ".join(wrong) or f"{len(about['detections'])} detections of {D}")
        for detection in about["detections"]:
            for name, score in detection["labels"][:1] + detection["labels"]:  # there is one at least
                float(score), str(name)
            int(detection["query"])
        str(about["name"]), str(about["detector"]), int(about["found"]), bool(about["encoder_heads"])
        if not min(about["size"]) > 0 or len(about["size"]) != 2 or (0 in about["layers"] and not about["start"]):
            raise ValueError(f"a size of {about['size']} and the layers {about['layers']}")
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            self.pixels(8)


def jpeg(image: Image.Image, longest: int = 1000) -> np.ndarray:
    """The picture as a JPEG's bytes, uint8; scaled down where its longer side has more pixels than `longest`."""
    small = image.convert("RGB")
    small.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=90, subsampling=0)
    return np.frombuffer(file.getvalue(), dtype=np.uint8)


def cell_of(x: float, y: float, grid: tuple[int, int]) -> tuple[int, int]:
    """The (row, column) of the cell in which a place lies, x and y in [0,1]; the far edges belong to the last cells."""
    h, w = grid
    return min(int(y * h), h - 1), min(int(x * w), w - 1)


def coarsened(attention: np.ndarray, most: int = MOST_CELLS) -> np.ndarray:
    """attention (E,h,w,h,w), from each cell to each → the same on the finest grid of whole blocks with `most` cells.

    A block's attention is the average of its cells', and what it is given the sum of what they are: rows sum to 1
    before and after.
    """
    h, w = attention.shape[1:3]
    side = next(f for f in range(1, h + w) if -(-h // f) * -(-w // f) <= most)
    if side == 1:
        return attention
    rows, columns = np.arange(0, h, side), np.arange(0, w, side)
    for axis, starts in ((1, rows), (2, columns), (3, rows), (4, columns)):
        attention = np.add.reduceat(attention, starts, axis=axis)
    heights, widths = np.diff(rows, append=h), np.diff(columns, append=w)
    return attention / (heights[:, None] * widths)[:, :, None, None]  # the last blocks may be smaller


def as_bytes(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """maps (…,h,w) → bytes (…,h,w), 255 at each map's largest value, and these values, float32 (…)."""
    peaks = maps.max(axis=(-2, -1)).astype(np.float32)
    shares = maps / np.maximum(peaks, np.finfo(np.float32).tiny)[..., None, None]
    return np.rint(255 * shares).astype(np.uint8), peaks
