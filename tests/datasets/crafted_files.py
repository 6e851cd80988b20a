"""Files made to harm whoever reads them: kind -> (data set, file, how it is written, part of the message).

None as the message means that the right data come out. Everything is written from the descriptions of the formats.
"""

from __future__ import annotations

import gzip
import io
import os
import struct
import zipfile
import zlib

import numpy as np
from PIL import Image, PngImagePlugin

FC, NPZ, CIFAR = ("fc100", "FC100_train.pickle"), ("fc100", "FC100_train.npz"), ("cifar10", "test_batch")
IMAGES, NEWS = ("mnist", "t10k-images-idx3-ubyte"), ("ag_news", "test.csv")
OMNIGLOT = ("omniglot", "images_background_small1.zip")
TINY = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
LABELS = np.arange(8) % 2
MILLION = 1_000_000
P2 = b"\x80\x02"
RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
ENCODE = b"c_codecs\nencode\n"
U1 = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"


# ---- pickles


def text(content):
    return b"X" + len(content).to_bytes(4, "little") + content


def number(value):
    return b"J" + value.to_bytes(4, "little")


def array(content, dtype=b"u1", shape=None):
    """Return an array of one dimension, or of the shape that these instructions make."""
    shape = number(len(content)) + b"\x85" if shape is None else shape
    kind = b"cnumpy\ndtype\nU" + bytes([len(dtype)]) + dtype + b"K\x00K\x01\x87R"
    return RECONSTRUCT + b"(K\x01" + shape + kind + b"\x89T" + len(content).to_bytes(4, "little") + content + b"tb"


def pairs(**values):
    return P2 + b"}(" + b"".join(text(key.encode()) + value for key, value in values.items()) + b"u."


def fc(**values):
    """Return a good FC100 part with other or more values."""
    shape = b"(K\x08K K K\x03t"
    labels = b"](" + b"".join(b"K" + bytes([c]) for c in LABELS) + b"e"
    return pairs(**{"data": array(TINY.tobytes(), shape=shape), "labels": labels, **values})


def deep(open_, close, n=MILLION):
    return open_ * n + close * n


SHARED = b")" + b"2\x86" * 60  # a tuple of itself twice, and so on: 2^60 leaves
FAN = b"]q\x01" + (b"0](" + b"h\x01" * 200 + b"eq\x01") * 4  # 200^4 leaves
THOUSAND = b"(" + b"".join(number(i) + b"h\x01" for i in range(400)) + b"u"
PICKLES = {
    "good": (FC, fc(), None),
    "shared tuples as a key": (FC, P2 + b"}" + SHARED + b"K\x01s.", "holds a tuple as a key"),
    "deep tuples as a key": (FC, P2 + b"}" + b")" + b"\x85" * 3 * MILLION + b"K\x01s.", "instructions"),
    "less deep tuples as a key": (FC, P2 + b"}" + b")" + b"\x85" * 90_000 + b"K\x01s.", "holds a tuple as a key"),
    "a key in an ordered dict": (FC, P2 + b"ccollections\nOrderedDict\n](" + SHARED + b"K\x01\x86e\x85R.", "a tuple as a key"),
    "a key in a dict of marks": (FC, P2 + b"(" + SHARED + b"K\x01d.", "holds a tuple as a key"),
    "a set of tuples": (FC, b"\x80\x04(" + SHARED + b"\x91.", "builds objects"),
    "deep lists": (FC, pairs(data=deep(b"]", b"") + b"a" * (MILLION - 1)), "instructions"),
    "less deep lists": (FC, fc(more=deep(b"]", b"", 40_000) + b"a" * 39_999), "more than 8 deep"),
    "deep lists put together afterwards": (FC, fc(more=b"]q\x01" + b"h\x01]q\x02a0h\x02q\x010" * 20), "deep"),
    "a list in itself": (FC, fc(more=b"]q\x01h\x01a"), None),
    "shared dicts": (FC, fc(more=b"}q\x01" + (b"0}" + THOUSAND + b"q\x01") * 4), None),
    "shared lists in a message": (FC, pairs(data=array(TINY.tobytes(), shape=b"(K\x08K K K\x03t"), class_dict=b"}U\x01a](K\x00" + FAN + b"es"), "names the picture"),
    "shared lists as a kind": (FC, P2 + b"cnumpy\ndtype\n" + SHARED + b"\x85R.", "of dtype"),
    "the same text encoded": (FC, P2 + text(b"a" * 4_000) + b"q\x01" + ENCODE + b"q\x02(" + b"h\x02h\x01U\x06latin1\x86R" * 9_000 + b"t.", "again and again"),
    "the same text as a scalar": (FC, P2 + b"cnumpy.core.multiarray\nscalar\nq\x01cnumpy\ndtype\nU\x05S4000K\x00K\x01\x87Rq\x02" + text(b"a" * 4_000) + b"q\x03(" + b"h\x01h\x02h\x03\x86R" * 9_000 + b"t.", "again and again"),
    "the same pairs in ordered dicts": (FC, P2 + b"ccollections\nOrderedDict\nq\x01](" + b"".join(number(i) + b"N\x86" for i in range(4_000)) + b"eq\x02(" + b"h\x01h\x02\x85R" * 9_000 + b"t.", "instructions"),
    "S0": (FC, fc(data=array(b"", b"S0", number(2_000_000_000) + b"\x85")), "dtype 'S0'"),
    "a dtype of many digits": (FC, fc(data=array(b"", b"S99999999999")), "dtype 'S99999999999'"),
    "many lengths": (FC, fc(data=array(b"", shape=b"(" + b"K\x00" * 50_000 + b"t")), "array of shape"),
    "huge lengths": (FC, fc(data=array(b"x", shape=b"(" + b"\x8a\x08" + b"\xff" * 7 + b"\x7f" + b"\x8a\x08" + b"\xff" * 7 + b"\x7ft")), "promises"),
    "a long name": (FC, P2 + b"c" + b"a" * 3 * MILLION + b"\nb\n.", "asks for"),
    "a deep name": (FC, P2 + b"cos\n" + b"a." * MILLION + b"\n.", "asks for os"),
    "a deep name from the stack": (FC, b"\x80\x04" + text(b"os." * MILLION) + text(b"a." * MILLION) + b"\x93.", "asks for"),
    "a long key": (FC, P2 + b"}" + text(b"k" * 3 * MILLION) + b"K\x01s.", "holds a key of 3 MB"),
    "many keys": (FC, P2 + b"}(" + b"".join(number(i) + b"N" for i in range(30_000)) + b"u.", "and 29,994 more"),
    "a long name of a class": (FC, fc(labels=b"](" + (text(b"k" * MILLION) + b"2222222") + b"e"), "a name of 1,000,000 letters"),
    "a long float": (FC, P2 + b"F" + b"x" * 3 * MILLION + b"\n.", "could not convert"),
    "a long number": (FC, P2 + b"I" + b"1" * 3 * MILLION + b"\n.", "cannot be read"),
    "a long hexadecimal number": (FC, P2 + b"I0x" + b"1" * 3 * MILLION + b"\n.", "a whole number of"),
    "a number of many bytes": (FC, P2 + b"\x8b" + (3 * MILLION).to_bytes(4, "little") + b"\x01" * 3 * MILLION + b".", "a whole number of"),
    "marks": (FC, P2 + b"(" * 3 * MILLION + b".", "instructions"),
    "dicts thrown away": (FC, P2 + b"}0" * 2 * MILLION + b".", "instructions"),
    "wide letters": (FC, P2 + text("\U0001f600".encode() + b"a" * 3 * MILLION) + b".", "holds a str"),
    "wide letters as bytes": (FC, P2 + ENCODE + text("\U0001f600".encode() + b"a" * 3 * MILLION) + b"U\x06latin1\x86R.", "cannot be read"),
    "labels without a dimension": (CIFAR, pairs(data=array(bytes(3072), shape=b"K\x01M\x00\x0c\x86"), labels=array(b"\x00", shape=b")")), "not a list of whole numbers"),
    "labels that are shared lists": (CIFAR, pairs(data=array(bytes(3072), shape=b"K\x01M\x00\x0c\x86"), labels=b"](" + FAN + b"e"), "not a list of whole numbers"),
    "letters that are none": (FC, fc(labels=array(b"\xff\xff\xff\x7f" * 8, b"U1", b"K\x08\x85")), "bytes that are no letters"),
    "one name as text and number": (FC, pairs(data=array(TINY.tobytes(), shape=b"(K\x08K K K\x03t"), class_dict=b"}(K\x01](K\x00K\x01K\x02K\x03eU\x011](K\x04K\x05K\x06K\x07eu"), "holds a name twice"),
}  # fmt: skip


# ---- npz


def npy(header, values=b"", version=(1, 0), length=None):
    size = len(header) if length is None else length
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H" if version == (1, 0) else "<I", size) + header + values


def described(shape, dtype="|u1", more=""):
    return f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}{more}\n".encode()


def saved(values):
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


def zipped(members, method=zipfile.ZIP_STORED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method, compresslevel=1) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return stream.getvalue()


def npz(*more, data=None, labels=None, method=zipfile.ZIP_STORED):
    members = [
        ("data.npy", saved(TINY) if data is None else data),
        ("labels.npy", saved(LABELS) if labels is None else labels),
    ]
    return zipped([*members, *more], method)


def directory(content, **changes):
    """Return a zip with numbers changed in its end record."""
    end = content.rindex(b"PK\x05\x06")
    record = bytearray(content[end:])
    for place, value in changes.items():
        at, kind = {"count": (10, "<H"), "size": (12, "<I")}[place]
        struct.pack_into(kind, record, at, value)
    return content[:end] + bytes(record)


def entries(content, place, value, number=0):
    """Return a zip whose directory entry of that number has other bytes at a place."""
    at = -1
    for _ in range(number + 1):
        at = content.index(b"PK\x01\x02", at + 1)
    return content[: at + place] + value + content[at + place + len(value) :]


def overlapping(n, name, content):
    """Return a zip of one stored member that its directory names n times."""
    local = struct.pack(
        "<4s5H3L2H", b"PK\x03\x04", 20, 0, 0, 0, 33, zlib.crc32(content), len(content), len(content), len(name(0)), 0
    )
    body = local + name(0).encode() + content
    names = b"".join(
        struct.pack("<4s6H3L5H2L", b"PK\x01\x02", 20, 20, 0, 0, 0, 33, zlib.crc32(content), len(content), len(content), len(name(i)), 0, 0, 0, 0, 0, 0)
        + name(i).encode()
        for i in range(n)
    )  # fmt: skip
    return (
        body
        + names
        + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, min(n, 65_535), min(n, 65_535), len(names), len(body), 0)
    )


ZEROS = bytes(220 * MILLION)
MANY = [(f"{i}.npy", b"") for i in range(60_000)]
NPZS = {
    "a good npz": (NPZ, npz, None),
    "an unused array of zeros": (NPZ, lambda: npz(("more.npy", npy(described("(220000000,)"), ZEROS)), method=zipfile.ZIP_DEFLATED), None),
    "pictures of zeros": (NPZ, lambda: npz(data=npy(described("(71000, 32, 32, 3)"), ZEROS[: 71_000 * 3072]), method=zipfile.ZIP_DEFLATED), "of memory and the file has"),
    "10^12 elements": (NPZ, lambda: npz(data=npy(described("(1000000000000,)"))), "promises an array of shape"),
    "10^12 empty texts": (NPZ, lambda: npz(labels=npy(described("(1000000000000,)", "|S0"))), "dtype"),
    "ninety lengths": (NPZ, lambda: npz(data=npy(described("(" + "1," * 90 + ")"))), "shape"),
    "a negative length": (NPZ, lambda: npz(data=npy(described("(-8, 32, 32, -3)"), TINY.tobytes())), "shape"),
    "lengths that are no numbers": (NPZ, lambda: npz(data=npy(described("('8',)"))), "no readable header"),
    "a header of 3 MB": (NPZ, lambda: npz(data=npy(b"(" * 3 * MILLION, version=(2, 0))), "no readable header"),
    "a header of 4 GB": (NPZ, lambda: npz(data=npy(described("(8,)"), version=(2, 0), length=2**32 - 1)), "no readable header"),
    "a header of signs": (NPZ, lambda: npz(data=npy(b"-" * 900 + b"1")), "no readable header"),
    "a header of brackets": (NPZ, lambda: npz(data=npy(b"{'descr': " + b"[" * 400 + b"]" * 400 + b"}")), "no readable header"),
    "a version of its own": (NPZ, lambda: npz(data=npy(described("(8,)"), version=(9, 9))), "no readable header"),
    "fields": (NPZ, lambda: npz(data=npy(b"{'descr': [('a', '|u1')], 'fortran_order': False, 'shape': (0,), }\n")), "plain numbers"),
    "objects": (NPZ, lambda: npz(labels=npy(described("(1,)", "|O"), b"x")), "dtype '|O'"),
    "no npy at all": (NPZ, lambda: npz(data=b"hello"), "no readable header"),
    "an empty member": (NPZ, lambda: npz(data=b""), "no readable header"),
    "letters outside": (NPZ, lambda: npz(labels=npy(described("(8,)", "<U1"), b"\xff\xff\xff\x7f" * 8)), "bytes that are no letters"),
    "bzip2": (NPZ, lambda: npz(data=npy(described("(10000, 32, 32, 3)"), ZEROS[: 10000 * 3072]), method=zipfile.ZIP_BZIP2), "packing 12"),
    "lzma": (NPZ, lambda: npz(data=npy(described("(10000, 32, 32, 3)"), ZEROS[: 10000 * 3072]), method=zipfile.ZIP_LZMA), "packing 14"),
    "a packing nobody knows": (NPZ, lambda: entries(npz(), 10, b"\x63\x00"), "packing 99"),
    "encrypted": (NPZ, lambda: entries(npz(), 8, b"\x01\x00"), "is encrypted"),
    "a version nobody knows": (NPZ, lambda: entries(npz(), 6, b"\xff\x00"), "not a whole zip"),
    "a name that is no text": (NPZ, lambda: entries(entries(npz(), 8, b"\x00\x08"), 46, b"\xff\xfe"), "not a whole zip"),
    "more bytes than there are": (NPZ, lambda: entries(npz(), 20, b"\xff\xff\xff\x7f\xff\xff\xff\x7f"), "claim"),
    "fewer members than it says": (NPZ, lambda: directory(npz(), count=3), "its end promises 3 members, and 2 are found"),
    "a place outside": (NPZ, lambda: entries(npz(), 42, b"\xff\xff\xff\x7f"), "is damaged"),
    "a date that is none": (NPZ, lambda: entries(npz(), 12, b"\xff\xff\xff\xff"), None),
    "one name twice": (NPZ, lambda: overlapping(2, lambda i: "data.npy", saved(TINY)), "claim"),
    "many members": (NPZ, lambda: npz(*MANY), "directory claims"),
    "a directory beyond the file": (NPZ, lambda: directory(npz(), size=2**31), "not a whole zip"),
    "long names": (NPZ, lambda: zipped([("k" * 60_000, b"")]), "cannot be read"),
}  # fmt: skip


# ---- idx, CIFAR-10, texts


def header(*shape):
    return struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape)


def labels_beside(folder):
    (folder / "t10k-labels-idx1-ubyte").write_bytes(header(8) + bytes(range(8)))


def sparse(beginning, size):
    """Return a writer of a file that has this size and takes no room."""

    def write(path):
        path.write_bytes(beginning)
        os.truncate(path, size)

    return write


def pressed(content, level=1):
    return gzip.compress(content, level)


STREAMS = {
    "good images": (IMAGES, header(8, 28, 28) + bytes(8 * 784), None),
    "a promise of 4 GB": (IMAGES, pressed(header(5_478_275, 28, 28) + bytes(3072)), "of memory and the file has"),
    "a promise of everything": (IMAGES, pressed(header(*[2**32 - 1] * 3)), "enormous number of bytes"),
    "220 MB behind 8 images": (IMAGES, lambda: pressed(header(8, 28, 28) + ZEROS), "but it holds more"),
    "220 MB as promised": (IMAGES, lambda: pressed(header(280_000, 28, 28) + ZEROS[: 280_000 * 784]), "of memory and the file has"),
    "packed in many parts": (IMAGES, pressed(header(8, 28, 28)) + pressed(b"") * 50_000, "behind its end"),
    "a packed name of 3 MB": (IMAGES, b"\x1f\x8b\x08\x08" + bytes(6) + b"n" * 3 * MILLION, "gzip packing is broken"),
    "an image of 10^9 pixels": (IMAGES, header(8, 2**31, 2**31) + bytes(50), "but it holds only 50"),
    "a hole of 500 GB": (IMAGES, sparse(header(637_755_102, 28, 28), 16 + 637_755_102 * 784), "are free"),
    "a hole of 500 GB as a batch": (("cifar10", "test_batch.bin"), sparse(b"\x01", 3073 * 162_707_452), "are free"),
    "a hole of 500 GB as a pickle": (FC, sparse(P2, 500 * 10**9), "are free"),
    "a hole of 500 GB as news": (NEWS, sparse(b'"1","a","b"\n', 500 * 10**9), "row has more than"),
    "a row of 3 MB": (NEWS, b'"1","' + b"a b " * 750_000 + b'","x"\n', "row has more than"),
    "a row of a million fields": (NEWS, b'"1",' + b"ab," * MILLION + b"\n", "row has more than"),
    "a row of a million lines": (NEWS, b'"1"' + b',"\n"' * MILLION, "row has more than"),
    "many short rows": (NEWS, b"1,,\n" * 600_000, "too many for a file of its size"),
    "one row": (NEWS, b'"1","a","b"\n', "one to train on and one to test"),
    "one image": (("cifar10", "test_batch.bin"), bytes(3073), "one to train on and one to test"),
    "a long class": (NEWS, b'"' + b"1" * 100_000 + b'","a","b"\n', "its class is"),
    "zeros": (NEWS, bytes(100_000), "cannot be read, line 1"),
}  # fmt: skip


# ---- Omniglot


def png(**options):
    stream = io.BytesIO()
    Image.new("1", (105, 105), 1).save(stream, "PNG", **options)
    return stream.getvalue()


def inflating():
    """Return a drawing with a compressed remark of 90 MB."""
    remark = PngImagePlugin.PngInfo()
    remark.add_text("a", "b" * 90 * MILLION, zip=True)
    return png(pnginfo=remark)


def drawings(*more, n=3, content=None):
    content = png() if content is None else content
    return zipped([*((f"r/Greek/character01/{i}.png", content) for i in range(n)), *more])


def huge():
    """Return the header of a drawing of 2^31 by 2^31 pixels."""
    size = b"IHDR" + struct.pack(">2I5B", 2**31 - 1, 2**31 - 1, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + size + struct.pack(">I", zlib.crc32(size))


ZIPS = {
    "good drawings": (OMNIGLOT, drawings, None),
    "a drawing named 50,000 times": (OMNIGLOT, lambda: overlapping(50_000, lambda i: f"r/Greek/c/{i:05d}.png", png()), "claim"),
    "a directory of 20 MB": (OMNIGLOT, lambda: overlapping(300_000, lambda i: f"r/G/c/{i:06d}.png", png()), "directory claims"),
    "empty names of folders": (OMNIGLOT, lambda: drawings(("r///1.png", png())), "is not <alphabet>"),
    "an empty alphabet": (OMNIGLOT, lambda: drawings(("r//character01/1.png", png())), "is not <alphabet>"),
    "an empty character": (OMNIGLOT, lambda: drawings(("r/Greek//1.png", png())), "is not <alphabet>"),
    "one drawing in two folders": (OMNIGLOT, lambda: drawings(("s/Greek/character01/1.png", png())), "twice"),
    "a long name": (OMNIGLOT, lambda: drawings(("r/Greek/" + "c" * 60_000 + "/1.png", png())), "letters"),
    "a name that is no text": (OMNIGLOT, lambda: entries(entries(drawings(), 8, b"\x00\x08"), 46, b"\xff\xfe"), "not a whole zip"),
    "a drawing of 220 MB": (OMNIGLOT, lambda: zipped([("r/G/c/1.png", ZEROS)], zipfile.ZIP_DEFLATED), "too many for a drawing"),
    "a drawing in lzma": (OMNIGLOT, lambda: zipped([("r/G/c/1.png", bytes(99_999))], zipfile.ZIP_LZMA), "packing 14"),
    "a remark that inflates": (OMNIGLOT, lambda: drawings(content=inflating()), "no readable PNG"),
    "a drawing of 2^62 pixels": (OMNIGLOT, lambda: drawings(content=huge()), "no readable PNG"),
}  # fmt: skip

CASES = {**PICKLES, **{f"npz: {k}": v for k, v in NPZS.items()}, **STREAMS, **{f"zip: {k}": v for k, v in ZIPS.items()}}


def write(case, root):
    """Write one case below ``root`` and return its path."""
    (dataset, name), content, _ = CASES[case]
    path = root / dataset / name
    path.parent.mkdir(parents=True)
    if dataset == "mnist":
        labels_beside(path.parent)
    if callable(content) and name in ("FC100_train.npz", OMNIGLOT[1]) or content in LATER:
        content = content()
    path.write_bytes(content) if isinstance(content, bytes) else content(path)
    return path


LATER = [content for _, content, _ in STREAMS.values() if callable(content) and content.__code__.co_argcount == 0]
