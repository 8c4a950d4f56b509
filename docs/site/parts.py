"""parts: a source file as a sequence of prose and code, so that a page can show one beside the other.

    module docstring                                    the opening
    a top-level function or class                       a section: docstring beside its code
      a method                                          rows of that section
      a comment on lines of its own                     prose beside the code that follows
    anything between them (imports, constants)          rows without a section
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from dataclasses import dataclass, field


@dataclass
class Row:
    """Prose beside lines of code: numbers from 1, both ends included; no line where last < first.

    name: the method that begins here. docstring: whether the prose keeps its line breaks where they mean something.
    """

    prose: str = ""
    docstring: bool = False
    first: int = 1
    last: int = 0
    name: str = ""


@dataclass
class Part:
    """A top-level function or class with its rows; name "" for what stands between them."""

    name: str = ""
    rows: list[Row] = field(default_factory=list)


def own_line_comments(source: str) -> dict[int, str]:
    """line → comment, for comments that have the line for themselves."""
    found = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and not token.line[:token.start[1]].strip():
            found[token.start[0]] = re.sub(r"^#+:? ?", "", token.string)
    return found


def _docstring(node: ast.AST) -> ast.Expr | None:
    body = getattr(node, "body", None) or [None]
    first = body[0]
    if not (isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)):
        return None
    own_line = first.lineno > getattr(node, "lineno", 0)  # not `def f(): "words"`
    return first if isinstance(first.value.value, str) and own_line else None


def _begin(node: ast.stmt) -> int:
    return min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])


def _end(node: ast.stmt) -> int:
    return node.end_lineno or node.lineno


class _Splitter:
    def __init__(self, source: str, tree: ast.Module) -> None:
        self.lines, self.tree = source.splitlines(), tree
        self.comments = own_line_comments(source)

    def rows(self, first: int, last: int, prose: str = "", name: str = "") -> list[Row]:
        """Lines first … last, cut before each comment on lines of its own; `prose` and `name` go to the first row."""
        rows, row, line = [], Row(prose, bool(prose), first, last), first
        while line <= last:
            if line not in self.comments:
                line += 1
                continue
            row.last = line - 1
            rows.append(row)
            text = []
            while line in self.comments and line <= last:
                text.append(self.comments[line])
                line += 1
            row = Row("\n".join(text), False, line, last)
        rows.append(row)
        left = [tidy for row in rows if (tidy := self.tidy(row))]
        if left:
            left[0].name = name
        return left

    def tidy(self, row: Row) -> Row | None:
        """Without blank lines at both ends; None where nothing is left."""
        while row.first <= row.last and not self.lines[row.first - 1].strip():
            row.first += 1
        while row.first <= row.last and not self.lines[row.last - 1].strip():
            row.last -= 1
        return row if row.prose or row.first <= row.last else None

    def definition(self, node: ast.FunctionDef | ast.ClassDef, begin: int, name: str = "") -> list[Row]:
        """Signature and body of a function, or a class up to its first method, with the docstring as prose."""
        text = _docstring(node)
        rows: list[Row] = []
        methods = [part for part in node.body if isinstance(part, ast.FunctionDef)] if isinstance(
            node, ast.ClassDef) else []
        end = _end(node)
        if text is None:
            head = self.rows(begin, self.start(methods[0]) - 1 if methods else end, "", name)
        else:
            # The signature stays with the first lines of the body, so that prose and code begin side by side.
            prose = ast.get_docstring(node) or ""
            head = self.rows(begin, text.lineno - 1, prose, name)
            head += self.rows(_end(text) + 1, self.start(methods[0]) - 1 if methods else end)
        rows += _joined(head)
        for i, method in enumerate(methods):
            begin = self.start(method)
            rows += self.definition(method, begin, f"{node.name}.{method.name}")
            until = self.start(methods[i + 1]) - 1 if i + 1 < len(methods) else end
            rows += self.rows(_end(method) + 1, until)
        return rows

    def start(self, node: ast.stmt) -> int:
        """The first line of a definition with the comments directly above it."""
        line = _begin(node)
        while line - 1 in self.comments:
            line -= 1
        return line

    def parts(self) -> list[Part]:
        parts, opening = [], _docstring(self.tree)
        line = _end(opening) + 1 if opening else 1
        for node in self.tree.body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                begin = self.start(node)
                parts.append(Part("", self.rows(line, begin - 1)))
                parts.append(Part(node.name, self.definition(node, begin)))
                line = _end(node) + 1
        parts.append(Part("", self.rows(line, len(self.lines))))
        return [part for part in parts if part.rows]


def _joined(rows: list[Row]) -> list[Row]:
    """The row of the signature and the row after it as one, where the second has no prose of its own."""
    joined: list[Row] = []
    for row in rows:
        if joined and not row.prose and not row.name:
            before = joined[-1]
            if before.first <= before.last:
                before.last = max(before.last, row.last)
            else:
                before.first, before.last = row.first, row.last
        else:
            joined.append(row)
    return joined


def split(source: str, tree: ast.Module) -> list[Part]:
    """All of a source file but its opening."""
    return _Splitter(source, tree).parts()


def hidden_lines(tree: ast.Module) -> set[int]:
    """The lines of the docstrings that a page shows as prose: of top-level functions and classes, and of methods."""
    found: set[int] = set()
    for node in tree.body:
        for part in [node, *(node.body if isinstance(node, ast.ClassDef) else [])]:
            if isinstance(part, (ast.FunctionDef, ast.ClassDef)) and (text := _docstring(part)):
                found |= set(range(text.lineno, _end(text) + 1))
    return found
