"""The numbers of ``docs/group_study.md``: each stands in a mark that says from which table it is, and is filled in.

The study's own words of a mark (``studies.documents``) begin with the name of what is filled in:

    errors mnist                       error of the parameters by kind, size and method, the radius beside it
    gains mnist random 0.6             correlations and gains by ridge
    sizes mnist random 0.0001          the same by size
    damping mnist random 0.6           correlations by ridge and damping of the prediction
    network mnist                      slopes and correlations of the network
    synthetic mnist                    slopes of the synthetic models
    selection mnist                    predicted and retrained changes of the selected groups
    cost mnist                         seconds and Hessian products
    gain mnist random 0.6 0.0001 per_test preserve       one gain, with its interval over the seeds
    mean mnist images per_test .2f method=second order; kind=random     the mean of a column
    one mnist images n                 a column that is one number
    range mnist network accuracy .2f   the least and the largest of a column
    count mnist images                 the seeds of a table
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas

from explainlib.studies.claims import student_interval
from explainlib.studies.documents import Maker, Tables, table_text
from explainlib.studies.group.claims import BASELINE, FIRST, SECOND, by_seed, gain

SHOWN = (FIRST, SECOND, "+ third derivative", "Newton step")
CORRELATIONS = ("per_test", "pearson", "pearson_evaluated")
SELECTED = ("relaxed", "printed", "greedy", "refit", "swap", "random")


def _interval(values: Mapping[int, float], form: str, column: str = "") -> str:
    """Return a mean with its interval over seeds; that of a correlation stays within its range."""
    mean, low, high = (float(end) for end in student_interval(list(values.values())))
    if not np.isfinite(high - low):
        return f"{mean:{form}}"
    if column in CORRELATIONS:
        low, high = max(low, -1.0), min(high, 1.0)
    return f"{mean:{form}} [{low:{form}}, {high:{form}}]"


def _mean(values: Mapping[int, float], form: str) -> str:
    return f"{np.mean(list(values.values())):{form}}"


def _errors(tables: Tables, words: str) -> str:
    images, rows = tables["images"], []
    where = {"ridge": images["ridge"].max(), "damping": 0.0}
    for kind in ("random", "coherent"):
        for at in sorted(images["fraction"].unique()):
            own = {**where, "kind": kind, "fraction": at}
            cells = [
                f"{_mean(by_seed(images, 'parameter_error', method=m, **own), '.3f')} / "
                f"{_mean(by_seed(images, 'pearson_evaluated', method=m, **own), '.3f')}"
                for m in SHOWN
            ]
            radius = by_seed(images, "radius", method=SECOND, **own)
            terms = by_seed(images, "second_over_first", method=SECOND, **own)
            rows.append([f"{kind} {at:.1%}", *cells, _mean(radius, ".2f"), _mean(terms, ".2f")])
    return table_text(["groups", *SHOWN, "spectral radius", "second over first term"], rows)


def _gain_row(images: pandas.DataFrame, kind: str, at: float, ridge: float) -> list[str]:
    where = {"kind": kind, "fraction": at, "ridge": ridge, "damping": 0.0}
    first, second = (_mean(by_seed(images, "per_test", method=m, **where), ".3f") for m in (BASELINE, SECOND))
    gains = [_interval(gain(images, kind, at, ridge), "+.1%")]
    for column, truth in (("pearson", "preserve"), ("pearson", "plain")):
        values = gain(images, kind, at, ridge, column, truth)
        gains.append(_interval(values, "+.1%") if values else "-")
    gains.insert(2, _interval(gain(images, kind, at, ridge, "pearson", methods=(BASELINE, FIRST)), "+.1%"))
    own = gain(images, kind, at, ridge, "pearson", "plain", (BASELINE, "plain second order"))
    return [first, second, *gains, _interval(own, "+.1%") if own else "-"]


GAINS = [
    "first order, within tests",
    "second",
    "gain within tests",
    "gain pooled",
    "pooled, Basu's first term alone",
    "pooled, against the plain truth",
    "pooled, plain second order and plain truth",
]


def _gains(tables: Tables, words: str) -> str:
    kind, at = words.split()
    images = tables["images"]
    ridges = sorted(images["ridge"].unique(), reverse=True)
    rows = [[f"{ridge:g}", *_gain_row(images, kind, float(at), ridge)] for ridge in ridges]
    return table_text(["ridge", *GAINS], rows)


def _sizes(tables: Tables, words: str) -> str:
    kind, ridge = words.split()
    images = tables["images"]
    sizes = sorted(images["fraction"].unique())
    rows = [[f"{at:.1%}", *_gain_row(images, kind, at, float(ridge))[:5]] for at in sizes]
    return table_text(["removed", *GAINS[:5]], rows)


def _damping(tables: Tables, words: str) -> str:
    kind, at = words.split()
    images, rows = tables["images"], []
    for ridge in sorted(images["ridge"].unique(), reverse=True):
        for damping in sorted(images["damping"].unique()):
            where = {"kind": kind, "fraction": float(at), "ridge": ridge, "damping": damping}
            cells = [
                _interval(by_seed(images, column, method=method, **where), ".2f", column)
                for method in (BASELINE, SECOND)
                for column in ("per_test", "slope_per_test")
            ]
            rows.append([f"{ridge:g}", f"{damping:g}", *cells])
    names = ["first order, Pearson", "slope", "second order, Pearson", "slope"]
    return table_text(["ridge", "damping", *names], rows)


def _network(tables: Tables, words: str) -> str:
    table, rows = tables["network"], []
    for needed, name in ((True, "as needed"), (False, ".01")):
        part = table[table["needed"] == needed]
        for method in (BASELINE, FIRST, SECOND):
            cells = [
                _interval(by_seed(part, column, method=method), ".2f", column)
                for column in ("slope_per_test", "per_test", "pearson")
            ]
            error = np.median(list(by_seed(part, "parameter_error", method=method).values()))
            rows.append([name, method, *cells, f"{error:.2f}"])
    header = ["damping", "method", "slope within tests", "Pearson within tests", "pooled", "error, median seed"]
    return table_text(header, rows)


def _synthetic(tables: Tables, words: str) -> str:
    table, rows = tables["synthetic"], []
    for kind in ("random", "coherent"):
        for at in sorted(table["fraction"].unique()):
            where = {"kind": kind, "fraction": at}
            cells = [
                _interval(by_seed(table, "slope_per_test", method=m, **where), ".2f") for m in (BASELINE, FIRST, SECOND)
            ]
            own = by_seed(table, "slope_per_test", method=BASELINE, **where, truth="plain")
            errors = [_mean(by_seed(table, "parameter_error", method=m, **where), ".3f") for m in SHOWN]
            cells = [cells[0], _interval(own, ".2f") if own else "-", *cells[1:]]
            rows.append([f"{kind} {at:.1%}", *cells, " / ".join(errors)])
    header = ["groups", "Koh's first order", "the same, plain truth", "Basu's first term", "second order"]
    return table_text([*header, "errors: first / second / third derivative / Newton"], rows)


def _selection(tables: Tables, words: str) -> str:
    table, rows = tables["selection"], []
    for value in ("predicted", "retrained"):
        for at, part in table.groupby("fraction"):
            wide = part.pivot(index="seed", columns="method", values=value)
            rows.append([f"{value}, {at:.0%}", *(_interval(wide[m].to_dict(), ".2f") for m in SELECTED)])
    return table_text(["change of the test loss", *SELECTED], rows)


def _cost(tables: Tables, words: str) -> str:
    rows = [
        [row.problem, f"{row.n:,}", f"{row.p:,}", row.solver, str(row.order), str(row.products), f"{row.seconds:.2f}",
         f"{row.seconds_again:.2f}"]
        for row in tables["cost"].itertuples()
    ]  # fmt: skip
    return table_text(["problem", "n", "p", "solver", "order", "products a group", "seconds", "seconds again"], rows)


def _gain(tables: Tables, words: str) -> str:
    kind, at, ridge, column, truth = words.split()
    return _interval(gain(tables["images"], kind, float(at), float(ridge), column, truth), "+.1%")


def _column(tables: Tables, words: str) -> str:
    """Return the mean over seeds of a column, where other columns have given values."""
    table, column, form, rest = words.split(" ", 3)
    frame, where = tables[table], {}
    for pair in rest.split("; "):
        name, _, value = pair.partition("=")
        where[name] = value if frame[name].dtype.kind not in "fbi" else frame[name].dtype.type(_number(value))
    if "truth" not in frame:
        frame = frame.assign(truth="preserve")
    return _interval(by_seed(frame, column, **where), form, column)


def _number(value: str) -> float:
    return float({"True": 1, "False": 0}.get(value, value))


def _range(tables: Tables, words: str) -> str:
    table, column, form = words.split()
    return f"{tables[table][column].min():{form}} to {tables[table][column].max():{form}}"


def _one(tables: Tables, words: str) -> str:
    table, column = words.split()
    values = tables[table][column].unique()
    if len(values) != 1:
        raise ValueError(
            f"{column} of {table} has {len(values)} values, and the document names one; write another mark."
        )
    return f"{values[0]:,}"


MAKERS: dict[str, Maker] = {
    "errors": _errors,
    "gains": _gains,
    "sizes": _sizes,
    "damping": _damping,
    "network": _network,
    "synthetic": _synthetic,
    "selection": _selection,
    "cost": _cost,
    "gain": _gain,
    "range": _range,
    "count": lambda tables, words: str(tables[words]["seed"].nunique()),
    "mean": _column,
    "one": _one,
}
