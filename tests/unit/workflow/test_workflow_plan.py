"""Plans: what a study compiles to, and what never compiles."""

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohortflow.errors import CatalogError, PolicyError, StudyError, UnknownEnvironmentError
from cohortflow.workflow.graph import draw_mermaid
from cohortflow.workflow.plan import Step, StepKind, check_safety, compile_plan

STUDIES = ("diabetes_nightly", "kidney_lab_registry")
ENVIRONMENTS = ("dev", "staging", "prod")
GATES = {
    StepKind.ASSESS: "an assessment of the risk",
    StepKind.VALIDATE: "a validation",
    StepKind.SCAN: "a scan for leaks",
}


def compile_study(project, name=STUDIES[0], environment="dev", **overrides):
    return compile_plan(project.load_study(name), environment, project, overrides)


@pytest.fixture(scope="module")
def plans(project):
    return {name: compile_study(project, name) for name in STUDIES}


def rewrite(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_every_shipped_study_is_tested_here(project):
    assert [path.stem for path in project.study_files()] == list(STUDIES)
    assert project.catalog.names("environments") == sorted(ENVIRONMENTS)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
@pytest.mark.parametrize("name", STUDIES)
class TestShippedStudies:
    def test_compile_with_the_policy_of_the_environment(self, project, name, environment):
        plan = compile_study(project, name, environment)
        assert plan.name == name
        assert plan.environment.environment == environment
        assert plan.policy.name == plan.environment.redaction

    def test_steps_come_after_what_they_need(self, project, name, environment):
        seen = set()
        for step in compile_study(project, name, environment).steps:
            assert set(step.needs) <= seen
            assert step.id not in seen
            seen.add(step.id)

    def test_no_dataset_lands_before_all_have_passed_every_gate(self, project, name, environment):
        plan = compile_study(project, name, environment)
        gates = ["assess_risk", "validate", "scan_for_leaks"]
        landings = [step for step in plan.steps if step.kind is StepKind.LAND]
        assert {step.view for step in landings} == {"cohort", *plan.spec.views}
        assert all(step.needs == (gates[-1],) for step in landings)
        assert [plan.step(gate).needs for gate in gates[1:]] == [("assess_risk",), ("validate",)]

    def test_intermediates_are_removed_last(self, project, name, environment):
        plan = compile_study(project, name, environment)
        assert plan.steps[-1].kind is StepKind.CLEAN
        assert plan.steps[-1].needs == ("release",)

    def test_no_column_leaves_without_a_decision(self, project, name, environment):
        plan = compile_study(project, name, environment)
        for dataset in plan.datasets.values():
            decided = [entry.column.name for entry in dataset.redaction.columns]
            assert decided == [column.name for column in dataset.columns]
            assert all(entry.reason for entry in dataset.redaction.columns)

    def test_the_picture_shows_every_step(self, project, name, environment):
        plan = compile_study(project, name, environment)
        picture = draw_mermaid(plan)
        assert picture.startswith("flowchart LR\n")
        assert all(f"    {step.id.replace('.', '_')}[" in picture for step in plan.steps)
        assert picture.count("subgraph") == picture.count("\n    end\n") == len(plan.spec.views) + 1


def test_dev_publishes_no_direct_identifier_and_no_exact_date(project):
    plan = compile_study(project)
    published = {column.name for column in plan.datasets["patient"].output_columns}
    assert published.isdisjoint(
        {"mrn", "ssn", "family_name", "given_name", "phone", "email", "address_line", "city", "birth_date"}
    )
    assert all(
        column.type not in ("date", "datetime")
        for dataset in plan.datasets.values()
        for column in dataset.output_columns
    )


class TestSafety:
    def test_a_landing_without_redaction_does_not_compile(self):
        steps = (Step(StepKind.VALIDATE), Step(StepKind.LAND, "a", ("validate",)))
        with pytest.raises(PolicyError) as caught:
            check_safety(steps)
        assert str(caught.value) == (
            "land.a: The plan lands 'a' without its redaction before it.\n"
            "  -> Put the landing downstream of redaction and of every gate behind it."
        )

    def test_the_redaction_of_another_dataset_does_not_count(self):
        steps = (
            Step(StepKind.REDACT, "b"),
            Step(StepKind.VALIDATE, needs=("redact.b",)),
            Step(StepKind.LAND, "a", ("validate",)),
        )
        with pytest.raises(PolicyError, match="lands 'a' without its redaction"):
            check_safety(steps)

    @given(data=st.data())
    def test_no_edge_of_redaction_or_validation_can_be_removed(self, plans, data):
        plan = plans[data.draw(st.sampled_from(STUDIES))]
        check_safety(plan.steps)
        view = data.draw(st.sampled_from([step.view for step in plan.steps if step.kind is StepKind.LAND]))
        behind = [step for step in plan.steps if step.kind in GATES or step.id == f"land.{view}"]
        edges = [(step.id, need) for step in behind for need in step.needs]
        cut = data.draw(
            st.sampled_from([edge for edge in edges if edge[1] == f"redact.{view}" or edge[1] in GATES])
        )
        steps = tuple(
            dataclasses.replace(step, needs=tuple(need for need in step.needs if need != cut[1]))
            if step.id == cut[0]
            else step
            for step in plan.steps
        )
        shared = cut[0] in GATES and cut[1] in GATES  # then no dataset may land, and the first is named
        with pytest.raises(PolicyError, match=f"lands '{plan.published[0] if shared else view}' without"):
            check_safety(steps)

    @given(data=st.data())
    def test_no_step_of_redaction_or_validation_can_be_left_out(self, plans, data):
        plan = plans[data.draw(st.sampled_from(STUDIES))]
        gone = data.draw(st.sampled_from([s for s in plan.steps if s.kind in (StepKind.REDACT, *GATES)]))
        steps = tuple(
            dataclasses.replace(
                step,
                needs=tuple(n for need in step.needs for n in (gone.needs if need == gone.id else (need,))),
            )
            for step in plan.steps
            if step is not gone
        )
        fault = f"lands '{gone.view}' without its redaction" if gone.view else f"without {GATES[gone.kind]}"
        with pytest.raises(PolicyError, match=fault):
            check_safety(steps)


class TestEnvironment:
    def test_an_unknown_one_is_refused_with_the_nearest_name(self, project):
        with pytest.raises(UnknownEnvironmentError, match="Unknown environment 'prd'") as caught:
            compile_study(project, environment="prd")
        assert caught.value.remedy == "Did you mean 'prod'?"

    @pytest.mark.parametrize(
        ("environment", "policy", "allowed"),
        [
            ("dev", "safe_harbor", True),
            ("dev", "shifted_dates", False),
            ("dev", "limited_dataset", False),
            ("staging", "shifted_dates", True),
            ("staging", "limited_dataset", True),
            ("prod", "shifted_dates", False),
            ("prod", "limited_dataset", False),
            ("prod", "safe_harbor", True),
        ],
    )
    def test_a_weaker_policy_is_refused(self, project_copy, environment, policy, allowed):
        rewrite(
            project_copy.root / "dags/studies/diabetes_nightly.yaml",
            "parameters:\n",
            f"parameters:\n  redaction_policy: {policy}\n",
        )
        if allowed:
            assert compile_study(project_copy, environment=environment).policy.name == policy
        else:
            with pytest.raises(PolicyError, match=f"'{environment}' allows no redaction weaker than"):
                compile_study(project_copy, environment=environment)

    def test_a_typo_in_its_file_is_shown_with_its_line(self, project_copy):
        path = project_copy.catalog.path("environments", "dev")
        rewrite(path, "key_connection", "key_conection")
        with pytest.raises(StudyError, match=r"dev\.yaml:7: Unknown key 'key_conection'"):
            compile_study(project_copy)


class TestVariant:
    def test_a_study_with_its_own_parameters_has_none(self, project):
        plan = compile_study(project, min_age=18)
        assert (plan.variant, plan.name) == ("", "diabetes_nightly")

    @settings(max_examples=10)
    @given(age=st.integers(0, 80), other=st.integers(0, 80))
    def test_it_is_the_same_only_for_the_same_parameters(self, project, age, other):
        first, second = (compile_study(project, min_age=value) for value in (age, other))
        assert (first.name == second.name) == (age == other)
        assert (first.digest == second.digest) == (age == other)
        assert (first.variant == "") == (age == 18)


class TestDigest:
    def test_equal_inputs_give_equal_digests(self, project, project_copy):
        assert compile_study(project).digest == compile_study(project_copy).digest

    def test_environments_differ(self, project):
        assert len({compile_study(project, environment=name).digest for name in ENVIRONMENTS}) == 3

    @pytest.mark.parametrize(
        ("kind", "name"),
        [
            ("views", "condition"),
            ("valuesets", "type_2_diabetes"),
            ("valuesets", "hba1c"),
            ("conceptmaps", "snomed_to_icd10cm"),
            ("conceptmaps", "rxnorm_to_ingredient"),
        ],
    )
    def test_it_follows_the_catalog_entries_that_the_study_uses(self, project_copy, kind, name):
        before = compile_study(project_copy).digest
        path = project_copy.catalog.path(kind, name)
        document = json.loads(path.read_text())
        path.write_text(json.dumps(document, indent=7))
        assert compile_study(project_copy).digest == before, "layout is no content"
        path.write_text(json.dumps(document | {"description": "changed"}))
        assert compile_study(project_copy).digest != before

    def test_it_follows_the_policy_and_the_expectations(self, project_copy):
        digests = {compile_study(project_copy).digest}
        rewrite(project_copy.catalog.path("redaction", "safe_harbor"), "  NUMBER: keep", "  NUMBER: drop")
        digests.add(compile_study(project_copy).digest)
        path = project_copy.catalog.path("expectations", "condition")
        suite = json.loads(path.read_text())
        suite["expectations"] = suite["expectations"][1:]
        path.write_text(json.dumps(suite))
        digests.add(compile_study(project_copy).digest)
        assert len(digests) == 3

    def test_it_ignores_entries_that_the_study_does_not_use(self, project_copy):
        before = compile_study(project_copy).digest
        path = project_copy.catalog.path("valuesets", "asthma")
        path.write_text(json.dumps(json.loads(path.read_text()) | {"description": "changed"}))
        assert compile_study(project_copy).digest == before


class TestNames:
    def template(self, project):
        return project.templates / "observational_cohort.yaml"

    def test_a_missing_value_set_is_answered_with_the_nearest(self, project):
        with pytest.raises(CatalogError, match="No entry 'hba1'") as caught:
            compile_study(project, lab_codes="hba1")
        assert caught.value.remedy == "Did you mean 'hba1c'?"

    def test_a_parameter_cannot_reach_outside_the_catalog(self, project):
        with pytest.raises(CatalogError, match="No entry"):
            compile_study(project, lab_codes="../environments/dev")

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("    medication_request:\n", "    medication_requst:\n", "'maps' names 'medication_requst'"),
            ("    observation: [category_code]", "    observatio: [category_code]", "'partition_by' names"),
            ("[category_code]", "[categry_code]", "'partition_by.observation' names 'categry_code'"),
            ("prefix: ingredient", "prefix: ingredient\n        code: cod", "reads the column 'cod'"),
        ],
    )
    def test_a_setting_for_what_is_not_there_is_refused(self, project_copy, old, new, message):
        rewrite(self.template(project_copy), old, new)
        with pytest.raises(StudyError, match=r"observational_cohort\.yaml") as caught:
            compile_study(project_copy)
        assert message in caught.value.message
        assert caught.value.remedy.startswith("Did you mean '")

    def test_a_dataset_cannot_be_partitioned_by_a_dropped_column(self, project_copy):
        rewrite(self.template(project_copy), "[category_code]", "[code_display]")
        with pytest.raises(StudyError, match="'code_display', which the redacted dataset does not have"):
            compile_study(project_copy)
