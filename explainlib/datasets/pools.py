"""Class pools: many classes with few drawings each, from which few-shot tasks are drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from explainlib.checks import require_finite, require_same_device, require_tensor
from explainlib.datasets.bounds import format_list


@dataclass(frozen=True, eq=False, repr=False)
class ClassPool:
    """Examples of many classes.

    Args:
        x: [N, ...] finite floating point, what a model reads.
        y: int64 [N], the class of each drawing, 0 to len(names) - 1; every class has a drawing.
        names: the distinct names of the classes, qualified by their parent ("Balinese/character01").
        parents: one for each class, what it belongs to (an alphabet, a superclass).
        raw: [N, ...] images in [0, 1] for display, where x holds features; None where x is the picture.

    Raises:
        TypeError: not tensors, or another dtype.
        ValueError: lengths that differ, NaN, an empty class, repeated names.
    """

    x: Tensor
    y: Int[Tensor, " N"]
    names: Sequence[str]
    parents: Sequence[str]
    raw: Tensor | None = None

    def __post_init__(self) -> None:
        """Check every field."""
        require_tensor("x", self.x)
        require_tensor("y", self.y)
        if not self.x.is_floating_point() or self.y.dtype != torch.int64:
            raise TypeError(
                f"x has dtype {self.x.dtype}, y {self.y.dtype}, expected floating point and int64; "
                "pass x.float() and y.long()."
            )
        if self.y.ndim != 1 or len(self.x) != len(self.y):
            raise ValueError(
                f"x has {len(self.x)} drawings, y has shape {list(self.y.shape)}; pass one label for each."
            )
        require_same_device("y", self.y, "x", self.x)
        if self.raw is not None:
            require_same_device("raw", self.raw, "x", self.x)
        require_finite("x", self.x)
        object.__setattr__(self, "names", tuple(self.names))
        object.__setattr__(self, "parents", tuple(self.parents))
        if len(set(self.names)) != len(self.names) or len(self.names) != len(self.parents):
            raise ValueError(
                f"{len(self.names)} names, {len(set(self.names))} of them distinct, with {len(self.parents)} parents; "
                "give each class a name of its own and one parent."
            )
        if not torch.equal(self.y.unique(), torch.arange(len(self.names), device=self.y.device)):
            raise ValueError(
                f"y does not hold each of the labels 0 to {len(self.names) - 1}; every class needs a drawing."
            )
        if self.raw is not None and len(self.raw) != len(self.x):
            raise ValueError(f"raw has {len(self.raw)} pictures for {len(self.x)} drawings; pass one for each.")

    def __len__(self) -> int:
        """Return the number of classes."""
        return len(self.names)

    def __repr__(self) -> str:
        """Return one line."""
        kinds = len(set(self.parents))
        return f"{len(self)} classes of {kinds} parents, {len(self.x)} drawings, x {list(self.x.shape[1:])}"

    @property
    def pictures(self) -> Tensor:
        """The images [N, ...]."""
        return self.x if self.raw is None else self.raw

    def map(self, change: Callable[[Tensor], Tensor]) -> ClassPool:
        """Return the pool with ``change(x)`` [N, ...] in place of x; the images are kept."""
        return replace(self, x=change(self.x), raw=self.pictures)

    def where(self, keep: Callable[[str, str], bool]) -> ClassPool:
        """Return the classes for which ``keep(name, parent)`` is true, numbered anew.

        Raises:
            ValueError: no class is kept.
        """
        chosen = [
            c for c, (name, parent) in enumerate(zip(self.names, self.parents, strict=True)) if keep(name, parent)
        ]
        if not chosen:
            raise ValueError(f"no class of {self!r} is kept; the parents are {format_list(sorted(set(self.parents)))}.")
        number = torch.full((len(self),), -1, device=self.y.device)
        number[chosen] = torch.arange(len(chosen), device=self.y.device)
        rows = (number[self.y] >= 0).nonzero().flatten()
        return ClassPool(
            self.x[rows],
            number[self.y[rows]],
            [self.names[c] for c in chosen],
            [self.parents[c] for c in chosen],
            None if self.raw is None else self.raw[rows],
        )

    def of_parents(self, parents: Sequence[str], *, most: int | None = None) -> ClassPool:
        """Return the classes of some parents, the first ``most`` of each.

        Args:
            parents: such as the names of scripts.
            most: classes of each parent; None is all.

        Raises:
            ValueError: a parent that the pool does not have, or one with fewer classes.
        """
        kept = set()
        for parent in parents:
            own = [name for name, of in zip(self.names, self.parents, strict=True) if of == parent]
            if len(own) < (most or 1):
                known = format_list(sorted(set(self.parents)))
                raise ValueError(f"parent {parent!r} has {len(own)} classes, asked for {most or 1}; there are {known}.")
            kept.update(own[:most])
        return self.where(lambda name, parent: name in kept)

    def to(self, target: torch.dtype | torch.device | str) -> ClassPool:
        """Return the pool with x in another floating-point dtype, or all of it on another device."""
        if isinstance(target, torch.dtype):
            return replace(self, x=self.x.to(target))
        return replace(
            self, x=self.x.to(target), y=self.y.to(target), raw=None if self.raw is None else self.raw.to(target)
        )

    def double(self) -> ClassPool:
        """Return the pool with x in float64."""
        return self.to(torch.float64)
