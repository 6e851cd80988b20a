"""The group study end to end at toy size: nothing is dropped, and the tables say what the formulas say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas
import pytest
import torch

from explainlib.curvature import hessian
from explainlib.datasets import Examples, Split
from explainlib.figures import alt_text
from explainlib.figures.studies import STUDY_FIGURES
from explainlib.influence import removal_effect
from explainlib.retraining import leave_out
from explainlib.studies.claims import VERDICTS
from explainlib.studies.group import cost, parts, problems
from explainlib.studies.group import study as group
from explainlib.studies.group.claims import BASELINE, FIRST, SECOND, gain
from explainlib.studies.runner import compute

TOY = group.Config(
    seeds=2, limit=120, ridges=(1e-2, 1e-3), dampings=(0.0, 1e-2), both=(0.5,), draws=2, synthetic=200, blobs=120,
    fractions=(0.05, 0.5), groups=6, tests=5, networks=1, network=60, network_groups=3,
)  # fmt: skip


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return compute(group, TOY, tmp_path_factory.mktemp("toy") / "partial")[0]


@pytest.fixture(scope="module")
def risk():
    return problems.softmax_regression(problems.synthetic_split(200, 7), 1e-2)


def test_every_claim_has_a_row_and_a_verdict(toy):
    claims = toy["claims"]
    assert claims["id"].tolist() == ["B1", "B2", "B3", "B4", "B5", "B6"]
    assert claims["verdict"].isin(VERDICTS).all() and (claims["reason"].str.len() > 0).all()
    assert not claims[["id", "printed", "quantity", "ours", "controls", "rule"]].isna().any().any()


def test_no_row_is_dropped_and_no_number_is_missing(toy):
    images = toy["images"]
    at_first, elsewhere = len(parts.METHODS) + len(parts.SWEPT), 2 * len(parts.SWEPT)  # the two dampings
    truths = len(TOY.fractions) + len(TOY.both)
    assert len(images) == TOY.seeds * len(parts.KINDS) * truths * (at_first + elsewhere)
    assert set(images["method"]) == set(parts.METHODS) and set(images["seed"]) == {0, 1}
    assert images[["pearson", "per_test", "slope", "slope_per_test", "parameter_error"]].notna().all().all()
    assert (images["radius"].notna() == (images["ridge"] == 1e-2)).all()
    assert (images["converged"] == images["groups"]).all()
    assert len(toy["synthetic"]) == TOY.draws * len(parts.KINDS) * truths * len(parts.METHODS)
    assert len(toy["selection"]) == TOY.draws * 3 * 6
    assert toy["network"]["needed"].nunique() == 2 and (toy["network"]["p"] == 64 * 10 + 10 + 88 + 90).all()


def test_draws_differ_by_seed(toy):
    rows = toy["images"].query("method == 'second order' and fraction == 0.5 and damping == 0 and ridge == 0.01")
    assert rows.groupby(["kind", "truth"])["per_test"].nunique().eq(TOY.seeds).all()
    one, two = (problems.drawn_images("digits", 100, seed) for seed in (0, 1))
    assert not torch.equal(one.train.x, two.train.x) and one.train.x.dtype == torch.float64


def test_no_limit_takes_half_and_too_large_a_limit_all_there_are():
    assert len(problems.drawn_images("digits", None, 0).train) == 750
    assert len(problems.drawn_images("digits", 5000, 0).train) == 1500


def test_pixels_are_averaged():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    rows = problems._rows(Examples(x, torch.zeros(1, dtype=torch.int64)), 2)
    assert rows.x.tolist() == [[2.5, 4.5, 10.5, 12.5]]


def test_within_a_test_the_two_first_orders_have_one_correlation(toy):
    """Koh's and Basu's first terms differ by a shift and a factor 1/(1 - f): so a gain is not their weighting's."""
    images = toy["images"].query("damping == 0")
    wide = images.pivot(index=["seed", "kind", "fraction", "ridge", "truth"], columns="method", values="per_test")
    torch.testing.assert_close(*(torch.tensor(wide[name].to_numpy()) for name in (BASELINE, FIRST)), rtol=1e-5, atol=0)
    pooled = images.pivot(index=["seed", "kind", "fraction", "ridge", "truth"], columns="method", values="pearson")
    assert (pooled[BASELINE] - pooled[FIRST]).abs().max() > 0.01


def test_basu_s_first_term_is_koh_s_shifted_by_test_and_divided_by_the_rest(risk):
    """d_Basu = (d_Koh + f l2 g_t' H^-1 theta) / (1 - f): the formula of the document."""
    groups, test, f = problems.random_groups(risk.n, 0.4, 5, 1), risk.train[:6], 0.4
    koh, basu = (
        removal_effect(risk, groups, **parts.METHODS[name]).loss_change(test, evaluate=False)
        for name in (BASELINE, FIRST)
    )
    shift = f * risk.l2 * risk.loss_gradients(test) @ torch.linalg.solve(hessian(risk), risk.theta)
    torch.testing.assert_close(basu, (koh + shift[:, None]) / (1 - f))


def test_the_slope_of_koh_s_first_order_is_that_of_basu_s_over_the_rest(toy):
    slopes = (
        toy["synthetic"]
        .query("truth == 'preserve'")
        .pivot(index=["seed", "kind", "fraction"], columns="method", values="slope_per_test")
    )
    rest = 1 - torch.tensor(slopes.index.get_level_values("fraction").to_numpy())
    found, expected = (torch.tensor(slopes[name].to_numpy()) for name in (BASELINE, FIRST))
    torch.testing.assert_close(found, expected / rest, rtol=1e-5, atol=0)  # seven digits in a table


def test_orders_are_in_order_on_random_groups(toy):
    """At 5% removed the error of the parameters falls from first to second order; the other weighting errs more."""
    small = toy["images"].query("kind == 'random' and fraction == 0.05 and damping == 0 and ridge == 0.01")
    small = small.groupby("method")["parameter_error"].median()
    assert small[FIRST] > 1.5 * small[SECOND] and small[BASELINE] > small[SECOND]
    assert small["plain second order"] > small[SECOND]


def test_a_row_agrees_with_numbers_by_hand(risk):
    groups = problems.random_groups(risk.n, 0.3, 5, 1)
    predicted, true = removal_effect(risk, groups, order=2), leave_out(risk, groups)
    test = risk.train[:4]
    row = parts.agreement_row(predicted, true, test)
    x, y = predicted.loss_change(test, evaluate=False), true.loss_change(test)
    rows = torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(x, y, strict=True)])
    assert row["per_test"] == pytest.approx(float(rows.quantile(0.5)))
    assert row["pearson"] == pytest.approx(float(torch.corrcoef(torch.stack([x.flatten(), y.flatten()]))[0, 1]))
    slopes = [float(torch.linalg.lstsq(torch.stack([a, a * 0 + 1], 1), b[:, None])[0][0]) for a, b in zip(x, y)]  # noqa: B905
    assert row["slope_per_test"] == pytest.approx(sum(sorted(slopes)[1:3]) / 2)
    assert row["converged"] == row["groups"] == 5


def test_groups_that_did_not_converge_are_left_out(risk):
    groups = problems.random_groups(risk.n, 0.3, 5, 1)
    predicted, true = removal_effect(risk, groups), leave_out(risk, groups)
    broken = replace(true, theta=true.theta.clone(), status=("max_steps", *true.status[1:]))
    broken.theta[0] += 100
    row = parts.agreement_row(predicted, broken, risk.train[:4])
    others = parts.agreement_row(removal_effect(risk, groups[1:]), leave_out(risk, groups[1:]), risk.train[:4])
    assert row["converged"] == 4 and row["per_test"] == pytest.approx(others["per_test"])


def test_coherent_groups_come_from_one_class_as_long_as_it_lasts():
    train = problems.drawn_images("digits", 200, 0).train
    for group_ in problems.groups_of("coherent", train, 0.05, 10, 0):
        assert len(group_) == 10 and train.y[group_].unique().numel() == 1
    assert train.y[problems.groups_of("coherent", train, 0.3, 1, 0)[0]].unique().numel() in (3, 4)


def test_selection_predicts_what_it_optimises(toy):
    table = toy["selection"].pivot(index=["seed", "fraction"], columns="method", values="predicted")
    assert (table["relaxed"] >= table["greedy"] - 1e-9).all()
    assert (table["random"].abs() < table["greedy"] / 2).all()


def test_the_cost_counts_products_of_the_solves_it_times(risk):
    table = cost.cost(risk, "toy").set_index(["solver", "order"])["products"]
    assert table["dense", 1] == 0 and table["dense", 2] == cost.OWN
    assert table["cg", 2] > table["cg", 1] + cost.OWN > 2
    groups = problems.random_groups(risk.n, cost.FRACTION, cost.GROUPS, 0)
    first, second = cost.cg_products(risk, groups)
    assert (table["cg", 1], table["cg", 2]) == (first, first + second + cost.OWN)


def test_a_network_s_damping_is_what_its_minimum_needs(monkeypatch):
    """Two flat directions in the place of a minimum: twice what makes the Hessian definite."""
    split = problems.drawn_images("digits", 40, 100)
    split = Split(split.train, split.test[:30])
    options = {"fractions": (0.1,), "counts": {"random": 3, "coherent": 3}, "tests": 3}
    monkeypatch.setattr(parts.torch.linalg, "eigvalsh", lambda matrix: torch.tensor([-1e-3, 1.0]).double())
    table = parts.network(split, 100, **options)
    assert sorted(table["damping"].unique()) == [pytest.approx(2e-3), 0.01]
    assert (table["needed"] == (table["damping"] < 5e-3)).all()


def test_the_figure_says_what_it_shows(toy):
    assert "random groups of 50% gain" in alt_text(STUDY_FIGURES["group"](toy))
    without = {name: table for name, table in toy.items() if name != "selection"}
    assert "random groups" in alt_text(STUDY_FIGURES["group"](without))


def test_the_scales_are_one_code():
    assert group.config("quick", None).data == "digits"
    assert group.config("cpu", "mnist").fractions == group.FRACTIONS and group.config("cpu", "mnist").seeds >= 5
    assert group.config("cpu", None).draws == 0  # the synthetic models are MNIST's run's
    with pytest.raises(ValueError, match="digits, mnist"):
        group.config("cpu", "iris")


def test_the_paper_s_scale_has_the_printed_sizes_and_can_be_drawn():
    settings = group.config("paper", "digits")
    assert (settings.synthetic, settings.blobs, settings.fractions[0], settings.fractions[-1]) == (
        10_000, 20_000, 0.016, 0.6,
    )  # fmt: skip
    assert len(problems.drawn_images("digits", settings.network, 0, settings.network_pool).train) == 1500
    assert len(group.jobs(settings, Path())) == 8 + 8 + 24 + 8 + 1
    small = replace(
        settings, seeds=1, limit=100, draws=1, synthetic=150, blobs=100, fractions=settings.fractions[-1:], groups=3,
        both=settings.both[-1:], tests=3, networks=0, ridges=(1e-2,),
    )  # fmt: skip
    frames = [job() for name, job in group.jobs(small, Path()).items() if name != "cost-0"]
    assert all(isinstance(frame, pandas.DataFrame) and len(frame) for frame in frames)


def test_the_gain_is_relative_and_undefined_without_a_correlation():
    rows = [
        ("a", m, v, s) for s, (x, y) in enumerate([(0.5, 0.75), (-0.1, 0.5)]) for m, v in ((BASELINE, x), (SECOND, y))
    ]
    table = pandas.DataFrame(rows, columns=["kind", "method", "per_test", "seed"])
    table = table.assign(fraction=0.5, ridge=1.0, truth="preserve", damping=0.0)
    found = gain(table, "a", 0.5, 1.0)
    assert found[0] == pytest.approx(0.5) and found[1] != found[1]
