"""download bccd: the archive of a repository in Pascal VOC's layout, from a server on this machine."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Iterator

import pytest

from commands import download_bccd as module
from commands.download import DownloadArguments, download
from scratch.config import DataConfig
from scratch.data.check import check_dataset
from scratch.weights import download as downloading
from tests.data.test_layouts import assert_same, read_back
from tests.layouts import draw, truth, voc
from tests.local_server import Server, serving

SPLITS = {"train": draw(6, crowds=True), "val": draw(4, 1), "test": draw(4, 2)}
ADDRESS = f"/{module.ADDRESS}"


def archived(root: Path) -> bytes:
    """As the host packs a repository: under a folder of its name, with files beside the set."""
    content, top = io.BytesIO(), f"BCCD_Dataset-{module.COMMIT}"
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(f"{top}/LICENSE", "MIT License")
        archive.writestr(f"{top}/README.md", "cells")
        for path in sorted(root.rglob("*")):
            if path.is_file() and "/ant_" not in str(path):
                archive.write(path, f"{top}/BCCD/{path.relative_to(root).as_posix()}")
    return content.getvalue()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(downloading, "PAUSE", 0.0)
    root = voc(tmp_path / "original", SPLITS)
    for path in root.rglob("ant_*"):
        path.unlink()
    monkeypatch.setattr(module, "CONTENT", module.digest_of(root))
    with serving(monkeypatch) as server:
        server.files[ADDRESS] = archived(root)
        yield server


def test_the_set_is_fetched_whole_with_its_own_split_and_training_takes_it(server, tmp_path, capsys):
    out = tmp_path / "bccd"
    download(DownloadArguments("bccd", out, server.address))
    for split, pictures in SPLITS.items():
        assert_same(read_back(out, split), truth(pictures))
    check_dataset(DataConfig(data=str(out)), 100, decode=True, need=("train", "val", "test")).refuse()
    assert (out / "LICENSE").read_text() == "MIT License"
    assert {path.name for path in out.iterdir() if not path.name.startswith(".")} == {
        "train", "val", "test", "annotations", "LICENSE", "bccd.json"}
    said = capsys.readouterr().out
    assert "train       6 images" in said and "Next: python detr_scratch.py train --data" in said


def test_a_set_that_is_there_is_not_fetched_again(server, tmp_path):
    out = tmp_path / "bccd"
    download(DownloadArguments("bccd", out, server.address))
    server.asked.clear()
    download(DownloadArguments("bccd", out, server.address))
    assert server.asked == []


def test_a_line_that_is_cut_goes_on_where_it_was(server, tmp_path):
    out, whole = tmp_path / "bccd", len(server.files[ADDRESS])
    server.cuts[ADDRESS] = [whole // 2] * 4 + [0] * 20
    with pytest.raises(OSError, match="the same command goes on"):
        download(DownloadArguments("bccd", out, server.address))
    assert not (out / "annotations").exists()
    server.cuts.clear()
    server.asked.clear()
    download(DownloadArguments("bccd", out, server.address))
    ((_, wanted),) = server.asked
    assert wanted == f"bytes={whole // 2}-"
    assert_same(read_back(out, "train"), truth(SPLITS["train"]))


def test_a_command_that_was_killed_while_it_wrote_goes_on(server, tmp_path, monkeypatch):
    out = tmp_path / "bccd"
    with monkeypatch.context() as patched:
        patched.setattr(module, "write_coco", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            download(DownloadArguments("bccd", out, server.address))
    server.asked.clear()
    download(DownloadArguments("bccd", out, server.address))
    assert server.asked == []  # the archive was there
    assert_same(read_back(out, "val"), truth(SPLITS["val"]))


def test_other_content_is_refused_and_removed(server, tmp_path):
    out = tmp_path / "bccd"
    root = voc(tmp_path / "other", {**SPLITS, "val": draw(5, 1)})
    server.files[ADDRESS] = archived(root)
    with pytest.raises(ValueError, match="gave another content than BCCD's"):
        download(DownloadArguments("bccd", out, server.address))
    assert not [name for name in ("annotations", "LICENSE", "bccd.zip", ".bccd") if (out / name).exists()]


def test_a_page_instead_of_the_archive_is_refused_and_removed(server, tmp_path):
    server.files[ADDRESS] = b"<!doctype html><html>please log in</html>"
    with pytest.raises(ValueError, match="is damaged or another archive"):
        download(DownloadArguments("bccd", tmp_path / "bccd", server.address))
    assert not (tmp_path / "bccd" / "bccd.zip").exists()


def test_a_folder_of_something_else_is_left_alone(server, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("")
    with pytest.raises(ValueError, match="is not empty, and this command has not begun it"):
        download(DownloadArguments("bccd", mine, server.address))
    download(DownloadArguments("bccd", tmp_path / "bccd", server.address))
    with pytest.raises(ValueError, match="holds BCCD: name another --out"):
        download(DownloadArguments("coco", tmp_path / "bccd", server.address))
    assert json.loads((tmp_path / "bccd" / "bccd.json").read_text())["commit"] == module.COMMIT


def test_the_archive_is_that_of_one_commit_by_https():
    assert module.SOURCE.startswith("https://") and module.ADDRESS.endswith(module.COMMIT) and len(module.COMMIT) == 40
