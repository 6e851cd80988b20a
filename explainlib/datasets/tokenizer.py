"""A tokenizer: the most frequent words of some texts, numbered, and every text cut or padded to one length.

Words are what stands between spaces and punctuation, in lower case. Number 0 is padding and 1 any word that is not in
the vocabulary; the rest are numbered by falling frequency, then by alphabet, so that the same texts always give the
same numbers. Fit it on training texts alone: a vocabulary that has seen the test part knows something about it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Int
from torch import Tensor

from explainlib.checks import require_choice, require_count
from explainlib.datasets.bounds import format_list, format_value

PAD, UNKNOWN = 0, 1
SPECIAL = ("<pad>", "<unk>")  # no word can look like these: the brackets never belong to one
WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")
SIZE, LENGTH = 30_522, 64


def split_words(text: str) -> list[str]:
    """Return the words of a text in lower case: letters and digits, with apostrophes inside them.

    Example:
        >>> split_words("Don't stop: 2 more_words!")
        ["don't", 'stop', '2', 'more', 'words']
    """
    return WORD.findall(text.lower())


@dataclass(frozen=True, repr=False)
class Tokenizer:
    """A numbered vocabulary and a length; called with texts it returns their numbers.

    Args:
        words: the vocabulary in the order of its numbers; begins with "<pad>" and "<unk>", each word once.
        length: tokens of every text, at least 1.

    Raises:
        ValueError: a vocabulary that begins otherwise or repeats a word, or a length below 1.

    Example:
        >>> tokenizer = Tokenizer.fit(["the cat and the dog", "a dog"], size=4, length=3)
        >>> tokenizer.words
        ('<pad>', '<unk>', 'dog', 'the')
        >>> tokenizer(["The dog!", "the old cat sat"]).tolist()
        [[3, 2, 0], [3, 1, 1]]
    """

    words: tuple[str, ...]
    length: int = LENGTH
    numbers: dict[str, int] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        """Check the vocabulary and number it."""
        object.__setattr__(self, "words", tuple(self.words))
        require_count("length", self.length)
        if self.words[:2] != SPECIAL:
            raise ValueError(
                f"words begins with {format_list(self.words[:2])}, expected {format_list(SPECIAL)}; "
                "make a tokenizer with Tokenizer.fit(texts)."
            )
        object.__setattr__(self, "numbers", {word: number for number, word in enumerate(self.words)})
        if len(self.numbers) != len(self.words):
            repeated = next(word for word, count in Counter(self.words).items() if count > 1)
            raise ValueError(f"words holds {format_value(repeated)} twice; give each word one number.")

    @classmethod
    def fit(cls, texts: Sequence[str], *, size: int = SIZE, length: int = LENGTH) -> Tokenizer:
        """Return the tokenizer whose vocabulary is the most frequent words of some texts.

        Args:
            texts: the training texts, at least one with a word.
            size: numbers in the vocabulary at most, padding and unknown included; at least 3.
            length: tokens of every text, at least 1.

        Raises:
            TypeError: one string, or anything that is not text.
            ValueError: no word in any text, or a size or length too small.
        """
        require_count("size", size, least=3)
        counts = Counter(word for text in _require_texts(texts) for word in split_words(text))
        if not counts:
            raise ValueError(f"none of the {len(texts)} texts has a word to put into the vocabulary; pass some text.")
        frequent = sorted(counts, key=lambda word: (-counts[word], word))
        return cls((*SPECIAL, *frequent[: size - len(SPECIAL)]), length)

    def __call__(self, texts: Sequence[str], *, wordless: str = "refuse") -> Int[Tensor, "n length"]:
        """Return the tokens of some texts, cut after ``length`` words or padded with 0.

        Args:
            texts: at least one.
            wordless: what a text without any word becomes: "refuse" raises, "unknown" makes it one unknown word.

        Returns:
            int64 [n, length]; every row begins with a token that is not padding.

        Raises:
            TypeError: one string, or anything that is not text.
            ValueError: no texts, or texts without a word (the message counts them and names the first).
        """
        require_choice("wordless", wordless, ("refuse", "unknown"))
        empty = [i for i, text in enumerate(_require_texts(texts)) if WORD.search(text.lower()) is None]
        if empty and wordless == "refuse":
            raise ValueError(
                f"{len(empty)} of the {len(texts)} texts have no word, the first is texts[{empty[0]}] = "
                f"{texts[empty[0]][:40]!r}; leave them out, or pass wordless='unknown' to read each as one <unk>."
            )
        tokens = torch.full((len(texts), self.length), PAD)
        for to, text in zip(tokens, texts, strict=True):  # the words of one text at a time
            numbers = [self.numbers.get(word, UNKNOWN) for word in split_words(text)[: self.length]] or [UNKNOWN]
            to[: len(numbers)] = torch.tensor(numbers)
        return tokens

    def __len__(self) -> int:
        """Return how many numbers there are, padding and unknown included: ``text_cnn``'s vocabulary."""
        return len(self.words)

    def __repr__(self) -> str:
        """Return one line: how many words, of what length the texts become."""
        return f"Tokenizer({len(self):,} words, length {self.length})"


def _require_texts(texts: object) -> Sequence[str]:
    """Return ``texts`` if it is a row of strings, at least one."""
    if isinstance(texts, str):
        raise TypeError("texts is one string, expected several; pass [text].")
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"texts[{i}] is a {type(text).__name__}, expected a string; pass a list of str.")
    if not len(texts):
        raise ValueError("texts is empty; pass at least one text.")
    return texts
