"""The TLXML study's own words of a mark."""

from __future__ import annotations

import pandas
import pytest

from explainlib.studies.tlxml import MAKERS
from tests.studies.documents.filling import filled as filled_mark

COUNTS = {
    "512": [9, 8],
    "64": [7, 7],
    "unpruned": [1, 0],
    "identity": [6, 4],
    "random projector": [5, 5],
    "cosine": [9, 9],
}
PRUNING = pandas.DataFrame(
    [
        {"learner": "maml", "method": method, "seed": seed, "self_first": n, "queries_first": n - 1, "unseen_first": 0}
        for method, counts in COUNTS.items()
        for seed, n in enumerate(counts)
    ]
)
SPECTRUM = pandas.DataFrame({"seed": [0] * 4 + [1] * 4, "eigenvalue": [2.0, 0.5, 0.0, -0.01, 4.0, 1e-12, -1e-12, -2.0]})
DEGRADATION = pandas.DataFrame(
    {"sweep": "alpha", "method": "cosine", "seed": [0, 1], "rank_correlation": [0.6, 0.2],
     "score_correlation": [-0.4, -0.8]}
)  # fmt: skip


def order_rows(seed, method, count, *, copies=1, decay=0.0, kind="unseen", first=float("nan")):
    row = {"learner": "maml", "normal": 28, "noise": 4, "copies": copies, "weight_decay": decay, "seed": seed}
    row |= {"kind": kind, "method": method, "tests": 10, "mean_count": count, "self_first": first}
    row |= {f"accuracy_{name}": 0.5 for name in ("normal", "noise", "unseen")}
    return row | {"tenth_1": 0.1, "tenth_10": 0.05}


ORDER = pandas.DataFrame(
    [
        order_rows(seed, method, count + seed + copies, copies=copies, kind=kind, first=first)
        for seed in (0, 1)
        for copies in (1, 2)
        for method, count in (("buffer", 4), ("identity", 3), ("cosine", 2), ("cosine, untrained", 6))
        for kind, first in (("unseen", float("nan")), ("training", 8))
    ]
)
GAUSS_NEWTON = pandas.DataFrame(
    [
        {
            "tasks": tasks,
            "buffer": size,
            "kept": kept,
            "seed": 0,
            "self_correlation": 0.9,
            "unseen_correlation": tasks / 10,
        }
        for tasks in (4, 8)
        for size in (64, 256, 512)
        for kept in (64, 256, 512)
    ]
)
TABLES = {
    "pruning": PRUNING, "spectrum": SPECTRUM, "degradation": DEGRADATION, "order": ORDER, "gaussnewton": GAUSS_NEWTON
}  # fmt: skip


def filled(words):
    return filled_mark(words, {"glyphs": TABLES}, MAKERS)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("gain glyphs self_first minus identity", "3 to 4"),
        ("eigenvalues glyphs positive", "1 to 2"),
        ("eigenvalues glyphs null", "1"),
        ("eigenvalues glyphs above 0.1", "2"),
        ("least glyphs alpha cosine .2f", ".30"),
        ("order glyphs share mean .2f learner=maml", ".55"),
        ("order glyphs share range .1f copies=any", ".5 to .7"),
        ("order glyphs share means .2f copies=any", ".55 to .65"),
        ("order glyphs share mean .2f copies=1 or 2", ".60"),
        ("order glyphs share ends .1f method=cosine, untrained minus buffer", ".2 to .2"),
        ("order glyphs share ends .1f copies=2 minus 1", ".1 to .1"),
        ("order glyphs first mean .1f", ".8"),
        ("order glyphs outer mean .2f", ".15"),
        ("order glyphs share rows d method=any", "8"),
    ],
)
def test_a_mark_is_filled_in(words, text):
    assert filled(words) == text


def test_whole_tables():
    assert "| 512 eigenvalues kept | 9, 8 | 8, 7 | 0, 0 |" in filled("ranks glyphs")
    assert "| 8 | .90 | .90 | .90 | .80 | .80 | .80 |" in filled("agreement glyphs")
    mixtures = filled("mixtures glyphs")
    assert (
        "| MAML | 28 + 4 | none | .50, .50, .50 | .55 (.50 to .60) | .45 | .35 | .75 | .80 | .80 | .15 | .15 |"
        in mixtures
    )
    assert "| 2 turned copies |" in mixtures


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("order glyphs share mean .2f learner=protonet", "no row of 'order' has learner=protonet"),
        ("eigenvalues glyphs largest", "not 'largest'"),
    ],
)
def test_a_mark_of_what_there_is_not_is_refused(words, message):
    with pytest.raises(ValueError, match=message):
        filled(words)
