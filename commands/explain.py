"""explain: to which parts of an image did the detector attend for each detection?

    IMAGE ─▶ detector, asked for its attention ─▶ NAME.npz, the record ─┬▶ NAME_detections.png
                                                                        ├▶ NAME_encoder.png
                                                                        ├▶ NAME_boxes.png
                                                                        └▶ NAME.html
    --data DIR ─▶ every query's boxes in all images ─▶ slots.json ───────▶ slots.png

All charts are drawn from the records, and `--redraw --out DIR` draws it from them again.
Proven in tests/test_explain.py. Read: explain → look_at (what is kept: attention.py) → slots_of
"""

from __future__ import annotations

import hashlib
import os
import random
import sys
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path
from typing import Any, Literal, Optional, Sequence

import torch
import tyro
from PIL import Image
from tqdm import tqdm

from commands.attention import explained
from commands.opening import newest_run, open_split, reading, resolve_device
from scratch.analysis.attention_maps import NOTEBOOK_POINTS, draw_boxes, draw_detections, draw_encoder
from scratch.analysis.attention_page import write_page
from scratch.analysis.attention_record import Explanation
from scratch.analysis.figures import save
from scratch.analysis.names import alike, cut
from scratch.analysis.records import believed, read_record
from scratch.analysis.slot_chart import draw_slots, slot_record, write_slots
from scratch.data.batch import collate
from scratch.data.images import image_size, read_image
from scratch.data.loader import make_loader
from scratch.data.transforms import Augmentation
from scratch.detector import Detector, load as load_detector
from scratch.only_one import only_one
from scratch.printable import counted, printable
from scratch.ranges import COUNT, LAYERS, MEGAPIXELS, QUERIES, SHARE, refuse_senseless

SLOTS = "slots.json"
MADE_BY = "detr_scratch.py explain"
LONGEST = 200  # bytes of a record's name without ending: 255 are a file name's most, with "_detections.png"


@dataclass(frozen=True)
class ExplainArguments:
    """Show what a detector looks at: attention as heat maps, boxes layer by layer, and a page to walk through both."""

    image: tyro.conf.Positional[Optional[Path]] = None
    """the picture to explain; None with --data or --redraw"""
    out: Path = Path("explained")
    """the folder to write"""
    checkpoint: Optional[Path] = None
    """a run's folder (its best.pt), a checkpoint or another file of weights, published weights (detr_r50 …: fetched
    once), or hf:OWNER/NAME of the Hugging Face Hub; None: the newest run"""
    threshold: Optional[float] = None
    """leave out detections that score lower; None: than was best on the split that the checkpoint was evaluated on"""
    most: int = 12
    """explain this number of detections, those with the highest scores"""
    points: tuple[str, ...] = ()
    """places X,Y in pixels of the picture from which to show the encoder's attention, beside the detections' centres;
    none: four, where the official notebook has them"""
    sixteen_bit: Optional[Literal["full", "range"]] = None
    """how a picture of 16 bits is shown (train --help); None: as the detector was trained"""
    max_megapixels: Optional[float] = None
    """refuse a picture with more; None: as the detector was trained"""
    encoder_heads: bool = False
    """show the encoder's attention head by head, too"""
    data: Optional[str] = None
    """also show where each query's boxes are over this folder of pictures, or over "shapes", the generated images"""
    split: Literal["train", "val", "test"] = "val"
    """the split of --data"""
    limit: int = 500
    """look at this number of images of --data"""
    redraw: bool = False
    """only draw again from the records in --out"""
    layers: Optional[int] = None
    """use only the first decoder layers, this number of them, which is faster (eval measures what it costs in AP);
    None: all"""
    num_queries: Optional[int] = None
    """how many queries a detector with proposals has: more of them find more objects in full pictures, and cost time;
    None: as in training"""
    class_names: Optional[str] = None
    """what the classes of weights from elsewhere are called, in the order of their labels, where the file does not
    tell: "person,car" """
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps"""

    def __post_init__(self) -> None:
        refuse_senseless(self, threshold=SHARE, most=QUERIES, limit=COUNT, max_megapixels=MEGAPIXELS,
                         layers=LAYERS, num_queries=QUERIES)


def explain(arguments: ExplainArguments) -> None:
    """Look at a picture, at a data set or at both, write down what was seen, and draw it."""
    if arguments.redraw == bool(arguments.image or arguments.data):
        raise ValueError(f"got the image {arguments.image}, --data {arguments.data} and redraw = {arguments.redraw}; "
                         "wanted an image, --data or both, or else --redraw alone")
    if arguments.redraw:
        redraw(arguments.out)
        return
    # Before a detector is loaded, which takes longer.
    places = points_of(arguments.points, image_size(arguments.image)) if arguments.image else ()
    device = torch.device(resolve_device(arguments.device))
    checkpoint = arguments.checkpoint or newest_run()
    detector = reading(load_detector(checkpoint, device, arguments.layers, arguments.class_names,
                                    arguments.num_queries),
                       arguments.sixteen_bit, arguments.max_megapixels)
    for note in detector.notes:
        print(note, file=sys.stderr)
    image = read_image(arguments.image, config=detector.config.data) if arguments.image else None
    words = f"{checkpoint}, {detector.config.preset}"
    with only_one(arguments.out):
        if image:
            threshold = detector.threshold if arguments.threshold is None else arguments.threshold
            record = look_at(image, places or NOTEBOOK_POINTS, detector, words, threshold, arguments)
            shown, found = len(record.about["detections"]), record.about["found"]
            print(f"{printable(words)}: {counted(found, 'detection')} in {printable(arguments.image)} "
                  f"(threshold {threshold:g})"
                  + (f"; {shown} are explained (--most)" if shown < found else "")
                  + ("; the one with the highest score is explained all the same" if not found else ""))
            path = record_file(arguments.image, arguments.out)
            record.save(path)
            show(path)
        if arguments.data:
            path = arguments.out / SLOTS
            write_slots(slots_of(detector, words, arguments), path)
            show(path)


def redraw(folder: Path) -> None:
    """Draw every record of the folder, and raise ValueError for those that are damaged; FileNotFoundError for none."""
    records = [path for path in sorted(folder.glob("*.npz")) if not path.name.startswith(".")]
    records += [path for path in [folder / SLOTS] if path.exists()]
    if not records:
        raise FileNotFoundError(f"there is no record in {folder} to draw: explain an image first, without --redraw")
    damaged = []
    with only_one(folder):
        for path in records:
            try:
                show(path)
            except ValueError as error:  # the others can be drawn all the same
                damaged.append(str(error))
    if damaged:
        raise ValueError("\n".join(damaged))


def draw(path: Path) -> list[Path]:
    """Draw all that a record shows, beside it; returns what was drawn."""
    if path.name == SLOTS:
        content = read_record(path, MADE_BY)
        with believed(path, MADE_BY):
            return [save(draw_slots(content), path.with_suffix(".png"))]
    record = Explanation.load(path)
    with believed(path, MADE_BY):
        charts = {"detections": draw_detections, "encoder": draw_encoder, "boxes": draw_boxes}
        figures = {path.with_name(f"{path.stem}_{name}.png"): chart(record) for name, chart in charts.items()}
        drawn = [save(figure, picture) for picture, figure in figures.items() if figure is not None]
        page = path.with_name(f"{path.stem}.html")
        write_page(record, page)
    return [*drawn, page]


def show(path: Path) -> None:
    """Draw a record, and print what was drawn."""
    print(*(f"  {printable(picture)}" for picture in draw(path)), sep="\n")


def record_file(image: Path, folder: Path) -> Path:
    """The file for a picture's record: that of an earlier time, or a name that nothing else has.

    a.jpg is recorded in a.npz, and a.png after it in a.png.npz; an a.jpg from another folder in a-2.npz.
    """
    there = {alike(path.name): path for path in sorted(folder.glob("*.npz"))}
    stem, name = cut(image.stem, LONGEST), cut(image.name, LONGEST)
    for candidate in chain((stem, name), (f"{stem}-{number}" for number in count(2))):
        path = there.get(alike(f"{candidate}.npz"))
        if path is None or _is_of(path, image):
            return path or folder / f"{candidate}.npz"
    raise AssertionError("there is always a next number")


def _is_of(record: Path, image: Path) -> bool:
    """Is it a record, and one of this picture? (One of an earlier version says no more than the picture's name.)"""
    try:
        about = Explanation.load(record).about
    except (ValueError, OSError):
        return False  # what is not ours is not written over
    return about["name"] == image.name and about.get("picture", picture_id(image)) == picture_id(image)


def picture_id(image: Path) -> str:
    """What tells pictures of one name in different folders from each other, and says nothing of the folders."""
    return hashlib.sha256(os.fsencode(os.path.realpath(image))).hexdigest()[:16]


# ── one picture ─────────────────────────────────────────────────────────────────────────────────────────────────────


def look_at(image: Image.Image, places: Sequence[tuple[float, float]], detector: Detector, words: str,
            threshold: float, arguments: ExplainArguments) -> Explanation:
    """The record of a picture, shown to the detector as in an evaluation."""
    pixels, _, _ = Augmentation.for_evaluation(detector.config.data)(image, torch.zeros(0, 4), random.Random(0))
    batch = collate([(pixels, {})]).to(next(detector.model.parameters()).device)
    about = {"name": arguments.image.name, "picture": picture_id(arguments.image), "detector": words,
             "threshold": threshold, "encoder_heads": arguments.encoder_heads}
    return explained(detector.model, batch, image, detector.classes.names, about, places, arguments.most)


def points_of(texts: Sequence[str], size: tuple[int, int]) -> tuple[tuple[float, float], ...]:
    """ "X,Y" in pixels of an image of this (width, height) → shares of it.

    Raises ValueError for another text, or a place outside.
    """
    points, (width, height) = [], size
    for text in texts:
        try:
            x, y = (float(number) for number in text.split(","))
        except ValueError:
            x = y = -1.0
        if not (0 <= x <= width and 0 <= y <= height):
            raise ValueError(f"got the point {text!r}, wanted X,Y in pixels, within the picture's "
                             f"{width}×{height}: --points 120,80 300,200")
        points.append((x / width, y / height))
    return tuple(points)


# ── a data set ──────────────────────────────────────────────────────────────────────────────────────────────────────


@torch.no_grad()
def slots_of(detector: Detector, words: str, arguments: ExplainArguments) -> dict[str, Any]:
    """The record of the boxes of every query in all images of --data, for objects of any class."""
    config = detector.config
    data = replace(config.data.in_folder(arguments.data), classes=None, limit_train=arguments.limit,
                   limit_val=arguments.limit)
    dataset = open_split(data, arguments.split, Augmentation.for_evaluation(data), config.train.seed)
    device = next(detector.model.parameters()).device
    loader, _ = make_loader(dataset, 8, train=False, workers=data.workers, seed=config.train.seed,
                            device_type=device.type)
    boxes = []
    for batch in tqdm(loader, desc="slots", disable=None):
        batch = batch.to(device)
        boxes.append(detector.model(batch.normalised(), batch.pad_mask)["pred_boxes"].cpu())    # (B,Q,4)
    name = Path(arguments.data).resolve().name if arguments.data != "shapes" else "shapes"
    about = {"data": f"{arguments.split} of {name}", "detector": words, "queries": config.model.queries}
    return slot_record(torch.cat(boxes).numpy(), about)
