"""Case deletion: the explained output after retraining without the lowest- or highest-scored examples.

    DEL(x, k) = f_c(x; trained without the k lowest-scored examples of x) - f_c(x; trained on all),
    AUC = mean of DEL(x, k) over k = .02 i n, i = 0 ... 5.

Scores have the sign of representers: positive raises the explained output. Then DEL- (the most negative go)
should rise, DEL+ (the most positive go) should fall, and a random order should do neither.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from explainlib.checks import require_choice, require_count, require_shape
from explainlib.datasets import Examples
from explainlib.metrics.seeds import require_float_table
from explainlib.metrics.ties import levels
from explainlib.retraining import leave_out
from explainlib.risk import Risk
from explainlib.training import MinimiseError, Plateau
from explainlib.training.minima import report

DELETION_SHARES = (0.0, 0.02, 0.04, 0.06, 0.08, 0.10)
SIGNS = ("negative", "positive")
Groups = Sequence[Sequence[Sequence[int] | Tensor]]  # for each test, for each share, the examples to remove
Truth = Tensor | Callable[[Groups], Tensor]  # changes [t, k], or a function that returns them


def deletion_counts(n: int, shares: Sequence[float] = DELETION_SHARES) -> tuple[int, ...]:
    """Return how many of n training examples each share removes, rounded to whole ones.

    Raises:
        ValueError: shares that are not rising numbers from 0 to below 1, or so fine that two remove equally many.

    Example:
        >>> deletion_counts(1000)
        (0, 20, 40, 60, 80, 100)
    """
    require_count("n", n)
    shares = [float(share) for share in shares]
    if not shares or not all(0 <= share < 1 for share in shares):
        raise ValueError(f"shares={shares} have to be numbers from 0 to below 1, at least one of them.")
    if any(low >= high for low, high in zip(shares, shares[1:], strict=False)):
        raise ValueError(f"shares={shares} have to rise; sort them and name each once.")
    counts = tuple(round(share * n) for share in shares)
    if len(set(counts)) < len(counts) or counts[-1] == 0:
        raise ValueError(
            f"shares={shares} of {n} examples remove {list(counts)}; pass coarser shares or more examples."
        )
    if counts[-1] >= n:
        raise ValueError(f"a share of {shares[-1]} removes all {n} examples; leave at least one to train on.")
    return counts


def deletion_groups(
    scores: Float[Tensor, "t n"], *, shares: Sequence[float] = DELETION_SHARES, sign: str = "negative"
) -> list[list[Int[Tensor, " _"]]]:
    """Return the training examples to remove, for each test and each share; the sets of one test are nested.

    Args:
        scores: [test, training example], positive raises the explained output. ``representer_scores`` have this sign;
            ``loss_influence`` and ``tracin`` speak of the loss, so pass their negative.
        shares: of the training set, rising; a share of 0 gives an empty group.
        sign: "negative" takes the lowest scores first (DEL-), "positive" the highest (DEL+), regardless of their
            sign. Of scores that are equal up to rounding the earlier example goes first.

    Raises:
        ValueError: NaN, a test whose scores are all equal up to rounding (nothing to order), or shares that do not fit.

    Example:
        >>> [group.tolist() for group in deletion_groups(torch.tensor([[3.0, -2.0, 0.0]]), shares=(0.0, 0.34, 0.67))[0]]
        [[], [1], [1, 2]]
    """
    require_choice("sign", sign, SIGNS)
    require_float_table("scores", scores)
    counts = deletion_counts(scores.shape[1], shares)
    steps = levels(scores)
    flat = steps.amax(1) == 0
    if flat.any():
        raise ValueError(
            f"the scores of test {int(flat.nonzero()[0])} are all equal, so there is no order to delete by; "
            "leave that test out."
        )
    order = steps.argsort(dim=1, descending=sign == "positive", stable=True)
    return [[row[:count] for count in counts] for row in order]


def deletion_curve(
    scores: Float[Tensor, "t n"],
    truth: Truth,
    *,
    shares: Sequence[float] = DELETION_SHARES,
    sign: str = "negative",
) -> Float[Tensor, "t k"]:
    """Return DEL for each test and share, in the explained output's unit: after the removal minus before.

    Args:
        scores: [test, training example], positive raises the explained output.
        truth: a function that returns the changes [t, k] of ``deletion_groups(scores, ...)``, for instance
            ``functools.partial(retrained_changes, risk, test, epochs=300)``; or those changes, already found.
        shares: as in ``deletion_groups``.
        sign: "negative" (DEL-, a good score rises) or "positive" (DEL+, a good score falls).

    Returns:
        [t, k]; its mean over tests is the curve that papers draw.

    Raises:
        ValueError: a truth of another shape or with NaN, or as ``deletion_groups``.

    Source: Tsai et al. 2023, section 6.1.
    """
    groups = deletion_groups(scores, shares=shares, sign=sign)
    changes = truth(groups) if callable(truth) else truth
    require_float_table("the changes", changes)
    meaning = "(a row per test of the scores, a column per share)"
    return require_shape("the changes", changes, [len(groups), len(groups[0])], meaning=meaning)


def deletion_auc(
    scores: Float[Tensor, "t n"],
    truth: Truth,
    *,
    shares: Sequence[float] = DELETION_SHARES,
    sign: str = "negative",
) -> Float[Tensor, " t"]:
    """Return the area under each test's deletion curve: the mean of DEL over the shares.

    With the default shares these are 6 terms, and the first is 0 because nothing is removed. The paper lists i = 0
    to 5 but sums from i = 1; without the zero term all areas would be 6/5 of these.

    Args:
        scores: [test, training example], positive raises the explained output.
        truth: as in ``deletion_curve``.
        shares: as in ``deletion_groups``.
        sign: "negative": larger is better (AUC-DEL-). "positive": smaller is better.

    Returns:
        [t], in the explained output's unit.

    Raises:
        ValueError: as ``deletion_curve``.

    Source: Tsai et al. 2023, section 6.1.

    Example:
        >>> changes = torch.tensor([[0.0, 1.0, 2.0, 3.0, 3.0, 3.0]])
        >>> deletion_auc(torch.arange(100.0)[None], changes)
        tensor([2.])
    """
    return deletion_curve(scores, truth, shares=shares, sign=sign).mean(1)


def retrained_changes(
    risk: Risk,
    test: Examples,
    groups: Groups,
    *,
    output: int | Sequence[int] | Int[Tensor, " t"] | None = None,
    method: str = "scratch",
    weighting: str = "preserve",
    epochs: int | None = None,
    lr: float | None = None,
    optimizer: str | None = None,
    schedule: Plateau | None = None,
    seed: int | None = None,
    store: str | Path | None = None,
) -> Float[Tensor, "t k"]:
    """Return the change of each test's output on removal of its groups, all groups of all tests in one retraining.

    Args:
        risk: as ``retraining.leave_out`` takes it; "scratch" uses its objective only, so the scores have to be those
            of the network that ``seed``, ``epochs``, ``lr`` and ``optimizer`` give (``training.fit`` in full batches
            on a model built from that seed is that network).
        test: t examples.
        groups: [t][k] lists of training examples, from ``deletion_groups``; an empty one changes nothing.
        output: the explained output of every test, or one per test; None takes each test's label, or the only output.
        method: "scratch", "finetune" or "newton". "finetune" on a risk that is not at a minimum also counts what more
            training does by itself, the same for every score.
        weighting: "preserve" or "plain".
        epochs: of "scratch" and "finetune", which need it.
        lr: theirs, 1e-3 if not given.
        optimizer: theirs, "adam" if not given.
        schedule: theirs.
        seed: of "scratch", 0 if not given.
        store: a folder from which an interrupted call resumes.

    Returns:
        [t, k], positive: the output (for classes the logit) is higher without the group.

    Raises:
        TypeError: one list of indices per test instead of a list of them.
        ValueError: groups for another number of tests, of unequal numbers, or all empty; an output outside the model's;
            what ``leave_out`` refuses.
        RetrainingError: a network overflowed.
        MinimiseError: "newton" did not converge.

    Cost: each different group is retrained once.
    """
    test = risk.require_examples(test, "test")
    keys = _keys(groups, len(test))
    chosen = _target_outputs(risk, test, output)
    if method != "scratch" and seed is not None:
        raise ValueError(f"method={method!r} starts from the risk's own parameters and takes no seed; drop it.")
    places: dict[tuple[int, ...], int] = {}
    for key in (key for row in keys for key in row if key):
        places.setdefault(key, len(places))
    if not places:
        raise ValueError("every group is empty, so nothing changes; pass shares above 0.")
    options = {"epochs": epochs, "lr": lr, "optimizer": optimizer, "schedule": schedule, "store": store}
    options |= {"method": method, "weighting": weighting, "seeds": None if seed is None else [seed]}
    try:
        after = leave_out(risk, [list(key) for key in places], **options)
    except MinimiseError as error:
        report(error.minima, "raise", ())  # the same sentence without leave_out's tolerance
    rows = torch.arange(len(test), device=chosen.device)
    found = after.outputs(test)[:, rows, chosen] - after.risk.outputs(test)[rows, chosen]  # [different groups, t]
    changes = found.new_zeros(len(keys), len(keys[0]))
    for i, row in enumerate(keys):
        for j, key in enumerate(row):
            if key:
                changes[i, j] = found[places[key], i]
    return changes


def _keys(groups: Sequence[Sequence[object]], tests: int) -> list[list[tuple[int, ...]]]:
    """Return each group as a sorted tuple, so that equal ones are merged; every test needs as many as the first."""
    keys = [[_key(group, i) for group in row] for i, row in enumerate(groups)]
    if len(keys) != tests:
        raise ValueError(f"groups are for {len(keys)} tests, test holds {tests}; pass one list of groups per test.")
    ragged = [i for i, row in enumerate(keys) if len(row) != len(keys[0]) or not row]
    if ragged:
        raise ValueError(
            f"test {ragged[0]} has {len(keys[ragged[0]])} groups, test 0 {len(keys[0])}; use equal shares."
        )
    return keys


def _key(group: object, test: int) -> tuple[int, ...]:
    indices = torch.as_tensor(group)
    if indices.ndim != 1:
        raise TypeError(f"the groups of test {test} hold {group!r}, not a list of indices; pass [[i], [i, j], ...].")
    return tuple(sorted(indices.tolist()))


def _target_outputs(risk: Risk, test: Examples, output: object) -> Int[Tensor, " t"]:
    outputs = risk.n_outputs
    if output is None:
        if outputs == 1:
            return torch.zeros(len(test), dtype=torch.int64, device=test.x.device)
        if test.y.is_floating_point():
            raise ValueError(f"the tests have no class labels to explain; pass output=, one of 0 to {outputs - 1}.")
        return test.y
    chosen = torch.as_tensor(output, device=test.x.device)
    chosen = chosen.expand(len(test)) if chosen.ndim == 0 else chosen
    require_shape("output", chosen, [len(test)], meaning="(one for all tests, or one per test)")
    if chosen.is_floating_point() or chosen.dtype == torch.bool or bool(((chosen < 0) | (chosen >= outputs)).any()):
        raise ValueError(f"output={output!r} has to hold whole numbers from 0 to {outputs - 1}.")
    return chosen.long()
