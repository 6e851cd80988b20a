"""The widgets of the panel of distributions and where they stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import ipywidgets as widgets

from explainlib.panels.frame import framed

KINDS = {"unseen tasks": "unseen", "training tasks": "training"}
LEARNERS = {"maml": "MAML", "protonet": "Prototypical Network"}


class DistributionControls:
    """What a learner was trained on, and what is asked about it.

    Args:
        learners: that there are, by the words shown.
        seeds: of the networks.
    """

    def __init__(self, *, learners: Mapping[str, str], seeds: Sequence[int]) -> None:
        def chooser(name: str, options: Mapping[str, object] | Sequence, width: str) -> widgets.Dropdown:
            style, layout = {"description_width": "62px"}, widgets.Layout(width=width)
            return widgets.Dropdown(options=options, description=name, style=style, layout=layout)

        self.learner = chooser("learner", learners, "250px")
        self.normal = chooser("tasks", [], "250px")
        self.change = chooser("change", [], "250px")
        self.method = chooser("scores", [], "250px")
        self.kind = chooser("tests", KINDS, "250px")
        self.seed = chooser("seed", list(seeds), "140px")
        self.retrain = widgets.Button(
            description="Train here", button_style="primary", tooltip="Train and explain a small learner of this kind"
        )
        self.reset = widgets.Button(description="Reset", tooltip="Back to the first choice")
        self.ranking, self.accuracy, self.numbers, self.truth, self.message = (widgets.HTML() for _ in range(5))
        for shown, name in (
            (self.ranking, "xl-ranking"), (self.accuracy, "xl-accuracy"), (self.numbers, "xl-numbers"),
            (self.truth, "xl-truth"),
        ):  # fmt: skip
            shown.add_class(name)
        for plot in (self.ranking, self.accuracy):
            plot.layout = widgets.Layout(width="444px", height="300px", flex="0 0 auto")
        wraps = widgets.Layout(flex_flow="row wrap")
        choosers = widgets.Box([self.learner, self.normal, self.change], layout=wraps)
        questions = widgets.Box([self.method, self.kind, self.seed, self.retrain, self.reset], layout=wraps)
        plots = widgets.Box([self.ranking, self.accuracy], layout=wraps)
        rows = [choosers, questions, self.message, plots, self.numbers, self.truth]
        self.root = framed(rows, "xl-distributions-panel", "560px")
