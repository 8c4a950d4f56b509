"""A run that was killed, and resumed, is the run that was never killed: bit for bit, on the CPU."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from scratch.training.checkpoint import load_checkpoint
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.slow

# Small enough for seconds; dropout, augmentation, workers, accumulation, the running average, batch norm, noised boxes,
# groups and Muon are all on.
FLAGS = ["--preset", "tiny", "--device", "cpu", "--shapes-train", "22", "--shapes-val", "3", "--short-side", "64",
         "--max-size", "96", "--batch-size", "2", "--accumulate", "2", "--max-minutes", "None", "--epochs", "3",
         "--max-steps", "14", "--hidden-dim", "32", "--dim-feedforward", "48", "--dropout", "0.1", "--workers", "1",
         "--ema-decay", "0.9", "--checkpoint-every", "2", "--eval-every", "1", "--augment", "paper", "--no-square",
         "--mosaic", "0.3", "--mixup", "0.3", "--denoising", "2", "--groups", "2"]
LAST_STEP = 14


def start(folder: Path, *more: str, own_group: bool = False) -> subprocess.Popen:
    command = [sys.executable, str(REPOSITORY / "detr_scratch.py"), "train", "--run-dir", str(folder / "run"), *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            text=True,
                            start_new_session=own_group)


def steps_of(folder: Path) -> list[dict]:
    log = folder / "run" / "log.jsonl"
    lines = log.read_text().splitlines() if log.exists() else []
    records = []
    for line in lines:
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:  # the line that is being written right now
            pass
    return records


def wait_for_step(process: subprocess.Popen, folder: Path, step: int) -> None:
    deadline = time.time() + 240
    while max((r["step"] for r in steps_of(folder)), default=0) < step:
        assert time.time() < deadline and process.poll() is None, process.stdout.read()
        time.sleep(0.01)


def finish(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    return output


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    finish(start(folder, *FLAGS))
    return folder


def assert_same_run(folder: Path, other: Path) -> None:
    ours, theirs = (load_checkpoint(f / "run" / "last.pt") for f in (folder, other))
    for part in ("model", "ema"):
        a, b = (state[part]["shadow"] if part == "ema" else state[part] for state in (ours, theirs))
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a), part
    assert ours["step"] == theirs["step"] == LAST_STEP
    assert ours["course"] == theirs["course"] and len(ours["course"]["points"]) > 1
    watched = ("step", "loss", "loss_ce", "loss_bbox", "loss_giou", "grad_norm", "lr_backbone")
    losses = [[[r[k] for k in watched] for r in steps_of(f) if r["kind"] == "step"] for f in (folder, other)]
    assert losses[0] == losses[1]
    timed = ("minutes", "images_per_second")
    evaluations = [[{k: v for k, v in r.items() if k not in timed} for r in steps_of(f) if r["kind"] == "evaluation"]
                   for f in (folder, other)]
    assert evaluations[0] == evaluations[1]
    compared = [r["health"]["matching_instability"] is not None for r in evaluations[0]]  # each with the one before it
    assert compared == [False, *[True] * (len(compared) - 1)] and len(compared) > 1


def test_a_run_killed_at_random_and_resumed_equals_the_uninterrupted_one(uninterrupted: Path, tmp_path: Path) -> None:
    first, second = sorted(random.Random(os.getpid()).sample(range(2, LAST_STEP - 1), 2))
    process = start(tmp_path, *FLAGS)
    wait_for_step(process, tmp_path, first)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    process = start(tmp_path, "--resume") if (tmp_path / "run" / "last.pt").exists() else start(tmp_path, *FLAGS)
    wait_for_step(process, tmp_path, second)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    finish(start(tmp_path, "--resume"))
    assert_same_run(tmp_path, uninterrupted)


def test_a_run_left_by_ctrl_c_and_resumed_equals_the_uninterrupted_one(uninterrupted: Path, tmp_path: Path) -> None:
    process = start(tmp_path, *FLAGS)
    wait_for_step(process, tmp_path, 3)
    process.send_signal(signal.SIGINT)
    output = finish(process)
    assert "everything saved" in output and "--resume" in output
    stopped_at = load_checkpoint(tmp_path / "run" / "last.pt")["step"]
    assert 3 <= stopped_at < LAST_STEP
    finish(start(tmp_path, "--resume"))
    assert_same_run(tmp_path, uninterrupted)


def test_a_termination_of_the_whole_process_group_leaves_the_workers_alive_until_all_is_saved(tmp_path: Path) -> None:
    process = start(tmp_path, *FLAGS, own_group=True)  # as `timeout` and cluster managers end a job
    wait_for_step(process, tmp_path, 3)
    os.killpg(process.pid, signal.SIGTERM)
    assert "everything saved" in finish(process)


def test_a_damaged_last_checkpoint_is_named_and_the_one_before_is_used(uninterrupted: Path, tmp_path: Path) -> None:
    process = start(tmp_path, *FLAGS)
    wait_for_step(process, tmp_path, 6)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    last = tmp_path / "run" / "last.pt"
    last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    output = finish(start(tmp_path, "--resume"))
    assert "last.pt" in output and "previous.pt" in output
    assert_same_run(tmp_path, uninterrupted)


def test_training_into_a_folder_that_holds_a_run_is_refused(uninterrupted: Path) -> None:
    process = start(uninterrupted, *FLAGS)
    output, _ = process.communicate(timeout=240)
    assert process.returncode != 0 and "already holds a run" in output and "Traceback" not in output
