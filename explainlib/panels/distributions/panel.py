"""The panel of distributions: what a learner was trained on, and where its noise tasks stand in its explanations.

Every learner was trained and explained by the study and is only looked up. The button trains and explains a small one
of the same kind, here and now.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pandas
from ipywidgets import Widget

from explainlib.checks import require_choice
from explainlib.compute import chosen_device
from explainlib.panels.distributions.controls import LEARNERS, DistributionControls
from explainlib.panels.distributions.plots import NetworkPoint, accuracy_plot, tenths_plot
from explainlib.panels.html import lines_html, message
from explainlib.panels.interactive import Action, InteractivePanel
from explainlib.studies.place import computing_on
from explainlib.studies.tlxml import TENTHS, Mixture, OrderTable, order_of, read_order, small_network

CONTROLS = ("identity", "cosine", "random projector", "cosine, untrained")


@dataclass(frozen=True)
class Choice:
    """Which networks, which of them, and what is asked."""

    mixture: Mixture
    method: str
    kind: str
    seed: int


class Distributions(InteractivePanel):
    """A panel on learners of normal and noise tasks: number of tasks, turned copies, weight decay, scores and tests.

    Args:
        table: of the study, from ``read_order``; None reads the table inside the package.
        device: of the networks that are trained here: "auto" (a GPU if there is one, else the CPU), "cpu", "cuda", or
            "cuda:1".

    Raises:
        FileNotFoundError: no table.
        TypeError: something else than an ``OrderTable``.
        ValueError: a device that is unknown or not there.

    Source: TLXML, section 5.2 and B.3.
    """

    def __init__(self, table: OrderTable | None = None, *, device: str = "auto") -> None:
        self.device = chosen_device(device)
        if table is not None and not isinstance(table, OrderTable):
            raise TypeError(f"table is a {type(table).__name__}; pass read_order(folder), or nothing.")
        self.table = read_order() if table is None else table
        self._start = Choice(self.table.mixtures[0], "buffer", "unseen", self.table.seeds[0])
        self._choice = self._start
        self._truths: dict[tuple[Mixture, int], pandas.DataFrame] = {}
        learners = {LEARNERS[name]: name for name in dict.fromkeys(m.learner for m in self.table.mixtures)}
        self.controls = DistributionControls(learners=learners, seeds=self.table.seeds)
        self._set_widgets()
        self._connect()
        self.draw()

    def set(
        self,
        *,
        learner: str | None = None,
        normal: int | None = None,
        change: str | None = None,
        method: str | None = None,
        kind: str | None = None,
        seed: int | None = None,
    ) -> str:
        """Change the choice, redraw, and return the panel's text.

        Args:
            learner: "maml" or "protonet"; without more it starts at its fewest tasks.
            normal: normal training tasks; without a change the learner is taken as it is.
            change: "as it is", or such as "8 turned copies" or "weight decay 0.001".
            method: of scores, such as "buffer" or "cosine".
            kind: of tests, "unseen" or "training".
            seed: of the network.

        Raises:
            ValueError: what the study does not hold; nothing is changed then.
        """
        mixture = self._choice.mixture
        if learner is not None and learner != mixture.learner:
            require_choice("learner", learner, tuple(LEARNERS))
            mixture = self._first(replace(mixture, learner=learner), "learner", learner)
        if normal is not None and normal != mixture.normal:
            mixture = self._first(replace(mixture, normal=normal), "normal", normal, "learner")
        if change is not None:
            changes = self._changes(mixture)
            mixture = changes[require_choice("change", change, tuple(changes))]
        given = {"method": method, "kind": kind, "seed": seed}
        choice = replace(self._choice, mixture=mixture, **{k: v for k, v in given.items() if v is not None})
        if method is None and choice.method not in self.table.methods(mixture):
            choice = replace(choice, method="buffer")
        self._row(choice)  # whatever is wrong fails before anything is changed
        self._choice = choice
        return self.draw()

    def draw(self) -> str:
        """Look the chosen network up, show it, and return the panel's text."""
        return self._report("looked up and drawn", time.perf_counter())

    def verify(self) -> str:
        """Train and explain a small learner of the chosen kind; show both, return the panel's text."""
        started = time.perf_counter()
        with self._busy("training a small learner of this kind, then explaining it ..."):
            with tempfile.TemporaryDirectory() as folder, computing_on(self.device):
                network = small_network(self._choice.mixture, self._choice.seed, Path(folder))
                self._truths[self._choice.mixture, self._choice.seed] = order_of(network)
        return self._report("trained and explained", started)

    @property
    def text(self) -> str:
        """The panel in words, with rounded numbers: the same facts as the plots."""
        here = self._here()
        return "\n".join(self._lines() + ([] if here is None else [self._small_line(here)]))

    # What is known -------------------------------------------------------------------------------------------------

    def _first(self, wanted: Mixture, field: str, value: object, *more: str) -> Mixture:
        """Return the first mixture with that value, as it is."""
        found = self.table.like(wanted, field, *more)
        held = sorted({getattr(m, field) for m in self.table.like(wanted, *more)})
        require_choice(field, value, tuple(held))
        return found[0]

    def _changes(self, mixture: Mixture) -> dict[str, Mixture]:
        """Return what was done to learners on as many tasks, in words."""
        return {_change(m): m for m in self.table.like(mixture, "learner", "normal")}

    def _row(self, choice: Choice, method: str | None = None) -> pandas.Series:
        return self.table.row(choice.mixture, choice.kind, method or choice.method, choice.seed)

    def _here(self) -> pandas.Series | None:
        choice = self._choice
        frame = self._truths.get((choice.mixture, choice.seed))
        if frame is None:
            return None
        return frame[(frame["kind"] == choice.kind) & (frame["method"] == choice.method)].iloc[0]

    def _lines(self) -> list[str]:
        choice, row, mixture = self._choice, self._row(self._choice), self._choice.mixture
        tests = int(row["tests"])
        rows = self.table.rows(mixture, choice.kind, choice.method)
        shares = rows["mean_count"] / rows["tests"]
        controls = [f"{name} {int(self._row(choice, name)['mean_count'])}" for name in CONTROLS]
        return [
            f"{LEARNERS[mixture.learner]}, {_tasks(mixture)}, {_change(mixture)}: {int(row['parameters']):,} "
            f"parameters, seed {choice.seed}",
            f"accuracy {row['accuracy_normal']:.2f} on normal training tasks, {row['accuracy_noise']:.2f} on noise "
            f"tasks, {row['accuracy_unseen']:.2f} on unseen tasks",
            f"{choice.method}, {choice.kind} tests: {int(row['mean_count'])} of {tests} in proper order by the mean "
            f"({_p_value(row['mean_p'])}), {int(row['median_count'])} by the median",
            f"over {len(rows)} networks: {shares.mean():.2f} of the tests, from {shares.min():.2f} to "
            f"{shares.max():.2f}",
            f"controls, by the mean: {', '.join(controls)}",
        ]

    @staticmethod
    def _small_line(row: pandas.Series) -> str:
        return (
            f"trained here, {int(row['normal'])} normal and {int(row['noise'])} noise tasks of glyphs: accuracy "
            f"{row['accuracy_normal']:.2f} normal, {row['accuracy_noise']:.2f} noise, {row['accuracy_unseen']:.2f} "
            f"unseen; {int(row['mean_count'])} of {int(row['tests'])} in proper order"
        )

    def _points(self) -> list[NetworkPoint]:
        points = []
        for mixture in self.table.like(self._choice.mixture, "learner"):
            if self._choice.method not in self.table.methods(mixture):
                continue
            rows = self.table.rows(mixture, self._choice.kind, self._choice.method)
            share = float((rows["mean_count"] / rows["tests"]).mean())
            series = 1 if mixture.copies > 1 else 2 if mixture.weight_decay else 0
            name, chosen = f"{_tasks(mixture)}, {_change(mixture)}", mixture == self._choice.mixture
            points.append(NetworkPoint(name, float(rows["accuracy_unseen"].mean()), share, series, chosen))
        return points

    # What is shown -------------------------------------------------------------------------------------------------

    def _show(self) -> None:
        c, here = self.controls, self._here()
        tenths = [float(self._row(self._choice)[name]) for name in TENTHS]
        c.ranking.value = tenths_plot(tenths, None if here is None else [float(here[name]) for name in TENTHS])
        c.accuracy.value = accuracy_plot(self._points())
        c.numbers.value = lines_html(self._lines(), 1.45)
        c.truth.value = message("" if here is None else f"{self._small_line(here)}.")

    # Widgets: they only forward ------------------------------------------------------------------------------------

    def _actions(self) -> dict[Widget, Action]:
        c = self.controls
        named = {c.learner: "learner", c.normal: "normal", c.change: "change", c.method: "method", c.kind: "kind"}
        return {**named, c.seed: "seed"}

    def _set_widgets(self) -> None:
        c, choice = self.controls, self._choice
        tasks = {_tasks(m): m.normal for m in self.table.like(choice.mixture, "learner")}
        for widget, options in (
            (c.normal, tuple(tasks.items())),
            (c.change, tuple(self._changes(choice.mixture))),
            (c.method, self.table.methods(choice.mixture)),
        ):
            if tuple(widget.options) != options:
                widget.options = options
        c.learner.value, c.normal.value, c.change.value = (
            choice.mixture.learner,
            choice.mixture.normal,
            _change(choice.mixture),
        )
        c.method.value, c.kind.value, c.seed.value = choice.method, choice.kind, choice.seed


def _tasks(mixture: Mixture) -> str:
    return f"{mixture.normal} normal, {mixture.noise} noise"


def _change(mixture: Mixture) -> str:
    parts = [f"{mixture.copies} turned copies"] if mixture.copies > 1 else []
    parts += [f"weight decay {mixture.weight_decay:g}"] if mixture.weight_decay else []
    return ", ".join(parts) or "as it is"


def _p_value(p: float) -> str:
    return "p below 0.001" if p < 1e-3 else f"p = {p:.3f}"
