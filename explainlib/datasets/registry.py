"""The register of sources: what each is, whose it is, what it may be used for, and how to read it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from explainlib.checks import require_choice
from explainlib.datasets.entries import Entry, Source
from explainlib.datasets.examples import Split, stratified_limit, stratified_split
from explainlib.datasets.sources import blobs, cifar10, digits, gaussians, iris, mnist, text

LATER: tuple[str, ...] = ()


def _gaussians(split_seed: int) -> Split:
    """Return 1,000 training and 200 test points of one draw."""
    return stratified_split(gaussians.gaussians(1_200), 200, split_seed)


def _blobs(split_seed: int) -> Split:
    """Return 20,000 training and 1,000 test points of one draw."""
    return stratified_split(blobs.blobs(21_000), 1_000, split_seed)


SOURCES = {
    source.name: source
    for source in (
        Source(
            "iris", "https://archive.ics.uci.edu/dataset/53/iris, the copy in scikit-learn", "CC BY 4.0",
            iris.iris,
            description="Four measurements of 150 flowers of three species.",
            citation="Fisher, The use of multiple measurements in taxonomic problems, Annals of Eugenics, 1936",
        ),
        Source(
            "digits", "https://archive.ics.uci.edu/dataset/80, the copy in scikit-learn", "CC BY 4.0",
            digits.digits,
            description="1,797 handwritten digits of 8 by 8 pixels.",
            citation="Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998",
        ),
        Source(
            "gaussians", "made by explainlib.datasets.gaussians", "as explainlib",
            _gaussians,
            description="Two overlapping Gaussian classes in five dimensions.",
        ),
        Source(
            "blobs", "made by explainlib.datasets.blobs", "as explainlib",
            _blobs,
            description="Four overlapping Gaussian classes in five dimensions.",
        ),
        Source(
            "mnist", "http://yann.lecun.com/exdb/mnist/", "CC BY-SA 3.0, as commonly stated",
            partial(mnist.mnist, "mnist"), mnist.FILES["mnist"], partial(mnist.describe, "mnist"),
            description="Handwritten digits of 28 by 28 pixels.",
            citation="LeCun, Bottou, Bengio and Haffner, Gradient-based learning applied to document recognition, 1998",
        ),
        Source(
            "fashion_mnist", "https://github.com/zalandoresearch/fashion-mnist", "MIT",
            partial(mnist.mnist, "fashion_mnist"), mnist.FILES["fashion_mnist"],
            partial(mnist.describe, "fashion_mnist"),
            description="Clothes, 28 by 28 pixels.",
            citation="Xiao, Rasul and Vollgraf, Fashion-MNIST: a novel image dataset, arXiv:1708.07747, 2017",
        ),
        Source(
            "cifar10", "https://www.cs.toronto.edu/~kriz/cifar.html", "none stated",
            cifar10.cifar10, cifar10.FILES, cifar10.describe,
            description="Colour photographs of 32 by 32 pixels.",
            citation="Krizhevsky, Learning multiple layers of features from tiny images, 2009",
        ),
        Source(
            "ag_news", f"AG's corpus of news articles; the classes of {text.AG_NEWS}", "non-commercial research use",
            partial(text.text, "ag_news"), text.FILES["ag_news"], partial(text.describe, "ag_news"),
            description="Titles and descriptions of news in four classes.",
            citation="Zhang, Zhao and LeCun, Character-level convolutional networks for text classification, 2015",
        ),
        Source(
            "toxicity", text.CONVERSATION, "Apache 2.0 (its repository)",
            partial(text.text, "toxicity"), text.FILES["toxicity"], partial(text.describe, "toxicity"),
            description="Comments from Wikipedia talk pages, toxic or not; the texts can offend.",
            citation="Dixon, Li, Sorensen, Thain and Vasserman, Measuring and mitigating unintended bias in text "
            "classification, 2018",
        ),
    )
}  # fmt: skip


def load(name: str, *, split_seed: int = 0, limit: int | None = None) -> Split:
    """Return the training and the test part of a data set, in float32.

    Args:
        name: one of the names in ``catalogue()``.
        split_seed: of the stratified split, where the source does not come split; 0 or more.
        limit: keep that many training examples, stratified by the same seed; None keeps all. Standardising, where
            there is any, is by the whole training part; the test part stays whole.

    Returns:
        Split with ``.train`` and ``.test``.

    Raises:
        NotAvailableYet: a data set that a later version will have.
        ValueError: another name, a limit beyond the training part, or a damaged file.
        FileNotFoundError: files are missing; the message says what to put where.
    """
    split = SOURCES[require_choice("name", name, tuple(SOURCES), later=LATER)].read(split_seed)
    if limit is None:
        return split
    return Split(train=stratified_limit(split.train, limit, split_seed), test=split.test)


def catalogue() -> list[Entry]:
    """Return one row for each data set: origin, licence, available files, and the remedy for missing ones."""
    return [source.entry() for source in SOURCES.values()]


def fetch(name: str) -> dict[str, Path]:
    """Return the paths of a data set's files in the download cache, downloaded where they were missing.

    Only files with a verified sha256 are downloaded; optional ones without are passed over with a warning.

    Args:
        name: a data set of kind "files".

    Raises:
        NotAvailableYet: a data set that a later version will have.
        ValueError: an unknown or embedded data set, a needed file without a verified hash (the message says what to
            put where), or a download that is not the published file.
        ConnectionError: a file could not be downloaded.
    """
    return SOURCES[require_choice("name", name, tuple(SOURCES), later=LATER)].fetch("load")
