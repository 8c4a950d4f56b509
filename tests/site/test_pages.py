"""The site has a page for everything, no link of it is dead, and it stands on its own."""

from __future__ import annotations

import ast
import os
import re
from collections import Counter
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.conftest import REPOSITORY
from tests.site.conftest import Site

# The fixture builds the site: minutes, where the machine is busy.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
bs4 = pytest.importorskip("bs4", reason="beautifulsoup4 is not installed: pip install -r requirements-more.txt")


def soup(path: Path):
    return bs4.BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


def text_of(page: Path) -> str:
    return unescape(re.sub(r"<[^>]*>", "", page.read_text(encoding="utf-8")))


def last_line(path: Path) -> str:
    """The last line that a page shows as it is: of code, in a Python file; "" if there is nothing but an opening."""
    lines = path.read_text(encoding="utf-8").splitlines()
    if path.suffix != ".py":
        return lines[-1].strip()
    last = ast.parse("\n".join(lines)).body[-1]
    is_text = isinstance(last, ast.Expr) and isinstance(last.value, ast.Constant)
    return "" if is_text else lines[(last.end_lineno or 1) - 1].strip()


class Read(HTMLParser):
    """What a page refers to: the anchors that it has, and (tag, target) of all that it links or loads."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: list[str] = []
        self.targets: list[tuple[str, str]] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if given.get("id"):
            self.anchors.append(str(given["id"]))
        target = given.get("href") or given.get("src") or given.get("data")
        if target and given.get("rel") != "canonical":
            self.targets.append((tag, target))


@pytest.fixture(scope="module")
def pages(site: Site) -> dict[Path, Read]:
    """Every page, read once."""
    return {path: Read(path) for path in site.pages()}


def test_the_build_ends_well_and_without_a_warning(site: Site) -> None:
    assert "exit status 0" in site.said and "WARNING" not in site.said, site.said


def test_there_is_a_page_for_every_file_of_scratch_with_its_lines(site: Site) -> None:
    missing = []
    for path in sorted((REPOSITORY / "scratch").rglob("*")):
        if not path.is_file() or "__pycache__" in path.parts:
            continue
        name = path.relative_to(REPOSITORY).as_posix()
        page = site.folder / (re.sub(r"__init__\.py$", "index.py", name).removesuffix(".py") + ".html")
        if not page.is_file() or last_line(path) not in text_of(page):
            missing.append(name)
    assert not missing, missing


def test_there_is_a_page_for_every_document(site: Site) -> None:
    documents = [*(REPOSITORY / "docs").glob("*.md"), *(REPOSITORY / "hyper_parameter_tuning_charts").rglob("*.md"),
                 *(REPOSITORY / "tests").rglob("*.md"), REPOSITORY / "CONTRIBUTING.md"]
    missing = [path for path in documents
               if not (site.folder / path.relative_to(REPOSITORY).with_suffix(".html")).is_file()]
    assert not missing, missing
    title = re.search(r"^# (.+)$", (REPOSITORY / "README.md").read_text(encoding="utf-8"), re.M)
    assert title and title[1] in soup(site.folder / "index.html").h1.get_text()


def test_every_internal_link_and_anchor_resolves(site: Site, pages: dict[Path, Read]) -> None:
    anchors = {str(path): set(page.anchors) for path, page in pages.items()}
    dead, links = [], 0
    for path, page in pages.items():
        for tag, target in dict.fromkeys(page.targets):
            parts = urlsplit(target)
            if parts.scheme or target.startswith("//"):
                continue
            links += 1
            file = os.path.normpath(path.parent / unquote(parts.path)) if parts.path else str(path)
            if file not in anchors and not os.path.isfile(file):
                dead.append(f"{path.relative_to(site.folder)}: {target}")
            elif parts.fragment and tag == "a" and unquote(parts.fragment) not in anchors.get(file, set()):
                dead.append(f"{path.relative_to(site.folder)}: {target}")
    assert links > 10_000 and not dead, dead[:20]


def test_no_anchor_stands_twice_on_a_page(site: Site, pages: dict[Path, Read]) -> None:
    twice = [f"{path.relative_to(site.folder)}: {name}" for path, page in pages.items()
             for name, count in Counter(page.anchors).items() if count > 1]
    assert not twice, twice[:20]


def test_no_page_loads_anything_from_elsewhere(site: Site, pages: dict[Path, Read]) -> None:
    loaded = [f"{path.relative_to(site.folder)}: {target}" for path, page in pages.items()
              for tag, target in page.targets if tag != "a" and re.match(r"(https?:)?//", target)]
    for style in site.folder.rglob("*.css"):
        text = style.read_text(encoding="utf-8")
        loaded += [f"{style.name}: {found}" for found in re.findall(r"url\(['\"]?((?:https?:)?//[^)]*)", text)]
        loaded += [f"{style.name}: {found}" for found in re.findall(r"@import[^;]*", text)]
    assert not loaded, loaded[:20]


def test_a_notes_page_has_what_belongs_to_it(site: Site) -> None:
    page = soup(site.folder / "scratch/ops/attention.html")
    assert page.find(class_="note-question").get_text().startswith("How does a token")
    read = page.find(class_="read-box").get_text(" ")
    assert "ops/dropout" in read and "ops/layer_norm" in read
    proofs = page.find(class_="proofs-box")
    assert all("test_attention.html#test_" in tag["href"] for tag in proofs.find_all("a")[1:])
    assert {tag["data-letter"] for tag in page.find_all("button", class_="letter")} >= {"B", "N", "Q", "S", "D", "d"}
    link = page.find("section", id="attention_batched").find("a", string="softmax")
    assert link["href"] == "activations.html#softmax"
    assert page.find("a", class_="next-page")["href"] == "layer_norm.html"


def test_a_document_leads_to_the_notes(site: Site) -> None:
    glossary = soup(site.folder / "docs/glossary.html")
    assert glossary.find("a", href="../scratch/ops/attention.html#MultiheadAttention")
    assert soup(site.folder / "docs/map.html").find("a", href="../scratch/model/backbone.html")


def test_a_folder_that_no_build_wrote_is_left_alone(tmp_path: Path) -> None:
    pytest.importorskip("sphinx", reason="sphinx is not installed: pip install -r requirements-more.txt")
    from docs.site.build import build
    (tmp_path / "letters.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(ValueError, match="no build of the site wrote"):
        build(tmp_path)
    assert (tmp_path / "letters.txt").read_text(encoding="utf-8") == "mine"
