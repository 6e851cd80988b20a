"""Progress bars that leave no pink band: plain output in a notebook, apart from the results in a terminal."""

from __future__ import annotations

import sys

import tqdm as bars


class tqdm(bars.tqdm):  # noqa: N801 (a bar like any other, by its usual name)
    """A bar of tqdm; in a notebook it is written to stdout, which is not shown as an error, and is wiped at its end.

    Arguments are those of ``tqdm.tqdm``; a ``file`` of one's own is kept.
    """

    def __init__(self, *args: object, file: object = None, **options: object) -> None:
        super().__init__(*args, file=progress_stream() if file is None else file, **options)


def progress_stream() -> object:
    """Return where bars are written: stdout in a notebook's kernel, whose streams go over a socket, else stderr."""
    return sys.stdout if hasattr(sys.stderr, "pub_thread") else sys.stderr
