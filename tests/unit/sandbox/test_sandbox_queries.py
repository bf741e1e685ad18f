"""FHIR search and kick-off parameters: what is found, what is refused."""

import json

import numpy as np
import pytest

from cohortflow.sandbox.export_request import check_kickoff_headers, parse_export, read_parameters
from cohortflow.sandbox.ndjson_index import PatientNumbers, index_resources
from cohortflow.sandbox.outcome import RefusalError
from cohortflow.sandbox.pages import PageSessions
from cohortflow.sandbox.resource_table import ResourceTable
from cohortflow.sandbox.search_query import parse_filter, parse_search

LOINC = "http://loinc.org"


def observation(name, code, when, **more):
    coding = [{"system": LOINC, "code": code}, {"system": "urn:local", "code": f"L-{code}"}]
    return (
        {"resourceType": "Observation", "id": name, "status": "final", "code": {"coding": coding}}
        | when
        | more
    )


OBSERVATIONS = [
    observation(
        "a", "1-1", {"effectiveDateTime": "2020-05-10T08:00:00Z"}, subject={"reference": "Patient/p"}
    ),
    observation("b", "1-1", {"effectiveDateTime": "2020-05"}, subject={"reference": "Patient/q"}),
    observation("c", "2-2", {"effectivePeriod": {"start": "2020-06-01"}}, subject={"reference": "Patient/p"}),
    observation("d", "3,3", {}, encounter={"reference": "Encounter/e1"}, status="amended"),
]
PATIENTS = [
    {
        "resourceType": "Patient",
        "id": "p",
        "active": True,
        "gender": "female",
        "birthDate": "1980-02-29",
        "name": [{"family": "Müller", "given": ["Ana", "Lu"]}],
        "identifier": [{"system": "urn:mrn", "value": "77"}],
    },
    {"resourceType": "Patient", "id": "q", "active": False, "gender": "male", "birthDate": "1990"},
]


def find(tmp_path, resources, query, *, lenient=False):
    patients = PatientNumbers()
    file = index_resources(tmp_path / "rows.ndjson", resources, patients, 0)
    table = ResourceTable.of((file,))
    search = parse_search(resources[0]["resourceType"], query, lenient=lenient)
    rows = search.rows(table, np.arange(len(resources)), patients.get)
    return "".join(json.loads(line)["id"] for line in table.lines(rows))


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("_id", "a,c,zz", "ac"),
        ("patient", "p", "ac"),
        ("subject", "Patient/q", "b"),
        ("patient", "https://ehr.example/fhir/Patient/q,p", "abc"),
        ("patient", "nobody", ""),
        ("encounter", "e1", "d"),
        ("encounter", "Encounter/e1", "d"),
        ("encounter", "1", ""),
        ("code", "1-1", "ab"),
        ("code", f"{LOINC}|1-1,{LOINC}|2-2", "abc"),
        ("code", "urn:local|L-2-2", "c"),
        ("code", "urn:local|2-2", ""),
        ("code", "urn:local|", "abcd"),
        ("code", "|1-1", ""),
        ("code", r"3\,3", "d"),
        ("code", "3,3", ""),
        ("status", "amended", "d"),
        ("date", "2020-05-10", "a"),
        ("date", "2020-05", "ab"),
        ("date", "ne2020-05", "c"),
        ("date", "ge2020-05-10", "abc"),
        ("date", "gt2020-05-31", "c"),
        ("date", "lt2020-05-10", "b"),
        ("date", "le2020-06-01", "abc"),
        ("date", "sa2020-05-31", "c"),
        ("date", "eb2020-06", "ab"),
        ("date", "ge2031", "c"),  # a period without an end goes on
    ],
)
def test_observation_search(tmp_path, name, value, found):
    assert find(tmp_path, OBSERVATIONS, [(name, value)]) == found


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("identifier", "urn:mrn|77", "p"),
        ("identifier", "urn:other|77", ""),
        ("gender", "male", "q"),
        ("active", "true", "p"),
        ("family", "mül", "p"),
        ("family", "ller", ""),
        ("given", "lu", "p"),
        ("name", "ANA", "p"),
        ("birthdate", "lt1985", "p"),
        ("birthdate", "1990", "q"),
    ],
)
def test_patient_search(tmp_path, name, value, found):
    assert find(tmp_path, PATIENTS, [(name, value)]) == found


def test_repeated_parameters_are_and_commas_are_or(tmp_path):
    query = [("date", "ge2020-05"), ("date", "lt2020-06"), ("code", "1-1,2-2"), ("patient", "p,q")]
    assert find(tmp_path, OBSERVATIONS, query) == "ab"


@pytest.mark.parametrize(
    ("sort", "order"), [("date", "bacd"), ("-_id", "dcba"), ("status,-_id", "dcba"), ("-status,_id", "abcd")]
)
def test_sort(tmp_path, sort, order):
    assert find(tmp_path, OBSERVATIONS, [("_sort", sort)]) == order


@pytest.mark.parametrize(
    "pair",
    [
        ("foo", "1"),
        ("code:not", "1"),
        ("date", "yesterday"),
        ("date", "xx2020"),
        ("code", ""),
        ("_count", "-1"),
        ("_count", "many"),
        ("_sort", "nothing"),
        ("_sort", "patient"),
    ],
)
def test_what_is_not_understood_is_refused(pair):
    with pytest.raises(RefusalError) as caught:
        parse_search("Observation", [pair], lenient=False)
    assert caught.value.status == 400


def test_lenient_handling_ignores_unknown_parameters_and_says_so(tmp_path):
    query = [("foo", "1"), ("code", "2-2")]
    assert find(tmp_path, OBSERVATIONS, query, lenient=True) == "c"
    search = parse_search("Observation", query, lenient=True)
    assert search.ignored == ("foo",)
    assert search.used == (("code", "2-2"),)
    with pytest.raises(RefusalError):  # a malformed value stays wrong
        parse_search("Observation", [("date", "never")], lenient=True)


@pytest.mark.parametrize("text", ["Observation", "Observation?_count=3", "Observation?foo=1", "?code=1"])
def test_a_type_filter_is_a_search_of_a_type(text):
    with pytest.raises(RefusalError):
        parse_filter(text, lenient=False)


def export(*parameters, level="group", lenient=False, posted=False):
    return parse_export(level, "g", "http://ehr.example/fhir", parameters, lenient=lenient, posted=posted)


def test_a_kick_off_takes_lists_and_repeats():
    request = export(
        ("_type", "Patient,Observation"),
        ("_type", "Condition"),
        ("_typeFilter", "Observation?code=1,2,Condition?category=x"),
        ("_typeFilter", "Observation?date=ge2020"),
        ("_since", "2024-01-01T00:00:00 02:00"),  # the plus sign of a client that does not encode it
        ("_outputFormat", "ndjson"),
    )
    assert request.types == {"Patient", "Observation", "Condition"}
    assert [query.resource_type for query in request.filters] == ["Observation", "Condition", "Observation"]
    assert request.filters[0].used == (("code", "1,2"),)
    assert request.since == export(("_since", "2023-12-31T22:00:00Z")).since


@pytest.mark.parametrize(
    "parameter",
    [
        ("_outputFormat", "text/csv"),
        ("_since", "2024-01-01"),
        ("_type", "Patient,Nonsense"),
        ("_typeFilter", "Observation?foo=1"),
        ("_unknown", "id"),
        ("patient", "Patient/p"),
    ],
)
def test_a_kick_off_refuses_what_it_does_not_support(parameter):
    with pytest.raises(RefusalError) as caught:
        export(parameter)
    assert caught.value.status == 400


def test_a_filter_outside_of_type_is_refused():
    with pytest.raises(RefusalError):
        export(("_type", "Patient"), ("_typeFilter", "Observation?code=1"))


def test_lenient_kick_off_lists_what_it_ignored():
    request = export(("_unknown", "id"), ("_typeFilter", "Observation?foo=1&code=2"), lenient=True)
    assert request.ignored == ("_unknown", "foo")


def test_only_a_posted_kick_off_names_patients():
    posted = export(("patient", "Patient/p"), ("patient", "q"), posted=True)
    assert posted.patients == ("p", "q")
    with pytest.raises(RefusalError):
        export(("patient", "Patient/p"), level="system", posted=True)


def test_parameters_resource():
    body = {
        "resourceType": "Parameters",
        "parameter": [
            {"name": "_since", "valueInstant": "2024-01-01T00:00:00Z"},
            {"name": "patient", "valueReference": {"reference": "Patient/p"}},
        ],
    }
    assert list(read_parameters(json.dumps(body).encode())) == [
        ("_since", "2024-01-01T00:00:00Z"),
        ("patient", "Patient/p"),
    ]


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"[]", b'{"resourceType":"Patient"}', b'{"resourceType":"Parameters","parameter":[{}]}'],
)
def test_a_body_that_is_no_parameters_resource(body):
    with pytest.raises(RefusalError) as caught:
        list(read_parameters(body))
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"prefer": "respond-async"}, 406),
        ({"prefer": "respond-async", "accept": "*/*"}, 406),
        ({"prefer": "respond-async", "accept": "application/fhir+ndjson"}, 406),
        ({"accept": "application/fhir+json"}, 400),
        ({"accept": "application/fhir+json", "prefer": "handling=lenient"}, 400),
    ],
)
def test_kick_off_headers_that_are_refused(headers, status):
    with pytest.raises(RefusalError) as caught:
        check_kickoff_headers(headers)
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("prefer", "lenient"), [("respond-async", False), ("respond-async, handling=lenient", True)]
)
def test_kick_off_headers(prefer, lenient):
    assert (
        check_kickoff_headers({"accept": "application/fhir+json; fhirVersion=4.0", "prefer": prefer})
        is lenient
    )


@pytest.fixture
def table(tmp_path):
    return ResourceTable.of((index_resources(tmp_path / "t.ndjson", OBSERVATIONS, PatientNumbers(), 0),))


def test_a_page_token_leads_back_to_the_same_page_for_its_owner_only(table):
    sessions = PageSessions(60)
    search = parse_search("Observation", [], lenient=False)
    session = sessions.open("me", search, table, np.arange(4), 2)
    for _ in range(2):
        assert sessions.get(session.token(2), "me") == (session, 2)
    for token, client in [
        (session.token(2), "you"),
        ("", "me"),
        (session.id, "me"),
        (session.id + "zz", "me"),
    ]:
        with pytest.raises(RefusalError) as caught:
            sessions.get(token, client)
        assert caught.value.status == 410


def test_page_tokens_expire(table):
    sessions = PageSessions(0)
    session = sessions.open("me", parse_search("Observation", [], lenient=False), table, np.arange(4), 2)
    with pytest.raises(RefusalError):
        sessions.get(session.token(2), "me")


@pytest.mark.parametrize("limit", ["_MOST_SESSIONS", "_MOST_ROWS"])
def test_the_oldest_page_sessions_give_way(table, monkeypatch, limit):
    monkeypatch.setattr(f"cohortflow.sandbox.pages.{limit}", 2 if limit == "_MOST_SESSIONS" else 9)
    sessions = PageSessions(60)
    search = parse_search("Observation", [], lenient=False)
    first, second, third = (sessions.open("me", search, table, np.arange(4), 2) for _ in range(3))
    with pytest.raises(RefusalError):
        sessions.get(first.token(2), "me")
    for kept in (second, third):
        assert sessions.get(kept.token(2), "me")[0] is kept


def test_sorting_nothing_finds_nothing(tmp_path):
    assert find(tmp_path, OBSERVATIONS, [("code", "none"), ("_sort", "date")]) == ""
