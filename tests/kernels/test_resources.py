"""What is known of the kernels without a GPU: no build spills, and the committed tables are what the code says."""

import csv
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from explainlib.datasets import Examples
from explainlib.kernels import build, gram_triton
from explainlib.kernels.groups import plain as groups
from explainlib.kernels.moments import plain as moments
from explainlib.kernels.report import GPUS, Resources, gram_work, occupancy, perceptron_work
from explainlib.kernels.report.roofline import LAUNCH_COSTS, issue_seconds
from explainlib.kernels.report.table import gram_times, perceptron_times, product_times, write
from explainlib.kernels.report.work import GROUP_LAUNCHES, Groups, Layer, group_work, moment_work
from explainlib.models import mlp
from explainlib.risk import Risk
from explainlib.training.stacked import stack_networks
from explainlib.training.steps import stepper
from tests.kernels.test_triton import fresh, needs_triton

RESULTS = Path(__file__).parents[2] / "data" / "results"

SPILLS = """
import json
from itertools import cycle
from explainlib.kernels import build
from explainlib.kernels.report import resources
splits = cycle((1 << i, 64 >> i, 1 << j, 64 >> j) for i in range(7) for j in range(7))
found = []
for kind, options in build.KINDS.items():
    for layout, specialised in build.LAYOUTS.items():
        for sm in {targets}:
            code = build.build(sm, **options, **specialised, sides=next(splits))
            found.append([kind, layout, sm, *resources(code)])
print(json.dumps(found))
"""


@needs_triton(interpreted=False)
@pytest.mark.parametrize("sm", build.TARGETS)
def test_no_build_of_the_gram_spills(tmp_path, sm):
    """Every kind of numbers in every layout; each build takes another of the 49 splits of a tile."""
    found = fresh(SPILLS.format(targets=(sm,)), tmp_path)
    assert len(found) == len(build.KINDS) * len(build.LAYOUTS) == 25
    assert [row for row in found if row[4] != 0] == []
    assert all(0 < row[3] <= 255 and row[6] == 8 and row[7] > 100 for row in found)


UNLIMITED = """
import json
from explainlib.kernels import build, gram_triton
from explainlib.kernels.groups import plain as groups
from explainlib.kernels.moments import plain as moments
from explainlib.kernels.report import resources
chosen = gram_triton.tiles_for
gram_triton.tiles_for = lambda *given, **more: chosen(*given, **more)._replace(registers=64)
print(json.dumps([resources(build.build(90))]))
"""


@needs_triton(interpreted=False)
def test_a_spill_would_be_seen(tmp_path):
    """With 64 registers a thread the same kernel has to spill."""
    ((registers, spills, *_),) = fresh(UNLIMITED, tmp_path)
    assert registers <= 64 and spills > 0


@pytest.mark.parametrize(
    ("taken", "sm", "share"),
    [
        (Resources(128, 0, 0, 8, 1), 90, 0.25),
        (Resources(129, 0, 0, 8, 1), 90, 0.125),  # 136 after rounding: one program of 8 warps
        (Resources(16, 0, 0, 1, 1), 80, 0.5),  # 32 programs at most
        (Resources(32, 0, 60 * 1024, 8, 1), 80, 0.25),  # shared memory: two of 61 KB in 164
        (Resources(32, 0, 60 * 1024, 8, 1), 90, 0.375),  # three in 228
    ],
)
def test_occupancy_by_the_scarcest_resource(taken, sm, share):
    assert occupancy(taken, sm) == share


def test_the_work_of_the_plain_gram_by_hand():
    """n 2, P 3, d 4, o 5: 6 x 6 pairs of positions."""
    work = gram_work(2, 3, 4, 5, "float64", plain=True)
    assert work.flops == 36 * 2 * 9 + 36 + 36
    numbers = (2 * 6 * 9) + 2 * 36 + 3 * 36 + 36 + 2 * 12 + 4
    assert work.bytes == 8 * numbers and work.launches == 5


def test_the_kernel_pays_for_its_padding():
    """One example of one position fills a tile of 64 x 64 and a block of 16 numbers."""
    work = gram_work(1, 1, 1, 1, "float32", plain=False)
    assert work.flops == 64 * 64 * (2 * 32 + 2) and work.bytes == 4 * 5 and work.launches == 1


def test_a_time_is_the_larger_bound_and_its_launches():
    work, gpu = gram_work(64, 1, 16, 16, "float32", plain=False), GPUS["H100 SXM"]
    bound = max(64 * 64 * 66 / 67e12, 4 * (4 * 64 * 16 + 64 * 64) / 3.35e12)
    assert work.seconds(gpu, "float32") == pytest.approx(bound)
    assert work.seconds(gpu, "float32", 5e-6) == pytest.approx(bound + 5e-6)


def committed(name):
    with (RESULTS / f"kernels-{name}.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_committed_times_are_those_of_the_formulas(tmp_path):
    networks = [row for row in committed("builds") if row["kernel"] == "trained_perceptrons"]
    computed = [*gram_times(), *perceptron_times(networks), *product_times()]
    write({"times": computed}, tmp_path)
    with (tmp_path / "kernels-times.csv").open() as file:
        again = list(csv.DictReader(file))
    assert again == committed("times")
    assert len({row["gpu"] for row in again}) == len(GPUS) == 3
    assert [name for name in again[0] if name.startswith("predicted_ratio")] == [
        f"predicted_ratio_{1e6 * cost:.0f}us" for cost in LAUNCH_COSTS
    ]


ONE = """
import json
from explainlib.kernels import build
from explainlib.kernels.report.table import build_row
code = build.build(90, aligned=True)
print(json.dumps(build_row("layer_gram", "tile 64 x 64", "float32", "aligned", 90, code)))
"""


@needs_triton(interpreted=False)
def test_a_committed_build_is_what_is_built(tmp_path):
    row = {name: str(value) for name, value in fresh(ONE, tmp_path).items()}
    assert row in committed("builds")
    assert all(row["spilled_bytes"] == "0" for row in committed("builds"))
    assert {(row["numbers"], int(row["sm"])) for row in committed("builds") if row["kernel"] == "layer_gram"} == {
        (kind, sm) for kind in build.KINDS for sm in build.TARGETS
    }


def test_a_tile_that_reaches_too_far_is_refused():
    tiles = gram_triton.tiles_for(64, 1, 64, 1, torch.float32, "ieee")
    near, out = torch.empty(1, 64, 1, 4, device="meta"), torch.empty(1, 64, 64, device="meta")
    far = torch.empty_strided((1, 64, 1, 4), (2**32, 2**26, 4, 1), device="meta")
    gram_triton.require_near(tiles, near, near, near, near, out)
    with pytest.raises(ValueError, match=r"2\^31 and more; pass a contiguous tensor, or use\('torch'\)"):
        gram_triton.require_near(tiles, near, near, far, near, out)
    with pytest.raises(ValueError, match="too wide for the kernel"):
        gram_triton.require_near(tiles, near, near, near, near, torch.empty(1, 1, 2**25, device="meta"))


class Launches(TorchDispatchMode):
    """Operations that are no views: on a GPU each starts a kernel."""

    VIEWS = (
        "view",
        "reshape",
        "expand",
        "transpose",
        "slice",
        "split",
        "unsqueeze",
        "t.",
        "select",
        "alias",
        "permute",
        "diagonal.",
    )

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = str(function).removeprefix("aten.").lstrip("_")
        if not name.removeprefix("unsafe_").startswith(self.VIEWS):
            self.names.append(name)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("widths", [(4, 5, 3), (4, 5, 6, 3)])
def test_launches_of_the_batched_route_are_those_it_makes(widths):
    """One step of ``training/stacked`` and Adam, counted."""
    x = torch.randn(7, 4)
    risk = Risk(mlp(widths, "relu", dtype=torch.float32), Examples(x, torch.arange(7) % 3, classes=("a", "b", "c")))
    networks = stack_networks(risk, torch.ones(2, 7))
    packed = networks.pack(risk.theta.repeat(2, 1))
    step = stepper("adam", packed)
    with Launches() as counted:
        step(networks.gradients(packed), 0.1)
    work = perceptron_work(widths, 7, 2, 1, "float32", plain=True, cache=0)
    assert work.launches == len(counted.names), counted.names
    assert perceptron_work(widths, 7, 2, 9, "float32", plain=True, cache=0).launches == 9 * work.launches


def test_launches_of_the_plain_moments_and_groups_are_those_they_make():
    """One run of groups; operations on members' numbers alone, which are few and small, are left out of the bytes."""
    x, w, b = torch.rand(5, 4), torch.rand(3, 4), torch.rand(3)
    with Launches() as counted:
        moments.linear_moments(x, x, (w, w), (b, b))
    assert moment_work(Layer("", 5, 4, 3), "float32", plain_route=True).launches == len(counted.names), counted.names
    p, members, offsets = torch.rand(5, 3), torch.tensor([0, 2, 4]), torch.tensor([0, 1, 3])
    with Launches() as counted:
        groups.group_products(p, p, p, x, x, members, offsets)
    assert len(counted.names) == GROUP_LAUNCHES, " ".join(counted.names)


def test_the_work_of_groups_and_moments_by_hand():
    """Two groups of 3 of 7 examples, 2 classes, 5 features: 10 x 10 blocks in a tile of 64, members in a block of 16."""
    case = Groups("", 2, 3, 7, 2, 5)
    work = group_work(case, "float32", plain_route=False)
    assert work.pieces[0].products == 2 * (2 * 16 * 64**2 * 2) and work.launches == 1
    assert work.bytes == 4 * (7 * (2 * 2 + 5) + 2 * 100) + 8 * (6 + 3)
    flops = [piece.products for piece in group_work(case, "float32", plain_route=True).pieces]
    assert sum(flops) == 6 * 2 * (100 + 2 * 25)
    layer = moment_work(Layer("", 1, 1, 1), "float64", plain_route=False)
    assert layer.pieces[0].products == 6 * 32 * 32 * 16 and layer.bytes == 8 * (1 + 1 + 1 + 1 + 2 + 2)


def test_the_work_of_one_small_network_by_hand():
    """2-3-2, one example, one network, two steps; 9 + 8 parameters, 6 + 6 products a pass."""
    work = perceptron_work((2, 3, 2), 1, 1, 2, "float32", plain=False, cache=0)
    assert work.pieces[0].products == 2 * 2 * (3 * 12 - 6) and work.launches == 1
    assert work.bytes == 4 * (1 + 2 + 2 * 17)
    plain = perceptron_work((2, 3, 2), 1, 1, 2, "float32", plain=True, cache=0)
    assert not plain.cached and perceptron_work((2, 3, 2), 1, 1, 2, "float32", plain=True, cache=2**20).cached
    assert plain.seconds(GPUS["H100 SXM"], "float32") == pytest.approx(plain.bytes / 3.35e12, rel=0.01)


def test_instructions_are_issued_four_a_cycle():
    gpu = GPUS["A100 SXM 80 GB"]
    assert issue_seconds(gpu, 1, 8, 1.41e9) == pytest.approx(1.0)  # one instruction of each warp a cycle
    assert issue_seconds(gpu, 1000, 8, 1.41e9) == pytest.approx(1000 * 8 / (4 * 108))
