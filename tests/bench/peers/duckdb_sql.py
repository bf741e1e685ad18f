"""The ten columns by SQL written by hand for them. Usage: duckdb_sql.py IN.ndjson OUT.parquet."""

import sys

import duckdb

COLUMNS = {
    "id": "VARCHAR",
    "status": "VARCHAR",
    "subject": "STRUCT(reference VARCHAR)",
    "encounter": "STRUCT(reference VARCHAR)",
    "category": "STRUCT(coding STRUCT(code VARCHAR)[])[]",
    "code": "STRUCT(coding STRUCT(system VARCHAR, code VARCHAR)[])",
    "effectiveDateTime": "VARCHAR",
    "valueQuantity": "STRUCT(value DOUBLE, unit VARCHAR)",
}
QUERY = """
COPY (
  SELECT
    id AS observation_id,
    CASE WHEN subject.reference LIKE 'Patient/%' THEN substr(subject.reference, 9) END AS patient_id,
    CASE WHEN encounter.reference LIKE 'Encounter/%' THEN substr(encounter.reference, 11) END AS encounter_id,
    status,
    category[1].coding[1].code AS category_code,
    code.coding[1].code AS code,
    code.coding[1].system AS code_system,
    effectiveDateTime AS effective_at,
    valueQuantity.value AS value_quantity,
    valueQuantity.unit AS value_unit
  FROM read_json(?, format = 'newline_delimited', columns = {columns})
) TO '{out}' (FORMAT parquet, COMPRESSION zstd)
"""


def main() -> None:
    """Run the query on two threads."""
    source, out = sys.argv[1:]
    columns = "{" + ", ".join(f"'{name}': '{kind}'" for name, kind in COLUMNS.items()) + "}"
    connection = duckdb.connect(config={"threads": 2})
    connection.execute(QUERY.format(columns=columns, out=out.replace("'", "''")), [source])


main()
