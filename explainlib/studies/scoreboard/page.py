"""The page ``docs/scoreboard.md``, made of nothing but tables."""

from __future__ import annotations

from collections.abc import Sequence

import pandas

from explainlib.studies.claims import ABSENT, HELD, NOT_APPLICABLE, NOT_HELD, UNDECIDED, VERDICTS

PAPERS = {
    "T": ("TLXML", "tlxml_study.md"),
    "R": ("Evaluating Data Influence in Meta Learning (Ren et al.)", "bilevel_study.md"),
    "E": ("Revisiting the Fragility of Influence Functions (Epifano et al. 2023)", "fragility_study.md"),
    "P": ("Sample based Explanations via Generalized Representers (Tsai et al. 2023)", "representers_study.md"),
    "B": ("On Second-Order Group Influence Functions (Basu et al. 2020)", "group_study.md"),
}
LETTERS = {
    "TLXML": "T",
    "Ren": "R",
    "Epifano": "E",
    "Tsai": "P",
    "Basu": "B",
}  # of a claim's id, by the paper's short name
MEANINGS = {
    HELD: "the whole interval lies where the claim says. Believe it, for data and sizes like ours.",
    NOT_HELD: "a whole interval lies where the claim says it does not. Here it is wrong; the paper's own setting may "
    "differ.",
    UNDECIDED: "the numbers cannot tell: too few networks, a wide interval, or a comparison in which something else "
    "differs as well. Believe neither the claim nor its opposite on our word.",
    ABSENT: "what the claim presupposes is not there in these runs, such as a learner worth having. Nothing is said "
    "about the claim.",
    NOT_APPLICABLE: "no table is about the data or the sizes that the claim is about.",
}
OPENING = (
    "# The scoreboard: {count} claims of five papers\n"
    "\n"
    "Made from the committed tables by `python -m explainlib study all`; no measured number is typed by hand. "
    "`data/results/scoreboard.csv` is the same as a table.\n"
    "\n"
    "## How to read it\n"
    "\n"
    "Each row is a claim of a paper in our words. Its *quantity* is one number a **cluster**: a network, seed "
    "or split, because the tests of one network are not independent. The *effect* is the mean over clusters, "
    "with its 95% interval: Student's t for fewer than ten clusters, a percentile-t bootstrap of the clusters "
    "from ten on, Fisher's z for correlations, an exact interval for shares. The *rule* belongs to the kind of "
    'claim and says where the whole interval has to lie; "no effect" and "close to" need it inside a stated '
    "margin, so that a wide interval is never support. A claim with several comparisons needs all of them; it "
    "is not held where one is contradicted after Holm's correction. The row shows the comparison that speaks "
    "least for the claim, or most against it. *Controls* are what a simpler method, or none, reaches.\n"
    "\n"
    "{meanings}\n"
    "\n"
    'So far: {totals}. "Held" is about networks like ours: small ones, from the runs named below each claim. '
    "Where a control does as well, the claim may hold and still say nothing for the method: read the control.\n"
)


def page(
    board: pandas.DataFrame, earlier: pandas.DataFrame, by_run: pandas.DataFrame, simulated: pandas.DataFrame,
    powers: pandas.DataFrame,
) -> str:  # fmt: skip
    """Return the page in Markdown.

    Args:
        board: ``scoreboard``.
        earlier: the verdicts before there was one judge: id, study, data, verdict, rule.
        by_run: today's, as columns id, study, data, verdict.
        simulated: how often each rule is wrong on made-up tables.
        powers: ``power_table``.
    """
    meanings = "\n".join(f"- **{name}**: {MEANINGS[name]}" for name in VERDICTS)
    counts = board["verdict"].value_counts()
    totals = ", ".join(f"{counts.get(name, 0)} {name}" for name in VERDICTS)
    parts = [OPENING.format(count=len(board), meanings=meanings, totals=totals), "## The verdicts"]
    for letter, (title, document) in PAPERS.items():
        own = board[board["id"].str.startswith(letter)]
        parts += [f"### {title}\n\n[What was seen in words]({document}).\n\n{_summary(own)}"]
    parts += ["## Each claim in full", *(_full(row) for row in board.itertuples())]
    parts += [_changes(board, earlier, by_run), _simulation(simulated), _power(powers)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _number(value: float) -> str:
    return "-" if pandas.isna(value) else f"{value:.3g}"


def _effect(row: object) -> str:
    """Return effect and interval."""
    if pandas.isna(row.low):
        return _number(row.effect)
    return f"{_number(row.effect)} [{_number(row.low)}, {_number(row.high)}]"


def _summary(board: pandas.DataFrame) -> str:
    header = ["claim", "verdict", "effect, 95% interval", "clusters", "reason"]
    rows = [[f"{r.id} {r.printed}", r.verdict, _effect(r), r.clusters, r.reason] for r in board.itertuples()]
    return _table(header, rows)


def _full(row: object) -> str:
    commands = ", ".join(f"`{command}`" for command in row.command.split("; "))
    return "\n".join(
        [
            f"**{row.id}** ({row.place}) {row.printed}: **{row.verdict}**",
            "",
            f"- quantity: {row.quantity}",
            f"- rule: {row.rule}",
            f"- effect: {_effect(row)} over {row.clusters}, {row.interval}",
            f"- seen: {row.ours}",
            f"- controls: {row.controls}",
            f"- reason: {row.reason}",
            f"- tables by: {commands}",
        ]
    )


def _changes(board: pandas.DataFrame, earlier: pandas.DataFrame, by_run: pandas.DataFrame) -> str:
    """Return the table of the verdicts that were others before."""
    keys = ["id", "study", "data"]
    both = earlier.merge(by_run, on=keys, suffixes=("_then", "_now"), how="inner")
    rows = []
    for row in board.itertuples():
        own = both[both["id"] == row.id]
        differs = own["verdict_then"] != own["verdict_now"]
        if not differs.any() and not (own["verdict_then"] != row.verdict).any():
            continue
        then, now = (
            "; ".join(f"{data}: {value}" for data, value in zip(own["data"], own[f"verdict_{when}"], strict=True))
            for when in ("then", "now")
        )
        rows.append([row.id, then, now, row.verdict, f"before: {own['rule'].iloc[0]}; now: {row.reason}"])
    text = (
        "Before, each study had rules of its own, some of them thresholds found after the fact, and a verdict a data "
        f"set. {len(rows)} claims have another verdict on some data, or over all of them."
    )
    header = ["claim", "earlier, by data", "now, by data", "now, over all data", "why"]
    return f"## What changed\n\n{text}\n\n{_table(header, rows)}"


def _simulation(table: pandas.DataFrame) -> str:
    used = table[~table["interval"].str.contains("not used")]
    rows = [
        [kind, interval, ", ".join(map(str, sorted(part["clusters"].unique()))), part["held_at_boundary"].max(),
         part["not_held_at_effect"].max(), part["held_at_effect"].min()]
        for (kind, interval), part in used.groupby(["kind", "interval"], sort=False)
    ]  # fmt: skip
    bca = table[table["interval"].str.contains("not used")]["held_at_boundary"].max()
    text = (
        "Each rule was tried on made-up tables of our sizes whose truth is known, 1,000 times at the boundary of its "
        "null hypothesis, where it should not be held, and 1,000 times at a stated effect, where it should. Nominal "
        "are 25 mistakes, and at most 67 are allowed. The exact interval of shares supposes that a network's tests "
        "are correlated by .1 at most; three networks cannot show that a fourth may fail as a whole. scipy's BCa "
        f"bootstrap made up to {bca} mistakes with ten skewed clusters, and is not used. "
        "`data/results/judge-simulation.csv` has every case."
    )
    header = ["kind", "interval", "clusters", "held at the boundary, at most", "not held at the effect, at most",
              "held at the effect, at least"]  # fmt: skip
    return f"## Are the rules right?\n\n{text}\n\n{_table(header, rows)}"


def _power(table: pandas.DataFrame) -> str:
    rows = []
    for name, part in table.groupby("id", sort=False):
        clusters = sorted(part["clusters"].unique())
        ends = dict.fromkeys(f"{part['power'].agg(end):.2f}" for end in ("min", "max"))
        printed = _number(part["printed_effect"].iloc[0])
        rows.append([name, printed, ", ".join(map(str, clusters)), len(part), " to ".join(ends)])
    text = (
        "How often tables like ours, with our number of clusters, our spread between them and the *printed* effect, "
        "would be held, for each comparison of a claim whose effect the paper prints, in the unit of our quantity. "
        "Where it is low, an undecided verdict says that there were too few networks, and no more. "
        "`data/results/judge-power.csv` has every comparison."
    )
    header = ["claim", "printed effect", "clusters", "comparisons", "power"]
    return f"## Could we have seen it?\n\n{text}\n\n{_table(header, rows)}"
