"""The claims E1 to E8 on the fragility of influence: which numbers of the study's tables they are about.

The unit is a network, or a seed where networks of several shapes are paired. Networks that collapsed have nothing to
explain and are left out; one without a rank correlation makes its comparison undecided.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas

from explainlib.studies.claims import ABSENT, FRAGILITY, UNDECIDED, Comparison, Evidence, by_cluster, judged
from explainlib.studies.fragility.bench import BAYESIAN, L2, L2_SWA, PLAIN, SWA
from explainlib.studies.fragility.parts import SWEEPS, sweep

Tables = Mapping[str, pandas.DataFrame]
FEW = 10  # pairs of networks below which a size is not compared with another
LEAST = 5  # networks of a shape behind a correlation within it
MEASURE = "spearman_highest_loss"
SOLVED = "last layer's influence, last layer solved again"
TRAINED, AGAIN = "last layer's influence, all trained on", "trained on twice, two orders of batches"
CONFOUNDED = (
    "confounded: with a ridge the truth is solved and nothing is damped, without one it is 500 epochs of training on "
    "and the prediction is damped; the Bayesian networks have fewer epochs and were stopped before their minimum"
)
NO_TWIN = "confounded: an average is 300 epochs older than the network beside it, whose un-averaged twin is not there"
OWN_BATCHES = "a Bayesian network without an example has batches of its own, so prediction and truth share none"
ONE_NETWORK = "one network a data set, and digits in the place of MNIST"


def fragility_claims(tables: Tables) -> pandas.DataFrame:
    """Return the claims with verdicts, from the tables of the study."""
    return judged(FRAGILITY, fragility_evidence(tables))


def fragility_evidence(tables: Tables) -> dict[str, Evidence]:
    """Return what the tables of the study say about each claim, by its id."""
    repeats, images = tables["repeats"], tables["images"]
    found = {"E1": _sizes(repeats, tables["anova"]), "E2": _regularised(repeats), "E3": _averaged(repeats)}
    found |= {"E4": _eigenvalue(repeats), "E5": _larger(images), "E6": _bayesian(images)}
    return found | {"E7": _pictures(repeats, tables["pictures"]), "E8": _jumps(tables["jumps"])}


def seed_gaps(repeats: pandas.DataFrame, a: str, b: str, measure: str = MEASURE) -> dict[int, float]:
    """Return by how much kind ``a`` exceeds ``b`` on the same shapes, by seed.

    Args:
        repeats: the runs; those that collapsed have no partner.
        a: one kind.
        b: another.
        measure: column.
    """
    kept = repeats[repeats["status"] == "compared"]
    wide = kept.pivot_table(index=["seed", "depth", "width"], columns="kind", values=measure)
    if a not in wide or b not in wide:
        return {}
    return (wide[a] - wide[b]).dropna().groupby("seed").mean().to_dict()


def _growth(repeats: pandas.DataFrame, kind: str, grows: str, measure: str) -> tuple[str, dict[int, float]]:
    """Return (name, values): the measure at the largest size that enough networks live at minus that at the least."""
    rows = sweep(repeats, grows)
    rows = rows[(rows["kind"] == kind) & (rows["status"] == "compared")]
    sizes = sorted(rows[grows].unique())
    by = {size: rows[rows[grows] == size].set_index("seed")[measure] for size in sizes}
    enough = min(FEW, repeats["seed"].nunique())
    for size in reversed(sizes[1:]):
        shared = by[size].index.intersection(by[sizes[0]].index)
        if len(shared) >= enough:
            values = (by[size].loc[shared] - by[sizes[0]].loc[shared]).to_dict()
            return f"{kind} by {grows}, {size} minus {sizes[0]}", values
    return f"{kind} by {grows}", {}


def _kinds(repeats: pandas.DataFrame) -> list[str]:
    return list(repeats["kind"].unique())


def _sizes(repeats: pandas.DataFrame, anova: pandas.DataFrame) -> Evidence:
    pairs = [(kind, grows) for grows in SWEEPS for kind in _kinds(repeats)]
    comparisons = tuple(by_cluster(*_growth(repeats, kind, grows, MEASURE)) for kind, grows in pairs)
    tests = anova[anova["measure"] == MEASURE]
    said = "; ".join(f"{t.kind} by {t.sweep} F {t.F:.2f}, p {t.p:.2g}" for t in tests.itertuples())
    lost = f"{int(repeats['collapsed'].sum())} of {len(repeats)} runs collapsed and are left out"
    return Evidence(comparisons, f"one-way analyses of variance, all sizes: {said}", notes=lost)


def _regularised(repeats: pandas.DataFrame) -> Evidence:
    comparisons = tuple(
        by_cluster(f"{a} minus {b}", seed_gaps(repeats, a, b)) for a, b in ((L2, PLAIN), (BAYESIAN, L2))
    )
    damped = seed_gaps(repeats, BAYESIAN, L2, "spearman_damped")
    control = f"both with the paper's damping, Bayesian minus L2 {np.mean(list(damped.values()) or [math.nan]):.3f}"
    return Evidence(comparisons, control, (UNDECIDED, CONFOUNDED))


def _averaged(repeats: pandas.DataFrame) -> Evidence:
    pairs = ((SWA, PLAIN, 0), (L2_SWA, L2, 1))
    comparisons = tuple(by_cluster(f"{a} minus {b}", seed_gaps(repeats, a, b), rule=k) for a, b, k in pairs)
    return Evidence(comparisons, withheld=(UNDECIDED, NO_TWIN))


def _eigenvalue(repeats: pandas.DataFrame) -> Evidence:
    logs = repeats.assign(log=np.log10(repeats["top_eigenvalue"].where(repeats["top_eigenvalue"] > 0)))
    pairs = [(kind, grows) for grows in SWEEPS for kind in _kinds(repeats)]
    grown = [by_cluster(*_growth(logs, kind, grows, "log")) for kind, grows in pairs]
    return Evidence((*grown, *(_explained(repeats, kind) for kind in _kinds(repeats))))


def _explained(repeats: pandas.DataFrame, kind: str) -> Comparison:
    """Return the rank correlations of eigenvalue and Spearman within each shape of a kind."""
    rows = repeats[(repeats["kind"] == kind) & (repeats["status"] == "compared")]
    rows = rows.dropna(subset=["top_eigenvalue", MEASURE])
    found = []
    for _, part in rows.groupby(["depth", "width"]):
        value = part["top_eigenvalue"].rank().corr(part[MEASURE].rank()) if len(part) >= LEAST else math.nan
        if not math.isnan(value):  # a shape whose networks all have one Spearman has nothing to explain
            found.append((value, len(part)))
    values, pairs = zip(*found, strict=True) if found else ((), ())
    return Comparison(f"{kind}, within shapes", tuple(map(float, values)), pairs=pairs, rule=1)


def _row_of(images: pandas.DataFrame, data: str, network: str, pair: str = TRAINED) -> pandas.Series | None:
    """Return the row of one network; None where it was not run."""
    rows = images[(images["data"] == data) & (images["network"] == network) & (images["pair"] == pair)]
    rows = rows.dropna(subset=["spearman"])
    return rows.iloc[0] if len(rows) else None


def _image(images: pandas.DataFrame, network: str, rule: int) -> Comparison:
    """Return the Spearman of last-layer influence against training on, on MNIST; without a number if it was not run."""
    row = _row_of(images, "mnist", network)
    if row is None:
        return Comparison(f"{network} (not run)", rule=rule)
    half = (row["spearman_high"] - row["spearman_low"]) / 2
    return Comparison(f"{network}, n {row['n']}", summary=(row["spearman"], half, int(row["repeats"])), rule=rule)


def _repeatable(images: pandas.DataFrame, networks: tuple[str, ...]) -> str:
    rows = {name: _row_of(images, "mnist", name, AGAIN) for name in networks}
    said = [f"{name} {row['spearman']:.2f}" for name, row in rows.items() if row is not None]
    return f"the truth against itself under another order of the batches: {', '.join(said) or 'not run'}"


def _larger(images: pandas.DataFrame) -> Evidence:
    comparisons = (_image(images, "fully connected", 0), _image(images, "LeNet", 1))
    return Evidence(comparisons, _repeatable(images, ("fully connected", "LeNet")))


def _bayesian(images: pandas.DataFrame) -> Evidence:
    name = f"{BAYESIAN} fully connected"
    return Evidence((_image(images, name, 0),), _repeatable(images, (name,)), (ABSENT, OWN_BATCHES))


def _pictures(repeats: pandas.DataFrame, pictures: pandas.DataFrame) -> Evidence:
    """Of each seed with two such networks at least, by how much their shares of explained variance differ."""
    alike = repeats[(repeats["status"] == "compared") & repeats[MEASURE].between(0.8, 0.9)]
    r2 = (alike["pearson_highest_loss"] ** 2).groupby(alike["seed"]).agg(["min", "max", "size"])
    r2 = r2[r2["size"] > 1]
    said = "; ".join(f"{r.picture}: Spearman {r.spearman:.3f}, R2 {r.r2:.2f}" for r in pictures.itertuples())
    return Evidence((by_cluster("range of R2", (r2["max"] - r2["min"]).to_dict()),), notes=f"pictures: {said}")


def _jumps(jumps: pandas.DataFrame) -> Evidence:
    by = jumps.set_index("data")["turns"]
    said = "; ".join(f"{r.data}: turns in {r.turns:.0%} of the epochs, way over net change {r.path:.1f}"
                     for r in jumps.itertuples())  # fmt: skip
    turns = Comparison("digits minus Iris", (float(by["digits"] - by["iris"]),))
    return Evidence((turns,), notes=said, withheld=(UNDECIDED, ONE_NETWORK))


def summary_paragraph(tables: Tables) -> pandas.DataFrame:
    """Return one row with a paragraph, made from the tables: what is fragile, the method or the test."""
    two, images, repeats = tables["two"], tables["images"], tables["repeats"]
    tanh = two[(two["activation"] == "tanh") & (two["over"] == "highest loss")].set_index(["a", "b"])["spearman"]
    like = min(tanh["all influence", "all truth"], tanh["last influence", "last truth"])
    mixed = max(tanh["all influence", "last truth"], tanh["last influence", "all truth"])
    kept = repeats[repeats["status"] == "compared"]
    medians = kept.groupby("kind")[[MEASURE, "spearman_damped"]].median()
    again = images[images["pair"] == AGAIN].dropna(subset=["spearman"])["spearman"].min()
    words = [
        f"At a minimum, and with influence and truth over the same parameters, the two agree by a median Spearman of "
        f"{like:.3f} or more (tanh, ridge). The same influence against a truth over other parameters gives {mixed:.2f} "
        f"at most, and the two truths agree with each other by {tanh['last truth', 'all truth']:.2f}: "
        "where the truths differ, a low correlation is no sign against influence.",
        f"Without a ridge there is no minimum to predict, and the median falls to {medians.loc[PLAIN, MEASURE]:.2f} "
        f"against {medians.loc[L2, MEASURE]:.2f} with one; {repeats['collapsed'].mean():.0%} of the runs collapsed "
        "to one class and have nothing to explain.",
    ]
    if BAYESIAN in medians.index:
        words.append(
            f"A damping that the truth does not have moves the Bayesian networks from "
            f"{medians.loc[BAYESIAN, MEASURE]:.2f} to {medians.loc[BAYESIAN, 'spearman_damped']:.2f}."
        )
    words.append(
        f"Retrained on small batches, the truth agrees with itself under another order of the batches by "
        f"{again:.2f} in the worst row; even a perfect prediction of what repeats would agree with one such truth by "
        f"about the root of that only, {math.sqrt(max(again, 0.0)):.2f}."
    )
    fair = like > 0.95 and like - mixed > 0.1
    words.append(
        "Both are fragile, the test first. The method needs a minimum, a definite curvature and a small step; the test "
        "needs the same parameters, ridge and damping on both sides, networks that did not collapse, a truth that "
        "repeats, and more than one number to be read."
        if fair
        else "Here the method disagrees with the truth even like with like, so the test alone is not to blame."
    )
    return pandas.DataFrame([{"like_with_like": like, "mixed": mixed, "test_agrees": again, "text": " ".join(words)}])
