"""Every name is shown as it is: on a line, in Markdown and HTML, and as the name of a folder."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from scratch.analysis.document import Document
from scratch.analysis.names import alike, code, cut, folders, link, literal, numbered, short, shown, spoken
from scratch.printable import printable
from tests.hostile import NAMES


class Reader(HTMLParser):
    """The tags of a page, and the texts of its cells."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.cells: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)
        if tag == "td":
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        if self.cells:
            self.cells[-1] += data


@pytest.mark.parametrize("name, text", [
    ("red cell", "red cell"), ("two\nlines", r"two\nlines"), ("", '""'), ("  ", '"  "'), ("a ", '"a "'),
    ("\x1b[2J", r"\x1b[2J"), ("\ud83d", r"\ud83d"), (0.5, "0.5"), ("猫", "猫")])
def test_a_name_is_one_line_and_its_ends_can_be_seen(name: object, text: str) -> None:
    assert shown(name) == text


def test_a_long_name_is_cut_and_one_that_a_legend_would_leave_out_is_not_left_out() -> None:
    assert short("n" * 300) == "n" * 21 + "…" and short("n" * 22) == "n" * 22
    assert short("_hidden") == " _hidden"


@pytest.mark.parametrize("name, markdown", [
    ("a_b", "a_b"), ("_x_", r"\_x\_"), ("<b>|*x*", r"\<b\>\|\*x\*"), ("$10_to_$20", r"\$10_to\_\$20"),
    ("- item", r"\- item"), ("-0.5", "-0.5"), ("1. item", r"1\. item"), ("0.1", "0.1"), ("# h", r"\# h"),
    ("===", r"\==="), ("[x](y)", r"\[x\](y)"), ("&lt;", r"\&lt;"), ("`c`", r"\`c\`"), ("a\\", r"a\\")])
def test_in_markdown_a_sign_that_would_be_markup_has_a_backslash(name: str, markdown: str) -> None:
    assert literal(name) == markdown


@pytest.mark.parametrize("name", NAMES)
def test_a_terminal_shows_what_a_page_shows(name: str) -> None:
    assert spoken(literal(name)) == shown(name) and spoken(f"**{literal(name)} is best**") == f"{shown(name)} is best"
    assert spoken(f"a {code(name)} b") == f"a {code(name)} b"


@pytest.mark.parametrize("text, markdown", [("a", "`a`"), ("a`b", "``a`b``"), ("`", "`` ` ``"), ("", "`  `")])
def test_code_has_a_fence_that_nothing_in_it_ends(text: str, markdown: str) -> None:
    assert code(text) == markdown


def test_a_page_shows_every_name_and_makes_nothing_of_any(tmp_path: Path) -> None:
    document = Document(f"Analysis of {literal('<script>')}", tmp_path)
    document.table(["name", "bold", "code"], [[literal(n), f"**{literal(n)}**", code(n)] for n in NAMES])
    page = Reader(document.to_html())
    assert set(page.tags) == {"html", "head", "meta", "title", "style", "body", "h1", "table", "thead", "tbody", "tr",
                              "th", "td", "strong", "code"}
    for k, name in enumerate(NAMES):
        assert page.cells[3 * k:3 * k + 2] == [shown(name)] * 2 and page.cells[3 * k + 2].strip() == printable(name).strip()
    assert "<title>Analysis of &lt;script&gt;</title>" in document.to_html()
    rows = document.to_markdown().splitlines()[4:]
    assert len(rows) == len(NAMES) and all(len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) == 4 for row in rows)
    assert not any(re.search(r"(?<![\\`])<(?!\w*`)", re.sub(r"(`+).*?(?<!`)\1(?!`)", "", row)) for row in rows)
    document.to_markdown().encode("utf-8"), document.to_html().encode("utf-8")


@pytest.mark.parametrize("path, target", [
    ("a/errors.png", "a/errors.png"), ("my run (1)/errors.png", "my%20run%20%281%29/errors.png"), ("ä.png", "%C3%A4.png"),
    ("a?#<>.png", "a%3F%23%3C%3E.png"), ("\udcff.png", "%FF.png")])
def test_a_link_ends_where_its_path_ends(path: str, target: str, tmp_path: Path) -> None:
    assert link(path) == target


def test_a_picture_in_a_folder_with_spaces_is_linked(tmp_path: Path) -> None:
    (tmp_path / "my run (1)").mkdir()
    (tmp_path / "my run (1)" / "a.png").write_bytes(b"picture")
    document = Document("t", tmp_path)
    document.picture("my run (1)/a.png", "a chart")
    assert "![a chart](my%20run%20%281%29/a.png)" in document.to_markdown()


def test_names_that_one_file_system_takes_for_one_are_numbered() -> None:
    assert numbered(["a", "A", "a", "b"]) == ["a", "A-2", "a-3", "b"]
    assert numbered(["a", "a-2", "a"]) == ["a", "a-2", "a-3"] and numbered(["\u00e9", "e\u0301"])[1] == "e\u0301-2"


def test_a_folders_name_is_one_part_of_a_path_and_none_is_taken() -> None:
    names = folders(NAMES + NAMES, reserved=("report.md",))
    assert len({alike(name) for name in names}) == len(names) == 2 * len(NAMES)
    for name in names:
        assert Path("out", name).parent == Path("out") and name not in (".", "..", "") and len(name.encode()) < 120
        assert printable(name) == name and not set(name) & set('<>:"/\\|?*')
    assert folders(["Report.md", "a"], reserved=("report.md",)) == ["Report.md_", "a"]
    assert folders(["my run (1)", "ünder_score"]) == ["my run (1)", "ünder_score"]


def test_a_name_is_cut_between_two_letters() -> None:
    assert cut("ä" * 5, 7) == "äää" and cut("\udcff" * 3, 2) == "\udcff" * 2


def test_html_knows_no_letter_that_the_names_could_hide_behind() -> None:
    assert html.unescape(html.escape(shown("&#x3c;"))) == "&#x3c;"
