"""The rooms from the ground up, and inside a room the corridors: an import goes one way, and each thing has one place."""

import ast
import subprocess
import sys
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import explainlib

HOUSE = Path(explainlib.__file__).parent
ROOMS = [
    "checks", "progress", "compute", "memory", "storage", "derivatives", "losses", "modules", "params", "gate", "kernels", "layerwise",
    "datasets", "models", "risk", "curvature",
    "solvers", "training", "meta", "influence", "representers", "retraining", "metrics", "studies", "figures",
    "explanation", "panels", "serving", "course", "doctor", "__main__",
]  # fmt: skip
# Of a room with corridors, what stands in it, from the ground up: files and corridors.
INSIDE = {
    "course": ["exercises", "ledger", "checking", "table", "anatomy", "grading", "editions", "notebooks", "slides"],
    "datasets": [
        "bounds", "files", "examples", "pools", "readers", "tokenizer", "sources", "glyphs", "tasks", "features",
        "visual_words", "entries", "registry", "class_pools", "streams",
    ],
    "figures": [
        "palette", "picture", "bars", "examples", "fidelity", "html", "kernels", "primer", "pruning", "removals", "tasks",
        "bilevel", "representers", "studies", "fragility", "comparison",
    ],
    "influence": ["measures", "products", "stored", "single", "tokens", "automatic", "projections", "proximal", "tracin", "trak", "groups", "tasks", "bilevel"],
    "kernels": [
        "agreement", "reference", "gram_triton", "choice", "transforms", "gram", "self_check", "timing", "build", "groups",
        "moments", "perceptrons", "comparisons", "report", "__main__",
    ],
    "layerwise": ["outer_products", "recording", "blocks", "gradient_matrix"],
    "meta": [
        "learner", "trained", "lbfgs", "fingerprints", "maml", "protonet", "two_layer", "task_map", "hessian", "gauss_newton", "minimise",
        "train", "leave_out", "bilevel",
    ],
    "panels": [
        "frame", "number_box", "controls", "html", "svg", "interactive", "panel", "adaptation", "removal", "group_removal", "fragility",
        "harmful", "representer", "task_removal", "distributions", "scoreboard",
    ],
    "solvers": [
        "remedies", "solution", "dense", "cg", "block_cg", "preconditioner", "eigenbasis", "low_rank", "grams", "arnoldi",
        "series", "configured", "inverse",
    ],
    "training": [
        "steps", "starts", "trajectory", "weighted", "stacked", "minima", "minimise", "fit", "fused", "ensembles",
        "without", "variational",
    ],
    "studies": [
        "record", "place", "runner", "claims", "kept", "documents", "side_by_side", "few_shot", "influence", "group", "fragility", "representers",
        "tlxml", "removal", "bilevel", "scoreboard",
    ],
}  # fmt: skip
FILES = sorted(path for path in HOUSE.rglob("*.py") if path != HOUSE / "__init__.py")
FOLDERS = sorted({path.parent for path in HOUSE.rglob("*.py")})
MOST_FILES = 14  # of a folder


def dotted(path: Path, house: Path = HOUSE) -> tuple[str, ...]:
    """Return the module's name below the house; a folder's for its ``__init__``."""
    parts = path.relative_to(house).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


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


def own_imports(path: Path) -> list[tuple[int, tuple[str, ...]]]:
    """The imports of the house itself, below its name."""
    return [(line, tuple(name.split(".")[1:])) for line, name in imports(path) if name.split(".")[0] == "explainlib"]


def shown(corridor: Path) -> set[str]:
    """What a corridor's ``__init__`` shows: its ``__all__``."""
    for node in ast.parse((corridor / "__init__.py").read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "__all__":
            return set(ast.literal_eval(node.value))
    raise AssertionError(f"{corridor}/__init__.py has no __all__")


def faults_inside(path: Path, house: Path = HOUSE, inside: dict[str, list[str]] = INSIDE) -> list[str]:
    """Imports that go sideways or up inside a room, or past the ``__init__`` of a corridor."""
    me, faults = dotted(path, house), []
    for line, name in own_imports(path):
        if len(me) > 1 and name[0] == me[0] in inside and len(name) > 1 and name[1] != me[1]:
            order = inside[me[0]]
            if name[1] in order and order.index(name[1]) > order.index(me[1]):
                faults.append(
                    f"{path.name}:{line}: {me[1]} imports {'.'.join(name)}, which stands above it in the room"
                )
        corridor = house.joinpath(*name[:2])
        if len(name) > 2 and corridor.is_dir() and me[:2] != name[:2] and name[2] not in shown(corridor):
            faults.append(f"{path.name}:{line}: {'.'.join(name)} is not shown by {'.'.join(name[:2])}/__init__.py")
    return faults


def test_every_file_lives_in_a_room():
    assert {room_of(path) for path in FILES} <= set(ROOMS)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(HOUSE)))
def test_a_room_imports_only_what_is_below(path):
    room = room_of(path)
    below = set(ROOMS[: ROOMS.index(room) + 1])
    for line, parts in own_imports(path):
        taken = parts[0]
        if taken not in ROOMS:  # `from explainlib import Risk`: the front door, open to the rooms at the top only
            assert room in ("__main__", "course", "doctor"), f"{path.name}:{line} imports {'.'.join(parts)}"
            continue
        assert taken in below, f"{path.name}:{line}: {room} imports {'.'.join(parts)}, which lies above it"


def test_the_rule_can_be_broken(tmp_path):
    """The oracle's own test: an upward import is seen."""
    bad = tmp_path / "bad.py"
    bad.write_text("def f():\n    from explainlib.influence import single\n    import explainlib.panels\n")
    assert [name for _, name in imports(bad)] == ["explainlib.influence.single", "explainlib.panels"]
    assert ROOMS.index("influence") > ROOMS.index("risk")


def test_every_room_with_corridors_has_an_order():
    with_corridors = {
        folder.relative_to(HOUSE).parts[0] for folder in FOLDERS if len(folder.relative_to(HOUSE).parts) > 1
    }
    assert with_corridors == set(INSIDE)
    for room, order in INSIDE.items():
        there = {p.stem for p in (HOUSE / room).glob("*.py")} | {p.parent.name for p in (HOUSE / room).glob("*/*.py")}
        assert sorted(order) == sorted(there - {"__init__"}), room


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(HOUSE)))
def test_inside_a_room_an_import_goes_one_way(path):
    assert not faults_inside(path)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda p: str(p.relative_to(HOUSE)))
def test_the_files_of_a_folder_make_no_circle(folder):
    graph = {}
    for path in folder.glob("*.py"):
        if path.stem != "__init__":
            depth = len(folder.relative_to(HOUSE).parts)
            here = folder.relative_to(HOUSE).parts
            graph[path.stem] = {
                name[depth]
                for _, name in own_imports(path)
                if name[:depth] == here and len(name) > depth and (folder / f"{name[depth]}.py").exists()
            } - {path.stem}
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"{folder.relative_to(HOUSE)}: {' -> '.join(error.args[1])}")


def test_planted_imports_are_seen(tmp_path):
    """The oracle's own test: sideways against the order, and past what a corridor shows; downwards is fine."""
    for name, text in {
        "meta/__init__.py": "",
        "meta/learner.py": "from explainlib.meta.bilevel import solve\n",
        "meta/bilevel/__init__.py": "from explainlib.meta.bilevel.solve import solve\n\n__all__ = ['solve']\n",
        "meta/bilevel/solve.py": "from explainlib.meta.learner import Learner\n",
        "meta/bilevel/state.py": "from explainlib.meta.bilevel.solve import solve\n",
        "influence/bilevel.py": "from explainlib.meta.bilevel.state import State\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    order = {"meta": ["learner", "bilevel"]}

    def faults(name: str) -> list[str]:
        return faults_inside(tmp_path / name, tmp_path, order)

    assert len(faults("meta/learner.py")) == 1 and "stands above it" in faults("meta/learner.py")[0]
    assert len(faults("influence/bilevel.py")) == 1 and "is not shown" in faults("influence/bilevel.py")[0]
    assert not faults("meta/bilevel/solve.py") and not faults("meta/bilevel/state.py")


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda p: str(p.relative_to(HOUSE)))
def test_a_folder_holds_few_files_and_no_prefix_is_a_folder_in_disguise(folder):
    stems = [path.stem for path in folder.glob("*.py")]
    assert len(list(filter(Path.is_file, folder.iterdir()))) <= MOST_FILES, f"{folder}: {len(stems)} files"
    prefixes = Counter(stem.split("_")[0] for stem in stems if stem not in ("__init__", "__main__"))
    assert not [prefix for prefix, times in prefixes.items() if times >= 3], f"{folder}: {prefixes.most_common(1)}"


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


HEAVY = (
    "IPython", "PIL", "fontTools", "ipywidgets", "joblib", "learn2learn", "matplotlib", "nbformat", "pandas", "pooch",
    "requests", "scipy", "seaborn", "skimage", "sklearn",
)  # fmt: skip


def test_importing_the_house_brings_nothing_heavy_but_torch():
    """Plotting and widgets open on first use, tables and solvers of others where they are used: imports stay fast."""
    code = (
        "import sys, torch; before = set(sys.modules); import explainlib; "
        f"print([m for m in {HEAVY} if m in sys.modules and m not in before])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=HOUSE.parent, timeout=120)
    assert run.stdout.strip() == "[]", run.stdout + run.stderr
