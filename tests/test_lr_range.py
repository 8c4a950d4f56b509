"""The learning-rate range test: an ordinary run whose rate rises, until its loss blows up."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from commands import lr_range as module
from commands.lr_range import LrRangeArguments, Rising, lr_range, measure, refuse, why_to_stop
from commands.sweep.search_space import changed
from scratch.config import PRESETS
from scratch.data.shapes import shapes_dataset
from scratch.only_one import only_one

SMALL = {"data": "set", "short_side": 64, "max_size": 96, "batch_size": 2, "workers": 0, "hidden_dim": 32,
         "dim_feedforward": 48, "enc_layers": 1, "dec_layers": 1, "num_queries": 10, "mosaic": 0.0}


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LrRangeArguments:
    shapes_dataset(tmp_path, 4, 1).rename(tmp_path / "set")
    monkeypatch.chdir(tmp_path)
    return LrRangeArguments(changed(PRESETS["tiny"], SMALL), Path("out"), low=1e-4, high=1e-1, steps=10, device="cpu")


def optimizer(*names: str) -> torch.optim.Optimizer:
    return torch.optim.SGD([{"name": name, "params": [torch.zeros(1, requires_grad=True)], "lr": lr, "initial_lr": lr}
                            for name, lr in zip(names, (0.5, 0.25, 0.125))], lr=1.0)


@pytest.mark.parametrize("of, rates", [("lr", [0.01, 0.25, 0.125]), ("lr_backbone", [0.5, 0.01, 0.125]),
                                       ("lr_matrices", [0.5, 0.25, 0.01]), ("all", [0.01, 0.005, 0.0025])])
def test_one_rate_rises_and_the_others_stay_or_keep_their_proportion(
    arguments: LrRangeArguments, of: str, rates: list,
) -> None:
    config = changed(arguments.config, {"lr": 0.5, "lr_backbone": 0.25, "lr_matrices": 0.125})
    groups = optimizer("transformer", "backbone", "backbone_matrices")
    rising = Rising(groups, replace(arguments, config=config, of=of, low=1e-3, high=1e-1, steps=3))
    rising.set(0, 0.0)
    rising.set(1, 0.5)
    assert [group["lr"] for group in groups.param_groups] == pytest.approx(rates)
    assert rising.rates == pytest.approx([1e-3, 1e-2])


def test_a_rate_at_which_nothing_learns_is_refused(arguments: LrRangeArguments) -> None:
    with pytest.raises(ValueError, match="--of lr_matrices: nothing .* learns at that rate"):
        Rising(optimizer("transformer", "backbone"), replace(arguments, of="lr_matrices"))


@pytest.mark.parametrize("changes, said", [
    ({"low": 1.0}, "got --from 1 --to 0.1"), ({"low": 0.0}, "got low = 0, wanted more than 0.*--from"),
    ({"high": math.inf}, "got high = inf, wanted more than 0.*--to"),
    ({"steps": 9}, "got --steps 9"),
    ({"of": "all", "config": changed(PRESETS["tiny"], {"lr": 0.0})}, "got --lr 0 with")])
def test_a_range_that_is_none_is_refused(arguments: LrRangeArguments, changes: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        refuse(replace(arguments, **changes))


def test_it_stops_where_the_loss_is_four_times_its_lowest_or_not_finite() -> None:
    assert why_to_stop(8.0, [9, 1, 2, 3, 8]) is None  # means of three: 4, 2, 4⅓
    assert why_to_stop(14.0, [9, 1, 2, 3, 8, 14]) == "the loss was over 4 times its lowest"  # 8⅓ > 4 · 2
    assert why_to_stop(99.0, [1, 99]) is None  # too few for a mean
    assert why_to_stop(math.nan, [1, 1, 1]) == "the loss was no longer finite"


def test_a_range_test_writes_what_it_saw_and_is_drawn_again_from_that(
    arguments: LrRangeArguments, capsys: pytest.CaptureFixture[str],
) -> None:
    lr_range(arguments)
    layout, _, said = capsys.readouterr().out.partition("\n")
    assert layout.startswith("layout: COCO")
    found = json.loads(Path("out/lr_range.json").read_text())
    assert found["rates"][0] == 1e-4 and found["configured"] == 2e-3
    assert len(found["rates"]) == len(found["losses"]) <= 10
    assert all(loss > 0 for loss in found["losses"]) and len(set(found["losses"])) > 1
    assert "lr from 0.0001 to 0.1 over 10 steps" in said and not list(Path("out").glob("*.pt"))
    picture = Path("out/lr_range.png").read_bytes()
    Path("out/lr_range.png").unlink()
    lr_range(replace(arguments, redraw=True))
    assert Path("out/lr_range.png").read_bytes() == picture and capsys.readouterr().out == said
    with pytest.raises(FileNotFoundError, match="lr_range.json does not exist"):
        lr_range(replace(arguments, redraw=True, out=Path("nowhere")))


def test_data_at_paths_of_its_own_is_called_by_its_images(arguments: LrRangeArguments) -> None:
    paths = {f"{split}_{part}": str(Path("set") / where) for split in ("train", "val") for part, where in (
        ("images", split), ("annotations", f"annotations/instances_{split}.json"))}
    found = measure(replace(arguments, config=changed(arguments.config, {"data": "shapes", **paths})))
    assert found["data"] == "train"


def test_a_loss_that_is_not_finite_ends_the_test_and_keeps_what_was_before(
    arguments: LrRangeArguments, monkeypatch: pytest.MonkeyPatch,
) -> None:
    losses: list[Any] = [3.0, 2.0, 1.0, 2.0, None]

    def step(run: Any, batches: list) -> dict:
        run.schedule.set(run.step, run.progress())
        assert len(batches) == 2
        loss = losses.pop(0)
        if loss is None:
            raise FloatingPointError("not finite")
        return {"loss": loss}

    monkeypatch.setattr(module, "train_step", step)
    config = changed(arguments.config, {"accumulate": 2, "batch_size": 1})
    found = measure(replace(arguments, config=config))
    assert found["losses"] == [3.0, 2.0, 1.0, 2.0] and len(found["rates"]) == 4
    assert found["stopped"] == "the loss was no longer finite" and found["effective_batch"] == 2
    losses[:] = [3.0, None]
    with pytest.raises(ValueError, match="not finite after 1 steps; wanted a lower --from"):
        measure(replace(arguments, config=config))


def test_a_second_one_in_the_same_folder_is_refused_and_drawing_again_is_not(arguments: LrRangeArguments) -> None:
    with only_one(arguments.out):
        with pytest.raises(OSError, match="out is in use by pid"):
            lr_range(arguments)
        with pytest.raises(FileNotFoundError):
            lr_range(replace(arguments, redraw=True))
