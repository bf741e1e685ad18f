"""SMART Backend Services: each way in which an assertion or a scope is refused."""

import json
import time
import uuid

import jwt
import pytest

from cohortflow.errors import InputError
from cohortflow.sandbox import Persona, generate_client_key, parse_client
from cohortflow.sandbox.authorization import ClientRegistry, TokenIssuer
from cohortflow.sandbox.outcome import OAuthRefusalError, RefusalError
from cohortflow.sandbox.scopes import allows, grant_scopes, parse_scopes

TOKEN_URL = "https://ehr.example/auth/token"
ES384 = generate_client_key("ES384")
RS384 = generate_client_key("RS384")
STRANGER = generate_client_key("ES384")


def assertion(key=ES384, headers=(), drop=(), **claims):
    private = key[0]
    content = {
        "iss": "app",
        "sub": "app",
        "aud": TOKEN_URL,
        "exp": int(time.time()) + 200,
        "jti": uuid.uuid4().hex,
    } | claims
    content = {name: value for name, value in content.items() if name not in drop}
    head = {"kid": private["kid"]} | dict(headers)
    return jwt.encode(
        content, jwt.PyJWK(private).key, private["alg"], {k: v for k, v in head.items() if v is not None}
    )


def form(token, **more):
    return {
        "grant_type": "client_credentials",
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": token,
        "scope": "system/*.read",
    } | more


@pytest.fixture
def issuer():
    clients = ClientRegistry()
    clients.add("app", {"keys": ES384[1]["keys"] + RS384[1]["keys"]})
    clients.add("narrow", ES384[1], "system/Patient.rs system/Observation.r")
    return TokenIssuer(clients, Persona())


@pytest.mark.parametrize("key", [ES384, RS384], ids=["ES384", "RS384"])
def test_a_valid_assertion_buys_a_token(issuer, key):
    answer = issuer.issue(form(assertion(key)), TOKEN_URL)
    assert answer["token_type"] == "bearer"
    assert answer["expires_in"] == 300
    assert answer["scope"] == "system/*.read"
    grant = issuer.check(f"Bearer {answer['access_token']}")
    assert grant.client_id == "app"


def unsigned():
    return jwt.encode({"iss": "app", "sub": "app"}, None, "none", {"kid": ES384[0]["kid"]})


def shared_secret():
    # The classic confusion: the public key, which everybody knows, used as an HMAC secret.
    secret = ES384[1]["keys"][0]["x"].encode()
    return jwt.encode({"iss": "app", "sub": "app"}, secret, "HS384", {"kid": ES384[0]["kid"]})


def broken_signature():
    head, body, signature = assertion().split(".")
    return f"{head}.{body}.{'A' * len(signature)}"


REFUSED = {
    "no JWT": lambda: "not.a.jwt",
    "unsigned": unsigned,
    "shared secret": shared_secret,
    "broken signature": broken_signature,
    "key of another": lambda: assertion(STRANGER, headers={"kid": ES384[0]["kid"]}),
    "unknown kid": lambda: assertion(STRANGER),
    "no kid": lambda: assertion(headers={"kid": None}),
    "other typ": lambda: assertion(headers={"typ": "at+jwt"}),
    "other jku": lambda: assertion(headers={"jku": "https://evil.example/jwks"}),
    "key of the other algorithm": lambda: assertion(RS384, headers={"kid": ES384[0]["kid"]}),
    "unknown client": lambda: assertion(iss="nobody", sub="nobody"),
    "iss is not sub": lambda: assertion(sub="narrow"),
    "aud is the base URL": lambda: assertion(aud="https://ehr.example/fhir"),
    "expired": lambda: assertion(exp=int(time.time()) - 5),
    "far expiry": lambda: assertion(exp=int(time.time()) + 400),
    "no exp": lambda: assertion(drop=["exp"]),
    "no jti": lambda: assertion(drop=["jti"]),
    "no aud": lambda: assertion(drop=["aud"]),
    "no iss": lambda: assertion(drop=["iss"]),
    "issued in the future": lambda: assertion(iat=int(time.time()) + 100),
    "not valid yet": lambda: assertion(nbf=int(time.time()) + 100),
}


@pytest.mark.parametrize("make", REFUSED.values(), ids=REFUSED.keys())
def test_a_bad_assertion_is_an_invalid_client(issuer, make):
    with pytest.raises(OAuthRefusalError) as caught:
        issuer.issue(form(make()), TOKEN_URL)
    assert caught.value.error == "invalid_client"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"grant_type": ""}, "unsupported_grant_type"),
        ({"client_assertion_type": "saml"}, "invalid_client"),
        ({"client_assertion": ""}, "invalid_client"),
        ({"scope": ""}, "invalid_scope"),
        ({"scope": "patient/*.read"}, "invalid_scope"),
        ({"scope": "system/Nonsense.read"}, "invalid_scope"),
        ({"scope": "system/Patient.sr"}, "invalid_scope"),
        ({"scope": "system/Patient."}, "invalid_scope"),
        ({"scope": "system/Observation.rs?category=laboratory"}, "invalid_scope"),
        ({"scope": "system/*.write"}, "invalid_scope"),
        ({"scope": "system/*.rs openid"}, "invalid_scope"),
    ],
)
def test_a_bad_token_request(issuer, change, error):
    with pytest.raises(OAuthRefusalError) as caught:
        issuer.issue(form(assertion()) | change, TOKEN_URL)
    assert caught.value.error == error


def test_an_assertion_works_once(issuer):
    token = assertion(jti="once")
    issuer.issue(form(token), TOKEN_URL)
    for replay in (token, assertion(jti="once")):
        with pytest.raises(OAuthRefusalError, match="jti"):
            issuer.issue(form(replay), TOKEN_URL)
    issuer.issue(form(assertion(jti="once", iss="narrow", sub="narrow")), TOKEN_URL)  # another client's


def test_a_client_is_granted_what_it_is_registered_for(issuer):
    def granted(scope):
        return issuer.issue(form(assertion(iss="narrow", sub="narrow"), scope=scope), TOKEN_URL)["scope"]

    assert granted("system/*.read") == "system/Patient.read system/Observation.r"
    assert granted("system/Patient.rs system/Condition.rs") == "system/Patient.rs"
    with pytest.raises(OAuthRefusalError) as caught:
        granted("system/Condition.rs")
    assert caught.value.error == "invalid_scope"


def test_tokens_expire_and_are_revoked(issuer):
    short = issuer.issue(form(assertion()), TOKEN_URL, lifetime=0)["access_token"]
    long = issuer.issue(form(assertion()), TOKEN_URL)["access_token"]
    issuer.check(f"Bearer {long}")
    issuer.revoke_all()
    for header in (f"Bearer {short}", f"Bearer {long}", "Bearer ", "Basic YTpi", "Bearer wrong"):
        with pytest.raises(RefusalError) as caught:
            issuer.check(header)
        assert caught.value.status == 401
        assert 'error="invalid_token"' in caught.value.headers["WWW-Authenticate"]
    with pytest.raises(RefusalError) as caught:
        issuer.check(None)
    assert caught.value.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    ("held", "resource_type", "actions", "allowed"),
    [
        ("system/*.read", "Patient", "rs", True),
        ("system/*.*", "Patient", "rs", True),
        ("system/Patient.r system/Patient.s", "Patient", "rs", True),
        ("system/Patient.r", "Patient", "rs", False),
        ("system/Patient.cruds", "Patient", "rs", True),
        ("system/Patient.rs", "Observation", "r", False),
    ],
)
def test_scopes(held, resource_type, actions, allowed):
    assert allows(parse_scopes(held), resource_type, actions) is allowed


def test_nothing_is_granted_for_writing():
    granted = grant_scopes(parse_scopes("system/Patient.cruds"), parse_scopes("system/*.*"))
    assert [str(scope) for scope in granted] == ["system/Patient.rs"]


@pytest.mark.parametrize("alg", ["ES384", "RS384"])
def test_the_public_key_set_holds_nothing_private(alg):
    private, public = generate_client_key(alg)
    assert "d" in private
    assert public["keys"][0]["kid"] == private["kid"]
    assert not {"d", "p", "q", "dp", "dq", "qi"} & public["keys"][0].keys()


@pytest.mark.parametrize(
    "jwks", [{}, {"keys": []}, {"keys": ["x"]}, {"keys": [ES384[0]]}, {"keys": [{"kty": "oct"}]}]
)
def test_a_bad_key_set_is_not_registered(jwks, tmp_path):
    registry = ClientRegistry()
    with pytest.raises(InputError):
        registry.add("app", jwks)
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps(jwks))
    with pytest.raises(InputError) as caught:
        registry.add("app", path)
    assert caught.value.place == str(path)


def test_a_key_set_file(tmp_path):
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps(ES384[1]))
    registry = ClientRegistry()
    registry.add(*parse_client(f"app={path}"))
    assert (
        TokenIssuer(registry, Persona(token_seconds=10)).issue(form(assertion()), TOKEN_URL)["expires_in"]
        == 10
    )


@pytest.mark.parametrize("text", ["app", "=x", "app="])
def test_a_client_option_needs_both_parts(text):
    with pytest.raises(InputError):
        parse_client(text)
