"""Whether a call may go straight to C, past torch's dispatcher: no tracer has to see an operation, and nothing transforms it.

Also the short way to tie such a call to its gradient.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import forward_ad

from .. import _loader

_PLAIN = {torch.Tensor, torch.nn.Parameter, type(None)}


def kernel_runs(device: str, index: int | None) -> bool:
    """Whether there is a compiled kernel for a tensor on this device."""
    if device == "cuda":
        with torch.cuda.device(index):
            return _loader.runs(device, index)
    return device == "cpu" and _loader.runs(device)


# What `torch.compiler.assume_constant_result` does, which would load the whole compiler here.
kernel_runs._dynamo_marked_constant = True  # pyright: ignore[reportFunctionMemberAccess]


def traced(*inputs: torch.Tensor | None) -> bool:
    """Whether this call must be seen as a torch op: by torch.compile, torch.jit, a dispatch mode, or fake tensors and other subclasses."""
    return (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack() > 0  # pyright: ignore[reportPrivateImportUsage, reportAttributeAccessIssue]
        or torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
        or not _PLAIN.issuperset(map(type, inputs))
    )


def transformed() -> bool:
    """Whether `torch.func` (vmap, grad, jvp, ...) or forward-mode differentiation is at work: the plain form follows them, C cannot."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0  # pyright: ignore[reportPrivateImportUsage, reportAttributeAccessIssue]


def layer_in_c(x: torch.Tensor, *parameters: torch.Tensor) -> bool:
    """Whether a layer with this input may be computed by the compiled kernel: eagerly, on the CPU, in one of its two types."""
    return (
        not (traced(x, *parameters) or transformed())
        and all(part.device.type == "cpu" and not part.is_neg() for part in (x, *parameters))
        and x.dtype in (torch.float32, torch.bfloat16)
        and _loader.runs("cpu")
    )


def direct_apply(function: type[torch.autograd.Function]) -> Callable[..., Any]:
    """``function.apply`` without its check for transforms of torch.func (2 us a call), which the caller has ruled out."""
    return super(torch.autograd.Function, function).apply  # pyright: ignore[reportAttributeAccessIssue]
