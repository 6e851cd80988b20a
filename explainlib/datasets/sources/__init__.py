"""One file a source of data."""

from explainlib.datasets.sources.blobs import blobs
from explainlib.datasets.sources.digits import all_digits, digits
from explainlib.datasets.sources.gaussians import gaussians
from explainlib.datasets.sources.iris import iris
from explainlib.datasets.sources.mnist import FILES, describe, mnist
from explainlib.datasets.sources.text import NAMES, redacted, tokenized
from explainlib.datasets.sources.tokenizer import PAD, Tokenizer

__all__ = [
    "FILES",
    "NAMES",
    "PAD",
    "Tokenizer",
    "all_digits",
    "blobs",
    "describe",
    "digits",
    "gaussians",
    "iris",
    "mnist",
    "redacted",
    "tokenized",
]
