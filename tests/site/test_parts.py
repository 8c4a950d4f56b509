"""A page shows a source file whole: every line of it as code or as prose, and the code as it is written."""

from __future__ import annotations

import ast
import re
from html import unescape

import pytest

pytest.importorskip("pygments")

from docs.site import code, parts, prose, shapes  # noqa: E402
from docs.site.prose import Words  # noqa: E402
from tests.conftest import REPOSITORY  # noqa: E402

SOURCES = sorted((REPOSITORY / "scratch").rglob("*.py"))
LETTERS = {"B": "B: batch", "S": "S = h·w: tokens", "N": "N: heads", "Q": "Q: queries", "d": "d = D/N: width", "h": "h"}
PLAIN = Words(lambda name: None, lambda path: None, LETTERS)


def name(path) -> str:
    return str(path.relative_to(REPOSITORY))


def squeezed(text: str) -> str:
    """Without blanks, and without the backslashes that a string has in a source file and not in memory."""
    return re.sub(r"[\s\\]+", "", text)


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_every_line_of_a_source_file_is_shown_once(path) -> None:
    source = path.read_text(encoding="utf-8")
    tree, lines = ast.parse(source), source.splitlines()
    shown: list[int] = []
    words = ast.get_docstring(tree) or ""
    for part in parts.split(source, tree):
        for row in part.rows:
            shown += [n for n in range(row.first, row.last + 1) if n not in parts.hidden_lines(tree)]
            words += "\n" + row.prose
    assert len(shown) == len(set(shown))
    flat = squeezed(words)
    for number, line in enumerate(lines, 1):
        text = squeezed(line).removeprefix('r"""').strip('"').lstrip("#").removeprefix(":")
        assert number in shown or text in flat, (number, line)


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_the_code_without_its_marks_is_the_source(path) -> None:
    source = path.read_text(encoding="utf-8")
    done = code.html_lines(source, [code.Link(1, 3, 5, "x.html")], LETTERS)
    assert [unescape(re.sub(r"<[^>]*>", "", line)) for line in done] == source.splitlines()


def test_a_definition_begins_with_its_docstring_and_a_comment_cuts_it() -> None:
    source = 'A = 1\n\n\ndef f(x):\n    """Why."""\n    y = x\n    # then\n    # this\n    return y\n\n\nB = 2\n'
    split = parts.split(source, ast.parse(source))
    assert [part.name for part in split] == ["", "f", ""]
    assert [(row.prose, row.first, row.last) for row in split[1].rows] == [("Why.", 4, 6), ("then\nthis", 9, 9)]
    assert parts.hidden_lines(ast.parse(source)) == {5}


def test_a_method_is_named_and_a_comment_above_it_belongs_to_it() -> None:
    source = 'class A:\n    """Is."""\n\n    x: int = 0\n\n    # Why so.\n    def f(self):\n        return 1\n'
    rows = parts.split(source, ast.parse(source))[0].rows
    assert [(row.name, row.prose, row.first, row.last) for row in rows] == [
        ("", "Is.", 1, 4), ("A.f", "Why so.", 7, 8)]


@pytest.mark.parametrize("text, kinds", [
    ("One\ntwo.\n\n    y = x\n\n    z\nThree.", ["words", "kept", "words"]),
    ("Read: a → b\n      → c", ["words"]),
    ("1. one\n   more\n2. two", ["words", "words"]),
    ("One.\n    y = x", ["words", "kept"]),
])
def test_what_is_indented_keeps_its_lines(text: str, kinds: list[str]) -> None:
    assert [kind for kind, _ in prose.blocks(text)] == kinds


@pytest.mark.parametrize("text, html", [
    ("a `b` c", "a <code>b</code> c"),
    ("*new* word, 2*3*4", "<em>new</em> word, 2*3*4"),
    ("(arXiv 2005.12872)", '(<a href="https://arxiv.org/abs/2005.12872">arXiv 2005.12872</a>)'),
    ("x (B, S) < 1", 'x (<span class="dim">B</span>, <span class="dim">S</span>) &lt; 1'),
])
def test_a_line_of_prose_becomes_html(text: str, html: str) -> None:
    assert prose.inline(text, PLAIN) == html


@pytest.mark.parametrize("text, letters", [
    ("(B,N,Q,S)", "BNQS"), ("(B·N, 1, Q or S, d)", "BNQSd"), ("(B,C,H',W')", "B"), ("(but see S)", ""), ("B is", ""),
    ("(Q, the queries)", ""), ("f(x)", ""), ("(2, S)", "S"),
])
def test_letters_are_found_in_shapes_alone(text: str, letters: str) -> None:
    assert "".join(text[begin:end] for begin, end in shapes.uses(text, LETTERS)) == letters


def test_the_letters_are_those_of_the_map() -> None:
    letters = shapes.letters(REPOSITORY)
    assert letters["S"] == "S = h·w: tokens" and letters["H"] == letters["W"] == "H, W: pixels"
    assert set("BCHWhwSQDNdLKM") == set(letters)


def test_an_opening_may_give_a_letter_another_meaning() -> None:
    said = shapes.said_here("W = world_size   S = 3 and d = 64. N windows. D = N·d, more", dict.fromkeys("WSdND", ""))
    assert said == {"W": "world_size", "D": "N·d"}
