"""Installed code, identified by name and version, and user code, identified by its source."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import platform
import site
import sys
import sysconfig
import types
from pathlib import Path

HOUSE = Path(__file__).resolve().parents[1]
CHECKERS = ("beartype", "jaxtyping")  # their wrappers only check arguments


def is_library(module: str | None) -> bool:
    """Whether a module of that name was installed (this package too), and is not a notebook, a script or a helper."""
    top = (module or "__main__").partition(".")[0]
    return top not in ("__main__", "__mp_main__") and top in sys.modules and _is_installed(top)


@functools.cache
def _is_installed(top: str) -> bool:
    module = sys.modules[top]
    places = [place for place in (getattr(module, "__file__", None), *getattr(module, "__path__", ())) if place]
    if not places:
        return top in sys.builtin_module_names or top in sys.stdlib_module_names
    return any(root in Path(places[0]).resolve().parents for root in _roots())  # not a user's file of the same name


@functools.cache
def _roots() -> tuple[Path, ...]:
    paths = sysconfig.get_paths()
    own = [paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")]
    return (HOUSE, *(Path(root).resolve() for root in (*own, *site.getsitepackages(), site.getusersitepackages())))


def from_library(value: types.FunctionType | type) -> bool:
    """Whether a function or class was written in an installed module."""
    if isinstance(value, type):
        return is_library(value.__module__)
    return is_library(value.__globals__.get("__name__", value.__module__))


def reachable(value: types.FunctionType | type) -> bool:
    """Whether the module's own name for a function or class leads to it; a wrapper's inner function has none."""
    found: object = sys.modules.get(value.__module__)
    for part in value.__qualname__.split("."):
        found = getattr(found, part, None)
    return unwrap(found) is value


def unwrap(value: object) -> object:
    """Return a function without the wrappers of type checkers; anything else unchanged."""
    while isinstance(value, types.FunctionType) and hasattr(value, "__wrapped__"):
        checks = value.__code__.co_filename.startswith("<@beartype(")
        if not checks and value.__globals__.get("__name__", "").partition(".")[0] not in CHECKERS:
            break
        value = value.__wrapped__
    return value


def library_name(module: str, name: str) -> tuple[str, str]:
    """Return (the full name, the sha256 of the source file if there is one) of something in an installed module."""
    path = getattr(sys.modules.get(module), "__file__", None)
    return f"{module}.{name}", _source(path) if path and path.endswith(".py") else ""


@functools.cache
def _source(path: str) -> str:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError:  # a package inside an archive
        return ""


@functools.cache
def release(top: str) -> str:
    """Return the version of an installed top-level module, without its build suffix."""
    if top in sys.builtin_module_names or top in sys.stdlib_module_names:
        return ".".join(platform.python_version_tuple()[:2])
    version = getattr(sys.modules.get(top), "__version__", None)
    if not isinstance(version, str):
        try:
            version = importlib.metadata.version(top)
        except importlib.metadata.PackageNotFoundError:
            version = "unknown"
    return version.partition("+")[0]
