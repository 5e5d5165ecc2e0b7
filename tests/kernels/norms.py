"""Problems of batch norm with its ReLU, their answers in float64, and the C interface called without torch in between."""

from typing import Any

import torch
import torch.nn.functional as nnF

from .direct import GUARD, HALVES


def problem(shape, dtype=torch.float32, mean=1.5):
    """x, weight, bias, and the upstream gradient; images are channels last."""
    generator = torch.Generator().manual_seed(len(shape) + shape[0])
    x, dy = (torch.randn(shape, generator=generator) for _ in range(2))
    x, dy = (x * 2 + mean).to(dtype), dy.to(dtype)
    if len(shape) == 4:
        x, dy = (part.contiguous(memory_format=torch.channels_last) for part in (x, dy))
    weight, bias = (torch.randn(shape[1], generator=generator) for _ in range(2))
    return x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_(), dy


def theirs(x, weight, bias):
    return nnF.batch_norm(x, None, None, weight, bias, True, 0.1, 1e-5).relu()


def exact(x, weight, bias, dy):
    """y and the gradients in float64."""
    inputs = [part.detach().double().requires_grad_() for part in (x, weight, bias)]
    y = theirs(*inputs)
    return y.detach(), torch.autograd.grad(y, inputs, dy.double())


def largest(found, expected):
    """The largest error, in parts of the largest number."""
    return ((found.double() - expected).abs().max() / expected.abs().max().clamp_min(1e-300)).item()


def check_norm(loaded: tuple[Any, Any], size: tuple[int, int], type_: int, isa: int = -1) -> None:
    """Values, gradients, and the memory behind every output and the workspace."""
    ffi, lib = loaded
    x, weight, bias, dy = (part.detach() for part in problem(size, HALVES[type_]))
    expected, gradients = exact(x, weight, bias, dy)
    N, C = size
    at = lambda tensor: ffi.cast("void *", tensor.data_ptr())  # noqa: E731
    y, dx = (torch.full((N * C + GUARD,), 7.0, dtype=x.dtype) for _ in range(2))
    statistics, dgamma, dbeta = (torch.full((count + GUARD,), 7.0) for count in (2 * C, C, C))
    workspace = torch.full((lib.catvae_norm_relu_workspace(N, C) + GUARD,), 77, dtype=torch.uint8)
    affine, tail = (type_, at(weight), at(bias), 1e-5), (at(workspace), 2, isa)
    assert lib.catvae_norm_relu_forward(N, C, at(x), *affine, at(y), at(statistics), *tail) == 0
    assert lib.catvae_norm_relu_backward(N, C, at(x), at(dy), *affine, at(statistics), at(dx), at(dgamma), at(dbeta), *tail) == 0
    moments = torch.cat([x.double().mean(0), x.double().var(0, unbiased=False)])
    for found, right in ((y, expected), (dx, gradients[0]), (dgamma, gradients[1]), (dbeta, gradients[2]), (statistics, moments)):
        assert largest(found[:-GUARD].view_as(right), right) < (2e-6 if found.dtype == torch.float32 else 2**-7)
    assert all((part[-GUARD:] == 7).all() for part in (y, dx, statistics, dgamma, dbeta))
    assert (workspace[-GUARD:] == 77).all()
