"""Figures: what they draw is the data, what they say is what they draw, and nothing global is left behind."""

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import pyplot
from scipy import stats

from explainlib import figures
from explainlib.datasets import Examples

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def digits():
    x = torch.rand(12, 64, generator=torch.Generator().manual_seed(0))
    return Examples(x=x, y=torch.arange(12) % 10, classes=tuple(f"digit {c}" for c in range(10)), raw=None)


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 30, generator=generator)
    return x, 1.3 * x + 0.1 * torch.randn(4, 30, generator=generator)


def test_scatter_holds_the_points_and_the_lines(pair):
    x, y = pair
    ax = figures.predicted_versus_true(x, y)
    points = ax.collections[0].get_offsets()
    np.testing.assert_allclose(points, torch.stack([x.flatten(), y.flatten()], 1).numpy(), rtol=1e-6)
    fitted, identity = (np.asarray(line.get_xydata()) for line in ax.lines)
    expected = stats.linregress(x.flatten().numpy(), y.flatten().numpy())
    np.testing.assert_allclose(fitted[:, 1], expected.intercept + expected.slope * fitted[:, 0], rtol=1e-5)
    np.testing.assert_array_equal(identity[:, 0], identity[:, 1])
    assert ax.get_aspect() == 1.0
    assert f"slope {expected.slope:.2f}" in figures.alt_text(ax.figure)


def test_methods_differ_in_marker_and_colour(pair):
    x, y = pair
    ax = figures.predicted_versus_true({"first order": x, "Newton": y, "third": x + y}, y)
    assert len({scatter.get_paths()[0].vertices.tobytes() for scatter in ax.collections}) == 3
    assert len({scatter.get_facecolor().tobytes() for scatter in ax.collections}) == 3
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels[0].startswith("first order: Pearson") and labels[-1] == "perfect prediction"


def test_squeezed_predictions_get_their_own_scale(pair):
    x, y = pair
    ax = figures.predicted_versus_true(0.01 * x, y)
    assert ax.get_aspect() == "auto"
    assert ax.get_xlim()[1] < 0.1


def test_callers_axes_are_used_and_constant_predictions_still_draw(pair):
    x, y = pair
    own = figures.Picture().add_subplot()
    assert figures.predicted_versus_true(torch.zeros_like(x), y, ax=own, title="constant") is own
    assert "nan" in figures.alt_text(own.figure)
    assert figures.png(own.figure).startswith(PNG)


def test_nothing_global_is_left(pair, digits):
    settings, managed = dict(matplotlib.rcParams), pyplot.get_fignums()
    figures.png(figures.predicted_versus_true(*pair).figure)
    figures.png(figures.thumbnails(digits, [0, 1]))
    figures.png(figures.influence_bars(pair[0][0]).figure)
    assert dict(matplotlib.rcParams) == settings
    assert pyplot.get_fignums() == managed


def test_png_closes_what_pyplot_manages():
    before = pyplot.get_fignums()
    figure = pyplot.figure()
    assert figures.png(figure, dpi=50).startswith(PNG)
    assert pyplot.get_fignums() == before


def test_png_follows_dpi():
    size = [int.from_bytes(figures.png(figures.Picture(2, 1), dpi=dpi)[16:20], "big") for dpi in (50, 100)]
    assert size == [100, 200]
    with pytest.raises(ValueError, match="dpi=0"):
        figures.png(figures.Picture(), dpi=0)


@pytest.mark.parametrize("shape", [(64,), (784,), (1, 5, 7), (3, 6, 6)])
def test_as_image_keeps_the_pixels(shape):
    x = torch.rand(*shape)
    image = figures.as_image(x)
    if shape[0] == 3:
        assert image.shape == (6, 6, 3) and torch.equal(image[2, 4], x[:, 2, 4])
    else:
        assert torch.equal(image.flatten(), x.flatten())


def test_not_every_input_is_an_image():
    assert figures.as_image(torch.rand(4)) is None
    assert figures.as_image(torch.zeros(64, dtype=torch.int64)) is None


def test_thumbnails_show_the_examples_in_order(digits):
    picture = figures.thumbnails(digits, [7, 2, 11], columns=2)
    shown = [ax.images[0].get_array() for ax in picture.axes if ax.images]
    for image, i in zip(shown, [7, 2, 11], strict=True):
        np.testing.assert_allclose(image, digits.x[i].reshape(8, 8))
    assert figures.alt_text(picture) == "3 examples: #7: digit 7; #2: digit 2; #11: digit 1."
    assert picture.axes[0].images[0].cmap.name == "gray_r"


def test_text_features_and_targets_are_written():
    words = Examples(torch.zeros(2, 5, dtype=torch.int64), torch.tensor([0, 1]), raw=["so kind", "rude"])
    assert figures.thumbnails(words, [1]).axes[0].texts[0].get_text() == "rude"
    table = Examples(x=torch.arange(18.0).reshape(2, 9), y=torch.tensor([[0.5], [1.25]]), classes=None, raw=None)
    picture = figures.thumbnails(table, [0])
    assert "and 3 more" in picture.axes[0].texts[0].get_text()
    assert "target 0.5" in figures.alt_text(picture)


def test_bars_are_sorted_by_help():
    values = torch.tensor([0.5, -3.0, 2.0, -1.0, 0.1, 4.0])
    for helpful, expected in (("negative", [-3.0, -1.0, 2.0, 4.0]), ("positive", [4.0, 2.0, -1.0, -3.0])):
        ax = figures.influence_bars(values, k=2, helpful=helpful)
        by_row = sorted(ax.patches, key=lambda bar: bar.get_y())
        assert [bar.get_width() for bar in by_row] == expected
        assert {bar.get_hatch() for bar in by_row} == {"", "//"}
    names = [label.get_text() for label in figures.influence_bars(values, k=2, labels=list("abcdef")).get_yticklabels()]
    assert names == ["b", "d", "c", "f"]


def test_probabilities_draw_every_series():
    series = {"before": torch.tensor([0.1, 0.7, 0.2]), "retrained": torch.tensor([0.3, 0.3, 0.4])}
    ax = figures.probabilities(series, classes=["ant", "bee", "cat"], true_class=1)
    heights = [[bar.get_height() for bar in bars] for bars in ax.containers]
    np.testing.assert_allclose(heights, torch.stack(list(series.values())).numpy())
    assert len({bars[0].get_hatch() for bars in ax.containers}) == 2
    assert figures.alt_text(ax.figure) == (
        "Class probabilities. before: bee 0.70; retrained: cat 0.40, bee 0.30. The true class is bee."
    )
    assert ax.get_xticklabels()[1].get_text() == "bee\n(true)"


def test_picture_shows_itself_with_words(digits):
    picture = figures.thumbnails(digits, [0])
    data, metadata = picture._repr_png_()
    assert data.startswith(PNG)
    assert metadata == {"alt": "1 example: #0: digit 0."}
    assert repr(picture) == "Picture: 1 example: #0: digit 0."


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda x, y, e: figures.predicted_versus_true(x, y[:, 1:]), "shape"),
        (lambda x, y, e: figures.predicted_versus_true({}, y), "0 methods"),
        (lambda x, y, e: figures.predicted_versus_true({str(i): x for i in range(7)}, y), "7 methods"),
        (lambda x, y, e: figures.thumbnails(e, [12]), "outside the 12 examples"),
        (lambda x, y, e: figures.thumbnails(e, [1], titles=["a", "b"]), "2 entries for 1"),
        (lambda x, y, e: figures.thumbnails(e, [1], columns=0), "columns=0"),
        (lambda x, y, e: figures.influence_bars(x), r"values\[test\]"),
        (lambda x, y, e: figures.influence_bars(x[0], k=0), "k=0"),
        (lambda x, y, e: figures.influence_bars(x[0], helpful="up"), "'positive'"),
        (lambda x, y, e: figures.influence_bars(x[0], labels=["a"]), "1 entries for 30"),
        (lambda x, y, e: figures.probabilities({}), "0 entries"),
        (lambda x, y, e: figures.probabilities({"before": x[0]}), "softmax"),
        (lambda x, y, e: figures.probabilities({"a": torch.ones(3) / 3, "b": torch.ones(2) / 2}), "first series"),
        (lambda x, y, e: figures.probabilities({"a": torch.ones(3) / 3}, classes=["a"]), "1 names for 3"),
        (lambda x, y, e: figures.probabilities({"a": torch.ones(3) / 3}, true_class=3), "outside the 3 classes"),
        (lambda x, y, e: figures.Picture(0, 1), "width=0"),
    ],
)
def test_bad_input(wrong, message, pair, digits):
    with pytest.raises(ValueError, match=message):
        wrong(*pair, digits)
