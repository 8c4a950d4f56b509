"""precision: the figures of the table, and who lowers or raises what under autocast."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from scratch.ops.activations import autocast_applies, log_softmax, relu, sigmoid, softmax
from scratch.ops.batch_norm import BatchNorm2d
from scratch.ops.beyond.group_norm import group_norm
from scratch.ops.conv2d import conv2d
from scratch.ops.fast.precision import as_in_forward, without_autocast
from scratch.ops.layer_norm import layer_norm
from scratch.ops.windows import max_pool2d

pytestmark = pytest.mark.usefixtures("mode")  # by the notes' own arithmetic and through their doors

one = torch.ones(6)


@pytest.mark.parametrize("dtype, exponent, mantissa, largest", [
    (torch.float32, 8, 23, 3.4e38), (torch.float16, 5, 10, 65504), (torch.bfloat16, 8, 7, 3.4e38)])
def test_the_table_of_the_header(dtype, exponent, mantissa, largest):
    limits = torch.finfo(dtype)
    assert limits.bits == 1 + exponent + mantissa and limits.eps == 2.0**-mantissa
    assert limits.max == pytest.approx(largest, rel=0.01) and limits.tiny == 2.0 ** (2 - 2 ** (exponent - 1))
    full = torch.tensor(2.0 ** (mantissa + 1), dtype=dtype)
    assert full + 1 == full and full - 1 != full


def test_a_matrix_product_in_half_precision_sums_beyond_where_additions_stop():
    ones = torch.ones(1, 576, dtype=torch.bfloat16)
    assert (ones @ ones.T).item() == 576


NORMS = {
    "softmax": (lambda x: softmax(x, -1), lambda x: torch.softmax(x, -1)),
    "log_softmax": (lambda x: log_softmax(x, -1), lambda x: torch.log_softmax(x, -1)),
    "layer_norm": (lambda x: layer_norm(x, 6, one, one), lambda x: F.layer_norm(x, (6,))),
    "group_norm": (lambda x: group_norm(x, 2, one, one), lambda x: F.group_norm(x, 2)),
}


@pytest.mark.parametrize("name", NORMS)
def test_under_autocast_we_return_float32_where_torch_on_a_cpu_returns_the_dtype_of_the_input(name):
    ours, theirs = NORMS[name]
    x = torch.randn(2, 6, 6, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert ours(x).dtype == torch.float32 and theirs(x).dtype == torch.bfloat16
        assert ours(x.float()).dtype == theirs(x.float()).dtype == torch.float32
        assert ours(x.double()).dtype == torch.float64


def test_torchs_losses_return_float32_under_autocast_on_a_cpu_too():
    x = torch.randn(2, 6, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert F.cross_entropy(x, torch.tensor([0, 1])).dtype == F.l1_loss(x, x).dtype == torch.float32


def test_a_device_without_autocast_is_no_obstacle():
    x = torch.empty(2, 6, 5, 5, device="meta")
    with pytest.raises(RuntimeError):
        torch.is_autocast_enabled("meta")
    with without_autocast(x):
        assert not autocast_applies(x)


@pytest.mark.parametrize("function", [
    lambda x: layer_norm(x, 6, *torch.ones(2, 6, device="meta")),
    lambda x: group_norm(x, 2, *torch.ones(2, 6, device="meta")),
    lambda x: softmax(x, -1), lambda x: log_softmax(x, -1), relu, sigmoid, lambda x: max_pool2d(x, 3, 1, 1),
    lambda x: BatchNorm2d(6).to("meta")(x),
    lambda x: conv2d(x, torch.ones(6, 6, 1, 1, device="meta")),
    lambda x: conv2d(x.repeat(1, 3, 1, 1), torch.ones(6, 18, 3, 3, device="meta"), padding=1),
])
def test_shapes_are_traced_forwards_and_backwards_without_data(function):
    x = torch.empty(2, 6, 6, 6, device="meta", requires_grad=True)
    y = function(x)
    y.sum().backward()
    assert y.shape == x.grad.shape == x.shape


def test_the_exponential_that_half_precision_cannot_hold_is_computed_above_it():
    x = torch.tensor([12.0, 12.0], dtype=torch.float16)
    assert x.exp().isinf().all() and softmax(x, 0).tolist() == [0.5, 0.5] and math.exp(12) > 65504


@pytest.mark.parametrize("compiling", [False, True])
def test_a_backward_keeps_the_dtype_of_its_forward_and_leaves_it_to_torch_compile(monkeypatch, compiling: bool) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiling)
    x = torch.ones(2, 2)
    with torch.autocast("cpu", torch.bfloat16), as_in_forward(x):
        assert (x @ x).dtype is (torch.bfloat16 if compiling else torch.float32)
