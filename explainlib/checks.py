"""Checks of arguments: each ``require_*`` returns its value, or raises with got, expected and one remedy.

Checks run before any work starts. A message is one or two sentences a student can act on; it names the argument,
what it was, what it has to be, and what to do.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor


def require_choice(name: str, value: object, choices: Sequence[object], *, later: Sequence[str] = ()) -> object:
    """Return ``value`` if it is one of ``choices``; a name in ``later`` is not available yet.

    Args:
        name: the argument's name, for the message.
        value: what the caller passed.
        choices: the names that work.
        later: names that are fixed but not available yet.

    Returns:
        ``value`` itself.

    Raises:
        NotAvailableYet: ``value`` is one of ``later``.
        ValueError: any other value.
    """
    if value in choices:
        return value
    if value in later:
        raise NotAvailableYet(f"{name}={value!r} is not available yet; use one of {', '.join(map(repr, choices))}.")
    raise ValueError(f"{name}={value!r} is unknown; choose one of {', '.join(map(repr, choices))}.")


class NotAvailableYet(ValueError):
    """An option whose name is fixed but whose method this version does not have."""


def require_tensor(name: str, value: object) -> Tensor:
    """Return ``value`` if it is a tensor; numpy arrays and lists are refused with the conversion to use."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} is a {type(value).__name__}, not a tensor; pass torch.as_tensor({name}).")
    return value


def require_finite(name: str, value: Tensor, *, remedy: str = "") -> Tensor:
    """Return ``value`` if no entry is NaN or infinite; the message counts them and names the first row."""
    if value.is_floating_point() and not torch.isfinite(value).all():
        bad = ~torch.isfinite(value)
        first = bad.nonzero()[0].tolist()
        remedy = remedy or ("remove or repair those rows" if value.ndim > 1 else "pass finite numbers")
        raise ValueError(f"{name} holds {int(bad.sum())} NaN or infinite values, the first at {first}; {remedy}.")
    return value


def require_positive(name: str, value: float) -> float:
    """Return ``value`` if it is a number above zero."""
    if not value > 0:
        raise ValueError(f"{name}={value} has to be above zero.")
    return value


def require_nonnegative(name: str, value: float) -> float:
    """Return ``value`` if it is a number at or above zero (NaN is refused)."""
    if not value >= 0:
        raise ValueError(f"{name}={value} has to be zero or more.")
    return value


def require_count(name: str, value: int, *, least: int = 1) -> int:
    """Return ``value`` if it is a whole number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name}={value!r} has to be a whole number of at least {least}.")
    return value


def require_indices(
    indices: Sequence[int] | Int[Tensor, " k"], size: int, *, name: str = "indices", of: str = "training examples"
) -> Int[Tensor, " k"]:
    """Return ``indices`` as a LongTensor of distinct positions in ``range(size)``.

    Args:
        indices: list of int, or a one-dimensional integer tensor; negative positions are refused.
        size: how many there are to choose from.
        name: the argument's name in the message.
        of: the indexed items, for the message.

    Returns:
        LongTensor [k], in the caller's order.

    Raises:
        TypeError: not integers (a boolean mask is refused with the remedy ``mask.nonzero().flatten()``).
        ValueError: empty, outside the range, or repeated.
    """
    chosen = torch.as_tensor(indices)
    given = name if isinstance(indices, Tensor) else f"torch.as_tensor({name})"
    if chosen.dtype == torch.bool:
        raise TypeError(f"{name} is a boolean mask; pass positions instead: {given}.nonzero().flatten().")
    if chosen.numel() == 0:
        raise ValueError(f"{name} is empty; name at least one of the {size} {of}.")
    if chosen.is_floating_point() or chosen.is_complex():
        raise TypeError(f"{name} has dtype {chosen.dtype}, expected whole numbers; pass {given}.long().")
    if chosen.ndim != 1:
        flat = f"[{int(chosen)}]" if chosen.ndim == 0 else f"{given}.flatten()"
        raise ValueError(f"{name} has shape {list(chosen.shape)}, expected one dimension; pass {flat}.")
    chosen = chosen.long()
    outside = chosen[(chosen < 0) | (chosen >= size)]
    if outside.numel():
        raise ValueError(f"index {int(outside[0])} in {name} is outside the {size} {of} (0 to {size - 1}).")
    values, counts = chosen.unique(return_counts=True)
    if values.numel() != chosen.numel():
        raise ValueError(f"index {int(values[counts > 1][0])} stands twice in {name}; name each once.")
    return chosen


def require_groups(
    groups: Sequence[Sequence[int] | Int[Tensor, " _"]], size: int, *, of: str = "training examples"
) -> list[Int[Tensor, " _"]]:
    """Return ``groups`` as LongTensors: each non-empty, distinct, in range, and not everything.

    Raises:
        TypeError: a flat list of numbers instead of a list of groups.
        ValueError: no groups, an empty group, a repeated or outside index, or a group of everything.
    """
    if isinstance(groups, Tensor) and groups.ndim == 1:
        raise TypeError("groups is one row of indices, expected a list of index lists; pass [indices] for one group.")
    if len(groups) == 0:
        raise ValueError("groups is empty; pass at least one list of indices.")
    require_lists(groups)
    return [require_some(group, size, name=f"groups[{g}]", of=of) for g, group in enumerate(groups)]


def require_some(
    indices: Sequence[int] | Int[Tensor, " k"], size: int, *, name: str = "indices", of: str = "training examples"
) -> Int[Tensor, " k"]:
    """Return ``indices`` as ``require_indices`` does, if they are not all.

    Raises:
        TypeError, ValueError: as ``require_indices``, or all of them.
    """
    chosen = require_indices(indices, size, name=name, of=of)
    if chosen.numel() == size:
        raise ValueError(f"{name} is all {size} {of}; leave at least one, or there is nothing to train on.")
    return chosen


def require_lists(groups: Sequence[object]) -> None:
    """Raise if groups holds single numbers instead of lists of them."""
    if any(isinstance(group, int) or (isinstance(group, Tensor) and group.ndim == 0) for group in groups):
        raise TypeError(
            "groups holds single numbers, expected index lists; pass [indices] for one group, or "
            "[[i] for i in indices] to leave one out."
        )


def require_labels(name: str, y: Tensor, classes: int) -> Int[Tensor, " n"]:
    """Return ``y`` if it is int64 [n] with every label in ``range(classes)``."""
    if y.dtype != torch.int64 or y.ndim != 1:
        raise TypeError(
            f"{name} has dtype {y.dtype} and shape {list(y.shape)}, expected int64 [n] class labels; "
            f"pass {_as_labels(name, y)}."
        )
    if y.numel() and (int(y.min()) < 0 or int(y.max()) >= classes):
        raise ValueError(
            f"{name} has labels from {int(y.min())} to {int(y.max())}, but the model has {classes} outputs; "
            f"labels have to lie in 0 to {classes - 1}."
        )
    return y


def is_integer(y: Tensor) -> bool:
    """Return whether all numbers are integers, in any dtype."""
    return not y.is_floating_point() or bool((y == y.round()).all())


def _as_labels(name: str, y: Tensor) -> str:
    """Return the likely conversion of y into labels."""
    if y.ndim == 2 and y.shape[1] > 1:
        return f"one class number an example, such as {name}.argmax(1) where rows are one-hot"
    if not is_integer(y):
        return "the number of each example's class"
    return name + ".long()" * (y.dtype != torch.int64) + ".flatten()" * (y.ndim != 1)


def require_same_device(name: str, value: Tensor, other_name: str, other: Tensor) -> Tensor:
    """Return ``value`` if it is on ``other``'s device."""
    if value.device != other.device:
        raise ValueError(
            f"{name} is on {value.device}, {other_name} on {other.device}; move one: .to({str(other.device)!r})."
        )
    return value


def require_same_kind(name: str, value: Tensor, other_name: str, other: Tensor) -> Tensor:
    """Return ``value`` if it shares ``other``'s device and, for floating point, its dtype."""
    require_same_device(name, value, other_name, other)
    if value.is_floating_point() and value.dtype != other.dtype:
        raise TypeError(f"{name} has dtype {value.dtype}, {other_name} {other.dtype}; convert one: .to({other.dtype}).")
    return value


def require_shape(name: str, value: Tensor, shape: Sequence[int | None], *, meaning: str = "") -> Tensor:
    """Return ``value`` if its shape matches (``None`` matches any length)."""
    fits = value.ndim == len(shape) and all(want in (None, got) for want, got in zip(shape, value.shape, strict=True))
    if not fits:
        want = ", ".join("any" if s is None else str(s) for s in shape)
        raise ValueError(f"{name} has shape {list(value.shape)}, expected [{want}]{' ' + meaning if meaning else ''}.")
    return value


def require_table(name: str, value: Float[Tensor, "t n"]) -> Float[Tensor, "t n"]:
    """Return ``value`` if it is a finite two-dimensional table [test, train-or-group]."""
    require_tensor(name, value)
    if value.ndim != 2:
        raise ValueError(f"{name} has shape {list(value.shape)}, expected a table [test, train or group].")
    return require_finite(name, value)


def symmetrised(name: str, matrix: Float[Tensor, "p p"]) -> Float[Tensor, "p p"]:
    """Return (A + A^T)/2 of a matrix that is symmetric up to rounding; a larger asymmetry is an error.

    Raises:
        ValueError: |A - A^T| above the square root of the rounding unit, relative to the largest entry.
    """
    largest, asymmetry = matrix.abs().max(), (matrix - matrix.T).abs().max()
    if asymmetry > torch.finfo(matrix.dtype).eps ** 0.5 * largest:
        raise ValueError(
            f"{name} is not symmetric: entries differ from their mirror images by {float(asymmetry / largest):.1e} of "
            "the largest, so some second derivative is wrong; call xl.check_model(model, x, y) to find the layer."
        )
    return (matrix + matrix.T) / 2


OWN_FRAMES = ("explainlib", "jaxtyping", "contextlib")  # contextlib: functions wrapped by a context


def warn_caller(message: str, category: type[Warning]) -> None:
    """Warn at the line outside explainlib that made the call."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] in OWN_FRAMES:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)
