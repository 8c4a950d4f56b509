"""loop: how does a detector learn from a batch, and go on learning through whatever happens?

    batch ─▶ model ─▶ outputs ─▶ criterion ─▶ loss ─▶ backward ─▶ average over ranks ─▶ clip ─▶ AdamW ─▶ log
                                                                                                  │
    evaluation ◀── after each epoch, and at the end ◀── checkpoint ◀── every few steps ◀──────────┘

Mixed precision, data parallelism, accumulation and the weights' running average are objects that do nothing when they
are off, so there is one loop and not sixteen. `Run` holds everything that changes while a detector learns; what it saves
and loads is all that a resumed run needs to go on bit for bit: tests/test_resume.py kills one and compares.

Read: train_step (one optimizer step) → fit (the whole run) → Run (what is remembered)
"""

from __future__ import annotations

import signal
import time
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator

import torch
from torch import nn

from scratch.config import Config
from scratch.training.checkpoint import load_checkpoint, rng_state, save_checkpoint, set_rng_state
from scratch.training.distributed import Distributed
from scratch.training.ema import ExponentialMovingAverage
from scratch.training.log import RunLog, peak_memory_gib
from scratch.training.optimizer import AdamW, clip_grad_norm_, parameter_groups
from scratch.training.precision import Precision
from scratch.training.schedule import Schedule


def train_step(run: "Run", batches: list[Any]) -> dict[str, float]:
    """One optimizer step over `batches` (one Batch, or `accumulate` of them); returns what the log records.

    Every loss is divided by the number of boxes (and of class weights) of the whole step, over all its batches and all
    ranks, known from the targets before the first forward pass. So the losses of the batches add up to the loss of one
    large batch, and so do their gradients: nothing is averaged twice.
    """
    run.schedule.set(run.step, run.progress())
    normalisers = run.criterion.normalisers([batch.targets for batch in batches], run.config.model.num_queries)
    losses: dict[str, torch.Tensor] = {}
    for i, batch in enumerate(batches, 1):
        batch = batch.to(run.device)
        with nullcontext() if i == len(batches) else run.distributed.no_sync(run.model):  # ranks meet once a step
            with run.precision.autocast():
                outputs = run.model(batch.normalised(), batch.pad_mask)
            parts = run.criterion(outputs, batch.targets, normalisers)
            parts["loss"] = run.criterion.total(parts)
            run.precision.backward(parts["loss"])
        for name, value in parts.items():
            share = 1.0 if name.startswith("loss") else 1 / len(batches)  # losses add up; errors are averages
            losses[name] = losses.get(name, 0.0) + value.detach() * share
    run.precision.unscale_(run.optimizer)
    losses["grad_norm"] = clip_grad_norm_(run.parameters, run.config.train.clip_max_norm)
    record = run.distributed.mean(losses)  # the step's one copy to the host, beside the matching
    run.refuse_non_finite(record, batches)
    run.precision.step(run.optimizer)
    run.optimizer.zero_grad(set_to_none=True)
    if run.ema:
        run.ema.update(run.unwrapped)
    return record


def fit(run: "Run", loader: Iterable[Any], sampler: Any, log: RunLog, evaluate: Callable[["Run"], dict[str, Any]]) -> bool:
    """Train until the run's budget is spent, evaluating on the way; returns False if a person stopped it.

    loader     yields Batches of one epoch, in the order of `sampler`, which can start anywhere: `.set_position(epoch, batch)`
    evaluate   judges the run's model and returns metrics, "AP" among them
    """
    run.batches_per_epoch = len(sampler)
    run.evaluation_due = run.evaluation_due or run.finished() and not run.last_metrics  # resumed, and given less to do
    with _Interrupt() as interrupt:
        while not (run.complete() or interrupt.agreed):
            if run.evaluation_due:
                metrics = evaluate(run)
                log.evaluation({"step": run.step, "epoch": run.epoch, "minutes": run.minutes, **metrics})
                run.remember(metrics)
                interrupt.agree(run.distributed)
                continue
            sampler.set_position(run.epoch, run.batch)
            waiting = time.perf_counter()
            for batches in _groups(loader, run.config.train.accumulate):
                started = time.perf_counter()
                record = train_step(run, batches)
                interrupt.agree(run.distributed)
                run.advance(len(batches))
                images = sum(len(batch.targets) for batch in batches) * run.distributed.world_size
                now = time.perf_counter()
                log.step({"step": run.step, "epoch": run.epoch, "minutes": run.minutes, **run.learning_rates(), **record,
                          "images_per_second": images / (now - waiting), "data_wait_seconds": started - waiting,
                          "memory_gib": peak_memory_gib(run.device)}, run.progress())
                waiting = now
                if run.finished() or interrupt.agreed:
                    break
                if run.step % run.config.train.checkpoint_every == 0:
                    run.save()
            run.close_epoch()
            run.save()
    return run.complete()


class Run:
    """Everything that changes while a detector learns, and so everything that a checkpoint must bring back.

    model       on its device already; DistributedDataParallel is put around it here
    criterion   SetCriterion: losses, their weighted total, and their normalisers
    config      the whole configuration; saved with every checkpoint
    classes     plain dict of the category ids and names, saved with every checkpoint
    directory   where last.pt, previous.pt and best.pt are kept
    """

    def __init__(self, model: nn.Module, criterion: Any, config: Config, classes: dict[str, Any], directory: Path,
                 distributed: Distributed) -> None:
        self.config, self.criterion, self.classes = config, criterion, classes
        self.directory, self.distributed, self.device = Path(directory), distributed, distributed.device
        self.unwrapped = model
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = AdamW(parameter_groups(model, config.train))
        self.schedule = Schedule(self.optimizer, config.train)
        self.precision = Precision(config.train.precision, self.device)
        self.ema = ExponentialMovingAverage(model, config.train.ema_decay) if config.train.ema_decay else None
        self.model = distributed.wrap(model).train()
        self.step = self.epoch = self.batch = 0  # batch: those of the current epoch that are done
        self.batches_per_epoch = 0
        self.best_ap = -1.0
        self.last_metrics: dict[str, Any] = {}
        self.evaluation_due = False
        self.minutes, self._tick = 0.0, time.perf_counter()

    # -- the budget ----------------------------------------------------------------------------------------------

    def advance(self, batches: int) -> None:
        """Count one optimizer step that used up `batches` batches; every rank reads the same clock."""
        self.step += 1
        self.batch += batches
        self._read_clock()

    def _read_clock(self) -> None:
        now = time.perf_counter()
        self.minutes += (now - self._tick) / 60
        self._tick = now
        if self.config.train.max_minutes is not None:
            self.minutes = self.distributed.mean({"minutes": torch.tensor(self.minutes, dtype=torch.float64)})["minutes"]

    def progress(self) -> float:
        """The share of the run that is done, in [0, 1]: by steps, or by the clock where that is ahead."""
        train = self.config.train
        steps = train.epochs * max(1, -(-self.batches_per_epoch // train.accumulate))
        shares = [self.step / min(steps, train.max_steps or steps)]
        if train.max_minutes is not None:
            shares.append(self.minutes / train.max_minutes)
        return min(1.0, max(shares))

    def finished(self) -> bool:
        return self.progress() >= 1.0

    def complete(self) -> bool:
        """Finished, and judged as well."""
        return self.finished() and not self.evaluation_due

    def close_epoch(self) -> None:
        """After the loop over an epoch's batches has ended: was it the epoch's end, and is an evaluation due?"""
        if self.batch >= self.batches_per_epoch:
            self.epoch, self.batch = self.epoch + 1, 0
            self.evaluation_due = self.epoch % self.config.train.eval_every == 0
        self.evaluation_due = self.evaluation_due or self.finished()

    # -- what is remembered ----------------------------------------------------------------------------------------

    def remember(self, metrics: dict[str, Any]) -> None:
        """Note an evaluation, and keep the weights if they are the best so far."""
        self._read_clock()
        self.last_metrics, self.evaluation_due = metrics, False
        ap = metrics["AP"] or 0.0  # None: there was nothing to find
        if ap > self.best_ap:
            self.best_ap = ap
            self.save("best.pt")
        self.save()

    def state_dict(self) -> dict[str, Any]:
        """All of it, as plain values and tensors (loadable with weights_only=True)."""
        return {
            "config": self.config.to_dict(), "classes": self.classes, "step": self.step, "epoch": self.epoch, "batch": self.batch,
            "minutes": self.minutes, "best_ap": self.best_ap, "last_metrics": self.last_metrics,
            "evaluation_due": self.evaluation_due, "world_size": self.distributed.world_size,
            "model": self.unwrapped.state_dict(), "optimizer": self.optimizer.state_dict(),
            "precision": self.precision.state_dict(), "ema": self.ema.state_dict() if self.ema else None,
            "rng": self.distributed.gather([rng_state()]),  # one for each rank: each drops out its own
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._refuse_another_run(state)
        self.unwrapped.load_state_dict(state["model"])
        peaks = [{"initial_lr": group["initial_lr"], "weight_decay": group["weight_decay"]} for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        for group, peak in zip(self.optimizer.param_groups, peaks):
            group.update(peak)  # rates are the configuration's: a resumed run may have been given others
        self.precision.load_state_dict(state["precision"])
        if self.ema and state["ema"]:
            self.ema.load_state_dict(state["ema"])
        elif self.ema:  # asked for only now: it begins at these weights, not at the random ones
            self.ema = ExponentialMovingAverage(self.unwrapped, self.config.train.ema_decay)
        for name in ("step", "epoch", "batch", "minutes", "best_ap", "last_metrics", "evaluation_due"):
            setattr(self, name, state[name])
        if state["world_size"] == self.distributed.world_size:
            set_rng_state(state["rng"][self.distributed.rank])
        self._tick = time.perf_counter()

    def _refuse_another_run(self, state: dict[str, Any]) -> None:
        """Raise ValueError where flags or data have changed what the saved weights are weights of."""
        if state["classes"] != self.classes:
            learnt, there = (", ".join(classes["names"][:20]) for classes in (state["classes"], self.classes))
            raise ValueError(f"the run learnt other classes ({learnt}) than the data has now ({there}), or other ids of them: resume with "
                             "the data that it began with, or start another run")
        ours, theirs = ({name: tuple(t.shape) for name, t in weights.items()} for weights in (self.unwrapped.state_dict(), state["model"]))
        other = next((name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)), None)
        if other:
            raise ValueError(f"{other} has the shape {theirs.get(other)} in the checkpoint and {ours.get(other)} in this model: resume "
                             "without flags that change the model, or start another run")
        if [g["name"] for g in state["optimizer"]["param_groups"]] != [g["name"] for g in self.optimizer.param_groups] or [
                len(g["params"]) for g in state["optimizer"]["param_groups"]] != [len(g["params"]) for g in self.optimizer.param_groups]:
            raise ValueError("the run trained other weights than these: resume with its own --train-backbone, or start another run")

    def judged_weights(self) -> AbstractContextManager:
        """The context in which the model has the weights that are evaluated: the running average, if there is one."""
        return self.ema.applied_to(self.unwrapped) if self.ema else nullcontext()

    def save(self, name: str = "last.pt") -> None:
        """Write a checkpoint (rank 0 alone), atomically."""
        state = self.state_dict()
        if self.distributed.is_main:
            save_checkpoint(self.directory / name, state)
        self.distributed.barrier()

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint, as if the run had never stopped."""
        self.load_state_dict(load_checkpoint(path, map_location=self.device))

    # -- what is watched -------------------------------------------------------------------------------------------

    def learning_rates(self) -> dict[str, float]:
        return {f"lr_{group['name']}": group["lr"] for group in self.optimizer.param_groups}

    def refuse_non_finite(self, record: dict[str, float], batches: list[Any]) -> None:
        """Stop before an optimizer step that would poison the weights. (A loss scaler skips such a step by itself.)"""
        if torch.isfinite(torch.tensor(record["grad_norm"])) or self.precision.name == "fp16":
            return
        images = [target["image_id"] for batch in batches for target in batch.targets]
        for name, parameter in self.unwrapped.named_parameters():
            if parameter.grad is not None and not torch.isfinite(parameter.grad).all():
                raise FloatingPointError(
                    f"step {self.step}: the gradient of {name} over the images {images} is not finite, though the loss is "
                    f"({record['loss']:.4g}). The weights are unharmed and the last checkpoint is good; resume with a lower learning rate or in float32.")


def _groups(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Lists of `size` items, the last one shorter if they run out."""
    iterator = iter(items)
    while group := list(islice(iterator, size)):
        yield group


class _Interrupt:
    """Ctrl-C (or SIGTERM) asks for a stop after the current step; a second one stops at once."""

    def __enter__(self) -> "_Interrupt":
        self.requested = self.agreed = False
        self._previous = {s: signal.signal(s, self._request) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _request(self, number: int, frame: Any) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        print("\nstopping after this step or evaluation; again to stop at once", flush=True)

    def agree(self, distributed: Distributed) -> None:
        """Ranks stop together or not at all: a request counts when all have heard of it, whenever it came."""
        self.agreed = self.requested
        if distributed.world_size > 1:
            self.agreed = distributed.mean({"stop": torch.tensor(float(self.requested))})["stop"] > 0

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
