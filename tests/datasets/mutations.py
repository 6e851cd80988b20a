"""Damage by chance: seeded mutations of a good file, streams of pickle instructions, and what a right answer is."""

from __future__ import annotations

import csv
import io
import pickle

import numpy as np
import torch

EXTREMES = (b"\0", b"\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"\0\0\0\x80", b"\xff" * 8, b"\0" * 4)
OPCODES = [
    value for name, value in vars(pickle).items() if name.isupper() and isinstance(value, bytes) and len(value) == 1
]
NAMES = [b"cnumpy.core.multiarray\n_reconstruct\n", b"cnumpy\nndarray\n", b"cnumpy\ndtype\n", b"c_codecs\nencode\n",
         b"ccollections\nOrderedDict\n", b"cnumpy.core.numeric\n_frombuffer\n", b"cnumpy.core.multiarray\nscalar\n"]  # fmt: skip
VALUES = [b"K\x03", b"J\xff\xff\xff\x7f", b"N", b"\x88", b"U\x02u1", b"U\x01|", b"U\x06latin1", b"X\x04\x00\x00\x00data",
          b"C\x03abc", b")", b"]", b"}", b"(", b"U\x02S0", b"X\x06\x00\x00\x00labels", b"G?\xf0\0\0\0\0\0\0"]  # fmt: skip


def mutated(good, generator, how):
    """Return damaged content: a few bytes changed, a part cut, doubled or filled, or another stream altogether."""
    if how == "instructions":
        return _instructions(generator)
    content = bytearray(good)
    for _ in range(generator.integers(1, 4)):
        # Headers stand at the start, the directory of a zip at the end.
        reach = len(content) if generator.random() < 0.3 else min(len(content), 160)
        place = int(generator.integers(0, reach))
        place = len(content) - 1 - place if generator.random() < 0.4 else place
        act = generator.integers(0, 6)
        if act <= 1:
            content[place] ^= 1 << int(generator.integers(0, 8))
        elif act == 2:
            content[place] = int(generator.integers(0, 256))
        elif act == 3:
            extreme = EXTREMES[generator.integers(0, len(EXTREMES))]
            content[place : place + len(extreme)] = extreme
        elif act == 4:
            del content[place : place + int(generator.integers(1, 9))]
        else:
            part = content[place : place + int(generator.integers(1, 40))]
            content[place:place] = part
        if not content:
            break
    if generator.random() < 0.15:
        del content[int(generator.integers(0, len(content) + 1)) :]
    return bytes(content)


def _instructions(generator):
    """Return a pickle of random instructions that often make sense."""
    parts = [b"\x80" + bytes([int(generator.integers(0, 6))])]
    for _ in range(generator.integers(1, 60)):
        kind = generator.random()
        if kind < 0.5:
            parts.append(VALUES[generator.integers(0, len(VALUES))])
        elif kind < 0.6:
            parts.append(NAMES[generator.integers(0, len(NAMES))])
        elif kind < 0.75:
            memo = bytes([int(generator.integers(0, 4))])
            parts.append([b"q", b"h"][generator.integers(0, 2)] + memo)
        elif kind < 0.95:
            parts.append(
                [b"\x85", b"\x86", b"\x87", b"t", b"R", b"b", b"s", b"u", b"a", b"e", b"d", b"l", b"2", b"0"][
                    generator.integers(0, 14)
                ]
            )
        else:
            parts.append(OPCODES[generator.integers(0, len(OPCODES))] + generator.bytes(int(generator.integers(0, 9))))
    return b"".join(parts) + b"."


def right(oracle, content, answer, untouched):
    """Return whether an answer is what the content says, by another way than the reader's.

    Args:
        oracle: "checksum" where the file holds one, so that nothing but the untouched answer may come out; otherwise
            the layout whose values are found in the content here.
        content: of the damaged file.
        answer: (x, y, texts) made of it.
        untouched: the answer made of the good file.
    """
    x, y, texts = answer
    if oracle == "checksum":
        return torch.equal(x, untouched[0]) and torch.equal(y, untouched[1]) and texts == untouched[2]
    if oracle == "rows":
        rows = list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")))
        return set(texts) <= {f"{row[1]} {row[2]}" for row in rows}
    levels = (x * 255).round().to(torch.uint8).numpy()
    if oracle == "text pickle":  # before protocol 3, bytes are written as text
        content = content.decode("utf-8", "ignore").encode("latin1", "ignore")
    if oracle.endswith("pickle"):
        colours_last = np.ascontiguousarray(levels.transpose(0, 2, 3, 1))
        return any(colours_last.tobytes(order) in content for order in "CF")
    if oracle == "idx":
        stored = np.frombuffer(content, np.uint8, offset=16).reshape(-1, 784)
        return {image.tobytes() for image in levels} <= {image.tobytes() for image in stored}
    rows = np.frombuffer(content, np.uint8).reshape(-1, 3073)  # "binary": a label and the pixels of each image
    return {bytes([c]) + image.tobytes() for c, image in zip(y.tolist(), levels, strict=True)} <= {*map(bytes, rows)}
