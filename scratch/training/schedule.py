"""schedule: which learning rate should each step of a run have?

    η(step, progress) = η_peak · warmup(step) · decay(progress)

    warmup(step)    = min(1, (step + 1) / W)           step: optimizer steps done; W = warmup_steps,
                                                       or warmup_share of the run if that is sooner
    decay(progress) = 0.1 if progress ≥ lr_drop_at = 2/3, else 1   schedule="step": published DETR
                    = ½·(1 + cos(π·progress))                      schedule="cosine": Loshchilov 2017

     1 ┤  ╭────────────────╮                 1 ┤  ╭──╮
       │ ╱                 │                   │ ╱    ╲
     ½ ┤╱       step       │                 ½ ┤╱       ╲    cosine
       │                   │                   │          ╲
    .1 ┤                   ╰───────            │            ╲
     0 ┼──┬────────────────┬──────┬          0 ┼──┬───────────╰──┬    progress
          W               2/3     1               W              1

Why warm-up: at step 1 AdamW's v̂ is a single square, so that every weight steps by η for any
gradient; a small η is safer until v has averaged several steps. Why decay: near a minimum, a step
of fixed size jumps across it. (The published DETR has no warm-up, W = 0.) All groups have the same
factor, so the ratio of their rates stays that of their peaks: a tenth for the backbone in detr_r50,
detr_r101 and their DC5 forms. Same as torch's LinearLR, StepLR and CosineAnnealingLR; proven in
tests/training/test_schedule.py.
Read: learning_rate_factor (the formula) → Schedule (writes it into the optimizer)
"""

from __future__ import annotations

import math

from torch.optim import Optimizer

from scratch.config import TrainConfig


def learning_rate_factor(train: TrainConfig, step: int, progress: float) -> float:
    """The factor of the next step: its learning rate as a share of the peak, in [0, 1].

    step       optimizer steps done so far, so 0 before the first
    progress   share of the run that is done, in [0, 1]: of its steps, or of its minutes if a time limit ends it
    """
    # (step+1)/W, not step/W: with the latter the first step of a run would have learning rate 0.
    warmup = (step + 1) / train.warmup_steps if step < train.warmup_steps else 1.0
    if train.warmup_share < 1.0:  # of a run that has fewer steps than was thought, the warm-up should not be the most
        warmup = max(warmup, min(1.0, progress / train.warmup_share)) if train.warmup_share else 1.0
    if train.schedule == "step":
        # ≥ is safe although lr_drop_at = 2/3 is rounded: 200/300 rounds to the same float.
        decay = 0.1 if progress >= train.lr_drop_at else 1.0
    else:
        # A time limit may be exceeded a little: after progress = 1 the cosine would rise again.
        decay = 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))
    return warmup * decay


class Schedule:
    """Sets the learning rate of every group to its own peak times one common factor.

    The factor depends on (step, progress) alone, so a Schedule has no state to save. (torch's schedulers count their
    calls and multiply the last rate; their state must be saved and restored.) Each group keeps its peak as "initial_lr"
    (torch's name) in the optimizer's state_dict: a Schedule that is made after the optimizer was restored does not take
    a decayed rate for a peak.
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
