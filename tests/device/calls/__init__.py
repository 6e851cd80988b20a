"""The rows of the device table, by room; importing this registers them."""

from tests.device.calls import (
    data,
    exempt,
    layers,
    learners,
    panels,
    representers,
    risks,
    solvers,
    streams,
    studies,
    tasks,
    training,
)

__all__ = [
    "data",
    "exempt",
    "layers",
    "learners",
    "panels",
    "representers",
    "risks",
    "solvers",
    "streams",
    "studies",
    "tasks",
    "training",
]
