"""The tables and numbers of ``docs/fragility_study.md`` that come from the design, each in a mark that is filled in.

The study's own words of a mark (``studies.documents``):

    table design cells                 one of ``TABLES``, whose functions make the text
    cells design .2f ridge=0; prediction=influence, damping 0      mean Spearman of a cell, or of several least to
                                       largest; "truth: trained on" as a prediction takes the other truth
    spreads design .2f relu, depth 5, width 5      the propagated over the sampled spread, least to largest over costs
    solved-over-trained design .0f     how much further the solved last layer moves the loss, least to largest over n
    bayesian-gain design .2f gaussian  Spearman by a cost minus that with a ridge, of the full divergence
    average-gain design .2f none twin network      Spearman of one state minus another, with a ridge or with none
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Real

import numpy as np
import pandas

from explainlib.studies.claims import mean_interval
from explainlib.studies.documents import Maker, Tables, mean_text, number_text, range_text, table_text
from explainlib.studies.fragility.design.averages import STATES
from explainlib.studies.fragility.design.bayes import RIDGE
from explainlib.studies.fragility.design.claims import average_gain, bayesian_gain
from explainlib.studies.fragility.design.images import AGAIN, ALL, GRADIENTS, LAST, LOSS, SCRATCH, SOLVED, TRAINED
from explainlib.studies.fragility.design.settings import GAUSSIAN, SAMPLED, TAYLOR

COSTS = {RIDGE: "ridge, no prior", SAMPLED: "sampled", GAUSSIAN: "the paper's", TAYLOR: "Taylor"}
SPEARMAN = "spearman_highest_loss"
WHOLE = "150 flowers"


def _number(value: Real) -> str:
    return number_text(value, ".2f")


def said(values: Sequence[float]) -> str:
    """Return the mean over networks with its 95% interval inside [-1, 1], and how many have no number."""
    known = [float(value) for value in values if value == value]
    if not known:
        return "-"
    mean, low, high = map(float, mean_interval(known))
    inside = f" [{_number(max(low, -1))}, {_number(min(high, 1))}]" if np.isfinite(high - low) else ""
    missing = f", {len(values) - len(known)} without" if len(known) < len(values) else ""
    return f"{_number(mean)}{inside}{missing}"


def _by_split(part: pandas.DataFrame, column: str = "spearman") -> list[float]:
    return part.groupby("split")[column].mean().tolist()  # over the shapes


def _compared(tables: Tables, whole: bool = False) -> pandas.DataFrame:
    """Return the rows over the flowers of highest loss, of the splits or of all flowers."""
    table = tables["factors"]
    table = table[(table["status"] == "compared") & (table["protocol"] == "highest loss")]
    return table[table["shape"].str.contains(WHOLE) == whole]


def _cells(tables: Tables, whole: bool = False) -> str:
    table = _compared(tables, whole)
    predictions = ("influence, damping 0", "influence, damping 0.01", "gradient product", "loss of the example")
    rows = []
    for ridge in sorted(table["ridge"].unique(), reverse=True):
        for parameters in ("last", "all"):
            for truth in ("solved", "trained on", "from scratch"):
                part = table[
                    (table["ridge"] == ridge) & (table["parameters"] == parameters) & (table["truth"] == truth)
                ]
                if not len(part):
                    continue
                cells = [said(_by_split(part[part["prediction"] == name])) for name in predictions]
                slope = _by_split(part[part["prediction"] == predictions[0]], "slope")
                beside = part[part["prediction"] == "truth: trained on"] if truth == "from scratch" else part[:0]
                other = said(_by_split(beside)) if len(beside) else "-"
                rows.append(
                    [f"{ridge:g}" if ridge else "none", {"last": "last layer"}.get(parameters, "all"), truth, *cells,
                     _number(float(np.median(slope))), other]
                )  # fmt: skip
    header = ["ridge", "parameters", "truth", "influence", "damped by .01", "gradient product", "loss of the example",
              "slope", "training on against it"]  # fmt: skip
    return table_text(header, rows)


def _shapes(tables: Tables) -> str:
    """Return the cells with a ridge by shape: solved and from scratch, plain and damped, and what was not solved."""
    table, rows = _compared(tables), []
    for shape, part in table[table["ridge"] > 0].groupby("shape", sort=False):
        row = [shape]
        for parameters, truth, damping in (
            ("last", "solved", 0), ("all", "solved", 0), ("all", "solved", 0.01), ("all", "from scratch", 0),
            ("all", "from scratch", 0.01),
        ):  # fmt: skip
            where = (part["parameters"] == parameters) & (part["truth"] == truth)
            row.append(said(_by_split(part[where & (part["prediction"] == f"influence, damping {damping:g}")])))
        solved = part[(part["parameters"] == "all") & (part["truth"] == "solved")]
        rows.append([*row, f"{solved['unsolved'].mean():.0%}", f"{solved['gradient_norm'].median():.0e}"])
    header = ["network", "last layer, solved", "all, solved", "damped", "all, from scratch", "damped", "not solved",
              "gradient's norm"]  # fmt: skip
    return table_text(header, rows)


def _averages(tables: Tables) -> str:
    table, rows = tables["averages"], []
    for (shape, ridge), part in table.groupby(["shape", "ridge"], sort=False):
        wide = part[part["status"] == "compared"].pivot_table(index="seed", columns="state", values=SPEARMAN)
        cells = [said(wide[state].tolist()) for state in STATES]
        gain = said((wide["average"] - wide["twin"]).dropna().tolist())
        rows.append([shape.removeprefix("relu, "), f"{ridge:g}" if ridge else "none", *cells, gain])
    return table_text(["network", "ridge", *STATES, "average minus twin"], rows)


def _bayes(tables: Tables) -> str:
    table, rows = tables["bayes"], []
    for (shape, cost, weight), part in table.groupby(["shape", "cost", "kl_weight"], sort=False):
        kept = part[part["status"] == "compared"]
        name = COSTS[cost] if cost == RIDGE else f"{COSTS[cost]}, divergence x {weight:g}"
        row = [shape.removeprefix("relu, "), name, f"{int(part['collapsed'].sum())} of {len(part)}"]
        row += [said(kept[SPEARMAN].tolist()) if len(kept) else "-"]
        row += [_number(float(kept["slope_highest_loss"].median())) if len(kept) else "-"]
        row += [_number(float(part[column].mean())) if cost != RIDGE else "-" for column in ("spread", "spread_ratio")]
        costs = [float(part[column].mean()) for column in ("elbo_cost", "cost_by_weights")]
        rows.append([*row, *("-" if value != value else _number(value) for value in costs)])
    header = ["network", "cost", "collapsed", "Spearman", "slope", "spread of a logit", "over sampled spread",
              "cost of the tests", "with sampled weights"]  # fmt: skip
    return table_text(header, rows)


PAIRS = {
    (LAST, SOLVED): "last layer's influence, solved",
    (LAST, TRAINED): "trained on",
    (LAST, SCRATCH): "from scratch",
    (ALL, TRAINED): "all parameters' influence, trained on",
    (ALL, SCRATCH): "from scratch",
    (GRADIENTS, TRAINED): "gradient product, trained on",
    (LOSS, TRAINED): "loss of the example, trained on",
    (TRAINED, AGAIN): "trained on twice",
    (TRAINED, SCRATCH): "trained on against from scratch",
}


def _images(tables: Tables) -> str:
    table = tables["images"]
    table, rows = table[table["status"] == "compared"], []
    for (data, network), part in table.groupby(["data", "network"], sort=False):
        cells = [said(part[(part["a"] == a) & (part["b"] == b)]["spearman"].tolist()) for a, b in PAIRS]
        accuracy = part.drop_duplicates("seed")["accuracy"].mean()
        rows.append([f"{network} ({data}, {part['seed'].nunique()} seeds, {accuracy:.0%} right)", *cells])
    columns = [list(column) for column in zip(*rows, strict=True)]
    header, body = ["Spearman", *columns[0]], columns[1:]
    return table_text(header, [[label, *column] for label, column in zip(PAIRS.values(), body, strict=True)])


def _noise(tables: Tables) -> str:
    table, rows = tables["noise"], []
    table = table[table["status"] == "compared"]
    for n, part in table.groupby("n"):
        one = part.drop_duplicates("seed")
        sizes = [f"{one[column].median():.2g}" for column in ("signal", "noise", "size_solved", "size_predicted")]
        pairs = ((TRAINED, AGAIN), (LAST, TRAINED), (ALL, TRAINED))
        cells = [said(part[(part["a"] == a) & (part["b"] == b)]["spearman"].tolist()) for a, b in pairs]
        rows.append([f"{n:,}", *sizes, *cells])
    header = ["examples", "what repeats", "what the batches do", "last layer solved", "predicted", "trained on twice",
              "last layer's influence", "all parameters' influence"]  # fmt: skip
    return table_text(header, rows)


def _groups(tables: Tables) -> str:
    table, rows = tables["groups"], []
    pairs = (("order 1", SOLVED), ("order 2", SOLVED), ("order 1", TRAINED), ("order 2", TRAINED), (SOLVED, TRAINED),
             (TRAINED, AGAIN))  # fmt: skip
    for size, part in table.groupby("size"):
        cells = [said(part[(part["a"] == a) & (part["b"] == b)]["spearman"].tolist()) for a, b in pairs]
        first, second = (
            float(part[(part["a"] == a) & (part["b"] == SOLVED)]["slope"].median()) for a in ("order 1", "order 2")
        )
        rows.append([str(size), *cells, f"{_number(first)} and {_number(second)}"])
    header = ["removed", "first order, solved", "second order, solved", "first order, trained on",
              "second order, trained on", "solved, trained on", "trained on twice", "slopes, solved"]  # fmt: skip
    return table_text(header, rows)


def _jumps(tables: Tables) -> str:
    table = tables["jumps"]
    rows = []
    for data, part in table.groupby("data", sort=False):
        cells = [
            said(part["turns"].tolist()),
            f"{part['path'].median():.1f}",
            f"{part['effect_to_noise'].median():.2g}",
        ]
        rows.append([data, *cells])
    header = ["data", "share of epochs that turn round", "way over net change", "effect over last steps"]
    return table_text(header, rows)


TABLES: dict[str, Callable[[Tables], str]] = {
    "cells": _cells,
    "shapes": _shapes,
    "printed": lambda tables: _cells(tables, whole=True),
    "averages": _averages,
    "bayes": _bayes,
    "images": _images,
    "noise": _noise,
    "groups": _groups,
    "jumps": _jumps,
}


def _made(tables: Tables, name: str) -> str:
    if name not in TABLES:
        raise ValueError(f"the design has no table {name!r}; choose one of {', '.join(TABLES)}.")
    return TABLES[name](tables)


def _cells_range(tables: Tables, words: str) -> str:
    form, pairs = words.split(" ", 1)
    table = _compared(tables)
    for pair in pairs.split("; "):
        name, _, value = pair.partition("=")
        table = table[table[name] == (float(value) if name == "ridge" else value)]
    if not len(table):
        raise ValueError(f"no cell has {pairs}.")
    means = [np.mean(_by_split(part)) for _, part in table.groupby(["ridge", "parameters", "truth", "prediction"])]
    return range_text(means, form)


def _spreads(tables: Tables, words: str) -> str:
    form, shape = words.split(" ", 1)
    table = tables["bayes"]
    table = table[(table["shape"] == shape) & (table["cost"] != RIDGE)]
    return range_text(table.groupby(["cost", "kl_weight"])["spread_ratio"].mean().tolist(), form)


def _solved_over_trained(tables: Tables, words: str) -> str:
    networks = tables["noise"].drop_duplicates(["n", "seed"])
    return range_text(
        (networks["size_solved"] / networks["size_trained"]).groupby(networks["n"]).median().tolist(), words
    )


def _bayesian_gain(tables: Tables, words: str) -> str:
    form, cost = words.split()
    return mean_text(bayesian_gain(tables["bayes"], cost).values(), form)


def _average_gain(tables: Tables, words: str) -> str:
    form, ridge, a, b = words.split()
    return mean_text(average_gain(tables["averages"], ridge != "none", a, b).values(), form)


MAKERS: dict[str, Maker] = {
    "table": _made,
    "cells": _cells_range,
    "spreads": _spreads,
    "solved-over-trained": _solved_over_trained,
    "bayesian-gain": _bayesian_gain,
    "average-gain": _average_gain,
}
