"""EK-FAC against the dense Gauss-Newton matrix: exact where a block is a Kronecker product, optimal elsewhere."""

import pytest
import torch
from torch import nn

import explainlib as xl
from explainlib.curvature import kronecker
from explainlib.curvature.ekfac import Ekfac
from explainlib.datasets import Examples
from explainlib.solvers import CG, SolverError, ekfac_solve, inverse_curvature
from tests.problems import (
    classes,
    convolution,
    images,
    loop_gradients,
    network_risk,
    normal,
    relative_error,
    ridge_risk,
    targets,
)

D = torch.float64


def convolutional(n=10, *, weights=None):
    """A padded, strided, grouped pair of convolutions and a read-out."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = (
            nn.Conv2d(2, 4, 3, padding=1, groups=2),
            nn.Tanh(),
            nn.Conv2d(4, 5, 2, stride=2, bias=False),
            nn.Tanh(),
            nn.Flatten(),
        )
        net = nn.Sequential(*layers, nn.Linear(20, 3)).double()
    risk = xl.Risk(net, Examples(normal(n, 2, 4, 4), torch.arange(n) % 3), l2=0.02)
    return risk if weights is None else risk.reweighted(weights)


def text(n=9):
    """One convolution over time, then a read-out; the weight of the first alone and the bias of the second alone."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv1d(3, 4, 2, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(12, 3)).double()
    data = Examples(normal(n, 3, 6), torch.arange(n) % 3)
    return xl.Risk(net, data, l2=0.02, parameters=["0.weight", "3.bias"])


class Twice(nn.Module):
    """One linear layer, used twice."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x):
        return self.layer(torch.tanh(self.layer(x)))


def twice():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return xl.Risk(Twice().double(), classes(12), l2=0.02)


PROBLEMS = {
    "linear": network_risk,
    "least squares": lambda: xl.Risk(xl.models.mlp([4, 3, 2], dtype=D), targets(12, 4, 2), loss="squared_error"),
    "weighted": lambda: network_risk().reweighted(torch.linspace(0.0, 3.0, 24, dtype=D)),
    "convolutions": convolutional,
    "convolutions, weighted": lambda: convolutional(weights=torch.linspace(0.1, 2.0, 10, dtype=D)),
    "one dimension, some parameters": text,
    "a layer used twice": twice,
}


def blocks_and_truth(risk, fisher, ekfac):
    """Yield each block with the same block of a dense matrix (without ridge) and its eigenvectors Q."""
    covered = torch.cat([block.flat_positions.flatten() for block in ekfac.blocks])
    assert torch.equal(covered.sort().values, torch.arange(risk.p))
    for block in ekfac.blocks:
        at = block.flat_positions.flatten()
        yield block, fisher[at][:, at], torch.kron(block.outputs, block.inputs)


def dense(risk):
    return xl.curvature.gauss_newton(risk) - risk.l2 * torch.eye(risk.p, dtype=D)


@pytest.mark.parametrize("name", PROBLEMS)
def test_lambda_is_the_diagonal_of_the_dense_block_in_the_eigenbasis(name):
    """E[(Q^T g)^2] is diag(Q^T F Q), whatever Q is; and no diagonal comes closer to F in that basis."""
    risk = PROBLEMS[name]()
    ekfac = Ekfac(risk)
    assert ekfac.labels == "exact"
    for block, truth, Q in blocks_and_truth(risk, dense(risk), ekfac):
        assert relative_error(Q.T @ Q, torch.eye(len(Q), dtype=D)) < 1e-12
        assert relative_error(block.values.flatten(), (Q.T @ truth @ Q).diagonal()) < 1e-10
        own = (Q * block.values.flatten() @ Q.T - truth).norm()
        plain = (Q * block.kfac.flatten() @ Q.T - truth).norm()
        assert own <= plain + 1e-12 * truth.norm()


def test_the_factors_are_weighted_means():
    """A linear layer alone: A = sum w a a^T / sum w, S = 1/n sum w g g^T, with the bias as a column of ones."""
    weights = torch.linspace(0.0, 3.0, 24, dtype=D)
    risk = xl.Risk(xl.models.logistic(3, 3, dtype=D), classes(24)).reweighted(weights)
    (block,) = Ekfac(risk).blocks
    a = torch.cat([risk.train.x, torch.ones(24, 1, dtype=D)], dim=1)
    A = a.T @ (a * weights[:, None]) / weights.sum()
    S = (risk.loss.hessian(risk.outputs(), risk.train.y) * weights[:, None, None]).mean(0)
    got = torch.kron(block.outputs, block.inputs)
    assert relative_error(got * block.kfac.flatten() @ got.T, torch.kron(S, A)) < 1e-10


def test_the_correction_is_worth_something():
    risk = convolutional()
    gain = []
    for block, truth, Q in blocks_and_truth(risk, dense(risk), Ekfac(risk)):
        own, plain = ((Q * v.flatten() @ Q.T - truth).norm() / truth.norm() for v in (block.values, block.kfac))
        gain.append(float(plain - own))
    assert max(gain) > 0.02


def test_labels_of_the_data_give_the_empirical_fisher():
    risk = convolutional()
    rows = loop_gradients(risk, risk.train)
    for block, truth, Q in blocks_and_truth(risk, rows.T @ rows / risk.n, Ekfac(risk, labels="data")):
        assert relative_error(block.values.flatten(), (Q.T @ truth @ Q).diagonal()) < 1e-10


@pytest.mark.parametrize("loss", ["cross_entropy", "squared_error"])
def test_drawn_labels_are_right_on_average_and_are_their_seed(loss):
    data = classes(24) if loss == "cross_entropy" else targets(24, 3, 3)
    risk = xl.Risk(xl.models.logistic(3, 3, dtype=D), data, loss=loss)
    drawn = [Ekfac(risk, labels="sampled", seed=seed) for seed in (*range(200), 0)]
    assert torch.equal(drawn[0].matrix(), drawn[-1].matrix()) and not torch.equal(drawn[0].matrix(), drawn[1].matrix())
    total = [float(ekfac.eigenvalues.sum()) for ekfac in drawn[:-1]]
    want, mean = float(Ekfac(risk).eigenvalues.sum()), sum(total) / len(total)
    error = torch.tensor(total).std() / len(total) ** 0.5
    assert abs(mean - want) < 4 * error and error < 0.02 * want


def test_one_example_makes_every_block_exact():
    """Then F = (a a^T) (x) (sum_c g_c g_c^T): nothing is averaged."""
    risk = network_risk(n=1)
    for block, truth, Q in blocks_and_truth(risk, dense(risk), Ekfac(risk)):
        assert relative_error(Q * block.values.flatten() @ Q.T, truth) < 1e-10
    one_place = xl.Risk(nn.Sequential(nn.Conv2d(2, 3, 4), nn.Flatten()).double(), Examples(normal(1, 2, 4, 4),
                        torch.tensor([1])), l2=0.1)  # fmt: skip
    assert relative_error(Ekfac(one_place).matrix(), xl.curvature.gauss_newton(one_place)) < 1e-10


def test_linear_least_squares_is_exact():
    """S is 2 I for every example, so inputs and output gradients are independent; and there is one layer."""
    risk = ridge_risk(o=3)
    ekfac = Ekfac(risk)
    assert relative_error(ekfac.matrix(), xl.curvature.hessian(risk)) < 1e-10
    test = targets(5, 4, 3, seed=9)
    want = xl.influence.loss_influence(risk, test)
    assert relative_error(xl.influence.loss_influence(risk, test, curvature="ekfac"), want) < 1e-9


def test_inputs_independent_of_output_gradients_make_it_exact():
    """Every input meets every residual once: the empirical Fisher of a linear layer is then a Kronecker product."""
    x, residual = normal(4, 3), normal(5, 2, seed=1)
    x, residual = x.repeat_interleave(5, dim=0), residual.repeat(4, 1)
    model = nn.Linear(3, 2).double()
    risk = xl.Risk(model, Examples(x, model(x).detach() + residual), loss="squared_error")
    assert relative_error(Ekfac(risk, labels="data").matrix(), xl.curvature.empirical_fisher(risk)) < 1e-10
    tied = xl.Risk(model, Examples(x, model(x).detach() + residual * x[:, :1]), loss="squared_error")
    assert relative_error(Ekfac(tied, labels="data").matrix(), xl.curvature.empirical_fisher(tied)) > 1e-2


@pytest.mark.parametrize("name", ["linear", "convolutions", "one dimension, some parameters"])
def test_product_and_solve_are_those_of_the_matrix(name):
    risk = PROBLEMS[name]()
    ekfac, rows = Ekfac(risk), normal(10, risk.p)
    matrix = ekfac.matrix()
    assert relative_error(matrix, matrix.T) < 1e-14
    assert relative_error(ekfac.eigenvalues.sort().values, torch.linalg.eigvalsh(matrix)) < 1e-10
    assert relative_error(ekfac.product(rows), rows @ matrix) < 1e-12
    damped = matrix + 0.03 * torch.eye(risk.p, dtype=D)
    solution = ekfac_solve(ekfac, rows, damping=0.03)
    assert solution.converged and solution.residual.max() < 1e-10 and solution.residual.shape == (10,)
    assert relative_error(solution.value, torch.linalg.solve(damped, rows.T).T) < 1e-10


def test_both_routes_to_the_eigenvalues_agree(monkeypatch):
    """Turning the factors or the formed gradients, in one part or in many."""
    a, g = normal(5, 6, 4), normal(5, 2, 6, 3, seed=1)
    inputs, outputs = torch.linalg.qr(normal(4, 4))[0], torch.linalg.qr(normal(3, 3))[0]
    G = torch.einsum("ekpo,epd->ekod", g, a)
    want = (outputs.T @ G @ inputs).square().sum((0, 1))
    assert relative_error(kronecker.squares_in_basis(a, g, inputs, outputs), want) < 1e-12
    many = 50 * [0], normal(5, 90, 4), normal(5, 1, 90, 3)
    G = torch.einsum("ekpo,epd->ekod", many[2], many[1])
    want = (outputs.T @ G @ inputs).square().sum((0, 1))
    assert relative_error(kronecker.squares_in_basis(*many[1:], inputs, outputs), want) < 1e-12
    monkeypatch.setattr(kronecker, "TILE", 1)
    assert relative_error(kronecker.squares_in_basis(*many[1:], inputs, outputs), want) < 1e-12


def test_little_memory_changes_nothing():
    risk = convolutional()
    assert relative_error(Ekfac(risk, memory=1).matrix(), Ekfac(risk).matrix()) < 1e-12


def test_influence_through_the_front_door():
    risk, test = convolutional(), Examples(normal(4, 2, 4, 4, seed=5), torch.arange(4) % 3)
    ekfac = Ekfac(risk)
    damped = ekfac.matrix() + 0.05 * torch.eye(risk.p, dtype=D)
    train, tests = loop_gradients(risk, risk.train), loop_gradients(risk, test)
    want = -tests @ torch.linalg.solve(damped, train.T)
    for curvature in ("ekfac", ekfac):
        got = xl.influence.loss_influence(risk, test, curvature=curvature, damping=0.05)
        assert relative_error(got, want) < 1e-10
    rows = xl.influence.parameter_influence(risk, [3, 1], curvature="ekfac", damping=0.05)
    assert relative_error(rows, -torch.linalg.solve(damped, train[[3, 1]].T).T) < 1e-10


def test_it_is_nearer_to_the_gauss_newton_influence_than_plain_gradients_but_not_the_same():
    """At a low damping, where layers matter to each other: with a large one any method looks right."""
    risk, test = network_risk(n=200, seed=1), classes(10, seed=8)
    risk = xl.training.minimise(risk, tolerance=1e-6)
    tables = [
        xl.influence.loss_influence(risk, test, curvature=c, damping=1e-3).flatten()
        for c in ("gauss_newton", "ekfac", "identity")
    ]
    agreement = torch.corrcoef(torch.stack(tables))[0]
    assert agreement[2] + 0.05 < agreement[1] < 0.99


def test_singular_without_ridge_and_damping():
    risk = network_risk(n=1, l2=0.0)
    assert ekfac_solve(Ekfac(risk), normal(2, risk.p)).status == "rank_deficient"
    with pytest.raises(SolverError, match="EK-FAC"):
        xl.influence.loss_influence(risk, classes(2), curvature="ekfac")
    assert ekfac_solve(Ekfac(risk), normal(2, risk.p), damping=1e-3).converged


def test_bad_arguments():
    risk = network_risk()
    with pytest.raises(ValueError, match="1.weight, 1.bias are none; choose others with Risk"):
        Ekfac(xl.Risk(convolution(), images(), l2=0.1))
    with pytest.raises(ValueError, match="labels"):
        Ekfac(risk, labels="true")
    with pytest.raises(ValueError, match="negative weight"):
        Ekfac(risk.reweighted(torch.linspace(-1.0, 1.0, 24, dtype=D)))
    with pytest.raises(ValueError, match="solver=CG"):
        inverse_curvature(risk, curvature="ekfac", solver=CG())
    with pytest.raises(ValueError, match="solver=Arnoldi"):
        inverse_curvature(risk, curvature="ekfac", solver="arnoldi")
    with pytest.raises(ValueError, match="keep=3.*damping"):
        inverse_curvature(risk, curvature="ekfac", keep=3)
    with pytest.raises(ValueError, match="fit it on this risk"):
        inverse_curvature(ridge_risk(), curvature=Ekfac(risk))
    with pytest.raises(ValueError, match="damping"):
        Ekfac(risk).inverse_product(normal(1, risk.p), damping=-0.1)
