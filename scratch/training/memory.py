"""memory: what if a batch does not fit into the GPU?

    one batch of B images             out of memory ─▶ 2 parts of B/2, 4 parts of B/4 … 1 image at a time
    ┌───────────────┐                 ┌───────┐┌───────┐
    │ forward, back │  activations    │       ││       │  each part's activations are freed by its backward
    └───────────────┘  of B images    └───────┘└───────┘  before the next part begins
            one optimizer step                one optimizer step

Activations grow with the number of images in one forward pass; gradients, weights and moments do
not. Gradients add up over the parts (gradient accumulation), and every loss is divided by the boxes
of the whole step (loop.py), so that the step is the same one: the same images, the same effective
batch, the same order of the data. Only a trained batch norm, which sees a part at a time, and
dropout can tell. A run remembers its parts, also in its checkpoint, and does not try again.

torch.OutOfMemoryError is a GPU's; proven by throwing it in tests/training/test_memory.py.
"""

from __future__ import annotations

from typing import Any, Callable

import torch

from scratch.training.cuda_graph import GraphedModel
from scratch.training.run import Run


def step_that_fits(step: Callable[[Run, list[Any]], dict[str, float]], run: Run, batches: list[Any],
                   warn: Callable[[str], None]) -> dict[str, float]:
    """`step(run, batches)`, with every batch in as many parts as the memory needs; `warn` is called if this changes.

    Raises torch.OutOfMemoryError where a single image does not fit, and on several devices (the others would wait
    for gradients that never come).
    """
    while True:
        parts = [part for batch in batches for part in batch.split(run.parts)]
        try:
            return step(run, parts)
        except torch.OutOfMemoryError:
            largest = max(len(part.targets) for part in parts)
            if largest == 1 or run.distributed.world_size > 1:
                raise
        # Only here, outside of the `except`, has the traceback let go of the step's tensors.
        run.optimizer.zero_grad(set_to_none=True)
        if isinstance(run.model, GraphedModel):
            run.model.forget()  # it holds the memory of a batch that is too large
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if run.device.type == "mps":
            torch.mps.empty_cache()
        run.parts *= 2
        warn(f"{largest} images at once do not fit into the memory of {run.device}: from here on they pass in "
             f"{run.parts} parts, {-(-largest // 2)} images at once, and share one step as before. (--batch-size "
             f"{max(1, run.config.train.batch_size // run.parts)} --accumulate "
             f"{run.config.train.accumulate * run.parts} is the same from the start)")
