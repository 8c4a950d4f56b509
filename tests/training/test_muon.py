"""Muon: the polynomial does what the SVD defines, and the step is that of the formula."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from scratch.config import TrainConfig
from scratch.model.build import build_detr
from scratch.training import muon
from scratch.training.muon import (
    ROUNDS, Muon, by_gram_matrix, maps_in, muon_groups, orthogonalised, orthogonalised_definition)
from scratch.training.optimizer import AdamW
from tests.training.test_loop import make_run, small_config


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize("shape", [(7, 13), (13, 7), (11, 11), (3, 5, 7)])
def test_singular_values_end_between_0_7_and_1_3(shape):
    u = draw(*shape)
    left, values, right = torch.linalg.svd(u, full_matrices=False)
    values = values.clamp(min=0.01 * torch.linalg.matrix_norm(u)[..., None])  # those below end lower: see further down
    ends = torch.linalg.svdvals(orthogonalised(left * values.unsqueeze(-2) @ right))
    assert 0.699 < ends.min() and ends.max() < 1.301


def ends_at(sigma: float) -> float:
    """Where the smaller singular value of a matrix of Frobenius norm 1 ends."""
    u = torch.diag(torch.tensor([math.sqrt(1 - sigma**2), sigma], dtype=torch.float64))
    return orthogonalised(u)[1, 1].item()


def test_every_singular_value_from_0_0094_of_the_norm_ends_between_0_70_and_1_30():
    ends = [ends_at(0.0094 * (0.7 / 0.0094) ** (i / 2000)) for i in range(2001)]  # 0.7: both are nearly equal
    assert 0.6999 < min(ends) and max(ends) < 1.3001
    assert ends_at(0.0093) < 0.6999


def test_a_smaller_singular_value_grows_by_79_alone():
    assert [round(ends_at(sigma), 3) for sigma in (0.001, 0.0001)] == [0.079, 0.008]
    assert ends_at(1e-6) / 1e-6 == pytest.approx(math.prod(a for a, _, _ in ROUNDS), rel=1e-3)
    assert math.prod(a for a, _, _ in ROUNDS) == pytest.approx(79, abs=0.5)


def test_each_rounds_polynomial_is_the_best_for_the_singular_values_that_it_gets():
    """Of the three numbers, the best in the largest deviation from 1: it is reached four times, with changing sign."""
    low, high = 0.009356, 1.0
    for a, b, c in ROUNDS:
        sigma = torch.linspace(low, 1.01 * high, 200_001, dtype=torch.float64)
        away = a * sigma + b * sigma**3 + c * sigma**5 - 1
        middle = away[1:-1]
        turns = middle[(middle - away[:-2]) * (away[2:] - middle) < 0]
        extremes = torch.cat([away[:1], turns, away[-1:]])
        assert len(extremes) == 4 and (extremes.sign() == torch.tensor([-1.0, 1, -1, 1], dtype=torch.float64)).all()
        largest = extremes.abs().max().item()
        torch.testing.assert_close(extremes.abs(), torch.full_like(extremes, largest), rtol=0, atol=1e-4)
        low, high = 1 - largest, 1 + largest
    assert high == pytest.approx(1.3, abs=1e-4)


@pytest.mark.parametrize("shape", [(7, 13), (13, 7)])
def test_the_polynomial_keeps_the_singular_vectors(shape):
    u = draw(*shape)
    exact, fast = orthogonalised_definition(u), orthogonalised(u)
    # In the basis of u's singular vectors both are diagonal.
    left, _, right = torch.linalg.svd(u, full_matrices=False)
    diagonal = left.mT @ fast @ right.mT
    torch.testing.assert_close(diagonal, torch.diag(diagonal.diagonal()), rtol=0, atol=1e-9)
    torch.testing.assert_close(left.mT @ exact @ right.mT, torch.eye(7, dtype=torch.float64), rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype, deviation", [(torch.float64, 1e-9), (torch.float32, 1e-4)])
@pytest.mark.parametrize("shape", [(1, 2), (7, 14), (7, 15), (3, 5, 40), (40, 3), (32, 288)])
@pytest.mark.parametrize("falls", [0, 4, 20])
def test_by_gram_matrices_the_rounds_of_a_wide_matrix_are_the_same(shape, falls, dtype, deviation):
    """With singular values that fall by 10^falls from the first to the last, too: most of a gradient's are small."""
    left, values, right = torch.linalg.svd(draw(*shape), full_matrices=False)
    values = values * torch.logspace(0, -falls, values.shape[-1], dtype=torch.float64)
    u = left * values.unsqueeze(-2) @ right
    wide = u if shape[-2] < shape[-1] else u.mT
    x = wide / (torch.linalg.vector_norm(wide, dim=(-2, -1), keepdim=True) + 1e-7)
    for a, b, c in ROUNDS:
        x = a * x + b * x @ x.mT @ x + c * x @ x.mT @ x @ x.mT @ x
    found = orthogonalised(u.to(dtype)).double()
    torch.testing.assert_close(found if wide is u else found.mT, x, rtol=0, atol=deviation)


def test_in_half_precision_a_wide_matrix_of_small_singular_values_does_not_diverge():
    left, _, right = torch.linalg.svd(draw(8, 64), full_matrices=False)
    u = (left * torch.logspace(0, -6, 8, dtype=torch.float64)) @ right
    assert torch.linalg.matrix_norm(orthogonalised(u.float(), torch.bfloat16).float(), 2) < 1.3


def test_the_scale_of_a_gradient_does_not_matter():
    u = draw(5, 7)
    torch.testing.assert_close(orthogonalised(1e-3 * u), orthogonalised(u), rtol=1e-3, atol=1e-3)


def test_a_gradient_of_zero_is_no_step():
    assert torch.equal(orthogonalised(torch.zeros(3, 5)), torch.zeros(3, 5))


def test_a_gradient_as_small_as_the_guard_against_zero_counts_half():
    s = 0.5  # 1e-7 / (1e-7 + 1e-7): the one singular value, then the rounds of the note
    for a, b, c in ROUNDS:
        s = a * s + b * s**3 + c * s**5
    assert orthogonalised(torch.tensor([[1e-7]], dtype=torch.float64)).item() == pytest.approx(s, rel=1e-9)


def stepped(weight: torch.Tensor, gradients: list[torch.Tensor], **group) -> torch.Tensor:
    parameter = torch.nn.Parameter(weight.clone())
    optimizer = Muon([{"params": [parameter], "maps": [1], "lr": 0.1, "weight_decay": 0.0, **group}])
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
    return parameter.detach()


def test_two_steps_of_a_convolution_are_those_of_the_formula():
    weight, first, second = draw(5, 3, 2, 2), draw(5, 3, 2, 2), draw(5, 3, 2, 2)
    expected, momentum = weight.clone(), torch.zeros_like(weight)
    for gradient in (first, second):
        momentum = 0.95 * momentum + gradient
        u = (gradient + 0.95 * momentum).view(5, 12)
        expected = expected * (1 - 0.1 * 0.3) - 0.1 * orthogonalised(u).view_as(weight)  # 5 < 12: √max(1, m/n) = 1
    torch.testing.assert_close(stepped(weight, [first, second], weight_decay=0.3), expected, rtol=1e-10, atol=1e-10)


def test_decay_holds_the_length_at_which_each_step_turns_a_matrix_by_one_angle():
    generator, eta, decay = torch.Generator().manual_seed(5), 0.05, 0.4  # 1/ηλ = 50 steps to settle
    for start in (0.01, 3.0):  # from any length
        parameter = torch.nn.Parameter(start * draw(16, 24))
        optimizer = Muon([{"params": [parameter], "maps": [1], "lr": eta, "weight_decay": decay}], momentum=0.0)
        turns = []
        for _ in range(600):
            before = parameter.detach().clone()
            parameter.grad = torch.randn(before.shape, generator=generator, dtype=before.dtype)
            optimizer.step()
            turns.append(((parameter.detach() - (1 - eta * decay) * before).norm() / before.norm()).item())
        assert sum(turns[-200:]) / 200 == pytest.approx(math.sqrt(2 * eta * decay), rel=0.05)


def test_a_group_without_a_gradient_takes_no_step():
    still, moving = (torch.nn.Parameter(draw(3, 5)) for _ in range(2))
    before = still.detach().clone()
    optimizer = Muon([{"params": [p], "maps": [1], "lr": 0.1, "weight_decay": 0.3} for p in (still, moving)])
    moving.grad = draw(3, 5)
    optimizer.step()
    assert torch.equal(still, before) and not optimizer.state[still]


def test_a_tall_matrix_steps_further_by_the_root_of_its_sides_ratio():
    weight, gradient = draw(11, 2), draw(11, 2)
    step = weight - stepped(weight, [gradient])
    torch.testing.assert_close(step, 0.1 * math.sqrt(5.5) * orthogonalised(1.95 * gradient), rtol=1e-10, atol=1e-10)


def test_stacked_projections_are_maps_of_their_own():
    weight, gradient = draw(15, 5), draw(15, 5)
    together = stepped(weight, [gradient], maps=[3])
    apart = torch.cat([stepped(w, [g]) for w, g in zip(weight.split(5), gradient.split(5))])
    torch.testing.assert_close(together, apart, rtol=1e-10, atol=1e-10)
    assert not torch.allclose(stepped(weight, [gradient]), apart)  # as one tall map


def test_the_other_groups_take_the_steps_of_adamw():
    weights, gradients = [draw(7), draw(3, 5)], [draw(7), draw(3, 5)]
    results = []
    for kind in (Muon, AdamW):
        parameters = [torch.nn.Parameter(w.clone()) for w in weights]
        optimizer = kind([{"params": parameters, "lr": 1e-2, "weight_decay": 0.1}])
        for _ in range(3):
            for parameter, gradient in zip(parameters, gradients):
                parameter.grad = gradient.clone()
            optimizer.step()
        results.append([p.detach() for p in parameters])
    for ours, theirs in zip(*results):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("queries", ["learned", "anchor", "proposal"])
def test_embeddings_and_last_layers_are_left_to_adamw(queries):
    model = build_detr("tiny", queries=queries, num_classes=3, denoising=2 * (queries != "learned"), groups=2,
                       dim_feedforward=3 * 128, fine_memory=queries != "learned", roi_features=queries != "learned",
                       one_to_many=3 * (queries == "proposal"), classification="focal")
    groups = {group["name"]: group for group in muon_groups(model, TrainConfig(optimizer="muon"))}
    maps = {id(p): count for name, group in groups.items() if name.endswith("_matrices")
            for p, count in zip(group["params"], group["maps"], strict=True)}
    found = {name: maps.get(id(p), 0) for name, p in model.named_parameters()}
    assert found["backbone.conv1.weight"] == found["bbox_embed.layers.1.weight"] == 1
    assert found["transformer.encoder.layers.0.linear1.weight"] == 1  # three times as tall as wide, and one map
    assert found["transformer.encoder.layers.0.self_attn.in_proj_weight"] == 3
    assert queries == "learned" or found["transformer.decoder.layers.0.cross_attn.kv_content.weight"] == 2
    for name in found:
        if name.endswith(("bias", "_embed.weight", "bbox_embed.layers.2.weight", "ref_anchor_head.layers.1.weight")):
            assert found[name] == 0, name


def test_every_trainable_weight_is_in_exactly_one_group():
    model = build_detr("tiny", num_classes=3)
    groups = muon_groups(model, TrainConfig(optimizer="muon"))
    ids = [id(p) for group in groups for p in group["params"]]
    assert sorted(ids) == sorted(id(p) for p in model.parameters())
    assert [group["name"] for group in groups] == ["backbone", "transformer", "backbone_matrices",
                                                   "transformer_matrices"]


def test_each_group_has_its_rate_and_all_decay_alike():
    train = TrainConfig(optimizer="muon", lr=3e-4, lr_backbone=2e-4, lr_matrices=0.03, weight_decay=0.7)
    optimizer = Muon(muon_groups(build_detr("tiny", num_classes=3), train))  # what a group does not say has a default
    assert [group["lr"] for group in optimizer.param_groups] == [2e-4, 3e-4, 0.03, 0.03]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.7] * 4


def test_a_vector_is_no_map():
    assert maps_in("transformer.encoder.layers.0.norm1.weight", torch.ones(5)) == 0


def test_state_survives_saving_and_loading():
    weight, gradient = draw(5, 7), draw(5, 7)
    parameters = [torch.nn.Parameter(weight.clone()) for _ in range(2)]
    optimizers = [Muon([{"params": [p], "maps": [1], "lr": 0.1, "weight_decay": 0.0}]) for p in parameters]
    parameters[0].grad = gradient.clone()
    optimizers[0].step()
    optimizers[1].load_state_dict(copy.deepcopy(optimizers[0].state_dict()))
    parameters[1].data.copy_(parameters[0].data)
    for p, optimizer in zip(parameters, optimizers):
        p.grad = -2 * gradient
        optimizer.step()
    assert torch.equal(*parameters)


def test_a_matrix_of_one_row_turns_into_its_gradients_direction():
    weight, gradient = draw(1, 5), draw(1, 5)
    moved = stepped(weight, [gradient]) - weight
    torch.testing.assert_close(moved / moved.norm(), -gradient / gradient.norm())


def test_each_group_has_its_own_learning_rate():
    train = TrainConfig(optimizer="muon", lr=3e-4, lr_backbone=3e-5, lr_matrices=3e-2)
    layers = {name: torch.nn.Linear(3, 3) for name in ("backbone", "transformer")}
    groups = muon_groups(torch.nn.ModuleDict(layers), train)
    assert {group["name"]: group["lr"] for group in groups} == {
        "backbone": 3e-5, "transformer": 3e-4, "backbone_matrices": 3e-2, "transformer_matrices": 3e-2}


@pytest.mark.parametrize("shape", [(17, 48), (48, 17), (2, 24, 24)])
def test_in_half_precision_a_step_is_as_close_to_the_svds_as_in_float32(shape):
    """As on a GPU: products of halves, each rounded once."""
    u = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    exact = orthogonalised_definition(u.double())
    steps = [orthogonalised(u), orthogonalised(u, torch.float16).float()]
    cosines = [(torch.sum(step * exact) / (step.norm() * exact.norm())).item() for step in steps]
    assert abs(cosines[0] - cosines[1]) < 1e-3 and min(cosines) > 0.9
    assert 0 < (steps[1] - steps[0]).norm() / steps[0].norm() < 0.01


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_a_gradient_beyond_the_range_of_half_precision_is_no_matter(scale):
    u = torch.randn(7, 13, generator=torch.Generator().manual_seed(2))
    step = orthogonalised(scale * u, torch.float16)
    assert step.dtype == torch.float16 and step.isfinite().all()
    torch.testing.assert_close(step, orthogonalised(u, torch.float16), rtol=0, atol=0.05)


@pytest.mark.parametrize("on_cpu, dtype, products", [
    (None, torch.float32, torch.float32), (torch.bfloat16, torch.float32, torch.bfloat16),
    (torch.bfloat16, torch.float64, torch.float64),  # a proof in float64 stays one
])
def test_the_products_on_a_cpu_have_the_dtype_that_was_asked_for(on_cpu, dtype, products, monkeypatch):
    seen = []
    monkeypatch.setattr(muon, "orthogonalised", lambda u, dtype: seen.append(dtype) or orthogonalised(u, dtype))
    weight, gradient = draw(5, 9).to(dtype), draw(5, 9).to(dtype)
    parameter = torch.nn.Parameter(weight.clone())
    parameter.grad = gradient
    Muon([{"params": [parameter], "maps": [1], "lr": 0.1, "weight_decay": 0.0}], on_cpu=on_cpu).step()
    assert seen == [products]
    step, expected = (weight - parameter.detach()) / 0.1, orthogonalised(1.95 * gradient)
    error = ((step - expected).norm() / expected.norm()).item()
    assert error < 1e-5 if products is dtype else 1e-5 < error < 0.05


@pytest.mark.parametrize("precision, products", [("auto", None), ("float32", None), ("bf16", torch.bfloat16)])
def test_a_run_in_bf16_on_a_cpu_orthogonalises_in_it(precision, products, tmp_path):
    config = small_config(optimizer="muon", precision=precision)
    assert make_run(config, tmp_path).optimizer.on_cpu is products
