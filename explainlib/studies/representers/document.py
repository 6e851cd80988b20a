"""The numbers of ``docs/representers_study.md``: the study's own words of a mark (``studies.documents``).

areas mnist                             AUC-DEL- of every method, a column a part, with intervals over networks
area mnist main .2f random              one of them
gap mnist main .2f A minus B            the paired difference of two methods' areas, with its interval
loss mnist main .2g                     the median training loss of a part's networks
networks mnist main                     how many
tests mnist main                        and the tests of each
"""

from __future__ import annotations

import pandas

from explainlib.studies.documents import MINUS, Maker, Tables, interval_text, number_text, table_text

PARTS = {"early": "stopped early", "halfway": "halfway", "main": "trained out", "wide": "93k network"}


def _part(frame: pandas.DataFrame, part: str, **where: str) -> pandas.DataFrame:
    """Return the rows of a part in which the columns have the values; there has to be one at least."""
    for name, value in {"part": part, **where}.items():
        frame = frame[frame[name] == value]
        if not len(frame):
            raise ValueError(f"no row has {name}={value!r}.")
    return frame


def _cell(areas: pandas.DataFrame, form: str = ".2f") -> str:
    row = areas.iloc[0]
    return interval_text((row["auc"], row["auc_low"], row["auc_high"]), form)


def _areas(tables: Tables, words: str) -> str:
    areas = tables["methods"]
    parts = [part for part in PARTS if part in set(areas["part"])]
    loss = {part: _loss(tables, f"{part} .2g") for part in parts}
    sizes = {part: f"{_networks(tables, part)} x {_tests(tables, part)}" for part in parts}
    rows = [["networks x tests", *sizes.values()]]
    for method in areas["method"].unique():
        own = areas[areas["method"] == method].set_index("part")
        rows.append([method, *(_cell(own.loc[[part]]) if part in own.index else "" for part in parts)])
    return table_text(["", *(f"{PARTS[part]} (loss {loss[part]})" for part in parts)], rows)


def _area(tables: Tables, words: str) -> str:
    part, form, method = words.split(" ", 2)
    return _cell(_part(tables["methods"], part, method=method), form)


def _gap(tables: Tables, words: str) -> str:
    part, form, both = words.split(" ", 2)
    first, second = both.split(MINUS)
    pairs = tables["pairs"]
    turned = not len(pairs[(pairs["part"] == part) & (pairs["a"] == first) & (pairs["b"] == second)])
    row = _part(pairs, part, a=second if turned else first, b=first if turned else second).iloc[0]
    ends = (-row["high"], -row["low"]) if turned else (row["low"], row["high"])
    return interval_text((-row["a_minus_b"] if turned else row["a_minus_b"], *ends), form)


def _loss(tables: Tables, words: str) -> str:
    part, form = words.split()
    return number_text(_part(tables["networks"], part)["training_loss"].median(), form)


def _networks(tables: Tables, words: str) -> str:
    return str(_part(tables["methods"], words)["seeds"].iloc[0])


def _tests(tables: Tables, words: str) -> str:
    return str(_part(tables["methods"], words)["tests"].iloc[0])


MAKERS: dict[str, Maker] = {
    "areas": _areas,
    "area": _area,
    "gap": _gap,
    "loss": _loss,
    "networks": _networks,
    "tests": _tests,
}
