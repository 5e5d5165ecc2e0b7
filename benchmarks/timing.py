"""How every benchmark here measures: rounds over all forms in turn, medians with their 20 % and 80 % quantiles, bytes kept for backward.

On a GPU time is what passes between two events of its stream, idle while Python launches or not, and each call finds the L2 cache filled
with something else.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

ROUNDS = 10
"""Times that all forms of a comparison take their turn: a slow minute of the machine then touches all of them."""


CACHE = 1 << 28
"""Bytes written between calls on a GPU: more than any L2 cache holds."""

Call = Callable[[], object]
Clock = Callable[[Call], float]


def on_cpu(call: Call) -> float:
    """Seconds that a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def on_gpu() -> Clock:
    """The same on the current GPU, by its own clock."""
    filler = torch.empty(CACHE, dtype=torch.uint8, device="cuda")
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def clock(call: Call) -> float:
        filler.zero_()
        torch.cuda.synchronize()  # else Python's part of the call would hide behind the filling
        first.record()
        call()
        last.record()
        last.synchronize()
        return first.elapsed_time(last) / 1e3

    return clock


def compare(forms: Mapping[Any, Call], seconds: float, clock: Clock = on_cpu) -> dict[Any, tuple[float, float, float]]:
    """Median, 20 % and 80 % quantile in milliseconds of each call, about `seconds` spent on each of them.

    A call that has a method ``prepare`` is prepared before each time it is timed.
    """
    samples: dict[Any, list[float]] = {name: [] for name in forms}
    for _ in range(ROUNDS):
        for name, call in forms.items():
            prepare = getattr(call, "prepare", lambda: None)
            if not samples[name] or samples[name][-1] < 0.1:
                prepare()
                call()  # caches filled by the form before; what takes longer fills its own
            began, found = time.perf_counter(), []
            while not found or time.perf_counter() - began < seconds / ROUNDS:
                prepare()
                found.append(clock(call))
            samples[name] += found
    quantiles = {name: 1e3 * np.quantile(found, [0.5, 0.2, 0.8]) for name, found in samples.items()}
    return {name: (float(q[0]), float(q[1]), float(q[2])) for name, q in quantiles.items()}


def forward_backward(form: Callable, inputs: list[Tensor]) -> Callable[[], None]:
    """A call that does both passes from fresh gradients."""

    def call() -> None:
        for x in inputs:
            x.grad = None
        kl, neg_entropy = form(*inputs)[:2]
        (kl + neg_entropy).backward()

    return call


class Backward:
    """A call that does the backward pass alone; its forward pass is what is prepared."""

    def __init__(self, form: Callable, inputs: list[Tensor]):
        self.form, self.inputs = form, inputs

    def prepare(self) -> None:
        for x in self.inputs:
            x.grad = None
        kl, neg_entropy = self.form(*self.inputs)[:2]
        self.total = kl + neg_entropy

    def __call__(self) -> None:
        self.total.backward()


def captured(call: Call) -> Call:
    """On a GPU: the call as a CUDA graph, which leaves out what Python and torch's dispatcher cost."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def forward_only(form: Callable, inputs: list[Tensor]) -> Callable[[], None]:
    """A call without gradients, as in evaluation."""

    def call() -> None:
        with torch.no_grad():
            form(*inputs)

    return call


def bytes_held(form: Callable, inputs: list[Tensor]) -> int:
    """Bytes that forward keeps for backward, the inputs themselves not counted."""
    own = {x.untyped_storage().data_ptr() for x in inputs}
    kept: dict[int, int] = {}

    def keep(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        out = form(*inputs)[:2]
    total = sum(kept.values())
    del out
    return total
