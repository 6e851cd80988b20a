"""The papers' networks: plain modules without dropout, built from a seed, by family."""

from explainlib.models.adapted import adapted
from explainlib.models.bayes import Bayesian, bayesian, bayesian_lenet, bayesian_mlp, bayesian_vgg13
from explainlib.models.cnn import cnn2, cnn3
from explainlib.models.few_shot import cnn4, fc_bn
from explainlib.models.lenet import lenet
from explainlib.models.logistic import logistic
from explainlib.models.mlp import mlp
from explainlib.models.text_cnn import text_cnn
from explainlib.models.vgg13 import vgg13

__all__ = [
    "Bayesian",
    "adapted",
    "bayesian",
    "bayesian_lenet",
    "bayesian_mlp",
    "bayesian_vgg13",
    "cnn2",
    "cnn3",
    "cnn4",
    "fc_bn",
    "lenet",
    "logistic",
    "mlp",
    "text_cnn",
    "vgg13",
]
