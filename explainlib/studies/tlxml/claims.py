"""The claims T1 to T15 of TLXML beside what its study saw; one row each, none left out."""

from __future__ import annotations

from collections.abc import Mapping

import pandas

from explainlib.studies.verdicts import HELD, NOT_HELD, UNDECIDED

Tables = Mapping[str, pandas.DataFrame]
CNN = "needs the CNN of 112,261 or 121,093 parameters and 1,024 tasks: beyond this study, which is exact"


def tlxml_claims(tables: Tables) -> pandas.DataFrame:
    """Return the claims with verdicts, from the tables of the study."""
    rows = [
        _t1(tables["pruning"]),
        _t2(tables["learners"], tables["pruning"]),
        _t3(tables["pruning"]),
        _t4(tables["degradation"]),
        _t5_t6("T5", "Fig 4a", "alpha", tables["degradation"]),
        _t5_t6("T6", "Fig 4b", "ratio", tables["degradation"]),
        _t7(tables["spectrum"]),
        *[_later(*row) for row in LATER],
        _t12(tables["pruning"]),
        _later("T13", "Tables 11-16", "self-ranks stay near 0 under the approximation"),
        _t14(tables["gaussnewton"]),
        _t15(tables["learners"], tables["gaussnewton"]),
    ]
    return pandas.DataFrame(rows, columns=["id", "place", "printed", "ours", "verdict"])


LATER = (
    ("T8", "Fig 8", "with a Gauss-Newton buffer of 1,024 the CNN still tells the identical task"),
    ("T9", "Tables 2, 4", "an overfitted learner puts normal and noise tasks in the wrong order"),
    ("T10", "Tables 2, 4", "rotation augmentation or weight decay turns the order round"),
    ("T11", "Tables 5, 6", "on Omniglot the order shifts with the number of training tasks"),
)


def _row(name: str, place: str, printed: str, ours: str, held: object) -> dict[str, str]:
    verdict = UNDECIDED if held is None else HELD if held else NOT_HELD  # None, or a truth value of Python or numpy
    return {"id": name, "place": place, "printed": printed, "ours": ours, "verdict": verdict}


def _later(name: str, place: str, printed: str) -> dict[str, str]:
    return _row(name, place, printed, f"not tried: {CNN}", None)


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


def _t5_t6(name: str, place: str, sweep: str, table: pandas.DataFrame) -> dict[str, str]:
    part = table[table["sweep"] == sweep]
    pruned = _pruned_name(part)
    ranks, scores = (_of(part, pruned, f"{kind}_correlation") for kind in ("rank", "score"))
    stuck = _of(part, pruned, "never_left")
    ours = (
        f"{pruned} kept: rank rises ({_span(ranks, 2)}), score falls ({_span(scores, 2)}); {_span(stuck)} tests never "
        f"leave rank 0; cosine scores fall with {_span(_of(part, 'cosine', 'score_correlation'), 2)}"
    )
    printed = "rank and score worsen as alpha grows" if sweep == "alpha" else "as the share of dark images grows"
    return _row(name, place, printed, ours, min(ranks) > 0.5 and max(scores) < 0)


def _t7(table: pandas.DataFrame) -> dict[str, str]:
    counts: dict[float, list[float]] = {}
    for share in (1e-2, 1e-3, 1e-4):
        each = [
            float((part["eigenvalue"].abs() > share * part["eigenvalue"].abs().max()).sum())
            for _, part in table.groupby("seed")
        ]
        counts[share] = each
    q = int(table["index"].max())
    ours = "; ".join(f"{_span(each)} of {q} above {share:g} of the largest" for share, each in counts.items())
    printed = "non-zero eigenvalues are confined to the first several hundred"
    return _row("T7", "Fig 7", printed, ours, max(counts[1e-3]) < q / 2)


def _t12(table: pandas.DataFrame) -> dict[str, str]:
    name, tests = _pruned_name(table), int(table["tests"].iloc[0])
    proto, maml = (_of(table, name, "self_first", learner) for learner in ("protonet", "maml"))
    whole = _of(table, "unpruned", "self_first", "protonet")
    ours = (
        f"ProtoNet {_span(proto)} of {tests} first with {name} kept ({_span(whole)} unpruned), MAML {_span(maml)}; "
        "noise tasks not tried"
    )
    return _row("T12", "Tables 7-10", "ProtoNet shows the same tendencies, weaker on Omniglot", ours, None)


def _t14(table: pandas.DataFrame) -> dict[str, str]:
    counts, said, held = sorted(table["kept"].unique()), [], True
    for kind in ("self", "unseen"):
        mean = table.groupby(["buffer", "kept"])[f"{kind}_correlation"].mean()
        best = {b: int(mean[b].idxmax()) for b in counts}
        held &= all(best[b] == b for b in counts) and mean[counts[-1], counts[-1]] < mean[counts[0], counts[0]]
        said.append(
            f"on {kind} tests at equal size: " + ", ".join(f"{mean[b, b]:.2f} at {b} (best {best[b]})" for b in counts)
        )
    printed = "exact and approximate scores correlate most at equal size; larger sizes less"
    return _row("T14", "Tables 17-21", printed, "; ".join(said), held)


def _t15(learners: pandas.DataFrame, buffers: pandas.DataFrame) -> dict[str, str]:
    maml = learners[learners["learner"] == "maml"]
    largest = buffers[buffers["buffer"] == buffers["buffer"].max()]
    exact, rows = (_span(part.astype(float).tolist()) for part in (maml["seconds_influence"], largest["seconds"]))
    ours = (
        f"exact influence of {maml['tasks'].iloc[0]} tasks at {maml['parameters'].iloc[0]} parameters: {exact} s; "
        f"Gauss-Newton buffer of {largest['buffer'].iloc[0]}: {rows} s"
    )
    printed = "about 20 minutes exact for 128 tasks at 1,285 parameters; 15 hours Gauss-Newton for the CNN"
    return _row("T15", "B.1", printed, ours, None)
