"""The likelihood of Bernoulli pixels in float64, and the C interface called without torch in between."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as nnF

from .direct import GUARD, HALVES

ROUNDED = {torch.float32: 3e-7, torch.bfloat16: 2**-8}
"""Of gradients, beside the largest they can be."""


def exact(logits: torch.Tensor, x: torch.Tensor, g_nll: float, g_images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """nll, images and the gradient of the logits in float64; x stands for the first of them."""
    wide = logits.detach().double().requires_grad_()
    nll = nnF.binary_cross_entropy_with_logits(wide[: len(x)], x.double(), reduction="sum")
    images = wide[len(x) :].sigmoid()
    (dlogits,) = torch.autograd.grad(g_nll * nll + (images * g_images.double()).sum(), wide)
    return nll.detach(), images.detach(), dlogits


def check_bernoulli(loaded: tuple[Any, Any], n: int, others: int, type_: int, isa: int = -1, threads: int = 2) -> None:
    """Values and gradients, the bits of one thread, and the memory behind every output."""
    ffi, lib = loaded
    generator = torch.Generator().manual_seed(n + others)
    logits = (4 * torch.randn(n + others, generator=generator)).to(HALVES[type_])
    x, g_images = torch.rand(n, generator=generator), torch.randn(others, generator=generator)
    at = lambda tensor: ffi.cast("void *", tensor.data_ptr())  # noqa: E731
    upstream = torch.tensor([1.3])
    results = []
    for team in (1, threads):
        nll, images, dlogits = (torch.full((size + GUARD,), 7.0) for size in (1, others, n + others))
        dlogits = dlogits.to(logits.dtype)
        space = torch.from_numpy(np.full(lib.catvae_bernoulli_workspace(n), 0xFF, np.uint8))
        given = n, n + others, at(logits), type_, at(x)
        assert lib.catvae_bernoulli_forward(*given, at(nll), at(images), at(space), team, isa) == 0
        assert lib.catvae_bernoulli_backward(*given, at(upstream), at(g_images), at(dlogits), team, isa) == 0
        assert all((part[-GUARD:] == 7).all() for part in (nll, images, dlogits))
        results.append((nll[0], images[:-GUARD], dlogits[:-GUARD]))
    assert all(torch.equal(*pair) for pair in zip(*results, strict=True))
    nll, images, dlogits = ((found.double(), right) for found, right in zip(results[0], exact(logits, x, 1.3, g_images), strict=True))
    torch.testing.assert_close(*nll, rtol=5e-7, atol=1e-7)
    torch.testing.assert_close(*images, rtol=5e-7, atol=0)
    torch.testing.assert_close(*dlogits, rtol=ROUNDED[logits.dtype], atol=ROUNDED[logits.dtype])
    torch.testing.assert_close(*(part[n:] for part in dlogits), rtol=2 * ROUNDED[logits.dtype], atol=0)  # of bright pixels too
