"""The settings of the study of removed tasks: three scales of the same code."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Learning:
    """How the learners of one kind are trained, and what is removed.

    Attributes:
        network: "small" (two layers on the picture's spectrum, exact Hessian; tanh and no BatchNorm, so that there is a
            minimum to come to rest at) or "cnn" (the paper's convolutional network, Gauss-Newton).
        seeds: each draws tasks, groups, first weights and batches anew.
        tasks: M, training tasks.
        tests: unseen tasks.
        batches: meta-batches of training.
        batch_size: tasks in each, fewer than M, so that another order of the batches is another training.
        inner_lr: MAML's.
        lr: Adam's.
        l2: ridge of every objective, > 0. (Weights before a BatchNorm have no minimum even so: the loss does not
            depend on their length, and the ridge makes them shorter.)
        rest_steps: of L-BFGS from the trained parameters to near rest, and from there without each group.
        sizes: of the groups that are removed.
        groups: of each size.
        width: hidden units of the small network, filters of each convolution.
    """

    network: str
    seeds: tuple[int, ...] = (0,)
    tasks: int = 16
    tests: int = 16
    batches: int = 30
    batch_size: int = 8
    inner_lr: float = 0.1
    lr: float = 1e-3
    l2: float = 1e-2
    rest_steps: int = 30
    sizes: tuple[int, ...] = (1, 4)
    groups: int = 4
    width: int = 8

    @property
    def middle_size(self) -> int:
        """The size at which methods are compared."""
        return self.sizes[len(self.sizes) // 2]


@dataclass(frozen=True)
class Config:
    """What one run does.

    Attributes:
        data: "glyphs" (embedded) or "omniglot".
        learnings: the kinds of learners.
    """

    data: str = "glyphs"
    learnings: tuple[Learning, ...] = ()


SMALL = {
    "quick": Learning("small"),
    "cpu": Learning(
        "small", tuple(range(8)), 64, 64, 1000, 16, 0.5, rest_steps=1000, sizes=(1, 4, 16), groups=12, width=16
    ),
}
SMALL["paper"] = replace(SMALL["cpu"], tasks=128, sizes=(1, 4, 16, 64), groups=32)
CNN = {
    "quick": Learning("cnn", tasks=8, tests=4, batches=6, batch_size=4, rest_steps=5, groups=3, width=4),
    "cpu": Learning("cnn", (0, 1, 2), 32, 32, 80, 16, lr=3e-3, l2=1e-3, rest_steps=30, sizes=(1, 4, 12), groups=4),
}
LEARNINGS = {"small": SMALL, "cnn": CNN}
CNN["paper"] = replace(CNN["cpu"], tasks=1024, batches=20_000, lr=1e-3, sizes=(1, 16, 256), groups=32, width=64)


def config(scale: str, data: str | None, *, network: str = "small") -> Config:
    """Return the settings of a scale: "quick" takes a minute, "cpu" up to an hour on two cores, "paper" its sizes.

    Args:
        scale: "quick", "cpu" or "paper".
        data: "glyphs" (None) or "omniglot".
        network: "small" or "cnn".

    Raises:
        ValueError: another class pool.
    """
    data = data or "glyphs"
    if data not in ("glyphs", "omniglot"):
        raise ValueError(f"the study of removed tasks runs on glyphs, omniglot; got data={data!r}.")
    return Config(data, (LEARNINGS[network][scale],))
