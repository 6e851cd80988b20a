"""The exercises of notebook 06, on the influence of training tasks."""

from __future__ import annotations

import functools

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib.course.exercises.answers import Choice, Function, Number, Numbers
from explainlib.course.exercises.exercise import Exercise, Mistake
from explainlib.datasets import (
    Tasks,
    class_pool,
    darken,
    fresh_queries,
    rotate,
    sample_tasks,
    spectrum,
    standardiser,
    task_features,
    with_images,
)
from explainlib.meta import Maml, ProtoNet, train
from explainlib.models import fc_bn, mlp

TURNS = ("90", "180", "270")
FADED = ("the same", "slightly different", "very different")


def _symmetric() -> list[tuple[object, ...]]:
    """Return two symmetric matrices with negative eigenvalues, and how many eigenvalues to keep."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for size, k in ((4, 2), (6, 3)):
        basis = torch.linalg.qr(torch.randn(size, size, generator=generator))[0]
        values = torch.tensor([3.0, 1.5, 0.7, -2.0, 0.2, -4.0][:size])
        made.append((basis @ (values[:, None] * basis.T), k))
    return made


def _kept_inverse(H: Float[Tensor, "q q"], chosen: Tensor) -> Float[Tensor, "q q"]:
    """Return the inverse on the chosen eigenvectors, zero elsewhere; eigenvalues ascend."""
    values, vectors = torch.linalg.eigh(H)
    return vectors[:, chosen] / values[chosen] @ vectors[:, chosen].T


def _largest(H: Float[Tensor, "q q"], k: int) -> Float[Tensor, "q q"]:
    return _kept_inverse(H, torch.arange(len(H) - k, len(H)))


def _tables() -> list[tuple[object, ...]]:
    """Return two tables of I_perf [test, train], a group of tasks, and the number of training tasks."""
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(3, 5, generator=generator), [0, 2, 3], 5), (torch.randn(2, 4, generator=generator), [1, 3], 4)]


def _square_tables() -> list[tuple[object, ...]]:
    """Return two tables of I_perf in which test i belongs to training task i."""
    generator = torch.Generator().manual_seed(2)
    return [(torch.randn(5, 5, generator=generator),), (torch.randn(7, 7, generator=generator),)]


def _ranks(scores: Float[Tensor, "M M"], *, sign: float = 1.0, first: int = 0) -> Tensor:
    """Return how many training tasks are more helpful to each test than its own."""
    signed = sign * scores
    return (signed < signed.diagonal()[:, None]).sum(1) + first


@functools.cache
def _tasks() -> tuple[Tasks, Tasks, Tasks, Tasks]:
    """Return the notebook's tasks, the same with new queries, all drawings faded to 30%, and eight tasks turned."""
    pool = class_pool("glyphs", split="train").double()
    standard = standardiser(spectrum(pool.x))
    features = pool.map(lambda x: spectrum(x, standardise=standard))
    tasks = sample_tasks(features, 64, seed=0)
    drawn = with_images(features, tasks)
    faint, turned = (
        task_features(changed, lambda x: spectrum(x, standardise=standard))
        for changed in (darken(drawn, alpha=0.7, ratio=1.0), rotate(drawn[:8]))
    )
    return tasks, fresh_queries(features, tasks, seed=3), faint, turned


def _twin() -> str:
    """Return the turn whose copies look to the learner like the tasks themselves."""
    copies = _tasks()[3].support_x.unflatten(0, (4, 8))
    gaps = [float((copy - copies[0]).norm()) for copy in copies[1:]]
    return TURNS[gaps.index(min(gaps))]


@functools.cache
def _accuracies() -> dict[str, float]:
    """Return the accuracy of a short-trained ProtoNet on new queries, by what is asked."""
    tasks, again, *_ = _tasks()
    proto = ProtoNet(mlp([36, 8, 8], dtype=torch.float64))
    w = train(proto, tasks, batches=150).w

    def share(which: Tasks, at: Tensor, sign: float = 1.0) -> float:
        return float(((sign * proto.outputs(at, which)).argmax(-1) == which.query_y).double().mean())

    return {"minus": share(again, w), "plus": share(again, w, -1.0), "training": share(tasks, w)}


def _faded() -> str:
    """Return how the outputs of an untrained learner change when every drawing fades."""
    tasks, _, faint, _ = _tasks()
    learner = Maml(fc_bn(36).double(), inner_lr=0.1)
    before, after = learner.outputs(learner.w0, tasks[:8]), learner.outputs(learner.w0, faint[:8])
    change = float((after - before).norm() / before.norm())
    return FADED[0] if change < 1e-2 else FADED[1] if change < 0.2 else FADED[2]


_OF_TURNS = {
    "90": "Turned by a quarter, the waves that ran across run down.",
    "180": "Half a turn sends each wave to itself, the other way round.",
    "270": "Three quarters are a quarter the other way.",
}
_OF_FADED = {  # one for each, so that the list says nothing about which is right
    "the same": "Did you fade support and query, and does the learner see anything that does not scale with the ink?",
    "slightly different": "How large is the change beside the outputs themselves?",
    "very different": "What does the first BatchNorm do with features that are all smaller by one factor?",
}

EXERCISES = (
    Exercise(
        "06.1",
        "An inverse of a few eigenvalues",
        "write the pseudo-inverse that keep names",
        "warm-up",
        6,
        Function("inverse(H, k)", _symmetric, lambda H, k: Numbers(tuple(H.shape), 1e-6)),
        lambda: _largest,
        (
            Mistake(
                "largest in absolute value",
                lambda: lambda H, k: _kept_inverse(H, torch.linalg.eigvalsh(H).abs().argsort(descending=True)[:k]),
                "You kept a negative eigenvalue, because it is large. Keep the algebraically largest.",
            ),
            Mistake(
                "smallest kept",
                lambda: lambda H, k: _kept_inverse(H, torch.arange(k)),
                "You kept the other end: `eigh` lists the smallest first.",
            ),
            Mistake(
                "not inverted",
                lambda: lambda H, k: torch.linalg.pinv(_largest(H, k), hermitian=True, rtol=1e-9),
                "That is the part of $H$ itself. Divide by the eigenvalues instead of multiplying.",
            ),
            Mistake(
                "all kept",
                lambda: lambda H, k: torch.linalg.inv(H),
                "That inverts everything. Leave out all but k eigenvalues.",
            ),
        ),
        (
            "`torch.linalg.eigh(H)` gives eigenvalues in ascending order, and eigenvectors as columns.",
            "With the last k values and columns, $V\\,\\mathrm{diag}(1/\\lambda)\\,V^\\top$.",
        ),
    ),
    Exercise(
        "06.2",
        "Removing a group of tasks",
        "turn scores of tasks into the predicted effect of leaving some out",
        "warm-up",
        5,
        Function(
            "removal(scores, group, M)",
            _tables,
            lambda scores, group, M: Numbers((len(scores),), 1e-6, "one number for each test"),
        ),
        lambda: lambda scores, group, M: -scores[:, group].sum(1) / M,
        (
            Mistake(
                "sign turned",
                lambda: lambda scores, group, M: scores[:, group].sum(1) / M,
                "That is more of these tasks, not less.",
            ),
            Mistake(
                "factor M missing",
                lambda: lambda scores, group, M: -scores[:, group].sum(1),
                "Each task has the weight $1/M$ in the objective.",
            ),
            Mistake(
                "mean over the group",
                lambda: lambda scores, group, M: -scores[:, group].mean(1) / M,
                "All of them leave, so their effects add up (eq. 9).",
            ),
            Mistake(
                "divided by the group",
                lambda: lambda scores, group, M: -scores[:, group].sum(1) / (M - len(group)),
                "The weight that leaves is the one the tasks *had*, among all M.",
            ),
        ),
        (
            "Which $\\varepsilon$ removes a task from $\\frac1M\\sum_i L_i$?",
            "Sum the columns of the group, and multiply by that $\\varepsilon$.",
        ),
    ),
    Exercise(
        "06.3",
        "Self-rank",
        "write the measure of the paper's Property 1",
        "guided",
        8,
        Function("ranks(scores)", _square_tables, lambda scores: Numbers((len(scores),), 0.0)),
        lambda: _ranks,
        (
            Mistake(
                "harmful first",
                lambda: lambda scores: _ranks(scores, sign=-1.0),
                "You counted the tasks that are more *harmful*. Negative is helpful.",
            ),
            Mistake(
                "ranks from one",
                lambda: lambda scores: _ranks(scores, first=1),
                "Best is 0: count only those before it.",
            ),
            Mistake(
                "compared by column",
                lambda: lambda scores: _ranks(scores.T),
                "You compared tests, for one training task. Compare training tasks, for one test: along the row.",
            ),
        ),
        (
            "Test i belongs to training task i. How many training tasks help test i more than its own?",
            "Compare each row with its own diagonal entry, and count what is below.",
        ),
    ),
    Exercise(
        "06.4",
        "A slip in the paper",
        "let accuracy decide about a printed sign",
        "guided",
        10,
        Number(),
        lambda: _accuracies()["minus"],
        (
            Mistake(
                "plus, as printed",
                lambda: _accuracies()["plus"],
                "That is with *plus* the distances: the farthest class wins.",
            ),
            Mistake(
                "on its own training queries",
                lambda: _accuracies()["training"],
                "That is on the queries it was trained with. Take the new ones, `again`.",
            ),
        ),
        (
            "`ProtoNet.outputs` are minus the squared distances already.",
            "`(proto.outputs(w, again).argmax(-1) == again.query_y).double().mean()`, and the same with a minus.",
        ),
    ),
    Exercise(
        "06.5",
        "Copies belong to their origin",
        "count copies for their origin, and see which copy is none",
        "guided",
        12,
        Choice(TURNS),
        _twin,
        tuple(
            Mistake(word, functools.partial(str, word), f"{hint} Compare the features, or the mean influences.")
            for word, hint in _OF_TURNS.items()
        ),
        (
            "`xl.datasets.rotate(drawn[:8])` has four copies of eight tasks, in blocks of eight; then `task_features`.",
            "What happens to the *strengths* of the waves of a picture that is turned? The features are those.",
        ),
    ),
    Exercise(
        "06.6",
        "A fading nobody sees",
        "find what a learner is blind to",
        "open",
        12,
        Choice(FADED),
        _faded,
        tuple(
            Mistake(word, functools.partial(str, word), f"{hint} Compare the outputs of the learner on both.")
            for word, hint in _OF_FADED.items()
        ),
        (
            "`xl.datasets.darken(drawn, alpha=0.7, ratio=1.0)` fades every drawing; then `task_features`, as above.",
            "Compare `learner.outputs(learner.w0, ...)` before and after. Which layer comes first in this network?",
        ),
    ),
)
