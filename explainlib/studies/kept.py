"""The tables of a study that was run before: those in the repository, or in a folder of the reader's."""

from __future__ import annotations

from pathlib import Path

import pandas

from explainlib.studies.record import checksum, parse_table, read_record

REPOSITORY = Path(__file__).parents[2] / "data" / "results"


def kept_tables(stem: str, folder: str | Path | None = None) -> dict[str, pandas.DataFrame]:
    """Return the tables of one run by name.

    Args:
        stem: study, data and scale, such as "fragility-iris-cpu".
        folder: that ``python -m explainlib study`` wrote into; None is ``data/results`` of the repository.

    Raises:
        FileNotFoundError: no tables of that run; the message says how to make them.
        ValueError: a table that cannot be read, or that is not as the run's record has it (older ones have no
            checksums).
    """
    folder = REPOSITORY if folder is None else Path(folder)
    paths = sorted(folder.glob(f"{stem}-*.csv"))
    if not paths:
        study, data, scale = (*stem.split("-"), "", "")[:3]
        raise FileNotFoundError(
            f"no tables {stem}-*.csv in {folder}; run `python -m explainlib study {study} --scale {scale or 'cpu'} "
            f"{f'--data {data} ' * bool(data)}--out {folder}`, or pass the folder that holds them."
        )
    remedy = "run the study again, or restore the file"
    record = folder / f"{stem}.json"
    sums = read_record(record, remedy).get("tables") if record.exists() else None
    sums = sums if isinstance(sums, dict) else {}
    tables = {}
    for path in paths:
        data = path.read_bytes()
        if path.name in sums and checksum(data) != sums[path.name]:
            raise ValueError(f"{path} is not as its run wrote it ({record.name} has another checksum); {remedy}.")
        tables[path.stem.removeprefix(f"{stem}-")] = parse_table(data, path, remedy)
    return tables
