"""The claims R1 to R8 of bilevel data influence: which numbers of the study's tables they are about.

The unit is a seed: each gives one number a claim. "Close" means inside ``CLOSE`` of accuracy and closer than no edit at
all. A claim has to hold for every inner problem that gives it a chance; where none does, its premise is absent:

    learning    the learner is better on new tasks than its start (lam = 0, or the first weights of a head)
    room        removing exactly the tasks with wrong labels raises the accuracy on new tasks (R5, R6)

Tables of an earlier version keep neither the accuracy at the start nor the removal of exactly those tasks. Their labels
are dealt anew in each task, and their learner is known to be worse than its start (``docs/bilevel_study.md``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas

from explainlib.studies.claims import (
    ABSENT,
    BILEVEL,
    CLOSE,
    Evidence,
    by_cluster,
    judged,
    student_interval,
)

Tables = Mapping[str, pandas.DataFrame]
Values = dict[int, float]  # by seed
EXACT, ORACLE = "task influence", "oracle"
SIMPLE = ("gradient product", "cosine", "raw loss")
EDITED = {"formula": "edited", "Newton step": "edited_newton", "solved again": "accuracy"}
UNLEARNED = "the learner is not better on new tasks than its start"
NO_ROOM = "removing exactly the tasks with wrong labels does not raise the accuracy on new tasks"
UNKNOWN = "labels are dealt anew in each task, and the learner is worse than its start (docs/bilevel_study.md)"


@dataclass(frozen=True)
class Asked:
    """What one claim asks of the tables.

    Attributes:
        table: its name.
        values: one number a seed, from the rows of an inner problem.
        context: what stands beside them.
        learning: whether the learner has to be better than its start.
        room: whether the oracle's removal has to help.
        ahead: by how much task influence is ahead of a control, one number a seed, from the rows and its name; None
            where no control could take its place.
    """

    table: str
    values: Callable[[pandas.DataFrame], Values]
    context: Callable[[pandas.DataFrame], str]
    learning: bool = True
    room: bool = False
    ahead: Callable[[pandas.DataFrame, str], Values] | None = None


def bilevel_claims(tables: Tables) -> pandas.DataFrame:
    """Return the claims with verdicts, from the tables of the study."""
    return judged(BILEVEL, bilevel_evidence(tables))


def bilevel_evidence(tables: Tables) -> dict[str, Evidence]:
    """Return what the tables of the study say about each claim, by its id."""
    editing, removal = tables["editing"], tables["removal"]
    learns = {inner: _learns(part) for inner, part in editing.groupby("inner", sort=False)}
    room = {inner: _has_room(part) for inner, part in removal.groupby("inner", sort=False)}
    return {name: _evidence(asked, tables[asked.table], learns, room) for name, asked in ASKED.items()}


def _evidence(
    asked: Asked, table: pandas.DataFrame, learns: Mapping[str, str | None], room: Mapping[str, str | None]
) -> Evidence:
    """Return one comparison an inner problem that has a chance; of all of them where none has."""
    parts = {str(inner): part for inner, part in table.groupby("inner", sort=False)}
    missing = {
        inner: (learns[inner] if asked.learning else None) or (room[inner] if asked.room else None) for inner in parts
    }
    chosen = [inner for inner in parts if missing[inner] is None] or list(parts)
    comparisons = tuple(by_cluster(inner, asked.values(parts[inner])) for inner in chosen)
    controls = "; ".join(f"{inner}: {asked.context(part)}" for inner, part in parts.items())
    reasons = dict.fromkeys(reason for reason in missing.values() if reason)
    withheld = (ABSENT, "; ".join(reasons)) if all(missing.values()) else None
    notes = "; ".join(f"{inner} is left out: {reason}" for inner, reason in missing.items() if reason and not withheld)
    return Evidence(comparisons, controls, withheld, notes, "" if withheld else _caveat(asked, parts, chosen))


def _caveat(asked: Asked, parts: Mapping[str, pandas.DataFrame], chosen: Sequence[str]) -> str:
    """Return which simple controls do as well: task influence is not ahead of them by an interval."""
    if asked.ahead is None:
        return ""
    names = [n for n in SIMPLE if not all(_above(asked.ahead(parts[i], n)) for i in chosen if n in _methods(parts[i]))]
    return f"but simpler controls do as well: {', '.join(names)}" if names else ""


def _methods(table: pandas.DataFrame) -> set[str]:
    return set(table["method"])


def _seeds(table: pandas.DataFrame, method: str, value: Callable[[pandas.DataFrame], pandas.Series] | str) -> Values:
    """Return the mean of a column, or of a function of the rows, by seed, for one method."""
    chosen = table[table["method"] == method]
    column = chosen[value] if isinstance(value, str) else value(chosen)
    return {int(seed): float(mean) for seed, mean in column.groupby(chosen["seed"]).mean().items()}


def _above(values: Values) -> bool:
    """Return whether a premise is seen: an interval above zero; a single seed cannot deny it, nor seeds all alike."""
    mean, low, _ = (float(end) for end in student_interval(list(values.values())))
    return len(values) < 2 or low > 0 or (low == -math.inf and mean > 0)


def _learns(editing: pandas.DataFrame) -> str | None:
    """Return why the premise of a learner worth having is absent, else None."""
    if "accuracy_start" not in editing:
        return UNKNOWN
    gain = _seeds(editing, "solved again", lambda rows: rows["accuracy_before"] - rows["accuracy_start"])
    return None if _above(gain) else UNLEARNED


def _has_room(removal: pandas.DataFrame) -> str | None:
    """Return why the premise of tasks whose removal helps is absent, else None."""
    gain = _seeds(removal, ORACLE, _gain)
    if not gain:
        return UNKNOWN
    return None if _above(gain) else NO_ROOM


def _gain(rows: pandas.DataFrame) -> pandas.Series:
    return rows["accuracy"] - rows["accuracy_before"]


def _gap(rows: pandas.DataFrame) -> pandas.Series:
    return (rows["accuracy"] - rows["accuracy_solved"]).abs()


def _unedited_gap(rows: pandas.DataFrame) -> pandas.Series:
    return (rows["accuracy_before"] - rows["accuracy_solved"]).abs()


def _format_interval(values: Values, digits: int = 3) -> str:
    """Return a mean with its interval over seeds, in words."""
    if not values:
        return "none"
    mean, low, high = (float(end) for end in student_interval(list(values.values())))
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]" if high < float("inf") else f"{mean:.{digits}f}"


def _means(table: pandas.DataFrame, methods: Sequence[str], value: object = "accuracy") -> str:
    return ", ".join(
        f"{name} {_format_interval(_seeds(table, name, value))}" for name in methods if name in set(table["method"])
    )


def _largest_removal(editing: pandas.DataFrame) -> pandas.DataFrame:
    return editing[editing["count"] == editing["count"].max()]


def _r1(editing: pandas.DataFrame) -> Values:
    most = _largest_removal(editing)
    own, none = _seeds(most, EXACT, _gap), _seeds(most, "no edit", _gap) or _seeds(most, EXACT, _unedited_gap)
    return {seed: min(CLOSE - own[seed], none[seed] - own[seed]) for seed in own}


def _r1_context(editing: pandas.DataFrame) -> str:
    names = (EXACT, "leave-out Newton step", "no edit", "first order", "Gamma", "gradient ascent")
    columns = [f"accuracy{part}" for part in ("_start", "_before", "") if f"accuracy{part}" in editing]
    again = _largest_removal(editing)
    accuracies = ", ".join(f"{name} {_format_interval(_seeds(again, 'solved again', name))}" for name in columns)
    return f"solved again: {accuracies}; gaps: {_means(again, names, _gap)}"


def _r2(editing: pandas.DataFrame) -> Values:
    short = _seeds(_largest_removal(editing), "direct", lambda rows: rows["accuracy_solved"] - rows["accuracy"])
    return {seed: value - CLOSE for seed, value in short.items()}


def _r2_context(editing: pandas.DataFrame) -> str:
    moved = "identically zero, the model does not move" if "head" not in set(editing["inner"]) else "for the head"
    return f"gaps: {_means(_largest_removal(editing), ('direct', 'no edit', EXACT), _gap)}; direct is {moved}"


def _share_of_seconds(editing: pandas.DataFrame) -> Values:
    own, again = (_seeds(editing, name, "seconds") for name in (EXACT, "solved again"))
    return {seed: own[seed] / again[seed] for seed in own}


def _r3(editing: pandas.DataFrame) -> Values:
    return {seed: 0.25 - share for seed, share in _share_of_seconds(editing).items()}


def _r3_context(editing: pandas.DataFrame) -> str:
    return f"{_format_interval(_share_of_seconds(editing), 2)} of solving again from the first weights"


def _many_examples(examples: pandas.DataFrame) -> pandas.DataFrame:
    """Return the rows of many examples; the part takes the place of a method."""
    return examples[examples["removed"] > 1].assign(method=lambda rows: rows["part"])


def _r4(examples: pandas.DataFrame) -> Values:
    many, values = _many_examples(examples), []
    for part in ("training", "validation"):
        own, none = (
            _seeds(many, part, _gap),
            _seeds(many, part, lambda r: (r["accuracy_before"] - r["accuracy_solved"]).abs()),
        )
        share = _seeds(many, part, lambda rows: rows["seconds"] / rows["seconds_cold"])
        values.append({s: min(CLOSE - own[s], none[s] - own[s], 0.04 - share[s]) for s in own})
    return {seed: min(each[seed] for each in values) for seed in values[0]}


def _r4_context(examples: pandas.DataFrame) -> str:
    many, said = _many_examples(examples), []
    for part in ("training", "validation"):
        none = _format_interval(_seeds(many, part, _unedited_gap))
        share = _format_interval(_seeds(many, part, lambda rows: rows["seconds"] / rows["seconds_cold"]), 2)
        said.append(f"{part} gap {_format_interval(_seeds(many, part, _gap))}, no edit {none}, {share} of the seconds")
    return ", ".join(said)


def _r5(removal: pandas.DataFrame) -> Values:
    exact, tracin, trak, ekfac = (
        _seeds(removal, name, "accuracy") for name in (EXACT, "TracIn", "TRAK, flat", "EK-FAC IF, flat")
    )
    return {
        s: min(CLOSE - abs(tracin[s] - exact[s]), exact[s] - trak[s] - CLOSE, exact[s] - ekfac[s] - CLOSE)
        for s in exact
    }


def _r5_context(removal: pandas.DataFrame) -> str:
    before = _format_interval(_seeds(removal, EXACT, "accuracy_before"))
    names = list(dict.fromkeys(removal["method"]))
    said = f"before {before}, without the worst 40%: {_means(removal, names)}"
    if "accuracy_flat" in removal:
        said += f"; the flat classifier {_format_interval(_seeds(removal, EXACT, 'accuracy_flat'))}"
    oracle = removal[removal["method"] == ORACLE]
    if not len(oracle) or "edited" not in removal or oracle["edited"].isna().any():
        return said
    by = [f"{name} {_format_interval(_seeds(removal, ORACLE, column))}" for name, column in EDITED.items()]
    return f"{said}; the oracle's removal as an edit: {', '.join(by)}"


def _at(harmful: pandas.DataFrame, wrong: float, inspected: float) -> pandas.DataFrame:
    return harmful[(harmful["flipped"] == wrong) & (harmful["inspected"] == inspected)]


def _r6(harmful: pandas.DataFrame, control: str = "random") -> Values:
    differences = []
    for wrong in sorted(harmful["flipped"].unique()):
        own, chance = (_seeds(_at(harmful, wrong, 0.25), name, "accuracy") for name in (EXACT, control))
        differences.append({seed: own[seed] - chance[seed] for seed in own})
    return {seed: min(each[seed] for each in differences) for seed in differences[0]}


def _r6_context(harmful: pandas.DataFrame) -> str:
    said = []
    for wrong in sorted(harmful["flipped"].unique()):
        part = _at(harmful, wrong, 0.25)
        before = _format_interval(_seeds(part, EXACT, "accuracy_before"))
        names = (EXACT, "gradient product", "cosine", "raw loss", "TracIn", "random", ORACLE)
        said.append(f"{wrong:.0%} wrong, before {before}: {_means(part, names)}")
    return "; ".join(said)


def _r7(harmful: pandas.DataFrame) -> Values:
    found = _seeds(_at(harmful, harmful["flipped"].min(), 0.4), EXACT, "found")
    return {seed: value - 0.95 for seed, value in found.items()}


def _r7_ahead(harmful: pandas.DataFrame, control: str) -> Values:
    part = _at(harmful, harmful["flipped"].min(), 0.4)
    own, other = (_seeds(part, name, "found") for name in (EXACT, control))
    return {seed: own[seed] - other[seed] for seed in own}


def _r7_context(harmful: pandas.DataFrame) -> str:
    said = []
    for wrong in sorted(harmful["flipped"].unique()):
        names = (EXACT, "gradient product", "cosine", "raw loss", "random")
        most = min(1.0, 0.4 / wrong)
        said.append(
            f"of {wrong:.0%} wrong at most {most:.0%} can be found: {_means(_at(harmful, wrong, 0.4), names, 'found')}"
        )
    return "; ".join(said)


def _r8(descending: pandas.DataFrame, control: str = "random") -> Values:
    last = descending[descending["share"] == 0.4]
    own, chance = (_seeds(last, name, "accuracy") for name in (EXACT, control))
    return {seed: chance[seed] - own[seed] for seed in own}


def _r8_context(descending: pandas.DataFrame) -> str:
    last = descending[descending["share"] == 0.4]
    before = _format_interval(_seeds(last, "random", "accuracy_before"))
    return f"before {before}, without 40%: {_means(last, list(dict.fromkeys(last['method'])))}"


ASKED = {
    "R1": Asked("editing", _r1, _r1_context),
    "R2": Asked("editing", _r2, _r2_context),
    "R3": Asked("editing", _r3, _r3_context, learning=False),
    "R4": Asked("examples", _r4, _r4_context),
    "R5": Asked("removal", _r5, _r5_context, room=True),
    "R6": Asked("harmful", _r6, _r6_context, room=True, ahead=_r6),
    "R7": Asked("harmful", _r7, _r7_context, learning=False, ahead=_r7_ahead),
    "R8": Asked("descending", _r8, _r8_context, ahead=_r8),
}
