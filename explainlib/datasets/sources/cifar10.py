"""CIFAR-10: colour photographs of 32 by 32 pixels in ten classes, from the official batches of either layout.

The binary layout is one label byte and 3,072 pixel bytes (red, green, blue, each row by row) for every image. The
Python layout is a pickle, of which only the arrays are read and nothing is run. Some of the batches are enough, and a
batch may hold fewer images than the official 10,000. The two layouts hold the same images and are never mixed.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch

from explainlib.datasets.bounds import format_value, require_several, require_values, unreadable_error
from explainlib.datasets.examples import Examples, Split, stratified_split
from explainlib.datasets.files import SourceFile, locate, where_to_put
from explainlib.datasets.readers import read_plain_pickle

PUBLISHED = "https://www.cs.toronto.edu/~kriz/"
ARCHIVES = {".bin": "cifar-10-binary.tar.gz", "": "cifar-10-python.tar.gz"}
LAYOUTS = {".bin": "binary", "": "python"}
NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
SHAPE, PIXELS = (3, 32, 32), 3 * 32 * 32
TEST_COUNT = 1_000  # where the official test batch is missing; a tenth of fewer images
NEEDED = ("data_batch_1.bin", "test_batch.bin")
FILES = tuple(
    SourceFile(batch + suffix, PUBLISHED + archive, optional=batch + suffix not in NEEDED)
    for suffix, archive in ARCHIVES.items()
    for batch in BATCHES
)


def cifar10(split_seed: int = 0) -> Split:
    """Return the training and test images, of the available batches.

    Args:
        split_seed: of the stratified split, where there are training batches only or the test batch only; 0 or more.

    Returns:
        Split with x float32 [n, 3, 32, 32] in [0, 1]. What was found is logged at level info ("explainlib").

    Raises:
        FileNotFoundError: no batch; the message says what to put where.
        ValueError: a batch that is cut short, labels outside 0 to 9, or a pickle that holds anything but arrays,
            dicts, lists, strings and numbers.
    """
    parts = _parts()
    if not parts:
        raise FileNotFoundError(
            f"cifar10 needs {' and '.join(NEEDED)}, and none of its files was found; "
            f"{where_to_put('cifar10', NEEDED)}, out of {PUBLISHED}{ARCHIVES['.bin']}; "
            f"the batches of {ARCHIVES['']} are read too."
        )
    examples = {part: _concatenate([_read(path) for path in paths]) for part, paths in parts.items()}
    logging.getLogger("explainlib").info("cifar10: %s", _sentence({p: len(e) for p, e in examples.items()}, parts))
    if len(examples) == 2:
        return Split(train=examples["train"], test=examples["test"])
    (whole,) = examples.values()
    require_several(next(iter(parts.values()))[0], len(whole))
    return stratified_split(whole, min(TEST_COUNT, max(1, len(whole) // 10)), split_seed)


def describe() -> str | None:
    """Return a sentence about the available batches, or None.

    Raises:
        ValueError: a damaged batch.
    """
    parts = _parts()
    if not parts:
        return None
    return _sentence({part: sum(map(_count, paths)) for part, paths in parts.items()}, parts)


def _sentence(counts: dict[str, int], parts: dict[str, list[Path]]) -> str:
    """Return how many images there are, in which batches and where."""
    paths = [path for part in parts.values() for path in part]
    where = f"{LAYOUTS[paths[0].suffix]} layout, {', '.join(path.stem for path in paths)}, in {paths[0].parent}"
    if len(counts) == 2:
        return f"{counts['train']:,} training and {counts['test']:,} test images ({where})"
    ((part, count),) = counts.items()
    return f"{count:,} {'training' if part == 'train' else 'test'} images only ({where})"


def _parts() -> dict[str, list[Path]]:
    """Return the batches of one layout, binary before Python, by the part they belong to; no part is empty."""
    found = locate("cifar10", FILES)
    for suffix in LAYOUTS:
        here = {name.removesuffix(suffix): path for name, path in found.items() if Path(name).suffix == suffix}
        train = [path for batch, path in here.items() if batch != "test_batch"]
        test = [path for batch, path in here.items() if batch == "test_batch"]
        if here:
            return {part: paths for part, paths in (("train", train), ("test", test)) if paths}
    return {}


def _count(path: Path) -> int:
    """Return how many images a batch holds; a binary one is measured, not read."""
    return _binary_count(path) if path.suffix else len(_read(path)[1])


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels uint8 [n, 3072] and the labels int64 [n] of one batch."""
    pixels, labels = _read_binary(path) if path.suffix else _read_python(path)
    for image, label in enumerate(labels):
        if not 0 <= label < len(NAMES):
            raise unreadable_error(
                path, f"image {image} has the label {format_value(label)}, expected 0 to {len(NAMES) - 1}"
            )
    return pixels, np.array(labels, dtype=np.int64)


def _binary_count(path: Path) -> int:
    """Return how many whole images a binary batch holds; it has to end with one."""
    size = path.stat().st_size
    count, rest = divmod(size, 1 + PIXELS)
    if rest or not count:
        held = f"{count:,} images of {1 + PIXELS:,} bytes and {rest:,} bytes more"
        raise unreadable_error(path, f"its {size:,} bytes are {held}")
    return count


def _read_binary(path: Path) -> tuple[np.ndarray, list[int]]:
    """Return the pixels and the labels of a batch of the binary layout."""
    count = _binary_count(path)
    require_values(path, count * (1 + PIXELS))
    rows = np.fromfile(path, dtype=np.uint8).reshape(count, 1 + PIXELS)
    return rows[:, 1:], rows[:, 0].tolist()


def _read_python(path: Path) -> tuple[np.ndarray, list[int]]:
    """Return the pixels and the labels of a batch of the Python layout."""
    # Python 2 wrote the official keys as bytes, which come back as str; a copy saved by Python 3 has bytes.
    read = read_plain_pickle(path)
    content = {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in read.items()}
    if len(content) != len(read):
        raise unreadable_error(path, "it holds a key twice, as text and as bytes")
    missing = {"data", "labels"} - content.keys()
    if missing:
        raise unreadable_error(path, f"it has no {' and '.join(map(repr, sorted(missing)))}, which every batch has")
    pixels, labels = content["data"], content["labels"]
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[1:] != (PIXELS,):
        what = f"{pixels.dtype} {list(pixels.shape)}" if isinstance(pixels, np.ndarray) else type(pixels).__name__
        raise unreadable_error(path, f"its data are {what}, expected uint8 [n, {PIXELS}]")
    if np.ndim(labels) != 1 if isinstance(labels, np.ndarray) else not isinstance(labels, list):
        raise unreadable_error(path, "its labels are not a list of whole numbers")
    if not all(isinstance(label, int | np.integer) for label in labels):
        raise unreadable_error(path, "its labels are not a list of whole numbers")
    if not len(pixels) or len(labels) != len(pixels):
        raise unreadable_error(
            path, f"it holds {len(pixels)} images and {len(labels)} labels, expected one for each image"
        )
    return pixels, [int(label) for label in labels]


def _concatenate(batches: list[tuple[np.ndarray, np.ndarray]]) -> Examples:
    """Return the examples of some batches, one after the other."""
    pixels, labels = (np.concatenate(values) for values in zip(*batches, strict=True))
    x = torch.from_numpy(pixels).to(torch.float32).div_(255).reshape(-1, *SHAPE)
    return Examples(x, torch.from_numpy(labels), NAMES)
