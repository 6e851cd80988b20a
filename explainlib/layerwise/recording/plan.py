"""Which parameters have their gradients recorded layer by layer, and which are left to ``torch.func``.

A parameter is recorded where its layer is of a known kind, the layer is called as a module with the examples in the
first dimension, and a self-check agrees: two or three examples are run both ways once. Everything else (recurrent
layers, bare parameters, a weight that an embedding and a linear layer share) falls back.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from explainlib.params import Parameters

OUTER_PRODUCT, EMBEDDING, DENSE = "outer product", "embedding", "dense"
KINDS: dict[type[nn.Module], dict[str, str]] = {
    nn.Linear: {"weight": OUTER_PRODUCT, "bias": DENSE},
    nn.Conv1d: {"weight": OUTER_PRODUCT, "bias": DENSE},
    nn.Conv2d: {"weight": OUTER_PRODUCT, "bias": DENSE},
    nn.Embedding: {"weight": EMBEDDING},
    **{
        norm: {"weight": DENSE, "bias": DENSE}
        for norm in (
            *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d),
            nn.LayerNorm,
            nn.GroupNorm,
        )
    },
}


class FallbackWarning(UserWarning):
    """Some parameters are not recorded layer by layer; their gradients are right, but taken one example at a time."""


@dataclass(frozen=True)
class ParameterPlan:
    """How the gradients of one parameter are recorded.

    Args:
        name: of the parameter.
        span: its slice of the flat vector.
        kind: "outer product", "embedding" or "dense", the form of its gradients.
        sites: (layer, attribute), every layer that holds it.
    """

    name: str
    span: slice
    kind: str
    sites: tuple[tuple[nn.Module, str], ...]


@dataclass(frozen=True)
class Plan:
    """The parameters that are recorded, and the names of those that fall back, in the model's order."""

    recorded: tuple[ParameterPlan, ...]
    fallback: tuple[str, ...]

    @property
    def layers(self) -> list[nn.Module]:
        """The layers to record, each once."""
        return list({id(layer): layer for parameter in self.recorded for layer, _ in parameter.sites}.values())

    def without(self, names: set[str]) -> Plan:
        """Return the plan with more parameters left to ``torch.func``."""
        moved = {parameter.name for parameter in self.recorded} & names
        return Plan(tuple(p for p in self.recorded if p.name not in moved), (*self.fallback, *sorted(moved)))


def gradient_kind(layer: nn.Module, attribute: str) -> str | None:
    """Return the form of the gradients of a layer's parameter, or None. A subclass with its own forward is unknown."""
    for known, kinds in KINDS.items():
        if isinstance(layer, known) and type(layer).forward is known.forward:
            special = isinstance(layer, nn.Embedding) and (layer.max_norm is not None or layer.scale_grad_by_freq)
            return None if special else kinds.get(attribute)
    return None


def initial_plan(parameters: Parameters) -> Plan:
    """Return the plan by the kinds of the layers, before any pass."""
    holders: dict[int, list[tuple[nn.Module, str]]] = {}
    for layer in parameters.module.modules():
        for attribute, held in layer._parameters.items():
            if held is not None:
                holders.setdefault(id(held), []).append((layer, attribute))
    recorded, fallback = [], []
    for name, span in flat_slices(parameters).items():
        sites = tuple(holders[id(parameters.module.get_parameter(name))])
        kinds = {gradient_kind(layer, attribute) for layer, attribute in sites}
        if len(kinds) == 1 and None not in kinds:
            recorded.append(ParameterPlan(name, span, kinds.pop(), sites))
        else:
            fallback.append(name)
    return Plan(tuple(recorded), tuple(fallback))


def flat_slices(parameters: Parameters) -> dict[str, slice]:
    """Return the slice of the flat vector that each chosen parameter takes."""
    spans, start = {}, 0
    for name, size in zip(parameters.names, parameters.sizes, strict=True):
        spans[name] = slice(start, start + size)
        start += size
    return spans
