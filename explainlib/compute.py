"""Threads, denormals, freed memory and devices: a suitable thread count, denormals flushed, both restored afterwards.

Two traps are bigger than any algorithm here. torch's thread pool can make small double-backward work 20 times slower
than one thread; and trained models have many gradients below the smallest normal number (denormals), on which a
processor is 20 to 30 times slower. Every compute entry point therefore runs inside ``settings``: denormals count as
zero, small problems use one thread, and the caller finds both as they were.

A third one: glibc gives freed arrays of some hundred KB back to the system at once, and each new one begins with a
page fault for every 4 KB: a fifth to a third of the time of batched derivatives where it was measured. The first entry
point therefore asks glibc to keep up to ``KEPT`` freed bytes in the process. It stays so; whoever set
``MALLOC_TRIM_THRESHOLD_``, ``MALLOC_MMAP_THRESHOLD_`` or ``GLIBC_TUNABLES`` keeps the own choice.

Set the environment variable ``EXPLAINLIB_THREADS`` to choose the thread count for all problems yourself.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

import torch

KEPT = 2**26  # freed bytes that stay with the process
TRIM_THRESHOLD, MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD = -1, -3, 2**25  # of mallopt, in glibc's malloc.h
OWN_CHOICES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
SMALL_WORK = 20_000_000  # examples x parameters; below this, waking a second thread costs more than it brings

P = ParamSpec("P")
R = TypeVar("R")
_inside = False


def flushes_denormals() -> bool:
    """Return whether this thread counts denormals as zero; torch cannot report that state, so it is measured."""
    smallest_normal = torch.full((), torch.finfo(torch.float64).tiny, dtype=torch.float64)
    return bool(smallest_normal * 0.5 == 0)


def threads_for(work: int) -> int:
    """Return the thread count for a problem of ``work`` = examples x parameters.

    Args:
        work: 0 or more; at or above ``SMALL_WORK`` the caller's count is kept.

    Returns:
        ``EXPLAINLIB_THREADS`` if it is set, else 1 for small problems, else ``torch.get_num_threads()``.

    Raises:
        ValueError: the environment variable is not a positive whole number.
    """
    chosen = os.environ.get("EXPLAINLIB_THREADS")
    if chosen is not None:
        if not chosen.isdigit() or int(chosen) < 1:
            raise ValueError(
                f"EXPLAINLIB_THREADS={chosen!r} has to be a whole number of at least 1; unset or change it."
            )
        return int(chosen)
    return 1 if work < SMALL_WORK else torch.get_num_threads()


@functools.cache
def keep_freed_memory() -> bool:
    """Let glibc keep freed memory, once a process; return whether it was asked and agreed.

    False where malloc is another one, or where the user's environment has set it.
    """
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in OWN_CHOICES):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)) and bool(mallopt(TRIM_THRESHOLD, KEPT))


def return_freed_memory() -> bool:
    """Give freed memory back to the system, before arrays that nearly fill it; return whether glibc could.

    glibc keeps freed memory between arrays that are in use. Returning it takes milliseconds, and taking it again page
    faults, so this is for long computations only.
    """
    return platform.libc_ver()[0] == "glibc" and bool(ctypes.CDLL(None).malloc_trim(0))


@contextmanager
def settings(work: int = 0) -> Iterator[None]:
    """Flush denormals and use ``threads_for(work)`` inside the block; restore both at its end, errors included.

    Gradients are on inside, also where the caller works under ``no_grad`` or ``inference_mode``. Nested blocks keep the
    outermost block's settings. Other threads keep their denormal state.
    """
    global _inside
    if _inside:
        with torch.inference_mode(False), torch.enable_grad():
            yield
        return
    keep_freed_memory()
    threads, flushed = torch.get_num_threads(), flushes_denormals()
    wanted = threads_for(work)
    _inside = True
    try:
        torch.set_flush_denormal(True)
        if wanted != threads:
            torch.set_num_threads(wanted)
        with torch.inference_mode(False), torch.enable_grad():  # even if the caller turned them off
            yield
    finally:
        _inside = False
        torch.set_flush_denormal(flushed)
        if wanted != threads:
            torch.set_num_threads(threads)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Use that many threads inside the block, for large matrix products between other processes' work."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def entry(function: Callable[P, R]) -> Callable[P, R]:
    """Return ``function`` run inside ``settings``, its work read from a first argument that is a risk."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        risk = args[0] if args else kwargs.get("risk")
        work = risk.n * risk.theta.numel() if hasattr(risk, "theta") and hasattr(risk, "n") else 0
        with settings(work):
            return function(*args, **kwargs)

    return wrapper


def chosen_device(name: str = "auto") -> torch.device:
    """Return the device of that name, for work that makes its own tensors; everything else follows its arguments.

    Args:
        name: "auto" (a GPU if torch finds one, else the CPU), "cpu", "cuda", or a numbered GPU such as "cuda:1".

    Raises:
        TypeError: no text.
        ValueError: another name, or a GPU that torch does not find.

    Example:
        >>> chosen_device("cpu")
        device(type='cpu')
    """
    if not isinstance(name, str):
        raise TypeError(f"device is a {type(name).__name__}; pass 'auto', 'cpu', 'cuda' or a number such as 'cuda:1'.")
    kind, _, number = name.partition(":")
    if name not in ("auto", "cpu", "cuda") and not (kind == "cuda" and number.isdecimal()):
        raise ValueError(f"device={name!r} is unknown; pass 'auto', 'cpu', 'cuda' or a number such as 'cuda:1'.")
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda:0" if found else "cpu")
    if kind == "cuda" and int(number or 0) >= found:
        why = "torch finds no GPU" if torch.version.cuda else "this build of torch has no CUDA"
        there = f"there are {found} GPUs, numbered from 0" if found else why
        raise ValueError(f"device={name!r} is not at hand: {there}; pass 'cpu' or 'auto'.")
    return torch.device("cpu") if name == "cpu" else torch.device("cuda", int(number or 0))


def thread_report() -> str:
    """Return one sentence on threads and denormals, for ``doctor``."""
    chosen = os.environ.get("EXPLAINLIB_THREADS")
    own = f"EXPLAINLIB_THREADS={chosen}" if chosen else "EXPLAINLIB_THREADS is not set"
    return (
        f"torch uses {torch.get_num_threads()} threads of {os.cpu_count()} cores; small problems use {threads_for(0)} "
        f"({own}); denormals are {'flushed' if flushes_denormals() else 'kept'} outside explainlib, flushed inside."
    )
