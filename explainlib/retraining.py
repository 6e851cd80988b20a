"""Ground truth of removals by retraining: the oracle of tests, studies and panels.

Three ways to retrain. "newton" solves what remains to a stationary point, from where the model is now. "finetune"
trains on from there, and "scratch" starts afresh: both for a number of epochs, all groups and seeds in one ensemble.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from explainlib import compute
from explainlib.checks import require_choice, require_groups, warn_caller
from explainlib.datasets import Examples
from explainlib.influence.groups import Removal, removal_weights
from explainlib.memory import alternatives
from explainlib.risk import Risk, require_minimum
from explainlib.training import Ensemble, Plateau, fit_risks, fresh_starts
from explainlib.training.minimise import minimise_for

METHODS = ("newton", "finetune", "scratch")


class RetrainingError(RuntimeError):
    """Networks that overflowed in retraining; ``ensemble`` holds the last parameters."""

    def __init__(self, message: str, ensemble: Ensemble) -> None:
        super().__init__(message)
        self.ensemble = ensemble


class RetrainingWarning(UserWarning):
    """Networks that overflowed, returned on request."""


@dataclass(frozen=True)
class Retrained(Removal):
    """Parameters after each of g groups was removed, found by retraining; ``change`` is from ``risk.theta``.

    After "scratch", ``risk`` is the full problem at the network that the same seed gives on all data, so that before
    and after differ by the group alone. With several seeds, ``losses`` and ``loss_change`` are means over the seeds;
    one parameter vector cannot be, so ``risk``, ``theta``, ``change``, ``outputs`` and ``model`` are the first seed's.
    ``by_seed[k]`` holds everything of seed k.

    Attributes:
        gradient_norm: [g], of the problem that remains; with several seeds the largest.
        seeds: the seeds of a "scratch" retraining, else empty.
        by_seed: one ``Retrained`` for each seed, where there are several.
    """

    gradient_norm: Float[Tensor, " g"] | None = None
    seeds: tuple[int, ...] = ()
    by_seed: tuple[Retrained, ...] = field(default=(), repr=False)

    @compute.entry
    def losses(self, test: Examples) -> Float[Tensor, "t g"]:
        """Return the test losses at the new parameters, their mean over the seeds."""
        if not self.by_seed:
            return super().losses(test)
        return torch.stack([one.losses(test) for one in self.by_seed]).mean(0)

    @compute.entry
    def loss_change(self, test: Examples, *, evaluate: bool = True) -> Float[Tensor, "t g"]:
        """Return each test loss after removal minus the loss before, [t, g], its mean over the seeds.

        Args:
            test: t examples the risk can judge.
            evaluate: as in ``Removal.loss_change``.

        Returns:
            Positive: the loss rises when the group leaves, so the group was helpful.
        """
        if not self.by_seed:
            return super().loss_change(test, evaluate=evaluate)
        return self.loss_change_by_seed(test, evaluate=evaluate).mean(0)

    @compute.entry
    def measure_change(self, test: Examples, **options: object) -> Float[Tensor, "t g"]:
        """Return each test's measure after removal minus the measure before, [t, g], its mean over the seeds.

        Args:
            test: t examples the risk can judge.
            options: ``measure``, ``output`` and ``evaluate``, as in ``Removal.measure_change``.
        """
        if not self.by_seed:
            return super().measure_change(test, **options)
        return torch.stack([one.measure_change(test, **options) for one in self.by_seed]).mean(0)

    @compute.entry
    def loss_change_by_seed(self, test: Examples, *, evaluate: bool = True) -> Float[Tensor, "s t g"]:
        """Return ``loss_change`` seed by seed, [s, t, g]; s = 1 where there is one seed or none."""
        return torch.stack([one.loss_change(test, evaluate=evaluate) for one in self.by_seed or (self,)])


@alternatives("leave out fewer groups at a time, or make the Risk with parameters='last'")
@compute.entry
def leave_out(
    risk: Risk,
    groups: Sequence[Sequence[int] | Int[Tensor, " _"]],
    *,
    method: str = "newton",
    weighting: str = "preserve",
    tolerance: float = 1e-10,
    strict: bool = False,
    on_failure: str = "raise",
    epochs: int | None = None,
    lr: float | None = None,
    optimizer: str | None = None,
    schedule: Plateau | None = None,
    seeds: Sequence[int] | None = None,
    store: str | Path | None = None,
) -> Retrained:
    """Return the retrained parameters without each group: g problems (times the seeds) in one batched call.

    Args:
        risk: for "newton" and "finetune" at a minimum, from where each problem starts; otherwise a warning, or with
            ``strict`` an error. "scratch" takes only its objective.
        groups: g lists of distinct training examples, none empty, none all of them.
        method: "newton" iterates truncated Newton with line search from ``risk.theta`` to ``tolerance``. "finetune"
            trains on from ``risk.theta``; the change is from ``risk.theta``, so on a risk that is not at a minimum it
            also holds what more training does without any removal. "scratch" trains from fresh parameters
            (``training.fresh_starts``) for every seed, without each group and once with nothing removed; the change is
            between the two of one seed.
        weighting: "preserve": the mean over the examples that remain, same ridge; "plain": every other weight stays
            1/n. Predictions and truth have to use the same one: otherwise every test point's change is shifted by about
            l2 H^-1 theta/(n-1), the same for every removal. A risk's own weights are multiplied, not replaced.
        tolerance: of "newton", on the gradient's norm; in float32 never below 1e-5.
        strict: raise where the risk is not at a minimum.
        on_failure: "raise" or "warn" when "newton" does not converge; its status stays in the result. Networks that
            overflow raise, or with "warn" stay as a status (without what is before there is no change to give, so a
            network on all data always raises); epochs that end too early for a minimum are a status only.
        epochs: full-batch steps, of "finetune" and "scratch" only, which need it.
        lr: their learning rate, 1e-3 if not given.
        optimizer: theirs, "adam" if not given, or "sgd".
        schedule: None, or a ``training.Plateau``.
        seeds: of "scratch" only, (0,) if not given.
        store: a folder for the results of each batch; an interrupted call resumes from it and ends with the
            same numbers.

    Returns:
        Retrained, with a status per group: "converged", or why not.

    Raises:
        MinimiseError: "newton" did not converge.
        RetrainingError: a network overflowed.
        ValueError: a bad group or option, an option of another method, or a folder of another computation.
    """
    require_choice("method", method, METHODS)
    require_choice("on_failure", on_failure, ("raise", "warn"))
    asked = {"epochs": epochs, "lr": lr, "optimizer": optimizer, "schedule": schedule, "seeds": seeds}
    _require_own_options(method, [name for name, value in asked.items() if value is not None])
    checked = require_groups(groups, risk.n)
    weights = removal_weights(risk, checked, weighting)
    if method != "scratch":
        require_minimum(risk, strict=strict, user="a change from retraining")
    if method == "newton":
        options = {"on_failure": on_failure, "store": store, "offers": ("tolerance",)}
        minima = minimise_for(risk, weights=weights, tolerance=tolerance, **options)
        return Retrained(
            risk, checked, minima.theta, weighting, minima.status, "retrained", gradient_norm=minima.gradient_norm
        )
    chosen = () if method == "finetune" else (0,) if seeds is None else seeds
    starts = risk.theta[None] if method == "finetune" else fresh_starts(risk, chosen)
    problems = weights if method == "finetune" else torch.cat([risk.weights_or_ones()[None], weights])
    trained = fit_risks(
        risk,
        starts=starts.repeat_interleave(len(problems), 0),
        weights=problems.repeat(len(starts), 1),
        epochs=epochs,
        lr=1e-3 if lr is None else lr,
        optimizer=optimizer or "adam",
        schedule=schedule,
        store=store,
    )
    _report(trained, on_failure)
    runs = [
        _retrain_seed(
            trained, slice(first, first + len(problems)), checked, weighting, method, tuple(chosen[k : k + 1])
        )
        for k, first in enumerate(range(0, len(trained), len(problems)))
    ]
    return runs[0] if len(runs) == 1 else _concatenate(runs)


def _require_own_options(method: str, given: Sequence[str]) -> None:
    own = {"newton": (), "finetune": ("epochs", "lr", "optimizer", "schedule")}.get(method, None)
    foreign = [] if own is None else [name for name in given if name not in own]
    if foreign:
        why = "solves to its tolerance" if method == "newton" else "starts from the risk's own parameters"
        raise ValueError(f"method={method!r} {why} and takes no {foreign[0]}; drop it, or choose method='scratch'.")
    if method != "newton" and "epochs" not in given:
        raise ValueError(f"method={method!r} needs epochs, the number of steps to train for; pass epochs=1000, say.")


def _report(trained: Ensemble, on_failure: str) -> None:
    """Raise or warn where networks overflowed."""
    lost = [j for j, status in enumerate(trained.status) if status == "nonfinite"]
    if not lost:
        return
    message = (
        f"{len(lost)} of {len(trained)} networks overflowed while they were retrained; lower lr or scale the data."
    )
    whole = (trained.weights == trained.risk.weights_or_ones()).all(1)
    if on_failure == "raise" or any(whole[j] for j in lost):
        raise RetrainingError(message, trained)
    warn_caller(message, RetrainingWarning)


def _retrain_seed(
    trained: Ensemble, rows: slice, groups: list[Tensor], weighting: str, method: str, seed: tuple[int, ...]
) -> Retrained:
    """Return the networks of one seed; after "scratch" the first of them is the one before."""
    theta, norms, status = trained.theta[rows], trained.gradient_norm[rows], trained.status[rows]
    before = trained.risk
    if method == "scratch":
        before, theta, norms, status = before.at(theta[0]), theta[1:], norms[1:], status[1:]
    return Retrained(before, groups, theta, weighting, status, "retrained", gradient_norm=norms, seeds=seed)


def _concatenate(runs: list[Retrained]) -> Retrained:
    """Return the first seed's networks with all seeds attached; each group's status is the first that failed."""
    status = []
    for each in zip(*(run.status for run in runs), strict=True):
        bad = [f"seed {run.seeds[0]}: {word}" for run, word in zip(runs, each, strict=True) if word != "converged"]
        status.append(bad[0] if bad else "converged")
    return replace(
        runs[0],
        status=tuple(status),
        gradient_norm=torch.stack([run.gradient_norm for run in runs]).amax(0),
        seeds=tuple(run.seeds[0] for run in runs),
        by_seed=tuple(runs),
    )
