"""whole_file: how does a process that is killed while it writes, or a full disk, leave no half file behind?

    content ─▶ .NAME.partial.ENDING ─▶ NAME.ENDING     the last arrow is a rename: it happens completely or not at all

Until then the former content stands under the name. An error removes the partial file; what a kill leaves of it is
written over by the next writer. Everything that the project writes for a person goes through here (a checkpoint too,
which also waits for the disk: training/checkpoint). Proven in tests/test_whole_file.py. Read: whole_file → write_json
"""

from __future__ import annotations

import json
import os
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterable, Iterator


@contextmanager
def whole_file(path: Path, advice: str = "free some space or name another place", several: bool = False,
               ) -> Iterator[Path]:
    """Yield the name of a partial file to write, in the folder of `path` and with its ending; rename it after.

    advice    ends the error's sentence: what a person can do where the disk refuses
    several   other processes may write the same file in the same moment: a name of this writer's own

    Raises OSError that names `path` where it cannot be written (a full disk, no permission, a name that is too long),
    or where something other than a regular file has that name (a device, a pipe, a folder): a rename would replace it.
    """
    path = Path(path)
    refuse_other_than_file(path)
    own = f".{uuid.uuid4().hex}" if several else ""
    partial = path.with_name(f".{path.stem[:50]}{own}.partial{path.suffix[:20]}")  # 255 bytes is the most of a name
    try:
        yield partial
        os.replace(partial, path)
    except OSError as error:
        raise OSError(f"{path} could not be written: {error.strerror or error}; {advice}") from error
    finally:
        partial.unlink(missing_ok=True)


def refuse_other_than_file(path: Path) -> None:
    """Raise OSError where a folder, a device or a pipe has the name of a file to write: before the work, say."""
    if os.path.exists(path) and not os.path.isfile(path):  # False, not an error, for a name that no file can have
        raise OSError(f"{path} could not be written: it is {'a folder' if path.is_dir() else 'a device or a pipe'}, "
                      "wanted a file's name")


def refuse_replacing(path: Path, inputs: Iterable[Path]) -> None:
    """Raise ValueError where the file to write is one of `inputs` (files, or folders of them), which would be lost."""
    place = os.path.realpath(path)
    for file in map(os.path.realpath, inputs):
        if place == file or os.path.isdir(file) and os.path.exists(place) and os.path.dirname(place) == file:
            raise ValueError(f"{path} is a file that this command reads, or stands among them, and would be lost: name "
                             "another")


def make_folder(folder: Path) -> None:
    """Make a folder to write to, if it is not there. Raises OSError that says why `folder` cannot be one."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = ("it is a file" if os.path.isfile(folder) else "it is a link to nothing" if os.path.islink(folder) else
               error.strerror or str(error))
        raise OSError(f"{folder} cannot be used as a folder to write to: {why}; name another one") from error


def write_text(path: Path, text: str, **how: Any) -> None:
    """Write a text (UTF-8) completely or not at all; `how` as for `whole_file`."""
    with whole_file(path, **how) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any, **how: Any) -> None:
    """Write a JSON file completely or not at all; `how` as for `whole_file`."""
    write_text(path, json.dumps(content) + "\n", **how)
