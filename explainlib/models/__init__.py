"""The papers' networks: plain modules without dropout or BatchNorm, built from a seed, by family."""

from explainlib.models.cnn3 import cnn3
from explainlib.models.logistic import logistic
from explainlib.models.mlp import mlp

__all__ = ["cnn3", "logistic", "mlp"]
