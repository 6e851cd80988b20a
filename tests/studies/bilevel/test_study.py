"""The bilevel study end to end at toy size."""

from __future__ import annotations

from functools import partial

import pandas
import pytest
import torch

from explainlib.figures import alt_text
from explainlib.figures.bilevel import derivative_reach
from explainlib.figures.studies import STUDY_FIGURES
from explainlib.studies.bilevel import claims as bilevel_claims
from explainlib.studies.bilevel import parts as bilevel_parts
from explainlib.studies.bilevel import problem as bilevel_problem
from explainlib.studies.bilevel import study as bilevel
from explainlib.studies.bilevel.writers import writers as bilevel_writers
from explainlib.studies.claims import CLAIMS, VERDICTS, judge
from explainlib.studies.runner import compute

TOY = bilevel.Config(tasks=10, counts=(1, 3), singles=2)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy") / "partial"
    with pytest.MonkeyPatch.context() as small:
        small.setattr(bilevel_parts, "INSPECTED", (0.25, 0.4))
        return folder, compute(bilevel, TOY, folder)[0]


@pytest.fixture(scope="module")
def case():
    return bilevel.case(TOY, "proximal", 0)


def test_every_claim_has_a_row_and_a_verdict(toy):
    claims = toy[1]["claims"]
    assert claims["id"].tolist() == [f"R{i}" for i in range(1, 9)]
    assert claims["verdict"].isin(VERDICTS).all() and (claims["reason"].str.len() > 0).all()
    assert not claims[["id", "printed", "quantity", "ours", "controls", "rule"]].isna().any().any()


def r1_of(table, missing):
    """The judgement on R1, with or without a reason why its premise is absent."""
    evidence = bilevel_claims._evidence(bilevel_claims.ASKED["R1"], table, {"proximal": missing}, {})
    return judge(CLAIMS["R1"], evidence)


def claims_of(gaps, none, before=0.9, start=0.7):
    """The verdicts of made-up editing tables: each seed's gap to solving again, and that of no edit."""
    rows = []
    for seed, (gap, other) in enumerate(zip(gaps, none, strict=True)):
        for method, value in (("task influence", gap), ("no edit", other), ("direct", other), ("solved again", 0.0)):
            rows.append([method, 5, seed, 0.9 - value, 0.9, before, start, 1.0])
    columns = ["method", "count", "seed", "accuracy", "accuracy_solved", "accuracy_before", "accuracy_start", "seconds"]
    return pandas.DataFrame(rows, columns=columns).assign(inner="proximal")


@pytest.mark.parametrize(
    ("gaps", "none", "verdict"),
    [
        ((0.004, 0.006, 0.005), (0.05, 0.06, 0.055), "held"),
        ((0.03, -0.03, 0.0), (0.05, 0.06, 0.055), "undecided"),
        ((0.03, 0.031, 0.029), (0.05, 0.06, 0.055), "not held"),
        ((0.004, 0.006, 0.005), (0.001, 0.002, 0.001), "not held"),
        ((0.004, 0.006, 0.005), (0.003, 0.007, 0.006), "undecided"),
    ],
)
def test_close_means_closer_than_no_edit_and_known_to_be(gaps, none, verdict):
    """A gap near zero whose interval is wide decides nothing, and neither does one that no edit has as well."""
    assert r1_of(claims_of(gaps, none), None).verdict == verdict


def test_a_learner_that_is_no_better_than_its_start_gives_no_premise():
    gaps, none = (0.004, 0.006, 0.005), (0.05, 0.06, 0.055)
    assert bilevel_claims._learns(claims_of(gaps, none)) is None
    unlearned = bilevel_claims._learns(claims_of(gaps, none, before=0.9, start=0.9))
    assert unlearned == bilevel_claims.UNLEARNED
    assert bilevel_claims._learns(claims_of(gaps[:1], none[:1], start=0.9)) is None, "one seed cannot deny it"
    found = r1_of(claims_of(gaps, none), unlearned)
    assert found.verdict == "premise absent" and found.reason == unlearned
    earlier = claims_of(gaps, none).drop(columns="accuracy_start")
    assert "docs/bilevel_study.md" in bilevel_claims._learns(earlier), "an earlier version kept no start"


def test_an_inner_problem_without_the_premise_is_left_out():
    table = pandas.concat([claims_of((0.004, 0.006, 0.005), (0.05, 0.06, 0.055)), claims_of((0.1, 0.11, 0.105), (0.1,) * 3)
                           .assign(inner="head")])  # fmt: skip
    asked = bilevel_claims.ASKED["R1"]
    evidence = bilevel_claims._evidence(asked, table, {"proximal": None, "head": "a reason"}, {})
    found = judge(CLAIMS["R1"], evidence)
    assert found.verdict == "held" and "head is left out: a reason" in found.evidence.notes
    evidence = bilevel_claims._evidence(asked, table, {"proximal": None, "head": None}, {})
    assert judge(CLAIMS["R1"], evidence).verdict == "not held"


def made_up(seeds=8, **changes):
    """Tables with the columns of a run on digits, in which all of the paper's claims are so."""
    values = {"gap": 0.005, "direct": 0.25, "seconds": 0.2, "share": 0.02, "near": 0.005, "far": 0.2, "beats": 0.075}
    values |= {"found": 0.99, "helpful": 0.05, "learnt": 0.2, "oracle": 0.1} | changes
    generator = torch.Generator().manual_seed(0)
    editing, examples, removal, harmful, descending = [], [], [], [], []

    def jitter(value, by=0.001):
        return value + by * float(torch.randn(1, generator=generator))

    for seed in range(seeds):
        before = {"accuracy_before": 0.9, "accuracy_start": 0.9 - values["learnt"], "seed": seed, "inner": "proximal"}
        for method, gap in (("task influence", values["gap"]), ("direct", values["direct"]), ("no edit", 0.1),
                            ("solved again", 0.0)):  # fmt: skip
            row = {"method": method, "count": 24, "accuracy": 0.9 - jitter(gap), "accuracy_solved": 0.9}
            editing.append(row | before | {"seconds": jitter(values["seconds"] if method == "task influence" else 1.0)})
        for part in ("training", "validation"):
            row = {"part": part, "removed": 200, "accuracy": 0.9 - jitter(values["gap"]), "accuracy_solved": 0.9}
            examples.append(
                row | before | {"accuracy_before": 0.8, "seconds": jitter(values["share"]), "seconds_cold": 1.0}
            )
        for method, short in (("task influence", 0.0), ("TracIn", values["near"]), ("TRAK, flat", values["far"]),
                              ("EK-FAC IF, flat", values["far"]), ("oracle", -values["oracle"])):  # fmt: skip
            removal.append({"method": method, "accuracy": 0.9 - jitter(short), "accuracy_flat": 0.5} | before)
        for wrong in (0.2, 0.8):
            for inspected in (0.25, 0.4):
                for method, gain in (("task influence", values["beats"]), ("random", 0.0), ("oracle", 0.1)):
                    row = {"flipped": wrong, "inspected": inspected, "method": method, "accuracy": 0.5 + jitter(gain)}
                    harmful.append(row | before | {"found": jitter(values["found"] if gain else inspected)})
        for method, loss in (("task influence", values["helpful"]), ("random", 0.0)):
            descending.append({"method": method, "share": 0.4, "accuracy": 0.9 - jitter(loss)} | before)
    made = {"editing": editing, "examples": examples, "removal": removal, "harmful": harmful, "descending": descending}
    return {name: pandas.DataFrame(rows) for name, rows in made.items()}


def test_all_eight_claims_are_held_where_they_are_so():
    claims = bilevel_claims.bilevel_claims(made_up()).set_index("id")
    assert claims["verdict"].to_dict() == {f"R{k}": "held" for k in range(1, 9)}
    assert (claims["clusters"] == 8).all() and (claims["interval"] == "Student t").all()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"gap": 0.03}, {"R1": "not held", "R4": "not held"}),
        ({"direct": 0.01}, {"R2": "not held"}),
        ({"seconds": 0.4}, {"R3": "not held"}),
        ({"share": 0.7}, {"R4": "not held"}),
        ({"near": 0.1}, {"R5": "not held"}),
        ({"beats": -0.05, "found": 0.5}, {"R6": "not held", "R7": "not held"}),
        ({"helpful": -0.05}, {"R8": "not held"}),
        ({"learnt": -0.1}, {"R1": "premise absent", "R3": "held", "R5": "premise absent", "R7": "held"}),
        ({"oracle": -0.1}, {"R1": "held", "R5": "premise absent", "R6": "premise absent", "R8": "held"}),
        ({"seeds": 1}, {"R1": "undecided", "R3": "undecided", "R8": "undecided"}),
    ],
)
def test_and_not_where_they_are_not(changes, expected):
    verdicts = bilevel_claims.bilevel_claims(made_up(**changes)).set_index("id")["verdict"]
    assert {name: verdicts[name] for name in expected} == expected


def test_no_method_is_dropped(toy):
    found = set(toy[1]["removal"]["method"])
    assert found == {*bilevel_problem.methods_for("proximal"), "oracle"}
    assert {"no edit", "solved again", "task influence"} <= set(toy[1]["editing"]["method"])
    assert set(toy[1]["harmful"]["method"]) == found


def test_editing_is_judged_by_solving_again(toy, case):
    table = toy[1]["editing"]
    exact = table[(table["method"] == "task influence") & (table["count"] == 3)].iloc[0]
    removed = case.order(0)[:3].tolist()
    truth = case.solved.without(removed, warm=True)
    edited = case.solved.influence().without_tasks(removed)
    want = float((edited - truth).norm() / (truth - case.solved.lam).norm())
    assert exact["parameter_error"] == pytest.approx(want, rel=1e-3)
    newton = table[(table["method"] == "leave-out Newton step") & (table["count"] == 3)].iloc[0]
    assert newton["parameter_error"] < exact["parameter_error"]
    assert (table[table["method"] == "direct"]["parameter_error"] == 1).all(), "the proximal model does not move"


def test_the_derivative_is_exact_for_little_of_a_task(toy, case):
    """Its relative error grows in proportion to what is taken away, up to the whole task of ``editing``."""
    table = toy[1]["fractions"]
    errors = table.groupby("fraction")["error"].median()
    assert errors[0.01] < 0.015 * errors[1.0] and errors.is_monotonic_increasing
    single = toy[1]["editing"].query("count == 1 and method == 'task influence' and repeat == 0")
    first = table[(table["task"] == int(case.order(0)[0])) & (table["fraction"] == 1)]
    assert float(first["error"].iloc[0]) == pytest.approx(float(single["parameter_error"].iloc[0]), rel=1e-5)


def test_deeper_series_come_nearer_to_the_dense_solution(toy):
    table = toy[1]["depth"]
    series = table[table["kind"] == "Neumann depth"].sort_values("steps")["from_exact"]
    assert series.iloc[-1] < 0.05 * series.iloc[0] and series.is_monotonic_decreasing
    inner = table[table["kind"] == "inner descent steps"].sort_values("steps")
    assert inner["inner_error"].is_monotonic_decreasing


def test_the_share_found_cannot_pass_what_was_inspected(toy):
    table = toy[1]["harmful"]
    assert (table["found"] <= (table["inspected"] / table["flipped"]).clip(upper=1) + 1e-6).all()


def test_the_flat_problem_knows_whose_example_is_whose(case):
    examples, owner = bilevel_problem.flattened_examples(case.solved.tasks)
    k = 3
    mine = examples.x[owner == k]
    tasks = case.solved.tasks
    assert torch.equal(mine, torch.cat([tasks.support_x[k], tasks.query_x[k]]))


def test_a_second_run_takes_everything_from_disk(toy, monkeypatch):
    folder, tables = toy
    monkeypatch.setattr(bilevel_problem, "solve", None)
    again = compute(bilevel, TOY, folder)[0]
    for name, table in tables.items():
        pandas.testing.assert_frame_equal(again[name], table)


def test_the_figure_says_what_it_shows(toy):
    assert "solving again" in alt_text(STUDY_FIGURES["bilevel"](toy[1]))


def test_the_reach_of_the_derivative_in_words(toy):
    table = toy[1]["fractions"]
    middle = table[table["fraction"] == 0.1]["error"].median()
    assert (
        f"proximal {table[table['fraction'] == 0.01]['error'].median():.2g} at 0.01, {middle:.2g} at 0.1"
        in alt_text(derivative_reach(table).figure)
    )
    with pytest.raises(ValueError, match="table has no inner; pass the study's table 'fractions'"):
        derivative_reach(table.drop(columns="inner"))
    with pytest.raises(ValueError, match="table has no rows"):
        derivative_reach(table[:0])


def test_the_papers_approximations_stand_beside_the_exact_edit(toy, case):
    table = toy[1]["editing"]
    removed = case.order(0)[:3].tolist()
    truth = case.solved.without(removed, warm=True) - case.solved.lam
    step = case.solved.published().without_tasks(removed) - case.solved.lam
    row = table[(table["method"] == bilevel_problem.PUBLISHED) & (table["count"] == 3)].iloc[0]
    assert row["cosine"] == pytest.approx(float(step @ truth / step.norm() / truth.norm()), rel=1e-3)
    assert row["parameter_error"] > 0.9, "Gamma is far too large for an edit"
    examples = toy[1]["examples"]
    assert (examples["published_error"] > examples["parameter_error"]).all()
    assert examples["published_cosine"].between(0, 1).all()


@pytest.mark.parametrize(("data", "right"), [("digits", 0.6), ("mnist", 0.45)])
def test_writers_share_their_labels_and_not_their_pictures(data, right):
    writers = partial(bilevel_writers, data=data)
    train, new = writers(6, 0)
    assert train.support_x.shape == (6, 20, 16) and train.query_y.shape == (6, 30)
    assert (train.support_y.sort(1).values == torch.arange(10).repeat_interleave(2)).all()
    again = writers(6, 0)
    assert torch.equal(train.support_x, again[0].support_x) and not torch.equal(train.support_x, new.support_x)
    assert not torch.equal(train.support_x, writers(6, 1)[0].support_x)
    mean = torch.stack([train.query_x[train.query_y == c].mean(0) for c in range(10)])
    nearest = torch.cdist(new.query_x.flatten(0, 1), mean).argmin(1)
    assert (nearest == new.query_y.flatten()).double().mean() > right, "label c is digit c in every task"


def test_labels_are_shifted_in_the_chosen_tasks_alone():
    made = bilevel.case(bilevel.config("quick", "digits"), "proximal", 0)
    tasks, spoiled = bilevel_parts.spoil_tasks(made, 0.2)
    own = made.solved.tasks
    assert int(spoiled.sum()) == 6
    for part in ("support_y", "query_y"):
        assert torch.equal(getattr(tasks, part)[~spoiled], getattr(own, part)[~spoiled])
        assert torch.equal(getattr(tasks, part)[spoiled], (getattr(own, part)[spoiled] + 1) % 10)
    assert made.accuracy(made.solved.lam) > made.accuracy(made.solved.start) + 0.05, "there is something to learn"


def test_the_oracle_takes_the_spoiled_tasks_first(case):
    spoiled = torch.arange(len(case.solved.tasks)) % 3 == 0
    scores, _ = bilevel_parts._scores(case, case.solved, "oracle", spoiled)
    assert spoiled[scores.argsort(descending=True)[: int(spoiled.sum())]].all()


def test_other_data_are_refused():
    with pytest.raises(ValueError, match="digits, mnist, glyphs, omniglot"):
        bilevel.config("quick", "iris")


@pytest.mark.parametrize(("behind", "named"), [(0.0, True), (0.05, False)])
def test_a_control_that_does_as_well_is_named(behind, named):
    """Task influence against cosines, four seeds: equal up to noise, or ahead by more than any noise."""
    noise = (0.004, -0.003, 0.002, -0.003)
    rows = [[method, 0.2, 0.25, seed, level - (behind if method == "cosine" else 0) + (n if method == "cosine" else 0)]
            for seed, n in enumerate(noise) for method, level in (("task influence", 0.9), ("cosine", 0.9))]  # fmt: skip
    table = pandas.DataFrame(rows, columns=["method", "flipped", "inspected", "seed", "accuracy"])
    said = bilevel_claims._caveat(bilevel_claims.ASKED["R6"], {"proximal": table}, ["proximal"])
    assert ("cosine" in said) == named and "raw loss" not in said
