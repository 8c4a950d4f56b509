"""Small COCO-format sets to order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Optional

import numpy as np
import pytest
from PIL import Image


class CocoSet:
    """A COCO-format folder that grows by calls; `write()` puts its annotation files on the disk."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.splits: dict[str, dict[str, list[Any]]] = {}

    def split(self, name: str) -> dict[str, list[Any]]:
        (self.root / name).mkdir(parents=True, exist_ok=True)
        categories = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]
        return self.splits.setdefault(name, {"images": [], "annotations": [], "categories": categories})

    def image(self, split: str, id: int, picture: Optional[Image.Image] = None, suffix: str = "png",
              **save: Any) -> Path:
        """Add an image (of noise, 37×23, if none is given) with one box; returns its file."""
        if picture is None:
            picture = Image.fromarray(np.random.default_rng(id).integers(0, 256, (23, 37, 3), dtype=np.uint8))
        document = self.split(split)
        path = self.root / split / f"{id:04d}.{suffix}"
        picture.save(path, **save)
        width, height = picture.size
        document["images"].append({"id": id, "file_name": path.name, "width": width, "height": height})
        self.box(split, id, [2, 3, 11, 7])
        return path

    def box(self, split: str, image_id: Any, bbox: Any, **fields: Any) -> None:
        annotations = self.split(split)["annotations"]
        id = 1000 * len(self.splits) + len(annotations)
        annotations.append({"id": id, "image_id": image_id, "category_id": 3, "bbox": bbox, "iscrowd": 0, **fields})

    def write(self) -> Path:
        (self.root / "annotations").mkdir(exist_ok=True)
        for name, document in self.splits.items():
            (self.root / "annotations" / f"instances_{name}.json").write_text(json.dumps(document))
        return self.root


@pytest.fixture
def coco_set(tmp_path: Path) -> CocoSet:
    """An empty set; fill it, then `write()`."""
    return CocoSet(tmp_path / "set")
