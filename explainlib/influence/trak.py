r"""TRAK: the model as a logistic regression on randomly projected gradients, where influence has a closed form.

    f(z) = log( p / (1 - p) ),  p the probability of z's own label;      phi(z) = P^T grad f(z),   Phi [n, k]
    trak(t, j) = - (1/M sum_m phi_m(t)^T (Phi_m^T W_m Phi_m)^-1 phi_m(j)) * (1/M sum_m (1 - p_m(j)))

over M models, each with a projection P and example weights W of its own (1 unless reweighted). 1 - p is taken from the
logarithms of the other labels' probabilities: as a difference it would round to 0 where p is near 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from explainlib import compute
from explainlib.checks import require_choice, require_count, require_nonnegative, warn_caller
from explainlib.datasets import Examples
from explainlib.influence.measures import MARGIN
from explainlib.layerwise import GradientSource, gradients, per_example, product
from explainlib.losses import CROSS_ENTROPY
from explainlib.memory import alternatives, memory_limit, slices
from explainlib.risk import Risk
from explainlib.solvers.dense import Factor
from explainlib.solvers.low_rank import gram_floor
from explainlib.solvers.remedies import Remedies

REMEDIES = Remedies(shift="pass a larger damping", pruned="pass a smaller number of features")
PROJECTIONS = ("rademacher", "gaussian")
PARTS = 3  # that share the memory: a pass through the network, some columns of P, and their product
WORK, COLUMNS = 2**26, 128  # by default a part takes these bytes, or so many columns of P: more is hardly faster


@alternatives("pass features=512, fewer test examples, or Risk(..., parameters='last')")
@compute.entry
def trak(
    risks: Risk | Sequence[Risk],
    test: Examples,
    *,
    features: int | None = 512,
    projection: str = "rademacher",
    damping: int | float | None = None,
    seed: int = 0,
    memory: int | float | None = None,
    on_failure: str = "raise",
) -> Float[Tensor, "t n"]:
    r"""Return TRAK scores; positive means that training on j lowers the log-odds of t's label: harmful.

    Args:
        risks: one model, or an ensemble of independently trained ones (or checkpoints, as ``risk.at(theta)``) on the
            same training set; cross-entropy. Weights count an example that many times in Phi^T W Phi; the score of j
            stays that of one more unit of weight on it, as in ``loss_influence``.
        test: t examples.
        features: k random directions, at most n and p without damping; None keeps all p coordinates,
            unprojected.
        projection: entries +-1/sqrt(k) ("rademacher") or normal with variance 1/k ("gaussian"): inner products are
            kept in expectation.
        damping: added to the diagonal of Phi^T W Phi, >= 0; 0 is the paper's, and refuses a singular matrix. None is 0,
            and for a singular matrix the limit of damping to 0, with a warning: its pseudo-inverse, because the rows of
            Phi lie in its span.
        seed: of the projections; one stream runs through all models.
        memory: bytes of working memory; the p x k projection is drawn in parts that fit. None is 192 MiB, or for large
            networks three times 128 columns of the projection, and never more than a quarter of free memory.
        on_failure: "raise" or "warn" where Phi^T W Phi is singular.

    Returns:
        [t, n], in log-odds up to an unknown scale of the logistic approximation: use it as a ranking. Where 1 - p
        underflows (margins of 87 in float32, 708 in float64), a warning gives the number of examples.

    Raises:
        ValueError: another loss, risks on different training sets, negative weights, or more features than weighted
            examples without damping.
        SolverError: a singular Phi^T W Phi with a given damping.

    Source: Park et al. 2023, section 3. Deviations: the sign (there positive is helpful), and no soft threshold; the
    paper has no weights.
    """
    ensemble = [risks] if isinstance(risks, Risk) else list(risks)
    _require_ensemble(ensemble, test, features, damping)
    require_choice("projection", projection, PROJECTIONS)
    generator = torch.Generator().manual_seed(seed)
    kernel = torch.zeros(len(test), ensemble[0].n, dtype=ensemble[0].theta.dtype, device=ensemble[0].theta.device)
    log_errors = []
    for risk in ensemble:
        limit = memory_limit(memory, risk.theta.device)
        if memory is None and features is not None:
            limit = min(limit, PARTS * max(WORK, COLUMNS * risk.p * risk.theta.element_size()))
        share = limit if features is None else max(1, limit // PARTS)
        sources = [log_odds_gradients(risk, part, memory=share) for part in (risk.train, test)]
        if features is None:
            train, tests = (per_example(source) for source in sources)
        else:
            train, tests = random_projection(sources, features, projection, generator, memory=share)
        weighted = train if risk.weights is None else risk.weights[:, None] * train
        factor = _factor(train.double().T @ weighted.double(), damping, train.dtype)  # float64: a small damping is seen
        solved = replace(factor.solve(tests.double()), remedies=REMEDIES).require_converged(on_failure).value.to(train)
        kernel += solved @ train.T / len(ensemble)
        log_errors.append(log_error_probability(risk.outputs(), risk.train.y))
    log_error = torch.stack(log_errors).logsumexp(0) - math.log(len(ensemble))
    _warn_of_underflow(log_error)
    return -kernel * log_error.exp()


def _factor(matrix: Float[Tensor, "k k"], damping: int | float | None, dtype: torch.dtype) -> Factor:
    """Return the factor of Phi^T W Phi + damping I, of a Phi in that dtype; see ``trak``."""
    factor = Factor(matrix, damping=float(damping or 0))
    if damping is not None or not factor.null:
        return factor
    kept = Factor(matrix, keep=gram_floor(dtype, len(matrix)))
    warn_caller(
        f"the gradients span {kept.rank} of {len(matrix)} features, so Phi^T Phi has no inverse; its pseudo-inverse is "
        "taken, the limit of damping to 0. Pass damping=..., or a smaller number of features.",
        UserWarning,
    )
    return kept


def log_error_probability(outputs: Float[Tensor, "n C"], y: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Return log(1 - p), p the probability of each own label: as the other labels' share of the softmax."""
    own = torch.nn.functional.one_hot(y, outputs.shape[1]).bool()
    return outputs.masked_fill(own, -torch.inf).logsumexp(1) - outputs.logsumexp(1)


def _warn_of_underflow(log_error: Float[Tensor, " n"]) -> None:
    smallest = math.log(torch.finfo(log_error.dtype).tiny)
    underflowed = int((log_error < smallest).sum())
    if underflowed:
        remedy = "convert model and data to float64" if log_error.dtype != torch.float64 else "train with a larger l2"
        message = (
            f"1 - p underflows for {underflowed} of {len(log_error)} training labels (down to "
            f"10^{float(log_error.min()) / math.log(10):.0f}), so their scores are 0 in {log_error.dtype}; "
            f"{remedy}, or do not rank them."
        )
        warn_caller(message, UserWarning)


def log_odds_gradients(risk: Risk, examples: Examples, *, memory: int | None = None) -> GradientSource:
    """Return the gradients of f = log p/(1 - p), p the probability of each example's own label: of the margin.

    Args:
        risk: the model.
        examples: with labels.
        memory: bytes of a pass.
    """
    slope = lambda outputs: MARGIN.gradient(outputs, examples.y)  # noqa: E731
    return gradients(risk.parameters, risk.theta, examples.x, slope, memory=memory)


def random_projection(
    sources: Sequence[GradientSource],
    features: int,
    projection: str,
    generator: torch.Generator,
    *,
    memory: int,
) -> list[Float[Tensor, "_ k"]]:
    """Return G P for gradients G [n, p] of several sets, with one random P [p, k]; neither is materialised whole.

    Args:
        sources: gradients in the same parameters.
        features: k.
        projection: see ``trak``.
        generator: on the CPU, so that every device gets the same numbers.
        memory: bytes of the columns of P in memory, and again of their product.
    """
    p, like = sources[0].theta.numel(), sources[0].theta
    width = min(features, max(1, memory // (p * like.element_size())))
    out = [like.new_empty(source.n, features) for source in sources]
    rows = like.new_empty(width, p)
    for columns in slices(features, width):
        part = rows[: columns.stop - columns.start]
        for row, drawn in zip(part, _draw_rows(len(part), p, projection, generator, like), strict=True):
            row.copy_(drawn)
        part /= features**0.5
        for projected, source in zip(out, sources, strict=True):
            projected[:, columns] = product(source, part, memory=memory)
    return out


def _draw_rows(count: int, p: int, projection: str, generator: torch.Generator, like: Tensor) -> Iterator[Tensor]:
    """Yield rows one by one, so that the numbers do not depend on the available memory."""
    for _ in range(count):
        if projection == "gaussian":
            yield torch.randn(p, generator=generator, dtype=torch.float32).to(like)
        else:
            bits = torch.randint(0, 2, (p,), generator=generator, dtype=torch.int8)
            yield (2 * bits - 1).to(like)


def _require_ensemble(ensemble: list[Risk], test: Examples, features: int | None, damping: int | float | None) -> None:
    if not ensemble:
        raise ValueError("risks is empty; pass one Risk or a list of them.")
    first = ensemble[0]
    for risk in ensemble:
        if risk.loss is not CROSS_ENTROPY:
            raise ValueError(
                f"trak needs the probability of a label, and the loss is {risk.loss.name!r}; train with "
                "loss='cross_entropy', or use xl.influence.tracin."
            )
        if risk.n_outputs < 2:
            raise ValueError(
                "trak needs a model with at least two outputs, one for each class, and this one has one; "
                "use xl.influence.tracin."
            )
        if risk.n != first.n or not torch.equal(risk.train.y, first.train.y):
            raise ValueError("the risks of an ensemble have different training sets; train all of them on the same.")
        if (risk.weights_or_ones() < 0).any():
            raise ValueError(
                "trak needs example weights of zero or more, and got a negative weight; "
                "pass risk.reweighted(...) with weights of zero or more."
            )
        risk.require_examples(test, "test")
    require_nonnegative("damping", float(damping or 0))
    wide = first.p if features is None else require_count("features", features)
    rows = min(int((risk.weights_or_ones() > 0).sum()) for risk in ensemble)
    most = rows if features is None else min(rows, first.p)
    if wide > most and not damping:
        raise ValueError(
            f"features={features} gives {wide} columns to {rows} gradients of {first.p} parameters, so Phi^T Phi is "
            f"singular; pass features of at most {min(rows, first.p)}, or a damping."
        )
