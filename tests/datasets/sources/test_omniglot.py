"""Omniglot from the official zips: which zip, ink that is kept, and clear errors for anything damaged."""

from __future__ import annotations

import io
import os
import time
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image

from explainlib.datasets import class_pool, fetch_pool, pool_catalogue, sample_tasks
from explainlib.datasets.sources.omniglot import PARTS, VERIFIED, resize_by_area

OWN_FOLDER = Path(os.environ.get("EXPLAINLIB_DATA") or "/nonexistent") / "omniglot"
REAL = OWN_FOLDER / "images_background_small1.zip"


def png(ink, size=(105, 105)):
    """Return a black and white PNG whose rectangle ``ink`` (left, top, right, bottom) is black."""
    image = Image.new("1", size, 1)
    image.paste(0, ink)
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def write_zip(folder, part, alphabets, *, characters=2, drawings=3, extra=()):
    """Write one official zip with a different rectangle for each drawing; ``extra`` holds (member, content)."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / PARTS[part]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for a, alphabet in enumerate(alphabets):
            for c in range(1, characters + 1):
                for d in range(1, drawings + 1):
                    name = f"{path.stem}/{alphabet}/character{c:02d}/{a}{c:02d}_{d:02d}.png"
                    archive.writestr(name, png((0, 0, 15 * c, 15 * d)))
        for name, content in extra:
            archive.writestr(name, content)
    return path


def test_drawings_come_with_ink_as_one_and_names_by_alphabet(data_root):
    """A block of 15 by 15 pixels at scale 3.75 is exactly 4 by 4 new pixels."""
    write_zip(data_root / "omniglot", "small1", ["Greek", "Balinese"])
    pool = class_pool("omniglot")
    assert pool.x.shape == (12, 1, 28, 28) and pool.x.dtype == torch.float32
    assert pool.names == tuple(f"{a}/character0{c}" for a in ("Balinese", "Greek") for c in (1, 2))
    assert pool.parents == ("Balinese", "Balinese", "Greek", "Greek") and pool.y.bincount().tolist() == [3] * 4
    expected = torch.zeros(28, 28)
    expected[:12, :8] = 1  # the third drawing of the second character: 30 wide, 45 high
    assert torch.allclose(pool.x[5, 0], expected, atol=1e-6)


def test_no_ink_is_gained_or_lost():
    images = torch.rand(3, 105, 105, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    small = resize_by_area(images, 28)
    assert torch.allclose(small.mean((1, 2)), images.mean((1, 2)), rtol=1e-6)
    one = resize_by_area(torch.eye(105, dtype=torch.float64)[None, :4, :4], 3)[0]  # pixels of 4/3: shares 1 and 1/3
    assert torch.allclose(one[0], torch.tensor([(1 + 1 / 9), 2 / 9, 0]).double() * 9 / 16, rtol=1e-6)


def test_the_background_is_preferred_and_the_small_zips_are_joined(data_root):
    folder = data_root / "omniglot"
    write_zip(folder, "evaluation", ["Tengwar"])
    with pytest.raises(FileNotFoundError, match="only split='evaluation' was found"):
        class_pool("omniglot")
    write_zip(folder, "small1", ["Greek", "Latin"])
    write_zip(folder, "small2", ["Latin", "Tagalog"])
    # The same alphabet in both: its files have other names there only because the maker numbers alphabets.
    assert set(class_pool("omniglot").parents) == {"Greek", "Latin", "Tagalog"}
    assert set(class_pool("omniglot", split="small2").parents) == {"Latin", "Tagalog"}
    write_zip(folder, "background", ["Greek", "Latin", "Tagalog", "Braille"])
    assert len(class_pool("omniglot")) == 8
    assert class_pool("omniglot", split="evaluation").names == ("Tengwar/character01", "Tengwar/character02")


def test_a_drawing_in_both_zips_is_one_drawing(data_root):
    write_zip(data_root / "omniglot", "small1", ["Greek"])
    write_zip(data_root / "omniglot", "small2", ["Greek"])
    assert len(class_pool("omniglot").x) == 6


def test_a_replaced_zip_is_read_again_and_nobody_can_change_the_kept_one(data_root):
    write_zip(data_root / "omniglot", "small1", ["Greek"])
    first = class_pool("omniglot")
    first.x.zero_()
    assert class_pool("omniglot").x.max() == 1
    write_zip(data_root / "omniglot", "small1", ["Greek", "Latin"])
    assert len(class_pool("omniglot")) == 4


def test_missing_zips_say_what_to_put_where(cache):
    with pytest.raises(FileNotFoundError, match="none of its zips was found") as caught:
        class_pool("omniglot")
    message = str(caught.value)
    assert str(cache / "omniglot") in message and "fetch_pool('omniglot')" in message and "small1.zip" in message
    with pytest.raises(FileNotFoundError, match="images_evaluation.zip") as caught:
        class_pool("omniglot", split="evaluation")
    assert "fetch" not in str(caught.value), "no hash of it was verified, so it is not offered"
    with pytest.raises(ValueError, match="split='train' is unknown; choose one of None, 'background'"):
        class_pool("omniglot", split="train")


def test_only_the_verified_zip_is_downloaded(cache, monkeypatch, caplog):
    from explainlib.datasets import entries

    monkeypatch.setattr(entries, "download", lambda dataset, file: Path(dataset, str(file.sha256), file.name))
    got = fetch_pool("omniglot")
    assert got == {name: Path("omniglot", sha256, name) for name, sha256 in VERIFIED.items()}
    assert "images_background.zip" in caplog.text and "small1" not in caplog.text


def test_a_tampered_zip_in_the_cache_is_put_aside(cache):
    path = write_zip(cache / "omniglot", "small1", ["Greek"])
    with pytest.raises(ValueError, match="expected f38eb80f8012"):
        class_pool("omniglot")
    assert not path.exists()


def broken(path, damage):
    """Damage a zip in one way."""
    content = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "flipped":  # in the packed bytes of the first drawing: its checksum tells
        place = content.index(b".png") + 4 + 60
        path.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])


@pytest.mark.parametrize(
    ("damage", "message"),
    [("truncated", "not a whole zip"), ("empty", "not a whole zip"), ("flipped", "is damaged")],
)
def test_damaged_zips_are_refused_by_name(data_root, damage, message):
    path = write_zip(data_root / "omniglot", "small1", ["Greek"])
    broken(path, damage)
    with pytest.raises(ValueError, match=message) as caught:
        class_pool("omniglot")
    assert str(path) in str(caught.value) and "replace it by the official file" in str(caught.value)


BAD_MEMBERS = {
    "upwards": ("a/../../evil/character01/1.png", png((0, 0, 1, 1)), "points outside"),
    "absolute": ("/etc/character01/1.png", png((0, 0, 1, 1)), "points outside"),
    "backslash": ("a\\..\\b\\character01\\1.png", png((0, 0, 1, 1)), "points outside"),
    "no folders": ("1.png", png((0, 0, 1, 1)), "is not <alphabet>"),
    "no image": ("r/Greek/character09/1.png", b"<html>not found</html>", "no readable PNG"),
    "cut image": ("r/Greek/character09/1.png", png((0, 0, 50, 50))[:60], "no readable PNG"),
    "other size": ("r/Greek/character09/1.png", png((0, 0, 5, 5), (20, 30)), r"has \(20, 30\) pixels"),
    "bomb": ("r/Greek/character09/1.png", bytes(1_000_000), "too many for a drawing"),
}


@pytest.mark.parametrize("case", BAD_MEMBERS)
def test_bad_members_are_refused(data_root, case):
    name, content, message = BAD_MEMBERS[case]
    path = write_zip(data_root / "omniglot", "small1", ["Greek"], extra=[(name, content)])
    with pytest.raises(ValueError, match=message) as caught:
        class_pool("omniglot")
    assert str(path) in str(caught.value)


def test_a_zip_without_drawings_is_refused_and_the_catalogue_says_so(data_root):
    write_zip(data_root / "omniglot", "small1", [], extra=[("readme.txt", b"hello")])
    with pytest.raises(ValueError, match="holds no <alphabet>"):
        class_pool("omniglot")
    (row,) = (row for row in pool_catalogue() if row.name == "omniglot")
    assert row.found is None and "holds no" in row.how


@pytest.mark.skipif(not REAL.is_file(), reason="EXPLAINLIB_DATA holds no Omniglot")
def test_the_real_small_zip():
    """Five alphabets, 136 characters, 20 drawings each, mostly paper; ready within seconds."""
    start = time.perf_counter()
    pool = class_pool("omniglot", split="small1")
    assert time.perf_counter() - start < 20
    assert len(pool) == 136 and pool.y.bincount().tolist() == [20] * 136
    assert set(pool.parents) == {"Balinese", "Early_Aramaic", "Greek", "Korean", "Latin"}
    assert pool.names[0] == "Balinese/character01" and 0.02 < pool.x.mean() < 0.2
    tasks = sample_tasks(pool, 3, shots=10, queries=10)
    assert tasks.support_x.shape == (3, 50, 1, 28, 28)
