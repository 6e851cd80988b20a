"""The steps of the fused Gram in the interpreter: all programs, what they read and write, and the figures of routes."""

import pytest

from explainlib.figures import alt_text
from explainlib.figures.kernels import roofline, traffic
from explainlib.kernels.report import GPUS, gram_steps, totals
from explainlib.studies.kept import kept_tables
from tests.kernels.test_triton import needs_triton

n, P, d, o = 40, 2, 20, 6


@pytest.fixture(scope="module")
def steps():
    return gram_steps(n, P, d, o)


@needs_triton(interpreted=True)
def test_all_of_the_gram_is_computed_once_and_mirrored(steps):
    """Two tiles of 32 examples: two on the diagonal, one above it; the diagonal itself is stored twice."""
    assert {step.program for step in steps} == {0, 1, 3}
    assert totals(steps)["written"] == n * n + n


@needs_triton(interpreted=True)
def test_reads_are_those_of_the_tiles(steps):
    """Each program reads both of its sides once: 32 or 8 examples, at two positions, of both factors."""
    rows = [(32, 32), (32, 8), (8, 8)]
    assert totals(steps)["read"] == sum((left + right) * P * (d + o) for left, right in rows)


@needs_triton(interpreted=True)
def test_flops_are_those_of_whole_blocks(steps):
    products = [step for step in steps if step.action == "product"]
    assert len(products) == 3 * 3 and {step.shape for step in products} == {(64, 64, 16)}
    assert totals(steps)["flops"] == sum(2 * 64 * 64 * 16 for _ in products)


def test_a_size_below_one():
    with pytest.raises(ValueError, match="n=0"):
        gram_steps(0, 1, 1, 1)


def rows(**chosen):
    times = kept_tables("kernels")["times"]
    times = times[times.kernel == "layer_gram"]
    for column, value in chosen.items():
        times = times[times[column] == value]
    return times


def test_the_roof_has_its_ridge_where_both_bounds_are_equal():
    ax = roofline(rows(gpu="H100 SXM", numbers="float32"))
    gpu, (x, y) = GPUS["H100 SXM"], ax.lines[0].get_xydata()[1]
    assert x == pytest.approx(gpu.peak["float32"] / gpu.bandwidth) and y == pytest.approx(gpu.peak["float32"] / 1e12)
    for marks in ax.collections:  # all routes stand on the roof
        for intensity, height in marks.get_offsets():
            assert height == pytest.approx(min(gpu.peak["float32"], intensity * gpu.bandwidth) / 1e12)
    assert "20 flops a byte" in alt_text(ax.figure)


def test_traffic_has_both_routes_of_every_layer():
    ax, table = traffic(rows(gpu="H100 SXM", numbers="float32")), rows(gpu="H100 SXM", numbers="float32")
    widths = sorted(bar.get_width() for bar in ax.patches)
    assert widths == pytest.approx(sorted([*table.bytes / 1e9, *table.plain_bytes / 1e9]))


def test_tables_that_cannot_be_drawn():
    with pytest.raises(ValueError, match="'gpu'"):
        roofline(rows(numbers="float32"))
    with pytest.raises(ValueError, match="'numbers'"):
        roofline(rows(gpu="H100 SXM"))
    for draw in (roofline, traffic):
        with pytest.raises(ValueError, match="no rows"):
            draw(rows(gpu="none"))
