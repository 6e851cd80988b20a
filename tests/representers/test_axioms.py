"""Axioms on tables that satisfy or break them by construction."""

import pytest
import torch

from explainlib.representers import axioms

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
