"""What patients decided about research: FHIR R4 Consent to one decision per patient.

Source: https://hl7.org/fhir/R4/consent.html. The base of a Consent is ``provision.type``, or what
``policyRule`` says (``OPTIN``, ``OPTOUT``); provisions below the first are exceptions to it. What is
understood is a denial or a permission for research, with its period and purposes, and one level of
exceptions. Anything that limits a permission in another way, or cannot be read, counts as a denial: a mistake
must never put somebody into a study who did not want that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import polars as pl

from cohortflow.fhir.views.dates import span_of

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["CONSENT_VIEW", "DECISIONS", "decide_consents", "latest_decisions"]

DECISIONS: Final = pl.Schema(
    {
        "consent_id": pl.String(),
        "patient_id": pl.String(),
        "permits": pl.Boolean(),
        "decided_at": pl.Datetime("us", "UTC"),
    }
)
"""Schema of decisions: who decided what, and when."""

_SCOPE: Final = "http://terminology.hl7.org/CodeSystem/consentscope"
_CATEGORY: Final = "http://terminology.hl7.org/CodeSystem/consentcategorycodes"
_ACT_CODE: Final = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
_ACT_REASON: Final = "http://terminology.hl7.org/CodeSystem/v3-ActReason"
# Names that these systems had in STU3, and as object identifiers.
_ACT_CODES: Final = (_ACT_CODE, "http://hl7.org/fhir/v3/ActCode", "urn:oid:2.16.840.1.113883.5.4")


def _codes(system: str, codes: str) -> list[str]:
    return [f"{system}|{code}" for code in codes.split()]


_RESEARCH: Final = [
    *_codes(_SCOPE, "research"),
    *_codes(_CATEGORY, "research rsdid rsreid"),
    *_codes(_ACT_CODE, "RESEARCH RSDID RSREID"),
]
_RESEARCH_PURPOSES: Final = _codes(
    _ACT_REASON, "HRESCH BIORCH CLINTRCH CLINTRCHNPC CLINTRCHPC DSRCH POARCH PRECLINTRCH TRANSRCH"
)
# The others are parts of it: who permits clinical trials has not permitted every study.
_ANY_RESEARCH: Final = _codes(_ACT_REASON, "HRESCH")
_OTHER_SCOPES: Final = _codes(_SCOPE, "treatment adr")
_OTHER_CATEGORIES: Final = [
    # Advance directives, and papers that a patient has merely taken note of.
    # Not LOINC 57016-8, "privacy policy acknowledgement": national profiles give it to every consent.
    *_codes(_CATEGORY, "acd dnr emrgonly hcd npp polst"),
]
_OTHER_PURPOSES: Final = _codes(
    _ACT_REASON,
    "TREAT CAREMGT ETREAT BTG HPAYMT CLMATTCH COVAUTH COVERAGE ELIGDTRM ELIGVER ENROLLM REMITADV HOPERAT "
    "HMARKT HDIRECT MEMADMIN PATADMIN PATRQT FAMRQT PWATRNY SUPNWK PUBHLTH DISASTER THREAT",
)
_OPT_IN: Final = [rule for system in _ACT_CODES for rule in _codes(system, "OPTIN OPTINR")]
# With restrictions, which stand wherever they may.
_RESTRICTED: Final = [rule for system in _ACT_CODES for rule in _codes(system, "OPTINR")]
# Whatever their system is.
_OPT_OUT: Final = ["OPTOUT", "OPTOUTE"]
# Neither in force nor refused.
_IDLE: Final = ["draft", "proposed", "inactive", "entered-in-error"]

_LIMITS: Final = ("actor", "action", "securityLabel", "class", "code", "dataPeriod", "data")
"""What narrows a provision and is not evaluated."""


def _coded(name: str, path: str) -> dict[str, Any]:
    return {"name": name, "path": f"{path}.select(system & '|' & code)", "collection": True}


def _provision(prefix: str, path: str) -> list[dict[str, Any]]:
    own = f"{path}." if path else ""
    return [
        {"name": f"{prefix}_type", "path": f"{own}type"},
        {"name": f"{prefix}_start", "path": f"{own}period.start"},
        {"name": f"{prefix}_end", "path": f"{own}period.end"},
        _coded(f"{prefix}_purposes", f"{own}purpose"),
        {"name": f"{prefix}_limited", "path": " or ".join(f"{own}{limit}.exists()" for limit in _LIMITS)},
    ]


CONSENT_VIEW: Final[dict[str, Any]] = {
    "resourceType": "ViewDefinition",
    "name": "exclusions_consent",
    "status": "active",
    "resource": "Consent",
    "select": [
        {
            "column": [
                {"name": "consent_id", "path": "getResourceKey()"},
                {"name": "patient_id", "path": "patient.getReferenceKey(Patient)"},
                {"name": "status", "path": "status"},
                {"name": "date_time", "path": "dateTime"},
                _coded("scopes", "scope.coding"),
                _coded("categories", "category.coding"),
                _coded("policy_rules", "policyRule.coding"),
                {"name": "policy_codes", "path": "policyRule.coding.code", "collection": True},
                {"name": "has_implicit_rules", "path": "implicitRules.exists()"},
                *_provision("base", "provision"),
                {"name": "is_exception", "path": "provision.provision.exists()"},
            ]
        },
        {
            "forEachOrNull": "provision.provision",
            "column": [
                *_provision("exception", ""),
                {"name": "exception_has_exceptions", "path": "provision.exists()"},
            ],
        },
    ],
}
"""A ViewDefinition with a row per Consent and exception of it, the input of ``decide_consents``."""


def decide_consents(consents: pl.LazyFrame, *, begin: datetime, end: datetime) -> pl.LazyFrame:
    """Return what each Consent decides about research, where it decides anything.

    A denial counts where it is in force at any moment from ``begin`` to ``end``, a permission where it is
    during all of it. A permission that is given later than ``end`` is none yet.

    Args:
        consents: Rows of ``CONSENT_VIEW``.
        begin: First moment, with time zone.
        end: Last moment; may be the same.

    Returns:
        Rows with ``DECISIONS``. Of a date with less precision, or none, a denial takes the latest moment that
        it may mean and a permission the earliest, so that in doubt the denial is the newer.
    """
    false = pl.lit(value=False)
    about = _any(pl.col("scopes"), _RESEARCH) | _any(pl.col("categories"), _RESEARCH)
    named = about | _any(pl.col("base_purposes"), _ANY_RESEARCH)
    named_in_exception = _any(pl.col("exception_purposes"), _ANY_RESEARCH)
    is_exception = pl.col("is_exception").fill_null(value=False)
    permits_in_exception = is_exception & (pl.col("exception_type") == "permit").fill_null(false)
    facts = consents.with_columns(
        named=named,
        elsewhere=_all(pl.col("scopes"), _OTHER_SCOPES) | _all(pl.col("categories"), _OTHER_CATEGORIES),
        denies=(pl.col("base_type") == "deny").fill_null(false)
        | pl.col("policy_codes")
        .list.eval(pl.element().str.strip_chars().str.to_uppercase().is_in(_OPT_OUT))
        .list.any()
        .fill_null(false),
        allows=(pl.col("base_type") == "permit").fill_null(false) | _any(pl.col("policy_rules"), _OPT_IN),
        other_purpose=_all(pl.col("base_purposes"), _OTHER_PURPOSES),
        purpose_fits=_no(pl.col("base_purposes")) | _any(pl.col("base_purposes"), _ANY_RESEARCH),
        is_limited=pl.col("base_limited").fill_null(value=True)
        | pl.col("has_implicit_rules").fill_null(value=True)
        | _any(pl.col("policy_rules"), _RESTRICTED),
        touched=_overlaps("base", begin, end),
        covered=_covers("base", begin, end),
        is_denied=is_exception & _denies_in_exception(begin, end),
        # Where a permission permits something in particular, that may be all that it permits.
        is_particular=permits_in_exception,
        is_granted=permits_in_exception
        & ~pl.col("exception_has_exceptions").fill_null(value=True)
        & ~pl.col("exception_limited").fill_null(value=True)
        & (named_in_exception | (_no(pl.col("exception_purposes")) & named))
        & _covers("exception", begin, end),
        named_somewhere=about
        | _any(pl.col("base_purposes"), _RESEARCH_PURPOSES)
        | _any(pl.col("exception_purposes"), _RESEARCH_PURPOSES),
    )
    # A Consent has one row per exception: what is said of it as a whole is the same in all of them.
    whole = facts.group_by("consent_id").agg(
        pl.col("patient_id", "status", "date_time", "elsewhere", "named", "denies", "allows").first(),
        pl.col("other_purpose", "purpose_fits", "touched", "covered", "is_limited").first(),
        pl.col("is_denied", "is_granted", "is_particular", "named_somewhere").any(),
    )
    permission = pl.col("allows") & ~pl.col("denies")
    refused = ~pl.col("status").is_in(["active", *_IDLE]).fill_null(value=False)
    low, high = span_of(pl.col("date_time"), "date")
    permits = (
        pl.when(refused)
        .then(false)
        .when(pl.col("status") != "active")
        .then(None)
        .when(pl.col("elsewhere") & ~pl.col("named_somewhere"))
        .then(None)
        .when(~pl.col("touched"))
        .then(None)
        .when(pl.col("is_denied"))
        .then(false)
        .when(permission & ~(pl.col("named") & pl.col("purpose_fits")))
        .then(None)  # it permits something else
        .when(permission & (pl.col("is_limited") | (pl.col("is_particular") & ~pl.col("is_granted"))))
        .then(false)
        .when(permission)
        .then(pl.when(pl.col("covered")).then(pl.lit(value=True)))
        .when(pl.col("is_granted") & pl.col("purpose_fits") & ~pl.col("is_limited"))
        .then(pl.when(pl.col("covered")).then(pl.lit(value=True)).otherwise(false))
        .when(pl.col("other_purpose"))
        .then(None)
        .otherwise(false)
    )
    in_scope = ~(pl.col("elsewhere") & ~pl.col("named_somewhere"))
    too_early = pl.col("permits") & (low > end).fill_null(value=False)
    return (
        whole.with_columns(permits=permits)
        .filter(pl.col("permits").is_not_null() & in_scope & ~too_early)
        .select(
            "consent_id",
            "patient_id",
            "permits",
            pl.when("permits")
            .then(low.fill_null(pl.datetime(1, 1, 1, time_zone="UTC")))
            .otherwise(high.fill_null(pl.datetime(9999, 1, 1, time_zone="UTC")))
            .cast(DECISIONS["decided_at"])
            .alias("decided_at"),
        )
    )


def latest_decisions(decisions: pl.LazyFrame) -> pl.LazyFrame:
    """Return each patient's newest decision, of equally new ones the denial: ``patient_id, permits``."""
    newest = pl.col("permits").sort_by("decided_at", ~pl.col("permits")).last()
    return decisions.filter(pl.col("patient_id").is_not_null()).group_by("patient_id").agg(newest)


def _denies_in_exception(begin: datetime, end: datetime) -> pl.Expr:
    """Return whether an exception takes research away, or whether nobody can tell."""
    kind = pl.col("exception_type")
    denial = (kind == "deny").fill_null(value=False) & ~_all(pl.col("exception_purposes"), _OTHER_PURPOSES)
    unknown = ~kind.is_in(["deny", "permit"]).fill_null(value=False)
    nested = (kind == "permit").fill_null(value=False) & pl.col("exception_has_exceptions").fill_null(
        value=True
    )
    return (denial | unknown | nested) & _overlaps("exception", begin, end)


def _overlaps(prefix: str, begin: datetime, end: datetime) -> pl.Expr:
    """Return whether a period may have a moment in common; what cannot be read has."""
    start, _ = span_of(pl.col(f"{prefix}_start"), "date")
    _, stop = span_of(pl.col(f"{prefix}_end"), "date")
    return (start <= end).fill_null(value=True) & (stop >= begin).fill_null(value=True)


def _covers(prefix: str, begin: datetime, end: datetime) -> pl.Expr:
    """Return whether a period surely holds all moments; what is given and cannot be read does not."""
    _, start = span_of(pl.col(f"{prefix}_start"), "date")
    # The end of a period is inclusive: a date stands for all of its day.
    _, stop = span_of(pl.col(f"{prefix}_end"), "date")
    began = pl.col(f"{prefix}_start").is_null() | (start <= begin).fill_null(value=False)
    lasts = pl.col(f"{prefix}_end").is_null() | (stop >= end).fill_null(value=False)
    return began & lasts


def _no(codes: pl.Expr) -> pl.Expr:
    return codes.list.len().fill_null(0) == 0


def _any(codes: pl.Expr, known: list[str]) -> pl.Expr:
    return codes.list.eval(pl.element().is_in(known)).list.any().fill_null(value=False)


def _all(codes: pl.Expr, known: list[str]) -> pl.Expr:
    """Return whether there are codes, and all are among the known ones."""
    return ~_no(codes) & codes.list.eval(pl.element().is_in(known)).list.all().fill_null(value=False)
