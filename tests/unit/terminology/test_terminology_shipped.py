"""The content that comes along: what it must have for the synthetic patients to map."""

import pytest

from cohortflow.errors import ConfigurationError
from cohortflow.synthetic import codes
from cohortflow.terminology.integrity import check_edges, collect_table
from cohortflow.terminology.loaders import LOADERS, shipped


@pytest.fixture(scope="module")
def releases():
    return {release.system: release for release in LOADERS["shipped"](None)}


def concepts(release):
    return set(release.tables["concepts"].select("code").collect()["code"])


def test_every_release_can_be_stored(releases):
    for release in releases.values():
        tables = {name: collect_table(release, name) for name in release.tables}
        if "edges" in tables:
            check_edges(tables["edges"], tables["concepts"], release.system)


def test_every_release_has_a_licence_that_allows_it(releases):
    free = ("Public domain", "CC0 1.0", "CVX is maintained", "Copyright Regenstrief Institute")
    for release in releases.values():
        assert release.licence.startswith(free), release.system


@pytest.mark.parametrize("system", [codes.ICD10CM, codes.CVX])
def test_every_code_of_the_synthetic_patients_is_there(releases, system):
    used = {code.code for code in codes.CODES if code.system == system}
    assert used
    assert used <= concepts(releases[system])


@pytest.mark.parametrize(
    ("system", "expected"),
    [
        ("http://hl7.org/fhir/administrative-gender", {"male", "female", "other", "unknown"}),
        ("http://hl7.org/fhir/observation-status", {"final", "amended", "entered-in-error"}),
        ("http://terminology.hl7.org/CodeSystem/condition-clinical", {"active", "relapse", "remission"}),
        ("http://terminology.hl7.org/CodeSystem/v3-ActCode", {"AMB", "IMP", "EMER"}),
        ("http://unitsofmeasure.org", {"g", "mol", "[in_i]", "m[Hg]"}),
    ],
)
def test_the_systems_of_fhir_and_ucum_are_there(releases, system, expected):
    assert expected <= concepts(releases[system])


def test_a_package_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(shipped, "find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match="simple_icd_10_cm"):
        LOADERS["shipped"](None)


def test_cvx_is_labelled_as_a_part(releases):
    assert "fragment" in releases[codes.CVX].title
    assert "fragment" in releases[codes.CVX].version


def test_names_of_vaccines_have_no_footnotes(releases):
    vaccines = releases[codes.CVX].tables["concepts"].sort("code").collect()
    names = dict(vaccines.select("code", "display").iter_rows())
    assert names["42"] == "Hep B, adolescent/high risk infant"
    assert names["43"] == "Hep B, adult"
    assert names["998"] == "no vaccine administered"
