"""Which tests mirror a module: the tests of its room, those that name it first, and its own doctests."""

from __future__ import annotations

import re
from pathlib import Path

ROOMS = (
    "influence", "meta", "curvature", "solvers", "representers", "layerwise", "metrics", "training", "risk",
    "retraining",
)  # fmt: skip


def modules(root: Path) -> list[Path]:
    """Return the files of all rooms."""
    found: list[Path] = []
    for room in ROOMS:
        file, folder = root / "explainlib" / f"{room}.py", root / "explainlib" / room
        found += [file] if file.exists() else sorted(folder.rglob("*.py"))
    return found


def room_of(path: Path, root: Path) -> str:
    """Return the room of a module: the first folder, or the file itself."""
    return path.relative_to(root / "explainlib").parts[0].removesuffix(".py")


def room_tests(room: str, root: Path) -> list[Path]:
    """Return tests/<room>/**/test_*.py, and of tests/ the files that are named like the room or one of its modules."""
    names = {room, *(path.stem for path in modules(root) if room_of(path, root) == room)}
    alone = [root / "tests" / f"test_{name}.py" for name in sorted(names)]
    return sorted((root / "tests" / room).rglob("test_*.py")) + [path for path in alone if path.exists()]


def mirror(path: Path, root: Path) -> list[Path]:
    """Return what is run against a change of ``path``: tests that name it, the others of the room, its doctests.

    Doctests come last: collected first, pytest would import the module before the package that holds it.
    """
    word = re.compile(rf"\b{path.stem if path.stem != '__init__' else path.parent.name}\b")

    def key(test: Path) -> tuple[bool, int]:
        return test.stem != f"test_{path.stem}", -len(word.findall(test.read_text()))

    return [*sorted(room_tests(room_of(path, root), root), key=key), path]
