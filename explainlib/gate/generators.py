"""Random generators of torch, numpy, Python and the model: detect use, and restore them."""

from __future__ import annotations

import inspect
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import numpy as np
import torch
from torch import nn

Generator = np.random.Generator | np.random.RandomState | random.Random | torch.Generator
DEPTH = 5  # of nested lists and dicts


@contextmanager
def preserve_generators() -> Iterator[Callable[[], list[str]]]:
    """Put the generators of torch, numpy and Python back at the end; what is yielded names those of the others read."""
    numpy_state, python_state, read = np.random.get_state(), random.getstate(), []
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []

    def watch(frame: FrameType, event: str, called: object) -> None:
        if event == "c_call" and isinstance(getattr(called, "__self__", None), random.Random) and _by_a_model(frame):
            read.append("random")

    profile = sys.getprofile()
    with torch.random.fork_rng(devices=devices):
        sys.setprofile(watch)
        try:
            yield lambda: sorted(set(read))
        finally:
            _restore_profiler(profile)
            now = np.random.get_state()
            if now[2] != numpy_state[2] or not np.array_equal(now[1], numpy_state[1]):
                read.append("numpy.random")
            np.random.set_state(numpy_state)
            random.setstate(python_state)


def _restore_profiler(profile: object) -> None:
    """Put a profiler back that ``sys.getprofile`` gave; cProfile's is no function, and starts again by its own call."""
    sys.setprofile(profile if callable(profile) else None)
    if hasattr(profile, "enable"):
        profile.enable()


def _by_a_model(frame: FrameType | None) -> bool:
    """Return whether a call of Python's generator comes from a model; type checkers, torch and tempfile draw too."""
    while frame is not None and frame.f_globals.get("__name__") == "random":
        frame = frame.f_back
    if frame is None or "beartype" in frame.f_code.co_filename:
        return False
    root = str(frame.f_globals.get("__name__", "")).split(".")[0]
    if root != "__main__" and root in {*sys.stdlib_module_names, "torch", "beartype", "jaxtyping"}:
        return False
    while frame is not None and "importlib" not in frame.f_code.co_filename:
        frame = frame.f_back
    return frame is None  # not during an import


def module_generators(module: nn.Module) -> list[tuple[str, Generator]]:
    """Return the generators among the attributes of layers and those that a forward refers to, with the layer.

    Args:
        module: the model, or a copy: names outside the model refer to the same generators.
    """
    found: dict[int, tuple[str, Generator]] = {}
    for name, layer in module.named_modules():
        own = (
            []
            if type(layer).__module__.startswith("torch.")
            else _names(vars(layer).get("forward", type(layer).forward))
        )
        for one in _inside([vars(layer), *own], DEPTH):
            found.setdefault(id(one), (name, one))
    return list(found.values())


def known_generators(function: Callable) -> list[Generator]:
    """Return the generators that a function or module refers to by attribute, global name or closure.

    Args:
        function: any callable.
    """
    if isinstance(function, nn.Module):
        return [one for _, one in module_generators(function)]
    return list(_inside([*_names(function), getattr(function, "__dict__", {})], DEPTH))


def state_of(generator: Generator) -> object:
    """Return a state that can be compared and restored."""
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    return generator.getstate() if isinstance(generator, random.Random) else generator.get_state(legacy=False)


def restore_generator(generator: Generator, state: object) -> bool:
    """Return whether the generator was used since; it is then restored."""
    if _same(state_of(generator), state):
        return False
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    else:
        generator.set_state(state)
    return True


def _same(a: object, b: object) -> bool:
    if isinstance(a, dict):
        return all(_same(a[key], b[key]) for key in a)
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def _names(function: Callable) -> Iterator[dict]:
    """Yield the global names and the closure of a function or method."""
    plain = getattr(function, "__func__", function)
    code = getattr(plain, "__code__", None)
    if code is not None:
        yield {name: plain.__globals__[name] for name in code.co_names if name in plain.__globals__}
        yield dict(inspect.getclosurevars(plain).nonlocals)


def _inside(value: object, depth: int) -> Iterator[Generator]:
    if isinstance(value, Generator):
        yield value
    elif depth and isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _inside(part, depth - 1)
