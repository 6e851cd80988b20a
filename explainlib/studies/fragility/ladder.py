"""Where the gap between influence and retraining comes from: a ladder of problems, each one step from the next.

    influence, approximate solve    (G + damping I)^-1 by a solver that stops early
      | solver
    influence, exact solve          the same linear system, solved
      | linearisation               (the parameters', and the test loss's)
    proximal response               argmin of divergences from theta_s, held near it, without the example
      | non-convergence             (theta_s is no minimum: the losses have a slope there, the divergences none)
    proximal retraining             argmin of the losses themselves, still held near theta_s
      | proximity
    warm-start retraining           training goes on from theta_s, free
      | warm start
    cold-start retraining           training from fresh parameters: what influence is usually judged by

Source: Bae et al. 2022, section 4: the decomposition; the measure of each step's share is this module's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas
import torch
from jaxtyping import Float, Int
from torch import Tensor

from explainlib.checks import require_count, require_indices
from explainlib.datasets import Examples
from explainlib.influence.proximal import ProximalBregman, ProximalRetraining, Responses, responses
from explainlib.metrics import fidelity
from explainlib.risk import Risk
from explainlib.solvers import CG
from explainlib.solvers.inverse import Solver, inverse_curvature
from explainlib.training import Ensemble, Plateau, fit_risks, fresh_starts

RUNGS = (
    "influence, approximate solve",
    "influence, exact solve",
    "proximal response",
    "proximal retraining",
    "warm-start retraining",
    "cold-start retraining",
)
STEPS = ("solver", "linearisation", "non-convergence", "proximity", "warm start")


@dataclass(frozen=True)
class Ladder:
    """The loss changes on every rung.

    Attributes:
        changes: for each rung of ``RUNGS`` the change of every test loss when each example is removed, [t, g]: the loss
            without it minus the loss of the same procedure with nothing removed.
        drift: for each rung the mean change of the test losses when nothing is removed: what the procedure does by
            itself. Zero on the first three rungs, and everywhere at a minimum that training finds again.
        unsolved: for each rung how many of its problems did not come to rest.
        removed: [g].
    """

    changes: dict[str, Float[Tensor, "t g"]]
    drift: dict[str, float]
    unsolved: dict[str, int]
    removed: Int[Tensor, " g"]

    def shares(self) -> list[float]:
        """Return each step's share of the disagreement between first and last rung; they sum to 1.

        The disagreement is a table, and the sum of the steps' tables. A step's share is the length of its table along
        the whole one; negative where the step goes back towards the prediction. nan without any disagreement.
        """
        tables = [self.changes[rung] for rung in RUNGS]
        whole = tables[-1] - tables[0]
        size = float(whole.square().sum())
        return [
            float(((above - below) * whole).sum()) / size if size > 0 else float("nan")
            for below, above in zip(tables[:-1], tables[1:], strict=True)
        ]

    def frame(self) -> pandas.DataFrame:
        """Return a row for each rung.

        Columns: ``rung``; ``step``, what lies between it and the next; ``gap``, the root mean square of that difference
        in units of the loss; ``share`` of the whole disagreement; ``pearson_next`` and ``spearman_next`` with the next
        rung; ``pearson_truth`` and ``spearman_truth`` with cold-start retraining; ``size``, the root mean square of the
        rung's own changes; ``drift``; ``unsolved``. The last rung has no next one.
        """
        rows, truth = [], self.changes[RUNGS[-1]]
        for k, rung in enumerate(RUNGS):
            here, last = self.changes[rung], k == len(STEPS)
            above = None if last else self.changes[RUNGS[k + 1]]
            rows.append(
                {
                    "rung": rung,
                    "step": None if last else STEPS[k],
                    "gap": None if last else float((above - here).square().mean().sqrt()),
                    "share": None if last else self.shares()[k],
                    **({} if last else _agreement(here, above, "next")),
                    **_agreement(here, truth, "truth"),
                    "size": float(here.square().mean().sqrt()),
                    "drift": self.drift[rung],
                    "unsolved": self.unsolved[rung],
                }
            )
        return pandas.DataFrame(rows)


def _agreement(predicted: Tensor, true: Tensor, name: str) -> dict[str, float]:
    agreement = fidelity(predicted, true, resamples=1)
    return {f"pearson_{name}": float(agreement.pearson), f"spearman_{name}": float(agreement.spearman)}


def ladder(
    risk: Risk,
    test: Examples,
    removed: Sequence[int] | Int[Tensor, " g"],
    *,
    damping: float,
    epochs: int,
    cold_epochs: int | None = None,
    solver: Solver = CG(max_steps=5),  # noqa: B008 - frozen
    lr: float = 1e-3,
    schedule: Plateau | None = None,
    seed: int = 0,
) -> Ladder:
    """Return the changes of the test losses on every rung, each training example removed alone, weighting "plain".

    Args:
        risk: at theta_s, the trained parameters that are to be explained, minimised or not; in float64.
        test: t examples.
        removed: g distinct training examples.
        damping: of the curvature, and of the proximity; with the ridge above zero.
        epochs: full-batch Adam steps of the warm start.
        cold_epochs: those of the cold start; as many as theta_s and the warm start took together is fair. None takes
            ``epochs``.
        solver: the approximate one.
        lr: learning rate of both retrainings.
        schedule: None, or a ``Plateau`` for both.
        seed: of the cold start's first parameters; that of theta_s makes its path comparable.

    Raises:
        TypeError, ValueError: bad options, an index outside the training set, neither damping nor ridge.
    """
    require_count("epochs", epochs)
    chosen = require_indices(removed, risk.n, name="removed")
    if risk.l2 + damping <= 0:
        raise ValueError(f"damping={damping} without a ridge holds nothing near theta_s; pass a damping above zero.")
    test = risk.require_examples(test, "test")
    weights = risk.weights_or_ones().repeat(len(chosen) + 1, 1)  # row 0: nothing removed
    weights[torch.arange(1, len(chosen) + 1), chosen] = 0
    options = {"weights": weights, "lr": lr, "schedule": schedule}
    starts = risk.theta[None], fresh_starts(risk, [seed])
    rows: list[Responses | Ensemble] = [
        responses(ProximalBregman(risk, weights, damping)),
        responses(ProximalRetraining(risk, weights, damping)),
        fit_risks(risk, starts=starts[0].repeat(len(weights), 1), epochs=epochs, **options),
        fit_risks(risk, starts=starts[1].repeat(len(weights), 1), epochs=cold_epochs or epochs, **options),
    ]
    ways = (solver, "dense" if risk.p <= 4000 else CG())
    linear = [_linear(risk, test, chosen, way, damping) for way in ways]
    now = risk.losses(test)[:, None]
    losses = [torch.stack([risk.at(theta).losses(test) for theta in row.theta], 1) for row in rows]
    tables = [*(change for change, _ in linear), *(table[:, 1:] - table[:, :1] for table in losses)]
    drifts = [0.0, 0.0, *(float((table[:, :1] - now).mean()) for table in losses)]
    unsolved = [*(bad for _, bad in linear), *(sum(status != "converged" for status in row.status) for row in rows)]
    return Ladder(*(dict(zip(RUNGS, each, strict=True)) for each in (tables, drifts, unsolved)), chosen)


def _linear(
    risk: Risk, test: Examples, chosen: Tensor, solver: Solver | str, damping: float
) -> tuple[Float[Tensor, "t g"], int]:
    """Return the linear prediction of each removal, 1/n g_t^T (G + damping I)^-1 g_j, and how many fell short."""
    inverse = inverse_curvature(risk, curvature="gauss_newton", solver=solver, damping=damping)
    solution = inverse(risk.loss_gradients(risk.train[chosen]))
    own = risk.weights_or_ones()[chosen]
    change = risk.loss_gradients(test) @ (solution.value * own[:, None]).T / risk.n
    return change, 0 if solution.converged else len(chosen)
