"""A hospital of three patients for the sandbox tests, and a client that follows the specifications."""

import base64
import gzip
import json
import time
import uuid

import httpx
import jwt

SECRET_NAME = "Quackenbush"
KICK_OFF = {"Accept": "application/fhir+json", "Prefer": "respond-async"}
HTTP = httpx.Client(timeout=30)  # one for all: making one costs more than a request
_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def patient(name, **more):
    return {"resourceType": "Patient", "id": name, "name": [{"family": SECRET_NAME}]} | more


def observation(number, patient_id, updated, category="laboratory"):
    return {
        "resourceType": "Observation",
        "id": f"o{number:02}",
        "meta": {"lastUpdated": updated},
        "status": "final",
        "category": [{"coding": [{"code": category}]}],
        "code": {"coding": [{"system": "http://loinc.org", "code": f"{number % 4}-0"}]},
        "subject": {"reference": f"Patient/{patient_id}"},
        "effectiveDateTime": f"2024-01-{number + 1:02}",
    }


OBSERVATIONS = [
    observation(
        number,
        "p1" if number < 10 else "p2" if number < 15 else "p3",
        f"2024-0{1 + number // 10}-15T00:00:00Z",
        "laboratory" if number % 2 else "vital-signs",
    )
    for number in range(20)
]


def write_hospital(folder):
    """20 Observations: 10 of p1 (January), 5 of p2 and 5 of p3 (both February); the Group holds p1 and p2."""
    folder.mkdir()

    def lines(resources):
        return "".join(json.dumps(resource) + "\n" for resource in resources)

    stamp = {"meta": {"lastUpdated": "2024-01-10T00:00:00Z"}}
    (folder / "Patient.ndjson").write_text(lines(patient(name, **stamp) for name in ("p1", "p2", "p3")))
    (folder / "Observation.000.ndjson").write_text(lines(OBSERVATIONS[:8]))
    (folder / "Observation.001.ndjson.gz").write_bytes(gzip.compress(lines(OBSERVATIONS[8:]).encode()))
    practitioner = {"resourceType": "Practitioner", "id": "d1", "name": [{"family": SECRET_NAME}]} | stamp
    (folder / "Practitioner.ndjson").write_text(lines([practitioner]))
    members = [{"entity": {"reference": f"Patient/{name}"}} for name in ("p1", "p2")]
    group = {"resourceType": "Group", "id": "g1", "type": "person", "actual": True, "member": members} | stamp
    (folder / "Group.ndjson").write_text(lines([group]))
    return folder


def assertion(private_jwk, token_url, **claims):
    content = {
        "iss": "app",
        "sub": "app",
        "aud": token_url,
        "exp": int(time.time()) + 200,
        "jti": uuid.uuid4().hex,
    }
    return jwt.encode(
        content | claims, jwt.PyJWK(private_jwk).key, private_jwk["alg"], {"kid": private_jwk["kid"]}
    )


def token_form(private_jwk, token_url, scope="system/*.rs", **claims):
    return {
        "grant_type": "client_credentials",
        "client_assertion_type": _ASSERTION_TYPE,
        "client_assertion": assertion(private_jwk, token_url, **claims),
        "scope": scope,
    }


def bearer(sandbox, private_jwk, scope="system/*.rs"):
    answer = HTTP.post(sandbox.token_url, data=token_form(private_jwk, sandbox.token_url, scope))
    return {"Authorization": f"Bearer {answer.raise_for_status().json()['access_token']}"}


def kick_off(sandbox, path, headers=None, **params):
    return HTTP.get(f"{sandbox.base_url}/{path}", params=params, headers=KICK_OFF | (headers or {}))


def wait_for_manifest(status_url, headers=None):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        answer = HTTP.get(status_url, headers=headers)
        if answer.status_code != 202:
            return answer
        time.sleep(0.01)
    raise TimeoutError(status_url)


def export(sandbox, path, headers=None, **params):
    """Run an export to its end and return the manifest."""
    started = kick_off(sandbox, path, headers, **params)
    assert started.status_code == 202, started.text
    return wait_for_manifest(started.headers["content-location"], headers).raise_for_status().json()


def exported(manifest, headers=None, section="output"):
    """The ids per type of what a manifest lists; checks the counts on the way."""
    found = {}
    for entry in manifest[section]:
        lines = HTTP.get(entry["url"], headers=headers).raise_for_status().text.splitlines()
        assert len(lines) == entry["count"]
        for resource in map(json.loads, lines):
            found.setdefault(entry["type"], []).append(resource.get("id"))
    return found


NOTE = b"<p>Note</p>"
EPIC_SYSTEM = "urn:oid:1.2.840.114350.1.13.861.1.7.2.657369"


def _result(name, category, patient_id="p1", **more):
    return {
        "resourceType": "Observation",
        "id": name,
        "meta": {"lastUpdated": "2024-01-15T00:00:00Z"},
        "status": "final",
        "category": [{"coding": [{"code": category}]}],
        "code": {"coding": [{"system": "http://loinc.org", "code": f"{name}-0"}]},
        "subject": {"reference": f"Patient/{patient_id}"},
        "effectiveDateTime": "2024-01-15",
    } | more


def write_vendor_hospital(folder):
    """What vendors treat in ways of their own.

    p1 has a blood pressure panel of two members, four laboratory results (one of them a result of a
    report), three of social history, a note and a prescription; p2 has one Condition. The Group holds
    p1 and p2, and p3 is nobody's member.
    """
    folder.mkdir()
    stamp = {"meta": {"lastUpdated": "2024-01-10T00:00:00Z"}}
    subject = {"subject": {"reference": "Patient/p1"}}

    def resource(resource_type, name, **more):
        return {"resourceType": resource_type, "id": name} | stamp | more

    members = [{"reference": f"Observation/{name}"} for name in ("systolic", "diastolic")]
    resources = [
        *(patient(name, **stamp) for name in ("p1", "p2", "p3")),
        _result("panel", "vital-signs", hasMember=members),
        _result("systolic", "vital-signs"),
        _result("diastolic", "vital-signs"),
        *(_result(f"lab{number}", "laboratory") for number in range(4)),
        *(_result(f"social{number}", "social-history") for number in range(3)),
        resource(
            "DiagnosticReport",
            "report",
            status="final",
            result=[{"reference": "Observation/lab3"}],
            **subject,
        ),
        resource("Condition", "asthma", subject={"reference": "Patient/p2"}),
        resource("MedicationRequest", "rx", medicationReference={"reference": "Medication/drug"}, **subject),
        resource("Medication", "drug"),
        resource("MedicationAdministration", "dose", **subject),
        resource("Practitioner", "d1"),
        resource("DocumentReference", "note", **subject),
        resource("Binary", "b1", contentType="text/html", data=base64.b64encode(NOTE).decode()),
        resource("Provenance", "seal", target=[{"reference": "Observation/lab0"}]),
        resource(
            "Group",
            "g1",
            type="person",
            actual=True,
            member=[{"entity": {"reference": f"Patient/{name}"}} for name in ("p1", "p2")],
        ),
    ]
    for item in resources:
        with (folder / f"{item['resourceType']}.ndjson").open("a") as file:
            file.write(json.dumps(item) + "\n")
    return folder


def issues(outcome):
    """The vendor's codes of an OperationOutcome."""
    return [
        coding["code"]
        for issue in outcome["issue"]
        for coding in issue.get("details", {}).get("coding", [])
        if coding["system"] == EPIC_SYSTEM
    ]


def lines(url, headers=None):
    """The resources of an export file."""
    return [json.loads(line) for line in HTTP.get(url, headers=headers).raise_for_status().text.splitlines()]


def pages(url, params=None, headers=None):
    """The Bundles of a search, by their ``next`` links."""
    while url is not None:
        bundle = HTTP.get(url, params=params, headers=headers).raise_for_status().json()
        yield bundle
        url, params = next((link["url"] for link in bundle["link"] if link["relation"] == "next"), None), None


def found(bundles, mode="match"):
    """The ids of the entries of one search mode."""
    return [
        entry["resource"]["id"]
        for bundle in bundles
        for entry in bundle.get("entry", [])
        if entry["search"]["mode"] == mode
    ]


def remarks(bundle):
    """The vendor's codes of the remarks in a Bundle."""
    return [
        code
        for entry in bundle.get("entry", [])
        if entry["search"]["mode"] == "outcome"
        for code in issues(entry["resource"])
    ]
