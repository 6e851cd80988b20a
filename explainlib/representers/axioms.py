"""The axioms of sample-based explanations as measures: 0 is satisfied, larger is further away.

In a score table phi [n, n], training example i (column) contributes to training example j (row); in phi_test [t, n] to
each test. By Theorem 7 all axioms hold together only for phi_ij = alpha_i K_ij; the functions measure the
violation of each by any table.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib.checks import require_finite, require_shape, require_table, require_tensor

if TYPE_CHECKING:
    import pandas

CYCLES, LONGEST_CYCLE = 2_000, 5  # random cycles of each length, from 3 on
QUANTILE = 0.99
ROUNDING = 32  # assumed error of a score, in units in the last place of the largest
ROWS = 1024  # of the table in one block
SEGMENTS = 64  # of the line along which continuity is measured
NEGLIGIBLE = 1e-9  # of the largest score: counts as no effect


def table(
    scores_train: Float[Tensor, "n n"],
    scores_test: Float[Tensor, "t n"],
    outputs: Float[Tensor, " t"],
    *,
    outputs_before: Float[Tensor, " t"] | None = None,
    seed: int = 0,
) -> pandas.DataFrame:
    """Return one row an axiom: its name, its violation, and a description of the number.

    Args:
        scores_train: phi among the training examples, row: explained, column: explaining.
        scores_test: phi for t tests.
        outputs: the model's explained output on the tests.
        outputs_before: the same before training, where tracking importances start.
        seed: of the random cycles.

    Returns:
        Columns axiom, violation, measure. A violation is relative: 0 satisfied, 1 as large as the quantity itself.
        Continuity is not in the table, because scores at given tests do not determine it. It holds for the last-layer
        kernel of a continuous model, and for kernels of gradients ("ntk", "influence") with smooth activations; in a
        ReLU network these jump where a unit switches on, though the outputs do not: see ``continuity``.

    Raises:
        ValueError: tables that do not belong together.

    Source: Tsai et al. 2023, Definitions 1 to 6. Deviation: Theorem 7 allows any real alpha, but a negative one
    violates Definition 6 for one example; ``irreducibility`` counts them.
    """
    import pandas  # a second that importing this package would take

    require_table("scores_train", scores_train)
    require_table("scores_test", scores_test)
    n = len(scores_train)
    require_shape("scores_train", scores_train, [n, n], meaning="(training against training)")
    require_shape("scores_test", scores_test, [None, n], meaning="(test against training)")
    require_shape("outputs", require_finite("outputs", require_tensor("outputs", outputs)), [len(scores_test)])
    missing = efficiency(scores_test, outputs)
    rows = [("efficiency", missing, "|sum of scores - output| / |output|, over the tests")]
    if outputs_before is not None:
        change = efficiency(scores_test, outputs - outputs_before)
        rows.append(("efficiency of the change", change, "the same for the output minus that before training"))
    rows += [
        (
            "self-explanation",
            self_explanation(scores_train, scores_test),
            "largest effect of what has none on itself",
        ),
        ("symmetric zero", symmetric_zero(scores_train), "share of pairs in which one is 0 and its mirror is not"),
        (
            "symmetric cycle",
            symmetric_cycle(scores_train, seed=seed),
            "relative difference of the two ways round, 99% quantile",
        ),
        (
            "irreducibility",
            irreducibility(scores_train),
            "share of own scores below 0, or what is below 0 with signs divided out; the larger",
        ),
    ]
    return pandas.DataFrame(rows, columns=["axiom", "violation", "measure"])


def efficiency(scores: Float[Tensor, "t n"], outputs: Float[Tensor, " t"]) -> float:
    """Return the relative difference of the scores' sum and the outputs, |sum - f| / |f| (Definition 1)."""
    return float((scores.sum(1) - outputs).norm() / outputs.norm().clamp(min=1e-300))


def self_explanation(scores_train: Float[Tensor, "n n"], scores_test: Float[Tensor, "t n"]) -> float:
    """Return the largest effect on a test of an example with none on itself, relative to the largest score (Def. 2)."""
    silent = scores_train.diagonal().abs() <= NEGLIGIBLE * scores_train.abs().max()
    if not bool(silent.any()):
        return 0.0
    return float(scores_test[:, silent].abs().max() / scores_test.abs().max().clamp(min=1e-300))


def symmetric_zero(scores: Float[Tensor, "n n"]) -> float:
    """Return the share of pairs, both with an effect on themselves, where phi_ij = 0 and phi_ji is not (Def. 3)."""
    none = scores.abs() <= NEGLIGIBLE * scores.abs().max()
    alive = ~none.diagonal()
    pairs = alive[:, None] & alive & ~torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    return float((none != none.T)[pairs].double().mean()) if bool(pairs.any()) else 0.0


def symmetric_cycle(scores: Float[Tensor, "n n"], *, seed: int = 0) -> float:
    """Return the 99% quantile of |a - b| / (|a| + |b|), a and b the products round a cycle in both directions (Def. 4).

    Over random cycles of 3, 4 and 5 distinct examples, the worst length. The rounding error of the scores, some units
    in the last place of the largest, is subtracted first.
    """
    n, worst = len(scores), 0.0
    phi = (scores / scores.abs().max().clamp(min=torch.finfo(scores.dtype).tiny)).double()
    generator = torch.Generator().manual_seed(seed)
    for length in range(3, min(n, LONGEST_CYCLE) + 1):
        at = torch.rand(CYCLES, n, generator=generator).topk(length, dim=1).indices.to(phi.device)
        onward = at.roll(-1, dims=1)
        there, back = phi[at, onward], phi[onward, at]
        one, other = there.prod(1), back.prod(1)
        slack = sum(_without(side, k) for side in (there, back) for k in range(length))
        apart = (one - other).abs() - ROUNDING * torch.finfo(scores.dtype).eps * slack
        found = apart.clamp(min=0) / (one.abs() + other.abs()).clamp(min=1e-300)
        worst = max(worst, float(found.quantile(QUANTILE)))
    return worst


def _without(entries: Float[Tensor, "r k"], k: int) -> Float[Tensor, " r"]:
    """Return |the product of all entries but the k-th|, the factor of an error in that entry."""
    return torch.cat([entries[:, :k], entries[:, k + 1 :]], dim=1).prod(1).abs()


def irreducibility(scores: Float[Tensor, "n n"]) -> float:
    """Return the violation of non-negative principal minors (Def. 6), the largest of three numbers.

    - The share of examples with a negative score on themselves: 1 x 1 minors, and the sign of alpha_i.
    - With those signs divided out (column i by that of phi_ii), the largest (b - a)/(a + |b|) over pairs, a = |phi_ii
      phi_jj| and b = phi_ij phi_ji: a 2 x 2 minor below 0, of any table.
    - Where the table is a product alpha_i K_ij to rounding, minus the lowest eigenvalue of |alpha|^1/2 K |alpha|^1/2
      over the largest. It has the signs of K's eigenvalues, and is computed from phi: sqrt(phi_ij phi_ji). All
      minors of phi are then those of K times importances, so that 0 here is positive semi-definiteness of K.

    Example: the kernel [[1, 2], [2, 1]] has determinant -3, and importances above zero.

        >>> round(irreducibility(torch.tensor([[1.0, 2.0], [2.0, 1.0]], dtype=torch.float64)), 9)
        0.6
    """
    own, size = scores.diagonal(), scores.abs().max().clamp(min=torch.finfo(scores.dtype).tiny)
    negative = float((own < -NEGLIGIBLE * size).double().mean())
    phi = (scores / size).double() * torch.where(own < 0, -1.0, 1.0).double()
    own, eps = phi.diagonal(), ROUNDING * torch.finfo(scores.dtype).eps
    worst, sided = negative, False
    for rows in torch.arange(len(phi), device=phi.device).split(ROWS):
        there, back, expected = phi[rows], phi[:, rows].T, own[rows][:, None] * own
        slack = eps * (there.abs() + back.abs() + own[rows][:, None] + own)
        pairs = (there * back - expected - slack).clamp(min=0) / ((there * back).abs() + expected).clamp(min=1e-300)
        pairs[torch.arange(len(rows)), rows] = 0.0
        worst, sided = max(worst, float(pairs.max())), sided or bool((there * back < -slack).any())
    if sided or symmetric_cycle(scores) > NEGLIGIBLE:
        return worst  # no product of importance and kernel
    values = torch.linalg.eigvalsh((phi * phi.T).clamp(min=0).sqrt() * torch.where(phi + phi.T < 0, -1.0, 1.0))
    return max(worst, float((-values[0] / values[-1].clamp(min=1e-300) - len(values) * eps).clamp(min=0)))


def continuity(
    scores_of: Callable[[Tensor], Tensor], start: Tensor, end: Tensor, *, halvings: int | None = None
) -> float:
    """Return the largest jump of scores on the line between two explained inputs, relative to the largest score.

    The line is cut into segments, and each is bisected towards the half with the larger difference. The difference over
    a segment of almost no length is a jump; of a continuous score it is the derivative times that length. A jump may be
    missed, so 0 on one line is no proof (Definition 5).

    Args:
        scores_of: from inputs [t, ...] to scores [t, n], for instance ``lambda x: kernel(model, x, train.x)``.
        start: one input, without the dimension t.
        end: another.
        halvings: of each segment; None goes to about 1e-12 of the line in float64 and 1e-5 in float32.

    Raises:
        ValueError: inputs of different shapes.

    Example: a step of height 3 in scores of up to 4.

        >>> step = lambda x: torch.where(x > 0.3, 4.0, 1.0).double()
        >>> continuity(step, torch.tensor([0.0]).double(), torch.tensor([1.0]).double())
        0.75
    """
    require_shape("end", require_tensor("end", end), list(require_tensor("start", start).shape), meaning="(like start)")
    if halvings is None:
        halvings = int(-0.8 * math.log2(torch.finfo(start.dtype).eps)) - int(math.log2(SEGMENTS))
    places = torch.linspace(0, 1, SEGMENTS + 1, dtype=start.dtype, device=start.device)

    def at(t: Tensor) -> Tensor:
        return scores_of(start + t.view(-1, *[1] * start.ndim) * (end - start))

    whole = at(places)
    left, right, low, high = places[:-1], places[1:], whole[:-1], whole[1:]
    for _ in range(halvings):
        middle = (left + right) / 2
        between = at(middle)
        first = (between - low).abs().amax(1) >= (high - between).abs().amax(1)
        left, right = torch.where(first, left, middle), torch.where(first, middle, right)
        low, high = torch.where(first[:, None], low, between), torch.where(first[:, None], between, high)
    return float((high - low).abs().max() / whole.abs().max().clamp(min=torch.finfo(whole.dtype).tiny))
