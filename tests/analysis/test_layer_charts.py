"""A set of layer charts is drawn from its data alone, and says of each chart how to read it."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, Iterator

import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from scratch.analysis import figures as figures_of_all, layer_charts
from scratch.analysis.layer_charts import draw_set, plan, write_index
from scratch.analysis.layer_curves import draw_by_group, draw_clipping, draw_losses
from scratch.analysis.layer_pages import draw_page, drop_minor_ticks, powers_axis
from scratch.analysis.layer_readings import OVER_BATCHES, reading
from scratch.analysis.layer_record import LayerRecord, read_layers
from scratch.analysis.layer_watch import FIGURES, LayerWatch
from scratch.training.loop import train_step
from tests.analysis.test_layer_watch import with_all_ideas
from tests.training.test_loop import make_run, random_batch, small_config


def watched(folder: Path) -> Path:
    """What two watched steps of a small detector with all ideas, and with clipping, leave in a file."""
    config = with_all_ideas(small_config())
    run = make_run(replace(config, train=replace(config.train, clip_max_norm=0.1)), folder)
    with LayerWatch(run.unwrapped, run.optimizer) as watch:
        record = LayerRecord(watch.units, run.config.train.clip_max_norm, run.criterion.weight_dict)
        for batch, moment in ((1, "first"), (2, "last")):
            losses = train_step(run, [random_batch(2, batch)])
            kept = record.kept(losses["grad_norm"])
            record.add(batch, losses, watch.figures(kept), run.learning_rates())
            record.content["histograms"][moment] = watch.histograms(kept)
    record.content["about"] = {"preset": "small", "parameters": "some", "cost_words": "next to nothing"}
    return record.save(folder)


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return read_layers(watched(tmp_path_factory.mktemp("set") / "v1").parent)


@pytest.fixture
def few(content: dict[str, Any]) -> dict[str, Any]:
    """A copy with four groups: their panels are drawn in a tenth of the time that all take."""
    groups = ("backbone_stage3", "input_proj", "encoder_attention_query", "class_head")
    kept = [i for i, unit in enumerate(content["units"]) if unit["group"] in groups]
    figures = {name: [values[i] for i in kept] for name, values in content["figures"].items()}
    return copy.deepcopy({**content, "units": [content["units"][i] for i in kept], "figures": figures})


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Figure]]:
    """The figures that are drawn while a test runs, as matplotlib's objects: pixels would take a minute."""
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda _, path, **__: Path(path).touch())
    monkeypatch.setattr(figures_of_all, "to_palette", lambda _: None)
    monkeypatch.setitem(plt.rcParams, "figure.max_open_warning", 0)
    close = plt.close
    monkeypatch.setattr(plt, "close", figures.append)
    yield figures
    for figure in figures:
        close(figure)


def labels(figure: Figure) -> str:
    """All that a figure says, in one text."""
    return "\n".join(text.get_text() for text in figure.findobj(match=lambda item: hasattr(item, "get_text")))


def test_every_kind_of_chart_can_be_drawn(
    content: dict[str, Any], drawn: list[Figure], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    kinds = ("overview", "loss", "gradient_", "update", "attention_", "backbone", "encoder_attention_query",
             "decoder_place", "decoder_feed", "query_emb", "class")  # the others are drawn as their siblings are
    charts = {path: draw for path, draw in plan(content, tmp_path).items() if path.name.startswith(kinds)}
    monkeypatch.setattr(layer_charts, "plan", lambda *_: charts)
    assert draw_set(content, tmp_path) == list(charts)
    assert len(drawn) == len(charts) == len(kinds) and all(figure.axes for figure in drawn)


def test_files_have_the_names_that_a_person_would_guess(content: dict[str, Any]) -> None:
    names = {path.name for path in plan(content, Path("charts") / "v1")}
    assert {"overview_v1.png", "backbone_v1.png", "input_proj_v1.png", "encoder_attention_query_v1.png",
            "decoder_cross_attention_value_v1.png", "encoder_feed_forward_v1.png", "class_head_v1.png",
            "fnn_bbox_mlp_layer1_v1.png", "fnn_bbox_mlp_layer3_v1.png", "std_weights_2_batches.png",
            "std_activations_2_batches.png", "std_gradients_2_batches.png", "update_to_weight_2_batches.png",
            "loss_parts_2_batches.png", "attention_entropy_2_batches.png", "gradient_clipping_2_batches.png"} <= names
    assert {f"{name}_2_batches.png" for name in FIGURES} <= names  # nothing is kept that is not shown
    assert "backbone.png" in {path.name for path in plan(content, Path("charts") / "mine")}  # not a version


def test_the_index_shows_every_chart_with_its_sentence_and_what_a_person_noted(
    content: dict[str, Any], tmp_path: Path,
) -> None:
    charts = list(plan(content, tmp_path))
    write_index(content, tmp_path, charts)
    assert "\n\n## Over the batches" in (tmp_path / "index.md").read_text()
    (tmp_path / "notes.md").write_text("The rate was too high.\n")
    index = write_index(content, tmp_path, charts).read_text()
    assert index.index("next to nothing") < index.index("The rate was too high.") < index.index("## Over the batches")
    assert all(f"({path.name})" in index for path in charts)
    assert index.count("Healthy") >= len(charts) - 3 and "{" not in index  # of three there is nothing to fear


def test_every_reading_is_of_its_chart() -> None:
    assert reading("encoder_attention_query").startswith("How the encoder attention projects its tokens to queries.")
    assert reading("decoder_cross_attention_key_place").startswith("How the decoder cross attention turns places into ")
    assert "relu" in reading("encoder_feed_forward") and reading("overview") == OVER_BATCHES["overview"]
    with pytest.raises(ValueError, match="of which nothing is said"):
        reading("gate")


def test_panels_of_one_chart_show_the_groups_on_one_scale_and_leave_out_what_is_not_measured(
    few: dict[str, Any], drawn: list[Figure], tmp_path: Path,
) -> None:
    draw_by_group(few, "saturation", tmp_path / "a.png")
    draw_by_group(few, "std_gradients", tmp_path / "b.png")
    titles = [[axes.get_title() for axes in figure.axes if axes.get_title()] for figure in drawn]
    assert titles[0] == ["backbone stage3", "encoder attention query", "class head"]  # a share of 0 is one
    assert titles[1] == ["backbone stage3", "input proj", "encoder attention query", "class head"]
    gradients = drawn[1].axes[:4]
    assert len({axes.get_ylim() for axes in gradients}) == 1 and gradients[0].get_yscale() == "log"


def test_lines_are_the_figures_and_what_was_not_measured_leaves_a_gap(
    few: dict[str, Any], drawn: list[Figure], tmp_path: Path,
) -> None:
    few["figures"]["std_weights"][1] = [None, 0.5]
    draw_by_group(few, "std_weights", tmp_path / "a.png")
    lines = drawn[0].axes[0].lines  # of the two blocks of stage 3
    assert [list(line.get_xdata()) for line in lines] == [[1, 2], [1, 2]]
    assert list(lines[0].get_ydata()) == few["figures"]["std_weights"][0]
    assert list(lines[1].get_ydata()) == pytest.approx([math.nan, 0.5], nan_ok=True)


def test_a_page_says_spread_and_saturation_of_the_first_and_the_last_batch(
    content: dict[str, Any], drawn: list[Figure], tmp_path: Path,
) -> None:
    content = copy.deepcopy(content)
    (i,) = [i for i, unit in enumerate(content["units"]) if unit["group"] == "encoder_feed_forward_linear1"]
    content["figures"]["std_activations"][i] = [0.25, 0.5]
    content["figures"]["saturation"][i] = [0.5, 0.75]
    draw_page(content, "encoder_feed_forward", tmp_path / "a.png")
    titles = [axes.get_title(loc="left") for axes in drawn[0].axes]
    assert "std 0.25 → 0.5\nzeros after the relu 50% → 75%" in titles
    assert "batch 1" in labels(drawn[0]) and "batch 2" in labels(drawn[0])


def test_weights_that_begin_all_alike_are_a_line(drawn: list[Figure], content: dict[str, Any], tmp_path: Path) -> None:
    assert content["histograms"]["first"]["encoder_norm"]["weights"]["shares"] == []
    draw_page(content, "encoder_norm", tmp_path / "a.png")
    (line,) = drawn[0].axes[0].lines
    assert list(line.get_xdata()) == [1.0, 1.0]


def test_the_loss_is_stacked_up_from_its_weighted_parts(
    content: dict[str, Any], drawn: list[Figure], tmp_path: Path,
) -> None:
    draw_losses(content, tmp_path / "a.png")
    parts = drawn[0].axes[0].collections
    top = parts[-1].get_paths()[0].vertices
    assert len(parts) == 6  # of the queries and of the cells
    for batch, loss in zip(content["batches"], content["losses"]["loss"]):
        assert top[top[:, 0] == batch][:, 1].max() == pytest.approx(loss, rel=2e-3)  # figures have four digits


def test_clipping_shows_what_it_leaves_and_only_where_there_is_any(
    content: dict[str, Any], drawn: list[Figure], tmp_path: Path,
) -> None:
    draw_clipping(content, tmp_path / "a.png")
    draw_clipping({**content, "clip_max_norm": 0.0}, tmp_path / "b.png")
    bars = [bar.get_height() for bar in drawn[0].axes[1].patches]
    assert bars == pytest.approx([100 * 0.1 / norm for norm in content["grad_norm"]], rel=1e-3)
    assert len(drawn[1].axes) == 2 and "nothing is cut" in labels(drawn[1])


def test_numbers_are_written_short_and_what_json_cannot_write_is_none(tmp_path: Path) -> None:
    record = LayerRecord([], 0.1, {"loss_ce": 1.0})
    figures = {**{name: [] for name in FIGURES}, "attention": {}}
    record.add(1, {"loss": 1.23456789, "grad_norm": math.inf, "class_error": 50.0}, figures, {"lr_backbone": 1e-4})
    path = record.save(tmp_path / "new" / "v2")
    assert path.name == "layers_v2.json"
    written = json.loads(path.read_text())
    assert written["losses"] == {"loss": [1.235]} and written["grad_norm"] == [None]
    assert written["learning_rates"] == {"lr_backbone": [1e-4]}


def test_a_folder_without_data_or_with_other_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="layers.json does not exist: name the folder"):
        read_layers(tmp_path)
    (tmp_path / "layers.json").write_text("[]")
    with pytest.raises(ValueError, match="is damaged, or not what detr_scratch.py charts writes there"):
        read_layers(tmp_path)


@pytest.mark.parametrize("values, scale", [([0.1, 5.0], "log"), ([math.nan, math.nan], "linear"), ([], "linear"),
                                           ([0.0, 0.0], "linear")])
def test_a_scale_of_powers_is_there_for_numbers_above_0_alone(values: list[float], scale: str) -> None:
    figure, axes = plt.subplots(layout="constrained")
    axes.plot(range(len(values)), values)
    axes.axvline(0.5)  # norms before their first step: one number
    powers_axis(axes)
    figure.draw_without_rendering()
    assert axes.get_yscale() == scale
    plt.close(figure)


@pytest.mark.parametrize("high, between", [(1000.0, False), (10.0, True)])
def test_ticks_between_the_powers_are_left_out_where_they_have_no_label(high: float, between: bool) -> None:
    figure, axes = plt.subplots()
    axes.set(yscale="log", ylim=(1, high))
    drop_minor_ticks(axes)
    assert bool(len(axes.yaxis.get_minorticklocs())) is between
    plt.close(figure)
