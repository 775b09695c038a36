"""The processes of a run: one alone, or those that torchrun started, on one machine or several."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch.distributed as dist

PATIENCE = timedelta(days=7)  # one process may have drawn its share long before another


@dataclass(frozen=True)
class Ranks:
    """Process `rank` of `count`. What is gathered lies in the memory of CPUs, so gloo serves for GPUs, too."""

    rank: int = 0
    count: int = 1

    def own(self, batches: int) -> range:
        """Which batches this process draws."""
        return range(self.rank, batches, self.count)

    def gather(self, own: list, batches: int) -> list | None:
        """What all processes have for their own batches, in the order of batches; None but for the first process."""
        if self.count == 1:
            return own
        found = [None] * self.count if self.rank == 0 else None
        dist.gather_object(own, found)
        return found and [found[i % self.count][i // self.count] for i in range(batches)]

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """The first process before all others: for what is made once, and found there afterwards."""
        if self.count > 1 and self.rank:
            dist.barrier()
        yield
        if self.count > 1 and not self.rank:
            dist.barrier()


@contextmanager
def ranks() -> Iterator[Ranks]:
    if "RANK" not in os.environ:
        yield Ranks()
        return
    dist.init_process_group("gloo", timeout=PATIENCE)
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
