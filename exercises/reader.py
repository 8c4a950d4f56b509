"""reader: what has the reader written, and where?

    my_ops/conv2d.py ── compiled ──▶ a module with `conv2d` in it ── load ──▶ the operation
    my_ops/.passed.json               how each exercise's last check ended, with a hash of the file then

Proven in tests/exercises/test_reader.py. Read: load → progress
"""

from __future__ import annotations

import ast
import hashlib
import json
import linecache
import sys
from pathlib import Path
from traceback import extract_tb
from types import ModuleType
from typing import Any, Optional

from exercises.registry import Exercise
from exercises.stub import has_hole, stub_of
from scratch.printable import command, printable
from scratch.whole_file import write_text

CHECKS = ".passed.json"  # called so when it held passes alone
ENDED = ("passed", "quick", "failed")
READER = "reader_"  # what the name of a reader's module begins with


class Unusable(ValueError):
    """The reader's file cannot be used as it is; the message says why, and in which line."""


def load(exercise: Exercise, source: str, file: Optional[Path] = None) -> Any:
    """The operation that `source` defines. Raises Unusable: no Python, no such name, a hole, an import that fails."""
    name = file.name if file else f"{exercise.name}.py"
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise Unusable(f"{printable(name)}, line {error.lineno}: {error.msg}; Python cannot read it") from None
    except ValueError as error:
        raise Unusable(f"{printable(name)} is no Python text ({error})") from None
    if has_hole(exercise, source):
        raise Unusable(f"{printable(name)} still has its hole: write {exercise.target} and remove the line that raises "
                       "NotImplementedError")
    filename = str(file.resolve()) if file else f"<reader:{exercise.name}>"
    module = ModuleType(f"{READER}{exercise.name}")
    module.__file__ = filename
    sys.modules[module.__name__] = module  # a dataclass looks its module up
    linecache.cache[filename] = (len(source), None, source.splitlines(True), filename)
    try:
        exec(compile(tree, filename, "exec"), module.__dict__)
    except Exception as error:
        lines = [frame.lineno for frame in extract_tb(error.__traceback__) if frame.filename == filename]
        where = f", line {lines[-1]}" if lines else ""
        raise Unusable(f"{printable(name)}{where}: {type(error).__name__}: {error}") from error
    if not hasattr(module, exercise.target):
        others = [node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
        raise Unusable(f"{printable(name)} defines {', '.join(others) or 'nothing'}; wanted {exercise.target}")
    operation = getattr(module, exercise.target)
    if bool(exercise.methods) != isinstance(operation, type) or not callable(operation):
        wanted = "a class" if exercise.methods else "a function"
        raise Unusable(f"{printable(name)}: {exercise.target} is {type(operation).__name__}; wanted {wanted}")
    return operation


def borrowed(exercise: Exercise, source: str) -> Optional[str]:
    """The note's own answer, where the reader's file imports it; None if it does not."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == exercise.module:
            for item in node.names:
                if item.name == exercise.target and not exercise.methods:
                    return f"from {node.module} import {item.name}"
    return None


def foreign(source: str) -> Optional[str]:
    """A package that the file imports and that is neither Python's own, torch, numpy nor this project; None if none."""
    known = {*sys.stdlib_module_names, "torch", "numpy", "scratch"}
    for node in ast.walk(ast.parse(source)):
        names = [item.name for item in node.names] if isinstance(node, ast.Import) else [
            node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
        for name in names:
            if name.partition(".")[0] not in known:
                return name.partition(".")[0]
    return None


def path_of(exercise: Exercise, folder: Path) -> Path:
    return folder / f"{exercise.name}.py"


def read(exercise: Exercise, folder: Path) -> str:
    """The text of the reader's file. Raises FileNotFoundError with what to do, Unusable if it is no text."""
    path = path_of(exercise, folder)
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        begin = command("python", "-m", "exercises", "start", exercise.name)
        raise FileNotFoundError(f"{printable(path)} is not there: begin with {begin}") from None
    except UnicodeDecodeError:
        raise Unusable(f"{printable(path)} is not a text in UTF-8") from None


def start(exercise: Exercise, folder: Path) -> Path:
    """Write the stub. Raises FileExistsError rather than write over a file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = path_of(exercise, folder)
    if path.exists():
        raise FileExistsError(f"{printable(path)} is there already, and stays as it is: go on with it, or move it away "
                              "to begin anew")
    with open(path, "x", encoding="utf-8") as file:
        file.write(stub_of(exercise))
    return path


def progress(exercise: Exercise, folder: Path) -> str:
    """Where the reader stands: "", "begun", "written"; "passed", "quick" (right so far), "failed"; "changed" since."""
    path = path_of(exercise, folder)
    if not path.is_file():
        return ""
    try:
        source = path.read_text(encoding="utf-8")
        hole = has_hole(exercise, source)
    except (SyntaxError, ValueError):
        return "written"
    kept = _checked(folder).get(exercise.name)
    if hole:
        return "begun"
    if kept is None:
        return "written"
    return kept["ended"] if kept["file"] == _hash(source) else "changed" if kept["ended"] == "passed" else "written"


def remember(exercise: Exercise, folder: Path, source: str, ended: str) -> None:
    """Note how the check of the file, as it is, has ended: "passed", "quick" or "failed"."""
    kept = {**_checked(folder), exercise.name: {"ended": ended, "file": _hash(source)}}
    write_text(folder / CHECKS, json.dumps(kept, indent=1) + "\n")


def _checked(folder: Path) -> dict[str, dict[str, str]]:
    """The record of the checks; what is no such record counts as none. An earlier one held passes alone, as hashes."""
    try:
        kept = json.loads((folder / CHECKS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(kept, dict):
        return {}
    kept = {name: {"ended": "passed", "file": each} if isinstance(each, str) else each for name, each in kept.items()}
    return {name: each for name, each in kept.items()
            if isinstance(each, dict) and each.get("ended") in ENDED and "file" in each}


def _hash(source: str) -> str:
    return hashlib.sha256(source.encode()).hexdigest()[:16]
