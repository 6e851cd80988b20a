"""Which layers the engine reads, and which parameters it leaves to ``torch.func``.

A parameter is read where its layer is of a kind the engine knows, the layer is called as a module with the examples in
the first dimension, and the result is the right one: two or three examples are run through both ways once. Everything
else (recurrent layers, bare parameters, a weight that an embedding and a linear layer share) falls back.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from explainlib.params import Parameters

OUTER, TOKENS, ROWS = "outer", "tokens", "rows"
KINDS: dict[type[nn.Module], dict[str, str]] = {
    nn.Linear: {"weight": OUTER, "bias": ROWS},
    nn.Conv1d: {"weight": OUTER, "bias": ROWS},
    nn.Conv2d: {"weight": OUTER, "bias": ROWS},
    nn.Embedding: {"weight": TOKENS},
    **{
        norm: {"weight": ROWS, "bias": ROWS}
        for norm in (
            *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d),
            nn.LayerNorm,
            nn.GroupNorm,
        )
    },
}


class FallbackWarning(UserWarning):
    """Some layers are not read layer by layer; their gradients are right, but formed one by one."""


@dataclass(frozen=True)
class Place:
    """Where one parameter is read.

    Args:
        name: of the parameter.
        place: its flat positions.
        kind: "outer", "tokens" or "rows".
        sites: (layer, attribute), every layer that holds it.
    """

    name: str
    place: slice
    kind: str
    sites: tuple[tuple[nn.Module, str], ...]


@dataclass(frozen=True)
class Plan:
    """The parameters that are read, and the names of those that are not, in the model's order."""

    read: tuple[Place, ...]
    fallback: tuple[str, ...]

    @property
    def layers(self) -> list[nn.Module]:
        """The layers to watch, each once."""
        return list({id(layer): layer for place in self.read for layer, _ in place.sites}.values())

    def without(self, names: set[str]) -> Plan:
        """Return the plan with more parameters left to ``torch.func``."""
        moved = {place.name for place in self.read} & names
        return Plan(tuple(p for p in self.read if p.name not in moved), (*self.fallback, *sorted(moved)))


def kind_of(layer: nn.Module, attribute: str) -> str | None:
    """Return how a layer's parameter is read, or None. A subclass with a forward of its own is unknown."""
    for known, kinds in KINDS.items():
        if isinstance(layer, known) and type(layer).forward is known.forward:
            special = isinstance(layer, nn.Embedding) and (layer.max_norm is not None or layer.scale_grad_by_freq)
            return None if special else kinds.get(attribute)
    return None


def first_plan(parameters: Parameters) -> Plan:
    """Return the plan as the kinds of the layers tell it, before anything has run."""
    holders: dict[int, list[tuple[nn.Module, str]]] = {}
    for layer in parameters.module.modules():
        for attribute, held in layer._parameters.items():
            if held is not None:
                holders.setdefault(id(held), []).append((layer, attribute))
    read, fallback, start = [], [], 0
    for name, size in zip(parameters.names, parameters.sizes, strict=True):
        sites = tuple(holders[id(parameters.module.get_parameter(name))])
        kinds = {kind_of(layer, attribute) for layer, attribute in sites}
        if len(kinds) == 1 and None not in kinds:
            read.append(Place(name, slice(start, start + size), kinds.pop(), sites))
        else:
            fallback.append(name)
        start += size
    return Plan(tuple(read), tuple(fallback))


def places(parameters: Parameters) -> dict[str, slice]:
    """Return the flat positions of each chosen parameter."""
    found, start = {}, 0
    for name, size in zip(parameters.names, parameters.sizes, strict=True):
        found[name] = slice(start, start + size)
        start += size
    return found
