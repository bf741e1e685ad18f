"""What an outside compliance product is told of runs: signed, in order, without patient data."""

import base64
import hashlib
import hmac
import http.server
import json
import os
import threading
from contextlib import contextmanager

import pytest
import yaml
from fhir.resources.R4B.auditevent import AuditEvent
from integration_data import read_ndjson

from cohortflow.errors import CohortflowError
from cohortflow.workflow.audit import deliver_events, open_outbox

pytestmark = pytest.mark.integration

KEY = os.urandom(32)
SECRET = "whsec_" + base64.b64encode(KEY).decode()


class Receiver(http.server.BaseHTTPRequestHandler):
    """Takes events; answers what the test has planned, 204 otherwise."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status = self.server.plan.pop(0) if self.server.plan else 204
        if status < 300:
            self.server.taken.append((dict(self.headers), body))
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_arguments):
        return


@contextmanager
def listening(port=0, plan=()):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Receiver)
    server.plan, server.taken = list(plan), []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def site(folder_site, project_copy):
    """A site whose environment delivers events."""
    path = project_copy.root / "include" / "catalog" / "environments" / "dev.yaml"
    environment = yaml.safe_load(path.read_text())
    environment["audit"] = {"zone": "{lake}/dev/audit", "webhook": "cohortflow_audit"}
    path.write_text(yaml.safe_dump(environment))
    folder_site.project = project_copy
    return folder_site


def point_to(site, port):
    site.environ["AIRFLOW_CONN_COHORTFLOW_AUDIT"] = json.dumps(
        {"conn_type": "http", "host": f"http://127.0.0.1:{port}/events", "password": SECRET}
    )


def verify(headers, body):
    """Check a delivery as its receiver would."""
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.digest(KEY, signed, hashlib.sha256)).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    event = AuditEvent.model_validate_json(body)
    assert headers["webhook-id"] == event.id
    return event


def test_a_run_is_told_signed_and_in_order(site, patients):
    with listening() as server:
        point_to(site, server.server_address[1])
        run, results = site.run()
    events = [verify(headers, body) for headers, body in server.taken]
    assert [event.subtype[0].code for event in events] == [
        "study-started",
        "source-exported",
        "datasets-released",
    ]
    details = {detail.type: detail.valueString for detail in events[-1].entity[0].detail}
    assert json.loads(details["rows"])["patient"] == results["land.patient"].datasets[0].rows
    assert details["key"] == run.key.fingerprint
    told = b"".join(body for _, body in server.taken).decode()
    for patient in read_ndjson(patients, "Patient"):
        assert patient["id"] not in told
        assert patient["name"][0]["family"] not in told
    assert SECRET not in told


def test_events_wait_for_a_receiver_that_is_down_and_never_fail_the_run(site):
    with listening() as server:
        port = server.server_address[1]
    point_to(site, port)
    run, _ = site.run()
    environment = run.plan.environment
    assert open_outbox(environment, site.deployment).count_pending() == 3
    with listening(port, plan=[503]) as server:
        delivered = deliver_events(environment, site.deployment)
    assert (delivered.delivered, delivered.waiting) == (3, 0)
    assert len({headers["webhook-id"] for headers, _ in server.taken}) == 3
    assert open_outbox(environment, site.deployment).count_pending() == 0


def test_a_refused_event_stays_and_does_not_hold_up_the_others(site):
    with listening() as server:
        port = server.server_address[1]
    point_to(site, port)
    run, _ = site.run()
    with listening(port, plan=[422]) as server:
        delivered = deliver_events(run.plan.environment, site.deployment)
    assert (delivered.delivered, delivered.waiting) == (2, 1)
    assert "422" in delivered.reason


def test_a_failed_run_is_told_with_the_step_and_the_kind_of_error(site):
    with listening() as server:
        point_to(site, server.server_address[1])
        site.sandbox.revoke_tokens()
        site.environ["AIRFLOW_CONN_FHIR_DEFAULT"] = json.dumps(
            json.loads(site.environ["AIRFLOW_CONN_FHIR_DEFAULT"]) | {"login": "nobody"}
        )
        with pytest.raises(CohortflowError):
            site.run()
    events = [verify(headers, body) for headers, body in server.taken]
    assert [event.subtype[0].code for event in events] == ["study-started", "step-failed"]
    details = {detail.type: detail.valueString for detail in events[-1].entity[0].detail}
    assert details["step"] == "extract"
    assert details["error"] == "AuthorizationError"


def test_a_run_repeated_is_told_once(site):
    with listening() as server:
        point_to(site, server.server_address[1])
        site.run()
        site.run()
    assert len(server.taken) == 3


def test_without_the_audit_zone_nothing_is_fetched(site, tmp_path):
    (tmp_path / "lake" / "dev").mkdir(parents=True)
    (tmp_path / "lake" / "dev" / "audit").write_text("a file where the folder should be")
    with listening() as server:
        point_to(site, server.server_address[1])
        with pytest.raises(CohortflowError):
            site.run()
    assert site.sandbox.log.records() == []
