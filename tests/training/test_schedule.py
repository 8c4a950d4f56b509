"""schedule: the two curves and the warm-up against torch's schedulers."""

from __future__ import annotations

import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, StepLR

from scratch.config import PRESETS, TrainConfig
from scratch.training.optimizer import AdamW
from scratch.training.schedule import Schedule, learning_rate_factor


def _optimizer() -> AdamW:
    return AdamW([{"params": [torch.ones(1, requires_grad=True)], "lr": 1e-4},
                  {"params": [torch.ones(1, requires_grad=True)], "lr": 1e-5}])


def _rates(optimizer) -> list[float]:
    return [group["lr"] for group in optimizer.param_groups]


def _assert_follows(train: TrainConfig, make_scheduler, steps: int) -> None:
    """Over `steps` steps, our rates equal those of torch's scheduler, called once after each step."""
    ours, theirs = _optimizer(), _optimizer()
    schedule, scheduler = Schedule(ours, train), make_scheduler(theirs)
    for step in range(steps):
        schedule.set(step, step / steps)
        assert _rates(ours) == pytest.approx(_rates(theirs), rel=1e-9, abs=1e-18)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch misses an optimizer.step(), which would change nothing here
            scheduler.step()


def test_the_step_schedule_equals_torchs_step_lr_over_the_published_300_epochs():
    _assert_follows(TrainConfig(schedule="step", lr_drop_at=2 / 3), lambda o: StepLR(o, step_size=200, gamma=0.1), 300)


def test_the_cosine_schedule_equals_torchs_cosine_annealing():
    _assert_follows(TrainConfig(schedule="cosine"), lambda o: CosineAnnealingLR(o, T_max=97), 97)


def test_the_warm_up_equals_torchs_linear_lr():
    train = TrainConfig(schedule="step", lr_drop_at=1.0, warmup_steps=13)
    _assert_follows(train, lambda o: LinearLR(o, start_factor=1 / 13, total_iters=12), 50)


@given(st.integers(1, 10**7))
def test_the_drop_comes_with_the_first_step_after_two_thirds_however_many_steps_there_are(thousands):
    train = TrainConfig(schedule="step", lr_drop_at=2 / 3)
    total = 3 * thousands
    assert learning_rate_factor(train, 2 * thousands - 1, (2 * thousands - 1) / total) == 1.0
    assert learning_rate_factor(train, 2 * thousands, 2 * thousands / total) == 0.1


def test_by_hand_with_four_warm_up_steps_half_way_down_a_cosine():
    train = TrainConfig(schedule="cosine", warmup_steps=4)
    assert learning_rate_factor(train, 1, 0.5) == pytest.approx(2 / 4 * 0.5)


def test_the_backbone_has_a_tenth_of_the_rate_in_the_published_presets_alone():
    ratios = {name: config.train.lr_backbone / config.train.lr for name, config in PRESETS.items()}
    published = {name for name, ratio in ratios.items() if ratio == pytest.approx(0.1)}
    assert published == {"detr_r50", "detr_r50_dc5", "detr_r101", "detr_r101_dc5"}


def test_the_first_step_of_a_warm_up_is_not_wasted():
    assert learning_rate_factor(TrainConfig(warmup_steps=50), 0, 0.0) == 1 / 50


def test_a_clock_that_ran_past_the_end_leaves_the_cosine_at_zero():
    assert learning_rate_factor(TrainConfig(schedule="cosine"), 999, 1.3) == 0.0


def test_a_schedule_made_after_the_optimizer_was_restored_starts_from_the_peak_and_not_from_a_decayed_rate():
    train = TrainConfig(schedule="cosine", warmup_steps=0)
    optimizer = _optimizer()
    schedule = Schedule(optimizer, train)
    schedule.set(70, 0.7)

    resumed = _optimizer()
    resumed.load_state_dict(optimizer.state_dict())
    Schedule(resumed, train).set(71, 0.71)
    schedule.set(71, 0.71)
    assert _rates(resumed) == _rates(optimizer)


def test_a_warm_up_ends_after_its_steps_or_after_its_share_of_the_run_whichever_comes_first():
    train = TrainConfig(schedule="step", lr_drop_at=1.0, warmup_steps=200, warmup_share=0.05)
    assert learning_rate_factor(train, 0, 0.0) == 1 / 200
    assert learning_rate_factor(train, 9, 0.01) == pytest.approx(0.2)  # the clock: 0.01 of 0.05; by steps 10 of 200
    assert learning_rate_factor(train, 9, 0.05) == learning_rate_factor(train, 9, 0.5) == 1.0
    assert learning_rate_factor(train, 99, 0.001) == 0.5  # a long run: by steps alone
    assert learning_rate_factor(train, 200, 0.001) == 1.0


def test_without_a_share_a_warm_up_takes_all_its_steps_and_with_a_share_of_0_there_is_none():
    assert learning_rate_factor(TrainConfig(warmup_steps=50), 9, 0.3) == 10 / 50
    assert learning_rate_factor(TrainConfig(warmup_steps=50, warmup_share=0.0), 0, 0.0) == 1.0
