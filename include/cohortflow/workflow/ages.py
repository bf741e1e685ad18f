"""Ages that were recorded as results: found in the read that makes the views, for their redaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from cohortflow.engine import plan_write, read_table
from cohortflow.fhir.views import compile_view
from cohortflow.redaction import NO_AGES, Place, age_views, find_ages, find_table_ages
from cohortflow.redaction.ages import means_age

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cohortflow.fhir.views import CompiledView
    from cohortflow.workflow.run import Run

__all__ = ["AgeReader", "read_ages"]

_FOLDER: Final = "ages"
"""In the work zone."""


class AgeReader:
    """Reads the results of a resource type that may be ages, beside its views.

    Args:
        run: The run.
        resource: The resource type.
        views: Names of the views that are made of it.
    """

    def __init__(self, run: Run, resource: str, views: Iterable[str]) -> None:
        self._run = run
        shown = {place for view in views for place in run.plan.datasets[view].redaction.age_places}
        self._views = {
            place: compile_view(view)
            for place, view in age_views(resource, run.plan.policy.age_codes).items()
            if place in shown
        }

    @property
    def views(self) -> tuple[CompiledView, ...]:
        """Views to compute in the same read."""
        return tuple(self._views.values())

    def plans(self, frames: Mapping[str, pl.LazyFrame]) -> list[pl.LazyFrame]:
        """Return the plans that write what the views find into the work zone.

        Args:
            frames: Views by name, among them ``views``.
        """
        codes = self._run.plan.policy.age_codes
        written = []
        for place, view in self._views.items():
            frame = frames[view.name]
            if place is Place.ANSWER:  # what was asked is not part of the view's criteria
                frame = frame.filter(means_age(pl.col("link_id"), codes, place))
            written.append(plan_write(frame, _path(place), self._run.work))
        return written


def read_ages(run: Run, name: str, frame: pl.LazyFrame) -> pl.LazyFrame:
    """Return which results of a dataset are ages that may not be told.

    Args:
        run: The run.
        name: The dataset.
        frame: Its rows as redaction reads them.

    Raises:
        ArtifactNotFoundError: They were not looked for.
    """
    dataset, policy = run.plan.datasets[name], run.plan.policy
    if policy.age_cap is None or not dataset.redaction.age_places:
        return NO_AGES
    if dataset.view is None:
        return find_table_ages(frame, dataset.redaction)
    found = []
    for place in dataset.redaction.age_places:
        results = read_table(_path(place), run.work)
        # Mostly there are none, which the file tells without being read.
        if results.select(pl.len()).collect().item():
            found.append(find_ages(results, place, policy.age_codes, policy.age_cap))
    return pl.concat(found) if found else NO_AGES


def _path(place: Place) -> str:
    return f"{_FOLDER}/{place}.parquet"
