"""Each sentence is there on one side of its bound and not on the other; none is made of a figure that is missing."""

from __future__ import annotations

from copy import deepcopy
from types import SimpleNamespace
from typing import Any, Optional

import pytest

from commands.analyze import judged
from scratch import recipe
from scratch.analysis import findings as findings_module
from scratch.analysis.error_charts import MOST_CLASSES
from scratch.analysis.findings import KINDS, compared, findings
from scratch.config import PRESETS
from scratch.data.classes import Classes
from tests.evaluation.test_error_analysis import SAID, THERE
from tests.evaluation.test_matching import split_of

CLASSES = Classes((3, 7), ("ant", "bee"))


def analysed(name: str = "a run", there: dict = THERE, said: dict = SAID, preset: str = "tiny",
             classes: Classes = CLASSES) -> dict[str, Any]:
    """A run as `commands.analyze.examine` gives it, made of detections and not of a detector; it has no log."""
    truth, results = split_of(there, said, classes.ids)
    truth["categories"] = [{"id": i, "name": n} for i, n in zip(classes.ids, classes.names)]
    for i, annotation in enumerate(truth["annotations"], 1):
        annotation |= {"id": i, "area": annotation["bbox"][2] * annotation["bbox"][3]}
    parts = [{"part": "backbone", "parameters": 3, "bytes": 12, "flops": 3 * 10**9},
             {"part": "heads", "parameters": 1, "bytes": 4, "flops": 10**9}]
    return {"name": name, "split": "val", "data": "insects", "source": "made up", "image_size": [48, 64],
            "parts": parts, "log": None,
            "checkpoint": {"file": "best.pt", "bytes": 2 * 10**6, "preset": preset, "changed": [],
                           "config": PRESETS[preset].to_dict(), "step": 40, "epoch": 2, "minutes": 1.5,
                           "classes": list(classes.names)},
            **judged(truth, results, SimpleNamespace(classes=classes))}


def quiet() -> dict[str, Any]:
    """A run of which only the first sentence has anything to say: no mistake, one class that counts, fair scores."""
    there = {i: [(3, (0, 0, 10, 10))] for i in range(10)}
    return analysed(there=there, said={i: [(3, (0, 0, 10, 10), 0.99)] for i in range(10)})


def sentence(run: dict[str, Any], word: str) -> Optional[str]:
    """The only sentence that has the word in it, or None."""
    found = [text for text in findings(run) if word in text]
    assert len(found) < 2
    return found[0] if found else None


# -- one run -----------------------------------------------------------------------------------------------------------


def test_a_run_without_mistakes_is_described_in_two_sentences() -> None:
    assert findings(quiet()) == [
        "AP 1.000, AP50 1.000, AP75 1.000 on the val split: 10 images with 10 objects of 2 classes.",
        "No kind of mistake costs 0.005 of AP50 or more: fixing one alone would gain next to nothing."]


def test_where_there_are_no_objects_that_is_all_that_is_said() -> None:
    assert findings(analysed(there={}, said=SAID)) == [
        "There is no object in the 6 images of the val split, so there is no AP."]


def test_what_costs_most_is_named_with_its_cost_and_what_to_try() -> None:
    text = sentence(analysed(), "What costs most")
    # Of the hand-worked costs Miss is the largest, 1314/8484, and Cls the second, 1100/8484; AP50 is 323/1414.
    assert text.startswith("**What costs most: Miss**, objects without any detection. Of the 0.772 that AP50 "
                           "lacks, fixing them alone gains 0.155, then Cls (right boxes with the wrong class) 0.130. "
                           "To try: ")


def test_advice_that_the_run_follows_already_is_left_out() -> None:
    run = analysed()
    run["errors"]["cost"] |= {"Loc": 0.9}
    text = sentence(run, "What costs most")
    assert "--fine-memory" not in text and "--short-side" in text
    run["checkpoint"]["config"]["model"]["fine_memory"] = False
    assert "--fine-memory" in sentence(run, "What costs most")
    run["checkpoint"]["config"]["model"]["queries"] = "learned"  # for which there is no finer memory
    assert "--fine-memory" not in sentence(run, "What costs most")


def test_a_second_kind_is_named_only_if_it_costs_something() -> None:
    run = analysed()
    run["errors"]["cost"] = dict.fromkeys(run["errors"]["cost"], 0.004) | {"Dupe": 0.005}
    assert ", then" not in sentence(run, "What costs most: Dupe")


@pytest.mark.parametrize("false, missed, words", [
    (0.03, 0.02, "False detections cost more than objects not found (0.030 against 0.020"),
    (0.02, 0.03, "Objects not found cost more than false detections (0.030 against 0.020"),
    (0.020, 0.024, None), (0.004, 0.0, None), (None, None, None)])
def test_false_detections_are_weighed_against_objects_not_found(
    false: Optional[float], missed: Optional[float], words: Optional[str],
) -> None:
    run = analysed()
    run["errors"]["cost"] = {} if false is None else run["errors"]["cost"] | {"FP": false, "FN": missed}
    text = sentence(run, "cost more than")
    assert text is None if words is None else text.startswith(words)


@pytest.mark.parametrize("objects, ap50, said", [
    (10, 0.5, True), (9, 0.5, False), (10, 0.81, False), (10, None, False)])
def test_the_worst_class_is_named_if_it_has_objects_and_is_worse(
    objects: int, ap50: Optional[float], said: bool,
) -> None:
    run, nothing = analysed(), dict.fromkeys(KINDS, 0.0)
    run["classes"] = [{"name": "ant", "objects": 10, "AP50": 0.9, "cost": nothing},
                      {"name": "bee", "objects": objects, "AP50": ap50, "cost": nothing | {"Loc": 0.25}}]
    text = sentence(run, "worst class")
    assert text == ("**The worst class is bee**: AP50 0.500, where the mean of the classes with at least 10 objects is "
                    "0.700; most of it is Loc, right classes in boxes that fit poorly (0.250)." if said else None)


@pytest.mark.parametrize("small, large, objects, said", [
    (0.2, 0.31, 10, True), (0.2, 0.29, 10, False), (0.2, 0.31, 9, False), (None, 0.31, 10, False)])
def test_a_size_is_named_if_it_is_worse_and_common(
    small: Optional[float], large: float, objects: int, said: bool,
) -> None:
    run = analysed()
    run["sizes"] = [{"name": "small", "objects": objects, "AP": small}, {"name": "large", "objects": 500, "AP": large}]
    assert (sentence(run, "small objects are found worst") is not None) == said


@pytest.mark.parametrize("at75, said", [(0.2, True), (0.21, False), (None, False)])
def test_loose_boxes_are_named(at75: Optional[float], said: bool) -> None:
    run = analysed()
    run["figures"] |= {"AP50": 0.5, "AP75": at75}
    assert (sentence(run, "Boxes are loose") is not None) == said


@pytest.mark.parametrize("count, right, said", [(3, 57, True), (2, 10, False), (3, 58, False)])
def test_a_confusion_is_named_if_it_is_no_accident(count: int, right: int, said: bool) -> None:
    run = analysed()
    run["confusion"] = {"names": ["ant", "bee", "nothing"],
                        "matrix": [[right, count, 0], [0, 9, 0], [99, 99, 0]]}
    text = sentence(run, "confusion")
    assert (text is not None) == said
    if said:
        assert f"of {right + count} objects of the class ant, 3 were taken for bee" in text


def test_more_objects_than_queries_are_named() -> None:
    run = analysed()
    assert sentence(run, "--num-queries") is None
    run["most_objects"] = 41
    assert "An image holds 41 objects, and the detector has 40 queries" in sentence(run, "--num-queries")


@pytest.mark.parametrize("preset, most, said", [("tiny", 14, 50), ("tiny", 13, None), ("tiny", 40, 120), ("detr_141m", 99, None),
                                                 ("many", 150, 300), ("most", 150, None)])
def test_few_proposals_for_full_images_are_named(preset: str, most: int, said: Optional[int]) -> None:
    assert (findings_module.SPARE, findings_module.MOST_QUERIES) == (recipe.SPARE, recipe.MOST_QUERIES)
    run = analysed(preset=preset if preset in PRESETS else "tiny")
    model = run["checkpoint"]["config"]["model"]
    model["num_queries"] = {"many": 200, "most": 300}.get(preset, model["num_queries"])
    run["checkpoint"]["config"]["data"]["short_side"] = 320  # 400 cells of 16 pixels
    run["most_objects"] = most
    text = sentence(run, "--num-queries")
    assert (text is not None) == (said is not None)
    if said is not None:
        assert f"An image holds {most} objects, and {model['num_queries']} queries are few for them" in text
        assert f"`eval RUN --num-queries {said}`" in text


def test_the_cells_that_propose_objects_bound_what_is_found_and_advised() -> None:
    run = analysed(preset="tiny")
    config = run["checkpoint"]["config"]
    config["data"]["short_side"], config["model"]["num_queries"] = 96, 30
    run["most_objects"] = 20
    assert "`eval RUN --num-queries 36`" in sentence(run, "--num-queries")  # of 60 that it would take otherwise
    config["model"]["num_queries"] = 40
    run["most_objects"] = 36
    assert sentence(run, "--num-queries") is None and sentence(run, "propose one") is None
    run["most_objects"] = 37
    assert "An image holds 37 objects, and the encoder has 36 cells at 96 pixels" in sentence(run, "propose one")
    run["most_objects"] = 41  # more queries would not help
    assert "An image holds 41 objects, and the encoder has 36 cells at 96 pixels" in sentence(run, "propose one")
    config["data"]["square"] = False  # pictures have more cells than a square then
    assert "An image holds 41 objects, and the detector has 40 queries" in sentence(run, "--num-queries")


@pytest.mark.parametrize("gap, words", [(0.1, "surer than right, by 0.10"), (-0.25, "more right than sure, by 0.25"),
                                        (0.09, None), (None, None)])
def test_scores_that_are_far_from_the_truth_are_named(gap: Optional[float], words: Optional[str]) -> None:
    run = analysed()
    run["calibration"]["shown"] = {"n": 12, "ECE": gap, "gap": gap}
    text = sentence(run, "Scores are no probabilities")
    assert text is None if words is None else words in text
    if gap == -0.25:
        assert "as `--quality` wants it" in text
        run["checkpoint"]["config"]["loss"]["quality"] = 0.0
        assert "--quality" not in sentence(run, "Scores are no probabilities")


@pytest.mark.parametrize("earlier, best, last, words", [
    (0.47, 0.5, 0.5, "AP was still rising, from 0.470 at step 60 to 0.500 at step 80"), (0.485, 0.5, 0.5, None),
    (None, 0.5, 0.5, None), (0.4, 0.5, 0.47, "still rising"), (None, None, None, None), (0.5, 0.5, 0.485, None),
    (0.5, 0.5, 0.47, "(AP 0.500 at step 70) the run fell to 0.470")])
def test_the_end_of_the_curve_is_described(
    earlier: Optional[float], best: Optional[float], last: Optional[float], words: Optional[str],
) -> None:
    run = quiet()
    run["log"] = {"earlier": {"AP": earlier, "step": 60}, "best": {"AP": best, "step": 70},
                  "last": {"AP": last, "step": 80}}
    texts = findings(run)[2:]
    assert texts == [] if words is None else len(texts) == 1 and words in texts[0]


def test_a_run_that_was_never_judged_or_only_late_has_no_curve_to_speak_of() -> None:
    run = quiet()
    for log in (dict.fromkeys(("earlier", "best", "last")),
                {"earlier": None, "best": {"AP": 0.5, "step": 80}, "last": {"AP": 0.5, "step": 80}}):
        assert len(findings(run | {"log": log})) == 2


def test_what_the_run_was_warned_of_is_said_with_the_first_step() -> None:
    run, log = quiet(), dict.fromkeys(("earlier", "best", "last"))
    assert sentence(run | {"log": log | {"warned": {}}}, "Warnings") is None
    log["warned"] = {"loss spike": [1300, 1400, 1500], "out of memory": [0]}
    text = sentence(run | {"log": log}, "Warnings")
    assert text.startswith("**Warnings during the run**: loss spike (3 times, first at step 1,300), out of memory (at "
                           "step 0). ")


def test_of_many_classes_every_one_can_be_the_worst_or_confused() -> None:
    classes = Classes(tuple(range(1, 31)), tuple(f"class {i}" for i in range(1, 31)))
    boxes = [(0, 20 * k, 10, 10) for k in range(30)]
    # Of 30 boxes of each class the first 29 miss 15; of class 30 there are 10, of which 1 is found and 9 are called 1.
    there = {i: [(i, box) for box in boxes[:30 if i < 30 else 10]] for i in classes.ids}
    said = {i: [(i, box, 0.9) for box in boxes[:15 if i < 30 else 1]] for i in classes.ids}
    said[30] += [(1, box, 0.9) for box in boxes[1:10]]
    run = analysed(there=there, said=said, classes=classes)
    assert [c["name"] for c in run["classes"]].index("class 30") >= MOST_CLASSES
    assert "The worst class is class 30" in sentence(run, "worst class")
    assert "of 10 objects of the class class 30, 9 were taken for class 1" in sentence(run, "confusion")


# -- several -----------------------------------------------------------------------------------------------------------


def test_one_run_is_compared_with_nothing() -> None:
    assert compared([analysed()]) == []


@pytest.mark.parametrize("field, value", [("data", "birds"), ("split", "test"), ("images", 9), ("objects", 9)])
def test_runs_on_different_images_are_not_compared(field: str, value: Any) -> None:
    [text] = compared([analysed(), analysed() | {field: value}])
    assert "different images" in text


@pytest.mark.parametrize("ap, words", [(0.53, "**b is the best**, with an AP of 0.530; a follows with 0.500"),
                                       (0.519, "b and a are as good as each other")])
def test_the_best_run_is_named_where_it_is_more_than_chance(ap: float, words: str) -> None:
    a, b = analysed("a"), analysed("b")
    a["figures"]["AP"], b["figures"]["AP"] = 0.5, ap
    [text] = compared([a, b])
    assert text.startswith(words)


def test_what_the_better_run_does_better_is_named_unless_its_ap50_is_worse() -> None:
    a, b = analysed("a"), deepcopy(analysed("b"))
    a["figures"] |= {"AP": 0.5, "AP50": 0.7}
    b["figures"] |= {"AP": 0.6, "AP50": 0.8}
    b["errors"]["cost"]["Cls"] = 0.1
    [text] = compared([a, b])
    assert "It loses less to Cls, right boxes with the wrong class: 0.100 instead of 0.130 of AP50" in text
    b["figures"]["AP50"] = 0.69
    assert "loses less" not in compared([a, b])[0]
