"""SMART Backend Services and the other ways to be let in."""

import asyncio
import json
import logging
from dataclasses import replace
from urllib.parse import parse_qs

import httpx
import jwt
import pytest
from connectors_doubles import BASE, STATUS, Ehr, FakeClock, bulk_of, reply

from cohortflow.connectors import PROFILES, ExportRequest, FhirSource, InProgress
from cohortflow.connectors.keys import KeySet, load_signing_key
from cohortflow.errors import AuthorizationError, ConfigurationError, TransientSourceError

pytestmark = pytest.mark.anyio

TOKEN_URL = "https://login.example.org/token"


def token(value="t1", expires_in=300):
    return reply(body={"access_token": value, "token_type": "bearer", "expires_in": expires_in})


@pytest.fixture
def server():
    return (
        Ehr()
        .on("POST", TOKEN_URL, token())
        .on("GET", f"{BASE}/$export", reply(202, headers={"Content-Location": STATUS}))
        .on("GET", STATUS, reply(202))
    )


@pytest.fixture
def source(ec_pem):
    key = load_signing_key(ec_pem, kid="key-1", place="test")
    return FhirSource(
        "ehr",
        BASE,
        auth="backend_services",
        client_id="app",
        key=key,
        token_url=TOKEN_URL,
        scopes=("system/Patient.read",),
    )


def form(request):
    return {name: values[0] for name, values in parse_qs(request.content.decode()).items()}


async def test_assertion_follows_smart(server, source, ec_key, clock):
    async with bulk_of(server, source=source, clock=clock) as bulk:
        await bulk.kick_off(ExportRequest())
    [request] = server.sent("POST", TOKEN_URL)
    sent = form(request)
    assert sent["grant_type"] == "client_credentials"
    assert sent["scope"] == "system/Patient.read"
    assert sent["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    assert jwt.get_unverified_header(sent["client_assertion"]) == {
        "alg": "ES384",
        "kid": "key-1",
        "typ": "JWT",
    }
    claims = jwt.decode(
        sent["client_assertion"],
        ec_key.public_key(),
        algorithms=["ES384"],
        audience=TOKEN_URL,
        options={"verify_exp": False, "verify_iat": False},
    )
    assert claims["iss"] == claims["sub"] == "app"
    assert clock.now < claims["exp"] <= clock.now + 300
    assert claims["exp"] - claims["iat"] <= 300
    assert 0 < len(claims["jti"]) <= 151
    assert server.sent("GET", f"{BASE}/$export")[0].headers["Authorization"] == "Bearer t1"


async def test_token_is_kept_until_shortly_before_it_expires(server, source, clock):
    server.on("POST", TOKEN_URL, token("t1", 300), token("t2", 300))
    async with bulk_of(server, source=source, clock=clock) as bulk:
        await bulk.poll(STATUS)
        clock.now += 260
        await bulk.poll(STATUS)
        assert len(server.sent("POST", TOKEN_URL)) == 1
        clock.now += 20
        await bulk.poll(STATUS)
    tokens = [request.headers["Authorization"] for request in server.sent("GET", STATUS)]
    assert tokens == ["Bearer t1", "Bearer t1", "Bearer t2"]


async def test_token_refused_within_a_poll_is_renewed_once_with_a_new_jti(server, source):
    server.on("POST", TOKEN_URL, token("t1"), token("t2"))
    server.on("GET", STATUS, reply(401), reply(202))
    async with bulk_of(server, source=source) as bulk:
        assert isinstance(await bulk.poll(STATUS), InProgress)
    jtis = [
        jwt.decode(form(request)["client_assertion"], options={"verify_signature": False})["jti"]
        for request in server.sent("POST", TOKEN_URL)
    ]
    assert len(set(jtis)) == 2
    assert server.sent("GET", STATUS)[1].headers["Authorization"] == "Bearer t2"


async def test_fresh_token_that_is_refused_too_is_an_authorization_error(server, source):
    server.on("GET", STATUS, reply(401))
    async with bulk_of(server, source=source) as bulk:
        with pytest.raises(AuthorizationError):
            await bulk.poll(STATUS)
    assert len(server.sent("POST", TOKEN_URL)) == 2


async def test_concurrent_requests_share_one_token_request(server, source):
    async def handler(request):
        await asyncio.sleep(0)
        return server(request)

    async with bulk_of(handler, source=source) as bulk:
        await asyncio.gather(*(bulk.poll(STATUS) for _ in range(8)))
        assert len(server.sent("POST", TOKEN_URL)) == 1
        server.on("POST", TOKEN_URL, token("t2"))
        server.requests.clear()

        def only_new(request):
            return reply(202 if request.headers["Authorization"] == "Bearer t2" else 401)(request)

        server.on("GET", STATUS, only_new)
        await asyncio.gather(*(bulk.poll(STATUS) for _ in range(8)))
        assert len(server.sent("POST", TOKEN_URL)) == 1


@pytest.mark.parametrize(
    ("code", "remedy"),
    [("invalid_client", "kid"), ("invalid_scope", "scopes"), ("unauthorized_client", "grant")],
)
async def test_refused_credentials_name_the_code_and_the_remedy(server, source, code, remedy):
    body = {"error": code, "error_description": "client 'app' of Jane Doe"}
    server.on("POST", TOKEN_URL, reply(400, body=body))
    async with bulk_of(server, source=source) as bulk:
        with pytest.raises(AuthorizationError, match=code) as caught:
            await bulk.poll(STATUS)
    assert remedy in caught.value.remedy
    assert "Jane" not in str(caught.value)
    assert len(server.sent("POST", TOKEN_URL)) == 1


async def test_clock_skew_is_corrected_by_the_servers_date(server, source, ec_key):
    clock = FakeClock(1_772_352_000.0)  # 2026-03-01T08:00:00Z, an hour behind the server
    server_date = "Sun, 01 Mar 2026 09:00:00 GMT"
    server.on(
        "POST",
        TOKEN_URL,
        reply(401, body={"error": "invalid_client"}, headers={"Date": server_date}),
        token(),
    )
    async with bulk_of(server, source=source, clock=clock) as bulk:
        await bulk.poll(STATUS)
    second = form(server.sent("POST", TOKEN_URL)[1])["client_assertion"]
    claims = jwt.decode(second, options={"verify_signature": False})
    assert clock.now + 3600 < claims["exp"] <= clock.now + 3600 + 300


async def test_busy_token_endpoint_is_tried_again(server, source, clock):
    server.on("POST", TOKEN_URL, reply(503, headers={"Retry-After": "9"}), token())
    async with bulk_of(server, source=source, clock=clock) as bulk:
        await bulk.poll(STATUS)
    assert clock.slept == [9.0]


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param({"token_endpoint": TOKEN_URL}, id="smart-configuration"),
        pytest.param(None, id="CapabilityStatement"),
    ],
)
async def test_token_url_is_discovered(server, source, statement):
    uris = [{"url": "authorize", "valueUri": "https://x/a"}, {"url": "token", "valueUri": TOKEN_URL}]
    oauth = {
        "url": "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris",
        "extension": uris,
    }
    smart = reply(body=statement) if statement else reply(404)
    server.on("GET", f"{BASE}/.well-known/smart-configuration", smart)
    server.on("GET", f"{BASE}/metadata", reply(body={"rest": [{"security": {"extension": [oauth]}}]}))
    undiscovered = FhirSource("ehr", BASE, auth="backend_services", client_id="app", key=source.key)
    async with bulk_of(server, source=undiscovered) as bulk:
        await bulk.poll(STATUS)
    assert len(server.sent("POST", TOKEN_URL)) == 1


@pytest.mark.parametrize("endpoint", [{}, {"token_endpoint": "http://login.example.org/token"}])
async def test_missing_or_insecure_token_endpoint_is_a_configuration_error(server, source, endpoint):
    server.on("GET", f"{BASE}/.well-known/smart-configuration", reply(body=endpoint))
    undiscovered = FhirSource("ehr", BASE, auth="backend_services", client_id="app", key=source.key)
    async with bulk_of(server, source=undiscovered) as bulk:
        with pytest.raises(ConfigurationError) as caught:
            await bulk.poll(STATUS)
    assert "token_url" in caught.value.remedy


async def test_client_secret_and_basic(server):
    secret = FhirSource("ehr", BASE, auth="client_secret", client_id="a:b", secret="p w", token_url=TOKEN_URL)
    async with bulk_of(server, source=secret) as bulk:
        await bulk.poll(STATUS)
    assert (
        httpx.BasicAuth("a%3Ab", "p%20w")._auth_header
        == server.sent("POST", TOKEN_URL)[0].headers["Authorization"]
    )
    basic = FhirSource("ehr", BASE, auth="basic", client_id="user", secret="pw")
    async with bulk_of(server, source=basic) as bulk:
        await bulk.poll(STATUS)
    assert (
        server.sent("GET", STATUS)[-1].headers["Authorization"] == httpx.BasicAuth("user", "pw")._auth_header
    )


async def test_token_request_does_not_follow_redirects(server, source):
    server.on("POST", TOKEN_URL, reply(307, headers={"Location": "https://evil.example.com/token"}))
    async with bulk_of(server, source=source) as bulk:
        with pytest.raises(AuthorizationError):
            await bulk.poll(STATUS)
    assert {request.url.host for request in server.requests} == {"login.example.org"}


async def test_logs_hold_no_token_and_no_assertion(server, source, caplog):
    caplog.set_level(logging.DEBUG)
    server.on("POST", TOKEN_URL, token("s3cr3t-token"))
    async with bulk_of(server, source=source) as bulk:
        await bulk.poll(STATUS)
    assert "ehr.example.org" in caplog.text
    assertion = form(server.sent("POST", TOKEN_URL)[0])["client_assertion"]
    assert "s3cr3t-token" not in caplog.text
    assert assertion not in caplog.text


async def test_answer_without_a_token_is_refused(server, source):
    server.on("POST", TOKEN_URL, reply(body=json.dumps([]).encode()))
    async with bulk_of(server, source=source) as bulk:
        with pytest.raises(AuthorizationError, match="without an access token"):
            await bulk.kick_off(ExportRequest())


async def test_unreachable_token_endpoint_fails_the_kick_off_as_transient(server, source):
    server.on("POST", TOKEN_URL, httpx.ConnectError("refused"))
    async with bulk_of(server, source=source, attempts=2) as bulk:
        with pytest.raises(TransientSourceError):
            await bulk.kick_off(ExportRequest())


async def test_a_rotated_set_signs_with_the_next_key_when_its_time_comes(server, source, clock):
    server.on("POST", TOKEN_URL, token("t1", 300), token("t2", 300))
    rotated = KeySet.generate("ES384", clock.now).rotate(clock.now, overlap=3600)
    new, old = rotated.keys
    key = load_signing_key(rotated.to_text(), place="test", now=clock.now)
    async with bulk_of(server, source=replace(source, key=key), clock=clock) as bulk:
        await bulk.poll(STATUS)
        clock.now += 3600
        await bulk.poll(STATUS)
    sent = [form(request)["client_assertion"] for request in server.sent("POST", TOKEN_URL)]
    assert [jwt.get_unverified_header(assertion)["kid"] for assertion in sent] == [old.kid, new.kid]


async def test_a_repeated_token_request_has_a_jti_of_its_own(server, source):
    server.on("POST", TOKEN_URL, reply(503), httpx.ReadTimeout("late"), token())
    async with bulk_of(server, source=source) as bulk:
        await bulk.poll(STATUS)
    jtis = [
        jwt.decode(form(request)["client_assertion"], options={"verify_signature": False})["jti"]
        for request in server.sent("POST", TOKEN_URL)
    ]
    assert len(set(jtis)) == len(jtis) == 3


async def test_behind_a_proxy_assertions_name_the_real_token_endpoint(server, source, clock):
    behind = replace(source, audience="https://login.real.example.org/token")
    async with bulk_of(server, source=behind, clock=clock) as bulk:
        await bulk.poll(STATUS)
    [request] = server.sent("POST", TOKEN_URL)
    claims = jwt.decode(form(request)["client_assertion"], options={"verify_signature": False})
    assert claims["aud"] == "https://login.real.example.org/token"


@pytest.mark.parametrize("headers", [{}, {"epic-client-id": "other"}])
async def test_epic_is_told_the_client_id_with_the_token_request_too(server, source, headers):
    epic = replace(source, profile=PROFILES["epic"], headers=headers)
    async with bulk_of(server, source=epic) as bulk:
        await bulk.poll(STATUS)
    sent = [request.headers.get_list("Epic-Client-ID") for request in server.requests]
    assert sent == [["other" if headers else "app"]] * 2


@pytest.mark.parametrize("expires_in", [None, "soon", "NaN", 0, -1])
async def test_a_token_without_a_usable_lifetime_is_renewed_early(server, source, clock, expires_in):
    server.on("POST", TOKEN_URL, token("t1", expires_in), token("t2"))
    async with bulk_of(server, source=source, clock=clock) as bulk:
        await bulk.poll(STATUS)
        clock.now += 280
        await bulk.poll(STATUS)
    assert len(server.sent("POST", TOKEN_URL)) == 2


@pytest.mark.parametrize(
    ("auth", "remedy"),
    [
        ("none", "went without credentials"),
        ("basic", "Check login and password"),
        ("client_secret", "A fresh token was refused"),
    ],
)
async def test_what_401_means_depends_on_what_was_sent(server, auth, remedy):
    server.on("GET", STATUS, reply(401))
    asked = FhirSource("ehr", BASE, auth=auth, client_id="app", secret="s3cr3t", token_url=TOKEN_URL)
    async with bulk_of(server, source=asked) as bulk:
        with pytest.raises(AuthorizationError) as caught:
            await bulk.poll(STATUS)
    assert remedy in caught.value.remedy
