"""What a server that fetches the keys is answered."""

import json
import logging

import httpx
import pytest

from cohortflow.connectors.keys import KeySet
from cohortflow.connectors.keys.file import create_key_file
from cohortflow.connectors.keys.server import (
    JWK_SET_TYPE,
    JWKS_PATH,
    WatchedKeyFile,
    create_key_app,
    public_document,
)
from cohortflow.errors import ConfigurationError

pytestmark = pytest.mark.anyio

NOW = 1_772_352_000
DAY = 86_400


class Moment:
    def __init__(self):
        self.now = NOW

    def __call__(self):
        return self.now


@pytest.fixture
def moment():
    return Moment()


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "keys.json"
    create_key_file(path, KeySet.generate("ES384", NOW).rotate(NOW, overlap=DAY))
    return path


@pytest.fixture
async def client(path, moment):
    app = create_key_app(WatchedKeyFile(path).current, max_age=600, clock=moment)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://keys") as client:
        yield client


def private_values(path):
    return [key["d"] for key in json.loads(path.read_text())["keys"]]


@pytest.mark.parametrize("address", [JWKS_PATH, "/jwks.json"])
async def test_the_public_set_is_served_as_smart_asks(client, path, address):
    answer = await client.get(address, headers={"Accept": "application/json"})
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "public, max-age=600"
    assert [set(key) for key in answer.json()["keys"]] == [{"kty", "kid", "use", "alg", "crv", "x", "y"}] * 2
    assert not any(value in answer.text for value in private_values(path))


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "application/json"),
        ("application/jwk-set+json, application/json;q=0.5", JWK_SET_TYPE),
        ("text/html", "application/json"),
    ],
)
async def test_the_media_type_of_the_rfc_is_for_those_who_ask(client, accept, kind):
    answer = await client.get(JWKS_PATH, headers={"Accept": accept})
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, kind)
    assert answer.headers["Vary"] == "Accept"


async def test_a_copy_is_confirmed_by_its_tag_until_the_set_changes(client, moment):
    first = await client.get(JWKS_PATH)
    tag = first.headers["ETag"]
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = await client.get(JWKS_PATH, headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", tag)
        assert again.headers["Cache-Control"] == "public, max-age=600"
    moment.now += 2 * DAY
    changed = await client.get(JWKS_PATH, headers={"If-None-Match": tag})
    assert (changed.status_code, len(changed.json()["keys"])) == (200, 1)


async def test_head_says_what_get_would(client):
    head, get = await client.head(JWKS_PATH), await client.get(JWKS_PATH)
    assert head.status_code == 200
    assert {**head.headers} == {**get.headers}


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_nothing_can_be_written(client, method):
    answer = await client.request(method, JWKS_PATH)
    assert answer.status_code == 405


@pytest.mark.parametrize("address", ["/", "/keys.json", "/.well-known/", "/docs", "/..%2Fkeys.json"])
async def test_there_is_nothing_else(client, address):
    assert (await client.get(address)).status_code == 404


async def test_a_changed_file_is_served_without_a_restart(client, path):
    before = (await client.get(JWKS_PATH)).json()
    path.unlink()
    create_key_file(path, KeySet.generate("RS384", NOW))
    after = (await client.get(JWKS_PATH)).json()
    assert [key["kty"] for key in after["keys"]] == ["RSA"]
    assert after != before


@pytest.mark.parametrize("damage", ["broken", "gone"])
async def test_a_damaged_file_leaves_the_last_good_set_in_service(client, path, damage, caplog):
    before = (await client.get(JWKS_PATH)).json()
    content = path.read_text()
    path.unlink()
    if damage == "broken":
        path.write_text(content[: len(content) // 2])
    with caplog.at_level(logging.WARNING):
        assert (await client.get(JWKS_PATH)).json() == before
        assert (await client.get(JWKS_PATH)).json() == before
    assert len(caplog.records) == 1
    health = await client.get("/healthz")
    assert (health.status_code, health.json()["status"]) == (200, "degraded")
    create_key_file(path.with_name("new.json"), KeySet.parse(content, "test"))
    path.with_name("new.json").replace(path)
    assert (await client.get("/healthz")).json() == {"status": "ok", "keys": 2, "fault": ""}


async def test_health_fails_where_no_key_is_left(moment):
    (key,) = KeySet.generate("ES384", NOW).keys
    ended = KeySet((key.moved(published_until=NOW),))
    app = create_key_app(lambda: (ended, ""), clock=moment)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://keys") as client:
        health = await client.get("/healthz")
    assert (health.status_code, health.json()["status"]) == (503, "empty")
    assert health.headers["Cache-Control"] == "no-store"


def test_a_server_does_not_start_without_keys(tmp_path):
    with pytest.raises(ConfigurationError):
        WatchedKeyFile(tmp_path / "missing.json")


def test_a_published_set_is_enough_to_serve(path, tmp_path):
    public = public_document(KeySet.parse(path.read_text(), "test"), NOW)
    (tmp_path / "public.json").write_bytes(public)
    served, fault = WatchedKeyFile(tmp_path / "public.json").current()
    assert public_document(served, NOW) == public
    assert fault == ""
