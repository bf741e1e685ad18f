"""What one server has of one type for one patient, and what becomes of merged patients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import aclosing

from cohortflow.connectors.crawl.plan import CrawlPlan
from cohortflow.connectors.profiles.search import Meaning
from cohortflow.connectors.search.bundle import Page
from cohortflow.connectors.search.client import SearchClient, SearchQuery, SearchRefusedError
from cohortflow.connectors.search.parts import Collector

__all__ = ["PatientCrawler", "ends_of"]

_OK = "ok"
# Where a patient was merged, but the server does not say into whom.
_UNRESOLVED = "merged-unresolved"
# What pages may say besides what they hold.
_TELLING = (Meaning.PARTIAL, Meaning.NOT_ENABLED, Meaning.DELETED, Meaning.RESTRICTED)
_ABOUT_PATIENT = frozenset({"forbidden", "not-found", str(Meaning.DELETED)})


class PatientCrawler:
    """Fetches the records of single patients.

    Args:
        search: The server.
        plan: The searches.
        patients: All patients of the crawl.
        survivors: Merged patients that are known: the id under which the record lives on.
    """

    def __init__(
        self, search: SearchClient, plan: CrawlPlan, patients: Iterable[str], survivors: Mapping[str, str]
    ) -> None:
        self.survivors = dict(survivors)
        self._search = search
        self._plan = plan
        self._patients = frozenset(patients)

    async def fetch(self, resource_type: str, patient: str, collector: Collector) -> str:
        """Fetch what there is of one type; return how that ended: the worst that its queries met.

        Raises:
            ExportRejectedError: The server ignores a filter.
            TransientSourceError: It stayed busy or unreachable, or wants to be asked later.
        """
        if resource_type == "Patient":
            return await self._read(patient, collector)
        if patient in self.survivors:
            # Searches by the old id may find nothing and not say why.
            if not self._claim(patient, self.survivors[patient]):
                return str(Meaning.MERGED)
            patient = self.survivors[patient]
        ends = [_OK]
        for query in self._plan.queries(resource_type, patient):
            end = await self._run(query, collector)
            if end == Meaning.MERGED:
                survivor = await self._survivor(patient)
                if survivor and self._claim(patient, survivor):
                    return await self.fetch(resource_type, patient, collector)
                return str(Meaning.MERGED) if survivor else _UNRESOLVED
            if end != _OK:
                ends.append(end)
            if end in _ABOUT_PATIENT:
                break  # further queries would be told the same
        return max(ends, key=_weight)

    async def _read(self, patient: str, collector: Collector) -> str:
        try:
            found, _ = await self._search.read("Patient", patient)
        except SearchRefusedError as error:
            return _UNRESOLVED if error.reason == Meaning.MERGED else error.reason
        if found.id != patient and not self._claim(patient, found.id):
            return str(Meaning.MERGED)
        await collector.take([found])
        return _OK

    async def _run(self, query: SearchQuery, collector: Collector) -> str:
        ends = [_OK]
        try:
            async with aclosing(self._search.pages(query)) as pages:
                async for page in pages:
                    await collector.take(page.resources)
                    ends.extend(ends_of(page))
        except SearchRefusedError as error:
            return error.reason
        return max(ends, key=_weight)

    async def _survivor(self, patient: str) -> str:
        """Return the id under which a merged patient lives on; empty where that is not known."""
        if patient not in self.survivors:
            try:
                found, _ = await self._search.read("Patient", patient)
            except SearchRefusedError:
                return ""
            if found.id == patient:
                return ""
            self.survivors.setdefault(patient, found.id)
        return self.survivors[patient]

    def _claim(self, patient: str, survivor: str) -> bool:
        """Tell whether a survivor's record is to be fetched in place of this patient's: once at most."""
        self.survivors.setdefault(patient, survivor)
        first = next(old for old, new in self.survivors.items() if new == survivor)
        return survivor not in self._patients and first == patient


def _weight(end: str) -> int:
    """Return how bad an end is: 0 is good, 1 leaves something out, 2 left us with nothing."""
    return 0 if end == _OK else 1 if end in (Meaning.PARTIAL, Meaning.NOT_ENABLED) else 2


def ends_of(page: Page) -> list[str]:
    """Return how the query of a page ended otherwise than well."""
    meanings = {note.meaning for note in page.notes}
    ends = ["unusable-entry"] if page.unusable else []
    ends.extend(str(meaning) for meaning in _TELLING if meaning in meanings)
    if None in meanings:
        ends.append("error-issue")
    if Meaning.MERGED in meanings and not page.resources:
        ends.append(str(Meaning.MERGED))
    return ends
