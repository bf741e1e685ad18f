"""FHIR search: pages followed verbatim, what the server says about them, single reads.

Source: http://hl7.org/fhir/R4/search.html and http://hl7.org/fhir/R4/http.html#paging
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

import httpx

from cohortflow.connectors.profiles.search import Meaning, SearchProfile, search_profile
from cohortflow.connectors.search.bundle import (
    FoundResource,
    Note,
    Page,
    is_filter,
    make_resource,
    parse_json,
    parse_notes,
    parse_page,
)
from cohortflow.connectors.transport.client import FhirClient
from cohortflow.connectors.transport.http import describe_failure
from cohortflow.connectors.transport.retry import parse_http_date
from cohortflow.errors import ExportRejectedError, SourceError, TransientSourceError

__all__ = [
    "DailyLimitError",
    "SearchClient",
    "SearchQuery",
    "SearchRefusedError",
]

_log = logging.getLogger(__name__)

_FHIR_JSON = "application/fhir+json"
_FORM = "application/x-www-form-urlencoded"
_MAX_URL = 1800  # servers and proxies may cut at 2,048
_MAX_PAGES = 1_000_000
_MAX_RESTARTS = 5
_ERROR_STATUS = 400
# Queries in a row that find the server busy or unreachable after all retries: so many until we look
# whether it is there at all, and so many until we give up.
_SUSPECT_OUTAGES = 3
_MAX_OUTAGES = 10


class SearchRefusedError(ExportRejectedError):
    """The server does not answer one query or read, which says nothing of others.

    Attributes:
        reason: Why, as one of a few fixed words that may be shown and counted.
        status: HTTP status.
    """

    def __init__(
        self, message: str, *, remedy: str = "", place: str = "", reason: str = "rejected", status: int = 0
    ) -> None:
        super().__init__(message, remedy=remedy, place=place)
        self.reason = reason
        self.status = status


class DailyLimitError(TransientSourceError):
    """The server gives no more of this today; ``retry_after`` leads into tomorrow."""


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """One search.

    Attributes:
        type: Resource type.
        parameters: Names and values, not encoded; ``repr`` leaves them out, as they may name a patient.
    """

    type: str
    parameters: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    @property
    def names(self) -> frozenset[str]:
        """Names of the parameters."""
        return frozenset(name for name, _ in self.parameters)

    @property
    def filters(self) -> frozenset[str]:
        """Names of the parameters that decide what is found, without modifiers."""
        return frozenset(name.partition(":")[0] for name in self.names if is_filter(name))


class SearchClient:
    """Searches and reads of one server."""

    def __init__(self, client: FhirClient, profile: SearchProfile | None = None) -> None:
        self.client = client
        self.profile = profile or search_profile(client.source.profile)
        self._outages = 0

    @property
    def host(self) -> str:
        """Host name, for messages."""
        return self.client.source.host

    async def server_time(self) -> datetime:
        """Ask what time it is there.

        Raises:
            ExportRejectedError: The server does not say.
            TransientSourceError: It is not there.
        """
        url = f"{self.client.source.base_url}/metadata"
        response = await self.client.request("GET", url, headers={"Accept": _FHIR_JSON})
        moment = server_time(response, None)
        if moment is None:
            raise ExportRejectedError(
                "The server does not say what time it is (header Date).",
                place=self.host,
                remedy="Ask its operator to let the header through; increments depend on it.",
            )
        return moment

    async def judge_outage(self, error: TransientSourceError) -> None:
        """Raise on where the server is down; some servers only fail for one record, and for good (O14)."""
        self._outages += 1
        if self._outages >= _MAX_OUTAGES:
            raise error
        if self._outages >= _SUSPECT_OUTAGES:
            await self.server_time()

    def note_success(self) -> None:
        """Take note that the server answers."""
        self._outages = 0

    def quiet_seconds(self) -> float:
        """Return for how long the server is to be left alone now."""
        now = datetime.fromtimestamp(self.client.clock.time(), tz=UTC)
        return self.client.source.profile.quiet_seconds(now)

    async def pages(self, query: SearchQuery, *, start_at: str = "") -> AsyncGenerator[Page, None]:
        """Yield the pages of a search, as many as ``next`` links lead to, however short they are.

        A search whose page session has expired is started again from its beginning, so that
        resources may come twice: whoever takes them drops those whose id it has.

        Args:
            query: The search.
            start_at: URL of the page to go on with, as a former page's ``next`` gave it.

        Raises:
            ExportRejectedError: The server ignores a filter, or its links lead astray.
            SearchRefusedError: The server does not answer this query.
            DailyLimitError: It will tomorrow. What came before was yielded.
            AuthorizationError: The credentials were refused.
            TransientSourceError: The server stayed busy or unreachable, or page sessions kept expiring.
        """
        url, seen = start_at, set[str]()
        restarts = 0
        for _ in range(_MAX_PAGES):
            page = await self._page(query, url)
            if page is None:
                restarts += 1
                if restarts > _MAX_RESTARTS:
                    raise TransientSourceError(
                        "The pages of a search expire before they can be read.",
                        place=self.host,
                        remedy="Run it again at a quieter hour, or ask the server's operator.",
                    )
                _log.info("A page of a search on %s has expired; starting it again", self.host)
                url, seen = "", set()
                continue
            yield page
            if any(note.meaning is Meaning.DAILY_LIMIT for note in page.notes):
                raise self._daily_limit()
            if not page.next:
                return
            if page.next in seen:
                raise ExportRejectedError(
                    "The pages of a search lead in a circle.",
                    place=self.host,
                    remedy="Ask the server's operator.",
                )
            seen.add(page.next)
            url = page.next
        raise ExportRejectedError(
            "A search has no end.", place=self.host, remedy="Ask the server's operator."
        )

    async def read(self, resource_type: str, resource_id: str) -> tuple[FoundResource, Page]:
        """Read one resource; its id differs from the one asked for where the server redirects.

        Returns:
            The resource, and a page without resources that holds the server's time.

        Raises:
            SearchRefusedError: It is not there, or not for us.
            DailyLimitError: Tomorrow it will be.
            AuthorizationError: The credentials were refused.
            TransientSourceError: The server stayed busy or unreachable.
        """
        url = f"{self.client.source.base_url}/{resource_type}/{resource_id}"
        response = await self._send("GET", url, {"Accept": _FHIR_JSON})
        notes = parse_notes(response.content, (), self.profile)
        if response.status_code >= _ERROR_STATUS or notes:
            raise self.refusal(response, notes, await describe_failure(response, "read"))
        value = _json(response)
        item = make_resource(value) if isinstance(value, dict) else None
        if item is None or item.type != resource_type:
            raise SearchRefusedError(
                f"The server answered the read of a {resource_type} with something else.",
                place=self.host,
                remedy="Ask the server's operator.",
                reason="no-resource",
                status=response.status_code,
            )
        return item, Page(server_time=server_time(response, None))

    async def _page(self, query: SearchQuery, url: str) -> Page | None:
        """Fetch one page; ``None`` where its session has expired."""
        response = await self._request(query, url)
        names = query.names
        if response.status_code != httpx.codes.OK:
            notes = parse_notes(response.content, names, self.profile)
            meanings = {note.meaning for note in notes}
            if Meaning.EXPIRED_PAGE in meanings or (url and response.status_code in (404, 410)):
                return None
            if meanings == {Meaning.EMPTY} or Meaning.MERGED in meanings:
                return Page(notes=notes, server_time=server_time(response, None))
            if Meaning.IGNORED in meanings:
                raise self._ignored(query, notes)
            raise self.refusal(response, notes, await describe_failure(response, "search"))
        value = _json(response)
        page = parse_page(value, query.type, names, self.profile)
        if page is None:
            notes = parse_notes(response.content, names, self.profile)
            if any(note.meaning is Meaning.EXPIRED_PAGE for note in notes):
                return None
            if not notes or any(note.meaning is None for note in notes):
                raise SearchRefusedError(
                    "The server answered a search with something else than a Bundle.",
                    place=self.host,
                    remedy="Check the base URL, and that the server speaks FHIR R4 in JSON.",
                    reason="no-bundle",
                    status=response.status_code,
                )
            page = Page(notes=notes)
        elif any(note.meaning is Meaning.EXPIRED_PAGE for note in page.notes):
            return None
        used = page.self_parameters if self.profile.check_self_link and not url else None
        if response.request.method == "POST" and not used:
            used = None  # some servers show in the link only what came in a URL
        self._check_filters(query, page, used, first=not url)
        following = self._next_url(str(response.request.url), page.next) if page.next else ""
        return replace(page, next=following, server_time=server_time(response, page.server_time))

    async def _request(self, query: SearchQuery, url: str) -> httpx.Response:
        headers = {"Accept": _FHIR_JSON}
        if url:
            return await self._send("GET", url, headers)
        base = f"{self.client.source.base_url}/{query.type}"
        # A server that does not know a filter shall refuse it, not find something else.
        headers["Prefer"] = "handling=strict"
        encoded = urlencode(query.parameters)
        if len(base) + len(encoded) < _MAX_URL:
            return await self._send("GET", f"{base}?{encoded}" if encoded else base, headers)
        headers["Content-Type"] = _FORM
        return await self._send("POST", f"{base}/_search", headers, encoded.encode())

    async def _send(
        self, method: str, url: str, headers: Mapping[str, str], content: bytes | None = None
    ) -> httpx.Response:
        return await self.client.request(method, url, headers=headers, content=content)

    def _check_filters(
        self, query: SearchQuery, page: Page, used: frozenset[str] | None, *, first: bool
    ) -> None:
        """Fail where a filter took no effect: what came is not what was asked for (E16).

        Args:
            query: The search.
            page: What came.
            used: Parameters that the server says it used; ``None``: it does not say.
            first: Whether this is the first page; a remark on a later one that names no parameter says
                again what the first one said.
        """
        filters = query.filters
        if used is not None and _lost(filters, used):
            raise self._ignored(query, page.notes)
        for note in page.notes:
            if note.meaning is Meaning.REFUSED:
                raise ExportRejectedError(
                    f"The server did not heed a search for {query.type} ({'/'.join(note.codes)}).",
                    place=self.host,
                    remedy=f"Filters sent: {', '.join(sorted(filters))}. See its documentation.",
                )
            if note.meaning is not Meaning.IGNORED:
                continue
            named = {name.partition(":")[0] for name in note.parameters}
            # Without a name, a lost option such as _revinclude may explain it; else it may be any filter.
            options = {name.partition(":")[0] for name in query.names} - filters
            explained = used is not None and bool(options - used)
            if named & filters or (first and not named and filters and not explained):
                raise self._ignored(query, page.notes)

    def _next_url(self, url: str, following: str) -> str:
        target = urljoin(url, following)
        base = urlsplit(self.client.source.base_url)
        parts = urlsplit(target)
        if (parts.scheme, parts.netloc.lower()) != (base.scheme, base.netloc.lower()):
            raise ExportRejectedError(
                "The next page of a search is on another server.",
                place=self.host,
                remedy="Set the connection's host to the address by which the server names itself.",
            )
        return target

    def _ignored(self, query: SearchQuery, notes: tuple[Note, ...]) -> ExportRejectedError:
        codes = ", ".join(
            dict.fromkeys("/".join(note.codes) for note in notes if note.meaning is Meaning.IGNORED)
        )
        return ExportRejectedError(
            f"The server ignores a filter of a search for {query.type}" + (f" ({codes})." if codes else "."),
            place=self.host,
            remedy=f"Filters sent: {', '.join(sorted(query.filters))}. Leave out what it does not support.",
        )

    def refusal(self, response: httpx.Response, notes: tuple[Note, ...], failure: SourceError) -> SourceError:
        """Return the error for a response that is no answer.

        Args:
            response: The response.
            notes: What its OperationOutcome says.
            failure: What its status says.
        """
        meanings = {note.meaning for note in notes}
        status = response.status_code
        if Meaning.DAILY_LIMIT in meanings:
            return self._daily_limit()
        if status == httpx.codes.UNAUTHORIZED:
            return failure
        known = (Meaning.RESTRICTED, Meaning.DELETED, Meaning.MERGED, Meaning.NOT_ENABLED)
        reasons = [str(meaning) for meaning in known if meaning in meanings]
        if not reasons:
            by_status = {403: "forbidden", 404: "not-found", 410: "deleted"}
            server_error = status >= httpx.codes.INTERNAL_SERVER_ERROR
            reasons = [by_status.get(status, "server-error" if server_error else "rejected")]
        return SearchRefusedError(
            failure.message, place=failure.place, remedy=failure.remedy, reason=reasons[0], status=status
        )

    def _daily_limit(self) -> DailyLimitError:
        now = datetime.fromtimestamp(self.client.clock.time(), tz=UTC)
        return DailyLimitError(
            "The server's daily limit is reached.",
            place=self.host,
            remedy="Run it again tomorrow; what came is kept.",
            retry_after=self.client.source.profile.seconds_to_tomorrow(now),
        )


def _lost(filters: frozenset[str], used: frozenset[str]) -> frozenset[str]:
    # Servers may name the one parameter by the other.
    same = {"patient", "subject"}
    return filters - used - (same if same & used else set())


def server_time(response: httpx.Response, stated: datetime | None) -> datetime | None:
    """Return when the server answered, by its own clock: the earlier of its header and the Bundle's time."""
    seconds = parse_http_date(response.headers.get("Date"))
    header = None if seconds is None else datetime.fromtimestamp(seconds, tz=UTC)
    times = [moment for moment in (header, stated) if moment is not None]
    return min(times, default=None)


def _json(response: httpx.Response) -> Any:  # noqa: ANN401  # decoded JSON
    try:
        return parse_json(response.content)
    except ValueError:
        return None
