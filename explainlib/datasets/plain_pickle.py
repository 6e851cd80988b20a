"""Plain pickles: arrays, dicts, lists, strings and numbers come out of a pickle, and nothing it asks for is ever run.

A pickle is a program, and one of its instructions calls anything that Python can import. This reader knows six names.
Even those stand for small functions of this file, which rebuild an array from its bytes; numpy's own ones trust what
they are told. Any other name is refused before anything happens.

It extends the unpickler that Python has in Python: the one in C takes memory by the numbers it reads in the file, and
a single flipped bit can ask for all there is.
"""

from __future__ import annotations

import math
import pickle
import re
import struct
from collections import OrderedDict
from pathlib import Path
from typing import BinaryIO

import numpy as np

PLAIN_DTYPE = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248]|[US]\d+)")
BUILDS_OBJECTS = (
    pickle.INST, pickle.OBJ, pickle.NEWOBJ, pickle.NEWOBJ_EX, pickle.EXT1, pickle.EXT2, pickle.EXT4,
    pickle.PERSID, pickle.BINPERSID, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER,
)  # fmt: skip
ADMITTED = "only arrays, dicts, lists, strings and numbers are admitted (nothing was run)"
MODULES = ("numpy.core.", "numpy._core.")  # before and since numpy 2
DAMAGED = (
    pickle.UnpicklingError,
    EOFError,
    AttributeError,
    ImportError,
    IndexError,
    KeyError,
    TypeError,
    ValueError,
    OverflowError,
    MemoryError,
    RecursionError,
    struct.error,
)


def read_plain_pickle(path: Path) -> dict:
    """Return the dict in a pickle; strings of Python 2 come as str, arrays are read-only.

    Args:
        path: a pickle of any protocol whose outermost value is a dict.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the pickle asks for anything but arrays, dicts, lists, strings and numbers (the message names it,
            nothing is run), it is cut short or damaged, or it holds no dict.
    """
    with open(path, "rb") as stream:
        try:
            content = _Reader(_Bounded(stream, path.stat().st_size), encoding="latin1").load()
        except DAMAGED as error:
            what = "it ends too early" if isinstance(error, EOFError) else str(error) or type(error).__name__
            raise ValueError(
                f"{path} cannot be read: {what}; replace it by the official file, or save its arrays with numpy.savez "
                "and use the .npz."
            ) from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} cannot be read: it holds a {type(content).__name__}, expected a dict; use the official file."
        )
    return _opened(content)


class _Dtype:
    """What a pickle says about the kind of an array's values."""

    def __init__(self, text: object, align: object = False, copy: object = True) -> None:
        if not isinstance(text, str) or not PLAIN_DTYPE.fullmatch(text):
            raise pickle.UnpicklingError(f"it holds an array of dtype {text!r}, and only plain numbers are admitted")
        self.dtype = np.dtype(text)

    def __setstate__(self, state: object) -> None:
        """Take over the byte order; a dtype with fields is refused."""
        _, order, *inner = state[:5]
        if order not in ("<", ">", "|", "=") or any(part is not None for part in inner):
            raise pickle.UnpicklingError("it holds an array with fields, and only plain numbers are admitted")
        self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """An array whose bytes are on their way."""

    def __init__(self) -> None:
        self.values = np.empty(0, dtype=np.uint8)

    def __setstate__(self, state: object) -> None:
        """Rebuild the values from (version, shape, dtype, by columns, bytes)."""
        _, shape, kind, columns, content = state
        self.values = _values(content, kind, shape, "F" if columns else "C")


class _Bounded:
    """A file of which nobody asks for more than it has: a damaged length would take memory before it fails."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self.stream, self.size = stream, size
        self.readline = stream.readline

    def read(self, count: int) -> bytes:
        """Return that many bytes, or those there are."""
        return self.stream.read(min(count, self.size))


class _Reader(pickle._Unpickler):
    """An unpickler that finds the names of plain arrays only, and builds nothing else."""

    dispatch = dict(pickle._Unpickler.dispatch)

    def find_class(self, module: str, name: str) -> object:
        """Return what stands for a name."""
        inside = next((module.removeprefix(start) for start in MODULES if module.startswith(start)), module)
        found = {
            ("multiarray", "_reconstruct"): self.empty_array,
            ("multiarray", "scalar"): self.scalar,
            ("numeric", "_frombuffer"): self.array_of_buffer,
            ("numpy", "ndarray"): "ndarray",
            ("numpy", "dtype"): self.dtype,
            ("_codecs", "encode"): self.encoded,
            ("collections", "OrderedDict"): OrderedDict,
        }.get((inside, name))
        if found is None:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, and {ADMITTED}")
        return found

    def refuse_object(self) -> None:
        """Raise for an instruction that makes an object of a class."""
        raise pickle.UnpicklingError(f"it builds objects, and {ADMITTED}")

    def fill(self) -> None:
        """Give an array or a dtype its state; the usual instruction sets attributes on anything."""
        state = self.stack.pop()
        if not isinstance(self.stack[-1], _Array | _Dtype):
            raise pickle.UnpicklingError(f"it sets attributes, and {ADMITTED}")
        self.stack[-1].__setstate__(state)

    def read_bytes(self) -> None:
        """Put bytes on the stack, as many as there are; the usual instruction takes the memory first."""
        (count,) = struct.unpack("<Q", self.read(8))
        self.append(self.read(count))

    dispatch.update(dict.fromkeys((code[0] for code in BUILDS_OBJECTS), refuse_object))
    dispatch.update({pickle.BUILD[0]: fill, pickle.BYTEARRAY8[0]: read_bytes})

    def dtype(self, *arguments: object) -> _Dtype:
        """Return what stands for ``numpy.dtype(text, align, copy)``."""
        return _Dtype(*arguments)

    def empty_array(self, kind: object, shape: object, code: object) -> _Array:
        """Return an array that the pickle fills in its next step."""
        if kind != "ndarray":
            raise pickle.UnpicklingError(f"it holds an array of kind {kind!r}, expected ndarray")
        return _Array()

    def array_of_buffer(self, content: object, kind: object, shape: object, order: object) -> _Array:
        """Return an array of protocol 5, whose bytes come at once."""
        array = _Array()
        array.values = _values(content, kind, shape, order)
        return array

    def scalar(self, kind: object, content: object) -> object:
        """Return one number or string."""
        return _values(content, kind, (), "C").item()

    def encoded(self, text: object, encoding: object) -> bytes:
        """Return the bytes that Python 2 and protocol 2 write as a string."""
        if not isinstance(text, str) or encoding != "latin1":
            raise pickle.UnpicklingError(f"it encodes bytes as {encoding!r}, expected 'latin1'")
        return text.encode("latin1")


def _values(content: object, kind: object, shape: object, order: object) -> np.ndarray:
    """Return an array over these bytes; their number has to be what the shape promises."""
    if isinstance(content, str):
        content = content.encode("latin1")
    if not isinstance(content, bytes) or not isinstance(kind, _Dtype):
        raise pickle.UnpicklingError("it holds an array of Python objects, and only plain numbers are admitted")
    if not isinstance(shape, tuple) or not all(isinstance(length, int) and length >= 0 for length in shape):
        raise pickle.UnpicklingError(f"it holds an array of shape {shape!r}")
    if order not in ("C", "F"):
        raise pickle.UnpicklingError(f"it holds an array in the order {order!r}, expected 'C' or 'F'")
    if math.prod(shape) * kind.dtype.itemsize != len(content):
        raise pickle.UnpicklingError(
            f"it promises an array of shape {shape} and dtype {kind.dtype}, but holds {len(content)} bytes for it"
        )
    if not content:
        return np.empty(shape, dtype=kind.dtype)
    return np.frombuffer(content, dtype=kind.dtype).reshape(shape, order=order)


def _opened(value: object, depth: int = 3) -> object:
    """Return the value with arrays in the place of their stand-ins, in dicts of dicts."""
    if isinstance(value, _Array):
        return value.values
    if isinstance(value, dict) and depth:
        return {key: _opened(inner, depth - 1) for key, inner in value.items()}
    return value
