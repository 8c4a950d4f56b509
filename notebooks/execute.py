"""execute: how does a plain .py source become a notebook with small outputs?

    NAME.py ─▶ jupytext ─▶ executed in a workplace of its own ─▶ outputs made small ─▶ NAME.ipynb

    python -m notebooks.execute                  all of them, in full (make notebooks)
    python -m notebooks.execute attention        one of them
    python -m notebooks.execute --keep-outputs   take over changed text; a cell whose code changed loses its output

People edit and review the .py. The .ipynb is generated and committed, so that it can be read and opened on Colab
without a run. The workplace is an empty folder with links to what the project holds, so data/ and runs/ are new, and
nothing depends on what earlier runs have left. Proven in tests/test_notebooks.py.
Read: convert → execute → smaller
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import tempfile
import time
from pathlib import Path
from typing import Any, Sequence

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from PIL import Image

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent
NAMES = ("detr", "convolution", "attention", "positional_encodings", "matching_and_loss", "your_own_data",
         "attention_maps", "hyperparameters")  # in the order of docs/notebooks.md
MADE_HERE = {"data", "runs"}  # by a run: never taken from the project's own folder
WIDEST = 800  # pixels of a picture
MOST_COLOURS = 10_000  # of a chart; with more it is a photograph, which 64 colours would spoil
METADATA = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"}}


def convert(name: str) -> nbformat.NotebookNode:
    """The notebook of a source, without outputs. Its cells are numbered, so that the same source gives the same file.

    Raises FileNotFoundError for a name that has no source.
    """
    path = FOLDER / f"{name}.py"
    if not path.is_file():
        raise FileNotFoundError(f"there is no notebook {name!r}; wanted one of {', '.join(NAMES)}")
    notebook = jupytext.read(path)
    return _numbered(notebook)


def execute(notebook: nbformat.NotebookNode, quick: bool = False, timeout: int = 3600) -> nbformat.NotebookNode:
    """Run all cells, in a new kernel and a new workplace; the notebook with its outputs, made small.

    quick     a few steps instead of minutes (NOTEBOOK_QUICK=1): shows that it runs, and nothing else
    timeout   seconds for one cell
    Raises CellExecutionError where a cell fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        place = workplace(Path(folder) / "project")
        variables = {**os.environ, "NOTEBOOK_QUICK": "1" if quick else "0", "NOTEBOOK_HEADLESS": "1",
                     "IPYTHONDIR": str(Path(folder) / "ipython")}
        client = NotebookClient(notebook, timeout=timeout, kernel_name="python3", record_timing=False,
                                coalesce_streams=True, extra_arguments=["--IPKernelApp.log_level=ERROR"],
                                resources={"metadata": {"path": str(place / "notebooks")}})
        client.execute(env=variables)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [smaller(output) for output in cell.outputs]
    notebook.metadata["executed"] = "quick" if quick else "in full"
    return _numbered(notebook)


def with_outputs_of(before: nbformat.NotebookNode, notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook, its code cells with the outputs that a cell of exactly the same code has in another notebook."""
    there = {cell.source: cell for cell in before.cells if cell.cell_type == "code"}
    for cell in notebook.cells:
        if cell.cell_type == "code" and cell.source in there:
            cell.outputs, cell.execution_count = there[cell.source].outputs, there[cell.source].execution_count
    notebook.metadata["executed"] = before.metadata.get("executed")
    return _numbered(notebook)


def workplace(folder: Path) -> Path:
    """A folder that holds links to what the project holds, but for data/ and runs/; returns it."""
    folder.mkdir()
    for entry in ROOT.iterdir():
        if entry.name not in MADE_HERE and not entry.name.startswith(".") and entry != FOLDER:
            (folder / entry.name).symlink_to(entry, target_is_directory=entry.is_dir())
    (folder / "notebooks").mkdir()  # a folder, no link: a kernel that begins in it must find this project above it
    for entry in FOLDER.glob("*.py"):
        (folder / "notebooks" / entry.name).symlink_to(entry)
    return folder


def smaller(output: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """An output whose picture, if it has one, is stored in one format only: as a palette PNG or a JPEG."""
    data = output.get("data", {})
    if "image/png" not in data:
        return output
    content = base64.b64decode(data.pop("image/png"))
    data.pop("image/jpeg", None)
    kind, content = compressed(content)
    data[kind] = base64.b64encode(content).decode()
    return output


def compressed(png: bytes) -> tuple[str, bytes]:
    """A PNG's bytes → its MIME type and bytes, as small as still looks the same: charts as PNG, photographs as JPEG."""
    image = Image.open(io.BytesIO(png)).convert("RGBA")
    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    if image.width > WIDEST:
        image = image.resize((WIDEST, round(image.height * WIDEST / image.width)), Image.Resampling.LANCZOS)
    photograph = image.getcolors(MOST_COLOURS) is None
    file = io.BytesIO()
    if photograph:
        image.save(file, "jpeg", quality=65, optimize=True)
    else:
        image.quantize(64, dither=Image.Dither.NONE).save(file, "png", optimize=True)
    return ("image/jpeg" if photograph else "image/png"), file.getvalue()


def _numbered(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    for number, cell in enumerate(notebook.cells):
        cell["id"], cell["metadata"] = f"cell-{number}", {}
    executed = notebook.metadata.get("executed")
    notebook.metadata = nbformat.from_dict({**METADATA, **({"executed": executed} if executed else {})})
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def write(name: str, notebook: nbformat.NotebookNode) -> Path:
    path = FOLDER / f"{name}.ipynb"
    nbformat.write(notebook, path)
    return path


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="; ".join(NAMES) + " (none: all)")
    parser.add_argument("--keep-outputs", action="store_true", help="do not run anything")
    arguments: Any = parser.parse_args(argv)
    for name in arguments.names or NAMES:
        notebook, begun = convert(name), time.monotonic()
        if arguments.keep_outputs:
            path = write(name, with_outputs_of(nbformat.read(FOLDER / f"{name}.ipynb", 4), notebook))
        else:
            path = write(name, execute(notebook))
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1024:.0f} KB, "
              f"{(time.monotonic() - begun) / 60:.1f} minutes", flush=True)


if __name__ == "__main__":
    main()
