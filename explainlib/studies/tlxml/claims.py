"""The claims T1 to T15 of TLXML: which numbers of the study's tables they are about; the unit is a network (a seed)."""

from __future__ import annotations

from collections.abc import Mapping

import pandas

from explainlib.studies.claims import (
    CLAIMS,
    NOT_APPLICABLE,
    TLXML,
    UNDECIDED,
    Comparison,
    Evidence,
    Rule,
    by_cluster,
    judged,
)
from explainlib.studies.tlxml.order_claims import order_evidence

Tables = Mapping[str, pandas.DataFrame]
SEVERAL_HUNDRED = 1000  # the paper's words, read as fewer than
CONTROLS = ("identity", "random projector", "cosine")
PRUNED = "512"  # eigenvalues kept, of the pruned inverse


def tlxml_claims(tables: Tables) -> pandas.DataFrame:
    """Return the claims with verdicts, from the tables of the study."""
    return judged(TLXML, tlxml_evidence(tables))


def tlxml_evidence(tables: Tables) -> dict[str, Evidence]:
    """Return what the tables of the study say about each claim, by its id."""
    maml = {name: _maml(tables[name]) for name in ("pruning", "learners")}
    found = {"T1": _first(maml["pruning"]), "T3": _first(maml["pruning"])}
    found |= {"T2": _unpruned(maml["learners"], maml["pruning"]), "T4": _pruning_helps(tables["degradation"])}
    found |= {"T5": _degradation("alpha", tables["degradation"]), "T6": _degradation("ratio", tables["degradation"])}
    found |= {"T7": _spectrum(tables["spectrum"]), "T14": _diagonal(tables["gaussnewton"])}
    return found | order_evidence(tables["order"]) | {"T15": _cost(maml["learners"], tables["gaussnewton"])}


def _maml(table: pandas.DataFrame) -> pandas.DataFrame:
    return table[table["learner"] == "maml"]


def _values(table: pandas.DataFrame, method: str, column: str) -> dict[int, float]:
    """Return a column by seed, for one method."""
    chosen = table[table["method"] == method]
    return dict(zip(chosen["seed"], chosen[column].astype(float), strict=True))


def _pruned_name(table: pandas.DataFrame) -> str:
    return PRUNED if PRUNED in set(table["method"]) else str(table["method"].iloc[2])


def _share_first(pruning: pandas.DataFrame, method: str, *, of: str = "self_first", misses: bool = False) -> Comparison:
    """Return the share of tests whose own task is first, or is not, by network."""
    chosen = pruning[pruning["method"] == method].sort_values("seed")
    hits = chosen["tests"] - chosen[of] if misses else chosen[of]
    return Comparison(f"{method} kept" if method.isdigit() else method, tuple(map(float, hits)), tuple(chosen["tests"]))


def _told_shares(pruning: pandas.DataFrame, methods: tuple[str, ...], column: str = "self_first") -> str:
    share = pruning[column] / pruning["tests"]
    return ", ".join(f"{name} {share[pruning['method'] == name].mean():.3f}" for name in methods)


def _as_good(one: Comparison, rule: Rule, controls: Mapping[str, float]) -> str:
    """Return which controls lie inside the interval or above it, as a caveat; none is no caveat."""
    low = one.interval(rule)[1]
    named = [f"{name} {value:.3g}" for name, value in controls.items() if value >= low]
    return f"but simpler controls do as well: {', '.join(named)}" if named else ""


def _first(pruning: pandas.DataFrame) -> Evidence:
    name = _pruned_name(pruning)
    notes = f"with new query drawings: {_told_shares(pruning, (name, *CONTROLS), 'queries_first')}"
    counts = [m for m in pruning["method"].unique() if m.isdigit()]
    notes += f"; by number kept: {_told_shares(pruning, ('positive', *counts))}"
    own, share = _share_first(pruning, name), pruning["self_first"] / pruning["tests"]
    caveat = _as_good(own, CLAIMS["T1"].rules[0], {m: share[pruning["method"] == m].mean() for m in CONTROLS})
    return Evidence((own,), _told_shares(pruning, ("unpruned", *CONTROLS)), notes=notes, caveat=caveat)


def _unpruned(learners: pandas.DataFrame, pruning: pandas.DataFrame) -> Evidence:
    negative = dict(zip(learners["seed"], learners["negative_certain"] / learners["parameters"], strict=True))
    comparisons = (
        _share_first(pruning, "unpruned", misses=True),
        by_cluster("negative beyond rounding", negative, rule=1),
    )
    plain = ", ".join(f"{n:.0f}" for n in learners["negative"])
    notes = f"{plain} of {learners['parameters'].iloc[0]} eigenvalues are negative by plain sign"
    return Evidence(comparisons, _told_shares(pruning, (_pruned_name(pruning), *CONTROLS)), notes=notes)


def _pruning_helps(table: pandas.DataFrame) -> Evidence:
    name, comparisons, said, inside = _pruned_name(table), [], [], []
    for sweep in ("alpha", "ratio"):
        part = table[table["sweep"] == sweep]
        for kind, sign in (("rank", 1), ("score", -1)):
            column = f"{kind}_correlation"
            pruned, whole, plain = (_values(part, m, column) for m in (name, "unpruned", "identity"))
            gains = {seed: sign * (pruned[seed] - whole[seed]) for seed in pruned}
            comparisons.append(by_cluster(f"{kind} by {sweep}", gains))
            control = {seed: sign * (plain[seed] - whole[seed]) for seed in plain}
            said.append(f"{kind} by {sweep} {_mean(control):.2f}")
            inside.append(bool(_as_good(comparisons[-1], CLAIMS["T4"].rules[0], {"identity": _mean(control)})))
    caveat = "but the identity in the place of the pruned inverse gains as much" if all(inside) else ""
    return Evidence(tuple(comparisons), f"gain of the identity: {', '.join(said)}", caveat=caveat)


def _mean(values: Mapping[int, float]) -> float:
    return sum(values.values()) / max(len(values), 1)


def least_correlation(table: pandas.DataFrame, sweep: str, method: str) -> dict[int, float]:
    """Return the smaller of the rank's rise and the score's fall with the degradation, by network.

    Args:
        table: "degradation" of the study.
        sweep: "alpha" or "ratio".
        method: of scores.
    """
    part = table[table["sweep"] == sweep]
    ranks, scores = (_values(part, method, f"{kind}_correlation") for kind in ("rank", "score"))
    return {seed: min(ranks[seed], -scores[seed]) for seed in ranks}


def _degradation(sweep: str, table: pandas.DataFrame) -> Evidence:
    """Both have to move: the value of a network is the smaller of the rank's rise and the score's fall."""
    name = _pruned_name(table)
    controls = {m: _mean(least_correlation(table, sweep, m)) for m in ("unpruned", "identity", "cosine")}
    own = by_cluster(f"{name} kept", least_correlation(table, sweep, name))
    caveat = _as_good(own, CLAIMS["T5"].rules[0], controls)
    stayed = ", ".join(f"{n:.0f}" for n in _values(table[table["sweep"] == sweep], name, "never_left").values())
    told = ", ".join(f"{m} {value:.2f}" for m, value in controls.items())
    return Evidence((own,), told, notes=f"{stayed} tests never leave rank 0", caveat=caveat)


def _spectrum(table: pandas.DataFrame) -> Evidence:
    counts: dict[float, dict[int, float]] = {share: {} for share in (1e-2, 1e-3, 1e-4, 1e-6, 1e-9)}
    for seed, part in table.groupby("seed"):
        size = part["eigenvalue"].abs()
        for share, found in counts.items():
            found[int(seed)] = float((size > share * size.max()).sum())
    left = {seed: SEVERAL_HUNDRED - count for seed, count in counts[1e-3].items()}
    total, most = int(table["index"].max()), int(max(counts[1e-9].values()))
    notes = ", ".join(f"{_mean(found):.0f} above {share:g} of the largest" for share, found in counts.items())
    withheld = None
    if most < SEVERAL_HUNDRED:
        reason = (
            f"it cannot fail here: {total - most} of {total} directions are exactly null, so fewer than "
            f"{SEVERAL_HUNDRED} can be anything else, and the count depends on what is called zero"
        )
        withheld = UNDECIDED, reason
    return Evidence((by_cluster("1000 minus the count", left),), f"exactly null: {total - most}", withheld, notes)


def _diagonal(table: pandas.DataFrame) -> Evidence:
    """Of the rows and columns of a table (kept by buffer), the share whose largest value is on the diagonal."""
    shares = {kind: _diagonal_shares(table, f"{kind}_correlation") for kind in ("self", "unseen")}
    sizes = sorted(table["kept"].unique())
    equal = table[table["buffer"] == table["kept"]]
    most = equal[equal["tasks"] == equal["tasks"].max()].pivot(
        index="seed", columns="kept", values="unseen_correlation"
    )
    falls = (most[sizes[0]] - most[sizes[-1]]).to_dict()
    comparisons = (by_cluster("on the diagonal", shares["unseen"]), by_cluster("smallest minus largest", falls, rule=1))
    said = ", ".join(
        f"{value:.2f} at {size}" for size, value in equal.groupby("kept")["unseen_correlation"].mean().items()
    )
    controls = f"chance has 1 of {len(sizes)} on the diagonal; on self tests {_mean(shares['self']):.2f}"
    return Evidence(comparisons, controls, notes=f"at equal size, unseen tests: {said}")


def _diagonal_shares(table: pandas.DataFrame, column: str) -> dict[int, float]:
    shares = {}
    for seed, own in table.groupby("seed"):
        hits = []
        for _, part in own.groupby("tasks"):
            grid = part.pivot(index="buffer", columns="kept", values=column)
            hits += [grid.loc[k].idxmax() == k for k in grid.index] + [grid[k].idxmax() == k for k in grid.columns]
        shares[int(seed)] = sum(map(bool, hits)) / len(hits)
    return shares


def _cost(learners: pandas.DataFrame, buffers: pandas.DataFrame) -> Evidence:
    minutes = {int(row.seed): row.seconds_influence / 60 / 20 for row in learners.itertuples()}
    largest = buffers[(buffers["buffer"] == buffers["buffer"].max()) & (buffers["tasks"] == buffers["tasks"].max())]
    notes = (
        f"{learners['tasks'].iloc[0]} tasks at {learners['parameters'].iloc[0]} parameters took "
        f"{learners['seconds_influence'].mean():.0f} s; a buffer of {largest['buffer'].iloc[0]}, "
        f"{largest['seconds'].mean():.0f} s"
    )
    reason = "seconds of another machine and program, and no network of the paper's size in the tables"
    return Evidence((by_cluster("over 20 minutes", minutes),), withheld=(NOT_APPLICABLE, reason), notes=notes)
