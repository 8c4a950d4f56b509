"""What a person is shown: boxes in their places, labels that can be read, a sheet of every image."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageChops

from scratch.evaluation.pictures import PALETTE, class_colour, draw_detections, prediction_sheet, sample_sheet
from scratch.evaluation.pictures import _hidden_share, _place, _readable_on

BLUE, GREEN = PALETTE[1], PALETTE[2]


def has(image: Image.Image, colour: tuple[int, int, int]) -> bool:
    return colour in {pixel for _, pixel in image.getcolors(maxcolors=image.width * image.height)}


def test_the_given_picture_is_left_alone():
    picture = Image.new("RGB", (97, 61), (9, 9, 9))
    drawn = draw_detections(picture, [[10, 10, 60, 50]], ["ant"], [BLUE])
    assert drawn.size == picture.size and picture.getcolors() == [(97 * 61, (9, 9, 9))]
    assert has(drawn, BLUE)


def test_a_box_is_a_coloured_line_between_dark_ones_around_it():
    white = Image.new("RGB", (401, 307), (255, 255, 255))
    drawn = draw_detections(white, torch.tensor([[50.0, 80, 250, 200]]), ["ant"], [GREEN])
    column = [drawn.getpixel((x, 150)) for x in range(46, 53)]
    assert column == [(255, 255, 255), (0, 0, 0), GREEN, GREEN, (0, 0, 0), (255, 255, 255), (255, 255, 255)]


def test_nothing_found_draws_nothing():
    picture = Image.new("RGB", (97, 61), (9, 9, 9))
    assert ImageChops.difference(draw_detections(picture, torch.zeros(0, 4), [], []), picture).getbbox() is None


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "P", "1"])
def test_any_kind_of_picture_becomes_a_coloured_one(mode: str):
    drawn = draw_detections(Image.new(mode, (83, 71)), [[5, 20, 60, 60]], ["ant"], [BLUE])
    assert drawn.mode == "RGB" and has(drawn, BLUE)


@pytest.mark.parametrize(
    "box", [[-50, -50, 500, 500], [300, 300, 400, 400], [-9, -9, -1, -1], [30, 30, 30, 30], [60, 50, 20, 10]])
def test_boxes_beyond_the_border_without_size_or_turned_over_are_drawn_without_complaint(box: list[int]):
    assert has(draw_detections(Image.new("RGB", (131, 97)), [box], ["ant"], [BLUE]), BLUE)


@given(st.tuples(*[st.floats(0, 300)] * 4), st.integers(1, 120), st.integers(1, 30))
def test_a_label_that_fits_the_picture_never_leaves_it(corners: tuple[float, ...], width: int, height: int):
    a, b, c, d = corners
    box = (min(a, c), min(b, d) * 0.6, max(a, c), max(b, d) * 0.6)
    x0, y0, x1, y1 = _place(box, (width, height), (307, 191), [box], [])
    assert 0 <= x0 and 0 <= y0 and x1 <= 306 and y1 <= 190


def test_a_second_label_keeps_off_the_first():
    box = (100.0, 100.0, 180.0, 160.0)
    first = _place(box, (60, 15), (400, 300), [box], [])
    second = _place(box, (60, 15), (400, 300), [box], [first])
    assert first == (100, 85, 160, 100)  # on top of the box
    assert _hidden_share(first, second) == 0


def test_the_hidden_share_worked_by_hand():
    assert _hidden_share((0, 0, 10, 10), (5, 6, 20, 20)) == pytest.approx(0.2)
    assert _hidden_share((0, 0, 10, 10), (10, 0, 20, 10)) == 0
    assert _hidden_share((5, 5, 5, 5), (0, 0, 20, 20)) == 0


def test_letters_contrast_with_every_colour_of_the_palette():
    def luminance(colour: tuple[int, int, int]) -> float:  # WCAG 2.1
        linear = [c / 3294.6 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for colour in PALETTE:
        low, high = sorted((luminance(colour), luminance(_readable_on(colour))))
        assert (high + 0.05) / (low + 0.05) >= 4.5  # WCAG's level AA


def test_a_class_has_one_colour_and_neighbours_differ():
    assert len({class_colour(k) for k in range(7)}) == 7
    assert class_colour(3) == class_colour(10)


def test_lengths_that_differ_are_refused():
    with pytest.raises(ValueError, match="got 1 boxes, 2 labels and 1 colours"):
        draw_detections(Image.new("RGB", (9, 9)), [[0, 0, 5, 5]], ["ant", "bee"], [BLUE])


# -- the sheet ---------------------------------------------------------------------------------------------------------


def truth(label: int = 1) -> dict[str, torch.Tensor]:
    return {"boxes": torch.tensor([[5.0, 20, 30, 40]]), "labels": torch.tensor([label])}


def prediction(score: float, label: int = 2) -> dict[str, torch.Tensor]:
    return {**truth(label), "scores": torch.tensor([score])}


def sheet(tmp_path: Path, *arguments) -> Image.Image:
    return Image.open(prediction_sheet(tmp_path / "new" / "sheet.png", *arguments)).convert("RGB")


def test_the_truth_stands_left_of_the_predictions(tmp_path: Path):
    picture = sheet(tmp_path, [Image.new("RGB", (61, 47))], [truth()], [prediction(0.9)], ["ant", "bee", "cat"], 0.5)
    left = picture.crop((0, 0, picture.width // 2, picture.height))
    right = picture.crop((picture.width // 2, 0, *picture.size))
    assert has(left, BLUE) and not has(left, GREEN)
    assert has(right, GREEN) and not has(right, BLUE)


def test_a_prediction_below_the_threshold_is_not_shown(tmp_path: Path):
    def shows(score: float) -> bool:
        image = Image.new("RGB", (61, 47))
        return has(sheet(tmp_path, [image], [truth()], [prediction(score)], ["ant", "bee", "cat"], 0.5), GREEN)

    assert shows(0.5) and not shows(0.49)


def test_eight_images_of_different_sizes_stand_in_four_rows_of_two_pairs(tmp_path: Path):
    sizes = [(64, 48), (48, 64), (1300, 200), (200, 1300), (480, 480), (1, 1), (3000, 2000), (333, 222)]
    images = [Image.new("RGB", size, (200, 30, 30)) for size in sizes]
    picture = sheet(tmp_path, images, [truth()] * 8, [prediction(0.9)] * 8, ["ant", "bee", "cat"], 0.5)
    assert picture.width > 4 * 480 and picture.height < 4 * 470
    centres = [[picture.getpixel((x, y)) != (255, 255, 255) for x in (264, 756, 1260, 1752)]
               for y in range(picture.height)]
    assert all(any(row[column] for row in centres) for column in range(4))


def test_small_images_are_enlarged_so_that_labels_can_be_read(tmp_path: Path):
    image = Image.new("RGB", (32, 24), (200, 30, 30))
    picture = sheet(tmp_path, [image], [truth()], [prediction(0.9)], ["ant", "bee", "cat"], 0.5)
    assert sum(count for count, colour in picture.getcolors(10**6) if colour == (200, 30, 30)) > 480 * 300


def test_images_are_read_from_paths_and_data_without_boxes_is_shown(tmp_path: Path):
    Image.new("RGB", (61, 47), (200, 30, 30)).save(tmp_path / "a.png")
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "scores": torch.zeros(0)}
    assert has(sheet(tmp_path, [tmp_path / "a.png"], [nothing], [nothing], ["ant"], 0.5), (200, 30, 30))


def test_a_sheet_needs_one_truth_and_one_prediction_for_each_image(tmp_path: Path):
    with pytest.raises(ValueError, match="got 1 images, 2 truths and 1 predictions"):
        sheet(tmp_path, [Image.new("RGB", (9, 9))], [truth()] * 2, [prediction(0.9)], ["ant"], 0.5)
    with pytest.raises(ValueError, match="at least one image"):
        sheet(tmp_path, [], [], [], ["ant"], 0.5)


def test_a_sheet_of_samples_shows_each_with_the_boxes_that_the_network_sees(tmp_path: Path):
    boxes, none = torch.tensor([[0.5, 0.5, 0.5, 0.25]]), torch.zeros(0, 4)
    grey = [(torch.full((3, h, w), 9, dtype=torch.uint8), *found) for h, w, *found in (
        (60, 80, none, torch.zeros(0, dtype=torch.int64)), (80, 60, boxes, torch.tensor([1])),
        (70, 70, boxes, torch.tensor([2])), (60, 80, boxes, torch.tensor([1])), (60, 80, boxes, torch.tensor([1])))]
    path = sample_sheet(tmp_path / "new" / "sheet.png", grey, ("ant", "bee", "cat"))
    with Image.open(path) as sheet:
        panel = sheet.width // 4  # four in a row
        first, second, third = (sheet.crop((i * panel, 0, (i + 1) * panel, sheet.height // 2)) for i in range(3))
        assert not has(first, BLUE) and has(second, BLUE) and has(third, GREEN) and not has(third, BLUE)
        below = sheet.crop((0, sheet.height // 2, panel, sheet.height))
        assert has(below, BLUE)
        assert not has(sheet.crop((panel, sheet.height // 2, sheet.width, sheet.height)), BLUE)


def test_a_box_of_a_sample_stands_where_its_shares_of_the_picture_say(tmp_path: Path):
    white = torch.full((3, 42, 48), 255, dtype=torch.uint8)
    path = sample_sheet(tmp_path / "sheet.png", [(white, torch.tensor([[0.75, 0.5, 0.25, 0.5]]), torch.tensor([1]))],
                        ("ant", "bee"))
    with Image.open(path) as sheet:
        columns = [x for x in range(sheet.width) for y in (250,) if sheet.getpixel((x, y)) == BLUE]
    # The picture is shown tenfold, 24 pixels from the left border; its box begins at 5/8 of 480 pixels and ends at 7/8.
    assert min(columns) == pytest.approx(24 + 300, abs=5) and max(columns) == pytest.approx(24 + 420, abs=5)
