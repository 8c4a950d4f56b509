"""replace: how does a detector run on operations that a reader has written?

    my_ops/conv2d.py ── load ──▶ conv2d ── in the place of the note's, in every module that has imported it ──▶ a run

The published detector in plain mode calls all of them but the focal loss. A class of the reader inherits from the
note's, so that weights keep their names. A checkpoint says nothing of whose arithmetic it was: a run may go on with
--ops or without.
Proven in tests/exercises/test_replace.py. Read: replaced → own_operations
"""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Iterator, Optional

from exercises.describe import frames_of_the_reader
from exercises.reader import Unusable, load, progress, read
from exercises.registry import EXERCISES, NAMES, Exercise, find, say_again
from scratch.printable import printable
from scratch.program import tells_of_memory

# The exercises themselves keep the notes: they are what is compared with.
OURS = ("scratch", "commands", "detr_scratch", "__main__", "tests")


@contextmanager
def replaced(exercise: Exercise, operation: Any) -> Iterator[None]:
    """While it lasts, every module of the project that has the note's operation has `operation` instead."""
    original = exercise.note_itself()
    places = [(module, name) for module_name, module in list(sys.modules.items())
              if module is not None and module_name.partition(".")[0] in OURS
              for name, value in list(vars(module).items()) if value is original]
    for module, name in places:
        setattr(module, name, operation)
    try:
        yield
    finally:
        for module, name in places:
            setattr(module, name, original)


def operations_in(folder: Path) -> dict[Exercise, Any]:
    """Every operation that a folder defines. Raises OSError or ValueError, in one line, for what cannot be used."""
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {printable(folder)}: python -m exercises start NAME makes "
                                "the first file of one")
    files = sorted(folder.glob("*.py"))
    if not files:
        raise ValueError(f"{printable(folder)} has no operation in it (NAME.py); exercises are {', '.join(NAMES)}")
    if strangers := [path.name for path in files if path.stem not in NAMES]:
        raise ValueError(f"{printable(folder / strangers[0])} is no exercise: move it away; exercises are "
                         f"{', '.join(NAMES)}")
    found = {}
    for path in files:
        exercise = find(path.stem)
        try:
            found[exercise] = load(exercise, read(exercise, folder), path)
        except Unusable as error:
            raise ValueError(f"{printable(folder)}: {error}; or move the file away, and the note's is used") from None
    return found


@contextmanager
def own_operations(folder: Optional[str]) -> Iterator[None]:
    """While it lasts, the detector runs on the operations of a folder; without one it is as always."""
    if folder is None:
        yield
        return
    found = operations_in(Path(folder))
    if os.environ.get("RANK", "0") == "0":
        print(whose(found, Path(folder)))
    with ExitStack() as stack:
        for exercise, operation in found.items():
            stack.enter_context(replaced(exercise, operation))
        try:
            yield
        except Exception as error:
            if said := failed_in(error, Path(folder)):
                raise ValueError(said) from error
            raise


def failed_in(error: Exception, folder: Path) -> str:
    """In which line of the reader's file an error came up, and how to look for it; "" if in none."""
    frames = frames_of_the_reader(error)
    if not frames or isinstance(error, MemoryError) or tells_of_memory(error):
        return ""
    file = Path(frames[-1].filename)
    said = str(error).strip().splitlines()[0] if str(error).strip() else "no words"
    return (f"{printable(folder / file.name)}, line {frames[-1].lineno}: {type(error).__name__}: {said}. Find it with "
            f"{say_again('check', find(file.stem), folder)}")


def whose(found: dict[Exercise, Any], folder: Path) -> str:
    """Which operations are the reader's, and which the notes', in words."""
    theirs = [exercise.name for exercise in EXERCISES if exercise in found]
    rest = [exercise.name for exercise in EXERCISES if exercise not in found]
    lines = [f"your operations, from {printable(folder)}: {', '.join(theirs)}",
             f"from the notes, in plain mode: {', '.join(rest) or 'nothing that is an exercise'}"]
    unsure = [exercise.name for exercise in found if progress(exercise, folder) != "passed"]
    if unsure:
        lines.append(f"not checked as they are: {', '.join(unsure)} ({say_again('check', find(unsure[0]), folder)})")
    if any(exercise.name == "focal_loss" for exercise in found):
        lines.append("focal_loss: the published detector has no use for it")
    lines.append("to compare the loss of each step (log.jsonl) with that of the notes' operations: the same command "
                 "with --plain, without --ops")
    return "\n".join(lines)
