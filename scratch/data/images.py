"""images: how does any picture file become an upright picture of 8-bit red, green and blue?

    greyscale   the one value in all three channels    RGBA, transparent palette   laid over white paper
    palette     looked up                              16-bit         0..65535 becomes 0..255, or is stretched
    CMYK        Pillow's conversion                    EXIF-rotated   turned upright, unless its boxes were drawn before

A camera held upright stores a lying picture and a note, "turn me" (EXIF tag 274). Annotators mostly see the picture
turned, but not always; the annotated width and height tell. `read_image` turns when they fit the turned picture or
when they cannot tell (a half turn, a square), and leaves the pixels as stored when they fit only those.

A 12-bit sensor fills a sixteenth of 16 bits, a thermal camera less: `sixteen_bit = "range"` stretches each picture from
its own darkest to its own brightest values. By its own, not by the data set's: then a picture is shown to the network
alike in training, in evaluation and by `predict`, from every source, and a sensor whose zero drifts does no harm.

A JPEG holds 8×8 blocks of frequencies. An image that is shown small needs no high ones: without them a block has 4×4,
2×2 or 1 pixel, so there is less to transform, and less to resample. Each pixel then stands for `by` × `by` of the
file's:

    641 × 427, by 2    321 × 214    the last column and row lie half outside; a place x of the file is at x / 2

A file that ends too early is decoded as far as it goes; colour profiles (ICC) are not applied. Proven in
tests/data/test_{images,reduced,damaged}.py. Read: conversions (what a file needs) → opened → read_reduced
"""

from __future__ import annotations

import io
import os
import stat
import struct
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, Callable, Iterator, NamedTuple, Optional

import numpy as np
from PIL import ExifTags, Image, ImageFile, PngImagePlugin, TiffImagePlugin

from scratch.config import DataConfig
from scratch.printable import printable

# A PNG file may carry a text beside its pixels (a workflow, an XMP note). Pillow refuses one of more than 1 MiB.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = 64 * 2**20

# Pillow's colour mode of a file → the kind of conversion that it needs. A mode that is not listed has no defined white
# (32-bit integers, floats) or no defined colour (LAB without its profile).
_KINDS = {"RGB": None, "1": "greyscale", "L": "greyscale", "LA": "greyscale", "P": "palette", "PA": "palette",
          "RGBA": "RGBA", "RGBX": "RGBA", "CMYK": "CMYK", "YCbCr": "YCbCr"}
# Those without a defined white have a darkest and a brightest value all the same.
_STRETCHED = {"I", "F"}
# "range" leaves this share of the pixels at either end out: a dead pixel or two would take the whole range.
_OUTLIERS = 0.001

# Never opened: for these Pillow starts another program (Ghostscript) on the content of an unknown file.
_NOT_OPENED = {"EPS"}
_JPEG = ("JPEG", "MPO")
_END_OF_JPEG = b"\xff\xd9"

# Pillow warns of odd tags without the file's name, and goes on; what matters is raised, and told with the name.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

_T = Image.Transpose
# EXIF orientation → what undoes it; 1 is upright, 5-8 swap width and height.
_TURNS = {2: _T.FLIP_LEFT_RIGHT, 3: _T.ROTATE_180, 4: _T.FLIP_TOP_BOTTOM,
          5: _T.TRANSPOSE, 6: _T.ROTATE_270, 7: _T.TRANSVERSE, 8: _T.ROTATE_90}

Values = Optional[tuple[int, int]]


class Damage(NamedTuple):
    """Why a file could not be decoded to its end, "" if it was, and the share of the rows that are missing.

    Rows are missing without a word where a JPEG has a gap: its decoder leaves them grey, as some pictures are.
    """

    words: str = ""
    missing: float = 0.0


@dataclass(frozen=True)
class Reduced:
    """A picture that answers as the whole file's would, from fewer pixels.

    pixels    those that were decoded, upright
    by        the file's pixels a decoded one, each way: 1, 2, 4 or 8
    size      (width, height) of the whole file, upright
    damage    how the file is damaged
    values    of a 16-bit picture the least and the greatest, of 0..65535; None for others
    """

    pixels: Image.Image
    by: int
    size: tuple[int, int]
    damage: Damage = Damage()
    values: Values = None

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


def conversions(image: Image.Image, sixteen_bit: str = "full") -> list[str]:
    """What an opened file needs before it is upright 8-bit RGB: nothing for most; known from the header alone.

    The answers: "greyscale", "palette", "RGBA", "CMYK", "YCbCr", "16-bit", "stretched", "EXIF-rotated".
    Raises ValueError for a colour mode that has no defined white or colour.
    """
    # 16-bit colour is opened as 8-bit RGB; only the name of the decoder's raw format, such as "RGB;16B", tells.
    if _white(image) is not None or image.mode[0] not in "IF" and any(";16" in str(tile[3]) for tile in image.tile):
        kind = "16-bit"
    elif image.mode in _KINDS:
        kind = _KINDS[image.mode]
    elif image.mode in _STRETCHED:
        if sixteen_bit != "range":
            raise ValueError(f"its colour mode {image.mode} (32-bit, signed or float values) has no defined white; "
                             "--sixteen-bit range stretches each picture by its own values, or save it with 8 or 16 "
                             "bits a channel")
        kind = "stretched"
    else:
        raise ValueError(f"its colour mode {image.mode} has no one reading as RGB; save it with 8 or 16 bits a channel")
    return ([kind] if kind else []) + (["EXIF-rotated"] if _orientation(image) in _TURNS else [])


def upright_size(image: Image.Image, size: Optional[tuple[int, int]] = None) -> tuple[int, int]:
    """The (width, height) that `read_image` will give for an opened file and its annotated (width, height)."""
    width, height = image.size
    return (height, width) if _orientation(image) >= 5 and _turns(image, size) else (width, height)


def refuse_too_large(image: Image.Image, max_megapixels: float) -> None:
    """Raise TooLarge for an opened file with more pixels than that: known from its header, before any is decoded."""
    width, height = image.size
    if width * height > max_megapixels * 1e6:
        raise TooLarge(f"it has {width}×{height} pixels, {width * height / 1e6:,.0f} megapixels, and --max-megapixels "
                       f"allows {max_megapixels:g}: cut it into tiles, or raise the limit (decoded, a megapixel takes "
                       "4 MB, in each worker)")


class TooLarge(ValueError):
    """A picture with more pixels than is allowed."""


class Broken(ValueError):
    """A file of which no picture can be made."""


@contextmanager
def opened(path: Path) -> Iterator[tuple[ImageFile.ImageFile, Damage]]:
    """The picture in a file, as Pillow opens it, its pixels not yet decoded; and the damage that was seen by then.

    Raises FileNotFoundError, or OSError for what is no regular file (a pipe would be waited for), or no picture.
    Pillow's own Image.open has a limit of pixels that is global to the process, and warns of half of it without saying
    which file it was; `refuse_too_large` is ours.
    """
    with _regular_file(path) as file:
        try:
            found: Optional[tuple[ImageFile.ImageFile, Damage]] = (_identified(file), Damage())
        except _NoPicture as error:
            found = _padded_webp(file)
            if found is None:
                raise OSError(str(error)) from None
        yield found


def read_image(path: Path, size: Optional[tuple[int, int]] = None, config: DataConfig = DataConfig()) -> Image.Image:
    """The picture in `path`, decoded, 8-bit RGB and upright as said above; `size` is the annotated (width, height).

    config   its `sixteen_bit` and `max_megapixels` are used
    Raises FileNotFoundError for a missing file and ValueError, naming the file, for one of which nothing can be
    decoded, that is too large, or whose size is not the annotated one.
    """
    return read_reduced(path, size, 1, config).pixels


def read_reduced(path: Path, size: Optional[tuple[int, int]], reduction: int,
                 config: DataConfig = DataConfig()) -> Reduced:
    """As `read_image`, but a JPEG is decoded reduced by 2, 4 or 8: by `reduction`, or less where it has to be turned.

    Turned, a column that lies half outside would come first, and move all others: there the reduction divides the size.
    """
    with _named(path), opened(path) as (image, damage):
        conversions(image, config.sixteen_bit)
        refuse_too_large(image, config.max_megapixels)
        turn = _TURNS[_orientation(image)] if _turns(image, size) else None
        whole, (width, height) = upright_size(image, size), image.size
        while min(width, height) < reduction or turn is not None and (width % reduction or height % reduction):
            reduction //= 2
        reduced = (width // reduction, height // reduction)
        # Pillow takes the largest reduction that keeps a size. No mode: the file keeps its own.
        if image.draft(None, reduced) is None:
            reduction = 1  # not a JPEG
        as_rgb = _reader_of(image, config.sixteen_bit)  # what it needs, its header tells before it is decoded
        image, damage = _decoded(image, damage, reduced)
        rgb, values = as_rgb(image)
    if turn is not None:
        rgb = rgb.transpose(turn)
    if reduction == 1:
        whole = rgb.size  # a TIFF may have been turned while it was loaded
    if size is not None and whole != size:
        raise ValueError(f"{printable(path)} is {whole[0]}×{whole[1]}, but its annotation says {size[0]}×{size[1]}, so "
                         "its boxes would be off; correct the annotation or the file")
    return Reduced(rgb, reduction, whole, damage, values)


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) of the upright picture, from the file's header alone. Raises as `read_image` does."""
    with _named(path), opened(path) as (image, _):
        return upright_size(image)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Turn any exception of a decoder for a damaged file into Broken, which names the file."""
    try:
        yield
    except FileNotFoundError:
        raise
    except Exception as error:
        raise Broken(f"{printable(path)} cannot be read as an image: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """What an exception says, without a number of the system's and without the path."""
    if isinstance(error, MemoryError):
        return "it needs more memory than there is"
    return printable(getattr(error, "strerror", None) or str(error) or type(error).__name__)


# -- the file ------------------------------------------------------------------------------------------------------


def _regular_file(path: Path) -> BinaryIO:
    try:
        _refuse_special(os.stat(path).st_mode)
        # Should a pipe take the file's place between the two lines, this does not wait for it either.
        flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
        file = os.fdopen(os.open(path, flags), "rb")
    except FileNotFoundError:
        if os.path.islink(path):
            raise FileNotFoundError(f"{printable(path)} is a link to {printable(os.readlink(path))}, and nothing is "
                                    "there") from None
        raise FileNotFoundError(f"{printable(path)} is not there") from None
    try:
        _refuse_special(os.fstat(file.fileno()).st_mode)
    except OSError:
        file.close()
        raise
    return file


def _refuse_special(mode: int) -> None:
    if not stat.S_ISREG(mode):
        what = ("a folder" if stat.S_ISDIR(mode) else "a pipe" if stat.S_ISFIFO(mode) else
                "a socket" if stat.S_ISSOCK(mode) else "a device")
        raise OSError(f"it is {what}, wanted a file")


class _NoPicture(Exception):
    """No format takes the file for one of its own."""


def _identified(file: BinaryIO) -> ImageFile.ImageFile:
    """As Pillow's Image.open, without its limit of pixels."""
    file.seek(0)
    prefix = file.read(16)
    tried = set(_NOT_OPENED)
    for load_formats in (Image.preinit, Image.init):  # the five that are common, all others
        load_formats()
        for name in [name for name in Image.ID if name not in tried]:
            tried.add(name)
            factory, accept = Image.OPEN[name]
            try:
                if accept is None or accept(prefix) is True:  # a text: why it cannot
                    file.seek(0)
                    return factory(file, "")
            except (SyntaxError, IndexError, TypeError, struct.error):  # another format's file after all
                continue
            except OSError as error:
                raise _NoPicture(f"it begins as {name}, but goes on otherwise ({error})") from error
            except Image.DecompressionBombError as error:  # a few formats have a limit of their own within Pillow
                raise TooLarge("it has more pixels than Pillow opens of this format: cut it into tiles") from error
    raise _NoPicture(_what_else(file))


# How files begin that should have been opened.
_MARKS = ((b"\xff\xd8\xff", "JPEG"), (b"\x89PNG", "PNG"), (b"II*\0", "TIFF"), (b"MM\0*", "TIFF"), (b"GIF8", "GIF"))


def _what_else(file: BinaryIO) -> str:
    file.seek(0)
    start = file.read(256)
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not start:
        return "it is empty (0 bytes)"
    if text.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, not the picture: run `git lfs pull` where it came from"
    if text.startswith((b"<!doctype", b"<html")):
        return "it is an HTML page, as a failed download leaves it: fetch the picture again"
    known = next((what for mark, what in _MARKS if start.startswith(mark)), "AVIF" if start[4:12] in
                 (b"ftypavif", b"ftypavis") else None)
    if known:
        return (f"it begins as {known}, but is damaged there, cut short, or of a kind that cannot be decoded (JPEG of "
                "12 bits, say): save it again")
    if start.startswith((b"%PDF", b"PK\x03\x04", b"\x1f\x8b")):
        return "it is a PDF or an archive, wanted JPEG or PNG"
    if start[4:8] == b"ftyp":
        return f"it is a {printable(start[8:12].decode('latin-1').strip())} file (HEIC or a film), wanted JPEG or PNG"
    if not start.strip(b"\0"):
        return "it begins with zeros alone, as an interrupted copy does: fetch it again"
    if start.startswith(b"%!PS"):
        return "it is PostScript, wanted JPEG or PNG"
    return "its content is of no known picture format"


def _padded_webp(file: BinaryIO) -> Optional[tuple[ImageFile.ImageFile, Damage]]:
    """A WebP file that ends too early, its last chunk made longer by zeros: its decoder takes no less. Others: None."""
    file.seek(0)
    content = bytearray(file.read(2**28))
    if content[:4] != b"RIFF" or content[8:12] != b"WEBP":
        return None
    there, chunk, end = len(content), 12, 0
    while chunk + 8 <= there:
        end = chunk + 8 + struct.unpack_from("<I", content, chunk + 4)[0]
        end += end % 2  # chunks are of even lengths
        if end > there:
            break
        chunk = end
    if end <= there:
        return None
    content += bytes(min(end - there, there) + 2**16)
    content += bytes(len(content) % 2)
    struct.pack_into("<I", content, chunk + 4, len(content) - chunk - 8)
    struct.pack_into("<I", content, 4, len(content) - 8)
    try:
        image = _identified(io.BytesIO(bytes(content)))
    except _NoPicture:
        return None
    return image, Damage(f"the file ends {end - there:,} bytes too early", 1 - there / end)


# -- its pixels ----------------------------------------------------------------------------------------------------


def _decoded(image: ImageFile.ImageFile, damage: Damage, reduced: tuple[int, int]) -> tuple[Image.Image, Damage]:
    """The picture with its pixels, as far as they can be decoded, and how far that is.

    Pillow's own way to go on, ImageFile.LOAD_TRUNCATED_IMAGES, is one for all threads of the process and all its
    pictures; this is for one.
    """
    file = image.fp
    try:
        image.load()
        return image, Damage("", _grey_rows(image)) if image.format in _JPEG else damage
    except MemoryError:
        raise
    except Exception as error:
        words = reason(error)
    if image.format in _JPEG and file is not None:
        file.seek(0)
        content = file.read()
        # Told that the file ends here, the decoder gives out all that it has; where that is nothing, a segment between
        # two scans was cut, and the last whole scan ends before it.
        marker = max(content.rfind(b"\xff\xda"), content.rfind(b"\xff\xc4"))
        for length in (len(content), marker):
            again = _loaded(io.BytesIO(content[:max(length, 0)] + _END_OF_JPEG), reduced)
            if again is not None and (missing := _missing(again)) < 1:
                return again, Damage(words, missing)
    try:
        missing = _missing(_pixels_so_far(image))
    except OSError:  # the decoder did not even begin
        missing = 1.0
    if missing == 1:
        raise OSError(f"nothing of it can be decoded ({words})")
    return image, Damage(words, missing)


def _loaded(file: BinaryIO, reduced: tuple[int, int]) -> Optional[Image.Image]:
    try:
        image = _identified(file)
    except Exception:
        return None
    image.draft(None, reduced)
    try:
        image.load()
    except Exception:
        try:
            return _pixels_so_far(image)
        except OSError:  # the decoder did not even begin
            return None
    return image


def _pixels_so_far(image: ImageFile.ImageFile) -> Image.Image:
    """A picture that could not be loaded to its end, as far as that went: Pillow decodes into its final place."""
    image.tile = []
    image.load()
    return image


def _missing(image: Image.Image) -> float:
    """The share of rows that a decoder has left as they were: the last ones, all zero, or all of a JPEG's middle grey.

    Black rows before them are of the picture, as in a film with bars. A BMP's rows come from below: there the first
    ones count, too.
    """
    jpeg = image.format in _JPEG
    rows = np.asarray(image).reshape(image.height, -1)
    low, high = rows.min(axis=1), rows.max(axis=1)
    runs = [0]
    for end in (slice(None, None, -1), *([slice(None)] if image.format in ("BMP", "DIB", "TGA") else [])):
        value = low[end][0]
        if value in (0, *((127, 128) if jpeg else ())):
            same = (low == value)[end] & (high == value)[end]
            runs.append(len(same) if same.all() else int(same.argmin()))
    return max(runs) / image.height


def _grey_rows(image: Image.Image) -> float:
    """The share of the rows at a JPEG's end that are throughout of the grey that stands for no data; mostly none."""
    last = np.asarray(image.crop((0, image.height - 1, image.width, image.height)))
    if last.min() != last.max() or last.flat[0] not in (127, 128):
        return 0.0
    other = np.flatnonzero((np.asarray(image) != last.flat[0]).reshape(image.height, -1).any(axis=1))
    return 1 - (other[-1] + 1 if other.size else 0) / image.height


def _orientation(image: Image.Image) -> int:
    if image.format == "TIFF":  # Pillow turns these itself
        return 1
    try:
        # The base class's method: that of PNG files decodes every pixel, for a note that may stand behind them.
        orientation = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    except Exception:  # a damaged EXIF block raises anything, and the picture beside it is fine
        return 1
    return orientation if isinstance(orientation, int) else 1


def _turns(image: Image.Image, size: Optional[tuple[int, int]]) -> bool:
    """Is there an orientation, and do the pixels as stored not fit the annotation better?"""
    orientation = _orientation(image)
    fits_only_as_stored = orientation in (5, 6, 7, 8) and size == image.size and image.width != image.height
    return orientation in _TURNS and not fits_only_as_stored


def _white(image: Image.Image) -> Optional[int]:
    """The value of white in a picture of 9 to 16 unsigned bits of grey; None for other pictures."""
    if image.mode.startswith("I;16"):
        return 4095 if any("I;12" in str(tile[3]) for tile in getattr(image, "tile", [])) else 65535
    # 16-bit grey is opened as 32-bit integers from a PGM, and in older versions of Pillow from a PNG; in a TIFF, mode I
    # has 32 bits or signs.
    return 65535 if image.mode == "I" and image.format in ("PNG", "PPM") else None


def _reader_of(image: ImageFile.ImageFile, sixteen_bit: str) -> Callable[[Image.Image], tuple[Image.Image, Values]]:
    """What makes a picture, once it is decoded, 8-bit RGB, and says the least and the greatest of 16-bit values."""
    white = _white(image)
    stretch = sixteen_bit == "range"
    if white is not None or image.mode in _STRETCHED:
        # Pillow undoes "white is zero" for 8 bits and fewer alone.
        return partial(_grey, white=white, negative=_is_negative(image), stretch=stretch)
    return partial(_sixteen_bit_colour, stretch=stretch) if "16-bit" in conversions(image) else _colour


def _is_negative(image: Image.Image) -> bool:
    return image.format == "TIFF" and getattr(image, "tag_v2", {}).get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0


def _grey(image: Image.Image, white: Optional[int], negative: bool, stretch: bool) -> tuple[Image.Image, Values]:
    values = np.asarray(image)                                                      # (H,W)
    if stretch:
        grey = _stretched(values)
    else:
        grey = ((values.astype(np.uint32) * 255 + white // 2) // white).clip(0, 255).astype(np.uint8)
    seen = None if white is None else (int(values.min()) * 65535 // white, int(values.max()) * 65535 // white)
    return Image.fromarray(255 - grey if negative else grey).convert("RGB"), seen


def _stretched(values: np.ndarray) -> np.ndarray:
    """Numbers → uint8, the darkest as 0 and the brightest as 255, without regard to a few outliers at either end."""
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values.ravel()
    if not finite.size:
        return np.zeros(values.shape, np.uint8)
    low, high = np.percentile(finite, (100 * _OUTLIERS, 100 * (1 - _OUTLIERS)))
    if low == high:  # nearly all of it is one value, and what differs is all that there is to see
        low, high = float(finite.min()), float(finite.max())
    with np.errstate(all="ignore"):
        scaled = (values.astype(np.float32 if values.dtype.itemsize == 2 else np.float64) - low) * (
            255 / (high - low) if high > low else 0.0)
    return np.nan_to_num(scaled).clip(0, 255).round().astype(np.uint8)


def _sixteen_bit_colour(image: Image.Image, stretch: bool) -> tuple[Image.Image, Values]:
    """Of 16-bit colour, Pillow keeps the upper 8 bits."""
    rgb = _colour(image)[0]
    pixels = np.asarray(rgb)
    seen = (int(pixels.min()) * 257, int(pixels.max()) * 257)
    return Image.fromarray(_stretched(pixels)) if stretch else rgb, seen


def _colour(image: Image.Image) -> tuple[Image.Image, Values]:
    if image.has_transparency_data:
        paper = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(paper, image.convert("RGBA")).convert("RGB"), None
    return image if image.mode == "RGB" else image.convert("RGB"), None  # no second copy of it
