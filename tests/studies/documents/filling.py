"""One mark, filled in."""

import pandas

from explainlib.studies.documents import fill_document


def filled(words, runs, makers=None, board=None):
    """Return the text that a mark gets.

    Args:
        words: of the mark.
        runs: the tables by run.
        makers: a study's own words.
        board: the scoreboard.
    """
    mark, end = f"<!--{words}-->", "<!--/-->"
    made = fill_document(f"a {mark}x{end} b", runs, pandas.DataFrame() if board is None else board, makers)
    assert made.startswith(f"a {mark}") and made.endswith(f"{end} b"), "what stands around a mark stays"
    return made.removeprefix(f"a {mark}").removesuffix(f"{end} b")
