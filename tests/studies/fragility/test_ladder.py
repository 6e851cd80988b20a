"""The ladder from influence to cold-start retraining: known rungs on a convex problem, all steps on a digits network."""

import pytest
import torch

import explainlib as xl
from explainlib.solvers import CG
from explainlib.solvers.inverse import Dense
from explainlib.studies.fragility.ladder import RUNGS, STEPS, Ladder, ladder
from explainlib.training import Plateau
from tests.problems import classes, logistic_risk, network_risk

CHOSEN = [0, 5, 9, 17, 30]


def rms(table):
    return float(table.square().mean().sqrt())


@pytest.fixture(scope="module")
def convex():
    risk, test = logistic_risk(), classes(6, seed=8)
    return (
        risk,
        test,
        ladder(risk, test, CHOSEN, damping=0.05, epochs=800, solver=Dense(), lr=0.03, schedule=Plateau(0.5, 10, 1e-9)),
    )


@pytest.fixture(scope="module")
def digits():
    """A small network on 100 digits, stopped early."""
    split = xl.datasets.load("digits", limit=100)
    train, test = split.train.double(), split.test.double()[:8]
    model = xl.models.mlp([64, 6, 10], "tanh", seed=0, dtype=torch.float64)
    theta = xl.training.fit_ensemble(model, train, epochs=80, seeds=[0], lr=0.02, l2=1e-3).theta[0]
    risk = xl.Risk(model, train, l2=1e-3).at(theta)
    options = {"damping": 3e-2, "epochs": 300, "cold_epochs": 380, "lr": 0.02, "solver": CG(max_steps=3)}
    return risk, test, ladder(risk, test, range(0, 100, 10), **options)


def test_on_a_convex_problem_the_ends_are_known(convex):
    risk, test, steps = convex
    influence = -xl.influence.loss_influence(risk, test, curvature="gauss_newton", damping=0.05) / risk.n
    assert torch.allclose(steps.changes["influence, exact solve"], influence[:, CHOSEN])
    truth = xl.retraining.leave_out(risk, [[i] for i in CHOSEN], weighting="plain").loss_change(test)
    for rung in RUNGS[-2:]:  # one minimum, wherever training starts
        assert rms(steps.changes[rung] - truth) < 1e-3 * rms(truth)


def test_on_a_convex_problem_three_steps_cost_nothing(convex):
    frame = convex[2].frame().set_index("step")
    whole = rms(convex[2].changes[RUNGS[-1]] - convex[2].changes[RUNGS[0]])
    for step in ("solver", "non-convergence", "warm start"):
        assert frame.gap[step] < 2e-3 * whole
    assert frame.share["proximity"] > 0.5 and frame.share["linearisation"] != 0
    assert (frame.drift.abs() < 1e-3 * whole).all()


def test_shares_sum_to_one_and_no_step_hides(digits):
    _, _, steps = digits
    frame = steps.frame()
    assert list(frame.rung) == list(RUNGS) and list(frame.step[:-1]) == list(STEPS)
    assert frame.share[:-1].sum() == pytest.approx(1)
    assert (frame.gap[:-1] > 0).all() and frame.spearman_truth.iloc[-1] == pytest.approx(1)
    print("\n" + frame.to_string(float_format=lambda value: f"{value:.3g}"))


def test_what_an_early_stop_does(digits):
    """Early rungs agree with the next far better than with the truth, and training on drifts without any removal."""
    risk, _, steps = digits
    frame = steps.frame().set_index("rung")
    assert risk.gradient().norm() > 1e-3
    assert frame.pearson_next["influence, exact solve"] > 0.8
    assert frame.pearson_next["influence, exact solve"] > frame.pearson_truth["influence, exact solve"]
    assert (frame.drift[list(RUNGS[:3])].abs() < 1e-9).all() and abs(frame.drift["proximal retraining"]) > 1e-4
    assert frame.unsolved["proximal response"] == 0 and frame.unsolved["influence, approximate solve"] == 10


def test_removing_what_has_no_weight_changes_nothing_though_training_drifts():
    weights = torch.ones(24, dtype=torch.float64)
    weights[3] = 0
    risk = network_risk().reweighted(weights)
    nothing = ladder(risk, classes(4, seed=9), [3], damping=0.1, epochs=20, lr=0.01)
    assert all(table.abs().max() < 1e-9 for table in nothing.changes.values())
    assert all(abs(nothing.drift[rung]) > 1e-3 for rung in RUNGS[3:])


def test_a_share_is_the_length_along_the_whole():
    ones, zero = torch.ones(2, 3, dtype=torch.float64), torch.zeros(2, 3, dtype=torch.float64)
    tables = dict(zip(RUNGS, [zero, ones, ones, 3 * ones, 2 * ones, 4 * ones], strict=True))
    flat = Ladder(tables, dict.fromkeys(RUNGS, 0.0), dict.fromkeys(RUNGS, 0), torch.arange(3))
    assert flat.shares() == pytest.approx([0.25, 0.0, 0.5, -0.25, 0.5])


def test_bad_input(convex):
    risk, test, _ = convex
    with pytest.raises(ValueError, match="index 99 in removed"):
        ladder(risk, test, [99], damping=0.1, epochs=5)
    with pytest.raises(ValueError, match="epochs=0"):
        ladder(risk, test, [1], damping=0.1, epochs=0)
    free = xl.Risk(risk.model, risk.train)
    with pytest.raises(ValueError, match="damping=0.0 without a ridge"):
        ladder(free, test, [1], damping=0.0, epochs=5)
