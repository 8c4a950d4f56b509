"""loop: how does a detector learn from a batch, and go on learning through whatever happens?

    batch ─▶ model ─▶ outputs ─▶ criterion ─▶ loss ─▶ backward ─▶ average over ranks ─▶ clip ─▶ AdamW ─▶ log
                                                                                                  │
    evaluation ◀── after each epoch, and at the end ◀── checkpoint ◀── every few steps ◀──────────┘

Mixed precision, data parallelism, accumulation and the weights' running average are objects that do
nothing when they are off, so there is one loop and not sixteen. All that changes while a detector
learns is in `Run` (run.py); how a run is stopped, by a person or by a loader that fails, is in
interrupt.py.

Read: train_step (one optimizer step) → fit (the whole run)
"""

from __future__ import annotations

import time
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from typing import Any, Callable, Iterable, Iterator

import torch

from scratch.training.guards import Guards, first_non_finite, spoilt
from scratch.training.interrupt import Interrupt
from scratch.training.log import RunLog
from scratch.training.memory import step_that_fits
from scratch.training.optimizer import clip_grad_norm_
from scratch.training.peak_memory import peak_memory_gib
from scratch.training.profile import Profile
from scratch.training.run import Run


def train_step(run: Run, batches: list[Any]) -> dict[str, float]:
    """One optimizer step over `batches` (one Batch, or `accumulate` of them); returns what the log records.

    Every loss is divided by the number of boxes (and of class weights) of the whole step, over all its batches and all
    ranks, known from the targets before the first forward pass. So the losses of the batches add up to the loss of one
    large batch, and so do their gradients: nothing is averaged twice.
    """
    run.between_steps = False  # until Run.advance
    run.schedule.set(run.step, run.progress())
    normalisers = run.criterion.normalisers([batch.targets for batch in batches], run.config.model.num_queries)
    losses: dict[str, torch.Tensor] = {}
    for i, batch in enumerate(batches, 1):
        batch = batch.to(run.device)
        with nullcontext() if i == len(batches) else run.distributed.no_sync(run.model):  # ranks meet once a step
            with run.precision.autocast():
                outputs = run.model(batch.normalised(), batch.pad_mask, batch.targets)
            parts = run.criterion(outputs, batch.targets, normalisers)
            parts["loss_queries"] = run.criterion.total(parts, of=("",)).detach()  # what an evaluation has, too
            parts["loss"] = run.criterion.total(parts)
            run.precision.backward(parts["loss"])
        for name, value in parts.items():
            share = 1.0 if "loss" in name else 1 / len(batches)  # losses add up; errors are averages
            losses[name] = losses.get(name, 0.0) + value.detach() * share
    run.precision.unscale_(run.optimizer)
    losses["grad_norm"] = clip_grad_norm_(run.parameters, run.config.train.clip_max_norm)
    record = run.distributed.mean(losses)  # one copy to the host for all of them
    record |= run.precision.scale()
    run.refuse_non_finite(record, batches)
    run.precision.step(run.optimizer)
    run.optimizer.zero_grad(set_to_none=True)
    if run.ema:
        run.ema.update(run.unwrapped)
    return record


def fit(run: Run, loader: Iterable[Any], sampler: Any, log: RunLog, evaluate: Callable[[Run], dict[str, Any]],
        profiled: bool = False) -> bool:
    """Train until the run's budget is spent, evaluating on the way; returns False if a person stopped it.

    loader     yields Batches of one epoch, in the order of `sampler`, which can start anywhere:
               `.set_position(epoch, batch)`
    evaluate   judges the run's model and returns metrics, "AP" among them
    profiled   watch some of the first steps, and say where their time went (profile.py)
    """
    guards, profile = Guards(run), Profile(run, profiled and run.distributed.is_main)
    run.batches_per_epoch = len(sampler)
    run.evaluation_due = run.evaluation_due or run.finished() and not run.last_metrics  # resumed, and given less to do
    with Interrupt(partial(run.rescued, save=False)) as interrupt, _said_what_is_saved(run, log):
        while not (run.complete() or interrupt.agreed):
            if run.evaluation_due:
                metrics = evaluate(run)
                log.evaluation({"step": run.step, "epoch": run.epoch, "minutes": run.minutes, **metrics})
                run.remember(metrics)
                interrupt.agree(run.distributed)
                continue
            sampler.set_position(run.epoch, run.batch)
            waiting = time.perf_counter()
            for batches in interrupt.groups(loader, run.config.train.accumulate, run.distributed):
                started = time.perf_counter()
                warn = partial(log.warning, {"step": run.step, "epoch": run.epoch, "minutes": run.minutes})
                with profile.step(), _said_where(run, batches, partial(warn, "not finite")):
                    record = step_that_fits(train_step, run, batches, partial(warn, "out of memory"))
                run.advance(len(batches))
                images = [target["image_id"] for batch in batches for target in batch.targets]
                now = time.perf_counter()
                record = {"step": run.step, "epoch": run.epoch, "minutes": run.minutes, **run.learning_rates(),
                          **record, "images_per_second": len(images) * run.distributed.world_size / (now - waiting),
                          "data_wait_seconds": started - waiting, "step_seconds": now - waiting,
                          "memory_gib": peak_memory_gib(run.device)}
                log.step(record, run.progress())
                for alert in guards.look(run, record, images):
                    log.warning(record, *alert)
                if report := profile.note(record):
                    log.say(report)
                if run.finished():
                    break
                if run.step % run.config.train.checkpoint_every == 0:
                    run.save()
                waiting = time.perf_counter()  # only here: what was done since `now` is no waiting for images
            run.close_epoch()
            try:
                run.save()
            finally:
                interrupt.raise_failure()
    if report := profile.close():
        log.say(report)
    return run.complete()


@contextmanager
def _said_where(run: Run, batches: list[Any], warn: Callable[[str], None]) -> Iterator[None]:
    """To the word that something is not finite, add where it began, and let the log have it."""
    try:
        yield
    except FloatingPointError as error:
        text = spoilt(run) or " ".join(filter(None, (str(error), first_non_finite(run, batches))))
        warn(text)
        raise FloatingPointError(text) from error


@contextmanager
def _said_what_is_saved(run: Run, log: RunLog) -> Iterator[None]:
    """Whatever ends a run, a line says from where it can go on."""
    try:
        yield
    except BaseException as error:
        text = run.rescued(isinstance(error, Exception))
        with suppress(OSError):  # the terminal itself may be what is gone
            log.say(text)
        raise
