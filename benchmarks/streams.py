"""EK-FAC of data that are read in batches: seconds, and the memory of a process of its own.

``python -m benchmarks.streams`` runs both rows, each in a fresh process: a perceptron of 1.2 million parameters with
60,000 examples from a ``DataLoader`` whose dataset computes each example when it is asked for, and a small language
model with 512 sequences of 64 tokens. Factors are fitted with sampled labels, and ten tests are scored on all training
examples. The bar is 1 GB for the whole process, Python and torch included. ``--store FOLDER`` keeps fit and scores.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import explainlib as xl
from explainlib.datasets import Examples, streamed

MEMORY = 2e8  # bytes to work with, as a user would pass
BAR = 1e9
FEATURES, CLASSES, VOCABULARY, TOKENS, WIDTH = 784, 10, 1000, 64, 96


class Made(Dataset):
    """Examples that are computed when they are asked for: Gaussian features, the label of a random linear map."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.teacher = torch.randn(FEATURES, CLASSES, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        """Return the number of examples."""
        return self.n

    def __getitem__(self, k: int) -> tuple[Tensor, Tensor]:
        """Return one example."""
        x = torch.randn(FEATURES, generator=torch.Generator().manual_seed(k + 1))
        return x, (x @ self.teacher).argmax()


class Block(nn.Module):
    """Causal self-attention of four heads and a perceptron, both added to their input."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attend, self.project = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sequences [n, T, WIDTH] after the block."""
        q, k, v = (part.unflatten(2, (4, -1)).transpose(1, 2) for part in self.attend(self.first(x)).chunk(3, dim=2))
        scores = q @ k.mT / q.shape[-1] ** 0.5
        later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).triu(1)
        mixed = (scores.masked_fill(later, -torch.inf).softmax(3) @ v).transpose(1, 2).flatten(2)
        x = x + self.project(mixed)
        return x + self.down(torch.nn.functional.gelu(self.up(self.second(x))))


class LanguageModel(nn.Module):
    """A decoder of three blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.places = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(TOKENS, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(3)))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, VOCABULARY)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits of the following tokens, a row a sequence [n, T VOCABULARY]."""
        x = self.table(tokens) + self.places(torch.arange(TOKENS, device=tokens.device).expand(len(tokens), -1))
        return self.head(self.norm(self.blocks(x))).flatten(1)


def perceptron() -> tuple[xl.Risk, Examples]:
    """Return a risk of 60,000 streamed examples, and ten tests."""
    train = streamed(DataLoader(Made(60_000), batch_size=256))
    made = Made(1)
    tests = [made[10**6 + k] for k in range(10)]
    test = Examples(torch.stack([x for x, _ in tests]), torch.stack([y for _, y in tests]))
    torch.manual_seed(0)
    model = xl.models.mlp([FEATURES, 1000, 400, CLASSES], "relu", dtype=torch.float32)
    return xl.Risk(model, train, l2=1e-4), test


def language() -> tuple[xl.Risk, Examples]:
    """Return a risk of 512 sequences, and ten tests."""
    g = torch.Generator().manual_seed(0)
    tokens = torch.randint(VOCABULARY, (522, TOKENS + 1), generator=g)
    both = Examples(tokens[:, :-1], tokens[:, 1:])
    torch.manual_seed(0)
    return xl.Risk(LanguageModel(), both[:512], loss="token_cross_entropy", l2=1e-4), both[512:]


PROBLEMS = {"perceptron": perceptron, "language": language}


def run(name: str, store: Path | None) -> None:
    """Fit, score, and print what it took."""
    started = time.perf_counter()
    risk, test = PROBLEMS[name]()
    read, loaded = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    ekfac = xl.curvature.Ekfac(risk, labels="sampled", memory=MEMORY, store=store and store / f"{name}-fit")
    fitted = time.perf_counter()
    kept = store and store / f"{name}-scores"
    scores = xl.influence.loss_influence(risk, test, curvature=ekfac, damping=1e-3, memory=MEMORY, store=kept)
    scored, peak = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    said = f"{name}: p = {risk.p:,}, n = {risk.n:,}; read once {read - started:.0f} s, fitted {fitted - read:.0f} s, "
    said += f"ten tests scored {scored - fitted:.0f} s; peak {peak / 1e9:.2f} GB of the process, "
    said += f"{loaded / 1e9:.2f} before the fit (wanted: {BAR / 1e9:g} GB, {'met' if peak <= BAR else 'not met'})"
    print(said + ("" if torch.isfinite(scores).all() else "; scores are not finite"), flush=True)


def main() -> None:
    """Read the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.streams")
    parser.add_argument("problems", nargs="*", help=f"of {', '.join(PROBLEMS)}; both if left out")
    parser.add_argument("--store", type=Path, help="a folder for fits and scores, from which a run goes on")
    parser.add_argument("--here", action="store_true", help="in this process")
    options = parser.parse_args()
    if unknown := set(options.problems) - set(PROBLEMS):
        raise SystemExit(f"problems {sorted(unknown)} are unknown; choose from {', '.join(PROBLEMS)}.")
    for name in options.problems or PROBLEMS:
        if options.here:
            torch.set_num_threads(1)
            run(name, options.store)
        else:
            more = [] if options.store is None else ["--store", str(options.store)]
            subprocess.run([sys.executable, "-m", "benchmarks.streams", name, "--here", *more], check=True)


if __name__ == "__main__":
    main()
