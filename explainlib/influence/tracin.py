"""TracIn: the effect of training steps on one example on another's loss, or another measure, summed over checkpoints.

tracin(t, j) = - sum_c lr_c grad m_t(theta_c) . grad l_j(theta_c),      m_t = l_t, or an output, a margin, a callable
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib import compute
from explainlib.datasets import Examples
from explainlib.gate import admit
from explainlib.influence.measures import measure_gradients, require_measure
from explainlib.layerwise import gram
from explainlib.losses import Loss, LossFunction, require_loss, require_targets
from explainlib.memory import slices
from explainlib.params import Parameters
from explainlib.training import Trajectory

RECORDED = 2**24 * 3 // 2  # bytes of layers that are recorded of training examples at a time; more is hardly faster
LEAST, MOST = 16, 256  # such examples


@compute.entry
def tracin(
    trajectory: Trajectory,
    train: Examples,
    test: Examples,
    *,
    loss: str | LossFunction | Loss = "cross_entropy",
    parameters: str | Sequence[str] = "all",
    measure: str | LossFunction = "loss",
    output: int | None = None,
    memory: int | float | None = None,
) -> Float[Tensor, "t n"]:
    """Return TracInCP scores; positive means that training on j raised the measure of t: for the loss, harmful.

    Args:
        trajectory: with checkpoints, from ``training.fit`` or wrapped.
        train: n examples.
        test: t examples.
        loss: as in ``Risk``.
        parameters: "all" (those that require a gradient), "last" (the last layer: TracInCPFast), or a list of names.
        measure: of a test: "loss"; "output", the output ``output``; "margin", its label's log-odds f_y - log
            sum_{c != y} exp f_c (of one output with labels 0 and 1: f or -f); or a callable (outputs, y) -> [t].
        output: for "output": which one; None is that of each test's label, or the only one.
        memory: bytes to work with beside the result; None is a quarter of what is free.

    Returns:
        [t, n], in the measure's unit; no factor 1/batch. Per-example gradients are not materialised.

    Raises:
        TypeError, ValueError: a trajectory without checkpoints, of another architecture, or without the running
            statistics of its BatchNorm layers; an unknown measure, or one that does not fit the test examples.

    Source: Pruthi et al. 2020, section 3; Tsai et al. 2023, eq. (14), which is measure="output"; for the loss the
    sign is the opposite of a contribution.

    Example: one checkpoint of a one-parameter model, gradients 2 (f - y) x = -4 and -2.

        >>> model = torch.nn.Linear(1, 1, bias=False).double()
        >>> at = Trajectory(model, torch.ones(1, 1).double(), torch.tensor([0.5]).double())
        >>> one = lambda y: Examples(torch.ones(1, 1).double(), torch.tensor([[y]]).double())
        >>> tracin(at, one(3.0), one(2.0), loss="squared_error").item()
        -4.0
    """
    if len(trajectory.checkpoints) == 0:
        raise ValueError("the trajectory holds no checkpoints; train with checkpoints=... or wrap some in Trajectory.")
    criterion = require_loss(loss)
    chosen = Parameters(trajectory.model, parameters, x=train.x)
    total = torch.zeros(len(test), len(train), dtype=chosen.theta.dtype, device=chosen.theta.device)
    for c, rate in enumerate(trajectory.learning_rates):
        state = {name: value.to(total.device) for name, value in trajectory.state(c).items()}
        chosen.place(state)  # other parameters and buffers are the checkpoint's too
        at = torch.cat([chosen.module.get_parameter(name).reshape(-1) for name in chosen.names])
        measured = require_measure(measure, output, loss=criterion, parameters=chosen, theta=at, test=test)
        require_targets(criterion, "y", train.y, admit(chosen, train.x))
        if test is train and measured is criterion:  # a Gram matrix: half of it is enough
            both = measure_gradients(chosen, at, train, criterion, memory=memory)
            total -= float(rate) * gram(both, both, memory=memory)
            continue
        require_targets(measured, "y", test.y, admit(chosen, test.x, name="test.x"))
        left = measure_gradients(chosen, at, test, measured, memory=memory)
        left = left.cached(left.memory // 4)
        size = min(MOST, max(LEAST, RECORDED // left.row_bytes))
        for part in slices(len(train), size):  # what was recorded of a part is freed before the next
            right = measure_gradients(chosen, at, train[part], criterion, memory=memory)
            total[:, part] -= float(rate) * gram(left, right, memory=memory)
    return total
