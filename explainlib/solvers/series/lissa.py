"""LiSSA: an inverse by a Neumann series with one batch of examples for each term.

    h <- v + h - (H_B + damping I) h / scale,      H^-1 v ~ h / scale.

It converges when the eigenvalues of (H + damping I)/scale lie in (0, 2). The form often coded,
h <- v + (1 - damping) h - H_B h / scale, solves (H + scale * damping I) instead: a damping of .01 with a
scale of 10 is then .1 (slip 13).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib.progress import tqdm
from explainlib.solvers.series.neumann import REMEDIES, Operator, neumann
from explainlib.solvers.solution import Solution, steps_between_checks

GROWTH = 1e6  # relative to the right-hand side: above it the iteration has diverged


def lissa(
    product: Operator,
    rhs: Float[Tensor, "k p"],
    *,
    scale: float,
    damping: float = 0.0,
    tolerance: float = 1e-6,
    max_steps: int = 20_000,
) -> Solution:
    """Return (H + damping I)^-1 b with all examples in every step, to a residual: ``neumann``.

    Args:
        product: v -> H v on rows [k, p].
        rhs: b [k, p].
        scale: above half the largest eigenvalue of H + damping I; just above the largest is a good choice.
        damping: >= 0.
        tolerance: on |A x - b| / |b|.
        max_steps: about log(1/tolerance) * scale / (smallest eigenvalue) are needed.

    Source: Koh & Liang 2017, section 3; Agarwal et al. 2017. Deviation: damping as in the module's formula.
    """
    return neumann(
        product, rhs, scale=scale, damping=damping, tolerance=tolerance, max_steps=max_steps, name="LiSSA"
    )  # fmt: skip


def lissa_batches(
    batches: Callable[[int], Iterator[Operator]],
    rhs: Float[Tensor, "k p"],
    *,
    scale: float,
    damping: float,
    steps: int,
    repeats: int,
    seed: int = 0,
) -> Solution:
    """Return the mean over repeats of LiSSA on random batches, with its standard error.

    Args:
        batches: seed -> an endless iterator of products v -> H_B v, each batch drawn with replacement and independent
            of the ones before; so every iterate is unbiased up to a transient.
        rhs: b [k, p].
        scale: see ``lissa``; random batches need a larger one, which also lowers the variance.
        damping: >= 0.
        steps: length of the transient; as many further steps are then averaged.
        repeats: independent runs.
        seed: of the first repeat.

    Returns:
        Solution without a residual test; ``standard_error`` [k, p] when there are at least two repeats.
    """
    size = rhs.norm(dim=1).clamp(min=torch.finfo(rhs.dtype).tiny)
    answers, every = [], steps_between_checks(rhs)
    with tqdm(total=2 * steps * repeats, desc="LiSSA", delay=2.0, leave=False) as bar:
        for repeat in range(repeats):
            h, tail = rhs / scale, torch.zeros_like(rhs)
            for step, product in zip(range(2 * steps), batches(seed + repeat), strict=False):
                h = h + (rhs - product(h) - damping * h) / scale
                if step >= steps:
                    tail += h
                asked = step % every == 0 or step == 2 * steps - 1
                if asked and not (h.norm(dim=1) * scale / size < GROWTH * max(1.0, scale)).all():
                    lost, detail = torch.full_like(size, math.inf), f"scale {scale:.3g}, on batches"
                    return Solution(h, "diverged", step, lost, detail, remedies=REMEDIES)
                bar.update()
            answers.append(tail / steps)
    runs = torch.stack(answers)
    error = runs.std(0) / math.sqrt(repeats) if repeats > 1 else None
    value = runs.mean(0)
    noise = torch.zeros_like(size) if error is None else error.norm(dim=1) / value.norm(dim=1).clamp(min=1e-300)
    detail = f"scale {scale:.3g}, {repeats} repeats; the residual is the relative standard error"
    return Solution(value, "converged", 2 * steps * repeats, noise, detail, error)
