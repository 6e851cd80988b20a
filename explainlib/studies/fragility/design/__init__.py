"""The fragility study as a factorial design: ``study fragility_design``."""

from explainlib.studies.fragility.design.claims import design_claims, design_evidence
from explainlib.studies.fragility.design.document import MAKERS
from explainlib.studies.fragility.design.settings import Config, Shape, config
from explainlib.studies.fragility.design.study import jobs, tables

__all__ = ["MAKERS", "Config", "Shape", "config", "design_claims", "design_evidence", "jobs", "tables"]
