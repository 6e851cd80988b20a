"""Means over networks with their intervals, for each cell of the design."""

from __future__ import annotations

from collections.abc import Sequence

import pandas

from explainlib.studies.claims import mean_interval
from explainlib.studies.fragility.design.factors import MEASURES

FACTORS = ("shape", "ridge", "parameters", "truth", "protocol", "prediction")


def means(table: pandas.DataFrame, factors: Sequence[str], measures: Sequence[str] = MEASURES) -> pandas.DataFrame:
    """Return for each cell the number of networks, those without a number, and each measure's mean and 95% interval.

    Args:
        table: one row a network and cell; those that collapsed or were refused have no number.
        factors: columns that name a cell.
        measures: columns.
    """
    rows = []
    compared = table[table["status"] == "compared"]
    for values, part in compared.groupby(list(factors), sort=False):
        row = dict(zip(factors, values, strict=True)) | {"networks": len(part)}
        row["without"] = int(part[measures[0]].isna().sum())
        if "unsolved" in part:
            row["unsolved"] = part["unsolved"].mean()
        for measure in measures:
            known = part[measure].dropna().to_numpy()
            mean, low, high = mean_interval(known) if len(known) else (float("nan"),) * 3
            row |= {measure: float(mean), f"{measure}_low": float(low), f"{measure}_high": float(high)}
        rows.append(row)
    return pandas.DataFrame(rows)
