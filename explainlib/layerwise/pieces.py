"""From what was recorded to gradients: one piece a weight, and one for all that is small enough to stand as rows."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from explainlib.layerwise.outer import Outer
from explainlib.layerwise.plan import OUTER, TOKENS, Place, Plan
from explainlib.layerwise.recording import Call
from explainlib.layerwise.rows import Rows
from explainlib.layerwise.tokens import Tokens

Piece = Outer | Tokens | Rows


def pieces_of(
    plan: Plan, calls: list[Call], *, several: int, formed: list[tuple[slice, Tensor]] | None = None
) -> list[Piece]:
    """Return the gradients of all parameters that are read, and those that were formed, in pieces.

    Args:
        plan: which parameters.
        calls: what was recorded.
        several: cotangents an example.
        formed: (flat positions, rows [n, size]) of the parameters that are not read.
    """
    pieces: list[Piece] = []
    small = list(formed or [])
    for place in plan.read:
        uses = [(call, attribute) for layer, attribute in place.sites for call in calls if call.layer is layer]
        if place.kind == OUTER:
            pieces.append(_outer(place, [call for call, _ in uses], several))
        elif place.kind == TOKENS:
            pieces.append(_tokens(place, [call for call, _ in uses], several))
        else:
            small.append((place.place, sum(affine_rows(call, attribute) for call, attribute in uses)))
    if small:
        pieces.append(Rows(tuple(place for place, _ in small), torch.cat([rows for _, rows in small], dim=1)))
    return pieces


def _outer(place: Place, calls: list[Call], several: int) -> Outer:
    layers, inputs = tuple(call.layer for call in calls), tuple(call.input for call in calls)
    return Outer(place.place, layers, inputs, tuple(call.gradient.flatten(0, 1) for call in calls), several)


def _tokens(place: Place, calls: list[Call], several: int) -> Tokens:
    ids, gradients = [], []
    for call in calls:
        tokens = call.input.flatten(1)
        g = call.gradient.flatten(2, -2) if call.gradient.ndim > 3 else call.gradient[:, :, None]
        if call.layer.padding_idx is not None:  # the padding's vector is not trained
            g = g * (tokens != call.layer.padding_idx)[:, None, :, None]
        ids.append(tokens)
        gradients.append(g.flatten(0, 1))
    return Tokens(place.place, torch.cat(ids, dim=1), torch.cat(gradients, dim=1), several)


def affine_rows(call: Call, attribute: str) -> Tensor:
    """Return the gradients [n, size] of a bias, or of a normalisation layer's scale."""
    layer, g = call.layer, call.gradient
    if attribute == "weight":
        g = g * normalised(layer, call.input)[:, None]
    g = g.flatten(0, 1)
    if isinstance(
        layer, nn.Linear | nn.LayerNorm
    ):  # the parameter lies along the last dimensions, else along the first
        return g.reshape(len(g), -1, getattr(layer, attribute).numel()).sum(1)
    return g.flatten(2).sum(2) if g.ndim > 2 else g


def normalised(layer: nn.Module, x: Tensor) -> Tensor:
    """Return what a normalisation layer's scale multiplies."""
    if isinstance(layer, nn.LayerNorm):
        return functional.layer_norm(x, layer.normalized_shape, eps=layer.eps)
    if isinstance(layer, nn.GroupNorm):
        return functional.group_norm(x, layer.num_groups, eps=layer.eps)
    return functional.batch_norm(x, layer.running_mean, layer.running_var, eps=layer.eps)
