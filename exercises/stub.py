"""stub: how does a note become a file with a hole, and the same note the file with the answer?

    note's source ── ast ──▶ docstring of the note, imports, signature and docstring of the target, a hole   stub_of
                         └─▶ the same with the note's own body and all that it uses                          solution_of

Nothing of the note is copied into this folder, so nothing can go stale: both texts are made from scratch/ each time.
An operation that is a class inherits from the note's class (its weights, its other methods); the hole is a method.
Proven in tests/exercises/test_stub.py. Read: Note → stub_of → solution_of
"""

from __future__ import annotations

import ast
import re
import textwrap
from functools import lru_cache
from typing import Iterator, Union

import torch

from exercises.registry import REPOSITORY, Exercise

Function = Union[ast.FunctionDef, ast.ClassDef]
HOLE = "write {name} here, and remove this line"


class Note:
    """The source of a note, taken apart."""

    def __init__(self, exercise: Exercise) -> None:
        self.exercise = exercise
        self.source = exercise.path.read_text(encoding="utf-8")
        self.tree = ast.parse(self.source)
        self.docstring = ast.get_docstring(self.tree) or ""
        self.definitions = {name: node for node in self.tree.body for name in _defines(node)}
        self.imports = {item.asname or item.name: (node, item) for node in self.tree.body
                        if isinstance(node, (ast.Import, ast.ImportFrom)) for item in node.names}
        self.target: Function = self.definitions[exercise.target]
        self.methods = {node.name: node for node in self.target.body if isinstance(node, ast.FunctionDef)}
        self.holes = [self.methods[name] for name in exercise.methods] if exercise.methods else [self.target]

    def text(self, node: ast.AST) -> str:
        """The source of a node, its decorators and comments included."""
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])
        return textwrap.dedent("\n".join(self.source.splitlines()[first - 1:node.end_lineno]))

    def used(self, nodes: list[ast.AST], deep: bool) -> set[str]:
        """The names that the nodes use; deep: also what the note's functions and private methods among them use."""
        inner: dict[str, ast.AST] = {}
        if deep:
            inner = {name: node for name, node in self.definitions.items()
                     if isinstance(node, ast.FunctionDef) and name not in self.exercise.given}
            inner |= {f"self.{name}": node for name, node in self.methods.items() if name.startswith("_")}
        seen: set[str] = set()
        waiting = [name for node in nodes for name in _names(node)]
        while waiting:
            name = waiting.pop()
            if name not in seen:
                seen.add(name)
                waiting += _names(inner[name]) if name in inner else []
        return seen

    def import_lines(self, names: set[str], own: set[str]) -> str:
        """Imports of `names` from where the note has them, and of `own` from the note itself."""
        lines, from_modules = [], {}
        for name, (node, item) in self.imports.items():
            if name in names and isinstance(node, ast.Import):
                lines.append(f"import {item.name}" + (f" as {item.asname}" if item.asname else ""))
            elif name in names and node.module != "__future__":
                from_modules.setdefault(node.module, []).append(item.name)
        if own:
            from_modules.setdefault(self.exercise.module, []).extend(sorted(own))
        standard = [f"from {module} import {', '.join(what)}" for module, what in from_modules.items()
                    if not module.startswith(("scratch", "torch"))]
        torchs = [f"from {module} import {', '.join(what)}" for module, what in from_modules.items()
                  if module.startswith("torch")]
        ours = [f"from {module} import {', '.join(what)}" for module, what in sorted(from_modules.items())
                if module.startswith("scratch")]
        first = [line for line in lines if not line.startswith("import torch")] + standard
        second = [line for line in lines if line.startswith("import torch")] + torchs
        return "\n\n".join("\n".join(part) for part in (first, second, ours) if part)


@lru_cache(maxsize=None)
def note_of(exercise: Exercise) -> Note:
    return Note(exercise)


def stub_of(exercise: Exercise) -> str:
    """The reader's file: what the note says, the signature, and a hole."""
    note = note_of(exercise)
    names, own = _stub_names(note), set(exercise.given) | _own_types(note)
    holes = "\n\n".join(_with_hole(note, node) for node in note.holes)
    return _file(note, names, own, holes, f"{exercise.name}: {exercise.idea}\n\n{_opening(note)}")


def _stub_names(note: Note) -> set[str]:
    """The names that the stub imports from elsewhere: what the note's answer uses, but for the doors to fast code."""
    answer = {name for name in note.definitions if name not in note.exercise.given} | {note.exercise.target}
    return {name for name in note.used(note.holes, deep=True) if name not in answer
            and not _is_door(note, name)} | {"torch", "Tensor"}


def _own_types(note: Note) -> set[str]:
    """The note's own types in the signature."""
    return {name for name in note.used(_signature(note), deep=False) if name in note.definitions} - {
        note.exercise.target}


def solution_of(exercise: Exercise) -> str:
    """The reader's file as it would be with the note's own answer in it."""
    note = note_of(exercise)
    names = note.used(note.holes, deep=False)
    own = {name for name in names if name in note.definitions} - {exercise.target}
    body = "\n\n".join(note.text(node) for node in note.holes)
    return _file(note, names | {"torch", "Tensor"}, own, body, f"{exercise.name}: {exercise.idea}")


def answer_of(exercise: Exercise) -> tuple[str, int]:
    """The note's own answer as text, with the functions of the note that it calls; the line where it begins."""
    note = note_of(exercise)
    used = note.used(note.holes, deep=True)
    called = [node for name, node in note.definitions.items() if name in used and name not in exercise.given
              and isinstance(node, ast.FunctionDef) and node not in note.holes]
    called += [node for name, node in note.methods.items() if f"self.{name}" in used and node not in note.holes
               and name.startswith("_") and name != "__init__"]
    return "\n\n\n".join(note.text(node) for node in [*note.holes, *called]), note.holes[0].lineno


def has_hole(exercise: Exercise, source: str) -> bool:
    """Does a reader's file still raise NotImplementedError where the operation should stand?"""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and node.name in (exercise.target, *exercise.methods):
            last = node.body[-1]
            if isinstance(last, ast.Raise) and "NotImplementedError" in ast.dump(last):
                return True
    return False


def _file(note: Note, names: set[str], own: set[str], body: str, docstring: str) -> str:
    exercise = note.exercise
    end = "\n" if "\n" in docstring else ""
    parts = [f'"""{docstring}{end}"""', "from __future__ import annotations"]
    if exercise.methods:
        own = own - {exercise.target}
        imports = note.import_lines(names, own | {f"{exercise.target} as Note"})
        said = ast.get_docstring(note.target) or f"The note's {exercise.target}, but for what is written here."
        said = said.replace("\\", "\\\\") + ("\n" if "\n" in said else "")
        head = [f"class {exercise.target}(Note):", textwrap.indent(f'"""{said}"""', "    ")]
        body = "\n".join(head) + "\n\n" + textwrap.indent(body, "    ")
    else:
        imports = note.import_lines(names, own)
    return "\n\n".join([*parts, imports]) + f"\n\n\n{body}\n"


def _opening(note: Note) -> str:
    """The note's own docstring, without the lines on how to read that file; and what the class has already."""
    # Backslashes of the note are doubled: the text becomes a docstring again.
    kept = [line for line in note.docstring.replace("\\", "\\\\").splitlines()]
    end = next((i for i, line in enumerate(kept) if line.startswith("Read:")), len(kept))
    lines = [f"Read first: the opening of scratch/{note.exercise.note}.py, which says:", "", *kept[:end]]
    if note.exercise.methods:
        lines += ["", f"self has already, from the note's {note.exercise.target}:", "",
                  *(f"    {line}" for line in _attributes(note))]
    if note.exercise.given:
        lines += ["", "You may use as they are:", ""]
        for name in note.exercise.given:
            lines += _explained_call(note.source, note.definitions[name], whole=True)
    if imported := _imported(note):
        lines += ["", "Imported, and explained here:", "", *imported]
    for name in note.exercise.explain:
        lines += ["", *_explained(note, name)]
    if re.search(r"What changed|ops/fast|\bfast_", " ".join(ast.get_docstring(hole) or "" for hole in note.holes)):
        lines += ["", "“What changed” in a docstring compares with the version before it in the note. Its fast code",
                  "(ops/fast, fast_…) is not your task: the check runs in plain mode, without it."]
    for heading, titles in also_asked(note.exercise).items():
        lines += ["", f"{heading}:", "", *(textwrap.fill(title, 96, initial_indent="    ", subsequent_indent="      ")
                                           for title in titles)]
    return "\n".join(lines)


def _imported(note: Note) -> list[str]:
    """What the stub imports from scratch/ and no docstring of it explains: signature and first paragraph, or a type."""
    names = _own_types(note) | {name for name in _stub_names(note) if name in note.imports}
    names |= {name for given in note.exercise.given for name in _names(note.definitions[given].returns)
              if name in note.imports or name in note.definitions}
    lines = []
    for name in sorted(names - set(note.exercise.explain), key=lambda each: (each in note.imports, each.lower())):
        source, tree, original = note.source, note.tree, name
        if name in note.imports:
            node, item = note.imports[name]
            if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("scratch."):
                continue
            source = (REPOSITORY / f"{node.module.replace('.', '/')}.py").read_text(encoding="utf-8")
            tree, original = ast.parse(source), item.name
        for found in (each for each in tree.body if original in _defines(each)):
            lines += _explained_call(source, found, whole=False)
    return lines


def _explained_call(source: str, node: ast.AST, whole: bool) -> list[str]:
    """How a function is called and what it does; of a class, what it is and its fields; of a type, its line.

    whole   all of the docstring, not its first paragraph alone
    """
    if not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return [f"    {source.splitlines()[node.lineno - 1]}"]
    paragraphs = (ast.get_docstring(node) or "").replace("\\", "\\\\").split("\n\n")
    head = node.name
    if isinstance(node, ast.FunctionDef):
        head += f"({ast.unparse(node.args)})" + (f" -> {ast.unparse(node.returns)}" if node.returns else "")
    head = re.sub("(?<!,) ", "\N{NO-BREAK SPACE}", head)  # a line ends between two parameters
    lines = textwrap.wrap(head, 96, initial_indent="    ", subsequent_indent="        ")
    for paragraph in paragraphs if whole else paragraphs[:1]:
        lines += textwrap.wrap(" ".join(paragraph.split()), 96, initial_indent=" " * 8, subsequent_indent=" " * 8)
    lines += [f"        {source.splitlines()[each.lineno - 1].strip()}" for each in node.body
              if isinstance(each, ast.AnnAssign)]
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]


def _explained(note: Note, name: str) -> list[str]:
    """The docstring of a function or class of the note, and the fields of a dataclass."""
    return [f"{name}, from scratch/{note.exercise.note}.py:", "",
            *_explained_call(note.source, note.definitions[name], whole=True)]


def also_asked(exercise: Exercise) -> dict[str, list[str]]:
    """What the check asks beyond the formula and the docstring, from the titles of its own cases."""
    cases = exercise.grading.CASES
    half = [case for case in cases if case.dtype in (torch.bfloat16, torch.float16)]
    asked = [case.title for case in cases if case.told and not case.bonus]
    if any(not case.bonus and case.result is None for case in half):
        asked.append("bfloat16 and float16: the dtype of the input, nearly as exact as float32 rounded once")
    bonus = [case.title for case in cases if case.bonus]
    return {name: titles for name, titles in (("Also asked", asked), ("Bonus, reported and never a failure", bonus))
            if titles}


def _attributes(note: Note) -> Iterator[str]:
    """The lines of the note that say what an instance holds: self.x = …, or the fields of a dataclass."""
    for node in note.target.body:
        if isinstance(node, ast.AnnAssign):
            yield note.text(node).strip()
        elif isinstance(node, ast.FunctionDef) and node.name == "__init__":
            for statement in node.body:
                if isinstance(statement, ast.Assign) and ast.unparse(statement).startswith(("self.", "(self.")):
                    yield from note.text(statement).splitlines()


def _with_hole(note: Note, node: ast.FunctionDef) -> str:
    """Decorators, signature and docstring of a function as the note has them, and a hole for the rest."""
    text = note.text(node).splitlines()
    start = node.lineno - min([node.lineno, *(d.lineno for d in node.decorator_list)])
    first = node.body[0]
    documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    end = start + (first.end_lineno if documented else first.lineno - 1) - node.lineno + 1
    kept = text[:end]
    if not documented:
        kept.append('    """' + f"See the opening of this file; scratch/{note.exercise.note}.py has more." + '"""')
    name = note.exercise.target if node is note.target else node.name
    return "\n".join([*kept, f'    raise NotImplementedError("{HOLE.format(name=name)}")'])


def _signature(note: Note) -> list[ast.AST]:
    return [part for node in note.holes for part in (node.args, node.returns) if part is not None]


def _is_door(note: Note, name: str) -> bool:
    """Is a name one of the fast code, which is closed in plain mode?"""
    node, _ = note.imports.get(name, (None, None))
    doors = ("scratch.ops.fast", "scratch.training.fast")
    return isinstance(node, ast.ImportFrom) and (node.module or "").startswith(doors)


def _defines(node: ast.AST) -> list[str]:
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _names(node: ast.AST) -> list[str]:
    found = [each.id for each in ast.walk(node) if isinstance(each, ast.Name)]
    found += [f"self.{each.attr}" for each in ast.walk(node)
              if isinstance(each, ast.Attribute) and isinstance(each.value, ast.Name) and each.value.id == "self"]
    # Annotations may be text.
    found += [word for each in ast.walk(node) if isinstance(each, ast.Constant) and isinstance(each.value, str)
              for word in re.findall(r"\b[A-Z]\w+\b", each.value) if len(each.value) < 40]
    return found
