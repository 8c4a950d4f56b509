"""What is kept of a forward pass comes back as it was, and attention stays a share of 1 on a coarser grid."""

from __future__ import annotations

from dataclasses import fields
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scratch.analysis.attention_record import Explanation, as_bytes, cell_of, coarsened, jpeg

GRID = (4, 6)  # of the decoder's memory
CELLS = (2, 3)  # of the encoder


def hot(d: int, layer: int, n: int) -> tuple[int, int]:
    """The (row, column) where detection d looks in a layer (from 1) and a head: another one for each of them."""
    return (d + layer) % GRID[0], (2 * d + n) % GRID[1]


def made_up(detections: int = 2, layers: int = 3, heads: int = 2, start: str | None = "anchor", encoder: bool = True,
            encoder_heads: bool = False, label: str = "star") -> Explanation:
    """A record of which everything is known: each head looks at one cell, cell s of the encoder at cell s + 1.

    The boxes of detection d grow towards the last, which is [0.1 + 0.3 d, 0.5 + 0.3 d] along both axes.
    """
    cross = np.zeros((detections, layers, heads, *GRID), np.float16)
    for d, l, n in np.ndindex(detections, layers, heads):
        cross[d, l, n][hot(d, l + 1, n)] = 1
    steps = ([0] if start else []) + list(range(1, layers + 1))
    low = 0.1 + 0.3 * np.arange(detections, dtype=np.float32)[:, None, None]
    side = 0.4 * np.linspace(0.5, 1, len(steps), dtype=np.float32)[:, None]
    boxes = np.concatenate(np.broadcast_arrays(low, low, low + side, low + side), axis=-1)
    E, S = 1 + heads * encoder_heads, CELLS[0] * CELLS[1]
    maps = np.broadcast_to(np.roll(np.eye(S), 1, axis=1).reshape(S, *CELLS), (E, S, *CELLS)) * 0.5
    cells, peaks = as_bytes(maps)
    points = np.array([[0.1, 0.1], [0.9, 0.9]], np.float32)
    places = np.zeros((2, heads, *CELLS), np.float16)
    places[0, :, 0, 1] = places[1, :, 0, 0] = 1
    about = {"name": "a picture.jpg", "size": [60, 40], "detector": "runs/made-up, tiny", "start": start,
             "layers": steps, "threshold": 0.5, "found": detections, "encoder_heads": encoder_heads,
             "detections": [{"query": 7 * d, "labels": [[label, 0.9 - 0.1 * d]]} for d in range(detections)]}
    if not encoder:
        points, places, cells, peaks = points[:0], places[:0], cells[:0], peaks[:0]
    iou = np.broadcast_to((side / 0.4).T ** 2, (detections, len(steps)))
    return Explanation(about, jpeg(Image.new("RGB", (60, 40), (120, 120, 120))), boxes, iou, cross, points, places,
                       cells, peaks)


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    record = made_up()
    record.save(tmp_path / "a.npz")
    again = Explanation.load(tmp_path / "a.npz")
    assert again.about == record.about and [path.name for path in tmp_path.iterdir()] == ["a.npz"]
    for field in fields(Explanation):
        if field.name != "about":
            before, after = getattr(record, field.name), getattr(again, field.name)
            assert np.array_equal(before, after) and before.dtype == after.dtype, field.name


@pytest.mark.parametrize("content", [b"no archive", b""])
def test_another_file_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(ValueError, match="a.npz is not a record that explain wrote"):
        Explanation.load(tmp_path / "a.npz")


def test_an_archive_of_something_else_is_refused_by_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", boxes=np.zeros(3))
    with pytest.raises(ValueError, match="a.npz is not a record that explain wrote"):
        Explanation.load(tmp_path / "a.npz")


@pytest.mark.parametrize("place, cell", [((0, 0), (0, 0)), ((0.34, 0.49), (0, 1)), ((0.34, 0.51), (1, 1)),
                                         ((1, 1), (1, 2))])
def test_a_place_lies_in_its_cell_and_the_far_edge_in_the_last(place: tuple, cell: tuple) -> None:
    assert cell_of(*place, (2, 3)) == cell


def test_blocks_average_what_their_cells_give_and_add_up_what_they_get() -> None:
    rows = np.array([[0.5, 0.25, 0.25], [0.1, 0.3, 0.6], [0.0, 0.0, 1.0]])
    blocks = coarsened(rows.reshape(1, 1, 3, 1, 3), most=2)  # cells 0 and 1 are a block, cell 2 is another
    # (0.5 + 0.25 + 0.1 + 0.3) / 2 and (0.25 + 0.6) / 2; then 0 and 1
    assert blocks.reshape(2, 2) == pytest.approx(np.array([[0.575, 0.425], [0.0, 1.0]]))


def test_a_row_sums_to_1_before_and_after_on_any_grid() -> None:
    generator = np.random.default_rng(0)
    attention = generator.random((2, 5, 7, 5, 7))
    attention /= attention.sum(axis=(-2, -1), keepdims=True)
    blocks = coarsened(attention, most=12)
    assert blocks.shape == (2, 3, 4, 3, 4)
    assert blocks.sum(axis=(-2, -1)) == pytest.approx(np.ones((2, 3, 4)))


def test_a_grid_that_is_small_enough_stays_as_it_is() -> None:
    attention = np.random.default_rng(0).random((1, 2, 3, 2, 3))
    assert coarsened(attention, most=6) is attention


def test_a_byte_is_a_share_of_its_maps_largest_value() -> None:
    codes, peaks = as_bytes(np.array([[[0.5, 0.25], [0.1, 0.0]], [[0.0, 0.0], [0.0, 0.0]]]))
    assert codes.tolist() == [[[255, 128], [51, 0]], [[0, 0], [0, 0]]] and peaks.tolist() == [0.5, 0.0]


def test_a_large_picture_is_kept_smaller_and_a_small_one_as_it_is() -> None:
    record = made_up()
    assert record.pixels(60).shape == (40, 60, 3)
    assert Image.open(BytesIO(jpeg(Image.new("RGB", (3000, 1500))).tobytes())).size == (1000, 500)
    assert Image.open(BytesIO(jpeg(Image.new("L", (30, 20))).tobytes())).size == (30, 20)
