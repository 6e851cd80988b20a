"""An exercise as data: what is asked, how the answer is computed when somebody asks, and which mistakes are typical.

No answer is written down: ``Exercise.answer`` and ``Mistake.answer`` compute it from the notebook's own small problem.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from explainlib.course.exercises.answers import Form

KINDS = ("warm-up", "guided", "open")  # the ladder, from the bottom


@dataclass(frozen=True)
class Mistake:
    """A typical wrong answer.

    Args:
        name: two or three words for the table, such as "sign turned".
        answer: computes what somebody gets who makes it.
        hint: one or two sentences that name the mistake and not the answer.
    """

    name: str
    answer: Callable[[], object]
    hint: str


@dataclass(frozen=True)
class Exercise:
    """One exercise of a notebook.

    Args:
        id: notebook and number, "01.2".
        title: two to five words.
        goal: what one can do afterwards, one line.
        kind: one of ``KINDS``.
        minutes: for a student who has read the notebook.
        form: how the answer is read and compared.
        answer: computes the right answer.
        mistakes: the typical wrong ones.
        hints: two, from general to specific; shown folded, and after an answer that fits no typical mistake.
    """

    id: str
    title: str
    goal: str
    kind: str
    minutes: int
    form: Form
    answer: Callable[[], object]
    mistakes: tuple[Mistake, ...]
    hints: tuple[str, str]

    @property
    def heading(self) -> str:
        """The first words of its cell."""
        stop = "" if self.title.endswith("?") else "."
        return f"**{self.id} {self.title}{stop}** *({self.kind}, {self.minutes} minutes)*"

    @property
    def hint_cell(self) -> str:
        """The text of its cell of hints, each folded."""
        return "\n\n".join(
            f"<details><summary>{self.id}, hint {number}</summary>\n\n{hint}\n\n</details>"
            for number, hint in enumerate(self.hints, start=1)
        )


@contextmanager
def undisturbed() -> Iterator[None]:
    """Compute in float64, without warnings, and leave the random numbers of the caller where they are."""
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_default_dtype(dtype)
