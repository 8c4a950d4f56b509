"""download: COCO, or ten classes of it, from a server on this machine that has a small one as COCO's host has it."""

from __future__ import annotations

import io
import json
import os
import threading
import zipfile
from pathlib import Path
from typing import Any, Iterator

import pytest

from commands import download as module
from commands import unpacking
from commands.download import DownloadArguments, annotations_of, download, unpack, without_outline
from scratch.weights import download as downloading
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
def server(coco_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(downloading, "PAUSE", 0.0)
    with serving(monkeypatch) as server:
        names = [f"annotations/instances_{split}2017.json" for split in ("train", "val")]
        server.files[ARCHIVE] = zipped({name: coco_dir / name for name in names})
        server.folders = {f"/{split}2017/": coco_dir / f"{split}2017" for split in ("train", "val")}
        yield server


def images_asked(server: Server) -> list[str]:
    return [path for path, _ in server.asked if path.endswith(".jpg")]


def subset_of(server: Server, out: Path, **changes: Any) -> DownloadArguments:
    return DownloadArguments("coco-subset", out, server.address, **{**FEW, **changes})


def test_a_subset_is_fetched_whole_and_training_takes_it(server, coco_dir, tmp_path, capsys):
    out = tmp_path / "few"
    download(subset_of(server, out))
    for split, count in (("train", 12), ("val", 7)):
        source = json.loads((coco_dir / "annotations" / f"instances_{split}2017.json").read_text())
        made = json.loads(annotations_of(out, split).read_text())
        expected = choose(source, TEN_CLASSES, count)
        assert [image["id"] for image in made["images"]] == [image["id"] for image in expected["images"]]
        assert made["annotations"] == [without_outline(dict(a)) for a in expected["annotations"]]
        for image in made["images"]:
            original = coco_dir / f"{split}2017" / image["file_name"]
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


def test_another_subset_or_another_set_in_the_folder_is_left_alone(server, coco_dir, tmp_path):
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
def test_an_image_that_is_none_is_not_kept_and_the_command_again_brings_it(server, coco_dir, tmp_path, what_comes):
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
def test_an_archive_that_is_none_is_removed_and_fetched_again(server, coco_dir, tmp_path, what, path):
    serve_images(server, coco_dir)
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


def serve_images(server: Server, coco_dir: Path) -> None:
    """Archives of five images for each split, as `download coco` wants them."""
    for split in ("train", "val"):
        images = sorted((coco_dir / f"{split}2017").iterdir())[:5]
        server.files[f"/zips/{split}2017.zip"] = zipped({f"{split}2017/{path.name}": path for path in images})


def test_all_of_coco_is_fetched_unpacked_and_goes_on_where_it_was(server, coco_dir, tmp_path):
    out = tmp_path / "coco"
    serve_images(server, coco_dir)
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
        assert (out / name).read_bytes() == (coco_dir / name).read_bytes()
    assert not list(out.glob("*.zip")) and not list(out.rglob("*.partial"))
    server.asked.clear()
    download(arguments)
    assert server.asked == []


def test_what_a_killed_call_left_of_the_archives_is_removed(server, coco_dir, tmp_path):
    out = tmp_path / "coco"
    serve_images(server, coco_dir)
    download(DownloadArguments("coco", out, server.address))
    for name in ("train2017.zip", "val2017.zip", ARCHIVE.rpartition("/")[2]):
        (out / name).write_bytes(b"19 GB")
    download(DownloadArguments("coco", out, server.address))
    assert not list(out.glob("*.zip"))


def test_the_boxes_of_a_set_are_counted_without_its_outlines(server, coco_dir, tmp_path, monkeypatch, capsys):
    out = tmp_path / "coco"
    serve_images(server, coco_dir)
    download(DownloadArguments("coco", out, server.address))
    first, dropped = capsys.readouterr().out, []
    monkeypatch.setattr(module, "without_outline", lambda entry: dropped.append("segmentation" in entry)
                        or without_outline(entry))
    download(DownloadArguments("coco", out, server.address))
    boxes = sum(len(json.loads(annotations_of(out, split).read_text())["annotations"]) for split in ("train", "val"))
    assert sum(dropped) == boxes > 0 and capsys.readouterr().out == first


# -- a host that is not believed ----------------------------------------------------------------------------------


def annotating(server: Server, change: Any) -> None:
    """Serve annotations of the train split that `change` has been at."""
    name = "annotations/instances_train2017.json"
    content = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(server.files[ARCHIVE])) as there, zipfile.ZipFile(content, "w") as made:
        for member in there.namelist():
            document = json.loads(there.read(member))
            made.writestr(member, json.dumps(change(document)) if member == name else there.read(member))
    server.files[ARCHIVE] = content.getvalue()


OUTSIDE = ["../../thesis.jpg", "/etc/thesis.jpg", "..\\thesis.jpg", "C:\\thesis.jpg", "..", ".", "", " ", "a/b.jpg",
           "a\0.jpg", "a\n.jpg", ".fetching.lock", "nul.jpg", "COM1", "a" * 300 + ".jpg", "\ud800.jpg",
           "a.jpg.partial", "a.jpg ", "a.jpg.", "\u202egpj.exe", 7, None, ["a.jpg"]]


@pytest.mark.parametrize("name, what", [*((name, "coco-subset") for name in OUTSIDE), (OUTSIDE[0], "coco"),
                                        (OUTSIDE[-1], "coco")], ids=lambda word: ascii(word)[:20])
def test_a_name_from_the_host_that_is_no_plain_name_is_refused_before_a_file_is_touched(server, tmp_path, name, what):
    thesis = tmp_path / "thesis.jpg"
    thesis.write_text("years of work")

    def renamed(document: dict[str, Any]) -> dict[str, Any]:
        for image in document["images"]:
            image["file_name"] = name
        return document

    annotating(server, renamed)
    with pytest.raises(ValueError, match=r"was no archive with .*(has the file_name|has no file_name).* is removed"):
        download(DownloadArguments(what, tmp_path / "deep" / "out", server.address, **FEW))
    assert thesis.read_text() == "years of work" and images_asked(server) == []
    assert not [path for path in (tmp_path / "deep").rglob("*") if path.suffix in (".jpg", ".zip")]


def test_names_that_mean_one_file_on_some_system_are_refused(server, tmp_path):
    def twice(document: dict[str, Any]) -> dict[str, Any]:
        for image, name in zip(document["images"], ("A.jpg", "a.jpg")):
            image["file_name"] = name
        return document

    annotating(server, twice)
    with pytest.raises(ValueError, match="file_name 'a.jpg': another image has it, too"):
        download(subset_of(server, tmp_path / "out"))


def test_names_in_a_folder_of_somebody_else_are_looked_at_too(server, tmp_path):
    out, thesis = tmp_path / "few", tmp_path / "thesis.jpg"
    thesis.write_text("years of work")
    download(subset_of(server, out))
    document = json.loads(annotations_of(out, "val").read_text())
    document["images"][0]["file_name"] = "../../thesis.jpg"
    annotations_of(out, "val").write_text(json.dumps(document))
    with pytest.raises(ValueError, match="val2017.json is not what this command writes.*leads to another folder"):
        download(subset_of(server, out))
    assert thesis.read_text() == "years of work"


@pytest.mark.parametrize("content, what", [
    ({}, "coco"), ({}, "coco-subset"), ([1, 2], "coco-subset"), (None, "coco"), ("text", "coco-subset"),
    ({"images": [], "annotations": []}, "coco"), ({"images": 3}, "coco-subset"),
    ({"images": [3], "annotations": [], "categories": []}, "coco-subset"),
    ({"images": [{"id": "1"}], "annotations": [], "categories": []}, "coco")], ids=lambda word: ascii(word)[:30])
def test_annotations_that_are_none_are_said_and_removed(server, tmp_path, content, what):
    annotating(server, lambda document: content)
    with pytest.raises(ValueError, match="was no archive with annotations/instances_train2017.json .*, and is removed"):
        download(DownloadArguments(what, tmp_path / "out", server.address, **FEW))
    assert not list((tmp_path / "out").glob("*.zip"))


@pytest.mark.parametrize("part, field", [("images", "width"), ("annotations", "image_id"), ("annotations", "bbox"),
                                         ("categories", "name")])
def test_an_entry_that_lacks_a_field_is_named(server, tmp_path, part, field):
    annotating(server, lambda document: document[part][1].pop(field) and document or document)
    with pytest.raises(ValueError, match=rf"{part}\[1\] has no {field}"):
        download(subset_of(server, tmp_path / "out"))


def test_annotations_nested_without_end_are_refused(server, tmp_path):
    name = "annotations/instances_train2017.json"
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr(name, "[" * 200_000)
    server.files[ARCHIVE] = content.getvalue()
    with pytest.raises(ValueError, match="was no archive with .* is removed"):
        download(subset_of(server, tmp_path / "out"))


@pytest.mark.parametrize("name", ["val2017/..", "val2017/a\\..\\b.jpg", "val2017/.bashrc", "val2017/nul.jpg"])
def test_a_member_of_an_archive_with_a_strange_name_is_refused_and_nothing_unpacked(tmp_path, name):
    archive = tmp_path / "val2017.zip"
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("val2017/1.jpg", b"1")
        made.writestr(name, b"2")
    with pytest.raises(ValueError, match="val2017.zip is damaged or another archive .*it holds .* is removed"):
        unpack(archive, "val2017/", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == [] and not archive.exists()


def test_a_link_in_an_archive_becomes_a_file_within_the_folder(tmp_path):
    archive, link = tmp_path / "val2017.zip", zipfile.ZipInfo("val2017/../../1.jpg")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr(link, "/etc/passwd")
    unpack(archive, "val2017/", tmp_path / "out")
    assert not (tmp_path / "out" / "1.jpg").is_symlink() and (tmp_path / "out" / "1.jpg").read_text() == "/etc/passwd"
    assert not (tmp_path / "1.jpg").exists()


def test_an_archive_that_would_fill_the_disk_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(unpacking, "MOST_IMAGES", 10**6)
    archive = tmp_path / "val2017.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("val2017/1.jpg", bytes(10**6 + 1))
    with pytest.raises(ValueError, match="it would unpack to 1,000,001 bytes"):
        unpack(archive, "val2017/", tmp_path / "out")


def test_cocos_own_host_is_asked_by_https():
    assert module.HOSTS["coco"] == module.HOSTS["coco-subset"] == "https://s3.amazonaws.com/images.cocodataset.org"
    assert all(host.startswith("https://") for host in module.HOSTS.values())


def test_two_commands_for_one_folder_take_turns_and_the_second_finds_it_done(server, coco_dir, tmp_path, capsys):
    serve_images(server, coco_dir)
    server.stall, arguments = 0.05, DownloadArguments("coco", tmp_path / "coco", server.address)
    failed: list[BaseException] = []

    def one() -> None:
        try:
            download(arguments)
        except BaseException as error:
            failed.append(error)

    both = [threading.Thread(target=one) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert failed == [] and len(server.asked) == len({path for path, _ in server.asked}) == 3
    assert not list((tmp_path / "coco").glob("*.zip")) and capsys.readouterr().out.count("whole. Next:") == 2


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
    (out / ".2.partial.jpg").symlink_to("/dev/full")
    with pytest.raises(OSError, match="2.jpg could not be written: No space left on device; free some space and run"):
        unpack(archive, "val2017/", out)
    assert [path.name for path in out.iterdir()] == ["1.jpg"]
    unpack(archive, "val2017/", out)
    assert (out / "2.jpg").read_bytes() == b"1" * 100_000
