"""Serves a public key set over HTTP, for EHRs to fetch.

Only public members leave this module: it builds its answers from `KeySet.to_public` alone.
"""

from __future__ import annotations

import hashlib
import json
import logging
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cohortflow.connectors.keys.file import read_key_file
from cohortflow.connectors.keys.key_set import KeySet
from cohortflow.errors import ConfigurationError

__all__ = [
    "DEFAULT_MAX_AGE",
    "JWKS_PATH",
    "JWKS_TYPE",
    "JWK_SET_TYPE",
    "WatchedKeyFile",
    "create_key_app",
    "public_document",
    "serve_keys",
]

_log = logging.getLogger(__name__)

JWKS_PATH = "/.well-known/jwks.json"
"""Path of the public key set."""

JWKS_TYPE = "application/json"
"""Media type that SMART servers ask for (client-confidential-asymmetric, "Signature Verification")."""

JWK_SET_TYPE = "application/jwk-set+json"
"""Media type of RFC 7517, 8.5.2, for those who ask for it."""

DEFAULT_MAX_AGE = 3600
"""Seconds for which servers may keep a copy. SMART forbids them to keep it longer; it has to be well
below the overlap of a rotation."""


def public_document(key_set: KeySet, now: float) -> bytes:
    """Return the JSON text of the public key set at a time."""
    return json.dumps(key_set.to_public(now), indent=1).encode() + b"\n"


class WatchedKeyFile:
    """A key set in a file that is read again whenever the file changes.

    A file that is missing or broken for a while changes nothing: the last good set stays.

    Args:
        path: The file.

    Raises:
        ConfigurationError: The file cannot be read now.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._seen = self._stamp()
        self._key_set = read_key_file(path)
        self._fault = ""

    def current(self) -> tuple[KeySet, str]:
        """Return the key set, and what is wrong with the file; empty where nothing is."""
        with self._lock:
            stamp = self._stamp()
            if stamp != self._seen:
                self._seen = stamp
                try:
                    self._key_set, self._fault = read_key_file(self._path), ""
                    _log.info("Read the key file again: %d keys", len(self._key_set.keys))
                except ConfigurationError as error:
                    self._fault = error.message
                    _log.warning("The last good key set stays in service: %s", error.message)
            return self._key_set, self._fault

    def _stamp(self) -> tuple[int, ...] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino


@dataclass(frozen=True, slots=True)
class _Endpoints:
    keys: Callable[[], tuple[KeySet, str]]
    max_age: int
    clock: Callable[[], float]

    async def jwks(self, request: Request) -> Response:
        key_set, _ = self.keys()
        body = public_document(key_set, self.clock())
        media_type = JWK_SET_TYPE if JWK_SET_TYPE in request.headers.get("Accept", "").lower() else JWKS_TYPE
        tag = f'"{hashlib.sha256(media_type.encode() + body).hexdigest()[:32]}"'
        headers = {
            "Cache-Control": f"public, max-age={self.max_age}",
            "ETag": tag,
            "Vary": "Accept",
            "X-Content-Type-Options": "nosniff",
        }
        asked = request.headers.get("If-None-Match", "").split(",")
        known = {item.strip().removeprefix("W/") for item in asked}
        if tag in known or "*" in known:
            return Response(status_code=304, headers=headers)
        return Response(body, media_type=media_type, headers=headers)

    async def health(self, _: Request) -> Response:
        key_set, fault = self.keys()
        published = len(key_set.to_public(self.clock())["keys"])
        # A broken file is told, but is no reason to take the server away: the last good set is served.
        status = "degraded" if fault else "ok"
        answer = {"status": status if published else "empty", "keys": published, "fault": fault}
        return JSONResponse(answer, 200 if published else 503, {"Cache-Control": "no-store"})


def create_key_app(
    keys: Callable[[], tuple[KeySet, str]],
    *,
    max_age: int = DEFAULT_MAX_AGE,
    clock: Callable[[], float] = time.time,
) -> Starlette:
    """Make the application.

    ``GET`` and ``HEAD`` of ``/.well-known/jwks.json`` and ``/jwks.json`` answer with the public set,
    ``/healthz`` with how many keys it has. There is nothing else.

    Args:
        keys: Returns the key set, and what is wrong with its source (`WatchedKeyFile.current`).
        max_age: Seconds for which servers may keep a copy.
        clock: Returns seconds since the epoch.
    """
    endpoints = _Endpoints(keys, max_age, clock)
    return Starlette(
        routes=[
            Route(JWKS_PATH, endpoints.jwks),
            Route("/jwks.json", endpoints.jwks),
            Route("/healthz", endpoints.health),
        ]
    )


def serve_keys(app: Starlette, *, host: str, port: int, announce: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT, with a line per request on standard error.

    Args:
        app: The application.
        host: Address to listen on.
        port: Port; 0 for a free one.
        announce: Told the URL of the key set once the server listens.

    Raises:
        ConfigurationError: The address cannot be listened on.
    """
    with _listen(host, port) as listener:
        shown = f"[{host}]" if ":" in host else host
        url = f"http://{shown}:{listener.getsockname()[1]}{JWKS_PATH}"
        config = uvicorn.Config(
            app,
            lifespan="off",
            log_config=_LOGGING,
            proxy_headers=False,  # nobody may claim to come from this machine
            server_header=False,
            timeout_graceful_shutdown=1,
        )
        if threading.current_thread() is threading.main_thread():
            # uvicorn ends on the signal, then raises it again: this makes that an orderly end.
            signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))
        try:
            _Server(config, lambda: announce(url)).run(sockets=[listener])
        except KeyboardInterrupt:
            return


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._announce()


# Who fetched the keys and when is the first question when a server says 'invalid_client'.
_LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "loggers": {
        "uvicorn.error": {"handlers": ["stderr"], "level": "WARNING", "propagate": False},
        "uvicorn.access": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
        __name__: {"handlers": ["stderr"], "level": "INFO", "propagate": False},
    },
}


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            f"The key server cannot listen there: {error.strerror}.",
            place=f"{host}:{port}",
            remedy="Choose another address or port; port 0 takes a free one.",
        ) from None
    return listener
