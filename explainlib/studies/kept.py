"""The tables of a study that was run before: those in the repository, or in a folder of the reader's."""

from __future__ import annotations

from pathlib import Path

import pandas

REPOSITORY = Path(__file__).parents[2] / "data" / "results"


def kept_tables(stem: str, folder: str | Path | None = None) -> dict[str, pandas.DataFrame]:
    """Return the tables of one run by name.

    Args:
        stem: study, data and scale, such as "fragility-iris-cpu".
        folder: that ``python -m explainlib study`` wrote into; None is ``data/results`` of the repository.

    Raises:
        FileNotFoundError: no tables of that run; the message says how to make them.
    """
    folder = REPOSITORY if folder is None else Path(folder)
    paths = sorted(folder.glob(f"{stem}-*.csv"))
    if not paths:
        study, _, scale = (*stem.split("-"), "", "")[:3]
        raise FileNotFoundError(
            f"no tables {stem}-*.csv in {folder}; run `python -m explainlib study {study} --scale {scale or 'cpu'} "
            f"--out {folder}`, or pass the folder that holds them."
        )
    return {path.stem.removeprefix(f"{stem}-"): pandas.read_csv(path) for path in paths}
