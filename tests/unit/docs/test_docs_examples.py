"""What the documentation shows works: studies compile, programs run, commands and links exist."""

import json
import re
import shlex
from pathlib import Path

import polars as pl
import pytest
import yaml
from typer.main import get_command

from cohortflow.cli.main import make_cli
from cohortflow.connectors import FhirSource, settings
from cohortflow.model import Catalog, EnvDeployment
from cohortflow.redaction import load_policy
from cohortflow.registry import REGISTRY_CONNECTION, locate_registry
from cohortflow.sandbox import generate_client_key
from cohortflow.terminology import UnitMapping
from cohortflow.workflow.environment import load_environment
from cohortflow.workflow.plan import compile_plan
from cohortflow.workflow.spec import QualitySpec, RedactionSpec, SourceSpec, WorkflowSpec
from cohortflow.workflow.study import Study
from cohortflow.workflow.template import Parameter, Template

ROOT = Path(__file__).resolve().parents[3]
PAGES = [
    *sorted((ROOT / "docs").rglob("*.md")),
    *(ROOT / n for n in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
]
FENCE = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)


def blocks(language, title=""):
    """Yield the fenced blocks of a language whose title starts with a text, as pytest parameters."""
    for page in PAGES:
        for found, name, text in FENCE.findall(page.read_text(encoding="utf-8")):
            if found == language and (name or "").startswith(title):
                yield pytest.param(page, name, text, id=f"{page.name}: {name or text.split()[0]}")


def page(name):
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


@pytest.fixture
def documented_project(project_copy):
    """The project with the templates and studies that the documentation shows."""
    for block in blocks("yaml", "templates/"):
        _, name, text = block.values
        (project_copy.root / name).write_text(text, encoding="utf-8")
    for block in blocks("yaml", "dags/studies/"):
        _, name, text = block.values
        (project_copy.root / name).write_text(text, encoding="utf-8")
    return project_copy


@pytest.mark.parametrize(("_page", "name", "_text"), list(blocks("yaml", "dags/studies/")))
def test_studies_compile(documented_project, _page, name, _text):
    study = documented_project.load_study(documented_project.root / name)
    for environment in documented_project.catalog.names("environments"):
        assert compile_plan(study, environment, documented_project).steps


def test_every_template_has_a_study(documented_project):
    used = {documented_project.load_study(file).model.template for file in documented_project.study_files()}
    assert used == {file.stem for file in documented_project.templates.glob("*.yaml")}


def test_the_readmes_study_is_the_shipped_one():
    (block,) = [block for block in blocks("yaml") if block.values[0].name == "README.md"]
    shown = yaml.safe_load(block.values[2])
    shipped = yaml.safe_load((ROOT / "dags/studies" / f"{shown['study']}.yaml").read_text(encoding="utf-8"))
    assert shown == {key: shipped[key] for key in shown}


@pytest.fixture
def lake(tmp_path):
    """A small lake as the tutorial's first part leaves it."""
    study = tmp_path / "lake/dev/datasets/diabetes_nightly"
    frames = {
        "observation": {
            "code": ["4548-4", "4548-4"],
            "effective_year": [2025, 2026],
            "value_quantity": [7.0, 8.0],
        },
        "medication_request": {"patient_id": ["a"], "ingredient_display": ["Metformin"]},
        "cohort": {"patient_id": ["a", "b"]},
    }
    datasets = []
    for name, columns in frames.items():
        frame = pl.DataFrame(columns).with_columns(data_interval=pl.lit("2026-11-20"))
        frame.write_delta(str(study / name), delta_write_options={"partition_by": ["data_interval"]})
        datasets.append({"name": name, "uri": str(study / name), "version": 0})
    (study / "_releases").mkdir()
    release = {"interval": {"start": "2026-11-20T00:00:00+00:00"}, "datasets": datasets}
    (study / "_releases/2026-11-20.json").write_text(json.dumps(release))


@pytest.mark.usefixtures("lake")
@pytest.mark.parametrize(("path", "_name", "text"), list(blocks("python")))
def test_programs_run(tmp_path, monkeypatch, path, _name, text):
    monkeypatch.chdir(tmp_path)
    exec(compile(text, str(path), "exec"), {"__name__": "__main__"})


def test_the_tutorials_questions_are_answered(lake, tmp_path, monkeypatch, capsys):
    (program,) = [block.values[2] for block in blocks("python", "questions.py")]
    monkeypatch.chdir(tmp_path)
    exec(compile(program, "questions.py", "exec"), {})
    output = capsys.readouterr().out
    assert "2025" in output
    assert re.search(r"patients_on_metformin.*\b1\b", output, re.DOTALL)


def test_the_environment_file_has_what_compose_asks_for(tmp_path, monkeypatch):
    (program,) = [block.values[2] for block in blocks("python", "make_env.py")]
    monkeypatch.chdir(tmp_path)
    exec(compile(program, "make_env.py", "exec"), {})
    lines = (tmp_path / ".env").read_text().splitlines()
    values = dict(line.split("=", 1) for line in lines)
    compose = (ROOT / "docker-compose.yaml").read_text(encoding="utf-8")
    assert set(values) == set(re.findall(r"\$\{([A-Z_0-9]+):\?\}", compose))
    assert all(values.values())
    assert (tmp_path / ".env").stat().st_mode & 0o077 == 0
    connection = EnvDeployment(
        {
            "AIRFLOW_CONN_FHIR": '{"conn_type": "fhir", "host": "http://127.0.0.1/fhir", '
            '"login": "demo", "extra": {"private_key_env": "KEY"}}'
        }
    ).connection("fhir")
    (key,) = shlex.split(values["COHORTFLOW_FHIR_KEY"])
    source = FhirSource.from_connection(connection, {"KEY": key})
    assert source.key is not None
    public = json.loads((tmp_path / "client.jwks").read_text())["keys"]
    assert [item["kid"] for item in public] == [source.key.kid]
    assert "d" not in public[0]


def exported():
    """Yield each connection that a page exports, with its place."""
    pattern = re.compile(r"^export (AIRFLOW_CONN_\w+)='(.*?)'$", re.MULTILINE | re.DOTALL)
    for block in blocks("bash"):
        path, _, text = block.values
        for number, (name, value) in enumerate(pattern.findall(text)):
            yield pytest.param(name, value, id=f"{path.name}: {name} {number}")


@pytest.mark.parametrize(("name", "value"), list(exported()))
def test_connections_are_accepted(tmp_path, name, value):
    key = tmp_path / "key.json"
    key.write_text(json.dumps(generate_client_key()[0]))
    value = re.sub(r'"private_key_file": "[^"]*"(, "kid": "[^"]*")?', f'"private_key_file": "{key}"', value)
    conn_id = name.removeprefix("AIRFLOW_CONN_").lower()
    connection = EnvDeployment({name: value}).connection(conn_id)
    if connection.conn_type in settings.CONNECTION_TYPES:
        assert set(connection.extra) <= settings._FIELDS
        assert FhirSource.from_connection(connection).base_url
    elif conn_id == REGISTRY_CONNECTION:
        assert locate_registry(EnvDeployment({name: value})).drivername == "postgresql+psycopg"
    else:
        assert (connection.conn_type, conn_id) == ("aws", "cohortflow_lake")


def commands():
    """Yield each ``cohortflow`` command of a shell block or of inline code."""
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        shell = "\n".join(block for language, _, block in FENCE.findall(text) if language == "bash")
        inline = "\n".join(re.findall(r"`([^`\n]+)`", FENCE.sub("", text)))
        for line in f"{shell}\n{inline}".splitlines():
            match = re.match(r"^(?:\.venv/bin/)?cohortflow( .+)$", line.strip())
            if match and " | " not in line:
                yield pytest.param(shlex.split(match[1], comments=True), id=f"{path.name}:{match[1]}")


@pytest.mark.parametrize("words", list(commands()))
def test_commands_exist(words):
    command = get_command(make_cli())
    rest = list(words)
    while rest and rest[0] in getattr(command, "commands", {}):
        command = command.commands[rest.pop(0)]
    if rest and not rest[0].startswith("-"):
        assert not hasattr(command, "commands"), f"{rest[0]} is no command"
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    assert {word.split("=")[0] for word in rest if word.startswith("--")} <= known


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        code = "\n".join(
            [*(b for _, _, b in FENCE.findall(text)), *re.findall(r"`([^`\n]+)`", FENCE.sub("", text))]
        )
        named = set(re.findall(r"^make ([a-z]+)", code, re.MULTILINE))
        assert named <= targets, path.name


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("studies.md", Study),
        ("templates.md", Template),
        ("templates.md", Parameter),
        ("templates.md", WorkflowSpec),
        ("templates.md", SourceSpec),
        ("templates.md", RedactionSpec),
        ("templates.md", QualitySpec),
        ("units.md", UnitMapping),
    ],
)
def test_every_key_is_documented(name, model):
    text = page(name)
    assert [key for key in model.model_fields if f"`{key}`" not in text] == []


def test_every_parameter_is_documented(project):
    text = page("studies.md")
    for file in project.study_files():
        parameters = project.load_study(file).template.model.parameters
        assert [name for name in parameters if f"`{name}`" not in text] == []


def test_every_value_set_is_documented(project):
    text = page("studies.md")
    assert [name for name in project.catalog.names("valuesets") if f"`{name}`" not in text] == []


def test_every_field_of_a_connection_is_documented():
    text = page("connections.md")
    assert [name for name in sorted(settings._FIELDS) if f"`{name}`" not in text] == []


def test_environments_are_as_documented():
    text, catalog = page("environments-and-redaction.md"), Catalog.default()
    for name in catalog.names("environments"):
        bound = load_environment(name, catalog)
        row = f"| `{name}` | `{bound.redaction}` | `{bound.weakest_redaction}` | `{bound.key_connection}` |"
        assert row in text
    header = next(line for line in text.splitlines() if line.startswith("| | `"))
    assert sorted(re.findall(r"`(\w+)`", header)) == catalog.names("redaction")
    for name in catalog.names("redaction"):
        assert load_policy(catalog, name).name == name


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_of_pages_outside_the_site_lead_somewhere(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    targets = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text)]
    assert [link for link in targets if "://" not in link and not (ROOT / link).exists()] == []
