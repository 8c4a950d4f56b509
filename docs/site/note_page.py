"""note_page: a source file as a page: the opening, what belongs to it, then prose beside code.

    ┌ opening (the module's docstring) ┐  ┌ aside: read before and next, what is in it, letters of shapes,   ┐
    │ question, formula, pictures      │  │ proofs, terms, which files it builds on and which build on it   │
    └──────────────────────────────────┘  └─────────────────────────────────────────────────────────────────┘
    prose of a function        its code
"""

from __future__ import annotations

import ast
import posixpath
import re
from collections.abc import Iterable
from functools import cache
from html import escape

from docs.site import code, parts, prose, shapes
from docs.site.drawings import DRAWINGS
from docs.site.names import Module, Place
from docs.site.play import WIDGETS
from docs.site.prose import Words, inline, link
from docs.site.project import Project

MOST_PROOFS_SHOWN = 4


@cache
def drawn(note: str) -> list[str]:
    """The pictures of a note. They are computed once, before Sphinx starts processes: PyTorch's threads do not survive
    a fork, and a process that calls PyTorch after it may wait for ever."""
    return [drawing.draw() for drawing in DRAWINGS.get(note, [])]


class NotePage:
    """The pieces of one page as HTML. docname: the page's own address, from which links are relative."""

    def __init__(self, project: Project, path: str) -> None:
        self.project, self.path = project, path
        self.docname = project.docnames[path]
        self.module: Module = project.module(path)
        self.note = project.note_name(path)
        self.opening = ast.get_docstring(self.module.tree) or ""
        # Tests call their sizes by the same letters; what these mean stands on the note's page.
        self.letters = project.letters if self.beside else {}
        self.words = Words(self._name, self._file, self.letters)
        self.said_here = shapes.said_here(self.opening, self.letters)
        source_links = [code.Link(use.line, use.begin, use.end, address) for use in project.names.uses(self.module)
                        if (address := self.to(use.place)) and not self._defines(use.line, use.place)]
        self.lines = code.html_lines(self.module.source, source_links, self.letters)
        self.hidden = parts.hidden_lines(self.module.tree) if self.beside else set()
        self.anchors = {line: anchor for anchor, line in reversed(self.module.defined.items())}
        if not self.beside:
            self.anchors |= {node.lineno: node.name for node in ast.walk(self.module.tree)
                             if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}

    @property
    def beside(self) -> bool:
        """Whether prose stands beside code; the tests are shown as they are."""
        return not self.path.startswith("tests/")

    # ── links ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def to(self, place: Place | None) -> str | None:
        return self.project.address(self.docname, place) if place else None

    def to_file(self, path: str) -> str:
        address = self.to(Place(path, ""))
        assert address is not None, path
        return address

    def _name(self, name: str) -> str | None:
        return self.to(self.project.names.in_file(name, self.module))

    def _file(self, text: str) -> str | None:
        path = self.project.file(text, posixpath.dirname(self.path))
        return self.to(Place(path, "")) if path and path != self.path else None

    def _defines(self, line: int, place: Place) -> bool:
        return place.path == self.path and self.module.defined.get(place.anchor) == line

    def file_link(self, path: str) -> str:
        label = self.project.note_name(path) if path.startswith("scratch/") else path
        return link(self.to_file(path), escape(label.removesuffix("/__init__")))

    # ── the opening ─────────────────────────────────────────────────────────────────────────────────────────────────

    def question(self) -> tuple[str, str]:
        """The question that a note answers, and the rest of its opening."""
        first, _, rest = self.opening.partition("\n\n")
        name = posixpath.basename(posixpath.dirname(self.path) if self.path.endswith("__init__.py") else self.path)
        name = name.removesuffix(".py").removeprefix("test_")
        first = re.sub(rf"^{re.escape(name)}(, a branch)?(\.py)?: ", "", " ".join(first.split()))
        return first[:1].upper() + first[1:], rest

    def read_line_links(self, html: str) -> str:
        """In the line "Read: a → b", the note's own functions are links, plain words or not."""
        def linked(match: re.Match[str]) -> str:
            return link(f"#{match[0]}", match[0]) if match[0] in self.module.defined else match[0]

        def line(match: re.Match[str]) -> str:
            pieces = re.split(r"(<a .*?</a>|<[^>]*>)", match[0])
            return "".join(piece if piece.startswith("<") else re.sub(r"[A-Za-z_]\w*", linked, piece)
                           for piece in pieces)

        return re.sub(r"(?<=<p>)Read(:| after\b).*?(?=</p>)", line, html, flags=re.S)

    def header(self) -> str:
        question, rest = self.question()
        place = self._place()
        html = [f'<p class="note-place">{place}</p>' if place else "",
                f'<p class="note-question">{inline(question, self.words)}</p>' if question else "",
                '<div class="note-top"><div class="note-opening">',
                self.read_line_links(prose.docstring(rest, self.words)), self.drawings(), "</div>", self.aside(),
                "</div>"]
        return "\n".join(html)

    def _place(self) -> str:
        at = self.project.places_in_order.get(self.note)
        source = f'<span class="note-source">{escape(self.path)}</span>'
        if at is None:
            return source
        entry = self.project.order[at]
        if entry.heading == "Spine":
            return f"Spine, {at + 1} of {len(self.project.spine)} · {source}"
        head, _, about = entry.heading.partition(": ")
        branch = link(self.to_file(self.project.package_page(entry.heading)), escape(head))
        return f"Branch {branch}{': ' + escape(about) if about else ''} · {source}"

    def drawings(self) -> str:
        return "\n".join(
            f'<figure class="drawing" id="figure-{escape(drawing.name)}"><div class="drawing-svg">{svg}</div>'
            f"<figcaption>{inline(drawing.title, self.words)}</figcaption></figure>"
            for drawing, svg in zip(DRAWINGS.get(self.note, []), drawn(self.note)))

    # ── beside the opening ──────────────────────────────────────────────────────────────────────────────────────────

    def aside(self) -> str:
        boxes = [self.play_box(), self.read_box(), self.contents_box(), self.letters_box(), self.proofs_box()]
        return f'<div class="note-aside">{"".join(boxes)}</div>' if any(boxes) else ""

    def footer(self) -> str:
        """At the end of the page: terms, and the files and documents around this one."""
        boxes = [self.terms_box(), self.files_box("Builds on", self.project.built_on.get(self.path, [])),
                 self.files_box("Used by", self.project.used_by.get(self.path, [])), self.documents_box()]
        return f'<div class="note-around">{"".join(boxes)}</div>' if any(boxes) else ""

    @staticmethod
    def box(title: str, content: str, css: str = "") -> str:
        return f'<section class="note-box {css}"><h2>{title}</h2>{content}</section>' if content else ""

    @staticmethod
    def items(items: Iterable[str]) -> str:
        found = "".join(f"<li>{item}</li>" for item in items)
        return f"<ul>{found}</ul>" if found else ""

    def play_box(self) -> str:
        here = [widget for widget in WIDGETS if widget.note == self.note]
        up = "../" * self.docname.count("/")
        return self.box("Play", self.items(link(f"{up}play/{widget.name}.html", escape(widget.title))
                                           for widget in here), "play-box")

    def read_box(self) -> str:
        at = self.project.places_in_order.get(self.note)
        if at is None:
            return ""
        order, found = self.project.order, []
        for label, i in (("before", at - 1), ("next", at + 1)):
            if 0 <= i < len(order) and order[i].heading == order[at].heading:
                path = self.project.note_path(order[i].name)
                found.append(f"<dt>{label}</dt><dd>{link(self.to_file(path), escape(order[i].name))}"
                             f"<span>{inline(order[i].about, self.words)}</span></dd>")
        return self.box("Read", f"<dl>{''.join(found)}</dl>" if found else "", "read-box")

    def contents_box(self) -> str:
        names = [node.name for node in self.module.tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
        shown = [name for name in names if not name.startswith("_")]
        return self.box("In this file", self.items(f"<code>{link(f'#{name}', escape(name))}</code>"
                                                   for name in shown), "contents-box") if self.beside else ""

    def letters_box(self) -> str:
        text = "\n".join([self.opening, *self.lines])
        used = [letter for letter in self.letters if f'<span class="dim">{letter}</span>' in text
                or shapes.uses(self.opening, {letter: ""})]
        rows = "".join(f'<dt><button type="button" class="letter" data-letter="{letter}">{letter}</button></dt>'
                       f"<dd>{self.meaning(letter)}</dd>" for letter in used)
        more = '<p>Point at a letter in the text or the code. Press one here, and all its places light up.</p>'
        return self.box("Letters of shapes", f"<dl>{rows}</dl>{more}" if rows else "", "letters-box")

    def meaning(self, letter: str) -> str:
        general = self.project.letters[letter]
        here = self.said_here.get(letter)
        general = re.sub(rf"^{letter}: ", "", general)
        return escape(f"{general}; here {letter} = {here}" if here and here not in general else general)

    def proofs_box(self) -> str:
        proofs = self.project.proofs.get(self.path, [])
        if not proofs:
            return ""
        items = [link(self.to_file(proof.path) + f"#{proof.function}", escape(proof.sentence)) for proof in proofs]
        files = ", ".join(self.file_link(path) for path in dict.fromkeys(proof.path for proof in proofs))
        shown = self.items(items[:MOST_PROOFS_SHOWN])
        if len(items) > MOST_PROOFS_SHOWN:
            more = len(items) - MOST_PROOFS_SHOWN
            shown += f"<details><summary>{more} more</summary>{self.items(items[MOST_PROOFS_SHOWN:])}</details>"
        count = f"{len(items)} test{'s' if len(items) > 1 else ''}"
        return self.box("Proven by", f"<p>{count} in {files}</p>{shown}", "proofs-box")

    def terms_box(self) -> str:
        terms = self.project.glossary.get(self.path, [])
        rows = "".join(f"<dt>{escape(term)}</dt><dd>{inline(meaning, self.words)}</dd>" for term, meaning in terms)
        return self.box("Terms", f"<dl>{rows}</dl>" if rows else "", "terms-box")

    def files_box(self, title: str, files: list[str]) -> str:
        files = [path for path in files if path in self.project.docnames]
        inner = self.items(self.file_link(path) for path in files)
        if len(files) > 8:
            inner = f"<details><summary>{len(files)} files</summary>{inner}</details>"
        return self.box(title, inner, "files-box")

    def documents_box(self) -> str:
        pages = self.project.cited_in.get(self.path, [])
        return self.box("More about it", self.items(link(self.to_file(page), escape(self.project.titles[page]))
                                                    for page in pages), "files-box")

    # ── code ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def listing(self, first: int, last: int) -> str:
        """Lines of code; a docstring that is shown as prose is left out, and so are the anchors of section titles."""
        text, done = self.module.source.splitlines(), []
        for number in range(first, last + 1):
            if number in self.hidden:
                continue
            line = text[number - 1]
            indent = len(line) - len(line.lstrip())
            anchor = self.anchors.get(number, "")
            mark = f' id="{anchor}"' if anchor and anchor not in self.titled else ""
            done.append(f'<span class="line"{mark} style="--i:{indent}">{self.lines[number - 1]}\n</span>')
        return "".join(done)

    @property
    def titled(self) -> set[str]:
        """Anchors that stand at a section's title."""
        return {node.name for node in self.module.tree.body
                if isinstance(node, (ast.FunctionDef, ast.ClassDef))} if self.beside else set()

    def rows(self, rows: list[parts.Row]) -> str:
        return "\n".join(self.row(row) for row in rows)

    def row(self, row: parts.Row) -> str:
        words = (prose.docstring if row.docstring else prose.comment)(row.prose, self.words)
        if not words and row.first <= row.last and self.begins_with_imports(row.first):
            words = '<p class="label">Imports</p>'
        name = f'<p class="method">{escape(row.name.partition(".")[2])}</p>' if "." in row.name else ""
        body = self.listing(row.first, row.last)
        shown = f'<div class="highlight"><pre>{body}</pre></div>' if body.strip() else ""
        empty = " row-bare" if not (name or words) else ""
        return (f'<div class="row{empty}"><div class="row-prose">{name}{words}</div>'
                f'<div class="row-code">{shown}</div></div>')

    def begins_with_imports(self, line: int) -> bool:
        return any(isinstance(node, (ast.Import, ast.ImportFrom)) and node.lineno == line
                   for node in self.module.tree.body)

    def whole_file(self) -> str:
        """All code but the opening, as it is."""
        opening = self.module.tree.body[0] if self.opening else None
        first = (opening.end_lineno or 0) + 1 if opening else 1
        last = len(self.module.source.splitlines())
        while first <= last and not self.module.source.splitlines()[first - 1].strip():
            first += 1
        body = self.listing(first, last)
        return f'<div class="file"><div class="highlight"><pre>{body}</pre></div></div>' if body else ""

    def parts(self) -> list[parts.Part]:
        return parts.split(self.module.source, self.module.tree)
