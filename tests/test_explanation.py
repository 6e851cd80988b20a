"""An explanation: its order, its table, and what a person reads."""

import base64
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

import explainlib as xl
from explainlib.datasets import Examples
from explainlib.explanation import Explanation
from explainlib.figures import alt_text
from tests.problems import classes, logistic_risk


def samples(n, *, classes=("cat", "<dog>"), shape=(64,), raw=None):
    x = torch.rand(n, *shape, generator=torch.Generator().manual_seed(n))
    return Examples(x=x, y=torch.arange(n) % 2, classes=classes, raw=raw)


VALUES = torch.tensor([[0.5, -2.0, 1.0, -1.0, 0.0], [3.0, 3.0, -3.0, 0.0, 1.0]])


def explanation(values=VALUES, **options):
    given = {"quantity": "loss influence", "unit": "test loss per unit of weight", **options}
    return Explanation(values, samples(values.shape[1]), samples(values.shape[0]), **given)


def test_most_helpful_come_first():
    assert explanation().top(3).tolist() == [[1, 3, 4], [2, 3, 4]]
    assert explanation().bottom(2)[0].tolist() == [2, 0]
    assert explanation(helpful="positive").top(2)[0].tolist() == [2, 0]
    assert explanation(helpful="positive").bottom(3)[0].tolist() == [1, 3, 4]


def test_top_and_bottom_are_one_order_reversed():
    result = explanation()
    assert torch.equal(result.top(5).flip(1), result.bottom(5))


def test_frame_is_the_table_in_long_form():
    frame = explanation().frame()
    assert list(frame.columns) == ["test", "train", "value", "rank", "test class", "train class"]
    np.testing.assert_array_equal(frame.pivot(index="test", columns="train", values="value"), VALUES.numpy())
    best = frame[frame["rank"] == 0].set_index("test")["train"]
    assert best.to_dict() == {0: 1, 1: 2}
    assert sorted(frame[frame["test"] == 1]["rank"]) == [0, 1, 2, 3, 4]
    assert frame["train class"].tolist()[:3] == ["cat", "<dog>", "cat"]
    assert frame["test class"].tolist()[4:6] == ["cat", "<dog>"]


def test_one_line_states_quantity_unit_and_sign():
    assert repr(explanation()) == (
        "Explanation: loss influence of 5 training examples on 2 test examples, in test loss per unit of weight; "
        "negative helps"
    )
    assert repr(explanation(status="max_steps")).endswith("\nstatus: max_steps")


def test_plot_shows_the_ranked_examples():
    result = explanation()
    picture = result.plot(test=0, k=2)
    images = [ax.images[0].get_array() for ax in picture.axes if ax.images]
    expected = [result.test.x[0], *result.train.x[[1, 3]], *result.train.x[[2, 0]]]
    assert len(images) == 5
    for image, x in zip(images, expected, strict=True):
        np.testing.assert_allclose(image, x.reshape(8, 8))
    assert alt_text(picture) == (
        "loss influence on test example 0 (cat), in test loss per unit of weight. "
        "most helpful: #1 (<dog>, -2), #3 (<dog>, -1); most harmful: #2 (cat, +1), #0 (cat, +0.5)."
    )


def test_html_escapes_and_shows_ink_on_white():
    page = explanation(status="<script>")._repr_html_()
    assert "<script>" not in page and "<dog>" not in page
    assert "&lt;script&gt;" in page and 'alt="#1: &lt;dog&gt;"' in page
    first = page.split("base64,")[1].split('"')[0]
    pixels = np.asarray(Image.open(BytesIO(base64.b64decode(first))))
    expected = (255 * (1 - samples(2).x[0])).round().reshape(8, 8)
    np.testing.assert_array_equal(pixels, expected.numpy())


def test_html_of_text_and_features():
    train = Examples(torch.zeros(3, 5, dtype=torch.int64), torch.arange(3), raw=["a & b", "second", "third"])
    values = torch.tensor([[1.0, -1.0, 0.0]])
    page = Explanation(values, train, samples(1, shape=(5,)), quantity="q", unit="u")._repr_html_()
    assert "a &amp; b" in page and "<img" not in page


def test_long_explanations_say_what_is_left_out():
    page = explanation(torch.randn(9, 6, generator=torch.Generator().manual_seed(0)))._repr_html_()
    assert page.count("<tr>") == 4
    assert "and 6 more test examples" in page


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: Explanation(VALUES.T, samples(5), samples(2), quantity="q", unit="u"), r"needs \.T"),
        (lambda: explanation(VALUES / 0), "NaN or infinite"),
        (lambda: explanation(helpful="up"), "'positive'"),
        (lambda: explanation().top(0), "k=0"),
        (lambda: explanation().bottom(6), "5 training examples"),
        (lambda: explanation().plot(test=2), "2 test examples"),
        (lambda: explanation().plot(k=6), "k=6"),
    ],
)
def test_bad_input(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()


def raw_difference(outputs, y):
    return outputs[:, 0] - outputs[:, 1]


@pytest.mark.parametrize(
    ("options", "quantity", "helpful"),
    [
        ({}, "loss influence", "negative"),
        ({"measure": "margin"}, "influence on the label's log-odds", "positive"),
        ({"measure": "output"}, "influence on the label's output", "positive"),
        ({"measure": "output", "output": 1}, "influence on output 1", "positive"),
        ({"measure": raw_difference}, "influence on raw_difference", "positive"),
    ],
)
def test_explain_explains_any_measure_and_says_which(options, quantity, helpful):
    risk, data = logistic_risk(), classes(3, seed=1)
    made = xl.explain(risk, data, **options)
    torch.testing.assert_close(made.values, xl.influence.loss_influence(risk, data, **options))
    assert (made.quantity, made.helpful) == (quantity, helpful)
    assert ("test loss" in made.unit) == (not options)


def test_a_wrong_measure_is_refused_by_explain():
    risk, data = logistic_risk(), classes(3, seed=1)
    with pytest.raises(ValueError, match="measure"):
        xl.explain(risk, data, measure="logit")
    with pytest.raises(ValueError, match="output=1 belongs to measure='output'"):
        xl.explain(risk, data, output=1)
