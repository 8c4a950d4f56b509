"""hostile: names that somebody may have given a class, a file or a run, by accident or to do harm."""

from __future__ import annotations

import random

NAMES = (
    "$10_to_$20", "US$ and CA$", "$", "$$", r"\$", r"\frac{1}{", "two\nlines", "\r\ta tab", "\x1b[2J\x07\x1b]0;title\x07",
    "\ud83d", "\udcff", "txt.\u202egpj", "", "   ", " ends ", "n" * 300, "../../etc/passwd", "/", "..", "a\0b",
    "\U0001f600\U0001f469\u200d\U0001f52c", "\u732b", "\u0645\u0631\u062d\u0628\u0627", "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>", "]]><!--", "a|b", "*b* __c__ `d`", "``", "# heading", "[x](javascript:y)",
    "![x](y.png)", "\\", "%s %(x)s {0} {name}", "_hidden", "-x", "- item", "1. item", "===", "@TITLE@@RECORD@",
    "&lt;b&gt;", "\u2028", "e\u0301" * 40, "'", '"', "nothing",
)


def drawn(seed: int, count: int) -> list[str]:
    """`count` names: some of the above, some of their pieces put together, none twice."""
    generator = random.Random(f"hostile {seed}")
    names: list[str] = []
    while len(names) < count:
        name = "".join(generator.choice(NAMES)[:generator.choice((3, 12, 400))] for _ in range(generator.randint(1, 2)))
        if name not in names:
            names.append(name)
    return names
