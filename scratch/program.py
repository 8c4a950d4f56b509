"""program: how does a program end in one line for every input and every terminal?

    a sign that the terminal has not (→ in cp1252, C locale) ─▶ "?", and the work is done
    an error that the user can correct (ValueError, OSError) ─▶ "error: …", exit code 1
    no memory                                                ─▶ "error: …", with what to make smaller
    a reader that has gone (… | head -1)                     ─▶ quietly
    a fault of ours (KeyError, TypeError …)                  ─▶ the traceback, which we need

Every program here runs in it: detr_scratch.py and what it starts, `python -m commands.redraw`, scratch.analysis.…,
benchmarks.… Proven in tests/test_program.py. Read: replace_unknown_signs → ends_in_a_line
"""

from __future__ import annotations

import os
import select
import sys
from contextlib import contextmanager
from typing import Callable, Iterator, Optional

from scratch.printable import printable

LESS_MEMORY = ("Halve --batch-size and double --accumulate: the effective batch stays the same. Or take fewer "
               "--workers, a smaller --short-side or a smaller network")
OURS = ("scratch", "commands", "reference", "benchmarks", "exercises", "tests", "detr_scratch")


def replace_unknown_signs() -> None:
    """Let standard output and error show "?" for a sign that their encoding has not, in the place of an exception."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not where a test, a notebook or a window has put something else there
            stream.reconfigure(errors="replace")


@contextmanager
def ends_in_a_line(explain: Callable[[RuntimeError], str] = lambda error: "") -> Iterator[None]:
    """Turn an error that the user can correct into an exit with one line; a bug of ours keeps its traceback.

    explain   what a RuntimeError of PyTorch means, in words; "" where it means nothing that is known
    """
    replace_unknown_signs()
    try:
        try:
            os.getcwd()
        except FileNotFoundError:
            raise OSError("the working folder does not exist any more: change to another one") from None
        yield
        sys.stdout and sys.stdout.flush()  # here, and not when Python ends, where nothing can be caught
    except BrokenPipeError as error:
        if _reader_has_gone():
            sys.exit(1)
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped")
    except Exception as error:
        line = _in_a_line(error) or (explain(error) if isinstance(error, RuntimeError) else None)
        if not line:
            raise
        sys.exit("error: " + "\n".join(map(printable, line.splitlines())))


def _in_a_line(error: Exception) -> Optional[str]:
    """What a person is told of an error; None for a fault of ours."""
    if isinstance(error, UnicodeEncodeError):
        return (f"the text {error.object[:80]!r} has a character that cannot be written as {error.encoding} "
                f"({error.reason}): rename the file, the folder or the class")
    if isinstance(error, OSError) and error.strerror and not error.filename:
        return f"{error.strerror}, and the system did not say of which file: standard output, or a pipe?"
    if isinstance(error, (ValueError, OSError, FloatingPointError)):
        # From a DataLoader's worker comes a whole traceback as the message; its last paragraph is the worker's own.
        return str(error).rpartition(f"\n{type(error).__name__}: ")[2] or type(error).__name__
    if isinstance(error, MemoryError) or tells_of_memory(error):
        said = str(error).strip() or "out of memory"
        return f"{said.splitlines()[0].rstrip('.')}. {LESS_MEMORY}"
    if isinstance(error, RecursionError):
        return f"something in what was given is nested too deep ({error})"
    if isinstance(error, OverflowError):
        return f"a number in what was given is too large ({error})"
    if isinstance(error, ModuleNotFoundError) and error.name and error.name.partition(".")[0] not in OURS:
        return (f"the package {error.name.partition('.')[0]} is not installed: pip install -r requirements.txt; or, in "
                "a clone, make more, and .venv/bin/python in the place of python")
    return None


def tells_of_memory(error: Exception) -> bool:
    """PyTorch has a class for a GPU that is full, and on a CPU nothing but words."""
    return type(error).__name__ == "OutOfMemoryError" or isinstance(error, RuntimeError) and any(
        words in str(error) for words in ("can't allocate memory", "not enough memory", "Cannot allocate memory"))


def _reader_has_gone() -> bool:
    """True if standard output or error is a pipe without a reader; what is still to be written then goes nowhere."""
    gone = []
    for stream in (sys.stdout, sys.stderr):
        try:
            watch = select.poll()
            watch.register(stream.fileno(), select.POLLOUT)
            broken = any(event & select.POLLERR for _, event in watch.poll(0))
        except AttributeError:  # no such stream; or Windows, which cannot be asked
            broken = stream is not None and os.name == "nt" and not stream.isatty()
        except (ValueError, OSError):  # closed, or no file
            broken = False
        if broken:
            gone.append(stream)
            nowhere = os.open(os.devnull, os.O_WRONLY)  # or Python would try once more as it ends, and complain
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
    return bool(gone)
