"""The check of a student's answer: right, or a hint that fits the mistake, and never the answer itself."""

from __future__ import annotations

import html
from dataclasses import dataclass

from explainlib.course.exercises import EXERCISES, Exercise, Number, Unreadable, undisturbed
from explainlib.course.ledger import record, wrong_tries


@dataclass(frozen=True)
class Verdict:
    """What the check says of one answer.

    Attributes:
        exercise: its id, as given.
        right: whether the answer is right.
        text: a hint, or what is wrong with the form of the answer; "" if it is right.
        compared: whether it was compared at all; an answer that cannot be read is no try.
    """

    exercise: str
    right: bool
    text: str = ""
    compared: bool = True

    def __repr__(self) -> str:
        """Return one line."""
        if self.right:
            return f"{self.exercise}: right."
        return f"{self.exercise}: not yet. {self.text}" if self.compared else f"{self.exercise}: {self.text}"

    def _repr_html_(self) -> str:
        """Show the line in a notebook, with a mark that is more than a colour."""
        mark = "&#10003;" if self.right else "&#8230;"
        said = html.escape(str(self)).replace("`", "")
        return f"<p>{mark} {said}</p>"


def check(exercise: str, answer: object, *, solution: bool = False) -> Verdict:
    """Return whether an answer is right, or a hint that fits the mistake.

    The right answer is computed now, from the notebook's own problem; it is stored nowhere. Nonsense (no number,
    another shape, NaN, an unknown exercise) gets one plain sentence and does not count as a try.

    Args:
        exercise: such as "01.2".
        answer: a number, list, array or tensor; a word; or a function, as the exercise asks.
        solution: True in a solution cell: the answer is compared as any other, and ``xl.report()`` does not count it.

    Returns:
        Verdict: shows itself; ``right`` is a bool. ``xl.report()`` lists all of them.
    """
    about = EXERCISES.get(exercise) if isinstance(exercise, str) else None
    if about is None:
        said = f"exercise {str(exercise)[:40]!r} is unknown; pass its id as text, such as {next(iter(EXERCISES))!r}."
        return Verdict(str(exercise)[:40], False, said, compared=False)
    try:
        with undisturbed():
            given, computed = about.form.read(answer), about.form.read(about.answer())
            right = about.form.same(given, computed)
            text = "" if right else _hint(about, given, computed)
    except Unreadable as error:
        return Verdict(exercise, False, str(error), compared=False)
    record(exercise, right, solution=solution)
    return Verdict(exercise, right, text)


def _hint(about: Exercise, given: object, computed: object) -> str:
    """Return that a right number was rounded, or the hint of the typical mistake, or the exercise's own next hint."""
    if isinstance(about.form, Number) and (digits := about.form.rounded(given, computed)):
        return f"Close: {_digits(digits)} not enough. The check takes {about.form.words}; give the number unrounded."
    for mistake in about.mistakes:
        if about.form.same(given, about.form.read(mistake.answer())):
            return mistake.hint
    return about.hints[min(wrong_tries(about.id), len(about.hints) - 1)]


def _digits(number: int) -> str:
    """Return a number of significant digits as the subject of a sentence, with its verb."""
    return "one significant digit is" if number == 1 else f"{number} significant digits are"
