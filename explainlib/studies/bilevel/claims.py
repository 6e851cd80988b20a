"""The claims R1 to R8 of bilevel data influence beside what its study saw; one row each, none left out.

The unit is a seed: each gives one number a claim, and the interval is Student's t over seeds. "Close" means inside
``CLOSE`` of accuracy and closer than no edit at all. A claim has to hold for every inner problem that gives it a
chance; where none does, its premise is absent:

    learning    the learner is better on new tasks than its start (lam = 0, or the first weights of a head)
    room        removing exactly the tasks with wrong labels raises the accuracy on new tasks (R5, R6)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pandas

from explainlib.studies.verdicts import Claim, claim_row, t_interval

Tables = Mapping[str, pandas.DataFrame]
Values = dict[int, float]  # by seed
EXACT, ORACLE = "task influence", "oracle"
CLOSE = 0.02  # of accuracy
EDITED = {"formula": "edited", "Newton step": "edited_newton", "solved again": "accuracy"}

R1 = Claim("R1", "Table 1", "editing by task-IF is close to retraining in accuracy", "least of .02 minus the gap to "
           "solving again, and of no edit's gap minus it, most tasks removed")  # fmt: skip
R2 = Claim("R2", "Table 1", "direct-IF is far below in accuracy", "solved again minus direct, minus .02")
R3 = Claim("R3", "Table 1", "task-IF costs 20 to 25% of retraining", "a quarter minus the share of the seconds")
R4 = Claim("R4", "Table 1", "instance-IF, training and validation, is close to retraining at about 2% of the time",
           "least of .02 minus the gap, of no edit's gap minus it, of 4% minus the share of seconds")  # fmt: skip
R5 = Claim("R5", "Table 1", "TracIn comes near task-IF; EK-FAC IF and TRAK do not", "least of .02 minus TracIn's "
           "distance, and of EK-FAC's and TRAK's shortfalls minus .02")  # fmt: skip
R6 = Claim("R6", "Fig 1", "removing by influence score beats random removal (.625 against .55)",
           "accuracy by influence minus random at 25% inspected, least over shares with wrong labels")  # fmt: skip
R7 = Claim("R7", "Fig 1", "nearly all of 80% mislabelled tasks are found at 40% inspected, random is linear",
           "share found at 40% inspected, fewest wrong labels, minus .95")  # fmt: skip
R8 = Claim("R8", "Fig 2", "removing high-influence tasks lowers accuracy more than random removal",
           "accuracy without 40% at random minus without the 40% most helpful")  # fmt: skip


def bilevel_claims(tables: Tables) -> pandas.DataFrame:
    """Return the claims with verdicts, from the tables of the study."""
    editing, examples, removal = tables["editing"], tables["examples"], tables["removal"]
    harmful, descending = tables["harmful"], tables["descending"]
    learns = {inner for inner, part in editing.groupby("inner") if _learns(part)}
    room = {inner for inner, part in removal.groupby("inner") if _above(_seeds(part, ORACLE, _gain))}
    every = set(editing["inner"])
    rows = [
        _judge(R1, editing, learns, _r1, _r1_context),
        _judge(R2, editing, learns, _r2, _r2_context),
        _judge(R3, editing, every, _r3, _r3_context),
        _judge(R4, examples, learns, _r4, _r4_context),
        _judge(R5, removal, learns & room, _r5, _r5_context),
        _judge(R6, harmful, learns & room, _r6, _r6_context),
        _judge(R7, harmful, every, _r7, _r7_context),
        _judge(R8, descending, learns, _r8, _r8_context),
    ]
    return pandas.DataFrame(rows, columns=["id", "place", "printed", "ours", "verdict"])


def _judge(
    claim: Claim,
    table: pandas.DataFrame,
    inners: set[str],
    values: Callable[[pandas.DataFrame], Values],
    context: Callable[[pandas.DataFrame], str],
) -> dict[str, str]:
    """Return the claim's row: its values of the inner problems that have a chance, the least of them by seed."""
    parts = {str(inner): part for inner, part in table.groupby("inner", sort=False)}
    found = [values(part) for inner, part in parts.items() if inner in inners]
    shared = set.intersection(*(set(each) for each in found)) if found else set()
    told = "; ".join(f"{inner}{'' if inner in inners else ', no premise'}: {context(p)}" for inner, p in parts.items())
    return claim_row(claim, [min(each[seed] for each in found) for seed in sorted(shared)], told)


def _seeds(table: pandas.DataFrame, method: str, value: Callable[[pandas.DataFrame], pandas.Series] | str) -> Values:
    """Return the mean of a column, or of a function of the rows, by seed, for one method."""
    chosen = table[table["method"] == method]
    column = chosen[value] if isinstance(value, str) else value(chosen)
    return {int(seed): float(mean) for seed, mean in column.groupby(chosen["seed"]).mean().items()}


def _above(values: Values) -> bool:
    """Return whether a premise is seen: an interval above zero; a single seed cannot deny it."""
    return len(values) < 2 or t_interval(list(values.values()))[1] > 0


def _learns(editing: pandas.DataFrame) -> bool:
    return _above(_seeds(editing, "solved again", lambda rows: rows["accuracy_before"] - rows["accuracy_start"]))


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
    mean, low, high = t_interval(list(values.values()))
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]" if len(values) > 1 else f"{mean:.{digits}f}"


def _means(table: pandas.DataFrame, methods: Sequence[str], value: object = "accuracy") -> str:
    return ", ".join(
        f"{name} {_format_interval(_seeds(table, name, value))}" for name in methods if name in set(table["method"])
    )


def _largest_removal(editing: pandas.DataFrame) -> pandas.DataFrame:
    return editing[editing["count"] == editing["count"].max()]


def _r1(editing: pandas.DataFrame) -> Values:
    own, none = (_seeds(_largest_removal(editing), name, _gap) for name in (EXACT, "no edit"))
    return {seed: min(CLOSE - own[seed], none[seed] - own[seed]) for seed in own}


def _r1_context(editing: pandas.DataFrame) -> str:
    names = (EXACT, "leave-out Newton step", "no edit", "first order", "Gamma", "gradient ascent")
    start = _format_interval(_seeds(editing, "solved again", "accuracy_start"))
    before, after = (
        _format_interval(_seeds(_largest_removal(editing), "solved again", f"accuracy{part}"))
        for part in ("_before", "")
    )
    gaps = _means(_largest_removal(editing), names, _gap)
    return f"accuracy at the start {start}, before {before}, solved again {after}; gaps: {gaps}"


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
    edited = "edited" in removal and removal[removal["method"] == ORACLE]["edited"].notna().all()
    flat = _format_interval(_seeds(removal, ORACLE, "accuracy_flat"))
    before = _format_interval(_seeds(removal, ORACLE, "accuracy_before"))
    names = list(dict.fromkeys(removal["method"]))
    said = f"before {before}, without the worst 40%: {_means(removal, names)}; the flat classifier {flat}"
    if not edited:
        return said
    by = [f"{name} {_format_interval(_seeds(removal, ORACLE, column))}" for name, column in EDITED.items()]
    return f"{said}; the oracle's removal as an edit: {', '.join(by)}"


def _at(harmful: pandas.DataFrame, wrong: float, inspected: float) -> pandas.DataFrame:
    return harmful[(harmful["flipped"] == wrong) & (harmful["inspected"] == inspected)]


def _r6(harmful: pandas.DataFrame) -> Values:
    differences = []
    for wrong in sorted(harmful["flipped"].unique()):
        own, chance = (_seeds(_at(harmful, wrong, 0.25), name, "accuracy") for name in (EXACT, "random"))
        differences.append({seed: own[seed] - chance[seed] for seed in own})
    return {seed: min(each[seed] for each in differences) for seed in differences[0]}


def _r6_context(harmful: pandas.DataFrame) -> str:
    said = []
    for wrong in sorted(harmful["flipped"].unique()):
        part = _at(harmful, wrong, 0.25)
        before = _format_interval(_seeds(part, ORACLE, "accuracy_before"))
        names = (EXACT, "gradient product", "cosine", "raw loss", "TracIn", "random", ORACLE)
        said.append(f"{wrong:.0%} wrong, before {before}: {_means(part, names)}")
    return "; ".join(said)


def _r7(harmful: pandas.DataFrame) -> Values:
    found = _seeds(_at(harmful, harmful["flipped"].min(), 0.4), EXACT, "found")
    return {seed: value - 0.95 for seed, value in found.items()}


def _r7_context(harmful: pandas.DataFrame) -> str:
    said = []
    for wrong in sorted(harmful["flipped"].unique()):
        names = (EXACT, "gradient product", "cosine", "raw loss", "random")
        most = min(1.0, 0.4 / wrong)
        said.append(
            f"of {wrong:.0%} wrong at most {most:.0%} can be found: {_means(_at(harmful, wrong, 0.4), names, 'found')}"
        )
    return "; ".join(said)


def _r8(descending: pandas.DataFrame) -> Values:
    last = descending[descending["share"] == 0.4]
    own, chance = (_seeds(last, name, "accuracy") for name in (EXACT, "random"))
    return {seed: chance[seed] - own[seed] for seed in own}


def _r8_context(descending: pandas.DataFrame) -> str:
    last = descending[descending["share"] == 0.4]
    before = _format_interval(_seeds(last, "random", "accuracy_before"))
    return f"before {before}, without 40%: {_means(last, list(dict.fromkeys(last['method'])))}"
