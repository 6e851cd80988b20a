"""The tables of a study that was run before: those in the repository, or in a folder of the reader's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pandas

from explainlib.datasets.bounds import clipped, unreadable

REPOSITORY = Path(__file__).parents[2] / "data" / "results"


def kept_tables(stem: str, folder: str | Path | None = None) -> dict[str, pandas.DataFrame]:
    """Return the tables of one run by name.

    Args:
        stem: study, data and scale, such as "fragility-iris-cpu".
        folder: that ``python -m explainlib study`` wrote into; None is ``data/results`` of the repository.

    Raises:
        FileNotFoundError: no tables of that run; the message says how to make them.
        ValueError: a table that is no CSV.
    """
    folder = REPOSITORY if folder is None else Path(folder)
    paths = sorted(folder.glob(f"{stem}-*.csv"))
    if not paths:
        study, data, scale = (*stem.split("-"), "", "")[:3]
        raise FileNotFoundError(
            f"no tables {stem}-*.csv in {folder}; run `python -m explainlib study {study} --scale {scale or 'cpu'} "
            f"{f'--data {data} ' * bool(data)}--out {folder}`, or pass the folder that holds them."
        )
    return {path.stem.removeprefix(f"{stem}-"): read_table(path) for path in paths}


def read_table(path: Path) -> pandas.DataFrame:
    """Return the table in a CSV file.

    Raises:
        ValueError: not a table; the message names the file.
    """
    try:
        return pandas.read_csv(path)
    except (ValueError, OverflowError) as error:  # pandas' own errors are ValueErrors that do not name the file
        raise unreadable(path, f"it is no table ({clipped(str(error))})", "run the study again") from None


def read_record(path: Path, keys: Mapping[str, type]) -> dict:
    """Return the JSON that lies beside a study's tables.

    Args:
        path: the file.
        keys: what has to be in it, and of which kind.

    Raises:
        ValueError: no JSON, or not with those keys; the message names the file.
    """
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise unreadable(path, f"it is no JSON ({clipped(str(error))})", "run the study again") from None
    lacking = [key for key, kind in keys.items() if not isinstance(found, dict) or not isinstance(found.get(key), kind)]
    if lacking:
        what = f"it lacks {', '.join(f'{key} ({keys[key].__name__})' for key in lacking)}"
        raise unreadable(path, what, "run the study again")
    return found
