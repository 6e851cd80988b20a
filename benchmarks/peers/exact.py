"""Exact influence of a softmax regression: the whole Hessian, inverted once."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

import explainlib as xl
from benchmarks.peers import problems
from benchmarks.peers.race import OWN, Action, Bar, Problem, Race, Side


def own(problem: Problem) -> Action:
    """Return explainlib's call; the risk is made anew each time, so nothing is read from a cache."""
    return lambda: xl.influence.loss_influence(problems.risk_of(problem), problem["test"])


def pydvl(problem: Problem) -> Action:
    """Return pyDVL's call: the Hessian by one batch, then all pairs."""
    from pydvl.influence.torch import DirectInfluence

    train, test = problem["train"], problem["test"]
    loader = DataLoader(problems.sets(problem)[0], batch_size=len(train))

    def run() -> Tensor:
        fitted = DirectInfluence(problem["model"], cross_entropy, regularization=problem["l2"]).fit(loader)
        return -fitted.influences(test.x, test.y, train.x, train.y).detach()

    return run


def dattri_task(problem: Problem, loss: object = cross_entropy) -> object:
    """Return what dattri calls a task: a loss as a function of named parameters, and the trained parameters."""
    from dattri.task import AttributionTask

    model = problem["model"]

    def objective(parameters: dict[str, Tensor], data: tuple[Tensor, Tensor]) -> Tensor:
        return loss(functional_call(model, parameters, (data[0],)), data[1])

    return AttributionTask(loss_func=objective, model=model, checkpoints=model.state_dict())


def dattri(problem: Problem) -> Action:
    """Return dattri's call: one batch for the training set, which its Hessian is of, and one for the tests."""
    from dattri.algorithm.influence_function import IFAttributorExplicit

    loaders = [DataLoader(part, batch_size=len(part)) for part in problems.sets(problem)]

    def run() -> Tensor:
        attributor = IFAttributorExplicit(dattri_task(problem), regularization=problem["l2"])
        attributor.cache(loaders[0])
        with torch.no_grad():
            return -attributor.attribute(*loaders).T

    return run


SOFTMAX = Race(
    name="softmax",
    title="Exact influence, softmax regression of 650 parameters, float64",
    problem=problems.softmax,
    sides=(
        Side(OWN, "`loss_influence(risk, test)`", own),
        Side("pyDVL", "`DirectInfluence(...).fit(loader).influences(...)`, one batch", pydvl, Bar(20)),
        Side("dattri", "`IFAttributorExplicit(...).attribute(...)`, one batch", dattri, Bar(20)),
    ),
    full={"n": 1500, "tests": 297},
    quick={"n": 60, "tests": 9},
    facts="All invert the Hessian plus the ridge of 0.01. dattri returns its table in float32.",
)
