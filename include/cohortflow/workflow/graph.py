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
    landed = [step for step in plan.steps if step.kind is StepKind.LAND]
    gate = _name("all valid")
    lines.append(f"    {gate}{{{{every dataset valid}}}}")
    for step in plan.steps:
        # All landings wait for all validations: drawn through one gate instead of n x n edges.
        needs = () if step in landed else step.needs
        lines.extend(f"    {_name(needed)} --> {_name(step.id)}" for needed in needs)
    lines.extend(f"    {_name(needed)} --> {gate}" for needed in landed[0].needs)
    lines.extend(f"    {gate} --> {_name(step.id)}" for step in landed)
    return "\n".join(lines) + "\n"


def _name(step_id: str) -> str:
    return step_id.replace(".", "_").replace(" ", "_")
