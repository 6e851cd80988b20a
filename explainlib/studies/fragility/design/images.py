"""Larger networks and data, and how far the retraining that judges them agrees with itself.

Networks are trained as people do it, on small batches, and explained where training stopped. Three truths: the last
layer solved again without the example (not of Bayesian networks, which take minutes for it); all parameters trained on
without it; all parameters trained from the same first ones without it. A removal keeps the batches of the whole
training set, Bayesian networks too. Training on is made twice, with two orders of the batches: where the two disagree,
no prediction can agree with either.

    signal   root of the covariance, over removals, of the changes under the two orders: what repeats
    noise    root mean square of half their difference: what the batches alone do

Controls: gradient products, and the training loss of the example that is removed.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from explainlib.checks import require_choice
from explainlib.datasets import Examples, Split, load
from explainlib.influence import loss_influence, removal_effect
from explainlib.metrics.agreement import row_correlation
from explainlib.metrics.ties import average_ranks
from explainlib.models import bayesian_mlp, bayesian_vgg13, lenet, mlp, vgg13
from explainlib.retraining import leave_out
from explainlib.risk import NotAtMinimumWarning, Risk
from explainlib.solvers import CG
from explainlib.studies.fragility.bench import BAYESIAN, last_layer
from explainlib.studies.place import placed
from explainlib.training import ElboRisk, MinimiseWarning, fit, fit_variational

BATCH, RATE, RIDGE, DAMPING = 50, 1e-3, 1e-3, 1e-2  # Epifano et al., section 3.2 gives rate, ridge and damping
TOLERANCE = 1e-3  # of the solve over all parameters: 1e-2 and 1e-3 order LeNet's and VGG13's examples alike to .999
TESTS = 20  # of highest loss; the first is the paper's
LAST, ALL = "influence of the last layer", "influence of all parameters"
SOLVED, TRAINED, AGAIN, SCRATCH = "last layer solved", "trained on", "trained on, other batches", "from scratch"
GRADIENTS, LOSS = "gradient product of the last layer", "loss of the example"
PAIRS = (
    (LAST, SOLVED),
    (LAST, TRAINED),
    (LAST, SCRATCH),
    (ALL, TRAINED),
    (ALL, SCRATCH),
    (GRADIENTS, SOLVED),
    (GRADIENTS, TRAINED),
    (LOSS, TRAINED),
    (SOLVED, TRAINED),
    (TRAINED, AGAIN),
    (TRAINED, SCRATCH),
)


@dataclass(frozen=True)
class Images:
    """A network, its data, and how it is retrained.

    Attributes:
        data: "digits", "mnist" or "cifar10".
        network: "fully connected", "LeNet", "VGG13", or one of them Bayesian.
        n: training examples.
        width: of the hidden layer of a fully connected network, of the first block of VGG13 (64 in the paper).
        epochs: of training and of retraining from scratch; training on takes a third.
        removed: examples one by one, the most influential by the last layer on the test of highest loss.
        seeds: of first parameters and batches.
        scratch: whether it is retrained from scratch as well.
        solves: tests, the worst first, for which the curvature of all parameters is solved; 20 is all of them.
    """

    data: str = "digits"
    network: str = "fully connected"
    n: int = 300
    width: int = 32
    epochs: int = 30
    removed: int = 20
    seeds: int = 2
    scratch: bool = True
    solves: int = TESTS


@dataclass(frozen=True)
class TrainedNetwork:
    """One network of a case, trained, with its tests of highest loss.

    Attributes:
        case: network and data.
        seed: of first parameters and batches.
        split: in float64.
        start: before training.
        risk: over all parameters, after training.
        tests: of highest loss, the highest first.
    """

    case: Images
    seed: int
    split: Split
    start: nn.Module
    risk: Risk
    tests: Examples

    @classmethod
    def of(cls, case: Images, seed: int) -> TrainedNetwork:
        """Return the network of a seed."""
        split = placed(load(case.data, limit=case.n).double())
        start = _network(case, split.train.x, len(split.train.classes), seed)
        risk = _risk(_trained(start, split.train, case.epochs, seed), split.train)
        tests = split.test[risk.losses(split.test).topk(min(TESTS, len(split.test))).indices]
        return cls(case, seed, split, start, risk, tests)

    @property
    def bayesian(self) -> bool:
        """Whether its weights are Gaussian."""
        return isinstance(self.risk, ElboRisk)

    def accuracy(self) -> float:
        """Return the share of all tests that it reads right."""
        outputs = self.risk.outputs(self.split.test)[:, : len(self.split.train.classes)]
        return float((outputs.argmax(1) == self.split.test.y).double().mean())

    def retrained(self, groups: Sequence[Sequence[int]], seed: int, *, scratch: bool = False) -> Float[Tensor, "t g"]:
        """Return the tests' losses after training without each group, minus those after the same training with all.

        Args:
            groups: of training examples.
            seed: of the batches.
            scratch: from the first parameters, for all epochs; else from the trained ones, for a third.
        """
        model, epochs = (self.start, self.case.epochs) if scratch else (self.risk.model, max(1, self.case.epochs // 3))
        train = self.split.train
        losses = [
            _risk(_trained(model, train, epochs, seed, group), train).losses(self.tests) for group in ([], *groups)
        ]
        return torch.stack([after - losses[0] for after in losses[1:]], 1)


def _network(case: Images, x: Tensor, classes: int, seed: int) -> nn.Module:
    """Return the untrained network in float64."""
    widths = [x[0].numel(), case.width, classes]
    channels = x.shape[1] if x.ndim == 4 else 1
    options = {"seed": seed, "dtype": torch.float64}
    makers = {
        "fully connected": lambda: mlp(widths, "relu", **options),
        f"{BAYESIAN} fully connected": lambda: bayesian_mlp(widths, "relu", **options),
        "LeNet": lambda: lenet(channels, classes, **options),
        "VGG13": lambda: vgg13(channels, classes, width=case.width, **options),
        f"{BAYESIAN} VGG13": lambda: bayesian_vgg13(channels, classes, width=case.width, **options),
    }
    return placed(makers[require_choice("network", case.network, tuple(makers))]())


def _trained(model: nn.Module, train: Examples, epochs: int, seed: int, without: Sequence[int] = ()) -> nn.Module:
    """Return a copy trained on small batches, those of the whole training set."""
    options = {"epochs": epochs, "batch_size": BATCH, "lr": RATE, "seed": seed, "without": without}
    if BAYESIAN in type(model).__name__:
        return fit_variational(model, train, **options).model
    return fit(model, train, weight_decay=RIDGE, **options).model


def _risk(model: nn.Module, train: Examples) -> Risk:
    return ElboRisk(model, train) if BAYESIAN in type(model).__name__ else Risk(model, train, l2=RIDGE)


def evaluate_images(case: Images, seed: int) -> pandas.DataFrame:
    """Return one row for each pair of ``PAIRS`` that there is; or why there is none.

    Args:
        case: network and data.
        seed: of first parameters and batches.
    """
    same = {"data": case.data, "network": case.network, "n": case.n, "seed": seed}
    try:
        network = TrainedNetwork.of(case, seed)
    except FileNotFoundError:
        return pandas.DataFrame([{**same, "status": f"the files of {case.data} are not at hand"}])
    risk, last = network.risk, last_layer(network.risk)
    changes = _predictions(network, last)
    removed = changes[LAST][0].abs().topk(case.removed).indices
    changes = {name: values[:, removed] for name, values in changes.items()}
    unsolved = 0
    if not network.bayesian:
        changes[SOLVED], unsolved = _solved(last, network.tests, removed)
    groups = [[int(j)] for j in removed]
    changes[TRAINED] = network.retrained(groups, seed)
    changes[AGAIN] = network.retrained(groups, seed + 1000)
    if case.scratch:
        changes[SCRATCH] = network.retrained(groups, seed, scratch=True)
    same |= {"parameters": risk.p, "accuracy": network.accuracy(), "gradient_norm": float(risk.gradient().norm())}
    same |= signal_and_noise(changes[TRAINED][0], changes[AGAIN][0])
    same |= {"unsolved": unsolved / len(groups), "status": "compared"}
    for name, of in (("predicted", LAST), ("solved", SOLVED), ("trained", TRAINED)):
        if of in changes:
            same[f"size_{name}"] = float(changes[of][0].square().mean().sqrt())
    rows = [{**same, "a": a, "b": b, **compared(changes, a, b)} for a, b in PAIRS if a in changes and b in changes]
    return pandas.DataFrame(rows)


def _predictions(network: TrainedNetwork, last: Risk) -> dict[str, Float[Tensor, "t n"]]:
    risk, tests = network.risk, network.tests
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotAtMinimumWarning)  # the gradient's norm is in the table
        damping = DAMPING if network.bayesian else 0.0
        found = {LAST: loss_influence(last, tests, damping=damping)}
        found[GRADIENTS] = loss_influence(last, tests, curvature="identity")
        if not network.bayesian:
            options = {"curvature": "gauss_newton", "solver": CG(tolerance=TOLERANCE), "damping": DAMPING}
            found[ALL] = loss_influence(risk, tests[: network.case.solves], on_failure="warn", **options)
    found[LOSS] = risk.losses().expand(len(tests), -1)
    return {name: -values / risk.n for name, values in found.items()}


def _solved(last: Risk, tests: Examples, removed: Int[Tensor, " g"]) -> tuple[Float[Tensor, "t g"], int]:
    with warnings.catch_warnings():
        for known in (NotAtMinimumWarning, MinimiseWarning):
            warnings.simplefilter("ignore", known)  # counted instead
        after = leave_out(last, [[int(j)] for j in removed], weighting="plain", on_failure="warn")
    return after.loss_change(tests), sum(status != "converged" for status in after.status)


def signal_and_noise(first: Float[Tensor, " g"], second: Float[Tensor, " g"]) -> dict[str, float]:
    """Return what repeats in two truths of the same removals, and what the order of the batches alone does.

    Args:
        first: changes of one test's loss.
        second: the same under another order of the batches.
    """
    covariance = float(torch.cov(torch.stack([first, second]))[0, 1])
    noise = float((first - second).square().mean().div(2).sqrt())
    return {"signal": max(covariance, 0.0) ** 0.5, "noise": noise}


def compared(changes: Mapping[str, Float[Tensor, "t g"]], a: str, b: str) -> dict[str, float]:
    """Return the agreement of two tables on the paper's test, and the median Spearman over the tests they share."""
    shared = min(len(changes[a]), len(changes[b]))
    x, y = changes[a][:shared], changes[b][:shared]
    ranks = row_correlation(average_ranks(x), average_ranks(y))
    pearson, centred = row_correlation(x, y), x[0] - x[0].mean()
    known = ranks[ranks.isfinite()]
    found = {"spearman": float(ranks[0]), "pearson": float(pearson[0])}
    found["slope"] = float(centred @ y[0] / centred.square().sum())
    return found | {"spearman_median": float(known.quantile(0.5)) if len(known) else float("nan")}


def evaluate_groups(case: Images, sizes: Sequence[int], count: int, seed: int) -> pandas.DataFrame:
    """Return rows by size of group and order: influence of the last layer against its solution and against training on.

    Args:
        case: a plain network and its data.
        sizes: of the groups.
        count: random groups of each size.
        seed: of network, batches and groups.
    """
    network = TrainedNetwork.of(case, seed)
    last, rows = last_layer(network.risk), []
    generator = torch.Generator().manual_seed(seed)
    for size in sizes:
        groups = [torch.randperm(last.n, generator=generator)[:size].tolist() for _ in range(count)]
        changes = {}
        with warnings.catch_warnings():
            for known in (NotAtMinimumWarning, MinimiseWarning):
                warnings.simplefilter("ignore", known)
            for order in (1, 2):
                effect = removal_effect(last, groups, order=order, weighting="plain", on_failure="warn")
                changes[f"order {order}"] = effect.loss_change(network.tests)
            solved = leave_out(last, groups, weighting="plain", on_failure="warn")
        changes[SOLVED] = solved.loss_change(network.tests)
        changes[TRAINED], changes[AGAIN] = (network.retrained(groups, seed + k) for k in (0, 1000))
        same = {"data": case.data, "n": case.n, "size": size, "groups": count, "seed": seed}
        same |= signal_and_noise(changes[TRAINED][0], changes[AGAIN][0])
        for a in ("order 1", "order 2", SOLVED):
            for b in (SOLVED, TRAINED):
                if a != b:
                    rows.append({**same, "a": a, "b": b, **compared(changes, a, b)})
        rows.append({**same, "a": TRAINED, "b": AGAIN, **compared(changes, TRAINED, AGAIN)})
    return pandas.DataFrame(rows)
