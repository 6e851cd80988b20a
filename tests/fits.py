"""A machine with just so much memory."""

import pytest

from explainlib import memory


def fits_to_the_byte(call, size, monkeypatch, match):
    """See that a call works where ``size`` bytes are free, and is refused where it is one less.

    Args:
        call: without arguments.
        size: what it needs.
        monkeypatch: pytest's.
        match: what the refusal says.
    """
    monkeypatch.setattr(memory, "SMALL", 0)
    monkeypatch.setattr(memory, "free_memory", lambda device: size)
    call()
    monkeypatch.setattr(memory, "free_memory", lambda device: size - 1)
    with pytest.raises(memory.TooLargeError, match=match):
        call()
