"""A model as a function of one flat vector: theta [p] <-> the named parameters that were chosen.

The caller's model is copied once and never touched again. A flat vector concatenates the chosen
``model.named_parameters()`` in their order, each flattened row-major.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from explainlib.norms import BatchStatistics, make_differentiable


class Parameters:
    """The chosen parameters of a private copy of a model.

    Args:
        model: any ``nn.Module`` whose forward maps x [n, ...] to outputs [n, C], each example for itself.
        choice: "all", "last" (the last ``nn.Linear``), or a list of names from ``model.named_parameters()``.

    Raises:
        TypeError: not an ``nn.Module``.
        ValueError: no parameters, an unknown name, a chosen parameter without gradient, dropout or BatchNorm in
            training mode, or "last" without a Linear layer.
    """

    def __init__(self, model: nn.Module, choice: str | Sequence[str] = "all") -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model is a {type(model).__name__}, expected a torch.nn.Module.")
        require_repeatable_layers(model)
        named = dict(model.named_parameters())
        if not named:
            raise ValueError("model has no parameters; there is nothing that training data could have moved.")
        self.names = chosen_names(model, named, choice)
        for name in self.names:
            if not named[name].requires_grad:
                raise ValueError(
                    f"parameter {name!r} does not require a gradient; call .requires_grad_() on it, "
                    "or pass parameters=[...] with the ones that were trained."
                )
        kinds = {(named[name].dtype, named[name].device) for name in self.names}
        if len(kinds) > 1:
            raise ValueError(
                f"the chosen parameters mix dtypes or devices {sorted(map(str, kinds))}; call model.to(...)."
            )
        self.shapes = tuple(named[name].shape for name in self.names)
        self.sizes = tuple(shape.numel() for shape in self.shapes)
        self.trainable = {name for name, parameter in named.items() if parameter.requires_grad}
        self.module = make_differentiable(copy.deepcopy(model)).requires_grad_(False)
        # torch swaps the parameters of a module once per name; one that stands at two places must be swapped once only
        every = [id(module) for _, module in model.named_modules(remove_duplicate=False)]
        self._tied = len(every) == len(set(every))
        self.theta = torch.cat([named[name].detach().reshape(-1) for name in self.names]).clone()

    def named(self, theta: Float[Tensor, " p"]) -> dict[str, Tensor]:
        """Return theta cut into named tensors, views where possible."""
        parts = theta.split(self.sizes)
        return {name: part.view(shape) for name, part, shape in zip(self.names, parts, self.shapes, strict=True)}

    def outputs(self, theta: Float[Tensor, " p"], x: Tensor) -> Float[Tensor, "n C"]:
        """Return the model's outputs at theta, everything not chosen as it was; differentiable in theta."""
        return functional_call(self.module, self.named(theta), (x,), tie_weights=self._tied)

    def place(self, named: Mapping[str, Tensor]) -> None:
        """Write parameters by name into the private copy: what is not chosen has these values from now on.

        Args:
            named: any of the model's parameters, in their shapes.
        """
        with torch.no_grad():
            for name, value in named.items():
                self.module.get_parameter(name).copy_(value)

    def model_at(self, theta: Float[Tensor, " p"]) -> nn.Module:
        """Return a new copy of the model whose chosen parameters are theta, trainable like the original."""
        model = copy.deepcopy(self.module)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in self.trainable)
        with torch.no_grad():
            for name, part in self.named(theta).items():
                model.get_parameter(name).copy_(part)
        return model

    def head(self, x: Tensor) -> LinearHead | None:
        """Return the linear head if the chosen parameters are exactly one final ``nn.Linear``, else None.

        Then outputs are linear in theta: the Hessian is the Gauss-Newton matrix and has a closed form.
        """
        found = last_linear(self.module)
        if found is None:
            return None
        prefix, layer = found
        own = tuple(f"{prefix}.{part}".lstrip(".") for part, _ in layer.named_parameters())
        uses = [p for m in self.module.modules() for p in m._parameters.values() if p is layer.weight]
        if own != self.names or len(uses) != 1:
            return None
        calls: list[tuple[Tensor, Tensor, int]] = []
        hook = layer.register_forward_hook(
            lambda module, inputs, output: calls.append((inputs[0], output, output._version))
        )
        try:
            outputs = self.outputs(self.theta, x[:2])
        finally:
            hook.remove()
        if len(calls) != 1:
            return None
        seen, made, version = calls[0]
        # the very tensor, not equal numbers: a final ReLU changes nothing on examples that are positive anyway
        is_last = seen.ndim == 2 and made is outputs and made._version == version
        return LinearHead(self, layer, layer.bias is not None) if is_last else None


@dataclass(frozen=True)
class LinearHead:
    """A final linear layer, the only thing trained: outputs = features @ matrix(theta)^T.

    A bias counts as the weight of a last feature that is always 1.
    """

    parameters: Parameters
    layer: nn.Linear
    has_bias: bool

    def features(self, x: Tensor) -> Float[Tensor, "n d"]:
        """Return what the layer sees, with a column of ones when it has a bias."""
        seen: list[Tensor] = []
        hook = self.layer.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
        try:
            with torch.no_grad():
                self.parameters.module(x)
        finally:
            hook.remove()
        phi = seen[0]
        return torch.cat([phi, phi.new_ones(len(phi), 1)], dim=1) if self.has_bias else phi

    def matrix(self, theta: Float[Tensor, "*k p"]) -> Float[Tensor, "*k C d"]:
        """Return theta as one row of weights per output, the bias last."""
        outputs = self.layer.out_features
        weight = theta[..., : self.layer.weight.numel()].unflatten(-1, (outputs, self.layer.in_features))
        if not self.has_bias:
            return weight
        return torch.cat([weight, theta[..., -outputs:, None]], dim=-1)

    def flat(self, matrix: Float[Tensor, "*k C d"]) -> Float[Tensor, "*k p"]:
        """Return the flat vector of a matrix, the inverse of ``matrix``."""
        if not self.has_bias:
            return matrix.flatten(-2)
        return torch.cat([matrix[..., :-1].flatten(-2), matrix[..., -1]], dim=-1)


def chosen_names(model: nn.Module, named: dict[str, Tensor], choice: str | Sequence[str]) -> tuple[str, ...]:
    """Return the chosen names in the model's order."""
    if choice == "all":
        return tuple(named)
    if choice == "last":
        found = last_linear(model)
        if found is None:
            raise ValueError(
                "parameters='last' needs an nn.Linear layer and the model has none; name the parameters instead."
            )
        inside = {id(p) for p in found[1].parameters()}
        return tuple(name for name, p in named.items() if id(p) in inside)
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


def last_linear(model: nn.Module) -> tuple[str, nn.Linear] | None:
    """Return the name and layer of the model's last ``nn.Linear`` in module order, or None."""
    layers = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    return layers[-1] if layers else None


def require_repeatable_layers(model: nn.Module) -> None:
    """Raise if a layer would make outputs random, or let one example change another's."""
    for name, layer in model.named_modules():
        if isinstance(layer, nn.modules.dropout._DropoutNd) and layer.training and layer.p > 0:
            raise ValueError(
                f"dropout layer {name!r} is in training mode, so outputs are random; call model.eval() first."
            )
        if isinstance(layer, BatchStatistics):
            continue  # a learner's own: a task is its batch
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and (layer.training or not layer.track_running_stats):
            raise ValueError(
                f"BatchNorm layer {name!r} uses batch statistics, so one example changes another's output; "
                "call model.eval() (and keep track_running_stats=True)."
            )


def require_outputs(run: Callable[[Tensor], Tensor], x: Tensor, name: str = "train.x") -> Float[Tensor, "n C"]:
    """Return ``run(x)`` if the model can read x and answers with one row of outputs an example.

    Raises:
        TypeError: outputs that are not one tensor.
        ValueError: a model that cannot read x, or outputs of another shape.
    """
    try:
        with torch.no_grad():
            outputs = run(x)
    except (RuntimeError, IndexError) as error:
        raise ValueError(
            f"the model cannot read {name}, {x.dtype} of shape {['n', *x.shape[1:]]}: {error}; "
            "pass examples shaped as the model expects."
        ) from error
    if not isinstance(outputs, Tensor):
        raise TypeError(f"the model returns a {type(outputs).__name__}, expected one tensor [n, C]; wrap it.")
    if outputs.ndim != 2 or len(outputs) != len(x):
        raise ValueError(
            f"the model's outputs have shape {list(outputs.shape)} for {len(x)} examples, expected [n, C]; "
            "let it return one row of outputs per example."
        )
    return outputs
