"""Studies: a template's name and its parameters, one file each."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator

from cohortflow.errors import StudyError
from cohortflow.model import Catalog
from cohortflow.workflow.document import Document, StrictModel
from cohortflow.workflow.exclusion_spec import ExclusionsSpec
from cohortflow.workflow.template import LoadedTemplate, load_template

__all__ = ["Approval", "LoadedStudy", "Project", "Study"]


class Approval(StrictModel):
    """What a review board has approved.

    Attributes:
        number: The board's number of the approval, for the release document.
        policy: Redaction policy that it approved.
        until: Last day, UTC, on which the study may run.
    """

    number: Annotated[str, Field(min_length=1, max_length=100)]
    policy: str
    until: date


class Study(StrictModel):
    """A study file.

    Attributes:
        study: Its name: the file's stem, the DAG's id and the datasets' folder.
        title: One line.
        description: Markdown, shown with the DAG.
        template: The template that it fills.
        owner: Who answers for it.
        tags: For finding the DAG.
        schedule: Cron expression in UTC; ``None`` for runs by hand only.
        start_date: First day that a backfill may cover.
        approval: What a review board has approved; environments may demand one for some policies.
        exclusions: Who and what is left out, besides what the environment and the template ask for.
        parameters: Values for the template's parameters.
    """

    study: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=100)]
    title: str
    description: str = ""
    template: str
    owner: str = "research"
    tags: tuple[str, ...] = ()
    schedule: str | None = None
    start_date: date
    approval: Approval | None = None
    exclusions: ExclusionsSpec = ExclusionsSpec()
    parameters: dict[str, Any] = Field(default_factory=dict)

    @field_validator("schedule")
    @classmethod
    def _check_cron(cls, value: str | None) -> str | None:
        if value is not None:
            from croniter import croniter

            if not croniter.is_valid(value):
                raise ValueError("not a cron expression such as '0 2 * * *'")
        return value


@dataclass(frozen=True, slots=True)
class LoadedStudy:
    """A study with its template and their documents."""

    model: Study
    template: LoadedTemplate
    document: Document

    def resolve(self, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return all parameters' values: defaults, then the study's, then ``overrides``.

        Raises:
            StudyError: A value is wrong, or an override touches a parameter that a run cannot change.
        """
        given = self.template.resolve(self.model.parameters, self.document, ("parameters",))
        if not overrides:
            return given
        fixed = [
            name
            for name, value in overrides.items()
            if name in given and not self.template.model.parameters[name].runtime and value != given[name]
        ]
        if fixed:
            raise StudyError(
                f"A run cannot change {', '.join(sorted(fixed))}.",
                place=self.document.path,
                remedy="Change the study file instead.",
            )
        trigger = Document("the run's parameters", {}, {})
        return self.template.resolve({**given, **overrides}, trigger, ())


@dataclass(frozen=True, slots=True)
class Project:
    """Where studies, templates and the catalog are.

    Attributes:
        root: Folder that holds ``dags/studies``, ``templates`` and ``include/catalog``.
    """

    root: Path

    @classmethod
    def default(cls) -> Project:
        """Return the project of ``COHORTFLOW_HOME``, or the one that holds this package."""
        home = os.environ.get("COHORTFLOW_HOME")
        return cls(Path(home) if home else Path(__file__).resolve().parents[3])

    @property
    def catalog(self) -> Catalog:
        """The catalog."""
        return Catalog(self.root / "include" / "catalog")

    @property
    def templates(self) -> Path:
        """The folder of templates."""
        return self.root / "templates"

    def study_files(self) -> Iterator[Path]:
        """Yield all study files, sorted."""
        yield from sorted((self.root / "dags" / "studies").glob("*.yaml"))

    def load_study(self, study: str | Path) -> LoadedStudy:
        """Read a study by name or by file, with its template.

        Raises:
            StudyError: The study or its template is missing or wrong.
        """
        path = Path(study)
        if path.suffix != ".yaml":
            path = self.root / "dags" / "studies" / f"{study}.yaml"
        document = Document.read(path)
        model = document.validate(Study)
        if model.study != path.stem:
            raise StudyError(
                f"The study calls itself '{model.study}'.",
                place=document.place(("study",)),
                remedy=f"Name it '{path.stem}', like its file.",
            )
        return LoadedStudy(model, load_template(model.template, self.templates), document)
