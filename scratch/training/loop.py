"""loop: how does a detector learn from its batches, from the first step to the last evaluation?

    batch ─▶ model ─▶ outputs ─▶ criterion ─▶ loss ─▶ backward ─▶ average over ranks ─▶ clip ─▶ AdamW ─▶ log
                                                                                                  │
    evaluation ◀── after each epoch, and at the end ◀── checkpoint ◀── every few steps ◀──────────┘

    box loss of a step = Σ of all pairs' box losses, over its batches and GPUs / number of boxes there

backward is backpropagation, clip is gradient clipping. On a first reading skip mixed precision,
data parallelism (each GPU is a *rank*), gradient accumulation and the running average of the
weights: when off, these objects do nothing, so there is one loop for all combinations. `Run`
(run.py) holds the model, the optimizer and the counters. `Watch` (watch.py) logs, and stops the run
cleanly when a signal asks for it: its `groups` yields the batches of one step, `take` calls
train_step, the rest is bookkeeping. Proven in tests/training/test_loop.py.

Read: train_step_definition (the idea) → train_step (one optimizer step) → fit (the whole run)
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Callable, Iterable

import torch

from scratch.training.optimizer import clip_grad_norm_
from scratch.training.watch import Watch

if TYPE_CHECKING:  # they arrive as arguments
    from scratch.training.log import RunLog
    from scratch.training.run import Run


def train_step_definition(model: Any, criterion: Any, optimizer: torch.optim.Optimizer, batch: Any,
                          max_norm: float) -> torch.Tensor:
    """The definition: one step over one batch on one device, in one precision. Returns the loss."""
    outputs = model(batch.normalised(), batch.pad_mask)  # forward: a set of predictions for each image
    losses = criterion(outputs, batch.targets)           # bipartite matching, then the losses of each decoder layer
    loss = criterion.total(losses)                       # their weighted sum
    loss.backward()                                      # backpropagation: ∂loss/∂weight for every weight
    clip_grad_norm_(model.parameters(), max_norm)
    optimizer.step()                                     # AdamW, with the learning rates that the schedule has set
    optimizer.zero_grad()
    return loss.detach()


def train_step(run: Run, batches: list[Any]) -> dict[str, float]:
    """One optimizer step over `batches` (one Batch, or `accumulate` of them); returns what the log records.

    What changed: mixed precision, several devices, several batches for one step, smaller images at first, the running
    average, the checks.
    Every loss is divided by the number of boxes (and of class weights) of the whole step, over all its batches and all
    ranks, which is known from the targets before the first forward pass. So the losses of the batches add up to the
    loss of one large batch, and their gradients to its gradient: gradient accumulation needs no division of its own.
    (The one-to-many route is an exception: see VariantCriterion._of_one_to_many.)
    """
    run.between_steps = False  # until Run.advance
    run.schedule.set(run.step, run.progress())
    normalisers = run.criterion.normalisers([batch.targets for batch in batches], run.config.model.num_queries)
    losses: dict[str, torch.Tensor] = {}
    for i, batch in enumerate(batches, 1):
        batch = run.shown(batch.to(run.device))
        with nullcontext() if i == len(batches) else run.distributed.no_sync(run.model):  # one all-reduce a step
            with run.precision.autocast():
                outputs = run.model(batch.normalised(), batch.pad_mask, batch.targets)
            parts = run.criterion(outputs, batch.targets, normalisers)
            parts["loss_queries"] = run.criterion.total(parts, of=("",)).detach()  # as in an evaluation
            parts["loss"] = run.criterion.total(parts)
            run.precision.backward(parts["loss"])
        for name, value in parts.items():
            share = 1.0 if "loss" in name else 1 / len(batches)  # losses add up; errors are averages
            losses[name] = losses.get(name, 0.0) + value.detach() * share
    run.precision.unscale_(run.optimizer)
    losses["grad_norm"] = clip_grad_norm_(run.parameters, run.config.train.clip_max_norm)
    record = run.distributed.mean(losses)  # one copy from the GPU for all of them
    record |= run.precision.scale()
    run.refuse_non_finite(record, batches)
    run.precision.step(run.optimizer)
    run.optimizer.zero_grad(set_to_none=True)
    if run.ema:
        run.ema.update(run.unwrapped)
    return record


def fit(run: Run, loader: Iterable[Any], sampler: Any, log: RunLog, evaluate: Callable[[Run], dict[str, Any]],
        profiled: bool = False) -> bool:
    """Train until the run's budget is spent, with evaluations between; returns False if the user stopped it.

    loader     yields the Batches of one epoch, in the order of `sampler`, which can start anywhere:
               `.set_position(epoch, batch)`
    evaluate   measures the run's model and returns metrics, "AP" among them
    profiled   profile some of the first steps, and report where their time went (profile.py)
    """
    run.batches_per_epoch = len(sampler)
    run.evaluation_due = run.evaluation_due or (run.finished() and not run.last_metrics)  # it ended before that
    with Watch(run, log, profiled) as watch:
        while not (run.complete() or watch.stopped()):
            if run.evaluation_due:
                metrics = evaluate(run)
                log.evaluation({**watch.place(), **metrics})
                run.remember(metrics)  # and its weights, if they are the best
                watch.agree()
                if watch.stopped():  # the clock may not have asked for a checkpoint yet
                    run.save()
                continue
            sampler.set_position(run.epoch, run.batch)
            watch.wait()
            for batches in watch.groups(loader):
                record = watch.take(train_step, batches)
                run.advance(len(batches), record["loss_queries"])
                watch.record(record, batches)
                if run.finished():
                    break
                if run.checkpoint_due():
                    run.save()
                watch.wait()  # after saving, which is no waiting for images
            run.close_epoch()
            try:
                if run.checkpoint_due(epoch_ended=True) or watch.stopped():
                    run.save()
            finally:
                watch.raise_failure()
    return run.complete()
