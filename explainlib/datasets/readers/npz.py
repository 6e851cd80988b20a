"""Plain npz files: the arrays one asks for, measured by their headers first; the others are never unpacked.

An .npz is a zip of .npy members: a magic number, a header of text (dtype, order, shape), then the values. A header is
believed if its shape and dtype ask for exactly the bytes that the member has, and these are in proportion to the file.
Source: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

import io
import struct
import tokenize
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from explainlib.datasets.bounds import format_list, format_value, require_values, truncate, unreadable_error
from explainlib.datasets.readers.archives import member_content, member_start, open_zip
from explainlib.datasets.readers.plain_arrays import NotPlainError, plain_array, plain_dtype, require_plain_shape

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
        with open_zip(path) as archive:
            names = [member.filename.removesuffix(SUFFIX) for member in archive.infolist()]
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise unreadable_error(path, f"it holds two arrays of the name {format_value(twice[0])}")
        self.names = names

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.names:
            raise KeyError(name)
        with open_zip(self.path) as archive:
            member = next(m for m in archive.infolist() if m.filename.removesuffix(SUFFIX) == name)
            return self._array(archive, member)

    def _array(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
        """Return the values of one member: its header, then exactly the bytes that the header asks for."""
        name = format_value(member.filename)
        start = io.BytesIO(member_start(archive, member, self.path, LARGEST_HEADER))
        try:
            shape, by_columns, found = HEADERS[np.lib.format.read_magic(start)](start, max_header_size=LARGEST_HEADER)
        except NO_HEADER as error:
            said = truncate(str(error) or type(error).__name__)
            raise unreadable_error(self.path, f"its array {name} has no readable header ({said})") from None
        try:
            dtype = plain_dtype(found.str if found.names is None else str(found))
            shape = require_plain_shape(shape, dtype, member.file_size - start.tell())
            require_values(self.path, member.file_size, f"its array {name}")
            values = memoryview(member_content(archive, member, self.path))[start.tell() :]
            return plain_array(values, dtype, shape, "F" if by_columns else "C")
        except NotPlainError as error:
            raise unreadable_error(self.path, f"{error} ({name})") from None

    def __repr__(self) -> str:
        return f"PlainNpz({self.path}, {format_list(self.names)})"
