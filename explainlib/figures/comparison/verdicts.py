"""The scoreboard as bars: how many claims of each paper came to which verdict."""

from __future__ import annotations

import pandas

from explainlib.figures.palette import PALETTE, style
from explainlib.figures.picture import Picture, literal, set_alt
from explainlib.studies.claims import VERDICTS
from explainlib.studies.scoreboard import LETTERS

LOOKS = {  # colour and hatch of each verdict
    "held": (PALETTE["blue"], ""),
    "not held": (PALETTE["vermillion"], "//"),
    "undecided": ("0.75", ".."),
    "premise absent": (PALETTE["sky"], "xx"),
    "not applicable": ("white", ""),
}


def verdict_bars(board: pandas.DataFrame) -> Picture:
    """Return one bar a paper, its claims by verdict.

    Args:
        board: the scoreboard, with columns "id" and "verdict".
    """
    counts = {
        name: board[board["id"].str.startswith(letter)]["verdict"].value_counts().to_dict()
        for name, letter in LETTERS.items()
    }
    with style():
        picture = Picture(8.2, 0.95 + 0.48 * len(counts))
        ax = picture.add_axes((0.1, 0.14, 0.88, 0.7))
        left, order = dict.fromkeys(counts, 0), {name: place for place, name in enumerate(counts)}
        for verdict in VERDICTS:
            colour, hatch = LOOKS[verdict]
            shown = {name: own[verdict] for name, own in counts.items() if verdict in own}
            if not shown:
                continue
            where = {"y": [order[name] for name in shown], "left": [left[name] for name in shown]}
            look = {"color": colour, "hatch": hatch, "edgecolor": "black" if colour == "white" else "white"}
            bars = ax.barh(width=list(shown.values()), linewidth=0.8, label=verdict, **where, **look)
            for bar, value in zip(bars, shown.values(), strict=True):
                box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none"}
                middle = bar.get_x() + bar.get_width() / 2
                ax.text(middle, bar.get_y() + bar.get_height() / 2, str(value), ha="center", va="center", bbox=box)
            left = {name: left[name] + shown.get(name, 0) for name in counts}
        ax.set_yticks(list(order.values()), [literal(name) for name in order])
        ax.invert_yaxis()
        ax.grid(False)
        ax.set_xlabel("claims")
        ax.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=5, borderaxespad=0.1)
    said = "; ".join(
        f"{name} " + ", ".join(f"{own[verdict]} {verdict}" for verdict in VERDICTS if verdict in own)
        for name, own in counts.items()
    )
    set_alt(picture, f"Claims by paper and verdict: {said}.")
    return picture
