"""Every chart passes one place, where names stay names and a file is whole or not there."""

from __future__ import annotations

import errno
import os
import warnings
from pathlib import Path

import matplotlib.image
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from scratch.analysis import figures
from scratch.analysis.figures import make_plain, plain, save
from tests.hostile import NAMES


def of_names(names: list[str]) -> Figure:
    """A chart with a name in every place that has one, and an axis in powers of ten."""
    figure, (axes, other) = plt.subplots(1, 2, figsize=(3, 2), layout="constrained")
    lines = [axes.plot([1, 2], [1, 1000])[0] for _ in names]
    axes.legend(lines, [f" {name}" for name in names])
    axes.set(title=names[0], xlabel=names[0], ylabel=names[-1], yscale="log")
    axes.set_xticks(range(len(names)), labels=names)
    axes.text(1, 1, names[0])
    other.bar(names, range(len(names)))
    other.set_yticks([0], labels=names[:1])
    figure.suptitle(names[0])
    figure.text(0, 0, names[-1])
    return figure


def test_two_dollar_signs_are_no_formula(tmp_path: Path) -> None:
    save(of_names(["$10_to_$20", "US$ and CA$", r"\$x\$"]), tmp_path / "a.png")
    assert matplotlib.image.imread(tmp_path / "a.png").std() > 0


def test_a_name_is_drawn_with_its_dollar_signs_and_powers_of_ten_stay_powers() -> None:
    figure = of_names(["US$ and CA$", "b"])
    make_plain(figure)
    figure.draw_without_rendering()
    axes = figure.axes[0]
    texts = [axes.title, axes.xaxis.label, axes.get_xticklabels()[0], figure.axes[1].get_xticklabels()[0]]
    assert [text._preprocess_math(text.get_text()) for text in texts] == [("US$ and CA$", False)] * 4
    powers = [tick for tick in axes.get_yticklabels() if "10^" in tick.get_text()]
    assert powers and all(tick._preprocess_math(tick.get_text())[1] is True for tick in powers)
    plt.close(figure)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_becomes_lines_that_a_font_can_be_asked_for(name: str) -> None:
    assert plain(name).count("\n") == name.count("\n")
    plain(name).encode("utf-8")
    assert all(letter.isprintable() or letter in "\n\u3000" or ord(letter) > 127 for letter in plain(name))


def test_letters_that_the_font_lacks_are_one_warning_and_others_stay(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(figures, "_told", False)
    draw = Figure.savefig

    def savefig(figure: Figure, path: Path, **how) -> None:
        warnings.warn("something else")
        draw(figure, path, **how)

    monkeypatch.setattr(Figure, "savefig", savefig)
    with pytest.warns(UserWarning) as said:
        save(of_names(["\u732b\u72d7\u9ce5", "\u9b5a"]), tmp_path / "a.png")
    texts = [str(warning.message) for warning in said]
    assert texts[0] == "something else" and len(texts) == 2 and "drawn as boxes" in texts[1]


def test_a_chart_that_was_cut_off_leaves_the_former_one_and_a_full_disk_names_the_file(tmp_path: Path, monkeypatch):
    save(of_names(["a", "b"]), tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()

    def half(figure: Figure, path: Path, **_: object) -> None:
        Path(path).write_bytes(before[:99])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Figure, "savefig", half)
    with pytest.raises(OSError, match=r"a\.png could not be written: No space left on device"):
        save(of_names(["c", "d"]), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["a.png"]
    assert not plt.get_fignums()  # a figure that could not be saved is forgotten as well


def test_a_palette_is_written_whole_too(tmp_path: Path, monkeypatch) -> None:
    def killed(path: Path) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(figures, "to_palette", killed)
    with pytest.raises(KeyboardInterrupt):
        save(of_names(["a", "b"]), tmp_path / "a.png", palette=True)
    assert list(tmp_path.iterdir()) == []
