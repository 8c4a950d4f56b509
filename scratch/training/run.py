"""run: which state must a checkpoint hold, so that a resumed run equals an uninterrupted one?

    weights · optimizer's moments · loss scale · running average · random generators ·
    place in the data · clock · best AP · last matching · course of AP and loss

`Run` holds all of it beside the run's budget and the configuration; what it saves and loads is all
that a resumed run needs to go on bit for bit on a CPU: tests/test_resume.py kills one and compares.
"""

from __future__ import annotations

import math
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Optional

import torch
from torch import nn

from scratch.config import Config
from scratch.printable import counted
from scratch.training.checkpoint import LAST, load_checkpoint, rng_state, save_checkpoint, set_rng_state
from scratch.training.content import naming, check_content, check_optimizer, check_weights
from scratch.training.course import Course
from scratch.training.distributed import Distributed
from scratch.training.ema import ExponentialMovingAverage
from scratch.training.muon import Muon, muon_groups
from scratch.training.optimizer import AdamW, parameter_groups
from scratch.training.precision import Precision
from scratch.training.progressive import share_of_side, shown_at, smaller
from scratch.training.schedule import Schedule

BEST = "best.pt"


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
        self.precision = Precision(config.train.precision, self.device)
        on_cpu = torch.bfloat16 if self.precision.name == "bf16" else None  # a CPU that is fast in float16 is rare
        self.optimizer = (Muon(muon_groups(model, config.train), on_cpu=on_cpu) if config.train.optimizer == "muon"
                          else AdamW(parameter_groups(model, config.train)))
        self.schedule = Schedule(self.optimizer, config.train)
        self.ema = ExponentialMovingAverage(model, config.train.ema_decay) if config.train.ema_decay else None
        self.model = distributed.wrap(model).train()
        self.step = self.epoch = self.batch = 0  # batch: those of the current epoch that are done
        self.batches_per_epoch = 0
        self.parts = 1  # of a batch, one after the other, where the whole does not fit into memory (memory.py)
        self.share = 1.0  # of the pictures' side, in the last step
        self.best_ap, self.course = -1.0, Course()
        self.last_metrics: dict[str, Any] = {}
        self.last_matching: Optional[dict[str, torch.Tensor]] = None  # the last evaluation's, for the next to compare
        self.evaluation_due = False
        self.between_steps = True  # no step, and nothing else that changes several things at once, is half done
        self.saved: Optional[tuple[Any, ...]] = None  # the place that last.pt has
        self.goes_on_by = "the same command goes on with it"
        self.minutes, self._tick = 0.0, time.perf_counter()
        self.evaluated_at = self.saved_at = 0.0  # minutes

    # -- the budget ----------------------------------------------------------------------------------------------

    def advance(self, batches: int, loss: Optional[float] = None) -> None:
        """Count one optimizer step that used up `batches` batches and had this `loss`; all ranks read one clock."""
        self.step += 1
        self.batch += batches
        if loss is not None:
            self.course = self.course.trained(loss)
        self._read_clock()
        self.between_steps = True

    def _read_clock(self) -> None:
        now = time.perf_counter()
        self.minutes += (now - self._tick) / 60
        self._tick = now
        train = self.config.train
        if train.max_minutes is not None or train.eval_minutes or train.checkpoint_minutes:
            minutes = {"minutes": torch.tensor(self.minutes, dtype=torch.float64)}
            self.minutes = self.distributed.mean(minutes)["minutes"]

    def steps(self) -> int:
        """The number of optimizer steps after which the run ends in any case."""
        train = self.config.train
        steps = train.epochs * max(1, -(-self.batches_per_epoch // train.accumulate))
        return min(steps, train.max_steps or steps)

    def progress(self) -> float:
        """The share of the run that is done, in [0, 1]: by steps, or by the clock where that is ahead."""
        train = self.config.train
        shares = [self.step / self.steps()]
        if train.max_minutes is not None:
            shares.append(self.minutes / train.max_minutes)
        return min(1.0, max(shares))

    def finished(self) -> bool:
        """Is the budget spent, or the patience?"""
        return self.progress() >= 1.0 or self.course.spent(self.config.train.patience)

    def ended_early(self) -> bool:
        """Has the patience ended it, before its budget was spent?"""
        return self.finished() and self.progress() < 1.0

    def ends_with(self, ap: Optional[float]) -> bool:
        """Is an evaluation with this AP, which is not remembered yet, the last one?"""
        return self.finished() or self.course.judged(self.step, ap).spent(self.config.train.patience)

    def complete(self) -> bool:
        """Finished, and judged as well."""
        return self.finished() and not self.evaluation_due

    def close_epoch(self) -> None:
        """After the loop over an epoch's batches has ended: was it the epoch's end, and is an evaluation due?"""
        if self.batch >= self.batches_per_epoch:
            self.epoch, self.batch = self.epoch + 1, 0
            long_ago = self.minutes - self.evaluated_at >= self.config.train.eval_minutes
            self.evaluation_due = self.epoch % self.config.train.eval_every == 0 and long_ago
        self.evaluation_due = self.evaluation_due or self.finished()

    def checkpoint_due(self, epoch_ended: bool = False) -> bool:
        """Should a checkpoint be written now, after a step, or after the last one of an epoch?"""
        train = self.config.train
        if train.checkpoint_minutes:
            return self.minutes - self.saved_at >= train.checkpoint_minutes or self.finished()
        return epoch_ended or self.step % train.checkpoint_every == 0

    def shown(self, batch: Any) -> Any:
        """The batch as the next step sees it: smaller while the run is young, if the configuration says so."""
        self.share = share_of_side(self.config.data.grow, self.progress())
        return smaller(batch, self.share)

    def as_shown(self, batch: Any) -> Any:
        """The batch as the last step would have seen it: for an evaluation."""
        return smaller(batch, self.share)

    # -- what is remembered ----------------------------------------------------------------------------------------

    def remember(self, metrics: dict[str, Any]) -> None:
        """Note an evaluation, and keep the weights if they are the best so far."""
        self._read_clock()
        self.between_steps = False
        self.last_metrics, self.evaluation_due, self.evaluated_at = metrics, False, self.minutes
        self.course = self.course.judged(self.step, metrics["AP"])
        ap = metrics["AP"] or 0.0  # None: there was nothing to find
        better = ap > self.best_ap
        if better:
            self.best_ap = ap
            self.save(BEST)
        if better or self.checkpoint_due(epoch_ended=True):  # a run that goes on must know the AP of best.pt
            self.save()
        self.between_steps = True

    def state_dict(self) -> dict[str, Any]:
        """All of it, as plain values and tensors (loadable with weights_only=True)."""
        data = self.config.data
        config = replace(self.config, data=shown_at(data, self.share))
        return {
            "config": config.to_dict(), "classes": self.classes,
            "step": self.step, "epoch": self.epoch, "batch": self.batch,
            "size": {"share": self.share, "short_side": data.short_side, "max_size": data.max_size},
            "parts": self.parts, "minutes": self.minutes, "evaluated_at": self.evaluated_at,
            "best_ap": self.best_ap, "course": self.course.state_dict(),
            "last_metrics": self.last_metrics, "last_matching": self.last_matching,
            "evaluation_due": self.evaluation_due, "world_size": self.distributed.world_size,
            "model": self.unwrapped.state_dict(), "optimizer": self.optimizer.state_dict(),
            "precision": self.precision.state_dict(), "ema": self.ema.state_dict() if self.ema else None,
            "rng": self.distributed.gather([rng_state()]),  # one for each rank: each drops out its own
        }

    def load_state_dict(self, state: dict[str, Any], file: Any = "the state") -> None:
        """Go on from `state`, which came from `file`. Raises ValueError before anything is changed."""
        with naming(file):
            check_content(state, training=True)
        self._refuse_another_run(state)
        with naming(file):
            check_weights(state, self.unwrapped.state_dict())
            check_optimizer(state["optimizer"], self.optimizer)
        self.unwrapped.load_state_dict(state["model"])
        peaks = [{"initial_lr": group["initial_lr"], "weight_decay": group["weight_decay"]}
                 for group in self.optimizer.param_groups]
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
        self.last_matching, self.parts = state.get("last_matching"), state.get("parts", 1)  # an older one has none
        self.share = (state.get("size") or {"share": 1.0})["share"]  # an older one has none
        self.evaluated_at, self.saved_at = state.get("evaluated_at", 0.0), self.minutes
        self.course = Course.from_state(state.get("course"), self.step, self.best_ap)
        if state["world_size"] == self.distributed.world_size:
            set_rng_state(state["rng"][self.distributed.rank])
        self._tick = time.perf_counter()

    def _refuse_another_run(self, state: dict[str, Any]) -> None:
        """Raise ValueError where flags or data have changed what the saved weights are weights of."""
        if state["classes"] != self.classes:
            learnt, there = (", ".join(classes["names"][:20]) for classes in (state["classes"], self.classes))
            raise ValueError(f"the run learnt other classes ({learnt}) than the data has now ({there}), or other ids "
                             "of them: resume with the data that it began with, or start another run")
        saved, now = ({name: value for name, value in config["model"].items() if name not in ("dropout", "aux_loss")}
                      for config in (Config.from_dict(state["config"]).to_dict(), self.config.to_dict()))
        changed = [name for name in now if saved.get(name) != now[name]]
        if changed:
            begun, wanted = (", ".join(f"{name}={values.get(name)}" for name in changed) for values in (saved, now))
            raise ValueError(f"the run was begun with {begun}, not {wanted}: resume without flags that change the "
                             "model, or start another run")
        trained, trained_then = ([(group["name"], len(group["params"])) for group in groups] for groups in (
            self.optimizer.param_groups, state["optimizer"]["param_groups"]))
        if trained != trained_then:
            raise ValueError("the run trained other weights than these: resume with its own --train-backbone, or start "
                             "another run")

    def judged_weights(self) -> AbstractContextManager:
        """The context in which the model has the weights that are evaluated: the running average, if there is one."""
        return self.ema.applied_to(self.unwrapped) if self.ema else nullcontext()

    def save(self, name: str = LAST) -> None:
        """Write a checkpoint (rank 0 alone), atomically."""
        state = self.state_dict()
        if self.distributed.is_main:
            save_checkpoint(self.directory / name, state)
        self.distributed.barrier()
        if name == LAST:
            self.saved, self.saved_at = self._place(), self.minutes

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint, as if the run had never stopped."""
        self.load_state_dict(load_checkpoint(path, map_location=self.device), path)
        self.saved = self._place()

    def _place(self) -> tuple[Any, ...]:
        return self.step, self.epoch, self.batch, self.evaluation_due

    def rescued(self, save: bool) -> str:
        """The run ends here by an error: from where it can go on, in words.

        save   first save what is not saved yet: where no step is half done, and where no other rank would have to help
        """
        why = ""
        if save and self.between_steps and self.saved != self._place() and self.distributed.world_size == 1:
            try:
                self.save()
            except Exception as error:  # what ends the run may be what saving needs, too
                why = f"; it could not be saved here ({error})"
        if self.saved is None:
            return f"the run ends at step {self.step}, before its first checkpoint{why}; begin it again"
        lost = self.step - self.saved[0]
        after = f" (lost: {counted(lost, 'step')})" if lost else ""
        where = ", which is saved" if self.saved == self._place() else (
            f"{why}; the last checkpoint is of step {self.saved[0]}{after}")
        return f"the run ends at step {self.step}{where}; {self.goes_on_by}"

    # -- what is watched -------------------------------------------------------------------------------------------

    def learning_rates(self) -> dict[str, float]:
        return {f"lr_{group['name']}": group["lr"] for group in self.optimizer.param_groups}

    def refuse_non_finite(self, record: dict[str, float], batches: list[Any]) -> None:
        """Stop before an optimizer step that would make the weights NaN. (A loss scaler skips such a step itself.)"""
        if torch.isfinite(torch.tensor(record["grad_norm"])) or self.precision.name == "fp16":
            return
        lost = [name for name, value in record.items() if "loss" in name and not math.isfinite(value)]
        though = f"nor are {', '.join(lost)}" if lost else f"though the loss is ({record['loss']:.4g})"
        images = [target["image_id"] for batch in batches for target in batch.targets]
        for name, parameter in reversed(list(self.unwrapped.named_parameters())):  # as the backward pass went
            if parameter.grad is not None and not torch.isfinite(parameter.grad).all():
                raise FloatingPointError(
                    f"step {self.step}: the gradient of {name} over the images {images} is not finite, {though}. The "
                    "step was not taken, and the weights are as they were; go on with a lower learning rate or in "
                    "float32.")
