"""The fragility studies' own words of a mark, on small made-up tables, and the design's tables in the document."""

from __future__ import annotations

import pandas
import pytest

from explainlib.studies.documents import MARK
from explainlib.studies.fragility import MAKERS
from explainlib.studies.fragility.bench import KINDS
from explainlib.studies.fragility.claims import MEASURE
from explainlib.studies.fragility.design.document import TABLES
from explainlib.studies.fragility.document import ROWS
from tests.studies.documents.filling import filled as filled_mark


def filled(words, **tables):
    return filled_mark(words, {"run": tables}, MAKERS)


def repeats(**columns):
    """Return six networks of each width of one kind, all compared."""
    rows = [{"kind": "L2", "depth": 1, "width": width, "seed": seed} for width in (5, 10) for seed in range(6)]
    return pandas.DataFrame(rows).assign(status="compared", collapsed=False, **columns)


def test_the_document_shows_every_table_of_the_design(repository):
    text = (repository / "docs" / "fragility_study.md").read_text()
    assert {found["words"] for found in MARK.finditer(text)} >= {f"table design {name}" for name in TABLES}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("table run nothing", "the design has no table 'nothing'; choose one of cells"),
        ("comparison run E1 .2f L2", "E1 has no comparison 'L2'; choose one of L2 by depth; L2 by width, 10 minus 5"),
        ("cells run .2f ridge=1", "no cell has ridge=1"),
    ],
)
def test_what_there_is_not_is_refused(words, message):
    table = repeats(top_eigenvalue=1.0, pearson_highest_loss=0.9, **{MEASURE: 0.5})
    sweeps = {"repeats": table, "anova": table.assign(measure="").query("measure != ''")}
    sweeps["pictures"] = pandas.DataFrame({"picture": [], "spearman": [], "r2": []})
    if words.startswith("cells"):
        sweeps = {"factors": factors()}
    with pytest.raises(ValueError, match=message):
        filled(words, **sweeps)


def test_the_2_x_2_table_has_a_place_for_each_pair():
    pairs = [(a, b) for a in ("all influence", "last influence") for b in ("all truth", "last truth")]
    rows = [
        {"activation": name, "a": a, "b": b, "over": over, "spearman": value + k / 10}
        for name, value in (("tanh", 0.1), ("relu", 0.5))
        for over in ("highest loss", "all")
        for k, (a, b) in enumerate(pairs if over == "highest loss" else pairs[::-1])
    ]
    made = filled("like-with-like run", two=pandas.DataFrame(rows)).strip().splitlines()
    assert made[2:] == [
        "| influence of all parameters | .10 (.50) | .20 (.60) |",
        "| influence of the last layer | .30 (.70) | .40 (.80) |",
    ]


def test_the_sweeps_say_what_collapsed_and_stay_within_the_range_of_a_correlation():
    ends = {MEASURE: 0.9973, f"{MEASURE}_low": 0.9921, f"{MEASURE}_high": 1.02}
    rows = [
        {"sweep": grows, "kind": kind, "size": size, "repeats": 9, "collapsed": k, **ends}
        for grows, size in ROWS
        for k, kind in enumerate(KINDS)
    ]
    made = filled("sweeps run", iris=pandas.DataFrame(rows))
    assert made.count(".997 [.992, 1.000]") == 25
    assert "| collapsed at depth 5, of 9 | 0 | 1 | 2 | 3 | 4 |" in made


def test_slopes_leave_out_sizes_with_few_networks():
    table = repeats(slope_highest_loss=[1.0] * 6 + [3.0] * 6)
    assert filled("slopes run .1f width L2", repeats=table) == "1.0 to 3.0"
    assert filled("slopes run .1f width L2", repeats=table.drop(index=[6, 7])) == "1.0"


def test_sizes_are_significant_after_bonferroni_s_correction():
    table = pandas.DataFrame(
        {"sweep": ["depth", "width"], "kind": ["L2", "SWA"], "measure": MEASURE, "p": [0.03, 0.02]}
    )
    assert filled("significant run count", anova=table) == "1 of 2"
    assert filled("significant run names", anova=table) == "SWA by width"


def test_comparisons_are_those_of_the_claims():
    table = repeats(top_eigenvalue=[10.0] * 6 + [1.0, 1.1, 0.9, 1.0, 1.2, 0.8], pearson_highest_loss=0.9)
    table[MEASURE] = [0.9] * 6 + [0.5, 0.6, 0.5, 0.6, 0.5, 0.6]
    sweeps = {"repeats": table, "anova": pandas.DataFrame({"measure": []})}
    sweeps["pictures"] = pandas.DataFrame({"picture": [], "spearman": [], "r2": []})
    assert filled("comparison run E1 .2f L2 by width, 10 minus 5", **sweeps) == "-.35 [-.41, -.29]"
    assert filled("signs run E4 width below", **sweeps) == "1 of 1"
    assert filled("signs run E4 width above", **sweeps) == "0 of 1"


def test_retrainings_at_rest_are_counted_from_the_second_width_on():
    table = repeats(retrained=40, unsolved=[0] * 6 + [30] * 6)
    assert filled("at-rest run .0% L2", repeats=table) == "25%"


def test_the_first_steps_are_three_and_each_in_units_of_its_own_rung():
    steps = ["solver", "linearisation", "non-convergence", "proximity"]
    table = pandas.DataFrame({"step": steps, "gap": [1.0, 1, 3, 90], "size": [2.0, 4, 4, 1], "pearson_next": 0.9})
    assert filled("steps run gap .0%", ladder=table) == "25% to 75%"
    assert filled("steps run pearson_next .1f", ladder=table) == ".9 to .9"


def factors():
    """Return two cells of two splits, and the network of all flowers, which is in neither."""
    rows = [
        {"shape": shape, "split": split, "parameters": parameters, "spearman": value + split / 10}
        for parameters, value in (("last", 0.5), ("all", 0.1))
        for shape, split in (("relu", 0), ("relu", 1), ("relu, 150 flowers", 9))
    ]
    same = {"status": "compared", "protocol": "highest loss", "ridge": 0.0, "truth": "trained on"}
    return pandas.DataFrame(rows).assign(prediction="gradient product", **same)


def test_cells_are_means_over_the_splits_without_the_network_of_all_flowers():
    assert filled("cells run .2f ridge=0; parameters=last", factors=factors()) == ".55"
    assert filled("cells run .2f ridge=0", factors=factors()) == ".15 to .55"


def test_the_design_s_other_numbers():
    bayes = pandas.DataFrame(
        {"shape": "relu", "seed": [0, 1] * 2, "cost": ["L2"] * 2 + ["gaussian"] * 2, "kl_weight": [0.0] * 2 + [1.0] * 2,
         "status": "compared", MEASURE: [0.9, 0.9, 0.7, 0.8], "spread_ratio": [9.0, 9.0, 0.2, 0.4]}
    )  # fmt: skip
    assert filled("bayesian-gain run .2f gaussian", bayes=bayes).startswith("-.15 [")
    assert filled("spreads run .2f relu", bayes=bayes) == ".30"
    noise = pandas.DataFrame(
        {"n": [9, 9, 9, 5], "seed": [0, 0, 1, 0], "size_solved": [2.0, 2, 4, 9], "size_trained": 1}
    )
    assert filled("solved-over-trained run .0f", noise=noise) == "3 to 9"
    averages = pandas.DataFrame(
        {"shape": "relu", "ridge": 0.0, "seed": [0, 1] * 2, "state": ["twin"] * 2 + ["network"] * 2,
         "status": "compared", MEASURE: [0.5, 0.7, 0.4, 0.5]}
    )  # fmt: skip
    assert filled("average-gain run .2f none twin network", averages=averages).startswith(".15 [")
