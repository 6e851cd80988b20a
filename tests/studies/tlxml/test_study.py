"""The TLXML study end to end at toy size."""

from __future__ import annotations

import pandas
import pytest
import torch

from explainlib.figures import alt_text
from explainlib.figures.studies import STUDY_FIGURES
from explainlib.studies.claims import VERDICTS
from explainlib.studies.runner import compute
from explainlib.studies.tlxml import Config, config, parts
from explainlib.studies.tlxml import study as tlxml
from explainlib.studies.tlxml.mixtures import Mixture, Training, noise_tenths

TOY = Config(
    tasks=8,
    batches=12,
    counts=(128, 64),
    levels=3,
    script_tasks=1,
    script_batches=2,
    task_numbers=(4, 8),
    mixtures=(
        Mixture(normal=2, noise=1),
        Mixture(normal=3, noise=1, copies=2),
        Mixture(normal=3, noise=1, weight_decay=1e-3),
        Mixture("protonet", 3, 1),
    ),
    mixture_training=Training(filters=2, batches=2, buffer=12, compress=5, tests=2),
)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy") / "partial"
    return folder, compute(tlxml, TOY, folder)[0]


def test_every_claim_has_a_row_and_a_verdict(toy):
    claims = toy[1]["claims"]
    assert claims["id"].tolist() == [f"T{i}" for i in range(1, 16)]
    assert claims["verdict"].isin(VERDICTS).all() and (claims["reason"].str.len() > 0).all()
    assert not claims[["id", "printed", "quantity", "ours", "controls", "rule"]].isna().any().any()


def test_no_method_is_dropped(toy):
    pruning = toy[1]["pruning"]
    methods = ["unpruned", "positive", "128", "64", "identity", "random projector", "cosine"]
    assert pruning["method"].tolist() == methods * 2 and set(pruning["learner"]) == {"maml", "protonet"}
    assert pruning["self_first"].between(0, 8).all()
    assert (pruning[pruning["method"] == "cosine"]["self_first"] == 8).all(), "a gradient is nearest to itself"
    assert len(toy[1]["spectrum"]) == 1413
    assert toy[1]["gaussnewton"][["self_correlation", "unseen_correlation"]].abs().le(1).all().all()
    assert toy[1]["scripts"]["pearson"].notna().all()


def test_where_noise_tasks_are_in_the_ranking(toy):
    """Of twenty tasks the last two are noise: once the most helpful ones, once one of them, once all alike."""
    scores = torch.arange(20.0).repeat(3, 1)
    scores[0, 18:], scores[1, 18], scores[2] = -1.0 * torch.tensor([2.0, 1.0]), -1.0, 0.0
    noise = torch.arange(20) >= 18
    assert noise_tenths(scores[:1], noise).tolist() == [1.0, *[0.0] * 9]
    assert noise_tenths(scores[1:2], noise).tolist() == [0.5, *[0.0] * 8, 0.5]
    assert noise_tenths(scores[2:], noise).tolist() == [0.0] * 5 + [1.0] + [0.0] * 4, "ties are in the middle"
    tenths = toy[1]["order"][[f"tenth_{k}" for k in range(1, 11)]]
    assert torch.allclose(torch.tensor(tenths.sum(axis=1).to_numpy()), torch.tensor(1.0, dtype=torch.float64))


def test_a_second_run_takes_everything_from_disk(toy, monkeypatch):
    folder, tables = toy
    monkeypatch.setattr(parts, "gauss_newton_buffer", None)
    monkeypatch.setattr(parts, "leave_tasks_out", None)
    again = compute(tlxml, TOY, folder)[0]
    for name, table in tables.items():
        pandas.testing.assert_frame_equal(again[name], table)


def test_the_figure_says_what_it_shows(toy):
    assert "plain gradient products reach" in alt_text(STUDY_FIGURES["tlxml"](toy[1]))


def test_other_data_are_refused():
    with pytest.raises(ValueError, match="glyphs, omniglot, cifar10"):
        config("quick", "mnist")


def test_photographs_are_described_by_visual_words(monkeypatch, tmp_path):
    """Ten classes of blurred noise: every second is kept back, and a picture has one description wherever it is."""
    from explainlib.datasets import ClassPool
    from explainlib.studies import few_shot
    from explainlib.studies.tlxml import mixtures

    noise = torch.randn(110, 3, 12, 12, generator=torch.Generator().manual_seed(0)).sigmoid()
    x = torch.nn.functional.interpolate(noise, size=(32, 32), mode="bilinear")
    pool = ClassPool(x, torch.arange(110) // 11, [f"cifar10/{c}" for c in range(10)], ["cifar10"] * 10)
    for module in (few_shot, mixtures):
        monkeypatch.setattr(module, "class_pool", lambda name: pool)
    settings = config("cpu", "cifar10")
    assert settings.words == 32 and settings.script_batches == 0 and len(settings.mixtures) == 10
    shot = few_shot.FewShot("cifar10", 0, 4, 1, 0.1, 1e-3, tmp_path, words=8)
    assert shot.parts[0].names == tuple(f"cifar10/{c}" for c in (0, 2, 4, 6, 8)) and len(shot.parts[1].names) == 5
    assert shot.maml.q == 8 * 32 + 32 + 64 + 32 * 5 + 5 and shot.train_tasks.support_x.shape == (4, 25, 8)
    same = shot.features(shot.pool.x[[3, 7, 3]])
    assert (
        same.shape == (3, 8) and torch.equal(same[0], same[2]) and torch.allclose(same.sum(1), torch.ones(3).double())
    )
    network = mixtures.Network("cifar10", Mixture(normal=2, noise=1), Training(filters=2, tests=2), 0, tmp_path)
    assert network.learner.accuracy(network.learner.w0, network.tasks).shape == (3,)
