"""Plans: one study in one environment, compiled to a checked graph of steps.

Compiling reads the study, its template, the environment and the catalog, and nothing else: no
network, no data, no Polars. What is wrong is found here, before anything starts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from cohortflow import __version__
from cohortflow.errors import PolicyError, StudyError
from cohortflow.model import Catalog
from cohortflow.redaction.policy import RedactionPolicy
from cohortflow.workflow.datasets import COHORT_DATASET, DatasetPlan, plan_datasets
from cohortflow.workflow.document import nearest
from cohortflow.workflow.environment import Environment, load_environment
from cohortflow.workflow.exclusion_plan import ExclusionPlan, plan_exclusions
from cohortflow.workflow.permission import choose_policy
from cohortflow.workflow.risk_plan import RiskPlan, plan_risk
from cohortflow.workflow.spec import WorkflowSpec
from cohortflow.workflow.study import Approval, LoadedStudy, Project

__all__ = ["Plan", "Step", "StepKind", "check_safety", "compile_plan"]


class StepKind(StrEnum):
    """What a step does, in the order of the pipeline."""

    EXTRACT = "extract"
    EXTRACT_SQL = "extract_sql"
    WITHDRAW = "withdraw"
    TRANSFORM = "transform"
    SELECT = "select_cohort"
    MAP = "map"
    REDACT = "redact"
    ASSESS = "assess_risk"
    VALIDATE = "validate"
    SCAN = "scan_for_leaks"
    LAND = "land"
    RELEASE = "release"
    CLEAN = "clean"


@dataclass(frozen=True, slots=True)
class Step:
    """A node of the graph.

    Attributes:
        kind: What it does.
        view: The dataset that it works on; empty for steps over all of them.
        needs: Ids of the steps that come before it.
    """

    kind: StepKind
    view: str = ""
    needs: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """Id, unique in a plan: ``redact.condition``."""
        return f"{self.kind}.{self.view}" if self.view else str(self.kind)


@dataclass(frozen=True, slots=True)
class Plan:
    """A compiled study.

    Attributes:
        study: The study's name.
        variant: Empty for the study's own parameters; otherwise eight hex digits of the changed ones,
            so that a trial run never replaces the study's datasets.
        title: One line.
        environment: Where it runs.
        parameters: All parameters' values.
        spec: The filled workflow.
        policy: How datasets are de-identified.
        approval: What a review board has approved, where the environment asks for that.
        datasets: Per view, its columns through every step.
        risk: What others may know of the subjects, and what is demanded of it.
        exclusions: Who and what is left out.
        steps: The graph in an order that respects ``needs``.
        digest: SHA-256 of everything that decides the rows, except the data.
    """

    study: str
    variant: str
    title: str
    environment: Environment
    parameters: Mapping[str, Any]
    spec: WorkflowSpec
    policy: RedactionPolicy
    approval: Approval | None
    datasets: Mapping[str, DatasetPlan]
    risk: RiskPlan
    exclusions: ExclusionPlan
    steps: tuple[Step, ...]
    digest: str

    @property
    def published(self) -> tuple[str, ...]:
        """Names of the datasets that land, in their order."""
        return tuple(step.view for step in self.steps if step.kind is StepKind.LAND)

    @property
    def name(self) -> str:
        """The study's name with its variant: the identity of its datasets."""
        return f"{self.study}~{self.variant}" if self.variant else self.study

    @property
    def extract_pool(self) -> str:
        """Airflow pool of the extract task."""
        source = self.spec.source
        return source.pool or self.environment.extract_pool.replace("{connection}", source.connection)

    def step(self, step_id: str) -> Step:
        """Return a step by id."""
        return next(step for step in self.steps if step.id == step_id)


def compile_plan(
    study: LoadedStudy,
    environment: str,
    project: Project,
    overrides: Mapping[str, Any] | None = None,
) -> Plan:
    """Compile a study.

    Args:
        study: The study.
        environment: Name of the environment.
        project: Where catalog and templates are.
        overrides: Parameters that this run changes.

    Raises:
        StudyError: The study, its template or its parameters are wrong.
        CatalogError: The catalog lacks what they name.
        ViewError: A view is wrong.
        PolicyError: The redaction is weaker than the environment allows, or a column's is wrong.
        UnknownEnvironmentError: There is no such environment.
    """
    catalog = project.catalog
    bound = load_environment(environment, catalog)
    base = study.resolve()
    parameters = study.resolve(overrides)
    spec = study.template.fill(parameters)
    _check_names(spec, study, catalog)
    approval = study.model.approval if bound.weakest_approved is not None else None
    policy = choose_policy(spec.redaction, bound, approval, catalog)
    datasets, sources = plan_datasets(spec, policy, catalog, study.template.document.path)
    published = spec.datasets if spec.cohort is None else (COHORT_DATASET, *spec.datasets)
    risk, populations = plan_risk(
        spec.risk, datasets, published, bound, catalog, study.template.document.place(("workflow", "risk"))
    )
    exclusions, labels = plan_exclusions(
        (bound.exclusions, spec.exclusions, study.model.exclusions),
        datasets,
        catalog,
        study.template.document.path,
    )
    steps = _build_steps(spec, published)
    check_safety(steps)
    return Plan(
        study=study.model.study,
        variant="" if parameters == base else _digest(parameters)[:8],
        title=study.model.title,
        environment=bound,
        parameters=parameters,
        spec=spec,
        policy=policy,
        approval=approval,
        datasets=datasets,
        risk=risk,
        exclusions=exclusions,
        steps=steps,
        digest=_digest(
            {
                "version": __version__,
                "study": study.model.study,
                "environment": bound.model_dump(mode="json"),
                "policy": policy.model_dump(mode="json"),
                "spec": spec.model_dump(mode="json"),
                "exclusions": study.model.exclusions.model_dump(mode="json"),
                "catalog": sources | populations | labels,
            }
        ),
    )


def _check_names(spec: WorkflowSpec, study: LoadedStudy, catalog: Catalog) -> None:
    """Refuse settings for views that the catalog does not have.

    Settings for views that this study leaves out are fine: its template may serve others.
    """
    places: dict[str, Mapping[str, Any]] = {
        "maps": spec.maps,
        "units": spec.units,
        "partition_by": spec.partition_by,
        "redaction.overrides": spec.redaction.overrides,
        "quality.expectations": spec.quality.expectations,
    }
    known = [COHORT_DATASET, *catalog.names("views"), *catalog.names("queries")]
    document = study.template.document
    for place, settings in places.items():
        for view in settings:
            if view not in known:
                raise StudyError(
                    f"'{place}' names '{view}', which is not a view of the catalog.",
                    place=document.place(("workflow", *place.split("."), view)),
                    remedy=nearest(view, known, "view"),
                )


def _build_steps(spec: WorkflowSpec, published: tuple[str, ...]) -> tuple[Step, ...]:
    # Deletions reach what was published before anything can fail for the new data's sake.
    steps = [
        Step(StepKind.EXTRACT),
        Step(StepKind.WITHDRAW, needs=("extract",)),
    ]
    if spec.sql is not None:
        steps.append(Step(StepKind.EXTRACT_SQL))
    steps.append(
        Step(StepKind.TRANSFORM, needs=("withdraw",) if spec.sql is None else ("withdraw", "extract_sql"))
    )
    if spec.cohort is not None:
        steps.append(Step(StepKind.SELECT, needs=("transform",)))
    shared = steps[-1].id
    for view in published:
        last = shared
        mapped = spec.maps.get(view) or spec.units.get(view)
        for kind in (StepKind.MAP, StepKind.REDACT) if mapped else (StepKind.REDACT,):
            steps.append(Step(kind, view, (last,)))
            last = steps[-1].id
    redacted = tuple(f"{StepKind.REDACT}.{view}" for view in published)
    # The datasets together tell who a subject is, so they are assessed together.
    assess = Step(StepKind.ASSESS, needs=redacted)
    # Every dataset must be valid before the first one lands.
    validate = Step(StepKind.VALIDATE, needs=(assess.id,))
    # Reports of the steps before it are published as well, so it comes last.
    scan = Step(StepKind.SCAN, needs=(validate.id,))
    landed = [Step(StepKind.LAND, view, (scan.id,)) for view in published]
    steps.extend([assess, validate, scan, *landed])
    steps.append(Step(StepKind.RELEASE, needs=tuple(step.id for step in landed)))
    steps.append(Step(StepKind.CLEAN, needs=("release",)))
    return tuple(steps)


_GATES: Mapping[StepKind, str] = MappingProxyType(
    {
        StepKind.ASSESS: "an assessment of the risk of what was redacted",
        StepKind.VALIDATE: "a validation of what was redacted",
        StepKind.SCAN: "a scan for leaks in what was redacted",
    }
)
"""Steps that must see a redacted dataset before it lands, and how a missing one is named."""


def check_safety(steps: tuple[Step, ...]) -> None:
    """Check that nothing is published that did not pass every gate.

    Raises:
        PolicyError: A landing does not come after the redaction of its dataset and the gates behind it.
    """
    by_id = {step.id: step for step in steps}

    def upstream(step_id: str, seen: set[str]) -> set[str]:
        for needed in by_id[step_id].needs:
            if needed not in seen:
                seen.add(needed)
                upstream(needed, seen)
        return seen

    for step in steps:
        if step.kind is not StepKind.LAND:
            continue
        before = upstream(step.id, set())
        redact = f"{StepKind.REDACT}.{step.view}"
        passed = {by_id[needed].kind for needed in before if redact in upstream(needed, set())}
        if redact not in before:
            missing = "its redaction"
        elif gates := [text for kind, text in _GATES.items() if kind not in passed]:
            missing = gates[0]
        else:
            continue
        raise PolicyError(
            f"The plan lands '{step.view}' without {missing} before it.",
            place=step.id,
            remedy="Put the landing downstream of redaction and of every gate behind it.",
        )


def _digest(value: Any) -> str:  # noqa: ANN401  # any JSON-ready value
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
