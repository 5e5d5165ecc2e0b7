"""Calls of the C interface without torch in between: numpy arrays in host memory, every output followed by a guard."""

from typing import Any

import numpy as np
import torch

from catvae.kernels.ops.plain import plain_dense_kl

from .problems import assert_error_rule, dense_values, eager, evaluate, oracle, problem

GUARD = 64
"""Elements behind every output that must keep their value."""
HALVES = {0: torch.float32, 1: torch.float16, 2: torch.bfloat16}


def array(x: torch.Tensor) -> np.ndarray:
    """Contiguous; bfloat16, which numpy lacks, as its bits."""
    return x.contiguous().view(torch.int16).numpy() if x.dtype == torch.bfloat16 else x.contiguous().numpy()


class Call:
    """One problem in float32 (m, v and logits possibly narrower) or in float64, forward and backward, factorised or dense."""

    def __init__(
        self,
        loaded: tuple[Any, Any],
        size: tuple[int, int, int],
        *,
        dense: bool = False,
        type_: int = 0,
        double: bool = False,
        weighted: bool = True,
    ):
        self.ffi, self.lib = loaded
        self.size, self.dense, self.type = size, dense, type_
        self.suffix, self.element_size, wide_type = ("f64", 8, torch.float64) if double else ("f32", 4, torch.float32)
        N, K, D = size
        values, weight = problem(N, K, D, wide_type)
        values = dense_values(values) if dense else values
        wide = ("E", "F", "prior")
        narrow = {name: x if name in wide or not type_ else x.to(HALVES[type_]) for name, x in values.items()}
        self.values = {name: x.to(wide_type) for name, x in narrow.items()}
        self.weight = weight if weighted else None
        self.inputs = [array(x) for x in narrow.values()] + ([array(weight)] if weighted else [None])
        shapes = {"kl": (), "neg_entropy": (), "assignment": (N, K), "cluster_kl": (N, K), "statistics": (3, N)}
        self.shapes = shapes | {f"g_{name}": tuple(x.shape) for name, x in values.items() if name != "prior"}
        self.types = {name: HALVES[type_] if type_ and name[:2] == "g_" and name[2:] not in wide else wide_type for name in self.shapes}
        self.out = {name: torch.full((int(np.prod(shape)) + GUARD,), 7.0, dtype=self.types[name]) for name, shape in self.shapes.items()}

    def pointer(self, x: np.ndarray | None):
        return self.ffi.NULL if x is None else self.ffi.cast("void *", x.ctypes.data)

    def run(self, isa: int = -1, threads: int = 1, *, g_kl: float | None = 1.3) -> tuple[int, int]:
        """Statuses of forward and backward, for upstream gradients `g_kl`, or none, and -0.4."""
        form = "dense" if self.dense else "mixture"
        forward, backward = (getattr(self.lib, f"catvae_{form}_kl_{way}_{self.suffix}") for way in ("forward", "backward"))
        inputs, out = [self.pointer(x) for x in self.inputs], [self.pointer(array(x)) for x in self.out.values()]
        of = np.float64 if self.element_size == 8 else np.float32
        upstream = None if g_kl is None else np.array([g_kl], of), np.array([-0.4], of)
        phases = (2, 2) if self.dense else (0, 1)
        spaces = [
            np.full(self.lib.catvae_mixture_kl_workspace(*self.size, self.element_size, self.type, phase, threads), 0xFF, np.uint8)
            for phase in phases
        ]
        tails = [[self.pointer(space), threads, isa, self.ffi.NULL] for space in spaces]
        first = forward(*self.size, *inputs, self.type, *out[:5], *tails[0])
        wanted = [self.pointer(x) for x in upstream]
        return first, backward(*self.size, *inputs, self.type, *out[2:5], *wanted, *out[5:], *tails[1])

    def found(self) -> dict[str, np.ndarray]:
        return {
            name: self.out[name][:-GUARD].reshape(shape).double().numpy() for name, shape in self.shapes.items() if name != "statistics"
        }

    def guards_hold(self) -> bool:
        return all((x[-GUARD:] == 7).all() for x in self.out.values())


def check(call: Call, isa: int = -1) -> None:
    """The statuses, the error rule against the float64 reference, and the memory behind the outputs."""
    assert call.run(isa) == (0, 0)
    assert call.guards_hold()
    problem = call.values, call.weight, 1.3, -0.4
    expected, yardstick = oracle(*problem), evaluate(plain_dense_kl if call.dense else eager, *problem)
    found = call.found()
    if call.element_size == 8:  # as exact as the reference itself: no yardstick beside it
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-11, atol=1e-11 * np.abs(value).max(initial=1.0), err_msg=name)
        return
    if call.type:  # gradients of halves are rounded once, to 11 or 8 bits
        for name in [name for name in found if call.types[name] != torch.float32]:
            step = 2.0**-10 if call.type == 1 else 2.0**-7
            np.testing.assert_allclose(found.pop(name), expected.pop(name), rtol=step, atol=step * 0.01, err_msg=name)
    assert_error_rule(found, yardstick, expected)
