"""MAML: initial parameters from which one or a few gradient steps on the support give a good classifier.

A(w) = w - inner_lr grad l_support(w),  repeated ``steps`` times;  l_support is the mean cross-entropy of the support.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from explainlib.checks import require_count, require_positive
from explainlib.derivatives import grad
from explainlib.gate import GRADIENT, HESSIAN
from explainlib.meta.learner import Episode, Learner


class Maml(Learner):
    """Model-agnostic meta-learning.

    Args:
        model: outputs [n, C], C at least the ways of the tasks; copied.
        inner_lr: learning rate of the inner steps, > 0.
        steps: number of inner steps.
        first_order: training uses grad L at A(w), as if A were w plus a constant. That is not the gradient of an
            objective: such a learner can be trained, but has no Hessian and no influence.
        parameters: what is learned and adapted, as in ``Learner``.

    Raises:
        ValueError: a rate or a count that is not positive.

    Source: Finn et al. 2017, eq. (1); TLXML, section 3 (the inner step, unnumbered) and eq. (2) (the objective).

    Example: the loss of one example after a step is lower than before.

        >>> import torch
        >>> from explainlib.datasets import Tasks
        >>> x, y = torch.eye(2)[None].double(), torch.tensor([[0, 1]])
        >>> tasks = Tasks(x, y, x, y)
        >>> learner = Maml(torch.nn.Linear(2, 2, dtype=torch.float64), inner_lr=0.5)
        >>> still = Maml(learner.model_at(learner.w0), inner_lr=1e-12)
        >>> bool(learner.losses(learner.w0, tasks) < still.losses(learner.w0, tasks))
        True
    """

    adaptation_routes = (GRADIENT,)
    gradient_routes = (GRADIENT, HESSIAN)
    overflow = "the inner step diverged; build the Maml with a lower inner_lr, or scale the examples"

    def __init__(
        self,
        model: nn.Module,
        *,
        inner_lr: float,
        steps: int = 1,
        first_order: bool = False,
        parameters: str | Sequence[str] = "all",
    ) -> None:
        super().__init__(model, parameters=parameters)
        self.inner_lr = require_positive("inner_lr", float(inner_lr))
        self.steps = require_count("steps", steps)
        self.first_order = bool(first_order)

    def support_loss(self, theta: Float[Tensor, " P"], task: Episode) -> Float[Tensor, ""]:
        """Return the mean cross-entropy of the support at theta."""
        return cross_entropy(self.parameters.outputs(theta, task.support_x), task.support_y)

    def adapted_one(self, w: Float[Tensor, " q"], task: Episode) -> Float[Tensor, " P"]:
        """Return A(w) for one task."""
        theta = w
        for _ in range(self.steps):
            theta = theta - self.inner_lr * grad(self.support_loss)(theta, task)
        return theta

    def outputs_one(self, theta: Float[Tensor, " P"], task: Episode, ways: int) -> Float[Tensor, "r C"]:
        """Return the query's logits."""
        return self.parameters.outputs(theta, task.query_x)

    def gradient_one(self, w: Float[Tensor, " q"], task: Episode, ways: int) -> tuple[Tensor, Tensor]:
        """Return (the training direction, L); first order: grad L at A(w), not through A."""
        if not self.first_order:
            return super().gradient_one(w, task, ways)

        def query_loss(theta: Tensor) -> tuple[Tensor, Tensor]:
            loss = cross_entropy(self.outputs_one(theta, task, ways), task.query_y)
            return loss, loss

        return grad(query_loss, has_aux=True)(self.adapted_one(w, task))

    def options(self) -> dict[str, object]:
        """Return the rate, the steps and the order."""
        return {"kind": "maml", "inner_lr": self.inner_lr, "steps": self.steps, "first_order": self.first_order}

    def __repr__(self) -> str:
        """Return one line."""
        order = ", first order" if self.first_order else ""
        return f"Maml(q={self.q}, inner_lr={self.inner_lr:g}, steps={self.steps}{order})"
