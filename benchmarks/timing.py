"""How every benchmark here measures: rounds over all forms in turn, medians with their 20 % and 80 % quantiles, bytes kept for backward."""

import time
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

ROUNDS = 10
"""Times that all forms of a comparison take their turn: a slow minute of the machine then touches all of them."""


def compare(forms: Mapping[str, Callable[[], object]], seconds: float) -> dict[str, tuple[float, float, float]]:
    """Median, 20 % and 80 % quantile in milliseconds of each call, about `seconds` spent on each of them."""
    samples: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(ROUNDS):
        for name, call in forms.items():
            if not samples[name] or samples[name][-1] < 0.1:
                call()  # caches filled by the form before; what takes longer fills its own
            spent, found = 0.0, []
            while not found or spent < seconds / ROUNDS:
                began = time.perf_counter()
                call()
                found.append(time.perf_counter() - began)
                spent += found[-1]
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
