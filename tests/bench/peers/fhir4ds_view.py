"""The ten columns by fhir4ds, from the same ViewDefinition.

Usage: fhir4ds_view.py VIEW IN.ndjson OUT.parquet.
"""

import json
import sys
from pathlib import Path

import fhir4ds


def main() -> None:
    """Load the resources as its documentation says, and run the SQL that it makes of the view."""
    view, source, out = sys.argv[1:]
    connection = fhir4ds.create_connection()
    connection.execute("SET threads = 2")
    connection.execute(
        "CREATE TABLE resources AS SELECT json AS resource, json ->> 'resourceType' AS resourceType"
        " FROM read_ndjson_objects(?)",
        [source],
    )
    definition = json.loads(Path(view).read_text(encoding="utf-8"))
    del definition["resourceType"]  # fhir4ds takes no other spelling of it than a URL
    query = fhir4ds.generate_view_sql(json.dumps(definition))
    connection.execute(f"COPY ({query}) TO '{out}' (FORMAT parquet, COMPRESSION zstd)")


main()
