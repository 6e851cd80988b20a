"""Ensembles of networks, trained full-batch in one batched call (groups x seeds), independent of each other.

Network j minimises  R_j(theta) = 1/n sum_i w_ji l_i(theta) + l2/2 |theta|^2,  the objective of
``Risk.reweighted``, from its own start. Only the examples are shared, so the result is that of a loop over networks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from explainlib import compute
from explainlib.checks import (
    require_choice,
    require_count,
    require_finite,
    require_positive,
    require_same_kind,
    require_shape,
    require_tensor,
)
from explainlib.datasets import Examples
from explainlib.losses import Loss, LossFunction
from explainlib.progress import tqdm
from explainlib.risk import Risk, minimum_tolerance, risk_fingerprint
from explainlib.storage import Store, Tensors
from explainlib.training.fused import fused_training
from explainlib.training.stacked import Stacked, stack_networks, values_per_network
from explainlib.training.starts import starts_or_fresh
from explainlib.training.steps import Plateau, stepper

CACHED = 2**17  # numbers in memory for one batch of networks, few enough for the processor's cache
ON_GPU = 2**27  # the same on a GPU, which wants many networks at once


@dataclass(frozen=True)
class Ensemble:
    """m trained networks.

    Attributes:
        risk: the unweighted objective.
        weights: [m, n].
        theta: [m, p], the parameters at the end.
        losses: [m], each network's objective at the end, weights and ridge included.
        gradient_norm: [m], the norm of that objective's gradient at the end.
        status: for each network "converged" (the gradient's norm is that of a minimum, ``minimum_tolerance``),
            "nonfinite", or "200 epochs done, |gradient| 1.3e-03".
    """

    risk: Risk
    weights: Float[Tensor, "m n"]
    theta: Float[Tensor, "m p"]
    losses: Float[Tensor, " m"]
    gradient_norm: Float[Tensor, " m"]
    status: tuple[str, ...]

    def __len__(self) -> int:
        """The number of networks."""
        return len(self.theta)

    def __getitem__(self, j: int) -> Risk:
        """Return network j's objective at its trained parameters."""
        return self.risk.reweighted(self.weights[j]).at(self.theta[j])


def fit_ensemble(
    model: nn.Module,
    train: Examples,
    *,
    epochs: int,
    starts: Float[Tensor, "m p"] | None = None,
    seeds: Sequence[int] | None = None,
    weights: Float[Tensor, "m n"] | None = None,
    lr: float = 1e-3,
    optimizer: str = "adam",
    l2: float = 0.0,
    loss: str | LossFunction | Loss = "cross_entropy",
    schedule: Plateau | None = None,
    store: str | Path | None = None,
) -> Ensemble:
    """Return m networks of ``model``'s shape, trained full-batch in one batched call; ``model`` is not changed.

    Args:
        model: any module that a ``Risk`` takes; it gives the architecture and the buffers.
        train: the n examples.
        epochs: steps, >= 1; each sees all examples.
        starts: [m, p], initial parameters. Either this or ``seeds``.
        seeds: m numbers; each network starts from ``fresh_starts`` of its own.
        weights: [m, n], a weight per network and example, 1 = as is, 0 = removed while n in 1/n stays; None is all 1.
        lr: learning rate of all networks.
        optimizer: "adam" (as ``torch.optim.Adam``) or "sgd" (no momentum).
        l2: ridge of the objective, added to the gradient, not decoupled.
        loss: as in ``Risk``.
        schedule: None, or a ``Plateau`` that lowers each network's own rate.
        store: a folder for the results of each batch; an interrupted call resumes from it.

    Raises:
        TypeError, ValueError: bad options or data, or a folder of another computation; before training starts.

    Cost: a plain perceptron is hand-batched (``training/stacked``); any other model goes through vmap.
    """
    risk = Risk(model, train, loss=loss, l2=l2)
    return fit_risks(
        risk,
        starts=starts_or_fresh(risk, starts, seeds),
        weights=weights,
        epochs=epochs,
        lr=lr,
        optimizer=optimizer,
        schedule=schedule,
        store=store,
    )


def fit_risks(
    risk: Risk,
    *,
    starts: Float[Tensor, "m p"],
    epochs: int,
    weights: Float[Tensor, "m n"] | None = None,
    lr: float = 1e-3,
    optimizer: str = "adam",
    schedule: Plateau | None = None,
    store: str | Path | None = None,
) -> Ensemble:
    """Return m reweighted copies of a risk, trained from their starts; parameters not chosen by the risk are frozen.

    Args:
        risk: the objective; with weights given, these replace its own (they do not multiply them).
        starts: [m, p], in the order of ``risk.theta``.
        epochs: full-batch steps, >= 1.
        weights: [m, n]; None is the risk's own for every network.
        lr: learning rate.
        optimizer: "adam" or "sgd".
        schedule: None, or a ``Plateau``.
        store: a folder for the results; an interrupted call resumes from it.

    Raises:
        TypeError, ValueError: bad options, starts or weights, or a folder of another computation.
    """
    numbers = CACHED if risk.theta.device.type == "cpu" else ON_GPU
    size = max(1, numbers // values_per_network(risk))
    how = {"epochs": epochs, "lr": lr, "optimizer": optimizer, "schedule": schedule}
    return fit_in_batches(stack_networks, risk, starts, weights, batch=size, store=store, **how)


def fit_in_batches(
    stack: Callable[[Risk, Tensor], Stacked],
    risk: Risk,
    starts: Float[Tensor, "m p"],
    weights: Float[Tensor, "m n"] | None,
    *,
    batch: int,
    epochs: int,
    lr: float,
    optimizer: str,
    schedule: Plateau | None,
    store: str | Path | None = None,
) -> Ensemble:
    """Return m networks trained from their starts, ``batch`` of them at once: the loop behind every ensemble.

    Args:
        stack: (risk, weights [b, n]) -> what gives the gradients and values of b networks at once.
        risk: the objective.
        starts: [m, p].
        weights: [m, n]; None is the risk's own for every network.
        batch: networks trained at once, >= 1.
        epochs: full-batch steps, >= 1.
        lr: learning rate.
        optimizer: "adam" or "sgd".
        schedule: None, or a ``Plateau``.
        store: a folder to fill batch by batch and to resume from.

    Raises:
        TypeError, ValueError: bad options, starts or weights, or a folder of another computation.
    """
    require_count("epochs", epochs)
    require_positive("lr", lr)
    require_choice("optimizer", optimizer, ("adam", "sgd"))
    require_shape("starts", require_tensor("starts", starts), [None, risk.p], meaning="(a row per network)")
    require_finite("starts", require_same_kind("starts", starts, "the risk", risk.theta))
    if not len(starts):
        raise ValueError("starts has no rows; pass at least one start.")
    weights = require_weights(risk, weights, len(starts))
    saved = None
    if store is not None:
        options = {"work": "ensemble", "epochs": epochs, "lr": lr, "optimizer": optimizer, "batch": batch}
        sources = {"starts": starts, "weights": weights, "schedule": schedule}
        saved = Store(store, risk_fingerprint(risk, starts[0], sources, {**options, "schedule": str(schedule)}))
    parts: list[Tensors] = []
    with (
        compute.settings(risk.n * risk.p),
        tqdm(total=len(starts) * epochs, desc="networks x epochs", delay=2.0, leave=False, unit_scale=True) as bar,
    ):
        for k, (start, rows) in enumerate(zip(starts.split(batch), weights.split(batch), strict=True)):

            def train(start: Tensor = start, rows: Tensor = rows) -> Tensors:
                return train_networks(stack(risk, rows), start, epochs, lr, optimizer, schedule, bar)

            parts.append(train() if saved is None else saved.cached(f"batch-{k:05d}", train, starts.device))
            bar.update(min((k + 1) * batch, len(starts)) * epochs - bar.n)  # a batch from the store counts whole
    theta, losses, norms = (torch.cat([part[key] for part in parts]) for key in ("theta", "losses", "gradient_norm"))
    return Ensemble(risk, weights, theta, losses, norms, statuses(theta, norms, epochs, minimum_tolerance(risk)))


def require_weights(risk: Risk, weights: Tensor | None, m: int) -> Float[Tensor, "m n"]:
    """Return weights for m networks, the risk's own where none are given.

    Args:
        risk: the objective.
        weights: [m, n], or None.
        m: networks.

    Raises:
        ValueError: another shape, NaN, or a row of zeros.
    """
    if weights is None:
        return risk.weights_or_ones().repeat(m, 1)
    require_shape("weights", require_tensor("weights", weights), [m, risk.n], meaning="(a row per start)")
    weights = require_finite("weights", weights.to(risk.theta))
    empty = (weights == 0).all(1)
    if empty.any():
        raise ValueError(f"weights row {int(empty.nonzero()[0])} is all zero; leave at least one example to train on.")
    return weights


def train_networks(
    networks: Stacked, start: Tensor, epochs: int, lr: float, optimizer: str, schedule: Plateau | None, bar: tqdm
) -> Tensors:
    """Return the parameters, objectives and gradient norms of one batch of networks after all epochs.

    Args:
        networks: gives gradients and values.
        start: [m, p].
        epochs: full-batch steps.
        lr: learning rate.
        optimizer: "adam" or "sgd".
        schedule: None, or a ``Plateau``.
        bar: progress in networks x epochs.
    """
    how = {"epochs": epochs, "lr": lr, "optimizer": optimizer, "schedule": schedule}
    theta = fused_training(networks, start, **how)
    packed = stepped(networks, start, **how, bar=bar) if theta is None else networks.pack(theta)
    gradient_norm = networks.unpack(networks.gradients(packed)).norm(dim=1)
    losses = networks.values(packed).detach()
    return {"theta": networks.unpack(packed), "losses": losses, "gradient_norm": gradient_norm}


def stepped(
    networks: Stacked,
    start: Tensor,
    *,
    epochs: int,
    lr: float,
    optimizer: str,
    schedule: Plateau | None,
    bar: tqdm,
) -> Tensor:
    """Return the packed parameters after all epochs, one batched step after the other.

    Args:
        networks: all of one shape, with their data and weights.
        start: first parameters, one row a network.
        epochs: full-batch steps.
        lr: first rate.
        optimizer: "adam" or "sgd".
        schedule: lowers the rate of a network whose loss rests; None keeps it.
        bar: of progress.
    """
    packed = networks.pack(start)
    step = stepper(optimizer, packed)
    rates: float | Tensor = lr
    plateau_state = None if schedule is None else schedule.watch(start.new_full((len(start),), lr))
    update_every = max(1, epochs // 100)
    for epoch in range(1, epochs + 1):
        gradient = networks.gradients(packed)
        if plateau_state is not None and epoch > 1 and plateau_state.update(networks.values(packed)):
            rates = networks.pack(plateau_state.rates[:, None].expand_as(start))
        step(gradient, rates)
        if epoch % update_every == 0:
            bar.update(update_every * len(start))
    return packed


def statuses(theta: Tensor, norms: Tensor, epochs: int, tolerance: float) -> tuple[str, ...]:
    """Return for each network "converged", "nonfinite", or the epochs done with the gradient norm.

    Args:
        theta: [m, p], the parameters at the end.
        norms: [m], of the gradients there.
        epochs: done.
        tolerance: on the norms.
    """

    def status(finite: bool, norm: float) -> str:
        if not (finite and math.isfinite(norm)):
            return "nonfinite"
        return "converged" if norm <= tolerance else f"{epochs} epochs done, |gradient| {norm:.1e}"

    finite = torch.isfinite(theta).all(1).tolist()
    return tuple(status(fine, norm) for fine, norm in zip(finite, norms.tolist(), strict=True))
