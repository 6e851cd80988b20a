"""The exercises of notebook 07, on noise among the tasks and on the buffer."""

from __future__ import annotations

import functools
import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from explainlib.course.exercises.answers import Choice, Function, Number, Numbers
from explainlib.course.exercises.exercise import Exercise, Mistake
from explainlib.studies.claims import student_interval
from explainlib.studies.tlxml import read_order

CONTROLS = ("plain gradient products", "cosines", "random projector")
BYTES = 4  # of a float32
DECAY = 0.01  # of the learners of exercise 07.6


def _sizes() -> list[tuple[object, ...]]:
    """Return parameters, tasks, queries of a task and ways of two learners."""
    return [(541, 16, 25, 5), (20_000, 300, 45, 3)]


def _bytes(q: int, M: int, queries: int, columns: int) -> float:
    return BYTES * q * M * queries * columns / 1e9


def _marked_tables() -> list[tuple[object, ...]]:
    """Return two tables of scores [test, train], and which training tasks are normal."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for tests, normal, noise in ((40, 7, 2), (30, 4, 3)):
        mask = torch.arange(normal + noise) < normal
        scores = torch.randn(tests, normal + noise, generator=generator) - 0.4 * mask
        made.append((scores, mask))
    return made


def _in_order(scores: Float[Tensor, "t M"], normal: Bool[Tensor, " M"], *, sums: bool = False) -> Tensor:
    """Return which tests the normal tasks help more than the noise tasks, on average or in sum."""
    parts = [scores[:, mask].sum(1) if sums else scores[:, mask].mean(1) for mask in (normal, ~normal)]
    return parts[0] < parts[1]


@functools.cache
def _blind() -> str:
    """Return the control that stays the same when one training gradient is made ten times longer."""
    generator = torch.Generator().manual_seed(0)
    test, train = torch.randn(3, 12, generator=generator), torch.randn(4, 12, generator=generator)
    basis = torch.linalg.qr(torch.randn(12, 5, generator=generator))[0]
    scores = {
        CONTROLS[0]: lambda rows: test @ rows.T,
        CONTROLS[1]: lambda rows: torch.nn.functional.normalize(test) @ torch.nn.functional.normalize(rows).T,
        CONTROLS[2]: lambda rows: (test @ basis) @ (rows @ basis).T,
    }
    longer = train * torch.tensor([10.0, 1.0, 1.0, 1.0])[:, None]
    return next(name for name, score in scores.items() if torch.allclose(score(train), score(longer)))


def _columns() -> list[tuple[object, ...]]:
    """Return the columns of two tasks as rows, and a share of the trace."""
    generator = torch.Generator().manual_seed(1)
    made = []
    for rows, share in ((12, 0.9), (30, 0.75)):
        spread = torch.exp(-torch.arange(40) / 6.0)
        made.append((torch.randn(rows, 40, generator=generator) * spread, share))
    return made


def _directions(rows: Float[Tensor, "r q"], share: float, *, power: int = 2) -> int:
    """Return how many leading directions have at least a share of the trace."""
    energy = torch.linalg.svdvals(rows) ** power
    return int((energy.cumsum(0) < share * energy.sum()).sum()) + 1


def _copied_tables() -> list[tuple[object, ...]]:
    """Return two tables of scores of copies [test, copy], and the origin of each copy, in no order."""
    generator = torch.Generator().manual_seed(2)
    return [
        (torch.randn(3, 6, generator=generator), torch.tensor([0, 1, 2, 0, 1, 2])),
        (torch.randn(2, 8, generator=generator), torch.tensor([1, 0, 3, 2, 3, 1, 0, 2])),
    ]


def _by_origin(scores: Float[Tensor, "t M"], group: Int[Tensor, " M"]) -> Float[Tensor, "t G"]:
    """Return the sum of the scores of each origin's copies."""
    return torch.zeros(len(scores), int(group.max()) + 1).index_add(1, group, scores)


@functools.cache
def _shares() -> tuple[Tensor, int]:
    """Return the share of unseen tests in proper order for each network with decay, and the tests of a network."""
    order = read_order()
    (mixture,) = (m for m in order.mixtures if m.weight_decay == DECAY)
    rows = order.rows(mixture, "unseen", "buffer")
    return torch.tensor((rows["mean_count"] / rows["tests"]).to_numpy()), int(rows["tests"].iloc[0])


def _lower_end(factor: float | None = None, *, units: int | None = None) -> float:
    """Return the lower end of a 95% interval for the mean share: Student's over networks, unless told otherwise."""
    shares, tests = _shares()
    mean, spread = float(shares.mean()), float(shares.std())
    if units is not None:  # all tests as if they were independent
        return mean - 1.96 * math.sqrt(mean * (1 - mean) / (tests * len(shares)))
    if factor is not None:
        return mean - factor * spread
    return float(student_interval(shares.numpy())[1])


_OF_CONTROLS = {  # one for each, so that the list says nothing about which is right
    CONTROLS[0]: "Make one training gradient ten times longer: what happens to its product with a test's?",
    CONTROLS[1]: "What is left of a length after dividing by it?",
    CONTROLS[2]: "A projection shortens a long gradient and a short one by about the same factor.",
}

EXERCISES = (
    Exercise(
        "07.1",
        "How much memory?",
        "say before computing whether a matrix fits",
        "warm-up",
        4,
        Function("gigabytes(q, M, queries, ways)", _sizes, lambda q, M, queries, ways: Number(1e-6)),
        lambda: lambda q, M, queries, ways: _bytes(q, M, queries, ways - 1),
        (
            Mistake(
                "C columns an example",
                lambda: lambda q, M, queries, ways: _bytes(q, M, queries, ways),
                "The logits of one example add up to a shift that the softmax does not see: one column less will do.",
            ),
            Mistake(
                "one column an example",
                lambda: lambda q, M, queries, ways: _bytes(q, M, queries, 1),
                "One query example gives several columns. The table above says how many of how many are enough.",
            ),
            Mistake(
                "bytes",
                lambda: lambda q, M, queries, ways: 1e9 * _bytes(q, M, queries, ways - 1),
                "Those are bytes. Answer in gigabytes.",
            ),
            Mistake(
                "the Hessian",
                lambda: lambda q, M, queries, ways: BYTES * q * q / 1e9,
                "That is the Hessian, as many columns as rows. $V$ has $q$ rows, and how many columns?",
            ),
        ),
        (
            "Rows times columns times the bytes of one float32.",
            "Columns: one for each task, query example and class but one.",
        ),
    ),
    Exercise(
        "07.2",
        "Proper order by hand",
        "write the count that the study reports",
        "warm-up",
        6,
        Function("in_order(scores, normal)", _marked_tables, lambda scores, normal: Number(0.0)),
        lambda: lambda scores, normal: int(_in_order(scores, normal).sum()),
        (
            Mistake(
                "sign turned",
                lambda: lambda scores, normal: int((~_in_order(scores, normal)).sum()),
                "You counted the tests that noise helps more. A helpful task has a *negative* score.",
            ),
            Mistake(
                "a share",
                lambda: lambda scores, normal: float(_in_order(scores, normal).double().mean()),
                "That is a share. Answer with the number of tests.",
            ),
            Mistake(
                "sums for means",
                lambda: lambda scores, normal: int(_in_order(scores, normal, sums=True).sum()),
                "There are more normal tasks than noise tasks, so a sum favours one kind. Compare means.",
            ),
        ),
        (
            "Two means for each test: over the columns that are normal, and over the others.",
            "`scores[:, normal].mean(1)` against `scores[:, ~normal].mean(1)`. Which one is below in proper order?",
        ),
    ),
    Exercise(
        "07.3",
        "A control that costs nothing",
        "find the control that sees directions alone",
        "guided",
        8,
        Choice(CONTROLS),
        _blind,
        tuple(
            Mistake(word, functools.partial(str, word), f"{hint} Try it on numbers of your own.")
            for word, hint in _OF_CONTROLS.items()
        ),
        (
            "`learner.gradients(w, tasks).norm(dim=1)` has the lengths, before training with `learner.w0`.",
            "Which of the three divides by something?",
        ),
    ),
    Exercise(
        "07.4",
        "How many directions?",
        "choose a compression by the share of the trace that it keeps",
        "guided",
        8,
        Function("directions(rows, share)", _columns, lambda rows, share: Number(0.0)),
        lambda: _directions,
        (
            Mistake(
                "not squared",
                lambda: lambda rows, share: _directions(rows, share, power=1),
                "Those are singular values. The eigenvalues of $VV^\\top$, whose sum is the trace, are their squares.",
            ),
            Mistake(
                "one too few",
                lambda: lambda rows, share: _directions(rows, share) - 1,
                "With these the share is not yet reached. Count the one that reaches it.",
            ),
            Mistake(
                "a share of the rows",
                lambda: lambda rows, share: math.ceil(share * min(rows.shape)),
                "That is a share of the *number* of directions. They differ in what they hold: look at the spectrum.",
            ),
        ),
        (
            "The cell above computes the shares for 4, 16 and 32 directions of one task.",
            "`torch.linalg.svdvals(rows).square().cumsum(0)`, divided by its last entry.",
        ),
    ),
    Exercise(
        "07.5",
        "Copies count for their origin",
        "sum the scores of turned copies, as eq. (9) does",
        "guided",
        8,
        Function(
            "by_origin(scores, group)",
            _copied_tables,
            lambda scores, group: Numbers((len(scores), int(group.max()) + 1), 1e-6, "tests first"),
        ),
        lambda: _by_origin,
        (
            Mistake(
                "mean of the copies",
                lambda: lambda scores, group: _by_origin(scores, group) / group.bincount(),
                "That is the mean. If an origin had never been there, all of its copies would be gone.",
            ),
            Mistake(
                "neighbours are copies",
                lambda: lambda scores, group: scores.unflatten(1, (int(group.max()) + 1, -1)).sum(2),
                "You took neighbouring columns for copies of one task. `group` says which belong together.",
            ),
            Mistake(
                "blocks are copies",
                lambda: lambda scores, group: scores.unflatten(1, (-1, int(group.max()) + 1)).sum(1),
                "You took the order of the first block for that of all. `group` says which belong together.",
            ),
            Mistake(
                "last copy only",
                lambda: lambda scores, group: torch.stack([scores[:, group == g][:, -1] for g in group.unique()], 1),
                "Each origin has several copies. Take all of them.",
            ),
        ),
        (
            "One column for each value of `group`.",
            "`torch.stack([scores[:, group == g].sum(1) for g in range(...)], 1)`.",
        ),
    ),
    Exercise(
        "07.6",
        "Four networks or many tests?",
        "give an interval over what was really repeated",
        "open",
        12,
        Number(),
        _lower_end,
        (
            Mistake(
                "tests as if independent",
                lambda: _lower_end(units=1),
                "You counted every test of every network as a trial of its own. Tests of one network share its luck.",
            ),
            Mistake(
                "not divided by the root",
                lambda: _lower_end(1.96),
                "That is where a *further network* may lie. The interval of a mean is narrower: divide by the root of "
                "their number.",
            ),
            Mistake(
                "1.96 for four",
                lambda: _lower_end(1.96 / 2),
                "The spread is itself estimated, from four numbers, so 1.96 is too little. Whose distribution knows?",
            ),
        ),
        (
            '`order.rows(m, "unseen", "buffer")` has a row for each network; find the mixture with that decay.',
            "Mean minus $t_{.975,3}\\, s/\\sqrt 4$; `scipy.stats.t.ppf(0.975, 3)` has the factor.",
        ),
    ),
)
