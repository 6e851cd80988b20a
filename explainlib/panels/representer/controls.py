"""The widgets of the representer panel and where they stand."""

from __future__ import annotations

from collections.abc import Mapping

import ipywidgets as widgets

from explainlib.panels.controls import Controls


class RepresenterControls(Controls):
    """The representer panel: choosers for kernel and importance, bars, a deletion curve, and the axioms' lights.

    Args:
        tests: how many test examples there are.
        kernels: by the words shown, the kernels.
        importances: by the words shown, the importances.
        signs: by the words shown, from which end examples are deleted.
        most: the most examples that may be deleted.
        k: the first value of the slider.
    """

    def __init__(
        self,
        *,
        tests: int,
        kernels: Mapping[str, str],
        importances: Mapping[str, str],
        signs: Mapping[str, str],
        most: int,
        k: int,
    ) -> None:
        super().__init__(tests=tests, how=dict(signs), classes=(), most=most, k=k)
        wide = {"style": {"description_width": "90px"}, "layout": widgets.Layout(width="264px")}
        self.kernel = widgets.Dropdown(options=dict(kernels), description="local: kernel", **wide)
        self.importance = widgets.Dropdown(options=dict(importances), description="global: \u03b1", **wide)
        self.how.description, self.how.layout.width = "delete the", "264px"
        self.how.style.description_width = "90px"
        self.slider.style.description_width = "90px"
        self.slider.layout.width = "400px"
        self.progress = widgets.IntProgress(min=0, max=1, layout=widgets.Layout(width="150px", visibility="hidden"))
        self.progress.add_class("xl-progress")
        self.bars, self.curve, self.lights = (widgets.HTML() for _ in range(3))
        for shown, name in ((self.bars, "xl-bars"), (self.curve, "xl-curve"), (self.lights, "xl-axioms")):
            shown.add_class(name)
        self.truth.layout = widgets.Layout(width="404px", min_height="50px")
        self.example.layout = widgets.Layout(width="130px", height="138px", flex="0 0 auto")
        self.bars.layout = widgets.Layout(width="546px", height="424px", flex="0 0 auto")
        self.curve.layout = widgets.Layout(width="396px", height="338px", flex="0 0 auto")
        self.lights.layout = widgets.Layout(width="396px", height="270px", flex="0 0 auto")
        self.prediction.layout = widgets.Layout(width="404px", min_height="64px")
        buttons = widgets.HBox([self.retrain, self.reset, self.progress])
        factors = widgets.VBox([self.test, self.kernel, self.importance, self.how])
        top = widgets.HBox([self.example, factors])
        left = widgets.VBox([top, self.slider, buttons, self.prediction, self.truth])
        left.layout = widgets.Layout(width="410px", flex="0 0 auto")
        plots, details = widgets.HBox([left, self.curve]), widgets.HBox([self.bars, self.lights])
        self.root = self._root([plots, self.message, details], "xl-representer-panel", "860px")
