"""Settings from connections, and the keys in them."""

import json

import jwt
import pytest
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from cohortflow.connectors import PROFILES, FhirSource, settings
from cohortflow.connectors.keys import load_signing_key
from cohortflow.connectors.settings import CONNECTION_TYPES
from cohortflow.errors import ConfigurationError
from cohortflow.model import Connection

URL = "https://ehr.example.org/fhir/R4"


def connection(**fields):
    return Connection(**{"conn_id": "epic_prod", "conn_type": "fhir", "host": URL, **fields})


def read(**fields):
    return FhirSource.from_connection(connection(**fields), environ={"KEY_VARIABLE": fields.pop("key", "")})


@pytest.mark.parametrize(
    ("fields", "base_url"),
    [
        ({"host": URL + "/"}, URL),
        ({"host": "ehr.example.org", "schema": "https", "extra": {"base_path": "/fhir/R4/"}}, URL),
        ({"host": "ehr.example.org", "schema": "fhir/R4"}, URL),
        ({"host": "ehr.example.org", "port": 8443}, "https://ehr.example.org:8443"),
        ({"host": "127.0.0.1", "port": 8000, "schema": "http"}, "http://127.0.0.1:8000"),
        ({"host": "http://localhost:8000/fhir"}, "http://localhost:8000/fhir"),
        ({"host": "http://10.0.0.1/fhir", "extra": {"allow_insecure": True}}, "http://10.0.0.1/fhir"),
    ],
)
def test_base_url_is_put_together(fields, base_url):
    assert read(**fields).base_url == base_url


def test_all_fields_are_read(ec_pem, tmp_path):
    bundle = tmp_path / "ca.pem"
    bundle.write_text("x")
    source = read(
        login="app",
        password=ec_pem,
        extra={
            "token_url": "https://login.example.org/token",
            "kid": "k1",
            "scopes": "system/Patient.read system/Group.read",
            "ca_bundle": str(bundle),
            "headers": {"Epic-Client-ID": "app"},
            "concurrency": "8",
            "timeout": 30,
        },
    )
    assert source.auth == "backend_services"
    assert (source.key.algorithm, source.key.kid) == ("ES384", "k1")
    assert source.scopes == ("system/Patient.read", "system/Group.read")
    assert source.headers["Epic-Client-ID"] == "app"
    assert (source.concurrency, source.timeout, source.ca_bundle) == (8, 30.0, str(bundle))
    assert source.token_url == "https://login.example.org/token"


def test_without_a_login_requests_go_without_credentials():
    assert read().auth == "none"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"conn_type": "http"}, "conn_type"),
        ({"host": ""}, "host"),
        ({"host": "http://ehr.example.org/fhir"}, "host"),
        ({"host": "ftp://ehr.example.org"}, "host"),
        ({"host": "https://user:s3cr3t@ehr.example.org/fhir"}, "host"),
        ({"host": URL + "?x=1"}, "host"),
        ({"host": "https://ehr.example.org:port/fhir"}, "host"),
        ({"extra": {"auth": "magic"}}, "auth"),
        ({"extra": {"auth": "backend_services"}}, "login"),
        ({"login": "app"}, "password"),
        ({"login": "app", "extra": {"auth": "client_secret"}}, "password"),
        ({"login": "app", "password": "s3cr3t"}, "password"),
        ({"login": "app", "extra": {"private_key_file": "/does/not/exist"}}, "private_key_file"),
        ({"login": "app", "extra": {"private_key_env": "UNSET"}}, "private_key_env"),
        ({"extra": {"verify": False}}, "verify"),
        ({"extra": {"verify": "perhaps"}}, "verify"),
        ({"extra": {"ca_bundle": "/does/not/exist"}}, "ca_bundle"),
        ({"extra": {"concurrency": 0}}, "concurrency"),
        ({"extra": {"timeout": "soon"}}, "timeout"),
        ({"extra": {"scopes": 7}}, "scopes"),
        ({"extra": {"headers": "x"}}, "headers"),
        ({"extra": {"headers": {"authorization": "s3cr3t"}}}, "headers"),
        ({"extra": {"token_url": "http://login.example.org"}}, "token_url"),
        ({"extra": {"tokenurl": "https://login.example.org"}}, "tokenurl"),
        ({"extra": {"profile": "unheard-of"}}, "profile"),
    ],
)
def test_wrong_fields_are_named_with_a_remedy_and_without_secrets(fields, named):
    with pytest.raises(ConfigurationError) as caught:
        read(**fields)
    assert f"'{named}'" in str(caught.value)
    assert "epic_prod" in caught.value.place
    assert caught.value.remedy
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize("scopes", [None, "system/*.read", "system/Patient.read system/*.rs"])
def test_scopes_for_all_types_are_refused_where_the_server_refuses_them(scopes, ec_pem):
    extra = {"profile": "cerner"} | ({"scopes": scopes} if scopes else {})
    with pytest.raises(ConfigurationError, match="all types at once") as caught:
        read(login="app", password=ec_pem, extra=extra)
    assert "system/Patient.read" in caught.value.remedy


def test_scopes_by_type_suit_every_server(ec_pem):
    scopes = ["system/Patient.read", "system/Group.read"]
    source = read(login="app", password=ec_pem, extra={"profile": "cerner", "scopes": scopes})
    assert source.scopes == tuple(scopes)
    secret = read(
        login="account",
        password="s3cr3t",
        extra={"profile": "cerner", "auth": "client_secret", "scopes": scopes},
    )
    assert secret.scopes == tuple(scopes)
    # A password goes with each request, and no scope is asked for.
    assert read(login="user", password="s3cr3t", extra={"profile": "cerner", "auth": "basic"}).key is None


def test_the_address_of_the_published_keys_is_read(ec_pem):
    url = "https://keys.example.org/jwks.json"
    assert read(login="app", password=ec_pem, extra={"jwks_url": url}).jwks_url == url


@pytest.mark.parametrize(
    ("conn_type", "extra", "profile"),
    [
        ("fhir", {}, "generic"),
        ("fhir", {"profile": "epic"}, "epic"),
        ("epic", {}, "epic"),
        ("cerner", {}, "cerner"),
        ("cerner", {"profile": "soarian"}, "soarian"),
        ("cerner", {"profile": "hdr"}, "hdr"),
    ],
)
def test_the_type_of_a_connection_chooses_the_profile(conn_type, extra, profile):
    assert read(conn_type=conn_type, extra=extra).profile.name == profile


@pytest.mark.parametrize(
    ("conn_type", "profile", "remedy"),
    [("epic", "cerner", "'cerner'"), ("epic", "generic", "'fhir'"), ("cerner", "epic", "'epic'")],
)
def test_a_profile_of_another_vendor_is_refused(conn_type, profile, remedy):
    with pytest.raises(ConfigurationError, match="'profile'") as caught:
        read(conn_type=conn_type, extra={"profile": profile})
    assert f"a connection of type {remedy}" in caught.value.remedy


def test_every_profile_belongs_to_a_type_of_connection():
    assert {name for profiles in CONNECTION_TYPES.values() for name in profiles} == set(PROFILES)
    assert all(kind in ("fhir", profiles[0]) for kind, profiles in CONNECTION_TYPES.items())


@pytest.mark.parametrize("empty", [None, ""])
def test_extras_that_a_form_left_empty_count_as_left_out(ec_pem, empty):
    extra = dict.fromkeys(sorted(settings._FIELDS), empty)
    assert read(login="app", password=ec_pem, extra=extra) == read(login="app", password=ec_pem)


def test_mappings_may_be_written_as_json():
    extra = {"headers": '{"X-Site": "north"}', "profile_overrides": '{"poll_seconds": 5}'}
    source = read(extra=extra)
    assert source.headers == {"X-Site": "north"}
    assert source.profile.poll_seconds == 5
    for wrong in ("{", "[]", "7"):
        with pytest.raises(ConfigurationError, match="'profile_overrides'"):
            read(extra={"profile_overrides": wrong})


def test_unrelated_extras_are_left_alone():
    assert read(extra={"department": "cardiology"}).base_url == URL


def test_addresses_that_credentials_may_go_to():
    remote, local = read(), read(host="http://127.0.0.1:8000")
    assert remote.allows("https://files.example.org/x")
    assert not remote.allows("http://files.example.org/x")
    assert not remote.allows("http://127.0.0.1/x")
    assert local.allows("http://127.0.0.1:9000/x")
    assert not local.allows("http://files.example.org/x")
    assert not local.allows("file:///etc/passwd")


def test_repr_holds_no_secret(ec_pem):
    source = read(login="app", password=ec_pem, extra={"headers": {"X-Key": "s3cr3t"}})
    secret = read(login="app", password="hunter2", extra={"auth": "basic"})
    text = repr(source) + repr(secret)
    assert "s3cr3t" not in text
    assert "hunter2" not in text
    assert "PRIVATE" not in text


def test_key_is_read_from_file_environment_and_folded_pem(rsa_pem, tmp_path):
    path = tmp_path / "key.pem"
    path.write_text(rsa_pem)
    by_file = read(login="app", extra={"private_key_file": str(path)})
    by_variable = FhirSource.from_connection(
        connection(login="app", extra={"private_key_env": "KEY_VARIABLE"}), environ={"KEY_VARIABLE": rsa_pem}
    )
    folded = read(login="app", password=rsa_pem.replace("\n", "\\n"))
    for source in (by_file, by_variable, folded):
        assert source.key.algorithm == "RS384"


@pytest.mark.parametrize("kind", ["rsa", "ec"])
def test_jwk_and_jwk_set_sign_with_their_kid(kind, rsa_key, ec_key):
    key, algorithm, reader = {
        "rsa": (rsa_key, "RS384", RSAAlgorithm),
        "ec": (ec_key, "ES384", ECAlgorithm),
    }[kind]
    jwk = json.loads(reader.to_jwk(key)) | {"kid": "mine"}
    public = json.loads(reader.to_jwk(key.public_key())) | {"kid": "other"}
    for text in (json.dumps(jwk), json.dumps({"keys": [public, jwk]})):
        signing = load_signing_key(text, place="test")
        token = signing.sign({"sub": "app"})
        assert jwt.get_unverified_header(token)["kid"] == "mine"
        assert jwt.decode(token, key.public_key(), algorithms=[algorithm]) == {"sub": "app"}


@pytest.mark.parametrize("algorithm", ["ES384", "HS256"])
def test_algorithm_that_does_not_fit_is_refused(rsa_pem, algorithm):
    with pytest.raises(ConfigurationError, match="algorithm"):
        load_signing_key(rsa_pem, algorithm=algorithm, place="test")


def test_public_jwk_is_refused_as_such(ec_key):
    public = ECAlgorithm.to_jwk(ec_key.public_key())
    with pytest.raises(ConfigurationError, match="no private key"):
        load_signing_key(public, place="test")


@pytest.mark.parametrize(
    "text", ["nonsense", "{", "{}", '{"keys": 3}', '{"d": "x", "kty": "EC"}', '{"keys": [{"d": 1}]}']
)
def test_unreadable_keys_are_refused(text):
    with pytest.raises(ConfigurationError):
        load_signing_key(text, place="test")
