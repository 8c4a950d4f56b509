"""Each package imports only what the design allows it, and no import runs in a circle."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent

# package → the modules of the project that it may import, beside its own siblings
MAY_IMPORT = {
    "scratch.ops": (),
    "scratch.config": ("scratch.ranges",),
    "scratch.ranges": (),
    "scratch.recipe": ("scratch.config", "scratch.data.summary"),
    "scratch.whole_file": (),
    "scratch.printable": (),
    "scratch.only_one": (),
    "scratch.kept_arrays": (),
    "scratch.program": ("scratch.printable",),
    "scratch.blueprint": ("scratch.config", "scratch.model", "scratch.training"),
    "scratch.detector": ("scratch.blueprint", "scratch.config", "scratch.data", "scratch.evaluation", "scratch.model",
                         "scratch.training", "scratch.weights"),
    "scratch.weights": ("scratch.blueprint", "scratch.config", "scratch.training.checkpoint",
                        "scratch.training.content"),
    "scratch.model": ("scratch.ops", "scratch.config"),
    "scratch.objective": ("scratch.ops", "scratch.config"),
    "scratch.data": ("scratch.ops.boxes", "scratch.config"),
    "scratch.training": ("scratch.config", "scratch.ops.fast.switch"),
    "scratch.evaluation": ("scratch.ops.boxes",),
    "scratch.analysis": (),
}
# Leaves that import nothing but each other: every package but the notes, the model and the objective may use them.
LEAVES = ("scratch.whole_file", "scratch.printable", "scratch.program", "scratch.only_one", "scratch.kept_arrays")
OURS = ("scratch", "reference", "benchmarks", "exercises", "tests", "commands", "detr_scratch")
# The notes and the configuration stand on the standard library, torch and numpy alone.
PLAIN = {"scratch.ops": {"torch", "numpy"}, "scratch.config": set(), "scratch.ranges": set(),
         "scratch.model": {"torch"}, "scratch.objective": {"torch"}, "scratch.whole_file": set(),
         "scratch.printable": set(), "scratch.program": set()}


def imported(source: str, module: str) -> set[str]:
    """The absolute names of all modules, or names in modules, that the source of `module` imports."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {item.name for item in node.names}
        elif isinstance(node, ast.ImportFrom):
            parent = module.split(".")[:-node.level] if node.level else []
            base = ".".join(parent + ([node.module] if node.module else []))
            names |= {f"{base}.{item.name}" for item in node.names}
    return names


def within(name: str, packages) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def strangers(source: str, module: str) -> set[str]:
    """What the source of `module` imports of this project without being allowed to."""
    package = ".".join(module.split(".")[:2])
    ours = {name for name in imported(source, module) if within(name, OURS)}
    leaves = () if package in PLAIN else LEAVES
    return {name for name in ours if not within(name, (package, *MAY_IMPORT[package], *leaves))}


def module_name(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path.read_text() for path in sorted((REPOSITORY / "scratch").rglob("*.py"))}


@pytest.mark.parametrize("module", [module for module in MODULES if module != "scratch"])
def test_a_module_imports_only_what_its_package_may(module):
    assert strangers(MODULES[module], module) == set()


@pytest.mark.parametrize("module", [m for m in MODULES if within(m, PLAIN)])
def test_the_notes_stand_on_torch_and_numpy_alone(module):
    package = ".".join(module.split(".")[:2])
    roots = {name.split(".")[0] for name in imported(MODULES[module], module)} - set(OURS)
    assert roots - PLAIN[package] - set(sys.stdlib_module_names) == set()


def test_the_table_names_every_package():
    assert {".".join(module.split(".")[:2]) for module in MODULES if module != "scratch"} == set(MAY_IMPORT)


def test_nothing_but_tests_imports_the_command_line():
    folders = ("scratch", "reference", "benchmarks", "commands", "exercises")
    for path in [path for folder in folders for path in (REPOSITORY / folder).rglob("*.py")]:
        names = imported(path.read_text(), module_name(path))
        assert not any(within(name, ("detr_scratch", "tests")) for name in names), path


def test_no_command_imports_a_benchmark():
    for path in (REPOSITORY / "commands").rglob("*.py"):
        assert not any(within(name, ("benchmarks",)) for name in imported(path.read_text(), module_name(path))), path


def test_the_exercises_import_the_notes_alone_and_no_command():
    for path in (REPOSITORY / "exercises").rglob("*.py"):
        ours = {name for name in imported(path.read_text(), module_name(path)) if within(name, OURS)}
        assert all(within(name, ("scratch", "exercises")) for name in ours), path


def project() -> dict[str, str]:
    """Every module of the project and its source."""
    paths = [REPOSITORY / "detr_scratch.py", *(path for folder in OURS for path in (REPOSITORY / folder).rglob("*.py"))]
    return {module_name(path): path.read_text() for path in paths}


def imports_of(sources: dict[str, str]) -> dict[str, set[str]]:
    """module → the modules that it imports anywhere, in its functions too (they are only imported later).

    `from package import name` imports the module package.name where there is one. An import of package.name also runs
    the package's __init__; it counts for modules outside of that package.
    """
    graph: dict[str, set[str]] = {}
    for module, source in sources.items():
        graph[module] = set()
        for name in imported(source, module):
            while name and name not in sources:
                name = name.rpartition(".")[0]
            while name:
                if name in sources and not within(module, (name,)):
                    graph[module].add(name)
                name = name.rpartition(".")[0]
    return graph


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Every set of modules that reach each other by imports."""
    def reached(module: str) -> set[str]:
        seen: set[str] = set()
        waiting = list(graph[module])
        while waiting:
            if (name := waiting.pop()) not in seen:
                seen.add(name)
                waiting += graph[name]
        return seen

    reach = {module: reached(module) for module in graph}
    found = {tuple(sorted(other for other in reach[module] if module in reach[other]))
             for module in graph if module in reach[module]}
    return [list(circle) for circle in sorted(found)]


def test_no_import_runs_in_a_circle():
    assert circles(imports_of(project())) == []


@pytest.mark.parametrize("sources, found", [
    ({"a": "import b", "b": "import a"}, [["a", "b"]]),
    ({"a": "def late():\n    from p import b", "p": "", "p.b": "from p.c import x", "p.c": "from a import y"},
     [["a", "p.b", "p.c"]]),
    ({"p": "from p.a import x", "p.a": "import b", "b": "from p.c import y", "p.c": ""}, [["b", "p", "p.a"]]),
    ({"p": "from p.a import x", "p.a": "from p.b import y", "p.b": "import torch"}, []),
    ({"a": "import b", "b": "import c", "c": "", "d": "import a, b, c"}, []),
])
def test_a_planted_circle_is_found(sources, found):
    assert circles(imports_of(sources)) == found


def test_the_reference_shares_nothing_but_the_configuration():
    for path in (REPOSITORY / "reference").glob("*.py"):
        ours = {name for name in imported(path.read_text(), module_name(path)) if within(name, OURS)}
        assert all(within(name, ("reference", "scratch.config")) for name in ours), path


@pytest.mark.parametrize("source, module", [
    ("from scratch.objective.matcher import HungarianMatcher", "scratch.model.detr"),
    ("import scratch.model.detr", "scratch.objective.criterion"),
    ("from scratch.ops.conv2d import conv2d", "scratch.data.coco"),
    ("from scratch.ops import linear", "scratch.evaluation.coco_eval"),
    ("from ..config import PRESETS", "scratch.ops.linear"),
    ("from reference import build_reference", "scratch.model.detr"),
    ("def late():\n    from scratch.model import detr", "scratch.training.loop"),
    ("import detr_scratch", "scratch.analysis.charts"),
    ("from commands.opening import parameter_count", "scratch.analysis.charts"),
])
def test_a_planted_import_is_found(source, module):
    assert strangers(source, module)


@pytest.mark.parametrize("source, module", [
    ("from scratch.ops.linear import linear", "scratch.ops.attention"),
    ("from .backbone import ResNet", "scratch.model.detr"),
    ("from scratch.ops.boxes import box_iou", "scratch.evaluation.coco_eval"),
    ("from scratch.ops import boxes", "scratch.data.coco"),
    ("import torch, json", "scratch.ops.linear"),
])
def test_an_allowed_import_is_not_reported(source, module):
    assert strangers(source, module) == set()
