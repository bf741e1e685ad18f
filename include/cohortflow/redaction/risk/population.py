"""k-map: how many people outside the table look like a subject.

L. Sweeney, "Computational disclosure control: a primer on data privacy protection", thesis, Massachusetts
Institute of Technology, 2001. Somebody who does not know whether a person is in the table has to choose
among all people of the population who share the known values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import polars as pl

from cohortflow.errors import PolicyError
from cohortflow.redaction.risk.classes import SIZE, count_classes

__all__ = ["COUNT", "POPULATION_SIZE", "map_population"]

COUNT: Final = "count"
"""Column of a population table with the number of people of a combination."""

POPULATION_SIZE: Final = "population_size"
"""Column with the number of people of the population who share the values of a class."""


def map_population(
    subjects: pl.LazyFrame, quasi_identifiers: Sequence[str], population: pl.LazyFrame
) -> pl.LazyFrame:
    """Return one row per class: its quasi-identifiers, ``class_size`` and ``population_size: i64``.

    Quasi-identifiers that the population table lacks are not compared, so they make no difference; that
    is too favourable, and the table should have all that others know. A value that a class does not
    tell, because it is missing or suppressed, fits everybody. Nobody is rarer in the population than in
    the table: the class's own size is the least.

    Args:
        subjects: One row per subject.
        quasi_identifiers: Columns that others may know of a subject.
        population: Some of these columns, and ``count``: people per combination. Texts are read as the
            type of the subjects' column.

    Raises:
        PolicyError: The population table has no count, or no column in common with the subjects'.
    """
    known = population.collect_schema()
    shared = [name for name in quasi_identifiers if name in known]
    if COUNT not in known or not shared:
        raise PolicyError(
            f"A population table needs the column '{COUNT}' and at least one quasi-identifier.",
            remedy=f"Name its columns like the quasi-identifiers: {', '.join(quasi_identifiers)}.",
        )
    classes = count_classes(subjects, quasi_identifiers)
    schema = classes.collect_schema()
    people = population.select(
        *(_read(name, known[name], schema[name]) for name in shared), pl.col(COUNT).cast(pl.Int64)
    )
    told = classes.select(pl.col(shared).is_not_null()).unique().sort(shared).collect()
    parts = [
        _look_up(classes, people, [name for name in shared if pattern[name]], shared)
        for pattern in told.iter_rows(named=True)  # at most one for each combination of columns
    ]
    if not parts:
        return classes.with_columns(pl.lit(0, pl.Int64).alias(POPULATION_SIZE))
    return pl.concat(parts)


def _read(name: str, found: pl.DataType, wanted: pl.DataType) -> pl.Expr:
    """Return a column as the subjects have it; a file of counts holds texts."""
    if wanted == pl.Boolean and found == pl.String:
        return pl.col(name).str.to_lowercase() == "true"
    return pl.col(name).cast(wanted)


def _look_up(classes: pl.LazyFrame, people: pl.LazyFrame, told: list[str], shared: list[str]) -> pl.LazyFrame:
    """Return the classes that tell exactly these columns, with the people who share them."""
    chosen = classes.filter(
        pl.all_horizontal(
            pl.col(name).is_not_null() if name in told else pl.col(name).is_null() for name in shared
        )
    )
    if told:
        counted = people.group_by(told).agg(pl.col(COUNT).sum().alias(POPULATION_SIZE))
        found = chosen.join(counted, on=told, how="left")
    else:
        found = chosen.join(people.select(pl.col(COUNT).sum().alias(POPULATION_SIZE)), how="cross")
    return found.with_columns(pl.max_horizontal(pl.col(POPULATION_SIZE).fill_null(0), pl.col(SIZE)))
