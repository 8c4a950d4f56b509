"""train_arguments: one folder, one run; and what torchrun begins again goes on."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import commands.train_arguments
from commands.train_arguments import LAUNCHER, TrainArguments, claimed, launcher, new_run, parse_train
from scratch.config import PRESETS
from scratch.only_one import NAME, only_one
from scratch.training.checkpoint import LAST, load_checkpoint, save_checkpoint
from scratch.training.distributed import Distributed, lost_rank

ALONE = Distributed(0, 1, torch.device("cpu"))
FLAGS = ["--preset", "tiny", "--device", "cpu"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place to work in, without a launcher."""
    for name in [name for name in os.environ if name.startswith("TORCHELASTIC") or name in ("RANK", "WORLD_SIZE")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    # What a whole checkpoint must hold is tested elsewhere (training/test_content): here it is a configuration.
    monkeypatch.setattr(commands.train_arguments, "read_state", lambda path, training: load_checkpoint(path))
    return tmp_path


def arguments(run_dir: str | None = None, **more: Any) -> TrainArguments:
    return TrainArguments(PRESETS["tiny"], Path(run_dir) if run_dir else None, **more)


def save(run_dir: Path, **train: Any) -> None:
    config = replace(PRESETS["tiny"], train=replace(PRESETS["tiny"].train, **train))
    run_dir.mkdir(parents=True, exist_ok=True)
    save_checkpoint(run_dir / LAST, {"config": config.to_dict()})


# -- two at once ---------------------------------------------------------------------------------------------------


def test_two_runs_without_a_name_get_two_names_however_soon_after_each_other() -> None:
    assert [new_run("tiny", "data/shapes") for _ in range(3)] == [
        Path("runs/tiny-shapes"), Path("runs/tiny-shapes-2"), Path("runs/tiny-shapes-3")]


def test_a_second_training_in_a_folder_is_refused_with_the_first_ones_name() -> None:
    with claimed(arguments("same"), ALONE):
        with pytest.raises(OSError, match=f"same is in use by pid {os.getpid()} on .*another --run-dir"):
            with claimed(arguments("same", resume=True), ALONE):
                pass


def test_a_run_that_ended_while_the_second_one_began_is_not_begun_over() -> None:
    given = arguments("same")
    save(Path("same"))  # after the words were read
    with pytest.raises(OSError, match="same already holds a run"):
        with claimed(given, ALONE):
            pass


def test_a_new_folder_of_which_nothing_came_is_gone_and_one_that_was_there_stays() -> None:
    Path("there").mkdir()
    for run_dir in (None, "named", "there"):
        with pytest.raises(ValueError), claimed(arguments(run_dir), ALONE) as path:
            assert path.is_dir()
            raise ValueError("the data cannot be trained on")
        assert path.exists() == (run_dir == "there") and not Path("runs").exists()
    with claimed(arguments(), ALONE) as path:
        (path / "log.jsonl").touch()
    assert path.exists()


def test_one_rank_claims_the_folder_for_all(folder: Path) -> None:
    def gather(items: list) -> list:
        return items or [folder / "chosen by rank 0"]

    other = SimpleNamespace(is_main=False, gather=gather)
    with claimed(arguments(), other) as path:
        assert path == folder / "chosen by rank 0" and not list(folder.iterdir())


def test_a_refusal_reaches_every_rank(folder: Path) -> None:
    other = SimpleNamespace(is_main=False, gather=lambda items: [OSError("same is in use by pid 7")])
    with pytest.raises(OSError, match="pid 7"), claimed(arguments(), other):
        pass


def test_the_lock_is_no_run() -> None:
    Path("same").mkdir()
    with only_one(Path("same")):
        pass
    assert parse_train([*FLAGS, "--run-dir", "same"]).run_dir == Path("same") and (Path("same") / NAME).exists()


# -- torchrun --max-restarts ---------------------------------------------------------------------------------------


def torchrun(monkeypatch: pytest.MonkeyPatch, restarts: int, run_id: str = "abc") -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": run_id, "TORCHELASTIC_MAX_RESTARTS": 3,
                        "TORCHELASTIC_RESTART_COUNT": restarts, "LOCAL_WORLD_SIZE": 2, "WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))


@pytest.mark.parametrize("named", [["--run-dir", "r"], []])
def test_a_restart_goes_on_from_the_checkpoint_of_the_first_try(
    monkeypatch: pytest.MonkeyPatch, named: list[str],
) -> None:
    torchrun(monkeypatch, 0)
    with claimed(parse_train([*FLAGS, *named, "--epochs", "7"]), ALONE) as run_dir:
        save(run_dir, epochs=7)
    torchrun(monkeypatch, 1)
    again = parse_train([*FLAGS, *named, "--epochs", "7"])
    assert (again.resume, again.run_dir, again.config.train.epochs) == (True, run_dir, 7)
    with claimed(again, ALONE) as path:
        assert path == run_dir


def test_a_restart_before_the_first_checkpoint_begins_again_in_the_same_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    torchrun(monkeypatch, 0)
    with claimed(parse_train(FLAGS), ALONE) as run_dir:
        (run_dir / "log.jsonl").touch()
    torchrun(monkeypatch, 1)
    again = parse_train(FLAGS)
    assert not again.resume and again.run_dir == run_dir


def test_a_restart_does_not_go_on_with_what_another_command_has_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    torchrun(monkeypatch, 0, "earlier")
    with claimed(parse_train([*FLAGS, "--run-dir", "r"]), ALONE) as run_dir:
        save(run_dir)
    for restarts in (0, 1):
        torchrun(monkeypatch, restarts, "now")
        with pytest.raises(FileExistsError, match="r already holds a run: add --resume"):
            parse_train([*FLAGS, "--run-dir", "r"])


def test_resume_from_the_start_begins_where_there_is_no_checkpoint_yet_and_a_launcher_restarts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = [*FLAGS, "--resume", "--run-dir", "r"]
    with pytest.raises(FileNotFoundError, match="no checkpoint in r"):
        parse_train(words)
    torchrun(monkeypatch, 0)
    assert not parse_train(words).resume
    save(Path("r"), epochs=5)
    torchrun(monkeypatch, 2)
    again = parse_train(words)
    assert again.resume and again.config.train.epochs == 5


def test_fine_tuning_that_is_begun_again_leaves_its_weights_out(monkeypatch: pytest.MonkeyPatch) -> None:
    torchrun(monkeypatch, 1)
    save(Path("r"))
    (Path("r") / LAUNCHER).write_text(launcher())
    again = parse_train([*FLAGS, "--weights", "resnet50", "--run-dir", "r"])
    assert again.resume and again.weights is None


# -- a rank that is gone -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [
    "[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:3",
    "NCCL error: remote process exited or there was a network error", "Timed out waiting 600000ms for recv operation"])
def test_what_a_collective_operation_says_of_a_lost_rank_becomes_a_line(
    text: str, monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert lost_rank(RuntimeError(text)) == ""  # alone, it is an error like any other
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "2")
    said = lost_rank(RuntimeError(f"{text}\nException raised from …"))
    assert said.startswith("process 2 of 4 has lost another one") and text in said and "\n" not in said
    assert lost_rank(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) == ""
