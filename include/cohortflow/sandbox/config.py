"""How a sandbox is set up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cohortflow.errors import ConfigurationError
from cohortflow.sandbox.authorization import JwksSource
from cohortflow.sandbox.persona import Persona

__all__ = ["FileDelivery", "SandboxConfig"]

FileDelivery = Literal["token", "open", "redirect"]


@dataclass(frozen=True, kw_only=True)
class SandboxConfig:
    """Settings of a sandbox EHR; the defaults make a quick, well-behaved server.

    Attributes:
        data: Folder of ``<Type>.ndjson`` and ``<Type>.ndjson.gz``.
        clients: Registered clients: id, and JWK Set as object, file or URL.
        open: No authorization at all.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        public_url: How clients reach the server, if not by the host that they name in the request.
        token_seconds: Life of an access token.
        export_seconds: Shortest time that an export takes.
        export_polls: Least number of status requests that are told to come back.
        retry_after: Seconds in ``Retry-After`` of an unfinished export.
        export_lifetime: Seconds for which the files of a finished export stay.
        max_running_exports: Unfinished exports per client; one more is refused with 429.
        resources_per_file: Resources after which a new export file starts.
        file_delivery: ``token``: files need the access token; ``open``: the URL suffices, and
            a request with a token is refused, as pre-signed storage does; ``redirect``: the file
            URL needs the token, and leads to such storage with a 307.
        gzip_files: Compress files for clients that accept it.
        page_size: Resources per search page when the client names no ``_count``.
        max_page_size: Most resources per search page.
        page_lifetime: Seconds for which ``next`` links work.
        persona: Where the server differs from the specification.
    """

    data: Path
    clients: Mapping[str, JwksSource] = field(default_factory=dict)
    open: bool = False
    host: str = "127.0.0.1"
    port: int = 0
    public_url: str | None = None
    token_seconds: int = 300
    export_seconds: float = 1.0
    export_polls: int = 0
    retry_after: int = 1
    export_lifetime: float = 3600.0
    max_running_exports: int | None = None
    resources_per_file: int = 50_000
    file_delivery: FileDelivery = "token"
    gzip_files: bool = True
    page_size: int = 100
    max_page_size: int = 1000
    page_lifetime: float = 600.0
    persona: Persona = field(default_factory=Persona)

    def __post_init__(self) -> None:
        least = {"token_seconds": 1, "resources_per_file": 1, "page_size": 1, "max_page_size": 1, "port": 0}
        for name, least_value in least.items():
            if getattr(self, name) < least_value:
                raise ConfigurationError(
                    f"{name} has to be at least {least_value}",
                    place="sandbox",
                    remedy=f"Set a larger {name}.",
                )
