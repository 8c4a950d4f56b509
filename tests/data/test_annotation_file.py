"""What a file is that is not COCO's instances, in words that say what to do."""

from __future__ import annotations

import gzip
import json
import re

import pytest

from scratch.data.annotation_file import load_instances

SOUND = {"images": [], "annotations": [], "categories": []}


def words(tmp_path, content) -> str:
    path = tmp_path / "instances.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError) as error:
        load_instances(path)
    assert str(error.value).startswith(f"{path} ") and "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_a_file_is_read_in_every_encoding_that_json_may_have(encoding, tmp_path):
    path = tmp_path / "instances.json"
    path.write_bytes(json.dumps({**SOUND, "categories": [{"id": 1, "name": "Käse"}]}, ensure_ascii=False)
                     .encode(encoding))
    assert load_instances(path)["categories"][0]["name"] == "Käse"


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "cp1251"])
def test_another_encoding_is_named_with_its_line(encoding, tmp_path):
    text = '{"categories":\n[{"name": "Жук"}]}' if encoding == "cp1251" else '{"categories":\n[{"name": "Käse"}]}'
    assert "is not written in UTF-8 (line 2, byte " in words(tmp_path, text.encode(encoding))


@pytest.mark.parametrize("content, said", [
    (b"", "is empty"), (b" \n\t", "3 bytes, all of them blank"), (b"\0" * 512, "512 bytes, all of them blank"),
    (gzip.compress(b"{}", mtime=0), "compressed with gzip: unpack"), (b"PK\x03\x04rest", "a zip archive"),
    (b"\xff\xd8\xff\xe0rest", "a JPEG picture"), (b"\x89PNG\r\n\x1a\nrest", "a PNG picture"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "a Git LFS pointer.*git lfs pull"),
    ("<!DOCTYPE html><html>404</html>", "is a web page"), ("<html>", "is a web page"),
    ("<?xml version='1.0'?><annotation/>", "is XML, perhaps Pascal VOC's"),
    ("<<<<<<< HEAD\n{}", "Git merge conflict"),
    ('{"images": [\n<<<<<<< HEAD\n1\n=======\n2\n>>>>>>> theirs\n]}', "Git merge conflict"),
    (b'{"images": []}' + bytes(300), "goes on after its end with 300 signs that are no text"),
    (b'{"images": []}\r\n\x1a', "goes on after its end with 1 sign that is no text"),
    ("0 0.5 0.5 0.1 0.1\n", "JSON lines or several files"), ("image,x,y\n", "is text, but not JSON"),
    ("{'images': []}", "single quotes.*json.dump"),
    ('{"images": [],\n "annotations": [', "not valid JSON: .* in line 2, .*cut short"),
    ('{"images": [{"file_name": "a', "not valid JSON: .*cut short"),
    ('{"images": [,], "annotations": []}', "is not valid JSON: .* in line 1, column 13"),
    ('{"images": []}\n{"images": []}', "JSON lines or several files in one .one object a line"),
    ('{"images": []}{"annotations": []}', "several files in one .a second one follows"),
    ('{"images": [' + "9" * 5000 + "]}", "cannot be read as JSON|has no list 'annotations'"),
])
def test_what_is_no_json_is_called_what_it_is(content, said, tmp_path):
    assert re.search(said, words(tmp_path, content))


@pytest.mark.parametrize("depth", [3_000, 200_000])
@pytest.mark.parametrize("opened, closed", [("[", "]"), ('{"images":', "}")])
def test_deep_nesting_is_refused_in_a_line(opened, closed, depth, tmp_path):
    said = words(tmp_path, opened * depth + "1" * (opened != "[") + closed * depth)
    assert "nested too deeply" in said or "has no list" in said  # how deep is too deep differs between versions


@pytest.mark.parametrize("document, said", [
    ([], "has no list 'images'"), (3, "has no list 'images'"), (None, "has no list 'images'"),
    ({}, "has no list 'images' at its top .it has nothing"),
    ({"images": [], "annotations": None, "categories": []}, "'annotations' are None, wanted a list"),
    ({"images": {}, "annotations": [], "categories": []}, "'images' are {}, wanted a list"),
    ({"images": [], "categories": []}, "image_info"),
    ({"shapes": [], "imagePath": "a.jpg"}, "LabelMe"),
    ({"_via_img_metadata": {}}, "VGG Image Annotator.*name the folder that holds it and its pictures"),
    ([{"image_id": 1, "category_id": 1, "bbox": [], "score": 1}], "a file of results"),
    ([{"image_id": 1, "bbox": [], "id": 1}], "a list of annotations without the images"),
    ({"a.jpg9": {"filename": "a.jpg", "regions": []}}, "VGG Image Annotator's own JSON.*name the folder that holds it"),
    ({"classes": [], "tags": [], "projectType": "images"}, "Supervisely.*export it as COCO"),
    ({"size": {}, "objects": []}, "Supervisely.*export it as COCO"),
    ({"assets": {}, "tags": []}, "VoTT.*export it as CSV"), ({"infos": {}, "items": []}, "Datumaro.*export it as COCO"),
    ([{"image": "a.jpg", "annotations": []}], "Create ML.*name the folder that holds it"),
    ([{"data": {}, "annotations": []}], "Label Studio.*export it as COCO"),
    ([{"External ID": "a.jpg", "Label": {"objects": []}}], "Labelbox.*export it as COCO"),
    ([{"data_row": {}, "projects": {}}], "Labelbox.*export it as COCO"),
    ({**SOUND, "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": []}]}, "a panoptic file"),
    ({"images": [], "annotations": [{"image_id": 1, "id": 1, "caption": "a cat"}]}, "a file of captions"),
])
def test_json_of_another_kind_is_called_what_it_is(document, said, tmp_path):
    assert re.search(said, words(tmp_path, json.dumps(document)))


def test_a_key_that_stands_twice_with_two_values_is_refused(tmp_path):
    text = '{"images": [], "annotations": [{"id": 1, "id": 2}, {"id": 3, "id": 4}], "categories": [], "images": [1]}'
    assert "'id' in 2, 'images' in 1" in words(tmp_path, text)


def test_a_key_that_stands_twice_does_no_harm_with_one_value_or_where_it_is_not_read(tmp_path):
    path = tmp_path / "instances.json"
    path.write_text('{"images": [], "images": [], "annotations": [], "categories": [], "info": {"a": 1, "a": 2}}')
    assert load_instances(path) == {**SOUND, "info": {"a": 2}}


def test_a_folder_is_no_annotation_file(tmp_path):
    with pytest.raises(ValueError, match="is a folder, wanted an annotation file"):
        load_instances(tmp_path)


def test_a_number_of_thousands_of_digits_is_refused_without_pythons_advice(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"images": [' + "9" * 5000 + "]}")
    with pytest.raises(ValueError) as refused:
        load_instances(path)
    assert "set_int_max_str_digits" not in str(refused.value) and "a.json" in str(refused.value)
