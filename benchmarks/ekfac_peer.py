"""``python -m benchmarks.ekfac_peer``: EK-FAC against kronfluence (which has to be installed) on one model and data.

Both sides flush denormals, use one thread, draw one label an example, and damp alike; fitting and scoring are timed
together. Their agreement is printed beside the ratio, and so is what another draw of labels changes by itself.
"""

from __future__ import annotations

import sys
import tempfile

import torch
from kronfluence.analyzer import Analyzer, prepare_model
from kronfluence.arguments import FactorArguments, ScoreArguments
from kronfluence.task import Task
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate
from torch.utils.data import TensorDataset

import explainlib as xl
from benchmarks.timing import Row, compare, table
from explainlib import compute
from explainlib.curvature.ekfac import Ekfac
from explainlib.datasets import Examples

TRAIN, TEST, RUNS, DAMPING = 1000, 100, 3, 1e-3


class Classes(Task):
    """What kronfluence has to be told: the loss, with labels of the data or drawn from the model."""

    def compute_train_loss(self, batch: tuple[Tensor, Tensor], model: nn.Module, sample: bool = False) -> Tensor:
        """Return the sum of the losses."""
        outputs, y = model(batch[0]), batch[1]
        if sample:
            y = torch.multinomial(outputs.detach().softmax(1), 1)[:, 0]
        return cross_entropy(outputs, y, reduction="sum")

    def compute_measurement(self, batch: tuple[Tensor, Tensor], model: nn.Module) -> Tensor:
        """Return the sum of the test losses."""
        return self.compute_train_loss(batch, model)


def problem() -> tuple[nn.Module, Examples, Examples]:
    """Return a trained 93,962-parameter network, and digits scaled up to 28 x 28."""
    digits = xl.datasets.load("digits")

    def scaled(part: Examples, count: int) -> Examples:
        return Examples(interpolate(part.x[:count].view(-1, 1, 8, 8), size=28, mode="bilinear"), part.y[:count])

    train, test = scaled(digits.train, TRAIN), scaled(digits.test, TEST)
    trained = xl.training.fit(xl.models.cnn3(1, 10, dtype=torch.float32), train, epochs=5, batch_size=50)
    return trained.model, train, test


def peer(model: nn.Module, train: Examples, test: Examples, folder: str) -> Tensor:
    """Return kronfluence's scores [t, n]; its factors and scores pass through files, as it is made."""
    data, queries = TensorDataset(train.x, train.y), TensorDataset(test.x, test.y)
    analyzer = Analyzer("ekfac", model, Classes(), output_dir=folder, disable_tqdm=True, cpu=True)
    arguments = FactorArguments(strategy="ekfac")
    analyzer.fit_all_factors("f", data, per_device_batch_size=100, factor_args=arguments, overwrite_output_dir=True)
    analyzer.compute_pairwise_scores(
        "s", "f", queries, data, per_device_query_batch_size=TEST, per_device_train_batch_size=100,
        score_args=ScoreArguments(damping_factor=DAMPING), overwrite_output_dir=True,
    )  # fmt: skip
    return analyzer.load_pairwise_scores("s")["all_modules"]


def rows() -> list[Row]:
    """Return the ratio with drawn labels, as the peer has them, and with the exact expectation over labels."""
    model, train, test = problem()
    risk = xl.Risk(model, train)
    theirs_model = prepare_model(risk.model, Classes())
    scores = {
        labels: (lambda labels=labels, seed=0: _ours(risk, test, labels, seed)) for labels in ("sampled", "exact")
    }
    with tempfile.TemporaryDirectory() as folder:
        theirs = lambda: peer(theirs_model, train, test, folder)  # noqa: E731
        want, own = theirs(), scores["exact"]()
        noise = _pearson(scores["sampled"](), scores["sampled"](seed=1))
        print(f"two draws of our own labels agree to Pearson {noise:.4f}")
        found = []
        for labels, bar in (("sampled", 1.5), ("exact", 1.0)):
            agreement = _pearson(scores[labels](), want)
            what = f"kronfluence EK-FAC, {labels} labels (Pearson {agreement:.4f})"
            row = compare(what, scores[labels], theirs, bar=bar, runs=RUNS)
            found.append(row._replace(held=row.held and agreement >= 0.98))
        print(f"kronfluence agrees with our exact expectation to Pearson {_pearson(own, want):.4f}")
    return found


def _ours(risk: xl.Risk, test: Examples, labels: str, seed: int) -> Tensor:
    """Return minus the influence: kronfluence's sign."""
    fitted = Ekfac(risk, labels=labels, seed=seed)
    return -xl.influence.loss_influence(risk, test, curvature=fitted, damping=DAMPING)


def _pearson(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]).double())[0, 1])


if __name__ == "__main__":
    torch.set_num_threads(1)
    with compute.settings():
        print(table(rows()))
    sys.exit(0)
