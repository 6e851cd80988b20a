"""Rules on made-up numbers with a known truth: what is wide decides nothing, what is absent is said to be."""

from math import inf, nan

import numpy as np
import pytest

from explainlib.studies.claims import (
    CLAIMS,
    KINDS,
    VERDICTS,
    Claim,
    Comparison,
    Evidence,
    Rule,
    by_cluster,
    claims_table,
    holm,
    judge,
    merged,
)


def claim(*rules):
    return Claim("X1", "Fig 0", "a is above b", "a minus b", rules or (Rule("larger-than", 0.5),))


def verdict(rule, *values, **evidence):
    comparisons = tuple(Comparison(f"c{k}", tuple(column)) for k, column in enumerate(values))
    return judge(claim(rule), Evidence(comparisons, **evidence)).verdict


INSIDE, NARROW = Rule("absent effect", 0.1), (0.01, -0.02, 0.0)


@pytest.mark.parametrize(
    ("rule", "values", "expected"),
    [
        (Rule("larger-than", 0.5), (0.9, 0.91, 0.92), "held"),
        (Rule("larger-than", 0.5), (0.1, 0.11, 0.12), "not held"),
        (Rule("larger-than", 0.5), (0.2, 0.9, 1.6), "undecided"),
        (Rule("larger-than", 0.5), (9.0,), "undecided"),
        (Rule("larger-than", 0.5), (), "undecided"),
        (Rule("larger-than", 0.5), (0.9, nan, 0.92), "undecided"),
        (Rule("larger-than", 0.5), (0.9, 0.9, 0.9), "undecided"),
        (Rule("direction"), (0.3, 0.31, 0.29), "held"),
        (Rule("direction"), (-0.3, -0.31, -0.29), "not held"),
        (Rule("largest-of"), (0.3, 0.31, 0.29), "held"),
        (INSIDE, NARROW, "held"),
        (INSIDE, (0.3, 0.31, 0.29), "not held"),
        (INSIDE, (0.4, -0.4, 0.0), "undecided"),
        (INSIDE, (0.09, 0.095, 0.10), "undecided"),
        (Rule("close-to", 0.1, target=1.0), (1.01, 0.98, 1.0), "held"),
        (Rule("close-to", 0.1, target=1.0), (0.01, 0.02, 0.0), "not held"),
    ],
)
def test_verdicts(rule, values, expected):
    assert verdict(rule, values) == expected


@pytest.mark.parametrize(
    ("hits", "expected"), [((128,) * 3, "held"), ((128, 100, 128), "undecided"), ((60, 64, 62), "not held")]
)
def test_all_is_a_share_of_nearly_one(hits, expected):
    rule = Rule("count", 1.0, tolerance=0.05, lowest=0.0, highest=1.0)
    found = judge(claim(rule), Evidence((Comparison("hits", hits, (128,) * 3),)))
    assert found.verdict == expected and found.row()["interval"] == "exact, clustered"
    alone = judge(claim(rule), Evidence((Comparison("hits", (128,), (128,)),)))
    assert alone.verdict == "undecided", "one network cannot speak for others"


def test_several_comparisons_have_to_hold_all():
    rule = Rule("direction")
    good, wide, bad = (0.3, 0.31, 0.29), (0.5, -0.5, 0.1), (-0.3, -0.31, -0.29)
    assert verdict(rule, good, good) == "held"
    assert verdict(rule, good, wide) == "undecided"
    assert verdict(rule, good, wide, bad) == "not held"
    assert verdict(rule, good, (0.3, nan, 0.31)) == "undecided"


def test_one_contradiction_of_many_is_corrected_after_holm():
    rule, good = Rule("direction"), (0.3, 0.31, 0.29, 0.3)
    against = (-0.1, -0.3, -0.5, -0.25)  # p .03
    assert verdict(rule, against) == "not held"
    assert verdict(rule, against, good, good, good) == "undecided"
    p = [0.001, 0.02, 0.03, 0.2]
    assert holm(4, lambda i, level: p[i] <= level) == [0], "Holm: .001 below .0125, and .02 above .0167"
    assert holm(3, lambda i, level: [0.01, 0.02, 0.04][i] <= level) == [0, 1, 2]


@pytest.mark.parametrize("kind", ["premise absent", "not applicable", "undecided"])
def test_what_is_withheld_is_never_held(kind):
    assert verdict(Rule("direction"), (0.3, 0.31, 0.29), withheld=(kind, "a reason")) == kind
    with pytest.raises(ValueError, match="a verdict of 'held' needs numbers"):
        Evidence(withheld=("held", "because"))


def test_an_interval_stays_in_the_range_of_the_measure():
    rule = Rule("direction", lowest=-1.0, highest=1.0)
    effect, low, high = Comparison("r", (0.9, 0.5, 0.99)).interval(rule)
    assert low > -1 and high == 1 and effect == pytest.approx(0.79666667)


def test_a_row_says_what_it_rests_on():
    evidence = Evidence((by_cluster("a minus b", {2: 0.91, 0: 0.9, 1: 0.92}),), "random 0.1", notes="seen too")
    row = claims_table([judge(claim(), evidence)]).iloc[0]
    assert row["effect"] == pytest.approx(0.91) and row["low"] < 0.91 < row["high"] and row["clusters"] == 3
    assert row["controls"] == "random 0.1" and row["ours"].endswith("(n 3). seen too") and "above 0.5" in row["rule"]
    assert row["interval"] == "Student t" and row["reason"]


def test_the_least_favourable_comparison_is_shown():
    found = judge(
        claim(Rule("direction")), Evidence((Comparison("far", (3.0, 3.1, 2.9)), Comparison("near", (0.3, 0.1, 0.2))))
    )
    assert found.decisive.name == "near"


def test_a_summary_is_students_interval_again():
    values = np.array([0.2, 0.5, 0.1, 0.4])
    whole = Comparison("v", tuple(values))
    mean, low, high = whole.interval(Rule())
    again = Comparison("v", summary=(mean, (high - low) / 2, 4))
    for confidence in (0.95, 0.99):
        assert again.interval(Rule(), confidence) == pytest.approx(whole.interval(Rule(), confidence))


def test_sets_of_data_are_merged():
    rule = claim(Rule("direction"))
    good, bad = Evidence((Comparison("c", (0.3, 0.31, 0.29)),)), Evidence((Comparison("c", (-0.3, -0.31, -0.29)),))
    other = Evidence((), withheld=("not applicable", "other data"))
    absent = Evidence((), withheld=("premise absent", "nothing learnt"))
    open_ = Evidence((), withheld=("undecided", "one model"))
    cases = {"held": [good, other, absent], "not held": [good, bad, other], "undecided": [good, open_]}
    cases |= {"premise absent": [other, absent], "not applicable": [other, other]}
    for expected, parts in cases.items():
        found = judge(rule, merged({f"set {k}": part for k, part in enumerate(parts)}))
        assert found.verdict == expected and found.reason


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"kind": "largest"}, "choose one of direction"),
        ({"kind": "absent effect"}, "needs a margin above 0"),
        ({"kind": "direction", "margin": 1.0}, "choose 'larger-than'"),
        ({"kind": "count", "margin": 1.0}, "cannot be decided"),
        ({"margin": 0.5, "lowest": 0.6}, "cannot fail"),
        ({"kind": "absent effect", "margin": 2.0, "lowest": -1.0, "highest": 1.0}, "cannot fail"),
    ],
)
def test_rules_that_decide_nothing_are_refused(options, says):
    with pytest.raises(ValueError, match=says):
        Rule(**options)


def test_the_register_has_every_claim_once():
    wanted = {"T": 15, "R": 8, "E": 8, "P": 9, "B": 6}
    assert list(CLAIMS) == [f"{letter}{k + 1}" for letter, many in wanted.items() for k in range(many)]
    assert len(CLAIMS) == 46 and len(VERDICTS) == 5
    assert {rule.kind for one in CLAIMS.values() for rule in one.rules} == set(KINDS)
    assert all(
        rule.source and rule.bounds[1] in (inf, rule.target + rule.margin) for c in CLAIMS.values() for rule in c.rules
    )
