"""A small terminology to load."""

import polars as pl

from cohortflow.terminology.tables import TABLES, Release

SYSTEM = "http://hospital.example.org/stage"
NAMES = {"any": "Any stage", "I": "Stage I", "Ia": "Stage Ia"}
EDGES = [("I", "any"), ("Ia", "I")]


def frame(schema, rows, version="1"):
    columns = {name: dtype for name, dtype in schema.items() if name not in {"system", "version"}}
    return (
        pl.LazyFrame(rows, schema=columns, orient="row")
        .with_columns(system=pl.lit(SYSTEM), version=pl.lit(version))
        .select(schema.names())
    )


def release(version="1", names=NAMES, edges=EDGES, **changes):
    concepts = [(code, name, True, None, None) for code, name in names.items()]
    tables = {
        "concepts": frame(TABLES["concepts"], concepts, version),
        "edges": frame(TABLES["edges"], edges, version),
    }
    values = {
        "system": SYSTEM,
        "version": version,
        "title": "Stages",
        "licence": "Free to use.",
        "source": ("stages.json",),
        "tables": tables,
    }
    return Release(**values | changes)


def files(terminologies):
    return [path for path in terminologies.store.list() if not path.endswith("manifest.json")]
