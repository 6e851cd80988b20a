"""The fragility design: its parts against oracles, and its claims on made-up tables with a known truth."""

from __future__ import annotations

from pathlib import Path

import pandas
import pytest
import torch
from scipy import stats

from explainlib.datasets import load
from explainlib.figures import alt_text
from explainlib.figures.studies import STUDY_FIGURES
from explainlib.influence import loss_influence
from explainlib.retraining import leave_out
from explainlib.studies.claims import CLAIMS, judge
from explainlib.studies.fragility import design
from explainlib.studies.fragility.bench import last_layer
from explainlib.studies.fragility.design import averages, bayes, claims, factors, images, settings, study
from explainlib.studies.fragility.design.images import LAST, TRAINED, Images, TrainedNetwork
from explainlib.studies.runner import compute
from explainlib.training import fit_risks

TINY = settings.Shape(epochs=200, lr=0.05, finetune=10)
DIGITS = Images("digits", n=60, width=8, epochs=3, removed=5, seeds=1)
TOY = settings.Config(
    "iris",
    (TINY, settings.Shape(epochs=60, lr=0.05, finetune=5, whole=True)),
    1,
    settings.Averages((TINY,), 2, 5),
    settings.Bayes((TINY,), costs=("gaussian",), kl_weights=(1.0,), seeds=2, draws=50),
    (DIGITS,),
    (DIGITS,),
    settings.Groups(DIGITS, (1, 6), 4),
    (1, 1, 6, 4),
    removed=12,
)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return compute(design, TOY, tmp_path_factory.mktemp("design") / "partial")[0]


def test_every_cell_of_the_design_is_there(toy):
    table = toy["factors"]
    assert set(table["ridge"]) == {0.0, 0.005} and set(table["parameters"]) == {"all", "last"}
    assert set(table["truth"]) == set(factors.TRUTHS) and set(table["protocol"]) == set(factors.PROTOCOLS)
    assert set(factors.CONTROLS) < set(table["prediction"])
    assert not len(table[(table["truth"] == "solved") & (table["ridge"] == 0)])  # there is no minimum
    split = table[~table["shape"].str.contains("150")]
    assert len(split) == 2 * 2 * (2 * 5 + 1 + 3 * 5 + 3)  # parameters, removals; truths x predictions, and their pairs
    cells = toy["cells"].set_index(list(factors_of(toy)))
    assert (cells["networks"] == 1).all()
    like = cells.loc[("tanh, depth 1, width 5", 0.005, "last", "solved", "highest loss", "influence, damping 0")]
    assert like["spearman"] > 0.95 and 0.9 < like["slope"] < 1.3 and like["overlap"] > 0.8


def factors_of(tables):
    return [name for name in tables["cells"].columns[:6]]


def test_claims_controls_and_figure(toy):
    assert toy["claims"]["id"].tolist() == ["E2", "E3", "E5", "E6", "E8"]
    assert not toy["claims"][["printed", "quantity", "ours", "rule", "verdict"]].isna().any().any()
    assert "E5: undecided" in alt_text(STUDY_FIGURES["fragility_design"](toy))


def test_measures_are_scipy_s_by_test():
    generator = torch.Generator().manual_seed(0)
    predicted, true = (torch.randn(3, 20, generator=generator, dtype=torch.float64) for _ in range(2))
    true = predicted + true
    members = torch.stack([torch.randperm(20, generator=generator)[:12] for _ in range(3)])
    own = torch.zeros(3, 20, dtype=torch.bool)
    own[0, int(true[0].abs().argmax())] = True
    found = factors.agreement(predicted, true, members, own, 2)
    x, y = predicted.gather(1, members), true.gather(1, members)
    spearman = [stats.spearmanr(a, b).statistic for a, b in zip(x, y, strict=True)]
    slopes = [stats.linregress(a, b).slope for a, b in zip(x, y, strict=True)]
    assert found["spearman"] == pytest.approx(sorted(spearman)[1]) and found["spearman_worst"] == pytest.approx(
        spearman[2]
    )
    assert found["slope"] == pytest.approx(sorted(slopes)[1])
    assert found["pearson_worst"] == pytest.approx(stats.pearsonr(x[2], y[2]).statistic)
    shared = []
    for t in range(3):
        sides = [(s[t].abs() * ~own[t]).argsort(descending=True)[:10].tolist() for s in (predicted, true)]
        shared.append(len(set(sides[0]) & set(sides[1])) / 10)
    assert found["overlap"] == pytest.approx(sorted(shared)[1])
    constant = factors.agreement(torch.ones(3, 20).double(), true, members, own, 0)
    assert constant["undefined"] == 1 and constant["spearman"] != constant["spearman"]


def test_predictions_and_truths_share_parameters_and_ridge():
    train, test = factors.flowers(TINY, 3)
    assert len(train) == 120 and len(test) == 30
    assert not torch.equal(train.x, factors.flowers(TINY, 4)[0].x)
    (risk,) = factors.trained(TINY, train, 0.005, [3])
    last = last_layer(risk)
    predicted = factors.predictions(last, test, (0.0, 0.01), 3)
    want = -loss_influence(last, test, damping=0.01) / 120
    assert torch.allclose(predicted["influence, damping 0.01"], want)
    assert torch.allclose(predicted["influence, damping 0"], -loss_influence(last, test) / 120, rtol=1e-6)
    solved, unsolved = factors.truth(last, test, "solved", TINY, 3)
    again = leave_out(last, [[7]], weighting="plain").loss_change(test)[:, 0]
    assert unsolved == 0 and torch.allclose(solved[:, 7], again, atol=1e-9)


def test_a_twin_trains_as_long_as_its_average():
    table = averages.evaluate_averages(settings.Averages((TINY,), 2, 5), TINY, 0.005)
    assert table["state"].tolist() == ["network"] * 2 + ["twin"] * 2 + ["average"] * 2
    risk = factors.trained(TINY, load("iris").double().train, 0.005, [0, 1])
    steps = torch.stack([
        fit_risks(risk[0], starts=torch.stack([r.theta for r in risk]), epochs=k, lr=TINY.lr).theta for k in range(1, 6)
    ])  # fmt: skip
    for state, thetas in (("twin", steps[-1]), ("average", steps.mean(0))):
        norms = [float(risk[0].at(theta).gradient().norm()) for theta in thetas]
        assert table[table["state"] == state]["gradient_norm"].tolist() == pytest.approx(norms, rel=1e-6)


def test_moments_are_those_of_sampled_weights_where_nothing_bends():
    """At one tanh unit a layer with hardly any spread, propagation is exact."""
    table = bayes.evaluate_bayes(settings.Bayes((TINY,), seeds=1, draws=4000), TINY, "gaussian", 1.0)
    assert 0.5 < table["spread_ratio"][0] < 2 and table["elbo_cost"].isna().all()
    split = load("iris").double()
    model = bayes.bayesian_mlp([4, 5, 3], "tanh", dtype=torch.float64)
    risk = bayes.ElboRisk(model, split.train, loss="sampled_cross_entropy")
    tight = risk.named(risk.theta)
    theta = torch.cat([(part - 6 if name.endswith("_rho") else part).flatten() for name, part in tight.items()])
    found = bayes.moments(risk.at(theta.detach()), split, 20_000, 0)
    assert found["spread_ratio"] == pytest.approx(1, abs=0.02) and found["mean_error"] < 0.05
    assert found["cost_by_logits"] == pytest.approx(found["cost_by_weights"], rel=0.01)
    assert found["elbo_cost"] == pytest.approx(found["cost_by_logits"])


@pytest.mark.parametrize("network", ["fully connected", "Bayesian fully connected"])
def test_a_removal_keeps_the_batches(network):
    """A group that is empty changes nothing, to the bit, and the baseline is the same training with all."""
    case = Images("digits", network, n=60, width=6, epochs=2, removed=2, seeds=1)
    trained = TrainedNetwork.of(case, 0)
    changes = trained.retrained([[], [3]], 5)
    assert (changes[:, 0] == 0).all() and (changes[:, 1] != 0).any()
    without = images._trained(trained.risk.model, trained.split.train, 1, 5, [3])
    whole = images._trained(trained.risk.model, trained.split.train, 1, 5)
    losses = [images._risk(model, trained.split.train).losses(trained.tests) for model in (without, whole)]
    assert torch.allclose(changes[:, 1], losses[0] - losses[1])


def test_signal_is_what_repeats():
    generator = torch.Generator().manual_seed(0)
    shared, *noise = (torch.randn(20_000, generator=generator, dtype=torch.float64) for _ in range(3))
    found = images.signal_and_noise(2 * shared + noise[0] / 2, 2 * shared + noise[1] / 2)
    assert found == pytest.approx({"signal": 2, "noise": 0.5}, rel=0.03)
    assert images.signal_and_noise(shared, -shared)["signal"] == 0


def test_data_that_are_not_at_hand_keep_their_row(monkeypatch):
    def missing(*args, **kwargs):
        raise FileNotFoundError("none")

    monkeypatch.setattr(images, "load", missing)
    assert images.evaluate_images(Images("mnist"), 0)["status"].tolist() == ["the files of mnist are not at hand"]


def test_other_data_and_networks_are_refused():
    with pytest.raises(ValueError, match="design runs on iris"):
        design.config("quick", "digits")
    with pytest.raises(ValueError, match="network"):
        TrainedNetwork.of(Images(network="transformer", n=50), 0)


def test_the_scales_are_one_code():
    cpu, paper = design.config("cpu", None), design.config("paper", None)
    assert {case.network for case in paper.images} > {case.network for case in cpu.images}
    assert len(study.jobs(cpu, Path("unused"))) == 4 * 6 + 1 + 8 + 3 * 7 + (10 + 8 + 6) + 12 + 5 + 30
    assert {case.n for case in cpu.images} == {500} and {case.removed for case in cpu.images} == {20}


def rows(spearman, **columns):
    """Return rows of one cell, a network each."""
    return pandas.DataFrame([{**columns, "split": k, "seed": k, "spearman": v, "spearman_worst": v, "status": "compared"}
                             for k, v in enumerate(spearman)])  # fmt: skip


def test_a_ridge_is_judged_with_damping_and_truth_equal():
    cell = {"shape": "relu", "truth": "trained on", **claims.PAPER}
    with_, without = rows([0.9, 0.8], ridge=0.005, **cell), rows([0.5, 0.7], ridge=0.0, **cell)
    other = rows([-1.0, -1.0], ridge=0.0, **(cell | {"prediction": "influence, damping 0"}))
    gains = claims.ridge_gain(pandas.concat([with_, without, other]), "trained on", **claims.PAPER)
    assert gains == pytest.approx({0: 0.4, 1: 0.1})


def test_gains_of_costs_and_averages_are_paired_by_network():
    """By hand: .9 and .7 of the cost against .5 and .6 of the ridge; an average .2 and .1 above its twin."""
    column, shape = "spearman_highest_loss", {"shape": "relu"}
    frames = [rows(values, cost=cost, kl_weight=weight, **shape).rename(columns={"spearman": column})
              for values, cost, weight in (([0.9, 0.7], "gaussian", 1.0), ([0.0, 0.0], "gaussian", 0.1),
                                           ([0.5, 0.6], "L2", 0.0))]  # fmt: skip
    gains = claims.bayesian_gain(pandas.concat(frames), "gaussian")
    assert gains == pytest.approx({0: 0.4, 1: 0.1})
    states = [rows(values, state=state, ridge=ridge, **shape).rename(columns={"spearman": column})
              for values, state, ridge in (([0.5, 0.4], "average", 0.0), ([0.3, 0.3], "twin", 0.0),
                                           ([0.9, 0.9], "average", 0.005), ([0.1, 0.1], "twin", 0.005))]  # fmt: skip
    gains = claims.average_gain(pandas.concat(states), False, "average", "twin")
    assert gains == pytest.approx({0: 0.2, 1: 0.1})
    assert claims.average_gain(pandas.concat(states[:1]), False, "average", "twin") == {}


def images_of(**networks):
    parts = [rows(values, data="mnist", network=name.replace("_", " "), a=LAST, b=TRAINED)
             for name, values in networks.items()]  # fmt: skip
    return pandas.concat(parts, ignore_index=True)


@pytest.mark.parametrize(
    ("large", "verdict"),
    [
        ([0.05, -0.1, 0.0, 0.1, -0.05, 0.02], "held"),  # inside the critical value, .31
        ([0.7, -0.6, 0.5, -0.5, 0.1, -0.1], "undecided"),  # a wide interval is no support
        ([0.9, 0.8, 0.85, 0.9, 0.88, 0.8], "not held"),
    ],
)
def test_a_wide_interval_decides_nothing_about_larger_networks(large, verdict):
    small = [0.6, 0.5, 0.7, 0.6, 0.65, 0.55]
    assert judge(CLAIMS["E5"], claims._larger(images_of(fully_connected=small, LeNet=large))).verdict == verdict
    assert judge(CLAIMS["E5"], claims._larger(images_of(fully_connected=small))).verdict == "undecided"


def test_jumps_are_told_from_those_of_full_batches():
    table = pandas.DataFrame(
        [{"data": data, "seed": k, "turns": turns + k / 100}
         for data, turns in (("iris", 0.1), ("mnist", 0.6), ("mnist, full batches", 0.1)) for k in range(4)]
    )  # fmt: skip
    table.loc[0, "turns"] += 0.01
    evidence = claims._jumps(table)
    assert (
        judge(CLAIMS["E8"], evidence).verdict == "held" and "mnist, full batches minus iris -0.00" in evidence.controls
    )
