"""Lists of people to leave out: where they are, and what datasets made with them go by."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from cohortflow.errors import ConfigurationError
from cohortflow.lake import open_store
from cohortflow.workflow.exclusion_record import find_excluded_later

if TYPE_CHECKING:
    from datetime import datetime

    from cohortflow.workflow.exclusion_plan import ListPlace
    from cohortflow.workflow.run import Run

__all__ = ["digest_lists", "load_list"]


def load_list(run: Run, place: ListPlace) -> tuple[bytes, str]:
    """Return a list's content and how to name it; where it is stays untold where a variable says it.

    Raises:
        ConfigurationError: The variable is not set, or there is no such file.
    """
    path = place.path
    if place.variable:
        path = run.deployment.variable(place.variable) or ""
        if not path:
            raise ConfigurationError(
                f"The variable '{place.variable}' is not set: it says where the list of protected people is.",
                remedy="Set it to a path below the raw zone or to a URI.",
            )
    named = f"variable '{place.variable}'" if place.variable else path
    if "://" in path or path.startswith("/"):
        folder, _, name = path.rpartition("/")
        content = open_store(folder, run.deployment, private=True).read(name) if name else None
    else:
        content = run.raw.read(path)
    if content is None:
        raise ConfigurationError(
            "The list of protected people is not there; without it nobody on it is protected.",
            place=named,
            remedy="Put the file there, or mend the path; nothing was published.",
        )
    return content, named


def digest_lists(run: Run, taken: datetime) -> str:
    """Return a keyed digest of lists, and of who is left out as of a later export; empty without.

    Rows depend on them, and a plain digest could be guessed at.

    Args:
        run: The run.
        taken: Transaction time of its export.
    """
    if not run.plan.exclusions:
        return ""
    key = run.key.pseudonym_key("exclusion-lists").encode()
    contents = [load_list(run, place)[0] for place in run.plan.exclusions.lists]
    for rule in run.plan.exclusions.rules:
        later = find_excluded_later(run, rule, taken)
        contents += [] if later.is_empty() else [rule.encode(), "\n".join(later["patient_id"]).encode()]
    return hmac.digest(key, b"\0".join(contents), "sha256").hex() if contents else ""
