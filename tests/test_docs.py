"""The documents: no dead link, a short README, commands that exist, figures that are the measured ones."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from commands.command_line import OTHER_COMMANDS
from tests.conftest import REPOSITORY

MOST_BYTES = 8 * 1024  # of the README
MADE_LATER = {"docs/chaos.md"}  # by `make test-chaos`
SCRATCH_FOLDERS = ("ops", "model", "objective", "data", "training", "evaluation", "analysis", "weights")
FOLDERS = ("scratch", "tests", "benchmarks", "commands", "reference", "docs", "hyper_parameter_tuning_charts")
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").glob("*.md")),
         *sorted((REPOSITORY / "hyper_parameter_tuning_charts").rglob("*.md")),
         *sorted((REPOSITORY / "tests").rglob("*.md"))]
OURS = [page for page in PAGES if page.parent in (REPOSITORY, REPOSITORY / "docs")]


def name(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    found: list[str] = []
    for heading in re.findall(r"^#{1,6} +(.*?) *#*$", without_code(text), re.M):
        heading = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        again = sum(re.fullmatch(re.escape(anchor) + r"(-\d+)?", other) is not None for other in found)
        found.append(f"{anchor}-{again}" if anchor in found else anchor)
    return set(found)


def dead_links(page: Path, text: str) -> list[str]:
    """The links of a page to files, or headings in files, that are not there."""
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(text)):
        if re.match(r"https?://", target):
            continue
        file, _, anchor = target.partition("#")
        path = page if file in ("", page.name) else page.parent / file
        if name_if_inside(path) in MADE_LATER:
            continue
        if not path.exists():
            dead.append(target)
        elif anchor and path.suffix == ".md":
            if anchor not in anchors(text if path == page else path.read_text(encoding="utf-8")):
                dead.append(target)
        elif anchor:
            dead.append(f"{target}: no headings in such a file")
    return dead


def name_if_inside(path: Path) -> str:
    path = path.resolve()
    return str(path.relative_to(REPOSITORY)) if path.is_relative_to(REPOSITORY) else str(path)


def dead_paths(text: str) -> list[str]:
    """What stands in backticks, looks like a file or folder of the project, and is none."""
    dead = []
    for word in re.findall(r"`([\w./]+/[\w./]*)`", text):
        first = word.split("/")[0]
        inside = first in SCRATCH_FOLDERS or (first in FOLDERS)
        roots = [REPOSITORY, REPOSITORY / "scratch"]
        if inside and word not in MADE_LATER and not any(
                (root / f"{word}{end}").exists() for root in roots for end in ("", ".py")):
            dead.append(word)
    return dead


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_no_link_is_dead(page: Path) -> None:
    dead = dead_links(page, page.read_text(encoding="utf-8"))
    assert not dead, dead


@pytest.mark.parametrize("page", OURS, ids=name)
def test_every_file_that_is_named_is_there(page: Path) -> None:
    dead = dead_paths(page.read_text(encoding="utf-8"))
    assert not dead, dead


@pytest.mark.parametrize("page", OURS, ids=name)
def test_every_command_that_is_named_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    known = {*OTHER_COMMANDS, "train", "finetune"}
    named = set(re.findall(r"python detr_scratch\.py ([a-z][\w-]*)", text))
    assert named <= known, named - known
    targets = set(re.findall(r"^(\S+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.M))
    named = set(re.findall(r"`make ([a-z-]+)", text)) | set(re.findall(r"^make ([a-z-]+)", text, re.M))
    assert named <= targets, named - targets
    for module in re.findall(r"python -m ([\w.]+)", text):
        path = REPOSITORY / module.replace(".", "/")
        assert module in ("pytest", "pip", "venv") or path.with_suffix(".py").is_file() or (path / "__init__.py").is_file(), module


def test_the_commands_that_tell_the_layout_are_those_of_the_page() -> None:
    page = (REPOSITORY / "docs" / "using.md").read_text(encoding="utf-8")
    of_page, alone = re.search(r"takes the folder as the tool wrote it\.(.*?)say in one line(.*?)\. In the table", page,
                               re.S).groups()
    folder = REPOSITORY / "commands"
    first = {path: path.relative_to(folder).parts[0].removesuffix(".py").replace("_", "-")
             for path in folder.rglob("*.py") if path.name != "opening.py"
             and re.search(r"\bprepare_data\(|\blayout\.line\(|\breport\.layout\b", path.read_text(encoding="utf-8"))}
    tell = {{"evaluate": "eval"}.get(name, name) for name in first.values()}
    assert "prepare_data(" in (REPOSITORY / "detr_scratch.py").read_text(encoding="utf-8")
    assert set(re.findall(r"`([a-z-]+)`", of_page + alone)) == tell | {"train", "finetune"}


def test_the_readme_is_short() -> None:
    assert len((REPOSITORY / "README.md").read_bytes()) <= MOST_BYTES


def test_the_readme_names_the_commands_and_links_every_document() -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    for command in ("make demo", "make test", "make test-machines", "make test-chaos"):
        assert f"`{command}`" in text or f"\n{command} " in text, command
    for page in OURS:
        assert page.name == "README.md" or f"]({name(page)})" in text or page.name == "chaos.md", name(page)


def test_the_readme_tells_the_results_of_the_documents() -> None:
    readme, results, speed = ((REPOSITORY / page).read_text(encoding="utf-8")
                              for page in ("README.md", "docs/results.md", "docs/speed.md"))
    charts = REPOSITORY / "hyper_parameter_tuning_charts"
    demo = json.loads((charts / "tiny" / "learning_curve.json").read_text(encoding="utf-8"))[0]
    AP, AP50, AP75 = (f"{name} {demo['evaluation'][name][-1]:.3f}" for name in ("AP", "AP50", "AP75"))
    assert f"{demo['evaluation']['minutes'][-1]:.1f} minutes: val {AP}, {AP50} |" in readme
    assert f"val {AP}, {AP50}, {AP75} after {demo['steps']:,} steps" in results
    vanilla, = (run for run in json.loads((charts / "vanilla" / "learning_curve.json").read_text(encoding="utf-8"))
                if run["name"] == "tiny_vanilla")
    assert f"AP {vanilla['evaluation']['AP'][-1]:.3f} in {vanilla['steps']:,} steps" in readme.replace("\n  ", " ")
    assert "| val AP 0.013, AP50 0.040 (best of all evaluations: 0.042)" in results
    ratios = [r["ratio"]["step"] for name in ("training_step", "training_step_avx2") for r in json.loads(
        (REPOSITORY / "benchmarks" / f"{name}.json").read_text(encoding="utf-8"))["results"]]
    assert f"{min(ratios):.2f} to {max(ratios):.2f} times" in readme.replace("\n  ", " ")
    assert "2.7 times as long" in readme and "| 0.38 s | 0.14 s | 2.73 |" in speed


def test_ratios_of_the_counted_step_are_everywhere_those_of_the_page_that_counts() -> None:
    counted = (REPOSITORY / "docs" / "gpu_estimate.md").read_text(encoding="utf-8")
    rows = {name: [cell.strip() for cell in line.split("|")[2:-1]] for line in counted.splitlines()
            for name in ("forward and backward", "the whole step") if line.startswith(f"| ours ÷ torch.nn, {name} |")}
    passes, step = rows["forward and backward"], rows["the whole step"]
    pages = {name: (REPOSITORY / name).read_text(encoding="utf-8")
             for name in ("README.md", "docs/speed.md", "docs/questions.md")}
    for name, column in (("kernel launches", 0), ("bytes", 1), ("kernel time on an H100, estimated", 7),
                         ("kernel time on a T4, estimated", 4)):
        assert f"| {name} | {passes[column]} | {step[column]} |" in pages["docs/speed.md"]
    assert f"by count {step[0]} times as many" in pages["docs/questions.md"]
    assert f"moves {float(passes[1]):.1f} times the bytes" in pages["README.md"]
    times = list(map(float, step[4:]))
    assert f"the kernels of a step with its optimizer take {min(times):.1f} to {max(times):.1f} times as long" in pages["README.md"]
    seconds = re.search(r"A step of ours, estimated: T4 ([\d.]+) s", counted)
    assert seconds and f"an estimated {seconds[1]} s on a T4" in pages["docs/speed.md"]


def test_every_file_of_the_commands_the_benchmarks_and_the_reference_is_on_the_map() -> None:
    text = (REPOSITORY / "docs" / "map.md").read_text(encoding="utf-8")
    for folder in ("commands", "benchmarks", "reference"):
        for path in (REPOSITORY / folder).rglob("*.py"):
            assert path.stem == "__init__" or f"`{path.stem}`" in text, path


def test_the_citation_has_what_its_format_demands() -> None:
    yaml = pytest.importorskip("yaml")  # optuna brings it
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    # https://github.com/citation-file-format/citation-file-format, schema 1.2.0
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert set(citation) <= {"abstract", "authors", "cff-version", "commit", "contact", "date-released", "doi",
                             "identifiers", "keywords", "license", "license-url", "message", "preferred-citation",
                             "references", "repository", "repository-artifact", "repository-code", "title", "type",
                             "url", "version"}
    assert citation["cff-version"] == "1.2.0" and citation["type"] == "software" and citation["license"] == "MIT"
    assert citation["authors"] == [{"name": "The DETR from scratch authors"}]
    for work in citation["references"]:
        assert {"type", "title", "authors"} <= set(work)


@pytest.mark.parametrize("text, dead", [
    ("[a](README.md)", 0), ("[a](docs)", 0), ("[a](docs/speed.md#on-a-gpu)", 0), ("[a](README.md#x)\n# X", 0),
    ("![a](docs/pictures/architecture.png)", 0),
    ("[a](https://example.org/nowhere)", 0), ("```\n[a](nowhere.md)\n```", 0), ("[a](#here)\n## Here", 0),
    ("[a](nowhere.md)", 1), ("![a](docs/none.png)", 1), ("[a](README.md#nothing)", 1), ("[a](#there)\n## Here", 1),
    ("[a](Makefile#demo)", 1),
])
def test_a_planted_dead_link_is_found(text: str, dead: int) -> None:
    assert len(dead_links(REPOSITORY / "README.md", text)) == dead


def test_anchors_are_githubs() -> None:
    text = "# A b, c: d?\n## `x_y` and [z](q.md)\n## Twice\n## Twice\n```\n# code\n```\n"
    assert anchors(text) == {"a-b-c-d", "x_y-and-z", "twice", "twice-1"}


@pytest.mark.parametrize("word, dead", [("ops/linear", 0), ("scratch/ops/linear.py", 0), ("docs/", 0), ("ops/none", 1),
                                        ("tests/none.py", 1), ("train2017/", 0), ("runs/x", 0), ("docs/chaos.md", 0)])
def test_a_planted_dead_path_is_found(word: str, dead: int) -> None:
    assert len(dead_paths(f"see `{word}`")) == dead
