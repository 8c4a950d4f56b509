"""The removals: each takes out what its name says and nothing else, and the table says what was measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import matplotlib.image
import pytest
import torch

from benchmarks.ablation import settings
from benchmarks.removal import (
    AFTER_TRAINING, IN_TRAINING, SETTINGS, main, parse, plan_trials, report, with_half_the_queries, without_roi_features,
    without_self_attention,
)
from benchmarks.trials import configuration
from benchmarks.without import PARTS, greedy_assignment, removed
from scratch.analysis.removal_chart import Bar, draw, trained_bars, training_bars
from scratch.config import PRESETS, Config, ModelConfig
from scratch.data.shapes import shapes_dataset
from scratch.model import detr as published
from scratch.model.anchors import detr as variant
from scratch.model.build import build_detr
from scratch.objective.matcher import HungarianMatcher
from scratch.ops import attention
from tests.test_ablation import differing

SMALL = ModelConfig(backbone="resnet_tiny", norm="batch", hidden_dim=24, nheads=3, dim_feedforward=29, enc_layers=1,
                    dec_layers=3, num_queries=7, dropout=0.0, num_classes=3)


def built(**changes: object) -> torch.nn.Module:
    """A small detector in float64, evaluating, of fixed random weights (the box head's are not 0)."""
    torch.manual_seed(5)
    model = build_detr(replace(SMALL, **changes)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def looked_at(model: torch.nn.Module) -> dict:
    torch.manual_seed(6)
    return model(torch.randn(2, 3, 47, 61, dtype=torch.float64), torch.zeros(2, 47, 61, dtype=torch.bool))


# -- parts that are taken out ------------------------------------------------------------------------------------------


def test_greedy_gives_the_first_row_its_cheapest_column_and_the_last_what_is_left() -> None:
    assert greedy_assignment([[1, 2, 8], [3, 9, 9]]) == ([0, 1], [0, 1])  # 10; the optimum of ops/hungarian is 5
    assert greedy_assignment([[5.0], [1.0]]) == ([0], [0])  # more objects than queries: the later ones get none
    assert greedy_assignment([]) == ([], [])


def test_greedy_takes_the_place_of_the_hungarian_algorithm_in_the_matcher() -> None:
    outputs = {"pred_logits": torch.zeros(1, 2, 3), "pred_boxes": torch.tensor([[[.3, .5, .2, .2], [.6, .5, .2, .2]]])}
    targets = [{"labels": torch.tensor([0, 0]), "boxes": torch.tensor([[.4, .5, .2, .2], [.1, .5, .2, .2]])}]

    def pairs() -> list[list[int]]:
        return [indices.tolist() for indices in HungarianMatcher()(outputs, targets)[0]]

    assert pairs() == [[0, 1], [1, 0]]  # object 0 moves to query 1, so that object 1 gets query 0
    with removed("greedy"):
        assert pairs() == [[0, 1], [0, 1]]
    assert pairs() == [[0, 1], [1, 0]]


@pytest.mark.parametrize("changes", [{}, {"queries": "anchor"}, {
    "queries": "proposal", "classification": "focal", "fine_memory": True}], ids=["published", "anchors", "proposals"])
def test_without_positions_a_detector_computes_with_encodings_of_zero(changes: dict) -> None:
    model = built(**changes)
    whole = looked_at(model)["pred_logits"]
    with removed("positions"):
        mask = torch.zeros(1, 3, 5, dtype=torch.bool)
        for module in (published, variant):
            assert module.sine_encoding(mask, 4).shape == (1, 8, 3, 5) and not module.sine_encoding(mask, 4).any()
        assert not variant.sine_of(torch.rand(2, 3), 4).any()
        without = looked_at(model)["pred_logits"]
    assert (without - whole).abs().max() > 1e-3
    assert torch.equal(looked_at(model)["pred_logits"], whole)  # all is as before


@pytest.mark.parametrize("changes", [{}, {"queries": "anchor"}], ids=["published", "anchors"])
def test_without_the_scale_attention_is_softmax_of_the_plain_products(changes: dict) -> None:
    torch.manual_seed(7)
    q, k, v = (torch.randn(1, 1, length, 5, dtype=torch.float64) for length in (2, 3, 3))
    with removed("scale"):
        got = attention.scaled_dot_product_attention(q, k, v)[0]
    assert torch.allclose(got, (q @ k.transpose(-2, -1)).softmax(-1) @ v, atol=1e-12)
    model = built(**changes)
    whole = looked_at(model)["pred_logits"]
    with removed("scale"):
        assert (looked_at(model)["pred_logits"] - whole).abs().max() > 1e-3


@pytest.mark.parametrize("changes, name", [({}, "query_embed"), ({"queries": "anchor"}, "refpoint_embed")])
def test_without_self_attention_a_query_knows_nothing_of_the_others(changes: dict, name: str) -> None:
    def with_another_last_query(model: torch.nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
        before = looked_at(model)["pred_logits"]
        with torch.no_grad():
            getattr(model, name).weight[-1] += 1
        return before, looked_at(model)["pred_logits"]

    before, after = with_another_last_query(built(**changes))
    assert not torch.equal(before[:, :-1], after[:, :-1])
    before, after = with_another_last_query(without_self_attention(built(**changes)))
    assert torch.allclose(before[:, :-1], after[:, :-1], atol=1e-12) and not torch.equal(before[:, -1], after[:, -1])


@pytest.mark.parametrize("changes", [{}, {"queries": "anchor"}, {"queries": "proposal", "classification": "focal"}],
                         ids=["published", "anchors", "proposals"])
def test_half_the_queries_are_the_first_half(changes: dict) -> None:
    whole = looked_at(without_self_attention(built(**changes)))
    half = looked_at(with_half_the_queries(without_self_attention(built(**changes))))
    assert half["pred_boxes"].shape == (2, 3, 4)
    assert torch.allclose(half["pred_boxes"], whole["pred_boxes"][:, :3], atol=1e-12)


def test_without_roi_features_a_box_is_that_of_a_network_whose_features_are_zeros() -> None:
    changes = {"queries": "proposal", "classification": "focal", "roi_features": True}
    model = built(**changes)
    whole = looked_at(model)["pred_boxes"]
    without = looked_at(without_roi_features(built(**changes)))["pred_boxes"]
    with torch.no_grad():
        model.roi_features.combine.weight.zero_(), model.roi_features.combine.bias.zero_()
    assert torch.equal(without, looked_at(model)["pred_boxes"]) and not torch.equal(without, whole)


# -- the trainings -----------------------------------------------------------------------------------------------------

CHANGED = {"auxiliary": {"aux_loss"}, "warm-up": {"warmup_steps"}, "augmentation": {"augment", "mosaic"},
           "no-object": {"eos_coef"}, "clipping": {"clip_max_norm"}}


@pytest.mark.parametrize("name", IN_TRAINING)
def test_a_training_differs_from_its_setting_in_what_is_removed_alone(name: str) -> None:
    removal = IN_TRAINING[name]
    setting = configuration(SETTINGS[removal.setting])
    assert differing(configuration([*SETTINGS[removal.setting], *removal.flags]), setting) == CHANGED.get(name, set())
    assert bool(removal.flags) != (removal.part in PARTS)  # a flag or a part, and never both


def test_the_settings_have_what_is_removed_from_them() -> None:
    assert configuration(SETTINGS["tiny"]) == PRESETS["tiny"]
    tiny = settings(PRESETS["tiny"], "aux_loss", "warmup_steps", "augment", "mosaic")
    assert tiny["aux_loss"] and tiny["warmup_steps"] and tiny["mosaic"] and tiny["augment"] != "none"
    softmax = configuration(SETTINGS["softmax"])
    assert (softmax.model.classification, softmax.loss.eos_coef, softmax.train.clip_max_norm) == ("softmax", 0.1, 0.1)


@pytest.mark.parametrize("name", SETTINGS)
def test_the_network_of_each_setting_can_be_built(name: str) -> None:
    config = configuration(SETTINGS[name]).model
    with torch.device("meta"):
        assert build_detr(config).config == config


QUICK = ["--flags", "--short-side 64 --max-size 96 --batch-size 4 --workers 0 --hidden-dim 32 --dim-feedforward 48",
         "--device", "cpu", "--parts", "greedy", "no-object", "--seeds", "7", "--steps", "2", "--data", "shapes-set",
         "--out", "out"]


@pytest.mark.slow
def test_a_whole_round_is_measured_written_down_and_not_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    shapes_dataset(tmp_path, 8, 2).rename(tmp_path / "shapes-set")
    main(QUICK)
    results = json.loads(Path("out/removal.json").read_text())
    assert [run["variant"] for run in results["runs"]] == ["tiny", "softmax", "greedy", "no-object"]
    commands = {run["variant"]: run["command"] for run in results["runs"]}
    assert commands["greedy"].startswith("python -m benchmarks.without greedy train --preset tiny")
    assert commands["tiny"].startswith("python detr_scratch.py train --preset tiny")
    assert all(run["steps"] == 2 for run in results["runs"])

    monkeypatch.setattr("commands.children.Children.run", None)  # nothing may be started
    main(QUICK)
    run = next(Path("out/runs").rglob("tiny-seed7"))
    capsys.readouterr()
    main(["--out", "out", "--device", "cpu", "--run", str(run)])
    assert "without the decoder layers after layer 1: AP" in capsys.readouterr().out
    both = json.loads(Path("out/removal.json").read_text())
    assert both["runs"] == results["runs"]
    assert [row["name"] for row in both["trained"]] == [*AFTER_TRAINING, "layers-1", "layers-2"]
    objects = len(json.loads(next(Path("shapes-set").rglob("*val*.json")).read_text())["annotations"])
    assert both["objects"]["number"] == objects >= both["objects"]["same"] >= 0
    assert list(both["objects"]["iou"]) == ["start", "layer 1", "layer 2", "layer 3"]
    assert all(0 <= iou <= 1 for iou in both["objects"]["iou"].values())
    assert matplotlib.image.imread("out/removal.png").ndim == 3
    Path("out/removal.md").unlink()
    main(["--out", "out", "--redraw"])
    assert "| the Hungarian algorithm |" in Path("out/removal.md").read_text()


def test_without_a_run_and_without_steps_nothing_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--out", "out"])
    assert "got neither --run nor --steps" in capsys.readouterr().err


def test_every_seed_trains_each_setting_whole_and_without_each_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    shapes_dataset(tmp_path, 3, 1).rename(tmp_path / "shapes-set")
    trials = plan_trials(parse([*QUICK[:QUICK.index("--parts")], "--parts", "warm-up", "--seeds", "1", "3",
                                *QUICK[QUICK.index("--steps"):]]))
    assert [(trial.variant, trial.seed) for trial in trials] == [("tiny", 1), ("warm-up", 1), ("tiny", 3), ("warm-up", 3)]
    assert trials[1].config == replace(trials[0].config, train=replace(trials[0].config.train, warmup_steps=0))
    assert isinstance(trials[0].config, Config)


# -- table and chart ---------------------------------------------------------------------------------------------------


def results() -> dict:
    """Two seeds of one setting, one of them without a part; the other setting is not measured."""
    runs = [{"variant": "tiny", "seed": 1, "AP": 0.4, "AP50": 0.8}, {"variant": "tiny", "seed": 2, "AP": 0.5, "AP50": 0.9},
            {"variant": "greedy", "seed": 1, "AP": 0.1, "AP50": 0.25}]
    return {"data": "shapes", "steps": 300, "seeds": [1, 2], "flags": "", "runs": runs, "trained": [
        {"name": "nothing", "title": "nothing", "why": "", "AP": 0.6, "AP50": 0.9},
        {"name": "half", "title": "half of the queries", "why": "Fewer.", "AP": None, "AP50": None}],
        "parts": {name: IN_TRAINING[name]._asdict() for name in ("greedy", "clipping")},
        "settings": {name: " ".join(flags) for name, flags in SETTINGS.items()}}


def test_the_table_gives_means_spreads_and_what_is_missing() -> None:
    text = report(results())
    assert "| **tiny**, whole | 0.450 ± 0.050 | 0.850 ± 0.050 |" in text
    assert "| the Hungarian algorithm | 0.100 (1 of 2) | 0.250 (1 of 2) |" in text
    assert "| gradient clipping | – | – |" in text and "| half of the queries | – | – | Fewer. |" in text
    assert "greedily" not in text.split("## In training")[0]
    text = report({**results(), "objects": {"number": 9, "same": 7, "iou": {"start": 0.5, "layer 1": 0.75}}})
    assert "the query that the latter gives it: start 0.500, layer 1 0.750." in text
    assert "Matched greedily, 7 of 9 objects get the same query as by the Hungarian algorithm." in text


def test_the_chart_has_a_bar_for_each_row(tmp_path: Path) -> None:
    assert trained_bars(results()) == [Bar("nothing removed", [(0.6, 0.9)], True), Bar("half of the queries", [], False)]
    assert [bar.values for bar in training_bars(results())] == [[(0.4, 0.8), (0.5, 0.9)], [(0.1, 0.25)], [], []]
    draw(results(), tmp_path / "removal.png")
    assert matplotlib.image.imread(tmp_path / "removal.png").shape[1] > 1000
