"""The widgets of the removal panel and where they stand; they know nothing of models or data."""

from __future__ import annotations

from collections.abc import Sequence

import ipywidgets as widgets

HOW = {"most harmful": "harmful", "most helpful": "helpful", "a class": "class", "by hand": "hand"}


class Controls:
    """Widgets laid out once; ``root`` holds them all.

    Args:
        tests: how many test examples there are to choose from.
        classes: names of the classes.
        most: the most examples that may leave.
        k: the first value of the slider.
        candidates: thumbnails to pick by hand.
    """

    def __init__(self, *, tests: int, classes: Sequence[str], most: int, k: int, candidates: int) -> None:
        self.test = widgets.BoundedIntText(
            value=0,
            min=0,
            max=tests - 1,
            description="test example",
            style={"description_width": "90px"},
            layout=widgets.Layout(width="170px"),
        )
        self.how = widgets.Dropdown(options=HOW, description="remove", layout=widgets.Layout(width="220px"))
        self.class_name = widgets.Dropdown(options=list(classes), layout=widgets.Layout(width="110px", display="none"))
        self.slider = widgets.IntSlider(
            value=k, min=1, max=most, description="how many", layout=widgets.Layout(width="420px")
        )
        self.retrain = widgets.Button(description="Retrain", button_style="primary", tooltip="Show the truth")
        self.reset = widgets.Button(description="Reset", tooltip="Back to the first choice")
        self.example, self.leaving, self.prediction, self.truth, self.message = (widgets.HTML() for _ in range(5))
        self.plot = widgets.Image(format="png", layout=widgets.Layout(width="320px", height="296px"))
        self.picks = [widgets.ToggleButton(layout=widgets.Layout(width="92px")) for _ in range(candidates)]
        self.pick_images = [widgets.HTML() for _ in self.picks]
        pairs = [widgets.VBox([image, pick]) for image, pick in zip(self.pick_images, self.picks, strict=True)]
        self.hand = widgets.Box(pairs, layout=widgets.Layout(flex_flow="row wrap", display="none"))
        self.root = self._laid_out()

    def _laid_out(self) -> widgets.VBox:
        for widget, name in (
            (self.slider, "xl-k"),
            (self.prediction, "xl-prediction"),
            (self.truth, "xl-truth"),
            (self.hand, "xl-hand"),
        ):
            widget.add_class(name)
        self.prediction.layout.min_height = "190px"
        choice = widgets.VBox(
            [
                widgets.HBox([self.test, self.how, self.class_name]),
                self.slider,
                widgets.HBox([self.retrain, self.reset]),
            ]
        )
        left = widgets.VBox([self.prediction, self.truth, self.leaving])
        left.layout = widgets.Layout(width="628px", flex="0 0 auto")  # never squeezed by the plot
        rows = [widgets.HBox([self.example, choice]), self.message, self.hand, widgets.HBox([left, self.plot])]
        root = widgets.VBox(rows, layout=widgets.Layout(min_height="560px"))
        root.add_class("xl-removal-panel")
        return root
