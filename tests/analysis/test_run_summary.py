"""What a log says in a few figures, and what a comparison of runs shows."""

from __future__ import annotations

from pathlib import Path

from scratch.analysis.run_summary import changed_fields, comparison, flat, number, summarise_log
from scratch.config import PRESETS
from tests.analysis.test_findings import analysed
from tests.analysis.test_learning_curve import write_run


def test_a_log_is_summarised_by_its_best_and_its_last_evaluation(tmp_path: Path) -> None:
    log = write_run(tmp_path / "a", steps=7) / "log.jsonl"  # evaluations at 2, 4 and 6; AP none, 0.25, 0.25
    log.write_text(log.read_text().replace('"loss": 3.0, "loss_queries": 0.0', '"loss": 3.0, "images_per_second": 8.0'))
    summary = summarise_log(tmp_path / "a")
    assert summary["steps"] == 7 and summary["minutes"] == 0.7
    assert summary["best"] == {"step": 4, "epoch": None, "minutes": 0.4, "AP": 0.25, "AP50": 0.5, "AP75": 0.125}
    assert summary["last"]["step"] == 6 and summary["earlier"]["step"] == 4  # 3/4 of 7 are 5.25
    assert summary["reached"] == {"step": 2, "minutes": 0.2}


def test_warnings_of_guards_and_of_evaluations_are_kept_with_their_steps(tmp_path: Path) -> None:
    log = write_run(tmp_path / "a", steps=7) / "log.jsonl"
    with open(log, "a", encoding="utf-8") as file:
        file.write('{"kind": "warning", "step": 7, "minutes": 0.7, "guard": "loss spike", "text": "it is high"}\n'
                   '{"kind": "evaluation", "step": 7, "minutes": 0.7, "warnings": ["query collapse: 5 queries"]}\n')
    assert summarise_log(tmp_path / "a")["warned"] == {"loss spike": [3, 7], "query collapse": [4, 7]}
    assert summarise_log(write_run(tmp_path / "b", steps=2))["warned"] == {}


def test_what_a_log_does_not_hold_is_none(tmp_path: Path) -> None:
    assert summarise_log(tmp_path) is None
    (tmp_path / "log.jsonl").write_text('{"kind": "st')
    assert summarise_log(tmp_path) is None
    summary = summarise_log(write_run(tmp_path / "a", steps=1, end='{"kind": "st'))  # not judged yet, still writing
    assert summary["steps"] == 1
    assert {name for name, value in summary.items() if value is None} == {
        "best", "last", "earlier", "reached", "images_per_second", "memory_gib"}


def test_the_median_speed_and_the_most_memory_are_taken(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text("".join(
        f'{{"kind": "step", "step": {i}, "minutes": {i}.0, "images_per_second": {s}, "memory_gib": {m}}}\n'
        for i, s, m in ((1, 1.0, 2.0), (2, 30.0, 3.5), (3, 20.0, 3.0))))
    summary = summarise_log(tmp_path)
    assert summary["images_per_second"] == 20.0 and summary["memory_gib"] == 3.5


def test_fields_that_differ_from_the_preset_are_listed() -> None:
    config = PRESETS["tiny"].to_dict()
    config["train"]["lr"], config["model"]["num_classes"] = 0.5, 3
    assert changed_fields(config, PRESETS["tiny"].to_dict()) == [("lr", 2e-3, 0.5)]


def test_no_two_rooms_of_a_configuration_share_a_fields_name() -> None:
    config = PRESETS["tiny"].to_dict()
    assert len(flat(config)) == sum(len(part) for part in config.values() if isinstance(part, dict))


def test_a_comparison_shows_what_differs_and_what_came_of_it() -> None:
    a, b = analysed("a"), analysed("b", said={})
    b["checkpoint"]["config"]["train"]["lr"] = 0.5
    b["log"] = {"reached": {"step": 1200, "minutes": 3.25}, "images_per_second": 8.0, "memory_gib": 0.5}
    head, rows = comparison([a, b])
    table = {row[0]: row[1:] for row in rows}
    assert head == ["", "a", "b"] and table["`lr`"] == ["0.002", "0.5"] and "`weight_decay`" not in table
    assert table["AP50"] == ["0.228", "0.000"] and table["AP50 lost to Miss"] == ["0.155", "1.000"]
    assert table["AP50 0.5 at step"] == ["–", "1,200"] and table["AP50 0.5 at minute"] == ["–", "3.2"]
    assert table["GFLOPs of an image"] == ["4.00", "4.00"] and table["parameters"] == ["4", "4"]


def test_a_missing_figure_is_a_dash() -> None:
    assert number(None) == "–" and number(0.12345) == "0.123" and number(1234, ",.0f") == "1,234"
