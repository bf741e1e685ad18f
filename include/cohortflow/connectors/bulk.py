"""FHIR Bulk Data export: kick-off, polling, download, delete; each callable on its own.

Source: https://hl7.org/fhir/uv/bulkdata/export.html
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import httpx
import orjson

from cohortflow.connectors.client import FhirClient
from cohortflow.connectors.http import describe_failure, host_of
from cohortflow.connectors.manifest import Manifest, ManifestFile, merge_manifests, parse_manifest
from cohortflow.connectors.outcome import describe_issues, parse_outcome
from cohortflow.connectors.profile import Level
from cohortflow.connectors.retry import RetryPolicy, parse_retry_after
from cohortflow.connectors.transfer import iterate_ndjson
from cohortflow.errors import (
    ExportExpiredError,
    ExportRejectedError,
    InputError,
    SourceError,
    TransientSourceError,
)

__all__ = ["BulkExport", "ExportRequest", "InProgress", "Manifest", "ManifestFile"]

_log = logging.getLogger(__name__)

_ID = re.compile(r"[A-Za-z0-9\-._]{1,255}")  # Epic's ids may exceed FHIR's 64 characters
_TYPE = re.compile(r"[A-Z][A-Za-z]{1,63}")
_PERCENT = re.compile(r"(\d{1,3})(?:\.\d+)?\s*%")
_MAX_PAGES = 10_000
_MIN_POLL_SECONDS = 0.1
_ERROR_STATUS = 400


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What to export.

    Attributes:
        level: ``system``, ``patient`` (all patients) or ``group``.
        group_id: Logical id of the Group, for ``group``.
        types: Resource types (``_type``); empty: all that the server exports.
        since: Only resources changed after this time (``_since``).
        type_filters: Search queries such as ``Observation?category=laboratory`` (``_typeFilter``).
        extra: Further parameters as names and values.
    """

    level: Level = "system"
    group_id: str = ""
    types: tuple[str, ...] = ()
    since: datetime | None = None
    type_filters: tuple[str, ...] = ()
    extra: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if (self.level == "group") != bool(self.group_id):
            raise InputError(
                "A group export needs the id of a Group, and only a group export takes one.",
                remedy="Set the group, or choose another level.",
            )
        if self.group_id and not _ID.fullmatch(self.group_id):
            raise InputError(
                "The group is no FHIR id.", remedy="Give the id alone, without 'Group/' before it."
            )
        if self.since is not None and self.since.tzinfo is None:
            raise InputError(
                "'since' has no time zone.", remedy="Give it in UTC, such as 2026-01-31T00:00:00Z."
            )
        for name in self.types:
            if not _TYPE.fullmatch(name):
                raise InputError(f"'{name}' is no resource type.", remedy="Use FHIR names such as Patient.")
        # The order of types and filters means nothing, so it must not change the digest.
        object.__setattr__(self, "types", tuple(sorted(set(self.types))))
        object.__setattr__(self, "type_filters", tuple(sorted(set(self.type_filters))))

    @property
    def digest(self) -> str:
        """SHA-256 in hex over all parts: the same for requests that mean the same."""
        value = dataclasses.asdict(self) | {"since": self.since_instant}
        return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()

    @property
    def since_instant(self) -> str:
        """``since`` as a FHIR instant in UTC, or an empty text."""
        if self.since is None:
            return ""
        return self.since.astimezone(UTC).isoformat(timespec="auto").replace("+00:00", "Z")

    @property
    def path(self) -> str:
        """Path of the operation below the base URL."""
        return {
            "system": "/$export",
            "patient": "/Patient/$export",
            "group": f"/Group/{self.group_id}/$export",
        }[self.level]

    def parameters(self, *, encode_filter_commas: bool = False) -> list[tuple[str, str]]:
        """Return the parameters of the kick-off as names and values."""
        filters = [text.replace(",", "%2C") if encode_filter_commas else text for text in self.type_filters]
        items = [
            ("_outputFormat", "application/fhir+ndjson"),
            ("_type", ",".join(self.types)),
            ("_since", self.since_instant),
            *(("_typeFilter", text) for text in filters),
            *self.extra,
        ]
        return [(name, value) for name, value in items if value]


@dataclass(frozen=True, slots=True)
class InProgress:
    """An export is not ready yet.

    Attributes:
        progress: The server's ``X-Progress``: free text, for showing only, not for logs.
        retry_after: Seconds to wait until the next poll.
        transient: Whether the server was busy or unreachable, so that nothing is known of the export.
    """

    progress: str
    retry_after: float
    transient: bool = False

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
        self._check_support(request)
        source = self.client.source
        policy = self.client.policy
        if self.profile.kick_off_attempts is not None:
            policy = dataclasses.replace(policy, attempts=self.profile.kick_off_attempts)
        parameters = request.parameters(encode_filter_commas=self.profile.encode_filter_commas)
        url = source.base_url + request.path
        # NDJSON is what the files are; Accept is for the answer to this request.
        headers = {"Accept": "application/fhir+json", "Prefer": "respond-async"}
        content = None
        if self.profile.kick_off_method == "POST":
            headers["Content-Type"] = "application/fhir+json"
            content = _parameters_resource(parameters)
        else:
            url = f"{url}?{urlencode(parameters)}"
        response = await self.client.request(
            self.profile.kick_off_method, url, headers=headers, content=content, policy=policy
        )
        if response.status_code >= _ERROR_STATUS:
            raise await describe_failure(response, "kick-off")
        location = response.headers.get("Content-Location", "")
        if not location:
            raise ExportRejectedError(
                f"The server answered the kick-off without a status URL (HTTP {response.status_code}).",
                place=source.host,
                remedy="Check that the base URL belongs to a server with Bulk Data export.",
            )
        status_url = str(httpx.URL(source.base_url + "/").join(location))
        await self._refuse_ignored(response, status_url)
        _log.info("Started a %s export of %d types on %s", request.level, len(request.types), source.host)
        return status_url

    async def poll(self, status_url: str) -> InProgress | Manifest:
        """Ask once how an export is going.

        A busy or unreachable server is no failure: it is reported as ``InProgress`` with ``transient``.

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
            # Bulk Data 3.0 may send a part of the manifest here; the whole comes at the end.
            retry_after = parse_retry_after(
                response.headers.get("Retry-After"), self.client.clock.time(), response.headers.get("Date")
            )
            return InProgress(response.headers.get("X-Progress", "")[:200], self._wait(retry_after))
        if response.status_code != httpx.codes.OK:
            raise await describe_failure(response, "status request", gone=True)
        return await self._complete(self._manifest(response))

    async def download(self, url: str, *, private: bool) -> AsyncGenerator[bytes, None]:
        """Try once to fetch a file; yield its decoded content in chunks of at most 1 MiB.

        Args:
            url: The file's URL.
            private: Whether to send credentials: the manifest's ``requiresAccessToken``.

        Raises:
            ExportExpiredError: The file, or the signature of its URL, is gone.
            IncompleteDownloadError: It ended early.
            ExportRejectedError: What came is no NDJSON.
            TransientSourceError: The server is busy or unreachable, or hung up.
        """
        headers = {"Accept": "application/fhir+ndjson", "Accept-Encoding": "gzip"}
        async with self.client.open("GET", url, headers=headers, private=private) as response:
            if response.status_code != httpx.codes.OK:
                unsigned = "Authorization" not in response.request.headers
                if response.status_code == httpx.codes.FORBIDDEN and unsigned:
                    # A file store says 403 once the signature within the URL has expired.
                    raise ExportExpiredError(
                        "The address of a file has expired.",
                        place=host_of(str(response.request.url)),
                        remedy="Run it again: new addresses, or a new export, will be asked for.",
                    )
                if response.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
                    raise TransientSourceError(
                        f"A file came with HTTP {response.status_code}.",
                        place=host_of(str(response.request.url)),
                        remedy="Run it again later; what was downloaded is kept.",
                    )
                raise await describe_failure(response, "download", gone=True)
            async with aclosing(iterate_ndjson(response)) as chunks:
                async for chunk in chunks:
                    yield chunk

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

    def _wait(self, retry_after: float | None) -> float:
        wait = self.profile.poll_seconds if retry_after is None else retry_after
        return min(max(_MIN_POLL_SECONDS, wait), self.profile.max_wait_seconds)

    def _check_support(self, request: ExportRequest) -> None:
        profile = self.profile
        if request.level not in profile.levels:
            raise ExportRejectedError(
                f"Servers of the profile '{profile.name}' have no {request.level} export.",
                place=self.client.source.host,
                remedy=f"Use one of {', '.join(sorted(profile.levels))}.",
            )
        refused = sorted(profile.unsupported_parameters.intersection(dict(request.parameters())))
        if refused:
            raise ExportRejectedError(
                f"Servers of the profile '{profile.name}' do not support {', '.join(refused)}.",
                place=self.client.source.host,
                remedy="Leave it out; a server might ignore it and export something else.",
            )

    async def _refuse_ignored(self, response: httpx.Response, status_url: str) -> None:
        issues = parse_outcome(response.content)
        ignored = [issue for issue in issues if self.profile.fatal_codes.intersection(issue.details)]
        if ignored:
            await self.delete(status_url)
            raise ExportRejectedError(
                f"The server ignores a part of the request ({describe_issues(ignored)}).",
                place=self.client.source.host,
                remedy="Leave out the filter or parameter that it does not support.",
            )

    def _manifest(self, response: httpx.Response) -> Manifest:
        try:
            value = orjson.loads(response.content)
        except orjson.JSONDecodeError:
            value = None
        return parse_manifest(value, place=self.client.source.host)

    async def _complete(self, first: Manifest) -> Manifest:
        """Follow the links to further pages of a manifest."""
        pages = [first]
        seen = set[str]()
        while pages[-1].next and pages[-1].next not in seen and len(pages) < _MAX_PAGES:
            seen.add(pages[-1].next)
            response = await self.client.request(
                "GET", pages[-1].next, headers={"Accept": "application/json"}
            )
            if response.status_code != httpx.codes.OK:
                raise await describe_failure(response, "request for the manifest's next page", gone=True)
            pages.append(self._manifest(response))
        return merge_manifests(pages)


def _parameters_resource(parameters: list[tuple[str, str]]) -> bytes:
    kinds: dict[str, str] = {"_since": "valueInstant"}
    values: list[dict[str, Any]] = [
        {"name": name, kinds.get(name, "valueString"): part}
        for name, value in parameters
        # POST allows repeats, and Bulk Data 4.0 allows nothing else.
        for part in (value.split(",") if name == "_type" else [value])
    ]
    return orjson.dumps({"resourceType": "Parameters", "parameter": values})
