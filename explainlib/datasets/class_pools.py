"""The register of class pools: many classes with few drawings each, found by name like the data sets of ``load``."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from explainlib.checks import require_choice
from explainlib.datasets.files import SourceFile, download, where_to_put
from explainlib.datasets.pools import ClassPool
from explainlib.datasets.registry import Entry
from explainlib.datasets.sources import few_shot_pickles, omniglot
from explainlib.datasets.sources.digits import all_digits


@dataclass(frozen=True)
class PoolSource:
    """One registered pool.

    Args:
        name: what ``class_pool`` calls it.
        origin: where it comes from.
        licence: the terms of use.
        read: split -> ClassPool.
        files: what has to be on disk; none for embedded data.
        describe: says what was found on disk, None for nothing; absent for embedded data.
    """

    name: str
    origin: str
    licence: str
    read: Callable[[str | None], ClassPool]
    files: tuple[SourceFile, ...] = ()
    describe: Callable[[], str | None] | None = None


def digits_pool(split: str | None = None) -> ClassPool:
    """Return the ten digits as classes: x float32 [1797, 1, 8, 8], ink from 0 to 1.

    Raises:
        ValueError: any split; there is one part only.
    """
    require_choice("split", split, (None,))
    examples = all_digits()
    return ClassPool(examples.x.reshape(-1, 1, 8, 8), examples.y, [f"digits/{c}" for c in range(10)], ["digits"] * 10)


def _glyphs(split: str | None) -> ClassPool:
    """Return the letters of matplotlib's fonts."""
    from explainlib.datasets.glyphs import glyphs  # opens the fonts

    return glyphs(split)


SOURCES = {
    source.name: source
    for source in (
        PoolSource(
            "glyphs", "drawn from the fonts that come with matplotlib: DejaVu, STIX",
            "Bitstream Vera licence (DejaVu), OFL 1.1 (STIX)", _glyphs,
        ),
        PoolSource(
            "omniglot", "https://github.com/brendenlake/omniglot; Lake, Salakhutdinov and Tenenbaum, Science, 2015",
            "MIT", omniglot.omniglot, omniglot.FILES, omniglot.describe,
        ),
        PoolSource(
            "mini_imagenet", "a subset of ImageNet; Vinyals et al. 2016, the split of Ravi and Larochelle 2017",
            "non-commercial research, as ImageNet", partial(few_shot_pickles.few_shot_pickle, "mini_imagenet"),
            few_shot_pickles.FILES["mini_imagenet"], partial(few_shot_pickles.describe, "mini_imagenet"),
        ),
        PoolSource(
            "fc100", "CIFAR-100 split by superclass; Krizhevsky 2009, Oreshkin et al. 2018",
            "as CIFAR-100, which states none", partial(few_shot_pickles.few_shot_pickle, "fc100"),
            few_shot_pickles.FILES["fc100"], partial(few_shot_pickles.describe, "fc100"),
        ),
        PoolSource(
            "digits", "https://archive.ics.uci.edu/dataset/80, the copy in scikit-learn", "CC BY 4.0", digits_pool
        ),
    )
}  # fmt: skip


def class_pool(name: str, *, split: str | None = None) -> ClassPool:
    """Return many classes with few drawings each, to draw few-shot tasks from.

    Args:
        name: "glyphs" and "digits" are embedded, "omniglot", "mini_imagenet" and "fc100" are read from files.
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
    return [_entry(source) for source in SOURCES.values()]


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
    source = SOURCES[require_choice("name", name, tuple(SOURCES))]
    if not source.files:
        raise ValueError(f"{name} is embedded and has no files to download; call class_pool({name!r}).")
    for file in source.files:
        if file.sha256 is None and not file.optional:
            download(name, file)  # refuses, and says what to put where
    skipped = [file.name for file in source.files if file.sha256 is None]
    if skipped:
        logging.getLogger("explainlib").warning(
            "%s: files without a verified sha256 are not downloaded; %s.", name, where_to_put(name, skipped)
        )
    return {file.name: download(name, file) for file in source.files if file.sha256 is not None}


def _entry(source: PoolSource) -> Entry:
    """Return the row of one pool; a damaged file or folder setting becomes its remedy instead of an error."""
    kind, found, how = "files" if source.files else "embedded", "embedded", ""
    if source.describe is not None:
        try:
            found = source.describe()
        except (ValueError, OSError) as error:
            found, how = None, str(error)
        if found is None and not how:
            needed = [file for file in source.files if not file.optional]
            how = where_to_put(source.name, [file.name for file in needed])
            if all(file.sha256 for file in needed):
                how = f"python -m explainlib data {source.name} downloads it; or {how}"
    return Entry(source.name, source.origin, source.licence, kind, found, how)
