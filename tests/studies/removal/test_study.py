"""The study of removed tasks end to end at toy size, and its parts against sums written out."""

from dataclasses import replace

import pandas
import pytest
import torch
from scipy.stats import spearmanr

from explainlib.figures import alt_text
from explainlib.figures.studies import STUDY_FIGURES
from explainlib.studies import removal
from explainlib.studies.removal import Config, config, problem
from explainlib.studies.removal.agreement import Changes, _agreement, weight_changes
from explainlib.studies.removal.questions import questions
from explainlib.studies.removal.settings import Learning
from explainlib.studies.runner import compute

TOY = Config(
    "glyphs",
    (
        Learning("small", (0, 1), 8, 4, 5, 4, 0.5, l2=0.1, rest_steps=300, sizes=(1, 3), groups=3, width=4),
        Learning("cnn", (0,), 4, 2, 2, 2, rest_steps=1, sizes=(1, 2), groups=3, width=2),
    ),
)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy") / "partial"
    return folder, compute(removal, TOY, folder)[0]


def test_every_method_stands_beside_its_controls(toy):
    table = toy[1]["removal"]
    assert set(table["state"]) == {"trained", "near rest"} and set(table["network"]) == {"small", "cnn"}
    common = {"gauss-newton", "parameters moved", "identity", "cosine", "random projector", "cosine, untrained"}
    for (network, state, size, _), part in table.groupby(["network", "state", "size", "seed"]):
        expected = common | ({"hessian", "hessian, pruned"} if network == "small" else set())
        middle = size == {"small": 3, "cnn": 2}[network]
        assert set(part["method"]) == expected | ({"other batches"} if state == "trained" and middle else set())
    assert table["lds"].dropna().abs().le(1 + 1e-9).all() and table["own_spearman"].dropna().abs().le(1 + 1e-9).all()
    assert table[table["method"].isin(["identity", "cosine"])]["error"].isna().all(), "they have no unit"


def test_near_rest_the_influence_of_one_task_is_its_removal(toy):
    """The small learner comes to rest, and there one task of eight is foretold much better than by doing nothing."""
    table = toy[1]["removal"]
    rest = table[(table["network"] == "small") & (table["state"] == "near rest")]
    assert (rest["gradient"] < 1e-6).all()
    one = rest[(rest["size"] == 1) & (rest["method"] == "hessian")]
    assert (one["error"] < 0.6).all()


def test_a_second_run_takes_everything_from_disk(toy, monkeypatch):
    folder, tables = toy
    monkeypatch.setattr(problem, "leave_tasks_out", None)
    again = compute(removal, TOY, folder)[0]
    for name, table in tables.items():
        pandas.testing.assert_frame_equal(again[name], table)


def test_near_rest_resumes_run_by_run(tmp_path, monkeypatch):
    toy = problem.Problem("glyphs", replace(TOY.learnings[0], rest_steps=2), 0, tmp_path)
    made, calls = toy.near_rest, []
    monkeypatch.setattr(problem, "minimise", lambda *a, **b: calls.append(1))
    again = problem.Problem("glyphs", replace(TOY.learnings[0], rest_steps=2), 0, tmp_path).near_rest
    assert torch.equal(again.w, made.w) and torch.equal(again.whole, made.whole) and not calls


@pytest.mark.parametrize("mean", [False, True])
def test_shares_are_the_change_of_the_objectives_weights(mean):
    groups = [torch.tensor([1]), torch.tensor([0, 3])]
    found = weight_changes(groups, 4, mean=mean)
    for g, group in enumerate(groups):
        after = torch.ones(4, dtype=torch.float64)
        after[group] = 0
        after /= after.sum() if mean else 4
        torch.testing.assert_close(found[:, g], after - 1 / 4)


def test_agreement_is_scipys_and_undefined_where_predictions_are_equal():
    generator = torch.Generator().manual_seed(0)
    guess, true = (torch.randn(3, 7, generator=generator, dtype=torch.float64) for _ in range(2))
    groups = [torch.tensor([k % 3]) for k in range(7)]
    row = _agreement(Changes(guess, guess), Changes(true, true), groups, scaled=True)
    assert row["lds"] == pytest.approx(sum(spearmanr(guess[k], true[k]).statistic for k in range(3)) / 3)
    own = [[float(table[k % 3, k]) for k in range(7)] for table in (guess, true)]
    assert row["own_spearman"] == pytest.approx(spearmanr(*own).statistic)
    assert row["error"] == pytest.approx(float((guess - true).norm() / true.norm()))
    same = Changes(torch.ones(3, 7, dtype=torch.float64), torch.ones(3, 7, dtype=torch.float64))
    undefined = _agreement(same, Changes(true, true), groups, scaled=False)
    assert all(undefined[name] != undefined[name] for name in ("lds", "own_spearman", "error"))
    nothing = Changes(torch.zeros(3, 7, dtype=torch.float64), true)
    assert _agreement(nothing, Changes(true, true), groups, scaled=True)["error"] == 1


def rows(values):
    """A table in which the influence has ``values`` by seed near rest, and everything else 0."""
    made = []
    for seed, value in enumerate(values):
        for state in ("near rest", "trained"):
            for size in (1, 4, 16):
                for method in ("hessian", "identity", "cosine", "other batches"):
                    high = value if (state, method) == ("near rest", "hessian") and size <= 4 else 0.0
                    made.append([seed, "small", state, size, method, high])
    return pandas.DataFrame(made, columns=["seed", "network", "state", "size", "method", "lds"])


@pytest.mark.parametrize(
    ("values", "verdict"),
    [([0.8, 0.9, 0.85], "held"), ([-0.8, -0.9, -0.85], "not held"), ([0.5, -0.5, 0.1], "undecided")],
)
def test_questions_are_decided_by_their_interval(values, verdict):
    found = questions(rows(values)).set_index("id")["verdict"]
    assert found[[f"D{k}, small" for k in range(1, 7)]].tolist() == [verdict] * 6
    assert len(found) == 6, "the other network was not asked"


def test_the_figure_says_what_it_shows(toy):
    text = alt_text(STUDY_FIGURES["removal"](toy[1]))
    assert "two layers, brought towards rest, exact Hessian" in text and "convolutional network" in text


def test_the_convolutional_network_is_a_study_of_its_own():
    from explainlib.studies import STUDIES

    small, cnn = (STUDIES[name].config("cpu", "omniglot") for name in ("removal", "removal_cnn"))
    assert [how.network for how in small.learnings + cnn.learnings] == ["small", "cnn"]


def test_other_data_are_refused():
    with pytest.raises(ValueError, match="glyphs, omniglot"):
        config("quick", "mnist")
