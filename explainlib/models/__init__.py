"""The papers' networks: plain modules without dropout, built from a seed, by family."""

from explainlib.models.cnn2 import cnn2
from explainlib.models.cnn3 import cnn3
from explainlib.models.few_shot import cnn4, fc_bn
from explainlib.models.logistic import logistic
from explainlib.models.mlp import mlp
from explainlib.models.text_cnn import text_cnn

__all__ = ["cnn2", "cnn3", "cnn4", "fc_bn", "logistic", "mlp", "text_cnn"]
