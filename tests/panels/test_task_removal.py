"""The task panel, driven as a notebook cell drives it and as a mouse does."""

from __future__ import annotations

import re
import statistics
import time
import warnings

import pytest
import torch

import explainlib as xl
from explainlib.figures import alt_text, eigenvalue_spectrum, pruning_curve, ranked_tasks, task_grid
from explainlib.panels.task_removal.html import CELL
from explainlib.panels.task_removal.panel import TaskRemoval
from explainlib.panels.task_removal.plots import rank_plot, truth_plot

M, TESTS = 12, 5
OPTIONS = {"batches": 15, "batch_size": 6, "lr": 2e-3, "weight_decay": 1e-2, "seed": 4}


@pytest.fixture(scope="module")
def pool():
    """Nine classes of three scripts: a picture of its own with noise for each class; x are its pixels."""
    generator = torch.Generator().manual_seed(0)
    letters = torch.rand(9, 1, 6, 6, generator=generator, dtype=torch.float64)
    drawings = letters[:, None] + 0.3 * torch.rand(9, 10, 1, 6, 6, generator=generator, dtype=torch.float64)
    names = [f"{script}/{letter}" for script in ("Elvish", "<Rune>", "Knots") for letter in "abc"]
    y = torch.arange(9).repeat_interleave(10)
    whole = xl.datasets.ClassPool(drawings.flatten(0, 1) / 1.3, y, names, [name.split("/")[0] for name in names])
    return whole.map(lambda x: x.flatten(1))


@pytest.fixture(scope="module")
def tasks(pool):
    return xl.datasets.sample_tasks(pool, M, ways=3, shots=2, queries=2, seed=0)


@pytest.fixture(scope="module")
def tests(pool, tasks):
    """Three with the support of training tasks 0 to 2, two of their own."""
    new = xl.datasets.sample_tasks(pool, TESTS - 3, ways=3, shots=2, queries=2, seed=1)
    return xl.datasets.Tasks.concat([xl.datasets.fresh_queries(pool, tasks[:3], seed=2), new])


@pytest.fixture(scope="module")
def influence(tasks):
    learner = xl.meta.Maml(xl.models.fc_bn(36, 3, hidden=4, dtype=torch.float64), inner_lr=0.1)
    w = xl.meta.train(learner, tasks, batches=40, batch_size=6, weight_decay=1e-2).w
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", xl.NotAtMinimumWarning)
        return xl.influence.TaskInfluence(learner, w, tasks, l2=1e-2, keep=32)


@pytest.fixture
def panel(influence, tasks, tests, pool):
    return TaskRemoval(influence, tasks, tests, pool=pool, start=influence.w, **OPTIONS)


def said(text, word):
    """Return (this test's, the mean) change that a line of the panel's text gives."""
    line = next(line for line in text.splitlines() if line.startswith(word))
    return [float(number) for number in re.findall(r"[+-]\d+\.\d+", line)]


@pytest.mark.parametrize("keep", [8, 64, "unpruned"])
def test_the_predictions_are_the_librarys(panel, influence, tests, keep):
    text = panel.set(test=4, remove=[1, 5, 7], keep=keep)
    table = influence.pruned(1e-9 if keep == "unpruned" else keep).performance(tests, groups=[[1, 5, 7]])[:, 0]
    expected = -table / M
    assert torch.allclose(panel.predicted(), expected, rtol=1e-9, atol=1e-12)
    assert said(text, "predicted") == pytest.approx([float(expected[4]), float(expected.mean())], abs=6e-5)
    assert f"{float(expected[4]):+.4f}" in panel.controls.prediction.value
    loss = float(influence.learner.losses(influence.w, tests[4]))
    assert f"loss {loss:.3f}" in text and f"<td style='{CELL}'>{loss:.4f}</td>" in panel.controls.prediction.value
    assert f"eigenvalues kept: {keep}" in text and panel.controls.keep.value == str(keep)


def test_the_truth_is_the_librarys(panel, influence, tasks, tests):
    text = panel.set(test=1, remove="harmful", k=4)
    assert "retrained" not in text and panel.controls.truth.value.count("retrained") == 0
    text = panel.verify()
    retrained = xl.meta.leave_tasks_out(influence.learner, tasks, [panel.group()], start=influence.w, **OPTIONS)
    true = retrained.loss_change(tests)[:, 0]
    assert float(true.abs().max()) > 1e-3  # or the numbers below would agree whatever they are
    assert said(text, "retrained") == pytest.approx([float(true[1]), float(true.mean())], abs=6e-5)
    pearson = float(torch.corrcoef(torch.stack([panel.predicted(), true]))[0, 1])
    assert f"correlation {pearson:.2f}" in text and f"correlation {pearson:.2f}" in panel.controls.scatter.value
    assert f"{float(true[1]):+.4f}" in panel.controls.prediction.value
    assert panel.controls.scatter.value.count("<circle") == 3 + 1  # three supports seen in training; one in the legend


def test_the_truth_belongs_to_the_tasks_that_left(panel):
    panel.set(remove="<Rune>", k=3)
    known = said(panel.verify(), "retrained")
    assert "retrained" not in panel.set(k=2) and "?" in panel.controls.prediction.value
    text = panel.set(k=3, keep=8)
    assert said(text, "retrained") == known and "retrained" in panel.controls.truth.value
    assert "retrained" not in panel.reset() and "retrained" not in panel.set(remove="<Rune>", k=3)


def test_from_scratch_is_the_default(influence, tasks, tests, pool):
    panel = TaskRemoval(influence, tasks, tests, pool=pool, **OPTIONS)
    panel.set(remove=[0])
    true = xl.meta.leave_tasks_out(influence.learner, tasks, [[0]], **OPTIONS).loss_change(tests)[:, 0]
    assert said(panel.verify(), "retrained")[0] == pytest.approx(float(true[0]), abs=6e-5)


def test_what_helps_most_leaves_first(panel, influence, tests):
    for keep in (8, 64):
        scores = influence.pruned(keep).performance(tests)[3]
        panel.set(test=3, remove="helpful", k=4, keep=keep)
        assert panel.group() == scores.argsort()[:4].tolist()
        assert f"<b>#{int(scores.argmin())}</b> {float(scores.min()):+.4f}" in panel.controls.helpful.value
        panel.set(remove="harmful")
        assert panel.group() == scores.argsort(descending=True)[:4].tolist()
        assert f"<b>#{int(scores.argmax())}</b> {float(scores.max()):+.4f}" in panel.controls.harmful.value


@pytest.mark.parametrize("script", ["Elvish", "<Rune>", "Knots"])
def test_a_script_is_every_task_that_shows_it(panel, tasks, script):
    panel.set(remove=script)
    counts = [sum(name.startswith(f"{script}/") for name in names) for names in tasks.classes]
    showing = [i for i, count in enumerate(counts) if count]
    assert 0 < len(showing) < M and sorted(panel.group()) == showing
    assert [counts[i] for i in panel.group()] == sorted((counts[i] for i in showing), reverse=True)
    assert panel.controls.slider.max == len(showing) == panel.controls.slider.value
    assert f"{len(showing)} of the {len(showing)} training tasks that show {script}" in panel.text
    panel.set(remove="helpful")
    assert panel.controls.slider.max == M - 1


def test_scripts_come_from_the_names_where_no_pool_knows_them(influence, tasks, tests, pool):
    without, with_pool = (TaskRemoval(influence, tasks, tests, pool=p, **OPTIONS) for p in (None, pool))
    assert without.scripts == with_pool.scripts and list(without.scripts) == ["<Rune>", "Elvish", "Knots"]
    assert "<img" not in without.controls.example.value and "<img" in with_pool.controls.example.value


def test_the_rank_of_the_tests_own_task(panel, influence, tests):
    for word, keep in (("8", 8), ("32", 32), ("unpruned", 1e-9)):
        rank = int(xl.metrics.self_rank(influence.pruned(keep).performance(tests[2]), torch.tensor([2])))
        assert f"training task 2, ranked {rank} of {M}" in panel.set(test=2, keep=keep)
        assert re.search(rf"#2 \(its own\): [^;]*\b{rank} at {word}\b", panel.controls.ranks.value)
    assert "its support" not in panel.set(test=3) and "its own" not in panel.controls.ranks.value


def test_the_widgets_forward(panel):
    before = panel.controls.prediction.value, panel.controls.ranks.value
    panel.controls.slider.value = 7
    assert len(panel.group()) == 7 and panel.controls.prediction.value != before[0]
    panel.controls.keep.value = "128"
    assert "eigenvalues kept: 128" in panel.text and panel.controls.ranks.value != before[1]
    panel.controls.how.value = "script"
    panel.controls.class_name.value = "Knots"
    assert "that show Knots" in panel.text and panel.controls.class_name.layout.display is None
    panel.controls.test.value = 3
    assert panel.text.startswith("test task 3 ")
    panel.controls.how.value = "hand"
    assert "picked by hand" in panel.text and panel.controls.class_name.layout.display == "none"
    panel.controls.hand.value = "2, 4-6"
    assert panel.group() == [2, 4, 5, 6]
    panel.controls.retrain.click()
    assert "retrained" in panel.controls.truth.value and "retrained" in panel.text
    panel.controls.reset.click()
    assert panel.text.startswith("test task 0 ") and "retrained" not in panel.text


def test_pictures_carry_words(panel, tests):
    for name in tests.classes[0]:
        assert f'alt="support drawings of {name.replace("<", "&lt;").replace(">", "&gt;")}"' in (
            panel.controls.example.value
        )
    assert panel.controls.helpful.value.count('alt="training task') == 3
    assert "role='img' aria-label='Rank of training tasks" in panel.controls.ranks.value
    assert "nothing was retrained" in panel.controls.scatter.value
    panel.set(remove="<Rune>")
    for shown in (panel.controls.example, panel.controls.helpful, panel.controls.harmful, panel.controls.message):
        assert "<Rune>" not in shown.value


def test_classes_shared_with_the_test_are_bold(panel, tasks, tests):
    panel.set(test=0, keep=64)
    shown = panel.controls.helpful.value
    first = int(re.search(r"<b>#(\d+)</b>", shown).group(1))
    shared = set(tasks.classes[first]) & set(tests.classes[0])
    assert shared and all(f"<b>{name.replace('<', '&lt;').replace('>', '&gt;')}</b>" in shown for name in shared)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"test": TESTS}, "outside the 5 test tasks"),
        ({"remove": "Klingon"}, "'Elvish'"),
        ({"remove": [M]}, "12"),
        ({"remove": [1, 1]}, "1"),
        ({"remove": list(range(M))}, "leave at least one"),
        ({"k": M}, "at most|more than the 11"),
        ({"k": 0}, "k"),
        ({"keep": 7}, "keep"),
    ],
)
def test_a_mistake_changes_nothing(panel, wrong, says):
    panel.set(remove="harmful", k=3)
    before = panel.text
    with pytest.raises((ValueError, TypeError), match=says):
        panel.set(**wrong)
    assert panel.text == before


@pytest.mark.parametrize(("typed", "says"), [("7, x", "no position"), ("99", "12"), ("0-11", "leave at least one")])
def test_a_mistake_is_a_message(panel, typed, says):
    panel.set(remove=[5, 6])
    before = panel.text
    panel.controls.hand.value = typed
    assert says in panel.controls.message.value and "&#9888;" in panel.controls.message.value
    assert panel.text == before and panel.controls.hand.value == "5, 6"


def test_a_failed_retraining_is_a_message_and_frees_the_button(panel, monkeypatch):
    def fails(*_, **__):
        raise ValueError("the inner step diverged")

    monkeypatch.setattr("explainlib.panels.task_removal.panel.leave_tasks_out", fails)
    panel.controls.retrain.click()
    assert "diverged" in panel.controls.message.value and not panel.controls.retrain.disabled


def test_other_tasks_and_other_things_are_refused(influence, tasks, tests, pool):
    with pytest.raises(ValueError, match="12"):
        TaskRemoval(influence, tasks[:5], tests, **OPTIONS)
    with pytest.raises(ValueError, match="pool"):
        TaskRemoval(influence, tasks, tests, pool=pool.where(lambda name, _: name[-1] != "a"), **OPTIONS)
    with pytest.raises(TypeError):
        TaskRemoval(torch.zeros(3), tasks, tests, **OPTIONS)


def test_tasks_without_names_have_no_scripts(influence, tasks, tests):
    bare = [xl.datasets.Tasks(*part.arrays()) for part in (tasks, tests)]
    panel = TaskRemoval(influence, *bare, **OPTIONS)
    assert panel.scripts == {} and "script" not in dict(panel.controls.how.options).values()
    assert "class 0" in panel.text
    with pytest.raises(ValueError, match="have no names"):
        panel.set(remove="Elvish")


def test_its_text_stands_for_it_where_widgets_cannot_be_shown(panel):
    bundle = panel._repr_mimebundle_()
    assert bundle["text/plain"].startswith("TaskRemoval panel: test task 0")
    assert "application/vnd.jupyter.widget-view+json" in bundle


def test_redrawing_recomputes_nothing(panel, influence, monkeypatch):
    """A redraw may not ask for gradients or curvature; its time is printed."""

    def fails(*_, **__):
        raise AssertionError("a redraw computes derivatives")

    for name in ("gradients", "losses", "outputs"):
        monkeypatch.setattr(influence.learner, name, fails)
    monkeypatch.setattr(influence.spectrum.__class__, "solve", fails)
    times = []
    for k in range(1, M):
        started = time.perf_counter()
        panel.set(k=k, keep=list(panel.keeps)[k % len(panel.keeps)], test=k % TESTS)
        times.append(time.perf_counter() - started)
    print(f"redraw: median {1e3 * statistics.median(times):.1f} ms, slowest {1e3 * max(times):.1f} ms")


def test_plots_stay_inside_their_frames():
    ranks = {"#1 <own>": [0, 30, 2], "#2": [5, 0, 11]}
    picture = rank_plot(ranks, ["8", "16", "unpruned"], "16", 40)
    assert "0 at 8, 30 at 16, 2 at unpruned" in picture and "<own>" not in picture
    scatter = truth_plot([0.1, -3.0, 0.0], [0.2, 0.01, -0.1], [True, False, True], 1, "3 test tasks: so-so")
    assert "predicted -3.0000, retrained +0.0100" in scatter and scatter.count("xl-cross") == 1
    for svg in (picture, scatter, truth_plot([0.0, 0.0, 0.0], None, [True] * 3, 0, "")):
        places = [float(y) for y in re.findall(r" cy='(-?[\d.]+)'", svg)]
        assert all(0 <= y <= 312 for y in places) and "nan" not in svg


# The pictures of tasks ---------------------------------------------------------------------------------------------


def test_a_task_is_drawn_by_class(tasks, pool):
    picture = task_grid(tasks, 3, pool=pool, title="one task")
    assert len(picture.axes) == 3 * (2 + 2)
    assert all(name in alt_text(picture) for name in tasks.classes[3])
    shown = torch.tensor(picture.axes[0].images[0].get_array())
    assert torch.equal(shown, pool.raw[int(tasks.support_index[3, 0]), 0])


def test_ranked_tasks_name_helpful_and_harmful(tasks, pool):
    scores = torch.linspace(-1, 1, M).roll(4)
    picture = ranked_tasks(scores, tasks, pool=pool, k=2, marked=tasks.classes[4][:1])
    words = [text.get_text() for text in picture.texts]
    assert [w for w in words if w.startswith("task")] == [
        "task 4\n-1.000 (helps)", "task 5\n-0.818 (helps)", "task 3\n+1.000 (harms)", "task 2\n+0.818 (harms)",
    ]  # fmt: skip
    assert sum(text.get_weight() == "bold" for text in picture.texts) >= 1
    assert "most helpful task 4 (-1.000)" in alt_text(picture) and "most harmful task 3 (+1.000)" in alt_text(picture)


def test_what_cannot_be_drawn_is_said(tasks, pool):
    with pytest.raises(ValueError, match="pool="):
        task_grid(tasks, 0)
    with pytest.raises(ValueError, match="outside the 12 tasks"):
        task_grid(tasks, M, pool=pool)
    with pytest.raises(ValueError):
        ranked_tasks(torch.zeros(3), tasks, pool=pool)
    with pytest.raises(ValueError, match="nothing to draw"):
        eigenvalue_spectrum(torch.zeros(4))
    with pytest.raises(ValueError, match="one for each"):
        pruning_curve({"a": [1.0]}, [8, 16])


def test_the_spectrum_tells_signs_apart():
    ax = eigenvalue_spectrum(torch.tensor([-2.0, 5.0, 0.0, 1.0, -0.5, 1e-20]), keeps=[2])
    marks = {c.get_label(): c.get_offsets().tolist() for c in ax.collections}
    assert marks == {"positive: 2": [[1, 5], [2, 1]], "negative: 2": [[5, 0.5], [6, 2]]}
    assert "2 positive, 2 negative, 2 zero within rounding" in alt_text(ax.figure)


def test_the_pruning_curve_shows_series_and_controls():
    ax = pruning_curve({"exact": [3.0, 12.0]}, [8, "unpruned"], levels={"identity": 7.0}, most=12)
    assert [list(line.get_ydata()) for line in ax.lines] == [[3.0, 12.0], [7.0, 7.0]]
    assert "exact: 3 at 8, 12 at unpruned" in alt_text(ax.figure) and "identity: 7 throughout" in alt_text(ax.figure)
