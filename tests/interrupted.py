"""Ctrl-C at a chosen moment."""


class Interrupted:
    """A function that is interrupted at one call, like Ctrl-C, and counts its calls.

    Args:
        original: what it is otherwise.
        at: the call, from 1 on.
    """

    def __init__(self, original, at):
        self.original, self.at, self.calls = original, at, 0

    def __call__(self, *arguments):
        self.calls += 1
        if self.calls == self.at:
            raise KeyboardInterrupt
        return self.original(*arguments)
