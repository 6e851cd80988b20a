"""Run a sample: copy the tree, apply one change, run the mirroring tests, record what happened, put the file back.

``python -m benchmarks mutants --seed 1 --number 60 --jobs 2 --keep FILE``. FILE gets one JSON line a mutant, as soon as
it is known, and what is in it is not run again. A mutant has died when a test fails that passes without the change, or
when its tests find no end.
"""

from __future__ import annotations

import argparse
import json
import queue
import shutil
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.mutants.forked import DIED, SURVIVED, Outcome, load, tested
from benchmarks.mutants.rooms import mirror, modules
from benchmarks.mutants.sample import KINDS, Mutant, sample

ROOT = Path(__file__).parents[2]
LEFT_OUT = (".git", ".venv", "__pycache__", ".*_cache", ".hypothesis", "results", "build", "dist")
UNJUDGED = "unjudged"


def main(words: Sequence[str]) -> int:
    """Run what is missing of a sample and print its table; 1 if a test fails without any change."""
    given = _parser().parse_args(words)
    mutants = sample(ROOT, modules(ROOT), seed=given.seed, number=given.number)
    if given.list:
        print("\n".join(mutant.name for mutant in mutants))
        return 0
    record = Record(given.keep)
    load()
    with tempfile.TemporaryDirectory() as folder:
        trees: queue.Queue[Path] = queue.Queue()
        for job in range(given.jobs):
            trees.put(_copied(Path(folder) / str(job)))
        missing = [mutant for mutant in mutants if mutant.name not in record.known]
        with ThreadPoolExecutor(given.jobs) as pool:
            list(pool.map(lambda mutant: _run(mutant, trees, record, given.limit), missing))
    lines = [record.known[mutant.name] for mutant in mutants]
    print(table(lines))
    open_ = [line["by"] for line in lines if line["fate"] == UNJUDGED]
    if open_:
        print(f"These fail without any change, too; make them pass and delete their lines: {', '.join(open_)}")
    return 1 if open_ else 0


def table(lines: Sequence[dict]) -> str:
    """Return the counts of each kind, and the survivors, as Markdown."""
    rows = ["| kind | mutants | died | survived |", "|---|---|---|---|"]
    for kind in (*KINDS, "all"):
        fates = [line["fate"] for line in lines if kind in (line["kind"], "all")]
        lived, open_ = fates.count(SURVIVED), fates.count(UNJUDGED)
        rows.append(f"| {kind} | {len(fates)} | {len(fates) - lived - open_} | {lived} |")
    return "\n".join([*rows, "", *(f"- `{line['mutant']}`" for line in lines if line["fate"] == SURVIVED)])


class Record:
    """The lines of a file, each appended as soon as it is known; and which tests were seen to pass."""

    def __init__(self, path: Path) -> None:
        self.path, self.lock = path, threading.Lock()
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        self.known = {line["mutant"]: line for line in lines}
        self.passing = {line["by"] for line in lines if line["fate"] == DIED}

    def add(self, mutant: Mutant, outcome: Outcome) -> None:
        line = {"mutant": mutant.name, "kind": mutant.kind, **outcome._asdict()}
        with self.lock:
            self.known[mutant.name] = line
            with self.path.open("a") as file:
                file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)


def _run(mutant: Mutant, trees: queue.Queue[Path], record: Record, limit: float) -> None:
    tree = trees.get()
    path = tree / mutant.path
    tests = [str(test) for test in mirror(path, tree)]
    source = path.read_bytes()
    try:
        _write(path, mutant.applied(source))
        outcome = tested(tree, tests, limit=limit)
        _write(path, source)
        if outcome.fate == DIED and outcome.by not in record.passing:
            name = outcome.by.split("::")[-1].split("[")[0]
            only = ["-k", name] if "::" in outcome.by else ["--collect-only"]
            if tested(tree, [*tests, *only], limit=limit).fate == SURVIVED:
                record.passing.add(outcome.by)
            else:
                outcome = outcome._replace(fate=UNJUDGED)
    finally:
        _write(path, source)
        trees.put(tree)
    record.add(mutant, outcome)


def _copied(tree: Path) -> Path:
    """Copy the working tree."""
    return shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(*LEFT_OUT), symlinks=True)


def _write(path: Path, source: bytes) -> None:
    """Write a source file and remove what was compiled of it: within a second, Python would not see the change."""
    path.write_bytes(source)
    for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
        compiled.unlink()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks mutants", description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--number", type=int, default=60)
    parser.add_argument("--jobs", type=int, default=1, help="processes, each with a copy of the tree")
    parser.add_argument("--keep", type=Path, default=Path("results/mutants.jsonl"), help="one JSON line a mutant")
    parser.add_argument("--limit", type=float, default=7200.0, help="seconds a mutant; a test alone has 1200")
    parser.add_argument("--list", action="store_true", help="print the sample and run nothing")
    return parser
