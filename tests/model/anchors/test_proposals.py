"""Proposals: the surest cells of the encoder become the queries, as constants."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from scratch.model.anchors.proposals import SIDE, SILENT, ProposalHead, Proposals
from tests.model.anchors.test_queries import detector, pictures

B, S, D, K = 2, 7, 12, 3


def proposals(**fields) -> Proposals:
    torch.manual_seed(1)
    drawn = dict(logits=torch.randn(B, S, K), boxes=torch.rand(B, S, 4), tokens=torch.randn(B, S, D),
                 centres=torch.rand(B, S, 2), pad_mask=torch.zeros(B, S, dtype=torch.bool))
    return Proposals(**{**drawn, **fields})


def test_the_cells_with_the_highest_class_score_are_chosen():
    logits = torch.full((B, S, K), -5.0)
    logits[0, 4, 2], logits[0, 1, 0], logits[1, 6, 1], logits[1, 0, 1] = 3.0, 2.0, 1.0, 0.5
    offered = proposals(logits=logits)
    anchors, content = offered.best(2)
    assert torch.equal(anchors[0], offered.boxes[0, [4, 1]]) and torch.equal(content[1], offered.tokens[1, [6, 0]])


def test_padding_is_chosen_last():
    pad_mask = torch.zeros(B, S, dtype=torch.bool)
    pad_mask[0, 2:] = True
    offered = proposals(pad_mask=pad_mask)
    anchors, _ = offered.best(2)
    assert {tuple(a.tolist()) for a in anchors[0]} == {tuple(a.tolist()) for a in offered.boxes[0, :2]}


def test_where_an_image_has_fewer_cells_than_queries_the_rest_is_missing():
    pad_mask = torch.zeros(B, S, dtype=torch.bool)
    pad_mask[0, 2:] = True
    offered = proposals(pad_mask=pad_mask)
    anchors, content = offered.best(10)
    assert anchors.shape == (B, 10, 4) and content.shape == (B, 10, D)
    assert offered.missing(10).tolist() == [[False] * 2 + [True] * 8, [False] * 7 + [True] * 3]
    assert torch.equal(anchors[0, 2:], anchors[0, :1].expand(8, 4))  # not padding


def test_before_any_learning_a_cell_proposes_itself_with_a_fifth_of_the_sides():
    centres = torch.rand(B, S, 2, dtype=torch.float64)
    head = ProposalHead(D, K).double()
    offered = head(torch.randn(B, S, D, dtype=torch.float64), centres, torch.zeros(B, S, dtype=torch.bool))
    torch.testing.assert_close(offered.boxes, torch.cat((centres, torch.full_like(centres, SIDE)), -1),
                               rtol=1e-5, atol=2e-5)


def test_before_any_learning_no_cell_is_sure():
    offered = ProposalHead(D, K)(torch.randn(B, S, D), torch.rand(B, S, 2), torch.zeros(B, S, dtype=torch.bool))
    assert 0 < offered.logits.sigmoid().mean() < 0.05


def test_the_decoders_losses_do_not_reach_the_proposals():
    model = detector(queries="proposal", classification="focal")
    outputs = model(*pictures())
    (outputs["pred_boxes"].sum() + outputs["pred_logits"].sum()).backward()
    assert all(p.grad is None for p in model.proposal_head.parameters())


def test_the_proposals_losses_reach_the_backbone():
    model = detector(queries="proposal", classification="focal")
    model(*pictures())["proposals"]["pred_logits"].sum().backward()
    assert model.backbone.conv1.weight.grad.abs().sum() > 0


def test_each_group_starts_from_the_same_cells_and_answers_otherwise():
    outputs = detector(queries="proposal", classification="focal", groups=2)(*pictures())
    assert not torch.allclose(outputs["pred_logits"], outputs["group_outputs"][0]["pred_logits"])


def test_a_query_of_one_picture_depends_on_that_picture_alone():
    model = detector(queries="proposal", classification="focal").eval()
    images, pad_mask = pictures(3)
    together = model(images, pad_mask)["pred_boxes"]
    torch.testing.assert_close(model(images[1:2], pad_mask[1:2])["pred_boxes"], together[1:2], rtol=1e-9, atol=1e-9)


def test_with_the_attention_come_the_boxes_of_the_surest_cells():
    outputs = detector(queries="proposal", classification="focal", groups=2)(*pictures(), need_weights=True)
    cells, anchors = outputs["proposals"], outputs["attention"]["anchors"]
    surest = cells["pred_logits"].amax(-1).masked_fill(cells["pad_mask"], -torch.inf).argmax(1)  # (B)
    assert anchors.shape == (2, 5, 4) and torch.equal(anchors[:, 0], cells["pred_boxes"][torch.arange(2), surest])


def test_queries_without_a_cell_answer_nothing_in_training_and_later():
    model = detector(queries="proposal", classification="focal", num_queries=7, groups=2)
    images, pad_mask = pictures(2)
    images[0, :, :, 64:], pad_mask[0, :, 64:] = 0, True  # 4 cells of 32 pixels beside 6
    outputs = model(images, pad_mask)
    for answers in (outputs, outputs["aux_outputs"][0], outputs["group_outputs"][0], model.eval()(images, pad_mask)):
        silent = (answers["pred_logits"] == SILENT).all(-1)
        assert silent.tolist() == [[False] * 4 + [True] * 3, [False] * 6 + [True]]


def test_queries_without_a_cell_are_attended_by_none():
    model = detector(queries="proposal", classification="focal", num_queries=9).eval()
    outputs = model(*pictures())
    model.config = replace(model.config, num_queries=6)  # all of the 6 cells, and no more
    for name in ("pred_logits", "pred_boxes"):
        torch.testing.assert_close(outputs[name][:, :6], model(*pictures())[name], rtol=1e-9, atol=1e-9)


def test_inference_answers_in_the_official_form_alone():
    outputs = detector(queries="proposal", classification="focal", denoising=2, groups=2).eval()(*pictures())
    assert set(outputs) == {"pred_logits", "pred_boxes", "aux_outputs"}


def test_proposals_without_focal_classification_are_refused():
    with pytest.raises(ValueError, match='take classification="focal"'):
        detector(queries="proposal")
