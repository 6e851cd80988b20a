"""A model as a function of one flat vector: theta [p] <-> the named parameters that were chosen.

The caller's model is copied once and never touched again. A flat vector concatenates the chosen
``model.named_parameters()`` in their order, each flattened row-major.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from explainlib.checks import require_finite
from explainlib.derivatives import Constants, DecompositionMode, renormalise, with_batch_statistics
from explainlib.modules import (
    AttributeState,
    Readout,
    chosen_names,
    last_linear,
    none_reference,
    private_copy,
    readout,
    remove_max_norms,
    require_dtype,
    require_module,
    structure,
)


class Parameters:
    """The chosen parameters of a private copy of a model.

    The copy runs under ``DecompositionMode``: differentiable at every order, with any layers.

    Args:
        model: any ``nn.Module`` whose forward maps x [n, ...] to outputs [n, C], each example independently.
        choice: "all" (every parameter that requires a gradient), "last" (the read-out: the ``nn.Linear`` whose output
            is the model's), or a list of names from ``model.named_parameters()``.
        x: a few examples; with them "last" is found by running the copy, without them it is the last one defined.
        batch_statistics: BatchNorm layers normalise by their batch and remember nothing.

    Attributes:
        writes_input: whether the forward writes into its input, so that it gets a copy; found by the gate.
        sets: attributes that the forward sets, restored after each call; found by the gate.
        bounds: of embedding tables, whose ``max_norm`` is removed in the copy.

    Raises:
        TypeError: not an ``nn.Module``, a wrapped or scripted one, or parameters in half precision.
        ValueError: no parameters, an unknown name, a chosen parameter without gradient, layers without a shape, or
            "last" without a Linear layer.
    """

    def __init__(
        self,
        model: nn.Module,
        choice: str | Sequence[str] = "all",
        *,
        x: Tensor | None = None,
        batch_statistics: bool = False,
    ) -> None:
        named = dict(require_module(model).named_parameters())
        if not named:
            raise ValueError("model has no parameters; there is nothing that training data could have moved.")
        self.writes_input, self.sets = False, ()
        self.batch_statistics = batch_statistics
        self.trainable = {name for name, parameter in named.items() if parameter.requires_grad}
        self.module = private_copy(model).requires_grad_(False)
        if batch_statistics:
            with_batch_statistics(self.module)
        self.bounds = remove_max_norms(self.module)
        # torch swaps parameters once per name; a shared one must be swapped once only
        every = [id(module) for _, module in model.named_modules(remove_duplicate=False)]
        self._tied = len(every) == len(set(every))
        self.names = self._chosen(choice, x)
        for name in self.names:
            if name not in self.trainable:
                raise ValueError(
                    f"parameter {name!r} does not require a gradient; call .requires_grad_() on it, "
                    "or pass parameters=[...] with the ones that were trained."
                )
        own = dict(self.module.named_parameters())
        require_dtype(own, self.names)
        self.shapes = tuple(own[name].shape for name in self.names)
        self.sizes = tuple(shape.numel() for shape in self.shapes)
        self.theta = torch.cat([own[name].detach().reshape(-1) for name in self.names]).clone()
        self.source, self.structure = weakref.ref(model), structure(model)

    def _chosen(self, choice: str | Sequence[str], x: Tensor | None) -> tuple[str, ...]:
        named = dict(self.module.named_parameters())
        if isinstance(choice, str) and choice == "all":
            if not self.trainable:
                raise ValueError(
                    "no parameter of the model requires a gradient; call model.requires_grad_(), or .requires_grad_() "
                    "on the layers that were trained."
                )
            return tuple(name for name in named if name in self.trainable)
        if isinstance(choice, str) and choice == "last":
            found = self.readout(x)
            if found is None:
                raise ValueError(
                    "parameters='last' needs an nn.Linear layer and the model has none; name the parameters instead."
                )
            inside = {id(p) for p in found.layer.parameters()}
            return tuple(name for name, p in named.items() if id(p) in inside)
        return chosen_names(named, choice)

    def readout(self, x: Tensor | None) -> Readout | None:
        """Return the last layer, found by a forward of x, or by definition if x is None."""
        return last_linear(self.module) if x is None else readout(self.module, self.run, x[:2])

    def run(self, x: Tensor) -> Tensor:
        """Return the outputs of the private copy."""
        return self.call({}, x)

    def __getstate__(self) -> dict[str, object]:
        """Leave the caller's model behind when sent to another process."""
        return {**self.__dict__, "source": none_reference}

    def call(self, named: dict[str, Tensor], x: Tensor, constants: Constants | None = None) -> Tensor:
        """Return the outputs of the private copy with some parameters replaced by name."""
        state = AttributeState(self.module, self.sets) if self.sets else None
        try:
            with DecompositionMode(constants):
                seen = x.clone() if self.writes_input else x
                return functional_call(self.module, named, (seen,), tie_weights=self._tied)
        finally:
            if state is not None:
                state.restore()

    def double(self) -> Parameters:
        """Return a copy in float64."""
        other = copy.copy(self)
        other.module = private_copy(self.module).double()
        other.theta = self.theta.double()
        return other

    def named(self, theta: Float[Tensor, " p"]) -> dict[str, Tensor]:
        """Return theta cut into named tensors, views where possible."""
        parts = theta.split(self.sizes)
        return {name: part.view(shape) for name, part, shape in zip(self.names, parts, self.shapes, strict=True)}

    def outputs(
        self, theta: Float[Tensor, " p"], x: Tensor, *, constants: Constants | None = None
    ) -> Float[Tensor, "n C"]:
        """Return the model's outputs at theta, other parameters unchanged; differentiable in theta.

        Args:
            theta: the chosen parameters.
            x: n examples.
            constants: a tape of constants, see ``DecompositionMode``.
        """
        return self.call(self.named(theta), x, constants)

    def place(self, named: Mapping[str, Tensor]) -> None:
        """Write parameters and buffers by name into the private copy, as values of what is not chosen.

        Args:
            named: any of the model's parameters and buffers, in their shapes; tables with a bound are shortened.
        """
        own = {**dict(self.module.named_parameters()), **dict(self.module.named_buffers())}
        with torch.no_grad():
            for name, value in named.items():
                own[name].copy_(renormalise(value, *self.bounds[name]) if name in self.bounds else value)

    def with_buffers(self, buffers: Mapping[str, Tensor]) -> Parameters:
        """Return a copy with other buffers.

        Raises:
            ValueError: a name that is no buffer of the model, or another shape.
        """
        own = dict(self.module.named_buffers())
        wrong = [name for name, value in buffers.items() if name not in own or own[name].shape != value.shape]
        if wrong:
            raise ValueError(f"buffers holds {wrong}, which do not fit the model's {list(own)}; pass its own buffers.")
        other = copy.copy(self)
        other.module = private_copy(self.module)
        other.place(buffers)
        return other

    def model_at(self, theta: Float[Tensor, " p"]) -> nn.Module:
        """Return a new copy of the model whose chosen parameters are theta, trainable like the original."""
        model = private_copy(self.module)
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
        found = self.readout(x)
        if found is None:
            return None
        prefix, layer, _ = found
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
    """A final linear layer, if only it is trained: outputs = features @ matrix(theta)^T.

    A bias counts as the weight of a last feature that is always 1.
    """

    parameters: Parameters
    layer: nn.Linear
    has_bias: bool

    def features(self, x: Tensor) -> Float[Tensor, "n d"]:
        """Return the layer's inputs, with a column of ones if it has a bias."""
        seen: list[Tensor] = []
        hook = self.layer.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
        try:
            with torch.no_grad():
                self.parameters.run(x)
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


def require_finite_parameters(theta: Float[Tensor, " p"]) -> Float[Tensor, " p"]:
    """Return a model's parameters if none is NaN or infinite."""
    remedy = "its training has diverged: load weights from before, or train with a smaller rate"
    return require_finite("the model's parameters", theta, remedy=remedy)


def require_outputs(run: Callable[[Tensor], Tensor], x: Tensor, name: str = "train.x") -> Float[Tensor, "n C"]:
    """Return ``run(x)`` if the model can read x and returns one row of outputs an example.

    Raises:
        TypeError: outputs that are not one tensor.
        ValueError: a model that cannot read x, or outputs of another shape.
    """
    try:
        with torch.no_grad():
            outputs = run(x)
    except Exception as error:  # any error of a user's forward
        kind = "" if isinstance(error, RuntimeError) else f"{type(error).__name__}: "
        raise ValueError(
            f"the model cannot read {name}, {x.dtype} of shape {['n', *x.shape[1:]]}: {kind}{error}; "
            "pass examples shaped as the model expects."
        ) from error
    if not isinstance(outputs, Tensor):
        raise TypeError(
            f"the model returns a {type(outputs).__name__}, expected one tensor [n, C]; wrap it in a module "
            "whose forward returns that tensor."
        )
    if outputs.ndim != 2 or len(outputs) != len(x):
        raise ValueError(
            f"the model's outputs have shape {list(outputs.shape)} for {len(x)} examples, expected [n, C]; "
            "let it return one row of outputs per example."
        )
    return outputs
