"""Patches added up by torch's fold and taken by its unfold, and the C interface called without torch in between."""

from typing import Any

import torch
import torch.nn.functional as nnF

from .direct import GUARD, HALVES


def check_patches(loaded: tuple[Any, Any], size: tuple[int, int, int, int], type_: int, isa: int = -1, threads: int = 2) -> None:
    """Sums to a few roundings, bit for bit those of one thread, and the memory behind the result."""
    ffi, lib = loaded
    N, h, w, C = size
    generator = torch.Generator().manual_seed(sum(size))
    patches, bias = torch.randn(N, h, w, 4, 4, C, generator=generator).to(HALVES[type_]), torch.randn(C, generator=generator)
    at = lambda tensor: ffi.cast("void *", tensor.data_ptr())  # noqa: E731
    results = []
    for team in (1, threads):
        y = torch.full((N * 4 * h * w * C + GUARD,), 7.0, dtype=patches.dtype)
        assert lib.catvae_overlap_patches(*size, at(patches), type_, at(bias), at(y), team, isa) == 0
        assert (y[-GUARD:] == 7).all()
        results.append(y[:-GUARD].view(N, 2 * h, 2 * w, C))
    assert torch.equal(*results)
    if N:
        columns = patches.double().permute(0, 5, 3, 4, 1, 2).reshape(N, 16 * C, h * w)
        right = nnF.fold(columns, (2 * h, 2 * w), 4, padding=1, stride=2).permute(0, 2, 3, 1) + bias.double()
        allowed = 2e-6 if type_ == 0 else 2**-8
        assert ((results[0].double() - right).abs() <= allowed * right.abs().clamp_min(1)).all()


def check_taken(
    loaded: tuple[Any, Any], size: tuple[int, int, int, int], k: int, stride: int, padding: int, isa: int, threads: int
) -> None:
    """The patches bit for bit, whatever the number of threads, and the memory behind them."""
    ffi, lib = loaded
    N, H, W, C = size
    x = torch.randn(size, generator=torch.Generator().manual_seed(sum(size))).bfloat16()
    h, w = ((side + 2 * padding - k) // stride + 1 for side in (H, W))
    columns = nnF.unfold(x.permute(0, 3, 1, 2).double(), k, padding=padding, stride=stride)
    right = columns.view(N, C, k, k, h, w).permute(0, 4, 5, 2, 3, 1).bfloat16()
    at = lambda tensor: ffi.cast("void *", tensor.data_ptr())  # noqa: E731
    out = torch.full((right.numel() + GUARD,), 7.0, dtype=torch.bfloat16)
    assert lib.catvae_take_patches(*size, k, stride, padding, at(x), at(out), threads, isa) == 0
    assert (out[-GUARD:] == 7).all()
    assert torch.equal(out[:-GUARD].view(right.shape), right)
