"""Learners on normal and noise tasks that a study trained and explained, to be looked up; and a small one to train."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas

from explainlib.checks import require_choice
from explainlib.studies.kept import kept_tables
from explainlib.studies.tlxml.mixtures import Mixture, Network, Training

MIXTURE = ["learner", "normal", "noise", "copies", "weight_decay"]
TENTHS = [f"tenth_{k}" for k in range(1, 11)]
NEEDED = {*MIXTURE, *TENTHS, "seed", "kind", "method", "tests", "parameters", "mean_count", "mean_p", "median_count"}
NEEDED |= {"accuracy_normal", "accuracy_noise", "accuracy_unseen"}
SMALL = Training(filters=4, batches=25, lr=1e-2, buffer=64, compress=8, tests=16)  # what trains while a reader waits
SMALL_NORMAL, SMALL_NOISE, SMALL_COPIES = 14, 2, 2


class OrderTable:
    """The table "order" of the TLXML study: a row for each network, kind of test and method.

    Args:
        rows: the table.

    Attributes:
        table: the rows as they were passed.
        mixtures: what the learners were trained on, in the table's order.
        seeds: of the networks.

    Raises:
        ValueError: a table without the columns that are read.
    """

    def __init__(self, rows: pandas.DataFrame) -> None:
        if missing := sorted(NEEDED - set(rows)):
            raise ValueError(f"the table lacks {', '.join(missing)}; pass the table 'order' of the TLXML study.")
        self.table = rows
        values = rows[MIXTURE].drop_duplicates().itertuples(index=False)
        self.mixtures = tuple(Mixture(v[0], int(v[1]), int(v[2]), int(v[3]), float(v[4])) for v in values)
        self.seeds = tuple(sorted(int(seed) for seed in rows["seed"].unique()))

    def like(self, mixture: Mixture, *fixed: str) -> tuple[Mixture, ...]:
        """Return the mixtures that agree with one in some fields.

        Args:
            mixture: any.
            fixed: names of fields, such as "learner".
        """
        return tuple(m for m in self.mixtures if all(getattr(m, name) == getattr(mixture, name) for name in fixed))

    def methods(self, mixture: Mixture) -> tuple[str, ...]:
        """Return the scores that were computed for it."""
        return tuple(self._of(mixture)["method"].unique())

    def rows(self, mixture: Mixture, kind: str, method: str) -> pandas.DataFrame:
        """Return one row a network, by seed.

        Args:
            mixture: what the networks were trained on.
            kind: of tests, "unseen" or "training".
            method: of scores.

        Raises:
            ValueError: a mixture, a kind or a method that is not in the table.
        """
        part = self._of(mixture)
        require_choice("kind", kind, tuple(part["kind"].unique()))
        require_choice("method", method, self.methods(mixture))
        return part[(part["kind"] == kind) & (part["method"] == method)].set_index("seed").sort_index()

    def row(self, mixture: Mixture, kind: str, method: str, seed: int) -> pandas.Series:
        """Return the row of one network.

        Args:
            mixture: what it was trained on.
            kind: of tests.
            method: of scores.
            seed: of the network.

        Raises:
            ValueError: as ``rows``, or a seed that was not run.
        """
        require_choice("seed", seed, self.seeds)
        return self.rows(mixture, kind, method).loc[seed]

    def _of(self, mixture: Mixture) -> pandas.DataFrame:
        if mixture not in self.mixtures:
            raise ValueError(f"the study has no {mixture}; it has {', '.join(str(m) for m in self.mixtures)}.")
        rows = self.table
        return rows[(rows[MIXTURE] == [getattr(mixture, name) for name in MIXTURE]).all(axis=1)]


def read_order(folder: str | Path | None = None, *, data: str = "omniglot") -> OrderTable:
    """Return the learners that ``python -m explainlib study tlxml --scale cpu`` trained and explained.

    Args:
        folder: with the study's tables; None takes those inside the package.
        data: that the learners were trained on.

    Raises:
        FileNotFoundError: a table that is not there; the message says how to make it.
        ValueError: a run without the table, or a table without the columns that are read.
    """
    tables = kept_tables(f"tlxml-{data}-cpu", folder)
    if "order" not in tables:
        raise ValueError(f"the run tlxml-{data}-cpu has no table 'order'; run the study again.")
    return OrderTable(tables["order"])


def small_network(mixture: Mixture, seed: int, folder: Path) -> Network:
    """Return a network like those of the table that takes seconds: four filters, sixteen tasks of embedded glyphs.

    Args:
        mixture: gives the learner, the decay, and whether there are copies.
        seed: of the network.
        folder: keeps what is computed.
    """
    copies = min(mixture.copies, SMALL_COPIES)
    small = replace(mixture, normal=SMALL_NORMAL, noise=SMALL_NOISE, copies=copies)
    return Network("glyphs", small, SMALL, seed, folder)
