"""Several inputs of a model as one tensor, and back: every formula of the library reads one x."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class InputLayout:
    """Where each of several inputs stands in one row of numbers.

    Whole numbers and Booleans are held exactly: as int64 where all inputs are, else as the inputs' floating-point
    dtype, in which they have to be representable.

    Attributes:
        names: of the inputs, by which the model is called; None: by position.
        shapes: of one example of each.
        dtypes: of each.

    Example:
        >>> layout = InputLayout.of({"ids": torch.tensor([[3, 4]]), "mask": torch.tensor([[True, False]])})
        >>> layout.pack({"ids": torch.tensor([[3, 4]]), "mask": torch.tensor([[True, False]])})
        tensor([[3, 4, 1, 0]])
    """

    names: tuple[str, ...] | None
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[torch.dtype, ...]

    @classmethod
    def of(cls, inputs: Mapping[str, object] | Sequence[object]) -> InputLayout:
        """Return the layout of a batch of inputs.

        Args:
            inputs: tensors [n, ...] by name, or in the order of the model's arguments.

        Raises:
            TypeError: no tensors, or inputs of several floating-point dtypes.
        """
        names = tuple(inputs) if isinstance(inputs, Mapping) else None
        values = list(inputs.values()) if names is not None else list(inputs)
        if not values or not all(isinstance(value, Tensor) and value.ndim for value in values):
            kinds = ", ".join(type(value).__name__ for value in values) or "nothing"
            raise TypeError(f"inputs hold {kinds}, expected tensors [n, ...]; choose them with inputs=.")
        floating = {value.dtype for value in values if value.is_floating_point()}
        if len(floating) > 1:
            raise TypeError(f"inputs have the dtypes {sorted(map(str, floating))}; convert them to one in collate_fn.")
        return cls(names, tuple(tuple(v.shape[1:]) for v in values), tuple(v.dtype for v in values))

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the packed rows."""
        return next((dtype for dtype in self.dtypes if dtype.is_floating_point), torch.int64)

    def pack(self, inputs: Mapping[str, object] | Sequence[object]) -> Tensor:
        """Return the inputs of n examples as rows [n, k].

        Raises:
            ValueError, TypeError: other inputs, shapes or dtypes, or a whole number that the dtype cannot hold.
        """
        own = InputLayout.of(inputs)
        if own != self:
            raise ValueError(
                f"a batch has the inputs {own.words()}, the first one {self.words()}; pad to one length in collate_fn."
            )
        values = list(inputs.values()) if isinstance(inputs, Mapping) else list(inputs)
        parts = [value.flatten(1) if value.ndim > 1 else value[:, None] for value in values]
        packed = [part.to(self.dtype) for part in parts]
        for part, made in zip(parts, packed, strict=True):
            if not part.is_floating_point() and part.dtype != torch.bool and not torch.equal(made.to(part.dtype), part):
                raise ValueError(
                    f"inputs hold whole numbers up to {int(part.abs().max())}, too large for {self.dtype}."
                )
        return torch.cat(packed, dim=1)

    def unpack(self, rows: Tensor) -> list[Tensor]:
        """Return the inputs from rows [n, k], in their order and dtypes; floating-point ones in the rows' dtype."""
        parts = rows.split([math.prod(shape) for shape in self.shapes], dim=1)
        found = []
        for part, shape, dtype in zip(parts, self.shapes, self.dtypes, strict=True):
            value = part.reshape(len(part), *shape)
            found.append(value if dtype.is_floating_point else value.to(dtype))
        return found

    def words(self) -> str:
        """Return names, shapes and dtypes for a message."""
        names = self.names or [str(i) for i in range(len(self.shapes))]
        parts = zip(names, self.shapes, self.dtypes, strict=True)
        return ", ".join(f"{name} {str(dtype).removeprefix('torch.')} {list(shape)}" for name, shape, dtype in parts)
