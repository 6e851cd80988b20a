"""Many small perceptrons, each trained from start to end by one program of one launch; beside it, plain PyTorch."""

from explainlib.kernels.perceptrons.build import build_perceptrons, programs
from explainlib.kernels.perceptrons.training import fits_kernel, obstacle, trained_perceptrons

__all__ = ["build_perceptrons", "fits_kernel", "obstacle", "programs", "trained_perceptrons"]
