"""`charts`: one command trains for some batches, writes what it saw, and draws it; the steps are those of `train`."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import commands.charts
import detr_scratch
from commands.charts import ChartsArguments, charts, config_of
from scratch.analysis import layer_charts
from scratch.config import PRESETS, Config
from scratch.data.shapes import shapes_dataset
from scratch.only_one import NAME as LOCK
from scratch.only_one import only_one

_FEW = ("class_head",)  # all of them take half a minute


def quick(**train: object) -> Config:
    """Three steps in an epoch, of small images and narrow layers."""
    tiny = PRESETS["tiny"]
    return replace(
        tiny, model=replace(tiny.model, hidden_dim=32, dim_feedforward=48),
        data=replace(tiny.data, shapes_train=12, shapes_val=4, short_side=64, max_size=96, workers=0),
        train=replace(tiny.train, **{"batch_size": 4, "epochs": 1, "max_minutes": None, **train}))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of generated shapes, for all tests."""
    return shapes_dataset(tmp_path_factory.mktemp("shapes"), 12, 4)


@pytest.fixture(autouse=True)
def few_charts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, data: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(data.parent)
    whole = layer_charts.plan
    monkeypatch.setattr(layer_charts, "plan", lambda content, folder: {
        path: draw for path, draw in whole(content, folder).items() if path.name.startswith(_FEW)})


def arguments(**changes: Any) -> ChartsArguments:
    return ChartsArguments(**{"out": Path("v1"), "config": quick(), "batches": 2, "timed": 0, "device": "cpu",
                              **changes})


def steps_of(log: Path) -> list[dict[str, Any]]:
    return [record for record in map(json.loads, log.read_text().splitlines()) if record["kind"] == "step"]


def test_charts_data_and_index_are_written_and_nothing_else_and_the_data_alone_draws_them_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture,
) -> None:
    charts(arguments(timed=1))
    assert {path.name for path in Path("v1").iterdir()} == {
        "layers_v1.json", "index.md", "class_head_v1.png", LOCK}
    assert {path.name for path in tmp_path.iterdir()} == {"v1", "data"}
    content = json.loads(Path("v1/layers_v1.json").read_text())
    assert content["batches"] == [1, 2] and content["about"]["config"]["model"]["num_classes"] == 5
    cost = content["about"]["cost"]
    assert len(cost["plain_seconds"]) == len(cost["watched_seconds"]) == 1
    assert cost["ratio"] == pytest.approx(cost["watched_seconds"][0] / cost["plain_seconds"][0], rel=1e-2)
    printed = capsys.readouterr().out
    assert "a watched step takes" in printed and "1 charts → v1/index.md" in printed
    assert "a watched step takes" in Path("v1/index.md").read_text()

    before = {path.name: path.read_bytes() for path in Path("v1").iterdir()}
    for path in Path("v1").iterdir():
        if path.suffix in (".md", ".png"):
            path.unlink()
    monkeypatch.setattr(commands.charts, "collect", None)  # nothing is trained
    charts(arguments(redraw=True))
    assert {path.name: path.read_bytes() for path in Path("v1").iterdir()} == before


def test_the_steps_are_those_that_train_takes_over_an_epochs_end_and_from_a_checkpoint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture,
) -> None:
    judge = detr_scratch.judge
    monkeypatch.setattr(detr_scratch, "judge", lambda run, **rest: {**judge(run, **rest), "AP": 1 / run.step})
    config = quick(max_steps=4, epochs=2, eval_every=1)
    detr_scratch.train(detr_scratch.TrainArguments(config, Path("run"), "cpu"))
    trained = steps_of(Path("run") / "log.jsonl")
    charts(arguments(config=config, batches=4))
    content = json.loads(Path("v1/layers_v1.json").read_text())
    for mine, theirs in ((content["losses"]["loss"], "loss"), (content["grad_norm"], "grad_norm"),
                         (content["learning_rates"]["lr_backbone"], "lr_backbone")):
        assert mine == pytest.approx([record[theirs] for record in trained], rel=1e-3)

    best = Path("run") / "best.pt"  # of the first evaluation, after step 3
    charts(arguments(config=config_of(Path("run")), checkpoint=best, batches=1, out=Path("v2")))
    content = json.loads(Path("v2/layers_v2.json").read_text())
    assert content["about"]["start"] == "run/best.pt, step 3" and content["batches"] == [1]
    assert content["losses"]["loss"] == pytest.approx([trained[3]["loss"]], rel=1e-3)
    capsys.readouterr()
    charts(arguments(config=config, checkpoint=Path("run"), batches=1, out=Path("v3")))
    assert "this run is at its end" in capsys.readouterr().out


def test_what_led_to_a_gradient_that_is_not_finite_is_drawn(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture,
) -> None:
    step, calls = commands.charts.train_step, []

    def breaks(run: Any, batches: list[Any]) -> dict[str, float]:
        calls.append(run.step)
        if len(calls) == 3:
            raise FloatingPointError("step 2: the gradient of input_proj.weight is not finite")
        return step(run, batches)

    monkeypatch.setattr(commands.charts, "train_step", breaks)
    charts(arguments(batches=5, timed=2))
    assert json.loads(Path("v1/layers_v1.json").read_text())["batches"] == [1, 2] and len(calls) == 3
    assert "input_proj.weight is not finite" in Path("v1/index.md").read_text()
    assert "input_proj.weight is not finite" in capsys.readouterr().out


@pytest.mark.parametrize("value", [math.nan, 1e38])
def test_a_forward_pass_that_overflows_leaves_the_set_of_the_steps_before_it(
    value: float, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture,
) -> None:
    charts(arguments(batches=2))
    step, calls = commands.charts.train_step, []

    def poisoned(run: Any, batches: list[Any]) -> dict[str, float]:
        calls.append(run.step)
        if len(calls) == 3:
            run.unwrapped.class_embed.weight.data[:] = value
        return step(run, batches)

    monkeypatch.setattr(commands.charts, "train_step", poisoned)
    charts(arguments(batches=5, timed=2, out=Path("v2")))
    whole, stopped = (json.loads(Path(f"{name}/layers_{name}.json").read_text()) for name in ("v1", "v2"))
    assert "not finite" in stopped.pop("about")["stopped"] and len(calls) == 3
    del whole["about"]
    assert stopped == whole
    assert "not finite" in Path("v2/index.md").read_text() and "1 charts → v2/index.md" in capsys.readouterr().out


def test_a_timed_step_that_blows_up_leaves_the_set(monkeypatch: pytest.MonkeyPatch) -> None:
    step, calls = commands.charts.train_step, []

    def poisoned(run: Any, batches: list[Any]) -> dict[str, float]:
        calls.append(run.step)
        if len(calls) == 4:
            run.unwrapped.class_embed.weight.data[:] = math.nan
        return step(run, batches)

    monkeypatch.setattr(commands.charts, "train_step", poisoned)
    charts(arguments(batches=2, timed=2))
    about = json.loads(Path("v1/layers_v1.json").read_text())["about"]
    assert "not finite" in about["stopped"] and "after the 2 batches" in about["stopped"] and about["cost"] == {}
    assert Path("v1/class_head_v1.png").exists()


def test_data_at_paths_of_its_own_is_called_by_its_path(data: Path) -> None:
    paths = {f"{split}_{part}": str(data / where) for split in ("train", "val") for part, where in (
        ("images", split), ("annotations", f"annotations/instances_{split}.json"))}
    assert all(Path(path).exists() for path in paths.values())
    charts(arguments(config=replace(quick(), data=replace(quick().data, **paths)), batches=1))
    assert f"- trained on: {paths['train_images']}, 4 images" in Path("v1/index.md").read_text()


def test_steps_that_the_loss_scaler_skipped_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    figures, skipped = commands.charts.LayerWatch.figures, iter([True, False])

    def some(self: Any, kept: float = 1.0) -> Any:
        seen = figures(self, kept)
        return None if next(skipped) else seen

    monkeypatch.setattr(commands.charts.LayerWatch, "figures", some)
    charts(arguments(batches=2))
    content = json.loads(Path("v1/layers_v1.json").read_text())
    assert content["batches"] == [2] and len(content["losses"]["loss"]) == 1
    monkeypatch.setattr(commands.charts.LayerWatch, "figures", lambda self, kept=1.0: None)
    with pytest.raises(ValueError, match="skipped all of 1 steps"):
        charts(arguments(out=Path("v2"), batches=1))


@pytest.mark.parametrize("change, error, words", [
    ({"batches": 0}, ValueError, "batches = 0"), ({"timed": -1}, ValueError, "timed = -1"),
    ({"redraw": True}, FileNotFoundError, "layers_v1.json does not exist"),
    ({"device": "cuda:99"}, ValueError, "device 'cuda:99'"),
    ({"checkpoint": Path("nowhere")}, FileNotFoundError, "no checkpoint at nowhere"),
    ({"config": replace(quick(), data=replace(quick().data, data="nowhere"))}, FileNotFoundError, "nowhere"),
])
def test_a_mistake_is_said_in_words(change: dict, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        charts(arguments(**change))
    assert not Path("v1").exists()


def test_a_set_is_not_drawn_over() -> None:
    Path("v1").mkdir()
    Path("v1/layers_v1.json").write_text("{}")
    with pytest.raises(FileExistsError, match="already holds a set of charts"):
        charts(arguments())
    assert Path("v1/layers_v1.json").read_text() == "{}"


def test_a_set_of_which_the_drawing_was_stopped_is_drawn_to_its_end_by_the_same_command_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:
    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(commands.charts, "draw_set", stopped)
        charts(arguments())
    data = Path("v1/layers_v1.json").read_bytes()
    monkeypatch.setattr(commands.charts, "draw_set", lambda content, folder: [])
    with pytest.raises(FileExistsError, match="already holds a set of charts"):
        charts(arguments(timed=1))
    charts(arguments())
    assert "drawing goes on" in capsys.readouterr().out and Path("v1/layers_v1.json").read_bytes() == data
    Path("v1/index.md").write_text("drawn")
    with pytest.raises(FileExistsError, match="already holds a set of charts"):
        charts(arguments())


def test_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    distributed = replace(commands.charts.Distributed.from_environment("cpu"), world_size=2)
    monkeypatch.setattr(commands.charts.Distributed, "from_environment", staticmethod(lambda *_: distributed))
    with pytest.raises(ValueError, match="got 2 processes"):
        charts(arguments())


def test_a_second_one_in_the_same_folder_is_refused() -> None:
    with only_one(Path("v1")), pytest.raises(OSError, match="v1 is in use by pid"):
        charts(arguments())
