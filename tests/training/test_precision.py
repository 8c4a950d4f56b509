"""precision: which format is chosen, what is computed in it, and how fp16 scales its loss."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from scratch.training.optimizer import AdamW, clip_grad_norm_
from scratch.training.precision import FIRST_SCALE, GROWTH, Precision

CPU = torch.device("cpu")


@pytest.mark.parametrize("hardware_has_bf16, name", [(True, "bf16"), (False, "fp16")])
def test_auto_takes_bf16_where_the_gpu_has_it_and_fp16_where_it_is_emulated(monkeypatch, hardware_has_bf16, name):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported",
                        lambda including_emulation=True: including_emulation or hardware_has_bf16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the scaler finds no GPU here
        assert Precision("auto", torch.device("cuda")).name == name


def test_auto_is_float32_on_a_cpu():
    assert Precision("auto", CPU).name == "float32"


def test_an_unknown_format_is_refused():
    with pytest.raises(ValueError, match="got precision 'fp8', wanted one of auto, float32, bf16, fp16"):
        Precision("fp8", CPU)


FORMATS = [("float32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]


@pytest.mark.parametrize("choice, dtype", FORMATS)
def test_matrix_products_inside_autocast_come_in_the_chosen_format_and_without_a_warning(choice, dtype):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Precision(choice, CPU).autocast():
            assert (torch.ones(3, 5) @ torch.ones(5, 2)).dtype == dtype


def test_the_table_of_formats_is_right():
    table = [(finfo.eps, float(f"{finfo.max:.0e}"), float(f"{finfo.smallest_normal:.0e}"))
             for finfo in (torch.finfo(dtype) for _, dtype in FORMATS)]
    assert table == [(2.0 ** -23, 3e38, 1e-38), (2.0 ** -7, 3e38, 1e-38), (2.0 ** -10, 7e4, 6e-5)]
    assert torch.finfo(torch.float16).max == 65504


def test_the_scale_begins_at_1024_doubles_after_100_good_steps_and_halves_after_a_bad_one():
    state = Precision("fp16", CPU).state_dict()
    assert (state["scale"], state["growth_interval"]) == (1024, 100) == (FIRST_SCALE, GROWTH)
    assert (state["growth_factor"], state["backoff_factor"]) == (2.0, 0.5)


def test_a_run_that_began_with_another_scale_and_growth_goes_on_with_them():
    began = torch.amp.GradScaler("cpu", init_scale=2.0**16, growth_interval=2000).state_dict()
    precision = Precision("fp16", CPU)
    precision.load_state_dict(began)
    assert precision.state_dict() == began


def test_a_gpu_run_adds_up_its_half_precision_products_in_float32():
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_fp16_reduced_precision_reduction, matmul.allow_bf16_reduced_precision_reduction
    try:
        matmul.allow_fp16_reduced_precision_reduction = matmul.allow_bf16_reduced_precision_reduction = True
        Precision("fp16", CPU)
        assert matmul.allow_fp16_reduced_precision_reduction and matmul.allow_bf16_reduced_precision_reduction
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the scaler finds no GPU here
            Precision("fp16", torch.device("cuda"))
        assert not matmul.allow_fp16_reduced_precision_reduction
        assert not matmul.allow_bf16_reduced_precision_reduction
    finally:
        matmul.allow_fp16_reduced_precision_reduction, matmul.allow_bf16_reduced_precision_reduction = before


def _step(precision: Precision, weight: nn.Parameter, optimizer: AdamW, factor: float) -> float:
    """One step on the loss factor · Σ weight; returns the length of the gradient that clipping saw."""
    precision.backward((weight * factor).sum())
    precision.unscale_(optimizer)
    norm = clip_grad_norm_([weight], 0.1)
    precision.step(optimizer)
    optimizer.zero_grad()
    return norm.item()


@pytest.mark.parametrize("choice", ["float32", "bf16", "fp16"])
def test_every_format_takes_the_plain_step_and_clipping_sees_the_unscaled_gradient(choice):
    weight, plain = nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(4))
    optimizer, plain_optimizer = AdamW([weight], lr=0.1), AdamW([plain], lr=0.1)
    assert _step(Precision(choice, CPU), weight, optimizer, factor=3.0) == 6.0  # √(4 · 3²)
    plain.grad = torch.full((4,), 3.0)
    clip_grad_norm_([plain], 0.1)
    plain_optimizer.step()
    assert torch.equal(weight, plain)


def test_a_gradient_that_only_scaling_keeps_from_vanishing_in_fp16_arrives():
    weight = nn.Parameter(torch.ones(2))
    optimizer, precision = AdamW([weight], lr=0.1, weight_decay=0.0), Precision("fp16", CPU)
    precision.backward((weight.half() * 1e-4).float().sum() * 1e-4)  # 1e-8 in fp16 is 0
    precision.unscale_(optimizer)
    assert weight.grad.tolist() == pytest.approx([1e-8, 1e-8], rel=5e-3)  # scaled it is 1e-5, and fp16 counts in 6e-8


def test_an_infinite_gradient_skips_the_step_and_halves_the_scale():
    weight = nn.Parameter(torch.ones(4))
    optimizer, precision = AdamW([weight], lr=0.1), Precision("fp16", CPU)
    _step(precision, weight, optimizer, factor=float("inf"))
    assert torch.equal(weight, torch.ones(4)) and not optimizer.state
    assert precision.state_dict()["scale"] == FIRST_SCALE / 2


def test_after_a_skipped_step_training_goes_on():
    weight = nn.Parameter(torch.ones(4))
    optimizer, precision = AdamW([weight], lr=0.1), Precision("fp16", CPU)
    _step(precision, weight, optimizer, factor=float("inf"))
    _step(precision, weight, optimizer, factor=1.0)
    assert optimizer.state[weight]["step"] == 1


def test_the_scale_and_its_growth_counter_are_restored():
    weight = nn.Parameter(torch.ones(4))
    precision = Precision("fp16", CPU)
    optimizer = AdamW([weight])
    for factor in (float("inf"), 1.0, 1.0):
        _step(precision, weight, optimizer, factor)
    resumed = Precision("fp16", CPU)
    resumed.load_state_dict(precision.state_dict())
    assert resumed.state_dict() == precision.state_dict()
    assert resumed.state_dict()["_growth_tracker"] == 2


@pytest.mark.parametrize("choice", ["float32", "bf16"])
def test_a_format_without_scaling_has_nothing_to_save_and_fp16_can_go_on_from_it(choice):
    state = Precision(choice, CPU).state_dict()
    assert state == {}
    resumed = Precision("fp16", CPU)
    resumed.load_state_dict(state)
    assert resumed.state_dict()["scale"] == FIRST_SCALE


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_an_infinite_fp16_gradient_skips_the_step():
    device = torch.device("cuda")
    weight = nn.Parameter(torch.ones(4, device=device))
    optimizer, precision = AdamW([weight], lr=0.1), Precision("fp16", device)
    _step(precision, weight, optimizer, factor=float("inf"))
    assert torch.equal(weight.cpu(), torch.ones(4))
