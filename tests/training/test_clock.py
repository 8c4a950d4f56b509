"""Checkpoints and evaluations by the clock: when they are due, and that nothing is lost where they are not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from scratch.config import PRESETS, TrainConfig
from scratch.training.checkpoint import load_checkpoint
from scratch.training.run import Run
from tests.training.test_loop import make_run, small_config


def run_with(tmp_path: Path, **train) -> Run:
    config = small_config()
    run = make_run(replace(config, train=replace(config.train, **train)), tmp_path)
    run.batches_per_epoch = 10
    return run


def test_without_minutes_checkpoints_are_due_after_so_many_steps_and_after_each_epoch(tmp_path):
    run = run_with(tmp_path, checkpoint_every=3)
    due = []
    for step in range(1, 8):
        run.step = step
        due.append(run.checkpoint_due())
    assert due == [False, False, True, False, False, True, False]
    assert run.checkpoint_due(epoch_ended=True)


def test_with_minutes_checkpoints_are_due_by_the_clock_alone_and_at_the_end(tmp_path):
    run = run_with(tmp_path, checkpoint_every=3, checkpoint_minutes=5.0)
    run.step, run.minutes = 3, 4.9
    assert not run.checkpoint_due() and not run.checkpoint_due(epoch_ended=True)
    run.minutes = 5.0
    assert run.checkpoint_due()
    run.save()
    run.minutes = 9.9
    assert not run.checkpoint_due()
    run.minutes = 10.1
    assert run.checkpoint_due()
    run.minutes, run.step = 0.0, 10**9
    assert run.finished() and run.checkpoint_due()


@pytest.mark.parametrize("minutes, wanted", [(0.0, [True, True, True]), (2.0, [False, True, False])])
def test_an_evaluation_is_due_after_an_epoch_if_the_last_one_is_long_enough_ago(tmp_path, minutes, wanted):
    run = run_with(tmp_path, eval_every=1, eval_minutes=minutes)
    due = []
    for at in (1.5, 2.5, 4.0):
        run.minutes, run.batch = at, run.batches_per_epoch
        run.close_epoch()
        due.append(run.evaluation_due)
        if run.evaluation_due:
            run.evaluation_due, run.evaluated_at = False, at
    assert due == wanted


def test_the_clock_of_the_last_evaluation_goes_on_in_a_resumed_run(tmp_path):
    run = run_with(tmp_path, eval_minutes=2.0, checkpoint_minutes=5.0)
    run.minutes, run.evaluated_at = 7.0, 6.5
    state = run.state_dict()
    resumed = run_with(tmp_path, eval_minutes=2.0, checkpoint_minutes=5.0)
    resumed.load_state_dict(state)
    assert (resumed.evaluated_at, resumed.saved_at) == (6.5, 7.0)
    del state["evaluated_at"]  # as a checkpoint of an earlier version
    resumed.load_state_dict(state)
    assert resumed.evaluated_at == 0.0


def test_an_evaluation_that_is_not_the_best_writes_nothing_before_its_time(tmp_path):
    run = run_with(tmp_path, checkpoint_minutes=5.0)
    run.best_ap, run.minutes = 0.5, 1.0
    run._read_clock = lambda: None  # the clock stands
    run.remember({"AP": 0.4})
    assert not (tmp_path / "last.pt").exists() and not (tmp_path / "best.pt").exists()
    run.remember({"AP": 0.6})
    assert load_checkpoint(tmp_path / "last.pt")["best_ap"] == 0.6  # and so does a resumed run
    assert (tmp_path / "best.pt").exists()


def test_the_default_run_on_a_gpu_shows_squares_without_padding_and_warms_up_for_a_twentieth_at_most():
    config = PRESETS["detr_141m_fast"]
    tiny = PRESETS["tiny"]
    assert config.data.square and config.data.short_side == 256
    assert (config.data.augment, config.data.mosaic) == (tiny.data.augment, tiny.data.mosaic)
    assert config.train.warmup_share == 0.05 and config.train.checkpoint_minutes > 0 < config.train.eval_minutes
    assert TrainConfig().warmup_share == 1.0 and TrainConfig().checkpoint_minutes == TrainConfig().eval_minutes == 0.0
