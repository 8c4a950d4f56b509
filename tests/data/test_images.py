from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from scratch.data.images import conversions, read_image, upright_size


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
