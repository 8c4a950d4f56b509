"""Heat is where attention is, boxes are where they are said to be, and every text is on the sheet."""

from __future__ import annotations

from typing import Iterator

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from scratch.analysis.attention_maps import (
    NOTEBOOK_POINTS, caption, draw_boxes, draw_detections, draw_encoder, grey, head_captions, heat_over, step_colours,
    step_names,
)
from tests.analysis.test_attention_record import CELLS, GRID, hot, made_up

PLAIN = np.full((40, 60, 3), 120, np.uint8)


@pytest.fixture(autouse=True)
def close_figures() -> Iterator[None]:
    yield
    plt.close("all")


def panels(figure: Figure) -> list[Axes]:
    return [axes for axes in figure.axes if axes.images]


def brightest(axes: Axes, grid: tuple[int, int]) -> tuple[int, int]:
    """The cell of the grid in which a panel's picture is brightest."""
    light = np.asarray(axes.images[0].get_array()).astype(float).sum(axis=-1)
    y, x = np.unravel_index(light.argmax(), light.shape)
    return int(y * grid[0] // light.shape[0]), int(x * grid[1] // light.shape[1])


def boxes(axes: Axes) -> list[list[float]]:
    """xyxy of what is drawn on a panel."""
    drawn = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    return [[*patch.get_xy(), patch.get_x() + patch.get_width(), patch.get_y() + patch.get_height()] for patch in drawn]


def test_the_picture_is_lit_in_the_middle_of_the_cell_that_has_the_attention_and_grey_elsewhere() -> None:
    attention = np.zeros((4, 6))
    attention[1, 4] = 0.3
    lit = heat_over(PLAIN, attention)
    y, x = np.unravel_index(lit.astype(int).sum(axis=-1).argmax(), lit.shape[:2])
    assert 10 <= y < 20 and 40 <= x < 50
    assert np.abs(lit[30:, :20] - grey(PLAIN)[30:, :20]).max() <= 1 and len(set(lit[0, 0])) == 1
    assert lit[15, 45, 0] > 200 > lit[15, 45, 2]  # warm


def test_the_same_place_is_as_bright_with_a_fifth_of_the_attention_as_with_all_of_it() -> None:
    attention = np.zeros((4, 6))
    attention[1, 4] = 1
    assert np.array_equal(heat_over(PLAIN, attention), heat_over(PLAIN, 0.2 * attention))  # more than 4/24


def test_attention_that_is_even_leaves_the_picture_dim() -> None:
    even = heat_over(PLAIN, np.full((8, 10), 1 / 80))  # a full light would be 4/80
    once = np.zeros((8, 10))
    once[4, 5] = 1
    assert even.std(axis=(0, 1)).max() < 1e-6 and even.max() < 0.5 * heat_over(PLAIN, once).max()


def test_no_attention_at_all_leaves_the_picture_grey() -> None:
    assert np.array_equal(heat_over(PLAIN, np.zeros((2, 3))), np.rint(grey(PLAIN)).astype(np.uint8))


def test_each_detection_has_a_row_of_its_average_and_its_heads_lit_where_the_last_layer_looks() -> None:
    record = made_up(detections=2, layers=3, heads=2)
    shown = panels(draw_detections(record))
    assert [axes.get_title(loc="left") for axes in shown] == [
        "1  star 0.90", "head 1: up to 100 %", "head 2: up to 100 %", "2  star 0.80", "head 1: up to 100 %",
        "head 2: up to 100 %"]
    for d in range(2):
        for n in range(2):
            assert brightest(shown[3 * d + 1 + n], GRID) == hot(d, 3, n)
        assert brightest(shown[3 * d], GRID) in (hot(d, 3, 0), hot(d, 3, 1))
        assert boxes(shown[3 * d]) == [pytest.approx(record.boxes[d, -1])]
        assert shown[3 * d].images[0].get_extent() == [0, 1, 1, 0]  # the shares in which boxes are measured


def test_a_caption_says_how_much_of_a_heads_attention_the_brightest_cell_has() -> None:
    maps = np.array([[[0.314, 0.686]], [[0.0042, 0.001]], [[0.05, 0.02]]])
    assert head_captions(maps) == ["head 1: up to 69 %", "head 2: up to 0.42 %", "head 3: up to 5 %"]


def test_one_head_is_its_own_average_and_shown_once() -> None:
    assert len(panels(draw_detections(made_up(detections=2, heads=1)))) == 2


def test_a_place_is_marked_by_its_cell_and_lit_where_it_looks() -> None:
    first, second, overview = panels(draw_encoder(made_up()))
    assert boxes(overview) == [pytest.approx([0, 0, 1 / 3, 1 / 2]), pytest.approx([2 / 3, 1 / 2, 1, 1])]
    assert [text.get_text() for text in overview.texts] == ["1", "2"]
    assert (brightest(first, CELLS), brightest(second, CELLS)) == ((0, 1), (0, 0))
    assert boxes(first) == [pytest.approx([0, 0, 1 / 3, 1 / 2])]
    assert first.get_title(loc="left") == "1  row 1, column 1"


def test_the_encoders_heads_are_shown_where_the_record_asks_for_them() -> None:
    assert len(panels(draw_encoder(made_up(heads=2, encoder_heads=True)))) == 1 + 2 * 3


def test_without_an_encoder_there_is_no_sheet_of_it() -> None:
    assert draw_encoder(made_up(encoder=False)) is None


@pytest.mark.parametrize("start, names", [("proposal", ["proposal", "1", "2", "3"]), (None, ["1", "2", "3"])])
def test_all_boxes_of_a_query_are_drawn_and_a_bar_tells_how_much_each_overlaps_the_last(start, names) -> None:
    record = made_up(start=start)
    figure = draw_boxes(record)
    for d, axes in enumerate(panels(figure)):
        assert boxes(axes) == [pytest.approx(box) for box in record.boxes[d]]
        (x0, x1), (y1, y0) = axes.get_xlim(), axes.get_ylim()
        assert x0 < record.boxes[d, :, 0].min() and x1 > record.boxes[d, :, 2].max()
        assert y0 < record.boxes[d, :, 1].min() and y1 > record.boxes[d, :, 3].max()
        assert (x1 - x0) * 60 == pytest.approx((y1 - y0) * 40)  # a square part of a picture of 60×40
        [bars] = axes.child_axes
        assert [bar.get_height() for bar in bars.containers[0]] == pytest.approx(record.iou[d].tolist())
        assert [label.get_text() for label in bars.get_xticklabels()] == names


def test_a_query_that_only_answered_at_the_end_has_one_box() -> None:
    record = made_up(layers=1, start=None)
    assert step_names(record.about) == ["layer 1"] and len(step_colours(1)) == 1
    draw_boxes(record)


def test_a_long_name_is_cut_so_that_the_caption_fits_its_panel_and_further_labels_are_counted() -> None:
    labels = [["a class with a name that never seems to end", 0.91], ["star", 0.7]]
    text = caption(3, {"query": 0, "labels": labels}, 2.0)
    assert text.startswith("3  a class") and text.endswith("… 0.91 (+1)") and len(text) == 28
    assert caption(3, {"query": 0, "labels": labels[1:]}, 2.0, " (query 1)") == "3  star 0.70 (query 1)"


@pytest.mark.parametrize("draw", [draw_detections, draw_encoder, draw_boxes])
@pytest.mark.parametrize("detections, heads", [(1, 1), (2, 8)])
def test_no_text_leaves_the_sheet_and_no_caption_its_panel(draw, detections: int, heads: int) -> None:
    figure = draw(made_up(detections=detections, heads=heads, label="WWWa class with a name that never ends"))
    figure.draw_without_rendering()
    for text in [*figure.texts, *(text for axes in figure.axes for text in axes.texts)]:
        place = text.get_window_extent()
        assert place.x0 >= 0 and place.x1 <= figure.bbox.x1 and place.y1 <= figure.bbox.y1, text.get_text()
    for axes in panels(figure):
        said = axes.get_title(loc="left")
        [title] = [part for part in axes.get_children() if getattr(part, "get_text", str)() == said]
        assert title.get_window_extent().x1 <= axes.get_window_extent().x1 + 1, title.get_text()


def test_the_notebooks_points_are_shares_of_an_image_of_800_by_1066_pixels() -> None:
    assert [(round(y * 800), round(x * 1066)) for x, y in NOTEBOOK_POINTS] == [
        (200, 200), (280, 400), (200, 600), (440, 800)]
