"""What is said of the usual differences between the keys that sign and those that are published."""

import json

import httpx
import pytest

from cohortflow.connectors.keys import KeySet, load_signing_key
from cohortflow.connectors.keys.check import check_algorithm, check_published_keys
from cohortflow.connectors.keys.jwk import generate_private_key, write_private_key

pytestmark = pytest.mark.anyio

NOW = 1_772_352_000
HOUR = 3600
URL = "https://keys.example.org/jwks.json"
GOOD = {"Content-Type": "application/json", "Cache-Control": "public, max-age=3600"}


@pytest.fixture(scope="module")
def key_set():
    return KeySet.generate("ES384", NOW)


@pytest.fixture
def key(key_set):
    return load_signing_key(key_set.to_text(), place="test", now=NOW)


async def check(key, body, *, url=URL, headers=GOOD, status=200):
    def answer(request):
        assert "Authorization" not in request.headers
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return httpx.Response(status, headers=headers, content=content)

    return await check_published_keys(key, url, now=NOW, transport=httpx.MockTransport(answer))


def worst(findings):
    return [finding for finding in findings if finding.severity != "ok"]


async def test_a_set_in_order_has_no_findings(key, key_set):
    assert worst(await check(key, key_set.to_public(NOW))) == []


async def test_a_key_that_waits_has_to_be_published_already(key_set):
    rotated = key_set.rotate(NOW, overlap=24 * HOUR)
    key = load_signing_key(rotated.to_text(), place="test", now=NOW)
    assert worst(await check(key, rotated.to_public(NOW))) == []
    [finding] = worst(await check(key, key_set.to_public(NOW)))
    assert finding.severity == "error"
    assert "signs from 2026-03-02 08:00 UTC" in finding.text
    assert "cohortflow jwks publish" in finding.remedy


def changed(key_set, **members):
    document = key_set.to_public(NOW)
    document["keys"][0] |= members
    return document


@pytest.mark.parametrize(
    ("members", "text", "remedy"),
    [
        ({"kid": "other"}, "under another kid: 'other'", "extra 'kid' to 'other'"),
        ({"x": "A" * 64}, "another public key", "Publish the set again"),
        ({"alg": "ES256"}, "see alg", "alg ES384"),
        ({"use": "enc"}, "see use", "use sig"),
        ({"key_ops": ["sign"]}, "see key_ops", "verify"),
    ],
)
async def test_a_key_that_is_published_wrongly(key, key_set, members, text, remedy):
    [finding] = worst(await check(key, changed(key_set, **members)))
    assert finding.severity == "error"
    assert text in finding.text
    assert remedy in finding.remedy


async def test_another_key_set(key):
    other = KeySet.generate("ES384", NOW).to_public(NOW)
    [finding] = worst(await check(key, other))
    assert "is not in the published set" in finding.text


async def test_a_kid_that_is_there_twice(key, key_set):
    document = key_set.to_public(NOW)
    document["keys"] *= 2
    [finding] = worst(await check(key, document))
    assert "2 times" in finding.text


async def test_a_published_private_key_is_the_first_thing_said(key, key_set):
    findings = worst(await check(key, json.loads(key_set.to_text())))
    assert "PRIVATE" in findings[0].text
    assert "--overlap 0" in findings[0].remedy
    assert key_set.keys[0].jwk["d"] not in str(findings)


@pytest.mark.parametrize(
    ("answer", "severity", "text"),
    [
        ({"url": "http://keys.example.org/jwks.json"}, "error", "not https"),
        ({"status": 401}, "error", "HTTP 401"),
        ({"status": 404}, "error", "HTTP 404"),
        ({"body": b"<html>"}, "error", "no JWK set"),
        ({"body": []}, "error", "no JWK set"),
        ({"body": {"keys": ["a"]}}, "error", "no JWK set"),
        ({"headers": {**GOOD, "Content-Type": "text/plain"}}, "warning", "'text/plain'"),
        ({"headers": {"Content-Type": "application/json"}}, "warning", "how long"),
    ],
)
async def test_an_address_that_servers_cannot_use(key, key_set, answer, severity, text):
    answer = {"body": key_set.to_public(NOW), **answer}
    [finding] = worst(await check(key, **answer))
    assert finding.severity == severity
    assert text in finding.text
    assert finding.remedy


async def test_an_address_that_cannot_be_reached(key):
    def refuse(request):
        raise httpx.ConnectError("[Errno 111]")

    [finding] = await check_published_keys(key, URL, now=NOW, transport=httpx.MockTransport(refuse))
    assert "cannot be fetched (ConnectError)" in finding.text


async def test_a_redirect_is_told(key, key_set):
    def answer(request):
        if request.url.path == "/jwks.json":
            return httpx.Response(302, headers={"Location": "https://cdn.example.org/final.json"})
        return httpx.Response(200, headers=GOOD, json=key_set.to_public(NOW))

    [finding] = worst(await check_published_keys(key, URL, now=NOW, transport=httpx.MockTransport(answer)))
    assert "redirects to cdn.example.org" in finding.text


async def test_a_copy_that_outlives_the_change_of_keys(key_set):
    rotated = key_set.rotate(NOW, overlap=HOUR)
    key = load_signing_key(rotated.to_text(), place="test", now=NOW)
    headers = {**GOOD, "Cache-Control": "max-age=7200"}
    [finding] = worst(await check(key, rotated.to_public(NOW), headers=headers))
    assert (finding.severity, "7200 s" in finding.text) == ("warning", True)


def test_the_servers_algorithms_are_compared():
    key = load_signing_key(json.dumps(write_private_key(generate_private_key("ES384"))), place="test")
    assert check_algorithm(key, ["RS384", "ES384"]).severity == "ok"
    refused = check_algorithm(key, ["RS384"])
    assert (refused.severity, "names RS384" in refused.text) == ("error", True)
    assert check_algorithm(key, None) is None
