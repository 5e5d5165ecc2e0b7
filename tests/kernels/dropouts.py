"""Dropout with its ReLU written out in numpy, and the C interface called without torch in between."""

from typing import Any

import numpy as np
import torch

from .direct import GUARD, HALVES


def random_words(n: int, seed: int) -> np.ndarray:
    """SplitMix in 32 bits: start + i gamma, mixed."""
    start, gamma = np.uint32(seed & 0xFFFFFFFF), (seed >> 32 & 0xFFFFFFFF) | 1
    if (gamma ^ gamma >> 1).bit_count() < 12:
        gamma ^= 0xAAAAAAAA
    x = start + np.arange(n, dtype=np.uint32) * np.uint32(gamma)
    x = (x ^ x >> 16) * np.uint32(0x7FEB352D)
    x = (x ^ x >> 15) * np.uint32(0x846CA68B)
    return x ^ x >> 16


def kept(n: int, dropped: int, seed: int) -> torch.Tensor:
    return torch.from_numpy(random_words(n, seed).astype(np.int64) >= dropped)


def check_dropout(loaded: tuple[Any, Any], n: int, type_: int, isa: int = -1, threads: int = 2) -> None:
    """Values, gradients, and the memory behind both outputs."""
    ffi, lib = loaded
    generator = torch.Generator().manual_seed(n)
    x, dy = (torch.randn(n, generator=generator).to(HALVES[type_]) for _ in range(2))
    at = lambda tensor: ffi.cast("void *", tensor.data_ptr())  # noqa: E731
    for seed in (0, -1, 0x1234567890ABCDEF):
        y, dx = (torch.full((n + GUARD,), 7.0, dtype=x.dtype) for _ in range(2))
        assert lib.catvae_dropout_relu_forward(n, at(x), type_, 1 << 30, 4 / 3, seed, at(y), threads, isa) == 0
        assert lib.catvae_dropout_relu_backward(n, at(dy), at(y), type_, 4 / 3, at(dx), threads, isa) == 0
        passes, scale = kept(n, 1 << 30, seed) & (x > 0), torch.tensor(4 / 3, dtype=torch.float32)
        assert torch.equal(y[:-GUARD], torch.where(passes, x.float() * scale, 0).to(x.dtype))
        assert torch.equal(dx[:-GUARD], torch.where(passes, dy.float() * scale, 0).to(x.dtype))
        assert all((part[-GUARD:] == 7).all() for part in (y, dx))
