"""Names with dollar signs, underscores and backslashes: drawn as they are, whatever draws them.

The oracle is matplotlib with its formulas switched off and nothing escaped: the two pictures have the same pixels.
"""

import sys

import matplotlib
import pytest
import torch

import explainlib as xl
from explainlib import figures
from explainlib.datasets import Examples, Tasks
from explainlib.figures.bilevel import detection_curves
from explainlib.figures.html import example_html
from explainlib.figures.primer import training_curves
from explainlib.figures.removals import removal_points
from explainlib.figures.representers import deletion_curves, product_bars

NAMES = ("$5", "$10-$20", "a$$b", "$\\foo$", "x_{y$", "\\$1 $2", "100$ or 200$")
PAIRS = {
    f"{name} {i}": torch.rand(3, 9, generator=torch.Generator().manual_seed(i)) for i, name in enumerate(NAMES[:5])
}
TITLE, UNIT = "$x$ is $y_1^$", "$ per $ of $\\weight$"


def examples(*, raw=None, features=64):
    x = torch.rand(7, features, generator=torch.Generator().manual_seed(0))
    return Examples(x=x, y=torch.arange(7), classes=NAMES, raw=raw)


def tasks():
    x = torch.rand(4, 10, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    y = torch.arange(5).repeat(4, 2)
    return Tasks(x, y, x, y, classes=[tuple(f"{name}/c{i}" for name in NAMES[:5]) for i in range(4)])


def text_column():
    return [f"{name} and {name}" for name in NAMES]


def explanation():
    e = examples()
    made = xl.Explanation(
        torch.randn(7, 7, generator=torch.Generator().manual_seed(1)), e, e, quantity=TITLE, unit=UNIT
    )
    return made.plot(test=1, k=3)


ROW = torch.linspace(-1, 1, 7)
DRAWN = {
    "thumbnails": lambda: figures.thumbnails(examples(), range(7)),
    "thumbnails with titles": lambda: figures.thumbnails(examples(), [0, 1], titles=[TITLE, UNIT]),
    "texts": lambda: figures.thumbnails(examples(raw=text_column()), range(7)),
    "features": lambda: figures.thumbnails(examples(features=5), range(7)),
    "explanation": explanation,
    "influence_bars": lambda: figures.influence_bars(ROW, k=3, labels=NAMES, unit=UNIT).figure,
    "probabilities": lambda: (
        figures.probabilities({name: torch.full((7,), 1 / 7) for name in NAMES[:3]}, classes=NAMES, true_class=1).figure
    ),
    "predicted_versus_true": lambda: (
        figures.predicted_versus_true(PAIRS, torch.rand(3, 9), labels=(TITLE, UNIT), unit=UNIT, title=TITLE).figure
    ),
    "pruning_curve": lambda: (
        figures.pruning_curve(
            {NAMES[1]: [1, 2]}, ["$1", "$2"], most=3, levels={NAMES[3]: 1.0}, label=UNIT, title=TITLE
        ).figure
    ),
    "task_grid": lambda: figures.task_grid(tasks(), 1, title=TITLE),
    "ranked_tasks": lambda: figures.ranked_tasks(torch.linspace(-1, 1, 4), tasks(), k=2, title=TITLE),
    "training_curves": lambda: (
        training_curves({name: [3.0, 2.0, 1.0] for name in NAMES[:4]}, window=1, unit=UNIT).figure
    ),
    "removal_points": lambda: removal_points({name: [0.1, 0.2] for name in NAMES[:3]}, [0.1, 0.3], unit=UNIT),
    "deletion_curves": lambda: (
        deletion_curves({name: rows[:, :3] for name, rows in PAIRS.items()}, [0, 1, 2], unit=UNIT, title=TITLE).figure
    ),
    "product_bars": lambda: product_bars(ROW, ROW, range(7), labels=NAMES, title=TITLE),
    "detection_curves": lambda: (
        detection_curves({name: ROW for name in NAMES[:3]}, torch.arange(7) < 3, inspected=2, title=TITLE).figure
    ),
}


def pixels(draw):
    torch.manual_seed(0)
    picture = draw()
    return figures.png(getattr(picture, "figure", picture))


@pytest.mark.parametrize("name", list(DRAWN))
def test_names_are_drawn_as_they_are(name, monkeypatch):
    ours, escaping = pixels(DRAWN[name]), figures.literal
    for module in [m for key, m in sys.modules.items() if key.startswith("explainlib")]:
        if getattr(module, "literal", None) is escaping:
            monkeypatch.setattr(module, "literal", str)
    with matplotlib.rc_context({"text.parse_math": False}):
        assert pixels(DRAWN[name]) == ours


def test_a_title_beside_powers_of_ten():
    """Ticks of a logarithmic axis are formulas of matplotlib's own, so that pictures cannot be compared."""
    assert figures.eigenvalue_spectrum(ROW + 2, title=TITLE).get_title("left") == figures.literal(TITLE)


def test_our_own_formulas_stay_formulas():
    ax = figures.Picture().add_subplot()
    ax.set_title(figures.literal("$5") + ", R$^2$ " + figures.literal("$6"))
    drawn = figures.png(ax.figure)
    ax.set_title("\\$5, R$^2$ \\$6")
    assert figures.png(ax.figure) == drawn


def test_a_page_typesets_no_name():
    """Two dollar signs in one run of text are a formula to MathJax; a span ends the run."""
    shown = example_html(examples(raw=text_column()), 1, captions=("#1: $10-$20", "<b>"))
    assert "$" in shown and all(part.count("$") < 2 for part in shown.replace("<span>$</span>", "|$|").split("|"))
    assert "#1: <span>$</span>10-<span>$</span>20<br>&lt;b&gt;" in shown
