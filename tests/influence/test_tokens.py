"""Influence by tokens against autograd token by token, dense matrices, and problems that are solved again."""

import warnings

import pytest
import torch

import explainlib as xl
from explainlib.curvature.ekfac import UncoveredWarning
from explainlib.datasets import Examples
from explainlib.influence import loss_influence, token_influence
from explainlib.influence import tokens as module
from explainlib.layerwise import FallbackWarning
from explainlib.losses import IGNORED
from tests.language import Reader, TorchGpt, by_tokens, gpt_risk, seeded, sentences, token_gradients, token_losses
from tests.problems import classes, dense_gauss_newton, dense_hessian, network_risk, relative_error

D = torch.float64
DAMPING = 0.03
TEST = sentences(3, seed=5)
CURVATURES = {
    "gauss_newton": dense_gauss_newton,
    "hessian": dense_hessian,
    "empirical_fisher": lambda risk: (lambda g: g.T @ g / risk.n)(token_gradients(risk, risk.train).sum(1)),
    "identity": lambda risk: (1 - DAMPING) * torch.eye(risk.p, dtype=D) + DAMPING * torch.eye(risk.p, dtype=D),
    "ekfac": lambda risk: xl.curvature.Ekfac(risk).matrix(),
}


@pytest.fixture(scope="module")
def risk():
    return gpt_risk(parameters=["attention.0.qkv.weight", "norms.1.weight", "mlp.0.0.bias", "read.weight"])


@pytest.mark.parametrize("curvature", CURVATURES)
@pytest.mark.filterwarnings("ignore::explainlib.NotAtMinimumWarning")
def test_both_sides_against_autograd_by_token_and_a_dense_inverse(risk, curvature):
    matrix = CURVATURES[curvature](risk) + DAMPING * torch.eye(risk.p, dtype=D)
    test, train = token_gradients(risk, TEST), token_gradients(risk, risk.train)
    solved = torch.linalg.solve(matrix, test.flatten(0, 1).T).T.view_as(test)
    options = {"curvature": curvature, "damping": DAMPING}
    on_test = token_influence(risk, TEST, **options)
    on_train = token_influence(risk, TEST, tokens="train", **options)
    assert on_test.shape == (3, 5, 12) and on_train.shape == (3, 12, 5)
    assert relative_error(on_test, -torch.einsum("tsp,np->tsn", solved, train.sum(1))) < 1e-9
    assert relative_error(on_train, -torch.einsum("tp,nsp->tns", solved.sum(1), train)) < 1e-9
    whole = loss_influence(risk, TEST, **options)
    assert relative_error(on_test.sum(1), whole) < 1e-9 and relative_error(on_train.sum(2), whole) < 1e-9
    assert (on_test[TEST.y == IGNORED] == 0).all() and (on_test[TEST.y != IGNORED] != 0).all()
    assert (on_train[:, risk.train.y == IGNORED] == 0).all() and (on_train[:, risk.train.y != IGNORED] != 0).all()


@pytest.mark.parametrize("solver", ["cg", "low_rank", "lissa", "neumann"])
def test_every_solver(risk, solver):
    options = {"curvature": "gauss_newton", "damping": 0.5}
    for tokens in ("test", "train"):
        want = token_influence(risk, TEST, tokens=tokens, **options)
        assert relative_error(token_influence(risk, TEST, tokens=tokens, solver=solver, **options), want) < 1e-4


def test_all_parameters_by_ekfac():
    """Tables, attention, norms: the gradients of tokens layer by layer against autograd."""
    risk = gpt_risk()
    ekfac = xl.curvature.Ekfac(risk, labels="exact")
    train, test = token_gradients(risk, risk.train), token_gradients(risk, TEST)
    solved = torch.linalg.solve(ekfac.matrix() + DAMPING * torch.eye(risk.p, dtype=D), test.flatten(0, 1).T).T
    options = {"curvature": ekfac, "damping": DAMPING}
    want = -torch.einsum("tsp,np->tsn", solved.view_as(test), train.sum(1))
    assert relative_error(token_influence(risk, TEST, **options), want) < 1e-9
    want = -torch.einsum("tp,nsp->tns", solved.view_as(test).sum(1), train)
    assert relative_error(token_influence(risk, TEST, tokens="train", **options), want) < 1e-9


@pytest.mark.parametrize("tied", [False, True])
def test_torch_s_own_layers_and_a_shared_table(tied):
    """All parameters layer by layer; EK-FAC leaves out a shared table alone, once with a warning."""
    risk = gpt_risk(make=TorchGpt, tied=tied)
    train, test = token_gradients(risk, risk.train), token_gradients(risk, TEST)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        ekfac = xl.curvature.Ekfac(risk, labels="sampled", uncovered="warn")
        curved = {"identity": torch.eye(risk.p, dtype=D), ekfac: ekfac.matrix() + DAMPING * torch.eye(risk.p, dtype=D)}
        for curvature, matrix in curved.items():
            solved = torch.linalg.solve(matrix, ekfac.covered(test.flatten(0, 1)).T).T.view_as(test)
            solved = solved if curvature is ekfac else test
            options = {"curvature": curvature, "damping": DAMPING if curvature is ekfac else 0.0}
            got = token_influence(risk, TEST, **options)
            assert relative_error(got, -torch.einsum("tsp,np->tsn", solved, train.sum(1))) < 1e-9
            got = token_influence(risk, TEST, tokens="train", **options)
            assert relative_error(got, -torch.einsum("tp,nsp->tns", solved.sum(1), train)) < 1e-9
    assert ekfac.left_out == (("table.weight",) if tied else ())
    assert [one.category for one in said if one.category in (UncoveredWarning, FallbackWarning)] == [
        UncoveredWarning
    ] * tied


def test_a_risk_of_one_token_an_example_says_the_same(risk):
    """Tests of one token each; and training examples of one each, whose mean over n T has the ridge l2/T."""
    options = {"curvature": "gauss_newton", "damping": DAMPING}
    got = token_influence(risk, TEST, **options)[TEST.y != IGNORED]
    assert relative_error(got, loss_influence(risk, by_tokens(TEST), **options)) < 1e-9
    train = by_tokens(risk.train)
    share = risk.n / len(train)
    other = xl.Risk(
        risk.model, train, loss=risk.loss, l2=share * risk.l2, parameters=risk.parameters.names
    )  # share times the first risk
    want = loss_influence(other, TEST, curvature="gauss_newton", damping=share * DAMPING) * share
    got = token_influence(risk, TEST, tokens="train", **options)[:, risk.train.y != IGNORED]
    assert relative_error(got, want) < 1e-9


def test_it_is_the_derivative_of_problems_that_are_solved_again():
    """In a weight of an example on each test token; the problem with less of one target on the test losses."""
    risk = xl.Risk(seeded(Reader), sentences(8), loss="token_cross_entropy", l2=0.1)
    risk = xl.training.minimise(risk, tolerance=1e-12)
    got, j, h = token_influence(risk, TEST), 3, 1e-4
    ends = []
    for sign in (1, -1):
        weights = torch.ones(8, dtype=D)
        weights[j] += sign * h * risk.n
        ends.append(token_losses(xl.training.minimise(risk.reweighted(weights), tolerance=1e-12), TEST))
    assert relative_error(got[:, :, j], (ends[0] - ends[1]) / (2 * h)) < 1e-5
    got, s = token_influence(risk, TEST, tokens="train"), 3
    x, y = torch.cat([risk.train.x, risk.train.x[j : j + 1]]), torch.cat([risk.train.y, risk.train.y[j : j + 1]])
    y[-1, [0, 2, 4]] = IGNORED  # a ninth example holds target s of example j alone
    larger = xl.Risk(risk.model, Examples(x, y), loss="token_cross_entropy", l2=0.1 * 8 / 9)  # 8/9 of the first risk
    ends = []
    for sign in (1, -1):
        weights = torch.ones(9, dtype=D)
        weights[-1] = sign * h * risk.n
        ends.append(xl.training.minimise(larger.reweighted(weights), tolerance=1e-12).losses(TEST))
    assert y[-1, s] != IGNORED and relative_error(got[:, j, s], (ends[0] - ends[1]) / (2 * h)) < 1e-5


@pytest.mark.parametrize("tokens", ["test", "train"])
def test_little_memory_changes_nothing(risk, tokens, monkeypatch):
    options = {"tokens": tokens, "curvature": "gauss_newton", "damping": DAMPING}
    want, calls = token_influence(risk, TEST, **options), []
    right = module.per_example
    monkeypatch.setattr(module, "per_example", lambda *a, **k: calls.append(1) or right(*a, **k))
    assert relative_error(token_influence(risk, TEST, memory=60_000, **options), want) < 1e-12
    assert len(calls) > 3 or tokens == "train"


@pytest.mark.parametrize("rows", [1, 2, 4, 8, 100])
def test_slices_hold_every_token_with_a_target_once(rows):
    there = torch.tensor([[1, 0, 0, 1, 0, 1], [0, 0, 0, 1, 1, 0], [1, 0, 1, 1, 1, 1]]).bool()
    seen = torch.zeros_like(there).int()
    for examples, positions in module._token_slices(there, rows):
        assert (examples.stop - examples.start) * len(positions) <= rows
        assert there[examples][:, positions].any(0).all(), "a position without a target"
        seen[examples.start : examples.stop, positions] += 1
    assert (seen[there] == 1).all() and seen.max() == 1


def test_weights_of_the_examples_are_in_the_curvature_alone(risk):
    weights = torch.linspace(0.1, 2.0, risk.n, dtype=D)
    other = risk.reweighted(weights)
    options = {"curvature": "gauss_newton", "damping": DAMPING}
    whole = loss_influence(other, TEST, **options)
    assert relative_error(token_influence(other, TEST, **options).sum(1), whole) < 1e-9
    assert relative_error(token_influence(other, TEST, tokens="train", **options).sum(2), whole) < 1e-9


@pytest.mark.parametrize("tokens", ["test", "train"])
def test_in_float32(risk, tokens):
    model, train = risk.model.float(), Examples(risk.train.x, risk.train.y)
    other = xl.Risk(model, train, loss="token_cross_entropy", l2=risk.l2, parameters=risk.parameters.names)
    options = {"tokens": tokens, "curvature": "gauss_newton", "damping": DAMPING}
    got = token_influence(other, TEST, **options)
    assert got.dtype == torch.float32 and relative_error(got.double(), token_influence(risk, TEST, **options)) < 1e-4


@pytest.mark.parametrize("tokens", ["test", "train"])
def test_a_store_keeps_the_scores_and_tells_both_sides_apart(risk, tokens, tmp_path, monkeypatch):
    options = {"curvature": "gauss_newton", "damping": DAMPING, "tokens": tokens}
    want = token_influence(risk, TEST, **options)
    assert relative_error(token_influence(risk, TEST, store=tmp_path / "a", **options), want) < 1e-12
    monkeypatch.setattr(module, "inverse_curvature", lambda *a, **b: pytest.fail("it was there"))
    assert relative_error(token_influence(risk, TEST, store=tmp_path / "a", **options), want) < 1e-12
    other = "train" if tokens == "test" else "test"
    with pytest.raises(ValueError, match="tokens"):
        token_influence(risk, TEST, store=tmp_path / "a", **{**options, "tokens": other})
    with pytest.raises(ValueError, match="holds|other|differ"):
        loss_influence(risk, TEST, store=tmp_path / "a", curvature="gauss_newton", damping=DAMPING)


def test_refusals(risk):
    with pytest.raises(ValueError, match="this risk has cross_entropy; pass a Risk.*loss='token_cross_entropy'"):
        token_influence(network_risk(), classes(3), curvature="identity")
    with pytest.raises(ValueError, match="tokens='both'"):
        token_influence(risk, TEST, tokens="both")
    silent = TEST.y.clone()
    silent[1] = IGNORED
    with pytest.raises(ValueError, match="test.y has no target in example 1"):
        token_influence(risk, Examples(TEST.x, silent))
    with pytest.raises(TypeError, match="expected int64 .n, tokens."):
        token_influence(risk, Examples(TEST.x, TEST.y[:, 0].clamp(min=0)))
    with pytest.raises(ValueError, match="not at a minimum"):
        token_influence(risk, TEST, strict=True)
    with pytest.raises(xl.solvers.SolverError):
        token_influence(risk, TEST, curvature="gauss_newton", solver=xl.solvers.CG(max_steps=1))


def test_targets_of_another_length_are_refused_everywhere(risk):
    """35 outputs are 5 tokens of 7 classes here, and could be read as 7 tokens of 5."""
    longer = Examples(TEST.x, torch.zeros(3, 7, dtype=torch.int64))
    for read in (risk.losses, lambda e: loss_influence(risk, e, curvature="identity")):
        with pytest.raises(ValueError, match="as many tokens as in the training set"):
            read(longer)
