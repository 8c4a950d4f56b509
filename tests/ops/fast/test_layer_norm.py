"""The layer norm written by hand: what it keeps for the backward."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from scratch.ops.layer_norm import layer_norm

pytestmark = pytest.mark.usefixtures("fast_mode")


def test_only_one_tensor_of_the_size_of_x_is_kept_for_the_backward() -> None:
    kept: list[Tensor] = []
    x, weight, bias = (torch.randn(shape, requires_grad=True) for shape in ((3, 7, 61), (61,), (61,)))
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        layer_norm(x, 61, weight, bias)
    assert sum(t.numel() == x.numel() for t in kept) == 1
