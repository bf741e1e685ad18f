"""Consents and labels come on top of the same population."""

import csv
import gzip
import json

import pytest

from cohortflow.synthetic import generate


def read(folder, kind):
    return [json.loads(line) for line in (folder / f"{kind}.ndjson").read_text().splitlines()]


@pytest.fixture(scope="module")
def populations(tmp_path_factory):
    folder = tmp_path_factory.mktemp("populations")
    generate(folder / "plain", patients=120, seed=3)
    generate(folder / "wary", patients=120, seed=3, privacy=True)
    return folder / "plain", folder / "wary"


def test_only_labels_and_consents_are_added(populations):
    plain, wary = populations
    added = {path.name for path in wary.rglob("*.*")} - {path.name for path in plain.rglob("*.*")}
    assert added == {"Consent.ndjson", "privacy.csv"}
    labelled = 0
    for path in plain.glob("*.ndjson"):
        for before, after in zip(read(plain, path.stem), read(wary, path.stem), strict=True):
            labelled += "security" in after["meta"]
            after["meta"].pop("security", None)
            assert before == after
    assert labelled > 0


def test_the_truth_says_who_wants_what(populations):
    _, wary = populations
    with (wary / "ground_truth" / "privacy.csv").open() as file:
        truth = {row["patient_id"]: row for row in csv.DictReader(file)}
    assert {row["decision"] for row in truth.values()} == {"deny", "permit", "revoked", "exception", "none"}
    consents = read(wary, "Consent")
    asked = {consent["patient"]["reference"].removeprefix("Patient/") for consent in consents}
    assert asked == {patient for patient, row in truth.items() if row["decision"] != "none"}
    revoked = sum(row["decision"] == "revoked" for row in truth.values())
    assert len(consents) == len(asked) + revoked
    assert len({consent["id"] for consent in consents}) == len(consents)
    for patient in read(wary, "Patient"):
        marked = [label["code"] for label in patient["meta"].get("security", ())]
        assert marked == (["VIP"] if truth[patient["id"]]["vip"] == "true" else [])
    for condition in read(wary, "Condition"):
        codes = {label["code"] for label in condition["meta"].get("security", ())}
        assert codes <= {truth[condition["subject"]["reference"].removeprefix("Patient/")]["label"]}


def test_chunks_and_workers_do_not_matter(populations, tmp_path):
    _, wary = populations
    generate(tmp_path / "again", patients=120, seed=3, privacy=True, chunk_patients=17, workers=3, gzip=True)
    for name in ("Consent", "Condition", "Patient"):
        packed = (tmp_path / "again" / f"{name}.ndjson.gz").read_bytes()
        assert gzip.decompress(packed) == (wary / f"{name}.ndjson").read_bytes()
    truth = "ground_truth/privacy.csv"
    assert (tmp_path / "again" / truth).read_bytes() == (wary / truth).read_bytes()


def test_it_replaces_an_earlier_population_with_wishes(tmp_path):
    generate(tmp_path / "data", patients=3, seed=1, privacy=True)
    generate(tmp_path / "data", patients=3, seed=1)
    assert not (tmp_path / "data" / "Consent.ndjson").exists()
    assert not (tmp_path / "data" / "ground_truth" / "privacy.csv").exists()
