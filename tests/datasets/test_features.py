"""Features: spectra against numpy and against their symmetries, standardisation, and bags of visual words."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import torch

from explainlib.datasets import ClassPool
from explainlib.datasets.features import spectrum, standardiser
from explainlib.datasets.visual_words import VisualWords

IMAGES = torch.rand(60, 28, 28, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


# ---------------------------------------------------------------------------------------------------------- spectrum


@pytest.mark.parametrize(("h", "w", "size"), [(28, 28, 6), (9, 8, 3), (8, 9, 6), (5, 7, 5)])
def test_the_centred_block_is_numpys(h, w, size):
    image = IMAGES[0, :h, :w]
    shifted = np.abs(np.fft.fftshift(np.fft.fft2(image.numpy())))
    top, left = h // 2 - size // 2, w // 2 - size // 2
    expected = shifted[top : top + size, left : left + size].ravel()
    assert np.allclose(spectrum(image[None], size=size)[0].numpy(), expected, rtol=1e-12)


def test_the_whole_spectrum_keeps_the_energy():
    """Parseval: sum |F|^2 = h w sum |x|^2, which any scaling or lost frequency would break."""
    energy = spectrum(IMAGES, size=28).square().sum(1)
    assert torch.allclose(energy, 28 * 28 * IMAGES.square().sum((1, 2)), rtol=1e-12)


def test_the_centred_block_has_rank_24_and_the_half_plane_36():
    assert int(torch.linalg.matrix_rank(spectrum(IMAGES))) == 24
    assert int(torch.linalg.matrix_rank(spectrum(IMAGES, half=True))) == 36
    block = spectrum(IMAGES[:1])[0].unflatten(0, (6, 6))
    assert torch.allclose(block[1:, 1:], block[1:, 1:].flip(0, 1))  # F[-v, -u] is the conjugate of F[v, u]


def test_the_half_plane_takes_the_slowest_in_a_fixed_order():
    """A single cosine lights up exactly its own place."""
    order = [(0, 0), (0, 1), (1, 0), (1, -1), (1, 1), (0, 2), (2, 0), (1, -2), (1, 2)]
    left_out = [(2, -1), (2, 1)]  # as slow as the last two, with a larger v
    r, c = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
    waves = torch.stack([torch.cos(2 * math.pi * (v * r + u * c) / 28) for v, u in order + left_out])
    seen = spectrum(waves, size=3, half=True)
    assert torch.allclose(seen[:9], torch.diag(torch.tensor([784.0] + [392.0] * 8)), atol=0.01)
    assert (seen[9:] < 0.01).all()


@pytest.mark.parametrize(("h", "w"), [(4, 4), (4, 6), (5, 4), (5, 5), (6, 3)])
def test_the_half_plane_never_repeats_a_frequency(h, w):
    """Even sides have frequencies that are their own opposites; the most that fit are still independent."""
    distinct = (h * w + (2 - h % 2) * (2 - w % 2)) // 2
    size = min(math.isqrt(distinct), h, w)
    seen = spectrum(IMAGES[:, :h, :w], size=size, half=True)
    assert int(torch.linalg.matrix_rank(seen)) == size * size


def test_half_plane_refuses_more_than_there_are():
    with pytest.raises(ValueError, match="36 distinct frequencies, images of 8 x 8 have 34"):
        spectrum(IMAGES[:, :8, :8], half=True)


def test_a_shift_leaves_the_spectrum():
    image = torch.zeros(1, 28, 28, dtype=torch.float64)
    image[0, 8:15, 9:13] = IMAGES[0, :7, :4]
    moved = image.roll((3, -5), (1, 2))
    assert torch.allclose(spectrum(moved), spectrum(image)) and torch.allclose(
        spectrum(moved, half=True), spectrum(image, half=True)
    )
    assert not torch.allclose(spectrum(image.flip(2)), spectrum(image))


def test_channels_are_averaged():
    colour = IMAGES.unflatten(0, (20, 3))
    assert torch.allclose(spectrum(colour), spectrum(colour.mean(1)))
    assert spectrum(IMAGES[:, None]).equal(spectrum(IMAGES))


def test_spectrum_serves_a_pool():
    pool = ClassPool(IMAGES[:, None].float(), torch.arange(60) % 5, list("abcde"), list("vwxyz"))
    fitted = standardiser(spectrum(pool.x, half=True))
    features = pool.map(lambda x: spectrum(x, half=True, standardise=fitted))
    assert features.x.shape == (60, 36) and features.x.dtype == torch.float32
    assert torch.equal(features.pictures, pool.x)


@pytest.mark.parametrize("images", [torch.zeros(5, 64), torch.zeros(2, 5, 1, 8, 8)])
def test_images_need_height_and_width(images):
    with pytest.raises(ValueError, match=r"expected \[N, h, w\] or \[N, c, h, w\]"):
        spectrum(images)


def test_spectrum_refuses_bad_input():
    with pytest.raises(ValueError, match="size=9 is larger than the images, 8 x 10"):
        spectrum(torch.zeros(1, 8, 10), size=9)
    with pytest.raises(ValueError, match="size=0"):
        spectrum(IMAGES, size=0)
    with pytest.raises(TypeError, match="expected floating point"):
        spectrum(torch.zeros(1, 8, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match="NaN"):
        spectrum(torch.full((1, 8, 8), torch.nan))


# ------------------------------------------------------------------------------------------------------ standardiser


def test_the_standardiser_is_fitted_once():
    train, other = spectrum(IMAGES[:40]), spectrum(IMAGES[40:])
    fitted = standardiser(train)
    assert torch.allclose(fitted(train).mean(0), torch.zeros(36, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(fitted(train).square().mean(0), torch.ones(36, dtype=torch.float64))
    expected = (other.numpy() - train.numpy().mean(0)) / train.numpy().std(0)
    assert np.allclose(fitted(other).numpy(), expected)
    assert fitted(other).mean(0).abs().max() > 0.05  # the other images are not standardised by themselves
    assert torch.equal(spectrum(IMAGES[40:], standardise=fitted), fitted(other))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_constant_feature_stays_zero(dtype):
    x = torch.rand(50, 3, generator=torch.Generator().manual_seed(1)).to(dtype)
    x[:, 1] = 1e5 / 3
    x[::2, 1] *= 1 + 2 * torch.finfo(dtype).eps  # constant but for rounding
    x[:, 2] = 0
    fitted = standardiser(x)
    assert not fitted(x)[:, 1:].any() and not fitted(x + 5)[:, 1:].any()
    assert fitted(x)[:, 0].abs().min() > 0


def test_the_standardiser_refuses_other_features():
    fitted = standardiser(spectrum(IMAGES))
    with pytest.raises(ValueError, match="x has 16 features, the pool had 36"):
        fitted(spectrum(IMAGES, size=4))
    with pytest.raises(TypeError, match="convert one"):
        fitted(spectrum(IMAGES).float())
    with pytest.raises(ValueError, match="x has 1 row"):
        standardiser(spectrum(IMAGES[:1]))


# ------------------------------------------------------------------------------------------------------ visual words


def patterns():
    """Return 30 pictures of 28 x 28: fifteen of round dots, fifteen of crossing bars, all at random places."""
    generator = np.random.default_rng(0)
    r, c = np.mgrid[:28, :28]
    images = np.zeros((30, 28, 28))
    for image in images[:15]:
        for _ in range(6):
            y, x = generator.uniform(4, 24, 2)
            np.maximum(image, np.exp(-((r - y) ** 2 + (c - x) ** 2) / 6), out=image)
    for image in images[15:]:
        for start in generator.integers(3, 23, 2):
            image[start : start + 3, 2:26] = 1
        start = generator.integers(3, 23)
        image[2:26, start : start + 3] = 1
    return torch.tensor(images, dtype=torch.float32)


PATTERNS = patterns()


@pytest.fixture(scope="module")
def words():
    pytest.importorskip("skimage", reason="SIFT is in scikit-image")
    return VisualWords.fit(PATTERNS, words=8, seed=0)


def test_histograms_are_shares(words):
    histograms = words(PATTERNS)
    assert histograms.shape == (30, 8) and histograms.dtype == torch.float32
    assert torch.allclose(histograms.sum(1), torch.ones(30)) and histograms.min() >= 0
    assert words(torch.zeros(2, 28, 28)).equal(torch.zeros(2, 8))  # black: no keypoint, no word
    assert words(PATTERNS[:, None].expand(-1, 3, -1, -1)).equal(histograms)


def test_visual_words_are_deterministic_and_seeded(words):
    assert torch.equal(VisualWords.fit(PATTERNS, words=8, seed=0).codebook, words.codebook)
    assert not torch.equal(VisualWords.fit(PATTERNS, words=8, seed=1).codebook, words.codebook)
    assert torch.equal(words(PATTERNS[[3, 3, 20]]), words(PATTERNS)[[3, 3, 20]])


def test_the_words_are_the_nearest(words):
    """Against scikit-image and numpy directly, on the enlarged picture."""
    from skimage.feature import SIFT

    image = torch.nn.functional.interpolate(PATTERNS[4:5, None], (56, 56), mode="bilinear")[0, 0]
    sift = SIFT()
    sift.detect_and_extract(image.double().numpy())
    apart = np.linalg.norm(sift.descriptors[:, None].astype(float) - words.codebook.double().numpy()[None], axis=2)
    expected = np.bincount(apart.argmin(1), minlength=8) / len(apart)
    assert np.allclose(words(PATTERNS[4:5])[0].numpy(), expected)


def test_two_patterns_use_different_words(words):
    histograms = words(PATTERNS)
    assert torch.equal(histograms[[0, 20]], words(PATTERNS[[0, 20]]))
    dots, bars = histograms[:15], histograms[15:]
    between = (dots.mean(0) - bars.mean(0)).abs().sum()  # 2 where no word is shared
    within = max((kind[:7].mean(0) - kind[7:].mean(0)).abs().sum() for kind in (dots, bars))
    assert between > 0.6 and between > 2 * within


def test_words_see_a_rotated_picture_much_alike(words):
    """SIFT turns with the picture: a quarter turn changes a histogram less than another picture would."""
    histograms, turned = words(PATTERNS[15:]), words(torch.rot90(PATTERNS[15:], 1, (1, 2)))
    own = (histograms - turned).abs().sum(1).mean()
    others = torch.cdist(histograms, histograms, p=1).sum() / (15 * 14)
    assert own < others / 2


def test_a_pool_of_large_pictures_is_not_enlarged(words):
    large = torch.nn.functional.interpolate(PATTERNS[:, None], (60, 75), mode="bilinear")[:, 0]
    assert torch.allclose(words(large).sum(1), torch.ones(30))


def test_visual_words_refuse_bad_input(words):
    with pytest.raises(ValueError, match="brightness from 0 to 255"):
        words(PATTERNS.round() * 255)
    with pytest.raises(TypeError, match="convert one"):
        words(PATTERNS.double())
    with pytest.raises(ValueError, match=r"expected \[N, h, w\] or \[N, c, h, w\]"):
        words(PATTERNS.flatten(1))
    with pytest.raises(ValueError, match="0 distinct SIFT descriptors, fewer than words=32"):
        VisualWords.fit(torch.zeros(3, 28, 28))
    with pytest.raises(ValueError, match="words=1"):
        VisualWords.fit(PATTERNS, words=1)


def test_without_scikit_image_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.feature", None)
    with pytest.raises(ImportError, match="pip install explainlib"):
        VisualWords.fit(PATTERNS)
