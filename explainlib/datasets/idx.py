"""Idx files: a magic number, the lengths of the dimensions, then plain bytes; read strictly, for nothing else checks.

Layout, big endian: two zero bytes, a type code (0x08 is unsigned byte), the number of dimensions, one 4-byte length
for each, the values row by row. Packed (gzip) and unpacked files are told apart by their first bytes.
Source: the description published with MNIST (LeCun, Cortes, Burges).
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

UNSIGNED_BYTE = 0x08
CHUNK = 1 << 20


def read_idx(path: Path, dims: int) -> UInt8[Tensor, "*shape"]:
    """Return the values of an idx file of unsigned bytes.

    Args:
        path: packed or unpacked file.
        dims: how many dimensions it has to have: 1 for labels, 3 for grey images.

    Returns:
        uint8 tensor of the shape in the header.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an idx file of unsigned bytes with ``dims`` dimensions, cut short, longer than its header
            says, or damaged packing; the message names the file.
    """
    with _opened(path) as stream:
        shape = _shape(stream, path, dims)
        expected = math.prod(shape)
        # Never one read of the promised size: a damaged header may promise more than the machine has.
        values = bytearray()
        while len(values) <= expected and (piece := stream.read(CHUNK)):
            values += piece
    if len(values) != expected:
        surplus = "more" if len(values) > expected else f"only {len(values)}"
        raise _damaged(path, f"its header promises {shape} = {expected} values, but it holds {surplus}")
    return torch.frombuffer(values, dtype=torch.uint8).reshape(shape)


def idx_count(path: Path, dims: int) -> int:
    """Return how many items an idx file says it holds, from its header alone.

    Raises:
        FileNotFoundError, ValueError: as ``read_idx``.
    """
    with _opened(path) as stream:
        return _shape(stream, path, dims)[0]


@contextmanager
def _opened(path: Path) -> Iterator[BufferedIOBase]:
    """Open a packed or unpacked file; damaged packing becomes a ValueError that names it."""
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path, "rb") if packed else open(path, "rb") as stream:
            yield stream
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise _damaged(path, f"its gzip packing is broken ({error})") from error


def _shape(stream: BufferedIOBase, path: Path, dims: int) -> list[int]:
    """Return the lengths of the dimensions from the header, all at least 1."""
    header = stream.read(4 + 4 * dims)
    if len(header) < 4:
        raise _damaged(path, f"it holds {len(header)} bytes, too few for a header")
    zeros, kind, found = struct.unpack(">HBB", header[:4])
    if zeros or kind != UNSIGNED_BYTE or found != dims:
        expected = f"00 00 {UNSIGNED_BYTE:02x} {dims:02x} (idx, unsigned bytes, {dims} dimensions)"
        raise _damaged(path, f"it begins with {header[:4].hex(' ')}, expected {expected}")
    if len(header) < 4 + 4 * dims:
        raise _damaged(path, "it ends inside its header")
    shape = list(struct.unpack(f">{dims}I", header[4:]))
    if not all(shape):
        raise _damaged(path, f"its header promises the shape {shape}, which is empty")
    return shape


def _damaged(path: Path, what: str) -> ValueError:
    """Return the error for a file that cannot be used."""
    return ValueError(f"{path} cannot be read: {what}; replace it by the official file.")
