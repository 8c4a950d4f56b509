"""The fine memory: the encoder's understanding on the grid of an earlier stage."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from scratch.model.anchors.fine_memory import FineMemory, enlarged
from tests.model.anchors.test_queries import detector, pictures


@pytest.mark.parametrize("size", [(6, 10), (5, 9), (7, 11)])
def test_enlarging_is_the_nearest_interpolation(size):
    x = torch.randn(2, 3, 3, 5, dtype=torch.float64)
    assert torch.equal(enlarged(x, *size), F.interpolate(x, size=size, mode="nearest"))


def test_value_and_gradients_are_those_of_a_1x1_convolution_a_sum_and_a_norm():
    layer = FineMemory(7, 12).double()
    memory = torch.randn(2, 6, 12, dtype=torch.float64, requires_grad=True)
    stage = torch.randn(2, 7, 4, 6, dtype=torch.float64, requires_grad=True)
    ours = layer(memory, (2, 3), stage)
    coarse = F.interpolate(memory.mT.reshape(2, 12, 2, 3), scale_factor=2)
    summed = F.conv2d(stage, layer.lateral.weight, layer.lateral.bias) + coarse
    theirs = F.layer_norm(summed.flatten(2).mT, (12,), layer.norm.weight, layer.norm.bias)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    cotangent = torch.randn_like(ours)
    leaves = [memory, stage, *layer.parameters()]
    gradients = [torch.autograd.grad(y, leaves, cotangent) for y in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("dilation", "coarse", "fine"), [(False, (2, 3), (4, 6)), (True, (4, 6), (8, 12))])
def test_the_decoder_looks_at_a_grid_twice_as_fine_as_the_encoders(dilation, coarse, fine):
    model = detector(queries="anchor", fine_memory=True, dilation=dilation).eval()
    attention = model(*pictures(), need_weights=True)["attention"]
    assert (attention["size"], attention["cross_size"]) == (coarse, fine)
    assert attention["decoder_cross"].shape[-1] == fine[0] * fine[1]
    assert attention["encoder"][0].shape[-1] == coarse[0] * coarse[1]


def test_a_finer_cell_under_the_padding_is_not_looked_at():
    model = detector(queries="anchor", fine_memory=True).eval()
    images, pad_mask = pictures(1)
    pad_mask[:, :, 48:] = True  # the right half
    weights = model(images, pad_mask, need_weights=True)["attention"]["decoder_cross"].unflatten(-1, (4, 6))
    assert weights[..., 3:].abs().max() == 0 and weights[..., :3].min() > 0


def test_every_parameter_gets_a_gradient():
    model = detector(queries="anchor", classification="focal", fine_memory=True)
    outputs = model(*pictures())
    layers = (outputs, *outputs["aux_outputs"])
    sum(layer["pred_boxes"].sum() + layer["pred_logits"].sum() for layer in layers).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_a_fine_memory_for_learnt_queries_is_refused():
    with pytest.raises(ValueError, match="fine_memory is on with queries"):
        detector(fine_memory=True)
