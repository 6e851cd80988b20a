"""Baselines of representers: representer points, the cosine of gradients, and random scores.

The plain product of gradients is ``influence.loss_influence(risk, test, curvature="identity")``.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib import compute
from explainlib.checks import require_count
from explainlib.datasets import Examples
from explainlib.layerwise import GradientSource, gradients, gram, norms
from explainlib.representers.importance import target_importance
from explainlib.representers.kernels import NoReadoutError, kernel
from explainlib.representers.scores import representer_scores
from explainlib.risk import Risk


def representer_points(risk: Risk, test: Examples, *, output: int) -> Float[Tensor, "t n"]:
    """Return -w_i/(n l2) dl_i/df times the last-layer kernel; positive raises the output.

    Args:
        risk: with l2 > 0. Where only the last layer is trained and at its minimum, the scores of a test sum to its
            output; otherwise they need not.
        test: t examples.
        output: which output is explained.

    Raises:
        ValueError: no ridge, or an output outside the model's.

    Source: Yeh et al. 2018, theorem 3.1; Tsai et al. 2023, Corollary 12.
    """
    if risk.l2 <= 0:
        raise ValueError(
            "representer points need l2 > 0 in the risk, without which the importances are not defined; "
            "minimise a Risk(..., l2=...) with l2 > 0."
        )
    ntk = "kernel(risk.model, test.x, risk.train.x, kind='ntk')"
    remedy = f"use representer_scores(target_importance(risk), {ntk}, output={output})"
    found = risk.parameters.readout(risk.train.x)
    if found is not None and not found.is_output:
        raise NoReadoutError(f"something follows the last nn.Linear {found.name!r}", remedy=remedy)
    try:
        same = kernel(risk.model, test.x, risk.train.x, kind="last_layer")
    except NoReadoutError as error:
        raise NoReadoutError(error.found, remedy=remedy) from None
    return representer_scores(target_importance(risk) / (risk.n * risk.l2), same, output=output)


@compute.entry
def gradient_cosine(risk: Risk, test: Examples) -> Float[Tensor, "t n"]:
    """Return minus the cosine of the loss gradients; positive means harmful, as for ``loss_influence``; no unit.

    A gradient that is exactly zero has cosine 0 with everything. Weights do not enter: as in ``loss_influence``, the
    score is per unit of weight.
    """
    risk.require_examples(test, "test")
    left, right = _loss_gradients(risk, test), _loss_gradients(risk, risk.train)
    lengths = norms(left)[:, None] * norms(right)
    tiny = torch.finfo(lengths.dtype).tiny
    return torch.where(lengths > tiny, -gram(left, right) / lengths.clamp(min=tiny).sqrt(), 0.0)


def random_scores(t: int, n: int, *, seed: int = 0) -> Float[Tensor, "t n"]:
    """Return standard normal scores, the chance baseline.

    Args:
        t: tests.
        n: training examples.
        seed: the same seed gives the same scores.
    """
    for name, count in (("t", t), ("n", n)):
        require_count(name, count)
    generator = torch.Generator().manual_seed(require_count("seed", seed, least=0))
    return torch.randn(t, n, generator=generator, dtype=torch.float64)


def _loss_gradients(risk: Risk, examples: Examples) -> GradientSource:
    return gradients(risk.parameters, risk.theta, examples.x, lambda outputs: risk.loss.gradient(outputs, examples.y))
