"""class_counts: how many boxes does each class have, and in which split?

    boxes by class      train       val      test       the commonest in train first; crowds do not count
      RBC               2,381       967       805
      WBC                 214        87        71
      Platelets           209        83        69

A class of few boxes is hardly learnt, and AP is the mean over the classes that the judging split shows, so one of them
pulls it down as much as any other; a class without a box there is not in that mean at all.

Proven in tests/data/test_class_counts.py. Read: ClassCounts → table → notes
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scratch.data.annotations import Annotations
from scratch.data.problems import Problem
from scratch.printable import abridged, counted

FEW = 10          # boxes to learn from, which are few
OF_THE_MOST = 10  # … where another class has this many times as many: in a set of six pictures all are few
ENDS = 10         # of a long table, the first and the last classes


@dataclass(frozen=True)
class ClassCounts:
    """Boxes, crowds left out, of each split (rows) and class (columns): `boxes[i,k]` of `splits[i]`, `names[k]`."""

    splits: tuple[str, ...]
    names: tuple[str, ...]
    boxes: np.ndarray

    @staticmethod
    def of(annotations: dict[str, Annotations]) -> "ClassCounts":
        """Those of splits that count their classes alike."""
        classes = next((a.classes for a in annotations.values()), None)
        names = classes.told_apart() if classes else ()
        counts = [np.bincount(a.labels[~a.crowd], minlength=len(names)) for a in annotations.values()]
        return ClassCounts(tuple(annotations), names, np.array(counts, dtype=np.int64).reshape(len(counts), len(names)))

    def table(self) -> str:
        """A line for each class, the commonest of the first split first; of many, the ends of that order. "" for none."""
        if not self.boxes.size:
            return ""
        order = np.argsort(-self.boxes[0], kind="stable").tolist()
        shown = order if len(order) <= 2 * ENDS + 1 else order[:ENDS] + order[-ENDS:]
        names = {k: abridged(self.names[k], 40) for k in shown}
        width = max(map(len, [*names.values(), "boxes by class"])) + 2
        lines = [f"{'boxes by class':<{width}}" + "".join(f"{split:>10}" for split in self.splits)]
        lines += [f"  {names[k]:<{width - 2}}" + "".join(f"{number:>10,}" for number in self.boxes[:, k].tolist())
                  for k in shown]
        if len(shown) < len(order):
            lines.insert(1 + ENDS, f"  … {counted(len(order) - len(shown), 'class', 'classes')} between …")
        return "\n".join(lines)

    def notes(self, judge: str) -> list[Problem]:
        """The classes that are rare in train, and those that `judge`, the split that judges, does not show."""
        of = dict(zip(self.splits, self.boxes.tolist()))
        train, judging = of.get("train"), of.get(judge)
        found = []
        for k, name in enumerate(self.names):
            if train and train[k] < FEW and max(1, train[k]) * OF_THE_MOST <= max(train):
                found.append(Problem("class with few boxes", abridged(name),
                                     f"{counted(train[k], 'box', 'boxes')} in train, where the commonest class has "
                                     f"{max(train):,}"))
            if train and judging and any(judging) and train[k] and not judging[k]:
                found.append(Problem("class that is not judged", abridged(name),
                                     f"{counted(train[k], 'box', 'boxes')} in train, none in {judge}"))
        return found
