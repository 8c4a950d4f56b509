"""ground: what every trial stands on: a small data set, a trained run, flags that make a run short."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator

from scratch.data.subset import TEN_CLASSES
from tests.chaos.arena import Ended, run
from tests.local_server import Server, serving_at

# Small, and yet everything that a checkpoint must bring back is on: dropout, augmentation, accumulation, the running
# average, batch norm, noised boxes, groups, Muon.
SMALL = ("--preset tiny --device cpu --short-side 64 --max-size 96 --hidden-dim 32 --dim-feedforward 48 "
         "--max-minutes None").split()
LEARNING = [*SMALL, *("--no-tensorboard --batch-size 2 --accumulate 2 --dropout 0.1 --ema-decay 0.9 --augment paper "
                      "--no-square --mosaic 0.3 --mixup 0.3 --denoising 2 --groups 2 --checkpoint-every 1 "
                      "--eval-every 2 --epochs 9 --max-steps 12").split()]
SHORT = "--batch-size 4 --workers 0 --max-steps 1 --epochs 1 --mosaic 0".split()
ONE_STEP = [*SMALL, *SHORT]
QUIET_STEP = [*ONE_STEP, "--no-tensorboard"]  # a sixth of the time less, where the page of it is not in question
DRAWN = "--shapes-train 22 --shapes-val 3".split()

Trial = tuple[str, str]
"""what was tried, and its fault (empty: survived)"""


@dataclass
class Ground:
    """The folder of the whole round, and how much of it is to be done."""

    folder: Path
    seed: int
    scale: float

    @property
    def data(self) -> Path:
        """A COCO-format folder of 22 training and 3 validation images."""
        return self.folder / "data" / "shapes-22-3-seed0-v1"

    @property
    def trained(self) -> Path:
        """The folder of a short run on `data`."""
        return self.folder / "trained"

    def count(self, wanted: int) -> int:
        return max(1, round(self.scale * wanted))

    def rng(self, *of: object) -> random.Random:
        return random.Random(f"{self.seed} {of}")

    def room(self, name: str) -> Path:
        """An empty folder of a trial's own."""
        room = self.folder / "rooms" / name
        shutil.rmtree(room, ignore_errors=True)
        room.mkdir(parents=True)
        return room

    def prepare(self) -> None:
        """Draw the data and train the run. Raises RuntimeError if that fails: then nothing can be tried."""
        ended = run(["train", *SMALL, *DRAWN, *"--batch-size 4 --workers 0 --epochs 2 --max-steps 8".split(),
                     "--run-dir", str(self.trained)], self.folder, 300)
        if ended.code != 0:
            raise RuntimeError(f"the run that all trials need did not come about: {ended.output[-2000:]}")


def settled(name: str, ended: Ended, *more: str, **limits: object) -> Trial:
    """The trial of an end, and of further faults that were found."""
    return name, "; ".join(filter(None, (ended.fault(**limits), *more)))  # type: ignore[arg-type]


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def commands(ground: Ground, room: Path) -> dict[str, list[str]]:
    """Every command that writes, into `room`, from the trained run: what is killed, and what gets a full disk."""
    trained, data, out = str(ground.trained), str(ground.data), f"{room}/out"
    os.makedirs(room, exist_ok=True)
    published = ("--queries learned --classification softmax --no-fine-memory --no-roi-features --one-to-many 0 "
                 "--optimizer adamw --quality 0").split()
    return {
        "predict": ["predict", f"{data}/val", "--checkpoint", trained, "--threshold", "0.1", "--out", out],
        "analyze": ["analyze", trained, "--out", out],
        "explain": ["explain", f"{data}/val/000023.jpg", "--checkpoint", trained, "--most", "2", "--out", out],
        "charts": ["charts", "--checkpoint", trained, "--batches", "1", "--timed", "0", "--out", out],
        "export": ["export", trained, "--out", f"{room}/model.onnx"],
        "convert": ["convert", trained, "--to", "ours", "--out", f"{room}/weights.pt"],
        "eval": ["eval", trained, "--json", f"{room}/figures.json"],
        "finetune": ["finetune", "--weights", f"{trained}/best.pt", "--data", data, *SHORT, "--device", "cpu",
                     "--run-dir", f"{room}/tuned"],
        "lr-range": ["lr-range", *SMALL, "--data", data, "--steps", "10", "--batch-size", "2", "--workers", "0",
                     "--out", out],
        "sweep": ["sweep", *SMALL, *DRAWN, *SHORT, "--eval-every", "1", "--trials", "2",
                  "--space", "lr=log:1e-4:1e-3", "--out", f"{room}/sweep"],
        "compare": ["compare", *ONE_STEP, *published, "--data", data, "--out", f"{room}/compare"],
    }


# -- a place to download from ------------------------------------------------------------------------------------------

NO_PROXY = {"NO_PROXY": "*", "no_proxy": "*"}
DOWNLOAD = ["download", "coco-subset", "--classes", ",".join(TEN_CLASSES[:5]), "--from"]


def coco_document(ground: Ground) -> dict[str, Any]:
    """The training annotations of `data`, their classes named as classes that coco-subset takes."""
    document = json.loads((ground.data / "annotations" / "instances_train.json").read_text())
    for category, name in zip(document["categories"], TEN_CLASSES):
        category["name"] = name
    return document


def coco_archive(annotations: bytes, members: dict[str, str] = {}) -> bytes:
    """A zip file as COCO's of annotations, both splits alike, with other members (name → text) beside them."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for split in ("train2017", "val2017"):
            file.writestr(f"annotations/instances_{split}.json", annotations)
        for name, text in members.items():
            file.writestr(name, text)
    return buffer.getvalue()


@contextmanager
def coco_server(ground: Ground, archive: bytes) -> Iterator[Server]:
    """A server of this archive, and of the pictures of `data`, under the paths of COCO's own host."""
    with serving_at() as server:
        server.files["/annotations/annotations_trainval2017.zip"] = archive
        server.folders["/train2017/"] = server.folders["/val2017/"] = ground.data / "train"
        yield server
