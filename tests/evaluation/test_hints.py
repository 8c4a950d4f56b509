"""A detector that finds nothing: on data, or after a training, spoilt in one way, the hint names that way."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, Optional

import pytest

from scratch.evaluation.health import FINDS_SOMETHING, LEAST_RESPONSE, LEAST_SPREAD, follows_pictures
from scratch.evaluation.hints import USUAL, USUAL_OF_LEARNT_QUERIES, Hint, Trained, why_nothing_is_found
from tests.evaluation.test_disagreement import WRITTEN, clipped, detected, renamed, rewritten, split
from tests.training.test_loop import make_run, small_config

FALLING, FLAT, RISING = ((20.0,) * 10, (15.0,) * 10), ((20.0,) * 10, (19.8,) * 10), ((20.0,) * 10, (24.0,) * 10)
# Half of a training that should have shown something: many pictures, a falling loss, all classes learnt.
DONE = Trained(progress=0.5, step=2000, shown=32_000, warmup=50, peaks=(1e-3, 1e-4), first=FALLING[0],
               latest=FALLING[1], other_loss=16.0, objects={1: 50, 2: 40, 3: 30}, learnt_queries=False,
               names={1: "cat", 2: "dog", 3: "owl"}, data="my data", directory="runs/my run")


def hint_for(truth: Any = None, results: Any = (), witness: bool = True, **changes: Any) -> Optional[Hint]:
    return why_nothing_is_found(truth or split(), list(results), 0.0, replace(DONE, **changes), witness)


# -- the data ------------------------------------------------------------------------------------------------------


def test_labels_off_by_one_in_the_judged_split_are_named_with_the_classes():
    truth = renamed(split(), {1: 2, 2: 3, 3: 4})
    hint = hint_for(truth, detected(split()), progress=0.1, objects={1: 50, 2: 40, 3: 30, 4: 9},
                    names=DONE.names | {4: "yak"})
    assert hint.name == "class ids" and "here each by -1" in hint.text
    assert "100% of the objects are found" in hint.text
    for words in ("'dog' is called 'cat'", "'owl' is called 'dog'", "'yak' is called 'owl'"):
        assert words in hint.text


@pytest.mark.parametrize("form, words", [
    ("corners", "written as x0 y0 x1 y1"), ("centres", "written as the centre"), ("shares", "shares of the picture"),
    ("rows first", "of one of the two splits were written as y x height width")])
def test_boxes_of_the_judged_split_in_another_form_are_named(form: str, words: str):
    truth = rewritten(split(), lambda b, s: clipped(WRITTEN[form](b, s), s))
    hint = hint_for(truth, detected(split()), progress=0.1)
    assert hint.name == "boxes in another form" and words in hint.text
    assert form == "rows first" or "boxes of this split" in hint.text


def test_boxes_of_the_train_split_as_corners_are_named_by_what_was_learnt():
    learnt = rewritten(split(), lambda b, s: clipped(WRITTEN["corners"](b, s), s))
    hint = hint_for(split(), detected(learnt), progress=0.1)
    assert hint.name == "boxes in another form" and "of the train split were written as x0 y0 x1 y1" in hint.text


def test_boxes_that_do_not_follow_the_pictures_are_no_witness():
    truth = renamed(split(), {1: 2, 2: 3, 3: 1})
    assert hint_for(truth, detected(split()), witness=False, progress=0.1) is None
    healthy = {"box_spread": LEAST_SPREAD, "box_response": LEAST_RESPONSE}
    assert follows_pictures(healthy) and follows_pictures(dict.fromkeys(healthy))
    assert not follows_pictures(healthy | {"box_spread": LEAST_SPREAD / 2})
    assert not follows_pictures(healthy | {"box_response": LEAST_RESPONSE / 2})


def test_a_split_of_classes_that_were_never_learnt_is_named():
    hint = hint_for(progress=0.1, objects={1: 50})
    assert hint.name == "other classes" and "('dog', 'owl')" in hint.text
    assert re.search(r"(\d+) of its 32 objects", hint.text)[1] == "16"
    assert hint_for(progress=0.1, objects={1: 50, 2: 9}) is None  # a quarter of the objects is no reason for nothing


# -- the training --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, changes", [
    ("learning rate 0", dict(peaks=(0.0, 0.0))),
    ("learning rate too high", dict(first=RISING[0], latest=RISING[1])),
    ("nothing is learnt", dict(first=FLAT[0], latest=FLAT[1])),
    ("too few steps", dict(step=12, shown=96)),
    ("too few steps", dict(step=30, shown=480, first=FLAT[0], latest=FLAT[1])),  # too early to call a loss flat
    ("too few steps", dict(step=400, warmup=1000)),
    ("too few steps", dict(learnt_queries=True)),
    ("the splits differ", dict(latest=(8.0,) * 10, other_loss=17.0)),
    ("unclear", {}), ("unclear", dict(first=(), latest=())), ("unclear", dict(other_loss=None)),
])
def test_a_training_that_cannot_have_found_anything_is_told_by_its_figures(name: str, changes: dict):
    assert hint_for(**changes).name == name
    assert hint_for(**changes, progress=0.49) is None  # not before half of the run


@pytest.mark.parametrize("changes, words", [
    (dict(step=12, shown=96, warmup=0),
     f"96 pictures were shown in 12 steps. A detector like this one needs about {USUAL:,}"),
    (dict(step=60, shown=960), "the training loss falls, from 20 to 15"),
    (dict(step=400, warmup=1000), "in the warm-up of 1,000 (--warmup-steps)"),
    (dict(learnt_queries=True), f"with learnt queries needs about {USUAL_OF_LEARNT_QUERIES:,}"),
    (dict(first=RISING[0], latest=RISING[1]), "rises, from 20 in the first steps to 24"),
    (dict(first=FLAT[0], latest=FLAT[1]), "flat: 20 in the first steps, 19.8 in the latest of 2,000"),
    (dict(first=FLAT[0], latest=FLAT[1]), "too low (0.001, 0.0001)"),
    (dict(latest=(8.0,) * 10, other_loss=17.0), "fell from 20 to 8, but on this split it is 17"),
])
def test_the_evidence_is_in_the_words(changes: dict, words: str):
    assert words in hint_for(**changes).text and hint_for(**changes).text.startswith("why nothing is found: ")


def test_where_nothing_is_certain_the_commands_can_be_typed_again():
    text = hint_for().text
    commands = [shlex.split(words) for words in re.search(r"then run (.*)", text)[1].split(" and ")]
    assert commands == [["python", "detr_scratch.py", "check-data", "my data"],
                        ["python", "detr_scratch.py", "analyze", "runs/my run"]]
    assert str(Path("runs/my run") / "pictures" / "augmented.png") in text


def test_a_detector_that_finds_something_and_a_split_without_objects_need_no_hint():
    spoilt = renamed(split(), {1: 2, 2: 3, 3: 1}), detected(split())
    assert why_nothing_is_found(*spoilt, FINDS_SOMETHING, DONE) is None
    assert why_nothing_is_found(*spoilt, None, DONE) is None
    assert why_nothing_is_found(*spoilt, 0.049, DONE).name == "class ids"


def test_a_name_from_a_file_cannot_act_on_the_terminal():
    hint = hint_for(objects={}, names={1: "\x1b[2J" + "a" * 500, 2: "dog\n", 3: "owl"})
    assert hint.text.isprintable() and len(hint.text) < 500


def test_what_a_run_has_done_is_read_from_it(tmp_path: Path):
    config = small_config(batch_size=4, accumulate=2, lr=0.5, lr_backbone=0.25, max_steps=10)
    config = replace(config, train=replace(config.train, warmup_steps=7))
    run = make_run(config, tmp_path)
    run.batches_per_epoch = 100
    for loss in (3.0, 2.0, 1.0):
        run.advance(2, loss)
    trained = Trained.of(run, Counter({0: 5, 2: 1}), 2.5)
    assert (trained.progress, trained.step, trained.shown, trained.warmup) == (0.3, 3, 24, 7)
    assert set(trained.peaks) == {0.5, 0.25} and trained.first == trained.latest == (3.0, 2.0, 1.0)
    assert trained.objects == {1: 5, 3: 1} and trained.names == {1: "cat", 2: "dog", 3: "owl"}
    assert trained.learnt_queries and trained.other_loss == 2.5 and trained.directory == str(tmp_path)
    shorter = replace(config, train=replace(config.train, warmup_share=0.05))
    assert Trained.of(make_run(shorter, tmp_path), {}, None).warmup == 0  # it depends on the length of the run
