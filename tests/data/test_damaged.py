"""Files that end too early, break inside, are too large or no files at all: decoded as far as they go, or told."""

from __future__ import annotations

import io
import os
import random
import re
import socket
import struct
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile
from PIL.PngImagePlugin import PngInfo

from commands.opening import open_split
from scratch.config import DataConfig
from scratch.data.check import check_dataset, look_at_image
from scratch.data.coco import CocoDetection
from scratch.data.images import read_image, read_reduced
from scratch.data.transforms import Augmentation

SHOW = Augmentation("none", 48, 96)


def _photograph(width: int = 128, height: int = 96) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(3).integers(0, 60, (height, width, 3))
    return Image.fromarray((np.stack([x, y, x + y], axis=-1) % 190 + noise).astype(np.uint8))


def _bytes(format: str, mode: str = "RGB", **options) -> bytes:
    file = io.BytesIO()
    _photograph().convert(mode).save(file, format, **options)
    return file.getvalue()


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _apart(one, other) -> np.ndarray:
    return np.abs(np.asarray(one).astype(int) - np.asarray(other).astype(int))


# -- what ends too early -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format, mode, options", [
    ("JPEG", "RGB", {}), ("JPEG", "L", {}), ("JPEG", "CMYK", {}), ("JPEG", "RGB", {"progressive": True}),
    ("JPEG", "CMYK", {"progressive": True}), ("JPEG", "RGB", {"optimize": True, "subsampling": 0}),
    ("PNG", "RGB", {}), ("PNG", "P", {}), ("PNG", "L", {}), ("BMP", "RGB", {}), ("GIF", "P", {"interlace": 0}),
    ("TIFF", "RGB", {}), ("WEBP", "RGB", {}), ("WEBP", "RGB", {"lossless": True})])
def test_without_its_last_twenty_bytes_a_picture_is_there_all_the_same(format, mode, options, tmp_path):
    content = _bytes(format, mode, **options)
    whole = read_image(_written(tmp_path / "whole", content))
    cut = read_reduced(_written(tmp_path / "cut", content[:-20]), None, 1)
    assert cut.damage.missing < 0.2
    # The rows that were decoded are those of the whole file; a block row of 16, or 20 bytes of pixels, may be lost. Of
    # a progressive file, whose last scan refines every row, a shade is lost; WebP smooths from block to block.
    shade = 90 if "progressive" in options else 8 if format == "WEBP" else 0
    assert (_apart(cut.pixels, whole).max(axis=(1, 2)) <= shade).mean() > 0.8


def test_the_same_pixels_come_from_whichever_thread(tmp_path):
    whole, cut = _bytes("JPEG"), _bytes("JPEG")[:-300]
    paths = [_written(tmp_path / f"{i}.jpg", cut if i % 2 else whole) for i in range(12)]
    alone = [np.asarray(read_image(path)) for path in paths]
    found: dict[int, np.ndarray] = {}
    threads = [threading.Thread(target=lambda i=i: found.update({i: np.asarray(read_image(paths[i]))}))
               for i in range(len(paths))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(found[i], alone[i]) for i in range(len(paths)))
    assert not ImageFile.LOAD_TRUNCATED_IMAGES  # which would be for all threads


def test_a_jpeg_that_is_broken_inside_is_decoded_up_to_there_in_training_and_told_by_check_data(tmp_path):
    content = bytearray(_bytes("JPEG"))
    middle = len(content) // 2
    content[middle:middle + 2] = b"\xff\xd8"  # a second beginning: the decoder gives up
    path = _written(tmp_path / "x.jpg", bytes(content))
    assert look_at_image(path, (128, 96), decode=False) == []  # it ends as it should
    (problem,) = look_at_image(path, (128, 96), decode=True)
    assert problem.kind == "truncated image" and problem.severity == "coped"
    for reduction in (1, 2):
        picture = read_reduced(path, (128, 96), reduction)
        assert 0.3 < picture.damage.missing < 0.7 and "broken data stream" in picture.damage.words


def _without_tables(content: bytes) -> bytes:
    """A JPEG that begins and ends as it should, and whose codes no decoder can read."""
    place = content.index(b"\xff\xc4") + 5
    return content[:place] + b"\xff" * 16 + content[place + 16:]


def test_a_jpeg_of_which_nothing_can_be_decoded_is_refused_by_both(tmp_path):
    path = _written(tmp_path / "x.jpg", _without_tables(_bytes("JPEG")))
    assert [problem.kind for problem in look_at_image(path, (128, 96), decode=True)] == ["unreadable image"]
    with pytest.raises(ValueError, match="x.jpg cannot be read as an image: nothing of it can be decoded"):
        read_image(path)


def test_a_gap_in_a_jpeg_which_its_decoder_passes_over_is_noted(tmp_path):
    content = _bytes("JPEG")
    path = _written(tmp_path / "x.jpg", content[:len(content) // 2] + content[-100:])
    (problem,) = look_at_image(path, (128, 96), decode=True)
    assert problem.kind == "image that ends in grey" and 30 < int(problem.detail.split()[2][:-1]) < 70


@pytest.mark.parametrize("content, words", [
    (b"", "it is empty"), (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a Git LFS pointer"),
    (b"\n<!DOCTYPE html><html>", "an HTML page"), (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a heic file"),
    (bytes(5000), "zeros alone"), (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript"),
    (b"RIFF\xff\xff\xff\xffWEBPVP8 ", "begins as WEBP"), (b"\xff\xd8\xff", "x.jpg"), (b"what", "known picture format")])
def test_what_is_no_picture_is_called_what_it_is(content, words, tmp_path):
    path = _written(tmp_path / "x.jpg", content)
    with pytest.raises(ValueError, match=f"x.jpg cannot be read as an image: .*{words}" if words != "x.jpg" else words):
        read_image(path)
    assert [problem.kind for problem in look_at_image(path, (9, 9), decode=False)] == ["unreadable image"]


@pytest.mark.parametrize("cut", [1, 2, 21, 1500, 1501])
@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"}])
def test_a_webp_picture_is_decoded_as_far_as_it_goes(options, cut, tmp_path):
    content = _bytes("WEBP", **options)
    picture = read_reduced(_written(tmp_path / "x.webp", content[:-cut]), None, 1)
    assert picture.size == (128, 96)
    assert picture.damage.missing == pytest.approx(cut / len(content), abs=0.01)


# -- bits that flip ------------------------------------------------------------------------------------------------

FLIPPED = [("JPEG", "RGB", {}), ("JPEG", "CMYK", {"progressive": True}), ("PNG", "RGB", {}), ("PNG", "P", {}),
           ("WEBP", "RGB", {}), ("TIFF", "RGB", {"compression": "tiff_lzw"}), ("GIF", "P", {}), ("BMP", "RGB", {})]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("format, mode, options", FLIPPED)
def test_flipped_bits_end_in_pixels_or_in_one_line(format, mode, options, tmp_path):
    sound, rng = _bytes(format, mode, **options), random.Random(f"{format} {mode}")
    for number in range(25):
        content = bytearray(sound)
        reach = len(content) if number % 2 else 400  # in all of the file, and in its header
        for _ in range(rng.choice((1, 3, 12))):
            content[rng.randrange(min(reach, len(content)))] ^= 1 << rng.randrange(8)
        path = _written(tmp_path / "x", bytes(content))
        quick, decoded = ({problem.kind for problem in look_at_image(path, (128, 96), decode)}
                          for decode in (False, True))
        try:
            picture = read_image(path, (128, 96))
        except ValueError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            assert decoded & {"unreadable image", "size differs", "too large image"}, (number, error)
        else:
            assert picture.mode == "RGB" and picture.size == (128, 96)
            # What check-data lets pass, training reads; it refuses more: that of which hardly anything is left.
            assert decoded <= {"unreadable image"} or "unreadable image" not in decoded
        assert "unreadable image" not in quick or "unreadable image" in decoded


# -- no files, or too much of one ----------------------------------------------------------------------------------


def _pipe(path):
    os.mkfifo(path)


def _socket(path):
    socket.socket(socket.AF_UNIX).bind(str(path))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("make, kind, words", [
    (_pipe, "unreadable image", "it is a pipe"), (os.mkdir, "unreadable image", "it is a folder"),
    (lambda path: path.symlink_to("/dev/zero"), "unreadable image", "it is a device"),
    (_socket, "unreadable image", "it is a socket"),
    (lambda path: path.symlink_to("nowhere.png"), "missing image", "a link to nowhere.png, and nothing is there"),
    (lambda path: path.symlink_to(path.name), "unreadable image", "symbolic links"),
    (lambda path: None, "missing image", "no such file|is not there")])
def test_what_is_no_file_is_told_and_never_waited_for(make, kind, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a socket's name is short
    make(Path("x.png"))
    path = Path("x.png")
    with pytest.raises((ValueError, FileNotFoundError), match=f"x.png.*({words})"):
        read_image(path)
    (problem,) = look_at_image(path, (3, 3), decode=True)
    assert problem.kind == kind
    assert re.search(words, problem.detail)


def test_a_file_that_may_not_be_read_is_told(tmp_path, monkeypatch):
    path = _written(tmp_path / "x.png", _bytes("PNG"))

    def refuse(*_):  # root may read everything
        raise PermissionError(13, "Permission denied", str(path))
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ValueError, match="x.png cannot be read as an image: Permission denied$"):
        read_image(path)
    (problem,) = look_at_image(path, (128, 96), decode=True)
    assert (problem.kind, problem.detail) == ("unreadable image", "Permission denied")


def test_a_pipe_that_takes_a_files_place_is_not_waited_for_either(tmp_path, monkeypatch):
    path, pipe = _written(tmp_path / "x.png", _bytes("PNG")), tmp_path / "pipe"
    os.mkfifo(pipe)
    open_file = os.open
    monkeypatch.setattr(os, "open", lambda _, flags: open_file(pipe, flags))
    with pytest.raises(ValueError, match="x.png cannot be read as an image: it is a pipe"):
        read_image(path)


def _claims(path: Path, width: int, height: int) -> Path:
    """A PNG of one pixel whose header says that it has more."""
    content = bytearray(_bytes("PNG"))
    content[16:24] = struct.pack(">II", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(bytes(content[12:29])))
    return _written(path, bytes(content))


@pytest.mark.filterwarnings("error")
def test_a_picture_above_the_limit_is_refused_by_its_header_with_its_size_and_the_way_out(tmp_path):
    path = _claims(tmp_path / "x.png", 14000, 13000)
    with pytest.raises(ValueError, match="x.png cannot be read as an image: it has 14000×13000 pixels, 182 megapixels, "
                                         "and --max-megapixels allows 100: cut it into tiles, or raise the limit"):
        read_image(path)
    (problem,) = look_at_image(path, (14000, 13000), decode=True)
    assert problem.kind == "too large image" and problem.severity == "refused"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("megapixels", [0.0122, 0.01228799])
def test_the_limit_holds_to_the_pixel_and_can_be_changed(megapixels, tmp_path):
    path = _written(tmp_path / "x.png", _bytes("PNG"))                              # 128 · 96 = 12,288
    with pytest.raises(ValueError, match="max-megapixels"):
        read_image(path, config=DataConfig(max_megapixels=megapixels))
    assert read_image(path, config=DataConfig(max_megapixels=0.012288)).size == (128, 96)


@pytest.mark.filterwarnings("error")
def test_pillows_own_limit_is_neither_met_nor_warned_of(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    path = _written(tmp_path / "x.png", _bytes("PNG"))
    assert read_image(path).size == (128, 96) and look_at_image(path, (128, 96), decode=True) == []


@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_a_limit_that_no_picture_can_keep_is_refused(value):
    with pytest.raises(ValueError, match="max_megapixels"):
        DataConfig(max_megapixels=value)


# -- --leave-out-broken --------------------------------------------------------------------------------------------


@pytest.fixture
def broken(coco_set):
    """Five training pictures, of which one is missing, one is no picture and one is cut; two for validation."""
    for id in range(1, 6):
        coco_set.image("train", id, _photograph(), suffix="jpg")
        coco_set.box("train", id, [1, 1, id, id])
    for id in (7, 8):
        coco_set.image("val", id, _photograph(64, 40 + id))
    (coco_set.root / "train" / "0002.jpg").write_bytes(b"")
    (coco_set.root / "train" / "0003.jpg").unlink()
    cut = coco_set.root / "train" / "0004.jpg"
    cut.write_bytes(cut.read_bytes()[:-20])
    return coco_set


def test_by_default_what_is_missing_or_no_picture_is_refused_and_the_way_on_is_named(broken):
    with pytest.raises(ValueError, match="(?s)2 to be put right.*--leave-out-broken|unreadable") as refused:
        check_dataset(DataConfig(data=str(broken.write())), 10, decode=False).refuse()
    assert "0004" not in str(refused.value)


@pytest.mark.parametrize("decode", [False, True])
def test_broken_pictures_are_left_out_with_their_names_and_training_begins(decode, broken):
    data = DataConfig(data=str(broken.write()), leave_out_broken=True)
    report = check_dataset(data, 10, decode)
    report.refuse()
    assert report.left_out == {"train": (2, 3), "val": ()}
    lines = [str(problem) for problem in report.problems if problem.kind == "broken image left out"]
    assert [Path(line.split(": ")[1]).name for line in lines] == ["0002.jpg", "0003.jpg"]
    train = open_split(data, "train", SHOW, seed=1, left_out=report.left_out)
    truth = train.ground_truth()
    assert [image["id"] for image in truth["images"]] == [1, 4, 5]
    assert [(a["image_id"], a["bbox"]) for a in truth["annotations"]] == [
        (id, box) for id in (1, 4, 5) for box in ([2, 3, 11, 7], [1, 1, id, id])]
    assert [train[(0, i)][1]["image_id"] for i in range(len(train))] == [1, 4, 5]


def test_a_command_that_does_not_check_first_leaves_the_same_out(broken):
    data = DataConfig(data=str(broken.write()), leave_out_broken=True)
    assert open_split(data, "train", SHOW, seed=1).annotations.image_ids.tolist() == [1, 4, 5]


def test_what_only_decoding_finds_is_left_out_before_the_first_step(broken):
    path = broken.root / "train" / "0005.jpg"
    path.write_bytes(_without_tables(path.read_bytes()))
    assert look_at_image(path, (128, 96), decode=False) == []
    data = DataConfig(data=str(broken.write()), leave_out_broken=True)
    assert check_dataset(data, 10, decode=False).left_out["train"] == (2, 3, 5)


def test_a_split_of_which_nothing_is_left_is_refused(broken):
    for path in (broken.root / "val").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="no images: .*all of them are broken"):
        check_dataset(DataConfig(data=str(broken.write()), leave_out_broken=True), 10, decode=False).refuse()


def test_a_picture_that_cannot_be_decoded_in_mid_training_is_an_error_with_its_name(broken):
    dataset = CocoDetection(broken.write() / "train", broken.root / "annotations" / "instances_train.json", SHOW)
    with pytest.raises(ValueError, match="0002.jpg cannot be read as an image: it is empty .*--leave-out-broken$"):
        dataset[(0, 1)]


def test_a_png_with_a_long_text_beside_its_pixels_is_read(tmp_path: Path) -> None:
    notes = PngInfo()
    notes.add_text("workflow", "x" * (3 << 20), zip=True)
    Image.new("RGB", (9, 7), (1, 2, 3)).save(tmp_path / "a.png", pnginfo=notes)
    assert read_image(tmp_path / "a.png").getpixel((0, 0)) == (1, 2, 3)
    assert look_at_image(tmp_path / "a.png", (9, 7), decode=False) == []


@pytest.mark.parametrize("content, said", [
    (b"\xff\xd8\xff\xe0" + bytes(20), "begins as JPEG"), (b"\x89PNG\r\n\x1a\n\0\0", "begins as PNG"),
    (b"%PDF-1.7 text", "a PDF or an archive"),
])
def test_a_file_whose_header_is_damaged_is_called_what_it_begins_as(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(ValueError, match=f"a.jpg .*{said}"):
        read_image(tmp_path / "a.jpg")
