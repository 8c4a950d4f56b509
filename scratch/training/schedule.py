"""schedule: how fast should the weights learn at each moment of a run?

    η(step, progress) = η_peak · warmup(step) · decay(progress)

    warmup(step)    = min(1, (step + 1) / W)           step: optimizer steps done; W = warmup_steps
    decay(progress) = 0.1 if progress ≥ lr_drop_at, else 1      step, as published: 2/3 at full rate
                    = ½·(1 + cos(π·progress))                   cosine: Loshchilov & Hutter 2017

     1 ┤  ╭────────────────╮                 1 ┤  ╭──╮
       │ ╱                 │                   │ ╱    ╲
     ½ ┤╱       step       │                 ½ ┤╱       ╲    cosine
       │                   │                   │          ╲
    .1 ┤                   ╰───────            │            ╲
     0 ┼──┬────────────────┬──────┬          0 ┼──┬───────────╰──┬    progress
          W               2/3     1               W              1

Why warm up: at step 1 AdamW's v̂ is a single square, so every weight steps by η whatever its
gradient says; better a small η until v has seen more. Why decay: near a minimum, a step of fixed
size only jumps across it. All groups share one factor, so the backbone stays at a tenth of the
transformer's rate. Same as torch's LinearLR, StepLR and CosineAnnealingLR; proven in
tests/training/test_schedule.py.
Read: learning_rate_factor (the formula) → Schedule (writes it into the optimizer)
"""

from __future__ import annotations

import math

from torch.optim import Optimizer

from scratch.config import TrainConfig


def learning_rate_factor(train: TrainConfig, step: int, progress: float) -> float:
    """The share of the peak learning rate at which the next step is taken, in [0, 1].

    step       optimizer steps done so far, so 0 before the first
    progress   share of the run that is done, in [0, 1]: of its steps, or of its minutes where a clock ends it
    """
    # (step+1)/W, not step/W: with the latter the first step of a run would have learning rate 0 and be wasted.
    warmup = (step + 1) / train.warmup_steps if step < train.warmup_steps else 1.0
    if train.schedule == "step":
        # ≥ is safe although lr_drop_at = 2/3 is rounded: 200/300 is the same quotient, so it rounds to the same number.
        decay = 0.1 if progress >= train.lr_drop_at else 1.0
    else:
        # A clock may run a little past the end, where the cosine would climb again.
        decay = 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))
    return warmup * decay


class Schedule:
    """Sets every group's learning rate to its own peak times one common factor.

    The factor depends on (step, progress) alone, so there is nothing to save and a resumed run cannot drift: torch's
    schedulers count their calls and multiply the last rate instead, and must be saved and restored with care.
    Each group's peak is kept beside its rate as "initial_lr" (torch's name for it), and so travels in the optimizer's
    state_dict: a Schedule made after the optimizer was restored does not take a decayed rate for a peak.
    """

    def __init__(self, optimizer: Optimizer, train: TrainConfig) -> None:
        self.optimizer, self.train = optimizer, train
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])

    def set(self, step: int, progress: float) -> None:
        """Call before each optimizer step, with the steps done and the share of the run done until now."""
        factor = learning_rate_factor(self.train, step, progress)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
