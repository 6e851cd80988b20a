"""The widgets of the task panel and where they stand."""

from __future__ import annotations

from collections.abc import Sequence

import ipywidgets as widgets

from explainlib.panels.controls import PositionControls

HOW = {"most helpful": "helpful", "most harmful": "harmful", "a whole script": "script", "by hand": "hand"}


class TaskControls(PositionControls):
    """The task panel: a slider for pruning, the ranked training tasks, and two plots.

    Args:
        tests: how many test tasks there are.
        scripts: their names; none hides that choice.
        most: the most training tasks that may leave.
        k: the first value of the slider.
        keeps: the words on the pruning slider.
        keep: its first value.
    """

    _by_name, _thing = "script", "task"

    def __init__(
        self, *, tests: int, scripts: Sequence[str], most: int, k: int, keeps: Sequence[str], keep: str
    ) -> None:
        how = HOW if scripts else {word: value for word, value in HOW.items() if value != "script"}
        super().__init__(tests=tests, how=how, classes=scripts, most=most, k=k, line_width="250px")
        self.how.layout.width = "250px"
        self.class_name.layout.width = "170px"
        self.slider.layout.width = "390px"
        self.keep = widgets.SelectionSlider(
            options=list(keeps), value=keep, description="keep", layout=widgets.Layout(width="390px")
        )
        self.keep.add_class("xl-keep")
        self.helpful, self.harmful, self.ranks, self.scatter = (widgets.HTML() for _ in range(4))
        for shown, name in ((self.ranks, "xl-ranks"), (self.scatter, "xl-scatter")):
            shown.add_class(name)
            shown.layout = widgets.Layout(width="404px", height="310px", flex="0 0 auto")
        for shown in (self.helpful, self.harmful):
            shown.add_class("xl-ranked")
            shown.layout = widgets.Layout(width="404px", min_height="318px", flex="0 0 auto")
        self.prediction.layout.min_height = "80px"
        buttons = widgets.HBox([self.retrain, self.reset])
        removal = widgets.HBox([self.how, self.class_name, self.hand])
        rows = [widgets.HBox([self.test, removal]), widgets.HBox([self.keep, self.slider]), buttons, self.prediction]
        top = widgets.HBox([self.example, widgets.VBox(rows)])
        middle, bottom = widgets.HBox([self.ranks, self.scatter]), widgets.HBox([self.helpful, self.harmful])
        self.root = self._root([top, self.truth, self.message, middle, bottom, self.leaving], "xl-task-panel", "940px")
