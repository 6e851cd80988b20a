"""The claims on distributions of tasks, T8 to T13, with their rules; fixed before the runs they judge.

The unit is a network: the interval is over seeds. "The share" is that of tests in proper order by the mean score of
the buffer. A learner counts as overfitted where it is right on its normal training tasks by ``GAP`` more than on unseen
ones; without such a learner the premise of T9 and T10 is absent.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas

from explainlib.studies.verdicts import ABSENT, Claim, claim_row

GAP = 0.2
CONTROLS = ("identity", "cosine", "random projector", "cosine, untrained")
NETWORK = ["learner", "normal", "noise", "copies", "weight_decay"]

T8 = Claim(
    "T8",
    "Fig 8",
    "with the buffer the CNN tells every identical training task",
    "share of training tasks that are first among all, of MAML with the most tasks",
    "count",
    1.0,
)
T9 = Claim(
    "T9",
    "Tables 2, 4",
    "an overfitted learner puts normal and noise tasks in the wrong order",
    "one half minus the share in proper order, of overfitted MAML learners",
)
T10 = Claim(
    "T10",
    "Tables 2, 4",
    "rotated copies or weight decay turn the order round",
    "least of (share of the regularised minus share of the plain learner), and of the regularised share minus one half",
)
T11 = Claim(
    "T11",
    "Tables 5, 6",
    "on Omniglot the order shifts to the proper one with the number of training tasks",
    "share with most tasks minus share with fewest, of MAML",
)
T12 = Claim(
    "T12",
    "Tables 7-10",
    "Prototypical Networks show the same tendency",
    "share with most tasks minus share with fewest, of Prototypical Networks",
)
T13 = Claim(
    "T13",
    "Tables 11-16",
    "self-ranks stay near 0 under the approximation",
    "least share of training tasks that are first among all, of all MAML learners",
    margin=0.9,
)


def order_claims(table: pandas.DataFrame) -> list[dict[str, str]]:
    """Return the rows of T8 to T13.

    Args:
        table: "order" of the study, a row for each network, kind of test and method.
    """
    table = table.assign(share=table["mean_count"] / table["tests"], first=table["self_first"] / table["tests"])
    return [_t8(table), _t9(table), _t10(table), _t11(table), _t12(table), _t13(table)]


def _by_seed(table: pandas.DataFrame, column: str) -> dict[int, float]:
    """Return the buffer's value by seed, of one network each."""
    chosen = table[table["method"] == "buffer"]
    return dict(zip(chosen["seed"], chosen[column], strict=True))


def _controls(table: pandas.DataFrame, column: str) -> str:
    means = [f"{name} {table[table['method'] == name][column].mean():.2f}" for name in CONTROLS]
    return f"Controls: {', '.join(means)}"


def _plain(table: pandas.DataFrame, learner: str, kind: str) -> pandas.DataFrame:
    """Return the learner as it is, at its usual number of tasks: the one whose copies are there too, or the largest."""
    chosen = table[(table["learner"] == learner) & (table["kind"] == kind)]
    normal = chosen.loc[(chosen["copies"] > 1) | (chosen["weight_decay"] > 0), "normal"]
    size = normal.iloc[0] if len(normal) else chosen["normal"].max()
    return chosen[(chosen["copies"] == 1) & (chosen["weight_decay"] == 0) & (chosen["normal"] == size)]


def _t8(table: pandas.DataFrame) -> dict[str, str]:
    """Judge the learner with the most tasks, where it is hardest."""
    plain = table[(table["learner"] == "maml") & (table["kind"] == "training")]
    plain = plain[(plain["copies"] == 1) & (plain["weight_decay"] == 0) & (plain["normal"] == plain["normal"].max())]
    return claim_row(T8, list(_by_seed(plain, "first").values()), _controls(plain, "first"))


def _overfitted(plain: pandas.DataFrame) -> pandas.DataFrame:
    return plain[plain["accuracy_normal"] - plain["accuracy_unseen"] >= GAP]


def _accuracies(table: pandas.DataFrame) -> str:
    return (
        f"accuracy {table['accuracy_normal'].mean():.2f} on normal tasks, {table['accuracy_unseen'].mean():.2f} unseen"
    )


def _t9(table: pandas.DataFrame) -> dict[str, str]:
    plain = _plain(table, "maml", "unseen")
    wrong = [0.5 - share for share in _by_seed(_overfitted(plain), "share").values()]
    return claim_row(T9, wrong, f"{_controls(plain, 'share')}; {_accuracies(plain)}")


def _t10(table: pandas.DataFrame) -> dict[str, str]:
    """Judge the strongest augmentation and the strongest decay; the claim needs both."""
    plain = _plain(table, "maml", "unseen")
    before = _by_seed(_overfitted(plain), "share")
    chosen = table[(table["learner"] == "maml") & (table["kind"] == "unseen")]
    rows, said = [], []
    for name in ("copies", "weight_decay"):
        strongest = chosen[chosen[name] == chosen[name].max()]
        after = _by_seed(strongest, "share") if chosen[name].max() > plain[name].min() else {}
        values = [min(after[s] - before[s], after[s] - 0.5) for s in after if s in before]
        rows.append(claim_row(T10, values, ""))
        said.append(f"{name} {chosen[name].max():g}: {_controls(strongest, 'share')}, {_accuracies(strongest)}")
    verdicts = {row["verdict"] for row in rows}
    verdict = next(v for v in (ABSENT, "not held", "undecided", "held") if v in verdicts)
    seen = "; ".join(row["ours"].rstrip(". ") for row in rows)
    return rows[0] | {"ours": f"{seen}. {'; '.join(said)}", "verdict": verdict}


def _shift(table: pandas.DataFrame, learner: str) -> tuple[list[float], str]:
    chosen = table[(table["learner"] == learner) & (table["kind"] == "unseen")]
    chosen = chosen[(chosen["copies"] == 1) & (chosen["weight_decay"] == 0)]
    sizes = sorted(chosen["normal"].unique())
    parts = [_by_seed(chosen[chosen["normal"] == size], "share") for size in (sizes[0], sizes[-1])]
    values = [parts[1][s] - parts[0][s] for s in parts[1] if s in parts[0]] if len(sizes) > 1 else []
    each = [
        f"{n}: {chosen[(chosen['normal'] == n) & (chosen['method'] == 'buffer')]['share'].mean():.2f}" for n in sizes
    ]
    return values, f"Shares by normal tasks {', '.join(each)}. {_controls(chosen, 'share')}"


def _t11(table: pandas.DataFrame) -> dict[str, str]:
    return claim_row(T11, *_shift(table, "maml"))


def _t12(table: pandas.DataFrame) -> dict[str, str]:
    return claim_row(T12, *_shift(table, "protonet"))


def _t13(table: pandas.DataFrame) -> dict[str, str]:
    chosen = table[(table["learner"] == "maml") & (table["kind"] == "training") & (table["method"] == "buffer")]
    least: Sequence[float] = chosen.groupby("seed")["first"].min().tolist()
    proto = table[(table["learner"] == "protonet") & (table["kind"] == "training") & (table["method"] == "buffer")]
    ranks = proto.groupby("normal")["self_mean_rank"].mean()
    told = ", ".join(f"{n} tasks {rank:.1f}" for n, rank in ranks.items())
    whole = table[(table["learner"] == "maml") & (table["kind"] == "training")]
    return claim_row(
        T13, least, f"{_controls(whole, 'first')}; mean self-rank of Prototypical Networks: {told or 'none'}"
    )
