"""Omniglot: the characters of fifty alphabets, each drawn by twenty people, read from the official zips.

A drawing is a black and white PNG of 105 by 105 pixels with dark ink on white paper. Here ink is 1 and paper 0, and
each of the 28 by 28 pixels is the mean over the area it covers, so no ink is gained or lost.
"""

from __future__ import annotations

import io
import logging
import struct
import zipfile
import zlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from explainlib.checks import require_choice
from explainlib.datasets.bounds import LONGEST_NAME, format_value, truncate, unreadable_error
from explainlib.datasets.files import SourceFile, locate, where_to_put
from explainlib.datasets.pools import ClassPool
from explainlib.datasets.readers import LARGEST_DIRECTORY, member_content, open_zip

PUBLISHED = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python/"
PARTS = {
    "background": "images_background.zip",
    "evaluation": "images_evaluation.zip",
    "small1": "images_background_small1.zip",
    "small2": "images_background_small2.zip",
}
VERIFIED = {"images_background_small1.zip": "f38eb80f801274ac2b4dff5b24289016bfaba4a7d5bb50deebf27104ad6cb8a4"}
FILES = tuple(
    SourceFile(name, PUBLISHED + name, VERIFIED.get(name), optional=name not in VERIFIED) for name in PARTS.values()
)
SIDE, SMALL = 105, 28
LARGEST_DRAWING = 100_000  # bytes; the official ones have a few hundred, so more is a bomb
NOT_A_PNG = (
    OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, OverflowError, EOFError, MemoryError,
    struct.error, zlib.error,
)  # fmt: skip


def omniglot(split: str | None = None) -> ClassPool:
    """Return the characters of the available zips.

    Args:
        split: "background" (964 characters of 30 alphabets), "evaluation" (659 of 20 others), "small1" or "small2"
            (subsets of the background, five alphabets each). None takes the background where it is there, else the
            small ones there are.

    Returns:
        ClassPool with x float32 [N, 1, 28, 28] in [0, 1], ink = 1; names like "Balinese/character01", the alphabet as
        parent. What was taken is logged at level info ("explainlib").

    Raises:
        ValueError: an unknown split, a damaged zip, a drawing that is no PNG of 105 by 105 pixels.
        FileNotFoundError: the zip is not there; the message says what to put where.
    """
    paths = _archives_of(split)
    logging.getLogger("explainlib").info("omniglot: %s", ", ".join(map(str, paths)))
    x, y, names = _read(tuple((path, path.stat().st_mtime_ns, path.stat().st_size) for path in paths))
    return ClassPool(x.clone(), y.clone(), names, [name.split("/")[0] for name in names])


def describe() -> str | None:
    """Return a sentence about the available zips, or None.

    Raises:
        ValueError: a damaged zip.
    """
    found = locate("omniglot", FILES)
    if not found:
        return None
    parts = []
    for path in found.values():
        with open_zip(path, largest_directory=LARGEST_DIRECTORY) as archive:
            characters = {key.rpartition("/")[0] for key in _members(archive, path)}
        parts.append(f"{path.name} ({len(characters)} characters)")
    return f"{', '.join(parts)}, in {next(iter(found.values())).parent}"


def _archives_of(split: str | None) -> list[Path]:
    """Return the zips that ``split`` means."""
    require_choice("split", split, (None, *PARTS))
    found = locate("omniglot", FILES)
    if split is not None:
        wanted = [PARTS[split]]
    elif PARTS["background"] in found:
        wanted = [PARTS["background"]]
    else:
        wanted = [PARTS[part] for part in ("small1", "small2")]
    paths = [found[name] for name in wanted if name in found]
    if not paths:
        raise FileNotFoundError(_missing(split, found))
    return paths


def _missing(split: str | None, found: dict[str, Path]) -> str:
    """Return the message for a zip that is not there."""
    at_hand = [part for part, name in PARTS.items() if name in found]
    have = f"only split={' or '.join(map(repr, at_hand))}" if at_hand else "none of its zips"
    needed = PARTS[split or "small1"]
    remedy = f"{where_to_put('omniglot', [needed])}, published at {PUBLISHED}"
    if needed in VERIFIED:
        remedy = f"call explainlib.datasets.fetch_pool('omniglot'), or {remedy}"
    asked = "omniglot" if split is None else f"omniglot, split={split!r},"
    return f"{asked} needs {needed}, and {have} was found; {remedy}."


@lru_cache(maxsize=2)  # decoding thousands of small PNGs takes longer than anything a panel does with them
def _read(key: tuple) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """Return x [N, 1, 28, 28], y [N] and the class names of some zips; the key holds (path, time, size) of each."""
    drawings: dict[str, dict[str, np.ndarray]] = {}
    for path, _, _ in key:
        with open_zip(path, largest_directory=LARGEST_DIRECTORY) as archive:
            for name, member in _members(archive, path).items():
                character, _, file = name.rpartition("/")
                # A drawing that stands in two of the zips is one drawing.
                if file not in drawings.setdefault(character, {}):
                    drawings[character][file] = np.packbits(_drawing(archive, member, path))
    names = tuple(sorted(drawings))
    small = [resize_by_area(_ink(drawings[name][file] for file in sorted(drawings[name])), SMALL) for name in names]
    y = torch.arange(len(names)).repeat_interleave(torch.tensor([len(part) for part in small]))
    return torch.cat(small)[:, None], y, names


def _ink(packed: Iterable[UInt8[np.ndarray, " b"]]) -> Float[Tensor, "k s s"]:
    """Return drawings that were kept as one bit a pixel, a byte for eight of them."""
    rows = np.unpackbits(np.stack(list(packed)), axis=1, count=SIDE * SIDE)
    return torch.from_numpy(rows).float().unflatten(1, (SIDE, SIDE))


def resize_by_area(images: Float[Tensor, "k s s"], side: int) -> Float[Tensor, "k r r"]:
    """Return the images at another size: each new pixel is the mean over the area it covers, partial pixels by share.

    Args:
        images: k square pictures.
        side: of the new pictures, at most the old.
    """
    old = images.shape[-1]
    scale = old / side
    new, pixel = torch.arange(side)[:, None], torch.arange(old)
    covered = torch.minimum((new + 1) * scale, pixel + 1) - torch.maximum(new * scale, pixel)
    share = (covered.clamp(min=0) / scale).to(images)
    return (share @ images @ share.T).clamp(0, 1)


def _members(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    """Return the drawings in a zip, "alphabet/character/drawing" -> member."""
    members: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        name, parts = member.filename, member.filename.split("/")
        # Nothing is written to disk, but a zip with such names was made to harm somebody.
        if ".." in parts or "\\" in name or name.startswith("/"):
            raise unreadable_error(path, f"its member {format_value(name)} points outside the zip")
        if parts[0] == "__MACOSX" or parts[-1] in ("", ".DS_Store") or (len(parts) < 3 and not name.endswith(".png")):
            continue  # folders, what a Mac adds, a readme
        if not name.endswith(".png") or len(parts) < 3 or not all(parts[-3:]):
            raise unreadable_error(path, f"its member {format_value(name)} is not <alphabet>/<character>/<drawing>.png")
        if len(name) > LONGEST_NAME:
            raise unreadable_error(path, f"its member {format_value(name)} has a name of {len(name):,} letters")
        key = "/".join(parts[-3:])
        if key in members:
            raise unreadable_error(path, f"it holds the drawing {format_value(key)} twice")
        members[key] = member
    if not members:
        raise unreadable_error(path, "it holds no <alphabet>/<character>/<drawing>.png")
    return members


def _drawing(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> np.ndarray:
    """Return the ink of one drawing, bool [105, 105]."""
    from PIL import Image  # not with the package, which imports faster without it

    name = format_value(member.filename)
    if member.file_size > LARGEST_DRAWING:
        raise unreadable_error(path, f"its member {name} has {member.file_size:,} bytes, too many for a drawing")
    content = member_content(archive, member, path)
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            size = image.size
            grey = np.asarray(image.convert("L")) if size == (SIDE, SIDE) else None
    except (*NOT_A_PNG, Image.DecompressionBombError) as error:
        raise unreadable_error(path, f"its member {name} is no readable PNG ({truncate(str(error))})") from None
    if grey is None:
        raise unreadable_error(path, f"its member {name} has {size} pixels, expected {(SIDE, SIDE)}")
    return grey < 128
