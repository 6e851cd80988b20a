"""Run a sample: copy the tree, apply one change, run the mirroring tests, record what happened, put the file back.

``python -m benchmarks mutants --seed 1 --number 60 --jobs 2 --keep FILE``. What is in FILE is not run again: one JSON
line for each room (its tests without a change, which have to pass, and their seconds) and one for each mutant.
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

from benchmarks.mutants.forked import SURVIVED, load, tested
from benchmarks.mutants.rooms import mirror, modules, room_of, room_tests
from benchmarks.mutants.sample import KINDS, Mutant, sample

ROOT = Path(__file__).parents[2]
LEFT_OUT = (".git", ".venv", "__pycache__", ".*_cache", ".hypothesis", "results", "student", "build", "dist")
PATIENCE, MARGIN = 3.0, 60.0  # times what the room's tests take without a change, and seconds: then a mutant has died


def main(words: Sequence[str]) -> int:
    """Run what is missing of a sample and print its table; 1 if a room's tests fail without any change."""
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
        with ThreadPoolExecutor(given.jobs) as pool:
            rooms = sorted({room_of(ROOT / mutant.path, ROOT) for mutant in mutants} - set(record.rooms))
            list(pool.map(lambda room: _run_room(room, trees, record), rooms))
            bad = [room for room, line in record.rooms.items() if line["fate"] != SURVIVED]
            if bad:
                print(f"the tests of {', '.join(bad)} fail without any change; make them pass, and delete their lines.")
                return 1
            missing = [mutant for mutant in mutants if mutant.name not in record.mutants]
            list(pool.map(lambda mutant: _run_mutant(mutant, trees, record), missing))
    print(table([record.mutants[mutant.name] for mutant in mutants]))
    return 0


def table(lines: Sequence[dict]) -> str:
    """Return the counts of each kind, and the survivors, as Markdown."""
    rows = ["| kind | mutants | died | survived |", "|---|---|---|---|"]
    for kind in (*KINDS, "all"):
        fates = [line["fate"] for line in lines if kind in (line["kind"], "all")]
        lived = fates.count(SURVIVED)
        rows.append(f"| {kind} | {len(fates)} | {len(fates) - lived} | {lived} |")
    return "\n".join([*rows, "", *(f"- `{line['mutant']}`" for line in lines if line["fate"] == SURVIVED)])


class Record:
    """The lines of a file, each appended as soon as it is known."""

    def __init__(self, path: Path) -> None:
        self.path, self.lock = path, threading.Lock()
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        self.rooms = {line["room"]: line for line in lines if "room" in line}
        self.mutants = {line["mutant"]: line for line in lines if "mutant" in line}

    def add(self, known: dict[str, dict], key: str, line: dict) -> None:
        with self.lock:
            known[key] = line
            with self.path.open("a") as file:
                file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)


def _run_room(room: str, trees: queue.Queue[Path], record: Record) -> None:
    tree = trees.get()
    own = [tree / path.relative_to(ROOT) for path in modules(ROOT) if room_of(path, ROOT) == room]
    outcome = tested(tree, [*own, *room_tests(room, tree)], limit=3600.0)
    trees.put(tree)
    record.add(record.rooms, room, {"room": room, **outcome._asdict()})


def _run_mutant(mutant: Mutant, trees: queue.Queue[Path], record: Record) -> None:
    tree = trees.get()
    path = tree / mutant.path
    limit = MARGIN + PATIENCE * record.rooms[room_of(path, tree)]["seconds"]
    tests = mirror(path, tree)
    source = path.read_bytes()
    try:
        _write(path, mutant.applied(source))
        outcome = tested(tree, tests, limit=limit)
    finally:
        _write(path, source)
        trees.put(tree)
    record.add(record.mutants, mutant.name, {"mutant": mutant.name, "kind": mutant.kind, **outcome._asdict()})


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
    parser.add_argument("--list", action="store_true", help="print the sample and run nothing")
    return parser
