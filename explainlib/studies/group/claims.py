"""The claims B1 to B6 of Basu et al. 2020: which numbers of the group study's tables they are about.

The unit is a seed: a draw of the data with its model and its groups. Everything is against the paper's truth, the mean
over the rest retrained, and linear in the parameters, as in the paper; B2 to B5 take the median over tests of a
correlation within a test, because the paper looks at one. Within a test Koh's first order and Basu's own are the same
up to scale and shift, so that their correlations are equal and a gain is the second term's alone.

The paper prints no ridge. So B2 and B3 are judged at the ridge that serves the claim best, of those that were run (the
largest of the smallest mean gain over its sizes); that choice is in their favour, and "not held" is no weaker for it.
B4, which says that something is absent, is asked at every ridge. B5 is judged with the damping that the minimum needs,
no more; the paper's own stands beside it, and networks that learned nothing are left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas

from explainlib.studies.claims import (
    ABSENT,
    GROUP,
    NOT_APPLICABLE,
    Comparison,
    Evidence,
    by_cluster,
    judged,
    student_interval,
)
from explainlib.studies.group.parts import BASELINE, FIRST, SECOND
from explainlib.studies.group.problems import WORTH

Tables = Mapping[str, pandas.DataFrame]
Values = dict[int, float]  # by seed
OTHER_DATA = (NOT_APPLICABLE, "the claim is about MNIST")
ELSEWHERE = (NOT_APPLICABLE, "the synthetic models are in the run on MNIST")
LARGE, SMALL = 0.36, 0.1  # "more than 36%"; ours
TESTS = "per_test"
MARGINS = {claim.id: claim.rules[0].margin for claim in GROUP}


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
    images, about = tables["images"], None if data == "mnist" else OTHER_DATA
    sizes = sorted(images["fraction"].unique())
    return {
        "B1": _synthetic(tables["synthetic"]) if "synthetic" in tables else Evidence(withheld=ELSEWHERE),
        "B2": _gains("B2", images, "random", [f for f in sizes if f > LARGE], about),
        "B3": _gains("B3", images, "coherent", sizes, about),
        "B4": _small_gains(images, [f for f in sizes if f <= SMALL], about),
        "B5": _network(tables.get("network"), about),
        "B6": _selection(tables["selection"]) if "selection" in tables else Evidence(withheld=ELSEWHERE),
    }


def by_seed(table: pandas.DataFrame, column: str, **where: object) -> Values:
    """Return a column by seed, its median where a seed has several rows.

    Args:
        table: with a seed.
        column: of the values.
        where: values of other columns; the paper's truth and no damping if not said otherwise.
    """
    for name, value in {"truth": "preserve", **where}.items():
        table = table[table[name] == value]
    return {int(seed): float(value) for seed, value in table.groupby("seed")[column].median().items()}


def gain(
    images: pandas.DataFrame,
    kind: str,
    fraction: float,
    ridge: float,
    column: str = TESTS,
    truth: str = "preserve",
    methods: tuple[str, str] = (BASELINE, SECOND),
) -> Values:
    """Return the relative gain of a correlation from one method to another by seed; nan where there is none to gain on.

    Args:
        images: the table.
        kind: of groups.
        fraction: that is removed.
        ridge: of the model.
        column: "per_test" or "pearson" (pooled).
        truth: "preserve" or "plain".
        methods: (from, to).
    """
    where = {"kind": kind, "fraction": fraction, "ridge": ridge, "truth": truth, "damping": 0.0}
    first, second = (by_seed(images, column, method=method, **where) for method in methods)
    return {seed: second[seed] / first[seed] - 1 if first[seed] > 0 else math.nan for seed in first}


def best_ridge(images: pandas.DataFrame, kind: str, fractions: Sequence[float]) -> float:
    """Return the ridge with the largest of the smallest mean gain over sizes; one with a missing gain comes last.

    Args:
        images: the table.
        kind: of groups.
        fractions: the sizes.
    """

    def least(ridge: float) -> float:
        means = [np.mean(list(gain(images, kind, f, ridge).values())) for f in fractions]
        return min((-math.inf if math.isnan(mean) else float(mean)) for mean in means)

    return max(sorted(images["ridge"].unique(), reverse=True), key=least)


def _format_interval(values: Values, percent: bool = False, most: float = math.inf) -> str:
    """Return a mean with its interval over seeds, whose ends stay below ``most`` in size."""
    mean, low, high = (float(end) for end in student_interval(list(values.values()))) if values else (math.nan,) * 3
    known = math.isfinite(high - low)
    low, high = max(low, -most), min(high, most)
    form = "{:+.0%}" if percent else "{:.2f}"
    if not known:
        return form.format(mean)
    return f"{form.format(mean)} [{form.format(low)}, {form.format(high)}]"


def _by_ridge(images: pandas.DataFrame, kind: str, fraction: float) -> str:
    """Return the gain at one size by ridge: within tests, and pooled against either truth."""
    columns = {
        "within tests": (TESTS, "preserve"),
        "pooled": ("pearson", "preserve"),
        "own truth": ("pearson", "plain"),
    }
    said = []
    for ridge in sorted(images["ridge"].unique(), reverse=True):
        values = {name: gain(images, kind, fraction, ridge, *each) for name, each in columns.items()}
        parts = ", ".join(f"{name} {_format_interval(v, percent=True)}" for name, v in values.items() if v)
        said.append(f"ridge {ridge:g}: {parts}")
    return f"gain at {fraction:.1%}: " + "; ".join(said)


def _gains(
    claim: str, images: pandas.DataFrame, kind: str, fractions: Sequence[float], withheld: tuple[str, str] | None
) -> Evidence:
    if not fractions:
        return Evidence((Comparison("no such size at this scale"),), withheld=withheld)
    ridge = best_ridge(images, kind, fractions)
    comparisons = tuple(by_cluster(f"gain at {f:.1%}", gain(images, kind, f, ridge)) for f in fractions)
    own = gain(images, kind, fractions[-1], ridge, methods=(BASELINE, FIRST))
    notes = (
        f"at ridge {ridge:g}, which serves the claim best; Basu's own first term in the place of the second order "
        f"gains {_format_interval(own, percent=True)}"
    )
    caveat = _pooled_caveat(MARGINS[claim], images, kind, fractions[-1])
    return Evidence(comparisons, _by_ridge(images, kind, fractions[-1]), withheld, notes, caveat)


def _pooled_caveat(margin: float, images: pandas.DataFrame, kind: str, fraction: float) -> str:
    """Return at which ridge the gain is there once tests are pooled, and what Basu's first term alone has of it."""
    for ridge in sorted(images["ridge"].unique(), reverse=True):
        pooled = gain(images, kind, fraction, ridge, "pearson")
        if float(student_interval(list(pooled.values()))[1]) > margin:
            own = gain(images, kind, fraction, ridge, "pearson", methods=(BASELINE, FIRST))
            return (
                f"but with tests pooled the gain at {fraction:.0%} and ridge {ridge:g} is "
                f"{_format_interval(pooled, percent=True)}, of which Basu's own first term alone has "
                f"{_format_interval(own, percent=True)}: it is that of the weights"
            )
    return ""


def _small_gains(images: pandas.DataFrame, fractions: Sequence[float], withheld: tuple[str, str] | None) -> Evidence:
    comparisons = tuple(
        by_cluster(f"gain at {f:.1%}, ridge {ridge:g}", gain(images, "random", f, ridge))
        for ridge in sorted(images["ridge"].unique(), reverse=True)
        for f in fractions
    )
    return Evidence(comparisons, "Koh's first order is the baseline", withheld)


def _synthetic(table: pandas.DataFrame) -> Evidence:
    """Return the slopes within tests, of second order at every size and of Koh's first order at the largest."""
    most = table["fraction"].max()
    where = {"kind": "random", "fraction": most}
    slopes = {name: by_seed(table, "slope_per_test", method=name, **where) for name in (BASELINE, FIRST, SECOND)}
    comparisons = [
        by_cluster(
            f"second order at {f:.1%}",
            by_seed(table, "slope_per_test", method=SECOND, kind="random", fraction=f),
        )
        for f in sorted(table["fraction"].unique())
    ]
    far = {seed: abs(slope - 1) for seed, slope in slopes[BASELINE].items()}
    comparisons.append(by_cluster(f"Koh's first order at {most:.1%}", far, rule=1))
    own = by_seed(table, "slope_per_test", method=BASELINE, **{**where, "truth": "plain"})
    pooled = {name: _format_interval(by_seed(table, "slope", method=name, **where)) for name in slopes}
    coherent = {
        name: _format_interval(by_seed(table, "slope_per_test", method=name, kind="coherent", fraction=most))
        for name in (BASELINE, SECOND)
    }
    controls = (
        f"slopes at {most:.0%}: Koh's first order {_format_interval(slopes[BASELINE])}, against the truth with its own "
        f"weights {_format_interval(own)}, Basu's own first term {_format_interval(slopes[FIRST])}"
    )
    notes = "; ".join(f"pooled, {name} {text}" for name, text in pooled.items())
    notes += "; " + "; ".join(f"coherent, {name} {text}" for name, text in coherent.items())
    _, low, high = (float(end) for end in student_interval(list(slopes[FIRST].values())))
    near = low > 0.9 and high < 1.1
    caveat = "but Basu's own first term, Koh's over 1 - f, stays there without the second" if near else ""
    return Evidence(tuple(comparisons), controls, notes=notes, caveat=caveat)


def _network(table: pandas.DataFrame | None, withheld: tuple[str, str] | None) -> Evidence:
    """Return the less of the slopes, the first order's correlation and the second's gain: medians over the cells."""
    if table is None:
        return Evidence((Comparison("network (not tried at this scale)"),), withheld=withheld)
    learned = table[table["accuracy"] >= WORTH]
    if learned.empty:
        return Evidence(withheld=withheld or (ABSENT, f"no network is right on {WORTH:.0%} of new images"))
    dropped, table = table["seed"].nunique() - learned["seed"].nunique(), learned
    values = {}
    for needed, part in table.groupby("needed"):
        for column in (TESTS, "slope_per_test", "pearson"):
            for method in (BASELINE, SECOND):
                values[bool(needed), column, method] = by_seed(part, column, method=method)
    slopes, pearson = ([values[True, c, m] for m in (BASELINE, SECOND)] for c in ("slope_per_test", TESTS))
    comparisons = (
        by_cluster("less of the slopes", {s: min(each[s] for each in slopes) for s in slopes[0]}),
        by_cluster("Pearson of first order", pearson[0], rule=1),
        by_cluster("second minus first", {s: pearson[1][s] - pearson[0][s] for s in pearson[0]}, rule=2),
    )
    said = []
    for needed, name in ((True, "as needed"), (False, "the paper's .01")):
        if (needed, TESTS, SECOND) in values:
            of = ", ".join(
                f"{method} slope {_format_interval(values[needed, 'slope_per_test', method])}, Pearson "
                f"{_format_interval(values[needed, TESTS, method], most=1.0)}, pooled "
                f"{_format_interval(values[needed, 'pearson', method], most=1.0)}"
                for method in (BASELINE, SECOND)
            )
            said.append(f"damping {name}: {of}")
    lowest = table.groupby("seed")["lowest"].first()
    notes = f"smallest eigenvalues {lowest.min():.1e} to {lowest.max():.1e}"
    notes += f"; {dropped} networks that learned nothing are left out" if dropped else ""
    return Evidence(comparisons, "; ".join(said), withheld, notes)


def _selection(table: pandas.DataFrame) -> Evidence:
    """Return the relaxed choice over greedy's, minus 1, by size; what retraining says stands beside it."""
    wide, true = (
        table.pivot(index=["seed", "fraction"], columns="method", values=v) for v in ("predicted", "retrained")
    )
    predicted = (wide["relaxed"] / wide["greedy"] - 1).unstack("seed")
    retrained = (true["relaxed"] / true["greedy"] - 1).unstack("seed")
    comparisons = [by_cluster(f"at {at:.0%}", row.to_dict()) for at, row in predicted.iterrows()]
    last = predicted.iloc[-1] - predicted.iloc[0]
    comparisons.append(by_cluster("largest minus smallest", last.to_dict()))
    said = ", ".join(f"{_format_interval(row.to_dict(), percent=True)} at {at:.0%}" for at, row in retrained.iterrows())
    refit = (true["refit"] / true["relaxed"] - 1).unstack("seed")
    ahead = ", ".join(f"{_format_interval(row.to_dict(), percent=True)} at {at:.0%}" for at, row in refit.iterrows())
    share = (wide["random"] / wide["greedy"]).unstack("seed").mean(axis=1)
    controls = f"greedy with refits over the relaxed choice, retrained: {ahead}; random over greedy, predicted: "
    controls += ", ".join(f"{value:.3f} at {at:.0%}" for at, value in share.items())
    caveat = "the prediction cannot be below greedy's, which the search starts from"
    wins = int((refit > 0).all().sum())
    if wins:
        caveat += f"; retrained, greedy with refits is ahead of it at every size for {wins} of {refit.shape[1]} draws"
    return Evidence(tuple(comparisons), controls, notes=f"retrained: {said}", caveat=caveat)
