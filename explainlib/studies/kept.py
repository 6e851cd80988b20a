"""The tables of a study that was run before: those that come with explainlib, or in a folder of the reader's."""

from __future__ import annotations

from pathlib import Path

import pandas

from explainlib.studies.record import checksum, parse_table, read_record

PACKAGED = Path(__file__).parent / "results"  # of a built package
REPOSITORY = Path(__file__).parents[2] / "data" / "results"  # from which the build copies
FINISHED = PACKAGED if PACKAGED.is_dir() else REPOSITORY


def kept_tables(stem: str, folder: str | Path | None = None) -> dict[str, pandas.DataFrame]:
    """Return the tables of one run by name.

    Args:
        stem: study, data and scale, such as "fragility-iris-cpu".
        folder: that ``python -m explainlib study`` wrote into; None takes those that come with explainlib.

    Raises:
        FileNotFoundError: no tables of that run; the message says how to make them.
        ValueError: a table that cannot be read, or that is not as the run's record has it (older ones have no
            checksums).
    """
    own = folder is None
    folder = FINISHED if own else Path(folder)
    paths = sorted(folder.glob(f"{stem}-*.csv"))
    if not paths:
        study, data, scale = (*stem.split("-"), "", "")[:3]
        command = f"python -m explainlib study {study} --scale {scale or 'cpu'}" + f" --data {data}" * bool(data)
        if own:
            inside = ", ".join(path.stem for path in sorted(folder.glob("*.json")))
            raise FileNotFoundError(
                f"no tables {stem}-*.csv among those that come with explainlib: {inside}; run `{command} --out "
                "results` and pass folder='results', or pass the folder that holds them."
            )
        raise FileNotFoundError(
            f"no tables {stem}-*.csv in {folder}; run `{command} --out {folder}`, or pass the folder that holds them."
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
