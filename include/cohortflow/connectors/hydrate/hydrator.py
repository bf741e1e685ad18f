"""What exports leave out, fetched by reference: a pass over a finished extraction (E14, E19, O10).

Members of panels, medications, staff and places, content of documents: each id once, whatever refers to
it and however often, and nothing that is there already. What comes may refer to more, so the pass goes
in rounds. Like a crawl it is cut into units, of which each fills part files, so that it resumes.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field

import orjson

from cohortflow.connectors.extraction.extractor import Pending
from cohortflow.connectors.extraction.folder import RawFolder
from cohortflow.connectors.hydrate.attachments import AttachmentReader
from cohortflow.connectors.hydrate.references import REFERENCE_RULES, find_attachments, find_references
from cohortflow.connectors.hydrate.state import (
    HYDRATION_FILE,
    UNAVAILABLE,
    HydrationRequest,
    HydrationResult,
    HydrationState,
    files_by_type,
)
from cohortflow.connectors.profiles.search import SearchProfile
from cohortflow.connectors.search.client import (
    SearchClient,
    SearchQuery,
    SearchRefusedError,
)
from cohortflow.connectors.search.parts import PartWriter, Seen, read_lines
from cohortflow.connectors.search.units import UnitState
from cohortflow.connectors.search.workers import EVERY_TYPE, RETRY_SECONDS, Budget, fetch_part, waiting_times
from cohortflow.connectors.transport.client import FhirClient
from cohortflow.errors import ArtifactNotFoundError, ExportRejectedError
from cohortflow.model import NoProgress, Progress

__all__ = ["Hydrator"]

_log = logging.getLogger(__name__)

_BINARY = "Binary"


@dataclass(frozen=True, slots=True)
class _Wanted:
    type: str
    id: str = field(repr=False)
    accept: str = ""


class Hydrator:
    """Fetches what the files of an extraction refer to, into the same folder.

    Args:
        client: The server that the extraction came from.
        request: What to fetch.
        folder: The extraction's folder.
        files: Names of its files by type.
        profile: How the server is searched; by its ``ServerProfile`` where absent.
    """

    def __init__(
        self,
        client: FhirClient,
        request: HydrationRequest,
        folder: RawFolder,
        files: Mapping[str, tuple[str, ...]],
        *,
        profile: SearchProfile | None = None,
    ) -> None:
        self.search = SearchClient(client, profile)
        self._client = client
        self._request = request
        self._folder = folder
        self._files = {kind: tuple(names) for kind, names in sorted(files.items())}
        self._reader = AttachmentReader(self.search, request.max_attachment_bytes)
        self._state = HydrationState(digest=self._digest())
        self._budget = Budget(client.clock)
        self._single_reads: set[str] = set()

    async def advance(
        self, progress: Progress | None = None, *, budget_seconds: float | None = None
    ) -> Pending | None:
        """Fetch until all is there, the budget is spent, or the server wants to be left alone.

        Returns:
            ``None`` once it is complete.

        Raises:
            AuthorizationError: The credentials were refused.
            TransientSourceError: The server stayed busy or unreachable; the next call goes on.
        """
        self._state = await self._read_state()
        if self._state.complete:
            return None
        self._budget = Budget(self._client.clock, budget_seconds)
        asked: set[tuple[str, str]] = set()
        files = self._files
        for depth in range(1, self._request.depth + 1):
            wanted = await self._plan_round(depth, files, asked)
            if not wanted:
                break
            asked.update((item.type, item.id) for item in wanted)
            units = self._units(depth, wanted)
            for number, (key, items) in enumerate(units.items()):
                (progress or NoProgress()).update(f"references {depth}", number, len(units), "parts")
                if not self._is_done(key) and not self._is_held(items[0].type):
                    await self._fetch_unit(key, items)
            if not all(map(self._is_done, units)):
                if (quiet := self.search.quiet_seconds()) > 0:
                    return Pending(quiet, "quiet hours of the server")
                return Pending(self._pause(), "more is to be fetched by reference")
            files = files_by_type(file for key in units for file in self._state.units[key].files)
        await self._write(self._state.model_copy(update={"complete": True, "waiting": {}}))
        result = await self.result()
        _log.info("References to %s are followed: %s", self.search.host, dict(result.resources))
        return None

    async def is_complete(self) -> bool:
        """Tell whether nothing is left of the pass over these files."""
        return (await self._read_state()).complete

    async def result(self) -> HydrationResult:
        """Sum up a complete pass.

        Raises:
            ArtifactNotFoundError: It is not complete.
        """
        state = await self._read_state()
        if not state.complete:
            raise ArtifactNotFoundError(
                "The pass over references is not complete.", remedy="Run the extraction first."
            )
        return HydrationResult.from_state(state)

    # Rounds

    async def _plan_round(
        self, depth: int, files: Mapping[str, tuple[str, ...]], asked: set[tuple[str, str]]
    ) -> list[_Wanted]:
        """Return what files refer to and nobody has yet, in a fixed order; kept for those who resume."""
        name = f"_plan/references.{depth}.ndjson"
        if depth not in self._state.rounds:
            found, faults = await self._find(files)
            found = {key: accept for key, accept in found.items() if key not in asked}
            for kind, names in self._files.items():
                if any(key[0] == kind for key in found):
                    await self._drop_present(kind, names, found)
            lines = [orjson.dumps([*key, accept]) + b"\n" for key, accept in sorted(found.items())]
            await self._folder.write_file(name, _once(b"".join(lines)))
            state = self._with_missing(faults)
            await self._write(state.model_copy(update={"rounds": (*state.rounds, depth)}))
        return [_Wanted(*orjson.loads(line)) async for line in read_lines(self._folder, name)]

    async def _find(
        self, files: Mapping[str, tuple[str, ...]]
    ) -> tuple[dict[tuple[str, str], str], dict[str, Counter[str]]]:
        """Return what files refer to, with the MIME type of attachments, and what cannot be fetched."""
        found: dict[tuple[str, str], str] = {}
        faults: dict[str, Counter[str]] = {}
        for kind, names in files.items():
            for name in names:
                async for line in read_lines(self._folder, name):
                    for target, target_id, accept, fault in self._targets(line, kind):
                        if fault:
                            faults.setdefault(target, Counter())[fault] += 1
                        else:
                            found.setdefault((target, target_id), accept)
        return found, faults

    def _targets(self, line: bytes, kind: str) -> Iterator[tuple[str, str, str, str]]:
        """Yield type, id, MIME type and fault of what a resource refers to."""
        request, base_url = self._request, self._client.source.base_url
        rules = [REFERENCE_RULES[name] for name in request.rules]
        for reference in find_references(line, kind, rules, base_url):
            if request.types is None or reference.type in request.types:
                yield reference.type, reference.id, "", reference.fault
        for item in find_attachments(line, kind, base_url) if request.attachments else ():
            wanted = item.content_type in request.attachments
            yield (
                _BINARY,
                item.binary_id,
                item.content_type,
                item.fault or ("" if wanted else "unwanted-type"),
            )

    async def _drop_present(
        self, kind: str, names: tuple[str, ...], found: dict[tuple[str, str], str]
    ) -> None:
        for name in names:
            async for line in read_lines(self._folder, name):
                try:
                    found.pop((kind, str(orjson.loads(line).get("id"))), None)
                except (orjson.JSONDecodeError, AttributeError):
                    continue  # a malformed line is for the reader of the file to judge

    def _units(self, depth: int, wanted: list[_Wanted]) -> dict[str, list[_Wanted]]:
        units: dict[str, list[_Wanted]] = {}
        counts = Counter[str]()
        for item in wanted:
            key = f"{item.type}.ref{depth}.{counts[item.type] // self._request.resources_per_part:04d}"
            counts[item.type] += 1
            units.setdefault(key, []).append(item)
        return units

    # Units

    async def _fetch_unit(self, key: str, items: list[_Wanted]) -> None:
        before = self._state.units.get(key, UnitState())
        positions = before.rest if before.rest is not None else tuple(range(len(items)))
        kind = items[0].type
        writer = PartWriter(self._folder, lambda name: f"{name}/{key}.{before.parts + 1:04d}.ndjson")
        seen = await Seen.of_files(self._folder, before.files)
        missing = Counter[str]()

        async def fetch(batch: tuple[int, ...]) -> None:
            missing.update(await self._fetch([items[position] for position in batch], seen, writer))

        part = await fetch_part(
            self._batches(kind, positions),
            fetch,
            writer,
            self.search,
            tries=before.tries,
            is_over=self._budget.is_spent,
        )
        if part.given_up:
            missing[UNAVAILABLE] += part.given_up
        state = self._with_missing({kind: missing})
        units = {**state.units, key: part.end(before)}
        waits = waiting_times(part.stopped, kind, self._client.clock.time())
        await self._write(state.model_copy(update={"units": units, "waiting": {**state.waiting, **waits}}))

    def _batches(self, kind: str, positions: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        size = 1 if kind == _BINARY else self.search.profile.batch_ids
        return (positions[first : first + size] for first in range(0, len(positions), size))

    async def _fetch(self, items: list[_Wanted], seen: Seen, writer: PartWriter) -> Counter[str]:
        """Fetch resources of one type; return how many did not come, by reason."""
        kind = items[0].type
        if kind == _BINARY:
            return await self._fetch_binary(items[0], writer)
        if len(items) > 1 and kind not in self._single_reads:
            try:
                return await self._fetch_batch(kind, {item.id for item in items}, seen, writer)
            except ExportRejectedError:
                # Not every server takes several ids at once; nothing that came is trusted then.
                self._single_reads.add(kind)
        missing = Counter[str]()
        for item in items:
            try:
                found, _ = await self.search.read(kind, item.id)
            except SearchRefusedError as error:
                missing[error.reason] += 1
                continue
            if seen.add(found.type, found.id):
                await writer.write(found.type, found.line)
        return missing

    async def _fetch_batch(self, kind: str, ids: set[str], seen: Seen, writer: PartWriter) -> Counter[str]:
        query = SearchQuery(kind, (("_id", ",".join(sorted(ids))), ("_count", str(len(ids)))))
        left = set(ids)
        async with aclosing(self.search.pages(query)) as pages:
            async for page in pages:
                for found in page.resources:
                    if found.type == kind and found.id in ids:
                        left.discard(found.id)
                        if seen.add(kind, found.id):
                            await writer.write(kind, found.line)
        return Counter({"not-found": len(left)}) if left else Counter()

    async def _fetch_binary(self, item: _Wanted, writer: PartWriter) -> Counter[str]:
        try:
            await writer.write(_BINARY, await self._reader.read(item.id, item.accept))
        except SearchRefusedError as error:
            return Counter([error.reason])
        return Counter()

    # State

    def _is_done(self, key: str) -> bool:
        return key in self._state.units and self._state.units[key].done

    def _pause(self) -> float:
        """Return how long to wait until the next call makes sense."""
        if self._budget.is_spent():
            return 0.0
        now = self._client.clock.time()
        return min(
            (until - now for until in self._state.waiting.values() if until > now), default=RETRY_SECONDS
        )

    def _is_held(self, kind: str) -> bool:
        now = self._client.clock.time()
        if self._budget.is_spent() or self.search.quiet_seconds():
            return True
        return any(self._state.waiting.get(name, 0.0) > now for name in (kind, EVERY_TYPE))

    def _with_missing(self, more: Mapping[str, Mapping[str, int]]) -> HydrationState:
        missing = {kind: dict(counts) for kind, counts in self._state.missing.items()}
        for kind, counts in more.items():
            known = missing.setdefault(kind, {})
            for reason, count in counts.items():
                known[reason] = known.get(reason, 0) + count
        return self._state.model_copy(update={"missing": {kind: c for kind, c in missing.items() if c}})

    def _digest(self) -> str:
        parts = [repr(self._request), repr(self._files), self._client.source.base_url]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    async def _read_state(self) -> HydrationState:
        digest = self._digest()
        state = await HydrationState.read(self._folder)
        return state if state is not None and state.digest == digest else HydrationState(digest=digest)

    async def _write(self, state: HydrationState) -> None:
        await self._folder.write_file(HYDRATION_FILE, _once(state.model_dump_json().encode() + b"\n"))
        self._state = state


async def _once(content: bytes) -> AsyncGenerator[bytes, None]:
    yield content
