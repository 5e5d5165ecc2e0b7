"""The mixture loss as its equations read, in numpy float64: the oracle every implementation is judged against.

For posterior N(m + E_k, diag exp(v + F_k)) and prior N(prior_k, I), with a = softmax(logits):

    KL_nk        = 1/2 sum_d [ (m + E_k - prior_k)^2 + exp(v + F_k) - 1 - (v + F_k) ]        (N, K)
    kl           = sum_n w_n sum_k a_nk KL_nk
    neg_entropy  = sum_n w_n sum_k a_nk log a_nk                     (0 log 0 = 0)

Written densely, N*K*D elements and all: slow, short and easy to check by eye. Gradients are the term-by-term derivatives of the same
lines, not the factorised products the kernel uses.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class DenseReference:
    """Values and gradients; ``g_*`` are gradients of ``g1 * kl + g2 * neg_entropy``."""

    kl: float
    neg_entropy: float
    assignment: Array  # (N, K)
    cluster_kl: Array  # (N, K)
    g_mu: Array  # (N, K, D)
    g_lv: Array  # (N, K, D)
    g_logits: Array  # (N, K)


@dataclass(frozen=True)
class Reference:
    """The same of the factorised form."""

    kl: float
    neg_entropy: float
    assignment: Array  # (N, K)
    cluster_kl: Array  # (N, K)
    g_m: Array  # (N, D)
    g_v: Array  # (N, D)
    g_E: Array  # (K, D)
    g_F: Array  # (K, D)
    g_logits: Array  # (N, K)


def dense_kl_reference(
    mu: ArrayLike, lv: ArrayLike, prior: ArrayLike, logits: ArrayLike, weight: ArrayLike | None = None, *, g1: float = 1.0, g2: float = 1.0
) -> DenseReference:
    """Evaluate the equations above with mu = m + E_k and lv = v + F_k, (N, K, D); ``weight`` is (N,)."""
    mu, log_variance, prior, logits = (np.asarray(x, np.float64) for x in (mu, lv, prior, logits))
    w = np.ones(len(mu)) if weight is None else np.asarray(weight, np.float64)

    shift = mu - prior  # (N, K, D)
    cluster_kl = 0.5 * (shift**2 + np.expm1(log_variance) - log_variance).sum(-1)

    shifted = logits - logits.max(-1, keepdims=True)
    log_a = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    a = np.exp(log_a)
    log_a = np.where(a == 0, 0.0, log_a)
    a_kl = np.where(a == 0, 0.0, a * cluster_kl)
    mean_kl = a_kl.sum(-1)  # (N,)
    neg_entropy = (a * log_a).sum(-1)  # (N,)

    wa = (w[:, None] * a)[:, :, None]  # (N, K, 1)
    d_kl = np.where(a == 0, 0.0, a * (cluster_kl - mean_kl[:, None]))
    d_entropy = a * (log_a - neg_entropy[:, None])
    return DenseReference(
        kl=float((w * mean_kl).sum()),
        neg_entropy=float((w * neg_entropy).sum()),
        assignment=a,
        cluster_kl=cluster_kl,
        g_mu=g1 * wa * shift,
        g_lv=g1 * wa * 0.5 * np.expm1(log_variance),
        g_logits=w[:, None] * (g1 * d_kl + g2 * d_entropy),
    )


def mixture_kl_reference(
    m: ArrayLike,
    v: ArrayLike,
    E: ArrayLike,
    F: ArrayLike,
    prior: ArrayLike,
    logits: ArrayLike,
    weight: ArrayLike | None = None,
    *,
    g1: float = 1.0,
    g2: float = 1.0,
) -> Reference:
    """The factorised form, shapes as in the module docstring: what an input is shared by adds up in its gradient."""
    m, v, E, F = (np.asarray(x, np.float64) for x in (m, v, E, F))
    found = dense_kl_reference(m[:, None] + E, v[:, None] + F, prior, logits, weight, g1=g1, g2=g2)
    return Reference(
        kl=found.kl,
        neg_entropy=found.neg_entropy,
        assignment=found.assignment,
        cluster_kl=found.cluster_kl,
        g_m=found.g_mu.sum(1),
        g_v=found.g_lv.sum(1),
        g_E=found.g_mu.sum(0),
        g_F=found.g_lv.sum(0),
        g_logits=found.g_logits,
    )
