"""A long lesson in one kernel: ``python -m benchmarks.interactions``.

All panels are opened in this process and worked by their widgets, a new value each time, one panel after the other;
every ``RETRAIN``-th round asks the two panels on digits for the truth as well. Memory is this process's own (USS: what
would be free if it ended). It has to stay flat: within 5% of what it was when every panel had been used a while.
"""

from __future__ import annotations

import argparse
import sys
import time
from itertools import cycle

import ipywidgets
import psutil

from explainlib.panels.interactive import InteractivePanel
from explainlib.serving import PAGES, open_panel

FLAT = 0.05
RETRAIN = 10
TRUTHS = ("removal", "group_removal")  # retrained in a moment


def own_memory() -> float:
    """Return this process's unique memory in MB."""
    return psutil.Process().memory_full_info().uss / 1e6


def next_value(widget: ipywidgets.Widget) -> object:
    """Return another value than a widget has: the next one, the first after the last."""
    if hasattr(widget, "options"):
        options = widget.options.items() if isinstance(widget.options, dict) else widget.options
        values = [value[1] if isinstance(value, tuple) else value for value in options]
        return values[(values.index(widget.value) + 1) % len(values)]
    if isinstance(widget, ipywidgets.ToggleButton):
        return not widget.value
    step = widget.value + (getattr(widget, "step", 1) or 1)
    return widget.min if step > widget.max else step


def worked(panel: InteractivePanel) -> list[ipywidgets.Widget]:
    """Return the widgets of a panel that a mouse moves: choosers and sliders, no line of text."""
    moved = [w for w in panel._actions() if hasattr(w, "options") or (hasattr(w, "min") and hasattr(w, "max"))]
    return [w for w in moved if not hasattr(w, "options") or len(w.options) > 1]


def lesson(interactions: int, early: int) -> tuple[float, float, float]:
    """Return the memory after ``early`` interactions and after all, and the seconds of one.

    Args:
        interactions: in all.
        early: after how many memory has to stay flat.
    """
    panels = {name: open_panel(name) for name in PAGES}
    moves = {name: cycle(worked(panel)) for name, panel in panels.items()}
    started, then = time.perf_counter(), 0.0
    for i, name in zip(range(interactions), cycle(panels)):
        if i == early:
            then = own_memory()
        widget = next(moves[name])
        widget.value = next_value(widget)
        if name in TRUTHS and i // len(panels) % RETRAIN == 0:
            panels[name].verify()
    return then, own_memory(), (time.perf_counter() - started) / interactions


def main() -> int:
    """Print the memory before and after, and return 1 unless it is flat."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.interactions", description=__doc__.splitlines()[0])
    parser.add_argument("--interactions", type=int, default=1000)
    parser.add_argument("--early", type=int, default=200)
    chosen = parser.parse_args()
    then, now, seconds = lesson(chosen.interactions, chosen.early)
    growth = now / then - 1
    print(
        f"{chosen.interactions} interactions with {len(PAGES)} panels, {seconds:.2f} s each: {then:.0f} MB after "
        f"{chosen.early}, {now:.0f} MB at the end ({growth:+.1%}; bar {FLAT:+.0%})"
    )
    return 0 if growth <= FLAT else 1


if __name__ == "__main__":
    sys.exit(main())
