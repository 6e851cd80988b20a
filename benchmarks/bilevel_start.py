"""Whether a common start is worth having where labels are dealt anew: the learner of the bilevel study beside lam = 0.

``python -m benchmarks.bilevel_start`` prints how often each is right on all new tasks of the first seed.
"""

from __future__ import annotations

from explainlib.studies.bilevel.study import case, config


def main() -> None:
    """Print one line a data set."""
    for data in ("omniglot", "glyphs"):
        one = case(config("cpu", data), "proximal", 0)
        learner = one.solved.bilevel
        solved, start = (
            sum(float(learner.accuracy(lam, new).mean()) for new in (one.score, one.judge)) / 2
            for lam in (one.solved.lam, one.solved.start)
        )
        print(f"{data}: {solved:.3f}, from lam = 0 {start:.3f}", flush=True)


if __name__ == "__main__":
    main()
