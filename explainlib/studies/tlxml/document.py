"""The numbers of ``docs/tlxml_study.md`` that one column of one table does not give.

The study's own words of a mark (``studies.documents``); the first after the name is the run:

    ranks omniglot                        MAML: tests whose own task is first, by pruning and control
    agreement omniglot                    Gauss-Newton against exact scores, by number of tasks
    mixtures omniglot                     the networks on normal and noise tasks
    gain omniglot queries_first minus cosine    by how many tests 512 kept eigenvalues are ahead, by network
    eigenvalues omniglot positive         their number by network; or "null", or "above 0.01" of the largest, the mean
    least omniglot alpha cosine .2f       the smaller of the rank's rise and the score's fall
    order omniglot share interval .2f learner=maml; normal=28

The last reads the networks on normal and noise tasks: "share" in proper order, "first" of the own task among all, or
"outer", the noise in the outer two tenths; then one of the readings of "value" or "means", the range of the means of
each mixture. Where nothing else is said, rows are those of the buffer, without copies and decay, on unseen tests
("first": on training tasks); "copies=any" drops that, and "copies=2 or 8" takes both.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas

from explainlib.studies.documents import MINUS, Maker, Tables, column_text, number_text, range_text, table_text
from explainlib.studies.tlxml.claims import PRUNED, least_correlation
from explainlib.studies.tlxml.order_table import MIXTURE

NAMES = {"maml": "MAML", "protonet": "ProtoNet"}
SHOWN = {
    "unpruned": "unpruned inverse",
    "512": "512 eigenvalues kept",
    "64": "64 eigenvalues kept",
    "identity": "identity in the place of the inverse",
    "random projector": "random projector of rank 512",
    "cosine": "cosine of the gradients",
}
TESTS = {
    "self": "the training task itself",
    "queries": "same support, new query drawings",
    "unseen": "unrelated tasks",
}
SIZES = (64, 256, 512)
NULL = 1e-9  # of the largest eigenvalue
USUAL = {"method": "buffer", "copies": "1", "weight_decay": "0.0"}


def order_columns(table: pandas.DataFrame) -> pandas.DataFrame:
    """Return the table "order" with its shares.

    Args:
        table: of the study.
    """
    return table.assign(
        share=table["mean_count"] / table["tests"],
        first=table["self_first"] / table["tests"],
        outer=table["tenth_1"] + table["tenth_10"],
    )


def _ranks(tables: Tables, words: str) -> str:
    table, rows = tables["pruning"], []
    for method, name in SHOWN.items():
        where = f"learner=maml; method={method}"
        rows.append([name, *(column_text(table, f"{kind}_first each .0f {where}") for kind in TESTS)])
    return table_text(["", *TESTS.values()], rows)


def _agreement(tables: Tables, words: str) -> str:
    table = tables["gaussnewton"]
    rows = []
    for tasks in sorted(table["tasks"].unique()):
        where = [f"tasks={tasks}; buffer={size}; kept={size}" for size in SIZES]
        cells = [column_text(table, f"{kind}_correlation mean .2f {at}") for kind in ("self", "unseen") for at in where]
        rows.append([str(tasks), *cells])
    first, *others = map(str, SIZES)
    kinds = ("repeated training tasks", "unseen tasks")
    return table_text(["tasks", *(cell for kind in kinds for cell in (f"{kind}: {first} kept", *others))], rows)


def _change(mixture: Mapping[str, object]) -> str:
    if mixture["copies"] > 1:
        return f"{mixture['copies']} turned copies"
    return f"decay {mixture['weight_decay']:g}" if mixture["weight_decay"] else "none"


def _mixtures(tables: Tables, words: str) -> str:
    table, rows = order_columns(tables["order"]), []
    for _, part in table.groupby(MIXTURE, sort=False):
        mixture = part.iloc[0].to_dict()
        unseen, training = (part[part["kind"] == kind] for kind in ("unseen", "training"))

        def mean(rows: pandas.DataFrame, column: str, method: str) -> str:
            return column_text(rows, f"{column} mean .2f method={method}")

        accuracy = [column_text(part, f"accuracy_{name} mean .2f") for name in ("normal", "noise", "unseen")]
        ends = column_text(unseen, "share range .2f method=buffer")
        rows.append(
            [NAMES[mixture["learner"]], f"{mixture['normal']} + {mixture['noise']}", _change(mixture)]
            + [", ".join(accuracy), f"{mean(unseen, 'share', 'buffer')} ({ends})"]
            + [mean(unseen, "share", method) for method in ("identity", "cosine", "cosine, untrained")]
            + [mean(training, "first", method) for method in ("buffer", "cosine")]
            + [mean(unseen, "outer", method) for method in ("buffer", "cosine")]
        )
    header = ["learner", "normal + noise", "change", "accuracy: normal, noise, unseen", "in proper order, buffer"]
    header += ["identity", "cosine", "cosine, untrained", "own task first: buffer", "cosine"]
    return table_text([*header, "noise in the outer two tenths: buffer", "cosine"], rows)


def _gain(tables: Tables, words: str) -> str:
    column, _, other = words.partition(MINUS)
    return column_text(tables["pruning"], f"{column} ends .0f learner=maml; method={PRUNED} minus {other}")


def _eigenvalues(tables: Tables, words: str) -> str:
    which, _, share = words.partition(" ")
    by_seed = [part["eigenvalue"].to_numpy() for _, part in tables["spectrum"].groupby("seed")]
    if which == "positive":
        counts = [int((values > NULL * abs(values).max()).sum()) for values in by_seed]
        return range_text(counts, "d")
    if which == "null":
        counts = [int((abs(values) <= NULL * abs(values).max()).sum()) for values in by_seed]
        return str(min(counts))
    if which != "above":
        raise ValueError(f"eigenvalues are counted as 'positive', 'null' or 'above SHARE', not {words!r}.")
    return f"{np.mean([(abs(values) > float(share) * abs(values).max()).sum() for values in by_seed]):.0f}"


def _least(tables: Tables, words: str) -> str:
    sweep, _, rest = words.partition(" ")
    method, _, form = rest.rpartition(" ")
    values = least_correlation(tables["degradation"], sweep, method)
    return number_text(np.mean(list(values.values())), form)


def _order(tables: Tables, words: str) -> str:
    column, how, form, *rest = words.split(" ", 3)
    where = dict(pair.partition("=")[::2] for pair in rest[0].split("; ")) if rest else {}
    where = {**USUAL, "kind": "training" if column == "first" else "unseen", **where}
    table, twice = order_columns(tables["order"]), []
    for name, value in where.items():
        if MINUS in value:
            twice.append(f"{name}={value}")
        elif value != "any":
            table = table[table[name].astype(str).isin(value.split(" or "))]
        if not len(table):
            raise ValueError(f"no row of 'order' has {name}={value} beside the other values.")
    if how == "means":
        table, how = table.groupby(MIXTURE, as_index=False)[column].mean(), "range"
    return column_text(table, " ".join([column, how, form, *twice]))


MAKERS: dict[str, Maker] = {
    "ranks": _ranks,
    "agreement": _agreement,
    "mixtures": _mixtures,
    "gain": _gain,
    "eigenvalues": _eigenvalues,
    "least": _least,
    "order": _order,
}
