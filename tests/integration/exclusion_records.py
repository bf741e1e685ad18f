"""Studies that leave people out, and records of a few patients to try them on."""

from datetime import date

import yaml

HL7 = "http://terminology.hl7.org/CodeSystem/"
STUDY = "everybody"
TEMPLATE = {
    "template": "all_records",
    "title": "All records",
    "description": "Everything of everybody.",
    "parameters": {"source": {"type": "string", "default": "fhir_default", "help": "Connection"}},
    "workflow": {
        "source": {"connection": "${source}", "level": "group", "group": "all-patients"},
        "views": ["patient", "encounter", "condition", "observation"],
    },
}
SMALL_TEMPLATE = TEMPLATE | {
    "workflow": {
        "source": {"connection": "fhir_default", "level": "system"},
        "views": ["patient", "condition"],
    }
}


def write_study(site, exclusions, template=TEMPLATE):
    root = site.project.root
    (root / "templates" / f"{template['template']}.yaml").write_text(yaml.safe_dump(template))
    study = {
        "study": STUDY,
        "title": "Everybody",
        "template": template["template"],
        "start_date": date(2026, 1, 1),
        "exclusions": exclusions,
    }
    (root / "dags/studies" / f"{STUDY}.yaml").write_text(yaml.safe_dump(study))


def published(site, run, view="patient"):
    """Return whose rows a dataset has, as pseudonyms."""
    return set(site.rows(run, view)["patient_id"])


def pseudonyms(run, patients):
    return {run.key.pseudonym("Patient", patient) for patient in patients}


def label(code, system="v3-ActCode"):
    return {"meta": {"security": [{"system": HL7 + system, "code": code}]}}


def patient(number, **elements):
    return {
        "resourceType": "Patient",
        "id": number,
        "gender": "female",
        "birthDate": "1980-01-01",
        **elements,
    }


def condition(number, subject, **elements):
    return {
        "resourceType": "Condition",
        "id": number,
        "subject": {"reference": f"Patient/{subject}"},
        "code": {"coding": [{"system": "http://snomed.info/sct", "code": "195967001"}]},
        "recordedDate": "2026-01-01",
        **elements,
    }


def encounter(number, subject, **elements):
    return {
        "resourceType": "Encounter",
        "id": number,
        "status": "finished",
        "class": {"code": "AMB"},
        "subject": {"reference": f"Patient/{subject}"},
        "period": {"start": "2026-01-01"},
        **elements,
    }


def denial(number, subject, **elements):
    return {
        "resourceType": "Consent",
        "id": number,
        "status": "active",
        "scope": {"coding": [{"system": HL7 + "consentscope", "code": "research"}]},
        "patient": {"reference": f"Patient/{subject}"},
        "provision": {"type": "deny"},
        **elements,
    }


def permission(number, subject, **elements):
    return denial(number, subject, **{"provision": {"type": "permit"}, **elements})
