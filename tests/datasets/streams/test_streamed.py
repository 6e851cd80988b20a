"""Streamed examples: the same numbers as in memory, in parts, and a clear error for a source that does not keep still."""

import warnings
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import explainlib as xl
from explainlib.datasets import Examples, StreamedRows, streamed
from explainlib.datasets.streams import rows as rows_module
from explainlib.storage.fingerprints import fingerprint
from tests.problems import normal

N = 30
X, Y = normal(N, 4), torch.arange(N) % 3
TEST = Examples(normal(5, 4, seed=9), torch.arange(5) % 3)
DATA = TensorDataset(X, Y)


class Source(Dataset):
    """DATA with a change: of an example, of a length, of a shape, or an error."""

    def __init__(self, change=None, at=7, after=0):
        self.change, self.at, self.after, self.reads = change, at, after, 0

    def __len__(self):
        return N

    def __getitem__(self, i):
        x, y = DATA[i]
        self.reads += i == self.at
        return self.change(x, y) if self.change and i == self.at and self.reads > self.after else (x, y)


def mlp(dtype=torch.float64):
    return xl.models.mlp([4, 5, 3], "tanh", seed=1, dtype=dtype)


def both(source=DATA, **options):
    return (xl.Risk(mlp(), examples, l2=0.1) for examples in (Examples(X, Y), streamed(source, **options)))


INFLUENCE = {
    f"{curvature}, {solver}": (curvature, solver)
    for curvature, solver in (
        ("hessian", "dense"), ("gauss_newton", "cg"), ("gauss_newton", "low_rank"), ("empirical_fisher", "low_rank"),
        ("empirical_fisher", "dense"), ("identity", "dense"), ("ekfac", "dense"), ("gauss_newton", "arnoldi"),
    )
}  # fmt: skip


@pytest.mark.parametrize("name", INFLUENCE)
def test_influence_is_that_of_examples_in_memory(name, monkeypatch):
    monkeypatch.setattr(rows_module, "WHOLE", 0)  # nothing may ask for all rows at once
    curvature, solver = INFLUENCE[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", xl.NotAtMinimumWarning)
        held, read = (
            xl.influence.loss_influence(risk, TEST, curvature=curvature, solver=solver, damping=0.1) for risk in both()
        )
    torch.testing.assert_close(read, held, rtol=1e-9, atol=1e-12)


def test_other_functions_too(monkeypatch):
    monkeypatch.setattr(rows_module, "WHOLE", 0)
    held, read = both()
    torch.testing.assert_close(read.value(), held.value())
    torch.testing.assert_close(read.gradient(), held.gradient())
    torch.testing.assert_close(read.loss_gradients(), held.loss_gradients())
    torch.testing.assert_close(*(xl.representers.kernel(mlp(), TEST.x, r.train.x, output=1) for r in (read, held)))
    how = {"epochs": 2, "batch_size": 7, "lr": 0.1, "optimizer": "sgd", "checkpoints": 2}
    paths = [xl.training.fit(mlp(), r.train, **how) for r in (read, held)]
    assert torch.equal(paths[0].checkpoints, paths[1].checkpoints)
    scores = [xl.influence.tracin(p, r.train, TEST) for p, r in zip(paths, (read, held), strict=True)]
    torch.testing.assert_close(*scores)
    solved = [xl.training.minimise(risk) for risk in (read, held)]
    torch.testing.assert_close(solved[0].theta, solved[1].theta)
    effects = [xl.influence.removal_effect(r, [[1, 2]], weighting="plain").loss_change(TEST) for r in solved]
    torch.testing.assert_close(*effects)


def test_a_streamed_tensor_reads_a_part_at_a_time():
    seen = []

    class Watched(Source):
        def __getitem__(self, i):
            seen.append(i)
            return DATA[i]

    x = streamed(Watched()).x
    assert seen == [0, *range(N)] and isinstance(x, StreamedRows) and x.shape == (N, 4)
    seen.clear()
    assert torch.equal(x[3:6], X[3:6]) and torch.equal(x[-1], X[-1])
    assert torch.equal(x[torch.tensor([5, 5, 2])], X[[5, 5, 2]]) and torch.equal(x[Y == 1], X[Y == 1])
    assert seen == [3, 4, 5, 29, 5, 5, 2, *range(1, N, 3)]
    assert [len(part) for part in x.split(12)] == [12, 12, 6]


def test_all_rows_at_once_up_to_a_size(monkeypatch):
    x = streamed(DATA).x
    assert torch.equal(x.sum(0), X.sum(0)) and torch.equal(torch.cat([x, x]), torch.cat([X, X]))
    monkeypatch.setattr(rows_module, "WHOLE", 8 * X.numel() - 1)
    with pytest.raises(TypeError, match="needs all 30 streamed examples at once"):
        x.sum(0)


def test_a_loader_s_collate_dtype_and_parts_of_examples():
    def collate(examples):
        x, y = zip(*examples, strict=True)
        return {"features": torch.stack(x) * 2, "label": torch.stack(y)}

    loader = DataLoader(DATA, batch_size=4, collate_fn=collate)
    examples = streamed(loader, inputs="features", target="label", dtype=torch.float32, classes=["a", "b", "c"])
    assert examples.x.dtype == torch.float32 and torch.equal(examples.x[:], 2 * X.float())
    part = examples[[3, 1]]
    assert (
        type(part.x) is torch.Tensor and torch.equal(part.x, 2 * X[[3, 1]].float()) and part.classes == ("a", "b", "c")
    )
    double = examples.double()
    assert double.x.dtype == torch.float64 and torch.equal(double.x[2:4], (2 * X.float()).double()[2:4])


class Pair(nn.Module):
    """Tokens and their mask, and numbers, to an answer in an object with more than logits."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.table, self.layer = nn.Embedding(6, 4), nn.Linear(6, 3)

    def forward(self, ids, mask, numbers):
        h = (self.table(ids) * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return {"logits": self.layer(torch.cat([h, numbers], 1)), "hidden": h}


class Dictionaries(Dataset):
    def __len__(self):
        return N

    def __getitem__(self, i):
        g = torch.Generator().manual_seed(i)
        mask = torch.ones(5, dtype=torch.bool)
        mask[3:] = i % 2 == 0
        numbers = torch.randn(2, generator=g, dtype=torch.float64)
        return {"ids": torch.randint(0, 6, (5,), generator=g), "mask": mask, "numbers": numbers, "label": i % 3}


def test_dictionary_inputs_and_outputs_through_one_adapter():
    train = streamed(Dictionaries(), inputs=("ids", "mask", "numbers"), target="label")
    model = xl.models.adapted(Pair().double(), inputs=train.x.inputs, outputs="logits")
    risk = xl.Risk(model, train, l2=0.1)
    batch = torch.utils.data.default_collate([Dictionaries()[i] for i in range(N)])
    plain = Pair().double()
    outputs = plain(batch["ids"], batch["mask"], batch["numbers"])["logits"]
    torch.testing.assert_close(risk.outputs(), outputs.detach())
    rows = []
    for i in range(N):
        loss = nn.functional.cross_entropy(outputs[i : i + 1], torch.tensor([i % 3]))
        parts = torch.autograd.grad(loss, list(plain.parameters()), retain_graph=True)
        rows.append(torch.cat([part.flatten() for part in parts]))
    torch.testing.assert_close(risk.loss_gradients(), torch.stack(rows))
    curved = xl.curvature.gauss_newton(risk)
    want = -torch.stack(rows)[:2] @ torch.linalg.solve(curved, torch.stack(rows).T)
    got = xl.influence.loss_influence(risk, train[[0, 1]], curvature="gauss_newton", solver="cg")
    torch.testing.assert_close(got, want, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("form", [lambda f: f, lambda f: (f, None), lambda f: {"logits": f}])
def test_outputs_of_any_form(form):
    class Answer(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x):
            return form(self.layer(x))

    model = Answer().double().eval()
    outputs = {tuple: 0, dict: "logits"}.get(type(form(X)))
    got = xl.models.adapted(model, outputs=outputs)(X)
    assert torch.equal(got, model.layer(X))
    assert torch.equal(xl.models.adapted(model, outputs=lambda f: model.layer(X)[:, None])(X), model.layer(X))


def test_a_store_knows_streamed_examples_by_their_checksums():
    own = fingerprint({"x": streamed(DATA).x}, {})
    again, other = fingerprint({"x": streamed(DATA).x}, {}), fingerprint({"x": streamed(TensorDataset(X + 1, Y)).x}, {})
    assert own == again != other


class Endless(IterableDataset):
    def __iter__(self):
        yield from DATA


class NoLength(Dataset):
    def __getitem__(self, i):
        return DATA[i]


def failing(x, y):
    raise OSError("disk gone")


@pytest.mark.parametrize(
    ("source", "options", "error", "said"),
    [
        (DataLoader(DATA, shuffle=True), {}, TypeError, "the loader shuffles.*shuffle=False"),
        (DataLoader(DATA, batch_size=None), {}, TypeError, "makes no batches"),
        (Endless(), {}, TypeError, "an iterable dataset"),
        (DataLoader(Endless()), {}, TypeError, "an iterable dataset|draws by"),
        (NoLength(), {}, TypeError, "no length"),
        (TensorDataset(X[:0], Y[:0]), {}, ValueError, "no examples"),
        (TensorDataset(X), {}, TypeError, "not a pair"),
        (Dictionaries(), {}, TypeError, "not a pair.*inputs="),
        (Dictionaries(), {"inputs": "words", "target": "label"}, TypeError, "no 'words'; it has"),
        (Dictionaries(), {"inputs": "ids", "target": lambda b: 3}, TypeError, "the target of examples 0 to 29"),
        (Source(failing), {}, RuntimeError, "failed at example 7: OSError: disk gone"),
        (Source(lambda x, y: (x[:3], y)), {}, ValueError, "do not make a batch.*collate_fn"),
        (Source(lambda x, y: (x * float("nan"), y)), {}, ValueError, "NaN"),
    ],
)
def test_sources_that_are_refused(source, options, error, said):
    with pytest.raises(error, match=said):
        streamed(source, **options).x[:]


def test_an_example_that_changes_between_readings_is_named():
    examples = streamed(Source(lambda x, y: (x + 1e-12, y), after=1))
    assert torch.equal(examples.x[:7], X[:7])
    with pytest.raises(ValueError, match="example 7 is another one than when it was read first"):
        examples.x[5:10]


def test_a_source_that_fails_later_says_where_and_goes_on_when_it_is_mended():
    source = Source()
    risk = xl.Risk(mlp(), streamed(source), l2=0.1)
    source.change = failing
    with pytest.raises(RuntimeError, match="failed at example 7"):
        risk.value()
    source.change = None
    torch.testing.assert_close(risk.value(), xl.Risk(mlp(), Examples(X, Y), l2=0.1).value())


def test_batches_of_changing_shape():
    ragged = DataLoader(
        Dictionaries(), collate_fn=lambda e: (torch.stack([d["ids"] for d in e])[:, : 2 + len(e) % 3], Y[: len(e)])
    )
    with pytest.raises(ValueError, match="expected.*collate_fn"):
        streamed(ragged)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [({}, "nothing"), ({"a": [1]}, "list"), ({"a": X, "b": X.float()}, "to one in collate_fn")],
)
def test_layouts_that_are_refused(inputs, said):
    with pytest.raises(TypeError, match=said):
        xl.datasets.InputLayout.of(inputs)


def test_numbers_too_large_for_the_rows():
    inputs = {"a": torch.ones(2, 1), "b": torch.tensor([[2**24 + 1], [0]])}
    layout = xl.datasets.InputLayout.of(inputs)
    with pytest.raises(ValueError, match="too large for torch.float32"):
        layout.pack(inputs)
    with pytest.raises(ValueError, match="pad to one length"):
        layout.pack({"a": torch.ones(2, 2), "b": torch.ones(2, 1).long()})
    small = {"a": torch.ones(2, 1), "b": torch.tensor([[2**24], [-3]])}
    assert all(torch.equal(x, y) for x, y in zip(layout.unpack(layout.pack(small)), small.values(), strict=True))


def test_no_model_and_no_layout():
    with pytest.raises(TypeError, match="expected an nn.Module|Type-check"):
        xl.models.adapted(lambda x: x)
    with pytest.raises(TypeError, match="pass x.inputs|Type-check"):
        xl.models.adapted(mlp(), inputs=("ids", "mask"))


class Sentences(Dataset):
    """Six tokens, a mask, and the next token as the label of each."""

    def __len__(self):
        return 12

    def __getitem__(self, i):
        ids = torch.randint(0, 7, (6,), generator=torch.Generator().manual_seed(i))
        labels = ids.roll(-1)
        labels[-1] = -100
        return {"input_ids": ids, "attention_mask": torch.ones(6, dtype=torch.bool), "labels": labels}


class Answer:
    def __init__(self, logits):
        self.logits = logits


class Language(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.norm, self.out = nn.Embedding(7, 5), nn.LayerNorm(5), nn.Linear(5, 7)

    def forward(self, input_ids, attention_mask):
        return Answer(self.out(self.norm(self.table(input_ids) * attention_mask[..., None])))


def test_the_lines_of_the_readme():
    text = (Path(__file__).parents[3] / "README.md").read_text()
    lines = text[text.index("## Your own data and model") :].split("```python")[1].split("```")[0]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        names = {"xl": xl, "my_dataset": Sentences(), "my_network": Language().eval()}
    exec(lines, names)
    assert names["scores"].shape == (5, 12) and names["ekfac"].left_out == () and names["ekfac"].labels == "sampled"
    risk = names["risk"]
    own = -names["ekfac"].inverse_product(risk.loss_gradients(risk.train[:5]), damping=1e-3) @ risk.loss_gradients().T
    torch.testing.assert_close(names["scores"], own, rtol=1e-3, atol=1e-4)
