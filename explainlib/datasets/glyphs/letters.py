"""Letters: which shapes of the world's scripts are classes, so that no two of them look alike.

Unicode knows one circle as Latin O, Greek omicron, Cyrillic o, Armenian oh and a dozen more. A task that held two of
them would ask for the impossible, so of letters that look alike only the first by code point is a class.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from explainlib.datasets.glyphs.outlines import FONTS, code_points, has_letter, shapes, signed_distance

ALIKE = 0.06  # letters that differ in less of their ink are one shape
CASES = 0.15  # the same for capital and small of one letter, which hands make more alike than fonts do
NEAR = 1 / 20  # of the longer side: ink of one letter that has ink of the other so near is no difference
MOST = 50  # letters of one script, the first ones by code point
UPRIGHT = tuple(font for font in FONTS if "Bold" not in font)  # two letters are compared in each font that has both

# Unicode's first words for a script -> what people call it.
SCRIPTS = {
    "LATIN": "Latin",
    "GREEK": "Greek",
    "COPTIC": "Coptic",
    "CYRILLIC": "Cyrillic",
    "ARMENIAN": "Armenian",
    "HEBREW": "Hebrew",
    "ARABIC": "Arabic",
    "NKO": "N'Ko",
    "LAO": "Lao",
    "GEORGIAN": "Georgian",
    "CANADIAN SYLLABICS": "Canadian syllabics",
    "OGHAM": "Ogham",
    "TIFINAGH": "Tifinagh",
    "LISU": "Lisu",
    "OLD ITALIC": "Old Italic",
}
VARIANTS = (  # of another letter, by words of the Unicode name; a dot on the other side, a mark drawn large
    " WITH ", " LIGATURE", " DIGRAPH", " SMALL CAPITAL ", " FRAGMENT", " SYLLABICS FINAL ", " WEST-CREE ", " Y-CREE "
)  # fmt: skip

# What distinct_letters() returned when the set was made: hexadecimal code points. They are written down because a
# comparison against a threshold could fall differently with another version of the renderer, and the classes of
# a data set must not.
LETTERS = {
    "Latin": "41-4E 50-5A 61-62 64-67 6B 6D-6F 72 74 C6 DE-DF E6 F0 14B 184 186 18E 190 194-196",
    "Greek": (
        "370 372 376 37C-37D 394 39B 39E 3A3 3A6 3A8-3A9 3B1-3B2 3B6-3B8 3BB-3BE 3C1-3C2 3C4 3C7 3C9 3CF 3D7 "
        "3D9 3DD-3E0 3F8 3FA"
    ),
    "Coptic": "3E2 3E4 3E6-3E8 3EA 3EC 3EE",
    "Cyrillic": (
        "402 409-40B 40F 411 414 416-417 41B 423 427-42B 42E-42F 444 44C 452 45B 462-464 466 468 46A 46C 46E "
        "470 474 478 47A 47E 4A0 4A8 4BA 4BC 4CB 4E0 500 502 504 506 508 50A 50E 514 516"
    ),
    "Armenian": "531 533-539 53B 53D-541 543-547 549-54C 54E 550 552 554 556 561 569-56A 56D-56F 573 579-57B 57E 586",
    "Hebrew": "5D0-5D4 5D6 5DA 5DC-5DE 5E0 5E2-5EA",
    "Arabic": (
        "621 628-62C 62E-635 637 639-63A 641-64A 66E-66F 67E 686 688 68C-68D 691 6A1 6A4 6A9-6AA 6AD 6AF 6B3 "
        "6BA-6BB 6BE 6C6 6C8 6D0"
    ),
    "N'Ko": "7CC-7D2 7D4-7E0 7E2-7E7",
    "Lao": "E81-E82 E84 E87-E88 E8A E8D E94-E97 E99-E9E EA1 EA3 EA5 EA7 EAA-EAB EAE-EB0 EB2 EBD EC0-EC4",
    "Georgian": (
        "10A0-10A1 10A3-10AC 10AE-10B6 10B8-10BD 10BF 10C1-10C5 10D0-10D1 10D3-10D4 10D6-10D7 10D9-10DA 10DD 10DF-10E6"
    ),
    "Canadian syllabics": (
        "1402 1405-1406 1409-140C 1410 1412 1414 1417 1419 142B-142E 1430 1432-1434 1437-143A 143C 143E 1440 "
        "1442 1444 1446 144D 144F 1451 1454 1456-1457 1459 145B 145D 145F 1461 1463 1465 1467-146C 146E"
    ),
    "Ogham": "1681-168E 1690-1696 1699",
    "Tifinagh": "2D30-2D33 2D35 2D3B-2D44 2D46-2D48 2D4A-2D4C 2D4E 2D50 2D52-2D53 2D55-2D5B 2D5E-2D5F 2D61-2D65",
    "Lisu": "A4D5 A4D8-A4D9 A4DE A4E4 A4ED A4EF A4F6-A4F7",
    "Old Italic": "10302-10304 1030A-1030E 10310 10312 10314-10316 10319-1031B 1031D",
}


def script_and_name(code: int) -> tuple[str, str] | None:
    """Return the script and the rest of the Unicode name, or None where the code point is no plain letter.

    Accented letters and presentation forms (those that Unicode takes apart), ligatures, marks, modifier letters and
    letters of other scripts are not plain.
    """
    character = chr(code)
    name = unicodedata.name(character, "")
    if unicodedata.category(character) not in ("Lu", "Ll", "Lo") or unicodedata.decomposition(character):
        return None
    if any(word in f"{name} " for word in VARIANTS):
        return None
    for first, script in SCRIPTS.items():
        if name.startswith(first + " "):
            return script, name.removeprefix(first + " ").lower()
    return None


def chosen_letters() -> list[int]:
    """Return the code points of all classes, script by script."""
    return [code for spelled in LETTERS.values() for code in _codes(spelled)]


def difference(codes: Sequence[int], *, side: int = 56) -> Float[Tensor, "k k"]:
    """Return how much any two letters differ, laid over each other at one size.

    Args:
        codes: k code points that the first font has.
        side: in pixels, of the squares in which letters are compared.

    Returns:
        [k, k], symmetric: the share of a letter's ink that is not ``NEAR`` the other's, the larger of both ways and
        the smallest of all fonts that have both; 0 is the same shape, 1 nothing in common.
    """
    fill = 20 / 28
    least = torch.ones(len(codes), len(codes), dtype=torch.float64)
    for font in UPRIGHT:
        rows = torch.tensor([k for k, code in enumerate(codes) if has_letter(font, code)])
        ink, _ = shapes([(font, codes[k]) for k in rows], side, fill=fill)
        near = NEAR * fill * side
        far = -signed_distance(ink >= 0.5, reach=int(near) + 2) > near
        alone = ink.flatten(1) @ far.flatten(1).double().T / ink.flatten(1).sum(1, keepdim=True)
        at = (rows[:, None], rows)
        least[at] = torch.minimum(least[at], torch.maximum(alone, alone.T))
    return least


def too_similar(codes: Sequence[int], differences: Float[Tensor, "k k"]) -> Bool[Tensor, "k k"]:
    """Return which pairs of letters cannot both be classes: their difference is below ``ALIKE``, or ``CASES``.

    Args:
        codes: k code points.
        differences: of each pair, from ``difference``.
    """
    small = torch.tensor([ord(chr(code).lower()[0]) for code in codes])
    return differences < torch.where(small[:, None] == small, CASES, ALIKE)


def distinct_letters() -> dict[str, list[int]]:
    """Return the code points of the classes by script: the rule by which ``LETTERS`` was made.

    Letters are visited by code point. One becomes a class if none of the classes before it is too alike and its
    script has fewer than ``MOST``.
    """
    candidates = [code for code in code_points(FONTS[0]) if script_and_name(code)]
    alike = too_similar(candidates, difference(candidates))
    chosen: dict[str, list[int]] = {script: [] for script in SCRIPTS.values()}
    kept: list[int] = []
    for k, code in enumerate(candidates):
        script = script_and_name(code)[0]
        if len(chosen[script]) < MOST and not alike[k, kept].any():
            kept.append(k)
            chosen[script].append(code)
    return chosen


def _codes(spelled: str) -> list[int]:
    """Return the code points of a string like "41-43 61"."""
    ends = [part.split("-") for part in spelled.split()]
    return [code for end in ends for code in range(int(end[0], 16), int(end[-1], 16) + 1)]
