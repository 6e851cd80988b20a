"""The axioms of sample-based explanations as measures: 0 is satisfied, larger is further away.

A score table phi [n, n] says what training example i (column) contributes to training example j (row), and phi_test
[t, n] to each test. Theorem 7 says that the axioms hold together only for phi_ij = alpha_i K_ij; what follows measures
how far any table is from each.
"""

from __future__ import annotations

import pandas
import torch
from jaxtyping import Float
from torch import Tensor

from explainlib.checks import require_finite, require_shape, require_table, require_tensor

CYCLES = 2_000  # random triples for the cycle axiom
NEGLIGIBLE = 1e-9  # of the largest score: counts as no effect


def table(
    scores_train: Float[Tensor, "n n"],
    scores_test: Float[Tensor, "t n"],
    outputs: Float[Tensor, " t"],
    *,
    outputs_before: Float[Tensor, " t"] | None = None,
    seed: int = 0,
) -> pandas.DataFrame:
    """Return one row an axiom: its name, by how much it is violated, and in words what the number is.

    Args:
        scores_train: phi among the training examples, row: explained, column: explaining.
        scores_test: phi for t tests.
        outputs: what the model answers on the tests, in the scores' output.
        outputs_before: what it answered before training; tracking importances start there.
        seed: of the random cycles.

    Returns:
        Columns axiom, violation, measure. A violation is relative: 0 satisfied, 1 as large as the thing itself.
        Continuity is not measured: every kernel of a continuous model is continuous.

    Raises:
        ValueError: tables that do not belong together.

    Source: Tsai et al. 2023, Definitions 1 to 6. Deviation: Theorem 7 asks for any real alpha, but a negative one
    violates Definition 6 already for one example; the last row counts it.
    """
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
        ("symmetric cycle", symmetric_cycle(scores_train, seed=seed), "relative difference of the two ways round"),
        ("irreducibility", irreducibility(scores_train), "share of examples whose own score is negative"),
    ]
    return pandas.DataFrame(rows, columns=["axiom", "violation", "measure"])


def efficiency(scores: Float[Tensor, "t n"], outputs: Float[Tensor, " t"]) -> float:
    """Return how far the scores are from adding up to the outputs: |sum - f| / |f| (Definition 1)."""
    return float((scores.sum(1) - outputs).norm() / outputs.norm().clamp(min=1e-300))


def self_explanation(scores_train: Float[Tensor, "n n"], scores_test: Float[Tensor, "t n"]) -> float:
    """Return the largest effect on a test of an example without effect on itself, over the largest of all (Def. 2)."""
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
    """Return the median of |a - b| / (|a| + |b|), a and b the products round random triangles, both ways (Def. 4)."""
    n = len(scores)
    if n < 3:
        return 0.0
    generator = torch.Generator().manual_seed(seed)
    i, j, k = torch.rand(CYCLES, n, generator=generator).topk(3, dim=1).indices.T
    phi = scores / scores.abs().max().clamp(min=1e-300)
    there, back = phi[i, j] * phi[j, k] * phi[k, i], phi[j, i] * phi[k, j] * phi[i, k]
    return float(((there - back).abs() / (there.abs() + back.abs()).clamp(min=1e-300)).median())


def irreducibility(scores: Float[Tensor, "n n"]) -> float:
    """Return the share of examples with a negative score on themselves, a 1 x 1 minor below 0 (Def. 6)."""
    return float((scores.diagonal() < -NEGLIGIBLE * scores.abs().max()).double().mean())
