"""Files that mean harm, and files damaged by chance: the right data or a clear refusal, within a second and 200 MB."""

from __future__ import annotations

import pickle
import zipfile

import numpy as np
import pytest

from explainlib.datasets.bounds import format_list, format_value, max_values, require_values, truncate
from tests.datasets import crafted_files, hostile, mutations

SECONDS, MEGABYTES, LETTERS = 1.0, 200, 1_500


@pytest.fixture(scope="module")
def crafted(tmp_path_factory):
    """Return what happened to each crafted file, read in a process of its own."""
    jobs = {}
    for case, ((dataset, _), _, _) in crafted_files.CASES.items():
        root = tmp_path_factory.mktemp("crafted")
        path = crafted_files.write(case, root)
        jobs[case] = {"act": "crafted", "dataset": dataset, "root": str(root), "path": str(path)}
    return dict(zip(jobs, hostile.run(jobs.values()), strict=True))


@pytest.mark.parametrize("case", crafted_files.CASES)
def test_crafted_files_are_refused_in_a_second_and_200_mb(crafted, case):
    ((dataset, _), _, message), seen = crafted_files.CASES[case], crafted[case]
    assert seen["kind"] == ("answer" if message is None else "ValueError") and seen["own"], seen
    assert message is None or message in seen["message"], seen["message"]
    assert message or dataset != "fc100" or seen["sum"] == int(crafted_files.TINY.sum()), "the right data come out"
    assert seen["seconds"] < SECONDS and seen["megabytes"] < MEGABYTES, seen
    assert seen.get("length", 0) < LETTERS and seen["row"] < LETTERS, "a message does not print the file"


# ---- damage by chance: seeds, mutations of one good file each


def pickled(protocol):
    return pickle.dumps(
        {"data": crafted_files.TINY, "labels": [int(c) for c in crafted_files.LABELS]}, protocol=protocol
    )


def binary():
    rows = np.random.default_rng(1).integers(0, 256, (6, 3073), dtype=np.uint8)
    rows[:, 0] = np.arange(6)
    return rows.tobytes()


IMAGES = crafted_files.header(8, 28, 28) + np.random.default_rng(2).integers(0, 256, 8 * 784, dtype=np.uint8).tobytes()
ROWS = b"".join(f'"{i % 4 + 1}","Title {i}","Words, about ""{i}""\nand more"\n'.encode() for i in range(12))
GOOD = {  # data set, file, content, oracle, mutations
    "pickle 2": ("fc100", "FC100_train.pickle", pickled(2), "text pickle", 300),
    "pickle 4": ("fc100", "FC100_train.pickle", pickled(4), "pickle", 400),
    "instructions": ("fc100", "FC100_train.pickle", pickled(4), "pickle", 1_500),
    "npz": ("fc100", "FC100_train.npz", crafted_files.npz(), "checksum", 400),
    "packed npz": ("fc100", "FC100_train.npz", crafted_files.npz(method=zipfile.ZIP_DEFLATED), "checksum", 400),
    "idx": ("mnist", "t10k-images-idx3-ubyte", IMAGES, "idx", 250),
    "packed idx": ("mnist", "t10k-images-idx3-ubyte.gz", crafted_files.pressed(IMAGES), "checksum", 250),
    "binary batch": ("cifar10", "test_batch.bin", binary(), "binary", 150),
    "rows": ("ag_news", "test.csv", ROWS, "rows", 250),
    "drawings": ("omniglot", "images_background_small1.zip", crafted_files.drawings(), "checksum", 300),
}


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    """Return what happened to the mutations of each good file."""
    jobs = {}
    for case, (dataset, name, content, oracle, count) in GOOD.items():
        folder = tmp_path_factory.mktemp("good")
        (folder / name).write_bytes(content)
        crafted_files.labels_beside(folder)
        beside = [str(folder / "t10k-labels-idx1-ubyte")] if dataset == "mnist" else []
        jobs[case] = {"act": "fuzz", "dataset": dataset, "good": str(folder / name), "beside": beside, "oracle": oracle,
                      "first": 0, "count": count, "how": "instructions" if case == "instructions" else "bytes"}  # fmt: skip
    return dict(zip(jobs, hostile.run(jobs.values()), strict=True))


@pytest.mark.parametrize("case", GOOD)
def test_damaged_files_give_the_right_data_or_a_clear_refusal(damaged, case):
    seen = damaged[case]
    assert not seen["wrong"], seen["wrong"][:3]
    assert seen["megabytes"] < MEGABYTES and seen["answered"] < GOOD[case][-1], "some damage is found"


def test_mutations_are_the_same_every_time():
    first, again = (mutations.mutated(ROWS, np.random.default_rng(3), "bytes") for _ in range(2))
    assert first == again != ROWS


# ---- the rule


def test_what_a_file_may_ask_for_follows_its_size(tmp_path):
    """The official files of 60,000 images and of mini-ImageNet stay inside; a bomb of any size does not."""
    assert 60_000 * 784 < max_values(9_912_422) and 60_000 < max_values(28_881)
    assert max_values(10**6) < 30e6 and max_values(813 * 10**6) > 38_400 * 84 * 84 * 3
    path = tmp_path / "file"
    path.write_bytes(bytes(1_000))
    assert require_values(path, max_values(1_000)) == max_values(1_000)
    with pytest.raises(
        ValueError, match=r"file cannot be read: its values would take 16.8 MB .* file has 1 kB, expected"
    ):
        require_values(path, max_values(1_000) + 1)


def test_what_a_file_chose_is_quoted_in_few_letters():
    nested = []
    for _ in range(60):
        nested = [nested, nested]
    for value in ("a" * 10**6, b"a" * 10**6, nested, {"k" * 10**6: nested}, 10**5_000, np.zeros(10**6)):
        assert len(format_value(value)) < 250
    assert truncate("a" * 1_000) == "a" * 200 + "... (800 more letters)" and truncate("short") == "short"
    assert format_list(map(str, range(9))) == "['0', '1', '2', '3', '4', '5'] and 3 more"
