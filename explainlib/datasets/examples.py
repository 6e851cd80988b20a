"""Labelled examples, and the ways to take a part of them that keeps the classes in proportion.

Everything a risk, a network or a panel needs to know about data is one ``Examples``: inputs, targets, and the names
people use for the classes. It is checked once, on construction.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from explainlib.checks import require_count, require_finite, require_tensor
from explainlib.datasets.bounds import format_value

NO_TARGET = -100  # of a token


@dataclass(frozen=True, eq=False, repr=False)
class Examples:
    """Inputs with their targets, and names for display.

    Args:
        x: [n, ...] finite floating point, or int64 tokens; n at least 1.
        y: int64 [n] class labels from 0 upwards, int64 [n, T] labels of tokens (-100 where there is none), or floating
            point [n, o] regression targets in x's dtype; on x's device.
        classes: the distinct names of the classes, name c for label c; None where there are none to show.
        raw: n strings, the texts of the tokens; None otherwise.

    Raises:
        TypeError: not tensors, or a dtype that is neither of the above (the message says which conversion to use).
        ValueError: no examples, lengths or devices that differ, NaN or infinite values, labels below 0 or beyond
            ``classes``, class names that repeat.
    """

    x: Tensor
    y: Tensor
    classes: Sequence[str] | None = None
    raw: Sequence[str] | None = None

    def __post_init__(self) -> None:
        """Check every field; lists of names become tuples, so that nobody changes them later."""
        _require_inputs(self.x)
        _require_targets(self.y, self.x)
        if self.classes is not None:
            object.__setattr__(self, "classes", _require_names(self.classes, self.y))
        if self.raw is not None:
            object.__setattr__(self, "raw", _require_texts(self.raw, len(self.x)))

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.x)

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> Examples:
        """Return the chosen examples, in the order asked for.

        Args:
            index: one position or a slice (both by Python's rules, so -1 is the last), positions as a list or
                integer tensor (0 to n-1, repeats allowed), or a boolean mask [n]. One position gives one example.

        Returns:
            Examples with the same class names.

        Raises:
            IndexError: a single position outside the examples.
            TypeError: positions that are not whole numbers.
            ValueError: nothing chosen, a position in a list outside the examples, or a mask of another length.
        """
        rows = self._rows(index)
        raw = None if self.raw is None else tuple(self.raw[i] for i in rows.tolist())
        rows = rows.to(self.x.device)
        return Examples(self.x[rows], self.y[rows], self.classes, raw)

    def __repr__(self) -> str:
        """Return one line: how many, of what shape, with what kind of target."""
        kind, shape = str(self.x.dtype).removeprefix("torch."), list(self.x.shape[1:])
        if self.classes is not None:
            target = f"{len(self.classes)} classes"
        elif self.y.is_floating_point():
            target = f"y {str(self.y.dtype).removeprefix('torch.')} {list(self.y.shape[1:])}"
        else:
            target = f"labels {int(self.y.min())} to {int(self.y.max())}"
        place = "" if self.x.device.type == "cpu" else f", on {self.x.device}"
        return f"{len(self)} example{'s' * (len(self) != 1)}, x {kind} {shape}, {target}{place}"

    def outside_inference_mode(self) -> Examples:
        """Return themselves, or copies that autograd can use if they were made under ``torch.inference_mode``."""
        if not (self.x.is_inference() or self.y.is_inference()):
            return self
        return Examples(self.x.clone(), self.y.clone(), self.classes, self.raw)

    def to(self, target: torch.dtype | torch.device | str) -> Examples:
        """Return the same examples in another floating-point dtype or on another device.

        Args:
            target: a floating-point dtype (labels and tokens stay whole numbers), or a device.

        Raises:
            TypeError: a dtype that is not floating point.
        """
        if not isinstance(target, torch.dtype):
            return Examples(self.x.to(target), self.y.to(target), self.classes, self.raw)
        if not target.is_floating_point:
            raise TypeError(f"target is {target}, expected a floating-point dtype or a device; pass torch.float64.")
        x, y = (tensor.to(target) if tensor.is_floating_point() else tensor for tensor in (self.x, self.y))
        return Examples(x, y, self.classes, self.raw)

    def double(self) -> Examples:
        """Return the same examples in float64."""
        return self.to(torch.float64)

    def _rows(self, index: int | slice | Sequence[int] | Tensor) -> Int[Tensor, " k"]:
        """Return ``index`` as a LongTensor of positions, at least one."""
        n = len(self)
        if isinstance(index, slice):
            rows = torch.arange(n)[_forward(index, n)]
        elif hasattr(index, "__index__") and not (isinstance(index, Tensor) and index.ndim):
            position = operator.index(index)
            if not -n <= position < n:  # IndexError, not ValueError: it is what ends a for loop over the examples
                raise IndexError(f"index {position} is outside the {n} examples (0 to {n - 1}).")
            rows = torch.tensor([position % n])
        else:
            rows = _positions(torch.as_tensor(index), n)
        if rows.numel() == 0:
            raise ValueError(f"the selection is empty; choose at least one of the {n} examples.")
        return rows


class Split(NamedTuple):
    """The examples a model is trained on, and those it is asked about."""

    train: Examples
    test: Examples

    def to(self, target: torch.dtype | torch.device | str) -> Split:
        """Return both parts in another floating-point dtype or on another device."""
        return Split(self.train.to(target), self.test.to(target))

    def double(self) -> Split:
        """Return both parts in float64."""
        return self.to(torch.float64)


def stratified_split(examples: Examples, test_count: int, split_seed: int) -> Split:
    """Return a random split whose two parts have the classes in the proportions of the whole.

    Args:
        examples: with class labels.
        test_count: how many go to the test part; at least 1, and at least one has to stay behind.
        split_seed: the same seed gives the same split, 0 or more.

    Returns:
        Split; each class has its proportional number of test examples, rounded up or down. Both parts are in
        random order, so that their first few examples show several classes.

    Raises:
        TypeError: the targets are not class labels.
        ValueError: a test_count that leaves nothing on one side, or a negative seed.
    """
    require_count("test_count", test_count)
    if test_count >= len(examples):
        raise ValueError(
            f"test_count={test_count} leaves nothing of {len(examples)} examples to train on; take fewer for the test."
        )
    require_count("split_seed", split_seed, least=0)
    order, chosen = _stratified_order(examples, test_count, split_seed)
    return Split(train=examples[order[~chosen]], test=examples[order[chosen]])


def stratified_limit(examples: Examples, limit: int, seed: int) -> Examples:
    """Return ``limit`` of the examples, in their order, with the classes in the proportions of the whole.

    Args:
        examples: with class labels.
        limit: how many to keep, 1 to n; below the number of classes some classes are left out.
        seed: the same seed gives the same choice, 0 or more.

    Raises:
        TypeError: the targets are not class labels.
        ValueError: a limit outside 1 to n, or a negative seed.
    """
    require_count("limit", limit)
    if limit > len(examples):
        raise ValueError(f"limit={limit} is more than the {len(examples)} examples there are; ask for at most that.")
    order, chosen = _stratified_order(examples, limit, seed)
    return examples[order[chosen].sort().values]


def _stratified_order(examples: Examples, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return a random order of all examples [n], and a mask [n] of ``count`` places in it, classes in proportion."""
    if examples.y.is_floating_point():
        raise TypeError(
            f"y has dtype {examples.y.dtype}, expected int64 class labels to keep in proportion; "
            "for regression index the examples with a random permutation."
        )
    # numpy's generator: its permutations are the same on every machine and with every number of threads.
    order = torch.from_numpy(np.random.default_rng(require_count("seed", seed, least=0)).permutation(len(examples)))
    labels = examples.y.cpu()[order]
    kinds, sizes = labels.unique(return_counts=True)
    quotas = sizes * count // len(examples)
    remainders = sizes * count % len(examples)
    most_owed = remainders.argsort(descending=True, stable=True)[: count - int(quotas.sum())]
    quotas[most_owed] += 1
    chosen = torch.zeros(len(examples), dtype=torch.bool)
    for kind, quota in zip(kinds, quotas.tolist(), strict=True):
        chosen[(labels == kind).nonzero().flatten()[:quota]] = True
    return order, chosen


def _forward(index: slice, n: int) -> Tensor | slice:
    """Return a slice that tensors accept: theirs have no negative step."""
    start, stop, step = index.indices(n)
    return torch.tensor(range(start, stop, step), dtype=torch.int64) if step < 0 else slice(start, stop, step)


def _positions(index: Tensor, n: int) -> Int[Tensor, " k"]:
    """Return a mask [n] or a row of positions as a LongTensor on the CPU."""
    index = index.cpu()
    if index.ndim != 1:
        raise ValueError(f"the index has shape {list(index.shape)}, expected one dimension; pass index.flatten().")
    if index.dtype == torch.bool:
        if len(index) != n:
            raise ValueError(f"the mask has length {len(index)}, expected one entry for each of the {n} examples.")
        return index.nonzero().flatten()
    if index.numel() and (index.is_floating_point() or index.is_complex()):
        raise TypeError(f"the index has dtype {index.dtype}, expected whole numbers; pass index.long().")
    index = index.long()
    outside = index[(index < 0) | (index >= n)]
    if outside.numel():
        raise ValueError(f"index {int(outside[0])} is outside the {n} examples (0 to {n - 1}).")
    return index


def _require_inputs(x: object) -> None:
    """Pass finite floating-point or token inputs, at least one."""
    require_tensor("x", x)
    if not x.is_floating_point() and x.dtype != torch.int64:
        remedy = "x.float() / 255 for pixels, x.long() for tokens"
        raise TypeError(f"x has dtype {x.dtype}, expected floating point, or int64 tokens; pass {remedy}.")
    if x.ndim == 0 or x.numel() == 0:
        raise ValueError(f"x has shape {list(x.shape)}, expected [n, ...] with at least one example; pass some data.")
    if not hasattr(x, "checksums"):  # streamed rows are checked whenever they are read
        require_finite("x", x)


def _require_targets(y: object, x: Tensor) -> None:
    """Pass class labels or regression targets that belong to ``x``."""
    require_tensor("y", y)
    if y.is_floating_point() and y.ndim == 1:
        raise TypeError(
            f"y has dtype {y.dtype} and shape {list(y.shape)}, expected int64 [n] labels or floating point [n, o] "
            "targets; pass y[:, None] for regression or y.long() for classes."
        )
    if y.is_floating_point() and y.ndim != 2:
        raise ValueError(f"y has shape {list(y.shape)}, expected [n, o] for regression; pass y.flatten(1).")
    if not y.is_floating_point() and y.dtype != torch.int64:
        raise TypeError(f"y has dtype {y.dtype}, expected int64 class labels; pass y.long().")
    if not y.is_floating_point() and y.ndim != 1 and not (y.ndim == 2 and y.shape[1] > 1):
        raise ValueError(
            f"y has shape {list(y.shape)}, expected [n] class labels or [n, tokens]; pass y.flatten() for classes."
        )
    if len(y) != len(x):
        raise ValueError(f"x has {len(x)} examples, y has {len(y)}; pass one target for each example.")
    if y.device != x.device:
        raise ValueError(f"y is on {y.device}, x on {x.device}; pass y.to(x.device).")
    if y.is_floating_point() and x.is_floating_point() and y.dtype != x.dtype:
        raise TypeError(f"y has dtype {y.dtype}, x {x.dtype}; pass y.to(x.dtype).")
    require_finite("y", y)
    if not y.is_floating_point() and bool(((y < 0) & ~((y == NO_TARGET) & (y.ndim == 2))).any()):
        raise ValueError(f"y has the label {int(y.min())}, expected 0 or more; number the classes 0, 1, ...")


def _require_names(classes: Sequence[str], y: Tensor) -> tuple[str, ...]:
    """Return the class names as a tuple that covers every label in ``y``."""
    if isinstance(classes, str) or not all(isinstance(name, str) for name in classes):
        raise TypeError(
            f"classes={format_value(classes)} has to hold one string for each class; pass tuple(map(str, names))."
        )
    if y.is_floating_point():
        raise ValueError("classes are given with regression targets, which have none; pass classes=None.")
    names = tuple(classes)
    if len(set(names)) != len(names):
        repeated = next(name for name, count in Counter(names).items() if count > 1)
        raise ValueError(f"classes names {format_value(repeated)} twice; give each class its own name.")
    if int(y.max()) >= len(names):
        raise ValueError(
            f"y has the label {int(y.max())}, but classes names {len(names)} (0 to {len(names) - 1}); name every class."
        )
    return names


def _require_texts(raw: Sequence[str], n: int) -> tuple[str, ...]:
    """Return the texts as a tuple of length n."""
    if isinstance(raw, str) or not all(isinstance(text, str) for text in raw):
        raise TypeError("raw has to hold one string for each example; pass a list of str.")
    if len(raw) != n:
        raise ValueError(f"x has {n} examples, raw has {len(raw)} texts; pass one text for each example.")
    return tuple(raw)
