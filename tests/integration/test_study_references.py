"""Studies get what exports leave out: members of panels, and the content of notes."""

import json
import shutil

import pytest

from cohortflow.connectors.hydrate import Hydrator
from cohortflow.engine import read_table
from cohortflow.errors import ArtifactNotFoundError
from cohortflow.sandbox import SandboxConfig, running_sandbox
from cohortflow.workflow.steps.extract import extract_bulk, plan_extraction
from cohortflow.workflow.steps.transform import transform_views

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("COHORTFLOW_STATE", str(tmp_path / "state"))


@pytest.fixture
def epic(patients, make_site, tmp_path):
    """Epic with a panel of two tests, of which the members are withheld from exports and searches."""
    data = tmp_path / "data"
    shutil.copytree(patients, data)
    lines = (data / "Observation.ndjson").read_text().splitlines()
    template = next(item for item in map(json.loads, lines) if "valueQuantity" in item)
    panel = {key: value for key, value in template.items() if key != "valueQuantity"}
    members = [{"reference": f"Observation/member-{n}"} for n in (1, 2)]
    made = [
        {**panel, "id": "panel", "hasMember": members},
        *({**template, "id": f"member-{n}"} for n in (1, 2)),
    ]
    with (data / "Observation.ndjson").open("a") as file:
        file.writelines(json.dumps(item) + "\n" for item in made)
    with running_sandbox(SandboxConfig(data=data, export_seconds=0.1), persona="epic") as sandbox:
        site = make_site(sandbox, str(tmp_path / "lake"), tmp_path)
        connection = json.loads(site.environ["AIRFLOW_CONN_FHIR_DEFAULT"])
        connection["extra"]["profile"] = "epic"
        site.environ["AIRFLOW_CONN_FHIR_DEFAULT"] = json.dumps(connection)
        yield site


def panel_rows(run):
    frame = read_table(run.output_path("transform", "observation"), run.work).collect()
    return sorted(name for name in frame["observation_id"] if name.startswith(("panel", "member-")))


def test_case_14_a_panel_with_two_members_gives_three_rows(epic):
    run = epic.open_run()
    extract_bulk(run)
    transform_views(run)
    assert [epic.sandbox.shown_id("Observation", name) for name in ("member-1", "member-2", "panel")] == (
        panel_rows(run)
    )


def test_references_are_left_alone_where_the_study_says_so(epic):
    run = epic.open_run()
    source = run.plan.spec.source.model_copy(update={"references": "never"})
    object.__setattr__(run.plan, "spec", run.plan.spec.model_copy(update={"source": source}))
    extract_bulk(run)
    transform_views(run)
    assert panel_rows(run) == [epic.sandbox.shown_id("Observation", "panel")]


def test_a_pass_that_was_interrupted_goes_on_without_another_export(epic, monkeypatch):
    def die(*_):
        raise KeyboardInterrupt

    run = epic.open_run()
    with monkeypatch.context() as patch:
        patch.setattr(Hydrator, "_fetch_unit", die)
        with pytest.raises(KeyboardInterrupt):
            extract_bulk(run)
    with pytest.raises(ArtifactNotFoundError):
        transform_views(run)  # half of it is never taken for the whole
    extract_bulk(run)
    transform_views(run)
    assert len(panel_rows(run)) == 3
    assert epic.sandbox.log.count("kickoff", status=202) == 1


def test_studies_that_follow_other_references_do_not_share_a_folder(epic):
    def folder(**changes):
        run = epic.open_run()
        source = run.plan.spec.source.model_copy(update=changes)
        object.__setattr__(run.plan, "spec", run.plan.spec.model_copy(update={"source": source}))
        plan = plan_extraction(run)
        return plan.export.prefix, plan.chain

    notes = ("text/plain", "text/html")
    kinds = [
        folder(references="never"),
        folder(references="always"),
        folder(references="never", attachments=notes),
        folder(references="always", attachments=notes),
    ]
    assert len(set(kinds)) == len({prefix for prefix, _ in kinds}) == len({chain for _, chain in kinds}) == 4
    assert folder(references="always", attachments=notes[::-1]) == kinds[-1]


def test_a_study_that_ran_finds_its_pass_complete(epic):
    run = epic.open_run()
    extract_bulk(run)
    before = len(epic.sandbox.log.records())
    extract_bulk(run)
    assert len(epic.sandbox.log.records()) == before
