"""How the error of one removal falls with the number of tasks, for bilevel influence.

``python -m benchmarks.bilevel_size`` solves the study's learners (ten digits as different hands write them, 4 x 4
pixels of MNIST's test pictures) with 20 to 2,000 tasks, the outer ridge in proportion, and compares the
predicted change of the meta-parameters with that of solving again without one task, for ten tasks each of three seeds.
An error of 1 is that of no edit at all. Rows go to a file as they come, and a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

from explainlib import compute
from explainlib.studies.bilevel.problem import SolvedLearner
from explainlib.studies.bilevel.writers import writers

SIZES, SEEDS, SINGLES, STRENGTH, RIDGE = (20, 60, 180, 600, 2000), 3, 10, 1.0, 1 / 40
COLUMNS = ("inner problem", "tasks", "seeds", "error, exact S", "by seed", "error, Gamma", "cosine")


def measure(inner: str, count: int, seed: int, data: str) -> dict[str, object]:
    """Return the errors of ten single removals from one solved learner."""
    started = time.perf_counter()
    tasks, _ = writers(count, seed, data)
    solved = SolvedLearner(inner, STRENGTH, RIDGE * count, tasks, seed)
    exact, gamma = (solved.rows(name) for name in ("exact", "Gamma"))
    chosen = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:SINGLES].tolist()
    row: dict[str, object] = {"inner": inner, "tasks": count, "seed": seed, "exact": [], "Gamma": [], "cosine": []}
    for task in chosen:
        moved = solved.without([task], warm=True) - solved.lam
        for name, found in (("exact", exact), ("Gamma", gamma)):
            row[name].append(float((moved + found[task]).norm() / moved.norm()))
        row["cosine"].append(float(torch.nn.functional.cosine_similarity(moved, -exact[task], dim=0)))
    return row | {"seconds": time.perf_counter() - started}


def table(rows: list[dict[str, object]]) -> str:
    """Return medians over removals, and the smallest and largest seed's median."""
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    for inner in ("proximal", "head"):
        for count in SIZES:
            own = [row for row in rows if row["inner"] == inner and row["tasks"] == count]
            if not own:
                continue
            by_seed = [statistics.median(row["exact"]) for row in own]
            middle = {
                name: statistics.median(value for row in own for value in row[name])
                for name in ("exact", "Gamma", "cosine")
            }
            spread = f"{min(by_seed):.3f} to {max(by_seed):.3f}"
            cells = (inner, f"{count:,}", str(len(own)), f"{middle['exact']:.3f}", spread)
            lines.append(f"| {' | '.join(cells)} | {middle['Gamma']:.3f} | {middle['cosine']:.3f} |")
    return "\n".join(lines)


def main() -> None:
    """Read the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bilevel_size")
    parser.add_argument("--data", choices=("mnist", "digits"), default="mnist")
    parser.add_argument("--most", type=int, default=SIZES[-1], help="tasks")
    parser.add_argument("--file", type=Path, default=Path("results/bilevel-size.jsonl"))
    options = parser.parse_args()
    options.file.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in options.file.read_text().splitlines()] if options.file.is_file() else []
    done = {(row["inner"], row["tasks"], row["seed"]) for row in rows}
    torch.set_num_threads(1)
    for count in (size for size in SIZES if size <= options.most):
        for inner in ("proximal", "head"):
            for seed in range(SEEDS):
                if (inner, count, seed) in done:
                    continue
                with compute.settings():
                    rows.append(measure(inner, count, seed, options.data))
                with options.file.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
                print(f"{inner}, {count:,} tasks, seed {seed}: {rows[-1]['seconds']:.0f} s", flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
