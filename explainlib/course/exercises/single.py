"""The exercises of notebook 01, on the influence of single digits."""

from __future__ import annotations

import functools

import torch
from jaxtyping import Float, Int
from torch import Tensor

from explainlib.course.exercises.answers import Choice, Count, Function, Number, Numbers
from explainlib.course.exercises.exercise import Exercise, Mistake
from explainlib.course.exercises.problems import digits, digits_risk, one_hot_risk
from explainlib.curvature import hessian
from explainlib.datasets import Examples, load
from explainlib.influence import loss_influence
from explainlib.metrics import fidelity
from explainlib.models import logistic, mlp
from explainlib.retraining import leave_out
from explainlib.risk import Risk
from explainlib.training import fit, minimise

TEST, TRAIN = 7, 426  # the pair of exercise 01.2
TEN = 10  # leverages of exercise 01.4
CURVATURES = {"hessian": 0.0, "gauss_newton": 0.0, "empirical_fisher": 0.01, "identity": 0.0}  # with their damping


def _tables() -> list[tuple[object, ...]]:
    """Return two small tables [test, train] with numbers of training examples."""
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(2, 3, generator=generator), 3), (torch.randn(4, 5, generator=generator), 5)]


@functools.cache
def _hessian() -> Float[Tensor, "p p"]:
    return hessian(digits_risk())


def _pair(*, extra: float = 0.0, solve: bool = True, ridge_in_gradient: bool = False) -> float:
    """Return -grad l_t^T H^-1 grad l_j of the pair, or what a mistake makes of it."""
    risk = digits_risk()
    test, train = (risk.loss_gradients(part[[i]])[0] for part, i in ((digits().test, TEST), (digits().train, TRAIN)))
    train = train + risk.l2 * risk.theta if ridge_in_gradient else train
    H = _hessian() + extra * torch.eye(risk.p)
    return -float(test @ (torch.linalg.solve(H, train) if solve else train))


@functools.cache
def _mislabelled() -> tuple[Risk, Int[Tensor, " k"]]:
    """Return the risk on digits of which 75 have a wrong label, at its minimum, and which they are."""
    generator = torch.Generator().manual_seed(1)
    train = digits().train
    flipped = torch.randperm(len(train), generator=generator)[:75]
    y = train.y.clone()
    y[flipped] = (y[flipped] + 1 + torch.randint(9, (75,), generator=generator)) % 10
    noisy = Examples(train.x, y, train.classes)
    return minimise(Risk(logistic(64, 10, dtype=torch.float64), noisy, l2=1e-2)), flipped


def _found(*, first: int = 150, by: str = "self-influence") -> int:
    """Return how many of the wrong labels are among the first suspects."""
    risk, flipped = _mislabelled()
    if by == "loss":
        suspects = risk.losses().argsort(descending=True)
    else:
        own = loss_influence(risk, risk.train).diagonal()
        suspects = own.argsort(descending=by == "largest")
    return int(torch.isin(suspects[:first], flipped).sum())


def _leverages(*, factor: float = 2.0, ridge: bool = True, bias: bool = True, mean: bool = True) -> Float[Tensor, " k"]:
    """Return h = 2/n x^T H^-1 x of ten digits, H one block of the least squares Hessian."""
    risk = one_hot_risk()
    ones = torch.ones(risk.n, 1)
    x = torch.cat([risk.train.x, ones], 1) if bias else risk.train.x
    block = 2 * x.T @ x / risk.n + (risk.l2 if ridge else 0.0) * torch.eye(x.shape[1])
    inverse = torch.linalg.pinv(block, hermitian=True, rtol=1e-9)  # without a ridge some pixels are always blank
    h = factor * (x[:TEN] @ inverse * x[:TEN]).sum(1)
    return h / risk.n if mean else h


def _shift(*, sign: float = 1.0, ridge: bool = True, each: bool = True) -> float:
    """Return how much more the loss of the test digit changes when the rest is averaged anew."""
    risk = digits_risk()
    direction = torch.linalg.solve(_hessian(), risk.theta)
    change = risk.loss_gradients(digits().test[[TEST]])[0] @ direction
    return sign * float(change) * (risk.l2 if ridge else 1.0) / (risk.n - 1 if each else 1)


@functools.cache
def _agreements() -> dict[str, float]:
    """Return the rank correlation with retraining of the influence by each curvature, for a small network."""
    train = load("digits", limit=300).double().train
    start = fit(mlp([64, 6, 10], "tanh", dtype=torch.float64), train, epochs=300, lr=0.02, weight_decay=1e-2)
    net = minimise(Risk(start.model, train, l2=1e-2))
    test = digits().test[:20]
    truth = leave_out(net, [[i] for i in range(30)], weighting="plain").loss_change(test)
    return {
        name: float(
            fidelity(-loss_influence(net, test, curvature=name, damping=damping)[:, :30] / net.n, truth).spearman
        )
        for name, damping in CURVATURES.items()
    }


def _best() -> str:
    return max(_agreements(), key=_agreements().__getitem__)


_OF_CURVATURES = {  # one for each, so that the list says nothing about which is right
    "hessian": "It holds the curvature of the network itself, and costs most. Does the table say that it pays?",
    "gauss_newton": "It gets the sizes nearly right. But which one puts the thirty digits in the right *order*?",
    "empirical_fisher": "The mean outer product of gradients is no curvature away from small losses; compare the "
    "Spearman correlations.",
    "identity": "Without curvature the score is a product of gradients. Compare the Spearman correlations.",
}

EXERCISES = (
    Exercise(
        "01.1",
        "From influence to removal",
        "write the factor between influence and removal as a function",
        "warm-up",
        4,
        Function("f(influence, n)", _tables, lambda influence, n: Numbers(tuple(influence.shape), 1e-6, "test first")),
        lambda: lambda influence, n: -influence / n,
        (
            Mistake(
                "sign turned",
                lambda: lambda influence, n: influence / n,
                "That is a little *more* weight on the example. Removal takes weight away.",
            ),
            Mistake(
                "factor n missing",
                lambda: lambda influence, n: -influence,
                "Each example has the weight $1/n$ and loses no more than that.",
            ),
            Mistake(
                "divided by n - 1",
                lambda: lambda influence, n: -influence / (n - 1),
                "The weight that leaves is the one that the example *had*, among all n.",
            ),
        ),
        (
            "Which extra weight $\\varepsilon$ turns the weight $1/n$ of an example into zero?",
            "Multiply the derivative by that $\\varepsilon$. Shape and axes of the table stay.",
        ),
    ),
    Exercise(
        "01.2",
        "Eq. (2) by hand",
        "compute one influence from H and two gradients, with the ridge in its place",
        "warm-up",
        6,
        Number(2e-3),
        _pair,
        (
            Mistake("sign turned", lambda: -_pair(), "The size is right; look at the sign in eq. (2)."),
            Mistake(
                "no curvature",
                lambda: _pair(solve=False),
                "That is a product of gradients. Between them stands the inverse of $H$.",
            ),
            Mistake(
                "ridge added twice",
                lambda: _pair(extra=digits_risk().l2),
                "`xl.curvature.hessian(risk)` has the ridge inside; you added it once more.",
            ),
            Mistake(
                "ridge forgotten in H",
                lambda: _pair(extra=-digits_risk().l2 * (1 - 1e-6)),
                "The ridge is a part of $R$, so it is a part of $H$ as well. You left it out.",
            ),
            Mistake(
                "ridge in the gradient",
                lambda: _pair(ridge_in_gradient=True),
                "$\\nabla\\ell_j$ is the gradient of the example's loss alone: the ridge belongs to nobody.",
            ),
            Mistake(
                "removal instead of influence",
                lambda: -_pair() / digits_risk().n,
                "That is the predicted effect of a removal. The influence is the rate itself.",
            ),
        ),
        (
            "Three things: a gradient of a test loss, one of a training loss, and $H$.",
            f"`risk.loss_gradients(digits.test[[{TEST}]])[0]`, `risk.loss_gradients()[{TRAIN}]`, and "
            "`torch.linalg.solve(H, ...)`. One minus.",
        ),
    ),
    Exercise(
        "01.3",
        "Find the wrong labels",
        "rank training examples by the influence on their own loss",
        "guided",
        12,
        Count(),
        _found,
        (
            Mistake(
                "sorted the other way",
                lambda: _found(by="largest"),
                "Self-influence is never positive, and the suspects are the most *negative* ones. Sort upwards.",
            ),
            Mistake("first 75 only", lambda: _found(first=75), "That is among the first 75. Look at the first 150."),
            Mistake(
                "ranked by loss",
                lambda: _found(by="loss"),
                "That is the ranking by the loss alone, the rival. Rank by the diagonal of the influence.",
            ),
        ),
        (
            "Make new labels with the lines above, wrap them in `xl.datasets.Examples`, and minimise again.",
            "`own = xl.influence.loss_influence(bent, noisy).diagonal()`, then `own.argsort()[:150]` and "
            "`torch.isin(..., flipped).sum()`.",
        ),
    ),
    Exercise(
        "01.4",
        "The exact law of least squares",
        "compute leverages, and see when first order times 1/(1 - h) is exact",
        "guided",
        15,
        Numbers((TEN,), 1e-3),
        _leverages,
        (
            Mistake(
                "factor 2 missing",
                lambda: _leverages(factor=1.0),
                "Half as large as it has to be: the squared error has no 1/2, so its second derivative has a 2.",
            ),
            Mistake(
                "factor n missing",
                lambda: _leverages(mean=False),
                "One example has the weight $1/n$ in the objective, and in its leverage too.",
            ),
            Mistake(
                "ridge forgotten",
                lambda: _leverages(ridge=False),
                "The ridge belongs to $H$: add `l2` on the diagonal of the block.",
            ),
            Mistake(
                "no bias",
                lambda: _leverages(bias=False),
                "The model has biases too. Append a 1 to every input.",
            ),
        ),
        (
            "All ten outputs have the same Hessian block, of the inputs with a 1 appended: 65 x 65.",
            "The block is `2 * x.T @ x / n + l2 * torch.eye(65)`; then $h_j = \\frac2n x_j^\\top H^{-1} x_j$.",
        ),
    ),
    Exercise(
        "01.5",
        "The size of the trap",
        "predict what averaging anew adds to every removal",
        "guided",
        10,
        Number(),
        _shift,
        (
            Mistake(
                "sign turned",
                lambda: _shift(sign=-1.0),
                "Averaging anew makes the ridge weaker relative to the losses: do the parameters grow or shrink?",
            ),
            Mistake(
                "ridge forgotten",
                lambda: _shift(ridge=False),
                "Without a ridge, averaging anew would change nothing. Where does $\\lambda$ stand in the shift?",
            ),
            Mistake(
                "factor n missing",
                lambda: _shift(each=False),
                "That is as if the ridge vanished altogether. One example leaves of n.",
            ),
        ),
        (
            "The text above says how the parameters move more, the same for every removal.",
            f"Multiply $\\lambda H^{{-1}}\\theta/(n-1)$ from the left by the gradient of test digit {TEST}'s loss.",
        ),
    ),
    Exercise(
        "01.6",
        "Which curvature for a network?",
        "choose a curvature by its agreement with retraining",
        "open",
        15,
        Choice(tuple(CURVATURES)),
        _best,
        tuple(
            Mistake(name, functools.partial(str, name), f"{hint} Hold all four against the truth.")
            for name, hint in _OF_CURVATURES.items()
        ),
        (
            "Train, minimise, leave out thirty, and make one table of predictions for each curvature.",
            "`xl.metrics.fidelity(table, truth).spearman` for each; the empirical Fisher matrix needs a damping.",
        ),
    ),
)
