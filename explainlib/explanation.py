"""Explanations: one number for each test and training example, with quantity, unit and sign.

Which sign is helpful depends on the method and is stored here; ``top`` is always the most helpful.
"""

from __future__ import annotations

import pandas
import torch
from jaxtyping import Float, Int
from torch import Tensor

from explainlib import compute
from explainlib.checks import require_choice, require_count, require_table
from explainlib.datasets import Examples
from explainlib.figures import Picture, class_name, draw_example, literal, set_alt, style
from explainlib.figures.html import example_html, html_literal
from explainlib.influence import choose_method, loss_influence
from explainlib.losses import LossFunction
from explainlib.memory import alternatives
from explainlib.risk import Risk, minimum_tolerance
from explainlib.solvers.dense import Keep
from explainlib.solvers.inverse import Curvature, Solver

SHOWN_TESTS = 3
SHOWN_EXAMPLES = 4


class Explanation:
    """Values of training examples for test examples.

    Attributes:
        values: [t, n], in ``unit``.
        train: the n training examples.
        test: the t test examples.
        quantity: what a value is, such as "loss influence".
        unit: of a value, such as "test loss per unit of weight".
        helpful: "negative" or "positive", the sign of a training example that helps.
        status: remarks on the computation; "" if none.
    """

    def __init__(
        self,
        values: Float[Tensor, "t n"],
        train: Examples,
        test: Examples,
        *,
        quantity: str,
        unit: str,
        helpful: str = "negative",
        status: str = "",
    ) -> None:
        """Return the explanation.

        Raises:
            TypeError: values that are not a tensor.
            ValueError: values that are not [len(test), len(train)] or not finite, or an unknown sign.
        """
        require_table("values", values)
        if values.shape != (len(test), len(train)):
            raise ValueError(
                f"values has shape {list(values.shape)}, expected [{len(test)}, {len(train)}] for {len(test)} test and "
                f"{len(train)} training examples; tables are [test, train], so a transposed one needs .T."
            )
        self.helpful = require_choice("helpful", helpful, ("negative", "positive"))
        self.values, self.train, self.test = values.detach(), train, test
        self.quantity, self.unit, self.status = quantity, unit, status

    def top(self, k: int) -> Int[Tensor, "t k"]:
        """Return the k most helpful training examples of each test example, the most helpful first.

        Raises:
            ValueError: k below 1 or above the number of training examples.
        """
        return self._order()[:, : self._checked(k)]

    def bottom(self, k: int) -> Int[Tensor, "t k"]:
        """Return the k most harmful training examples of each test example, the most harmful first.

        Raises:
            ValueError: k below 1 or above the number of training examples.
        """
        return self._order().flip(1)[:, : self._checked(k)]

    def frame(self) -> pandas.DataFrame:
        """Return one row for each pair: test, train, value, rank (0 is the most helpful), test class, train class."""
        t, n = self.values.shape
        rank = self._order().argsort(dim=1)
        test, train = torch.arange(t).repeat_interleave(n).numpy(), torch.arange(n).repeat(t).numpy()
        test_class, train_class = (
            pandas.Categorical([class_name(part, i) for i in range(len(part))]) for part in (self.test, self.train)
        )
        return pandas.DataFrame(
            {
                "test": test,
                "train": train,
                "value": self.values.flatten().cpu().numpy(),
                "rank": rank.flatten().cpu().numpy(),
                "test class": test_class[test],
                "train class": train_class[train],
            }
        )

    def plot(self, test: int = 0, k: int = 5) -> Picture:
        """Return a picture of the test example with its k most helpful and, below, its k most harmful examples.

        Args:
            test: which test example.
            k: how many on either side.

        Raises:
            ValueError: test outside the test examples, k below 1 or above the number of training examples.
        """
        self._checked_test(test)
        sides = [("most helpful", self.top(k)[test].tolist()), ("most harmful", self.bottom(k)[test].tolist())]
        with style():
            picture = Picture(1.3 * (k + 1) + 0.6, 3.8)
            grid = picture.subplots(2, k + 2, width_ratios=[1.0, 0.25] + [1.0] * k)  # the narrow column holds names
            picture.subplots_adjust(left=0.01, right=0.99, bottom=0.02, top=0.8, hspace=0.5, wspace=0.12)
            said = literal(f"{self.quantity} ({self.unit}); {self.helpful} helps")
            picture.suptitle(said, x=0.01, ha="left", fontsize=11)
            draw_example(grid[0, 0], self.test, test, title=f"test #{test}\n{class_name(self.test, test)}")
            for ax in (grid[1, 0], grid[0, 1], grid[1, 1]):
                ax.set_axis_off()
            for row, (name, chosen) in zip(grid, sides, strict=True):
                row[1].text(0.7, 0.5, name, rotation=90, ha="center", va="center", fontsize=11)
                for ax, i in zip(row[2:], chosen, strict=True):
                    value = f"{float(self.values[test, i]):+.3g}"
                    draw_example(ax, self.train, i, title=f"#{i}: {class_name(self.train, i)}\n{value}")
        set_alt(picture, self._describe(test, sides))
        return picture

    def __repr__(self) -> str:
        """Return quantity, unit, sign and size in one line, then the status if there is one."""
        t, n = self.values.shape
        line = f"Explanation: {self.quantity} of {n} training examples on {t} test examples, in {self.unit}; "
        return line + f"{self.helpful} helps" + (f"\nstatus: {self.status}" if self.status else "")

    def _repr_html_(self) -> str:
        k = min(SHOWN_EXAMPLES, self.values.shape[1])
        top, bottom = self.top(k).tolist(), self.bottom(k).tolist()
        rows = [self._html_row(test, top[test], bottom[test]) for test in range(min(SHOWN_TESTS, len(self.test)))]
        more = len(self.test) - len(rows)
        tail = f"<p>and {more} more test examples: see .plot(test=...) and .frame()</p>" if more else ""
        said = html_literal(repr(self)).replace("\n", "<br>")
        head = "".join(f"<th style='text-align:left'>{name}</th>" for name in ("test", "most helpful", "most harmful"))
        return f"<p>{said}</p><table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>{tail}"

    def _html_row(self, test: int, top: list[int], bottom: list[int]) -> str:
        def cells(chosen: list[int]) -> str:
            return "".join(
                example_html(self.train, i, captions=(f"#{i}: {class_name(self.train, i)}", f"{value:+.3g}"))
                for i, value in zip(chosen, self.values[test, chosen].tolist(), strict=True)
            )

        shown = example_html(self.test, test, captions=(f"#{test}: {class_name(self.test, test)}",))
        return "".join(["<tr>", *(f"<td>{part}</td>" for part in (shown, cells(top), cells(bottom))), "</tr>"])

    def _order(self) -> Int[Tensor, "t n"]:
        """Return the training examples from the most helpful to the most harmful; ties keep their order."""
        return self.values.argsort(dim=1, descending=self.helpful == "positive", stable=True)

    def _checked(self, k: int) -> int:
        if require_count("k", k) > self.values.shape[1]:
            raise ValueError(f"k={k} is more than the {self.values.shape[1]} training examples; pass a smaller k.")
        return k

    def _checked_test(self, test: int) -> int:
        if not 0 <= test < len(self.test):
            raise ValueError(f"test={test} is outside the {len(self.test)} test examples (0 to {len(self.test) - 1}).")
        return test

    def _describe(self, test: int, sides: list[tuple[str, list[int]]]) -> str:
        def listed(chosen: list[int]) -> str:
            return ", ".join(f"#{i} ({class_name(self.train, i)}, {float(self.values[test, i]):+.3g})" for i in chosen)

        parts = "; ".join(f"{name}: {listed(chosen)}" for name, chosen in sides)
        return f"{self.quantity} on test example {test} ({class_name(self.test, test)}), in {self.unit}. {parts}."


@alternatives(
    "pass solver='cg' (no p x p matrix), curvature='ekfac' (no gradients of the training set either), or a "
    "Risk(..., parameters='last')"
)
@compute.entry
def explain(
    risk: Risk,
    test: Examples,
    *,
    method: str = "auto",
    measure: str | LossFunction = "loss",
    output: int | None = None,
    curvature: Curvature | None = None,
    solver: str | Solver | None = None,
    damping: float = 0.0,
    keep: Keep = None,
) -> Explanation:
    """Return the explanation of each test example's loss, or of another measure of it, by each training example.

    Args:
        risk: at a minimum (a warning otherwise, kept in ``status``).
        test: t examples the risk can judge.
        method: "influence" is ``xl.influence.loss_influence`` with its own curvature and solver; "auto" is the same
            with those that fit the size of the problem, and says in ``status`` which and why.
        measure: of a test example: "loss", "output", "margin" or a callable, as in ``loss_influence``.
        output: for "output": which one, as in ``loss_influence``.
        curvature: see ``loss_influence``, like the other options; None leaves it to the method. Chosen, it is taken.
        solver: see ``loss_influence``; None likewise.
        damping: see ``loss_influence``.
        keep: see ``loss_influence``.

    Returns:
        Explanation; negative values help where the loss is explained: more weight on that example lowers it. Of any
        other measure positive values help: they raise it.
    """
    require_choice("method", method, ("auto", "influence"), later=("representers", "tracin"))
    why = ""
    if method == "auto" and curvature is None and solver is None and keep is None:
        curvature, solver, why = choose_method(risk)
    curvature, solver = curvature or "hessian", solver or "dense"
    options = {"curvature": curvature, "solver": solver, "damping": damping, "keep": keep}
    values = loss_influence(risk, test, measure=measure, output=output, **options)
    size = float(risk.gradient().norm())
    goal = minimum_tolerance(risk)
    status = f"at a minimum, |gradient| below {goal:.0e}"  # the digits of a gradient at rounding level mean nothing
    if size > goal:
        status = f"not at a minimum, |gradient| = {size:.1e}: read as a rough ranking"
    status = f"{status}; {why}" if why else status
    return Explanation(
        values,
        risk.train,
        test,
        status=status,
        **_quantity(measure, output),
    )


def _quantity(measure: str | LossFunction, output: int | None) -> dict[str, str]:
    """Return quantity, unit and helpful sign of the influence on a measure."""
    if measure == "loss":
        return {"quantity": "loss influence", "unit": "test loss per unit of weight", "helpful": "negative"}
    names = {"output": "the label's output" if output is None else f"output {output}", "margin": "the label's log-odds"}
    name = getattr(measure, "__name__", "a measure") if callable(measure) else names[measure]
    return {"quantity": f"influence on {name}", "unit": "the measure per unit of weight", "helpful": "positive"}
