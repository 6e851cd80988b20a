"""Fused GPU kernels beside their plain PyTorch references; one dispatch point per operation.

xl.kernels.available()             what is here, and what is missing
xl.kernels.use("torch")            for good, or `with xl.kernels.use("torch"): ...`
python -m explainlib.kernels       times kernel, reference and the memory floor on a GPU
"""

from explainlib.kernels.choice import available, runs_on_triton, use
from explainlib.kernels.gram import layer_gram

__all__ = ["available", "layer_gram", "runs_on_triton", "use"]
