"""proofs: the tests of a note, as sentences. tests/ mirrors scratch/, and the name of a test is a sentence."""

from __future__ import annotations

import ast
import re
from typing import NamedTuple

from docs.site.names import Module, Names
from exercises.sentences import sentence


class Proof(NamedTuple):
    """One test: the file, the function, and the sentence that its name says."""

    path: str
    function: str
    sentence: str


def tests_of(module: Module) -> list[str]:
    """The test functions of a file, in its order, also those in classes."""
    return [node.name for node in ast.walk(module.tree)
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]


def proofs_of(note: Module, tests: dict[str, Module], names: Names) -> list[Proof]:
    """The proofs of a note: the mirrored file, and those that its opening names; without either, files that import it.

    tests: path → module of every file of tests.
    """
    folder, _, stem = note.path.removeprefix("scratch/").removesuffix(".py").rpartition("/")
    files = [f"tests/{folder}/test_{stem}.py".replace("//", "/")]
    files += re.findall(r"tests/[\w/]+\.py", ast.get_docstring(note.tree) or "")
    files = [path for path in dict.fromkeys(files) if path in tests]
    if not files:
        files = [path for path, module in tests.items()
                 if any((place := names.find(target)) and place.path == note.path
                        for target in module.imports.values())]
    return [Proof(path, function, sentence(function)) for path in files for function in tests_of(tests[path])]
