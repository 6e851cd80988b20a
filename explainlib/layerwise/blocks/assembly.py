"""From recorded calls to gradients: one block a weight, and one dense block for all other parameters."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from explainlib.layerwise.blocks.dense import DenseBlock
from explainlib.layerwise.blocks.embedding import EmbeddingBlock
from explainlib.layerwise.blocks.outer import OuterProductBlock
from explainlib.layerwise.blocks.tied import TiedBlock
from explainlib.layerwise.recording import EMBEDDING, OUTER_PRODUCT, TIED, LayerCall, ParameterPlan, Plan

GradientBlock = OuterProductBlock | EmbeddingBlock | TiedBlock | DenseBlock


def gradient_blocks(
    plan: Plan,
    calls: list[LayerCall],
    *,
    rows_per_example: int,
    fallback: list[tuple[slice, Tensor]] | None = None,
) -> list[GradientBlock]:
    """Return the gradients of all parameters of a plan.

    Args:
        plan: which parameters are recorded.
        calls: of their layers.
        rows_per_example: cotangents an example.
        fallback: (slice of the flat vector, gradients [n, size]) of the parameters that are not recorded.
    """
    blocks: list[GradientBlock] = []
    dense = list(fallback or [])
    for parameter in plan.recorded:
        uses = [(call, attribute) for layer, attribute in parameter.sites for call in calls if call.layer is layer]
        if parameter.kind == OUTER_PRODUCT:
            blocks.append(_outer_product_block(parameter, [call for call, _ in uses], rows_per_example))
        elif parameter.kind == EMBEDDING:
            blocks.append(embedding_block(parameter, [call for call, _ in uses], rows_per_example))
        elif parameter.kind == TIED:
            lookups = [call for call, _ in uses if isinstance(call.layer, nn.Embedding)]
            products = [call for call, _ in uses if not isinstance(call.layer, nn.Embedding)]
            table = embedding_block(parameter, lookups, rows_per_example)
            blocks.append(TiedBlock(table, _outer_product_block(parameter, products, rows_per_example)))
        else:
            dense.append((parameter.span, sum(affine_gradients(call, attribute) for call, attribute in uses)))
    if dense:
        blocks.append(DenseBlock(tuple(span for span, _ in dense), torch.cat([rows for _, rows in dense], dim=1)))
    return blocks


def _outer_product_block(parameter: ParameterPlan, calls: list[LayerCall], rows_per_example: int) -> OuterProductBlock:
    layers, inputs = tuple(call.layer for call in calls), tuple(call.input for call in calls)
    gradients = tuple(call.gradient.flatten(0, 1) for call in calls)
    return OuterProductBlock(parameter.span, layers, inputs, gradients, rows_per_example)


def embedding_block(parameter: ParameterPlan, calls: list[LayerCall], rows_per_example: int) -> EmbeddingBlock:
    """Return the gradients of an embedding table.

    Args:
        parameter: the table.
        calls: of its layers.
        rows_per_example: cotangents an example.
    """
    ids, gradients = [], []
    for call in calls:
        tokens = call.input.flatten(1)
        g = call.gradient.flatten(2, -2) if call.gradient.ndim > 3 else call.gradient[:, :, None]
        if call.layer.padding_idx is not None:  # the padding's vector is not trained
            g = g * (tokens != call.layer.padding_idx)[:, None, :, None]
        ids.append(tokens)
        gradients.append(g.flatten(0, 1))
    return EmbeddingBlock(parameter.span, torch.cat(ids, dim=1), torch.cat(gradients, dim=1), rows_per_example)


def affine_gradients(call: LayerCall, attribute: str) -> Tensor:
    """Return the gradients [n, size] of a bias, or of a normalisation layer's scale."""
    layer, g = call.layer, call.gradient
    if attribute == "weight":
        g = g * normalised_input(layer, call.input)[:, None]
    g = g.flatten(0, 1)
    if isinstance(layer, nn.Linear | nn.LayerNorm):  # parameters of the last dimensions, elsewhere of the first
        return g.reshape(len(g), -1, getattr(layer, attribute).numel()).sum(1)
    return g.flatten(2).sum(2) if g.ndim > 2 else g


def normalised_input(layer: nn.Module, x: Tensor) -> Tensor:
    """Return what a normalisation layer's scale multiplies."""
    if isinstance(layer, nn.LayerNorm):
        return functional.layer_norm(x, layer.normalized_shape, eps=layer.eps)
    if isinstance(layer, nn.GroupNorm):
        return functional.group_norm(x, layer.num_groups, eps=layer.eps)
    return functional.batch_norm(x, layer.running_mean, layer.running_var, eps=layer.eps)
