"""plugin: a plugin of pytest that puts the reader's operation in the note's place, and says how the tests ended."""

from __future__ import annotations

import json
import os
import re
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from exercises.reader import load
from exercises.registry import find
from exercises.replace import replaced

REFUSALS = re.compile("refused|_named|do_not_fit|not_broadcast")  # tests of the words of an error, by their names

_held = ExitStack()
_kept: dict[str, Any] = {"passed": 0, "failed": "", "message": ""}


def pytest_configure(config: pytest.Config) -> None:
    """Before a test file is imported: what the tests import is the reader's then."""
    exercise, file = find(os.environ["DETR_EXERCISE"]), Path(os.environ["DETR_EXERCISE_FILE"])
    operation = load(exercise, file.read_text(encoding="utf-8"), file)
    _held.enter_context(replaced(exercise, operation))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    exercise = find(os.environ["DETR_EXERCISE"])

    def asked(item: pytest.Item) -> bool:
        of_the_fast_code = "fast" in getattr(getattr(item, "callspec", None), "id", "").split("-")
        return not (of_the_fast_code or REFUSALS.search(item.name)
                    or any(words in item.name for words in (*exercise.not_asked, *exercise.bonus)))

    config.hook.pytest_deselected(items=[item for item in items if not asked(item)])
    items[:] = [item for item in items if asked(item)]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.passed and report.when == "call":
        _kept["passed"] += 1
    elif report.failed and not _kept["failed"]:
        crash = getattr(report.longrepr, "reprcrash", None)
        _kept.update(failed=report.nodeid, message=crash.message if crash else str(report.longrepr)[-500:])


def pytest_sessionfinish(session: pytest.Session) -> None:
    Path(os.environ["DETR_EXERCISE_RESULT"]).write_text(json.dumps(_kept), encoding="utf-8")


def pytest_unconfigure(config: pytest.Config) -> None:
    _held.close()
