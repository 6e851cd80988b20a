"""mini-ImageNet and FC100: colour photographs of many classes, from the pickles that few-shot learning passes around.

Both come in three parts with different classes (train, validation, test). The pickles are read without running any
code; an .npz with the same keys does as well. ``labels`` (a name or number for each image) may stand in the place of
``class_dict``, which an .npz cannot hold.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from explainlib.checks import require_choice
from explainlib.datasets.bounds import LONGEST_NAME, format_list, format_value, unreadable_error
from explainlib.datasets.files import SourceFile, locate, where_to_put
from explainlib.datasets.pools import ClassPool
from explainlib.datasets.readers import PlainNpz, read_plain_pickle

SPLITS = ("train", "validation", "test")
CHUNK = 1_000  # images turned into float at a time: the whole of mini-ImageNet as float32 is there once, not twice


@dataclass(frozen=True)
class Layout:
    """How one of the two sets is stored.

    Args:
        side: the pictures are side by side pixels, three colours.
        images: the key of the pictures, uint8 [N, side, side, 3].
        published: where the files are described.
        names: part -> official file names, the first is the usual one.
        parent: of every class, where the file does not say.
    """

    side: int
    images: str
    published: str
    names: dict[str, tuple[str, ...]]
    parent: str


LAYOUTS = {
    "mini_imagenet": Layout(
        84,
        "image_data",
        "https://zenodo.org/record/7978538",
        {
            "train": ("mini-imagenet-cache-train.pkl",),
            "validation": ("mini-imagenet-cache-validation.pkl", "mini-imagenet-cache-val.pkl"),
            "test": ("mini-imagenet-cache-test.pkl",),
        },
        "mini_imagenet",
    ),
    "fc100": Layout(
        32,
        "data",
        "https://zenodo.org/record/7978538",
        {"train": ("FC100_train.pickle",), "validation": ("FC100_val.pickle",), "test": ("FC100_test.pickle",)},
        "class",
    ),
}


def _files(layout: Layout) -> tuple[SourceFile, ...]:
    """Return every name under which a part is looked for; no hash was verified, so none is downloaded."""
    return tuple(
        SourceFile(name, layout.published, optional=(part, place) != ("train", 0))
        for part, official in layout.names.items()
        for place, name in enumerate([*official, *(str(Path(pickled).with_suffix(".npz")) for pickled in official)])
    )


FILES = {name: _files(layout) for name, layout in LAYOUTS.items()}


def few_shot_pickle(name: str, split: str | None = None) -> ClassPool:
    """Return one part of ``name``; the training part of mini-ImageNet needs about 5 GB of memory.

    Args:
        name: "mini_imagenet" or "fc100".
        split: "train", "validation" or "test"; None is "train".

    Returns:
        ClassPool with x float32 [N, 3, 84, 84] or [N, 3, 32, 32] in [0, 1]. mini-ImageNet: the WordNet id names a class
        and "mini_imagenet" is the parent of all. FC100: the label names a class, and the parent is its superclass where
        the file has ``coarse_labels`` (the official ones have not), else "class".

    Raises:
        ValueError: an unknown split, a pickle that asks for code (it is not run), a damaged file, missing keys, or
            images and labels that do not match.
        FileNotFoundError: the part is not there; the message says what to put where.
    """
    part = require_choice("split", split, (None, *SPLITS)) or "train"
    found = _parts(name)
    if part not in found:
        raise FileNotFoundError(_missing(name, part, found))
    path, layout = found[part], LAYOUTS[name]
    logging.getLogger("explainlib").info("%s: %s", name, path)
    content = _content(path, layout.images)
    images = _images(path, content[layout.images], layout)
    labels, parents = _labels(path, content, len(images)), _parents(path, content, len(images), layout.parent)
    names = sorted(set(zip(parents, labels, strict=True)))
    number = {pair: c for c, pair in enumerate(names)}
    y = torch.tensor([number[pair] for pair in zip(parents, labels, strict=True)])
    return ClassPool(_to_unit_interval(images), y, ["/".join(pair) for pair in names], [parent for parent, _ in names])


def describe(name: str) -> str | None:
    """Return a sentence about the available parts, or None; nothing is read."""
    found = _parts(name)
    if not found:
        return None
    return (
        f"{', '.join(f'{part} ({path.name})' for part, path in found.items())}, in {next(iter(found.values())).parent}"
    )


def _parts(name: str) -> dict[str, Path]:
    """Return the file of each part that is there."""
    stems = {Path(file).stem: part for part, official in LAYOUTS[name].names.items() for file in official}
    found: dict[str, Path] = {}
    for file, path in locate(name, FILES[name]).items():
        found.setdefault(stems[Path(file).stem], path)
    return found


def _missing(name: str, part: str, found: dict[str, Path]) -> str:
    """Return the message for a part that is not there."""
    have = f"only split={' or '.join(map(repr, found))}" if found else "none of its files"
    needed = LAYOUTS[name].names[part][0]
    remedy = f"{where_to_put(name, [needed])}, published at {LAYOUTS[name].published}"
    return f"{name}, split={part!r}, needs {needed} (or the same as .npz), and {have} was found; {remedy}."


def _content(path: Path, images: str) -> Mapping:
    """Return what the file holds; the pictures and one of the two keys for classes have to be there."""
    content = PlainNpz(path) if path.suffix == ".npz" else read_plain_pickle(path)
    if images not in content or not {"class_dict", "labels"} & set(content):
        what = f"it holds {format_list(sorted(map(str, content)))}"
        raise unreadable_error(path, f"{what}, expected {images!r} and 'class_dict' or 'labels'")
    return content


def _images(path: Path, images: object, layout: Layout) -> UInt8[np.ndarray, "N s s 3"]:
    """Return the pictures if they are what the layout says."""
    expected = f"uint8 [N, {layout.side}, {layout.side}, 3]"
    if not isinstance(images, np.ndarray):
        raise unreadable_error(path, f"{layout.images!r} is a {type(images).__name__}, expected an array {expected}")
    if images.dtype != np.uint8 or images.shape[1:] != (layout.side, layout.side, 3) or not len(images):
        raise unreadable_error(path, f"{layout.images!r} is {images.dtype} {list(images.shape)}, expected {expected}")
    return images


def _labels(path: Path, content: Mapping, count: int) -> list[str]:
    """Return the class of each picture, as a name without its parent."""
    if "class_dict" not in content:
        return _one_each(path, "labels", content["labels"], count)
    members = content["class_dict"]
    if not isinstance(members, dict):
        raise unreadable_error(path, f"'class_dict' is a {type(members).__name__}, expected a dict of index lists")
    if len({str(name) for name in members}) != len(members):
        raise unreadable_error(path, "'class_dict' holds a name twice, as a text and as a number or bytes")
    labels: list[str | None] = [None] * count
    for name, indices in members.items():
        for i in _as_list(path, f"class {format_value(name)}", indices, count):
            if type(i) is not int or not 0 <= i < count:
                raise unreadable_error(
                    path, f"class {format_value(name)} names the picture {format_value(i)}, and there are {count}"
                )
            if labels[i] is not None:
                raise unreadable_error(
                    path, f"picture {i} is in the classes {format_value(labels[i])} and {format_value(str(name))}"
                )
            labels[i] = str(name)
    if None in labels:
        raise unreadable_error(path, f"picture {labels.index(None)} is in no class of 'class_dict'")
    return labels


def _parents(path: Path, content: Mapping, count: int, parent: str) -> list[str]:
    """Return the superclass of each picture's class, where the file has them."""
    if "coarse_labels" not in content:
        return [parent] * count
    return [f"superclass {label}" if label.isdecimal() else label
            for label in _one_each(path, "coarse_labels", content["coarse_labels"], count)]  # fmt: skip


def _one_each(path: Path, key: str, values: object, count: int) -> list[str]:
    """Return one name for each picture from numbers or strings; numbers are padded, so that they sort by value."""
    one_each = _as_list(path, repr(key), values, count)
    if len(one_each) != count:
        raise unreadable_error(path, f"{key!r} has {len(one_each)} entries for {count} pictures")
    if all(isinstance(value, int) and value >= 0 for value in one_each):
        width = len(str(max(one_each)))
        return [f"{value:0{width}d}" for value in one_each]
    if not all(isinstance(value, str) for value in one_each):
        raise unreadable_error(path, f"{key!r} holds neither whole numbers nor strings, one for each picture")
    longest = max(one_each, key=len)
    if len(longest) > LONGEST_NAME:
        raise unreadable_error(
            path, f"{key!r} holds a name of {len(longest):,} letters, expected at most {LONGEST_NAME:,}"
        )
    return one_each


def _as_list(path: Path, key: str, values: object, count: int) -> list | tuple:
    """Return the values of a list or a one-dimensional array, at most one for each picture."""
    if not (isinstance(values, list | tuple) or (isinstance(values, np.ndarray) and values.ndim == 1)):
        raise unreadable_error(
            path, f"{key} is a {type(values).__name__}, expected a list or an array of one dimension"
        )
    if len(values) > count:
        raise unreadable_error(path, f"{key} has {len(values)} entries for {count} pictures")
    return values.tolist() if isinstance(values, np.ndarray) else values


def _to_unit_interval(images: UInt8[np.ndarray, "N s s 3"]) -> Float[Tensor, "N 3 s s"]:
    """Return the pictures in [0, 1], colours first."""
    count, side = images.shape[:2]
    x = torch.empty(count, 3, side, side)
    for start in range(0, count, CHUNK):
        x[start : start + CHUNK] = torch.tensor(images[start : start + CHUNK]).permute(0, 3, 1, 2)
    return x.div_(255)
