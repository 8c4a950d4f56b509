"""download: COCO, or ten classes of it, from a server on this machine that lays coco_tiny out as COCO's host does."""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any, Iterator

import pytest

from commands import download as module
from commands.download import DownloadArguments, annotations_of, download, unpack, without_outline, write_whole
from scratch import download as downloading
from scratch.config import DataConfig
from scratch.data.check import check_dataset
from scratch.data.subset import TEN_CLASSES, choose
from tests.local_server import Server, serving

ARCHIVE = "/annotations/annotations_trainval2017.zip"
FEW = dict(train=12, val=7, workers=4)
NEEDS_A_FULL_DISK = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")


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
    of_mine = DownloadArguments("coco", tmp_path / "mine", server.address)
    for arguments in (subset_of(server, tmp_path / "mine"), of_mine):
        with pytest.raises(ValueError, match="instances_val2017.json is there already.*name another --out"):
            download(arguments)
    assert [path for path in (tmp_path / "mine").rglob("*") if path.is_file()] == [mine] and mine.read_text() == "{}"


def test_a_folder_that_was_begun_for_all_of_coco_takes_no_subset(server, tmp_path):
    server.statuses[ARCHIVE] = [404]
    with pytest.raises(OSError, match="404"):
        download(DownloadArguments("coco", tmp_path / "coco", server.address))
    with pytest.raises(ValueError, match="holds all of COCO, or will: name another --out"):
        download(subset_of(server, tmp_path / "coco"))


@pytest.mark.parametrize("what_comes", ["a login page", "another image", "half of it", "nothing"])
def test_an_image_that_is_none_is_not_kept_and_the_command_again_brings_it(server, coco_tiny_dir, tmp_path, what_comes):
    download(subset_of(server, tmp_path / "other"))
    victim, other = sorted((tmp_path / "other" / "train2017").glob("*.jpg"))[:2]
    whole = victim.read_bytes()
    come = {"a login page": b"<html>please log in</html>", "another image": other.read_bytes(),
            "half of it": whole[:len(whole) // 2], "nothing": b""}[what_comes]
    server.files[f"/train2017/{victim.name}"], server.lengths = come, False
    out = tmp_path / "few"
    with pytest.raises(OSError, match=f"1 of 19 images .*\n.*{victim.name} gave something else .*is removed"):
        download(subset_of(server, out))
    assert not (out / "train2017" / victim.name).exists() and not annotations_of(out, "train").exists()
    server.files[f"/train2017/{victim.name}"] = whole
    server.asked.clear()
    download(subset_of(server, out))
    assert images_asked(server) == [f"/train2017/{victim.name}"]
    assert (out / "train2017" / victim.name).read_bytes() == whole


def test_an_image_that_was_damaged_later_is_healed_by_the_command(server, tmp_path):
    out = tmp_path / "few"
    download(subset_of(server, out))
    images = sorted((out / "val2017").glob("*.jpg"))[:3]
    before = [image.read_bytes() for image in images]
    for image, damage in zip(images, (b"", before[1][:-1000], b"<html></html>")):
        image.write_bytes(damage)
    server.asked.clear()
    download(subset_of(server, out))
    assert sorted(images_asked(server)) == [f"/val2017/{image.name}" for image in images]
    assert [image.read_bytes() for image in images] == before


@pytest.mark.parametrize("field", ["train", "val", "workers"])
def test_what_cannot_be_done_is_said_before_anything_is_fetched(field, tmp_path):
    with pytest.raises(ValueError, match=f"got {field} = 0, wanted 1 or more"):
        DownloadArguments("coco-subset", tmp_path, **{field: 0})


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


def test_what_a_killed_call_left_of_the_archives_is_removed(server, coco_tiny_dir, tmp_path):
    out = tmp_path / "coco"
    serve_images(server, coco_tiny_dir)
    download(DownloadArguments("coco", out, server.address))
    for name in ("train2017.zip", "val2017.zip", ARCHIVE.rpartition("/")[2]):
        (out / name).write_bytes(b"19 GB")
    download(DownloadArguments("coco", out, server.address))
    assert not list(out.glob("*.zip"))


def test_the_boxes_of_a_set_are_counted_without_its_outlines(server, coco_tiny_dir, tmp_path, monkeypatch, capsys):
    out = tmp_path / "coco"
    serve_images(server, coco_tiny_dir)
    download(DownloadArguments("coco", out, server.address))
    first, dropped = capsys.readouterr().out, []
    monkeypatch.setattr(module, "without_outline", lambda entry: dropped.append("segmentation" in entry)
                        or without_outline(entry))
    download(DownloadArguments("coco", out, server.address))
    boxes = sum(len(json.loads(annotations_of(out, split).read_text())["annotations"]) for split in ("train", "val"))
    assert sum(dropped) == boxes > 0 and capsys.readouterr().out == first


# -- the disk ------------------------------------------------------------------------------------------------------


def test_a_damaged_member_of_an_archive_is_named_and_nothing_of_it_stays(tmp_path):
    for name in ("1.jpg", "2.jpg"):
        (tmp_path / name).write_bytes(name.encode() * 1000)
    content = zipped({f"val2017/{name}": tmp_path / name for name in ("1.jpg", "2.jpg")})
    archive = tmp_path / "val2017.zip"
    archive.write_bytes(content.replace(b"2.jpg2.jpg", b"2.jpg2.jpX", 1))
    with pytest.raises(ValueError, match="val2017.zip is damaged.*val2017/2.jpg.*and is removed: run the command"):
        unpack(archive, "val2017/", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["1.jpg"] and not archive.exists()


@NEEDS_A_FULL_DISK
def test_a_full_disk_while_unpacking_is_said_and_leaves_whole_files_and_the_archive(tmp_path):
    (tmp_path / "1.jpg").write_bytes(b"1" * 100_000)
    archive, out = tmp_path / "val2017.zip", tmp_path / "out"
    archive.write_bytes(zipped({"val2017/1.jpg": tmp_path / "1.jpg", "val2017/2.jpg": tmp_path / "1.jpg"}))
    out.mkdir()
    (out / "2.jpg.partial").symlink_to("/dev/full")
    with pytest.raises(OSError, match="2.jpg could not be written: No space left on device. Free some space and run"):
        unpack(archive, "val2017/", out)
    assert [path.name for path in out.iterdir()] == ["1.jpg"]
    unpack(archive, "val2017/", out)
    assert (out / "2.jpg").read_bytes() == b"1" * 100_000


@NEEDS_A_FULL_DISK
def test_a_full_disk_while_writing_annotations_is_said_and_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.json"
    write_whole(path, [1])
    (tmp_path / "a.json.partial").symlink_to("/dev/full")
    with pytest.raises(OSError, match="a.json could not be written: No space left on device. Free some space and run"):
        write_whole(path, [2])
    assert json.loads(path.read_text()) == [1] and [file.name for file in tmp_path.iterdir()] == ["a.json"]
