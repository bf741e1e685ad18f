"""A plan as a picture."""

from __future__ import annotations

from cohortflow.workflow.plan import Plan, StepKind

__all__ = ["draw_mermaid"]


def draw_mermaid(plan: Plan) -> str:
    """Return the plan as a Mermaid flowchart, one box per dataset's steps."""
    lines = ["flowchart LR"]
    grouped: dict[str, list[str]] = {}
    for step in plan.steps:
        node = f'    {_name(step.id)}["{step.kind}"]'
        if step.view and step.kind is not StepKind.LAND:
            grouped.setdefault(step.view, []).append(node)
        elif step.kind is StepKind.LAND:
            lines.append(f'    {_name(step.id)}[("{step.view}")]')
        else:
            lines.append(node)
    for view, nodes in grouped.items():
        lines.extend([f"    subgraph {view}", *(f"    {node}" for node in nodes), "    end"])
    for step in plan.steps:
        lines.extend(f"    {_name(needed)} --> {_name(step.id)}" for needed in step.needs)
    return "\n".join(lines) + "\n"


def _name(step_id: str) -> str:
    return step_id.replace(".", "_")
