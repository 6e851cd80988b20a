"""The Gauss-Newton matrix of the meta-objective: its rows, and a buffer of few for many tasks."""

from explainlib.meta.gauss_newton.buffer import (
    Buffer,
    buffer_size,
    filled_buffer,
    gauss_newton_buffer,
    require_buffer,
    warn_of_rank,
)
from explainlib.meta.gauss_newton.factors import COLUMNS, float64_gram, leading_rows, softmax_factors
from explainlib.meta.gauss_newton.rows import gauss_newton_rows

__all__ = [
    "COLUMNS",
    "Buffer",
    "buffer_size",
    "filled_buffer",
    "float64_gram",
    "gauss_newton_buffer",
    "gauss_newton_rows",
    "leading_rows",
    "require_buffer",
    "softmax_factors",
    "warn_of_rank",
]
