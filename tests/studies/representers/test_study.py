"""The representers study end to end at toy size."""

from __future__ import annotations

import pandas
import pytest
import torch

from explainlib.figures import alt_text
from explainlib.figures.studies import STUDY_FIGURES
from explainlib.influence import loss_influence, tracin
from explainlib.studies.claims import CLAIMS, VERDICTS, Evidence, judge
from explainlib.studies.representers import study as representers
from explainlib.studies.representers.claims import ORDER, Gaps, _axioms, _order, _random
from explainlib.studies.representers.methods import METHODS, class_pair
from explainlib.studies.runner import compute
from explainlib.training import Trajectory

TOY = representers.Config(
    "digits",
    60,
    (
        representers.Part("main", representers.Recipe("cnn2", 3, 10, 0.2), 2, 1),
        representers.Part("wide", representers.Recipe("cnn2", 2, 20, 0.2), 2, 1, short=True),
    ),
)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy") / "partial"
    return folder, compute(representers, TOY, folder)[0]


@pytest.fixture(scope="module")
def network():
    return representers.Network(TOY, TOY.parts[0].recipe, class_pair("digits", 60), 1)


def test_every_claim_has_a_row_and_a_verdict(toy):
    claims = toy[1]["claims"]
    assert claims["id"].tolist() == [f"P{i}" for i in range(1, 10)]
    assert claims["verdict"].isin(VERDICTS).all() and (claims["reason"].str.len() > 0).all()
    assert not claims[["id", "printed", "quantity", "ours", "controls", "rule"]].isna().any().any()


def test_no_method_is_dropped_and_the_plan_adds_up(toy):
    methods, plan = toy[1]["methods"], toy[1]["plan"].set_index("part")
    assert methods[methods["part"] == "main"]["method"].tolist() == list(METHODS)
    assert methods[methods["part"] == "wide"]["method"].tolist() == list(representers.SHORT)
    assert plan.loc["main", "retrainings"] == len(METHODS) * 2 * 1 * 5
    assert 0 < plan.loc["main", "different"] <= plan.loc["main", "retrainings"]
    pairs = toy[1]["pairs"]
    assert len(pairs[pairs["part"] == "main"]) == len(METHODS) * (len(METHODS) - 1) // 2


def test_products_of_importance_and_kernel_go_round_cycles_alike(toy):
    axioms = toy[1]["axioms"].pivot(index="method", columns="axiom", values="violation")
    assert (axioms.loc[["target, NTK final", "tracking, NTK init"], "symmetric cycle"] < 1e-12).all()
    assert axioms.loc["random", "symmetric cycle"] > 0.5


def test_a_curve_is_the_change_of_the_logit_after_training_again(network):
    test = network.tests(1)
    table = network.deletion_changes(0, test, ["target, NTK final"])
    scores = network.trained.scores("target, NTK final", test, int(test.y))[0]
    gone = scores.argsort(stable=True)[:6]  # a tenth of 60
    after = network.recipe.fit(network.split.train, 1, without=gone).model
    with torch.no_grad():
        want = float((after(test.x) - network.trained.trajectory.model(test.x))[0, int(test.y)])
    assert table["change"].iloc[-1] == pytest.approx(want, abs=1e-5) and table["change"].iloc[0] == 0


def test_the_baselines_are_the_library_s_own_where_the_output_is_the_loss(network):
    """For two classes the gradient of a test's loss is -(1 - p) times that of f_c - f_other, at each checkpoint."""
    explained, test = network.trained, network.tests(1)
    risk, label = explained.risk, int(test.y)

    def gap(name):
        return explained.scores(name, test, label) - explained.scores(name, test, 1 - label)

    def wrong(at):
        return 1 - float(at.outputs(test.double()).softmax(1)[0, label])

    of_loss = loss_influence(risk, test.double(), curvature="gauss_newton", damping=explained.damping)
    assert torch.allclose(wrong(risk) * gap("influence function"), -of_loss, atol=1e-9)
    path = explained.trajectory
    summed = torch.zeros_like(of_loss)
    for theta, rate in zip(path.checkpoints.double(), path.learning_rates.double(), strict=True):
        one = Trajectory(risk.model, theta[None], rate[None])
        summed -= tracin(one, explained.train.double(), test.double()) / wrong(risk.at(theta))
    assert torch.allclose(gap("TracInCP"), summed, atol=1e-9)


def test_a_second_run_takes_everything_from_disk(toy, monkeypatch):
    folder, tables = toy
    monkeypatch.setattr(representers.Recipe, "fit", None)
    again = compute(representers, TOY, folder)[0]
    for name, table in tables.items():
        pandas.testing.assert_frame_equal(again[name], table)


def test_the_figure_says_what_it_shows(toy):
    assert "random deletion gives" in alt_text(STUDY_FIGURES["representers"](toy[1]))


def test_other_data_are_refused():
    with pytest.raises(ValueError, match="digits, mnist, cifar10, ag_news, toxicity"):
        representers.config("quick", "iris")


def verdict_on_p1(gaps, seeds=20, stop=None):
    names = [ORDER[0][0], ORDER[0][1], ORDER[1][1]]
    parts = {"main": gaps} | ({} if stop is None else {"early": stop})
    pairs = [
        {"part": part, "a": names[k + 1], "b": names[k], "a_minus_b": -(low + high) / 2, "low": -high, "high": -low}
        for part, own in parts.items()
        for k, (low, high) in enumerate(own)
    ]
    methods = [{"part": part, "method": name, "seeds": seeds} for part in parts for name in names]
    tables = {"pairs": pandas.DataFrame(pairs), "methods": pandas.DataFrame(methods)}
    return judge(CLAIMS["P1"], Evidence(_order(tables))).verdict


def test_an_order_needs_both_of_its_differences():
    assert verdict_on_p1([(0.1, 0.3), (0.2, 0.4)]) == "held"
    assert verdict_on_p1([(0.1, 0.3), (-0.2, 0.1)]) == "undecided"
    assert verdict_on_p1([(0.1, 0.3), (-0.4, -0.1)]) == "not held"
    assert verdict_on_p1([(float("nan"),) * 2, (0.2, 0.4)], seeds=1) == "undecided"
    assert verdict_on_p1([(0.1, 0.3), (0.2, 0.4)], stop=[(0.1, 0.3), (0.1, 0.4)]) == "held"
    assert verdict_on_p1([(0.1, 0.3), (0.2, 0.4)], stop=[(0.1, 0.3), (-0.4, -0.1)]) == "not held"
    with pytest.raises(KeyError, match="were not compared"):
        Gaps(pandas.DataFrame(columns=["a", "b", "a_minus_b", "low", "high"]), 3).of(ORDER)


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(-0.1, 0.1, "held"), (-1.0, 1.0, "undecided"), (0.5, 0.9, "not held")]
)
def test_about_zero_is_an_interval_inside_a_margin(low, high, verdict):
    rows = [["tracking, NTK final", 2.0, 1.5, 2.5, 20], ["random", (low + high) / 2, low, high, 20]]
    areas = pandas.DataFrame(rows, columns=["method", "auc", "auc_low", "auc_high", "seeds"])
    assert judge(CLAIMS["P2"], _random(areas)).verdict == verdict


def test_one_axiom_that_fails_everywhere_is_against_the_theorem():
    methods = ["surrogate, NTK final", "target, NTK final", *(f"tracking, {k}" for k in "abcde"), "tracking, NTK final"]
    axioms = ("self-explanation", "symmetric zero", "symmetric cycle", "irreducibility", "efficiency of the change")
    rows = [(m, a, 0.0) for m in (*methods, "TracInCP", "random") for a in axioms]
    table = pandas.DataFrame(rows, columns=["method", "axiom", "violation"])
    assert judge(CLAIMS["P9"], _axioms(table)).decisive.values == (4.0,) * 8
    table.loc[table["axiom"] == "irreducibility", "violation"] = 0.5
    assert judge(CLAIMS["P9"], _axioms(table)).verdict == "not held"
