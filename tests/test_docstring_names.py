"""What the docstrings and messages of the mathematical rooms name exists: ``name``, ``name(...)``, xl.room.name."""

import ast
import re
from pathlib import Path

import pytest

import explainlib as xl

HOUSE = Path(xl.__file__).parent
FILES = sorted(HOUSE.rglob("*.py"))
MATHEMATICS = (
    "curvature", "influence", "layerwise", "losses.py", "meta", "representers", "retraining.py", "risk", "solvers", "training",
)  # fmt: skip
QUOTED = re.compile(r"``([A-Za-z_][\w.]*)(?:\([^`]*)?``")
QUALIFIED = re.compile(r"\bxl((?:\.[A-Za-z_]\w*)+)")


def defined(trees) -> set[str]:
    """Return the names of functions, classes, arguments, variables, attributes and keywords."""
    names = set()
    for tree in trees:
        for node in ast.walk(tree):
            for field in ("name", "arg", "id", "attr"):
                value = getattr(node, field, None)
                names |= {value} if isinstance(value, str) else set()
    return names


TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
MODULES = {path.stem if path.stem != "__init__" else path.parent.name for path in FILES}
KNOWN = defined(TREES.values()) | MODULES | {"None", "True", "False"}


def strings(tree) -> list[str]:
    return [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]


def unknown(tree) -> list[str]:
    """Return what the strings of a file name and nothing in the package is called."""
    found = []
    for text in strings(tree):
        names = [name for name in QUOTED.findall(text) if not name.startswith("torch.")]
        found += [name for name in names if name.rstrip(".").rpartition(".")[2] not in KNOWN]
        found += [f"xl{path}" for path in QUALIFIED.findall(text) if not _resolves(path)]
    return found


def _resolves(path: str) -> bool:
    thing = xl
    for name in path.split(".")[1:]:
        if isinstance(thing, type) and name in getattr(thing, "__annotations__", {}):
            return True
        if not hasattr(thing, name):
            return False
        thing = getattr(thing, name)
    return True


@pytest.mark.parametrize("room", MATHEMATICS)
def test_names_in_strings_exist(room):
    paths = [path for path in FILES if path.relative_to(HOUSE).parts[0] == room]
    assert paths and [(path.name, name) for path in paths for name in unknown(TREES[path])] == []


def test_planted_ones_are_found():
    text = '"""See ``group_loss_chnge`` and ``removal_effect(order=1)``, xl.influence.removal_effect, xl.influence.nothing."""'
    assert unknown(ast.parse(text)) == ["group_loss_chnge", "xl.influence.nothing"]
