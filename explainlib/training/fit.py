"""Training of one network, with the records that explanations need: checkpoints, learning rates, batches."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, update_bn

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
from explainlib.modules import private_copy, require_module
from explainlib.params import require_outputs
from explainlib.progress import tqdm
from explainlib.training.trajectory import Trajectory

STEPPERS = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}


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
    """Return the trajectory of training a copy of ``model``; the caller's model is not changed.

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
        swa: None, or the first epoch (from 0) that enters a stochastic weight average, which is then the trained
            model.
        seed: of the batch order.
        checkpoints: how many flat parameter vectors to keep, evenly spaced, the first and the last included; 0 or >= 2.
        record: accumulate the tracking importances (``Trajectory.importance``); only with optimizer="sgd" and without
            swa, because only there a step changes the parameters by that sum.
        without: distinct examples left out of every batch, whose mean is then over the rest. The batches are those of
            the whole training set, so that two runs of one seed differ by these examples and by nothing else; a batch
            that loses all its examples makes no step.

    Raises:
        ValueError, TypeError: bad options or data, before training starts; a loss that becomes NaN.

    Source: Izmailov et al. 2018 for the average; Epifano et al. 2023 use it before taking influence.
    """
    if not isinstance(train, Examples):
        raise TypeError(f"train is a {type(train).__name__}; pass xl.datasets.Examples(x, y).")
    train = train.outside_inference_mode()
    require_options(epochs, batch_size, lr, weight_decay, swa, checkpoints, len(train))
    included = _included_rows(without, len(train))
    criterion = require_loss(loss)
    trained = trainable_copy(model, train, criterion)
    _require_statistics(trained, train, batch_size, _batch_sizes(len(train), batch_size, included, epochs, seed))
    importance = _initial_importance(trained, train, optimizer, swa) if record else None
    require_choice("optimizer", optimizer, tuple(STEPPERS))
    stepper = STEPPERS[optimizer](trained.parameters(), lr=lr, weight_decay=weight_decay)
    averaged = AveragedModel(trained) if swa is not None else None
    generator = torch.Generator().manual_seed(seed)
    checkpoint_steps = _checkpoint_steps(epochs * -(-len(train) // (batch_size or len(train))), checkpoints)
    flats, states, batches, losses, step = [], [], [], [], 0
    if 0 in checkpoint_steps:
        _save_checkpoint(trained, flats, states)
    with _epochs(epochs, seed) as progress:
        for epoch in progress:
            summed = torch.zeros((), dtype=torch.float64, device=train.x.device)
            for indices in epoch_batches(len(train), batch_size, generator):
                batch = indices[included[indices]].to(train.x.device)
                if len(batch):
                    summed += _one_step(trained, stepper, criterion, train, batch, importance)
                    batches.append(batch)
                step += 1
                if step in checkpoint_steps:
                    _save_checkpoint(trained, flats, states)
            total = float(summed)
            losses.append(total / int(included.sum()))
            if not math.isfinite(total):
                raise ValueError(f"the loss became {total} in epoch {epoch}; lower lr={lr:g} or look for overflow.")
            if averaged is not None and epoch >= swa:
                averaged.update_parameters(trained)
        trained = trained if averaged is None else _update_average(averaged, train.x[included], batch_size)
    flat = torch.stack(flats) if flats else _flat(trained).new_empty(0, _flat(trained).numel())
    records = flat, flat.new_full((len(flat),), lr), tuple(batches), tuple(losses)
    return Trajectory(
        trained.eval(), *records, None if importance is None else lr * importance, tuple(states) if any(states) else ()
    )  # fmt: skip


def _update_average(averaged: AveragedModel, x: Tensor, batch_size: int | None) -> nn.Module:
    """Return the averaged network with BatchNorm statistics of its own."""
    update_bn((part.clone() for part in x.split(batch_size or len(x))), averaged)
    return averaged.module


@contextmanager
def _epochs(epochs: int, seed: int) -> Iterator[Iterable[int]]:
    """Yield epochs with a progress bar, under a seeded generator (for dropout) that is restored afterwards."""
    with tqdm(range(epochs), desc="fit", delay=2.0, leave=False) as progress, torch.random.fork_rng():
        torch.manual_seed(seed)
        yield progress


def _save_checkpoint(model: nn.Module, flats: list[Tensor], states: list[dict[str, Tensor]]) -> None:
    flats.append(_flat(model))
    states.append({name: buffer.clone() for name, buffer in model.named_buffers()})


def _included_rows(without: Sequence[int] | Tensor, n: int) -> Bool[Tensor, " n"]:
    """Return the mask [n] of the examples that are trained on."""
    included = torch.ones(n, dtype=torch.bool)
    if len(without):
        included[require_indices(without, n).cpu()] = False
    if not included.any():
        raise ValueError(f"without names all {n} training examples; leave at least one to train on.")
    return included


def trainable_copy(model: nn.Module, train: Examples, criterion: Loss) -> nn.Module:
    """Return a copy in training mode, after checking that model, data and loss fit together.

    Args:
        model: to copy.
        train: examples.
        criterion: the loss.

    Raises:
        ValueError, TypeError: no parameters, or another dtype, device, shape or label.
    """
    first = next(iter(require_module(model).parameters()), None)
    if first is None:
        raise ValueError("model has no parameters, so there is nothing to train; pass one with layers.")
    require_same_kind("train.x", train.x, "model", first)
    outputs = require_outputs(private_copy(model).eval(), train.x[:1].clone())
    require_targets(criterion, "train.y", train.y, outputs.shape[1])
    return private_copy(model).train()


def _batch_sizes(n: int, size: int | None, included: Tensor, epochs: int, seed: int) -> set[int]:
    """Return the sizes of all batches."""
    if bool(included.all()):
        return {n} if size is None else {size, n % size or size}
    generator = torch.Generator().manual_seed(seed)
    return {int(included[indices].sum()) for _ in range(epochs) for indices in epoch_batches(n, size, generator)}


def _require_statistics(model: nn.Module, train: Examples, batch_size: int | None, sizes: set[int]) -> None:
    """Raise if a batch of one example would reach a BatchNorm layer, which needs more."""
    names = [name for name, layer in model.named_modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    if not names or 1 not in sizes:
        return
    try:
        with torch.random.fork_rng(), torch.no_grad():
            private_copy(model)(train.x[:1].clone())
    except ValueError as error:
        raise ValueError(
            f"a batch of one example has no statistics for BatchNorm layer {names[0]!r} (n={len(train)}, "
            f"batch_size={batch_size}); choose a batch_size that leaves no single example over."
        ) from error


def require_options(
    epochs: int, batch_size: int | None, lr: float, weight_decay: float, swa: int | None, checkpoints: int, n: int
) -> None:
    """Return nothing, once the options are those of a training of n examples.

    Args:
        epochs: at least 1.
        batch_size: at most n, or None.
        lr: above 0.
        weight_decay: at least 0.
        swa: an epoch before the last, or None.
        checkpoints: 0 or at least 2.
        n: examples.

    Raises:
        ValueError: another value.
    """
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
    importance: Float[Tensor, "n C"] | None,
) -> Float[Tensor, ""]:
    """Make a step and return the sum of the batch's losses before it; nothing here waits for the device."""
    stepper.zero_grad()
    outputs = model(train.x[batch])
    if importance is not None:
        outputs.retain_grad()
    losses = criterion.value(outputs, train.y[batch])
    losses.mean().backward()
    stepper.step()
    if importance is not None:  # Tsai et al. 2023, eq. (10); the rate, the same in all steps, is applied at the end
        importance.index_add_(0, batch, outputs.grad, alpha=-1)  # dl/df / batch size
    return losses.detach().sum().double()


def _initial_importance(model: nn.Module, train: Examples, optimizer: str, swa: int | None) -> Float[Tensor, "n C"]:
    """Return zeros [n, C] if the steps can be tracked."""
    if optimizer != "sgd" or swa is not None:
        raise ValueError(
            f"record=True needs plain gradient descent, got optimizer={optimizer!r}, swa={swa}; pass optimizer='sgd' "
            "and no swa: with any other step the tracked importances would not add up to the model."
        )
    with torch.no_grad():
        return torch.zeros_like(private_copy(model).eval()(train.x[:1].clone())).repeat(len(train), 1)


def epoch_batches(n: int, size: int | None, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Return the indices of each batch of one epoch.

    Args:
        n: examples.
        size: of a batch; None takes all, in their order.
        generator: of the order.
    """
    return (torch.arange(n),) if size is None else torch.randperm(n, generator=generator).split(size)


def _checkpoint_steps(steps: int, checkpoints: int) -> set[int]:
    return {round(k * steps / (checkpoints - 1)) for k in range(checkpoints)} if checkpoints else set()


def _flat(model: nn.Module) -> Float[Tensor, " p"]:
    return torch.cat([parameter.detach().reshape(-1) for parameter in model.parameters()]).clone()
