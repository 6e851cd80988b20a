"""Gaussians: clusters of points whose overlap is known, so that every surprise is the method's and not the data's.

A cluster is a class; class c is a standard normal cloud moved by separation / sqrt(2) along axis c, so that any two
centres are ``separation`` standard deviations apart. Axes beyond the number of classes carry no information.
"""

from __future__ import annotations

import numpy as np
import torch

from explainlib.checks import require_count, require_positive
from explainlib.datasets.examples import Examples


def gaussians(n: int = 10_000, seed: int = 0, *, features: int = 5, separation: float = 2.0) -> Examples:
    """Return two overlapping Gaussian classes, A and B.

    Args:
        n: how many points; the classes get n/2 each, within one.
        seed: of the draw, 0 or more.
        features: the dimension d, at least 2; the d - 2 last are noise.
        separation: the distance of the two centres in standard deviations, above 0. The best possible accuracy is
            Phi(separation / 2): 0.841 at 2, so that some test points are always misclassified.

    Returns:
        Examples with x float32 [n, d].

    Raises:
        ValueError: fewer than 2 points, fewer than 2 features, a separation that is not above 0, a negative seed.

    Source: Basu et al. 2020, section 7.2 (10,000 Gaussian points, 5 features, 2 classes). Deviation: the
    main text prints neither centres nor covariances; unit covariance and this separation are our choice.
    """
    return gaussian_clusters(("A", "B"), n, seed, features=features, separation=separation)


def gaussian_clusters(classes: tuple[str, ...], n: int, seed: int, *, features: int, separation: float) -> Examples:
    """Return one isotropic Gaussian cloud for each class, in random order, class sizes equal within one.

    Args:
        classes: the C names.
        n: how many points, at least C.
        seed: of the draw, 0 or more.
        features: the dimension d, at least C.
        separation: the distance between any two centres in standard deviations, above 0.

    Returns:
        Examples with x float32 [n, d]; the mean of all centres is the origin.

    Raises:
        ValueError: a number outside these bounds.
    """
    require_count("n", n, least=len(classes))
    require_count("features", features, least=len(classes))
    require_positive("separation", separation)
    generator = np.random.default_rng(require_count("seed", seed, least=0))
    labels = generator.permutation(np.arange(n) % len(classes))
    centres = np.eye(len(classes), features) * separation / np.sqrt(2)
    x = generator.standard_normal((n, features)) + (centres - centres.mean(0))[labels]
    return Examples(torch.tensor(x, dtype=torch.float32), torch.tensor(labels, dtype=torch.int64), classes)
