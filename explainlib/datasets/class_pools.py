"""The register of class pools: many classes with few drawings each, found by name like the data sets of ``load``."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

from explainlib.checks import require_choice
from explainlib.datasets.entries import Entry, Source
from explainlib.datasets.pools import ClassPool
from explainlib.datasets.sources import cifar10, few_shot_pickles, omniglot
from explainlib.datasets.sources.digits import all_digits


def digits_pool(split: str | None = None) -> ClassPool:
    """Return the ten digits as classes: x float32 [1797, 1, 8, 8], ink from 0 to 1.

    Raises:
        ValueError: any split; there is one part only.
    """
    require_choice("split", split, (None,))
    examples = all_digits()
    return ClassPool(examples.x.reshape(-1, 1, 8, 8), examples.y, [f"digits/{c}" for c in range(10)], ["digits"] * 10)


PER_CLASS = 60  # pictures of each class of a pool that is made of a classification data set


def cifar10_pool(split: str | None = None) -> ClassPool:
    """Return the ten classes of CIFAR-10 with the first 60 pictures of each: x float32 [600, 3, 32, 32] in [0, 1].

    Args:
        split: "train" (None) or "test", the batches that the pictures are from.

    Raises:
        FileNotFoundError, ValueError: as the data set's own reader, or another split.
    """
    require_choice("split", split, (None, "train", "test"))
    both = cifar10.cifar10()
    examples = both.test if split == "test" else both.train
    rows = torch.cat([(examples.y == c).nonzero()[:PER_CLASS, 0] for c in range(len(cifar10.NAMES))])
    names = [f"cifar10/{name}" for name in cifar10.NAMES]
    return ClassPool(examples.x[rows], examples.y[rows], names, ["cifar10"] * len(names))


def _glyphs(split: str | None) -> ClassPool:
    """Return the letters of matplotlib's fonts."""
    from explainlib.datasets.glyphs import glyphs  # opens the fonts

    return glyphs(split)


SOURCES = {
    source.name: source
    for source in (
        Source(
            "glyphs", "drawn from the fonts that come with matplotlib: DejaVu, STIX",
            "Bitstream Vera licence (DejaVu), OFL 1.1 (STIX)", _glyphs,
        ),
        Source(
            "omniglot", "https://github.com/brendenlake/omniglot; Lake, Salakhutdinov and Tenenbaum, Science, 2015",
            "MIT", omniglot.omniglot, omniglot.FILES, omniglot.describe,
        ),
        Source(
            "mini_imagenet", "a subset of ImageNet; Vinyals et al. 2016, the split of Ravi and Larochelle 2017",
            "non-commercial research, as ImageNet", partial(few_shot_pickles.few_shot_pickle, "mini_imagenet"),
            few_shot_pickles.FILES["mini_imagenet"], partial(few_shot_pickles.describe, "mini_imagenet"),
        ),
        Source(
            "fc100", "CIFAR-100 split by superclass; Krizhevsky 2009, Oreshkin et al. 2018",
            "as CIFAR-100, which states none", partial(few_shot_pickles.few_shot_pickle, "fc100"),
            few_shot_pickles.FILES["fc100"], partial(few_shot_pickles.describe, "fc100"),
        ),
        Source(
            "cifar10", "Krizhevsky, Learning multiple layers of features from tiny images, 2009", "states none",
            cifar10_pool, cifar10.FILES, cifar10.describe,
        ),
        Source(
            "digits", "https://archive.ics.uci.edu/dataset/80, the copy in scikit-learn", "CC BY 4.0", digits_pool
        ),
    )
}  # fmt: skip


def class_pool(name: str, *, split: str | None = None) -> ClassPool:
    """Return many classes with few drawings each, to draw few-shot tasks from.

    Args:
        name: "glyphs" and "digits" are embedded; "omniglot", "mini_imagenet", "fc100" and "cifar10" are read from
            files.
        split: one part of the source, by the name its own reader knows ("background", "train", ...); None takes the
            part to meta-train on.

    Returns:
        ClassPool in float32; class names are qualified by their parent ("Balinese/character01").

    Raises:
        ValueError: an unknown name or split, a damaged file, or a pickle that asks for code.
        FileNotFoundError: files are missing; the message says what to put where.
    """
    return SOURCES[require_choice("name", name, tuple(SOURCES))].read(split)


def pool_catalogue() -> list[Entry]:
    """Return one row for each pool: origin, licence, available files, and the remedy for missing ones."""
    return [source.entry() for source in SOURCES.values()]


def fetch_pool(name: str) -> dict[str, Path]:
    """Return the paths of a pool's files in the download cache, downloaded where they were missing.

    Only files with a verified sha256 are downloaded; optional ones without are passed over with a warning.

    Args:
        name: a pool that is read from files.

    Raises:
        ValueError: an unknown or embedded pool, a needed file without a verified hash (the message says what to put
            where), or a download that is not the published file.
        ConnectionError: a file could not be downloaded.
    """
    return SOURCES[require_choice("name", name, tuple(SOURCES))].fetch("class_pool")
