"""The project key."""

import base64
import copy
import pickle

import pytest

from cohortflow.errors import ProjectKeyError
from cohortflow.redaction.keys import ProjectKey, derive_key

SECRET = bytes.fromhex("8f1d0a6b7c3e52944be0d7f3a1c86e5f02b94d7a6c1e8f30d5a27b4c9e6f1083")


def test_hkdf_agrees_with_rfc_5869_test_case_1():
    key = bytes.fromhex("0b" * 22)
    salt = bytes.fromhex("000102030405060708090a0b0c")
    info = bytes.fromhex("f0f1f2f3f4f5f6f7f8f9")
    expected = "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"
    assert derive_key(key, info, salt=salt).hex() == expected


@pytest.mark.parametrize(
    "text",
    [
        SECRET.hex(),
        SECRET.hex().upper(),
        f"  {SECRET.hex()}\n",
        base64.b64encode(SECRET).decode(),
        base64.urlsafe_b64encode(SECRET).decode().rstrip("="),
    ],
)
def test_hexadecimal_and_base64_give_the_same_key(text):
    assert ProjectKey.from_text(text) == ProjectKey(SECRET)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "   ",
        "not a key!",
        SECRET[:31].hex(),
        "00" * 32,
        "0123456789abcdef" * 4,
        bytes(range(32)).hex(),
        (SECRET[:16] * 2).hex(),
        bytes(range(200, 136, -2)).hex(),
    ],
)
def test_a_missing_or_weak_key_is_refused_without_showing_it(text):
    with pytest.raises(ProjectKeyError) as caught:
        ProjectKey.from_text(text, place="AIRFLOW_CONN_KEY")
    assert str(caught.value).startswith("AIRFLOW_CONN_KEY: ")
    assert "openssl rand" in caught.value.remedy
    if text and text.strip():
        assert text.strip() not in str(caught.value)


def test_the_key_is_never_shown():
    key = ProjectKey(SECRET)
    for text in (repr(key), str(key), f"{key}", repr([key])):
        assert SECRET.hex() not in text
        assert repr(SECRET) not in text
        assert key.fingerprint in text
    assert not hasattr(key, "__dict__")


@pytest.mark.parametrize("smuggle", [pickle.dumps, copy.deepcopy])
def test_the_key_does_not_leave_the_process(smuggle):
    with pytest.raises(TypeError, match="name of the secret"):
        smuggle(ProjectKey(SECRET))


def test_the_fingerprint_tells_keys_apart():
    key, other = ProjectKey(SECRET), ProjectKey(SECRET[::-1])
    assert len(key.fingerprint) == 16
    assert key.fingerprint != other.fingerprint
    key.require_fingerprint(key.fingerprint)
    with pytest.raises(ProjectKeyError, match=other.fingerprint):
        key.require_fingerprint(other.fingerprint)


def test_pseudonyms_stay_as_they_are_across_releases():
    # Golden: a change here would break the link to every dataset already published.
    key = ProjectKey(SECRET)
    assert key.fingerprint == "dfc9cf819486d582"
    assert key.pseudonym("Patient", "patient-1") == "56fb884038d9fd6c156f21a1affdfda7"
    assert key.shift_days("patient-1", 365) == -164


def test_identifiers_of_different_kinds_do_not_match():
    key = ProjectKey(SECRET)
    assert key.pseudonym("Patient", "1") != key.pseudonym("Encounter", "1")


def test_generated_keys_are_accepted_and_differ():
    first, second = ProjectKey.generate_text(), ProjectKey.generate_text()
    assert ProjectKey.from_text(first) != ProjectKey.from_text(second)


def test_shifts_fill_the_window_without_zero():
    key = ProjectKey(SECRET)
    assert {key.shift_days(str(number), 3) for number in range(300)} == {-3, -2, -1, 1, 2, 3}
