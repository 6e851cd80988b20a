"""The exercises of notebook 05, on MAML and Prototypical Networks."""

from __future__ import annotations

import functools

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import grad
from torch.nn.functional import cross_entropy

from explainlib.course.exercises.answers import Choice, Function, Number, Numbers
from explainlib.course.exercises.exercise import Exercise, Mistake
from explainlib.datasets import Tasks, class_pool, sample_tasks, spectrum, standardiser
from explainlib.meta import Maml, ProtoNet, train
from explainlib.models import mlp

TASK, RATE = 1, 0.3  # exercise 05.2
SWAPPED = ("MAML", "ProtoNet", "both", "neither")
STEPS = ("1", "3", "10", "30")
NEAR = 0.05  # how close the untrained start has to come, exercise 05.5


@functools.cache
def _tasks() -> tuple[Tasks, Tasks]:
    """Return the notebook's training tasks and new tasks."""
    letters, new_letters = (class_pool("glyphs", split=part).double() for part in ("train", "test"))
    scale = standardiser(spectrum(letters.x))
    waves, new_waves = (p.map(lambda x: spectrum(x, standardise=scale)) for p in (letters, new_letters))
    return sample_tasks(waves, 256, shots=2, seed=0), sample_tasks(new_waves, 128, shots=2, seed=1)


@functools.cache
def _maml() -> Maml:
    return Maml(mlp([36, 8, 5], "tanh", dtype=torch.float64), inner_lr=RATE)


@functools.cache
def _proto() -> ProtoNet:
    return ProtoNet(mlp([36, 8, 8], "tanh", seed=1, dtype=torch.float64))


@functools.cache
def _start() -> Float[Tensor, " q"]:
    """Return the parameters of MAML after a hundred batches."""
    return train(_maml(), _tasks()[0], batches=100, lr=0.01).w


def _embeddings() -> list[tuple[object, ...]]:
    """Return two sets of embedded queries with centroids."""
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(q, 4, generator=generator), torch.randn(c, 4, generator=generator)) for q, c in ((3, 2), (2, 5))
    ]


def _squares(queries: Float[Tensor, "q e"], centroids: Float[Tensor, "c e"]) -> Float[Tensor, "q c e"]:
    return (queries[:, None] - centroids).square()


def _by_hand(*, rate: float = RATE, total: bool = False, judge: str = "query") -> float:
    """Return the loss of one task after one step from the untrained start, by hand."""
    outputs, w = _maml().parameters.outputs, _maml().w0
    support_x, support_y, query_x, query_y = (part[TASK] for part in _tasks()[0].arrays())
    scale = len(support_y) if total else 1
    adapted = w - rate * scale * grad(lambda v: cross_entropy(outputs(v, support_x), support_y))(w)
    x, y = (query_x, query_y) if judge == "query" else (support_x, support_y)
    return float(cross_entropy(outputs(adapted, x), y))


def _cosine(*, task: int = 0, judge: str = "query") -> float:
    """Return the cosine of ProtoNet's gradient with the one that holds the centroids fixed, at the untrained start."""
    proto, chosen = _proto(), _tasks()[0][task]
    support_x, support_y, query_x, query_y = (part[0] for part in chosen.arrays())
    embed = proto.parameters.outputs
    held = embed(proto.w0, support_x).reshape(5, 2, 8).mean(1)
    x, y = (query_x, query_y) if judge == "query" else (support_x, support_y)
    constant = grad(lambda v: cross_entropy(-_squares(embed(v, x), held).sum(-1), y))(proto.w0)
    return float(torch.cosine_similarity(constant, proto.gradients(proto.w0, chosen)[0], dim=0))


def _unmoved() -> str:
    """Return whose losses stay the same when the classes of new tasks get other numbers."""
    new = _tasks()[1]
    swapped = Tasks(new.support_x, 4 - new.support_y, new.query_x, 4 - new.query_y)
    learners = {"MAML": _maml(), "ProtoNet": _proto()}
    same = [
        name
        for name, one in learners.items()
        if (one.losses(one.w0, swapped) - one.losses(one.w0, new)).abs().max() < 1e-10
    ]
    return {0: "neither", 1: "".join(same), 2: "both"}[len(same)]


@functools.cache
def _enough() -> str:
    """Return after how many inner steps the untrained start comes near the trained one."""
    for steps in STEPS:
        longer = Maml(mlp([36, 8, 5], "tanh", dtype=torch.float64), inner_lr=RATE, steps=int(steps))
        shares = [float(longer.accuracy(at, _tasks()[1]).mean()) for at in (_start(), longer.w0)]
        if shares[0] - shares[1] < NEAR:
            return steps
    return STEPS[-1]


_OF_SWAPPED = {  # one for each, so that the list says nothing about which is right
    "MAML": "Its output units have numbers, and weights of their own before the first step.",
    "ProtoNet": "Does a centroid know which number its class has?",
    "both": "Then the largest change over the tasks would be rounding for both.",
    "neither": "Then the largest change over the tasks would be more than rounding for both.",
}
_OF_STEPS = {
    "1": "With one step MAML is on its own ground; look at the difference.",
    "3": "Look at the difference at three steps.",
    "10": "Look at the differences at ten steps, and before.",
    "30": "Is that the first of the four at which they are near?",
}

EXERCISES = (
    Exercise(
        "05.1",
        "The logits of a Prototypical Network",
        "write eq. (4), minus included",
        "warm-up",
        5,
        Function(
            "logits(queries, centroids)",
            _embeddings,
            lambda queries, centroids: Numbers((len(queries), len(centroids)), 1e-6, "a row for each query"),
        ),
        lambda: lambda queries, centroids: -_squares(queries, centroids).sum(-1),
        (
            Mistake(
                "plus, as printed",
                lambda: lambda queries, centroids: _squares(queries, centroids).sum(-1),
                "Then the farthest centroid wins.",
            ),
            Mistake(
                "not squared",
                lambda: lambda queries, centroids: -_squares(queries, centroids).sum(-1).sqrt(),
                "Those are distances; eq. (4) has their squares.",
            ),
            Mistake(
                "mean instead of sum",
                lambda: lambda queries, centroids: -_squares(queries, centroids).mean(-1),
                "You averaged over the coordinates. A squared distance is their sum.",
            ),
        ),
        (
            "Every query needs its difference from every centroid: a table of vectors.",
            "`queries[:, None] - centroids` is [query, class, coordinate]. Square, sum, and mind eq. (4).",
        ),
    ),
    Exercise(
        "05.2",
        "Another task by hand",
        "adapt and judge one task without the library",
        "warm-up",
        6,
        Number(1e-3),
        _by_hand,
        (
            Mistake("not adapted", lambda: _by_hand(rate=0.0), "That is the loss before the step; take eq. (1) first."),
            Mistake("step up the loss", lambda: _by_hand(rate=-RATE), "You went up the support loss. Mind the minus."),
            Mistake(
                "summed support loss",
                lambda: _by_hand(total=True),
                "Your step is as long as the support has drawings: the inner loss is their *mean*.",
            ),
            Mistake(
                "judged by the support",
                lambda: _by_hand(judge="support"),
                "That is the loss of the support after its own step. The query is the judge.",
            ),
        ),
        (
            "The cell above does it for task 0; `part[0]` chooses it.",
            "Take `part[1]` and repeat the five lines; compare with `learner.losses(learner.w0, tasks[1])` only then.",
        ),
    ),
    Exercise(
        "05.3",
        "ProtoNet adapts nothing",
        "see that the support enters the gradient all the same",
        "guided",
        10,
        Number(2e-3),
        _cosine,
        (
            Mistake("task 1", lambda: _cosine(task=1), "That is task 1; the picture's task is number 0."),
            Mistake(
                "judged by the support",
                lambda: _cosine(judge="support"),
                "You held the centroids fixed, and then judged the support by them. The query is the judge.",
            ),
            Mistake("sign turned", lambda: -_cosine(), "One of the two gradients is that of plus the distances."),
        ),
        (
            "Compute the centroids first, outside of the function that is differentiated.",
            "`held = embed(proto.w0, support_x).reshape(5, 2, 8).mean(1)`, then `grad` of the loss of minus the "
            "squared distances of `embed(v, query_x)` to `held`.",
        ),
    ),
    Exercise(
        "05.4",
        "Names of classes",
        "say which learner knows the numbers of its classes",
        "guided",
        6,
        Choice(SWAPPED),
        _unmoved,
        tuple(
            Mistake(word, functools.partial(str, word), f"{hint} Compare the losses of each task before and after.")
            for word, hint in _OF_SWAPPED.items()
        ),
        (
            "`xl.datasets.Tasks(support_x, support_y, query_x, query_y)` makes tasks of changed labels.",
            "`4 - new_tasks.support_y`, and the same for the query; then `losses` of both learners.",
        ),
    ),
    Exercise(
        "05.5",
        "What a start is worth",
        "weigh a trained start against more inner steps",
        "open",
        12,
        Choice(STEPS),
        _enough,
        tuple(
            Mistake(word, functools.partial(str, word), f"{hint} Print the accuracies side by side.")
            for word, hint in _OF_STEPS.items()
        ),
        (
            "`xl.meta.Maml(net, inner_lr=0.3, steps=...)` reads the same parameters with more inner steps.",
            "`longer.accuracy(at, new_tasks).mean()` for both starts, at each number of steps.",
        ),
    ),
)
