"""The claims T1 to T15 of TLXML beside what its study saw; one row each, none left out."""

from __future__ import annotations

from collections.abc import Mapping

import pandas

from explainlib.studies.tlxml.order_claims import order_claims
from explainlib.studies.verdicts import HELD, NOT_HELD, UNDECIDED, Claim, claim_row, t_interval

Tables = Mapping[str, pandas.DataFrame]


def tlxml_claims(tables: Tables) -> pandas.DataFrame:
    """Return the claims with verdicts, from the tables of the study."""
    rows = [
        _t1(tables["pruning"]),
        _t2(tables["learners"], tables["pruning"]),
        _t3(tables["pruning"]),
        _t4(tables["degradation"]),
        _t5_t6(T5, "alpha", tables["degradation"]),
        _t5_t6(T6, "ratio", tables["degradation"]),
        _t7(tables["spectrum"]),
        *order_claims(tables["order"]),
        _t14(tables["gaussnewton"]),
        _t15(tables["learners"], tables["gaussnewton"]),
    ]
    return pandas.DataFrame(rows, columns=["id", "place", "printed", "ours", "verdict"])


SEVERAL_HUNDRED = 1000  # the paper's words, read as fewer than
T5 = Claim(
    "T5", "Fig 4a", "rank and score worsen as alpha grows", "least of rank's rise and score's fall (correlations)"
)
T6 = Claim(
    "T6", "Fig 4b", "rank and score worsen as the share of dark images grows", "least of rank's rise and score's fall"
)
T7 = Claim(
    "T7",
    "Fig 7",
    "non-zero eigenvalues are confined to the first several hundred",
    f"{SEVERAL_HUNDRED} minus the eigenvalues above 1e-3 of the largest",
)
T14 = Claim(
    "T14",
    "Tables 17-21",
    "most rows and columns have their largest correlation where size and number are equal; larger sizes correlate less",
    "share of rows and columns with the largest value on the diagonal, unseen tests",
    margin=0.5,
)


def _row(name: str, place: str, printed: str, ours: str, held: object) -> dict[str, str]:
    verdict = UNDECIDED if held is None else HELD if held else NOT_HELD  # None, or a truth value of Python or numpy
    return {"id": name, "place": place, "printed": printed, "ours": ours, "verdict": verdict}


def _of(table: pandas.DataFrame, method: str, column: str, learner: str = "maml") -> list[float]:
    chosen = table[table["method"] == method]
    if "learner" in chosen:
        chosen = chosen[chosen["learner"] == learner]
    return chosen[column].astype(float).tolist()


def _span(values: list[float], digits: int = 0) -> str:
    low, high = (f"{bound:.{digits}f}" for bound in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def _pruned_name(table: pandas.DataFrame) -> str:
    return "512" if "512" in set(table["method"]) else str(table["method"].iloc[2])


def _t1(table: pandas.DataFrame) -> dict[str, str]:
    tests, name = int(table["tests"].iloc[0]), _pruned_name(table)
    first = _of(table, name, "self_first")
    ours = (
        f"{_span(first)} of {tests} first with {name} eigenvalues; the identity in the place of the inverse reaches "
        f"{_span(_of(table, 'identity', 'self_first'))}, cosines {_span(_of(table, 'cosine', 'self_first'))}. With new "
        f"query drawings: {_span(_of(table, name, 'queries_first'))} against "
        f"{_span(_of(table, 'identity', 'queries_first'))} for the identity"
    )
    return _row(
        "T1", "Fig 3a", "the training task that the test repeats gets the top score", ours, min(first) > 0.95 * tests
    )


def _t2(learners: pandas.DataFrame, pruning: pandas.DataFrame) -> dict[str, str]:
    maml = learners[learners["learner"] == "maml"]
    tests, first = int(pruning["tests"].iloc[0]), _of(pruning, "unpruned", "self_first")
    plain, certain = (_span(maml[column].astype(float).tolist()) for column in ("negative", "negative_certain"))
    ours = (
        f"{_span(first)} of {tests} first without pruning; {plain} of {maml['parameters'].iloc[0]} eigenvalues "
        f"negative, {certain} beyond rounding"
    )
    printed = "unpruned, the self-rank is not always 0; part of the eigenvalues are negative (428 of 1,413)"
    return _row("T2", "Fig 3b, Tables 1, 3", printed, ours, max(first) < tests and maml["negative_certain"].min() > 0)


def _t3(table: pandas.DataFrame) -> dict[str, str]:
    tests, name = int(table["tests"].iloc[0]), _pruned_name(table)
    numbers = [m for m in table["method"].unique() if m.isdigit()]
    ours = "; ".join(f"k={m}: {_span(_of(table, m, 'self_first'))}" for m in ["positive", *numbers]).replace(
        "k=positive", "positive"
    )
    held = min(_of(table, name, "self_first")) > 0.95 * tests
    return _row(
        "T3", "Tables 1, 3", "pruned, the identical task is consistently first", f"of {tests} first: {ours}", held
    )


def _t4(table: pandas.DataFrame) -> dict[str, str]:
    name, said, held = _pruned_name(table), [], True
    for sweep in ("alpha", "ratio"):
        part = table[table["sweep"] == sweep]
        pruned, whole = (_of(part, m, "rank_correlation") for m in (name, "unpruned"))
        held &= sum(pruned) > sum(whole)
        control = _of(part, "identity", "rank_correlation")
        said.append(
            f"rank against {sweep}: {_span(pruned, 2)} with {name} kept, {_span(whole, 2)} unpruned, "
            f"{_span(control, 2)} for the identity"
        )
    return _row("T4", "Tables 1, 3", "pruning raises the correlation with the degradation", "; ".join(said), held)


def _t5_t6(claim: Claim, sweep: str, table: pandas.DataFrame) -> dict[str, str]:
    """Both have to move: the value of a network is the smaller of the rank's rise and the score's fall."""
    part = table[table["sweep"] == sweep]
    pruned = _pruned_name(part)
    ranks, scores = (_of(part, pruned, f"{kind}_correlation") for kind in ("rank", "score"))
    values = [min(rank, -score) for rank, score in zip(ranks, scores, strict=True)]
    context = (
        f"{pruned} kept: rank {_span(ranks, 2)}, score {_span(scores, 2)}; {_span(_of(part, pruned, 'never_left'))} "
        f"tests never leave rank 0. Controls: identity rank {_span(_of(part, 'identity', 'rank_correlation'), 2)}, "
        f"score {_span(_of(part, 'identity', 'score_correlation'), 2)}; cosine score "
        f"{_span(_of(part, 'cosine', 'score_correlation'), 2)}"
    )
    return claim_row(claim, values, context)


def _t7(table: pandas.DataFrame) -> dict[str, str]:
    counts: dict[float, list[float]] = {}
    for share in (1e-2, 1e-3, 1e-4):
        each = [
            float((part["eigenvalue"].abs() > share * part["eigenvalue"].abs().max()).sum())
            for _, part in table.groupby("seed")
        ]
        counts[share] = each
    q = int(table["index"].max())
    context = "; ".join(f"{_span(each)} of {q} above {share:g} of the largest" for share, each in counts.items())
    return claim_row(T7, [SEVERAL_HUNDRED - count for count in counts[1e-3]], context)


def _t14(table: pandas.DataFrame) -> dict[str, str]:
    """Of the rows and columns of a table (kept by buffer), the share whose largest value is on the diagonal."""
    values = {kind: _diagonal_shares(table, f"{kind}_correlation") for kind in ("self", "unseen")}
    sizes = sorted(table["kept"].unique())
    equal = table[table["buffer"] == table["kept"]].groupby("kept")["unseen_correlation"].mean()
    said = ", ".join(f"{equal[k]:.2f} at {k}" for k in sizes)
    seeds = {
        seed: float(part.loc[part["kept"] == sizes[0], "unseen_correlation"].iloc[0])
        - float(part.loc[part["kept"] == sizes[-1], "unseen_correlation"].iloc[0])
        for seed, part in table[(table["buffer"] == table["kept"]) & (table["tasks"] == table["tasks"].max())].groupby(
            "seed"
        )
    }
    mean, low, high = t_interval(list(seeds.values()))
    context = (
        f"On self tests {_span(values['self'], 2)}. At equal size, unseen tests: {said}; the smallest size correlates "
        f"more than the largest by {mean:.2f} [{low:.2f}, {high:.2f}]"
    )
    return claim_row(T14, values["unseen"], context)


def _diagonal_shares(table: pandas.DataFrame, column: str) -> list[float]:
    shares = []
    for _, seed in table.groupby("seed"):
        hits = []
        for _, part in seed.groupby("tasks"):
            grid = part.pivot(index="buffer", columns="kept", values=column)
            hits += [grid.loc[k].idxmax() == k for k in grid.index] + [grid[k].idxmax() == k for k in grid.columns]
        shares.append(sum(map(bool, hits)) / len(hits))
    return shares


def _t15(learners: pandas.DataFrame, buffers: pandas.DataFrame) -> dict[str, str]:
    maml = learners[learners["learner"] == "maml"]
    largest = buffers[(buffers["buffer"] == buffers["buffer"].max()) & (buffers["tasks"] == buffers["tasks"].max())]
    exact, rows = (_span(part.astype(float).tolist()) for part in (maml["seconds_influence"], largest["seconds"]))
    ours = (
        f"exact influence of {maml['tasks'].iloc[0]} tasks at {maml['parameters'].iloc[0]} parameters: {exact} s; "
        f"Gauss-Newton buffer of {largest['buffer'].iloc[0]}: {rows} s"
    )
    printed = "about 20 minutes exact for 128 tasks at 1,285 parameters; 15 hours Gauss-Newton for the CNN"
    return _row("T15", "B.1", printed, ours, None)
