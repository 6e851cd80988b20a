"""What can be known of the kernels without a GPU: registers, spills, occupancy, and the times that are possible."""

from explainlib.kernels.report.resources import Resources, occupancy, resources
from explainlib.kernels.report.roofline import GPUS, Gpu, Work, gram_work, perceptron_work
from explainlib.kernels.report.steps import Step, gram_steps, totals
from explainlib.kernels.report.table import rows, write

__all__ = [
    "GPUS",
    "Gpu",
    "Resources",
    "Step",
    "Work",
    "gram_steps",
    "gram_work",
    "occupancy",
    "perceptron_work",
    "resources",
    "rows",
    "totals",
    "write",
]
