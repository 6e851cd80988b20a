"""Verdicts on made-up tables: each claim can be held, not held and undecided, and for the reason it should be."""

from __future__ import annotations

import pandas
import pytest

from explainlib.studies.claims import CLAIMS, judge
from explainlib.studies.group.claims import BASELINE, FIRST, SECOND, best_ridge, group_claims, group_evidence

SIZES = (0.016, 0.1, 0.45, 0.6)
NOISE = (0.01, -0.01, 0.015, -0.015, 0.005)


def images(gains: dict[float, dict[str, float]]) -> pandas.DataFrame:
    """Return a table in which second order gains so much over .6, by ridge and kind, at every size, on five seeds."""
    rows = []
    for ridge, kinds in gains.items():
        for kind, gain in kinds.items():
            for fraction in SIZES:
                for seed, noise in enumerate(NOISE):
                    for method, value in ((BASELINE, 0.6), (FIRST, 0.6), (SECOND, 0.6 * (1 + gain + noise))):
                        rows.append([ridge, kind, fraction, seed, method, value, value])
    table = pandas.DataFrame(rows, columns=["ridge", "kind", "fraction", "seed", "method", "per_test", "pearson"])
    return pandas.concat([table.assign(truth=truth, damping=0.0) for truth in ("preserve", "plain")])


def synthetic(second: float, koh: float, first: float) -> pandas.DataFrame:
    rows = [
        [kind, fraction, seed, method, slope + noise]
        for kind in ("random", "coherent")
        for fraction in (0.1, 0.6)
        for seed, noise in enumerate(NOISE)
        for method, slope in ((BASELINE, koh), (FIRST, first), (SECOND, second))
    ]
    table = pandas.DataFrame(rows, columns=["kind", "fraction", "seed", "method", "slope_per_test"])
    table = table.assign(slope=table["slope_per_test"], damping=0.0)
    return pandas.concat([table.assign(truth=truth) for truth in ("preserve", "plain")])


def network(slopes: tuple[float, float], pearsons: tuple[float, float]) -> pandas.DataFrame:
    """Return Koh's and the second order's slopes and correlations; the paper's damping has others."""
    rows = []
    for seed, noise in enumerate(NOISE):
        for method, slope, pearson in zip((BASELINE, SECOND), slopes, pearsons, strict=True):
            own = noise if method == BASELINE else noise / 2
            rows.append([seed, method, True, slope + noise, pearson + own, pearson])
            rows.append([seed, method, False, 3.0, 0.1, 0.1])
    columns = ["seed", "method", "needed", "slope_per_test", "per_test", "pearson"]
    return pandas.DataFrame(rows, columns=columns).assign(truth="preserve", lowest=1e-4, accuracy=0.8)


def selection(gains: tuple[float, ...], refit: float) -> pandas.DataFrame:
    rows = []
    for seed, noise in enumerate(NOISE):
        for fraction, gain in zip((0.1, 0.2, 0.3), gains, strict=True):
            for method, value in (
                ("greedy", 1.0),
                ("relaxed", 1 + gain + noise * fraction),
                ("refit", refit),
                ("random", 0.01),
            ):
                rows.append([seed, fraction, method, value, value])
    return pandas.DataFrame(rows, columns=["seed", "fraction", "method", "predicted", "retrained"])


def verdict(name: str, data: str = "mnist", **tables: pandas.DataFrame):
    whole = {"images": images({1e-2: {"random": 0.0, "coherent": 0.0}}), **tables}
    return judge(CLAIMS[name], group_evidence(whole, data)[name])


@pytest.mark.parametrize(
    ("gains", "held"),
    [
        ({1e-2: 0.0, 1e-4: 0.6}, "held"),  # one ridge is enough
        ({1e-2: 0.0, 1e-4: 0.3}, "not held"),
        ({1e-2: 0.0, 1e-4: 0.4}, "undecided"),
    ],
)
def test_large_gains_are_judged_at_the_ridge_that_serves_them_best(gains, held):
    table = images({ridge: {"random": gain, "coherent": 0.0} for ridge, gain in gains.items()})
    found = verdict("B2", images=table)
    assert found.verdict == held and "ridge 0.0001, which serves the claim best" in found.evidence.notes
    assert [one.name for one in found.evidence.comparisons] == ["gain at 45.0%", "gain at 60.0%"]
    assert best_ridge(table, "coherent", SIZES) == 1e-2  # equal gains: the largest


def test_small_gains_have_to_be_small_at_every_ridge():
    one = {"random": 0.02, "coherent": 0.0}
    assert verdict("B4", images=images({1e-2: one, 1e-4: one})).verdict == "held"
    assert verdict("B4", images=images({1e-2: one, 1e-4: {"random": 0.3, "coherent": 0.0}})).verdict == "not held"


def test_coherent_gains_are_asked_at_every_size():
    found = verdict("B3", images=images({1e-2: {"random": 0.0, "coherent": 0.2}}))
    assert found.verdict == "held" and len(found.evidence.comparisons) == len(SIZES)
    table = images({1e-2: {"random": 0.0, "coherent": 0.2}})
    weak = (table["fraction"] == 0.1) & (table["method"] == SECOND)
    table.loc[weak, "per_test"] = table.loc[weak, "per_test"] - 0.12
    assert verdict("B3", images=table).verdict == "not held"


def test_a_gain_of_pooled_tests_is_told_with_what_the_weights_alone_have_of_it():
    table = images({1e-2: {"random": 0.01, "coherent": 0.0}})
    assert verdict("B2", images=table).evidence.caveat == ""
    pooled = table["method"].isin([FIRST, SECOND]) & (table["truth"] == "preserve")
    table.loc[pooled, "pearson"] = table.loc[pooled, "pearson"] + 0.3
    found = verdict("B2", images=table)
    assert found.verdict == "not held" and "with tests pooled the gain at 60% and ridge 0.01 is +5" in found.reason
    assert "Basu's own first term alone has +50%" in found.reason


def test_a_correlation_that_is_not_there_gives_no_gain():
    table = images({1e-2: {"random": 0.6, "coherent": 0.0}})
    table.loc[(table["method"] == BASELINE) & (table["seed"] == 3), "per_test"] = -0.1
    found = verdict("B2", images=table)
    assert found.verdict == "undecided" and "undefined" in found.reason


def test_second_order_on_the_line_says_when_the_first_term_is_too():
    found = verdict("B1", synthetic=synthetic(1.02, 2.5, 1.01))
    assert found.verdict == "held" and "Basu's own first term" in found.reason
    apart = verdict("B1", synthetic=synthetic(1.02, 2.5, 1.4))
    assert apart.verdict == "held" and "Basu's own first term" not in apart.reason
    assert verdict("B1", synthetic=synthetic(1.3, 2.5, 1.4)).verdict == "not held"
    assert verdict("B1", synthetic=synthetic(1.02, 1.01, 1.0)).verdict == "not held"


@pytest.mark.parametrize(
    ("slopes", "pearsons", "held"),
    [
        ((2.0, 1.5), (0.2, 0.25), "held"),
        ((2.0, 0.5), (0.2, 0.25), "not held"),  # second order overestimates
        ((2.0, 1.5), (0.9, 0.95), "not held"),  # it correlates
        ((2.0, 1.5), (0.2, 0.15), "not held"),  # second order is worse
    ],
)
def test_the_network_is_judged_with_the_damping_that_it_needs(slopes, pearsons, held):
    found = verdict("B5", network=network(slopes, pearsons))
    assert found.verdict == held and "damping the paper's .01: Koh first order slope 3.00" in found.evidence.controls


def test_networks_that_learned_nothing_are_left_out():
    table = network((2.0, 1.5), (0.2, 0.25))
    table.loc[table["seed"] == 0, ["accuracy", "per_test"]] = [0.1, 1.0]
    found = verdict("B5", network=table)
    assert found.verdict == "held" and found.evidence.comparisons[1].clusters == 4
    assert "1 networks that learned nothing are left out" in found.evidence.notes
    assert verdict("B5", network=table.assign(accuracy=0.1)).verdict == "premise absent"


def test_a_selection_that_wins_by_prediction_says_who_wins_by_retraining():
    found = verdict("B6", selection=selection((0.02, 0.05, 0.1), 1.3))
    assert found.verdict == "held" and "refits is ahead of it at every size for 5 of 5 draws" in found.reason
    assert "refits is ahead" not in verdict("B6", selection=selection((0.02, 0.05, 0.1), 0.9)).reason
    assert verdict("B6", selection=selection((0.1, 0.05, 0.02), 0.9)).verdict == "not held"


def test_other_data_and_missing_parts_are_not_applicable():
    tables = {"images": images({1e-2: {"random": 0.6, "coherent": 0.6}}), "network": network((2.0, 1.5), (0.2, 0.25))}
    found = group_claims(tables, "digits").set_index("id")["verdict"]
    assert (found == "not applicable").all()
    assert group_claims(tables, "mnist").set_index("id")["verdict"]["B2"] == "held"
