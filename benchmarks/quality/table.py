"""Measuring the cells, and writing them as text and as a page."""

from __future__ import annotations

import math
import re
import traceback
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

import explainlib
from benchmarks.quality.families import FAMILIES, Family
from benchmarks.quality.functions import FUNCTIONS, Case

PAGE = Path(__file__).parents[2] / "docs" / "quality.md"
HOUSE = Path(explainlib.__file__).parent.resolve()
ALLOWED = {torch.float64: 1e-6, torch.float32: 1e-3}
WORDS = 8  # of a refusal
RIGHT, REFUSED, WRONG, RAW = "right", "refused", "WRONG", "RAW"
Table = dict[str, dict[str, "Cell"]]


@dataclass(frozen=True)
class Cell:
    """What one function did with one model: its kind, and the words for it."""

    kind: str
    text: str

    @property
    def good(self) -> bool:
        """Whether it is right or refused; there is no third state."""
        return self.kind in (RIGHT, REFUSED)


def cell(case: Case, function: str) -> Cell:
    """Return what a function of the library did."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            judge = FUNCTIONS[function](case)
        except Exception as error:  # whatever comes out of a model
            return _failed(error)
        seen = judge()
    if seen <= ALLOWED[case.dtype]:
        return Cell(RIGHT, f"right to {rounded_up(seen)}")
    return Cell(WRONG, f"WRONG by {seen:.1e}")


def rounded_up(error: float) -> str:
    """Return the power of ten above an error; below 1e-12 all are rounding."""
    return f"1e-{min(12, math.floor(-math.log10(max(error, 1e-16)))):02d}"


def _failed(error: Exception) -> Cell:
    where = traceback.extract_tb(error.__traceback__)[-1]
    ours = Path(where.filename).resolve().is_relative_to(HOUSE) and (where.line or "").startswith("raise")
    sentence = str(error).strip().split("\n")[0]
    if not ours:
        return Cell(RAW, f"RAW {type(error).__name__}: {sentence[:80]}")
    words = sentence.split()
    return Cell(REFUSED, "refused: " + " ".join(words[:WORDS]) + (" ..." if len(words) > WORDS else ""))


def measured(
    families: Iterable[str] = FAMILIES, functions: Iterable[str] = FUNCTIONS, dtype: torch.dtype = torch.float64
) -> Table:
    """Return the cells of some families and functions."""
    functions = tuple(functions)
    return {name: _row(FAMILIES[name], functions, dtype) for name in families}


def _row(family: Family, functions: tuple[str, ...], dtype: torch.dtype) -> dict[str, Cell]:
    case = Case(family, dtype)
    return {function: cell(case, function) for function in functions}


def kinds(table: Table) -> dict[tuple[str, str], str]:
    """Return the kind of each cell."""
    return {(family, function): cell.kind for family, row in table.items() for function, cell in row.items()}


def third_states(*tables: Table) -> list[str]:
    """Return a line for each cell that is neither right nor refused."""
    every = [(name, f, c) for table in tables for name, row in table.items() for f, c in row.items()]
    return [f"{name}, {function}: {cell.text}" for name, function, cell in every if not cell.good]


def printed(table: Table) -> str:
    """Return the table as Markdown."""
    functions = list(next(iter(table.values())))
    lines = ["| | " + " | ".join(functions) + " |", "|---" * (len(functions) + 1) + "|"]
    for family, row in table.items():
        lines.append(f"| {family} | " + " | ".join(row[f].text.replace("|", "\\|") for f in functions) + " |")
    return "\n".join(lines)


def document(double: Table, single: Table) -> str:
    """Return docs/quality.md."""
    words = {"introduction": INTRODUCTION, "oracle": ORACLE}
    allowed = {"double_allowed": ALLOWED[torch.float64], "single_allowed": ALLOWED[torch.float32]}
    return TEXT.format(double=printed(double), single=printed(single), **words, **allowed)


def written_by_hand(page: str) -> str:
    """Return what a page holds from the section of the mutants on, which ``document`` does not make."""
    return "".join(page.partition(BY_HAND)[1:])


def parsed(page: str) -> list[dict[tuple[str, str], str]]:
    """Return the kinds of the cells of each table in a page."""
    found = []
    for block in re.findall(r"(?:^\|.*\|\n)+", page.partition(BY_HAND)[0] + "\n", re.M):
        rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in block.strip().split("\n")]
        head, body = [c.strip() for c in rows[0][1:]], [[c.strip() for c in row] for row in rows[2:]]
        found.append({(row[0], f): re.split(r"[ :]", c)[0] for row in body for f, c in zip(head, row[1:], strict=True)})
    return found


BY_HAND = "\n## Mutants\n"
INTRODUCTION = (
    "Every model passes one gate before a formula is applied to it: its forward is watched on a copy, and its "
    "derivatives are compared with differences in float64, so that a number that would be wrong becomes an error that "
    'names the layer. Read a cell as follows: "right to 1e-x" is the relative error of the whole result against an '
    'oracle in plain PyTorch, "refused" gives the first words of the error, and there is no third state.'
)
ORACLE = (
    "The oracle (`benchmarks/quality/plain.py`) takes first derivatives by `torch.autograd`, one example at a time, on "
    "a model of its own; it compares them with differences of the forward, and takes all higher derivatives by "
    "differences of them. For TaskInfluence and BilevelInfluence the defining equation is checked: curvature times "
    "result, by differences along the result, against minus the gradient. EK-FAC is compared with its own matrix. "
    "The models have fewer than 150 parameters, smooth activations and eight training examples; what a kink or a "
    "thousand examples do is not shown here."
)
TEXT = """\
# Right or refused

{introduction}

`python -m benchmarks quality --write` makes this page again, and fails on any other cell.

{oracle}

## float64

An error above {double_allowed:.0e} counts as wrong; what is below 1e-7 here is mostly the oracle's own differences.

{double}

## float32

The same models, against the oracle in float64 on the same numbers; above {single_allowed:.0e} counts as wrong.

{single}

## Cost

see `python -m benchmarks gate`
"""
