"""docs/exercises.md names the exercises that there are."""

from __future__ import annotations

import re

from exercises.__main__ import COMMANDS
from exercises.case import STAGES
from exercises.registry import EXERCISES, REPOSITORY

PAGE = (REPOSITORY / "docs" / "exercises.md").read_text(encoding="utf-8")


def test_the_list_is_that_of_the_registry_in_its_order() -> None:
    rows = re.findall(r"^\| `(\w+)` \| \[([\w/]+)\]\(\.\./scratch/([\w/]+)\.py\) \| (.+?) \|$", PAGE, re.M)
    assert rows == [(exercise.name, exercise.note, exercise.note, exercise.idea) for exercise in EXERCISES]


def test_the_stages_are_those_of_a_check_in_their_order() -> None:
    assert re.findall(r"^\| ([a-z ]+?) \| [a-z].*\|$", PAGE.partition("## What a check does")[2], re.M)[1:] == [
        *STAGES, "from scratch", "bonus", "proofs"]


def test_the_commands_are_those_of_the_program() -> None:
    assert set(re.findall(r"python -m exercises (\w+) linear", PAGE)) == set(COMMANDS) - {"list"}


def test_the_numbers_of_exercises_and_mistakes_are_the_tables() -> None:
    counts = [len(exercise.grading.MISTAKES) for exercise in EXERCISES]
    assert f"for {min(counts)} to {max(counts)} mistakes" in PAGE
    assert "Sixteen operations" in PAGE and len(EXERCISES) == 16
    assert "16 operations to write" in (REPOSITORY / "README.md").read_text(encoding="utf-8")
