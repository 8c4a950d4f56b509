"""guards: which warning signs does a run show, and since which step?

    guard          looks at                                     warns when
    loss spike     the loss, the last 50 losses                 loss > 3 · their median
    starvation     seconds waited for images, of all            more than 0.3 over 50 steps
    dead layers    gradients, in every 100th step               twice in a row, one is exactly 0, or
                                                                0.9 of the hidden units get none
    loss scale     fp16's S (precision.py)                      S < 1

          loss  │      ×            a healthy loss is noisy: batches differ. A spike is something
                │╲╱╲╱╲╱│╲╱╲╱╲       else: a broken label, a rate that is too high, an overflow;
                └────────────▶      after it the optimizer's moments may be wrong for long

A guard warns once when its sign appears, and again only after the sign was gone: one line in the
log, one mark in the chart. No guard stops a run, because noise can look like a fault. A gradient that
is not finite does stop it (`Run.refuse_non_finite`; `first_non_finite` adds where it began). For
collapsed queries see evaluation/health.py. Each is tested on faults made by hand in
tests/training/test_guards.py. Read: the guards → Guards → first_non_finite
"""

from __future__ import annotations

import math
from collections import deque
from statistics import median
from typing import Any, Callable, NamedTuple, Optional

import torch
from torch import Tensor, nn

from scratch.training.checkpoint import PREVIOUS
from scratch.training.run import BEST, Run

WINDOW = 50      # steps that a guard remembers
SETTLED = 20     # steps before a loss can be called unusual
SPIKE = 3.0      # of the median: batches of 2 differ by a factor of 2 in a healthy run
STARVED = 0.3    # of the time: with that much waiting, a faster device would hardly be felt
EVERY = 100      # steps between two looks at all gradients, each of which makes the host wait for the device
DEAD_UNITS = 0.9
# DETR's decoder begins with tokens of zeros: its first self-attention has nothing to mix (model/transformer.py).
IDLE = ("transformer.decoder.layers.0.self_attn.", "transformer.decoder.layers.0.norm1.")


class Alert(NamedTuple):
    """What a guard says: its name, and the number, what it means and what to try."""

    guard: str
    text: str


class LossSpike:
    name = "loss spike"

    def __init__(self) -> None:
        self.losses: deque[float] = deque(maxlen=WINDOW)

    def look(self, run: Run, record: dict[str, Any], image_ids: list[int]) -> Optional[str]:
        loss, before = record["loss"], list(self.losses)
        if not math.isfinite(loss):  # fp16's scaler skips the step by itself
            return None
        self.losses.append(loss)
        if len(before) < SETTLED or loss <= SPIKE * median(before):
            return None
        return (f"the loss is {loss:.4g}, {loss / median(before):.1f} times the median of the {len(before)} steps "
                f"before. Once: look at this step's images, {shortened(image_ids)} (check-data finds broken boxes). "
                "Again and again: lower --lr and --lr-backbone, or set --clip-max-norm")


class Starvation:
    name = "loader starvation"

    def __init__(self) -> None:
        self.seconds: deque[tuple[float, float]] = deque(maxlen=WINDOW)

    def look(self, run: Run, record: dict[str, Any], image_ids: list[int]) -> Optional[str]:
        self.seconds.append((record["data_wait_seconds"], record["step_seconds"]))
        if len(self.seconds) < WINDOW:  # an epoch's first batch is always waited for
            return None
        waited, in_all = map(sum, zip(*self.seconds))
        if waited <= STARVED * in_all:
            return None
        return (f"the loader is the bottleneck: {waited / in_all:.0%} of the last {WINDOW} steps' time went by waiting "
                f"for images. Raise --workers (now {run.config.data.workers}), or store the images at about the size "
                "that they are trained in")


class LossScale:
    name = "loss scale collapse"

    def look(self, run: Run, record: dict[str, Any], image_ids: list[int]) -> Optional[str]:
        scale = record.get("loss_scale", 1.0)
        if scale >= 1:
            return None
        return (f"fp16's loss scale has fallen to {scale:.3g}: gradients overflow even where the loss is not enlarged, "
                "and such steps teach nothing. Take --precision bf16 or float32, or lower --lr")


class DeadLayers:
    """Reads the gradients just before the optimizer's step, after which they are gone."""

    name = "dead layers"

    def __init__(self, run: Run) -> None:
        self.weights = [(name, weight) for name, weight in run.unwrapped.named_parameters()
                        if weight.requires_grad and not name.startswith(IDLE)]
        self.silent: set[str] = set()  # at the last reading, and those of them that were silent before, too
        self.dead: set[str] = set()
        self.due = False
        run.optimizer.register_step_pre_hook(self.read)

    @torch.no_grad()
    def read(self, *_: Any) -> None:
        if not self.due:
            return
        there = [(name, weight.grad) for name, weight in self.weights if weight.grad is not None]
        shares = torch.stack([silent_share(name, gradient) for name, gradient in there]).tolist()
        silent = {name for name, weight in self.weights if weight.grad is None}
        silent |= {name for (name, _), share in zip(there, shares) if share >= (DEAD_UNITS if is_hidden(name) else 1)}
        self.dead, self.silent = silent & self.silent, silent

    def look(self, run: Run, record: dict[str, Any], image_ids: list[int]) -> Optional[str]:
        self.due = (run.step + 1) % EVERY == 0  # the next step's
        if not self.dead:
            return None
        return (f"(nearly) no gradient reaches {shortened(sorted(self.dead))}, which then cannot learn. After a loss "
                "spike: go on from best.pt with a lower --lr. From the start: is there a weight of 0 in the loss?")


def is_hidden(name: str) -> bool:
    """Is a row of this weight a hidden unit behind a relu, which dies alone?"""
    return name.endswith(".linear1.weight")


def silent_share(name: str, gradient: Tensor) -> Tensor:
    """The share of a gradient that is exactly 0 (0-dim), by rows where a row is a hidden unit."""
    silent = gradient == 0
    return (silent.all(dim=1) if is_hidden(name) else silent).float().mean()


def shortened(items: list[Any], most: int = 8) -> str:
    """ "a, b, c and 4 more" """
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(map(str, items[:most])) + more


class Guards:
    """All guards over one run."""

    def __init__(self, run: Run) -> None:
        self.guards = [LossSpike(), Starvation(), LossScale(), DeadLayers(run)]
        self.speaking: set[str] = set()

    def look(self, run: Run, record: dict[str, Any], image_ids: list[int]) -> list[Alert]:
        """What is new since the last step. `record` is what the log keeps of this one, over the images `image_ids`."""
        texts = {guard.name: guard.look(run, record, image_ids) for guard in self.guards}
        new = [Alert(name, text) for name, text in texts.items() if text and name not in self.speaking]
        self.speaking = {name for name, text in texts.items() if text}
        return new


# ── where did it begin? ─────────────────────────────────────────────────────────────────────────────────────────────


def first_non_finite(run: Run, batches: list[Any]) -> str:
    """Which module was the first to give NaN or infinity for finite input, in words; "" if none does.

    The batches go through the model once more, watched (dropout draws anew). If all outputs are finite, it is the
    backward pass that spoils the gradients, and `Run.refuse_non_finite` names the first of those.
    """
    found: list[str] = []

    def watch(name: str) -> Callable:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if not found and not is_finite(output) and is_finite(inputs):
                found.append(f"{name} ({type(module).__name__})")
        return hook

    # Inner modules end before outer ones, so the first that is found is the innermost.
    handles = [module.register_forward_hook(watch(name)) for name, module in run.unwrapped.named_modules() if name]
    try:
        # A compiled block would pass by what is hooked to its inside.
        with torch.no_grad(), run.precision.autocast(), torch.compiler.set_stance("force_eager"):
            for batch in batches:
                batch = batch.to(run.device)
                if not found:
                    run.unwrapped(batch.normalised(), batch.pad_mask, batch.targets)
    except (ValueError, FloatingPointError):  # what the model itself refuses comes after where it began
        pass
    finally:
        for handle in handles:
            handle.remove()
    return f"The first to give it in the forward pass is {found[0]}." if found else ""


def spoilt(run: Run) -> str:
    """Which weights (or running statistics) are not finite themselves, in words; "" if all are."""
    names = [name for name, value in run.unwrapped.state_dict().items() if not is_finite(value)]
    return names and (
        f"step {run.step}: the weights themselves are not finite any more ({shortened(names)}), so no image is the "
        f"cause. What was saved with them is of no use: go on from {BEST} or {PREVIOUS}, if that is older (finetune "
        "--weights FILE), or begin again; with a lower learning rate, or in float32") or ""


def is_finite(value: Any) -> bool:
    """Are all numbers of a tensor finite, or of all tensors in a tuple or a list?"""
    if isinstance(value, (tuple, list)):
        return all(map(is_finite, value))
    return not isinstance(value, Tensor) or not value.is_floating_point() or bool(value.isfinite().all())
