"""De-identification by allow-list: PHI classes, policies, kernels.

The order of use: ``load_policy``, ``plan_redaction`` (both before any data are read), ``redact``.
Polars is imported with ``redact`` only, so that DAG files parse without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cohortflow.redaction.actions import Action, Generalization, Override, Rule, Treatment
from cohortflow.redaction.keys import ProjectKey
from cohortflow.redaction.phi import classify, classify_columns, find_rule
from cohortflow.redaction.plan import ColumnRedaction, RedactionPlan, find_subject, plan_redaction
from cohortflow.redaction.policy import PolicySettings, RedactionPolicy, check_strictness, load_policy
from cohortflow.redaction.results import Place, age_views
from cohortflow.redaction.standards import Standard

if TYPE_CHECKING:
    from cohortflow.redaction.ages import AGES, NO_AGES, find_ages, find_table_ages
    from cohortflow.redaction.kernel import count_rows_without_subject, redact

__all__ = [
    "AGES",
    "NO_AGES",
    "Action",
    "ColumnRedaction",
    "Generalization",
    "Override",
    "Place",
    "PolicySettings",
    "ProjectKey",
    "RedactionPlan",
    "RedactionPolicy",
    "Rule",
    "Standard",
    "Treatment",
    "age_views",
    "check_strictness",
    "classify",
    "classify_columns",
    "count_rows_without_subject",
    "find_ages",
    "find_rule",
    "find_subject",
    "find_table_ages",
    "load_policy",
    "plan_redaction",
    "redact",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - what a module's attribute is
    if name in {"count_rows_without_subject", "redact"}:
        from cohortflow.redaction import kernel

        return getattr(kernel, name)
    if name in {"AGES", "NO_AGES", "find_ages", "find_table_ages"}:
        from cohortflow.redaction import ages

        return getattr(ages, name)
    msg = f"module '{__name__}' has no attribute '{name}'"
    raise AttributeError(msg)
