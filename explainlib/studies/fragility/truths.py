"""What the fragility study left on disk, network by network: predicted changes beside true ones; and one made again."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pandas
import torch
from jaxtyping import Float, Int
from torch import Tensor

from explainlib.checks import require_choice
from explainlib.datasets import load
from explainlib.datasets.bounds import truncate
from explainlib.metrics import Fidelity, fidelity
from explainlib.studies.fragility.bench import (
    BAYESIAN,
    FAMILIES,
    KINDS,
    PROTOCOLS,
    SIDES,
    Training,
    evaluate_network,
    train_family,
)
from explainlib.studies.fragility.parts import SWEEPS, sweep
from explainlib.studies.kept import FINISHED, kept_tables
from explainlib.studies.place import placed
from explainlib.studies.record import read_record

TABLES, RUN = ("iris", "repeats", "networks"), "fragility-iris-cpu"


@dataclass(frozen=True)
class NetworkResult:
    """One network: what influence predicted, what retraining showed, and its spectrum.

    Attributes:
        removed: training examples, each removed alone [g]; empty if the network collapsed.
        predicted: changes of the loss of the worst test example [g].
        true: the same after retraining [g].
        eigenvalues: the largest of the Hessian over all parameters, largest first [k].
        status: "compared", or why there is nothing to compare.
    """

    removed: Int[Tensor, " g"]
    predicted: Float[Tensor, " g"]
    true: Float[Tensor, " g"]
    eigenvalues: Float[Tensor, " k"]
    status: str

    @property
    def collapsed(self) -> bool:
        """Whether it gives every example the same class."""
        return len(self.removed) == 0

    @cached_property
    def agreement(self) -> Fidelity | None:
        """The fidelity of predicted to true; None if the network collapsed."""
        return None if self.collapsed else fidelity(self.predicted, self.true)

    @classmethod
    def of(cls, row: pandas.Series | dict[str, object], protocol: str) -> NetworkResult:
        """Return the network of one row of the study's table ``networks``.

        Args:
            row: with the points of each protocol as JSON; missing where the network collapsed.
            protocol: "highest_loss" or "most_influential".
        """
        require_choice("protocol", protocol, PROTOCOLS)
        try:
            removed, predicted, true = (
                [] if not isinstance(text := row.get(f"{column}_{protocol}"), str) else json.loads(text)
                for column in ("removed", *SIDES)
            )
            sides = predicted, true, json.loads(row["spectrum"])
            numbers = [torch.tensor(side, dtype=torch.float64) for side in sides]
            return cls(torch.tensor(removed, dtype=torch.int64), *numbers, str(row["status"]))
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise ValueError(
                f"a row of the table networks holds no lists of numbers ({truncate(str(error))}); run the study again."
            ) from error


@dataclass(frozen=True)
class Truths:
    """The sweeps of the fragility study.

    Attributes:
        summary: mean and 95% interval by sweep, kind and size (the study's table ``iris``).
        repeats: one row a network.
        networks: what is behind the first few seeds of each shape and kind.
        training: how the networks were trained and judged.
        bayesian_epochs: those of the Bayesian ones.
    """

    summary: pandas.DataFrame
    repeats: pandas.DataFrame
    networks: pandas.DataFrame
    training: Training
    bayesian_epochs: int

    def sizes(self, grows: str) -> list[int]:
        """Return the depths at the least width, or the widths at the least depth.

        Args:
            grows: "depth" or "width".
        """
        require_choice("sweep", grows, tuple(SWEEPS))
        return sorted(int(size) for size in sweep(self.networks, grows)[grows].unique())

    @property
    def kinds(self) -> list[str]:
        """The ways of training that are there, in the paper's order."""
        return [kind for kind in KINDS if kind in set(self.networks["kind"])]

    @property
    def seeds(self) -> list[int]:
        """The seeds whose points are there."""
        return sorted(int(seed) for seed in self.networks["seed"].unique())

    def shape(self, grows: str, size: int) -> tuple[int, int]:
        """Return depth and width of one place in a sweep.

        Raises:
            ValueError: a size that was not tried.
        """
        if size not in self.sizes(grows):
            raise ValueError(f"size={size} was not tried in the sweep over {grows}; choose from {self.sizes(grows)}.")
        held = int(self.networks[SWEEPS[grows]].min())
        return (size, held) if grows == "depth" else (held, size)

    def line(self, grows: str, kind: str, protocol: str) -> pandas.DataFrame:
        """Return size, Spearman with its interval, repeats and collapsed runs of one kind along a sweep."""
        rows = self.summary[(self.summary["sweep"] == grows) & (self.summary["kind"] == kind)].sort_values("size")
        name = f"spearman_{protocol}"
        names = {name: "spearman", f"{name}_low": "low", f"{name}_high": "high"}
        return rows[["size", *names, "repeats", "collapsed"]].rename(columns=names).reset_index(drop=True)

    def network(self, kind: str, depth: int, width: int, seed: int, protocol: str) -> NetworkResult:
        """Return one network.

        Raises:
            ValueError: one that is not there.
        """
        table = self.networks
        here = (table["kind"] == kind) & (table["depth"] == depth) & (table["width"] == width) & (table["seed"] == seed)
        if not here.any():
            raise ValueError(
                f"no network of kind {kind!r}, depth {depth}, width {width}, seed {seed} was kept; seeds are "
                f"{self.seeds}, kinds {', '.join(self.kinds)}."
            )
        return NetworkResult.of(table[here].iloc[0], protocol)

    def retrain(self, kind: str, depth: int, width: int, seed: int, protocol: str) -> NetworkResult:
        """Return one network trained again from its seed, explained again, and its truth retrained: some seconds."""
        split = placed(load("iris").double())
        name = next(name for name, kinds in FAMILIES.items() if kind in kinds)
        how = replace(self.training, epochs=self.bayesian_epochs) if name == BAYESIAN else self.training
        widths = [split.train.x.shape[1], *[width] * depth, len(split.train.classes)]
        (risk,) = train_family(how, split.train, widths, name, [seed])[kind]
        return NetworkResult.of(evaluate_network(how, risk, kind, split, points=True), protocol)


def read_truths(folder: str | Path | None = None) -> Truths:
    """Return the sweeps that ``python -m explainlib study fragility`` wrote.

    Args:
        folder: with the study's tables; None takes those inside the package.

    Raises:
        FileNotFoundError: a table that is not there; the message says how to make it.
        ValueError: a table without the columns that are read.
    """
    chosen = FINISHED if folder is None else Path(folder)
    records = sorted(chosen.glob("fragility-iris-*.json"), key=lambda path: path.stem != RUN)
    stem = records[0].stem if records else RUN
    tables = kept_tables(stem, folder)
    if missing := [name for name in TABLES if name not in tables]:
        raise ValueError(f"{chosen} has no {stem}-{missing[0]}.csv beside the others; run the study again.")
    needed = {"kind", "depth", "width", "seed", "status", "spectrum", *(f"{side}_highest_loss" for side in SIDES)}
    if lacking := sorted(needed - set(tables["networks"])):
        raise ValueError(f"{chosen / stem}-networks.csv lacks {', '.join(lacking)}; run the study again.")
    settings = read_record(records[0], "run the study again").get("settings")
    try:
        training, epochs = Training(**settings["training"]), settings["bayesian"][1]
    except (TypeError, KeyError, IndexError) as error:
        raise ValueError(f"{records[0]} does not say how the networks were trained; run the study again.") from error
    return Truths(*(tables[name] for name in TABLES), training, epochs)
