"""What a computation starts from, short enough to keep beside its results."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from explainlib.storage.identity import Identity, UnidentifiedError
from explainlib.storage.libraries import release
from explainlib.storage.tensors import digest

CODE = " (code)"  # ends the keys of what a callable or a model computes
PROBE = " (probe)"  # ends the keys whose numbers are compared up to rounding
SHOWN = 16  # numbers of a probe
CLOSE = {"rel_tol": 1e-4, "abs_tol": 1e-5}  # two devices or thread counts agree so far, also in float32


def fingerprint(sources: Mapping[str, object], options: Mapping[str, object]) -> dict[str, object]:
    """Return what a computation starts from, short enough to keep beside its results.

    Args:
        sources: tensors, each shown as its sha256; modules, shown as that of their parameters, that of their buffers,
            their printed form and their code (classes, forward, attributes, hooks, the globals these use); and any
            other value, callables above all, shown by what it computes (code, constants, closure, defaults, globals).
        options: everything else that changes the result; numbers, text, None, and lists of these.

    Returns:
        A dictionary that JSON keeps as it is, with the versions of the packages that the code comes from.

    Raises:
        UnidentifiedError: a callable or module that uses something no store can compare; the message names it.
    """
    shown: dict[str, object] = {}
    identity = Identity()
    for name, source in sources.items():
        if isinstance(source, nn.Module):
            shown[f"{name} (layers)"] = re.sub(r" at 0x[0-9a-fA-F]+", "", str(source))
            shown[f"{name}{CODE}"] = f"sha256 {identity.of_structure(name, source)}"
            shown[name] = f"sha256 {digest(*source.parameters())}"
            shown[f"{name} (buffers)"] = f"sha256 {digest(*source.buffers())}"
        elif isinstance(source, Tensor):
            shown[name] = f"sha256 {digest(source)}"
        else:
            shown[f"{name}{CODE}"] = f"sha256 {identity.of(name, source)}"
    versions = {**identity.libraries, "explainlib": release("explainlib")}
    return {**shown, **options, "versions": dict(sorted(versions.items()))}


def probe_entry(name: str, call: Callable[[], Tensor]) -> dict[str, list[float | str]]:
    """Return the values of a call as an entry of a fingerprint: what code alone does not tell shows in them.

    Args:
        name: of the entry; `` (probe)`` is added.
        call: without arguments; called twice, on the same inputs, and the caller's random generators do not move.

    Raises:
        UnidentifiedError: a call that does not give the same values twice.
    """
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        values = [summary(call()) for _ in range(2)]
    if not agree(*values):
        raise UnidentifiedError(
            f"{name} gives other values when it is called again with the same inputs, so no store can answer for it; "
            "leave store out, or draw its random numbers from a generator made from its arguments in every call."
        )
    return {name + PROBE: values[0]}


def summary(values: Tensor) -> list[float | str]:
    """Return at most ``SHOWN`` numbers that a tensor's values decide: its first ones, and mixtures of all of them."""
    flat = values.detach().flatten().double().cpu()
    numbers = flat if len(flat) <= SHOWN else torch.cat([flat[: SHOWN // 2], _projections(flat)])
    return [number if math.isfinite(number) else str(number) for number in numbers.tolist()]


def _projections(flat: Tensor) -> Tensor:
    waves = torch.arange(1, SHOWN // 2 + 1, dtype=flat.dtype)[:, None]
    weights = torch.cos(waves * torch.arange(len(flat), dtype=flat.dtype))
    return weights @ flat / len(flat) ** 0.5


def agree(one: object, other: object) -> bool:
    """Whether two probes are the same up to rounding."""
    if not (isinstance(one, list) and isinstance(other, list)) or len(one) != len(other):
        return False
    return all(_close(a, b) for a, b in zip(one, other, strict=True))


def _close(a: object, b: object) -> bool:
    numbers = isinstance(a, int | float) and isinstance(b, int | float)
    return math.isclose(a, b, **CLOSE) if numbers else a == b
