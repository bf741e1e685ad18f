"""Indexing NDJSON by byte offset, and what the store makes of it."""

import gzip
import json
import os

import numpy as np
import pytest

from cohortflow.errors import InputError
from cohortflow.sandbox.instants import date_range, parse_instant
from cohortflow.sandbox.ndjson_index import NO_PATIENT, PatientNumbers, data_files, index_file, patient_of
from cohortflow.sandbox.resource_table import ResourceTable
from cohortflow.sandbox.store import ALL_PATIENTS, ResourceStore

LATE = parse_instant("2024-06-01T00:00:00Z")


def observation(number, patient="a", **more):
    return {
        "resourceType": "Observation",
        "id": f"o{number}",
        "subject": {"reference": f"Patient/{patient}"},
    } | more


def write(path, resources, end="\n"):
    text = "".join(json.dumps(resource) + end for resource in resources)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


@pytest.fixture
def spool(tmp_path):
    folder = tmp_path / "spool"
    folder.mkdir()
    return folder


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


def table_of(path, spool, patients=None):
    return ResourceTable.of((index_file(path, "Observation", PatientNumbers(patients or {}), spool),))


@pytest.mark.parametrize("name", ["Observation.ndjson", "Observation.000.ndjson", "Observation.1.ndjson.gz"])
def test_every_line_is_read_back_from_disk(data, spool, name):
    resources = [observation(number, note="ü" * number) for number in range(50)]
    write(data / name, resources)
    assert [found for found, _ in data_files(data)] == ["Observation"]
    table = table_of(data / name, spool)
    assert [json.loads(line) for line in table.lines(np.arange(50))] == resources
    assert json.loads(table.line(7)) == resources[7]
    assert table.find("o31") == 31
    assert table.find("o50") is None


@pytest.mark.parametrize(
    "content",
    [
        b'{"resourceType":"Observation","id":"x"}\r\n\r\n{"resourceType":"Observation","id":"y"}\r\n',
        b'\n\n{"resourceType":"Observation","id":"x"}\n   \n{"resourceType":"Observation","id":"y"}',
    ],
)
def test_blank_lines_other_line_ends_and_a_missing_last_one_are_tidied(data, spool, content):
    (data / "Observation.ndjson").write_bytes(content)
    table = table_of(data / "Observation.ndjson", spool)
    assert b"".join(table.lines(np.arange(2))) == (
        b'{"resourceType":"Observation","id":"x"}\n{"resourceType":"Observation","id":"y"}\n'
    )
    assert (data / "Observation.ndjson").read_bytes() == content


def test_scattered_rows_are_copied_in_order_and_whole(data, spool, tmp_path):
    resources = [observation(number) for number in range(20)]
    write(data / "Observation.0.ndjson", resources[:9])
    write(data / "Observation.1.ndjson", resources[9:])
    patients = PatientNumbers()
    parts = [index_file(path, kind, patients, spool) for kind, path in data_files(data)]
    table = ResourceTable.of(tuple(parts))
    rows = np.array([0, 1, 2, 5, 8, 9, 10, 19])
    with (tmp_path / "out").open("wb") as target:
        table.copy(rows, target)
    lines = (tmp_path / "out").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == [f"o{row}" for row in rows]


@pytest.mark.parametrize(
    ("line", "number"),
    [
        ('{"resourceType":"Observation"', 2),
        ('{"resourceType":"Observation","name":"Secretname"}', 2),
        ('{"resourceType":"Patient","id":"Secretname"}', 2),
        ('["Secretname"]', 2),
        ('{"resourceType":"Observation","id":"q","meta":{"lastUpdated":"Secretname"}}', 2),
    ],
)
def test_a_bad_line_is_named_by_place_and_never_quoted(data, spool, line, number):
    path = data / "Observation.ndjson"
    path.write_text('{"resourceType":"Observation","id":"x"}\n' + line + "\n")
    with pytest.raises(InputError) as caught:
        table_of(path, spool)
    assert caught.value.place == f"{path}:{number}"
    assert "Secretname" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_damaged_gzip_file_is_an_input_error(data, spool):
    path = data / "Observation.ndjson.gz"
    path.write_bytes(gzip.compress(os.urandom(4000))[:-600])
    with pytest.raises(InputError):
        table_of(path, spool)


@pytest.mark.parametrize("name", ["observations.ndjson", "Observatoin.ndjson"])
def test_a_file_that_names_no_resource_type_is_refused(data, name):
    (data / name).touch()
    with pytest.raises(InputError, match="resource type"):
        data_files(data)


def test_a_folder_without_data_is_refused(data):
    (data / "readme.txt").touch()
    with pytest.raises(InputError, match=r"no \.ndjson"):
        data_files(data)
    with pytest.raises(InputError, match="does not exist"):
        data_files(data / "nowhere")


@pytest.mark.parametrize(
    ("elements", "patient"),
    [
        ({"subject": {"reference": "Patient/p"}}, "p"),
        ({"patient": {"reference": "https://ehr.example/fhir/Patient/p/_history/2"}}, "p"),
        ({"beneficiary": {"reference": "urn:uuid:p"}}, "p"),
        ({"subject": {"reference": "Group/p"}}, None),
        ({"subject": {"display": "somebody"}}, None),
        ({"subject": [{"reference": "Patient/p"}]}, None),
        ({}, None),
    ],
)
def test_the_patient_of_a_resource(elements, patient):
    assert patient_of({"resourceType": "Coverage", "id": "1"} | elements) == patient


def test_select_by_patient_and_time(data, spool):
    write(
        data / "Observation.ndjson",
        [
            observation(0, "a", meta={"lastUpdated": "2024-01-01T00:00:00Z"}),
            observation(1, "b", meta={"lastUpdated": "2024-03-01T00:00:00Z"}),
            observation(2, "b", meta={"lastUpdated": "2025-01-01T00:00:00Z"}),
            observation(3, "c"),
        ],
    )
    stamp = parse_instant("2023-01-01T00:00:00Z") * 1000
    os.utime(data / "Observation.ndjson", ns=(stamp, stamp))
    table = table_of(data / "Observation.ndjson", spool, {"a": 0, "b": 1, "c": 2})
    b = np.array([1], dtype=np.int32)
    assert table.select(until=LATE).tolist() == [0, 1, 3]
    assert table.select(until=LATE, patients=b).tolist() == [1]
    # Strictly later, so that the last transaction time as _since brings nothing twice.
    assert table.select(until=LATE, since=parse_instant("2024-01-01T00:00:00Z")).tolist() == [1]
    # Without meta.lastUpdated the time of the file counts.
    assert table.select(until=LATE, since=parse_instant("2022-01-01T00:00:00Z")).tolist() == [0, 1, 3]


def test_without_a_group_one_of_all_patients_is_made(data, spool):
    write(data / "Patient.ndjson", [{"resourceType": "Patient", "id": name} for name in "ab"])
    store = ResourceStore(data, spool)
    group = json.loads(store.read("Group", ALL_PATIENTS))
    assert [member["entity"]["reference"] for member in group["member"]] == ["Patient/a", "Patient/b"]
    assert store.group(ALL_PATIENTS).tolist() == [0, 1]
    store.put([{"resourceType": "Patient", "id": "c"}])
    assert store.group(ALL_PATIENTS).tolist() == [0, 1, 2]
    store.delete("Patient", "a")
    assert store.group(ALL_PATIENTS).tolist() == [1, 2]
    store.close()


def test_a_group_of_the_data_holds_its_active_members(data, spool):
    write(data / "Patient.ndjson", [{"resourceType": "Patient", "id": name} for name in "abc"])
    members = [
        {"entity": {"reference": "Patient/c"}},
        {"entity": {"reference": "Patient/a"}, "inactive": True},
        {"entity": {"reference": "Patient/unknown"}},
    ]
    write(data / "Group.ndjson", [{"resourceType": "Group", "id": "g", "member": members}])
    store = ResourceStore(data, spool)
    assert store.group("g").tolist() == [store.patient_number("c")]
    assert store.group(ALL_PATIENTS) is None
    assert store.read("Group", ALL_PATIENTS) is None
    store.close()


def test_changes_replace_and_delete(data, spool):
    write(data / "Observation.ndjson", [observation(number) for number in range(3)])
    store = ResourceStore(data, spool)
    store.put([observation(1, status="amended"), observation(9)])
    assert json.loads(store.read("Observation", "o1"))["status"] == "amended"
    assert "lastUpdated" in json.loads(store.read("Observation", "o9"))["meta"]
    assert len(store.table("Observation").select(until=store.now)) == 4
    before = store.now - 1
    assert store.delete("Observation", "o1")
    assert not store.delete("Observation", "o1")
    assert store.read("Observation", "o1") is None
    assert [gone.resource_id for gone in store.deletions(before, store.now)] == ["o1"]
    store.put([observation(1)])
    assert store.read("Observation", "o1") is not None
    assert not list(store.deletions(before, store.now))
    store.close()


def test_no_patient_is_no_number(data, spool):
    write(data / "Observation.ndjson", [{"resourceType": "Observation", "id": "x"}])
    table = table_of(data / "Observation.ndjson", spool)
    assert table.patients.tolist() == [NO_PATIENT]
    assert not table.has_patients


SECOND = 1_000_000


@pytest.mark.parametrize(
    ("text", "first", "width"),
    [
        ("1970", 0, 365 * 86400 * SECOND),
        ("1972", 730 * 86400 * SECOND, 366 * 86400 * SECOND),
        ("1970-02", 31 * 86400 * SECOND, 28 * 86400 * SECOND),
        ("1970-01-02", 86400 * SECOND, 86400 * SECOND),
        ("1970-01-01T01:00Z", 3600 * SECOND, 60 * SECOND),
        ("1970-01-01T01:00:00+01:00", 0, SECOND),
        ("1970-01-01T00:00:00.5Z", SECOND // 2, SECOND // 10),
        ("1970-01-01T00:00:00.1234567Z", 123456, 1),
        ("1969-12-31T19:00:00-05:00", 0, SECOND),
    ],
)
def test_a_date_is_the_range_of_its_precision(text, first, width):
    assert date_range(text) == (first, first + width - 1)


@pytest.mark.parametrize("text", ["", "70", "1970-13", "1970-01-01T25:00:00Z", "today", "1970-01-01Z"])
def test_what_is_no_date(text):
    with pytest.raises(ValueError):
        date_range(text)


@pytest.mark.parametrize("text", ["2024", "2024-01-01", "2024-01-01T00:00:00", "2024-01-01T00:00Z"])
def test_an_instant_needs_seconds_and_a_zone(text):
    with pytest.raises(ValueError, match="instant"):
        parse_instant(text)
