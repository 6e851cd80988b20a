"""Group selection against every group of small problems, the stored matrix, textbook projections, and retraining."""

from itertools import combinations

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from jaxtyping import TypeCheckError
from scipy.optimize import brentq

import explainlib as xl
from explainlib.influence.groups.quadratic import GroupQuadratic, indicators
from explainlib.influence.groups.selection import METHODS, projected_gradient_ascent
from explainlib.influence.groups.swaps import Swaps
from explainlib.influence.projections import capped_simplex_projection, l1_ball_projection
from tests.problems import classes, general, logistic_risk, network_risk, normal, relative_error, ridge_risk, targets

influential_group = xl.influence.influential_group
second_order_influence = xl.influence.second_order_influence
PROBLEMS = {
    "softmax head": lambda: (logistic_risk(), classes(5, seed=3)),
    "softmax general": lambda: (general(logistic_risk()), classes(5, seed=3)),
    "least squares": lambda: (ridge_risk(), targets(4, seed=3)),
    "network": lambda: (
        xl.training.minimise(network_risk("tanh", n=30, l2=0.05), tolerance=1e-12),
        classes(5, seed=3),
    ),
}
GROUPS = [[0], [3, 1, 7], list(range(10)), list(range(5, 25))]
problems = pytest.mark.parametrize("make", PROBLEMS.values(), ids=list(PROBLEMS))


def stored(risk, test):
    """Return a and the whole of B from per-example Hessians by double backward, one example at a time."""
    eye = torch.eye(risk.p, dtype=torch.float64)
    own = []
    for i in range(risk.n):
        x, y = risk.train.x[i : i + 1], risk.train.y[i : i + 1]
        loss = lambda t, x=x, y=y: risk.loss.function(risk.parameters.outputs(t, x), y)[0]  # noqa: E731
        own.append(torch.autograd.functional.hessian(loss, risk.theta))
    own = torch.stack(own)
    inverse = torch.linalg.inv(own.mean(0) + risk.l2 * eye)
    v = inverse @ risk.loss_gradients(test).mean(0)
    gradients = risk.loss_gradients() + risk.l2 * risk.theta
    return gradients @ v, (own + risk.l2 * eye) @ v @ inverse @ gradients.T


def written_out(a, b, w, k):
    """Return q(w) as the paper prints it, from stored a and B."""
    n, f = len(a), k / len(a)
    return (1 - 2 * f) / ((1 - f) ** 2 * n) * w @ a + w @ b @ w / ((1 - f) ** 2 * n**2)


def every_group(risk, test, k):
    """Return q of all groups of k, and the groups."""
    groups = torch.tensor(list(combinations(range(risk.n), k)))
    return second_order_influence(risk, test, list(groups)), groups


# the quadratic


@pytest.mark.filterwarnings("ignore::explainlib.influence.SeriesWarning")
@problems
def test_it_is_the_linearised_second_order_removal(make):
    """Two routes to one number: the series in the parameters, and the quadratic form of eq. (17)."""
    risk, test = make()
    effect = xl.influence.removal_effect(risk, GROUPS, order=2, weighting="preserve")
    want = effect.loss_change(test, evaluate=False).mean(0)
    got = second_order_influence(risk, test, GROUPS)
    assert want.abs().max() > 1e-3
    assert torch.allclose(got, want, rtol=1e-9, atol=1e-10)
    damped = xl.influence.removal_effect(risk, GROUPS, order=2, weighting="preserve", damping=0.1)
    want = damped.loss_change(test, evaluate=False).mean(0)
    assert torch.allclose(second_order_influence(risk, test, GROUPS, damping=0.1), want, rtol=1e-9, atol=1e-10)


@problems
def test_products_without_the_matrix_equal_the_stored_matrix(make):
    risk, test = make()
    a, b = stored(risk, test)
    quadratic = GroupQuadratic(risk, test)
    w = normal(3, risk.n, seed=5)
    assert relative_error(quadratic.a, a) < 1e-9
    assert relative_error(quadratic.product(w), w @ (b + b.T)) < 1e-9
    left, right = quadratic.factors()
    assert relative_error(left @ right.T, b) < 1e-9
    assert relative_error(b, b.T) > 0.1  # not symmetric: doubling B w would be another gradient


@problems
def test_values_and_gradient_match_the_formula_and_autograd(make):
    risk, test = make()
    a, b = stored(risk, test)
    quadratic = GroupQuadratic(risk, test)
    w = normal(2, risk.n, seed=6).requires_grad_()
    want = torch.stack([written_out(a, b, row, 7) for row in w])
    assert relative_error(quadratic.value(w.detach(), 7), want.detach()) < 1e-9
    slope = torch.autograd.grad(want.sum(), w)[0]
    assert relative_error(quadratic.gradient(w.detach(), 7), slope) < 1e-9


def test_parts_of_the_training_set_and_batches_of_groups_change_nothing(monkeypatch):
    risk, test = general(logistic_risk()), classes(5, seed=3)
    w = normal(2, risk.n, seed=6)
    quadratic = GroupQuadratic(risk, test)
    whole = quadratic.product(w), second_order_influence(risk, test, GROUPS)
    monkeypatch.setattr("explainlib.risk.risk.PART", 7)
    monkeypatch.setattr("explainlib.influence.groups.quadratic.ENTRIES", 1)
    assert torch.allclose(quadratic.product(w), whole[0], rtol=1e-10)
    assert torch.allclose(second_order_influence(risk, test, GROUPS), whole[1], rtol=1e-10)


def test_the_mean_over_tests_is_the_mean_of_single_tests():
    risk, test = PROBLEMS["softmax head"]()
    single = torch.stack([second_order_influence(risk, test[i], GROUPS) for i in range(len(test))])
    assert torch.allclose(second_order_influence(risk, test, GROUPS), single.mean(0), atol=1e-12)


@pytest.mark.parametrize("solver", ["cg", "low_rank"])
def test_solvers_agree(solver):
    risk, test = PROBLEMS["softmax head"]()
    want = second_order_influence(risk, test, GROUPS)
    assert torch.allclose(second_order_influence(risk, test, GROUPS, solver=solver), want, rtol=1e-6)
    assert torch.equal(influential_group(risk, test, 5, solver=solver), influential_group(risk, test, 5))


# projections


def rows(low=-4.0, high=4.0):
    number = st.floats(low, high, allow_nan=False, width=32)
    return st.lists(number, min_size=2, max_size=12).map(lambda v: torch.tensor(v, dtype=torch.float64))


@given(rows(), st.floats(0.01, 1.0))
def test_the_capped_simplex_projection_is_the_root_of_its_equation(x, share):
    total = share * len(x)
    w = capped_simplex_projection(x, total)
    assert abs(float(w.sum()) - total) < 1e-9 and float(w.min()) >= 0 and float(w.max()) <= 1
    excess = lambda tau: np.clip(x.numpy() - tau, 0, 1).sum() - total  # noqa: E731
    tau = brentq(excess, float(x.min()) - 2, float(x.max()) + 1, xtol=1e-14)
    assert np.allclose(w.numpy(), np.clip(x.numpy() - tau, 0, 1), atol=1e-9)


@given(rows(), st.integers(1, 11))
def test_the_capped_simplex_projection_meets_its_optimality_conditions(x, k):
    """No feasible corner lies in an obtuse direction: (x - w) . (c - w) <= 0 for the corner c that maximises it."""
    k = min(k, len(x))
    w = capped_simplex_projection(x, k)
    corner = torch.zeros_like(x)
    corner[(x - w).topk(k).indices] = 1
    assert float((x - w) @ (corner - w)) < 1e-9
    assert torch.allclose(capped_simplex_projection(w, k), w, atol=1e-12)


@given(rows(), st.floats(0.1, 6.0))
def test_the_ball_projection_meets_its_optimality_conditions(x, radius):
    w = l1_ball_projection(x, radius)
    assert float(w.abs().sum()) <= radius + 1e-9 and bool((w * x >= 0).all())
    if float(x.abs().sum()) <= radius:
        assert torch.equal(w, x)
        return
    assert abs(float(w.abs().sum()) - radius) < 1e-9
    # the corners of the ball are +-radius e_i
    assert radius * float((x - w).abs().max()) - float((x - w) @ w) < 1e-9
    lowered = (x.abs() - w.abs())[w != 0]
    assert torch.allclose(lowered, lowered[:1].expand_as(lowered), atol=1e-9)


@pytest.mark.parametrize("project", [capped_simplex_projection, l1_ball_projection])
def test_projections_work_row_by_row_and_refuse_what_has_none(project):
    x = 3 * normal(4, 9, seed=2)
    assert torch.allclose(project(x, 3.0), torch.stack([project(row, 3.0) for row in x]), atol=1e-14)
    assert project(x.float(), 3.0).dtype == torch.float32
    with pytest.raises(ValueError, match="NaN"):
        project(x * torch.nan, 3.0)
    with pytest.raises(ValueError, match="0"):
        project(x, 0.0)


def test_a_total_above_the_number_of_weights_is_refused():
    with pytest.raises(ValueError, match="cannot be reached by 3 weights"):
        capped_simplex_projection(torch.zeros(3), 3.5)
    assert torch.allclose(capped_simplex_projection(normal(3), 3.0), torch.ones(3).double())


# selection


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("method", ["relaxed", "swap"])
def test_small_problems_are_solved_almost_to_the_best_of_all_groups(method, seed):
    risk, test = logistic_risk(n=12, d=3, C=2, l2=0.05, seed=seed), classes(3, d=3, C=2, seed=50 + seed)
    values, groups = every_group(risk, test, 3)
    greedy, found = (
        float(second_order_influence(risk, test, [influential_group(risk, test, 3, method=m)])[0])
        for m in ("greedy", method)
    )
    assert found >= greedy - 1e-12
    assert found >= float(values.max()) - 0.03 * float(values.max() - values.mean())


def test_greedy_is_not_always_best_and_the_relaxation_finds_more():
    """Otherwise "never below greedy" would say nothing."""
    gains = []
    for seed in range(6):
        risk, test = logistic_risk(n=40, l2=0.01, seed=seed), classes(1, seed=90 + seed)
        groups = [influential_group(risk, test, 12, method=m) for m in ("greedy", "relaxed")]
        greedy, relaxed = second_order_influence(risk, test, groups).tolist()
        assert relaxed >= greedy - 1e-12
        gains.append(relaxed - greedy)
    assert max(gains) > 0.01


def test_greedy_ranks_by_first_order_influence_at_every_size():
    risk, test = PROBLEMS["softmax head"]()
    singles = xl.influence.removal_effect(risk, [[i] for i in range(risk.n)]).loss_change(test, evaluate=False).mean(0)
    for size in (3, 30):
        want = singles.argsort(descending=True)[:size]
        assert torch.equal(influential_group(risk, test, size, method="greedy"), want)


@pytest.mark.parametrize("size", [1, 5, 20, 25, 39])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_returns_distinct_indices_of_the_right_number(method, size):
    risk, test = PROBLEMS["softmax head"]()
    group = influential_group(risk, test, size, method=method)
    assert group.dtype == torch.int64 and group.shape == (size,) and len(set(group.tolist())) == size
    assert 0 <= int(group.min()) and int(group.max()) < risk.n
    assert torch.equal(group, influential_group(risk, test, size, method=method))


@pytest.mark.parametrize("name", ["softmax general", "network", "least squares"])
def test_other_models_never_fall_below_greedy_either(name):
    risk, test = PROBLEMS[name]()
    groups = [influential_group(risk, test, 6, method=m) for m in ("greedy", "relaxed", "swap", "random")]
    greedy, relaxed, swap, chance = second_order_influence(risk, test, groups).tolist()
    assert min(relaxed, swap) >= greedy - 1e-12 and chance < greedy


@pytest.mark.parametrize("size", [4, 13])
def test_no_swap_improves_a_swapped_group(monkeypatch, size):
    """All pairs are tried one by one; small tables, and the pruning, must not hide any."""
    risk, test = PROBLEMS["softmax head"]()
    monkeypatch.setattr("explainlib.influence.groups.swaps.TABLE", 20)
    group = Swaps(GroupQuadratic(risk, test), size).improve(torch.arange(size)).tolist()
    rest = [j for j in range(risk.n) if j not in group]
    swapped = [[j, *(g for g in group if g != i)] for i in group for j in rest]
    values = second_order_influence(risk, test, [group, *swapped, list(range(size))])
    assert float(values[0]) > float(values[-1])
    assert float((values[1:-1] - values[0]).max()) < 1e-11


def test_the_pair_formula_is_the_change_of_a_swap():
    risk, test = PROBLEMS["softmax head"]()
    swaps = Swaps(GroupQuadratic(risk, test), 6)
    w = indicators(risk, [torch.arange(6)])[0]
    i, j, gain = swaps._best_pairs(w, 0.0)
    after = [[*(g for g in range(6) if g != int(a)), int(b)] for a, b in zip(i, j, strict=True)]
    values = second_order_influence(risk, test, [list(range(6)), *after])
    assert len(i) and torch.allclose(values[1:] - values[0], gain, atol=1e-12)
    assert len(set(i.tolist())) == len(i) and len(set(j.tolist())) == len(j)


def test_a_swap_that_gains_nothing_is_refused():
    risk, test = PROBLEMS["softmax head"]()
    swaps = Swaps(GroupQuadratic(risk, test), 6)
    w = indicators(risk, [torch.arange(6)])[0]
    pair = torch.tensor([0]), torch.tensor([8]), torch.zeros(1)
    after = swaps.value(indicators(risk, [torch.tensor([8, 1, 2, 3, 4, 5])])[0])
    assert swaps._apply_pairs(w, after, pair, 1e-12) is None, "as high as before"
    better, value = swaps._apply_pairs(w, after - 1e-9, pair, 1e-12)
    assert better.nonzero()[:, 0].tolist() == [1, 2, 3, 4, 5, 8] and value == pytest.approx(after, abs=1e-15)


def test_pruning_hides_no_pair_that_gains():
    """Where the pair terms are all there is, on every group of four out of eight, optimal ones among them."""
    risk, test = logistic_risk(n=8, C=2), classes(1, C=2, seed=50)
    swaps, found = Swaps(GroupQuadratic(risk, test), 4), []
    for seed in range(4):
        swaps.a, swaps.curvature_rows, swaps.solved_rows = (
            torch.zeros(8).double(),
            normal(8, 3, seed=seed),
            normal(8, 3, seed=9 + seed),
        )
        swaps.own = swaps.c2 * (swaps.curvature_rows * swaps.solved_rows).sum(1)
        swaps.norms = swaps.curvature_rows.norm(dim=1), swaps.solved_rows.norm(dim=1)
        for group in combinations(range(8), 4):
            w = torch.zeros(8, dtype=torch.float64)
            w[list(group)] = 1
            gains = [
                swaps.value(w.index_fill(0, torch.tensor([i]), 0).index_fill(0, torch.tensor([j]), 1)) - swaps.value(w)
                for i in group for j in set(range(8)) - set(group)
            ]  # fmt: skip
            gain = swaps._best_pairs(w, 1e-12)[2]
            found.append(len(gain) > 0)
            assert found[-1] == (max(gains) > 1e-12)
            assert not found[-1] or abs(float(gain[0]) - max(gains)) < 1e-12
    assert 0 < sum(found) < len(found)


def test_ascent_stays_feasible_and_never_falls():
    risk, test = logistic_risk(n=40, l2=0.01), classes(1, seed=90)
    quadratic = GroupQuadratic(risk, test)
    starts = capped_simplex_projection(normal(5, 40, seed=4), 12)
    ends = projected_gradient_ascent(quadratic, starts, 12, capped_simplex_projection)
    assert (
        float(ends.min()) >= 0
        and float(ends.max()) <= 1 + 1e-12
        and torch.allclose(ends.sum(1), torch.full_like(ends[:, 0], 12))
    )
    assert (quadratic.value(ends, 12) >= quadratic.value(starts, 12)).all()
    # stationary: a step along the gradient, projected back, leads nowhere
    slope = quadratic.gradient(ends, 12)
    corner = torch.zeros_like(ends).scatter_(1, slope.topk(12, dim=1).indices, 1.0)
    assert float(((corner - ends) * slope).sum(1).max()) < 1e-4 * float(quadratic.value(ends, 12).max())


def test_without_polishing_the_relaxation_is_still_no_worse_than_greedy(monkeypatch):
    monkeypatch.setattr("explainlib.influence.groups.selection.SWAP_LIMIT", 0)
    risk, test = logistic_risk(n=40, l2=0.01), classes(1, seed=90)
    groups = [influential_group(risk, test, 12, method=m) for m in ("greedy", "relaxed", "swap")]
    greedy, relaxed, swap = second_order_influence(risk, test, groups).tolist()
    assert greedy < relaxed and relaxed > swap - 0.05 * abs(swap)


def test_a_relaxation_that_ends_badly_gives_greedys_group(monkeypatch):
    risk, test = logistic_risk(n=40, l2=0.01), classes(1, seed=90)
    monkeypatch.setattr("explainlib.influence.groups.selection.SWAP_LIMIT", 0)
    worst = -GroupQuadratic(risk, test).a[None]
    monkeypatch.setattr("explainlib.influence.groups.selection.projected_gradient_ascent", lambda *_: worst)
    groups = [influential_group(risk, test, 12, method=m) for m in ("relaxed", "greedy")]
    assert set(groups[0].tolist()) == set(groups[1].tolist())


def test_the_order_is_most_influential_first():
    risk, test = logistic_risk(n=40, l2=0.01), classes(1, seed=90)
    quadratic = GroupQuadratic(risk, test)
    for method in ("relaxed", "swap"):
        group = influential_group(risk, test, 12, method=method)
        marginal = quadratic.gradient(indicators(risk, [group]), 12)[0, group]
        assert (marginal[:-1] >= marginal[1:]).all() and float(marginal[0]) > float(marginal[-1])


# blobs: prediction, truth, and slip 12


@pytest.fixture(scope="module")
def blobs():
    """Return a softmax risk on 400 blob points and one test point it gets wrong."""
    split = xl.datasets.load("blobs", limit=400)
    train, test = (xl.datasets.Examples(part.x.double(), part.y) for part in (split.train, split.test))
    risk = xl.training.minimise(xl.Risk(xl.models.logistic(5, 4, dtype=torch.float64), train, l2=1e-2))
    wrong = (risk.outputs(test).argmax(1) != test.y).nonzero()[:, 0]
    return risk, test[wrong[:1]]


def test_on_blobs_the_box_beats_greedy_by_prediction_and_refit_beats_it_by_truth(blobs):
    risk, test = blobs
    groups = {m: influential_group(risk, test, 120, method=m) for m in METHODS}
    predicted = dict(zip(groups, second_order_influence(risk, test, list(groups.values())).tolist(), strict=True))
    truth = xl.retraining.leave_out(risk, list(groups.values())).loss_change(test)[0]
    truth = dict(zip(groups, truth.tolist(), strict=True))
    assert predicted["relaxed"] > 1.02 * predicted["greedy"] and predicted["swap"] > 1.02 * predicted["greedy"]
    assert truth["refit"] >= truth["greedy"] and truth["refit"] > truth["relaxed"]
    assert predicted["refit"] < predicted["relaxed"]  # prediction and truth order them differently
    assert max(abs(truth["random"]), abs(predicted["random"])) < 0.15 * predicted["greedy"]


def test_random_groups_average_to_nothing(blobs):
    risk, test = blobs
    groups = [influential_group(risk, test, 40, method="random", seed=s) for s in range(100)]
    assert len({tuple(g.tolist()) for g in groups}) == 100
    greedy = second_order_influence(risk, test, [influential_group(risk, test, 40, method="greedy")])[0]
    assert abs(float(second_order_influence(risk, test, groups).mean())) < 0.02 * float(greedy)


@pytest.mark.parametrize("size", [40, 80, 120])
def test_the_relaxation_as_published_promises_what_no_group_can_keep(blobs, size):
    """Slip 12: without the box a few weights grow far beyond 1, and q at them is not a group's influence."""
    risk, test = blobs
    w = xl.influence.printed_weights(risk, test, size)
    assert float(w.abs().sum()) <= size + 1e-6 and float(w.max()) > 10
    assert int((w.abs() > 1e-6).sum()) <= 12
    own = float(GroupQuadratic(risk, test).value(w[None], size)[0])
    groups = [influential_group(risk, test, size, method=m) for m in ("printed", "relaxed", "greedy")]
    printed, relaxed, greedy = second_order_influence(risk, test, groups).tolist()
    assert own > 2 * relaxed
    assert printed <= relaxed + 1e-12 and abs(printed - greedy) < 0.05 * greedy


def test_the_printed_objective_lies_above_every_group_of_a_small_problem():
    risk, test = logistic_risk(n=12, d=3, C=2, l2=0.05), classes(3, d=3, C=2, seed=50)
    w = xl.influence.printed_weights(risk, test, 3)
    own = float(GroupQuadratic(risk, test).value(w[None], 3)[0])
    assert float(w.max()) > 1 and own > float(every_group(risk, test, 3)[0].max())


def test_refit_solves_the_remaining_problem_again():
    """Every tenth is chosen by the model retrained without the ones before it, the mean over the rest kept."""
    risk, test, found = logistic_risk(l2=0.3), classes(5, seed=3), []
    for weighting in ("preserve", "plain"):
        chosen = influential_group(risk, test, 2, method="greedy").tolist()
        while len(chosen) < 20:
            rest = risk.at(xl.retraining.leave_out(risk, [chosen], weighting=weighting, tolerance=1e-12).theta[0])
            weights = torch.full(
                (risk.n,), risk.n / (risk.n - len(chosen)) if weighting == "preserve" else 1.0
            ).double()
            weights[chosen] = 0
            influence = xl.influence.loss_influence(rest.reweighted(weights), test).mean(0)
            influence[chosen] = torch.inf
            chosen += influence.argsort()[:2].tolist()
        found.append(chosen)
    assert influential_group(risk, test, 20, method="refit").tolist() == found[0]
    assert found[0] != found[1]


# bad input


@pytest.mark.parametrize("size", [0, -1, True])
@pytest.mark.parametrize("method", ["relaxed", "random"])
def test_a_size_that_is_no_count_is_refused(size, method):
    with pytest.raises(ValueError, match=f"size={size} has to be a whole number of at least 1"):
        influential_group(*PROBLEMS["softmax head"](), size, method=method)


@pytest.mark.parametrize("act", [influential_group, xl.influence.printed_weights])
def test_sizes_beyond_the_data_or_between_numbers_are_refused(act):
    risk, test = PROBLEMS["softmax head"]()
    for size in (40, 41):
        with pytest.raises(ValueError, match=f"size={size} of 40 training examples leaves nothing"):
            act(risk, test, size)
    with pytest.raises((ValueError, TypeCheckError)):
        act(risk, test, 2.5)


def test_bad_options_are_refused():
    risk, test = PROBLEMS["softmax head"]()
    with pytest.raises(ValueError, match="method='best' is unknown; choose one of 'relaxed', 'printed'"):
        influential_group(risk, test, 3, method="best")
    with pytest.raises(ValueError, match="damping=-1"):
        influential_group(risk, test, 3, damping=-1.0)
    with pytest.raises(ValueError, match="on_failure='shrug'"):
        influential_group(risk, test, 3, method="refit", on_failure="shrug")
    with pytest.raises(ValueError, match="twice"):
        second_order_influence(risk, test, [[1, 1]])
    with pytest.raises(ValueError, match="all 40"):
        second_order_influence(risk, test, [list(range(40))])


@pytest.mark.parametrize("method", METHODS)
def test_a_wrong_test_set_and_a_reweighted_risk_are_refused(method):
    risk, test = PROBLEMS["softmax head"]()
    with pytest.raises(ValueError, match=r"test.x has shape \[5, 4\]"):
        influential_group(risk, classes(5, d=4), 3, method=method)
    with pytest.raises(ValueError, match="reweighted"):
        influential_group(risk.reweighted(torch.ones(40).double()), test, 3, method=method)


@pytest.mark.parametrize("method", ["relaxed", "greedy", "refit"])
def test_a_risk_that_is_not_at_a_minimum_warns_or_is_refused(method):
    risk, test = logistic_risk(), classes(5, seed=3)
    elsewhere = risk.at(risk.theta + 0.1)
    with pytest.warns(xl.risk.NotAtMinimumWarning, match="not at a minimum"):
        influential_group(elsewhere, test, 3, method=method)
    with pytest.raises(ValueError, match="not at a minimum"):
        influential_group(elsewhere, test, 3, method=method, strict=True)


@pytest.mark.filterwarnings("ignore::explainlib.risk.NotAtMinimumWarning")
def test_a_singular_head_without_ridge_is_an_error():
    risk = xl.Risk(xl.models.logistic(3, 3, dtype=torch.float64), classes())
    with pytest.raises(xl.solvers.SolverError, match="singular"):
        influential_group(risk, classes(5, seed=3), 3)
    assert len(influential_group(risk, classes(5, seed=3), 3, damping=1e-3)) == 3
