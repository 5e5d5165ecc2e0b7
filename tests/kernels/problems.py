"""Inputs of the mixture loss for tests, the float64 oracle's answers to them, and the error rule they are judged by.

Error rule: an implementation in float32 may be at most four times as far from the oracle as eager float32 torch is, plus a
millionth of the largest number, some 8 ulp.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from catvae.kernels.ops.plain import MixtureKL, plain_dense_kl
from catvae.kernels.reference import dense_kl_reference, mixture_kl_reference

CONSTANTS = ("prior", "weight")
Values = dict[str, Tensor]

ALIKE = [
    {"v": -0.3567},  # as a bias of the head that the log-variances come from gives
    {"m": 0.1, "E": 0.013},
    {"v": 5.03, "F": -5.03},
    {"v": 79.3, "F": -79.3},
    {"v": -4.0, "F": 3.0, "m": 0.5},
    {"v": 0.01, "F": 0.02, "m": 1e-3},
    {"v": 1.5, "F": -1.0, "m": -2.0, "E": 2.1},
]
"""Values of problems all of whose dimensions are alike; what is not named is 0."""


def problem(N: int, K: int, D: int, dtype=torch.float32, *, seed: int = 0, device: str = "cpu") -> tuple[Values, Tensor]:
    """Factorised inputs in the order of `mixture_kl`, standard normal, and sample weights between 0.1 and 1.1."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"m": (N, D), "v": (N, D), "E": (K, D), "F": (K, D), "prior": (K, D), "logits": (N, K)}
    values = {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}
    weight = torch.rand(N, generator=generator, dtype=torch.float64) + 0.1
    return {name: x.to(device, dtype) for name, x in values.items()}, weight.to(device, dtype)


def dense_values(values: Values) -> Values:
    """The dense inputs of the same posteriors, in the order of `dense_mixture_kl`."""
    mu, lv = values["m"][:, None] + values["E"], values["v"][:, None] + values["F"]
    return {"mu": mu, "lv": lv, "prior": values["prior"], "logits": values["logits"]}


def evaluate(function: Callable[..., MixtureKL], values: Values, weight: Tensor | None = None, g1: float = 1.0, g2: float = 1.0):
    """Outputs and gradients of g1 * kl + g2 * neg_entropy, as float64 numpy."""
    leaves = {name: x.detach().clone().requires_grad_(name not in CONSTANTS) for name, x in values.items()}
    out = function(*leaves.values(), weight)
    (g1 * out.kl + g2 * out.neg_entropy).backward()
    found = {"kl": out.kl, "neg_entropy": out.neg_entropy, "assignment": out.assignment, "cluster_kl": out.cluster_kl}
    found |= {f"g_{name}": x.grad for name, x in leaves.items() if name not in CONSTANTS}
    return {name: np.asarray(x.detach().cpu().double()) for name, x in found.items()}


def oracle(values: Values, weight: Tensor | None = None, g1: float = 1.0, g2: float = 1.0):
    """The reference's answer to factorised or dense values."""
    arrays = {name: x.detach().cpu().double().numpy() for name, x in values.items()}
    reference = dense_kl_reference if "mu" in values else mixture_kl_reference
    found = reference(**arrays, weight=None if weight is None else weight.cpu().double().numpy(), g1=g1, g2=g2)
    return {name: np.asarray(value) for name, value in vars(found).items()}


def eager(m, v, E, F, prior, logits, weight=None) -> MixtureKL:
    """The loss as eager torch writes it most directly, N*K*D elements: the yardstick of the error rule."""
    return plain_dense_kl(m[:, None] + E, v[:, None] + F, prior, logits, weight)


def errors(found, expected):
    """Largest absolute error by name."""
    return {name: np.abs(found[name] - expected[name]).max(initial=0.0) for name in expected}


def assert_error_rule(found, yardstick, expected) -> None:
    """`found` against `expected` by the rule above, where `yardstick` is what eager torch found."""
    allowed = errors(yardstick, expected)
    for name, error in errors(found, expected).items():
        tiny = 1e-6 * max(1e-3, np.abs(expected[name]).max(initial=0.0))
        assert error <= 4 * allowed[name] + tiny, (name, error, allowed[name])
