"""The chosen images are the same everywhere, and every class has its share of them."""

from __future__ import annotations

import copy
import hashlib
import json
import random

import pytest

from scratch.data.subset import TEN_CLASSES, choose


def document(shown: dict[int, list[str]]) -> dict:
    """A COCO document: image id → the classes on it. Categories have ids with gaps."""
    ids = {name: 10 * k for k, name in enumerate(("person", "car", "plane", "other"), 1)}
    pairs = [(image, name) for image, names in shown.items() for name in names]
    return {"info": {"year": 2017}, "licenses": [{"id": 3}], "images": [{"id": id, "license": 3} for id in shown],
            "annotations": [{"id": k, "image_id": image, "category_id": ids[name], "iscrowd": 0}
                            for k, (image, name) in enumerate(pairs, 1)],
            "categories": [{"id": id, "name": name} for name, id in ids.items()]}


def order(images) -> list[int]:
    return sorted(images, key=lambda id: hashlib.sha256(str(id).encode()).hexdigest())


def chosen(*arguments) -> set[int]:
    return {image["id"] for image in choose(*arguments)["images"]}


PEOPLE = {id: ["person"] for id in range(100)}


def test_images_are_dealt_to_the_classes_in_turn():
    shown = {**PEOPLE, **{id: ["car"] for id in range(100, 120)}, **{id: ["plane"] for id in range(200, 203)}}
    got = chosen(document(shown), ("person", "car", "plane"), 12)
    # Planes run out after three turns; the fourth and fifth are shared by the two others, five and four.
    assert got == {*order(range(100))[:5], *order(range(100, 120))[:4], 200, 201, 202}


def test_an_image_that_a_class_has_taken_is_passed_over_by_the_next():
    first, second, third = order(range(3))
    whole = document({first: ["person", "car"], second: ["person"], third: ["car"]})
    assert chosen(whole, ("car", "person"), 2) == {first, second}  # cars take the first, and people their next


def test_the_choice_depends_on_ids_alone():
    whole = document({**PEOPLE, **{id: ["car", "other"] for id in range(100, 150)}})
    shuffled = copy.deepcopy(whole)
    for part in ("images", "annotations", "categories"):
        random.Random(4).shuffle(shuffled[part])
    assert chosen(whole, ("car", "person"), 20) == chosen(shuffled, ("car", "person"), 20)


def test_a_larger_choice_holds_the_smaller_one():
    whole = document({**PEOPLE, **{id: ["car"] for id in range(100, 150)}})
    assert chosen(whole, ("car", "person"), 20) < chosen(whole, ("car", "person"), 31)


def test_only_the_classes_asked_for_stay_with_all_that_belongs_to_them():
    whole = document({1: ["car", "other", "car"], 2: ["other"], 3: ["person"]})
    before = copy.deepcopy(whole)
    part = choose(whole, ("car",), 5)
    assert [image["id"] for image in part["images"]] == [1] and part["images"][0]["license"] == 3
    assert [a["id"] for a in part["annotations"]] == [1, 3]
    assert part["categories"] == [{"id": 20, "name": "car"}]
    assert part["info"] == {"year": 2017} and part["licenses"] == [{"id": 3}] and whole == before


def test_a_crowd_alone_does_not_make_an_image_one_of_the_class_but_stays_on_one_that_is():
    whole = document({1: ["car"], 2: ["car", "car"]})
    whole["annotations"][0]["iscrowd"] = whole["annotations"][1]["iscrowd"] = 1
    part = choose(whole, ("car",), 5)
    assert [image["id"] for image in part["images"]] == [2] and len(part["annotations"]) == 2


def test_an_unknown_class_and_an_empty_choice_are_refused():
    with pytest.raises(ValueError, match="got 'persn'.*did you mean person"):
        choose(document(PEOPLE), ("car", "persn"), 5)
    with pytest.raises(ValueError, match="got 0 images"):
        choose(document(PEOPLE), ("car",), 0)


def test_the_ten_classes_are_cocos(coco_dir):
    whole = json.loads((coco_dir / "annotations" / "instances_val2017.json").read_text())
    part = choose(whole, TEN_CLASSES, 30)
    assert len(TEN_CLASSES) == 10 == len(part["categories"]) and len(part["images"]) == 30
    assert {c["name"] for c in part["categories"]} == set(TEN_CLASSES)
