"""Windows cover a picture, and what is found in them is found once."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from PIL import Image

from commands.sources.slices import OVERLAP, found_in_slices, joined, windows
from scratch.detector import Detections


@pytest.mark.parametrize("width, height, side", [(640, 640, 640), (100, 30, 640), (641, 640, 640), (1600, 900, 640),
                                                 (97, 131, 32), (5000, 33, 64)])
def test_windows_cover_every_pixel_overlap_by_a_fifth_and_stay_inside(width, height, side):
    found = windows(width, height, side)
    covered = np.zeros((height, width), int)
    for x0, y0, x1, y1 in found:
        assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
        assert x1 - x0 == min(side, width) and y1 - y0 == min(side, height)
        covered[y0:y1, x0:x1] += 1
    assert covered.min() >= 1
    for low, high in ((0, 2), (1, 3)):
        starts = sorted({(window[low], window[high]) for window in found})
        assert all(end - start >= int(side * OVERLAP) for (_, end), (start, _) in zip(starts, starts[1:]))
    assert (len(found) == 1) == (width <= side and height <= side)


def found(*entries: tuple[list[float], float, int]) -> Detections:
    return Detections(torch.tensor([box for box, _, _ in entries]).view(-1, 4),
                      torch.tensor([score for _, score, _ in entries]),
                      torch.tensor([label for _, _, label in entries], dtype=torch.int64),
                      tuple("ab"[label] for _, _, label in entries))


LEFT, RIGHT, WHOLE = (0, 0, 100, 80), (60, 0, 160, 80), (0, 0, 160, 80)


def test_the_picture_of_the_note_has_four_windows():
    assert sorted(windows(1152, 1152, 640)) == [(0, 0, 640, 640), (0, 512, 640, 1152), (512, 0, 1152, 640),
                                                (512, 512, 1152, 1152)]


def test_an_object_in_the_overlap_is_found_once_by_the_better_of_two_boxes():
    result = joined([(LEFT, found(([65.0, 10, 95, 40], 0.7, 0))), (RIGHT, found(([6.0, 10, 36, 40], 0.9, 0)))], 160, 80)
    assert result.boxes_xyxy.tolist() == [[66, 10, 96, 40]] and result.scores.tolist() == [pytest.approx(0.9)]


def test_two_classes_at_one_place_are_two_objects_and_the_best_comes_first():
    result = joined([(LEFT, found(([5.0, 5, 30, 30], 0.4, 0), ([5.0, 5, 30, 30], 0.6, 1)))], 160, 80)
    assert result.names == ("b", "a") and result.labels.tolist() == [1, 0]


def test_a_part_that_an_inner_edge_cuts_is_left_out_for_the_whole_of_it():
    parts = [(LEFT, found(([80.0, 10, 99.5, 40], 0.95, 0))), (RIGHT, found(([0.5, 10, 60, 40], 0.9, 0))),
             (WHOLE, found(([80.0, 10, 120, 40], 0.5, 0)))]
    assert joined(parts, 160, 80).boxes_xyxy.tolist() == [[80, 10, 120, 40]]


def test_a_box_at_the_pictures_own_edge_is_no_part():
    parts = [(LEFT, found(([0.0, 0, 20, 80], 0.9, 0))), (RIGHT, found(([90.0, 0, 100, 80], 0.8, 0)))]
    assert joined(parts, 160, 80).boxes_xyxy.tolist() == [[0, 0, 20, 80], [150, 0, 160, 80]]


def test_nothing_found_is_nothing():
    assert len(joined([(LEFT, found()), (RIGHT, found())], 160, 80)) == 0


@dataclass
class Spots:
    """In place of a detector: finds the white pixels of a picture, but none in a picture wider than 100."""

    shown: list[tuple[int, int]] = field(default_factory=list)

    def predict(self, images, threshold, batch_size):
        self.shown += [image.size for image in images]
        return [self.found(np.asarray(image)[..., 0]) for image in images]

    def found(self, pixels):
        places = np.argwhere(pixels == 255) if pixels.shape[1] <= 100 else []
        return found(*([[x - 4.0, y - 4.0, x + 4.0, y + 4.0], 0.9, 0] for y, x in places))


def test_what_is_too_small_in_the_whole_picture_is_found_in_its_windows():
    pixels, spots = np.zeros((150, 260, 3), np.uint8), [(20, 30), (130, 75), (250, 140), (88, 88)]
    for x, y in spots:
        pixels[y, x] = 255
    detector, image = Spots(), Image.fromarray(pixels)
    result = found_in_slices(detector, image, 100, 0.5, batch_size=3)
    assert sorted(((box[:2] + box[2:]) / 2).tolist() for box in result.boxes_xyxy) == sorted(map(list, spots))
    assert detector.shown[-1] == (260, 150) and set(detector.shown[:-1]) == {(100, 100)}


def test_a_picture_that_fits_into_one_window_is_shown_once():
    detector = Spots()
    assert len(found_in_slices(detector, Image.new("RGB", (90, 50), "black"), 100, 0.5, 1)) == 0
    assert detector.shown == [(90, 50)]
