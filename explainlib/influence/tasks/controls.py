"""Controls for task influence: scores without a Hessian, as baselines.

All have the sign of ``TaskInfluence.performance`` (negative is helpful) and its shape [T, M], but no unit: only their
order has a meaning. The identity in place of H^+ is ``TaskInfluence(..., curvature="identity")``.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib.checks import require_count
from explainlib.datasets import Tasks
from explainlib.meta.learner import Learner, require_learner


def cosine_scores(learner: Learner, w: Float[Tensor, " q"], tasks: Tasks, test_tasks: Tasks) -> Float[Tensor, "T M"]:
    """Return minus the cosine between the gradients of test and training tasks.

    Args:
        learner: MAML or ProtoNet.
        w: its parameters.
        tasks: the M training tasks.
        test_tasks: the T test tasks.
    """
    require_learner(learner)
    tests, trains = (learner.gradients(w, t) for t in (test_tasks, tasks))
    return -torch.nn.functional.normalize(tests, dim=1) @ torch.nn.functional.normalize(trains, dim=1).T


def random_projector_scores(
    learner: Learner, w: Float[Tensor, " q"], tasks: Tasks, test_tasks: Tasks, *, rank: int, seed: int = 0
) -> Float[Tensor, "T M"]:
    """Return gradient products with a random projector of the same rank in place of H^+.

    Args:
        learner: MAML or ProtoNet.
        w: its parameters [q].
        tasks: the M training tasks.
        test_tasks: the T test tasks.
        rank: of the projector, 1 to q.
        seed: of the subspace.

    Raises:
        ValueError: a rank outside 1 to q.
    """
    if require_count("rank", rank) > require_learner(learner).q:
        raise ValueError(f"rank={rank} is more than the {learner.q} parameters; ask for at most that.")
    generator = torch.Generator().manual_seed(require_count("seed", seed, least=0))
    basis = torch.linalg.qr(torch.randn(learner.q, rank, generator=generator, dtype=torch.float64))[0].to(w)
    tests, trains = (learner.gradients(w, t) @ basis for t in (test_tasks, tasks))
    return -tests @ trains.T
