"""What one run of the fragility design does; all sizes are fixed here, before a run.

The unit is a network on a draw of its data: each has a split of the flowers (or digits), first parameters and batches
of its own, and intervals are over networks. Within a network, tests and removals are not independent, so a network
gives the median over its tests.
"""

from __future__ import annotations

from dataclasses import dataclass

from explainlib.studies.fragility.design.images import Images

LEAST_OVERLAP = 10  # removals whose overlap is counted
TAYLOR, GAUSSIAN, SAMPLED = "expected_cross_entropy", "gaussian", "sampled_cross_entropy"


@dataclass(frozen=True)
class Shape:
    """A perceptron, how it is trained, and how it is retrained.

    Attributes:
        activation: of all hidden layers.
        depth: hidden layers.
        width: of each.
        epochs: full-batch Adam steps, of training and of retraining from scratch.
        lr: their first rate.
        finetune: epochs of training on at the rate .001.
        whole: whether all 150 flowers are trained on and tested, as the paper's 1/n of .0066 implies; a flower's own
            removal then does not count as a test of itself.
    """

    activation: str = "tanh"
    depth: int = 1
    width: int = 5
    epochs: int = 3000
    lr: float = 0.01
    finetune: int = 500
    whole: bool = False

    @property
    def name(self) -> str:
        """In words."""
        told = f"{self.activation}, depth {self.depth}, width {self.width}"
        return f"{told}, 150 flowers, {self.epochs:,} epochs" if self.whole else told


@dataclass(frozen=True)
class Averages:
    """Networks, their un-averaged twins and their averages.

    Attributes:
        shapes: whose networks are compared.
        seeds: networks of each.
        epochs: of the average, and of its twin, which trains on just as long at the same rate.
    """

    shapes: tuple[Shape, ...]
    seeds: int
    epochs: int = 300


@dataclass(frozen=True)
class Bayes:
    """Bayesian networks by cost and weight of the divergence, beside plain ones with a ridge.

    Attributes:
        shapes: whose networks are compared.
        costs: of ``ElboRisk``.
        kl_weights: of the divergence.
        seeds: networks of each.
        draws: of the weights, for the moments.
    """

    shapes: tuple[Shape, ...]
    costs: tuple[str, ...] = (SAMPLED, GAUSSIAN, TAYLOR)
    kl_weights: tuple[float, ...] = (1.0, 0.1)
    seeds: int = 8
    draws: int = 2000


@dataclass(frozen=True)
class Groups:
    """Groups of MNIST digits, whose removal is predicted in first and second order.

    Attributes:
        case: the network.
        sizes: of the groups.
        count: groups of each size.
    """

    case: Images
    sizes: tuple[int, ...]
    count: int


@dataclass(frozen=True)
class Config:
    """What one run does; the scales differ in nothing else.

    Attributes:
        data: "iris"; the larger networks are on MNIST and CIFAR-10.
        shapes: of the factorial design.
        splits: networks of each shape: another split of the flowers and other first parameters each.
        ridges: of the training and of all truths.
        dampings: added to the curvature by the prediction alone; 0 is the pseudo-inverse.
        removed: flowers of highest loss, or most influential, that a correlation is over.
        averages: of stochastic weights.
        bayes: networks with Gaussian weights.
        images: larger networks.
        noise: networks by number of examples, for signal and noise of retraining.
        groups: removed together.
        curves: (networks, removals, epochs on Iris, epochs on MNIST) of the retraining curves.
    """

    data: str
    shapes: tuple[Shape, ...]
    splits: int
    averages: Averages
    bayes: Bayes
    images: tuple[Images, ...]
    noise: tuple[Images, ...]
    groups: Groups
    curves: tuple[int, int, int, int]
    ridges: tuple[float, ...] = (0.0, 0.005)
    dampings: tuple[float, ...] = (0.0, 0.01)
    removed: int = 40


def config(scale: str, data: str | None) -> Config:
    """Return the settings of a scale: "quick" is two minutes, "cpu" two hours of one core, "paper" the printed sizes.

    Raises:
        ValueError: other data.
    """
    if data not in (None, "iris"):
        raise ValueError(f"the fragility design runs on iris and takes the larger data itself; got data={data!r}.")
    if scale == "quick":
        tiny = Shape(epochs=300, lr=0.03, finetune=50)
        digits = Images("digits", n=100, width=16, epochs=6, removed=8, seeds=2)
        return Config(
            "iris",
            (tiny,),
            2,
            Averages((tiny,), 2, 30),
            Bayes((tiny,), seeds=2, kl_weights=(1.0,), draws=200),
            (digits,),
            (digits,),
            Groups(digits, (1, 10), 6),
            (2, 2, 20, 8),
        )
    mnist = Images("mnist", n=500, width=128, epochs=30, removed=20, seeds=10)
    bayesian = Images("mnist", "Bayesian fully connected", n=500, width=128, epochs=30, removed=20, seeds=8)
    lenet = Images("mnist", "LeNet", n=500, epochs=20, removed=20, seeds=8)
    vgg = Images("cifar10", "VGG13", n=500, width=8, epochs=20, removed=20, seeds=3, scratch=False)
    sizes = tuple(Images("mnist", n=n, width=128, epochs=30, removed=20, seeds=3, scratch=False)
                  for n in (125, 250, 500, 1000, 2000))  # fmt: skip
    relu, wide, deep = Shape("relu"), Shape("relu", width=50), Shape("relu", depth=3)
    printed = Shape("relu", epochs=60_000, lr=1e-3, finetune=7500, whole=True)
    everything = {"bayes": Bayes((relu, wide, Shape("relu", depth=5))), "noise": sizes}
    if scale == "cpu":
        return Config(
            "iris",
            (Shape(), relu, wide, deep, printed),
            6,
            Averages((relu, deep, Shape("relu", width=20), wide), 20),
            images=(mnist, bayesian, lenet, vgg),
            groups=Groups(Images("mnist", n=1000, width=128, epochs=30, removed=12, seeds=5), (1, 5, 25, 100), 12),
            curves=(10, 3, 500, 60),
            **everything,
        )
    n = {"n": 60_000, "removed": 40, "epochs": 30}
    large = (Images("mnist", width=128, **n), Images("mnist", "Bayesian fully connected", width=128, **n))
    cifar = {"width": 64} | n | {"n": 50_000}
    deepest = tuple(Shape("relu", depth=d, epochs=60_000, lr=1e-3, finetune=7500, whole=True) for d in (1, 3, 8))
    return Config(
        "iris",
        deepest,
        50,
        Averages(deepest, 50, 7500),
        images=(*large, Images("mnist", "LeNet", **n), Images("cifar10", "VGG13", **cifar),
                Images("cifar10", "Bayesian VGG13", **cifar)),
        groups=Groups(Images("mnist", width=128, **n), (1, 60, 600, 6000), 40),
        curves=(10, 40, 7500, 100),
        **everything,
    )  # fmt: skip
