"""The representer panel, driven as a notebook cell drives it and as a mouse does."""

from __future__ import annotations

import re
import warnings

import pytest
import torch

import explainlib as xl
from explainlib.figures import alt_text
from explainlib.figures.representers import deletion_curves, product_bars
from explainlib.panels.representer.html import axiom_lights
from explainlib.panels.representer.panel import Representer
from explainlib.panels.representer.plots import deletion_plot

N, TESTS = 40, 6
KERNELS = ("last_layer", "ntk_init", "ntk_middle", "ntk_final", "influence")
HOW = {"epochs": 30, "lr": 0.2, "optimizer": "sgd", "weight_decay": 1e-3}


def pictures(n, seed):
    """Return pictures of two classes, 8 x 8, of which a tenth is called by the wrong name."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 2
    x = torch.rand(n, 64, generator=generator, dtype=torch.float64)
    x[y == 1, :32] += 0.4
    return xl.datasets.Examples(x / x.max(), y, ("<calm>", "loud"))


@pytest.fixture(scope="module")
def train():
    return xl.datasets.flip_labels(pictures(N, 0), 0.1, seed=0)[0]


@pytest.fixture(scope="module")
def tests():
    return pictures(TESTS, 1)


@pytest.fixture(scope="module")
def run(train):
    return xl.training.fit(
        xl.models.mlp([64, 5, 2], "tanh", dtype=torch.float64), train, record=True, checkpoints=3, **HOW
    )


@pytest.fixture
def panel(run, train, tests):
    return Representer(run, train, tests, weight_decay=1e-3)


def expected_scores(run, train, tests, kernel, importance, c):
    """Return phi [t, n] by the library's own functions."""
    risk = xl.Risk(run.model, train, l2=1e-3)
    place = {"ntk_init": 0, "ntk_middle": 1}.get(kernel, 2)
    model = risk.at(run.checkpoints[place]).model
    options = {"kind": "ntk" if kernel.startswith("ntk") else kernel, "output": c}
    if kernel == "influence":
        options |= {"risk": risk, "damping": 1e-2}
    near, gram = (xl.representers.kernel(model, x, train.x, **options) for x in (tests.x, train.x))
    if importance == "surrogate":
        alpha = xl.representers.surrogate_importance(gram, risk.outputs(), loss="squared_error", l2=1e-3)
    elif importance == "target":
        alpha = xl.representers.target_importance(risk)
    else:
        alpha = xl.representers.tracking_importance(run)
    return xl.representers.representer_scores(alpha, near, output=c).detach()


@pytest.mark.parametrize("importance", ["tracking", "target", "surrogate"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_scores_and_predictions_are_the_librarys(panel, run, train, tests, kernel, importance):
    panel.set(test=3, kernel=kernel, importance=importance, delete=7)
    scores = expected_scores(run, train, tests, kernel, importance, int(tests.y[3]))[3]
    assert panel.deleted() == scores.argsort(stable=True)[:7].tolist()
    share = N if (kernel, importance) == ("influence", "target") else 1
    change = -float(scores.sort().values[:7].sum()) / share
    assert panel.predicted() == pytest.approx(change, rel=1e-7)
    assert f"predicted change {change:+.3g}" in panel.text
    own = importance == "target" or (kernel, importance) == ("influence", "tracking")
    assert ("own unit" in panel.text) == own
    panel.set(sign="positive")
    assert panel.deleted() == scores.argsort(descending=True, stable=True)[:7].tolist()
    assert "= score" in panel.controls.bars.value and f"{float(scores.max()):+.3g}" in panel.controls.bars.value


@pytest.fixture(scope="module")
def numbers():
    """Return a trajectory of a network with one output, its examples, and tests; the loss is the squared error."""
    x, seen = pictures(N, 0).x, pictures(TESTS, 1).x
    train, tests = (xl.datasets.Examples(part, part[:, :1] * 2) for part in (x, seen))
    model = xl.models.mlp([64, 3, 1], "tanh", dtype=torch.float64)
    how = {"epochs": 20, "lr": 0.01, "optimizer": "sgd", "loss": "squared_error"}
    return xl.training.fit(model, train, record=True, checkpoints=3, **how), train, tests


def test_influence_predicts_what_the_influence_function_does(numbers):
    """Target times influence kernel over n is the first-order effect of leaving (eq. 16), by another way round."""
    run, train, tests = numbers
    panel = Representer(run, train, tests, loss="squared_error")
    text = panel.set(test=1, kernel="influence", importance="target", delete=1)
    assert "own unit" not in text
    (i,) = panel.deleted()
    risk = xl.Risk(run.model, train, loss="squared_error")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", xl.NotAtMinimumWarning)
        step = xl.influence.parameter_influence(risk, [i], curvature="gauss_newton", damping=1e-2)[0]
    plus, minus = (risk.at(risk.theta + sign * 1e-4 * step).outputs(tests)[1, 0] for sign in (1, -1))
    assert panel.predicted() == pytest.approx(-float(plus - minus) / 2e-4 / N, rel=1e-5)


def test_the_truth_is_a_training_without_them(panel, run, train, tests):
    text = panel.set(test=2, delete=8)
    assert "retrained" not in text and "xl-cross" not in panel.controls.curve.value
    gone = panel.deleted()
    text = panel.verify()
    left = [i for i in range(N) if i not in gone]
    start = xl.Risk(run.model, train).at(run.checkpoints[0]).model
    after = xl.training.fit(start, train[left], **HOW).model
    c = int(tests.y[2])
    with torch.no_grad():
        change = float(after(tests.x)[2, c] - run.model(tests.x)[2, c])
    assert abs(change) > 1e-3 and f"retrained change {change:+.3f}" in text
    assert f"{change:+.3f}" in panel.controls.truth.value
    assert panel.controls.curve.value.count("class='xl-cross'") == 4 + 1  # at 2, 4, 6, 8, and in the legend


def test_the_truth_belongs_to_what_was_deleted(panel):
    panel.set(delete=8)
    panel.verify()
    assert "retrained" in panel.set(delete=4) and "retrained" not in panel.set(delete=5)
    assert "retrained" not in panel.set(delete=8, sign="positive")
    assert "retrained" in panel.set(sign="negative")
    assert "retrained" not in panel.reset() and "retrained" not in panel.set(delete=8)


def test_batches_are_trained_in_batches_again(train, tests):
    model = xl.models.mlp([64, 5, 2], "tanh", dtype=torch.float64)
    run = xl.training.fit(model, train, batch_size=8, seed=3, record=True, checkpoints=3, **HOW)
    panel = Representer(run, train, tests, weight_decay=1e-3, seed=3)
    assert "retrained change" in panel.verify()
    other = Representer(run, train, tests, weight_decay=1e-3)
    with pytest.raises(ValueError, match="seed that fit was given"):
        other.verify()


def test_another_training_is_a_message_and_frees_the_button(run, train, tests):
    panel = Representer(run, train, tests, weight_decay=0.5)
    panel.controls.retrain.click()
    assert "weight_decay" in panel.controls.message.value and "&#9888;" in panel.controls.message.value
    assert not panel.controls.retrain.disabled and panel.controls.progress.layout.visibility == "hidden"
    assert "retrained" not in panel.text


def test_each_axiom_has_its_light(panel, run, train, tests):
    panel.set(test=1, kernel="ntk_final", importance="tracking")
    assert "efficiency of the change</b>: broken, off by" in panel.controls.lights.value
    assert "symmetric cycle</b>: holds" in panel.controls.lights.value
    scores = expected_scores(run, train, tests, "ntk_final", "tracking", 1)
    with torch.no_grad():
        outputs = run.model(tests.x)[:, 1]
    off = float((scores.sum(1) - outputs).norm() / outputs.norm())
    assert f"efficiency</b>: broken, off by {off:.3g}" in panel.controls.lights.value
    assert f"efficiency ({off:.2g})" in panel.text
    negative = float((xl.representers.tracking_importance(run)[:, 1] < 0).double().mean())
    assert 0 < negative < 1 and f"irreducibility</b>: broken, off by {negative:.3g}" in panel.controls.lights.value
    panel.set(importance="surrogate")
    assert "efficiency of the change" not in panel.controls.lights.value


def test_a_light_is_a_sign_and_a_word(panel):
    table = panel.known.axioms("ntk_final", "tracking", 0).head(3).assign(violation=[1e-12, 0.01, 2.0])
    shown = axiom_lights(table)
    for sign, word in (("&#10004;", "holds"), ("&#8776;", "nearly, off by 0.01"), ("&#10006;", "broken, off by 2")):
        assert re.search(rf"{sign}</span><b>[^<]*</b>: {word}<", shown)


def test_the_widgets_forward(panel):
    before = panel.controls.curve.value, panel.controls.bars.value
    panel.controls.slider.value = 9
    assert len(panel.deleted()) == 9 and panel.controls.curve.value != before[0]
    panel.controls.kernel.value = "last_layer"
    assert "last layer" in panel.text and panel.controls.bars.value != before[1]
    panel.controls.importance.value = "target"
    assert "target derivative" in panel.text
    panel.controls.how.value = "positive"
    assert "the 9 highest scores" in panel.text
    panel.controls.test.value = 4
    assert panel.text.startswith("test 4 ")
    panel.controls.retrain.click()
    assert "retrained" in panel.controls.truth.value and "retrained" in panel.text
    panel.controls.reset.click()
    assert panel.text.startswith("test 0 ") and "tracking x NTK at the end" in panel.text
    assert panel.controls.kernel.value == "ntk_final" and panel.controls.how.value == "negative"


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"test": TESTS}, "outside the 6 test examples"),
        ({"test": -1}, "test"),
        ({"kernel": "rbf"}, "ntk_final"),
        ({"importance": "shapley"}, "tracking"),
        ({"sign": "both"}, "negative"),
        ({"delete": N // 4 + 1}, "more than the 10"),
        ({"delete": 0}, "delete"),
        ({"delete": 2.5}, "delete"),
        ({"kernel": "last_layer", "delete": 11}, "more than the 10"),
    ],
)
def test_a_mistake_changes_nothing(panel, wrong, says):
    panel.set(test=2, kernel="ntk_init", importance="target", delete=3)
    before = panel.text
    with pytest.raises((ValueError, TypeError), match=says):
        panel.set(**wrong)
    assert panel.text == before == panel.draw()


def test_a_kernel_the_network_lacks_is_a_message(train, tests):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Unflatten(1, (1, 64)), torch.nn.Conv1d(1, 2, 64), torch.nn.Flatten()).double()
    panel = Representer(
        xl.training.fit(model, train, record=True, checkpoints=3, **HOW), train, tests, weight_decay=1e-3
    )
    before = panel.text
    panel.controls.kernel.value = "last_layer"
    assert "nn.Linear" in panel.controls.message.value and "&#9888;" in panel.controls.message.value
    assert panel.text == before and panel.controls.kernel.value == "ntk_final"


def test_what_it_cannot_work_with_is_refused(run, train, tests):
    model = xl.models.mlp([64, 5, 2], dtype=torch.float64)
    with pytest.raises(TypeError, match="Trajectory"):
        Representer(model, train, tests)
    with pytest.raises(ValueError, match="record=True"):
        Representer(xl.training.fit(model, train, checkpoints=3, **HOW), train, tests)
    with pytest.raises(ValueError, match="2 checkpoints"):
        Representer(xl.training.fit(model, train, checkpoints=2, record=True, **HOW), train, tests)
    with pytest.raises(ValueError, match="39 examples"):
        Representer(run, train[list(range(39))], tests)
    for option in ("damping", "surrogate_l2"):
        with pytest.raises(ValueError, match=option):
            Representer(run, train, tests, **{option: 0.0})


def test_kernels_are_worked_out_once(panel, monkeypatch):
    for kernel in KERNELS:
        panel.set(kernel=kernel, test=1)
        panel.set(test=0)

    def fails(*_, **__):
        raise AssertionError("a kernel is worked out again")

    monkeypatch.setattr("explainlib.panels.representer.scores.library_kernel", fails)
    for kernel in KERNELS:
        for test in range(TESTS):
            panel.set(kernel=kernel, importance="tracking", test=test, delete=1 + test)
    with pytest.raises(AssertionError, match="again"):
        panel.known._kept.clear()
        panel.draw()


def test_pictures_carry_words_and_names_are_escaped(panel):
    assert panel.controls.bars.value.count("<img alt=") == 10 and 'alt="#' in panel.controls.bars.value
    assert "role='img' aria-label='Change of the output" in panel.controls.curve.value
    assert "Retrained: nothing yet" in panel.controls.curve.value
    for name in ("example", "bars", "prediction", "curve", "lights"):
        assert "<calm>" not in getattr(panel.controls, name).value


@pytest.fixture(scope="module")
def texts():
    """Return tokens of short texts in two classes, with their strings."""
    words = "please thank nice you the a not are rotten awful".split()
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(24) % 2
    x = torch.randint(4, 8, (24, 6), generator=generator)
    x[:, 0] = torch.where(y == 1, 9, 2)
    raw = [" ".join(words[t] for t in row) for row in x.tolist()]
    return xl.datasets.Examples(x + 1, y, ("not toxic", "toxic"), raw)


@pytest.mark.parametrize(("redact", "seen"), [(None, False), (False, True), (True, False)])
def test_texts_are_shown_redacted(texts, redact, seen):
    model = xl.models.text_cnn(12, 2, dim=4, filters=3, dtype=torch.float64)
    run = xl.training.fit(model, texts, epochs=5, lr=0.2, optimizer="sgd", record=True, checkpoints=3)
    panel = Representer(run, texts, texts[:4], redact=redact)
    assert "retrained change" in panel.verify()
    shown = panel.controls.bars.value + panel.controls.example.value
    assert ("awful" in shown) == seen and ("***" in shown) != seen


def test_its_text_stands_for_it_where_widgets_cannot_be_shown(panel):
    bundle = panel._repr_mimebundle_()
    assert bundle["text/plain"].startswith("Representer panel: test 0 ")
    assert "application/vnd.jupyter.widget-view+json" in bundle


def test_numbers_are_explained_too(numbers):
    """A network with one output: that is explained, whatever it is called."""
    run, train, tests = numbers
    panel = Representer(run, train, tests, loss="squared_error")
    assert "(target " in panel.text and "retrained change" in panel.verify()


# The plots ---------------------------------------------------------------------------------------------------------


def test_two_scales_share_their_zero():
    svg = deletion_plot([0.0, 10.0, 15.0], {1: 1.0, 2: -0.5}, 2, sign="lowest", own_unit=False)
    assert "right scale" in svg and "predicted, left scale" in svg and "Retrained: +1 at 1, -0.5 at 2" in svg
    zeros = re.findall(r"y='([\d.]+)'[^>]*>0<", svg)
    assert len(set(zeros)) == 2  # the two words "0" of the scales stand at one height; the other is the number deleted
    near = deletion_plot([0.0, 1.0, 1.5], {1: 1.0, 2: 0.9}, 1, sign="lowest", own_unit=False)
    assert "scale" not in near
    for picture in (svg, near, deletion_plot([0.0, 0.0], {1: 0.0}, 1, sign="highest", own_unit=True)):
        places = [float(y) for y in re.findall(r" cy='(-?[\d.]+)'", picture)]
        assert places and all(0 <= y <= 330 for y in places) and "nan" not in picture


def test_curves_hold_means_and_errors():
    curves = {"good": torch.tensor([[0.0, 1.0], [0.0, 3.0]]), "bad": torch.tensor([[0.0, -1.0], [0.0, 1.0]])}
    ax = deletion_curves(curves, [0, 5], title="two")
    assert ax.lines[0].get_ydata().tolist() == [0.0, 2.0] and "good +2.00, bad +0.00" in alt_text(ax.figure)
    with pytest.raises(ValueError, match="short"):
        deletion_curves({"short": torch.zeros(1, 2)}, [0, 5])
    with pytest.raises(ValueError, match="expected 1 to"):
        deletion_curves({}, [0])


def test_products_stand_beside_their_factors():
    alpha, near = torch.tensor([2.0, -1.0, 0.5]), torch.tensor([3.0, 4.0, 1.0])
    picture = product_bars(alpha, near, [1, 0], labels=["no", "yes"])
    assert "no: -1 x 4 = -4" in alt_text(picture) and "yes: +2 x 3 = +6" in alt_text(picture)
    widths = sorted(float(bar.get_width()) for bar in picture.axes[2].patches)
    assert widths == [-4.0, 6.0]
    with pytest.raises(ValueError, match="one row"):
        product_bars(alpha, near[:2], [0])
    with pytest.raises(ValueError, match="1 entries for 2"):
        product_bars(alpha, near, [0, 1], labels=["x"])
