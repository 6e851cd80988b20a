"""TracIn: gradients at checkpoints, of all parameters and of the last layer."""

from __future__ import annotations

from torch import Tensor, nn

import explainlib as xl
from benchmarks.peers import problems
from benchmarks.peers.race import OWN, Action, Bar, Problem, Race, Side

BATCH, FAST = 100, 250  # captum's fastest of 50, 100 and 250


def own(parameters: object) -> object:
    """Return the builder of explainlib's call on some of the parameters."""

    def build(problem: Problem) -> Action:
        options = {"parameters": parameters}
        return lambda: xl.influence.tracin(problem["trajectory"], problem["train"], problem["test"], **options)

    return build


def captum(kind: str) -> object:
    """Return the builder of captum's call: "sample-wise" or "fast"."""

    def build(problem: Problem) -> Action:
        from captum.influence import TracInCP, TracInCPFast

        model, (train, _), test = problem["model"], problems.sets(problem), problem["test"]
        rates = {id(theta): rate for theta, rate in zip(problem["checkpoints"], problem["rates"], strict=True)}

        def load(net: nn.Module, theta: Tensor) -> float:
            nn.utils.vector_to_parameters(theta.clone(), net.parameters())
            return rates[id(theta)]

        shared = {
            "checkpoints": problem["checkpoints"],
            "checkpoints_load_func": load,
            "batch_size": FAST if kind == "fast" else BATCH,
        }
        shared["loss_fn"] = nn.CrossEntropyLoss(reduction="sum")
        if kind == "fast":
            made = TracInCPFast(model, model[-1], train, **shared)
        else:
            made = TracInCP(model, train, sample_wise_grads_per_batch=True, **shared)
        return lambda: -made.influence((test.x, test.y))

    return build


TRACIN = Race(
    name="tracin",
    title="TracIn at 3 checkpoints, convolutional network of 93,962 parameters, float32",
    problem=problems.convolutional,
    sides=(
        Side(OWN, "`tracin(trajectory, train, test)`", own("all"), mode="all parameters"),
        Side(OWN, '`tracin(..., parameters=["output.weight"])`', own(["output.weight"]), mode="last layer"),
        Side(
            "captum",
            f"`TracInCP(sample_wise_grads_per_batch=True)`, batches of {BATCH}",
            captum("sample-wise"),
            Bar(1.5, 1.0),
            mode="sample-wise",
        ),
        Side("captum", f"`TracInCPFast`, batches of {FAST}", captum("fast"), Bar(1.5, 1.0), mode="fast"),
    ),
    against={"captum, fast": f"{OWN}, last layer"},
    full={"n": 1000, "tests": 50, "epochs": 3, "checkpoints": 3},
    quick={"n": 40, "tests": 4, "epochs": 2, "checkpoints": 2},
    facts="captum's fast mode leaves out the last layer's bias, and so does explainlib's call beside it. dattri's "
    "TracIn projects the gradients to 512 numbers unless an attribute is overwritten, so it is another method.",
)
