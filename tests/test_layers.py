"""The rooms from the ground up: a room imports only rooms listed above it, and each thing has one place."""

import ast
from pathlib import Path

import pytest

import explainlib

HOUSE = Path(explainlib.__file__).parent
ROOMS = [
    "checks", "compute", "memory", "storage", "batching", "norms", "decompositions", "losses", "modules", "params", "gate", "kernels", "layerwise",
    "datasets", "models", "risk", "curvature",
    "solvers", "training", "meta", "influence", "representers", "retraining", "metrics", "studies", "figures",
    "explanation", "panels", "anatomy", "notebooks", "doctor", "__main__",
]  # fmt: skip
FILES = sorted(path for path in HOUSE.rglob("*.py") if path != HOUSE / "__init__.py")


def room_of(path: Path) -> str:
    return path.relative_to(HOUSE).parts[0].removesuffix(".py")


def imports(path: Path) -> list[tuple[int, str]]:
    """Every imported dotted name with its line, imports inside functions too."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively; write the full name"
            found += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
    return found


def test_every_file_lives_in_a_room():
    assert {room_of(path) for path in FILES} <= set(ROOMS)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(HOUSE)))
def test_a_room_imports_only_what_is_below(path):
    room = room_of(path)
    below = set(ROOMS[: ROOMS.index(room) + 1])
    for line, name in imports(path):
        if name.split(".")[0] != "explainlib":
            continue
        parts = name.split(".")
        taken = parts[1]
        if taken not in ROOMS:  # `from explainlib import Risk`: the front door, open to the rooms at the top only
            assert room in ("__main__", "notebooks", "doctor", "anatomy"), f"{path.name}:{line} imports {name}"
            continue
        assert taken in below, f"{path.name}:{line}: {room} imports {name}, which lies above it"


def test_the_rule_can_be_broken(tmp_path):
    """The oracle's own test: an upward import is seen."""
    bad = tmp_path / "bad.py"
    bad.write_text("def f():\n    from explainlib.influence import single\n    import explainlib.panels\n")
    assert [name for _, name in imports(bad)] == ["explainlib.influence.single", "explainlib.panels"]
    assert ROOMS.index("influence") > ROOMS.index("risk")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(HOUSE)))
def test_widgets_stay_in_the_panels(path):
    names = [name for _, name in imports(path)]
    if room_of(path) == "panels":
        mathematics = [n for n in names if n.startswith(("torch.func", "torch.linalg", "scipy", "torch.autograd"))]
        assert not mathematics and "torch.linalg" not in path.read_text()
    elif room_of(path) != "doctor":  # it only looks whether the package is there
        assert not [n for n in names if n.split(".")[0] in ("ipywidgets", "IPython")] or room_of(path) == "explanation"


def test_no_drawers():
    assert not [p for p in HOUSE.rglob("*.py") if p.stem in ("utils", "util", "helpers", "misc", "common", "base")]


def test_importing_the_house_brings_no_plotting_and_no_widgets():
    """Those rooms open on first use, so that a script without a screen starts fast."""
    import subprocess
    import sys

    code = "import sys, explainlib; print([m for m in ('matplotlib', 'ipywidgets', 'seaborn') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=HOUSE.parent, timeout=120)
    assert run.stdout.strip() == "[]", run.stdout + run.stderr
