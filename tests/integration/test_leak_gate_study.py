"""The leak gate in a study: a hole stops it before anything lands, and no marker leaves any environment."""

import json
import logging
import os

import polars as pl
import pytest
from marked_records import permit, read_lines

from cohortflow.errors import LeakError
from cohortflow.sandbox import SandboxConfig, running_sandbox
from cohortflow.workflow.runner import StepFailedError, run_plan
from cohortflow.workflow.steps import redact as redact_step
from cohortflow.workflow.steps.release import read_release

pytestmark = pytest.mark.integration

MARKER = "Qzxv"


def break_kernel(monkeypatch, change):
    """Let the kernel do something else to the patients, whatever the plan says."""
    honest = redact_step.redact

    def broken(frame, plan, *arguments, **options):
        redacted = honest(frame, plan, *arguments, **options)
        return change(redacted, frame) if plan.view == "patient" else redacted

    monkeypatch.setattr(redact_step, "redact", broken)


def published_text(run):
    """Return all that lies in the datasets' zone, tables as JSON."""
    texts = []
    for path in run.datasets.list():
        if path.endswith(".parquet"):
            texts.append(pl.read_parquet(run.datasets.child(path)).write_json())
        else:
            texts.append((run.datasets.read(path) or b"").decode("utf-8", "replace"))
    return "\n".join(texts)


def test_clean_run_reports_what_was_searched(folder_site):
    run, results = folder_site.run()
    scan = read_release(run.datasets, run.interval.key)["leak_scan"]
    assert scan["clean"]
    assert scan["leaks"] == []
    assert scan["identifiers"] > 500
    assert {"patient.validation.html", "result of redact.patient"} <= set(scan["documents"])
    assert results["scan_for_leaks"].facts["leak_scan"] == scan
    assert json.loads(run.datasets.read(run.report_path("leaks.json"))) == scan


def test_hole_stops_the_study_and_nothing_lands(folder_site, monkeypatch, caplog):
    names = []

    def let_names_out(redacted, frame):
        names.extend(frame.select("family_name").collect().to_series().drop_nulls())
        family = frame.select("family_name").collect().to_series()
        return redacted.with_columns(family.alias("language_code"))

    break_kernel(monkeypatch, let_names_out)
    run = folder_site.open_run()
    with caplog.at_level(logging.DEBUG), pytest.raises(LeakError) as caught:
        run_plan(run)
    assert "patient.language_code: name" in str(caught.value)
    assert caught.value.remedy
    report = json.loads(run.datasets.read(run.report_path("leaks.json")))
    assert "patient.language_code" in {leak["place"] for leak in report["leaks"]}
    assert not [path for path in run.datasets.list() if path.endswith(".parquet")]
    assert not run.datasets.list("_releases")
    assert not run.work.list(), "intermediates are removed"
    told = str(caught.value) + caplog.text + published_text(run)
    assert not [name for name in set(names) if f" {name} " in told or f'"{name}"' in told]


def test_run_can_be_repeated_once_the_hole_is_closed(folder_site, monkeypatch):
    with monkeypatch.context() as hole:
        born = pl.lit("born 1965-01-13")
        break_kernel(hole, lambda redacted, frame: redacted.with_columns(born.alias("language_code")))
        with pytest.raises(LeakError, match="pattern date_iso"):
            folder_site.run()
    run, results = folder_site.run()
    assert results["scan_for_leaks"].facts["leak_scan"]["clean"]
    assert folder_site.rows(run, "patient").height


TEXTS = {
    *("family", "given", "line", "city", "district", "display", "text", "div", "valueString", "title"),
    *("description", "name", "comment", "conclusion", "value"),
}


def mark(value, key=""):
    """Append a marker to every text that a person or a local system wrote."""
    if isinstance(value, dict):
        return {name: mark(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [mark(item, key) for item in value]
    return f"{value} {MARKER}" if isinstance(value, str) and key in TEXTS else value


def plant(resource):
    """Return a resource with a marker in every text, and in places that no view looks at."""
    if resource["resourceType"] in {"Group", "Organization"}:
        return resource  # by which the sandbox finds its patients
    return mark(resource) | {
        "text": {"status": "additional", "div": f"<div>{MARKER}</div>"},
        "note": [{"text": MARKER, "authorString": MARKER}],
        "extension": [
            *mark(resource.get("extension", [])),
            {"url": f"https://epic.example/{MARKER}", "valueString": MARKER},
        ],
        "contained": [{"resourceType": "Practitioner", "id": "p", "name": [{"family": MARKER}]}],
    }


@pytest.fixture
def marked_site(patients, tmp_path, make_site):
    """A hospital whose every text holds a marker, and connections for every environment."""
    folder = tmp_path / "marked"
    folder.mkdir()
    for file in patients.glob("*.ndjson"):
        planted = (json.dumps(plant(json.loads(line))) for line in file.read_text().splitlines())
        (folder / file.name).write_text("".join(f"{line}\n" for line in planted))
    decision = permit(read_lines(patients / "Patient.ndjson")[0]["id"])
    (folder / "Consent.ndjson").write_text(json.dumps(plant(decision)))
    config = SandboxConfig(data=folder, export_seconds=0.2, resources_per_file=2000)
    with running_sandbox(config) as sandbox:
        site = make_site(sandbox, str(tmp_path / "lake"), tmp_path)
        for environment in ("STAGING", "PROD"):
            key = json.dumps({"conn_type": "generic", "password": os.urandom(32).hex()})
            site.environ[f"AIRFLOW_CONN_COHORTFLOW_KEY_{environment}"] = key
        yield site


def lake_text(lake):
    """Return all that lies in a lake outside the zone of raw data, tables as JSON."""
    texts = []
    for path in sorted(lake.rglob("*")):
        if path.is_file() and "raw" not in path.relative_to(lake).parts:
            is_table = path.suffix == ".parquet"
            texts.append(
                pl.read_parquet(path).write_json() if is_table else path.read_bytes().decode("latin-1")
            )
    return "\n".join(texts)


@pytest.mark.parametrize("environment", ["dev", "staging", "prod"])
def test_no_marker_leaves_an_environment(marked_site, environment, caplog, capfd, tmp_path):
    run = marked_site.open_run(environment=environment)
    with caplog.at_level(logging.DEBUG):
        results = run_plan(run)
    assert results["land.patient"].datasets[0].rows > 0
    output = capfd.readouterr()
    for place, text in {
        "lake": lake_text(tmp_path / "lake"),
        "what tasks hand on": json.dumps({step: result.to_dict() for step, result in results.items()}),
        "log": caplog.text,
        "output": output.out + output.err,
    }.items():
        assert MARKER not in text, place


def test_no_marker_is_in_an_error(marked_site, monkeypatch, caplog, tmp_path):
    def fail(redacted, frame):
        raise ValueError(frame.select("family_name").collect().write_json())

    break_kernel(monkeypatch, fail)
    run = marked_site.open_run()
    with caplog.at_level(logging.DEBUG), pytest.raises(StepFailedError) as caught:
        run_plan(run)
    assert MARKER not in str(caught.value) + caplog.text + lake_text(tmp_path / "lake")
