"""AG News and Toxicity: texts with a class each, from the official CSV files, and a way to show them decently.

The vocabulary is made from the training part alone. A row without any word is read as one unknown word, and what is
longer than the data set's length is cut; both are counted in what is logged. A row that is not what the format says
stops the reading, with its line.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import torch

from explainlib.checks import require_choice
from explainlib.datasets.bounds import (
    ALLOWANCE,
    AMPLIFICATION,
    format_value,
    require_several,
    truncate,
    unreadable_error,
)
from explainlib.datasets.examples import Examples, Split, stratified_split
from explainlib.datasets.files import SourceFile, locate, where_to_put
from explainlib.datasets.tokenizer import SIZE, Tokenizer, split_words

NAMES = {"ag_news": ("World", "Sports", "Business", "Sci/Tech"), "toxicity": ("not toxic", "toxic")}
COLUMNS = {"ag_news": ("class", "title", "description"), "toxicity": ("rev_id", "comment", "toxic")}
LENGTHS = {"ag_news": 64, "toxicity": 128}  # 97 of 100 news and three of four comments fit
TEST_SHARE = 0.2  # of one file
LONGEST_ROW = 1 << 20  # bytes; the longest official comment has 10,000 letters
AG_NEWS = "https://github.com/zhangxiangxiao/Crepe"
CONVERSATION = "https://github.com/conversationai/unintended-ml-bias-analysis"
FILES = {
    "ag_news": (SourceFile("train.csv", AG_NEWS, optional=True), SourceFile("test.csv", AG_NEWS)),
    "toxicity": (SourceFile("toxicity_nonfuzzed_testset.csv", CONVERSATION),),
}
MASK = "***"
AROUND = ".,;:!?\"'()"
FUNCTION_WORDS = frozenset(
    """a about after again all also although am an and any are as at be because been before being both but by can could
    did do does each either for from had has have he her here him his how i if in into is it its just may me might more
    most much must my neither no nor not now of on only or other our over shall she should since so some such than that
    the their them then there these they this those though through to too under until up us very was we were what when
    where which while who whom whose why will with would yes yet you your""".split()
)


def text(name: str, split_seed: int = 0) -> Split:
    """Return the training and test texts of ``name``, as many as its files hold.

    Args:
        name: "ag_news" or "toxicity".
        split_seed: of the stratified split (a fifth is the test part), where there is one file only; 0 or more.

    Returns:
        Split with x int64 [n, 64] (ag_news) or [n, 128] (toxicity), and the strings in ``raw``.

    Raises:
        FileNotFoundError, ValueError: as ``load_tokenized``.
    """
    return load_tokenized(name, split_seed)[0]


def load_tokenized(
    name: str, split_seed: int = 0, *, size: int = SIZE, length: int | None = None
) -> tuple[Split, Tokenizer]:
    """Return the texts of ``name`` with the tokenizer that was fitted on their training part.

    Args:
        name: "ag_news" or "toxicity".
        split_seed: as in ``text``.
        size: of the vocabulary at most.
        length: tokens of every text; None is 64 for ag_news and 128 for toxicity.

    Returns:
        (split, tokenizer); ``len(tokenizer)`` is the vocabulary of the network. What was found is logged at level info
        ("explainlib").

    Raises:
        FileNotFoundError: no file; the message says what to put where.
        ValueError: a broken row (the message names its line), another name, a size or length too small.
    """
    require_choice("name", name, tuple(NAMES))
    paths = locate(name, FILES[name])
    if not paths:
        raise FileNotFoundError(_missing(name))
    parts = {file: _numbered(name, path) for file, path in paths.items()}
    if len(parts) == 2:
        train, test = parts["train.csv"], parts["test.csv"]
    else:
        (whole,) = parts.values()
        require_several(next(iter(paths.values())), len(whole))
        train, test = stratified_split(whole, max(1, round(TEST_SHARE * len(whole))), split_seed)
    tokenizer = Tokenizer.fit(train.raw, size=size, length=LENGTHS[name] if length is None else length)
    split = Split(*(Examples(tokenizer(p.raw, wordless="unknown"), p.y, p.classes, p.raw) for p in (train, test)))
    cut = sum(len(split_words(said)) > tokenizer.length for part in split for said in part.raw)
    logging.getLogger("explainlib").info(
        "%s: %s; %d words in the vocabulary, %d texts cut after %d words",
        *(name, describe(name), len(tokenizer), cut, tokenizer.length),
    )
    return split, tokenizer


def describe(name: str) -> str | None:
    """Return a sentence about the available files ("test.csv only, 7,600 texts, in <folder>"), or None without any.

    Raises:
        ValueError: a broken row.
    """
    paths = locate(name, FILES[name])
    if not paths:
        return None
    texts = {file: [said for _, said in _labelled(name, path)] for file, path in paths.items()}
    wordless = sum(not split_words(said) for part in texts.values() for said in part)
    unknown = f", {wordless} of them without a word (read as one unknown word)" if wordless else ""
    folder = next(iter(paths.values())).parent
    if len(texts) == 2:
        return f"{len(texts['train.csv']):,} training and {len(texts['test.csv']):,} test texts{unknown}, in {folder}"
    ((file, part),) = texts.items()
    return f"{file}{' only' * (len(FILES[name]) > 1)}, {len(part):,} texts{unknown}, in {folder}"


def redact_text(said: str) -> str:
    """Return a text with everything but its most common function words masked, to show what should not be read out.

    No list of offensive words is complete, so nothing is searched for: of the pieces between spaces only those stay
    that are a function word ("the", "you", "not" ...), with punctuation around it; all others become ``***``.

    Example:
        >>> redact_text("You are an utter f00l, and not (very) n.i.c.e!")
        'You are an *** *** and not (very) ***'
    """
    return " ".join(piece if piece.strip(AROUND).lower() in FUNCTION_WORDS else MASK for piece in said.split())


def _numbered(name: str, path: Path) -> Examples:
    """Return the texts of one file in ``raw``, not yet tokenised: x is their position."""
    labels, texts = zip(*_labelled(name, path), strict=True)
    return Examples(torch.arange(len(labels))[:, None], torch.tensor(labels), NAMES[name], texts)


def _labelled(name: str, path: Path) -> Iterator[tuple[int, str]]:
    """Yield (label, text) for every row of a file, at least one.

    A text becomes 8 bytes for each of its ``LENGTHS[name]`` tokens, however short it is; the number of rows is bounded
    by what those take.
    """
    most = (ALLOWANCE + AMPLIFICATION * path.stat().st_size) // (8 * LENGTHS[name])
    read = {"ag_news": _news, "toxicity": _comment}[name]
    count = 0
    for line, row in _rows(path):
        if line == 1 and _is_header(name, path, row):
            continue
        if len(row) != len(COLUMNS[name]):
            what = f"it has {len(row)} fields, expected {len(COLUMNS[name])}: {', '.join(COLUMNS[name])}"
            raise _row_error(path, line, what)
        count += 1
        if count > most:
            raise unreadable_error(path, f"it has more than {most:,} rows, too many for a file of its size")
        yield read(path, line, row)
    if not count:
        raise ValueError(f"{path} holds no rows; replace it by the official file.")


def _news(path: Path, line: int, row: list[str]) -> tuple[int, str]:
    """Return the label of a piece of news, and its title with its description."""
    if row[0] not in ("1", "2", "3", "4"):
        raise _row_error(path, line, f"its class is {format_value(row[0])}, expected 1 to 4")
    return int(row[0]) - 1, f"{row[1]} {row[2]}"


def _comment(path: Path, line: int, row: list[str]) -> tuple[int, str]:
    """Return the label of a comment, and the comment."""
    if row[2].lower() not in ("true", "false"):
        raise _row_error(path, line, f"its column toxic is {format_value(row[2])}, expected true or false")
    return int(row[2].lower() == "true"), row[1]


def _is_header(name: str, path: Path, row: list[str]) -> bool:
    """Return whether the first row names the columns: a must for toxicity; ag_news is also passed on with one."""
    if name == "ag_news":
        return row[0].lower() in ("class", "class index") if row else False
    if tuple(row) != COLUMNS[name]:
        # The row may be a comment, and nobody asked to see it.
        raise _row_error(path, 1, f"it does not name the columns, expected {','.join(COLUMNS[name])}")
    return True


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield (line on which it begins, fields) for every row of a CSV file; a broken one stops with its line."""
    with open(path, "rb") as stream:
        lines = _Lines(stream)
        reader = csv.reader(lines, strict=True)
        while True:
            line, lines.left = reader.line_num + 1, LONGEST_ROW
            try:
                row = next(reader)
            except StopIteration:
                return
            except UnicodeDecodeError as error:
                raise _row_error(path, reader.line_num + 1, f"it is not UTF-8 text ({error.reason})") from None
            except OverflowError as error:
                raise _row_error(path, line, str(error)) from None
            except csv.Error as error:
                what = f"its quotes do not close, or its commas are misplaced ({truncate(str(error))})"
                raise _row_error(path, line, what) from error
            yield line, row


class _Lines:
    """The lines of a file as text, as many bytes of them as a row may have.

    Decoded line by line, so that the line of a byte that is no UTF-8 is known; utf-8-sig drops a leading mark.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self.stream, self.coding, self.left = stream, "utf-8-sig", LONGEST_ROW

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self.stream.readline(self.left + 1)
        if not line:
            raise StopIteration
        self.left -= len(line)
        if self.left < 0:
            raise OverflowError(f"its row has more than {LONGEST_ROW:,} bytes")
        text, self.coding = line.decode(self.coding), "utf-8"
        return text


def _row_error(path: Path, line: int, what: str) -> ValueError:
    """Return the error for a row that cannot be read."""
    return ValueError(f"{path} cannot be read, line {line}: {what}; repair that row, or use the official file.")


def _missing(name: str) -> str:
    """Return the message for a data set without files."""
    needed = [file for file in FILES[name] if not file.optional]
    return (
        f"{name} needs {' and '.join(file.name for file in needed)}, and none of its files was found; "
        f"{where_to_put(name, [file.name for file in needed])}, published at {needed[0].url}."
    )
