"""What a step needs is counted without its memory, and the line that comes of it names a batch that fits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from scratch.config import PRESETS, Config
from scratch.model.build import make_detr
from scratch.training.step_memory import (
    COUNTED, SPARE, Alive, fake_tensors, largest_batch, say_what_fits, step_peak, surely_fits, usual_size,
    what_fits)

MIB = 2**20


def test_what_is_alive_is_counted_once_and_its_end_too() -> None:
    with Alive() as alive:
        x = torch.zeros(MIB)
        y = x.view(-1, 2)[1:]  # the same memory
        assert alive.alive == 4 * MIB
        alive.part = "sum"
        z = x * 2 + 1
        assert alive.alive == 8 * MIB
        del y, z
    assert alive.alive == 4 * MIB and alive.peaks == {"": 4 * MIB, "sum": 12 * MIB}


def test_a_number_that_is_read_of_a_fake_tensor_is_0() -> None:
    with fake_tensors(), Alive():
        assert torch.full((2, 3), 7.0).sum().item() == 0


class Products(nn.Module):
    """Keeps its input of a million numbers, each time that it multiplies: 4 MiB a layer and image."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.weights = nn.ParameterList(nn.Parameter(torch.zeros(1024, 1024)) for _ in range(layers))

    def forward(self, images: Tensor, pad_mask: Tensor) -> dict[str, Any]:
        x = images.new_zeros(len(images) * 1024, 1024)
        for weight in self.weights:
            x = x @ weight
        return {"x": [x]}


ADAMW = PRESETS["detr_r50"]


def products(layers: int, images: int) -> float:
    """MiB of a step."""
    return 1024 * step_peak(lambda: Products(layers), ADAMW, (images, 8, 8), "cpu", "float32")


def test_a_peak_is_weights_gradients_moments_and_what_the_backward_needs() -> None:
    # 3 weights, their gradients so far, 6 moments; 3 inputs, the output, and gradients: in MiB, 4 of each
    one, two, five = (products(3, images) for images in (1, 2, 5))
    assert two - one == pytest.approx((five - two) / 3, rel=1e-3) and two - one == pytest.approx(4 * (3 + 2), abs=4.1)
    assert one > 4 * (3 + 6 + 3)


def small(**train: Any) -> Config:
    tiny = PRESETS["tiny"]
    model = replace(tiny.model, hidden_dim=16, nheads=2, dim_feedforward=24, enc_layers=1, dec_layers=1, num_queries=7,
                    num_classes=3)
    return replace(tiny, model=model, data=replace(tiny.data, short_side=64), train=replace(tiny.train, **train))


def test_the_count_is_the_memory_of_a_real_step() -> None:
    config = small(batch_size=3)
    counted = step_peak(lambda: make_detr(config.model), config, (3, 64, 64), "cpu", "float32")
    real = step_peak(lambda: make_detr(config.model), config, (3, 64, 64), "cpu", "float32", pretend=torch.enable_grad)
    assert counted == pytest.approx(real, rel=0.01) and counted > 0.005
    averaged = replace(config, train=replace(config.train, ema_decay=0.9))
    more = step_peak(lambda: make_detr(config.model), averaged, (3, 64, 64), "cpu", "float32")
    assert more - counted == pytest.approx(4 * sum(p.numel() for p in make_detr(config.model).parameters()) / 2**30)


@pytest.mark.parametrize("limit, size", [(1.9, 0), (2.0, 1), (2.4, 1), (2.5, 2), (5.1, 7), (1000.0, 1997)])
def test_the_largest_batch_is_on_the_line_through_two_counts(limit: float, size: int) -> None:
    counts: list[int] = []

    def peak(images: int) -> float:
        counts.append(images)
        return 1.5 + 0.5 * images

    assert largest_batch(peak, limit) == size
    assert len(counts) <= 4


def test_a_batch_that_the_line_only_promises_is_not_named() -> None:
    assert largest_batch(lambda images: images**2, 26) == 5
    assert largest_batch(lambda images: 3.0, 2.0) == 0  # it does not depend on the images


def test_the_line_names_what_fits_and_the_flags_of_the_same_step() -> None:
    config = small(batch_size=16, accumulate=2)
    assert what_fits(lambda images: images / 2, config, 8 + SPARE, "cuda:0") == ""
    line = what_fits(lambda images: images / 2, config, 6 + SPARE, "cuda:0")
    assert line.startswith("memory: 16 images of 64×64 at once need about 9.0 GiB (counted, before the first step), and "
                           "cuda:0 has 7.0 GiB: 12 fit. --batch-size 8 --accumulate 4 takes the same steps in parts")
    one = what_fits(lambda images: images / 2, config, 0.9 + SPARE, "cuda")
    assert "1 fits. --batch-size 1 --accumulate 32" in one
    assert "not even one image fits" in what_fits(lambda images: images / 2, config, 0.4 + SPARE, "cuda")
    assert "not even one image fits" in what_fits(lambda images: 5.0, small(batch_size=1), 4.0, "cuda")


def test_the_size_that_is_counted() -> None:
    data = PRESETS["detr_r50"].data
    assert usual_size(data) == (1066, 1066)
    assert usual_size(replace(data, max_size=900)) == (900, 900)
    assert usual_size(PRESETS["detr_141m_fast"].data) == (256, 256)


@pytest.mark.parametrize("preset", COUNTED)
def test_a_preset_as_it_is_needs_no_count(preset: str) -> None:
    config = PRESETS[preset]
    images, side, gib = COUNTED[preset]
    assert (images, side) == (config.train.batch_size, config.data.short_side)
    five = replace(config, model=replace(config.model, num_classes=5))
    assert surely_fits(five, "fp16", gib) and not surely_fits(five, "fp16", gib - 0.01)
    assert not surely_fits(config, "float32", 1000)
    larger = replace(config, train=replace(config.train, batch_size=2 * images))
    assert surely_fits(larger, "bf16", 2 * gib) and not surely_fits(larger, "bf16", 1.9 * gib)
    for part, change in (("data", {"short_side": side + 32}), ("model", {"groups": 2}), ("train", {"ema_decay": 0.9})):
        other = replace(config, **{part: replace(getattr(config, part), **change)})
        assert not surely_fits(other, "fp16", 1000)


def said(config: Config, gib: float, precision: str = "float32") -> list[str]:
    lines: list[str] = []
    say_what_fits(lambda: Products(3), config, precision, torch.device("cpu"), lines.append, available=gib)
    return lines


def test_before_the_first_step_a_line_says_what_does_not_fit_into_a_small_gpu() -> None:
    data, train = replace(ADAMW.data, short_side=8, square=True), replace(ADAMW.train, batch_size=8)
    config = replace(ADAMW, data=data, train=train)
    between = (products(3, 3) + products(3, 4)) / 2 / 1024
    counting, line = said(config, SPARE + between)
    assert counting.startswith("memory: counting") and "8 images of 8×8 at once need about 1." in line
    assert "and cpu has 1.1 GiB: 3 fit. --batch-size 2 --accumulate 4 takes" in line
    assert len(said(config, 80.0)) == 1


def test_a_preset_that_surely_fits_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scratch.training.step_memory.step_peak", pytest.fail)
    assert said(PRESETS["detr_141m_fast"], 14.6, "fp16") == []


def test_a_count_that_fails_does_not_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> float:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr("scratch.training.step_memory.step_peak", fail)
    assert said(small(), 14.6)[1] == "memory: what a step needs could not be counted (RuntimeError: no such kernel)"
