"""hints: a detector finds nothing: what is the cause?

    evidence                                                         cause
    objects are of classes that have no box in the train split       other classes          ┐
    objects are found, each class under another one's name           class ids              ├ certain: said at once
    objects are found with the boxes rewritten (disagreement.py)     boxes in another form  ┘
    the learning rates are 0                                         learning rate 0        ┐
    the training loss rises                                          learning rate too high │ after half of the run,
    the training loss is flat                                        nothing is learnt      ├ when a detector that
    the training loss fell by half, the other split's is twice it    the splits differ      │ learns would show it
    few pictures were shown, or the warm-up is not over              too few steps          │
    none of these                                                    a list of what to look │
                                                                     at, with the commands  ┘

"Nothing" is an AP50 below FINDS_SOMETHING (health.py). One cause is named, the first that fits. Each is tested on data,
or on a training, that was spoilt that way: tests/evaluation/test_hints.py. Read: Trained → why_nothing_is_found
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Mapping, NamedTuple, Optional, Sequence

from scratch.evaluation.disagreement import Seen, called, forms_that_fit, objects_found, other_names, seen_in
from scratch.evaluation.health import FINDS_SOMETHING
from scratch.evaluation.matching import Results, Truth
from scratch.printable import abridged, command, printable

STRANGE = 0.5                  # of the objects are of classes without a box in the train split
RISES, FLAT, HALF = 1.1, 0.05, 0.5  # the latest training losses over the first; means of ten differ by hundredths
SETTLED = 500                  # pictures shown before a loss may be called flat
# Pictures after which detectors have been seen to find something: anchors on shapes, cells and raccoons after 1,600 to
# 4,000; learnt queries from nothing on 2,000 shapes not after 64,000 (docs/results.md).
USUAL, USUAL_OF_LEARNT_QUERIES = 5_000, 100_000


@dataclass(frozen=True)
class Trained:
    """What the training was until now.

    progress     the share of the run that is done
    step, shown  optimizer steps, and pictures shown in them
    warmup       steps of the warm-up
    peaks        the peak learning rates
    first, latest  the training losses of the first steps and of the latest, of as many
    other_loss   that of the split that is judged
    objects      category id → boxes in the train split
    learnt_queries   the queries are learnt vectors, which learn slowly, and not anchors
    names        category id → the name of the class
    data, directory   the data's folder, and the run's
    """

    progress: float
    step: int
    shown: int
    warmup: int
    peaks: Sequence[float]
    first: Sequence[float]
    latest: Sequence[float]
    other_loss: Optional[float]
    objects: Mapping[int, int]
    learnt_queries: bool
    names: Mapping[int, str]
    data: str = "DIR"
    directory: str = "RUN"

    @staticmethod
    def of(run: Any, labels: Mapping[int, int], other_loss: Optional[float]) -> "Trained":
        """Of a training run (training/run.py), by the number of boxes of each label in its train split."""
        config, course, ids = run.config, run.course, run.classes["ids"]
        train, data = config.train, config.data
        return Trained(
            run.progress(), run.step, run.step * train.batch_size * train.accumulate * run.distributed.world_size,
            train.warmup_steps if train.warmup_share == 1 else 0,
            list(dict.fromkeys(group["initial_lr"] for group in run.optimizer.param_groups)), course.first,
            course.latest, other_loss, {ids[k]: count for k, count in labels.items()},
            config.model.queries == "learned", dict(zip(ids, run.classes["names"])),
            "DIR" if data.train_annotations else data.data, str(run.directory))


class Hint(NamedTuple):
    """The name of a cause, and the evidence, what it means and what to do."""

    name: str
    text: str


def why_nothing_is_found(truth: Truth, results: Results, ap50: Optional[float], trained: Trained,
                         witness: bool = True) -> Optional[Hint]:
    """The likely cause of an AP50 of (nearly) 0; None where something is found, or where it is too early to tell.

    witness   the boxes follow the pictures (health.follows_pictures): what fits them means something
    """
    if ap50 is None or ap50 >= FINDS_SOMETHING:
        return None
    hint = _likely_cause(truth, results, trained, witness)
    return hint and Hint(hint.name, f"why nothing is found: {hint.text}")


def _likely_cause(truth: Truth, results: Results, trained: Trained, witness: bool) -> Optional[Hint]:
    if hint := _other_classes(truth, trained):
        return hint
    seen = seen_in(truth, results)
    if witness and (hint := _class_ids(seen, trained) or _other_form(seen)):
        return hint
    if trained.progress < 0.5:
        return None
    return _of_the_training(trained) or _unclear(trained)


def _other_classes(truth: Truth, trained: Trained) -> Optional[Hint]:
    objects = [a["category_id"] for a in truth["annotations"] if not a.get("iscrowd")]
    strange = [category for category in objects if not trained.objects.get(category)]
    if not objects or len(strange) < STRANGE * len(objects):
        return None
    names = list(dict.fromkeys(_name(category, trained) for category in strange))
    return Hint("other classes", f"{len(strange):,} of its {len(objects):,} objects are of classes without a box in "
                f"the train split ({_few(names)}), so nothing could be learnt of them: split the data so that each "
                "class is in both splits, or name the classes to learn with --classes")


def _class_ids(seen: list[Seen], trained: Trained) -> Optional[Hint]:
    names = called(seen)
    wrong = other_names(names)
    if not wrong:
        return None
    said = [f"{_name(true, trained)} is called {_name(name, trained)} ({names[true][name]} of "
            f"{sum(names[true].values())})" for true, name in wrong.items()]
    shifts = {name - true for true, name in wrong.items()}
    shift = f", here each by {shifts.pop():+d}" if len(shifts) == 1 else ""
    return Hint("class ids", f"{objects_found(seen):.0%} of the objects are found (IoU 0.5) if classes are ignored, "
                f"but under other names: {_few(said, 3)}. The category ids of the two splits do not mean the same "
                f"classes{shift}: does one tool count from 0 and the other from 1? Compare \"categories\" and "
                "\"category_id\" of both files")


def _other_form(seen: list[Seen]) -> Optional[Hint]:
    fit = forms_that_fit(seen)
    if fit is None:
        return None
    form, split, share, as_it_is = fit
    written, mend = {
        "corners": ("x0 y0 x1 y1 (corners)", "subtract x0 from x1 and y0 from y1"),
        "centres": ("the centre, width and height", "subtract half the width and half the height"),
        "shares": ("shares of the picture, 0 to 1", "multiply by its width and height"),
        "rows first": ("y x height width", "swap them in the split where it is so")}[form]
    where = "of this split" if split == "judged" else "of the train split"
    where = "of one of the two splits" if form == "rows first" else where
    return Hint("boxes in another form", f"{share:.0%} of the objects are found (IoU 0.5, classes ignored) if the "
                f"boxes {where} were written as {written}, and {as_it_is:.0%} as x y width height: {mend}")


def _of_the_training(trained: Trained) -> Optional[Hint]:
    if trained.peaks and max(trained.peaks) == 0:
        return Hint("learning rate 0", "all learning rates are 0, so no weight ever changed: set --lr and "
                    "--lr-backbone (and --lr-matrices with Muon)")
    known = bool(trained.first and trained.latest) and trained.step >= 2 * len(trained.first)
    first, latest = (sum(losses) / max(1, len(losses)) for losses in (trained.first, trained.latest))
    if known and latest > RISES * first:
        return Hint("learning rate too high", f"the training loss rises, from {first:.3g} in the first steps to "
                    f"{latest:.3g} in the latest: begin again with a tenth of --lr, --lr-backbone and --lr-matrices "
                    "(python detr_scratch.py lr-range draws how high they may be)")
    settled = trained.shown >= SETTLED and trained.step > max(trained.warmup, 2 * len(trained.first))
    if known and settled and abs(latest / first - 1) < FLAT:
        rates = _few([f"{peak:g}" for peak in trained.peaks])
        return Hint("nothing is learnt", f"the training loss is flat: {first:.3g} in the first steps, {latest:.3g} in "
                    f"the latest of {trained.step:,}. The learning rates are too low ({rates})"
                    ", or far too high (python detr_scratch.py lr-range shows which), or the weights are frozen "
                    "(--train-backbone), or the gradient is cut to nearly nothing (--clip-max-norm)")
    usual = USUAL_OF_LEARNT_QUERIES if trained.learnt_queries else USUAL
    if known and trained.other_loss and latest < HALF * first and trained.other_loss > 2 * latest:
        return Hint("the splits differ", f"the training loss fell from {first:.3g} to {latest:.3g}, but on this split "
                    f"it is {trained.other_loss:.3g}: are its boxes those of its pictures, and its pictures like those "
                    "of the train split? Compare the sheet of training pictures with that of this evaluation")
    if trained.step < trained.warmup or trained.shown < usual:
        warming = f", in the warm-up of {trained.warmup:,} (--warmup-steps)" * (trained.step < trained.warmup)
        falls = f"; the training loss falls, from {first:.3g} to {latest:.3g}" * (known and latest < first)
        kind = "with learnt queries" if trained.learnt_queries else "like this one"
        return Hint("too few steps", f"{trained.shown:,} pictures were shown in {trained.step:,} steps{warming}{falls}"
                    f". A detector {kind} needs about {usual:,} if it begins from nothing: a larger --max-minutes, "
                    "--max-steps or --epochs, or trained weights to begin with (python detr_scratch.py finetune)")
    return None


def _unclear(trained: Trained) -> Hint:
    pictures = os.path.join(trained.directory, "pictures")
    return Hint("unclear", f"the figures do not tell. Look at {printable(os.path.join(pictures, 'augmented.png'))} "
                "(are the boxes on the objects, under the right names?), at the newest sheet beside it (which boxes "
                "are predicted?), then run "
                + command("python", "detr_scratch.py", "check-data", trained.data) + " and "
                + command("python", "detr_scratch.py", "analyze", trained.directory))


def _name(category: int, trained: Trained) -> str:
    return f"'{abridged(trained.names.get(category, '?'), 30)}'"


def _few(items: Sequence[str], most: int = 4) -> str:
    return ", ".join(items[:most]) + (f" and {len(items) - most:,} more" if len(items) > most else "")
