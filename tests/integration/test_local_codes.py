"""From a study that stops for want of a map to one that maps: coverage, review, and the next run."""

import json

import pytest
import yaml

from cohortflow.cli.main import run as run_cli
from cohortflow.errors import CoverageError
from cohortflow.workflow.runner import run_plan
from cohortflow.workflow.steps.release import list_releases, read_release

pytestmark = pytest.mark.integration

STUDY, MAP = "kidney_lab_registry", "our_lab_to_loinc"
LOINC, LOCAL = "http://loinc.org", "https://lab.example.org/codes"


@pytest.fixture
def site(folder_site, project_copy, monkeypatch):
    """A hospital whose study maps laboratory codes by a map without the local code in use."""
    catalog = project_copy.root / "include/catalog/conceptmaps"
    document = json.loads((catalog / "lab_local_to_loinc.json").read_text())
    document["group"][0]["element"][0]["code"] = "OTHER"
    (catalog / f"{MAP}.json").write_text(json.dumps(document))
    file = project_copy.templates / "lab_registry.yaml"
    template = yaml.safe_load(file.read_text())
    template["workflow"]["maps"]["observation"] = [{"maps": [MAP], "prefix": "loinc", "min_coverage": 0.995}]
    file.write_text(yaml.safe_dump(template, sort_keys=False))
    for name, value in folder_site.environ.items():
        monkeypatch.setenv(name, value)
    folder_site.project = project_copy
    return folder_site


def tables(run):
    return [path for path in run.datasets.list() if "_delta_log" in path]


def test_reviewed_codes_let_a_stopped_study_publish(site, patients, tmp_path):
    run = site.open_run(STUDY)
    with pytest.raises(CoverageError, match="'loinc' covers") as stopped:
        run_plan(run)
    assert tables(run) == []
    assert list_releases(run.datasets) == []
    page = f"_reports/{run.interval.key}/observation.coverage.html"
    assert stopped.value.place == run.datasets.child(page)
    shown = run.datasets.read(page).decode()
    assert "Mapping coverage of" in shown
    assert "CRE" not in shown

    report, review = tmp_path / "coverage.json", tmp_path / "review.yaml"
    words = ["coverage", patients, "--view", "observation", "--map", MAP, "--all-codes", "--out", report]
    assert run_cli(["terminology", *map(str, words)]) == 0
    assert run_cli(["terminology", "suggest", str(report), "--target", LOINC, "-o", str(review)]) == 0
    rows = yaml.safe_load(review.read_text())
    by = {"reviewer": "Reviewer", "date": "2026-11-20"}
    for row in rows:
        if (row["source_code"], row["target_code"]) == ("CRE", "2160-0"):
            row |= {"decision": "accept", "relationship": "equivalent", **by}
        if row["source_code"] == "SPCOM":
            row |= {"decision": "no-target", "target_code": "", **by}
    assert {(row["source_system"], row["source_code"]) for row in rows} == {(LOCAL, "CRE"), (LOCAL, "SPCOM")}
    review.write_text(yaml.safe_dump(rows))
    catalog = site.project.root / "include/catalog/conceptmaps"
    assert (
        run_cli(["terminology", "accept", str(review), "-o", str(catalog / f"{MAP}.json"), "--update"]) == 0
    )

    run, _ = site.run(STUDY)
    published = site.rows(run, "observation").filter(code="CRE")
    assert published.height > 0
    assert set(published["loinc_code"]) == {"2160-0"}
    release = read_release(run.datasets, run.interval.key)
    measured = release["coverage"]["observation"]["loinc"]
    assert measured["share"] > 0.995
    assert {part["outcome"] for part in measured["systems"]} <= {"mapped", "identity", "no target"}
    assert measured["versions"][0].startswith(f"{MAP}|r")
    assert set(published["loinc_map"]) == set(measured["versions"])
    linked = {*release["reports"]["coverage"].values(), *release["reports"]["validation"].values()}
    assert run.datasets.child(page) in linked
    assert all(run.datasets.read(uri.removeprefix(f"{run.datasets.uri}/")) for uri in linked)


def test_coverage_of_a_release_is_read_again(site, tmp_path, capsys, monkeypatch):
    file = site.project.templates / "lab_registry.yaml"
    file.write_text(file.read_text().replace("min_coverage: 0.995", "min_coverage: 0"))
    site.run(STUDY)
    capsys.readouterr()
    page = tmp_path / "coverage.html"
    assert run_cli(["terminology", "coverage", "--study", STUDY, "--json", "--html", str(page)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert set(document["coverage"]) == {"condition", "observation"}
    assert document["coverage"]["condition"]["icd10cm"]["rows_mapped"] > 0
    assert "observation" in page.read_text()
