"""The reading order (docs/reading_order.md) is one list of all files, and the notes keep to it."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import NamedTuple

import pytest

from docs.site.order import parsed, spine
from tests.conftest import REPOSITORY
from tests.test_imports import OURS, imported, within

PAGE = REPOSITORY / "docs" / "reading_order.md"
SCRATCH = REPOSITORY / "scratch"
MOST_FILES, MOST_LINES, MOST_LINES_BEFORE_ATTENTION = 22, 3000, 900
MOST_LINES_OF_AN_OPENING = 25
SETTINGS = "config"  # a table that every file may look its settings up in


class Order(NamedTuple):
    spine: list[str]     # names without .py, as they are written: "ops/linear"
    branches: list[str]

    @property
    def all(self) -> list[str]:
        return self.spine + self.branches


def parse(page: str) -> Order:
    """The names of a page's two lists. Raises ValueError for an entry that is written in another way."""
    entries = parsed(page)
    on_spine = [entry.name for entry in spine(entries)]
    return Order(on_spine, [entry.name for entry in entries[len(on_spine):]])


ORDER = parse(PAGE.read_text(encoding="utf-8"))


def file_of(name: str) -> Path:
    return SCRATCH / (name if Path(name).suffix else f"{name}.py")


def name_of(path: Path) -> str:
    """The name under which a file of scratch/ is on the list."""
    return str(path.relative_to(SCRATCH).with_suffix("" if path.suffix == ".py" else path.suffix).as_posix())


def holds_only_a_docstring(path: Path) -> bool:
    return all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
               for node in ast.parse(path.read_text(encoding="utf-8")).body)


def written_files() -> set[str]:
    """Every file of scratch/ but the packages' openings, which hold a docstring alone."""
    files = [path for path in SCRATCH.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return {name_of(path) for path in files if path.name != "__init__.py" or not holds_only_a_docstring(path)}


def lines_of(name: str) -> int:
    return len(file_of(name).read_text(encoding="utf-8").splitlines())


def without_annotations(source: str) -> str:
    """The source without what is imported for annotations alone (`if TYPE_CHECKING`): it never runs."""
    tree = ast.parse(source)
    tree.body = [node for node in tree.body if not (isinstance(node, ast.If) and isinstance(node.test, ast.Name)
                                                    and node.test.id == "TYPE_CHECKING")]
    return ast.unparse(tree)


def foreign(source: str, name: str, order: Order, files: set[str]) -> tuple[list[str], list[str]]:
    """What a spine note imports of the project: (later spine notes or strangers, doors of branches)."""
    before, late, doors = set(order.spine[:order.spine.index(name)]), [], []
    for found in sorted(imported(without_annotations(source), "scratch." + name.replace("/", "."))):
        if not within(found, OURS):
            continue
        parts = found.split(".")[1:] if within(found, ("scratch",)) else None
        # The longest beginning that is a file: what follows is a name in it.
        beginnings = ("/".join(parts[:n]) for n in range(len(parts), 0, -1)) if parts else ()
        module = next((beginning for beginning in beginnings if beginning in files), None)
        if module is None or module in order.spine and module not in before:
            late.append(found)
        elif module not in order.spine and module != SETTINGS:
            doors.append(found)
    return late, doors


def read_line(docstring: str) -> str:
    """The "Read: …" of an opening, up to the end of its paragraph or to "Source" or "Proven", without what stands in
    parentheses; "" if there is none."""
    found = re.search(r"\bRead( after\b|:)(.*?)(?=\n\s*\n|\nSources?:|\nProven|\bProven in\b|\Z)", docstring, re.M | re.S)
    return re.sub(r"\([^()]*\)", "", found[0]) if found else ""


def named_files(line: str, package: str, files: set[str]) -> list[tuple[int, str]]:
    """(place, name) of each file that a Read line names, as `windows.py`, `fast/columns.py` or `anchors/decoder`."""
    found = []
    for word in re.finditer(r"\b(?:\w+/)*\w+(?:\.py)?\b", line):
        text = word[0].removesuffix(".py")
        if text == word[0] and "/" not in text:
            continue  # a function of the note, or a plain word
        folders = [package, *map(str, Path(package).parents)]  # beside the note, or in a folder above it
        name = next((name for name in (str(Path(folder) / text) for folder in folders) if name in files), None)
        if name is None and text == word[0]:
            continue  # "encoder/decoder" is not a file
        found.append((word.start(), name or f"{word[0]}: no such file"))
    return found


def names_defined(source: str) -> set[str]:
    return {node.name for node in ast.parse(source).body
            if isinstance(node, (ast.FunctionDef, ast.ClassDef))}


def disagreements(name: str, source: str, order: Order, files: set[str]) -> list[str]:
    """The files that a note's Read line puts before (or after) the note itself, where the list does the opposite."""
    if name not in order.all:
        return [f"{name} is not on the list"]
    line = read_line(ast.get_docstring(ast.parse(source), clean=False) or "")
    own = names_defined(source)
    begins = [word.start() for word in re.finditer(r"\b\w+\b", line) if word[0] in own]
    begin = min(begins, default=len(line) if line.startswith("Read after") else 0)
    wrong = []
    for place, other in named_files(line, name.rpartition("/")[0], files):
        if other not in order.all:
            wrong.append(other)
        elif place < begin and order.all.index(other) > order.all.index(name):
            wrong.append(f"{other} is read before {name}, and stands after it on the list")
        elif place > begin and order.all.index(other) < order.all.index(name):
            wrong.append(f"{other} is read after {name}, and stands before it on the list")
    return wrong


# ---------------------------------------------------------------------------------------------------------------------


def test_every_file_of_scratch_is_on_the_list() -> None:
    left_out = sorted(written_files() - set(ORDER.all))
    assert not left_out, left_out


def test_every_file_on_the_list_is_there() -> None:
    missing = sorted(set(ORDER.all) - written_files())
    assert not missing, missing


def test_no_file_is_on_the_list_twice() -> None:
    twice = sorted(name for name in set(ORDER.all) if ORDER.all.count(name) > 1)
    assert not twice, twice


def test_the_spine_is_short() -> None:
    lines = {name: lines_of(name) for name in ORDER.spine}
    assert len(lines) <= MOST_FILES
    assert sum(lines.values()) <= MOST_LINES, lines


def test_attention_comes_early() -> None:
    before = ORDER.spine[:ORDER.spine.index("ops/attention")]
    lines = {name: lines_of(name) for name in before}
    assert sum(lines.values()) <= MOST_LINES_BEFORE_ATTENTION, lines


@pytest.mark.parametrize("name", ORDER.spine)
def test_a_spine_note_imports_only_what_stands_before_it(name: str) -> None:
    late, _ = foreign(file_of(name).read_text(encoding="utf-8"), name, ORDER, written_files())
    assert not late, late


@pytest.mark.parametrize("name", ORDER.spine)
def test_a_spine_note_knows_one_door_of_the_branches_at_most(name: str) -> None:
    _, doors = foreign(file_of(name).read_text(encoding="utf-8"), name, ORDER, written_files())
    assert len(doors) <= 1, doors


@pytest.mark.parametrize("name", sorted(name for name in written_files() if not Path(name).suffix))
def test_a_notes_own_reading_order_agrees_with_the_list(name: str) -> None:
    wrong = disagreements(name, file_of(name).read_text(encoding="utf-8"), ORDER, written_files())
    assert not wrong, wrong


@pytest.mark.parametrize("package", sorted(path.parent.relative_to(SCRATCH).as_posix()
                                           for path in SCRATCH.rglob("__init__.py")))
def test_a_packages_own_reading_order_agrees_with_the_list(package: str) -> None:
    opening = ast.parse((SCRATCH / package / "__init__.py").read_text(encoding="utf-8"))
    line = read_line(ast.get_docstring(opening) or "")
    words = [word for step in re.split(r"→|·|,|;", line) for word in re.findall(r"[\w/]+", step)[-1:]]
    for part in (ORDER.spine, ORDER.branches):
        named = [f"{package}/{word}" for word in words if f"{package}/{word}" in part]
        assert named == sorted(named, key=part.index)


@pytest.mark.parametrize("name", sorted(name for name in written_files() if not Path(name).suffix))
def test_an_opening_has_at_most_25_lines(name: str) -> None:
    opening = ast.get_docstring(ast.parse(file_of(name).read_text(encoding="utf-8")), clean=False)
    assert opening and len(opening.rstrip().splitlines()) <= MOST_LINES_OF_AN_OPENING


@pytest.mark.parametrize("name", ORDER.spine)
def test_every_note_of_the_spine_says_in_which_order_to_read_it(name: str) -> None:
    opening = ast.get_docstring(ast.parse(file_of(name).read_text(encoding="utf-8")), clean=False)
    assert read_line(opening)


@pytest.mark.parametrize("name", ["model/detr", "objective/criterion"])
def test_the_published_model_and_criterion_are_short(name: str) -> None:
    assert lines_of(name) <= 150


# What the tests above would find.
A_PAGE = """# Reading order
words
## Spine

1. [`ops/a`](../scratch/ops/a.py): a word
2. [`ops/b`](../scratch/ops/b.py): a word
3. [`model/c`](../scratch/model/c.py): a word

## Branches

### fast

* [`ops/fast/d`](../scratch/ops/fast/d.py): a word
* [`page.html`](../scratch/page.html): a word
"""
A_LIST = parse(A_PAGE)
FILES = {*A_LIST.all, "config"}


def test_a_page_is_parsed() -> None:
    assert A_LIST == Order(["ops/a", "ops/b", "model/c"], ["ops/fast/d", "page.html"])


@pytest.mark.parametrize("wrong", [
    "4. [`ops/e`](../scratch/ops/f.py): another file", "3. [`ops/e`](../scratch/ops/e.py): another number",
    "4. [`ops/e`](../scratch/ops/e.py):", "* [`ops/e`](../scratch/ops/e.py): a branch", "and some words",
])
def test_an_entry_of_another_form_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError):
        parse(A_PAGE.replace("\n\n## Branches", f"\n{wrong}\n\n## Branches"))


@pytest.mark.parametrize("source, late, doors", [
    ("import torch\nfrom scratch.ops.a import x, y\nfrom scratch.config import z", 0, 0),
    ("from scratch.model.c import x", 1, 0),
    ("from ..model import c", 1, 0),
    ("from scratch.ops import b", 1, 0),
    ("from reference import model", 1, 0),
    ("def late():\n    from scratch.model.c import x", 1, 0),
    ("from scratch.ops.fast.d import x", 0, 1),
    ("from scratch.ops.fast.d import x, y", 0, 2),
    ("from scratch.ops.fast import d", 0, 1),
])
def test_a_planted_import_is_found(source: str, late: int, doors: int) -> None:
    assert tuple(map(len, foreign(source, "ops/b", A_LIST, FILES))) == (late, doors)


@pytest.mark.parametrize("docstring, wrong", [
    ("Read: a.py → here", 0), ("Read: here → a.py", 1),
    ("Read: here → fast/d.py", 0), ("Read: fast/d.py → here", 1),
    ("Read: here → model/c.py", 0), ("Read: here → e.py", 1), ("Read after a.py: here", 0),
    ("Read after fast/d.py: here", 1), ("Read: here → a function, by and/or", 0), ("No order.", 0),
    ("Read: here\nSource: a.py", 0), ("Read: here (as in a.py)", 0), ("Read after model/c.py", 1),
])
def test_a_planted_disagreement_is_found(docstring: str, wrong: int) -> None:
    source = f'"""b: why?\n\n{docstring}\n"""\n\ndef here(): ...\n'
    assert len(disagreements("ops/b", source, A_LIST, FILES)) == wrong
