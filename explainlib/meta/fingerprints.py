"""Fingerprints of computations on a learner: of the learner, its model, the tasks, and a probe of their loss."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib.datasets import Tasks
from explainlib.meta.learner import Episode, Learner
from explainlib.storage import fingerprint, probe_entry

SHAPE = "task"  # the entry with the shape of the probe's task
COVERED = ("given", "parameters", "w0", "_augmented")  # attributes that other entries cover, or no result depends on


def learner_fingerprint(
    learner: Learner,
    w: Float[Tensor, " q"],
    tasks: Tasks,
    sources: Mapping[str, object],
    options: Mapping[str, object],
) -> dict[str, object]:
    """Return the fingerprint of a computation on a learner at w and on its training tasks.

    Args:
        learner: its class, options and model enter.
        w: enters; the learner is probed at it.
        tasks: enter.
        sources: tensors and callables that enter too.
        options: numbers and text that enter too.

    Raises:
        UnidentifiedError: a learner or model that cannot be identified; the message names what it uses.
    """
    arrays = dict(zip(Episode._fields, tasks.arrays(), strict=True))
    shape = {"ways": tasks.ways, "support": list(tasks.support_x[0].shape), "query": list(tasks.query_x[0].shape)}
    kept, own = fingerprint({"w": w, **arrays, **sources}, options), learner_entries(learner, w, shape)
    return {**kept, **own, "versions": {**kept["versions"], **own["versions"]}}


def learner_entries(learner: Learner, w: Float[Tensor, " q"], shape: Mapping[str, object]) -> dict[str, object]:
    """Return the entries of a fingerprint that depend on the learner, its model's initial parameters included.

    Args:
        learner: any.
        w: parameters of the probe [q].
        shape: of the probe's task: its ways, and the shapes of its support and query.
    """
    parameters = learner.parameters
    task = synthetic_tasks(shape, w)
    probe = probe_entry("learner", lambda: learner.loss_one(w, task, int(shape["ways"])))
    own = type(learner).__module__.startswith("explainlib.")
    attributes = {k: v for k, v in vars(learner).items() if k not in COVERED and not (own and k.startswith("_"))}
    frozen = {k: v for k, v in parameters.module.named_parameters() if k not in parameters.names}
    sources = {"model": parameters.module, "learner": [type(learner), attributes, frozen]}
    return fingerprint(sources, {**learner.options(), SHAPE: dict(shape), **probe})


def synthetic_tasks(shape: Mapping[str, object], like: Tensor) -> Episode:
    """Return one synthetic task of fixed numbers.

    Args:
        shape: ways, and the shapes of support and query.
        like: gives dtype and device.
    """

    def part(size: list[int], shift: int) -> tuple[Tensor, Tensor]:
        k = torch.arange(max(1, int(torch.tensor(size).prod())), device=like.device, dtype=like.dtype)
        labels = torch.arange(size[0], device=like.device) % int(shape["ways"])
        return torch.cos(shift + 1.7 * k).view(size), labels

    return Episode(*part(list(shape["support"]), 0), *part(list(shape["query"]), 1))
