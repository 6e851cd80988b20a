"""The numbers of ``docs/bilevel_study.md``: each stands in a mark that says from which table it is, and is filled in.

The study's own words of a mark (``studies.documents``) begin with the name of what is filled in. "hands" is the runs
digits and mnist together, "anew" omniglot and glyphs; where a run has two inner problems, the mark names one:

    editing hands proximal cosine .2f        error of the step and its cosine by method, count and run
    examples hands                           the same of examples removed, by part
    quarter hands                            accuracy without the quarter that each score finds most harmful
    found anew proximal                      area under the curve, and share found at 40% inspected
    fractions anew                           error by the share of a task's weight that is taken away
    depth omniglot Neumann depth             error by depth, or by "inner descent steps"
    gap digits proximal task influence       distance in accuracy to solving again, most tasks removed
    cost digits proximal task influence      seconds over those of solving again, all counts
    once digits proximal task influence      the same of one task, by median seconds
    example_cost hands                       seconds over those of solving again, many examples; least to largest
    length hands Gamma                       the step's length over that of the true one; least to largest
    elsewhere glyphs head                    how many tasks' removals end elsewhere from the first weights, and how far
    oracle glyphs head 0.2                   change of accuracy where exactly the tasks with wrong labels leave
    worst digits TracIn; random              accuracies without the worst 40% by each score; least to largest
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pandas

from explainlib.studies.bilevel.problem import PUBLISHED
from explainlib.studies.documents import Maker, Tables, mean_text, number_text, range_text, table_text

AGAIN = "solved again"
EDITS = {
    "no edit": "no edit",
    "task influence": "task influence, exact",
    "leave-out Newton step": "leave-out Newton step",
    "without third derivative": "without the third derivative",
    "first order": "first order",
    "gradient ascent": "gradient ascent",
    "Gamma": "Gamma",
    PUBLISHED: f"{PUBLISHED} (the paper's pipeline)",
    "direct": "direct",
}
SCORES = {
    "oracle": "oracle",
    "task influence": "task influence",
    "direct": "direct",
    "first order": "first order",
    "gradient product": "gradient product",
    "Gamma": "Gamma",
    "cosine": "cosine",
    PUBLISHED: "the paper's pipeline",
    "TracIn": "TracIn",
    "TRAK, flat": "TRAK, flat",
    "EK-FAC IF, flat": "EK-FAC IF, flat",
    "raw loss": "raw loss",
    "random": "random",
}
NAMES = {"mnist": "MNIST", "omniglot": "Omniglot"}
SAME = 1e-6  # of the parameters' length: solved from two starts, and the same solution


def _error(value: float) -> str:
    """Return a relative error to two digits, to three near 1; 1 is that of no step."""
    if abs(value - 1) < 1e-6:
        return "1"
    near = value < 0.0995 or 0.985 <= value < 0.9995
    digits = 3 if near else 2 if value < 1.05 else 1 if value < 9.95 else 0
    return number_text(value, f".{digits}f")


def _pair(error: float, agreement: float, form: str) -> str:
    return f"{_error(error)} / {'-' if np.isnan(agreement) else number_text(agreement, form)}"


def _runs(frame: pandas.DataFrame) -> Iterator[tuple[str, pandas.DataFrame]]:
    """Yield the beginning of a column's name and the rows, by run where there are several."""
    if "run" not in frame:
        yield "", frame
        return
    for run, part in frame.groupby("run", sort=False):
        yield NAMES.get(str(run), str(run)), part


def _inner(frame: pandas.DataFrame, inner: str) -> pandas.DataFrame:
    chosen = frame[frame["inner"] == inner]
    if not len(chosen):
        raise ValueError(f"there is no inner problem {inner!r}; choose one of {', '.join(frame['inner'].unique())}.")
    return chosen


def _known(frame: pandas.DataFrame, labels: Mapping[str, str]) -> dict[str, str]:
    there = set(frame["method"])
    return {method: label for method, label in labels.items() if method in there}


def _method(frame: pandas.DataFrame, method: str) -> pandas.DataFrame:
    chosen = frame[frame["method"] == method]
    if not len(chosen):
        raise ValueError(f"there is no method {method!r}; choose one of {', '.join(frame['method'].unique())}.")
    return chosen


def _headed(heads: list[tuple[str, str]]) -> list[str]:
    """Return the names of columns (run, what), the run's only at its first."""
    firsts = [k == 0 or heads[k - 1][0] != run for k, (run, _) in enumerate(heads)]
    return [f"{run}, {what}" if first and run else what for first, (run, what) in zip(firsts, heads, strict=True)]


def _editing(tables: Tables, words: str) -> str:
    inner, column, form = words.split()
    table, heads, parts = _inner(tables["editing"], inner), [], []
    for run, part in _runs(table):
        for count, rows in part.groupby("count"):
            heads.append((run, f"{count} task" if count == 1 else str(count)))
            parts.append(rows.groupby("method")[["parameter_error", column]].median())
    rows = [
        [label, *(_pair(*medians.loc[method], form) for medians in parts)]
        for method, label in _known(table, EDITS).items()
    ]
    return table_text(["", *_headed(heads)], rows)


def _examples(tables: Tables, words: str) -> str:
    heads, parts = [], []
    for run, part in _runs(tables["examples"]):
        for many in (False, True):
            heads.append((run, "many" if many else "one"))
            parts.append(part[(part["removed"] > 1) == many])
    rows = []
    for label, columns in (
        ("exact", ["parameter_error", "cosine"]),
        ("the paper's pipeline", ["published_error", "published_cosine"]),
    ):
        for kind in ("training", "validation"):
            medians = [rows_of[rows_of["part"] == kind][columns].median() for rows_of in parts]
            rows.append([f"{kind} examples, {label}", *(_pair(*both, ".2f") for both in medians)])
    return table_text(["", *_headed(heads)], rows)


def _quarter(tables: Tables, words: str) -> str:
    table = tables["harmful"]
    table, heads, parts = table[table["inspected"] == 0.25], [], []
    for run, part in _runs(table):
        for share, rows in part.groupby("flipped"):
            heads.append((run, f"{share:.0%} wrong"))
            parts.append(rows)
    before = ["nothing removed", *(number_text(part["accuracy_before"].mean(), ".3f") for part in parts)]
    rows = [
        [label, *(number_text(_method(part, method)["accuracy"].mean(), ".3f") for part in parts)]
        for method, label in _known(table, SCORES).items()
    ]
    return table_text(["", *_headed(heads)], [before, *rows])


def _found(tables: Tables, words: str) -> str:
    table = _inner(tables["harmful"], words)
    table, heads, parts = table[table["inspected"] == 0.4], [], []
    for run, part in _runs(table):
        for share, rows in part.groupby("flipped"):
            heads.append((run, f"{share:.0%} flipped"))
            parts.append(rows.groupby("method")[["auc", "found"]].mean())
    rows = [
        [label, *(", ".join(number_text(value, ".2f") for value in means.loc[method]) for means in parts)]
        for method, label in _known(table, SCORES).items()
    ]
    return table_text(["", *_headed(heads)], rows)


def _fractions(tables: Tables, words: str) -> str:
    table, rows = tables["fractions"], []
    fractions = sorted(table["fraction"].unique())
    for inner in sorted(table["inner"].unique(), reverse=True):
        for run, part in _runs(_inner(table, inner)):
            errors = [part[part["fraction"] == fraction]["error"] for fraction in fractions]
            cells = [f"{_error(e.median())} [{_error(e.min())}, {_error(e.max())}]" for e in errors]
            rows.append([f"{inner}, {run}" if run else inner, *cells])
    names = ["the whole task" if fraction == 1 else f"{fraction:.0%}" for fraction in fractions]
    return table_text(["taken away", *names], rows)


def _depth(tables: Tables, words: str) -> str:
    table = _inner(tables["depth"], "proximal")
    chosen = table[table["kind"] == words].sort_values("steps")
    dense = table[table["kind"] == "dense"]["error"].mean()
    errors = [*(_error(error) for error in chosen["error"]), _error(dense)]
    return table_text([words, *(str(steps) for steps in chosen["steps"]), "exact"], [["relative error", *errors]])


def _by_seed(frame: pandas.DataFrame, values: pandas.Series) -> pandas.Series:
    return values.groupby(frame["seed"]).mean()


def _gap(tables: Tables, words: str) -> str:
    inner, _, method = words.partition(" ")
    editing = _inner(tables["editing"], inner)
    rows = _method(editing[editing["count"] == editing["count"].max()], method)
    return mean_text(_by_seed(rows, (rows["accuracy"] - rows["accuracy_solved"]).abs()), ".3f")


def _cost(tables: Tables, words: str) -> str:
    inner, _, method = words.partition(" ")
    editing = _inner(tables["editing"], inner)
    own, again = (_method(editing, name) for name in (method, AGAIN))
    return mean_text(_by_seed(own, own["seconds"]) / _by_seed(again, again["seconds"]), ".0%")


def _once(tables: Tables, words: str) -> str:
    inner, _, method = words.partition(" ")
    one = _inner(tables["editing"], inner)
    one = one[one["count"] == 1]
    share = _method(one, method)["seconds"].median() / _method(one, AGAIN)["seconds"].median()
    return number_text(share, ".0%")


def _example_cost(tables: Tables, words: str) -> str:
    many, shares = tables["examples"], []
    for _, part in _runs(many[many["removed"] > 1]):
        for _, rows in part.groupby("part"):
            shares.append(_by_seed(rows, rows["seconds"] / rows["seconds_cold"]).mean())
    return range_text(shares, ".0%")


def _length(tables: Tables, words: str) -> str:
    """Return the length from the error and the cosine: error^2 = 1 + length^2 - 2 length cosine, the smaller root."""
    rows = _method(tables["editing"], words)
    error, cosine = rows["parameter_error"], rows["cosine"]
    lengths = cosine - (cosine**2 - (1 - error**2)).clip(lower=0) ** 0.5
    return range_text(lengths.tolist(), ".1%")


def _elsewhere(tables: Tables, words: str) -> str:
    editing = _inner(tables["editing"], words)
    one = _method(editing[editing["count"] == 1], AGAIN)["cold_differs"]
    far = one[one > SAME]
    return f"{len(far)} of {len(one)} tasks, by {range_text(far.tolist(), '.0%')}"


def _oracle(tables: Tables, words: str) -> str:
    inner, share = words.split()
    rows = _inner(tables["harmful"], inner)
    rows = rows[rows["flipped"] == float(share)]
    return mean_text(_by_seed(rows, rows["accuracy_clean"] - rows["accuracy_before"]), "+.3f")


def _worst(tables: Tables, words: str) -> str:
    accuracies = tables["removal"].groupby("method")["accuracy"].mean()
    return range_text([accuracies[method] for method in words.split("; ")], ".3f")


MAKERS: dict[str, Maker] = {
    "editing": _editing,
    "examples": _examples,
    "quarter": _quarter,
    "found": _found,
    "fractions": _fractions,
    "depth": _depth,
    "gap": _gap,
    "cost": _cost,
    "once": _once,
    "example_cost": _example_cost,
    "length": _length,
    "elsewhere": _elsewhere,
    "oracle": _oracle,
    "worst": _worst,
}
