"""What a file may cost: one rule for every reader, checked before anything is allocated.

A file is believed as far as its own size carries. The memory that its values ask for has to satisfy

    bytes of values <= ALLOWANCE + AMPLIFICATION * bytes of the file,   and fit into the memory that is free

and the number of things in it that are not array values (numbers of a list, names, instructions of a pickle)

    things <= OBJECTS + bytes of the file / BYTES_PER_OBJECT.

Official files stay far below. MNIST unpacks to 4.8 times its size, its labels to 2.1 times; plain arrays keep their
size; and every picture that has a label or a name of its own takes 3,072 bytes or more. There is no largest file.
Numbers, names and texts that a file chose are shortened before they stand in a message.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import torch

from explainlib.memory import format_bytes, free_memory

ALLOWANCE = 16 * 2**20  # bytes of values that the smallest file may ask for
AMPLIFICATION = 8  # bytes of values for a byte of the file beyond that
OBJECTS, BYTES_PER_OBJECT = 100_000, 128
LONGEST_NAME = 1_000  # letters of a key, a class or a member; official ones have at most 80
LONGEST_WORDS = 200  # letters of what a message quotes
NAMES_SHOWN = 6
OFFICIAL = "replace it by the official file"


def max_values(size: int) -> int:
    """Return how many bytes of values a file of ``size`` bytes may ask for."""
    return ALLOWANCE + AMPLIFICATION * size


def max_objects(size: int) -> int:
    """Return how many objects a file of ``size`` bytes may hold besides its array values."""
    return OBJECTS + size // BYTES_PER_OBJECT


def require_values(path: Path, promised: int, what: str = "its values") -> int:
    """Return ``promised`` if a file may ask for that many bytes.

    Args:
        path: the file.
        promised: bytes of the values it announces.
        what: what they are, for the message.

    Raises:
        ValueError: more than the rule above allows, or than the memory that is free.
    """
    size = path.stat().st_size
    if promised > max_values(size):
        raise unreadable_error(
            path,
            f"{what} would take {format_size(promised)} of memory and the file has {format_size(size)}, "
            f"expected at most {format_size(max_values(size))}",
        )
    free = free_memory(torch.device("cpu"))
    if promised > free:
        raise unreadable_error(
            path, f"{what} would take {format_size(promised)} of memory, and {format_size(free)} are free",
            "read it on a machine with more memory, or take a smaller part of the file",
        )  # fmt: skip
    return promised


def require_several(path: Path, count: int) -> None:
    """Pass the number of examples of a file that is to be split.

    Raises:
        ValueError: one example alone.
    """
    if count < 2:
        raise unreadable_error(path, f"it holds {count} example, expected one to train on and one to test, at least")


def unreadable_error(path: Path, what: str, remedy: str = OFFICIAL) -> ValueError:
    """Return the error for a file that cannot be used: its path, what was found, and the remedy."""
    return ValueError(f"{path} cannot be read: {what}; {remedy}.")


def format_size(size: int) -> str:
    """Return a number of bytes in words; one that no disk holds is called enormous."""
    return format_bytes(size) if size < 10**18 else "an enormous number of bytes"


def format_value(value: object) -> str:
    """Return what a message says about a value from a file: its repr, two levels deep and cut."""
    try:
        return truncate(_SHORT.repr(value))
    except (ValueError, RecursionError, MemoryError):  # a number with more digits than Python prints
        return f"a {type(value).__name__}"


def truncate(text: str) -> str:
    """Return a text cut to 200 letters, with the number of those left out."""
    if len(text) <= LONGEST_WORDS:
        return text
    return f"{text[:LONGEST_WORDS]}... ({len(text) - LONGEST_WORDS:,} more letters)"


def format_list(names: Iterable[object]) -> str:
    """Return a few names as a list in brackets, each shortened, and how many more there are."""
    names = iter(names)
    few = [format_value(name) for name in islice(names, NAMES_SHOWN)]
    more = sum(1 for _ in names)
    return f"[{', '.join(few)}]" + f" and {more:,} more" * (more > 0)


def _short() -> reprlib.Repr:
    """Return the shortener of values: strings to 80 letters, containers to six entries on two levels."""
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother, short.maxlong = 2, 80, 80, 40
    return short


_SHORT = _short()
