"""checkpoint: how is a checkpoint saved, so that a power cut while saving loses nothing?

                                                              killed now, these are whole
    1  write last.pt.partial, and fsync it                    last.pt (old), previous.pt (older)
    2  rename last.pt → previous.pt                           previous.pt (old); there is no last.pt
    3  rename last.pt.partial → last.pt, fsync the folder     last.pt (new), previous.pt (old)

A rename within a folder is atomic: a name shows the old file or the new one, never half of one. So
at each moment there is at least one complete checkpoint under a name that `latest_checkpoint` reads.
(A hard link could spare the gap after 2, but mounted network drives often refuse them.) best.pt is
replaced in one rename and keeps no predecessor.

A checkpoint holds tensors and plain values alone, so loading one (weights_only=True) cannot run
foreign code. content.py checks whether the values are those of a run. Proven by
truncating a file at every byte, and by killing a process that saves: tests/training/test_checkpoint.py.
"""

from __future__ import annotations

import os
import pickle
import random
import re
import warnings
import zipfile
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scratch.printable import command, printable
from scratch.whole_file import refuse_other_than_file

LAST, PREVIOUS = "last.pt", "previous.pt"
FORMAT = "detr-scratch checkpoint"
VERSION = 1  # raise it when a reader of the old version would misread the new one


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write `state` to `path` so that no crash leaves half a file there; a former last.pt lives on as previous.pt.

    Raises TypeError, before anything is touched, if a value could be written but not loaded again (a NumPy number, a
    Path, …), and OSError if the disk refuses; the former checkpoint is then still in place.
    """
    _assert_plain(state, "state")
    path = Path(path)
    refuse_other_than_file(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")  # one fixed name: what a kill leaves behind, the next save reuses
    try:
        with open(partial, "wb") as file:
            torch.save({"format": FORMAT, "version": VERSION, "state": state}, file)
            file.flush()
            os.fsync(file.fileno())  # before it gets its name, or a power cut could leave the name without the bytes
        if path.name == LAST and is_zip(path):  # one that is cut off must not push out a good previous.pt
            os.replace(path, path.with_name(PREVIOUS))
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:  # a full disk reaches us as either
        kept = any((path.parent / name).is_file() for name in {path.name, *([LAST, PREVIOUS] if path.name == LAST
                                                                            else [])})
        raise OSError(f"could not save {path}: {_reason(error)}; free some space or choose another place. "
                      + ("The last checkpoint that was saved is unharmed." if kept else
                         "No checkpoint was saved before.")) from error
    finally:
        partial.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _reason(error: BaseException) -> str:
    """What the system said: torch.save, where it cannot write, often says something else ("unexpected pos …")."""
    chain: BaseException | None = error
    while chain is not None:
        if isinstance(chain, OSError) and chain.strerror:
            return chain.strerror
        chain = chain.__cause__ or chain.__context__
    return str(error)


class NotOurs(ValueError):
    """A file that PyTorch can read, and that this project has not written."""


def load_checkpoint(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """The state that `save_checkpoint` was given, its tensors on `map_location`.

    Raises FileNotFoundError if there is no such file, and ValueError, saying what is the matter, if it is damaged, no
    checkpoint of this project, or written by a newer version.
    """
    _check_whole(path)
    wanted = "give a last.pt, previous.pt or best.pt of a run"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch has to say of strange files is for those who write code
            content = torch.load(path, map_location=map_location, weights_only=True)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # pickles that are broken, or made to, raise anything
        raise ValueError(f"{path} cannot be read as a checkpoint of this project ({why_unreadable(error)}); "
                         f"{wanted}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        convert = command("python", "detr_scratch.py", "convert", path, "--to", "ours", "--out", "FILE.pt")
        raise NotOurs(f"{path} is not a checkpoint of this project: it has no format tag {FORMAT!r}; {wanted} "
                      f"(of other weights: {convert})")
    return state_of(content, path)


def state_of(content: dict[str, Any], path: Path) -> Any:
    """The state in what a file with this project's tag holds. Raises ValueError for another version."""
    version = content.get("version")
    if type(version) is not int or version < 1 or "state" not in content:
        raise ValueError(f"{path} is not a whole checkpoint: it has this project's tag, but no version or no state; "
                         "use another copy")
    if version > VERSION:
        raise ValueError(f"{path} has checkpoint version {min(version, 10**9)}, this code reads up to {VERSION}: "
                         "update the code, or use the version that wrote it")
    return content["state"]


def latest_checkpoint(run_dir: Path) -> Path | None:
    """The checkpoint to go on from: last.pt, else (with a warning) previous.pt; None if the run has saved nothing.

    Raises ValueError if all that is there is damaged: to begin again over it must be a person's decision.
    """
    last, previous = Path(run_dir) / LAST, Path(run_dir) / PREVIOUS
    reasons = []
    for path in (last, previous):
        try:
            _check_whole(path)
        except FileNotFoundError:
            if path == last:
                reasons.append(f"{last} is missing")
        except ValueError as error:
            reasons.append(str(error))
        else:
            if path == previous:
                warnings.warn(f"{reasons[0]}; going on from {previous}", stacklevel=2)
            return path
    if last.exists() or previous.exists():
        raise ValueError(f"no checkpoint in {run_dir} can be used: {'; '.join(reasons)}. Move them away to start again")
    return None


def best_checkpoint(run_dir: Path) -> Path:
    """The checkpoint to use a run by: best.pt, else the latest. Raises FileNotFoundError if there is none."""
    best = Path(run_dir) / "best.pt"
    found = best if best.exists() else latest_checkpoint(run_dir)
    if found is None:
        raise FileNotFoundError(f"there is no checkpoint in {run_dir}: name the folder of a run, or a checkpoint file")
    return found


def rng_state() -> dict[str, Any]:
    """Where the random generators of this process stand: Python's, NumPy's, torch's, and that of its GPU."""
    kind, key, position, has_gauss, cached_gauss = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (kind, torch.from_numpy(key.astype(np.int64)), position, has_gauss, cached_gauss),
        "torch": torch.get_rng_state(),
        # The current GPU's alone: asking all of them would open a context on the GPUs of the other ranks.
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Put the generators back to where `rng_state` found them; a GPU's only where both machines have one."""
    random.setstate(state["python"])
    kind, key, position, has_gauss, cached_gauss = state["numpy"]
    np.random.set_state((kind, key.cpu().numpy().astype(np.uint32), position, has_gauss, cached_gauss))
    torch.set_rng_state(state["torch"].cpu())  # .cpu(): map_location moved these too, but they belong here
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())


# How files of other kinds begin, and what to do with them.
_BEGINNINGS = (
    (b"version https://git-lfs", "it is a Git LFS pointer, which names the file and is not it: run git lfs pull where "
                                 "it came from, or fetch the file itself"),
    (b"\x1f\x8b", "it is compressed with gzip: unpack it (gunzip)"), (b"BZh", "it is compressed with bzip2: unpack it"),
    (b"\xfd7zXZ", "it is compressed with xz: unpack it"),
    (b"\x28\xb5\x2f\xfd", "it is compressed with zstd: unpack it"),
    (b"7z\xbc\xaf", "it is a 7z archive: unpack it"), (b"Rar!", "it is a RAR archive: unpack it"),
    (b"\x89HDF", "it is an HDF5 file, as Keras writes"), (b"\x93NUMPY", "it is a NumPy array"),
    (b"GGUF", "it is a GGUF file"), (b"\x89PNG", "it is a picture"), (b"\xff\xd8\xff", "it is a picture"),
    (b"%PDF", "it is a PDF"), (b"\x7fELF", "it is a program"))


def foreign_kind(path: Path) -> str | None:
    """What a file is, and what to do with it, where its first bytes tell that it holds no tensors; else None.

    Raises ValueError for what is no regular file: opening a pipe could wait without end.
    """
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        raise ValueError(f"{path} is a device or a pipe, wanted a file")
    with open(path, "rb") as file:
        head = file.read(512)
    if not head:
        return "it is empty: was it cut short, or the disk full?"
    for beginning, words in _BEGINNINGS:
        if head.startswith(beginning):
            return words
    if head[257:262] == b"ustar":
        return "it is a tar archive: unpack it"
    if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"<":
        return "it is a web page: was it saved in the place of the file?"
    if is_zip(path):
        with suppress(Exception), zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if not any(name.rpartition("/")[2] in ("data.pkl", "constants.pkl") for name in names):
                return (f"it is a ZIP archive of something else ({printable(', '.join(names[:3]))[:100]}): unpack it "
                        "and give the file within")
        return None
    text = head.decode("utf-8", "ignore")
    if len(text) >= len(head) - 3 and not any(letter < " " and letter not in "\t\r\n\f" for letter in text):
        return f"it is a text ({printable(text.strip().partition(chr(10))[0][:60])!r}), and holds no weights"
    return None


def is_zip(path: Path) -> bool:
    """As zipfile.is_zipfile, which raises an error of its own for some of what is broken."""
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:
        return False


def why_unreadable(error: Exception) -> str:
    """What torch.load's error means. Its own advice, to let a file run code that it brings along, is not passed on."""
    text = str(error)
    if strange := re.search(r"GLOBAL ([\w.]+)", text):
        return f"it holds objects of {strange[1]}, which could run foreign code; save its state_dict alone"
    if "TorchScript" in text:
        return "it is a TorchScript program, not weights; save its state_dict alone"
    reason = printable(text.partition("\n")[0])[:200]
    if not reason or "weights_only" in reason or isinstance(error, pickle.UnpicklingError):
        reason = "nothing that PyTorch has saved"
    return f"it is damaged, or cut short: {reason}"


def damage_of(path: Path) -> str | None:
    """What is wrong with a zip file as torch writes it, if anything is. Raises what zipfile does for another file."""
    with zipfile.ZipFile(path) as archive:  # its table of contents is at the end: a file that was cut off has none
        entries = archive.infolist()
        # What torch writes is not compressed. So entries that claim more bytes than the file has would unpack to more
        # than anybody asked for, or are one entry many times.
        if (claimed := sum(entry.file_size for entry in entries)) > os.path.getsize(path):
            return f"its entries would unpack to {claimed:,} bytes"
        damaged = archive.testzip()  # reads each entry and compares its checksum, as torch.load does not
    # Attribute 0x10 means "a folder". A flipped bit can put it on a tensor, and torch.load then leaves it unfilled.
    damaged = damaged or next((entry.filename for entry in entries if entry.external_attr & 0x10), None)
    return damaged and f"wrong checksum or header of {printable(damaged)}"


def _check_whole(path: Path) -> None:
    """Raise ValueError unless `path` is a zip file (torch's format), and every entry as it was written."""
    kind = foreign_kind(path)
    beside = Path(path).with_name(PREVIOUS)
    there = beside != Path(path) and beside.is_file()
    use = f"use {PREVIOUS} beside it, or another copy" if there else "use another copy"
    try:
        damage = damage_of(path)
    except Exception as error:  # zipfile has another one for each part of a header that can be broken
        raise ValueError(f"{path} is not a whole checkpoint ({kind or printable(error)}): it was cut off while it was "
                         f"written or copied, or is another kind of file; {use}") from error
    if damage:
        raise ValueError(f"{path} is damaged ({damage}); {use}")


def _assert_plain(value: Any, where: str) -> None:
    """Raise TypeError, naming the place, unless weights_only=True will load `value` again."""
    if type(value) in (dict, OrderedDict):
        for key, item in value.items():
            _assert_plain(key, f"a key of {where}")
            _assert_plain(item, f"{where}[{key!r}]")
    elif type(value) in (list, tuple):
        for i, item in enumerate(value):
            _assert_plain(item, f"{where}[{i}]")
    # type(…), not isinstance: np.float64 is a float to isinstance, but not to the loader.
    elif type(value) not in (type(None), bool, int, float, str) and not isinstance(value, Tensor):
        raise TypeError(f"{where} is a {type(value).__module__}.{type(value).__qualname__}; a checkpoint holds "
                        "tensors, numbers, strings, None, and lists, tuples and dicts of them")


def _sync_folder(folder: Path) -> None:
    """Put the renames themselves on the disk, where the system can."""
    with suppress(OSError):  # Windows and some network drives cannot open or sync a folder
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
