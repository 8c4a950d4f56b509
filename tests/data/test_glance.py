"""Where a glance says that a picture is an ordinary JPEG, opening it finds nothing to tell."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
from PIL import Image

from scratch.config import DataConfig
from scratch.data.check import look_at_image
from scratch.data.glance import HEAD, TAIL, is_plain_jpeg

SIZE = (37, 23)


def picture(seed=0, size=SIZE):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))


def jpeg(image=None, **save) -> bytes:
    file = io.BytesIO()
    (image or picture()).save(file, "JPEG", **save)
    return file.getvalue()


def glance(content: bytes, size=SIZE) -> bool:
    return is_plain_jpeg(content[:HEAD], content[-TAIL:], size)


@pytest.mark.parametrize("save", [{}, {"progressive": True}, {"quality": 100, "subsampling": 0}, {"optimize": True},
                                  {"comment": b"drawn"}, {"dpi": (300, 300)}, {"icc_profile": bytes(3144)},
                                  {"restart_marker_rows": 1}, {"qtables": "web_low"}])
def test_ordinary_jpegs_are_seen_at_a_glance(save):
    assert glance(jpeg(**save))


@pytest.mark.parametrize("content", [
    jpeg(Image.new("L", SIZE)), jpeg(Image.new("CMYK", SIZE)), jpeg(exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"),
    jpeg() + b"\0" * 40, jpeg()[:-2], jpeg()[:200], jpeg()[1:], b"", b"\xff\xd8\xff\xd9", b"<html>\xff\xd9",
    jpeg(icc_profile=bytes(2 * HEAD))])
def test_others_are_not(content):
    assert not glance(content)


def test_another_size_is_not():
    assert not glance(jpeg(), (23, 37)) and not glance(jpeg(), (37, 24)) and not glance(jpeg(), (0, 0))


def test_a_camera_note_in_any_form_is_not():
    exif = Image.Exif()
    exif[274] = 6
    assert not glance(jpeg(exif=exif)) and not glance(jpeg(xmp=b"<x tiff:Orientation='6'/>"))


def test_two_pictures_in_one_file_are_not():
    file = io.BytesIO()
    picture().save(file, "MPO", save_all=True, append_images=[picture(1)])
    assert not glance(file.getvalue())


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_done_to_a_jpegs_head_a_glance_passes_nothing_that_opening_it_would_tell(seed, tmp_path):
    draw, path = random.Random(seed), tmp_path / "a.jpg"
    sound = [jpeg(), jpeg(progressive=True), jpeg(icc_profile=bytes(100), comment=b"x"), jpeg(dpi=(72, 72))]
    passed = 0
    for _ in range(250):
        content = bytearray(draw.choice(sound))
        at = draw.randrange(min(700, len(content)))
        what = draw.choice(["flip", "flip", "set", "drop", "insert", "repeat"])
        if what == "flip":
            content[at] ^= 1 << draw.randrange(8)
        elif what == "set":
            content[at] = draw.choice([0, 1, 0xFF, 0xC0, 0xC2, 0xDA, 0xE1])
        elif what == "drop":
            del content[at:at + draw.randint(1, 20)]
        elif what == "insert":
            content[at:at] = draw.choice([b"\xff", b"\0", b"\xff\xe1\0\x02", b"\xff\xc0", b"\xff\xfe\0\x03a"])
        else:
            content[at:at] = content[at:at + draw.randint(1, 60)]
        if glance(bytes(content)):
            passed += 1
            path.write_bytes(content)
            assert look_at_image(path, SIZE, decode=False, config=DataConfig()) == []
    assert passed > 20
