"""Files whole or not at all, and folders that are resumed from only by the computation that filled them."""

import json
import os
import stat

import pytest
import torch
from torch import nn

from explainlib.storage import FINGERPRINT, Store, digest, fingerprint, write_bytes, write_text
from tests.problems import normal

MARK = {"work": "test", "l2": 0.1, "list": [1, 2]}


def tensors():
    return {"theta": normal(3, 2), "steps": torch.tensor([1, 2, 3]), "empty": torch.empty(0, 4)}


def test_a_file_is_whole_or_not_there(tmp_path, monkeypatch):
    path = write_text("first é", tmp_path / "new" / "a.txt")
    assert path.read_text() == "first é"

    def interrupted(*_):
        raise KeyboardInterrupt

    for name in ("fsync", "replace", "chmod"):
        monkeypatch.setattr(os, name, interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_bytes(b"second", path)
        monkeypatch.undo()
        assert path.read_text() == "first é" and [p.name for p in path.parent.iterdir()] == ["a.txt"]
    write_bytes(b"third", path)
    mask = os.umask(0)
    os.umask(mask)
    assert path.read_bytes() == b"third" and stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


@pytest.mark.parametrize("change", [lambda t: t.float(), lambda t: t.reshape(-1), lambda t: t + 1e-15, lambda t: t.T])
def test_a_digest_sees_dtype_shape_and_every_bit(change):
    t = normal(2, 3)
    assert digest(t) == digest(t.clone()) == digest(t.T.contiguous().T) and digest(t) != digest(change(t))
    assert len(digest(t)) == 64 and digest(t, t) != digest(t)
    assert digest(torch.tensor(1.0)) != digest(torch.tensor([1.0])) and digest(torch.tensor([True])) != digest(
        torch.ones(1)
    )


def test_a_fingerprint_names_what_changed():
    one = fingerprint({"x": normal(3), "model": nn.Linear(2, 2)}, {"l2": 0.1})
    model = nn.BatchNorm1d(2)
    before = fingerprint({"x": normal(3), "model": model}, {"l2": 0.1})
    model.running_mean += 1  # a buffer, not a parameter
    after = fingerprint({"x": normal(3), "model": model}, {"l2": 0.1})
    assert {key for key in before if before[key] != after[key]} == {"model (buffers)"}
    changed = {"model", "model (layers)", "model (code)", "model (buffers)"}
    assert {key for key in before if before[key] != one[key]} == changed


def test_what_was_saved_comes_back_to_the_bit(tmp_path):
    store = Store(tmp_path / "deep" / "store", MARK)
    assert "a" not in store and store.names() == []
    store.save("a", tensors())
    again = Store(tmp_path / "deep" / "store", {"list": (1, 2), "l2": 0.1, "work": "test"})  # JSON knows no tuples
    assert "a" in again and again.names() == ["a"]
    got = again.load("a")
    assert got.keys() == tensors().keys()
    assert all(torch.equal(got[key], value) and got[key].dtype == value.dtype for key, value in tensors().items())


def test_a_transposed_tensor_is_stored_by_value(tmp_path):
    store = Store(tmp_path, MARK)
    store.save("t", {"t": normal(3, 2).T})
    assert torch.equal(store.load("t")["t"], normal(3, 2).T)


def test_remembered_is_made_once(tmp_path):
    calls = []

    def make():
        calls.append(1)
        return tensors()

    for _ in range(2):
        got = Store(tmp_path, MARK).cached("part", make)
        assert torch.equal(got["theta"], tensors()["theta"])
    assert calls == [1]

    def fails():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Store(tmp_path, MARK).cached("other", fails)
    assert Store(tmp_path, MARK).names() == ["part"]


def test_another_computation_is_refused(tmp_path):
    Store(tmp_path, MARK).save("a", tensors())
    with pytest.raises(ValueError, match=r"another computation: l2: got 0\.2, expected 0\.1\. Name another folder"):
        Store(tmp_path, {**MARK, "l2": 0.2})
    with pytest.raises(ValueError, match="more: got 1, expected nothing"):
        Store(tmp_path, {**MARK, "more": 1})
    with pytest.raises(ValueError, match="l2: got nothing, expected 0.1"):
        Store(tmp_path, {"work": "test", "list": [1, 2]})
    assert Store(tmp_path, MARK).names() == ["a"]


def test_folders_that_are_no_store(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds files but no fingerprint.json; name a new or an empty folder"):
        Store(tmp_path, MARK)
    with pytest.raises(ValueError, match="is a file; name a folder"):
        Store(tmp_path / "notes.txt", MARK)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("text", ["", "{", "[1]", "\x00"])
def test_a_damaged_fingerprint(tmp_path, text):
    Store(tmp_path, MARK)
    (tmp_path / FINGERPRINT).write_text(text)
    with pytest.raises(ValueError, match="cannot be read.*delete the folder or name another"):
        Store(tmp_path, MARK)


def test_a_fingerprint_is_plain(tmp_path):
    for bad in ({"x": torch.ones(1)}, {"x": float("nan")}):
        with pytest.raises(TypeError, match="cannot be written as JSON"):
            Store(tmp_path / "s", bad)
    assert not (tmp_path / "s").exists()
    Store(tmp_path / "s", MARK)
    assert json.loads((tmp_path / "s" / FINGERPRINT).read_text()) == {**MARK, "store format": 2}


def truncate(data):
    return data[: len(data) // 2]


def flip(data):
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize(
    "damage", [truncate, flip, lambda d: b"", lambda d: b"\x80\x04garbage, not tensors", lambda d: d + b"0"]
)
def test_a_damaged_file_is_an_error(tmp_path, damage):
    store = Store(tmp_path, MARK)
    store.save("a", {"theta": normal(3, 2)})
    store.path("a").write_bytes(damage(store.path("a").read_bytes()))
    with pytest.raises(ValueError, match="damaged.*delete it, and it is computed again"):
        store.load("a")
    with pytest.raises(ValueError, match="damaged"):
        store.cached("a", tensors)


def test_names(tmp_path):
    store = Store(tmp_path, MARK)
    for bad in ("", "../a", "a/b", ".hidden"):
        with pytest.raises(ValueError, match="plain file name"):
            store.save(bad, tensors())
    with pytest.raises(FileNotFoundError, match=r"stored are \[\]"):
        store.load("a")
