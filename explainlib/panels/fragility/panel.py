"""The panel on fragility: walk through a thousand networks that were trained, explained and retrained beforehand.

Every point was computed by the study and is only looked up. Retrain trains the chosen network again, here and now, and
retrains it without each of the forty examples, so that nobody has to take the stored points on trust.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from ipywidgets import Widget

from explainlib.checks import require_choice
from explainlib.compute import chosen_device
from explainlib.figures.fragility import fragility_view
from explainlib.figures.picture import alt_text, png
from explainlib.panels.fragility.controls import SWEEPS, FragilityControls
from explainlib.panels.html import lines_html, message, picture_html
from explainlib.panels.interactive import Action, InteractivePanel
from explainlib.studies.fragility import NetworkResult, Truths, read_truths
from explainlib.studies.place import computing_on

WORDS = {"highest_loss": "examples of highest loss", "most_influential": "most influential examples"}


@dataclass(frozen=True)
class Choice:
    """Which network, and which examples leave it."""

    sweep: str
    size: int
    kind: str
    protocol: str
    seed: int


class Fragility(InteractivePanel):
    """A panel on the fragility study: depth, width, training, seed and protocol, and what each does to one correlation.

    Args:
        truths: of the study, from ``read_truths``; None reads the tables inside the package.
        device: of the networks that are trained here: "auto" (a GPU if there is one, else the CPU), "cpu", "cuda", or
            "cuda:1".

    Raises:
        FileNotFoundError: no tables.
        TypeError: something else than ``Truths``.
        ValueError: a device that is unknown or not there.
    """

    def __init__(self, truths: Truths | None = None, *, device: str = "auto") -> None:
        self.device = chosen_device(device)
        if truths is not None and not isinstance(truths, Truths):
            raise TypeError(f"truths is a {type(truths).__name__}; pass read_truths(folder), or nothing.")
        self.truths = read_truths() if truths is None else truths
        kinds = self.truths.kinds
        first = "L2" if "L2" in kinds else kinds[0]
        self._start = Choice("depth", self.truths.sizes("depth")[0], first, "highest_loss", self.truths.seeds[0])
        self._choice = self._start
        self._truths: dict[Choice, NetworkResult] = {}
        self.controls = FragilityControls(sizes=self.truths.sizes("depth"), kinds=kinds, seeds=self.truths.seeds)
        self._connect()
        self.draw()

    def set(
        self,
        *,
        sweep: str | None = None,
        size: int | None = None,
        kind: str | None = None,
        protocol: str | None = None,
        seed: int | None = None,
    ) -> str:
        """Change the choice, redraw, and return the panel's text.

        Args:
            sweep: what grows, "depth" or "width"; without a size it starts at the least.
            size: hidden layers, or the width of the hidden layer.
            kind: "plain", "SWA", "L2", "L2 + SWA" or "Bayesian".
            protocol: which forty examples are removed one by one, "highest_loss" or "most_influential".
            seed: of the network.

        Raises:
            ValueError: a sweep, size, kind, protocol or seed that the study does not hold; nothing is changed then.
        """
        choice = self._choice
        if sweep is not None and require_choice("sweep", sweep, tuple(SWEEPS.values())) != choice.sweep:
            choice = replace(choice, sweep=sweep, size=self.truths.sizes(sweep)[0])
        given = {"size": size, "kind": kind, "protocol": protocol, "seed": seed}
        choice = replace(choice, **{name: value for name, value in given.items() if value is not None})
        self._network(choice)  # whatever is wrong fails before anything is changed
        self._choice = choice
        return self.draw()

    def draw(self) -> str:
        """Look the chosen network up, show it, and return the panel's text."""
        started = time.perf_counter()
        return self._report("looked up and drawn", started)

    def verify(self) -> str:
        """Train the chosen network again and retrain it without each example; show both, return the panel's text."""
        started = time.perf_counter()
        with self._busy("training this network again, then without each of the removed examples ..."):
            with computing_on(self.device):
                self._truths[self._choice] = self.truths.retrain(*self._key(self._choice))
        return self._report("trained, explained and retrained", started)

    @property
    def text(self) -> str:
        """The panel in words, with rounded numbers: the same facts as the picture."""
        again = self._truths.get(self._choice)
        return "\n".join(self._lines() + ([] if again is None else [self._message(again)]))

    # What is known -------------------------------------------------------------------------------------------------

    def _key(self, choice: Choice) -> tuple[str, int, int, int, str]:
        depth, width = self.truths.shape(choice.sweep, choice.size)
        return choice.kind, depth, width, choice.seed, choice.protocol

    def _network(self, choice: Choice) -> NetworkResult:
        return self.truths.network(*self._key(choice))

    def _lines(self) -> list[str]:
        choice, network = self._choice, self._network(self._choice)
        line = self.truths.line(choice.sweep, choice.kind, choice.protocol).set_index("size").loc[choice.size]
        compared, all_of = int(line["repeats"] - line["collapsed"]), int(line["repeats"])
        known = line["low"] == line["low"]
        ends = f"[{line['low']:.2f}, {line['high']:.2f}]" if known else "[no interval]"
        mean = f"mean Spearman {line['spearman']:.2f} {ends}"
        removed = f"the {self.truths.training.removed} {WORDS[choice.protocol]}"
        lines = [
            f"{choice.kind}, {choice.sweep} {choice.size}, {removed} removed one by one",
            f"{mean if compared else 'nothing to compare'} over {compared} of {all_of} networks; "
            f"{int(line['collapsed'])} collapsed to one class",
        ]
        if network.collapsed:
            return [*lines, f"network of seed {choice.seed}: {network.status}"]
        said = network.agreement
        top = float(network.eigenvalues[0])
        return [
            *lines,
            f"network of seed {choice.seed}: Spearman {said.spearman:.2f}, Pearson {said.pearson:.2f}, slope "
            f"{said.slope:.2f}, R2 {said.r2:.2f}; largest eigenvalue {top:.3g}",
            f"in words: {said.verdict}",
        ]

    @staticmethod
    def _message(again: NetworkResult) -> str:
        if again.collapsed:
            return f"trained again: {again.status}"
        said = again.agreement
        return f"trained again: Spearman {said.spearman:.2f}, slope {said.slope:.2f}, R2 {said.r2:.2f}"

    # What is shown -------------------------------------------------------------------------------------------------

    def _show(self) -> None:
        c, choice = self.controls, self._choice
        again = self._truths.get(choice)
        picture = fragility_view(
            self.truths, choice.sweep, choice.size, choice.kind, choice.protocol, self._network(choice), again
        )
        c.view.value = picture_html(png(picture, dpi=90), alt_text(picture), width=960)
        c.numbers.value = lines_html(self._lines(), 1.45)
        c.truth.value = message("" if again is None else f"{self._message(again)}.")

    # Widgets: they only forward ------------------------------------------------------------------------------------

    def _actions(self) -> dict[Widget, Action]:
        c = self.controls
        return {c.grows: "sweep", c.size: "size", c.kind: "kind", c.protocol: "protocol", c.seed: "seed"}

    def _set_widgets(self) -> None:
        c, choice = self.controls, self._choice
        c.grows.value, c.kind.value, c.protocol.value = choice.sweep, choice.kind, choice.protocol
        sizes = tuple(self.truths.sizes(choice.sweep))
        if tuple(c.size.options) != sizes:
            c.size.options = sizes
        c.size.value, c.seed.value = choice.size, choice.seed
