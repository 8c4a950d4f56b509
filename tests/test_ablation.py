"""The ablation: each variant is one idea more, a stopped command goes on, and the table says what was measured."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Callable

import matplotlib.image
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

import detr_scratch
from benchmarks.ablation import (
    IDEAS, VARIANTS, as_flags, chosen, main, parse, plan_trials, report, spread, steps_to,
)
from commands.children import Children
from scratch.analysis.ablation_chart import INK, band, draw, label
from scratch.config import PRESETS, Config
from scratch.data.shapes import shapes_dataset
from scratch.training.loop import train_step

pytestmark = pytest.mark.slow

QUICK = ["--flags", "--short-side 64 --max-size 96 --batch-size 4 --workers 0 --hidden-dim 32 --dim-feedforward 48",
         "--device", "cpu", "--variants", "weight-decay", "vanilla", "--seeds", "7", "--steps", "2",
         "--budget", "steps", "--data", "shapes-set", "--out", "out"]


def config_of(variant: str, folder: Path) -> Config:
    """What the command line makes of a variant's flags."""
    argv = ["--preset", "tiny", *VARIANTS[variant].flags, "--device", "cpu", "--run-dir", str(folder)]
    return detr_scratch.parse_train(argv).config


def differing(one: Config, other: Config) -> set[str]:
    """The names of the fields that differ."""
    one, other = ({name: value for part, values in config.to_dict().items() if part != "preset"
                   for name, value in values.items()} for config in (one, other))
    return {name for name in one if one[name] != other[name]}


# -- the variants --------------------------------------------------------------------------------------------------


# What each idea may change; where the presets agree on a field, its row does not.
NAMED = {"anchors": {"queries"}, "denoising": {"denoising"}, "groups": {"groups"},
         "focal": {"classification", "set_cost_class", "ce_loss_coef", "bbox_loss_coef", "giou_loss_coef"},
         "proposals": {"queries", "denoising", "groups"}, "fine-memory": {"fine_memory"},
         "quality": {"quality"}, "mosaic": {"mosaic"}, "weight-decay": {"weight_decay"},
         "roi-features": {"roi_features"}, "one-to-many": {"one_to_many"},
         "muon": {"optimizer", "lr", "lr_backbone", "clip_max_norm"}}


@pytest.mark.parametrize("before, variant", list(zip(VARIANTS, IDEAS)))
def test_a_variant_differs_from_the_one_before_in_its_idea_alone(before: str, variant: str, tmp_path: Path) -> None:
    changed = differing(config_of(before, tmp_path), config_of(variant, tmp_path))
    assert changed and changed <= NAMED[variant]


def test_the_chain_begins_with_detr_as_published_and_ends_with_the_preset(tmp_path: Path) -> None:
    first, last = list(VARIANTS)[0], list(VARIANTS)[-1]
    # Of Muon's rate AdamW knows nothing; every row has the pictures of `tiny`, of one size.
    assert differing(config_of(first, tmp_path), PRESETS["tiny_vanilla"]) <= {"lr_matrices", "short_side"}
    assert config_of(last, tmp_path) == replace(PRESETS["tiny"], data=replace(PRESETS["tiny"].data, grow=0.0))
    model, train = config_of(first, tmp_path).model, config_of(first, tmp_path).train
    assert (model.queries, model.classification, model.denoising, model.groups) == ("learned", "softmax", 0, 1)
    assert train.optimizer == "adamw" and train.clip_max_norm == 0.1


def test_the_new_flags_of_the_rows_down_to_one_are_that_rows_flags(tmp_path: Path) -> None:
    down_to: list[str] = []
    for name in ("vanilla", *IDEAS):
        down_to += VARIANTS[name].change
        together = detr_scratch.parse_train(["--preset", "tiny", *down_to, "--device", "cpu", "--run-dir", "x"]).config
        assert together == config_of(name, tmp_path)


# -- the runs ------------------------------------------------------------------------------------------------------


def step_and_interrupt(*arguments: object) -> dict[str, float]:
    record = train_step(*arguments)
    os.kill(os.getpid(), signal.SIGINT)
    return record


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a command was interrupted after the first step of its first run, and then made again."""
    folder = tmp_path_factory.mktemp("ablation")
    data = shapes_dataset(folder, 8, 2).rename(folder / "shapes-set")
    shutil.copytree(data / "val", data / "test")
    shutil.copy(data / "annotations" / "instances_val.json", data / "annotations" / "instances_test.json")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("scratch.training.loop.train_step", step_and_interrupt)
        first = plan_trials(parse(QUICK))[0]
        first.begin()
        detr_scratch.main(["train", "--preset", "tiny", *first.flags, "--device", "cpu", "--run-dir",
                           str(first.run_dir)])
        assert not first.is_trained()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        main([*QUICK, "--jobs", "2"])
    return folder


def test_every_run_is_finished_judged_and_written_down(measured: Path) -> None:
    results = json.loads((measured / "out" / "ablation.json").read_text())
    assert [(run["variant"], run["budget"], run["seed"]) for run in results["runs"]] == [
        ("vanilla", "steps", 7), ("weight-decay", "steps", 7)]
    for run in results["runs"]:
        assert run["steps"] == run["evaluation"]["step"][-1] == 2 and run["seconds"] > 0
        assert run["AP50"] == run["evaluation"]["AP50"][-1] and run["AP"] == run["evaluation"]["AP"][-1]
        assert 0 <= run["test"]["AP"] <= run["test"]["AP50"] <= 1
    text = (measured / "out" / "ablation.md").read_text()
    assert text == report(results) and "| vanilla | – | – | – | 0.0" in text and "test split" in text
    assert matplotlib.image.imread(measured / "out" / "ablation.png").std() > 0


def test_a_command_that_was_interrupted_goes_on_where_it_was(measured: Path) -> None:
    run = measured / "out" / "runs" / "steps-2" / "vanilla-seed7"
    assert f"resuming {run.relative_to(measured)} at step 1" in (run / "output.txt").read_text()


def test_the_command_of_a_run_names_no_folder_of_this_machine(measured: Path, tmp_path: Path) -> None:
    run = json.loads((measured / "out" / "ablation.json").read_text())["runs"][0]
    words = shlex.split(run["command"])
    assert words[:3] == ["python", "detr_scratch.py", "train"] and str(measured) not in run["command"]
    assert "DATA" in words and words[-1] == "OUT/runs/steps-2/vanilla-seed7"
    config = detr_scratch.parse_train([*words[3:], "--device", "cpu"]).config
    begun = json.loads((measured / words[-1].replace("OUT", "out") / "plan.json").read_text())
    assert differing(config, Config.from_dict(begun)) == {"data"}


def test_the_same_command_again_does_nothing_new(measured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(measured)
    files = [path for path in (measured / "out").rglob("*") if path.is_file()]
    before = {path: path.read_bytes() for path in files}
    times = {path: path.stat().st_mtime_ns for path in files if path.parent.name.endswith("-seed7")}
    monkeypatch.setattr("commands.children.Children.run", None)  # nothing may be started
    main(QUICK)
    assert {path: path.read_bytes() for path in (measured / "out").rglob("*") if path.is_file()} == before
    assert times and {path: path.stat().st_mtime_ns for path in times} == times


def test_a_folder_of_other_settings_is_refused(measured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(measured)
    with pytest.raises(SystemExit) as stopped:
        main([word.replace("--batch-size 4", "--batch-size 2") for word in QUICK])
    assert "was begun with batch_size = 4, not 2" in str(stopped.value) and "name another --out" in str(stopped.value)


def test_a_run_that_fails_is_named_and_the_others_go_on(
    measured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(measured, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    for path in Path("out").rglob("result.json"):
        path.unlink()
    monkeypatch.setattr("commands.children.Children.run", lambda _, words, *__: "weight-decay-seed7" in words[1])
    with pytest.raises(SystemExit) as stopped:
        main(QUICK)
    assert "error: 1 runs failed" in str(stopped.value) and "steps-2, vanilla, seed 7 failed" in str(stopped.value)
    assert "1 of 2: steps-2, weight-decay, seed 7: 2 steps" in capsys.readouterr().out
    assert [run["variant"] for run in json.loads(Path("out/ablation.json").read_text())["runs"]] == ["weight-decay"]
    assert "| vanilla | – | – | – | – | – | – |" in Path("out/ablation.md").read_text()


def test_a_stop_asks_a_run_to_end_until_when_no_other_may_write_there_and_lets_none_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    program, output = tmp_path / "program.py", tmp_path / "output.txt"
    program.write_text("import signal, sys, time\n"
                       "signal.signal(signal.SIGTERM, lambda *_: print('saved', flush=True) or sys.exit(0))\n"
                       "print(sys.argv[1], flush=True)\ntime.sleep(300)")
    monkeypatch.setattr("commands.children.COMMAND_LINE", program)
    monkeypatch.setattr("commands.children.PATIENCE", 0)
    children = Children(threads=1)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(children.run, ["begun"], output)
        while not (output.exists() and output.read_text()):
            time.sleep(0.01)
        with pytest.raises(RuntimeError, match="still written to"):  # as if its command had been killed
            Children(threads=1).run(["second"], output)
        children.stop(terminate=True)
        assert first.result(timeout=240) is True
    assert children.run(["later"], output) is False and output.read_text() == "begun\nsaved\n"


def test_both_budgets_end_the_same_runs_differently(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small = ["--out", "out", "--flags", "--shapes-train 40 --shapes-val 1", "--seeds", "3", "1", "3"]
    trials = plan_trials(parse([*small, "--minutes", "0.5", "--steps", "64", "--variants", "muon"]))
    assert [(trial.seed, trial.config.train.seed, trial.budget) for trial in trials] == [
        (3, 3, "minutes"), (3, 3, "steps"), (1, 1, "minutes"), (1, 1, "steps")]
    timed, stepped = trials[0].config, trials[1].config
    assert (timed.train.max_minutes, timed.train.max_steps) == (0.5, None)
    assert (stepped.train.max_minutes, stepped.train.max_steps) == (None, 64)
    assert differing(timed, stepped) == {"max_minutes", "max_steps"}
    assert timed.train.eval_every == 64 / 8 / (40 // 16)  # an eighth of the steps, in epochs of whole batches
    (often,) = plan_trials(parse(["--out", "out", "--flags", "--shapes-train 40 --shapes-val 1 --eval-every 11",
                                  "--seeds", "3", "--budget", "steps", "--variants", "weight-decay"]))
    assert often.config.train.eval_every == 11


@pytest.mark.parametrize("flags", ["--lr 1e-3", "--workers 0 --num-queries 7 --set_cost_class=3", "--max-steps 5",
                                   "--no-roi-features"])
def test_flags_that_would_blur_the_comparison_are_refused(
    flags: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"with --(lr|set_cost_class=3|max-steps|no-roi-features), which .* leave these out"):
        plan_trials(parse(["--out", "out", "--flags", f"--shapes-train 1 --shapes-val 1 {flags}"]))


# -- table and chart -----------------------------------------------------------------------------------------------


def a_run(variant: str, budget: str, seed: int, ap50: list, steps: int = 30, test: bool = False) -> dict:
    """A finished run whose AP is half its AP50, evaluated at even distances; on test, a tenth is lost."""
    at = [steps * (k + 1) // len(ap50) for k in range(len(ap50))]
    ap = [None if value is None else value / 2 for value in ap50]
    return {"variant": variant, "budget": budget, "seed": seed, "jobs": 1, "command": "", "steps": steps,
            "seconds": 2.0 * steps, "AP": ap[-1], "AP50": ap50[-1],
            "test": {"AP": ap[-1] - 0.1, "AP50": ap50[-1] - 0.1} if test else None,
            "evaluation": {"step": at, "minutes": [step / 10 for step in at], "AP": ap, "AP50": ap50, "AP75": ap}}


def made_up(**changes: object) -> dict:
    runs = [a_run("vanilla", "minutes", 1, [0.0, 0.2], 100), a_run("vanilla", "minutes", 2, [0.0, 0.4], 120),
            a_run("vanilla", "steps", 1, [0.1, 0.3, 0.4]),
            a_run("weight-decay", "steps", 1, [0.5, 0.7, 0.8]), a_run("weight-decay", "steps", 2, [0.3, 0.6, 0.6])]
    return {"data": "made-up", "minutes": 1.5, "steps": 30, "flags": "", "seeds": [1, 2], "runs": runs,
            "variants": {name: VARIANTS[name]._asdict() for name in ("vanilla", "anchors", "weight-decay")}, **changes}


def test_the_table_of_made_up_runs_is_as_by_hand() -> None:
    lines = report(made_up()).splitlines()
    start = lines.index("| variant | AP, 1.5 min | AP50, 1.5 min | steps in 1.5 min | AP, 30 steps | AP50, 30 steps "
                        "| steps to AP50 0.5 |")
    assert lines[start + 2:start + 5] == [
        "| vanilla | 0.150 ± 0.050 | 0.300 ± 0.100 | 110 ± 10 | 0.200 (1 of 2) | 0.400 (1 of 2) | > 30 (1 of 2) |",
        "| + anchors | – | – | – | – | – | – |",
        "| + weight decay | – | – | – | 0.350 ± 0.050 | 0.700 ± 0.100 | 15 ± 5 |"]
    assert f"| + anchors | {VARIANTS['anchors'].sentence} | `--queries anchor` |" in lines
    assert "test split" not in report(made_up())


def test_an_idea_that_has_no_row_is_told_with_the_next_row() -> None:
    rows = chosen(["vanilla", "anchors", "weight-decay"])
    assert list(rows) == ["vanilla", "anchors", "weight-decay"] and rows["vanilla"] == VARIANTS["vanilla"]
    assert rows["anchors"].change == VARIANTS["muon"].change + VARIANTS["anchors"].change
    assert rows["anchors"].sentence == f"{VARIANTS['muon'].sentence}; {VARIANTS['anchors'].sentence}"
    assert rows["weight-decay"].flags == VARIANTS["weight-decay"].flags


def test_the_test_split_has_a_table_of_its_own() -> None:
    runs = [a_run("weight-decay", "steps", seed, [0.5, last], test=True) for seed, last in ((1, 0.8), (2, 0.6))]
    assert "| + weight decay | – | – | 0.250 ± 0.050 | 0.600 ± 0.100 |" in report(made_up(runs=runs))


def test_minutes_that_runs_shared_are_marked() -> None:
    results = made_up()
    assert "with care" not in report(results)
    results["runs"][0]["jobs"] = 2
    assert "Up to 2 runs shared the machine" in report(results)


@pytest.mark.parametrize("values, seeds, text", [
    ([0.25, 0.5, 0.375], 3, "0.375 ± 0.125"), ([0.25], 1, "0.250"), ([0.25], 3, "0.250 (1 of 3)"),
    ([None, 0.25, 0.75], 3, "0.500 ± 0.250 (2 of 3)"), ([None], 1, "–"), ([], 2, "–"),
])
def test_a_spread_is_a_mean_half_a_range_and_how_many_seeds_are_missing(values: list, seeds: int, text: str) -> None:
    assert spread(values, seeds) == text


@pytest.mark.parametrize("curves, seeds, text", [
    ([[0.1, 0.5, 0.4]], 1, "20"), ([[0.1, 0.2, 0.49]], 1, "> 30"), ([[None, 0.1, 0.6]], 1, "30"), ([], 2, "–"),
    ([[0.5, 0.6, 0.7], [0.1, 0.2, 0.7]], 2, "20 ± 10"), ([[0.5, 0.6, 0.7], [0.1, 0.2, 0.3]], 2, "> 30 (1 of 2)"),
    ([[0.1, 0.2, 0.3]] * 2, 2, "> 30"),
])
def test_the_steps_to_an_ap50_are_those_of_the_first_evaluation_there(curves: list, seeds: int, text: str) -> None:
    assert steps_to([a_run("weight-decay", "steps", seed, ap50) for seed, ap50 in enumerate(curves)], seeds) == text


def test_a_band_is_mean_least_and_most_between_straight_lines() -> None:
    at, middle, least, most = band([([1, 3], [0.0, 0.5]), ([1, 2, 4], [0.25, 0.75, None])])
    assert at.tolist() == [1, 2, 3]
    assert least.tolist() == [0.0, 0.25, 0.5] and most.tolist() == [0.25, 0.75, 0.75]
    assert middle.tolist() == [0.125, 0.5, 0.625]
    assert [len(values) for values in band([([1], [None])])] == [0, 0, 0, 0]


@pytest.fixture
def chart_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict], Figure]:
    """The figure that `draw` draws, as matplotlib's objects."""
    def chart(results: dict) -> Figure:
        drawn: list[Figure] = []
        monkeypatch.setattr(plt, "close", drawn.append)
        draw(results, tmp_path / "chart.png")
        monkeypatch.undo()
        plt.close(drawn[0])
        return drawn[0]
    return chart


def test_each_variant_is_a_line_with_a_band_where_there_are_several_seeds(chart_of: Callable[[dict], Figure]) -> None:
    figure = chart_of(made_up())
    minutes, steps = figure.axes
    assert [(line.get_label(), line.get_xydata().tolist()) for line in steps.lines] == [
        ("vanilla", [[10, 0.1], [20, 0.3], [30, 0.4]]),
        ("+ weight decay", [pytest.approx(point) for point in ([10, 0.4], [20, 0.65], [30, 0.7])])]
    assert [line.get_label() for line in minutes.lines] == ["vanilla"]
    assert [len(axes.collections) for axes in (minutes, steps)] == [1, 1]  # vanilla's, and the last one's
    assert [text.get_text() for text in figure.legends[0].texts] == ["vanilla", "+ weight decay"]


def test_the_chart_knows_every_variant_in_its_order() -> None:
    assert list(INK) == list(VARIANTS)
    assert [label(name) for name in INK][:2] == ["vanilla", "+ muon"] and set(IDEAS) == set(VARIANTS) - {"vanilla"}


def test_no_two_variants_look_alike_and_an_empty_panel_says_so(chart_of: Callable[[dict], Figure]) -> None:
    runs = [a_run(name, "steps", 1, [0.25, 0.5]) for name in VARIANTS]
    minutes, steps = chart_of(made_up(runs=runs, variants=dict.fromkeys(VARIANTS))).axes
    assert len({(line.get_color(), line.get_linestyle()) for line in steps.lines}) == len(VARIANTS)
    assert [text.get_text() for text in minutes.texts] == ["not measured"]


def test_table_and_chart_are_made_again_from_the_data_alone(tmp_path: Path) -> None:
    (tmp_path / "ablation.json").write_text(json.dumps(made_up()))
    main(["--out", str(tmp_path), "--redraw"])
    assert (tmp_path / "ablation.md").read_text() == report(made_up())
    first = matplotlib.image.imread(tmp_path / "ablation.png")
    (tmp_path / "ablation.json").write_text(json.dumps(made_up(runs=made_up()["runs"][:3])))
    main(["--out", str(tmp_path), "--redraw"])
    second = matplotlib.image.imread(tmp_path / "ablation.png")
    assert first.std() > 0 and (first.shape != second.shape or (first != second).any())
    assert "| + weight decay | – | – | – | – | – | – |" in (tmp_path / "ablation.md").read_text()


def test_flags_spell_fields_as_the_command_line_does() -> None:
    fields = {"ce_loss_coef": 1.5, "queries": "anchor", "fine_memory": False, "square": True}
    assert as_flags(fields) == ["--ce-loss-coef", "1.5", "--queries", "anchor", "--no-fine-memory", "--square"]
