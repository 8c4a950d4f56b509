"""gelu: equal to torch.nn.functional.gelu in value and gradient."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from scratch.ops.beyond.gelu import gelu
from tests.checks import assert_as_precise_as_torch, assert_same


@given(shape=st.lists(st.integers(0, 5), max_size=3), size=st.sampled_from([1e-3, 1.0, 30.0]))
def test_equals_torch(shape, size):
    assert_same(gelu, F.gelu, torch.randn(shape) * size)


def test_as_precise_as_torch():
    assert_as_precise_as_torch(gelu, F.gelu, torch.randn(211) * 4)


def test_nan_stays_nan():
    y = gelu(torch.tensor([math.nan, 1.0]))
    assert y[0].isnan() and y[1].isfinite()


def test_it_keeps_the_layout_of_images_stored_channels_last():
    x = torch.randn(2, 3, 5, 7).to(memory_format=torch.channels_last)
    assert gelu(x).is_contiguous(memory_format=torch.channels_last)


def test_the_table_of_the_header():
    assert gelu(torch.tensor([-3.0, 0.0, 3.0])).tolist() == pytest.approx([-0.004, 0, 2.996], abs=5e-4)


def test_gelu_by_hand():
    # Φ(1) = 0.841344746..., the familiar "one sigma"; gelu(−1) = −Φ(−1) = −(1 − Φ(1)).
    assert gelu(torch.tensor([0.0, 1.0, -1.0], dtype=torch.float64)).tolist() == pytest.approx(
        [0, 0.8413447460685429, -0.15865525393145707], abs=1e-15)
    zero = torch.zeros((), requires_grad=True)
    gelu(zero).backward()
    assert zero.grad == 0.5
