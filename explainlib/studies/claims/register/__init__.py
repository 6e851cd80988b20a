"""The 46 claims with their rules and margins, in one place; the studies' ``claims.py`` say which numbers they are.

A margin is the paper's own word or a printed difference, or it says that it is ours. ``printed_effect`` is what the
paper prints in the unit of our quantity; the power table asks whether our networks could have seen it.
"""

from explainlib.studies.claims.register.meta_learning import BILEVEL, CLOSE, TLXML
from explainlib.studies.claims.register.supervised import FRAGILITY, GROUP, REPRESENTERS

CLAIMS = {claim.id: claim for claim in (*TLXML, *BILEVEL, *FRAGILITY, *REPRESENTERS, *GROUP)}

__all__ = ["BILEVEL", "CLAIMS", "CLOSE", "FRAGILITY", "GROUP", "REPRESENTERS", "TLXML"]
