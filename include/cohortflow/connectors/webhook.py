"""Delivery of audit events to a receiver, by the specification Standard Webhooks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

import httpx

from cohortflow import __version__
from cohortflow.connectors.loopback import is_loopback
from cohortflow.connectors.transport.retry import Clock, RetryPolicy, SystemClock, parse_retry_after
from cohortflow.errors import ConfigurationError, DeliveryError, TransientSourceError
from cohortflow.model import Connection

__all__ = ["Signer", "WebhookClient"]

Signer = Callable[[str, datetime, bytes], dict[str, str]]
"""From id, time and body of a message to the headers that sign it."""

_BUSY: Final = frozenset({408, 425, 429})
_SERVER_ERROR: Final = 500
_TIMEOUT_SECONDS: Final = 15.0
_POLICY: Final = RetryPolicy(attempts=4, base=0.5, cap=4.0, max_retry_after=10.0)


@dataclass(slots=True)
class WebhookClient:
    """Posts messages to one address, each signed anew at every attempt.

    Attributes:
        url: The receiver's address: https, or this machine's own.
        sign: Makes the headers.
        policy: When to try again; what is not delivered then stays in the outbox.
        clock: The time.
        transport: For tests.
    """

    url: str
    sign: Signer
    policy: RetryPolicy = _POLICY
    clock: Clock = field(default_factory=SystemClock)
    transport: httpx.AsyncBaseTransport | None = None
    _client: httpx.AsyncClient = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Check the address and open the client."""
        parts = urlsplit(self.url)
        plain = parts.scheme == "http" and is_loopback(parts.hostname or "")
        if not parts.hostname or (parts.scheme != "https" and not plain):
            raise ConfigurationError(
                "The receiver of audit events is not an https address.",
                place=parts.hostname or "webhook",
                remedy="Give the whole address, such as https://receiver.example/events.",
            )
        self._client = httpx.AsyncClient(
            timeout=_TIMEOUT_SECONDS,
            headers={"User-Agent": f"cohortflow/{__version__}", "Content-Type": "application/json"},
            follow_redirects=False,
            transport=self.transport,
        )

    @classmethod
    def from_connection(cls, connection: Connection, sign: Callable[[str], Signer]) -> Self:
        """Make one from a connection: host (and port, schema) the address, password the secret.

        Args:
            connection: The connection.
            sign: From the secret to what signs with it.

        Raises:
            ConfigurationError: The address is not https.
        """
        host = connection.host
        if "://" not in host:
            port = f":{connection.port}" if connection.port else ""
            name, _, path = host.partition("/")
            host = f"{connection.schema or 'https'}://{name}{port}/{path}"
        return cls(host, sign(connection.password))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def deliver(self, message_id: str, body: bytes) -> None:
        """Post one message until the receiver has taken it.

        Raises:
            TransientSourceError: It is busy or cannot be reached.
            DeliveryError: It refused the message.
        """
        await self.policy.run(lambda: self._post(message_id, body), self.clock)

    async def _post(self, message_id: str, body: bytes) -> None:
        place = urlsplit(self.url).hostname or ""
        now = self.clock.time()
        headers = self.sign(message_id, datetime.fromtimestamp(now, UTC), body)
        try:
            response = await self._client.post(self.url, content=body, headers=headers)
        except httpx.HTTPError as error:
            raise TransientSourceError(
                f"The receiver of audit events cannot be reached ({type(error).__name__}).", place=place
            ) from None
        if response.is_success:
            return
        status = response.status_code
        if status in _BUSY or status >= _SERVER_ERROR:
            wait = parse_retry_after(response.headers.get("Retry-After"), now, response.headers.get("Date"))
            raise TransientSourceError(
                f"The receiver of audit events answered {status}.", place=place, retry_after=wait
            )
        raise DeliveryError(
            f"The receiver of audit events answered {status}.",
            place=place,
            remedy="Check the address and the secret of the connection; the event stays in the outbox.",
        )
