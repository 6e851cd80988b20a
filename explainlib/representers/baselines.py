"""Baselines of representers: representer points (two kinds), the cosine of gradients, and random scores.

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
from explainlib.losses import BINARY_CROSS_ENTROPY, CROSS_ENTROPY, SQUARED_ERROR
from explainlib.representers.importance import surrogate_importance, target_importance
from explainlib.representers.kernels import NoReadoutError, kernel
from explainlib.representers.scores import representer_scores
from explainlib.risk import Risk

REGRESSIONS = {  # the surrogate's loss, by the model's
    CROSS_ENTROPY: "cross_entropy",
    BINARY_CROSS_ENTROPY: "cross_entropy",
    SQUARED_ERROR: "squared_error",
}


def representer_points(risk: Risk, test: Examples, *, output: int) -> Float[Tensor, "t n"]:
    """Return -w_i/(n l2) dl_i/df times the last-layer kernel; positive raises the output.

    Args:
        risk: with l2 > 0. Where only the last layer is trained and at its minimum, the scores of a test sum to its
            output; otherwise they need not.
        test: t examples.
        output: which output is explained.

    Raises:
        ValueError: no ridge, or an output outside the model's.

    Source: Yeh et al. 2018, theorem 3.1. Tsai et al. 2023, Corollary 12, prints the loss against the model's outputs
    instead of the labels: ``surrogate_points``.
    """
    if risk.l2 <= 0:
        raise ValueError(
            "representer points need l2 > 0 in the risk, without which the importances are not defined; "
            "minimise a Risk(..., l2=...) with l2 > 0."
        )
    same = _last_layer_kernel(risk, test.x, output)
    return representer_scores(target_importance(risk) / (risk.n * risk.l2), same, output=output)


@compute.entry
def surrogate_points(risk: Risk, test: Examples, *, output: int, l2: float | None = None) -> Float[Tensor, "t n"]:
    """Return the surrogate importance for the model's own outputs times the last-layer kernel; positive raises it.

    Not a fit to labels as in ``representer_points``, but of a kernel machine to the model, a second time with a ridge.
    Where only the last layer is trained, under squared error and to its minimum, alpha = S alpha_labels with the same
    ridge, S = K (K + n l2/2 I)^-1. As l2 -> 0 they agree where K is invertible; elsewhere only the sums of scores do:
    in null(K) the labels' importances are the residuals, (y - f) 2/(n l2), and these are nothing.

    Args:
        risk: its model, training examples, loss and ridge; no weights.
        test: t examples.
        output: which output is explained.
        l2: of the surrogate, > 0; None is the risk's.

    Returns:
        [t, n]; the scores of a test sum to the surrogate's output, which the ridge makes smaller than the model's.

    Raises:
        ValueError: no ridge, weights, a loss without a surrogate, an output outside the model's, or no last layer.

    Source: Tsai et al. 2023, Corollary 12, eq. (12), as printed.
    """
    ridge = risk.l2 if l2 is None else float(l2)
    if ridge <= 0:
        raise ValueError(f"surrogate points need l2 > 0, and it is {ridge:g}; pass l2=, or a Risk(..., l2=...).")
    if risk.weights is not None:
        raise ValueError("eq. (4) has no weights, and this risk has some; pass the risk without reweighted(...).")
    if risk.loss not in REGRESSIONS:
        raise ValueError(
            f"a surrogate regresses by one of {', '.join(loss.name for loss in REGRESSIONS)}, and the risk's loss is "
            f"the function {risk.loss.name!r}; use representer_points(risk, test, output={output})."
        )
    between = _last_layer_kernel(risk, test.x, output)
    gram = _last_layer_kernel(risk, risk.train.x, output)
    alpha = surrogate_importance(gram, risk.outputs(), loss=REGRESSIONS[risk.loss], l2=ridge)
    return representer_scores(alpha, between, output=output)


def _last_layer_kernel(risk: Risk, x: Tensor, output: int) -> Float[Tensor, "t n"]:
    """Return the last-layer kernel of x and the training examples, of a model whose last layer gives the output."""
    ntk = "kernel(risk.model, test.x, risk.train.x, kind='ntk')"
    remedy = f"use representer_scores(target_importance(risk), {ntk}, output={output})"
    found = risk.parameters.readout(risk.train.x)
    if found is not None and not found.is_output:
        raise NoReadoutError(f"something follows the last nn.Linear {found.name!r}", remedy=remedy)
    try:
        return kernel(risk.model, x, risk.train.x, kind="last_layer")
    except NoReadoutError as error:
        raise NoReadoutError(error.found, remedy=remedy) from None


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
