"""class_counts: how many boxes does each class have, and in which split?

    boxes by class      train       val      test       the commonest in train first; crowds do not count
      RBC               2,381       967       805       (blood cells, BCCD)
      WBC                 214        87        71
      Platelets           209        83        69

AP is the mean over the classes that have a box in the evaluation split. There a class that is hardly learnt lowers it
as much as any other, and a class without a box is left out.

Proven in tests/data/test_class_counts.py. Read: ClassCounts → plus → table → notes
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from scratch.data.annotations import Annotations
from scratch.data.problems import Problem
from scratch.printable import abridged, counted

FEW = 10          # boxes to learn from, which are few
OF_THE_MOST = 10  # … where another class has this many times as many: in a set of six pictures all are few
ENDS = 10         # of a long table, the first and the last classes


@dataclass(frozen=True)
class ClassCounts:
    """Boxes of each class: `boxes[split]` (K,) int64, of the classes `names` (K); and the number of crowds."""

    names: tuple[str, ...] = ()
    boxes: dict[str, np.ndarray] = field(default_factory=dict)
    crowds: int = 0

    def plus(self, split: str, annotations: Annotations) -> "ClassCounts":
        """These, and those of one more split of the same classes."""
        a = annotations
        boxes = np.bincount(a.labels[~a.crowd], minlength=len(a.classes))
        return ClassCounts(a.classes.told_apart(), {**self.boxes, split: boxes}, self.crowds + int(a.crowd.sum()))

    def table(self) -> str:
        """A line for each class, the commonest of the first split on top; of many, the ends of that. "" for none."""
        if not any(boxes.any() for boxes in self.boxes.values()):
            return ""
        order = np.argsort(-next(iter(self.boxes.values())), kind="stable").tolist()
        shown = order if len(order) <= 2 * ENDS + 1 else order[:ENDS] + order[-ENDS:]
        names = {k: abridged(self.names[k], 40) for k in shown}
        title = "boxes by class" + (", without crowds" if self.crowds else "")
        width = max(map(len, [*names.values(), title])) + 2
        lines = [f"{title:<{width}}" + "".join(f"{split:>10}" for split in self.boxes)]
        lines += [f"  {names[k]:<{width - 2}}" + "".join(f"{boxes[k]:>10,}" for boxes in self.boxes.values())
                  for k in shown]
        if len(shown) < len(order):
            lines.insert(1 + ENDS, f"  … {counted(len(order) - len(shown), 'class', 'classes')} between …")
        return "\n".join(lines)

    def notes(self, evaluated: str) -> list[Problem]:
        """The classes that train has few boxes of, or none, those without a box in `evaluated`, a split's name, and
        whether all are called by numbers."""
        if not {"train", evaluated} <= self.boxes.keys():
            return []
        train, judging = self.boxes["train"].tolist(), self.boxes[evaluated].tolist()
        commonest, found = max(train, default=0), []
        if self.names and all(name.isdecimal() for name in self.names):
            some = ", ".join(self.names[:3]) + (" …" if self.names[3:] else "")
            found.append(Problem("classes without names", counted(len(self.names), "class", "classes"), some))
        for name, learnt, judged in zip(map(abridged, self.names), train, judging):
            boxes = f"{counted(learnt, 'box', 'boxes')} in train"
            if not learnt and judged:
                found.append(Problem("class that is not learnt", name, f"{boxes}, {judged:,} in {evaluated}"))
            elif 0 < learnt < FEW and learnt * OF_THE_MOST <= commonest:
                found.append(Problem("class with few boxes", name,
                                     f"{boxes}, where the commonest class has {commonest:,}"))
            if learnt and not judged and any(judging):
                found.append(Problem("class that is not judged", name, f"{boxes}, none in {evaluated}"))
        return found
