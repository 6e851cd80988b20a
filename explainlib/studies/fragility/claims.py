"""The claims E1 to E8 on the fragility of influence beside what its study saw; one row each, none left out."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas
import torch

from explainlib.metrics.agreement import Estimate
from explainlib.metrics.seeds import clustered_mean
from explainlib.studies.fragility.bench import BAYESIAN, L2, L2_SWA, PLAIN, SWA
from explainlib.studies.verdicts import HELD, NOT_HELD, UNDECIDED

Tables = Mapping[str, pandas.DataFrame]
FEW = 10  # repeats below which nothing is decided by an analysis of variance
MEASURE = "spearman_highest_loss"
SOLVED = "last layer's influence, last layer solved again"
TRAINED, AGAIN = "last layer's influence, all trained on", "trained on twice, two orders of batches"
LARGE = "LeNet and VGG13 are of larger scales only"


def fragility_claims(tables: Tables) -> pandas.DataFrame:
    """Return the claims with verdicts, from the tables of the study."""
    rows = [
        _e1(tables["anova"], tables["repeats"]),
        _e2(tables["repeats"]),
        _e3(tables["repeats"]),
        _e4(tables["anova"], tables["spectrum"], tables["repeats"]),
        _e5(tables["images"]),
        _e6(tables["images"]),
        _e7(tables["pictures"]),
        _e8(tables["jumps"]),
    ]
    return pandas.DataFrame(rows, columns=["id", "place", "printed", "ours", "verdict"])


def _row(name: str, place: str, printed: str, ours: str, verdict: str) -> dict[str, str]:
    return {"id": name, "place": place, "printed": printed, "ours": ours, "verdict": verdict}


def gap(repeats: pandas.DataFrame, a: str, b: str, measure: str = MEASURE) -> Estimate | None:
    """Return by how much kind ``a`` exceeds ``b`` on the same shapes and seeds, clustered by seed; None without pairs.

    Args:
        repeats: the runs; those that collapsed have no partner.
        a: one kind.
        b: another.
        measure: column.
    """
    kept = repeats[repeats["status"] == "compared"]
    wide = kept.pivot_table(index=["seed", "depth", "width"], columns="kind", values=measure)
    if a not in wide or b not in wide:
        return None
    differences = (wide[a] - wide[b]).dropna().groupby("seed").mean()
    return clustered_mean(torch.tensor(differences.to_numpy(copy=True))[:, None]) if len(differences) else None


def _sign(value: Estimate | None) -> int:
    """Return 1 or -1 where the whole interval lies above or below 0, else 0."""
    if value is None:
        return 0
    return 1 if value.low > 0 else -1 if value.high < 0 else 0


def _too_few(repeats: pandas.DataFrame) -> bool:
    return repeats[repeats["kind"] == PLAIN]["seed"].nunique() < FEW


def _e1(anova: pandas.DataFrame, repeats: pandas.DataFrame) -> dict[str, str]:
    tests = anova[anova["measure"] == MEASURE]
    known = tests.dropna(subset=["p"])
    said = "; ".join(
        f"{t.kind} by {t.sweep}: F {t.F:.2f}, p {t.p:.2g}, means {t.spread:.3f} apart"
        + ("" if t.status == "all sizes" else f" ({t.status})")
        for t in tests.itertuples()
    )
    significant = int((known["p"] < 0.05 / max(1, len(known))).sum())
    lost = f"{int(repeats['collapsed'].sum())} of {len(repeats)} runs collapsed and are left out"
    ours = f"{significant} of {len(known)} analyses significant after Bonferroni's correction; {lost}; {said}"
    verdict = NOT_HELD if significant else UNDECIDED if _too_few(repeats) or len(known) < len(tests) else HELD
    return _row("E1", "Fig 1", "neither depth nor width has a significant effect on Spearman on Iris", ours, verdict)


def _e2(repeats: pandas.DataFrame) -> dict[str, str]:
    regularised, bayesian = gap(repeats, L2, PLAIN), gap(repeats, BAYESIAN, L2)
    damped = gap(repeats.assign(**{MEASURE: repeats["spearman_damped"]}), BAYESIAN, L2)
    ours = (
        f"L2 minus plain {regularised}; Bayesian minus L2 {bayesian}; both with the paper's damping, which the truth "
        f"does not have: Bayesian minus L2 {damped}"
    )
    signs = _sign(regularised), _sign(bayesian)
    verdict = HELD if signs == (1, 1) else NOT_HELD if -1 in signs else UNDECIDED
    return _row("E2", "Fig 1", "regularised models do better, Bayesian networks best", ours, verdict)


def _e3(repeats: pandas.DataFrame) -> dict[str, str]:
    without, with_ridge = gap(repeats, SWA, PLAIN), gap(repeats, L2_SWA, L2)
    ours = f"SWA minus plain {without}; L2 + SWA minus L2 {with_ridge}"
    signs = _sign(without), _sign(with_ridge)
    verdict = HELD if signs[0] == 1 and signs[1] <= 0 else NOT_HELD if signs[0] == -1 or signs[1] == 1 else UNDECIDED
    return _row("E3", "Fig 1", "SWA helps without weight decay, not with it", ours, verdict)


def _e4(anova: pandas.DataFrame, spectrum: pandas.DataFrame, repeats: pandas.DataFrame) -> dict[str, str]:
    tests = anova[anova["measure"] == "top_eigenvalue"].set_index(["sweep", "kind"])
    grown, said = [], []
    for (sweep, kind), part in spectrum.dropna(subset=["top_eigenvalue"]).groupby(["sweep", "kind"], sort=False):
        first, last = part.sort_values("size")["top_eigenvalue"].iloc[[0, -1]]
        p = float(tests.loc[(sweep, kind), "p"])
        grown.append(last > first and p < 0.05)
        said.append(f"{kind} by {sweep} {first:.3g} to {last:.3g} (p {p:.2g})")
    kept = repeats[repeats["status"] == "compared"]
    ranks = kept.groupby("kind")[["top_eigenvalue", MEASURE]].rank()
    explained = float(ranks["top_eigenvalue"].corr(ranks[MEASURE]))
    ours = f"{'; '.join(said)}; rank correlation of eigenvalue and Spearman within the kinds {explained:.2f}"
    verdict = UNDECIDED if _too_few(repeats) else HELD if all(grown) and abs(explained) < 0.3 else NOT_HELD
    printed = "the top eigenvalue grows with width and depth, and does not explain the correlation"
    return _row("E4", "Fig 3", printed, ours, verdict)


def _describe(images: pandas.DataFrame) -> str:
    rows = [
        f"{r.data} {r.network} (n {r.n}), {r.pair}: {r.spearman:.2f} [{r.spearman_low:.2f}, {r.spearman_high:.2f}]"
        if r.status == "compared"
        else f"{r.data} {r.network}: {r.status}"
        for r in images.itertuples()
    ]
    return "; ".join(rows)


def _trained(images: pandas.DataFrame, data: str, network: str) -> pandas.Series | None:
    """Return the row of one network's last-layer influence against everything trained on; None where it was not run."""
    rows = images[(images["data"] == data) & (images["network"] == network) & (images["pair"] == TRAINED)]
    rows = rows.dropna(subset=["spearman_low"])
    return rows.iloc[0] if len(rows) else None


def _below(low: pandas.Series | None, high: pandas.Series | None) -> str:
    """Return whether one row's whole interval lies below another's mean (held), or above its interval (not held)."""
    if low is None or high is None:
        return UNDECIDED
    if low["spearman_high"] < high["spearman"] and high["spearman_low"] > 0:
        return HELD
    return NOT_HELD if low["spearman_low"] > high["spearman_high"] else UNDECIDED


def _e5(images: pandas.DataFrame) -> dict[str, str]:
    plain = images[~images["network"].str.contains(BAYESIAN)]
    small, large = (_trained(images, "mnist", network) for network in ("fully connected", "LeNet"))
    ours = _describe(plain) if large is not None else f"{_describe(plain)}; {LARGE}"
    printed = "on MNIST only the small fully connected network correlates"
    return _row("E5", "Fig 2", printed, ours, _below(large, small))


def _e6(images: pandas.DataFrame) -> dict[str, str]:
    rows = images[images["network"].str.contains(BAYESIAN)]
    ours = _describe(rows) if len(rows) else "not tried at this scale"
    if not rows["network"].str.contains("VGG13").any():
        ours = f"{ours}; a Bayesian VGG13 is of paper scale only"
    plain, bayesian = (_trained(images, "mnist", n) for n in ("fully connected", f"{BAYESIAN} fully connected"))
    return _row("E6", "Fig 2", "Bayesian networks do not rescue larger data", ours, _below(bayesian, plain))


def _e7(pictures: pandas.DataFrame) -> dict[str, str]:
    said = "; ".join(
        f"{r.picture}: Spearman {r.spearman:.3f}, R2 {r.r2:.2f}, slope {r.slope:.2f}" for r in pictures.itertuples()
    )
    ordered = pictures[pictures["spearman"] > 0.8]
    apart = len(ordered) >= 2 and ordered["r2"].max() - ordered["r2"].min() > 0.3
    verdict = HELD if apart else NOT_HELD
    return _row("E7", "Fig 4", "one Spearman (about .85), two very different pictures", said, verdict)


def _e8(jumps: pandas.DataFrame) -> dict[str, str]:
    said = "; ".join(
        f"{r.data}: turns in {r.turns:.0%} of the epochs, way over net change {r.path:.1f}, spread over step "
        f"{r.effect_to_noise:.2f}"
        for r in jumps.itertuples()
    )
    by = jumps.set_index("data")["turns"]
    verdict = HELD if by["digits"] > 0.3 > 0.1 > by["iris"] else NOT_HELD if by["digits"] <= by["iris"] else UNDECIDED
    return _row("E8", "Fig 5", "retraining converges smoothly on Iris and jumps on MNIST (here digits)", said, verdict)


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
