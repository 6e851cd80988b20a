"""The register of sources: what each is, whose it is, what it may be used for, and how to read it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from explainlib.checks import require_choice
from explainlib.datasets.examples import Split, stratified_limit, stratified_split
from explainlib.datasets.files import SourceFile, download, where_to_put
from explainlib.datasets.sources import blobs, cifar10, digits, gaussians, iris, mnist, text

LATER: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """One registered data set.

    Args:
        name: what ``load`` calls it.
        description: one sentence about what is in it.
        origin: where it comes from.
        licence: the terms of use.
        citation: how to cite it; empty for data made here.
        read: split_seed -> Split.
        files: what has to be on disk; none for embedded data.
        describe: says what was found on disk, None for nothing; absent for embedded data.
    """

    name: str
    description: str
    origin: str
    licence: str
    citation: str
    read: Callable[[int], Split]
    files: tuple[SourceFile, ...] = ()
    describe: Callable[[], str | None] | None = None

    @property
    def kind(self) -> str:
        """Return "embedded", or "files" where something has to be on disk."""
        return "files" if self.files else "embedded"


@dataclass(frozen=True)
class Entry:
    """One row of the catalogue.

    Args:
        name: what ``load`` calls it.
        origin: where it comes from.
        licence: the terms of use.
        kind: "embedded" or "files".
        found: available files, as a sentence; None if ``load`` would fail.
        how: what to do about that; empty if nothing needs doing.
    """

    name: str
    origin: str
    licence: str
    kind: str
    found: str | None
    how: str


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
            "iris", "Four measurements of 150 flowers of three species.",
            "https://archive.ics.uci.edu/dataset/53/iris, the copy in scikit-learn", "CC BY 4.0",
            "Fisher, The use of multiple measurements in taxonomic problems, Annals of Eugenics, 1936", iris.iris,
        ),
        Source(
            "digits", "1,797 handwritten digits of 8 by 8 pixels.",
            "https://archive.ics.uci.edu/dataset/80, the copy in scikit-learn", "CC BY 4.0",
            "Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998", digits.digits,
        ),
        Source(
            "gaussians", "Two overlapping Gaussian classes in five dimensions.",
            "made by explainlib.datasets.gaussians", "as explainlib", "", _gaussians,
        ),
        Source(
            "blobs", "Four overlapping Gaussian classes in five dimensions.",
            "made by explainlib.datasets.blobs", "as explainlib", "", _blobs,
        ),
        Source(
            "mnist", "Handwritten digits of 28 by 28 pixels.",
            "http://yann.lecun.com/exdb/mnist/", "CC BY-SA 3.0, as commonly stated",
            "LeCun, Bottou, Bengio and Haffner, Gradient-based learning applied to document recognition, 1998",
            partial(mnist.mnist, "mnist"), mnist.FILES["mnist"], partial(mnist.describe, "mnist"),
        ),
        Source(
            "fashion_mnist", "Clothes, 28 by 28 pixels.",
            "https://github.com/zalandoresearch/fashion-mnist", "MIT",
            "Xiao, Rasul and Vollgraf, Fashion-MNIST: a novel image dataset, arXiv:1708.07747, 2017",
            partial(mnist.mnist, "fashion_mnist"), mnist.FILES["fashion_mnist"],
            partial(mnist.describe, "fashion_mnist"),
        ),
        Source(
            "cifar10", "Colour photographs of 32 by 32 pixels.",
            "https://www.cs.toronto.edu/~kriz/cifar.html", "none stated",
            "Krizhevsky, Learning multiple layers of features from tiny images, 2009",
            cifar10.cifar10, cifar10.FILES, cifar10.describe,
        ),
        Source(
            "ag_news", "Titles and descriptions of news in four classes.",
            f"AG's corpus of news articles; the classes of {text.AG_NEWS}", "non-commercial research use",
            "Zhang, Zhao and LeCun, Character-level convolutional networks for text classification, 2015",
            partial(text.text, "ag_news"), text.FILES["ag_news"], partial(text.describe, "ag_news"),
        ),
        Source(
            "toxicity", "Comments from Wikipedia talk pages, toxic or not; the texts can offend.",
            text.CONVERSATION, "Apache 2.0 (its repository)",
            "Dixon, Li, Sorensen, Thain and Vasserman, Measuring and mitigating unintended bias in text "
            "classification, 2018",
            partial(text.text, "toxicity"), text.FILES["toxicity"], partial(text.describe, "toxicity"),
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
    return [_entry(source) for source in SOURCES.values()]


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
    source = SOURCES[require_choice("name", name, tuple(SOURCES), later=LATER)]
    if not source.files:
        raise ValueError(f"{name} is embedded and has no files to download; call load({name!r}).")
    unverified = [file for file in source.files if file.sha256 is None]
    needed = [file.name for file in unverified if not file.optional]
    if needed:
        raise ValueError(
            f"no verified sha256 is known for {' and '.join(needed)} of {name}, so nothing is downloaded; "
            f"get the files from {source.origin} yourself and {where_to_put(name, needed)}."
        )
    if unverified:
        by_hand = where_to_put(name, [file.name for file in unverified])
        logging.getLogger("explainlib").warning(
            "%s: files without a verified sha256 are not downloaded; %s.", name, by_hand
        )
    return {file.name: download(name, file) for file in source.files if file.sha256 is not None}


def _entry(source: Source) -> Entry:
    """Return the row of one source; a damaged file or folder setting becomes its remedy instead of an error."""
    found, how = "embedded", ""
    if source.describe is not None:
        try:
            found, how = source.describe(), ""
        except (ValueError, OSError) as error:
            found, how = None, str(error)
        if found is None and not how:
            how = _how(source)
    return Entry(source.name, source.origin, source.licence, source.kind, found, how)


def _how(source: Source) -> str:
    """Return what to do about files that are not there."""
    needed = [file for file in source.files if not file.optional]
    by_hand = where_to_put(source.name, [file.name for file in needed])
    if all(file.sha256 for file in needed):
        return f"python -m explainlib data {source.name} downloads it; or {by_hand}"
    return by_hand
