"""Export files over HTTP: whole or in ranges, compressed or not, from here or from storage elsewhere."""

from __future__ import annotations

import secrets
import shutil
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlencode, urlsplit

from starlette.responses import FileResponse, RedirectResponse, Response, StreamingResponse

from cohortflow.sandbox.authorization import Grant
from cohortflow.sandbox.faults import Fault
from cohortflow.sandbox.hospital import Call
from cohortflow.sandbox.outcome import RefusalError
from cohortflow.sandbox.storage_errors import StorageRefusalError

__all__ = ["FileDesk"]

_NDJSON = "application/fhir+ndjson"
_BLOCK = 4 << 20
_GZIP_BLOCK = 1 << 20
_SIGNED_SECONDS = 60.0
_MALFORMED = b'{"resourceType":"Bundle","id":\n'
_TWIN = {"127.0.0.1": "localhost", "localhost": "127.0.0.1"}


class _BigBlocks(FileResponse):
    chunk_size = _BLOCK


class FileDesk:
    """Hands out export files, and URLs that are signed for a minute."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._signed: dict[str, tuple[Path, float]] = {}

    def get_file(self, call: Call) -> Response:
        """``GET /exports/{export}/{name}``."""
        delivery = call.hospital.persona.file_delivery
        grant = call.grant
        authorization = call.request.headers.get("authorization")
        if delivery == "open":
            if authorization is not None:  # B2
                raise RefusalError(
                    400, "security", "this URL is to be fetched without an Authorization header"
                )
        elif not call.hospital.config.open:
            grant = call.hospital.tokens.check(authorization)
        path = _file(call, grant)
        if delivery == "redirect":
            return RedirectResponse(self._sign(call, path), status_code=307)
        return _deliver(call, path)

    def get_stored(self, call: Call) -> Response:
        """``GET /storage/{signature}/{name}``: stands for pre-signed object storage (O8)."""
        if "authorization" in call.request.headers:
            raise StorageRefusalError(
                400, "InvalidArgument", "Only one auth mechanism allowed; the URL is signed already."
            )
        with self._lock:
            path, expires = self._signed.get(call.request.path_params["signature"], (None, 0.0))
        if path is None or expires < time.monotonic():
            raise StorageRefusalError(403, "AccessDenied", "Request has expired")
        if not path.exists():
            raise StorageRefusalError(404, "NoSuchKey", "The specified key does not exist.")
        return _deliver(call, path)

    def _sign(self, call: Call, path: Path) -> str:
        signature = secrets.token_urlsafe(24)
        with self._lock:
            now = time.monotonic()
            self._signed = {key: entry for key, entry in self._signed.items() if entry[1] >= now}
            self._signed[signature] = (path, now + _SIGNED_SECONDS)
        query = urlencode({"X-Amz-Algorithm": "AWS4-HMAC-SHA256", "X-Amz-Signature": signature})
        return f"{_storage_url(call)}/storage/{signature}/{path.name}?{query}"


def _storage_url(call: Call) -> str:
    if call.hospital.storage_url is not None:
        return call.hospital.storage_url.rstrip("/")
    # Another name of this host makes it another origin, as storage is for a hospital's server.
    root = urlsplit(call.root_url)
    netloc = root.netloc
    if root.hostname in _TWIN:
        netloc = netloc.replace(root.hostname, _TWIN[root.hostname], 1)
    if call.hospital.storage_port is not None:
        netloc = f"{netloc.rpartition(':')[0] or netloc}:{call.hospital.storage_port}"
    return root._replace(netloc=netloc).geturl()


def _file(call: Call, grant: Grant) -> Path:
    board, open_url = call.hospital.exports, call.hospital.persona.file_delivery == "open"
    export = board.get(call.request.path_params["export"], None if open_url else grant.client_id)
    if not export.has_link(call.request.query_params.get("link", "")):  # B9
        raise RefusalError(410, "expired", "this URL has expired; fetch the manifest again")
    name = str(call.request.path_params["name"])
    if all(file.name != name for file in export.files[: board.available(export)]):
        raise RefusalError(404, "not-found", "there is no such file in this export")
    return export.folder / name


def _deliver(call: Call, original: Path) -> Response:
    try:
        return _answer(call, _spoil(original, call.fault))
    except FileNotFoundError:  # the export expired just now
        raise RefusalError(404, "not-found", "there is no such file in this export") from None


def _answer(call: Call, path: Path) -> Response:
    persona = call.hospital.persona
    packed = {"Content-Encoding": "gzip"}
    if persona.compression == "stored":  # O9: whatever the client accepts, and ranges count these bytes
        return _whole_or_range(call, _packed(path), packed)
    accepted = call.request.headers.get("accept-encoding", "").lower()
    ranged = persona.serves_ranges and "range" in call.request.headers
    vary = {"Vary": "Accept-Encoding"}
    if persona.compression == "negotiated" and "gzip" in accepted and not ranged:
        return StreamingResponse(_compress(path), media_type=_NDJSON, headers=packed | vary)
    return _whole_or_range(call, path, vary)


def _whole_or_range(call: Call, path: Path, headers: dict[str, str]) -> Response:
    if call.hospital.persona.serves_ranges:
        return _BigBlocks(path, media_type=_NDJSON, headers=headers)
    length = {"Content-Length": str(path.stat().st_size)}
    return StreamingResponse(_blocks(path), media_type=_NDJSON, headers=headers | length)


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            yield block


def _packed(path: Path) -> Path:
    packed = path.with_name(f"{path.name}.gz")
    if not packed.exists():
        draft = path.with_name(f"{secrets.token_hex(8)}.part")
        with draft.open("wb") as target:
            for block in _compress(path):
                target.write(block)
        draft.replace(packed)  # the first to finish or the last: they are the same bytes
    return packed


def _compress(path: Path) -> Iterator[bytes]:
    # Opened at once, so that an export that expires now is refused or served, but not cut short.
    return _gzip(path.open("rb"))


def _gzip(source: BinaryIO) -> Iterator[bytes]:
    packer = zlib.compressobj(level=1, wbits=31)
    with source:
        while block := source.read(_GZIP_BLOCK):
            if packed := packer.compress(block):
                yield packed
    yield packer.flush()


def _spoil(path: Path, fault: Fault | None) -> Path:
    if fault is None or fault.kind not in {"drop-lines", "malformed-line", "cut-file", "changed-file"}:
        return path
    if fault.kind == "changed-file":
        _rewrite(path)
        return path
    spoiled = path.with_name(f"{secrets.token_hex(8)}.spoiled")
    if fault.kind == "cut-file":
        size = path.stat().st_size
        shutil.copyfile(path, spoiled)
        with spoiled.open("r+b") as file:
            file.truncate(size // 2 if fault.at_bytes is None else min(fault.at_bytes, size))
        return spoiled
    lines = path.read_bytes().splitlines(keepends=True)
    if fault.kind == "drop-lines":
        lines = lines[: -fault.lines]
    else:
        lines.insert(fault.line - 1, _MALFORMED)
    spoiled.write_bytes(b"".join(lines))
    return spoiled


def _rewrite(path: Path) -> None:
    # The same lines in another order: of the same size, so that only the bytes and the ETag tell.
    lines = path.read_bytes().splitlines(keepends=True)
    draft = path.with_name(f"{secrets.token_hex(8)}.part")
    draft.write_bytes(b"".join(reversed(lines)))
    draft.replace(path)
    path.with_name(f"{path.name}.gz").unlink(missing_ok=True)
