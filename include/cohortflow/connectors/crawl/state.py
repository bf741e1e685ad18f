"""What is remembered of a crawl, so that any worker can go on with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cohortflow.connectors.extraction.extractor import Phase
from cohortflow.connectors.extraction.folder import RawSink
from cohortflow.connectors.search.units import PartFile, UnitState
from cohortflow.errors import SourceError

__all__ = ["CrawlState"]


class CrawlState(BaseModel):
    """State of one crawl, kept as JSON beside its files.

    Attributes:
        version: Of this layout.
        mode: Per patient, or per type.
        server: FHIR base URL.
        request_digest: ``CrawlRequest.digest``.
        types: Resource types that were asked for.
        skipped: Those that are not searched, with the reason.
        phase: ``pending``, ``running``, ``complete``, ``failed`` or ``cancelled``.
        transaction_time: FHIR instant, the server's, when the crawl began.
        patients: How many there are.
        batch_size: Patients of one unit.
        units: Units of work by key.
        tallies: Per type, how many queries came to which end; ``ok`` is the good one.
        closed: Types that the server does not let us have, with the reason.
        waiting: Types that are to wait, until when (seconds since the epoch).
        survivors: Merged patients: the id under which the record lives on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    version: Literal[1] = 1
    mode: Literal["crawl", "search"]
    server: str
    request_digest: str
    types: tuple[str, ...] = ()
    skipped: dict[str, str] = Field(default_factory=dict)
    phase: Phase = Phase.RUNNING
    transaction_time: str = ""
    patients: int = 0
    batch_size: int = 1
    units: dict[str, UnitState] = Field(default_factory=dict)
    tallies: dict[str, dict[str, int]] = Field(default_factory=dict)
    closed: dict[str, str] = Field(default_factory=dict)
    waiting: dict[str, float] = Field(default_factory=dict)
    survivors: dict[str, str] = Field(default_factory=dict, repr=False)

    @property
    def files(self) -> tuple[PartFile, ...]:
        """All files of completed parts."""
        return tuple(file for unit in self.units.values() for file in unit.files)

    def evolve(self, **changes: object) -> CrawlState:
        """Return a copy with other values."""
        return self.model_copy(update=changes)

    def with_tallies(self, resource_type: str, counts: Mapping[str, int]) -> CrawlState:
        """Return a copy with more ends of queries counted."""
        known = dict(self.tallies.get(resource_type, {}))
        for name, count in counts.items():
            known[name] = known.get(name, 0) + count
        return self.evolve(tallies={**self.tallies, resource_type: known})

    @classmethod
    async def read(cls, sink: RawSink) -> CrawlState | None:
        """Read the state of a sink, or ``None`` where nothing was started.

        Raises:
            SourceError: The state was written by another mode or version, or damaged.
        """
        data = await sink.read_state()
        if data is None:
            return None
        try:
            return cls.model_validate_json(data)
        except ValidationError:
            raise SourceError(
                "The state of the crawl cannot be read: it is damaged, or from another mode or version.",
                remedy="Delete the folder of this extraction in the raw zone; the next run begins anew.",
            ) from None

    async def write(self, sink: RawSink) -> None:
        """Write the state of a sink."""
        await sink.write_state(self.model_dump_json().encode())
