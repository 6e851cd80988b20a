"""docs/teach/signs.md: the sign and the factor of every row, held against a tiny problem solved again."""

from __future__ import annotations

import re
import warnings
from fractions import Fraction
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

import explainlib as xl
from tests.language import Reader, by_tokens, seeded, sentences, token_losses
from tests.meta.few_shot import random_tasks, tanh_maml
from tests.problems import classes, targets

PAGE = Path(__file__).parents[1] / "docs" / "teach" / "signs.md"
LESS = 1e-4  # the share of its weight that an example loses where a factor is about a derivative
N, M = 9, 4  # training examples, training tasks
ROW = re.compile(
    r"^\| [^|]+ \| `(?P<call>[^`]+)` \| (?P<above>[^|]+) \| (?P<unit>[^|]+) \| (?P<factor>[^|]+) \|$", re.M
)
# What removal does to the quantity that a positive value is about: the test loss, or a parameter or an output.
MEANINGS = {"harmful": -1, "helpful": 1, "raises it": -1, "it rises on removal": 1}
Pair = tuple[Tensor, Tensor]  # values, and the change that removal makes


def rows() -> dict[str, tuple[str, str]]:
    return {found["call"]: (found["above"], found["factor"]) for found in ROW.finditer(PAGE.read_text())}


@cache
def risk() -> xl.Risk:
    model = xl.models.logistic(2, 3, dtype=torch.float64)
    return xl.training.minimise(xl.Risk(model, classes(N, 2), l2=1.0), tolerance=1e-13)


@cache
def unseen() -> xl.datasets.Examples:
    return classes(4, 2, seed=5)


def lighter(j: int, less: float = LESS, n: int = N) -> Tensor:
    weights = torch.ones(n, dtype=torch.float64)
    weights[j] -= less
    return weights


@cache
def moved() -> list[xl.Risk]:
    """The minimum again, each example once a little lighter."""
    return [xl.training.minimise(risk().reweighted(lighter(j)), tolerance=1e-13) for j in range(N)]


def theta_change() -> Tensor:
    return torch.stack([(again.theta - risk().theta) / LESS for again in moved()])


def loss_change() -> Tensor:
    return torch.stack([(again.losses(unseen()) - risk().losses(unseen())) / LESS for again in moved()], 1)


@cache
def reader() -> xl.Risk:
    made = xl.Risk(seeded(Reader), sentences(N), loss="token_cross_entropy", l2=0.2)
    return xl.training.minimise(made, tolerance=1e-12)


UNSEEN_TOKENS = sentences(3, seed=5)


def token_change() -> Pair:
    before, ends = token_losses(reader(), UNSEEN_TOKENS), []
    for j in range(N):
        again = xl.training.minimise(reader().reweighted(lighter(j)), tolerance=1e-12)
        ends.append((token_losses(again, UNSEEN_TOKENS) - before) / LESS)
    return xl.influence.token_influence(reader(), UNSEEN_TOKENS), torch.stack(ends, 2)


def training_token_change() -> Pair:
    """Each target an example of its own, so that one of them can be lighter."""
    risk, train = reader(), by_tokens(reader().train)
    alone = xl.Risk(risk.model, train, loss=risk.loss, l2=risk.l2 * N / len(train))  # N/len(train) of the first
    before, ends = risk.losses(UNSEEN_TOKENS), []
    for k in range(len(train)):
        again = xl.training.minimise(alone.reweighted(lighter(k, n=len(train))), tolerance=1e-12)
        ends.append((again.losses(UNSEEN_TOKENS) - before) / LESS)
    found = xl.influence.token_influence(risk, UNSEEN_TOKENS, tokens="train")
    return found[:, risk.train.y != -100], torch.stack(ends, 1)


GROUPS = [[0, 3], [1, 5], [2]]


def truth(weighting: str = "preserve") -> tuple[Tensor, Tensor]:
    """The parameters without each group, and the test losses there: other weights written out here."""
    ends = []
    for group in GROUPS:
        weights = torch.ones(N, dtype=torch.float64)
        weights[group] = 0.0
        if weighting == "preserve":
            weights *= N / (N - len(group))
        ends.append(xl.training.minimise(risk().reweighted(weights), tolerance=1e-13))
    losses = torch.stack([end.losses(unseen()) - risk().losses(unseen()) for end in ends], 1)
    return torch.stack([end.theta - risk().theta for end in ends]), losses


def effect(order, weighting="preserve"):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", xl.influence.SeriesWarning)
        return xl.influence.removal_effect(risk(), GROUPS, order=order, weighting=weighting)


def descend(weights: Tensor, *, steps: int, rate: float) -> list[Tensor]:
    """Gradient descent with example weights, by hand: every point it visits."""
    at = [xl.Risk(xl.models.logistic(2, 3, dtype=torch.float64), classes(N, 2)).theta]
    for _ in range(steps):
        here = risk().at(at[-1])
        at.append(at[-1] - rate / N * weights @ here.loss_gradients())
    return at


def visited(rate: float, steps: int = 3) -> list[Tensor]:
    return descend(torch.ones(N, dtype=torch.float64), steps=steps, rate=rate)


def tracin() -> Pair:
    rate = 1e-4
    at = visited(rate)
    run = xl.training.Trajectory(risk().model, torch.stack(at[:-1]), torch.full((3,), rate, dtype=torch.float64))
    ends = [risk().at(descend(lighter(j, 1.0), steps=3, rate=rate)[-1]).losses(unseen()) for j in range(N)]
    return xl.influence.tracin(run, risk().train, unseen()), torch.stack(ends, 1) - risk().at(at[-1]).losses(unseen())[
        :, None
    ]


def one_step(output: int = 1) -> Pair:
    """One step of descent on a linear model: what each example added to an output is known exactly."""
    start = xl.models.logistic(2, 3, dtype=torch.float64)
    run = xl.training.fit(start, risk().train, epochs=1, lr=0.1, optimizer="sgd", record=True)
    near = xl.representers.kernel(start, unseen().x, risk().train.x, kind="last_layer")
    scores = xl.representers.representer_scores(xl.representers.tracking_importance(run), near, output=output)
    whole = risk().at(descend(torch.ones(N, dtype=torch.float64), steps=1, rate=0.1)[-1]).outputs(unseen())[:, output]
    without = [
        risk().at(descend(lighter(j, 1.0), steps=1, rate=0.1)[-1]).outputs(unseen())[:, output] for j in range(N)
    ]
    return scores, torch.stack(without, 1) - whole[:, None]


def output_change(output: int = 1) -> Tensor:
    return torch.stack([(again.outputs(unseen()) - risk().outputs(unseen()))[:, output] / LESS for again in moved()], 1)


def target_scores() -> Pair:
    alpha = xl.representers.target_importance(risk())
    near = xl.representers.kernel(risk().model, unseen().x, risk().train.x, kind="last_layer")
    return xl.representers.representer_scores(alpha, near, output=1), output_change()


def points() -> Pair:
    """The output is the sum of the points, so without one point and with the others held it is less by that point."""
    linear = torch.nn.Linear(2, 1, dtype=torch.float64)
    ridge = xl.training.minimise(xl.Risk(linear, targets(N, 2), loss="squared_error", l2=0.1), tolerance=1e-13)
    new = targets(4, 2, seed=5)
    found = xl.representers.representer_points(ridge, new, output=0)
    features = torch.cat([ridge.train.x, torch.ones(N, 1, dtype=torch.float64)], 1)
    pushes = -ridge.loss.gradient(ridge.outputs(), ridge.train.y) / (N * ridge.l2)  # theta = sum of these times x
    held = [(pushes[torch.arange(N) != j].T @ features[torch.arange(N) != j])[0] for j in range(N)]
    x = torch.cat([new.x, torch.ones(4, 1, dtype=torch.float64)], 1)
    return found, torch.stack([x @ theta for theta in held], 1) - ridge.outputs(new)


@cache
def learned():
    """A smooth MAML learner at the minimum of four tasks, the same with each task lighter, and two test tasks."""
    tasks, tests = random_tasks(M, ways=2, shots=2, queries=2), random_tasks(2, ways=2, shots=2, queries=2, seed=9)
    learner = tanh_maml(inner_lr=0.1, ways=2, hidden=2)
    solve = lambda start=None, **options: xl.meta.minimise(learner, tasks, l2=0.1, start=start, **options).w  # noqa: E731
    w = solve()
    again = [solve(w, weights=lighter(k, n=M)) for k in range(M)]
    influence = xl.influence.TaskInfluence(learner, w, tasks, l2=0.1, strict=True)
    change = torch.stack([(learner.losses(u, tests) - learner.losses(w, tests)) / LESS for u in again], 1)
    return learner, tasks, tests, w, influence, torch.stack([(u - w) / LESS for u in again]), change


def task_groups() -> Pair:
    influence, change = learned()[4], learned()[6]
    return influence.performance(learned()[2], groups=[[0, 2], [1, 3]]), change[:, [0, 1]] + change[:, [2, 3]]


def tasks_left_out() -> Pair:
    """``loss_change`` beside two trainings in whole batches, one with all tasks and one without the group."""
    learner, tasks, tests = learned()[:3]
    found = xl.meta.leave_tasks_out(learner, tasks, [[0], [1]], batches=30, batch_size=M, lr=1e-2)
    ends = [xl.meta.train(learner, tasks[rest], batches=30, batch_size=len(rest), lr=1e-2).w
            for rest in ([0, 1, 2, 3], [1, 2, 3], [0, 2, 3])]  # fmt: skip
    losses = [learner.losses(end, tests) for end in ends]
    return found.loss_change(tests), torch.stack([after - losses[0] for after in losses[1:]], 1)


@cache
def bilevel():
    """Softmax regression near a common start: three tasks, two new ones."""
    tasks, new = random_tasks(3, ways=2, shots=1, queries=2), random_tasks(2, ways=2, shots=1, queries=2, seed=9)
    learner = xl.meta.Bilevel(xl.models.logistic(3, 2, dtype=torch.float64), strength=1.0, l2=1.0)
    lam = xl.meta.solve(learner, tasks, tolerance=1e-12).w
    return learner, tasks, new, lam, xl.influence.BilevelInfluence(learner, lam, tasks)


def solved_again(kind: str, place: tuple[int, ...], shape: tuple[int, ...]) -> Tensor:
    learner, tasks, _, lam, _ = bilevel()
    weights = torch.ones(shape, dtype=torch.float64)
    weights[place] -= LESS
    return xl.meta.solve(learner, tasks, start=lam, tolerance=1e-12, **{kind: weights}).w


def lam_change(kind: str, *place: int) -> Tensor:
    shape = {"weights": (3,), "validation_weights": (3, 4), "training_weights": (3, 2)}[kind]
    return (solved_again(kind, place, shape) - bilevel()[3]) / LESS


def new_change(kind: str, places: list[tuple[int, ...]]) -> Tensor:
    learner, _, new, lam, _ = bilevel()
    now = learner.outer_losses(lam, new)
    return torch.stack([(learner.outer_losses(lam + LESS * lam_change(kind, *p), new) - now) / LESS for p in places], 1)


def inner_alone() -> Pair:
    learner, tasks, _, lam, influence = bilevel()
    changes = []
    for i in range(2):
        weights = torch.ones(3, 2, dtype=torch.float64)
        weights[0, i] -= LESS
        given = xl.meta.TaskWeights.of(tasks, training=weights)
        losses = [learner.outer_losses(lam, tasks, weights=some)[0] for some in (given, None)]
        changes.append((losses[0] - losses[1]) / LESS)
    return influence.inner_performance(0), torch.stack(changes)


EXAMPLES = [(k, i) for k in range(3) for i in range(2)]
CHECKS = {
    "parameter_influence(risk)": lambda: (xl.influence.parameter_influence(risk()), theta_change()),
    "loss_influence(risk, test)": lambda: (xl.influence.loss_influence(risk(), unseen()), loss_change()),
    "explain(risk, test).values": lambda: (xl.explain(risk(), unseen()).values, loss_change()),
    "token_influence(risk, test)": token_change,
    'token_influence(risk, test, tokens="train")': training_token_change,
    "removal_effect(...).theta1": lambda: (effect(1, "plain").theta1, torch.stack([theta_change()[g].sum(0) for g in GROUPS])),
    "removal_effect(...).change": lambda: (effect("newton").change, truth()[0]),
    "removal_effect(...).loss_change(test)": lambda: (effect("newton").loss_change(unseen()), truth()[1]),
    "second_order_influence(risk, test, groups)": lambda: (
        xl.influence.second_order_influence(risk(), unseen(), GROUPS), truth()[1].mean(0)
    ),
    "leave_out(risk, groups).loss_change(test)": lambda: (
        xl.retraining.leave_out(risk(), GROUPS).loss_change(unseen()), truth()[1]
    ),
    "tracin(run, train, test)": tracin,
    "trak(risk, test)": lambda: (xl.influence.trak(risk(), unseen(), features=None, damping=5.0), loss_change()),
    "gradient_cosine(risk, test)": lambda: (xl.representers.gradient_cosine(risk(), unseen()), loss_change()),
    "representer_scores(tracking, kernel)": one_step,
    "representer_scores(target, kernel)": target_scores,
    "representer_points(risk, test)": points,
    "TaskInfluence(...).meta": lambda: (learned()[4].meta, learned()[5]),
    "TaskInfluence(...).performance(tests)": lambda: (learned()[4].performance(learned()[2]), learned()[6]),
    "TaskInfluence(...).performance(tests, groups=groups)": task_groups,
    "cosine_scores(learner, w, tasks, tests)": lambda: (
        xl.influence.cosine_scores(learned()[0], learned()[3], *learned()[1:3]), learned()[6]
    ),
    "leave_tasks_out(...).loss_change(tests)": tasks_left_out,
    "BilevelInfluence(...).task(k)": lambda: (bilevel()[4].task(1), lam_change("weights", 1)),
    "BilevelInfluence(...).validation_example(k, i)": lambda: (
        bilevel()[4].validation_example(1, 0), lam_change("validation_weights", 1, 0)
    ),
    "BilevelInfluence(...).training_example(k, i)": lambda: (
        bilevel()[4].training_example(1, 0), lam_change("training_weights", 1, 0)
    ),
    "BilevelInfluence(...).performance(new)": lambda: (
        bilevel()[4].performance(bilevel()[2]), new_change("weights", [(0,), (1,), (2,)])
    ),
    "BilevelInfluence(...).example_performance(new)": lambda: (
        bilevel()[4].example_performance(bilevel()[2]).flatten(1), new_change("training_weights", EXAMPLES)
    ),
    "BilevelInfluence(...).inner_performance(k)": inner_alone,
}  # fmt: skip
# Where the value is an approximation of a whole removal and not a derivative: how far off it may be, in norm.
WHOLE = {
    "removal_effect(...).change": 0.3, "removal_effect(...).loss_change(test)": 0.3,
    "second_order_influence(risk, test, groups)": 0.3,
}  # fmt: skip


@cache
def checked(call: str) -> Pair:
    return CHECKS[call]()


def factor_of(text: str) -> float | None:
    """Return the factor of a cell, None for a ranking."""
    number = text.split(",")[0].strip()
    if number == "order only":
        return None
    for name, size in (("n", N), ("M", M), ("batch", N)):
        number = re.sub(rf"\b{name}\b", str(size), number)
    return float(Fraction(number))


def test_every_row_has_its_check_and_every_check_its_row():
    assert set(rows()) == set(CHECKS) and len(ROW.findall(PAGE.read_text())) == len(CHECKS)
    assert {above for above, _ in rows().values()} <= set(MEANINGS)


def means(call: str, above: str, factor: str) -> bool:
    """Return whether a positive value is about what the cell says: in sign where it is clear, or as a ranking."""
    value, change = checked(call)
    assert value.shape == change.shape and float(change.abs().max()) > 0
    if factor_of(factor) is None:  # it goes with the truth, not against it
        both = torch.stack([MEANINGS[above] * value.flatten(), change.flatten()])
        return bool(torch.corrcoef(both)[0, 1] > 0.5)
    clear = (value.abs() > 0.2 * value.abs().max()) & (change.abs() > 0.2 * change.abs().max())
    return bool(clear.any() and (change[clear].sign() == MEANINGS[above] * value[clear].sign()).all())


def error(call: str, factor: str) -> float:
    """Return how far value times factor is off the change on removal, relative to it; 0 for a ranking."""
    value, change = checked(call)
    size = factor_of(factor)
    return 0.0 if size is None else float((size * value - change).norm() / change.norm())


@pytest.mark.parametrize("call", CHECKS)
def test_a_positive_value_means_what_the_table_says(call):
    assert means(call, *rows()[call])


@pytest.mark.parametrize("call", CHECKS)
def test_the_factor_turns_the_value_into_the_change_on_removal(call):
    assert error(call, rows()[call][1]) < WHOLE.get(call, 2e-3)


def test_the_second_term_of_a_group_keeps_its_sign():
    """The page says -theta1 + theta2, and that is what the library adds up and what comes nearer to the truth."""
    found, true = effect(2), truth()[0]
    assert torch.allclose(found.change, found.theta2 - found.theta1)
    errors = [(sign * found.theta2 - found.theta1 - true).norm() for sign in (1, -1)]
    assert errors[0] < errors[1]


SPOILED = [("| harmful |", "| helpful |"), ("| -1/n |", "| 1/n |"), ("| -1/M |", "| -1 |")]


@pytest.mark.parametrize(("right", "wrong"), SPOILED)
def test_a_wrong_table_is_seen(right, wrong):
    """The checks above can fail: where one sort of cell is spoiled, the problem disagrees with every such row."""
    page = PAGE.read_text()
    for before, after in zip(ROW.finditer(page), ROW.finditer(page.replace(right, wrong)), strict=True):
        call, cells = after["call"], (after["above"], after["factor"])
        if cells != (before["above"], before["factor"]):
            assert not means(call, *cells) or error(call, cells[1]) > 0.3, call
