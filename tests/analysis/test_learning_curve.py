"""The learning curve shows what a run wrote, and draws the same picture again from the data beside it."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Callable

import matplotlib.image
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from scratch.analysis.learning_curve import SIGNS, draw, main, read_run
from tests.conftest import REPOSITORY

HEALTH = {"num_queries": 5, "box_spread": 0.5, "box_response": 0.25, "matching_instability": None,
          "matched_queries": [0.25, 0.75], "matched_agreement": [0.5, 1.0]}


def write_run(folder: Path, steps: int = 3, end: str = "", healthy: bool = True) -> Path:
    """A log of `steps` steps of 6 seconds, whose loss falls by 1 each, with an evaluation after each second step.

    Every third gradient norm is missing, a guard spoke in step 3, and the evaluation of step 4 has a warning.
    `healthy=False`: as before all that was recorded.
    """
    folder.mkdir(parents=True)
    lines = []
    for step in range(1, steps + 1):
        lines.append({"kind": "step", "step": step, "minutes": step / 10, "loss": float(steps - step)})
        if healthy:
            lines[-1] |= {"grad_norm": 2.0 ** step if step % 3 else None,
                          "loss": steps - step + 3.0, "loss_queries": float(steps - step)}  # 3 are the cells'
        if step % 2 == 0:
            lines.append({"kind": "evaluation", "step": step, "minutes": step / 10, "AP": None if step == 2 else 0.25,
                          "AP50": 0.5, "AP75": 0.125, "losses": {"loss": 7.0, "loss_ce": 1.0}})
            if healthy:
                lines[-1] |= {"health": HEALTH, "clip_max_norm": 4.0, "warnings": ["query collapse"] * (step == 4)}
        if healthy and step == 3:
            lines.append({"kind": "warning", "step": 3, "minutes": 0.3, "guard": "loss spike", "text": "it is high"})
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + end)
    return folder


@pytest.fixture
def figure_of(tmp_path, monkeypatch) -> Callable[..., Figure]:
    """The figure that `draw` draws, as matplotlib's objects."""
    def figure(curves: list[dict], **options: str) -> Figure:
        drawn = []
        # Pixels would take half a second.
        monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: Path(path).touch())
        monkeypatch.setattr(plt, "close", drawn.append)
        draw(curves, tmp_path / "curves.png", **options)
        monkeypatch.undo()
        plt.close(drawn[0])
        return drawn[0]
    return figure


def words(figure: Figure) -> list[list[str]]:
    """What each panel says beside its title and axes."""
    return [[text.get_text() for text in [*axes.texts, *(axes.get_legend().texts if axes.get_legend() else ())]]
            for axes in figure.axes]


def test_a_run_is_read_as_its_steps_and_evaluations(tmp_path):
    assert read_run(write_run(tmp_path / "a", steps=5)) == {
        "name": "a", "steps": 5, "clip_max_norm": 4.0,
        "train": {"minutes": [0.1, 0.2, 0.3, 0.4, 0.5], "step": [1, 2, 3, 4, 5], "loss": [4.0, 3.0, 2.0, 1.0, 0.0],
                  "grad_norm": [2.0, 4.0, None, 16.0, 32.0]},
        "evaluation": {"minutes": [0.2, 0.4], "step": [2, 4], "loss": [7.0, 7.0],
                       "AP": [None, 0.25], "AP50": [0.5, 0.5], "AP75": [0.125, 0.125],
                       **{sign: [HEALTH[sign]] * 2 for sign in SIGNS}, "warnings": [[], ["query collapse"]]},
        "alerts": {"minutes": [0.3], "step": [3], "guard": ["loss spike"]}}


def test_of_a_run_without_health_the_rest_is_read(tmp_path):
    run = read_run(write_run(tmp_path / "a", steps=5, healthy=False))
    assert run["train"]["grad_norm"] == [None] * 5 and run["clip_max_norm"] is None
    assert all(run["evaluation"][sign] == [None, None] for sign in SIGNS)
    assert run["evaluation"]["warnings"] == [[], []] and run["evaluation"]["AP"] == [None, 0.25]


def test_a_gradient_is_clipped_to_what_the_run_was_last_resumed_with(tmp_path):
    log = write_run(tmp_path / "a", steps=5) / "log.jsonl"
    log.write_text(log.read_text().replace('"clip_max_norm": 4.0', '"clip_max_norm": 8.0', 1))
    assert read_run(tmp_path / "a")["clip_max_norm"] == 4.0


def test_of_a_group_of_steps_the_median_gradient_norm_is_kept(tmp_path):
    train = read_run(write_run(tmp_path / "a", steps=401))["train"]  # 3 in a point, one of which has none
    assert train["grad_norm"][:2] == [(2.0 + 4.0) / 2, (2.0**4 + 2.0**5) / 2]


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


@pytest.mark.parametrize("x", [[], ["--x", "steps"]])
def test_the_data_beside_a_picture_draws_it_again_pixel_by_pixel(x, tmp_path, monkeypatch):
    runs = [str(write_run(tmp_path / name, steps)) for name, steps in (("a", 5), ("b", 1))]  # b was never evaluated
    monkeypatch.setattr(sys, "argv", ["learning_curve", *runs, *x, "--out", str(tmp_path / "one")])
    main()
    monkeypatch.setattr(sys, "argv", ["learning_curve", "--data", str(tmp_path / "one" / "learning_curve.json"),
                                      "--out", str(tmp_path / "two")])
    main()
    one, two = (matplotlib.image.imread(tmp_path / name / "learning_curve.png") for name in ("one", "two"))
    assert one.shape == two.shape and (one == two).all() and one.std() > 0


def test_each_sign_is_drawn_in_its_panel(tmp_path, figure_of):
    run = read_run(write_run(tmp_path / "a", steps=4))
    run["evaluation"]["matching_instability"] = [None, 0.125]
    run["evaluation"]["matched_queries"][0] = run["evaluation"]["matched_agreement"][0] = [0.0, 0.0]  # not the last
    drawn = [[list(line.get_ydata()) for line in axes.lines] for axes in figure_of([run]).axes]
    assert drawn[2] == [pytest.approx([2.0, 4.0, math.nan, 16.0], nan_ok=True), [4.0, 4.0]]  # and where it is clipped
    assert drawn[3] == [[0.5, 0.5], [0.25, 0.25]]
    assert drawn[4] == [pytest.approx([math.nan, 0.125], nan_ok=True)]
    assert drawn[5] == [[0.25, 0.75], [0.5, 1.0]]


def test_a_sign_of_nought_has_a_place_on_its_scale_of_powers(tmp_path, figure_of):
    run = read_run(write_run(tmp_path / "a"))
    run["evaluation"]["box_response"] = [0.0]
    boxes = figure_of([run]).axes[3]
    assert boxes.get_yscale() == "log" and boxes.get_ylim()[0] < boxes.lines[1].get_ydata()[0] < 0.002


def test_a_warning_is_a_red_cross_on_the_ap50_curve(tmp_path, figure_of):
    figure = figure_of([read_run(write_run(tmp_path / "a", steps=5))])
    (cross,) = [line for line in figure.axes[0].lines if line.get_marker() == "x"]
    assert cross.get_color() == "red" and cross.get_xydata().tolist() == [[0.4, 0.5]]
    assert "a warning" in words(figure)[0]


def test_what_a_guard_said_is_a_red_cross_on_the_training_loss(tmp_path, figure_of):
    figure = figure_of([read_run(write_run(tmp_path / "a", steps=5))])
    (cross,) = [line for line in figure.axes[1].lines if line.get_marker() == "x"]
    assert cross.get_xydata().tolist() == [[0.3, 2.0]] and "a warning: loss spike" in words(figure)[1]
    figure = figure_of([read_run(write_run(tmp_path / "b", steps=5))], x="steps")
    assert [line.get_xydata().tolist() for line in figure.axes[1].lines if line.get_marker() == "x"] == [[[3, 2.0]]]


def test_a_run_without_a_warning_has_no_cross(tmp_path, figure_of):
    figure = figure_of([read_run(write_run(tmp_path / "a", steps=3))])
    assert "a warning" not in words(figure)[0] and all(line.get_marker() != "x" for line in figure.axes[0].lines)


def test_of_runs_that_recorded_no_signs_there_are_two_panels(tmp_path, figure_of):
    old = read_run(write_run(tmp_path / "old", healthy=False))
    titles = [axes.get_title() for axes in figure_of([old]).axes]
    assert titles == ["Average precision of each evaluation", "Weighted loss of the queries in all decoder layers"]


def test_panels_say_what_was_not_recorded(tmp_path, figure_of):
    old = read_run(write_run(tmp_path / "old", healthy=False))
    panels = words(figure_of([old, read_run(write_run(tmp_path / "new", steps=5))]))
    assert ["not recorded: old" in panel for panel in panels] == [False, False, True, True, False, True]
    assert panels[4] == ["not recorded"]  # nor has the new run an instability, after so few evaluations


@pytest.mark.parametrize("x", ["minutes", "steps"])
def test_the_x_axis_is_minutes_or_steps(x, tmp_path, figure_of):
    axes = figure_of([read_run(write_run(tmp_path / "a", steps=5))], x=x).axes
    wanted = {"minutes": [0.1, 0.2, 0.3, 0.4, 0.5], "steps": [1, 2, 3, 4, 5]}[x]
    assert list(axes[1].lines[0].get_xdata()) == wanted and list(axes[0].lines[0].get_xdata()) == wanted[1:4:2]
    assert [panel.get_xlabel() for panel in axes] == [x] * 5 + ["decoder layer"]


@pytest.mark.parametrize("steps", [3, 200, 500])
def test_data_of_the_version_before_is_drawn_against_the_steps_that_it_was_of(steps, tmp_path, figure_of):
    run = read_run(write_run(tmp_path / "a", steps=steps))
    before = [list(panel.lines[0].get_xdata()) for panel in figure_of([run], x="steps").axes[:2]]
    for part, names in (("train", ("step", "grad_norm")), ("evaluation", (*SIGNS, "warnings"))):
        for name in names:
            del run[part][name]
    del run["clip_max_norm"]
    assert [list(panel.lines[0].get_xdata()) for panel in figure_of([run], x="steps").axes[:2]] == before


def test_the_charts_that_the_project_keeps_can_be_drawn_again_against_either(tmp_path, monkeypatch):
    data, pictures = REPOSITORY / "hyper_parameter_tuning_charts" / "baseline" / "learning_curve.json", {}
    for x in ("minutes", "steps"):
        monkeypatch.setattr(sys, "argv", ["learning_curve", "--data", str(data), "--out", str(tmp_path), "--x", x])
        main()
        pictures[x] = (tmp_path / "learning_curve.png").read_bytes()
    assert pictures["minutes"] != pictures["steps"]
    assert [path.name for path in tmp_path.iterdir()] == ["learning_curve.png"]  # the data stays where it is


def test_more_runs_than_colours_can_be_drawn(tmp_path):
    draw([read_run(write_run(tmp_path / str(i))) for i in range(7)], tmp_path / "curves.png")
    assert matplotlib.image.imread(tmp_path / "curves.png").std() > 0


@pytest.mark.parametrize("arguments", [[], ["runs/a", "--data", "learning_curve.json"]])
def test_either_runs_or_data_must_be_named(arguments, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["learning_curve", *arguments])
    with pytest.raises(SystemExit):
        main()
    assert "name either runs or --data" in capsys.readouterr().err


def test_runs_of_one_name_keep_apart_and_what_was_left_out_of_a_log_is_said(tmp_path, monkeypatch, capsys):
    runs = [write_run(tmp_path / folder / "a") for folder in ("x", "y")]
    (runs[1] / "log.jsonl").write_text((runs[1] / "log.jsonl").read_text() + "half")
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: Path(path).touch())
    monkeypatch.setattr(sys, "argv", ["learning_curve", *map(str, runs), "--out", str(tmp_path)])
    main()
    assert [run["name"] for run in json.loads((tmp_path / "learning_curve.json").read_text())] == ["a", "a-2"]
    assert f"note: {runs[1] / 'log.jsonl'}: left out 1 line, 1 that cannot be read" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["{", "{}", "[]", '[{"name": "a"}]', "[1]"])
def test_damaged_data_is_one_line(content, tmp_path, monkeypatch):
    (tmp_path / "learning_curve.json").write_text(content)
    monkeypatch.setattr(sys, "argv", ["learning_curve", "--data", str(tmp_path / "learning_curve.json")])
    with pytest.raises(SystemExit, match=r"^error: .*learning_curve\.json is damaged[^\n]*again$"):
        main()
    plt.close("all")
