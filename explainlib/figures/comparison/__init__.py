"""The figures of the notebook that compares all methods: who agrees with which truth, and the chart to decide by."""

from explainlib.figures.comparison.chart import STEPS, chart_words, decision_chart
from explainlib.figures.comparison.questions import (
    agreement_by_steps,
    agreement_table,
    cost_and_agreement,
    ranked_by_method,
)
from explainlib.figures.comparison.verdicts import verdict_bars

__all__ = [
    "STEPS",
    "agreement_by_steps",
    "agreement_table",
    "chart_words",
    "cost_and_agreement",
    "decision_chart",
    "ranked_by_method",
    "verdict_bars",
]
