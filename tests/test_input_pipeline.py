"""The input pipeline's benchmark: one side decodes reduced, each part is counted once, figures are told and written."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import scratch.data.coco
from benchmarks.input_pipeline import EPOCHS, SIDES, in_parts, measure, open_side, table
from scratch.config import PRESETS
from tests.data.conftest import CocoSet

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture
def photographs(tmp_path):
    """Five JPEGs that are shown, as squares of 144 pixels, at less than half their size, and one that it does not."""
    photographs = CocoSet(tmp_path / "set")
    for id in range(1, 7):
        pixels = np.full((450, 460 if id > 1 else 400, 3), 40 * id, dtype=np.uint8)
        photographs.image("train", id, Image.fromarray(pixels), suffix="jpg")
    return photographs.write()


def _config(photographs):
    return replace(PRESETS["tiny_vanilla"], data=replace(PRESETS["tiny"].data, data=str(photographs), short_side=144))


def test_only_one_side_decodes_reduced(photographs):
    reduced, whole = (open_side(side, _config(photographs), None) for side in SIDES)
    for dataset, sizes in ((reduced, {(230, 225), (400, 450)}), (whole, {(460, 450), (400, 450)})):
        for index in range(6):
            dataset[(0, index)]
        assert {picture.pixels.size for picture in dataset._kept.values()} == sizes


def test_whether_a_part_of_the_split_is_kept_the_whole_split_decides(photographs, monkeypatch):
    monkeypatch.setattr(scratch.data.coco, "most_kept", lambda workers: 4 * 6 * 400 * 450)
    kept = {side: open_side(side, _config(photographs), 2) for side in SIDES}
    assert [len(dataset) for dataset in kept.values()] == [2, 2]
    assert (kept["reduced"]._keeps, kept["whole"]._keeps) == (True, False)


def test_the_figures_are_told_and_written(photographs, tmp_path):
    command = [sys.executable, "-m", "benchmarks.input_pipeline", "--preset", "tiny_vanilla", "--data", photographs,
               "--rounds", "1", "--batch-size", "2", "--json", tmp_path / "figures.json"]
    output = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout
    (result,) = json.loads((tmp_path / "figures.json").read_text())["results"]
    assert table(result) in output
    assert result["batch"] == [2, 144, 144] and result["images"] == 6
    assert result["reduced"]["reductions"] == {"2": 6} and result["whole"]["reductions"] == {"1": 6}
    for side in SIDES:
        assert all(result[side][epoch]["images_per_second"] > 0 for epoch in EPOCHS)
        consumed = result["step_images_per_second"] / result[side]["first"]["images_per_second"]
        assert result[side]["first"]["workers"] - 1 < consumed <= result[side]["first"]["workers"]


def test_each_picture_is_decoded_once_and_shown_once_an_epoch(photographs, monkeypatch):
    seconds = iter(range(10**6))
    monkeypatch.setattr("benchmarks.input_pipeline.time.perf_counter", lambda: next(seconds))  # each look, one later
    config = _config(photographs)
    dataset = open_side("reduced", replace(config, data=replace(config.data, mosaic=0.0)), None)
    assert in_parts(dataset, 0) == {"decode": 1, "resample": 1}
    assert in_parts(dataset, 1) == {"decode": 0, "resample": 1}


def test_a_split_that_is_not_kept_has_no_later_epochs(photographs, monkeypatch):
    monkeypatch.setattr(scratch.data.coco, "most_kept", lambda workers: 0)
    monkeypatch.setattr("benchmarks.input_pipeline.consumption", lambda *_: 1e9)
    result = measure("tiny_vanilla", str(photographs), 4, 1, torch.device("cpu"), "float32", 2)
    assert all("later" not in result[side] and result[side]["first"]["workers"] > 1 for side in SIDES)
    assert "as the first: too many pixels to be kept" in table(result)
