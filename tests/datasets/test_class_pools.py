"""The register of pools: every name, one message for each mistake."""

from __future__ import annotations

import pytest
import torch

from explainlib.datasets import class_pool, fetch_pool, pool_catalogue, sample_tasks
from explainlib.datasets.class_pools import SOURCES
from explainlib.datasets.sources.digits import all_digits


def test_the_names_are_the_public_ones():
    assert tuple(SOURCES) == ("glyphs", "omniglot", "mini_imagenet", "fc100", "digits")
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
