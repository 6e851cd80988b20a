"""Are the rules right as often as they say? Made-up tables with a known truth, in the sizes of the studies.

At the boundary of a rule's null hypothesis (the effect is exactly the margin) a claim is wrong, and "held" a mistake;
at the stated effect it is true. Nominal are 2.5% mistakes, the upper tail of a 95% interval; 67 of 1,000 are the most
that is allowed anywhere. Effects are in standard deviations between clusters unless ``values`` says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas
from scipy import stats

from explainlib.studies.claims.claim import Rule
from explainlib.studies.claims.intervals import Numbers, exact_interval, fisher_interval, mean_interval
from explainlib.studies.claims.judge import contradicted, satisfied

REPEATS, RESAMPLES = 1000, 1999
WITHIN = 0.03  # correlation of the tests of one network, as the shares behind T8 have
NORMAL, SHARES, SKEWED = "normal", "shares of correlated tests", "near an upper end, left skewed"
RANKS = "rank correlation of so many pairs"
Ends = tuple[Numbers, Numbers]


@dataclass(frozen=True)
class Case:
    """One kind of claim at one size.

    Attributes:
        rule: with its margin.
        clusters: of each table; of correlations the pairs.
        boundary: the effect at which the claim just is not true.
        effect: at which it is true, fixed before any was drawn.
        values: how they are distributed, one of the texts above.
        comparisons: of one claim, which share what is compared with the others.
        tests: of each cluster, where the values are shares.
        within: their correlation in a cluster.
    """

    rule: Rule
    clusters: int
    boundary: float
    effect: float
    values: str = NORMAL
    comparisons: int = 1
    tests: int = 64
    within: float = WITHIN


def _above(kind: str, clusters: int, effect: float, **options: object) -> Case:
    return Case(Rule(kind, 0.0), clusters, 0.0, effect, **options)


# By Student's non-central t these effects are seen at least nine times of ten.
IN_DEVIATIONS = {3: 6.0, 4: 3.0, 5: 2.2, 8: 1.4, 10: 1.3, 20: 0.8, 50: 0.5}
INSIDE = {3: 7.5, 4: 3.8, 5: 2.8, 8: 1.8, 20: 1.0, 50: 0.6}  # the margin in deviations, for a true effect of 0
CASES = (
    *(_above("direction", n, effect) for n, effect in IN_DEVIATIONS.items()),
    *(_above("direction", n, effect, values=SKEWED) for n, effect in ((10, 2.2), (20, 1.6), (50, 1.0))),
    *(_above("larger-than", n, effect) for n, effect in IN_DEVIATIONS.items()),
    *(Case(Rule("larger-than", 0.5), n, 0.5, effect, SHARES) for n, effect in ((3, 0.85), (4, 0.75))),
    *(_above("largest-of", n, effect, comparisons=4) for n, effect in ((4, 4.0), (20, 1.1))),
    *(Case(Rule("close-to", m, target=1.0), n, 1 + m, 1.0) for n, m in INSIDE.items()),
    *(Case(Rule("absent effect", m), n, m, 0.0) for n, m in INSIDE.items()),
    *(Case(Rule("absent effect", 0.3), n, 0.3, 0.0, RANKS) for n in (150, 400)),
    *(
        Case(Rule("count", 1.0, tolerance=0.05), n, 0.95, 1.0, SHARES, tests=tests, within=within)
        for n, tests, within in ((3, 128, WITHIN), (3, 128, 0.1), (4, 64, WITHIN), (4, 64, 0.1), (8, 64, WITHIN))
    ),
)


def simulate(case: Case, repeats: int = REPEATS, seed: int = 0) -> dict[str, object]:
    """Return how often a claim is held at the boundary and at the stated effect, and how often it is called not held.

    Args:
        case: kind and size.
        repeats: tables drawn at each.
        seed: of the draws.
    """
    generator = np.random.default_rng(seed)
    found = {}
    for name, effect in (("boundary", case.boundary), ("effect", case.effect)):
        low, high = _ends(case, _draw(case, generator, repeats, effect))
        found[f"held_at_{name}"] = int(satisfied(case.rule, low, high).all(0).sum())
        low, high = _ends(case, _draw(case, generator, repeats, effect, tied=True), 1 - 0.05 / case.comparisons)
        found[f"not_held_at_{name}"] = int(contradicted(case.rule, low, high).any(0).sum())
    row = {"kind": case.rule.kind, "clusters": case.clusters, "comparisons": case.comparisons, "values": case.values}
    row |= {"tests": case.tests, "within": case.within} if case.values == SHARES else {"tests": 0, "within": 0.0}
    row |= {"interval": _method(case), "margin": case.rule.margin, "boundary": case.boundary}
    row |= {"held_at_boundary": found["held_at_boundary"], "not_held_at_boundary": found["not_held_at_boundary"]}
    row |= {"effect": case.effect, "held_at_effect": found["held_at_effect"]}
    return row | {"not_held_at_effect": found["not_held_at_effect"], "draws": repeats}


def simulation() -> pandas.DataFrame:
    """Return a row for each case, and the same of scipy's BCa bootstrap where there are ten clusters and more."""
    rows = [simulate(case) for case in CASES]
    return pandas.DataFrame([*rows, *(_bca(case) for case in CASES if case.clusters in (10, 20)
                                      and case.rule.kind == "direction")])  # fmt: skip


def power(rule: Rule, effect: float, spread: float, clusters: int, repeats: int = REPEATS) -> float:
    """Return the share of normal tables in which a claim would be held.

    Args:
        rule: of the quantity.
        effect: the true one, such as the printed one.
        spread: standard deviation between clusters.
        clusters: at least 2.
        repeats: tables.
    """
    drawn = np.random.default_rng(0).normal(effect, spread, (repeats, clusters))
    _, low, high = mean_interval(drawn, draws=RESAMPLES)
    return float(satisfied(rule, np.maximum(low, rule.lowest), np.minimum(high, rule.highest)).mean())


def _draw(case: Case, generator: np.random.Generator, repeats: int, effect: float, tied: bool = False) -> np.ndarray:
    """Return [comparison, table, cluster]; one comparison has the effect, the others more unless all are tied."""
    size = (case.comparisons, repeats, case.clusters)
    if case.values == SHARES:
        share = np.clip(effect, 0, 1)
        if share in (0, 1):
            return np.full(size, case.tests * share)
        total = (1 - case.within) / case.within
        return generator.binomial(case.tests, generator.beta(share * total, (1 - share) * total, size))
    if case.values == RANKS:
        return _rank_correlations(generator, repeats, case.clusters, effect)[None]
    if case.values == SKEWED:
        return effect + 1 - generator.exponential(1.0, size)
    common = generator.normal(0, np.sqrt(0.5), size[1:])
    values = effect + common + generator.normal(0, np.sqrt(0.5), size)
    if case.comparisons > 1 and not tied:
        values[1:] += 3.0
    return values


def _rank_correlations(generator: np.random.Generator, repeats: int, pairs: int, effect: float) -> np.ndarray:
    """Return Spearman's correlation of each table of normal pairs whose rank correlation is the effect."""
    pearson = 2 * np.sin(np.pi * effect / 6)
    x, y = generator.normal(size=(2, repeats, pairs))
    ranks = [stats.rankdata(z, axis=-1) for z in (x, pearson * x + np.sqrt(1 - pearson**2) * y)]
    ranks = [z - z.mean(-1, keepdims=True) for z in ranks]
    return (ranks[0] * ranks[1]).sum(-1) / np.sqrt((ranks[0] ** 2).sum(-1) * (ranks[1] ** 2).sum(-1))


def _ends(case: Case, drawn: np.ndarray, confidence: float = 0.95) -> Ends:
    if case.rule.kind == "count":
        return exact_interval(drawn, np.full(drawn.shape, case.tests), confidence)[1:]
    if case.values == RANKS:
        return fisher_interval(drawn[..., None], np.full((*drawn.shape, 1), case.clusters), confidence)[1:]
    values = drawn / case.tests if case.values == SHARES else drawn
    return mean_interval(values, confidence, RESAMPLES)[1:]


def _method(case: Case) -> str:
    if case.rule.kind == "count":
        return "exact, clustered"
    if case.values == RANKS:
        return "Fisher z"
    return "Student t" if case.clusters < 10 else "percentile-t bootstrap"


def _bca(case: Case) -> dict[str, object]:
    """Return the case's row with the intervals of ``scipy.stats.bootstrap``."""
    generator, found = np.random.default_rng(0), {}
    options = {"axis": -1, "n_resamples": 999, "method": "BCa", "vectorized": True, "batch": 100}
    interval = partial(stats.bootstrap, statistic=np.mean, rng=1, **options)
    for name, effect in (("boundary", case.boundary), ("effect", case.effect)):
        ends = interval((_draw(case, generator, REPEATS, effect)[0],)).confidence_interval
        found[f"held_at_{name}"] = int(satisfied(case.rule, ends.low, ends.high).sum())
        found[f"not_held_at_{name}"] = int(contradicted(case.rule, ends.low, ends.high).sum())
    return simulate(case) | found | {"interval": "BCa bootstrap (scipy), not used"}
