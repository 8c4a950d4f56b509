"""distributed: how do several processes train one model? Data-parallel training.

    torchrun --nproc-per-node 2 detr_scratch.py …

    rank 0:  its images ─▶ model copy ─▶ gradient ─┐
                                                   ├─▶ mean ─▶ the same step on every rank ─▶ still the same weights
    rank 1:  its images ─▶ model copy ─▶ gradient ─┘

Each rank is a process with a GPU (or, over gloo, some CPU cores) of its own.
DistributedDataParallel averages the gradients (all-reduce) during the backward pass; all other
communication between ranks is in this file. Started without torchrun there is one rank, and every
method does nothing.
"""

from __future__ import annotations

import gc
import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

# That a rank may let the others wait: one of them looks through the data, fetches weights, or judges for all.
PATIENCE = timedelta(minutes=10)
# What gloo, NCCL and the store that ranks meet at say of a rank that is gone, or does not answer.
_LOST = ("connection closed by peer", "connection reset by peer", "connection refused", "broken pipe", "timed out",
         "socket timeout", "remote process exited", "nccl", "gloo", "store")


@dataclass(frozen=True)
class Distributed:
    """This process's place among the ranks; made by `from_environment`."""

    rank: int
    world_size: int
    device: torch.device

    @classmethod
    def from_environment(cls, device: str) -> "Distributed":
        """Join the other ranks, as torchrun's RANK, WORLD_SIZE and LOCAL_RANK tell; alone without them.

        device   "cpu", "cuda", or with one process "cuda:1" and the like; rank r of a machine takes its GPU number r.
        Raises ValueError if the device is not there or the environment is incomplete.
        """
        wanted = torch.device(device)
        if wanted.type == "cuda" and not torch.cuda.is_available():
            raise ValueError(f"got device {device!r}, but PyTorch sees no GPU; use --device cpu, or a PyTorch for CUDA")
        world_size = int(os.environ.get("WORLD_SIZE", 1))
        if world_size == 1:
            if wanted.type == "cuda" and wanted.index is not None:
                torch.cuda.set_device(wanted)  # for all that asks for "the" GPU: pinned memory, its random generator
            return cls(rank=0, world_size=1, device=wanted)

        missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
        if missing:
            raise ValueError(f"got WORLD_SIZE {world_size} but not {', '.join(missing)}; start the ranks with torchrun")
        rank, local_rank = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
        if wanted.type == "cuda":
            gpus = torch.cuda.device_count()
            if wanted.index is not None or local_rank >= gpus:
                raise ValueError(f"got device {device!r} for process {local_rank} of a machine with {gpus} GPUs; "
                                 "wanted 'cuda', and at most one process for each GPU (torchrun --nproc-per-node)")
            wanted = torch.device("cuda", local_rank)
            torch.cuda.set_device(wanted)
            dist.init_process_group("nccl", store=_store(), rank=rank, world_size=world_size, timeout=PATIENCE,
                                    device_id=wanted)
        else:
            dist.init_process_group("gloo", store=_store(), rank=rank, world_size=world_size, timeout=PATIENCE)
        return cls(rank, world_size, wanted)

    @property
    def is_main(self) -> bool:
        """True on the one rank that prints and saves."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model whose backward pass leaves every rank with the mean of all ranks' gradients.

        Buffers too (DDP's default, whose name changes with its version): as each step begins, rank 0's running
        statistics replace the other ranks'. A checkpoint holds rank 0's alone, so only this way does a resumed rank
        find what it would have had; and it costs a few kilobytes. The statistics are thus those of rank 0's images, not
        of the joint batch (frozen norms have none).
        """
        if self.world_size == 1:
            return model
        return DistributedDataParallel(
            model, device_ids=[self.device.index] if self.device.type == "cuda" else None,
            gradient_as_bucket_view=True)  # the latter: no second copy of all gradients

    def unwrap(self, model: nn.Module) -> nn.Module:
        return model.module if isinstance(model, DistributedDataParallel) else model

    def no_sync(self, model: nn.Module) -> AbstractContextManager:
        """The context for all but the last pass of a step: gradients add up on their rank, and the ranks meet once."""
        return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()

    def share_buffers(self, model: nn.Module) -> None:
        """Give every rank rank 0's buffers, for an evaluation that is split over the ranks.

        After a training step they differ by that step's own images until the next step begins.
        """
        if self.world_size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)

    def mean(self, values: dict[str, Tensor]) -> dict[str, float]:
        """Each scalar's mean over the ranks, as floats: one message, and one copy to the host, for all of them.

        Every rank gives the same names in the same order.
        """
        stacked = torch.stack([value.detach() for value in values.values()])
        if self.world_size > 1:  # alone, a number of the host stays there: a trip to the GPU would wait for its work
            stacked = stacked.to(self.device)
            dist.all_reduce(stacked)
        return dict(zip(values, (stacked / self.world_size).tolist()))

    def gather(self, items: list[Any]) -> list[Any]:
        """The lists of all ranks, one after the other in the order of the ranks, on every rank."""
        if self.world_size == 1:
            return list(items)
        lists: list[list[Any]] = [[] for _ in range(self.world_size)]
        dist.all_gather_object(lists, items)
        return [item for one in lists for item in one]

    def barrier(self) -> None:
        """Wait until every rank is here."""
        if self.world_size > 1:
            dist.barrier()

    def close(self) -> None:
        """Leave the other ranks; let go of the wrapped model first."""
        if self.world_size > 1:
            # A wrapped model lies in a reference cycle and holds on to the group. Were it collected only at the end,
            # gloo's threads would outlive Python, and now and then abort the process on its way out.
            gc.collect()
            dist.destroy_process_group()


def _store() -> dist.Store | None:
    """Where ranks find each other; None: where PyTorch has them meet.

    torchrun keeps one store for all of its tries. In the second one a rank may find there the address of one that is
    dead, and wait for it until PATIENCE ends; so each try has names of its own. (On several machines the tries have no
    common number, and nothing is changed.)
    """
    alone = os.environ.get("LOCAL_WORLD_SIZE") == os.environ.get("WORLD_SIZE")
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" or not alone:
        return None
    store = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, timeout=PATIENCE)
    return dist.PrefixStore(f"try {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)


def lost_rank(error: RuntimeError) -> str:
    """What to say where a collective operation failed because another rank is gone; "" for any other error."""
    text, ranks = " ".join(str(error).split()), int(os.environ.get("WORLD_SIZE", 1))
    if ranks == 1 or not any(words in text.lower() for words in _LOST):
        return ""
    return (f"process {os.environ.get('RANK')} of {ranks} has lost another one: it was killed (most often because "
            "memory ran out), ended with an error of its own (look above, or at the other machines), or did not answer "
            f"for {PATIENCE.seconds // 60} minutes ({text[:200]})")
