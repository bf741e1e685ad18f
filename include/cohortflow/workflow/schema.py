"""JSON Schemas of studies and templates, for editors."""

from __future__ import annotations

from typing import Any

from cohortflow.workflow.spec import WorkflowSpec
from cohortflow.workflow.study import Project, Study
from cohortflow.workflow.template import Template, load_template

__all__ = ["study_schema", "template_schema"]

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def study_schema(project: Project) -> dict[str, Any]:
    """Return the schema of a study file; its parameters depend on the template that it names."""
    schema = Study.model_json_schema()
    names = sorted(path.stem for path in project.templates.glob("*.yaml"))
    schema["$schema"] = _DIALECT
    schema["title"] = "Cohortflow study"
    schema["properties"]["template"]["enum"] = names
    schema["allOf"] = [
        {
            "if": {"properties": {"template": {"const": name}}},
            "then": {"properties": {"parameters": _parameters(name, project)}},
        }
        for name in names
    ]
    return schema


def template_schema() -> dict[str, Any]:
    """Return the schema of a template file, its workflow's keys included.

    Any value of the workflow may be a reference such as ``${min_age}``, so only names are checked.
    """
    schema = Template.model_json_schema()
    schema["$schema"] = _DIALECT
    schema["title"] = "Cohortflow template"
    workflow = WorkflowSpec.model_json_schema()
    schema["properties"]["workflow"] = {
        "type": "object",
        "additionalProperties": False,
        "required": workflow["required"],
        "properties": {
            name: {"description": text}
            for name, text in _attribute_docs(WorkflowSpec).items()
            if name in workflow["properties"]
        },
    }
    return schema


def _parameters(template: str, project: Project) -> dict[str, Any]:
    parameters = load_template(template, project.templates).model.parameters
    required = [name for name, p in parameters.items() if p.default is None and not p.optional]
    return {
        "type": "object",
        "additionalProperties": False,
        "required": required,
        "properties": {
            name: {**parameter.json_schema(), "default": parameter.default}
            for name, parameter in parameters.items()
        },
    }


def _attribute_docs(model: type) -> dict[str, str]:
    """Return the lines of a docstring's Attributes section by name."""
    _, _, section = (model.__doc__ or "").partition("Attributes:")
    docs: dict[str, str] = {}
    for line in section.splitlines():
        name, separator, text = line.strip().partition(": ")
        if separator and name.isidentifier():
            docs[name] = text
    return docs
