"""Could our networks have seen what the papers print? The power of each rule at the printed effect."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, sqrt

import numpy as np
import pandas
from scipy import stats

from explainlib.studies.claims import Comparison, Judgement, power


def power_table(judgements: Sequence[Judgement]) -> pandas.DataFrame:
    """Return, for each comparison whose effect is printed, the share of tables like ours in which it would be held.

    Tables like ours have our number of clusters, our spread between them, and the printed effect.

    Args:
        judgements: on the claims.
    """
    rows = []
    for found in judgements:
        for one in found.evidence.comparisons:
            rule, spread = found.claim.rules[one.rule], spread_of(one)
            if rule.printed_effect is None or one.trials or one.pairs or not isfinite(spread):
                continue
            row = {"id": found.claim.id, "comparison": one.name, "kind": rule.kind, "margin": rule.margin}
            row |= {"printed_effect": rule.printed_effect, "clusters": one.clusters, "spread": spread}
            rows.append(row | {"power": power(rule, rule.printed_effect, spread, one.clusters)})
    return pandas.DataFrame(rows)


def spread_of(one: Comparison) -> float:
    """Return the standard deviation between clusters, nan where there is none.

    Args:
        one: with values by cluster, or the summary of a table.
    """
    if one.clusters < 2 or one.undefined:
        return float("nan")
    if one.summary is not None:
        _, half, clusters = one.summary
        return float(half / stats.t.ppf(0.975, clusters - 1) * sqrt(clusters))
    return float(np.std(one.values, ddof=1))
