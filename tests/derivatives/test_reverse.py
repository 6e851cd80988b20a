"""``grad`` is torch.func.grad in numbers, inside ``second_order_norms`` and outside, at first and second order."""

import pytest
import torch

from explainlib.derivatives import grad, second_order_norms


def cubic(x, scale):
    return scale * x.pow(3).sum() / 3


def both(run):
    outside = run()
    with second_order_norms():
        return outside, run()


def test_a_gradient_and_what_stands_beside_it():
    x = torch.tensor([1.0, 2.0, -3.0], dtype=torch.float64)
    for slope in both(lambda: grad(cubic)(x, 2.0)):
        assert torch.equal(slope, 2 * x**2) and not slope.requires_grad
    for slope, beside in both(lambda: grad(lambda v: (cubic(v, 1.0), v.sum()), has_aux=True)(x)):
        assert torch.equal(slope, x**2) and beside == 0 and not beside.requires_grad
    assert not x.requires_grad and x.grad is None


def test_a_gradient_is_differentiated_again():
    """The gradient at a point one step further, as MAML takes it: (I - a H) times the gradient there."""
    x = torch.tensor([0.5, -1.5], dtype=torch.float64)

    def after_a_step(v):
        return cubic(v - 0.1 * grad(cubic)(v, 1.0), 1.0)

    want = (1 - 0.2 * x) * (x - 0.1 * x**2) ** 2
    for slope in both(lambda: grad(after_a_step)(x)):
        assert torch.allclose(slope, want, rtol=1e-14)


@pytest.mark.parametrize("enabled", [True, False])
def test_a_gradient_without_an_outer_one_keeps_no_graph(enabled):
    x = torch.ones(2, requires_grad=True)
    with second_order_norms(), torch.set_grad_enabled(enabled):
        assert grad(cubic)(x, 1.0).requires_grad == enabled, "it has a graph where something outside asks for it"
