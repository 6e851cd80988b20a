"""mini-ImageNet and FC100: what the pickles hold comes back, nothing in them is run, and damage is named."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch

from explainlib.datasets import class_pool, fetch_pool, pool_catalogue
from explainlib.datasets.readers.plain_pickle import read_plain_pickle

PROTOCOLS = [0, 1, 2, 3, 4, 5]
WORDNET = ("n01532829", "n01558993", "n01704323")
RANDOM = np.random.default_rng(0)
LARGE = RANDOM.integers(0, 256, (9, 84, 84, 3), dtype=np.uint8)
TINY = RANDOM.integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
MINI = {"image_data": LARGE, "class_dict": {name: list(range(c, 9, 3)) for c, name in enumerate(WORDNET)}}
FC = {"data": TINY, "labels": [70, 2, 70, 2, 11, 11, 70, 2]}


class Asks:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def put(folder, name, content, protocol=2):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_mini_imagenet_from_every_protocol(data_root, protocol):
    put(data_root / "mini_imagenet", "mini-imagenet-cache-train.pkl", MINI, protocol)
    pool = class_pool("mini_imagenet")
    assert pool.names == tuple(f"mini_imagenet/{name}" for name in WORDNET) and set(pool.parents) == {"mini_imagenet"}
    assert pool.x.dtype == torch.float32 and pool.y.tolist() == [0, 1, 2] * 3
    assert torch.equal((pool.x * 255).round().to(torch.uint8), torch.tensor(LARGE).permute(0, 3, 1, 2))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_fc100_from_every_protocol(data_root, protocol):
    put(data_root / "fc100", "FC100_train.pickle", {**FC, "labels": np.array(FC["labels"])}, protocol)
    pool = class_pool("fc100")
    assert pool.names == ("class/02", "class/11", "class/70") and pool.parents == ("class",) * 3
    assert pool.y.tolist() == [2, 0, 2, 0, 1, 1, 2, 0] and pool.x.shape == (8, 3, 32, 32)
    assert torch.equal((pool.x * 255).round().to(torch.uint8), torch.tensor(TINY).permute(0, 3, 1, 2))


def test_pickles_of_python_2(data_root):
    """Bytes are strings there, and numpy's functions live in numpy.core; written here opcode by opcode."""
    raw = TINY.tobytes()
    content = (
        b"\x80\x02}q\x00(U\x04dataq\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85U\x01b"
        b"\x87R(K\x01(K\x08K K K\x03tcnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff"
        b"K\x00tb\x89T" + len(raw).to_bytes(4, "little") + raw + b"tbU\x06labels]q\x05("
        + b"".join(b"K" + bytes([label]) for label in FC["labels"]) + b"eu."
    )  # fmt: skip
    put(data_root / "fc100", "FC100_train.pickle", content)
    pool = class_pool("fc100")
    assert pool.y.tolist() == [2, 0, 2, 0, 1, 1, 2, 0]
    assert torch.equal((pool.x * 255).round().to(torch.uint8), torch.tensor(TINY).permute(0, 3, 1, 2))


def test_superclasses_are_the_parents_where_the_file_has_them(data_root):
    coarse = [4, 0, 4, 0, 14, 14, 4, 0]
    put(data_root / "fc100", "FC100_test.pickle", {**FC, "coarse_labels": coarse})
    pool = class_pool("fc100", split="test")
    assert pool.parents == ("superclass 00", "superclass 04", "superclass 14")
    assert pool.names == ("superclass 00/02", "superclass 04/70", "superclass 14/11")


def test_npz_with_names_or_numbers(data_root):
    folder = data_root / "fc100"
    folder.mkdir()
    named = ["rose", "bear", "rose", "bear", "clock", "clock", "rose", "bear"]
    np.savez(folder / "FC100_val.npz", data=TINY, labels=np.array(named))
    pool = class_pool("fc100", split="validation")
    assert pool.names == ("class/bear", "class/clock", "class/rose") and pool.y.tolist() == [2, 0, 2, 0, 1, 1, 2, 0]
    folder = data_root / "mini_imagenet"
    folder.mkdir()
    np.savez_compressed(folder / "mini-imagenet-cache-val.npz", image_data=LARGE, labels=np.arange(9) % 3)
    assert class_pool("mini_imagenet", split="validation").y.tolist() == [0, 1, 2] * 3


def test_other_official_spellings_and_containers(data_root):
    content = OrderedDict(image_data=np.asfortranarray(LARGE), class_dict=OrderedDict(MINI["class_dict"]))
    content["class_dict"]["n01532829"] = np.array(content["class_dict"]["n01532829"])
    content["class_dict"]["n01558993"] = [np.int64(i) for i in content["class_dict"]["n01558993"]]
    put(data_root / "mini_imagenet", "mini-imagenet-cache-val.pkl", content)
    pool = class_pool("mini_imagenet", split="validation")
    assert pool.y.tolist() == [0, 1, 2] * 3
    assert torch.equal((pool.x * 255).round().to(torch.uint8), torch.tensor(LARGE).permute(0, 3, 1, 2))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("place", ["outermost", "value", "key", "in an object array"])
def test_a_pickle_that_asks_for_code_is_refused_and_nothing_runs(data_root, tmp_path, protocol, place):
    trace = tmp_path / "trace"
    evil = Asks(os.mkdir, str(trace))
    content = {
        "outermost": evil,
        "value": {**FC, "more": evil},
        "key": {**FC, evil: 1},
        "in an object array": {**FC, "labels": np.array([evil, 1], dtype=object)},
    }[place]
    path = put(data_root / "fc100", "FC100_train.pickle", content, protocol)
    with pytest.raises(ValueError, match="asks for .*mkdir|dtype 'O8'") as caught:
        class_pool("fc100")
    assert str(path) in str(caught.value) and not trace.exists()
    function, arguments = evil.call
    function(*arguments)
    assert b"mkdir" in path.read_bytes() and trace.exists(), "the trap works: this is what the pickle asked for"


@pytest.mark.parametrize(
    ("name", "wanted"),
    [(b"os\nsystem", "os.system"), (b"builtins\neval", "builtins.eval"), (b"numpy\nload", "numpy.load"),
     (b"numpy.core.multiarray\nfromfile", "fromfile"), (b"collections\ndefaultdict", "defaultdict"),
     (b"numpy.core.multiarray.numpy\nndarray", "ndarray"), (b"copyreg\n_reconstructor", "_reconstructor")],
)  # fmt: skip
def test_other_names_are_refused(tmp_path, name, wanted):
    with pytest.raises(ValueError, match=f"asks for .*{wanted}.*nothing was run"):
        read_plain_pickle(put(tmp_path, "p", b"\x80\x02c" + name + b"\n."))


RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"
CRAFTED = {
    "a dtype with fields": (b"\x80\x02cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|N](U\x01ae}U\x01aNsK\x01K\x01K\x00tb.", "with fields"),
    "an attribute on what it got": (b"\x80\x02" + RECONSTRUCT + b"N}U\x08__name__U\x01xs\x86b.", "sets attributes"),
    "another kind of array": (b"\x80\x02" + RECONSTRUCT + b"U\x03absK\x00\x85U\x01b\x87R.", "array of kind 'abs'"),
    "an encoding that runs": (b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aU\x03zip\x86R.", "encodes bytes as 'zip'"),
    "too few arguments": (b"\x80\x02" + RECONSTRUCT + b")R.", "missing"),
    "nothing on the stack": (b"\x80\x02R.", "cannot be read"),
    "an extension": (b"\x80\x02\x82\x01.", "builds objects"),
    "a persistent name": (b"\x80\x02U\x01aQ.", "builds objects"),
    "an instance": (b"\x80\x02ccollections\nOrderedDict\n)\x81.", "builds objects"),
    "an enormous memory": (b"\x80\x02}r" + b"\xff\xff\xff\x7f" + b"K\x01K\x02s", "ends too early"),
    "an enormous bytearray": (b"\x80\x05\x96" + (2**36).to_bytes(8, "little") + b"x.", "ends too early"),
    "an enormous promise": (b"\x80\x04\x8e" + (2**62).to_bytes(8, "little") + b"x.", "cannot be read"),
    "no dict": (pickle.dumps(TINY), "expected a dict"),
}  # fmt: skip


@pytest.mark.parametrize("case", CRAFTED)
def test_crafted_pickles_are_refused(tmp_path, case):
    content, message = CRAFTED[case]
    with pytest.raises(ValueError, match=message) as caught:
        read_plain_pickle(put(tmp_path, "p", content))
    assert f"{tmp_path / 'p'} cannot be read" in str(caught.value)


def test_an_array_shorter_than_its_shape_is_refused(tmp_path):
    content = pickle.dumps({"a": np.arange(4, dtype=np.uint8)}, protocol=2).replace(b"K\x04\x85", b"K\x05\x85")
    with pytest.raises(ValueError, match=r"promises an array of shape \(5,\) and dtype uint8, but holds 4 bytes"):
        read_plain_pickle(put(tmp_path, "p", content))


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.99])
def test_a_truncated_pickle_says_so(data_root, protocol, share):
    whole = pickle.dumps(FC, protocol=protocol)
    path = put(data_root / "fc100", "FC100_train.pickle", whole[: int(len(whole) * share)])
    with pytest.raises(ValueError, match="cannot be read: .*; replace it by the official file") as caught:
        class_pool("fc100")
    assert str(path) in str(caught.value)


WRONG = {
    "a list": ([1, 2], "holds a list, expected a dict"),
    "missing images": ({"labels": [1]}, r"holds \['labels'\], expected 'data' and"),
    "missing labels": ({"data": TINY}, r"holds \['data'\], expected 'data' and 'class_dict' or 'labels'"),
    "images in a list": ({"data": [1], "labels": [1]}, "'data' is a list, expected an array uint8"),
    "floats": ({"data": TINY.astype("f4"), "labels": FC["labels"]}, r"'data' is float32 \[8, 32, 32, 3\], expected uint8"),
    "other size": ({"data": TINY[:, :20], "labels": FC["labels"]}, r"uint8 \[8, 20, 32, 3\], expected"),
    "no images": ({"data": TINY[:0], "labels": []}, r"uint8 \[0, 32, 32, 3\]"),
    "fewer labels": ({"data": TINY, "labels": [1, 2]}, "'labels' has 2 entries for 8 pictures"),
    "one number as labels": ({"data": TINY, "labels": 3}, "'labels' is a int, expected a list"),
    "fractions": ({"data": TINY, "labels": [0.5] * 8}, "neither whole numbers nor strings"),
    "negative": ({"data": TINY, "labels": [-1] * 8}, "neither whole numbers nor strings"),
    "class_dict outside": ({"data": TINY, "class_dict": {"a": [0, 8]}}, "class 'a' names the picture 8, and there are 8"),
    "class_dict twice": ({"data": TINY, "class_dict": {"a": [0, 1], "b": [1]}}, "picture 1 is in the classes 'a' and 'b'"),
    "class_dict gap": ({"data": TINY, "class_dict": {"a": [0, 1]}}, "picture 2 is in no class"),
    "class_dict list": ({"data": TINY, "class_dict": [1]}, "'class_dict' is a list, expected a dict"),
    "class_dict number": ({"data": TINY, "class_dict": {"a": 3}}, "class 'a' is a int, expected a list"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_contents_are_named(data_root, case):
    content, message = WRONG[case]
    path = put(data_root / "fc100", "FC100_train.pickle", content, protocol=4)
    with pytest.raises(ValueError, match=message) as caught:
        class_pool("fc100")
    assert str(path) in str(caught.value)


def test_a_wrong_npz_is_named(data_root, tmp_path):
    folder = data_root / "fc100"
    folder.mkdir()
    path, trace = folder / "FC100_train.npz", tmp_path / "trace"
    np.savez(path, data=TINY)
    with pytest.raises(ValueError, match=r"holds \['data'\], expected 'data' and 'class_dict' or 'labels'"):
        class_pool("fc100")
    np.savez(path, data=TINY, labels=np.array([Asks(os.mkdir, str(trace))], dtype=object))
    with pytest.raises(ValueError, match="dtype .*O., and only plain"):
        class_pool("fc100")
    assert not trace.exists()
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(ValueError, match="not a whole zip"):
        class_pool("fc100")


@pytest.mark.parametrize("name", ["mini_imagenet", "fc100"])
def test_missing_parts_say_what_to_put_where(data_root, name):
    with pytest.raises(FileNotFoundError, match="none of its files was found") as caught:
        class_pool(name)
    assert str(data_root / name) in str(caught.value) and ".npz" in str(caught.value)
    with pytest.raises(ValueError, match="no verified sha256"):
        fetch_pool(name)
    with pytest.raises(ValueError, match="split='background' is unknown; choose one of None, 'train'"):
        class_pool(name, split="background")


def test_a_part_that_is_there_is_offered_but_not_taken_for_another(data_root):
    put(data_root / "fc100", "FC100_test.pickle", FC)
    with pytest.raises(FileNotFoundError, match=r"FC100_train.pickle .*only split='test' was found"):
        class_pool("fc100")
    found = {row.name: row.found for row in pool_catalogue()}
    assert found["fc100"] == f"test (FC100_test.pickle), in {data_root / 'fc100'}" and found["mini_imagenet"] is None


def test_nothing_of_this_process_was_changed():
    """The crafted pickles above set attributes on what they get; the readers' own functions must not take them."""
    from explainlib.datasets.readers import plain_pickle

    assert plain_pickle._Reader.empty_array.__name__ == "empty_array"
    assert OrderedDict.__name__ == "OrderedDict" and os.path.exists(plain_pickle.__file__)
