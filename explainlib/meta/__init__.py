"""Meta-learning: learners, their training, and the curvature of their objective."""

from explainlib.meta.bilevel import Bilevel, SolveError, TaskWeights, adaptation_gap, implicit_maml, solve
from explainlib.meta.gauss_newton import gauss_newton_buffer, gauss_newton_rows
from explainlib.meta.hessian import meta_hessian
from explainlib.meta.learner import Learner
from explainlib.meta.leave_out import MetaRetrained, leave_tasks_out
from explainlib.meta.maml import Maml
from explainlib.meta.minimise import minimise
from explainlib.meta.protonet import ProtoNet
from explainlib.meta.train import train
from explainlib.meta.trained import Trained

__all__ = [
    "Bilevel",
    "Learner",
    "Maml",
    "MetaRetrained",
    "ProtoNet",
    "SolveError",
    "TaskWeights",
    "Trained",
    "adaptation_gap",
    "gauss_newton_buffer",
    "gauss_newton_rows",
    "implicit_maml",
    "leave_tasks_out",
    "meta_hessian",
    "minimise",
    "solve",
    "train",
]
