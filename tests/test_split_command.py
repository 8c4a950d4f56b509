"""split DIR: what is written down is what every command reads, and it stays when pictures are added."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

import detr_scratch
from scratch.config import DataConfig
from scratch.data.annotations import read_annotations
from scratch.data.coco import find_layout
from scratch.data.shapes import draw_scene
from scratch.printable import command
from tests.layouts import draw, fiftyone, roboflow, voc_flat, yolo, yolo_label_studio


def names(root) -> dict[str, list[str]]:
    layout = find_layout(DataConfig(data=str(root)))
    return {split: read_annotations(source, folder=folder).file_names.tolist()
            for split, (folder, source) in layout.splits.items()}


@pytest.mark.parametrize("build", [fiftyone, yolo_label_studio, voc_flat])
def test_the_file_holds_the_split_that_was_there_without_it(build, tmp_path, capsys):
    root = build(tmp_path / "my set", {"all": draw(16)})
    before = names(root)
    detr_scratch.main(["split", str(root)])
    written = json.loads((root / "split.json").read_text(encoding="utf-8"))
    assert {split: sorted(written[split]) for split in ("train", "val")} == {s: sorted(n) for s, n in before.items()}
    assert names(root) == before
    assert "divided as split.json says" in find_layout(DataConfig(data=str(root))).line()
    assert f"{len(before['train'])} train, {len(before['val'])} val: written to" in capsys.readouterr().out


def test_what_stands_there_stays_and_new_pictures_are_added(tmp_path, capsys):
    root = yolo_label_studio(tmp_path / "set", {"all": draw(10)})
    detr_scratch.main(["split", str(root), "--val", "0.5", "--test", "0.2"])
    written = json.loads((root / "split.json").read_text(encoding="utf-8"))
    written["train"].append(written["val"].pop())  # by hand
    (root / "split.json").write_text(json.dumps(written))
    yolo_label_studio(root, {"all": draw(20)})
    detr_scratch.main(["split", str(root)])
    again = json.loads((root / "split.json").read_text(encoding="utf-8"))
    assert all(set(written[split]) <= set(again[split]) for split in ("train", "val", "test"))
    assert again["rule"] == {"val": 0.5, "test": 0.2} and sum(len(again[s]) for s in ("train", "val", "test")) == 20
    assert "(10 as before, 10 new)" in capsys.readouterr().out and list(names(root)) == ["train", "val", "test"]


def pictures_of(root) -> list:
    return sorted(path for path in root.rglob("*") if path.suffix.lower() in (".jpg", ".png", ".jpeg"))


def film(root, scenes: int) -> dict[str, int]:
    """Make of a set's pictures a film of so many scenes, in turn; the scene of each file's name."""
    for k, path in enumerate(pictures_of(root)):
        with Image.open(path) as before:
            size = before.size
        Image.fromarray(draw_scene(np.random.default_rng(k % scenes))[0]).resize(size).save(path, quality=50 + k)
    return {path.name: k % scenes for k, path in enumerate(pictures_of(root))}


def scenes_of(root, of: dict[str, int]) -> list[set[int]]:
    written = json.loads((root / "split.json").read_text(encoding="utf-8"))
    return [{of[name.rpartition("/")[2]] for name in written[split]} for split in ("train", "val")]


def test_pictures_that_look_alike_stay_together(tmp_path, capsys):
    root = yolo_label_studio(tmp_path / "set", {"all": draw(40)})
    of = film(root, 4)
    advice = f"{command('python', 'detr_scratch.py', 'split', root, '--scenes')} mends that"
    detr_scratch.main(["check-data", str(root)])
    assert f"look like one of train; {advice}" in capsys.readouterr().out
    detr_scratch.main(["split", str(root)])
    detr_scratch.main(["check-data", str(root)])
    assert f"look like one of train; remove split.json, then {advice}" in capsys.readouterr().out
    detr_scratch.main(["split", str(root), "--scenes"])
    printed = capsys.readouterr().out
    assert "40 as before, 0 new" in printed and "note: scenes are in two splits, as their pictures stood" in printed
    (root / "split.json").unlink()
    detr_scratch.main(["split", str(root), "--scenes", "--val", "0.25"])
    printed = capsys.readouterr().out
    assert "4 scenes: 40 of the pictures look like another one" in printed and "note: " not in printed
    train, val = scenes_of(root, of)
    assert len(train) == 3 and len(val) == 1 and not train & val
    detr_scratch.main(["check-data", str(root)])
    assert "leakage" not in capsys.readouterr().out


def test_pictures_that_the_file_does_not_name_are_counted(tmp_path, capsys):
    root = yolo_label_studio(tmp_path / "set", {"all": draw(20)})
    detr_scratch.main(["split", str(root)])
    written = json.loads((root / "split.json").read_text(encoding="utf-8"))
    removed = [written["train"].pop() for _ in range(3)]
    (root / "labels" / "no picture.txt").write_text("0 0.5 0.5 0.1 0.1\n")  # is no picture that the file should name
    (root / "split.json").write_text(json.dumps(written))
    capsys.readouterr()
    detr_scratch.main(["check-data", str(root)])
    printed = capsys.readouterr().out
    assert "3 × picture that split.json does not name: the hash of its name decides" in printed
    assert f"train: {min(removed)!r} and 2 more" in printed


def test_a_picture_that_cannot_be_compared_is_counted(tmp_path, capsys):
    root = yolo_label_studio(tmp_path / "set", {"all": draw(12)})
    film(root, 3)
    pictures_of(root)[0].write_bytes(b"nothing")
    detr_scratch.main(["split", str(root), "--scenes"])
    printed = capsys.readouterr().out
    assert "4 scenes: 11 of the pictures" in printed and "note: 1 picture could not be compared" in printed


def test_the_test_split_of_a_set_is_not_mended_by_dividing_the_rest(tmp_path, capsys):
    root = roboflow(tmp_path / "set", {"train": draw(12), "test": draw(6)})
    film(root, 2)
    detr_scratch.main(["check-data", str(root)])
    told = [line for line in capsys.readouterr().out.splitlines() if line.strip().startswith("test: ")]
    assert len(told) == 1 and "6 of its 6 pictures look like one of train; the split came with" in told[0]


def test_a_film_of_one_scene_cannot_be_divided_by_scenes(tmp_path):
    root = yolo_label_studio(tmp_path / "set", {"all": draw(6)})
    film(root, 1)
    with pytest.raises(SystemExit, match="all of the 6 pictures are one scene, so none would be in val: divide them "
                                         "without --scenes, or write split.json by hand"):
        detr_scratch.main(["split", str(root), "--scenes"])
    assert not (root / "split.json").exists()


def test_a_part_without_a_picture_is_not_written(tmp_path, capsys):
    root = voc_flat(tmp_path / "set", {"all": draw(6)})
    detr_scratch.main(["split", str(root)])
    before = (root / "split.json").read_bytes()
    with pytest.raises(SystemExit, match="none of the 6 pictures would be in test: .* to divide anew"):
        detr_scratch.main(["split", str(root), "--test", "0.3"])
    assert (root / "split.json").read_bytes() == before
    detr_scratch.main(["split", str(root), "--val", "0.5"])
    assert "the shares count for new pictures" in capsys.readouterr().out


def test_an_xml_file_that_is_no_annotation_is_no_picture(tmp_path, capsys):
    root = voc_flat(tmp_path / "set", {"all": draw(6)})
    folder = next(root.rglob("*.xml")).parent
    (folder / "a0.xml").write_text("<PAMDataset/>", encoding="utf-8")
    (folder / "a1.xml").write_text("<annotation>", encoding="utf-8")
    detr_scratch.main(["split", str(root)])
    written = json.loads((root / "split.json").read_text(encoding="utf-8"))
    assert len(written["train"]) + len(written["val"]) == 6


def test_a_set_with_a_split_is_not_divided(tmp_path):
    root = yolo(tmp_path, {"train": draw(4), "val": draw(3, 1)})
    with pytest.raises(SystemExit, match="has a split already .train, val; it was recognised as YOLO"):
        detr_scratch.main(["split", str(root)])
    assert not (root / "split.json").exists()


@pytest.mark.parametrize("flags", [["--val", "0"], ["--val", "1"], ["--val", "0.6", "--test", "0.6"]])
def test_shares_that_leave_nothing_are_refused(flags, tmp_path, capsys):
    root = fiftyone(tmp_path, {"all": draw(6)})
    with pytest.raises(SystemExit):
        detr_scratch.main(["split", str(root), *flags])
    said = capsys.readouterr()
    assert "wanted" in said.out + said.err and not (root / "split.json").exists()


def test_copies_that_stay_together_are_named_as_the_reason(tmp_path):
    for k in range(6):
        draw(1, k)[0].save(tmp_path / "images", f"{'ab'[k % 2]}_jpg.rf.{k}.jpg")
        (tmp_path / "labels").mkdir(exist_ok=True)
        (tmp_path / "labels" / f"{'ab'[k % 2]}_jpg.rf.{k}.txt").write_text("0 0.5 0.5 0.5 0.25")
    with pytest.raises(SystemExit, match="none of the 6 pictures, copies of 2 that stay together, would be in test: ask"):
        detr_scratch.main(["split", str(tmp_path), "--test", "0.01"])
