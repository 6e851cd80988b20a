"""The exercises of notebook 08, on two levels, their signs, and lies inside a task."""

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
    flip_task_labels,
    parent_tasks,
    spectrum,
    standardiser,
    task_features,
)
from explainlib.influence import BilevelInfluence
from explainlib.meta import Bilevel, solve
from explainlib.metrics import mislabel_auc
from explainlib.models import logistic

SCRIPTS = ("Greek", "Arabic", "Georgian")
SIGNED = ("minus, as printed", "plus, no l2", "plus, with l2")
FINDERS = ("task influence", "gradient product", "raw loss")
STEP = 1e-3  # of a weight


def _levels() -> list[tuple[object, ...]]:
    """Return the summed second derivative of the training losses, and the strength, of two inner problems."""
    return [(6.0, 2.0), (0.5, 10.0)]


def _inspections() -> list[tuple[object, ...]]:
    """Return shares of spoiled and of inspected tasks."""
    return [(0.5, 0.2), (0.25, 0.6), (0.9, 0.3)]


def _parts() -> list[tuple[object, ...]]:
    """Return partial gradients in lambda [q] and theta [p], and dtheta/dlambda [p, q], of two problems."""
    generator = torch.Generator().manual_seed(0)
    sizes = ((3, 3), (4, 4))
    return [
        (*(torch.randn(k, generator=generator) for k in (q, p)), torch.randn(p, q, generator=generator))
        for q, p in sizes
    ]


def _iterations() -> list[tuple[object, ...]]:
    """Return a Hessian, a ridge and a total gradient, twice."""
    generator = torch.Generator().manual_seed(1)
    made = []
    for q, delta in ((3, 0.3), (4, 2.0)):
        root = torch.randn(q, q, generator=generator)
        made.append((root @ root.T, delta, torch.randn(q, generator=generator)))
    return made


def _solved(H: Float[Tensor, "q q"], delta: float, T: Float[Tensor, " q"], *, sign: float) -> Float[Tensor, " q"]:
    """Return (delta I + sign H)^-1 T."""
    return torch.linalg.solve(delta * torch.eye(len(H)) + sign * H, T)


@functools.cache
def _clean() -> tuple[Tasks, Tasks]:
    """Return the notebook's sixty tasks without flips, and its hundred new ones."""
    letters = class_pool("glyphs").double().of_parents(SCRIPTS, most=6)
    scale = standardiser(spectrum(letters.x, size=5))
    drawn = (parent_tasks(letters, SCRIPTS, m, half=half, seed=m) for half, m in enumerate((60, 100)))
    seen, unseen = (task_features(part, lambda x: spectrum(x, size=5, standardise=scale)) for part in drawn)
    return seen, unseen


def _learner() -> Bilevel:
    return Bilevel(logistic(25, 3, dtype=torch.float64), inner="proximal", strength=10.0, l2=10.0)


@functools.cache
def _signed() -> str:
    """Return which of three printed or mended forms moves as solving again does, on twelve of the tasks."""
    learner, tasks = _learner(), _clean()[0][:12]
    lam = solve(learner, tasks).w
    influence = BilevelInfluence(learner, lam, tasks).training_example(7, 3)
    weights, ends = torch.ones(12, 6), []
    for weights[7, 3] in (1 + STEP, 1 - STEP):
        ends.append(solve(learner, tasks, start=lam, tolerance=1e-9, training_weights=weights).w)
    true = (ends[1] - ends[0]) / (2 * STEP)  # with less weight
    H = learner.total_hessian(lam, tasks)
    S = H + learner.l2 * torch.eye(learner.q)
    without = torch.linalg.pinv(H, hermitian=True, rtol=1e-9) @ (S @ influence)
    moves = dict(zip(SIGNED, (without, -without, -influence), strict=True))
    return min(moves, key=lambda name: float((moves[name] - true).norm()))


@functools.cache
def _finder() -> str:
    """Return which ranking finds tasks best whose training labels alone were flipped."""
    (clean, new_tasks), learner = _clean(), _learner()
    tasks, flipped = flip_task_labels(clean, tasks_fraction=0.25, labels_fraction=0.4, seed=0, part="support")
    lam = solve(learner, tasks).w
    influence = BilevelInfluence(learner, lam, tasks)
    toward = learner.total_gradients(lam, new_tasks[:50]).sum(0)
    scores = (influence.performance(new_tasks[:50]).sum(0), -influence.gradients @ toward,
              learner.outer_losses(lam, tasks))  # fmt: skip
    areas = {name: float(mislabel_auc(score, flipped)) for name, score in zip(FINDERS, scores, strict=True)}
    return max(areas, key=areas.get)


_OF_SIGNED = {  # one for each, so that the list says nothing about which is right
    SIGNED[0]: "Where does the minimum of $F + P$ go: along the slope of $P$, or against it?",
    SIGNED[1]: "Is the ridge of the outer problem part of what holds $\\lambda$?",
    SIGNED[2]: "Which curvature holds $\\lambda$, and on which side of the equation does $D_\\lambda P$ stand?",
}
_OF_FINDERS = {
    FINDERS[0]: "What does a lie among the training labels do to *new* tasks? Cell after the six pictures.",
    FINDERS[1]: "Its area is about that of the scores with a Hessian. Is that far from chance?",
    FINDERS[2]: "What does a task trained on lies say of its honest validation examples?",
}

EXERCISES = (
    Exercise(
        "08.1",
        "One number moves another",
        "differentiate a solution by its optimality condition, on paper",
        "warm-up",
        5,
        Function("slope(curvature, strength)", _levels, lambda curvature, strength: Number(1e-6)),
        lambda: lambda curvature, strength: strength / (curvature + strength),
        (
            Mistake(
                "the identity",
                lambda: lambda curvature, strength: 1.0,
                "That is the first-order shortcut. The data hold $\\theta$, too.",
            ),
            Mistake(
                "sign turned",
                lambda: lambda curvature, strength: -strength / (curvature + strength),
                "Eq. (4) has two minus signs: one in front, one in the mixed derivative of the tie.",
            ),
            Mistake(
                "strength left out below",
                lambda: lambda curvature, strength: strength / curvature,
                "The second derivative of $g$ includes the tie.",
            ),
            Mistake(
                "strength left out above",
                lambda: lambda curvature, strength: 1 / (curvature + strength),
                "The mixed derivative of $\\frac s2(\\theta-\\lambda)^2$ is not one.",
            ),
        ),
        (
            "At the solution $g'(\\theta) = 0$: the losses' derivative plus $s(\\theta - \\lambda)$. Differentiate it "
            "in $\\lambda$.",
            "$(a + s)\\,\\frac{d\\theta}{d\\lambda} - s = 0$, with $a$ the losses' second derivative.",
        ),
    ),
    Exercise(
        "08.2",
        "The ceiling",
        "say how much any ranking can find",
        "warm-up",
        3,
        Function("most(spoiled, inspected)", _inspections, lambda spoiled, inspected: Number(1e-6)),
        lambda: lambda spoiled, inspected: min(spoiled, inspected) / spoiled,
        (
            Mistake(
                "share of the inspected",
                lambda: lambda spoiled, inspected: min(spoiled, inspected) / inspected,
                "That is the share of the inspected tasks that are spoiled. The question is about the spoiled ones.",
            ),
            Mistake(
                "more than all",
                lambda: lambda spoiled, inspected: inspected / spoiled,
                "Nobody finds more than all of them.",
            ),
            Mistake(
                "chance",
                lambda: lambda spoiled, inspected: inspected,
                "That is what a blind ranking finds.",
            ),
        ),
        (
            "At best, every inspected task is a spoiled one, until none is left.",
            "The smaller of the two shares, as a part of the spoiled.",
        ),
    ),
    Exercise(
        "08.3",
        "Total, not plain",
        "put a total gradient together",
        "guided",
        6,
        Function(
            "total(direct, through, jacobian)",
            _parts,
            lambda direct, through, jacobian: Numbers((len(direct),), 1e-6),
        ),
        lambda: lambda direct, through, jacobian: direct + jacobian.T @ through,
        (
            Mistake(
                "Jacobian not transposed",
                lambda: lambda direct, through, jacobian: direct + jacobian @ through,
                "`jacobian` is [p, q]: a gradient goes back through it, transposed.",
            ),
            Mistake(
                "plain",
                lambda: lambda direct, through, jacobian: direct + through,
                "That takes $d\\theta/d\\lambda$ for the identity.",
            ),
            Mistake(
                "through theta only",
                lambda: lambda direct, through, jacobian: jacobian.T @ through,
                "For this notebook's problem the first part is zero; in general it is not.",
            ),
            Mistake(
                "direct only",
                lambda: lambda direct, through, jacobian: direct,
                'That is all that the paper\'s "direct" influence is made of. What about the way through $\\theta$?',
            ),
        ),
        (
            "Theorem 4.1: two ways from $\\lambda$ to the loss, and their gradients add.",
            "$\\partial_\\lambda f + (d\\theta/d\\lambda)^\\top\\,\\partial_\\theta f$.",
        ),
    ),
    Exercise(
        "08.4",
        "Derive the sign of Algorithm 4",
        "find what a printed iteration converges to",
        "guided",
        12,
        Function("fixed_point(H, delta, T)", _iterations, lambda H, delta, T: Numbers((len(T),), 1e-6)),
        lambda: functools.partial(_solved, sign=-1.0),
        (
            Mistake(
                "as it should be",
                lambda: functools.partial(_solved, sign=1.0),
                "That is what the algorithm *should* give. Collect the terms of what is printed.",
            ),
            Mistake(
                "sign turned",
                lambda: lambda H, delta, T: -_solved(H, delta, T, sign=-1.0),
                "Check the side on which $T$ stands.",
            ),
            Mistake(
                "minus the mended one",
                lambda: lambda H, delta, T: -_solved(H, delta, T, sign=1.0),
                "Look at the sign of $H I$ again, then at that of $\\delta I$.",
            ),
        ),
        (
            "At the fixed point $I$ stands on both sides, and cancels.",
            "$\\delta I - H I = T$: solve for the vector.",
        ),
    ),
    Exercise(
        "08.5",
        "Derive the sign of Proposition 4.8",
        "let a problem solved again decide about a printed sign",
        "guided",
        12,
        Choice(SIGNED),
        _signed,
        tuple(
            Mistake(word, functools.partial(str, word), f'{hint} Compare with `-again["training_weights"]`.')
            for word, hint in _OF_SIGNED.items()
        ),
        (
            "`influence.training_example(7, 3)` is $+S^{-1}D_\\lambda P$; so $D_\\lambda P$ is $S$ times it.",
            "Without $l_2$ the curvature is `S - learner.l2 * torch.eye(learner.q)`; it is singular, so use "
            "`torch.linalg.pinv`.",
        ),
    ),
    Exercise(
        "08.6",
        "Lies inside a task",
        "choose a ranking by the question, not by its price",
        "open",
        15,
        Choice(FINDERS),
        _finder,
        tuple(
            Mistake(word, functools.partial(str, word), f"{hint} Compute all three areas.")
            for word, hint in _OF_FINDERS.items()
        ),
        (
            '`xl.datasets.flip_task_labels(clean, tasks_fraction=0.25, labels_fraction=0.4, seed=0, part="support")`.',
            "Solve, then the three scores of *Run*, then `xl.metrics.mislabel_auc(score, flipped)`.",
        ),
    ),
)
