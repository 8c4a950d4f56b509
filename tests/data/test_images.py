from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from commands.opening import open_split
from scratch.config import DataConfig
from scratch.data.check import look_at_image
from scratch.data.images import _colour, conversions, read_image, upright_size
from scratch.data.transforms import Augmentation
from scratch.detector import as_picture


def _lying(width: int = 40, height: int = 24) -> Image.Image:
    """A black picture, red at its left edge as stored."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[:, : width // 5, 0] = 255
    return Image.fromarray(pixels)


def _with_orientation(path, orientation: int, picture: Image.Image):
    exif = Image.Exif()
    exif[274] = orientation
    picture.save(path, exif=exif)
    return path


@pytest.mark.parametrize("mode, kind, suffix", [
    ("L", "greyscale", "jpg"), ("1", "greyscale", "png"), ("LA", "greyscale", "png"), ("P", "palette", "png"),
    ("RGBA", "RGBA", "png"), ("CMYK", "CMYK", "jpg")])
def test_every_colour_mode_becomes_rgb_and_is_named(mode, kind, suffix, tmp_path):
    path = tmp_path / f"x.{suffix}"
    Image.new("RGB", (31, 17), (204, 204, 204)).convert(mode, dither=Image.Dither.NONE).save(path)
    image = read_image(path)
    assert (image.mode, image.size) == ("RGB", (31, 17))
    assert conversions(Image.open(path)) == [kind]
    assert np.abs(np.asarray(image).astype(int) - (255 if mode == "1" else 204)).max() <= 2


def test_plain_rgb_needs_no_conversion(tmp_path):
    _lying().save(tmp_path / "x.png")
    assert conversions(Image.open(tmp_path / "x.png")) == []
    assert np.array_equal(np.asarray(read_image(tmp_path / "x.png")), np.asarray(_lying()))


def test_cmyk_jpeg_keeps_its_colours(tmp_path):
    Image.new("RGB", (16, 16), (220, 40, 90)).convert("CMYK").save(tmp_path / "x.jpg", quality=95)
    assert np.abs(np.asarray(read_image(tmp_path / "x.jpg")).astype(int) - (220, 40, 90)).max() <= 4


def test_what_is_transparent_becomes_white(tmp_path):
    Image.new("RGBA", (5, 3), (10, 20, 30, 0)).save(tmp_path / "x.png")
    assert np.asarray(read_image(tmp_path / "x.png")).min() == 255


def test_a_palettes_transparent_colour_becomes_white(tmp_path):
    picture = Image.new("P", (4, 2), 0)
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.putpixel((3, 1), 1)
    picture.save(tmp_path / "x.png", transparency=0)
    pixels = np.asarray(read_image(tmp_path / "x.png"))
    assert pixels[0, 0].tolist() == [255, 255, 255] and pixels[1, 3].tolist() == [200, 100, 50]


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    Image.fromarray(np.array([[0, 257, 12850, 65535]], dtype=np.uint16)).save(tmp_path / "x.png")
    assert np.asarray(read_image(tmp_path / "x.png"))[0, :, 0].tolist() == [0, 1, 50, 255]
    assert conversions(Image.open(tmp_path / "x.png")) == ["16-bit"]


def test_a_mode_without_a_defined_white_is_refused(tmp_path):
    Image.fromarray(np.ones((3, 5), dtype=np.float32)).save(tmp_path / "x.tiff")
    with pytest.raises(ValueError, match="x.tiff cannot be read as an image: its colour mode F"):
        read_image(tmp_path / "x.tiff")


def test_a_rotated_photograph_is_turned_when_its_annotation_is_upright(tmp_path):
    path = _with_orientation(tmp_path / "x.jpg", 6, _lying())
    pixels = np.asarray(read_image(path, (24, 40))).astype(int)
    assert pixels[2, :, 0].min() > 200 and pixels[-8:, :, 0].max() < 60  # 6 turns the stored left edge to the top


def test_a_rotated_photograph_stays_when_its_annotation_is_of_the_pixels_as_stored(tmp_path):
    path = _with_orientation(tmp_path / "x.jpg", 6, _lying())
    pixels = np.asarray(read_image(path, (40, 24))).astype(int)
    assert pixels[:, 2, 0].min() > 200 and pixels[:, -8:, 0].max() < 60


@pytest.mark.parametrize("size", [None, (24, 40), (40, 24)])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_known_from_the_header_is_the_size_that_is_read(orientation, size, tmp_path):
    path = _with_orientation(tmp_path / "x.jpg", orientation, _lying())
    if size == (24, 40) and orientation < 5:
        size = None  # no reading fits; the size is refused elsewhere
    assert upright_size(Image.open(path), size) == read_image(path, size).size


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_damaged_exif_block_is_passed_over(tmp_path):
    _lying().save(tmp_path / "x.jpg", exif=b"Exif\x00\x00MM\x00\x2a\xff\xff\xff\xff")
    assert read_image(tmp_path / "x.jpg").size == (40, 24)


def test_a_rotated_png_is_turned(tmp_path):
    path = _with_orientation(tmp_path / "x.png", 6, _lying())
    assert conversions(Image.open(path)) == ["EXIF-rotated"] and read_image(path).size == (24, 40)


def test_a_half_turn_is_undone(tmp_path):
    path = _with_orientation(tmp_path / "x.jpg", 3, _lying())
    assert np.asarray(read_image(path, (40, 24)))[:, -2, 0].min() > 200
    assert conversions(Image.open(path)) == ["EXIF-rotated"]


def test_a_size_that_no_reading_fits_is_refused(tmp_path):
    _lying().save(tmp_path / "x.png")
    with pytest.raises(ValueError, match="x.png is 40×24, but its annotation says 41×24"):
        read_image(tmp_path / "x.png", (41, 24))


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_file_of_which_nothing_can_be_decoded_is_refused_by_name(suffix, tmp_path):
    path = tmp_path / f"x.{suffix}"
    Image.effect_noise((64, 48), 80).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[: 30])
    with pytest.raises(ValueError, match=f"x.{suffix} cannot be read as an image"):
        read_image(path)


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / "x.jpg")


# -- what no header promises ---------------------------------------------------------------------------------------

BLACK_TO_WHITE = np.linspace(0, 65535, 16 * 24).round().astype(np.uint16).reshape(16, 24)


def _tiff(path, values, *, kind: int, photometric: int = 1, bits: int = 0):
    """An uncompressed TIFF of one channel; kind 1: unsigned, 2: signed, 3: float. Pillow writes too few of them."""
    data, (height, width) = values.tobytes(), values.shape
    tags = [(256, width), (257, height), (258, bits or 8 * values.itemsize), (259, 1), (262, photometric), (273, 0),
            (277, 1), (278, height), (279, len(data)), (339, kind)]
    start = 8 + 2 + 12 * len(tags) + 4
    content = struct.pack("<2sHIH", b"II", 42, 8, len(tags))
    for tag, value in tags:
        content += struct.pack("<HHII", tag, 4, 1, start if tag == 273 else value)
    path.write_bytes(content + struct.pack("<I", 0) + data)
    return path


def _read(path, **how):
    return np.asarray(read_image(path, config=DataConfig(**how)))[..., 0].astype(int)


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bits_of_grey_are_alike_in_every_format(suffix, tmp_path):
    path = tmp_path / f"x.{suffix}"
    if suffix == "pgm":
        path.write_bytes(b"P5 24 16 65535\n" + BLACK_TO_WHITE.astype(">u2").tobytes())
    else:
        Image.fromarray(BLACK_TO_WHITE).save(path)
    assert np.abs(_read(path) - BLACK_TO_WHITE / 257).max() <= 0.5
    assert conversions(Image.open(path)) == ["16-bit"]


def test_a_tiff_whose_white_is_zero_is_not_shown_as_its_negative(tmp_path):
    for values, white in ((BLACK_TO_WHITE, 65535), ((BLACK_TO_WHITE // 257).astype(np.uint8), 255)):
        path = _tiff(tmp_path / "x.tif", values, kind=1, photometric=0)
        assert np.abs(_read(path) - (white - values.astype(int)) * 255 / white).max() <= 0.5
    assert _read(_tiff(tmp_path / "x.tif", BLACK_TO_WHITE, kind=1, photometric=0), sixteen_bit="range")[0, 0] == 255


def test_the_white_of_a_twelve_bit_tiff_is_that_of_twelve_bits(tmp_path):
    packed = np.array([[0xFF, 0xF8, 0x00] * 8] * 4, np.uint8)  # 4095, 2048, 4095 …
    path = _tiff(tmp_path / "x.tif", packed, kind=1, bits=12)
    content = bytearray(path.read_bytes())
    content[18:22] = struct.pack("<I", 16)  # two values in three bytes
    path.write_bytes(bytes(content))
    assert _read(path)[:, :2].tolist() == [[255, 128]] * 4


@pytest.mark.parametrize("kind, values", [
    (2, (BLACK_TO_WHITE.astype(int) - 32768).astype(np.int16)), (1, BLACK_TO_WHITE.astype(np.uint32)),
    (3, BLACK_TO_WHITE.astype(np.float32) / 655.35 - 20)])
def test_values_without_a_defined_white_are_refused_or_stretched_but_never_cut(kind, values, tmp_path):
    path = _tiff(tmp_path / "x.tif", values, kind=kind)
    with pytest.raises(ValueError, match="has no defined white; --sixteen-bit range stretches"):
        read_image(path)
    assert np.abs(_read(path, sixteen_bit="range") - BLACK_TO_WHITE / 257).max() <= 1


def test_what_is_no_number_becomes_black_and_the_rest_is_stretched(tmp_path):
    values = np.linspace(-20, 120, 384).astype(np.float32).reshape(16, 24)
    values[0, :3] = np.nan, np.inf, -np.inf
    grey = _read(_tiff(tmp_path / "x.tif", values, kind=3), sixteen_bit="range")
    assert grey[0, [0, 2]].tolist() == [0, 0] and grey[0, 1] == 255 and grey[-1, -1] == 255 and grey[0, 3] <= 2
    assert _read(_tiff(tmp_path / "y.tif", np.full((4, 4), np.nan, np.float32), kind=3), sixteen_bit="range").max() == 0


@pytest.mark.parametrize("low, high", [(0, 4095), (20720, 21480), (0, 65535), (40000, 40001)])
def test_range_stretches_a_picture_from_its_own_darkest_to_its_own_brightest(low, high, tmp_path):
    values = np.linspace(low, high, 1000).round().astype(np.uint16).reshape(20, 50)
    Image.fromarray(values).save(tmp_path / "x.png")
    grey = _read(tmp_path / "x.png", sixteen_bit="range")
    assert (grey.min(), grey.max()) == (0, 255)
    assert np.abs(grey - (values - low) * (255 / (high - low))).max() <= 1


def test_a_dead_pixel_does_not_take_the_range(tmp_path):
    values = np.linspace(3000, 3400, 10_000).round().astype(np.uint16).reshape(100, 100)
    values[7, 8], values[50, 51] = 65535, 0
    Image.fromarray(values).save(tmp_path / "x.png")
    grey = _read(tmp_path / "x.png", sixteen_bit="range")
    assert grey[0, 0] <= 1 and grey[-1, -1] >= 254 and (grey[7, 8], grey[50, 51]) == (255, 0)


def test_a_small_bright_object_on_black_is_seen_and_one_value_throughout_is_black(tmp_path):
    values = np.zeros((100, 100), np.uint16)
    values[7, 8] = 300
    Image.fromarray(values).save(tmp_path / "x.png")
    Image.fromarray(np.full((9, 9), 777, np.uint16)).save(tmp_path / "y.png")
    assert _read(tmp_path / "x.png", sixteen_bit="range")[7, 8] == 255
    assert _read(tmp_path / "y.png", sixteen_bit="range").max() == 0


def test_eight_bits_are_the_same_whatever_is_done_with_sixteen(tmp_path):
    _lying().save(tmp_path / "x.png")
    assert np.array_equal(_read(tmp_path / "x.png"), _read(tmp_path / "x.png", sixteen_bit="range"))


def test_of_sixteen_bit_colour_the_upper_eight_are_stretched_in_all_channels_alike(tmp_path):
    rows = b"".join(b"\0" + struct.pack(">6H", 0x0000, 0x0400, 0x0800, 0x0FFF, 0x0200, 0x0000) for _ in range(2))
    path = tmp_path / "x.png"
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks))
    assert np.asarray(read_image(path))[0].tolist() == [[0, 4, 8], [15, 2, 0]]
    stretched = np.asarray(read_image(path, config=DataConfig(sixteen_bit="range")))[0]
    assert stretched.tolist() == [[0, 68, 136], [255, 34, 0]]


@pytest.mark.parametrize("name, options", [
    ("x.gif", {"mode": "P"}), ("x.webp", {"lossless": True}), ("x.png", {}), ("x.tif", {}), ("x.mpo", {"quality": 95})])
def test_of_several_frames_or_pages_the_first_is_taken(name, options, tmp_path):
    first, second = _lying(), _lying().transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    mode = options.pop("mode", "RGB")
    first.convert(mode).save(tmp_path / name, save_all=True, append_images=[second.convert(mode)], **options)
    red = np.asarray(read_image(tmp_path / name))[..., 0].astype(int)
    assert red[:, :6].min() > 200 and red[:, 12:].max() < 50


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_there_is_not_leaves_the_picture_as_it_is(orientation, tmp_path):
    path = _with_orientation(tmp_path / "x.jpg", orientation, _lying())
    with Image.open(path) as image:
        assert conversions(image) == [] and upright_size(image) == upright_size(image, (24, 40)) == (40, 24)
    assert read_image(path).size == (40, 24)


@pytest.mark.parametrize("value", [(6, 6), b"6", "upright", 6.5])
def test_an_orientation_that_is_no_number_leaves_the_picture_as_it_is(value, tmp_path, monkeypatch):
    _lying().save(tmp_path / "x.jpg")
    monkeypatch.setattr(Image.Image, "getexif", lambda image: {274: value})
    assert read_image(tmp_path / "x.jpg", (40, 24)).size == (40, 24)


def test_a_tiff_that_is_turned_has_its_upright_size(tmp_path):
    _lying().save(tmp_path / "x.tif", tiffinfo={274: 6})
    assert read_image(tmp_path / "x.tif", (24, 40)).size == (24, 40)
    assert look_at_image(tmp_path / "x.tif", (24, 40), decode=False) == []


@pytest.mark.parametrize("quality", [75, 95])
def test_cmyk_of_photoshop_and_of_others_is_not_shown_as_its_negative(quality, tmp_path):
    Image.new("CMYK", (16, 16), (0, 200, 255, 10)).save(tmp_path / "x.jpg", quality=quality)
    red, green, blue = np.asarray(read_image(tmp_path / "x.jpg"))[8, 8].astype(int)
    assert red > 220 and green < 90 and blue < 60


@pytest.mark.parametrize("name", ["x.png", "x.tif"])
def test_grey_with_transparency_is_laid_over_white(name, tmp_path):
    picture = Image.new("LA", (4, 4), (90, 255))
    picture.putpixel((0, 0), (90, 0))
    picture.putpixel((1, 0), (90, 128))
    picture.save(tmp_path / name)
    assert _read(tmp_path / name)[0].tolist() == [255, pytest.approx(172, abs=1), 90, 90]


def test_a_palette_with_transparency_is_laid_over_white():
    picture = Image.new("P", (4, 4))
    picture.putpalette([9, 90, 200])
    picture = picture.convert("PA")
    picture.putpixel((0, 0), (0, 0))
    assert np.asarray(_colour(picture)[0])[0, :2].tolist() == [[255, 255, 255], [9, 90, 200]]


@pytest.mark.parametrize("how", ["full", "range"])
def test_training_evaluation_and_predict_show_sixteen_bits_alike(how, coco_set):
    values = np.linspace(900, 5000, 23 * 37).astype(np.uint16).reshape(23, 37)
    path = coco_set.image("train", 1, Image.fromarray(values))
    data = DataConfig(data=str(coco_set.write()), sixteen_bit=how)
    shown = open_split(data, "train", Augmentation("none", 23, 37), seed=1)[(0, 0)][0].permute(1, 2, 0).numpy()
    assert np.array_equal(shown, np.asarray(as_picture(path, data)))
    assert np.ptp(shown) == {"full": 15, "range": 255}[how]
