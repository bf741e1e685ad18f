"""Runs the sandbox EHR: in a thread for tests, in a process for the command line."""

from __future__ import annotations

import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette

from cohortflow.errors import ConfigurationError, InputError
from cohortflow.sandbox.app import create_app
from cohortflow.sandbox.authorization import JwksSource
from cohortflow.sandbox.config import SandboxConfig
from cohortflow.sandbox.faults import FaultPlan
from cohortflow.sandbox.hospital import Hospital
from cohortflow.sandbox.persona import Persona
from cohortflow.sandbox.request_log import RequestLog

__all__ = ["Sandbox", "parse_client", "running_sandbox", "serve"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_GRACE_SECONDS = 1
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - a mapping, nothing is bound


class Sandbox:
    """A running sandbox, as a test sees it.

    Attributes:
        root_url: Scheme, host and port.
        base_url: The FHIR base URL.
        token_url: The token endpoint.
        faults: Plans faults.
        log: What was asked of the server.
    """

    def __init__(self, root_url: str, hospital: Hospital) -> None:
        self.root_url = root_url
        self.base_url = f"{root_url}/fhir"
        self.token_url = f"{root_url}/auth/token"
        self.faults: FaultPlan = hospital.faults
        self.log: RequestLog = hospital.log
        self._hospital = hospital

    def register(self, client_id: str, jwks: JwksSource, scope: str = "system/*.rs") -> None:
        """Register a client, or change its registration."""
        self._hospital.clients.add(client_id, jwks, scope)

    def register_secret(self, client_id: str, secret: str, scope: str = "system/*.rs") -> None:
        """Register a client with a secret: for the token endpoint, or as HTTP Basic on every request."""
        self._hospital.clients.add_secret(client_id, secret, scope)

    def put(self, *resources: dict[str, Any]) -> None:
        """Add or replace resources; without ``meta.lastUpdated`` they get the hospital's time."""
        self._hospital.store.put(resources)

    def delete(self, resource_type: str, resource_id: str) -> bool:
        """Delete a resource; later exports with ``_since`` list it as deleted."""
        return self._hospital.store.delete(resource_type, resource_id)

    def set_time(self, moment: datetime | None) -> None:
        """Set the hospital's time: what was updated later does not exist yet. ``None``: the clock runs.

        Tokens and assertions keep to the real clock.
        """
        microseconds = None if moment is None else (moment - _EPOCH) // timedelta(microseconds=1)
        self._hospital.store.set_time(microseconds)

    def expire_exports(self) -> None:
        """Let every export expire now."""
        self._hospital.exports.expire_all()

    def expire_links(self) -> None:
        """Let every file URL expire now; a manifest that is fetched again has new ones (B9)."""
        self._hospital.exports.expire_links()

    def end_kickoff_windows(self) -> None:
        """Let every Group be exported again at once (E4, O15)."""
        self._hospital.exports.forget_kickoffs()

    def break_the_glass(self, *patient_ids: str) -> None:
        """Put the records of patients behind the glass: 4130 where named, left out elsewhere (E16)."""
        self._hospital.visibility.break_the_glass(patient_ids)

    def merge(self, resource_type: str, old_id: str, new_id: str) -> None:
        """Let reads of one resource lead to another, in which it went up (E16: 4107)."""
        self._hospital.visibility.merge(resource_type, old_id, new_id)

    def shown_id(self, resource_type: str, stored_id: str) -> str:
        """The id under which clients see a resource of the data folder (E18)."""
        return self._hospital.shaper.shown_id(resource_type, stored_id)

    @property
    def persona(self) -> Persona:
        """Whom the sandbox plays."""
        return self._hospital.persona

    def expire_pages(self) -> None:
        """Let every ``next`` link expire now."""
        self._hospital.pages.expire_all()

    def revoke_tokens(self) -> None:
        """Make every access token invalid."""
        self._hospital.tokens.revoke_all()


class _Server(uvicorn.Server):
    def __init__(self, app: Starlette, announce: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                lifespan="on",
                log_config=None,
                log_level="warning",
                access_log=False,  # it would write URLs, which hold ids
                proxy_headers=False,  # nobody may claim to come from this machine
                server_header=False,
                date_header=not app.state.hospital.config.clock_offset,  # else the front door adds it
                timeout_graceful_shutdown=_GRACE_SECONDS,
            )
        )
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._announce()


def parse_client(text: str) -> tuple[str, JwksSource]:
    """Read ``ID=JWKS``, where JWKS is a file or an http(s) URL.

    Raises:
        InputError: It has another form.
    """
    client_id, mark, source = text.partition("=")
    if not client_id or not mark or not source:
        raise InputError(
            "a client is given as ID=JWKS", remedy="Write --client my-app=keys/jwks.json, or a URL."
        )
    return client_id, source if source.startswith(("http://", "https://")) else Path(source)


def serve(
    config: SandboxConfig, *, ready_file: Path | None = None, announce: Callable[[str], None] = print
) -> None:
    """Serve until SIGTERM or SIGINT; the data are read first, which takes a while if they are large.

    Args:
        config: Settings of the server.
        ready_file: Where to write the FHIR base URL once the server listens.
        announce: Told the FHIR base URL once the server listens.

    Raises:
        InputError: The data or a client's key set cannot be read.
        ConfigurationError: The address cannot be listened on.
    """
    if threading.current_thread() is threading.main_thread():
        # Ends also the reading of data, and lets the clean-up run, which the default would not.
        signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))
    with _listen(config, config.port) as listener, _storage(config) as storage:
        root_url = _root_url(config, listener)

        def tell() -> None:
            announce(f"{root_url}/fhir")
            if ready_file is not None:
                draft = ready_file.with_name(f"{ready_file.name}.part")
                draft.write_text(f"{root_url}/fhir\n")
                draft.replace(ready_file)

        app = create_app(config)
        try:
            _Server(app, tell).run(sockets=_doors(app, listener, storage))
        except KeyboardInterrupt:
            return
        finally:
            app.state.hospital.close()


@contextmanager
def running_sandbox(config: SandboxConfig, *, persona: Persona | str | None = None) -> Iterator[Sandbox]:
    """Run a sandbox in a thread of this process, for tests.

    Args:
        config: Settings of the server.
        persona: Whom it plays, if not the persona of the settings.

    Yields:
        The running sandbox, listening.

    Raises:
        InputError: The data or a client's key set cannot be read.
        ConfigurationError: The address cannot be listened on, or there is no such persona.
    """
    if persona is not None:
        config = replace(config, persona=persona)
    with _listen(config, config.port) as listener, _storage(config) as storage:
        app = create_app(config)
        doors = _doors(app, listener, storage)
        ready = threading.Event()
        server = _Server(app, ready.set)
        thread = threading.Thread(
            target=server.run, kwargs={"sockets": doors}, name="sandbox-ehr", daemon=True
        )
        thread.start()
        try:
            while not ready.wait(0.05):
                if not thread.is_alive():
                    raise ConfigurationError("the sandbox did not start", place=_root_url(config, listener))
            yield Sandbox(_root_url(config, listener), app.state.hospital)
        finally:
            server.should_exit = True
            thread.join(timeout=30)
            app.state.hospital.close()


@contextmanager
def _storage(config: SandboxConfig) -> Iterator[socket.socket | None]:
    # Object storage is another server, so it listens on a port of its own.
    if config.effective_persona().file_delivery != "redirect":
        yield None
        return
    with _listen(config, config.storage_port) as listener:
        yield listener


def _doors(app: Starlette, listener: socket.socket, storage: socket.socket | None) -> list[socket.socket]:
    if storage is None:
        return [listener]
    app.state.hospital.storage_port = storage.getsockname()[1]
    return [listener, storage]


def _listen(config: SandboxConfig, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((config.host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            f"the sandbox cannot listen there: {error.strerror}",
            place=f"{config.host}:{port}",
            remedy="Choose another port, or 0 for a free one.",
        ) from error
    return listener


def _root_url(config: SandboxConfig, listener: socket.socket) -> str:
    if config.public_url is not None:
        return config.public_url.rstrip("/")
    host = _ANY_ADDRESS.get(config.host, config.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
