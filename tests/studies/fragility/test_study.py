"""The fragility study end to end at toy size, and its parts against oracles."""

from __future__ import annotations

from dataclasses import replace

import pandas
import pytest
import torch

from explainlib.datasets import load
from explainlib.figures import alt_text
from explainlib.figures.studies import STUDY_FIGURES
from explainlib.influence import loss_influence
from explainlib.models import mlp
from explainlib.risk import Risk
from explainlib.studies.claims import CLAIMS, VERDICTS, judge
from explainlib.studies.fragility import study as fragility
from explainlib.studies.fragility.bench import (
    BAYESIAN,
    KINDS,
    L2,
    Training,
    evaluate_network,
    highest_loss_example,
    is_collapsed,
    last_layer,
    predicted_changes,
    stochastic_weight_average,
    train_family,
    true_changes,
)
from explainlib.studies.fragility.claims import (
    _eigenvalue,
    _pictures,
    _sizes,
)
from explainlib.studies.fragility.parts import anova, jumps, picture_pairs, summary
from explainlib.studies.runner import compute
from explainlib.training import fit_ensemble, fit_risks

QUICK = Training(epochs=150, swa=10, finetune=20, removed=8, lr=0.03)
TOY = fragility.Config(
    repeats=2,
    bayesian=(2, 30),
    training=QUICK,
    pairs=2,
    curve=(12, 2, 100),
    ladder=(40, 20, 3, 1),
)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy") / "partial"
    return folder, compute(fragility, TOY, folder)[0]


@pytest.fixture(scope="module")
def iris():
    return load("iris").double()


def runs(values, collapsed_at=(), kind="plain"):
    """Runs of one kind: ``values`` by depth, width 5."""
    rows = [
        {"kind": kind, "depth": depth, "width": 5, "seed": seed, "spearman_highest_loss": value}
        for depth, column in values.items()
        for seed, value in enumerate(column)
    ]
    frame = pandas.DataFrame(rows).assign(accuracy=1.0, top_eigenvalue=1.0, spearman_most_influential=0.5)
    gone = frame["depth"].isin(collapsed_at)
    return frame.assign(collapsed=gone, status=gone.map({True: "collapsed", False: "compared"}))


def test_every_claim_has_a_row_and_a_verdict(toy):
    claims = toy[1]["claims"]
    assert claims["id"].tolist() == ["E1", "E4", "E7"]
    assert claims["verdict"].isin(VERDICTS).all() and (claims["reason"].str.len() > 0).all()
    assert not claims[["id", "printed", "quantity", "ours", "controls", "rule"]].isna().any().any()
    assert "median Spearman of" in toy[1]["closing"]["text"].iloc[0]


def test_no_run_is_dropped_and_the_plan_names_each_part(toy):
    tables = toy[1]
    assert tables["repeats"].groupby("kind").size().to_dict() == dict.fromkeys(KINDS, 3 * 2)  # shapes x repeats
    assert tables["plan"]["part"].tolist() == ["iris", "two", "pictures", "curves", "ladder"]
    assert (tables["iris"]["repeats"] == 2).all() and set(tables["iris"]["kind"]) == set(KINDS)
    assert set(tables["two"]["over"]) == {"highest loss", "all"}


def test_like_with_like_orders_and_mixed_does_not(toy):
    two = toy[1]["two"]
    tanh = two[(two["activation"] == "tanh") & (two["over"] == "all")].set_index(["a", "b"])
    assert tanh["gradient_norm"].max() < 1e-8
    assert tanh["spearman"]["all influence", "all truth"] > 0.95
    assert tanh["spearman"]["last influence", "last truth"] > 0.95
    assert tanh["spearman"]["last influence", "all truth"] < 0.9


def test_a_second_run_takes_everything_from_disk(toy, monkeypatch):
    folder, tables = toy
    for name in ("cell", "like_with_like", "curves", "digits_ladder", "train_family"):
        monkeypatch.setattr(fragility, name, None)
    again = compute(fragility, TOY, folder)[0]
    for name, table in tables.items():
        pandas.testing.assert_frame_equal(again[name], table)


def test_the_figure_says_what_it_shows(toy):
    assert "median Spearman of" in alt_text(STUDY_FIGURES["fragility"](toy[1]))


def test_an_average_is_the_mean_of_every_epoch(iris):
    """The oracle trains one epoch, two, three: Adam's first steps from the same start."""
    network = mlp([4, 3, 3], "tanh", dtype=torch.float64)
    start = fit_ensemble(network, iris.train, epochs=5, seeds=[0, 1], l2=0.01)
    steps = [fit_risks(start.risk, starts=start.theta, epochs=epochs, lr=0.02).theta for epochs in (1, 2, 3)]
    assert torch.allclose(stochastic_weight_average(start, epochs=3, lr=0.02), torch.stack(steps).mean(0), atol=1e-12)
    with pytest.raises(ValueError, match="epochs=0"):
        stochastic_weight_average(start, epochs=0, lr=0.02)


def test_a_row_holds_the_library_s_own_numbers(iris):
    risk = train_family(replace(QUICK, epochs=400), iris.train, [4, 5, 3], L2, [3])[L2][0]
    row, last, test = evaluate_network(QUICK, risk, L2, iris), last_layer(risk), highest_loss_example(risk, iris.test)
    assert last.p == 18 and last.l2 == QUICK.l2
    predicted = predicted_changes(last, test, damping=0.0)
    assert torch.allclose(predicted, -loss_influence(last, test, curvature="gauss_newton")[0] / 120)
    chosen = risk.losses().topk(QUICK.removed).indices
    true, unsolved = true_changes(last, test, chosen)
    ranks = torch.stack([predicted[chosen], true]).argsort(1).argsort(1).double()
    assert unsolved == 0 and row["spearman_highest_loss"] == pytest.approx(float(torch.corrcoef(ranks)[0, 1]))
    assert row["spearman_highest_loss"] > 0.9 and not row["collapsed"]


def test_a_bayesian_network_s_last_layer_keeps_its_prior(iris):
    risk = train_family(replace(QUICK, epochs=20), iris.train, [4, 5, 3], BAYESIAN, [0])[BAYESIAN][0]
    last = last_layer(risk)
    assert last.p == 36 and torch.allclose(last.losses(iris.test), risk.losses(iris.test))
    assert last.kl_weight == risk.kl_weight


def test_a_collapsed_network_is_named_and_not_explained(iris):
    risk = Risk(mlp([4, 5, 3], dtype=torch.float64), iris.train)
    risk = risk.at(torch.zeros_like(risk.theta))
    row = evaluate_network(QUICK, risk, "plain", iris)
    assert is_collapsed(risk) and row["collapsed"] and "spearman_highest_loss" not in row
    assert row["status"].startswith("collapsed")


def test_collapsed_runs_are_counted_and_left_out():
    table = runs({1: [0.2, 0.4, 0.6], 2: [0.9, 0.9, 0.9]}, collapsed_at=[2])
    row = summary(table, ["spearman_highest_loss"]).query("sweep == 'depth'").set_index("size")
    assert row.loc[1, "spearman_highest_loss"] == pytest.approx(0.4) and row.loc[2, "collapsed"] == 3
    assert row.loc[1, "spearman_highest_loss_high"] == pytest.approx(0.4 + 4.302653 * 0.2 / 3**0.5, abs=1e-6)
    assert row["spearman_highest_loss"].isna().tolist() == [False, True]


def test_runs_without_an_order_are_counted():
    table = runs({1: [0.2, float("nan"), 0.6]})
    row = summary(table, ["spearman_highest_loss"]).iloc[0]
    assert row["undefined"] == 1 and row["spearman_highest_loss"] == pytest.approx(0.4)


def test_variance_is_analysed_and_an_empty_cell_is_a_status():
    """Two groups: F is the square of Student's t."""
    table = runs({1: [0.1, 0.2, 0.3], 2: [0.3, 0.5, 0.4], 3: [0.0, 0.0, 0.0]}, collapsed_at=[3])
    row = anova(table).query("sweep == 'depth' and measure == 'spearman_highest_loss'").iloc[0]
    assert row["F"] == pytest.approx(0.2**2 / (2 * 0.01 / 3)) and row["spread"] == pytest.approx(0.2)
    assert row["status"] == "fewer than 3 runs at depth 3" and row["sizes"] == 2
    many = runs({1: [0.1, 0.2, 0.3, 0.2, 0.1, 0.2], 2: [0.3, 0.5, 0.4, 0.3, 0.4, 0.4]})
    few = many.assign(status=many["status"].where(~((many["depth"] == 2) & (many["seed"] > 3)), "collapsed"))
    assert anova(many).iloc[0]["sizes"] == 2 and "fewer than 5 runs at depth 2" in anova(few).iloc[0]["status"]
    alone = anova(runs({1: [0.1, 0.2]})).query("sweep == 'depth'").iloc[0]
    assert alone["status"].startswith("nothing to compare") and alone["p"] != alone["p"]


def test_numbers_tell_two_pictures_apart():
    numbers = picture_pairs({})[1].set_index("picture")
    assert (numbers["spearman"] > 0.8).all()
    assert numbers["r2"].tolist() == pytest.approx([0.83, 0.18], abs=0.01)
    assert numbers["verdict"].nunique() == 2


def test_a_curve_that_turns_is_told_from_one_that_falls():
    falls = [{"data": "a", "removed": j, "epoch": e, "loss": 1 / (1 + e) + j} for j in (-1, 0) for e in range(6)]
    turns = [{"data": "b", "removed": j, "epoch": e, "loss": e / 9 + e % 2} for j in (-1, 0) for e in range(6)]
    table = jumps(pandas.DataFrame(falls + turns)).set_index("data")
    assert table["turns"].tolist() == [0, 1] and table.loc["a", "path"] == pytest.approx(1)


def test_other_data_are_refused():
    with pytest.raises(ValueError, match="sweeps on iris"):
        fragility.config("quick", "digits")


def test_the_scales_are_one_code():
    cpu, paper = fragility.config("cpu", None), fragility.config("paper", None)
    assert cpu.repeats == paper.repeats == 50 and len(fragility.Sweeps(cpu).shapes) == 13
    assert sum(minutes for _, minutes in cpu.planned) <= 90  # of one core: under an hour on two


def sized(means, seeds=12, spread=0.01, column="spearman_highest_loss"):
    """Runs of one kind by depth and by width, the same means for both."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for grows in ("depth", "width"):
        for size, mean in means.items():
            shape = {"depth": 1, "width": 1, grows: size}
            for seed in range(seeds if size > 1 or grows == "depth" else 0):
                value = mean + spread * float(torch.randn(1, generator=generator))
                rows.append({"kind": "plain", "seed": seed, column: value} | shape)
    frame = pandas.DataFrame(rows).assign(status="compared", collapsed=False)
    return frame if column == "spearman_highest_loss" else frame.assign(spearman_highest_loss=0.5)


NO_ANOVA = pandas.DataFrame(columns=["measure", "sweep", "kind", "F", "p"])


@pytest.mark.parametrize(
    ("means", "spread", "verdict"),
    [({1: 0.5, 9: 0.51}, 0.01, "held"), ({1: 0.5, 9: 0.51}, 0.5, "undecided"), ({1: 0.5, 9: 0.9}, 0.01, "not held")],
)
def test_no_effect_of_size_is_an_interval_inside_a_margin(means, spread, verdict):
    found = judge(CLAIMS["E1"], _sizes(sized(means, spread=spread), NO_ANOVA))
    assert found.verdict == verdict and found.decisive.clusters == 12


def test_a_run_without_a_correlation_is_no_support():
    table = sized({1: 0.5, 9: 0.51})
    table.loc[0, "spearman_highest_loss"] = float("nan")
    found = judge(CLAIMS["E1"], _sizes(table, NO_ANOVA))
    assert found.verdict == "undecided" and "undefined values" in found.reason


def test_eigenvalues_grow_and_explain_nothing_within_a_shape():
    generator = torch.Generator().manual_seed(0)
    table = sized({1: 1.0, 9: 5.0}, seeds=200, column="top_eigenvalue")
    unrelated = torch.rand(len(table), generator=generator, dtype=torch.float64).numpy()
    assert judge(CLAIMS["E4"], _eigenvalue(table.assign(spearman_highest_loss=unrelated))).verdict == "held"
    related = table.assign(spearman_highest_loss=table["top_eigenvalue"])
    found = judge(CLAIMS["E4"], _eigenvalue(related))
    assert found.verdict == "not held" and found.decisive.method == "Fisher z"


def test_pictures_differ_where_their_explained_variances_do():
    table = runs({1: [0.85] * 12, 2: [0.85] * 12})
    r = [0.9 + 0.001 * k for k in range(12)] + [0.3 + 0.01 * k for k in range(12)]
    pictures = pandas.DataFrame(columns=["picture", "spearman", "r2"])
    assert judge(CLAIMS["E7"], _pictures(table.assign(pearson_highest_loss=r), pictures)).verdict == "held"
    same = [0.9 + 0.001 * k for k in range(24)]
    assert judge(CLAIMS["E7"], _pictures(table.assign(pearson_highest_loss=same), pictures)).verdict == "not held"
