"""The claims B1 to B6 of Basu et al. 2020: which numbers of the group study's tables they are about.

The unit would be a model on a draw of its data, and a run has one: its forty groups are removals from the same model,
and resampling them says nothing about another one. So nothing is decided here, and the numbers stand for themselves.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas

from explainlib.studies.claims import GROUP, NOT_APPLICABLE, UNDECIDED, Comparison, Evidence, judged

Tables = Mapping[str, pandas.DataFrame]
BASELINE = "Koh first order"  # the paper compares with Koh et al. 2019
ONE_MODEL = "one model on one draw of its data; its groups are no clusters"
ONE_RIDGE = (
    f"{ONE_MODEL}; one ridge, one truth, and tests pooled, where several ridges and per-test medians are asked for"
)
OTHER_DATA = "the claim is about MNIST"


def group_claims(tables: Tables, data: str) -> pandas.DataFrame:
    """Return the claims with verdicts, from the tables of the study.

    Args:
        tables: of the study.
        data: that "images" are of.
    """
    return judged(GROUP, group_evidence(tables, data))


def group_evidence(tables: Tables, data: str) -> dict[str, Evidence]:
    """Return what the tables of the study say about each claim, by its id.

    Args:
        tables: of the study.
        data: that "images" are of.
    """
    images, about = tables["images"], None if data == "mnist" else (NOT_APPLICABLE, OTHER_DATA)
    random, coherent = _gains(images, "random"), _gains(images, "coherent")
    above, below = ({f: g for f, g in random.items() if (f > 0.36) == large} for large in (True, False))
    small = {fraction: gain for fraction, gain in below.items() if fraction <= 0.1}
    found = {
        name: _evidence("gain", gains, about or (UNDECIDED, ONE_RIDGE))
        for name, gains in (("B2", above), ("B3", coherent), ("B4", small))
    }
    return {"B1": _synthetic(tables["synthetic"]), **found, "B5": _network(tables.get("network")),
            "B6": _selection(tables["selection"])}  # fmt: skip


def _evidence(name: str, values: Mapping[float, float], withheld: tuple[str, str]) -> Evidence:
    comparisons = tuple(Comparison(f"{name} at {at:.3g}", (float(value),)) for at, value in values.items())
    return Evidence(comparisons, "Koh's first order is the baseline", withheld)


def _by_method(table: pandas.DataFrame, method: str, **where: object) -> pandas.DataFrame:
    chosen = table[table["method"] == method]
    for column, value in where.items():
        chosen = chosen[chosen[column] == value]
    return chosen.sort_values("fraction").reset_index(drop=True)


def _synthetic(table: pandas.DataFrame) -> Evidence:
    first, second, own = (_by_method(table, method).iloc[-1] for method in (BASELINE, "second order", "first order"))
    comparisons = (
        Comparison(f"second order at {second.fraction:.0%}", (float(second.slope_tangent),)),
        Comparison("Koh's first order", (abs(float(first.slope_tangent) - 1),), rule=1),
    )
    controls = f"slope on Koh's first order {first.slope_tangent:.2f}, on Basu's own first term {own.slope_tangent:.2f}"
    notes = (
        f"evaluated at the predicted parameters: second order {second.slope:.2f}, Koh's first order {first.slope:.2f}"
    )
    return Evidence(comparisons, controls, (UNDECIDED, ONE_MODEL), notes)


def _gains(table: pandas.DataFrame, kind: str) -> dict[float, float]:
    """Return the relative gain of Pearson from Koh's first order to second order by fraction, on the tangent."""
    first, second = (_by_method(table, method, kind=kind) for method in (BASELINE, "second order"))
    gains = second["pearson_tangent"] / first["pearson_tangent"] - 1
    return dict(zip(first["fraction"], gains, strict=True))


def _network(table: pandas.DataFrame | None) -> Evidence:
    if table is None:
        return Evidence((Comparison("network (not tried at this scale)"),))
    first, second = _by_method(table, BASELINE), _by_method(table, "second order")
    slopes, pearson = (
        {name: float(part[column].median()) for name, part in (("first", first), ("second", second))}
        for column in ("slope_tangent", "pearson_tangent")
    )
    comparisons = (
        Comparison("less of the slopes", (min(slopes.values()),)),
        Comparison("Pearson of first order", (pearson["first"],), rule=1),
        Comparison("second minus first", (pearson["second"] - pearson["first"],), rule=2),
    )
    controls = f"median slope of first order {slopes['first']:.2f}, second {slopes['second']:.2f}"
    reason = f"{ONE_MODEL}; a network on digits, with a damping of .01 whatever the minimum needs"
    return Evidence(comparisons, controls, (UNDECIDED, reason))


def _selection(table: pandas.DataFrame) -> Evidence:
    wide = table.pivot(index="fraction", columns="method", values="predicted")
    true = table.pivot(index="fraction", columns="method", values="retrained")
    gain, truth = wide["relaxed"] / wide["greedy"] - 1, true["relaxed"] / true["greedy"] - 1
    comparisons = [Comparison(f"at {at:.0%}", (float(value),)) for at, value in gain.items()]
    comparisons.append(Comparison("largest minus smallest", (float(gain.iloc[-1] - gain.iloc[0]),)))
    notes = "retrained: " + ", ".join(f"{value:+.1%} at {at:.0%}" for at, value in truth.items())
    controls = "best by retraining: " + ", ".join(str(row.idxmax()) for _, row in true.iterrows())
    return Evidence(tuple(comparisons), controls, (UNDECIDED, f"{ONE_MODEL}; one test"), notes)
