"""The learning curve shows what a run wrote, and draws the same picture again from the data beside it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib.image
import pytest

from scratch.analysis.learning_curve import draw, main, read_run


def write_run(folder: Path, steps: int = 3, end: str = "") -> Path:
    """A log of `steps` steps of 6 seconds, whose loss falls by 1 each, with an evaluation after each second step."""
    folder.mkdir(parents=True)
    lines = []
    for step in range(1, steps + 1):
        lines.append({"kind": "step", "step": step, "minutes": step / 10, "loss": float(steps - step)})
        if step % 2 == 0:
            lines.append({"kind": "evaluation", "step": step, "minutes": step / 10, "AP": None if step == 2 else 0.25,
                          "AP50": 0.5, "AP75": 0.125, "losses": {"loss": 7.0, "loss_ce": 1.0}})
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + end)
    return folder


def test_a_run_is_read_as_its_steps_and_evaluations(tmp_path):
    assert read_run(write_run(tmp_path / "a", steps=5)) == {
        "name": "a", "steps": 5,
        "train": {"minutes": [0.1, 0.2, 0.3, 0.4, 0.5], "loss": [4.0, 3.0, 2.0, 1.0, 0.0]},
        "evaluation": {"minutes": [0.2, 0.4], "step": [2, 4], "loss": [7.0, 7.0],
                       "AP": [None, 0.25], "AP50": [0.5, 0.5], "AP75": [0.125, 0.125]}}


def test_a_long_runs_steps_are_averaged_into_at_most_200_points(tmp_path):
    train = read_run(write_run(tmp_path / "a", steps=501))["train"]
    assert len(train["loss"]) == len(train["minutes"]) == 167  # 501 steps, 3 in a point
    assert train["loss"][0] == pytest.approx((500 + 499 + 498) / 3) and train["minutes"][-1] == pytest.approx(50.1)


def test_a_run_that_is_just_writing_a_line_can_be_read(tmp_path):
    assert read_run(write_run(tmp_path / "a", end='{"kind": "st'))["steps"] == 3


def test_a_folder_without_a_log_or_without_a_step_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="name the folder of a training run"):
        read_run(tmp_path)
    with pytest.raises(ValueError, match="holds no training step yet"):
        read_run(write_run(tmp_path / "a", steps=0))


def test_the_data_beside_a_picture_draws_it_again_pixel_by_pixel(tmp_path, monkeypatch):
    runs = [str(write_run(tmp_path / name, steps)) for name, steps in (("a", 5), ("b", 1))]  # b was never evaluated
    monkeypatch.setattr(sys, "argv", ["learning_curve", *runs, "--out", str(tmp_path / "one")])
    main()
    monkeypatch.setattr(sys, "argv", ["learning_curve", "--data", str(tmp_path / "one" / "learning_curve.json"),
                                      "--out", str(tmp_path / "two")])
    main()
    one, two = (matplotlib.image.imread(tmp_path / name / "learning_curve.png") for name in ("one", "two"))
    assert one.shape == two.shape and (one == two).all() and one.std() > 0


def test_more_runs_than_colours_can_be_drawn(tmp_path):
    draw([read_run(write_run(tmp_path / str(i))) for i in range(7)], tmp_path / "curves.png")
    assert matplotlib.image.imread(tmp_path / "curves.png").std() > 0


@pytest.mark.parametrize("arguments", [[], ["runs/a", "--data", "learning_curve.json"]])
def test_either_runs_or_data_must_be_named(arguments, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["learning_curve", *arguments])
    with pytest.raises(SystemExit):
        main()
    assert "name either runs or --data" in capsys.readouterr().err
