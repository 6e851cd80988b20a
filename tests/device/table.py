"""The register of calls: which public names each row exercises, and which names need no device, with the reason."""

from __future__ import annotations

import ast
import importlib
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass

import explainlib
from tests.test_glossary import ROOMS, public_names

CALLS: dict[str, Call] = {}
NO_DEVICE: dict[str, str] = {}  # public names that take no tensors, by the reason


@dataclass(frozen=True)
class Call:
    """One row: a function of the device, and the public names that it calls.

    Args:
        run: makes its inputs on the device and returns what the library makes of them.
        names: of the library, "room.name" or "room.Class.member".
        host: why some results are on the CPU whatever the inputs' device; empty where all of them follow it.
    """

    run: Callable[[str], object]
    names: tuple[str, ...]
    host: str = ""


def call(*names: str, host: str = "") -> Callable[[Callable], Callable]:
    """Register a row under the function's name."""

    def registered(run: Callable[[str], object]) -> Callable[[str], object]:
        assert run.__name__ not in CALLS, run.__name__
        CALLS[run.__name__] = Call(run, names, host)
        return run

    return registered


def no_device(reason: str, *names: str) -> None:
    """Register public names that need no row."""
    for name in names:
        assert name not in NO_DEVICE, name
        NO_DEVICE[name] = reason


def called_names(run: Callable) -> set[str]:
    """Return the names and attributes that a row's source mentions."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(run)))
    body = ast.Module(tree.body[0].body, [])
    found = {node.attr for node in ast.walk(body) if isinstance(node, ast.Attribute)}
    return found | {node.id for node in ast.walk(body) if isinstance(node, ast.Name)}


def public() -> dict[str, object]:
    """Return every public function and class of the library, and the methods and properties of each public class."""
    found = {}
    for name in ["", *ROOMS, "representers.axioms"]:
        module = importlib.import_module(f"explainlib.{name}".rstrip("."))
        for each in public_names(module):
            value = getattr(module, each)
            if inspect.ismodule(value) or not callable(value):
                continue
            if name == "" and value.__module__.startswith("explainlib.gate"):
                continue  # its room lists it
            full = f"{name or 'xl'}.{each}"
            found[full] = value
            if inspect.isclass(value) and value.__module__.startswith("explainlib"):
                found |= {f"{full}.{member}": vars(value)[member] for member in members(value)}
    return found


def members(cls: type) -> list[str]:
    """Return the public methods and properties that a class itself defines."""
    return [
        name
        for name, value in vars(cls).items()
        if not name.startswith("_")
        and (isinstance(value, property | classmethod | staticmethod) or inspect.isfunction(value) or hasattr(value, "func"))
    ]  # fmt: skip


assert explainlib
