"""Linear datamodeling score: do a score's sums over random training subsets rank the networks trained on them?

LDS(x) = Spearman over j of ( f(x; trained on S_j),  sum over i in S_j of score(x, i) )
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from explainlib.checks import require_count, require_indices, require_shape
from explainlib.metrics.agreement import CHUNK, LEAST_COLUMNS, Estimate
from explainlib.metrics.seeds import require_float_table
from explainlib.metrics.ties import ROUNDING, level_ranks, levels

LEAST_SUBSETS = 3


def linear_datamodeling_score(
    scores: Float[Tensor, "t n"],
    subsets: Sequence[Sequence[int] | Int[Tensor, " _"]],
    outputs: Float[Tensor, "m t"],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Return the mean over tests of the rank correlation of summed scores with true outputs, in [-1, 1].

    Args:
        scores: [test, training example]; positive: more of the example raises ``outputs``. So
            ``representer_scores`` go with logits and ``loss_influence`` with losses as they are. The table of a
            removal (``loss_change``) is the effect of less of it: pass its negative.
        subsets: m lists of the training examples that were kept, not of those removed.
        outputs: [subset, test], each test's output (or loss) after training on each subset.
        resamples: bootstrap draws, at least 1.
        seed: of the bootstrap.

    Returns:
        The score, 1 where every order is right, with a 95% percentile interval from drawing subsets with replacement:
        one subset's network is shared by all tests. Below five subsets there is no interval. Sums, and outputs, that
        are equal up to rounding in their own dtype share their mean rank.

    Raises:
        TypeError: tables that are not floating point.
        ValueError: NaN, other shapes, fewer than three subsets, an index outside, or a test whose sums or outputs are
            the same for every subset, so that no order is defined.

    Source: Park et al. 2023 (TRAK), section 2, test by test. The interval is ours.

    Example:
        >>> scores = torch.tensor([[1.0, 2.0, 4.0]])
        >>> linear_datamodeling_score(scores, [[0], [1], [2], [0, 1]], torch.tensor([[5.0], [6.0], [9.0], [7.0]]))
        1.000 [no interval]
    """
    require_count("resamples", resamples)
    require_count("seed", seed, least=0)
    require_float_table("scores", scores)
    require_float_table("outputs", outputs)
    kept = _masks(subsets, scores.shape[1])
    require_shape("outputs", outputs, [len(kept), len(scores)], meaning="(subset, test); transpose a (test, subset)")
    size = torch.finfo(scores.dtype).eps * scores.double().abs().sum(1)  # a sum's error is that of its terms
    predicted = _require_order(levels(_sums(scores, kept), ROUNDING * size), "summed scores")
    of_true = torch.finfo(outputs.dtype).eps * outputs.double().abs().amax(0)
    true = _require_order(levels(outputs.T.double().contiguous(), ROUNDING * of_true), "outputs")
    return _estimate(predicted, true.to(predicted.device), resamples, seed)


def _masks(subsets: Sequence[Sequence[int] | Int[Tensor, " _"]], n: int) -> Bool[Tensor, "m n"]:
    if len(subsets) < LEAST_SUBSETS:
        raise ValueError(f"{len(subsets)} subsets give no rank correlation; train on at least {LEAST_SUBSETS}.")
    kept = torch.zeros(len(subsets), n, dtype=torch.bool)
    for j, subset in enumerate(subsets):
        kept[j, require_indices(subset, n, name=f"subsets[{j}]").cpu()] = True
    return kept


def _sums(scores: Float[Tensor, "t n"], kept: Bool[Tensor, "m n"]) -> Float[Tensor, "t m"]:
    """Return each subset's sum of scores, in float64: it is ranked, and float32 rounding would order ties."""
    return scores.double() @ kept.to(scores.device).double().T


def _require_order(values: Float[Tensor, "t m"], name: str) -> Float[Tensor, "t m"]:
    """Return levels, each row of which holds at least two."""
    flat = values.amax(1) == 0
    if flat.any():
        raise ValueError(
            f"the {name} of test {int(flat.nonzero()[0])} are the same for every subset, so no order is defined; "
            "leave that test out, or draw other subsets."
        )
    return values


def _estimate(x: Float[Tensor, "t m"], y: Float[Tensor, "t m"], resamples: int, seed: int) -> Estimate:
    t, m = x.shape
    value = _spearman(x, y).mean()
    if m < LEAST_COLUMNS:
        return Estimate(float(value), torch.nan, torch.nan)
    draws = torch.randint(m, (resamples, m), generator=torch.Generator().manual_seed(seed)).to(x.device)
    parts = []
    for part in draws.split(max(1, CHUNK // x.numel())):
        rows = [values[:, part].transpose(0, 1).reshape(-1, m) for values in (x, y)]
        parts.append(_spearman(*rows).reshape(-1, t).mean(1))
    quantiles = torch.tensor([0.025, 0.975], dtype=x.dtype, device=x.device)
    low, high = torch.nanquantile(torch.cat(parts), quantiles)  # a resample of one subset alone is nan
    return Estimate(float(value), float(low), float(high))


def _spearman(x: Float[Tensor, "r m"], y: Float[Tensor, "r m"]) -> Float[Tensor, " r"]:
    x, y = (ranks - ranks.mean(1, keepdim=True) for ranks in (level_ranks(x), level_ranks(y)))
    return (x * y).sum(1) / (x.square().sum(1) * y.square().sum(1)).sqrt()
