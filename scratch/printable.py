"""printable: how is a text from an unknown file shown without control characters?

    "cat\\x1b[2J\\nname" ─▶ r"cat\\x1b[2J\\nname"      control characters become what a programmer would type for them

A class name or a file name may hold a newline, an ESC that clears a terminal, a character that turns the order of
letters round, or half a character (a lone surrogate), which no file can be written with. Letters of every language,
accents and emoji stay as they are. Proven in tests/test_printable.py. Read: printable → abridged → counted → command
"""

from __future__ import annotations

import shlex
import unicodedata

# Cc control, Cs surrogate, Cn unassigned, Zl and Zp line and paragraph separators; Cf (format) holds marks that emoji
# and several scripts need, and the marks that reverse the direction of text, which can make a name look like another.
_ESCAPED = {"Cc", "Cs", "Cn", "Zl", "Zp"}
_DIRECTION = set("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: object) -> str:
    """`str(text)` on one line, in which every character that is not plain text is written as its escape, as in \\n."""
    return "".join(letter.encode("unicode_escape").decode() if unicodedata.category(letter) in _ESCAPED
                   or letter in _DIRECTION else letter for letter in str(text))


def abridged(text: object, most: int = 160) -> str:
    """A text to be printed on one line as `printable` does, with the middle left out of a long one."""
    text = str(text)
    if len(text) > most:  # first, for printable() reads every letter
        text = f"{text[:(most + 1) // 2]}…{text[len(text) - most // 2:]}"
    return printable(text)


def counted(number: float, one: str, many: str = "") -> str:
    """A number with its noun: "1 box", "2,104 boxes", "1.5 minutes". many: the plural, where it is not `one` with an s."""
    shown = f"{number:g}" if isinstance(number, float) else f"{number:,}"
    return f"{shown} {one if number == 1 else many or one + 's'}"


def command(*words: object) -> str:
    """A command line to copy into a shell: `words` with quotes where a shell needs them.

    A word that cannot be shown as it is becomes $'…' with its bytes, which bash, zsh and POSIX's sh (2024) read.
    """
    return " ".join(shlex.quote(word) if printable(word) == word else _in_bytes(word) for word in map(str, words))


def _in_bytes(word: str) -> str:
    try:
        content = word.encode("utf-8", "surrogateescape")  # as the system has it, where it came from there
    except UnicodeEncodeError:
        content = word.encode("utf-8", "surrogatepass")
    shown = [chr(byte) if 0x20 <= byte < 0x7f and chr(byte) not in "'\\" else f"\\{byte:03o}" for byte in content]
    return f"$'{''.join(shown)}'"
