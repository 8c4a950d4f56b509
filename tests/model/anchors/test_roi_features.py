"""RoI features: what the decoder's box head sees around each box."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from scratch.model.anchors.roi_features import CHANNELS, ENLARGED, SIZE, RoiFeatures
from tests.model.anchors.test_queries import detector, pictures


def drawn(cells: int = 35, D: int = 12, queries: int = 9) -> tuple[RoiFeatures, torch.Tensor, torch.Tensor]:
    layer = RoiFeatures(D).double()
    memory = torch.randn(2, cells, D, dtype=torch.float64, requires_grad=True)
    anchors = torch.rand(2, queries, 4, dtype=torch.float64)
    return layer, memory, anchors


def whole(h: int, w: int) -> torch.Tensor:
    """Of two images without padding."""
    return RoiFeatures.cells_of_image(torch.zeros(2, h, w, dtype=torch.bool))


def read_by_grid_sample(layer: RoiFeatures, memory: torch.Tensor, anchors: torch.Tensor, h: int, w: int) -> torch.Tensor:
    """Of boxes whose points are all within a cell of the map."""
    x = F.layer_norm(F.linear(memory, layer.project.weight, layer.project.bias), (CHANNELS,), layer.norm.weight,
                     layer.norm.bias).mT.reshape(2, CHANNELS, h, w)
    part = (torch.arange(SIZE, dtype=torch.float64) + 0.5) / SIZE - 0.5
    x_of, y_of = (anchors[..., i, None] + ENLARGED * anchors[..., i + 2, None] * part for i in (0, 1))  # (B,T,7)
    grid = torch.stack((x_of[..., :, None].expand(-1, -1, SIZE, SIZE), y_of[..., None, :].expand(-1, -1, SIZE, SIZE)), -1)
    seen = F.grid_sample(x, 2 * grid.flatten(2, 3) - 1, padding_mode="border", align_corners=False)  # (B,c,T,49)
    return F.linear(seen.permute(0, 2, 3, 1).flatten(2), layer.combine.weight, layer.combine.bias).relu()


@pytest.mark.parametrize("h, w", [(5, 7), (7, 5)])
def test_value_and_gradients_are_those_of_grid_sample_and_a_linear_layer(h, w):
    layer, memory, anchors = drawn()
    anchors = torch.cat((0.3 + 0.4 * anchors[..., :2], 0.1 + 0.3 * anchors[..., 2:]), dim=-1)
    ours = layer(layer.feature_map(memory, h, w), anchors, whole(h, w))
    theirs = read_by_grid_sample(layer, memory, anchors, h, w)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    cotangent, leaves = torch.randn_like(ours), [memory, *layer.parameters()]
    torch.testing.assert_close(*[torch.autograd.grad(y, leaves, cotangent) for y in (ours, theirs)], rtol=1e-9, atol=1e-9)


def test_what_is_seen_moves_with_the_box():
    """An object that is elsewhere, in a box that is elsewhere, is the same to the box head."""
    layer, _, _ = drawn()
    scene = torch.zeros(2, 8, 8, 12, dtype=torch.float64)
    patch = torch.randn(3, 3, 12, dtype=torch.float64)
    scene[0, 1:4, 2:5], scene[1, 3:6, 4:7] = patch, patch
    anchors = torch.tensor([[[3.5, 2.5, 2, 2]], [[5.5, 4.5, 2, 2]]], dtype=torch.float64) / 8
    seen = layer(layer.feature_map(scene.flatten(1, 2), 8, 8), anchors, whole(8, 8))
    torch.testing.assert_close(seen[0], seen[1])


def test_padding_is_not_read_and_changes_nothing():
    """Two images of different sizes in one batch: each reads as it does alone."""
    layer, _, anchors = drawn()
    memory = torch.full((2, 8, 9, 12), 1e3, dtype=torch.float64)
    pad_mask, alone = torch.ones(2, 8, 9, dtype=torch.bool), []
    for k, (h, w) in enumerate(((5, 7), (8, 4))):
        memory[k, :h, :w], pad_mask[k, :h, :w] = torch.randn(h, w, 12, dtype=torch.float64), False
        alone.append(layer(layer.feature_map(memory[k:k + 1, :h, :w].flatten(1, 2), h, w), anchors[k:k + 1],
                           whole(h, w)[:1]))
    both = layer(layer.feature_map(memory.flatten(1, 2), 8, 9), anchors, layer.cells_of_image(pad_mask))
    torch.testing.assert_close(both, torch.cat(alone))


def test_one_point_is_read_for_each_part_of_a_box_that_is_enlarged_by_half():
    """As the departures say. The map's row i holds i: what is read is the point's row."""
    layer = RoiFeatures(4).double()
    rows = torch.arange(20, dtype=torch.float64)[None, :, None, None].expand(1, 20, 20, CHANNELS)
    read = []
    layer.combine.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    anchor = torch.tensor([[[0.5, 0.5, 0.2, 0.4]]], dtype=torch.float64)
    layer(rows.reshape(1, 20, 20 * CHANNELS), anchor, whole(20, 20)[:1])
    wanted = 10 + 1.5 * 8 * ((torch.arange(7, dtype=torch.float64) + 0.5) / 7 - 0.5) - 0.5
    torch.testing.assert_close(read[0].unflatten(-1, (SIZE, SIZE, CHANNELS))[0, 0, 3, :, 0], wanted)


def test_no_gradient_flows_into_the_anchors():
    layer, memory, anchors = drawn()
    anchors.requires_grad_()
    layer(layer.feature_map(memory, 5, 7), anchors, whole(5, 7)).sum().backward()
    assert anchors.grad is None and memory.grad.abs().sum() > 0


@pytest.mark.parametrize("queries", ["anchor", "proposal"])
@pytest.mark.parametrize("fine_memory", [False, True])
def test_every_layer_reads_around_the_boxes_of_the_layer_before(queries, fine_memory):
    model = detector(queries=queries, classification="focal", fine_memory=fine_memory, roi_features=True).eval()
    torch.nn.init.normal_(model.bbox_embed.layers[-1].weight, std=0.1)
    around = []
    model.roi_features.register_forward_pre_hook(lambda _, inputs: around.append(inputs[1]))
    outputs = model(*pictures(), need_weights=True)
    boxes = [outputs["attention"]["anchors"], *(layer["pred_boxes"] for layer in outputs["aux_outputs"])]
    assert len(around) == model.config.dec_layers
    for seen, expected in zip(around, boxes):
        torch.testing.assert_close(seen, expected)


def test_every_parameter_gets_a_gradient():
    model = detector(queries="anchor", classification="focal", roi_features=True)
    torch.nn.init.normal_(model.bbox_embed.layers[-1].weight, std=0.1)  # 0 at first: nothing before it has a gradient
    outputs = model(*pictures())
    layers = (outputs, *outputs["aux_outputs"])
    sum(layer["pred_boxes"].sum() + layer["pred_logits"].sum() for layer in layers).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_roi_features_for_learnt_queries_are_refused():
    with pytest.raises(ValueError, match="roi_features is on with queries"):
        detector(roi_features=True)
    with pytest.raises(ValueError, match=r"fine_memory and roi_features are on .* \(--no-fine-memory --no-roi-features\)"):
        detector(roi_features=True, fine_memory=True)
