"""CIFAR-10 from either layout and any of its batches: the pixels come back, nothing runs, and damage is named."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from explainlib.datasets import catalogue, fetch, load

OWN_FOLDER = Path(os.environ.get("EXPLAINLIB_DATA") or "/nonexistent")
REAL = OWN_FOLDER / "cifar10" / "test_batch.bin"


class Asks:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def images(n, seed=0):
    """Return n random images, channels first, with labels 0 to 9 in turn."""
    return np.random.default_rng(seed).integers(0, 256, (n, 3, 32, 32), dtype=np.uint8), np.arange(n) % 10


def put(folder, name, content):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return folder / name


def binary(pixels, labels):
    return b"".join(bytes([label]) + image.tobytes() for image, label in zip(pixels, labels, strict=True))


def pickled(pixels, labels, protocol=2, of=str):
    key = {str: str, bytes: str.encode}[of]
    content = {
        "batch_label": "batch",
        "data": pixels.reshape(len(pixels), pixels[:1].size or 3072),
        "labels": list(map(int, labels)),
    }
    return pickle.dumps({key(name): value for name, value in content.items()}, protocol=protocol)


def levels(x):
    return (x * 255).round().to(torch.uint8).numpy()


def row():
    return next(row for row in catalogue() if row.name == "cifar10")


def test_binary_batches_come_back_in_order_with_the_official_test_part(data_root):
    folder, (pixels, labels) = data_root / "cifar10", images(30)
    put(folder, "data_batch_2.bin", binary(pixels[10:20], labels[10:20]))
    put(folder, "data_batch_1.bin", binary(pixels[:10], labels[:10]))
    put(folder, "test_batch.bin", binary(pixels[20:], labels[20:]))
    train, test = load("cifar10", split_seed=3)
    assert train.x.dtype == torch.float32 and train.x.shape == (20, 3, 32, 32) and train.x.max() <= 1
    assert np.array_equal(levels(train.x), pixels[:20]) and np.array_equal(levels(test.x), pixels[20:])
    assert train.y.tolist() == labels[:20].tolist() and test.y.tolist() == labels[20:].tolist()
    assert train.classes[3] == "cat" and test.classes[9] == "truck"
    expected = f"20 training and 10 test images (binary layout, data_batch_1, data_batch_2, test_batch, in {folder})"
    assert row().found == expected and row().how == ""


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("keys", [str, bytes])
def test_python_batches_come_back_whoever_wrote_them(data_root, protocol, keys):
    folder, (pixels, labels) = data_root / "cifar10", images(30)
    put(folder, "data_batch_4", pickled(pixels[:20], labels[:20], protocol, keys))
    put(folder, "test_batch", pickled(pixels[20:], labels[20:], protocol, keys))
    train, test = load("cifar10")
    assert np.array_equal(levels(train.x), pixels[:20]) and np.array_equal(levels(test.x), pixels[20:])
    assert train.y.tolist() == labels[:20].tolist()
    assert row().found == f"20 training and 10 test images (python layout, data_batch_4, test_batch, in {folder})"
    train.x.zero_()  # the arrays of a pickle are read-only; the examples are not


def test_the_layouts_are_never_mixed(data_root):
    folder = data_root / "cifar10"
    put(folder, "data_batch_1.bin", binary(*images(20)))
    put(folder, "data_batch_1", pickled(*images(20, seed=1)))
    put(folder, "data_batch_2", pickled(*images(20, seed=2)))
    train, test = load("cifar10")
    assert len(train) + len(test) == 20


@pytest.mark.parametrize(("name", "part"), [("data_batch_3.bin", "training"), ("test_batch.bin", "test")])
def test_one_part_is_split_by_the_seed(data_root, name, part):
    put(data_root / "cifar10", name, binary(*images(200)))
    split, other = load("cifar10"), load("cifar10", split_seed=1)
    assert len(split.train) == 180 and split.test.y.bincount().tolist() == [2] * 10
    assert not torch.equal(split.test.x, other.test.x)
    assert load("cifar10", limit=40).train.y.bincount().tolist() == [4] * 10
    assert row().found.startswith(f"200 {part} images only")


GOOD = binary(*images(2))
SOME, LABELS = images(4)
DAMAGED = {
    "cut": ("test_batch.bin", GOOD[:-1], "6,145 bytes are 1 images of 3,073 bytes and 3,072 bytes more"),
    "too long": ("test_batch.bin", GOOD + b"\0", "2 images of 3,073 bytes and 1 bytes more"),
    "empty": ("test_batch.bin", b"", "0 images"),
    "web page": ("test_batch.bin", b"<html>not found</html>", "0 images of 3,073 bytes and 22 bytes more"),
    "label": ("test_batch.bin", GOOD[:3073] + b"\x0a" + GOOD[3074:], "image 1 has the label 10, expected 0 to 9"),
    "python label": ("test_batch", pickled(SOME, [0, 1, 57, 2]), "image 2 has the label 57, expected 0 to 9"),
    "python huge label": ("test_batch", pickled(SOME, [0, 1, 2, 2**70]), f"image 3 has the label {2**70}"),
    "python negative label": ("test_batch", pickled(SOME, [0, -1, 2, 3]), "image 1 has the label -1"),
    "python cut": ("test_batch", pickled(SOME, LABELS)[:-50], "cannot be read"),
    "python counts": ("test_batch", pickled(SOME, LABELS[:3]), "4 images and 3 labels"),
    "python no images": ("test_batch", pickled(SOME[:0], [], 4), "0 images"),
    "python pixels": ("test_batch", pickled(SOME[:, :1], LABELS), r"uint8 \[4, 1024\], expected uint8 \[n, 3072\]"),
    "python floats": ("test_batch", pickled(SOME / 255, LABELS), "data are float64"),
    "python list for data": ("test_batch", pickle.dumps({"data": [1], "labels": [1]}), "its data are list"),
    "python names for labels": (
        "test_batch",
        pickle.dumps({"data": SOME.reshape(4, -1), "labels": ["cat"] * 4}),
        "not a list of whole numbers",
    ),
    "python one label": (
        "test_batch",
        pickle.dumps({"data": SOME.reshape(4, -1), "labels": 4}),
        "not a list of whole numbers",
    ),
    "python other keys": ("test_batch", pickle.dumps({"data": SOME, "fine_labels": []}), "it has no 'labels'"),
    "python no dict": ("test_batch", pickle.dumps([1, 2]), "holds a list, expected a dict"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_batches_are_refused_by_name(data_root, damage):
    name, content, message = DAMAGED[damage]
    path = put(data_root / "cifar10", name, content)
    with pytest.raises(ValueError, match=message) as caught:
        load("cifar10")
    assert str(path) in str(caught.value) and "official file" in str(caught.value)
    if "label" not in damage:  # the catalogue measures a binary batch and does not read it
        assert row().found is None and str(path) in row().how


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_asks_for_more_is_refused_and_nothing_runs(data_root, tmp_path, protocol):
    trap = tmp_path / "trapped"
    content = {"data": Asks(os.mkdir, str(trap)), "labels": [0]}
    put(data_root / "cifar10", "test_batch", pickle.dumps(content, protocol=protocol))
    with pytest.raises(ValueError, match="nothing was run"):
        load("cifar10")
    assert not trap.exists()


def test_missing_files_say_what_to_put_where_and_are_not_downloaded(cache):
    with pytest.raises(FileNotFoundError, match="none of its files was found") as caught:
        load("cifar10")
    for part in (str(cache / "cifar10"), "data_batch_1.bin and test_batch.bin", "cifar-10-binary.tar.gz"):
        assert part in str(caught.value)
    with pytest.raises(ValueError, match="no verified sha256 is known for data_batch_1.bin and test_batch.bin"):
        fetch("cifar10")
    assert row().found is None and str(cache / "cifar10") in row().how and not cache.exists()


@pytest.mark.skipif(not REAL.is_file(), reason="EXPLAINLIB_DATA holds no cifar10 test_batch.bin")
def test_the_real_photographs():
    """Published means of the channels are .491, .482, .447; neighbours are alike only if the layout is right."""
    test = load("cifar10").test
    assert len(set(test.y.bincount().tolist())) == 1 and len(test.classes) == len(test.y.unique()) == 10
    assert (test.x.mean((0, 2, 3)) - torch.tensor([0.491, 0.482, 0.447])).abs().max() < 0.03
    steps = [(test.x.diff(dim=axis)).abs().mean() for axis in (2, 3)]
    assert max(steps) < 0.08
