from __future__ import annotations

import contextlib
import io
import json
import math
import pickle
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from scratch.config import DataConfig
from scratch.data.annotations import read_annotations
from scratch.data.classes import Classes
from scratch.data.coco import CocoDetection, find_splits
from scratch.data.transforms import Augmentation

SHOW = Augmentation("none", 23, 37)  # the size that coco_set's images have


def _open(coco_set, split="train", **arguments):
    root = coco_set.write()
    return CocoDetection(root / split, root / "annotations" / f"instances_{split}.json", SHOW, **arguments)


# -- splits --------------------------------------------------------------------------------------------------------


def test_the_layout_of_coco_2017_is_found(coco_set):
    coco_set.image("train2017", 1)
    coco_set.image("val2017", 2)
    root = coco_set.write()
    assert find_splits(DataConfig(data=str(root))) == {
        "train": (root / "train2017", root / "annotations" / "instances_train2017.json"),
        "val": (root / "val2017", root / "annotations" / "instances_val2017.json")}


def test_the_plain_layout_and_its_test_split_are_found(coco_set):
    for id, split in enumerate(("train", "val", "test"), 1):
        coco_set.image(split, id)
    assert list(find_splits(DataConfig(data=str(coco_set.write())))) == ["train", "val", "test"]


def test_a_missing_split_is_named_with_all_that_was_looked_for(coco_set):
    coco_set.image("train", 1)
    config = DataConfig(data=str(coco_set.write()))
    with pytest.raises(FileNotFoundError) as error:
        find_splits(config, need=("train", "val"))
    assert "does not hold the split 'val'" in str(error.value)
    for name in ("val2017  (not there)", "instances_val2017.json  (not there)", "instances_val.json  (not there)"):
        assert name in str(error.value)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="^There is no .*nowhere"):
        find_splits(DataConfig(data=str(tmp_path / "nowhere")))


def test_explicit_paths_replace_the_layout(coco_set, tmp_path):
    coco_set.image("train", 1)
    coco_set.image("val", 2)
    root = coco_set.write()
    pair = (root / "val", root / "annotations" / "instances_val.json")
    found = find_splits(DataConfig(data=str(root), train_images=str(pair[0]), train_annotations=str(pair[1])))
    assert found == {"train": pair, "val": pair}


def test_beside_explicit_paths_no_shapes_are_drawn(coco_set, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    coco_set.image("val", 2)
    root = coco_set.write()
    config = DataConfig(val_images=str(root / "val"), val_annotations=str(root / "annotations" / "instances_val.json"))
    assert list(find_splits(config)) == ["val"] and not (tmp_path / "data").exists()


def test_an_explicit_path_that_is_not_there_is_refused(coco_set):
    coco_set.image("train", 1)
    config = DataConfig(data=str(coco_set.write()), val_images="nowhere", val_annotations="nowhere.json")
    with pytest.raises(FileNotFoundError, match="the split 'val'(.|\n)*nowhere.json  \\(not there"):
        find_splits(config)


def test_half_a_pair_is_refused():
    with pytest.raises(ValueError, match="wanted both or neither"):
        find_splits(DataConfig(train_images="somewhere"))


def test_shapes_are_drawn_where_the_run_starts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = find_splits(DataConfig(shapes_train=2, shapes_val=1))
    assert list(found) == ["train", "val"] and len(list((tmp_path / found["train"][0]).iterdir())) == 2


# -- classes -------------------------------------------------------------------------------------------------------


def test_labels_close_the_gaps_between_category_ids(coco_set):
    coco_set.image("train", 1)
    coco_set.box("train", 1, [5, 5, 4, 4], category_id=7)
    dataset = _open(coco_set)
    assert dataset.classes == Classes((3, 7), ("cat", "dog"))
    assert dataset[(0, 0)][1]["labels"].tolist() == [0, 1]


def test_classes_survive_a_checkpoint():
    classes = Classes((3, 7), ("cat", "dog"))
    assert Classes.from_dict(json.loads(json.dumps(classes.to_dict()))) == classes


def test_another_split_counts_with_the_training_splits_classes(coco_set):
    coco_set.image("val", 1)
    coco_set.split("val")["categories"] = [{"id": 3, "name": "cat"}]
    dataset = _open(coco_set, "val", classes=Classes((1, 3), ("ant", "cat")))
    assert dataset[(0, 0)][1]["labels"].tolist() == [1]
    assert dataset.ground_truth()["annotations"][0]["category_id"] == 3


def test_a_category_that_the_classes_do_not_know_is_refused(coco_set):
    coco_set.image("val", 1)
    with pytest.raises(ValueError, match="unknown category id: .*, annotation .* of 0001.png: category_id 3"):
        _open(coco_set, "val", classes=Classes((7,), ("dog",)))


def test_one_id_with_two_names_is_refused(coco_set):
    coco_set.image("val", 1)
    with pytest.raises(ValueError, match="category renamed: .*category 3: 'cat' here, 'ant' in the classes"):
        _open(coco_set, "val", classes=Classes((3, 7), ("ant", "dog")))


# -- targets -------------------------------------------------------------------------------------------------------


def test_a_sample_is_bytes_and_a_target_of_shares(coco_set):
    coco_set.image("train", 41)
    image, target = _open(coco_set)[(0, 0)]
    assert image.dtype == torch.uint8 and image.shape == (3, 23, 37)
    assert (target["image_id"], target["orig_size"], target["size"]) == (41, (23, 37), (23, 37))
    assert target["labels"].dtype == torch.int64 and target["boxes"].dtype == torch.float32
    torch.testing.assert_close(target["boxes"] * torch.tensor([37, 23, 37, 23]), torch.tensor([[7.5, 6.5, 11, 7]]))


def test_images_are_ordered_and_limited_by_their_ids(coco_set):
    for id in (9, 2, 5):
        coco_set.image("train", id)
    dataset = _open(coco_set, limit=2)
    assert [dataset[(0, i)][1]["image_id"] for i in range(len(dataset))] == [2, 5]
    assert {a["image_id"] for a in dataset.ground_truth()["annotations"]} == {2, 5}


def test_boxes_stay_with_their_image_in_whatever_order_they_are_written(coco_set):
    coco_set.image("train", 1)
    coco_set.image("train", 2)
    coco_set.box("train", 1, [0, 0, 5, 6])
    coco_set.split("train")["annotations"].reverse()
    dataset = _open(coco_set)
    assert [len(dataset[(0, i)][1]["boxes"]) for i in (0, 1)] == [2, 1]


def test_an_image_without_boxes_is_kept(coco_set):
    coco_set.image("train", 1)
    coco_set.split("train")["annotations"].clear()
    dataset = _open(coco_set)
    assert dataset[(0, 0)][1]["boxes"].shape == (0, 4) and dataset.cleaning == {"image without boxes": 1}


def test_crowds_are_left_out_of_targets_and_kept_in_the_ground_truth(coco_set):
    coco_set.image("train", 1)
    coco_set.box("train", 1, [0, 0, 30, 20], iscrowd=1)
    dataset = _open(coco_set)
    assert len(dataset[(0, 0)][1]["boxes"]) == 1 and dataset.cleaning == {"crowd box": 1}
    assert [a["iscrowd"] for a in dataset.ground_truth()["annotations"]] == [0, 1]


def test_the_transforms_randomness_follows_from_seed_epoch_and_index(coco_set):
    coco_set.image("train", 1)
    dataset = _open(coco_set, seed=11)
    draws = []
    class Watched(Augmentation):
        def __call__(self, image, boxes, rng):
            draws.append(rng.random())
            return super().__call__(image, boxes, rng)
    dataset.transform = Watched("none", 23, 37)
    dataset[(4, 0)], dataset[(4, 0)], dataset[(5, 0)]
    assert draws[0] == draws[1] != draws[2]
    assert draws[0] == random.Random("11 4 0").random()


def test_a_data_set_travels_to_a_worker_without_dicts(coco_set):
    coco_set.image("train", 1)
    dataset = pickle.loads(pickle.dumps(_open(coco_set)))
    assert dataset[(0, 0)][1]["image_id"] == 1 and dataset.annotations.problems == []


# -- coping --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bbox, kind, remains", [
    ([-3, 2, 10, 5], "box out of range", [0, 2, 7, 5]),
    ([30, 20, 10, 10], "box out of range", [30, 20, 7, 3]),
    ([30, 2, 7.005, 5], None, [30, 2, 7.005, 5]),
    ([50, 2, 10, 5], "box outside the image", None),
    ([5, 5, 0, 0], "zero-size box", None),
    ([5, 5, -2, 4], "negative-size box", None),
    ([5, 5, 2, -4], "negative-size box", None),
    ([5, math.nan, 2, 4], "NaN box", None),
    ([5, 5, math.inf, 4], "NaN box", None),
    ([5, None, 2, 4], "NaN box", None),
])
def test_a_box_is_clipped_or_dropped_and_counted(bbox, kind, remains, coco_set):
    coco_set.image("train", 1)
    coco_set.box("train", 1, bbox)
    dataset = _open(coco_set)
    assert dataset.cleaning == ({kind: 1} if kind else {})
    assert [a["bbox"] for a in dataset.ground_truth()["annotations"]][1:] == ([remains] if remains else [])
    boxes = dataset[(0, 0)][1]["boxes"]
    assert len(boxes) == (2 if remains else 1) and (boxes[:, :2] + boxes[:, 2:] / 2).max() <= 1


def test_an_area_is_kept_where_it_is_given_and_computed_where_it_is_not(coco_set):
    coco_set.image("train", 1)
    coco_set.box("train", 1, [1, 1, 6, 5], area=17.5)
    assert [a["area"] for a in _open(coco_set).ground_truth()["annotations"]] == [77, 17.5]


def test_duplicate_annotation_ids_are_numbered_afresh(coco_set):
    coco_set.image("train", 1)
    coco_set.box("train", 1, [1, 1, 6, 5], id=1000)
    coco_set.split("train")["annotations"][0]["id"] = 1000
    dataset = _open(coco_set)
    assert dataset.cleaning == {"duplicate annotation id": 1}
    assert [a["id"] for a in dataset.ground_truth()["annotations"]] == [1, 2]


def test_annotations_without_ids_are_fine(coco_set):
    coco_set.image("train", 1)
    del coco_set.split("train")["annotations"][0]["id"]
    assert _open(coco_set).cleaning == {}


def test_a_category_that_the_file_does_not_list_is_told_once_with_the_number_of_its_boxes(coco_set):
    coco_set.image("train", 1)
    for id, category in ((1001, 4), (1002, 4), (1003, 5), (1004, None)):
        coco_set.box("train", 1, [1, 1, 6, 5], id=id, category_id=category)
    del coco_set.split("train")["annotations"][-1]["category_id"]
    with pytest.raises(ValueError, match="; 4 to be put right") as refused:
        _open(coco_set)
    told = [line.partition("unknown category id: instances_")[2] for line in str(refused.value).splitlines()[1:]]
    assert all(line.endswith(": is its list another set's, or too short?") for line in told[:2])
    assert [line.partition(" of ")[0] + line.removesuffix(": is its list another set's, or too short?").rpartition(":")[2]
            for line in told] == [
        "train.json, annotation 1001 category_id 4 is not among the file's 2 categories (2 boxes)",
        "train.json, annotation 1003 category_id 5 is not among the file's 2 categories (1 box)",
        "train.json, annotation 1004 it has no category_id (1 box)"]


@pytest.mark.parametrize("spoil, message", [
    (lambda d: d["annotations"][0].update(image_id=99), "unknown image id: .* image_id 99 is no image of the file"),
    (lambda d: d["annotations"][0].update(category_id=4), "unknown category id: .* category_id 4 is not among the file's 2"),
    (lambda d: d["annotations"][0].pop("category_id"), "unknown category id: .* it has no category_id"),
    (lambda d: d["annotations"][0].update(bbox=[1, 2, 3]), r"malformed entry: .* bbox is \[1, 2, 3\]"),
    (lambda d: d["annotations"].append(None), "malformed entry: .* got None"),
    (lambda d: d["images"].append({**d["images"][0], "file_name": "a"}), "duplicate image id: .*image 1: 0001.png and a"),
    (lambda d: d["images"][0].pop("file_name"), "malformed entry: .*image number 0"),
    (lambda d: d["images"][0].update(id="one"), "malformed entry: .*image number 0"),
    (lambda d: d["categories"].append({"id": 7, "name": "cow"}), "duplicate category id: .*7: 'dog' and 'cow'"),
    (lambda d: d["categories"].append({"id": 8}), "malformed entry: .*category number 2"),
    (lambda d: (d["images"].clear(), d["annotations"].clear()), "no images"),
])
def test_what_cannot_be_coped_with_is_refused_at_once(spoil, message, coco_set):
    coco_set.image("train", 1)
    spoil(coco_set.split("train"))
    with pytest.raises(ValueError, match=message):
        _open(coco_set)


def test_all_refusals_are_listed_together(coco_set):
    coco_set.image("train", 1)
    for _ in range(25):
        coco_set.box("train", 99, [1, 1, 2, 2])
    with pytest.raises(ValueError, match="25 to be put right(.|\n)*and 5 more"):
        _open(coco_set)


@pytest.mark.parametrize("text, message", [
    ('{"images": [],\n "annotations": [', "not valid JSON: .* in line 2"),
    ("[]", "has no list 'images'"),
    ('{"images": [], "annotations": []}', "has no list 'categories'"),
    (b"\xff\xfe\xfd\xfc\xfb", "is not text|not valid JSON"),
])
def test_a_broken_annotation_file_says_what_and_where(text, message, tmp_path):
    path = tmp_path / "instances.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message):
        read_annotations(path)


def test_a_missing_annotation_file_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no annotation file"):
        read_annotations(tmp_path / "instances.json")


@pytest.mark.parametrize("mode, suffix", [
    ("L", "jpg"), ("P", "png"), ("RGBA", "png"), ("CMYK", "jpg"), ("I;16", "png")])
def test_images_of_every_colour_mode_are_trained_on(mode, suffix, coco_set):
    grey = Image.fromarray(np.full((23, 37), 30000, np.uint16))
    picture = grey if mode == "I;16" else Image.new("RGB", (37, 23), "teal").convert(mode)
    coco_set.image("train", 1, picture, suffix)
    image, target = _open(coco_set)[(0, 0)]
    assert image.shape == (3, 23, 37) and len(target["boxes"]) == 1 and image.float().mean() > 60


@pytest.mark.parametrize("annotated_upright", [True, False])
def test_pixels_and_boxes_agree_in_an_exif_rotated_photograph(annotated_upright, coco_set):
    # Stored lying, 37×23, with a bright patch at x 2-13, y 3-10; orientation 6 turns (x, y) to (22 − y, x).
    stored = np.zeros((23, 37, 3), dtype=np.uint8)
    stored[3:10, 2:13] = 255
    exif = Image.Exif()
    exif[274] = 6
    coco_set.image("train", 1, Image.fromarray(stored), "jpg", exif=exif, quality=95, subsampling=0)
    if annotated_upright:
        document = coco_set.split("train")
        document["images"][0].update(width=23, height=37)
        document["annotations"][0]["bbox"] = [13, 2, 7, 11]
    image, target = _open(coco_set)[(0, 0)]
    h, w = target["size"]
    cx, cy, bw, bh = (target["boxes"][0] * torch.tensor([w, h, w, h])).tolist()
    bright = (image[0] > 127).nonzero()
    assert image.shape[1:] == ((37, 23) if annotated_upright else (23, 37))
    assert bright.min(0).values.tolist() == pytest.approx([cy - bh / 2, cx - bw / 2], abs=1)
    assert (bright.max(0).values + 1).tolist() == pytest.approx([cy + bh / 2, cx + bw / 2], abs=1)


# -- real sets -----------------------------------------------------------------------------------------------------


def test_blood_cells_load_whole_and_their_two_empty_boxes_are_dropped(bccd_dir):
    config = DataConfig(data=str(bccd_dir), short_side=64, max_size=107)
    splits = find_splits(config, need=("train", "val", "test"))
    train = CocoDetection(*splits["train"], Augmentation.for_training(config))
    whole = Augmentation.for_evaluation(config)
    others = [CocoDetection(*splits[name], whole, train.classes) for name in ("val", "test")]
    assert [len(d) for d in (train, *others)] == [5, 2, 1]
    assert [d.cleaning["zero-size box"] for d in (train, *others)] == [1, 1, 0]
    assert sum(len(d.ground_truth()["annotations"]) for d in (train, *others)) == 40 + 26 + 10 - 2
    seen = sum(len(others[0][(0, i)][1]["boxes"]) for i in range(2))
    assert seen == 26 - 1


def test_coco_loads_with_80_classes_behind_90_ids_and_its_crowds_apart(coco_dir):
    config = replace(DataConfig(), data=str(coco_dir), short_side=64, max_size=107)
    splits = find_splits(config, need=("train", "val"))
    dataset = CocoDetection(*splits["train"], Augmentation.for_training(config))
    truth = dataset.ground_truth()
    assert len(dataset.classes) == 80 and dataset.classes.ids[-1] == 90 and dataset.classes.names[-1] == "toothbrush"
    assert dataset.cleaning == {"crowd box": 6} and sum(a["iscrowd"] for a in truth["annotations"]) == 6
    labels = torch.cat([dataset[(0, i)][1]["labels"] for i in range(len(dataset))])
    assert labels.max() < 80 and len(truth["annotations"]) == 3 * 40


def test_the_ground_truth_is_what_pycocotools_reads_from_the_file(coco_dir):
    folder, file = find_splits(DataConfig(data=str(coco_dir)))["val"]
    ours = CocoDetection(folder, file, SHOW).ground_truth()["annotations"]
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = COCO(str(file)).dataset["annotations"]
    fields = ("image_id", "category_id", "bbox", "area", "iscrowd")
    assert sorted([a[f] for f in fields] for a in ours) == sorted([a[f] for f in fields] for a in theirs)


def test_numbers_beyond_what_arrays_hold_are_reported_and_not_raised(coco_set):
    coco_set.image("train", 1)
    coco_set.image("train", 10**30)
    coco_set.box("train", 1, [10**400, 2, 3, 4])
    annotations = read_annotations(coco_set.write() / "annotations" / "instances_train.json")
    kinds = sorted(problem.kind for problem in annotations.problems)
    assert kinds == ["NaN box", "malformed entry"]  # nothing is said of the box of an image that is malformed itself
