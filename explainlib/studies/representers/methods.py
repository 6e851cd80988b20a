"""The two-class problems of the representers study, and every method's scores on one trained network of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor, nn

from explainlib.datasets import Examples, Split, load
from explainlib.datasets.sources.text import load_tokenized
from explainlib.layerwise import gradients, gram, per_example, product
from explainlib.models import cnn2, cnn3, text_cnn
from explainlib.representers import (
    gradient_cosine,
    kernel,
    random_scores,
    representer_points,
    representer_scores,
    surrogate_importance,
    target_importance,
    tracking_importance,
)
from explainlib.representers.kernels import one_hot_cotangents
from explainlib.risk import Risk
from explainlib.solvers import inverse_curvature
from explainlib.studies.place import placed
from explainlib.training import Trajectory, fit, fit_without, minimise

PAIRS = {"digits": (4, 9), "mnist": (4, 9), "cifar10": (0, 1), "ag_news": (0, 2), "toxicity": (0, 1)}
TEXTS = ("ag_news", "toxicity")
VOCABULARY, LENGTH = 4000, 48  # of the texts, so that one network trains in about a second
CHECKPOINTS = 7  # first, middle and last among them

NTK, SUMMED = (
    "tracking, NTK final",
    ", summed over outputs",
)  # the kernel of all outputs together, which the surrogate's one machine has
METHODS: dict[str, tuple[str, str]] = {  # name: (global importance, kernel); "" where it is no single product
    "surrogate, NTK final": ("surrogate", "ntk-final"),
    "target, NTK final": ("target", "ntk-final"),
    "tracking, NTK final": ("tracking", "ntk-final"),
    "target, NTK final" + SUMMED: ("target", "ntk-final"),
    "tracking, NTK final" + SUMMED: ("tracking", "ntk-final"),
    "random": ("", ""),
    "tracking, last layer": ("tracking", "last_layer"),
    "tracking, NTK init": ("tracking", "ntk-init"),
    "tracking, NTK middle": ("tracking", "ntk-middle"),
    "tracking, influence kernel": ("tracking", "influence"),
    "TracInCP": ("", ""),
    "influence function": ("", ""),
    "representer points": ("", ""),
    "gradient cosine": ("", ""),
}
LAST_LAYER_INFLUENCE = "tracking, influence kernel of the last layer"  # what the paper runs on texts
EXPERIMENTS = {
    "I": (
        "surrogate, NTK final",
        *(f"{importance}, NTK final{kernel}" for importance in ("target", "tracking") for kernel in ("", SUMMED)),
        "random",
    ),
    "II": (
        "tracking, last layer",
        "tracking, NTK init",
        "tracking, NTK middle",
        "tracking, NTK final",
        "tracking, influence kernel",
        LAST_LAYER_INFLUENCE,
    ),
    "III": (
        "TracInCP",
        "influence function",
        "representer points",
        "tracking, NTK final",
        "tracking, influence kernel",
        "gradient cosine",
    ),
}


@dataclass(frozen=True)
class Recipe:
    """How one network is made: plain stochastic gradient descent without ridge, because tracking needs that.

    Attributes:
        network: "cnn2", "cnn3" or "text_cnn".
        epochs: passes over the data.
        batch_size: examples a step.
        lr: its rate.
    """

    network: str
    epochs: int
    batch_size: int
    lr: float

    def start(self, train: Examples, seed: int) -> nn.Module:
        """Return the untrained network of a seed."""
        classes = len(train.classes)
        if self.network == "text_cnn":
            return placed(text_cnn(VOCABULARY, classes, dim=32, filters=24, seed=seed))
        return placed({"cnn2": cnn2, "cnn3": cnn3}[self.network](train.x.shape[1], classes, seed=seed))

    def fit(self, train: Examples, seed: int, *, without: Sequence[int] | Tensor = (), **options: object) -> Trajectory:
        """Return the trajectory of a seed; ``without`` some examples it is retrained on the very same batches."""
        how = {"epochs": self.epochs, "batch_size": self.batch_size, "lr": self.lr, "optimizer": "sgd"}
        return fit(self.start(train, seed), train, seed=seed, without=without, **how, **options)

    def fit_without(self, train: Examples, seed: int, groups: Sequence[Tensor]) -> Float[Tensor, "g p"]:
        """Return the parameters of a seed's networks, each trained without one group on the very same batches."""
        how = {"epochs": self.epochs, "batch_size": self.batch_size, "lr": self.lr}
        return fit_without(self.start(train, seed), train, groups, seed=seed, **how)


def class_pair(data: str, n: int) -> Split:
    """Return two classes of ``data``, n training examples, as many of each; images standardised, mnist halved in size.

    Raises:
        FileNotFoundError: files that are not at hand.
    """
    split = load_tokenized(data, size=VOCABULARY, length=LENGTH)[0] if data in TEXTS else load(data)
    train, test = (_two(part, PAIRS[data]) for part in placed(split))
    half = min(n // 2, int(train.y.sum()), int((train.y == 0).sum()))
    rows = torch.cat([(train.y == c).nonzero()[:half, 0] for c in (0, 1)]).sort().values
    train = train[rows]
    if data in TEXTS:
        return Split(train, test)
    centre, spread = (
        _pictures(train.x, data).mean((0, 2, 3), keepdim=True),
        _pictures(train.x, data).std((0, 2, 3), keepdim=True),
    )
    return Split(*(Examples((_pictures(e.x, data) - centre) / spread, e.y, e.classes) for e in (train, test)))


def _two(examples: Examples, classes: tuple[int, int]) -> Examples:
    chosen = examples[(examples.y == classes[0]) | (examples.y == classes[1])]
    names = tuple(str((examples.classes or range(10))[c]) for c in classes)
    return Examples(chosen.x, (chosen.y == classes[1]).long(), names, chosen.raw)


def _pictures(x: Float[Tensor, "n ..."], data: str) -> Float[Tensor, "n c h w"]:
    if data == "digits":
        return x.view(-1, 1, 8, 8)
    return nn.functional.avg_pool2d(x, 2) if data == "mnist" else x


@dataclass(frozen=True)
class ExplainedNetwork:
    """One trained network in float64, and what each method says about it: scores [m, n], positive raises the output.

    Attributes:
        trajectory: with ``CHECKPOINTS`` checkpoints and the recorded importance.
        train: n examples.
        damping: of the Gauss-Newton matrix, which is singular without.
        l2: of the surrogate and of the read-out behind representer points; the network itself was trained without.
        seed: of the random scores.
    """

    trajectory: Trajectory
    train: Examples
    damping: float
    l2: float
    seed: int

    @cached_property
    def risk(self) -> Risk:
        """The objective at the trained parameters."""
        return Risk(copy.deepcopy(self.trajectory.model).double(), self.train.double())

    @cached_property
    def importance(self) -> dict[str, Float[Tensor, "n C"]]:
        """Global importances, by name."""
        risk = self.risk
        same = self.local("ntk-final", self.train, None)
        surrogate = surrogate_importance(same, risk.outputs(), loss="cross_entropy", l2=self.l2)
        tracking = tracking_importance(self.trajectory).double()
        return {"surrogate": surrogate, "target": target_importance(risk), "tracking": tracking}

    def local(self, kind: str, x: Examples, output: int | None) -> Float[Tensor, "m n"]:
        """Return the kernel between m examples and the training set; None sums over the outputs."""
        model, z = self.risk.model, self.train.double().x
        points = z if x is self.train else x.double().x
        if kind.startswith("ntk"):
            when = {"init": 0, "middle": (CHECKPOINTS - 1) // 2, "final": -1}[kind.removeprefix("ntk-")]
            at = self.risk.at(self.trajectory.checkpoints[when].double())
            return kernel(at.model, points, z, output=output)
        if kind == "last_layer":
            return kernel(model, points, z, kind=kind, output=output)
        chosen = "last" if kind == "influence-last" else "all"
        risk = Risk(model, self.train.double(), parameters=chosen)
        return kernel(model, points, z, kind="influence", output=output, risk=risk, damping=self.damping)

    def scores(self, method: str, x: Examples, output: int) -> Float[Tensor, "m n"]:
        """Return a method's scores for one output; a product of importance and kernel, or one of the baselines."""
        if method == LAST_LAYER_INFLUENCE:
            return representer_scores(
                self.importance["tracking"], self.local("influence-last", x, output), output=output
            )
        importance, kind = METHODS[method]
        if importance:
            # the surrogate is one kernel machine for all outputs, so its kernel is the one summed over them
            summed = importance == "surrogate" or method.endswith(SUMMED)
            local = self.local(kind, x, None if summed else output)
            return representer_scores(self.importance[importance], local, output=output)
        return self._baselines[method](x, output)

    @property
    def _baselines(self) -> dict[str, Callable[[Examples, int], Float[Tensor, "m n"]]]:
        return {
            "random": lambda x, output: random_scores(len(x), len(self.train), seed=self.seed).to(self.risk.theta),
            "TracInCP": self._tracin,
            "influence function": self._influence,
            "representer points": lambda x, output: representer_points(self._readout, x.double(), output=output),
            "gradient cosine": self._cosine,
        }

    def _tracin(self, x: Examples, output: int) -> Float[Tensor, "m n"]:
        """Return the sum over checkpoints of lr grad f . (-grad l): the paper explains f, not the loss (footnote 3)."""
        total = self.risk.theta.new_zeros(len(x), len(self.train))
        for theta, rate in zip(self.trajectory.checkpoints, self.trajectory.learning_rates, strict=True):
            left, right = self._sides(self.risk.at(theta.double()), x, output)
            total -= float(rate) * gram(left, right)
        return total

    def _influence(self, x: Examples, output: int) -> Float[Tensor, "m n"]:
        """Return grad f^T (G + damping I)^-1 (-grad l), eq. (16) with all outputs' derivatives."""
        left, right = self._sides(self.risk, x, output)
        solve = inverse_curvature(self.risk, curvature="gauss_newton", solver="low_rank", damping=self.damping)
        return -product(right, solve(per_example(left)).require_converged("raise").value).T

    def _cosine(self, x: Examples, output: int) -> Float[Tensor, "m n"]:
        """Return minus the cosine with the gradient of a loss that wants this output."""
        wanted = Examples(x.double().x, torch.full_like(x.y, output), x.classes, x.raw)
        return -gradient_cosine(self.risk, wanted)

    def _sides(self, risk: Risk, x: Examples, output: int) -> tuple:
        left = gradients(risk.parameters, risk.theta, x.double().x, one_hot_cotangents(output, len(x), risk))
        own = risk.train
        return left, gradients(risk.parameters, risk.theta, own.x, lambda f: risk.loss.gradient(f, own.y))

    @cached_property
    def _readout(self) -> Risk:
        """The trained network with its last layer solved again, with a ridge, as representer points ask."""
        last = Risk(self.risk.model, self.train.double(), parameters="last", l2=self.l2)
        return minimise(last, on_failure="warn")
