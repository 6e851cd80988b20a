"""The findings of the gate: one sentence each, errors before notes."""

from __future__ import annotations

import html
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Finding:
    """One finding about a model.

    Args:
        text: got, expected, and one remedy.
        error: whether it stops a computation; a note does not.
        layer: name of the layer that causes it, if any.
        kind: class of the raised error.
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
        outputs: outputs of one example; None if it could not be run.
        routes: the compared derivatives, with the relative difference from finite differences.
    """

    findings: tuple[Finding, ...]
    model: str
    outputs: int | None = None
    routes: dict[str, float] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether there is no error."""
        return not any(finding.error for finding in self.findings)

    def require(self) -> ModelReport:
        """Return the report, or raise its first error."""
        for finding in self.findings:
            if finding.error:
                raise finding.kind(finding.text)
        return self

    def __str__(self) -> str:
        """One line for the verdict, one for each finding, one for each compared derivative."""
        lines = [f"{self.model}: {'passes' if self.ok else 'is refused'}"]
        lines += [f"  {'error' if finding.error else 'note'}: {finding.text}" for finding in self.findings]
        lines += [f"  {route}: agrees with differences to {error:.0e}" for route, error in self.routes.items()]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Show the report as a list in a notebook."""
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
