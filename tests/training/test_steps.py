"""One optimiser step, and the rate that falls at a plateau, against torch.optim itself."""

import pytest
import torch

from explainlib.training.steps import Plateau, stepper
from tests.problems import normal

FALLS = {
    "just below the threshold": [1.0 * 0.991**k for k in range(12)],
    "just above it": [1.0 * 0.989**k for k in range(12)],
    "rising": [1.0 + 0.1 * k for k in range(12)],
    "up and down": [1.0, 0.5, 0.7, 0.499, 0.4999, 0.4, 0.41, 0.399, 0.3979, 0.38, 0.5, 0.37],
    "negative": [-1.0 * 1.005**k for k in range(12)],
    "through zero": [0.3 - 0.05 * k for k in range(12)],
    "constant": [0.5] * 12,
}


@pytest.mark.parametrize("patience", [0, 1, 3])
@pytest.mark.parametrize("threshold", [0.0, 1e-2, 0.1])
def test_a_plateau_is_torchs(threshold, patience):
    """Better means below (1 - threshold) times the best so far; each of the networks has its own best."""
    plateau = Plateau(factor=0.5, patience=patience, threshold=threshold, least=1e-3)
    watch = plateau.watch(torch.full((len(FALLS),), 0.1, dtype=torch.float64))
    optimizers = [torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1) for _ in FALLS]
    options = {"factor": 0.5, "patience": patience, "threshold": threshold, "min_lr": 1e-3}
    theirs = [torch.optim.lr_scheduler.ReduceLROnPlateau(each, **options) for each in optimizers]
    for values in zip(*FALLS.values(), strict=True):
        before = watch.rates.clone()
        fell = watch.update(torch.tensor(values, dtype=torch.float64))
        for schedule, value in zip(theirs, values, strict=True):
            schedule.step(value)
        want = torch.tensor([each.param_groups[0]["lr"] for each in optimizers], dtype=torch.float64)
        assert torch.allclose(watch.rates, want, rtol=1e-12) and fell == bool((want < before).any())


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("many", [False, True])
def test_a_step_is_torchs(optimizer, many):
    packed = normal(3, 5, seed=1)
    theirs = packed.clone().requires_grad_()
    make = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[optimizer]([theirs], lr=0.05)
    step = stepper(optimizer, packed)
    for k in range(6):
        gradient = normal(3, 5, seed=10 + k)
        theirs.grad = gradient.clone()
        make.step()
        step(gradient, torch.full_like(packed, 0.05) if many else 0.05)
    assert torch.allclose(packed, theirs.detach(), rtol=1e-12, atol=1e-14)
