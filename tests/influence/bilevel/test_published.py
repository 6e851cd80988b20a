"""The paper's own approximations, by one name."""

import pytest
import torch

from explainlib.influence.bilevel import BilevelInfluence
from tests.influence.bilevel.test_influence import solved_case
from tests.problems import relative_error


@pytest.mark.parametrize("name", ["softmax", "tanh"])
def test_it_is_ekfac_inside_gamma_outside_and_a_series(name):
    """(l2 + sum of |partial_theta f|_1) I for the proximal problem, and gradients whose H_in is EK-FAC's."""
    learner, lam, tasks, exact = solved_case(name)
    found = BilevelInfluence.published(learner, lam, tasks)
    size = learner.l2 + float(learner.partial_gradients(lam, tasks)[1].abs().sum())
    assert relative_error(found.tasks(), -found.gradients / size) < 1e-3
    assert relative_error(found.gradients, exact.gradients) < 0.5 and not torch.equal(found.gradients, exact.gradients)
    cosine = torch.nn.functional.cosine_similarity(found.tasks(), exact.tasks(), dim=1)
    assert (cosine > 0.2).all() and (found.tasks().norm(dim=1) < exact.tasks().norm(dim=1)).all()
    assert found.solution.converged


def test_what_it_fixes_cannot_be_chosen():
    learner, lam, tasks, _ = solved_case("softmax")
    assert BilevelInfluence.published(learner, lam, tasks, subsample=3).subsample == 3
    with pytest.raises(TypeError, match="hessian"):
        BilevelInfluence.published(learner, lam, tasks, hessian="exact")
