"""drawn_coco: a small set laid out exactly as COCO 2017 is, for tests that need its form and not its photographs.

    annotations/instances_{train,val}2017.json   80 classes behind 90 ids, outlines, crowds as run lengths, urls
    {train,val}2017/000000000137.jpg             pictures of noise, each of its own size

Each picture shows one of the ten classes of the subset, and two others; every seventh has a crowd, every fifth a large
object.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from scratch.data.coco_names import COCO_NAMES
from scratch.data.subset import TEN_CLASSES

COUNT = 40  # pictures of a split
EVERY_CROWD, EVERY_LARGE = 7, 5


def draw_coco(folder: Path) -> Path:
    (folder / "annotations").mkdir(parents=True)
    for number, split in enumerate(("train", "val")):
        document = _document(number)
        (folder / f"{split}2017").mkdir()
        for image in document["images"]:
            noise = np.random.RandomState(image["id"]).randint(0, 256, (image["height"], image["width"], 3))
            Image.fromarray(noise.astype(np.uint8)).save(folder / f"{split}2017" / image["file_name"], quality=75)
        (folder / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(document))
    return folder


def _document(number: int) -> dict[str, Any]:
    ids = {name: i for i, name in enumerate(COCO_NAMES) if name != "-"}
    document: dict[str, Any] = {
        "info": {"description": "drawn, in the form of COCO 2017", "year": 2017},
        "licenses": [{"id": 1, "name": "none"}], "images": [], "annotations": [],
        "categories": [{"id": i, "name": name, "supercategory": "thing"} for name, i in ids.items()]}
    every, draw = list(ids.values()), np.random.RandomState(number)
    for k in range(COUNT):
        image = 137 + 1000 * number + 11 * k
        name, width, height = f"{image:012d}.jpg", 160 + k, 130 - k
        document["images"].append({"id": image, "file_name": name, "width": width, "height": height, "license": 1,
                                   "coco_url": f"http://images.example/{name}"})
        shown = [ids[TEN_CLASSES[k % 10]], every[2 * k % 80], every[(2 * k + 1) % 80]]
        for n, category in enumerate(shown):
            x, y = draw.uniform(0, width / 2), draw.uniform(0, height / 2)
            w, h = draw.uniform(5, width / 2), draw.uniform(5, height / 2)
            if n == 1 and k % EVERY_LARGE == 0:  # in COCO's measure an object is large from 96² pixels on
                x, y, w, h = 2, 2, width - 4, height - 4
            x, y, w, h = (round(float(value), 2) for value in (x, y, w, h))
            crowd = int(n == 2 and k % EVERY_CROWD == 0)
            outline = ({"counts": [int(x * height), 17], "size": [height, width]} if crowd
                       else [[x, y, x + w, y, x + w, y + h, x, y + h]])
            document["annotations"].append({
                "id": 10_000 * (number + 1) + 3 * k + n, "image_id": image, "category_id": category,
                "bbox": [x, y, w, h], "area": round(w * h, 2), "iscrowd": crowd, "segmentation": outline})
    return document
