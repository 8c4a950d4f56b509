"""analyze: what a run wrote is enough, the detector is run only where it must be, and its figures are those of eval."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import tyro

import commands.analyze
import commands.sheets
from commands.analyze import DETECTIONS, AnalyzeArguments, _names, analyze
from commands.charts import config_of
from commands.convert import ConvertArguments, convert
from commands.evaluate import EvalArguments, evaluate_checkpoint
from scratch.config import PRESETS, Config
from scratch.data.coco import CocoDetection
from scratch.data.shapes import shapes_dataset
from scratch.data.transforms import Augmentation
from scratch.model.build import build_detr
from scratch.only_one import NAME as LOCK
from scratch.only_one import only_one
from scratch.training.checkpoint import load_checkpoint, save_checkpoint
from tests.analysis.test_learning_curve import write_run
from tests.analysis.test_report import draw_nothing


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images of generated shapes, four of them for validation; as a test split, the two others."""
    folder = shapes_dataset(tmp_path_factory.mktemp("data"), 2, 4)
    (folder / "test").symlink_to(folder / "train")
    (folder / "annotations/instances_test.json").write_text((folder / "annotations/instances_train.json").read_text())
    return folder


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blank charts and a short sheet: drawing is tests/analysis's business."""
    draw_nothing(monkeypatch)
    monkeypatch.setattr(commands.analyze, "MOST_IMAGES", 1)


@pytest.fixture
def never_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands.analyze, "detect", lambda *_: pytest.fail("the detector was run"))


def truth_of(shapes: Path, split: str = "val") -> CocoDetection:
    return CocoDetection(shapes / split, shapes / f"annotations/instances_{split}.json",
                         Augmentation.for_evaluation(PRESETS["tiny"].data))


def a_run(folder: Path, shapes: Path, step: int = 6, log: bool = True, **train: Any) -> Path:
    """A run's folder: a tiny detector with its first weights, as a checkpoint of `step`, and a log of 7 steps."""
    dataset = truth_of(shapes)
    config: Config = PRESETS["tiny"]
    config = replace(config, train=replace(config.train, **train),
                     data=replace(config.data, data=str(shapes), short_side=48, workers=0),
                     model=replace(config.model, hidden_dim=32, dim_feedforward=48, num_queries=7, dec_layers=2,
                                   num_classes=len(dataset.classes)))
    torch.manual_seed(3)
    if log:
        write_run(folder, steps=7)
    save_checkpoint(folder / "best.pt", {
        "config": config.to_dict(), "classes": dataset.classes.to_dict(), "step": step, "epoch": 1, "minutes": 0.6,
        "best_ap": 0.25, "last_metrics": {}, "model": build_detr(config.model).state_dict(), "ema": None})
    return folder


def keep_detections(run: Path, shapes: Path, step: int = 6, split: str = "val") -> None:
    """As if the run had found every object but the first, and said it of the class after its own."""
    first, *others = truth_of(shapes, split).ground_truth()["annotations"]
    said = [{**others[0], "category_id": others[0]["category_id"] % 5 + 1}, *others[1:]]
    results = [{**{name: a[name] for name in ("image_id", "category_id", "bbox")}, "score": 0.9} for a in said]
    (run / DETECTIONS).write_text(json.dumps({"split": split, "step": step, "results": results}))


def analysed(out: Path) -> list[dict[str, Any]]:
    return json.loads((out / "analysis.json").read_text())["runs"]


def test_what_the_run_wrote_is_enough(
    tmp_path: Path, shapes: Path, quick: None, never_run: None, capsys: pytest.CaptureFixture[str],
) -> None:
    run = a_run(tmp_path / "a", shapes)
    keep_detections(run, shapes)
    analyze(AnalyzeArguments((run,)))
    [figures] = analysed(run / "analysis")
    objects = len(truth_of(shapes).ground_truth()["annotations"])
    count = figures["errors"]["count"]
    assert figures["objects"] == objects and (count["Cls"], count["Miss"], sum(count.values())) == (1, 1, 2)
    assert figures["images"] == 4 and figures["checkpoint"]["step"] == 6
    assert figures["source"] == f"`{DETECTIONS}`, which the run wrote at step 6"
    assert figures["log"]["best"]["step"] == 4 and figures["image_size"] == [48, 48]
    printed = capsys.readouterr().out
    assert "* AP 0." in printed and str(run / "analysis" / "report.html") in printed and "**" not in printed
    assert {"report.md", "report.html", "learning_curve.png", "a"} <= {p.name for p in (run / "analysis").iterdir()}
    assert (run / "analysis/a/worst_images.png").exists()


def test_a_folder_that_another_command_writes_into_is_refused_and_nothing_is_written(
    tmp_path: Path, shapes: Path, quick: None, never_run: None,
) -> None:
    run = a_run(tmp_path / "a", shapes)
    keep_detections(run, shapes)
    with only_one(run / "analysis"):
        with pytest.raises(OSError, match="analysis is in use by pid"):
            analyze(AnalyzeArguments((run,)))
        assert [path.name for path in (run / "analysis").iterdir()] == [LOCK]


def test_without_detections_the_detector_is_run_and_has_the_figures_of_eval(
    tmp_path: Path, shapes: Path, quick: None, capsys: pytest.CaptureFixture[str],
) -> None:
    run = a_run(tmp_path / "a", shapes, log=False)
    analyze(AnalyzeArguments((run,), device="cpu", out=tmp_path / "out"))
    config = Config.from_dict(torch.load(run / "best.pt", weights_only=True)["state"]["config"])
    evaluate_checkpoint(EvalArguments(run, config.data, device="cpu", json=tmp_path / "eval.json"))
    figures, [mine] = json.loads((tmp_path / "eval.json").read_text()), analysed(tmp_path / "out")
    assert mine["figures"] == {name: figures[name] for name in mine["figures"]}
    assert mine["errors"]["AP50"] == pytest.approx(figures["AP50"], abs=1e-12)
    assert mine["log"] is None and f"there is no {DETECTIONS}" in mine["source"]
    assert f"there is no {DETECTIONS}, so the detector is run over the val split" in capsys.readouterr().out
    assert not (tmp_path / "out" / "learning_curve.png").exists()


def test_a_checkpoint_that_convert_made_is_judged_and_of_its_training_the_report_says_nothing(
    tmp_path: Path, shapes: Path, quick: None,
) -> None:
    run = a_run(tmp_path / "a", shapes, log=False)
    convert(ConvertArguments(str(run), tmp_path / "b" / "x.pt", to="ours"))
    with pytest.raises(ValueError, match="a detector without its training .*no run can go on from it"):
        config_of(tmp_path / "b" / "x.pt")  # of charts, which would go on
    keep_detections(tmp_path / "b", shapes)
    analyze(AnalyzeArguments((tmp_path / "b" / "x.pt", run), device="cpu", out=tmp_path / "out"))
    converted, whole = analysed(tmp_path / "out")
    assert converted["figures"] == whole["figures"] and converted["checkpoint"]["step"] is None
    assert "does not say after which step it was made" in converted["source"]
    assert "**after**: a training that it does not tell of" in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.parametrize("options, kept, why", [
    ({"eval_split": "test"}, {}, "is of the val split"), ({}, {"step": 5}, "is of step 5, the checkpoint of step 6"),
    ({"data": True}, {}, "other data was named")])
def test_detections_of_something_else_are_not_taken_for_these(
    options: dict, kept: dict, why: str, tmp_path: Path, shapes: Path, quick: None, monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = a_run(tmp_path / "a", shapes)
    keep_detections(run, shapes, **kept)
    asked = []
    monkeypatch.setattr(commands.analyze, "detect", lambda path, data, arguments: asked.append(data) or [])
    analyze(AnalyzeArguments((run,), **({"data": str(shapes)} if "data" in options else options)))
    [figures] = analysed(run / "analysis")
    assert why in figures["source"] and asked[0].data == str(shapes)
    assert figures["split"] == asked[0].eval_split == options.get("eval_split", "val")
    assert figures["images"] == (2 if "eval_split" in options else 4)


def test_several_runs_are_compared_under_names_of_their_own(
    tmp_path: Path, shapes: Path, quick: None, never_run: None,
) -> None:
    runs = [a_run(tmp_path / "one" / "a", shapes), a_run(tmp_path / "two" / "a", shapes, lr=0.5)]
    for run in runs:
        keep_detections(run, shapes)
    analyze(AnalyzeArguments(tuple(runs), out=tmp_path / "out"))
    assert [run["name"] for run in analysed(tmp_path / "out")] == ["a", "a-2"]
    markdown = (tmp_path / "out" / "report.md").read_text()
    assert "| `lr` | 0.002 | 0.5 |" in markdown and "as good as each other" in markdown
    assert markdown.count("`lr` 0.5 (not 0.002)") == 1 and markdown.count("`dec_layers` 2 (not 3)") == 2
    assert (tmp_path / "out/a-2/worst_images.png").exists()


def test_two_checkpoints_of_one_run_are_named_by_their_files_and_share_a_curve(
    tmp_path: Path, shapes: Path, quick: None, never_run: None,
) -> None:
    run, other = a_run(tmp_path / "a", shapes), a_run(tmp_path / "b", shapes)
    for folder in (run, other):
        keep_detections(folder, shapes)
    shutil.copy(run / "best.pt", run / "last.pt")
    analyze(AnalyzeArguments((run / "best.pt", run / "last.pt", other), out=tmp_path / "out"))
    analysis = json.loads((tmp_path / "out" / "analysis.json").read_text())
    assert [of["name"] for of in analysis["runs"]] == ["a-best", "a-last", "b"]
    assert [curve["name"] for curve in analysis["curves"]] == ["a", "b"]


@pytest.mark.parametrize("folders, names", [
    (("one/a", "two/a", "b"), ["a", "a-2", "b"]), (("one/a", "two/a", "a-2"), ["a", "a-2", "a-2-2"])])
def test_no_two_runs_have_one_name(folders: tuple, names: list, tmp_path: Path) -> None:
    assert _names(tuple(tmp_path / folder / "best.pt" for folder in folders))[1] == names


def test_a_checkpoint_from_before_a_setting_was_there_is_analysed_with_its_default(
    tmp_path: Path, shapes: Path, quick: None, never_run: None,
) -> None:
    run = a_run(tmp_path / "a", shapes)
    keep_detections(run, shapes)
    state = load_checkpoint(run / "best.pt")
    for part, name in (("model", "denoising"), ("data", "mosaic"), ("loss", "quality")):
        del state["config"][part][name]
    save_checkpoint(run / "best.pt", state)
    analyze(AnalyzeArguments((run,)))
    config = analysed(run / "analysis")[0]["checkpoint"]["config"]
    assert (config["model"]["denoising"], config["data"]["mosaic"], config["loss"]["quality"]) == (0, 0.0, 0.0)


def test_a_checkpoint_file_stands_for_its_run(tmp_path: Path, shapes: Path, quick: None, never_run: None) -> None:
    run = a_run(tmp_path / "a", shapes)
    keep_detections(run, shapes)
    (run / "best.pt").rename(run / "kept.pt")
    analyze(AnalyzeArguments((run / "kept.pt",)))
    [figures] = analysed(run / "analysis")
    assert figures["name"] == "a" and figures["checkpoint"]["file"] == "kept.pt" and figures["log"]["steps"] == 7


def test_where_the_images_are_gone_only_their_sheet_is_missing(
    tmp_path: Path, shapes: Path, quick: None, never_run: None, monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = a_run(tmp_path / "a", shapes)
    keep_detections(run, shapes)
    analyze(AnalyzeArguments((run,)))

    def gone(*_: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(commands.sheets, "read_image", gone)
    analyze(AnalyzeArguments((run,)))  # nor is the sheet of an earlier report left to be taken for this one's
    assert not (run / "analysis/a/worst_images.png").exists()
    assert "there is no sheet of them" in (run / "analysis/report.md").read_text()


def test_detections_of_images_that_are_not_there_any_more_are_refused(tmp_path: Path, shapes: Path) -> None:
    run = a_run(tmp_path / "a", shapes)
    keep_detections(run, shapes)
    kept = json.loads((run / DETECTIONS).read_text())
    kept["results"][0]["image_id"] = 404
    (run / DETECTIONS).write_text(json.dumps(kept))
    with pytest.raises(ValueError, match=f"image id 404, which is none of the 4 images.*remove {DETECTIONS}"):
        analyze(AnalyzeArguments((run,)))


@pytest.mark.parametrize("content", ["", "[]", '{"split": "val", "step": 6}'])
def test_a_damaged_file_of_detections_is_refused(content: str, tmp_path: Path, shapes: Path) -> None:
    run = a_run(tmp_path / "a", shapes)
    (run / DETECTIONS).write_text(content)
    with pytest.raises(ValueError, match="not what a run writes there .*: remove it to run the detector again"):
        analyze(AnalyzeArguments((run,)))


def test_no_run_and_no_checkpoint_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="got no run"):
        analyze(AnalyzeArguments(()))
    with pytest.raises(FileNotFoundError, match="no checkpoint in"):
        analyze(AnalyzeArguments((tmp_path,)))


def test_the_command_line_is_made_of_the_arguments() -> None:
    parsed = tyro.cli(AnalyzeArguments, default=AnalyzeArguments(tyro.MISSING), config=(tyro.conf.OmitArgPrefixes,),
                      args=["runs/a", "runs/b", "--eval-split", "test", "--out", "somewhere"])
    assert parsed == AnalyzeArguments((Path("runs/a"), Path("runs/b")), eval_split="test", out=Path("somewhere"))


# -- names, halves, and what somebody changed --------------------------------------------------------------------------


def test_a_run_in_a_folder_with_spaces_has_pictures_that_markdown_finds(
    tmp_path: Path, shapes: Path, quick: None, never_run: None, capsys: pytest.CaptureFixture[str],
) -> None:
    run = a_run(tmp_path / "my run (1)\n", shapes)
    keep_detections(run, shapes)
    with open(run / "log.jsonl", "a") as log:
        log.write('{"kind": "st')
    analyze(AnalyzeArguments((run,)))
    said, markdown = capsys.readouterr().out, (run / "analysis" / "report.md").read_text()
    assert r"my run (1)\n/log.jsonl: left out 1 line, 1 that cannot be read" in said
    assert f"{tmp_path}/my run (1)\\n/analysis/report.md\n" in said
    assert "](my%20run%20%281%29_n/errors.png)" in markdown and "* **the log**: " in markdown
    assert (run / "analysis" / "my run (1)_n" / "errors.png").exists()


@pytest.mark.parametrize("change, words", [
    ({"bbox": [1, 2, 3]}, "damaged.*a bbox of four.*: remove it to run the detector again"),
    ({"bbox": "1234"}, "damaged.*a bbox of four"), ({"score": None}, "damaged.*a bbox of four"),
    ({"score": float("nan")}, "damaged.*a bbox of four"),
    ({"category_id": 77}, "class id 77, which is none of the 5 classes.*remove best_detections.json")])
def test_detections_that_no_detector_gives_are_refused(
    change: dict, words: str, tmp_path: Path, shapes: Path, quick: None, never_run: None,
) -> None:
    run = a_run(tmp_path / "a", shapes)
    keep_detections(run, shapes)
    content = json.loads((run / "best_detections.json").read_text())
    content["results"][1] |= change
    (run / "best_detections.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=words):
        analyze(AnalyzeArguments((run,)))


def test_runs_whose_names_differ_in_case_alone_have_folders_of_their_own(tmp_path: Path) -> None:
    assert _names(tuple(tmp_path / folder / "best.pt" for folder in ("one/a", "two/A")))[1] == ["a", "A-2"]
