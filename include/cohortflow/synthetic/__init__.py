"""Synthetic patients as FHIR R4 NDJSON: coherent, reproducible, with the truth about each beside them."""

from cohortflow.synthetic.codes import CODES, CONDITIONS, Code, ConditionCode, Role
from cohortflow.synthetic.population import DEFAULT_AS_OF, SyntheticFile, SyntheticSummary, generate

__all__ = [
    "CODES",
    "CONDITIONS",
    "DEFAULT_AS_OF",
    "Code",
    "ConditionCode",
    "Role",
    "SyntheticFile",
    "SyntheticSummary",
    "generate",
]
