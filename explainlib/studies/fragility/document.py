"""The numbers of ``docs/fragility_study.md`` beside the tables of the design (``design.document``).

The study's own words of a mark (``studies.documents``), from the sweeps:

    like-with-like networks            the 2 x 2 table: median Spearman of tanh networks (of ReLU networks)
    sweeps networks                    mean Spearman by way of training and size, and how many collapsed
    slopes networks .2f depth L2, SWA  least to largest of the median slopes by way and depth; "both" takes widths too
    significant networks count         sizes that differ after Bonferroni's correction; "names" says for which ways
    signs networks E4 width below      in how many comparisons of a claim by width the interval is below (above) 0
    at-rest networks .0% SWA           the share of retrainings from the second width on that came to rest
    steps networks pearson_next .2f    least to largest over the first three steps of the ladder
    steps networks gap .0%             the same of their gaps, each in units of its own rung's changes

and from either run:

    comparison networks E1 .2f plain by width, 50 minus 5       one comparison of a claim, with its interval
"""

from __future__ import annotations

import pandas

from explainlib.studies.claims import CLAIMS, Comparison
from explainlib.studies.documents import Maker, Tables, interval_text, number_text, range_text, table_text
from explainlib.studies.fragility import design
from explainlib.studies.fragility.bench import KINDS
from explainlib.studies.fragility.claims import MEASURE, fragility_evidence
from explainlib.studies.fragility.ladder import STEPS
from explainlib.studies.fragility.parts import LEAST, SWEEPS, sweep

ROWS = (("depth", 1), ("depth", 3), ("depth", 5), ("width", 10), ("width", 50))
COLLAPSED = 5  # the depth at which the table says how many did
FIRST_STEPS = STEPS[:3]
ALPHA = 0.05


def _row(table: pandas.DataFrame, **where: str | int) -> pandas.Series:
    """Return the only row with these values."""
    for name, value in where.items():
        table = table[table[name] == value]
    if len(table) != 1:
        raise ValueError(f"{len(table)} rows have {where}, and the document shows one.")
    return table.iloc[0]


def _like_with_like(tables: Tables, words: str) -> str:
    def cell(a: str, b: str) -> str:
        where = {"a": a, "b": b, "over": "highest loss"}
        tanh, relu = (_row(tables["two"], activation=name, **where)["spearman"] for name in ("tanh", "relu"))
        return f"{number_text(tanh, _digits(tanh))} ({number_text(relu, '.2f')})"

    sides = {"all": "all parameters", "last": "last layer solved"}
    header = ["", *(f"truth: {name}" for name in sides.values())]
    rows = [[f"influence of {'all parameters' if a == 'all' else 'the last layer'}",
             *(cell(f"{a} influence", f"{b} truth") for b in sides)] for a in sides]  # fmt: skip
    return table_text(header, rows)


def _digits(value: float) -> str:
    """Return the form of a correlation: a third digit where two would say 1."""
    return ".3f" if value >= 0.995 else ".2f"


def _sweeps(tables: Tables, words: str) -> str:
    table, rows = tables["iris"], []
    for grows, size in ROWS:
        cells = []
        for kind in KINDS:
            row = _row(table, sweep=grows, kind=kind, size=size)
            mean, low, high = (float(row[f"{MEASURE}{end}"]) for end in ("", "_low", "_high"))
            cells.append(interval_text((mean, max(low, -1.0), min(high, 1.0)), _digits(mean)))
        beside = ", width 5" if (grows, size) == ("depth", 1) else ""
        rows.append([f"{grows} {size}{beside}", *cells])
        if (grows, size) == ("depth", COLLAPSED):
            ends = [_row(table, sweep=grows, kind=kind, size=size) for kind in KINDS]
            rows.append([f"collapsed at depth {size}, of {ends[0]['repeats']}", *(str(e["collapsed"]) for e in ends)])
    return table_text(["", *KINDS], rows)


def _slopes(tables: Tables, words: str) -> str:
    form, grown, kinds = words.split(" ", 2)
    medians = []
    for grows in SWEEPS if grown == "both" else (grown,):
        rows = sweep(tables["repeats"], grows)
        rows = rows[(rows["status"] == "compared") & rows["kind"].isin(kinds.split(", "))]
        slopes = rows.groupby(["kind", grows])["slope_highest_loss"].agg(["median", "size"])
        medians += slopes.loc[slopes["size"] >= LEAST, "median"].tolist()
    return range_text(medians, form)


def _significant(tables: Tables, words: str) -> str:
    tests = tables["anova"]
    tests = tests[tests["measure"] == MEASURE]
    found = tests[tests["p"] < ALPHA / len(tests)]
    if words == "count":
        return f"{len(found)} of {len(tests)}"
    by = {grows: found[found["sweep"] == grows]["kind"].tolist() for grows in reversed(SWEEPS)}
    return "; ".join(f"{', '.join(kinds)} by {grows}" for grows, kinds in by.items() if kinds)


def _comparisons(tables: Tables, claim: str) -> tuple[Comparison, ...]:
    evidence = design.design_evidence if "factors" in tables else fragility_evidence
    return evidence(tables)[claim].comparisons


def _interval(claim: str, one: Comparison) -> tuple[float, float, float]:
    return one.interval(CLAIMS[claim].rules[one.rule])


def _comparison(tables: Tables, words: str) -> str:
    claim, form, name = words.split(" ", 2)
    known = {one.name: one for one in _comparisons(tables, claim)}
    if name not in known:
        raise ValueError(f"{claim} has no comparison {name!r}; choose one of {'; '.join(known)}.")
    return interval_text(_interval(claim, known[name]), form)


def _signs(tables: Tables, words: str) -> str:
    claim, grows, side = words.split()
    ends = [_interval(claim, one) for one in _comparisons(tables, claim) if f" by {grows}, " in one.name]
    beyond = [high < 0 if side == "below" else low > 0 for _, low, high in ends]
    return f"{sum(beyond)} of {len(beyond)}"


def _at_rest(tables: Tables, words: str) -> str:
    form, kind = words.split(" ", 1)
    rows = sweep(tables["repeats"], "width")
    rows = rows[(rows["kind"] == kind) & (rows["width"] > rows["width"].min()) & (rows["status"] == "compared")]
    return number_text(1 - rows["unsolved"].sum() / rows["retrained"].sum(), form)


def _steps(tables: Tables, words: str) -> str:
    column, form = words.split()
    rows = tables["ladder"]
    rows = rows[rows["step"].isin(FIRST_STEPS)]
    return range_text((rows["gap"] / rows["size"] if column == "gap" else rows[column]).tolist(), form)


MAKERS: dict[str, Maker] = {
    **design.MAKERS,
    "like-with-like": _like_with_like,
    "sweeps": _sweeps,
    "slopes": _slopes,
    "significant": _significant,
    "signs": _signs,
    "at-rest": _at_rest,
    "steps": _steps,
    "comparison": _comparison,
}
