"""The claims on distributions of tasks, T8 to T13: which numbers of the table "order" they are about.

The unit is a network: the interval is over seeds. "The share" is that of tests in proper order by the mean score of
the buffer. A learner counts as overfitted where it is right on its normal training tasks by ``GAP`` more than on unseen
ones; without such a learner the premise of T9 and T10 is absent.
"""

from __future__ import annotations

import pandas

from explainlib.studies.claims import ABSENT, Comparison, Evidence, by_cluster

GAP = 0.2
CONTROLS = ("identity", "cosine", "random projector", "cosine, untrained")
FITS = f"no learner is right on its own tasks by {GAP} more than on unseen ones"


def order_evidence(table: pandas.DataFrame) -> dict[str, Evidence]:
    """Return what the table says about T8 to T13, by the claim's id.

    Args:
        table: "order" of the study, a row for each network, kind of test and method.
    """
    table = table.assign(share=table["mean_count"] / table["tests"], first=table["self_first"] / table["tests"])
    found = {"T8": _t8(table), "T9": _t9(table), "T10": _t10(table), "T13": _t13(table)}
    return found | {"T11": _shift(table, "maml"), "T12": _shift(table, "protonet")}


def _by_seed(table: pandas.DataFrame, column: str) -> dict[int, float]:
    """Return the buffer's value by seed, of one network each."""
    chosen = table[table["method"] == "buffer"]
    return dict(zip(chosen["seed"], chosen[column], strict=True))


def _controls(table: pandas.DataFrame, column: str) -> str:
    means = [f"{name} {table[table['method'] == name][column].mean():.2f}" for name in CONTROLS]
    return ", ".join(means)


def _plain(table: pandas.DataFrame, learner: str, kind: str) -> pandas.DataFrame:
    """Return the learner as it is, at its usual number of tasks: the one whose copies are there too, or the largest."""
    chosen = table[(table["learner"] == learner) & (table["kind"] == kind)]
    normal = chosen.loc[(chosen["copies"] > 1) | (chosen["weight_decay"] > 0), "normal"]
    size = normal.iloc[0] if len(normal) else chosen["normal"].max()
    return chosen[(chosen["copies"] == 1) & (chosen["weight_decay"] == 0) & (chosen["normal"] == size)]


def _t8(table: pandas.DataFrame) -> Evidence:
    """Judge the learner with the most tasks, where it is hardest."""
    plain = table[(table["learner"] == "maml") & (table["kind"] == "training")]
    plain = plain[(plain["copies"] == 1) & (plain["weight_decay"] == 0) & (plain["normal"] == plain["normal"].max())]
    own = plain[plain["method"] == "buffer"].sort_values("seed")
    first = Comparison("buffer", tuple(map(float, own["self_first"])), tuple(own["tests"]))
    return Evidence((first,), _controls(plain, "first"))


def _overfitted(plain: pandas.DataFrame) -> pandas.DataFrame:
    return plain[plain["accuracy_normal"] - plain["accuracy_unseen"] >= GAP]


def _accuracies(table: pandas.DataFrame) -> str:
    return (
        f"accuracy {table['accuracy_normal'].mean():.2f} on normal tasks, {table['accuracy_unseen'].mean():.2f} unseen"
    )


def _t9(table: pandas.DataFrame) -> Evidence:
    plain = _plain(table, "maml", "unseen")
    wrong = {seed: 0.5 - share for seed, share in _by_seed(_overfitted(plain), "share").items()}
    withheld = None if wrong else (ABSENT, FITS)
    return Evidence((by_cluster("buffer", wrong),), _controls(plain, "share"), withheld, _accuracies(plain))


def _t10(table: pandas.DataFrame) -> Evidence:
    """Judge the strongest augmentation and the strongest decay; the claim needs both."""
    plain = _plain(table, "maml", "unseen")
    before = _by_seed(_overfitted(plain), "share")
    chosen = table[(table["learner"] == "maml") & (table["kind"] == "unseen")]
    comparisons, controls, said = [], [], []
    for name in ("copies", "weight_decay"):
        strongest = chosen[chosen[name] == chosen[name].max()]
        after = _by_seed(strongest, "share") if chosen[name].max() > plain[name].min() else {}
        values = {s: min(after[s] - before[s], after[s] - 0.5) for s in after if s in before}
        comparisons.append(by_cluster(f"{name} {chosen[name].max():g}", values))
        controls.append(f"{name}: {_controls(strongest, 'share')}")
        said.append(f"{name}: {_accuracies(strongest)}")
    withheld = None if before else (ABSENT, FITS)
    return Evidence(tuple(comparisons), "; ".join(controls), withheld, "; ".join(said))


def _shift(table: pandas.DataFrame, learner: str) -> Evidence:
    chosen = table[(table["learner"] == learner) & (table["kind"] == "unseen")]
    chosen = chosen[(chosen["copies"] == 1) & (chosen["weight_decay"] == 0)]
    sizes = sorted(chosen["normal"].unique())
    few, many = (_by_seed(chosen[chosen["normal"] == size], "share") for size in (sizes[0], sizes[-1]))
    values = {s: many[s] - few[s] for s in many if s in few} if len(sizes) > 1 else {}
    each = [
        f"{n}: {chosen[(chosen['normal'] == n) & (chosen['method'] == 'buffer')]['share'].mean():.2f}" for n in sizes
    ]
    notes = f"shares by normal tasks {', '.join(each)}"
    return Evidence((by_cluster(f"{sizes[-1]} minus {sizes[0]}", values),), _controls(chosen, "share"), notes=notes)


def _t13(table: pandas.DataFrame) -> Evidence:
    whole = table[(table["learner"] == "maml") & (table["kind"] == "training")]
    least = whole[whole["method"] == "buffer"].groupby("seed")["first"].min().to_dict()
    proto = table[(table["learner"] == "protonet") & (table["kind"] == "training") & (table["method"] == "buffer")]
    ranks = proto.groupby("normal")["self_mean_rank"].mean()
    told = ", ".join(f"{n} tasks {rank:.1f}" for n, rank in ranks.items())
    plain = whole[(whole["method"] == "buffer") & (whole["copies"] == 1)]["first"]
    notes = (
        f"without the learners on turned copies the lowest network has {plain.min():.2f}; mean self-rank of "
        f"Prototypical Networks: {told or 'none'}"
    )
    return Evidence((by_cluster("least of all learners", least),), _controls(whole, "first"), notes=notes)
