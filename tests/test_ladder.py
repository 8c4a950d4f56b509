"""The ladders and the attention benchmark: every way that is timed computes the same, and the figures are told."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import pytest
import torch

from benchmarks import attention, ladder
from scratch.ops.fast import shifted
from tests.checks import assert_same

LADDERS = {
    "shifts": lambda: ladder.convolution("3×3", (2, 20, 9, 10), (6, 3), 1, ladder.by_shifts),
    "rows": lambda: ladder.convolution("7×7", (2, 3, 20, 22), (6, 7), 2, ladder.by_rows),
    "attention": lambda: ladder.attention(4, 13, 8),
}


@pytest.mark.parametrize("name", LADDERS)
def test_every_rung_is_the_same_function(name):
    climbed = LADDERS[name]()
    for rung in climbed.rungs[:-1]:
        def shaped(*inputs, rung=rung):
            return rung.call(*inputs).reshape(climbed.rungs[-1].call(*inputs).shape)
        assert_same(shaped, climbed.rungs[-1].call, *climbed.inputs)


def test_flops_and_bytes_are_those_of_the_formula():
    climbed = ladder.convolution("3×3", (2, 20, 9, 10), (6, 3), 1, ladder.by_shifts)
    x, y, weight = 2 * 20 * 90, 2 * 6 * 90, 6 * 20 * 9
    assert climbed.flops == 2 * y * 9 * 20
    assert {rung.name: rung.numbers for rung in climbed.rungs} == {
        "im2col, autograd": 22 * x + y + weight, "columns": 22 * x + y + weight,
        "shifted, whole": 12 * x + 7 * y + weight, "shifted, in tiles": 4 * x + 3 * y + weight,
        "winograd": 4 * x + y + weight + 2 * weight * 5 // 3,
        "torch.nn": x + y + weight}
    stem = ladder.convolution("7×7", (2, 3, 20, 22), (6, 7), 2, ladder.by_rows)
    x, y, weight = 2 * 3 * 440, 2 * 6 * 110, 6 * 3 * 49
    assert next(rung.numbers for rung in stem.rungs if rung.name == "rows") == 4 * x + 2 * (x * 7 // 2) + 3 * y + weight
    scores, qkvo = 4 * 13 * 13, 4 * 4 * 13 * 8
    assert [rung.numbers for rung in ladder.attention(4, 13, 8).rungs] == [12 * scores + qkvo, 10 * scores + qkvo,
                                                                          qkvo, qkvo]


def test_whole_and_tiled_shifts_differ_in_the_backward_too(monkeypatch):
    cut, tiles_of = [], shifted.tiles
    monkeypatch.setattr(shifted, "TILE", 60)
    monkeypatch.setattr(shifted, "tiles", lambda *a: cut.append(len(tiles_of(*a))) or tiles_of(*a))
    climbed = LADDERS["shifts"]()
    for name, whole in (("shifted, whole", True), ("shifted, in tiles", False)):
        rung = next(rung for rung in climbed.rungs if rung.name == name)
        cut.clear()
        ladder.measure(replace(climbed, rungs=(rung,)), 1, {"float32": 1e9, "bytes": 1e9})
        assert len(cut) > 4 and all((tiles == 1) == whole for tiles in cut)


def test_a_ladder_is_climbed_printed_and_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ladder, "LADDERS", LADDERS)
    monkeypatch.setattr(ladder, "ceilings", lambda device, precision: {"float32": 1e9, "bytes": 1e9})
    monkeypatch.setattr(sys, "argv", ["ladder", "--only", "rows", "--repeats", "1", "--json", str(tmp_path / "f.json")])
    ladder.main()
    (result,) = json.loads((tmp_path / "f.json").read_text())["results"]
    assert ladder.table(result) in capsys.readouterr().out
    assert [rung["rung"] for rung in result["rungs"]] == ["im2col, autograd", "columns", "rows", "torch.nn"]
    assert all(rung["forward"] > 0 and rung["whole"] > 0 for rung in result["rungs"])
    assert result["rungs"][0]["compute_floor"] == result["flops"] / 1e9


def test_every_way_of_attention_is_the_same_function():
    inputs = [torch.randn(8, 11, 4) for _ in range(3)]
    for name in ("kept", "tiled"):
        assert_same(attention.WAYS[name], attention.WAYS["torch.nn"], *inputs)


def test_attention_is_measured_printed_written_and_drawn(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["attention", "--tokens", "16", "40", "--repeats", "1", "--json",
                                      str(tmp_path / "f.json"), "--chart", str(tmp_path / "f.png")])
    attention.main()
    figures = json.loads((tmp_path / "f.json").read_text())
    assert [row["tokens"] for row in figures["results"]] == [16, 40] and (tmp_path / "f.png").stat().st_size > 10_000
    assert all(row["seconds"][name] > 0 for row in figures["results"] for name in attention.WAYS)
    assert "kept, MiB" in capsys.readouterr().out
