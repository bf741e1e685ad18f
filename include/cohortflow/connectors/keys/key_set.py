"""The key set of a SMART client: private keys, when each one signs, and what is published.

A key set is a JWK set (RFC 7517, section 5) that holds its own timetable, so that a secrets backend
that keeps one text keeps all there is to know. Each JWK may have three members more, named and written
as in a JSON Web Token (RFC 7519, 4.1): seconds since the epoch. RFC 7517, section 4, lets a reader that
does not know them leave them aside.

- ``iat``: when the key was made;
- ``nbf``: from when on it signs. It is published from the beginning, because servers keep a copy of the
  published set for a while;
- ``exp``: until when it is published. A key without stays until it is replaced.

Of all keys that are published, the one with the latest ``nbf`` that has passed signs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

from cohortflow.connectors.keys.jwk import (
    SECRET_MEMBERS,
    Algorithm,
    describe_public_key,
    find_algorithm,
    generate_private_key,
    read_jwk,
    read_pem,
    thumbprint,
    write_private_key,
)
from cohortflow.errors import ConfigurationError

__all__ = [
    "DEFAULT_OVERLAP",
    "HostedKey",
    "KeySet",
    "KeyState",
    "KeyTimes",
    "order_for_signing",
    "read_times",
]

_T = TypeVar("_T")

DEFAULT_OVERLAP = 86_400.0
"""Seconds between the publication of a key and its first signature, and between the last and removal."""

_LAST_SECOND = 253_402_300_799  # of the year 9999

KeyState = Literal["signing", "waiting", "leaving", "published", "retired"]
"""What a key does at a time: it signs; is published and signs later; is published yet but signs no
more; is published, and its private half is not here; or is published no more."""


@dataclass(frozen=True, slots=True)
class KeyTimes:
    """When a key does what, in seconds since the epoch.

    Attributes:
        created: When it was made, if the set says so.
        signs_from: From when on it signs; 0: ever since.
        published_until: Until when it is published; ``None``: no end is set.
    """

    created: float | None = None
    signs_from: float = 0.0
    published_until: float | None = None

    def is_published(self, now: float) -> bool:
        """Tell whether the key is published at a time."""
        return self.published_until is None or now < self.published_until


@dataclass(frozen=True, slots=True)
class HostedKey:
    """One key of a set; ``repr`` shows its id and times only.

    Attributes:
        kid: Its id.
        algorithm: What it signs with.
        times: When it does what.
        public: The JWK to publish: public members only.
        jwk: The JWK as it was read, private members and unknown ones included.
    """

    kid: str
    algorithm: Algorithm
    times: KeyTimes
    public: Mapping[str, str] = field(repr=False)
    jwk: Mapping[str, Any] = field(repr=False)

    @property
    def is_private(self) -> bool:
        """Whether the set can sign with it."""
        return "d" in self.jwk

    def moved(self, *, signs_from: float | None = None, published_until: float | None = None) -> HostedKey:
        """Return the key with other times."""
        times, jwk = self.times, dict(self.jwk)
        if signs_from is not None:
            times, jwk["nbf"] = replace(times, signs_from=signs_from), int(signs_from)
        if published_until is not None:
            times, jwk["exp"] = replace(times, published_until=published_until), int(published_until)
        return replace(self, times=times, jwk=jwk)


@dataclass(frozen=True, slots=True)
class KeySet:
    """The keys of one client, newest first; ``repr`` holds nothing secret.

    Attributes:
        keys: The keys.
        members: Members of the JSON object beside ``keys``, kept as they were.
    """

    keys: tuple[HostedKey, ...]
    members: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def generate(cls, algorithm: Algorithm, now: float) -> KeySet:
        """Make a set of one new key that signs from now on."""
        return cls((_new_key(algorithm, int(now), int(now)),))

    @classmethod
    def parse(cls, text: str, place: str) -> KeySet:
        """Read a key set, private or public; a single JWK and a private key in PEM are sets of one key.

        Raises:
            ConfigurationError: It is none, a key in it cannot be used by SMART Backend Services, or two
                have the same id. The message never holds any of it.
        """
        members: dict[str, Any] = {}
        if not text.lstrip().startswith("{"):
            entries: list[Any] = [write_private_key(read_pem(text, place))]
        else:
            try:
                members = json.loads(text)
            except ValueError:
                raise _no_key_set(place) from None
            if "keys" in members:
                entries = members.pop("keys")
            else:
                entries, members = [members], {}
            if not isinstance(entries, list):
                raise _no_key_set(place)
        if not entries:
            raise _no_key_set(place)
        keys = tuple(_read_entry(entry, f"{place}, key {number}") for number, entry in enumerate(entries, 1))
        kids = [key.kid for key in keys]
        for kid in kids:
            if kids.count(kid) > 1:
                raise ConfigurationError(
                    f"Two keys of the set have the kid '{kid}'; servers refuse both.",
                    place=place,
                    remedy="Remove one of them.",
                )
        return cls(keys, members)

    def to_text(self) -> str:
        """Return the set as JSON, private keys included: what a file or a secrets backend keeps."""
        return json.dumps({**self.members, "keys": [dict(key.jwk) for key in self.keys]}, indent=1) + "\n"

    def to_public(self, now: float) -> dict[str, list[dict[str, str]]]:
        """Return the JWK set to publish at a time: public members of the keys that are published."""
        published = [key for key in self.keys if key.times.is_published(now)]
        signing = self.signing(now)
        # The signing key leads: a server that looks at the first one only finds the right one.
        published.sort(key=lambda key: key is not signing)
        return {"keys": [dict(key.public) for key in published]}

    def signing(self, now: float) -> HostedKey | None:
        """Return the key that signs at a time; ``None`` where there is none."""
        order = order_for_signing([(key.times, key) for key in self.keys if key.is_private], now)
        return order[0][1] if order else None

    def waiting(self, now: float) -> list[HostedKey]:
        """Return the keys that will sign later, in this order."""
        order = order_for_signing([(key.times, key) for key in self.keys if key.is_private], now)
        return [key for _, key in order[1:]]

    def state(self, key: HostedKey, now: float) -> KeyState:
        """Tell what a key of the set does at a time."""
        if not key.times.is_published(now):
            return "retired"
        if not key.is_private:
            return "published"
        if key is self.signing(now):
            return "signing"
        return "waiting" if key.times.signs_from > now else "leaving"

    def next_removal(self, now: float) -> float | None:
        """Return when a key next leaves the published set, if one is to."""
        ends = [end for key in self.keys if (end := key.times.published_until) is not None and end > now]
        return min(ends, default=None)

    def rotate(
        self, now: float, *, overlap: float = DEFAULT_OVERLAP, algorithm: Algorithm | None = None
    ) -> KeySet:
        """Return a set in which another key takes over from the signing one within ``overlap``.

        The other key is published from now on and signs from ``now + overlap`` on; the one before it
        stays published until ``overlap`` after that. A key that waits already is not doubled: it takes
        over at the earlier of both times. Keys that have been retired are dropped.

        Args:
            now: Seconds since the epoch.
            overlap: Seconds; 0 replaces the signing key at once and publishes it no more.
            algorithm: Of a new key; that of the signing key by default.

        Raises:
            ConfigurationError: No key of the set can sign, so there is nothing to take over from.
        """
        signing, waiting = self.signing(now), self.waiting(now)
        if signing is None:
            raise ConfigurationError(
                "The key set holds no private key that could be replaced.",
                remedy="Give the private key set, or make one with 'cohortflow jwks generate'.",
            )
        begin = int(now) + int(overlap)
        if waiting and waiting[0].times.signs_from <= begin:
            return self.without_retired(now)
        keys = list(self.keys)
        if waiting:
            keys[keys.index(waiting[0])] = waiting[0].moved(signs_from=begin)
        else:
            # In front, so that of two keys with the same time the new one signs.
            keys.insert(0, _new_key(algorithm or signing.algorithm, int(now), begin))
        keys[keys.index(signing)] = signing.moved(published_until=begin + int(overlap))
        return KeySet(tuple(keys), self.members).without_retired(now)

    def retire(self, kid: str, now: float, *, at_once: bool = False) -> KeySet:
        """Return a set without a key.

        Raises:
            ConfigurationError: There is no such key; it signs; it is the only one; or it is published yet
                and not ``at_once`` was asked for.
        """
        key = next((key for key in self.keys if key.kid == kid), None)
        if key is None:
            raise ConfigurationError(
                f"The key set has no key '{kid}'.", remedy="See the keys with 'cohortflow jwks list'."
            )
        state = self.state(key, now)
        if state == "signing":
            raise ConfigurationError(
                f"The key '{kid}' signs, so it cannot be retired.",
                remedy="Replace it with 'cohortflow jwks rotate' first; '--overlap 0' does so at once.",
            )
        if state != "retired" and not at_once:
            raise ConfigurationError(
                f"The key '{kid}' is published yet ({state}).",
                remedy="Wait until its time is over, or retire it with '--now'.",
            )
        others = tuple(other for other in self.keys if other is not key)
        if not others:
            raise ConfigurationError(
                f"The key '{kid}' is the only one of the set.", remedy="Remove the whole set instead."
            )
        return KeySet(others, self.members)

    def without_retired(self, now: float) -> KeySet:
        """Return a set without the keys that are published no more."""
        return KeySet(tuple(key for key in self.keys if key.times.is_published(now)), self.members)


def read_times(jwk: Mapping[str, Any], place: str) -> KeyTimes:
    """Read the times of a JWK.

    Raises:
        ConfigurationError: One of them is no time.
    """
    values: dict[str, float | None] = {}
    for name in ("iat", "nbf", "exp"):
        value = jwk.get(name)
        if value is not None and not _is_time(value):
            raise ConfigurationError(
                f"The member '{name}' of a key is no time.",
                place=place,
                remedy="Write it as seconds since 1970-01-01 in UTC, or leave it out.",
            )
        values[name] = value
    return KeyTimes(values["iat"], values["nbf"] or 0.0, values["exp"])


def order_for_signing(keys: Iterable[tuple[KeyTimes, _T]], now: float) -> list[tuple[KeyTimes, _T]]:
    """Return the key that signs at a time, then those that take over from it, in this order.

    Keys that are published no more are left out. Of keys with the same time the first one signs. Where
    no key's time has come, the earliest signs already: its time is there to let servers learn of a
    change, and there is nothing yet to change from.
    """
    published = [item for item in keys if item[0].is_published(now)]
    begun = [item for item in published if item[0].signs_from <= now]
    later = sorted((item for item in published if item[0].signs_from > now), key=lambda i: i[0].signs_from)
    return [max(begun, key=lambda item: item[0].signs_from), *later] if begun else later


def _is_time(value: object) -> bool:
    # This refuses milliseconds and the NaN that Python's JSON knows, too.
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _LAST_SECOND


def _new_key(algorithm: Algorithm, created: int, signs_from: int) -> HostedKey:
    jwk = write_private_key(generate_private_key(algorithm))
    while jwk["kid"].startswith("-"):
        # On a command line it would be taken for an option; one thumbprint in 64 begins like this.
        jwk = write_private_key(generate_private_key(algorithm))
    return _read_entry(jwk | {"iat": created, "nbf": signs_from}, "the new key")


def _read_entry(entry: object, place: str) -> HostedKey:
    if not isinstance(entry, dict) or entry.get("kty") not in ("RSA", "EC"):
        raise ConfigurationError(
            "An entry of the key set is no RSA or EC key.",
            place=place,
            remedy="Keep a key set for SMART Backend Services alone.",
        )
    key = read_jwk(entry, place)
    algorithm = find_algorithm(key, place)
    if entry.get("use", "sig") != "sig" or entry.get("alg", algorithm) != algorithm:
        raise ConfigurationError(
            "An entry of the key set is meant for other than signatures by RS384 or ES384.",
            place=place,
            remedy="Keep a key set for SMART Backend Services alone.",
        )
    kid = entry.get("kid") or thumbprint(key)
    if not isinstance(kid, str):
        raise ConfigurationError("The kid of a key is no text.", place=place, remedy="Write it in quotes.")
    public = describe_public_key(key)
    published = {"kty": public.pop("kty"), "kid": kid, "use": "sig", "alg": algorithm, **public}
    if leaked := SECRET_MEMBERS.intersection(published):
        raise AssertionError(leaked)
    return HostedKey(kid, algorithm, read_times(entry, place), published, {**entry, "kid": kid})


def _no_key_set(place: str) -> ConfigurationError:
    return ConfigurationError(
        "This is no JWK set, no JWK and no private key in PEM.",
        place=place,
        remedy="Give a file made by 'cohortflow jwks generate', or its text.",
    )
