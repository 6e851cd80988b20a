"""Prototypical Networks: a class is the mean of its embedded support, and the nearest mean is predicted.

logit_c(x) = - |e(x) - centroid_c|^2,     centroid_c = mean of e over the support of class c,     A(w) = w.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from explainlib.losses import one_hot
from explainlib.meta.learner import Episode, Learner


class ProtoNet(Learner):
    """A Prototypical Network; gradients go through the centroids.

    Args:
        model: the embedding, outputs [n, E]; copied.
        parameters: what is learned, as in ``Learner``.

    Source: Snell et al. 2017, eqs (1) and (2); TLXML, section 3 (unnumbered). Deviation: TLXML prints the softmax of
    plus the distances; it has to be minus, or the farthest class is predicted.
    """

    def adapted_one(self, w: Float[Tensor, " q"], task: Episode) -> Float[Tensor, " P"]:
        """Return w: nothing is adapted, the support enters through the centroids."""
        return w

    def outputs_one(self, theta: Float[Tensor, " P"], task: Episode, ways: int) -> Float[Tensor, "r C"]:
        """Return minus the squared distances to the centroids."""
        members = one_hot(task.support_y, ways, theta)
        centroids = (members.T @ self.parameters.outputs(theta, task.support_x)) / members.sum(0)[:, None]
        embedded = self.parameters.outputs(theta, task.query_x)
        return -(embedded[:, None] - centroids).square().sum(-1)

    def require_ways(self, ways: int, outputs: int) -> None:
        """Accept any number of ways: an embedding of any width can separate them."""

    def options(self) -> dict[str, object]:
        """Return the kind."""
        return {"kind": "protonet"}

    def __repr__(self) -> str:
        """Return one line."""
        return f"ProtoNet(q={self.q})"
