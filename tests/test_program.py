"""A program ends in one line for any input and any output stream; a fault of ours keeps its traceback."""

from __future__ import annotations

import io
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import detr_scratch
from commands.children import Children
from scratch.program import ends_in_a_line
from scratch.weights.reading import cache_folder
from tests.conftest import REPOSITORY


def ended(error: BaseException) -> str:
    """What `ends_in_a_line` makes of an error."""
    with pytest.raises(SystemExit) as stopped, ends_in_a_line():
        raise error
    return stopped.value.code


# ── what is printed ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("encoding", ["cp1252", "cp1251", "cp932", "ascii", "latin-1", "utf-8"])
def test_a_sign_that_a_stream_cannot_show_becomes_a_question_mark(encoding, monkeypatch):
    shown = {name: io.BytesIO() for name in ("stdout", "stderr")}
    for name, stream in shown.items():
        monkeypatch.setattr(sys, name, io.TextIOWrapper(stream, encoding))
    with ends_in_a_line():
        print("a → b × c – d … ✓ \udcff", flush=True)
        print("→ \udcff", file=sys.stderr, flush=True)
    text = shown["stdout"].getvalue().decode(encoding)
    assert text.startswith("a ") and text.rstrip().endswith("?") and len(text.rstrip()) == len("a → b × c – d … ✓ ?")
    assert shown["stderr"].getvalue().decode(encoding).strip()


@pytest.mark.parametrize("encoding", ["cp1252", "cp932", "ascii"])
@pytest.mark.parametrize("argv", [["--help"], ["train", "--help"], ["check-data", "nowhere"]])
def test_every_command_prints_on_a_stream_of_another_encoding(argv, encoding, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding))
    try:
        detr_scratch.main(argv)
    except SystemExit as stopped:
        assert "codec" not in str(stopped.code)
    sys.stdout.flush()
    assert shown.getvalue() or argv == ["check-data", "nowhere"]


@pytest.mark.parametrize("module", ["scratch.analysis.learning_curve", "scratch.analysis.report", "commands.redraw",
                                    "scratch.analysis.comparison", "benchmarks.ablation", "benchmarks.layers"])
@pytest.mark.filterwarnings("ignore:.*found in sys.modules")
def test_every_other_program_says_its_help_in_ascii(module, monkeypatch):
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "argv", [module, "--help"])
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, "ascii"))
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module(module, run_name="__main__")
    sys.stdout.flush()
    assert stopped.value.code == 0 and b"usage:" in shown.getvalue()


def test_half_a_character_in_an_argument_is_shown_as_its_escape(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        detr_scratch.main(["check-data", "no\udcff where"])
    assert r"no\udcff where" in stopped.value.code and stopped.value.code.encode()


def test_what_the_runs_of_a_command_print_is_utf_8_whatever_the_terminal_has(monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    assert Children(2).environment["PYTHONIOENCODING"] == "utf-8"


def test_a_stream_that_is_something_else_is_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)  # as under pythonw
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with ends_in_a_line():
        pass
    assert sys.stdout is None


def test_a_reader_that_has_gone_ends_it_quietly():
    program = "import sys; from scratch.program import ends_in_a_line\nwith ends_in_a_line():\n" \
              "    while True: print('line', flush=True)"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"line" + os.linesep.encode()
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait(60) == 1


def test_a_pipe_that_breaks_inside_is_told():
    assert ended(BrokenPipeError(32, "Broken pipe")) == "error: [Errno 32] Broken pipe"


# ── what ends it ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("error, words", [
    (ValueError("got 3, wanted 4"), "error: got 3, wanted 4"), (FileNotFoundError("no file"), "error: no file"),
    (FloatingPointError("NaN"), "error: NaN"), (ValueError(), "error: ValueError"),
    (MemoryError(), "error: out of memory. Halve --batch-size"),
    (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.\nC++ …"),
     "can't allocate memory: you tried to allocate 9 bytes. Halve --batch-size"),
    (torch.OutOfMemoryError("CUDA out of memory. Tried 2 GiB.\nmore"), "error: CUDA out of memory. Tried 2 GiB. Halve"),
    (RecursionError("maximum recursion depth exceeded"), "nested too deep (maximum recursion depth exceeded)"),
    (OverflowError("int too large to convert to float"), "too large (int too large to convert to float)"),
    (ModuleNotFoundError("No module named 'optuna.x'", name="optuna.x"), "the package optuna is not installed: pip"),
    (UnicodeEncodeError("utf-8", "a\udcffb", 1, 2, "surrogates not allowed"), r"the text 'a\udcffb' has a character"),
    (ValueError("no image a\x1b[2J.png"), r"error: no image a\x1b[2J.png"),
    (KeyboardInterrupt(), "stopped"),
])
def test_what_a_person_can_mend_ends_in_one_line(error, words):
    line = ended(error)
    assert words in line and "\n" not in line


@pytest.mark.parametrize("fault", [KeyError("step"), TypeError("x"), RuntimeError("shapes differ"), AssertionError(),
                                   ModuleNotFoundError("No module named 'scratch.x'", name="scratch.x")])
def test_a_fault_of_ours_keeps_its_traceback(fault):
    with pytest.raises(type(fault)), ends_in_a_line():
        raise fault


def test_a_working_folder_that_is_gone_is_named(tmp_path, monkeypatch):
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    try:
        folder.rmdir()
    except OSError:
        pytest.skip("this system keeps a folder that a process works in")
    with pytest.raises(SystemExit) as stopped:
        detr_scratch.main(["info", "--preset", "tiny"])
    assert "the working folder does not exist any more" in stopped.value.code


# ── no home ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("named", ["", "~nobody-of-this-name/cache"])
def test_without_a_home_folder_the_line_names_the_variable_that_helps(named, monkeypatch):
    monkeypatch.setenv("DETR_CACHE", named)

    def expanduser(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", expanduser)
    with pytest.raises(ValueError, match="no home folder here.* DETR_CACHE=/tmp/detr_scratch"):
        cache_folder()
