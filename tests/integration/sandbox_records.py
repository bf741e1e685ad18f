"""A hospital of three patients for the sandbox tests, and a client that follows the specifications."""

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
