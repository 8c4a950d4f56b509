"""Anchors: each layer starts from the last one's boxes, and nothing is learnt through them."""

from __future__ import annotations

import pytest
import torch

from scratch.model.anchors.decoder import spread_anchors
from scratch.model.build import build_detr
from scratch.ops.activations import inverse_sigmoid
from scratch.ops.beyond.place_encoding import sine_of
from tests.model.anchors.test_queries import SMALL, detector, pictures


def test_anchors_start_spread_over_the_picture():
    centres = spread_anchors(40)[:, :2]
    cells = (centres * 4).floor()  # sixteen equal parts of the picture: none is empty, none has a heap
    counts = torch.bincount((cells[:, 0] * 4 + cells[:, 1]).long(), minlength=16)
    assert counts.min() >= 1 and counts.max() <= 4


def test_a_further_query_moves_no_other_anchor():
    assert torch.equal(spread_anchors(7), spread_anchors(11)[:7])


def test_before_any_learning_every_layer_answers_with_the_anchors():
    torch.manual_seed(0)
    model = build_detr(SMALL, queries="anchor").double()
    outputs = model(*pictures())
    for layer in (outputs, *outputs["aux_outputs"]):
        torch.testing.assert_close(layer["pred_boxes"], spread_anchors(5).double().expand(2, 5, 4),
                                   rtol=1e-5, atol=1e-6)


def trace(model) -> tuple[dict, list]:
    """The outputs, and the anchors that each decoder layer was given."""
    given, head = [], model._boxes

    def watched(hs, anchors):
        given.append(anchors)
        return head(hs, anchors)

    model._boxes = watched
    return model(*pictures()), given


def test_a_layer_starts_from_the_boxes_that_the_one_before_it_answered():
    outputs, anchors = trace(detector(queries="anchor"))
    torch.testing.assert_close(anchors[1], outputs["aux_outputs"][0]["pred_boxes"])


def test_a_box_is_its_anchor_moved_by_what_the_head_says():
    model = detector(queries="anchor")
    seen = []
    model.bbox_embed.register_forward_hook(lambda *x: seen.append(x[2]))
    outputs, anchors = trace(model)
    torch.testing.assert_close(outputs["pred_boxes"], torch.sigmoid(inverse_sigmoid(anchors[1]) + seen[1]))


def test_refinement_sends_no_gradient_through_the_anchors():
    outputs, anchors = trace(detector(queries="anchor"))
    assert not anchors[1].requires_grad


def test_the_last_layers_loss_reaches_the_first_anchors_by_the_queries_alone():
    # Not detached, the sum of the last boxes would have a slope of about 1 along a chain of boxes.
    model = detector(queries="anchor", dec_layers=3)
    for layer in model.bbox_embed.layers:
        layer.weight.data.zero_()  # every box is its anchor: only the chain could carry a gradient
        layer.bias.data.zero_()
    outputs = model(*pictures())
    outputs["pred_boxes"].sum().backward()
    grad = model.refpoint_embed.weight.grad
    assert grad is None or grad.abs().max() == 0


def test_the_first_layers_loss_moves_the_anchors():
    model = detector(queries="anchor")
    model(*pictures())["aux_outputs"][0]["pred_boxes"].sum().backward()
    assert (model.refpoint_embed.weight.grad.abs() > 0).all()


def test_every_parameter_gets_a_gradient():
    # DistributedDataParallel waits for all of them.
    model = detector(queries="anchor", classification="focal", groups=2)
    outputs = model(*pictures())
    layers = [layer for group in (outputs, *outputs["group_outputs"]) for layer in (group, *group["aux_outputs"])]
    sum(layer["pred_boxes"].sum() + layer["pred_logits"].sum() for layer in layers).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("padding", [32, 64])
def test_padding_does_not_move_the_boxes(padding: int):
    model = detector(queries="anchor").eval()
    images, pad_mask = pictures(1)
    padded = torch.cat((images, torch.zeros(1, 3, 64, padding, dtype=torch.float64)), dim=3)
    wide_mask = torch.cat((pad_mask, torch.ones(1, 64, padding, dtype=torch.bool)), dim=2)
    torch.manual_seed(0)
    cells = model.backbone(images).shape[3]
    assert model.backbone(padded).shape[3] > cells
    alone, beside = model(images, pad_mask), model(padded, wide_mask)
    # The backbone sees a black border where it saw the picture's edge: alike, not equal.
    torch.testing.assert_close(alone["pred_boxes"], beside["pred_boxes"], rtol=0.1, atol=0.05)


def test_attention_comes_on_request():
    attention = detector(queries="anchor").eval()(*pictures(), need_weights=True)["attention"]
    h, w = attention["size"]
    assert attention["decoder_cross"].shape == (2, 2, 3, 5, h * w)
    assert attention["decoder_self"].shape == (2, 2, 3, 5, 5)


def test_with_the_attention_come_the_anchors_at_which_the_queries_begin():
    model = detector(queries="anchor", groups=2).eval()
    anchors = model(*pictures(), need_weights=True)["attention"]["anchors"]
    torch.testing.assert_close(anchors, model.refpoint_embed.weight[:5].sigmoid().expand(2, 5, 4))


# -- departures from DAB-DETR ------------------------------------------------------------------------------------------


def cross_attended(model) -> tuple[list, list]:
    """What each layer's cross-attention is given as content and as place; and the anchors of each layer."""
    seen = []
    for layer in model.transformer.decoder.layers:
        layer.cross_attn.register_forward_pre_hook(lambda _, x: seen.append(x[:2]))
    _, anchors = trace(model)
    return seen, anchors


def test_the_sines_are_scaled_by_one_plus_an_mlp_in_every_layer():
    # DAB-DETR: by 1 in the first layer, by an MLP in the later ones.
    model = detector(queries="anchor")
    decoder = model.transformer.decoder
    seen, anchors = cross_attended(model)
    for (content, place), boxes in zip(seen, anchors):
        ratio = decoder.ref_anchor_head(content).sigmoid() / boxes[..., 2:]  # (B,T,2)
        sines = sine_of(boxes, 12)[..., :24] * ratio.repeat_interleave(12, -1)
        assert decoder.query_scale(content).abs().min() > 0
        torch.testing.assert_close(place, sines * (1 + decoder.query_scale(content)), rtol=1e-10, atol=1e-10)


def test_the_first_cross_attention_gets_the_content_without_the_query_position():
    # DAB-DETR adds the query's position to it. Here another position reaches it by the self-attention alone.
    model = detector(queries="anchor")
    before, _ = cross_attended(model)
    for layer in model.transformer.decoder.layers:
        layer.self_attn.forward = lambda q, k, v, **_: (torch.zeros_like(v), None)
    idle, _ = cross_attended(model)
    with torch.no_grad():
        model.transformer.decoder.ref_point_head.layers[-1].bias.add_(1.0)  # p, the query's position
    moved, _ = cross_attended(model)
    assert not torch.equal(before[0][0], idle[0][0]) and torch.equal(idle[0][0], moved[0][0])


def test_the_encoder_is_the_published_one():
    ours, published = (build_detr(SMALL, queries=queries).transformer.encoder for queries in ("anchor", "learned"))
    assert type(ours) is type(published) and str(ours) == str(published)
    assert {name: value.shape for name, value in ours.state_dict().items()} == {
        name: value.shape for name, value in published.state_dict().items()}
