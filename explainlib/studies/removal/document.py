"""The numbers of ``docs/removal_study.md`` that one column of one table does not give.

The study's own words of a mark (``studies.documents``); the first after the name is the run:

    scores small near rest         scores of every method by size of the group, with intervals over seeds, and errors
    both cnn                       the same of both states, means alone
    answer small D1                the verdict on a question
    effect_of small D1 .2f         its effect with its interval
    still cnn near rest .2f        the gradient over that of a single task, from the least to the largest
"""

from __future__ import annotations

import pandas

from explainlib.studies.documents import Maker, Tables, interval_text, mean_text, number_text, range_text, table_text
from explainlib.studies.removal.agreement import PRUNED

LABELS = {
    "hessian": "exact Hessian",
    "parameters moved": "predicted parameters, loss not linearised",
    "gauss-newton": "Gauss-Newton",
    "hessian, pruned": f"Hessian, {PRUNED:.0%} of the eigenvalues kept",
    "identity": "identity",
    "cosine": "cosine",
    "random projector": "random projector",
    "cosine, untrained": "cosine before training",
    "other batches": "trained again with other batches",
}
STATES = ("trained", "near rest")
MUCH = 10  # times the least error, from which one median stands for all networks
NONE = "-"


def _error(values: pandas.Series) -> str:
    """Return the mean error; a median with its range, where networks differ much."""
    values = values.dropna()
    if not len(values):
        return NONE
    if values.max() < MUCH * values.min():
        return number_text(values.mean(), ".2f")
    ends = (values.median(), values.min(), values.max())
    median, least, largest = (number_text(end, ".0f" if end >= 10 else ".1f") for end in ends)
    return f"{median}, from {least} to {largest}"


def _rows(part: pandas.DataFrame) -> dict[str, pandas.DataFrame]:
    """Return the rows of each method that there is, in the order of ``LABELS``."""
    return {name: part[part["method"] == name] for name in LABELS if name in set(part["method"])}


def _scores(tables: Tables, words: str) -> str:
    table = tables["removal"]
    part, rows = table[table["state"] == words], []
    if not len(part):
        raise ValueError(f"there is no state {words!r}; choose one of {', '.join(STATES)}.")
    sizes = sorted(part["size"].unique())
    for method, own in _rows(part).items():
        cells = []
        for size in sizes:
            values = own[own["size"] == size]["lds"].tolist()
            cells.append(mean_text(values, ".2f") if values else NONE)
        rows.append([LABELS[method], *cells, _error(own[own["size"] == sizes[0]]["error"])])
    state = "after training" if words == "trained" else words
    return table_text([state, *_size_names(part), f"error, {sizes[0]} removed"], rows)


def _size_names(part: pandas.DataFrame) -> list[str]:
    first, *others = sorted(part["size"].unique())
    return [f"{first} of {part['tasks'].iloc[0]} removed", *map(str, others)]


def _both(tables: Tables, words: str) -> str:
    table, rows = tables["removal"], []
    for method, own in _rows(table).items():
        cells = []
        for size in sorted(table["size"].unique()):
            means = [own[(own["state"] == state) & (own["size"] == size)]["lds"].mean() for state in STATES]
            cells.append(" / ".join(number_text(mean, ".2f") if mean == mean else NONE for mean in means))
        rows.append([LABELS[method], *(NONE if not cell.strip("-/ ") else cell for cell in cells)])
    return table_text(["after training / continued", *_size_names(table)], rows)


def _question(tables: Tables, name: str) -> pandas.Series:
    table = tables["questions"]
    rows = table[table["id"].str.partition(", ")[0] == name]
    if len(rows) != 1:
        raise ValueError(f"no question {name!r}; choose one of {', '.join(table['id'])}.")
    return rows.iloc[0]


def _effect(tables: Tables, words: str) -> str:
    name, form = words.split()
    row = _question(tables, name)
    return interval_text((row["effect"], row["low"], row["high"]), form)


def _still(tables: Tables, words: str) -> str:
    state, _, form = words.rpartition(" ")
    part = tables["removal"]
    part = part[part["state"] == state]
    return range_text(part["gradient"] / part["gradient_of_a_task"], form)


MAKERS: dict[str, Maker] = {
    "scores": _scores,
    "both": _both,
    "answer": lambda tables, words: str(_question(tables, words)["verdict"]),
    "effect_of": _effect,
    "still": _still,
}
