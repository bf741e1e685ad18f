"""What a study may do: which policy an environment lets it use, until when, and on which source."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Final

from cohortflow.errors import PolicyError
from cohortflow.redaction.policy import RedactionPolicy, check_strictness, load_policy
from cohortflow.redaction.standards import Standard

if TYPE_CHECKING:
    from cohortflow.model import Catalog, Deployment
    from cohortflow.workflow.environment import Environment
    from cohortflow.workflow.plan import Plan
    from cohortflow.workflow.spec import RedactionSpec
    from cohortflow.workflow.study import Approval

__all__ = [
    "LABELLED",
    "check_permission",
    "choose_policy",
    "keeps_one_interval",
    "synthetic_declaration",
]

LABELLED: Final = "labelled"
"""A connection's ``synthetic`` where every Patient of the source carries the security label HTEST."""

_ALL: Final = "all"
_TRUE: Final = frozenset({"true", "yes", "1"})


def choose_policy(
    spec: RedactionSpec, environment: Environment, approval: Approval | None, catalog: Catalog
) -> RedactionPolicy:
    """Return the policy of a study, with what the study sets of it.

    It is the one that the study names, else that of its approval, else the environment's.

    Args:
        spec: What the study says.
        environment: Where it runs.
        approval: What was approved, where the environment goes by that.
        catalog: Where policies are.

    Raises:
        CatalogError: There is no such policy.
        PolicyError: It is weaker than the environment or the approval allows.
    """
    name = environment.environment
    weakest = environment.weakest_redaction
    default = environment.redaction
    approved: RedactionPolicy | None = None
    if approval is not None and environment.weakest_approved is not None:
        approved = load_policy(catalog, approval.policy)
        check_strictness(
            approved, environment.weakest_approved, environment=name, synthetic=environment.synthetic
        )
        weakest, default = approved.standard, approved.name
    policy = load_policy(catalog, spec.policy or default).configure(spec.settings)
    check_strictness(policy, weakest, environment=name, synthetic=environment.synthetic)
    if approved is not None and policy.name != approved.name and policy.strictness <= approved.strictness:
        # Policies of one standard may differ much in what they let through.
        raise PolicyError(
            f"The study was approved for policy '{approved.name}' and names '{policy.name}', "
            f"which is of the same standard.",
            remedy="Take the approved one, or one of a stricter standard; or have this one approved.",
        )
    return policy


def check_permission(plan: Plan, deployment: Deployment, *, today: date | None = None) -> None:
    """Check that a study may run now, on its source; before anything is fetched.

    Args:
        plan: The study in its environment.
        deployment: Where its connections are.
        today: The day, UTC; the clock's by default.

    Raises:
        PolicyError: It may not.
        ConnectionNotFoundError: A connection is missing.
    """
    approval = plan.approval
    if approval is not None and (today or datetime.now(UTC).date()) > approval.until:
        raise PolicyError(
            f"Approval {approval.number} of study '{plan.study}' has ended on {approval.until}.",
            remedy="Have it renewed and write its new end into the study file.",
        )
    if plan.policy.standard is not Standard.SYNTHETIC:
        return
    for connection in _connections(plan):
        declared = synthetic_declaration(deployment, connection)
        # Rows of a database bear no labels that could be looked at.
        if not declared or (declared == LABELLED and connection != plan.spec.source.connection):
            raise PolicyError(
                f"Policy '{plan.policy.name}' is for synthetic sources, "
                f"and connection '{connection}' does not declare that it is one.",
                remedy="If it holds no patients, set 'synthetic' to true in the connection's extra; "
                "else choose another policy.",
            )


def keeps_one_interval(plan: Plan, deployment: Deployment) -> bool:
    """Return whether only the latest data interval is published.

    The policy says so, but not of sources that hold no patients: comparing nights of theirs tells nothing
    of anybody. That their patients are labelled is not enough, since only policies for synthetic sources look
    at the labels.

    Raises:
        ConnectionNotFoundError: A connection is missing.
    """
    return plan.policy.snapshots == "latest" and not all(
        synthetic_declaration(deployment, connection) == _ALL for connection in _connections(plan)
    )


def _connections(plan: Plan) -> list[str]:
    sql = plan.spec.sql
    return [plan.spec.source.connection, *([sql.connection] if sql is not None else [])]


def synthetic_declaration(deployment: Deployment, connection: str) -> str:
    """Return what a connection declares: empty where it holds patients, ``all``, or ``labelled``."""
    declared = deployment.connection(connection).extra.get("synthetic", "")
    text = str(declared).strip().lower()
    if text == LABELLED:
        return LABELLED
    return _ALL if text in _TRUE else ""
