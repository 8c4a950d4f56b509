"""The estimate of the end: by steps or by the clock, whichever comes first, worked by hand; and its words."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from scratch.training.ending import FIRST, Ending, Place, ending, left, words
from scratch.training.log import RunLog
from scratch.training.watch import Watch
from tests.training.test_loop import make_run, random_batch, small_config
from tests.training.test_log import RECORD


@pytest.mark.parametrize("steps, max_minutes, minutes, step, sure", [
    (130, None, 10.0, 130, True),     # 20 steps in 2 minutes, 100 to go
    (130, 60.0, 10.0, 130, True),     # the clock would allow more
    (130, 10.0, 7.0, 100, False),     # 7 minutes are left to it, in which 70 steps are taken
    (30, None, 0.0, 30, True), (20, None, 0.0, 20, True), (130, 2.0, 0.0, 30, False)])
def test_the_end_worked_by_hand(steps, max_minutes, minutes, step, sure):
    end = ending(Place(10, 1.0), Place(30, 3.0), steps, max_minutes)
    assert end == (pytest.approx(minutes), step, sure)


@pytest.mark.parametrize("now", [Place(10, 1.0), Place(10, 2.0), Place(11, 1.0)])
def test_without_a_step_or_without_time_nothing_was_measured(now):
    assert ending(Place(10, 1.0), now, 100, 5.0) is None


@pytest.mark.parametrize("minutes, said", [
    (0.2, "less than a minute left"), (0.9, "about 1 minute left"), (21.4, "about 21 minutes left"),
    (150.0, "about 2 hours left"), (3000.0, "about 2 days left")])
def test_time_is_said_as_a_person_would(minutes, said):
    assert left(minutes) == said


@pytest.mark.parametrize("end, more, said", [
    (Ending(21.0, 1684, False), {}, "about 21 minutes left; it ends at about step 1,700"),
    (Ending(21.0, 1684, True), {}, "about 21 minutes left; it ends at step 1,684"),
    (Ending(2.0, 37, False), {"patience": 3},
     "about 2 minutes left; it ends at about step 37, or earlier by --patience 3"),
    (Ending(2.0, 37, True), {"evaluated": False}, "about 2 minutes left, evaluations not counted; it ends at step 37")])
def test_the_end_in_words(end, more, said):
    assert words(end, **more) == said


def test_a_run_says_once_after_its_first_steps_when_it_will_end_and_again_after_a_resume(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("scratch.training.run.time", SimpleNamespace(perf_counter=lambda: 0.0))
    record = {name: value for name, value in RECORD.items() if name.startswith("loss")}
    for begin in (0, 40):  # a process each
        run = make_run(small_config(max_steps=100), tmp_path)
        run.batches_per_epoch, run.step = 1000, begin
        log = RunLog(tmp_path, begin)
        watch = Watch(run, log, False)
        for step in range(begin + 1, begin + 20):
            run.step, run.minutes = step, 2.0 * step
            watch.record(record, [random_batch(1)])
        log.close()
        to_go = 2 * (100 - begin - 1 - FIRST)
        assert capsys.readouterr().out.splitlines() == [
            f"{left(to_go)}, evaluations not counted; it ends at step 100"]
