"""The parts of the fragility study beside the sweep: like with like, variance, pictures, curves, and the ladder."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas
import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor, nn

from explainlib.datasets import Examples, Split, load
from explainlib.metrics import fidelity, same_spearman_pair
from explainlib.metrics.seeds import clustered_mean
from explainlib.models import mlp
from explainlib.risk import Risk
from explainlib.studies.fragility.bench import (
    SCHEDULE,
    Training,
    highest_loss_example,
    is_collapsed,
    last_layer,
    predicted_changes,
    true_changes,
)
from explainlib.studies.fragility.ladder import ladder
from explainlib.studies.place import placed
from explainlib.training import Plateau, fit, fit_ensemble, minimise

MEASURES = ("spearman_highest_loss", "spearman_most_influential", "top_eigenvalue")
LEAST = 5  # repeats behind a mean that is compared or drawn
SWEEPS = {"depth": "width", "width": "depth"}  # what grows, and what is held at its least


def like_with_like(how: Training, split: Split, activation: str, seeds: Sequence[int]) -> pandas.DataFrame:
    """Return the 2 x 2 table: influence of all or the last parameters against truths of all or the last, by seed.

    Networks of depth 1 and width 5 with a ridge. With tanh they are polished to a gradient below 1e-8, and all truths
    are minima. A ReLU network has kinks where polishing stops, so it stays as training left it, and its truth over all
    parameters is fine-tuned; its last layer alone is convex, and solved.

    Args:
        how: epochs, ridge, counts.
        split: in float64.
        activation: "tanh" or "relu".
        seeds: repeats.
    """
    network = placed(mlp([split.train.x.shape[1], 5, len(split.train.classes)], activation, dtype=torch.float64))
    options = {"epochs": how.epochs, "lr": how.lr, "schedule": SCHEDULE, "l2": how.l2}
    ensemble = fit_ensemble(network, split.train, seeds=seeds, **options)
    smooth, rows = activation == "tanh", []
    for k, seed in enumerate(seeds):
        whole = ensemble.risk.at(ensemble.theta[k])
        if smooth:
            whole = minimise(whole, tolerance=1e-9, on_failure="warn")
        row = {"activation": activation, "seed": seed, "gradient_norm": float(whole.gradient().norm())}
        row |= {"objective": float(whole.value())}
        if is_collapsed(whole):
            rows.append(row | {"status": "collapsed"})
            continue
        test, risks = highest_loss_example(whole, split.test), {"all": whole, "last": last_layer(whole)}
        damping = {"all": 0.0 if smooth else how.damping, "last": 0.0}
        predicted = {name: predicted_changes(risk, test, damping=damping[name]) for name, risk in risks.items()}
        highest, everyone = whole.losses().topk(how.removed).indices, torch.arange(whole.n)
        tuned = {"all": None if smooth else 2 * how.finetune, "last": None}
        true = {name: true_changes(risk, test, everyone, finetune=tuned[name]) for name, risk in risks.items()}
        pairs = {(f"{a} influence", f"{b} truth"): (predicted[a], true[b][0]) for a in risks for b in risks}
        pairs["last truth", "all truth"] = true["last"][0], true["all"][0]
        for (a, b), (x, y) in pairs.items():
            for over, members in (("highest loss", highest), ("all", everyone)):
                said = fidelity(x[members], y[members], resamples=1)
                numbers = {name: float(getattr(said, name)) for name in ("spearman", "pearson", "slope")}
                numbers |= {"a": a, "b": b, "over": over, "removed": len(members)}
                rows.append({**row, **numbers, "unsolved": true[b.split()[0]][1], "status": "compared"})
    return pandas.DataFrame(rows)


def two_by_two(rows: pandas.DataFrame) -> pandas.DataFrame:
    """Return the medians of ``like_with_like`` over the seeds, and how many different minima the seeds reached."""
    found = []
    keys = ["activation", "a", "b", "over"]
    for names, part in rows[rows["status"] == "compared"].groupby(keys, sort=False):
        row = dict(zip(keys, names, strict=True)) | {"seeds": len(part)}
        row |= {"minima": part["objective"].round(7).nunique(), "gradient_norm": part["gradient_norm"].max()}
        for name in ("spearman", "pearson", "slope"):
            row[name] = part[name].median()
        quartiles = part["spearman"].quantile([0.25, 0.75])
        found.append(row | {"spearman_25": quartiles.iloc[0], "spearman_75": quartiles.iloc[1]})
    return pandas.DataFrame(found)


def sweep(repeats: pandas.DataFrame, grows: str) -> pandas.DataFrame:
    """Return the rows of one sweep: those whose other dimension is the least there is."""
    held = SWEEPS[grows]
    return repeats[repeats[held] == repeats[held].min()]


def summary(repeats: pandas.DataFrame, measures: Sequence[str]) -> pandas.DataFrame:
    """Return mean and 95% interval over the repeats that did not collapse, and how many did, by sweep, kind and size.

    Args:
        repeats: rows of ``fragility_bench.cell``.
        measures: columns.
    """
    rows = []
    for grows in SWEEPS:
        for (kind, size), part in sweep(repeats, grows).groupby(["kind", grows], sort=False):
            kept = part[part["status"] == "compared"]
            row = {"sweep": grows, "kind": kind, "size": size, "repeats": len(part)}
            row |= {"collapsed": int(part["collapsed"].sum()), "accuracy": kept["accuracy"].mean()}
            row["undefined"] = int(kept[measures[0]].isna().sum())  # all predictions, or all truths, are equal
            for measure in measures:
                values = kept[measure].dropna().to_numpy(copy=True)
                mean = clustered_mean(torch.tensor(values)[:, None]) if len(values) else None
                ends = (math.nan,) * 3 if mean is None else (float(mean), mean.low, mean.high)
                row |= dict(zip((measure, f"{measure}_low", f"{measure}_high"), ends, strict=True))
            rows.append(row)
    return pandas.DataFrame(rows).sort_values(["sweep", "kind", "size"]).reset_index(drop=True)


def anova(repeats: pandas.DataFrame) -> pandas.DataFrame:
    """Return the one-way analysis of variance of each measure over depth and over width, by kind.

    A size at which fewer than ``LEAST`` repeats are left says nothing: it is left out, and the status names it.

    Args:
        repeats: rows of ``fragility_bench.cell``.
    """
    rows = []
    for grows in SWEEPS:
        for kind, part in sweep(repeats, grows).groupby("kind", sort=False):
            for measure in MEASURES:
                kept = part[part["status"] == "compared"].dropna(subset=[measure])
                groups = {size: kept[kept[grows] == size][measure].to_numpy() for size in sorted(part[grows].unique())}
                least = max(2, min(LEAST, part["seed"].nunique()))
                full = {size: values for size, values in groups.items() if len(values) >= least}
                row = {"sweep": grows, "kind": kind, "measure": measure, "sizes": len(full)}
                row |= {"runs": sum(map(len, full.values())), "F": math.nan, "p": math.nan, "spread": math.nan}
                if len(full) >= 2:
                    row["F"], row["p"] = map(float, stats.f_oneway(*full.values()))
                    means = [float(values.mean()) for values in full.values()]
                    row["spread"] = max(means) - min(means)  # what is significant need not be large
                empty = [str(size) for size in groups if size not in full]
                status = f"fewer than {least} runs at {grows} {', '.join(empty)}" if empty else "all sizes"
                rows.append(row | {"status": status if len(full) >= 2 else f"nothing to compare: {status}"})
    return pandas.DataFrame(rows)


def picture_pairs(found: dict[str, tuple[Tensor, Tensor]]) -> tuple[pandas.DataFrame, pandas.DataFrame]:
    """Return points and numbers of the pairs behind one correlation: two constructed ones, then those ``found``.

    Args:
        found: predicted and true changes by name.
    """
    even, steep = same_spearman_pair()
    pairs = {"constructed, even": even, "constructed, steep": steep, **found}
    points, numbers = [], []
    for name, (predicted, true) in pairs.items():
        points.append(pandas.DataFrame({"picture": name, "predicted": predicted.tolist(), "true": true.tolist()}))
        said = fidelity(predicted, true)
        row: dict[str, object] = {"picture": name, "points": len(predicted)}
        for measure in ("spearman", "pearson", "slope", "r2"):
            value = getattr(said, measure)
            row |= {measure: float(value), f"{measure}_low": value.low, f"{measure}_high": value.high}
        numbers.append(row | {"verdict": said.verdict})
    return pandas.concat(points, ignore_index=True), pandas.DataFrame(numbers)


def curves(
    first: nn.Module, split: Split, name: str, *, batch_size: int | None, epochs: int, l2: float, removed: int
) -> pandas.DataFrame:
    """Return the loss of the worst test example after each epoch of retraining without one training example.

    The network is trained on without each of the examples of highest loss, and once with all of them (removed -1).

    Args:
        first: the trained network.
        split: in float64.
        name: of the data, for the table.
        batch_size: None takes all examples in each step.
        epochs: of the retraining.
        l2: ridge.
        removed: how many examples, one by one.
    """
    options = {"batch_size": batch_size, "lr": 1e-3, "weight_decay": l2}
    risk = Risk(first, split.train, l2=l2)
    test, frames = highest_loss_example(risk, split.test), []
    for j in (-1, *risk.losses().topk(removed).indices.tolist()):
        without = () if j < 0 else (j,)
        path = fit(first, split.train, epochs=epochs, checkpoints=epochs + 1, without=without, **options).checkpoints
        losses = [float(risk.at(theta).losses(test)) for theta in path]
        frames.append(pandas.DataFrame({"data": name, "removed": j, "epoch": range(epochs + 1), "loss": losses}))
    return pandas.concat(frames, ignore_index=True)


def jumps(table: pandas.DataFrame) -> pandas.DataFrame:
    """Return for each data set how restless the curves are, medians over the removals.

    Columns: ``turns``, the share of epochs in which the loss turns round; ``path``, the way the loss went over its
    net change, 1 for a curve that only rises or falls; ``effect_to_noise``, the spread over the removals of the last
    losses over the root mean square step of the last half of the curve.
    """
    rows = []
    for data, part in table.groupby("data", sort=False):
        losses = torch.tensor(part.pivot(index="removed", columns="epoch", values="loss").to_numpy(copy=True))
        steps = losses.diff(dim=1)
        late = steps[:, steps.shape[1] // 2 :]
        turns = (steps[:, 1:] * steps[:, :-1] < 0).double().mean(1)
        path = steps.abs().sum(1) / (losses[:, -1] - losses[:, 0]).abs()
        row = {"data": data, "curves": len(losses), "epochs": steps.shape[1], "turns": float(turns.median())}
        spread = float(losses[:, -1].std())
        row |= {"path": float(path.median()), "effect_to_noise": spread / float(late.square().mean().sqrt())}
        rows.append(row)
    return pandas.DataFrame(rows)


def digits_ladder(n: int, epochs: int, removed: int, seed: int) -> pandas.DataFrame:
    """Return the ladder from influence to cold-start retraining on a small digits network, stopped early.

    Args:
        n: training digits.
        epochs: of the training; of the warm start three times, of the cold start four times as many.
        removed: examples, one by one.
        seed: of the network.
    """
    split = placed(load("digits", limit=n))
    train, test = split.train.double(), split.test.double()[:20]
    model, l2 = placed(mlp([64, 8, 10], "tanh", dtype=torch.float64)), 1e-3
    theta = fit_ensemble(model, train, epochs=epochs, seeds=[seed], lr=0.02, l2=l2).theta[0]
    risk = Risk(model, train, l2=l2).at(theta)
    options = {"damping": 1e-2, "lr": 0.02, "schedule": Plateau(0.1, 20), "seed": seed}
    chosen = torch.arange(0, n, max(1, n // removed))[:removed]
    steps = ladder(risk, test, chosen, epochs=3 * epochs, cold_epochs=4 * epochs, **options)
    return steps.frame().assign(seed=seed, n=n, removed=len(chosen))


def scatter(how: Training, risk: Risk, tests: Examples) -> tuple[Float[Tensor, " g"], Float[Tensor, " g"]]:
    """Return predicted and true changes of the last layer for the most influential examples of the worst test.

    Args:
        how: counts and damping.
        risk: a trained network with a ridge.
        tests: among which the one of highest loss is taken.
    """
    last, test = last_layer(risk), highest_loss_example(risk, tests)
    predicted = predicted_changes(last, test, damping=0.0)
    chosen = predicted.abs().topk(how.removed).indices
    return predicted[chosen], true_changes(last, test, chosen)[0]
