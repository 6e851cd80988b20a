"""Models with several inputs, or with outputs that are no tensor [n, C], in the form that all formulas take."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from explainlib.datasets import InputLayout


class Adapted(nn.Module):
    """A module from packed inputs to outputs [n, C].

    Args:
        model: any module.
        layout: of its inputs; None where it takes one tensor.
        outputs: see ``adapted``.
    """

    def __init__(
        self, model: nn.Module, layout: InputLayout | None, outputs: str | int | Callable[[object], Tensor] | None
    ) -> None:
        super().__init__()
        self.model, self.layout, self.outputs = model, layout, outputs

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs [n, C] of packed inputs."""
        if self.layout is None:
            found = self.model(x)
        else:
            parts = self.layout.unpack(x)
            names = self.layout.names
            found = self.model(*parts) if names is None else self.model(**dict(zip(names, parts, strict=True)))
        if callable(self.outputs):
            found = self.outputs(found)
        elif isinstance(self.outputs, str) and not isinstance(found, Mapping):
            found = getattr(found, self.outputs)
        elif self.outputs is not None:
            found = found[self.outputs]
        return found.flatten(1)


def adapted(
    model: nn.Module,
    *,
    inputs: InputLayout | None = None,
    outputs: str | int | Callable[[object], Tensor] | None = None,
) -> nn.Module:
    """Return a module that calls the model on packed inputs and returns outputs [n, C].

    Args:
        model: any module; it is held, not copied. Its parameters' names begin with "model.".
        inputs: ``x.inputs`` of streamed examples, or an ``InputLayout`` by which inputs were packed: by name as keyword
            arguments, by position in their order. None: the model takes one tensor.
        outputs: which of what the model returns: a key, an attribute ("logits"), a position, or a function of it; None:
            all. More than two dimensions are flattened: logits of tokens [n, T, V] become [n, T V], which
            ``loss="token_cross_entropy"`` reads.

    Raises:
        TypeError: no module, or no layout.

    Example:
        >>> import torch
        >>> layout = InputLayout.of({"input": torch.ones(1, 2)})
        >>> adapted(nn.Linear(2, 3), inputs=layout)(torch.ones(4, 2)).shape
        torch.Size([4, 3])
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}, expected an nn.Module.")
    if not (inputs is None or isinstance(inputs, InputLayout)):
        raise TypeError(f"inputs is a {type(inputs).__name__}; pass x.inputs of streamed examples, or an InputLayout.")
    made = Adapted(model, inputs, outputs)
    return made.train(model.training)
