"""Normalisations in plain operations, and BatchNorm by the statistics of its batch.

torch's fused normalisations are correct up to second derivatives and silently wrong from the third on: their second
derivative treats the saved mean and standard deviation as constants. A meta-Hessian needs third derivatives, and
so does the third-derivative term of second-order group influence. In plain operations torch differentiates the same
formula correctly at every order.

    y = (x - mean) / sqrt(variance + eps) * weight + bias

Source of the defect: github.com/pytorch/pytorch, issues 175754 (layer norm) and 186256 (batch norm).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from explainlib.derivatives.fused_norms import fused_batch_norm, is_second_order


def normalise(x: Tensor, dims: Sequence[int], eps: float) -> Tensor:
    """Return x with mean 0 and variance 1 over ``dims``, in plain operations."""
    centred = x - x.mean(tuple(dims), keepdim=True)
    return centred * (centred.square().mean(tuple(dims), keepdim=True) + eps).rsqrt()


def scale_and_shift(y: Tensor, weight: Tensor | None, bias: Tensor | None, *, channel: int | None = None) -> Tensor:
    """Return y * weight + bias, along one dimension of y (``channel``) or along the last ones."""
    shape = None if channel is None else [-1 if d == channel else 1 for d in range(y.ndim)]
    for part, combine in ((weight, torch.mul), (bias, torch.add)):
        if part is not None:
            y = combine(y, part if shape is None else part.view(shape))
    return y


def batch_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Return the batch [n, c, ...], normalised for each c over all other dimensions.

    Inside ``second_order_norms`` it is fused, else in plain operations.
    """
    if is_second_order():
        return fused_batch_norm(x, weight, bias, eps)
    return scale_and_shift(normalise(x, [d for d in range(x.ndim) if d != 1], eps), weight, bias, channel=1)


class BatchStatistics(nn.modules.batchnorm._BatchNorm):
    """BatchNorm by the mean and variance of each batch, without running statistics, as in few-shot learning."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2 or input.shape[1] != self.num_features:
            raise ValueError(f"BatchNorm of {self.num_features} features got a batch of shape {list(input.shape)}.")

    def forward(self, input: Tensor) -> Tensor:
        """Return the batch [n, c, ...], normalised for each c over all other dimensions."""
        self._check_input_dim(input)
        return batch_norm(input, self.weight, self.bias, self.eps)


def with_batch_statistics(model: nn.Module) -> nn.Module:
    """Make every BatchNorm of ``model`` normalise by its batch and keep no statistics, in place; return the model.

    A subclass with its own forward keeps it and is set to training mode without statistics.

    Args:
        model: changed in place; parameters, their names and their order are unchanged.
    """
    for layer in model.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.track_running_stats = False
            layer.running_mean = layer.running_var = layer.num_batches_tracked = None
            if type(layer).forward is nn.modules.batchnorm._BatchNorm.forward:
                layer.__class__ = BatchStatistics
            else:
                layer.train()
    return model
