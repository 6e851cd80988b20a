"""Fingerprints: digests of the inputs of a computation, stored with its results."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from explainlib.storage.identity import Identity, UnidentifiedError
from explainlib.storage.libraries import release
from explainlib.storage.tensors import digest

CODE = " (code)"  # suffix of keys with the digest of code
PROBE = " (probe)"  # suffix of keys with numbers, compared up to rounding
PROBE_NUMBERS = 16  # numbers of a probe
PROBE_TOLERANCE = {"rel_tol": 1e-4, "abs_tol": 1e-5}  # agreement of two devices or thread counts, also in float32


def fingerprint(sources: Mapping[str, object], options: Mapping[str, object]) -> dict[str, object]:
    """Return the fingerprint of a computation's inputs, to store with its results.

    Args:
        sources: tensors, as their sha256; modules, as the sha256 of parameters and of buffers, their printed form, and
            their code (classes, forward, attributes, hooks, the globals these use); and any other value, mainly
            callables, by code, constants, closure, defaults and globals.
        options: everything else that affects the result; numbers, text, None, and lists of these.

    Returns:
        A dictionary for JSON, with the versions of the packages of the code.

    Raises:
        UnidentifiedError: a callable or module that uses something without a digest; the message names it.
    """
    entries: dict[str, object] = {}
    identity = Identity()
    for name, source in sources.items():
        if isinstance(source, nn.Module):
            entries[f"{name} (layers)"] = re.sub(r" at 0x[0-9a-fA-F]+", "", str(source))
            entries[f"{name}{CODE}"] = f"sha256 {identity.of_structure(name, source)}"
            entries[name] = f"sha256 {digest(*source.parameters())}"
            entries[f"{name} (buffers)"] = f"sha256 {digest(*source.buffers())}"
        elif isinstance(source, Tensor):
            entries[name] = f"sha256 {digest(getattr(source, 'checksums', source))}"  # of streamed rows, their own
        else:
            entries[f"{name}{CODE}"] = f"sha256 {identity.of(name, source)}"
    versions = {**identity.libraries, "explainlib": release("explainlib")}
    return {**entries, **options, "versions": dict(sorted(versions.items()))}


def probe_entry(name: str, call: Callable[[], Tensor]) -> dict[str, list[float | str]]:
    """Return the values of a call as an entry of a fingerprint: they depend on more than the code.

    Args:
        name: of the entry; `` (probe)`` is added.
        call: without arguments; called twice on the same inputs; the caller's random generators are not advanced.

    Raises:
        UnidentifiedError: a call whose values differ between two calls.
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
    """Return at most ``PROBE_NUMBERS`` numbers of a tensor: its first ones, and linear combinations of all."""
    flat = values.detach().flatten().double().cpu()
    numbers = flat if len(flat) <= PROBE_NUMBERS else torch.cat([flat[: PROBE_NUMBERS // 2], _projections(flat)])
    return [number if math.isfinite(number) else str(number) for number in numbers.tolist()]


def _projections(flat: Tensor) -> Tensor:
    waves = torch.arange(1, PROBE_NUMBERS // 2 + 1, dtype=flat.dtype)[:, None]
    weights = torch.cos(waves * torch.arange(len(flat), dtype=flat.dtype))
    return weights @ flat / len(flat) ** 0.5


def agree(one: object, other: object) -> bool:
    """Whether two probes agree up to rounding."""
    if not (isinstance(one, list) and isinstance(other, list)) or len(one) != len(other):
        return False
    return all(_close(a, b) for a, b in zip(one, other, strict=True))


def _close(a: object, b: object) -> bool:
    numbers = isinstance(a, int | float) and isinstance(b, int | float)
    return math.isclose(a, b, **PROBE_TOLERANCE) if numbers else a == b
