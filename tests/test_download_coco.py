"""download: COCO, or ten classes of it, from a server on this machine that lays coco_tiny out as COCO's host does."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any, Iterator

import pytest

from commands.download import DownloadArguments, annotations_of, download, without_outline
from scratch import download as downloading
from scratch.config import DataConfig
from scratch.data.check import check_dataset
from scratch.data.subset import TEN_CLASSES, choose
from tests.local_server import Server, serving

ARCHIVE = "/annotations/annotations_trainval2017.zip"
FEW = dict(train=12, val=7, workers=4)


def zipped(files: dict[str, Path]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, path in files.items():
            archive.write(path, name)
    return content.getvalue()


@pytest.fixture
def server(coco_tiny_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(downloading, "PAUSE", 0.0)
    with serving(monkeypatch) as server:
        names = [f"annotations/instances_{split}2017.json" for split in ("train", "val")]
        server.files[ARCHIVE] = zipped({name: coco_tiny_dir / name for name in names})
        server.folders = {f"/{split}2017/": coco_tiny_dir / f"{split}2017" for split in ("train", "val")}
        yield server


def images_asked(server: Server) -> list[str]:
    return [path for path, _ in server.asked if path.endswith(".jpg")]


def subset_of(server: Server, out: Path, **changes: Any) -> DownloadArguments:
    return DownloadArguments("coco-subset", out, server.address, **{**FEW, **changes})


def test_a_subset_is_fetched_whole_and_training_takes_it(server, coco_tiny_dir, tmp_path, capsys):
    out = tmp_path / "few"
    download(subset_of(server, out))
    for split, count in (("train", 12), ("val", 7)):
        source = json.loads((coco_tiny_dir / "annotations" / f"instances_{split}2017.json").read_text())
        made = json.loads(annotations_of(out, split).read_text())
        expected = choose(source, TEN_CLASSES, count)
        assert [image["id"] for image in made["images"]] == [image["id"] for image in expected["images"]]
        assert made["annotations"] == [without_outline(dict(a)) for a in expected["annotations"]]
        for image in made["images"]:
            original = coco_tiny_dir / f"{split}2017" / image["file_name"]
            assert (out / f"{split}2017" / image["file_name"]).read_bytes() == original.read_bytes()
    assert len(images_asked(server)) == 19  # those images, and no others
    assert not (out / ARCHIVE.rpartition("/")[2]).exists()
    report = check_dataset(DataConfig(data=str(out)), 100, decode=True)
    report.refuse()
    assert "12 images" in report.splits[0] and "finetune --data" in capsys.readouterr().out


def test_a_subset_that_is_there_is_not_fetched_again_but_a_lost_image_is(server, tmp_path):
    out = tmp_path / "few"
    download(subset_of(server, out))
    server.asked.clear()
    download(subset_of(server, out))
    assert server.asked == []
    lost = next((out / "val2017").glob("*.jpg"))
    lost.unlink()
    download(subset_of(server, out))
    assert [path for path, _ in server.asked] == [f"/val2017/{lost.name}"] and lost.exists()


def test_a_subset_that_was_broken_off_is_no_data_set_yet_and_goes_on(server, tmp_path):
    out = tmp_path / "few"
    download(subset_of(server, tmp_path / "other"))
    victim = next((tmp_path / "other" / "train2017").glob("*.jpg")).name
    server.cuts[f"/train2017/{victim}"] = [1000] * 20
    server.asked.clear()
    with pytest.raises(OSError, match="1 of 19 images could not be fetched; the same command"):
        download(subset_of(server, out))
    assert not annotations_of(out, "train").exists() and not annotations_of(out, "val").exists()
    server.cuts.clear()
    server.asked.clear()
    download(subset_of(server, out))
    assert [path for path, _ in server.asked] == [f"/train2017/{victim}"]  # nor the archive of annotations
    assert len(json.loads(annotations_of(out, "train").read_text())["images"]) == 12


def test_another_subset_or_another_set_in_the_folder_is_left_alone(server, coco_tiny_dir, tmp_path):
    download(subset_of(server, tmp_path / "few"))
    with pytest.raises(ValueError, match="holds another subset.*name another --out"):
        download(subset_of(server, tmp_path / "few", train=13))
    with pytest.raises(ValueError, match="holds a subset"):
        download(DownloadArguments("coco", tmp_path / "few", server.address))
    mine = tmp_path / "mine" / "annotations" / "instances_val2017.json"
    mine.parent.mkdir(parents=True)
    mine.write_text("{}")
    with pytest.raises(ValueError, match="of another set"):
        download(subset_of(server, tmp_path / "mine"))
    assert mine.read_text() == "{}"


def test_a_subset_larger_than_what_there_is_takes_all_and_says_so(server, tmp_path, capsys):
    download(subset_of(server, tmp_path / "few", classes="train,bus", train=5000))
    made = json.loads(annotations_of(tmp_path / "few", "train").read_text())
    note = f"note: {len(made['images'])} train images show these classes; 5,000 were asked for"
    assert note in capsys.readouterr().out


def test_a_misspelt_class_can_be_put_right_in_the_same_folder(server, tmp_path):
    with pytest.raises(ValueError, match="got 'buss'.*did you mean bus"):
        download(subset_of(server, tmp_path / "few", classes="train,buss"))
    download(subset_of(server, tmp_path / "few", classes="train,bus"))


@pytest.mark.parametrize("what, path", [("coco-subset", ARCHIVE), ("coco", ARCHIVE), ("coco", "/zips/train2017.zip"),
                                        ("coco", "/zips/val2017.zip")])
def test_an_archive_that_is_none_is_removed_and_fetched_again(server, coco_tiny_dir, tmp_path, what, path):
    serve_images(server, coco_tiny_dir)
    good, server.files[path] = server.files[path], b"<html>please log in</html>"
    arguments = DownloadArguments(what, tmp_path / "out", server.address, **FEW)
    archive = tmp_path / "out" / path.rpartition("/")[2]
    with pytest.raises(ValueError, match=f"{archive.name} .*, and is removed: run the command again"):
        download(arguments)
    assert not archive.exists()
    server.files[path] = good
    server.asked.clear()
    download(arguments)
    assert server.asked[0][0] == path and annotations_of(tmp_path / "out", "val").exists()


def serve_images(server: Server, coco_tiny_dir: Path) -> None:
    """Archives of five images for each split, as `download coco` wants them."""
    for split in ("train", "val"):
        images = sorted((coco_tiny_dir / f"{split}2017").iterdir())[:5]
        server.files[f"/zips/{split}2017.zip"] = zipped({f"{split}2017/{path.name}": path for path in images})


def test_all_of_coco_is_fetched_unpacked_and_goes_on_where_it_was(server, coco_tiny_dir, tmp_path):
    out = tmp_path / "coco"
    serve_images(server, coco_tiny_dir)
    server.statuses["/zips/val2017.zip"] = [404]
    arguments = DownloadArguments("coco", out, server.address)
    with pytest.raises(OSError, match="404"):
        download(arguments)
    assert annotations_of(out, "train").exists() and not annotations_of(out, "val").exists()
    server.asked.clear()
    download(arguments)
    assert [path for path, _ in server.asked] == ["/zips/val2017.zip"]
    for split in ("train", "val"):
        assert len(list((out / f"{split}2017").glob("*.jpg"))) == 5
        name = f"annotations/instances_{split}2017.json"
        assert (out / name).read_bytes() == (coco_tiny_dir / name).read_bytes()
    assert not list(out.glob("*.zip")) and not list(out.rglob("*.partial"))
    server.asked.clear()
    download(arguments)
    assert server.asked == []
