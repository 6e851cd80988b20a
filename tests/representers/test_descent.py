"""Kernel gradient descent against trained linear models, closed forms and ridges; the null space; two representer points."""

import pytest
import torch

import explainlib as xl
from explainlib.datasets import Examples
from explainlib.representers import (
    descent_importance,
    kernel,
    null_weights,
    random_scores,
    representer_points,
    representer_scores,
    stopping_ridge,
    surrogate_importance,
    surrogate_points,
    target_importance,
    tracking_importance,
)
from tests.defaults import number_defaults
from tests.problems import classes, normal, relative_error, targets

D = torch.float64
TRAIN, TEST = targets(12, 4, 2), targets(5, 4, 2, seed=3)
GRAM = TRAIN.x @ TRAIN.x.T + 1
LOSSES = ("squared_error", "cross_entropy")


def soft_cross_entropy(f, y):
    """Cross-entropy against probabilities."""
    return -(y * f.log_softmax(1)).sum(1)


@pytest.mark.parametrize("batch_size", [None, 5])
@pytest.mark.parametrize("loss", LOSSES)
def test_of_a_linear_model_it_is_what_training_tracks(loss, batch_size):
    """Definition 11 is eq. (10) there: the same importances, and f_0 + K alpha is the trained model at every test."""
    f = 2 * normal(12, 2, seed=5)
    wanted = f.softmax(1) if loss == "cross_entropy" else f
    model = torch.nn.Linear(4, 2, dtype=D)
    how = {"lr": 0.02, "epochs": 7, "batch_size": batch_size, "seed": 4}
    criterion = soft_cross_entropy if loss == "cross_entropy" else loss
    run = xl.training.fit(model, Examples(TRAIN.x, wanted), loss=criterion, optimizer="sgd", record=True, **how)
    start = model(TRAIN.x).detach()
    alpha = descent_importance(GRAM, f, loss=loss, start=start, **how)
    assert relative_error(alpha, tracking_importance(run)) < 1e-10
    reached = model(TEST.x).detach() + kernel(model, TEST.x, TRAIN.x, kind="last_layer") @ alpha
    assert relative_error(reached, run.model(TEST.x).detach()) < 1e-10


def test_full_batches_have_a_closed_form():
    """alpha = sum over eigenvectors u of K of u (1 - (1 - 2 lr k/n)^steps)/k u^T f."""
    k, u = torch.linalg.eigh(GRAM)
    share = 1 - (1 - 2 * 0.02 / 12 * k) ** 9
    weight = torch.where(k > 1e-9, share / k, 2 * 0.02 * 9 / 12)  # of a null direction: its limit
    want = u @ (weight[:, None] * (u.T @ TRAIN.y))
    got = descent_importance(GRAM, TRAIN.y, loss="squared_error", lr=0.02, epochs=9)
    assert relative_error(got, want) < 1e-10


@pytest.mark.parametrize("loss", LOSSES)
def test_a_short_descent_is_a_strong_ridge(loss):
    """To first order in lr steps they are equal: the difference falls in proportion."""
    errors = []
    for lr in (1e-3, 1e-4, 1e-5):
        stopped = descent_importance(GRAM, TRAIN.y, loss=loss, lr=lr, epochs=10)
        ridged = surrogate_importance(GRAM, TRAIN.y, loss=loss, l2=stopping_ridge(lr, 10), tolerance=1e-12)
        errors.append(relative_error(stopped, ridged))
    assert errors[0] < 0.1 and errors[0] > 5 * errors[1] > 25 * errors[2] > 0


def test_a_single_eigenvalue_makes_them_equal():
    k, lr, steps = 2.5, 0.3, 17
    q, gram = (1 - 2 * lr * k / 12) ** steps, k * torch.eye(12, dtype=D)
    stopped = descent_importance(gram, TRAIN.y, loss="squared_error", lr=lr, epochs=steps)
    ridged = surrogate_importance(gram, TRAIN.y, loss="squared_error", l2=2 * k / 12 * q / (1 - q))
    assert relative_error(stopped, ridged) < 1e-12
    first_order = surrogate_importance(gram, TRAIN.y, loss="squared_error", l2=stopping_ridge(lr, steps))
    assert 0.2 < relative_error(stopped, first_order) < 0.35


@pytest.mark.parametrize("steps", [1, 2, 10, 300])
def test_no_direction_is_behind_the_ridge_and_none_twice_ahead(steps):
    """In the eigenvectors of a kernel of full rank, at the largest rate with 2 lr k/n <= 1."""
    x = normal(12, 3, seed=7)
    gram = (-torch.cdist(x, x).square() / 2).exp()
    k, u = torch.linalg.eigh(gram)
    lr = 12 / 2 / float(k[-1])
    f = u @ torch.ones(12, 1, dtype=D)  # every direction by one
    ratio = (u.T @ descent_importance(gram, f, loss="squared_error", lr=lr, epochs=steps)) / (
        u.T @ surrogate_importance(gram, f, loss="squared_error", l2=stopping_ridge(lr, steps))
    )
    assert ratio.min() > 1 - 1e-8 and ratio.max() < 2 + 1e-8
    if steps == 1:
        assert ratio.max() == pytest.approx(2.0)
    if steps == 300:
        assert ratio.max() < 1.31


def test_descent_without_end_is_the_regression_without_ridge():
    gram = GRAM + torch.eye(12, dtype=D)
    alpha = descent_importance(gram, TRAIN.y, loss="squared_error", lr=0.1, epochs=5000)
    assert relative_error(alpha, torch.linalg.solve(gram, TRAIN.y)) < 1e-6


def test_a_rate_that_diverges_is_refused_with_one_that_does_not():
    bound = 12 / float(torch.linalg.eigvalsh(GRAM)[-1])
    with pytest.raises(ValueError, match=f"below {bound:.2g} for full batches"):
        descent_importance(GRAM, TRAIN.y, loss="squared_error", lr=1.5 * bound, epochs=40)
    descent_importance(GRAM, TRAIN.y, loss="squared_error", lr=0.9 * bound, epochs=40)
    with pytest.raises(ValueError, match="the loss went from"):
        descent_importance(GRAM, TRAIN.y, loss="squared_error", lr=1e3, epochs=400)  # overflow


@pytest.mark.parametrize("loss", LOSSES)
def test_there_is_nothing_to_learn_at_the_target(loss):
    for batch_size in (None, 12):
        how = {"loss": loss, "lr": 0.1, "epochs": 3, "batch_size": batch_size}
        assert descent_importance(GRAM, TRAIN.y, start=TRAIN.y, **how).abs().max() < 1e-12


def test_a_loss_that_rises_by_a_fifth_is_refused():
    """One point of K = 1: a step multiplies its error by 1 - 2 lr."""
    one = torch.ones(1, 1, dtype=D)
    with pytest.raises(ValueError, match=r"from 1 to 1.21: lr=1.05 is too large.*below 1 for"):
        descent_importance(one, one, loss="squared_error", lr=1.05, epochs=1)
    assert descent_importance(one, one, loss="squared_error", lr=0.95, epochs=1).item() == pytest.approx(1.9)


def test_defaults():
    assert number_defaults(descent_importance) == number_defaults(random_scores) == {"seed": 0}
    assert number_defaults(surrogate_importance) == {"tolerance": 1e-9}
    assert number_defaults(kernel) == {"damping": 0.0}


def test_a_tolerance_that_cannot_be_met_is_said():
    with pytest.raises(ValueError, match="did not converge.*raise l2"):
        surrogate_importance(GRAM[:3, :3], TRAIN.y[:3], loss="cross_entropy", l2=0.1, tolerance=1e-40)


@pytest.mark.parametrize("kind", ["last_layer", "ntk", "influence"])
def test_weights_in_the_null_space_give_the_zero_function(kind):
    """Proposition 9, at inputs that the kernel matrix does not know."""
    train, test = classes(40), classes(6, seed=9)
    model = xl.models.mlp([3, 4, 3], "tanh", dtype=D)
    options = {"risk": xl.Risk(model, train, l2=0.1)} if kind == "influence" else {}
    gram, between = (kernel(model, e.x, train.x, kind=kind, output=1, **options) for e in (train, test))
    rank = {"last_layer": 5, "ntk": 21}[kind if kind == "last_layer" else "ntk"]  # of output 1: 16 below, 5 of its own
    v = null_weights(gram)
    assert v.shape == (40, 40 - rank) and relative_error(v.T @ v, torch.eye(40 - rank, dtype=D)) < 1e-12
    far = (between @ v).abs().max() / between.abs().max()
    assert far < 1e-7 and ((gram @ v).abs().max() / gram.abs().max()) < 1e-12
    any_other = torch.linalg.qr(normal(40, 5)).Q
    assert (between @ any_other).abs().max() / between.abs().max() > 0.1
    alpha = surrogate_importance(gram, model(train.x).detach()[:, 1:2], loss="squared_error", l2=1e-2)
    plain, moved = (representer_scores(a, between, output=0) for a in (alpha, alpha + 5 * v[:, :1]))
    assert relative_error(moved.sum(1), plain.sum(1)) < 1e-7 and relative_error(moved, plain) > 0.5


def test_the_bound_on_weights_near_the_null_space():
    """|f_v(x)| <= (e K(x, x))^1/2 for a unit v of eigenvalue e; a Gaussian kernel has no null space but small ones."""
    x = normal(25, 2, seed=1)
    near = lambda a, b: (-torch.cdist(a, b).square() / 8).exp()  # noqa: E731
    gram, tests = near(x, x), normal(9, 2, seed=2)
    e, u = torch.linalg.eigh(gram)
    assert ((near(tests, x) @ u).abs() <= e.clamp(min=1e-14).sqrt() * (1 + 1e-9)).all()
    assert null_weights(gram, tolerance=1e-6).shape[1] == int((e <= 1e-6 * e[-1]).sum()) > 0
    assert null_weights(torch.eye(3, dtype=D)).shape == (3, 0)
    assert null_weights(torch.zeros(3, 3, dtype=D)).shape == (3, 3)


def least_squares(n, d, l2):
    """A last layer under squared error at its minimum, its kernel with the bias, and tests."""
    train, test = targets(n, d, 2), targets(5, d, 2, seed=3)
    risk = xl.Risk(torch.nn.Linear(d, 2, dtype=D), train, loss="squared_error", l2=l2)
    risk = xl.training.minimise(risk, tolerance=1e-13)
    return risk, test, train.x @ train.x.T + 1


@pytest.mark.parametrize(("n", "d"), [(30, 4), (6, 10)])
def test_the_surrogate_is_the_fit_to_labels_smoothed_once_more(n, d):
    """Corollary 12 as printed: alpha = S alpha_labels and f = S y, so that its outputs are S f = S^2 y."""
    risk, test, gram = least_squares(n, d, 0.3)
    smooth = gram @ torch.linalg.inv(gram + n * 0.3 / 2 * torch.eye(n, dtype=D))
    assert relative_error(smooth @ risk.train.y, risk.outputs()) < 1e-9
    between = kernel(risk.model, test.x, risk.train.x, kind="last_layer")
    labels = target_importance(risk) / (n * 0.3)
    for c in (0, 1):
        want = (smooth @ labels)[:, c] * between
        assert relative_error(surrogate_points(risk, test, output=c), want) < 1e-8
        own = surrogate_points(risk, risk.train, output=c).sum(1)
        assert relative_error(own, (smooth @ smooth @ risk.train.y)[:, c]) < 1e-8
        assert relative_error(representer_points(risk, test, output=c), surrogate_points(risk, test, output=c)) > 0.02


def test_they_agree_without_a_ridge_where_the_kernel_is_invertible_and_nowhere_else():
    for (n, d), agree in (((6, 10), True), ((30, 4), False)):
        apart, sums = [], []
        for l2 in (1e-2, 1e-3, 1e-4):
            risk, test, _ = least_squares(n, d, l2)
            points, printed = (made(risk, test, output=0) for made in (representer_points, surrogate_points))
            apart.append(relative_error(printed, points))
            sums.append(relative_error(printed.sum(1), points.sum(1)))
        assert sums[0] > 5 * sums[1] > 25 * sums[2]
        assert (apart[2] < 1e-2) if agree else (min(apart) > 0.9)


def test_the_printed_corollary_under_cross_entropy():
    risk = xl.training.minimise(xl.Risk(xl.models.logistic(3, 3, dtype=D), classes(20), l2=0.1), tolerance=1e-12)
    test = classes(4, seed=3)
    gram = risk.train.x @ risk.train.x.T + 1
    alpha = surrogate_importance(gram, risk.outputs(), loss="cross_entropy", l2=0.1)
    want = alpha[:, 2] * (test.x @ risk.train.x.T + 1)
    assert relative_error(surrogate_points(risk, test, output=2), want) < 1e-8
    weak = surrogate_points(risk, test, output=2, l2=1e-6)
    assert relative_error(weak.sum(1), risk.outputs(test)[:, 2]) < 1e-2  # of another ridge: nearly the model
    shrunk = surrogate_points(risk, test, output=2).sum(1).norm()
    assert shrunk < 0.95 * representer_points(risk, test, output=2).sum(1).norm()


def unnamed(f, y):
    return (f - y).abs().sum(1)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: descent_importance(GRAM, TRAIN.y, loss="hinge", lr=0.1, epochs=1), "loss='hinge'"),
        (lambda: descent_importance(GRAM, TRAIN.y, loss="squared_error", lr=0.0, epochs=1), "lr=0.0"),
        (lambda: descent_importance(GRAM, TRAIN.y, loss="squared_error", lr=0.1, epochs=0), "epochs=0"),
        (lambda: descent_importance(GRAM, TRAIN.y, loss="squared_error", lr=0.1, epochs=1, batch_size=13), "batch_size=13 exceeds the 12"),
        (lambda: descent_importance(-GRAM, TRAIN.y, loss="squared_error", lr=0.1, epochs=1), "no kernel"),
        (lambda: stopping_ridge(0.0, 3), "lr=0.0"),
        (lambda: stopping_ridge(0.1, 0), "steps=0"),
        (lambda: null_weights(-GRAM), "no kernel"),
        (lambda: null_weights(GRAM, tolerance=-1.0), "tolerance=-1.0"),
        (lambda: surrogate_points(xl.Risk(torch.nn.Linear(4, 2, dtype=D), TRAIN, loss="squared_error"), TEST, output=0), "it is 0; pass l2="),
        (lambda: surrogate_points(least_squares(9, 4, 0.1)[0].reweighted(torch.ones(9, dtype=D)), TEST, output=0), "no weights"),
        (lambda: surrogate_points(least_squares(9, 4, 0.1)[0], TEST, output=2), "outputs 0 to 1"),
        (lambda: surrogate_points(xl.Risk(torch.nn.Linear(4, 2, dtype=D), TRAIN, loss=unnamed, l2=0.1), TEST, output=0), "'unnamed'; use representer_points"),
    ],
)  # fmt: skip
def test_bad_input(act, message):
    with pytest.raises(ValueError, match=message):
        act()
