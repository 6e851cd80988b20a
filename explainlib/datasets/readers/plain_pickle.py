"""Plain pickles: arrays, dicts, lists, strings and numbers come out of a pickle, and nothing it asks for is ever run.

A pickle is a program, and one of its instructions calls anything that Python can import. This reader knows seven
names, which it replaces by small functions that check their arguments; any other name is refused before anything runs.

It extends Python's pure Python unpickler: the one in C allocates memory by numbers in the file, which a flipped bit can
make huge. Instructions are counted (``bounds.max_objects``), keys are plain, no call makes more bytes than the file,
and containers nest at most eight deep: nested keys are costly to hash, and shared containers must not be copied.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from explainlib.datasets.bounds import (
    BYTES_PER_OBJECT,
    LONGEST_NAME,
    OBJECTS,
    format_size,
    format_value,
    max_objects,
    require_values,
    truncate,
    unreadable_error,
)
from explainlib.datasets.readers.plain_arrays import plain_array, plain_dtype, require_plain_shape

DEEPEST = 8  # containers inside each other; official files have three
MOST_BITS = 127  # of a whole number
REFUSED = (
    pickle.INST, pickle.OBJ, pickle.NEWOBJ, pickle.NEWOBJ_EX, pickle.EXT1, pickle.EXT2, pickle.EXT4,
    pickle.PERSID, pickle.BINPERSID, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER,
    pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET,
)  # fmt: skip
ADMITTED = "only arrays, dicts, lists, strings and numbers are admitted (nothing was run)"
MODULES = ("numpy.core.", "numpy._core.")  # before and since numpy 2
REMEDY = "replace it by the official file, or save its arrays with numpy.savez and use the .npz"
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
            nothing is run), it is cut short or damaged, it asks for more than a file of its size needs, or it holds
            no dict.
    """
    with open(path, "rb") as stream:
        size = require_values(path, path.stat().st_size)
        try:
            content = _Reader(_BoundedStream(stream, size)).load()
            if isinstance(content, dict):
                _fill_stand_ins(content)
        except DAMAGED as error:
            what = "it ends too early" if isinstance(error, EOFError) else str(error) or type(error).__name__
            # The first error may quote the whole file, and a traceback would print it.
            raise unreadable_error(path, truncate(what), REMEDY) from None
    if not isinstance(content, dict):
        raise unreadable_error(path, f"it holds a {type(content).__name__}, expected a dict", "use the official file")
    return content


class _Dtype:
    """What a pickle says about the kind of an array's values."""

    def __init__(self, text: object, align: object = False, copy: object = True) -> None:
        self.dtype = plain_dtype(text)

    def __setstate__(self, state: object) -> None:
        """Take over the byte order; a dtype with fields is refused."""
        _, order, *inner = state[:5]
        if order not in ("<", ">", "|", "=") or any(part is not None for part in inner):
            raise pickle.UnpicklingError("it holds an array with fields, and only plain numbers are admitted")
        self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """An array whose bytes are on their way."""

    def __init__(self, values: np.ndarray | None = None) -> None:
        self.values = np.empty(0, dtype=np.uint8) if values is None else values


class _BoundedStream:
    """A file of which nobody asks for more than it has: a damaged length would take memory before it fails."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self.stream, self.size = stream, size
        self.readline = stream.readline

    def read(self, count: int) -> bytes:
        """Return that many bytes, or those there are."""
        return self.stream.read(min(count, self.size - self.stream.tell()) if count > 1 else count)


class _Reader(pickle._Unpickler):
    """An unpickler that finds the names of plain arrays only, and builds nothing else."""

    def __init__(self, file: _BoundedStream) -> None:
        super().__init__(file, encoding="latin1")
        self.steps_left = self.most_steps = max_objects(file.size)
        self.bytes_left = file.size

    def find_class(self, module: str, name: str) -> object:
        """Return the replacement of a name."""
        inside = next((module.removeprefix(start) for start in MODULES if module.startswith(start)), module)
        found = {
            ("multiarray", "_reconstruct"): self.empty_array,
            ("multiarray", "scalar"): self.scalar,
            ("numeric", "_frombuffer"): self.array_of_buffer,
            ("numpy", "ndarray"): "ndarray",
            ("numpy", "dtype"): self.dtype,
            ("_codecs", "encode"): self.encoded,
            ("collections", "OrderedDict"): self.ordered,
        }.get((inside, name))
        if found is None:
            raise pickle.UnpicklingError(
                f"it asks for {format_value(module)[1:-1]}.{format_value(name)[1:-1]}, and {ADMITTED}"
            )
        return found

    def refuse_object(self) -> None:
        """Raise for an instruction that makes an object of a class, or a set."""
        raise pickle.UnpicklingError(f"it builds objects, and {ADMITTED}")

    def fill(self) -> None:
        """Give an array or a dtype its state; the usual instruction sets attributes on anything."""
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, _Dtype):
            target.__setstate__(state)
        elif isinstance(target, _Array):
            _, shape, kind, columns, content = state  # version, shape, dtype, by columns, bytes
            target.values = self.values(content, kind, shape, "F" if columns else "C")
        else:
            raise pickle.UnpicklingError(f"it sets attributes, and {ADMITTED}")

    def read_bytes(self) -> None:
        """Put bytes on the stack, as many as there are; the usual instruction takes the memory first."""
        (count,) = struct.unpack("<Q", self.read(8))
        self.append(self.read(count))

    def add(self) -> None:
        """Append one value to a list."""
        value = self.stack.pop()
        self.holder(list).append(value)

    def add_marked(self) -> None:
        """Append the values since the last mark to a list."""
        items = self.pop_mark()
        self.holder(list).extend(items)

    def set(self) -> None:
        """Set one key of a dict."""
        value, key = self.stack.pop(), self.stack.pop()
        self.holder(dict)[_key(key)] = value

    def set_marked(self) -> None:
        """Set the keys since the last mark in a dict."""
        items = self.pop_mark()
        self.holder(dict).update(_pairs(items[::2], items[1::2]))

    def dict_of_marked(self) -> None:
        """Make a dict of the keys and values since the last mark."""
        items = self.pop_mark()
        self.append(_pairs(items[::2], items[1::2]))

    def holder(self, kind: type) -> list | dict:
        """Return what is on top of the stack, if it is of the kind that takes values."""
        if not isinstance(self.stack[-1], kind):
            raise pickle.UnpicklingError(f"it adds values to a {type(self.stack[-1]).__name__}, and {ADMITTED}")
        return self.stack[-1]

    def dtype(self, *arguments: object) -> _Dtype:
        """Return the replacement of ``numpy.dtype(text, align, copy)``."""
        return _Dtype(*arguments)

    def ordered(self, pairs: object = ()) -> dict:
        """Return a dict of [key, value] pairs, as Python 2 writes an ordered one; dicts keep their order."""
        if not isinstance(pairs, list | tuple) or any(not isinstance(p, list | tuple) or len(p) != 2 for p in pairs):
            raise pickle.UnpicklingError(f"it makes an ordered dict of {format_value(pairs)}, expected pairs")
        self.count(len(pairs))
        return _pairs([key for key, _ in pairs], [value for _, value in pairs])

    def empty_array(self, kind: object, shape: object, code: object) -> _Array:
        """Return an array that the pickle fills in its next step."""
        if kind != "ndarray":
            raise pickle.UnpicklingError(f"it holds an array of kind {format_value(kind)}, expected ndarray")
        return _Array()

    def array_of_buffer(self, content: object, kind: object, shape: object, order: object) -> _Array:
        """Return an array of protocol 5, whose bytes come at once."""
        return _Array(self.values(content, kind, shape, order))

    def scalar(self, kind: object, content: object) -> object:
        """Return one number or string."""
        self.pay(len(content) if isinstance(content, bytes | str) else 0)
        return self.values(content, kind, (), "C").item()

    def encoded(self, text: object, encoding: object) -> bytes:
        """Return the bytes that Python 2 and protocol 2 write as a string."""
        if not isinstance(text, str) or encoding != "latin1":
            raise pickle.UnpicklingError(f"it encodes bytes as {format_value(encoding)}, expected 'latin1'")
        self.pay(len(text))
        return text.encode("latin1")

    def values(self, content: object, kind: object, shape: object, order: object) -> np.ndarray:
        """Return an array over these bytes; their number has to be what the shape promises."""
        if isinstance(content, str):
            self.pay(len(content))
            content = content.encode("latin1")
        if not isinstance(content, bytes) or not isinstance(kind, _Dtype):
            raise pickle.UnpicklingError("it holds an array of Python objects, and only plain numbers are admitted")
        if order not in ("C", "F"):
            raise pickle.UnpicklingError(f"it holds an array in the order {format_value(order)}, expected 'C' or 'F'")
        return plain_array(content, kind.dtype, require_plain_shape(shape, kind.dtype, len(content)), order)

    def count(self, steps: int) -> None:
        """Take instructions from what a file of this size may hold."""
        self.steps_left -= steps
        if self.steps_left < 0:
            raise pickle.UnpicklingError(
                f"it has more than {self.most_steps:,} instructions, expected at most one for {BYTES_PER_OBJECT} bytes "
                f"beyond {OBJECTS:,}"
            )

    def pay(self, count: int) -> None:
        """Take copied bytes from what a file of this size may ask for: a text that is kept can be copied for ever."""
        self.bytes_left -= count
        if self.bytes_left < 0:
            raise pickle.UnpicklingError("it copies the same bytes again and again, more than the file has")


def _count_steps(step: Callable[[_Reader], None]) -> Callable[[_Reader], None]:
    """Return an instruction that counts itself, and looks at the number it leaves behind."""

    def counted(reader: _Reader) -> None:
        reader.count(1)
        step(reader)
        if reader.stack and type(top := reader.stack[-1]) is int and top.bit_length() > MOST_BITS:
            raise pickle.UnpicklingError(f"it holds a whole number of {top.bit_length():,} bits")

    return counted


_Reader.dispatch = {
    code: _count_steps(step)
    for code, step in {
        **pickle._Unpickler.dispatch,
        **{code[0]: _Reader.refuse_object for code in REFUSED},
        pickle.BUILD[0]: _Reader.fill,
        pickle.BYTEARRAY8[0]: _Reader.read_bytes,
        pickle.APPEND[0]: _Reader.add,
        pickle.APPENDS[0]: _Reader.add_marked,
        pickle.SETITEM[0]: _Reader.set,
        pickle.SETITEMS[0]: _Reader.set_marked,
        pickle.DICT[0]: _Reader.dict_of_marked,
    }.items()
}


def _key(key: object) -> object:
    """Return a key that is a short name or a number."""
    if isinstance(key, str | bytes) and len(key) > LONGEST_NAME:
        raise pickle.UnpicklingError(
            f"it holds a key of {format_size(len(key))}, expected at most {LONGEST_NAME} letters"
        )
    if not isinstance(key, str | bytes | int | float | None):
        raise pickle.UnpicklingError(f"it holds a {type(key).__name__} as a key, expected a name or a number")
    return key


def _pairs(keys: list, values: list) -> dict:
    """Return a dict of as many keys as values."""
    if len(keys) != len(values):
        raise pickle.UnpicklingError("it holds a key without a value")
    return {_key(key): value for key, value in zip(keys, values, strict=True)}


def _fill_stand_ins(content: dict) -> None:
    """Put arrays in the place of their stand-ins, in every dict once, however often it is referred to."""
    level, seen = [content], set()
    for _ in range(DEEPEST):
        below = []
        for holder in level:
            if id(holder) in seen:
                continue
            seen.add(id(holder))
            if isinstance(holder, dict):
                holder.update({key: value.values for key, value in holder.items() if isinstance(value, _Array)})
            values = holder.values() if isinstance(holder, dict) else holder
            below += [value for value in values if isinstance(value, dict | list | tuple)]
        level = below
    if any(id(holder) not in seen for holder in level):
        raise pickle.UnpicklingError(f"it holds containers more than {DEEPEST} deep")
