"""download_bccd: how does BCCD, photographs of blood cells with boxes, become a folder that train --data takes?

    archive of its repository ─▶ unpacked (Pascal VOC) ─▶ SHA-256 of its content ─▶ OUT/ in COCO's form
                                                          train/ val/ test/ annotations/ LICENSE: its own split

364 photographs of 640×480 pixels under the MIT licence, github.com/Shenggan/BCCD_Dataset. The archive is that of one
commit, so that its content is known: what comes from the host is compared with it before it is used, whatever way the
archive was packed. What was begun goes on; the annotations are written last. Proven in tests/test_download_bccd.py.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from commands.convert_data import write_coco
from commands.unpacking import ADVICE, unpack
from scratch.config import DataConfig
from scratch.weights.download import fetch
from scratch.whole_file import write_json

SOURCE = "https://codeload.github.com"
COMMIT = "d272fb14cdff6e473fafeeeba32aba5f560e9e43"
ADDRESS = f"Shenggan/BCCD_Dataset/zip/{COMMIT}"
CONTENT = "949554629eeca49dcde5769d41eec538f3e700bf73f741bb865d0e49b2087dd1"  # of `digest_of`
OF_BCCD = "bccd.json"  # the record of what a folder was begun as
ARCHIVE, UNPACKED = "bccd.zip", ".bccd"
MOST = 2**27  # bytes of the archive, which has 8 MB
FOLDERS = ("Annotations", "ImageSets/Main", "JPEGImages")


def refuse_for_bccd(out: Path) -> None:
    """Raise ValueError for a folder of something else."""
    if out.is_dir() and not (out / OF_BCCD).exists() and any(not path.name.startswith(".") for path in out.iterdir()):
        raise ValueError(f"{out} is not empty, and this command has not begun it: name another --out")


def bccd(host: str, out: Path) -> None:
    """Fetch, compare and write the set. Raises what `fetch` and `unpack` raise, and ValueError for other content."""
    if (out / "annotations" / "instances_test.json").exists():  # written last
        return
    write_json(out / OF_BCCD, {"from": host, "commit": COMMIT}, advice=ADVICE)
    archive = fetch(f"{host}/{ADDRESS}", out / ARCHIVE, most=MOST)
    top = f"BCCD_Dataset-{COMMIT}/"
    for folder in FOLDERS:
        unpack(archive, f"{top}BCCD/{folder}/", out / UNPACKED / folder)
    if (got := digest_of(out / UNPACKED)) != CONTENT:
        archive.unlink()
        shutil.rmtree(out / UNPACKED)
        raise ValueError(f"{host} gave another content than BCCD's at commit {COMMIT[:7]} (SHA-256 {got[:12]}, wanted "
                         f"{CONTENT[:12]}), which is removed: run the command again")
    unpack(archive, f"{top}LICENSE", out)
    write_coco(DataConfig(data=str(out / UNPACKED)), out)
    shutil.rmtree(out / UNPACKED)
    archive.unlink()


def digest_of(folder: Path) -> str:
    """The SHA-256 of the names and the contents of all files below a folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix()):
        if path.is_file():
            content = path.read_bytes()
            digest.update(f"{path.relative_to(folder).as_posix()}\0{len(content)}\0".encode())
            digest.update(content)
    return digest.hexdigest()
