"""The chart to decide by: one question below the other; the first yes says what to compute. Drawn, and in words."""

from __future__ import annotations

import textwrap
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

from explainlib.figures.palette import PALETTE, style
from explainlib.figures.picture import Picture, set_alt


class Step(NamedTuple):
    """One question of the chart, what to do on yes, with which call, and where the course shows it."""

    question: str
    answer: str
    call: str
    shown: str


STEPS = (
    Step(
        "Do you only look for wrong labels?",
        "Sort by raw loss first, then by each example's score on itself",
        "risk.losses(), metrics.mislabel_auc",
        "04, 08, 09",
    ),
    Step(
        "Can you afford to train again without it?",
        "Do, and twice: a truth that does not repeat judges nothing",
        "retraining.leave_out",
        "01, 03",
    ),
    Step(
        "Do you ask what this run was made of, not what would be?",
        "Importance times kernel, tracked while training",
        "representers.tracking_importance",
        "04",
    ),
    Step(
        "Are training tasks the culprits?",
        "Influence of tasks, with cosines before training beside it",
        "TaskInfluence, BilevelInfluence",
        "05 to 08",
    ),
    Step(
        "Stopped early? (1/(rate x steps) is not far below the ridge)",
        "Damping 1/(rate x steps); in the first steps, plain gradients",
        'loss_influence(curvature="gauss_newton", damping=...)',
        "09",
    ),
    Step(
        "No minimum, or the Hessian not positive?",
        "Damped Gauss-Newton: it answers for a model held near itself",
        "influence.proximal_response",
        "03",
    ),
    Step(
        "Does a whole group leave?",
        "Read the trust; second order or a Newton step, or train again",
        "removal_effect, series_trust",
        "02, 09",
    ),
    Step(
        "Is there room for the Hessian? (a few thousand parameters)",
        "The exact influence function",
        "loss_influence",
        "01, 09",
    ),
)
OTHERWISE = Step(
    "",
    "CG for the same number; low rank or EK-FAC, a coarser one for less",
    'loss_influence(solver="cg"), (curvature="ekfac")',
    "01, 09",
)
ALWAYS = (
    "Whatever you compute: put random scores and plain gradients beside it, train again for a few removals, "
    "and report order, size and an interval."
)


def chart_words() -> str:
    """Return the chart as text: one numbered question a line, what to do, the call, and the notebooks that show it."""
    lines = [
        f"{number}. {step.question} Yes: {step.answer}. [{step.call}; notebook {step.shown}]"
        for number, step in enumerate(STEPS, start=1)
    ]
    lines.append(f"Otherwise: {OTHERWISE.answer}. [{OTHERWISE.call}; notebook {OTHERWISE.shown}]")
    return "\n".join([*lines, ALWAYS])


def decision_chart() -> Picture:
    """Return the chart, in black on white with one colour, to print on a page: questions left, what to do right."""
    rows = len(STEPS) + 1
    with style():
        picture = Picture(10.2, 0.98 * rows + 1.2)
        ax = picture.add_axes((0, 0, 1, 1))
        ax.set(xlim=(0, 10.2), ylim=(-0.98 * rows - 0.5, 0.7))
        ax.set_axis_off()
        ax.grid(False)
        ax.text(0.15, 0.42, "Which explanation, when?", fontsize=16, weight="bold", va="center")
        ax.text(4.62, 0.42, "Start at the top. The first yes decides.", fontsize=11, va="center", color="0.25")
        for number, step in enumerate(STEPS):
            y = -0.98 * number
            _box(ax, 0.15, y, 3.5, f"{number + 1}  {step.question}", edge="0.3", face="#f3f3f3", wrap=34)
            _arrow(ax, (3.65, y - 0.36), (4.58, y - 0.36), "yes")
            _action(ax, y, step)
            _arrow(ax, (1.9, y - 0.74), (1.9, y - 0.98), "no")
        y = -0.98 * len(STEPS)
        _box(ax, 0.15, y, 3.5, "otherwise", edge="0.3", face="white", wrap=34)
        _arrow(ax, (3.65, y - 0.36), (4.58, y - 0.36), "")
        _action(ax, y, OTHERWISE)
        words = "\n".join(textwrap.wrap(ALWAYS, 112))
        ax.text(0.15, -0.98 * rows - 0.12, words, fontsize=11, va="center", weight="bold", color=PALETTE["vermillion"])
    set_alt(picture, chart_words().replace("\n", " "))
    return picture


def _box(ax: Axes, x: float, y: float, width: float, text: str, *, edge: str, face: str, wrap: int) -> None:
    """Draw a rounded box whose top is at y, 0.74 high."""
    look = {"boxstyle": "round,pad=0,rounding_size=0.08", "edgecolor": edge, "facecolor": face, "linewidth": 1.2}
    ax.add_patch(FancyBboxPatch((x, y - 0.74), width, 0.74, **look))
    ax.text(x + 0.14, y - 0.37, "\n".join(textwrap.wrap(text, wrap)), fontsize=11, va="center")


def _action(ax: Axes, y: float, step: Step) -> None:
    """Draw what to do: words, and below them the call and the notebooks."""
    _box(ax, 4.62, y, 5.42, "", edge=PALETTE["blue"], face="white", wrap=60)
    ax.text(4.76, y - 0.26, "\n".join(textwrap.wrap(step.answer, 66)), fontsize=10.5, va="center")
    ax.text(4.76, y - 0.59, step.call, fontsize=8.5, va="center", family="monospace", color=PALETTE["blue"])
    ax.text(9.94, y - 0.59, f"notebook {step.shown}", fontsize=8.5, va="center", ha="right", color="0.25")


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], word: str) -> None:
    """Draw an arrow, its word beside the middle."""
    ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": "black", "linewidth": 1.3})
    middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
    if start[0] == end[0]:
        ax.text(middle[0] + 0.1, middle[1] + 0.02, word, fontsize=10, va="center")
    else:
        ax.text(middle[0], middle[1] + 0.13, word, fontsize=10, ha="center", va="center")
