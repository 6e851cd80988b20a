"""The interface of a learner: adaptation of w to a task, and the loss on its query.

    A_i(w)  the parameters after adaptation to the support of task i
    L_i(w)  the MEAN cross-entropy of the query of task i at A_i(w)

Every method is a function of one flat vector and is vmapped over tasks. BatchNorm normalises the support by the
statistics of the support and the query by those of the query; running statistics are not updated.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils._pytree import tree_map

from explainlib import compute
from explainlib.checks import require_finite, require_same_kind, require_shape, require_tensor
from explainlib.datasets import Tasks
from explainlib.derivatives import grad, second_order_norms, vmap
from explainlib.gate import GRADIENT, admit, require_derivatives
from explainlib.modules import private_copy
from explainlib.params import Parameters, require_finite_parameters
from explainlib.storage import digest

LARGE = 16  # tasks in a batch: with fewer, batches bring nothing
NUMBERS = 2**26  # parameters and activations in memory at once; bounds the batch of tasks

Tree = TypeVar("Tree")  # a tensor, or tuples of them


class Episode(NamedTuple):
    """One task, or a batch of them, as plain tensors that a batched function maps over."""

    support_x: Tensor
    support_y: Tensor
    query_x: Tensor
    query_y: Tensor


class Learner(ABC):
    """Base class of ``Maml`` and ``ProtoNet``.

    Args:
        model: any ``nn.Module`` from x [n, ...] to outputs [n, C]; it is copied and never changed.
        parameters: "all" (those that require a gradient), "last", or a list of names: what is learned; the rest stays.

    Attributes:
        given: a copy of the model as it was passed, to inspect its layers.
        parameters: the model as a function of a flat vector, differentiable as often as a meta-Hessian needs.
        w0: [q], the model's own parameters.
        adaptation_routes: the derivatives of the model that adaptation uses.
        gradient_routes: those that the meta-gradient uses.
        overflow: the likely cause of NaN or infinity, and the remedy.
    """

    adaptation_routes: tuple[str, ...] = ()
    gradient_routes: tuple[str, ...] = (GRADIENT,)
    overflow = "the embedding overflows; scale the examples, or start from smaller parameters"

    def __init__(self, model: nn.Module, *, parameters: str | Sequence[str] = "all") -> None:
        with compute.settings():
            self.parameters = Parameters(model, parameters, batch_statistics=True)
            self.given = private_copy(model)
        self.w0: Float[Tensor, " q"] = require_finite_parameters(self.parameters.theta)
        self._augmented: dict[str, tuple[str, frozenset[str]]] = {}

    @property
    def q(self) -> int:
        """The number of meta-parameters."""
        return self.w0.numel()

    @abstractmethod
    def adapted_one(self, w: Float[Tensor, " q"], task: Episode) -> Float[Tensor, " P"]:
        """Return A(w) for one task, differentiable in w."""

    @abstractmethod
    def outputs_one(self, theta: Float[Tensor, " P"], task: Episode, ways: int) -> Float[Tensor, "r C"]:
        """Return the query's logits of one task at its adapted parameters."""

    @abstractmethod
    def options(self) -> dict[str, object]:
        """Return the settings that determine the results, the model apart, for fingerprints."""

    def loss_one(self, w: Float[Tensor, " q"], task: Episode, ways: int) -> Float[Tensor, ""]:
        """Return L(w) of one task."""
        return cross_entropy(self.outputs_one(self.adapted_one(w, task), task, ways), task.query_y)

    def gradient_one(self, w: Float[Tensor, " q"], task: Episode, ways: int) -> tuple[Tensor, Tensor]:
        """Return (the training direction, L) for one task."""

        def loss_with_value(v: Tensor) -> tuple[Tensor, Tensor]:
            loss = self.loss_one(v, task, ways)
            return loss, loss

        return grad(loss_with_value, has_aux=True)(w)

    @compute.entry
    def losses(self, w: Float[Tensor, " q"], tasks: Tasks) -> Float[Tensor, " M"]:
        """Return L_i(w) for every task.

        Raises:
            ValueError: a wrong length, dtype or device; labels beyond the outputs; an inner step that diverges.
        """
        return self._vmap("losses", self.loss_one, w, tasks)

    @compute.entry
    def gradients(self, w: Float[Tensor, " q"], tasks: Tasks) -> Float[Tensor, "M q"]:
        """Return grad_w L_i(w) for every task, through the adaptation (first-order MAML: the training direction)."""
        self.require_derivatives(self.require_tasks(tasks), *self.gradient_routes)
        return self._vmap("gradients", lambda v, task, ways: self.gradient_one(v, task, ways)[0], w, tasks)

    @compute.entry
    def adapted(self, w: Float[Tensor, " q"], tasks: Tasks) -> Float[Tensor, "M P"]:
        """Return A_i(w) for every task."""
        return self._vmap("adapted parameters", lambda v, task, ways: self.adapted_one(v, task), w, tasks)

    @compute.entry
    def outputs(self, w: Float[Tensor, " q"], tasks: Tasks) -> Float[Tensor, "M r C"]:
        """Return the query's logits for every task."""
        return self._vmap("outputs", self._query_outputs, w, tasks)

    def accuracy(self, w: Float[Tensor, " q"], tasks: Tasks) -> Float[Tensor, " M"]:
        """Return the share of the query that every task gets right."""
        return query_accuracy(self.outputs(w, tasks), tasks)

    def remember_augmentation(self, w: Float[Tensor, " q"], tasks: Tasks, augment: Callable) -> None:
        """Return nothing; remember that w was trained on augmented tasks, not on the tasks as given.

        Args:
            w: trained meta-parameters.
            tasks: before augmentation.
            augment: as passed to ``train``.
        """
        name = getattr(augment, "__name__", type(augment).__name__)
        self._augmented[digest(w)] = name, frozenset(digest(x) for x in tasks.support_x)

    def augmentation_of(self, w: Float[Tensor, " q"], tasks: Tasks) -> str | None:
        """Return the name of the augmentation that w was trained with, if these are its tasks without it, else None.

        Args:
            w: meta-parameters.
            tasks: to be explained.
        """
        name, trained = self._augmented.get(digest(w), (None, frozenset()))
        return name if name is not None and all(digest(x) in trained for x in tasks.support_x) else None

    def model_at(self, w: Float[Tensor, " q"]) -> nn.Module:
        """Return a copy of the model with w in it; its BatchNorm uses batch statistics."""
        return self.parameters.model_at(w)

    def _query_outputs(self, w: Float[Tensor, " q"], task: Episode, ways: int) -> Float[Tensor, "r C"]:
        return self.outputs_one(self.adapted_one(w, task), task, ways)

    def _vmap(self, name: str, one: Callable[..., Tensor], w: Tensor, tasks: Tasks) -> Tensor:
        w = self.require_w(w)
        self.require_tasks(tasks)
        self.require_derivatives(tasks, *self.adaptation_routes)
        return require_learned(self, name, self.map_tasks(one, w, tasks))

    def map_tasks(self, one: Callable[..., Tree], w: Float[Tensor, " q"], tasks: Tasks) -> Tree:
        """Return ``one(w, task, ways)`` for every task, stacked: in batches, or one by one where a task is large.

        Args:
            one: takes at most second derivatives, in reverse mode.
            w: meta-parameters [q].
            tasks: any.
        """
        episodes, ways = Episode(*tasks.arrays()), tasks.ways
        if not self.one_by_one(tasks):
            return vmap(lambda task: one(w, task, ways), chunk_size=self.chunk(tasks))(episodes)
        with second_order_norms():
            each = [one(w, Episode(*(part[k] for part in episodes)), ways) for k in range(len(tasks))]
        return tree_map(lambda *parts: torch.stack(parts), *each)

    def one_by_one(self, tasks: Tasks) -> bool:
        """Return whether a task is so large that a batch of them only costs memory."""
        return self.chunk(tasks) <= LARGE

    def chunk(self, tasks: Tasks) -> int:
        """Return how many tasks go into one batch."""
        numbers = tasks.support_x[0].numel() + tasks.query_x[0].numel()
        return max(1, NUMBERS // (8 * self.q + 256 * numbers))

    def require_w(self, w: Float[Tensor, " q"]) -> Float[Tensor, " q"]:
        """Return w if it can be this learner's parameters."""
        require_shape("w", require_tensor("w", w), [self.q], meaning="(this learner's parameters, flattened)")
        require_same_kind("w", w, "the learner", self.w0)
        return require_finite("w", w)

    def require_tasks(self, tasks: Tasks) -> Tasks:
        """Return tasks if this learner can read them.

        Raises:
            TypeError: not ``Tasks``, or another dtype.
            ValueError: examples that the model cannot read, or more ways than it has outputs.
        """
        require_task_set(tasks, self.w0)
        outputs = admit(self.parameters, tasks.support_x[0], independent=False, name="a task's support")
        self.require_ways(tasks.ways, outputs)
        return tasks

    def require_derivatives(self, tasks: Tasks, *routes: str) -> None:
        """Return nothing, once the model's derivatives agree with differences on the support of a task.

        Raises:
            ValueError: a derivative that is wrong or missing, with the layer that causes it.
        """
        require_derivatives(self.parameters, tasks.support_x[0], routes, independent=False)

    def require_ways(self, ways: int, outputs: int) -> None:
        """Raise if the outputs are too few for that many ways."""
        require_outputs(ways, outputs)


def require_task_set(tasks: Tasks, like: Tensor) -> Tasks:
    """Return tasks if they are ``Tasks`` of the learner's dtype and device.

    Raises:
        TypeError: something else, or another dtype.
    """
    if not isinstance(tasks, Tasks):
        raise TypeError(f"tasks is a {type(tasks).__name__}; pass xl.datasets.Tasks, as sample_tasks returns them.")
    require_same_kind("tasks.support_x", tasks.support_x, "the learner", like)
    return tasks


def require_outputs(ways: int, outputs: int) -> None:
    """Raise if a model has fewer outputs than a task has ways."""
    if outputs < ways:
        raise ValueError(f"the model has {outputs} outputs, a task has {ways} ways; build it with one for each way.")


def query_accuracy(outputs: Float[Tensor, "M r C"], tasks: Tasks) -> Float[Tensor, " M"]:
    """Return the share of the query that the outputs get right, for every task.

    Raises:
        TypeError: regression tasks, which have no classes.
    """
    tasks.ways  # noqa: B018 - raises for targets
    return (outputs.argmax(-1) == tasks.query_y).to(outputs.dtype).mean(-1)


def require_learner(learner: Learner) -> Learner:
    """Return the learner if it is one of ours.

    Raises:
        TypeError: a learner of learn2learn, a bilevel learner, a network, or something else.
    """
    if isinstance(learner, Learner):
        return learner
    kind, remedy = type(learner).__name__, "pass xl.meta.Maml(model, inner_lr=...) or xl.meta.ProtoNet(model)"
    if type(learner).__module__.startswith("learn2learn"):
        rate = "learner.lr" if isinstance(getattr(learner, "lr", None), float) else "..."
        kind = f"learn2learn {kind}, which adapts in place"
        remedy = f"pass the network in it as xl.meta.Maml(learner.module, inner_lr={rate})"
    elif hasattr(learner, "inner_solution"):
        remedy = "bilevel learners have xl.meta.solve and xl.influence.BilevelInfluence"
    raise TypeError(f"learner is a {kind}, expected xl.meta.Maml or xl.meta.ProtoNet; {remedy}.")


def require_learned(learner: Learner, name: str, values: Tensor) -> Tensor:
    """Return values if they are finite for every task; NaN comes from a diverging inner step or an overflow.

    Args:
        learner: its ``overflow`` names cause and remedy.
        name: of the values, for the message.
        values: a row a task.
    """
    if not torch.isfinite(values).all():
        bad = (~torch.isfinite(values)).flatten(1).any(1) if values.ndim > 1 else ~torch.isfinite(values)
        raise ValueError(
            f"{name} hold NaN or infinity for {int(bad.sum())} of {len(values)} tasks, first for task "
            f"{int(bad.nonzero()[0])}: {learner.overflow}."
        )
    return values
