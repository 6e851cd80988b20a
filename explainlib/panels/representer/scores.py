"""What the representer panel knows: kernels, importances, their products and axioms, each worked out when first asked.

The mathematics is the library's; here it is named, put together for one explained output, and kept.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import pandas
import torch
from jaxtyping import Float
from torch import Tensor

from explainlib.checks import require_nonnegative, require_positive
from explainlib.datasets import Examples
from explainlib.losses import Loss, LossFunction
from explainlib.params import Parameters
from explainlib.representers import axioms, representer_scores, surrogate_importance, target_importance
from explainlib.representers import kernel as library_kernel
from explainlib.risk import Risk
from explainlib.training import Trajectory, fit

T = TypeVar("T")
KERNELS = {
    "last_layer": "last layer",
    "ntk_init": "NTK at the start",
    "ntk_middle": "NTK half-way",
    "ntk_final": "NTK at the end",
    "influence": "influence function",
}
IMPORTANCES = {"tracking": "tracking", "target": "target derivative", "surrogate": "surrogate derivative"}
SIGNS = {"negative": "lowest", "positive": "highest"}
MOST_EXAMPLES = 2_000  # two tables [n, n] a kernel and output
SAME = 1e-3  # of the largest output: two trainings with the same numbers agree far better, even in float32


@dataclass(frozen=True)
class RepresenterChoice:
    """What is explained, by which method, and what is deleted."""

    test: int
    kernel: str
    importance: str
    sign: str
    delete: int


class Representers:
    """Representer scores of one training run, for any kernel, importance and output.

    Args:
        trajectory: from ``training.fit(..., record=True)`` with an odd number of checkpoints, at least 3.
        train: the n examples it was trained on.
        test: the t examples to explain.
        loss: that of the training.
        weight_decay: that of the training.
        seed: that of the training.
        damping: added to the Gauss-Newton matrix of the influence kernel, beside the weight decay.
        surrogate_l2: ridge of the surrogate's regression.

    Raises:
        TypeError: something else than a Trajectory.
        ValueError: one without a record, checkpoints or batches, other examples, or more than ``MOST_EXAMPLES``.
    """

    def __init__(
        self,
        trajectory: Trajectory,
        train: Examples,
        test: Examples,
        *,
        loss: str | LossFunction | Loss,
        weight_decay: float | int,
        seed: int,
        damping: float | int,
        surrogate_l2: float | int,
    ) -> None:
        self.trajectory, self.train = _checked(trajectory, train), train
        self.damping = require_positive("damping", float(damping))
        self.surrogate_l2 = require_positive("surrogate_l2", float(surrogate_l2))
        decay = require_nonnegative("weight_decay", float(weight_decay))
        self.risk = Risk(trajectory.model, train, loss=loss, l2=decay)
        self.test = self.risk.require_examples(test, "test")
        size = len(trajectory.batches[0])
        self._training = dict(
            epochs=len(trajectory.losses), loss=loss, lr=float(trajectory.learning_rates[0]), optimizer="sgd",
            weight_decay=decay, seed=seed,
        )  # fmt: skip
        self._batch_size = None if size == len(train) else size
        self._start = Parameters(trajectory.model).model_at(trajectory.checkpoints[0].to(self.risk.theta))
        self._kept: dict[Hashable, object] = {}

    def outputs(self) -> Float[Tensor, "t C"]:
        """Return the trained model's outputs on the tests."""
        return self._cached_call("outputs", lambda: self.risk.outputs(self.test).detach())

    def outputs_before(self) -> Float[Tensor, "t C"]:
        """Return the outputs on the tests before training."""
        start = self.trajectory.checkpoints[0].to(self.risk.theta)
        return self._cached_call("before", lambda: self.risk.at(start).outputs(self.test).detach())

    def kernel(self, name: str, output: int) -> tuple[Float[Tensor, "t n"], Float[Tensor, "n n"]]:
        """Return one output's kernel between tests and training examples, and among the training examples.

        Args:
            name: one of ``KERNELS``.
            output: which output; the last layer's kernel is the same for all.
        """

        def made() -> tuple[Float[Tensor, "t n"], Float[Tensor, "n n"]]:
            options = {"kind": "ntk" if name.startswith("ntk") else name, "output": output}
            if name == "influence":
                options |= {"risk": self.risk, "damping": self.damping}
            model, x = self._model(name), self.train.x
            return tuple(library_kernel(model, left, x, **options).detach() for left in (self.test.x, x))

        return self._cached_call((name, None if name == "last_layer" else output), made)

    def importance(self, name: str, kernel: str, output: int) -> Float[Tensor, "n C"]:
        """Return alpha; a surrogate has that of its kernel, in the column ``output`` alone.

        Args:
            name: one of ``IMPORTANCES``.
            kernel: one of ``KERNELS``, which only the surrogate asks for.
            output: which output.
        """
        if name == "tracking":
            return self.trajectory.importance.to(self.risk.theta)
        if name == "target":
            return self._cached_call("target", lambda: target_importance(self.risk).detach())

        def solved() -> Float[Tensor, "n C"]:
            targets = self.risk.outputs().detach()
            among = self.kernel(kernel, output)[1]
            one = {"loss": "squared_error", "l2": self.surrogate_l2}
            alpha = torch.zeros_like(targets)
            alpha[:, output] = surrogate_importance(among, targets[:, output : output + 1], **one)[:, 0]
            return alpha

        return self._cached_call(("surrogate", kernel, output), solved)

    def scores(self, kernel: str, importance: str, output: int) -> tuple[Float[Tensor, "t n"], Float[Tensor, "n n"]]:
        """Return phi = alpha K of the tests, and among the training examples; positive raises the output.

        Args:
            kernel: one of ``KERNELS``.
            importance: one of ``IMPORTANCES``.
            output: which output.
        """

        def made() -> tuple[Float[Tensor, "t n"], Float[Tensor, "n n"]]:
            alpha = self.importance(importance, kernel, output)
            return tuple(representer_scores(alpha, part, output=output) for part in self.kernel(kernel, output))

        return self._cached_call(("scores", kernel, importance, output), made)

    def axioms(self, kernel: str, importance: str, output: int) -> pandas.DataFrame:
        """Return by how much the scores violate each axiom, as ``representers.axioms.table`` does.

        Args:
            kernel: one of ``KERNELS``.
            importance: one of ``IMPORTANCES``.
            output: which output.
        """

        def measured() -> pandas.DataFrame:
            tests, among = self.scores(kernel, importance, output)
            before = self.outputs_before()[:, output] if importance == "tracking" else None
            return axioms.table(among, tests, self.outputs()[:, output], outputs_before=before)

        return self._cached_call(("axioms", kernel, importance, output), measured)

    def retrained(self, removed: Sequence[int]) -> Float[Tensor, "t C"]:
        """Return the tests' outputs after the same training, from the same start, without some examples."""
        gone = set(removed)
        left = self.train[[i for i in range(len(self.train)) if i not in gone]]
        size = None if self._batch_size is None else min(self._batch_size, len(left))
        after = fit(self._start, left, batch_size=size, **self._training)
        return self.risk.at(Parameters(after.model).theta).outputs(self.test).detach()

    def require_repeatable(self) -> None:
        """Train once more on everything.

        Raises:
            ValueError: the result is another model, so that no retraining here would be the truth.
        """

        def gap() -> float:
            now = self.outputs()
            return float((self.retrained(()) - now).abs().max() / now.abs().max().clamp(min=1e-12))

        found = self._cached_call("gap", gap)
        if found > SAME:
            raise ValueError(
                f"training again on all examples ends {found:.0%} away from the trajectory's outputs, so the truth "
                "would be another network's; pass the loss, weight_decay and seed that fit was given."
            )

    def _model(self, kernel: str) -> torch.nn.Module:
        if kernel not in ("ntk_init", "ntk_middle"):
            return self.trajectory.model
        points = self.trajectory.checkpoints
        theta = points[0 if kernel == "ntk_init" else len(points) // 2].to(self.risk.theta)
        return Parameters(self.trajectory.model).model_at(theta)

    def _cached_call(self, key: Hashable, make: Callable[[], T]) -> T:
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]


def prediction(scores: Float[Tensor, " n"], choice: RepresenterChoice, n: int) -> tuple[Tensor, list[int]]:
    """Return the predicted change after the first 0, 1, ... n deletions, and in which order the examples go.

    Args:
        scores: of one test.
        choice: its sign says from which end; its method, in which unit.
        n: training examples. Influence functions speak of weights: 1/n is what one example weighs.
    """
    order = scores.argsort(descending=choice.sign == "positive", stable=True)
    share = n if (choice.kernel, choice.importance) == ("influence", "target") else 1
    removed = torch.cat([scores.new_zeros(1), -scores[order].cumsum(0)]) / share
    return removed, order.tolist()


def in_output_units(kernel: str, importance: str, outputs: int) -> bool:
    """Return whether the scores' effect is measured in the output; else its size means nothing, only its order.

    Target times influence kernel is the influence function where there is one output. With more, a kernel of one
    output leaves out what reaches it through the others, and the flat direction of a softmax makes that large.

    Args:
        kernel: one of ``KERNELS``.
        importance: one of ``IMPORTANCES``.
        outputs: of the network.
    """
    if importance == "target":
        return kernel == "influence" and outputs == 1
    return importance == "surrogate" or kernel != "influence"


def _checked(trajectory: Trajectory, train: Examples) -> Trajectory:
    """Return the trajectory if the panel can do all it offers with it."""
    if not isinstance(trajectory, Trajectory):
        raise TypeError(f"trajectory is a {type(trajectory).__name__}; pass what xl.training.fit(...) returned.")
    how = "train with xl.training.fit(..., optimizer='sgd', record=True, checkpoints=3)"
    if trajectory.importance is None or not trajectory.batches or not trajectory.losses:
        raise ValueError(f"the trajectory recorded no importances; {how}.")
    count = len(trajectory.checkpoints)
    if count < 3 or count % 2 == 0:
        raise ValueError(f"the trajectory has {count} checkpoints, and start, middle and end are needed; {how}.")
    if len(trajectory.importance) != len(train):
        raise ValueError(
            f"train has {len(train)} examples, the trajectory was trained on {len(trajectory.importance)}; pass those."
        )
    if len(train) > MOST_EXAMPLES:
        raise ValueError(
            f"train has {len(train)} examples; the panel holds tables of all pairs, so train on at most "
            f"{MOST_EXAMPLES} of them."
        )
    return trajectory
