"""Which record stands for which patient: merges of records, and numbers of other systems.

A patient may have several records at the source. When it merges two, FHIR's ``Patient.link`` of the one
that is given up says ``replaced-by`` (in HL7 v2 the message A40 does), and what refers to the old id is the
same person's. A crosswalk is applied to ids *before* they are hashed: both ids then have one pseudonym,
and one shift of dates.

It holds true ids and belongs into the zones of patient data only; it shows none of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import polars as pl

__all__ = ["Crosswalk", "find_subjects", "index_identifiers"]

_MOST_MERGES: Final = 64
"""Merges doubled that often reach the end of any chain of fewer than 2^64."""


@dataclass(frozen=True, slots=True)
class Crosswalk:
    """Ids of patients whose record was merged into another.

    Attributes:
        links: ``id: str, survivor: str``: each merged record once, with the one that is left.
        people: ``id: str, person: str``: records that are left and belong to one person with others; of those
            that are given up there are none. Their rows stay apart, but what keeps one of them out of a study
            keeps out the others.
    """

    links: pl.DataFrame = field(repr=False)
    people: pl.DataFrame = field(
        default_factory=lambda: pl.DataFrame(schema={"id": pl.String, "person": pl.String}), repr=False
    )

    @classmethod
    def of_links(cls, links: pl.DataFrame, same: pl.DataFrame | None = None) -> Crosswalk:
        """Follow merges to their end.

        Args:
            links: ``id: str, replaced_by: str``: what the records say, in any order. Of a record that is
                replaced by several, the least id counts. Where records replace each other in a circle, the
                least id of the circle is left.
            same: ``id: str, other: str``: records of one person of which neither replaces the other.
        """
        found = (
            links.lazy()
            .select(pl.col("id").cast(pl.String), pl.col("replaced_by").cast(pl.String).alias("survivor"))
            .drop_nulls()
            .filter(pl.col("id") != pl.col("survivor"))
            .group_by("id")
            .agg(pl.col("survivor").min())
            .sort("id")
            .collect()
        )
        merges = _follow(_cut_circles(found))
        pairs = links.select(
            pl.col("id").cast(pl.String), pl.col("replaced_by").cast(pl.String).alias("other")
        )
        if same is not None:
            pairs = pl.concat([pairs, same.select(pl.col("id", "other").cast(pl.String))])
        survivors = [pl.col(name).replace(merges["id"], merges["survivor"]) for name in ("id", "other")]
        return cls(merges, _find_people(pairs.drop_nulls().select(survivors).unique()))

    @classmethod
    def empty(cls) -> Crosswalk:
        """Return a crosswalk of no merges."""
        return cls(pl.DataFrame(schema={"id": pl.String, "survivor": pl.String}))

    @property
    def is_empty(self) -> bool:
        """Whether there are no merges."""
        return self.links.is_empty()

    def follow(self, ids: pl.Series) -> pl.Series:
        """Return the ids with those of merged records replaced by what is left."""
        if self.is_empty:
            return ids
        return ids.replace(self.links["id"], self.links["survivor"])

    def follow_columns(self, frame: pl.LazyFrame, columns: list[str]) -> pl.LazyFrame:
        """Replace ids in columns of a table; no id appears in the query plan."""
        if self.is_empty or not columns:
            return frame
        return frame.with_columns(
            pl.col(name).map_batches(self.follow, return_dtype=pl.String, is_elementwise=True)
            for name in columns
        )

    def add_same_people(self, patients: pl.LazyFrame) -> pl.LazyFrame:
        """Return patients and, of each person among them, the other records.

        Args:
            patients: ``patient_id: str``, after ``follow_columns``.
        """
        if self.people.is_empty():
            return patients
        people = self.people.lazy()
        persons = people.join(patients, left_on="id", right_on="patient_id", how="semi").select("person")
        others = people.join(persons, on="person", how="semi").select(patient_id="id")
        return pl.concat([patients.select("patient_id"), others])

    def leave_out_merged(self, frame: pl.LazyFrame, column: str) -> pl.LazyFrame:
        """Leave out the rows that are records given up in a merge; what is left has rows of its own."""
        if self.is_empty:
            return frame
        return frame.filter(~pl.col(column).map_batches(self._is_merged, return_dtype=pl.Boolean))

    def _is_merged(self, ids: pl.Series) -> pl.Series:
        return ids.is_in(self.links["id"].to_list()).fill_null(value=False)


def _follow(links: pl.DataFrame) -> pl.DataFrame:
    """Replace each survivor that was merged itself by its own one, until none is left; doubling each time."""
    for _ in range(_MOST_MERGES):
        further = links["survivor"].replace(links["id"], links["survivor"])
        if further.equals(links["survivor"]):
            break
        links = links.with_columns(further.alias("survivor"))
    return links


def _find_people(pairs: pl.DataFrame) -> pl.DataFrame:
    """Return the least id that each record is joined with, over any number of pairs; a union of sets."""
    parents: dict[str, str] = {}

    def find(one: str) -> str:
        root = one
        while (parent := parents.setdefault(root, root)) != root:
            root = parent
        while parents[one] != root:
            parents[one], one = root, parents[one]
        return root

    for one, other in pairs.filter(pl.col("id") != pl.col("other")).iter_rows():
        low, high = sorted((find(one), find(other)))
        parents[high] = low
    rows = [(one, find(one)) for one in sorted(parents)]
    return pl.DataFrame(rows, schema={"id": pl.String, "person": pl.String}, orient="row")


def _cut_circles(links: pl.DataFrame) -> pl.DataFrame:
    """Take the least id of each circle of merges out, so that the others lead to it."""
    targets = dict(links.iter_rows())
    done: set[str] = set()
    for start in list(targets):
        path: list[str] = []
        here = start
        while here in targets and here not in done:
            done.add(here)
            path.append(here)
            here = targets[here]
        if here in path:
            del targets[min(path[path.index(here) :])]
    return links.filter(pl.col("id").is_in(list(targets)))


def index_identifiers(patients: pl.DataFrame, crosswalk: Crosswalk) -> pl.DataFrame:
    """Return which patient a record number of another system belongs to.

    Args:
        patients: ``patient_id: str, system: str, value: str``: one row per ``Patient.identifier``.
        crosswalk: Merges among the patients.

    Returns:
        ``system: str, value: str, patient_id: str``, sorted. A number that two patients have is left out:
        it says nothing of either.
    """
    return (
        patients.select("system", "value", crosswalk.follow(patients["patient_id"]))
        .drop_nulls()
        .unique()
        .filter(pl.struct("system", "value").is_unique())
        .sort("system", "value")
    )


def find_subjects(frame: pl.LazyFrame, identifiers: pl.DataFrame, *, system: str, value: str) -> pl.LazyFrame:
    """Add ``patient_id`` to rows that name their patient by a number, such as PID-3 or DICOM PatientID.

    Args:
        frame: The rows.
        identifiers: As from ``index_identifiers``.
        system: Column of the number's system.
        value: Column of the number.

    Returns:
        The rows in their order; ``patient_id`` is null where nobody is known to have the number.
    """
    known = identifiers.lazy().rename({"system": system, "value": value})
    return frame.join(known, on=[system, value], how="left", maintain_order="left")
