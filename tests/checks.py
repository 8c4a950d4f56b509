"""checks: when do two computations agree?

Every operation of `scratch/ops` is held against `torch.nn` by the two functions below: `assert_same` in float64
(value and every gradient within 1e-10) and `assert_as_precise_as_torch` in the low precisions.
"""

from __future__ import annotations

from typing import Callable, Sequence

import torch
from torch import Tensor

LOW_PRECISIONS = (torch.float32, torch.bfloat16, torch.float16)


def _run(function: Callable[..., Tensor], inputs: Sequence[Tensor], dtype: torch.dtype, cotangent: Tensor | None):
    """Call `function` on fresh copies in `dtype`; return its value, its gradients and the cotangent used."""
    fresh = [x.detach().clone().to(dtype).requires_grad_() if x.is_floating_point() else x.clone() for x in inputs]
    value = function(*fresh)
    if cotangent is None:
        cotangent = torch.randn(value.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    leaves = [x for x in fresh if x.is_floating_point()]
    gradients = torch.autograd.grad(value, leaves, cotangent.to(value.dtype), allow_unused=True)
    return value.detach(), gradients, cotangent


def _size(x: Tensor) -> float:
    return x.square().mean().sqrt().item()


def assert_same(
    ours: Callable[..., Tensor], theirs: Callable[..., Tensor], *inputs: Tensor, tolerance: float = 1e-10,
) -> None:
    """In float64, `ours(*inputs)` and `theirs(*inputs)` agree in value and in the gradient of every float input.

    Both are functions of tensors that return one tensor. Weights are inputs too, so that their gradients are held.
    The difference allowed is `tolerance` absolute plus `tolerance` relative, element by element.
    """
    our_value, our_gradients, cotangent = _run(ours, inputs, torch.float64, None)
    their_value, their_gradients, _ = _run(theirs, inputs, torch.float64, cotangent)
    torch.testing.assert_close(our_value, their_value, rtol=tolerance, atol=tolerance)
    for i, (our, their) in enumerate(zip(our_gradients, their_gradients)):
        assert (our is None) == (their is None), (
            f"float input {i}: has ours a gradient? {our is not None}; torch's? {their is not None}")
        if our is not None:
            torch.testing.assert_close(our, their, rtol=tolerance, atol=tolerance,
                                       msg=lambda m, i=i: f"gradient of float input {i}: {m}")


def assert_as_precise_as_torch(
    ours: Callable[..., Tensor], theirs: Callable[..., Tensor], *inputs: Tensor,
    dtypes: Sequence[torch.dtype] = LOW_PRECISIONS, gradients: bool = True,
) -> None:
    """In each dtype ours is no further from the float64 truth than twice torch's distance and a unit in the last place.

    The truth is torch's own float64 result on the inputs as rounded to the dtype. A distance is the root mean square of
    the difference over a tensor, the unit in the last place that of the root mean square of its values. Which of many
    numbers is rounded furthest, and how far, is luck, and differs between processors: the largest difference may be
    four times torch's largest and a unit, so that no single number is wrong.
    """
    for dtype in dtypes:
        rounded = [x.to(dtype) if x.is_floating_point() else x for x in inputs]
        truth, true_gradients, cotangent = _run(theirs, rounded, torch.float64, None)
        cotangent = cotangent.to(dtype).double()
        truth, true_gradients, _ = _run(theirs, rounded, torch.float64, cotangent)
        our_value, our_gradients, _ = _run(ours, rounded, dtype, cotangent)
        their_value, their_gradients, _ = _run(theirs, rounded, dtype, cotangent)
        assert our_value.dtype == their_value.dtype, (
            f"{dtype}: ours returns {our_value.dtype}, torch {their_value.dtype}")
        pairs = [("value", our_value, their_value, truth)]
        if gradients:
            triples = enumerate(zip(our_gradients, their_gradients, true_gradients))
            pairs += [(f"gradient of float input {i}", *triple) for i, triple in triples if triple[2] is not None]
        for name, our, their, true in pairs:
            our_distance, their_distance = _size(our.double() - true), _size(their.double() - true)
            unit = torch.finfo(dtype).eps * _size(true)
            assert our_distance <= 2 * their_distance + unit, (
                f"{dtype}, {name}: ours is {our_distance:.3e} from the truth, torch {their_distance:.3e}, "
                f"one unit is {unit:.3e}")
            our_worst, their_worst = ((each.double() - true).abs().max().item() for each in (our, their))
            most = 4 * (their_worst + torch.finfo(dtype).eps * true.abs().max().item())
            assert our_worst <= most, f"{dtype}, {name}: a number is {our_worst:.3e} from the truth, at most {most:.3e}"
