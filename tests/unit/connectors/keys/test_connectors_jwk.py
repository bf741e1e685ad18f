"""Keys by independent yardsticks: the RFC's own example, and signatures checked without a JWT library."""

import base64
import json

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from hypothesis import given, settings
from hypothesis import strategies as st

from cohortflow.connectors.keys import KeySet, load_signing_key
from cohortflow.connectors.keys.jwk import (
    SECRET_MEMBERS,
    describe_public_key,
    generate_private_key,
    read_jwk,
    thumbprint,
    write_private_key,
)
from cohortflow.errors import ConfigurationError

# RFC 7638, section 3.1.
RFC_7638_KEY = {
    "kty": "RSA",
    "n": (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZ"
        "CiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJ"
        "ZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBn"
        "iIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
    ),
    "e": "AQAB",
    "alg": "RS256",
    "kid": "2011-04-29",
}
RFC_7638_THUMBPRINT = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


def decode(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@pytest.fixture(scope="module", params=["RS384", "ES384"])
def key(request):
    return request.param, generate_private_key(request.param)


def test_thumbprint_is_that_of_the_rfcs_example():
    assert thumbprint(read_jwk(RFC_7638_KEY, "RFC 7638")) == RFC_7638_THUMBPRINT


def test_public_members_are_those_of_the_rfcs_example():
    members = describe_public_key(read_jwk(RFC_7638_KEY, "RFC 7638"))
    assert members == {name: RFC_7638_KEY[name] for name in ("kty", "n", "e")}


def test_signature_holds_for_plain_cryptography(key):
    """Checked by the published numbers alone, with nothing of a JOSE library between."""
    algorithm, private = key
    text = json.dumps(write_private_key(private))
    signing = load_signing_key(text, place="test")
    token = signing.sign({"iss": "app", "jti": "1"})
    head, claims, signature = token.split(".")
    header = json.loads(decode(head))
    assert header == {"alg": algorithm, "kid": thumbprint(private), "typ": "JWT"}
    assert json.loads(decode(claims)) == {"iss": "app", "jti": "1"}
    published = KeySet.parse(text, "test").to_public(0)["keys"][0]
    number = {name: int.from_bytes(decode(published[name]), "big") for name in "nexy" if name in published}
    signed, raw = f"{head}.{claims}".encode(), decode(signature)
    if algorithm == "RS384":
        public = rsa.RSAPublicNumbers(number["e"], number["n"]).public_key()
        public.verify(raw, signed, padding.PKCS1v15(), hashes.SHA384())
    else:
        public = ec.EllipticCurvePublicNumbers(number["x"], number["y"], ec.SECP384R1()).public_key()
        halves = [int.from_bytes(raw[start : start + 48], "big") for start in (0, 48)]
        assert len(raw) == 96
        public.verify(encode_dss_signature(*halves), signed, ec.ECDSA(hashes.SHA384()))


def test_new_private_keys_say_what_they_are_for(key):
    algorithm, private = key
    jwk = write_private_key(private)
    assert (jwk["alg"], jwk["use"], jwk["key_ops"], jwk["kid"]) == (
        algorithm,
        "sig",
        ["sign"],
        thumbprint(private),
    )
    assert private.key_size == (3072 if algorithm == "RS384" else 384)


def test_coordinates_keep_their_leading_zeros():
    # RFC 7518, 6.2.1.2: one key in 128 has such a coordinate, and servers refuse a short one.
    short = next(
        private
        for number in range(1, 5000)
        if (private := ec.derive_private_key(number, ec.SECP384R1())).public_key().public_numbers().x >> 376
        == 0
    )
    assert len(decode(describe_public_key(short)["x"])) == 48
    again = read_jwk(write_private_key(short), "test")
    assert again.private_numbers() == short.private_numbers()


@settings(max_examples=60)
@given(
    st.dictionaries(
        st.one_of(
            st.sampled_from(sorted(SECRET_MEMBERS | {"x5c", "ext", "note", "iat"})), st.text(max_size=8)
        ),
        st.one_of(st.just("s3cr3t"), st.just(["s3cr3t"]), st.just({"a": "s3cr3t"})),
    )
)
def test_nothing_but_public_members_is_published(extra):
    """Whatever else a JWK holds, under whatever name."""
    jwk = json.loads(EC_TEXT)
    extra = {name: value for name, value in extra.items() if name not in {*jwk, "nbf", "exp", "iat"}}
    jwk |= extra
    published = KeySet.parse(json.dumps({"keys": [jwk], "secret": "s3cr3t"}), "test").to_public(0)
    assert set(published) == {"keys"}
    assert [set(entry) for entry in published["keys"]] == [{"kty", "kid", "use", "alg", "crv", "x", "y"}]
    assert jwk["d"] not in json.dumps(published)
    assert "s3cr3t" not in json.dumps(published)


EC_TEXT = json.dumps(write_private_key(generate_private_key("ES384")))


def test_private_numbers_never_reach_the_published_set(key):
    _, private = key
    jwk = write_private_key(private)
    published = json.dumps(KeySet.parse(json.dumps(jwk), "test").to_public(0))
    for name in SECRET_MEMBERS.intersection(jwk):
        assert f'"{name}"' not in published
        assert jwk[name] not in published


@pytest.mark.parametrize(
    "broken",
    [
        {"kty": "RSA"},
        {"kty": "EC", "crv": "P-384", "x": "AA", "y": "AA", "d": "s3cr3t"},
        {"kty": "EC", "crv": "P-521"},
        {"kty": "oct", "k": "s3cr3t"},
        {"kty": "RSA", "n": 5, "e": "AQAB", "d": "s3cr3t"},
    ],
)
def test_unreadable_keys_are_refused_without_quoting_them(broken):
    with pytest.raises(ConfigurationError) as caught:
        read_jwk(broken, "somewhere")
    assert "s3cr3t" not in str(caught.value)
    assert caught.value.place == "somewhere"
