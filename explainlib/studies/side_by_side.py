"""All methods on one small network: its data, representers as harm, and agreement with several truths at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from explainlib.datasets import Examples, flip_labels, load
from explainlib.metrics import fidelity, mislabel_auc
from explainlib.representers import (
    kernel,
    representer_points,
    representer_scores,
    surrogate_importance,
    tracking_importance,
)
from explainlib.risk import Risk
from explainlib.training import Trajectory

Groups = Sequence[Sequence[int] | Int[Tensor, " _"]]
KEPT, WRONG = 120, 0.1  # training digits, and the share of wrong labels


def fours_and_nines() -> tuple[Examples, Examples, Bool[Tensor, " n"]]:
    """Return 120 training digits, a tenth of them with a wrong label, 60 test digits, and which labels are wrong."""
    pairs = [part[(part.y == 4) | (part.y == 9)] for part in load("digits")]
    clean, test = (Examples(part.x.double(), (part.y == 9).long(), ("4", "9")) for part in pairs)
    train, flipped = flip_labels(clean[:KEPT], WRONG, seed=0)
    return train, test, flipped


def representer_harm(risk: Risk, run: Trajectory, on: Examples) -> dict[str, Float[Tensor, "t n"]]:
    """Return three representers as harm: minus the score for the output of each test's own label, at the same network.

    Args:
        risk: a classifier with l2 > 0, at the network that is explained.
        run: that led there, recorded.
        on: t examples.

    Returns:
        By name, [t, n] in the output's unit: positive lowers the output of the label. "representers, tracking" and
        "representers, surrogate" (of the model's outputs, under squared error, with the risk's ridge) have the
        tangent kernel of each output, "representer points" that of the last layer.
    """
    each = range(risk.n_outputs)
    gram, near = (kernel(risk.model, x, risk.train.x, output="each") for x in (risk.train.x, on.x))
    fit = {"loss": "squared_error", "l2": risk.l2}
    outputs = risk.outputs()
    alphas = {
        "representers, tracking": tracking_importance(run),
        "representers, surrogate": torch.cat(
            [surrogate_importance(gram[..., c].contiguous(), outputs[:, c : c + 1], **fit) for c in each], 1
        ),
    }
    scores = {name: [representer_scores(alpha, near, output=c) for c in each] for name, alpha in alphas.items()}
    scores["representer points"] = [representer_points(risk, on, output=c) for c in each]
    return {name: -torch.stack(table)[on.y, torch.arange(len(on))] for name, table in scores.items()}


def agreement_by_question(
    scores: Mapping[str, Float[Tensor, "t n"]], truths: Mapping[str, tuple[Groups, Float[Tensor, "t g"]]]
) -> tuple[pandas.DataFrame, pandas.DataFrame]:
    """Return each method's Spearman correlation with each truth, and its 95% interval in words.

    Args:
        scores: by method; positive is harmful, so minus the sum over a group predicts its removal.
        truths: by question: the groups that leave, and each test's change of loss.

    Returns:
        Two tables of one row a method and one column a question. The intervals resample the groups.
    """
    said = {
        name: {
            question: fidelity(-torch.stack([table[:, group].sum(1) for group in groups], 1), true).spearman
            for question, (groups, true) in truths.items()
        }
        for name, table in scores.items()
    }
    words = {
        name: {" ".join(question.split()): f"{each.low:.2f} to {each.high:.2f}" for question, each in row.items()}
        for name, row in said.items()
    }
    found = {name: {question: float(each) for question, each in row.items()} for name, row in said.items()}
    return pandas.DataFrame(found).T, pandas.DataFrame(words).T


def label_agreement(scores: Float[Tensor, " n"], flipped: Bool[Tensor, " n"]) -> float:
    """Return twice the area under the curve of wrong labels minus one: 1 finds all first, 0 is chance.

    Args:
        scores: of the training examples; positive is suspicious.
        flipped: whose label is wrong.
    """
    return 2 * float(mislabel_auc(scores, flipped)) - 1
