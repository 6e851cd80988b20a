"""The study of task influence in meta-learning (TLXML)."""

from explainlib.studies.tlxml.claims import tlxml_claims, tlxml_evidence
from explainlib.studies.tlxml.document import MAKERS
from explainlib.studies.tlxml.mixtures import Mixture, order_of
from explainlib.studies.tlxml.order_table import TENTHS, OrderTable, read_order, small_network
from explainlib.studies.tlxml.settings import Config, config
from explainlib.studies.tlxml.study import jobs, tables

__all__ = [
    "MAKERS",
    "TENTHS",
    "Config",
    "Mixture",
    "OrderTable",
    "config",
    "jobs",
    "order_of",
    "read_order",
    "small_network",
    "tables",
    "tlxml_claims",
    "tlxml_evidence",
]
