"""cuda_graph: a training step launches thousands of kernels one by one; what if they were launched as one?

    eager   CPU  launch │ launch │ launch │ …         each kernel launch takes the CPU some 10 µs
    graph   CPU  replay ──▶ GPU: all of them          recorded once, with the addresses of the memory that they use

    images, pad_mask ─copy─▶ static memory ─▶ [graph: forward] ─▶ outputs ─▶ matching, losses, eager
                                                                                │
    optimizer, eager ◀─ gradients of the weights ◀─ [graph: backward] ◀─────────┘ gradients of the outputs

A CUDA graph repeats kernels and nothing else: no Python, no number read on the CPU. So it holds the model's forward and
backward, whose shapes are the same in every step, and leaves matching (the number of objects differs), losses, loss
scaling and the optimizer alone. What follows from that:

    batches of another shape        pass eagerly: take --square, and no batch differs
    denoising                       makes queries of the targets, another number in each step: refused
    dropout                         draws anew in each replay: the graph knows PyTorch's generator of the GPU
    attention by tiles, dropout     seeds a generator on the CPU: all weights at once instead (ops/fast/switch)
    running statistics              move in each replay, as the kernels do that
    gradient accumulation           the graph writes gradients to the same memory each time: see `_set_aside`

Before it is recorded, a pass is tried with `HostReads`, which names a step that a graph would not repeat.
torch.cuda.make_graphed_callables records. Whether it is faster on a GPU has not been measured yet:
benchmarks/on_a_gpu.sh does. Proven, with a stand-in for the recording, in tests/training/test_cuda_graph.py.
Read: no_graph → GraphedModel
"""

from __future__ import annotations

import gc
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, Callable, Iterator, Optional

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from scratch.config import ModelConfig
from scratch.ops.fast.switch import for_replay
from scratch.training.host_reads import HostReads


def no_graph(model: ModelConfig, device: torch.device, world_size: int) -> str:
    """Why a CUDA graph cannot be used here; "" if it can."""
    if device.type != "cuda":
        return f"it needs a GPU of CUDA, and the device is {device}"
    if world_size > 1:
        return f"it is for one process, and there are {world_size}"
    if model.denoising:
        return f"denoising = {model.denoising} makes another number of queries in each step"
    return ""


class Pass(nn.Module):
    """What is recorded: tensors in, tensors out.

    autocast   in which the forward runs; it ends before the backward, as in an eager step. It must keep no half copies
               of the weights: a copy made outside of the graph would stay as it is. (So the gradients of a weight that
               is used twice add up in float32, and not in half precision.)
    """

    def __init__(self, model: nn.Module, autocast: Callable[[], AbstractContextManager] = nullcontext) -> None:
        super().__init__()
        self.model, self.autocast = model, autocast

    def forward(self, images: Tensor, pad_mask: Tensor) -> dict[str, Any]:
        with self.autocast():
            return self.model(images, pad_mask)


class GraphedModel:
    """A model for the training loop: called as the model is, it replays a graph of it where it can.

    The first batch is recorded; batches of its shape are replayed from then on. All others, and everything outside of
    training, go to the model itself. The outputs lie in the graph's memory: the next call overwrites them.

    model   on its GPU, in training; its parameters and buffers may change their values, and must stay where they are
    say     is called with a line where the graph is not used
    """

    def __init__(self, model: nn.Module, say: Callable[[str], None]) -> None:
        self.model, self.say = model, say
        self.weights = [p for p in model.parameters() if p.requires_grad]
        self.off = False  # it cannot be recorded
        self._said_shapes = False
        self.graphed: Optional[nn.Module] = None
        self.shape: Optional[torch.Size] = None

    def forget(self) -> None:
        """Give the graph's memory back. The next batch is recorded, whatever its shape."""
        self.graphed = self.shape = None
        gc.collect()  # what was recorded refers to itself

    def __call__(self, images: Tensor, pad_mask: Tensor, *targets: Any) -> Any:
        if self.off or not self.model.training or not torch.is_grad_enabled():
            return self.model(images, pad_mask, *targets)
        if self.graphed is None:
            self._record(images, pad_mask)
        if self.graphed is None or images.shape != self.shape:
            if self.graphed is not None and not self._said_shapes:
                self._said_shapes = True
                self.say(f"CUDA graph: it was recorded for {tuple(self.shape)} images, and these are "
                         f"{tuple(images.shape)}: batches of another shape go on without it (--square gives all one "
                         "shape)")
            return self.model(images, pad_mask, *targets)
        self._set_aside()
        return self.graphed(images, pad_mask)

    def _set_aside(self) -> None:
        """Move gradients of an earlier batch of the same step, to which this one's are to be added, to own memory.

        Autograd lets `.grad` be the memory to which the graph writes. A second replay would overwrite the first
        gradients, and then add them to themselves.
        """
        for weight in self.weights:
            if weight.grad is not None:
                weight.grad = weight.grad.clone()

    def _record(self, images: Tensor, pad_mask: Tensor) -> None:
        """Record a graph for batches like this one; or say why there is none."""
        kind, its_own = images.device.type, (images.clone(), pad_mask.clone())
        recorded = Pass(self.model, partial(
            torch.autocast, kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind), cache_enabled=False))
        try:
            with torch.autocast(kind, enabled=False), self._as_if_nothing_happened(images.device), for_replay():
                if found := host_reads(recorded, *its_own):
                    self._give_up(f"the CPU takes part in it: {found[0]}")
                    return
                self.graphed = torch.cuda.make_graphed_callables(recorded, its_own, allow_unused_input=True)
                self.shape = images.shape
        except torch.OutOfMemoryError:
            self._give_up("there is no memory for it")
        except RuntimeError as error:  # what CUDA says of a step that it cannot record
            self._give_up(str(error).strip().partition("\n")[0])

    def _give_up(self, why: str) -> None:
        self.off = True
        self.say(f"CUDA graph: the model cannot be recorded ({why}); the run goes on without it")

    @contextmanager
    def _as_if_nothing_happened(self, device: torch.device) -> Iterator[None]:
        """Recording takes some passes: running statistics and random numbers are as before when it is over."""
        buffers = list(self.model.buffers())
        before = [buffer.clone() for buffer in buffers]
        try:
            with torch.random.fork_rng([device] if device.type == "cuda" else []):
                yield
        finally:
            with torch.no_grad():
                for buffer, value in zip(buffers, before):
                    buffer.copy_(value)


def host_reads(model: nn.Module, *inputs: Tensor) -> list[str]:
    """The steps of a forward and a backward in which the CPU takes part (host_reads.py)."""
    with HostReads() as watch:
        outputs = [leaf for leaf in tree_leaves(model(*inputs)) if isinstance(leaf, Tensor) and leaf.requires_grad]
        weights = [p for p in model.parameters() if p.requires_grad]
        torch.autograd.grad(outputs, weights, [torch.empty_like(output) for output in outputs], allow_unused=True)
    return watch.found
