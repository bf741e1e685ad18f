"""What environment, template and study say of exclusions becomes one plan, or is refused."""

import json

import pytest
import yaml

from cohortflow.errors import CatalogError, StudyError
from cohortflow.workflow.exclusion_spec import ExclusionsSpec
from cohortflow.workflow.plan import compile_plan

STUDY = "diabetes_nightly"


@pytest.fixture
def plan(project_copy):
    """Compiles the nightly study with other exclusions."""

    def work(exclusions=None, environment="dev", template=None, least=None):
        path = project_copy.root / "dags/studies" / f"{STUDY}.yaml"
        document = yaml.safe_load(path.read_text())
        path.write_text(yaml.safe_dump(document | {"exclusions": exclusions or {}}))
        if template is not None:
            file = project_copy.templates / "observational_cohort.yaml"
            document = yaml.safe_load(file.read_text())
            document["workflow"]["exclusions"] = template
            file.write_text(yaml.safe_dump(document))
        if least is not None:
            file = project_copy.root / f"include/catalog/environments/{environment}.yaml"
            document = yaml.safe_load(file.read_text())
            file.write_text(yaml.safe_dump(document | {"exclusions": least}))
        return compile_plan(project_copy.load_study(STUDY), environment, project_copy)

    return work


def test_nothing_is_left_out_unless_somebody_asks_for_it(plan):
    made = plan()
    assert not made.exclusions
    assert made.exclusions.resource_types == set()
    assert made.exclusions.describe() == {
        "consent": None,
        "without_consents": None,
        "labels": [],
        "vip": None,
        "minors": None,
    }


def test_production_asks_for_consents_and_labels_of_every_study(plan):
    made = plan(environment="prod")
    assert made.exclusions.consent == "opt_out"
    assert {rule.value_set for rule in made.exclusions.labels} >= {
        "sensitivity_42cfr_part2",
        "sensitivity_hiv",
        "sensitivity_mental_health",
    }
    assert made.exclusions.resource_types == {"Consent", "Patient"}


def test_the_strictest_of_environment_template_and_study_holds(plan):
    hiv, restricted = "sensitivity_hiv", "confidentiality_restricted"
    made = plan(
        {
            "consent": "opt_out",
            "labels": [{"value_set": hiv, "action": "mask"}],
            "minors": {"below": 16, "action": "exclude_patient"},
            "vip": {"list": "a.txt", "action": "mask"},
        },
        template={"labels": [{"value_set": hiv, "action": "exclude_patient"}], "vip": {"variable": "people"}},
        least={
            "consent": "opt_in",
            "minors": {"below": 18, "action": "mask"},
            "labels": [{"value_set": restricted, "action": "exclude_record"}],
        },
    ).exclusions
    assert made.consent == "opt_in"
    assert [(rule.value_set, rule.action) for rule in made.labels] == [
        (hiv, "exclude_patient"),
        (restricted, "exclude_record"),
    ]
    assert (made.minors_below, made.minors_action) == (18, "exclude_patient")
    assert made.vip_action == "exclude_patient"
    assert {(place.path, place.variable) for place in made.lists} == {("a.txt", ""), ("", "people")}
    assert made.describe()["vip"] == {"lists": 2, "action": "exclude_patient"}
    assert "a.txt" not in json.dumps(made.describe())


def test_exclusions_change_the_plans_digest(plan):
    assert len({plan().digest, plan({"consent": "opt_out"}).digest, plan({"minors": {}}).digest}) == 3


@pytest.mark.parametrize(
    ("exclusions", "message"),
    [
        ({"consent": "maybe"}, "exclusions.consent"),
        ({"consents": "opt_out"}, "Unknown key 'consents'"),
        ({"labels": [{"value_set": "sensitivity_hiv", "action": "drop"}]}, "action"),
        ({"labels": [{"action": "mask"}]}, "value_set"),
        ({"vip": {"list": "a", "variable": "b"}}, "not in both"),
        ({"vip": {"labels": None}}, "is needed"),
        ({"vip": {"list": "../people.txt"}}, "must not lead out"),
        ({"vip": {"action": "exclude_record"}}, "action"),
        ({"minors": {"below": 0}}, "below"),
        ({"elderly": {}}, "Unknown key 'elderly'"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_line(plan, exclusions, message):
    with pytest.raises(StudyError, match=message) as caught:
        plan(exclusions)
    assert f"{STUDY}.yaml:" in str(caught.value)


def test_an_unknown_value_set_is_refused_with_the_nearest_name(plan):
    with pytest.raises(CatalogError, match="sensitivity_hiv"):
        plan({"labels": [{"value_set": "sensitivity_hivv"}]})


def test_a_value_set_of_patterns_is_no_list_of_labels(plan):
    with pytest.raises(StudyError, match="does not list its codes"):
        plan({"labels": [{"value_set": "asthma"}]})


def test_masking_what_must_not_be_missing_is_refused(plan, project_copy):
    path = project_copy.root / "include/catalog/expectations/condition.json"
    suite = json.loads(path.read_text())
    suite["expectations"].append(
        {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "code"}, "severity": "critical"}
    )
    path.write_text(json.dumps(suite))
    rule = {"value_set": "sensitivity_hiv", "action": "mask"}
    with pytest.raises(StudyError, match=r"masks 'condition\.code'"):
        plan({"labels": [rule]})
    assert plan({"labels": [rule | {"action": "exclude_record"}]}).exclusions


def test_the_shipped_label_sets_list_their_codes(plan, project):
    names = [
        name
        for name in project.catalog.names("valuesets")
        if name.startswith(("sensitivity", "confidential"))
    ]
    made = plan({"labels": [{"value_set": name, "action": "exclude_record"} for name in names]}).exclusions
    assert len(made.labels) == len(names) >= 7
    assert all(rule.codes for rule in made.labels)


def test_the_environment_says_it_in_the_same_words(project):
    document = yaml.safe_load(project.catalog.path("environments", "prod").read_text())
    assert ExclusionsSpec.model_validate(document["exclusions"]).consent == "opt_out"


def test_a_dataset_that_does_not_say_whose_its_rows_are_is_refused(plan, project_copy):
    path = project_copy.root / "include/catalog/views/procedure.json"
    view = json.loads(path.read_text())
    for select in view["select"]:
        select["column"] = [one for one in select["column"] if one["name"] != "patient_id"]
    path.write_text(json.dumps(view))
    suite = project_copy.root / "include/catalog/expectations/procedure.json"
    suite.write_text(json.dumps({"name": "procedure", "expectations": []}))
    assert not plan({}).exclusions
    for rule in ({"consent": "opt_out"}, {"labels": [{"value_set": "sensitivity_hiv"}]}):
        with pytest.raises(StudyError, match="'procedure' does not say whose"):
            plan(rule)


def test_a_dataset_that_names_patients_only_in_passing_is_refused(plan, project_copy):
    view = {
        "resourceType": "ViewDefinition",
        "name": "procedure",
        "status": "active",
        "resource": "Group",
        "select": [
            {"column": [{"name": "procedure_id", "path": "getResourceKey()"}]},
            {
                "forEach": "member",
                "column": [{"name": "patient_id", "path": "entity.getReferenceKey(Patient)"}],
            },
        ],
    }
    (project_copy.root / "include/catalog/views/procedure.json").write_text(json.dumps(view))
    suite = project_copy.root / "include/catalog/expectations/procedure.json"
    suite.write_text(json.dumps({"name": "procedure", "expectations": []}))
    with pytest.raises(StudyError, match="'procedure' does not say whose"):
        plan({"minors": {}})


@pytest.mark.parametrize(
    ("study", "least", "wanted"),
    [
        ({"consent": "opt_out"}, None, "stop"),
        ({"consent": "opt_out", "without_consents": "publish"}, None, "publish"),
        ({"consent": "opt_out", "without_consents": "publish"}, {"consent": "opt_out"}, "stop"),
        ({"without_consents": "publish"}, {"consent": "opt_out"}, "stop"),
        ({"consent": "opt_in"}, {"consent": "opt_out", "without_consents": "publish"}, "stop"),
        ({}, {"consent": "opt_out", "without_consents": "publish"}, "publish"),
        ({"minors": {}}, {"consent": "opt_out", "without_consents": "publish"}, "publish"),
    ],
)
def test_an_export_without_consents_counts_only_where_everybody_says_so(plan, study, least, wanted):
    assert plan(study, least=least).exclusions.without_consents == wanted


def test_the_label_for_labels_within_a_record_counts_as_every_label(plan):
    made = plan({"labels": [{"value_set": "sensitivity_hiv"}, {"value_set": "sensitivity_genetics"}]})
    inline = "http://terminology.hl7.org/CodeSystem/v3-ActCode|PROCESSINLINELABEL"
    assert all(inline in rule.codes for rule in made.exclusions.labels)


def test_people_read_what_is_left_out(plan):
    made = plan({"consent": "opt_in", "minors": {}, "vip": {}, "labels": [{"value_set": "sensitivity_hiv"}]})
    assert made.exclusions.explain() == [
        ("who did not opt in by Consent", "exclude_patient"),
        ("people on 0 lists, or marked as protected", "exclude_patient"),
        ("people younger than 18 or of unknown age", "exclude_patient"),
        ("records labelled: HIV and AIDS", "exclude_record"),
    ]
