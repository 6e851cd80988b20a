"""A MAML learner read as a bilevel one: what is lost by not being at rest, beside meta-training without the tasks.

``python -m benchmarks.bilevel_maml`` takes digits of many hands (``studies.bilevel.writers``), meta-trains softmax
regression by MAML with Adam, stopped well before rest, and leaves out groups of tasks: the truth is meta-training on
the same batches without them. Beside it: bilevel influence of ``implicit_maml`` at the trained w, and where its outer
problem is solved from w; the exact TLXML influence of the MAML objective; cosines; and meta-training on other batches,
which says how well any prediction can agree. Rows: rank correlation over groups (mean over new tasks), and the error
|predicted - true| / |true| over all (1 is no change predicted). Fixed before the first run: seeds 0, 1, 2, sixty tasks,
twelve groups of six, 150 batches of twenty tasks; the shares of the mean objective, the same for both influences, were
put right after it.
"""

from __future__ import annotations

import warnings

import pandas
import torch
from torch import Tensor
from torch.nn.functional import normalize

from explainlib.influence import BilevelInfluence, TaskInfluence
from explainlib.meta import Maml, adaptation_gap, implicit_maml, leave_tasks_out, solve
from explainlib.metrics import fidelity
from explainlib.models import logistic
from explainlib.studies.bilevel.writers import writers

SEEDS, TASKS, GROUPS, SIZE = (0, 1, 2), 60, 12, 6
TRAINING = {"batches": 150, "batch_size": 20, "lr": 0.01, "weight_decay": 1e-3}
INNER_LR = 0.5


def rows(seed: int) -> list[dict[str, object]]:
    """Return one row a method."""
    tasks, new = writers(TASKS, seed)
    maml = Maml(logistic(tasks.support_x.shape[-1], tasks.ways, dtype=torch.float64), inner_lr=INNER_LR)
    generator = torch.Generator().manual_seed(seed)
    groups = [torch.randperm(TASKS, generator=generator)[:SIZE] for _ in range(GROUPS)]
    truth, other = (leave_tasks_out(maml, tasks, groups, seed=at, **TRAINING) for at in (seed, 1000 + seed))
    w = truth.whole
    learner = implicit_maml(maml, tasks, weight_decay=TRAINING["weight_decay"])
    at_rest = solve(learner, tasks, start=w, tolerance=1e-7, on_failure="warn").w
    trained, solved = (BilevelInfluence(learner, at, tasks) for at in (w, at_rest))
    task = TaskInfluence(maml, w, tasks, l2=TRAINING["weight_decay"], keep="positive")
    members = torch.zeros(TASKS, GROUPS, dtype=torch.float64)
    for g, group in enumerate(groups):
        members[group, g] = 1
    shares = (members - SIZE / TASKS) / (TASKS - SIZE)  # from the mean over all to the mean over those that stay
    r, change = new.query_y.shape[1], truth.loss_change(new)
    own, others = (normalize(maml.gradients(w, part), dim=1) for part in (tasks, new))
    predictions = {
        "other batches": other.loss_change(new),
        "bilevel influence at w": -trained.performance(new) * TASKS / r @ shares,
        "bilevel influence at rest": -solved.performance(new) * TASKS / r @ shares,
        "TLXML, exact": -task.performance(new) @ shares,
        "cosine": others @ own.T @ members,
    }
    shared = {
        "seed": seed,
        "step_to_rest": trained.step_to_rest(),
        "at_rest": solved.step_to_rest(),
        "adaptation_gap": float(adaptation_gap(maml, learner, w, tasks).median()),
        "accuracy_maml": float(maml.accuracy(w, new).mean()),
        "accuracy_implicit": float(learner.accuracy(w, new).mean()),
        "accuracy_rest": float(learner.accuracy(at_rest, new).mean()),
    }
    return [shared | {"method": name} | _agreement(found, change) for name, found in predictions.items()]


def _agreement(found: Tensor, true: Tensor) -> dict[str, float]:
    ranks = fidelity(found, true, resamples=1).per_test
    return {"lds": float(ranks.nanmean()), "error": float((found - true).norm() / true.norm())}


def main() -> None:
    """Print the table."""
    warnings.simplefilter("ignore")
    table = pandas.DataFrame([row for seed in SEEDS for row in rows(seed)])
    print(table.round(3).to_string(index=False))


if __name__ == "__main__":
    main()
