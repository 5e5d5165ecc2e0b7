"""Training on several processors or machines at once: what the ranks that torchrun starts exchange.

    torchrun --no-python --nproc-per-node 4 catvae-train mnist

Every rank holds all images, the same weights and the same seed, and takes its part of each batch. In each step gradients, statistics of
batch norm and cluster shares are averaged over ranks, and the joint distributions of views are those of all parts; batch norm itself looks
at a rank's own. What is decided about clusters between steps is decided by the first rank, which alone writes the run folder.

Without torchrun there is one rank, and nothing is exchanged.
"""

import contextlib
import importlib
import os
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from catvae.runtime.errors import DataError, UsageError

LONGEST_WAIT = timedelta(hours=1)
"""How long ranks wait for one another: the first one draws and saves while the others are already at the next exchange."""


class Ranks:
    """The ranks of one run, seen from one of them.

    Parameters
    ----------
    rank : int
        This one, of 0 .. count - 1; the first leads.
    count : int
        Above 1, torch's default process group connects them.
    """

    def __init__(self, rank: int = 0, count: int = 1):
        self.rank, self.count = rank, count

    @property
    def leads(self) -> bool:
        """Whether this is the rank that decides, writes and speaks."""
        return self.rank == 0

    def part(self, batch: Tensor) -> Tensor:
        """This rank's rows of a batch, as many on every rank."""
        return batch[: len(batch) // self.count * self.count][self.rank :: self.count]

    def mean(self, own: Tensor) -> Tensor:
        """The mean of a tensor over ranks; its gradient is right once the gradients of weights are averaged over ranks.

        The loss L of every rank depends on the mean P of all p_r in the same way. The averaged gradient is sum_r dL/dP dp_r / count, so
        each rank passes dL/dP on to its own p_r unchanged.
        """
        if self.count == 1:
            return own
        everyone = own.detach().clone()
        _exchange(dist.all_reduce, everyone)
        return own + (everyone / self.count - own.detach())

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace `tensors` by their means over ranks, in one message; shapes and order must be the same on every rank."""
        if self.count == 1:
            return
        flat = torch.cat([tensor.detach().reshape(-1).float() for tensor in tensors])
        _exchange(dist.all_reduce, flat)
        flat /= self.count
        for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.detach().copy_(mean.view(tensor.shape))

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether the flag is set on some rank."""
        if self.count == 1:
            return flag
        flags = torch.tensor([float(flag)], device=device)
        _exchange(dist.all_reduce, flags)
        return flags.item() > 0

    def from_first(self, data: bytes, device: torch.device) -> bytes:
        """The first rank's data, on every rank."""
        if self.count == 1:
            return data
        size = torch.tensor([len(data)], device=device)
        _exchange(dist.broadcast, size, 0)
        content = torch.zeros(int(size.item()), dtype=torch.uint8, device=device)
        if self.leads:
            content.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        _exchange(dist.broadcast, content, 0)
        return content.cpu().numpy().tobytes()

    def require_alike(self, what: str, device: torch.device) -> None:
        """Raise `DataError` on every rank when one was given something else than the first."""
        own = what.encode()
        if self.any(self.from_first(own, device) != own, device):
            raise DataError("ranks differ in their images, labels, settings or precision: give all machines the same")

    @contextlib.contextmanager
    def preparing(self, device: torch.device) -> Iterator[None]:
        """Wraps what each rank does before training: if it fails on one, that rank raises its own error and all others `DataError`."""
        try:
            yield
        except BaseException:
            self.any(True, device)
            raise
        if self.any(False, device):
            raise DataError("another rank could not begin, its own message says why")

    def leave(self) -> None:
        """After the last exchange, end the threads that carried it: one that frees a tensor while Python exits aborts the process."""
        if self.count > 1 and dist.is_initialized():
            dist.destroy_process_group()

    def __enter__(self) -> "Ranks":
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        if not failure or (self.count > 1 and dist.is_initialized() and dist.get_backend() == "gloo"):
            self.leave()  # not after a failure on GPUs: it could wait for a rank that has ended


def _exchange(call: Callable[..., Any], *arguments: Any) -> None:
    try:
        call(*arguments)
    except RuntimeError as error:
        raise DataError(f"another rank has ended, its own message says why ({str(error).splitlines()[0][:80]})") from error


ALONE = Ranks()


def started_by_torchrun() -> bool:
    """Whether this process is one of several."""
    return dist.is_available() and dist.is_torchelastic_launched() and int(os.environ.get("WORLD_SIZE", "1")) > 1


def join(device: torch.device) -> Ranks:
    """Meet the other ranks, each on its own GPU where they train on GPUs.

    Raises
    ------
    UsageError
        When there are more ranks than GPUs on this machine.
    """
    if not started_by_torchrun():
        return ALONE
    if device.type == "cuda":
        here, found = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
        if here > found:
            raise UsageError(f"torchrun started {here} ranks here, but there are {found} GPUs: lower --nproc-per-node, or use --device cpu")
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    # Loaded later, with torch.compile's machinery, its default arguments would hold the group and its threads to the very end.
    importlib.import_module("torch.distributed.nn.functional")
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=LONGEST_WAIT)
    return Ranks(dist.get_rank(), dist.get_world_size())
