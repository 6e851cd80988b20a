"""How well each method's predictions agree with meta-training without the groups: one row a state, size and method.

The objective after a removal is 1/M sum over the tasks that stay, plus the ridge (near rest), or the mean over those
that stay (training). With I_j the influence of task j on a loss, a group g of s tasks changes it by

    near rest    - 1/M sum_{j in g} I_j
    training     - 1/(M - s) sum_{j in g} (I_j - mean I)

``lds`` is the mean over unseen tests of the Spearman correlation across the groups of a size (the linear datamodeling
score); ``own_spearman`` the same for a group's mean loss on its own tasks, ``own_ratio`` predicted over true there, and
``error`` is |predicted - true| / |true| over groups and unseen tests, which is 1 for predicting no change. A row
of equal predictions has no rank correlation (nan).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas
import torch
from jaxtyping import Float, Int
from torch import Tensor

from explainlib.datasets import Tasks
from explainlib.influence import TaskInfluence
from explainlib.influence.tasks import cosine_scores, random_projector_scores
from explainlib.meta import Maml, MetaRetrained
from explainlib.metrics import fidelity
from explainlib.studies.few_shot import influence_without_warning
from explainlib.studies.removal.problem import Problem

NEVER = float("nan")
PRUNED = 512 / 1413  # share of the eigenvalues that is kept, as by TLXML
RANK = 256  # of the random projector
SCALED = (
    "hessian",
    "hessian, pruned",
    "gauss-newton",
    "parameters moved",
    "other batches",
)  # methods with the unit of a loss


@dataclass(frozen=True)
class Changes:
    """The change of losses after each removal.

    Attributes:
        unseen: [unseen test, group].
        own: [training task, group].
    """

    unseen: Float[Tensor, "T g"]
    own: Float[Tensor, "M g"]

    def of(self, groups: slice) -> Changes:
        """Return the changes of some groups."""
        return Changes(self.unseen[:, groups], self.own[:, groups])


def rows_of(problem: Problem) -> pandas.DataFrame:
    """Return the rows of one learner and seed."""
    states = {"trained": problem.trained, "near rest": problem.near_rest}
    rows = []
    for state, truth in states.items():
        learner, w, tasks = problem.learner, truth.whole, problem.tasks
        true = _changes(problem, truth.loss_change)
        predicted = _predictions(problem, truth, state)
        slope = (learner.gradients(w, tasks).mean(0) + problem.learning.l2 * w).norm()
        shared = {"network": problem.learning.network, "parameters": learner.q, "tasks": len(tasks), "state": state}
        shared |= {
            "gradient": float(slope),
            "gradient_of_a_task": float(learner.gradients(w, tasks).norm(dim=1).mean()),
        }
        for name, part in (("train", tasks), ("unseen", problem.unseen)):
            shared[f"accuracy_{name}"] = float(learner.accuracy(w, part).mean())
        for k, (size, groups) in enumerate(problem.groups.items()):
            columns = slice(k * len(groups), (k + 1) * len(groups))
            at_size = {name: found.of(columns) for name, found in predicted.items()}
            if state == "trained" and size == problem.learning.middle_size:
                at_size["other batches"] = _changes(problem, problem.other_batches.loss_change)
            for method, found in at_size.items():
                row = _agreement(found, true.of(columns), groups, scaled=method in SCALED)
                rows.append(shared | {"size": size, "groups": len(groups), "method": method} | row)
    return pandas.DataFrame(rows)


def _changes(problem: Problem, change: Callable[[Tasks], Float[Tensor, "t g"]]) -> Changes:
    return Changes(change(problem.unseen), change(problem.tasks))


def _predictions(problem: Problem, truth: MetaRetrained, state: str) -> dict[str, Changes]:
    """Return every method's changes, the controls among them."""
    learner, w, tasks, l2 = problem.learner, truth.whole, problem.tasks, problem.learning.l2
    by_weight = weight_changes(problem.all_groups, len(tasks), mean=state == "trained").to(w)

    def by(scores: Callable[[Tasks], Float[Tensor, "t M"]]) -> Changes:
        return _changes(problem, lambda tests: scores(tests) @ by_weight)

    def influence(curvature: str) -> TaskInfluence:
        return influence_without_warning(learner, w, tasks, curvature=curvature, l2=l2, keep="positive")

    found = {}
    if problem.learning.network == "small":
        newton = influence("hessian")
        found["hessian"] = by(newton.performance)
        found["hessian, pruned"] = by(newton.pruned(round(PRUNED * learner.q)).performance)
    gauss_newton = influence("gauss_newton")
    found["gauss-newton"] = by(gauss_newton.performance)
    meta = (newton if problem.learning.network == "small" else gauss_newton).meta
    found["parameters moved"] = _moved(problem, learner, w, by_weight.T @ meta)
    found["identity"] = by(influence_without_warning(learner, w, tasks, curvature="identity").performance)
    found["cosine"] = by(lambda tests: cosine_scores(learner, w, tasks, tests))
    options = {"rank": min(RANK, learner.q), "seed": problem.seed}
    found["random projector"] = by(lambda tests: random_projector_scores(learner, w, tasks, tests, **options))
    found["cosine, untrained"] = by(lambda tests: cosine_scores(learner, learner.w0, tasks, tests))
    return found


def _moved(problem: Problem, learner: Maml, w: Float[Tensor, " q"], steps: Float[Tensor, "g q"]) -> Changes:
    """Return the changes of the losses, not linearised, at the parameters that influence predicts."""
    return _changes(problem, MetaRetrained(learner, w + steps, w).loss_change)


def weight_changes(groups: list[Int[Tensor, " _"]], m: int, *, mean: bool) -> Float[Tensor, "m g"]:
    """Return the change of every task's weight in the objective by the removal of each group.

    Args:
        groups: of task indices.
        m: tasks.
        mean: whether the objective is the mean over the tasks that stay, or 1/m of their sum.
    """
    by_weight = torch.zeros(m, len(groups), dtype=torch.float64)
    for g, group in enumerate(groups):
        stay = m - len(group) if mean else m
        by_weight[:, g] = 1 / stay - 1 / m
        by_weight[group, g] = -1 / m
    return by_weight


def _agreement(predicted: Changes, true: Changes, groups: list[Int[Tensor, " _"]], *, scaled: bool) -> dict[str, float]:
    """Return what the rows say of one size of groups."""
    guess, unseen = predicted.unseen, true.unseen
    own_guess, own = (
        torch.stack([table[group, g].mean() for g, group in enumerate(groups)]) for table in (predicted.own, true.own)
    )
    row = {"lds": float(fidelity(guess, unseen, resamples=1).per_test.nanmean())}
    row["own_spearman"] = float(fidelity(own_guess, own, resamples=1).per_test[0])
    row["error"] = float((guess - unseen).norm() / unseen.norm()) if scaled else NEVER
    row["own_ratio"] = float(own_guess.mean() / own.mean()) if scaled else NEVER
    return row | {"true": float(unseen.abs().mean()), "own_true": float(own.mean())}
