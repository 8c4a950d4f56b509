"""The command line: what a newcomer types does what the README says, and a mistake costs a line, not a traceback."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import detr_scratch
from commands.command_line import with_folder
from commands.sheets import shown_from
from scratch.config import PRESETS
from scratch.evaluation.hints import Hint, Trained
from scratch.training.checkpoint import load_checkpoint, save_checkpoint
from tests.conftest import REPOSITORY

# One epoch of a few steps on small images: seconds, and yet every stage is passed.
QUICK = ["--preset", "tiny", "--device", "cpu", "--shapes-train", "12", "--shapes-val", "4", "--short-side", "64",
         "--max-size", "96", "--batch-size", "4", "--epochs", "1", "--max-minutes", "None", "--workers", "0",
         "--hidden-dim", "32", "--dim-feedforward", "48", "--grow", "0"]


def detr(folder: Path, *argv: object, code: int = 0) -> str:
    """Run detr_scratch.py in `folder`, as a person would; returns what it printed."""
    done = subprocess.run([sys.executable, str(REPOSITORY / "detr_scratch.py"), *map(str, argv)], cwd=folder,
                          env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=240)
    assert done.returncode == code, done.stdout
    assert "Traceback" not in done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder in which `detr_scratch.py` was run once, and what it printed."""
    folder = tmp_path_factory.mktemp("newcomer")
    return folder, detr(folder, *QUICK)


def test_training_without_a_command_writes_a_run_and_says_what_to_look_at_next(trained: tuple[Path, str]) -> None:
    folder, output = trained
    run = folder / "runs" / "tiny-shapes"
    assert {"last.pt", "best.pt", "log.jsonl", "pictures"} <= {p.name for p in run.iterdir()}
    assert "AP" in output and "Look next at" in output and str(run.relative_to(folder)) in output
    said, = (line for line in output.splitlines() if "augmented" in line)  # before the first step
    assert said.endswith(str(run.relative_to(folder) / "pictures" / "augmented.png"))
    assert (run / "pictures" / "augmented.png").is_file() and output.index(said) < output.index("step 3")
    with Image.open(next((run / "pictures").glob("*.png"))) as sheet:
        assert sheet.width > 500


def test_the_log_has_a_record_for_each_step_and_each_evaluation(trained: tuple[Path, str]) -> None:
    log = trained[0] / "runs" / "tiny-shapes" / "log.jsonl"
    records = [json.loads(line) for line in log.read_text().splitlines()]
    assert [r["step"] for r in records if r["kind"] == "step"] == [1, 2, 3]
    assert {"loss_ce", "loss_bbox", "loss_giou", "grad_norm", "images_per_second", "lr_backbone"} <= set(records[0])
    assert [r["step"] for r in records if r["kind"] == "evaluation"] == [3]
    assert {"AP", "AP50", "AP75", "AR_100", "per_class"} <= set(records[-1])


def test_tensorboards_file_holds_curves_pictures_and_the_result(trained: tuple[Path, str]) -> None:
    from tests.training.test_tensorboard import curve, read  # here: without TensorBoard its reader is missing

    run = trained[0] / "runs" / "tiny-shapes"
    reader = read(run)
    tags = reader.Tags()
    assert set(tags["images"]) == {"predictions", "mistakes/errors", "mistakes/precision_recall", "mistakes/confusion"}
    assert {"2 loss/train total", "2 loss/val total", "loss_ce/train layer 1", "loss_bbox/train last layer",
            "loss_giou/val last layer", "class_error/val last layer", "cardinality_error/val last layer",
            "1 precision/AP", "1 precision/AP50", "1 precision/AP75", "3 step/learning rate backbone",
            "3 step/gradient norm before clipping", "3 step/images per second", "3 step/memory in GiB at most",
            "4 AP by class/ellipse", "5 health/box_spread", "result/best AP"} <= set(tags["scalars"])
    assert "configuration/text_summary" in tags["tensors"] and "_hparams_/session_start_info" in reader.summary_metadata
    last = json.loads((run / "log.jsonl").read_text().splitlines()[-1])
    assert curve(reader, "1 precision/AP50") == [(3, pytest.approx(last["AP50"]))]
    assert [step for step, _ in curve(reader, "2 loss/train total")] == [1, 2, 3]


def test_the_result_beside_the_settings_is_of_one_evaluation_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tests.training.test_tensorboard import curve, read

    judge, figures = detr_scratch.judge, iter([(0.5, 0.75, 0.25), (0.375, 0.875, 0.125)])
    monkeypatch.setattr(detr_scratch, "judge", lambda *given, **named: (
        judge(*given, **named) | dict(zip(("AP", "AP50", "AP75"), next(figures)))))
    monkeypatch.chdir(tmp_path)
    detr_scratch.main([*QUICK, "--limit-train", "4", "--epochs", "2", "--eval-every", "1"])
    reader = read(tmp_path / "runs" / "tiny-shapes")
    results = {name: curve(reader, f"result/{name}") for name in ("best AP", "AP50 at best AP", "AP75 at best AP")}
    assert results == {"best AP": [(2, 0.5)], "AP50 at best AP": [(2, 0.75)], "AP75 at best AP": [(2, 0.25)]}


def test_a_warning_is_said_after_its_evaluation_and_logged_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(detr_scratch, "diagnose", lambda health, ap50, progress: [
        f"{health['num_queries']} ill queries at {progress:.0%}"])
    monkeypatch.setattr(detr_scratch, "why_nothing_is_found", lambda *_: None)
    detr_scratch.main([*QUICK, "--max-steps", "1", "--num-queries", "11", "--clip-max-norm", "0.5"])
    lines = capsys.readouterr().out.splitlines()
    place = lines.index("warning: 11 ill queries at 100%")
    assert lines[place - 1].startswith("step 1, epoch 0")
    record = json.loads((tmp_path / "runs" / "tiny-shapes" / "log.jsonl").read_text().splitlines()[-1])
    assert record["warnings"] == ["11 ill queries at 100%"] and record["clip_max_norm"] == 0.5
    assert {"box_spread", "box_response", "matching_instability", "matched_queries",
            "matched_agreement"} <= set(record["health"])


def test_a_hint_is_said_once_and_again_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:
    asked = []

    def hint(truth: dict, results: list, ap50: float, trained: Trained, witness: bool) -> Hint:
        asked.append(trained)
        return Hint("a cause", "why nothing is found: the cause")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(detr_scratch, "why_nothing_is_found", hint)
    detr_scratch.main([*QUICK, "--limit-train", "4", "--epochs", "4", "--eval-every", "1"])
    lines = [line for line in capsys.readouterr().out.splitlines()
             if line.startswith("warning: why nothing") or re.match(r"step \d+, epoch", line)]
    assert [line.split(",")[0].split(":")[0] for line in lines] == [
        "step 1", "warning", "step 2", "step 3", "step 4", "warning"]
    assert [trained.shown for trained in asked] == [4, 8, 12, 16] and sum(asked[0].objects.values()) > 0
    assert load_checkpoint(tmp_path / "runs" / "tiny-shapes" / "last.pt")["course"]["said"] == ["a cause"]


def test_a_run_that_its_patience_ends_says_so_and_names_the_best_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:
    judge, figures = detr_scratch.judge, iter([0.5, 0.375, 0.25])
    monkeypatch.setattr(detr_scratch, "judge", lambda *given, **named: judge(*given, **named) | {"AP": next(figures)})
    monkeypatch.chdir(tmp_path)
    flags = [*QUICK, "--limit-train", "4", "--epochs", "9", "--eval-every", "1", "--patience", "2"]
    detr_scratch.main(flags)
    output = capsys.readouterr().out
    assert "for 9 epochs or 2 evaluations without a better AP, whichever comes first" in output
    assert ("ended by --patience 2: as many evaluations in a row had no better AP than 0.500, that of step 1 (best.pt)"
            "\n3 steps in ") in output
    detr_scratch.main(["train", "--resume", "--run-dir", "runs/tiny-shapes", "--device", "cpu"])
    output = capsys.readouterr().out
    assert "already at its end; a larger --patience (0: none) takes it further" in output


def test_a_second_training_run_gets_a_folder_of_its_own(trained: tuple[Path, str]) -> None:
    output = detr(trained[0], *QUICK, "--max-steps", "1")
    assert str(Path("runs") / "tiny-shapes-2") in output


def test_eval_prints_the_figures_that_training_ended_with(trained: tuple[Path, str]) -> None:
    folder, trained_output = trained
    output = detr(folder, "eval", "runs/tiny-shapes", "--device", "cpu", "--workers", "0")
    table = [line for line in trained_output.splitlines() if line.startswith(("AP ", "AR "))]
    assert len(table) == 2 and all(line in output for line in table)


def test_a_run_whose_pictures_still_grow_is_judged_and_used_at_their_size(tmp_path: Path) -> None:
    assert "at 48 of 64 pixels" in detr(tmp_path, *QUICK, "--grow", "1", "--run-dir", "r")
    assert load_checkpoint(tmp_path / "r" / "best.pt")["config"]["data"]["short_side"] == 48
    detr(tmp_path, "eval", "r", "--device", "cpu", "--workers", "0")
    assert "resuming r at step 3" in detr(tmp_path, "train", "--resume", "--run-dir", "r", "--epochs", "2")
    state = load_checkpoint(tmp_path / "r" / "last.pt")
    assert (state["step"], state["size"]["short_side"], state["config"]["data"]["short_side"]) == (6, 64, 48)


def test_predict_writes_a_picture_for_each_image_and_coco_results(trained: tuple[Path, str], tmp_path: Path) -> None:
    folder, _ = trained
    images = sorted((folder / "data").glob("shapes-*/val"))[0]
    (tmp_path / "broken.jpg").write_text("no picture")
    for path in sorted(images.iterdir())[:2]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    output = detr(folder, "predict", tmp_path, "--out", tmp_path / "out", "--checkpoint", "runs/tiny-shapes",
                  "--threshold", "0", "--device", "cpu")
    assert "broken.jpg" in output and "1 file could not be read" in output
    assert len(list((tmp_path / "out").glob("*.png"))) == 2
    results = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert len(results) == 2 * 100  # the best of 40 queries × 5 classes
    assert {"image_id", "category_id", "bbox", "score", "file_name", "category_name"} == set(results[0])


def test_predict_shows_from_the_score_on_that_was_best_when_the_checkpoint_was_evaluated(
    trained: tuple[Path, str], tmp_path: Path,
) -> None:
    folder, _ = trained
    run = folder / "runs" / "tiny-shapes"
    state, shapes = load_checkpoint(run / "best.pt"), next((folder / "data").glob("shapes-*"))
    truth = json.loads((shapes / "annotations" / "instances_val.json").read_text())
    found = json.loads((run / "best_detections.json").read_text())["results"]
    assert state["last_metrics"]["threshold"] == shown_from(truth, found)
    image = truth["images"][0]
    scores = sorted(result["score"] for result in found if result["image_id"] == image["id"])
    state["last_metrics"]["threshold"] = (scores[-7] + scores[-8]) / 2
    save_checkpoint(tmp_path / "best.pt", state)
    detr(folder, "predict", shapes / "val" / image["file_name"], "--out", tmp_path / "out", "--checkpoint", tmp_path,
         "--device", "cpu")
    assert len(json.loads((tmp_path / "out" / "predictions.json").read_text())) == 7


def test_explicit_paths_take_the_place_of_a_data_folder(trained: tuple[Path, str], tmp_path: Path) -> None:
    shapes = next((trained[0] / "data").glob("shapes-*"))
    paths: list[object] = []
    for split in ("train", "val"):
        annotations = shapes / "annotations" / f"instances_{split}.json"
        paths += [f"--{split}-images", shapes / split, f"--{split}-annotations", annotations]
    output = detr(tmp_path, "train", *QUICK, "--max-steps", "1", *paths)
    assert "12 training and 4 val images" in output
    assert not (tmp_path / "data").exists()  # no shapes were generated beside them
    alone = detr(tmp_path, "train", *QUICK, *paths[:4], code=1)
    assert "'val'" in alone


def test_info_counts_parameters_and_lists_the_primitives(capsys: pytest.CaptureFixture[str]) -> None:
    detr_scratch.main(["info", "--preset", "detr_r50"])
    output = capsys.readouterr().out
    assert "addmm" in output and "softmax" not in output.split(" tensor primitives")[1]
    assert int(output.split(" tensor primitives")[0].split()[-1]) < 100
    assert "backbone" in output and "parameters" in output


def test_check_data_lists_problems_and_fails_where_training_would_refuse(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        Image.new("L", (40, 30)).save(tmp_path / split / "grey.jpg")
        content = {"images": [{"id": 1, "file_name": "grey.jpg", "width": 40, "height": 30},
                              {"id": 2, "file_name": "missing.jpg", "width": 40, "height": 30}],
                   "annotations": [
                       {"id": 1, "image_id": 1, "category_id": 5, "bbox": [3, 4, 10, 0], "area": 0, "iscrowd": 0}],
                   "categories": [{"id": 5, "name": "thing"}]}
        (tmp_path / "annotations").mkdir(exist_ok=True)
        (tmp_path / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    output = detr(tmp_path, "check-data", tmp_path, code=1)
    assert "missing.jpg" in output and "zero-size box" in output and "greyscale" in output
    refused = detr(tmp_path, "train", "--preset", "tiny", "--device", "cpu", "--data", tmp_path, code=1)
    assert "missing.jpg" in refused and not (tmp_path / "runs").exists()


@pytest.mark.parametrize("argv, words", [
    (["bogus"], "there is no command 'bogus'"),
    (["--preset", "huge"], "there is no preset 'huge'"),
    (["eval", "nowhere"], "nowhere"),
    (["train", "--resume", "--run-dir", "nowhere"], "no checkpoint in nowhere"),
    (["predict", "nowhere.jpg"], "no run under runs/"),
    (["check-data", "nowhere"], "nowhere"),
    (["--device", "bogus"], "device 'bogus'"),
    (["predict", "nowhere.jpg", "--device", "cuda:99"], "device 'cuda:99'"),
    # As paths, empty words would be the current folder.
    (["train", "--run-dir", ""], "got an empty word for --run-dir, wanted a value: is a variable of the shell not set?"),
    (["--data=", "--max-steps", "1"], "got an empty word for --data"),
    (["predict", "a.jpg", "--out", ""], "got an empty word for --out"), (["eval", ""], "got an empty word on the"),
    # What cannot be built is refused before the shapes are drawn.
    (["--preset", "tiny", "--hidden-dim", "7"], "hidden_dim is 7 with 4 heads"),
    (["--preset", "tiny_vanilla", "--fine-memory"], "fine_memory is on with queries"),
    (["lr-range", "--preset", "tiny", "--hidden-dim", "7", "--out", "o"], "hidden_dim is 7 with 4 heads"),
])
def test_a_mistake_on_the_command_line_costs_one_clear_line(
    argv: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        detr_scratch.main(argv)
    assert str(stopped.value).startswith("error: ") and words in str(stopped.value)
    assert not list(tmp_path.iterdir())


def test_a_folder_instead_of_a_command_is_shown_how_to_train_on(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=re.escape(f"or none to train: python detr_scratch.py train --data {tmp_path}")):
        detr_scratch.main([str(tmp_path)])


@pytest.mark.parametrize("name, words, meant", [
    ("train", ["cells", "--turns"], ["--data", "cells", "--turns"]), ("finetune", ["cells"], ["--data", "cells"]),
    ("train", ["--data", "cells"], ["--data", "cells"]), ("train", [], []), ("eval", ["run"], ["run"]),
    *((name, words, ["cells", "--limit-train", "3"]) for name in ("check-data", "split", "convert-data") for words in
      (["--data", "cells", "--limit-train", "3"], ["--data=cells", "--limit-train", "3"], ["cells", "--limit-train", "3"],
       ["--limit-train", "3", "--data", "cells"], ["--limit-train", "3", "--data=cells"])),
    ("split", ["--data"], ["--data"]),
])
def test_a_data_set_is_a_commands_first_word_or_the_flag_data(name: str, words: list[str], meant: list[str]) -> None:
    assert with_folder(name, words) == meant


@pytest.mark.parametrize("flag, value", [
    ("--epochs", "0"), ("--max-steps", "0"), ("--max-steps", "-3"), ("--max-minutes", "0"), ("--accumulate", "0"),
    ("--max-minutes", "nan"), ("--eval-every", "0"), ("--checkpoint-every", "0"), ("--batch-size", "0"),
    ("--limit-train", "-1"), ("--short-side", "0"), ("--workers", "-1"), ("--lr", "nan"),
])
def test_a_number_that_no_run_can_mean_is_refused_before_anything_is_built(
    flag: str, value: str, capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        detr_scratch.parse_train(["--preset", "tiny", flag, value])
    printed = "".join(capsys.readouterr())
    assert f"got {flag[2:].replace('-', '_')} = {value}" in printed and "wanted" in printed


def test_predict_keeps_apart_images_that_differ_in_their_ending_and_leaves_the_originals_alone(
    trained: tuple[Path, str], tmp_path: Path,
) -> None:
    for name in ("a.jpg", "a.png", "b.png"):
        Image.new("RGB", (40, 30), "teal").save(tmp_path / name)
    flags = ["--checkpoint", "runs/tiny-shapes", "--device", "cpu"]
    detr(trained[0], "predict", tmp_path, "--out", tmp_path / "out", *flags)
    assert sorted(p.name for p in (tmp_path / "out").glob("*.png")) == ["a.jpg.png", "a.png.png", "b.png"]
    before = (tmp_path / "b.png").read_bytes()
    assert "name another" in detr(trained[0], "predict", tmp_path, "--out", tmp_path, *flags, code=1)
    assert (tmp_path / "b.png").read_bytes() == before


def test_predict_fails_where_nothing_can_be_read(trained: tuple[Path, str], tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_text("no picture")
    output = detr(trained[0], "predict", tmp_path, "--out", tmp_path / "out", "--checkpoint", "runs/tiny-shapes",
                  "--device", "cpu", code=1)
    assert "nothing in" in output


def test_a_preset_does_not_change_a_run_that_goes_on(trained: tuple[Path, str]) -> None:
    output = detr(trained[0], "train", "--resume", "--run-dir", "runs/tiny-shapes", "--preset", "detr_r50", code=1)
    assert "begun with the preset tiny" in output


def test_resuming_a_finished_run_says_so_and_what_would_take_it_further(trained: tuple[Path, str]) -> None:
    output = detr(trained[0], "train", "--resume", "--run-dir", "runs/tiny-shapes")
    assert "already at its end" in output and "Look next at" in output


def test_eval_looks_at_its_images_first_and_refuses_in_one_line(trained: tuple[Path, str], tmp_path: Path) -> None:
    shapes = next((trained[0] / "data").glob("shapes-*"))
    shutil.copytree(shapes, tmp_path / "set")
    next((tmp_path / "set" / "val").iterdir()).unlink()
    output = detr(trained[0], "eval", "runs/tiny-shapes", "--device", "cpu", "--data", tmp_path / "set", code=1)
    assert "missing image" in output


def test_the_help_of_eval_has_the_defaults_of_the_run(trained: tuple[Path, str]) -> None:
    assert "(default: 64)" in detr(trained[0], "eval", "runs/tiny-shapes", "--help")


def test_a_workers_traceback_becomes_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise ValueError("Caught ValueError in DataLoader worker process 0.\n"
                         "Original Traceback (most recent call last):\n  File …\n"
                         "OSError: bad\n\nDuring handling …\nValueError: a.png cannot be read\nas an image")
    monkeypatch.setitem(detr_scratch.COMMANDS, "info", (lambda argv: None, fail))
    with pytest.raises(SystemExit) as stopped:
        detr_scratch.main(["info"])
    assert str(stopped.value) == "error: a.png cannot be read\nas an image"


@pytest.mark.parametrize("error, said", [
    (MemoryError(), "error: out of memory. Halve --batch-size"),
    (RuntimeError("[enforce fail at alloc_cpu.cpp:1] . DefaultCPUAllocator: can't allocate memory: you tried to"),
     "can't allocate memory: you tried to. Halve --batch-size"),
    (OSError(28, "No space left on device"), "No space left on device, and the system did not say of which file"),
    (OSError(28, "No space left on device", "a.json"), "No space left on device: 'a.json'"),
])
def test_what_a_machine_does_not_have_is_one_line(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_: object) -> None:
        raise error
    monkeypatch.setitem(detr_scratch.COMMANDS, "info", (lambda argv: None, fail))
    with pytest.raises(SystemExit) as stopped:
        detr_scratch.main(["info"])
    assert said in str(stopped.value) and "\n" not in str(stopped.value)


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    detr_scratch.main(["--help"])
    output = capsys.readouterr().out
    assert all(name in output for name in detr_scratch.COMMANDS if name != "train")


@pytest.mark.parametrize("command", ["eval", "predict", "explain", "export"])
def test_the_help_says_that_published_weights_are_a_detector_too(
    command: str, capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        detr_scratch.main([command, "--help"])
    assert "published weights (detr_r50 …" in re.sub(r"[\s│]+", " ", capsys.readouterr().out)


@pytest.mark.parametrize("flag, room, name", [
    ("--epochs", "train", "epochs"), ("--max-steps", "train", "max_steps"),
    ("--batch-size", "train", "batch_size"), ("--seed", "train", "seed"),
    ("--num-queries", "model", "num_queries"), ("--short-side", "data", "short_side"),
])
def test_flags_change_the_preset(
    flag: str, room: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = detr_scratch.parse_train(["--preset", "tiny", flag, "17"])
    assert getattr(getattr(arguments.config, room), name) == 17
    assert arguments.config.model.backbone == PRESETS["tiny"].model.backbone
