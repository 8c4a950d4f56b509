"""extension: what Sphinx, MyST and Furo lack: a reader for source files, and links from documents into them."""

from __future__ import annotations

import re
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers import Parser
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_for_filename
from sphinx import addnodes
from sphinx.application import Sphinx

from docs.site import side_menu
from docs.site.names import Place
from docs.site.note_page import NotePage
from docs.site.project import LISTING, Project

ROOT = Path(__file__).resolve().parent.parent.parent


@cache
def project() -> Project:
    """The checkout that this file is part of, read once."""
    return Project(ROOT)


def html(text: str) -> nodes.raw:
    return nodes.raw("", text, format="html")


def section(anchor: str, title: str, *css: str) -> nodes.section:
    node = nodes.section(ids=[anchor], names=[nodes.fully_normalize_name(title)], classes=list(css))
    node += nodes.title(title, title)
    return node


class SourceFile(Parser):
    """Reads a Python file (or another file of scratch/) as a page."""

    supported = ("source-file",)

    def parse(self, inputstring: str, document: nodes.document) -> None:
        self.setup_parse(inputstring, document)
        env = document.settings.env
        path = project().paths[env.docname]
        metadata = env.metadata[env.docname]
        metadata["hide-toc"] = True
        if path.startswith("tests/"):
            metadata["orphan"] = metadata["nosearch"] = True
        if path.endswith(".py"):
            document += python_page(path, metadata, env.docname)
        else:
            document += other_page(path, inputstring)
        self.finish_parse()


def python_page(path: str, metadata: dict[str, Any], docname: str) -> nodes.section:
    page = NotePage(project(), path)
    title = path.removeprefix("scratch/").removesuffix("/__init__.py").removesuffix(".py")
    top = section("top", title, "source" if page.beside else "listing")
    top += html(page.header())
    top.extend(contents(path, docname))
    # Where a link of a document may point to: name → (level, anchor, title), as MyST keeps it.
    metadata["myst_slugs"] = {anchor: (2, anchor, anchor) for anchor in page.module.defined}
    if page.beside:
        for part in page.parts():
            rows = html(page.rows(part.rows))
            if part.name:
                inner = section(part.name, part.name, "definition")
                inner += rows
                top += inner
            else:
                top += nodes.container("", rows, classes=["between"])
    else:
        top += html(page.whole_file())
    top += html(page.footer())
    return top


def other_page(path: str, text: str) -> nodes.section:
    top = section("top", path.removeprefix("scratch/"), "listing")
    shown = highlight(text, get_lexer_for_filename(path), HtmlFormatter(nowrap=True))
    about = next((entry.about for entry in project().order if f"scratch/{entry.name}" == path), "")
    top += html(f'<p class="note-place"><span class="note-source">{escape(path)}</span></p>'
                f'<p class="note-question">{escape(about)}</p>'
                f'<div class="file"><div class="highlight"><pre tabindex="0">{shown}</pre></div></div>')
    return top


def contents(path: str, docname: str) -> list[nodes.Node]:
    """On the page of a package: its files, with the sentence of the reading order; and the entries of the menu."""
    if not path.endswith("/__init__.py"):
        return []
    it = project()
    folder = path.removesuffix("__init__.py")
    inside = [other for other in it.docnames if other.startswith(folder) and other != path
              and (other.removeprefix(folder).count("/") == 0
                   or other.removeprefix(folder).count("/") == 1 and other.endswith("/__init__.py"))]
    order = it.places_in_order
    inside.sort(key=lambda other: (order.get(it.note_name(other), len(order)), other))
    rows = []
    for other in inside:
        name, about = it.note_name(other), ""
        if name in order:
            about = it.order[order[name]].about
        label = other.removeprefix(folder).removesuffix(".py").removesuffix("/__init__")
        rows.append(f'<dt><a href="{it.address(docname, Place(other, ""))}">{escape(label)}</a></dt>'
                    f"<dd>{escape(about)}</dd>")
    found: list[nodes.Node] = [html(f'<dl class="package">{"".join(rows)}</dl>')] if rows else []
    if not path.startswith("tests/"):
        in_spine = {entry.name for entry in it.spine}
        found.append(menu(docname, [
            (other.removeprefix(folder).removesuffix(".py").removesuffix("/__init__"), it.docnames[other])
            for other in inside if it.note_name(other) not in in_spine and not other.endswith("/__init__.py")]))
    return found


def menu(docname: str, entries: list[tuple[str, str]]) -> nodes.Node:
    """A hidden toctree: entries (title, docname) of the side menu under a page."""
    tree = addnodes.toctree(
        parent=docname, entries=entries, includefiles=[name for _, name in entries], maxdepth=1, caption="", glob=False,
        hidden=True, includehidden=False, numbered=0, titlesonly=True)
    return nodes.compound("", tree, classes=["toctree-wrapper"])


# ── documents ───────────────────────────────────────────────────────────────────────────────────────────────────────


def link_documents(app: Sphinx, document: nodes.document) -> None:
    """In documents: `ops/linear` becomes a link to the note, and a link to a file that is no page opens that file."""
    docname = app.env.docname
    it = project()
    for literal in list(document.findall(nodes.literal)):
        inside_a_link = any(isinstance(parent, (nodes.reference, addnodes.pending_xref, addnodes.download_reference))
                            for parent in ancestors(literal))
        path = it.file(literal.astext()) if re.fullmatch(r"[\w./]+", literal.astext()) else None
        if path and not inside_a_link and it.docnames[path] != docname:
            reference = nodes.reference("", "", refuri=it.address(docname, Place(path, "")), internal=True)
            literal.replace_self(reference)
            reference += literal
    for download in list(document.findall(addnodes.download_reference)):
        reference = nodes.reference("", "", *download.children, refuri=download["reftarget"], internal=True)
        download.replace_self(reference)
    for head in list(document.findall(nodes.thead)):
        name_columns(head)


def name_columns(head: nodes.thead) -> None:
    """A head without a word goes; an empty cell of another one gets a word that only screen readers read."""
    cells = [cell for cell in head.findall(nodes.entry)]
    empty = [cell for cell in cells if not cell.astext().strip()]
    if len(empty) == len(cells):
        head.parent.remove(head)
        return
    for cell in empty:
        cell.children.clear()
        cell += nodes.paragraph("", "", nodes.inline("", "row", classes=["unseen"]))


def ancestors(node: nodes.Node) -> list[nodes.Node]:
    found = []
    while node.parent is not None:
        node = node.parent
        found.append(node)
    return found


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_source_suffix(".py", "source-file")
    app.add_source_suffix(LISTING, "source-file")
    app.add_source_parser(SourceFile)
    app.connect("doctree-read", link_documents, priority=400)  # before Sphinx collects downloads
    side_menu.setup(app)
    app.add_css_file("site.css")
    app.add_js_file("site.js", loading_method="defer")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
