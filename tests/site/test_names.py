"""Names in code lead to the place that defines them, and to no other."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("pygments")

from docs.site.names import Names, Place  # noqa: E402
from tests.conftest import REPOSITORY  # noqa: E402

A = """class Box:
    def area(self):
        return self.side()

    def side(self):
        return LIMIT


LIMIT = 1
"""


def uses(tmp_path: Path, source: str) -> list[tuple[str, str, str]]:
    """(text of the name, file, anchor) of every link in a file p/b.py that holds `source`, beside p/a.py."""
    (tmp_path / "p").mkdir()
    for file, text in (("__init__", "from p.a import Box\n"), ("a", A), ("b", source)):
        (tmp_path / "p" / f"{file}.py").write_text(text, encoding="utf-8")
    names = Names(tmp_path, ["p/__init__.py", "p/a.py", "p/b.py"])
    lines = source.splitlines()
    return [(lines[use.line - 1][use.begin:use.end], use.place.path, use.place.anchor)
            for use in names.uses(names.by_path["p/b.py"])]


@pytest.mark.parametrize("source, found", [
    ("from p.a import LIMIT\nx = LIMIT", [("p.a", "p/a.py", ""), ("LIMIT", "p/a.py", "LIMIT"),
                                          ("LIMIT", "p/a.py", "LIMIT")]),
    ("from p import a\nx = a.Box.area", [("p", "p/__init__.py", ""), ("a", "p/a.py", ""), ("a", "p/a.py", ""),
                                         ("Box", "p/a.py", "Box"), ("area", "p/a.py", "Box.area")]),
    ("from .a import LIMIT as most\ny = 'ü', most", [("a", "p/a.py", ""), ("LIMIT", "p/a.py", "LIMIT"),
                                                     ("most", "p/a.py", "LIMIT")]),
    ("from p import Box\n", [("p", "p/__init__.py", ""), ("Box", "p/a.py", "Box")]),
    ("import torch\nx = torch.ones(1)", []),
    ("from p.a import LIMIT\ndef f(LIMIT):\n    return LIMIT", [("p.a", "p/a.py", ""), ("LIMIT", "p/a.py", "LIMIT")]),
    ("def f():\n    return g()\ndef g():\n    g = 1\n    return g", [("g", "p/b.py", "g")]),
])
def test_a_name_leads_to_its_definition(tmp_path: Path, source: str, found: list[tuple[str, str, str]]) -> None:
    assert uses(tmp_path, source) == found


def test_a_method_is_found_through_self(tmp_path: Path) -> None:
    assert ("side", "p/b.py", "Box.side") in uses(tmp_path, A)


def test_in_attention_softmax_leads_to_activations() -> None:
    paths = [path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "scratch" / "ops").glob("*.py")]
    names = Names(REPOSITORY, paths)
    module = names.by_path["scratch/ops/attention.py"]
    line = next(n for n, text in enumerate(module.source.splitlines(), 1) if text.strip().startswith("P = softmax("))
    places = [use.place for use in names.uses(module) if use.line == line]
    assert places == [Place("scratch/ops/activations.py", "softmax")]
