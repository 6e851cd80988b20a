"""The claims R1 to R8 of bilevel data influence beside what its study saw; one row each, none left out."""

from __future__ import annotations

from collections.abc import Mapping

import pandas
import torch

from explainlib.metrics.agreement import Estimate
from explainlib.metrics.seeds import clustered_mean
from explainlib.studies.verdicts import HELD, NOT_HELD, UNDECIDED

Tables = Mapping[str, pandas.DataFrame]
EXACT = "task influence"
CLOSE = 0.02  # of accuracy


def bilevel_claims(tables: Tables) -> pandas.DataFrame:
    """Return the claims with verdicts, from the tables of the study."""
    rows = [
        _r1(tables["editing"]),
        _r2(tables["editing"]),
        _r3(tables["editing"]),
        _r4(tables["examples"]),
        _r5(tables["removal"]),
        _r6(tables["harmful"]),
        _r7(tables["harmful"]),
        _r8(tables["descending"]),
    ]
    return pandas.DataFrame(rows, columns=["id", "place", "printed", "ours", "verdict"])


def _row(name: str, place: str, printed: str, ours: str, verdict: str) -> dict[str, str]:
    return {"id": name, "place": place, "printed": printed, "ours": ours, "verdict": verdict}


def _mean(table: pandas.DataFrame, column: str) -> Estimate:
    """Return the mean with its interval over seeds; the rows of one seed are one observation."""
    return clustered_mean(torch.tensor(table.groupby("seed")[column].mean().to_numpy(copy=True))[:, None])


def _each(table: pandas.DataFrame, say) -> str:  # noqa: ANN001 - a function of one inner problem's rows
    return "; ".join(f"{inner}: {say(part)}" for inner, part in table.groupby("inner", sort=False))


def _largest(editing: pandas.DataFrame, method: str) -> pandas.DataFrame:
    chosen = editing[(editing["method"] == method) & (editing["count"] == editing["count"].max())]
    return chosen.assign(gap=chosen["accuracy"] - chosen["accuracy_solved"])


def _r1(editing: pandas.DataFrame) -> dict[str, str]:
    def say(part: pandas.DataFrame) -> str:
        own = _largest(part, EXACT)
        newton = _largest(part, "leave-out Newton step")
        return (
            f"edited minus solved again {_mean(own, 'gap')} at {own['count'].iloc[0]} tasks removed "
            f"(solved {_mean(own, 'accuracy_solved')}), Newton step {_mean(newton, 'gap')}"
        )

    gaps = [_mean(_largest(part, EXACT), "gap") for _, part in editing.groupby("inner")]
    sure = all((gap.high - gap.low) / 2 <= CLOSE for gap in gaps)
    verdict = NOT_HELD if max(abs(float(gap)) for gap in gaps) > CLOSE else HELD if sure else UNDECIDED
    return _row("R1", "Table 1", "editing by task-IF is close to retraining in accuracy", _each(editing, say), verdict)


def _r2(editing: pandas.DataFrame) -> dict[str, str]:
    direct = editing[editing["method"] == "direct"]

    def say(part: pandas.DataFrame) -> str:
        error = part[part["count"] == 1]["parameter_error"].median()
        gap = _mean(_largest(part, "direct"), "gap")
        return f"direct minus solved again {gap}; parameter error {error:.2f} for one task"

    gaps = [_mean(_largest(part, "direct"), "gap") for _, part in direct.groupby("inner")]
    far = [gap.high < -CLOSE for gap in gaps]
    ours = f"{_each(direct, say)}; for the proximal problem direct-IF is identically zero: the model does not move"
    verdict = HELD if all(far) else NOT_HELD if not any(far) else UNDECIDED
    return _row("R2", "Table 1", "direct-IF is far below in accuracy", ours, verdict)


def _r3(editing: pandas.DataFrame) -> dict[str, str]:
    def share(part: pandas.DataFrame) -> float:
        return (
            part[part["method"] == EXACT]["seconds"].median()
            / part[part["method"] == "solved again"]["seconds"].median()
        )

    shares = {inner: share(part) for inner, part in editing.groupby("inner", sort=False)}
    ours = "; ".join(f"{inner}: {value:.0%} of solving again from the first weights" for inner, value in shares.items())
    verdict = HELD if max(shares.values()) <= 0.25 else NOT_HELD
    return _row("R3", "Table 1", "task-IF costs 20 to 25% of retraining", ours, verdict)


def _r4(examples: pandas.DataFrame) -> dict[str, str]:
    many = examples[examples["removed"] > 1]
    many = many.assign(gap=many["accuracy"] - many["accuracy_solved"], share=many["seconds"] / many["seconds_cold"])

    def say(part: pandas.DataFrame) -> str:
        said = [
            f"{kind} {_mean(rows, 'gap')} ({rows['share'].median():.0%} of the time)"
            for kind, rows in part.groupby("part")
        ]
        return ", ".join(said)

    gaps = [abs(float(_mean(rows, "gap"))) for _, rows in many.groupby(["inner", "part"])]
    printed = "instance-IF, training and validation, is close to retraining at about 2% of the time"
    held = max(gaps) <= CLOSE and many["share"].median() <= 0.04
    return _row("R4", "Table 1", printed, f"edited minus solved again: {_each(many, say)}", HELD if held else NOT_HELD)


def _r5(removal: pandas.DataFrame) -> dict[str, str]:
    def means(part: pandas.DataFrame) -> dict[str, Estimate]:
        return {name: _mean(rows, "accuracy") for name, rows in part.groupby("method", sort=False)}

    def say(part: pandas.DataFrame) -> str:
        return ", ".join(f"{name} {value}" for name, value in means(part).items())

    near, far = [], []
    for _, part in removal.groupby("inner"):
        found = {name: float(value) for name, value in means(part).items()}
        near.append(found["TracIn"] >= found[EXACT] - CLOSE)
        far += [found[name] < found[EXACT] - CLOSE for name in ("TRAK, flat", "EK-FAC IF, flat")]
    verdict = HELD if all(near) and all(far) else NOT_HELD if not all(near) or not any(far) else UNDECIDED
    printed = "TracIn comes near task-IF; EK-FAC IF and TRAK do not"
    return _row("R5", "Table 1", printed, f"accuracy without the worst 40%: {_each(removal, say)}", verdict)


def _at(harmful: pandas.DataFrame, flipped: float, method: str, inspected: float) -> pandas.DataFrame:
    chosen = harmful[(harmful["flipped"] == flipped) & (harmful["method"] == method)]
    return chosen[chosen["inspected"] == inspected]


def _r6(harmful: pandas.DataFrame) -> dict[str, str]:
    def gap(part: pandas.DataFrame, flipped: float) -> Estimate:
        both = [_at(part, flipped, name, 0.25).set_index("seed")["accuracy"] for name in (EXACT, "random")]
        return clustered_mean(torch.tensor((both[0] - both[1]).to_numpy(copy=True))[:, None])

    def say(part: pandas.DataFrame) -> str:
        return ", ".join(f"{flipped:.0%} flipped {gap(part, flipped)}" for flipped in sorted(part["flipped"].unique()))

    gaps = [gap(part, flipped) for _, part in harmful.groupby("inner") for flipped in part["flipped"].unique()]
    verdict = HELD if all(g.low > 0 for g in gaps) else NOT_HELD if any(g.high < 0 for g in gaps) else UNDECIDED
    ours = f"accuracy by influence minus by chance at 25% inspected: {_each(harmful, say)}"
    return _row("R6", "Fig 1", "removing by influence score beats random removal (.625 against .55)", ours, verdict)


def _r7(harmful: pandas.DataFrame) -> dict[str, str]:
    def say(part: pandas.DataFrame) -> str:
        said = []
        for flipped in sorted(part["flipped"].unique()):
            found = {name: _mean(_at(part, flipped, name, 0.4), "found") for name in (EXACT, "raw loss", "random")}
            listed = ", ".join(f"{name} {value}" for name, value in found.items())
            said.append(f"of {flipped:.0%} flipped at most {min(1.0, 0.4 / flipped):.0%} can be found: {listed}")
        return "; ".join(said)

    least = min(
        float(_mean(_at(part, harmful["flipped"].min(), EXACT, 0.4), "found")) for _, part in harmful.groupby("inner")
    )
    printed = "nearly all of 80% mislabelled tasks are found at 40% inspected, random is linear"
    return _row("R7", "Fig 1", printed, _each(harmful, say), HELD if least >= 0.95 else NOT_HELD)


def _r8(descending: pandas.DataFrame) -> dict[str, str]:
    def gap(part: pandas.DataFrame) -> Estimate:
        last = part[part["share"] == 0.4]
        both = [last[last["method"] == name].set_index("seed")["accuracy"] for name in (EXACT, "random")]
        return clustered_mean(torch.tensor((both[0] - both[1]).to_numpy(copy=True))[:, None])

    gaps = [gap(part) for _, part in descending.groupby("inner")]
    verdict = HELD if all(g.high < 0 for g in gaps) else NOT_HELD if any(g.low > 0 for g in gaps) else UNDECIDED
    ours = (
        f"accuracy without the 40% most helpful minus without 40% at random: {_each(descending, lambda p: str(gap(p)))}"
    )
    return _row("R8", "Fig 2", "removing high-influence tasks lowers accuracy more than random removal", ours, verdict)
