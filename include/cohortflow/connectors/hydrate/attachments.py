"""Content of documents, read as Binary in the type that the document states, and no other.

Source: http://hl7.org/fhir/R4/binary.html#rest
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

import httpx
import orjson

from cohortflow.connectors.hydrate.references import main_type
from cohortflow.connectors.search.bundle import Note, parse_notes
from cohortflow.connectors.search.client import DailyLimitError, SearchClient, SearchRefusedError
from cohortflow.connectors.transport.http import describe_failure, read_body

__all__ = ["AttachmentReader"]

_FHIR = frozenset({"application/fhir+json", "application/json", "application/json+fhir"})
_ERROR_STATUS = 400


@dataclass(frozen=True, slots=True)
class AttachmentReader:
    """Reads Binaries of one server.

    Attributes:
        search: The server.
        max_bytes: Largest content that is taken.
    """

    search: SearchClient
    max_bytes: int

    async def read(self, binary_id: str, content_type: str) -> bytes:
        """Return a Binary as a line of NDJSON, its content in base64.

        Args:
            binary_id: Its id.
            content_type: The type that the document states; anything else that comes is refused (E19).

        Raises:
            SearchRefusedError: It is not there, not for us, too large, or not what it should be.
            DailyLimitError: There will be more tomorrow.
            TransientSourceError: The server stayed busy or unreachable.
        """
        client = self.search.client
        url = f"{client.source.base_url}/Binary/{binary_id}"

        async def attempt() -> bytes:
            async with client.open("GET", url, headers={"Accept": content_type}) as response:
                return await self._content(response, content_type)

        content = await client.policy.run(attempt, client.clock)
        data = base64.b64encode(content).decode()
        binary = {"resourceType": "Binary", "id": binary_id, "contentType": content_type, "data": data}
        return orjson.dumps(binary, option=orjson.OPT_APPEND_NEWLINE)

    async def _content(self, response: httpx.Response, wanted: str) -> bytes:
        if response.status_code >= _ERROR_STATUS:
            # Read in one go: what was streamed cannot be read once more for the codes in it.
            notes = parse_notes(await read_body(response), (), self.search.profile)
            raise self.search.refusal(response, notes, await describe_failure(response, "read"))
        body = bytearray()
        got = main_type(response.headers.get("Content-Type", ""))
        wrapped = got in _FHIR and wanted not in _FHIR
        # Base64 within a FHIR Binary takes a third more than the content.
        limit = self.max_bytes * 4 // 3 + 4096 if wrapped else self.max_bytes
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > limit:
                raise self._wrong("too-large", "is larger than the limit")
        content = bytes(body)
        notes = parse_notes(content, (), self.search.profile) if got in _FHIR or not got else ()
        if notes:
            refusal = self.search.refusal(response, notes, self._wrong("outcome", "did not come"))
            raise (
                refusal
                if isinstance(refusal, DailyLimitError)
                else self._wrong(_reason(notes), "did not come")
            )
        if wrapped:
            content, got = self._unwrap(content)
        if got != wanted:
            raise self._wrong("wrong-type", "came in another type than the document states")
        return content

    def _unwrap(self, body: bytes) -> tuple[bytes, str]:
        """Return the content and type of a Binary that came as a resource in spite of ``Accept``."""
        try:
            value = orjson.loads(body)
        except orjson.JSONDecodeError:
            value = None
        kind = value.get("resourceType") if isinstance(value, dict) else None
        if not isinstance(value, dict) or kind != "Binary":
            raise self._wrong("outcome" if kind == "OperationOutcome" else "wrong-type", "did not come")
        try:
            content = base64.b64decode(value.get("data") or "", validate=True)
        except (binascii.Error, TypeError, ValueError):
            raise self._wrong("malformed", "is no base64") from None
        if len(content) > self.max_bytes:
            raise self._wrong("too-large", "is larger than the limit")
        return content, main_type(str(value.get("contentType") or ""))

    def _wrong(self, reason: str, fault: str) -> SearchRefusedError:
        return SearchRefusedError(
            f"The content of a document {fault}.",
            place=self.search.host,
            remedy="Look the reason up in the documentation of searches.",
            reason=reason,
        )


def _reason(notes: tuple[Note, ...]) -> str:
    return next((str(note.meaning) for note in notes if note.meaning is not None), "outcome")
