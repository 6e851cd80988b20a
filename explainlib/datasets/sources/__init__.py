"""One module a source of data, each with the function of its name; with files, also FILES and ``describe``."""

from explainlib.datasets.sources import (
    blobs,
    cifar10,
    digits,
    few_shot_pickles,
    gaussians,
    iris,
    mnist,
    omniglot,
    text,
)

__all__ = [
    "blobs",
    "cifar10",
    "digits",
    "few_shot_pickles",
    "gaussians",
    "iris",
    "mnist",
    "omniglot",
    "text",
]
