"""What the gate has found: sentences, each about one thing, errors before notes."""

from __future__ import annotations

import html
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Finding:
    """One sentence about a model.

    Args:
        text: what was found, what was expected, and one remedy.
        error: whether it stops a computation; a note does not.
        layer: the name of the layer that causes it, if one does.
        kind: the class that the error is raised as.
    """

    text: str
    error: bool = True
    layer: str | None = None
    kind: type[Exception] = ValueError


@dataclass(frozen=True)
class ModelReport:
    """The gate's findings on one model, one shape of examples and one loss.

    Attributes:
        findings: errors first.
        model: the class of the model.
        outputs: numbers that it answers with for one example; None if it could not be run.
        routes: the derivatives that were compared with differences, and the relative difference seen.
    """

    findings: tuple[Finding, ...]
    model: str
    outputs: int | None = None
    routes: dict[str, float] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether nothing stops a computation."""
        return not any(finding.error for finding in self.findings)

    def require(self) -> ModelReport:
        """Return the report, or raise its first error."""
        for finding in self.findings:
            if finding.error:
                raise finding.kind(finding.text)
        return self

    def __str__(self) -> str:
        """One line for the verdict, one for each finding, one for each derivative that was compared."""
        lines = [f"{self.model}: {'passes' if self.ok else 'is refused'}"]
        lines += [f"  {'error' if finding.error else 'note'}: {finding.text}" for finding in self.findings]
        lines += [f"  {route}: agrees with differences to {error:.0e}" for route, error in self.routes.items()]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Show the same as a list in a notebook."""
        verdict = "passes" if self.ok else "is refused"
        rows = [
            f"<li><b>{'error' if finding.error else 'note'}</b>: {html.escape(finding.text)}</li>"
            for finding in self.findings
        ]
        rows += [
            f"<li>{html.escape(route)}: agrees with differences to {error:.0e}</li>"
            for route, error in self.routes.items()
        ]
        return f"<p><b>{html.escape(self.model)}</b> {verdict}.</p><ul>{''.join(rows)}</ul>"
