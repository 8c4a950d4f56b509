"""No operation writes to what it was given, or computes a wrong gradient after its result was changed in place."""

from __future__ import annotations

import pytest
import torch

from scratch.ops.activations import log_softmax, relu, sigmoid, softmax
from scratch.ops.attention import scaled_dot_product_attention
from scratch.ops.batch_norm import BatchNorm2d
from scratch.ops.conv2d import Conv2d
from scratch.ops.cross_entropy import l1_loss
from scratch.ops.dropout import dropout
from scratch.ops.beyond.average_pooling import AvgPool2d
from scratch.ops.beyond.gelu import gelu
from scratch.ops.beyond.group_norm import GroupNorm
from scratch.ops.layer_norm import LayerNorm
from scratch.ops.linear import Linear
from scratch.ops.windows import MaxPool2d

pytestmark = pytest.mark.usefixtures("mode")  # by its own arithmetic and through its door (conftest.py)

OPERATIONS = {  # each a function of images (2,4,6,6)
    "relu": relu, "gelu": gelu, "sigmoid": sigmoid,
    "softmax": lambda x: softmax(x, 1), "log_softmax": lambda x: log_softmax(x, 1),
    "attention": lambda x: scaled_dot_product_attention(x, x, x)[0], "dropout": lambda x: dropout(x, 0.5, True),
    "l1_loss": lambda x: l1_loss(x, x.flip(0), "none"), "linear": Linear(6, 6), "layer_norm": LayerNorm(6),
    "group_norm": GroupNorm(2, 4), "batch_norm": BatchNorm2d(4), "batch_norm in eval": BatchNorm2d(4).eval(),
    "conv2d 1x1": Conv2d(4, 3, 1), "conv2d 3x3": Conv2d(4, 3, 3),
    "max_pool": MaxPool2d(3, 2, 1), "avg_pool": AvgPool2d(2),
}
each = pytest.mark.parametrize("name", OPERATIONS)


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_the_input_and_the_incoming_gradient_are_left_as_they_were(name: str, dtype: torch.dtype) -> None:
    operation = OPERATIONS[name].to(dtype) if isinstance(OPERATIONS[name], torch.nn.Module) else OPERATIONS[name]
    x = torch.randn(2, 4, 6, 6).to(dtype).requires_grad_()
    before = x.detach().clone()
    y = operation(x)
    grad = torch.randn(y.shape).to(dtype)
    grad_before = grad.clone()
    y.backward(grad)
    assert torch.equal(x, before) and torch.equal(grad, grad_before)


@each
def test_a_result_changed_in_place_either_raises_or_keeps_the_right_gradient(name: str) -> None:
    operation = OPERATIONS[name].double() if isinstance(OPERATIONS[name], torch.nn.Module) else OPERATIONS[name]
    x = torch.randn(2, 4, 6, 6, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(3)  # for dropout
    expected, = torch.autograd.grad(operation(x).clamp(min=0).sum(), x)
    torch.manual_seed(3)
    y = operation(x)
    try:
        gradient, = torch.autograd.grad(y.clamp_(min=0).sum(), x)
    except RuntimeError as refusal:  # autograd has noticed that what the backward needs is gone
        assert "modified" in str(refusal)
    else:
        torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-10)
