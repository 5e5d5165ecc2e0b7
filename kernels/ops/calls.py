"""From tensors to the C interface and back: outputs and workspace from torch's allocator, pointers, threads or stream, status.

One function per entry point, for CPU and CUDA tensors alike but for the layers, which are the CPU's; shapes and dtypes were checked by the
caller. m, v and logits (mu, lv and logits) share one dtype, which may be half; everything else is float32, or float64 with them. What
forward returned comes back contiguous.
"""

import functools
import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _loader
from .checks import Maybe

TYPES = {torch.float32: 0, torch.float64: 0, torch.float16: 1, torch.bfloat16: 2}
"""The header's `type` of m, v and logits."""
FORWARD, BACKWARD, DENSE = range(3)
"""The header's `phase` of a workspace."""
KEPT = 1 << 22
"""Numbers of scratch that a thread keeps, at most (16 MiB in float32)."""


class _Library:
    """The entry points of one device and precision. Everything that can be looked up once is: at the published size a call costs more
    in Python than in C."""

    def __init__(self, device: torch.device, dtype: torch.dtype):
        self.loaded = ffi, lib = _loader.load(device.type)
        suffix, self.element_size = ("f64", 8) if dtype == torch.float64 else ("f32", 4)
        self.on_cuda = device.type == "cuda"
        self.cast, self.null = ffi.cast, ffi.NULL
        self.void = ffi.typeof("void *")  # C converts it to any pointer; parsing a type's name every time costs more than the call
        self.scalar = torch.empty((), dtype=dtype, device=device)  # only ever imitated
        self.mixture_forward = getattr(lib, f"catvae_mixture_kl_forward_{suffix}")
        self.mixture_backward = getattr(lib, f"catvae_mixture_kl_backward_{suffix}")
        self.dense_forward = getattr(lib, f"catvae_dense_kl_forward_{suffix}")
        self.dense_backward = getattr(lib, f"catvae_dense_kl_backward_{suffix}")
        if not self.on_cuda and dtype == torch.float32:
            self.norm_workspace, self.bernoulli_workspace = lib.catvae_norm_relu_workspace, lib.catvae_bernoulli_workspace
            self.norm_forward, self.norm_backward = lib.catvae_norm_relu_forward, lib.catvae_norm_relu_backward
            self.dropout_forward, self.dropout_backward = lib.catvae_dropout_relu_forward, lib.catvae_dropout_relu_backward
            self.overlap, self.take = lib.catvae_overlap_patches, lib.catvae_take_patches
            self.bernoulli_forward, self.bernoulli_backward = lib.catvae_bernoulli_forward, lib.catvae_bernoulli_backward
        self.local = threading.local()
        self.workspace = functools.lru_cache(maxsize=64)(self._workspace)

    def _workspace(self, N: int, K: int, D: int, type_: int, phase: int, threads: int) -> int:
        """Numbers (not bytes) of scratch that a call needs."""
        found = self.loaded[1].catvae_mixture_kl_workspace(N, K, D, self.element_size, type_, phase, threads)
        if found < 0:
            self._refuse(found, N, K, D)
        return found // self.element_size + 1

    @property
    def threads(self) -> int:
        """Threads that a call may use at this moment."""
        return 1 if self.on_cuda else _loader.usable_threads(torch.get_num_threads())

    def pointers(self, tensors: Sequence[Maybe]) -> list[Any]:
        """Pointers to the memory of tensors, which the caller keeps alive."""
        cast, void, null = self.cast, self.void, self.null
        return [null if x is None else cast(void, x.data_ptr()) for x in tensors]

    def run(self, function: Any, N: int, K: int, D: int, phase: int, inputs: Sequence[Maybe], others: Sequence[Maybe]) -> None:
        """Call `function` with `inputs`, their type, `others` and a workspace, on the caller's threads or current stream."""
        type_ = TYPES[inputs[0].dtype]  # pyright: ignore[reportOptionalMemberAccess]
        threads = self.threads
        workspace = self._scratch(self.workspace(N, K, D, type_, phase, threads))
        # Bound to a list before their pointers are taken: a temporary copy would be freed before the call.
        kept = [x if x is None or (x.is_contiguous() and not x.is_neg()) else x.resolve_neg().contiguous() for x in inputs]
        pointers, more, (scratch,) = self.pointers(kept), self.pointers(others), self.pointers((workspace,))
        if self.on_cuda:
            with torch.cuda.device(workspace.device):  # the stream of the moment: a cached one would escape CUDA graphs and race
                stream = self.cast(self.void, torch.cuda.current_stream().cuda_stream)
                status = function(N, K, D, *pointers, type_, *more, scratch, threads, -1, stream)
        else:
            status = function(N, K, D, *pointers, type_, *more, scratch, threads, -1, self.null)
        if status:
            self._refuse(status, N, K, D)

    def run_layer(self, name: str, function: Any, *arguments: Any) -> None:
        """Call `function` of a layer; tensors stand for their memory, None for NULL."""
        cast, void = self.cast, self.void
        kept = [x.resolve_neg() if isinstance(x, Tensor) and x.is_neg() else x for x in arguments]
        given = [cast(void, x.data_ptr()) if isinstance(x, Tensor) else self.null if x is None else x for x in kept]
        if status := function(*given, self.threads, -1):
            got = ", ".join(f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else str(x) for x in arguments)
            raise ValueError(f"{name}: {_loader.message(self.loaded, status)}: got {got}")

    def layer_scratch(self, found: int) -> Tensor:
        """A workspace of `found` bytes. A negative `found` is an error status, which the call that follows returns too."""
        return self._scratch(max(0, found) // self.element_size + 1)

    def _scratch(self, numbers: int) -> Tensor:
        """A workspace: on the CPU, a small one stays with its thread from call to call, which saves an allocation."""
        if self.on_cuda or numbers > KEPT:
            return self.scalar.new_empty(numbers)
        kept = getattr(self.local, "scratch", None)
        if kept is None or kept.numel() < numbers:
            kept = self.local.scratch = self.scalar.new_empty(numbers)
        return kept

    def _refuse(self, status: int, N: int, K: int, D: int) -> None:
        """Negative statuses are about the arguments, positive ones are CUDA's."""
        words = f"mixture_kl: {_loader.message(self.loaded, status)}: got N={N}, K={K}, D={D}"
        raise ValueError(words) if status < 0 else RuntimeError(words)


_library = functools.cache(_Library)


def _forward_outputs(library: _Library, N: int, K: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """kl (), neg_entropy (), assignment (N, K), cluster_kl (N, K), statistics (3, N)."""
    scalar, like = library.scalar, torch.empty_like
    assignment = scalar.new_empty((N, K))
    return like(scalar), like(scalar), assignment, like(assignment), scalar.new_empty((3, N))


def mixture_forward(
    m: Tensor, v: Tensor, E: Tensor, F: Tensor, prior: Tensor, logits: Tensor, weight: Maybe
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(kl, neg_entropy, assignment, cluster_kl, statistics); shapes in the header."""
    (N, D), K = m.shape, E.shape[0]
    library = _library(E.device, E.dtype)
    out = _forward_outputs(library, N, K)
    library.run(library.mixture_forward, N, K, D, FORWARD, (m, v, E, F, prior, logits, weight), out)
    return out


def mixture_backward(
    m: Tensor, v: Tensor, E: Tensor, F: Tensor, prior: Tensor, logits: Tensor, weight: Maybe,
    assignment: Tensor, cluster_kl: Tensor, statistics: Tensor, g_kl: Maybe, g_neg_entropy: Maybe,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """(dm, dv, dE, dF, dlogits), each of its input's dtype."""
    (N, D), K = m.shape, E.shape[0]
    inputs = m, v, E, F, prior, logits, weight
    dm, dE = m.new_empty((N, D)), E.new_empty((K, D))
    out = dm, torch.empty_like(dm), dE, torch.empty_like(dE), m.new_empty((N, K))
    library = _library(E.device, E.dtype)
    others = *_contiguous(assignment, cluster_kl, statistics), *_as_stored(g_kl, g_neg_entropy), *out
    library.run(library.mixture_backward, N, K, D, BACKWARD, inputs, others)
    return out


def _contiguous(*kept: Tensor) -> list[Tensor]:
    """Tensors that forward saved, without gaps: a compiler, or hooks on saved tensors, may have changed their layout."""
    return [x.contiguous() for x in kept]


def _as_stored(*upstream: Maybe) -> list[Maybe]:
    """Gradients as the numbers that lie in their memory: torch may negate one by a mark alone."""
    return [x.resolve_neg() if x is not None and x.is_neg() else x for x in upstream]


def dense_forward(mu: Tensor, lv: Tensor, prior: Tensor, logits: Tensor, weight: Maybe) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(kl, neg_entropy, assignment, cluster_kl, statistics) of the dense form."""
    N, K, D = mu.shape
    library = _library(prior.device, prior.dtype)
    out = _forward_outputs(library, N, K)
    library.run(library.dense_forward, N, K, D, DENSE, (mu, lv, prior, logits, weight), out)
    return out


def dense_backward(
    mu: Tensor, lv: Tensor, prior: Tensor, logits: Tensor, weight: Maybe,
    assignment: Tensor, cluster_kl: Tensor, statistics: Tensor, g_kl: Maybe, g_neg_entropy: Maybe,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """(dmu, dlv, dlogits) of the dense form."""
    N, K, D = mu.shape
    inputs = mu, lv, prior, logits, weight
    out = mu.new_empty((N, K, D)), mu.new_empty((N, K, D)), mu.new_empty((N, K))
    library = _library(prior.device, prior.dtype)
    others = *_contiguous(assignment, cluster_kl, statistics), *_as_stored(g_kl, g_neg_entropy), *out
    library.run(library.dense_backward, N, K, D, DENSE, inputs, others)
    return out


def norm_relu_forward(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """(y, statistics (2, C)) of x whose memory is (positions, C); see the header of layers."""
    library, y = _library(weight.device, weight.dtype), torch.empty_like(x)
    statistics, sizes = weight.new_empty((2, len(weight))), _norm_sizes(x, weight)
    scratch = library.layer_scratch(library.norm_workspace(*sizes))
    library.run_layer("norm_relu", library.norm_forward, *sizes, x, TYPES[x.dtype], weight, bias, eps, y, statistics, scratch)
    return y, statistics


def norm_relu_backward(
    x: Tensor, dy: Tensor, weight: Tensor, bias: Tensor, eps: float, statistics: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(dx, dweight, dbias), for dy in the memory layout of x."""
    library = _library(weight.device, weight.dtype)
    out, sizes = (torch.empty_like(x), torch.empty_like(weight), torch.empty_like(bias)), _norm_sizes(x, weight)
    scratch = library.layer_scratch(library.norm_workspace(*sizes))
    given = *sizes, x, dy, TYPES[x.dtype], weight, bias, eps, statistics
    library.run_layer("norm_relu", library.norm_backward, *given, *out, scratch)
    return out


def _norm_sizes(x: Tensor, weight: Tensor) -> tuple[int, int]:
    """Positions and channels."""
    return x.numel() // len(weight), len(weight)


def dropout_relu_forward(x: Tensor, dropped: int, scale: float, seed: int) -> Tensor:
    """max(0, scale x), or 0 where an element's random 32 bits are less than `dropped`."""
    library, y = _library(x.device, torch.float32), torch.empty_like(x)
    library.run_layer("dropout_relu", library.dropout_forward, x.numel(), x, TYPES[x.dtype], dropped, scale, seed, y)
    return y


def dropout_relu_backward(dy: Tensor, y: Tensor, scale: float) -> Tensor:
    """dx, for dy of the type and layout of y."""
    library, dx = _library(y.device, torch.float32), torch.empty_like(y)
    library.run_layer("dropout_relu", library.dropout_backward, y.numel(), dy, y, TYPES[y.dtype], scale, dx)
    return dx


def overlap(patches: Tensor, bias: Tensor, y: Tensor) -> None:
    """Fill y (N, 2h, 2w, C) with what the patches (N h w, 16 C) of its positions add up to, and the bias (C,)."""
    if patches.dtype != y.dtype or not patches.is_contiguous():
        raise ValueError(f"overlap: patches are {patches.dtype}, expected {y.dtype} like the images, without gaps")
    library, (N, height, width, C) = _library(bias.device, bias.dtype), y.shape
    library.run_layer("doubled", library.overlap, N, height // 2, width // 2, C, patches, TYPES[y.dtype], bias, y)


def take_patches(x: Tensor, k: int, stride: int, out: Tensor) -> None:
    """Fill `out` (N h w, k k C) with the patches of bfloat16 images (N, C, H, W), channels last, with one zero around them."""
    library, (N, C, H, W) = _library(x.device, torch.float32), x.shape
    library.run_layer("convolved", library.take, N, H, W, C, k, stride, 1, x, out)


def bernoulli_forward(logits: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """(negative log-likelihood () of x in the first logits, images of the rest), for x in the memory layout of the logits."""
    library, n = _library(x.device, x.dtype), x.numel()
    nll, images = torch.empty_like(library.scalar), torch.empty_like(logits[len(x) :], dtype=torch.float32)
    scratch = library.layer_scratch(library.bernoulli_workspace(n))
    library.run_layer("bernoulli", library.bernoulli_forward, n, logits.numel(), logits, TYPES[logits.dtype], x, nll, images, scratch)
    return nll, images


def bernoulli_backward(logits: Tensor, x: Tensor, g_nll: Maybe, g_images: Maybe) -> Tensor:
    """The gradient of the logits, for g_images in their memory layout."""
    library, dlogits = _library(x.device, x.dtype), torch.empty_like(logits)
    given = x.numel(), logits.numel(), logits, TYPES[logits.dtype], x, g_nll, g_images
    library.run_layer("bernoulli", library.bernoulli_backward, *given, dlogits)
    return dlogits
