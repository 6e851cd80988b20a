"""Variational training: the evidence lower bound as a risk, so that influence applies to Bayesian networks too.

    R(theta) = 1/n sum_i w_i l_i(theta) + kl_weight/n KL(q_theta || p),      theta = all means and rhos,

l_i the cost of example i's label under the moments of its output. R is minus the bound divided by n. Removing an
example takes its l_i and leaves the divergence as it is, just as a ridge stays: so the divergence is in every Hessian
and in no example's gradient.

Source: Epifano et al., eqs (3)-(5). Deviation: eq. (5) adds the cost of the data to minus the divergence; one of the
two signs has to turn, and turns here (R is a cost, to be minimised).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.quasirandom import SobolEngine

from explainlib.checks import require_choice, require_labels, require_nonnegative, require_positive
from explainlib.datasets import Examples
from explainlib.losses import Loss, one_hot
from explainlib.models.bayes import Bayesian
from explainlib.models.bayes_layers import variance_of
from explainlib.models.moments import gaussian_kl, softmax_moments
from explainlib.risk import Risk
from explainlib.training.fit import Trajectory, fit

DRAWS = 64  # normal vectors of ``sampled_cross_entropy``
NOISE = 1e-2  # variance of a one-hot label about its probability; without it the cost is unbounded below


def sampled_cross_entropy(moments: Float[Tensor, "n C2"], y: Tensor) -> Float[Tensor, " n"]:
    """Return E[-log softmax(f)_y] over Gaussian logits f, by 64 fixed draws: 1/S sum_s -log softmax(m + sqrt(v) e_s)_y.

    The e_s are the same for every example and call, so the cost is a smooth function of the moments and has a Hessian.
    Against 400,000 draws it is off by at most 2% at variances from .1 to 200, with three and ten classes, where
    ``expected_cross_entropy`` is off by 42% at 10 and without bound beyond.

    Source: Epifano et al., eq. (4), first term, for a categorical label. Deviation: sampled, where the paper takes a
    Gaussian density of the probabilities.
    """
    mean, variance = moments.chunk(2, -1)
    draws = _normal_draws(mean.shape[-1]).to(mean)
    logits = mean[..., None, :] + variance.sqrt()[..., None, :] * draws
    own = (logits * one_hot(y, mean.shape[-1], mean)[..., None, :]).sum(-1)
    return (logits.logsumexp(-1) - own).mean(-1)


@lru_cache(maxsize=16)
def _normal_draws(classes: int) -> Float[Tensor, "s C"]:
    """Return scrambled Sobol points through the normal quantile function, always the same ones."""
    points = SobolEngine(classes, scramble=True, seed=0).draw(DRAWS, dtype=torch.float64)
    return torch.special.ndtri(points.clamp(1e-9, 1 - 1e-9))


def gaussian_cost(moments: Float[Tensor, "n C2"], y: Tensor) -> Float[Tensor, " n"]:
    """Return 1/2 sum_c [log v_c + (y_c - p_c)^2 / v_c], p and v the probabilities' mean and variance, y one-hot.

    Source: Epifano et al., eq. (5), first two terms. Deviations: both have the factor 1/2 of a Gaussian density and the
    same 1/n; v has ``NOISE`` added, because a certain network's variance vanishes and its cost would fall for ever.
    """
    p, variance = softmax_moments(*moments.chunk(2, -1))
    v = variance + NOISE
    own = one_hot(y, p.shape[-1], p)
    return (v.log() + (own - p).square() / v).sum(-1) / 2


def expected_cross_entropy(moments: Float[Tensor, "n C2"], y: Tensor) -> Float[Tensor, " n"]:
    """Return E[-log softmax(f)_y] to second order in f's spread: cross-entropy(mean) + 1/2 sum_c p_c (1 - p_c) var_c.

    Right for small variances only: it grows linearly with them, the expectation like their root. With means 1, 0, -1
    and all variances v it is too large by 0.01% (v = .1), 2% (1), 21% (5), 42% (10), against 400,000 draws;
    ``sampled_cross_entropy`` has no such limit.

    Source: Epifano et al., eq. (4), first term, for a categorical label. Deviation: the Taylor series goes one term
    further than eq. (13), because the term of first order vanishes in the mean.
    """
    mean, variance = moments.chunk(2, -1)
    log_p = mean.log_softmax(-1)
    p = log_p.exp()
    return (p * (1 - p) * variance).sum(-1) / 2 - log_p.gather(-1, y[:, None])[:, 0]


COSTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sampled_cross_entropy": sampled_cross_entropy,
    "expected_cross_entropy": expected_cross_entropy,
    "gaussian": gaussian_cost,
}


class _ConcaveSomewhere(Loss):
    """A cost that is not convex in the moments, so it has no Gauss-Newton matrix."""

    def hessian(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Raise: a matrix made from it would lack the divergence and not be positive semi-definite."""
        raise ValueError(
            "the bound has no Gauss-Newton matrix (its cost is not convex in means and variances); take influence of "
            "it with loss_influence(..., curvature='hessian') or 'empirical_fisher', and damping > 0."
        )


class _MomentModel(nn.Module):
    """A Bayesian network with output [mean, variance], [n, 2C]."""

    gives_moments = True

    def __init__(self, net: Bayesian) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(self.net.propagated(x), -1)


class _MomentKlModel(_MomentModel):
    """The same with the divergence in a last column, for ordinary training, where every example counts once."""

    def __init__(self, net: Bayesian, prior_variance: int | float) -> None:
        super().__init__(net)
        self.prior_variance = prior_variance

    def forward(self, x: Tensor) -> Tensor:
        moments = super().forward(x)
        return torch.cat([moments, self.net.kl(self.prior_variance).expand(len(x), 1)], -1)


class ElboRisk(Risk):
    """Minus the evidence lower bound over n, as a ``Risk``: gradients, Hessian and influence with respect to (mu, rho).

    ``outputs`` are [n, 2C], the logits' means and then their variances; ``losses`` are the costs l_i without the
    divergence. ``l2`` is 0: the prior takes its place.

    Args:
        model: from ``bayesian_mlp`` or ``bayesian``. It is copied.
        train: the n examples, with class labels.
        loss: "sampled_cross_entropy", right at any variance of the logits; "expected_cross_entropy", a Taylor series
            for small ones; or "gaussian" (the paper's).
        kl_weight: of the divergence, >= 0; 1 is the bound itself.
        prior_variance: of each weight's prior N(0, prior_variance), above zero.
        parameters: "all", "last" (the last layer's means and rhos), or a list of the model's names.

    Raises:
        TypeError, ValueError: a model that is not Bayesian, bad labels, numbers outside their range.
    """

    has_ridge = False  # so messages do not name l2

    def __init__(
        self,
        model: Bayesian,
        train: Examples,
        *,
        loss: str = "sampled_cross_entropy",
        kl_weight: int | float = 1.0,
        prior_variance: int | float = 1.0,
        parameters: str | Sequence[str] = "all",
    ) -> None:
        _require_elbo(model, train, loss, kl_weight, prior_variance)
        names = model.last_names() if parameters == "last" else parameters
        chosen = names if isinstance(names, str) else [f"net.{name}" for name in names]
        self.cost, self.kl_weight, self.prior_variance = loss, float(kl_weight), float(prior_variance)
        self.kl_per_example = self.kl_weight / len(train)  # also on a subset, as in LiSSA's batches
        name = f"{loss}, kl_weight {self.kl_weight!r} of {len(train)}, prior_variance {self.prior_variance!r}"
        super().__init__(_MomentModel(model), train, loss=_ConcaveSomewhere(name, COSTS[loss]), parameters=chosen)

    @property
    def model(self) -> Bayesian:
        """A copy of the network with theta in it."""
        return super().model.net

    def kl(self, theta: Float[Tensor, "*m p"] | None = None) -> Float[Tensor, "*m"]:
        """Return KL(q || p) at theta, by default the risk's own; differentiable."""
        named = self.named(self.theta if theta is None else theta)
        shapes = {name: parameter.shape for name, parameter in self.parameters.module.named_parameters()}
        flat = {name: part.reshape(*part.shape[: part.ndim - len(shapes[name])], -1) for name, part in named.items()}
        return sum(
            gaussian_kl(part, variance_of(flat[f"{name}_rho"]), self.prior_variance)
            for name, part in flat.items()
            if not name.endswith("_rho")
        )

    def named(self, theta: Float[Tensor, "*m p"]) -> dict[str, Float[Tensor, "..."]]:
        """Return every parameter by name: the chosen ones from theta (leading dimensions kept), the others frozen."""
        sizes, shapes = self.parameters.sizes, self.parameters.shapes
        parts = zip(self.parameters.names, theta.split(sizes, -1), shapes, strict=True)
        return dict(self.parameters.module.named_parameters()) | {
            name: part.unflatten(-1, shape) if len(shape) > 1 else part for name, part, shape in parts
        }

    def objectives(self) -> Iterator[Callable[[Float[Tensor, " p"]], Float[Tensor, ""]]]:
        """Yield functions of theta whose sum is n R, the divergence last."""
        for outputs, y, weights in super().parts():

            def cost(theta: Tensor, outputs=outputs, y=y, weights=weights) -> Tensor:
                losses = self.loss.value(outputs(theta), y)
                return losses.sum() if weights is None else (weights * losses).sum()

            yield cost
        yield lambda theta: self.n * self.kl_per_example * self.kl(theta)

    def parts(self) -> Iterator[tuple[Callable[[Tensor], Tensor], Tensor, Tensor | None]]:
        """Raise: a sum of weighted losses would lack the divergence."""
        raise ValueError(
            "this computation sums weighted losses and would miss the bound's divergence; explain the bound with "
            "xl.influence.loss_influence or parameter_influence, and retrain it with xl.retraining.leave_out."
        )

    def weighted_value(self, theta: Float[Tensor, " p"], weights: Float[Tensor, " n"]) -> Float[Tensor, ""]:
        """Return R at theta under other weights; n in 1/n and the divergence stay."""
        losses = self.loss.value(self.parameters.outputs(theta, self.train.x), self.train.y)
        return (weights * losses).sum() / self.n + self.kl_per_example * self.kl(theta)

    def _require_labels(self, name: str, examples: Examples) -> None:
        require_labels(f"{name}.y", examples.y, self.n_outputs // 2)


def _require_elbo(
    model: nn.Module, train: Examples, loss: str, kl_weight: int | float, prior_variance: int | float
) -> None:
    if not isinstance(model, Bayesian):
        raise TypeError(
            f"model is a {type(model).__name__} without variances; pass xl.models.bayesian_mlp(...) or bayesian(model)."
        )
    if not isinstance(train, Examples):
        raise TypeError(f"train is a {type(train).__name__}; pass xl.datasets.Examples(x, y).")
    require_choice("loss", loss, tuple(COSTS))
    require_nonnegative("kl_weight", float(kl_weight))
    require_positive("prior_variance", float(prior_variance))
    with torch.no_grad():
        require_labels("train.y", train.y, model(train.x[:1]).shape[-1])


def fit_variational(
    model: Bayesian,
    train: Examples,
    *,
    epochs: int,
    loss: str = "sampled_cross_entropy",
    kl_weight: int | float = 1.0,
    prior_variance: int | float = 1.0,
    batch_size: int | None = None,
    lr: float = 1e-3,
    optimizer: str = "adam",
    swa: int | None = None,
    seed: int = 0,
    checkpoints: int = 0,
    without: Sequence[int] | Int[Tensor, " _"] = (),
) -> Trajectory:
    """Return the trajectory of training a copy of a Bayesian network on the evidence lower bound, by ``fit``.

    Args:
        model: from ``bayesian_mlp`` or ``bayesian``.
        train: the examples, with class labels.
        epochs: passes over the data, >= 1.
        loss: "sampled_cross_entropy", "expected_cross_entropy" or "gaussian", as in ``ElboRisk``.
        kl_weight: of the divergence; each step adds kl_weight/n of it, so an epoch's mean is the bound.
        prior_variance: of each weight's prior, above zero.
        batch_size: None takes all examples in every step.
        lr: learning rate.
        optimizer: "adam" or "sgd".
        swa: None, or the first epoch of a stochastic weight average (of means and rhos alike).
        seed: of the batch order.
        checkpoints: how many flat parameter vectors to keep, 0 or >= 2.
        without: examples left out of every batch, as in ``fit``: the batches, and the divergence's share of a step,
            stay those of the whole training set.

    Returns:
        Trajectory: ``model`` is Bayesian, ``checkpoints`` hold means and rhos, ``losses`` are each epoch's minus bound
        over n, the divergence included. ``ElboRisk`` with the same options has the same objective.

    Raises:
        TypeError, ValueError: as ``ElboRisk`` and ``fit``.

    Source: Epifano et al., eqs (3)-(14).
    """
    _require_elbo(model, train, loss, kl_weight, prior_variance)
    cost, share = COSTS[loss], kl_weight / len(train)

    def negative_elbo(outputs: Tensor, y: Tensor) -> Tensor:
        return cost(outputs[:, :-1], y) + share * outputs[:, -1]

    trained = fit(
        _MomentKlModel(model, prior_variance),
        train,
        epochs=epochs,
        loss=negative_elbo,
        batch_size=batch_size,
        lr=lr,
        optimizer=optimizer,
        swa=swa,
        seed=seed,
        checkpoints=checkpoints,
        without=without,
    )
    return replace(trained, model=trained.model.net)
