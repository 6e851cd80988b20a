"""The widgets of the panel on harmful tasks and where they stand."""

from __future__ import annotations

from collections.abc import Sequence

import ipywidgets as widgets

from explainlib.panels.controls import SEEDS, Controls
from explainlib.panels.number_box import NumberBox


class HarmfulControls(Controls):
    """The panel on harmful tasks: what is flipped, by what the tasks are ranked, and how many are inspected.

    Args:
        methods: names of the rankings.
        most: the most tasks that may be inspected.
        k: the first value of the slider.
        tasks: the percents of tasks that are offered, in steps of five.
        labels: the same of labels.
    """

    def __init__(
        self, *, methods: Sequence[str], most: int, k: int, tasks: Sequence[int], labels: Sequence[int]
    ) -> None:
        super().__init__(tests=1, how={name: name for name in methods}, classes=(), most=most, k=k)
        wide = {"style": {"description_width": "107px"}, "layout": widgets.Layout(width="390px")}
        options = {"continuous_update": False, "readout_format": "d", "step": 5, **wide}
        self.flipped, self.labels = (
            widgets.IntSlider(min=offered[0], max=offered[-1], value=offered[0], description=name, **options)
            for offered, name in ((tasks, "% of the tasks"), (labels, "% of labels"))
        )
        self.seed = NumberBox("seed", SEEDS, counts=False)
        self.how.description, self.how.layout.width = "rank by", "280px"
        self.slider.description, self.slider.continuous_update = "inspect", False
        self.how.style.description_width = self.slider.style.description_width = "107px"
        self.slider.layout.width = "390px"
        self.flipped.add_class("xl-flipped")
        self.labels.add_class("xl-labels")
        self.curve, self.suspects, self.table = (widgets.HTML() for _ in range(3))
        for shown, name in ((self.curve, "xl-curve"), (self.suspects, "xl-suspects"), (self.table, "xl-outcomes")):
            shown.add_class(name)
        self.curve.layout = widgets.Layout(width="406px", height="300px", flex="0 0 auto")
        self.suspects.layout = widgets.Layout(width="406px", min_height="300px", flex="0 0 auto")
        self.prediction.layout = widgets.Layout(width="396px", min_height="92px")
        self.table.layout = widgets.Layout(width="396px", min_height="126px")
        self.truth.layout = widgets.Layout(width="396px", min_height="34px")
        title = widgets.HTML("<b>flip labels in</b>")
        chosen = [title, self.flipped, self.labels, self.seed, self.how, self.slider]
        buttons = widgets.HBox([self.retrain, self.reset])
        left = widgets.VBox([*chosen, buttons, self.prediction, self.table, self.truth])
        left.layout = widgets.Layout(width="402px", flex="0 0 auto")
        right = widgets.VBox([self.curve, self.suspects])
        self.root = self._root([widgets.HBox([left, right]), self.message], "xl-harmful-panel", "660px")
