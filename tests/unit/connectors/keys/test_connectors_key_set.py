"""When which key of a set signs and is published, and what a rotation makes of it."""

import itertools
import json

import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohortflow.connectors import FhirSource
from cohortflow.connectors.keys import KeySet, key_set, load_signing_key
from cohortflow.connectors.keys.jwk import generate_private_key, write_private_key
from cohortflow.connectors.keys.key_set import KeyTimes, order_for_signing
from cohortflow.errors import ConfigurationError
from cohortflow.model import Connection

NOW = 1_772_352_000
HOUR = 3600
DAY = 24 * HOUR
URL = "https://ehr.example.org/fhir/R4"


@pytest.fixture
def first():
    return KeySet.generate("ES384", NOW)


def kids(key_set, now):
    return [entry["kid"] for entry in key_set.to_public(now)["keys"]]


def signer(key_set, now):
    return load_signing_key(key_set.to_text(), place="test", now=now).kid


def test_a_new_set_signs_at_once(first):
    (key,) = first.keys
    assert first.state(key, NOW) == "signing"
    assert kids(first, NOW) == [key.kid]
    assert signer(first, NOW) == key.kid
    jwk = json.loads(first.to_text())["keys"][0]
    assert (jwk["iat"], jwk["nbf"]) == (NOW, NOW)


def test_a_new_kid_is_not_taken_for_an_option(monkeypatch):
    candidates = (generate_private_key("ES384") for _ in itertools.count())
    dashed = next(key for key in candidates if write_private_key(key)["kid"].startswith("-"))
    plain = next(key for key in candidates if not write_private_key(key)["kid"].startswith("-"))
    drawn = iter([dashed, dashed, plain])
    monkeypatch.setattr(key_set, "generate_private_key", lambda _algorithm: next(drawn))
    (key,) = KeySet.generate("ES384", NOW).keys
    assert key.kid == write_private_key(plain)["kid"]


def test_a_rotation_publishes_first_signs_later_and_removes_last(first):
    (old,) = first.keys
    rotated = first.rotate(NOW + 30 * DAY, overlap=DAY)
    new = rotated.keys[0]
    begin = NOW + 31 * DAY
    seen = [
        (now - begin, signer(rotated, now), set(kids(rotated, now)))
        for now in (begin - DAY, begin - 1, begin, begin + DAY - 1, begin + DAY)
    ]
    both = {old.kid, new.kid}
    assert seen == [
        (-DAY, old.kid, both),
        (-1, old.kid, both),
        (0, new.kid, both),
        (DAY - 1, new.kid, both),
        (DAY, new.kid, {new.kid}),
    ]


def test_the_states_of_a_rotation(first):
    rotated = first.rotate(NOW, overlap=DAY)

    def states(now):
        return [rotated.state(key, now) for key in rotated.keys]

    assert states(NOW) == ["waiting", "signing"]
    assert states(NOW + DAY) == ["signing", "leaving"]
    assert states(NOW + 2 * DAY) == ["signing", "retired"]
    assert rotated.next_removal(NOW) == NOW + 2 * DAY
    assert rotated.next_removal(NOW + 2 * DAY) is None


def test_rotating_twice_adds_one_key(first):
    once = first.rotate(NOW, overlap=DAY)
    assert once.rotate(NOW, overlap=DAY) == once
    assert once.rotate(NOW + DAY - 1, overlap=DAY) == once
    assert len(once.rotate(NOW + DAY, overlap=DAY).keys) == 3


def test_a_waiting_key_is_brought_forward_by_a_shorter_overlap(first):
    waiting = first.rotate(NOW, overlap=7 * DAY)
    sooner = waiting.rotate(NOW, overlap=HOUR)
    assert [key.kid for key in sooner.keys] == [key.kid for key in waiting.keys]
    assert signer(sooner, NOW + HOUR) == waiting.keys[0].kid
    assert kids(sooner, NOW + 2 * HOUR) == [waiting.keys[0].kid]


@pytest.mark.parametrize("waits", [False, True])
def test_a_leaked_key_is_replaced_at_once(first, waits):
    before = first.rotate(NOW, overlap=DAY) if waits else first
    after = before.rotate(NOW, overlap=0)
    (key,) = after.keys
    assert key.kid != first.keys[0].kid
    assert signer(after, NOW) == key.kid
    assert first.keys[0].jwk["d"] not in after.to_text()


def test_retired_keys_are_dropped_with_their_private_half(first):
    rotated = first.rotate(NOW, overlap=DAY)
    later = rotated.rotate(NOW + 3 * DAY, overlap=DAY)
    assert first.keys[0].kid not in {key.kid for key in later.keys}
    assert len(later.keys) == 2


def test_rotation_can_change_the_algorithm(first):
    rotated = first.rotate(NOW, overlap=DAY, algorithm="RS384")
    assert load_signing_key(rotated.to_text(), place="t", now=NOW).algorithm == "ES384"
    assert load_signing_key(rotated.to_text(), place="t", now=NOW + DAY).algorithm == "RS384"


def test_only_a_key_that_signs_no_more_can_be_retired(first):
    rotated = first.rotate(NOW, overlap=DAY)
    new, old = rotated.keys
    with pytest.raises(ConfigurationError, match="signs"):
        rotated.retire(old.kid, NOW, at_once=True)
    with pytest.raises(ConfigurationError, match="published yet"):
        rotated.retire(old.kid, NOW + DAY)
    with pytest.raises(ConfigurationError, match="no key"):
        rotated.retire("nobody", NOW)
    assert kids(rotated.retire(old.kid, NOW + DAY, at_once=True), NOW + DAY) == [new.kid]
    assert rotated.retire(old.kid, NOW + 2 * DAY).keys == (new,)


def test_the_last_key_is_not_removed(first):
    ended = KeySet((first.keys[0].moved(published_until=NOW),))
    with pytest.raises(ConfigurationError, match="only one"):
        ended.retire(first.keys[0].kid, NOW)


def test_repr_holds_nothing_secret(first):
    assert first.keys[0].kid in repr(first)
    assert first.keys[0].jwk["d"] not in repr(first)


def test_the_signing_key_leads_the_published_set(first):
    rotated = first.rotate(NOW, overlap=DAY)
    for now in (NOW, NOW + DAY):
        assert kids(rotated, now)[0] == signer(rotated, now)


def test_a_set_survives_its_text(first):
    rotated = first.rotate(NOW, overlap=DAY)
    assert KeySet.parse(rotated.to_text(), "test") == rotated


def test_members_that_are_not_ours_are_kept(first):
    document = json.loads(first.to_text())
    document["owner"] = "research"
    document["keys"][0]["x-note"] = "first"
    rotated = json.loads(KeySet.parse(json.dumps(document), "test").rotate(NOW).to_text())
    assert rotated["owner"] == "research"
    assert rotated["keys"][1]["x-note"] == "first"


def test_a_pem_and_a_single_jwk_are_sets_of_one_key(ec_pem, ec_key):
    jwk = write_private_key(ec_key)
    by_pem, by_jwk = KeySet.parse(ec_pem, "test"), KeySet.parse(json.dumps(jwk), "test")
    assert by_pem.to_public(NOW) == by_jwk.to_public(NOW)
    # A key without a name is published under the one that its assertions carry.
    assert kids(by_pem, NOW) == [load_signing_key(ec_pem, place="test").kid]
    rotated = by_pem.rotate(NOW, overlap=DAY)
    assert signer(rotated, NOW) == by_pem.keys[0].kid


def test_a_public_set_can_be_served_but_not_rotated(first):
    public = KeySet.parse(json.dumps(first.to_public(NOW)), "test")
    assert public.to_public(NOW) == first.to_public(NOW)
    assert public.state(public.keys[0], NOW) == "published"
    with pytest.raises(ConfigurationError, match="no private key"):
        public.rotate(NOW)


def entry(**changes):
    return {**write_private_key(generate_private_key("ES384")), **changes}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense", "PEM"),
        ("{", "no JWK set"),
        ('{"keys": []}', "no JWK set"),
        ('{"keys": {"a": 1}}', "no JWK set"),
        ('{"keys": ["s3cr3t"]}', "no RSA or EC key"),
        ('{"keys": [{"kty": "oct", "k": "s3cr3t"}]}', "no RSA or EC key"),
        (json.dumps({"keys": [entry(kid="a"), entry(kid="a")]}), "Two keys"),
        (json.dumps({"keys": [entry(use="enc")]}), "other than signatures"),
        (json.dumps({"keys": [entry(alg="ES256")]}), "other than signatures"),
        (json.dumps({"keys": [entry(nbf="soon")]}), "'nbf'"),
        (json.dumps({"keys": [entry(exp=True)]}), "'exp'"),
        (json.dumps({"keys": [entry(exp=NOW * 1000)]}), "'exp'"),
        (json.dumps({"keys": [entry(iat=float("nan"))]}), "'iat'"),
        (json.dumps({"keys": [entry(kid=7)]}), "kid"),
    ],
)
def test_what_is_no_key_set_is_refused_without_quoting_it(text, message):
    with pytest.raises(ConfigurationError, match=message) as caught:
        KeySet.parse(text, "keys.json")
    assert "keys.json" in caught.value.place
    assert caught.value.remedy
    assert "s3cr3t" not in str(caught.value)


times = st.builds(
    KeyTimes,
    st.none(),
    st.integers(0, 20).map(float),
    st.one_of(st.none(), st.integers(0, 20).map(float)),
)


@given(st.lists(times, max_size=6), st.integers(0, 20))
def test_what_signs_is_always_published(all_times, now):
    order = order_for_signing([(item, number) for number, item in enumerate(all_times)], now)
    assert all(item.is_published(now) for item, _ in order)
    assert [item.signs_from for item, _ in order] == sorted(item.signs_from for item, _ in order)
    assert bool(order) == any(item.is_published(now) for item in all_times)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5 * DAY), st.sampled_from([0, HOUR, DAY])), min_size=1, max_size=5))
def test_over_any_rotations_the_signer_was_published_for_the_overlap_before(steps):
    """Servers that keep a copy as long as the overlap never meet a key that they do not know."""
    now = NOW
    key_set = KeySet.generate("ES384", now)
    for wait, overlap in steps:
        now += wait
        key_set = key_set.rotate(now, overlap=overlap)
        waiting = key_set.waiting(now)
        assert len(waiting) <= 1
        assert signer(key_set, now) in kids(key_set, now)
        if overlap and waiting:
            begin = waiting[0].times.signs_from
            assert waiting[0].kid in kids(key_set, now)
            assert now < begin <= now + overlap
            # The one before it is verifiable until the change and after it.
            assert signer(key_set, begin - 1) in kids(key_set, begin)


class TestLoading:
    def test_a_source_that_lives_on_changes_its_key_when_the_time_comes(self, first):
        rotated = first.rotate(NOW, overlap=DAY)
        key = load_signing_key(rotated.to_text(), place="test", now=NOW)
        assert key.at(NOW).kid == key.at(NOW + DAY - 1).kid == first.keys[0].kid
        later = key.at(NOW + DAY)
        assert later.kid == rotated.keys[0].kid
        assert jwt.get_unverified_header(later.sign({}))["kid"] == later.kid

    @pytest.mark.parametrize("field", ["password", "private_key_env", "private_key_file"])
    def test_a_connection_may_hold_a_whole_set(self, first, tmp_path, field):
        rotated = first.rotate(NOW, overlap=DAY)
        path = tmp_path / "keys.json"
        path.write_text(rotated.to_text())
        extra = {"private_key_env": "KEYS", "private_key_file": str(path)}
        connection = Connection(
            "ehr",
            "fhir",
            URL,
            login="app",
            password=rotated.to_text() if field == "password" else "",
            extra={field: extra[field]} if field in extra else {},
        )
        source = FhirSource.from_connection(connection, {"KEYS": rotated.to_text()})
        assert source.key.at(NOW + 2 * DAY).kid == rotated.keys[0].kid
        assert first.keys[0].jwk["d"] not in repr(source)

    def test_kid_pins_a_set_to_one_key(self, first):
        rotated = first.rotate(NOW, overlap=DAY)
        key = load_signing_key(rotated.to_text(), kid=first.keys[0].kid, place="test", now=NOW)
        assert key.at(NOW + 10 * DAY).kid == first.keys[0].kid

    def test_a_pinned_key_that_is_gone_is_explained(self, first):
        with pytest.raises(ConfigurationError, match="kid 'gone'") as caught:
            load_signing_key(first.to_text(), kid="gone", place="test")
        assert "Leave the field 'kid' out" in caught.value.remedy

    def test_a_set_whose_time_is_over_is_refused(self, first):
        ended = first.keys[0].moved(published_until=NOW)
        with pytest.raises(ConfigurationError, match="retired"):
            load_signing_key(KeySet((ended,)).to_text(), place="test", now=NOW)

    def test_a_first_key_signs_though_the_clock_is_behind(self, first):
        assert signer(first, NOW - 60) == first.keys[0].kid

    def test_keys_for_other_purposes_are_passed_over(self, first):
        document = json.loads(first.to_text())
        document["keys"] = [
            {"kty": "oct", "k": "AA", "d": "AA", "kid": "mac"},
            {**write_private_key(generate_private_key("ES384")), "use": "enc", "kid": "enc"},
            *document["keys"],
        ]
        key = load_signing_key(json.dumps(document), place="test", now=NOW)
        assert key.kid == first.keys[0].kid

    def test_the_algorithm_chooses_among_the_kinds_of_a_set(self, first):
        both = json.dumps(
            {"keys": [entry(kid="ec"), {**write_private_key(generate_private_key("RS384")), "kid": "rsa"}]}
        )
        assert load_signing_key(both, algorithm="RS384", place="t").kid == "rsa"
        assert load_signing_key(both, algorithm="ES384", place="t").kid == "ec"
        with pytest.raises(ConfigurationError, match="says RS384"):
            load_signing_key(first.to_text(), algorithm="RS384", place="t")
