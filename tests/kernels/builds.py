"""What a kernel of several layouts is asked in a process of its own: its comparisons interpreted, its builds read."""

from tests.kernels.test_triton import fresh

INTERPRETED = """
import json
from explainlib.kernels.comparisons import COMPARISONS
print(json.dumps([[c.name, c.error, c.tolerance] for c in COMPARISONS("cpu")]))
"""
BUILDS = """
import json, torch
from explainlib.kernels.ROOM import LAYOUTS, BUILD
from explainlib.kernels.report import resources
kinds = {"float32": {}, "tf32": {"precision": "tf32"}, "float64": {"dtype": torch.float64}}
found = []
for kind, options in kinds.items():
    for layout, specialised in LAYOUTS.items():
        code = BUILD(SM, **options, **specialised)
        found.append([kind, layout, *resources(code), code["ptx"].count("atom."), code["ptx"].count("mma")])
print(json.dumps(found))
"""


def interpreted_comparisons_hold(comparisons, count, tmp_path):
    found = fresh(INTERPRETED.replace("COMPARISONS", comparisons), tmp_path, TRITON_INTERPRET="1")
    assert len(found) == count and [row for row in found if not row[1] <= row[2]] == []


def builds_neither_spill_nor_add_atomically(room, build, sm, tmp_path):
    asked = BUILDS.replace("ROOM", room).replace("BUILD", build).replace("SM", str(sm))
    found = fresh(asked, tmp_path)
    assert len(found) == 12 and [row for row in found if row[3] or row[7]] == []
    assert all(0 < row[2] <= 255 for row in found) and all(row[8] for row in found if row[0] == "tf32")
