"""Which parameters have their gradients recorded layer by layer, and which are left to ``torch.func``.

A parameter is recorded where its layer is of a known kind, the layer is called as a module with the examples in the
first dimension, and a self-check agrees: two or three examples are run both ways once. Attention counts as linear
layers (``attention``), its stacked projections as three. Everything else (recurrent layers, bare parameters) falls
back.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from explainlib.layerwise.recording.attention import HELD, Projection, is_recordable, projections
from explainlib.params import Parameters

OUTER_PRODUCT, EMBEDDING, TIED, DENSE = "outer product", "embedding", "tied", "dense"
Sites = tuple[tuple[nn.Module, str], ...]
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
    """How the gradients of one parameter are recorded, or of a third of an attention layer's stacked projections.

    Args:
        name: of the parameter.
        span: its slice of the flat vector.
        kind: "outer product", "embedding", "tied" (both: a table that linear layers share) or "dense", the form of its
            gradients.
        sites: (layer, attribute), every layer that holds it.
    """

    name: str
    span: slice
    kind: str
    sites: Sites


@dataclass(frozen=True)
class Plan:
    """The parameters that are recorded, and the names of those that fall back, in the model's order.

    Args:
        recorded: how each is.
        fallback: names.
        repeated: embeddings that are called without a dimension of examples (a table of places), whose rows are
            repeated for each example.
    """

    recorded: tuple[ParameterPlan, ...]
    fallback: tuple[str, ...]
    repeated: tuple[nn.Module, ...] = ()

    @property
    def layers(self) -> list[nn.Module]:
        """The layers to record, each once."""
        return list({id(layer): layer for parameter in self.recorded for layer, _ in parameter.sites}.values())

    def without(self, names: set[str]) -> Plan:
        """Return the plan with more parameters left to ``torch.func``."""
        moved = {parameter.name for parameter in self.recorded} & names
        kept = tuple(p for p in self.recorded if p.name not in moved)
        return Plan(kept, (*self.fallback, *sorted(moved)), self.repeated)


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
    made: dict[tuple[int, str], Projection] = {}
    recorded, fallback = [], []
    for name, span in flat_slices(parameters).items():
        sites = tuple(holders[id(parameters.module.get_parameter(name))])
        parts = [(part, held, _shared_kind(held)) for part, held in _parts(span, sites, made)]
        if all(kind is not None for _, _, kind in parts):
            recorded += [ParameterPlan(name, part, kind, held) for part, held, kind in parts]
        else:
            fallback.append(name)
    return Plan(tuple(recorded), tuple(fallback))


def _parts(span: slice, sites: Sites, made: dict[tuple[int, str], Projection]) -> list[tuple[slice, Sites]]:
    """Return slices of a parameter with the layers that hold them: of attention its projections, else itself."""
    if not all(is_recordable(layer) and attribute in HELD for layer, attribute in sites):
        return [(span, sites)]
    each = [projections(layer, attribute, made) for layer, attribute in sites]
    role = "bias" if sites[0][1].endswith("bias") else "weight"
    size = (span.stop - span.start) // len(each[0])
    return [
        (slice(span.start + at * size, span.start + (at + 1) * size), tuple((layer, role) for layer in held))
        for at, held in enumerate(zip(*each, strict=True))
    ]


def _shared_kind(sites: Sites) -> str | None:
    """Return the form of the gradients of a parameter of all these layers, or None."""
    kinds = {gradient_kind(layer, attribute) for layer, attribute in sites}
    if kinds == {EMBEDDING, OUTER_PRODUCT}:
        return TIED if all(isinstance(layer, nn.Linear | nn.Embedding) for layer, _ in sites) else None
    return kinds.pop() if len(kinds) == 1 else None


def flat_slices(parameters: Parameters) -> dict[str, slice]:
    """Return the slice of the flat vector that each chosen parameter takes."""
    spans, start = {}, 0
    for name, size in zip(parameters.names, parameters.sizes, strict=True):
        spans[name] = slice(start, start + size)
        start += size
    return spans
