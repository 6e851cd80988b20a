r"""Networks trained again without groups of examples, all groups in one batch, on the very mini-batches of one seed.

Network g makes the steps of ``fit(..., optimizer="sgd", seed=seed, without=groups[g])``. In step t, on the batch B_t,

    theta_g <- theta_g - lr (1/|B_t \ g| sum_{i in B_t \ g} grad l_i(theta_g) + weight_decay theta_g),

and none where nothing of B_t remains. All start from the same parameters and share the examples of a batch, so one
vmapped gradient serves all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import grad

from explainlib import compute
from explainlib.checks import require_finite, require_indices
from explainlib.datasets import Examples
from explainlib.derivatives import vmap
from explainlib.gate import admit
from explainlib.losses import Loss, LossFunction, require_loss
from explainlib.params import Parameters
from explainlib.progress import tqdm
from explainlib.training.fit import epoch_batches, require_options, trainable_copy

TOGETHER = 32  # networks in one batch


@compute.entry
def fit_without(
    model: nn.Module,
    train: Examples,
    groups: Sequence[Sequence[int] | Int[Tensor, " _"]],
    *,
    epochs: int,
    loss: str | LossFunction | Loss = "cross_entropy",
    batch_size: int | None = None,
    lr: float = 1e-3,
    weight_decay: float = 0.0,
    seed: int = 0,
) -> Float[Tensor, "g p"]:
    """Return the parameters of g networks, each trained by plain gradient descent without one group of examples.

    Args:
        model: the common start, not changed; it must answer in training mode as in evaluation mode.
        train: the n examples.
        groups: g lists of distinct examples; an empty one leaves out nothing.
        epochs: passes over the data, >= 1.
        loss: as in ``Risk``.
        batch_size: None takes all examples in every step.
        lr: learning rate.
        weight_decay: as in ``fit``.
        seed: of the batch order.

    Returns:
        [g, p], flattened in the order of ``model.parameters()``; equal to ``fit(..., optimizer="sgd", without=group)``
        to rounding.

    Raises:
        ValueError, TypeError: bad options or data, a group of all examples, a model with dropout or BatchNorm, or one
            that mixes examples; a network that overflowed.
    """
    require_options(epochs, batch_size, lr, weight_decay, None, 0, len(train))
    criterion, train = require_loss(loss), train.outside_inference_mode()
    parameters = Parameters(trainable_copy(model, train, criterion).eval(), "all", x=train.x)
    admit(parameters, train.x, name="train.x")
    _require_same_in_training(parameters, train.x[:2])
    kept = _kept(groups, len(train))
    trained = []
    with tqdm(total=len(kept) * epochs, desc="networks x epochs", delay=2.0, leave=False) as bar:
        for rows in kept.split(TOGETHER):
            how = {"epochs": epochs, "batch_size": batch_size, "lr": lr, "weight_decay": weight_decay, "seed": seed}
            trained.append(_descend(parameters, train, criterion, rows, bar=bar, **how))
    return require_finite("a retrained network (lower lr)", torch.cat(trained))


def _descend(
    parameters: Parameters,
    train: Examples,
    criterion: Loss,
    kept: Float[Tensor, "g n"],
    *,
    epochs: int,
    batch_size: int | None,
    lr: float,
    weight_decay: float,
    seed: int,
    bar: tqdm,
) -> Float[Tensor, "g p"]:
    """Return the parameters after all steps, with masks of what each network is trained on."""

    def objective(theta: Tensor, x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
        return (weights * criterion.value(parameters.outputs(theta, x), y)).sum()

    gradients = vmap(grad(objective), in_dims=(0, None, None, 0))
    theta = parameters.theta.repeat(len(kept), 1)
    kept, generator = kept.to(theta), torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for batch in epoch_batches(len(train), batch_size, generator):
            mask = kept[:, batch]
            remaining = mask.sum(1, keepdim=True)
            step = gradients(theta, train.x[batch], train.y[batch], mask / remaining.clamp(min=1))
            if weight_decay:
                step += weight_decay * theta
            theta.sub_(step.mul_((remaining > 0).to(step)), alpha=lr)
        bar.update(len(kept))
    return theta


def _kept(groups: Sequence[Sequence[int] | Tensor], n: int) -> Tensor:
    """Return the masks [g, n] of what remains.

    Raises:
        ValueError: no groups, or one that names everything.
    """
    if not len(groups):
        raise ValueError("groups is empty; pass at least one group, [] for a network trained on everything.")
    kept = torch.ones(len(groups), n)
    for row, group in zip(kept, groups, strict=True):
        if len(group):
            row[require_indices(group, n).cpu()] = 0
    if not kept.any(1).all():
        raise ValueError(f"a group names all {n} training examples; leave at least one to train on.")
    return kept


def _require_same_in_training(parameters: Parameters, x: Tensor) -> None:
    """Raise unless the model answers in training mode as in evaluation mode, and changes no buffer."""
    with torch.random.fork_rng(), torch.no_grad():
        wanted = parameters.outputs(parameters.theta, x)
        model = parameters.model_at(parameters.theta).train()
        buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        same = torch.equal(model(x.clone()), wanted)
        same = same and all(torch.equal(buffer, buffers[name]) for name, buffer in model.named_buffers())
    if not same:
        raise ValueError(
            "the model answers differently in training mode (dropout, BatchNorm), where networks cannot share a "
            "batch; call training.fit(..., without=group) for each group."
        )
