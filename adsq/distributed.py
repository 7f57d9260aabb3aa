"""Several processes that work as one, as `torchrun` starts them: docs/method.md, "Several processes".

On one process everything here gives back what it is given.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def start() -> None:
    """Join the processes that `torchrun` started, if it did: gloo serves the CPU, nccl GPUs."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        gpus = torch.cuda.is_available() and dist.is_nccl_available()
        dist.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo")


def world_size() -> int:
    """Return how many processes there are."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process; 0 alone writes files and speaks."""
    return dist.get_rank() if world_size() > 1 else 0


@dataclass(frozen=True)
class Share:
    """How the rows of a batch are spread: each process has a contiguous part, maybe an empty one.

    All ranks know all sizes, so none is ever asked for.
    """

    sizes: tuple[int, ...]
    rank: int = 0

    @classmethod
    def of(cls, count: int) -> Share:
        """Spread rows over the processes: sizes differ by one at most, larger ones come first."""
        each, more = divmod(count, world_size())
        return cls(tuple(each + (number < more) for number in range(world_size())), rank())

    @property
    def several(self) -> bool:
        """Whether there are other processes."""
        return len(self.sizes) > 1

    @property
    def count(self) -> int:
        """How many rows all processes have."""
        return sum(self.sizes)

    @property
    def own(self) -> slice:
        """Which rows are this process's."""
        first = sum(self.sizes[: self.rank])
        return slice(first, first + self.sizes[self.rank])

    def times(self, factor: int) -> Share:
        """Return how rows are spread where each of these stands for some."""
        return Share(tuple(factor * size for size in self.sizes), self.rank)

    def own_rows(self, whole: Tensor) -> Tensor:
        """Cut this process's rows out of all: [count, ...] -> [own, ...]."""
        return whole[self.own] if self.several else whole

    def other_rows(self, whole: Tensor) -> Tensor:
        """Leave this process's rows out: [count, ...] -> [count - own, ...]."""
        return torch.cat([whole[: self.own.start], whole[self.own.stop :]])

    def gather(self, rows: Tensor) -> Tensor:
        """Put the rows of all processes together: [own, ...] -> [count, ...]; gradients go back to their owners."""
        return _Gather.apply(rows, self) if self.several else rows

    def part(self, mean: Tensor) -> Tensor:
        """Turn a mean over the own rows into a summand: over all processes they add up to the mean over all rows."""
        return mean * (self.sizes[self.rank] / max(1, self.count)) if self.several else mean


class _Gather(torch.autograd.Function):
    """Every process's loss depends on the rows of all, so the gradients of all are summed on the way back."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, share: Share) -> Tensor:
        ctx.share = share
        padded = rows.new_zeros((max(share.sizes), *rows.shape[1:]))  # collectives take equal shapes
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in share.sizes]
        dist.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, share.sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return total(gradient)[ctx.share.own], None


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return total(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return total(gradient)


def total(values: Tensor) -> Tensor:
    """Return the sum over all processes, the same on each; without gradient."""
    if world_size() == 1:
        return values
    summed = values.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(summed)
    return summed


@torch.no_grad()
def total_gradients(weights: Iterable[Tensor], others: Tensor, mean: bool = False) -> Tensor:
    """Sum the gradients of weights over all processes, in place, and other values [n] with them, which are returned.

    All in one collective. DistributedDataParallel is not used: it averages over processes, where shares may differ in
    size; it wants one forward pass of one module for each backward pass, while here several networks, their heads apart
    from their backbones, and lone parameters meet in a loss; and it would reduce what all processes compute alike.

    Args:
        weights: The same on every rank; those without a gradient are passed over.
        others: Values to sum too.
        mean: Whether to divide by the number of processes, for gradients that each computed in full.
    """
    if world_size() == 1:
        return others
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    summed = total(torch.cat([others, *(gradient.reshape(-1) for gradient in gradients)]))
    if mean:
        summed /= world_size()
    others, *pieces = summed.split([len(others), *(gradient.numel() for gradient in gradients)])
    for gradient, piece in zip(gradients, pieces, strict=True):
        gradient.copy_(piece.view_as(gradient))
    return others


@torch.no_grad()
def copy_from_first(tensors: Iterable[Tensor]) -> None:
    """Overwrite tensors with those of rank 0."""
    if world_size() == 1:
        return
    for tensor in tensors:
        sent = tensor.contiguous()
        dist.broadcast(sent, 0)
        tensor.copy_(sent)


class _SyncBatchNormCPU(nn.SyncBatchNorm):
    """PyTorch's has kernels for GPUs only."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        dims = [0, *range(2, input.dim())]
        shape = [1, -1] + [1] * (input.dim() - 2)
        rows = input.new_full((1,), input.numel() // input.shape[1])
        *sums, count = _Total.apply(torch.cat([input.sum(dims), rows])).split([input.shape[1], 1])
        mean = sums[0] / count
        centred = input - mean.view(shape)
        variance = _Total.apply(centred.square().sum(dims)) / count
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            with torch.no_grad():
                self.num_batches_tracked.add_(1)
                momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
                self.running_mean.lerp_(mean, momentum)
                self.running_var.lerp_(variance * count / (count - 1), momentum)
        scale = (variance + self.eps).rsqrt()
        if self.weight is not None:
            scale = scale * self.weight
        scaled = centred * scale.view(shape)
        return scaled if self.bias is None else scaled + self.bias.view(shape)


def synchronize_batch_norm(module: nn.Module, device: torch.device) -> None:
    """Let batch norm take its statistics from the rows of all processes. Weights and their names stay as they are."""
    if world_size() == 1:
        return
    nn.SyncBatchNorm.convert_sync_batchnorm(module)
    for part in module.modules():
        if type(part) is nn.SyncBatchNorm and device.type == "cpu":
            part.__class__ = _SyncBatchNormCPU


def gather_objects(mine: Any, group: dist.ProcessGroup | None = None) -> list[Any]:
    """Return what the processes of a group, by default all, each give."""
    if world_size() == 1:
        return [mine]
    objects: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(objects, mine, group=group)
    return objects


def check_same(facts: list[dict[str, Any]]) -> None:
    """Raise ValueError for the first fact that is not the same on all ranks, given in the order of the ranks."""
    for name, value in facts[0].items():
        for number, others in enumerate(facts):
            if others.get(name) != value:
                raise ValueError(
                    f"{name}: expected the same on all ranks, got {value!r} on rank 0 and {others.get(name)!r} on rank "
                    f"{number}"
                )


def meet(meanwhile: Callable[[], None] | None = None, seconds: float = 1.0) -> None:
    """Wait for all processes; meanwhile call something every so many seconds."""
    if world_size() == 1:
        return
    waiting = dist.barrier(async_op=True)
    while meanwhile is not None and not waiting.is_completed():
        time.sleep(seconds)
        meanwhile()
    waiting.wait()


@contextmanager
def first_alone(needed: bool) -> Iterator[None]:
    """Run a block on rank 0 before the others run it, where that is needed: a file that each would fetch."""
    if needed and rank() > 0:
        meet()
    yield
    if needed and rank() == 0:
        meet()
