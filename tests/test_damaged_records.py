"""Whatever a record was changed to, drawing from it ends with charts or with one line that names it."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any, Callable, Iterator

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from PIL import Image

import scratch.analysis.report as report_module
from commands import explain
from commands.redraw import KINDS, redraw
from commands.sweep.command import SweepArguments, sweep
from scratch.analysis import figures
from scratch.analysis.attention_record import Explanation
from scratch.analysis.layer_record import LayerRecord, read_layers
from scratch.analysis.learning_curve import read_run
from scratch.analysis.records import believed
from scratch.analysis.report import write_report
from scratch.config import PRESETS
from tests.analysis import test_comparison, test_lr_range, test_sweep_charts
from tests.analysis.test_attention_record import made_up
from tests.analysis.test_findings import analysed
from tests.analysis.test_learning_curve import write_run

OTHER_VALUES: list[Any] = [None, "text", "", -1, 0, 10**30, 1e308, float("nan"), True, [], {}, [[]], ["a", "b"], {"a": 1},
                           [1, 2, 3], "$a$ \ud83d\n"]


def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    yield path
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(item, (*path, key))


def changed(record: Any, generator: random.Random) -> Any:
    """A copy of which one value is another, or gone; near the top more often than deep within."""
    record = copy.deepcopy(record)
    everywhere = [path for path in places(record) if path]
    depth = generator.randint(1, max(map(len, everywhere)))
    *above, last = generator.choice([path for path in everywhere if len(path) <= depth])
    parent = record
    for key in above:
        parent = parent[key]
    if generator.random() < 0.3:
        del parent[last]
    else:
        parent[last] = generator.choice(OTHER_VALUES)
    return record


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made and not rendered."""
    def save(figure: Figure, path: Path, **_: Any) -> Path:
        plt.close(figure)
        Image.new("RGB", (9, 7)).save(path)
        return path

    for module in (figures, explain):
        monkeypatch.setattr(module, "save", save)
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: Image.new("RGB", (9, 7)).save(path))


def records(tmp_path: Path) -> dict[str, Any]:
    curve = [read_run(write_run(tmp_path / "run", steps=5))]
    shape = {"tokens": 16, "gib": {"naive": 0.1}, "seconds": {"naive": 0.1}}
    return {"learning_curve.json": curve,
            "sweep.json": test_sweep_charts.results(*test_sweep_charts.TRIALS),
            "lr_range.json": test_lr_range.results(test_lr_range.a_valley(21), steps=21),
            "comparison.json": test_comparison.results(test_comparison.run("ours")),
            "slots.json": {"about": {"data": "val", "detector": "d", "queries": "learned"},
                           "boxes_cxcywh": [[[500, 500, 100, 100], [100, 100, 10, 30]]]},
            "attention.json": {"batch_size": 1, "precision": "float32", "results": [shape]}}


def one_line_or_nothing(draw: Callable[[], Any], name: str) -> str:
    try:
        draw()
        return "drawn"
    except (ValueError, OSError) as error:
        assert name in str(error) and "\n" not in str(error), error
        return "refused"
    finally:
        plt.close("all")


@pytest.mark.parametrize("seed", range(3))
def test_a_chart_or_a_line_comes_of_every_changed_record(seed: int, undrawn: None, tmp_path: Path) -> None:
    generator, ends = random.Random(f"damaged {seed}"), set()
    for name, record in records(tmp_path).items():
        for k in range(4):
            folder = tmp_path / f"{name}-{k}"
            folder.mkdir()
            (folder / name).write_text(json.dumps(changed(record, generator)), encoding="utf-8")
            ends.add(one_line_or_nothing(lambda: redraw(folder), name))
    assert ends == {"drawn", "refused"}


def test_a_report_or_a_line_comes_of_every_changed_analysis(undrawn: None, tmp_path: Path) -> None:
    generator, analysis = random.Random("damaged analysis"), {"runs": [analysed("a"), analysed("b")], "curves": []}
    ends = set()
    for k in range(12):
        path = tmp_path / f"{k}" / report_module.DATA

        def draw() -> None:
            with believed(path, "analyze"):
                write_report(changed(analysis, generator), path.parent)
        ends.add(one_line_or_nothing(draw, report_module.DATA))
    assert ends == {"drawn", "refused"}


def test_a_page_or_a_line_comes_of_every_changed_record_of_a_picture(undrawn: None, tmp_path: Path) -> None:
    generator, record = random.Random("damaged npz"), made_up(1, 2, 2)
    arrays = {name: getattr(record, name) for name in record.__dataclass_fields__ if name != "about"}
    ends = set()
    for k in range(25):
        content, about = dict(arrays), record.about
        if k % 2:
            about = changed(record.about, generator)
        else:
            name = generator.choice(sorted(arrays))
            content[name] = generator.choice([arrays[name][:0], arrays[name][..., :1], arrays[name].astype("U9"),
                                              np.zeros(3), np.float64(2), arrays[name].T])
        path = tmp_path / f"{k}.npz"
        np.savez(path, about=np.array(json.dumps(about)), **content)
        ends.add(one_line_or_nothing(lambda: explain.draw(path), f"{k}.npz"))
    assert ends == {"drawn", "refused"}


def test_a_picture_that_unpacks_to_more_than_any_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_up().save(tmp_path / "a.npz")
    monkeypatch.setattr("scratch.analysis.attention_record.MOST_BYTES", 100)
    with pytest.raises(ValueError, match="a.npz is not a record .*wanted 100 at most"):
        Explanation.load(tmp_path / "a.npz")


# -- half files ------------------------------------------------------------------------------------------------------


def test_a_set_of_layer_charts_that_is_killed_while_it_writes_its_data_can_begin_again(tmp_path: Path, monkeypatch):
    def killed(path: Path, text: str, encoding: str) -> None:
        path.write_bytes(text.encode()[:20])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "write_text", killed)
        LayerRecord([], 0.1, {}).save(tmp_path / "v1")
    assert list((tmp_path / "v1").iterdir()) == []
    LayerRecord([], 0.1, {}).save(tmp_path / "v1")
    assert read_layers(tmp_path / "v1")["units"] == []


def test_a_half_set_of_layers_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "layers.json").write_text('{"about": {"preset": "ti')
    with pytest.raises(ValueError, match=r"layers\.json is damaged.*: remove it and run detr_scratch.py charts again"):
        read_layers(tmp_path)


def test_a_group_of_layers_is_no_way_out_of_the_folder(tmp_path: Path) -> None:
    from scratch.analysis.layer_charts import plan

    content = {"batches": [1], "units": [{"group": "../../up", "label": "", "kind": "", "parameters": 1}]}
    with pytest.raises(ValueError, match="group of layers '../../up'"):
        plan(content, tmp_path)


def test_of_several_records_the_whole_ones_are_drawn_and_the_damaged_ones_told(
    undrawn: None, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    (tmp_path / "a" / "sweep.json").write_text("{")
    (tmp_path / "b" / "lr_range.json").write_text(json.dumps(test_lr_range.results(test_lr_range.a_valley())))
    (tmp_path / "c" / "slots.json").write_text("[]")
    (tmp_path / "c" / ".a.partial.npz").write_text("half")  # of a writer that was killed
    with pytest.raises(ValueError) as error:
        redraw(tmp_path)
    assert [line.split(" is damaged")[0] for line in str(error.value).split("\n")] == [
        str(tmp_path / "a" / "sweep.json"), str(tmp_path / "c" / "slots.json")]
    assert capsys.readouterr().out == f"{tmp_path / 'b' / 'lr_range.png'}\n" and "*.npz" in KINDS


def test_a_damaged_sweep_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_text('{"study": "a"}')
    with pytest.raises(ValueError, match=r"sweep\.json is damaged.*remove it and run detr_scratch.py sweep again"):
        sweep(SweepArguments(config=PRESETS["tiny"], out=tmp_path, redraw=True))
