"""The scoreboard: what a paper says, what was seen, and whether it held; one row per claim, none left out."""

from __future__ import annotations

from collections.abc import Mapping

import pandas

from explainlib.studies.verdicts import HELD, NOT_HELD, UNDECIDED

BASELINE = "Koh first order"  # the paper compares with Koh et al. 2019


def group_claims(tables: Mapping[str, pandas.DataFrame]) -> pandas.DataFrame:
    """Return the claims B1 to B6 of Basu et al. 2020 with verdicts, from the tables of the group study."""
    rows = [
        _b1(tables["synthetic"]),
        *_b2_to_b4(tables["images"]),
        _b5(tables.get("network")),
        _b6(tables["selection"]),
    ]
    return pandas.DataFrame(rows, columns=["id", "place", "printed", "ours", "verdict"])


def _row(name: str, place: str, printed: str, ours: str, verdict: str) -> dict[str, str]:
    return {"id": name, "place": place, "printed": printed, "ours": ours, "verdict": verdict}


def _by_method(table: pandas.DataFrame, method: str, **where: object) -> pandas.DataFrame:
    chosen = table[table["method"] == method]
    for column, value in where.items():
        chosen = chosen[chosen[column] == value]
    return chosen.sort_values("fraction").reset_index(drop=True)


def _b1(table: pandas.DataFrame) -> dict[str, str]:
    first, second = _by_method(table, BASELINE), _by_method(table, "second order")
    last1, last2, own = first.iloc[-1], second.iloc[-1], _by_method(table, "first order").iloc[-1]
    ours = (
        f"at {last2.fraction:.0%} removed: slope of truth on second order {last2.slope_tangent:.2f} (tangent), "
        f"{last2.slope:.2f} [{last2.slope_low:.2f}, {last2.slope_high:.2f}] evaluated; on Koh's first order "
        f"{last1.slope_tangent:.2f} and {last1.slope:.2f}, on Basu's own first "
        f"term {own.slope_tangent:.2f} and {own.slope:.2f}"
    )
    near = abs(last2.slope - 1) <= 0.1 and (second["pearson"] > 0.95).all()
    far = abs(last1.slope - 1) > 2 * abs(last2.slope - 1)
    printed = "second order stays on y = x up to 60% removed, first order does not"
    return _row("B1", "Fig 1", printed, ours, HELD if near and far else NOT_HELD)


def _gains(table: pandas.DataFrame, kind: str) -> pandas.DataFrame:
    """Return the relative gain of Pearson from Koh's first order to second order, on the tangent as in the paper."""
    first, second = (_by_method(table, method, kind=kind) for method in (BASELINE, "second order"))
    return first.assign(gain=second["pearson_tangent"] / first["pearson_tangent"] - 1)[["fraction", "gain"]]


def _b2_to_b4(table: pandas.DataFrame) -> list[dict[str, str]]:
    random, coherent = _gains(table, "random"), _gains(table, "coherent")
    large, small = random[random["fraction"] > 0.36], random[random["fraction"] <= 0.1]

    def said(gains: pandas.DataFrame) -> str:
        return "gain of Pearson: " + ", ".join(f"{g.gain:+.1%} at {g.fraction:.3g}" for g in gains.itertuples())

    return [
        _row(
            "B2",
            "Fig 2 left",
            "random groups above 36%: gains of 40% and more",
            said(large),
            HELD if (large["gain"] >= 0.4).all() else NOT_HELD,
        ),
        _row(
            "B3",
            "Fig 2 right",
            "coherent groups: gains of at least 15% at every size",
            said(coherent),
            HELD if (coherent["gain"] >= 0.15).all() else NOT_HELD,
        ),
        _row(
            "B4",
            "Fig 2 left",
            "small random groups: a small gain",
            said(small),
            HELD if (small["gain"].abs() < 0.05).all() else NOT_HELD,
        ),
    ]


def _b5(table: pandas.DataFrame | None) -> dict[str, str]:
    printed = "in a network both underestimate, no significant correlation, second order marginally better"
    if table is None:
        return _row("B5", "7.3.2", printed, "not tried at this scale", UNDECIDED)
    first, second = _by_method(table, BASELINE), _by_method(table, "second order")
    ours = (
        f"median Pearson {first['pearson_tangent'].median():.2f} first, "
        f"{second['pearson_tangent'].median():.2f} second; median slope of truth on prediction "
        f"{first['slope_tangent'].median():.2f} and {second['slope_tangent'].median():.2f} (above 1: underestimated)"
    )
    under = first["slope_tangent"].median() > 1 and second["slope_tangent"].median() > 1
    weak = first["pearson_tangent"].median() < 0.5
    better = second["pearson_tangent"].median() > first["pearson_tangent"].median()
    parts = [
        name
        for name, seen in (("underestimated", under), ("no correlation", weak), ("second better", better))
        if not seen
    ]
    return _row("B5", "7.3.2", printed, ours, HELD if not parts else f"{NOT_HELD}: {', '.join(parts)}")


def _b6(table: pandas.DataFrame) -> dict[str, str]:
    wide = table.pivot(index="fraction", columns="method", values="predicted")
    true = table.pivot(index="fraction", columns="method", values="retrained")
    gain = wide["relaxed"] / wide["greedy"] - 1
    truth = true["relaxed"] / true["greedy"] - 1
    ours = (
        "boxed relaxation against greedy, predicted: "
        + ", ".join(f"{g:+.1%} at {f:.0%}" for f, g in gain.items())
        + "; retrained: "
        + ", ".join(f"{g:+.1%}" for g in truth)
        + "; best by retraining: "
        + ", ".join(str(row.idxmax()) for _, row in true.iterrows())
    )
    printed = "optimised selection beats greedy first order at 10-30%, most at large sizes"
    held = (gain > 0).all() and gain.iloc[-1] == gain.max()
    return _row("B6", "Fig 3", printed, ours, f"{HELD if held else NOT_HELD} for the prediction")
