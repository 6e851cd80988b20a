"""What every panel shares: four verbs, widgets that only forward to them, and a text for both.

A choice is one value: ``set`` makes a new one, ``reset`` goes back to the first. ``draw`` shows what is predicted for
it, ``verify`` adds the truth, which is kept until ``reset``. Each verb returns the panel's text, so a mouse, a test and
a notebook cell drive a panel alike.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from ipywidgets import Button, Widget

from explainlib.checks import require_count
from explainlib.panels.controls import Controls
from explainlib.panels.html import message
from explainlib.panels.number_box import NumberBox

Action = str | Callable[[], str]  # a keyword of ``set`` that takes the widget's value, or what to call


class InteractivePanel(ABC):
    """A panel driven by ``set``, ``draw``, ``verify`` and ``reset``; its widgets forward to them.

    Attributes:
        controls: its widgets.
        set: changes the choice, redraws, and returns the panel's text; every panel has its own arguments.
    """

    controls: Controls
    set: Callable[..., str]
    _start: object  # the first choice
    _choice: object  # the present one
    _truths: dict
    _syncing = False

    @abstractmethod
    def draw(self) -> str:
        """Show what the present choice predicts, and return the panel's text."""

    @abstractmethod
    def verify(self) -> str:
        """Train again, show the truth, and return the panel's text."""

    def reset(self) -> str:
        """Go back to the first choice, forget the truths, and return the panel's text."""
        self._choice = self._start
        self._forget()
        return self.draw()

    @property
    @abstractmethod
    def text(self) -> str:
        """The panel in words, with rounded numbers."""

    @abstractmethod
    def _show(self) -> None:
        """Show the present choice and what is known of it."""

    @abstractmethod
    def _actions(self) -> Mapping[Widget, Action]:
        """Return what a new value of each widget does."""

    @abstractmethod
    def _set_widgets(self) -> None:
        """Give every widget the value of the present choice."""

    def _forget(self) -> None:
        """Drop the truths."""
        self._truths.clear()

    @property
    def _verify_button(self) -> Button:
        return self.controls.retrain

    def __repr__(self) -> str:
        """Return the panel's text."""
        return f"{type(self).__name__} panel: {self.text}"

    def _repr_mimebundle_(self, **kwargs: object) -> dict[str, object]:
        bundle = self.controls.root._repr_mimebundle_(**kwargs) or {}
        data = bundle[0] if isinstance(bundle, tuple) else bundle
        return {**data, "text/plain": repr(self)}

    def _connect(self) -> None:
        """Let the widgets call the verbs."""
        for widget, action in self._actions().items():
            call = self._setter(widget, action) if isinstance(action, str) else action
            widget.observe(self._forward(call), "value")
        self._verify_button.on_click(self._forward(self.verify))
        self.controls.reset.on_click(self._forward(self.reset))

    def _setter(self, widget: Widget, name: str) -> Callable[[], str]:
        if isinstance(widget, NumberBox):
            return lambda: self._set_number(widget, name)
        return lambda: self.set(**{name: widget.value})

    def _set_number(self, box: NumberBox, name: str) -> str:
        """Set the nearest number of the box's range, and say so where that is another one than was typed."""
        answer = box.answer(box.value)
        said = self.set(**{name: box.nearest})
        if answer:
            self.controls.message.value = message(answer, wrong=True)
        return said

    def _forward(self, action: Callable[[], str]) -> Callable[[object], None]:
        """Return a callback that runs ``action`` and shows a user's mistake as a message."""

        def callback(_: object) -> None:
            if self._syncing:
                return
            try:
                action()
            except (ValueError, TypeError, RuntimeError) as mistake:
                self._sync()
                self.controls.message.value = message(str(mistake), wrong=True)

        return callback

    def _sync(self) -> None:
        """Make every widget show the present choice, without calling back."""
        self._syncing = True
        try:
            self._set_widgets()
        finally:
            self._syncing = False

    def _report(self, words: str, started: float) -> str:
        """Show the present choice, then the words with the seconds since ``time.perf_counter()`` was ``started``."""
        self._sync()
        self._show()
        self.controls.message.value = message(f"{words} in {time.perf_counter() - started:.2f} s.")
        return self.text

    @contextmanager
    def _busy(self, words: str) -> Iterator[None]:
        """Return a context in which the button for the truth waits and a message says what is going on."""
        self._verify_button.disabled = True
        self.controls.message.value = message(words)
        try:
            yield
        finally:
            self._verify_button.disabled = False


def close_all() -> None:
    """Close every widget of this process; a panel made before shows nothing more."""
    Widget.close_all()


def require_position(name: str, value: int, count: int, of: str) -> int:
    """Return a position among ``count`` things.

    Args:
        name: of the argument.
        value: counted from 0.
        count: how many there are.
        of: what they are, for the message.

    Raises:
        ValueError, TypeError: no whole number from 0 to ``count`` - 1.
    """
    if require_count(name, value, least=0) >= count:
        raise ValueError(f"{name}={value} is outside the {count} {of} (0 to {count - 1}).")
    return value
