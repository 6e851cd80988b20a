"""Runs rows of the table on the CPU and on the simulated device, and compares what they return."""

from __future__ import annotations

import dataclasses
import functools
import math
import warnings
from collections.abc import Iterator

import pandas
import torch
from torch import Tensor, nn

import explainlib as xl
from tests.device.simulated import SHOWN, Record, simulated
from tests.device.table import CALLS

CLOSE = 1e-6  # relative to the largest number of a tensor; all rows are in float64


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What one row did: faults in words, the record of the simulated run, and the classes of its results."""

    faults: tuple[str, ...]
    record: Record
    kinds: frozenset[str]


@functools.cache
def outcome(name: str) -> Outcome:
    """Return what a row does, run once a process."""
    row = CALLS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        want = dict(leaves(row.run("cpu")))
        with simulated() as record:
            made = row.run("cuda:0")
            faults = list(differences(want, dict(leaves(made)), elsewhere_allowed=bool(row.host)))
    return Outcome(tuple(faults), record, frozenset(kinds(made)))


def kinds(value: object) -> Iterator[str]:
    """Yield the names of the classes in a result, their bases' too."""
    yield from (base.__name__ for base in type(value).__mro__)
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, tuple | list) else ()
    if dataclasses.is_dataclass(value):
        parts = [getattr(value, field.name) for field in dataclasses.fields(value)]
    for each in parts:
        yield from kinds(each)


def leaves(value: object, place: str = "result") -> Iterator[tuple[str, object]]:
    """Yield the tensors, numbers and words of a result, with where they stand in it."""
    if isinstance(value, Tensor | str | bytes | int | float | bool) or value is None:
        yield place, value
    elif isinstance(value, xl.Risk):
        yield from leaves((value.theta, value.weights, value.train.x), f"{place}.risk")
    elif isinstance(value, nn.Module):
        yield from leaves(dict(value.state_dict()), place)
    elif isinstance(value, pandas.DataFrame):
        yield from leaves(value.to_dict("list"), place)
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from leaves(each, f"{place}[{key!r}]")
    elif isinstance(value, tuple | list):
        for k, each in enumerate(value):
            yield from leaves(each, f"{place}[{k}]")
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from leaves(getattr(value, field.name), f"{place}.{field.name}")
    else:
        raise AssertionError(f"{place} is a {type(value).__name__}; let the row return tensors, numbers or words of it")


def differences(want: dict, got: dict, *, elsewhere_allowed: bool) -> Iterator[str]:
    """Yield a sentence for each leaf that is missing, on the CPU, or other than on the CPU."""
    if want.keys() != got.keys():
        yield f"other parts: {sorted(want.keys() ^ got.keys())}"
    for place in want.keys() & got.keys():
        a, b = want[place], got[place]
        if isinstance(b, Tensor):
            if b.device != SHOWN and not elsewhere_allowed:
                yield f"{place} is on {b.device}"
            if not same_numbers(a, b.detach().cpu()):
                yield f"{place} has other numbers"
        elif isinstance(a, float) and isinstance(b, float):
            if not (math.isclose(a, b, rel_tol=CLOSE, abs_tol=1e-9) or (math.isnan(a) and math.isnan(b))):
                yield f"{place} is {b}, on the CPU {a}"
        elif a != b and not (isinstance(a, str) and a.replace("cpu", "cuda:0") == b):
            yield f"{place} is {b!r}, on the CPU {a!r}"


def same_numbers(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if not a.is_floating_point():
        return torch.equal(a, b)
    scale = float(a.nan_to_num().abs().max()) if a.numel() else 0.0
    return torch.allclose(a, b, rtol=0, atol=CLOSE * scale + 1e-12, equal_nan=True)
