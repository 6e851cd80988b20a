"""Memory: what is free, and limits of computations.

Computations in parts use a quarter of free memory by default (``memory_limit``). A large allocation is estimated first
and refused if it does not fit (``require_memory``), with what the very
function that was called offers instead (``alternatives``).
"""

from __future__ import annotations

from contextlib import ContextDecorator
from contextvars import ContextVar, Token
from pathlib import Path

import torch
from torch import Tensor

SMALL = 2**26  # bytes that are always there
UNKNOWN = 4 * 2**30  # where the system does not report free memory


def memory_limit(memory: int | float | None, device: torch.device) -> int:
    """Return the bytes of working memory of a computation.

    Args:
        memory: bytes, above zero; None is a quarter of free memory on the device.
        device: of the tensors.

    Raises:
        ValueError: not above zero.
    """
    if memory is None:
        return free_memory(device) // 4
    if isinstance(memory, bool) or not memory > 0:
        raise ValueError(
            f"memory={memory} has to be a number of bytes above zero; None takes a quarter of what is free."
        )
    return int(memory)


class TooLargeError(ValueError):
    """Something that would not fit into memory was not begun."""


_offered: ContextVar[str | None] = ContextVar("alternatives", default=None)


class alternatives(ContextDecorator):
    """Declare a function's alternatives for ``TooLargeError``; those of the outermost function are used.

    Args:
        offered: options or functions that exist, as the end of a sentence: "pass solver='cg'".
    """

    def __init__(self, offered: str) -> None:
        self.offered = offered
        self._tokens: list[Token | None] = []

    def _recreate_cm(self) -> alternatives:
        return alternatives(self.offered)

    def __enter__(self) -> alternatives:
        """Declare them, unless an outer function did."""
        self._tokens.append(_offered.set(self.offered) if _offered.get() is None else None)
        return self

    def __exit__(self, *error: object) -> None:
        """Take the offer back."""
        token = self._tokens.pop()
        if token is not None:
            _offered.reset(token)


def require_memory(what: str, size: int | float, device: torch.device, *, otherwise: str = "use less of it") -> None:
    """Return nothing; raise before anything is allocated if ``size`` bytes are not free.

    Args:
        what: is to be held, with the numbers that decide: "the Hessian of p = 1,001,000 parameters".
        size: bytes, working copies included.
        device: where.
        otherwise: the alternative, where no calling function declares one.

    Raises:
        TooLargeError: more than the free memory of the device.
    """
    if size < SMALL:
        return
    free = free_memory(device)
    if size > free:
        remedy = _offered.get() or otherwise
        raise TooLargeError(f"{what} needs {format_bytes(size)}, and {format_bytes(free)} are free; {remedy}.")


def require_numbers(what: str, count: int | float, like: Tensor, *, otherwise: str = "use less of it") -> None:
    """Return nothing; raise as ``require_memory`` does if ``count`` numbers of the dtype of ``like`` are not free.

    Args:
        what: is to be held.
        count: of numbers, working copies included.
        like: gives dtype and device.
        otherwise: the alternative.

    Raises:
        TooLargeError: more than the free memory.
    """
    require_memory(what, count * like.element_size(), like.device, otherwise=otherwise)


def free_memory(device: torch.device) -> int:
    """Return the free bytes of a device; for the processor's memory, within the limit of its control group."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    found = [_available(Path("/proc/meminfo")), _remaining(Path("/sys/fs/cgroup"))]
    return min((bytes_ for bytes_ in found if bytes_ is not None), default=UNKNOWN)


def _available(meminfo: Path) -> int | None:
    if not meminfo.is_file():
        return None
    lines = [line.split() for line in meminfo.read_text().splitlines() if line.startswith("MemAvailable:")]
    return int(lines[0][1]) * 1024 if lines else None


def _remaining(group: Path) -> int | None:
    limit, used = group / "memory.max", group / "memory.current"
    if not (limit.is_file() and used.is_file()) or not limit.read_text().strip().isdigit():
        return None
    return max(0, int(limit.read_text()) - int(used.read_text()))


def format_bytes(size: int | float) -> str:
    """Return a number of bytes in a readable unit."""
    for unit, width in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= width:
            return f"{size / width:.3g} {unit}"
    return f"{int(size)} bytes"
