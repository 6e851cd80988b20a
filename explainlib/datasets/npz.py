"""Plain npz files: the arrays one asks for, measured by their headers first; the others are never unpacked.

An .npz is a zip of .npy members: a magic number, a header of text (dtype, order, shape), then the values. A header is
believed if its shape and dtype ask for exactly the bytes that the member has, and these are in proportion to the file.
Source: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

import io
import math
import struct
import tokenize
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from explainlib.datasets.archives import member_content, member_start, opened_zip
from explainlib.datasets.bounds import clipped, listed, require_values, shown, unreadable
from explainlib.datasets.plain_pickle import MOST_DIMENSIONS, PLAIN_DTYPE

LARGEST_HEADER = 1_024  # bytes; those of plain arrays have 128
SUFFIX = ".npy"
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
NO_HEADER = (
    ValueError, TypeError, SyntaxError, tokenize.TokenError, struct.error, EOFError, KeyError, IndexError,
    AttributeError, OverflowError, RecursionError, MemoryError,
)  # fmt: skip


class PlainNpz(Mapping[str, np.ndarray]):
    """The arrays of an .npz by name; each is read when it is asked for.

    Args:
        path: the file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a whole .npz; on access, an array that is not plain, damaged, or larger than the file explains.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with opened_zip(path) as archive:
            names = [member.filename.removesuffix(SUFFIX) for member in archive.infolist()]
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise unreadable(path, f"it holds two arrays of the name {shown(twice[0])}")
        self.names = names

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.names:
            raise KeyError(name)
        with opened_zip(self.path) as archive:
            member = next(m for m in archive.infolist() if m.filename.removesuffix(SUFFIX) == name)
            return self._array(archive, member)

    def _array(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
        """Return the values of one member."""
        start = io.BytesIO(member_start(archive, member, self.path, LARGEST_HEADER))
        shape, by_columns, dtype = self._header(start, member.filename)
        count, there = math.prod(shape) * dtype.itemsize, member.file_size - start.tell()
        if count != there:
            raise self._wrong(
                member.filename, f"promises an array of shape {shown(shape)} and dtype {dtype}, but has {there:,} bytes"
            )
        require_values(self.path, member.file_size, f"its array {shown(member.filename)}")
        values = np.frombuffer(member_content(archive, member, self.path), dtype=np.uint8)[start.tell() :]
        # Before the values stand at least 10 bytes of header, as many as the writer liked: they may lie unaligned.
        aligned = np.require(np.frombuffer(values, dtype=dtype), requirements="A")
        return aligned.reshape(shape, order="F" if by_columns else "C")

    def _header(self, start: io.BytesIO, name: str) -> tuple[tuple[int, ...], bool, np.dtype]:
        """Return shape, order and dtype from the first bytes of a member."""
        try:
            version = np.lib.format.read_magic(start)
            shape, by_columns, dtype = HEADERS[version](start, max_header_size=LARGEST_HEADER)
        except NO_HEADER as error:
            said = clipped(str(error) or type(error).__name__)
            raise self._wrong(name, f"has no readable header ({said})") from None
        if dtype.hasobject or not PLAIN_DTYPE.fullmatch(dtype.str):
            raise self._wrong(name, f"has dtype {clipped(str(dtype))}, and only plain numbers and texts are admitted")
        if len(shape) > MOST_DIMENSIONS or not all(type(n) is int and 0 <= n < 2**63 for n in shape):
            raise self._wrong(name, f"has shape {shown(shape)}, expected at most {MOST_DIMENSIONS} lengths")
        return shape, by_columns, dtype

    def _wrong(self, name: str, what: str) -> ValueError:
        """Return the error for a member that cannot be used."""
        return unreadable(self.path, f"its array {shown(name)} {what}")

    def __repr__(self) -> str:
        return f"PlainNpz({self.path}, {listed(self.names)})"
