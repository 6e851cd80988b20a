"""What a race is: one problem, two or more sides, what each side's call is, and the bars explainlib wants to meet.

A side's ``build`` takes the problem and returns an action without arguments. What the action does is timed; imports,
and what a user would have at hand anyway (a model, data sets, data loaders), belong to ``build``.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

Problem = dict[str, object]
Action = Callable[[], Tensor | None]
OWN = "explainlib"
MODULES = {"explainlib": "explainlib", "captum": "captum", "kronfluence": "kronfluence", "pyDVL": "pydvl"} | {
    "dattri": "dattri",
    "traker": "trak",
    "PyTorch": "torch",
}  # distribution and what it is imported as


@dataclass(frozen=True)
class Bar:
    """What explainlib wants to reach against a side.

    Args:
        speed: the side's seconds over explainlib's, at least.
        memory: explainlib's memory over the side's, at most; None asks nothing.
    """

    speed: float
    memory: float | None = None


@dataclass(frozen=True)
class Side:
    """One side of a race.

    Args:
        library: a key of ``MODULES``; PyTorch is a plain loop.
        how: the call, for the page.
        build: see above.
        bar: what explainlib wants to reach against it; None for explainlib's own sides.
        mode: tells two sides of one library apart.
        differs: how its definition differs from explainlib's, so that numbers are not expected to be equal.
    """

    library: str
    how: str
    build: Callable[[Problem], Action]
    bar: Bar | None = None
    mode: str = ""
    differs: str = ""

    @property
    def name(self) -> str:
        """The library, with the mode if there is one."""
        return f"{self.library}, {self.mode}" if self.mode else self.library

    @property
    def absent(self) -> str:
        """A sentence if the library is not installed, or nothing."""
        if importlib.util.find_spec(MODULES[self.library]) is not None:
            return ""
        return f"{self.library} is not installed here, so its side is skipped; `make bench-peers` brings it."


@dataclass(frozen=True)
class Race:
    """One problem and its sides, explainlib's first.

    Args:
        name: of the race, on the command line.
        title: for the page.
        problem: from sizes to whatever the sides need; it can be pickled.
        sides: explainlib's first; the others' ratios are against it, unless they name another in ``against``.
        full: sizes of the race.
        quick: sizes of a rehearsal of a few seconds.
        runs: interleaved runs of each side.
        reference: the exact numbers that every side's are compared with, or None.
        against: side -> the explainlib side it is compared with, where that is not the first.
        facts: what the reader has to know about the definitions, for the page.
    """

    name: str
    title: str
    problem: Callable[..., Problem]
    sides: tuple[Side, ...]
    full: Mapping[str, object]
    quick: Mapping[str, object]
    runs: int = 5
    reference: Callable[[Problem], Tensor] | None = None
    against: Mapping[str, str] = field(default_factory=dict)
    facts: str = ""

    def side(self, name: str) -> Side:
        """Return the side of that name."""
        return next(side for side in self.sides if side.name == name)

    def opponent(self, side: Side) -> str:
        """Return the name of the explainlib side that this side is compared with."""
        return self.against.get(side.name, self.sides[0].name)

    def sizes(self, *, quick: bool) -> dict[str, object]:
        """Return the sizes of a race or of its rehearsal."""
        return dict(self.quick if quick else self.full)
