"""``nn.MultiheadAttention`` for a recorded pass: the same formula, its projections recorded like linear layers.

torch holds the three projections in bare parameters, reads the fourth from a layer that it never calls, and computes
everything in one function. During a recorded pass the layers have this forward instead:

    out = W_o concat_h softmax(q_h k_h^T / sqrt(d_h) + mask) v_h + b_o,      [q k v] = [W_q x_q  W_k x_k  W_v x_v] + b
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Record = Callable[[nn.Module, tuple, dict, Tensor], Tensor]
ROLES = ("query", "key", "value")
HELD = ("in_proj_weight", "in_proj_bias", "q_proj_weight", "k_proj_weight", "v_proj_weight")


class Projection(nn.Linear):
    """One of the three projections of an attention layer, by which its calls are known; it is never called itself.

    Args:
        attention: the layer, whose weights it shows.
        role: "query", "key" or "value".
    """

    def __init__(self, attention: nn.MultiheadAttention, role: str) -> None:
        nn.Module.__init__(self)
        self.owner, self.role = (attention,), role  # in a tuple: no layer of its own
        weight, bias = _weight_and_bias(attention, role)
        self.weight = nn.Parameter(weight.detach(), requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
        self.out_features, self.in_features = weight.shape


def is_recordable(layer: nn.Module) -> bool:
    """Return whether a layer is attention with the options that ``attend`` has."""
    if not isinstance(layer, nn.MultiheadAttention) or "forward" in vars(layer):
        return False
    own = type(layer).forward is nn.MultiheadAttention.forward
    return own and layer.bias_k is None and not layer.add_zero_attn and not (layer.training and layer.dropout > 0)


def projections(
    layer: nn.MultiheadAttention, attribute: str, made: dict[tuple[int, str], Projection]
) -> tuple[Projection, ...]:
    """Return the projections whose weights, or biases, a parameter of an attention layer holds, from its first row on.

    Args:
        layer: see ``is_recordable``.
        attribute: one of ``HELD``.
        made: the projections of all layers so far, by layer and role; one for each.
    """
    roles = [role for role in ROLES if attribute.startswith("in_proj") or attribute[0] == role[0]]
    for role in roles:
        if (id(layer), role) not in made:
            made[id(layer), role] = Projection(layer, role)
    return tuple(made[id(layer), role] for role in roles)


@contextmanager
def recorded_attention(module: nn.Module, layers: Sequence[nn.Module], record: Record) -> Iterator[None]:
    """Return a block in which the attention layers of a private copy compute by recorded projections.

    Args:
        module: the copy.
        layers: that are recorded; attention is replaced where one of its projections is among them.
        record: takes a layer, its arguments and its output, and returns the output to go on with.
    """
    wanted: dict[int, dict[str, Projection]] = {}
    for layer in layers:
        if isinstance(layer, Projection):
            wanted.setdefault(id(layer.owner[0]), {})[layer.role] = layer
    chosen = {id(layer) for layer in layers}
    replaced = [
        layer
        for layer in module.modules()
        if is_recordable(layer) and (id(layer) in wanted or id(layer.out_proj) in chosen)
    ]
    try:
        for layer in replaced:
            layer.forward = partial(attend, layer, wanted.get(id(layer), {}), record)
        yield
    finally:
        for layer in replaced:
            vars(layer).pop("forward", None)


def attend(
    layer: nn.MultiheadAttention,
    recorded: dict[str, Projection],
    record: Record,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Return what an attention layer returns; inputs without a dimension of examples it computes itself, unrecorded.

    Args:
        layer: the attention layer; like it, all from ``query`` on.
        recorded: the projections to record, by role.
        record: see ``recorded_attention``.
        query: [n, L, d], or [L, n, d] where the layer's ``batch_first`` is False; likewise key and value.
        key: the keys' inputs.
        value: the values' inputs.
        key_padding_mask: [n, S].
        need_weights: whether attention weights are returned too.
        attn_mask: [L, S] or [n heads, L, S].
        average_attn_weights: over heads.
        is_causal: a hint that ``attn_mask`` is causal.
    """
    if query.ndim != 3 or (is_causal and attn_mask is None):
        return type(layer).forward(
            layer, query, key, value, key_padding_mask, need_weights, attn_mask, average_attn_weights, is_causal
        )
    inputs = (query, key, value) if layer.batch_first else (part.transpose(0, 1) for part in (query, key, value))
    q, k, v = (
        _projected(layer, role, x, recorded.get(role), record).unflatten(-1, (layer.num_heads, -1)).transpose(1, 2)
        for role, x in zip(ROLES, inputs, strict=True)
    )  # [n, heads, positions, d / heads]
    scores = (q / math.sqrt(q.shape[-1])) @ k.mT
    mask = _mask(attn_mask, key_padding_mask, scores)
    weights = (scores if mask is None else scores + mask).softmax(-1)
    out = layer.out_proj((weights @ v).transpose(1, 2).flatten(2))
    if not need_weights:
        weights = None
    elif average_attn_weights:
        weights = weights.mean(1)
    return out if layer.batch_first else out.transpose(0, 1), weights


def _projected(
    layer: nn.MultiheadAttention, role: str, x: Tensor, projection: Projection | None, record: Record
) -> Tensor:
    output = F.linear(x, *_weight_and_bias(layer, role))
    return output if projection is None else record(projection, (x,), {}, output)


def _weight_and_bias(layer: nn.MultiheadAttention, role: str) -> tuple[Tensor, Tensor | None]:
    """Return the weight and the bias of one projection, as views."""
    at = ROLES.index(role)
    separate = getattr(layer, f"{role[0]}_proj_weight")
    weight = layer.in_proj_weight.chunk(3)[at] if separate is None else separate
    return weight, None if layer.in_proj_bias is None else layer.in_proj_bias.chunk(3)[at]


def _mask(attn_mask: Tensor | None, key_padding_mask: Tensor | None, scores: Tensor) -> Tensor | None:
    """Return what is added to the scores [n, heads, L, S]: a mask of truth values is minus infinity where it holds."""
    masks = []
    if attn_mask is not None:
        masks.append(attn_mask.unflatten(0, (-1, scores.shape[1])) if attn_mask.ndim == 3 else attn_mask)
    if key_padding_mask is not None:
        masks.append(key_padding_mask[:, None, None])
    added = [
        torch.zeros_like(mask, dtype=scores.dtype).masked_fill(mask, -math.inf) if mask.dtype == torch.bool else mask
        for mask in masks
    ]
    return sum(added) if added else None
