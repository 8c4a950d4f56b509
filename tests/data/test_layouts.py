"""One drawn set in every layout, as each tool writes it: the same pictures, boxes and classes come out of all."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scratch.config import DataConfig
from scratch.data.annotations import read_annotations
from scratch.data.check import check_dataset
from scratch.data.coco import CocoDetection, find_layout, find_splits
from scratch.data.file_names import find_files
from scratch.data.listing import Listing
from scratch.data.per_picture import Pictures
from scratch.data.split import place
from scratch.data.transforms import Augmentation
from tests.conftest import SHARED
from tests.layouts import (CLASSES, KEEPS_CROWDS, LACKS_EMPTY, WITH_SPLITS, WITHOUT, document, draw, labelme_content,
                           truth, write)

SPLITS = ("train", "val", "test")
MARKS = {"cvat": "COCO files", "coco": "COCO", "roboflow": "Roboflow COCO", "labelme": "LabelMe"}
# Of the others, by the first word.
NAMES = {"yolo": "YOLO", "darknet": "YOLO", "voc": "Pascal VOC", "csv": "table", "lines": "table",
         "cvat": "CVAT", "via": "VIA", "createml": "Create ML"}


def three_splits(crowds: bool):
    return {split: draw(10 - 2 * k, seed=k, crowds=crowds) for k, split in enumerate(SPLITS)}


def read_back(root: Path, split: str):
    """The pictures of a split by the names that they were drawn with, and their objects; as cleaned for training."""
    folder, source = find_splits(DataConfig(data=str(root)))[split]
    a = read_annotations(source, folder=folder)
    assert not [p for p in a.problems if p.severity == "refused"], a.problems
    files = find_files(folder, a.file_names.tolist()).paths
    assert all((folder / file).is_file() and file for file in files)
    found = {}
    for i, file in enumerate(files):
        rows = range(a.offsets[i], a.offsets[i + 1])
        name = file.rpartition("/")[2]
        name = name[9:] if name[8:9] == "-" and name.startswith("1f2e") else name  # Label Studio's prefix
        with Image.open(folder / file) as image:
            assert image.size == tuple(a.sizes[i])
        found[name] = sorted((a.classes.names[a.labels[r]], tuple(a.boxes_xywh[r].tolist()), bool(a.crowd[r]))
                             for r in rows)
    return found


def told_of(kind: str, pictures):
    """What a layout can say of these pictures."""
    return {name: objects for name, objects in truth(pictures).items() if objects or kind not in LACKS_EMPTY}


def assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    for name in wanted:
        assert [(c, crowd) for c, _, crowd in found[name]] == [(c, crowd) for c, _, crowd in wanted[name]], name
        np.testing.assert_allclose([box for _, box, _ in found[name]], [box for _, box, _ in wanted[name]], rtol=0,
                                   atol=1e-9, err_msg=name)


@pytest.mark.parametrize("kind", WITH_SPLITS)
def test_every_layout_with_splits_holds_the_same_boxes_and_classes(kind, tmp_path):
    splits = three_splits(crowds=kind in KEEPS_CROWDS)
    root = WITH_SPLITS[kind](tmp_path / "my set", splits)
    layout = find_layout(DataConfig(data=str(root)))
    assert list(layout.splits) == list(SPLITS) and layout.division is None
    assert layout.name == (MARKS.get(kind) or NAMES[kind.partition("_")[0]])
    assert layout.line().startswith(f"layout: {layout.name} (") and layout.line().endswith(": train, val, test")
    for split, pictures in splits.items():
        assert_same(read_back(root, split), told_of(kind, pictures))


@pytest.mark.parametrize("kind", WITHOUT)
def test_every_layout_without_a_split_holds_the_same_boxes_and_is_divided_by_the_names(kind, tmp_path):
    pictures = draw(16, crowds=kind in KEEPS_CROWDS)
    root = WITHOUT[kind](tmp_path / "my set", {"all" if kind != "darknet" else "train": pictures})
    layout = find_layout(DataConfig(data=str(root)))
    assert list(layout.splits) == ["train", "val"]
    assert "about 80 % train, 20 % val, by a hash of the file names" in layout.line()
    train, val = read_back(root, "train"), read_back(root, "val")
    wanted = told_of(kind, pictures)
    assert_same(train | val, wanted)
    assert not train.keys() & val.keys() and len(train) + len(val) == len(wanted) and train and val
    if kind != "label_studio":  # whose names have a prefix
        assert all((place(name) < 0.2) == (name in val) for name in wanted)


@pytest.mark.parametrize("kind", [*WITH_SPLITS, *(kind for kind in WITHOUT if kind not in WITH_SPLITS)])
def test_the_check_of_a_sound_set_refuses_nothing_and_loses_nothing(kind, tmp_path):
    if kind in WITH_SPLITS:
        root = WITH_SPLITS[kind](tmp_path / "set", three_splits(False))
    else:
        root = WITHOUT[kind](tmp_path / "set", {"train" if kind == "darknet" else "all": draw(12)})
    report = check_dataset(DataConfig(data=str(root)), 100, decode=True, need=("train", "val"))
    report.refuse()
    usual = {"picture without annotations" if kind in LACKS_EMPTY else "image without boxes",
             "file name that nearly matches", "size taken from the picture"}
    if kind.startswith(("labelme", "cvat_xml", "via")) or "polygons" in kind:
        usual.add("outline of an object")
    if kind.startswith("yolo"):
        usual.add("picture without a label file")
    if kind not in WITH_SPLITS:  # of 12 pictures, two or three judge
        usual.add("class that is not judged")
    assert {problem.kind for problem in report.problems} <= usual
    assert report.layout == find_layout(DataConfig(data=str(root))).line()


def test_a_sample_of_a_layout_is_that_of_the_coco_original(tmp_path):
    splits = three_splits(False)
    show = Augmentation("none", 40, 80)
    samples = []
    for kind in ("coco", "yolo", "voc", "roboflow", "labelme", "csv_roboflow"):
        folder, source = find_splits(DataConfig(data=str(WITH_SPLITS[kind](tmp_path / kind, splits))))["val"]
        dataset = CocoDetection(folder, source, show)
        dataset = pickle.loads(pickle.dumps(dataset))  # as a worker gets it
        name = [Path(n).name for n in dataset.annotations.file_names].index("s1 a 1.jpg")
        samples.append(dataset[(0, name)])
    for pixels, target in samples[1:]:
        assert (pixels == samples[0][0]).all() and sorted(target["labels"].tolist()) == [0, 1, 2]
        np.testing.assert_allclose(target["boxes"].numpy(), samples[0][1]["boxes"].numpy(), atol=1e-6)


@pytest.mark.parametrize("kind", ["yolo_label_studio", "voc_flat", "fiftyone", "labelme_folders", "csv_retinanet",
                                  "cvat_xml", "via_csv"])
def test_a_picture_that_is_added_moves_no_other(kind, tmp_path):
    pictures = draw(30)
    few = WITHOUT[kind](tmp_path / "few", {"all": pictures[:20]})
    more = WITHOUT[kind](tmp_path / "more", {"all": pictures})
    for split in ("train", "val"):
        assert read_back(few, split).keys() <= read_back(more, split).keys()


@pytest.mark.parametrize("kind", WITHOUT)
def test_names_in_split_json_that_are_no_pictures_are_told_and_a_file_of_such_names_is_refused(kind, tmp_path):
    root = WITHOUT[kind](tmp_path, {"all": draw(6)})
    folder, source = find_splits(DataConfig(data=str(root)))["train"]
    name = str(read_annotations(source, folder=folder).file_names[0])

    def problems(**parts: list[str]) -> list[tuple[str, int]]:
        write(root / "split.json", parts)
        report = check_dataset(DataConfig(data=str(root)), 100, decode=False)
        return [(p.kind, p.times) for p in report.problems if p.kind in ("name without a picture", "malformed entry")]
    assert not problems(train=[name])
    assert problems(train=[name, "gone.jpg", "gone 2.jpg"]) == [("name without a picture", 2)]
    assert problems(train=["gone.jpg"]) == [("malformed entry", 1)] * 2


def test_a_training_split_alone_is_divided_and_test_stays_test(tmp_path):
    splits = {"train": draw(20), "test": draw(4, seed=1)}
    for kind in ("roboflow", "yolo", "voc_roboflow", "labelme", "csv_tensorflow"):
        root = WITH_SPLITS[kind](tmp_path / kind, splits)
        layout = find_layout(DataConfig(data=str(root)))
        assert list(layout.splits) == ["train", "val", "test"] and "no split to judge by" in layout.line()
        assert_same(read_back(root, "test"), told_of(kind, splits["test"]))
        assert_same(read_back(root, "train") | read_back(root, "val"), told_of(kind, splits["train"]))


@pytest.mark.parametrize("kind", ["voc", "yolo", "coco", "roboflow", "csv_roboflow"])
def test_a_folder_around_the_set_is_gone_into_and_of_two_sets_neither_is_taken(kind, tmp_path):
    splits = three_splits(False)
    WITH_SPLITS[kind](tmp_path / "all" / "one", splits)
    for split, pictures in splits.items():
        assert_same(read_back(tmp_path / "all", split), told_of(kind, pictures))
    WITH_SPLITS[kind](tmp_path / "all" / "two", splits)
    for root in (tmp_path / "all", tmp_path):
        with pytest.raises(FileNotFoundError, match="Did you mean .*one or .*two"):
            find_splits(DataConfig(data=str(root)))


def test_a_table_inside_a_yolo_set_or_around_it_changes_nothing(tmp_path):
    splits = three_splits(False)
    root = WITH_SPLITS["yolo_roboflow"](tmp_path / "around" / "set", splits)
    write(root / "labels.csv", "filename,class,xmin,ymin,xmax,ymax\n7.jpg,bee,1,1,9,9\n")
    for folder in (root, root.parent):
        layout = find_layout(DataConfig(data=str(folder)))
        assert layout.name == "YOLO" and layout.root == root


def test_a_yolo_set_and_the_same_set_as_tables_are_two_sets(tmp_path):
    WITH_SPLITS["yolo"](tmp_path / "yolo", three_splits(False))
    WITH_SPLITS["csv_roboflow"](tmp_path / "csv", three_splits(False))
    with pytest.raises(FileNotFoundError, match="Did you mean .*csv or .*yolo"):
        find_splits(DataConfig(data=str(tmp_path)))


def test_the_yolo_set_that_was_made_of_labelmes_files_keeps_its_split(tmp_path):
    """labelme2yolo writes YOLODataset/ into the folder of the JSON files."""
    WITHOUT["labelme"](tmp_path, {"all": draw(8)})
    WITH_SPLITS["yolo"](tmp_path / "YOLODataset", {"train": draw(6), "val": draw(8)[6:]})
    layout = find_layout(DataConfig(data=str(tmp_path)))
    assert layout.name == "YOLO" and layout.root == tmp_path / "YOLODataset" and layout.division is None


def test_a_split_of_cocos_is_not_replaced_by_a_table_or_labelmes_files_beside_it(tmp_path):
    root = WITH_SPLITS["coco"](tmp_path, {"val": draw(4)})
    write(root / "results.csv", "image,label,x,y,w,h,score\n7.jpg,ant,1,1,5,5,0.9\n")
    for p in draw(4):
        write(root / "val" / f"{p.name.rpartition('.')[0]}.json", labelme_content(p))
    layout = find_layout(DataConfig(data=str(root)))
    assert layout.name == "COCO" and list(layout.splits) == ["val"]


def test_after_a_layout_with_pictures_to_learn_from_no_other_is_looked_for(tmp_path, monkeypatch):
    def never(listing):
        raise AssertionError(listing.root)
    monkeypatch.setattr("scratch.data.layouts._LAST", (("table", never),))
    for kind in ("coco", "yolo", "voc"):
        root = WITH_SPLITS[kind](tmp_path / kind, {"train": draw(4), "val": draw(4, 1)})
        assert find_layout(DataConfig(data=str(root))) is not None


def test_of_pictures_with_one_name_that_in_the_same_folder_is_meant(tmp_path):
    listing = Listing(tmp_path, {"": ["a.jpg"], "backup": ["a.jpg"], "one/images": ["a.jpg", "a.png"],
                                 "two/images": ["a.jpg"], "two/labels": []})
    pictures = Pictures(listing)
    assert pictures.of_file("a.json", "a.jpg") == "a.jpg"
    assert pictures.of_file("one/images/a.json", "C:\\x\\a.png") == "one/images/a.png"
    assert pictures.of_file("two/labels/a.json", "a.jpg") == "two/images/a.jpg"
    assert pictures.of_row("labels.csv", "two/images/a") == "two/images/a.jpg"
    assert pictures.of_row("one/labels.csv", "C:\\x\\one\\images\\a.png") == "one/images/a.png"


def test_pictures_of_one_name_in_many_folders_are_found_without_comparing_all(tmp_path, monkeypatch):
    names = [f"{k}.jpg" for k in range(5)]
    listing = Listing(tmp_path, {f"v{k}": names for k in range(50)})
    pictures = Pictures(listing)
    monkeypatch.setattr("scratch.data.per_picture.alike", None)
    assert all(pictures.of_file(f"v{k}/3.json", "3.jpg") == f"v{k}/3.jpg" for k in range(50))


def test_a_set_two_folders_down_keeps_its_file_of_names(tmp_path):
    WITH_SPLITS["yolo"](tmp_path / "a" / "b", {"train": draw(4), "val": draw(4, 1)})
    layout = find_layout(DataConfig(data=str(tmp_path)))
    assert layout.root == tmp_path / "a" / "b" and "dataset.yaml" in layout.line()


def test_what_is_no_file_is_not_opened(tmp_path):
    root = WITH_SPLITS["yolo"](tmp_path / "set", {"train": draw(4), "val": draw(4, 1)})
    pipes = ("data.yaml", "annotations.json", "images/train/b.jpg", "labels/train/b.txt", "images/train/b.xml")
    for name in pipes:  # to open one is to wait for ever
        os.mkfifo(root / name)
    (root / "labels/train/c.txt").symlink_to("/dev/zero")
    (root / "images/train/gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    report = check_dataset(DataConfig(data=str(root)), 100, decode=True)
    assert [p.kind for p in report.problems if p.severity == "refused"] == ["missing image"]


def test_what_cannot_be_read_is_told_with_all_that_was_looked_for_and_what_is_there(tmp_path):
    root = tmp_path / "set"
    draw(2)[0].save(root / "pics")
    write(root / "notes.csv", "a,b")
    with pytest.raises(FileNotFoundError) as error:
        find_splits(DataConfig(data=str(root)))
    for words in ("COCO ", "Roboflow COCO", "one COCO file", "YOLO", "Pascal VOC", "LabelMe", "table", "1 .jpg, 1 .csv",
                  "folders pics", "does not hold any split"):
        assert words in str(error.value) or words == "1 .jpg, 1 .csv" and "1 .csv, 1 .jpg" in str(error.value)


def test_annotations_without_their_pictures_are_named(tmp_path):
    write(tmp_path / "set" / "labels.json", document(draw(3)))
    with pytest.raises(FileNotFoundError, match="labels.json names pictures, but none of them is in this folder"):
        find_splits(DataConfig(data=str(tmp_path / "set")))


def test_a_layout_without_the_split_that_is_needed_says_what_it_is(tmp_path):
    root = WITH_SPLITS["yolo"](tmp_path / "set", {"train": draw(4), "val": draw(4, 1)})
    with pytest.raises(FileNotFoundError, match="'test'. It was recognised as layout: YOLO"):
        find_splits(DataConfig(data=str(root)), need=("test",))


def test_the_check_of_a_layout_without_a_split_to_learn_from_says_what_it_is(tmp_path):
    root = WITH_SPLITS["yolo_folders"](tmp_path / "set", {"val": draw(4)})
    report = check_dataset(DataConfig(data=str(root)), 100, decode=False, need=("train", "val"))
    (problem,) = [p for p in report.problems if p.kind == "missing split"]
    assert "recognised as YOLO, with val alone" in str(problem) and "instances_train" not in str(problem)


def test_files_that_lead_outside_are_not_looked_at(tmp_path):
    outside = draw(3)
    for p in outside:
        p.save(tmp_path / "outside" / "images")
        write(tmp_path / f"outside/labels/{p.name.rpartition('.')[0]}.txt", "0 0.5 0.5 0.1 0.1")
    root = WITHOUT["yolo_label_studio"](tmp_path / "set", {"all": draw(5)})
    write(root / "data.yaml", f"path: {tmp_path}/outside\ntrain: {tmp_path}/outside/images\nval: ../outside/images\n"
                              "names: [a, b, c]\n")
    layout = find_layout(DataConfig(data=str(root)))
    for folder, source in layout.splits.values():
        assert folder == root
        names = read_annotations(source, folder=folder).file_names.tolist()
        assert all((root / name).is_file() and ".." not in name and not name.startswith("/") for name in names)


@pytest.mark.parametrize("kind, ending", [("yolo", ".txt"), ("yolo", ".yaml"), ("voc_roboflow", ".xml"),
                                          ("roboflow", ".json"), ("voc", ".txt"), ("labelme", ".json"),
                                          ("csv_roboflow", ".csv"), ("cvat_xml", ".xml"), ("via", ".json"),
                                          ("createml", ".json")])
def test_a_damaged_file_ends_in_a_report_or_an_error_in_words(kind, ending, tmp_path):
    root = WITH_SPLITS[kind](tmp_path / "set", {"train": draw(4), "val": draw(3, 1)})
    rng = np.random.default_rng(0)
    files = sorted(path for path in root.rglob(f"*{ending}") if path.stat().st_size)
    for _ in range(30):
        file = files[rng.integers(len(files))]
        sound = file.read_bytes()
        content = bytearray(sound)
        for _ in range(rng.integers(1, 6)):
            place = rng.integers(len(content))
            content[place:place + rng.integers(0, 3)] = rng.choice(
                [b"", b"\0", b"\xff", b"<", b"9" * 400, b"-1e999", b"nan", b"\n", b"]", b"{", "é".encode(), b"../"])
        file.write_bytes(bytes(content))
        try:
            for folder, source in find_splits(DataConfig(data=str(root))).values():
                a = read_annotations(source, folder=folder)
                assert np.isfinite(a.boxes_xywh).all() and (a.boxes_xywh[:, 2:] > 0).all()
        except (ValueError, FileNotFoundError) as error:
            assert str(root) in str(error)
        file.write_bytes(sound)


def test_the_raccoons_are_read_as_they_lie():
    root = SHARED / "data" / "raccoon"
    if not root.exists():
        pytest.skip("the data set raccoon, of many megabytes, is not beside this checkout (set DETR_SHARED)")
    layout = find_layout(DataConfig(data=str(root)))
    assert layout.name == "Pascal VOC" and "no split to judge by" in layout.line()
    parts = {split: read_annotations(source, folder=folder) for split, (folder, source) in layout.splits.items()}
    assert sum(map(len, parts.values())) == 200 and sum(len(a.labels) for a in parts.values()) == 217
    assert all(a.classes.names == ("raccoon",) and not a.problems for a in parts.values())
    a = next(a for a in parts.values() if "images/raccoon-1.jpg" in a.file_names.tolist())
    row = a.file_names.tolist().index("images/raccoon-1.jpg")
    assert a.sizes[row].tolist() == [650, 417]
    assert a.boxes_xywh[a.offsets[row]].tolist() == [80, 87, 442, 321]  # 81 88 522 408, counted from 1
    check_dataset(DataConfig(data=str(root)), 100, decode=False, need=("train", "val")).refuse()


def test_the_classes_are_the_same_in_every_layout(tmp_path):
    for kind, build in WITH_SPLITS.items():
        folder, source = find_splits(DataConfig(data=str(build(tmp_path / kind, three_splits(False)))))["train"]
        assert read_annotations(source, folder=folder).classes.names == CLASSES, kind
