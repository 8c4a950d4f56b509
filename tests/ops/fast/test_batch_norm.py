"""The batch norm written by hand: what torch.compile is given, and what is kept for the backward."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from scratch.ops.batch_norm import batch_norm
from tests.checks import assert_same
from tests.ops.test_batch_norm import normalising, random_inputs, statistics

pytestmark = pytest.mark.usefixtures("fast_mode")


@pytest.mark.parametrize("training", [True, False])
def test_what_torch_compile_is_given_computes_the_same(training: bool, monkeypatch) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert_same(normalising(batch_norm, training), normalising(F.batch_norm, training), *random_inputs(2, 5, 3, 7))


def test_only_the_image_and_a_few_numbers_a_channel_are_kept_for_the_backward() -> None:
    kept: list[torch.Tensor] = []
    x, weight, bias = (t.requires_grad_() for t in random_inputs(3, 5, 7, 11))
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        batch_norm(x, *statistics(x.detach()), weight, bias, training=True)
    assert [t.data_ptr() for t in kept if t.numel() > 5] == [x.data_ptr()]
