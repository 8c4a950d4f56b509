"""The figures of docs/questions.md that no other document has: each is computed here."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from reference.model import DecoderLayer
from scratch.config import PRESETS
from scratch.model.transformer import Transformer
from scratch.ops.sine_encoding import sine_encoding
from tests.conftest import REPOSITORY

PAGE = " ".join((REPOSITORY / "docs" / "questions.md").read_text(encoding="utf-8").split())


def said(words: str) -> bool:
    return words in PAGE


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_query_and_key_weights_of_the_first_decoder_layer_get_no_gradient_without_dropout(dropout: float) -> None:
    D = 256
    model = Transformer(D, 8, 1, 2, 16, dropout).double()
    torch.nn.init.normal_(model.decoder.layers[0].self_attn.in_proj_bias)  # it begins at 0, and then all values are 0
    hs = model(torch.randn(1, D, 2, 3).double(), torch.zeros(1, 2, 3, dtype=torch.bool), torch.randn(5, D).double(),
               torch.randn(1, D, 2, 3).double())[0]
    (hs * torch.randn_like(hs)).sum().backward()
    first, second = (layer.self_attn.in_proj_weight.grad for layer in model.decoder.layers)
    assert (first[:2 * D].abs().max() < 1e-12 * second[:2 * D].abs().max()) == (dropout == 0)
    assert first[2 * D:].abs().max() == 0 < second[2 * D:].abs().max()
    assert said(f"{first[:2 * D].numel():,} query and key weights of `detr_r50`") and said(
        f"{first[2 * D:].numel():,} value weights")


def test_a_third_of_a_value_would_be_position() -> None:
    encoding = sine_encoding(torch.zeros(1, 5, 7, dtype=torch.bool), 128, dtype=torch.float64).square().sum(1)
    assert torch.allclose(encoding, torch.full_like(encoding, 128)) and 128 / (128 + 256) == pytest.approx(1 / 3)
    assert said("a squared length of 256") and said("of every cell has one of 128")


def test_three_times_the_queries_cost_this_many_flops() -> None:
    found = []
    for Q in (100, 300):
        with torch.device("meta"):
            layer = DecoderLayer(256, 8, 2048, 0.1)
            queries, memory = torch.empty(1, Q, 256), torch.empty(1, 380, 256)
            with FlopCounterMode(display=False) as counter:
                layer(queries, queries, memory, memory, torch.zeros(1, 380, dtype=torch.bool))
        found.append(f"{6 * counter.get_total_flops() / 1e9:.1f}")
    assert said(f"take {found[0]} GFLOPs with 100 queries and {found[1]} with 300")


@pytest.mark.parametrize("words, page, source", [
    ("437 ms on two CPU cores, 1.17 times", "speed", "| `detr_r50` | 437 ms | 1.17 |"),
    ("`tiny` 20 ms", "speed", "| `tiny` | 20 ms |"),
    ("a test AP50 of 0.897 in 20 minutes on two CPU cores", "results", "| test AP 0.584, AP50 0.897,"),
    ("as published, 0.266 in 20 minutes", "results", "20 minutes, as published |"),
    ("as published, 0.266 in 20 minutes", "results", "| test AP 0.114, AP50 0.266;"),
    ("([0.975](results.md#from-nothing)", "results", "train AP50 0.975 after 900 steps"),
])
def test_a_figure_that_was_measured_elsewhere_is_the_one_of_that_page(words: str, page: str, source: str) -> None:
    assert said(words) and source in (REPOSITORY / "docs" / f"{page}.md").read_text(encoding="utf-8")


def test_the_photographs_have_this_many_objects_at_most() -> None:
    most = 0
    for path in (REPOSITORY / "tests/photographs/bccd/annotations").glob("*.json"):
        images = [annotation["image_id"] for annotation in json.loads(path.read_text(encoding="utf-8"))["annotations"]]
        most = max(most, *(images.count(image) for image in images))
    assert said(f"an image has up to {most} objects")


def test_no_object_has_this_share_of_the_classification_loss() -> None:
    def share(eos_coef: float) -> str:
        objects, nothing = 7, 93 * eos_coef
        return f"{100 * nothing / (objects + nothing):.0f} %"

    assert PRESETS["detr_r50"].loss.eos_coef == 0.1
    assert said(f"that is {share(1.0)} of the classification") and said(f"it is {share(0.1)} (")


def test_the_attention_of_an_untrained_decoder_is_nearly_even() -> None:
    model, mask = Transformer().eval(), torch.zeros(1, 19, 20, dtype=torch.bool)
    with torch.no_grad():
        attention = model(torch.randn(1, 256, 19, 20), mask, torch.randn(100, 256), sine_encoding(mask, 128),
                          need_weights=True)[1]["decoder_cross"]
    entropy = -(attention * attention.clamp(min=1e-30).log()).sum(-1).mean().item() / math.log(19 * 20)
    assert said(f"its entropy is {100 * entropy:.0f} % of the largest")


def test_the_rows_of_the_ablation_are_those_of_its_table() -> None:
    table = (REPOSITORY / "hyper_parameter_tuning_charts/ablation_shapes/ablation.md").read_text(encoding="utf-8")
    rows = {cells[1].strip(): cells[6].split("±")[0].strip() for line in table.splitlines()
            if len(cells := line.split("|")) == 9}
    wanted = [rows[name] for name in ("vanilla", "+ muon", "+ anchors", "+ focal", "+ proposals", "+ fine memory",
                                      "+ weight decay")]
    assert said(f"| {' | '.join(wanted)} |")
    timeline = (REPOSITORY / "docs" / "timeline.md").read_text(encoding="utf-8")
    assert f"from {rows['+ muon']} to {rows['+ anchors']}" in " ".join(timeline.split())


def test_the_steps_to_a_first_ap_are_those_of_the_learning_curves() -> None:
    def AP50(folder: str, run: str) -> dict[int, float]:
        runs = json.loads((REPOSITORY / "hyper_parameter_tuning_charts" / folder / "learning_curve.json").read_text())
        evaluation, = (one["evaluation"] for one in runs if one["name"] == run)
        return dict(zip(evaluation["step"], evaluation["AP50"]))

    vanilla, tiny = AP50("vanilla", "tiny_vanilla"), AP50("tiny", "tiny-shapes")
    assert said(f"an AP50 of {vanilla[1000]:.3f} after 1,000 steps on generated shapes, and {vanilla[4000]:.3f}")
    run, = json.loads((REPOSITORY / "hyper_parameter_tuning_charts" / "tiny" / "learning_curve.json").read_text())
    assert said(f"`tiny` has {tiny[500]:.3f} after 500, of a run of {run['steps']:,} (")
    assert said(f"`tiny` reaches AP {run['evaluation']['AP'][-1]:.3f} in {run['steps']:,} steps")
