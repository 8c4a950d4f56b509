"""stage: lays the sources of the site out in a folder, as Sphinx wants them. Documents and source files are copied as
they are; the front page gets the side menu, and each widget gets a page."""

from __future__ import annotations

import posixpath
import re
import shutil
from pathlib import Path

from docs.site.order import Entry
from docs.site.play import WIDGETS, Widget
from docs.site.play.page import data_element
from docs.site.project import LISTING, Project

FENCE = "`" * 8  # longer than any that a widget's script may hold
CHARTS = "hyper_parameter_tuning_charts/index.md"
_LINK = re.compile(r"(\]\()([^)\s]+)(\))")
_TERM = re.compile(r"(\[`[\w/]+`: `([\w.]+)`\]\([^)#]+\.py)(\))")


def lay_out(project: Project, folder: Path) -> list[str]:
    """Fill `folder`; return the paths of files that documents link to and that are no pages, such as LICENSE."""
    linked: dict[str, bool] = {}
    for path in project.text:
        text = (project.root / path).read_text(encoding="utf-8")
        text = document(project, path, text, linked)
        if path == "README.md":
            text += front_menu(project)
        elif path == CHARTS:
            text += toctree("", [("", project.docnames[other]) for other in project.text
                                 if other.startswith(posixpath.dirname(CHARTS)) and other != CHARTS])
        elif path.startswith("tests/"):
            text = f"---\norphan: true\n---\n\n{text}"
        write(folder / f"{project.docnames[path]}.md", text)
    for path in project.code:
        copy(project.root / path, folder / f"{project.docnames[path]}.py")
    for path in project.other:
        copy(project.root / path, folder / f"{path}{LISTING}")
    for path in sorted(linked):
        copy(project.root / path, folder / path)
    if WIDGETS:
        play(folder)
    return sorted(path for path, is_opened in linked.items() if is_opened)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def document(project: Project, path: str, text: str, linked: dict[str, bool]) -> str:
    """A document with its links as the site needs them: a page's source under the name that it has in the folder.

    A term of the glossary leads to the place where its name is defined. `linked` collects the files that are no pages:
    True for those that a reader opens by a link, False for pictures that only stand on a page.
    """
    folder = posixpath.dirname(path)
    opened = set(re.findall(r"(?<!!)\[[^\]]*\]\(([^)\s#]+)", text))

    def new_link(match: re.Match[str]) -> str:
        target, _, anchor = match[2].partition("#")
        if not target or re.match(r"\w+:", target):
            return match[0]
        file = posixpath.normpath(posixpath.join(folder, target))
        for name in (file, f"{file}/__init__.py", f"{file}/README.md", f"{file}/index.md"):
            if name in project.docnames:
                end = LISTING if name in project.other else posixpath.splitext(name)[1]
                to = posixpath.relpath(project.docnames[name] + end, folder or ".")
                return f"{match[1]}{to}{'#' + anchor if anchor else ''}{match[3]}"
        if (project.root / file).is_file():
            linked[file] = linked.get(file, False) or target in opened
        return match[0]

    pieces = re.split(r"(^```.*?^```)", text, flags=re.M | re.S)
    return "".join(piece if piece.startswith("```") else _LINK.sub(new_link, _TERM.sub(r"\1#\2\3", piece))
                   for piece in pieces)


def toctree(caption: str, entries: list[tuple[str, str]]) -> str:
    """entries: (title, docname); title "" is the page's own."""
    lines = [f"{title} </{docname}>" if title else f"/{docname}" for title, docname in entries]
    head = [":hidden:", ":titlesonly:"] + ([f":caption: {caption}"] if caption else [])
    return "\n".join(["", "```{toctree}", *head, "", *lines, "```", ""])


def front_menu(project: Project) -> str:
    """The side menu: documents, the spine, the branches, pages to play with, and the code beside scratch/."""
    def note(entry: Entry) -> str:
        return project.docnames[project.note_path(entry.name)]

    documents = [path for path in project.text if path.startswith("docs/")]
    first = [f"docs/{name}.md" for name in ("reading_order", "trace", "glossary", "questions", "timeline")]
    documents.sort(key=lambda path: (first.index(path) if path in first else len(first), path))
    menus = [toctree("Learn", [("", project.docnames[path]) for path in documents if path in first])]
    if WIDGETS:
        menus.append(toctree("Try it", [("", "play/index")]))
    menus.append(toctree("Spine: the published DETR", [
        (f"{i} {posixpath.basename(entry.name)}", note(entry)) for i, entry in enumerate(project.spine, 1)]))
    packages = list(dict.fromkeys(page for heading in project.branches
                                  if (page := project.package_page(heading)).endswith(".py")))
    loose = [entry for heading, entries in project.branches.items() for entry in entries
             if not project.package_page(heading).endswith(".py")]
    more = ["scratch/ops/__init__.py", "scratch/model/__init__.py", "scratch/objective/__init__.py"]
    menus.append(toctree("Branches", [
        (path.removeprefix("scratch/").removesuffix("/__init__.py"), project.docnames[path])
        for path in [*dict.fromkeys([*packages, *more])] if path in project.docnames]
        + [(posixpath.basename(entry.name), note(entry)) for entry in loose]))
    menus.append(toctree("Use and measure", [("", project.docnames[path]) for path in documents if path not in first]
                         + [("", "CONTRIBUTING"), ("", project.docnames[CHARTS])]))
    beside = sorted(path for path in project.code if path.endswith("/__init__.py")
                    and path.startswith(("commands/", "reference/", "benchmarks/", "exercises/", "notebooks/")))
    menus.append(toctree("Code beside the notes", [("detr_scratch", "detr_scratch")] + [
        (path.removesuffix("/__init__.py"), project.docnames[path]) for path in beside]))
    return "\n".join(menus)


# ── pages to play with ──────────────────────────────────────────────────────────────────────────────────────────────


def play(folder: Path) -> None:
    scripts = folder / "play_scripts"
    for widget in WIDGETS:
        write(folder / "play" / f"{widget.name}.md", widget_page(widget))
        copy(widget.script_file, scripts / widget.script_file.name)
    cards = "\n".join(f"* [{widget.title}]({widget.name}.md), beside the note `{widget.note}`" for widget in WIDGETS)
    menu = toctree("", [("", f"play/{widget.name}") for widget in WIDGETS])
    write(folder / "play" / "index.md",
          "# Play\n\nThe numbers of these pages are computed by the project's own code when the site is built.\n\n"
          f"{cards}\n{menu}")


def widget_page(widget: Widget) -> str:
    return (f"---\nhide-toc: true\n---\n\n# {widget.title}\n\n"
            f"Beside the note `{widget.note}`.\n\n{widget.text_markdown}\n\n"
            f"{FENCE}{{raw}} html\n<div class=\"widget\">\n{widget.html}\n</div>\n"
            f"{data_element(widget)}\n"
            f"<script src=\"{widget.script_file.name}\" defer></script>\n{FENCE}\n")
