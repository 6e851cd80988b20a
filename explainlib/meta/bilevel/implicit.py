r"""A MAML learner read as a bilevel one (implicit MAML): its inner steps become a proximal problem.

MAML takes ``steps`` gradient steps of rate inner_lr on the MEAN loss of s training examples,

    A(w) = w - inner_lr sum_t grad l_mean(theta_t);

the proximal solution obeys theta = w - 1/strength sum_z grad l(z; theta). To first order in inner_lr they agree at

    strength = s / (steps inner_lr),

and an objective 1/M sum_i mean f_i + weight_decay/2 |w|^2 is F / (M r) with l2 = M r weight_decay.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from explainlib import compute
from explainlib.checks import require_nonnegative
from explainlib.datasets import Tasks
from explainlib.meta.bilevel.learner import Bilevel
from explainlib.meta.learner import Learner
from explainlib.meta.maml import Maml


def implicit_maml(
    maml: Learner, tasks: Tasks, *, weight_decay: int | float, strength: int | float | None = None
) -> Bilevel:
    """Return the bilevel learner of a MAML learner, whose formulas need no unrolled steps.

    Its stationary points are not MAML's: ``adaptation_gap`` says how far the adapted parameters are apart, and
    ``BilevelInfluence.step_to_rest`` how far w is from rest, in units of one task's influence.

    Args:
        maml: gives the model, the rate and the steps; its meta-parameters w are this learner's lam.
        tasks: the M training tasks, for their numbers of examples s and r.
        weight_decay: that w was trained with; l2 is M r times it.
        strength: of the proximity; None is s / (steps inner_lr).

    Raises:
        TypeError: another learner.
        ValueError: a weight decay below 0, no strength.

    Source: Rajeswaran et al. 2019, eq. (3), for MAML's step as a proximal problem; Ren et al., section 3.
    """
    if not isinstance(maml, Maml):
        raise TypeError(f"maml is a {type(maml).__name__}; pass an xl.meta.Maml, or build the Bilevel itself.")
    require_nonnegative("weight_decay", float(weight_decay))
    count, r = len(tasks), tasks.query_y.shape[1]
    strength = tasks.support_y.shape[1] / (maml.steps * maml.inner_lr) if strength is None else strength
    return Bilevel(
        maml.model_at(maml.w0), strength=strength, l2=count * r * weight_decay, parameters=maml.parameters.names
    )


@compute.entry
def adaptation_gap(maml: Maml, bilevel: Bilevel, w: Float[Tensor, " q"], tasks: Tasks) -> Float[Tensor, " M"]:
    """Return |A(w) - theta_i(w)| / |A(w) - w| of every task: 0 where both adapt alike, 1 as far as not adapting.

    Args:
        maml: a MAML learner.
        bilevel: from ``implicit_maml``.
        w: meta-parameters of both [q].
        tasks: M tasks.
    """
    adapted = maml.adapted(w, tasks)
    return (adapted - bilevel.inner_solution(w, tasks)).norm(dim=1) / (adapted - w).norm(dim=1)
