"""TLXML: the influence of training tasks on a meta-learner, on its adaptation, and on a new task's loss.

    I_meta(j)    = - H^+ grad L_j(w)                              [M, q]       eqs (4), (12)
    I_adpt(i, j) = dA(support_i, w)/dw  I_meta(j)                 [T, M, P]    eq. (6)
    I_perf(i, j) = grad_theta L_i(query_i)^T I_adpt(i, j)         [T, M]       eq. (7)
                 = (grad_w L_i)^T I_meta(j),  because dA/dw^T grad_theta L_i is the gradient through the adaptation

H is the Hessian of the meta-objective 1/M sum_i L_i + l2/2 |w|^2. All are derivatives with respect to an extra weight
on L_j; removing task j is the weight -1/M. A negative I_perf means that more of task j lowers the loss: helpful.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from explainlib import compute
from explainlib.checks import require_choice, require_indices, require_nonnegative, warn_caller
from explainlib.datasets import Tasks
from explainlib.gate import FORWARD_HESSIAN, GRADIENT
from explainlib.influence.tasks.adaptation import adaptation_table
from explainlib.influence.tasks.membership import membership
from explainlib.influence.tasks.spectrum import Spectrum, require_processes, require_sizes, task_spectrum
from explainlib.memory import alternatives, slices
from explainlib.meta.fingerprints import SHAPE, learner_entries, learner_fingerprint
from explainlib.meta.hessian import require_objective
from explainlib.meta.learner import Learner, require_learner
from explainlib.meta.task_map import Processes
from explainlib.risk import NotAtMinimumWarning
from explainlib.solvers.dense import Keep, require_keep
from explainlib.solvers.solution import SolverWarning
from explainlib.storage import FINGERPRINT, Store, differences

CURVATURES = ("hessian", "gauss_newton", "identity")
STATIONARY = 1e-6  # relative to a single task's gradient norm: below it w counts as a minimum
GRADIENT_NUMBERS = 2**24  # of test tasks at a time
ROUNDING = 1e-9  # relative to the largest eigenvalue: smaller negative ones may be rounding


class NegativeCount(NamedTuple):
    """How many eigenvalues are negative, with and without those at rounding level.

    Attributes:
        plain: below zero, rounding of zero eigenvalues included.
        certain: below -1e-9 of the largest.
    """

    plain: int
    certain: int


class TaskInfluence:
    """The influence of M training tasks on a meta-learner at w.

    Args:
        learner: ``Maml`` or ``ProtoNet``.
        w: its meta-trained parameters [q].
        tasks: the M tasks it was trained on.
        curvature: "hessian" (exact), "gauss_newton", or "identity" (plain gradient products, a control).
        buffer: with "gauss_newton": rows that stand for the matrix, in bounded memory; None holds all tasks' rows.
        compress: with "gauss_newton": directions kept of each task before the products with its support, at least
            C - 1; None is all r (C - 1).
        keep: which eigenvalues H^+ inverts: an int (that many algebraically largest, never one <= 0), a float (those
            above it relative to the largest absolute value; the default is the pseudo-inverse), "positive", None (all).
        damping: added to the curvature only to solve with it, >= 0.
        l2: the ridge (weight decay) that w was trained with, part of H.
        strict: raise unless w is at a minimum; otherwise warn.
        store: a folder for the gradients, the curvature and I_meta; an interrupted call resumes from it, and
            ``TaskInfluence.stored`` scores new tasks from it without the training data.
        processes: that share the tasks of the curvature: a number, or for "gauss_newton" also the address of a dask
            scheduler or its Client.

    Attributes:
        meta: I_meta [M, q].
        eigenvalues: of H (l2 and damping included), in descending order [q]; of the Gauss-Newton matrix those that are
            not zero.
        gradient_norm: |grad L(w) + l2 w|.
        negative: how many eigenvalues are negative, with and without those at rounding level.
        kept: how many eigenvalues are inverted.
        rank: how many directions the curvature has.
        captured: with "gauss_newton", the share of the matrix's trace that buffer and compression hold; what
            compression leaves out is estimated. 1 without them, None for other curvatures.

    Raises:
        ValueError: parameters of another learner, first-order MAML, no minimum under ``strict``, a store of other data
            or options, a singular H with keep=None.

    Scores of two buffers are those of two matrices: compare methods at equal ``rank`` only.

    Source: TLXML, eqs (4) to (7), (12); section 4.2 for the buffer.
    """

    @alternatives(
        "pass curvature='gauss_newton' with a buffer= of fewer rows, curvature='identity', or a learner of fewer "
        "parameters, parameters=[...]"
    )
    @compute.entry
    def __init__(
        self,
        learner: Learner,
        w: Float[Tensor, " q"],
        tasks: Tasks,
        *,
        curvature: str = "hessian",
        keep: Keep = 1e-9,
        damping: float = 0.0,
        l2: float = 0.0,
        strict: bool = False,
        store: str | Path | None = None,
        processes: Processes = 1,
        buffer: int | None = None,
        compress: int | None = None,
    ) -> None:
        require_choice("curvature", curvature, CURVATURES)
        require_nonnegative("l2", l2)
        require_nonnegative("damping", damping)
        require_keep(keep)
        self.learner, self.w = require_objective(learner), learner.require_w(w)
        self.curvature, self.keep = curvature, keep
        learner.require_tasks(tasks)
        sizes = require_sizes(curvature, buffer, compress, tasks)
        require_processes(curvature, processes)
        self.group: Int[Tensor, " M"] = tasks.group
        self.store = None
        if store is not None:
            self.store = Store(store, _fingerprint(learner, w, tasks, curvature, l2, damping, **sizes))
        gradients = self._cached("gradients", lambda: learner.gradients(w, tasks))
        self.gradient_norm = float((gradients.mean(0) + l2 * w).norm())
        self._check_stationarity(gradients, strict)
        self._check_augmentation(learner, tasks)
        options = {"l2": l2, "damping": damping, "processes": processes, "store": self.store, **sizes}
        if self.store is not None:
            del gradients  # not held beside the curvature's rows
        spectrum = task_spectrum(learner, w, tasks, curvature, **options)
        gradients = gradients if self.store is None else self.store.load("gradients", w.device)["value"]
        self._set_spectrum(spectrum, gradients)
        if self.store is not None and "influence" not in self.store:  # a finished store may be read-only
            self.store.save("influence", {"w": w, "group": self.group, "norm": torch.tensor(self.gradient_norm)})

    def _check_stationarity(self, gradients: Float[Tensor, "M q"], strict: bool) -> None:
        size = float(gradients.norm(dim=1).mean())
        if self.gradient_norm <= STATIONARY * size:
            return
        finding = (
            f"the learner is not at a minimum: |gradient| = {self.gradient_norm:.1e}, a single task's is {size:.1e}. "
            "Influence then says how a Newton step would move, not where retraining ends"
        )
        if strict:
            raise ValueError(f"{finding}; train longer, use xl.meta.minimise, or pass strict=False.")
        warn_caller(f"{finding}.", NotAtMinimumWarning)

    def _check_augmentation(self, learner: Learner, tasks: Tasks) -> None:
        name = learner.augmentation_of(self.w, tasks)
        if name is not None:
            warn_caller(
                f"w was trained on tasks that {name} changed in every batch, and these are the tasks without it: the "
                "influence explains another objective. Pass augmented copies (xl.datasets.turned_copies, or rotate), "
                "and groups=tasks.group to performance.",
                NotAtMinimumWarning,
            )

    def _set_spectrum(self, spectrum: Spectrum, gradients: Float[Tensor, "M q"]) -> None:
        """Set the spectrum and what every choice of ``keep`` shares."""
        self.spectrum, self._gradients = spectrum, gradients
        self._coordinates = spectrum.coordinates(gradients)
        self.eigenvalues = spectrum.values.flip(0)
        largest = float(self.eigenvalues.abs().max())
        self.negative = NegativeCount(
            int((self.eigenvalues < 0).sum()), int((self.eigenvalues < -ROUNDING * largest).sum())
        )
        self.kept = spectrum.rank(self.keep)
        unmet = spectrum.unmet(self.keep)
        if unmet is not None:
            warn_caller(unmet, SolverWarning)
        self.rank, self.captured = len(spectrum.values), spectrum.captured
        self._meta: Float[Tensor, "M q"] | None = None

    @property
    def gradients(self) -> Float[Tensor, "M q"]:
        """The gradients of the training tasks' losses."""
        return self._gradients

    @property
    def meta(self) -> Float[Tensor, "M q"]:
        """I_meta, the derivative of the minimum in the weight of each training task; computed when first read."""
        if self._meta is None:
            self._meta = -self.spectrum.solve(self._gradients, self._coordinates, self.keep)
        return self._meta

    def pruned(self, keep: Keep) -> TaskInfluence:
        """Return the same influence with another choice of eigenvalues; only products are computed again."""
        other = object.__new__(TaskInfluence)
        other.__dict__.update(self.__dict__)
        other.keep = require_keep(keep)
        other._set_spectrum(self.spectrum, self._gradients)
        return other

    @classmethod
    def stored(cls, learner: Learner, store: str | Path, *, keep: Keep = 1e-9) -> TaskInfluence:
        """Return the influence saved in a store; it scores new tasks without the training data.

        Raises:
            ValueError: a folder without a finished influence, or one of another learner.
        """
        require_learner(learner)
        if not (Path(store) / FINGERPRINT).is_file():
            raise ValueError(f"store={str(store)!r} holds no influence; pass the folder a TaskInfluence was made with.")
        folder = Store.open(store)
        saved_from = folder.fingerprint
        if saved_from.get("what") != "TaskInfluence":
            raise ValueError(
                f"store={str(store)!r} holds {saved_from.get('what')!r}, no influence; pass a TaskInfluence's."
            )
        if "influence" not in folder:
            raise ValueError(f"store={str(store)!r} is not finished; make its TaskInfluence again to resume it.")
        saved = folder.load("influence", learner.w0.device)
        expected = learner_entries(learner, learner.require_w(saved["w"]), saved_from[SHAPE])
        differing = [
            *differences({key: saved_from.get(key) for key in expected if key != "model"}, {**expected, "model": None})
        ]
        if differing:
            raise ValueError(
                f"store={str(store)!r} belongs to another learner ({'; '.join(differing)}); "
                "build the learner as it was trained."
            )
        self = object.__new__(cls)
        self.learner, self.curvature, self.keep, self.store = (
            learner,
            saved_from["curvature"],
            require_keep(keep),
            folder,
        )
        self.w, self.group, self.gradient_norm = saved["w"], saved["group"], float(saved["norm"])
        self._set_spectrum(
            Spectrum.load(folder, learner.w0.device), folder.load("gradients", learner.w0.device)["value"]
        )
        return self

    @compute.entry
    def adaptation(
        self,
        test_tasks: Tasks,
        *,
        training: Sequence[int] | Int[Tensor, " m"] | None = None,
        out: str | Path | None = None,
    ) -> Float[Tensor, "T m P"]:
        """Return I_adpt: the derivative of each test task's adapted parameters in the weight of each training task.

        Args:
            test_tasks: T tasks that the learner can read.
            training: indices of m training tasks; None is all.
            out: a file for the numbers (numpy's format), for more of them than memory has; the result is mapped to it.

        Raises:
            ValueError: an index outside the training tasks, or numbers that fit neither in memory nor in ``out``.

        Source: TLXML, eq. (6).
        """
        self.learner.require_derivatives(self.learner.require_tasks(test_tasks), GRADIENT, FORWARD_HESSIAN)
        m = len(self._gradients)
        chosen = torch.arange(m) if training is None else require_indices(training, m, name="training", of="tasks")
        return adaptation_table(self.learner, self.w, test_tasks, chosen, self._meta_rows, out)

    def _meta_rows(self, chosen: Int[Tensor, " m"]) -> Float[Tensor, "m q"]:
        if self._meta is not None:
            return self._meta[chosen]
        return -self.spectrum.solve(self._gradients[chosen], self._coordinates[chosen], self.keep)

    @compute.entry
    def performance(
        self, test_tasks: Tasks, *, groups: Sequence[Sequence[int]] | Int[Tensor, " M"] | None = None
    ) -> Float[Tensor, "T M_or_G"]:
        """Return I_perf: the derivative of each test task's loss in the weight of each training task; < 0 is helpful.

        Args:
            test_tasks: T tasks that the learner can read.
            groups: None gives one column a training task. A list of index lists, or a LongTensor [M] of group numbers
                (such as ``tasks.group``: copies share their original's number), gives one column a group: the sum over
                its members, in the order of the list or of the numbers.

        Raises:
            ValueError: an index outside the training tasks, or numbers of another length.

        Source: TLXML, eqs (7) and (9).
        """
        self.learner.require_tasks(test_tasks)
        members = None if groups is None else membership(groups, len(self._gradients)).to(self.w)
        parts = []
        for rows in slices(len(test_tasks), GRADIENT_NUMBERS // self.w.numel()):  # bounded memory
            tests = self.learner.gradients(self.w, test_tasks[rows])
            coordinates = self.spectrum.coordinates(tests)
            table = -self.spectrum.products(tests, coordinates, self._gradients, self._coordinates, self.keep)
            parts.append(table if members is None else table @ members)
        return torch.cat(parts)

    def __repr__(self) -> str:
        """Return one line: sizes, eigenvalues, gradient norm."""
        return (
            f"TaskInfluence(M={len(self._gradients)}, q={self.w.numel()}, {self.curvature}, {self.kept} eigenvalues "
            f"inverted, {self.negative.plain} negative ({self.negative.certain} beyond rounding), |gradient| "
            f"{self.gradient_norm:.1e})"
        )

    def _cached(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        if self.store is None:
            return make().contiguous()  # as a store gives it back: products round by the layout
        return self.store.cached(name, lambda: {"value": make()}, self.w.device)["value"]


def _fingerprint(
    learner: Learner, w: Tensor, tasks: Tasks, curvature: str, l2: float, damping: float, **sizes: int | None
) -> dict[str, object]:
    options = {"what": "TaskInfluence", "curvature": curvature, "l2": l2, "damping": damping, **sizes}
    return learner_fingerprint(learner, w, tasks, {"group": tasks.group}, options)
