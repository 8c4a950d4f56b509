"""proofs: does the reader's operation pass the tests that hold the note?

    pytest -p exercises.plugin tests/ops/test_conv2d.py        in a process of its own; the plugin puts the reader's
                                                               operation in the note's place before the tests are read

Left out: tests that hold the note's own way of doing it (registry: not_asked), a bonus, or the words of its errors,
those of the fast code, and slow ones.
Proven in tests/exercises/test_proofs.py. Read: run_proofs; then plugin.py
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from exercises.registry import REPOSITORY, Exercise
from exercises.sentences import sentence

VARIABLES = ("DETR_EXERCISE", "DETR_EXERCISE_FILE", "DETR_EXERCISE_RESULT")


@dataclass(frozen=True)
class Proofs:
    """passed: how many tests; failed: the sentence of the first that did not; hint and shown: what it said."""

    passed: int = 0
    failed: str = ""
    hint: str = ""
    shown: tuple[str, ...] = ()


def run_proofs(exercise: Exercise, source: str) -> Proofs:
    """Run the note's tests on the text of a reader's file."""
    if missing := [package for package in ("pytest", "hypothesis", "scipy") if find_spec(package) is None]:
        return Proofs(0, "the note's tests need packages", f"install {' and '.join(missing)}: pip install -r "
                                                           "requirements.txt")
    with tempfile.TemporaryDirectory() as folder:
        file, result = Path(folder) / f"{exercise.name}.py", Path(folder) / "result.json"
        file.write_text(source, encoding="utf-8")
        environment = {**os.environ, **dict(zip(VARIABLES, (exercise.name, str(file), str(result)))), "DETR_PLAIN": "1",
                       "PYTHONIOENCODING": "utf-8"}
        run = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", "--no-header", "-p", "exercises.plugin", "-p",
             "no:cacheprovider", "-m", "not slow", *exercise.tests],
            cwd=REPOSITORY, env=environment, capture_output=True, text=True, encoding="utf-8", errors="replace")
        if not result.exists():
            said = (run.stdout + run.stderr).strip().splitlines()[-3:]
            return Proofs(0, "the note's tests could not be run", "pytest ended early", tuple(said))
        kept = json.loads(result.read_text(encoding="utf-8"))
    if not kept["failed"] and run.returncode == 0 and kept["passed"]:
        return Proofs(kept["passed"])
    if not kept["failed"]:
        return Proofs(kept["passed"], "the note's tests ended early", f"pytest ended with {run.returncode}",
                      tuple(run.stdout.strip().splitlines()[-3:]))
    shown = [f"test     {kept['failed']}", *(f"         {line}" for line in kept["message"].splitlines()[:6])]
    return Proofs(kept["passed"], sentence(kept["failed"]),
                  f"{kept['passed']} proofs passed before it. Its name says what should hold; read it in "
                  f"{kept['failed'].partition('::')[0]}.", tuple(shown))
