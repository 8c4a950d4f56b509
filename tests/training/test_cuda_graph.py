"""A model whose passes are recorded learns what it would have learnt, and where it cannot be recorded a line says so.

No test here runs on a GPU: recorded.py stands in for CUDA's part.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Callable

import pytest
import torch

from commands.opening import make_criterion
from commands.train_arguments import TrainArguments
from detr_scratch import train
from scratch.config import PRESETS, Config
from scratch.model.build import build_detr
from scratch.training.cuda_graph import GraphedModel, no_graph
from scratch.training.distributed import Distributed
from scratch.training.loop import train_step
from scratch.training.memory import step_that_fits
from scratch.training.run import Run
from tests.training.recorded import graphs_of_a_cpu
from tests.training.test_loop import CLASSES, make_run, part_of, random_batch, small_config
from tests.training.test_memory import a_gpu_for

CUDA = torch.device("cuda")


def small(precision: str = "float32", preset: str = "tiny", **train: Any) -> Config:
    """With all that has a state: trained batch norm, dropout, a running average."""
    config = small_config(precision=precision, ema_decay=0.9, optimizer=PRESETS[preset].train.optimizer, **train)
    model = replace(PRESETS[preset].model, hidden_dim=16, nheads=2, dim_feedforward=24, enc_layers=1, dec_layers=2,
                    num_queries=7, num_classes=3, dropout=0.2)
    return replace(config, model=model, loss=PRESETS[preset].loss)


def graphed(run: Run, said: list[str]) -> Run:
    run.model = GraphedModel(run.model, said.append)
    return run


def learnt(run: Run, steps: int = 3, parts: int = 1, size: int = 4) -> list[dict[str, float]]:
    """The records of some steps, each of `parts` batches."""
    torch.manual_seed(5)
    records = []
    for step in range(steps):
        batch = random_batch(size * parts, step)
        records.append(train_step(run, [part_of(batch, i * size, (i + 1) * size) for i in range(parts)]))
        run.advance(parts)
    return records


def learnt_without_cache(run: Run, steps: int = 3) -> list[dict[str, float]]:
    """The same where autocast keeps no half copies of the weights, as in a graph: the gradients of a weight that is
    used twice then add up in float32, and not in its half copy."""
    torch.set_autocast_cache_enabled(False)
    try:
        return learnt(run, steps)
    finally:
        torch.set_autocast_cache_enabled(True)


def assert_same_state(one: Run, other: Run) -> None:
    for ours, theirs in ((one.unwrapped.state_dict(), other.unwrapped.state_dict()),
                         (one.ema.shadow, other.ema.shadow)):
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("preset", ["tiny", "tiny_vanilla"])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_the_steps_are_those_of_the_model_itself_with_dropout_and_running_statistics(
    precision: str, preset: str, tmp_path: Path,
) -> None:
    said: list[str] = []
    run, eager = (make_run(small(precision, preset), tmp_path / name) for name in ("graph", "eager"))
    before = eager.unwrapped.state_dict()["backbone.bn1.running_mean"].clone()
    with graphs_of_a_cpu() as graphs:
        records = learnt(graphed(run, said))
    assert records == learnt_without_cache(eager)
    assert_same_state(run, eager)
    assert [graph.replays for graph in graphs] == [3, 3] and not said  # forward and backward
    assert not torch.equal(before, run.unwrapped.state_dict()["backbone.bn1.running_mean"])


def test_the_loss_scaler_skips_a_step_whose_gradients_overflow_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("scratch.training.precision.FIRST_SCALE", 2.0**40)
    run, eager = (make_run(small("fp16"), tmp_path / name) for name in ("graph", "eager"))
    with graphs_of_a_cpu():
        records = learnt(graphed(run, []), steps=2)
    expected = learnt_without_cache(eager, steps=2)
    assert [record["loss_scale"] for record in records] == [record["loss_scale"] for record in expected]
    assert run.precision.scaler.get_scale() < 2.0**40
    assert_same_state(run, eager)


def test_gradients_of_several_batches_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, eager, wrong = (make_run(small(accumulate=3), tmp_path / name) for name in ("graph", "eager", "wrong"))
    with graphs_of_a_cpu() as graphs:
        records = learnt(graphed(run, []), steps=2, parts=3)
        assert [graph.replays for graph in graphs] == [6, 6]
        monkeypatch.setattr(GraphedModel, "_set_aside", lambda model: None)
        spoilt = learnt(graphed(wrong, []), steps=2, parts=3)
    expected = learnt(eager, steps=2, parts=3)
    assert records == expected
    assert_same_state(run, eager)
    assert spoilt[0]["grad_norm"] != expected[0]["grad_norm"]  # the same memory for all of them


def test_a_batch_of_another_shape_passes_without_the_graph_and_is_said_once(tmp_path: Path) -> None:
    said: list[str] = []
    run, eager = (make_run(small(), tmp_path / name) for name in ("graph", "eager"))
    with graphs_of_a_cpu() as graphs:
        for one in (graphed(run, said), eager):
            torch.manual_seed(5)
            for step, size in enumerate((4, 3, 4, 2)):
                train_step(one, [random_batch(size, step)])
    assert_same_state(run, eager)
    assert [graph.replays for graph in graphs] == [2, 2]
    assert len(said) == 1 and "recorded for (4, 3, 64, 96) images, and these are (3, 3, 64, 96)" in said[0]


def test_outside_of_training_the_model_itself_answers(tmp_path: Path) -> None:
    run = make_run(small(), tmp_path)
    batch = random_batch(2)
    inputs = batch.normalised(), batch.pad_mask
    with graphs_of_a_cpu() as graphs:
        model = GraphedModel(run.unwrapped, pytest.fail)
        with torch.no_grad():
            assert model(*inputs, batch.targets)["pred_boxes"].shape == (2, 7, 4)
        run.unwrapped.eval()
        answer = model(*inputs, batch.targets)
    assert not graphs and torch.equal(answer["pred_boxes"], run.unwrapped(*inputs)["pred_boxes"])


def fails_with(error: Exception) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error
    return fail


@pytest.mark.parametrize("error, line", [
    (RuntimeError("CUDA error: operation not permitted when stream is capturing\nCompile with …"),
     "(CUDA error: operation not permitted when stream is capturing)"),
    (torch.OutOfMemoryError("CUDA out of memory"), "(there is no memory for it)"),
])
def test_where_it_cannot_be_recorded_the_run_goes_on_without_it(
    error: Exception, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.cuda.make_graphed_callables", fails_with(error))
    said: list[str] = []
    run, eager = (make_run(small(), tmp_path / name) for name in ("graph", "eager"))
    assert learnt(graphed(run, said)) == learnt(eager)
    assert_same_state(run, eager)
    assert said == [f"CUDA graph: the model cannot be recorded {line}; the run goes on without it"]


def test_a_model_that_reads_a_number_is_not_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import scratch.model.anchors.decoder as decoder

    relu = decoder.relu
    monkeypatch.setattr(decoder, "relu", lambda x: relu(x) * (1 if x.amax().item() > -1 else 2))
    said: list[str] = []
    with graphs_of_a_cpu() as graphs:
        learnt(graphed(make_run(small(), tmp_path), said), steps=1)
    assert not graphs and "the CPU takes part in it: _local_scalar_dense reads numbers (test_cuda_graph.py" in said[0]


def test_after_a_batch_that_did_not_fit_its_parts_are_recorded_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = make_run(small(), tmp_path)
    with graphs_of_a_cpu() as graphs:
        graphed(run, [])
        train_step(run, [random_batch(4)])
        step_that_fits(a_gpu_for(2), run, [random_batch(4)], lambda text: None)
    assert run.model.shape == (2, 3, 64, 96) and [graph.replays for graph in graphs] == [1, 1, 2, 2]


def test_where_a_graph_cannot_be_used_it_is_refused_with_the_reason(tmp_path: Path) -> None:
    model = PRESETS["tiny"].model
    assert no_graph(model, CUDA, 1) == ""
    assert "for one process, and there are 2" in no_graph(model, CUDA, 2)
    assert "denoising = 3 makes" in no_graph(replace(model, denoising=3), CUDA, 1)
    with pytest.raises(ValueError, match="got --cuda-graph, which cannot be used here .*the device is cpu.: leave it"):
        train(TrainArguments(PRESETS["tiny"], tmp_path / "run", device="cpu", cuda_graph=True))
    for other, flag in (({"compile": True}, "--compile:"), ({"compile_whole": True}, "--compile-whole:"),
                        ({"profile": True}, "--profile:")):
        with pytest.raises(ValueError, match=f"got --cuda-graph with {flag}"):
            TrainArguments(PRESETS["tiny"], cuda_graph=True, **other)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["float32", "fp16"])
def test_on_a_gpu_the_steps_of_a_graph_are_those_of_the_model(precision: str, tmp_path: Path) -> None:
    config = small(precision)
    config = replace(config, model=replace(config.model, dropout=0.0))
    said: list[str] = []
    runs = []
    for name in ("graph", "eager"):
        torch.manual_seed(3)
        model = build_detr(config.model).cuda()
        runs.append(Run(model, make_criterion(config), config, CLASSES, tmp_path / name, Distributed(0, 1, CUDA)))
    graph, eager = (learnt(run) for run in (graphed(runs[0], said), runs[1]))
    assert not said and runs[0].model.graphed is not None
    assert [record["loss"] for record in graph] == pytest.approx([record["loss"] for record in eager], rel=1e-2)
