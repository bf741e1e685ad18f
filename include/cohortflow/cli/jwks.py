"""cohortflow jwks: the keys that SMART Backend Services know this deployment by."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import quote

import typer
from rich.markup import escape

from cohortflow.cli.console import print_json, stderr, stdout
from cohortflow.errors import ConfigurationError, SourceError

if TYPE_CHECKING:
    from cohortflow.connectors import FhirSource
    from cohortflow.connectors.keys import HostedKey, KeySet
    from cohortflow.connectors.keys.check import Finding

__all__ = ["app"]

app = typer.Typer(
    help="Keys for SMART Backend Services: make, rotate, publish and check them.", no_args_is_help=True
)

_STANDARD = "-"
_HOUR = 3600.0
_DAY = 86_400.0
_OTHERS = 0o007
_MAX_AGE = 3600

KeysArgument = Annotated[
    str, typer.Argument(metavar="KEYS", help="File of the private key set; - for standard input.")
]
AlgorithmOption = Annotated[
    Literal["RS384", "ES384"] | None,
    typer.Option("--alg", help="RS384 (RSA, 3072 bits) or ES384 (curve P-384)."),
]
MaxAgeOption = Annotated[
    int, typer.Option(min=0, help="Seconds for which servers may keep a copy; well below the overlap.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def generate(
    keys: Annotated[
        str, typer.Argument(metavar="KEYS", help="File to write, mode 0600; - prints, for a secrets backend.")
    ],
    alg: AlgorithmOption = "RS384",
    allow_work_tree: Annotated[
        bool, typer.Option("--allow-work-tree", help="Write the file even into a git work tree.")
    ] = False,
) -> None:
    """Make a key set with one new private key; nothing is ever overwritten."""
    from cohortflow.connectors.keys import KeySet
    from cohortflow.connectors.keys.file import create_key_file

    key_set = KeySet.generate(alg or "RS384", time.time())
    if keys == _STANDARD:
        sys.stdout.write(key_set.to_text())
    else:
        create_key_file(Path(keys), key_set, allow_work_tree=allow_work_tree)
    (key,) = key_set.keys
    _say(f"Made key {key.kid} ({key.algorithm}). It signs from now on; publish it and register its address.")


@app.command()
def rotate(
    keys: KeysArgument,
    overlap: Annotated[
        float,
        typer.Option(
            min=0,
            max=24 * 365,
            help="Hours from publication to first signature, and from last signature to removal. "
            "0 replaces a key that has leaked at once.",
        ),
    ] = 24.0,
    older_than: Annotated[
        float, typer.Option(min=0, help="Only where the signing key has signed for so many days.")
    ] = 0.0,
    alg: AlgorithmOption = None,
    publish_to: Annotated[
        str, typer.Option("--publish", metavar="DEST", help="Publish the set afterwards, changed or not.")
    ] = "",
    max_age: MaxAgeOption = _MAX_AGE,
) -> None:
    """Add a key that is published now and signs after an overlap; the one before it leaves after another.

    Running it twice adds one key. With '-' the set is read from standard input and the new one printed.
    """
    from cohortflow.connectors.keys.file import change_key_file

    now = time.time()

    def change(key_set: KeySet) -> KeySet:
        signing = key_set.signing(now)
        if signing is not None and now - signing.times.signs_from < older_than * _DAY:
            return key_set.without_retired(now)
        return key_set.rotate(now, overlap=overlap * _HOUR, algorithm=alg)

    if keys == _STANDARD:
        before = _read(keys)
        after = change(before)
        sys.stdout.write(after.to_text())
    else:
        before, after = change_key_file(Path(keys), change)
    _tell_rotation(before, after, now)
    if after != before and overlap * _HOUR < max_age:
        _say(
            f"servers may keep a copy of the old set for {max_age} s, and refuse the new key for so long.",
            "note",
        )
    if publish_to:
        _publish(after, publish_to, max_age, now)


@app.command()
def retire(
    keys: KeysArgument,
    kid: Annotated[str, typer.Argument(metavar="KID", help="The key's id, as 'list' shows it.")],
    now: Annotated[bool, typer.Option("--now", help="Even if it is published yet.")] = False,
) -> None:
    """Remove a key that signs no more; the signing key has to be rotated first."""
    from cohortflow.connectors.keys.file import change_key_file

    moment = time.time()
    if keys == _STANDARD:
        sys.stdout.write(_read(keys).retire(kid, moment, at_once=now).to_text())
    else:
        change_key_file(Path(keys), lambda key_set: key_set.retire(kid, moment, at_once=now))
    _say(f"Removed key {kid}. Publish the set again.")


@app.command("list")
def list_keys(keys: KeysArgument, json: JsonOption = False) -> None:
    """Show the keys of a set and what each one does now."""
    key_set, now = _read(keys), time.time()
    if keys != _STANDARD and Path(keys).stat().st_mode & _OTHERS and any(k.is_private for k in key_set.keys):
        _say("others can read this file, which holds private keys: chmod 600", "warning")
    if not json:
        for key in key_set.keys:
            state = _describe_state(key, key_set, now)
            stdout.print(
                f"{key.kid}  {key.algorithm}  {state}", soft_wrap=True, highlight=False, markup=False
            )
        return
    print_json(
        [
            {
                "kid": key.kid,
                "algorithm": key.algorithm,
                "state": key_set.state(key, now),
                "created": _moment(key.times.created),
                "signs_from": _moment(key.times.signs_from or None),
                "published_until": _moment(key.times.published_until),
            }
            for key in key_set.keys
        ]
    )


@app.command()
def publish(
    keys: KeysArgument,
    destination: Annotated[str, typer.Argument(metavar="DEST", help="A file, or s3://bucket/path.json.")],
    max_age: MaxAgeOption = _MAX_AGE,
) -> None:
    """Write the public key set to a file or a bucket, and say which address to register."""
    _publish(_read(keys), destination, max_age, time.time())


@app.command()
def serve(
    keys: KeysArgument,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for a free one.")] = 8091,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    max_age: MaxAgeOption = _MAX_AGE,
) -> None:
    """Serve the public key set at /.well-known/jwks.json; a changed file is read again.

    A public set, as 'publish' writes it, is enough: then no private key is on this machine.
    """
    from cohortflow.connectors.keys.server import WatchedKeyFile, create_key_app, serve_keys
    from cohortflow.connectors.loopback import is_loopback

    if keys == _STANDARD:
        key_set = _read(keys)
        app = create_key_app(lambda: (key_set, ""), max_age=max_age)
    else:
        app = create_key_app(WatchedKeyFile(Path(keys)).current, max_age=max_age)
    if not is_loopback(host):
        _say("this is plain http. Servers demand TLS: put a reverse proxy in front.", "note")
    serve_keys(app, host=host, port=port, announce=partial(print, flush=True))


@app.command()
def check(
    conn: Annotated[str, typer.Argument(help="Connection of a FHIR server, as AIRFLOW_CONN_<ID>.")],
    url: Annotated[
        str, typer.Option(help="Registered address of the key set; the connection's 'jwks_url' by default.")
    ] = "",
    json: JsonOption = False,
) -> int:
    """Compare the keys that a connection signs with to the set that servers fetch."""
    from cohortflow.connectors import FhirSource
    from cohortflow.model import EnvDeployment

    source = FhirSource.from_connection(EnvDeployment().connection(conn))
    url = url or source.jwks_url
    place = f"connection '{conn}'"
    if source.key is None:
        raise ConfigurationError(
            f"The connection signs nothing: its 'auth' is {source.auth}.",
            place=place,
            remedy="Key sets belong to connections with the auth 'backend_services'.",
        )
    if not url:
        raise ConfigurationError(
            "No address of the published key set is given.",
            place=place,
            remedy="Set the connection's extra 'jwks_url', or give --url.",
        )
    findings = asyncio.run(_check(source, url))
    if json:
        print_json([{"severity": f.severity, "text": f.text, "remedy": f.remedy} for f in findings])
    else:
        for finding in findings:
            colour = {"ok": "green", "warning": "yellow", "error": "bold red"}[finding.severity]
            stdout.print(f"[{colour}]{finding.severity}[/] {escape(finding.text)}", soft_wrap=True)
            if finding.remedy:
                stdout.print(f"  -> {escape(finding.remedy)}", soft_wrap=True)
    return int(any(finding.severity == "error" for finding in findings))


async def _check(source: FhirSource, url: str) -> list[Finding]:
    from cohortflow.connectors import SystemClock
    from cohortflow.connectors.keys.check import Finding, check_algorithm, check_published_keys
    from cohortflow.connectors.transport.auth import read_smart_configuration
    from cohortflow.connectors.transport.http import HttpSession

    if source.key is None:
        return []
    clock = SystemClock()
    key = source.key.at(clock.time())
    findings = await check_published_keys(key, url, now=clock.time())
    try:
        async with HttpSession(source, clock) as session:
            smart = await read_smart_configuration(session)
    except (SourceError, ConfigurationError) as error:
        return [
            *findings,
            Finding("warning", f"The FHIR server was not asked: {error.message}", error.remedy),
        ]
    algorithm = check_algorithm(key, smart.get("token_endpoint_auth_signing_alg_values_supported"))
    return findings if algorithm is None else [*findings, algorithm]


def _read(keys: str) -> KeySet:
    from cohortflow.connectors.keys import KeySet
    from cohortflow.connectors.keys.file import read_key_file

    return (
        KeySet.parse(sys.stdin.read(), "standard input") if keys == _STANDARD else read_key_file(Path(keys))
    )


def _publish(key_set: KeySet, destination: str, max_age: int, now: float) -> None:
    from cohortflow.connectors.keys.server import public_document

    content = public_document(key_set, now)
    if "://" in destination:
        url = _put(destination, content, max_age)
        address = f"Register this address, which everyone must be able to read: {url}"
    else:
        from cohortflow.connectors.keys.file import write_public_file

        write_public_file(Path(destination), content)
        address = "Register the https address under which your web server gives this file."
    count = len(key_set.to_public(now)["keys"])
    _say(f"Published {count} public key{'s' * (count != 1)} to {destination}. {address}")
    end = key_set.next_removal(now)
    if end is not None:
        _say(f"Publish again after {_moment(end)}: a key leaves the set then.")


def _put(uri: str, content: bytes, max_age: int) -> str:
    """Write the public set to a bucket; return the address that it has there."""
    from cohortflow.connectors.keys.server import JWKS_TYPE
    from cohortflow.lake import open_store
    from cohortflow.model import EnvDeployment

    scheme, _, rest = uri.partition("://")
    bucket, _, path = rest.partition("/")
    if scheme not in ("s3", "s3a") or not bucket or not path or path.endswith("/"):
        raise ConfigurationError(
            "Key sets are published to a file or to s3://bucket/path.json.",
            place=uri,
            remedy="Name the object, too: s3://bucket/jwks.json.",
        )
    store = open_store(f"s3://{bucket}", EnvDeployment())
    headers = {"Content-Type": JWKS_TYPE, "Cache-Control": f"public, max-age={max_age}"}
    store.write(path, content, headers=headers)
    if endpoint := store.options.get("aws_endpoint_url"):
        return f"{endpoint.rstrip('/')}/{bucket}/{quote(path)}"
    region = store.options.get("aws_region") or os.environ.get("AWS_REGION", "us-east-1")
    return f"https://{bucket}.s3.{region}.amazonaws.com/{quote(path)}"


def _tell_rotation(before: KeySet, after: KeySet, now: float) -> None:
    known = {key.kid: key for key in before.keys}
    present = {key.kid for key in after.keys}
    for key in after.keys:
        if key != known.get(key.kid):
            _say(_describe_change(key, after, now))
    for kid in known:
        if kid not in present:
            _say(f"Removed key {kid}: its time is over.")
    if after == before:
        waiting = after.waiting(now)
        _say(
            f"Nothing was changed: key {waiting[0].kid} waits already, to sign from "
            f"{_moment(waiting[0].times.signs_from)}."
            if waiting
            else "Nothing was changed: the signing key is not that old."
        )


def _describe_state(key: HostedKey, key_set: KeySet, now: float) -> str:
    begin, end = _moment(key.times.signs_from or None), _moment(key.times.published_until)
    match key_set.state(key, now):
        case "waiting":
            return f"waiting: published, signs from {begin}"
        case "signing":
            return (
                "signing" + (f" since {begin}" if begin else "") + (f", published until {end}" if end else "")
            )
        case "leaving":
            return f"leaving: published until {end}" if end else "leaving: published until it is retired"
        case "published":
            return "published: its private half is not in this set"
        case _:
            return f"retired: published until {end}"


def _describe_change(key: HostedKey, key_set: KeySet, now: float) -> str:
    state = key_set.state(key, now)
    if state == "waiting":
        begin = _moment(key.times.signs_from)
        return f"Key {key.kid} ({key.algorithm}) is to be published now and signs from {begin}."
    if key.times.published_until is not None:
        return f"Key {key.kid} leaves the published set at {_moment(key.times.published_until)}."
    return f"Key {key.kid} ({key.algorithm}) signs from now on. Publish it."


def _say(text: str, label: str = "") -> None:
    # Not on standard output, which may carry the keys.
    mark = f"[yellow]{label}:[/] " if label else ""
    stderr.print(mark + escape(text), highlight=False, soft_wrap=True)


def _moment(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
