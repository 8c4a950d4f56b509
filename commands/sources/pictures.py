"""pictures: which pictures does a word on the command line mean?

    a.jpg                     the picture                   shots/        those in the folder, and in folders in it
    "shots/**/*.jpg"          all that fit the pattern      -             one that comes by standard input
    https://host/a.jpg        fetched first, into a folder that is removed at the end
    film.mp4, webcam, webcam:1                              moving pictures: film.py

What comes from elsewhere has a limit of bytes, and an HTML page in the place of a picture is named as
what it is. A picture that was found in a folder is decoded only when its turn comes (predict.py).
Proven in tests/sources/test_pictures.py. Read: given → Given
"""

from __future__ import annotations

import glob
import os
import re
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Optional
from urllib.parse import unquote, urlsplit

from scratch.analysis.names import cut
from scratch.printable import printable
from scratch.weights.download import fetch

IMAGES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"}
FILMS = {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".wmv"}
MOST_BYTES = 2**31  # of what is fetched, or comes by standard input
_CAMERA = re.compile(r"webcam(?::(\d{1,3}))?")
_HTML = (b"<!doctype html", b"<html", b"<head")


@dataclass(frozen=True)
class Given:
    """What was given: pictures, or one film, or one camera.

    pictures   files, in the order of their names
    film       a file of moving pictures
    camera     the number of a camera
    name       what to call a single file that came from elsewhere, where it is not to be called by its path
    """

    pictures: tuple[Path, ...] = ()
    film: Optional[Path] = None
    camera: Optional[int] = None
    name: Optional[str] = None


@contextmanager
def given(source: str, out: Path) -> Iterator[Given]:
    """What `source` means; a file that had to be fetched is there as long as this lasts.

    out   a folder in which no picture is looked for: there are those with boxes
    Raises FileNotFoundError where nothing is there, OSError where it cannot be fetched, ValueError for an HTML page.
    """
    camera = _CAMERA.fullmatch(source)
    if camera and not os.path.lexists(source):
        yield Given(camera=int(camera[1] or 0))
    elif source == "-" or address(source):
        with tempfile.TemporaryDirectory() as folder:
            where = address(source)
            path = Path(folder) / (name_of(where) if where else "standard-input")
            fetched(where, path) if where else receive(path)
            refuse_page(path, where or "standard input")
            yield Given(**_kind_of(path), name=where or "standard input")
    elif glob.has_magic(source) and not os.path.lexists(source):
        yield Given(tuple(fitting(source)))
    else:
        yield Given(**_kind_of(Path(source))) if not os.path.isdir(source) else Given(tuple(in_folder(Path(source),
                                                                                                      out)))


def address(source: str) -> Optional[str]:
    """The address on the web that was meant, or None: a Path has lost one of the slashes."""
    found = re.fullmatch(r"(https?):/{1,2}([^/].*)", source, re.I | re.S)
    return f"{found[1].lower()}://{found[2]}" if found else None


def fetched(url: str, path: Path) -> None:
    """Fetch a file that is needed for this call alone. Raises OSError in one line."""
    try:
        fetch(url, path, most=MOST_BYTES)
    except OSError as error:  # its further lines tell how to go on with the file that is removed now
        raise OSError(str(error).splitlines()[0]) from error


def name_of(url: str) -> str:
    """A name for the file at an address: its last part, without what no file system takes."""
    last = unquote(urlsplit(url).path).replace("\\", "/").rpartition("/")[2]
    return cut(re.sub(r'[\x00-\x1f<>:"|?*]', "_", last).lstrip("."), 100) or "picture"


def receive(path: Path) -> None:
    """Write what comes by standard input to a file. Raises ValueError for a terminal, nothing, or too much."""
    stream = sys.stdin.buffer if sys.stdin else None
    if stream is None or sys.stdin.isatty():
        raise ValueError("got -, which is standard input, and nothing is sent there: cat IMAGE | python "
                         "detr_scratch.py predict -")
    there = 0
    with open(path, "wb") as file:
        while piece := stream.read(2**20):
            there += len(piece)
            if there > MOST_BYTES:
                raise ValueError(f"more than {MOST_BYTES:,} bytes came by standard input: give the file's name instead")
            file.write(piece)
    if not there:
        raise ValueError("nothing came by standard input; wanted a picture or a video")


def refuse_page(path: Path, where: str) -> None:
    """Raise ValueError for an HTML page: a login, an error, or the page that shows the picture."""
    with open(path, "rb") as file:
        start = file.read(1024).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith(_HTML):
        raise ValueError(f"{printable(where)} gave an HTML page, wanted a picture or a video: give the address of the "
                         "file itself")


def in_folder(folder: Path, out: Path) -> list[Path]:
    """Everything in the folder that has an image's ending, of any kind, and all such files in the folders in it."""
    found, results = [p for p in folder.iterdir() if p.suffix.lower() in IMAGES], os.path.realpath(out)
    for place, folders, files in os.walk(folder):  # no links to folders: one may lead back
        folders[:] = sorted(name for name in folders if not name.startswith(".")
                            and os.path.realpath(os.path.join(place, name)) != results)
        if place != str(folder):
            found += [Path(place) / name for name in files if Path(name).suffix.lower() in IMAGES]
    if not found:
        raise FileNotFoundError(f"no images in {printable(folder)} or the folders in it: looked for files ending in "
                                f"{' '.join(sorted(IMAGES))}")
    return sorted(found)


def fitting(pattern: str) -> list[Path]:
    """The pictures that a pattern means; ** stands for any folders."""
    fit = sorted(Path(name) for name in glob.glob(pattern, recursive=True))
    found = [path for path in fit if path.suffix.lower() in IMAGES]
    if not found:
        raise FileNotFoundError(f"no image fits {printable(pattern)} ({len(fit)} other files and folders do): looked "
                                f"for files ending in {' '.join(sorted(IMAGES))}")
    return found


def _kind_of(path: Path) -> dict[str, object]:
    """A file as a film or as a picture, by its ending."""
    if not os.path.lexists(path):
        raise FileNotFoundError(f"{printable(path)} does not exist: give an image, a folder of images, a pattern, a "
                                "video, an address (https://…), webcam, or - for standard input")
    if path.suffix.lower() in FILMS or not path.suffix and _begins_as_film(path):
        return {"film": path}
    return {"pictures": (path,)}


def _begins_as_film(path: Path) -> bool:
    """Is it a video by its first bytes? For what came without a name."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        start = file.read(16)
    return (start[4:8] == b"ftyp" and start[8:12] not in (b"avif", b"avis", b"heic", b"mif1") or
            start[:4] == b"\x1aE\xdf\xa3" or start[:4] == b"RIFF" and start[8:12] == b"AVI ")
