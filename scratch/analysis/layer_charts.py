"""layer_charts: how is a folder of layer charts drawn, from its data alone?

    layers_v1.json ─┬─► overview_v1.png
                    ├─► std_gradients_30_batches.png …     over the batches      (layer_curves)
                    ├─► encoder_attention_query_v1.png …   distributions         (layer_pages)
                    └─► index.md                           how to read each      (layer_readings)

`notes.md`, where a person has put one into the folder, stands first in index.md: what this set
shows, in that person's words, is not lost when the charts are drawn again.

Read: draw_set → plan → write_index
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any, Callable

from scratch.analysis.layer_curves import (
    draw_attention, draw_by_group, draw_clipping, draw_losses, draw_overview,
)
from scratch.analysis.layer_pages import draw_page, pages_of, words
from scratch.analysis.layer_readings import reading
from scratch.analysis.layer_record import MADE_BY, data_file, version_of
from scratch.analysis.layer_samples import SAMPLE
from scratch.analysis.names import link, literal
from scratch.analysis.records import believed
from scratch.printable import printable
from scratch.whole_file import write_text

INDEX = "index.md"  # written last: a folder that has it has every chart
# In the order of index.md: what says most comes first.
BY_GROUP = ("update_to_weight", "std_gradients", "std_activations", "mean_abs_activations", "saturation", "std_weights")


def draw_set(content: dict[str, Any], folder: Path) -> list[Path]:
    """Draw every chart of a set and its index.md into `folder`; returns the charts.

    content   what `layer_record.read_layers` gives. Raises ValueError for a content that no watched batches give
    """
    with believed(data_file(folder), MADE_BY):
        charts = plan(content, folder)
        for path, draw in charts.items():
            draw(content, path=path)
        write_index(content, folder, list(charts))
    return list(charts)


def plan(content: dict[str, Any], folder: Path) -> dict[Path, Callable[..., None]]:
    """Each chart's file, and what draws it."""
    version, batches = version_of(folder), content["batches"][-1]
    for page in pages_of(content):  # from the data, and part of a path
        if not re.fullmatch(r"\w+", page):
            raise ValueError(f"got the group of layers {page!r}, wanted letters, digits and _")
    drawn: dict[str, Callable[..., None]] = {
        f"overview{version}": draw_overview,
        **{f"{name}_{batches:d}_batches": draw for name, draw in (
            ("loss_parts", draw_losses), ("gradient_clipping", draw_clipping), ("attention_entropy", draw_attention),
            *((name, partial(draw_by_group, name=name)) for name in BY_GROUP))},
        **{f"{page}{version}": partial(draw_page, page=page) for page in pages_of(content)}}
    return {Path(folder) / f"{name}.png": draw for name, draw in drawn.items()}


def write_index(content: dict[str, Any], folder: Path, charts: list[Path]) -> Path:
    """index.md: what was trained, the person's notes, then every chart with what to look for in it."""
    about, folder = content["about"], Path(folder)
    batches = len(content["batches"])
    facts = {"network": "parameters", "trained on": "trained_on", "from": "start", "rates": "rates",
             "made by": "command", "cost of watching": "cost_words", "stopped": "stopped"}
    lines = [f"# {literal(folder.resolve().name)}: inside {literal(about.get('preset', 'a model'))}, over {batches} "
             "batches", "",
             *(f"- {label}: {_fact(key, about[key])}" for label, key in facts.items() if about.get(key)),
             f"- data: `{data_file(folder).name}`, from which `python detr_scratch.py charts --redraw --out FOLDER` "
             "draws all of it again", ""]
    notes = folder / "notes.md"
    if notes.exists():
        lines += [notes.read_text(encoding="utf-8", errors="replace").strip(), ""]
    lines += ["## Over the batches", "",
              "A colour a layer, dark for the first of its group and bright for the last. Figures are of a sample of "
              f"each tensor ({SAMPLE:,} numbers).", ""]
    first_page = next(iter(pages_of(content)))
    for path in charts:
        name = re.sub(r"(_v\d+|_\d+_batches)$", "", path.stem)
        if name == first_page:
            lines += ["## Group by group", "",
                      "Grey: the first batch, all layers of the group together. Lines: the last batch, each layer. "
                      "Above each panel: first → last batch, of several layers their median. A gradient's exact zeros "
                      "have no logarithm, and are only counted.", ""]
        lines += [f"### {words(name)}", "", reading(name), "", f"![{words(name)}]({link(path.name)})", ""]
    index = folder / INDEX
    write_text(index, "\n".join(lines))
    return index


def _fact(key: str, text: str) -> str:
    """A fact as Markdown; the command is code already."""
    return printable(text) if key == "command" else literal(text)
