"""The result of training: the model, and its parameters and buffers at checkpoints."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

STATISTICS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)


@dataclass(frozen=True)
class Trajectory:
    """The result of training.

    Args:
        model: the trained model.
        checkpoints: [c, p], the flat parameters at the checkpoints, first and last included.
        learning_rates: [c], the learning rate at each checkpoint.
        batches: the training indices of every step, in order; empty for wrapped checkpoints.
        losses: the mean training loss of each epoch, ridge excluded; empty for wrapped checkpoints.
        importance: [n, C], the sum over steps of minus rate / batch size times dl/df of each example in the batch; None
            unless it was recorded.
        buffers: for each checkpoint the model's buffers by name, such as BatchNorm's running statistics, which training
            moves; empty for a model whose buffers never move.

    Raises:
        ValueError: checkpoints whose length is not the model's parameter count, or rates or buffers of another count.
    """

    model: nn.Module
    checkpoints: Float[Tensor, "c p"]
    learning_rates: Float[Tensor, " c"]
    batches: tuple[Tensor, ...] = field(default=(), repr=False)
    losses: tuple[float, ...] = field(default=(), repr=False)
    importance: Float[Tensor, "n C"] | None = field(default=None, repr=False)
    buffers: tuple[dict[str, Tensor], ...] = field(default=(), repr=False)

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
        if self.buffers and len(self.buffers) != len(self.checkpoints):
            raise ValueError(
                f"{len(self.checkpoints)} checkpoints but buffers of {len(self.buffers)}; give one dict per "
                "checkpoint, dict(model.named_buffers()) as it was then."
            )

    def state(self, c: int) -> dict[str, Tensor]:
        """Return every parameter and buffer at checkpoint c, by name.

        Raises:
            ValueError: running statistics that training changed and that were not saved.
        """
        named = dict(self.model.named_parameters())
        parts = self.checkpoints[c].split([parameter.numel() for parameter in named.values()])
        state = {name: part.view(named[name].shape) for name, part in zip(named, parts, strict=True)}
        if self.buffers:
            return state | self.buffers[c]
        moves = [
            name
            for name, layer in self.model.named_modules()
            if isinstance(layer, STATISTICS) and layer.running_mean is not None
        ]
        if moves and not all(torch.equal(state[name], parameter) for name, parameter in named.items()):
            raise ValueError(
                f"layer {moves[0]!r} keeps running statistics, which training moves, and this trajectory holds none "
                "for its checkpoints; pass Trajectory(..., buffers=[dict(model.named_buffers()) at each checkpoint])."
            )
        return state
