"""SMART Backend Services over HTTP: discovery, tokens, scopes, key sets behind URLs."""

import http.server
import json
import threading
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import anyio
import httpx
import pytest
from sandbox_records import (
    HTTP,
    assertion,
    bearer,
    export,
    exported,
    kick_off,
    token_form,
    wait_for_manifest,
    write_hospital,
)

from cohortflow.sandbox import (
    Fault,
    Persona,
    SandboxConfig,
    create_app,
    generate_client_key,
    running_sandbox,
)

pytestmark = pytest.mark.integration

write_data = write_hospital
PRIVATE, PUBLIC = generate_client_key()
OTHER_PRIVATE, OTHER_PUBLIC = generate_client_key("RS384")


@pytest.fixture
def start(data):
    def run(**settings):
        defaults = {"data": data, "clients": {"app": PUBLIC}, "export_seconds": 0}
        return running_sandbox(SandboxConfig(**(defaults | settings)))

    return run


@pytest.fixture
def sandbox(start):
    with start() as running:
        yield running


def test_discovery_leads_to_a_working_token(sandbox):
    found = HTTP.get(f"{sandbox.base_url}/.well-known/smart-configuration").json()
    assert found["token_endpoint"] == sandbox.token_url
    assert found["token_endpoint_auth_methods_supported"] == ["private_key_jwt"]
    assert set(found["token_endpoint_auth_signing_alg_values_supported"]) == {"RS384", "ES384"}
    answer = HTTP.post(found["token_endpoint"], data=token_form(PRIVATE, found["token_endpoint"]))
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json().keys() == {"access_token", "token_type", "expires_in", "scope"}


def test_capability_statement_needs_no_token(sandbox):
    statement = HTTP.get(f"{sandbox.base_url}/metadata").json()
    assert statement["fhirVersion"] == "4.0.1"
    assert statement["instantiates"] == ["http://hl7.org/fhir/uv/bulkdata/CapabilityStatement/bulk-data"]
    resources = {resource["type"]: resource for resource in statement["rest"][0]["resource"]}
    assert resources["Group"]["operation"][0]["definition"].endswith("group-export")
    assert "date" in {parameter["name"] for parameter in resources["Observation"]["searchParam"]}


@pytest.mark.parametrize(
    ("change", "status", "error"),
    [
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
        ({"client_assertion": "x"}, 401, "invalid_client"),
        ({"scope": "user/*.read"}, 400, "invalid_scope"),
        ({"scope": ["system/*.rs", "system/*.rs"]}, 400, "invalid_request"),
    ],
)
def test_oauth_errors(sandbox, change, status, error):
    answer = HTTP.post(sandbox.token_url, data=token_form(PRIVATE, sandbox.token_url) | change)
    assert answer.status_code == status
    assert answer.json()["error"] == error
    assert answer.json()["error_description"]


def test_a_token_request_has_to_be_a_form(sandbox):
    answer = HTTP.post(sandbox.token_url, json=token_form(PRIVATE, sandbox.token_url))
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


def test_a_replayed_assertion_is_refused(sandbox):
    form = token_form(PRIVATE, sandbox.token_url)
    assert [HTTP.post(sandbox.token_url, data=form).status_code for _ in range(2)] == [200, 401]


def test_two_replays_at_once_buy_one_token(sandbox):
    form = token_form(PRIVATE, sandbox.token_url)
    statuses = []

    def ask():
        statuses.append(HTTP.post(sandbox.token_url, data=form).status_code)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200] + [401] * 7


PROTECTED = ["Patient", "Patient/p1", "?_page=x", "$export", "Patient/$export", "Group/g1/$export"]


@pytest.mark.parametrize("path", PROTECTED)
def test_everything_else_needs_a_token(sandbox, path):
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        answer = kick_off(sandbox, path, headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.json()["resourceType"] == "OperationOutcome"


def test_an_export_belongs_to_its_client(start):
    with start(clients={"app": PUBLIC, "other": OTHER_PUBLIC}) as sandbox:
        mine = bearer(sandbox, PRIVATE)
        form = token_form(OTHER_PRIVATE, sandbox.token_url, iss="other", sub="other")
        theirs = {"Authorization": "Bearer " + HTTP.post(sandbox.token_url, data=form).json()["access_token"]}
        status_url = kick_off(sandbox, "Group/g1/$export", mine).headers["content-location"]
        manifest = wait_for_manifest(status_url, mine).json()
        assert manifest["requiresAccessToken"] is True
        for url in (status_url, manifest["output"][0]["url"]):
            assert [HTTP.get(url, headers=headers).status_code for headers in (mine, theirs, {})] == [
                200,
                404,
                401,
            ]
        assert HTTP.delete(status_url, headers=theirs).status_code == 404
        assert HTTP.get(status_url, headers=mine).status_code == 200


def test_scopes_limit_reading_searching_and_exporting(sandbox):
    headers = bearer(sandbox, PRIVATE, "system/Patient.rs system/Observation.r")

    def status(path):
        return kick_off(sandbox, path, headers).status_code

    assert [status("Patient/p1"), status("Patient"), status("Observation/o01")] == [200, 200, 200]
    assert [status("Observation"), status("Practitioner/d1"), status("Practitioner")] == [403, 403, 403]
    assert kick_off(sandbox, "$export", headers, _type="Observation").status_code == 403
    assert exported(export(sandbox, "$export", headers), headers) == {"Patient": ["p1", "p2", "p3"]}


def test_open_files_are_to_be_fetched_without_a_token(start):
    with start(file_delivery="open") as sandbox:
        headers = bearer(sandbox, PRIVATE)
        manifest = export(sandbox, "$export", headers, _type="Patient")
        assert manifest["requiresAccessToken"] is False
        url = manifest["output"][0]["url"]
        assert [HTTP.get(url).status_code, HTTP.get(url, headers=headers).status_code] == [200, 400]
        assert [record.authorized for record in sandbox.log.records() if record.path_class == "file"] == [
            False,
            True,
        ]


def test_redirected_files_need_the_token_on_the_first_hop(start):
    with start(file_delivery="redirect") as sandbox:
        headers = bearer(sandbox, PRIVATE)
        url = export(sandbox, "$export", headers, _type="Patient")["output"][0]["url"]
        assert HTTP.get(url).status_code == 401
        hop = HTTP.get(url, headers=headers)
        assert hop.status_code == 307
        assert HTTP.get(hop.headers["location"]).status_code == 200
        assert HTTP.get(hop.headers["location"], headers=headers).status_code == 400


def test_a_token_ends(start):
    with start() as sandbox:
        sandbox.faults.add(Fault(kind="token-lifetime", on="token", seconds=0))
        assert HTTP.get(f"{sandbox.base_url}/Patient", headers=bearer(sandbox, PRIVATE)).status_code == 401
        headers = bearer(sandbox, PRIVATE)
        assert HTTP.get(f"{sandbox.base_url}/Patient", headers=headers).status_code == 200
        sandbox.revoke_tokens()
        assert HTTP.get(f"{sandbox.base_url}/Patient", headers=headers).status_code == 401


def test_a_client_registers_itself_on_the_sandbox(sandbox):
    url = f"{sandbox.root_url}/_sandbox/clients"
    wrong = [
        {},
        {"client_id": "new"},
        {"client_id": "new", "jwks": {}},
        {"client_id": "new", "jwks": "/etc/passwd"},
    ]
    assert [HTTP.post(url, json=body).status_code for body in wrong] == [400] * 4
    body = {"client_id": "new", "jwks": OTHER_PUBLIC, "scope": "system/Patient.rs"}
    assert HTTP.post(url, json=body).status_code == 201
    form = token_form(OTHER_PRIVATE, sandbox.token_url, iss="new", sub="new")
    assert HTTP.post(sandbox.token_url, data=form).json()["scope"] == "system/Patient.rs"


@pytest.fixture
def jwks_server():
    keys = {"keys": list(PUBLIC["keys"])}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = json.dumps(keys).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield keys, f"http://127.0.0.1:{server.server_port}/jwks.json"
    server.shutdown()
    server.server_close()
    thread.join()


def test_keys_behind_a_url_can_be_rotated(start, jwks_server):
    keys, url = jwks_server
    with start(clients={"app": url}) as sandbox:

        def status(key):
            return HTTP.post(sandbox.token_url, data=token_form(key, sandbox.token_url)).status_code

        assert [status(PRIVATE), status(OTHER_PRIVATE)] == [200, 401]
        keys["keys"].append(OTHER_PUBLIC["keys"][0])
        assert [status(PRIVATE), status(OTHER_PRIVATE)] == [200, 200]


def test_a_key_set_that_cannot_be_reached_is_an_invalid_client(start):
    with start(clients={"app": "http://127.0.0.1:9/jwks.json"}) as sandbox:
        answer = HTTP.post(sandbox.token_url, data=token_form(PRIVATE, sandbox.token_url))
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


def test_behind_a_proxy_the_public_url_is_the_audience(data):
    app = create_app(SandboxConfig(data=data, clients={"app": PUBLIC}, public_url="https://ehr.example"))

    async def ask(audience):
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://inside:8000") as session:
            return (await session.post("/auth/token", data=token_form(PRIVATE, audience))).status_code

    try:
        assert anyio.run(ask, "https://ehr.example/auth/token") == 200
        assert anyio.run(ask, "http://inside:8000/auth/token") == 401
    finally:
        app.state.hospital.close()


def test_assertions_for_another_server_are_refused(sandbox):
    form = token_form(PRIVATE, sandbox.token_url)
    form["client_assertion"] = assertion(PRIVATE, "https://other.example/auth/token")
    assert HTTP.post(sandbox.token_url, data=form).status_code == 401


def test_a_client_with_a_secret(sandbox):
    sandbox.register_secret("small", "s3:cr%t", "system/Patient.rs")
    form = {"grant_type": "client_credentials", "scope": "system/*.rs"}
    posted = HTTP.post(sandbox.token_url, data=form | {"client_id": "small", "client_secret": "s3:cr%t"})
    assert posted.json()["scope"] == "system/Patient.rs"
    basic = HTTP.post(sandbox.token_url, data=form, auth=("small", "s3%3Acr%25t"))  # RFC 6749: encoded
    token = {"Authorization": f"Bearer {basic.json()['access_token']}"}
    assert HTTP.get(f"{sandbox.base_url}/Patient/p1", headers=token).status_code == 200
    for wrong in ({"client_id": "small", "client_secret": "x"}, {"client_id": "app", "client_secret": ""}):
        answer = HTTP.post(sandbox.token_url, data=form | wrong)
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
    found = HTTP.get(f"{sandbox.base_url}/.well-known/smart-configuration").json()
    assert "client_secret_basic" in found["token_endpoint_auth_methods_supported"]


def test_http_basic_on_every_request(sandbox):
    sandbox.register_secret("small", "s3:cr%t", "system/Patient.rs")
    url = f"{sandbox.base_url}/Patient/p1"
    answers = [HTTP.get(url, auth=("small", secret)).status_code for secret in ("s3:cr%t", "wrong")]
    assert answers == [200, 401]
    assert HTTP.get(f"{sandbox.base_url}/Observation", auth=("small", "s3:cr%t")).status_code == 403


@pytest.mark.parametrize("offset", [-120, 120, 600])
def test_a_server_whose_clock_is_wrong(start, offset):
    with start(clock_offset=offset) as sandbox:
        answer = HTTP.get(f"{sandbox.base_url}/metadata")
        assert len(answer.headers.get_list("date")) == 1
        ahead = (parsedate_to_datetime(answer.headers["date"]) - datetime.now(UTC)).total_seconds()
        assert abs(ahead - offset) < 30

        def status(**claims):
            form = token_form(PRIVATE, sandbox.token_url, **claims)
            return HTTP.post(sandbox.token_url, data=form).status_code

        now = int(time.time())
        assert status(exp=now + offset + 200, iat=now + offset - 30) == 200
        assert status(exp=now + offset - 30) == 401
        assert status(exp=now + offset + 400) == 401
        assert status(exp=now + offset + 200, iat=now + offset + 60) == 401


def test_too_many_requests_per_second(start):
    with start(persona=Persona(requests_per_second=1), open=True) as sandbox:
        url = f"{sandbox.base_url}/Patient/p1"
        answers = [HTTP.get(url) for _ in range(8)]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert refused
        assert {answer.headers["retry-after"] for answer in refused} == {"1"}
        assert sandbox.log.count("read", status=429) == len(refused)
        assert HTTP.get(f"{sandbox.base_url}/metadata").status_code == 200
