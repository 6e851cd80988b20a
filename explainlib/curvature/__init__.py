"""Curvature: one matrix a file, each as a dense matrix and as a matrix-free product."""

from explainlib.curvature.density import SpectralDensity, spectral_density
from explainlib.curvature.ekfac import Ekfac
from explainlib.curvature.empirical_fisher import empirical_fisher
from explainlib.curvature.gauss_newton import gauss_newton, gauss_newton_product
from explainlib.curvature.hessian import hessian, hessian_product
from explainlib.curvature.spectrum import top_eigenvalues

__all__ = [
    "Ekfac",
    "SpectralDensity",
    "empirical_fisher",
    "gauss_newton",
    "gauss_newton_product",
    "hessian",
    "hessian_product",
    "spectral_density",
    "top_eigenvalues",
]
