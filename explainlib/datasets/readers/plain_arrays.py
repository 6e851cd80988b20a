"""Arrays made of bytes from a file: plain numbers and texts, of exactly the bytes that shape and dtype ask for."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np

from explainlib.datasets.bounds import format_value, truncate

PLAIN_DTYPE = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248]|[US][1-9]\d{0,5})")  # a text of no letters takes no bytes
MOST_DIMENSIONS = 8
LAST_LETTER, SURROGATES = 0x10FFFF, (0xD800, 0xDFFF)


class NotPlainError(ValueError):
    """What is wrong with an array; whoever reads the file adds its name."""


def plain_dtype(text: object) -> np.dtype:
    """Return the dtype of that name.

    Raises:
        NotPlainError: anything but numbers and texts of one letter or more.
    """
    if not isinstance(text, str) or not PLAIN_DTYPE.fullmatch(text):
        said = truncate(text) if isinstance(text, str) else format_value(text)
        raise NotPlainError(f"it holds an array of dtype {said!r}, and only plain numbers and texts are admitted")
    return np.dtype(text)


def require_plain_shape(shape: object, dtype: np.dtype, held: int) -> tuple[int, ...]:
    """Return ``shape`` if it has few lengths and asks for exactly the bytes that are held.

    Raises:
        NotPlainError: otherwise.
    """
    lengths = isinstance(shape, tuple) and all(isinstance(n, int) and n >= 0 for n in shape)
    if not lengths or len(shape) > MOST_DIMENSIONS:
        raise NotPlainError(
            f"it holds an array of shape {format_value(shape)}, expected at most {MOST_DIMENSIONS} lengths"
        )
    if math.prod(shape) * dtype.itemsize != held:
        raise NotPlainError(f"it promises an array of shape {shape} and dtype {dtype}, but holds {held} bytes for it")
    return shape


def plain_array(content: bytes | memoryview, dtype: np.dtype, shape: Sequence[int], order: str) -> np.ndarray:
    """Return the array over these bytes, without a copy.

    Args:
        content: as many bytes as ``require_plain_shape`` has compared.
        dtype: as ``plain_dtype`` made it.
        shape: lengths.
        order: "C" for row by row, "F" for column by column.

    Raises:
        NotPlainError: a text with numbers that are no letters, which numpy would hand to Python as they are.
    """
    if not len(content):
        return np.empty(shape, dtype=dtype)
    if dtype.kind == "U":
        letters = np.frombuffer(content, dtype=np.dtype(np.uint32).newbyteorder(dtype.byteorder))
        if letters.max() > LAST_LETTER or ((letters >= SURROGATES[0]) & (letters <= SURROGATES[1])).any():
            raise NotPlainError("it holds an array of texts with bytes that are no letters")
    return np.frombuffer(content, dtype=dtype).reshape(shape, order=order)
