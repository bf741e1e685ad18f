"""Keys that we host: served by the real command, fetched by the sandbox EHR, rotated under its eyes."""

import asyncio
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import boto3
import httpx
import pytest
from bulk_hospital import FAST, config_of, run_export, source_of
from integration_data import write_records

from cohortflow.cli.main import run as command
from cohortflow.connectors import (
    BulkExport,
    ExportRequest,
    InProgress,
    connect,
    ensure_started,
    poll_once,
)
from cohortflow.connectors.keys import KeySet, SigningKey, load_signing_key
from cohortflow.connectors.keys.file import change_key_file
from cohortflow.connectors.keys.server import JWKS_PATH
from cohortflow.errors import AuthorizationError
from cohortflow.sandbox import Fault, running_sandbox

pytestmark = pytest.mark.integration

COMMAND = Path(sys.executable).with_name("cohortflow")
REQUEST = ExportRequest(types=("Patient",))
PATIENTS = 5


@pytest.fixture
def keys(tmp_path):
    path = tmp_path / "keys.json"
    assert command(["jwks", "generate", str(path), "--alg", "ES384"]) == 0
    return path


@pytest.fixture
def key_server(keys):
    """The command in a process of its own; gives the address that it announces, and the process."""
    process = subprocess.Popen(
        [COMMAND, "jwks", "serve", str(keys), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process.stdout.readline().strip(), process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def data(tmp_path):
    patients = ({"resourceType": "Patient", "id": f"p{number}"} for number in range(PATIENTS))
    return write_records(tmp_path / "hospital", *patients)


async def authorize(sandbox, keys, **extra):
    """Read a patient with the connection as it is now; return the kid that signed for it."""
    source = source_of(sandbox, private_key_file=str(keys), **extra)
    async with connect(source, policy=FAST) as client:
        assert (await client.request("GET", f"{sandbox.base_url}/Patient/p1")).status_code == 200
    return source.key.kid


def published(address):
    return [entry["kid"] for entry in httpx.get(address).json()["keys"]]


def test_an_export_with_keys_that_the_server_fetches_from_us(data, keys, key_server, raw):
    async def run(sandbox):
        async with connect(source_of(sandbox, private_key_file=str(keys)), policy=FAST) as client:
            return await run_export(BulkExport(client), REQUEST, raw)

    address, _ = key_server
    with running_sandbox(config_of(data, address, export_polls=2)) as sandbox:
        result = asyncio.run(run(sandbox))
    assert result.resources == {"Patient": PATIENTS}


@pytest.mark.parametrize("vendor", ["epic", "cerner"])
@pytest.mark.parametrize("algorithm", ["RS384", "ES384"])
def test_the_vendors_rules_for_clients_are_kept(data, keys, key_server, vendor, algorithm):
    """A hosted key set, a short jti, the client id as a header; scopes by type."""
    address, _ = key_server
    assert command(["jwks", "rotate", str(keys), "--overlap", "0", "--alg", algorithm]) == 0
    with running_sandbox(config_of(data, address, export_polls=2, persona=vendor)) as sandbox:
        extra = {"profile": vendor, "scopes": "system/Patient.read", "token_url": sandbox.token_url}
        assert asyncio.run(authorize(sandbox, keys, **extra)) == published(address)[0]


def test_a_rotation_does_not_interrupt_access(data, keys, key_server):
    address, _ = key_server
    [old] = published(address)
    with running_sandbox(config_of(data, address, export_polls=2)) as sandbox:
        assert asyncio.run(authorize(sandbox, keys)) == old
        assert command(["jwks", "rotate", str(keys)]) == 0
        # The waiting key is served at once, and does not sign before its time.
        first, new = published(address)
        assert first == old
        assert asyncio.run(authorize(sandbox, keys)) == old
        pass_time(keys, hours=24)
        assert asyncio.run(authorize(sandbox, keys)) == new
        assert published(address) == [new, old]
        pass_time(keys, hours=24)
        assert asyncio.run(authorize(sandbox, keys)) == new
        assert published(address) == [new]


def pass_time(keys, *, hours):
    """Let all times of a set lie so much earlier."""

    def change(key_set):
        document = json.loads(key_set.to_text())
        for key in document["keys"]:
            for member in {"iat", "nbf", "exp"}.intersection(key):
                key[member] -= hours * 3600
        return KeySet.parse(json.dumps(document), "test")

    change_key_file(keys, change)


def test_a_leaked_key_opens_nothing_after_its_rotation(data, keys, key_server):
    address, _ = key_server
    leaked = keys.with_name("leaked.json")
    leaked.write_text(keys.read_text())
    assert command(["jwks", "rotate", str(keys), "--overlap", "0"]) == 0
    with running_sandbox(config_of(data, address, export_polls=2)) as sandbox:
        with pytest.raises(AuthorizationError, match="invalid_client"):
            asyncio.run(authorize(sandbox, leaked))
        assert asyncio.run(authorize(sandbox, keys)) == published(address)[0]


def test_the_served_set_holds_no_private_member_on_the_wire(keys, key_server):
    address, _ = key_server
    command(["jwks", "rotate", str(keys)])
    assert address.endswith(JWKS_PATH)
    answer = httpx.get(address, headers={"Accept": "application/json"})
    private = json.loads(keys.read_text())["keys"]
    assert len(private) == len(answer.json()["keys"]) == 2
    assert not any(key["d"] in answer.text for key in private)
    head = httpx.head(address)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Length"] == answer.headers["Content-Length"]
    assert "server" not in answer.headers
    tag = answer.headers["ETag"]
    assert httpx.get(address, headers={"If-None-Match": tag}).status_code == 304


def test_the_key_server_ends_in_order_and_says_who_asked(key_server):
    address, process = key_server
    httpx.get(address)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 0
    assert f'"GET {JWKS_PATH} HTTP/1.1" 200' in errors


def test_a_taken_port_is_told(key_server, keys, capfd):
    address, _ = key_server
    port = str(httpx.URL(address).port)
    assert command(["jwks", "serve", str(keys), "--port", port]) == 2
    assert "cannot listen" in capfd.readouterr().err


def test_the_check_finds_the_hosted_key_and_misses_another(data, keys, key_server, monkeypatch, capsys):
    address, _ = key_server
    other = keys.with_name("other.json")
    command(["jwks", "generate", str(other), "--alg", "ES384"])
    with running_sandbox(config_of(data, address, export_polls=2)) as sandbox:
        for path, code in ((keys, 0), (other, 1)):
            extra = {"private_key_file": str(path), "jwks_url": address}
            connection = {"conn_type": "fhir", "host": sandbox.base_url, "login": "research", "extra": extra}
            monkeypatch.setenv("AIRFLOW_CONN_SANDBOX", json.dumps(connection))
            assert command(["jwks", "check", "sandbox"]) == code
    output = capsys.readouterr().out
    assert "which signs, is published" in output
    assert "which signs, is not in the published set" in output


def test_a_bucket_gives_the_set_as_json_that_may_be_kept_a_while(keys, s3, monkeypatch, capsys):
    monkeypatch.setenv("AIRFLOW_CONN_COHORTFLOW_LAKE", s3.connection())
    assert command(["jwks", "publish", str(keys), "s3://lake/keys/jwks.json", "--max-age", "600"]) == 0
    said = " ".join(capsys.readouterr().err.split())
    settings = json.loads(s3.connection())
    endpoint = settings["extra"]["endpoint_url"]
    assert f"{endpoint}/lake/keys/jwks.json" in said
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=settings["login"],
        aws_secret_access_key=settings["password"],
        region_name="us-east-1",
    )
    found = client.get_object(Bucket="lake", Key="keys/jwks.json")
    assert found["ContentType"] == "application/json"
    assert found["CacheControl"] == "public, max-age=600"
    [entry] = json.loads(found["Body"].read())["keys"]
    assert entry["kid"] == load_signing_key(keys.read_text(), place="test").kid
    assert "d" not in entry


class StoppedClock:
    """A client's clock that stands still, so that only the server notices that a token expires."""

    def __init__(self):
        self._now = time.time()

    def time(self):
        return self._now

    async def sleep(self, seconds):
        # Real time passes for the server.
        await asyncio.sleep(min(seconds, 0.05))


def test_case_1_token_expires_in_mid_poll(data, keys, key_server, raw, monkeypatch):
    """One re-authorization with a new ``jti``; the export goes on, nothing fails."""
    claims = []
    sign = SigningKey.sign

    def record(self, payload):
        claims.append(dict(payload))
        return sign(self, payload)

    async def run(sandbox):
        async with connect(
            source_of(sandbox, private_key_file=str(keys)), policy=FAST, clock=StoppedClock()
        ) as client:
            bulk = BulkExport(client)
            await ensure_started(bulk, REQUEST, raw)
            assert isinstance(await poll_once(bulk, raw), InProgress)
            assert sandbox.log.count("token", status=200) == 1
            await asyncio.sleep(1.2)
            assert isinstance(await poll_once(bulk, raw), InProgress)
            assert sandbox.log.count("status", status=401) == 1
            return await run_export(bulk, REQUEST, raw)

    monkeypatch.setattr(SigningKey, "sign", record)
    address, _ = key_server
    with running_sandbox(config_of(data, address, export_polls=3)) as sandbox:
        sandbox.faults.add(Fault(kind="token-lifetime", on="token", seconds=1))
        result = asyncio.run(run(sandbox))
        assert sandbox.log.count("kickoff") == 1
        assert sandbox.log.count("status", status=401) == 1
        assert sandbox.log.count("token") == sandbox.log.count("token", status=200) == 2
        assert all(item["aud"] == sandbox.token_url for item in claims)
    assert result.resources == {"Patient": PATIENTS}
    first, second = claims
    assert first["jti"] != second["jti"]
    assert all(0 < len(item["jti"]) <= 151 and item["exp"] - time.time() <= 300 for item in claims)
