"""What a study may do: approvals, synthetic sources, settings of policies."""

import dataclasses
import json
from datetime import date

import pytest

from cohortflow.errors import CatalogError, PolicyError, StudyError
from cohortflow.model import EnvDeployment
from cohortflow.workflow.permission import check_permission, keeps_one_interval
from cohortflow.workflow.plan import compile_plan
from cohortflow.workflow.spec import SqlSpec

STUDY = "diabetes_nightly"
APPROVAL = "approval: {number: IRB-2026-17, policy: POLICY, until: 2026-12-31}\n"


@pytest.fixture
def compile_with(project_copy):
    """Compile the study with an approval and a policy of its own."""

    def compile_study(environment, approved="", policy="", settings=""):
        path = project_copy.root / "dags" / "studies" / f"{STUDY}.yaml"
        text = path.read_text()
        if approved:
            text = text.replace("parameters:\n", f"{APPROVAL.replace('POLICY', approved)}parameters:\n")
        if policy:
            text = text.replace("parameters:\n", f"parameters:\n  redaction_policy: {policy}\n")
        path.write_text(text)
        if settings:
            template = project_copy.templates / "observational_cohort.yaml"
            template.write_text(
                template.read_text().replace("  redaction:\n", f"  redaction:\n    settings: {settings}\n")
            )
        return compile_plan(project_copy.load_study(STUDY), environment, project_copy)

    return compile_study


class TestApproval:
    def test_prod_takes_the_policy_that_was_approved(self, compile_with):
        plan = compile_with("prod", "limited_dataset")
        assert (plan.policy.name, plan.approval.number) == ("limited_dataset", "IRB-2026-17")

    def test_without_one_prod_is_as_strict_as_safe_harbor(self, compile_with):
        assert compile_with("prod").policy.name == "safe_harbor"
        with pytest.raises(PolicyError, match="'prod' allows no redaction weaker than 'safe_harbor'"):
            compile_with("prod", policy="expert")

    def test_a_study_may_be_stricter_than_its_approval(self, compile_with):
        assert compile_with("prod", "limited_dataset", policy="shifted_dates").policy.name == "shifted_dates"

    def test_a_study_may_not_be_weaker_than_its_approval(self, compile_with):
        with pytest.raises(PolicyError, match="weaker than 'expert_determination'"):
            compile_with("prod", "expert", policy="limited_dataset")

    def test_a_study_may_not_take_another_policy_of_the_approved_standard(self, compile_with):
        with pytest.raises(PolicyError, match="approved for policy 'shifted_dates' and names 'expert'"):
            compile_with("prod", "shifted_dates", policy="expert", settings="{shift_days: 1}")

    def test_it_cannot_allow_what_the_environment_never_does(self, compile_with):
        with pytest.raises(PolicyError, match="does not take policy 'synthetic_only'"):
            compile_with("prod", "synthetic_only")

    def test_it_loosens_no_other_environment(self, compile_with):
        plan = compile_with("dev", "limited_dataset")
        assert (plan.policy.name, plan.approval) == ("safe_harbor", None)

    def test_its_policy_must_exist(self, compile_with):
        with pytest.raises(CatalogError, match="No entry 'expart'"):
            compile_with("prod", "expart")

    def test_a_typo_is_shown_with_its_line(self, project_copy, compile_with):
        path = project_copy.root / "dags" / "studies" / f"{STUDY}.yaml"
        path.write_text(
            path.read_text().replace(
                "parameters:\n", "approval: {number: 1a, policy: expert, til: 2026-12-31}\nparameters:\n"
            )
        )
        with pytest.raises(StudyError, match=rf"{STUDY}\.yaml:\d+: Unknown key 'til'"):
            compile_with("prod")

    @pytest.mark.parametrize(("today", "runs"), [(date(2026, 12, 31), True), (date(2027, 1, 1), False)])
    def test_nothing_starts_after_its_last_day(self, compile_with, today, runs):
        plan = compile_with("prod", "expert")
        if runs:
            check_permission(plan, EnvDeployment({}), today=today)
        else:
            with pytest.raises(PolicyError, match=r"Approval IRB-2026-17 of study .* ended on 2026-12-31"):
                check_permission(plan, EnvDeployment({}), today=today)

    def test_no_key_is_given_after_its_last_day(self, compile_with, open_run):
        plan = compile_with("prod", "expert")
        ended = plan.approval.model_copy(update={"until": date(2020, 1, 1)})
        run = dataclasses.replace(open_run(), plan=dataclasses.replace(plan, approval=ended))
        with pytest.raises(PolicyError, match="has ended"):
            run.key  # noqa: B018  # reading it checks the permission


class TestSynthetic:
    @pytest.mark.parametrize("environment", ["staging", "prod"])
    def test_it_is_for_development_only(self, compile_with, environment):
        with pytest.raises(PolicyError, match=f"'{environment}' does not take policy 'synthetic_only'"):
            compile_with(environment, policy="synthetic_only")

    @pytest.mark.parametrize(
        ("extra", "runs"),
        [
            ({}, False),
            ({"synthetic": False}, False),
            ({"synthetic": "false"}, False),
            ({"synthetic": "perhaps"}, False),
            ({"synthetic": True}, True),
            ({"synthetic": "true"}, True),
            ({"synthetic": "labelled"}, True),
        ],
    )
    def test_it_runs_only_on_a_source_that_is_declared_to_be(self, compile_with, extra, runs):
        plan = compile_with("dev", policy="synthetic_only")
        connection = json.dumps({"conn_type": "fhir", "host": "sandbox", "extra": extra})
        deployment = EnvDeployment({"AIRFLOW_CONN_FHIR_DEFAULT": connection})
        if runs:
            check_permission(plan, deployment)
        else:
            with pytest.raises(PolicyError, match="'fhir_default' does not declare that it is one"):
                check_permission(plan, deployment)

    def test_a_database_cannot_show_labels(self, compile_with):
        plan = compile_with("dev", policy="synthetic_only")
        sql = SqlSpec(connection="clarity", queries=("clarity_problem_list",))
        plan = dataclasses.replace(plan, spec=plan.spec.model_copy(update={"sql": sql}))
        fhir = json.dumps({"conn_type": "fhir", "host": "sandbox", "extra": {"synthetic": True}})
        for declared, runs in (("labelled", False), (True, True)):
            database = json.dumps({"conn_type": "postgres", "host": "db", "extra": {"synthetic": declared}})
            deployment = EnvDeployment({"AIRFLOW_CONN_FHIR_DEFAULT": fhir, "AIRFLOW_CONN_CLARITY": database})
            if runs:
                check_permission(plan, deployment)
            else:
                with pytest.raises(PolicyError, match="'clarity' does not declare"):
                    check_permission(plan, deployment)


class TestIntervals:
    @pytest.mark.parametrize(
        ("extra", "one"), [({}, True), ({"synthetic": "labelled"}, True), ({"synthetic": True}, False)]
    )
    def test_several_are_kept_only_of_a_source_without_any_patient(self, compile_with, extra, one):
        """A policy for patients' data does not look whether a record bears the label."""
        plan = compile_with("dev")
        connection = json.dumps({"conn_type": "fhir", "host": "sandbox", "extra": extra})
        assert keeps_one_interval(plan, EnvDeployment({"AIRFLOW_CONN_FHIR_DEFAULT": connection})) is one


class TestSettings:
    def test_an_expert_sets_window_and_days_of_the_week(self, compile_with):
        plan = compile_with("staging", policy="expert", settings="{shift_days: 28, keep_day_of_week: true}")
        assert (plan.policy.shift_days, plan.policy.keep_day_of_week) == (28, True)

    def test_other_policies_are_as_they_are(self, compile_with):
        with pytest.raises(PolicyError, match="'shifted_dates' does not let a study set 'shift_days'"):
            compile_with("staging", settings="{shift_days: 28}")

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ("{age_cap: 95}", "needs an age_cap of at most 89"),
            ("{shift_days: 3, keep_day_of_week: true}", "needs shift_days of at least 7"),
        ],
    )
    def test_a_setting_cannot_break_the_standard(self, compile_with, settings, message):
        with pytest.raises(PolicyError, match=message):
            compile_with("staging", policy="expert", settings=settings)

    def test_settings_change_the_plan(self, compile_with):
        before = compile_with("staging", policy="expert").digest
        assert compile_with("staging", settings="{shift_days: 28}").digest != before
