"""document: how can one report be read in an editor, on GitHub and in a browser?

    blocks ─┬─▶ Markdown, which shows the pictures that lie beside it
            └─▶ one HTML file with its pictures inside, which can be sent to somebody as it is

A block is a heading, a paragraph, a list, a table or a picture; in a text, `code`, **bold** and a
backslash before a sign mean what they mean in Markdown. A report needs no more, and so no Markdown
parser. Names that a person chose go through names.literal first: else they could be markup.
Proven in tests/analysis/test_report.py and test_names.py.
"""

from __future__ import annotations

import base64
import html
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Sequence

from scratch.analysis.names import MARKS, link, spoken
from scratch.whole_file import write_text

_STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem;
       color: #1c1c1c; background: #ffffff; overflow-wrap: anywhere }
table { border-collapse: collapse; display: block; overflow-x: auto; margin: 1rem 0; font-size: 0.92rem;
        overflow-wrap: normal }
th, td { padding: 0.25rem 0.7rem; border-bottom: 1px solid #c9c9c9; text-align: left; vertical-align: top }
.figure { text-align: right }
img { max-width: 100%; height: auto; background: #ffffff }
code { background: #eeeeee; padding: 0 0.25em; border-radius: 3px; white-space: nowrap }
h2 { margin-top: 2.5rem; border-bottom: 2px solid #0072b2 }
@media (prefers-color-scheme: dark) {
  body { color: #e6e6e6; background: #161616 }
  th, td { border-color: #4a4a4a }
  code { background: #2c2c2c }
}
"""
_FIGURE = re.compile(r"[\d\s.,:%×–+-]*")
_BAR = re.compile(r"(?<!\\)((?:\\\\)*)\|")  # that is not escaped yet


@dataclass
class Document:
    """Collects the blocks of a report, in order, and renders them twice."""

    title: str
    folder: Path
    """where the pictures lie, and where the report will"""
    blocks: list[tuple[str, str]] = field(default_factory=list)
    """each as Markdown and as HTML"""

    def heading(self, text: str, level: int = 2) -> None:
        self.blocks.append((f"{'#' * level} {text}", f"<h{level}>{_inline(text)}</h{level}>"))

    def paragraph(self, text: str) -> None:
        self.blocks.append((text, f"<p>{_inline(text)}</p>"))

    def bullets(self, texts: Sequence[str]) -> None:
        items = "".join(f"<li>{_inline(text)}</li>" for text in texts)
        self.blocks.append(("\n".join(f"* {text}" for text in texts), f"<ul>{items}</ul>"))

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table; columns of figures stand on the right, those that hold a text on the left."""
        right = [all(_FIGURE.fullmatch(row[k]) for row in rows) for k in range(len(head))]
        lines = ["| " + " | ".join(_BAR.sub(r"\1\\|", cell) for cell in row) + " |" for row in (head, *rows)]
        lines.insert(1, f"|{'|'.join('---:' if figures else '---' for figures in right)}|")
        first, *others = (
            "".join(f"<{tag}{' class=figure' * figures}>{_inline(cell)}</{tag}>" for cell, figures in zip(row, right))
            for tag, row in (("th", head), *(("td", row) for row in rows)))
        body = "".join(f"<tr>{row}</tr>" for row in others)
        self.blocks.append(("\n".join(lines), f"<table><thead><tr>{first}</tr></thead><tbody>{body}</tbody></table>"))

    def picture(self, path: str, description: str) -> None:
        """A PNG at `path` below the folder. Raises FileNotFoundError when it is not there."""
        data = base64.b64encode((self.folder / path).read_bytes()).decode()
        alt = html.escape(description, quote=True)
        self.blocks.append((f"![{description}]({link(path)})",
                            f'<p><img alt="{alt}" src="data:image/png;base64,{data}"></p>'))

    def to_markdown(self) -> str:
        return "\n\n".join([f"# {self.title}", *(markdown for markdown, _ in self.blocks)]) + "\n"

    def to_html(self) -> str:
        title = html.escape(spoken(self.title))
        body = "\n".join(block for _, block in self.blocks)
        return (f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
                f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>\n'
                f"<body><h1>{_inline(self.title)}</h1>\n{body}\n</body></html>\n")

    def write(self, name: str = "report") -> None:
        """NAME.md and NAME.html in the folder."""
        write_text(self.folder / f"{name}.md", self.to_markdown())
        write_text(self.folder / f"{name}.html", self.to_html())


def _inline(text: str) -> str:
    """The text as HTML: what stands between its marks, and within them, is nothing but letters."""
    parts, end = [], 0
    for found in MARKS.finditer(text):
        parts.append(html.escape(text[end:found.start()], quote=False))
        end = found.end()
        if found["sign"]:
            parts.append(html.escape(found["sign"], quote=False))
        elif found["bold"]:
            parts.append(f"<strong>{_inline(found['bold'])}</strong>")
        else:
            inner = found["code"]
            framed = inner[0] == inner[-1] == " " and inner.strip()  # one space at each end belongs to the fence
            parts.append(f"<code>{html.escape(inner[1:-1] if framed else inner, quote=False)}</code>")
    return "".join(parts) + html.escape(text[end:], quote=False)
