"""The claims P1 to P9 of generalized representers beside what its study saw; one row each, none left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas

from explainlib.studies.verdicts import HELD, NOT_HELD, UNDECIDED

Tables = Mapping[str, pandas.DataFrame]
IMAGES, TEXTS = ("digits", "mnist", "cifar10"), ("ag_news", "toxicity")
KERNELS = ("tracking, last layer", "tracking, NTK init", "tracking, NTK middle", "tracking, NTK final")
INFLUENCE = "tracking, influence kernel"
NTK = "tracking, NTK final"


def representers_claims(tables: Tables, data: str) -> pandas.DataFrame:
    """Return the claims with verdicts for one data set: held where every interval asked for lies above 0.

    A verdict is "not held" where one of the intervals lies below 0, and "undecided" where the networks are too few to
    say.
    """
    areas, pairs = (tables[name][tables[name]["part"] == "main"] for name in ("methods", "pairs"))
    rows = [
        _p1(tables["pairs"], tables["networks"]),
        _p2(areas, pairs),
        _first(pairs, "P3", "the influence kernel is the best on images", INFLUENCE, KERNELS, data in IMAGES),
        _first(pairs, "P4", "NTK-final is the best kernel on texts", NTK, _others(areas, NTK), data in TEXTS),
        _first(
            pairs, "P5", "the last layer falls behind NTK-final on texts", NTK, ["tracking, last layer"], data in TEXTS
        ),
        _p6(pairs, areas, data == "cifar10"),
        _first(
            pairs,
            "P7",
            "TracInCP is the best method on MNIST",
            "TracInCP",
            ["influence function", "representer points", NTK, INFLUENCE],
            data == "mnist",
            place="Table 1, III",
        ),
        _ordering(
            pairs,
            "P8",
            "Table 1, III",
            "NTK- and influence-tracking above influence functions and representer points",
            [(new, old) for new in (NTK, INFLUENCE) for old in ("influence function", "representer points")],
        ),
        _p9(tables["axioms"]),
    ]
    return pandas.DataFrame(rows, columns=["id", "place", "printed", "ours", "verdict"])


def _row(name: str, place: str, printed: str, ours: str, verdict: str) -> dict[str, str]:
    return {"id": name, "place": place, "printed": printed, "ours": ours, "verdict": verdict}


def _others(areas: pandas.DataFrame, method: str) -> list[str]:
    """Return the kernels of experiment II that were run, without one of them."""
    return [m for m, where in zip(areas["method"], areas["experiments"], strict=True) if "II" in where.split(", ")
            and m != method]  # fmt: skip


def _gap(pairs: pandas.DataFrame, a: str, b: str) -> tuple[float, float, float]:
    """Return how far a is above b, with its interval."""
    for first, second, sign in ((a, b, 1), (b, a, -1)):
        found = pairs[(pairs["a"] == first) & (pairs["b"] == second)]
        if len(found):
            row = found.iloc[0]
            ends = sorted((sign * row["low"], sign * row["high"]))
            return sign * row["a_minus_b"], *ends
    raise KeyError(f"the methods {a!r} and {b!r} were not compared.")


def _verdict(gaps: Sequence[tuple[float, float, float]]) -> str:
    if all(low > 0 for _, low, _ in gaps):
        return HELD
    return NOT_HELD if any(high < 0 for *_, high in gaps) else UNDECIDED


def _ordering(
    pairs: pandas.DataFrame, name: str, place: str, printed: str, wanted: Sequence[tuple[str, str]]
) -> dict[str, str]:
    gaps = [_gap(pairs, a, b) for a, b in wanted]
    said = "; ".join(
        f"{a} minus {b}: {gap:.2f} [{low:.2f}, {high:.2f}]"
        for (a, b), (gap, low, high) in zip(wanted, gaps, strict=True)
    )
    return _row(name, place, printed, said, _verdict(gaps))


def _p1(pairs: pandas.DataFrame, networks: pandas.DataFrame) -> dict[str, str]:
    """Return P1 at every stop: held where the whole order was seen at one of them and reversed at none."""
    wanted = [(NTK, "target, NTK final"), ("target, NTK final", "surrogate, NTK final")]
    printed = "tracking above target above surrogate importance"
    said, verdicts = [], []
    for part, own in pairs.groupby("part", sort=False):
        row = _ordering(own, "P1", "Table 1, I", printed, wanted)
        loss = networks[networks["part"] == part]["training_loss"].median()
        said.append(f"{part} (training loss {loss:.2g}): {row['ours']}: {row['verdict']}")
        verdicts.append(row["verdict"])
    verdict = NOT_HELD if NOT_HELD in verdicts else HELD if HELD in verdicts else UNDECIDED
    return _row("P1", "Table 1, I", printed, "; ".join(said), verdict)


def _first(
    pairs: pandas.DataFrame,
    name: str,
    printed: str,
    best: str,
    others: Sequence[str],
    speaks_of_this: bool,
    *,
    place: str = "Table 1, II",
) -> dict[str, str]:
    """Return the row of "best is above all others"; other data are told, without a verdict."""
    row = _ordering(pairs, name, place, printed, [(best, other) for other in others])
    if speaks_of_this:
        return row
    return row | {"ours": f"the claim is not about these data, where {row['ours']}", "verdict": UNDECIDED}


def _p2(areas: pandas.DataFrame, pairs: pandas.DataFrame) -> dict[str, str]:
    row = areas[areas["method"] == "random"].iloc[0]
    gap, low, high = _gap(pairs, NTK, "random")
    ours = (
        f"random {row.auc:.2f} [{row.auc_low:.2f}, {row.auc_high:.2f}]; tracking minus random {gap:.2f} "
        f"[{low:.2f}, {high:.2f}]"
    )
    around = row.auc_low <= 0 <= row.auc_high
    small = abs(row.auc) < 0.1 * abs(gap)
    verdict = HELD if around or small else NOT_HELD
    return _row(
        "P2", "Table 1, I", "random selection is about 0", ours, UNDECIDED if row.auc_low != row.auc_low else verdict
    )


def _p6(pairs: pandas.DataFrame, areas: pandas.DataFrame, speaks_of_this: bool) -> dict[str, str]:
    worst = "tracking, NTK init"
    wanted = [(other, worst) for other in _others(areas, worst)]
    row = _ordering(pairs, "P6", "Table 1, II", "NTK-init is the worst kernel on CIFAR-10", wanted)
    if speaks_of_this:
        return row
    return row | {"ours": f"the claim is not about these data, where {row['ours']}", "verdict": UNDECIDED}


def _p9(axioms: pandas.DataFrame) -> dict[str, str]:
    """Return what Theorem 7 says of products, beside the measured violations."""
    table = axioms.pivot_table(index="method", columns="axiom", values="violation")
    products = [m for m in table.index if m.startswith(("surrogate", "target", "tracking"))]
    kept = ["self-explanation", "symmetric zero", "symmetric cycle"]
    worst = float(table.loc[products, kept].to_numpy().max())
    broken = float(table.loc[products, "irreducibility"].min())
    tracin, chance = (float(table.loc[m, "symmetric cycle"]) for m in ("TracInCP", "random"))
    ours = (
        f"products of importance and kernel: at most {worst:.1e} on {', '.join(kept)}; irreducibility is violated by "
        f"{broken:.0%} of the examples or more, those with a negative importance; symmetric cycle: "
        f"TracInCP {tracin:.2f}, random {chance:.2f}; efficiency: tracking NTK-final misses "
        f"{table.loc[NTK, 'efficiency of the change']:.2f} of the change of the output"
    )
    verdict = NOT_HELD if broken > 0 else HELD if worst < 1e-6 else UNDECIDED
    return _row("P9", "Theorem 7", "representers alone satisfy all six axioms, irreducibility included", ours, verdict)
