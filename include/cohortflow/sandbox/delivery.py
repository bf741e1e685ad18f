"""Export files over HTTP: whole or in ranges, compressed or not, from here or from storage elsewhere."""

from __future__ import annotations

import secrets
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from starlette.responses import FileResponse, RedirectResponse, Response, StreamingResponse

from cohortflow.sandbox.authorization import Grant
from cohortflow.sandbox.faults import Fault
from cohortflow.sandbox.hospital import Call
from cohortflow.sandbox.outcome import RefusalError

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
        config = call.hospital.config
        grant = call.grant
        authorization = call.request.headers.get("authorization")
        if config.file_delivery != "open" and not config.open:
            grant = call.hospital.tokens.check(authorization)
        elif config.file_delivery == "open":
            _refuse_token(authorization)
        path = _file(call, grant)
        if config.file_delivery == "redirect":
            return RedirectResponse(self._sign(call, path), status_code=307)
        return _deliver(call, path)

    def get_stored(self, call: Call) -> Response:
        """``GET /storage/{signature}/{name}``: stands for pre-signed object storage."""
        _refuse_token(call.request.headers.get("authorization"))
        with self._lock:
            path, expires = self._signed.get(call.request.path_params["signature"], (None, 0.0))
        if path is None or expires < time.monotonic() or not path.exists():
            raise RefusalError(403, "expired", "the signature of this URL has expired")
        return _deliver(call, path)

    def _sign(self, call: Call, path: Path) -> str:
        signature = secrets.token_urlsafe(24)
        with self._lock:
            now = time.monotonic()
            self._signed = {key: entry for key, entry in self._signed.items() if entry[1] >= now}
            self._signed[signature] = (path, now + _SIGNED_SECONDS)
        # Another name of this host makes it another origin, as storage is for a hospital's server.
        root = urlsplit(call.root_url)
        netloc = root.netloc
        if root.hostname in _TWIN:
            netloc = netloc.replace(root.hostname, _TWIN[root.hostname], 1)
        return root._replace(netloc=netloc).geturl() + f"/storage/{signature}/{path.name}"


def _refuse_token(authorization: str | None) -> None:
    if authorization is not None:
        raise RefusalError(400, "security", "this URL is to be fetched without an Authorization header")


def _file(call: Call, grant: Grant) -> Path:
    board, open_url = call.hospital.exports, call.hospital.config.file_delivery == "open"
    export = board.get(call.request.path_params["export"], None if open_url else grant.client_id)
    path = export.file(call.request.path_params["name"]) if board.is_complete(export) else None
    if path is None:
        raise RefusalError(404, "not-found", "there is no such file in this export")
    return path


def _deliver(call: Call, original: Path) -> Response:
    path = _spoil(original, call.fault)
    accepted = call.request.headers.get("accept-encoding", "").lower()
    if call.hospital.config.gzip_files and "gzip" in accepted and "range" not in call.request.headers:
        headers = {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
        return StreamingResponse(_compress(path), media_type=_NDJSON, headers=headers)
    return _BigBlocks(path, media_type=_NDJSON, headers={"Vary": "Accept-Encoding"})


def _compress(path: Path) -> Iterator[bytes]:
    packer = zlib.compressobj(level=1, wbits=31)
    with path.open("rb") as file:
        while block := file.read(_GZIP_BLOCK):
            if packed := packer.compress(block):
                yield packed
    yield packer.flush()


def _spoil(path: Path, fault: Fault | None) -> Path:
    if fault is None or fault.kind not in {"drop-lines", "malformed-line"}:
        return path
    lines = path.read_bytes().splitlines(keepends=True)
    if fault.kind == "drop-lines":
        lines = lines[: -fault.lines]
    else:
        lines.insert(fault.line - 1, _MALFORMED)
    spoiled = path.with_name(f"{secrets.token_hex(8)}.spoiled")
    spoiled.write_bytes(b"".join(lines))
    return spoiled
