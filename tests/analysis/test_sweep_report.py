"""The sweep's conclusions: each rule says what the figures carry, worked by hand, and no more."""

from __future__ import annotations

import json
from itertools import combinations
from statistics import mean, median
from typing import Any

import pytest

from scratch.analysis.sweep_page import report
from scratch.analysis.sweep_report import NOISE, conclusions, in_words, rank_correlation
from tests.analysis.test_sweep_charts import a_trial, results
from tests.conftest import REPOSITORY


DIVERGED = "step 7: the gradient of input_proj.weight is not finite"


def said_of(*trials: dict, **changes: Any) -> str:
    return "\n".join(conclusions(results(*trials, **{"minutes": 12.4, **changes})))


def test_ranks_correlate_as_by_hand() -> None:
    assert rank_correlation([1, 10, 100], [0.1, 0.2, 0.9]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1)
    assert rank_correlation([1, 2, 3], [1, 3, 2]) == pytest.approx(0.5)  # 1 − 6·(0+1+1)/(3·8)
    assert rank_correlation([1, 1, 2, 2], [1, 2, 1, 2]) == pytest.approx(0)
    assert rank_correlation([1, 1, 1], [1, 2, 3]) == 0


def test_the_trials_are_counted_by_what_became_of_them() -> None:
    trials = (a_trial(0, 0.2), a_trial(1, 0.4), a_trial(2, 0.1, "pruned"), a_trial(3, None, "failed"),
              a_trial(4, None, "running"))
    assert said_of(*trials).startswith("5 trials in 12 minutes: 2 complete, 1 ended early, 1 failed, 1 not finished.")
    assert "nothing to conclude" in said_of(a_trial(0, None, "running"))


@pytest.mark.parametrize("default, said", [
    (0.30, "That is 0.100 above the default (trial 0), which has 0.300: more than the 0.02 by which two seeds differ"),
    (0.385, "That is 0.015 above the default (trial 0), which has 0.385: within the 0.02 by which two seeds differ")])
def test_the_best_is_held_against_the_default(default: float, said: str) -> None:
    assert said in said_of(a_trial(0, default), a_trial(1, 0.4), a_trial(2, 0.1))


def test_the_noise_is_the_median_difference_between_two_seeds_of_the_ablation() -> None:
    ablation = REPOSITORY / "hyper_parameter_tuning_charts" / "ablation_shapes" / "ablation.json"
    seeds: dict[tuple, list[float]] = {}
    for run in json.loads(ablation.read_text())["runs"]:
        seeds.setdefault((run["variant"], run["budget"]), []).append(run["AP"])
    pairs = [abs(a - b) for values in seeds.values() if mean(values) > 0.1 for a, b in combinations(values, 2)]
    assert len(pairs) > 40 and round(median(pairs), 2) == NOISE


def test_a_default_that_is_missing_best_or_cut_short_is_said_to_be() -> None:
    assert "No trial had the default's values" in said_of(a_trial(1, 0.4), a_trial(2, 0.1))
    assert "nothing better was found" in said_of(a_trial(0, 0.4), a_trial(2, 0.1))
    cut = a_trial(0, 0.2, "pruned") | {"reason": "ended at 50 % by the pruner"}
    assert "was not trained to its end (ended at 50 % by the pruner)" in said_of(cut, a_trial(1, 0.4), a_trial(2, 0.1))
    lost = a_trial(0, None, "failed") | {"reason": DIVERGED}
    assert f"was not trained to its end ({DIVERGED})" in said_of(lost, a_trial(1, 0.4), a_trial(2, 0.1))


def test_what_is_within_chance_of_the_best_is_named_and_where_all_is_nothing_else_is_said() -> None:
    some = said_of(a_trial(1, 0.4), a_trial(2, 0.39), a_trial(3, 0.1))
    assert "as good for all that one run each can tell: trial 2." in some
    alike = said_of(a_trial(1, 0.40), a_trial(2, 0.39, lr=1e-2), a_trial(3, 0.385, lr=1e-4))
    assert "no setting is better than another" in alike and "edge" not in alike


@pytest.mark.parametrize("others", [
    [], [a_trial(2, 0.1, "pruned")], [a_trial(2, 0.39), a_trial(3, 0.1, "pruned")],
    [a_trial(2, None, "failed") | {"reason": DIVERGED}], [a_trial(2, None, "failed") | {"reason": "no memory"}]])
def test_that_no_setting_is_better_takes_two_complete_trials_and_none_cut_short(others: list[dict]) -> None:
    text = said_of(a_trial(1, 0.4, lr=1e-2), *others)
    assert "no setting is better than another" not in text
    alone = not others or others[0]["reason"] == "no memory"
    assert ("There is no other to compare it with." in text) == alone and ("at the edge" in text) != alone


def test_a_direction_takes_eight_trials_that_agree() -> None:
    rising = [a_trial(k, k / 10, lr=1e-4 * 1.6 ** k) for k in range(8)]
    assert "lr: higher was better (rank correlation +1.00 over 8 trials)." in said_of(*rising)
    assert "lr: higher" not in said_of(*rising[1:])
    falling = [a_trial(k, 0.8 - k / 10, lr=1e-4 * 1.6 ** k) for k in range(8)]
    assert "lr: lower was better" in said_of(*falling)
    mixed = [a_trial(k, value, lr=1e-4 * 1.6 ** k) for k, value in enumerate((0.3, 0.1, 0.4, 0.2, 0.3, 0.1, 0.4, 0.2))]
    assert "was better (rank" not in said_of(*mixed)


def test_where_the_best_quarter_lies_is_said_if_it_lies_together() -> None:
    hill = [a_trial(k, 0.8 - abs(k - 4) / 10, lr=1e-4 * 1.6 ** k) for k in range(8)]  # best: k = 4, then 3 and 5
    assert f"lr: the best 3 have {1e-4 * 1.6 ** 3:.4g} to {1e-4 * 1.6 ** 5:.4g}." in said_of(*hill)
    apart = [a_trial(k, value, lr=1e-4 * 1.6 ** k) for k, value in enumerate((0.8, 0.1, 0.2, 0.1, 0.7, 0.2, 0.1, 0.9))]
    assert "lr: the best" not in said_of(*apart)


@pytest.mark.parametrize("lr, at_edge", [(9e-3, True), (1.1e-4, True), (1e-3, False)])
def test_a_best_value_in_the_outer_tenth_of_its_range_asks_for_a_wider_one(lr: float, at_edge: bool) -> None:
    assert ("lr: the best," in said_of(a_trial(0, 0.1), a_trial(1, 0.4, lr=lr))) == at_edge


def test_towards_trials_that_diverged_higher_is_not_better_and_nothing_is_to_be_widened() -> None:
    space = {"lr": {"kind": "log", "low": 1e-5, "high": 8e-3, "step": None}}
    rising = [a_trial(k, 0.1 + k / 20, lr=5e-4 * (k + 1)) for k in range(9)]  # up to 0.0045, in the outer tenth
    edge = "lr: the best, 0.0045, is at the edge of what was tried: widen it there."
    text = said_of(*rising, space=space)
    assert "lr: higher was better (rank correlation +1.00 over 9 trials)." in text and edge in text

    lost = [a_trial(9 + k, None, "failed", lr=5e-3 + k * 1e-3) | {"reason": DIVERGED} for k in range(4)]
    text = said_of(*rising, *lost, space=space)
    assert "lr: above the best, 0.0045, trials 9, 10, 11, 12 diverged (at 0.005 to 0.008)." in text
    assert "higher was better" not in text and edge not in text
    failed = lost[0] | {"reason": "no memory"}  # of which the ranks know nothing
    text = said_of(*rising, failed, space=space)
    assert "lr: above the best, 0.0045, trial 9 failed (at 0.005)." in text
    assert "over 9 trials" in text and edge not in text
    below = a_trial(9, None, "failed", lr=1e-4) | {"reason": DIVERGED}
    text = said_of(*rising, below, space=space)
    assert edge in text and "over 10 trials, 1 of which diverged" in text


def test_a_choice_that_diverged_counts_as_nothing() -> None:
    anchors = [a_trial(k, value) for k, value in enumerate((0.3, 0.5, 0.4))]
    lost = [a_trial(3 + k, None, "failed", queries="learned") | {"reason": DIVERGED} for k in range(3)]
    assert "queries: anchor was better than learned (median AP 0.400 over 3 trials, 0.000 over 3)." in said_of(
        *anchors, *lost)


def test_a_list_of_numbers_has_edges_too_and_one_of_words_has_none() -> None:
    space = {"batch_size": {"kind": "choice", "values": [8, 32, 16]},
             "queries": {"kind": "choice", "values": ["a", "b", "c"]}}
    best = a_trial(1, 0.4) | {"values": {"batch_size": 32, "queries": "c"}}
    other = a_trial(2, 0.1) | {"values": {"batch_size": 8, "queries": "a"}}
    text = said_of(best, other, space=space)
    assert "batch_size: the best, 32, is at the edge" in text and "queries: the best" not in text
    inside = best | {"values": {"batch_size": 16, "queries": "c"}}
    assert "at the edge" not in said_of(inside, other, space=space)


def test_a_choice_is_better_if_its_median_is_and_both_were_tried_three_times() -> None:
    anchors = [a_trial(k, value) for k, value in enumerate((0.3, 0.5, 0.4))]
    learned = [a_trial(k, value, queries="learned") for k, value in ((3, 0.1), (4, 0.45), (5, 0.2))]
    text = "queries: anchor was better than learned (median AP 0.400 over 3 trials, 0.200 over 3)."
    assert text in said_of(*anchors, *learned) and text not in said_of(*anchors, *learned[:2])


def test_the_time_that_the_pruner_saved_is_that_of_the_rest_of_the_runs() -> None:
    pruned = a_trial(2, 0.1, "pruned") | {"minutes": 3.0}  # at half of its budget: 3 minutes more
    text = said_of(a_trial(0, 0.2), a_trial(1, 0.4), pruned)
    assert "ended 1 of them, after 50 % of the budget on average: about 3 minutes" in text


def test_failures_are_told_once_for_each_reason() -> None:
    failed = [a_trial(k, None, "failed") | {"reason": reason}
              for k, reason in ((1, "no memory"), (2, "no memory"), (3, "odd"))]
    text = said_of(a_trial(0, 0.2), *failed)
    assert "Trials 1, 2 failed: no memory" in text and f"Trial 3 ({in_words(failed[2]['values'])}) failed: odd" in text


def test_importance_is_named_or_said_to_take_more_trials() -> None:
    assert "among the best: lr (75 %), queries (25 %)." in said_of(a_trial(0, 0.2), a_trial(1, 0.4),
                                                                 importance={"queries": 0.25, "lr": 0.75})
    assert "that takes 10 complete trials, and there are 2." in said_of(a_trial(0, 0.2), a_trial(1, 0.4))


SEEDS = {"seed": {"kind": "choice", "values": [1, 2, 3]}}


def of_seed(seed: int, value: float | None, state: str = "complete") -> dict:
    return a_trial(seed, value, state) | {"values": {"seed": seed}}


def test_over_seeds_alone_mean_least_and_most_are_said_and_no_best() -> None:
    trials = [of_seed(1, 0.40), of_seed(2, 0.37), of_seed(3, 0.43)]
    assert conclusions(results(*trials, space=SEEDS, minutes=3.0)) == [
        "3 trials in 3 minutes: 3 complete.", "AP over 3 seeds: mean 0.400 (0.370 to 0.430)."]
    two = said_of(*trials[:2], of_seed(3, None, "running"), space=SEEDS)
    assert "AP over 2 of 3 seeds: mean 0.385 (0.370 to 0.400)." in two
    text = report(results(*trials, space=SEEDS, minutes=3.0, **PAGE, defaults={"seed": 42}))
    assert "best configuration" not in text and "figure to set beside this one" in text


def test_a_seed_beside_other_fields_has_no_best_value() -> None:
    trials = [a_trial(k, value, seed=seed) for k, (value, seed) in enumerate(((0.1, 1), (0.2, 2), (0.4, 3)))]
    text = said_of(*trials, space={**results()["space"], **SEEDS})
    assert "seed:" not in text and "Best: trial 2" in text


PAGE = {"data": "shapes", "sampler": "tpe", "pruner": "none", "seed": 1, "jobs": 1, "flags": "--preset tiny"}


def test_the_page_says_how_to_set_the_best_beside_the_default_over_seeds() -> None:
    best = a_trial(1, 0.4) | {"command": "python detr_scratch.py train --preset tiny --lr 0.001"}
    page = dict(PAGE, minutes=1.0, defaults=best["values"])
    lines = report(results(a_trial(0, 0.2), best, **page)).splitlines()
    sweep = ("python detr_scratch.py sweep --out made-up_{} --sampler grid --pruner none --space seed=1,2,3 "
             "--metric AP {}")
    assert sweep.format("best", "--preset tiny --lr 0.001") in lines
    assert sweep.format("default", "--preset tiny") in lines
    alone = report(results(best | {"is_default": True}, a_trial(2, 0.1), **page))
    assert "made-up_default" in alone and "made-up_best" not in alone


def test_the_page_has_the_command_the_table_by_rank_and_the_charts() -> None:
    trials = (a_trial(0, 0.2), a_trial(1, 0.4, lr=0.00123456) | {"command": "python detr_scratch.py train --lr 0.001"},
              a_trial(2, None, "failed") | {"reason": "a | b"})
    text = report(results(*trials, minutes=1.0, defaults=trials[0]["values"], **PAGE))
    lines = text.splitlines()
    assert lines[lines.index("```") + 1] == "python detr_scratch.py train --lr 0.001"
    start = lines.index("| trial | AP | AP50 | AP75 | steps | minutes | lr | num_queries | queries |  |")
    assert lines[start + 2:start + 5] == [
        "| 1 | 0.400 | 0.400 | 0.400 | 10 | 1.0 | 0.001235 | 60 | anchor |  |",
        "| 0 | 0.200 | 0.200 | 0.200 | 10 | 1.0 | 0.001 | 60 | anchor | default |",
        "| 2 | – | – | – | 10 | 1.0 | 0.001 | 60 | anchor | a \\| b |"]
    assert all(f"({name}.png)" in text for name in ("learning_curves", "parallel_coordinates", "slices", "importance"))
    assert "- lr: 0.0001 to 0.01 (every factor of ten equally likely); default 0.001" in lines
