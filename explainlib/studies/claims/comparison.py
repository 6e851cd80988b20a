"""What one claim is judged by: comparisons with their clusters, and what stands beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isnan, nan

import numpy as np
from scipy import stats

from explainlib.studies.claims.claim import ABSENT, NOT_APPLICABLE, UNDECIDED, Rule
from explainlib.studies.claims.intervals import FEW, exact_interval, fisher_interval, mean_interval


@dataclass(frozen=True)
class Comparison:
    """One quantity over clusters.

    Attributes:
        name: what is compared, such as "tracking minus target".
        values: one number a cluster; of "count" the successes.
        trials: of "count": tests of each cluster.
        pairs: of rank correlations: pairs behind each value, one value a stratum.
        summary: (mean, half width of Student's 95% interval, clusters) where a table keeps no values by cluster.
        rule: position of its rule among those of the claim.
    """

    name: str
    values: tuple[float | int, ...] = ()
    trials: tuple[int, ...] = ()
    pairs: tuple[int, ...] = ()
    summary: tuple[float | int, float | int, int] | None = None
    rule: int = 0

    @property
    def clusters(self) -> int:
        """How many networks, seeds or splits there are; of correlations how many pairs."""
        if self.summary is not None:
            return self.summary[2]
        return sum(self.pairs) if self.pairs else len(self.values)

    @property
    def undefined(self) -> int:
        """How many values are nan."""
        values = self.summary[:2] if self.summary is not None else self.values
        return sum(map(isnan, values))

    @property
    def method(self) -> str:
        """The kind of interval."""
        if self.clusters < 2:
            return "none"
        if self.pairs:
            return "Fisher z"
        if self.trials:
            return "exact, clustered"
        return "Student t" if self.summary is not None or self.clusters < FEW else "percentile-t bootstrap"

    def interval(self, rule: Rule, confidence: float = 0.95) -> tuple[float, float, float]:
        """Return (effect, low, high), the ends inside the measure's range; nan without a number.

        Args:
            rule: with the range.
            confidence: of both sides.
        """
        if not self.clusters or self.undefined:
            return nan, rule.lowest, rule.highest
        if self.summary is not None:
            found = self._from_summary(confidence)
        elif self.pairs:
            found = fisher_interval(self.values, self.pairs, confidence)
        elif self.trials:
            found = exact_interval(self.values, self.trials, confidence)
        else:
            found = mean_interval(self.values, confidence)
        effect, low, high = (float(end) for end in found)
        return effect, max(low, rule.lowest), min(high, rule.highest)

    def _from_summary(self, confidence: float) -> tuple[float, float, float]:
        """Return Student's interval at another confidence than the table's."""
        mean, half, clusters = self.summary
        if clusters < 2 or not half > 0:
            return mean, -np.inf, np.inf
        ratio = stats.t.ppf(0.5 + confidence / 2, clusters - 1) / stats.t.ppf(0.975, clusters - 1)
        return mean, mean - half * ratio, mean + half * ratio


@dataclass(frozen=True)
class Evidence:
    """What a study's tables say about one claim.

    Attributes:
        comparisons: all of which the claim asks for.
        controls: numbers of do nothing, identity, random and oracle, whichever there are.
        withheld: (verdict, reason) where the numbers may not decide: a premise that is absent, other data, or
            a comparison with another difference in it.
        notes: by which the reader may judge the premise, or what else was seen.
        caveat: what a reader of the verdict alone has to know, such as a control that does as well.
    """

    comparisons: tuple[Comparison, ...] = ()
    controls: str = "none"
    withheld: tuple[str, str] | None = None
    notes: str = ""
    caveat: str = ""

    def __post_init__(self) -> None:
        """Check that what is withheld has a verdict that numbers do not give."""
        if self.withheld is not None and self.withheld[0] not in (ABSENT, NOT_APPLICABLE, UNDECIDED):
            raise ValueError(
                f"a verdict of {self.withheld[0]!r} needs numbers; withheld may be {ABSENT!r}, {NOT_APPLICABLE!r} or "
                f"{UNDECIDED!r}."
            )


def by_cluster(name: str, values: Mapping[object, float], *, rule: int = 0) -> Comparison:
    """Return the comparison of one value a cluster.

    Args:
        name: what is compared.
        values: by seed or network.
        rule: position of its rule.
    """
    return Comparison(name, tuple(float(values[key]) for key in sorted(values)), rule=rule)


def merged(parts: Mapping[str, Evidence]) -> Evidence:
    """Return the evidence of several data sets as one: the claim has to hold on each that can speak.

    Data without the premise, or that the claim is not about, are left out as long as others speak; a set that was
    withheld as undecided stays, as a comparison without a number.

    Args:
        parts: by data set, at least one.
    """
    if len(parts) == 1:
        return next(iter(parts.values()))
    silent = {name: part for name, part in parts.items() if part.withheld and part.withheld[0] != UNDECIDED}
    speaking = {name: part for name, part in parts.items() if name not in silent}
    told = [f"{name}: {part.notes}" for name, part in parts.items() if part.notes]
    if not speaking:
        absent = {name: part for name, part in silent.items() if part.withheld[0] == ABSENT} or silent
        first = next(iter(absent.values()))
        controls = _joined({name: part.controls for name, part in absent.items()})
        reason = _joined({name: part.withheld[1] for name, part in absent.items()})
        shown = tuple(c for name, part in absent.items() for c in _named(name, part.comparisons))
        return Evidence(shown, controls, (first.withheld[0], reason), "; ".join(told))
    comparisons = tuple(c for name, part in speaking.items() for c in _named(name, part.comparisons))
    withheld = {name: part.withheld[1] for name, part in speaking.items() if part.withheld}
    told += [f"{name} is left out: {part.withheld[1]}" for name, part in silent.items()]
    controls = _joined({name: part.controls for name, part in speaking.items()})
    verdict = (UNDECIDED, _joined(withheld)) if len(withheld) == len(speaking) else None
    if withheld and verdict is None:
        comparisons += tuple(Comparison(f"{name}: {reason}") for name, reason in withheld.items())
    caveat = _joined({name: part.caveat for name, part in speaking.items() if part.caveat})
    return Evidence(comparisons, controls, verdict, "; ".join(told), caveat)


def _named(data: str, comparisons: tuple[Comparison, ...]) -> tuple[Comparison, ...]:
    return tuple(replace(one, name=f"{data}: {one.name}") for one in comparisons)


def _joined(texts: Mapping[str, str]) -> str:
    """Return the texts by name, one text once."""
    names: dict[str, list[str]] = {}
    for name, text in texts.items():
        names.setdefault(text, []).append(name)
    return "; ".join(text if len(names) == 1 else f"{', '.join(who)}: {text}" for text, who in names.items())
