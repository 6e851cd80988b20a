"""EK-FAC, fitted and scored in one go."""

from __future__ import annotations

import tempfile

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

import explainlib as xl
from benchmarks.peers import problems
from benchmarks.peers.exact import dattri_task
from benchmarks.peers.race import OWN, Action, Bar, Problem, Race, Side
from explainlib.curvature.ekfac import Ekfac

BATCH = 500
MIXED = (
    "labels of the data; and in its source (0.3.0) a layer's flattened weights and biases are joined and read as a "
    "matrix [out, in + 1], which is not the order of its factors"
)


def own(labels: str) -> object:
    """Return the builder of explainlib's call with one choice of labels."""

    def build(problem: Problem) -> Action:
        def run() -> Tensor:
            risk = problems.risk_of(problem)
            fitted = Ekfac(risk, labels=labels)
            return xl.influence.loss_influence(risk, problem["test"], curvature=fitted, damping=problem["damping"])

        return run

    return build


def reference(problem: Problem) -> Tensor:
    """Return explainlib's scores with the exact expectation over labels, in float64."""
    parts = {part: problem[part].double() for part in ("train", "test")}
    doubled = problem | parts | {"model": xl.Risk(problem["model"], problem["train"]).model.double()}
    return own("exact")(doubled)()


def kronfluence(problem: Problem) -> Action:
    """Return kronfluence's call; its factors and scores pass through files, as it is made."""
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments, ScoreArguments
    from kronfluence.task import Task

    class Classes(Task):
        def compute_train_loss(self, batch: tuple[Tensor, Tensor], model: nn.Module, sample: bool = False) -> Tensor:
            outputs, y = model(batch[0]), batch[1]
            if sample:
                y = torch.multinomial(outputs.detach().softmax(1), 1)[:, 0]
            return cross_entropy(outputs, y, reduction="sum")

        def compute_measurement(self, batch: tuple[Tensor, Tensor], model: nn.Module) -> Tensor:
            return self.compute_train_loss(batch, model)

    model, (train, test) = prepare_model(problem["model"], Classes()), problems.sets(problem)
    scoring, both = ScoreArguments(damping_factor=problem["damping"]), {"overwrite_output_dir": True}

    def run() -> Tensor:
        with tempfile.TemporaryDirectory() as folder:
            analyzer = Analyzer("ekfac", model, Classes(), output_dir=folder, disable_tqdm=True, cpu=True)
            fitting = FactorArguments(strategy="ekfac")
            analyzer.fit_all_factors("f", train, per_device_batch_size=BATCH, factor_args=fitting, **both)
            sizes = {"per_device_query_batch_size": len(test), "per_device_train_batch_size": BATCH}
            analyzer.compute_pairwise_scores("s", "f", test, train, score_args=scoring, **sizes, **both)
            return -analyzer.load_pairwise_scores("s")["all_modules"]

    return run


def pydvl(problem: Problem) -> Action:
    """Return pyDVL's call, with the eigenvalues fitted again: without that it would be K-FAC."""
    from pydvl.influence.torch import EkfacInfluence

    train, test = problem["train"], problem["test"]
    loader = DataLoader(problems.sets(problem)[0], batch_size=BATCH)

    def run() -> Tensor:
        made = EkfacInfluence(problem["model"], update_diagonal=True, hessian_regularization=problem["damping"])
        return -made.fit(loader).influences(test.x, test.y, train.x, train.y).detach()

    return run


def dattri(problem: Problem) -> Action:
    """Return dattri's call: the labels of the data, as its documentation has it, and one batch to score."""
    from dattri.algorithm.influence_function import IFAttributorEKFAC

    train, test = problems.sets(problem)
    fitting, scoring, tests = DataLoader(train, BATCH), DataLoader(train, len(train)), DataLoader(test, len(test))

    def run() -> Tensor:
        attributor = IFAttributorEKFAC(dattri_task(problem), damping=problem["damping"])
        attributor.cache(fitting)
        return -attributor.attribute(scoring, tests).T.detach()

    return run


EKFAC = Race(
    name="ekfac",
    title="EK-FAC, fitted and scored, perceptron of 109,386 parameters, float32",
    problem=problems.perceptron,
    sides=(
        Side(OWN, "`Ekfac(risk, labels='sampled')`, `loss_influence(...)`", own("sampled"), mode="sampled labels"),
        Side(OWN, "`Ekfac(risk)`, `loss_influence(...)`: the default, no draw", own("exact"), mode="all labels"),
        Side(OWN, "`Ekfac(risk, labels='data')`, `loss_influence(...)`", own("data"), mode="labels of the data"),
        Side("kronfluence", f"`fit_all_factors`, `compute_pairwise_scores`, batches of {BATCH}", kronfluence, Bar(4)),
        Side(
            "pyDVL",
            f"`EkfacInfluence(update_diagonal=True)`, batches of {BATCH}",
            pydvl,
            Bar(10),
            differs="one backward pass of sum sqrt(p) log p in place of drawn labels",
        ),
        Side(
            "dattri",
            f"`IFAttributorEKFAC`, fitted in batches of {BATCH}, scored in one",
            dattri,
            Bar(10),
            differs=MIXED,
        ),
    ),
    against={"dattri": f"{OWN}, labels of the data"},
    reference=reference,
    full={"n": 2000, "tests": 100, "hidden": [128, 64], "epochs": 5, "activation": "relu", "damping": 1e-3},
    quick={"n": 60, "tests": 5, "hidden": [8], "epochs": 1, "activation": "relu", "damping": 1e-3},
    runs=5,
    facts="The reference is explainlib's exact expectation over labels, in float64. Drawn labels and labels of the "
    "data estimate or replace it, so a Pearson below 1 against it is expected of them.",
)
