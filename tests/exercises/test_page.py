"""docs/exercises.md names the exercises that there are."""

from __future__ import annotations

import json
import re
from pathlib import Path

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


def test_what_the_detector_on_ones_own_operations_reached_is_what_was_measured() -> None:
    yours, notes = json.loads(Path(__file__).with_name("capstone.json").read_text(encoding="utf-8")).values()
    text = " ".join(PAGE.split())
    AP = {step: f"{each:.3f}" for step, each in yours["AP"].items()}
    assert (f"AP was {AP['100']} after 100 steps, {AP['300']} after 300 and {AP['500']} after 500, in "
            f"{yours['minutes']['500']:.1f} minutes") in text
    assert f"the same loss: {yours['loss']['1']:.2f} in the first step" in text and yours["loss"]["1"] == notes["loss"]["1"]
    apart = [100 * abs(yours["loss"][step] / notes["loss"][step] - 1) for step in ("10", "20")]
    assert f"({apart[0]:.2f} % apart after 10 steps, {apart[1]:.1f} % after 20)" in text
    assert f"(the notes: AP {notes['AP']['500']:.3f} after 500 steps)" in text
