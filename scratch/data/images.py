"""images: how does any picture file become an upright picture of 8-bit red, green and blue?

    greyscale   the one value thrice                   RGBA, transparent palette   laid over white paper
    palette     looked up                              16-bit         round(v / 257), so 0..65535 becomes 0..255
    CMYK        Pillow's conversion                    EXIF-rotated   turned upright, unless its boxes were drawn before

A camera held upright stores a lying picture and a note, "turn me" (EXIF tag 274). Annotators mostly see the picture
turned, but not always; the annotated width and height tell. `read_image` turns when they fit the turned picture or
when they cannot tell (a half turn, a square), and leaves the pixels as stored when they fit only those.

A JPEG holds 8×8 blocks of frequencies. Whoever will show it small can leave the high ones out and have 4×4, 2×2 or 1
pixel a block: less to transform, and less to resample afterwards. Each pixel then is one of `by` × `by` of the file's:

    641 × 427, by 2    321 × 214    the last column and row lie half outside; a place x of the file is at x / 2

Proven in tests/data/test_images.py, test_reduced.py. Read: conversions (what a file needs) → Reduced → read_reduced
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np
from PIL import ExifTags, Image

# Pillow's colour mode of a file → the kind of conversion that it needs. A mode that is not listed has no defined white
# (32-bit integers, floats) or no defined colour (LAB without its profile), and is refused.
_KINDS = {"RGB": None, "1": "greyscale", "L": "greyscale", "LA": "greyscale", "P": "palette", "PA": "palette",
          "RGBA": "RGBA", "RGBX": "RGBA", "CMYK": "CMYK", "YCbCr": "YCbCr"}

_T = Image.Transpose
# EXIF orientation → what undoes it; 1 is upright, 5-8 swap width and height.
_TURNS = {2: _T.FLIP_LEFT_RIGHT, 3: _T.ROTATE_180, 4: _T.FLIP_TOP_BOTTOM,
          5: _T.TRANSPOSE, 6: _T.ROTATE_270, 7: _T.TRANSVERSE, 8: _T.ROTATE_90}


@dataclass(frozen=True)
class Reduced:
    """A picture that answers as the whole file's would, from fewer pixels.

    pixels   those that were decoded, upright
    by       the file's pixels a decoded one, each way: 1, 2, 4 or 8
    size     (width, height) of the whole file, upright
    """

    pixels: Image.Image
    by: int
    size: tuple[int, int]

    @property
    def width(self) -> int:
        return self.size[0]

    @property
    def height(self) -> int:
        return self.size[1]

    def resize(self, size: tuple[int, int], resample: Image.Resampling,
               box: tuple[float, float, float, float]) -> Image.Image:
        """As Pillow's: the part `box`, in pixels of the file, as a picture of `size`."""
        x0, y0, x1, y1 = (side / self.by for side in box)
        return self.pixels.resize(size, resample, box=(x0, y0, x1, y1))


def conversions(image: Image.Image) -> list[str]:
    """What an opened file needs before it is upright 8-bit RGB: nothing for most; known from the header alone.

    The answers: "greyscale", "palette", "RGBA", "CMYK", "YCbCr", "16-bit", "EXIF-rotated".
    Raises ValueError for a colour mode that has no defined white or colour.
    """
    # 16-bit colour is opened as 8-bit RGB; only the name of the decoder's raw format, such as "RGB;16B", tells.
    if _is_16_bit_grey(image) or any(";16" in str(tile[3]) for tile in image.tile):
        kind = "16-bit"
    elif image.mode in _KINDS:
        kind = _KINDS[image.mode]
    else:
        raise ValueError(f"its colour mode {image.mode} has no one reading as RGB; save it with 8 or 16 bits a channel")
    return ([kind] if kind else []) + (["EXIF-rotated"] if _orientation(image) in _TURNS else [])


def upright_size(image: Image.Image, size: Optional[tuple[int, int]] = None) -> tuple[int, int]:
    """The (width, height) that `read_image` will give for an opened file and its annotated (width, height)."""
    width, height = image.size
    return (height, width) if _orientation(image) >= 5 and _turns(image, size) else (width, height)


def read_image(path: Path, size: Optional[tuple[int, int]] = None) -> Image.Image:
    """The picture in `path`, decoded, 8-bit RGB and upright as said above; `size` is the annotated (width, height).

    Raises FileNotFoundError for a missing file and ValueError, naming the file, for one that cannot be decoded to its
    end, or whose size is not the annotated one.
    """
    return read_reduced(path, size, 1).pixels


def read_reduced(path: Path, size: Optional[tuple[int, int]], reduction: int) -> Reduced:
    """As `read_image`, but a JPEG is decoded reduced by 2, 4 or 8: by `reduction`, or less where it has to be turned.

    Turned, a column that lies half outside would come first, and move all others: there the reduction divides the size.
    """
    try:
        with Image.open(path) as image:
            conversions(image)
            turn = _TURNS[_orientation(image)] if _turns(image, size) else None
            whole, (width, height) = upright_size(image, size), image.size
            while min(width, height) < reduction or turn is not None and (width % reduction or height % reduction):
                reduction //= 2
            # Pillow takes the largest reduction that keeps a size. No mode: the file's own, whatever it is.
            if image.draft(None, (width // reduction, height // reduction)) is None:
                reduction = 1  # not a JPEG
            image.load()
            rgb = _to_rgb(image)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as an image: {error}") from error
    if turn is not None:
        rgb = rgb.transpose(turn)
    if reduction == 1:
        whole = rgb.size  # a TIFF may have been turned while it was loaded
    if size is not None and whole != size:
        raise ValueError(f"{path} is {whole[0]}×{whole[1]}, but its annotation says {size[0]}×{size[1]}, so its "
                         "boxes would be off; correct the annotation or the file")
    return Reduced(rgb, reduction, whole)


def _orientation(image: Image.Image) -> int:
    if image.format == "TIFF":  # Pillow turns these itself
        return 1
    try:
        # The base class's method: that of PNG files decodes every pixel, for a note that may stand behind them.
        return Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    except Exception:  # a damaged EXIF block raises anything, and the picture beside it is fine
        return 1


def _turns(image: Image.Image, size: Optional[tuple[int, int]]) -> bool:
    """Is there an orientation, and do the pixels as stored not fit the annotation better?"""
    orientation = _orientation(image)
    fits_only_as_stored = orientation in (5, 6, 7, 8) and size == image.size and image.width != image.height
    return orientation in _TURNS and not fits_only_as_stored


def _is_16_bit_grey(image: Image.Image) -> bool:
    # Older versions of Pillow open a 16-bit greyscale PNG as 32-bit integers, "I"; a TIFF in that mode has 32 bits.
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")


def _to_rgb(image: Image.Image) -> Image.Image:
    if _is_16_bit_grey(image):
        values = np.asarray(image).astype(np.uint32)                                # (H,W)
        return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        paper = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(paper, image.convert("RGBA")).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")  # no second copy of it
