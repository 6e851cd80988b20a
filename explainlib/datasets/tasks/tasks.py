"""Few-shot tasks: small problems, each with examples to learn from and others to be judged by.

The support shows a few examples of each class, from which a learner adapts; the query asks about others. No drawing is
in both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from explainlib.checks import require_finite, require_same_device, require_tensor


@dataclass(frozen=True, eq=False, repr=False)
class Tasks:
    """M few-shot tasks of one size.

    Args:
        support_x: [M, s, ...] floating point; what each task learns from.
        support_y: int64 [M, s], labels within the task, 0 to ways - 1; for regression targets [M, s, C] of x's dtype,
            which only ``xl.meta.Bilevel`` reads.
        query_x: [M, r, ...] what it is judged by.
        query_y: int64 [M, r], or targets [M, r, C].
        classes: M tuples, the name of class c of each task; None where there are none to show.
        group: int64 [M]; tasks made from one origin share a number (a rotated copy belongs to its origin). None gives
            each task its own.
        support_index: int64 [M, s], the drawing's place in the pool, where there is one.
        query_index: int64 [M, r], likewise.

    Raises:
        TypeError: not tensors, or another dtype.
        ValueError: shapes that do not belong together, NaN, labels below 0.
    """

    support_x: Tensor
    support_y: Tensor
    query_x: Tensor
    query_y: Tensor
    classes: Sequence[tuple[str, ...]] | None = None
    group: Int[Tensor, " M"] | None = None
    support_index: Int[Tensor, "M s"] | None = None
    query_index: Int[Tensor, "M r"] | None = None

    def __post_init__(self) -> None:
        """Check every field."""
        for part in ("support", "query"):
            x, y = getattr(self, f"{part}_x"), getattr(self, f"{part}_y")
            require_tensor(f"{part}_x", x)
            require_tensor(f"{part}_y", y)
            if not x.is_floating_point() or y.dtype not in (torch.int64, x.dtype):
                raise TypeError(
                    f"{part}_x has dtype {x.dtype}, {part}_y {y.dtype}, expected floating point and int64; "
                    "pass .float() and .long(), or targets of x's dtype for regression."
                )
            self._require_shapes(part, x, y)
            require_same_device(f"{part}_x", x, "support_x", self.support_x)
            require_same_device(f"{part}_y", y, "support_x", self.support_x)
            require_finite(f"{part}_x", x)
            require_finite(f"{part}_y", y)
            if not y.is_floating_point() and int(y.min()) < 0:
                raise ValueError(f"{part}_y has the label {int(y.min())}; number the classes of a task 0, 1, ...")
        if len(self.support_x) != len(self.query_x) or self.support_x.shape[2:] != self.query_x.shape[2:]:
            raise ValueError(
                f"support_x has shape {list(self.support_x.shape)}, query_x {list(self.query_x.shape)}; "
                "they need the same tasks and the same kind of example."
            )
        if self.support_y.dtype != self.query_y.dtype or self.support_y.shape[2:] != self.query_y.shape[2:]:
            raise ValueError(
                f"support_y is {self.support_y.dtype} {list(self.support_y.shape)}, query_y {self.query_y.dtype} "
                f"{list(self.query_y.shape)}; pass labels for both parts, or targets of the same size."
            )
        if not self.regression and int(self.query_y.max()) > int(self.support_y.max()):
            raise ValueError(
                f"query_y asks about class {int(self.query_y.max())}, the support shows 0 to "
                f"{int(self.support_y.max())}; show every class that is asked about."
            )
        group = torch.arange(len(self)) if self.group is None else self.group
        for name, index in (("group", group), ("support_index", self.support_index), ("query_index", self.query_index)):
            object.__setattr__(self, name, None if index is None else index.to(self.support_x.device))
        if group.shape != (len(self),) or group.dtype != torch.int64:
            raise ValueError(f"group is {group.dtype} {list(group.shape)}, expected int64 [{len(self)}].")
        if self.classes is not None:
            object.__setattr__(self, "classes", tuple(tuple(names) for names in self.classes))
            if len(self.classes) != len(self):
                raise ValueError(f"classes has {len(self.classes)} entries for {len(self)} tasks; pass one for each.")
        for name, y in (("support_index", self.support_y), ("query_index", self.query_y)):
            index = getattr(self, name)
            if index is not None and index.shape != y.shape[:2]:
                raise ValueError(f"{name} has shape {list(index.shape)}, expected {list(y.shape[:2])}.")

    @staticmethod
    def _require_shapes(part: str, x: Tensor, y: Tensor) -> None:
        dimensions, form = (3, "[M, n, C]") if y.is_floating_point() else (2, "[M, n]")
        if y.ndim != dimensions or x.shape[:2] != y.shape[:2] or x.ndim < 3 or y.numel() == 0:
            raise ValueError(
                f"{part}_x has shape {list(x.shape)}, {part}_y {list(y.shape)}, expected [M, n, ...] and {form} "
                "with at least one task and one example."
            )

    def __len__(self) -> int:
        """Return the number of tasks."""
        return len(self.support_x)

    @property
    def ways(self) -> int:
        """The number of classes in a task.

        Raises:
            TypeError: regression tasks have none.
        """
        if self.regression:
            raise TypeError(
                "these tasks have regression targets and no classes; only xl.meta.Bilevel(..., loss='squared_error') "
                "reads them, or pass tasks with int64 labels."
            )
        return int(self.support_y.max()) + 1

    @property
    def regression(self) -> bool:
        """Whether y holds targets [M, n, C] and not labels [M, n]."""
        return self.support_y.is_floating_point()

    def __repr__(self) -> str:
        """Return one line."""
        kind = f"{self.support_y.shape[2]} targets" if self.regression else f"{self.ways} ways"
        return (
            f"{len(self)} tasks, {kind}, support {self.support_y.shape[1]}, query {self.query_y.shape[1]}, "
            f"x {str(self.support_x.dtype).removeprefix('torch.')} {list(self.support_x.shape[2:])}"
        )

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> Tasks:
        """Return the chosen tasks in the order asked for; one position gives one task.

        Raises:
            IndexError: a single position outside the tasks.
            ValueError: nothing chosen, or a position in a list outside the tasks.
        """
        m, device = len(self), self.support_x.device
        if isinstance(index, int):
            rows = torch.tensor([range(m)[index]])
        elif isinstance(index, slice):
            rows = torch.arange(m)[index]
        else:
            rows = torch.as_tensor(index)
            rows = rows.nonzero().flatten() if rows.dtype == torch.bool else rows
        if rows.numel() == 0 or int(rows.min()) < 0 or int(rows.max()) >= m:
            raise ValueError(f"index {index!r} chooses nothing or lies outside the {m} tasks (0 to {m - 1}).")
        rows = rows.to(device)
        tensors = {
            name: None if value is None else value[rows] for name, value in self.__dict__.items() if name != "classes"
        }
        classes = None if self.classes is None else [self.classes[k] for k in rows.tolist()]
        return Tasks(**tensors, classes=classes)

    def __iter__(self) -> None:
        """Refuse: a loop over tasks is what every method here avoids."""
        raise TypeError("tasks are not iterated one at a time; index them, or use .arrays() in one batched call.")

    def arrays(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return (support_x, support_y, query_x, query_y), what a batched function maps over."""
        return self.support_x, self.support_y, self.query_x, self.query_y

    @staticmethod
    def concat(parts: Sequence[Tasks]) -> Tasks:
        """Return all tasks in a row; those of one group number share it afterwards too.

        Raises:
            ValueError: nothing given, or tasks of different sizes.
        """
        if not parts:
            raise ValueError("parts is empty; pass at least one Tasks.")
        shapes = {tuple(a.shape[1:] for a in part.arrays()) for part in parts}
        if len(shapes) > 1:
            raise ValueError(f"the parts have different sizes {sorted(map(str, shapes))}; tasks must be of one size.")

        def joined(name: str) -> Tensor | None:
            values = [getattr(part, name) for part in parts]
            return None if any(value is None for value in values) else torch.cat(values)

        names = ("support_x", "support_y", "query_x", "query_y", "group", "support_index", "query_index")
        named = all(part.classes is not None for part in parts)
        classes = [names for part in parts for names in part.classes] if named else None
        return Tasks(**{name: joined(name) for name in names}, classes=classes)

    @staticmethod
    def side_by_side(parts: Sequence[Tasks]) -> Tasks:
        """Return M tasks whose classes are those of all parts: part 0 keeps its labels, the others follow.

        Task k joins task k of each part, such as one letter of each script, so that label c means script c everywhere.

        Args:
            parts: of M tasks each; their places in a pool, which may be different pools, are forgotten.

        Raises:
            ValueError: nothing given, or parts of different numbers of tasks.
        """
        if not parts or len({len(part) for part in parts}) > 1:
            raise ValueError(f"parts have {[len(part) for part in parts]} tasks; pass parts of one number of tasks.")
        first = [sum(part.ways for part in parts[:k]) for k in range(len(parts))]

        def joined(name: str) -> Tensor:
            shifts = first if name.endswith("_y") else [0] * len(parts)
            return torch.cat([getattr(part, name) + shift for part, shift in zip(parts, shifts, strict=True)], dim=1)

        named = all(part.classes is not None for part in parts)
        classes = [sum(names, ()) for names in zip(*(part.classes for part in parts), strict=True)] if named else None
        names = ("support_x", "support_y", "query_x", "query_y")
        return Tasks(**{name: joined(name) for name in names}, classes=classes)

    def to(self, target: torch.dtype | torch.device | str) -> Tasks:
        """Return the tasks with floating-point tensors in another dtype, or all of them on another device."""
        if isinstance(target, torch.dtype):
            names = ("support_x", "query_x") + (("support_y", "query_y") if self.regression else ())
        else:
            names = tuple(set(self.__dict__) - {"classes"})
        return replace(self, **{n: v.to(target) for n in names if (v := getattr(self, n)) is not None})

    def double(self) -> Tasks:
        """Return the tasks with x in float64."""
        return self.to(torch.float64)


def task_features(tasks: Tasks, change: Callable[[Tensor], Tensor]) -> Tasks:
    """Return the tasks with ``change`` applied to all their examples, [N, ...] -> [N, ...]."""
    both = [getattr(tasks, name) for name in ("support_x", "query_x")]
    new: list[Float[Tensor, "M n ..."]] = [change(x.flatten(0, 1)).unflatten(0, x.shape[:2]) for x in both]
    return replace(tasks, support_x=new[0], query_x=new[1])
