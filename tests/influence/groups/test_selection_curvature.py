"""Group selection by curvatures other than the Hessian."""

import pytest
import torch

import explainlib as xl
from explainlib.influence import influential_group
from tests.problems import classes, logistic_risk, network_risk


@pytest.mark.parametrize("curvature", ["gauss_newton", "empirical_fisher", "identity", "ekfac", "fitted", "inverse"])
@pytest.mark.parametrize("make", [logistic_risk, network_risk])
def test_greedy_ranks_by_the_first_order_of_any_curvature(make, curvature):
    risk, test = make(), classes(4, seed=5)
    matrices = {"gauss_newton": xl.curvature.gauss_newton, "empirical_fisher": xl.curvature.empirical_fisher}
    eye = torch.eye(risk.p, dtype=torch.float64)
    if curvature in matrices or curvature == "inverse":
        matrix = matrices[curvature if curvature in matrices else "gauss_newton"](risk)
    else:
        matrix = eye if curvature == "identity" else xl.curvature.Ekfac(risk).matrix()
    v = torch.linalg.solve(matrix + 0.1 * eye, risk.loss_gradients(test).mean(0))
    want = (risk.loss_gradients() @ v).argsort(descending=True)[:7]
    how = {"curvature": curvature, "damping": 0.1}
    if curvature == "fitted":
        how["curvature"] = xl.curvature.Ekfac(risk)
    if curvature == "inverse":
        how = {"curvature": xl.solvers.inverse_curvature(risk, curvature="gauss_newton", damping=0.1)}
    assert influential_group(risk, test, 7, method="greedy", **how).tolist() == want.tolist()


def test_the_hessian_of_a_fit_ranks_as_by_name():
    risk, test = logistic_risk(), classes(4, seed=5)
    fitted = xl.solvers.inverse_curvature(risk)
    named = influential_group(risk, test, 7, method="greedy")
    assert influential_group(risk, test, 7, method="greedy", curvature=fitted).tolist() == named.tolist()


@pytest.mark.parametrize("curvature", ["gauss_newton", "ekfac"])
def test_refit_takes_the_curvature_of_what_remains(curvature):
    risk, test = logistic_risk(), classes(4, seed=5)
    got = influential_group(risk, test, 5, method="refit", curvature=curvature)
    weights, chosen, remaining = torch.ones(risk.n, dtype=torch.float64), [], risk
    for _ in range(5):
        if chosen:
            weights = torch.where(weights == 0, 0.0, risk.n / (risk.n - len(chosen)))
            remaining = xl.training.minimise(risk.at(remaining.theta), weights=weights)
        matrix = xl.curvature.gauss_newton(remaining)
        if curvature == "ekfac":
            matrix = xl.curvature.Ekfac(remaining).matrix()
        score = remaining.loss_gradients() @ torch.linalg.solve(matrix, remaining.loss_gradients(test).mean(0))
        chosen.append(int(score.masked_fill(weights == 0, -torch.inf).argmax()))
        weights[chosen[-1]] = 0
    assert got.tolist() == chosen


def test_what_is_fitted_has_no_curvature_of_each_example_and_none_of_what_remains():
    risk, test = logistic_risk(), classes(4, seed=5)
    fits = {"Ekfac": xl.curvature.Ekfac(risk), "FittedInverse": xl.solvers.inverse_curvature(risk)}
    for name, fitted in fits.items():
        with pytest.raises(ValueError, match=f"a fitted {name} has none; .*method='greedy'"):
            influential_group(risk, test, 5, curvature=fitted)
        with pytest.raises(ValueError, match=f"a fitted {name} is of the whole problem"):
            influential_group(risk, test, 5, method="refit", curvature=fitted)
