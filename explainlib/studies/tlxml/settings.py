"""The settings of the TLXML study: three scales of the same code."""

from __future__ import annotations

from dataclasses import dataclass, replace

from explainlib.studies.tlxml.mixtures import Mixture, Training


@dataclass(frozen=True)
class Config:
    """What one run does; the scales differ in nothing else.

    Attributes:
        data: "glyphs" (embedded), "omniglot" or "cifar10".
        tasks: M, training tasks, and as many of each kind of test.
        batches: meta-batches of 32 tasks.
        inner_lr: MAML's.
        lr: Adam's.
        seeds: each draws tasks, first weights and batches anew.
        counts: how many eigenvalues are kept, and how long the Gauss-Newton buffer is.
        levels: of darkness and of the dark share, equally spaced.
        script_tasks: training tasks of each script in the removal of scripts.
        script_batches: meta-batches there, with all and without each script; 0 leaves the part out.
        task_numbers: training tasks of the comparison of exact and Gauss-Newton scores.
        mixtures: networks on normal and noise tasks.
        mixture_seeds: of each.
        mixture_training: what they share.
        words: visual words that describe a picture to the small network; 0 takes its spectrum.
    """

    data: str = "glyphs"
    tasks: int = 32
    batches: int = 100
    inner_lr: float = 0.1
    lr: float = 1e-3
    seeds: tuple[int, ...] = (0,)
    counts: tuple[int, ...] = (512, 64)
    levels: int = 5
    script_tasks: int = 3
    script_batches: int = 60
    task_numbers: tuple[int, ...] = (16, 32)
    mixtures: tuple[Mixture, ...] = ()
    mixture_seeds: tuple[int, ...] = (0,)
    mixture_training: Training = Training()
    words: int = 0


def _mixtures(sizes: tuple[int, ...], copies: tuple[int, ...], decays: tuple[float, ...], *, regularised: int):
    """Return the networks of a scale, one noise task to seven normal ones: numbers of tasks, turned copies, decay.

    Copies and decay are tried at ``regularised`` normal tasks, few enough for the learner as it is to overfit.
    """

    def one(normal: int, **options: object) -> Mixture:
        return Mixture(normal=normal, noise=normal // 7, **options)

    numbers = [one(size, learner=learner) for learner in ("maml", "protonet") for size in sizes]
    return (
        *numbers,
        *(one(regularised, copies=c) for c in copies),
        *(one(regularised, weight_decay=d) for d in decays),
    )


WORDS = 32  # TLXML, section 5.1
COUNTS = (1200, 1000, 800, 512, 256, 128, 64, 32, 16)


def config(scale: str, data: str | None) -> Config:
    """Return the settings of a scale: "quick" takes a minute, "cpu" two hours on two cores, "paper" is as printed.

    Raises:
        ValueError: another class pool.
    """
    data = data or "glyphs"
    if data not in ("glyphs", "omniglot", "cifar10"):
        raise ValueError(f"the TLXML study runs on glyphs, omniglot, cifar10; got data={data!r}.")
    found = _config(scale, data)
    if data == "cifar10":  # photographs without superclasses: bags of visual words, and no scripts to remove
        return replace(found, words=WORDS, script_batches=0)
    return found


def _config(scale: str, data: str) -> Config:
    if scale == "quick":
        mixtures = _mixtures((7, 14), (2,), (1e-3,), regularised=14)
        return Config(data, mixtures=mixtures, mixture_training=Training(4, 15, buffer=32, compress=8, tests=8))
    numbers, common = (8, 16, 32, 64, 128), {"counts": COUNTS, "levels": 11, "script_tasks": 12, "script_batches": 1000}
    if scale == "cpu":
        mixtures = _mixtures((28, 112, 224), (2, 8), (1e-3, 1e-2), regularised=28)
        return Config(
            data,
            128,
            1000,
            seeds=(0, 1, 2),
            task_numbers=numbers,
            mixtures=mixtures,
            mixture_seeds=(0, 1, 2, 3),
            mixture_training=Training(),
            **common,
        )
    mixtures = _mixtures((112, 224, 448, 896), (2, 4, 6, 8, 10, 12, 14, 16), (1e-5, 1e-4, 5e-4, 1e-3), regularised=896)
    return Config(
        data,
        128,
        1000,
        seeds=tuple(range(10)),
        task_numbers=numbers,
        mixtures=mixtures,
        mixture_seeds=tuple(range(10)),
        mixture_training=Training(64, 20_000, lr=1e-3, buffer=1024, compress=32, tests=128),
        **common,
    )
