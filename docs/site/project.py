"""project: which files are pages of the site, under which address, and what is known of all of them together.

    README.md → index        docs/map.md → docs/map        scratch/ops/__init__.py → scratch/ops/index
    scratch/ops/linear.py → scratch/ops/linear             scratch/analysis/attention_page.html → …/attention_page.html
"""

from __future__ import annotations

import posixpath
import re
from functools import cached_property
from pathlib import Path

from docs.site import shapes
from docs.site.names import Module, Names, Place
from docs.site.order import Entry, branches, reading_order, spine
from docs.site.proofs import Proof, proofs_of

CODE = ("scratch", "commands", "reference", "benchmarks", "exercises", "notebooks", "tests")
TEXT = ("hyper_parameter_tuning_charts", "exercises", "notebooks", "tests")
LISTING = ".listing"  # the suffix under which a file that is neither Python nor Markdown is laid out as a page


class Project:
    """The files of a checkout, seen as pages. `docname` is a page's address without .html, as Sphinx says it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.code = sorted(path for folder in CODE for path in self._files(folder, "*.py")) + ["detr_scratch.py"]
        self.text = ["README.md", "CONTRIBUTING.md"] + sorted(
            [f"docs/{path.name}" for path in (root / "docs").glob("*.md")]
            + [path for folder in TEXT for path in self._files(folder, "*.md")])
        self.other = sorted(path for path in self._files("scratch", "*") if not path.endswith((".py", ".md")))
        self.docnames = {path: self._docname(path) for path in [*self.code, *self.text, *self.other]}
        self.paths = {docname: path for path, docname in self.docnames.items()}
        if len(self.paths) < len(self.docnames):
            twice = sorted(path for path, docname in self.docnames.items() if self.paths[docname] != path)
            raise ValueError(f"these files would share a page with another file: {', '.join(twice)}; rename them")
        self.names = Names(root, self.code)
        self.letters = shapes.letters(root)
        self.order = reading_order(root)

    def _files(self, folder: str, pattern: str) -> list[str]:
        return [path.relative_to(self.root).as_posix() for path in (self.root / folder).rglob(pattern)
                if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")]

    @staticmethod
    def _docname(path: str) -> str:
        if path == "README.md":
            return "index"
        name = path.removesuffix(".md").removesuffix(".py")
        return re.sub(r"(^|/)__init__$", r"\1index", name)

    # ── addresses ───────────────────────────────────────────────────────────────────────────────────────────────────

    def address(self, from_docname: str, place: Place) -> str | None:
        """The address of a place, seen from a page; None if its file is no page."""
        docname = self.docnames.get(place.path)
        if docname is None:
            return None
        if docname == from_docname:
            return f"#{place.anchor}"
        page = posixpath.relpath(f"{docname}.html", posixpath.dirname(from_docname) or ".")
        return f"{page}#{place.anchor}" if place.anchor else page

    def file(self, text: str, near: str = "") -> str | None:
        """The file of the project that a text means by a path, read from the root, from scratch/, or from the folder
        `near` and the folders above it; the end .py may be missing. None where no page is meant."""
        text = text.rstrip("/")
        folders = ["", "scratch"]
        while near:
            folders.append(near)
            near = posixpath.dirname(near)
        bare = "/" not in text and "." not in text  # a plain word, not a path
        for folder in folders if not bare else []:
            for end in ("", ".py", "/__init__.py"):
                path = posixpath.normpath(posixpath.join(folder, text + end))
                if path in self.docnames:
                    return path
        return None

    # ── what is known of a note ─────────────────────────────────────────────────────────────────────────────────────

    @staticmethod
    def note_name(path: str) -> str:
        """scratch/ops/linear.py → ops/linear, as the reading order writes it."""
        return path.removeprefix("scratch/").removesuffix(".py")

    def note_path(self, name: str) -> str:
        return f"scratch/{name}" if f"scratch/{name}" in self.docnames else f"scratch/{name}.py"

    @cached_property
    def spine(self) -> list[Entry]:
        return spine(self.order)

    @cached_property
    def branches(self) -> dict[str, list[Entry]]:
        return branches(self.order)

    @cached_property
    def places_in_order(self) -> dict[str, int]:
        return {entry.name: i for i, entry in enumerate(self.order)}

    def package_page(self, heading: str) -> str:
        """The page under which a branch's notes stand: "ops/fast: …" → scratch/ops/fast/__init__.py; else the page
        of the reading order."""
        path = f"scratch/{heading.partition(':')[0]}/__init__.py"
        return path if path in self.docnames else "docs/reading_order.md"

    @cached_property
    def proofs(self) -> dict[str, list[Proof]]:
        """path of a note → its proofs."""
        tests = {path: module for path, module in self.names.by_path.items()
                 if path.startswith("tests/") and posixpath.basename(path).startswith("test_")}
        return {path: proofs_of(module, tests, self.names) for path, module in self.names.by_path.items()
                if path.startswith("scratch/")}

    @cached_property
    def built_on(self) -> dict[str, list[str]]:
        """path → the files of the project that it imports names of."""
        found: dict[str, list[str]] = {}
        for path, module in self.names.by_path.items():
            places = [self.names.find(target) for target in module.imports.values()]
            found[path] = sorted({place.path for place in places if place and place.path != path})
        return found

    @cached_property
    def used_by(self) -> dict[str, list[str]]:
        """path → the files outside of tests/ that import names of it."""
        found: dict[str, list[str]] = {}
        for path, others in self.built_on.items():
            if not path.startswith("tests/"):
                for other in others:
                    found.setdefault(other, []).append(path)
        return found

    @cached_property
    def glossary(self) -> dict[str, list[tuple[str, str]]]:
        """path → (term, meaning) of the terms that the glossary places in that file."""
        row = re.compile(r"^\| \*\*(.+?)\*\* \| (.+?) \| \[[^\]]*\]\(\.\./([\w/]+\.py)\) \|$", re.M)
        found: dict[str, list[tuple[str, str]]] = {}
        for term, meaning, path in row.findall((self.root / "docs/glossary.md").read_text(encoding="utf-8")):
            found.setdefault(path, []).append((term, meaning))
        return found

    @cached_property
    def cited_in(self) -> dict[str, list[str]]:
        """path of a source file → the documents that speak of it."""
        found: dict[str, list[str]] = {}
        for page in self.text:
            if page in ("docs/reading_order.md", "docs/glossary.md") or page.startswith("tests/"):
                continue
            text = (self.root / page).read_text(encoding="utf-8")
            words = set(re.findall(r"`([\w./]+)`", text)) | {
                posixpath.normpath(posixpath.join(posixpath.dirname(page), target))
                for target in re.findall(r"\]\(([^)\s#]+)", text)}
            for path in {self.file(word) for word in words if "/" in word}:
                if path and path.endswith(".py"):
                    found.setdefault(path, []).append(page)
        return found

    @cached_property
    def titles(self) -> dict[str, str]:
        """path of a document → its first heading."""
        found = {}
        for path in self.text:
            heading = re.search(r"^# +(.+)$", (self.root / path).read_text(encoding="utf-8"), re.M)
            found[path] = heading[1].replace("`", "") if heading else path
        return found

    def module(self, path: str) -> Module:
        return self.names.by_path[path]
