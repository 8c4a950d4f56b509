"""A list of a JSON file as rows is the list that it was, as far as it is read."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from scratch.data.rows import Entries, Images

ENTRY = {"id": 7, "image_id": 3, "category_id": 11, "bbox": [5, 2.5, 13, 7.0], "area": 80, "iscrowd": 0}
IMAGE = {"id": 3, "file_name": "a/é.jpg", "width": 37, "height": 23}


def same(one, other) -> bool:
    """Equal, with every number of the same type."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


@pytest.mark.parametrize("change", [
    {}, {"bbox": [5.0, 2, 13.25, 7]}, {"bbox": [-5, -2.5, 0, -0.0]}, {"area": 80.0}, {"area": 2**53 - 1},
    {"iscrowd": 1}, {"id": -1}, {"id": 2**63 - 1}, {"bbox": [1 - 2**53, 0, 1e-300, 1]},
])
def test_an_entry_as_the_format_has_it_is_a_row_and_comes_back_number_for_number(change):
    entries = Entries([{**ENTRY, **change}])
    assert not entries.others and same(entries[0], {**ENTRY, **change})


@pytest.mark.parametrize("key", ["id", "area", "iscrowd"])
def test_a_key_that_is_not_there_is_not_there_when_it_comes_back(key):
    entry = {name: value for name, value in ENTRY.items() if name != key}
    entries = Entries([entry])
    assert not entries.others and same(entries[0], entry)


@pytest.mark.parametrize("change", [
    {"id": "7"}, {"id": None}, {"id": 2**63}, {"image_id": 3.0}, {"image_id": True}, {"category_id": "11"},
    {"bbox": [5, 2.5, 13]}, {"bbox": ["5", 2.5, 13, 7]}, {"bbox": [5, 2.5, 13, True]}, {"bbox": "1234"},
    {"bbox": None},
    {"bbox": [1, 2, 3, 10**400]}, {"bbox": [1, 2, 3, 2**53 + 1]}, {"bbox": [1, 2, 3, math.inf]}, {"area": math.nan},
    {"area": "80"}, {"area": None}, {"iscrowd": 2}, {"iscrowd": True}, {"iscrowd": "0"}, {"bbox": {"x": 1}},
])
def test_an_entry_that_is_written_in_another_way_stays_as_it_was_written(change):
    entries = Entries([ENTRY, {**ENTRY, **change}, ENTRY])
    assert 1 in entries.others and same(list(entries), [ENTRY, {**ENTRY, **change}, ENTRY])


@pytest.mark.parametrize("entry", [None, 3, "id", [], [1, 2], {}])
def test_an_entry_that_is_no_object_stays_as_it_was_written(entry):
    assert Entries([entry])[0] == entry and Images([entry])[0] == entry


def test_outlines_are_let_go_but_that_there_was_one_where_a_box_is_missing():
    outlined = {**ENTRY, "segmentation": [[1, 2, 3, 4, 5, 6]], "score": 0.5}
    without = {**outlined, "bbox": None}
    assert same(Entries([outlined])[0], ENTRY)
    assert Entries([without])[0]["segmentation"] and "score" not in Entries([without])[0]
    assert "segmentation" not in Entries([{**outlined, "bbox": ["1", 2, 3, 4]}])[0]


def test_rows_and_others_keep_their_places_over_many_additions():
    every = [{**ENTRY, "id": k} if k % 5 else {**ENTRY, "id": str(k)} for k in range(31)]
    entries = Entries(every[:11])
    entries.add(every[11:12])
    assert same(list(entries), every[:12])
    entries.add(every[12:])
    assert len(entries) == 31 and same(list(entries), every) and same(entries[29:], every[29:])
    assert entries.places.tolist() == [k for k in range(31) if k % 5]
    assert [entries[k]["id"] for k in (0, 1, 30)] == ["0", 1, "30"]
    with pytest.raises(IndexError):
        entries[31]


def test_those_of_some_images_are_found_whatever_they_are():
    every = [{**ENTRY, "image_id": k % 3, "id": k} for k in range(7)] + [{**ENTRY, "image_id": "1"}, None]
    found = Entries(every).of_images(lambda id: id in (1, "1", None))
    assert same(list(found), [every[1], every[4], every[7], None])


@pytest.mark.parametrize("entry, there", [({**ENTRY, "category_id": 0}, True), ({**ENTRY, "category_id": 0.0}, True),
                                          ({"category_id": 0}, True), (ENTRY, False), (None, False)])
def test_whether_a_category_is_used_is_seen_in_rows_and_others(entry, there):
    assert Entries([ENTRY, entry]).any_of_category(0) is there


def test_an_image_comes_back_without_what_is_not_read():
    images = Images([{**IMAGE, "coco_url": "http://a"}])
    assert not images.others and same(images[0], IMAGE) and images.columns["file_name"].tolist() == ["a/é.jpg"]


@pytest.mark.parametrize("change", [{"id": "3"}, {"file_name": ""}, {"file_name": "a" * 1025}, {"file_name": "a\0"},
                                    {"width": 0}, {"width": "37"}, {"height": None}, {"id": 2**63}, {"width": 2**63}])
def test_an_image_that_is_written_in_another_way_stays_whole(change):
    entry = {**IMAGE, **change, "license": 1}
    assert same(list(Images([IMAGE, entry])), [IMAGE, entry])


def test_no_entries_are_columns_of_no_rows():
    assert {name: len(column) for name, column in Entries().columns.items()} == dict.fromkeys(Entries.kinds, 0)
    assert list(Images()) == [] and len(Entries()) == 0


def test_a_million_bytes_of_entries_are_a_fraction_of_that_as_rows():
    entries = Entries([{**ENTRY, "id": k} for k in range(1000)])
    assert sum(column.nbytes for column in entries.columns.values()) == 66 * 1000
    assert np.array_equal(entries.columns["id"], np.arange(1000))
