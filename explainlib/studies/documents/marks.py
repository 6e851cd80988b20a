"""Marks in a study's document: a number or table stands between comments that say where it is from, and is filled in.

A mark is ``<!--words-->text<!--/-->``.
"""

from __future__ import annotations

import re
from collections.abc import Callable

MARK = re.compile(r"<!--(?P<words>[^/>][^>]*)-->(?P<text>.*?)<!--/-->", re.DOTALL)


def fill_marks(text: str, fill: Callable[[str], str]) -> str:
    """Return the document with every mark's text made anew.

    Args:
        text: of the document.
        fill: from the words of a mark to its text.
    """
    return MARK.sub(lambda found: f"<!--{found['words']}-->{fill(found['words'])}<!--/-->", text)


def unmarked(text: str) -> str:
    """Return the document without its marks and what is in them."""
    return MARK.sub("", text)
