"""Groups and noised boxes share every weight, but the self-attention of one part never reaches another."""

from __future__ import annotations

import pytest
import torch

from scratch.config import ModelConfig
from scratch.model.anchors.queries import attention_mask
from scratch.model.build import build_detr
from scratch.model.detr import Detr

SMALL = ModelConfig(backbone="resnet_tiny", norm="group", hidden_dim=24, nheads=3, dim_feedforward=17, enc_layers=1,
                    dec_layers=2, num_queries=5, dropout=0.0, num_classes=3)
KINDS = pytest.mark.parametrize("kind", [dict(queries="learned"), dict(queries="anchor"),
                                         dict(queries="proposal", classification="focal")], ids=lambda k: k["queries"])


def detector(**fields) -> Detr:
    torch.manual_seed(3)
    model = build_detr(SMALL, **fields).double()
    for p in model.parameters():  # nothing stays at a zero that would hide a leak
        p.data += 0.05 * torch.randn_like(p)
    return model


def pictures(B: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return (torch.randn(B, 3, 64, 96, dtype=torch.float64, generator=generator),
            torch.zeros(B, 64, 96, dtype=torch.bool))


def test_parts_of_two_and_one_are_separated():
    assert attention_mask([2, 1], torch.device("cpu")).tolist() == [
        [False, False, True], [False, False, True], [True, True, False]]


def test_a_single_part_needs_no_mask():
    assert attention_mask([7], torch.device("cpu")) is None


def embedding(model: Detr) -> torch.nn.Parameter:
    """What tells the queries of a group from those of another, group by group."""
    names = {"learned": "query_embed", "anchor": "refpoint_embed", "proposal": "group_embed"}
    return getattr(model, names[model.config.queries]).weight


@KINDS
def test_the_queries_of_one_group_do_not_change_the_answers_of_another(kind: dict):
    model = detector(**kind, groups=3)
    before = model(*pictures())
    with torch.no_grad():
        embedding(model).view(3, -1)[1] += 1.0  # the second group
    after = model(*pictures())
    for name in ("pred_logits", "pred_boxes"):
        assert torch.equal(after[name], before[name])
        assert torch.equal(after["group_outputs"][1][name], before["group_outputs"][1][name])
        assert not torch.allclose(after["group_outputs"][0][name], before["group_outputs"][0][name])


@KINDS
def test_a_loss_on_one_group_sends_no_gradient_to_the_queries_of_another(kind: dict):
    model = detector(**kind, groups=3)
    model(*pictures())["group_outputs"][0]["pred_logits"].sum().backward()
    by_group = embedding(model).grad.view(3, -1).abs().sum(1)
    assert by_group[0] == by_group[2] == 0 < by_group[1]


@KINDS
def test_inference_asks_the_first_group_alone(kind: dict):
    model = detector(**kind, groups=3)
    trained = model(*pictures())
    judged = model.eval()(*pictures())
    assert "group_outputs" not in judged and judged["pred_boxes"].shape == (2, 5, 4)
    for name in ("pred_logits", "pred_boxes"):
        torch.testing.assert_close(judged[name], trained[name], rtol=1e-12, atol=1e-12)


@KINDS
def test_every_group_answers_with_all_decoder_layers(kind: dict):
    outputs = detector(**kind, groups=3)(*pictures())
    assert [len(group["aux_outputs"]) for group in (outputs, *outputs["group_outputs"])] == [1, 1, 1]
    assert all(group["pred_boxes"].shape == (2, 5, 4) for group in outputs["group_outputs"])


def test_no_group_at_all_is_refused():
    with pytest.raises(ValueError, match="got groups = 0, wanted 1 or more"):
        detector(groups=0)
