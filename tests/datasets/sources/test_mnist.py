"""MNIST from whatever official files are there: both parts, one part, a subset; and clear errors for the rest."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
import torch

from explainlib.datasets import catalogue, load

OWN_FOLDER = Path(os.environ.get("EXPLAINLIB_DATA") or "/nonexistent")
REAL = OWN_FOLDER / "mnist" / "t10k-images-idx3-ubyte.gz"


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
@pytest.mark.parametrize("packed", [True, False])
def test_both_parts_give_the_official_split(data_root, caplog, name, packed, write_pair, random_pair):
    images, labels = random_pair(70)
    write_pair(data_root / name, "train", images[:50], labels[:50], packed)
    write_pair(data_root / name, "t10k", images[50:], labels[50:], packed)
    with caplog.at_level(logging.INFO, logger="explainlib"):
        train, test = load(name, split_seed=5)
    assert torch.equal((train.x * 255).round().to(torch.uint8), images[:50, None])
    assert torch.equal(test.y, labels[50:].long()) and train.x.dtype == torch.float32 and train.x.max() <= 1
    assert f"50 training and 20 test images, in {data_root / name}" in caplog.text


@pytest.mark.parametrize("part", ["train", "t10k"])
def test_one_part_is_split_by_the_seed(data_root, part, write_pair, random_pair):
    images, labels = random_pair(200)
    write_pair(data_root / "mnist", part, images, labels)
    split, other = load("mnist"), load("mnist", split_seed=1)
    assert split.train.x.shape == (180, 1, 28, 28) and split.test.y.bincount().tolist() == [2] * 10
    assert not torch.equal(split.test.x, other.test.x)
    limited = load("mnist", limit=40)
    assert limited.train.y.bincount().tolist() == [4] * 10 and torch.equal(limited.test.x, split.test.x)
    found = {row.name: row.found for row in catalogue()}
    assert found["mnist"] == f"{part} only, 200 images, in {data_root / 'mnist'}" and found["fashion_mnist"] is None


def test_missing_files_say_what_to_put_where(cache):
    with pytest.raises(FileNotFoundError, match="none of its files was found") as caught:
        load("mnist")
    message = str(caught.value)
    assert str(cache / "mnist") in message and "fetch('mnist')" in message and "t10k-labels-idx1-ubyte.gz" in message
    with pytest.raises(FileNotFoundError) as caught:
        load("fashion_mnist")
    assert "fetch" not in str(caught.value) and str(cache / "fashion_mnist") in str(caught.value)


def test_images_without_labels_are_not_enough(data_root, write_pair, random_pair):
    write_pair(data_root / "mnist", "t10k", *random_pair(20))
    (data_root / "mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError, match="only t10k-images-idx3-ubyte.gz was found") as caught:
        load("mnist")
    assert str(data_root / "mnist") in str(caught.value)


def test_pairs_that_do_not_belong_together_are_refused(data_root, write_pair, random_pair):
    images, labels = random_pair(30)
    write_pair(data_root / "mnist", "t10k", images, labels[:20])
    with pytest.raises(ValueError, match="30 images, .* holds 20 labels"):
        load("mnist")
    write_pair(data_root / "mnist", "t10k", images[:, :20], labels)
    with pytest.raises(ValueError, match=r"images of \[20, 28\] pixels, expected \[28, 28\]"):
        load("mnist")
    write_pair(data_root / "mnist", "t10k", images, labels + 1)
    with pytest.raises(ValueError, match="label 10, expected 0 to 9"):
        load("mnist")


def test_the_catalogue_reports_a_damaged_file_instead_of_failing(data_root, write_pair, random_pair):
    write_pair(data_root / "mnist", "t10k", *random_pair(20))
    damaged = data_root / "mnist" / "t10k-images-idx3-ubyte.gz"
    damaged.write_bytes(b"<html>")
    (row,) = (row for row in catalogue() if row.name == "mnist")
    assert row.found is None and str(damaged) in row.how


@pytest.mark.skipif(not REAL.is_file(), reason="EXPLAINLIB_DATA holds no mnist t10k files")
def test_the_real_test_digits():
    """The first five published test labels are 7 2 1 0 4, and there are 980 zeros and 1,135 ones."""
    if (OWN_FOLDER / "mnist" / "train-images-idx3-ubyte.gz").is_file():
        test = load("mnist").test
        assert test.y[:5].tolist() == [7, 2, 1, 0, 4] and test.y.bincount()[:2].tolist() == [980, 1135]
        return
    train, test = load("mnist")
    assert train.x.shape == (9000, 1, 28, 28) and test.x.shape == (1000, 1, 28, 28)
    assert (train.y.bincount() + test.y.bincount())[:2].tolist() == [980, 1135]
    assert test.y.bincount()[:2].tolist() in ([98, 113], [98, 114])
