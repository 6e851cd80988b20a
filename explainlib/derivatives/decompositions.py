r"""Decompositions of torch's fused operations, active wherever a model or a loss runs.

One ``TorchFunctionMode`` corrects three kinds of fault, for any class or function that calls them:

- fused operations whose higher derivatives are wrong (normalisations, see ``norms``) or missing (weight norm, fast
  attention, ``cdist``, ``hardsigmoid``, embedding bags, some losses): the same formula in plain operations;
- embeddings that write into their table (``max_norm``) or give sparse gradients: the same rows, as a differentiable
function of it;
- constants: what a forward computes under ``no_grad``, or takes from ``detach`` or ``.data``, is a constant at every
  order of differentiation, as in plain autograd. ``torch.func`` alone does so at the innermost level only.

BatchNorm in evaluation mode is linear, and is not replaced. Source of the last fault:
github.com/pytorch/pytorch/issues/78961.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from explainlib.derivatives.norms import batch_norm, normalise, scale_and_shift


def _layer_norm(x, normalized_shape, weight=None, bias=None, eps=1e-5, *_):  # torch.layer_norm adds cudnn_enable
    return scale_and_shift(normalise(x, range(-len(normalized_shape), 0), eps), weight, bias)


def _group_norm(x, num_groups, weight=None, bias=None, eps=1e-5, *_):
    grouped = x.unflatten(1, (num_groups, -1))
    y = normalise(grouped, range(2, grouped.ndim), eps).flatten(1, 2)
    return scale_and_shift(y, weight, bias, channel=1)


def _batch_norm(
    x, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5, *_
):  # fmt: skip
    if not training:
        return F.batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    return batch_norm(x, weight, bias, eps)


def _torch_batch_norm(x, weight, bias, mean, var, training, momentum, eps, *_):
    return _batch_norm(x, mean, var, weight, bias, training, momentum, eps)


def _instance_norm(
    x, running_mean=None, running_var=None, weight=None, bias=None, use_input_stats=True, momentum=0.1, eps=1e-5
):  # fmt: skip
    if not use_input_stats:
        return F.batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    return scale_and_shift(normalise(x, range(2, x.ndim), eps), weight, bias, channel=1)


def _torch_instance_norm(x, weight, bias, mean, var, use_input_stats, momentum, eps, *_):
    return _instance_norm(x, mean, var, weight, bias, use_input_stats, momentum, eps)


def _rms_norm(x, normalized_shape, weight=None, eps=None):
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    dims = tuple(range(-len(normalized_shape), 0))
    return scale_and_shift(x * (x.square().mean(dims, keepdim=True) + eps).rsqrt(), weight, None)


def _weight_norm(v, g, dim=0):
    others = [d for d in range(v.ndim) if d != dim % v.ndim] if dim != -1 else list(range(v.ndim))
    return v * (g / v.square().sum(others, keepdim=True).sqrt())


def _embedding(
    input, weight, padding_idx=None, max_norm=None, norm_type=2.0, scale_grad_by_freq=False, sparse=False, *,
    constant=torch.detach,
):  # fmt: skip
    # a frequency-scaled gradient is not the table's derivative; the gate refuses it, so it is not replaced
    table = weight if max_norm is None else renormalise(weight, max_norm, norm_type)
    rows = F.embedding(input, table, None, None, norm_type, scale_grad_by_freq, False)
    if padding_idx is None:
        return rows
    padding = (input == padding_idx % len(weight))[..., None]
    return torch.where(padding, constant(rows), rows)  # the padding's vector is not trained


def renormalise(weight: Tensor, max_norm: float, norm_type: float = 2.0) -> Tensor:
    """Return the table with rows no longer than ``max_norm``; shorter rows are unchanged."""
    lengths = torch.linalg.vector_norm(weight.detach(), norm_type, dim=1, keepdim=True)
    long = lengths > max_norm * (1 + 16 * torch.finfo(weight.dtype).eps)
    safe = torch.where(long, weight, torch.ones_like(weight))
    shortened = safe * (max_norm / (torch.linalg.vector_norm(safe, norm_type, dim=1, keepdim=True) + 1e-7))
    return torch.where(long, shortened, weight)


def _embedding_bag(
    input, weight, offsets=None, max_norm=None, norm_type=2, scale_grad_by_freq=False, mode="mean", sparse=False,
    per_sample_weights=None, include_last_offset=False, padding_idx=None,
):  # fmt: skip
    if input.ndim != 2 or scale_grad_by_freq:
        return F.embedding_bag(
            input, weight, offsets, max_norm, norm_type, scale_grad_by_freq, mode, False, per_sample_weights,
            include_last_offset, padding_idx,
        )  # fmt: skip
    rows = _embedding(input, weight, None, max_norm, norm_type)
    if per_sample_weights is not None:
        rows = rows * per_sample_weights[..., None]
    if padding_idx is None:
        return {"sum": rows.sum, "mean": rows.mean, "max": lambda d: rows.max(d).values}[mode](1)
    padding = padding_idx % len(weight)
    real = (input != padding)[..., None]
    if mode == "max":
        highest = rows.masked_fill(~real, -math.inf).max(1).values
        return torch.where(real.any(1), highest, torch.zeros_like(highest))
    total = (rows * real).sum(1)
    return total if mode == "sum" else total / real.sum(1).clamp(min=1)


def _multi_head_attention(*args, **kwargs):
    bound = dict(zip(_ATTENTION_ARGUMENTS, args, strict=False)) | kwargs
    wanted = bound.pop("need_weights", True)
    output, weights = F.multi_head_attention_forward(**bound, need_weights=True)  # softmax and products, not fused
    return output, weights if wanted else None


_code = F.multi_head_attention_forward.__code__
_ATTENTION_ARGUMENTS = _code.co_varnames[: _code.co_argcount]


def _cdist(x1, x2, p=2.0, compute_mode=None):
    return _distances(x1[..., :, None, :] - x2[..., None, :, :], p)


def _pdist(x, p=2.0):
    i, j = torch.triu_indices(len(x), len(x), 1, device=x.device)
    return _distances(x[i] - x[j], p)


def _distances(difference: Tensor, p: int | float) -> Tensor:
    """Return the p-norms of the last dimension; at zero the derivative is zero, as in torch."""
    if p == math.inf:
        return difference.abs().amax(-1)
    if p == 0:
        return (difference != 0).to(difference).sum(-1)
    if p == 1:
        return difference.abs().sum(-1)
    powers = difference.square().sum(-1) if p == 2 else difference.abs().pow(p).sum(-1)
    apart = powers > 0
    return torch.where(apart, torch.where(apart, powers, torch.ones_like(powers)) ** (1 / p), powers)


def _glu(x, dim=-1):
    a, b = x.chunk(2, dim)
    return a * b.sigmoid()


def _reduce(losses: Tensor, reduction: str) -> Tensor:
    return {"none": lambda: losses, "mean": losses.mean, "sum": losses.sum}[reduction]()


def _huber_loss(input, target, reduction="mean", delta=1.0, weight=None):
    d = input - target
    losses = torch.where(d.abs() < delta, d.square() / 2, delta * (d.abs() - delta / 2))
    return _reduce(losses if weight is None else losses * weight, reduction)


def _soft_margin_loss(input, target, size_average=None, reduce=None, reduction="mean"):
    return _reduce(F.softplus(-target * input), reduction)


def _hardsigmoid(x, inplace=False):
    return (x / 6 + 0.5).clamp(0, 1)


DECOMPOSITIONS: dict[Callable, Callable] = {
    F.layer_norm: _layer_norm,
    torch.layer_norm: _layer_norm,
    F.group_norm: _group_norm,
    torch.group_norm: _group_norm,
    F.batch_norm: _batch_norm,
    torch.batch_norm: _torch_batch_norm,
    F.instance_norm: _instance_norm,
    torch.instance_norm: _torch_instance_norm,
    F.rms_norm: _rms_norm,
    torch.rms_norm: _rms_norm,
    torch._weight_norm: _weight_norm,
    F.embedding: _embedding,
    F.embedding_bag: _embedding_bag,
    F.multi_head_attention_forward: _multi_head_attention,
    torch.cdist: _cdist,
    torch.pdist: _pdist,
    F.pdist: _pdist,
    F.glu: _glu,
    F.hardsigmoid: _hardsigmoid,
    F.huber_loss: _huber_loss,
    F.soft_margin_loss: _soft_margin_loss,
}
STOPS = frozenset({torch.Tensor.detach, torch.detach, torch.Tensor.data.__get__})


class DecompositionMode(TorchFunctionMode):
    """The context in which models and losses run; see the module.

    Args:
        constants: None, or a tape that records constants or replays them: autograd derivatives equal finite differences
            of the function with its constants fixed.
    """

    def __init__(self, constants: Constants | None = None) -> None:
        super().__init__()
        self.constants = constants

    def __enter__(self) -> DecompositionMode:
        """Record whether gradients are on: only a block inside that turns them off gives constants."""
        self._differentiable = torch.is_grad_enabled()
        self._attention = sdpa_kernel(SDPBackend.MATH)
        self._attention.__enter__()
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        """Restore attention."""
        super().__exit__(*error)
        self._attention.__exit__(*error)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Run the decomposition of ``func`` if there is one, and detach constants."""
        if func is F.embedding:
            return _embedding(*args, **(kwargs or {}), constant=self._padding)
        out = DECOMPOSITIONS.get(func, func)(*args, **(kwargs or {}))
        if func in STOPS or (self._differentiable and not torch.is_grad_enabled()):
            return tree_map_only(Tensor, self._constant, out)
        return out

    def _constant(self, value: Tensor, *, known: bool = False) -> Tensor:
        constant = value.detach()
        if self.constants is None or not value.is_floating_point():
            return constant
        return self.constants.next(constant, known=known)

    def _padding(self, value: Tensor) -> Tensor:
        return self._constant(value, known=True)


class Constants:
    """The constants of a forward, in order: recorded at one parameter vector, replayed at others.

    Attributes:
        values: the recorded constants.
        surprising: whether there is one other than the padding of an embedding.
    """

    def __init__(self) -> None:
        self.values: list[Tensor] = []
        self.surprising = False
        self._recording, self._at = True, 0

    def rewind(self) -> Constants:
        """Replay from the start; recorded constants are kept."""
        self._recording, self._at = False, 0
        return self

    def next(self, value: Tensor, *, known: bool = False) -> Tensor:
        """Return this value while recording, else the recorded one in its place."""
        if self._recording:
            self.surprising = self.surprising or not known
            self.values.append(value.clone())
            return value
        self._at += 1
        kept = self.values[self._at - 1] if self._at <= len(self.values) else value
        return kept if kept.shape == value.shape else value
