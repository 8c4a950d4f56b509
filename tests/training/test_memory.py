"""A batch that does not fit is learnt in parts: the same step, remembered, refused where nothing is left to halve."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable

import pytest
import torch

from scratch.training.log import RunLog
from scratch.training.loop import fit, train_step
from scratch.training.memory import step_that_fits
from scratch.training.run import Run
from tests.training.test_guards import crosses
from tests.training.test_loop import Sampler, make_run, random_batch, small_config


def a_gpu_for(most: int) -> Callable[[Run, list[Any]], dict[str, float]]:
    """`train_step` on a device that has memory for `most` images at once; it notices in the middle of the step."""
    def step(run: Run, batches: list[Any]) -> dict[str, float]:
        if max(len(batch.targets) for batch in batches) > most:
            run.unwrapped.class_embed.weight.grad = torch.full_like(run.unwrapped.class_embed.weight, 1e6)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return train_step(run, batches)
    return step


def test_the_step_in_parts_is_the_step_of_the_whole_batch(tmp_path: Path) -> None:
    whole, parted = make_run(small_config(), tmp_path), make_run(small_config(), tmp_path)
    said: list[str] = []
    for _ in range(2):
        expected = train_step(whole, [random_batch(5)])
        record = step_that_fits(a_gpu_for(2), parted, [random_batch(5)], said.append)
        for name in ("loss", "loss_ce", "loss_giou_0", "grad_norm"):
            assert record[name] == pytest.approx(expected[name], rel=2e-5), name
    assert parted.parts == 4
    assert [text.partition(" do not fit")[0] for text in said] == ["5 images at once", "3 images at once"]


def test_what_is_said_names_the_flags_that_mean_the_same(tmp_path: Path) -> None:
    run, said = make_run(small_config(accumulate=3), tmp_path), []
    step_that_fits(a_gpu_for(8), run, [random_batch(16), random_batch(16)], said.append)
    assert "pass in 2 parts, 8 images at once" in said[0] and "(--batch-size 8 --accumulate 6 is" in said[0]


def test_where_one_image_does_not_fit_the_error_is_raised(tmp_path: Path) -> None:
    run = make_run(small_config(), tmp_path)
    with pytest.raises(torch.OutOfMemoryError, match="2.00 GiB"):
        step_that_fits(a_gpu_for(0), run, [random_batch(3)], lambda text: None)
    assert run.parts == 4


def test_what_did_not_fit_is_a_line_in_the_log_and_a_mark_in_the_chart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("scratch.training.loop.train_step", a_gpu_for(1))
    run, sampler, log = make_run(small_config(eval_every=100, max_steps=3), tmp_path), Sampler(), RunLog(tmp_path)
    metrics = {"AP": 0.0, "AP50": 0.0, "AP75": 0.0, "losses": {"loss": 1.0}}
    assert fit(run, sampler, sampler, log, lambda run: metrics) and run.parts == 2
    log.close()
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [r["kind"] for r in records] == ["warning", "step", "step", "step", "evaluation"]
    assert (records[0]["step"], records[0]["guard"]) == (0, "out of memory")
    assert records[0]["text"].startswith("2 images at once do not fit into the memory of cpu")
    assert f"warning: step 0, out of memory: {records[0]['text']}" in capsys.readouterr().out
    assert crosses(tmp_path) == [[0, pytest.approx(records[1]["loss_queries"])]]


def test_on_several_devices_the_error_is_raised_for_the_others_would_wait(tmp_path: Path) -> None:
    run = make_run(small_config(), tmp_path)
    run.distributed = replace(run.distributed, world_size=2)
    with pytest.raises(torch.OutOfMemoryError):
        step_that_fits(a_gpu_for(1), run, [random_batch(3)], lambda text: None)
    assert run.parts == 1


def test_a_run_that_goes_on_remembers_its_parts(tmp_path: Path) -> None:
    run, again = make_run(small_config(), tmp_path), make_run(small_config(), tmp_path)
    run.parts = 4
    run.save()
    again.resume(tmp_path / "last.pt")
    assert again.parts == 4
    state = run.state_dict()
    del state["parts"]  # a checkpoint from before
    again.load_state_dict(state)
    assert again.parts == 1


@pytest.mark.parametrize("images, parts, sizes", [(5, 1, [5]), (5, 2, [3, 2]), (5, 4, [2, 2, 1]), (3, 8, [1, 1, 1])])
def test_a_batch_splits_into_parts_in_order(images: int, parts: int, sizes: list[int]) -> None:
    batch = random_batch(images)
    split = batch.split(parts)
    assert [len(part.targets) for part in split] == [len(part.images) for part in split] == sizes
    assert torch.equal(torch.cat([part.images for part in split]), batch.images)
    assert [t["image_id"] for part in split for t in part.targets] == list(range(images))
