"""The capstone: the detector on a reader's operations, replaced wherever they are used, has the losses of the notes."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import detr_scratch
from commands.command_line import run_command
from commands.opening import make_criterion
from commands.train_arguments import TrainArguments
from exercises.reader import load, remember
from exercises.registry import EXERCISES, NAMES, Exercise, find
from exercises.replace import operations_in, own_operations, replaced, whose
from exercises.stub import solution_of, stub_of
from scratch.config import PRESETS
from scratch.model.build import build_detr
from scratch.ops.fast.switch import plain, plain_mode
from scratch.training.checkpoint import LAST, load_checkpoint
from scratch.training.optimizer import AdamW, parameter_groups
from tests.test_plain import SMALL, batch

each = pytest.mark.parametrize("exercise", EXERCISES, ids=NAMES)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A reader's folder with every operation in it, each as the note's own solution."""
    for exercise in EXERCISES:
        (tmp_path / f"{exercise.name}.py").write_text(solution_of(exercise), encoding="utf-8")
    return tmp_path


def losses_of_three_steps() -> list[Tensor]:
    """The published detector, small, learns from one batch, with the project's own names as they are now."""
    config = replace(PRESETS["tiny_vanilla"], model=SMALL)
    torch.manual_seed(3)
    model, criterion = build_detr(SMALL), make_criterion(config)
    optimizer = AdamW(parameter_groups(model, config.train))
    images, pad_mask, targets = batch()
    found = []
    for _ in range(3):
        optimizer.zero_grad()
        losses = criterion(model(images, pad_mask), targets)
        criterion.total(losses).backward()
        optimizer.step()
        found += list(losses.values())
    return [loss.detach() for loss in found]


def test_with_all_solutions_as_the_readers_it_learns_with_the_losses_of_plain_mode(folder: Path, capsys) -> None:
    with plain_mode():
        expected = losses_of_three_steps()
        with own_operations(str(folder)):
            ours = losses_of_three_steps()
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    assert f"your operations, from {folder}: {', '.join(NAMES)}" in capsys.readouterr().out


@pytest.mark.parametrize("exercise", [exercise for exercise in EXERCISES if exercise.name != "focal_loss"],
                         ids=lambda exercise: exercise.name)
def test_a_training_step_calls_the_readers_operation(exercise: Exercise) -> None:
    class Called(Exception):
        pass

    def call(*_, **__):
        raise Called

    operation = call
    if exercise.methods:
        operation = type(exercise.target, (exercise.note_itself(),), {exercise.methods[0]: call})
    with plain_mode(), replaced(exercise, operation), pytest.raises(Called):
        losses_of_three_steps()


@each
def test_every_module_that_has_the_note_gets_the_readers_and_the_note_comes_back(exercise: Exercise) -> None:
    original = exercise.note_itself()
    operation = load(exercise, solution_of(exercise))

    def places() -> list:
        return [(module, name) for module, content in sys.modules.items() if module.startswith(("scratch", "commands"))
                for name, value in vars(content).items() if value is original]

    before = places()
    assert before
    with replaced(exercise, operation):
        assert places() == [] and exercise.note_itself() is operation
        assert all(getattr(sys.modules[module], name) is operation for module, name in before)
        assert exercise.grading.__name__ in sys.modules
    assert places() == before


def test_the_note_comes_back_after_an_error() -> None:
    exercise = find("linear")
    original = exercise.note_itself()
    with pytest.raises(KeyError), replaced(exercise, print):
        raise KeyError
    assert exercise.note_itself() is original


def test_it_says_which_are_the_readers_which_the_notes_and_which_nobody_has_checked(tmp_path: Path) -> None:
    for name in ("linear", "softmax"):
        (tmp_path / f"{name}.py").write_text(solution_of(find(name)), encoding="utf-8")
    remember(find("linear"), tmp_path, solution_of(find("linear")), "passed")
    first, second, third, fourth = whose(operations_in(tmp_path), tmp_path).splitlines()
    assert first == f"your operations, from {tmp_path}: linear, softmax"
    assert second.startswith("from the notes, in plain mode: attention, multi_head_attention")
    assert third == f"not checked as they are: softmax (python -m exercises check softmax --folder {tmp_path})"
    assert fourth.endswith("the same command with --plain, without --ops")


def test_an_error_in_the_readers_operation_ends_in_one_line_with_its_place_and_the_check(tmp_path: Path) -> None:
    (tmp_path / "linear.py").write_text("def linear(x, weight, bias=None):\n    return x @ weight\n", encoding="utf-8")

    def run(arguments) -> None:
        build_detr(SMALL)(*batch()[:2])

    with pytest.raises(SystemExit) as stopped:
        run_command({"train": (lambda argv: argv, run)}, ["train", "--ops", str(tmp_path)], None)
    assert re.search(f"^error: {tmp_path}/linear.py, line 2: RuntimeError: .*shapes cannot be multiplied.* Find it with "
                     f"python -m exercises check linear --folder {tmp_path}$", stopped.value.code)


@pytest.mark.parametrize("error", [MemoryError("full"), RuntimeError("not enough memory")])
def test_memory_that_is_full_is_no_fault_of_the_readers_operation(error: Exception, tmp_path: Path) -> None:
    source = f"def linear(x, weight, bias=None):\n    raise {error!r}\n"
    (tmp_path / "linear.py").write_text(source, encoding="utf-8")
    with plain_mode(), pytest.raises(type(error), match=f"^{error}$"), own_operations(str(tmp_path)):
        build_detr(SMALL)(*batch()[:2])


@pytest.mark.parametrize("files, said", [
    (None, "there is no folder .*: python -m exercises start NAME makes the first file"),
    ({}, "has no operation in it"),
    ({"convolution.py": "x = 1"}, "convolution.py is no exercise: move it away; exercises are linear"),
    ({"linear.py": stub_of(find("linear"))}, "linear.py still has its hole: write linear .*; or move the file away"),
    ({"linear.py": "def linear(:"}, "linear.py, line 1: .* Python cannot read it; or move the file away"),
    ({"linear.py": "x = 1"}, "linear.py defines nothing; wanted linear"),
])
def test_a_folder_that_cannot_be_used_ends_in_one_line(files, said: str, tmp_path: Path) -> None:
    path = tmp_path / "ops"
    if files is not None:
        path.mkdir()
        for name, text in files.items():
            (path / name).write_text(text, encoding="utf-8")
    ran: list = []
    commands = {"train": (lambda argv: argv, ran.append)}
    with pytest.raises(SystemExit) as stopped:
        run_command(commands, ["train", "--ops", str(path)], None)
    assert re.search(f"^error: .*{said}", stopped.value.code) and "\n" not in stopped.value.code and not ran


def test_the_flag_works_without_the_command_too_turns_plain_mode_on_and_stays_in_the_arguments(folder: Path) -> None:
    seen: list = []

    def run(arguments) -> None:
        seen.append((plain(), arguments.ops, arguments.config.preset))

    commands = {"train": (detr_scratch.COMMANDS["train"][0], run)}
    before = plain()
    for argv in (["train", "--ops", str(folder)], ["--ops", str(folder)]):
        run_command(commands, [*argv, "--device", "cpu"], None)
    assert seen == [(True, folder, "tiny_vanilla")] * 2 and plain() is before


def test_without_the_flag_nothing_is_replaced() -> None:
    original = find("linear").note_itself()
    assert TrainArguments(PRESETS["tiny"]).ops is None
    with own_operations(None):
        assert find("linear").note_itself() is original


@pytest.mark.slow
def test_a_run_trains_with_workers_stops_and_goes_on_with_and_without_the_readers_operations(
    folder: Path, bccd_dir: Path, tmp_path: Path, monkeypatch, capsys,
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    flags = ["--device", "cpu", "--data", str(bccd_dir), "--batch-size", "2", "--short-side", "64", "--run-dir", "run",
             "--no-tensorboard"]
    detr_scratch.main(["train", "--ops", str(folder), "--preset", "tiny_vanilla", "--workers", "1", "--max-steps", "2",
                       *flags])
    assert load_checkpoint(Path("run") / LAST)["step"] == 2
    assert "your operations, from" in capsys.readouterr().out
    detr_scratch.main(["train", "--ops", str(folder), "--resume", "--max-steps", "3", *flags])
    detr_scratch.main(["train", "--resume", "--max-steps", "4", *flags])  # the notes go on with the reader's weights
    assert load_checkpoint(Path("run") / LAST)["step"] == 4
