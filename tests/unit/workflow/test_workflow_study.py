"""Study files: one per study, named like it; runs change only what the template lets them."""

import pytest

from cohortflow.errors import StudyError

NAME = "diabetes_nightly"


def rewrite(project, old, new, name=NAME):
    path = project.root / "dags" / "studies" / f"{name}.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return text[: text.index(old)].count("\n") + 1


def test_a_study_is_loaded_by_name_and_by_file(project):
    by_name = project.load_study(NAME)
    by_file = project.load_study(project.root / "dags" / "studies" / f"{NAME}.yaml")
    assert by_name.model == by_file.model
    assert by_name.resolve()["lab_minimum"] == 6.5


def test_the_project_is_found_by_its_environment_variable(project_copy):
    assert type(project_copy).default() == project_copy
    assert project_copy.catalog.root == project_copy.root / "include" / "catalog"


def test_a_study_is_named_like_its_file(project_copy):
    line = rewrite(project_copy, f"study: {NAME}", "study: other_name")
    with pytest.raises(StudyError) as caught:
        project_copy.load_study(NAME)
    assert str(caught.value).endswith(
        f"{NAME}.yaml:{line}: The study calls itself 'other_name'.\n  -> Name it '{NAME}', like its file."
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("owner:", "ownr:", "Unknown key 'ownr'.\n  -> Did you mean 'owner'?"),
        ('"0 2 * * *"', '"0 2 * *"', "'schedule': not a cron expression such as '0 2 * * *'."),
        (f"study: {NAME}", "study: Diabetes-Nightly", "'study': String should match pattern"),
        ("2026-11-01", "soon", "'start_date': Input should be a valid date"),
        ("template: observational_cohort", "template: observational_cohrt", "'observational_cohort'?"),
    ],
)
def test_a_typo_is_shown_with_what_is_right(project_copy, old, new, message):
    line = rewrite(project_copy, old, new)
    with pytest.raises(StudyError) as caught:
        project_copy.load_study(NAME)
    assert message in str(caught.value)
    if "template" not in old:
        assert caught.value.place.endswith(f"{NAME}.yaml:{line}")


def test_a_run_changes_runtime_parameters(project):
    resolved = project.load_study(NAME).resolve({"min_age": 40})
    assert resolved["min_age"] == 40
    assert resolved["max_age"] == 89


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"source": "other"}, "A run cannot change source."),
        ({"views": ["patient"], "level": "system"}, "A run cannot change level, views."),
        ({"redaction_policy": "limited_dataset"}, "A run cannot change redaction_policy."),
        ({"min_aeg": 40}, "has no parameter 'min_aeg'.\n  -> Did you mean 'min_age'?"),
        ({"min_age": 400}, "the run's parameters: Parameter 'min_age': the value must be at most 120."),
    ],
)
def test_a_run_cannot_change_the_rest(project, overrides, message):
    with pytest.raises(StudyError) as caught:
        project.load_study(NAME).resolve(overrides)
    assert message in str(caught.value)


def test_a_fixed_parameter_may_be_given_with_its_own_value(project):
    study = project.load_study(NAME)
    assert study.resolve({"source": study.resolve()["source"]}) == study.resolve()
