"""The references of code: globals, attributes and modules that a function names."""

from __future__ import annotations

import dis
import functools
import types

from explainlib.storage.libraries import from_library, unwrap


class Missing:
    """The marker of an undefined name."""


def cell_content(cell: types.CellType) -> object:
    """Return the contents of a closure's cell, ``Missing`` if empty."""
    try:
        return cell.cell_contents
    except ValueError:
        return Missing


def format_key(key: object) -> str:
    """Return a dictionary's key for a message."""
    return key if isinstance(key, str) else "value"


def without(names: frozenset[str] | set[str], state: object) -> object:
    """Return a dictionary, or those in a tuple, without some names; anything else unchanged."""
    if type(state) is tuple:  # the state of an object with slots
        return tuple(without(names, part) for part in state)
    return {k: v for k, v in state.items() if k not in names} if type(state) is dict and names else state


def cached_properties(kind: type) -> frozenset[str]:
    """Return the attributes that are cached properties: they follow from the others."""
    return frozenset(k for base in kind.__mro__ for k, v in vars(base).items() if type(v) is functools.cached_property)


def is_foreign(value: object) -> bool:
    """Whether a class attribute is a function that was added to an installed class."""
    inner = getattr(value, "__func__", getattr(value, "fget", value))
    inner = unwrap(inner)
    return isinstance(inner, types.FunctionType) and not from_library(inner)


def referenced_names(code: types.CodeType) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """Return (globals, attributes, imported modules) named by a code object and by the code inside it."""
    names, attributes, imported = set(), set(), set()
    for step in dis.get_instructions(code):
        if step.opname.startswith("LOAD_") and step.opname.endswith(("GLOBAL", "NAME", "GLOBALS")):
            names.add(step.argval)
        elif step.opname == "IMPORT_NAME":
            imported.add(step.argval)
        elif isinstance(step.argval, str) and step.argval in code.co_names:
            attributes.add(step.argval)
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            for known, more in zip((names, attributes, imported), referenced_names(inner), strict=True):
                known |= more
    return frozenset(names), frozenset(attributes), frozenset(imported)
