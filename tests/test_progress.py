"""Where progress bars are written: no pink band in a notebook, nothing among the results of a command."""

from __future__ import annotations

import io
import sys

import pytest

from explainlib.progress import progress_stream, tqdm


class KernelStream(io.StringIO):
    """Like the streams of a notebook's kernel, which are sent by a thread."""

    pub_thread = object()


@pytest.fixture
def streams(monkeypatch):
    def use(kind):
        out, err = kind(), kind()
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        return out, err

    return use


def run(**options):
    for _ in tqdm(range(3), desc="steps", leave=False, mininterval=0, disable=False, **options):
        pass


def test_in_a_notebook_bars_are_plain_output_and_wiped(streams):
    out, err = streams(KernelStream)
    run()
    assert "steps" in out.getvalue() and err.getvalue() == ""
    assert out.getvalue().split("\r")[-2].strip() == "" and out.getvalue().endswith("\r")


def test_elsewhere_results_stay_alone_on_stdout(streams):
    out, err = streams(io.StringIO)
    run()
    assert out.getvalue() == "" and "steps" in err.getvalue()
    assert progress_stream() is err


def test_a_stream_of_one_s_own_is_kept(streams):
    out, err = streams(KernelStream)
    mine = io.StringIO()
    run(file=mine)
    assert "steps" in mine.getvalue() and out.getvalue() == err.getvalue() == ""
