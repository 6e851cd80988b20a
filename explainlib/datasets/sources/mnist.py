"""MNIST and Fashion-MNIST: images of 28 by 28 grey levels in ten classes, from the official idx files.

With the official training files the official split is used. With one pair of files only (images and labels of the
training part, or of the 10,000 test images, t10k) that pair is the whole data set and is split here.
"""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from explainlib.datasets.bounds import require_several
from explainlib.datasets.examples import Examples, Split, stratified_split
from explainlib.datasets.files import SourceFile, locate, where_to_put
from explainlib.datasets.readers import idx_count, read_idx

TEST_COUNT = 1_000  # of one pair of official length; a shorter one gives a tenth
DIGIT_NAMES = tuple(map(str, range(10)))
FASHION_NAMES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
NAMES = {"mnist": DIGIT_NAMES, "fashion_mnist": FASHION_NAMES}
PARTS = ("train", "t10k")


def idx_files(address: str, hashes: dict[str, str], *, optional: tuple[str, ...]) -> tuple[SourceFile, ...]:
    """Return the four official files below ``address``; the parts in ``optional`` can be missing."""
    names = [(part, f"{part}-{kind}-ubyte.gz") for part in PARTS for kind in ("images-idx3", "labels-idx1")]
    return tuple(SourceFile(name, address + name, hashes.get(name), part in optional) for part, name in names)


FILES = {
    "mnist": idx_files(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        {
            "t10k-images-idx3-ubyte.gz": "167310007f03058885c7e95e6c0b19c20de5c7fd3031f4cbdadc9014a523d80b",
            "t10k-labels-idx1-ubyte.gz": "fc607395669ec21321ea83e4b82c0544b7e8e63ff5b34337c06bc0a17cc0da3c",
        },
        optional=("train",),
    ),
    "fashion_mnist": idx_files("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/", {}, optional=("train",)),
}


def mnist(name: str, split_seed: int = 0) -> Split:
    """Return the training and test images of ``name``, as many as its files hold.

    Args:
        name: "mnist" or "fashion_mnist".
        split_seed: of the stratified split, where there is one pair of files only; 0 or more.

    Returns:
        Split with x float32 [n, 1, 28, 28] in [0, 1]. What was found is logged at level info ("explainlib").

    Raises:
        FileNotFoundError: no complete pair of images and labels; the message says what to put where.
        ValueError: a damaged file, other image sizes, labels outside 0 to 9, or counts that do not match.
    """
    pairs = {part: pair for part, pair in _pairs(name).items() if len(pair) == 2}
    if not pairs:
        raise FileNotFoundError(_missing(name))
    logging.getLogger("explainlib").info("%s: %s", name, describe(name))
    parts = {part: _read(images, labels, NAMES[name]) for part, (images, labels) in pairs.items()}
    if len(parts) == 2:
        return Split(train=parts["train"], test=parts["t10k"])
    (whole,) = parts.values()
    require_several(next(iter(pairs.values()))[0], len(whole))
    return stratified_split(whole, min(TEST_COUNT, max(1, len(whole) // 10)), split_seed)


def describe(name: str) -> str | None:
    """Return a sentence about the available files ("t10k only, 10,000 images, in <folder>"), or None without any.

    Raises:
        ValueError: a file that is not an idx file of images.
    """
    pairs = {part: pair for part, pair in _pairs(name).items() if len(pair) == 2}
    if not pairs:
        return None
    counts = {part: idx_count(images, 3) for part, (images, _) in pairs.items()}
    folder = next(iter(pairs.values()))[0].parent
    if len(counts) == 1:
        ((part, count),) = counts.items()
        return f"{part} only, {count:,} images, in {folder}"
    return f"{counts['train']:,} training and {counts['t10k']:,} test images, in {folder}"


def _pairs(name: str) -> dict[str, list[Path]]:
    """Return, for either part, those of its images and labels that are there."""
    found = locate(name, FILES[name])
    return {part: [path for official, path in found.items() if official.startswith(part)] for part in PARTS}


def _missing(name: str) -> str:
    """Return the message for a data set without a complete pair of files."""
    found = sorted(path.name for paths in _pairs(name).values() for path in paths)
    have = f"only {', '.join(found)}" if found else "none of its files"
    needed = [file.name for file in FILES[name] if not file.optional]
    remedy = f"{where_to_put(name, needed)}, published at {FILES[name][0].url.rpartition('/')[0]}/"
    if all(file.sha256 for file in FILES[name] if not file.optional):
        remedy = f"call explainlib.datasets.fetch({name!r}), or {remedy}"
    return f"{name} needs a file of images and its file of labels, and {have} was found; {remedy}."


def _read(images: Path, labels: Path, classes: tuple[str, ...]) -> Examples:
    """Return the examples of one pair of files."""
    pixels, y = read_idx(images, 3), read_idx(labels, 1)
    if pixels.shape[1:] != (28, 28):
        raise ValueError(
            f"{images} holds images of {list(pixels.shape[1:])} pixels, expected [28, 28]; use the official file."
        )
    if len(pixels) != len(y):
        raise ValueError(
            f"{images} holds {len(pixels)} images, {labels} holds {len(y)} labels; they do not belong together, "
            "replace both by the official files."
        )
    if int(y.max()) >= len(classes):
        raise ValueError(f"{labels} holds the label {int(y.max())}, expected 0 to {len(classes) - 1}; replace it.")
    return Examples(pixels[:, None].to(torch.float32).div_(255), y.long(), classes)
