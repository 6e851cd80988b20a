"""What the study asks, fixed before its runs: why does removal agree so little with prediction?

TLXML makes no claim about removal; these questions are ours. The unit is a seed, the quantity a difference of linear
datamodeling scores (``lds``), and an interval that contains 0 decides nothing; neither does a score that is undefined.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pandas

from explainlib.studies.claims import Claim, Evidence, Rule, by_cluster, claims_table, judge

SMALL, CNN = "small", "cnn"
CURVATURE = {SMALL: "hessian", CNN: "gauss-newton"}
CONTROLS = ("identity", "cosine", "cosine, untrained", "random projector", "other batches")
Table = pandas.DataFrame


def questions(table: pandas.DataFrame) -> pandas.DataFrame:
    """Return a row for every question and kind of network.

    Args:
        table: "removal" of the study.
    """
    rows = []
    for network in (name for name in CURVATURE if name in set(table["network"])):
        chosen = table[table["network"] == network]
        for claim, value in QUESTIONS.items():
            named = Claim(f"{claim.id}, {network}", claim.place, claim.printed, claim.quantity, claim.rules)
            values = by_cluster("lds", dict(enumerate(value(chosen, CURVATURE[network]))))
            rows.append(judge(named, Evidence((values,), _controls(chosen))))
    return claims_table(rows)


def _lds(table: Table, state: str, method: str, size: int) -> Mapping[int, float]:
    chosen = table[(table["state"] == state) & (table["method"] == method) & (table["size"] == size)]
    return dict(zip(chosen["seed"], chosen["lds"], strict=True))


def _difference(first: Mapping[int, float], second: Mapping[int, float]) -> list[float]:
    return [first[seed] - second[seed] for seed in first if seed in second]


def _sizes(table: Table) -> list[int]:
    """Return the groups' sizes, and a 0 where there is no table."""
    return sorted(map(int, table["size"].unique())) or [0]


def _middle(table: Table) -> int:
    sizes = _sizes(table)
    return sizes[len(sizes) // 2]


def _predicts(table: Table, method: str) -> list[float]:
    return list(_lds(table, "near rest", method, _middle(table)).values())


def _minimum(table: Table, method: str) -> list[float]:
    size = _middle(table)
    return _difference(_lds(table, "near rest", method, size), _lds(table, "trained", method, size))


def _step(table: Table, method: str) -> list[float]:
    sizes = _sizes(table)
    return _difference(_lds(table, "near rest", method, sizes[0]), _lds(table, "near rest", method, sizes[-1]))


def _batches(table: Table, method: str) -> list[float]:
    size = _middle(table)
    return _difference(_lds(table, "near rest", method, size), _lds(table, "trained", "other batches", size))


def _curvature(table: Table, method: str) -> list[float]:
    size = _middle(table)
    return _difference(_lds(table, "near rest", method, size), _lds(table, "near rest", "identity", size))


def _cosine(table: Table, method: str) -> list[float]:
    size = _middle(table)
    return _difference(_lds(table, "near rest", method, size), _lds(table, "near rest", "cosine", size))


def _question(name: str, printed: str, quantity: str) -> Claim:
    """Return a question; D1 is about one score in [-1, 1], the others about a difference of two."""
    most = 1.0 if name == "D1" else 2.0
    return Claim(name, "ours", printed, quantity, (Rule("direction", lowest=-most, highest=most),))


QUESTIONS: dict[Claim, Callable[[Table, str], list[float]]] = {
    _question("D1", "influence foretells removal near rest", "lds of the influence near rest, middle size"): _predicts,
    _question("D2", "the missing minimum is a reason", "lds near rest minus lds after training, middle size"): _minimum,
    _question("D3", "the linear step is a reason", "lds of the smallest minus that of the largest groups"): _step,
    _question(
        "D4",
        "the draw of the batches is a reason",
        "lds near rest minus agreement of two trainings that differ in their batches",
    ): _batches,
    _question("D5", "curvature adds to plain gradients", "lds of the influence minus lds of the identity"): _curvature,
    _question("D6", "curvature adds to cosines", "lds of the influence minus lds of cosines"): _cosine,
}


def _controls(table: Table) -> str:
    said = []
    for state in ("near rest", "trained"):
        part = table[(table["state"] == state) & (table["size"] == _middle(table))]
        means = [f"{m} {part[part['method'] == m]['lds'].mean():.2f}" for m in CONTROLS if m in set(part["method"])]
        said.append(f"{state}: {', '.join(means)}")
    return "; ".join(said)
