"""host_reads: which operations of a piece of code need the CPU to wait for the GPU, or the GPU for the CPU?

    x.item()  if x > 0:  x.nonzero()  x[mask]       a number, or a shape, that only the GPU knows
    torch.tensor([…])  x.to("cuda")                 numbers that only the CPU knows
    x.random_(generator=g)                          random numbers of a generator that nobody else knows

Such a step costs time anywhere: the CPU waits until the GPU has done all that was launched before. In a CUDA graph
(cuda_graph.py) it is an error, because a graph repeats what the GPU does and nothing that the CPU does: a number that the
CPU read, or drew, would stay that of the first time. Numbers of Python in an operation (x * 2) are no such step: they
are part of the kernel's launch, and the same each time.

HostReads sees every operation, because each one passes PyTorch's dispatcher. (`tolist` and `numpy` of a tensor of the
CPU itself do not; of a GPU's they are a copy.) Proven in tests/training/test_host_reads.py.
"""

from __future__ import annotations

import sys
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# What reads a number of a tensor, or makes a tensor whose shape depends on the numbers of another.
READS = frozenset("""_local_scalar_dense equal is_nonzero nonzero nonzero_static masked_select _unique2 unique_dim
unique_consecutive unique_dim_consecutive bincount""".split())


class HostReads(TorchDispatchMode):
    """While it is active, notes each such step: `found` has "what (where)" for each, in their order.

    Nothing is changed, and nothing is refused.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        why = _why(func, args, kwargs, result)
        if why:
            self.found.append(f"{why} ({_place()})")
        return result


def _why(func: Any, args: tuple, kwargs: dict, result: Any) -> str:
    """What an operation asks of the other side, in words; "" if nothing."""
    name = func.overloadpacket.__name__
    if name in READS:
        return f"{name} reads numbers"
    if name == "repeat_interleave" and isinstance(args[0], Tensor) and "output_size" not in kwargs:
        return "repeat_interleave reads the length of its result"
    if name in ("index", "index_put", "index_put_", "_unsafe_index") and any(
            isinstance(leaf, Tensor) and not leaf.dtype.is_floating_point and leaf.element_size() == 1
            for leaf in tree_leaves(args[1])):
        return f"{name} by a mask reads how many are True"
    if name in ("lift_fresh", "lift_fresh_copy"):
        return "a tensor is made of numbers of the CPU"
    if kwargs.get("generator") is not None:
        return f"{name} draws from a generator of its own"
    devices = {leaf.device.type for leaf in tree_leaves((args, kwargs, result))
               if isinstance(leaf, Tensor) and (leaf.dim() or name in ("_to_copy", "copy_"))}
    return f"{name} copies between {' and '.join(sorted(devices))}" if len(devices) > 1 else ""


def _place() -> str:
    """The file, line and function of the innermost call that is not PyTorch's."""
    frame = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename.replace("\\", "/")
        if "/torch/" not in file:
            return f"{file.rpartition('/')[2]}:{frame.f_lineno} {frame.f_code.co_name}"
        frame = frame.f_back
    return "autograd"
