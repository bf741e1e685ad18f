"""JSON Schemas: editors complete studies and templates by them, so they must say what the loader says."""

import jsonschema
import pytest
import yaml

from cohortflow.cli.schema import schema_files
from cohortflow.workflow.schema import study_schema, template_schema


def read(path):
    # Dates stay texts, as in JSON.
    return yaml.load(path.read_text(), Loader=yaml.BaseLoader) | _typed(path)


def _typed(path):
    document = yaml.safe_load(path.read_text())
    return {key: value for key, value in document.items() if key != "start_date"}


@pytest.fixture(scope="module")
def studies(project):
    return jsonschema.Draft202012Validator(study_schema(project))


@pytest.fixture(scope="module")
def templates():
    return jsonschema.Draft202012Validator(template_schema())


def test_the_files_in_the_repository_are_current(project):
    for path, content in schema_files(project).items():
        assert path.read_text(encoding="utf-8") == content, f"run `make schema`: {path.name} is out of date"


def test_they_are_schemas(studies, templates):
    studies.check_schema(studies.schema)
    templates.check_schema(templates.schema)


def test_they_accept_what_is_shipped(project, studies, templates):
    files = list(project.study_files())
    assert files
    for path in files:
        studies.validate(read(path))
        assert path.read_text().startswith("# yaml-language-server: $schema=./study.schema.json\n")
    for path in project.templates.glob("*.yaml"):
        templates.validate(read(path))
        assert path.read_text().startswith("# yaml-language-server: $schema=./template.schema.json\n")


@pytest.mark.parametrize(
    "change",
    [
        {"ownr": "x"},
        {"template": "observational_cohrt"},
        {"study": "Not A Name"},
        {"parameters": {"condition_codes": "a", "lab_codes": "b", "lab_minimum": 1, "lab_unti": "%"}},
        {"parameters": {"condition_codes": "a", "lab_codes": "b", "lab_minimum": 1}},
        {"parameters": {"condition_codes": "a", "lab_codes": "b", "lab_minimum": "1", "lab_unit": "%"}},
    ],
    ids=["key", "template", "name", "parameter", "missing parameter", "type of a parameter"],
)
def test_a_typo_in_a_study_is_marked(project, studies, change):
    document = read(project.root / "dags/studies/diabetes_nightly.yaml")
    studies.validate(document)
    with pytest.raises(jsonschema.ValidationError):
        studies.validate(document | change)


def test_a_typo_in_a_template_is_marked(project, templates):
    document = read(project.templates / "lab_registry.yaml")
    workflow = document["workflow"]
    with pytest.raises(jsonschema.ValidationError, match="veiws"):
        templates.validate(document | {"workflow": workflow | {"veiws": []}})
    with pytest.raises(jsonschema.ValidationError, match="numbr"):
        templates.validate(document | {"parameters": {"a": {"type": "numbr", "help": "h"}}})
