"""The oracle itself: left-out minima against closed forms and against the problem rebuilt from the data that remain."""

import pytest
import torch

import explainlib as xl
from explainlib.retraining import Retrained, RetrainingError, RetrainingWarning
from explainlib.training import MinimiseError, ensembles, fresh_starts
from tests.defaults import number_defaults
from tests.interrupted import Interrupted
from tests.problems import classes, general, logistic_risk, network_risk, ridge_risk

leave_out = xl.retraining.leave_out


@pytest.mark.parametrize("weighting", ["plain", "preserve"])
@pytest.mark.parametrize("o", [1, 2])
def test_ridge_leave_one_out_is_sherman_morrison(weighting, o):
    """H = 2/n X^T X + l2 I, r = X theta - y, c = 2/n. Without i: (A - c x x^T) delta = c x r + s theta, with

    plain:     A = H,             s = 0
    preserve:  A = H - l2/n I,    s = l2/n     (times (n-1)/n the mean over the rest is 1/n, its ridge l2 (n-1)/n)
    """
    risk = ridge_risk(o=o)
    n, c = risk.n, 2 / risk.n
    x = torch.cat([risk.train.x, torch.ones(n, 1).double()], 1)
    theta = risk.head.matrix(risk.theta).T  # [d + 1, o]
    eye = torch.eye(x.shape[1]).double()
    s = 0.0 if weighting == "plain" else risk.l2 / n
    a = c * x.T @ x + (risk.l2 - s) * eye
    residual = x @ theta - risk.train.y
    got = leave_out(risk, [[i] for i in range(n)], weighting=weighting, tolerance=1e-13)
    for i in range(n):
        right = c * torch.outer(x[i], residual[i]) + s * theta
        u, v = torch.linalg.solve(a, x[i]), torch.linalg.solve(a, right)
        delta = v + c * torch.outer(u, x[i] @ v) / (1 - c * x[i] @ u)
        assert (risk.head.matrix(got.theta[i]).T - theta - delta).abs().max() < 1e-10


@pytest.mark.parametrize("make", [logistic_risk, lambda: general(logistic_risk())], ids=["head", "general"])
def test_preserve_is_training_on_what_remains(make):
    risk, group = make(), [0, 5, 11]
    rest = [i for i in range(risk.n) if i not in group]
    alone = xl.training.minimise(risk.subset(rest), tolerance=1e-12)
    got = leave_out(risk, [group], tolerance=1e-12)
    assert torch.allclose(got.theta[0], alone.theta, atol=1e-9)
    plain = leave_out(risk, [group], weighting="plain", tolerance=1e-12)
    lighter = xl.Risk(alone.model, alone.train, l2=risk.l2 * risk.n / len(rest), parameters=list(risk.parameters.names))
    assert torch.allclose(plain.theta[0], xl.training.minimise(lighter, tolerance=1e-12).theta, atol=1e-9)


def test_a_network_starts_where_it_is():
    risk = xl.training.minimise(network_risk(n=40, l2=0.05), tolerance=1e-11)
    got = leave_out(risk, [[0], [1, 2]])
    assert got.gradient_norm.max() <= 1e-10 and got.change.norm(dim=1).max() < 1.0
    assert got.change.norm(dim=1).min() > 0


def test_what_it_carries():
    risk, test = logistic_risk(), classes(5, seed=3)
    got = leave_out(risk, [[0], torch.tensor([1, 2])], weighting="plain")
    assert got.theta.shape == got.change.shape == (2, risk.p) and got.weighting == "plain"
    assert got.status == ("converged", "converged") and got.loss_change(test).shape == (5, 2)
    assert torch.allclose(got.change, got.theta - risk.theta)
    want = torch.stack([risk.at(t).losses(test) - risk.losses(test) for t in got.theta], 1)
    assert torch.allclose(got.loss_change(test), want)


def test_removing_in_another_order_is_the_same_removal():
    risk = logistic_risk()
    got = leave_out(risk, [[3, 1, 2], [1, 2, 3]], tolerance=1e-12)
    assert torch.allclose(got.theta[0], got.theta[1], atol=1e-10)


def test_a_copy_leaves_and_its_twin_stays():
    """Preserve on duplicated data: taking one whole copy away changes nothing at all."""
    base = logistic_risk(20)
    twice = xl.training.minimise(xl.Risk(base.model, base.train[list(range(20)) * 2], l2=base.l2), tolerance=1e-12)
    assert leave_out(twice, [list(range(20))], tolerance=1e-12).change.abs().max() < 1e-9


def test_options_of_other_methods_and_unknown_ones():
    risk = logistic_risk(12)
    for options, message in [
        (dict(method="magic"), "method='magic'.*'newton', 'finetune', 'scratch'"),
        (dict(method="scratch"), "needs epochs"),
        (dict(method="finetune"), "needs epochs"),
        (dict(epochs=3), "method='newton' solves to its tolerance and takes no epochs"),
        (dict(lr=0.1), "takes no lr"),
        (dict(method="finetune", epochs=3, seeds=[1]), "starts from the risk's own parameters and takes no seeds"),
        (dict(method="scratch", epochs=3, seeds=[]), "at least one seed"),
        (dict(method="scratch", epochs=0), "epochs=0"),
        (dict(method="scratch", epochs=3, optimizer="lion"), "optimizer='lion'"),
        (dict(on_failure="ignore"), "on_failure='ignore'"),
    ]:
        with pytest.raises(ValueError, match=message):
            leave_out(risk, [[0]], **options)


def test_not_a_minimum_warns_and_strict_raises():
    risk = network_risk(l2=0.1)
    with pytest.warns(xl.NotAtMinimumWarning):
        leave_out(risk, [[0]])
    with pytest.raises(ValueError, match="not at a minimum"):
        leave_out(risk, [[0]], strict=True)


def test_failure_is_raised():
    """No float64 gradient is ever this small."""
    risk = logistic_risk(12)
    with pytest.raises(MinimiseError, match=r"2 of 2 problems did not converge.*\|gradient\| = "):
        leave_out(risk, [[2, 3], [0]], tolerance=1e-40)
    with pytest.warns(xl.training.MinimiseWarning):
        got = leave_out(risk, [[2, 3], [0]], tolerance=1e-40, on_failure="warn")
    assert "converged" not in got.status


GROUPS = [[0], [3, 4, 5], [7, 8]]


def trained_alone(risk, start, group, weighting, *, epochs, lr):
    """Return one network trained by hand without a group: the sum over the rest, divided as the weighting says."""
    rest = [i for i in range(risk.n) if i not in group]
    model = risk.at(start).model
    step = torch.optim.Adam(model.parameters(), lr=lr, weight_decay=risk.l2)
    for _ in range(epochs):
        step.zero_grad()
        total = torch.nn.functional.cross_entropy(model(risk.train.x[rest]), risk.train.y[rest], reduction="sum")
        (total / (risk.n if weighting == "plain" else len(rest))).backward()
        step.step()
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("weighting", ["plain", "preserve"])
def test_finetune_is_training_on_without_the_group(weighting):
    risk = xl.training.minimise(network_risk(l2=0.05), tolerance=1e-10)
    got = leave_out(risk, GROUPS, method="finetune", weighting=weighting, epochs=40, lr=1e-2)
    for g, group in enumerate(GROUPS):
        want = trained_alone(risk, risk.theta, group, weighting, epochs=40, lr=1e-2)
        assert (got.theta[g] - want).abs().max() < 1e-10
    assert torch.equal(got.change, got.theta - risk.theta) and got.seeds == () and got.by_seed == ()
    assert all(status.startswith("40 epochs done, |gradient| ") for status in got.status)


@pytest.mark.parametrize("weighting", ["plain", "preserve"])
def test_scratch_is_two_trainings_from_one_start(weighting):
    risk, test = network_risk(l2=0.01), classes(5, seed=3)
    seeds = (4, 1)
    got = leave_out(risk, GROUPS, method="scratch", weighting=weighting, epochs=60, lr=1e-2, seeds=seeds)
    assert got.seeds == seeds and len(got.by_seed) == 2
    starts = fresh_starts(risk, seeds)
    for one, start, seed in zip(got.by_seed, starts, seeds, strict=True):
        before = trained_alone(risk, start, [], weighting, epochs=60, lr=1e-2)
        assert (one.risk.theta - before).abs().max() < 1e-10 and one.seeds == (seed,)
        for g, group in enumerate(GROUPS):
            after = trained_alone(risk, start, group, weighting, epochs=60, lr=1e-2)
            assert (one.theta[g] - after).abs().max() < 1e-10
            change = risk.at(after).losses(test) - risk.at(before).losses(test)
            assert torch.allclose(one.loss_change(test)[:, g], change, atol=1e-9)
    by_seed = got.loss_change_by_seed(test)
    assert by_seed.shape == (2, 5, 3) and torch.equal(by_seed[1], got.by_seed[1].loss_change(test))
    assert torch.equal(got.loss_change(test), by_seed.mean(0))
    assert torch.allclose(got.losses(test), torch.stack([one.losses(test) for one in got.by_seed]).mean(0))
    tangent = torch.stack([one.loss_change(test, evaluate=False) for one in got.by_seed]).mean(0)
    assert torch.equal(got.loss_change(test, evaluate=False), tangent)
    first = got.by_seed[0]
    assert torch.equal(got.theta, first.theta) and torch.equal(got.change, first.change)
    alone = leave_out(risk, GROUPS, method="scratch", weighting=weighting, epochs=60, lr=1e-2, seeds=seeds[:1])
    assert torch.allclose(alone.theta, first.theta, atol=1e-12) and alone.loss_change_by_seed(test).shape == (1, 5, 3)


def test_every_change_is_a_mean_over_seeds():
    risk, test = network_risk(l2=0.01), classes(4, seed=3)
    found = leave_out(risk, GROUPS, method="scratch", epochs=10, lr=0.05, seeds=(0, 1))
    for options in (
        {"measure": "margin"},
        {"measure": "output", "output": 1},
        {"measure": "margin", "evaluate": False},
    ):
        each = torch.stack([one.measure_change(test, **options) for one in found.by_seed])
        assert torch.equal(found.measure_change(test, **options), each.mean(0)) and not torch.equal(*each)
        assert torch.equal(found.by_seed[0].measure_change(test, **options), each[0])
    assert torch.allclose(found.measure_change(test), found.loss_change(test), atol=1e-14)


def test_defaults():
    assert number_defaults(leave_out) == {"tolerance": 1e-10, "strict": False}
    for change in (Retrained.loss_change, Retrained.loss_change_by_seed):
        assert number_defaults(change) == {"evaluate": True}


def test_scratch_and_finetune_reach_newton_where_there_is_one_minimum():
    """A convex problem, trained long enough: three ways, one truth, and every status says so."""
    risk, test = logistic_risk(20, l2=0.3), classes(4, seed=3)
    want = leave_out(risk, GROUPS, weighting="plain").loss_change(test)
    for method in ("finetune", "scratch"):
        got = leave_out(risk, GROUPS, method=method, weighting="plain", epochs=400, lr=0.5, optimizer="sgd")
        assert got.status == ("converged",) * 3
        assert torch.allclose(got.loss_change(test), want, atol=1e-7)


def test_a_risk_s_own_weights_are_multiplied():
    risk = network_risk(l2=0.01).reweighted(torch.linspace(0.5, 1.5, 24).double())
    got = leave_out(risk, [[1]], method="scratch", weighting="plain", epochs=5)
    rows = risk.weights.repeat(2, 1)
    rows[1, 1] = 0
    want = xl.training.fit_risks(risk, starts=fresh_starts(risk, [0]).repeat(2, 1), weights=rows, epochs=5)
    assert torch.equal(got.risk.theta, want.theta[0]) and torch.equal(got.theta[0], want.theta[1])


def test_status_of_several_seeds_names_the_seed():
    risk = network_risk(l2=0.01)
    got = leave_out(risk, [[0]], method="scratch", epochs=2, seeds=(6, 7))
    assert got.status[0].startswith("seed 6: 2 epochs done")
    assert got.gradient_norm[0] == max(one.gradient_norm[0] for one in got.by_seed)


def test_networks_that_overflow():
    risk = xl.Risk(network_risk().model, classes(24), loss=lambda f, y: f.pow(4).exp().sum(-1))
    with pytest.raises(RetrainingError, match="networks overflowed.*lower lr") as caught:
        leave_out(risk, [[0]], method="scratch", epochs=5, lr=1e3, optimizer="sgd")
    assert "nonfinite" in caught.value.ensemble.status
    with pytest.raises(RetrainingError):  # nothing to compare with
        leave_out(risk, [[0]], method="scratch", epochs=5, lr=1e3, optimizer="sgd", on_failure="warn")
    with pytest.warns(RetrainingWarning), pytest.warns(xl.NotAtMinimumWarning):
        got = leave_out(risk, [[0]], method="finetune", epochs=5, lr=1e3, optimizer="sgd", on_failure="warn")
    assert got.status == ("nonfinite",)


def test_scratch_asks_for_no_minimum_and_leaves_the_generator(recwarn):
    risk, state = network_risk(), torch.get_rng_state()
    one = leave_out(risk, [[0]], method="scratch", epochs=5)
    torch.manual_seed(5)
    two = leave_out(risk, [[0]], method="scratch", epochs=5)
    torch.set_rng_state(state)
    assert torch.equal(one.theta, two.theta) and not [w for w in recwarn if w.category is xl.NotAtMinimumWarning]
    leave_out(risk, [[0]], method="scratch", epochs=5)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("method", ["newton", "scratch"])
def test_interrupted_retraining_goes_on_to_the_same_numbers(method, tmp_path, monkeypatch):
    import sys

    room = sys.modules["explainlib.training.minimise"] if method == "newton" else ensembles
    work = "newton_batch" if method == "newton" else "train_networks"
    monkeypatch.setattr(room, "PROBLEMS_PER_FILE" if method == "newton" else "CACHED", 2 if method == "newton" else 1)
    risk, test = logistic_risk(16), classes(4, seed=3)
    groups = [[i] for i in range(7)]
    options = dict(method=method) if method == "newton" else dict(method=method, epochs=20, lr=0.05)
    want = leave_out(risk, groups, **options, store=tmp_path / "whole")
    watched = Interrupted(getattr(room, work), 2)
    monkeypatch.setattr(room, work, watched)
    folder = tmp_path / "interrupted"
    with pytest.raises(KeyboardInterrupt):
        leave_out(risk, groups, **options, store=folder)
    assert len(list(folder.iterdir())) == 2, "the fingerprint and the first batch"
    watched.calls = 2
    got = leave_out(risk, groups, **options, store=folder)
    left, watched.calls = watched.calls - 2, 2
    assert left == len(list(folder.iterdir())) - 2
    again = leave_out(risk, groups, **options, store=folder)
    assert watched.calls == 2, "nothing was left to do"
    for one in (got, again):
        assert torch.equal(one.theta, want.theta) and one.status == want.status
        assert torch.equal(one.loss_change(test), want.loss_change(test))
        assert torch.equal(one.gradient_norm, want.gradient_norm)
    for other, differing in [
        (dict(weighting="plain"), "weights"),
        (dict(tolerance=1e-8), "tolerance") if method == "newton" else (dict(lr=0.1), "lr"),
    ]:
        with pytest.raises(ValueError, match=f"another computation: .*{differing}: got .*expected"):
            leave_out(risk, groups, **{**options, **other}, store=folder)
    changed = "scratch" if method == "newton" else "newton"
    with pytest.raises(ValueError, match="another computation: .*work"):
        leave_out(risk, groups, method=changed, **({"epochs": 20} if changed == "scratch" else {}), store=folder)
    first = min(folder.glob("*.safetensors"))
    first.write_bytes(first.read_bytes()[:-3])
    with pytest.raises(ValueError, match="damaged.*delete it"):
        leave_out(risk, groups, **options, store=folder)
    first.unlink()
    assert torch.equal(leave_out(risk, groups, **options, store=folder).theta, want.theta)


def test_store_or_none_is_the_same_truth(tmp_path):
    risk = logistic_risk(12)
    groups = [[i] for i in range(5)]
    one, other = leave_out(risk, groups, tolerance=1e-12), leave_out(risk, groups, tolerance=1e-12, store=tmp_path)
    assert torch.allclose(one.theta, other.theta, atol=1e-12)
