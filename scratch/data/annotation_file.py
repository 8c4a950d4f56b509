"""annotation_file: is this the JSON of COCO's instances, and if not, what is it?

    bytes ─▶ text (UTF-8, or UTF-16 with its mark) ─▶ JSON ─▶ {"images": […], "annotations": […], "categories": […]}
      └─ gzip, a Git LFS pointer, a web page …   └─ cut short, JSON lines …   └─ panoptic, captions, a results file …

Any other file raises a ValueError that says what the file looks like and what to do. Proven in
tests/data/test_annotation_file.py. Read: load_instances → _not_json → _not_instances
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Optional

from scratch.data.problems import brief

LISTS = ("images", "annotations", "categories")
# The keys that are read. Of one that stands twice in an object, JSON readers take the last without a word.
_READ = {*LISTS, "id", "image_id", "category_id", "bbox", "iscrowd", "area", "file_name", "width", "height", "name"}

# What a file begins with → what it is then, and what to do.
_BEGINNINGS = (
    (b"\x1f\x8b", "is compressed with gzip: unpack it first (gunzip)"),
    (b"PK\x03\x04", "is a zip archive: unpack it first"),
    (b"BZh", "is compressed with bzip2: unpack it first (bunzip2)"),
    (b"\xfd7zXZ", "is compressed with xz: unpack it first (unxz)"),
    (b"\x28\xb5\x2f\xfd", "is compressed with Zstandard: unpack it first (unzstd)"),
    (b"\xff\xd8\xff", "is a JPEG picture, not annotations"),
    (b"\x89PNG", "is a PNG picture, not annotations"),
    (b"SQLite format 3", "is an SQLite database, not JSON"),
    (b"version https://git-lfs", "is a Git LFS pointer, not the file itself: fetch it with git lfs pull"),
    (b"<<<<<<<", "holds the marks of a Git merge conflict: resolve it first"),
    (b"<!doctype", "is a web page, perhaps of a failed download: fetch the file again"),
    (b"<html", "is a web page, perhaps of a failed download: fetch the file again"),
    (b"<", "is XML, perhaps Pascal VOC's or CVAT's: name the folder that holds it and its pictures (--data), or export "
     "it in COCO's format"),
)
# A key at the top of a file → whose format that is, and how to export it.
_OTHERS = (("assets", "VoTT's", "as CSV or Pascal VOC"), ("features", "GeoJSON", "as COCO"),
           ("frames", "BDD100K's or Scalabel's", "as COCO"), ("projectType", "Supervisely's", "as COCO"),
           ("infos", "Datumaro's", "as COCO"))
# A key of the annotations → what file that is.
_KINDS = (("segments_info", "a panoptic file (segments_info instead of boxes)"),
          ("caption", "a file of captions (texts instead of boxes)"),
          ("question_id", "a file of questions about pictures"))
_FOLDER = "name the folder that holds it and its pictures (--data)"
_WANTED = "wanted COCO's instances format: a list of images, one of annotations with boxes, and one of categories"


def load_instances(path: Path) -> dict[str, Any]:
    """The document in `path`, with its three lists. Raises FileNotFoundError, or ValueError in words as said above."""
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder, wanted an annotation file: COCO's JSON")
    if not path.is_file():
        raise FileNotFoundError(f"there is no annotation file {path}")
    twice: dict[str, int] = {}

    def one_of_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        entry = dict(pairs)
        if len(entry) < len(pairs):
            for key, value in pairs:
                if key in _READ and not _same(entry[key], value):
                    twice[key] = twice.get(key, 0) + 1
        return entry

    content = b""
    try:
        content = path.read_bytes()
        document = json.loads(content, object_pairs_hook=one_of_each)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} {_not_text(content, error)}") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} {_not_json(content, error)}") from error
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deeply to be read, deeper than any annotation; {_WANTED}") from error
    except MemoryError as error:
        raise ValueError(f"{path} does not fit into the memory ({path.stat().st_size:,} bytes): divide it, or free "
                         "some") from error
    except ValueError as error:  # Python reads no whole number of more than 4,300 digits
        raise ValueError(f"{path} cannot be read as JSON (it holds a whole number of thousands of digits); "
                         f"{_WANTED}") from error
    if why := _not_instances(document):
        raise ValueError(f"{path} {why}")
    if twice:
        named = ", ".join(f"{key!r} in {number:,}" for key, number in twice.items())
        raise ValueError(f"{path} has objects with one key twice and two values ({named}), of which readers of JSON "
                         "see the last alone; were two files joined by hand? Write each key once")
    return document


def _same(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except RecursionError:
        return False


def _beginning(content: bytes) -> Optional[str]:
    head = content[:64].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not content.strip(b"\xef\xbb\xbf \t\r\n\0"):
        size = f"holds {len(content):,} bytes, all of them blank" if content else "is empty"
        return f"{size}: fetch or export it again"
    return next((what for mark, what in _BEGINNINGS if head.startswith(mark.lower())), None)


def _not_text(content: bytes, error: UnicodeDecodeError) -> str:
    if known := _beginning(content):
        return known
    line = content.count(b"\n", 0, error.start) + 1
    if b"\0" in content[:4096] or error.encoding != "utf-8":
        return (f"is not text that can be read (byte {error.start}, taken as {error.encoding}: {error.reason}); "
                f"{_WANTED}, in UTF-8")
    return (f"is not written in UTF-8 (line {line}, byte {error.start}: 0x{content[error.start]:02x}); it may be in "
            "the encoding of the system that wrote it (WINDOWS-1252 in the west, WINDOWS-1251 for Cyrillic, SHIFT_JIS, "
            "GB18030): save it as UTF-8, as with iconv -f WINDOWS-1252 -t UTF-8 FILE > NEW")


def _not_json(content: bytes, error: json.JSONDecodeError) -> str:
    if known := _beginning(content):
        return known
    # Bytes that are more than ASCII count differently, so ask the text that the error is about.
    text, at = error.doc, error.pos
    where = f"{error.msg} in line {error.lineno}, column {error.colno}"
    if b"\n<<<<<<< " in content:
        return "holds the marks of a Git merge conflict: resolve it first"
    if error.msg == "Extra data" and not text[at:].strip("\0\x1a \t\r\n"):
        count = len(text) - at
        return (f"goes on after its end with {count:,} sign{'s that are' if count > 1 else ' that is'} no text (zeros "
                "of an interrupted copy, or Ctrl-Z): cut it off there, or fetch or export the file again")
    if error.msg == "Extra data":
        objects = "one object a line" if "\n" in text[:at] else "a second one follows the first"
        return (f"is not one JSON object, but JSON lines or several files in one ({objects}; {where}); {_WANTED}, all "
                "in one object")
    if text[at:at + 1] == "'":
        return f"is written with single quotes, as Python prints a dict ({where}): write it with json.dump"
    if text.lstrip()[:1] not in ("{", "["):
        return f"is text, but not JSON ({where}); {_WANTED}"
    if not text[at:].strip() or error.msg.startswith("Unterminated string"):
        return f"is not valid JSON: {where}, where it ends in the middle: it was cut short; fetch or export it again"
    return f"is not valid JSON: {where}; correct it there, or fetch or export it again"


def _not_instances(document: Any) -> Optional[str]:
    """What a JSON document is that is not COCO's instances, and what to do; None for one that is."""
    if not isinstance(document, dict):
        first = document[0] if isinstance(document, list) and document else None
        keys, do = set(first) if isinstance(first, dict) else set(), ""
        if {"image_id", "category_id", "score"} <= keys:
            what = "a file of results (detections with scores), not of what is there"
        elif {"image_id", "bbox"} <= keys or {"image_id", "segmentation"} <= keys:
            what = "a list of annotations without the images and the categories"
        elif {"image", "annotations"} <= keys:
            what, do = "Create ML's format", f"{_FOLDER}; "
        elif {"data"} <= keys:
            what, do = "Label Studio's own format", "export it as COCO; "
        elif "Label" in keys or {"data_row", "projects"} <= keys:
            what, do = "Labelbox's format", "export it as COCO; "
        else:
            what = f"JSON, but no object ({brief(document)})"
        return f"is {what}, and has no list 'images' at its top: {do}{_WANTED}"
    missing = [name for name in LISTS if not isinstance(document.get(name), list)]
    annotations = document.get("annotations")
    if isinstance(annotations, list):  # the first that is an object tells
        first = next((entry for entry in annotations if isinstance(entry, dict)), {})
        for key, what in _KINDS:
            if key in first and "bbox" not in first:
                return f"is {what}; wanted COCO's instances (instances_….json), with a bbox in each annotation"
    if missing == ["annotations"] and "annotations" not in document:
        return ("has no list 'annotations' at its top: a list of images without boxes, as COCO's image_info files are; "
                + _WANTED)
    if missing:
        if "shapes" in document:
            return ("is LabelMe's, one file for each picture: they are read where the pictures are in the same folder, "
                    "or one beside it; name that folder, or the one around both")
        for key, whose, how in _OTHERS:
            if key in document:
                return (f"is JSON in another format ({whose}), and has no list {missing[0]!r} at its top: export it {how}; "
                        f"{_WANTED}")
        if "objects" in document and document.keys() & {"size", "imgHeight"}:
            return (f"is JSON in another format (Supervisely's or Cityscapes', a file for each picture), and has no "
                    f"list {missing[0]!r} at its top: export it as COCO; {_WANTED}")
        entries = list(document.values())
        if "_via_img_metadata" in document or entries and all(
                isinstance(entry, dict) and {"filename", "regions"} <= entry.keys() for entry in entries):
            return (f"is the VGG Image Annotator's own JSON, and has no list {missing[0]!r} at its top: {_FOLDER}; "
                    f"{_WANTED}")
        if missing[0] in document:
            return f"is JSON, but its {missing[0]!r} are {brief(document[missing[0]])}, wanted a list; {_WANTED}"
        return (f"is JSON, but has no list {missing[0]!r} at its top (it has {_keys(document)}); {_WANTED}")
    return None


def _keys(document: dict[str, Any]) -> str:
    return ", ".join(brief(key) for key in list(document)[:6]) + (" …" if len(document) > 6 else "") or "nothing"
