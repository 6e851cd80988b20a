"""The claims P1 to P9 of generalized representers: which numbers of the study's tables they are about.

The unit is a network (a seed). The tables keep each mean with Student's interval over networks, and no values by
network, so the intervals here are Student's also where there are twenty. P1, which names no length of training, is
judged by all parts together, every difference of every part, by one rule, with the kernel that the surrogate has
behind all three importances; the other claims are judged by the part "main".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas

from explainlib.studies.claims import NOT_APPLICABLE, REPRESENTERS, Comparison, Evidence, judged
from explainlib.studies.representers.methods import NTK, SUMMED

Tables = Mapping[str, pandas.DataFrame]
IMAGES, TEXTS = ("digits", "mnist", "cifar10"), ("ag_news", "toxicity")
KERNELS = ("tracking, last layer", "tracking, NTK init", "tracking, NTK middle", "tracking, NTK final")
INFLUENCE = "tracking, influence kernel"
TARGET, SURROGATE = "target, NTK final", "surrogate, NTK final"
BASELINES = ("influence function", "representer points")
AXIOMS = ("self-explanation", "symmetric zero", "symmetric cycle", "irreducibility")
OTHER_DATA = (NOT_APPLICABLE, "the claim is about other data")


def representers_claims(tables: Tables, data: str) -> pandas.DataFrame:
    """Return the claims with verdicts for one data set.

    Args:
        tables: of the study.
        data: that they are of.
    """
    return judged(REPRESENTERS, representers_evidence(tables, data))


def representers_evidence(tables: Tables, data: str) -> dict[str, Evidence]:
    """Return what the tables of the study say about each claim, by its id.

    Args:
        tables: of the study.
        data: that they are of.
    """
    areas, pairs = (tables[name][tables[name]["part"] == "main"] for name in ("methods", "pairs"))
    gaps = Gaps(pairs, int(areas["seeds"].iloc[0]))
    last, init = "tracking, last layer", "tracking, NTK init"
    kernels = [m for m, where in zip(areas["method"], areas["experiments"], strict=True) if "II" in where.split(", ")]
    asked = {
        "P3": (IMAGES, [(INFLUENCE, other) for other in KERNELS]),
        "P4": (TEXTS, [(NTK, other) for other in kernels if other != NTK]),
        "P5": (TEXTS, [(NTK, last)]),
        "P6": (("cifar10",), [(other, init) for other in kernels if other != init]),
        "P7": (("mnist",), [("TracInCP", other) for other in (*BASELINES, NTK, INFLUENCE)]),
        "P8": (IMAGES + TEXTS, [(new, old) for new in (NTK, INFLUENCE) for old in BASELINES]),
    }
    controls = f"random {_area(areas, 'random')}; tracking {_area(areas, NTK)}"
    found = {
        name: Evidence(gaps.of(wanted), controls, None if data in about else OTHER_DATA)
        for name, (about, wanted) in asked.items()
    }
    found["P1"] = Evidence(_order(tables), controls, notes=_stops(tables))
    found["P2"] = _random(areas)
    return found | {"P9": _axioms(tables["axioms"])}


OWN_KERNELS = ((NTK, TARGET), (TARGET, SURROGATE))
ORDER = ((NTK + SUMMED, TARGET + SUMMED), (TARGET + SUMMED, SURROGATE))  # one kernel behind all three


class Gaps:
    """Paired differences of methods, with their intervals over networks.

    Args:
        pairs: the table of one part.
        seeds: networks behind each.
    """

    def __init__(self, pairs: pandas.DataFrame, seeds: int) -> None:
        self._rows = {(row.a, row.b): (row.a_minus_b, (row.high - row.low) / 2) for row in pairs.itertuples()}
        self.seeds = seeds

    def of(self, wanted: Sequence[tuple[str, str]], where: str = "") -> tuple[Comparison, ...]:
        """Return the comparisons of each first method with its second.

        Args:
            wanted: pairs of methods.
            where: said of each comparison, after its name.

        Raises:
            KeyError: methods that were not compared.
        """
        return tuple(self._one(a, b, where) for a, b in wanted)

    def _one(self, a: str, b: str, where: str) -> Comparison:
        if (a, b) in self._rows:
            sign, (gap, half) = 1, self._rows[a, b]
        elif (b, a) in self._rows:
            sign, (gap, half) = -1, self._rows[b, a]
        else:
            raise KeyError(f"the methods {a!r} and {b!r} were not compared.")
        return Comparison(f"{a} minus {b}{where}", summary=(float(sign * gap), float(half), self.seeds))


def _area(areas: pandas.DataFrame, method: str) -> str:
    row = areas[areas["method"] == method].iloc[0]
    return f"{row.auc:.2f} [{row.auc_low:.2f}, {row.auc_high:.2f}]"


def _parts(tables: Tables) -> list[tuple[str, pandas.DataFrame, int]]:
    """Return (part, its paired differences, its networks)."""
    seeds = tables["methods"].groupby("part")["seeds"].first()
    return [(part, own, int(seeds[part])) for part, own in tables["pairs"].groupby("part", sort=False)]


def _order(tables: Tables) -> tuple[Comparison, ...]:
    """Return both differences of P1 in every part; of a study that had not the common kernel, with each its own."""
    parts = _parts(tables)
    several, order = len(parts) > 1, ORDER if ORDER[0][0] in set(tables["methods"]["method"]) else OWN_KERNELS
    made = [Gaps(own, seeds).of(order, f" ({part})" if several else "") for part, own, seeds in parts]
    return tuple(one for comparisons in made for one in comparisons)


def _stops(tables: Tables) -> str:
    """Return each part's training loss, in words."""
    losses = tables["networks"].groupby("part", sort=False)["training_loss"].median()
    return "; ".join(f"{part}: training loss {losses[part]:.2g}, {seeds} networks" for part, _, seeds in _parts(tables))


def _random(areas: pandas.DataFrame) -> Evidence:
    """Return random selection in units of tracking's mean, which is taken as it is."""
    by = areas.set_index("method")
    random, unit = by.loc["random"], abs(float(by.loc[NTK, "auc"]))
    half = float(random["auc_high"] - random["auc_low"]) / 2 / unit
    ratio = Comparison("random over tracking", summary=(float(random["auc"]) / unit, half, int(random["seeds"])))
    return Evidence((ratio,), f"tracking {_area(areas, NTK)}")


def _axioms(axioms: pandas.DataFrame) -> Evidence:
    """Return of how many axioms each product of importance and kernel keeps, beside the methods that are none."""
    table = axioms.pivot_table(index="method", columns="axiom", values="violation")
    products = sorted(m for m in table.index if m.startswith(("surrogate", "target", "tracking")))
    kept = (table.loc[products, list(AXIOMS)] < 1e-6).sum(axis=1)
    worst = ", ".join(f"{name} {table.loc[products, name].max():.2g}" for name in AXIOMS)
    controls = ", ".join(f"{m} {table.loc[m, 'symmetric cycle']:.2f}" for m in ("TracInCP", "random"))
    notes = (
        f"largest violations: {worst}; irreducibility is violated by {table.loc[products, 'irreducibility'].min():.0%} "
        f"of the examples or more, those with a negative importance; efficiency: tracking NTK-final misses "
        f"{table.loc[NTK, 'efficiency of the change']:.2f} of the change of the output"
    )
    counted = Comparison("products", tuple(map(float, kept)), (len(AXIOMS),) * len(products))
    return Evidence((counted,), f"symmetric cycle of no products: {controls}", notes=notes)
