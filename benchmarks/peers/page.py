"""``docs/peers.md`` from the record: every number and every sentence on who won stands between marks."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks.peers import record
from benchmarks.peers.race import Race, Side
from benchmarks.peers.races import RACES
from explainlib.studies.documents import fill_marks

PAGE = record.ROOT / "docs" / "peers.md"
MISSING = "*Not run yet.*"


def write(path: Path = record.RECORD, out: Path | None = None) -> Path:
    """Fill the page's marks from a record, and return where it is written."""
    kept, out = record.read(path)["races"], out or PAGE
    out.write_text(document(PAGE.read_text(), kept))
    return out


def document(text: str, kept: dict[str, dict]) -> str:
    """Return the page with its marks filled from the races of a record.

    Marks: ``peers overview``, ``peers machine``, ``peers losses``, and ``peers race NAME`` for each race.
    """

    def fill(words: str) -> str:
        kind, *rest = words.split()[1:]
        if kind == "race":
            (name,) = rest
            return "\n" + (of_race(RACES[name], kept[name]) if name in kept else MISSING) + "\n"
        return "\n" + {"overview": overview, "machine": machine, "losses": losses}[kind](kept) + "\n"

    return fill_marks(text, fill)


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table, all but the first column to the right."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def duels(kept: dict[str, dict]) -> list[tuple[Race, Side, dict, dict]]:
    """Return (race, side, explainlib's record, the side's record) for every side that has a bar and has run."""
    found = []
    for name, race in RACES.items():
        sides = kept.get(name, {}).get("sides", {})
        for side in race.sides:
            both = [sides.get(race.opponent(side), {}), sides.get(side.name, {})]
            if side.bar is not None and all("seconds" in one for one in both):
                found.append((race, side, *both))
    return found


def speed(own: dict, other: dict) -> float:
    """Return the other's seconds over explainlib's: above 1 explainlib is faster."""
    return other["seconds"] / own["seconds"]


def memory(own: dict, other: dict) -> float | None:
    """Return explainlib's memory over the other's: below 1 explainlib takes less."""
    both = [one.get("memory", {}).get("above") for one in (own, other)]
    return both[0] / both[1] if all(both) else None


def overview(kept: dict[str, dict]) -> str:
    """Return one line a duel: times as fast, bar, memory, bar."""
    rows = []
    for race, side, own, other in duels(kept):
        times, share = speed(own, other), memory(own, other)
        wanted = "" if side.bar.memory is None else f"at most {side.bar.memory:g}"
        met = times >= side.bar.speed and (side.bar.memory is None or (share is not None and share <= side.bar.memory))
        cells = [f"[{race.title}](#{anchor(race)})", side.name, f"{times:.2f}", f"{side.bar.speed:g}"]
        rows.append([*cells, "-" if share is None else f"{share:.2f}", wanted, "yes" if met else "no"])
    head = ["race", "beside", "times as fast", "wanted", "times its memory", "wanted", "met"]
    return table(head, rows) if rows else MISSING


def losses(kept: dict[str, dict]) -> str:
    """Return a sentence for every duel that explainlib loses in time or memory."""
    lines = []
    for race, side, own, other in duels(kept):
        times, share = speed(own, other), memory(own, other)
        told = []
        if times < 1:
            told.append(f"takes {1 / times:.2f} times its seconds")
        if share is not None and share > 1:
            told.append(f"takes {share:.2f} times its memory")
        if told:
            lines.append(f"- {race.title}, beside {side.name}: explainlib {' and '.join(told)}.")
    return "\n".join(lines) or "- None of these."


def machine(kept: dict[str, dict]) -> str:
    """Return dates, processor, load and versions."""
    if not kept:
        return MISSING
    about = [race["about"] for race in kept.values()]
    loads = [load for race in kept.values() for load in race["load"]]
    versions: dict[str, set[str]] = {}
    for each in about:
        for library, number in each["versions"].items():
            versions.setdefault(library, set()).add(number)
    told = ", ".join(f"{library} {' / '.join(sorted(numbers))}" for library, numbers in sorted(versions.items()))
    dates, processors = sorted({each["date"] for each in about}), sorted({each["processor"] for each in about})
    cores = max(each["cores"] for each in about)
    text = f"Run on {' and '.join(dates)} on {' / '.join(processors)} with {cores} cores. Versions: {told}."
    if max(loads) > 1.5:
        text += (
            f" The machine was shared with other work: between {min(loads):.1f} and {max(loads):.1f} processes wanted "
            "its cores on average. Sides take turns, so both bear it; the processor's seconds stand beside the clock's."
        )
    return text


def anchor(race: Race) -> str:
    """Return the anchor that a heading of the race's title has: small letters, no punctuation, hyphens for spaces."""
    return re.sub(r"[^\w\- ]", "", race.title.lower()).replace(" ", "-")


def of_race(race: Race, kept: dict) -> str:
    """Return a race's table and what has to be known about it."""
    sizes = ", ".join(f"{key} {value}" for key, value in kept["sizes"].items())
    lines = [f"{kept['told'] + '; ' if kept['told'] else ''}{sizes}; medians of {kept['runs']} runs each.", ""]
    sides = [side for side in race.sides if side.name in kept["sides"]]
    ran = [side for side in sides if "seconds" in kept["sides"][side.name]]
    truth = any("truth" in kept["sides"][side.name] for side in ran)
    known = any("reference" in kept["sides"][side.name] for side in ran)
    head = ["side", "seconds", "processor's", "memory, MB", "process, MB", "Pearson", "difference"]
    head += ["Pearson to reference", "difference"] * known + ["linear datamodeling score"] * truth
    lines.append(table(head, [_row(race, side, kept["sides"][side.name], known, truth) for side in ran]))
    lines += ["", "\n".join(f"- {side.name}: {side.how}.{_differs(side)}" for side in sides)]
    lines += [f"- {side.name} failed: {kept['sides'][side.name]['failed']}" for side in sides if side not in ran]
    lines += [f"- {told}" for told in kept["skipped"].values()]
    if race.facts:
        lines += ["", race.facts]
    return "\n".join(lines)


def _row(race: Race, side: Side, found: dict, known: bool, truth: bool) -> list[str]:
    memory_ = found.get("memory") or {}
    cells = [side.name, _seconds(found["seconds"]), _seconds(found["processor_seconds"])]
    cells += [f"{memory_[key] / 1e6:,.0f}" if key in memory_ else "-" for key in ("above", "peak")]
    cells += _agreement(found.get("agreement"))
    if known:
        cells += _agreement(found.get("reference"))
    if truth:
        cells.append("{value:.3f} [{low:.3f}, {high:.3f}]".format(**found["truth"]))
    return cells


def _agreement(found: dict | None) -> list[str]:
    return ["-", "-"] if not found else [f"{found['pearson']:.4f}", f"{found['relative']:.1e}"]


def _seconds(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _differs(side: Side) -> str:
    return f" Differs: {side.differs}." if side.differs else ""
