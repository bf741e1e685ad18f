"""Records in which every text of a person or a local system carries a marker, and the search for them."""

import itertools
import json
import re
from pathlib import Path

import polars as pl

MARKER = "Qzxv"
_MARK = re.compile(rf"{MARKER}\d*")
_TEXTS = {
    *("family", "given", "line", "city", "district", "postalCode", "display", "text", "div", "valueString"),
    *("title", "description", "name", "comment", "conclusion", "authorString", "alias"),
}
_FOR_THE_SERVER = {"Group", "Organization"}  # by which it finds its patients


class Secrets:
    """What must not be seen: markers, ids of all records, the patients' numbers, contacts and days of birth.

    Attributes:
        values: Each with the element where it stands.
    """

    def __init__(self):
        self.values = {}
        self._numbers = itertools.count(1)

    def mark(self, path):
        marker = f"{MARKER}{next(self._numbers):06d}"
        self.values[marker] = path
        return marker

    def add_record(self, record):
        kind = record["resourceType"]
        self.values[record["id"]] = f"{kind}.id"
        if kind == "Patient":
            for key in ("identifier", "telecom"):
                self.values |= {item["value"]: f"Patient.{key}" for item in record.get(key, ())}
            self.values[record["birthDate"]] = "Patient.birthDate"

    def find(self, *texts):
        """Return the elements whose secrets stand in texts, or in bytes, each with how often."""
        plain = [text.decode("latin-1") if isinstance(text, bytes) else text for text in texts]
        known = pl.Series([value for value in self.values if not value.startswith(MARKER)], dtype=pl.String)
        found = pl.Series(plain, dtype=pl.String).str.extract_many(known.implode(), overlapping=True)
        hits = [*found.explode().drop_nulls(), *(mark for text in plain for mark in _MARK.findall(text))]
        places = [self.values.get(hit, "a marker") for hit in hits]
        return {place: places.count(place) for place in sorted(set(places))}


def permit(patient):
    """Return a decision of one patient: some environments take no export without any."""
    return {
        "resourceType": "Consent",
        "id": "0f0c7a52-5d0c-4f0e-9d59-0d7a7c1f2f11",
        "meta": {"lastUpdated": "2026-01-01T00:00:00Z"},
        "status": "active",
        "scope": {
            "coding": [{"system": "http://terminology.hl7.org/CodeSystem/consentscope", "code": "research"}],
            "text": "Research",
        },
        "patient": {"reference": f"Patient/{patient}", "display": "A patient"},
        "dateTime": "2025-12-01T00:00:00Z",
        "provision": {"type": "permit"},
    }


def write_marked(source: Path, folder: Path, *more) -> Secrets:
    """Copy records, and more of them, with a marker in every text, and with texts where no view looks."""
    secrets = Secrets()
    folder.mkdir()
    contents = {file.name: read_lines(file) for file in sorted(source.glob("*.ndjson"))}
    for record in more:
        contents.setdefault(f"{record['resourceType']}.ndjson", []).append(record)
    for name, records in contents.items():
        for number, record in enumerate(records):
            if record["resourceType"] not in _FOR_THE_SERVER:
                records[number] = _plant(record, secrets)
                secrets.add_record(record)
        write_lines(folder / name, records)
    return secrets


def read_lines(file: Path):
    """Read records from NDJSON."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def write_lines(file: Path, records) -> None:
    """Write records as NDJSON."""
    file.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")


def _plant(record, secrets):
    kind = record["resourceType"]
    marked = _mark(record, "", kind, secrets)
    mark = secrets.mark(f"{kind}, planted")
    return marked | {
        "text": {"status": "additional", "div": f"<div>{mark}</div>"},
        "note": [{"text": mark, "authorString": mark}],
        "extension": [
            *marked.get("extension", []),
            {"url": f"https://epic.example/{mark}", "valueString": mark},
        ],
        "contained": [{"resourceType": "Practitioner", "id": "p", "name": [{"family": mark}]}],
    }


def _mark(value, key, path, secrets):
    if isinstance(value, dict):
        return {name: _mark(item, name, f"{path}.{name}", secrets) for name, item in value.items()}
    if isinstance(value, list):
        return [_mark(item, key, path, secrets) for item in value]
    return f"{value} {secrets.mark(path)}" if isinstance(value, str) and key in _TEXTS else value


def read_everything(folder: Path, *, without: tuple[str, ...] = ()) -> dict[str, bytes]:
    """Return all that the files below a folder hold, by path: names, bytes, and of tables the values.

    A Parquet file's footer, with the statistics of its columns, is not compressed and stands in its bytes.
    """
    contents = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or path.is_symlink() or name.startswith(without):
            continue
        content = path.read_bytes()
        if path.suffix == ".parquet":
            table = pl.read_parquet(content, hive_partitioning=False)
            values = table.select(pl.all().cast(pl.String, strict=False)).write_csv()
            facts = json.dumps(pl.read_parquet_metadata(content))
            content += values.encode() + facts.encode()
        contents[name] = name.encode() + b"\n" + content
    return contents
