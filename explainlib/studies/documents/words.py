"""The words of a mark that every study's document may use.

A mark (``marks``) names what is filled in, then where it is from:

    value digits editing error median .3f method=first order; count=4     a number, or several, of one column
    effect R1 .3f                    a claim's effect with its interval, of the scoreboard
    effect digits R1 .3f             the same of one run
    ends R1 .3f                      its interval alone
    verdict R1                       its verdict; with the run's name before the id, of that run
    verdicts R                       the table of the study's claims
    counts R                         how many of them have each verdict; "counts all" is the number of all claims
    typed COMMAND                    left as it is: numbers that the command printed, and no table keeps

After "value" come the run, its table, the column, how the column becomes a text, and the form of a number; then the
values that other columns have, with "; " between them. How:

    one          the only value there is
    mean, median, least, largest, sum        of all rows
    share        of the rows in which the column is true
    rows         how many rows there are; the column is not looked at
    different    how many values there are
    range        least to largest, or the only value
    each         the mean of each seed, in order
    ends         least to largest of these
    interval     the mean over seeds with its 95% interval; a value "A minus B" takes the difference within each seed
    typical      the same of each seed's median instead of its mean

Forms are Python's; the zero before the point is left out, and ``abs`` before a form takes the sign away.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Real

import numpy as np
import pandas

from explainlib.studies.claims import CLAIMS, VERDICTS, mean_interval
from explainlib.studies.documents.marks import fill_marks

Tables = Mapping[str, pandas.DataFrame]
Maker = Callable[[Tables, str], str]
MINUS = " minus "
CLUSTER = "seed"


def fill_document(
    text: str, runs: Mapping[str, Tables], board: pandas.DataFrame, makers: Mapping[str, Maker] | None = None
) -> str:
    """Return the document with every mark filled in from the tables.

    Args:
        text: of the document.
        runs: the tables by the run's name in the marks.
        board: the scoreboard.
        makers: a study's own words; each takes the tables of the run that the mark names, and the rest of its words.

    Raises:
        ValueError: a mark with a word, run, table, column or value that there is not.
    """
    makers = makers or {}

    def fill(words: str) -> str:
        name, _, rest = words.partition(" ")
        if name in WORDS:
            return WORDS[name](runs, board, rest)
        if name not in makers:
            raise ValueError(
                f"the mark {words!r} begins with {name!r}; choose one of {', '.join([*makers, *WORDS, 'typed'])}."
            )
        run, _, rest = rest.partition(" ")
        return makers[name](_named(runs, run, "run"), rest)

    return fill_marks(text, fill)


def table_text(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as Markdown.

    Args:
        header: of the columns.
        rows: cells.
    """
    lines = [header, ["---"] * len(header), *rows]
    return "\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n\n"


def number_text(value: Real, form: str) -> str:
    """Return a number without the zero before its point.

    Args:
        value: the number.
        form: Python's, with ``abs`` before it for a number without its sign.
    """
    value = abs(value) if form.startswith("abs") else value
    text = f"{value:{form.removeprefix('abs')}}"
    text = re.sub(r"^([-+]?)0\.(?=\d)", r"\1.", text)
    return text.removeprefix("-") if not text.strip("-.0%") else text


def interval_text(values: Sequence[Real | np.ndarray], form: str) -> str:
    """Return a mean with its interval in brackets, if it has one.

    Args:
        values: mean, low, high.
        form: of each.
    """
    mean, low, high = (float(value) for value in values)
    ends = f" [{number_text(low, form)}, {number_text(high, form)}]" if np.isfinite(high - low) else ""
    return number_text(mean, form) + ends


def mean_text(values: Iterable[Real], form: str) -> str:
    """Return the mean of one value a seed, with its 95% interval in brackets.

    Args:
        values: one a seed; missing ones are left out.
        form: of each number.
    """
    known = [float(value) for value in values if value == value]
    return interval_text(mean_interval(known), form)


def range_text(values: Iterable[Real], form: str) -> str:
    """Return the least to the largest, or the only value.

    Args:
        values: at least one.
        form: of each.
    """
    known = list(values)
    ends = [number_text(end, form) for end in (min(known), max(known))]
    return ends[0] if len(known) == 1 else " to ".join(ends)


def column_text(frame: pandas.DataFrame, words: str) -> str:
    """Return what "value" makes of one table: the words are its column, how, the form, and the other columns' values.

    Args:
        frame: a table.
        words: as in a mark, without the run and the table's name.
    """
    parts = words.split(" ", 3)
    if len(parts) < 3:
        raise ValueError(f"the words {words!r} are too few; name column, how and form.")
    column, how, form = parts[:3]
    where = dict(pair.partition("=")[::2] for pair in parts[3].split("; ")) if len(parts) == 4 else {}
    unknown = [name for name in (column, *where) if name not in frame]
    if unknown and not (how == "rows" and unknown == [column]):
        raise ValueError(f"there is no column {unknown[0]!r}; choose one of {', '.join(frame)}.")
    twice = [name for name, value in where.items() if MINUS in value and how in OVER_SEEDS]
    if twice:
        (name,), (first, second) = twice, where[twice[0]].split(MINUS)
        one, other = (_chosen(frame, {**where, name: value}) for value in (first, second))
        return OVER_SEEDS[how](_by_seed(one, column, how) - _by_seed(other, column, how), form)
    chosen = _chosen(frame, where)
    if how == "rows":
        return number_text(len(chosen), form)
    if how in OVER_SEEDS:
        return OVER_SEEDS[how](_by_seed(chosen, column, how), form)
    if how not in OVER_ROWS:
        known = ", ".join(["rows", *OVER_ROWS, *OVER_SEEDS])
        raise ValueError(f"a column is not read by {how!r}; choose one of {known}.")
    return OVER_ROWS[how](chosen[column], form)


def _named(among: Mapping[str, Tables] | Tables, name: str, kind: str) -> Tables | pandas.DataFrame:
    if name not in among:
        raise ValueError(f"there is no {kind} {name!r}; choose one of {', '.join(among)}.")
    return among[name]


def _value(runs: Mapping[str, Tables], board: pandas.DataFrame, words: str) -> str:
    parts = words.split(" ", 2)
    if len(parts) < 3:
        raise ValueError(f"the mark 'value {words}' is too short; name run, table, column, how and form.")
    run, table, rest = parts
    return column_text(_named(_named(runs, run, "run"), table, "table"), rest)


def _chosen(frame: pandas.DataFrame, where: Mapping[str, str]) -> pandas.DataFrame:
    """Return the rows in which the columns have the values."""
    for name, value in where.items():
        kept = frame[name]
        if kept.dtype == bool:
            frame = frame[kept == (value == "True")]
        elif kept.dtype.kind in "fi":
            frame = frame[kept.isna()] if value == "nan" else frame[np.isclose(kept, float(value), rtol=1e-9, atol=0)]
        else:
            frame = frame[kept.isna() if value == "nan" else kept == value]
        if not len(frame):
            raise ValueError(f"no row has {name}={value}{' beside the other values' * (len(where) > 1)}.")
    return frame


def _by_seed(frame: pandas.DataFrame, column: str, how: str) -> pandas.Series:
    groups = frame.groupby(CLUSTER)[column]
    return groups.median() if how == "typical" else groups.mean()


def _one(values: pandas.Series, form: str) -> str:
    different = values.unique()
    if len(different) != 1:
        raise ValueError(f"{values.name} has {len(different)} values, and the document names one; write another mark.")
    return str(different[0]) if isinstance(different[0], str) else number_text(different[0], form)


OVER_ROWS: dict[str, Callable[[pandas.Series, str], str]] = {
    "one": _one,
    "mean": lambda values, form: number_text(values.mean(), form),
    "median": lambda values, form: number_text(values.median(), form),
    "least": lambda values, form: number_text(values.min(), form),
    "largest": lambda values, form: number_text(values.max(), form),
    "sum": lambda values, form: number_text(values.sum(), form),
    "share": lambda values, form: number_text(values.astype(bool).mean(), form),
    "different": lambda values, form: number_text(values.nunique(), form),
    "range": range_text,
}
OVER_SEEDS: dict[str, Callable[[pandas.Series, str], str]] = {
    "each": lambda values, form: ", ".join(number_text(value, form) for value in values),
    "ends": range_text,
    "interval": mean_text,
    "typical": mean_text,
}


def _claim(runs: Mapping[str, Tables], board: pandas.DataFrame, words: list[str]) -> pandas.Series:
    """Return the row of a claim: (id) of the scoreboard, (run, id) of one run."""
    table = board if len(words) == 1 else _named(_named(runs, words[0], "run"), "claims", "table")
    rows = table[table["id"] == words[-1]]
    if len(rows) != 1:
        raise ValueError(f"no claim {words[-1]!r}; choose one of {', '.join(table['id'])}.")
    return rows.iloc[0]


def _effect(runs: Mapping[str, Tables], board: pandas.DataFrame, words: str) -> str:
    *where, form = words.split()
    row = _claim(runs, board, where)
    return interval_text((row["effect"], row["low"], row["high"]), form)


def _ends(runs: Mapping[str, Tables], board: pandas.DataFrame, words: str) -> str:
    *where, form = words.split()
    row = _claim(runs, board, where)
    return range_text((row["low"], row["high"]), form)


def _verdict(runs: Mapping[str, Tables], board: pandas.DataFrame, words: str) -> str:
    return str(_claim(runs, board, words.split())["verdict"])


def _verdicts(runs: Mapping[str, Tables], board: pandas.DataFrame, words: str) -> str:
    rows = []
    for row in board[board["id"].str.startswith(words)].itertuples():
        seen = "no interval" if pandas.isna(row.low) else f"{row.effect:.3g} [{row.low:.3g}, {row.high:.3g}]"
        rows.append([f"{row.id} {CLAIMS[row.id].printed}", row.verdict, seen, str(row.clusters), row.reason])
    return table_text(["claim", "verdict", "effect, 95% interval", "seeds", "reason"], rows)


def _counts(runs: Mapping[str, Tables], board: pandas.DataFrame, words: str) -> str:
    if words == "all":
        return str(len(board))
    found = board[board["id"].str.startswith(words)]["verdict"].value_counts()
    if not len(found):
        raise ValueError(f"no claim begins with {words!r}; choose a letter of {', '.join(board['id'])}, or 'all'.")
    return ", ".join(f"{found[verdict]} {verdict}" for verdict in VERDICTS if verdict in found)


WORDS: dict[str, Callable[[Mapping[str, Tables], pandas.DataFrame, str], str]] = {
    "value": _value,
    "effect": _effect,
    "ends": _ends,
    "verdict": _verdict,
    "verdicts": _verdicts,
    "counts": _counts,
}
