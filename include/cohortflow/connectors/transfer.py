"""NDJSON on its way from the network to storage: decoded, counted and checked in chunks."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import AsyncGenerator, Iterator

import httpx

from cohortflow.connectors.outcome import count_severities, parse_outcome
from cohortflow.errors import ExportRejectedError, IncompleteDownloadError

__all__ = ["FileMeter", "OutcomeMeter", "iterate_ndjson"]

_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_WINDOW = zlib.MAX_WBITS | 16
_MAX_CHUNK = 1 << 20
_MAX_OUTCOME = 1 << 20


class FileMeter:
    """Counts what passes: bytes, lines that are not blank, SHA-256."""

    def __init__(self) -> None:
        self.bytes = 0
        self.lines = 0
        self._hash = hashlib.sha256()
        self._within_line = False

    @property
    def sha256(self) -> str:
        """Hex digest of the bytes so far."""
        return self._hash.hexdigest()

    def update(self, chunk: bytes) -> None:
        """Take the next chunk."""
        self.bytes += len(chunk)
        self._hash.update(chunk)
        # Blank lines are no resources; a line counts once, when its first visible character comes.
        first, *others = chunk.split(b"\n")
        if first.strip() and not self._within_line:
            self.lines += 1
            self._within_line = True
        if others:
            visible = [bool(line.strip()) for line in others]
            self.lines += sum(visible)
            self._within_line = visible[-1]


class OutcomeMeter:
    """Counts the issues of OperationOutcomes by severity, line by line."""

    def __init__(self, warning_codes: frozenset[str]) -> None:
        self.severities: dict[str, int] = {}
        self.codes: set[str] = set()
        self._warning_codes = warning_codes
        self._rest = b""

    def update(self, chunk: bytes) -> None:
        """Take the next chunk."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            self._take(line)
        if len(self._rest) > _MAX_OUTCOME:
            raise ExportRejectedError(
                "An error file of the export holds a line of more than 1 MiB.",
                remedy="Ask the server's operator.",
            )

    def finish(self) -> None:
        """Take what is left after the last line end."""
        self._take(self._rest)
        self._rest = b""

    def _take(self, line: bytes) -> None:
        if not line.strip():
            return
        issues = parse_outcome(line)
        # A line in an error file that says nothing readable must not pass as harmless.
        counts = count_severities(issues, self._warning_codes) or {"error": 1}
        for severity, count in counts.items():
            self.severities[severity] = self.severities.get(severity, 0) + count
        self.codes.update(code for issue in issues for code in issue.details)


async def iterate_ndjson(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    """Yield the decoded body of a response in chunks of at most 1 MiB.

    Gzip is recognised by its first bytes, whether the server calls it a content encoding or the
    file itself is compressed. httpx's own decoder is not used: it takes a truncated stream for a whole one.

    Raises:
        IncompleteDownloadError: The body ended early.
        ExportRejectedError: The body is no NDJSON, such as a login page.
    """
    host = response.request.url.host
    headers = response.headers
    if headers.get("Content-Encoding", "identity").lower() not in ("gzip", "x-gzip", "identity"):
        raise ExportRejectedError(
            "A file came in an encoding that was not asked for.",
            place=host,
            remedy="Ask the server's operator.",
        )
    if headers.get("Content-Type", "").lower().startswith("text/html"):
        raise ExportRejectedError(
            "A web page came instead of a file: perhaps a proxy's login.",
            place=host,
            remedy="Check proxy settings and whether the file host needs to be allowed.",
        )
    received = 0
    last = b""
    gzip: _Gunzip | None = None
    async for chunk in response.aiter_raw():
        if received == 0 and chunk and chunk.startswith(_GZIP_MAGIC[: len(chunk)]):
            gzip = _Gunzip(host)
        received += len(chunk)
        if gzip is None:
            last = chunk.rstrip()[-1:] or last
            yield chunk
            continue
        for part in gzip.decode(chunk):
            yield part
    if gzip is not None:
        whole = gzip.finished
    elif (announced := headers.get("Content-Length", "")).isdecimal():
        whole = received == int(announced)
    else:
        # Without chunks and without a length, a closed connection looks like the end. The last
        # line of a whole file is a JSON object.
        whole = "Transfer-Encoding" in headers or last in (b"", b"}")
    if not whole:
        raise _incomplete(host)


class _Gunzip:
    """Decompresses with bounded output, several members after one another included."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._member = zlib.decompressobj(_GZIP_WINDOW)

    @property
    def finished(self) -> bool:
        """Whether the checksum at the end was there and right."""
        return self._member.eof

    def decode(self, data: bytes) -> Iterator[bytes]:
        more = bool(data)
        while more:
            if self._member.eof:
                data = data.lstrip(b"\0")  # padding between members
                if not data:
                    return
                self._member = zlib.decompressobj(_GZIP_WINDOW)
            try:
                part = self._member.decompress(data, _MAX_CHUNK)
            except zlib.error:
                raise _incomplete(self._host) from None
            data = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            # A full chunk may mean that more output waits although all input is taken.
            more = bool(data) or (len(part) == _MAX_CHUNK and not self._member.eof)
            if part:
                yield part


def _incomplete(host: str) -> IncompleteDownloadError:
    return IncompleteDownloadError(
        "A file ended early.", place=host, remedy="Run it again; files that are complete are kept."
    )
