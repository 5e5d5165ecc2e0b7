"""First derivatives that know they are the last: a second one is an error, never a silent zero."""

from collections.abc import Callable

import torch
from torch import Tensor


def first_derivative(call: Callable[..., tuple[Tensor | None, ...]], *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    """``call(*tensors)``; under ``create_graph=True`` its results remember what they were made from, only to refuse differentiation."""
    return _Last.apply(call, *tensors) if torch.is_grad_enabled() else call(*tensors)  # pyright: ignore[reportReturnType]


class _Last(torch.autograd.Function):
    @staticmethod
    def forward(ctx, call, *tensors):
        return call(*tensors)

    @staticmethod
    def backward(ctx, *_):  # pyright: ignore[reportIncompatibleMethodOverride]
        raise RuntimeError("what catvae.kernels computes is once differentiable: second derivatives are not implemented")
