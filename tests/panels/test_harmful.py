"""The panel on harmful tasks, driven as a notebook cell drives it and as a mouse does."""

from __future__ import annotations

import pytest
import torch

import explainlib as xl
from explainlib.figures import alt_text
from explainlib.figures.bilevel import detection_curves
from explainlib.panels.harmful.flips import split_in_half
from explainlib.panels.harmful.panel import Harmful

M, NEW, WAYS, WIDTH = 16, 12, 2, 4
METHODS = ("task influence", "gradient product", "raw loss", "random")


def some_tasks(m, seed):
    """Return tasks whose labels mean the same everywhere: the first coordinate's sign, blurred."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.tensor([0, 1])
    support_y, query_y = (labels.repeat_interleave(n).repeat(m, 1) for n in (3, 5))
    parts = []
    for y in (support_y, query_y):
        x = torch.randn(*y.shape, WIDTH, generator=generator, dtype=torch.float64)
        x[..., 0] += 2.0 * (2 * y - 1)
        parts.append(x)
    names = (("<low>", "high"),) * m
    return xl.datasets.Tasks(parts[0], support_y, parts[1], query_y, classes=names)


@pytest.fixture(scope="module")
def tasks():
    return some_tasks(M, 0)


@pytest.fixture(scope="module")
def new_tasks():
    return some_tasks(NEW, 1)


@pytest.fixture(scope="module")
def learner():
    return xl.meta.Bilevel(xl.models.logistic(WIDTH, WAYS, dtype=torch.float64), strength=10.0, l2=2.0)


@pytest.fixture(scope="module")
def made(learner, tasks, new_tasks):
    return Harmful(learner, tasks, new_tasks)


@pytest.fixture
def panel(made):
    made.reset()
    return made


@pytest.fixture(scope="module")
def by_hand(learner, tasks):
    """Return the spoiled tasks, the mask and lam by the library's own functions."""
    spoiled, hit = xl.datasets.flip_task_labels(tasks, tasks_fraction=0.25, labels_fraction=0.4, seed=0)
    return spoiled, hit, xl.meta.solve(learner, spoiled).w


def expected_scores(learner, by_hand, new_tasks, method):
    spoiled, _, lam = by_hand
    score_by = new_tasks[torch.arange(NEW // 2)]
    influence = xl.influence.BilevelInfluence(learner, lam, spoiled)
    others = learner.total_gradients(lam, score_by).sum(0)
    return {
        "task influence": influence.tasks() @ others,
        "gradient product": -influence.gradients @ others,
        "raw loss": learner.outer_losses(lam, spoiled),
    }[method]


@pytest.mark.parametrize("method", METHODS[:3])
def test_scores_are_the_librarys(panel, learner, by_hand, new_tasks, method):
    text = panel.set(method=method, inspected=5)
    scores = expected_scores(learner, by_hand, new_tasks, method)
    torch.testing.assert_close(panel.scores()[method], scores, rtol=1e-9, atol=1e-12)
    assert panel.suspects() == scores.argsort(descending=True, stable=True)[:5].tolist()
    found = int(by_hand[1][panel.suspects()].sum())
    assert f"inspected by {method}: 5 of 16 (31%), found {found} of 4 flipped; 4 is the most" in text
    assert panel.controls.suspects.value.count("&#9888; flipped") == found
    assert panel.controls.suspects.value.count("&#10004; true labels") == 5 - found


def test_edits_and_the_truth_are_the_librarys(panel, learner, by_hand, new_tasks):
    text = panel.set(inspected=3)
    assert "retrained" not in text and panel.controls.table.value.count("?") == 3
    spoiled, _, lam = by_hand
    gone, judge = panel.suspects(), new_tasks[torch.arange(NEW // 2, NEW)]
    influence = xl.influence.BilevelInfluence(learner, lam, spoiled)
    weights = torch.ones(M, dtype=torch.float64)
    weights[gone] = 0
    places = {
        "formula": influence.without_tasks(gone),
        "Newton": influence.without_tasks(gone, newton=True),
        "retrained": xl.meta.solve(learner, spoiled, weights=weights, start=lam).w,
    }
    now = float(learner.outer_losses(lam, judge).mean())
    change = {name: float(learner.outer_losses(at, judge).mean()) - now for name, at in places.items()}
    right = {name: float(learner.accuracy(at, judge).mean()) for name, at in places.items()}
    assert abs(change["formula"] - change["Newton"]) > 2e-3 and abs(change["retrained"]) > 1e-2
    assert f"loss {change['formula']:+.3f} by the formula, {change['Newton']:+.3f} by a Newton step" in text
    assert f"accuracy {right['formula']:.1%} and {right['Newton']:.1%}" in text
    said = f"retrained without them: loss {change['retrained']:+.3f}, accuracy {right['retrained']:.1%}"
    assert said in panel.verify() and said in panel.controls.truth.value
    assert "?" not in panel.controls.table.value and f"{change['retrained']:+.3f}" in panel.controls.table.value


def test_the_truth_belongs_to_what_was_left_out(panel):
    panel.set(inspected=3)
    panel.verify()
    assert "retrained" not in panel.set(inspected=4)
    assert "retrained" in panel.set(inspected=3)
    assert "retrained" not in panel.set(flipped=0.5)
    assert "retrained" in panel.set(flipped=0.25)
    assert "retrained" not in panel.reset() and "retrained" not in panel.set(inspected=3)


def test_other_flips_are_another_problem(panel):
    first = panel.set(flipped=0.25).splitlines()
    more = panel.set(flipped=0.75, inspected=4).splitlines()
    assert "in 12 of 16" in more[0] and first[1] != more[1]
    assert "4 is the most there can be, 3.0 is chance" in more[2]
    assert panel.set(seed=1).splitlines()[0].endswith("(seed 1)")
    assert "20% of the labels" in panel.set(labels=0.2)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"inspected": 16}, "would leave no task; pass at most 15"),
        ({"inspected": 0}, "inspected"),
        ({"method": "Gamma"}, "'raw loss'"),
        ({"flipped": 1.0}, "16 of 16 tasks would be spoiled"),
        ({"flipped": 0.01}, "0 of 16 tasks would be spoiled"),
        ({"flipped": -0.5}, "is no share"),
        ({"flipped": True}, "is no share"),
        ({"labels": 0.9}, "at most 4 can change"),
        ({"seed": -1}, "seed"),
    ],
)
def test_a_mistake_changes_nothing(panel, given, said):
    before = panel.text
    with pytest.raises((ValueError, TypeError), match=said):
        panel.set(**given)
    assert panel.text == before == panel.draw()


def test_it_refuses_what_it_cannot_show(learner, tasks, new_tasks):
    with pytest.raises(TypeError, match="Bilevel"):
        Harmful("learner", tasks, new_tasks)
    with pytest.raises(ValueError, match="two or more"):
        Harmful(learner, tasks, new_tasks[[0]])
    with pytest.raises(ValueError, match="four or more"):
        Harmful(learner, tasks[[0, 1]], new_tasks)


def test_widgets_forward(panel):
    c = panel.controls
    c.slider.value = 6
    assert "6 of 16" in panel.text and len(panel.suspects()) == 6
    c.how.value = "raw loss"
    assert "inspected by raw loss" in c.prediction.value
    c.flipped.value = 50
    assert "in 8 of 16" in panel.text
    c.labels.value = 5
    assert c.labels.value == c.labels.min and "&#9888;" not in c.message.value
    c.labels.value = 80  # more support labels than can be flipped
    assert c.labels.value == c.labels.max and f"{c.labels.max}% of the labels" in panel.text
    c.seed.value = 2
    assert "(seed 2)" in panel.text
    c.retrain.click()
    assert "retrained without them" in c.truth.value and not c.retrain.disabled
    c.reset.click()
    assert c.slider.value == 4 and c.how.value == "task influence" and c.flipped.value == 25 and c.seed.value == 0


@pytest.mark.parametrize("m", [4, 8, 16])
def test_the_sliders_offer_nothing_that_is_refused(learner, tasks, new_tasks, m):
    panel = Harmful(learner, tasks[:m], new_tasks)
    c = panel.controls
    for slider in (c.flipped, c.labels):
        for end in (slider.min, slider.max):
            slider.value = end
            assert slider.value == end and "&#9888;" not in c.message.value
        with pytest.raises(ValueError, match="spoiled|can change|no label"):
            name = "flipped" if slider is c.flipped else "labels"
            panel.set(**{name: (slider.max + 5) / 100})
    one = tasks.support_y[0].argsort()[::3]
    with pytest.raises(ValueError, match="two or more of each class"):
        Harmful(learner, type(tasks)(tasks.support_x[:, one], tasks.support_y[:, one], *tasks.arrays()[2:]), new_tasks)


def test_its_text_stands_for_it_where_widgets_cannot_be_shown(panel):
    bundle = panel._repr_mimebundle_()
    assert bundle["text/plain"].startswith("Harmful panel: 40% of the labels flipped in 4 of 16 training tasks")
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert "alt=" in panel.controls.curve.value and "at most 100% can be found" in panel.controls.curve.value
    assert "&lt;low&gt;" in panel.controls.suspects.value and "<low>" not in panel.controls.suspects.value


def test_a_learner_with_a_shared_body(tasks, new_tasks):
    """With inner="head" nothing in the panel needs the shapes of lam and theta to agree."""
    model = xl.models.mlp([WIDTH, 2, WAYS], "tanh", dtype=torch.float64)
    learner = xl.meta.Bilevel(model, inner="head", strength=1.0, l2=2.0)
    panel = Harmful(learner, tasks[torch.arange(6)], new_tasks[torch.arange(4)])
    assert "retrained without them" in panel.set(inspected=1) + panel.verify()


def test_new_tasks_either_score_or_judge(new_tasks):
    score, judge = split_in_half(new_tasks)
    assert torch.equal(torch.cat([score.query_x, judge.query_x]), new_tasks.query_x) and len(score) == NEW // 2


# The figure --------------------------------------------------------------------------------------------------------


def test_no_ranking_passes_the_ceiling():
    """Of eight spoiled tasks in ten, four inspected hold half, even for a ranking that makes no mistake."""
    spoiled = torch.arange(10) < 8
    perfect = torch.arange(10.0).flip(0)
    ax = detection_curves({"perfect": perfect, "worst": -perfect}, spoiled, inspected=4, title="t")
    assert "at most 50% can be found; found are: perfect 50%, worst 25%" in alt_text(ax.figure)
    ceiling, best = ax.lines[0].get_ydata(), ax.lines[1].get_ydata()
    assert list(ceiling) == pytest.approx([100 * min(1, k / 8) for k in range(11)]) == list(best)


def test_the_figure_refuses():
    spoiled = torch.tensor([True, False])
    with pytest.raises(ValueError, match="expected 1 to"):
        detection_curves({}, spoiled)
    with pytest.raises(ValueError, match="more than the 2 tasks"):
        detection_curves({"a": torch.rand(2)}, spoiled, inspected=3)
    with pytest.raises(ValueError, match="one kind"):
        detection_curves({"a": torch.rand(2)}, spoiled | True)
