"""The register of pools: every name, one message for each mistake."""

from __future__ import annotations

import pytest
import torch

from explainlib.datasets import class_pool, fetch_pool, pool_catalogue, sample_tasks
from explainlib.datasets.class_pools import SOURCES
from explainlib.datasets.sources.digits import all_digits
from tests.datasets.sources.test_cifar10 import binary, images, levels, put


def test_the_names_are_the_public_ones():
    assert tuple(SOURCES) == ("glyphs", "omniglot", "mini_imagenet", "fc100", "cifar10", "digits")
    with pytest.raises(ValueError, match="name='emnist' is unknown; choose one of 'glyphs', 'omniglot', .*'digits'"):
        class_pool("emnist")
    with pytest.raises(ValueError, match="name='emnist' is unknown"):
        fetch_pool("emnist")


def test_digits_are_ten_classes():
    pool = class_pool("digits")
    assert pool.x.shape == (1797, 1, 8, 8) and pool.x.dtype == torch.float32 and 0 <= pool.x.min() < pool.x.max() == 1
    assert pool.names == tuple(f"digits/{c}" for c in range(10)) and set(pool.parents) == {"digits"}
    assert torch.equal(pool.x.flatten(1), all_digits().x) and torch.equal(pool.y, all_digits().y)
    pool.x.zero_()
    assert class_pool("digits").x.max() == 1, "nobody can change it for the next caller"
    with pytest.raises(ValueError, match="split='train' is unknown; choose one of None"):
        class_pool("digits", split="train")


def test_cifar10_gives_the_first_pictures_of_each_class(cache):
    pixels, labels = images(1300)
    put(cache / "cifar10", "data_batch_1.bin", binary(pixels, labels))
    put(cache / "cifar10", "test_batch.bin", binary(*images(40, seed=1)))
    pool = class_pool("cifar10")
    assert pool.x.shape == (600, 3, 32, 32) and pool.y.bincount().tolist() == [60] * 10
    assert pool.names[3] == "cifar10/cat" and set(pool.parents) == {"cifar10"}
    assert (levels(pool.x[60:120]) == pixels[labels == 1][:60]).all(), "class by class, in the order of the file"
    assert class_pool("cifar10", split="test").x.shape == (40, 3, 32, 32), "all where there are fewer"
    with pytest.raises(ValueError, match="choose one of None, 'train', 'test'"):
        class_pool("cifar10", split="val")


def test_glyphs_come_from_their_own_file():
    pytest.importorskip("explainlib.datasets.glyphs")
    pool = class_pool("glyphs")
    assert pool.x.dtype == torch.float32 and all(
        name.startswith(f"{parent}/") for name, parent in zip(pool.names, pool.parents, strict=True)
    )
    assert sample_tasks(pool, 2).ways == 5


def test_the_catalogue_lists_every_pool_with_its_licence(cache):
    rows = {row.name: row for row in pool_catalogue()}
    assert set(rows) == set(SOURCES) and all(row.origin and row.licence for row in rows.values())
    assert {name for name, row in rows.items() if row.found} == {"glyphs", "digits"}
    assert "data omniglot downloads it" in rows["omniglot"].how and str(cache / "fc100") in rows["fc100"].how
    assert "fetch" not in rows["fc100"].how, "nothing of it can be downloaded"


@pytest.mark.parametrize("name", ["digits", "glyphs"])
def test_embedded_pools_have_nothing_to_download(name):
    with pytest.raises(ValueError, match=f"{name} is embedded"):
        fetch_pool(name)
