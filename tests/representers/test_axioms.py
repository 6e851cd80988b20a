"""Axioms on tables that satisfy or break them by construction."""

from itertools import combinations

import pytest
import torch

from explainlib.representers import axioms, kernel
from tests.defaults import number_defaults

D = torch.float64
G = torch.Generator().manual_seed(0)
ROOT = torch.randn(8, 8, generator=G, dtype=D)
K, ALPHA = ROOT @ ROOT.T, torch.rand(8, generator=G, dtype=D) + 0.1
TESTS = torch.randn(4, 8, generator=G, dtype=D) @ ROOT.T


def violations(train, test, outputs, **options):
    frame = axioms.table(train, test, outputs, **options)
    return dict(zip(frame["axiom"], frame["violation"], strict=True))


def test_a_representer_with_positive_importances_satisfies_all():
    phi, phi_test = ALPHA * K, ALPHA * TESTS
    found = violations(phi, phi_test, phi_test.sum(1))
    assert all(value < 1e-12 for value in found.values()), found


def test_a_negative_importance_breaks_irreducibility_alone():
    """The theorem's "any alpha": one example is enough to break Definition 6."""
    alpha = ALPHA.clone()
    alpha[:2] *= -1
    phi, phi_test = alpha * K, alpha * TESTS
    found = violations(phi, phi_test, phi_test.sum(1))
    assert found["irreducibility"] == 0.25
    assert max(v for name, v in found.items() if name != "irreducibility") < 1e-12


def test_efficiency_before_and_after_training():
    phi_test = ALPHA * TESTS
    before = torch.ones(4, dtype=D)
    found = violations(ALPHA * K, phi_test, phi_test.sum(1) + before, outputs_before=before)
    assert found["efficiency"] > 0.01 and found["efficiency of the change"] < 1e-12


def test_what_breaks_the_others():
    turned = K + torch.randn(8, 8, generator=G, dtype=D)
    assert violations(turned, TESTS, TESTS.sum(1))["symmetric cycle"] > 0.05
    holed = K.clone()
    holed[0, 1] = 0.0
    assert violations(holed, TESTS, TESTS.sum(1))["symmetric zero"] == pytest.approx(2 / 56)
    silent = K.clone()
    silent[3, 3] = 0.0
    assert violations(silent, TESTS, TESTS.sum(1))["self-explanation"] > 0.01


def principal_minors(phi):
    """Return the smallest principal minor of every size: Definition 6, by brute force."""
    n = len(phi)
    sets = [list(c) for k in range(1, n + 1) for c in combinations(range(n), k)]
    return min(float(torch.linalg.det(phi[c][:, c])) for c in sets)


def test_irreducibility_is_that_of_every_principal_minor():
    """Random kernels of every signature times positive importances, against all 31 determinants."""
    draw, seen = torch.Generator().manual_seed(3), set()
    for _ in range(60):
        vectors = torch.linalg.qr(torch.randn(5, 5, generator=draw, dtype=D)).Q
        values = torch.rand(5, generator=draw, dtype=D) * torch.where(torch.rand(5, generator=draw) < 0.15, -0.3, 1.0)
        phi = (0.1 + torch.rand(5, generator=draw, dtype=D)) * (vectors * values) @ vectors.T
        phi = (phi / phi.diagonal().abs().max()) if float(phi.diagonal().min()) > 0 else phi
        broken = principal_minors(phi) < -1e-14
        assert (axioms.irreducibility(phi) > 1e-12) == broken
        seen.add(broken)
    assert seen == {True, False}


def test_a_negative_determinant_of_positive_examples_is_seen():
    """Diagonal above zero, determinant -3: passing would need a look at more than the diagonal."""
    assert axioms.irreducibility(torch.tensor([[1.0, 2.0], [2.0, 1.0]], dtype=D)) == pytest.approx(0.6)
    three = torch.full((3, 3), -0.6, dtype=D).fill_diagonal_(
        1.0
    )  # its pairs are fine: only the third minor is negative
    assert principal_minors(three) < 0 < principal_minors(three[:2, :2])
    assert axioms.irreducibility(three) == pytest.approx(0.2 / 1.6)
    turned = torch.tensor([[1.0, 3.0], [-2.0, 1.0]], dtype=D)  # no kernel, and no negative minor either: 1 + 6
    assert axioms.irreducibility(turned) == 0 and principal_minors(turned) > 0
    alpha = torch.tensor([-1.0, 2.0, 3.0], dtype=D)
    assert axioms.irreducibility(alpha * three) == pytest.approx(1 / 3)  # the share, larger than what three breaks
    assert axioms.irreducibility(alpha * (three.abs())) == pytest.approx(1 / 3)


def test_rounding_breaks_no_axiom():
    """A kernel of rank 3 among 40 examples, two of them the same, in float32: minors are zero up to rounding."""
    root = torch.randn(40, 3, generator=torch.Generator().manual_seed(1))
    root[7] = root[3]
    phi = (0.1 + torch.rand(40, generator=torch.Generator().manual_seed(2))) * (root @ root.T)
    assert axioms.irreducibility(phi) == 0 and axioms.symmetric_cycle(phi) == 0
    assert axioms.irreducibility(phi.double()) < 1e-6


def test_a_cycle_that_few_triangles_break_is_seen():
    """One example of ten answers others' scores by one and a half: 30% of the triangles, which a median misses."""
    phi = K.new_ones(10, 10) + torch.eye(10, dtype=D)
    phi[0, 1:4] *= 1.5
    triangles = [phi[i, j] * phi[j, k] * phi[k, i] != phi[j, i] * phi[k, j] * phi[i, k]
                 for i, j, k in combinations(range(10), 3)]  # fmt: skip
    assert 0.1 < sum(bool(t) for t in triangles) / len(triangles) < 0.5
    assert axioms.symmetric_cycle(phi) == pytest.approx(0.2)  # (1.5 - 1)/(1.5 + 1)


def test_longer_cycles_are_gone_round_too():
    """A ring of four: every triangle has a zero in it, and only the ring itself tells the two ways apart."""
    phi = torch.eye(4, dtype=D)
    for i in range(4):
        phi[i, (i + 1) % 4], phi[(i + 1) % 4, i] = 2.0, 1.0
    assert axioms.symmetric_cycle(phi) == pytest.approx(15 / 17)
    assert axioms.symmetric_cycle(phi[:3, :3]) == 0


def test_a_ring_of_five_is_gone_round_and_none_of_six():
    for size, found in ((5, 31 / 33), (6, 0.0)):
        phi = torch.eye(size, dtype=D)
        for i in range(size):
            phi[i, (i + 1) % size], phi[(i + 1) % size, i] = 2.0, 1.0
        assert axioms.symmetric_cycle(phi) == pytest.approx(found)


def test_zeros_on_the_diagonal():
    """An example without effect on itself: on a test it is a violation of one axiom, on another example of the last."""
    none = torch.zeros(3, 3, dtype=D)
    assert axioms.self_explanation(none, torch.ones(2, 3, dtype=D)) == 1
    assert axioms.symmetric_zero(none) == axioms.symmetric_cycle(none) == axioms.irreducibility(none) == 0
    assert axioms.irreducibility(torch.tensor([[0.0, 1.0], [1.0, 1.0]], dtype=D)) == pytest.approx(1.0)


def test_a_small_example_beside_a_large_one_breaks_nothing():
    size = torch.tensor([0.01, 1.0], dtype=D)
    assert axioms.irreducibility(size[:, None] * size) == 0


def test_eigenvalues_count_only_where_the_table_is_a_product():
    """The same pairs, of which the ways round a triangle differ: no kernel has these scores, and no pair is negative."""
    phi = torch.full((3, 3), -0.6, dtype=D).fill_diagonal_(1.0)
    phi[0, 1], phi[1, 0] = 2 * phi[0, 1], phi[1, 0] / 2
    assert axioms.symmetric_cycle(phi) > 0.1 and axioms.irreducibility(phi) == 0


@pytest.mark.parametrize(("dtype", "length"), [(D, 2.0**-41), (torch.float32, 2.0**-18)])
def test_continuity_looks_at_a_billionth_of_the_line(dtype, length):
    """Scores that rise from 0 to 1: over the last segment by its length."""
    asked = []
    line = lambda x: asked.append(len(x)) or x  # noqa: E731
    zero, one = torch.zeros(1, dtype=dtype), torch.ones(1, dtype=dtype)
    assert axioms.continuity(line, zero, one) == pytest.approx(length, rel=1e-6, abs=0)
    assert asked[0] == 65 and set(asked[1:]) == {64}
    asked.clear()
    assert axioms.continuity(line, zero, one, halvings=3) == pytest.approx(1 / 64 / 8) and len(asked) == 4


def test_defaults():
    assert number_defaults(axioms.table) == number_defaults(axioms.symmetric_cycle) == {"seed": 0}


def test_a_relu_network_jumps_and_a_smooth_one_does_not():
    """One hidden unit v relu(w x): its kernel with z is relu(wx) relu(wz) + v^2 1[wx > 0] 1[wz > 0] x z."""
    train = torch.tensor([[1.0], [2.0]], dtype=D)
    for activation, jumps in ((torch.nn.ReLU(), True), (torch.nn.Tanh(), False), (torch.nn.GELU(), False)):
        model = torch.nn.Sequential(torch.nn.Linear(1, 1), activation, torch.nn.Linear(1, 1, bias=False)).double()
        model[0].weight.data, model[0].bias.data = torch.ones(1, 1, dtype=D), -torch.ones(1, dtype=D)
        model[2].weight.data = torch.full((1, 1), 3.0, dtype=D)
        at = lambda x, model=model: kernel(model, x, train)  # noqa: E731
        found = axioms.continuity(at, torch.tensor([0.0], dtype=D), torch.tensor([1.7], dtype=D))
        if jumps:  # at x = 1 the kernel with z = 2 goes from 0 to v^2 (x z + 1) = 27, and on to 39 + .7 at x = 1.7
            assert found == pytest.approx(9 * 3 / (9 * (1.7 * 2 + 1) + 0.7 * 1), rel=1e-6)
        else:
            assert found < 1e-9
        last = lambda x, model=model: kernel(model, x, train, kind="last_layer")  # noqa: E731
        assert axioms.continuity(last, torch.tensor([0.0], dtype=D), torch.tensor([1.7], dtype=D)) < 1e-9
    with pytest.raises(ValueError, match="like start"):
        axioms.continuity(at, torch.zeros(1, dtype=D), torch.zeros(2, dtype=D))
