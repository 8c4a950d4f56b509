"""gpu_count: what does a piece of code launch, read, write, multiply and keep on a GPU?

    operation ──▶ dispatcher ──▶ Counter ─┬─ launches   one for each operation that is no view
                                          ├─ bytes      its operands read once, its results written once
                                          ├─ FLOPs      of products: 2·m·k·n
                                          └─ memory     of all storages that are alive; the peak of each part

Every operation of PyTorch passes one door, the dispatcher, with its operands: their shapes say what it costs. So the
tensors may be fake (fake_cuda.py), and a training step of 145 million parameters is counted in a minute without a GPU.

What is not seen: caches (an operand may come from one), the workspace of a library, what an allocator rounds up, and
how a library splits an operation. A fused operation of `torch.nn` counts as one launch that reads each operand once:
the least that it can be.
Checked in tests/test_gpu_estimate.py against torch.profiler's counts, FLOPs and memory on a CPU.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any, Iterable, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from scratch.training.step_memory import Alive

# Nothing is launched for these: they name memory, or ask for it, or read what the CPU knows.
NO_KERNEL = frozenset("""alias detach lift_fresh _unsafe_view _reshape_alias empty empty_like empty_strided new_empty
new_empty_strided set_ resize_ is_same_size sym_size sym_stride sym_numel promote_types is_contiguous""".split())
# The first operand is written and not read.
WRITES_ONLY = frozenset("copy_ fill_ zero_ random_ uniform_ normal_ bernoulli_".split())
# How many tensors, and how many blocks of CHUNK numbers, one launch of a _foreach operation takes, by the number of
# lists that it reads and writes (ATen/native/cuda/MultiTensorApply.cuh).
TENSORS_OF_A_LAUNCH, BLOCKS_OF_A_LAUNCH, CHUNK = {1: 110, 2: 64, 3: 48, 4: 36, 5: 30}, 320, 2**16


class Row(NamedTuple):
    """One operation."""

    part: str  # "forward", "backward", …: what the counter was told
    place: str  # file:function of scratch/ or reference/ that called it, or the node of autograd
    operation: str
    launches: int
    bytes: int  # read and written
    flops: int
    half: bool  # are the products of half precision?


@dataclass(frozen=True)
class Total:
    """The sum of some rows."""

    launches: int
    gigabytes: float
    teraflops: float


def total(rows: Iterable[Row]) -> Total:
    rows = list(rows)
    return Total(sum(row.launches for row in rows), sum(row.bytes for row in rows) / 1e9,
                 sum(row.flops for row in rows) / 1e12)


class Counter(Alive):
    """While it is active, appends a Row for each operation, and follows which storages are alive.

    `part` names what runs. `peaks` holds, in bytes, the most that was alive in each part.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[Row] = []

    def forget_rows(self) -> None:
        """Begin anew; what is alive stays alive."""
        self.rows.clear()
        self.peaks.clear()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func.namespace in ("profiler", "prim"):
            return result
        results = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        for tensor in results:
            self._follow(tensor)
        name = func.overloadpacket.__name__
        if func.is_view or name in NO_KERNEL or name == "_local_scalar_dense":
            return result
        flops, half = products(name, args, results)
        self.rows.append(Row(self.part, _place(), name, launches(name, args),
                             _moved(func, name, args, kwargs, results), flops, half))
        return result


def _moved(func: Any, name: str, args: tuple, kwargs: dict, results: list[Tensor]) -> int:
    """Bytes that an operation reads and writes."""
    written, only_written = [], set()
    for i, argument in enumerate(func._schema.arguments):
        if argument.alias_info is None or not argument.alias_info.is_write:
            continue
        value = args[i] if i < len(args) else kwargs.get(argument.name)
        tensors = [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]
        written += tensors
        if argument.kwarg_only:  # out=
            only_written |= {id(tensor) for tensor in tensors}
    read = 0
    for i, tensor in enumerate(leaf for leaf in tree_leaves(args) if isinstance(leaf, Tensor)):
        unread = i == 0 and (name in WRITES_ONLY or (name.startswith(("addmm", "baddbmm")) and kwargs.get("beta") == 0))
        read += 0 if unread else size_of(tensor)
    for tensor in tree_leaves(kwargs):  # out= is read only where it is an operand, too, and then it is among the others
        if isinstance(tensor, Tensor) and id(tensor) not in only_written:
            read += size_of(tensor)
    return read + sum(size_of(tensor) for tensor in {id(t): t for t in written or results}.values())


def size_of(tensor: Tensor) -> int:
    """Bytes of a tensor; what a broadcast repeats counts once, and never more than its memory."""
    numbers = math.prod(n for n, stride in zip(tensor.shape, tensor.stride()) if stride)
    return min(numbers * tensor.element_size(), tensor.untyped_storage().nbytes())


def launches(name: str, args: tuple) -> int:
    """Kernels that an operation launches."""
    if name == "convolution_backward":
        return sum(map(bool, args[-1]))  # one for each gradient that is wanted
    if not name.startswith(("_foreach", "_fused", "_amp_foreach")):
        return 1
    lists = [a for a in args if isinstance(a, (list, tuple)) and a and isinstance(a[0], Tensor)]
    depth = len(lists) + (not name.endswith("_"))  # the results are a list, too
    most, count, tensors, blocks = TENSORS_OF_A_LAUNCH[min(depth, 5)], 0, 0, 0
    for tensor in lists[0]:
        tensors += 1
        blocks += max(1, -(-tensor.numel() // CHUNK))
        while blocks >= BLOCKS_OF_A_LAUNCH:
            count, tensors, blocks = count + 1, 1, blocks - BLOCKS_OF_A_LAUNCH
        if tensors >= most:
            count, tensors, blocks = count + 1, 0, 0
    return count + (blocks > 0)


def products(name: str, args: tuple, results: list[Tensor]) -> tuple[int, bool]:
    """FLOPs of a product, a multiplication and an addition being two, and whether it is in half precision."""
    if name in ("mm", "bmm", "addmm", "addmm_", "baddbmm", "baddbmm_"):
        a, b = args[-2:] if len(args) > 2 else args[:2]
        return 2 * a.numel() * b.shape[-1], a.element_size() == 2
    if name == "convolution":
        return 2 * results[0].numel() * args[1][0].numel(), args[0].element_size() == 2
    if name == "convolution_backward":
        gradient, _, weight = args[:3]
        return 2 * gradient.numel() * weight[0].numel() * sum(map(bool, args[-1][:2])), gradient.element_size() == 2
    if "scaled_dot_product" in name:
        q, k, v = args[1:4] if "backward" in name else args[:3]
        forward = 2 * q.shape[:-1].numel() * k.shape[-2] * (q.shape[-1] + v.shape[-1])
        return forward * 5 // 2 if "backward" in name else forward, q.element_size() == 2  # backward: five products
    return 0, False


def _place() -> str:
    """Where in scratch/ or reference/ the running operation was called; else the node of autograd that calls it."""
    frame = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename
        for folder in ("/scratch/", "/reference/"):
            if folder in file:
                return f"{file.rpartition(folder)[2].removesuffix('.py')}:{frame.f_code.co_name}"
        frame = frame.f_back
    node = torch._C._current_autograd_node()
    return type(node).__name__ if node is not None else ""
