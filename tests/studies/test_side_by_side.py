"""All methods on one small network: representers as harm against their own definition, agreement against fidelity."""

from __future__ import annotations

import pytest
import torch

import explainlib as xl
from explainlib.studies.side_by_side import agreement_by_question, fours_and_nines, label_agreement, representer_harm


@pytest.fixture(scope="module")
def small():
    """A short run on forty of the digits, its risk, and five test digits."""
    train, test, _ = fours_and_nines()
    model = xl.models.mlp([64, 4, 2], "tanh", dtype=torch.float64)
    run = xl.training.fit(model, train[:40], epochs=5, lr=0.2, optimizer="sgd", weight_decay=0.03, record=True)
    return xl.Risk(run.model, train[:40], l2=0.03), run, test[:5]


def test_the_data_are_fours_and_nines_with_a_tenth_of_wrong_labels():
    train, test, flipped = fours_and_nines()
    digits = xl.datasets.load("digits")
    of_both = digits.train[(digits.train.y == 4) | (digits.train.y == 9)][:120]
    assert len(train) == 120 and len(test) == 60 and train.classes == ("4", "9")
    assert torch.equal(flipped, train.y != (of_both.y == 9).long()) and int(flipped.sum()) == 12


def test_representers_are_turned_into_harm_for_each_own_label(small):
    risk, run, test = small
    harm = representer_harm(risk, run, test)
    assert list(harm) == ["representers, tracking", "representers, surrogate", "representer points"]
    alpha = xl.representers.tracking_importance(run)
    for t, label in enumerate(test.y.tolist()):
        near = xl.representers.kernel(risk.model, test.x[[t]], risk.train.x, output=label)
        torch.testing.assert_close(harm["representers, tracking"][t], -(alpha[:, label] * near[0]))
        points = xl.representers.representer_points(risk, test[[t]], output=label)[0]
        torch.testing.assert_close(harm["representer points"][t], -points)
        gram = xl.representers.kernel(risk.model, risk.train.x, risk.train.x, output=label)
        outputs = risk.outputs()[:, [label]]
        fitted = xl.representers.surrogate_importance(gram, outputs, loss="squared_error", l2=0.03)[:, 0]
        torch.testing.assert_close(harm["representers, surrogate"][t], -(fitted * near[0]))


def test_agreement_is_the_fidelity_of_minus_the_sums():
    generator = torch.Generator().manual_seed(0)
    table, groups = torch.randn(3, 8, generator=generator), [[0, 1], [2, 5, 7], [3], [4, 6], [0, 7], [1, 2, 3]]
    true = torch.randn(3, 6, generator=generator)
    found, words = agreement_by_question({"a": table, "b": -table}, {"who\nleaves": (groups, true)})
    summed = torch.stack([table[:, group].sum(1) for group in groups], 1)
    said = xl.metrics.fidelity(-summed, true).spearman
    assert found.loc["a", "who\nleaves"] == pytest.approx(float(said))
    assert found.loc["b", "who\nleaves"] == pytest.approx(-float(said))
    assert words.loc["a", "who leaves"] == f"{said.low:.2f} to {said.high:.2f}"


def test_label_agreement_is_one_zero_or_minus_one():
    flipped = torch.tensor([True, False, True, False])
    assert label_agreement(torch.tensor([4.0, 1.0, 3.0, 2.0]), flipped) == 1
    assert label_agreement(torch.ones(4), flipped) == 0
    assert label_agreement(-torch.tensor([4.0, 1.0, 3.0, 2.0]), flipped) == -1
