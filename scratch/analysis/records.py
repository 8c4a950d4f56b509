"""records: what if the file that a chart is drawn from is damaged, or of another kind?

A record is a file of ours that holds what was measured: layers.json, analysis.json, sweep.json, a picture's .npz.
A chart can be drawn from it years later, on another machine, by a person who has edited it. What is wrong with it is
then one line that names the file and says what to do, never a traceback. Proven in tests/analysis/test_records.py.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator

# What code that expects one content does with another.
SURPRISES = (KeyError, IndexError, TypeError, AttributeError, ValueError, ArithmeticError, RecursionError, MemoryError)


@contextmanager
def believed(path: Path, made_by: str, advice: str = "") -> Iterator[None]:
    """Within it, the content of `path` is used. What only another content can raise becomes a ValueError in words."""
    try:
        yield
    except SURPRISES as error:
        raise ValueError(_damaged(path, made_by, f"{type(error).__name__}: {error}", advice)) from error


def read_record(path: Path, made_by: str, kind: Any = dict, advice: str = "") -> Any:
    """The content of a JSON file that the command `made_by` wrote. Raises ValueError for one that is no such file.

    kind     of the outermost value: dict, list or both in a tuple
    advice   what to do about such a file; else to remove it and to run the command again
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: name a folder in which {made_by} wrote it")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError, MemoryError) as error:  # no JSON, cut short, no UTF-8, nested without end
        raise ValueError(_damaged(path, made_by, str(error) or type(error).__name__, advice)) from error
    if not isinstance(content, kind):
        raise ValueError(_damaged(path, made_by, f"its content is of the type {type(content).__name__}", advice))
    return content


def _damaged(path: Path, made_by: str, why: str, advice: str) -> str:
    first = " ".join(why.split())[:200]
    return f"{path} is damaged, or not what {made_by} writes there ({first}): " + (
        advice or f"remove it and run {made_by} again")
