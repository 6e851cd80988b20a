"""The factors of score tables: those that a table was made of, those of real explanations, and refusals by axiom."""

import pytest
import torch

import explainlib as xl
from explainlib.representers import AxiomError, axioms, kernel, representer_factors, representer_scores
from tests.problems import classes, generator, normal, relative_error
from tests.representers.test_axioms import principal_minors

D = torch.float64
X, T = normal(12, 4), normal(5, 4, seed=1)
COSINES = torch.nn.functional.normalize(X) @ torch.nn.functional.normalize(X).T


def same_up_to_scale(factors, alpha, gram, between=None, members=slice(None)):
    """Whether alpha and K are the true ones up to one positive factor."""
    scale = float(factors.importance[members] @ alpha[members] / alpha[members].square().sum())
    assert scale > 0
    assert relative_error(factors.importance[members], scale * alpha[members]) < 1e-9
    assert relative_error(factors.kernel[members][:, members], gram[members][:, members] / scale) < 1e-9
    if between is not None:
        assert relative_error(factors.kernel_test[:, members], between[:, members] / scale) < 1e-9


@pytest.mark.parametrize("make", [lambda a, b: a @ b.T, lambda a, b: (-torch.cdist(a, b).square()).exp()])
def test_a_table_gives_back_what_it_was_made_of(make):
    alpha, gram, between = normal(12, seed=2), make(X, X), make(T, X)
    factors = representer_factors(alpha * gram, alpha * between)
    same_up_to_scale(factors, alpha, gram, between)
    assert (factors.component == 0).all()
    assert relative_error(factors.importance * factors.kernel, alpha * gram) < 1e-12
    assert relative_error(factors.importance * factors.kernel_test, alpha * between) < 1e-12
    assert torch.equal(factors.kernel, factors.kernel.T)
    assert factors.kernel.diagonal().mean() == pytest.approx(1.0)


def test_a_kernel_of_cosines_is_found_without_a_scale():
    alpha = normal(12, seed=2)
    factors = representer_factors(alpha * COSINES)
    assert relative_error(factors.importance, alpha) < 1e-10 and relative_error(factors.kernel, COSINES) < 1e-10
    assert factors.kernel_test is None


def test_examples_without_effect_have_importance_zero_and_the_kernel_of_least_norm():
    """Of a linear kernel whose other examples span all directions, it is the kernel itself."""
    alpha = normal(12, seed=2)
    alpha[[3, 7]] = 0
    factors = representer_factors(alpha * (X @ X.T), alpha * (T @ X.T))
    assert factors.importance[[3, 7]].tolist() == [0, 0] and factors.component[[2, 3, 7]].tolist() == [0, -1, -1]
    same_up_to_scale(factors, alpha, X @ X.T, T @ X.T)
    narrow = representer_factors(torch.zeros(3, 3, dtype=D))
    assert not narrow.importance.any() and not narrow.kernel.any() and narrow.component.tolist() == [-1, -1, -1]


def test_components_have_scales_of_their_own():
    """Two blocks of features: no score connects them, so each importance is known up to its block's factor."""
    x = torch.zeros(8, 4, dtype=D)
    x[:4, :2], x[4:, 2:] = normal(4, 2, seed=3), normal(4, 2, seed=4)
    alpha = normal(8, seed=5)
    factors = representer_factors(alpha * (x @ x.T), alpha * (normal(3, 4) @ x.T))
    assert factors.component.tolist() == [0] * 4 + [1] * 4 or factors.component.tolist() == [1] * 4 + [0] * 4
    for block in (slice(0, 4), slice(4, 8)):
        same_up_to_scale(factors, alpha, x @ x.T, members=block)
        assert factors.kernel.diagonal()[block].mean() == pytest.approx(1.0)
    assert not factors.kernel[:4, 4:].any()


def test_a_chain_is_followed_to_its_end():
    """Example i is similar to i + 1 alone: ratios multiply along the path."""
    chain = torch.eye(30, dtype=D) + 0.4 * (torch.ones(29, dtype=D).diag(1) + torch.ones(29, dtype=D).diag(-1))
    alpha = torch.logspace(-3, 3, 30, dtype=D)
    factors = representer_factors(alpha * chain)
    assert ((factors.importance - alpha).abs() / alpha).max() < 1e-10


def test_the_explanation_of_a_trained_model_has_its_factors():
    train, test = classes(9), classes(4, seed=3)
    model = xl.models.mlp([3, 5, 3], "tanh", dtype=D)
    run = xl.training.fit(model, train, epochs=5, lr=0.1, optimizer="sgd", record=True)
    alpha = xl.representers.tracking_importance(run)
    near, between = kernel(run.model, train.x, train.x, output=1), kernel(run.model, test.x, train.x, output=1)
    factors = representer_factors(*(representer_scores(alpha, k, output=1) for k in (near, between)))
    same_up_to_scale(factors, alpha[:, 1], near, between)
    assert (factors.importance < 0).any()  # though Definition 6 for one example forbids it


def test_tracin_is_no_product():
    """Its kernel is another at every checkpoint (eq. 14): the sum of products is none, and the cycle axiom says so."""
    train = classes(9)
    model = xl.models.mlp([3, 5, 3], "tanh", dtype=D)
    run = xl.training.fit(model, train, epochs=60, lr=0.5, optimizer="sgd", checkpoints=3)
    table = xl.influence.tracin(run, train, train, measure="output", output=1)
    with pytest.raises(AxiomError, match="symmetric cycle is violated") as error:
        representer_factors(table)
    assert error.value.axiom == "symmetric cycle" and axioms.symmetric_cycle(table) > 1e-3


def broken(change):
    phi = normal(12, seed=2).abs() * COSINES
    change(phi)
    return phi


def silent(phi):
    phi[2, 2] = 0.0


def one_way(phi):
    phi[1, 4] = 0.0


def turned(phi):
    phi[1, 4] *= 1.01


def indefinite(phi):
    at = torch.tensor([0, 3])
    phi[at, at.flip(0)] = 1.5 * (phi[0, 0] * phi[3, 3]).sqrt() * torch.tensor([1.0, 1.0], dtype=D)
    phi[:, 1:3] = phi[1:3] = phi[:, 4:] = phi[4:] = 0.0


@pytest.mark.parametrize(
    ("change", "axiom", "words"),
    [
        (silent, "self-explanation", "example 2 scores 0.0e"),
        (one_way, "symmetric zero", "example 4 has no effect on 1"),
        (turned, "symmetric cycle", "of their sum"),
        (indefinite, "irreducibility", "lowest eigenvalue"),
    ],
)
def test_the_violated_axiom_is_named(change, axiom, words):
    with pytest.raises(AxiomError, match=words) as error:
        representer_factors(broken(change))
    assert error.value.axiom == axiom and f"{axiom} is violated" in str(error.value)


@pytest.mark.parametrize(
    ("links", "cycle"),
    [
        ([(0, 1), (1, 2), (1, 3), (2, 3)], "2 -> 1 -> 3 -> 2"),
        ([(0, 1), (1, 2), (2, 3), (1, 3)], "1 -> 2 -> 3 -> 1"),
        ([(0, 1), (1, 2), (2, 3), (1, 4), (4, 5), (3, 5)], "3 -> 2 -> 1 -> 4 -> 5 -> 3"),
        ([(i, i + 1) for i in range(5)] + [(0, 5)], "0 -> 1 -> 2 -> 3 -> 4 -> 5 -> 0"),
        ([(i, i + 1) for i in range(6)] + [(0, 6)], "0 -> 1 -> 2 -> 3 -> 4 -> 5 -> ... -> 0"),
    ],
)
def test_the_cycle_is_named_with_its_size(links, cycle):
    """Of the links the last is the weakest, so that the path runs along the others; one way it is 1.5 times the other."""
    phi = torch.eye(1 + max(max(link) for link in links), dtype=D)
    for i, j in links[:-1]:
        phi[i, j] = phi[j, i] = 0.4
    i, j = links[-1]
    phi[i, j], phi[j, i] = 0.3, 0.2
    with pytest.raises(AxiomError, match=f"round the cycle {cycle} differ by 20.0% of their sum"):
        representer_factors(phi)


def test_what_the_measures_call_satisfied_has_factors():
    """Random kernels of any signature, each times positive importances: refused exactly where a minor is negative."""
    draw, seen = generator(3), set()
    for _ in range(40):
        vectors = torch.linalg.qr(torch.randn(5, 5, generator=draw, dtype=D)).Q
        values = torch.rand(5, generator=draw, dtype=D) * torch.where(torch.rand(5, generator=draw) < 0.1, -0.3, 1.0)
        gram = (vectors * values) @ vectors.T
        if float(gram.diagonal().min()) <= 0:
            continue
        phi = (0.1 + torch.rand(5, generator=draw, dtype=D)) * gram
        fine = principal_minors(phi) >= 0
        try:
            representer_factors(phi)
        except AxiomError as error:
            assert not fine and error.axiom == "irreducibility"
        else:
            assert fine
        seen.add(fine)
    assert seen == {True, False}


@pytest.mark.parametrize("n", [2, 5])
def test_opposite_signs_satisfy_every_definition_and_have_no_kernel(n):
    """Importances of both signs and a kernel that is negative on the second class: a positive definite symmetric part.

    Every minor of such a table is positive, no axiom is violated, and Theorem 7's "only if" fails.
    """
    root = normal(n, n, seed=6)
    gram = root @ root.T + n * torch.eye(n, dtype=D)
    sign = torch.where(torch.arange(n) < n // 2, 1.0, -1.0).double()
    same = sign[:, None] == sign
    across = normal(n, n, seed=8)
    phi = torch.where(same, gram, sign * (across + across.T))
    assert principal_minors(phi) > 0
    assert axioms.symmetric_zero(phi) == 0 == axioms.self_explanation(phi, phi)
    assert axioms.symmetric_cycle(phi) < 1e-9
    with pytest.raises(AxiomError, match="positive own similarity") as error:
        representer_factors(phi)
    assert error.value.axiom == "positive own similarity"


def test_two_equal_examples_have_equal_kernels_with_every_test():
    """Weights 1 and -1 on them are in the null space (Proposition 9): a test that tells them apart has no kernel."""
    x = torch.cat([X[:1], X])
    alpha = 0.5 + normal(13, seed=2).abs()
    fine = alpha * (T @ x.T)
    assert representer_factors(alpha * (x @ x.T), fine).kernel_test.shape == (5, 13)
    fine[3, 0] *= 1.1
    with pytest.raises(AxiomError, match="at test 3 instead of 0"):
        representer_factors(alpha * (x @ x.T), fine)


def test_rounding_is_no_violation_in_float32():
    alpha, gram, between = normal(60, seed=2), normal(60, 4) @ normal(60, 4).T, T @ normal(60, 4).T
    factors = representer_factors((alpha * gram).float(), (alpha * between).float())
    assert factors.importance.dtype == torch.float32
    scale = float(factors.importance.double() @ alpha / alpha.square().sum())
    assert relative_error(factors.importance.double(), scale * alpha) < 1e-4
    noisy = alpha * gram * (1 + 1e-3 * normal(60, 60, seed=9))
    with pytest.raises(AxiomError):
        representer_factors(noisy)
    rough = representer_factors(noisy, tolerance=0.1)
    scale = float(rough.importance @ alpha / alpha.square().sum())
    assert relative_error(rough.importance, scale * alpha) < 0.02


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: representer_factors(torch.full((2, 2), float("nan"))), "NaN"),
        (lambda: representer_factors(torch.eye(2), tolerance=0.0), "tolerance=0.0"),
    ],
)
def test_bad_input(act, message):
    with pytest.raises(ValueError, match=message):
        act()
