"""The table of right and refused at small size: no third state, and the page says what is seen."""

import importlib

import pytest
import torch

from benchmarks import quality
from benchmarks.quality import functions, table
from benchmarks.quality.plain import OracleError

FEW = ["mlp", "BatchNorm, evaluation mode", "GRU", "scale_grad_by_freq", "half precision", "in-place first layer",
       "part under no_grad", "max_norm embedding, rows at the limit", "activation checkpointing"]  # fmt: skip


@pytest.fixture(scope="module")
def page():
    return quality.parsed(quality.PAGE.read_text())


@pytest.fixture(scope="module", params=FEW)
def row(request):
    return quality.measured([request.param])


def test_there_is_no_third_state_and_the_page_says_so(row, page):
    assert quality.third_states(row) == []
    seen = quality.kinds(row)
    assert seen == {cell: page[0].get(cell) for cell in seen}


def test_float32(page):
    seen = quality.measured(["mlp", "pruned", "half precision"], quality.SINGLE, torch.float32)
    assert quality.third_states(seen) == []
    kinds = quality.kinds(seen)
    assert kinds == {cell: page[1].get(cell) for cell in kinds}


def test_the_page_is_whole_and_has_no_third_state(page):
    double, single = page
    assert set(double) == {(name, function) for name in quality.FAMILIES for function in quality.FUNCTIONS}
    assert set(single) == {(name, function) for name in quality.FAMILIES for function in quality.SINGLE}
    assert {*double.values(), *single.values()} == {"right", "refused"}


def test_a_wrong_number_is_seen(monkeypatch):
    right = functions.xl.influence.loss_influence
    monkeypatch.setattr(functions.xl.influence, "loss_influence", lambda *a, **k: 1.00001 * right(*a, **k))
    seen = quality.measured(["mlp"], ["loss_influence, dense"])
    assert seen["mlp"]["loss_influence, dense"].kind == table.WRONG
    assert quality.third_states(seen) == ["mlp, loss_influence, dense: WRONG by 1.0e-05"]


def test_a_wrong_derivative_is_seen(monkeypatch):
    """Rows of the engine that are one percent too long."""
    capture = importlib.import_module("explainlib.layerwise.gradient_matrix.capture")
    right = capture.gradient_blocks

    def longer(*args, rows_per_example, fallback=()):
        longer_rows = [(span, 1.01 * rows) for span, rows in fallback]
        return right(*args, rows_per_example=rows_per_example, fallback=longer_rows)

    monkeypatch.setattr(capture, "gradient_blocks", longer)
    seen = quality.measured(["GRU", "mlp"], ["tracin"])
    assert [seen[name]["tracin"].kind for name in seen] == [table.WRONG, table.RIGHT]


def test_an_error_of_torchs_own_is_seen(monkeypatch):
    monkeypatch.setattr(functions.xl.influence, "tracin", lambda *a, **k: torch.ones(2, 3) @ torch.ones(2, 3))
    (line,) = quality.third_states(quality.measured(["mlp"], ["tracin"]))
    assert line.startswith("mlp, tracin: RAW RuntimeError: mat1 and mat2")
    monkeypatch.setattr(functions.xl.influence, "tracin", lambda *a, **k: functions.xl.Risk(a[0].model, a[1], l2=-1.0))
    assert quality.measured(["mlp"], ["tracin"])["mlp"]["tracin"].kind == table.REFUSED


def test_the_oracle_is_judged_too():
    """Without its twin, a turned gradient is not taken for the truth."""
    family = quality.FAMILIES["gradient reversal"]
    case = functions.Case(quality.Family(family.make))
    with pytest.raises(OracleError, match="plain autograd gives"):
        case.plain  # noqa: B018
