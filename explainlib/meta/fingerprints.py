"""What a computation on a learner starts from: the learner, its model, the tasks, and a loss that they give."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib.datasets import Tasks
from explainlib.meta.learner import Episode, Learner
from explainlib.storage import fingerprint, probe_entry

SHAPE = "task"  # the entry that says how a made-up task has to look
TOLD = ("given", "parameters", "w0")  # by other entries


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
        w: enters, and is where the learner is probed.
        tasks: enter.
        sources: tensors and callables that enter too.
        options: numbers and text that enter too.

    Raises:
        UnidentifiedError: a learner or model that no store can tell from another; the message names what it uses.
    """
    arrays = dict(zip(Episode._fields, tasks.arrays(), strict=True))
    shape = {"ways": tasks.ways, "support": list(tasks.support_x[0].shape), "query": list(tasks.query_x[0].shape)}
    kept, own = fingerprint({"w": w, **arrays, **sources}, options), learner_entries(learner, w, shape)
    return {**kept, **own, "versions": {**kept["versions"], **own["versions"]}}


def learner_entries(learner: Learner, w: Float[Tensor, " q"], shape: Mapping[str, object]) -> dict[str, object]:
    """Return the entries of a fingerprint that a learner decides, its model's parameters as they were built too.

    Args:
        learner: any.
        w: where it is probed.
        shape: of the made-up task of the probe: its ways, and the shapes of its support and of its query.
    """
    parameters = learner.parameters
    task = synthetic_tasks(shape, w)
    probe = probe_entry("learner", lambda: learner.loss_one(w, task, int(shape["ways"])))
    own = type(learner).__module__.startswith("explainlib.")
    held = {k: v for k, v in vars(learner).items() if k not in TOLD and not (own and k.startswith("_"))}
    fixed = {k: v for k, v in parameters.module.named_parameters() if k not in parameters.names}
    sources = {"model": parameters.module, "learner": [type(learner), held, fixed]}
    return fingerprint(sources, {**learner.options(), SHAPE: dict(shape), **probe})


def synthetic_tasks(shape: Mapping[str, object], like: Tensor) -> Episode:
    """Return one task of fixed numbers.

    Args:
        shape: ways, and the shapes of support and query.
        like: gives dtype and device.
    """

    def part(size: list[int], shift: int) -> tuple[Tensor, Tensor]:
        k = torch.arange(max(1, int(torch.tensor(size).prod())), device=like.device, dtype=like.dtype)
        labels = torch.arange(size[0], device=like.device) % int(shape["ways"])
        return torch.cos(shift + 1.7 * k).view(size), labels

    return Episode(*part(list(shape["support"]), 0), *part(list(shape["query"]), 1))
