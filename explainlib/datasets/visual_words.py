"""Bag of visual words: an image as a histogram of its local descriptors, independent of their positions.

SIFT finds keypoints and describes the neighbourhood of each by 128 numbers; k-means on the descriptors of a training
pool gives the words; an image becomes the share of its keypoints next to each word. SIFT is blind to rotation (a
drawing turned by a quarter has nearly the histogram of the original) and to brightness, until contrast falls below its
threshold and keypoints vanish (Omniglot drawings have none left at a tenth of their brightness).

SIFT comes from scikit-image, which is needed here only.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from explainlib.checks import require_count, require_same_kind, require_tensor
from explainlib.datasets.features import grey_pictures

SMALLEST_SIDE = 56  # Omniglot drawings: 4 keypoints at 28 pixels, one drawing in 7 has none; 21 at 56, 24 at 84
MOST_DESCRIPTORS = 100_000  # k-means sees a sample of at most this many: 50 MB


@dataclass(frozen=True, eq=False)
class VisualWords:
    """A codebook of visual words, made by ``VisualWords.fit`` and applied by calling it.

    Args:
        codebook: [words, 128], the typical descriptors.
    """

    codebook: Float[Tensor, "words 128"]

    @classmethod
    def fit(cls, images: Shaped[Tensor, "N ..."], words: int = 32, seed: int = 0) -> VisualWords:
        """Return the visual words of a training pool.

        Args:
            images: [N, h, w] or [N, c, h, w] in [0, 1]; channels are averaged. Images whose shorter side is below 56
                pixels are enlarged to it (bilinear), because SIFT finds little in very small ones.
            words: how many, at least 2.
            seed: of k-means and of the sample it sees where there are more than 100,000 descriptors.

        Raises:
            ImportError: scikit-image is not installed.
            ValueError: images outside [0, 1] or without height and width, or fewer distinct descriptors than words.

        Source: TLXML, section 5.1, after Csurka et al. 2004 and Lowe 2004, with 32 words. The cost is one SIFT an
        image, about 18 ms for a drawing of 28 x 28; 2,720 of them take 50 s, and as long again to be called on.
        """
        from sklearn.cluster import KMeans  # half of the time that importing this package would take

        require_count("words", words, least=2)
        generator = np.random.default_rng(require_count("seed", seed, least=0))
        descriptors = np.concatenate(_descriptors(images))
        if len(descriptors) > MOST_DESCRIPTORS:
            descriptors = descriptors[generator.choice(len(descriptors), MOST_DESCRIPTORS, replace=False)]
        distinct = len(np.unique(descriptors, axis=0))
        if distinct < words:
            raise ValueError(
                f"the {len(images)} images have {distinct} distinct SIFT descriptors, fewer than words={words}; "
                "pass more images, or ask for fewer words."
            )
        means = KMeans(words, n_init=3, random_state=seed).fit(descriptors).cluster_centers_
        return cls(torch.from_numpy(means).to(images))

    def __call__(self, images: Shaped[Tensor, "N ..."]) -> Float[Tensor, "N words"]:
        """Return for each image the share of its keypoints that are nearest to each word.

        Args:
            images: as those it was fitted on.

        Returns:
            [N, words] in the images' dtype; rows sum to 1, or are 0 where an image has no keypoint (a black one).

        Raises:
            ImportError, ValueError: as in ``fit``.
            TypeError: another dtype than it was fitted on.
        """
        require_same_kind("images", require_tensor("images", images), "the codebook", self.codebook)
        codebook = self.codebook.cpu().double()
        histograms = images.new_zeros(len(images), len(self.codebook))
        for row, found in zip(histograms, _descriptors(images), strict=True):
            if len(found):
                nearest = torch.cdist(torch.from_numpy(found), codebook).argmin(1)
                row += nearest.bincount(minlength=len(row)).to(row) / len(found)
        return histograms


def _descriptors(images: Tensor) -> list[Float[np.ndarray, "k 128"]]:
    """Return the SIFT descriptors of each image, none for an image without keypoints."""
    feature = _scikit_image()
    grey = grey_pictures(images)
    if float(grey.min()) < 0 or float(grey.max()) > 1:
        raise ValueError(
            f"images has brightness from {float(grey.min()):g} to {float(grey.max()):g}, expected 0 to 1, which the "
            "contrast threshold of SIFT supposes; rescale them."
        )
    shorter = min(grey.shape[1:])
    if shorter < SMALLEST_SIDE:
        sides = [round(n * SMALLEST_SIDE / shorter) for n in grey.shape[1:]]
        grey = torch.nn.functional.interpolate(grey[:, None], sides, mode="bilinear", align_corners=False)[:, 0]
    sift = feature.SIFT()  # one for images of one size: it never goes back to more octaves
    return [_describe(sift, image.double().numpy()) for image in grey.cpu()]


def _describe(sift: object, image: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "k 128"]:
    """Return the descriptors of one image; scikit-image raises where it finds no keypoint, which is no error here."""
    try:
        sift.detect_and_extract(image)
    except RuntimeError as error:
        if "found no features" not in str(error):
            raise
        return np.zeros((0, 128))
    return sift.descriptors.astype(np.float64)


def _scikit_image() -> ModuleType:
    """Return ``skimage.feature``.

    Raises:
        ImportError: it is not installed.
    """
    try:
        return importlib.import_module("skimage.feature")
    except ImportError as error:
        raise ImportError(
            "visual words need SIFT from scikit-image, which is not installed; run `pip install explainlib[words]`, "
            "or use the spectrum features."
        ) from error
