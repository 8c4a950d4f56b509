"""names: where is each name of a source file defined? Found by reading imports, without importing anything.

    from scratch.ops.linear import Linear        every later `Linear`  →  scratch/ops/linear, anchor Linear
    from scratch.ops import boxes                `boxes.box_iou`       →  scratch/ops/boxes, anchor box_iou
    self._split_heads(x)                         in a class            →  this file, anchor Class._split_heads

A name that a function binds itself (an argument, a variable) hides an import of the same name, and is no link.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple


class Place(NamedTuple):
    """Where a name is defined: a file of the project, and the anchor on its page ("" is the page itself)."""

    path: str
    anchor: str


class Use(NamedTuple):
    """A name in a source file: line (from 1), first and last column (characters, end excluded), where it is defined."""

    line: int
    begin: int
    end: int
    place: Place


@dataclass(frozen=True)
class Module:
    """A source file. defined: anchor → its line. imports: a name in this file → the dotted path it stands for."""

    path: str
    source: str
    tree: ast.Module
    defined: dict[str, int] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)


def dotted_name(path: str) -> str:
    """scratch/ops/linear.py → scratch.ops.linear; a package's __init__.py is the package."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def read_module(root: Path, path: str) -> Module:
    source = (root / path).read_text(encoding="utf-8")
    module = Module(path, source, ast.parse(source))
    for node in module.tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            module.defined[node.name] = node.lineno
        if isinstance(node, ast.ClassDef):
            for part in node.body:
                if isinstance(part, ast.FunctionDef):
                    module.defined.setdefault(f"{node.name}.{part.name}", part.lineno)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Name):
                    module.defined.setdefault(target.id, node.lineno)
    package = dotted_name(path) if path.endswith("__init__.py") else dotted_name(path).rpartition(".")[0]
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for item in node.names:
                first = item.name.split(".")[0]
                module.imports[item.asname or first] = item.name if item.asname else first
        elif isinstance(node, ast.ImportFrom):
            base = _base(node, package)
            for item in node.names:
                module.imports[item.asname or item.name] = f"{base}.{item.name}"
    return module


def _base(node: ast.ImportFrom, package: str) -> str:
    """The dotted path after `from`, relative imports resolved."""
    parts = package.split(".")[:len(package.split(".")) - node.level + 1] if node.level else []
    return ".".join(parts + ([node.module] if node.module else []))


class Names:
    """All source files of the project, by dotted name."""

    def __init__(self, root: Path, paths: list[str]) -> None:
        self.modules = {dotted_name(path): read_module(root, path) for path in paths}
        self.by_path = {module.path: module for module in self.modules.values()}

    def find(self, dotted: str, depth: int = 0) -> Place | None:
        """Where a dotted path is defined; a name that a module only passes on is followed to its source."""
        parts = dotted.split(".")
        for n in range(len(parts), 0, -1):
            module = self.modules.get(".".join(parts[:n]))
            if module is None:
                continue
            rest = parts[n:]
            if not rest:
                return Place(module.path, "")
            for end in range(len(rest), 0, -1):
                if (anchor := ".".join(rest[:end])) in module.defined:
                    return Place(module.path, anchor) if end == len(rest) else None
            target = module.imports.get(rest[0])
            return self.find(".".join([target, *rest[1:]]), depth + 1) if target and depth < 5 else None
        return None

    def in_file(self, name: str, module: Module) -> Place | None:
        """What `name` (perhaps dotted) means on the top level of a file."""
        if name in module.defined:
            return Place(module.path, name)
        first, _, rest = name.partition(".")
        target = module.imports.get(first)
        return self.find(f"{target}.{rest}" if rest else target) if target else None

    def uses(self, module: Module) -> list[Use]:
        """Every name of a file that the project defines, in the order of the text."""
        walker = _Walker(self, module)
        walker.visit(module.tree)
        return sorted(set(walker.found))


class _Walker(ast.NodeVisitor):
    """Collects uses. `hidden`: for each function around the current node, the names that it binds itself."""

    def __init__(self, names: Names, module: Module) -> None:
        self.names, self.module, self.lines = names, module, module.source.splitlines()
        self.hidden: list[set[str]] = []
        self.class_name = ""
        self.found: list[Use] = []

    def add(self, line: int, byte: int, name: str, place: Place | None) -> None:
        """`byte` counts bytes of UTF-8, as ast does. Before Python 3.12, places inside f-strings are wrong: skipped."""
        if place is None:
            return
        text = self.lines[line - 1].encode()
        begin = len(text[:byte].decode(errors="ignore"))
        if self.lines[line - 1][begin:begin + len(name)] == name and place != Place(self.module.path, ""):
            self.found.append(Use(line, begin, begin + len(name), place))

    def visit_Import(self, node: ast.Import) -> None:
        for item in node.names:
            self.add(item.lineno, item.col_offset, item.name, self.names.find(item.name))

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        package = dotted_name(self.module.path)
        if not self.module.path.endswith("__init__.py"):
            package = package.rpartition(".")[0]
        base = _base(node, package)
        if node.module:
            line = self.lines[node.lineno - 1]
            at = line.find(node.module, node.col_offset + len("from"))
            if at >= 0:
                self.add(node.lineno, len(line[:at].encode()), node.module, self.names.find(base))
        for item in node.names:
            self.add(item.lineno, item.col_offset, item.name, self.names.find(f"{base}.{item.name}"))

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        outer, self.class_name = self.class_name, node.name
        self.generic_visit(node)
        self.class_name = outer

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        arguments = node.args
        for part in [*node.decorator_list, *arguments.defaults, *filter(None, arguments.kw_defaults),
                     *filter(None, [node.returns])]:
            self.visit(part)
        bound = set()
        for argument in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg,
                         arguments.kwarg]:
            if argument is not None:
                bound.add(argument.arg)
                if argument.annotation is not None:
                    self.visit(argument.annotation)
        for part in ast.walk(node):
            if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                bound.add(part.id)
            elif isinstance(part, (ast.FunctionDef, ast.ClassDef)) and part is not node:
                bound.add(part.name)
            elif isinstance(part, ast.arg):
                bound.add(part.arg)
        for part in ast.walk(node):
            if isinstance(part, ast.Global):
                bound -= set(part.names)
        self.hidden.append(bound)
        for part in node.body:
            self.visit(part)
        self.hidden.pop()

    def is_hidden(self, name: str) -> bool:
        return any(name in bound for bound in self.hidden)

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load) and not self.is_hidden(node.id):
            self.add(node.lineno, node.col_offset, node.id, self.names.in_file(node.id, self.module))

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.visit(node.value)
        path = self.path_of(node)
        if path and node.end_col_offset is not None and node.end_lineno is not None:
            place = self.names.in_file(path, self.module)
            self.add(node.end_lineno, node.end_col_offset - len(node.attr.encode()), node.attr, place)

    def path_of(self, node: ast.expr) -> str:
        """"boxes.box_iou", with self as the class around it; "" if the chain does not begin with a known name."""
        if isinstance(node, ast.Name):
            if node.id == "self":
                return self.class_name
            return "" if self.is_hidden(node.id) else node.id
        if isinstance(node, ast.Attribute):
            path = self.path_of(node.value)
            return f"{path}.{node.attr}" if path else ""
        return ""
