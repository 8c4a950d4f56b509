"""Who may enter which room: the packages of scratch/ import only what the design allows them."""

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
    "scratch.whole_file": (),
    "scratch.printable": (),
    "scratch.only_one": (),
    "scratch.program": ("scratch.printable",),
    "scratch.blueprint": ("scratch.config", "scratch.model", "scratch.training"),
    "scratch.detector": ("scratch.blueprint", "scratch.config", "scratch.data", "scratch.evaluation", "scratch.model",
                         "scratch.training", "scratch.weights"),
    "scratch.weights": ("scratch.blueprint", "scratch.config", "scratch.training.checkpoint",
                        "scratch.training.content"),
    "scratch.model": ("scratch.ops", "scratch.config"),
    "scratch.objective": ("scratch.ops", "scratch.config"),
    "scratch.data": ("scratch.ops.boxes", "scratch.config"),
    "scratch.training": ("scratch.config",),
    "scratch.evaluation": ("scratch.ops.boxes",),
    "scratch.analysis": (),
}
# Leaves that import nothing but each other: every room but the notes, the model and the objective may use them.
LEAVES = ("scratch.whole_file", "scratch.printable", "scratch.program", "scratch.only_one")
OURS = ("scratch", "reference", "benchmarks", "tests", "commands", "detr_scratch")
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
def test_a_module_imports_only_what_its_room_may(module):
    assert strangers(MODULES[module], module) == set()


@pytest.mark.parametrize("module", [m for m in MODULES if within(m, PLAIN)])
def test_the_notes_stand_on_torch_and_numpy_alone(module):
    package = ".".join(module.split(".")[:2])
    roots = {name.split(".")[0] for name in imported(MODULES[module], module)} - set(OURS)
    assert roots - PLAIN[package] - set(sys.stdlib_module_names) == set()


def test_the_table_names_every_room():
    assert {".".join(module.split(".")[:2]) for module in MODULES if module != "scratch"} == set(MAY_IMPORT)


def test_nothing_but_tests_imports_the_command_line():
    folders = ("scratch", "reference", "benchmarks", "commands")
    for path in [path for folder in folders for path in (REPOSITORY / folder).rglob("*.py")]:
        names = imported(path.read_text(), module_name(path))
        assert not any(within(name, ("detr_scratch", "tests")) for name in names), path


def test_the_reference_shares_nothing_but_the_configuration():
    for path in (REPOSITORY / "reference").glob("*.py"):
        ours = {name for name in imported(path.read_text(), module_name(path)) if within(name, OURS)}
        assert all(within(name, ("reference", "scratch.config")) for name in ours), path


@pytest.mark.parametrize("source, module", [
    ("from scratch.objective.matcher import HungarianMatcher", "scratch.model.detr"),
    ("import scratch.model.detr", "scratch.objective.criterion"),
    ("from scratch.ops.conv2d import conv2d", "scratch.data.coco"),
    ("from scratch.ops import linear", "scratch.evaluation.postprocess"),
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
def test_an_allowed_import_is_left_in_peace(source, module):
    assert strangers(source, module) == set()
