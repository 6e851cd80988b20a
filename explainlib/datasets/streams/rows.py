"""A tensor x [n, ...] whose rows are read when they are indexed, and checked against the first reading."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor

from explainlib.checks import require_finite

if TYPE_CHECKING:
    from explainlib.datasets.streams.layout import InputLayout

WHOLE = 2**28  # bytes up to which all rows are read at once where a computation asks for it

Read = Callable[[Sequence[int]], Tensor]


class StreamedRows(Tensor):
    """x [n, ...], read a part at a time; ``x[rows]`` is an ordinary tensor.

    Computations that take the examples in parts read them so. One that needs all of them at once reads up to
    ``WHOLE`` bytes, and is refused above.

    Args:
        read: positions -> their rows, always the same, on any device.
        shape: [n, ...].
        dtype: of the rows.
        device: of the rows.
        checksums: crc32 of each row.
        inputs: the layout of several inputs; None of one.
    """

    read: Read
    checksums: Int[Tensor, " n"]
    inputs: InputLayout | None
    verified = False  # whether ``read`` compares checksums itself

    @staticmethod
    def __new__(
        cls,
        read: Read,
        shape: Sequence[int],
        dtype: torch.dtype,
        device: torch.device,
        checksums: Int[Tensor, " n"],
        inputs: InputLayout | None = None,
    ) -> StreamedRows:
        """Return a tensor without storage."""
        made = torch.Tensor._make_wrapper_subclass(cls, tuple(shape), dtype=dtype, device=device)
        made.read, made.checksums, made.inputs = read, checksums, inputs
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        """Compute with all rows, if they are few enough to be read at once."""
        if operation in (torch.ops.aten.detach.default, torch.ops.aten.alias.default):
            return args[0]

        def whole(value: object) -> object:
            if isinstance(value, StreamedRows):
                return value.materialised()
            if isinstance(value, list | tuple):
                return type(value)(whole(each) for each in value)
            return value

        return operation(*whole(tuple(args)), **{key: whole(value) for key, value in (kwargs or {}).items()})

    def __getitem__(self, rows: int | slice | Tensor | Sequence[int]) -> Tensor:
        """Return the chosen rows, read now.

        Raises:
            RuntimeError: a source that fails, with the position.
            ValueError: rows that differ from those of the first reading, or that are not finite.
        """
        if isinstance(rows, slice):
            return self._read(range(*rows.indices(len(self))))
        if isinstance(rows, int):
            return self._read([range(len(self))[rows]])[0]
        chosen = torch.as_tensor(rows)
        if chosen.ndim != 1:
            raise TypeError("streamed examples are indexed by positions, a slice or a mask of their first dimension.")
        return self._read((chosen.nonzero()[:, 0] if chosen.dtype == torch.bool else chosen).tolist())

    def split(self, size: int, dim: int = 0) -> Iterator[Tensor]:
        """Yield parts of ``size`` rows, each read when it is asked for."""
        return (self[start : start + size] for start in range(0, len(self), size))

    def materialised(self) -> Tensor:
        """Return all rows as an ordinary tensor.

        Raises:
            TypeError: more than ``WHOLE`` bytes.
        """
        if self.nbytes > WHOLE:
            raise TypeError(
                f"this computation needs all {len(self):,} streamed examples at once, {self.nbytes / 1e9:.1f} GB; pass "
                "Examples made of tensors, or fewer examples."
            )
        return self[:]

    def to(self, target: torch.dtype | torch.device | str) -> StreamedRows:
        """Return the same rows in another floating-point dtype or on another device."""
        dtype = target if isinstance(target, torch.dtype) else self.dtype
        device = self.device if isinstance(target, torch.dtype) else torch.device(target)
        own = lambda rows: self._checked_rows(rows).to(dtype)  # noqa: E731
        made = StreamedRows(own, self.shape, dtype, device, self.checksums, self.inputs)
        made.verified = True  # the checksums are of the rows before the conversion
        return made

    def __repr__(self, **options: object) -> str:
        """Return shape and dtype in one line."""
        return f"StreamedRows({list(self.shape)}, {self.dtype}, {self.device})"

    def _read(self, rows: Sequence[int]) -> Tensor:
        """Return rows, read in a thread of its own: function transforms and modes of the caller do not reach there."""
        if not len(rows):
            return torch.empty(0, *self.shape[1:], dtype=self.dtype, device=self.device)
        with ThreadPoolExecutor(1) as reader:
            found = reader.submit(self._checked_rows, list(rows)).result()
        return found.to(self.device)

    def _checked_rows(self, rows: list[int]) -> Tensor:
        if self.verified:
            return self.read(rows)
        found = require_finite("streamed x", self.read(rows).detach())
        differing = (row_checksums(found) != self.checksums[torch.tensor(rows)]).nonzero()
        if len(differing):
            raise ValueError(
                f"example {rows[int(differing[0])]} is another one than when it was read first; a source has to "
                "give the same examples in each pass: turn off shuffling and random transformations."
            )
        return found


def row_checksums(rows: Tensor) -> Int[Tensor, " n"]:
    """Return the crc32 of each row."""
    plain = rows.detach().cpu().contiguous().flatten(1) if rows.ndim > 1 else rows.detach().cpu()[:, None]
    return torch.tensor([zlib.crc32(row.numpy().data) for row in plain], dtype=torch.int64)
