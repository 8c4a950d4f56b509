"""names: how is a name from a data set's file shown, so that it stays a name?

    shown      on one line                 "two\\nlines" → two\\\\nlines, "" → '""'     in charts, on a terminal
    short      … as long as fits an axis   three hundred letters → twenty-one and "…"
    literal    … in Markdown               "<b>|*x*" → "\\<b\\>\\|\\*x\\*"
    code       … as code in Markdown       a fence longer than the backticks within
    spoken     Markdown → the text that it is shown as, for a terminal
    link       a path → the target of a Markdown link
    folders    names → names of folders, all different, none of them taken

A class may be called `$10_to_$20`, `<script>` or `../up`, a run's folder `my run (1)`: it is shown again
as it is. What is drawn, printed, written into a page or made a folder of goes through here (matplotlib's own signs:
figures.py). Proven in tests/analysis/test_names.py.
"""

from __future__ import annotations

import re
import unicodedata
from itertools import count
from typing import Collection, Sequence
from urllib.parse import quote

from scratch.printable import printable

LONGEST = 22  # letters of a name beside an axis
# What Markdown (or GitHub's: $ is mathematics, ~~ strikes out) could take for markup within a line.
_MARKUP = re.compile(r"[\\`*\[\]<>|$&~]|(?<=\s)#|(?<![^\W_])_|_(?![^\W_])")
_AT_BEGINNING = re.compile(r"^(?=#|[-+](?:\s|$)|[-=]+\s*$)|^\d+(?=[.)](?:\s|$))")  # of a line: a list, a heading
# The markup that document.py knows: an escaped sign, code, bold.
MARKS = re.compile(r"\\(?P<sign>[!-/:-@\[-`{-~])|(?<!`)(?P<fence>`+)(?!`)(?P<code>.+?)(?<!`)(?P=fence)(?!`)"
                   r"|\*\*(?P<bold>(?:\\.|[^*\\])+)\*\*", re.DOTALL)
_FORBIDDEN = re.compile(r'[<>:"/\\|?*]')  # in a file's name, on some system


def shown(name: object) -> str:
    """A name on one line, nothing in it but letters; quoted where its ends could not be seen."""
    text = printable(name)
    return text if text and text == text.strip() else f'"{text}"'


def short(name: object, most: int = LONGEST) -> str:
    """A name that fits beside an axis, in a title or in a legend (which leaves out what begins with "_")."""
    text = shown(name)
    text = text if len(text) <= most else f"{text[:most - 1]}…"
    return f" {text}" if text.startswith("_") else text


def literal(name: object) -> str:
    """Markdown that shows the name unchanged, with any characters."""
    text = _MARKUP.sub(lambda found: "\\" + found[0], shown(name))
    return _AT_BEGINNING.sub(lambda found: found[0] + "\\", text)


def code(text: object) -> str:
    """Markdown that shows the text as code."""
    text = printable(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    # One space at each end is taken away again, and there must not be nothing.
    space = " " if not text.strip() or text[0] in "` " or text[-1] in "` " else ""
    return f"{fence}{space}{text}{space}{fence}"


def spoken(markdown: str) -> str:
    """A text of document.py as a terminal shows it: code keeps its backticks, the rest loses its markup."""
    return MARKS.sub(lambda found: found["sign"] or (spoken(found["bold"]) if found["bold"] else found[0]), markdown)


def link(path: str) -> str:
    """The target of a Markdown link: %20 and its like for all that would end it."""
    return quote(path.encode("utf-8", "surrogateescape"), safe="/")


def numbered(names: Sequence[str]) -> list[str]:
    """The names, with a number where one is taken (by one that some file systems do not tell from it, too)."""
    result: list[str] = []
    taken: set[str] = set()
    for name in names:
        free = (f"{name}-{number}" for number in count(2) if alike(f"{name}-{number}") not in taken)
        result.append(next(free) if alike(name) in taken else name)
        taken.add(alike(result[-1]))
    return result


def alike(name: str) -> str:
    """Equal for names that are one file on a system that ignores case or the form of accents."""
    return unicodedata.normalize("NFC", name).casefold()


def folders(names: Sequence[str], reserved: Collection[str] = ()) -> list[str]:
    """A folder's name for each name: one part of a path, allowed on every system, none twice, none of `reserved`."""
    safe = [_FORBIDDEN.sub("_", printable(name)).strip(" .") for name in names]
    safe = [cut(name, 100) or "run" for name in safe]
    taken = set(map(alike, reserved))
    return numbered([f"{name}_" if alike(name) in taken else name for name in safe])


def cut(name: str, most: int) -> str:
    """The name, or the beginning of it that has at most `most` bytes: 255 are the most of a file's name."""
    while len(name.encode("utf-8", "surrogateescape")) > most:
        name = name[:-1]
    return name
