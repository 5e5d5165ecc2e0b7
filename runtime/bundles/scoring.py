"""How well a model explains an image: the evidence lower bound, from the three graphs' outputs, in nats.

    ELBO(x)     = E log p(x|z) - sum_c q(c|x) KL_c - KL(q(c|x) || uniform)      section 3 of arXiv 1806.08240
    relative(x) = ELBO(x) + sum_i H(x_i)                                        at most 0

The expectation is taken over two antithetic draws z = mean +- exp(log_variance / 2) * eps. eps is the same for every image, so a score
depends on the image alone: not on its neighbours, the batch, or a seed. Training images score within a band; something the model has never
seen lies far below it, in one way or the other. No decoder gives a pixel of intensity x_i more than -H(x_i) = x_i log x_i + (1 - x_i)
log(1 - x_i): 0 for black and white, -log 2 for grey. The bound alone may therefore be high for what is dark or bright, noise too; relative
to the most that these pixels allow it may be high for what is grey (`python -m benchmarks.strange`). Where there is little on an image,
either is high: a frame without contrast is told by that instead.
"""

import math

import numpy as np
from numpy.typing import NDArray

SEED = 20180624
"""Seed of the noise that all images share."""
SMALLEST = 1e-6
"""Probability that a pixel is kept away from 0 and 1; the decoder's sigmoid is rounded to them in float32."""

Floats = NDArray[np.float32]
LEVELS = np.arange(256) / 255
OF_ONES = -LEVELS * np.log(LEVELS, out=np.zeros(256), where=LEVELS > 0)
ENTROPY = (OF_ONES + OF_ONES[::-1]).astype(np.float32)
"""H of the 256 intensities of a pixel, in nats."""


def shared_noise(latent: int) -> Floats:
    """eps, (D,)."""
    return np.random.Generator(np.random.PCG64(SEED)).standard_normal(latent, dtype=np.float32)


def score_latents(mean: Floats, log_variance: Floats) -> Floats:
    """The latents to decode, (2N, D): the N draws with +eps, then those with -eps."""
    spread = np.exp(0.5 * log_variance) * shared_noise(mean.shape[1])
    return np.concatenate([mean + spread, mean - spread])


def pixel_entropy(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """sum_i H(x_i) of each image (N, H, W, C), (N,), in nats."""
    return ENTROPY[images].sum((1, 2, 3), dtype=np.float64)


def contrast(images: NDArray[np.uint8]) -> Floats:
    """Standard deviation of each image's pixels about the mean of their channel, (N,), for images (N, H, W, C): from 0 to 127.5."""
    pixels = max(1, math.prod(images.shape[1:3]))
    # whole numbers, so that the same pixels give the same answer however they lie in memory
    sums, squares = images.sum((1, 2), dtype=np.int64), np.einsum("nhwc,nhwc->nc", images, images, dtype=np.int64)
    return np.sqrt((squares / pixels - (sums / pixels) ** 2).clip(0).mean(1)).astype(np.float32)


def elbo(images: NDArray[np.uint8], decoded: Floats, assignment: Floats, cluster_kl: Floats) -> Floats:
    """Evidence lower bound of each image, (N,), in nats.

    Parameters
    ----------
    images : ndarray, (N, H, W, C), uint8
    decoded : ndarray, (2N, H, W, C)
        What the decoder made of `score_latents`.
    assignment, cluster_kl : ndarray, (N, K)
    """
    n, pixels_of_one = len(images), math.prod(images.shape[1:])
    x = images.reshape(n, pixels_of_one) / np.float32(255)
    reconstruction = np.zeros(n)
    for pixels in (decoded[:n], decoded[n:]):
        p = np.clip(pixels.reshape(n, pixels_of_one), SMALLEST, 1 - SMALLEST)
        # in float64: the sum over pixels must not depend on how numpy blocks it
        reconstruction += 0.5 * (x * np.log(p) + (1 - x) * np.log1p(-p)).astype(np.float64).sum(1)
    a = assignment.astype(np.float64)
    entropy = -(a * np.log(np.where(a > 0, a, 1))).sum(1)
    return (reconstruction - (a * cluster_kl).sum(1) + entropy - np.log(a.shape[1])).astype(np.float32)
