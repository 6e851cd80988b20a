"""The widgets of the fragility panel and where they stand."""

from __future__ import annotations

from collections.abc import Sequence

import ipywidgets as widgets

from explainlib.panels.frame import framed

PROTOCOLS = {"those of highest loss": "highest_loss", "the most influential": "most_influential"}
SWEEPS = {"depth (width 5)": "depth", "width (one layer)": "width"}


class FragilityControls:
    """What is chosen of the study, and what is shown of it.

    Args:
        sizes: of the first sweep.
        kinds: ways of training.
        seeds: whose points are there.
    """

    def __init__(self, *, sizes: Sequence[int], kinds: Sequence[str], seeds: Sequence[int]) -> None:
        narrow = {"style": {"description_width": "62px"}, "layout": widgets.Layout(width="235px")}
        self.grows = widgets.Dropdown(options=SWEEPS, description="vary", **narrow)
        self.kind = widgets.Dropdown(options=list(kinds), description="training", **narrow)
        self.protocol = widgets.Dropdown(options=PROTOCOLS, description="remove", **narrow)
        slider = {"style": {"description_width": "62px"}, "layout": widgets.Layout(width="330px")}
        self.size = widgets.SelectionSlider(options=list(sizes), description="size", continuous_update=False, **slider)
        self.seed = widgets.SelectionSlider(options=list(seeds), description="seed", continuous_update=False, **slider)
        self.retrain = widgets.Button(
            description="Retrain", button_style="primary", tooltip="Train this network again, and retrain without each"
        )
        self.reset = widgets.Button(description="Reset", tooltip="Back to the first choice")
        self.view, self.numbers, self.truth, self.message = (widgets.HTML() for _ in range(4))
        for shown, name in (
            (self.size, "xl-size"), (self.kind, "xl-kind"), (self.view, "xl-view"), (self.numbers, "xl-numbers"),
            (self.truth, "xl-truth"),
        ):  # fmt: skip
            shown.add_class(name)
        self.view.layout = widgets.Layout(width="966px", height="330px")
        self.numbers.layout = widgets.Layout(width="966px", height="96px")
        self.truth.layout = widgets.Layout(height="30px")
        choosers = widgets.HBox([self.grows, self.kind, self.protocol])
        sliders = widgets.HBox([self.size, self.seed, self.retrain, self.reset])
        rows = [choosers, sliders, self.view, self.numbers, self.truth, self.message]
        self.root = framed(rows, "xl-fragility-panel", "580px")
