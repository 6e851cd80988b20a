"""The claims E1, E4 and E7 on the fragility of influence: which numbers of the sweeps they are about.

The other five rest on the factorial design (``fragility.design``).

The unit is a network, or a seed where networks of several shapes are paired. Networks that collapsed have nothing to
explain and are left out; one without a rank correlation makes its comparison undecided.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas

from explainlib.studies.claims import FRAGILITY, Comparison, Evidence, by_cluster, judged
from explainlib.studies.fragility.bench import BAYESIAN, L2, PLAIN
from explainlib.studies.fragility.parts import SWEEPS, sweep

Tables = Mapping[str, pandas.DataFrame]
FEW = 10  # pairs of networks below which a size is not compared with another
LEAST = 5  # networks of a shape behind a correlation within it
MEASURE = "spearman_highest_loss"


def fragility_claims(tables: Tables) -> pandas.DataFrame:
    """Return the claims with verdicts, from the tables of the study."""
    evidence = fragility_evidence(tables)
    return judged([claim for claim in FRAGILITY if claim.id in evidence], evidence)


def fragility_evidence(tables: Tables) -> dict[str, Evidence]:
    """Return what the tables of the study say about each claim, by its id."""
    repeats = tables["repeats"]
    found = {"E1": _sizes(repeats, tables["anova"]), "E4": _eigenvalue(repeats)}
    return found | {"E7": _pictures(repeats, tables["pictures"])}


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


def _pictures(repeats: pandas.DataFrame, pictures: pandas.DataFrame) -> Evidence:
    """Of each seed with two such networks at least, by how much their shares of explained variance differ."""
    alike = repeats[(repeats["status"] == "compared") & repeats[MEASURE].between(0.8, 0.9)]
    r2 = (alike["pearson_highest_loss"] ** 2).groupby(alike["seed"]).agg(["min", "max", "size"])
    r2 = r2[r2["size"] > 1]
    said = "; ".join(f"{r.picture}: Spearman {r.spearman:.3f}, R2 {r.r2:.2f}" for r in pictures.itertuples())
    return Evidence((by_cluster("range of R2", (r2["max"] - r2["min"]).to_dict()),), notes=f"pictures: {said}")


def summary_paragraph(tables: Tables) -> pandas.DataFrame:
    """Return one row with a paragraph, made from the tables: what is fragile, the method or the test."""
    two, repeats = tables["two"], tables["repeats"]
    tanh = two[(two["activation"] == "tanh") & (two["over"] == "highest loss")].set_index(["a", "b"])["spearman"]
    like = min(tanh["all influence", "all truth"], tanh["last influence", "last truth"])
    mixed = max(tanh["all influence", "last truth"], tanh["last influence", "all truth"])
    kept = repeats[repeats["status"] == "compared"]
    medians = kept.groupby("kind")[[MEASURE, "spearman_damped"]].median()
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
    fair = like > 0.95 and like - mixed > 0.1
    words.append(
        "Both are fragile, the test first. The method needs a minimum, a definite curvature and a small step; the test "
        "needs the same parameters, ridge and damping on both sides, networks that did not collapse, a truth that "
        "repeats, and more than one number to be read."
        if fair
        else "Here the method disagrees with the truth even like with like, so the test alone is not to blame."
    )
    return pandas.DataFrame([{"like_with_like": like, "mixed": mixed, "text": " ".join(words)}])
