"""What every panel shares, whatever it shows: four verbs, widgets that only forward to them, and words for both."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from explainlib.panels.controls import Controls
from explainlib.panels.html import message


class InteractivePanel(ABC):
    """A panel that a mouse, a test and a notebook cell drive alike.

    Attributes:
        controls: its widgets; they call the verbs below and nothing else.
    """

    controls: Controls
    _syncing = False

    @abstractmethod
    def draw(self) -> str:
        """Show what the present choice predicts, and return the panel's text."""

    @abstractmethod
    def verify(self) -> str:
        """Train again, show the truth, and return the panel's text."""

    @abstractmethod
    def reset(self) -> str:
        """Go back to the first choice, forget the truths, and return the panel's text."""

    @property
    @abstractmethod
    def text(self) -> str:
        """The panel in words, with rounded numbers."""

    @abstractmethod
    def _set_widgets(self) -> None:
        """Give every widget the value of the present choice."""

    def __repr__(self) -> str:
        """Return the panel's text."""
        return f"{type(self).__name__} panel: {self.text}"

    def _repr_mimebundle_(self, **kwargs: object) -> dict[str, object]:
        bundle = self.controls.root._repr_mimebundle_(**kwargs) or {}
        data = bundle[0] if isinstance(bundle, tuple) else bundle
        return {**data, "text/plain": repr(self)}

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
