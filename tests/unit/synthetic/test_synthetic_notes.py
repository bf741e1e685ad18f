"""What the ground truth says of the notes is what stands in them, and it identifies the right patient."""

from __future__ import annotations

import base64
import itertools
from collections import defaultdict

import pytest


@pytest.fixture(scope="module")
def notes(population):
    return {
        resource["id"]: base64.b64decode(resource["content"][0]["attachment"]["data"], validate=True).decode(
            "utf-8"
        )
        for resource in population.resources["DocumentReference"]
    }


def test_planted_identifiers_stand_where_the_ground_truth_says(population, notes):
    assert len(population.planted) > 1000
    for plant in population.planted:
        note = notes[plant["document_id"]]
        assert note[int(plant["start"]) : int(plant["end"])] == plant["text"]


def test_planted_identifiers_do_not_overlap(population):
    places = defaultdict(list)
    for plant in population.planted:
        places[plant["document_id"]].append((int(plant["start"]), int(plant["end"])))
    for spans in places.values():
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))


def test_planted_identifiers_belong_to_the_patient_of_the_note(population):
    for plant in population.planted:
        document = population.by_id[f"DocumentReference/{plant['document_id']}"]
        patient = population.by_id[f"Patient/{plant['patient_id']}"]
        assert document["subject"]["reference"] == f"Patient/{patient['id']}"
        name, address = patient["name"][0], patient["address"][0]
        known = {
            "MRN": {patient["identifier"][0]["value"]},
            "SSN": {patient["identifier"][1]["value"]},
            "PHONE": {patient["telecom"][0]["value"]},
            "EMAIL": {patient["telecom"][1]["value"]},
            "ADDRESS": {
                f"{address['line'][0]}, {address['city']}, {address['state']} {address['postalCode']}"
            },
            "PROVIDER": {document["author"][0]["display"]},
        }
        if plant["kind"] in known:
            assert plant["text"] in known[plant["kind"]]
        if plant["kind"] == "NAME":
            assert name["family"] in plant["text"] or plant["text"] == name["given"][0]


def test_each_kind_of_identifier_is_planted(population):
    kinds = {plant["kind"] for plant in population.planted}
    assert kinds == {
        "NAME", "MRN", "SSN", "DATE", "PHONE", "EMAIL", "ADDRESS", "PROVIDER", "ORGANIZATION", "AGE",
    }  # fmt: skip


def test_only_ages_of_ninety_and_more_are_identifiers(population):
    assert all(int(plant["text"]) >= 90 for plant in population.planted if plant["kind"] == "AGE")


def test_every_mention_of_the_record_number_and_the_telephone_is_listed(population, notes):
    listed = defaultdict(list)
    for plant in population.planted:
        listed[plant["document_id"]].append(plant["text"])
    for document in population.resources["DocumentReference"]:
        patient = population.by_id[document["subject"]["reference"]]
        note = notes[document["id"]]
        for value in (patient["identifier"][0]["value"], patient["telecom"][0]["value"]):
            assert note.count(value) == listed[document["id"]].count(value)
        family = patient["name"][0]["family"]
        assert note.count(family) <= sum(text.count(family) for text in listed[document["id"]])
