"""The record of races, one JSON file: a race that is done is kept, and is run again only if its sizes have changed."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.peers.harness import ROOT, ChildError, run_race, runs_of
from benchmarks.peers.race import OWN, Race

RECORD = ROOT / "benchmarks" / "peers" / "record.json"
REHEARSAL = ROOT / "results" / "peers-quick.json"


def read(path: Path) -> dict[str, object]:
    """Return the record, empty if there is none."""
    return json.loads(path.read_text()) if path.exists() else {"races": {}}


def run(race: Race, path: Path, *, quick: bool = False, again: bool = False) -> bool:
    """Run a race unless the record has it, write it there, and return whether it is done."""
    kept = read(path)["races"].get(race.name)
    if kept is not None and not again and is_same(kept, race, quick=quick):
        print(f"{race.name}: in {path.name} already ({kept['about']['date']}); --again runs it again", flush=True)
        return True
    began = time.perf_counter()
    try:
        found = run_race(race, quick=quick)
    except ChildError as error:
        print(f"{race.name}: {error}", flush=True)
        return False
    found["about"] = about(race) | {"took": round(time.perf_counter() - began, 1), "quick": quick}
    record = read(path)  # another race may have been written meanwhile
    record["races"][race.name] = found
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".tmp")
    part.write_text(json.dumps(rounded(record), indent=1) + "\n")
    part.replace(path)
    print(summary(race, found), flush=True)
    return not any("failed" in side for side in found["sides"].values())


def is_same(kept: dict[str, object], race: Race, *, quick: bool) -> bool:
    """Return whether a kept race has today's sizes, runs and sides, all of which ran or cannot run here."""
    told = json.loads(json.dumps(race.sizes(quick=quick)))
    if kept["sizes"] != told or kept["runs"] != runs_of(race, quick=quick):
        return False
    done = {name for name, side in kept["sides"].items() if "failed" not in side}
    return all(side.name in done or side.absent for side in race.sides)


def about(race: Race) -> dict[str, object]:
    """Return date, machine and versions."""
    versions = {"python": platform.python_version()}
    for library in sorted(({side.library for side in race.sides} | {OWN, "torch", "numpy"}) - {"PyTorch"}):
        try:
            versions[library] = version(library)
        except PackageNotFoundError:
            versions[library] = "source" if library == OWN else "not installed"
    return {
        "date": datetime.date.today().isoformat(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "commit": commit(),
        "versions": versions,
    }


def commit() -> str:
    """Return the commit of explainlib, or nothing outside a repository."""
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip()


def processor() -> str:
    """Return the processor's name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def rounded(value: object) -> object:
    """Return numbers with five significant digits."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    return [rounded(each) for each in value] if isinstance(value, list) else value


def summary(race: Race, found: dict[str, object]) -> str:
    """Return a few lines for the terminal."""
    lines = [f"{race.name} (load {found['load'][0]:.1f}):"]
    for name, side in found["sides"].items():
        if "failed" in side:
            lines.append(f"  {name:<32} failed: {side['failed']}")
            continue
        numbers = [f"{side['seconds']:8.3f} s", f"{side['processor_seconds']:8.3f} s of processor"]
        if "memory" in side:
            numbers.append(f"{side['memory']['above'] / 1e6:8.1f} MB")
        for key in ("agreement", "reference"):
            if side.get(key):
                numbers.append(f"{key} {side[key]['pearson']:.4f} {side[key]['relative']:.1e}")
        if "truth" in side:
            numbers.append("LDS {value:.3f} [{low:.3f}, {high:.3f}]".format(**side["truth"]))
        lines.append(f"  {name:<32} {', '.join(numbers)}")
    lines += [f"  {name:<32} {told}" for name, told in found["skipped"].items()]
    return "\n".join(lines)
