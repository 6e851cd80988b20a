"""The parameters after groups are removed: the result shared by predictions and by retraining."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from explainlib import compute
from explainlib.checks import require_choice, require_groups
from explainlib.datasets import Examples
from explainlib.derivatives import vmap
from explainlib.influence.measures import measure_gradients, require_measure
from explainlib.layerwise import per_example
from explainlib.losses import LossFunction
from explainlib.risk import Risk
from explainlib.solvers.solution import Solution

WEIGHTINGS = ("preserve", "plain")
TERMS = ("theta1", "theta2", "R'''")  # the order in which a group's systems are solved
GROUPS_IN_MESSAGE = 10  # failed groups that a message names


@dataclass(frozen=True)
class Removal:
    """Predicted parameters after the removal of each of g groups.

    Attributes:
        risk: the full problem, at the parameters before.
        groups: g LongTensors of training examples.
        theta: [g, p], the parameters afterwards.
        weighting: "preserve" (the mean over the rest, same ridge) or "plain" (every other weight stays 1/n).
        status: one word or sentence per group: whether its solves converged, and which failed.
        method: name of the method, for legends.
        theta1: [g, p], the first-order term, per unit of eps, if computed; removal subtracts it.
        theta2: [g, p], the second-order term, per squared unit of eps, if computed; removal adds it.
    """

    risk: Risk
    groups: list[Int[Tensor, " _"]] = field(repr=False)
    theta: Float[Tensor, "g p"] = field(repr=False)
    weighting: str
    status: tuple[str, ...] = field(repr=False)
    method: str
    theta1: Float[Tensor, "g p"] | None = field(default=None, repr=False)
    theta2: Float[Tensor, "g p"] | None = field(default=None, repr=False)

    @property
    def change(self) -> Float[Tensor, "g p"]:
        """The parameters afterwards minus the parameters now."""
        return self.theta - self.risk.theta

    @compute.entry
    def loss_change(self, test: Examples, *, evaluate: bool = True) -> Float[Tensor, "t g"]:
        """Return each test loss after removal minus the loss now, [t, g], in units of the loss.

        Args:
            test: t examples that fit the risk.
            evaluate: True evaluates the loss at the new parameters; False is linear, grad l_t . change.

        Returns:
            Positive: the loss rises on removal, so the group was helpful.
        """
        if not evaluate:
            return self.risk.loss_gradients(test) @ self.change.T
        return self.losses(test) - self.risk.losses(test)[:, None]

    @compute.entry
    def measure_change(
        self,
        test: Examples,
        *,
        measure: str | LossFunction = "loss",
        output: int | None = None,
        evaluate: bool = True,
    ) -> Float[Tensor, "t g"]:
        """Return each test's measure after removal minus the measure now, [t, g]; ``loss_change`` for the loss.

        Args:
            test: t examples that fit the risk.
            measure: "loss", "output", "margin" or a callable, as in ``loss_influence``.
            output: for "output": which one; None is that of each test's label, or the only one.
            evaluate: as in ``loss_change``.

        Returns:
            In units of the measure. Positive: it rises when the group leaves.

        Raises:
            TypeError, ValueError: a measure that does not fit the tests.
        """
        risk = self.risk
        y = risk.require_examples(test, "test").y
        how = {"loss": risk.loss, "parameters": risk.parameters, "theta": risk.theta, "test": test}
        measured = require_measure(measure, output, **how)
        if not evaluate:
            return per_example(measure_gradients(risk.parameters, risk.theta, test, measured)) @ self.change.T
        return measured.value(self.outputs(test), y).T - measured.value(risk.outputs(test), y)[:, None]

    @compute.entry
    def losses(self, test: Examples) -> Float[Tensor, "t g"]:
        """Return the test losses at the new parameters."""
        y = self.risk.require_examples(test, "test").y
        return self.risk.loss.value(self.outputs(test), y).T

    @compute.entry
    def outputs(self, test: Examples) -> Float[Tensor, "g t C"]:
        """Return the model's outputs at the new parameters."""
        x, parameters = self.risk.require_examples(test, "test").x, self.risk.parameters
        with torch.no_grad():
            if self.risk.head is not None:
                return self.risk.features(test) @ self.risk.head.matrix(self.theta).mT
            return vmap(lambda theta: parameters.outputs(theta, x), chunk_size=64)(self.theta)

    def model(self, g: int) -> torch.nn.Module:
        """Return a copy of the model with the parameters after the removal of group g."""
        return self.risk.parameters.model_at(self.theta[g])


def removal_weights(risk: Risk, groups: Sequence[Int[Tensor, " _"]], weighting: str) -> Float[Tensor, "g n"]:
    """Return the weights [g, n] of the remaining problem: 0 on the group, and 1 or 1/(1 - f) on the rest.

    Args:
        risk: its own weights, if any, are kept on the rest; "preserve" needs an unweighted risk.
        groups: checked index lists.
        weighting: "plain" or "preserve"; f = |U|/n.

    Raises:
        ValueError: an unknown weighting, a bad group, or "preserve" on a reweighted risk.
    """
    groups = require_groups(groups, risk.n)
    require_weighting(risk, weighting)
    weights = risk.weights_or_ones().repeat(len(groups), 1)
    for row, group in zip(weights, groups, strict=True):
        row[group.to(row.device)] = 0
        if weighting == "preserve":
            row *= risk.n / (risk.n - len(group))
    return weights


def require_weighting(risk: Risk, weighting: str) -> None:
    """Return nothing; raise for an unknown weighting, and for "preserve" on a reweighted risk.

    Args:
        risk: with its own weights, if any.
        weighting: as in ``removal_weights``.
    """
    require_choice("weighting", weighting, WEIGHTINGS)
    if weighting == "preserve" and risk.weights is not None:
        raise ValueError("weighting='preserve' is defined for equal weights only; use weighting='plain' here.")


def group_statuses(solutions: Sequence[Solution]) -> tuple[str, ...]:
    """Return one word for each group: "converged", or the status of its first failed solve.

    Args:
        solutions: of theta1, theta2 and the part with R''', as many as were solved, a row for each group; or of a
            Newton step.
    """
    names = TERMS if len(solutions) > 1 else ("",)
    found = []
    for rows in zip(*(solution.row_status for solution in solutions), strict=True):
        failed = next(((name, row) for name, row in zip(names, rows, strict=False) if row != "converged"), None)
        found.append("converged" if failed is None else f"{failed[1]} ({failed[0]})" if failed[0] else failed[1])
    return tuple(found)


def require_solved(solutions: Sequence[Solution], first: int, on_failure: str) -> None:
    """Return nothing; raise or warn where a group's solve failed, naming the groups.

    Args:
        solutions: as for ``group_statuses``.
        first: the number of the first group among all.
        on_failure: "raise" or "warn".
    """
    require_choice("on_failure", on_failure, ("raise", "warn"))
    for solution in solutions:
        if solution.converged:
            continue
        failed = [first + k for k, row in enumerate(solution.row_status) if row != "converged"]
        which = ", ".join(map(str, failed[:GROUPS_IN_MESSAGE])) + (", ..." if len(failed) > GROUPS_IN_MESSAGE else "")
        detail = (
            solution.detail + ("; " if solution.detail else "") + f"groups {which}"
            if solution.rows
            else solution.detail
        )
        replace(solution, detail=detail).require_converged(on_failure)
