"""course: does more training still pay off?

    evaluation       1    2    3    4    5    6    7    8    9
    AP              .10  .31  .42  .40  .41  .36  .35  .34  .33      best: the third
    training loss    30   24   21   19   18   16   15   14   13      mean of the steps since the one before

early stopping   --patience N ends a run after N evaluations in a row without a better AP: of 5, after the eighth. A
                 detector that has found nothing yet (AP 0) has not begun, and is not stopped.
overfitting      the network learns its training pictures by heart. Said once, where both are true of the AP
                 (average precision) and the loss:
                   max AP of the last RECENT = 4  <  best AP before them − max(CLEAR, CLEARLY · that AP)
                   training loss of the last one  <  training loss of the best one
                 Above: after the ninth, as .36 < .42 − .042, and 13 < 21.

Why the best of four: the AP of a small split jumps by some hundredths from one evaluation to the next, so a single low
one says nothing. Why the training loss: where it rises too, the learning rate is the likelier cause.

All of it follows from the evaluations and the losses so far, which a checkpoint holds: a resumed run stops, and warns,
where the uninterrupted one would have. Proven in tests/training/test_course.py. Read: Course
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Optional

RECENT = 4             # evaluations that must all be below the best
CLEAR, CLEARLY = 0.03, 0.1  # by this AP at least, and by this share of the best AP
FEW = 10               # losses that are kept of the beginning, and of the end


class Point(NamedTuple):
    """An evaluation: after which step, its AP (None: nothing to find), the mean training loss since the one before."""

    step: int
    ap: Optional[float]
    loss: Optional[float]


@dataclass(frozen=True)
class Course:
    """What a run has measured so far; each method that adds something returns another Course.

    points   its evaluations
    said     the names of hints and warnings that are said once in a run
    first    the training losses of its first steps, FEW at most
    latest   those of its latest steps, FEW at most
    total, count   the sum of the training losses since the last evaluation, and how many they are
    """

    points: tuple[Point, ...] = ()
    said: tuple[str, ...] = ()
    first: tuple[float, ...] = ()
    latest: tuple[float, ...] = ()
    total: float = 0.0
    count: int = 0

    def trained(self, loss: float) -> "Course":
        """After one more step; a loss that is not finite (fp16's scaler skips such a step) is left out."""
        if not math.isfinite(loss):
            return self
        return replace(self, first=self.first if len(self.first) == FEW else (*self.first, loss),
                       latest=(*self.latest, loss)[-FEW:], total=self.total + loss, count=self.count + 1)

    def judged(self, step: int, ap: Optional[float]) -> "Course":
        """After one more evaluation."""
        loss = self.total / self.count if self.count else None
        return replace(self, points=(*self.points, Point(step, ap, loss)), total=0.0, count=0)

    def noted(self, *names: str) -> "Course":
        """After something was said that is said once."""
        return replace(self, said=tuple(dict.fromkeys((*self.said, *names))))

    def best(self) -> Optional[Point]:
        """The evaluation with the highest AP, of equals the first; None where none has found anything."""
        found = [point for point in self.points if point.ap]
        return max(found, key=lambda point: point.ap) if found else None

    def waited(self) -> int:
        """The number of evaluations since the best one."""
        best = self.best()
        return len(self.points) - 1 - self.points.index(best) if best else 0

    def spent(self, patience: int) -> bool:
        """Should the run end? `patience` evaluations in a row had no better AP; 0: it never ends by that."""
        return 0 < patience <= self.waited()

    def overfits(self) -> bool:
        """Has the AP clearly fallen, over several evaluations, while the training loss fell further?"""
        before, recent = Course(self.points[:-RECENT]), self.points[-RECENT:]
        best, last = before.best(), recent[-1].loss if recent else None
        if best is None or best.loss is None or last is None:
            return False
        highest = max(point.ap or 0.0 for point in recent)
        return highest < best.ap - max(CLEAR, CLEARLY * best.ap) and last < best.loss

    def overfitting(self) -> str:
        """What `overfits` means and what to do, in words; "" where it is not so."""
        best = self.best()
        if best is None or not self.overfits():
            return ""
        return (f"overfitting: the AP of the last {RECENT} evaluations is below the best, {best.ap:.3f} at step "
                f"{best.step:,}, while the training loss fell from {best.loss:.1f} to {self.points[-1].loss:.1f}: the "
                "network learns the training pictures by heart. best.pt keeps the best weights, so the run may be "
                "ended (Ctrl-C; --patience N does it next time). More pictures help most, then stronger augmentation "
                "(--augment zoom --mosaic 0.4 --colour 0.2), then a larger --weight-decay")

    def state_dict(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        return {"points": [list(point) for point in self.points], "said": list(self.said), "first": list(self.first),
                "latest": list(self.latest), "total": self.total, "count": self.count}

    @staticmethod
    def from_state(state: Optional[dict[str, Any]], step: int = 0, best_ap: float = -1.0) -> "Course":
        """The inverse of `state_dict`. None: of a checkpoint from before, of which the AP of best.pt alone is known."""
        if state is None:
            return Course().judged(step, best_ap) if best_ap > 0 else Course()
        return Course(tuple(Point(*point) for point in state["points"]), tuple(state["said"]), tuple(state["first"]),
                      tuple(state["latest"]), state["total"], state["count"])
