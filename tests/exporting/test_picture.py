"""A picture is shown inside the graph as the data pipeline shows it, to the last bit."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from PIL import Image

from scratch.data.batch import collate
from scratch.data.transforms import Augmentation
from tests.exporting.conftest import WANTED

onnx = pytest.importorskip("onnx", reason=WANTED)
onnxruntime = pytest.importorskip("onnxruntime", reason=WANTED)

from commands.exporting.nodes import Graph  # noqa: E402
from commands.exporting.picture import Size, picture_graph, size_shown  # noqa: E402

BILINEAR = Image.Resampling.BILINEAR
SIZES = [(97, 131), (131, 97), (64, 64), (1, 1), (5, 211), (480, 640), (601, 403), (33, 300)]


def opened(model: "onnx.ModelProto") -> "onnxruntime.InferenceSession":
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


SHOWN = [Size(67, 1333, True), Size(64, 96, False), Size(101, 127, False)]
BY = dict(argnames="size", argvalues=SHOWN, ids=["square", "by both sides", "larger"])


@pytest.mark.parametrize(**BY)
def test_it_is_resized_and_normalised_as_pillow_and_the_batch_do_bit_for_bit(size: Size):
    model = picture_graph(size, 8)
    onnx.checker.check_model(model, full_check=True)
    session, rule = opened(model), Augmentation("none", *size)
    for H, W in SIZES:
        pictures = np.random.RandomState(H * W).randint(0, 256, (2, H, W, 3), dtype=np.uint8)
        images, pad_mask, sides = session.run(None, {"pictures": pictures})
        h, w = rule.evaluation_size(H, W)
        # One axis in each call: which of the two comes first in one call depends on Pillow's version.
        shown = [np.asarray(Image.fromarray(p).resize((w, H), BILINEAR).resize((w, h), BILINEAR)) for p in pictures]
        batch = collate([(torch.from_numpy(pixels.transpose(2, 0, 1).copy()), {}) for pixels in shown])
        np.testing.assert_array_equal(images, batch.normalised().numpy(), err_msg=f"{H}×{W}")
        assert pad_mask.shape == batch.pad_mask.shape and not pad_mask.any() and sides.tolist() == [H, W]


@pytest.mark.parametrize(**BY)
def test_no_value_is_more_than_one_step_away_from_what_the_data_pipeline_shows(size: Size):
    session, shown = opened(picture_graph(size, 8)), Augmentation("none", *size)
    step = 1.01 / 255 / np.array([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1)
    for H, W in SIZES:
        picture = np.random.RandomState(H * W).randint(0, 256, (H, W, 3), dtype=np.uint8)
        images, *_ = session.run(None, {"pictures": picture[None]})
        batch = collate([(shown(Image.fromarray(picture), torch.zeros(0, 4), random.Random(0))[0], {})])
        assert (np.abs(images - batch.normalised().numpy()) <= step).all(), f"{H}×{W}"


def test_white_and_black_stay_white_and_black_whose_weights_are_rounded():
    session = opened(picture_graph(Size(31, 64, False), 8))
    for value in (0, 255):
        images, *_ = session.run(None, {"pictures": np.full((1, 97, 101, 3), value, np.uint8)})
        assert len(np.unique(images[:, 0])) == 1


@pytest.mark.parametrize("size", [Size(800, 1333, False), Size(144, 160, False), Size(7, 11, False), Size(5, 9, True)])
def test_the_size_rule_is_that_of_the_data_rounding_included(size: Size):
    g = Graph("size")
    h, w = size_shown(g.input("H", np.int64, []), g.input("W", np.int64, []), size)
    g.output("h", h, [])
    g.output("w", w, [])
    session, rule = opened(g.model(8)), Augmentation("none", *size)
    rng = random.Random(0)
    given = [(rng.randint(1, 40), rng.randint(1, 40)) for _ in range(300)]
    given += [(rng.randint(1, 5000), rng.randint(1, 5000)) for _ in range(300)]
    for H, W in given + [(size.short_side, size.max_size), (size.max_size, size.short_side), (1, 5000)]:
        found = session.run(None, {"H": np.array(H), "W": np.array(W)})
        assert tuple(map(int, found)) == rule.evaluation_size(H, W), (H, W)
