"""NDJSON on its way from the network to storage: decoded, counted and checked in chunks."""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Mapping
from contextlib import aclosing

import httpx

from cohortflow.connectors.bulk.state import Reason
from cohortflow.connectors.profiles.server import CodeAction
from cohortflow.connectors.transport.outcome import Issue, ignored_filters, judge_severity, parse_outcome
from cohortflow.errors import ExportRejectedError, IncompleteDownloadError

__all__ = ["Body", "FileMeter", "OutcomeMeter"]

_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_WINDOW = zlib.MAX_WBITS | 16
_MAX_CHUNK = 1 << 20
_READ_SIZE = 1 << 16
_MAX_OUTCOME = 1 << 20
_MAX_REASONS = 200
_CONTENT_RANGE = re.compile(r"bytes (\d+)-")


class FileMeter:
    """Counts what passes: bytes, lines that are not blank, SHA-256."""

    def __init__(self) -> None:
        self.bytes = 0
        self.lines = 0
        self._hash = hashlib.sha256()
        self._within_line = False
        self._last = b""

    @property
    def ends_within_object(self) -> bool:
        """Whether the last line is no whole JSON object."""
        return self._last not in (b"", b"}")

    @property
    def sha256(self) -> str:
        """Hex digest of the bytes so far."""
        return self._hash.hexdigest()

    def update(self, chunk: bytes) -> None:
        """Take the next chunk."""
        self.bytes += len(chunk)
        self._hash.update(chunk)
        self._last = chunk.rstrip()[-1:] or self._last
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
    """Counts the issues of OperationOutcomes by severity and code, line by line.

    Args:
        codes: The profile's code table.
        requested: Names of the request's parameters.
    """

    def __init__(self, codes: Mapping[str, CodeAction], requested: Iterable[str]) -> None:
        self.severities: dict[str, int] = {}
        self._reasons: dict[tuple[str, str, str], int] = {}
        self.ignored: set[str] = set()
        self._codes = codes
        self._requested = tuple(requested)
        self._rest = b""

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """The issues by severity, code and resource type; the first 200 different ones."""
        return tuple(
            Reason(severity=severity, code=code, type=kind, count=count)
            for (severity, code, kind), count in self._reasons.items()
        )

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
        # A line in an error file that says nothing readable must not pass as harmless.
        issues = parse_outcome(line) or (Issue("error"),)
        for issue in issues:
            severity = judge_severity(issue, self._codes)
            self.severities[severity] = self.severities.get(severity, 0) + 1
            reason = severity, issue.label, issue.type
            if reason in self._reasons or len(self._reasons) < _MAX_REASONS:
                self._reasons[reason] = self._reasons.get(reason, 0) + 1
        self.ignored.update(ignored_filters(issues, self._requested, self._codes))


class Body:
    """The content of one file, which may take several responses to come.

    Gzip is recognised by its first bytes, whether the server calls it a content encoding or the
    file itself is compressed. httpx's own decoder is not used: it takes a truncated stream for a whole one.
    """

    def __init__(self, host: str) -> None:
        self.received = 0
        self._host = host
        self._gzip: _Gunzip | None = None
        self._last = b""
        self._encoding = ""
        self._validator = ""

    @property
    def resumable(self) -> bool:
        """Whether the rest can be asked for: something came, and the server can tell an unchanged file."""
        return bool(self.received and self._validator)

    def range_headers(self) -> dict[str, str]:
        """Return the headers that ask for the rest; none at the beginning."""
        if not self.resumable:
            return {}
        return {"Range": f"bytes={self.received}-", "If-Range": self._validator}

    async def read(self, response: httpx.Response) -> AsyncGenerator[bytes, None]:
        """Yield the decoded content of the next response in chunks of at most 1 MiB.

        Raises:
            IncompleteDownloadError: The body ended early, or is not the rest of what came before.
            ExportRejectedError: The body is no NDJSON, such as a login page.
        """
        if self.received:
            self._check_rest(response)
        else:
            self._check_start(response)
        before = self.received
        # Big chunks: what is done to each of them costs more than the chunk itself otherwise.
        async with aclosing(_gather(response.aiter_raw())) as chunks:
            async for chunk in chunks:
                for part in self._take(chunk):
                    yield part
        self._check_end(response.headers, self.received - before)

    def _take(self, chunk: bytes) -> Iterable[bytes]:
        if self.received == 0 and chunk and chunk.startswith(_GZIP_MAGIC[: len(chunk)]):
            self._gzip = _Gunzip(self._host)
        self.received += len(chunk)
        if self._gzip is None:
            self._last = chunk.rstrip()[-1:] or self._last
            return (chunk,)
        return self._unpack(self._gzip, chunk)

    def _unpack(self, gzip: _Gunzip, chunk: bytes) -> Iterator[bytes]:
        try:
            yield from gzip.decode(chunk)
        except IncompleteDownloadError:
            self._validator = ""  # damaged on the way: only the whole file helps
            raise

    def _check_start(self, response: httpx.Response) -> None:
        headers = response.headers
        self._encoding = headers.get("Content-Encoding", "identity").lower()
        if self._encoding not in ("gzip", "x-gzip", "identity"):
            raise ExportRejectedError(
                "A file came in an encoding that was not asked for.",
                place=self._host,
                remedy="Ask the server's operator.",
            )
        if headers.get("Content-Type", "").lower().startswith("text/html"):
            raise ExportRejectedError(
                "A web page came instead of a file: perhaps a proxy's login.",
                place=self._host,
                remedy="Check proxy settings and whether the file host needs to be allowed.",
            )
        if "bytes" in headers.get("Accept-Ranges", "").lower():
            tag = headers.get("ETag", "")
            # RFC 9110, 13.1.5: a weak tag must not be used for ranges.
            self._validator = tag if tag and not tag.startswith("W/") else headers.get("Last-Modified", "")

    def _check_rest(self, response: httpx.Response) -> None:
        headers = response.headers
        start = _CONTENT_RANGE.match(headers.get("Content-Range", ""))
        fits = (
            response.status_code == httpx.codes.PARTIAL_CONTENT
            and start is not None
            and int(start[1]) == self.received
            and headers.get("Content-Encoding", "identity").lower() == self._encoding
        )
        if not fits:
            self._validator = ""
            raise _incomplete(self._host)

    def _check_end(self, headers: httpx.Headers, received: int) -> None:
        announced = headers.get("Content-Length", "")
        if self._gzip is not None:
            framed = self._gzip.finished
        else:
            # Without chunks and without a length, a closed connection looks like the end. The last
            # line of a whole file is a JSON object.
            framed = "Transfer-Encoding" in headers or announced.isdecimal() or self._last in (b"", b"}")
        if not framed or (announced.isdecimal() and received != int(announced)):
            raise _incomplete(self._host)


async def _gather(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Yield chunks joined to about 1 MiB; what came before an error is yielded before it is raised."""
    pieces: list[bytes] = []
    size = 0
    failure: Exception | None = None
    try:
        async for chunk in chunks:
            pieces.append(chunk)
            size += len(chunk)
            if size >= _MAX_CHUNK - _READ_SIZE:
                yield b"".join(pieces)
                pieces, size = [], 0
    except httpx.RequestError as error:
        failure = error
    if pieces:
        yield b"".join(pieces)
    if failure is not None:
        raise failure


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
