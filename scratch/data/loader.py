"""loader: in which order are the images seen, by which rank, and from where does a resumed run go on?

    order of an epoch = a permutation that follows from (seed, epoch) alone
    joint batch k     = order[k·W·B : (k+1)·W·B]          B = batch_size, W = world_size
    rank r takes        its r-th part of B images          so W ranks together see what one process would, in its order

Nothing here has a state that grows with the steps, so the position in the data is two numbers, (epoch, batch), and a
resumed run starts there without reading the images before. Samples, too, depend on (seed, epoch, index) alone, not on
the worker. Proven in tests/data/test_loader.py.
"""

from __future__ import annotations

import os
import random
import warnings
from functools import partial
from typing import Any, Iterator

import torch
from torch.utils.data import DataLoader, Sampler

from scratch.data.batch import collate
from scratch.data.workers import GuardedLoader, Packing, first, start_worker


class ResumableBatchSampler(Sampler):
    """Yields the batches of one epoch as lists of (epoch, index), from any batch on.

    length                the number of images in the data set
    batch_size            images of one batch of one rank
    train                 True: shuffled, and a last joint batch that is not full is dropped unless it is the only one,
                          so that ranks always have equally many batches. False: in order, every image exactly once
                          over all ranks; a rank may then have one batch less than another
    Raises ValueError when there are fewer training images than ranks.
    """

    def __init__(self, length: int, batch_size: int, *, seed: int, train: bool,
                 rank: int = 0, world_size: int = 1) -> None:
        if batch_size < 1:
            raise ValueError(f"got batch_size {batch_size}, wanted 1 or more")
        if train and length < world_size:
            raise ValueError(f"got {length} training images for {world_size} processes, wanted at least one for each")
        self.length, self.batch_size, self.seed, self.train = length, batch_size, seed, train
        self.rank, self.world_size = rank, world_size
        self.epoch = self.start = 0

    def set_position(self, epoch: int, batch: int = 0) -> None:
        """The next iteration is over this epoch, from its `batch`-th batch on (counted from 0)."""
        self.epoch, self.start = epoch, batch

    def __len__(self) -> int:
        """This rank's batches in a whole epoch, also if the iteration starts later."""
        return sum(1 for _ in self._shares())

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = list(range(self.length))
        if self.train:
            mixed = random.Random(f"order {self.seed} {self.epoch}").getrandbits(63)
            order = torch.randperm(self.length, generator=torch.Generator().manual_seed(mixed)).tolist()
        for k, share in enumerate(self._shares()):
            if k >= self.start:
                yield [(self.epoch, order[place]) for place in share]

    def _shares(self) -> Iterator[range]:
        """The places in the epoch's order that are this rank's, batch by batch."""
        joint = self.batch_size * self.world_size
        for begin in range(0, self.length, joint):
            size = min(joint, self.length - begin)
            if self.train and size < joint and begin > 0:
                return
            # A full joint batch splits into batch_size each, one that is not as evenly as it can.
            first, last = (begin + size * rank // self.world_size for rank in (self.rank, self.rank + 1))
            if first < last:
                yield range(first, last)


def make_loader(dataset: Any, batch_size: int, *, workers: int, seed: int, train: bool, device_type: str,
                rank: int = 0, world_size: int = 1) -> tuple[DataLoader | GuardedLoader, ResumableBatchSampler]:
    """A loader of Batches from a data set of (epoch, index), and the sampler that says where it begins.

    workers       processes that load; what goes wrong in one is a LoaderError here (workers.py)
    device_type   "cuda" pins the batches' memory, so that copying them overlaps with computing
    """
    sampler = ResumableBatchSampler(len(dataset), batch_size, seed=seed, train=train, rank=rank, world_size=world_size)
    # The loader draws its workers' base seed in every epoch. From its own generator, or a resumed run, which starts its
    # loader once more, would find the global one a draw further on.
    how = dict(batch_sampler=sampler, pin_memory=device_type == "cuda", generator=torch.Generator().manual_seed(seed))
    if not workers:
        return DataLoader(dataset, collate_fn=collate, **how), sampler
    # torch warns of more workers than cores, here and when they start. Each has one thread, so this is harmless.
    warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
    loader = DataLoader(Packing(dataset), collate_fn=first, num_workers=workers, persistent_workers=True,
                        prefetch_factor=4, worker_init_fn=partial(start_worker, os.getpid()), **how)
    return GuardedLoader(loader), sampler
