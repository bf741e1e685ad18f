"""Who and what is left out or masked, whatever a study asks of the data.

Patients go by their Consents, by lists, by labels of their records and by age; records by their labels. The
order of use: ``decide_consents``, ``find_listed`` and ``find_minors`` give patients, each with a ``Reason``;
``gather_subjects`` and ``count_steps`` put them together, ``clear_rows`` applies them. ``add_labels`` makes
a view yield its records' labels, which ``has_label`` tests. Polars is imported with the first of them only,
so that DAG files parse without it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from cohortflow.redaction.exclusions.labels import (
    ENCOUNTERS,
    INLINE_LABEL,
    LABELS,
    UNCLEAR,
    add_labels,
    encounter_path,
    has_label,
    label_view,
    names_any,
    spell_labels,
    subject_path,
)
from cohortflow.redaction.exclusions.masking import mask_rows, maskable_columns

if TYPE_CHECKING:
    from cohortflow.redaction.exclusions.consent import (
        CONSENT_VIEW,
        DECISIONS,
        decide_consents,
        latest_decisions,
    )
    from cohortflow.redaction.exclusions.people import (
        IDENTIFIER_VIEW,
        PERSON_VIEW,
        find_listed,
        find_minors,
        parse_list,
    )
    from cohortflow.redaction.exclusions.subjects import (
        EXCLUDED,
        MASKED,
        STEP_SCHEMA,
        SUBJECT_SCHEMA,
        Reason,
        clear_rows,
        count_steps,
        gather_subjects,
    )

__all__ = [
    "CONSENT_VIEW",
    "DECISIONS",
    "ENCOUNTERS",
    "EXCLUDED",
    "IDENTIFIER_VIEW",
    "INLINE_LABEL",
    "LABELS",
    "MASKED",
    "PERSON_VIEW",
    "STEP_SCHEMA",
    "SUBJECT_SCHEMA",
    "UNCLEAR",
    "Reason",
    "add_labels",
    "clear_rows",
    "count_steps",
    "decide_consents",
    "encounter_path",
    "find_listed",
    "find_minors",
    "gather_subjects",
    "has_label",
    "label_view",
    "latest_decisions",
    "mask_rows",
    "maskable_columns",
    "names_any",
    "parse_list",
    "spell_labels",
    "subject_path",
]

_MODULES: Final = {
    "consent": ("CONSENT_VIEW", "DECISIONS", "decide_consents", "latest_decisions"),
    "people": ("IDENTIFIER_VIEW", "PERSON_VIEW", "find_listed", "find_minors", "parse_list"),
    "subjects": (
        "EXCLUDED",
        "MASKED",
        "STEP_SCHEMA",
        "SUBJECT_SCHEMA",
        "Reason",
        "clear_rows",
        "count_steps",
        "gather_subjects",
    ),
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - what a module's attribute is
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    msg = f"module '{__name__}' has no attribute '{name}'"
    raise AttributeError(msg)
