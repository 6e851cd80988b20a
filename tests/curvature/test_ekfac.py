"""EK-FAC against the dense Gauss-Newton matrix: exact where a block is a Kronecker product, optimal elsewhere."""

import pytest
import torch
from torch import nn

import explainlib as xl
from explainlib.curvature import kronecker
from explainlib.curvature.ekfac import Ekfac, UncoveredWarning
from explainlib.curvature.kronecker import UncoveredError
from explainlib.datasets import Examples
from explainlib.solvers import CG, SolverError, ekfac_solve, inverse_curvature
from tests.language import gpt_risk
from tests.layerwise.nets import Encoder
from tests.problems import (
    classes,
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


class Words(nn.Module):
    """A table with a padding token, three norms and a read-out: of the positions together, or of each."""

    def __init__(self, tokens):
        super().__init__()
        self.table, self.first, self.group = nn.Embedding(7, 4, padding_idx=0), nn.LayerNorm(4), nn.GroupNorm(2, 4)
        self.batch, self.out, self.tokens = nn.BatchNorm1d(4), nn.Linear(4, 3), tokens

    def forward(self, x):
        h = self.batch(self.group(torch.tanh(self.first(self.table(x))).mT)).mT
        return self.out(h).flatten(1) if self.tokens else self.out(h.mean(1))


def words(n=11, tokens=False, **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Words(tokens).double()
        for module in (net.first, net.group, net.batch):
            nn.init.normal_(module.weight), nn.init.normal_(module.bias)
        x, y = torch.randint(0, 7, (n, 5)), torch.randint(0, 3, (n, 5) if tokens else (n,))
    if tokens:
        y[:, 1] = -100
        y[2, 2:] = -100
        options["loss"] = "token_cross_entropy"
    return xl.Risk(net.eval(), Examples(x, y), l2=0.02, **options)


def attention(n=8):
    """Torch's own transformer layers, whose three projections are blocks of their own."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        data = Examples(torch.randint(0, 7, (n, 4)), torch.arange(n) % 3)
        return xl.Risk(Encoder().double().eval(), data, l2=0.02)


PROBLEMS = {
    "linear": network_risk,
    "attention": attention,
    "a table and norms": words,
    "a table and norms, weighted": lambda: words().reweighted(torch.linspace(0.1, 2.0, 11, dtype=D)),
    "tokens": lambda: words(tokens=True),
    "least squares": lambda: xl.Risk(xl.models.mlp([4, 3, 2], dtype=D), targets(12, 4, 2), loss="squared_error"),
    "weighted": lambda: network_risk().reweighted(torch.linspace(0.0, 3.0, 24, dtype=D)),
    "convolutions": convolutional,
    "convolutions, weighted": lambda: convolutional(weights=torch.linspace(0.1, 2.0, 10, dtype=D)),
    "one dimension, some parameters": text,
    "a layer used twice": twice,
}


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.GRUCell(3, 3)

    def forward(self, x):
        return self.cell(x)


def recurrent():
    return xl.Risk(Recurrent().double(), classes(6), l2=0.1)


def blocks_and_truth(risk, fisher, ekfac):
    """Yield each block with the same block of a dense matrix (without ridge) and its eigenvectors Q."""
    covered = torch.cat([block.flat_positions.flatten() for block in ekfac.blocks])
    assert torch.equal(covered.sort().values, torch.arange(risk.p))
    for block in ekfac.blocks:
        at = block.flat_positions.flatten()
        o, d = block.values.shape
        outputs, inputs = (
            torch.eye(size, dtype=D) if basis is None else basis
            for basis, size in ((block.outputs, o), (block.inputs, d))
        )
        yield block, fisher[at][:, at], torch.kron(outputs.contiguous(), inputs.contiguous())


def dense(risk):
    return xl.curvature.gauss_newton(risk) - risk.l2 * torch.eye(risk.p, dtype=D)


@pytest.mark.parametrize("name", PROBLEMS)
def test_lambda_is_the_diagonal_of_the_dense_block_in_the_eigenbasis(name):
    """E[(Q^T g)^2] is diag(Q^T F Q), whatever Q is; and no diagonal comes closer to F in that basis."""
    risk = PROBLEMS[name]()
    ekfac = Ekfac(risk, labels="exact")
    assert ekfac.left_out == ()
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


@pytest.mark.parametrize("weights", [None, torch.linspace(0.1, 2.0, 11, dtype=D)])
def test_a_table_s_input_factor_is_how_often_each_token_stands(weights):
    risk = words() if weights is None else words().reweighted(weights)
    (block,) = [block for block in Ekfac(risk).blocks if block.values.shape == (4, 7)]
    w = risk.weights_or_ones()
    counts = torch.stack([((risk.train.x == token) * w[:, None]).sum() for token in range(7)]) / (5 * w.sum())
    along_s = block.kfac.sum(1)  # the frequencies add up to 1
    assert relative_error(block.kfac, along_s[:, None] * counts) < 1e-12 and float(counts.sum()) == pytest.approx(1)


def test_the_block_of_a_norm_is_exact_or_beyond_a_size_its_diagonal(monkeypatch):
    risk = words()
    exact = {
        tuple(b.flat_positions.flatten().tolist()): (b, t)
        for b, t, _ in blocks_and_truth(risk, dense(risk), Ekfac(risk))
    }
    norms = [at for at, (block, _) in exact.items() if block.values.shape == (8, 1)]
    assert len(norms) == 3
    for at in norms:
        block, truth = exact[at]
        assert relative_error(block.outputs * block.values.flatten() @ block.outputs.T, truth) < 1e-10
    monkeypatch.setattr("explainlib.curvature.blocks.DENSE_UP_TO", 7)
    for block, truth, _ in blocks_and_truth(risk, dense(risk), Ekfac(risk)):
        if tuple(block.flat_positions.flatten().tolist()) in norms:
            assert block.outputs is None and relative_error(block.values.flatten(), truth.diagonal()) < 1e-10


def test_drawn_tokens_are_right_on_average_and_ignored_ones_stay_out():
    risk = words(tokens=True)
    totals = torch.tensor([float(Ekfac(risk, labels="sampled", seed=s).eigenvalues.sum()) for s in range(60)])
    want = float(Ekfac(risk, labels="exact").eigenvalues.sum())
    error = totals.std() / len(totals) ** 0.5
    assert (totals.mean() - want).abs() < 4 * error and error < 0.1 * want
    y = risk.train.y
    drawn = risk.loss.drawn(risk.outputs(), y, torch.rand(y.shape, dtype=D))
    assert torch.equal(drawn == -100, y == -100)


class Positions(nn.Module):
    """A bare parameter before a linear layer: no block covers it."""

    def __init__(self):
        super().__init__()
        self.place, self.layer = nn.Parameter(torch.ones(3)), nn.Linear(3, 3)

    def forward(self, x):
        return self.layer(x * self.place)


def test_what_has_no_block_is_left_out_with_a_warning_as_if_not_trained():
    net, data = Positions().double(), classes(20)
    risk = xl.Risk(net, data, l2=0.1)
    with pytest.warns(UncoveredWarning, match="place is left out"):
        ekfac = Ekfac(risk, uncovered="warn")
    own = xl.Risk(net, data, l2=0.1, parameters=["layer.weight", "layer.bias"])
    rows = normal(2, risk.p)
    got, want = ekfac.inverse_product(rows), Ekfac(own).inverse_product(rows[:, 3:])
    assert ekfac.left_out == ("place",) and (got[:, :3] == 0).all() and relative_error(got[:, 3:], want) < 1e-12
    test = classes(4, seed=5)
    want = xl.influence.loss_influence(own, test, curvature="ekfac")
    assert relative_error(xl.influence.loss_influence(risk, test, curvature=ekfac), want) < 1e-12
    with pytest.raises(UncoveredError, match="place is none; choose others with Risk") as raised:
        Ekfac(risk)
    assert raised.value.covered == ["layer.weight", "layer.bias"], "the remedy names those that have a block"
    with pytest.raises(UncoveredError, match="place is none.*curvature='gauss_newton'"):
        xl.influence.loss_influence(risk, test, curvature="ekfac")


def test_the_projections_of_attention_are_three_blocks_with_the_bias_in_the_last_column():
    risk = attention()
    names = ["first.self_attn.in_proj_weight", "first.self_attn.in_proj_bias", "first.self_attn.out_proj.weight"]
    some = xl.Risk(risk.model, risk.train, parameters=names)
    blocks = Ekfac(some).blocks
    assert [tuple(block.values.shape) for block in blocks] == [(4, 5)] * 3 + [(4, 4)]
    weight, bias = torch.arange(48).view(12, 4), torch.arange(48, 60).view(12, 1)
    for block, rows in zip(blocks, torch.cat([weight, bias], 1).split(4), strict=False):
        assert torch.equal(block.flat_positions, rows)
    used = Ekfac(xl.Risk(risk.model, risk.train, parameters=names[2:])).blocks
    assert len(used) == 1 and relative_error(used[0].values, blocks[3].values) < 1e-12


def test_a_tied_read_out_is_left_out_with_one_warning():
    risk = gpt_risk(tied=True)
    with pytest.warns(UncoveredWarning, match="table.weight is left out") as said:
        ekfac = Ekfac(risk, uncovered="warn", labels="sampled")
    assert len([one for one in said if one.category is UncoveredWarning]) == 1
    assert ekfac.left_out == ("table.weight",)
    with pytest.raises(UncoveredError, match="table.weight is none"):
        Ekfac(risk)


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
    with pytest.raises(UncoveredError, match="weight_ih.*are none"):
        Ekfac(recurrent())
    with pytest.raises(ValueError, match="uncovered"):
        Ekfac(risk, uncovered="ignore")
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
