"""FHIR Bulk Data export: kick-off, polling, download, delete; each callable on its own.

Source: https://hl7.org/fhir/uv/bulkdata/export.html
"""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import urlencode

import httpx
import orjson

from cohortflow.connectors.bulk.manifest import Manifest, ManifestFile, merge_manifests, parse_manifest
from cohortflow.connectors.bulk.request import ExportRequest, check_request, parameters_resource
from cohortflow.connectors.bulk.transfer import Body
from cohortflow.connectors.transport.client import FhirClient
from cohortflow.connectors.transport.http import describe_failure, host_of, read_body, too_recent
from cohortflow.connectors.transport.outcome import (
    find_action,
    ignored_filters,
    parse_outcome,
    says_too_recent,
)
from cohortflow.connectors.transport.retry import RetryPolicy, parse_retry_after
from cohortflow.errors import (
    ExportExpiredError,
    ExportRejectedError,
    IncompleteDownloadError,
    SourceError,
    TransientSourceError,
)

__all__ = ["BulkExport", "ExportRequest", "InProgress", "Manifest", "ManifestFile"]

_log = logging.getLogger(__name__)

_PERCENT = re.compile(r"(\d{1,3})(?:\.\d+)?\s*%")
_MAX_PAGES = 10_000
_MIN_POLL_SECONDS = 0.1
_ERROR_STATUS = 400


@dataclass(frozen=True, slots=True)
class InProgress:
    """An export is not ready yet.

    Attributes:
        progress: The server's ``X-Progress``: free text, for showing only, not for logs.
        retry_after: Seconds to wait until the next poll.
        transient: Whether the server was busy or unreachable, so that nothing is known of the export.
        manifest: What of it can be downloaded already, where the server says (Bulk Data 3.0).
        waiting_files: How many files are known and not downloaded yet.
    """

    progress: str
    retry_after: float
    transient: bool = False
    manifest: Manifest | None = field(default=None, repr=False)
    waiting_files: int = 0

    @property
    def percent(self) -> int | None:
        """Percentage in the progress text, if there is one."""
        match = _PERCENT.search(self.progress)
        return min(100, int(match[1])) if match else None


class BulkExport:
    """The operations of Bulk Data export on one server, without memory between calls."""

    def __init__(self, client: FhirClient) -> None:
        self.client = client
        self.profile = client.source.profile

    async def kick_off(self, request: ExportRequest) -> str:
        """Ask for an export and return its status URL.

        Raises:
            ExportRejectedError: The server refuses the request, or said that it ignores a part of it.
            AuthorizationError: Credentials or scopes do not suffice.
            TransientSourceError: The server stayed busy; ``retry_after`` says what it asked for.
        """
        source = self.client.source
        check_request(request, self.profile, place=source.host)
        self.check_quiet_hours()
        policy = self.client.policy
        if self.profile.kick_off_attempts is not None:
            policy = dataclasses.replace(policy, attempts=self.profile.kick_off_attempts)
        parameters = request.parameters(
            encode_filter_commas=self.profile.encode_filter_commas,
            join_filters=self.profile.join_filters,
            full_since=self.profile.full_since,
        )
        url = source.base_url + request.path
        # NDJSON is what the files are; Accept is for the answer to this request.
        headers = {"Accept": self.profile.accept, "Prefer": "respond-async"}
        method, content = self.profile.kick_off_method, None
        # "patient" may name thousands of patients: it exists in the body only.
        if method == "POST" or "patient" in request.parameter_names:
            method, content = "POST", parameters_resource(parameters)
            headers["Content-Type"] = "application/fhir+json"
        else:
            url = f"{url}?{urlencode(parameters)}"
        try:
            response = await self.client.request(method, url, headers=headers, content=content, policy=policy)
        except TransientSourceError as error:
            if error.retry_after is None and policy.attempts == 1:
                error.retry_after = self.profile.poll_seconds
            raise
        if response.status_code >= _ERROR_STATUS:
            raise await self._refusal(response)
        location = response.headers.get("Content-Location", "")
        if not location:
            raise ExportRejectedError(
                f"The server answered the kick-off without a status URL (HTTP {response.status_code}).",
                place=source.host,
                remedy="Check that the base URL belongs to a server with Bulk Data export.",
            )
        status_url = str(httpx.URL(source.base_url + "/").join(location))
        await self._refuse_ignored(response, request, status_url)
        _log.info("Started a %s export of %d types on %s", request.level, len(request.types), source.host)
        return status_url

    async def poll(self, status_url: str) -> InProgress | Manifest:
        """Ask once how an export is going.

        A busy or unreachable server is no failure: it is reported as ``InProgress`` with ``transient``.
        An unfinished export may have files already: they are in ``InProgress.manifest``.

        Raises:
            ExportExpiredError: The server knows the export no more.
            ExportRejectedError: The export failed, or its manifest is malformed.
            AuthorizationError: Credentials or scopes do not suffice.
        """
        once = RetryPolicy(attempts=1)
        try:
            response = await self.client.request(
                "GET", status_url, headers={"Accept": "application/json"}, policy=once
            )
        except TransientSourceError as error:
            return InProgress("", self._wait(error.retry_after), transient=True)
        if response.status_code == httpx.codes.ACCEPTED:
            return await self._partial(response, self._partial_manifest(response))
        if response.status_code != httpx.codes.OK:
            raise await describe_failure(response, "status request", gone=True)
        first = self._manifest(response)
        pages, last = await self._follow([first], complete=True)
        if last is not None:
            return self._in_progress(last, merge_manifests(pages))
        return merge_manifests(pages)

    async def download(self, url: str, *, private: bool) -> AsyncGenerator[bytes, None]:
        """Fetch a file; yield its decoded content in chunks of at most 1 MiB.

        Where the connection breaks and the server offers ranges of an unchanged file, the rest is asked
        for and nothing is yielded twice; otherwise the error is raised, and the caller starts again.

        Args:
            url: The file's URL.
            private: Whether to send credentials: the manifest's ``requiresAccessToken``.

        Raises:
            ExportExpiredError: The file, or the signature of its URL, is gone.
            IncompleteDownloadError: It ended early.
            ExportRejectedError: What came is no NDJSON.
            TransientSourceError: The server is busy or unreachable, or hung up.
        """
        body = Body(host_of(url))
        attempt = 0
        while True:
            before = body.received
            try:
                async with aclosing(self._receive(url, body, private=private)) as chunks:
                    async for chunk in chunks:
                        yield chunk
            except (TransientSourceError, IncompleteDownloadError) as error:
                if not body.resumable:
                    raise
                attempt = 1 if body.received > before else attempt + 1
                retry_after = error.retry_after if isinstance(error, TransientSourceError) else None
                delay = self.client.policy.delay(attempt, retry_after)
                if delay is None:
                    raise
                _log.info("A download broke off (%s); asking for the rest", type(error).__name__)
            else:
                return
            await self.client.clock.sleep(delay)

    async def _receive(self, url: str, body: Body, *, private: bool) -> AsyncGenerator[bytes, None]:
        headers = {
            "Accept": "application/fhir+ndjson",
            "Accept-Encoding": "gzip",
            **body.range_headers(),
        }
        async with self.client.open("GET", url, headers=headers, private=private) as response:
            # A part that was not asked for is no answer.
            wanted = (httpx.codes.OK, httpx.codes.PARTIAL_CONTENT) if body.resumable else (httpx.codes.OK,)
            if response.status_code not in wanted:
                await self._raise_undelivered(response)
            async with aclosing(body.read(response)) as chunks:
                async for chunk in chunks:
                    yield chunk

    async def _raise_undelivered(self, response: httpx.Response) -> None:
        host = host_of(str(response.request.url))
        unsigned = "Authorization" not in response.request.headers
        if response.status_code == httpx.codes.FORBIDDEN and unsigned:
            # A file store says 403 once the signature within the URL has expired.
            raise ExportExpiredError(
                "The address of a file has expired.",
                place=host,
                remedy="Run it again: new addresses, or a new export, will be asked for.",
            )
        if response.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
            raise TransientSourceError(
                f"A file came with HTTP {response.status_code}.",
                place=host,
                remedy="Run it again later; what was downloaded is kept.",
            )
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise IncompleteDownloadError(
                "A file is shorter than it was.", place=host, remedy="Run it again; it will be fetched anew."
            )
        raise await describe_failure(response, "download", gone=True)

    async def delete(self, status_url: str) -> bool:
        """Ask the server to cancel or remove an export; tell whether it agreed, without raising."""
        once = RetryPolicy(attempts=2)
        try:
            response = await self.client.request("DELETE", status_url, policy=once)
        except SourceError as error:
            _log.warning(
                "The export could not be deleted on %s (%s)", self.client.source.host, type(error).__name__
            )
            return False
        # Gone already is as good; vendors differ between 200, 202 and 204.
        agreed = response.status_code < _ERROR_STATUS or response.status_code in (404, 410)
        if not agreed:
            _log.warning(
                "%s refused to delete the export: HTTP %d", self.client.source.host, response.status_code
            )
        return agreed

    def check_quiet_hours(self) -> None:
        """Raise where the server is to be left alone now.

        Raises:
            TransientSourceError: It is; ``retry_after`` says for how long.
        """
        now = datetime.fromtimestamp(self.client.clock.time(), tz=UTC)
        if seconds := self.profile.quiet_seconds(now):
            raise TransientSourceError(
                "The server is left alone at this time of day.",
                place=self.client.source.host,
                remedy="It goes on when the quiet hours of the connection's profile end.",
                retry_after=seconds,
            )

    def _wait(self, retry_after: float | None) -> float:
        wait = self.profile.poll_seconds if retry_after is None else retry_after
        return min(max(_MIN_POLL_SECONDS, wait), self.profile.max_wait_seconds)

    def _retry_after(self, response: httpx.Response) -> float | None:
        return parse_retry_after(
            response.headers.get("Retry-After"), self.client.clock.time(), response.headers.get("Date")
        )

    async def _refusal(self, response: httpx.Response) -> SourceError:
        body = await read_body(response)
        if says_too_recent(body):
            return too_recent(self.client.source, self._retry_after(response))
        failure = await describe_failure(response, "kick-off")
        actions = {find_action(issue, self.profile.codes) for issue in parse_outcome(body)}
        if "tomorrow" not in actions:
            return failure
        now = datetime.fromtimestamp(self.client.clock.time(), tz=UTC)
        return TransientSourceError(
            failure.message,
            place=failure.place,
            remedy="The server's limit for today is reached; it goes on tomorrow.",
            retry_after=self.profile.seconds_to_tomorrow(now),
        )

    async def _refuse_ignored(
        self, response: httpx.Response, request: ExportRequest, status_url: str
    ) -> None:
        issues = parse_outcome(response.content)
        if ignored := ignored_filters(issues, request.parameter_names, self.profile.codes):
            await self.delete(status_url)
            raise ExportRejectedError(
                f"The server ignores a part of the request ({', '.join(ignored)}).",
                place=self.client.source.host,
                remedy="Leave out the filter or parameter that it does not support.",
            )

    def _manifest(self, response: httpx.Response) -> Manifest:
        try:
            value = orjson.loads(response.content)
        except orjson.JSONDecodeError:
            value = None
        return parse_manifest(value, place=self.client.source.host, url=str(response.request.url))

    def _partial_manifest(self, response: httpx.Response) -> Manifest | None:
        """Read what an unfinished export offers; a body that is no manifest says nothing."""
        try:
            return self._manifest(response)
        except ExportRejectedError:
            return None

    def _in_progress(self, response: httpx.Response, manifest: Manifest | None) -> InProgress:
        progress = response.headers.get("X-Progress", "")[:200]
        return InProgress(progress, self._wait(self._retry_after(response)), manifest=manifest)

    async def _partial(self, response: httpx.Response, first: Manifest | None) -> InProgress:
        if first is None:
            return self._in_progress(response, None)
        pages, _ = await self._follow([first], complete=False)
        return self._in_progress(response, merge_manifests(pages))

    async def _follow(
        self, pages: list[Manifest], *, complete: bool
    ) -> tuple[list[Manifest], httpx.Response | None]:
        """Follow the links to further pages of a manifest.

        Args:
            pages: The first page.
            complete: Whether the server says that the export is ready, so that no page may be missing.

        Returns:
            All pages there are, and the answer that says that more will come, if one does.

        Raises:
            SourceError: A page of a finished export cannot be had.
        """
        seen = set[str]()
        while pages[-1].next and pages[-1].next not in seen and len(pages) < _MAX_PAGES:
            seen.add(pages[-1].next)
            response = await self.client.request(
                "GET", pages[-1].next, headers={"Accept": "application/json"}
            )
            if response.status_code == httpx.codes.ACCEPTED:
                page = self._partial_manifest(response)
                return ([*pages, page] if page else pages), response
            if response.status_code != httpx.codes.OK:
                if not complete:
                    break  # not written yet: it comes with a later poll
                raise await describe_failure(response, "request for the manifest's next page", gone=True)
            pages.append(self._manifest(response))
        if complete and pages[-1].next and pages[-1].next not in seen:
            raise ExportRejectedError(
                f"The manifest has more than {_MAX_PAGES} pages.",
                place=self.client.source.host,
                remedy="Export a smaller group or fewer types: the pages after these would be missing.",
            )
        return pages, None
