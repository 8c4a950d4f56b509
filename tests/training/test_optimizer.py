"""optimizer: our AdamW and clipping against torch's, over many steps and through every edge."""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn

from scratch.config import TrainConfig
from scratch.ops.fast.switch import plain_mode
from scratch.training.muon import Muon
from scratch.training.optimizer import AdamW, adamw_definition, clip_grad_norm_, parameter_groups

SHAPES = [(7, 5), (3,), (), (2, 3, 11)]
SETTINGS = dict(lr=1e-2, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1)


def _weights(seed: int = 0) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64)) for shape in SHAPES]


def _twins(make_groups):
    """The same weights under our optimizer and under torch's."""
    ours, theirs = _weights(), _weights()
    return ours, theirs, AdamW(make_groups(ours)), torch.optim.AdamW(make_groups(theirs))


def _two_groups(weights):
    return [{**SETTINGS, "params": weights[:2]},
            {"params": weights[2:], "lr": 3e-3, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.0}]


def _give_gradients(*lists, step: int, gradient_of) -> None:
    for weights in lists:
        for i, weight in enumerate(weights):
            weight.grad = gradient_of(i, weight, torch.Generator().manual_seed(100 * step + i))


def _assert_equal_for_50_steps(gradient_of) -> None:
    for plain in (True, False):
        ours, theirs, our_optimizer, their_optimizer = _twins(_two_groups)
        for step in range(50):
            _give_gradients(ours, theirs, step=step, gradient_of=gradient_of)
            with plain_mode(plain):
                our_optimizer.step()
            their_optimizer.step()
            for our, their in zip(ours, theirs):
                torch.testing.assert_close(our, their, rtol=0, atol=1e-12)


def _random(i, weight, generator):
    return torch.randn(weight.shape, generator=generator, dtype=weight.dtype) * 10.0 ** (i - 1)


def test_fifty_steps_with_two_groups_equal_torch():
    _assert_equal_for_50_steps(_random)


def test_fifty_steps_in_which_gradients_are_none_now_and_then_equal_torch():
    def sometimes_none(i, weight, generator):
        return None if torch.rand((), generator=generator) < 0.4 else _random(i, weight, generator)

    _assert_equal_for_50_steps(sometimes_none)


def test_fifty_steps_with_mostly_zero_gradients_equal_torch():
    def mostly_zero(i, weight, generator):
        keep = torch.rand(weight.shape, generator=generator, dtype=weight.dtype) < 0.1
        return _random(i, weight, generator) * keep

    _assert_equal_for_50_steps(mostly_zero)


def test_plain_mode_takes_the_same_float32_steps_whatever_the_memory_format():
    weights = [nn.Parameter(torch.randn(4, 3, 2, 2).contiguous(memory_format=torch.channels_last)) for _ in range(2)]
    weights[1].data.copy_(weights[0].data)
    optimizers = [AdamW([weight], **SETTINGS) for weight in weights]
    for step in range(3):
        for weight, optimizer, plain in zip(weights, optimizers, (True, False)):
            weight.grad = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(step))
            with plain_mode(plain):
                optimizer.step()
    torch.testing.assert_close(*weights, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [AdamW, lambda params: Muon([{**group, "maps": [1]} for group in params])])
def test_moments_saved_in_another_memory_format_take_that_of_the_weights(make):
    weight = nn.Parameter(torch.randn(4, 3, 2, 2).contiguous(memory_format=torch.channels_last))
    groups = [{"params": [weight], "lr": 0.1}]
    first, second = make(groups), make(groups)
    weight.grad = torch.randn_like(weight)
    first.step()
    saved = first.state_dict()
    for state in saved["state"].values():
        state.update({name: value.contiguous() for name, value in state.items() if isinstance(value, torch.Tensor)})
    second.load_state_dict(saved)
    moments = [value for value in second.state[weight].values() if isinstance(value, torch.Tensor)]
    assert moments and all(value.stride() == weight.stride() for value in moments)
    assert all(torch.equal(value, first.state[weight][name]) for name, value in second.state[weight].items()
               if isinstance(value, torch.Tensor))


def test_the_published_decay_is_too_small_for_float32():
    weight, zero = torch.randn(1000), torch.zeros(1000)
    settings = dict(lr=1e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-4)
    assert torch.equal(adamw_definition(weight, zero, zero, zero, 1, **settings)[0], weight)
    assert torch.equal(weight * (1 - 1e-4 * 1e-4), weight)  # as torch.optim.AdamW computes it


@pytest.mark.parametrize("scale", [1000.0, 0.001])
def test_a_steady_gradient_of_any_size_moves_its_weight_by_the_learning_rate(scale):
    weight = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))
    optimizer = AdamW([weight], lr=0.1, eps=0.0, weight_decay=0.0)
    for step in range(1, 5):
        weight.grad = torch.tensor(scale, dtype=torch.float64)
        optimizer.step()
        assert weight.item() == pytest.approx(2.0 - 0.1 * step, rel=1e-12)


def test_the_worked_example_an_undecided_gradient_moves_its_weight_by_a_twentieth():
    weight = m = v = torch.zeros((), dtype=torch.float64)
    for step, gradient in enumerate((1000.0, -1000.0, 1000.0, -1000.0), 1):
        before = weight
        weight, m, v = adamw_definition(weight, torch.tensor(gradient, dtype=torch.float64), m, v, step,
                                        lr=1.0, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    # m: 100, −10, 91, −18.1, and −18.1 / (1 − 0.9⁴) = −52.6; v̂ = 1000²
    assert m.item() / (1 - 0.9 ** 4) == pytest.approx(-52.6, abs=0.05)
    assert (weight - before).item() == pytest.approx(0.05, abs=0.005)


def test_without_bias_correction_the_first_step_would_be_three_times_too_long():
    _, m, v = adamw_definition(*torch.tensor([0.0, 5.0, 0.0, 0.0], dtype=torch.float64), 1, **SETTINGS)
    assert (m / v.sqrt()).item() == pytest.approx(3.16, abs=0.005)


def test_weight_decay_shrinks_every_weight_by_one_factor_whatever_its_gradient():
    weight = nn.Parameter(torch.tensor([3.0, 3.0], dtype=torch.float64))
    optimizer = AdamW([weight], lr=0.1, eps=1e-8, weight_decay=0.5)
    weight.grad = torch.tensor([0.0, 1e6], dtype=torch.float64)
    optimizer.step()
    assert weight.tolist() == pytest.approx([3 * 0.95, 3 * 0.95 - 0.1])


def test_a_weight_without_a_gradient_is_left_alone_and_its_step_does_not_count():
    first, second = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    optimizer = AdamW([first, second])
    first.grad = torch.ones(3)
    optimizer.step()
    assert torch.equal(second, torch.ones(3)) and second not in optimizer.state
    assert optimizer.state[first]["step"] == 1


def test_a_run_continued_from_a_saved_state_equals_the_uninterrupted_run_bit_for_bit():
    weights = _weights()
    optimizer = AdamW(_two_groups(weights))
    for step in range(10):
        if step == 4:
            file = io.BytesIO()
            torch.save({"optimizer": optimizer.state_dict(), "weights": [w.data for w in weights]}, file)
        _give_gradients(weights, step=step, gradient_of=_random)
        optimizer.step()

    file.seek(0)
    saved = torch.load(file, weights_only=True)
    again = [nn.Parameter(data) for data in saved["weights"]]
    resumed = AdamW([{**group, "lr": 9.0} for group in _two_groups(again)])
    resumed.load_state_dict(saved["optimizer"])
    for step in range(4, 10):
        _give_gradients(again, step=step, gradient_of=_random)
        resumed.step()
    assert all(torch.equal(a, b) for a, b in zip(again, weights))


def test_the_step_count_is_saved_as_a_plain_int():
    weight = nn.Parameter(torch.ones(3))
    optimizer = AdamW([weight])
    weight.grad = torch.ones(3)
    optimizer.step()
    assert type(optimizer.state_dict()["state"][0]["step"]) is int


def test_neither_the_step_nor_the_clipping_waits_for_the_device():
    weights = [nn.Parameter(torch.zeros(shape, device="meta")) for shape in SHAPES]  # meta: there are no values to read
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    assert clip_grad_norm_(weights, 0.1).device.type == "meta"
    AdamW(weights).step()


@pytest.mark.parametrize("settings", [{"lr": -1.0}, {"lr": float("nan")}, {"eps": -1e-8}, {"weight_decay": -0.1},
                                      {"betas": (1.0, 0.999)}, {"betas": (0.9, -0.1)}])
def test_a_setting_outside_its_range_is_refused(settings):
    with pytest.raises(ValueError, match="wanted"):
        AdamW([nn.Parameter(torch.ones(3))], **settings)


@pytest.mark.parametrize("max_norm", [1e-3, 0.1, 1e6])
def test_clipping_equals_torch_in_the_norm_and_in_every_gradient(max_norm):
    ours, theirs = _weights(), _weights()
    _give_gradients(ours, theirs, step=0, gradient_of=_random)
    ours[1].grad = theirs[1].grad = None
    our_norm = clip_grad_norm_(iter(ours), max_norm)
    their_norm = torch.nn.utils.clip_grad_norm_(theirs, max_norm)
    torch.testing.assert_close(our_norm, their_norm, rtol=1e-12, atol=0)
    for our, their in zip(ours, theirs):
        torch.testing.assert_close(our.grad, their.grad, rtol=1e-12, atol=0)


def test_clipping_a_gradient_of_3_and_4_to_length_1_gives_three_fifths_and_four_fifths():
    weights = [nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))]
    weights[0].grad, weights[1].grad = torch.tensor([3.0]), torch.tensor([4.0])
    assert clip_grad_norm_(weights, 1.0).item() == 5.0
    assert [w.grad.item() for w in weights] == pytest.approx([0.6, 0.8], rel=1e-6)


def test_a_maximum_of_zero_only_measures():
    weights = _weights()
    _give_gradients(weights, step=0, gradient_of=_random)
    before = [w.grad.clone() for w in weights]
    norm = clip_grad_norm_(weights, 0.0)
    assert norm.item() == pytest.approx(torch.cat([g.flatten() for g in before]).norm().item())
    assert all(torch.equal(w.grad, g) for w, g in zip(weights, before))


def test_clipping_without_any_gradient_gives_zero():
    assert clip_grad_norm_(_weights(), 0.1).item() == 0.0


class _Detector(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.weight = nn.Parameter(torch.ones(2))
        self.backbone.frozen = nn.Parameter(torch.ones(2), requires_grad=False)
        self.backbone_like = nn.Parameter(torch.ones(5))
        self.head = nn.Parameter(torch.ones(3))


def test_the_backbone_learns_at_its_own_rate_and_frozen_weights_are_in_no_group():
    model = _Detector()
    train = TrainConfig(lr=1e-4, lr_backbone=1e-5, weight_decay=1e-4)
    assert parameter_groups(model, train) == [
        {"name": "backbone", "params": [model.backbone.weight], "lr": 1e-5, "weight_decay": 1e-4},
        {"name": "transformer", "params": [model.backbone_like, model.head], "lr": 1e-4, "weight_decay": 1e-4},
    ]


def test_a_wholly_frozen_backbone_has_no_group():
    model = _Detector()
    model.backbone.requires_grad_(False)
    assert [group["name"] for group in parameter_groups(model, TrainConfig())] == ["transformer"]


def test_a_model_with_nothing_to_train_is_refused():
    with pytest.raises(ValueError, match="requires_grad"):
        parameter_groups(_Detector().requires_grad_(False), TrainConfig())


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_clipping_leaves_gradients_of_no_finite_length_alone_so_that_the_culprit_can_be_named(broken: float) -> None:
    weights = [torch.zeros(3, requires_grad=True), torch.zeros(2, requires_grad=True)]
    weights[0].grad, weights[1].grad = torch.tensor([3.0, broken, 4.0]), torch.tensor([5.0, 6.0])
    assert not clip_grad_norm_(weights, 0.1).isfinite()
    assert weights[1].grad.tolist() == [5.0, 6.0] and weights[0].grad[0] == 3.0
