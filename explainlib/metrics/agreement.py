"""Agreement of predictions with the truth, in order and in size, with intervals.

Spearman's coefficient depends on the order only; the regression line of truth on prediction adds the share of variance
explained (r2) and the factor between the sizes (slope).
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from explainlib.checks import require_count, require_finite, require_tensor
from explainlib.metrics.ties import average_ranks, levels

LEAST_COLUMNS = 5  # below this a bootstrap interval is not meaningful
CHUNK = 2_000_000  # entries of one bootstrap block: 16 MB in float64


@runtime_checkable
class LossChange(Protocol):
    """A removal, predicted or retrained: the loss change of each test example for each group."""

    def loss_change(self, test: object) -> Float[Tensor, "t g"]:
        """Return the loss after removal minus the loss now."""
        ...


class Estimate(float):
    """A number with its 95% interval: computes and compares as a float, shows ``0.923 [0.871, 0.950]``.

    Attributes:
        low: lower end, in the number's unit; nan where no interval is defined.
        high: upper end.
    """

    def __new__(cls, value: float, low: float, high: float) -> Estimate:
        """Return the estimate; an unknown interval is nan."""
        self = super().__new__(cls, value)
        self.low, self.high = float(low), float(high)
        return self

    def __getnewargs__(self) -> tuple[float, float, float]:
        """Return the state for copying and pickling."""
        return float(self), self.low, self.high

    def __repr__(self) -> str:
        """Return value and interval to three decimals."""
        if self != self:
            return "undefined"
        interval = "no interval" if self.low != self.low else f"{self.low:.3f}, {self.high:.3f}"
        return f"{float(self):.3f} [{interval}]"

    __str__ = __repr__


@dataclass(frozen=True)
class Fidelity:
    """Agreement of predictions with the truth.

    Attributes:
        pearson: linear correlation of all entries, in [-1, 1].
        spearman: correlation of their ranks, ties (equal up to rounding) sharing their mean rank.
        slope: of the least squares line of true on predicted: 2 means that the truth is twice the prediction.
        r2: share of the truth's variance that this line explains, pearson squared (slope and intercept are free, so
            it is not the R^2 of the predictions themselves).
        per_test: Spearman within each test example [t]; nan for a constant row.
        verdict: the same in words.
        tests: t.
        removed: n, the independent units that the bootstrap resamples.
    """

    pearson: Estimate
    spearman: Estimate
    slope: Estimate
    r2: Estimate
    per_test: Float[Tensor, " t"]
    verdict: str
    tests: int
    removed: int

    def _rows(self) -> list[tuple[str, Estimate]]:
        return [("Pearson", self.pearson), ("Spearman", self.spearman), ("slope", self.slope), ("R2", self.r2)]

    def __repr__(self) -> str:
        """Return the verdict and the four numbers, one a line, with 95% intervals."""
        lines = [f"Fidelity over {self.tests} test x {self.removed} removed: {self.verdict}"]
        return "\n".join(lines + [f"  {name:<9}{estimate!r}" for name, estimate in self._rows()])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{name}</th><td>{escape(repr(estimate))}</td></tr>"
            for name, estimate in self._rows()
        )
        return (
            f"<p><b>{escape(self.verdict)}</b></p><table><thead><tr><th></th><th>value [95% interval]</th></tr></thead>"
            f"<tbody>{rows}</tbody></table><p>{self.tests} test &times; {self.removed} removed</p>"
        )


def fidelity(
    predicted: Tensor | LossChange,
    true: Tensor | LossChange,
    *,
    test: object = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Fidelity:
    """Return how well ``predicted`` agrees with ``true``, with 95% percentile bootstrap intervals.

    The bootstrap draws columns (removed examples or groups) with replacement, because the entries of one column share
    one removal and are not independent. Cost: O(resamples t n) time; memory is bounded.

    Args:
        predicted: table [t, n] or vector [n], finite, in any unit; or a Removal.
        true: of the same shape; or a Retrained, of the same weighting and groups.
        test: the examples of the compared losses; needed for, and only for, a Removal or a Retrained.
        resamples: bootstrap draws, at least 1.
        seed: of the bootstrap; the caller's generator is not touched.

    Returns:
        The four numbers, the Spearman of each test row, and a verdict. Numbers that are not defined (all predictions
        or all truths equal) are nan, and the verdict gives the reason. Below five columns there is no interval. Tables
        on two devices are compared on that of the truth.

    Raises:
        TypeError: neither a tensor nor an object with ``loss_change``.
        ValueError: unequal shapes, fewer than three entries, NaN or infinite entries, unequal weighting or groups, or
            ``test`` missing or superfluous.

    Example:
        >>> true = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
        >>> float(fidelity(true / 2, true).slope)
        2.0
    """
    require_count("resamples", resamples)
    require_count("seed", seed, least=0)
    _require_comparable(predicted, true)
    x = _table("predicted", predicted, test)
    y = _table("true", true, test)
    if test is not None and isinstance(predicted, Tensor) and isinstance(true, Tensor):
        raise ValueError("test was given with two tensors, which already are about certain tests; leave test out.")
    if x.shape != y.shape:
        raise ValueError(
            f"predicted has shape {list(x.shape)}, true {list(y.shape)}; compare the same tests and the same removals."
        )
    if x.numel() < 3:
        raise ValueError(f"predicted has {x.numel()} entries, expected at least 3; compare more tests or removals.")
    x, y = x.to(y.device).reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1])
    tests, removed = x.shape
    per_test = row_correlation(average_ranks(x), average_ranks(y))
    constant = [name for name, table in (("predictions", x), ("truths", y)) if _is_constant(table.flatten())]
    if constant:
        undefined = Estimate(torch.nan, torch.nan, torch.nan)
        verdict = f"{' and '.join(constant)} are all equal; no correlation is defined"
        return Fidelity(undefined, undefined, undefined, undefined, per_test, verdict, tests, removed)
    estimates = _estimates(x.double(), y.double(), resamples, seed)
    return Fidelity(*estimates, per_test, _verdict(*estimates[1:], per_test), tests, removed)


def same_spearman_pair() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return two constructed pairs (predicted [100], true [100]): one Spearman, .923, but r2 .83 and .18.

    Both pairs have the same predictions, evenly spaced in [0, 1], and truths in [0, 1] in the same order. The first
    truth rises nearly evenly; in the second a few examples have nearly all of the effect.

    Source: Epifano et al., Fig. 4; the data are constructed here.
    """
    predicted = torch.linspace(0, 1, 100, dtype=torch.float64)
    golden = (5**0.5 - 1) / 2
    scatter = (torch.arange(1, 101, dtype=torch.float64) * golden).remainder(1) - 0.5  # even, yet without pattern
    order = (average_ranks((predicted + 0.439 * scatter)[None])[0] - 1) / 99
    even, steep = (torch.expm1(k * order) / torch.expm1(torch.tensor(k, dtype=torch.float64)) for k in (1.223, 25.93))
    return (predicted, even), (predicted, steep)


def _require_comparable(predicted: object, true: object) -> None:
    """Check, for two removals, that they give the others the same weights and remove the same groups."""
    weightings = [getattr(side, "weighting", None) for side in (predicted, true)]
    if None not in weightings and weightings[0] != weightings[1]:
        raise ValueError(
            f"predicted has weighting {weightings[0]!r}, true {weightings[1]!r}: they answer different questions; "
            "compute both with the same weighting."
        )
    groups = [getattr(side, "groups", None) for side in (predicted, true)]
    if None not in groups:
        sets = [[sorted(torch.as_tensor(group).tolist()) for group in side] for side in groups]
        if sets[0] != sets[1]:
            first = next((g for g, (a, b) in enumerate(zip(*sets, strict=False)) if a != b), min(map(len, sets)))
            raise ValueError(
                f"predicted and true remove different groups (the first difference is group {first}); "
                "compute both with the same list, in the same order."
            )


def _table(name: str, side: Tensor | LossChange, test: object) -> Float[Tensor, "*shape"]:
    if hasattr(side, "loss_change"):
        if test is None:
            raise ValueError(f"{name} is a {type(side).__name__}; pass test=, the examples whose loss is compared.")
        side = side.loss_change(test)
    table = require_finite(name, require_tensor(name, side).detach())
    if not table.is_floating_point():
        raise TypeError(f"{name} has dtype {table.dtype}, expected floating point; pass {name}.double().")
    if table.ndim not in (1, 2):
        raise ValueError(f"{name} has shape {list(table.shape)}, expected a table [test, removed] or a row [removed].")
    return table


def _is_constant(values: Float[Tensor, " n"]) -> bool:
    """Return whether the entries differ by no more than rounding, so that all share one rank."""
    return not bool(levels(values[None]).any())


def row_correlation(x: Float[Tensor, "t n"], y: Float[Tensor, "t n"]) -> Float[Tensor, " t"]:
    """Return Pearson's correlation row by row; nan where one side is constant."""
    x, y = x - x.mean(-1, keepdim=True), y - y.mean(-1, keepdim=True)
    return (x * y).sum(-1) / (x.square().sum(-1) * y.square().sum(-1)).sqrt()  # 0/0 is the documented nan


def _estimates(x: Float[Tensor, "t n"], y: Float[Tensor, "t n"], resamples: int, seed: int) -> list[Estimate]:
    """Return pearson, spearman, slope and r2; row 0 of the counts is the original sample."""
    n = x.shape[1]
    draws = torch.randint(n, (resamples, n), generator=torch.Generator().manual_seed(seed))
    counts = torch.zeros(resamples, n, dtype=torch.float64).scatter_add_(1, draws, torch.ones(draws.shape).double())
    counts = torch.cat([torch.ones(1, n, dtype=torch.float64), counts]).to(x.device)
    pearson, slope = _line(x, y, counts)
    spearman = _spearman(x, y, counts)
    table = torch.stack([pearson, spearman, slope, pearson.square()])  # [4, 1 + resamples]
    quantiles = torch.tensor([0.025, 0.975], dtype=table.dtype, device=table.device)
    low, high = torch.nanquantile(table[:, 1:], quantiles, dim=1)  # a resample of one column alone is nan
    if n < LEAST_COLUMNS:
        low, high = torch.full_like(low, torch.nan), torch.full_like(high, torch.nan)
    return [Estimate(*row) for row in torch.stack([table[:, 0], low, high], dim=1).tolist()]


def _line(x: Float[Tensor, "t n"], y: Float[Tensor, "t n"], counts: Float[Tensor, "b n"]) -> tuple[Tensor, Tensor]:
    """Return correlation [b] and slope [b] when column j counts ``counts[:, j]`` times."""
    x_scale, y_scale = x.std(), y.std()
    x, y = (x - x.mean()) / x_scale, (y - y.mean()) / y_scale
    sums = counts @ torch.stack([part.sum(0) for part in (x, y, x * x, y * y, x * y)], dim=1)
    x1, y1, xx, yy, xy = (sums / (counts.sum(1, keepdim=True) * x.shape[0])).unbind(1)
    x_var, y_var, cov = xx - x1 * x1, yy - y1 * y1, xy - x1 * y1
    x_var, y_var = (torch.where(var > 1e-12, var, torch.nan) for var in (x_var, y_var))
    return (cov / (x_var * y_var).sqrt()).clamp(-1, 1), cov / x_var * (y_scale / x_scale)


def _spearman(x: Float[Tensor, "t n"], y: Float[Tensor, "t n"], counts: Float[Tensor, "b n"]) -> Float[Tensor, " b"]:
    """Return the rank correlation of each resample, without materialising it."""
    tied = [levels(values.reshape(1, -1))[0].long() for values in (x, y)]
    block = max(1, CHUNK // x.numel())
    return torch.cat([_rank_correlation(*tied, part.repeat(1, x.shape[0])) for part in counts.split(block)])


def _rank_correlation(
    x_level: Int[Tensor, " m"], y_level: Int[Tensor, " m"], weight: Float[Tensor, "b m"]
) -> Float[Tensor, " b"]:
    weight = weight.T.contiguous()  # [m, b]: sums over entries then run along contiguous rows
    centre = weight.sum(0) / 2

    def centred_ranks(level: Int[Tensor, " m"]) -> Float[Tensor, "m b"]:
        at = weight.new_zeros(int(level.max()) + 1, weight.shape[1]).index_add_(0, level, weight)
        return (at.cumsum(0) - at / 2 - centre)[level]  # mean rank of a level: all below it plus half of the level

    x_rank, y_rank = centred_ranks(x_level), centred_ranks(y_level)
    xx, yy, xy = ((weight * a * b).sum(0) for a, b in ((x_rank, x_rank), (y_rank, y_rank), (x_rank, y_rank)))
    return (xy / (xx * yy).sqrt()).clamp(-1, 1)


def _verdict(spearman: Estimate, slope: Estimate, r2: Estimate, per_test: Float[Tensor, " t"]) -> str:
    """Return the verdict: order, size, and whether rows differ from the whole table."""
    if spearman.low <= 0 <= spearman.high:
        return "no agreement beyond chance"
    if spearman < 0:
        return "the order is reversed; check the sign (the effect of a removal is minus the influence, times 1/n)"
    steps = ((0.9, "right order"), (0.6, "roughly the right order"), (0.0, "weak agreement in order"))
    order = next(words for least, words in steps if spearman >= least)
    doubt = "; too few removals for an interval" if spearman.low != spearman.low else ""
    return order + _describe_size(slope, r2) + _within_tests(float(spearman), per_test) + doubt


def _describe_size(slope: Estimate, r2: Estimate) -> str:
    if r2 < 0.5:
        return f", but the sizes do not follow a line (R2 {float(r2):.2f})"
    if 0.9 <= slope <= 1.1:
        return " and right size"
    return f", but sizes are off by a factor {float(slope):.3g} (true = {float(slope):.3g} x predicted)"


def _within_tests(spearman: float, per_test: Tensor) -> str:
    """Return a sentence if the whole table and its rows disagree (shifts between tests)."""
    median = float(per_test.nanmedian())
    if per_test.numel() == 1 or abs(median - spearman) < 0.05:
        return ""
    if median > spearman:
        return (
            f"; within single test examples the order is better (median Spearman {median:.2f}), so each is shifted by "
            "its own amount: check that both sides use the same weighting and ridge"
        )
    return f"; much of it is between test examples: within one the median Spearman is {median:.2f}"
