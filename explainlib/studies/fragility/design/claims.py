"""The claims E2, E3, E5, E6 and E8 of Epifano et al.: which numbers of the design's tables they are about.

The unit is a network: a split of the flowers, or a seed of parameters and batches. Networks that collapsed have nothing
to explain and are left out; what a network of another shape with the same split or seed says is averaged with it.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas

from explainlib.studies.claims import FRAGILITY, Comparison, Evidence, by_cluster, judged
from explainlib.studies.fragility.bench import BAYESIAN
from explainlib.studies.fragility.design.bayes import RIDGE
from explainlib.studies.fragility.design.curves import FULL
from explainlib.studies.fragility.design.images import AGAIN, GRADIENTS, LAST, SOLVED, TRAINED
from explainlib.studies.fragility.design.settings import GAUSSIAN, SAMPLED, TAYLOR

Tables = Mapping[str, pandas.DataFrame]
SPEARMAN = "spearman_highest_loss"
DECIDED = ("E2", "E3", "E5", "E6", "E8")  # the other three rest on the sweeps
PAPER = {"parameters": "last", "protocol": "highest loss", "prediction": "influence, damping 0.01"}


def design_claims(tables: Tables) -> pandas.DataFrame:
    """Return the claims with verdicts, from the tables of the design."""
    return judged([claim for claim in FRAGILITY if claim.id in DECIDED], design_evidence(tables))


def design_evidence(tables: Tables) -> dict[str, Evidence]:
    """Return what the tables of the design say about each of its claims, by id."""
    images = tables["images"]
    found = {"E2": _regularised(tables["factors"], tables["bayes"]), "E3": _averaged(tables["averages"])}
    return found | {"E5": _larger(images), "E6": _bayesian(images), "E8": _jumps(tables["jumps"])}


def ridge_gain(factors: pandas.DataFrame, truth: str, **where: str) -> dict[int, float]:
    """Return by how much Spearman is higher with a ridge than without, by split, the mean over the shapes.

    Args:
        factors: of the design; the case of all 150 flowers is one network and is left out.
        truth: on both sides.
        where: other columns and their values.
    """
    rows = factors[(factors["status"] == "compared") & (factors["truth"] == truth)]
    rows = rows[~rows["shape"].str.contains("150 flowers")]
    for column, value in where.items():
        rows = rows[rows[column] == value]
    wide = rows.pivot_table(index=["shape", "split"], columns="ridge", values="spearman_worst")
    if wide.shape[1] < 2:
        return {}
    return (wide[wide.columns.max()] - wide[wide.columns.min()]).dropna().groupby("split").mean().to_dict()


def bayesian_gain(bayes: pandas.DataFrame, cost: str, kl_weight: float = 1.0) -> dict[int, float]:
    """Return Spearman of Bayesian networks minus that of networks with a ridge, by seed, the mean over the shapes.

    Args:
        bayes: of the design.
        cost: of the Bayesian networks.
        kl_weight: of their divergence.
    """
    kept = bayes[bayes["status"] == "compared"].dropna(subset=[SPEARMAN])
    ridge = kept[kept["cost"] == RIDGE].set_index(["shape", "seed"])[SPEARMAN]
    ours = kept[(kept["cost"] == cost) & (kept["kl_weight"] == kl_weight)].set_index(["shape", "seed"])[SPEARMAN]
    return (ours - ridge).dropna().groupby("seed").mean().to_dict()


def average_gain(averages: pandas.DataFrame, ridge: bool, a: str, b: str) -> dict[int, float]:
    """Return Spearman in state ``a`` minus that in state ``b`` of the same networks, by seed, the mean over the shapes.

    Args:
        averages: of the design.
        ridge: with or without.
        a: "network", "twin" or "average".
        b: another.
    """
    kept = averages[(averages["status"] == "compared") & ((averages["ridge"] > 0) == ridge)]
    wide = kept.pivot_table(index=["shape", "seed"], columns="state", values=SPEARMAN)
    if a not in wide or b not in wide:
        return {}
    return (wide[a] - wide[b]).dropna().groupby("seed").mean().to_dict()


def _mean(values: Mapping[int, float]) -> str:
    return f"{sum(values.values()) / len(values):.2f}" if values else "none"


def _regularised(factors: pandas.DataFrame, bayes: pandas.DataFrame) -> Evidence:
    comparisons = (
        by_cluster("L2 minus plain, both damped by .01 and trained on", ridge_gain(factors, "trained on", **PAPER)),
        by_cluster("Bayesian (the paper's cost) minus L2, both solved", bayesian_gain(bayes, GAUSSIAN)),
    )
    others = {truth: ridge_gain(factors, truth, **PAPER) for truth in ("solved", "from scratch")}
    said = [f"L2 minus plain against {truth} {_mean(values)}" for truth, values in others.items()]
    said += [f"Bayesian, {name}, minus L2 {_mean(bayesian_gain(bayes, cost))}"
             for name, cost in (("sampled cost", SAMPLED), ("Taylor cost", TAYLOR))]  # fmt: skip
    lost = bayes[bayes["cost"] != RIDGE]
    return Evidence(
        comparisons,
        "; ".join(said),
        notes=f"{int(lost['collapsed'].sum())} of {len(lost)} Bayesian networks collapsed and are left out",
    )


def _averaged(averages: pandas.DataFrame) -> Evidence:
    comparisons = tuple(
        by_cluster(f"average minus twin, {name}", average_gain(averages, ridge, "average", "twin"), rule=k)
        for k, (name, ridge) in enumerate((("without a ridge", False), ("with", True)))
    )
    control = average_gain(averages, False, "twin", "network")
    return Evidence(comparisons, f"twin minus network, without a ridge: {_mean(control)} by training on alone")


def by_network(images: pandas.DataFrame, data: str, network: str, a: str, b: str) -> dict[int, float]:
    """Return the Spearman of a pair by seed.

    Args:
        images: of the design.
        data: such as "mnist".
        network: its name.
        a: one side.
        b: the other.
    """
    rows = images[(images["data"] == data) & (images["network"] == network) & (images["status"] == "compared")]
    if not len(rows):
        return {}
    rows = rows[(rows["a"] == a) & (rows["b"] == b)]
    return rows.set_index("seed")["spearman"].to_dict()


def _on_mnist(images: pandas.DataFrame, network: str, rule: int) -> Comparison:
    values = by_network(images, "mnist", network, LAST, TRAINED)
    return by_cluster(network if values else f"{network} (not run)", values, rule=rule)


def _controls(images: pandas.DataFrame, networks: tuple[str, ...]) -> str:
    pairs = {"truth against itself": (TRAINED, AGAIN), "gradient products": (GRADIENTS, TRAINED),
             "influence against the solved last layer": (LAST, SOLVED)}  # fmt: skip
    said = []
    for name, pair in pairs.items():
        values = {network: _mean(by_network(images, "mnist", network, *pair)) for network in networks}
        said.append(f"{name}: {', '.join(f'{network} {value}' for network, value in values.items())}")
    return "; ".join(said)


def _larger(images: pandas.DataFrame) -> Evidence:
    networks = "fully connected", "LeNet"
    return Evidence(tuple(_on_mnist(images, name, k) for k, name in enumerate(networks)), _controls(images, networks))


def _bayesian(images: pandas.DataFrame) -> Evidence:
    name = f"{BAYESIAN} fully connected"
    return Evidence((_on_mnist(images, name, 0),), _controls(images, (name,)))


def _jumps(jumps: pandas.DataFrame) -> Evidence:
    by = jumps.pivot_table(index="seed", columns="data", values="turns")
    larger = [name for name in by if name != "iris" and not name.endswith(FULL)]
    comparisons = tuple(by_cluster(f"{name} minus iris", (by[name] - by["iris"]).dropna().to_dict()) for name in larger)
    full = [name for name in by if name.endswith(FULL)]
    said = "; ".join(f"{name} minus iris {(by[name] - by['iris']).mean():.2f}" for name in full)
    return Evidence(comparisons, f"without small batches: {said}")
