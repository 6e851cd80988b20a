"""Rules on made-up numbers with a known truth: what is wide decides nothing, what is absent is said to be."""

import numpy as np
import pytest

from explainlib.studies.verdicts import Claim, claim_row, judge, t_interval

LARGER = Claim("X1", "Fig 0", "a is above b", "a minus b", margin=0.5)
COUNT = Claim("X2", "Fig 0", "all", "share", "count", 1.0)


@pytest.mark.parametrize(
    ("claim", "values", "verdict"),
    [
        (LARGER, [0.9, 0.91, 0.92], "held"),
        (LARGER, [0.1, 0.11, 0.12], "not held"),
        (LARGER, [0.2, 0.9, 1.6], "undecided"),
        (LARGER, [9.0], "undecided"),
        (LARGER, [], "premise absent"),
        (COUNT, [1.0, 1.0], "held"),
        (COUNT, [1.0, 0.9], "undecided"),
        (COUNT, [0.9, 0.8], "not held"),
    ],
)
def test_verdicts(claim, values, verdict):
    assert judge(claim, values) == verdict
    row = claim_row(claim, values, "Controls: none")
    assert row["verdict"] == verdict and row["ours"].endswith("Controls: none") and claim.quantity in row["ours"]


@pytest.mark.parametrize("clusters", [3, 5])
def test_at_the_margin_few_are_held(clusters):
    """Of 1,000 draws at the boundary of the null 2.5% are held by a 95% interval's lower end."""
    drawn = np.random.default_rng(0).normal(0.5, 0.2, (1000, clusters))
    held = sum(judge(LARGER, row.tolist()) == "held" for row in drawn)
    assert 10 <= held <= 45


def test_a_clear_effect_is_held():
    drawn = np.random.default_rng(1).normal(1.5, 0.2, (1000, 3))
    assert sum(judge(LARGER, row.tolist()) == "held" for row in drawn) > 800


def test_the_interval_is_students():
    mean, low, high = t_interval([1.0, 2.0, 3.0])
    assert mean == 2 and high - mean == pytest.approx(4.302653 / 3**0.5) and mean - low == pytest.approx(high - mean)


def test_another_kind_is_refused():
    with pytest.raises(ValueError, match="choose one of larger-than, count"):
        Claim("X3", "", "", "", "largest")
