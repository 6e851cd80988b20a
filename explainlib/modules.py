"""The user's ``nn.Module``: unsupported modules are refused, others are copied, and a copy's state is restored.

The caller's module is never run. A forward may set attributes, keep activations or write into its input; the private
copy is restored after each call, so that every call starts from the state of the given model.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from explainlib.derivatives import renormalise

DTYPES = (torch.float32, torch.float64)
INTERNAL = frozenset(vars(nn.Module())) - {"_buffers"}  # attributes of nn.Module: parameters, hooks, the mode
WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)


def require_module(model: nn.Module) -> nn.Module:
    """Return the model if it is a module that can be copied, differentiated and asked for its layers.

    Raises:
        TypeError: not a module; a wrapper, a compiled or scripted module, whose inner module is to be passed.
        ValueError: layers that have no shape yet.
    """
    if not isinstance(model, nn.Module):
        kind = type(model).__name__
        raise TypeError(f"model is a {kind}, expected a torch.nn.Module; make one whose forward is that function.")
    kind = type(model).__name__
    if isinstance(model, WRAPPERS):
        raise TypeError(f"model is wrapped in {kind}, which sends examples to other devices; pass model.module.")
    if hasattr(model, "_orig_mod"):
        raise TypeError(f"model is compiled ({kind}), and cannot be watched layer by layer; pass model._orig_mod.")
    if type(model).__module__.startswith("learn2learn.algorithms"):
        raise TypeError(
            f"model is a learn2learn {kind}, which adapts in place; pass the network in it, model.module, to "
            "xl.meta.Maml(model.module, inner_lr=...) or wherever a model is asked for."
        )
    for name, layer in model.named_modules():
        if isinstance(layer, torch.jit.ScriptModule):
            what = "the model" if not name else f"layer {name!r}"
            raise TypeError(f"{what} is scripted, and torch.func cannot go through it; pass the module it was made of.")
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if isinstance(tensor, UninitializedParameter | UninitializedBuffer):
            raise ValueError(f"{name!r} has no shape yet, because its layer is lazy; run model(x[:1]) once first.")
        if tensor._backward_hooks:
            raise ValueError(
                f"{name!r} has a hook on its gradient, which training obeys and no formula knows; remove it with the "
                "handle that register_hook returned, or freeze what the hook masks in a parameter of its own."
            )
    return model


def require_dtype(named: dict[str, Tensor], names: Sequence[str]) -> None:
    """Raise unless the named parameters are float32 or float64, of one kind and on one device."""
    kinds = {(named[name].dtype, named[name].device) for name in names}
    if len(kinds) > 1:
        raise ValueError(f"the chosen parameters mix dtypes or devices {sorted(map(str, kinds))}; call model.to(...).")
    dtype = next(iter(kinds))[0]
    if dtype not in DTYPES:
        raise TypeError(
            f"the chosen parameters are {dtype}, in which second derivatives and solvers are not to be had; "
            "call model.float() or model.double(), and convert the examples likewise."
        )


def private_copy(model: nn.Module) -> nn.Module:
    """Return a deep copy; stored activations are copied as constants.

    Raises:
        TypeError: an attribute that cannot be copied.
    """
    memo = {id(kept): kept.detach().clone() for kept in _stored_tensors(model)}
    try:
        copied = copy.deepcopy(model, memo)
    except Exception as error:  # any error of a user's __deepcopy__
        raise TypeError(
            f"the model cannot be copied ({type(error).__name__}: {str(error)[:200]}); remove the attribute that "
            "copy.deepcopy(model) stumbles over."
        ) from error
    if not _is_faithful_copy(model, copied):
        raise TypeError(
            f"copy.deepcopy of the model ({type(model).__name__}) gives another model, or one that shares its layers; "
            "let its __deepcopy__ copy every attribute, or remove it."
        )
    return copied


def _is_faithful_copy(model: nn.Module, copied: nn.Module) -> bool:
    """Return whether a copy has the same layers, plain attributes and tensors, and shares none of them."""
    layers, theirs = list(model.named_modules()), list(copied.named_modules())
    if [name for name, _ in layers] != [name for name, _ in theirs]:
        return False
    for (_, layer), (_, other) in zip(layers, theirs, strict=True):
        mine, own = vars(layer), vars(other)
        plain = {key for key, value in mine.items() if isinstance(value, int | float | str | bool)}
        if layer is other or any(key not in own or own[key] not in (mine[key],) for key in plain):
            return False
        for key, held in (*layer._parameters.items(), *layer._buffers.items()):
            made = {**other._parameters, **other._buffers}.get(key)
            if (held is None) != (made is None) or (held is not None and (held is made or held.shape != made.shape)):
                return False
    return True


def _stored_tensors(model: nn.Module) -> Iterator[Tensor]:
    """Yield tensors among the attributes that are results of a computation, which deepcopy refuses."""
    waiting = [value for layer in model.modules() for value in vars(layer).values()]
    seen: set[int] = set()
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Tensor):
            if not isinstance(value, nn.Parameter) and not value.is_leaf:
                yield value
        elif isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list | tuple | set):
            waiting += value


@dataclass(frozen=True)
class Attribute:
    """One attribute of one layer that a forward sets: the layer's name, and the attribute's."""

    layer: str
    name: str


class AttributeState:
    """The attributes of a module and of its layers, as they are now.

    Args:
        module: the module.
        only: names that are known to change; None is all.
    """

    def __init__(self, module: nn.Module, only: Sequence[Attribute] | None = None) -> None:
        layers = dict(module.named_modules())
        where = [(n, k) for n, m in layers.items() for k in vars(m) if k not in INTERNAL]
        if only is not None:
            where = [(a.layer, a.name) for a in only]
        self._vars = {name: vars(layers[name]) for name in dict.fromkeys(n for n, _ in where)}
        self._was = {(n, k): self._snapshot(self._vars[n][k]) for n, k in where if k in self._vars[n]}
        self._only = only

    @staticmethod
    def _snapshot(value: object) -> tuple[object, list | dict | None]:
        content = list(value) if isinstance(value, list) else dict(value) if isinstance(value, dict) else None
        return value, content

    def changed(self) -> tuple[Attribute, ...]:
        """Return what is another object, holds other objects, or is new."""
        found = []
        for layer, attributes in self._vars.items():
            for name, value in attributes.items():
                if name in INTERNAL:
                    continue
                was, content = self._was.get((layer, name), (_MISSING, None))
                if value is not was or (content is not None and not _same(value, content)):
                    found.append(Attribute(layer, name))
        return tuple(found)

    def restore(self) -> None:
        """Put everything back."""
        for layer, attributes in self._vars.items():
            names = [name for name in attributes if name not in INTERNAL]
            if self._only is not None:
                names = [a.name for a in self._only if a.layer == layer]
            for name in names:
                if (layer, name) not in self._was:
                    attributes.pop(name, None)
                    continue
                value, content = self._was[layer, name]
                if isinstance(value, list):
                    value[:] = content
                elif isinstance(value, dict) and not _same(value, content):
                    value.clear()
                    value.update(content)
                if attributes.get(name, _MISSING) is not value:
                    attributes[name] = value


_MISSING = object()


def _same(value: list | dict, content: list | dict) -> bool:
    if len(value) != len(content):
        return False
    if isinstance(value, list):
        return all(a is b for a, b in zip(value, content, strict=True))
    return all(key in value and value[key] is part for key, part in content.items())


class Readout(NamedTuple):
    """An ``nn.Linear`` of a model: its name, the layer, and whether its output was seen to be the model's."""

    name: str
    layer: nn.Linear
    is_output: bool = False


def last_linear(model: nn.Module) -> Readout | None:
    """Return the model's last ``nn.Linear`` in the order of definition, or None."""
    layers = [Readout(name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    return layers[-1] if layers else None


def readout(module: nn.Module, run: Callable[[Tensor], Tensor], x: Tensor) -> Readout | None:
    """Return the ``nn.Linear`` whose output is the model's output, or else the last one called; None if none.

    Args:
        module: a private copy, which ``run`` calls.
        run: x -> outputs.
        x: a few examples.
    """
    calls: list[tuple[Readout, Tensor, int]] = []

    def watch(name: str) -> Callable:
        return lambda m, inputs, output: calls.append((Readout(name, m), output, output._version))

    linear = [(name, layer) for name, layer in module.named_modules() if isinstance(layer, nn.Linear)]
    hooks = [layer.register_forward_hook(watch(name)) for name, layer in linear]
    try:
        with torch.no_grad():
            outputs = run(x)
    finally:
        for hook in hooks:
            hook.remove()
    # the very tensor, not equal numbers: a final ReLU changes nothing on examples that are positive anyway
    same = [call for call, made, version in calls if made is outputs and made._version == version]
    if same:
        return same[-1]._replace(is_output=True)
    return calls[-1][0] if calls else None


def chosen_names(named: dict[str, Tensor], choice: str | Sequence[str]) -> tuple[str, ...]:
    """Return the names of a list in the model's order.

    Args:
        named: the model's parameters.
        choice: some of their names.

    Raises:
        ValueError: an unknown name, or none.
    """
    if isinstance(choice, str):
        raise ValueError(
            f"parameters={choice!r} is unknown; pass 'all', 'last', or a list of names such as {list(named)[:2]}."
        )
    unknown = [name for name in choice if name not in named]
    if unknown or not choice:
        raise ValueError(
            f"parameters={list(choice)!r} has no match for {unknown or 'an empty list'}; choose from {list(named)}."
        )
    return tuple(name for name in named if name in set(choice))


def remove_max_norms(module: nn.Module) -> dict[str, tuple[float, float]]:
    """Remove ``max_norm`` from every embedding and return (bound, norm type) by the names of their tables.

    The bound is no part of an objective, and at its edge nothing has a derivative: tables are shortened once, as a
    forward would leave them (``shortened``), and the copy has none.

    Args:
        module: a private copy.
    """
    bounds = {}
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Embedding | nn.EmbeddingBag) and layer.max_norm is not None:
            bounds[f"{name}.weight".lstrip(".")] = layer.max_norm, layer.norm_type
            layer.weight.data = renormalise(layer.weight.data, layer.max_norm, layer.norm_type)
            layer.max_norm = None
    return bounds


def none_reference() -> None:
    """Return None instead of a reference to a model in another process."""


def structure(model: nn.Module) -> tuple:
    """Return what determines a model's computation apart from its tensors: layers, modes, plain attributes.

    Args:
        model: any.
    """
    return tuple(
        (
            name, id(layer), id(type(layer)), layer.training, id(vars(layer).get("forward")),
            tuple((k, v) for k, v in vars(layer).items() if isinstance(v, int | float | str | bool)),
        )
        for name, layer in model.named_modules()
    )  # fmt: skip
