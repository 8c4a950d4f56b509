"""What is said of the committed charts is what the data beside them holds."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import pytest

from scratch.analysis.attention_record import Explanation
from scratch.analysis.layer_record import read_layers
from scratch.config import PRESETS, parameters_of
from scratch.ops.fast import attention as fast_attention
from scratch.ops.fast import convolution as fast_convolution

REPOSITORY = Path(__file__).parent.parent
CHARTS = REPOSITORY / "hyper_parameter_tuning_charts"
LAST = -1  # the last batch


@lru_cache(maxsize=None)
def content(version: str) -> dict[str, Any]:
    return read_layers(CHARTS / version)


def notes(version: str) -> str:
    """The notes with their lines joined."""
    return " ".join((CHARTS / version / "notes.md").read_text(encoding="utf-8").split())


def of_group(version: str, figure: str, group: str, batch: int) -> list[float]:
    """A figure of each layer of a group, in one batch."""
    data = content(version)
    return [data["figures"][figure][i][batch] for i, unit in enumerate(data["units"]) if unit["group"] == group]


def middle(version: str, figure: str, group: str, batch: int) -> float:
    return median(of_group(version, figure, group, batch))


def heads(version: str, attention: str, look: str, batch: int) -> list[float]:
    """A figure of each layer of an attention, the mean of its heads."""
    return [sum(layer) / len(layer) for layer in content(version)["attention"][attention][look][batch]]


def kept(version: str) -> list[float]:
    """The per cent that clipping leaves, by batch."""
    return [100 * 0.1 / norm for norm in content(version)["grad_norm"]]


def share_of_stem(version: str) -> float:
    """Of the gradient's squared length in the first batch; the norm's few numbers are taken as strong as the others."""
    (gradient,) = of_group(version, "std_gradients", "backbone_stem", 0)
    return gradient**2 * 9_536 / content(version)["grad_norm"][0] ** 2


def test_undivided_scores_would_begin_nearly_blind() -> None:
    looks = [figure for name in content("v1")["attention"] for figure in heads("v1", name, "entropy", 0)]
    encoder = heads("v1", "encoder_attention", "undivided", 0)
    decoder = heads("v1", "decoder_self_attention", "undivided", 0)[1:]
    assert f"between {min(looks):.2f} and {max(looks):.2f}" in notes("v1")
    assert f"{min(encoder):.2f} to {max(encoder):.2f} in the encoder" in notes("v1")
    assert f"{min(decoder):.2f} to {max(decoder):.2f} in the decoder's self-attention" in notes("v1")


def test_the_gradient_grows_on_its_way_to_the_stem_unless_blocks_begin_as_their_shortcut() -> None:
    stem, last = (middle("v1", "std_gradients", f"backbone_{name}", 0) for name in ("stem", "stage4"))
    assert 19_000 < stem / last < 21_000 and f"standard deviation {stem:.0f} and {last:.3f}" in notes("v1")
    spread = of_group("v1", "std_activations", "backbone_stage3", 0)
    assert f"from {spread[0]:.1f} to {spread[-1]:.1f}" in notes("v1") and spread == sorted(spread)
    assert f"{share_of_stem('v1'):.0%}".replace("%", " %") == "87 %" and "87 %" in notes("v1")
    stem = middle("v2", "std_gradients", "backbone_stem", 0)
    assert f"gradient is {stem:.2f} where it was 102" in notes("v2") and 0.0005 < share_of_stem("v2") < 0.0015
    assert len(set(of_group("v2", "std_activations", "backbone_stage3", 0))) == 1


def test_clipping_leaves_next_to_nothing_and_presses_some_below_epsilon() -> None:
    norms = content("v1")["grad_norm"]
    assert f"{norms[0]:,.0f} in the first batch and {norms[LAST]:,.0f} in the last" in notes("v1")
    assert f"{min(kept('v1')):.4f} to {max(kept('v1')):.4f} %" in notes("v1")
    query = middle("v1", "std_gradients", "decoder_self_attention_query", 0)
    assert f"{query:.5f}" == "0.00028" and f"{query * kept('v1')[0] / 100:.1e}" == "2.6e-09"
    value = middle("v1", "std_gradients", "decoder_self_attention_value", 0)
    assert 45 < value / query < 55
    moved = [middle(version, "update_to_weight", f"decoder_self_attention_{role}", 0)
             for version, role in (("v1", "query"), ("v1", "value"), ("v2", "query"))]
    assert [f"{figure:.1e}" for figure in moved] == ["3.5e-06", "1.5e-05", "1.2e-05"]
    assert f"leaves {median(kept('v2')):.3f} % (median) where it left {median(kept('v1')):.4f} %" in notes("v2")
    assert f"{content('v2')['grad_norm'][0]:.0f} long where it was {norms[0]:,.0f}" in notes("v2")


def test_blocks_that_begin_as_their_shortcut_sleep_at_first() -> None:
    for stage in range(1, 5):
        inner = slice(1, None)  # a stage's first block has a shortcut with a convolution, which learns at once
        assert not any(of_group("v2", "std_gradients", f"backbone_stage{stage}", 0)[inner])
        assert max(of_group("v2", "update_to_weight", f"backbone_stage{stage}", LAST)[inner]) < 1e-6
        assert 2.5e-5 < middle("v1", "update_to_weight", f"backbone_stage{stage}", LAST) < 7.5e-5


def test_the_loss_of_too_high_a_rate_is_the_lowest_of_the_three() -> None:
    last = [content(version)["losses"]["loss"][LAST] for version in ("v1", "v2", "v3")]
    assert f"{last[0]:.1f} after 30 batches of v1, {last[1]:.1f} here" in notes("v2")
    assert f"it is {last[2]:.1f}; v1 has {last[0]:.1f}, v2 {last[1]:.1f}" in notes("v3") and last[2] == min(last)


def test_what_too_high_a_rate_does_is_seen_in_the_batches_that_the_notes_name() -> None:
    moved = [middle("v3", "update_to_weight", unit["group"], 0) for unit in content("v3")["units"]
             if unit["group"].startswith(("encoder", "decoder")) and not unit["group"].endswith("norm")]
    assert f"{100 * min(moved):.0f} to {100 * max(moved):.0f} %" in notes("v3")
    assert [middle("v3", "saturation", "class_head", batch) for batch in (1, 3)] == [1.0, 1.0]
    stem = [middle("v3", "std_gradients", "backbone_stem", batch) for batch in (0, 4, 9)]
    assert f"from {stem[0]:.2f} to {stem[1]:.5f}" in notes("v3") and stem[2] < 1e-8
    first, tenth = (heads("v3", "encoder_attention", "entropy", batch)[0] for batch in (0, 9))
    assert f"({tenth:.2f}, at first {first:.2f})" in notes("v3")
    assert f"at most {max(heads('v3', 'decoder_self_attention', 'entropy', LAST)[1:]):.2f}" in notes("v3")
    assert f"{middle('v3', 'saturation', 'decoder_self_attention_query', LAST):.0%}" == "71%"
    assert [f"{middle('v3', 'saturation', 'fnn_bbox_mlp_layer1', batch):.0%}" for batch in (0, LAST)] == ["50%", "76%"]


@pytest.mark.parametrize("version", ["v1", "v2", "v3"])
def test_the_index_of_a_set_shows_its_notes_and_charts_that_are_there(version: str) -> None:
    folder = CHARTS / version
    index = (folder / "index.md").read_text(encoding="utf-8")
    assert (folder / "notes.md").read_text(encoding="utf-8").strip() in index
    shown = [line.split("](")[1].rstrip(")") for line in index.splitlines() if line.startswith("![")]
    assert len(shown) == 33 and all((folder / name).exists() for name in shown)


# -- the words of the index ----------------------------------------------------------------------------------------


def section(heading: str) -> str:
    """A section of the index of all charts, its lines joined."""
    text = (CHARTS / "index.md").read_text(encoding="utf-8").split(f"\n## {heading}:")[1].split("\n## ")[0]
    return " ".join(text.split())


@pytest.mark.parametrize("name, rows", [
    ("shapes", {"anchors": "+ anchors", "focal": "+ focal", "denoising": "+ denoising", "groups": "+ groups",
                "proposals": "+ proposals", "fine-memory": "+ fine memory"}),
    ("bccd", {"vanilla": "vanilla", "anchors": "+ anchors", "focal": "+ focal", "denoising": "+ denoising",
              "groups": "+ groups", "proposals": "+ proposals",
              "weight-decay": "+ fine memory, quality, mosaic, weight decay"}),
])
def test_what_an_idea_bought_is_the_mean_of_its_runs(name: str, rows: dict[str, str]) -> None:
    runs = json.loads((CHARTS / f"ablation_{name}" / "ablation.json").read_text(encoding="utf-8"))["runs"]
    said = section(f"ablation_{name}")
    for variant, words in rows.items():
        found = {budget: [run["AP50"] for run in runs if (run["variant"], run["budget"]) == (variant, budget)]
                 for budget in ("steps", "minutes")}
        assert all(len(values) == 3 for values in found.values())
        figures = "; ".join(f"{mean(values):.3f}" for values in found.values())
        assert f"({figures}" in said.split(f"**{words}**")[1][:60], variant


def test_what_a_removed_part_costs_is_what_was_measured() -> None:
    measured = json.loads((CHARTS / "removal_shapes" / "removal.json").read_text(encoding="utf-8"))
    trained, iou = measured["trained"], [f"{value:.3f}" for value in measured["objects"]["iou"].values()]
    ap, ap50 = ({row["name"]: f"{row[figure]:.3f}" for row in trained} for figure in ("AP", "AP50"))
    said = section("removal_shapes")
    for words in (f"AP {ap['nothing']} → {ap['roi-features']}, and AP50 stays ({ap50['nothing']} → {ap50['roi-features']})",
                  f"AP {ap['positions']}, and AP50 {ap50['positions']}, the lowest", f"√d** (AP {ap['scale']})",
                  f"decoder** ({ap['self-attention']})", f"queries** ({ap['half']})",
                  f"the first alone has {ap['layers-1']}, the first two {ap['layers-2']}",
                  f"rises from {iou[0]}, where the encoder proposes it, to {iou[1]}, {iou[2]} and {iou[3]}."):
        assert words in " ".join(said.split()), words
    assert min(row["AP50"] for row in trained) == trained[1]["AP50"] and trained[1]["name"] == "positions"
    decoder = " ".join((REPOSITORY / "scratch/model/anchors/decoder.py").read_text(encoding="utf-8").split())
    decoder = decoder.replace(" # ", " ")
    assert f"AP {ap['layers-1']} by the first layer alone, {ap['nothing']} by all three" in decoder
    assert f"mean IoU {iou[0]} of the proposals, {iou[1]} after one layer, {iou[3]} after three" in decoder
    results = (REPOSITORY / "docs" / "results.md").read_text(encoding="utf-8")
    assert (f"AP ({ap['nothing']} → {ap['roi-features']}), positional encodings the most AP50 ({ap50['nothing']} → "
            f"{ap50['positions']})") in results


def test_what_a_part_that_is_missing_in_training_costs_is_what_was_measured() -> None:
    measured = json.loads((CHARTS / "removal_shapes" / "removal.json").read_text(encoding="utf-8"))
    said, titles = section("removal_shapes"), {name: part["title"] for name, part in measured["parts"].items()}
    titles |= {name: f"**nothing (`{name}`)**" for name in measured["settings"]}
    runs = {name: [run for run in measured["runs"] if run["variant"] == name] for name in titles}
    assert sum(map(len, runs.values())) == len(measured["runs"])
    for name, three in runs.items():
        assert len(three) == len(measured["seeds"]) == 3
        AP, AP50 = ([run[figure] for run in three] for figure in ("AP", "AP50"))
        assert (f"| {titles[name]} | {mean(AP):.3f} | {mean(AP50):.3f} ({min(AP50):.3f} to {max(AP50):.3f}) |"
                ) in said, name
    objects = measured["objects"]
    assert f"gives {objects['same']} of {objects['number']} objects the same query" in said
    assert f"--steps {measured['steps']} --jobs 2 --flags \"{measured['flags']}\"" in said


def test_a_step_before_and_after_the_spine_was_parted_took_what_was_measured() -> None:
    before, after = (json.loads((REPOSITORY / "benchmarks" / f"training_step_{name}.json").read_text())["results"]
                     for name in ("before_spine", "avx2"))
    text = (REPOSITORY / "docs" / "speed.md").read_text(encoding="utf-8")
    (*pairs, (old, new)) = zip(before, after, strict=True)
    assert [one["preset"] for one, _ in pairs] == ["tiny", "tiny_vanilla", "detr_r50", "detr_141m"]
    for one, other in pairs:
        assert f"| `{one['preset']}` | {one['ratio']['step']:.2f} | {other['ratio']['step']:.2f} |" in text
    assert (f"(`{old['preset']}` once more, in the other order: {old['ratio']['step']:.2f} and "
            f"{new['ratio']['step']:.2f}, with {old['ours']['step']:.2f} s and {new['ours']['step']:.2f} s of ours, "
            f"{old['reference']['step']:.2f} s and {new['reference']['step']:.2f} s of `torch.nn`.") in text


def test_the_rounds_of_muon_learnt_what_the_table_says() -> None:
    runs = json.loads((CHARTS / "tiny" / "muon_rounds.json").read_text(encoding="utf-8"))
    text = (CHARTS / "index.md").read_text(encoding="utf-8")
    for name in ("five rounds of one polynomial", "three rounds"):
        rows = runs[name]
        assert len(rows) == len(runs["seeds"])
        cells = [", ".join(f"{row[figure]:.{digits}f}" for row in rows) for figure, digits in (("AP", 3), ("loss", 2))]
        assert f"| {cells[0]} | {cells[1]} |" in text, (name, cells)
    two, deim = runs["two rounds"][0], runs["DEIM"][0]
    assert f"| … with two | {two['AP']:.3f} (seed 1) | {two['loss']:.2f} |" in text
    assert f"| {deim['AP']:.3f} (seed 1) | another loss |" in text


def test_the_sweeps_best_and_default_are_those_of_its_trials() -> None:
    trials = json.loads((CHARTS / "sweep_tiny" / "sweep.json").read_text(encoding="utf-8"))["trials"]
    best = max((trial for trial in trials if trial["state"] == "complete"), key=lambda trial: trial["value"])
    assert len(trials) == 24 and trials[0]["number"] == 0
    words = f"have AP {trials[0]['value']:.3f} after 200 steps, the best trial {best['value']:.3f}"
    assert words in section("sweep_tiny")


def test_the_sweeps_winner_is_ahead_of_the_default_with_three_seeds_each() -> None:
    curves = json.loads((CHARTS / "sweep_confirmed" / "learning_curve.json").read_text(encoding="utf-8"))
    text, early, busy = section("sweep_tiny"), {}, {}
    last: dict[str, dict[str, list[float]]] = {}
    for name in ("best", "default"):
        runs = [curve["evaluation"] for curve in curves if curve["name"].startswith(name)]
        assert len(runs) == 3
        last[name] = {figure: [run[figure][LAST] for run in runs] for figure in ("AP", "AP50")}
        early[name] = [run["AP50"][run["step"].index(100)] for run in runs]
        busy[name] = [100 * run["matched_queries"][LAST][LAST] for run in runs]
    best, default = last["best"], last["default"]
    assert min(best["AP"]) > max(default["AP"])
    means = [f"{mean(ap):.3f} ({min(ap):.3f} to {max(ap):.3f})" for ap in (best["AP"], default["AP"])]
    assert f"mean AP {means[0]} against {means[1]}" in text
    assert f"mean AP50 {mean(best['AP50']):.3f} against {mean(default['AP50']):.3f}" in text
    ahead, behind = (f"{min(ap):.2f} to {max(ap):.2f}" for ap in (early["best"], early["default"]))
    assert f"(AP50 {ahead} against {behind})" in text
    many, few = (f"{min(share):.0f} to {max(share):.0f}" for share in (busy["best"], busy["default"]))
    assert f"Of its 60 queries {many} per cent found an object, of the default's 40 queries {few}" in text


def test_ours_and_torch_nn_are_compared_as_the_words_say() -> None:
    results = json.loads((CHARTS / "compare_bccd" / "comparison.json").read_text(encoding="utf-8"))
    text, runs = section("compare_bccd"), {run["approach"]: run for run in results["approaches"]}
    ours, theirs, tuned = (runs[name] for name in ("ours", "torch_nn", "fine_tuned"))
    doubles, floats = (results["agreement"][name] for name in ("float64", "float32"))
    assert len(doubles["ours"]) == 50 and doubles["largest"] < 1e-9
    assert f"differ by {doubles['largest']:.1e} of themselves" in text.replace("e-0", "e-")
    assert f"{floats['largest']:.1e} after 50 steps".replace("e-0", "e-") in text
    assert f"AP {ours['AP']:.3f} and {theirs['AP']:.3f}, AP50 {ours['AP50']:.3f} and {theirs['AP50']:.3f}" in text
    at = {name: dict(zip(run["evaluation"]["step"], run["evaluation"]["AP50"])) for name, run in runs.items()}
    early = [f"{at[name][384]:.3f}" for name in ("fine_tuned", "ours", "torch_nn")]
    assert "it has {} after 384 steps, where the other two have {} and {}".format(*early) in text
    assert all(at[name][768] < at["fine_tuned"][384] for name in ("ours", "torch_nn"))
    assert (f"AP ({tuned['AP']:.3f}) and AP75 ({tuned['AP75']:.3f} against {ours['AP75']:.3f} and "
            f"{theirs['AP75']:.3f}) more than in AP50 ({tuned['AP50']:.3f})") in text


def test_what_is_explained_is_what_the_record_shows() -> None:
    record, text = Explanation.load(CHARTS / "explained" / "shapes.npz"), section("explained")
    last = record.cross[:, LAST].astype(float)  # (D,N,h,w): of each detection, head by head
    cells = [(np.arange(size) + 0.5) / size for size in last.shape[2:]]
    inside = np.array([(cells[0] > y0)[:, None] & (cells[0] < y1)[:, None] & (cells[1] > x0) & (cells[1] < x1)
                       for x0, y0, x1, y1 in record.boxes[:, LAST]])  # (D,h,w)
    shares = 100 * (last * inside[:, None]).sum((2, 3))
    areas = 100 * np.prod(record.boxes[:, LAST, 2:] - record.boxes[:, LAST, :2], axis=-1)
    assert (f"head 1 puts {shares[:, 0].min():.0f} to {shares[:, 0].max():.0f} per cent of its attention into boxes "
            f"that cover {areas.min():.0f} to {areas.max():.0f} per cent") in text
    others = shares[:, 1:]
    assert f"Heads 2, 3 and 4 have {others.min():.0f} to {others.max():.0f} per cent there, at most " in text
    assert f"at most {100 * last[:, 1:].max():.1f} per cent on a cell" in " ".join(text.split())
    cells = [(np.arange(size) + 0.5) / size for size in record.places.shape[2:]]
    encoder = record.places.astype(float)[-len(record.boxes):].mean(1)  # (D,h,w): the last points are the detections' centres
    boxes = np.array([(cells[0] > y0)[:, None] & (cells[0] < y1)[:, None] & (cells[1] > x0) & (cells[1] < x1)
                      for x0, y0, x1, y1 in record.boxes[:, LAST]])  # (D,h,w)
    times = (encoder * boxes).sum((1, 2)) / encoder.sum((1, 2)) / boxes.mean((1, 2))
    assert f"its box gets {times.min():.1f} to {times.max():.1f} times as much attention as if all" in " ".join(text.split())
    proposed, first, second = record.iou[:, :3].min(0)
    assert f"an IoU of {proposed:.2f} and more" in text
    assert f"after one layer it is {int(100 * first) / 100} and more, after two {int(100 * second) / 100}." in text
    names = [detection["labels"][0][0] for detection in record.about["detections"]]
    assert [k + 1 for k, name in enumerate(names) if name == "ellipse"] == [4, 7]


def test_one_query_goes_where_it_has_to_and_the_others_stay() -> None:
    record = json.loads((CHARTS / "explained" / "slots.json").read_text(encoding="utf-8"))
    centres = np.array(record["boxes_cxcywh"])[..., :2] / 1000  # (I,Q,2)
    away = np.linalg.norm(centres.std(axis=0), axis=-1)
    assert centres.shape[:2] == (87, 40) and away.argmax() + 1 == 29
    assert away.max() > 4 * np.sort(away)[-2] and np.sort(away)[-2] < 0.06


def test_the_page_on_speed_tells_what_wider_products_change() -> None:
    page = (REPOSITORY / "docs" / "speed.md").read_text(encoding="utf-8")
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    narrow, wide, *plans = (json.loads((REPOSITORY / "benchmarks" / f"{name}.json").read_text(encoding="utf-8"))
                            for name in ("training_step_amd", "training_step_amd_avx512", "plans_amd",
                                         "plans_amd_avx512"))
    pairs = list(zip(narrow["results"], wide["results"], strict=True))
    for pair in pairs:
        told = [f"{r['ours']['step']:.2f} s | {r['reference']['step']:.2f} s | {r['ratio']['step']:.2f}" for r in pair]
        assert f"| `{pair[0]['preset']}` | {' | '.join(told)} |" in page
    ratios = [one["ratio"]["step"] for one, _ in pairs]
    assert f"{min(ratios):.2f} to {max(ratios):.2f} times" in readme
    gflops = [figures["machine"]["gflops"] for figures in plans]
    assert (f"| a matrix product | {gflops[0]['product']:.0f} | {gflops[1]['product']:.0f} |\n"
            f"| a 3×3 convolution of `torch.nn` that multiplies as often | {gflops[0]['convolution']:.0f} | "
            f"{gflops[1]['convolution']:.0f} |") in page
    said = " ".join(page.split())
    tried = json.loads((REPOSITORY / "benchmarks" / "multiplying_amd.json").read_text(encoding="utf-8"))
    plain, narrowed, library, both = (figures["product"] for figures in tried.values())
    assert f"({narrowed} GFLOP/s beside {plain})" in said and f"({both} instead of {library};" in said
    for side in ("ours", "reference"):
        times = [one[side]["step"] / other[side]["step"] for one, other in pairs]
        assert f"{min(times):.1f} to {max(times):.1f} times" in said
    first = {r["preset"]: r["ratio"]["step"] for r in
             json.loads((REPOSITORY / "benchmarks" / "training_step.json").read_text(encoding="utf-8"))["results"]}
    assert "within 0.06 of those of the first table" in said
    assert all(abs(r["ratio"]["step"] - first[r["preset"]]) < 0.06 for r in wide["results"])
    slower = []
    for figures in plans:
        times = [r["seconds"][r["chosen"]] / min(s for name, s in r["seconds"].items() if name != "torch.nn")
                 for r in figures["results"]]
        slower.append((len(times), sum(time > 1.1 for time in times), max(times)))
    (cases, some, worst), (_, one, other) = slower
    assert f"of {cases} convolutions, {some} have a plan that is more than 1.1 times as fast" in said
    assert f"at most {worst:.2f} times; with the library {one} has one, {other:.2f} times: 32→64 3×3 /2" in said
    seconds = next(r for r in plans[1]["results"] if r["case"] == "32→64 3×3 /2, 16×18×18")["seconds"]
    assert f"{1e3 * seconds['Shifted']:.1f} ms instead of {1e3 * seconds['Columns']:.1f}." in said


def test_the_page_on_speed_tells_the_measured_steps_and_layers() -> None:
    page = (REPOSITORY / "docs" / "speed.md").read_text(encoding="utf-8")
    for name in ("training_step.json", "training_step_dc5.json"):
        for r in json.loads((REPOSITORY / "benchmarks" / name).read_text(encoding="utf-8"))["results"]:
            assert (f"| {r['ours']['step']:.2f} s | {r['reference']['step']:.2f} s | {r['ratio']['step']:.2f} | "
                    f"{r['ratio']['peak_memory_gib']:.2f} |") in page
    compiled = json.loads((REPOSITORY / "benchmarks" / "training_step_compiled.json").read_text(encoding="utf-8"))
    for r in (r["compiled"] | {"preset": r["preset"]} for r in compiled["results"]):
        assert (f"| `{r['preset']}` | {r['ours']['step']:.2f} s | {r['reference']['step']:.2f} s | "
                f"{r['ratio']['step']:.2f} |") in page
    presets = json.loads((REPOSITORY / "benchmarks" / "layer_map.json").read_text(encoding="utf-8"))["results"]
    for kind in ("conv", "attention", "linear", "batch-norm", "layer-norm"):
        cells = []
        for preset in presets:
            rows = [row for row in preset["layers"] if row["kind"] == kind]
            ours, theirs = (sum(row["seconds"][side] for row in rows) for side in ("ours", "reference"))
            cells.append(f"{100 * sum(row['share'] for row in rows):.1f} %, {ours / theirs:.2f}")
        assert f"| {kind} | {' | '.join(cells)} |" in page


def test_the_notes_tell_the_measured_ladders() -> None:
    data = json.loads((REPOSITORY / "benchmarks" / "ladder.json").read_text(encoding="utf-8"))
    note = Path(fast_convolution.__file__).read_text(encoding="utf-8")
    convolution, deep, stem, attention = (
        {rung["rung"]: rung for rung in ladder["rungs"]} for ladder in data["results"])
    names = {"conv2d_im2col": "im2col, autograd", "Columns": "columns", "Shifted, whole": "shifted, whole",
             "Shifted": "shifted, in tiles", "Winograd": "winograd", "Rows": "rows", "torch.nn": "torch.nn"}
    told_rungs = [(name, rungs[rung]) for rungs in (convolution, stem) for name, rung in names.items() if rung in rungs]
    for name, figures in told_rungs:
        told = [f"{1e3 * figures['forward']:.1f}", f"{1e3 * figures['whole']:.1f}", f"{figures['bytes'] / 1e6:.0f}"]
        lines = [line[1:].split() for line in note.splitlines() if line.startswith(f"#     {name} ")]
        assert any(line[len(name.split()):][:3] == told for line in lines), name
    rungs = [stem[rung] for rung in ("im2col, autograd", "columns", "rows")]  # faster forward, slower with backward
    assert rungs == sorted(rungs, key=lambda rung: rung["whole"]) == sorted(rungs, key=lambda rung: -rung["forward"])
    winograd, shifted, theirs = (f"{1e3 * deep[rung]['whole']:.1f}"
                                 for rung in ("winograd", "shifted, in tiles", "torch.nn"))
    assert (f"256 → 256, 2×30×40, takes {winograd} ms forward and\n# backward by Winograd, {shifted} by Shifted and "
            f"{theirs} in torch.nn.") in note
    note = Path(fast_attention.__file__).read_text(encoding="utf-8")
    for name, rung in (("attention_batched", "batched, autograd"), ("Attention", "in place, kept"),
                       ("TiledAttention", "in tiles"), ("torch.nn", "torch.nn")):
        figures = attention[rung]
        told = [f"{1e3 * figures['forward']:.1f}", f"{1e3 * figures['whole']:.1f}", f"{figures['bytes'] / 1e6:.0f}"]
        assert any(line.split()[1:5] == [name, *told] for line in note.splitlines() if line.startswith("#     ")), name


def test_the_recipes_two_sets_learnt_what_the_page_says() -> None:
    curves = json.loads((CHARTS / "recipe" / "learning_curve.json").read_text(encoding="utf-8"))
    page = (REPOSITORY / "docs" / "recipe_runs.md").read_text(encoding="utf-8")
    names = ("raccoons, 20 minutes, colours as they are", "**raccoons, 20 minutes**, `--colour 0.3`",
             "blood cells, 30 minutes, 50 queries", "**blood cells, 30 minutes**, 90 queries")
    for curve, words in zip(curves, names, strict=True):
        AP, AP50 = curve["evaluation"]["AP"], curve["evaluation"]["AP50"]
        best = AP.index(max(AP))
        assert (f"| {words} | {curve['steps']:,} | {AP[best]:.3f} / {AP50[best]:.3f} | {AP[-1]:.3f} / {AP50[-1]:.3f} |"
                ) in page
    lowest = [min(curve["evaluation"]["loss"]) for curve in curves]
    assert f"the lowest loss on val is {lowest[1]:.2f} instead of {lowest[0]:.2f}" in page
    fewer, more = (curve["evaluation"]["AP50"] for curve in curves[2:])
    assert f"at {sum(a < b for a, b in zip(fewer, more))} of its {len(fewer)} evaluations" in " ".join(
        (CHARTS / "index.md").read_text(encoding="utf-8").split())


def test_what_was_tried_of_the_recipe_is_what_the_page_says() -> None:
    tried = json.loads((CHARTS / "recipe" / "tried.json").read_text(encoding="utf-8"))
    page = (REPOSITORY / "docs" / "recipe_runs.md").read_text(encoding="utf-8")
    names = ("… with another seed (`--seed 1`)", "… and cells of 32 pixels (`--no-dilation`: side 256, 64 queries)")
    for its, words in zip(tried, names, strict=True):
        best, end = (f"{its[when]['AP']:.3f} / {its[when]['AP50']:.3f}" for when in ("best", "end"))
        assert f"| {words} | {its['steps']:,} | {best} | {end} |" in page
    assert f"With another seed it is {tried[0]['lowest loss']['loss']:.2f}, near the end as well." in page
    assert tried[0]["lowest loss"]["step"] > 0.9 * tried[0]["steps"]
    curves = json.loads((CHARTS / "recipe" / "learning_curve.json").read_text(encoding="utf-8"))
    first = max(zip(curves[1]["evaluation"]["AP"], curves[1]["evaluation"]["AP50"]))
    gaps = [a - b for a, b in zip(first, tried[0]["best"].values())]
    assert f"({gaps[0]:.3f} in AP, {gaps[1]:.3f} in AP50)" in page
    test = tried[1]["test"]
    assert (f"{test['AP']:.3f} / {test['AP50']:.3f} (white cells {test['classes']['WBC']:.3f}, red cells "
            f"{test['classes']['RBC']:.3f}, platelets {test['classes']['Platelets']:.3f})") in page


def test_what_exporting_costs_is_what_the_page_says() -> None:
    forms = json.loads((CHARTS / "recipe" / "exported.json").read_text(encoding="utf-8"))
    page = (REPOSITORY / "docs" / "results.md").read_text(encoding="utf-8")
    names = ("PyTorch, float32", "`model.onnx`, float32", "`--half`", "`--int8`")
    for its, name in zip(forms, names, strict=True):
        assert (f"| {name} | {its['MiB']:.1f} | {its['AP']:.3f} / {its['AP50']:.3f} | {its['lost']:.4f} | "
                f"{its['ms']:.1f} |") in page
    _, plain, half, int8 = (its["ms"] for its in forms)
    assert min(half, int8) >= plain  # neither is faster


def test_the_demo_in_bf16_learnt_what_the_page_says() -> None:
    run = json.loads((CHARTS / "tiny" / "bf16.json").read_text(encoding="utf-8"))
    page = " ".join((REPOSITORY / "docs" / "speed.md").read_text(encoding="utf-8").split())
    assert (f"(`{run['command']}`, one run, seed {run['seed']}) takes {run['steps']:,} steps in its {run['minutes']} "
            f"minutes, and ends at val AP {run['AP']:.3f}, AP50 {run['AP50']:.3f}, AP75 {run['AP75']:.3f}.") in page
    demo = (REPOSITORY / "docs" / "results.md").read_text(encoding="utf-8")
    assert all(f"| {figures} |" in demo for figures in
               ("0.704 | 0.966 | 0.849", "0.713 | 0.972 | 0.859", "0.718 | 0.969 | 0.862"))
    assert "ended at AP 0.704 to 0.718, AP50 0.966 to 0.972" in page
    assert "the demo has 0.704 to 0.718." in section("removal_shapes") and "features has AP 0.704 to 0.718." in demo


def test_what_roi_features_bring_is_what_the_pages_say() -> None:
    figures = json.loads((CHARTS / "tiny" / "roi_features.json").read_text(encoding="utf-8"))
    charts = (CHARTS / "index.md").read_text(encoding="utf-8")
    before, boxes, both = figures["trained"]
    for run in figures["trained"]:
        assert (f"| {run['steps']} | {run['AP']:.3f} / {run['AP50']:.3f} / {run['AP75']:.3f} | {run['loss']:.2f} |"
                in charts)
    assert boxes["AP"] > before["AP"] + 0.1 and both["loss"] > boxes["loss"] and both["AP50"] < boxes["AP50"]
    demo, *raccoons = figures["offsets"]
    left, moved = (", ".join(f"{run[how]:.3f}" for run in raccoons) for how in ("left", "moved"))
    assert f"({demo['left']:.3f} instead of {demo['moved']:.3f} for\nthe demo in bf16; {left} instead of {moved} for" in charts
    one, other = figures["demos"]
    results = (REPOSITORY / "docs" / "results.md").read_text(encoding="utf-8")
    for run, seed in zip((one, other, *figures["demos_of_other_seeds"]), (42, 42, 1, 2), strict=True):
        assert f"| {seed} | {run['steps']:,} | {run['AP']:.3f} | {run['AP50']:.3f} | {run['AP75']:.3f} |" in results
    newer = json.loads((CHARTS / "tiny" / "three_seeds.json").read_text(encoding="utf-8"))["demos"]
    reached = sorted(run["AP"] for run in (*figures["demos"], *figures["demos_of_other_seeds"], *newer))
    notebook = (REPOSITORY / "notebooks" / "detr.py").read_text(encoding="utf-8")
    assert f"reaches [AP {reached[0]:.2f} to {reached[-1]:.2f}]" in notebook
    step, speed = figures["step"], (REPOSITORY / "docs" / "speed.md").read_text(encoding="utf-8")
    assert (f"a step of `tiny` takes {step['ours']} s, that of `torch.nn` {step['torch_nn']} s, {step['ratio']:.2f} times, on the AMD"
            in " ".join(speed.split()))
    most = max(abs(run["left"] - run["moved"]) for run in figures["offsets"])
    for page in ("docs/results.md", "scratch/model/anchors/roi_features.py"):
        text = " ".join((REPOSITORY / page).read_text(encoding="utf-8").split())
        assert f"offsets change AP by {most:.3f} at most" in text, page


def test_trials_with_three_seeds_came_to_what_the_page_says() -> None:
    figures = json.loads((CHARTS / "tiny" / "three_seeds.json").read_text(encoding="utf-8"))
    trials, page = figures["trials"], section("tiny")
    mean, mean50 = {}, {}
    for trial in trials:
        runs = trial["runs"]
        AP, AP50 = (", ".join(f"{run[name]:.3f}" for run in runs) for name in ("AP", "AP50"))
        assert f"| {runs[0]['steps']:,} | {AP} | {AP50} |" in page, trial["tried"]
        mean[trial["set"], trial["tried"]] = {run["seed"]: run["AP"] for run in runs}
        mean50[trial["set"], trial["tried"]] = sum(run["AP50"] for run in runs) / len(runs)
    without, route = mean["shapes", "without the route"], mean["shapes", "the route"]
    assert len(without) == 3 and all(route[seed] > without[seed] + 0.005 for seed in route)
    for worse in ("the sweep's winner", "DEIM's loss"):
        assert all(AP < without[seed] - 0.015 for seed, AP in mean["shapes", worse].items())
    gain = sum(route.values()) / len(route) - sum(without[seed] for seed in route) / len(route)
    for name in ("docs/results.md", "hyper_parameter_tuning_charts/index.md"):
        assert f"by {gain:.3f} (" in (REPOSITORY / name).read_text(encoding="utf-8"), name
    earlier = sum(mean["shapes", "an earlier form of the route"].values()) / 3 - sum(without.values()) / 3
    apart = max(without.values()) - min(without.values())
    assert f"in its earlier form by {earlier:.3f}, three seeds), where without it three seeds differ by {apart:.3f}." in page
    both = [("blood cells", tried) for tried in ("as the recipe is", "an earlier form of the route")]
    cells = [sum(mean[tried].values()) / 3 for tried in both]
    words = " ".join(page.split())
    assert (f"a mean AP of {cells[0]:.3f} without it and {cells[1]:.3f} with it, a mean AP50 of {mean50[both[0]]:.3f} and "
            f"{mean50[both[1]]:.3f};" in words)
    with_loss = sum(mean["blood cells", "DEIM's loss"].values()) / 3
    assert f"on the blood cells, three seeds, its mean AP is {with_loss:.3f} against {cells[0]:.3f}." in words
    both = [("raccoons", tried) for tried in ("as the recipe is", "the route")]
    raccoons = [sum(mean[tried].values()) / 3 for tried in both]
    apart50 = [run["AP50"] for trial in trials if (trial["set"], trial["tried"]) == both[0] for run in trial["runs"]]
    assert (f"gain AP, {raccoons[0]:.3f} → {raccoons[1]:.3f} (three seeds), and lose AP50, {mean50[both[0]]:.3f} → "
            f"{mean50[both[1]]:.3f}, of which three seeds differ by {max(apart50) - min(apart50):.3f} without it." in words)
    deim = figures["deim_250_steps"]
    APs, weights = ("{}, {} and {}".format(*values) for values in
                    ((f"{AP:.3f}" for AP in deim["class_weights"].values()), deim["class_weights"]))
    assert f"its AP is {APs} with the class weights {weights}, where the preset's loss has {deim['without']:.3f}." in page
    step = figures["step"]
    results, speed = ((REPOSITORY / name).read_text(encoding="utf-8") for name in ("docs/results.md", "docs/speed.md"))
    for demo in figures["demos"]:
        assert f"| {demo['seed']} | {demo['steps']:,} | {demo['AP']:.3f} | {demo['AP50']:.3f} | {demo['AP75']:.3f} |" in results
    assert f"takes {step['ours']} s, that of `torch.nn` {step['torch_nn']} s, {step['ratio']:.2f} times (Intel" in speed


def test_three_seeds_of_raccoons_learnt_what_the_pages_say() -> None:
    curves = json.loads((CHARTS / "recipe_seeds" / "learning_curve.json").read_text(encoding="utf-8"))
    page, results = ((REPOSITORY / "docs" / name).read_text(encoding="utf-8") for name in ("recipe_runs.md", "results.md"))
    charts = (CHARTS / "index.md").read_text(encoding="utf-8")
    best = [max(zip(run["evaluation"]["AP"], run["evaluation"]["AP50"])) for run in curves]
    assert [run["name"] for run in curves] == [f"raccoons_seed_{seed}" for seed in (42, 1, 2)]
    for run, (AP, AP50) in zip(curves, best):
        end = " / ".join(f"{run['evaluation'][name][-1]:.3f}" for name in ("AP", "AP50"))
        assert f"| {run['name'].rsplit('_')[-1]} | {run['steps']:,} | {AP:.3f} / {AP50:.3f} | {end} |" in page
    assert "AP {:.3f} and AP50 {:.3f}.".format(*map(mean, zip(*best))) in page
    alone = json.loads((CHARTS / "recipe" / "learning_curve.json").read_text(encoding="utf-8"))[1]
    (tried, _) = json.loads((CHARTS / "recipe" / "tried.json").read_text(encoding="utf-8"))
    times, gains = zip(*((run["steps"] / steps, AP - before) for run, (AP, _), steps, before in zip(
        curves, best, (alone["steps"], tried["steps"]), (max(alone["evaluation"]["AP"]), tried["best"]["AP"]))))
    assert "These are {:.1f} and {:.1f} times the steps of one core".format(*times) in page
    assert "AP is {:.3f} and {:.3f} higher".format(*gains) in page
    val = [mean(losses) for losses in zip(*(run["evaluation"]["loss"] for run in curves))]
    assert [round(run["evaluation"]["minutes"][11]) for run in curves] == [16] * 3
    lowest, highest = (f"{bound(val[11:]):.1f}" for bound in (min, max))
    assert f"falls to {val[11]:.1f} at minute 16, and stays between {lowest} and {highest} until the end" in page
    assert f"that on train is {mean(mean(run['train']['loss'][-5:]) for run in curves):.1f}." in page
    assert f"stays between {lowest} and {highest}, while that on train falls" in charts
    assert "Best AP / AP50 " + ", ".join("{:.3f} / {:.3f}".format(*figures) for figures in best) in charts
    assert f"(seed 1: {', '.join(f'{AP50:.3f}' for AP50 in curves[1]['evaluation']['AP50'][:4])})" in charts
    APs, AP50s = (", ".join(f"{figure:.3f}" for figure in figures) for figures in zip(*best))
    assert f"val AP {APs}; AP50 {AP50s} (best evaluations" in results


def test_what_six_minutes_of_raccoons_learnt_is_what_the_page_says() -> None:
    trials = json.loads((CHARTS / "recipe" / "six_minutes.json").read_text(encoding="utf-8"))
    page = (REPOSITORY / "docs" / "recipe_runs.md").read_text(encoding="utf-8")
    losses = []
    for one, other in zip(trials[::2], trials[1::2], strict=True):
        assert (one["flags"], one["seed"]) == (other["flags"], 42) and other["seed"] == 1
        flags = f"`{one['flags']}`" if one["flags"] else "**what the recipe chooses**"
        losses.append(mean([one["loss"], other["loss"]]))
        figures = " | ".join(f"{its['AP']:.3f} / {its['AP50']:.3f}" for its in (one, other))
        assert f"| {flags} | {one['steps']:,}; {other['steps']:,} | {figures} | {losses[-1]:.1f} |" in page
    gaps = [abs(one["loss"] - other["loss"]) for one, other in zip(trials[::2], trials[1::2])]
    assert f"which differ by {min(gaps):.1f} to {max(gaps):.1f} in loss" in page
    half, mosaics = (losses[k] - losses[0] for k in (1, 3))
    assert f"but half the rates ({half:.1f} higher) and more mosaics ({mosaics:.1f}) are" in page
    assert min(losses) == losses[0] and not trials[0]["flags"]


def test_each_choice_of_the_recipe_has_the_alternatives_that_its_page_shows() -> None:
    """Rows of flags, columns of sets: the mean of two seeds, or the figure of the one that was run."""
    measured = json.loads((CHARTS / "recipe" / "thresholds.json").read_text(encoding="utf-8"))
    section = (REPOSITORY / "docs" / "recipe.md").read_text(encoding="utf-8").partition("### Each choice")[2].partition("\n### ")[0]
    sets, trials = measured["sets"], measured["trials"]
    found = {flags: {its["set"]: its["runs"] for its in trials if its["flags"] == flags} for flags in
             (its["flags"] for its in trials)}

    def apart(name: str, what: str) -> float:
        return mean(abs(of[name][0][what] - of[name][1][what]) for of in found.values() if len(of.get(name, ())) == 2)

    def figures(runs: list[dict]) -> str:
        return " / ".join(f"{mean(run[what] for run in runs):.3f}" for what in ("AP", "AP50")) if runs else "–"

    for name, of in sets.items():
        assert (f"| {name} | {of['pictures']} | {of['boxes'] / of['pictures']:.1f} | {of['classes']} | {of['side']} | "
                f"{apart(name, 'AP'):.3f} / {apart(name, 'AP50'):.3f} |") in section
    assert f"| flags | {' | '.join(sets)} |" in section
    for flags, of_sets in found.items():
        cells = [figures(runs) + (f" (seed {runs[0]['seed']})" if len(runs) == 1 else "")
                 for runs in (of_sets.get(name, []) for name in sets)]
        words = f"`{flags}`" if flags else "**the recipe, with the sides above**"
        assert f"| {words} | {' | '.join(cells)} |" in section
    alone = [figures([run for run in found[""][name] if run["seed"] == 1]) for name in sets]
    assert f"| … with seed 1 alone, for the rows of one seed | {' | '.join(alone)} |" in section
    assert len(re.findall(r"^\| (?:`--|\*\*|…)", section, re.MULTILINE)) == len(found) + 1
    minutes = {(flags, name): mean(run["minutes"] for run in runs) / mean(run["minutes"] for run in found[""][name])
               for flags, of_sets in found.items() for name, runs in of_sets.items()}
    for name in ("blood cells", "chess pieces"):
        assert minutes["--short-side 144", name] == pytest.approx(0.6, abs=0.05)
    assert minutes["--short-side 192", "playing cards"] == pytest.approx(1.4, abs=0.05)
    assert all(minutes["--grow 0.8", name] == pytest.approx(0.7, abs=0.05) for name in list(sets)[1:])
    cells = {side: PRESETS["tiny"].model.cells(side, side) for side in (144, 176)}
    assert f"they have {cells[144]} queries then" in section
    assert f"have {cells[176]} cells at 176 pixels, so 150 queries are {cells[176]}," in section
    chess = sets["chess pieces"]
    assert chess["judged_alike"] == chess["judged"] and f"(All {chess['judged']} pictures of val look like" in section
    crops = found["--augment zoom --mosaic 0"]
    assert all(mean(run["AP"] for run in crops[name]) <= mean(run["AP"] for run in found[""][name]) for name in sets)


def test_whole_runs_learnt_what_the_recipes_page_says() -> None:
    runs = json.loads((CHARTS / "recipe" / "whole_runs.json").read_text(encoding="utf-8"))
    page = (REPOSITORY / "docs" / "recipe_runs.md").read_text(encoding="utf-8")
    for run in (*runs["raccoons"], *runs["cards"]):
        flags = f"`{run['flags']}`" if run["flags"] else "**what the recipe chooses**"
        best, end = (f"{run[when]['AP']:.3f} / {run[when]['AP50']:.3f}" for when in ("best", "end"))
        assert f"| {flags} | {run['steps']:,} | {best} | {end} | {run['lowest_loss']:.2f} |" in page
    cells, results = runs["cells"], (REPOSITORY / "docs" / "results.md").read_text(encoding="utf-8")
    of_classes = ", ".join(f"{name} {AP50:.3f}" for name, AP50 in cells["test"]["classes"].items())
    val = "{AP:.3f} / {AP50:.3f}".format(**cells["best"])
    assert f"| {cells['steps']:,} | {val} | {val} | **{cells['test']['AP']:.3f} / {cells['test']['AP50']:.3f}** ({of_classes}) |" in page
    assert "| test AP {AP:.3f}, AP50 {AP50:.3f}, AP75 {AP75:.3f} (".format(**cells["test"]) + of_classes in results
    assert "val AP {AP:.3f}, AP50 {AP50:.3f}, on one core beside".format(**cells["best"]) in results
    for whole in (*runs["cells_30_minutes"], runs["cells_20_minutes"]):
        best, end, test = ("{AP:.3f} / {AP50:.3f}".format(**whole[name]) for name in ("best", "end", "test"))
        of_classes = ", ".join(f"{name} {AP50:.3f}" for name, AP50 in whole["test"]["classes"].items())
        assert f"{whole['words']} | {whole['steps']:,} | {best} | {end} | **{test}** ({of_classes}) |" in page
        assert "| test AP {AP:.3f}, AP50 {AP50:.3f}, AP75 {AP75:.3f} (".format(**whole["test"]) + of_classes in results
        assert "val AP {AP:.3f}, AP50 {AP50:.3f}, after ".format(**whole["best"]) + f"{whole['steps']:,} steps" in results
    AP, AP50 = (" and ".join(f"{its[name]:.3f}" for its in runs["cells_1600_steps"]) for name in ("AP", "AP50"))
    runs_of_1600 = [run for its in json.loads((CHARTS / "recipe" / "thresholds.json").read_text(encoding="utf-8"))["trials"]
                    if its["flags"] == "--max-steps 1600" for run in its["runs"]]
    least, most = (round(choice(run["minutes"] for run in runs_of_1600)) for choice in (min, max))
    assert f"with mosaics, {least} to {most} minutes of a core" in page
    assert f"seeds 42 and 1) have a test AP of {AP}, an AP50 of {AP50}." in page
    crops, short, long = runs["cells_30_minutes"]
    assert (f"AP50 is {short['test']['AP50']:.3f} after {short['steps']:,} steps, {crops['test']['AP50']:.3f} and "
            f"{long['test']['AP50']:.3f} after {crops['steps']:,} and {long['steps']:,},") in page
    assert f"20 for these, where it took 30 for the number of boxes: {whole['steps']:,} steps" in page
    assert (f"ends\nat {short['loss_at_end']:.2f} after {short['steps']:,} steps and at {long['loss_at_end']:.2f} after "
            f"{long['steps']:,}") in page
    questions = (REPOSITORY / "docs" / "questions.md").read_text(encoding="utf-8")
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert f"learns them in 20 minutes on two CPU cores (test AP50 {whole['test']['AP50']:.3f})" in readme
    assert questions.count(f"a test AP50 of {whole['test']['AP50']:.3f} in 20 minutes") == 2
    cards = runs["cards_data"]
    assert (f"{cards['pictures']} pictures with {cards['boxes']} boxes of {cards['classes']} classes in train, "
            f"{cards['judged']} pictures in val") in page and f"shows a small card with {cards['pixels']} of 144 pixels" in page
    recipe, *others = runs["raccoons"]
    assert all(run["best"]["AP"] <= recipe["best"]["AP"] for run in others)
    for run in runs["unseen"]:
        flags = f"`{run['flags']}`" if run["flags"] else "**what the recipe chooses**"
        best, end = (f"{run[when]['AP']:.3f} / {run[when]['AP50']:.3f}" for when in ("best", "end"))
        assert (f"| {run['set']}, {flags} | {run['minutes']} | {run['steps']:,} | {best} | {end} | {run['lowest_loss']:.2f} |"
                in page)
    masks = runs["masks_data"]
    assert (f"{masks['pictures']} pictures with {masks['boxes']:,} boxes of {masks['classes']} classes in train, "
            f"{masks['judged']} pictures in val; a small face has\n{masks['pixels']} of 256 pixels") in page
    assert ("have AP {:.3f} and {:.3f}, AP50 {:.3f} and {:.3f} after {:,} and {:,} steps".format(*(
        run[name] for name in ("AP", "AP50", "step") for run in runs["from_shapes"]))) in page
    nothing = runs["from_nothing"]
    assert f"AP {nothing['AP']:.3f} by then (seed {nothing['seed']}, step {nothing['step']:,})" in page
    seeds = runs["raccoons_roi_features"]
    for run in seeds:
        best, end = (f"{run[when]['AP']:.3f} / {run[when]['AP50']:.3f}" for when in ("best", "end"))
        assert f"| {run['seed']} | {run['steps']:,} | {best} | {end} | {run['lowest_loss']:.2f} |" in page
    APs, AP50s = (", ".join(f"{run['best'][name]:.3f}" for run in seeds) for name in ("AP", "AP50"))
    assert f"with RoI features AP {APs}; AP50 {AP50s} |" in results
    AP, AP50 = (mean(run["best"][name] for run in seeds) for name in ("AP", "AP50"))
    assert f"The means of the best are AP {AP:.3f} and AP50 {AP50:.3f}, where they were" in page
    whole = runs["raccoons_20_minutes"]
    for run in whole:
        best, end = (f"{run[when]['AP']:.3f} / {run[when]['AP50']:.3f}" for when in ("best", "end"))
        assert f"| {run['seed']} | {run['steps']:,} | {best} | {end} | {run['lowest_loss']:.2f} |" in page
    APs, AP50s = (", ".join(f"{run['best'][name]:.3f}" for run in whole) for name in ("AP", "AP50"))
    first, second, third = (f"{run['steps']:,}" for run in whole)
    assert f"| AP {APs}; AP50 {AP50s}, after {first}, {second} and {third} steps on two slow cores (" in results
    of_three = {name: f"{mean(run['best'][name] for run in whole):.3f}" for name in ("AP", "AP50")}
    assert "The means of the best are AP {AP} and AP50 {AP50}, with fewer than half of the steps".format(**of_three) in page
    assert max(run["steps"] for run in whole) < 4500 / 2
    fewest, most = (f"{choice(run['steps'] for run in whole):,}" for choice in (min, max))
    assert f"the mean of three seeds is [{of_three['AP']}](#raccoons-whole-runs), with {fewest} to {most} steps." in page
    assert round(20 * 60 / whole[-1]["steps"], 1) == 0.6  # seconds; nothing ran beside this one
    (longer,) = (run for run in runs["sides"] if run["steps"] == 2400)
    assert (f"of 2,400 steps ended at {longer['AP']:.3f}, this one of {whole[0]['steps']:,} at {whole[0]['end']['AP']:.3f}."
            in page) and longer["seed"] == whole[0]["seed"] == 42
    one, other = (runs["unseen_data"][name] for name in ("faces with and without a mask", "sacks of limes"))
    assert ("({pictures} pictures with {boxes:,} boxes of {classes} classes in train, {judged} in val)".format(**one) in page
            and "({pictures} with {boxes:,} boxes of {classes} class, {judged} in val)".format(**other) in page)
    recipe_page = (REPOSITORY / "docs" / "recipe.md").read_text(encoding="utf-8")
    assert "two slow cores, mean of three seeds: val AP {AP}, AP50 {AP50} |".format(**of_three) in recipe_page
    summary, tables = recipe_page.partition("In short;")[2].split("\n### Each choice", 1)
    cards, small, large = runs["cards"], *(run for run in runs["unseen"] if run["set"] == "playing cards")
    gains = [f"{after['best']['AP'] - before['best']['AP']:.3f}" for before, after in (cards, (small, large))]
    assert "AP rose by {} at 224 pixels instead of 144 without RoI features, and by {} with them".format(*gains) in summary
    assert f"test AP {test}".replace(" / ", ", AP50 ") in summary and f"val AP {AP:.3f}, AP50 {AP50:.3f} (" in summary
    assert [figure for figure in re.findall(r"\d\.\d{3}", summary) if figure not in tables + page] == gains
    crops, mosaics = (round(recipe["lowest_loss"] - run["lowest_loss"], 1) for run in others[:2])
    assert crops == mosaics == 0.4 and "have a lower loss by 0.4, and no higher AP" in page


def test_queries_minutes_and_the_best_flags_are_those_of_the_recipes_pages() -> None:
    runs, thresholds = (json.loads((CHARTS / "recipe" / name).read_text(encoding="utf-8"))
                        for name in ("whole_runs.json", "thresholds.json"))
    recipe, page = ((REPOSITORY / "docs" / name).read_text(encoding="utf-8") for name in ("recipe.md", "recipe_runs.md"))
    tried: dict[str, dict[str, list[dict]]] = {}
    for trial in thresholds["trials"]:
        tried.setdefault(trial["set"], {})[trial["flags"]] = trial["runs"]

    def figures(found: list[dict]) -> str:
        return " / ".join(f"{mean(run[name] for run in found):.3f}" for name in ("AP", "AP50"))

    def ratio(name: str, ours: float, flags: str, theirs: float) -> str:
        return f"| {name} | {ours:.3f} | {flags} | {theirs:.3f} | {ours / theirs:.2f} |"

    many, few = ([run for run in runs["queries"] if run["queries"] == number] for number in (90, 40))
    for words, its in (("**what the recipe chooses**", many), ("`--num-queries 40`", few)):
        assert [run["seed"] for run in its] == [42, 1]
        assert f"| {words} | {figures(its[:1])} | {figures(its[1:])} | {figures(its)} |" in page
    assert [round(1 - less["AP50"] / more["AP50"], 2) for more, less in zip(many, few)] == [0.27, 0.63]
    assert "cost a quarter of AP50 with one seed, more than half with the other." in recipe
    cells, twice = tried["blood cells"], runs["cells_30_minutes"][2]
    raccoons = [run for run in runs["sides"] if (run["set"], run["side"]) == ("raccoons", 192)]
    for name, its in [*(("playing cards", [run]) for run in runs["lengths"]), ("blood cells", cells[""]),
                      ("blood cells", cells["--max-steps 1600"]), ("blood cells", [{**twice, **twice["end"]}]),
                      ("raccoons", raccoons[:-1]), ("raccoons", raccoons[-1:])]:
        assert f"| {name} | {its[0]['steps']:,} | {len(its)} | {figures(its)} |" in page
        assert len({run["steps"] for run in its}) == 1
    half, whole, double = (run["AP50"] for run in runs["lengths"])
    assert f"rises by {whole - half:.3f} from 550 to 1,100 steps, and by {double - whole:.3f} from there to 2,200." in page
    AP50 = {name: {flags: mean(run["AP50"] for run in its) for flags, its in of.items() if len(its) == 2
                   and its[0]["steps"] == 400} for name, of in tried.items()}
    ratios = []
    for name in ("blood cells", "chess pieces", "kangaroos"):
        ours, best = AP50[name].pop(""), max(AP50[name], key=AP50[name].get)
        assert ratio(f"{name}, 400 steps", ours, f"`{best}`", AP50[name][best]) in recipe
        ratios.append(AP50[name][best] / ours)
    assert ratio("sacks of limes, 400 steps", mean(run["AP50"] for run in many), "`--num-queries 40`",
                 mean(run["AP50"] for run in few)) in recipe
    large = runs["larger_cards"]
    assert ratio("playing cards, as many minutes", whole, f"`--short-side 224` ({large['steps']} steps)", large["AP50"]) in recipe
    assert ratio("blood cells, whole runs, test", runs["cells_20_minutes"]["test"]["AP50"], "`--max-steps 1600`",
                 max(run["AP50"] for run in runs["cells_1600_steps"])) in recipe
    assert ratios[0] == max(*ratios, large["AP50"] / whole)
    assert f"by {100 * (ratios[0] - 1):.1f} per cent at most" in recipe
    raccoon = mean(run["best"]["AP50"] for run in runs["raccoons_20_minutes"])
    assert "The means of the best are AP 0.524 and AP50 0.922" in page
    assert f"no flag reached {raccoon:.3f}, and 144 pixels without RoI features 0.922" in recipe


def test_192_pixels_are_as_good_as_144_in_twenty_minutes_as_the_page_says() -> None:
    runs = json.loads((CHARTS / "recipe" / "whole_runs.json").read_text(encoding="utf-8"))
    page = (REPOSITORY / "docs" / "recipe_runs.md").read_text(encoding="utf-8").partition("## 144 or 192 pixels")[2]
    *pairs, long = runs["sides"]
    for run in runs["sides"]:
        assert (f"| {run['set']} | {run['seed']} | {run['side']} | {run['steps']:,} | {run['minutes']} | {run['AP']:.3f} / "
                f"{run['AP50']:.3f} |") in page
    of = {(name, side): [run for run in pairs if (run["set"], run["side"]) == (name, side)]
          for name in ("raccoons", "kangaroos", "playing cards") for side in (144, 192)}
    for name in ("raccoons", "kangaroos"):
        small, large = of[name, 144], of[name, 192]
        assert abs(mean(run["AP"] for run in small) - mean(run["AP"] for run in large)) < 0.005
        assert all(one["minutes"] > other["minutes"] for one, other in zip(small, large, strict=True))
    (small,) = (run for run in runs["unseen"] if run["set"] == "playing cards" and not run["flags"])
    assert f"have {small['best']['AP']:.3f} / {small['best']['AP50']:.3f}, less than the 1,050 at 192." in page
    assert small["best"]["AP"] < of["playing cards", 192][0]["AP"] and small["steps"] == 1598
    first = runs["raccoons_roi_features"][0]["best"]["AP"]
    assert f"After {long['steps']:,} steps at 192 pixels, raccoons have AP {long['AP']:.3f} (one seed); at 144\npixels they have {first:.3f} after" in page
    assert PRESETS["tiny"].data.short_side == 192
    # Cards at 144 pixels on both: "about half as fast as the cores above".
    (here,) = of["playing cards", 144]
    assert here["steps"] / here["minutes"] / (small["steps"] / small["minutes"]) == pytest.approx(0.5, abs=0.1)
    trials = json.loads((CHARTS / "recipe" / "six_minutes.json").read_text(encoding="utf-8"))
    smaller, larger = ([run["AP"] for run in trials if run["flags"] == flags] for flags in ("", "--short-side 192"))
    assert all(more > less for more, less in zip(smaller, larger, strict=True))  # "in 6 minutes raccoons lost"


def test_the_flagship_learnt_what_the_pages_say() -> None:
    curve, without = json.loads((CHARTS / "flagship" / "learning_curve.json").read_text(encoding="utf-8"))
    page, results, estimate, readme = section("flagship"), *(
        (REPOSITORY / name).read_text(encoding="utf-8") for name in ("docs/results.md", "docs/gpu_estimate.md", "README.md"))
    seconds = float(re.search(r"A step of ours, estimated: T4 (\S+) s \(2,046 steps", estimate)[1])
    assert f"at {seconds} s, without RoI features at 0.58 s:" in page and f"a T4 hold {2046:,} steps" in page
    first, last = (run["evaluation"]["AP"][-1] for run in (curve, without))
    assert f"[AP {first:.3f} after {curve['steps']} steps, {last:.3f} after {without['steps']}]" in results
    found = [{step: " / ".join(f"{figure:.3f}" for figure in figures) for step, *figures in zip(*(
        run["evaluation"][name] for name in ("step", "AP", "AP50", "AP75")))} for run in (curve, without)]
    for step in sorted({**found[0], **found[1]}):
        end = ", the end" if step in (curve["steps"], without["steps"]) else ""
        minutes = (seconds if step in found[0] else 0.58) * step / 60
        assert f"| {step}{end} | {minutes:.1f} | {found[0].get(step, '–')} | {found[1].get(step, '–')} |" in page
    (AP, before), (AP50, AP50_before), (AP75, _) = (
        [run["evaluation"][name][-1] for run in (curve, without)] for name in ("AP", "AP50", "AP75"))
    assert f"AP is {AP - before:.2f} higher at the end, AP50 {AP50 - AP50_before:.2f}," in page
    at = dict(zip(curve["evaluation"]["step"], curve["evaluation"]["AP"]))
    assert at[375] < before < at[500] and "passed before step 500" in page
    assert (f"val AP {AP:.3f}, AP50 {AP50:.3f}, AP75 {AP75:.3f} after {curve['steps']} steps, which a T4 is estimated to "
            f"take in {seconds * curve['steps'] / 60:.1f} minutes") in results
    learnt = f"AP {AP:.3f}, AP50 {AP50:.3f} after {curve['steps']} steps"
    assert learnt in readme and f"{learnt}, {seconds * curve['steps'] / 60:.1f} minutes of a T4" in estimate
    assert page.count("in 104 minutes") == results.count(", 104 minutes |") == 1
    assert round(curve["evaluation"]["minutes"][-1]) == round(without["evaluation"]["minutes"][-1]) == 104
    model = PRESETS["detr_141m_fast"].model
    cells = [model.cells(side, side) for side in (192, 256, 64)]
    assert f"have {cells[0]} cells that propose objects instead of {cells[1]}" in page and f"whose {cells[2]} cells" in page
    checkpoint = 8e-9 * parameters_of(replace(model, num_classes=5))  # GB: weights, and one momentum for each
    assert f"three checkpoints of {checkpoint:.1f} GB each" in (REPOSITORY / "docs" / "using.md").read_text(encoding="utf-8")
    assert f"these {curve['steps']} if a step takes {20 * 60 / seconds / curve['steps'] - 0.05:.1f} times as long" in page


def test_what_roi_features_bring_a_preset_of_the_gpu_is_what_the_pages_say() -> None:
    curves = json.loads((CHARTS / "gpu_presets" / "learning_curve.json").read_text(encoding="utf-8"))
    page, results = section("gpu_presets"), (REPOSITORY / "docs" / "results.md").read_text(encoding="utf-8")
    ends = [{name: run["evaluation"][name][-1] for name in ("AP", "AP50", "AP75", "loss")} for run in curves]
    for run, end, words in zip(curves, ends, ("without", "**with RoI features**"), strict=True):
        figures = " / ".join(f"{end[name]:.3f}" for name in ("AP", "AP50", "AP75"))
        assert f"| {words} | {run['steps']} | {figures} | {end['loss']:.2f} |" in page
    words = " to ".join(f"{end['AP']:.3f} ({run['steps']} steps)" for run, end in zip(curves, ends))
    assert f"`detr_r50_fast` from AP {words}, with squares of 192 pixels" in results
    without, having = (dict(zip(run["train"]["step"], run["train"]["loss"])) for run in curves)
    assert all(abs(having[step] - loss) < 1 for step, loss in without.items() if step <= 25 and step in having)
    assert f"At step 90 that without RoI features is still above {int(without[90])}, the other is at {having[90]:.0f}." in page
    assert all(PRESETS[name].model.roi_features for name in ("tiny", "detr_r50_fast", "detr_141m_fast"))


def test_what_more_queries_find_is_what_the_pages_say() -> None:
    evaluated = {(its["run"], its["split"], its["num_queries"]): its for its in
                 json.loads((CHARTS / "recipe" / "evaluations.json").read_text(encoding="utf-8"))}
    page = (REPOSITORY / "docs" / "recipe_runs.md").read_text(encoding="utf-8")
    for queries, words in ((50, "50, as in training"), (80, "80"), (120, "120")):
        its = evaluated["cells_50_queries", "val", queries]
        assert (f"| {words} | {its['AP']:.3f} / {its['AP50']:.3f} | {its['classes']['RBC']:.3f} | "
                f"{its['classes']['Platelets']:.3f} |") in page
    few, more = (evaluated["cells_50_queries", "test", queries] for queries in (50, 80))
    assert f"With 80 queries instead of 50, AP50 on test rises from {few['AP50']:.3f} to {more['AP50']:.3f}." in page
    best, large = evaluated["cells", "test", 90], evaluated["cells_side_256", "test", 90]
    classes = ", ".join(f"{word} {best['classes'][name]:.3f}" for name, word in
                        (("WBC", "white cells"), ("RBC", "red cells"), ("Platelets", "platelets")))
    assert f"**{best['AP']:.3f} / {best['AP50']:.3f}** ({classes})" in page
    assert f"| {few['AP']:.3f} / {few['AP50']:.3f} |" in page and f"| {large['AP']:.3f} / {large['AP50']:.3f} |" in page
    on_val = evaluated["cells_side_256", "val", 90]
    assert f"| … and side 256 (`--short-side 256`) | 1,381 | {on_val['AP']:.3f} / {on_val['AP50']:.3f} |" in page
    results = (REPOSITORY / "docs" / "results.md").read_text(encoding="utf-8")
    assert f"test AP {best['AP']:.3f}, AP50 {best['AP50']:.3f}, AP75 {best['AP75']:.3f} ({classes})" in results
