"""TRAK with 512 random features of one model."""

from __future__ import annotations

import logging
import tempfile
from functools import partial

import torch
from torch import Tensor
from torch.utils.data import DataLoader

import explainlib as xl
from benchmarks.peers import problems
from benchmarks.peers.race import OWN, Action, Bar, Problem, Race, Side

BATCH, LARGE, DRAWS = 100, 250, 8


def own(seed: int) -> object:
    """Return the builder of explainlib's call with its defaults."""

    def build(problem: Problem) -> Action:
        options = {"features": problem["features"], "seed": seed}
        return lambda: xl.influence.trak(problems.risk_of(problem), problem["test"], **options)

    return build


def average(problem: Problem) -> Tensor:
    """Return explainlib's mean over other draws of the projection."""
    return torch.stack([own(seed)(problem)() for seed in range(1, DRAWS + 1)]).mean(0)


def traker(problem: Problem, batch: int = BATCH) -> Action:
    """Return traker's call: float32, its projector for a CPU, files in a temporary folder, as it is made.

    It draws its projection anew for every batch, so large ones are faster, and take more memory.
    """
    from trak import TRAKer

    model, (train, test) = problem["model"], problems.sets(problem)
    loaders = [DataLoader(part, batch_size=batch) for part in (train, test)]
    state = model.state_dict()

    def run() -> Tensor:
        with tempfile.TemporaryDirectory() as folder:
            options = {"save_dir": folder, "device": "cpu", "use_half_precision": False, "logging_level": logging.ERROR}
            made = TRAKer(model, "image_classification", len(train), proj_dim=problem["features"], **options)
            made.load_checkpoint(state, model_id=0)
            for batch in loaders[0]:
                made.featurize(batch, num_samples=len(batch[0]))
            made.finalize_features()
            made.start_scoring_checkpoint("scores", state, 0, len(test))
            for batch in loaders[1]:
                made.score(batch, num_samples=len(batch[0]))
            return -torch.as_tensor(made.finalize_scores("scores")).T.clone()

    return run


def dattri(problem: Problem) -> Action:
    """Return dattri's call with its own projector."""
    from dattri.algorithm.trak import TRAKAttributor
    from dattri.task import AttributionTask
    from torch.func import functional_call

    model = problem["model"]
    loaders = [DataLoader(part, batch_size=BATCH) for part in problems.sets(problem)]

    def log_odds(parameters: dict[str, Tensor], data: tuple[Tensor, Tensor]) -> Tensor:
        outputs = functional_call(model, parameters, (data[0][None],))[0]
        own_label = torch.arange(outputs.shape[0]) == data[1]
        others = torch.where(own_label, -torch.inf, outputs).logsumexp(0)
        return torch.where(own_label, outputs, 0.0).sum() - others

    def probability(parameters: dict[str, Tensor], data: tuple[Tensor, Tensor]) -> Tensor:
        return torch.sigmoid(log_odds(parameters, data))

    def run() -> Tensor:
        task = AttributionTask(loss_func=log_odds, model=model, checkpoints=model.state_dict())
        options = {"device": "cpu", "proj_dim": problem["features"]}
        made = TRAKAttributor(task=task, correct_probability_func=probability, projector_kwargs=options)
        with torch.no_grad():
            made.cache(loaders[0])
            return -made.attribute(loaders[1]).T

    return run


def trained(features: int, **sizes: object) -> Problem:
    """Return the convolutional network and the number of features."""
    return problems.convolutional(**sizes) | {"features": features}


TRAK = Race(
    name="trak",
    title="TRAK, 512 features of one convolutional network of 93,962 parameters, float32",
    problem=trained,
    sides=(
        Side(OWN, "`trak(risk, test)`, its defaults", own(0)),
        *(
            Side(
                "traker",
                f"`TRAKer(proj_dim=512, use_half_precision=False)`, batches of {batch}",
                partial(traker, batch=batch),
                Bar(1.5, 1.0),
                mode=f"batches of {batch}",
                differs="another draw, and a scale of its own",
            )
            for batch in (BATCH, LARGE)
        ),
        Side(
            "dattri",
            f"`TRAKAttributor(projector_kwargs=...)`, batches of {BATCH}",
            dattri,
            Bar(1.5, 1.0),
            differs="another draw, and a scale of its own",
        ),
    ),
    reference=average,
    full={"n": 1000, "tests": 50, "epochs": 5, "features": 512},
    quick={"n": 150, "tests": 4, "epochs": 1, "features": 104},  # traker needs more than 100
    runs=3,
    facts=f"Every side draws its own projection. The reference is explainlib's mean over {DRAWS} other draws; what one "
    "draw of explainlib's agrees with it, is what another library's can be expected to.",
)
