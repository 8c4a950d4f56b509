"""An annotation file that is read in pieces, or that was kept, holds what the whole file does."""

from __future__ import annotations

import json
import os
import random

import numpy as np
import pytest

from scratch.config import DataConfig
from scratch.data import pieces
from scratch.data.annotation_file import load_instances
from scratch.data.annotations import read_annotations
from scratch.data.check import check_dataset
from scratch.data.coco import CocoDetection, find_layout
from scratch.data.pieces import read_instances
from scratch.data.rows import Entries, Images
from scratch.data.transforms import Augmentation
from scratch.kept_arrays import ENDING


def document(images=5, boxes=23):
    draw = random.Random(3)
    return {
        "info": {"year": 2017, "nested": [{"a": [1, {}]}, "]}"]}, "licenses": [],
        "images": [{"id": 10 * k, "file_name": f"bild {k} – é\u2028.png", "width": 37, "height": 23, "license": 3}
                   for k in range(images)],
        "annotations": [{"id": k, "image_id": 10 * draw.randrange(images), "category_id": 3, "iscrowd": int(k % 7 == 0),
                         "bbox": [draw.randrange(9), draw.random(), 1 + 9 * draw.random(), 1e-5 + draw.random()],
                         "area": draw.random(), "segmentation": [[1.5, 2, 3e-2, -4]] * draw.randrange(4)}
                        for k in range(boxes)],
        "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog", "supercategory": "animal"}]}


def read_whole(path):
    """What `load_instances` reads, with its lists as rows."""
    whole = load_instances(path)
    return {"images": list(Images(whole["images"])), "annotations": list(Entries(whole["annotations"])),
            "categories": whole["categories"]}


def listed(read):
    return {name: list(read[name]) for name in ("images", "annotations", "categories")}


@pytest.fixture(autouse=True)
def own_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("DETR_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def in_pieces(monkeypatch):
    """A file that cannot be read in pieces is not read at all."""
    monkeypatch.setattr(pieces, "load_instances", lambda path: pytest.fail("it was read as a whole"))


@pytest.mark.parametrize("how", [{}, {"indent": 1}, {"separators": (",", ":")}, {"ensure_ascii": False},
                                 {"indent": "\t", "ensure_ascii": False}])
@pytest.mark.parametrize("piece", [1, 2, 3, 7, 64, 10**6])
def test_pieces_of_any_length_give_what_the_whole_file_gives(piece, how, in_pieces, tmp_path, monkeypatch):
    monkeypatch.setattr(pieces, "PIECE", piece)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(document(), **how), encoding="utf-8")
    assert json.dumps(listed(read_instances(path))) == json.dumps(read_whole(path))


@pytest.mark.parametrize("order", [("categories", "annotations", "images"), ("annotations", "categories", "images"),
                                   ("images", "categories", "info", "annotations", "licenses")])
def test_the_lists_may_stand_in_any_order(order, in_pieces, tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({name: document()[name] for name in order}))
    assert json.dumps(listed(read_instances(path))) == json.dumps(read_whole(path))


@pytest.mark.parametrize("number", ["1.5", "-1e+5", "1E-7", "0", "-0", "1e5", "12345678901234567890", "NaN",
                                    "-Infinity", "Infinity", "1.0e10"])
@pytest.mark.parametrize("piece", [1, 2, 5])
def test_a_number_that_a_piece_cuts_is_read_whole(number, piece, in_pieces, tmp_path, monkeypatch):
    monkeypatch.setattr(pieces, "PIECE", piece)
    path = tmp_path / "a.json"
    path.write_text(f'{{"images":[{number},{number} ],"annotations":[{number}],"categories":[{number}], "x":{number}}}')
    assert repr(listed(read_instances(path))) == repr(read_whole(path))


@pytest.mark.parametrize("outline", ["[[1, 2.5, 3]]", "[[1,2],[3, 4.0]]", "[]", "[[]]", "[[1e2, -3]]", "[[-3, 0]]",
                                     '{"counts": [1, 2], "size": [3, 4]}', "[[1, 2], []]", "null", "[[NaN]]"])
@pytest.mark.parametrize("piece", [1, 20, 10**6])
def test_outlines_in_every_form_leave_the_rest_as_it_is(outline, piece, in_pieces, tmp_path, monkeypatch):
    monkeypatch.setattr(pieces, "PIECE", piece)
    path = tmp_path / "a.json"
    path.write_text('{"images":[],"annotations":[{"id":1,"segmentation": %s,"bbox":null},{"segmentation":%s, '
                    '"image_id":2,"category_id":3,"bbox":[1,2,3,4]}],"categories":[]}' % (outline, outline))
    assert repr(listed(read_instances(path))) == repr(read_whole(path))


@pytest.mark.parametrize("text", ['"segmentation": [[1, 2]]', '\\"segmentation": [[1, 2]]', 'x"', '"segmentation"'])
def test_a_text_that_looks_like_an_outline_is_read_as_it_is(text, in_pieces, tmp_path):
    path = tmp_path / "a.json"
    entry = {"bbox": text, "id": text}
    path.write_text(json.dumps({"images": [], "annotations": [entry], "categories": [text, [text]]}))
    assert listed(read_instances(path)) == read_whole(path)


@pytest.mark.parametrize("outline", ["[[1,, 2]]", "[[1 2]]", "[[1, 2]", "[[1, 2]]]", "[1, 2]]", "[[, 1]]", "[[1, 2],]"])
def test_an_outline_whose_brackets_or_commas_are_wrong_is_refused_as_before(outline, tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"images":[],"annotations":[{"segmentation": %s, "bbox":[1,2,3,4]}],"categories":[]}' % outline)
    with pytest.raises(ValueError, match="is not valid JSON") as found:
        read_instances(path)
    with pytest.raises(ValueError) as wanted:
        load_instances(path)
    assert str(found.value) == str(wanted.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_the_mark_of_utf_8_does_no_harm(encoding, in_pieces, tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(json.dumps(document(), ensure_ascii=False).encode(encoding))
    assert listed(read_instances(path)) == read_whole(path)


@pytest.mark.parametrize("piece", [1, 4, 10**6])
def test_every_file_that_is_cut_or_spoilt_is_explained_as_before(piece, tmp_path, monkeypatch):
    monkeypatch.setattr(pieces, "PIECE", piece)
    path = tmp_path / "a.json"
    sound = json.dumps(document(2, 3)).encode()
    draw, said = random.Random(piece), 0
    for _ in range(60):
        content = bytearray(sound)
        at = draw.randrange(len(content))
        what = draw.choice(["cut", "flip", "insert", "end"])
        if what == "cut":
            del content[at:]
        elif what == "flip":
            content[at] ^= 1 << draw.randrange(8)
        elif what == "insert":
            content[at:at] = draw.choice([b"[", b"{", b'"', b"\xff", b"\0", b"NaN", b"-", b",", b"1e999"])
        else:
            content += draw.choice([b" \n", b"\0", b"{}", b"]", b",", b"1"])
        path.write_bytes(content)
        try:
            wanted = repr(read_whole(path))
        except ValueError as error:
            wanted, said = str(error), said + 1
        try:
            found = repr(listed(read_instances(path)))
        except ValueError as error:
            found = str(error)
        assert found == wanted
    assert said > 20


def test_a_file_that_is_not_there_is_explained_as_before(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no annotation file"):
        read_instances(tmp_path / "a.json")
    with pytest.raises(ValueError, match="is a folder, wanted an annotation file"):
        read_instances(tmp_path)


# -- kept for the next run -----------------------------------------------------------------------------------------


@pytest.fixture
def large_set(coco_set, monkeypatch):
    """A set whose files count as large; with all that annotations may have, but what is refused."""
    monkeypatch.setattr(pieces, "LARGE", 1)
    for split, ids in (("train", range(1, 41)), ("val", (50, 51))):
        for id in ids:
            coco_set.image(split, id)
            coco_set.box(split, id, [5, 2.5, 6 + id % 5, 7], category_id=7, area=30.5)
    for bbox, more in (([1, 1, 0, 5], {}), ([-5, 1, 9, 5], {}), ([90, 1, 9, 5], {}), ([1, 1, 5, 5], {"iscrowd": 1}),
                       ([1, 1, 5, 5], {"id": 1001}), (["1", 1, 5, "5"], {}), ([1, None, 5, 5], {})):
        coco_set.box("train", 1, bbox, **more)
    coco_set.split("train")["images"][3]["width"] = "37"
    coco_set.split("train")["images"].reverse()
    return coco_set


def contents(a):
    return [a.classes, *(getattr(a, name).tolist() for name in ("image_ids", "file_names", "sizes", "offsets", "labels",
                                                                "boxes_xywh", "areas", "crowd")),
            [part.tolist() for part in a.written], a.listed, a.problems]


def kept_files(root):
    return sorted(root.rglob(f".*{ENDING}"))


@pytest.mark.parametrize("arguments", [{}, {"limit": 7}, {"only": "dog"}, {"as_is": True, "most": 1}])
def test_arrays_and_problems_of_a_kept_file_are_those_of_the_file(arguments, large_set):
    file = large_set.write() / "annotations" / "instances_train.json"
    wanted = contents(read_annotations(file, **arguments, remember=False))
    assert not kept_files(large_set.root) and wanted[-1]
    read_annotations(file)
    assert len(kept_files(large_set.root)) == 1
    assert contents(read_annotations(file, **arguments)) == wanted


def test_a_data_set_report_and_truth_of_kept_files_are_those_of_the_files(large_set):
    root = large_set.write()
    found = []
    for remember in (False, True, True):
        data = DataConfig(data=str(root), remember=remember)
        report = check_dataset(data, 10, decode=False)
        dataset = CocoDetection(*find_layout(data).splits["train"], Augmentation("none", 23, 37), reading=data)
        found.append((report.table(None), report.problems, dataset.ground_truth(), dataset.cleaning,
                      [(pixels.tolist(), target["boxes"].tolist(), target["labels"].tolist(), target["image_id"])
                       for pixels, target in (dataset[(0, k)] for k in (0, 3, 39))]))
    assert found[0] == found[1] == found[2]
    assert len(kept_files(root)) == 2


def test_a_large_file_is_read_once_in_a_run_and_not_at_all_in_the_next(large_set, monkeypatch):
    reads = []
    monkeypatch.setattr(pieces, "_read", lambda path, read=pieces._read: (reads.append(path.name), read(path))[1])
    data = DataConfig(data=str(large_set.write()))
    for _ in range(2):
        check_dataset(data, 10, decode=False)
        for folder, file in find_layout(data).splits.values():
            CocoDetection(folder, file, Augmentation("none", 23, 37), reading=data)
    assert sorted(reads) == ["instances_train.json", "instances_val.json"]


def test_a_file_of_the_same_length_and_times_with_another_digit_is_read_anew(large_set, capsys):
    file = large_set.write() / "annotations" / "instances_train.json"
    before = read_annotations(file)
    times = os.stat(file)
    content = file.read_bytes()
    file.write_bytes(content.replace(b"[2, 3, 11, 7]", b"[2, 3, 11, 9]", 1))
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    after = read_annotations(file)
    assert (before.boxes_xywh != after.boxes_xywh).sum() == 1
    assert "is of something that has changed since" in capsys.readouterr().err
    assert contents(read_annotations(file)) == contents(after) and capsys.readouterr().err == ""


def test_a_kept_file_that_is_damaged_is_read_anew_with_a_line(large_set, capsys):
    file = large_set.write() / "annotations" / "instances_train.json"
    wanted = contents(read_annotations(file))
    (kept,) = kept_files(large_set.root)
    kept.write_bytes(kept.read_bytes()[:-7])
    assert contents(read_annotations(file)) == wanted
    assert capsys.readouterr().err == f"note: {kept} is damaged: what it stood for is read anew\n"
    assert kept_files(large_set.root) == [kept]


def test_a_set_in_a_folder_that_cannot_be_written_to_is_kept_in_the_cache_folder(large_set, tmp_path, monkeypatch):
    file = large_set.write() / "annotations" / "instances_train.json"
    wanted = contents(read_annotations(file, remember=False))
    file.with_name(f".{file.name}.annotations{ENDING}").mkdir()
    read_annotations(file)
    assert len(list((tmp_path / "cache" / "read").iterdir())) == 1
    monkeypatch.setattr(pieces, "_read", lambda path: pytest.fail("it was read again"))
    assert contents(read_annotations(file)) == wanted


def test_a_small_file_and_one_of_other_entries_alone_are_not_kept(large_set, monkeypatch):
    file = large_set.write() / "annotations" / "instances_train.json"
    for entry in large_set.split("train")["annotations"]:
        entry["image_id"] = str(entry["image_id"])
    large_set.write()
    read_annotations(file)
    monkeypatch.setattr(pieces, "LARGE", 10**6)
    read_annotations(file.with_name("instances_val.json"))
    assert not kept_files(large_set.root)


def test_sizes_that_only_pictures_tell_are_read_from_the_pictures_each_time(large_set):
    large_set.split("train")["images"][0]["width"] = 0
    root = large_set.write()
    file = root / "annotations" / "instances_train.json"
    for _ in range(2):
        found = read_annotations(file, folder=root / "train")
        assert [problem.kind for problem in found.problems].count("size taken from the picture") == 1
        assert (found.sizes == [37, 23]).all()


def test_the_parts_of_one_file_without_a_split_share_what_is_kept_of_it(large_set):
    root = large_set.write()
    (root / "annotations" / "instances_train.json").rename(root / "train" / "annotations.json")
    layout = find_layout(DataConfig(data=str(root / "train")))
    assert layout.division is not None
    parts = {remember: [contents(read_annotations(source, folder=folder, remember=remember))
                        for folder, source in layout.splits.values()] for remember in (False, True)}
    again = [contents(read_annotations(source, folder=folder)) for folder, source in layout.splits.values()]
    assert parts[False] == parts[True] == again and len(kept_files(root)) == 1
    assert np.add(*(part[-2] for part in again)) == 87


@pytest.mark.parametrize("outline", ["[[" + "12, " * 400 + "1e-5]]", "[[" + "12, " * 400 + "x]]", "[[" + "7, " * 400])
def test_an_outline_that_ends_unlike_one_is_not_read_in_all_ways_that_its_numbers_could_be(outline):
    """In all ways, 400 numbers would take 2⁴⁰⁰ tries, and this test for ever."""
    assert not pieces._OUTLINE.match(f'"segmentation": {outline}')


def test_a_kept_file_whose_columns_are_others_is_read_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(pieces, "LARGE", 1)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(document()))
    wanted = listed(read_instances(path))
    made_of = {"sha256": pieces._digest_of(path), "columns": pieces._COLUMNS}
    pieces.keep(path, "annotations", made_of, {"images.id": np.arange(3)}, {"categories": []})
    assert listed(read_instances(path)) == wanted


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(FileNotFoundError):
        read_instances(tmp_path / "a.json")
