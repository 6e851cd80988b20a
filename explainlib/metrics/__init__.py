"""Agreement with the truth: fidelity, case deletion, datamodels, mislabels, self-rank and proper order."""

from explainlib.metrics.agreement import Estimate, Fidelity, LossChange, fidelity, same_spearman_pair
from explainlib.metrics.datamodels import linear_datamodeling_score
from explainlib.metrics.deletion import (
    DELETION_SHARES,
    deletion_auc,
    deletion_counts,
    deletion_curve,
    deletion_groups,
    retrained_changes,
)
from explainlib.metrics.mislabels import detection_curve, mislabel_auc
from explainlib.metrics.ranks import ProperOrder, proper_order, self_rank
from explainlib.metrics.seeds import clustered_mean, curve_intervals, paired_difference
from explainlib.metrics.ties import average_ranks

__all__ = [
    "DELETION_SHARES",
    "Estimate",
    "Fidelity",
    "LossChange",
    "ProperOrder",
    "average_ranks",
    "clustered_mean",
    "curve_intervals",
    "deletion_auc",
    "deletion_counts",
    "deletion_curve",
    "deletion_groups",
    "detection_curve",
    "fidelity",
    "linear_datamodeling_score",
    "mislabel_auc",
    "paired_difference",
    "proper_order",
    "retrained_changes",
    "same_spearman_pair",
    "self_rank",
]
