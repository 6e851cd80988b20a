"""Normalisation layers that can be differentiated three times.

torch's fused normalisations are right up to second derivatives and silently wrong from the third on: their second
derivative treats the saved mean and standard deviation as constants. A meta-Hessian is made of third derivatives, and
so is the curvature's own change in second-order group influence. Here the same layers are written out in plain
operations, which torch differentiates correctly as often as one likes.

    y = (x - mean) / sqrt(variance + eps) * weight + bias

Source of the defect: github.com/pytorch/pytorch, issues 175754 (layer norm) and 186256 (batch norm).
"""

from __future__ import annotations

from torch import Tensor, nn


def normalised(x: Tensor, dims: tuple[int, ...], eps: float) -> Tensor:
    """Return x with mean 0 and variance 1 over ``dims``, in plain operations."""
    centred = x - x.mean(dims, keepdim=True)
    return centred * (centred.square().mean(dims, keepdim=True) + eps).rsqrt()


class BatchStatistics(nn.modules.batchnorm._BatchNorm):
    """BatchNorm by the mean and variance of each batch, which it does not remember; the way of few-shot learning."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2 or input.shape[1] != self.num_features:
            raise ValueError(f"BatchNorm of {self.num_features} features got a batch of shape {list(input.shape)}.")

    def forward(self, input: Tensor) -> Tensor:
        """Return the batch [n, c, ...], normalised for each c over all else."""
        self._check_input_dim(input)
        y = normalised(input, tuple(d for d in range(input.ndim) if d != 1), self.eps)
        if self.weight is None:
            return y
        shape = [1, -1, *[1] * (input.ndim - 2)]
        return y * self.weight.view(shape) + self.bias.view(shape)


class LayerNorm(nn.LayerNorm):
    """``nn.LayerNorm`` in plain operations."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the batch, each example normalised over the last dimensions."""
        y = normalised(input, tuple(range(-len(self.normalized_shape), 0)), self.eps)
        y = y if self.weight is None else y * self.weight
        return y if self.bias is None else y + self.bias


class GroupNorm(nn.GroupNorm):
    """``nn.GroupNorm`` in plain operations."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the batch [n, c, ...], each example normalised over groups of channels."""
        grouped = input.unflatten(1, (self.num_groups, -1))
        y = normalised(grouped, tuple(range(2, grouped.ndim)), self.eps).flatten(1, 2)
        if self.weight is None:
            return y
        shape = [1, -1, *[1] * (input.ndim - 2)]
        return y * self.weight.view(shape) + self.bias.view(shape)


EXACT: dict[type[nn.Module], type[nn.Module]] = {nn.LayerNorm: LayerNorm, nn.GroupNorm: GroupNorm}


def make_differentiable(model: nn.Module, *, batch_statistics: bool = False) -> nn.Module:
    """Change the normalisation layers of ``model`` in place to exact ones, and return it.

    Args:
        model: a copy of one's own; parameters, their names and their order stay as they are.
        batch_statistics: every BatchNorm normalises by the statistics of its batch and keeps none, whatever its mode.
            Otherwise BatchNorm is left alone: in evaluation mode it is linear, and exact as it is.

    Example: three derivatives of a normalised vector against the same by hand, which the fused layer fails.

        >>> import torch
        >>> x = torch.tensor([[0.5, -1.0, 2.0]], dtype=torch.float64)
        >>> def third(layer):
        ...     f = lambda t: layer(x * torch.stack([t, t * t, t * t * t])).square().sum() + layer(x * t)[0, 0]
        ...     return torch.func.grad(torch.func.grad(torch.func.grad(f)))(torch.tensor(1.0, dtype=torch.float64))
        >>> fused = nn.LayerNorm(3, elementwise_affine=False)
        >>> exact = make_differentiable(nn.LayerNorm(3, elementwise_affine=False))
        >>> bool((third(fused) - third(exact)).abs() > 1e-3)
        True
    """
    for layer in model.modules():
        kind = type(layer)
        if kind in EXACT:
            layer.__class__ = EXACT[kind]
        elif batch_statistics and isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.__class__ = BatchStatistics
            layer.track_running_stats = False
            layer.running_mean = layer.running_var = layer.num_batches_tracked = None
    return model
