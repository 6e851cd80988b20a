"""Whole ensembles of networks, trained at once: left-out sets x seeds, full batch, each as if it were alone.

Network j minimises  R_j(theta) = 1/n sum_i w_ji l_i(theta) + l2/2 |theta|^2,  ``Risk.reweighted``'s very objective,
from its own start. Nothing is shared but the examples, so every network ends where a loop would have brought it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm import tqdm

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
from explainlib.risk import Risk, minimum_tolerance
from explainlib.storage import Store, Tensors
from explainlib.training.fingerprints import risk_fingerprint
from explainlib.training.stacked import Stacked, stack_networks, values_per_network
from explainlib.training.steps import Plateau, stepper

CACHED = 2**17  # numbers that the networks of one batch keep at once, small enough to stay in a processor's cache


@dataclass(frozen=True)
class Ensemble:
    """What training left of m networks.

    Attributes:
        risk: the unweighted objective.
        weights: [m, n].
        theta: [m, p], the parameters at the end.
        losses: [m], each network's own objective at the end, weights and ridge included.
        gradient_norm: [m], the norm of that objective's gradient at the end.
        status: for each network "converged" (the gradient's norm is that of a minimum, ``minimum_tolerance``),
            "nonfinite", or how far it came: "200 epochs done, |gradient| 1.3e-03".
    """

    risk: Risk
    weights: Float[Tensor, "m n"]
    theta: Float[Tensor, "m p"]
    losses: Float[Tensor, " m"]
    gradient_norm: Float[Tensor, " m"]
    status: tuple[str, ...]

    def __len__(self) -> int:
        """How many networks."""
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
    """Return m networks of ``model``'s shape, trained full-batch in one batched call; ``model`` stays as it is.

    Args:
        model: any module that a ``Risk`` takes; it gives the shape, and everything that is not a parameter.
        train: the n examples.
        epochs: steps, >= 1; each sees all examples.
        starts: [m, p], where each network starts. Either this or ``seeds``.
        seeds: m numbers; each network starts from ``fresh_starts`` of its own.
        weights: [m, n], a weight per network and example, 1 = as is, 0 = removed while n in 1/n stays; None is all 1.
        lr: learning rate of all networks.
        optimizer: "adam" (as ``torch.optim.Adam``) or "sgd" (no momentum).
        l2: ridge of the objective, added to the gradient, not decoupled.
        loss: as in ``Risk``.
        schedule: None, or a ``Plateau`` that lowers each network's own rate.
        store: a folder that fills batch by batch, and from which an interrupted call, made again, goes on.

    Raises:
        TypeError, ValueError: bad options or data, or a folder of another computation; before training starts.

    Cost: a plain perceptron is hand-batched (``training/stacked``); any other model goes through vmap.
    """
    risk = Risk(model, train, loss=loss, l2=l2)
    if (starts is None) == (seeds is None):
        raise ValueError(f"{'neither' if seeds is None else 'both'} of starts and seeds given; pass exactly one.")
    if starts is None:
        starts = fresh_starts(risk, seeds)
    return fit_risks(
        risk, starts=starts, weights=weights, epochs=epochs, lr=lr, optimizer=optimizer, schedule=schedule, store=store
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
    """Return m reweighted copies of a risk, trained from their starts; what the risk does not choose stays frozen.

    Args:
        risk: the objective; with weights given, these replace its own (they do not multiply them).
        starts: [m, p], in the order of ``risk.theta``.
        epochs: full-batch steps, >= 1.
        weights: [m, n]; None is the risk's own for every network.
        lr: learning rate.
        optimizer: "adam" or "sgd".
        schedule: None, or a ``Plateau``.
        store: a folder to fill and to resume from.

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
    size = max(1, CACHED // values_per_network(risk))
    kept = None
    if store is not None:
        options = {"work": "ensemble", "epochs": epochs, "lr": lr, "optimizer": optimizer, "batch": size}
        sources = {"starts": starts, "weights": weights, "schedule": schedule}
        kept = Store(store, risk_fingerprint(risk, starts[0], sources, {**options, "schedule": str(schedule)}))
    parts: list[Tensors] = []
    with (
        compute.settings(risk.n * risk.p),
        tqdm(total=len(starts) * epochs, desc="networks x epochs", delay=2.0, leave=False, unit_scale=True) as bar,
    ):
        for k, rows in enumerate(torch.arange(len(starts), device=starts.device).split(size)):
            start, problems = starts[rows], weights[rows]

            def train(start: Tensor = start, problems: Tensor = problems) -> Tensors:
                return train_networks(stack_networks(risk, problems), start, epochs, lr, optimizer, schedule, bar)

            parts.append(train() if kept is None else kept.cached(f"batch-{k:05d}", train, starts.device))
            bar.update(min((k + 1) * size, len(starts)) * epochs - bar.n)  # a batch from the store counts at once
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
        networks: what gives their gradients and values.
        start: [m, p].
        epochs: full-batch steps.
        lr: learning rate.
        optimizer: "adam" or "sgd".
        schedule: None, or a ``Plateau``.
        bar: moves on with networks x epochs.
    """
    packed = networks.pack(start)
    step = stepper(optimizer, packed)
    rates: float | Tensor = lr
    watch = None if schedule is None else schedule.watch(start.new_full((len(start),), lr))
    shown = max(1, epochs // 100)
    for epoch in range(1, epochs + 1):
        gradient = networks.gradients(packed)
        if watch is not None and epoch > 1 and watch.update(networks.values(packed)):
            rates = networks.pack(watch.rates[:, None].expand_as(start))
        step(gradient, rates)
        if epoch % shown == 0:
            bar.update(shown * len(start))
    gradient_norm = networks.unpack(networks.gradients(packed)).norm(dim=1)
    return {"theta": networks.unpack(packed), "losses": networks.values(packed), "gradient_norm": gradient_norm}


def statuses(theta: Tensor, norms: Tensor, epochs: int, tolerance: float) -> tuple[str, ...]:
    """Return for each network "converged", "nonfinite", or how far it came.

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


def fresh_starts(risk: Risk, seeds: Sequence[int]) -> Float[Tensor, "s p"]:
    """Return new first parameters for each seed, as PyTorch's layers draw them; no generator of the caller's moves.

    In a copy of the model every module draws anew by its own ``reset_parameters``, in the model's order, in float32 on
    the CPU: one seed names one network at every precision, the one that ``xl.models`` builds from that seed.

    Args:
        risk: its model gives the shape, its choice of parameters what is taken.
        seeds: s whole numbers of at least 0.

    Raises:
        ValueError: no seeds, a negative one, one that stands twice, or a chosen parameter whose module cannot draw.
    """
    if isinstance(seeds, int) or not len(seeds):
        raise ValueError(f"seeds={seeds!r} has to be a list of at least one seed; pass [0] for one network.")
    for k, seed in enumerate(seeds):
        require_count(f"seeds[{k}]", seed, least=0)
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds={list(seeds)} repeats a seed, so two networks would be the same; name each once.")
    module = copy.deepcopy(risk.parameters.module).to(device="cpu", dtype=torch.float32)
    drawing = [part for part in module.modules() if callable(getattr(part, "reset_parameters", None))]
    drawn = {id(parameter) for part in drawing for parameter in part.parameters(recurse=False)}
    stuck = [name for name in risk.parameters.names if id(module.get_parameter(name)) not in drawn]
    if stuck:
        raise ValueError(
            f"parameter {stuck[0]!r} belongs to a module without reset_parameters, so it cannot start afresh; "
            "give the module that method, or pass starts."
        )
    rows = []
    for seed in seeds:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed the caller's GPUs too
            for part in drawing:
                part.reset_parameters()
        rows.append(torch.cat([module.get_parameter(name).detach().flatten() for name in risk.parameters.names]))
    return torch.stack(rows).to(risk.theta)
