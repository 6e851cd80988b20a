"""Idx files: a magic number, the lengths of the dimensions, then plain bytes; read strictly, for nothing else checks.

Layout, big endian: two zero bytes, a type code (0x08 is unsigned byte), the number of dimensions, one 4-byte length
for each, the values row by row. Compressed (gzip) and plain files are distinguished by their first bytes.
Source: the description published with MNIST (LeCun, Cortes, Burges).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from contextlib import closing
from itertools import chain
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from explainlib.datasets.bounds import require_values, unreadable_error
from explainlib.datasets.readers.archives import CHUNK, decompress, is_gzip

UNSIGNED_BYTE = 0x08


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
            says, damaged packing, or a header that promises more than a file of its size holds; the message names the
            file.
    """
    with closing(_chunks(path)) as pieces:
        shape, beginning = _shape(path, dims, pieces)
        values, done = bytearray(math.prod(shape)), 0
        for piece in chain((beginning,), pieces):
            if done + len(piece) > len(values):
                raise _other_length(path, shape, "more")
            values[done : done + len(piece)] = piece
            done += len(piece)
    if done != len(values):
        raise _other_length(path, shape, f"only {done}")
    return torch.frombuffer(values, dtype=torch.uint8).reshape(shape)


def idx_count(path: Path, dims: int) -> int:
    """Return how many items an idx file says it holds, from its header alone.

    Raises:
        FileNotFoundError, ValueError: as ``read_idx``.
    """
    with closing(_chunks(path)) as pieces:
        return _shape(path, dims, pieces)[0][0]


def _chunks(path: Path) -> Iterator[bytes]:
    """Yield the content of a packed or unpacked file."""
    if is_gzip(path):
        yield from decompress(path)
        return
    with open(path, "rb") as file:
        while piece := file.read(CHUNK):
            yield piece


def _shape(path: Path, dims: int, pieces: Iterator[bytes]) -> tuple[list[int], bytes]:
    """Return the lengths of the dimensions, all at least 1, and the values that came along with the header."""
    length, header = 4 + 4 * dims, b""
    while len(header) < length and (piece := next(pieces, b"")):
        header += piece
    if len(header) < 4:
        raise unreadable_error(path, f"it holds {len(header)} bytes, too few for a header")
    zeros, kind, found = struct.unpack(">HBB", header[:4])
    if zeros or kind != UNSIGNED_BYTE or found != dims:
        expected = f"00 00 {UNSIGNED_BYTE:02x} {dims:02x} (idx, unsigned bytes, {dims} dimensions)"
        raise unreadable_error(path, f"it begins with {header[:4].hex(' ')}, expected {expected}")
    if len(header) < length:
        raise unreadable_error(path, "it ends inside its header")
    shape = list(struct.unpack(f">{dims}I", header[4:length]))
    if not all(shape):
        raise unreadable_error(path, f"its header promises the shape {shape}, which is empty")
    held = path.stat().st_size - length
    if math.prod(shape) > held and not is_gzip(path):
        raise _other_length(path, shape, f"only {held}")
    require_values(path, math.prod(shape), f"the shape {shape} of its header")
    return shape, header[length:]


def _other_length(path: Path, shape: list[int], held: str) -> ValueError:
    """Return the error for a file whose values are not as many as its header promises."""
    return unreadable_error(path, f"its header promises {shape} = {math.prod(shape)} values, but it holds {held}")
