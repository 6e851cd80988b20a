"""Ordinary training that keeps what explanations need afterwards: checkpoints, learning rates, batches."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, update_bn
from tqdm import tqdm

from explainlib import compute
from explainlib.checks import (
    require_choice,
    require_count,
    require_indices,
    require_nonnegative,
    require_positive,
    require_same_kind,
)
from explainlib.datasets import Examples
from explainlib.losses import Loss, LossFunction, require_loss, require_targets
from explainlib.params import require_outputs

STEPPERS = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}


@dataclass(frozen=True)
class Trajectory:
    """What training left behind.

    Args:
        model: the trained model.
        checkpoints: [c, p], the flat parameters on the way, first and last included.
        learning_rates: [c], the rate in force at each checkpoint.
        batches: the training indices of every step, in order; empty for somebody else's checkpoints.
        losses: the mean training loss of each epoch, ridge excluded; empty for somebody else's checkpoints.
        importance: [n, C], the sum over steps of minus rate / batch size times dl/df of each example in the batch; None
            unless it was recorded.

    Raises:
        ValueError: checkpoints whose length is not the model's parameter count, or rates of another count.
    """

    model: nn.Module
    checkpoints: Float[Tensor, "c p"]
    learning_rates: Float[Tensor, " c"]
    batches: tuple[Tensor, ...] = field(default=(), repr=False)
    losses: tuple[float, ...] = field(default=(), repr=False)
    importance: Float[Tensor, "n C"] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Check the shapes."""
        p = sum(parameter.numel() for parameter in self.model.parameters())
        if self.checkpoints.ndim != 2 or self.checkpoints.shape[1] != p:
            raise ValueError(
                f"checkpoints have shape {list(self.checkpoints.shape)}, expected [c, {p}] for this model's parameters."
            )
        if self.learning_rates.shape != self.checkpoints.shape[:1]:
            raise ValueError(
                f"{len(self.checkpoints)} checkpoints but learning_rates of shape {list(self.learning_rates.shape)}; "
                "give one rate per checkpoint."
            )


@compute.entry
def fit(
    model: nn.Module,
    train: Examples,
    *,
    epochs: int,
    loss: str | LossFunction | Loss = "cross_entropy",
    batch_size: int | None = None,
    lr: float = 1e-3,
    optimizer: str = "adam",
    weight_decay: float = 0.0,
    swa: int | None = None,
    seed: int = 0,
    checkpoints: int = 0,
    record: bool = False,
    without: Sequence[int] | Int[Tensor, " _"] = (),
) -> Trajectory:
    """Return the trajectory of training a copy of ``model``; the caller's model stays as it is.

    Args:
        model: any module; its copy is trained in training mode and returned in evaluation mode.
        train: the examples, on the model's device and in its dtype.
        epochs: passes over the data, >= 1.
        loss: as in ``Risk``; the objective is its batch mean plus weight_decay/2 |theta|^2.
        batch_size: None takes all examples in every step.
        lr: learning rate.
        optimizer: "adam" or "sgd" (no momentum).
        weight_decay: the ``l2`` of the objective, added to the gradient, not decoupled; ``Risk(..., l2=weight_decay)``
            has the same objective.
        swa: None, or the first epoch (counted from 0) whose end enters a stochastic weight average, which is then the
            trained model.
        seed: of the batch order.
        checkpoints: how many flat parameter vectors to keep, evenly spaced, the first and the last included; 0 or >= 2.
        record: sum up what tracking representers need (``Trajectory.importance``); only with optimizer="sgd" and
            without swa, because only there a step moves the parameters by that sum.
        without: distinct examples left out of every batch, whose mean is then over the rest. The batches are those of
            the whole training set, so that two runs of one seed differ by these examples and by nothing else; a batch
            that loses all its examples makes no step.

    Raises:
        ValueError, TypeError: bad options or data, before training starts; a loss that turns NaN stops it.

    Source: Izmailov et al. 2018 for the average; Epifano et al. 2023 use it before taking influence.
    """
    if not isinstance(train, Examples):
        raise TypeError(f"train is a {type(train).__name__}; pass xl.datasets.Examples(x, y).")
    _require_options(epochs, batch_size, lr, weight_decay, swa, checkpoints, len(train))
    stays = _staying(without, len(train))
    criterion = require_loss(loss)
    trained = _trainable_copy(model, train, criterion)
    tracked = _nothing_yet(trained, train, optimizer, swa) if record else None
    require_choice("optimizer", optimizer, tuple(STEPPERS))
    stepper = STEPPERS[optimizer](trained.parameters(), lr=lr, weight_decay=weight_decay)
    averaged = AveragedModel(trained) if swa is not None else None
    generator = torch.Generator().manual_seed(seed)
    steps_per_epoch = -(-len(train) // (batch_size or len(train)))
    keep_at = _kept_steps(epochs * steps_per_epoch, checkpoints)
    kept, batches, losses, step = [], [], [], 0
    if 0 in keep_at:
        kept.append(_flat(trained))
    with tqdm(total=epochs, desc="fit", delay=2.0, leave=False) as bar, torch.random.fork_rng():
        torch.manual_seed(seed)  # dropout, if any
        for epoch in range(epochs):
            total = 0.0
            for drawn in _batches(len(train), batch_size, generator):
                batch = drawn[stays[drawn]]
                if len(batch):
                    total += _one_step(trained, stepper, criterion, train, batch, tracked)
                    batches.append(batch)
                step += 1
                if step in keep_at:
                    kept.append(_flat(trained))
            losses.append(total / int(stays.sum()))
            if not math.isfinite(total):
                raise ValueError(f"the loss became {total} in epoch {epoch}; lower lr={lr:g} or look for overflow.")
            if averaged is not None and epoch >= swa:
                averaged.update_parameters(trained)
            bar.update()
        if averaged is not None:
            update_bn(train.x[stays].split(batch_size or len(train)), averaged)
            trained = averaged.module
    flat = torch.stack(kept) if kept else _flat(trained).new_empty(0, _flat(trained).numel())
    importance = None if tracked is None else lr * tracked
    return Trajectory(trained.eval(), flat, flat.new_full((len(flat),), lr), tuple(batches), tuple(losses), importance)


def _staying(without: Sequence[int] | Tensor, n: int) -> Bool[Tensor, " n"]:
    """Return which examples are trained on."""
    stays = torch.ones(n, dtype=torch.bool)
    if len(without):
        stays[require_indices(without, n).cpu()] = False
    if not stays.any():
        raise ValueError(f"without names all {n} training examples; leave at least one to train on.")
    return stays


def _trainable_copy(model: nn.Module, train: Examples, criterion: Loss) -> nn.Module:
    """Return a copy in training mode, once model, data and loss are seen to fit together."""
    first = next(iter(model.parameters()), None)
    if first is None:
        raise ValueError("model has no parameters, so there is nothing to train; pass one with layers.")
    require_same_kind("train.x", train.x, "model", first)
    probe = require_outputs(copy.deepcopy(model).eval(), train.x[:1])
    require_targets(criterion, "train.y", train.y, probe.shape[1])
    return copy.deepcopy(model).train()


def _require_options(
    epochs: int, batch_size: int | None, lr: float, weight_decay: float, swa: int | None, checkpoints: int, n: int
) -> None:
    require_count("epochs", epochs)
    require_positive("lr", lr)
    require_nonnegative("weight_decay", weight_decay)
    if batch_size is not None and require_count("batch_size", batch_size) > n:
        raise ValueError(f"batch_size={batch_size} exceeds the {n} training examples; pass None for full batches.")
    if swa is not None and require_count("swa", swa, least=0) >= epochs:
        raise ValueError(f"swa={swa} never starts within {epochs} epochs; pass an epoch before the last.")
    if require_count("checkpoints", checkpoints, least=0) == 1:
        raise ValueError("checkpoints=1 cannot hold both the first and the last; pass 0 or at least 2.")
    steps = epochs * -(-n // (batch_size or n))
    if checkpoints > steps + 1:
        raise ValueError(
            f"checkpoints={checkpoints} of {steps} steps; ask for at most {steps + 1}, or train for longer."
        )


def _one_step(
    model: nn.Module,
    stepper: torch.optim.Optimizer,
    criterion: Loss,
    train: Examples,
    batch: Tensor,
    tracked: Float[Tensor, "n C"] | None,
) -> float:
    stepper.zero_grad()
    outputs = model(train.x[batch])
    if tracked is not None:
        outputs.retain_grad()
    losses = criterion.value(outputs, train.y[batch])
    losses.mean().backward()
    stepper.step()
    if tracked is not None:  # Tsai et al. 2023, eq. (10); the rate, one for all steps, comes at the end
        tracked.index_add_(0, batch, outputs.grad, alpha=-1)  # what the backward pass knows: dl/df / batch size
    return float(losses.detach().sum())


def _nothing_yet(model: nn.Module, train: Examples, optimizer: str, swa: int | None) -> Float[Tensor, "n C"]:
    """Return zeros, one row an example, if the steps to come can be tracked."""
    if optimizer != "sgd" or swa is not None:
        raise ValueError(
            f"record=True needs plain gradient descent, got optimizer={optimizer!r}, swa={swa}; pass optimizer='sgd' "
            "and no swa: with any other step the tracked importances would not add up to the model."
        )
    with torch.no_grad():
        return torch.zeros_like(copy.deepcopy(model).eval()(train.x[:1])).repeat(len(train), 1)


def _batches(n: int, size: int | None, generator: torch.Generator) -> tuple[Tensor, ...]:
    return (torch.arange(n),) if size is None else torch.randperm(n, generator=generator).split(size)


def _kept_steps(steps: int, checkpoints: int) -> set[int]:
    return {round(k * steps / (checkpoints - 1)) for k in range(checkpoints)} if checkpoints else set()


def _flat(model: nn.Module) -> Float[Tensor, " p"]:
    return torch.cat([parameter.detach().reshape(-1) for parameter in model.parameters()]).clone()
