"""unpacking: how are files taken out of an archive that somebody else made?

The end of each name alone is used, and only if it can be a file's name here: an archive may not choose the place. What
would unpack to more than is wanted is refused before a byte is written, and each file is there whole or not at all.
Proven in tests/test_download_coco.py.
"""

from __future__ import annotations

import shutil
import zipfile
import zlib
from pathlib import Path

from tqdm import tqdm

from scratch.printable import printable
from scratch.weights.download_many import trouble_in_name
from scratch.whole_file import whole_file

ADVICE = "free some space and run the command again, or name another --out"
MOST_IMAGES = 2**36  # bytes that an archive may unpack to; COCO's photographs are 19 GB


def unpack(archive: Path, beginning: str, folder: Path) -> None:
    """The files of an archive whose names begin so, into one folder; those that are there whole are left alone.

    Raises ValueError for an archive that is damaged, has none of them, or is made to do harm; it is removed. Raises
    OSError where the disk refuses; the archive is kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with zipfile.ZipFile(archive) as files:
            members = [file for file in files.infolist() if file.filename.startswith(beginning) and not file.is_dir()]
            if not members:
                raise zipfile.BadZipFile(f"it has no {beginning}…")
            for member in members:  # the name alone is used: an archive may not choose the place
                if trouble := trouble_in_name(_name_of(member)):
                    raise zipfile.BadZipFile(f"it holds {member.filename[:100]!r}: {trouble}")
            if (size := sum(member.file_size for member in members)) > MOST_IMAGES:
                raise zipfile.BadZipFile(f"it would unpack to {size:,} bytes")
            for member in tqdm(members, desc=f"unpacking {archive.name}", unit="file", disable=None, leave=False):
                target = folder / _name_of(member)
                if target.is_file() and target.stat().st_size == member.file_size:
                    continue
                with whole_file(target, ADVICE) as partial, files.open(member) as source, open(partial, "wb") as copy:
                    shutil.copyfileobj(source, copy)  # which compares the checksum at the end
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:  # the last: of what is encrypted
        archive.unlink()
        raise ValueError(f"{archive} is damaged or another archive ({printable(error)[:300]}), and is removed: run the "
                         "command again") from error


def _name_of(member: zipfile.ZipInfo) -> str:
    return member.filename.rpartition("/")[2]
