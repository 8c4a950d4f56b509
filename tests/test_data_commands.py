"""check-data, train, eval and analyze on one data set: they agree on what it is good for, and tell what is missing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import detr_scratch
from commands.check_data import CheckDataArguments, check_data, found_by_a_run
from scratch.config import PRESETS, DataConfig
from scratch.data import coco, pieces
from scratch.ops.fast.switch import plain_mode
from tests.data.conftest import CocoSet

QUICK = ["--preset", "tiny_vanilla", "--device", "cpu", "--short-side", "32", "--max-size", "64", "--batch-size", "2",
         "--max-steps", "1", "--workers", "0", "--hidden-dim", "32", "--dim-feedforward", "48", "--no-tensorboard",
         "--num-queries", "9", "--dec-layers", "1", "--enc-layers", "1"]


def sound(root: Path) -> CocoSet:
    coco_set = CocoSet(root)
    for split, ids in (("train", (1, 2)), ("val", (3, 4))):
        for id in ids:
            coco_set.image(split, id)
    return coco_set


def said(capsys, *words: object) -> tuple[str, str]:
    """What a command printed, and how it ended: "" or its error."""
    try:
        detr_scratch.main([str(word) for word in words])
        end = ""
    except SystemExit as stopped:
        end = str(stopped.code)
    return capsys.readouterr().out, end


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run on a sound set."""
    folder = tmp_path_factory.mktemp("run")
    root = sound(folder / "set").write()
    detr_scratch.main(["train", *QUICK, "--data", str(root), "--run-dir", str(folder / "r")])
    return folder / "r"


def test_without_a_box_to_find_a_run_shows_dashes_and_no_figure(tmp_path, capsys):
    coco_set = sound(tmp_path / "set")
    coco_set.split("val")["annotations"].clear()
    output, end = said(capsys, "train", *QUICK, "--data", coco_set.write(), "--run-dir", tmp_path / "r")
    assert end == "" and "AP –  AP50 –  AP75 –" in output and "AP 0.000" not in output
    assert "no box to find" in output and "the val split has no box to find, so no evaluation is better" in output
    output, end = said(capsys, "analyze", tmp_path / "r", "--device", "cpu")
    assert end == "" and "0.000" not in output


@pytest.mark.parametrize("boxes, given, told", [
    (256, (), ""), (257, (), "257 boxes, 256 found at most"), (60, ("--num-queries", "59"), "60 boxes, 59 found at most"),
    (5, ("--short-side", "32"), "5 boxes, 4 found at most")])
def test_check_data_says_what_a_run_without_flags_would_not_find(boxes, given, told, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("commands.check_data.best_device", lambda: "cpu")  # 256 pixels at most: 256 cells of 16
    coco_set = sound(tmp_path / "set")
    for _ in range(boxes - sum(box["image_id"] == 1 for box in coco_set.split("train")["annotations"])):
        coco_set.box("train", 1, [2, 2, 20, 20])
    output, end = said(capsys, "check-data", coco_set.write(), *given)
    assert end == "" and (told in output if told else "found at most" not in output)


def test_in_plain_mode_check_data_speaks_of_a_run_without_a_recipe(tmp_path):
    coco_set = sound(tmp_path / "set")
    for _ in range(60):
        coco_set.box("train", 1, [2, 2, 20, 20])
    data = DataConfig(data=str(coco_set.write()))
    with plain_mode():
        assert found_by_a_run(data) == PRESETS["tiny_vanilla"].model.num_queries
    assert found_by_a_run(data) > PRESETS["tiny_vanilla"].model.num_queries


@pytest.mark.parametrize("spoil, words", [
    (lambda s: s.splits.pop("val"), "missing split: the split 'val'"),
    (lambda s: s.splits.pop("train"), "missing split: the split 'train'"),
    (lambda s: [a.update(iscrowd="1") for a in s.split("train")["annotations"]], "no box to learn from"),
    (lambda s: [a.update(bbox=[0.1, 0.2, 0.3, 0.4]) for a in s.split("val")["annotations"]], "boxes in another form"),
])
def test_check_data_and_training_refuse_alike(spoil, words, tmp_path, capsys):
    coco_set = sound(tmp_path / "set")
    spoil(coco_set)
    root = coco_set.write()
    output, end = said(capsys, "check-data", root)
    assert end == "1" and words.split(": ")[-1] in output and "training refuses this data" in output
    _, end = said(capsys, "train", *QUICK, "--data", root, "--run-dir", tmp_path / "r")
    assert end.startswith("error: the data cannot be trained") and words in end
    assert not (tmp_path / "r").exists()


def test_boxes_that_are_to_be_taken_as_they_are_are_trained_on(tmp_path, capsys):
    coco_set = sound(tmp_path / "set")
    for document in coco_set.splits.values():
        for entry in document["annotations"]:
            entry["bbox"] = [0.1, 0.2, 0.3, 0.4]
    root = coco_set.write()
    output, end = said(capsys, "check-data", root, "--as-is")
    assert end == "" and "boxes perhaps in another form" in output
    output, end = said(capsys, "train", *QUICK, "--data", root, "--run-dir", tmp_path / "r", "--as-is")
    assert end == "" and (tmp_path / "r" / "last.pt").exists()


def test_a_sweep_by_a_figure_that_cannot_be_measured_is_refused(tmp_path):
    coco_set = sound(tmp_path / "set")
    coco_set.split("val")["annotations"].clear()
    config = PRESETS["tiny"]
    refuse_nothing_to_find = pytest.importorskip("commands.sweep.command").refuse_nothing_to_find  # it needs Optuna
    with pytest.raises(ValueError, match="the val split of .* has no box to find, so that no trial can be better"):
        refuse_nothing_to_find(replace(config, data=replace(config.data, data=str(coco_set.write()))))


def test_eval_names_near_classes_for_one_that_the_detector_does_not_know(run, capsys):
    _, end = said(capsys, "eval", run, "--device", "cpu", "--workers", "0", "--classes", "cta")
    assert end.startswith("error: got 'cta' among the classes") and "did you mean cat" in end


def test_eval_judges_the_chosen_classes_alone(run, tmp_path, capsys):
    coco_set = sound(tmp_path / "set")
    coco_set.box("val", 3, [1, 1, 5, 5], category_id=7)
    figures = tmp_path / "figures.json"
    for classes, judged in (("dog", {"dog"}), ("cat", {"cat"}), ("cat,dog", {"cat", "dog"})):
        _, end = said(capsys, "eval", run, "--device", "cpu", "--workers", "0", "--data", coco_set.write(),
                      "--classes", classes, "--json", figures)
        per_class = json.loads(figures.read_text())["per_class"]
        assert end == "" and {name for name, of in per_class.items() if of["AP"] is not None} == judged


def test_eval_tells_that_cocos_count_has_a_ceiling_and_lifts_it(run, tmp_path, capsys):
    coco_set = sound(tmp_path / "set")
    for k in range(300):
        coco_set.box("val", 3, [k % 20, k // 20, 10, 8])
    words = ["eval", run, "--device", "cpu", "--workers", "0", "--data", coco_set.write()]
    output, end = said(capsys, *words)
    assert end == "" and "note: more boxes than COCO counts: instances_val.json: more than 100 boxes of a class in 1 image" in output
    output, end = said(capsys, *words, "--max-dets", "301")
    assert end == "" and "note:" not in output and "the best 301 detections of a class in an image count" in output
    output, end = said(capsys, "analyze", run, "--data", coco_set.root, "--max-dets", "301", "--device", "cpu", "--out",
                       tmp_path / "a")
    assert end == ""
    assert json.loads((tmp_path / "a" / "analysis.json").read_text())["runs"][0]["figures"]["max_dets"] == 301


def test_eval_and_analyze_refuse_what_training_refuses(run, tmp_path, capsys):
    coco_set = sound(tmp_path / "set")
    coco_set.split("val")["annotations"][0]["bbox"] = ["1", "2", "3", "x"]
    root = coco_set.write()
    for words in (["eval", run, "--data", root, "--workers", "0"], ["analyze", run, "--data", root]):
        _, end = said(capsys, *words, "--device", "cpu")
        assert "malformed entry: instances_val.json" in end and "bbox is ['1', '2', '3', 'x']" in end


def test_eval_on_a_set_without_that_split_says_so(run, tmp_path, capsys):
    coco_set = sound(tmp_path / "set")
    coco_set.splits.pop("val")
    _, end = said(capsys, "eval", run, "--data", coco_set.write(), "--device", "cpu", "--workers", "0")
    assert "does not hold the split 'val'" in end


def test_check_data_makes_the_folder_of_its_file_or_says_at_once_why_it_cannot(tmp_path: Path, capsys) -> None:
    root = sound(tmp_path / "set").write()
    check_data(CheckDataArguments(root, DataConfig(), all=tmp_path / "new" / "er" / "all.txt"))
    assert (tmp_path / "new" / "er" / "all.txt").exists()
    capsys.readouterr()
    with pytest.raises(OSError, match="all.txt"):
        check_data(CheckDataArguments(root, DataConfig(), all=tmp_path / "new" / "er" / "all.txt" / "more.txt"))
    assert not capsys.readouterr().out


@pytest.mark.parametrize("place", ["annotations/instances_train.json", "train/0001.png"])
def test_check_data_does_not_write_over_the_data_that_it_looks_at(tmp_path: Path, place: str) -> None:
    root = sound(tmp_path / "set").write()
    before = (root / place).read_bytes()
    with pytest.raises(ValueError, match="is a file that this command reads"):
        check_data(CheckDataArguments(root, DataConfig(), all=root / place))
    assert (root / place).read_bytes() == before


def test_a_run_looks_for_the_layout_once_and_two_runs_read_each_large_file_once(tmp_path, monkeypatch):
    looked, reads = [], []
    monkeypatch.setattr(pieces, "LARGE", 1)
    monkeypatch.setattr(coco, "recognise", lambda root, find=coco.recognise: (looked.append(root), find(root))[1])
    monkeypatch.setattr(pieces, "_read", lambda path, read=pieces._read: (reads.append(path.name), read(path))[1])
    root = sound(tmp_path / "set").write()
    losses = []
    for name in ("cold", "again"):
        detr_scratch.main(["train", *QUICK, "--data", str(root), "--run-dir", str(tmp_path / name)])
        records = map(json.loads, (tmp_path / name / "log.jsonl").read_text().splitlines())
        losses.append([(record["kind"], record.get("loss"), record.get("losses")) for record in records])
    assert looked == [root] * 2 and sorted(reads) == ["instances_train.json", "instances_val.json"]
    assert losses[0] == losses[1] and [kind for kind, *_ in losses[0]] == ["step", "evaluation"]


def test_a_converted_set_is_not_written_into_the_set_itself(tmp_path: Path, capsys) -> None:
    sound(tmp_path)
    with pytest.raises(SystemExit, match="its files would become a part of that set; name an --out elsewhere"):
        detr_scratch.main(["convert-data", str(tmp_path), "--out", str(tmp_path / "coco")])
    assert not (tmp_path / "coco").exists()
