"""Mislabel detection: whether a score ranks wrongly labelled training examples before the others.

A mislabelled example has to be learned by heart, so it owes its fit to itself: its self-influence is large.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from explainlib.checks import require_finite, require_shape, require_tensor
from explainlib.metrics.ties import average_ranks, levels


def mislabel_auc(scores: Float[Tensor, " n"], mislabelled: Bool[Tensor, " n"]) -> float:
    """Return the probability that a mislabelled example scores higher than a correct one; 1 is perfect, 1/2 chance.

    This is the area under the ROC curve; a tie, up to rounding, counts one half.

    Args:
        scores: one per training example, higher is more suspicious. The self-scores of ``loss_influence`` and
            ``tracin`` (their diagonals) are negative, because training on an example lowers its own loss: pass their
            negative. ``representer_scores`` of an example's own label on itself go as they are.
        mislabelled: which labels are wrong; some have to be, and not all.

    Raises:
        TypeError: scores that are not floating point, or a mask that is not boolean.
        ValueError: NaN, unequal lengths, or a mask of one kind only.

    Example:
        >>> mislabel_auc(torch.tensor([0.9, 0.1, 0.5, 0.5]), torch.tensor([True, False, True, False]))
        0.875
    """
    _require_scores(scores, mislabelled)
    ranks = average_ranks(scores[None])[0]
    wrong = int(mislabelled.sum())
    right = len(scores) - wrong
    return float(ranks[mislabelled.to(scores.device)].sum() - wrong * (wrong + 1) / 2) / (wrong * right)


def detection_curve(scores: Float[Tensor, " n"], mislabelled: Bool[Tensor, " n"]) -> Float[Tensor, " k"]:
    """Return the share of mislabelled examples found after checking the k most suspicious, k = 0 ... n (float64).

    Within ties the share is the expected one over random orders: linear across the tie.

    Args:
        scores: one per training example, higher is more suspicious, as in ``mislabel_auc``.
        mislabelled: which labels are wrong.

    Returns:
        [n + 1], rising from 0 to 1. A random order gives k/n.

    Raises:
        TypeError, ValueError: as ``mislabel_auc``.

    Example:
        >>> detection_curve(torch.tensor([0.9, 0.1, 0.5, 0.5]), torch.tensor([True, False, True, False])).tolist()
        [0.0, 0.5, 0.75, 1.0, 1.0]
    """
    _require_scores(scores, mislabelled)
    steps = levels(scores[None])[0]
    order = steps.argsort(descending=True)
    _, tie, size = steps[order].unique_consecutive(return_inverse=True, return_counts=True)
    found = torch.zeros(len(size), dtype=torch.float64, device=scores.device)
    found.index_add_(0, tie, mislabelled.to(scores.device)[order].double())
    share = (found / size)[tie].cumsum(0) / mislabelled.sum().to(scores.device)
    return torch.cat([share.new_zeros(1), share])


def _require_scores(scores: object, mislabelled: object) -> None:
    require_shape("scores", require_tensor("scores", scores), [None], meaning="(one per training example)")
    if not scores.is_floating_point():
        raise TypeError(f"scores has dtype {scores.dtype}, expected floating point; pass scores.double().")
    require_finite("scores", scores)
    if require_tensor("mislabelled", mislabelled).dtype != torch.bool:
        raise TypeError(f"mislabelled has dtype {mislabelled.dtype}, expected a mask; pass mislabelled.bool().")
    require_shape("mislabelled", mislabelled, [len(scores)], meaning="(one per score)")
    if bool(mislabelled.all()) or not bool(mislabelled.any()):
        raise ValueError("mislabelled marks examples of one kind only; mark some, and not all.")
