"""ending: when will a run end?

    steps a minute = steps since the process's first one / minutes since then     evaluations take their part of them
    left           = the least of   steps still to do / steps a minute      of --max-steps, or of --epochs
                                    --max-minutes − minutes done

    ├─────────┼─────────────────────┼───────────────────────────┤
    0      resumed                 now ─── minutes left ───▶  the end: at its step

The first step is left out, as it waits for the first pictures. A learning rate's schedule does not matter: the budget
alone ends a run (or --patience, which nobody can know beforehand). Proven in tests/training/test_ending.py.
Read: ending → words
"""

from __future__ import annotations

from typing import NamedTuple, Optional

FIRST = 5  # steps after which it is said how long the run will take


class Place(NamedTuple):
    """Where a run stands."""

    step: int
    minutes: float


class Ending(NamedTuple):
    """How many minutes are left, which step will be the last, and whether that is sure: steps end the run."""

    minutes: float
    step: int
    sure: bool


def ending(since: Place, now: Place, steps: int, max_minutes: Optional[float]) -> Optional[Ending]:
    """The end of a run of `steps` steps or `max_minutes` minutes; None while nothing was measured.

    since   where the measuring began: after the first step of this process
    """
    if now.step <= since.step or now.minutes <= since.minutes:
        return None
    a_minute = (now.step - since.step) / (now.minutes - since.minutes)
    by_steps = max(0, steps - now.step) / a_minute
    by_clock = by_steps if max_minutes is None else max(0.0, max_minutes - now.minutes)
    if by_steps <= by_clock:
        return Ending(by_steps, steps, True)
    return Ending(by_clock, now.step + round(by_clock * a_minute), False)


def words(end: Ending, evaluated: bool = True, patience: int = 0) -> str:
    """An Ending as a person reads it: "about 21 minutes left; it ends at about step 1,700".

    evaluated   evaluations are part of what was measured; else a run that ends by its steps takes longer
    """
    without = "" if evaluated or not end.sure else ", evaluations not counted"
    step = f"step {end.step:,}" if end.sure else f"about step {_two_digits(end.step):,}"
    earlier = f", or earlier by --patience {patience}" if patience else ""
    return f"{left(end.minutes)}{without}; it ends at {step}{earlier}"


def left(minutes: float) -> str:
    """ "about 21 minutes left" """
    whole = round(minutes)
    if whole < 1:
        return "less than a minute left"
    if whole < 100:
        return f"about {whole} minute{'s' * (whole > 1)} left"
    hours = round(minutes / 60)
    if hours < 48:
        return f"about {hours} hours left"
    return f"about {round(minutes / 1440)} days left"


def _two_digits(number: int) -> int:
    """1,684 → 1,700: what is estimated is not known to the last digit."""
    unit = 10 ** max(0, len(str(number)) - 2)
    return round(number / unit) * unit
