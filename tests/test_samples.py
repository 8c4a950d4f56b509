"""The sheet of a run's first samples: what the network will see, and a run that goes on as if nobody had looked."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from commands import sheets
from commands.opening import open_split
from commands.sheets import draw_samples
from scratch.config import DataConfig
from scratch.data.coco import CocoDetection
from scratch.data.loader import ResumableBatchSampler, make_loader
from scratch.data.transforms import Augmentation
from scratch.training.checkpoint import rng_state

SEED = 5
DATA = dict(short_side=64, max_size=96, augment="paper", mosaic=0.5, mixup=0.5, colour=0.3)


@pytest.fixture
def data(coco_dir: Path) -> tuple[CocoDetection, ResumableBatchSampler]:
    config = DataConfig(data=str(coco_dir), **DATA)
    dataset = open_split(config, "train", Augmentation.for_training(config), SEED)
    return dataset, ResumableBatchSampler(len(dataset), 3, seed=SEED, train=True)


def test_the_samples_are_those_of_the_first_batches_to_the_pixel(data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    drawn: list[Any] = []
    monkeypatch.setattr(sheets, "sample_sheet", lambda path, samples, names: drawn.extend(samples))
    draw_samples(tmp_path / "sheet.png", *data)
    loader, _ = make_loader(data[0], 3, workers=0, seed=SEED, train=True, device_type="cpu")
    targets, images = [], []
    for batch in loader:
        targets += batch.targets
        images += [image[:, :h, :w] for image, (h, w) in zip(batch.images, (t["size"] for t in batch.targets))]
    assert len(drawn) == 8
    for (pixels, boxes, labels), image, target in zip(drawn, images, targets):
        assert torch.equal(pixels, image)
        assert torch.equal(boxes, target["boxes"]) and torch.equal(labels, target["labels"])


def test_drawing_twice_gives_the_same_file_and_moves_neither_generators_nor_sampler(data, tmp_path: Path):
    dataset, sampler = data
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    before, order = rng_state(), list(sampler)
    line = draw_samples(tmp_path / "one.png", dataset, sampler)
    draw_samples(tmp_path / "two.png", dataset, sampler)
    after = rng_state()
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    assert before["python"] == after["python"] and torch.equal(before["torch"], after["torch"])
    assert torch.equal(before["numpy"][1], after["numpy"][1]) and before["numpy"][2] == after["numpy"][2]
    assert list(sampler) == order and (sampler.epoch, sampler.start) == (0, 0)
    assert line.endswith("one.png") and "\n" not in line
    with Image.open(tmp_path / "one.png") as sheet:
        assert sheet.width > sheet.height


def test_a_set_of_fewer_pictures_has_a_smaller_sheet(data, tmp_path: Path):
    sampler = ResumableBatchSampler(2, 16, seed=SEED, train=True)
    draw_samples(tmp_path / "few.png", data[0], sampler)
    draw_samples(tmp_path / "many.png", *data)
    with Image.open(tmp_path / "few.png") as few, Image.open(tmp_path / "many.png") as many:
        assert few.width < many.width


def test_a_picture_that_cannot_be_read_ends_no_run_here(data, tmp_path: Path):
    class Broken:
        classes = data[0].classes

        def __getitem__(self, key: Any) -> Any:
            raise ValueError("a.png is broken")

    line = draw_samples(tmp_path / "sheet.png", Broken(), data[1])
    assert line == "note: the first training pictures could not be drawn: a.png is broken"
    assert not (tmp_path / "sheet.png").exists()
