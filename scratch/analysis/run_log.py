"""run_log: what can be read of a run's log.jsonl, also if it is damaged?

A kill cuts a line off, a full disk too; two runs in one folder mix their lines; an editor changes the encoding. What is
whole is read, and what is left out is told with a count. Proven in tests/analysis/test_run_log.py.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from scratch.printable import counted

NAME = "log.jsonl"


def read_log(run_dir: Path) -> tuple[list[dict[str, Any]], str]:
    """The records of a run, in order, and in words what was left out ("": nothing).

    Every record has "kind" (a text) and "step" (an int); a step or an evaluation has "minutes", too. A number that is
    not finite is None. Raises FileNotFoundError if there is no log.
    """
    log = Path(run_dir) / NAME
    if not log.is_file():
        raise FileNotFoundError(f"{log} does not exist: name the folder of a training run")
    kept: list[dict[str, Any]] = []
    latest: dict[str, int] = {}
    broken = mixed = 0
    for line in log.read_bytes().split(b"\n"):
        if not line.strip():
            continue
        try:
            record = _finite(json.loads(line.decode("utf-8")))
        except (ValueError, RecursionError):
            record = None
        if not _is_record(record):
            broken += 1
        elif record["kind"] in ("step", "evaluation") and record["step"] <= latest.get(record["kind"], -1):
            mixed += 1
        else:
            latest[record["kind"]] = record["step"]
            kept.append(record)
    said = [f"{broken} that cannot be read (a kill or a full disk cuts a line off)"] if broken else []
    said += [f"{mixed} of a step that was there already (two runs in one folder)"] if mixed else []
    return kept, f"{log}: left out {counted(broken + mixed, 'line')}, {' and '.join(said)}" if said else ""


def number_or_none(value: Any) -> Any:
    """The value if it is a number, else None."""
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def numbers(record: dict[str, Any], name: str) -> dict[str, Any]:
    """The dict of that name in a record; empty if there is none."""
    value = record.get(name)
    return value if isinstance(value, dict) else {}


def texts(record: dict[str, Any], name: str) -> list[str]:
    """The list of texts of that name in a record; empty if there is none."""
    value = record.get(name)
    return [str(item) for item in value] if isinstance(value, list) else []


def _is_record(record: Any) -> bool:
    if not (isinstance(record, dict) and isinstance(record.get("kind"), str)):
        return False
    step = record.get("step")
    timed = record["kind"] not in ("step", "evaluation") or number_or_none(record.get("minutes")) is not None
    return isinstance(step, int) and not isinstance(step, bool) and step >= 0 and timed


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return value if abs(value) < 2**63 else None
    return None if isinstance(value, float) and not math.isfinite(value) else value
