"""What is shown of a stranger's text is text."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess

import pytest

from scratch.printable import command, counted, printable


@pytest.mark.parametrize("text, shown", [
    ("red cell", "red cell"), ("naïve Ж 猫 🦝 👩‍🔬 \u3000", "naïve Ж 猫 🦝 👩‍🔬 \u3000"),
    ("two\nlines", r"two\nlines"), ("\x1b[2J\x07", r"\x1b[2J\x07"), ("half \ud83d", r"half \ud83d"),
    ("txt.\u202egpj", r"txt.\u202egpj"), ("a\u2028b", r"a\u2028b"), ("\x9b31m", r"\x9b31m"), (17, "17"),
])
def test_control_characters_are_written_out_and_letters_stay(text, shown):
    assert printable(text) == shown
    printable(text).encode("utf-8")


def test_a_number_has_the_form_of_its_noun():
    assert [counted(n, "box", "boxes") for n in (0, 1, 2104)] == ["0 boxes", "1 box", "2,104 boxes"]
    assert [counted(n, "picture") for n in (1, 2)] == ["1 picture", "2 pictures"]
    assert [counted(n, "minute") for n in (1.0, 1.5, 90.0)] == ["1 minute", "1.5 minutes", "90 minutes"]


def test_a_command_is_read_by_a_shell_as_the_words_that_it_was_made_of():
    words = ["python", "detr_scratch.py", "analyze", "my run (1)", "it's", "$HOME", ""]
    assert shlex.split(command(*words)) == words


def test_a_word_that_cannot_be_shown_is_written_with_its_bytes():
    assert command("a\nb") == r"$'a\012b'" and command("\x1b[2J") == r"$'\033[2J'"
    assert command("\udcff it's") == r"$'\377 it\047s'"  # the byte 255, as the system has it
    assert command("ä b", "\\n") == "'ä b' '\\n'"


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_reads_every_word_as_it_was():
    words = ["two\nlines", "\x1b[2J", "\udcff", "txt.\u202egpj", "it's\t\\", "-x", "$HOME", ""]
    said = subprocess.run(["bash", "-c", "printf '%s\\0' " + command(*words)], capture_output=True, check=True).stdout
    assert said.split(b"\0")[:-1] == [os.fsencode(word) for word in words]
