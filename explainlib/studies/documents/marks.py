"""Marks in a study's document: a number or table stands between comments that say where it is from, and is filled in.

A mark is ``<!--words-->text<!--/-->``. The text of ``<!--typed command-->`` is left as it is: numbers that a command
printed and no table keeps.
"""

from __future__ import annotations

import re
from collections.abc import Callable

MARK = re.compile(r"<!--(?P<words>[^/>][^>]*)-->(?P<text>.*?)<!--/-->", re.DOTALL)
TYPED = "typed "


def fill_marks(text: str, fill: Callable[[str], str]) -> str:
    """Return the document with every mark's text made anew.

    Args:
        text: of the document.
        fill: from the words of a mark to its text; typed ones are not asked.
    """

    def replaced(found: re.Match[str]) -> str:
        if found["words"].startswith(TYPED):
            return found[0]
        return f"<!--{found['words']}-->{fill(found['words'])}<!--/-->"

    return MARK.sub(replaced, text)


def without_marks(text: str) -> str:
    """Return the document as it reads: marks are taken off, what is in them stays."""
    return MARK.sub(lambda found: found["text"], text)


def unmarked(text: str) -> str:
    """Return the document without its marks and what is in them."""
    return MARK.sub("", text)
