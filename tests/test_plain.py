"""Plain mode: the published detector on the notes of ops/ alone computes what it computes with the doors of ops/fast.

Whatever doors there are, both modes are held to the official DETR's stored values, and to each other.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from commands.children import Children
from commands.command_line import run_command
from commands.flags import preset_config
from commands.opening import make_criterion
from scratch.analysis.primitives import composites, record_primitives
from scratch.config import PRESETS, ModelConfig
from scratch.model.build import build_detr
from scratch.model.detr import Detr
from scratch.ops.fast.switch import plain, plain_mode
from scratch.training.loop import train_step
from scratch.training.optimizer import AdamW, parameter_groups
from tests import golden
from tests.test_golden import (  # noqa: F401  the golden tests, here on the `run` below
    Run, test_each_object_is_matched_with_the_same_query, test_every_gradient_has_the_same_norm,
    test_every_layer_before_it_answers_the_same, test_every_loss_is_the_same, test_the_last_layer_answers_the_same,
    test_the_weighted_total_is_the_same)
from tests.training.test_loop import make_run, random_batch, small_config

VANILLA = PRESETS["tiny_vanilla"].model
SMALL = replace(VANILLA, hidden_dim=24, nheads=3, dim_feedforward=17, num_queries=7, num_classes=5)
modes = pytest.mark.parametrize("on", [False, True], ids=["fast", "plain"])


@pytest.fixture(scope="module", params=golden.NAMES)
def run(request, golden_dir) -> Run:
    """One forward and backward of a published detector, in plain mode."""
    with plain_mode():
        return Run(golden_dir, request.param)


def batch(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, list[dict]]:
    """Two images, the second smaller, with two objects and none."""
    generator = torch.Generator().manual_seed(1)
    images, pad_mask = torch.randn(2, 3, 64, 96, generator=generator), torch.zeros(2, 64, 96, dtype=torch.bool)
    pad_mask[1, 32:] = True
    boxes = (0.3 + 0.3 * torch.rand(2, 4, generator=generator)).to(dtype)
    targets = [{"labels": torch.tensor([3, 1]), "boxes": boxes, "image_id": 0},
               {"labels": torch.zeros(0, dtype=torch.int64), "boxes": boxes[:0], "image_id": 1}]
    return images.masked_fill(pad_mask[:, None], 0).to(dtype), pad_mask, targets


def one_step(on: bool, config: ModelConfig, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Losses and gradients of a training step, and the weights after it, in plain mode or not."""
    with plain_mode(on):
        torch.manual_seed(3)
        model = build_detr(config).to(dtype)
        criterion = make_criterion(replace(PRESETS["tiny_vanilla"], model=config))
        optimizer = AdamW(parameter_groups(model, PRESETS["tiny_vanilla"].train))
        images, pad_mask, targets = batch(dtype)
        losses = criterion(model(images, pad_mask), targets)
        criterion.total(losses).backward()
        gradients = {f"gradient of {name}": p.grad.clone() for name, p in model.named_parameters()}
        optimizer.step()
        return losses | gradients | {f"after: {name}": value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("changes", [{}, {"norm": "frozen_batch", "dilation": False}, {"enc_layers": 0, "dec_layers": 1}],
                         ids=["tiny_vanilla", "frozen, stride 32", "no encoder"])
def test_losses_gradients_and_weights_of_a_training_step_are_those_of_the_fast_mode(changes):
    ours, fast = (one_step(on, replace(SMALL, **changes), torch.float64) for on in (True, False))
    assert list(ours) == list(fast)
    for name in ours:
        if name != f"gradient of {golden.NOISE}" and name != f"after: {golden.NOISE}":
            torch.testing.assert_close(ours[name], fast[name], rtol=1e-8, atol=1e-8, msg=lambda m: f"{name}: {m}")


def test_a_step_of_the_training_loop_is_that_of_the_fast_mode(tmp_path):
    records = []
    for on in (False, True):
        with plain_mode(on):
            run = make_run(small_config(), tmp_path / str(on))  # both from one seed
            before = run.model.class_embed.weight.clone()
            records.append(train_step(run, [random_batch(3)]))
            assert not torch.equal(run.model.class_embed.weight, before)
    assert records[1] == pytest.approx(records[0], rel=1e-4)


@modes
def test_a_training_step_learns(on: bool):
    with plain_mode(on):
        torch.manual_seed(3)
        config = replace(PRESETS["tiny_vanilla"], model=SMALL)
        model, criterion = build_detr(SMALL), make_criterion(config)
        optimizer = AdamW(parameter_groups(model, config.train))
        images, pad_mask, targets = batch()
        totals = []
        for _ in range(4):
            optimizer.zero_grad()
            totals.append(criterion.total(criterion(model(images, pad_mask), targets)))
            totals[-1].backward()
            optimizer.step()
    assert totals[-1] < totals[0]


@modes
def test_a_training_step_dispatches_primitives_alone(on: bool):
    with plain_mode(on):
        model = build_detr(replace(VANILLA, dropout=0.1))
        criterion = make_criterion(PRESETS["tiny_vanilla"])
        images, pad_mask, targets = batch()
        counts = record_primitives(lambda: criterion.total(criterion(model(images, pad_mask), targets)).backward())
    assert counts and composites(counts) == {}


@modes
def test_under_autocast_it_stays_near_float32(on: bool):
    with plain_mode(on):
        torch.manual_seed(3)
        model, (images, pad_mask, _) = build_detr(SMALL).eval(), batch()
        exact = model(images, pad_mask)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = model(images, pad_mask)
    for name, tolerance in (("pred_logits", 0.1), ("pred_boxes", 0.02)):
        assert rough[name].dtype == torch.float32 and 0 < (rough[name] - exact[name]).abs().max() < tolerance


@modes
def test_shapes_can_be_followed_without_numbers(on: bool):
    with plain_mode(on), torch.device("meta"):
        outputs = build_detr(SMALL)(torch.empty(2, 3, 64, 96), torch.zeros(2, 64, 96, dtype=torch.bool))
    assert outputs["pred_logits"].shape == (2, 7, 6) and outputs["pred_boxes"].shape == (2, 7, 4)


# -- what needs a branch -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes, said", [
    ({"queries": "proposal", "classification": "focal"}, "got queries = proposal, classification = focal; wanted"),
    ({"queries": "anchor"}, "got queries = anchor; wanted"),
    ({"classification": "focal"}, "got classification = focal; wanted"),
    ({"groups": 2}, "got groups = 2; wanted"),
])
def test_a_configuration_that_needs_a_branch_is_refused_in_words(changes, said):
    words = f"plain mode (--plain, --ops) runs the published DETR alone: {said} a preset such as tiny_vanilla or detr_r50"
    with plain_mode(), pytest.raises(ValueError, match=re.escape(words)):
        build_detr(SMALL, **changes)
    build_detr(SMALL, **changes)  # and not without plain mode


@pytest.mark.parametrize("preset", ["tiny_vanilla", "detr_r50", "detr_r101_dc5", "detr_141m"])
def test_the_published_presets_are_built(preset):
    with plain_mode(), torch.device("meta"):
        assert type(build_detr(preset)) is Detr


def test_the_published_class_refuses_what_it_does_not_build():
    with pytest.raises(ValueError, match="Detr is the published model: got groups = 2; build_detr builds it"):
        Detr(replace(SMALL, groups=2))


@pytest.mark.parametrize("value, on", [("1", True), ("0", False), ("", False)])
def test_an_environment_variable_turns_plain_mode_on(value, on):
    code = "from scratch.ops.fast.switch import plain; print(plain())"
    said = subprocess.run([sys.executable, "-c", code], env={**os.environ, "DETR_PLAIN": value}, text=True,
                          capture_output=True, check=True).stdout
    assert said.strip() == str(on)


def test_the_published_detector_loads_no_branch_of_the_model_and_the_objective():
    code = ("import sys, torch; from scratch.config import PRESETS; from scratch.model.detr import Detr; from "
            "scratch.objective.criterion import SetCriterion; Detr(PRESETS['tiny_vanilla'].model); print([name for name in sys.modules if name.startswith(("
            "'scratch.model.anchors', 'scratch.model.beyond', 'scratch.objective.variant'))])")
    said = subprocess.run([sys.executable, "-c", code], env={**os.environ, "DETR_PLAIN": "1"}, text=True,
                          capture_output=True, check=True).stdout
    assert said.strip() == "[]"


def test_plain_mode_ends_with_its_block():
    before = plain()
    with plain_mode(not before):
        assert plain() is not before
    assert plain() is before


def test_a_flag_of_every_command_turns_plain_mode_on_while_it_runs():
    seen = []
    commands = {"train": (lambda argv: argv, lambda argv: seen.append((plain(), argv)))}
    with plain_mode(False):
        run_command(commands, ["--plain", "--epochs", "3"], None)
        run_command(commands, ["train", "--epochs", "3"], None)
        assert seen == [(True, ["--epochs", "3"]), (False, ["--epochs", "3"])] and not plain()


@modes
def test_without_a_preset_plain_mode_takes_one_of_the_published_model(on):
    with plain_mode(on):
        assert [preset_config(None, device).preset for device in ("cpu", "cuda")] == (
            ["tiny_vanilla", "detr_141m"] if on else ["tiny", "detr_141m_fast"])


@modes
def test_trainings_in_processes_of_their_own_are_in_the_same_mode(on):
    with plain_mode(on):
        assert Children(None).environment["DETR_PLAIN"] == str(int(on))
