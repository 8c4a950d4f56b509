"""Each query has a panel with its boxes' centres, in the colour of their kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Iterator

import numpy as np
import pytest
from matplotlib import pyplot as plt

from scratch.analysis.error_charts import BLUE, GREEN, RED
from scratch.analysis.slot_chart import KINDS, draw_slots, kinds, slot_record, write_slots

ABOUT = {"data": "val of shapes", "detector": "runs/a, tiny", "queries": "learned"}
# Two images, three queries: small, wide, high; small, high, square.
BOXES = np.array([[[0.1, 0.2, 0.1, 0.2], [0.5, 0.5, 0.9, 0.4], [0.7, 0.5, 0.2, 0.8]],
                  [[0.2, 0.3, 0.1, 0.1], [0.4, 0.6, 0.3, 0.5], [0.6, 0.5, 0.5, 0.5]]])


@pytest.fixture(autouse=True)
def close_figures() -> Iterator[None]:
    yield
    plt.close("all")


def test_small_wide_and_high_boxes_are_told_apart() -> None:
    assert [colour for _, colour in KINDS] == [RED, BLUE, GREEN]
    assert kinds(BOXES).tolist() == [[2, 0, 1], [2, 1, 0]]


@pytest.mark.parametrize("area, kind", [(0.0299, 2), (0.0301, 0)])
def test_small_is_less_than_three_hundredths_of_the_image(area: float, kind: int) -> None:
    assert kinds(np.array([0.5, 0.5, area ** 0.5, area ** 0.5])) == kind


def test_a_panel_shows_its_querys_centres_with_y_downwards() -> None:
    figure = draw_slots(slot_record(BOXES, ABOUT))
    assert [axes.get_title() for axes in figure.axes] == ["1", "2", "3"]
    for q, axes in enumerate(figure.axes):
        assert axes.get_ylim() == (1, 0)
        drawn = {colour: list(zip(*line.get_data())) for line, (_, colour) in zip(axes.lines, KINDS)}
        assert drawn == {colour: [tuple(box[:2]) for box in BOXES[:, q] if KINDS[int(kinds(box))][1] == colour]
                         for _, colour in KINDS}
    assert "3 queries in 2 images (val of shapes)" in figure.texts[0].get_text()


@pytest.mark.parametrize("queries, words", [("proposal", "no fixed place"), ("anchor", "an anchor of its own")])
def test_what_a_query_is_decides_what_the_chart_can_show_and_is_said(queries: str, words: str) -> None:
    assert words in draw_slots(slot_record(BOXES, {**ABOUT, "queries": queries})).texts[0].get_text()


def test_boxes_are_kept_to_a_thousandth_of_the_image(tmp_path: Path) -> None:
    write_slots(slot_record(BOXES + 0.0003, ABOUT), tmp_path / "slots.json")
    kept = json.loads((tmp_path / "slots.json").read_text())
    assert kept["about"] == ABOUT and np.array_equal(np.array(kept["boxes_cxcywh"]), np.rint(1000 * BOXES))
    assert [path.name for path in tmp_path.iterdir()] == ["slots.json"]


def test_a_hundred_queries_stand_ten_in_a_row() -> None:
    figure = draw_slots(slot_record(np.random.default_rng(0).random((3, 100, 4)), ABOUT))
    assert len(figure.axes) == 100 and figure.axes[0].get_gridspec().ncols == 10
