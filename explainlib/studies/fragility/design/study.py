"""Fragility as a factorial design: what moves the agreement of influence and retraining, each factor moved alone.

Parts, each with tables of its own:

    factors    Iris: ridge x damping x truth x parameters x removals, predictions and controls, by network
    cells      the same, means over networks with intervals
    averages   stochastic weight averages beside their un-averaged twins
    bayes      Bayesian networks by cost and weight of the divergence, and how right their moments are
    images     larger networks and data, and how far the truth agrees with itself (Epifano et al., Fig. 2)
    noise      signal and noise of retraining by number of examples (eq. 15)
    groups     groups and second order, as section 4.4 asks
    jumps      restlessness of retraining curves, by network (Fig. 5)
    claims     what the paper says beside what was seen
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pandas

from explainlib.studies.fragility.design.averages import evaluate_averages
from explainlib.studies.fragility.design.bayes import RIDGE, evaluate_bayes
from explainlib.studies.fragility.design.claims import design_claims
from explainlib.studies.fragility.design.curves import evaluate_curves
from explainlib.studies.fragility.design.factors import evaluate_split
from explainlib.studies.fragility.design.images import evaluate_groups, evaluate_images
from explainlib.studies.fragility.design.means import FACTORS, means
from explainlib.studies.fragility.design.settings import Config


def jobs(settings: Config, folder: Path) -> dict[str, Callable[[], pandas.DataFrame]]:
    """Return what the tables are made of by name, the part of the study first."""
    found: dict[str, Callable[[], pandas.DataFrame]] = {}
    for k, shape in enumerate(settings.shapes):
        for split in range(1 if shape.whole else settings.splits):
            found[f"factors-{k}-{split}"] = partial(evaluate_split, settings, shape, split)
    for k, shape in enumerate(settings.averages.shapes):
        for ridge in settings.ridges:
            found[f"averages-{k}-{ridge:g}"] = partial(evaluate_averages, settings.averages, shape, ridge)
    bayes = settings.bayes
    for k, shape in enumerate(bayes.shapes):
        for cost, weight in [(RIDGE, 0.0), *((c, w) for c in bayes.costs for w in bayes.kl_weights)]:
            found[f"bayes-{k}-{cost}-{weight:g}"] = partial(evaluate_bayes, bayes, shape, cost, weight)
    for part, cases in (("images", settings.images), ("noise", settings.noise)):
        for k, case in enumerate(cases):
            found |= {f"{part}-{k}-{seed}": partial(evaluate_images, case, seed) for seed in range(case.seeds)}
    groups = settings.groups
    for seed in range(groups.case.seeds):
        found[f"groups-{seed}"] = partial(evaluate_groups, groups.case, groups.sizes, groups.count, seed)
    networks, removed, *epochs = settings.curves
    for data, length in zip((settings.data, groups.case.data), epochs, strict=True):
        for seed in range(networks):
            found[f"jumps-{data}-{seed}"] = partial(evaluate_curves, data, seed, removed, length)
            if data != settings.data:
                found[f"jumps-{data}_full-{seed}"] = partial(evaluate_curves, data, seed, removed, length, full=True)
    return found


def tables(
    settings: Config, made: Mapping[str, pandas.DataFrame], seconds: Mapping[str, float]
) -> dict[str, pandas.DataFrame]:
    """Return the tables by name from what the jobs made."""
    parts: dict[str, list[pandas.DataFrame]] = {}
    for name, table in made.items():
        parts.setdefault(name.split("-")[0], []).append(table)
    found = {part: pandas.concat(frames, ignore_index=True) for part, frames in parts.items()}
    found["cells"] = means(found["factors"], FACTORS)
    return found | {"claims": design_claims(found)}
