"""How a sandbox is set up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from cohortflow.errors import ConfigurationError
from cohortflow.sandbox.authorization import JwksSource
from cohortflow.sandbox.persona import FileDelivery, Persona
from cohortflow.sandbox.personas import GENERIC, persona_named
from cohortflow.sandbox.retry_after import RetryAfterFormat

__all__ = ["SandboxConfig"]

_OF_PERSONA = (
    "token_seconds",
    "max_running_exports",
    "resources_per_file",
    "file_delivery",
    "page_size",
    "max_page_size",
)


@dataclass(frozen=True, kw_only=True)
class SandboxConfig:
    """Settings of a sandbox EHR; the defaults make a quick, well-behaved server.

    Where a setting is ``None``, the persona decides.

    Attributes:
        data: Folder of ``<Type>.ndjson`` and ``<Type>.ndjson.gz``.
        clients: Registered clients: id, and JWK Set as object, file or URL.
        open: No authorization at all.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        public_url: How clients reach the server, if not by the host that they name in the request.
        storage_port: Port of the storage that redirected files come from; 0 takes a free one.
        storage_url: How clients reach that storage, if not by its port on this machine.
        clock_offset: Seconds by which the server's clock is ahead of the client's, as its ``Date``
            header says; assertions are judged by it.
        token_seconds: Life of an access token.
        export_seconds: Shortest time that an export takes.
        export_polls: Least number of status requests that are told to come back.
        retry_after: Seconds in ``Retry-After`` of an unfinished export.
        retry_after_format: How that header is written (B5).
        export_lifetime: Seconds for which the files of a finished export stay.
        max_running_exports: Unfinished exports per client; one more is refused with 429.
        resources_per_file: Resources after which a new export file starts.
        file_delivery: Where files are and whether they need the token: see ``Persona``.
        gzip_files: Compress files for clients that accept it.
        page_size: Resources per search page when the client names no ``_count``.
        max_page_size: Most resources per search page.
        page_lifetime: Seconds for which ``next`` links work.
        persona: Where the server differs from the specification; a persona, or the name of one.
    """

    data: Path
    clients: Mapping[str, JwksSource] = field(default_factory=dict)
    open: bool = False
    host: str = "127.0.0.1"
    port: int = 0
    public_url: str | None = None
    storage_port: int = 0
    storage_url: str | None = None
    clock_offset: float = 0.0
    token_seconds: int | None = None
    export_seconds: float = 1.0
    export_polls: int = 0
    retry_after: int = 1
    retry_after_format: RetryAfterFormat = "seconds"
    export_lifetime: float = 3600.0
    max_running_exports: int | None = None
    resources_per_file: int | None = None
    file_delivery: FileDelivery | None = None
    gzip_files: bool = True
    page_size: int | None = None
    max_page_size: int | None = None
    page_lifetime: float = 600.0
    persona: Persona | str = GENERIC

    def __post_init__(self) -> None:
        self.effective_persona()
        least = {"token_seconds": 1, "resources_per_file": 1, "page_size": 1, "max_page_size": 1, "port": 0}
        for name, least_value in least.items():
            if (value := getattr(self, name)) is not None and value < least_value:
                raise ConfigurationError(
                    f"{name} has to be at least {least_value}",
                    place="sandbox",
                    remedy=f"Set a larger {name}.",
                )

    def effective_persona(self) -> Persona:
        """The persona, with what these settings change in it.

        Raises:
            ConfigurationError: There is none of this name.
        """
        persona = persona_named(self.persona) if isinstance(self.persona, str) else self.persona
        changes = {name: value for name in _OF_PERSONA if (value := getattr(self, name)) is not None}
        if not self.gzip_files:
            changes["compression"] = "none"
        return replace(persona, **changes)
