"""Every name that is used is defined: ruff's check, without the shapes in annotations, which it takes for names."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def undefined(*folders: Path) -> list[str]:
    """Return the undefined names outside of strings; inside are shapes such as "n" (jaxtyping)."""
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache", "--select", "F821"]
    words = ["--target-version", "py311", "--output-format", "json", *map(str, folders)]
    found = json.loads(subprocess.run([*command, *words], capture_output=True, text=True).stdout)
    told = []
    for problem in found:
        place, path = problem["location"], Path(problem["filename"])
        before = path.read_text(encoding="utf-8").splitlines()[place["row"] - 1][: place["column"] - 1]
        if before.count('"') % 2 == 0:
            told.append(f"{path}:{place['row']}: {problem['message']}")
    return told


def test_no_name_is_undefined():
    assert undefined(*(ROOT / folder for folder in ("explainlib", "tests", "benchmarks"))) == []


def test_a_planted_one_is_found(tmp_path):
    (tmp_path / "planted.py").write_text('from jaxtyping import Float\n\ndef f(x: Float["n"]):\n    return moved(x)\n')
    assert len(undefined(tmp_path)) == 1
