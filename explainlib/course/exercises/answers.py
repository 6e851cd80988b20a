"""The forms of an answer: a number, a count, a table, a word or a function; how it is read, and when two are equal.

Each form has ``words``, what is expected; ``read``, which returns the answer in one shape or raises ``Unreadable`` with
one plain sentence; and ``same``, which compares two read answers. Lists, numpy arrays and tensors are all taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

NUMBERS = "biuf"  # numpy's kinds of real numbers
ROUNDED = 3  # significant digits to which people round


class Unreadable(ValueError):
    """An answer that cannot be compared; the message is one plain sentence for the student."""


def _array(answer: object, expected: str) -> Tensor:
    """Return real numbers as a float64 tensor without a graph, or raise ``Unreadable``."""
    if answer is Ellipsis or answer is None:
        raise Unreadable(f"there is no answer yet; expected {expected}.")
    if isinstance(answer, bool | str | bytes | dict | set) or callable(answer) and not isinstance(answer, Tensor):
        raise Unreadable(f"the answer is a {type(answer).__name__}; expected {expected}.")
    try:
        if isinstance(answer, Sequence):
            answer = [float(part) if isinstance(part, Tensor) and part.numel() == 1 else part for part in answer]
        numbers = torch.as_tensor(answer)
        if numbers.is_complex() or numbers.dtype == torch.bool:
            raise Unreadable(f"the answer holds {numbers.dtype} values; expected {expected}.")
        numbers = numbers.detach().to("cpu", torch.float64)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        if isinstance(error, Unreadable):
            raise
        raise Unreadable(f"the answer, a {type(answer).__name__}, holds no numbers; expected {expected}.") from error
    if numbers.numel() == 0:
        raise Unreadable(f"the answer is empty; expected {expected}.")
    if not torch.isfinite(numbers).all():
        raise Unreadable(f"the answer holds NaN or an infinite value; expected {expected}.")
    return numbers


def _percent(share: float) -> str:
    """Return a small share in percent, such as "0.1%"."""
    return f"{100 * share:.3g}%"


@dataclass(frozen=True)
class Number:
    """One real number, right within a relative tolerance."""

    tolerance: float = 0.01

    @property
    def words(self) -> str:
        """What is expected."""
        return f"a number, within {_percent(self.tolerance)}"

    def read(self, answer: object) -> float:
        """Return the number; a tensor, array or list of one element will do."""
        numbers = _array(answer, "one number")
        if numbers.numel() != 1:
            raise Unreadable(f"the answer has shape {list(numbers.shape)}; expected one number.")
        return float(numbers)

    def same(self, one: float, other: float) -> bool:
        """Return whether two numbers agree within the tolerance, relative to the computed one."""
        return abs(one - other) <= self.tolerance * abs(other)

    def rounded(self, one: float, other: float) -> int | None:
        """Return to how many significant digits ``other`` was rounded to give ``one``; None if it is no rounding."""
        return next((digits for digits in range(1, ROUNDED + 1) if float(f"{other:.{digits}g}") == one), None)


@dataclass(frozen=True)
class Count:
    """One whole number, compared exactly."""

    words: str = "a whole number"

    def read(self, answer: object) -> int:
        """Return the whole number; 73.0 will do, 73.5 will not."""
        number = Number().read(answer)
        if number != math.floor(number):
            raise Unreadable("the answer is no whole number; expected a count.")
        return int(number)

    def same(self, one: int, other: int) -> bool:
        """Return whether two counts are equal."""
        return one == other


@dataclass(frozen=True)
class Numbers:
    """A vector or table of a fixed shape, right if its distance is small relative to the norm."""

    shape: tuple[int, ...]
    tolerance: float = 0.01
    axes: str = ""  # what its dimensions are, for a transposed table

    @property
    def words(self) -> str:
        """What is expected."""
        accuracy = f"within {_percent(self.tolerance)} of its norm" if self.tolerance else "all of them exactly"
        return f"numbers of shape {list(self.shape)}, {accuracy}"

    def read(self, answer: object) -> Tensor:
        """Return the numbers as a float64 tensor of the expected shape."""
        numbers = _array(answer, f"numbers of shape {list(self.shape)}")
        got = tuple(numbers.shape)
        if got != self.shape:
            turned = f", transposed: {self.axes or 'rows first'}" if got == self.shape[::-1] else ""
            raise Unreadable(f"the answer has shape {list(got)}; expected {list(self.shape)}{turned}.")
        return numbers

    def same(self, one: Tensor, other: Tensor) -> bool:
        """Return whether two tensors agree within the tolerance, relative to the computed one's norm."""
        return bool((one - other).norm() <= self.tolerance * other.norm())


@dataclass(frozen=True)
class Choice:
    """One of a few words, whatever its case."""

    choices: tuple[str, ...]

    @property
    def words(self) -> str:
        """What is expected."""
        return "one of " + ", ".join(repr(choice) for choice in self.choices)

    def read(self, answer: object) -> str:
        """Return the word in lower case, without blanks around it."""
        if answer is Ellipsis or answer is None:
            raise Unreadable(f"there is no answer yet; expected {self.words}.")
        if not isinstance(answer, str):
            raise Unreadable(f"the answer is a {type(answer).__name__}; expected {self.words}.")
        word = " ".join(answer.lower().split())
        if word not in [choice.lower() for choice in self.choices]:
            raise Unreadable(f"the answer {answer[:40]!r} is none of the choices; expected {self.words}.")
        return word

    def same(self, one: str, other: str) -> bool:
        """Return whether two words are equal."""
        return one == other


@dataclass(frozen=True)
class Function:
    """A function of one's own, tried on a few inputs; each result is read and compared by ``result``.

    Args:
        signature: how it is called, such as "f(influence, n)".
        inputs: returns argument lists, made when they are needed.
        result: the form of one returned value, for the given arguments.
    """

    signature: str
    inputs: Callable[[], Sequence[tuple[object, ...]]]
    result: Callable[..., Number | Numbers]

    @property
    def words(self) -> str:
        """What is expected."""
        return f"a function {self.signature}"

    def read(self, answer: object) -> list[object]:
        """Return the function's values on the inputs, each read by its form."""
        if answer is Ellipsis or answer is None:
            raise Unreadable(f"there is no answer yet; expected {self.words}.")
        if not callable(answer) or isinstance(answer, type):
            raise Unreadable(f"the answer is a {type(answer).__name__}; expected {self.words} itself, not its value.")
        values = []
        for arguments in self.inputs():
            try:
                value = answer(*arguments)
            except Exception as error:  # noqa: BLE001  anything may be wrong in a student's function
                said = " ".join(str(error).split())[:120]
                raise Unreadable(f"calling {self.signature} raised {type(error).__name__}: {said}.") from error
            try:
                values.append(self.result(*arguments).read(value))
            except Unreadable as error:
                raise Unreadable(f"of {self.signature}: {error}") from error
        return values

    def same(self, one: list[object], other: list[object]) -> bool:
        """Return whether all values agree."""
        forms = [self.result(*arguments) for arguments in self.inputs()]
        return all(form.same(a, b) for form, a, b in zip(forms, one, other, strict=True))


Form = Number | Count | Numbers | Choice | Function
