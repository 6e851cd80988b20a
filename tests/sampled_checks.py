"""Types and shapes are checked on the first calls of each function in a test, and on some of the later ones.

A check costs more than a small operation, and a solver calls its product thousands of times: with every call checked
all tests together took almost half as long again, and some files five times as long. In each test the first ``CHECKED`` calls of a function are checked, then one in ``EVERY``.
A function inside a function is decorated whenever it is defined, which costs most of all: the first ``DEFINED`` time.
"""

from __future__ import annotations

import functools
import inspect
from collections import Counter
from collections.abc import Callable

import jaxtyping

# Who asks for the code of a function, or for the caller's line, looks through the wrappers of type checkers.
__name__ = "jaxtyping.sampled_checks"
CHECKED, DEFINED, EVERY = 10, 1, 200

_calls: Counter = Counter()
_every_call = jaxtyping.jaxtyped


def new_test() -> None:
    """Begin to count again."""
    _calls.clear()


def _is_checked(function: Callable, first: int) -> bool:
    _calls[function.__code__] += 1
    count = _calls[function.__code__]
    return count <= first or count % EVERY == 0


def jaxtyped(function: Callable | None = None, *, typechecker: Callable) -> Callable:
    """Decorate as jaxtyping's own decorator does, with fewer checks."""
    if function is None:
        return functools.partial(jaxtyped, typechecker=typechecker)
    if not inspect.isfunction(function):
        return _every_call(function, typechecker=typechecker)
    if "<locals>" in function.__qualname__:
        return _every_call(function, typechecker=typechecker) if _is_checked(function, DEFINED) else function
    checked = _every_call(function, typechecker=typechecker)

    @functools.wraps(function)
    def wrapper(*args: object, **kwargs: object) -> object:
        return checked(*args, **kwargs) if _is_checked(function, CHECKED) else function(*args, **kwargs)

    return wrapper


def install() -> None:
    """Let jaxtyping's import hook use this decorator."""
    jaxtyping.jaxtyped = jaxtyped
