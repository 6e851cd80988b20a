"""The widgets of the panels and where they stand; they know nothing of models or data."""

from __future__ import annotations

from collections.abc import Sequence

import ipywidgets as widgets

from explainlib.panels.frame import framed
from explainlib.panels.number_box import NumberBox

SEEDS = 9999  # the last seed in a box
HOW = {"most harmful": "harmful", "most helpful": "helpful", "a class": "class", "by hand": "hand"}
GROUPS = {
    "at random": "random",
    "of one class": "class",
    "most influential (greedy)": "greedy",
    "selected together (relaxed)": "relaxed",
    "picked by hand": "hand",
}


class Controls:
    """The widgets every panel has; ``root`` holds them all, once a subclass has laid them out.

    Args:
        tests: how many test examples there are to choose from.
        how: by the words shown, what may leave.
        classes: names of the classes.
        most: the most examples that may leave.
        k: the first value of the slider.
    """

    root: widgets.VBox
    _by_name = "class"  # the way of choosing that needs a name
    _thing = "example"  # what is tested

    def __init__(self, *, tests: int, how: dict[str, str], classes: Sequence[str], most: int, k: int) -> None:
        self.test = NumberBox(f"test {self._thing}", tests - 1)
        self.how = widgets.Dropdown(options=how, description="remove", layout=widgets.Layout(width="220px"))
        self.class_name = widgets.Dropdown(options=list(classes), layout=widgets.Layout(width="110px", display="none"))
        self.slider = widgets.IntSlider(
            value=k, min=1, max=most, description="how many", layout=widgets.Layout(width="420px")
        )
        self.retrain = widgets.Button(description="Retrain", button_style="primary", tooltip="Show the truth")
        self.reset = widgets.Button(description="Reset", tooltip="Back to the first choice")
        self.example, self.leaving, self.prediction, self.truth, self.message = (widgets.HTML() for _ in range(5))
        self.slider.add_class("xl-k")
        self.prediction.add_class("xl-prediction")
        self.truth.add_class("xl-truth")

    def chosen(self, positions: Sequence[int]) -> str | Sequence[int]:
        """Return what leaves by the choosers: a way of choosing, the chosen name, or, by hand, ``positions``."""
        if self.how.value == "hand":  # what leaves so far is where picking begins
            return positions
        return self.class_name.value if self.how.value == self._by_name else self.how.value

    def show_removal(self, remove: str, *, named: bool) -> None:
        """Show on the choosers what leaves.

        Args:
            remove: a way of choosing, or a name.
            named: whether it is a name.
        """
        self.how.value = self._by_name if named else remove
        if named:
            self.class_name.value = remove
        self.class_name.layout.display = None if named else "none"

    def _choice(self, *more: widgets.Widget) -> widgets.VBox:
        """Return the rows of choosers, ``more`` after the class."""
        choosers = widgets.HBox([self.test, self.how, self.class_name, *more])
        return widgets.VBox([choosers, self.slider, widgets.HBox([self.retrain, self.reset])])

    @staticmethod
    def _root(rows: Sequence[widgets.Widget], name: str, height: str) -> widgets.VBox:
        return framed(rows, name, height)


class RemovalControls(Controls):
    """The removal panel: thumbnails to pick from, and a picture that grows with each retraining.

    Args:
        tests: as in ``Controls``.
        classes: as in ``Controls``.
        most: as in ``Controls``.
        k: as in ``Controls``.
        candidates: thumbnails to pick by hand.
    """

    def __init__(self, *, tests: int, classes: Sequence[str], most: int, k: int, candidates: int) -> None:
        super().__init__(tests=tests, how=HOW, classes=classes, most=most, k=k)
        self.plot = widgets.HTML(layout=widgets.Layout(width="292px", height="276px", flex="0 0 auto"))
        self.plot.add_class("xl-plot")
        self.picks = [widgets.ToggleButton(layout=widgets.Layout(width="92px")) for _ in range(candidates)]
        self.pick_images = [widgets.HTML() for _ in self.picks]
        pairs = [widgets.VBox([image, pick]) for image, pick in zip(self.pick_images, self.picks, strict=True)]
        self.hand = widgets.Box(pairs, layout=widgets.Layout(flex_flow="row wrap", display="none"))
        self.hand.add_class("xl-hand")
        self.prediction.layout.min_height = "190px"
        self.prediction.layout.width, self.prediction.layout.flex = "512px", "0 0 auto"  # not squeezed by the plot
        choice = widgets.HBox([self.example, self._choice()])
        outcome = widgets.HBox([self.prediction, self.plot])
        rows = [choice, self.hand, self.message, self.truth, outcome, self.leaving]
        self.root = self._root(rows, "xl-removal-panel", "640px")


class PositionControls(Controls):
    """Controls with a line to type positions into, hidden unless something is picked by hand.

    Args:
        tests: as in ``Controls``.
        how: as in ``Controls``.
        classes: as in ``Controls``.
        most: as in ``Controls``.
        k: as in ``Controls``.
        line_width: of the line.
    """

    def __init__(
        self, *, tests: int, how: dict[str, str], classes: Sequence[str], most: int, k: int, line_width: str
    ) -> None:
        super().__init__(tests=tests, how=how, classes=classes, most=most, k=k)
        self.hand = widgets.Text(
            placeholder="positions, such as 3, 17, 40-60",
            continuous_update=False,
            layout=widgets.Layout(width=line_width, display="none"),
        )
        self.hand.add_class("xl-hand")

    def show_positions(self, picked: Sequence[int] | None) -> None:
        """Show the positions on the line; None hides it."""
        self.hand.value = "" if picked is None else ", ".join(map(str, picked))
        self.hand.layout.display = "none" if picked is None else None


class GroupControls(PositionControls):
    """The group panel: a seed, a line to type indices into, a curve, and a light beside the predictions.

    Args:
        tests: as in ``Controls``.
        classes: as in ``Controls``.
        most: as in ``Controls``.
        k: as in ``Controls``.
    """

    def __init__(self, *, tests: int, classes: Sequence[str], most: int, k: int) -> None:
        super().__init__(tests=tests, how=GROUPS, classes=classes, most=most, k=k, line_width="300px")
        self.how.layout.width = "285px"
        self.seed = NumberBox("seed", SEEDS, counts=False)
        self.curve, self.light = widgets.HTML(), widgets.HTML()
        self.curve.add_class("xl-curve")
        self.light.add_class("xl-light")
        self.slider.layout.width = "480px"
        self.curve.layout = widgets.Layout(width="468px", height="322px", flex="0 0 auto")
        self.prediction.layout.min_height = "146px"
        self.light.layout.min_height = "110px"
        right = widgets.VBox([self.prediction, self.light], layout=widgets.Layout(width="338px"))
        choice = widgets.HBox([self.example, self._choice(self.seed, self.hand)])
        rows = [choice, self.message, self.truth, widgets.HBox([self.curve, right]), self.leaving]
        self.root = self._root(rows, "xl-group-panel", "610px")


def positions_in(text: str) -> list[int]:
    """Return the positions a line of text names: numbers and ranges such as "3, 17, 40-60", both ends included.

    Raises:
        ValueError: anything else, or nothing.
    """
    found: list[int] = []
    for part in text.replace(",", " ").split():
        first, dash, last = part.partition("-")
        if not (first.isdecimal() and (last.isdecimal() if dash else True)):
            raise ValueError(f"{part!r} is no position; write numbers and ranges, such as 3, 17, 40-60.")
        if dash and int(last) < int(first):
            raise ValueError(f"the range {part!r} runs backwards; write the smaller number first.")
        if dash and int(last) - int(first) > 1_000_000:
            raise ValueError(f"the range {part!r} is longer than any training set here; write a shorter one.")
        found += range(int(first), int(last if dash else first) + 1)
    if not found:
        raise ValueError("no positions were given; write numbers and ranges, such as 3, 17, 40-60.")
    return found
