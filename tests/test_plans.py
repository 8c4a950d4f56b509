"""benchmarks.plans: every plan that can is measured, the chosen one marked; where the figures were taken it pays."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import plans
from benchmarks.plans import Case
from scratch.ops.fast.convolution import fast_convolution
from scratch.ops.fast.switch import plain_mode

RECORDED = Path(__file__).resolve().parents[1] / "benchmarks" / "plans.json"


@pytest.mark.parametrize("case, names, chosen", [
    (Case(1, 3, 20, 22, 4, 7, 2), {"Columns", "Shifted", "Rows"}, "Rows"),
    (Case(1, 16, 12, 12, 8), {"Columns", "Shifted", "Winograd"}, "Shifted"),
    (Case(1, 16, 9, 9, 80, stride=2), {"Columns", "Shifted"}, "Columns"),
    (Case(1, 3, 12, 12, 8, dilation=2), {"Columns", "Shifted"}, "Columns"),
])
def test_every_plan_that_can_is_measured_beside_torch(case: Case, names: set, chosen: str) -> None:
    with plain_mode(False):
        result = plans.measure(case, 1)
    assert result["seconds"].keys() == names | {"torch.nn"} and min(result["seconds"].values()) > 0
    assert result["chosen"] == chosen
    told = plans.line(result)
    assert told.startswith(str(case)) and told.count("[") == 1
    assert f"[{1e3 * result['seconds'][chosen]:.1f}]" in told


def test_a_case_is_told_by_its_shapes() -> None:
    assert str(Case(2, 3, 4, 5, 6, 7, 2)) == "3→6 7×7 /2, 2×4×5"
    assert str(Case(2, 3, 4, 5, 6, dilation=2)) == "3→6 3×3 d2, 2×4×5"


def test_the_convolutions_of_a_preset_are_those_of_its_images() -> None:
    cases = plans.cases_of("tiny", 16, 144, 144)
    assert cases[0] == Case(16, 3, 144, 144, 16, 7, 2) and len(cases) == len(set(cases))
    assert set(plans.CASES[:1] + plans.CASES[2:10]) == set(cases)
    assert Case(2, 128, 60, 80, 128) in plans.cases_of("detr_r50", 2, 480, 640)


def test_a_line_ends_with_the_time_of_the_chosen_plan_beside_the_fastest_and_torch() -> None:
    seconds = {"Columns": 2.0, "Shifted": 3.0, "torch.nn": 1.5}
    assert plans.line({"case": "c", "seconds": seconds, "chosen": "Shifted"}).split()[-2:] == ["1.50", "2.00"]
    assert plans.line({"case": "c", "seconds": seconds, "chosen": "Columns"}).split()[-2:] == ["1.00", "1.33"]


def test_the_table_is_printed_and_written(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(plans, "CASES", (Case(1, 16, 12, 12, 8),))
    monkeypatch.setattr(plans, "multiplying", lambda: {"product": 1.0, "convolution": 2.0})
    monkeypatch.setattr(sys, "argv", ["plans", "--repeats", "1", "--json", str(tmp_path / "f.json")])
    plans.main()
    figures = json.loads((tmp_path / "f.json").read_text())
    (result,), printed = figures["results"], capsys.readouterr().out
    assert plans.line(result) in printed and figures["machine"]["gflops"] == {"product": 1.0, "convolution": 2.0}
    assert plans.told(figures["machine"]["gflops"]) in printed


@pytest.mark.parametrize("name", ["plans.json", "plans_amd.json"])
def test_on_the_machines_of_the_figures_no_other_plan_would_have_been_a_fifth_faster(name: str) -> None:
    results = json.loads(RECORDED.with_name(name).read_text(encoding="utf-8"))["results"]
    assert [result["case"] for result in results] == [str(case) for case in plans.CASES]
    for result in results:
        fastest = min(seconds for name, seconds in result["seconds"].items() if name != "torch.nn")
        assert result["seconds"][result["chosen"]] < 1.2 * fastest, plans.line(result)


@pytest.mark.parametrize("case, one, other", [
    ("3→64 7×7 /2, 2×256×256", "Rows", "Shifted"), ("512→512 3×3 /2, 2×30×40", "Columns", "Shifted"),
    ("16→32 3×3 /2, 16×36×36", "Columns", "Shifted"), ("256→256 3×3, 2×16×16", "Winograd", "Columns"),
    ("256→256 3×3, 1×16×16", "Winograd", "Columns"), ("128→128 3×3, 2×32×32", "Winograd", "Shifted"),
    ("64→64 3×3, 2×32×32", "Winograd", "Shifted")])
def test_the_notes_tell_the_measured_plans(case: str, one: str, other: str) -> None:
    results = {result["case"]: result["seconds"] for result in json.loads(RECORDED.read_text("utf-8"))["results"]}
    told = ", ".join(f"{plan} {1e3 * results[case][plan]:.1f}" for plan in (one, other))
    assert f"{case}: {told}" in Path(fast_convolution.__code__.co_filename).read_text(encoding="utf-8")
