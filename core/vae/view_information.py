"""Mutual information between the assignments of images and of their views: what lets clusters form by content (arXiv 1807.06653)."""

from typing import NamedTuple

import torch
from torch import Tensor

from ..machine.ranks import ALONE, Ranks


class ViewInformation(NamedTuple):
    """Mutual information of one joint distribution, plain and as it is trained."""

    information: Tensor
    """() in nats: at most log K, reached when assignments are certain, balanced and equal in both views."""
    trained: Tensor
    """() the same with the marginal entropies weighted, which is what is maximised."""


def view_information(
    logits: Tensor, other: Tensor, marginal_weight: float, ranks: Ranks = ALONE, *, symmetric: bool = True
) -> ViewInformation:
    """Mutual information between the assignments of images and of their views, estimated on the batch.

    With P = 1/N sum_n a_n a'_n^T: I = sum P log P - w sum P (log P_i + log P_j), w = 1 for the information itself.

    Parameters
    ----------
    logits, other : Tensor, (N, K)
        Of the images and of their views.
    marginal_weight : float
        w; above 1 it keeps clusters from emptying.
    ranks : Ranks
        Each holds a part of the batch; P is that of the whole.
    symmetric : bool
        Symmetrise P, as in arXiv 1807.06653. A network that tells images from their views, by the blur of a rotated picture, say, then
        gains as much from a pair of clusters, one of images and one of their views, as from two kinds. It learns faster, but half of its
        clusters hold no image.
    """
    a, b = logits.float().softmax(-1), other.float().softmax(-1)
    with torch.autocast(a.device.type, enabled=False):  # a joint in bfloat16 would round away the differences that are trained
        joint = ranks.mean(a.T @ b / len(a))
    joint = ((joint + joint.T) / 2 if symmetric else joint).clamp_min(1e-12)
    joint = joint / joint.sum()
    negative_joint_entropy = (joint * joint.log()).sum()
    marginal_entropies = -sum((share * share.log()).sum() for share in (joint.sum(1), joint.sum(0)))
    return ViewInformation(
        negative_joint_entropy + marginal_entropies,
        negative_joint_entropy + marginal_weight * marginal_entropies,
    )
