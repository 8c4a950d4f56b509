"""The report says what the figures say, in Markdown and in HTML, and can be made again from its data alone."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import Any, Iterator, Optional

import matplotlib.image
import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from PIL import Image

import scratch.analysis.report as report_module
from scratch.analysis.document import Document
from scratch.analysis.error_charts import CHARTS
from scratch.analysis.learning_curve import read_run
from scratch.analysis.report import SHEET, main, write_report
from tests.analysis.test_findings import analysed
from tests.analysis.test_learning_curve import write_run


def blank(figure: Optional[Figure], path: Path) -> Optional[Path]:
    """In the place of `save`: drawing takes most of a report's time."""
    if figure is not None:
        plt.close(figure)
        Image.new("RGB", (9, 7)).save(path)
    return path if figure else None


def draw_nothing(patch: pytest.MonkeyPatch) -> None:
    """Leave blank pictures where the charts would be."""
    patch.setattr(report_module, "save", blank)
    patch.setattr(report_module, "draw", lambda _, path: Image.new("RGB", (9, 7)).save(path))


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any], list[str]]]:
    """A report of two runs, the second with a log; its folder, its data and its sentences. Its charts are blank."""
    folder = tmp_path_factory.mktemp("report")
    a, b = analysed("a"), analysed("b", said={})
    (folder / "a").mkdir()
    Image.new("RGB", (9, 7)).save(folder / "a" / SHEET)
    curves = [read_run(write_run(folder / "run", steps=5)) | {"name": "b"}]
    analysis = {"runs": [a, b], "curves": curves}
    with pytest.MonkeyPatch.context() as patch:
        draw_nothing(patch)
        yield folder, analysis, write_report(analysis, folder)


def test_the_report_opens_with_its_sentences(report: tuple) -> None:
    folder, _, sentences = report
    markdown = (folder / "report.md").read_text()
    assert markdown.startswith("# Analysis of a, b\n\n## In short\n\n* ")
    assert all(f"* {sentence}\n" in markdown for sentence in sentences)
    assert sentences[0].startswith("**a is the best**") and sum(s.startswith("b: ") for s in sentences) >= 2


def test_every_picture_that_the_report_shows_lies_beside_it_and_none_is_left_out(report: tuple) -> None:
    folder, _, _ = report
    shown = re.findall(r"!\[[^]]+\]\(([^)]+)\)", (folder / "report.md").read_text())
    there = {str(path.relative_to(folder)) for path in folder.rglob("*.png")}
    assert set(shown) == there and len(shown) == len(there)
    assert there == {"learning_curve.png", "errors_compared.png", f"a/{SHEET}",
                     *(f"{run}/{name}.png" for run in "ab" for name in CHARTS)}


def test_the_html_file_needs_no_other(report: tuple) -> None:
    folder, _, _ = report
    text = (folder / "report.html").read_text()
    sources = re.findall(r'(?:src|href)="([^"]{30})', text)
    assert len(sources) == len(list(folder.rglob("*.png")))
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    rules = re.findall(r"^[|][|:-]+[|]$", (folder / "report.md").read_text(), flags=re.MULTILINE)
    assert text.count("<table>") == len(rules) > 10


def test_tables_hold_the_figures(report: tuple) -> None:
    a, markdown = report[1]["runs"][0], (report[0] / "report.md").read_text()
    cost = a["errors"]["cost"]
    assert f"| Loc | right classes in boxes that fit poorly | {cost['Loc']:.3f} | 18% | 1 | 1 |" in markdown
    assert "| ant | 4 | 0.199 | 0.199 | 0.199 |" in markdown and "| heads | 1 | 0.00 | 1.000 | 25% |" in markdown
    assert "| best evaluation of the run |" not in markdown  # neither run has a log of its own
    assert f"detections that score {a['threshold']['score']:.2f} or more" in markdown


def test_the_report_is_made_again_from_its_data_alone_pixel_by_pixel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    two.mkdir()
    write_report({"runs": [analysed("a")], "curves": []}, one)
    shutil.copy(one / "analysis.json", two)
    monkeypatch.setattr(sys, "argv", ["report", str(two)])
    main()
    assert capsys.readouterr().out == f"{two / 'report.html'}\n"
    drawn = [path.relative_to(one) for path in one.rglob("*.png")]
    assert len(drawn) == len(CHARTS)
    for path in drawn:
        assert np.array_equal(*(matplotlib.image.imread(folder / path) for folder in (one, two))), path
    assert (one / "report.html").read_text() == (two / "report.html").read_text()


@pytest.mark.parametrize("changed, words", [
    ([("lr", 0.1, 0.2)], "* **preset**: tiny, with `lr` 0.2 (not 0.1)"), ([], "* **preset**: tiny, unchanged"),
    (None, "* **preset**: tiny, which this version does not know")])
def test_what_differs_from_the_preset_is_listed(
    changed: Optional[list], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    draw_nothing(monkeypatch)
    run = analysed("a")
    run["checkpoint"]["changed"] = changed
    write_report({"runs": [run], "curves": []}, tmp_path)
    assert words + "\n" in (tmp_path / "report.md").read_text()


def test_where_there_is_no_sheet_of_the_worst_images_that_is_said(report: tuple) -> None:
    before, after = (report[0] / "report.md").read_text().split("## b\n")
    assert f"(a/{SHEET})" in before and "no sheet" not in before
    assert "(The images could not be read, so there is no sheet of them.)" in after and SHEET not in after


def test_a_folder_without_data_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["report", str(tmp_path)])
    with pytest.raises(SystemExit):
        main()


@pytest.mark.parametrize("there, said", [
    ({}, {1: []}), ({1: [(3, (0, 0, 9, 9), "crowd")]}, {1: [(3, (0, 0, 9, 9), 0.5)]}), ({1: [(3, (0, 0, 9, 9))]}, {})])
def test_there_is_a_report_where_there_is_next_to_nothing_to_say(
    there: dict, said: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    draw_nothing(monkeypatch)
    write_report({"runs": [analysed("a", there=there, said=said)], "curves": []}, tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "None" not in text and "nan" not in text


# -- the document ------------------------------------------------------------------------------------------------------


def test_text_is_the_same_in_both_and_no_letter_of_it_is_taken_for_markup(tmp_path: Path) -> None:
    document = Document("a < b", tmp_path)
    document.paragraph("**bold** and `--flag <x>` & more")
    document.table(["", "AP"], [["a|b", "0.5"], ["c", "–"]])
    assert document.to_markdown() == ("# a < b\n\n**bold** and `--flag <x>` & more\n\n"
                                      "|  | AP |\n|---|---:|\n| a\\|b | 0.5 |\n| c | – |\n")
    html = document.to_html()
    assert "<p><strong>bold</strong> and <code>--flag &lt;x&gt;</code> &amp; more</p>" in html
    assert "<td>a|b</td><td class=figure>0.5</td>" in html and "<h1>a &lt; b</h1>" in html


def test_columns_of_figures_stand_on_the_right_and_of_texts_on_the_left(tmp_path: Path) -> None:
    document = Document("t", tmp_path)
    document.table(["a", "b", "c", "d"], [["1,234", "Loc 0.5", "12%", "144×96"], ["–", "–", "", "8-15"]])
    assert "|---:|---|---:|---:|" in document.to_markdown()


def test_a_picture_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Document("t", tmp_path).picture("nowhere.png", "nothing")
