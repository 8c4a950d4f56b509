"""The log: strict JSON, no step twice after a resume, a bar for a terminal and lines for a file."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest

from scratch.training import log as log_module
from scratch.training.log import RunLog

RECORD = {"epoch": 9, "loss": 30.5, "loss_queries": 23.456, "loss_ce": 1.7, "loss_bbox": 0.8, "loss_giou": 1.05,
          "images_per_second": 59.1234, "memory_gib": 0.4}


def records(folder: Path) -> list[dict[str, Any]]:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")
    return [json.loads(line, parse_constant=refuse) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_number_that_is_not_finite_is_written_as_null(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    log.step({**RECORD, "step": 1, "grad_norm": math.inf}, 0.1)
    log.evaluation({"step": 1, "per_class": {"cat": {"AP": math.nan}}})
    log.close()
    step, evaluation = records(tmp_path)
    assert step["grad_norm"] is None and step["loss"] == 30.5 and evaluation["per_class"]["cat"]["AP"] is None


def test_a_resumed_run_forgets_what_its_checkpoint_does_not_know(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    for step in (1, 2, 3):
        log.step({**RECORD, "step": step}, step / 10)
        log.evaluation({"step": step})
    log.close()
    with open(log.path, "a", encoding="utf-8") as file:
        file.write('{"kind": "step", "st')  # what a killed run was writing
    RunLog(tmp_path, step=2).close()
    expected = [("step", 1), ("evaluation", 1), ("step", 2), ("evaluation", 2)]
    assert [(r["kind"], r["step"]) for r in records(tmp_path)] == expected
    RunLog(tmp_path, step=2, evaluation_due=True).close()  # saved before its evaluation, which will come again
    assert [(r["kind"], r["step"]) for r in records(tmp_path)] == [("step", 1), ("evaluation", 1), ("step", 2)]


def test_without_a_terminal_a_line_is_printed_now_and_then(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter([0.0, *(float(second) for second in range(1, 200))])
    monkeypatch.setattr(log_module.time, "monotonic", lambda: next(clock))
    log = RunLog(tmp_path)
    for step in range(1, 51):
        log.step({**RECORD, "step": step}, step / 50)
    log.close()
    output, errors = capsys.readouterr()
    lines = output.splitlines()
    assert 1 <= len(lines) <= 3 and errors == "" and all(line.rstrip().endswith("GiB") for line in lines)


def test_a_printed_line_says_how_much_time_is_left_where_it_is_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(log_module, "_SECONDS_BETWEEN_LINES", 0)
    log = RunLog(tmp_path)
    log.step({**RECORD, "step": 1}, 0.1)
    log.step({**RECORD, "step": 2}, 0.2, "about 7 minutes left")
    log.close()
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(" 10% step 1 ") and second.startswith(" 20% about 7 minutes left: step 2 ")


def test_the_bar_fits_eighty_columns_and_a_resumed_run_owes_its_speed_to_its_own_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    log = RunLog(tmp_path, step=1000)
    log.step({**RECORD, "step": 1001}, 0.9)
    assert log.bar.initial == log.bar.n == 0.9
    log.bar.ncols, log.bar.dynamic_ncols = 80, None
    line = str(log.bar)
    log.close()
    parts = ("loss 23.5", "ce 1.70", "L1 0.80", "giou 1.05", "59.1 img/s", "0.4 GiB")
    assert len(line) <= 80 and all(part in line for part in parts)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full is needed")
def test_a_full_disk_is_told_with_the_files_name_once_and_closing_hides_nothing(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    log.file.close()
    log.file = open("/dev/full", "ab", buffering=0)
    with pytest.raises(OSError, match="log.jsonl could not be written: No space left on device"):
        log.step({**RECORD, "step": 1}, 0.1)
    log.close()


def test_a_line_of_which_a_nearly_full_disk_takes_a_part_is_completed(tmp_path: Path) -> None:
    class Short:
        written = b""

        def write(self, data: bytes) -> int:
            self.written += data[:7]
            return len(data[:7])

        def close(self) -> None:
            pass

    log = RunLog(tmp_path)
    log.file.close()
    log.file = Short()
    log.evaluation({"step": 1})
    log.close()
    assert json.loads(Short.written + log.file.written) == {"kind": "evaluation", "step": 1}


def test_a_terminal_that_takes_nothing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    log = RunLog(tmp_path)
    monkeypatch.setattr("builtins.print", broken)
    with pytest.raises(OSError, match="standard output could not be written: Broken pipe"):
        log.say("hello")
    log.close()
