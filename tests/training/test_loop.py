"""The loop: many small batches learn what one large one does, on one process or two, and nothing broken is learnt."""

from __future__ import annotations

import itertools
import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Callable, Iterator

import numpy as np
import pytest
import torch
from PIL import Image

from commands.opening import make_criterion
from scratch.config import PRESETS, Config
from scratch.data.batch import Batch
from scratch.model.build import build_detr
from scratch.model.detr import freeze_backbone
from scratch.objective.variant import VariantCriterion
from scratch.training.checkpoint import load_checkpoint
from scratch.training.distributed import Distributed
from scratch.training.log import RunLog
from scratch.training.loop import fit, train_step, train_step_definition
from scratch.training.run import Run
from tests.conftest import REPOSITORY


def small_config(**train: object) -> Config:
    """Group norm and no dropout: then no image of a batch has a say in another's output."""
    tiny = PRESETS["tiny_vanilla"]
    model = replace(tiny.model, hidden_dim=16, nheads=2, dim_feedforward=24, enc_layers=1, dec_layers=2,
                    num_queries=7, num_classes=3, norm="group", dropout=0.0)
    return replace(tiny, model=model, train=replace(tiny.train, max_minutes=None, warmup_steps=0,
                                                      **{"max_steps": 5, "eval_every": 1, **train}))


CLASSES = {"ids": [1, 2, 3], "names": ["cat", "dog", "owl"]}


def make_run(config: Config, directory: Path) -> Run:
    torch.manual_seed(3)
    model = build_detr(config.model)
    return Run(model, make_criterion(config), config, CLASSES, directory, Distributed(0, 1, torch.device("cpu")))


def random_batch(size: int, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    targets = []
    for i in range(size):
        centres = torch.rand(i, 2, generator=generator) * 0.4 + 0.3
        boxes = torch.cat([centres, torch.rand(i, 2, generator=generator) * 0.3 + 0.1], 1)
        targets.append({"labels": torch.randint(3, (i,), generator=generator), "boxes": boxes, "image_id": i,
                        "orig_size": (64, 96), "size": (64, 96)})  # image i has i boxes: the first has none
    images = torch.randint(0, 256, (size, 3, 64, 96), generator=generator, dtype=torch.uint8)
    return Batch(images, torch.zeros(size, 64, 96, dtype=torch.bool), targets)


def part_of(batch: Batch, start: int, stop: int) -> Batch:
    return Batch(batch.images[start:stop], batch.pad_mask[start:stop], batch.targets[start:stop])


def test_a_step_is_the_definitions_step(tmp_path: Path) -> None:
    run, plainly = (make_run(small_config(), tmp_path / name) for name in ("run", "plainly"))
    for step in range(3):
        record = train_step(run, [random_batch(3, step)])
        run.advance(1)
        plainly.schedule.set(step, plainly.progress())
        loss = train_step_definition(plainly.model, plainly.criterion, plainly.optimizer, random_batch(3, step),
                                     plainly.config.train.clip_max_norm)
        plainly.step += 1
        assert loss.item() == pytest.approx(record["loss"], rel=1e-5)
    for ours, theirs in zip(run.model.parameters(), plainly.model.parameters()):
        torch.testing.assert_close(ours, theirs)


def test_accumulating_small_batches_equals_the_large_batch(tmp_path: Path) -> None:
    joint = random_batch(6)
    large, small = make_run(small_config(), tmp_path), make_run(small_config(accumulate=3), tmp_path)
    for step in range(3):
        large_record = train_step(large, [joint])
        small_record = train_step(small, [part_of(joint, 0, 1), part_of(joint, 1, 4), part_of(joint, 4, 6)])
        for name in ("loss", "loss_ce", "loss_bbox", "loss_giou", "loss_ce_0", "grad_norm"):
            assert small_record[name] == pytest.approx(large_record[name], rel=2e-5), (step, name)


def test_the_loss_of_the_queries_alone_is_recorded_for_what_an_evaluation_has(tmp_path: Path) -> None:
    run = make_run(small_config(), tmp_path)
    plain = train_step(run, [random_batch(2)])
    assert plain["loss_queries"] == pytest.approx(plain["loss"])
    weights = run.criterion.weight_dict
    parts = {f"{prefix}loss_{name}{layer}": torch.tensor(value)
             for prefix, value in (("", 1.0), ("dn_", 7.0), ("many_", 3.0), ("cell_", 50.0))
             for name in ("ce", "bbox", "giou") for layer in ("", "_0")}
    assert run.criterion.total(parts) == pytest.approx(2 * sum(weights.values()))
    variant = VariantCriterion(3, run.criterion.matcher, run.config.loss)
    assert variant.total(parts, of=("",)) == pytest.approx(2 * sum(weights.values()))
    assert variant.total(parts) == pytest.approx(122 * sum(weights.values()))


def test_the_running_average_is_what_is_judged_and_the_weights_come_back(tmp_path: Path) -> None:
    run = make_run(small_config(ema_decay=0.5), tmp_path)
    train_step(run, [random_batch(2)])
    before = run.unwrapped.class_embed.weight.clone()
    with run.judged_weights():
        assert torch.equal(run.unwrapped.class_embed.weight, run.ema.shadow["class_embed.weight"])
        assert not torch.equal(run.unwrapped.class_embed.weight, before)
    assert torch.equal(run.unwrapped.class_embed.weight, before)


def test_a_gradient_that_is_not_finite_stops_before_the_weights_are_touched(tmp_path: Path) -> None:
    run = make_run(small_config(), tmp_path)
    before = {name: p.detach().clone() for name, p in run.unwrapped.named_parameters()}
    run.unwrapped.input_proj.weight.register_hook(lambda gradient: gradient * math.nan)
    with pytest.raises(FloatingPointError, match=r"input_proj.weight over the images \[0, 1, 2\]"):
        train_step(run, [random_batch(3)])
    assert all(torch.equal(before[name], p) for name, p in run.unwrapped.named_parameters())


def test_weights_that_are_not_finite_stop_the_run_and_name_tensor_and_images(tmp_path: Path) -> None:
    run = make_run(small_config(), tmp_path)
    with torch.no_grad():
        run.unwrapped.bbox_embed.layers[2].bias[1] = math.nan
    with pytest.raises(FloatingPointError, match=r"pred_boxes[\s\S]*\b2\b"):
        train_step(run, [random_batch(3)])


def test_a_budget_in_minutes_moves_the_schedule_and_ends_the_run(tmp_path: Path) -> None:
    config = small_config()
    run = make_run(replace(config, train=replace(config.train, max_steps=None, max_minutes=10.0)), tmp_path)
    run.batches_per_epoch = 1000
    run.minutes = 5.0
    assert run.progress() == 0.5 and not run.finished()
    run.minutes = 10.0
    assert run.finished()


class Sampler:
    """An epoch of two batches, from anywhere."""

    start = 0

    def set_position(self, epoch: int, batch: int) -> None:
        self.start = batch

    def __len__(self) -> int:
        return 2

    def __iter__(self) -> Iterator[Batch]:
        return iter([random_batch(2, seed=k) for k in range(self.start, 2)])


def fit_quietly(run: Run, evaluate: Callable[[Run], dict]) -> bool:
    sampler, log = Sampler(), RunLog(run.directory, run.step)
    try:
        return fit(run, sampler, sampler, log, evaluate)
    finally:
        log.close()


def test_writing_a_checkpoint_is_no_waiting_for_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = itertools.count()  # one for each look at the clock

    def slow_save(name: str = "last.pt") -> None:
        for _ in range(100):
            next(seconds)

    run = make_run(small_config(checkpoint_every=1), tmp_path)
    monkeypatch.setattr(run, "save", slow_save)
    monkeypatch.setattr("scratch.training.watch.time", SimpleNamespace(perf_counter=lambda: next(seconds)))
    fit_quietly(run, lambda run: {"AP": 0.0})
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [r["data_wait_seconds"] for r in records if r["kind"] == "step"] == [1] * 5


def test_ctrl_c_during_an_evaluation_keeps_its_figures_and_then_stops(tmp_path: Path) -> None:
    run = make_run(small_config(), tmp_path)

    def interrupted(run: Run) -> dict:
        os.kill(os.getpid(), signal.SIGINT)
        return {"AP": 0.25}

    assert not fit_quietly(run, interrupted)
    assert (run.step, run.epoch, run.last_metrics) == (2, 1, {"AP": 0.25}) and not run.evaluation_due
    assert load_checkpoint(tmp_path / "best.pt")["best_ap"] == 0.25


def test_ctrl_c_during_an_evaluation_saves_also_where_the_clock_does_not_ask_for_it_yet(tmp_path: Path) -> None:
    run = make_run(small_config(checkpoint_minutes=100.0, max_steps=50), tmp_path)
    run.best_ap = 0.5

    def interrupted(run: Run) -> dict:
        os.kill(os.getpid(), signal.SIGINT)
        return {"AP": 0.25}

    assert not fit_quietly(run, interrupted)
    state = load_checkpoint(tmp_path / "last.pt")
    assert (state["step"], state["last_metrics"], state["evaluation_due"]) == (run.step, {"AP": 0.25}, False)


def test_ctrl_c_during_the_last_evaluation_finds_a_run_that_is_complete(tmp_path: Path) -> None:
    run = make_run(small_config(eval_every=100), tmp_path)

    def interrupted(run: Run) -> dict:
        os.kill(os.getpid(), signal.SIGINT)
        return {"AP": 0.25}

    assert fit_quietly(run, interrupted) and run.step == 5


def test_a_second_ctrl_c_stops_at_once_and_the_checkpoint_before_the_evaluation_is_there(tmp_path: Path) -> None:
    def interrupted_twice(run: Run) -> dict:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("this line is not reached")

    with pytest.raises(KeyboardInterrupt):
        fit_quietly(make_run(small_config(), tmp_path), interrupted_twice)
    state = load_checkpoint(tmp_path / "last.pt")
    assert state["step"] == 2 and state["evaluation_due"]


def test_a_run_that_is_resumed_with_less_to_do_than_is_done_is_evaluated(tmp_path: Path) -> None:
    run = make_run(small_config(), tmp_path)
    train_step(run, [random_batch(2)])
    run.advance(1)
    run.save()
    config = small_config()
    again = make_run(replace(config, train=replace(config.train, max_steps=1)), tmp_path)
    again.resume(tmp_path / "last.pt")
    assert fit_quietly(again, lambda run: {"AP": 0.5}) and again.last_metrics == {"AP": 0.5}


@pytest.mark.parametrize("change, words", [
    (dict(model=replace(small_config().model, hidden_dim=24)), "begun with hidden_dim=16, not hidden_dim=24"),
    (dict(model=replace(small_config().model, nheads=4)), "begun with nheads=2, not nheads=4"),  # of the same shapes
    (dict(train=replace(small_config().train, train_backbone="none")), "--train-backbone"),
])
def test_a_resume_that_would_change_the_weights_is_refused_in_words(change: dict, words: str, tmp_path: Path) -> None:
    make_run(small_config(), tmp_path).save()
    config = replace(small_config(), **change)
    model = build_detr(config.model)
    freeze_backbone(model, config.train.train_backbone)
    run = Run(model, None, config, CLASSES, tmp_path, Distributed(0, 1, torch.device("cpu")))
    with pytest.raises(ValueError, match=words):
        run.resume(tmp_path / "last.pt")


def test_a_run_from_before_a_setting_was_there_goes_on_if_it_is_off(tmp_path: Path) -> None:
    run = make_run(small_config(), tmp_path)
    state = run.state_dict()
    del state["config"]["model"]["zero_init_residual"]
    run.load_state_dict(state)
    model = replace(small_config().model, zero_init_residual=True)
    with pytest.raises(ValueError, match="begun with zero_init_residual=False"):
        make_run(replace(small_config(), model=model), tmp_path).load_state_dict(state)


def test_a_resume_on_data_of_other_classes_is_refused_even_if_they_are_as_many(tmp_path: Path) -> None:
    run = make_run(small_config(), tmp_path)
    run.save()
    run.classes = {"ids": [1, 2, 3], "names": ["dog", "cat", "owl"]}
    with pytest.raises(ValueError, match=r"\(cat, dog, owl\).*\(dog, cat, owl\)"):
        run.resume(tmp_path / "last.pt")


def test_a_resumed_run_knows_the_matching_of_its_last_evaluation(tmp_path: Path) -> None:
    run, again = make_run(small_config(), tmp_path), make_run(small_config(), tmp_path)
    run.last_matching = {"image_ids": torch.tensor([7, 9]), "sizes": torch.tensor([1, 2]),
                         "queries": torch.tensor([4, 0, 6], dtype=torch.int32)}
    run.save()
    again.resume(tmp_path / "last.pt")
    assert torch.equal(again.last_matching["queries"], run.last_matching["queries"])


def test_a_checkpoint_from_before_matchings_were_kept_can_be_resumed(tmp_path: Path) -> None:
    run = make_run(small_config(), tmp_path)
    state = run.state_dict()
    del state["last_matching"]
    run.load_state_dict(state)
    assert run.last_matching is None


def test_a_running_average_that_a_resume_asks_for_begins_at_the_saved_weights(tmp_path: Path) -> None:
    run = make_run(small_config(), tmp_path)
    train_step(run, [random_batch(2)])
    run.save()
    again = make_run(small_config(ema_decay=0.9), tmp_path)
    again.resume(tmp_path / "last.pt")
    assert torch.equal(again.ema.shadow["class_embed.weight"], run.unwrapped.class_embed.weight)


def write_images_of_one_size(folder: Path) -> None:
    """16 training and 3 validation images, 96×64, of up to three grey rectangles each, in COCO format."""
    rng = np.random.default_rng(11)
    (folder / "annotations").mkdir(parents=True)
    for split, count in (("train", 16), ("val", 3)):
        (folder / split).mkdir()
        images, annotations = [], []
        for i in range(1, count + 1):
            pixels = rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)
            for _ in range(i % 4):
                x, y, w, h = (int(n) for n in (*rng.integers(0, (60, 36)), *rng.integers(9, 28, 2)))
                pixels[y:y + h, x:x + w] = 40 * (i % 4)
                annotations.append({"id": len(annotations) + 1, "image_id": i, "category_id": 1 + w % 2, "iscrowd": 0,
                                    "bbox": [x, y, w, h], "area": w * h})
            Image.fromarray(pixels).save(folder / split / f"{i}.png")
            images.append({"id": i, "file_name": f"{i}.png", "width": 96, "height": 64})
        categories = [{"id": 1, "name": "even"}, {"id": 2, "name": "odd"}]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))


def train_on(data: Path, folder: Path, launcher: list[str], batch_size: int, *flags: str) -> list[dict]:
    """Four steps on images of one size, unaugmented; returns the step records."""
    command = [*launcher, str(REPOSITORY / "detr_scratch.py"), "train", *flags, "--device", "cpu",
               "--data", str(data), "--norm", "group", "--dropout", "0", "--augment", "none", "--short-side", "64",
               "--batch-size", str(batch_size), "--max-minutes", "None", "--max-steps", "4", "--workers", "0",
               "--warmup-steps", "0", "--run-dir", str(folder)]
    done = subprocess.run(command, cwd=folder.parent, env={**os.environ, "OMP_NUM_THREADS": "1"},
                          capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [r for r in records if r["kind"] == "step"]


# Muon's first steps make every direction of a gradient count the same, also those that are mere rounding: with it the
# losses are compared to the second step, whose weights have taken one.
@pytest.mark.slow
@pytest.mark.parametrize(("flags", "steps"), [(["--preset", "tiny_vanilla"], 4),
                                              (["--preset", "tiny", "--groups", "2", "--lr-matrices", "1e-4",
                                                "--one-to-many", "0"], 2)])  # whose means are those of each process
def test_two_processes_have_the_losses_of_one_with_the_joint_batch(tmp_path: Path, flags: list, steps: int) -> None:
    write_images_of_one_size(tmp_path / "data")  # of one size: padding differs between one batch of four and two of two
    one = train_on(tmp_path / "data", tmp_path / "one", [sys.executable], 4, *flags)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    two = train_on(tmp_path / "data", tmp_path / "two", torchrun, 2, *flags)
    assert len(one) == len(two) == 4
    for name in ("loss", "loss_ce", "loss_bbox", "loss_giou", "grad_norm"):
        assert two[0][name] == pytest.approx(one[0][name], rel=1e-5), name
    # AdamW's first steps go by the sign of a gradient, also where that is mere rounding: float32 weights part a little.
    for a, b in zip(one[:steps], two):
        for name in ("loss", "loss_ce", "loss_bbox", "loss_giou"):
            assert b[name] == pytest.approx(a[name], rel=1e-4), (a["step"], name)
