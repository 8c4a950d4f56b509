"""The benchmark compares like with like: both sides take the same step, and memory is what the step itself needed."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks import watching
from benchmarks.training_step import PARTS, TrainingStep, as_graphs, as_leaves, table
from scratch.training.guards import EVERY
from scratch.training.tensorboard import TensorBoard
from tests.training.recorded import graphs_of_a_cpu
from tests.training.test_loop import make_run, small_config

REPOSITORY = Path(__file__).resolve().parent.parent
CPU = torch.device("cpu")


@pytest.mark.parametrize("preset", ["tiny_vanilla", "tiny"])
def test_one_step_leaves_both_sides_with_the_same_weights(preset):
    ours, theirs = (TrainingStep(side, preset, (2, 64, 96), CPU, "float32") for side in ("ours", "reference"))
    for step in (ours, theirs):  # in float32 a relu may round to either side of its kink, and its slope with it
        step.model.double()
        step.images = step.images.double()
    before = {name: p.detach().clone() for name, p in ours.model.named_parameters()}
    for (name, p), q in zip(ours.model.named_parameters(), theirs.model.parameters(), strict=True):
        assert torch.equal(p, q) and p.requires_grad == q.requires_grad, name
    seconds, _ = ours(), theirs()
    assert set(seconds) == {"step", *PARTS} and seconds["step"] == pytest.approx(sum(seconds[part] for part in PARTS))
    # A sum, since AdamW's first step is the gradient's sign: where that is 0 but for rounding, it may be either.
    moved = sum((p - before[name]).abs().sum() for name, p in ours.model.named_parameters())
    apart = sum((p - q).abs().sum() for p, q in zip(ours.model.parameters(), theirs.model.parameters()))
    assert 0 < moved and apart < 1e-6 * moved


@pytest.mark.slow
def test_the_figures_of_a_run_are_printed_and_written(tmp_path):
    command = [sys.executable, "-m", "benchmarks.training_step", "--presets", "tiny_vanilla", "--repeats", "1",
               "--batch-size", "2", "--size", "64", "64", "--json", tmp_path / "figures.json"]
    output = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout
    (result,) = json.loads((tmp_path / "figures.json").read_text())["results"]
    assert table(result) in output and f"{100 * result['objective_share']:.1f} % of our step" in output
    # Weights, gradients and AdamW's two moments are four times the 1,948,570 parameters (of 5 classes instead of 91);
    # activations come on top.
    for side in ("ours", "reference"):
        assert 4 * 4 * 1_948_570 / 2**30 < result[side]["peak_memory_gib"]


def test_both_sides_are_timed_as_graphs_and_get_their_models_back():
    steps = {side: TrainingStep(side, "tiny_vanilla", (2, 64, 64), CPU, "float32") for side in ("reference", "ours")}
    models = {side: step.model for side, step in steps.items()}
    with graphs_of_a_cpu() as graphs:
        timed = as_graphs(steps, 1)
    assert [graph.replays for graph in graphs] == [3] * 4 and timed["ratio"]["step"] > 0  # two of them warm-up
    assert all(step.model is models[side] for side, step in steps.items())


def test_a_side_without_a_graph_gives_no_figures(monkeypatch, capsys):
    def fail(*_, **__):
        raise RuntimeError("not permitted when stream is capturing")

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", fail)
    steps = {side: TrainingStep(side, "tiny_vanilla", (1, 64, 64), CPU, "float32") for side in ("reference", "ours")}
    assert as_graphs(steps, 1) == {}
    assert "ours: CUDA graph: the model cannot be recorded (not permitted" in capsys.readouterr().out


def test_the_objective_alone_ends_at_the_outputs():
    step = TrainingStep("ours", "tiny", (2, 64, 64), CPU, "float32")
    assert 0 < step.objective() < 60
    assert all(p.grad is None for p in step.parameters)
    outputs = as_leaves(step.forward())
    step.criterion.total(step.criterion(outputs, step.targets)).backward()
    for part in (outputs, outputs["aux_outputs"][0], outputs["proposals"]):
        assert part["pred_boxes"].grad.abs().sum() > 0 and part["pred_logits"].grad.abs().sum() > 0


def test_looking_is_measured_beside_not_looking(tmp_path, monkeypatch):
    from tests.training.test_tensorboard import curve, read  # here: without TensorBoard its reader is missing

    arguments = argparse.Namespace(preset="tiny", device="cpu", precision="float32", batch_size=1, size=(64, 64),
                                   steps=2)
    monkeypatch.setattr("benchmarks.watching.BLOCKS", 2)
    monkeypatch.setattr("benchmarks.watching.HISTOGRAMS_EVERY", 5)
    write = TensorBoard.step

    def slowly(board, record):
        time.sleep(0.3 if board.writer else 0.0)
        write(board, record)

    monkeypatch.setattr(TensorBoard, "step", slowly)
    result = watching.measure(arguments, tmp_path)
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records if record["kind"] == "step"] == [1, 2, 3, 4, 5, 6, 7]
    written = read(tmp_path)  # the first 3 steps, which are not timed, and the watched block
    assert [step for step, _ in curve(written, "2 loss/train total")] == [1, 2, 3, 4, 5]
    assert [event.step for event in written.Histograms("weights/class_embed.weight")] == [5]
    assert result["seconds"]["on"] > 0.3


def test_the_guards_share_holds_their_reading_of_all_gradients(tmp_path, monkeypatch):
    def slow(name, gradient):
        time.sleep(1e-3)
        return gradient.mean()

    run = make_run(small_config(), tmp_path)
    monkeypatch.setattr("scratch.training.guards.silent_share", slow)
    assert watching.guards_seconds(run, looks=1, readings=2) > 1e-3 * len(run.parameters) / 2 / EVERY
    assert all(weight.grad is None for weight in run.parameters)
