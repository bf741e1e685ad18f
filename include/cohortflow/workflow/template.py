"""Research-workflow templates: typed parameters and the workflow that they fill."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from cohortflow.errors import StudyError
from cohortflow.workflow.document import Document, StrictModel, nearest, substitute
from cohortflow.workflow.spec import WorkflowSpec

__all__ = ["LoadedTemplate", "Parameter", "Template", "load_template"]

_PYTHON_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "list": (list, tuple),
}


class Parameter(StrictModel):
    """One parameter of a template.

    Attributes:
        type: What a value must be; ``list`` holds texts.
        help: What it means, with its unit; shown in the trigger form.
        default: Its value where a study gives none; ``None`` makes it required unless ``optional``.
        optional: Whether it may stay without a value.
        minimum: Least allowed number.
        maximum: Greatest allowed number.
        options: The only allowed values.
        runtime: Whether a run may be triggered with another value; parameters that shape the graph
            (views, schedule) are fixed.
    """

    type: Literal["string", "integer", "number", "boolean", "list"]
    help: str
    default: Any = None
    optional: bool = False
    minimum: float | None = None
    maximum: float | None = None
    options: tuple[Any, ...] | None = None
    runtime: bool = True

    @model_validator(mode="after")
    def _check_default(self) -> Self:
        if self.default is not None:
            self.check(self.default)
        return self

    def check(self, value: object) -> None:
        """Check a value.

        Raises:
            ValueError: It has the wrong type or is out of range; the text says which.
        """
        if value is None:
            if not self.optional:
                raise ValueError("a value is required")
            return
        wrong_bool = isinstance(value, bool) and self.type != "boolean"
        if wrong_bool or not isinstance(value, _PYTHON_TYPES[self.type]):
            raise ValueError(f"a value of type {self.type} is required")
        if isinstance(value, int | float) and not isinstance(value, bool):
            if self.minimum is not None and value < self.minimum:
                raise ValueError(f"the value must be at least {self.minimum:g}")
            if self.maximum is not None and value > self.maximum:
                raise ValueError(f"the value must be at most {self.maximum:g}")
        if isinstance(value, list | tuple) and not all(isinstance(item, str) for item in value):
            raise ValueError("a list of texts is required")
        if self.options is not None and value not in self.options:
            raise ValueError(f"the value must be one of {', '.join(map(str, self.options))}")

    def json_schema(self) -> dict[str, Any]:
        """Return the JSON Schema of a value, for editors and for Airflow's trigger form."""
        types: dict[str, Any] = {"list": {"type": "array", "items": {"type": "string"}}}
        schema: dict[str, Any] = dict(types.get(self.type, {"type": self.type}))
        if self.optional:
            schema["type"] = [schema["type"], "null"]
        schema["description"] = self.help
        if self.minimum is not None:
            schema["minimum"] = self.minimum
        if self.maximum is not None:
            schema["maximum"] = self.maximum
        if self.options is not None:
            schema["enum"] = [*self.options, *([None] if self.optional else [])]
        return schema


class Template(StrictModel):
    """A template file.

    Attributes:
        template: Its name, the file's stem.
        title: One line.
        description: Markdown: what studies of this kind are for.
        parameters: By name; ``workflow`` refers to them as ``${name}``.
        workflow: A ``WorkflowSpec`` with references.
    """

    template: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    title: str
    description: str
    parameters: dict[str, Parameter]
    workflow: dict[str, Any]


@dataclass(frozen=True, slots=True)
class LoadedTemplate:
    """A template with its document, for messages that name lines."""

    model: Template
    document: Document

    def resolve(self, values: Mapping[str, Any], source: Document, at: tuple[str, ...]) -> dict[str, Any]:
        """Return every parameter's value: the given ones, else the defaults.

        Args:
            values: Parameter values.
            source: The document that gave them, for messages.
            at: Where in it they stand.

        Raises:
            StudyError: A name is unknown, or a value is missing, of the wrong type or out of range.
        """
        parameters = self.model.parameters
        for name in values:
            if name not in parameters:
                raise StudyError(
                    f"The template '{self.model.template}' has no parameter '{name}'.",
                    place=source.place((*at, name)),
                    remedy=nearest(name, list(parameters), "parameter"),
                )
        resolved = {name: values.get(name, parameter.default) for name, parameter in parameters.items()}
        for name, value in resolved.items():
            try:
                parameters[name].check(value)
            except ValueError as error:
                raise StudyError(
                    f"Parameter '{name}': {error}.",
                    place=source.place((*at, name)),
                    remedy=parameters[name].help,
                ) from None
        return resolved

    def fill(self, parameters: Mapping[str, Any]) -> WorkflowSpec:
        """Return the workflow with the parameters' values in it.

        Raises:
            StudyError: A reference or the filled workflow is wrong.
        """
        at = ("workflow",)
        filled = substitute(self.model.workflow, parameters, self.document, at)
        return self.document.validate(WorkflowSpec, filled, at)


def load_template(name: str, folder: Path) -> LoadedTemplate:
    """Read a template by name.

    Raises:
        StudyError: There is none of this name, or its file is wrong.
    """
    path = folder / f"{name}.yaml"
    if not path.is_file():
        known = [entry.stem for entry in folder.glob("*.yaml")]
        raise StudyError(f"No template '{name}'.", place=str(folder), remedy=nearest(name, known, "template"))
    document = Document.read(path)
    model = document.validate(Template)
    if model.template != name:
        raise StudyError(
            f"The template calls itself '{model.template}'.",
            place=document.place(("template",)),
            remedy=f"Name it '{name}', like its file.",
        )
    return LoadedTemplate(model, document)
