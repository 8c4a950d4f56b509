"""mutation: how much of the arithmetic do the tests really hold?

A mutant is the program with one small fault: a + becomes −, a < becomes ≤, a bound of a slice is left out. The tests
that mirror its module *kill* it (one of them fails) or let it *survive*: then no claim holds that piece of the code, or
the change has no effect that anybody could see (an *equivalent* mutant, each with its reason in
mutation_equivalent.json).

    python -m tests.mutation --sample 800            draw 800 mutants by a seed and test them (can be resumed)
    python -m tests.mutation --list scratch/ops/beyond/nms.py
    python -m tests.mutation --again                 test the survivors again, after new claims
    python -m tests.mutation --table                 the table of docs/mutation.md, from the results

Importing torch takes seconds, and a mutant is judged in less. So the parent imports what the tests import, except the
project itself, starts pytest, and forks where pytest would collect: each child imports the mutated module in place of
the file and stops at the first test that fails. Of the mirrored tests it runs those that reach the mutated statement
(a first run on the module as it is notes which do); those that killed most, then the quickest, come first. A child has
a limit of processor time, not of the clock, so that a busy machine changes no verdict. Unix only, as it forks.
"""

from __future__ import annotations

import argparse
import ast
import copy
import gc
import importlib
import importlib.abc
import importlib.util
import json
import math
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Callable

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
RESULTS = REPOSITORY / "tests" / "mutation_results.json"
EQUIVALENT = REPOSITORY / "tests" / "mutation_equivalent.json"
# No operation, and fixtures import it before a fault is planted: no test would see the fault.
UNSEEN = (REPOSITORY / "scratch" / "ops" / "fast" / "switch.py",)
PROJECT = ("scratch", "reference", "benchmarks", "commands", "tests", "detr_scratch", "conftest")

ATTENTIONS = ("tests/ops/test_attention.py", "tests/ops/fast/test_attention.py")
CONVOLUTIONS = ("tests/ops/test_conv2d.py", "tests/ops/fast/test_convolution.py")

# Modules whose mirrored tests are not (only) in the file of the same name.
MIRRORS = {
    "scratch/ops/attention.py": ATTENTIONS,
    "scratch/ops/fast/attention.py": (*ATTENTIONS, "tests/ops/fast/test_tiled_attention.py"),
    "scratch/ops/conv2d.py": CONVOLUTIONS,
    "scratch/ops/fast/convolution.py": CONVOLUTIONS,
    "scratch/ops/fast/activations.py": (
        "tests/ops/fast/test_activations.py", "tests/ops/test_activations.py", "tests/ops/test_in_place.py"),
    "scratch/ops/activations.py": ("tests/ops/test_activations.py", "tests/ops/test_in_place.py"),
    "scratch/ops/dropout.py": ("tests/ops/test_dropout.py", "tests/ops/test_in_place.py"),
    "scratch/ops/batch_norm.py": ("tests/ops/test_batch_norm.py", "tests/ops/test_in_place.py"),
    "scratch/ops/fast/columns.py": ("tests/ops/fast/test_columns.py", *CONVOLUTIONS),
    "scratch/ops/fast/shifted.py": ("tests/ops/fast/test_shifted.py", *CONVOLUTIONS),
    "scratch/ops/fast/rows.py": ("tests/ops/fast/test_rows.py", *CONVOLUTIONS),
    "scratch/ops/fast/winograd.py": ("tests/ops/fast/test_winograd.py", *CONVOLUTIONS),
    "scratch/ops/fast/hungarian.py": ("tests/ops/test_hungarian.py", "tests/ops/fast/test_doors.py"),
    "scratch/ops/fast/overlap.py": ("tests/ops/fast/test_overlap.py", "tests/ops/fast/test_max_pool.py"),
    "scratch/training/optimizer.py": ("tests/training/test_optimizer.py", "tests/training/test_muon.py"),
    "scratch/training/fast_adamw.py": ("tests/training/test_fast_adamw.py", "tests/training/test_optimizer.py"),
    "scratch/evaluation/coco_eval.py": ("tests/evaluation/test_postprocess.py", "tests/evaluation/test_coco_eval.py"),
    "scratch/objective/matcher.py": ("tests/objective/test_matcher.py", "tests/objective/test_variant.py"),
}

# Left out: a test whose processes import the file and not the mutant, and a test of time, which tracing would fail.
LEFT_OUT = (
    "tests/objective/test_criterion.py::test_the_mean_over_two_ranks_is_the_joint_batch_in_value_and_gradient",
    "tests/ops/test_hungarian.py::test_a_detectors_100_by_20_cost_takes_at_most_two_milliseconds")


def modules() -> list[str]:
    """The modules under test, as paths from the repository's root."""
    found = [path for folder in ("ops", "objective") for path in sorted((REPOSITORY / "scratch" / folder).rglob("*.py"))]
    paths = [str(path.relative_to(REPOSITORY)) for path in found if path.name != "__init__.py" and path not in UNSEEN]
    return paths + [f"scratch/training/{name}.py" for name in ("optimizer", "fast_adamw", "schedule", "muon")] + [
        "scratch/evaluation/coco_eval.py"]


def mirrored_tests(module: str) -> tuple[str, ...]:
    """The tests of a module; those of a fast version are also its note's, which run with and without it."""
    if module in MIRRORS:
        return MIRRORS[module]
    path = Path(module)
    own = Path("tests", *path.parts[1:-1], f"test_{path.name}")
    of_the_note = own.parent.parent / own.name if path.parent.name == "fast" else own
    return tuple(str(file) for file in dict.fromkeys((own, of_the_note)) if (REPOSITORY / file).exists())


# -- the faults ------------------------------------------------------------------------------------------------------

ARITHMETIC = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
              ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.MatMult: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
              ast.BitXor: ast.BitAnd, ast.LShift: ast.RShift, ast.RShift: ast.LShift}
COMPARISON = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
              ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In}
PAIRS = (("max", "min"), ("amax", "amin"), ("argmax", "argmin"), ("maximum", "minimum"), ("clamp_min", "clamp_max"),
         ("floor", "ceil"), ("any", "all"), ("sin", "cos"), ("zeros", "ones"), ("new_zeros", "new_ones"),
         ("zeros_like", "ones_like"))
OTHER = {a: b for pair in PAIRS for a, b in (pair, pair[::-1])}
COMMUTATIVE = {"max", "min", "maximum", "minimum"}  # swapping their arguments is the same program


@dataclass(frozen=True)
class Mutant:
    """One fault: which, and where. `source` is not part of its identity, so that it survives the moving of lines."""

    module: str
    scope: str  # the function or class, dotted
    text: str  # the statement's source line, stripped
    operator: str
    change: str  # "before → after"
    copy: int  # a line may hold the same change more than once
    line: int
    tree: Callable[[], ast.Module]  # makes the mutated module
    reached_by: tuple[int, int] | None = None  # lines of its statement; None: it runs when the module is imported

    @property
    def key(self) -> tuple:
        return (self.module, self.scope, self.text, self.operator, self.change, self.copy)


def _changes(node: ast.AST, parent: ast.AST | None):
    """Yield (operator, node → replacement) for each fault that can be planted at this node. None: delete it."""
    if isinstance(node, (ast.BinOp, ast.AugAssign)) and type(node.op) in ARITHMETIC:
        yield "arithmetic", _with(node, op=ARITHMETIC[type(node.op)]())
    if isinstance(node, ast.Compare):
        for i, op in enumerate(node.ops):
            yield "comparison", _with(node, ops=[*node.ops[:i], COMPARISON[type(op)](), *node.ops[i + 1:]])
    if isinstance(node, ast.BoolOp):
        yield "and/or", _with(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
    if isinstance(node, (ast.If, ast.While, ast.IfExp)):
        yield "condition negated", _with(node, test=ast.UnaryOp(ast.Not(), node.test))
    if isinstance(node, ast.comprehension):
        for i, test in enumerate(node.ifs):
            ifs = [*node.ifs[:i], ast.UnaryOp(ast.Not(), test), *node.ifs[i + 1:]]
            yield "condition negated", _with(node, ifs=ifs)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub, ast.Invert)):
        yield {ast.Not: "not removed", ast.USub: "minus removed", ast.Invert: "~ removed"}[type(node.op)], node.operand
    if isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield "True/False", ast.Constant(not node.value)
        elif isinstance(node.value, int):
            yield "constant", ast.Constant(node.value + 1)
            if node.value > 0:
                yield "constant", ast.Constant(node.value - 1)
        elif isinstance(node.value, float):
            yield "constant", ast.Constant(2 * node.value if node.value else 1.0)
        elif isinstance(node.value, str):
            yield "text", ast.Constant(node.value + "!")
    if isinstance(node, ast.Call):
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        first = [ast.dump(argument) for argument in node.args[:2]]
        starred = any(isinstance(argument, ast.Starred) for argument in node.args[:2])
        if len(first) == 2 and first[0] != first[1] and name not in COMMUTATIVE and not starred:
            yield "arguments swapped", _with(node, args=[node.args[1], node.args[0], *node.args[2:]])
        if name in OTHER:
            func = copy.copy(node.func)
            setattr(func, "id" if isinstance(func, ast.Name) else "attr", OTHER[name])
            yield "function", _with(node, func=func)
    if isinstance(node, ast.Slice):
        for bound in ("lower", "upper", "step"):
            if getattr(node, bound) is not None:
                yield "slice bound removed", _with(node, **{bound: None})
    if isinstance(node, ast.Return) and node.value is not None:
        if not (isinstance(node.value, ast.Constant) and node.value.value is None):
            yield "return None", _with(node, value=ast.Constant(None))
    if isinstance(node, (ast.Expr, ast.AugAssign, ast.Raise, ast.Continue, ast.Break)):
        yield "statement dropped", ast.Pass()


def _with(node: ast.AST, **fields) -> ast.AST:
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


def _is_left_alone(node: ast.AST) -> bool:
    """Texts for people (docstrings, f-strings), and what only a module that is run as a program does."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.If) and "__name__" in ast.unparse(node.test))


def _children(node: ast.AST):
    """(field, index or None, child) of all children that are looked at: not annotations, messages and docstrings."""
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns") or (isinstance(node, ast.Assert) and field == "msg"):
            continue
        if isinstance(node, ast.Raise):
            continue
        for i, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(child, ast.AST) and not _is_left_alone(child):
                yield field, i, child


def _short(node: ast.AST) -> str:
    """A node as one line of text: of a compound statement its head, of a long one its beginning."""
    if isinstance(node, ast.comprehension):
        node = ast.Tuple([node.target, node.iter, *node.ifs], ast.Load())
    if isinstance(node, ast.Slice):
        node = ast.Subscript(ast.Name("", ast.Load()), node, ast.Load())
    return ast.unparse(ast.fix_missing_locations(copy.copy(node))).split("\n")[0]


def mutants_of(source: str, module: str = "") -> list[Mutant]:
    """All faults that can be planted in a module, in the order of its text."""
    lines, tree, found, seen = source.split("\n"), ast.parse(source), [], Counter()

    def walk(node: ast.AST, scope: tuple[str, ...], statement: ast.AST | None, inside: bool) -> None:
        for field, i, child in _children(node):
            in_function = inside or (isinstance(node, ast.FunctionDef) and field == "body")
            inner = statement if not isinstance(child, ast.stmt) else child
            name = getattr(child, "name", None) if isinstance(
                child, (ast.FunctionDef, ast.ClassDef)) else None
            for operator, changed in _changes(child, node):
                line = getattr(child, "lineno", None) or inner.lineno
                text, change = lines[line - 1].strip(), f"{_short(child)} → {_short(changed)}"
                where = (module, ".".join(scope), text, operator, change)
                mutated = partial(_replaced, tree, node, field, i, changed)
                found.append(Mutant(*where, seen[where], line, mutated, _reach(inner) if in_function else None))
                seen[where] += 1
            walk(child, (*scope, name) if name else scope, inner, in_function)

    walk(tree, (), None, False)
    return found


def _reach(statement: ast.stmt) -> tuple[int, int]:
    """First and last line of a statement; of a compound one, of its head."""
    body = getattr(statement, "body", None)
    return statement.lineno, max(statement.lineno, body[0].lineno - 1) if body else statement.end_lineno


def _replaced(tree: ast.Module, parent: ast.AST, field: str, i: int | None, new: ast.AST) -> ast.Module:
    """A copy of the tree, in which `new` stands where the parent's field (at index i) stood. The rest is shared."""
    changed = copy.copy(parent)
    value = getattr(parent, field)
    old = value if i is None else value[i]
    new = ast.copy_location(new, old) if hasattr(old, "lineno") and new is not None else new
    setattr(changed, field, new if i is None else [*value[:i], new, *value[i + 1:]])

    def along(node: ast.AST) -> ast.AST:
        if node is parent:
            return changed
        for name, child in ast.iter_fields(node):
            for k, item in enumerate(child) if isinstance(child, list) else [(None, child)]:
                if isinstance(item, ast.AST) and (other := along(item)) is not item:
                    return _with(node, **{name: other if k is None else [*child[:k], other, *child[k + 1:]]})
        return node

    return ast.fix_missing_locations(along(tree))


def draw(everything: dict[str, list[Mutant]], sample: int | None, seed: int) -> list[Mutant]:
    """All mutants, or `sample` of them: each module gives its share (largest remainders), drawn by the seed."""
    total = sum(map(len, everything.values()))
    if sample is None or sample >= total:
        return [mutant for mutants in everything.values() for mutant in mutants]
    exact = {module: sample * len(mutants) / total for module, mutants in everything.items()}
    quota = {module: int(share) for module, share in exact.items()}
    by_remainder = sorted(exact, key=lambda module: quota[module] - exact[module])
    for module in by_remainder[:sample - sum(quota.values())]:
        quota[module] += 1
    drawn = []
    for module, mutants in everything.items():
        order = list(range(len(mutants)))
        random.Random(f"{seed} {module}").shuffle(order)  # a larger sample holds the smaller one
        drawn += [mutants[i] for i in sorted(order[:quota[module]])]
    return drawn


# -- the verdicts ----------------------------------------------------------------------------------------------------

class InPlace(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from a tree instead of its file; everything that imports it gets the mutant."""

    def __init__(self, path: Path, name: str, tree: ast.Module):
        self.path, self.name, self.tree = path, name, tree

    def find_spec(self, name, path=None, target=None):
        return importlib.util.spec_from_file_location(name, self.path, loader=self) if name == self.name else None

    def create_module(self, spec):
        return None

    def exec_module(self, module) -> None:
        exec(compile(self.tree, str(self.path), "exec"), module.__dict__)


class Watch:
    """A pytest plugin for the run on the module as it is: how long a test takes, and which of its lines it reaches."""

    def __init__(self, paths: list[str], report: Path):
        self.paths, self.report, self.spent, self.lines, self.mine = set(paths), report, {}, {}, set()

    def trace(self, frame, event, argument):
        if frame.f_code.co_filename not in self.paths:
            return None
        self.mine.add((frame.f_code.co_filename, frame.f_lineno))
        return self.trace

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        self.mine = set()
        start = time.process_time()
        sys.settrace(self.trace)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            self.spent[item.nodeid] = time.process_time() - start
            self.lines[item.nodeid] = sorted(self.mine)

    def pytest_sessionfinish(self, exitstatus) -> None:
        loaded = sorted(name for name in sys.modules if name.split(".")[0] not in PROJECT)
        self.report.write_text(json.dumps({
            "code": int(exitstatus), "killer": "", "spent": self.spent, "loaded": loaded, "lines": self.lines}))
        os._exit(0)


class Hunt:
    """A pytest plugin that judges mutants: it forks when pytest is ready to collect, one child for each of them.

    A child imports the mutant, collects, takes its tests in the order given and ends at the first that fails. What all
    have in common, the start of pytest, is done once.
    """

    def __init__(self, loop: Callable[[Hunt], None]):
        self.loop, self.report, self.place = loop, Path(), {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self) -> None:
        self.loop(self)  # returns in the children only

    def pytest_collection_modifyitems(self, items) -> None:
        chosen = [item for item in items if item.nodeid in self.place]
        items[:] = sorted(chosen, key=lambda item: self.place[item.nodeid])

    def pytest_collectreport(self, report) -> None:
        if report.failed:
            self.end(1, "import")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_makereport(self, item, call) -> None:
        expected = pytest.skip.Exception, pytest.xfail.Exception
        if call.excinfo and not call.excinfo.errisinstance(expected) and not item.get_closest_marker("xfail"):
            self.end(1, item.nodeid)  # before time goes into describing the failure

    def pytest_runtest_logreport(self, report) -> None:
        if report.failed:
            self.end(1, report.nodeid)

    def pytest_sessionfinish(self, exitstatus) -> None:
        self.end(int(exitstatus), "")

    def end(self, code: int, killer: str) -> None:
        self.report.write_text(json.dumps({"code": code, "killer": killer}))
        os._exit(0)


def run_pytest(tests, plugin, root: Path) -> None:
    """In a forked process: run the tests in silence; the plugin writes what happened and ends the process."""
    os.setpgid(0, 0)
    os.chdir(root)
    sys.path.insert(0, str(root))
    quiet = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(quiet, stream)
    left_out = [f"--deselect={test}" for test in LEFT_OUT]
    pytest.main(["-x", "-q", "-s", "-p", "no:cacheprovider", *left_out, *tests], plugins=[plugin])


def no_shrinking() -> None:
    """A failure is enough: no time goes into making its example small."""
    from hypothesis import Phase, settings
    phases = [phase for phase in Phase if phase not in (Phase.shrink, Phase.explain)]
    settings.register_profile("mutation", settings.get_profile(settings.get_current_profile_name()), phases=phases)
    settings.load_profile("mutation")


def limit(cpu_seconds: float) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (int(cpu_seconds) + 1, int(cpu_seconds) + 2))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pages = Path("/proc/self/statm")
    if pages.exists():  # a mutant that asks for endless memory gets an error, and the machine keeps its own
        used = int(pages.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 6 * 2**30,) * 2)


@dataclass
class Running:
    mutant: int | None
    report: Path
    wall_end: float
    partly: bool = False  # not all of the tests that reach the mutant are run


def empty_file(folder: Path) -> Path:
    handle, name = tempfile.mkstemp(dir=folder)
    os.close(handle)
    return Path(name)


def forked(function: Callable[[], None]) -> int:
    """Run a function in a child, which ends with it; returns the child's process id."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            function()
        finally:
            os._exit(1)
    return pid


def finish(running: dict[int, Running]) -> tuple[Running, dict, int]:
    """Wait for one child: which, its report, and the signal that ended it (0: none)."""
    while True:
        for pid, one in list(running.items()):
            done, status = os.waitpid(pid, os.WNOHANG)
            late = not done and time.monotonic() > one.wall_end
            if late:
                os.killpg(pid, signal.SIGKILL)
                done, status = os.waitpid(pid, 0)
            if done:
                try:  # processes that a test started must not outlive it
                    os.killpg(pid, signal.SIGKILL)
                except (ProcessLookupError, PermissionError):
                    pass
                del running[pid]
                text = one.report.read_text()
                one.report.unlink()
                return one, json.loads(text) if text else {}, os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        time.sleep(0.05)


def verdict(report: dict, ended_by: int) -> tuple[str, str]:
    """(killed or survived, by what)."""
    if ended_by in (signal.SIGXCPU, signal.SIGKILL):
        return "killed", "time limit"
    if ended_by or not report:
        return "killed", f"crash ({signal.Signals(ended_by).name})" if ended_by else "crash"
    if report["code"] == 0:
        return "survived", ""
    if report["code"] in (1, 2):
        return "killed", report["killer"] or "import"
    raise RuntimeError(f"pytest ended with {report['code']}: neither passed nor failed")


def watch(modules: list[str], tests, root: Path = REPOSITORY) -> dict:
    """Run the tests on the modules as they are: the seconds and the lines of each test."""
    with tempfile.TemporaryDirectory() as folder:
        report = empty_file(Path(folder))
        watching = Watch([str(root / module) for module in modules], report)
        pid = forked(lambda: run_pytest(tests, watching, root))
        _, answer, ended_by = finish({pid: Running(None, report, math.inf)})
    if verdict(answer, ended_by)[0] != "survived":
        raise RuntimeError(f"{', '.join(modules)}: the tests fail without any mutation: {', '.join(tests)}")
    for loaded in answer["loaded"]:  # what a child would import, imported once; nothing of the project
        try:
            importlib.import_module(loaded)
        except Exception:
            pass
    return answer


def judge(mutants: list[Mutant], tests, seen: dict, workers: int = 1, root: Path = REPOSITORY, quick: float = math.inf,
          slack: float = 4.0):
    """Yield (mutant, verdict, killer) for each mutant, by the tests that reach it in the run that was `seen`.

    Under `quick`, so many seconds of tests are run at most, and a mutant that they do not kill is "undecided".
    """
    with tempfile.TemporaryDirectory() as folder:
        reader, writer = os.pipe()
        loop = partial(judge_all, mutants, seen, workers, root, quick, slack, Path(folder), writer)
        pid = forked(lambda: run_pytest(tests, Hunt(loop), root))
        os.close(writer)
        count = 0
        with open(reader) as lines:
            for line in lines:
                i, what, killer = json.loads(line)
                count += 1
                yield mutants[i], what, killer
        os.waitpid(pid, 0)
    if count < len(mutants):
        raise RuntimeError(f"only {count} of {len(mutants)} mutants were judged: pytest ended too early")


def judge_all(mutants: list[Mutant], seen: dict, workers: int, root: Path, quick: float, slack: float, folder: Path,
              writer: int, hunt: Hunt) -> None:
    """Where pytest is about to collect: fork a child for each mutant, in which alone this returns."""
    no_shrinking()
    gc.collect()
    gc.freeze()  # a child's collector need not copy the parent's pages
    quick_first = sorted(seen["spent"], key=seen["spent"].get)
    kills, running, queue = Counter(), {}, list(enumerate(mutants))

    def tell(i: int, what: str, killer: str) -> None:
        os.write(writer, (json.dumps([i, what, killer]) + "\n").encode())

    while queue or running:
        while queue and len(running) < workers:
            i, mutant = queue.pop(0)
            every = [test for test in quick_first if reaches(seen["lines"][test], mutant, root)]
            every.sort(key=lambda test: -kills[test])
            sums = list(accumulate(seen["spent"][test] for test in every))
            chosen = [test for test, total in zip(every, sums) if total <= quick] or every[:1]
            if not chosen:
                tell(i, "survived", "no test reaches it")
                continue
            cpu_seconds = 4 * sums[len(chosen) - 1] + slack
            report = empty_file(folder)
            pid = os.fork()
            if pid == 0:
                os.setpgid(0, 0)
                limit(cpu_seconds)
                name = mutant.module.removesuffix(".py").replace("/", ".")
                sys.meta_path.insert(0, InPlace(root / mutant.module, name, mutant.tree()))
                hunt.report, hunt.place = report, {test: place for place, test in enumerate(chosen)}
                return
            running[pid] = Running(i, report, time.monotonic() + 60 * cpu_seconds, len(chosen) < len(every))
        if running:
            one, answer, ended_by = finish(running)
            what, killer = verdict(answer, ended_by)
            kills[killer] += what == "killed"
            tell(one.mutant, "undecided" if what == "survived" and one.partly else what, killer)
    os._exit(0)


def reaches(lines: list, mutant: Mutant, root: Path) -> bool:
    if mutant.reached_by is None:
        return True
    first, last = mutant.reached_by
    path = str(root / mutant.module)
    return any(first <= line <= last for file, line in lines if file == path)


# -- results ---------------------------------------------------------------------------------------------------------

FIELDS = ("module", "scope", "text", "operator", "change", "copy")


def read_results(path: Path) -> dict[tuple, dict]:
    rows = json.loads(path.read_text())["mutants"] if path.exists() else []
    return {tuple(row[field] for field in FIELDS): row for row in rows}


def write_results(path: Path, results: dict[tuple, dict], seed: int) -> None:
    rows = [json.dumps(row, ensure_ascii=False) for row in results.values()]
    text = json.dumps({"seed": seed})[:-1] + ', "mutants": [\n' + ",\n".join(rows) + "\n]}\n"
    part = path.with_suffix(".part")
    part.write_text(text)
    part.replace(path)


def equivalents(path: Path = EQUIVALENT) -> dict[tuple, str]:
    """key → reason, of the mutants that were shown to change nothing that can be seen."""
    groups = json.loads(path.read_text()) if path.exists() else []
    return {(group["module"], *mutant): group["reason"] for group in groups for mutant in group["mutants"]}


def table(results: dict[tuple, dict], reasons: dict[tuple, str]) -> str:
    """Markdown: for each module mutants, killed, survivors, equivalents, and the two shares."""
    lines = ["| module | mutants | killed | equivalent | not killed | killed of all | killed of the not equivalent |",
             "|---|---:|---:|---:|---:|---:|---:|"]
    by_module: dict[str, list] = {}
    for key, row in results.items():
        by_module.setdefault(row["module"], []).append((row["verdict"] == "killed", key in reasons))

    def line(name: str, rows: list) -> str:
        killed = sum(dead for dead, _ in rows)
        same = sum(equal and not dead for dead, equal in rows)
        share = f"{killed / (len(rows) - same):.1%}" if len(rows) > same else "–"
        return (f"| {name} | {len(rows)} | {killed} | {same} | {len(rows) - killed - same} | "
                f"{killed / len(rows):.1%} | {share} |")

    there = modules()
    order = [module for module in there if module in by_module] + sorted(set(by_module) - set(there))  # moved since
    lines += [line(module.removeprefix("scratch/"), by_module[module]) for module in order]
    return "\n".join(lines + [line("all", [row for rows in by_module.values() for row in rows])])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", help="only these files (default: all under test)")
    parser.add_argument("--sample", type=int, help="draw so many, in proportion over the modules (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (default 0)")
    parser.add_argument("--workers", type=int, default=1, help="mutants tested at a time (default 1)")
    parser.add_argument("--results", type=Path, default=RESULTS, help=f"default {RESULTS.relative_to(REPOSITORY)}")
    parser.add_argument("--quick", type=float, default=math.inf, metavar="SECONDS",
                        help="tests of so many seconds at most for a mutant; what survives them is undecided")
    parser.add_argument("--again", action="store_true", help="test those that are not killed again, after new claims")
    parser.add_argument("--tests", metavar="EXPRESSION",
                        help="only tests whose names match (as pytest -k); what they do not kill stays as it is")
    parser.add_argument("--list", action="store_true", help="print the mutants, run nothing")
    parser.add_argument("--survivors", action="store_true", help="print those that survived and are not judged yet")
    parser.add_argument("--table", action="store_true", help="print the table of the results")
    options = parser.parse_args(arguments)
    results, reasons = read_results(options.results), equivalents()
    if options.table:
        print(table(results, reasons))
        return
    if options.survivors:
        for key, row in results.items():
            if row["verdict"] != "killed" and key not in reasons and (
                    not options.modules or row["module"] in options.modules):
                print(f"{row['module']}:{row['line']} {row['scope']} [{row['operator']}] {row['change']}\n"
                      f"    {row['text']}")
        return
    unknown = set(options.modules) - set(modules())
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))}: not under test; there are: {', '.join(modules())}")
    everything = {module: mutants_of((REPOSITORY / module).read_text(), module) for module in modules()}
    chosen = [mutant for mutant in draw(everything, options.sample, options.seed)
              if not options.modules or mutant.module in options.modules]
    if options.list:
        for mutant in chosen:
            print(f"{mutant.module}:{mutant.line} {mutant.scope} [{mutant.operator}] {mutant.change}")
        print(f"{len(chosen)} mutants")
        return
    if options.again:
        chosen = [mutant for mutant in chosen if mutant.key in results
                  and results[mutant.key]["verdict"] != "killed" and mutant.key not in reasons]
    else:
        chosen = [mutant for mutant in chosen if mutant.key not in results]
    import torch  # imported once, before the forks
    torch.set_num_threads(1)
    by_tests: dict[tuple[str, ...], list[Mutant]] = {}
    for mutant in chosen:
        by_tests.setdefault(mirrored_tests(mutant.module), []).append(mutant)
    for tests, mutants in by_tests.items():
        tests = (*tests, "-k", options.tests) if options.tests else tests
        seen = watch(sorted({mutant.module for mutant in mutants}), tests)
        for mutant, what, killer in judge(mutants, tests, seen, options.workers, quick=options.quick):
            if options.tests and what != "killed":
                continue
            results[mutant.key] = dict(zip(FIELDS, mutant.key), line=mutant.line, verdict=what, killer=killer)
            write_results(options.results, results, options.seed)
            print(f"{what:9} {mutant.module}:{mutant.line} [{mutant.operator}] {mutant.change[:90]}  "
                  f"{killer.split('::')[-1]}", flush=True)
    print(table(results, reasons))


if __name__ == "__main__":
    main()
