"""The guards: each speaks of trouble that was made by hand, once, and is silent in a healthy run."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib import pyplot as plt

from scratch.analysis.learning_curve import draw, read_run
from scratch.model.beyond.compiled import compile_blocks
from scratch.training.guards import (
    DEAD_UNITS, EVERY, SETTLED, WINDOW, Guards, first_non_finite, is_finite, shortened, silent_share,
)
from scratch.training.log import RunLog
from scratch.training.loop import fit, train_step
from scratch.training.run import Run
from tests.training.test_loop import Sampler, make_run, random_batch, small_config

HEALTHY = {"loss": 10.0, "data_wait_seconds": 0.01, "step_seconds": 1.0, "loss_scale": 65536.0}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(small_config(), tmp_path)


def look(guards: Guards, run: Run, times: int = 1, **changes: Any) -> list[str]:
    """Show the guards some steps that are healthy but for `changes`; the names of those that spoke."""
    return [alert.guard for _ in range(times) for alert in guards.look(run, HEALTHY | changes, [4, 7])]


def test_a_healthy_run_is_told_nothing(run: Run) -> None:
    assert look(Guards(run), run, 2 * WINDOW) == []


def test_a_loss_of_three_times_the_median_is_a_spike_and_named_with_its_images(run: Run) -> None:
    guards = Guards(run)
    look(guards, run, SETTLED)
    assert look(guards, run, loss=30.0) == []
    (alert,) = guards.look(run, HEALTHY | {"loss": 35.0}, [4, 7])
    assert alert.guard == "loss spike" and "35, 3.5 times the median of the 21 steps before" in alert.text
    assert "4, 7 (check-data" in alert.text


def test_a_first_loss_is_never_a_spike_and_one_that_is_not_finite_is_left_to_the_loss_scaler(run: Run) -> None:
    guards = Guards(run)
    assert look(guards, run, SETTLED - 1) == [] and look(guards, run, loss=1e6) == []
    assert look(guards, run, loss=math.inf) == []


def test_a_spike_is_said_once_until_the_loss_has_come_back(run: Run) -> None:
    guards = Guards(run)
    look(guards, run, WINDOW)
    spoken = [look(guards, run, loss=loss) for loss in (40.0, 41.0, 10.0, 40.0)]
    assert spoken == [["loss spike"], [], [], ["loss spike"]]


def test_a_run_that_waits_for_its_images_is_told_so_after_a_window_of_steps(run: Run) -> None:
    guards = Guards(run)
    assert look(guards, run, WINDOW - 1, data_wait_seconds=0.5) == []
    (alert,) = guards.look(run, HEALTHY | {"data_wait_seconds": 0.5}, [])
    assert alert.guard == "loader starvation" and "50% of the last 50 steps" in alert.text and "(now 2)" in alert.text


def test_one_long_wait_as_at_an_epochs_beginning_is_no_starvation(run: Run) -> None:
    guards = Guards(run)
    assert look(guards, run, data_wait_seconds=5.0, step_seconds=6.0) == [] == look(guards, run, WINDOW)


def test_a_loss_scale_below_one_is_named(run: Run) -> None:
    guards = Guards(run)
    assert look(guards, run, loss_scale=1.0) == []
    (alert,) = guards.look(run, HEALTHY | {"loss_scale": 0.5}, [])
    assert alert.guard == "loss scale collapse" and "fallen to 0.5" in alert.text


def step_at(run: Run, guards: Guards, step: int) -> list[str]:
    """Take step number `step`, of which the guards are told in the step before."""
    run.step = step - 1
    look(guards, run)
    train_step(run, [random_batch(3)])
    run.step = step
    return [alert.text for alert in guards.look(run, HEALTHY, [])]


def test_a_layer_that_gets_no_gradient_twice_is_dead(run: Run) -> None:
    guards = Guards(run)
    with torch.no_grad():  # the relu behind it is never open
        run.unwrapped.transformer.encoder.layers[0].linear1.bias.fill_(-1e4)
    assert step_at(run, guards, EVERY) == []
    (text,) = step_at(run, guards, 2 * EVERY)
    assert all(f"encoder.layers.0.{name}" in text for name in ("linear1.bias", "linear1.weight", "linear2.weight"))
    assert "decoder" not in text and "class_embed" not in text


def test_living_layers_are_not_called_dead(run: Run) -> None:
    guards = Guards(run)
    assert [step_at(run, guards, k * EVERY) for k in (1, 2, 3)] == [[], [], []]


def test_gradients_are_read_in_each_hundredth_step_alone(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    guards = Guards(run)
    monkeypatch.setattr("scratch.training.guards.silent_share", None)  # may not be called
    assert step_at(run, guards, EVERY - 1) == [] == step_at(run, guards, EVERY + 1)
    with pytest.raises(TypeError):
        step_at(run, guards, EVERY)


def test_of_a_feed_forward_the_hidden_units_are_counted() -> None:
    gradient = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    assert silent_share("a.linear2.weight", gradient) == pytest.approx(5 / 6)
    assert silent_share("a.linear1.weight", gradient) == 0.5 < DEAD_UNITS


def test_a_list_is_shortened_to_eight() -> None:
    assert shortened([1, 2]) == "1, 2" and shortened(list(range(11))) == "0, 1, 2, 3, 4, 5, 6, 7 and 3 more"


# -- where something that is not finite began ----------------------------------------------------------------------


def test_the_first_module_that_gives_nan_for_finite_input_is_named(run: Run) -> None:
    with torch.no_grad():
        run.unwrapped.transformer.encoder.layers[0].linear2.weight[3, 5] = math.nan
    assert "transformer.encoder.layers.0.linear2 (Linear)" in first_non_finite(run, [random_batch(2)])


@pytest.mark.slow
def test_it_is_found_inside_a_compiled_block_too(run: Run) -> None:
    compile_blocks(run.unwrapped, backend="eager")
    run.unwrapped.eval()(random_batch(2).normalised(), random_batch(2).pad_mask)  # what was compiled knows of no hook
    with torch.no_grad():
        run.unwrapped.transformer.encoder.layers[0].linear2.weight[3, 5] = math.nan
    assert "transformer.encoder.layers.0.linear2 (Linear)" in first_non_finite(run, [random_batch(2)])


def test_nan_within_the_attention_is_the_attentions(run: Run) -> None:
    with torch.no_grad():
        run.unwrapped.transformer.decoder.layers[1].multihead_attn.in_proj_weight[20, 5] = math.inf
    assert "decoder.layers.1.multihead_attn (MultiheadAttention)" in first_non_finite(run, [random_batch(2)])


def test_of_a_finite_forward_pass_nothing_is_said_and_no_hook_stays(run: Run) -> None:
    assert first_non_finite(run, [random_batch(2)]) == ""
    assert not any(module._forward_hooks for module in run.unwrapped.modules())


@pytest.mark.parametrize("value, finite", [
    (torch.ones(2), True), (torch.tensor([1.0, math.inf]), False), (torch.tensor([1]), True), (None, True),
    ((torch.ones(1), [None, torch.tensor([math.nan])]), False), ([], True),
])
def test_what_is_finite(value: Any, finite: bool) -> None:
    assert is_finite(value) is finite


def test_the_error_that_stops_a_run_says_where_it_began(run: Run) -> None:
    with torch.no_grad():
        run.unwrapped.input_proj.weight.fill_(3e38)  # finite, but no sum of such numbers is
    sampler, log = Sampler(), RunLog(run.directory)
    with pytest.raises(FloatingPointError, match=r"pred_logits.*forward pass is input_proj \(Conv2d\)\."):
        fit(run, sampler, sampler, log, lambda run: {"AP": 0.0})
    log.close()


def test_weights_that_are_not_finite_themselves_are_named_and_no_image_is(run: Run) -> None:
    with torch.no_grad():
        run.unwrapped.class_embed.bias[1] = math.nan
    sampler, log = Sampler(), RunLog(run.directory)
    with pytest.raises(FloatingPointError) as stopped:
        fit(run, sampler, sampler, log, lambda run: {"AP": 0.0})
    log.close()
    assert "the weights themselves are not finite any more (class_embed.bias)" in str(stopped.value)
    assert "annotations" not in str(stopped.value) and "checkpoint is good" not in str(stopped.value)


def crosses(folder: Path) -> list[list[float]]:
    """(step, loss) of every red cross on the training loss, as far as a run's chart shows it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plt, "close", lambda figure: None)
        draw([read_run(folder)], folder / "curves.png", x="steps")
    loss = plt.gcf().axes[1]
    low, high = loss.get_xlim()
    plt.close()
    return [[x, y] for line in loss.lines if line.get_marker() == "x" for x, y in line.get_xydata() if low <= x <= high]


def test_a_number_that_is_not_finite_is_a_line_in_the_log_and_a_mark_in_the_chart(
    run: Run, monkeypatch: pytest.MonkeyPatch,
) -> None:
    def spoilt(run: Run, batches: list[Any]) -> dict[str, float]:
        with torch.no_grad():
            run.unwrapped.input_proj.weight[2, 1] = 3e38 if run.step == 1 else 0.0
        return train_step(run, batches)

    monkeypatch.setattr("scratch.training.loop.train_step", spoilt)
    sampler, log = Sampler(), RunLog(run.directory)
    with pytest.raises(FloatingPointError) as stopped:
        fit(run, sampler, sampler, log, lambda run: {"AP": 0.0})
    log.close()
    step, warning = [json.loads(line) for line in (run.directory / "log.jsonl").read_text().splitlines()]
    assert (warning["kind"], warning["step"], warning["guard"]) == ("warning", 1, "not finite")
    assert warning["text"] == str(stopped.value) and "input_proj (Conv2d)" in warning["text"]
    assert crosses(run.directory) == [[1, pytest.approx(step["loss_queries"])]]


def test_an_alert_is_said_and_written_into_the_log(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("scratch.training.guards.STARVED", -1.0)
    monkeypatch.setattr("scratch.training.guards.WINDOW", 2)
    sampler, log = Sampler(), RunLog(run.directory)
    fit(run, sampler, sampler, log, lambda run: {"AP": 0.0})
    log.close()
    records = [json.loads(line) for line in (run.directory / "log.jsonl").read_text().splitlines()]
    (alert,) = [record for record in records if record["kind"] == "warning"]
    assert (alert["step"], alert["guard"]) == (2, "loader starvation") and "bottleneck" in alert["text"]
    assert "warning: step 2, loader starvation: the loader is the bottleneck" in capsys.readouterr().out
