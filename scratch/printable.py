"""printable: how is a text from somebody else's file shown, so that it cannot do anything?

    "cat\\x1b[2J\\nname" ─▶ r"cat\\x1b[2J\\nname"      control characters become what a programmer would type for them

A class name or a file name may hold a newline, an ESC that clears a terminal, a character that turns the order of
letters round, or half a character (a lone surrogate), which no file can be written with. Letters of every language,
accents and emoji stay as they are. Proven in tests/test_printable.py. Read: printable → command
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


def command(*words: object) -> str:
    """A command line to copy into a shell: `words` with quotes where a shell needs them."""
    return shlex.join(str(word) for word in words)
