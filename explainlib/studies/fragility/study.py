"""Fragility: does influence fail with larger networks, or the way it is tested?

Parts, each with tables of its own:

    iris         Spearman by depth and by width, five ways of training, intervals over repeats (Epifano et al., Fig. 1)
    repeats      the runs behind it, collapsed ones included
    networks     what is behind some of the runs: predicted and true changes, and the largest eigenvalues, as JSON
    spectrum     the Hessian's top eigenvalue by depth and by width (Fig. 3)
    anova        one-way analysis of variance over depth and over width
    two          influence of all or the last parameters against truths of all or the last, 2 x 2
    pictures     numbers that tell apart what one Spearman cannot (Fig. 4), and in ``points`` what is behind them
    curves       a test's loss while retraining, full batch on Iris and small batches on digits (Fig. 5); ``jumps``
                 says how restless they are
    ladder       what is lost on each step from influence to cold-start retraining
    plan         minutes planned and taken
    claims       what the paper says beside what was seen: sizes and eigenvalues; ``fragility_design`` has the rest
    closing      what is fragile, in a paragraph

ReLU networks, which the sweep has as the paper does, have kinks: training does not bring their gradient near zero, and
they are judged where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import pandas
import torch

from explainlib.datasets import Split, load
from explainlib.models import mlp
from explainlib.studies.fragility.bench import (
    BAYESIAN,
    FAMILIES,
    L2,
    PROTOCOLS,
    SHOWN,
    SIDES,
    Training,
    cell,
    train_family,
)
from explainlib.studies.fragility.claims import fragility_claims, summary_paragraph
from explainlib.studies.fragility.parts import (
    anova,
    curves,
    digits_ladder,
    jumps,
    like_with_like,
    picture_pairs,
    scatter,
    summary,
    two_by_two,
)
from explainlib.studies.place import placed
from explainlib.training import fit

CORRELATIONS = (
    "spearman_highest_loss",
    "pearson_highest_loss",
    "spearman_most_influential",
    "pearson_most_influential",
)
DIGITS_RIDGE = 1e-3
SAME = ("kind", "depth", "width", "seed")  # what names a network


@dataclass(frozen=True)
class Config:
    """What one run does; the scales differ in nothing else.

    Attributes:
        data: of the sweeps: "iris".
        depths: hidden layers of width 5.
        widths: of one hidden layer.
        repeats: seeds of each shape.
        bayesian: repeats and epochs of the Bayesian networks, which cost most.
        training: of the sweeps.
        pairs: seeds of the 2 x 2 table.
        curve: epochs and removals of the retraining curves, and the number of digits.
        ladder: digits, epochs, removals and seeds of the ladder.
        planned: minutes by part, measured on two cores; empty where nothing was planned.
    """

    data: str = "iris"
    depths: tuple[int, ...] = (1, 2)
    widths: tuple[int, ...] = (5, 10)
    repeats: int = 4
    bayesian: tuple[int, int] = (2, 400)
    training: Training = field(default_factory=lambda: Training(epochs=1000, swa=100, finetune=100))
    pairs: int = 3
    curve: tuple[int, int, int] = (40, 3, 200)
    ladder: tuple[int, int, int, int] = (80, 60, 6, 1)
    planned: tuple[tuple[str, float], ...] = ()


PLANNED = (("iris", 34.0), ("two", 3.0), ("pictures", 0.5), ("curves", 1.0), ("ladder", 2.0))


def config(scale: str, data: str | None) -> Config:
    """Return the settings of a scale: "quick" is a minute, "cpu" under an hour on two cores, "paper" the printed sizes.

    Raises:
        ValueError: other data.
    """
    if data not in (None, "iris"):
        raise ValueError(f"the fragility study runs its sweeps on iris; got data={data!r}.")
    if scale == "quick":
        return Config()
    depths, widths = tuple(range(1, 9)), (5, 10, 20, 30, 40, 50)
    if scale == "cpu":
        return Config(
            depths=depths,
            widths=widths,
            repeats=50,
            bayesian=(50, 2000),
            training=Training(),
            pairs=20,
            curve=(300, 10, 500),
            ladder=(150, 100, 12, 3),
            planned=PLANNED,
        )
    return Config(
        depths=depths,
        widths=widths,
        repeats=50,
        bayesian=(50, 60_000),
        training=Training(epochs=60_000, lr=1e-3, swa=7500, finetune=7500),
        pairs=50,
        curve=(7500, 40, 1500),
        ladder=(500, 300, 40, 10),
    )


@dataclass(frozen=True)
class Sweeps:
    """The data and the settings from which every part is made; nothing is computed before it is asked for."""

    settings: Config

    @cached_property
    def split(self) -> Split:
        """Iris in float64."""
        return placed(load(self.settings.data).double())

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """Depth and width of every network, each once."""
        deep = [(depth, min(self.settings.widths)) for depth in self.settings.depths]
        wide = [(min(self.settings.depths), width) for width in self.settings.widths]
        return list(dict.fromkeys(deep + wide))

    def run(self, depth: int, width: int, name: str) -> pandas.DataFrame:
        """Return the runs of one shape and family."""
        how, repeats = self.settings.training, self.settings.repeats
        if name == BAYESIAN:
            repeats, epochs = self.settings.bayesian
            how = replace(how, epochs=epochs)
        return cell(how, self.split, depth, width, name, range(repeats))

    def like_with_like(self, activation: str) -> pandas.DataFrame:
        """Return the runs behind the 2 x 2 table."""
        return like_with_like(self.settings.training, self.split, activation, range(self.settings.pairs))

    def pictures(self) -> pandas.DataFrame:
        """Return the points of the constructed pairs and of one network on Iris, with the numbers beside them."""
        how, train = self.settings.training, self.split.train
        risk = train_family(how, train, [train.x.shape[1], 5, len(train.classes)], L2, [0])[L2][0]
        points, numbers = picture_pairs({"iris, depth 1, L2": scatter(how, risk, self.split.test)})
        return points.merge(numbers.drop(columns="points"), on="picture")

    def curves(self, data: str) -> pandas.DataFrame:
        """Return the retraining curves of one data set."""
        epochs, removed, n = self.settings.curve
        how = self.settings.training
        if data == self.settings.data:
            train = self.split.train
            risk = train_family(how, train, [train.x.shape[1], 5, len(train.classes)], L2, [0])[L2][0]
            options = {"batch_size": None, "epochs": epochs, "l2": how.l2, "removed": removed}
            return curves(risk.model, self.split, data, **options)
        split = placed(load(data, limit=n).double())
        options = {"batch_size": 50, "l2": DIGITS_RIDGE, "epochs": max(10, epochs // 3)}
        untrained = placed(mlp([64, 32, 10], "relu", dtype=torch.float64))
        first = fit(untrained, split.train, epochs=60, batch_size=50, weight_decay=DIGITS_RIDGE).model
        return curves(first, split, data, removed=removed, **options)


def jobs(settings: Config, folder: Path) -> dict[str, Callable[[], pandas.DataFrame]]:
    """Return what the tables are made of by name, the part of the study first."""
    sweeps = Sweeps(settings)
    n, epochs, removed, seeds = settings.ladder
    return {
        **{
            f"iris-{depth}-{width}-{name}": (lambda d=depth, w=width, n=name: sweeps.run(d, w, n))
            for depth, width in sweeps.shapes
            for name in FAMILIES
        },
        **{f"two-{name}": (lambda a=name: sweeps.like_with_like(a)) for name in ("tanh", "relu")},
        "pictures": sweeps.pictures,
        **{f"curves-{name}": (lambda d=name: sweeps.curves(d)) for name in (settings.data, "digits")},
        **{f"ladder-{seed}": (lambda s=seed: digits_ladder(n, epochs, removed, s)) for seed in range(seeds)},
    }


def tables(
    settings: Config, made: Mapping[str, pandas.DataFrame], seconds: Mapping[str, float]
) -> dict[str, pandas.DataFrame]:
    """Return the tables by name from what the jobs made."""
    parts: dict[str, list[pandas.DataFrame]] = {}
    for name, table in made.items():
        parts.setdefault(name.split("-")[0], []).append(table)
    whole = {part: pandas.concat(frames, ignore_index=True) for part, frames in parts.items()}
    repeats, together, lines = whole["iris"], whole["pictures"], whole["curves"]
    points = ["picture", "predicted", "true"]
    behind = ["spectrum", *(f"{side}_{name}" for name in PROTOCOLS for side in ("removed", *SIDES))]
    repeats = repeats.reindex(columns=list(dict.fromkeys([*repeats.columns, *behind])))  # all runs may have collapsed
    found = {
        "iris": summary(repeats, CORRELATIONS),
        "repeats": repeats.drop(columns=behind),
        "networks": repeats[repeats["seed"] < SHOWN][[*SAME, "status", *behind]],
        "spectrum": summary(repeats, ("top_eigenvalue",)),
        "anova": anova(repeats),
        "two": two_by_two(whole["two"]),
        "points": together[points],
        "pictures": together.drop(columns=points[1:]).drop_duplicates(ignore_index=True),
        "curves": lines,
        "jumps": jumps(lines),
        "ladder": whole["ladder"],
        "plan": _plan(settings, seconds),
    }
    return {**found, "claims": fragility_claims(found), "closing": summary_paragraph(found)}


def _plan(settings: Config, taken: Mapping[str, float]) -> pandas.DataFrame:
    """Return the minutes planned and taken by part; planned is empty where the scale was never measured."""
    parts = list(dict.fromkeys(name.split("-")[0] for name in taken))
    planned = dict(settings.planned)
    rows = [
        {
            "part": part,
            "jobs": sum(name.split("-")[0] == part for name in taken),
            "planned_minutes": planned.get(part, float("nan")),
            "taken_minutes": sum(seconds for name, seconds in taken.items() if name.split("-")[0] == part) / 60,
        }
        for part in parts
    ]
    return pandas.DataFrame(rows)
