"""Ratios measured as holds on a shared machine: both sides interleaved in one process, the median of runs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple


class Row(NamedTuple):
    """One line of the table."""

    what: str
    ours: float
    theirs: float | None
    bar: str
    held: bool


def seconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def compare(what: str, ours: Callable[[], object], theirs: Callable[[], object], *, bar: float, runs: int = 5) -> Row:
    """Return median times of interleaved runs, each side warmed up once, and whether the ratio meets the bar."""
    ours(), theirs()
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(runs)]
    own, other = (statistics.median(column) for column in zip(*pairs, strict=True))
    return Row(what, own, other, f"{bar:g}x", other / own >= bar)


def within(what: str, ours: Callable[[], object], *, most: float, runs: int = 5) -> Row:
    """Return the median time of ``runs`` runs after one warm-up, and whether it stays below ``most`` seconds."""
    ours()
    own = statistics.median(seconds(ours) for _ in range(runs))
    return Row(what, own, None, f"{most * 1e3:g} ms", own <= most)


def table(rows: list[Row]) -> str:
    """Return the rows as aligned text."""
    lines = [f"{'what':<84}{'ours':>10}{'plain':>11}{'ratio':>9}{'bar':>9}"]
    for row in rows:
        theirs = "" if row.theirs is None else f"{row.theirs * 1e3:.1f} ms"
        ratio = "" if row.theirs is None else f"{row.theirs / row.ours:.1f}x"
        mark = "" if row.held else "  below the bar"
        lines.append(f"{row.what:<84}{row.ours * 1e3:>7.1f} ms{theirs:>11}{ratio:>9}{row.bar:>9}{mark}")
    return "\n".join(lines)
