"""How much memory there is, and how much a computation may take: a quarter of what is free, unless told otherwise."""

from __future__ import annotations

from pathlib import Path

import torch

UNKNOWN = 4 * 2**30  # where the system does not say what is free


def memory_limit(memory: int | float | None, device: torch.device) -> int:
    """Return the bytes a computation may work with.

    Args:
        memory: bytes, above zero; None is a quarter of what is free on the device.
        device: where the tensors lie.

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


def free_memory(device: torch.device) -> int:
    """Return the free bytes of a device; for the processor's memory, within the limit of its control group."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    found = [_available(Path("/proc/meminfo")), _left(Path("/sys/fs/cgroup"))]
    return min((bytes_ for bytes_ in found if bytes_ is not None), default=UNKNOWN)


def _available(meminfo: Path) -> int | None:
    if not meminfo.is_file():
        return None
    lines = [line.split() for line in meminfo.read_text().splitlines() if line.startswith("MemAvailable:")]
    return int(lines[0][1]) * 1024 if lines else None


def _left(group: Path) -> int | None:
    limit, used = group / "memory.max", group / "memory.current"
    if not (limit.is_file() and used.is_file()) or not limit.read_text().strip().isdigit():
        return None
    return max(0, int(limit.read_text()) - int(used.read_text()))


def in_words(size: int | float) -> str:
    """Return a number of bytes as a person reads it."""
    for unit, width in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= width:
            return f"{size / width:.3g} {unit}"
    return f"{int(size)} bytes"
