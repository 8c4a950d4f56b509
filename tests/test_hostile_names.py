"""Names that somebody chose badly, or to do harm, go through everything that is drawn, and through every page.

A seed draws other names for each seed; every one of tests/hostile.py is drawn at least once.
"""

from __future__ import annotations

import json
import re
import warnings
import zlib
from copy import deepcopy
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageChops, ImageDraw

from scratch.analysis import (
    attention_maps, comparison, error_charts, figures, learning_curve, lr_range, slot_chart, sweep_charts, sweep_page,
)
from scratch.analysis.attention_page import write_page
from scratch.analysis.names import literal, short, shown
from scratch.analysis.report import write_report
from scratch.data.classes import Classes
from scratch.evaluation.summary import format_summary
from scratch.evaluation.pictures import PALETTE, draw_detections, prediction_sheet
from scratch.printable import printable
from tests.analysis import test_comparison, test_lr_range, test_sweep_charts
from tests.analysis.test_attention_record import made_up
from tests.analysis.test_findings import analysed
from tests.analysis.test_learning_curve import write_run
from tests.hostile import NAMES, drawn

SEEDS = range(2)


@pytest.fixture
def laid_out(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """All that drawing does but colouring pixels, which takes most of its time; returns what was saved."""
    saved: list[Path] = []

    def savefig(figure: Figure, path: Path, **_: Any) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # letters that the font lacks
            figure.set_layout_engine("none")  # to find room for 300 letters takes seconds
            figure.draw_without_rendering()
        Image.new("RGB", (9, 7)).save(path)
        saved.append(path)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return saved


def named(value: Any, names: list[str], keep: tuple[str, ...] = ()) -> Any:
    """A copy of a record in which the names of classes, files, data and runs are hostile."""
    if isinstance(value, dict):
        return {key: names[zlib.crc32(key.encode()) % len(names)] if isinstance(item, str) and key in keep else
                named(item, names, keep) for key, item in value.items()}
    return [named(item, names, keep) for item in value] if isinstance(value, list) else value


def a_run(names: list[str]) -> dict[str, Any]:
    """An analysed run whose classes, files and settings have these names."""
    there = {k: [(3, (0, 0, 10, 10))] * 3 for k in range(len(names))}
    said = {k: [(7, (0, 0, 10, 10), 0.9), (3, (1, 1, 9, 9), 0.8)] for k in range(len(names))}
    run = analysed(names[0], there, said, classes=Classes((3, 7), ("ant", "bee")))
    run |= {"split": names[1], "data": names[2], "log": {
        "warned": {name: [1, 2] for name in names}, "steps": 3, "left_out": names[3], "best": None, "last": None,
        "earlier": None, "reached": None}}
    run["classes"] = [deepcopy(run["classes"][k % 2]) | {"name": name} for k, name in enumerate(names)]
    run["confusion"] = {"names": [*names[:2], "nothing"], "matrix": [[0, 9, 1], [9, 0, 1], [1, 1, 0]]}
    run["checkpoint"] |= {"preset": names[4], "file": names[5], "classes": names,
                          "changed": [(name, name, name) for name in names]}
    for of, name in zip(run["worst"], names):
        of["file_name"] = name
    return run


class Tags(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.found.add(tag)


# -- charts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_every_chart_of_a_report_can_be_drawn(seed: int, laid_out: list[Path], tmp_path: Path) -> None:
    names = drawn(seed, 20) if seed else list(NAMES[:20])
    run = a_run(names)
    for name, chart in error_charts.CHARTS.items():
        error_charts.save(chart(run), tmp_path / f"{name}.png")
    error_charts.save(error_charts.draw_compared([run | {"name": name} for name in names[:6]]), tmp_path / "all.png")
    assert len(laid_out) == len(error_charts.CHARTS) + 1


@pytest.mark.parametrize("seed", SEEDS)
def test_learning_curves_ranges_sweeps_comparisons_and_slots_can_be_drawn(
    seed: int, laid_out: list[Path], tmp_path: Path,
) -> None:
    names = drawn(10 + seed, 12) if seed else list(NAMES[20:32])
    run = learning_curve.read_run(write_run(tmp_path / "run"))
    run["alerts"]["guard"] = names[:1]
    learning_curve.draw([run | {"name": name} for name in names], tmp_path / "curve.png")
    lr_range.draw(test_lr_range.results(test_lr_range.a_valley(), preset=names[0], data=names[1]), tmp_path / "lr.png")
    space = {name: {"kind": "choice", "values": names} for name in names[:3]}
    trials = [test_sweep_charts.a_trial(k, 0.1 * k) | {"values": dict.fromkeys(space, names[k])} for k in range(3)]
    shares = {name: 0.3 for name in space}
    sweep = test_sweep_charts.results(*trials, study=names[0], split=names[1], space=space, importance=shares)
    sweep_charts.draw(sweep, tmp_path)
    comparison.draw(test_comparison.results(test_comparison.run("ours"), split=names[0]), tmp_path / "comparison.png")
    about = {"data": names[0], "detector": names[1], "queries": "learned"}
    figures.save(slot_chart.draw_slots({"about": about, "boxes_cxcywh": [[[500, 500, 100, 100]]]}), tmp_path / "s.png")
    assert len(laid_out) == 8


@pytest.mark.parametrize("seed", SEEDS)
def test_what_explain_draws_and_its_page_can_be_made(seed: int, laid_out: list[Path], tmp_path: Path) -> None:
    for k, name in enumerate(drawn(20 + seed, 4) if seed else ["$10_to_$20", "a\n\ud83d", "</script><b>", "n" * 300]):
        record = made_up(1, 1, 1, label=name)
        record.about.update(name=name, detector=name)
        for chart in (attention_maps.draw_detections, attention_maps.draw_encoder, attention_maps.draw_boxes):
            figures.save(chart(record), tmp_path / "a.png")
        write_page(record, tmp_path / f"{k}.html")
        page = (tmp_path / f"{k}.html").read_text(encoding="utf-8")
        assert page.count("</script>") == 2 and len(re.findall("<script", page)) == 2 and "<b>" not in page
        content = json.loads(re.search(r'id="record">(.*?)</script>', page, re.DOTALL)[1])
        assert content["name"] == content["detector"] == content["detections"][0]["labels"][0][0] == shown(name)


# -- pages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_a_report_shows_every_name_and_writes_below_its_folder_alone(
    seed: int, laid_out: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Figure, "draw_without_rendering", lambda figure: None)  # another test's
    names = drawn(30 + seed, 14) if seed else list(NAMES[32:])
    runs = [a_run(names[k:] + names[:k]) for k in range(3)]
    out = tmp_path / "out"
    write_report({"runs": runs, "curves": []}, out)
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
    assert len([path for path in out.iterdir() if path.is_dir()]) == 3
    markdown, page = ((out / f"report.{ending}").read_text(encoding="utf-8") for ending in ("md", "html"))
    assert Tags(page).found == {"html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "ul", "li", "p",
                                "strong", "code", "table", "thead", "tbody", "tr", "th", "td", "img"}
    for name in names:
        assert literal(name) in markdown
    for target in re.findall(r"^!\[[^]]*\]\((.*)\)$", markdown, re.MULTILINE):
        assert re.fullmatch(r"[\w.%~/-]+", target)
    table = None
    for line in markdown.splitlines():  # a name ends no cell
        bars = len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) if line.startswith("|") else None
        assert bars is None or table is None or bars == table
        table = bars
    assert "\x1b" not in markdown + page and "\n\n\n" not in markdown


def test_the_pages_of_a_sweep_and_of_a_comparison_show_names_as_names() -> None:
    for name in NAMES:
        best = test_sweep_charts.a_trial(0, 0.5, queries=name) | {"command": f"train '{name}'"}
        failed = test_sweep_charts.a_trial(1, None, "failed", queries=name) | {"reason": name}
        text = sweep_page.report({
            **test_sweep_charts.results(best, failed, study=name, split=name), "data": name, "sampler": "tpe",
            "pruner": "none", "seed": 1, "jobs": 1, "flags": f"--data '{name}'", "minutes": 3.0,
            "defaults": best["values"], "importance": None})
        assert text.splitlines()[0] == f"# Sweep: {literal(name)}"
        text = comparison.report(test_comparison.results(test_comparison.run("ours", machine=name), data=name))
        assert literal(name) in text and text.count("\n|") == 3


# -- pictures and terminals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_label_is_one_line_within_the_picture(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    texts: list[str] = []
    write = ImageDraw.ImageDraw.text
    monkeypatch.setattr(ImageDraw.ImageDraw, "text", lambda draw, at, text, **how: (
        texts.append(text), write(draw, at, text, **how)))
    picture = Image.new("RGB", (150, 90), (200, 200, 200))
    drawn_on = draw_detections(picture, [[20, 30, 90, 70]], [f"{name} 0.98"], [PALETTE[0]])
    assert ImageChops.difference(picture, drawn_on).getbbox() is not None
    [text] = texts
    assert "\n" not in text and text.endswith(" 0.98") and len(text) <= 150
    assert text == f"{printable(name)} 0.98" or "…" in text


def test_a_sheet_of_every_name_can_be_drawn(tmp_path: Path) -> None:
    labels = torch.arange(len(NAMES))
    boxes = torch.tensor([[5.0, 20, 30, 40]]).expand(len(NAMES), 4)
    shown_ones = {"boxes": boxes, "labels": labels, "scores": torch.ones(len(NAMES))}
    path = prediction_sheet(tmp_path / "s.png", [Image.new("RGB", (61, 47))], [shown_ones], [shown_ones], NAMES, 0.5)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_terminal_shows_the_names_of_classes_on_a_line_each() -> None:
    figures_of = dict.fromkeys(("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR_1", "AR_10", "AR_100",
                                "AR_small", "AR_medium", "AR_large"), 0.5)
    for k in range(0, len(NAMES), 15):
        text = format_summary({**figures_of, "per_class": dict.fromkeys(NAMES[k:k + 15], {"AP": 0.5, "AP50": 0.5})})
        assert len(text.splitlines()) == 5 + len(NAMES[k:k + 15]) and max(map(len, text.splitlines())) < 120
        assert printable(text.replace("\n", "")) == text.replace("\n", "")


def test_a_short_name_is_the_same_in_every_chart() -> None:
    assert [short(name) for name in ("red cell", "Platelets")] == ["red cell", "Platelets"]
