"""step_memory: will a training step fit into the GPU? Counted before the first one, without using its memory.

    fake tensors: shape, dtype, device ── no numbers ──▶ one forward and backward, the optimizer's step
                                                              │
    every operation's results ──▶ Alive: the bytes that are alive at once, and their peak

    peak of a step = max(forward and backward + the optimizer's state, the optimizer's step)

Memory grows by the same amount for each image: all that depends on the batch is proportional to it. So where the batch
is too large, a second count, of a smaller one, gives the line, and the line gives the largest batch that fits.

What is counted is what PyTorch asks for. Matching and losses (some MiB) are left out. The allocator rounds up, and
libraries need memory of their own: SPARE. Proven in tests/training/test_step_memory.py; tests/test_gpu_estimate.py
holds `Alive` against PyTorch's own profiler.
Read: Alive → step_peak → largest_batch → what_fits → surely_fits → say_what_fits
"""

from __future__ import annotations

import weakref
from collections import defaultdict
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import lru_cache
from typing import Any, Callable, Iterable, Optional

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from scratch.config import PRESETS, Config, DataConfig
from scratch.training.muon import Muon, muon_groups
from scratch.training.optimizer import AdamW, parameter_groups

SPARE = 1.0  # GiB that the allocator and the libraries need beside what is counted; an assumption
LOW = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Alive(TorchDispatchMode):
    """While it is active, follows which storages are alive.

    alive   bytes; peaks: the most of them while `part` had each of its values
    """

    def __init__(self) -> None:
        super().__init__()
        self.part, self.alive = "", 0
        self.peaks: dict[str, int] = defaultdict(int)
        self._known: set[int] = set()

    def hold(self, tensors: Iterable[Tensor]) -> None:
        """Count the memory of tensors that were there before."""
        for tensor in tensors:
            self._follow(tensor)

    def _follow(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self.alive += size

            def freed() -> None:
                self._known.discard(key)
                self.alive -= size

            weakref.finalize(storage, freed)
        self.peaks[self.part] = max(self.peaks[self.part], self.alive)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ == "_local_scalar_dense":
            return 0  # a number is read, the seed of a dropout mask: a fake tensor has none
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._follow(leaf)
        return result


def fake_tensors() -> AbstractContextManager:
    """While it lasts, tensors are made without memory, on any device that this PyTorch knows."""
    from torch._subclasses.fake_tensor import FakeTensorMode  # on demand: it loads a good part of PyTorch's compiler

    return FakeTensorMode(allow_non_fake_inputs=True)


def step_peak(make_model: Callable[[], nn.Module], config: Config, shape: tuple[int, int, int], device: str,
              precision: str, pretend: Callable[[], AbstractContextManager] = fake_tensors) -> float:
    """The GiB that are alive at the peak of a training step of `shape` (images, height, width).

    pretend   makes tensors without memory
    """
    B, H, W = shape
    with pretend():
        with torch.device(device):
            model = make_model().train()
            images, pad_mask = torch.zeros(B, 3, H, W), torch.zeros(B, H, W, dtype=torch.bool)
            pixels = torch.zeros(B, 3, H, W, dtype=torch.uint8)  # the batch as it came from the loader
        train, kind = config.train, torch.device(device).type
        optimizer = (Muon(muon_groups(model, train)) if train.optimizer == "muon" else
                     AdamW(parameter_groups(model, train)))
        with Alive() as alive:
            alive.hold([*model.parameters(), *model.buffers(), images, pad_mask, pixels])
            alive.part = "pass"
            with torch.autocast(kind, LOW[precision]) if precision in LOW else nullcontext():
                answers = [leaf for leaf in tree_leaves(model(images, pad_mask))
                           if isinstance(leaf, Tensor) and leaf.requires_grad]
            torch.autograd.backward(answers, [torch.empty_like(answer) for answer in answers])
            del answers
            before = alive.alive
            alive.part = "first step"
            optimizer.step()  # makes the optimizer's state, which every later pass finds there
            state = alive.alive - before
            alive.part = "optimizer"
            optimizer.step()
        average = sum(p.nbytes for p in model.parameters()) if train.ema_decay else 0
        return (max(alive.peaks["pass"] + state, alive.peaks["optimizer"]) + average) / 2**30


def largest_batch(peak: Callable[[int], float], gib: float, known: Optional[tuple[int, float]] = None) -> int:
    """The largest batch whose step stays within `gib` GiB, 0 if not even one image does.

    peak    GiB of a step of so many images, which grow by the same amount for each; known: one that was counted
    The answer is counted itself: where it turns out to be above, the next smaller one is tried.
    """
    high, most = known or (4, peak(4))
    low = max(1, high // 2)
    slope = (most - peak(low)) / (high - low) if high > low else 0.0
    size = int((gib - most) / slope + high) if slope > 0 else 0
    while size > 0 and peak(size) > gib:
        size -= 1
    return max(size, 0)


# The GiB of a step in half precision, counted for a preset as it is: images, side of the square. Held, as budgets, by
# tests/test_gpu_estimate.py. They spare the usual runs the count, which takes a minute for a large model.
COUNTED = {"tiny": (16, 192, 0.205), "detr_r50_fast": (16, 256, 1.81), "detr_141m_fast": (16, 256, 4.3)}


def surely_fits(config: Config, precision: str, limit: float) -> bool:
    """Is a step within `limit` GiB by what was counted of its preset? False where only a count can tell.

    Up to the preset's number of images its peak is a bound, beyond it the peak in proportion: too much, since the
    weights do not grow.
    """
    if config.preset not in COUNTED or precision not in LOW:
        return False
    (images, side, gib), preset = COUNTED[config.preset], PRESETS[config.preset]
    same = replace(config.model, num_classes=preset.model.num_classes) == preset.model
    same = same and config.train.optimizer == preset.train.optimizer and not config.train.ema_decay
    bound = gib * max(1.0, config.train.batch_size / images)
    return same and max(usual_size(config.data)) <= side and bound <= limit


def usual_size(data: DataConfig) -> tuple[int, int]:
    """(height, width) of a batch: the square that is asked for, else one that holds pictures of 4:3 either way."""
    side = data.short_side if data.square else min(data.max_size, data.short_side * 4 // 3)
    return side, side


def what_fits(peak: Callable[[int], float], config: Config, available: float, device: str) -> str:
    """A line that says that a batch will not fit into `available` GiB, and which one will; "" if it fits."""
    batch_size, (height, width) = config.train.batch_size, usual_size(config.data)
    limit, wanted = available - SPARE, peak(batch_size)
    if wanted <= limit:
        return ""
    size = largest_batch(peak, limit, (batch_size, wanted)) if batch_size > 1 else 0
    line = (f"memory: {batch_size} images of {height}×{width} at once need about {wanted + SPARE:.1f} GiB (counted, "
            f"before the first step), and {device} has {available:.1f} GiB: ")
    if size == 0:
        return line + "not even one image fits. Take a smaller --short-side, or a smaller --preset"
    part = max(n for n in range(1, size + 1) if batch_size % n == 0)
    return line + (f"{size} {'fits' if size == 1 else 'fit'}. --batch-size {part} --accumulate "
                   f"{config.train.accumulate * batch_size // part} takes the same steps in parts; left as it is, a "
                   "batch that does not fit is halved")


def say_what_fits(make_model: Callable[[], nn.Module], config: Config, precision: str, device: torch.device,
                  say: Callable[[str], None], available: Optional[float] = None) -> None:
    """Say it if a step of `config` will not fit into a GPU, and which batch would. Nothing is said where it fits.

    make_model   a model of the configuration, of which only what learns requires a gradient
    precision    in which the run computes: float32, bf16 or fp16
    available    GiB of the device; None: it is asked
    """
    try:
        gib = memory_of(device) if available is None else available
    except RuntimeError as error:  # a driver that does not tell
        say(f"memory: the device does not say how much it has ({str(error)[:200]})")
        return
    if surely_fits(config, precision, gib - SPARE):
        return

    @lru_cache(maxsize=None)
    def peak(images: int) -> float:
        return step_peak(make_model, config, (images, *usual_size(config.data)), str(device), precision)

    say("memory: counting what a step needs (up to a minute)")
    try:
        line = what_fits(peak, config, gib, str(device))
    # A run needs no such line: whatever hinders the count, it goes on.
    except Exception as error:
        line = f"memory: what a step needs could not be counted ({type(error).__name__}: {str(error)[:200]})"
    if line:
        say(line)


def memory_of(device: torch.device) -> float:
    """The GiB that this process may have of a GPU: what is free there, and what it holds already."""
    free, _ = torch.cuda.mem_get_info(device)
    return (free + torch.cuda.memory_reserved(device)) / 2**30
