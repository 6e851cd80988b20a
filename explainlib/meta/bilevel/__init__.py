"""Bilevel learners whose tasks are solved at their inner minima."""

from explainlib.meta.bilevel.implicit import adaptation_gap, implicit_maml
from explainlib.meta.bilevel.learner import Bilevel, MakeInverse
from explainlib.meta.bilevel.newton_cg import CgInverse
from explainlib.meta.bilevel.problem import Problem, Proximal
from explainlib.meta.bilevel.solve import SolveError, require_bilevel, solve
from explainlib.meta.bilevel.state import ROWS, InnerState
from explainlib.meta.bilevel.task_weights import TaskWeights, WeightedTask

__all__ = [
    "ROWS",
    "Bilevel",
    "CgInverse",
    "InnerState",
    "MakeInverse",
    "Problem",
    "Proximal",
    "SolveError",
    "TaskWeights",
    "WeightedTask",
    "adaptation_gap",
    "implicit_maml",
    "require_bilevel",
    "solve",
]
