"""shapes: what can a detector learn from without any labelled photograph?

    shapes-2000-200-seed0-v1/ train/ val/                      2,000 and 200 JPEGs, sides of 192-320 pixels
                              annotations/instances_*.json     COCO's format: the path that real sets take
                              manifest.json                    what it was made from; written last

Ellipses, rectangles, triangles, stars and crosses: 1-8 an image, 10-50 % of the shorter side, stretched, turned,
shaded, in any colour on any background (a gradient with blobs, stripes or clouds, and grain). A colour says nothing
about a class; it only has to differ from the background. Objects occlude each other, but at least 70 % of each stays
visible; its box is tight around the whole shape, hidden parts included.

Every image follows from (seed, split, number) alone, so the same seed gives the same set and no two images share their
draws: train and val are disjoint. Proven in tests/data/test_shapes.py.
Read: OUTLINES → draw_scene (one image) → shapes_dataset (the files)
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Iterator

import numpy as np
from PIL import Image, ImageDraw
from tqdm import tqdm

from scratch.only_one import claim

_LOCK = ".lock"
VERSION = 1  # of the drawing: a set drawn by another version is not reused


def _circle_of(angles: np.ndarray, radii: Any = 1.0) -> np.ndarray:
    return np.stack((np.sin(angles), -np.cos(angles)), axis=1) * np.broadcast_to(radii, angles.shape)[:, None]


_TURN = 2 * np.pi
_ARM = 0.32  # half the width of a cross's arm
# Each class as a polygon (V,2) around the origin, about 1 in radius; label k is category id k + 1.
OUTLINES: dict[str, np.ndarray] = {
    "ellipse": _circle_of(np.arange(72) * _TURN / 72),
    "rectangle": _circle_of((np.arange(4) + 0.5) * _TURN / 4),
    "triangle": _circle_of(np.arange(3) * _TURN / 3),
    "star": _circle_of(np.arange(10) * _TURN / 10, np.tile((1.0, 0.45), 5)),
    "cross": np.array([(_ARM, -1), (_ARM, -_ARM), (1, -_ARM), (1, _ARM), (_ARM, _ARM), (_ARM, 1),
                       (-_ARM, 1), (-_ARM, _ARM), (-1, _ARM), (-1, -_ARM), (-_ARM, -_ARM), (-_ARM, -1)]),
}
_SUPERSAMPLING = 3  # outlines are filled on a grid this much finer, then averaged, so that edges are smooth
_VISIBLE = 0.7  # the share of every object that stays in sight: less, and a triangle may look like a rectangle
_CONTRAST = 65.0  # least distance in RGB (of at most 442) between a colour and what lies beneath it


# -- one image -----------------------------------------------------------------------------------------------------


def draw_scene(rng: np.random.Generator) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """An image uint8 (H,W,3) and its objects: `label`, `bbox` (x, y, w, h in pixels), `area` (of the whole shape)."""
    H, W = (int(side) for side in rng.integers(192, 321, size=2))
    canvas = _background(H, W, rng)                                                 # (H,W,3) float32
    owner = np.full((H, W), -1)  # which object is in sight at each pixel; -1 is the background
    sizes: list[int] = []  # pixels of each object, in sight or not
    objects: list[dict[str, Any]] = []
    wanted = int(rng.integers(1, 9))
    for _ in range(12 * wanted):
        if len(objects) == wanted:
            break
        label = int(rng.integers(len(OUTLINES)))
        points = _place(list(OUTLINES.values())[label], H, W, rng)                  # (V,2) pixels
        (left, top), (right, bottom) = np.floor(points.min(0)).astype(int), np.ceil(points.max(0)).astype(int)
        region = (slice(top, bottom), slice(left, right))
        alpha = _fill(points - (left, top), bottom - top, right - left)             # (h,w) in [0,1]
        covered = alpha > 0.5
        counts = np.bincount(owner.ravel() + 1, minlength=len(sizes) + 1)[1:]
        lost = np.bincount(owner[region][covered] + 1, minlength=len(sizes) + 1)[1:]
        if np.any(counts - lost < _VISIBLE * np.array(sizes)):
            continue
        colour = _colour_against(canvas[region][covered], rng)
        canvas[region] += alpha[..., None] * (_shaded(colour, alpha.shape, rng) - canvas[region])
        owner[region][covered] = len(sizes)
        sizes.append(int(covered.sum()))
        bbox = [round(float(v), 2) for v in (*points.min(0), *np.ptp(points, axis=0))]
        objects.append({"label": label, "bbox": bbox, "area": round(_area(points), 2)})
    canvas += rng.normal(0, rng.uniform(1, 8), size=canvas.shape[:2])[..., None]  # grain, over everything
    return canvas.clip(0, 255).astype(np.uint8), objects


def _place(outline: np.ndarray, H: int, W: int, rng: np.random.Generator) -> np.ndarray:
    """The outline stretched, turned, sized and moved to a place inside the image: (V,2) x and y in pixels."""
    stretched = outline * (1.0, 1 / rng.uniform(1.0, 1.7))
    angle = rng.uniform(0, _TURN)
    turned = stretched @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    extent = np.ptp(turned, axis=0)
    scale = min(H, W) * np.exp(rng.uniform(np.log(0.1), np.log(0.5))) / extent.max()
    corner = rng.uniform(0, 1, size=2) * ((W, H) - scale * extent)
    return (turned - turned.min(0)) * scale + corner


def _fill(points: np.ndarray, h: int, w: int) -> np.ndarray:
    """How much of each pixel lies in the polygon: float32 (h,w) in [0,1]."""
    mask = Image.new("L", (w * _SUPERSAMPLING, h * _SUPERSAMPLING))
    ImageDraw.Draw(mask).polygon([tuple(p) for p in points * _SUPERSAMPLING - 0.5], fill=255)
    return np.asarray(mask.reduce(_SUPERSAMPLING), dtype=np.float32) / 255


def _area(points: np.ndarray) -> float:
    """The polygon's area: half of what its edges sweep around the origin (the shoelace formula)."""
    x, y = points.T
    return abs(float(x @ np.roll(y, 1) - y @ np.roll(x, 1))) / 2


def _random_colour(rng: np.random.Generator) -> np.ndarray:
    """Any colour that is neither nearly black nor nearly white: (3,) in 0..255."""
    hue, saturation, value = rng.uniform(0, 1), rng.uniform(0.1, 0.9), rng.uniform(0.3, 0.95)
    wheel = np.clip(np.abs((hue * 6 + np.array([0, 4, 2])) % 6 - 3) - 1, 0, 1)      # (3,), a fully saturated hue
    return 255 * value * (1 - saturation * (1 - wheel))


def _colour_against(beneath: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random colour that can be told from nearly all pixels (P,3) beneath it; the best of 30 if none quite can."""
    sample = beneath[rng.integers(len(beneath), size=100)]                          # (100,3)
    best, best_distance = _random_colour(rng), -1.0
    for _ in range(30):
        colour = _random_colour(rng)
        distance = float(np.percentile(np.linalg.norm(sample - colour, axis=1), 10))
        if distance > best_distance:
            best, best_distance = colour, distance
        if best_distance >= _CONTRAST:
            break
    return best


def _ramp(h: int, w: int, rng: np.random.Generator) -> np.ndarray:
    """A plane that rises from 0 to 1 in a random direction: float32 (h,w)."""
    angle = rng.uniform(0, _TURN)
    plane = np.cos(angle) * np.arange(w)[None, :] + np.sin(angle) * np.arange(h)[:, None]
    return ((plane - plane.min()) / max(np.ptp(plane), 1e-6)).astype(np.float32)


def _shaded(colour: np.ndarray, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    light = 1 + rng.uniform(0, 0.35) * (_ramp(*shape, rng) - 0.5)
    return (light[..., None] * colour).astype(np.float32)


def _background(H: int, W: int, rng: np.random.Generator) -> np.ndarray:
    """A gradient of two colours with one pattern on it: float32 (H,W,3)."""
    first, second, third = (_random_colour(rng) for _ in range(3))
    mix = _ramp(H, W, rng)[..., None]
    canvas = (first * (1 - mix) + second * mix).astype(np.float32)
    pattern = rng.choice(("blobs", "stripes", "clouds"))
    if pattern == "blobs":
        y, x = np.arange(H)[:, None], np.arange(W)[None, :]
        amount = np.zeros((H, W), dtype=np.float32)
        for _ in range(rng.integers(3, 9)):
            radius = rng.uniform(0.08, 0.3) * min(H, W)
            amount += np.exp(-(((x - rng.uniform(0, W)) / radius) ** 2 + ((y - rng.uniform(0, H)) / radius) ** 2))
        amount = amount.clip(0, 1)
    elif pattern == "stripes":
        amount = 0.5 + 0.5 * np.sin(_TURN * rng.uniform(3, 14) * _ramp(H, W, rng) + rng.uniform(0, _TURN))
    else:
        coarse = Image.fromarray(rng.uniform(0, 1, size=rng.integers(3, 12, size=2)).astype(np.float32))
        amount = np.asarray(coarse.resize((W, H), Image.Resampling.BICUBIC)).clip(0, 1)
    amount = (amount * rng.uniform(0.2, 0.7))[..., None]
    return (canvas + amount * (third.astype(np.float32) - canvas)).astype(np.float32)


# -- the files -----------------------------------------------------------------------------------------------------


def shapes_dataset(root: Path, train: int, val: int, seed: int = 0) -> Path:
    """The folder of a generated COCO-format set of `train` and `val` images under `root`; made if it is not there.

    The folder appears whole or not at all: it is made beside its place under another name, then renamed.
    Raises ValueError for counts below 1 and FileExistsError where a folder of its name holds something else.
    """
    if train < 1 or val < 1:
        raise ValueError(f"got {train} training and {val} validation shapes, wanted at least one of each")
    manifest = {"version": VERSION, "seed": seed, "train": train, "val": val}
    folder = Path(root) / f"shapes-{train}-{val}-seed{seed}-v{VERSION}"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _workplace(folder) as workplace:
            try:
                with tqdm(total=train + val, desc="drawing shapes", unit="image", disable=None, leave=False) as bar:
                    _write_split(workplace, "train", train, 1, np.random.SeedSequence((seed, 0)), bar)
                    _write_split(workplace, "val", val, train + 1, np.random.SeedSequence((seed, 1)), bar)
                (workplace / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
                os.rename(workplace, folder)
            except OSError as error:
                if not folder.exists():  # else another process was faster, and its set is the same
                    raise OSError(f"the shapes could not be drawn into {folder}: {error.strerror or error}; free some "
                                  "space, or change into another folder") from error
    try:
        same = json.loads((folder / "manifest.json").read_text(encoding="utf-8")) == manifest
    except (OSError, ValueError):
        same = False
    if not same:
        raise FileExistsError(f"{folder} is not the set that its name says; remove it, and it will be drawn again")
    return folder


@contextmanager
def _workplace(folder: Path) -> Iterator[Path]:
    """A hidden folder beside `folder` to draw in. What killed processes have left of theirs is removed first.

    Each has a lock beside it, held before it is there and for as long as its process lives: one that can be locked is
    nobody's.
    """
    for left in {path.with_name(path.name.removesuffix(_LOCK)) for path in folder.parent.glob(f".{folder.name}-*")}:
        _remove(left)
    workplace = folder.with_name(f".{folder.name}-{uuid.uuid4().hex[:12]}")
    lock = workplace.with_name(workplace.name + _LOCK)
    with open(lock, "a", encoding="utf-8") as file:
        claim(file)
        try:
            workplace.mkdir()
            yield workplace
        finally:
            shutil.rmtree(workplace, ignore_errors=True)
            lock.unlink(missing_ok=True)


def _remove(workplace: Path) -> None:
    lock = workplace.with_name(workplace.name + _LOCK)
    with suppress(OSError), open(lock, "a", encoding="utf-8") as file:
        if claim(file):
            shutil.rmtree(workplace, ignore_errors=True)
            lock.unlink(missing_ok=True)


def _write_split(folder: Path, split: str, count: int, first_id: int, seeds: np.random.SeedSequence, bar: tqdm) -> None:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    (folder / split).mkdir()
    for id, seed in enumerate(seeds.spawn(count), first_id):
        pixels, objects = draw_scene(np.random.default_rng(seed))
        name = f"{id:06d}.jpg"
        Image.fromarray(pixels).save(folder / split / name, quality=92)
        images.append({"id": id, "file_name": name, "width": pixels.shape[1], "height": pixels.shape[0]})
        annotations += [{"id": len(annotations) + k, "image_id": id, "category_id": o["label"] + 1, "bbox": o["bbox"],
                         "area": o["area"], "iscrowd": 0} for k, o in enumerate(objects, 1)]
        bar.update()
    categories = [{"id": k, "name": name} for k, name in enumerate(OUTLINES, 1)]
    (folder / "annotations").mkdir(exist_ok=True)
    (folder / "annotations" / f"instances_{split}.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories}), encoding="utf-8")
