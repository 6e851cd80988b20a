"""A box for a whole number of a range: its label names the range, and a number beyond it is answered in words.

A ``BoundedIntText`` takes the nearest number of its range in the browser already, so that Python never hears of the
number that was typed. This box takes any whole number and says which one is taken instead.
"""

from __future__ import annotations

import ipywidgets as widgets

LETTER = 7  # pixels of a letter of a label


class NumberBox(widgets.IntText):
    """A box for a whole number from 0 to ``most``; the panel reads ``nearest`` and shows ``answer``.

    Args:
        name: the word beside the box, which gets the range.
        most: the last number.
        counts: whether each number is one of the things that ``name`` names.
        value: the first number.
    """

    def __init__(self, name: str, most: int, *, value: int = 0, counts: bool = True) -> None:
        label = f"{name}, 0 to {most}"
        room = LETTER * len(label) + 2
        style, layout = {"description_width": f"{room}px"}, widgets.Layout(width=f"{room + 64}px")
        super().__init__(value=value, description=label, style=style, layout=layout)
        self.name, self.min, self.max, self.counts = name, 0, most, counts

    @property
    def nearest(self) -> int:
        """The number of the range that is nearest to the one in the box."""
        return min(max(self.value, self.min), self.max)

    def answer(self, typed: int) -> str:
        """Return what is said of a number: nothing, or that another one of the range is shown instead.

        Args:
            typed: the number.
        """
        if 0 <= typed <= self.max:
            return ""
        shown = f"showing {min(max(typed, 0), self.max)}."
        if not self.counts:
            return f"{self.name} {typed} is not from 0 to {self.max}; {shown}"
        if self.max == 0:
            return f"There is 1 {self.name}, number 0; {shown}"
        return f"There are {self.max + 1} {self.name}s, 0 to {self.max}; {shown}"
