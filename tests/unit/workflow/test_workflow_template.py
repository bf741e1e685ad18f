"""Parameters of a template: every value is checked, and every refusal says what is wrong."""

import shutil

import pytest

from cohortflow.errors import StudyError
from cohortflow.workflow.document import Document
from cohortflow.workflow.template import LoadedTemplate, Parameter, Template, load_template

VALUES = {"condition_codes": "type_2_diabetes", "lab_codes": "hba1c", "lab_minimum": 6.5, "lab_unit": "%"}


@pytest.fixture(scope="module")
def template(project) -> LoadedTemplate:
    return load_template("observational_cohort", project.templates)


def resolve(template, **values):
    text = "study: s\nparameters:\n" + "".join(f"  {name}: x\n" for name in values)
    return template.resolve(values, Document.parse(text, "s.yaml"), ("parameters",))


def test_defaults_fill_what_a_study_leaves_out(template):
    resolved = resolve(template, **VALUES)
    assert resolved.keys() == template.model.parameters.keys()
    assert (resolved["min_age"], resolved["redaction_policy"]) == (18, None)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        pytest.param(
            {"mn_age": 3},
            "s.yaml:7: The template 'observational_cohort' has no parameter 'mn_age'.\n"
            "  -> Did you mean 'min_age'?",
            id="unknown",
        ),
        pytest.param(
            {"lab_codes": None},
            "s.yaml:4: Parameter 'lab_codes': a value is required.\n"
            "  -> Value set of the laboratory test that confirms it",
            id="missing",
        ),
        pytest.param(
            {"lab_minimum": "6.5"},
            "s.yaml:5: Parameter 'lab_minimum': a value of type number is required.\n"
            "  -> Least result that confirms, in the unit of lab_unit",
            id="text for a number",
        ),
        pytest.param(
            {"min_age": -1},
            "s.yaml:7: Parameter 'min_age': the value must be at least 0.\n"
            "  -> Least age at the index date, in years",
            id="too small",
        ),
        pytest.param(
            {"max_age": 121},
            "s.yaml:7: Parameter 'max_age': the value must be at most 120.\n"
            "  -> Greatest age at the index date, in years",
            id="too great",
        ),
        pytest.param(
            {"level": "grup"},
            "s.yaml:7: Parameter 'level': the value must be one of system, patient, group.\n"
            "  -> Bulk Data export level",
            id="not an option",
        ),
        pytest.param(
            {"views": ["patient", 3]},
            "s.yaml:7: Parameter 'views': a list of texts is required.\n"
            "  -> Views to publish, each as a dataset",
            id="list of other things",
        ),
    ],
)
def test_a_wrong_value_is_refused_with_its_line(template, values, message):
    with pytest.raises(StudyError) as caught:
        resolve(template, **(VALUES | values))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("integer", True),
        ("number", False),
        ("integer", 1.5),
        ("boolean", 1),
        ("string", 1),
        ("list", "a"),
        ("number", "1"),
    ],
)
def test_types_are_not_bent(kind, value):
    with pytest.raises(ValueError, match=f"type {kind}"):
        Parameter(type=kind, help="h").check(value)


def test_a_template_whose_default_is_out_of_range_is_refused():
    with pytest.raises(ValueError, match="at least 3"):
        Parameter(type="integer", help="h", default=1, minimum=3)


def test_fill_types_values_and_reports_the_templates_line(template):
    spec = template.fill(resolve(template, **VALUES, max_age=89))
    assert spec.cohort.inclusion[1].at_most == 89
    assert spec.cohort.inclusion[0].value.at_least == 6.5
    assert spec.views[0] == "patient"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "occurrence: first",
            "occurence: first",
            "Unknown key 'occurence'.\n  -> Did you mean 'occurrence'?",
        ),
        ("at_most: ${max_age}", "at_mst: 3", "Unknown key 'at_mst'.\n  -> Did you mean 'at_most'?"),
        ("prefix: icd10cm", "prefx: icd10cm", "Unknown key 'prefx'.\n  -> Did you mean 'prefix'?"),
        ("views: ${views}", "viws: ${views}", "Unknown key 'viws'.\n  -> Did you mean 'views'?"),
        ("${min_age}", "${mn_age}", "'${mn_age}' is not a parameter of this template."),
        ("kind: age", "kind: aeg", "does not match any of the expected tags: 'observed'"),
        ("group: ${group}", "groups: ${group}", "Unknown key 'groups'.\n  -> Did you mean 'group'?"),
    ],
)
def test_a_typo_in_a_templates_workflow_is_shown_with_its_line(project, old, new, message):
    text = (project.templates / "observational_cohort.yaml").read_text()
    assert old in text
    text = text.replace(old, new)
    line = text[: text.index(new)].count("\n") + 1
    document = Document.parse(text, "t.yaml")
    template = LoadedTemplate(document.validate(Template), document)
    with pytest.raises(StudyError) as caught:
        template.fill(resolve(template, **VALUES))
    assert message in str(caught.value)
    assert caught.value.place == f"t.yaml:{line}"


def test_an_unknown_template_is_answered_with_the_nearest(project):
    with pytest.raises(StudyError, match=r"No template 'lab_registy'.\n  -> Did you mean 'lab_registry'\?"):
        load_template("lab_registy", project.templates)


def test_a_template_is_named_like_its_file(project, tmp_path):
    shutil.copy(project.templates / "lab_registry.yaml", tmp_path / "other.yaml")
    with pytest.raises(StudyError, match=r"other\.yaml:2: The template calls itself 'lab_registry'"):
        load_template("other", tmp_path)
