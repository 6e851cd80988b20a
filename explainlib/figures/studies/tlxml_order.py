"""The row of the TLXML figure on distributions of tasks: where normal tasks come before noise tasks."""

from __future__ import annotations

import pandas
from matplotlib.axes import Axes

from explainlib.figures.palette import SERIES, style
from explainlib.figures.picture import Picture, set_alt

METHODS = {"buffer": "Gauss-Newton buffer", "identity": "no curvature", "cosine": "cosine"}
NETWORK = ["learner", "normal", "copies", "weight_decay"]


def order_shares(table: pandas.DataFrame) -> pandas.DataFrame:
    """Return the share of unseen tests in proper order, its spread over seeds, and the accuracies, by network.

    Args:
        table: "order" of the study.
    """
    part = table[table["kind"] == "unseen"].assign(share=lambda rows: rows["mean_count"] / rows["tests"])
    found = part.groupby([*NETWORK, "method"], sort=False)["share"].agg(["mean", "min", "max"]).reset_index()
    accuracy = part.groupby(NETWORK, sort=False)[["accuracy_normal", "accuracy_unseen"]].mean().reset_index()
    return found.merge(accuracy, on=NETWORK)


def _label(row: pandas.Series) -> str:
    name = {"maml": "MAML", "protonet": "ProtoNet"}[row["learner"]]
    change = f", {row['copies']:.0f} turned copies" if row["copies"] > 1 else ""
    change += f", decay {row['weight_decay']:g}" if row["weight_decay"] else ""
    accuracies = f"{row['accuracy_normal']:.2f} train, {row['accuracy_unseen']:.2f} test"
    return f"{name}, {row['normal']:.0f} normal{change}\n{accuracies}"


def draw_order(ax: Axes, table: pandas.DataFrame) -> None:
    """Draw a line a network: the share in proper order by each method, with its range over seeds.

    Args:
        ax: where.
        table: "order" of the study.
    """
    shares = order_shares(table)
    networks = shares[NETWORK + ["accuracy_normal", "accuracy_unseen"]].drop_duplicates().reset_index(drop=True)
    with style():
        for shift, (series, (method, label)) in enumerate(zip(SERIES, METHODS.items(), strict=False)):
            part = networks.merge(shares[shares["method"] == method], on=NETWORK)
            places = [k + 0.22 * (shift - 1) for k in range(len(part))]
            ax.hlines(places, part["min"], part["max"], color=series.colour, linewidth=1.4)
            ax.plot(part["mean"], places, linestyle="", marker=series.marker, color=series.colour, label=label)
        ax.axvline(0.5, color="grey", linewidth=1, linestyle=":")
        ax.set_yticks(range(len(networks)), [_label(row) for _, row in networks.iterrows()], fontsize=9)
        ax.invert_yaxis()
        ax.set(xlim=(-0.02, 1.02), xlabel="share of unseen tests in proper order (dotted: chance)")
        ax.set_title("normal before noise tasks", loc="left", pad=24)  # above the legend
        ax.legend(fontsize=9, loc="lower right", bbox_to_anchor=(1.0, 0.99), ncol=len(METHODS))


def noise_order(table: pandas.DataFrame) -> Picture:
    """Return the shares in proper order as a picture of its own, with its text equivalent.

    Args:
        table: "order" of the study.
    """
    networks = len(table[NETWORK].drop_duplicates())
    with style():
        picture = Picture(8.6, 0.9 + 0.55 * networks)
        axes = picture.add_axes((0.36, 0.62 / (0.9 + 0.55 * networks), 0.61, 1 - 1.2 / (0.9 + 0.55 * networks)))
    draw_order(axes, table)
    shares = order_shares(table)
    buffer = shares[shares["method"] == "buffer"]
    said = "; ".join(f"{_label(row).replace(chr(10), ', ')}: {row['mean']:.0%}" for _, row in buffer.iterrows())
    set_alt(picture, f"Share of unseen tests in proper order by the buffer's scores, 50% by chance. {said}.")
    return picture
