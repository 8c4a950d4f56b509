"""python -m exercises: write the operations of a detector yourself, and have the notes' proofs grade them.

    python -m exercises                  the exercises, in the order to do them, and which are done
    python -m exercises start NAME       a file of your own with a hole: my_ops/NAME.py
    python -m exercises check NAME       grade it: an example by hand, values, gradients, edges, precision, proofs
    python -m exercises show NAME        your code, then the note's (--anyway: before yours is written)
    python -m exercises ask NAME         three numbers to predict

When some are done: python detr_scratch.py train --ops my_ops
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from pathlib import Path
from typing import Optional, Sequence

from exercises.registry import EXERCISES, Exercise, find, say_again
from scratch.printable import command, printable
from scratch.program import ends_in_a_line

COMMANDS = ("list", "start", "check", "show", "ask")
MARKS = {"": "", "begun": "begun", "written": "written, not checked", "failed": "checked: not right yet",
         "quick": "right so far, without the note's own tests", "passed": "done", "changed": "changed since its check"}


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser("python -m exercises", description=__doc__, allow_abbrev=False,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("command", nargs="?", default="list", metavar="COMMAND", help=", ".join(COMMANDS))
    made.add_argument("name", nargs="?", metavar="NAME", help="an exercise: its name, or its number in the list")
    made.add_argument("--folder", type=Path, default=Path("my_ops"), help="where your files are (my_ops)")
    made.add_argument("--quick", action="store_true", help="check: without the note's own tests")
    made.add_argument("--anyway", action="store_true", help="show: the note's answer before yours is written")
    return made


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run a command; 0 if it did what was asked, 1 if a check or an answer was wrong."""
    given = parser().parse_args(argv)
    with ends_in_a_line():
        if given.command not in COMMANDS:
            raise ValueError(f"there is no command {given.command!r}; wanted one of {', '.join(COMMANDS)}")
        if given.command == "list":
            return listing(given.folder)
        if given.name is None:
            again = command("python", "-m", "exercises", given.command)
            raise ValueError(f"which one? {again} NAME; the names: python -m exercises")
        exercise = find(given.name)
        if given.command == "check":
            return check(exercise, given.folder, given.quick)
        if given.command == "show":
            return show(exercise, given.folder, given.anyway)
        return {"start": start, "ask": ask}[given.command](exercise, given.folder)
    return 1


def listing(folder: Path) -> int:
    from exercises.reader import progress

    states = [progress(exercise, folder) for exercise in EXERCISES]
    print(f"{states.count('passed')} of {len(EXERCISES)} done ({printable(folder)})\n")
    for number, (exercise, state) in enumerate(zip(EXERCISES, states), 1):
        sign = {"passed": "x", "": " "}.get(state, ".")
        print(f"[{sign}] {number:2} {exercise.name:21} {exercise.idea}"
              + (f"  ({MARKS[state]})" if state not in ("", "passed") else ""))
    order = [*(i for i, state in enumerate(states) if state not in ("", "passed")),
             *(i for i, state in enumerate(states) if state == "")]  # what was begun comes before what was not
    if order:
        next_one, state = EXERCISES[order[0]], states[order[0]]
        print(f"\nnext: {say_again('check' if state else 'start', next_one, folder)}")
    else:
        print(f"\nall done: {command('python', 'detr_scratch.py', 'train', '--ops', folder)}")
    return 0


def start(exercise: Exercise, folder: Path) -> int:
    from exercises.reader import start as write

    path = write(exercise, folder)
    print(f"{printable(path)}: {exercise.idea}.\n"
          f"Read first: the opening of scratch/{exercise.note}.py (it is repeated in your file; the answer is further "
          "down there).\n"
          f"Write {exercise.target}{'.' + exercise.methods[0] if exercise.methods else ''} where the file raises "
          f"NotImplementedError. Then: {say_again('check', exercise, folder)}")
    return 0


def check(exercise: Exercise, folder: Path, quick: bool) -> int:
    from exercises.check import grade
    from exercises.reader import Unusable, path_of, progress, read, remember

    try:
        source = read(exercise, folder)
    except Unusable as error:
        raise ValueError(str(error)) from None
    path = path_of(exercise, folder)
    print(f"{printable(path)} against scratch/{exercise.note}.py\n", flush=True)
    report = grade(exercise.name, source, proofs=not quick, file=path, say=lambda line: print(
        textwrap.fill(line, 100, subsequent_indent=" " * 18, break_on_hyphens=False), flush=True))
    if report.passed:
        if not (quick and progress(exercise, folder) == "passed"):  # a quick check takes no pass away
            remember(exercise, folder, source, "quick" if quick else "passed")
        done = "passed" if not quick else "right so far; without --quick the note's own tests run, too"
        print(f"\n{exercise.name}: {done}. Time: {report.speed:.2g} times the note's, in plain mode.\n"
              f"Compare with the note: {say_again('show', exercise, folder)}\n"
              f"Three numbers to predict: {say_again('ask', exercise, folder)}")
        return 0
    remember(exercise, folder, source, "failed")
    print(f"--   {report.stage:12} {report.case}")
    for line in report.shown:
        print(f"     {line}")
    print("\n" + textwrap.fill(f"hint: {report.hint}", 100, subsequent_indent="      ", break_on_hyphens=False))
    return 1


def show(exercise: Exercise, folder: Path, anyway: bool) -> int:
    from exercises.reader import path_of, progress
    from exercises.stub import answer_of

    path = path_of(exercise, folder)
    if progress(exercise, folder) in ("", "begun") and not anyway:
        raise ValueError(f"{printable(path)} is not written yet, and this would show the answer; to see it all the "
                         f"same: {say_again('show', exercise, folder)} --anyway")
    rule = "─" * 100
    if path.is_file():
        text = path.read_text(encoding="utf-8", errors="replace").strip()
        print(f"{rule}\nyours: {printable(path)}\n{rule}\n{text}\n")
    else:
        print(f"{printable(path)} is not there yet: {say_again('start', exercise, folder)}\n")
    text, line = answer_of(exercise)
    print(f"{rule}\nthe note: scratch/{exercise.note}.py, line {line}, and what it calls there\n{rule}\n{text}")
    return 0


def ask(exercise: Exercise, folder: Path) -> int:
    from exercises.questions import ask as put

    return put(exercise, sys.stdin, print)


if __name__ == "__main__":
    sys.exit(main())
