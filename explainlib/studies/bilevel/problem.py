"""The bilevel learners of the study, solved, and what each method says about their training tasks."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import normalize

from explainlib.datasets import Examples, Tasks
from explainlib.influence import loss_influence
from explainlib.influence.bilevel import BilevelInfluence
from explainlib.influence.trak import trak
from explainlib.meta.bilevel import Bilevel, TaskWeights, solve
from explainlib.models import logistic, mlp
from explainlib.risk import NotAtMinimumWarning, Risk
from explainlib.studies.place import placed
from explainlib.training import minimise

HIDDEN = 16
PUBLISHED = "EK-FAC, Gamma, Neumann"  # the paper's own approximations
RATE, STEPS, CHECKPOINTS = 0.5, 24, 6  # of the gradient descent that TracIn looks back on


@dataclass(frozen=True)
class SolvedLearner:
    """A learner at a stationary point of its training tasks.

    Attributes:
        inner: "proximal" (softmax regression) or "head" (one hidden layer shared, the read-out a task's own).
        strength: of the inner problem.
        l2: of the outer problem.
        tasks: M training tasks, as features.
        seed: of the first weights.
    """

    inner: str
    strength: float
    l2: float
    tasks: Tasks
    seed: int

    @cached_property
    def bilevel(self) -> Bilevel:
        """The learner."""
        ways, features = self.tasks.ways, self.tasks.support_x.shape[-1]
        if self.inner == "proximal":
            model: nn.Module = logistic(features, ways, dtype=torch.float64)
        else:
            model = mlp([features, HIDDEN, ways], "tanh", seed=self.seed, dtype=torch.float64)
        return Bilevel(placed(model), inner=self.inner, strength=self.strength, l2=self.l2)

    @cached_property
    def lam(self) -> Float[Tensor, " q"]:
        """The meta-parameters, solved from the first weights."""
        return self.without([])

    @property
    def start(self) -> Float[Tensor, " q"]:
        """Meta-parameters that no task has changed: zero for the proximal problem, the first weights for a head."""
        return torch.zeros_like(self.bilevel.lam0) if self.inner == "proximal" else self.bilevel.lam0

    def without(self, tasks: Sequence[int], *, warm: bool = False) -> Float[Tensor, " q"]:
        """Return the meta-parameters solved without some tasks, from the first weights or from ``lam``."""
        weights = self.bilevel.lam0.new_ones(len(self.tasks))
        weights[list(tasks)] = 0
        return self.weighted(weights=weights, warm=warm)

    def weighted(self, *, warm: bool = True, **weights: Tensor) -> Float[Tensor, " q"]:
        """Return the meta-parameters solved with weights of tasks or examples."""
        start = self.lam if warm else None
        return solve(self.bilevel, self.tasks, start=start, tolerance=1e-8, on_failure="warn", **weights).w

    def influence(self, **options: str) -> BilevelInfluence:
        """Return the influence at ``lam``, made anew."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotAtMinimumWarning)
            return BilevelInfluence(self.bilevel, self.lam, self.tasks, **options)

    def published(self) -> BilevelInfluence:
        """Return the influence at ``lam`` by the paper's approximations, made anew."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotAtMinimumWarning)
            return BilevelInfluence.published(self.bilevel, self.lam, self.tasks)

    @cached_property
    def path(self) -> list[Float[Tensor, " q"]]:
        """Meta-parameters along plain gradient descent from the first weights, evenly spaced."""
        lam, kept = self.bilevel.lam0.clone(), []
        for step in range(STEPS):
            if step % (STEPS // CHECKPOINTS) == 0:
                kept.append(lam.clone())
            gradient = self.bilevel.total_gradients(lam, self.tasks).sum(0) + self.bilevel.l2 * lam
            lam = lam - RATE / len(self.tasks) * gradient
        return kept

    def rows(self, name: str) -> Float[Tensor, "M q"]:
        """Return dlam/deps of every task by one of the formulas that give meta-parameters.

        Args:
            name: "exact", "Gamma", "first order" or "direct".
        """
        if name in ("exact", "Gamma"):
            return self.influence(hessian=name.lower()).tasks()
        influence = self.influence()
        return influence.first_order_tasks() if name == "first order" else influence.direct_tasks()


def harm_scores(solved: SolvedLearner, method: str, new: Tasks, *, seed: int = 0) -> tuple[Float[Tensor, " M"], float]:
    """Return how harmful a method finds each training task for the new ones, and the seconds that took.

    Args:
        solved: the learner.
        method: one of ``SCORES``.
        new: the tasks whose loss is to fall.
        seed: of what is random.
    """
    started = time.perf_counter()
    return SCORES[method](solved, new, seed), time.perf_counter() - started


def _by_influence(name: str) -> Callable[[SolvedLearner, Tasks, int], Tensor]:
    def score(solved: SolvedLearner, new: Tasks, seed: int) -> Tensor:
        return solved.rows(name) @ solved.bilevel.total_gradients(solved.lam, new).sum(0)

    return score


def _shortcut(solved: SolvedLearner, new: Tasks, seed: int) -> Tensor:
    return solved.influence().performance(new, shortcut=True).sum(0)


def _gradient_product(solved: SolvedLearner, new: Tasks, seed: int) -> Tensor:
    own = solved.bilevel.total_gradients(solved.lam, solved.tasks)
    return -own @ solved.bilevel.total_gradients(solved.lam, new).sum(0)


def _cosine(solved: SolvedLearner, new: Tasks, seed: int) -> Tensor:
    own, other = (solved.bilevel.total_gradients(solved.lam, tasks) for tasks in (solved.tasks, new))
    return -(normalize(own, dim=1) @ normalize(other, dim=1).T).sum(1)


def _raw_loss(solved: SolvedLearner, new: Tasks, seed: int) -> Tensor:
    return solved.bilevel.outer_losses(solved.lam, solved.tasks)


def _tracin(solved: SolvedLearner, new: Tasks, seed: int) -> Tensor:
    total = solved.lam.new_zeros(len(solved.tasks))
    for lam in solved.path:
        own, other = (solved.bilevel.total_gradients(lam, tasks) for tasks in (solved.tasks, new))
        total -= RATE / len(solved.tasks) * own @ other.sum(0)
    return total


def flattened_examples(tasks: Tasks) -> tuple[Examples, Int[Tensor, " n"]]:
    """Return all examples of all tasks as one classification problem, labels as they are in their tasks, and whose."""
    x = torch.cat([tasks.support_x, tasks.query_x], dim=1)
    y = torch.cat([tasks.support_y, tasks.query_y], dim=1)
    owner = torch.arange(len(tasks), device=y.device)[:, None].expand(y.shape)
    return Examples(x.flatten(0, 1), y.flatten()), owner.flatten()


def _on_the_flat_problem(
    scores: Callable[[Risk, Examples, int], Tensor],
) -> Callable[[SolvedLearner, Tasks, int], Tensor]:
    """Return a task's score as the sum of its examples' scores in one classifier of everything."""

    def score(solved: SolvedLearner, new: Tasks, seed: int) -> Tensor:
        risk, owner = _flat_classifier(solved)
        summed = scores(risk, flattened_examples(new)[0], seed).sum(0)
        return summed.new_zeros(len(solved.tasks)).index_add_(0, owner, summed)

    return score


def _flat_classifier(solved: SolvedLearner) -> tuple[Risk, Int[Tensor, " n"]]:
    """Return one softmax regression of all examples of all tasks, trained, and whose each example is."""
    train, owner = flattened_examples(solved.tasks)
    model = placed(logistic(train.x.shape[1], solved.tasks.ways, dtype=torch.float64))
    return minimise(Risk(model, train, l2=1e-2)), owner


def flat_accuracy(solved: SolvedLearner, new: Tasks) -> float:
    """Return how often the flat classifier behind TRAK and EK-FAC is right on new tasks' examples.

    Args:
        solved: the learner whose tasks it is trained on.
        new: other tasks.
    """
    examples = flattened_examples(new)[0]
    return float((_flat_classifier(solved)[0].outputs(examples).argmax(1) == examples.y).double().mean())


SCORES: dict[str, Callable[[SolvedLearner, Tasks, int], Tensor]] = {
    "task influence": _by_influence("exact"),
    "shortcut (Def 5.2)": _shortcut,
    "Gamma": _by_influence("Gamma"),
    PUBLISHED: lambda solved, new, seed: solved.published().performance(new).sum(0),
    "first order": _by_influence("first order"),
    "direct": _by_influence("direct"),
    "gradient product": _gradient_product,
    "cosine": _cosine,
    "raw loss": _raw_loss,
    "TracIn": _tracin,
    "TRAK, flat": _on_the_flat_problem(lambda risk, test, seed: trak(risk, test, features=64, seed=seed)),
    "EK-FAC IF, flat": _on_the_flat_problem(
        lambda risk, test, seed: loss_influence(risk, test, curvature="ekfac", damping=1e-3)
    ),
    "random": lambda solved, new, seed: torch.randn(
        len(solved.tasks), generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    ).to(solved.lam),
}
PROXIMAL_ONLY = ("shortcut (Def 5.2)", "first order")  # elsewhere their shapes do not meet
HEAD_ONLY = ("direct",)  # identically zero for the proximal problem


def methods_for(inner: str) -> list[str]:
    """Return the methods that say anything about this inner problem."""
    left_out = HEAD_ONLY if inner == "proximal" else PROXIMAL_ONLY
    return [name for name in SCORES if name not in left_out]


def edited_parameters(solved: SolvedLearner, removed: Sequence[int]) -> dict[str, tuple[Float[Tensor, " q"], float]]:
    """Return the meta-parameters after removing tasks by each formula, with its seconds, everything made anew."""
    rows = torch.as_tensor(list(removed))
    made = {"task influence": lambda: solved.influence().without_tasks(rows)}
    made["leave-out Newton step"] = lambda: solved.influence().without_tasks(rows, newton=True)
    made["without third derivative"] = lambda: _without_third_order(solved, rows)
    made["Gamma"] = lambda: solved.influence(hessian="gamma").without_tasks(rows)
    made[PUBLISHED] = lambda: solved.published().without_tasks(rows)
    if solved.inner == "proximal":
        made["first order"] = lambda: solved.lam - solved.rows("first order")[rows].sum(0)
    made["direct"] = lambda: solved.lam - solved.rows("direct")[rows].sum(0)
    made["gradient ascent"] = lambda: _ascent(solved, rows)
    found = {}
    for name, make in made.items():
        started = time.perf_counter()
        found[name] = (make(), time.perf_counter() - started)
    return found


def _without_third_order(solved: SolvedLearner, rows: Tensor) -> Tensor:
    total = solved.bilevel.total_hessian(solved.lam, solved.tasks, third_order=False)
    total.diagonal().add_(solved.l2)
    gradients = solved.bilevel.total_gradients(solved.lam, solved.tasks)[rows].sum(0)
    return solved.lam + torch.linalg.solve(total, gradients)


def _ascent(solved: SolvedLearner, rows: Tensor) -> Tensor:
    """Return one step up the removed tasks' loss, as long as plain gradient descent on all of them allows."""
    influence = solved.influence()
    top = float(torch.linalg.eigvalsh(solved.bilevel.total_hessian(solved.lam, solved.tasks))[-1]) + solved.l2
    return solved.lam + influence.gradients[rows].sum(0) / top


def example_rows(
    solved: SolvedLearner, influence: BilevelInfluence, chosen: Sequence[tuple[int, int]], part: str
) -> Float[Tensor, "k q"]:
    """Return dlam/deps of chosen examples (task, place) of one part, a task's own in one go."""
    of = influence.training_examples if part == "training" else influence.validation_examples
    rows = {k: of(k) for k in {k for k, _ in chosen}}
    return torch.stack([rows[k][i] for k, i in chosen])


def example_weights(tasks: Tasks, chosen: Sequence[tuple[int, int]], part: str) -> dict[str, Tensor]:
    """Return the weights for ``SolvedLearner.weighted`` that leave chosen examples out."""
    every = TaskWeights.of(tasks)
    weights = (every.training if part == "training" else every.validation).clone()
    for k, i in chosen:
        weights[k, i] = 0
    return {f"{part}_weights": weights}
