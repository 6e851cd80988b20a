"""What was checked in this kernel, and the report that is handed in.

The tries live in this process. ``report("hand_in.json")`` joins them with those of earlier sessions in that file, which
is plain data: it is read as JSON, compared with what a try looks like, and nothing in it is ever run.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from explainlib.course.exercises import EXERCISES
from explainlib.storage import write_text

if TYPE_CHECKING:
    import pandas

MOST_BYTES = 1_000_000
COLUMNS = ("exercise", "title", "kind", "tries", "right", "solution", "first", "last")
UNCOUNTED = (
    "Answers of solution cells do not count as yours. `make student` writes an edition of the notebooks without them."
)


@dataclass(frozen=True, order=True)
class Try:
    """One answer that was compared.

    Attributes:
        at: local time, ISO 8601.
        exercise: its id.
        right: whether the answer was right.
        solution: whether a solution cell gave it.
    """

    at: str
    exercise: str
    right: bool
    solution: bool = False


@dataclass(frozen=True)
class Report:
    """The tries of one student, by exercise.

    Attributes:
        tries: in the order of their times.
    """

    tries: tuple[Try, ...]

    @property
    def solved(self) -> list[str]:
        """The exercises with at least one right answer that no solution cell gave, sorted."""
        return sorted({each.exercise for each in self.tries if each.right and not each.solution})

    def rows(self) -> list[dict[str, object]]:
        """Return one row for each exercise that was tried or answered by a solution cell.

        ``tries`` counts those up to the first right one and ``right`` says whether there is one, both without the
        answers of solution cells; ``solution`` says whether a solution cell answered. ``first`` and ``last`` are the
        times of the tries, or of the solution's answers where there is no try.
        """
        found = []
        for name in sorted({each.exercise for each in self.tries}):
            answers = [each for each in self.tries if each.exercise == name]
            tries = [each for each in answers if not each.solution]
            shown = len(tries) < len(answers)
            timed = tries or answers
            rights = [position for position, each in enumerate(tries) if each.right]
            about = EXERCISES[name]
            count = rights[0] + 1 if rights else len(tries)
            times = (timed[0].at[:19], timed[-1].at[:19])
            values = (name, about.title, about.kind, count, bool(rights), shown, *times)
            found.append(dict(zip(COLUMNS, values, strict=True)))
        return found

    def to_frame(self) -> pandas.DataFrame:
        """Return the rows as a table."""
        import pandas

        return pandas.DataFrame(self.rows(), columns=list(COLUMNS))

    def __repr__(self) -> str:
        """Return a summary and one line for each exercise."""
        lines = [self._summary()]
        for row in self.rows():
            outcome = _outcome(row)
            lines.append(f"  {row['exercise']} {row['title']}: {outcome}, tries: {row['tries']}, last {row['last']}")
        return "\n".join([*lines, UNCOUNTED] if self._uncounted() else lines)

    def _repr_html_(self) -> str:
        """Show the rows as a table in a notebook."""
        head = "".join(f"<th>{name}</th>" for name in COLUMNS)
        body = "".join(
            "<tr>" + "".join(f"<td>{_shown(value)}</td>" for value in {**row, "right": right}.values()) + "</tr>"
            for row in self.rows()
            for right in ["yes" if row["right"] else _outcome(row)]
        )
        said = f"<p>{self._summary()}.</p>"
        note = f"<p>{html.escape(UNCOUNTED)}</p>".replace("`", "") if self._uncounted() else ""
        return f"{said}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{note}"

    def _summary(self) -> str:
        """Return how many of the exercises that somebody tried are right."""
        tried = {each.exercise for each in self.tries if not each.solution}
        return f"{len(self.solved)} of {len(tried)} tried exercises are right"

    def _uncounted(self) -> bool:
        """Return whether a solution cell gave an answer."""
        return any(each.solution for each in self.tries)


def _outcome(row: dict[str, object]) -> str:
    """Return what a row of the report says of its exercise."""
    if row["right"]:
        return "right"
    return "answered by the solution" if row["solution"] else "not yet"


def _shown(value: object) -> str:
    """Return a cell's text for HTML."""
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else html.escape(str(value))


_tries: list[Try] = []  # of this process


def record(exercise: str, right: bool, *, solution: bool = False) -> None:
    """Keep one compared answer, and whether a solution cell gave it."""
    _tries.append(Try(datetime.now().isoformat(), exercise, right, solution))


def wrong_tries(exercise: str) -> int:
    """Return how many wrong answers to an exercise this process has seen; a solution's do not count."""
    return sum(each.exercise == exercise and not each.right and not each.solution for each in _tries)


def report(file: str | None = None) -> Report:
    """Return what was checked, when, in how many tries, and whether it is right.

    Args:
        file: name of a JSON file in the current folder, which is the notebook's: its tries are joined with those of
            this kernel, and it is written again, whole or not at all. None keeps everything in the kernel.

    Returns:
        Report: shows itself as a table; answers of solution cells are marked and do not count as right;
            ``to_frame()`` is a pandas table, ``solved`` lists the right ones.

    Raises:
        ValueError: a name with a folder in it or without ``.json``, or a file that is no report; it is left as it is.
        OSError: a folder that cannot be written.
    """
    if file is None:
        return Report(tuple(sorted(_tries)))
    if not isinstance(file, str) or Path(file).name != file or not file.endswith(".json") or file.startswith("."):
        raise ValueError(f"file={file!r} has to be a plain name in this folder, such as 'hand_in.json'.")
    path = Path(file)
    joined = sorted({*_tries, *(_read(path) if path.exists() else ())})
    content = {"report": "explainlib exercises", "tries": [asdict(each) for each in joined]}
    write_text(json.dumps(content, indent=1) + "\n", path)
    return Report(tuple(joined))


def _read(path: Path) -> Iterable[Try]:
    """Return the tries of a file, or raise if it is no report."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError("it is larger than any report")
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or content.get("report") != "explainlib exercises":
            raise ValueError("it does not call itself one")
        return [_as_try(entry) for entry in content["tries"]]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{path} is no report of exercises ({error}); name another file or move it away.") from error


def _as_try(entry: object) -> Try:
    """Return one entry of a file as a try, or raise ``ValueError``."""
    names = {field.name for field in fields(Try)}
    if isinstance(entry, dict):
        entry = {"solution": False, **entry}  # a file of an earlier version does not have it
    if not isinstance(entry, dict) or set(entry) != names:
        raise ValueError(f"a try has {sorted(names)}")
    if not isinstance(entry["right"], bool) or not isinstance(entry["solution"], bool):
        raise ValueError(f"a try has {sorted(names)}")
    if entry["exercise"] not in EXERCISES:
        raise ValueError("it names an exercise that this version does not have")
    datetime.fromisoformat(entry["at"])
    return Try(**entry)
