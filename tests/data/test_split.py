"""A split by the names of the files: the same everywhere, unmoved by what is added, and as it was written down."""

from __future__ import annotations

import json

import pytest

from scratch.data.split import SHARED, Division, copied, place, places_of, read_division
from tests.conftest import REPOSITORY

NAMES = [f"IMG_{k:04d}.jpg" for k in range(2000)]


def test_the_place_of_a_name_is_known():
    # the first 8 bytes of SHA-256 of the name, as a share of 2^64
    assert place("raccoon-1.jpg") == 0x5592834818517e0d / 2**64
    assert [round(place(f"raccoon-{k}.jpg"), 2) for k in (7, 8)] == [0.18, 0.31]  # the opening of split.py
    assert place("images/raccoon-1.jpg") == place("a\\b\\raccoon-1.jpg") == place("raccoon-1.jpg")
    assert place("cafe\u0301.jpg") == place("café.jpg") != place("cafe.jpg")


def test_about_a_fifth_of_many_names_is_val():
    found = Division().of(NAMES)
    assert 0.17 < list(found.values()).count("val") / len(NAMES) < 0.23 and set(found.values()) == {"train", "val"}
    assert all((found[name] == "val") == (place(name) < 0.2) for name in NAMES)


def test_a_name_that_is_added_moves_no_other_and_the_order_does_not_matter():
    few, many = Division().of(NAMES[:300]), Division().of(NAMES[::-1])
    assert all(many[name] == split for name, split in few.items())


def test_augmented_copies_of_one_picture_stay_together():
    copies = [f"frame_7_jpg.rf.{k:032x}.jpg" for k in range(40)]
    assert len({place(name) for name in copies}) == 1 and place("frame_8_jpg.rf.0a.jpg") != place(copies[0])


def test_a_third_part_for_the_end_is_cut_out_of_training_alone():
    two, three = Division().of(NAMES), Division(test=0.1).of(NAMES)
    assert Division(test=0.1).splits == ("train", "val", "test")
    assert all(three[name] == two[name] or two[name] == "train" and three[name] == "test" for name in NAMES)
    assert 0.08 < list(three.values()).count("test") / len(NAMES) < 0.12


def test_a_side_that_would_be_empty_gets_a_picture_with_all_its_copies():
    pictures = [name for name in NAMES if place(name) >= 0.2][:3]  # all are train by the rule
    copies = [f"{name.rpartition('.')[0]}.rf.{k}.jpg" for name in pictures for k in range(4)]
    found, nearest = Division().of(copies), min(pictures, key=place)
    assert [name for name in copies if found[name] == "val"] == [name for name in copies if copied(name) == nearest]
    one = Division().of([f"a.rf.{k}.jpg" for k in range(4)])  # copies of one picture alone: better than nothing
    assert sorted(one.values()) in (["train"] * 3 + ["val"], ["train"] + ["val"] * 3)


@pytest.mark.parametrize("side", ["train", "val"])
def test_neither_side_is_empty(side):
    names = [name for name in NAMES if (place(name) < 0.2) == (side == "val")][:3]
    found = Division().of(names)
    assert sorted(found.values()).count(side) == 2 and set(found.values()) == {"train", "val"}
    assert Division().of(names[:1]) == {names[0]: side}


def test_a_scene_is_not_divided_and_the_shares_are_as_near_as_scenes_allow():
    scenes = [k // 7 * 7 for k in range(len(NAMES))]
    found = Division(0.2, 0.1).together(NAMES, scenes)
    assert all(len({found[name] for name in NAMES[k:k + 7]}) == 1 for k in range(0, len(NAMES), 7))
    number = [list(found.values()).count(split) for split in ("train", "val", "test")]
    assert sum(number) == 2000 and abs(number[1] - 400) <= 3.5 and abs(number[2] - 200) <= 3.5
    assert found == Division(0.2, 0.1).together(NAMES[::-1], scenes[::-1])  # whatever the order
    cameras = [f"{camera}/000.jpg" for camera in "abcdefghij"]  # of one hash
    backwards = Division().together(cameras[::-1], range(10)[::-1])
    assert Division().together(cameras, range(10)) == backwards and list(backwards.values()).count("val") == 2


def test_one_scene_that_is_most_of_the_set_is_train():
    found = Division().together(NAMES[:100], [0] * 90 + list(range(90, 100)))
    assert {found[name] for name in NAMES[:90]} == {"train"} and list(found.values()).count("val") == 10


@pytest.mark.parametrize("sizes", [(1, 1), (5, 5), (50, 50), (30, 30, 30), (1, 99)])
def test_of_two_scenes_or_more_one_is_val_and_one_train(sizes):
    scenes = [k for k, size in enumerate(sizes) for _ in range(size)]
    found = Division(0.1).together(NAMES[:len(scenes)], scenes)
    assert sorted(set(found.values())) == ["train", "val"]
    assert all(len({found[name] for name, its in zip(NAMES, scenes) if its == scene}) == 1 for scene in scenes)


def test_the_shares_are_those_of_the_pictures_that_are_new():
    written = dict.fromkeys(NAMES[:99], "train") | {NAMES[99]: "val"}
    found = Division(0.4, written=written).together(NAMES[:200], range(200))
    assert all(found[name] == split for name, split in written.items())
    assert [found[name] for name in NAMES[100:200]].count("val") == 40


def test_copies_of_one_picture_have_one_name_in_any_folder():
    assert copied("a/x_jpg.rf.0123.jpg") == copied("b\\x_jpg.rf.4567.jpg") == "x_jpg.jpg"
    assert copied("a/x.jpg") != copied("b/x.jpg") and copied("a\\cafe\u0301.jpg") == "a/café.jpg"
    assert place("a/x_jpg.rf.0123.jpg") == place("b/x_jpg.rf.4567.jpg") == place("x_jpg.jpg")


def test_of_a_scene_of_which_some_stand_somewhere_the_others_go_there():
    written = {NAMES[0]: "val", NAMES[1]: "train", NAMES[2]: "train", NAMES[5]: "val"}
    found = Division(written=written).together(NAMES[:8], [0, 0, 0, 0, 4, 5, 5, 7])
    assert all(found[name] == split for name, split in written.items())
    assert found[NAMES[3]] == "train" and found[NAMES[6]] == "val"


def write(root, content) -> None:
    (root / "split.json").write_text(content if isinstance(content, str) else json.dumps(content))


def test_what_is_written_down_counts_and_the_rule_is_for_the_rest(tmp_path):
    assert read_division(tmp_path) == Division()
    val = next(name for name in NAMES if place(name) < 0.2)
    train = next(name for name in NAMES if place(name) > 0.5)
    write(tmp_path, {"train": [val], "val": [train], "rule": {"val": 0.5, "test": 0}})
    division = read_division(tmp_path)
    found = division.of(NAMES)
    assert found[val] == "train" and found[train] == "val"
    assert all((found[name] == "val") == (place(name) < 0.5) for name in NAMES if name not in (val, train))
    assert division.words() == "divided as split.json says"


@pytest.mark.parametrize("rule, shares, splits", [
    (None, (0.2, 0.0), ("train", "val")), ({}, (0.2, 0.0), ("train", "val")), ({"val": 0}, (0, 0.0), ("train", "val")),
    ({"test": 0.3}, (0.2, 0.3), ("train", "val", "test")), ({"val": 0.5, "test": 0.49}, (0.5, 0.49), ("train", "val", "test")),
])
def test_the_rule_for_the_rest_is_read_and_has_defaults(rule, shares, splits, tmp_path):
    write(tmp_path, {"train": ["a.jpg"], **({} if rule is None else {"rule": rule})})
    division = read_division(tmp_path)
    assert (division.val, division.test) == shares and division.splits == splits


def test_a_picture_of_test_that_is_written_down_makes_a_third_split():
    assert Division(written={"a.jpg": "test"}).splits == ("train", "val", "test")
    assert Division(written={"a.jpg": "val"}).splits == ("train", "val")


def test_the_rule_is_told_in_percent():
    assert Division().words() == "about 80 % train, 20 % val, by a hash of the file names"
    assert Division(0.25, 0.1).words() == "about 65 % train, 25 % val, 10 % test, by a hash of the file names"


def test_a_name_that_is_no_text_has_a_place_too():
    assert 0 <= place("\udc80.jpg") < 1  # as the system gives a name in another encoding


@pytest.mark.parametrize("content, words", [
    ({"train": ["a.jpg"], "valid": ["b.jpg"]}, "has the list 'valid', wanted train, val and test"),
    ("{", "cannot be read as JSON"), ("[]", "is not what was wanted"), ({"val": ["a"]}, "is not what was wanted"),
    ({"train": "a"}, "is not what was wanted"), ({"train": [1]}, "is not what was wanted"),
    ({"train": ["a.jpg"], "val": ["a.jpg"]}, "has a.jpg in train and in val"),
    ({"train": ["a.jpg"], "rule": [0.2]}, r"has the rule \[0.2\], wanted the shares of val and test"),
    ({"train": ["a.jpg"], "rule": {"val": 20}}, 'has the rule {"val": 20}, wanted the shares'),
    ({"train": ["a.jpg"], "rule": {"val": 1}}, "has the rule"), ({"train": ["a.jpg"], "rule": {"val": -0.1}}, "has the rule"),
    ({"train": ["a.jpg"], "rule": {"val": True}}, "has the rule"), ({"train": ["a.jpg"], "rule": {"test": "a"}}, "has the rule"),
    ({"train": ["a.jpg"], "rule": {"val": 0.5, "test": 0.5}}, "has the rule"),
    ({"train": ["a.jpg"], "rule": {"val": 0.5, "tests": 0.1}}, "has the rule")])
def test_a_file_that_cannot_be_understood_is_refused(content, words, tmp_path):
    write(tmp_path, content)
    with pytest.raises(ValueError, match=words):
        read_division(tmp_path)


def test_many_pictures_of_one_base_name_are_divided_by_their_folders():
    names = [f"scene_{k:03d}/color.png" for k in range(400)]
    found = Division().of(names)
    assert 0.15 < list(found.values()).count("val") / len(names) < 0.25
    assert all(found[name] == Division().of([f"images/{its}" for its in names])[f"images/{name}"] for name in names[:9])
    page = (REPOSITORY / "docs" / "using.md").read_text(encoding="utf-8")
    assert SHARED == 10 and "where ten pictures or more are called alike" in page
    deep = Division().of([f"scene_{k:03d}/images/color.png" for k in range(400)])  # two parts do not tell them apart
    assert 0.15 < list(deep.values()).count("val") / len(deep) < 0.25
    added = Division().of([*names, "scene_400/color.png", "other.png"])
    assert all(added[name] == found[name] for name in names)
    # By scenes of one picture each, the places of their names decide which are taken first.
    scenes = Division().together(names, range(400))
    assert {name for name in names if scenes[name] == "val"} == set(sorted(names, key=places_of(names).get)[:80])
    # Two pictures of one name, and copies of one picture, stay together.
    few = [f"{folder}/{name}" for name in NAMES[:50] for folder in ("a", "b")]
    assert all(Division().of(few)[f"a/{name}"] == Division().of(few)[f"b/{name}"] for name in NAMES[:50])
    assert len(set(Division().of([f"x_jpg.rf.{k:032x}.jpg" for k in range(9)] + NAMES[:9]).values())) == 2
