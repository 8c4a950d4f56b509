"""TensorBoard's file holds what the log holds, as its own reader reads it."""

from __future__ import annotations

import builtins
import re
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from scratch.config import PRESETS
from scratch.printable import printable
from scratch.training.log import RunLog
from scratch.training.loop import train_step
from scratch.training.tensorboard import _LOSSES, _NAMES, TensorBoard, compared, tag
from tests.hostile import NAMES
from tests.training.test_loop import make_run, random_batch, small_config

event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
event_file_writer = pytest.importorskip("tensorboard.summary.writer.event_file_writer")

STEP = {"epoch": 0, "minutes": 0.5, "loss": 20.0, "loss_queries": 15.0, "loss_ce": 1.5, "loss_bbox": 0.5,
        "loss_giou": 0.75, "loss_ce_0": 2.5, "grad_norm": 3.5, "lr_backbone": 0.25, "images_per_second": 8.0,
        "memory_gib": 0.5}
EVALUATION = {"split": "val", "AP": 0.25, "AP50": 0.5, "losses": {"loss": 7.0, "class_error": 12.5},
              "per_class": {"cat": {"AP": 0.375, "AP50": 0.5}, "dog": {"AP": None, "AP50": None}},
              "health": {"num_queries": 5, "box_spread": 0.625, "matched_queries": [0.25, 0.75],
                         "matching_instability": None}, "warnings": [], "images_per_second": 3.0}


def read(folder: Path) -> Any:
    all_of_them = dict.fromkeys(("images", "scalars", "histograms"), 0)
    reader = event_accumulator.EventAccumulator(str(folder), size_guidance=all_of_them)
    return reader.Reload()


def curve(reader: Any, name: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in reader.Scalars(name)]


def test_a_step_and_an_evaluation_become_curves(tmp_path: Path) -> None:
    log = RunLog(tmp_path, tensorboard=True)
    for step in (1, 2):
        log.step({**STEP, "step": step, "loss": 20.0 / step}, 0.1)
    log.evaluation({**EVALUATION, "step": 2})
    log.close()
    reader = read(tmp_path)
    assert curve(reader, "2 loss/train total") == [(1, 20.0), (2, 10.0)]
    for name, value in {"loss_ce/train layer 1": 2.5, "loss_ce/train last layer": 1.5,
                        "3 step/learning rate backbone": 0.25, "3 step/gradient norm before clipping": 3.5,
                        "3 step/images per second": 8.0, "2 loss/val total": 7.0,
                        "1 precision/AP50": 0.5, "class_error/val last layer": 12.5, "4 AP by class/cat": 0.375,
                        "5 health/box_spread": 0.625, "5 health/matched_queries layer 2": 0.75}.items():
        assert curve(reader, name)[-1] == (2, value), name
    assert not {"4 AP by class/dog", "5 health/matching_instability"} & set(reader.Tags()["scalars"])


def test_a_resumed_run_takes_back_what_its_checkpoint_does_not_know(tmp_path: Path,
                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    # The files' last numbers become 9 and 10: in one and the same second the second file's name would be read first.
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(9))
    for first, steps in ((0, (1, 2, 3)), (2, (3, 4))):
        log = RunLog(tmp_path, first, tensorboard=True)
        for step in steps:
            log.step({**STEP, "step": step, "loss": 10.0 * first + step}, 0.1)
        log.close()
    assert curve(read(tmp_path), "2 loss/train total") == [(1, 1.0), (2, 2.0), (3, 23.0), (4, 24.0)]


def test_pictures_warnings_and_the_configuration_are_there(tmp_path: Path) -> None:
    Image.fromarray(np.arange(7 * 11 * 3, dtype=np.uint8).reshape(7, 11, 3)).save(tmp_path / "sheet.png")
    log = RunLog(tmp_path, tensorboard=True)
    log.board.config(PRESETS["tiny"])
    log.board.picture("predictions", tmp_path / "sheet.png", 5)
    log.warning({"step": 3, "epoch": 0, "minutes": 0.1}, "loss spike", "the loss is high")
    log.close()
    reader = read(tmp_path)
    (image,) = reader.Images("predictions")
    assert (image.step, image.width, image.height) == (5, 11, 7)
    text = {name: reader.Tensors(name)[0].tensor_proto.string_val[0].decode() for name in reader.Tags()["tensors"]}
    assert "| model.queries | proposal |" in text["configuration/text_summary"]
    assert text["warning/loss spike/text_summary"] == "the loss is high"


def test_the_result_stands_beside_the_settings_that_runs_are_compared_by(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path, 0, on=True)
    board.result(PRESETS["tiny"], {"best AP": 0.5}, 7)
    board.close()
    reader = read(tmp_path)
    assert curve(reader, "result/best AP") == [(7, 0.5)]
    assert {"_hparams_/experiment", "_hparams_/session_start_info"} <= set(reader.summary_metadata)


def test_runs_are_compared_by_what_differs_from_their_preset() -> None:
    config = small_config(ema_decay=0.5)
    chosen = compared(config)
    assert chosen["ema_decay"] == 0.5 and chosen["hidden_dim"] == 16 and chosen["preset"] == "tiny_vanilla"
    assert chosen["max_minutes"] == "None" and "seed" not in chosen and "lr" in chosen


def test_histograms_are_written_in_every_nth_step(tmp_path: Path) -> None:
    run = make_run(small_config(), tmp_path)
    board = TensorBoard(tmp_path, 0, on=True)
    board.watch(run, 2)
    for _ in range(4):
        train_step(run, [random_batch(2)])
        run.advance(1)
    board.close()
    reader = read(tmp_path)
    for kind in ("weights", "gradients"):
        assert [event.step for event in reader.Histograms(f"{kind}/class_embed.weight")] == [2, 4]
    assert len(reader.Tags()["histograms"]) == 2 * len(list(run.unwrapped.parameters()))


def test_switched_off_nothing_is_written(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    log.step({**STEP, "step": 1}, 0.1)
    log.board.picture("predictions", tmp_path / "missing.png", 1)
    log.board.result(PRESETS["tiny"], {"best AP": 0.5}, 1)
    log.close()
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]


def test_without_the_package_a_run_goes_on_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **named: Any) -> Any:
        if name.startswith("torch.utils.tensorboard"):
            raise ImportError(name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    log = RunLog(tmp_path, tensorboard=True)
    log.step({**STEP, "step": 1}, 0.1)
    log.close()
    assert "pip install tensorboard" in capsys.readouterr().out and (tmp_path / "log.jsonl").exists()


@pytest.mark.parametrize("name, curve", [
    ("loss", "2 loss/val total"), ("cell_loss_ce", "cell_loss_ce/val last layer"), ("lr_x", "3 step/learning rate x"),
    ("dn_loss_bbox_1", "dn_loss_bbox/val layer 2"), ("many_loss_ce_0", "many_loss_ce/val layer 1"),
    ("AR_10", "1 precision/AR_10"), ("step", None), ("epoch", None),
    ("cardinality_error", "cardinality_error/val last layer"), ("loss_scale", "3 step/loss scale"), ("warnings", None),
])
def test_a_name_of_the_log_becomes_a_curves_name(name: str, curve: str) -> None:
    assert tag(name, "val") == curve


def test_the_names_of_curves_are_allowed_by_mlflow_too() -> None:
    names = [*_NAMES, *_LOSSES, "lr_backbone", "dn_loss_giou_0", "cardinality_error", "class_error", "AP50"]
    assert all(re.fullmatch(r"[\w.\- /]+", tag(name, "train") or "") for name in names)


def test_a_number_that_is_missing_or_no_number_is_no_point_of_a_curve(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path, 0, on=True)
    board.step({"step": 1, "loss": None, "grad_norm": 2.0, "lr_a": torch.ones(1)})
    board.close()
    assert read(tmp_path).Tags()["scalars"] == ["3 step/gradient norm before clipping"]


def test_a_full_disk_is_told_with_the_folder_and_without_the_threads_traceback(
    tmp_path: Path, capfd: pytest.CaptureFixture[str],
) -> None:
    before = threading.excepthook
    board = TensorBoard(tmp_path, 0, on=True)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    thread = board.writer._writer.file_writer.event_writer._async_writer._worker
    thread._record_writer = SimpleNamespace(write=full, flush=full)
    with pytest.raises(OSError, match=f"file in {tmp_path} could not be written: No space left on device"):
        for step in range(2000):
            board.step({**STEP, "step": step})
            board.writer.flush()
    board.close()
    assert "Traceback" not in capfd.readouterr().err and threading.excepthook == before


def test_classes_and_paths_of_any_name_are_written(tmp_path: Path) -> None:
    log = RunLog(tmp_path, tensorboard=True)
    log.evaluation({**EVALUATION, "step": 3, "per_class": {name: {"AP": 0.5, "AP50": 0.5} for name in NAMES}})
    config = replace(PRESETS["tiny"], data=replace(PRESETS["tiny"].data, data="a|b\n\udcff<i>"))
    log.board.config(config)
    log.board.result(config, {"best AP": 0.5}, 3)
    log.warning({"step": 3, "epoch": 0, "minutes": 0.1}, "loss \ud83d", "\x1b[2J\nand \ud83d")
    log.close()
    reader = read(tmp_path)
    assert {f"4 AP by class/{printable(name)}" for name in NAMES} <= set(reader.Tags()["scalars"])
    text = {name: reader.Tensors(name)[0].tensor_proto.string_val[0].decode() for name in reader.Tags()["tensors"]}
    assert r"| data.data | a\|b\\n\\udcff\<i\> |" in text["configuration/text_summary"]
    assert text[r"warning/loss \ud83d/text_summary"] == "\\x1b[2J\nand \\ud83d"


def test_a_folder_whose_name_is_no_utf8_is_trained_in_without_tensorboard(
        tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = tmp_path / "a\udcffb"  # on Linux, the byte 0xff
    try:
        folder.mkdir()
    except (OSError, UnicodeEncodeError):
        pytest.skip("this file system wants names that are UTF-8")
    board = TensorBoard(folder, 0, on=True)
    board.step({**STEP, "step": 1})
    assert board.writer is None and not list(folder.iterdir())
    assert "is no UTF-8, and TensorBoard cannot write there" in capsys.readouterr().out
