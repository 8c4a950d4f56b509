"""figures: how is a chart written to a file, completely, with every name shown unchanged?

    figure ─▶ all its texts made plain ─▶ .NAME.partial.png ─▶ NAME.png

Two dollar signs in a text are mathematics to matplotlib, and half of a formula is an error, at the moment of drawing:
for a class `$10_to_$20` that was the end of a training. Control characters and halves of characters are errors or
boxes. Texts that we write hold no formula, so that all of them are made plain here, where every chart passes; the
numbers at the ticks, in powers of ten, are matplotlib's and stay. Proven in tests/analysis/test_figures.py.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Iterator

import matplotlib

matplotlib.use("Agg")  # a file, never a window
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.artist import Artist  # noqa: E402
from matplotlib.axis import Axis  # noqa: E402
from matplotlib.category import StrCategoryFormatter  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.text import Text  # noqa: E402
from matplotlib.ticker import FixedFormatter, Formatter, FuncFormatter  # noqa: E402
from PIL import Image  # noqa: E402

from scratch.printable import printable  # noqa: E402
from scratch.whole_file import whole_file  # noqa: E402

DPI = 110  # pixels an inch
_GLYPH = re.compile(r"Glyph \d+ .* missing from")
_told = False


def save(figure: Figure, path: Path, palette: bool = False, several: bool = False) -> Path:
    """Write the figure as a PNG, whole or not at all, and forget it; returns the file.

    palette   256 colours at most: a third of the bytes, where a folder has thirty charts
    several   other processes may draw the same file in the same moment
    """
    try:
        make_plain(figure)
        with whole_file(Path(path), several=several) as partial:
            _draw(figure, partial, compress_level=1 if palette else 6)  # what is written again needs no effort
            if palette:
                to_palette(partial)
    finally:
        plt.close(figure)
    return path


def make_plain(figure: Figure) -> None:
    """Turn every text of the figure, and of every tick that has a name, into letters that mean themselves."""
    for text in _texts(figure):
        text.set_text(plain(text.get_text()))


def plain(text: str) -> str:
    """Lines of letters, without control characters and formulas."""
    return "\n".join(map(printable, text.split("\n"))).replace("$", r"\$")


def _texts(artist: Artist) -> Iterator[Text]:
    if isinstance(artist, Axis):  # its ticks come and go: what names them is asked each time
        for which in ("major", "minor"):
            formatter = getattr(artist, f"get_{which}_formatter")()
            if isinstance(formatter, (FixedFormatter, FuncFormatter, StrCategoryFormatter)):
                formatter = _plainly(formatter)
                getattr(artist, f"set_{which}_formatter")(formatter)
        yield artist.label
    elif isinstance(artist, Text):
        yield artist
    else:
        for child in artist.get_children():
            yield from _texts(child)


def _plainly(names: Formatter) -> FuncFormatter:
    return FuncFormatter(lambda value, place: plain(str(names(value, place))))


def _draw(figure: Figure, path: Path, compress_level: int) -> None:
    """Draw; of all letters that the font lacks, boxes in the chart, say once that there are such."""
    global _told
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        figure.savefig(path, dpi=DPI, facecolor="white", pil_kwargs={"compress_level": compress_level})
    lacking = [warning for warning in said if _GLYPH.match(str(warning.message))]
    for warning in said:
        if warning not in lacking:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    if lacking and not _told:
        _told = True
        warnings.warn("some letters of names are not in the charts' font (DejaVu Sans) and are drawn as boxes; texts "
                      "and pages have them", stacklevel=3)


def to_palette(path: Path) -> None:
    """Write a PNG again with 256 colours at most."""
    with Image.open(path) as image:
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
