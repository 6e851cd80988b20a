"""Whose scores say what happens: the linear datamodeling score of every method on one problem, against retraining."""

from __future__ import annotations

import torch
from torch import Tensor

import explainlib as xl
from benchmarks.peers import checkpoints, iterative, kronecker, problems, projected
from benchmarks.peers.race import OWN, Action, Problem, Race, Side

OPTIONS = {"lr": 1e-2, "optimizer": "adam"}


def retrained(
    n: int, tests: int, hidden: int, epochs: int, subsets: int, seeds: int, ridge: float, features: int
) -> Problem:
    """Return a perceptron trained on digits, and the test losses of networks trained on random halves.

    A half's examples count twice, so that the ridge keeps its share. Losses are means over the seeds.
    """
    train, test = problems.digits(n, tests, flat=True, size=8)
    model = xl.models.mlp([64, hidden, 10], dtype=torch.float32)
    options = OPTIONS | {"epochs": epochs, "l2": ridge}
    starts = xl.training.fresh_starts(xl.Risk(model, train), list(range(seeds)))
    whole = xl.training.fit_ensemble(model, train, starts=starts[:1], **options)
    generator = torch.Generator().manual_seed(0)
    halves = [torch.randperm(n, generator=generator)[: n // 2].tolist() for _ in range(subsets)]
    weights = torch.zeros(subsets, n)
    for weight, half in zip(weights, halves, strict=True):
        weight[half] = 2.0
    losses = []
    for start in starts:
        repeated = start.expand(subsets, -1).clone()
        networks = xl.training.fit_ensemble(model, train, starts=repeated, weights=weights, **options)
        losses.append(torch.stack([networks[j].losses(test) for j in range(subsets)]))
    theta = whole.theta
    risk = whole.risk.at(theta[0])
    trajectory = xl.training.Trajectory(risk.model, theta, torch.ones(1))
    found = {"model": risk.model, "train": train, "test": test, "l2": 0.0, "damping": ridge, "features": features}
    found |= {"trajectory": trajectory, "checkpoints": list(theta), "rates": [1.0]}
    return found | {"subsets": halves, "outputs": torch.stack(losses).mean(0)} | problems.told(risk.model)


def exact(problem: Problem) -> Action:
    """Return influence through the whole Gauss-Newton matrix."""
    options = {"curvature": "gauss_newton", "damping": problem["damping"]}
    return lambda: xl.influence.loss_influence(problems.risk_of(problem), problem["test"], **options)


def random(problem: Problem) -> Action:
    """Return scores that know nothing."""
    shape, generator = (len(problem["test"]), len(problem["train"])), torch.Generator().manual_seed(0)
    drawn: Tensor = torch.randn(shape, generator=generator)
    return lambda: drawn


def _sides() -> tuple[Side, ...]:
    ekfac, tracin, trak = kronecker.own("exact"), checkpoints.own("all"), projected.own(0)
    return (
        Side(OWN, "EK-FAC, its default", ekfac, mode="EK-FAC"),
        Side(OWN, 'influence, `curvature="gauss_newton"`, the whole matrix', exact, mode="Gauss-Newton"),
        Side(OWN, "TRAK, its default", trak, mode="TRAK"),
        Side(OWN, "TracIn at the last checkpoint", tracin, mode="TracIn"),
        Side("kronfluence", "EK-FAC", kronecker.kronfluence, mode="EK-FAC"),
        Side("pyDVL", "EK-FAC", kronecker.pydvl, mode="EK-FAC"),
        Side("dattri", "EK-FAC", kronecker.dattri, mode="EK-FAC", differs=kronecker.MIXED),
        Side("pyDVL", "Arnoldi, rank 50", iterative.pydvl(iterative.pydvl_arnoldi), mode="Arnoldi"),
        Side("captum", "Arnoldi, rank 50", iterative.captum_arnoldi, mode="Arnoldi"),
        Side("traker", "TRAK", projected.traker, mode="TRAK"),
        Side("dattri", "TRAK", projected.dattri, mode="TRAK"),
        Side("captum", "TracIn at the last checkpoint", checkpoints.captum("sample-wise"), mode="TracIn"),
        Side("PyTorch", "random numbers", random, mode="random"),
    )


LDS = Race(
    name="lds",
    title="Truth: linear datamodeling score of every method on one problem",
    problem=retrained,
    sides=_sides(),
    against={
        "kronfluence, EK-FAC": f"{OWN}, EK-FAC",
        "traker, TRAK": f"{OWN}, TRAK",
        "dattri, TRAK": f"{OWN}, TRAK",
        "captum, TracIn": f"{OWN}, TracIn",
    },
    full={"n": 1000, "tests": 100, "hidden": 32, "epochs": 200, "subsets": 100, "seeds": 3}
    | {"ridge": 1e-3, "features": 512},
    quick={"n": 150, "tests": 4, "hidden": 4, "epochs": 3, "subsets": 6, "seeds": 1} | {"ridge": 1e-3, "features": 104},
    runs=1,
    facts="Every method scores the same network; damping is the ridge it was trained with. The score is the mean over "
    "tests of the rank correlation between summed scores of a half and the test's loss after training on that half; "
    "95% intervals are from drawing the halves with replacement.",
)
