"""Influence of training tasks in meta-learning (TLXML)."""

from explainlib.influence.tasks.controls import cosine_scores, random_projector_scores
from explainlib.influence.tasks.influence import TaskInfluence
from explainlib.influence.tasks.spectrum import spectrum_of_rows

__all__ = ["TaskInfluence", "cosine_scores", "random_projector_scores", "spectrum_of_rows"]
