"""ema: the running average of the weights, and how it is lent to the model."""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn

from scratch.training.ema import ExponentialMovingAverage


class _Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 5, dtype=torch.float64))
        self.bias = nn.Parameter(torch.randn(7, dtype=torch.float64), requires_grad=False)
        self.register_buffer("running_mean", torch.randn(2, dtype=torch.float64))
        self.register_buffer("num_batches_tracked", torch.tensor(0))


def _walk(model: _Model) -> None:
    """What a training step does to a model."""
    with torch.no_grad():
        model.weight += torch.randn_like(model.weight)
        model.running_mean += torch.randn_like(model.running_mean)
        model.num_batches_tracked += 1


def _values(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_twenty_updates_follow_the_formula_letter_by_letter():
    model = _Model()
    ema = ExponentialMovingAverage(model, decay=0.6)
    wanted = _values(model)
    for n in range(20):
        _walk(model)
        d = min(0.6, (1 + n) / (10 + n))
        for name in ("weight", "running_mean"):
            wanted[name] = wanted[name] + (1 - d) * (model.state_dict()[name] - wanted[name])
        ema.update(model)
    for name in ("weight", "bias", "running_mean"):
        torch.testing.assert_close(ema.shadow[name], wanted[name], rtol=1e-12, atol=1e-12)


def test_by_hand_the_first_update_keeps_a_tenth_and_the_second_two_elevenths():
    model = nn.Module()
    model.weight = nn.Parameter(torch.zeros((), dtype=torch.float64))
    ema = ExponentialMovingAverage(model, decay=0.999)
    model.weight.data.fill_(1.0)
    ema.update(model)
    assert ema.shadow["weight"].item() == pytest.approx(0.9)
    ema.update(model)
    assert ema.shadow["weight"].item() == pytest.approx(1 - 0.1 * 2 / 11)


def test_weights_that_stay_as_they_are_never_drift_by_a_bit():
    model = _Model()
    ema = ExponentialMovingAverage(model, decay=0.9)
    for _ in range(50):
        ema.update(model)
    assert torch.equal(ema.shadow["bias"], model.bias)


def test_inside_the_context_the_model_has_the_average_and_afterwards_its_own_weights_bit_for_bit():
    model = _Model()
    ema = ExponentialMovingAverage(model, decay=0.9)
    _walk(model)
    ema.update(model)
    own, addresses = _values(model), [p.data_ptr() for p in model.parameters()]
    with ema.applied_to(model):
        assert torch.equal(model.weight, ema.shadow["weight"]) and not torch.equal(model.weight, own["weight"])
        assert torch.equal(model.running_mean, ema.shadow["running_mean"])
    assert all(torch.equal(tensor, own[name]) for name, tensor in model.state_dict().items())
    assert addresses == [p.data_ptr() for p in model.parameters()]


def test_the_weights_come_back_even_when_the_evaluation_fails_or_writes_to_the_model():
    model = _Model()
    ema = ExponentialMovingAverage(model, decay=0.9)
    _walk(model)
    own, average = _values(model), ema.shadow["weight"].clone()
    with pytest.raises(RuntimeError, match="evaluation"), ema.applied_to(model):
        _walk(model)
        raise RuntimeError("evaluation")
    assert torch.equal(model.weight, own["weight"]) and torch.equal(ema.shadow["weight"], average)


def test_a_restored_average_goes_on_bit_for_bit():
    model = _Model()
    ema = ExponentialMovingAverage(model, decay=0.9)
    for _ in range(3):
        _walk(model)
        ema.update(model)
    file = io.BytesIO()
    torch.save(ema.state_dict(), file)
    file.seek(0)
    resumed = ExponentialMovingAverage(_Model(), decay=0.9)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    _walk(model)
    ema.update(model)
    resumed.update(model)
    assert resumed.updates == 4 and all(torch.equal(resumed.shadow[name], ema.shadow[name]) for name in ema.shadow)


def test_the_average_of_another_model_is_refused():
    model = nn.Module()
    model.weight = nn.Parameter(torch.zeros(2))
    with pytest.raises(ValueError, match="other names or shapes"):
        ExponentialMovingAverage(_Model(), 0.9).load_state_dict(ExponentialMovingAverage(model, 0.9).state_dict())


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.5, float("nan")])
def test_a_decay_that_averages_nothing_or_never_moves_is_refused(decay):
    with pytest.raises(ValueError, match="wanted a number between 0 and 1"):
        ExponentialMovingAverage(_Model(), decay)
