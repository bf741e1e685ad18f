"""FHIR Consents to one decision per patient: what is understood, and that the rest counts as a denial."""

import json
from datetime import UTC, datetime

import polars as pl
import pytest

from cohortflow.fhir.views import compile_view
from cohortflow.redaction.exclusions import CONSENT_VIEW, decide_consents, latest_decisions

HL7 = "http://terminology.hl7.org/CodeSystem/"
BEGIN, END = datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC)
RESEARCH = [{"system": HL7 + "v3-ActReason", "code": "HRESCH"}]
TREATMENT = [{"system": HL7 + "v3-ActReason", "code": "TREAT"}]
TRIALS = [{"system": HL7 + "v3-ActReason", "code": "CLINTRCH"}]
SOMEBODY = {"actor": [{"role": {"text": "x"}, "reference": {"display": "y"}}]}
DENY, PERMIT = {"type": "deny"}, {"type": "permit"}


def concept(system, code):
    return {"coding": [{"system": HL7 + system, "code": code}]}


def consent(provision=None, *, scope="research", category=None, policy=None, **elements):
    made = {
        "resourceType": "Consent",
        "id": "c1",
        "status": "active",
        "scope": concept("consentscope", scope),
        "category": [category or {"text": "any"}],
        "patient": {"reference": "Patient/p1"},
        "dateTime": "2026-01-01",
    }
    made |= {} if provision is None else {"provision": provision}
    made |= {} if policy is None else {"policyRule": concept("v3-ActCode", policy)}
    return {key: value for key, value in (made | elements).items() if value is not None}


@pytest.fixture
def decide(tmp_path):
    """Returns what each patient decided: ``True`` permits, ``False`` denies, missing: nothing."""
    view = compile_view(CONSENT_VIEW)

    def work(*consents, begin=BEGIN, end=END):
        path = tmp_path / "consents.ndjson"
        path.write_text("".join(json.dumps(one) + "\n" for one in consents))
        rows = view.lazy(pl.scan_ndjson(path, schema=view.read_schema))
        decisions = decide_consents(rows, begin=begin, end=end)
        return dict(latest_decisions(decisions).collect().iter_rows())

    return work


@pytest.mark.parametrize(
    ("made", "decision"),
    [
        pytest.param(consent(DENY), False, id="a denial"),
        pytest.param(consent(PERMIT), True, id="a permission"),
        pytest.param(consent(policy="OPTOUT"), False, id="denied by the policy's rule"),
        pytest.param(consent(policy="OPTIN"), True, id="permitted by the policy's rule"),
        pytest.param(consent(PERMIT, policy="OPTOUT"), False, id="both: the denial counts"),
        pytest.param(consent(policy="OPTINR"), False, id="permitted with restrictions, wherever they stand"),
        *(
            pytest.param(
                consent(PERMIT, policyRule={"coding": [{"code": code} | system]}),
                False,
                id=f"both, the denial as {code} of {system or 'no system'}",
            )
            for code in ("OPTOUT", "OPTOUTE", "optout")
            for system in ({}, {"system": "http://hl7.org/fhir/v3/ActCode"}, {"system": "http://x.example"})
        ),
        pytest.param(
            consent(policyRule={"coding": [{"system": "http://hl7.org/fhir/v3/ActCode", "code": "OPTIN"}]}),
            True,
            id="permitted by the policy's rule under its older name",
        ),
        pytest.param(consent(PERMIT, implicitRules="http://x.example/rules"), False, id="by other rules"),
        pytest.param(consent(), False, id="a research consent that says nothing"),
        pytest.param(consent({"type": "perhaps"}), False, id="a type that nobody knows"),
        pytest.param(consent(DENY, scope="patient-privacy"), False, id="privacy denied in general"),
        pytest.param(consent(PERMIT, scope="patient-privacy"), None, id="privacy permitted in general"),
        pytest.param(
            consent(PERMIT, scope="patient-privacy", category=concept("consentcategorycodes", "research")),
            True,
            id="research named by the category",
        ),
        pytest.param(
            consent({**PERMIT, "purpose": RESEARCH}, scope="patient-privacy"),
            True,
            id="research named by the purpose",
        ),
        pytest.param(consent(DENY, scope="treatment"), None, id="treatment denied"),
        pytest.param(consent(DENY, scope="adr"), None, id="an advance directive"),
        pytest.param(consent(DENY, scope="something"), False, id="an unknown scope denied"),
        pytest.param(consent(PERMIT, scope="something"), None, id="an unknown scope permitted"),
        pytest.param(
            consent(DENY, scope="patient-privacy", category=concept("consentcategorycodes", "npp")),
            None,
            id="a notice of privacy practices",
        ),
        pytest.param(
            consent(
                DENY,
                scope="patient-privacy",
                category={"coding": [{"system": "http://loinc.org", "code": "57016-8"}]},
            ),
            False,
            id="denied on a form that national profiles give every consent",
        ),
        pytest.param(consent(PERMIT, dateTime="2030-01-01"), None, id="a permission of a later day"),
        pytest.param(consent(PERMIT, dateTime="2026-11-01"), True, id="a permission of the last day"),
        pytest.param(consent(DENY, dateTime="2030-01-01"), False, id="a denial of a later day"),
        pytest.param(consent({**PERMIT, "purpose": TRIALS}), None, id="permitted for clinical trials alone"),
        pytest.param(consent({**DENY, "purpose": TRIALS}), False, id="denied for clinical trials alone"),
        pytest.param(
            consent({**DENY, "purpose": TRIALS}, scope="treatment"),
            False,
            id="denied for research in passing",
        ),
        pytest.param(consent({**DENY, "purpose": TREATMENT}), None, id="denied for treatment alone"),
        pytest.param(consent({**DENY, "purpose": TREATMENT + RESEARCH}), False, id="denied for both"),
        pytest.param(
            consent({**DENY, "purpose": [{"system": "http://x.example", "code": "y"}]}),
            False,
            id="denied for a purpose that nobody knows",
        ),
        pytest.param(consent({**PERMIT, "purpose": TREATMENT}), None, id="permitted for treatment alone"),
        pytest.param(
            consent({**DENY, "actor": [{"role": {"text": "x"}, "reference": {"display": "y"}}]}),
            False,
            id="denied to somebody",
        ),
        *(
            pytest.param(consent({**PERMIT, **limit}), False, id=f"permitted within {next(iter(limit))}")
            for limit in (
                {"actor": [{"role": {"text": "x"}, "reference": {"display": "y"}}]},
                {"action": [{"text": "collect"}]},
                {"class": [{"code": "Condition"}]},
                {"code": [{"text": "x"}]},
                {"securityLabel": [{"code": "N"}]},
                {"dataPeriod": {"start": "2020"}},
                {"data": [{"meaning": "instance", "reference": {"display": "x"}}]},
            )
        ),
        pytest.param(consent(DENY, status="inactive"), None, id="given up"),
        pytest.param(consent(DENY, status="entered-in-error"), None, id="an error"),
        pytest.param(consent(PERMIT, status="draft"), None, id="a draft"),
        pytest.param(consent(PERMIT, status="rejected"), False, id="rejected"),
        pytest.param(consent(PERMIT, status=None), False, id="without a status"),
        pytest.param(consent(PERMIT, status="rejected", scope="treatment"), None, id="treatment rejected"),
    ],
)
def test_one_consent(decide, made, decision):
    assert decide(made).get("p1") is decision


@pytest.mark.parametrize(
    ("base", "exceptions", "decision"),
    [
        pytest.param(DENY, [{**PERMIT, "purpose": RESEARCH}], True, id="denied but for research"),
        pytest.param(DENY, [PERMIT], True, id="denied but for what a research consent is about"),
        pytest.param(DENY, [{**PERMIT, "purpose": TREATMENT}], False, id="denied but for treatment"),
        pytest.param(
            DENY,
            [{**PERMIT, "purpose": RESEARCH, "class": [{"code": "Condition"}]}],
            False,
            id="denied but for some records in research",
        ),
        pytest.param(
            DENY,
            [{**PERMIT, "purpose": RESEARCH, "provision": [DENY]}],
            False,
            id="exceptions of an exception",
        ),
        pytest.param(
            DENY,
            [{**PERMIT, "purpose": RESEARCH}, {**DENY, "purpose": RESEARCH}],
            False,
            id="exceptions that contradict each other",
        ),
        pytest.param(
            DENY,
            [{**PERMIT, "purpose": RESEARCH, "period": {"end": "2026-10-15"}}],
            False,
            id="an exception that ended",
        ),
        pytest.param(PERMIT, [{**DENY, "purpose": RESEARCH}], False, id="permitted but for research"),
        pytest.param(PERMIT, [{**DENY, "purpose": TREATMENT}], True, id="permitted but for treatment"),
        pytest.param(PERMIT, [{**DENY, "code": [{"text": "x"}]}], False, id="permitted but for some codes"),
        pytest.param(PERMIT, [{**DENY, "period": {"end": "2026-09-30"}}], True, id="a denial that ended"),
        pytest.param(PERMIT, [{"purpose": RESEARCH}], False, id="an exception of no type"),
        pytest.param(PERMIT, [{**PERMIT, "provision": [DENY]}], False, id="a permission with exceptions"),
        pytest.param({}, [{**PERMIT, "purpose": RESEARCH}], True, id="no base, research permitted"),
        pytest.param({}, [{**DENY, "purpose": RESEARCH}], False, id="no base, research denied"),
        pytest.param(
            {**DENY, **SOMEBODY},
            [{**PERMIT, "purpose": RESEARCH}],
            False,
            id="denied to somebody but for research",
        ),
        pytest.param(
            {**DENY, "purpose": TREATMENT},
            [{**PERMIT, "purpose": RESEARCH}],
            None,
            id="an exception from what is denied for treatment",
        ),
        pytest.param(
            PERMIT,
            [{**PERMIT, "class": [{"code": "Condition"}]}],
            False,
            id="permitted, namely some records",
        ),
        pytest.param(PERMIT, [{**PERMIT, "purpose": TREATMENT}], False, id="permitted, namely for treatment"),
        pytest.param(
            PERMIT,
            [{**PERMIT, "purpose": TREATMENT}, {**PERMIT, "purpose": RESEARCH}],
            True,
            id="permitted, namely for treatment and for research",
        ),
        pytest.param(
            PERMIT,
            [{**PERMIT, "purpose": RESEARCH, "period": {"end": "2026-10-15"}}],
            False,
            id="permitted, namely for a time that ended",
        ),
        pytest.param(DENY, [{**PERMIT, "purpose": TRIALS}], False, id="denied but for clinical trials"),
    ],
)
def test_exceptions(decide, base, exceptions, decision):
    assert decide(consent({**base, "provision": exceptions})).get("p1") is decision


def test_a_permission_of_a_later_day_does_not_undo_a_denial(decide):
    denied = consent(DENY, id="c1", dateTime="2026-05-01")
    assert decide(denied, consent(PERMIT, id="c2", dateTime="2027-01-01")) == {"p1": False}
    assert decide(denied, consent(PERMIT, id="c2", dateTime="2026-10-31")) == {"p1": True}


@pytest.mark.parametrize(
    ("period", "denied", "permitted"),
    [
        ({}, False, True),
        ({"start": "2026-09-01", "end": "2026-12-31"}, False, True),
        ({"end": "2026-09-30T23:59:59Z"}, None, None),
        ({"start": "2026-11-02"}, None, None),
        # In force for a part of the time from the interval's end to the export.
        ({"end": "2026-10-15"}, False, None),
        ({"start": "2026-10-15"}, False, None),
        # Of a month nobody knows the day.
        ({"start": "2026-10"}, False, None),
        ({"end": "2026-11"}, False, True),
        ({"start": "soon"}, False, None),
    ],
)
def test_periods(decide, period, denied, permitted):
    assert decide(consent({**DENY, "period": period})).get("p1") is denied
    assert decide(consent({**PERMIT, "period": period})).get("p1") is permitted


@pytest.mark.parametrize(
    ("denied", "permitted", "decision"),
    [
        ("2025-01-01", "2026-01-01", True),
        ("2026-01-01", "2025-01-01", False),
        ("2026-01-01", "2026-01-01", False),
        ("2026", "2026-05-01", False),
        ("2026-05-01", "2026", False),
        ("2025", "2026", True),
        (None, "2026-01-01", False),
        ("1990-01-01", None, False),
        ("2026-01-01T10:00:00+02:00", "2026-01-01T09:00:00Z", True),
    ],
)
def test_the_newest_decision_counts_and_in_doubt_the_denial(decide, denied, permitted, decision):
    first = consent(DENY, id="c1", dateTime=denied)
    second = consent(PERMIT, id="c2", dateTime=permitted)
    assert decide(first, second) == decide(second, first) == {"p1": decision}


def test_a_denial_without_a_patient_is_told(decide, tmp_path):
    view = compile_view(CONSENT_VIEW)
    path = tmp_path / "one.ndjson"
    path.write_text(json.dumps(consent(DENY, patient={"identifier": {"value": "1"}})) + "\n")
    rows = view.lazy(pl.scan_ndjson(path, schema=view.read_schema))
    found = decide_consents(rows, begin=BEGIN, end=END).collect()
    assert found.select("patient_id", "permits").rows() == [(None, False)]
    assert decide(consent(DENY, patient=None)) == {}
