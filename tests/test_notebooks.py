"""The notebooks: each runs, is what its source says, and stays small enough to be committed."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

for package in ("jupytext", "nbformat", "nbclient", "ipykernel"):
    pytest.importorskip(package, reason="pip install -r requirements-more.txt -c constraints.txt (make does it)")

import nbformat  # noqa: E402
from matplotlib import pyplot as plt  # noqa: E402

from notebooks import execute as execution  # noqa: E402
from notebooks.address import address, files, move  # noqa: E402
from notebooks.execute import (  # noqa: E402
    FOLDER, NAMES, compressed, convert, execute, smaller, with_outputs_of, workplace)
from notebooks.shown import panels, source  # noqa: E402
from scratch.ops.sine_encoding import sine_code_naive, sine_encoding  # noqa: E402
from tests.conftest import REPOSITORY  # noqa: E402
from tests.test_docs import anchors  # noqa: E402
from tests.test_terms import private_words  # noqa: E402

MOST_BYTES = 1_550_000  # of all notebooks together
SECTIONS = ("Configuration and set-up", "Dataset preparation", "PyTorch dataset", "Model architecture",
            "Training utilities: metrics, losses, error analysis", "Training loop", "Execute training", "Inference",
            "Results analysis", "Summary and next steps")
ABSOLUTE = re.compile(r"(?<![\w.:/])/(?:home|root|tmp|usr|var|opt|work|content|Users|private|mnt)/|[A-Z]:\\\\")


def read(name: str) -> Any:
    return nbformat.read(FOLDER / f"{name}.ipynb", 4)


def text_of(name: str) -> str:
    return (FOLDER / f"{name}.py").read_text(encoding="utf-8")


def outputs_of(notebook: Any) -> list[Any]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


# -- what is committed -----------------------------------------------------------------------------------------------


def test_every_notebook_is_listed_and_has_both_files() -> None:
    helpers = {"__init__", "address", "execute", "shown"}
    assert {path.stem for path in FOLDER.glob("*.py")} - helpers == set(NAMES)
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(NAMES)
    page = (REPOSITORY / "docs" / "notebooks.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| \[[^]]+\]\(\.\./notebooks/(\w+)\.ipynb\)", page, re.M) == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_holds_the_cells_of_its_source(name: str) -> None:
    told, held = ([(cell.cell_type, cell.source) for cell in notebook.cells]
                  for notebook in (convert(name), read(name)))
    assert told == held, f"python -m notebooks.execute {name}"


def test_the_page_says_what_the_training_of_detr_reached() -> None:
    texts = [output.data.get("text/markdown", "") for output in outputs_of(read("detr")) if "data" in output]
    table = next(text for text in texts if text.startswith("| AP | AP50"))
    ap, ap50, _, steps, _ = (cell.strip() for cell in table.splitlines()[2].strip("|").split("|"))
    page = (REPOSITORY / "docs" / "notebooks.md").read_text(encoding="utf-8")
    assert f"reached AP {ap}, AP50 {ap50} in {steps} steps" in page


def test_the_size_that_detr_asks_its_reader_about_is_that_of_its_images() -> None:
    said = "\n".join(cell.source for cell in read("detr").cells if cell.cell_type == "markdown")
    height, width = re.search(r"The images have (\d+)×(\d+) pixels", said).groups()
    printed = "\n".join(output.get("text", "") for output in outputs_of(read("detr")))
    assert re.search(rf"^images \(B,3,H,W\) +\(2, 3, {height}, {width}\)$", printed, re.M)


@pytest.mark.parametrize("name", NAMES)
def test_the_outputs_are_of_one_complete_run_in_full(name: str) -> None:
    notebook = read(name)
    nbformat.validate(notebook)
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1)) and notebook.metadata.executed == "in full"


@pytest.mark.parametrize("name", NAMES)
def test_the_outputs_hold_no_error_no_warning_and_no_path_of_a_machine(name: str) -> None:
    notebook = read(name)
    assert not [output for output in outputs_of(notebook) if output.output_type == "error"]
    assert not [output.text for output in outputs_of(notebook) if output.get("name") == "stderr"]
    for output in outputs_of(notebook):
        texts = [output.get("text", ""), *(value for kind, value in output.get("data", {}).items()
                                           if not kind.startswith("image/"))]
        for text in map(str, texts):
            assert "Traceback" not in text and not ABSOLUTE.search(text), text[:300]


def test_the_notebooks_are_small_together() -> None:
    sizes = {name: (FOLDER / f"{name}.ipynb").stat().st_size for name in NAMES}
    assert sum(sizes.values()) <= MOST_BYTES, sizes


@pytest.mark.parametrize("text, found", [
    ("/home/me/x.py", 1), ("File /usr/lib/python3/x", 1), ("C:\\\\Users", 1), ("runs/tiny-shapes", 0),
    ("https://host/home/x", 0), ("../tmp/x", 0), ("1/home/2", 0)])
def test_a_planted_path_of_a_machine_is_found(text: str, found: int) -> None:
    assert bool(ABSOLUTE.search(text)) == found


# -- what they say ---------------------------------------------------------------------------------------------------


def test_the_first_notebook_has_the_ten_sections() -> None:
    assert re.findall(r"^# ## (\d+) (.+)$", text_of("detr"), re.M) == [
        (str(number), title) for number, title in enumerate(SECTIONS, 1)]


def test_the_first_cell_is_the_same_in_every_notebook() -> None:
    cells = [next(cell.source for cell in convert(name).cells if cell.cell_type == "code") for name in NAMES]
    assert len(set(cells)) == 1 and "REPOSITORY = " in cells[0]


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_begins_with_a_question_and_links_notes_and_proofs(name: str) -> None:
    first = convert(name).cells[0]
    assert first.cell_type == "markdown" and first.source.startswith("# ") and "?" in first.source
    if name != "detr":
        assert re.search(r"\]\(\.\./scratch/[\w/]+\.py\)", first.source)
        assert re.search(r"\]\(\.\./tests/[\w/]+\.py\)", first.source)


@pytest.mark.parametrize("name", NAMES)
def test_no_link_of_a_notebook_is_dead(name: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(name)):
        file, _, anchor = target.partition("#")
        if re.match(r"https?://", target):
            continue
        path = FOLDER / file
        assert path.is_file(), target
        assert not anchor or anchor in anchors(path.read_text(encoding="utf-8")), target


@pytest.mark.parametrize("name", NAMES)
def test_the_next_cell_answers_each_number_that_is_to_be_predicted(name: str) -> None:
    cells = read(name).cells
    asked = [(i, int(number)) for i, cell in enumerate(cells) if cell.cell_type == "markdown"
             for number in re.findall(r"\*\*Predict the number (\d+)\.\*\*", " ".join(cell.source.split()))]
    assert len(asked) >= 2 and [number for _, number in asked] == list(range(1, len(asked) + 1))
    for i, _ in asked:
        answer = cells[i + 1]
        assert answer.cell_type == "code"
        if "print(" not in answer.source:  # a cell prepares, the one after it prints
            answer = cells[i + 2]
        printed = "".join(output.text for output in answer.outputs if output.output_type == "stream")
        assert re.search(r"\d", printed), answer.source


@pytest.mark.parametrize("name", [*NAMES, "address", "shown", "execute"])
def test_a_source_has_short_lines_and_no_private_word(name: str) -> None:
    text = text_of(name)
    assert not [line for line in text.splitlines() if len(line) > 120]
    assert not private_words(text)


# -- that they run ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_from_the_first_cell_to_the_last(name: str) -> None:
    notebook = execute(convert(name), quick=True, timeout=280)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert notebook.metadata.executed == "quick"


@pytest.mark.slow
def test_a_failing_cell_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")])
    with pytest.raises(execution.CellExecutionError, match="ZeroDivisionError"):
        execute(broken, quick=True)


def setup_cell() -> str:
    return next(cell.source for cell in convert(NAMES[0]).cells if cell.cell_type == "code")


def run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("NOTEBOOK_", "GIT_"))}
    return subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)


def test_without_a_clone_the_first_cell_makes_one_once_its_address_is_known(tmp_path: Path) -> None:
    there, elsewhere = tmp_path / "there", tmp_path / "elsewhere"
    there.mkdir()
    elsewhere.mkdir()
    (there / "detr_scratch.py").write_text("told = 'imported from the clone'\n")
    (there / "requirements.txt").write_text("# nothing\n")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.example", "-C", str(there)]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        subprocess.run([*git, *words], check=True)
    unknown = setup_cell().replace(address(), "https://github.com/OWNER/detr-scratch.git")
    code = unknown + "\nimport detr_scratch\nprint(detr_scratch.told, root.name, Path.cwd() == root, QUICK)"
    refused = run(code, elsewhere)
    assert refused.returncode == 1 and "wanted the address of the repository" in refused.stderr
    with_address = re.sub(r'REPOSITORY = ".*?"', f"REPOSITORY = {there.as_uri()!r}", code)
    for _ in range(2):  # the second time it is there already
        done = run(with_address, elsewhere)
        assert done.stdout == "imported from the clone detr-scratch True False\n", done.stderr
    inside = run(code, there)  # no address is needed
    assert inside.stdout == "imported from the clone there True False\n", inside.stderr


def test_every_file_for_colab_holds_the_one_address_and_no_other_file_does() -> None:
    written = {path for pattern in ("*.md", "*.py", "docs/*.md", "notebooks/*.py", "notebooks/*.ipynb", "*.cff")
               for path in REPOSITORY.glob(pattern) if address() in path.read_text(encoding="utf-8")}
    assert written == set(files())


def test_the_address_is_changed_in_all_files_at_once(tmp_path: Path) -> None:
    for path in files():
        copy = tmp_path / path.relative_to(REPOSITORY)
        copy.parent.mkdir(exist_ok=True)
        copy.write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    new = "https://host.example/me/a.git"
    assert move(new, tmp_path) == len(files()) and address(tmp_path) == new and move(new, tmp_path) == 0
    for path, before in zip(files(tmp_path), files()):
        assert path.read_text(encoding="utf-8") == before.read_text(encoding="utf-8").replace(address(), new)


@pytest.mark.parametrize("wrong", ["me/detr-scratch", "https://github.com", 'https://host/a"b', "git@host:me/a.git"])
def test_what_is_no_address_is_refused(wrong: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="wanted the address of the repository"):
        move(wrong, tmp_path)


def test_a_workplace_has_the_project_and_neither_data_nor_runs(tmp_path: Path) -> None:
    place = workplace(tmp_path / "project")
    assert (place / "detr_scratch.py").is_file() and (place / "scratch" / "config.py").is_file()
    assert not (place / "data").exists() and not (place / "runs").exists()
    assert not (place / "notebooks").is_symlink() and (place / "notebooks" / "shown.py").is_file()
    assert not list((place / "notebooks").glob("*.ipynb"))


# -- what they are shown with ----------------------------------------------------------------------------------------


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "png")
    return file.getvalue()


def test_a_chart_stays_a_png_and_a_photograph_becomes_a_jpeg() -> None:
    chart = Image.new("RGB", (211, 173), "white")
    chart.paste((200, 0, 0), (31, 37, 151, 61))
    kind, content = compressed(png(chart))
    assert kind == "image/png" and Image.open(io.BytesIO(content)).convert("RGB").tobytes() == chart.tobytes()
    photograph = Image.open(REPOSITORY / "tests/photographs/bccd/val/BloodImage_00312.jpg")
    kind, content = compressed(png(photograph))
    assert kind == "image/jpeg" and len(content) < len(png(photograph)) / 4
    apart = np.abs(np.asarray(Image.open(io.BytesIO(content)), dtype=float) - np.asarray(photograph))
    assert apart.mean() < 3


def test_a_wide_picture_is_scaled_down_and_what_is_transparent_becomes_white() -> None:
    kind, content = compressed(png(Image.new("RGBA", (3000, 600), (0, 0, 0, 0))))
    image = Image.open(io.BytesIO(content)).convert("RGB")
    assert image.size == (execution.WIDEST, execution.WIDEST // 5) and image.getpixel((0, 0)) == (255, 255, 255)


def test_an_output_keeps_its_picture_in_one_format_and_other_outputs_as_they_are() -> None:
    encoded = base64.b64encode(png(Image.new("RGB", (5, 3), "red"))).decode()
    output = nbformat.v4.new_output("display_data", {"image/png": encoded, "image/jpeg": "…", "text/plain": "<Figure>"})
    data = smaller(output).data
    assert set(data) == {"image/png", "text/plain"} or set(data) == {"image/jpeg", "text/plain"}
    stream = nbformat.v4.new_output("stream", name="stdout", text="3.5\n")
    assert smaller(json.loads(json.dumps(stream))) == stream


def test_a_source_is_shown_as_coloured_markdown() -> None:
    text = source(sine_code_naive, sine_encoding).data
    assert text.count("```python") == 2 and text.count("```") == 4
    assert "def sine_code_naive" in text and "return torch.cat" in text


def test_a_methods_source_begins_at_the_margin() -> None:
    assert source(torch.nn.Linear.extra_repr).data.startswith("```python\ndef extra_repr")


def test_pictures_stand_in_rows_with_their_titles() -> None:
    figure = panels([torch.zeros(3, 5), np.zeros((3, 5, 3)), Image.new("RGB", (5, 3))], ["a", "b", "c"], columns=2)
    assert [axes.get_title() for axes in figure.axes] == ["a", "b", "c", ""]
    assert [len(axes.images) for axes in figure.axes] == [1, 1, 1, 0]
    plt.close(figure)


def test_an_image_with_a_palette_keeps_its_colours() -> None:
    image = Image.new("RGB", (5, 3), (200, 0, 0)).quantize(4)
    figure = panels([image])
    assert figure.axes[0].images[0].get_array()[0, 0].tolist() == [200, 0, 0]
    plt.close(figure)


@pytest.mark.parametrize("pictures, titles", [([], []), ([np.zeros((2, 2))], ["a", "b"])])
def test_a_row_of_nothing_and_titles_that_are_too_many_are_refused(pictures: list, titles: list) -> None:
    with pytest.raises(ValueError, match="wanted at least one picture"):
        panels(pictures, titles)


def test_a_cell_keeps_its_output_as_long_as_its_code_is_the_same() -> None:
    def notebook(*sources: str) -> Any:
        return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])

    before = notebook("a", "b")
    for count, cell in enumerate(before.cells, 1):
        cell.execution_count, cell.outputs = count, [nbformat.v4.new_output("stream", name="stdout", text=cell.source)]
    before.metadata["executed"] = "in full"
    kept = with_outputs_of(before, notebook("b", "a changed"))
    assert [(cell.execution_count, len(cell.outputs)) for cell in kept.cells] == [(2, 1), (None, 0)]
    assert kept.metadata.executed == "in full"


def test_a_name_that_has_no_source_is_refused_with_those_that_have() -> None:
    with pytest.raises(FileNotFoundError, match="wanted one of detr, convolution"):
        convert("detector")
