"""One file takes pictures of any size, one or four at a time, and finds what the detector finds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from scratch.detector import Detections, Detector
from tests.exporting.conftest import WANTED, small_detector
from tests.test_export import MODELS, detector

onnx = pytest.importorskip("onnx", reason=WANTED)
pytest.importorskip("onnxruntime", reason=WANTED)

from commands.export import export  # noqa: E402
from commands.exporting import whole as module  # noqa: E402
from commands.exporting.whole import Apart, apart, joined, largest_differences  # noqa: E402

SMALL = [(1, 480, 640), (4, 97, 131), (4, 131, 97), (1, 1, 1), (4, 33, 211), (1, 5, 64), (4, 16, 16)]
CLOSE = 0.01, 1e-5  # pixels, score: what rounding makes


def test_every_file_is_compared_for_at_least_six_sizes_one_and_four_pictures_at_a_time():
    assert len({(H, W) for _, H, W in module.SIZES}) >= 6 and {B for B, _, _ in module.SIZES} == {1, 4}


@pytest.mark.parametrize("name", MODELS)
def test_it_finds_what_the_detector_finds_whatever_the_size_and_number_of_pictures(name: str, tmp_path: Path):
    ours = detector(MODELS[name])
    export(ours, tmp_path / "tensors.onnx")
    onnx.save(joined(onnx.load(tmp_path / "tensors.onnx"), ours), tmp_path / "model.onnx")
    for size, found in largest_differences(tmp_path / "model.onnx", ours, SMALL).items():
        assert found.pixels < CLOSE[0] and found.score < CLOSE[1], size


def test_another_detectors_file_is_found_out(exported: tuple[Detector, Path], tmp_path: Path):
    other = small_detector(tmp_path)
    with torch.no_grad():
        other.model.class_embed.bias += 1
    with pytest.raises(ValueError, match="of a score away from the checkpoint for 1 pictures of 131×97"):
        largest_differences(exported[1], other, [(1, 97, 131)])


def test_the_file_says_what_the_script_must_know(exported: tuple[Detector, Path]):
    file = onnx.load(exported[1])
    said = {entry.key: entry.value for entry in file.metadata_props}
    assert said["form"] == "picture" and json.loads(said["classes"]) == ["Platelets", "RBC", "WBC"]
    assert json.loads(said["category_ids"]) == [1, 2, 3] and json.loads(said["threshold"]) == 0.25
    assert said["sixteen_bit"] == "full" and json.loads(said["max_megapixels"]) == 100
    assert [value.name for value in file.graph.input] == ["pictures"]
    assert [value.name for value in file.graph.output] == ["boxes", "scores", "labels"]


def found(boxes: list[list[float]], scores: list[float], labels: list[int]) -> Detections:
    return Detections(torch.tensor(boxes).view(-1, 4), torch.tensor(scores), torch.tensor(labels),
                      tuple(map(str, labels)))


ONE = found([[0.0, 0, 10, 10], [20.0, 0, 30, 10], [5.0, 5, 6, 6]], [0.9, 0.8, 0.1], [0, 1, 0])


def test_answers_in_another_order_are_alike_and_the_largest_difference_counts():
    other = found([[20.0, 0, 30, 10.25], [0.0, 0, 10, 10], [5.0, 5, 6, 6]], [0.8, 0.8995, 0.1], [1, 0, 0])
    result = apart(ONE, other)
    assert result.pixels == 0.25 and result.score == pytest.approx(5e-4, rel=1e-3) and apart(ONE, ONE) == Apart(0, 0)


@pytest.mark.parametrize("boxes, scores, labels", [
    ([[0.0, 0, 10, 10], [5.0, 5, 6, 6]], [0.9, 0.1], [0, 0]),                              # one is missing
    ([[0.0, 0, 10, 10], [20.0, 0, 30, 10], [5.0, 5, 6, 6]], [0.9, 0.8, 0.1], [0, 0, 0]),   # of another class
    ([[0.0, 0, 10, 10], [20.0, 0, 31, 10], [5.0, 5, 6, 6]], [0.9, 0.8, 0.1], [0, 1, 0]),   # moved by a pixel
    ([[0.0, 0, 10, 10], [20.0, 0, 30, 10], [5.0, 5, 6, 6]], [0.9, 0.7, 0.1], [0, 1, 0]),   # less sure
    ([], [], [])])
def test_a_detection_that_has_no_partner_is_too_far_whichever_side_it_is_on(boxes, scores, labels):
    other = found(boxes, scores, labels)
    for result in (apart(ONE, other), apart(other, ONE)):
        assert result.pixels > module.MOST_PIXELS or result.score > module.MOST_SCORE


def test_the_last_of_a_list_may_be_another_where_rounding_decides_which_it_is():
    other = found([[0.0, 0, 10, 10], [20.0, 0, 30, 10], [50.0, 5, 60, 6]], [0.9, 0.8, 0.1005], [0, 1, 1])
    assert apart(ONE, other) == Apart(0, 0)
    surer = found([[0.0, 0, 10, 10], [20.0, 0, 30, 10], [50.0, 5, 60, 6]], [0.9, 0.8, 0.102], [0, 1, 1])
    assert apart(ONE, surer).pixels > module.MOST_PIXELS
