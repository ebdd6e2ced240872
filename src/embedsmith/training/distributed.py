"""Several processes as one: each embeds its share of a batch, all see every embedding, and gradients are added up.

    process 0   rows 0 .. b-1      embed ─┐            ┌─ loss of the whole batch, gradient of its own rows ─┐
    process 1   rows b .. 2b-1     embed ─┴─ gather ───┴─ loss of the whole batch, gradient of its own rows ─┴─ add up

Embeddings cross between processes, models do not: R processes with B / R triplets each give the gradients of one with
B. Every process computes the whole loss, which is cheap, so that backward needs no exchange. Rows may have different
numbers of negatives: every process knows the whole batch, so it knows how many texts each of the others has. Cost: R
times the embeddings of the process that has most, and the adapter's gradients, once a step.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch.nn.functional import pad

from embedsmith.data.rows import Triplets
from embedsmith.model.layers.segments import PackedTexts
from embedsmith.support.errors import ConfigError

# No power of two: times a row's width it must not come round to the same dropout mask.
_ROWS_APART = 1_000_003


@dataclass(frozen=True)
class Processes:
    """The processes of a run, seen from one of them."""

    accelerator: Accelerator

    @property
    def count(self) -> int:
        """How many there are, R."""
        return int(self.accelerator.num_processes)

    @property
    def is_main(self) -> bool:
        """Whether this one writes files and talks."""
        return bool(self.accelerator.is_main_process)

    def check_batch(self, batch_size: int) -> None:
        """Raise ConfigError when a batch cannot be shared evenly."""
        if batch_size % self.count:
            raise ConfigError(
                f"training.batch_size is {batch_size}, which {self.count} processes cannot share evenly.\n"
                f"Make it a multiple of {self.count}; it counts the triplets of all processes together."
            )

    @property
    def index(self) -> int:
        """Which of them this one is."""
        return int(self.accelerator.process_index)

    def shares(self, batch: Triplets) -> list[Triplets]:
        """Every process's part of a batch, B rows -> B / R each."""
        size = len(batch) // self.count
        return [batch.slice(slice(first, first + size)) for first in range(0, size * self.count, size)]

    def own_rows(self, batch_size: int) -> slice:
        """Which rows of a batch are this process's."""
        size = batch_size // self.count
        return slice(self.index * size, (self.index + 1) * size)

    def apart(self, packed: PackedTexts) -> PackedTexts:
        """The same row, with dropout masks that no other process has."""
        return replace(packed, first_row=packed.first_row + self.index * _ROWS_APART)

    def gather(self, embeddings: torch.Tensor, *, sizes: Sequence[Sequence[int]]) -> torch.Tensor:
        """Embeddings of all processes, in the order one process would have them.

        Args:
            embeddings: of this process's share, group by group: its anchors, its positives, its negatives.
            sizes: for every process, how many texts each of its groups has.

        Returns:
            (K, D): all anchors, all positives, all negatives. Its gradient flows into this process's own rows.
        """
        if self.count == 1:
            return embeddings
        most = max(map(sum, sizes))  # what is exchanged has one shape everywhere
        padded = pad(embeddings, (0, 0, 0, most - len(embeddings)))
        gathered: torch.Tensor = _Gather.apply(padded, self.accelerator)  # (R, most, D)
        shares = [rows[: sum(size)].split(list(size)) for rows, size in zip(gathered, sizes, strict=True)]
        return torch.cat([share[group] for group in range(len(sizes[0])) for share in shares])

    def add_up(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Replace gradients by their sum over processes; parameters without one have none anywhere."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if self.count == 1 or not gradients:
            return
        total = self.accelerator.reduce(torch.cat([gradient.flatten() for gradient in gradients]), "sum")
        for gradient, part in zip(gradients, total.split([gradient.numel() for gradient in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def from_main(self, tensor: torch.Tensor) -> torch.Tensor:
        """The main process's tensor, in every process."""
        sent: torch.Tensor = broadcast(tensor) if self.count > 1 else tensor
        return sent

    def sum(self, number: int) -> int:
        """A number's sum over processes."""
        if self.count == 1:
            return number
        return int(self.accelerator.reduce(torch.tensor(number, device=self.accelerator.device), "sum"))

    def most(self, number: int) -> int:
        """The largest that a process has."""
        if self.count == 1:
            return number
        return int(self.accelerator.gather(torch.tensor([number], device=self.accelerator.device)).max())

    def any(self, is_so: bool) -> bool:
        """Whether it is so in some process."""
        return self.sum(int(is_so)) > 0

    def sum_tensor(self, number: torch.Tensor) -> torch.Tensor:
        """A scalar tensor's sum over processes."""
        total: torch.Tensor = self.accelerator.reduce(number, "sum") if self.count > 1 else number
        return total


class _Gather(torch.autograd.Function):
    """Stacks every process's tensor; backward takes this process's own slice, as each has the whole loss."""

    @staticmethod
    def forward(ctx: Any, own: torch.Tensor, accelerator: Accelerator) -> torch.Tensor:
        ctx.index = accelerator.process_index
        stacked: torch.Tensor = accelerator.gather(own.detach()[None].contiguous())
        return stacked

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient[ctx.index], None
