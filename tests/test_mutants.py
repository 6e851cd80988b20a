"""The sample of mutants: what is changed and what is not, which tests are run, and what is kept of an interrupted run."""

import json
from pathlib import Path

import pytest

from benchmarks import mutants
from benchmarks.mutants import forked, rooms, run
from benchmarks.mutants.sample import candidates

ROOT = Path(__file__).parents[1]
SOURCE = b'''
"""Text with 1 + 1 < 3."""
from __future__ import annotations
__all__ = ["a"] + ["b"]
Number = int | float
SIZE: Float[Tensor, "3 n"] = 7


@lru_cache(maxsize=8)
def f(x: Float[Tensor, "2 n"], y: int = 2) -> Float[Tensor, ""]:
    """Return 1 - x, for 0 < x."""
    if not x > 0:
        raise ValueError(f"{x + 1} is not above {0}; pass 1 + " + str(-1))
    warn_caller("less than " + str(3 * y), UserWarning)
    # \xc3\xa9 is two bytes
    text = "\xc3\xa9"; return -(x - y) * 2


def g(x) -> bool:
    return x is None or isinstance(x, int | float)


def h():
    return None
'''


def changes(source=SOURCE):
    return {(m.kind, m.before, m.after) for place in candidates(source, "a.py") for m in place}


def test_every_kind_and_nothing_that_is_only_said():
    assert changes() == {
        ("constant", "7", "(8)"),
        ("constant", "7", "(6)"),
        ("constant", "2", "(3)"),
        ("constant", "2", "(1)"),
        ("operator", "not x > 0", "(x > 0)"),
        ("comparison", "x > 0", "(x >= 0)"),
        ("comparison", "x > 0", "(x <= 0)"),
        ("constant", "0", "(1)"),
        ("constant", "0", "(-1)"),
        ("sign", "-(x - y)", "(x - y)"),
        ("sign", "x - y", "(x + y)"),
        ("operator", "-(x - y) * 2", "(-(x - y) / 2)"),
        ("return", "return -(x - y) * 2", "return -(-(x - y) * 2)"),
        (
            "return",
            "return x is None or isinstance(x, int | float)",
            "return not (x is None or isinstance(x, int | float))",
        ),
        ("operator", "x is None or isinstance(x, int | float)", "(x is None and isinstance(x, int | float))"),
        ("comparison", "x is None", "(x is not None)"),
    }


def test_a_mutant_changes_its_own_place_only():
    for place in candidates(SOURCE, "a.py"):
        for mutant in place:
            changed = mutant.applied(SOURCE)
            compile(changed, "a.py", "exec")
            assert changed.startswith(SOURCE[: mutant.start]) and changed.endswith(SOURCE[mutant.end :])
            assert mutant.after.encode() in changed and changed != SOURCE
    (lost,) = [m for place in candidates(SOURCE, "a.py") for m in place if m.before == "x - y"]
    assert 'text = "é"; return -((x + y)) * 2'.encode() in lost.applied(SOURCE)


def test_a_sample_is_its_seed_and_holds_every_kind_alike():
    paths = rooms.modules(ROOT)
    first, again, other = (mutants.sample(ROOT, paths, seed=seed, number=60) for seed in (1, 1, 2))
    assert first == again != other and len({mutant.name for mutant in first}) == 60
    assert {kind: sum(m.kind == kind for m in first) for kind in mutants.KINDS} == dict.fromkeys(mutants.KINDS, 12)
    assert {rooms.room_of(path, ROOT) for path in paths} == set(rooms.ROOMS)


def test_a_module_is_mirrored_by_its_room(tmp_path):
    for name in ("influence/groups/removal", "influence/single", "metrics/ranks", "metrics/deletion", "risk"):
        path = tmp_path / "explainlib" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    tests = {
        "influence/test_a": "", "influence/groups/test_removal": "", "influence/test_z": "removal; removal",
        "test_ranks": "", "test_deletion": "ranks", "test_metrics": "", "test_risk": "removal", "solvers/test_cg": "removal",
    }  # fmt: skip
    for name, text in tests.items():
        path = tmp_path / "tests" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def seen(name):
        *found, module = rooms.mirror(tmp_path / "explainlib" / f"{name}.py", tmp_path)
        assert module.name == f"{Path(name).name}.py"  # its doctests
        return [str(path.relative_to(tmp_path / "tests").with_suffix("")) for path in found]

    assert seen("influence/groups/removal") == ["influence/groups/test_removal", "influence/test_z", "influence/test_a"]
    assert seen("metrics/ranks") == ["test_ranks", "test_deletion", "test_metrics"]
    assert seen("risk") == ["test_risk"]


def test_every_room_has_tests():
    for room in rooms.ROOMS:
        assert rooms.room_tests(room, ROOT), room


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A library of one function, half of it tested, in the place of this one."""
    root = tmp_path / "tree"
    for name, text in {
        "explainlib/__init__.py": "",
        "explainlib/risk.py": "def f(x):\n    return x + 1 if x > 0 else x - 1\n\n\ndef g(n):\n    while n > 0:\n        n -= 1\n",
        "tests/test_risk.py": "from explainlib.risk import f, g\n\n\ndef test_f():\n    assert f(2) == 3\n    g(2)\n",
        "tests/test_retraining.py": "",
        "pyproject.toml": "[tool.pytest.ini_options]\n",
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(run, "ROOT", root)
    monkeypatch.setattr(run, "modules", lambda root: [root / "explainlib" / "risk.py"])
    monkeypatch.setattr(run, "sample", lambda *_, number, **__: [m for place in candidates((root / "explainlib/risk.py").read_bytes(), "explainlib/risk.py") for m in place if m.before in ("x + 1", "x - 1", "n -= 1")][:number])  # fmt: skip
    monkeypatch.setattr(forked, "LOADED", ["pytest"])
    return root


def test_what_dies_survives_and_never_ends(small, tmp_path, capsys):
    keep = tmp_path / "kept.jsonl"
    before = {path: path.read_bytes() for path in small.rglob("*") if path.is_file()}
    words = ["--seed", "1", "--limit", "20", "--keep", str(keep)]
    assert run.main(words) == 0
    assert {path: path.read_bytes() for path in small.rglob("*") if path.is_file()} == before
    fates = {
        line["mutant"].split(": ")[1]: line
        for line in map(json.loads, keep.read_text().splitlines())
        if "mutant" in line
    }
    assert {name: line["fate"] for name, line in fates.items()} == {
        "x + 1 -> (x - 1)": "died",
        "x - 1 -> (x + 1)": "survived",
        "n -= 1 -> n += 1": "timed out",
    }
    assert fates["x + 1 -> (x - 1)"]["by"].endswith("test_risk.py::test_f")
    printed = capsys.readouterr().out
    assert "| sign | 3 | 2 | 1 |" in printed and "- `explainlib/risk.py:2 sign: x - 1 -> (x + 1)`" in printed
    lines = keep.read_text().splitlines(keepends=True)
    keep.write_text("".join(lines[:-1]))  # interrupted before the last
    kept = keep.read_text()
    assert run.main(words) == 0
    assert keep.read_text().startswith(kept) and len(keep.read_text().splitlines()) == len(lines)


def test_a_test_that_fails_anyway_judges_nothing(small, tmp_path, capsys):
    (small / "tests/test_risk.py").write_text("def test_f():\n    assert False\n")
    keep = tmp_path / "kept.jsonl"
    assert run.main(["--seed", "1", "--number", "1", "--keep", str(keep)]) == 1
    assert {json.loads(line)["fate"] for line in keep.read_text().splitlines()} == {"unjudged"}
    assert "fail without any change, too" in capsys.readouterr().out
